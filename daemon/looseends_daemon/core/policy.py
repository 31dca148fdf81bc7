"""What the operator decided about time: defaults and, for single types, exceptions. The first rule that matches wins."""

from __future__ import annotations

from fnmatch import fnmatchcase

from looseends.wire import NEVER
from looseends_daemon.core.resources import Value

NS = 1_000_000_000
HOUR_S = 3600.0


class TaskRule(Value, frozen=True):
    """One `[[task]]` of the configuration: `match` is a glob over "service/name"; None leaves the default in force.

    `failures`: "incident" (a failure for good is a loose end) or "ledger" (it is only counted). `overlap`: "warn" flags two
    live tasks with the same key, or without one the same arguments.
    """

    match: str
    deadline: float | None = None
    start_within: float | None = None
    severity: str | None = None
    open_after: int = 1
    failures: str = "incident"
    overlap: str = "allow"


class AfterRule(Value, frozen=True):
    """One `[[expect]] after`: a task `name` must begin within so many seconds after each task `after` started."""

    environment: str
    after: str
    name: str
    by: str
    within: float
    service: str | None = None


class Policy(Value, frozen=True):
    """All durations in seconds. `heartbeat_every` is what clients keep.

    `behind_after` is how long an instance may lag without getting on, `draining_for` how long while its backlog falls.
    `exports`: the signals (span, log) that are noted for a collector.
    """

    default_deadline: float = 300.0
    start_within: float = 60.0
    grace: float = 5.0
    heartbeat_every: float = 10.0
    unreachable_after: float = 30.0
    behind_after: float = 600.0
    draining_for: float = HOUR_S
    rules: tuple[TaskRule, ...] = ()
    after: tuple[AfterRule, ...] = ()
    exports: tuple[str, ...] = ()

    def rule(self, service: str, name: str) -> TaskRule | None:
        """The first rule whose glob matches this type."""
        full = f"{service}/{name}"
        return next((rule for rule in self.rules if fnmatchcase(full, rule.match)), None)

    def deadline(self, service: str, name: str, told: float | None, declared: bool) -> float:
        """Seconds a run may take, or NEVER: what the client told, else configuration, else 300 s declared, never captured."""
        if told is not None:
            return told
        rule = self.rule(service, name)
        if rule is not None and rule.deadline is not None:
            return rule.deadline
        return self.default_deadline if declared else NEVER

    def starting(self, service: str, name: str, told: float | None, waits_its_turn: bool) -> float:
        """Seconds until scheduled work must have begun, or NEVER. Queued work waits its turn unless somebody said otherwise."""
        if told is not None:
            return told
        rule = self.rule(service, name)
        if rule is not None and rule.start_within is not None:
            return rule.start_within
        return NEVER if waits_its_turn else self.start_within
