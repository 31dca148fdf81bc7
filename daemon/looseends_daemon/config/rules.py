"""Settings as the values that decisions take: what `core` must know, without where it came from."""

from __future__ import annotations

import hashlib
import os
import shlex

from looseends.wire import NS
from looseends_daemon.config.export import export_of
from looseends_daemon.config.settings import Settings
from looseends_daemon.core.expect import CronRule
from looseends_daemon.core.incidents import AlertRules, EndpointRule
from looseends_daemon.core.matchers import matcher
from looseends_daemon.core.policy import AfterRule, Policy, TaskRule
from looseends_daemon.core.retention import Rules


def task_rules(settings: Settings) -> tuple[TaskRule, ...]:
    """The [[task]] rules in the order of the file."""
    return tuple(
        TaskRule(
            match=rule.match,
            deadline=rule.deadline,
            start_within=rule.start_within,
            severity=rule.severity,
            open_after=rule.open_after,
            failures=rule.failures,
            overlap=rule.overlap,
        )
        for rule in settings.tasks
    )


def policy(settings: Settings) -> Policy:
    """What the detector decides by."""
    detect = settings.detect
    return Policy(
        default_deadline=detect.default_deadline,
        start_within=detect.start_within,
        grace=detect.grace,
        unreachable_after=detect.unreachable_after,
        rules=task_rules(settings),
        after=after_rules(settings),
        exports=export_of(settings.otel, os.environ).signals,
    )


def after_rules(settings: Settings) -> tuple[AfterRule, ...]:
    """The [[expect]] tables that name a task to follow."""
    return tuple(
        AfterRule(
            environment=one.environment,
            after=one.after,
            name=one.name,
            by=one.by or "key",
            within=one.within,
            service=one.service,
        )
        for one in settings.expects
        if one.after is not None
    )


def cron_rules(settings: Settings) -> tuple[CronRule, ...]:
    """The [[expect]] tables with a cron line."""
    return tuple(
        CronRule(
            environment=one.environment, service=one.service or "", name=one.name, cron=one.cron, tz=one.tz, within=one.within
        )
        for one in settings.expects
        if one.cron is not None
    )


def retention_rules(settings: Settings) -> Rules:
    """What the janitor decides by."""
    storage = settings.storage
    return Rules(
        finished=int(storage.retain_finished * NS),
        failed=int(max(storage.retain_failed, storage.retain_finished) * NS),
        size_bytes_max=storage.max_size,
    )


def alert_rules(settings: Settings) -> AlertRules:
    """What incidents and notices are decided by. Holds no secrets: of an address only its fingerprint."""
    alerts = settings.alerts
    return AlertRules(
        group_wait=alerts.group_wait,
        group_interval=alerts.group_interval,
        repeat_interval=alerts.repeat_interval,
        keep_open_for=alerts.keep_open_for,
        ack_expires=alerts.ack_expires,
        settle_failed_after=settings.detect.settle_failed_after,
        sample_tasks=alerts.sample_tasks,
        tasks=task_rules(settings),
        endpoints=tuple(
            EndpointRule(
                name=endpoint.name,
                fingerprint=hashlib.sha256(f"{endpoint.kind} {endpoint.url}".encode()).hexdigest()[:16],
                min_severity=endpoint.min_severity,
                include_args=endpoint.include_args,
                timeout=endpoint.timeout,
                kind=endpoint.kind,
                match=tuple(matcher(one) for one in endpoint.match),
                max_per_minute=endpoint.max_per_minute,
            )
            for endpoint in settings.endpoints
        ),
        external_url=settings.server.external_url,
        instance=settings.server.instance,
        command=_command(settings),
    )


def _command(settings: Settings) -> str | None:
    """The beginning of a curl command that asks this daemon on its own host; None: no address is known in advance."""
    token = shlex.quote(f"{settings.storage.path}.token")
    curl = f'curl -s -H "Authorization: Bearer $(cat {token})"'
    for address in settings.server.listen:
        if address.startswith("unix:"):
            return f"{curl} --unix-socket {shlex.quote(address[5:])} http://localhost"
        host, _, port = address.rpartition(":")
        if port != "0":
            reached = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)
            return f"{curl} {shlex.quote(f'http://{reached}:{port}')}"
    return None
