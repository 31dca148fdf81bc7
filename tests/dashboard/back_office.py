"""What the shop's other pages show: silences, dismissals, endpoints, types, the audit log and the daemon itself."""

from __future__ import annotations

from typing import Any

from looseends.wire import NS
from looseends_daemon.core.durations import BOUNDS_S, bin_of, quantile, suggestions
from looseends_daemon.core.endpoints import Endpoint
from looseends_daemon.core.marks import Dismissal, Silence
from looseends_daemon.core.resources import AuditRow
from looseends_daemon.core.task_types import Bin, Slice, TaskType, TypeStory
from looseends_daemon.core.vitals import LoopVitals, Vitals

MINUTE = 60 * NS


def lists(now: int) -> dict[str, Any]:
    """Everything that a FakeReader holds beside tasks."""
    return {
        "all_silences": _silences(now),
        "all_dismissals": _dismissals(now),
        "all_endpoints": _endpoints(now),
        "all_stories": _stories(now),
        "all_audit": _audit(now),
        "vitals": _vitals(now),
    }


def _silences(now: int) -> list[Silence]:
    base: dict[str, Any] = {"author": "ada", "created_at": now - 60 * MINUTE, "starts_at": now - 60 * MINUTE}
    partner = {"matchers": ['service="shop-web"', 'name=~"partner\\..*"'], "comment": "their API is down until noon"}
    return [
        Silence(id="sil_1", state="active", ends_at=now + 60 * MINUTE, **partner, **base),
        Silence(id="sil_0", state="expired", ends_at=now - 30 * MINUTE, ended_by="ada", **partner, **base),
    ]


def _dismissals(now: int) -> list[Dismissal]:
    base: dict[str, Any] = {"by": "ada", "note": "test orders of the load test", "digest": "d" * 32, "undone": 0}
    fresh = {"at": now - 2 * MINUTE, "undo_until_at": now + 8 * MINUTE}
    return [
        Dismissal(id="dis_2", state="done", what="incident inc_old", total=4, dismissed=4, **fresh, **base),
        Dismissal(
            id="dis_1", state="undone", what="query 'name:x'", total=9, dismissed=9, at=now - 90 * MINUTE, undo_until_at=0, **base
        ),
    ]


def _endpoints(now: int) -> list[Endpoint]:
    return [
        Endpoint(
            name="pager", kind="webhook", state="ok", changed_at=now - 900 * MINUTE, delivered_at=now - 3 * MINUTE, backlog=1
        ),
        Endpoint(
            name="chat",
            kind="apprise",
            state="failing",
            changed_at=now - 9 * MINUTE,
            failures=4,
            detail="503: upstream is down",
            next_attempt_at=now + MINUTE,
            match=['service=~"shop-.*"'],
            min_severity="critical",
        ),
        Endpoint(
            name="old", kind="webhook", state="disabled", changed_at=now - 900 * MINUTE, disabled_by="ada", include_args=True
        ),
    ]


def _stories(now: int) -> list[TypeStory]:
    seconds = [0.4 + n % 9 * 0.1 for n in range(180)] + [2.2, 3.9, 11.0]
    bins: dict[int, int] = {}
    for one in seconds:
        bins[bin_of(round(one * NS))] = bins.get(bin_of(round(one * NS)), 0) + 1
    window = {"from_": now - 1440 * MINUTE, "to": now}
    slices = [Slice(at=now - n * 60 * MINUTE, tasks=7 + n % 3, gap=int(n == 4), failed=int(n == 9)) for n in range(24)]
    measured = {"typical": quantile(bins, 0.5), "slow": quantile(bins, 0.95), "measured": len(seconds)}
    mail = TaskType(
        service="shop-web",
        name="mail.send_receipt",
        tasks=186,
        succeeded=183,
        failed=1,
        in_time=1,
        gap=1,
        loose=2,
        last_began_at=now - MINUTE,
        deadline=30.0,
        rule="shop-web/mail.*",
        offered=True,
        slices=slices,
        **measured,
    )
    loop = TaskType(service="shop-web", name="poll.inbox", tasks=3, in_time=1, cancelled=2, loops=2, is_loop=True)
    shown = range(min(bins), max(bins) + 1)
    durations = [Bin(upto=BOUNDS_S[n] if n < len(BOUNDS_S) else None, count=bins.get(n, 0)) for n in shown]
    return [TypeStory(type=mail, durations=durations, suggestions=suggestions(bins), **window), TypeStory(type=loop, **window)]


def _audit(now: int) -> list[AuditRow]:
    return [
        AuditRow(at=now - MINUTE, actor="ada", act="dismiss", subject="dis_2", detail="4 loose ends of incident inc_old"),
        AuditRow(at=now - 2 * MINUTE, actor="operator token", act="replay_task", subject="rep_1"),
        AuditRow(at=now - 90 * MINUTE, actor="operator token", act="create_token", subject="viewer 7"),
    ]


def _vitals(now: int) -> Vitals:
    figures = {
        "sizes": {"used": 81_000_000, "file": 90_000_000, "disk_free": 10**11, "disk_total": 2 * 10**11},
        "forecast": {"bytes_per_task": 640.0, "bytes_per_day": 9e6, "levels_off_at": 7e8, "limit": 10**10, "days_left": None},
        "wal": 4_000_000,
        "commits": 41_205,
        "queued": 3 << 20,
        "queued_most": 9 << 20,
        "queued_max": 32 << 20,
        "refused": 2,
        "behind_instances": 1,
        "behind_records": 41_000,
        "removed": 12_000,
        "given_up": 0,
    }
    return Vitals(
        version="1.0",
        started_at=now - 6000 * MINUTE,
        addresses=["http://127.0.0.1:3637", "unix:/run/user/1000/looseends.sock"],
        database="/var/lib/looseends/looseends.db",
        python="3.12.7",
        wrong=["the dispatcher of chat has not run through lately"],
        notes=["1 endpoint is disabled"],
        loops=[LoopVitals(name="detector", healthy=True, idle=0.4), LoopVitals(name="chat", healthy=False, idle=400.0, errors=9)],
        readers=2,
        memory=58_000_000,
        storage=figures,
        configuration='[server]\nlisten = ["127.0.0.1:3637"]\n',
    )
