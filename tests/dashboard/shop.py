"""A shop on a bad day, on a good day, before its first day, and under attack: what the pages are tested on."""

from __future__ import annotations

import dataclasses
import uuid
from typing import Any

import msgspec
from aiohttp import web

from dashboard import back_office
from dashboard.fakes import FakeReader
from looseends.wire import NS, parse_time
from looseends_daemon.core.front import Happened
from looseends_daemon.core.resources import (
    BlindWindow,
    Bucket,
    Counts,
    DeliveryAttempt,
    Error,
    HistoryEntry,
    Incident,
    Instance,
    InstanceRef,
    Notice,
    Progress,
    Replay,
    ReplayItem,
    Task,
)

NOW = parse_time("2026-11-20T14:10:00Z")
MINUTE = 60 * NS
GAP_INSTANCE = "0f1e2d3c-web-2"


def task_id(number: int) -> str:
    """The id of the shop's n-th task."""
    return str(uuid.UUID(int=0x019A_0000_0000_8000_8000_0000_0000_0000 + number))


# --- the shop -----------------------------------------------------------------------------------------------------

WEB_1 = InstanceRef(id="7a6b5c4d-web-1", host="web-1", pid=3107, release="2026.11.3", alive=True)
WEB_2 = InstanceRef(id=GAP_INSTANCE, host="web-2", pid=4121, release="2026.11.3", alive=False)


def _task(number: int, name: str, state: str, minutes_ago: float, **more: Any) -> Task:
    began = NOW - int(minutes_ago * MINUTE)
    base: dict[str, Any] = {
        "id": task_id(number),
        "name": name,
        "service": "shop-web",
        "environment": "production",
        "state": state,
        "began_at": began,
        "scheduled_at": began,
        "started_at": began + 20_000_000,
        "due_at": began + 30 * NS,
        "args": {"order_id": 1000 + number, "customer": f"c_{number:05x}"},
        "source": "starlette",
        "request": "POST /register",
        "instance": WEB_1,
        "url": f"http://127.0.0.1:3637/tasks/{task_id(number)}",
    }
    if state in ("succeeded", "failed", "cancelled") and "duration" not in more:
        base |= {"duration": 0.2 + number % 7 * 0.17, "ended_at": began + NS}
    return Task(**(base | more))


TRACEBACK = """Traceback (most recent call last):
  File "/srv/shop/jobs.py", line 88, in deliver
    response = client.post(url, json=body)
  File "/srv/venv/lib/python3.12/site-packages/httpx/_client.py", line 1157, in post
    return self.request("POST", url)
TimeoutError: upstream did not answer in 30 s"""
STUCK = [
    "/srv/shop/mail.py:88 in send",
    "    reply = await client.post(url)",
    "/srv/venv/lib/python3.12/site-packages/httpx/_transports/default.py:72 in read",
]


def _loose() -> list[Task]:
    lost_reason = "process killed; last heard 14:05:31"
    lost: dict[str, Any] = {"verdict": "lost", "loose": True, "reason": lost_reason, "instance": WEB_2, "incident": "inc_lost"}
    asked: dict[str, Any] = {"replayable": True}
    stuck: dict[str, Any] = {
        "verdict": "stuck",
        "loose": True,
        "incident": "inc_stuck",
        "reason": "no end within 30 s; stuck in mail.py:88 send -> httpx read",
        "progress": Progress(done=0.4, note="connecting", at=NOW - 6 * MINUTE, stack=STUCK),
        "not_replayable_because": "it has not ended and its process lives (web-1, pid 3107)",
    }
    failure = Error(type="TimeoutError", message="upstream did not answer in 30 s", traceback=TRACEBACK)
    failed: dict[str, Any] = {"loose": True, "error": failure, "incident": "inc_failed", "key": "order-7"}
    return [
        _task(1, "mail.send_welcome", "running", 5, key="ada@example.com", **lost, **asked),
        _task(2, "audit.write_row", "running", 5.2, **lost, **asked),
        _task(3, "mail.send_welcome", "running", 6, **lost, **asked),
        _task(4, "mail.send_receipt", "running", 7, **stuck),
        _task(5, "partner.webhook", "failed", 12, duration=30.02, ended_at=NOW - 11 * MINUTE, **failed, **asked),
        _task(6, "partner.webhook", "failed", 14, duration=30.01, ended_at=NOW - 13 * MINUTE, **failed, **asked),
        _task(
            7,
            "search.reindex_customer",
            "scheduled",
            20,
            started_at=None,
            verdict="never_started",
            loose=True,
            incident="inc_never",
            reason="dropped before its start: a background task before it in the same response raised",
            **asked,
        ),
    ]


def _quiet() -> list[Task]:
    names = ("mail.send_receipt", "audit.write_row", "images.thumbnail", "reports.export_csv")
    replayed = _task(
        8,
        "mail.send_welcome",
        "running",
        40,
        verdict="lost",
        settled="replayed",
        replays=[task_id(9)],
        instance=WEB_2,
        incident="inc_old",
        reason="process killed; last heard 13:30:02",
    )
    return [
        _task(10, "images.thumbnail", "running", 0.2, due_at=NOW + 20 * NS),
        *(_task(20 + n, names[n % 4], "succeeded", 1 + n * 0.5, flags=["late"] if n == 3 else []) for n in range(70)),
        replayed,
        _task(9, "mail.send_welcome", "succeeded", 38, replay_of=task_id(8), result={"sent": True}),
        _task(11, "reports.export_csv", "cancelled", 50, reason="requested"),
    ]


def _buckets() -> list[Bucket]:
    rows = []
    for minute in range(1, 1440):
        tasks = 30 + minute * 7 % 23
        failed = 1 if minute % 41 == 0 else 0
        gap = {5: 37, 20: 1, 300: 1, 700: 4, 1100: 1}.get(minute, 0)
        in_time = 8 - minute if minute < 8 else 0
        rows.append(
            Bucket(
                at=NOW - minute * MINUTE,
                tasks=tasks,
                succeeded=tasks - failed - gap - in_time,
                failed=failed,
                in_time=in_time,
                gap=gap,
                loose=gap if minute < 600 else 0,
                settled_gap=gap if minute >= 600 else 0,
            )
        )
    return rows


def _incident(key: str, state: str, problem: str, title: str, open_: int, total: int, **more: Any) -> Incident:
    base: dict[str, Any] = {
        "environment": "production",
        "service": "shop-web",
        "name": None,
        "instance": None,
        "severity": "critical" if problem in ("lost", "never_started", "missed") else "warning",
        "reason": "first_notification",
        "opened_at": NOW - 5 * MINUTE,
        "counts": Counts(open=open_, total=total, settled={"replayed": total - open_}),
        "why": [
            {"at": NOW - 5 * MINUTE, "reason": "first_notification", "detail": "the first loose end of this cause"},
            {"at": NOW - 3 * MINUTE, "reason": "new_tasks", "detail": "2 more tasks"},
        ],
    }
    return Incident(id=key, state=state, problem=problem, title=title, **(base | more))


def _incidents() -> list[Incident]:
    partner, search, ack = "partner.webhook", "search.reindex_customer", {"by": "ada"}
    over: dict[str, Any] = {"instance": WEB_2.id, "resolved_at": NOW - 30 * MINUTE, "resolution": "all_settled"}
    died = "lost when shop-web on web-2 died at"
    return [
        _incident("inc_lost", "open", "lost", f"3 tasks {died} 14:05", 3, 3, instance=WEB_2.id),
        _incident("inc_stuck", "open", "stuck", "mail.send_receipt is stuck", 1, 1, name="mail.send_receipt"),
        _incident("inc_failed", "open", "failed", f"{partner} failed twice", 2, 2, name=partner, acknowledged=ack),
        _incident("inc_never", "open", "never_started", f"{search} never started", 1, 1, name=search),
        _incident("inc_old", "resolved", "lost", f"1 task {died} 13:30", 0, 1, **over),
    ]


def _notices() -> list[Notice]:
    tries = [
        DeliveryAttempt(at=NOW - 5 * MINUTE, status=None, duration=5.0, detail="no answer within 5 s"),
        DeliveryAttempt(at=NOW - 4 * MINUTE, status=503, duration=0.031, detail="upstream is down"),
    ]
    good = [*tries, DeliveryAttempt(at=NOW - 3 * MINUTE, status=204, duration=0.012)]
    base: dict[str, Any] = {"incident": "inc_lost", "endpoint": "pager", "created_at": NOW - 5 * MINUTE}
    waiting: dict[str, Any] = base | {"state": "pending", "next_attempt_at": NOW + 20 * NS}
    sent: dict[str, Any] = base | {"state": "delivered", "delivered_at": NOW - 3 * MINUTE}
    updated, opened = "looseends.incident.updated", "looseends.incident.opened"
    return [
        Notice(id="msg_2", type=updated, reason="new_tasks", attempts=tries, **waiting),
        Notice(id="msg_1", type=opened, reason="first_notification", attempts=good, **sent),
    ]


def _histories() -> dict[str, list[HistoryEntry]]:
    began = NOW - 5 * MINUTE
    fact: dict[str, Any] = {"kind": "fact", "instance": WEB_2.id}
    return {
        task_id(1): [
            HistoryEntry(at=began, what="scheduled", reason="behind POST /register", **fact),
            HistoryEntry(at=began + 20_000_000, what="started", **fact),
            HistoryEntry(
                at=began + 32 * NS, kind="judgement", what="verdict", verdict="lost", reason="process killed; last heard 14:05:31"
            ),
            HistoryEntry(at=began + 32 * NS, kind="judgement", what="loose", reason="its process is gone"),
        ]
    }


def _instances() -> list[Instance]:
    base: dict[str, Any] = {"service": "shop-web", "environment": "production", "release": "2026.11.3", "python": "3.12.7"}
    offer = {"name": "mail.send_welcome", "signature": "(email: str) -> None", "replay": "yes", "caution": None}
    return [
        Instance(
            **base,
            id=WEB_1.id,
            state="alive",
            reason="its journal is held on this host",
            host="web-1",
            pid=3107,
            last_heard_at=NOW - NS,
            open=2,
            functions=[offer],
        ),
        Instance(
            **base,
            id=WEB_2.id,
            state="gone",
            reason="process ended without saying goodbye: killed or crashed; last heard 14:05:31",
            host="web-2",
            pid=4121,
            last_heard_at=NOW - 4 * MINUTE,
            open=3,
            backlog=1,
            dropped=2,
            skew=3.5,
        ),
    ]


def _replays() -> list[Replay]:
    name = "mail.send_welcome"
    item = ReplayItem(id=task_id(9), task=task_id(8), name=name, state="succeeded")
    unknown = ReplayItem(id=task_id(99), task=task_id(3), name=name, state="outcome_unknown", detail="web-2 died.")
    base: dict[str, Any] = {"requested_by": "operator token", "requested_at": NOW - 38 * MINUTE}
    open_, done = {"total": 1, "outcome_unknown": 1}, {"total": 1, "succeeded": 1}
    return [
        Replay(id="rep_2", state="running", counts=open_, items=[unknown], **base),
        Replay(id="rep_1", state="done", note="after the deploy", counts=done, items=[item], **base),
    ]


def full() -> FakeReader:
    """A shop on a bad day."""
    tasks = sorted([*_loose(), *_quiet()], key=lambda task: -(task.began_at or 0))
    beside: dict[str, Any] = {"all_marks": _marks(), "all_blind": _blind(), "last": NOW - 2 * NS} | back_office.lists(NOW)
    return FakeReader(tasks, _histories(), _incidents(), _notices(), _replays(), _instances(), _buckets(), **beside)


def _marks() -> list[Happened]:
    where: dict[str, Any] = {"service": "shop-web", "environment": "production"}
    dead: dict[str, Any] = where | {"what": "death", "instance": WEB_2.id, "host": "web-2", "pid": 4121}
    return [
        Happened(what="release", at=NOW - 9 * MINUTE, release="2026.11.3", **where),
        Happened(what="release", at=NOW - 700 * MINUTE, release="2026.11.2", **where),
        Happened(at=NOW - 5 * MINUTE, **dead),
        Happened(at=NOW - 702 * MINUTE, **dead),
    ]


def _blind() -> list[BlindWindow]:
    said = "the daemon was not running from 19 Nov 22:00 to 22:40, for 40 min"
    return [BlindWindow(cause="down", from_=NOW - 970 * MINUTE, to=NOW - 930 * MINUTE, reason=said)]


def calm() -> FakeReader:
    """The same shop on a good day: nothing loose, nothing missing."""
    tasks = [_task(20 + n, "audit.write_row", "succeeded", n + 1) for n in range(12)]
    rows = [Bucket(at=NOW - n * MINUTE, tasks=20, succeeded=20) for n in range(1, 60)]
    return FakeReader(tasks, all_instances=_instances()[:1], buckets=rows, last=NOW - 2 * NS)


def empty() -> FakeReader:
    """A daemon that has never seen anything."""
    return FakeReader()


class Broken(FakeReader):
    """A store that cannot be read at the moment; what is asked first still answers."""

    async def last_event_at(self) -> int | None:
        return NOW

    def __getattribute__(self, name: str) -> Any:
        if name in _READS:
            raise web.HTTPServiceUnavailable(reason="the database cannot be read at the moment")
        return super().__getattribute__(name)


_READS = ("tasks", "task", "ledger", "incidents", "incident", "replays", "replay", "instances", "instance")


def broken() -> FakeReader:
    """A daemon whose disk is gone."""
    return Broken()


EVIL = (
    "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7*7 }}</pre></textarea>]]>-->&amp;"
    "\u202etxt.exe\x00\x1b[31m\x85\ufffe"
)
LONG = "ж" * 300_000


def _spoil(value: Any, text: str) -> Any:
    """Every piece of foreign text in a resource replaced, deep down; words of ours and ids that are addresses stay."""
    if isinstance(value, str):
        return text
    if isinstance(value, list):
        return [_spoil(item, text) for item in value]
    if isinstance(value, dict):
        return {text + str(key): _spoil(item, text) for key, item in value.items()}
    if isinstance(value, msgspec.Struct):
        kept = ("state", "verdict", "settled", "kind", "what", "id", "incident")
        return msgspec.structs.replace(
            value, **{f: _spoil(getattr(value, f), text) for f in value.__struct_fields__ if f not in kept}
        )
    return value


def hostile(text: str = EVIL) -> FakeReader:
    """The bad day, with this text in every field that somebody outside can fill."""
    shop = full()
    spoiled = {f.name: getattr(shop, f.name) for f in dataclasses.fields(shop)}
    for name in spoiled:
        if name.startswith("all_"):
            spoiled[name] = _spoil(spoiled[name], text)
    spoiled["histories"] = {key: _spoil(rows, text) for key, rows in shop.histories.items()}
    return FakeReader(**spoiled)


PATHS = (
    "/",
    "/?window=1h",
    "/?window=7d",
    "/tasks",
    "/tasks?q=is:loose",
    "/tasks?q=stat:x",
    "/tasks?q=name:none",
    f"/tasks/{task_id(1)}",
    f"/tasks/{task_id(4)}",
    f"/tasks/{task_id(5)}",
    f"/tasks/{task_id(8)}",
    "/tasks/nobody",
    "/incidents",
    "/incidents/inc_lost",
    "/incidents/inc_failed",
    "/incidents/inc_old",
    "/silences",
    "/silences?matchers=service%3D%22shop-web%22",
    "/endpoints",
    "/notices/msg_1",
    "/notices/msg_2",
    "/dismissals/dis_1",
    "/dismissals/dis_2",
    "/types",
    "/types/shop-web/mail.send_receipt",
    "/types/shop-web/nobody?window=7d",
    "/types?window=8h",
    "/status",
    "/audit",
    "/replays",
    "/replays/rep_1",
    "/replays/rep_2",
    "/instances",
    f"/instances/{GAP_INSTANCE}",
    "/setup",
)
