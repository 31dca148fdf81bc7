"""Random lives of tasks, processes, people and receivers: whatever happens, the alert machine keeps its promises.

More of them, and how many notices they made: `MODEL_HISTORIES=2000 pytest -s tests/daemon/incidents/test_any_history.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from looseends.wire import NS
from looseends_daemon.core import incidents as machine
from looseends_daemon.core.incidents import AlertRules, EndpointRule
from looseends_daemon.core.policy import TaskRule
from looseends_daemon.core.resources import CommandRefused
from looseends_daemon.store import outbox

OPS = EndpointRule(name="ops", fingerprint="1")
PAGER = EndpointRule(name="pager", fingerprint="1", min_severity="critical")
RULES = AlertRules(
    group_wait=1,
    group_interval=20,
    repeat_interval=120,
    keep_open_for=3,
    endpoints=(OPS, PAGER),
    tasks=(TaskRule(match="*/slow.*", open_after=2), TaskRule(match="*/vital.*", severity="critical")),
)
NAMES = ("mail.send", "slow.cache", "vital.pay")
ACTS: dict[str, tuple[Any, ...]] = {
    "start": NAMES,
    "crash": NAMES,
    "hang": NAMES,
    "fail": tuple(range(8)),
    "finish": tuple(range(8)),
    "retry": tuple(range(8)),
    "kill": (None,),
    "return": (None,),
    "wait": (0.0, 0.4, 1.0, 3.0, 21.0, 31.0, 130.0),
    "lease": (OPS, PAGER),
    "answer": (200, 200, 500, None),
    "restart": (None,),
    "acknowledge": (60.0, 600.0),
    "silence": ("name=~mail.*", "service=shop-web, problem!=lost", "severity=critical"),
    "loud": (None,),
    "dismiss": tuple(range(8)),
    "dismiss_incident": (0, 1, 2),
    "undo": (0, 1, 2),
}
act = st.sampled_from([(what, how) for what, hows in ACTS.items() for how in hows])
SEEN = {"histories": 0, "incidents": 0, "notices": 0}


class Life:
    """A ground, what is running on it, and what the receivers were sent and took."""

    def __init__(self, ground: Any) -> None:
        self.ground = ground
        self.tasks: list[str] = []
        self.flying: list[Any] = []
        self.taken: list[tuple[str, dict[str, Any]]] = []
        self.silences: list[str] = []
        self.dismissals: list[str] = []
        self.checked = 0
        self.cut_off: set[tuple[str, str]] = set()

    def do(self, what: str, how: Any) -> None:
        getattr(self, f"do_{what}")(how)
        self.ground.detect()

    # --- people ---

    def _unresolved(self) -> list[Any]:
        return [one for one in reversed(self.ground.incidents()) if one.state != "resolved"]

    def do_acknowledge(self, seconds: float) -> None:
        for one in self._unresolved()[:1]:
            self.ground.acknowledge(one.id, expires=seconds)

    def do_silence(self, matchers: str) -> None:
        self.silences.append(self.ground.silence(matchers, seconds=50))

    def do_loud(self, _: None) -> None:
        """The newest silence is ended before its time, if that has not passed."""
        with contextlib.suppress(CommandRefused), contextlib.suppress(IndexError):
            self.ground.end_silence(self.silences.pop())
        if self.ground.conn.in_transaction:
            self.ground.conn.execute("ROLLBACK")

    def do_dismiss(self, n: int) -> None:
        if (task := self._pick(n)) is not None:
            self._dismiss(q=f"id:{task}")

    def do_dismiss_incident(self, n: int) -> None:
        for one in self._unresolved()[n : n + 1]:
            self._dismiss(incident=one.id)

    def _dismiss(self, **which: str) -> None:
        with contextlib.suppress(CommandRefused):
            self.dismissals.append(self.ground.dismiss(**which))

    def do_undo(self, n: int) -> None:
        with contextlib.suppress(CommandRefused):
            for dismissal in self.dismissals[-1 - n :][:1]:
                self.ground.undo(dismissal)
        if self.ground.conn.in_transaction:
            self.ground.conn.execute("ROLLBACK")

    # --- tasks, processes, receivers ---

    def do_start(self, name: str) -> None:
        self.tasks.append(self.ground.start(name))

    def do_crash(self, name: str) -> None:
        """It fails for good, and somebody is told."""
        self.do_start(name)
        self.do_fail(0)
        self.ground.detect()
        self.ground.after(1)

    def do_hang(self, name: str) -> None:
        self.do_start(name)
        self.ground.after(30)
        self.ground.after(1)

    def _pick(self, n: int) -> str | None:
        return self.tasks[-1 - n] if n < len(self.tasks) else None

    def do_fail(self, n: int) -> None:
        if (task := self._pick(n)) is not None:
            self.ground.fail(task)

    def do_finish(self, n: int) -> None:
        if (task := self._pick(n)) is not None:
            self.ground.finish(task)

    def do_retry(self, n: int) -> None:
        if (task := self._pick(n)) is not None:
            self.ground.retry(task)

    def do_kill(self, _: None) -> None:
        self.ground.kill()
        self.ground.detect()
        self.ground.boot()

    def do_return(self, _: None) -> None:
        """Everybody who seemed gone is heard again."""
        self.ground.conn.execute("UPDATE instance SET state = 'alive'")
        self.ground.conn.execute("UPDATE task SET check_at = ? WHERE state < 3", (self.ground.now,))

    def do_wait(self, seconds: float) -> None:
        self.ground.later(seconds)

    def do_lease(self, endpoint: EndpointRule) -> None:
        self.flying += [(self.ground.now, message) for message in self.ground.lease(endpoint, 2)]

    def do_answer(self, status: int | None) -> None:
        """An attempt ends, within its time limit: a sender gives up before its lease does."""
        if self.flying:
            began, message = self.flying.pop(0)
            if self.ground.now - began > OPS.timeout * NS:
                return
            if status == 200:
                self.taken.append((message.endpoint, json.loads(message.body)))
            self.ground.answer(message, status)

    def do_restart(self, _: None) -> None:
        """The daemon dies with attempts in flight; the first of them had arrived, which nobody wrote down."""
        for _, message in self.flying[:1]:
            event = json.loads(message.body)
            self.taken.append((message.endpoint, event))
            self.cut_off.add((message.endpoint, event["subject"]))
        self.flying = []
        with self.ground.transaction():
            outbox.begin(self.ground.conn, self.ground.now, RULES.endpoints)

    def finish_everything(self) -> None:
        for task in self.tasks:
            self.ground.retry(task)
        for _ in range(4):
            self.ground.after(30)
        while self.flying:
            self.do_answer(200)
        for _ in range(12):
            for endpoint in RULES.endpoints:
                self.do_lease(endpoint)
            while self.flying:
                self.do_answer(200)
            self.ground.after(3600)


def check_incident(ground: Any, incident: Any) -> None:
    """Its own history: begun once, opened at most once and before all else that is told, resolved last."""
    reasons = [why["reason"] for why in incident.why]
    assert reasons[0] == "first_loose_end"
    assert reasons.count("first_notification") <= 1
    if "first_notification" in reasons:
        assert reasons[1] == "first_notification"
    states = [why["state"] for why in incident.why]
    assert [s for s in states if s == "resolved"] == (["resolved"] if incident.state == "resolved" else [])
    if incident.state == "resolved":
        assert states[-1] == "resolved"
        assert incident.counts.open == 0
    else:
        live = [other.id for other in ground.incidents() if other.state != "resolved" and key(other) == key(incident)]
        assert live == [incident.id]


def key(incident: Any) -> tuple[Any, ...]:
    return incident.environment, incident.service, incident.name, incident.instance


def check_receivers(life: Life) -> None:
    """What arrived: opened once and first (or only the end), growing sequence, nothing after the end.

    A receiver knows a message that arrives twice by its id, as the guarantee asks of it; the bytes must be the same. Where the
    daemon died before it had the answer it may say `opened` once more in a newer message: better twice than never.
    """
    once: dict[str, tuple[str, dict[str, Any]]] = {}
    for endpoint, event in life.taken:
        assert once.setdefault(event["id"], (endpoint, event)) == (endpoint, event)
    seen: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for endpoint, event in once.values():
        seen.setdefault((endpoint, event["subject"]), []).append(event)
    for whose, events in seen.items():
        types = [event["type"].rpartition(".")[2] for event in events]
        assert types[0] in ("opened", "resolved")
        assert types.count("opened") <= (2 if whose in life.cut_off else 1)
        assert "resolved" not in types[:-1]
        numbers = [event["data"]["sequence"] for event in events]
        assert numbers == sorted(set(numbers))
        for event in events:
            counts = event["data"]["incident"]["counts"]
            assert counts["total"] == counts["open"] + sum(counts["settled"].values())
            assert counts["open"] == 0 or not event["type"].endswith("resolved")
            assert counts["open"] > 0 or event["type"].endswith(("resolved", "opened")), "a mended loss opens mended"


def play(make_ground: Any, acts: list[tuple[str, Any]]) -> Life:
    life = Life(make_ground(RULES))
    for what, how in acts:
        life.do(what, how)
        check_counts(life.ground)
        check_marks(life)
    return life


def check_marks(life: Life) -> None:
    """What was just told: nothing but an end under a silence, and of what is acknowledged nothing but that, and its end."""
    rows = life.ground.conn.execute(
        "SELECT n.no, n.type, n.reason, n.created_at, i.id FROM notice n JOIN incident i ON i.no = n.incident"
        " WHERE n.no > ? ORDER BY n.no",
        (life.checked,),
    ).fetchall()
    shown = {one.id: one for one in life.ground.incidents()} if rows else {}
    for row in rows:
        life.checked = row["no"]
        if row["created_at"] != life.ground.now or row["type"].endswith("resolved"):
            continue
        assert shown[row["id"]].silenced is None, row["reason"]
    for one in life.ground.incidents():
        since = one.acknowledged["at"] if one.acknowledged else life.ground.now
        assert not [why for why in one.why if why["at"] > since and why["reason"] in ("new_tasks", "repeat_interval", "severity")]


def check_counts(ground: Any) -> None:
    """Every loose end stands in exactly one incident that is not resolved: what is open is never nobody's."""
    rows = ground.conn.execute(
        "SELECT i.state FROM task t LEFT JOIN incident i ON i.no = t.incident WHERE t.loose = 1"
    ).fetchall()
    assert all(row["state"] in ("pending", "open") for row in rows)


@given(st.lists(act, max_size=40))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_incidents_keep_their_promises_whatever_happens(make_ground: Any, acts: list[tuple[str, Any]]) -> None:
    keeps_its_promises(make_ground, acts)


def test_incidents_keep_their_promises_in_long_lives(make_ground: Any) -> None:
    """Longer ones than hypothesis makes, and as many as are asked for; the seed of a life that breaks one is in its message."""
    chance = random.Random(20_261_120)
    for seed in [chance.getrandbits(64) for _ in range(int(os.environ.get("MODEL_HISTORIES", "60")))]:
        own = random.Random(seed)
        acts = [(what, own.choice(ACTS[what])) for what in own.choices(list(ACTS), k=own.randint(20, 80))]
        try:
            keeps_its_promises(make_ground, acts)
        except AssertionError as broken:
            raise AssertionError(f"seed {seed}, acts {acts}: {broken}") from broken
    print(f"\n{SEEN['histories']:,} histories, {SEEN['incidents']:,} incidents, {SEEN['notices']:,} notices")
    assert SEEN["notices"] > SEEN["histories"], "lives in which nobody is told anything show nothing"


def keeps_its_promises(make_ground: Any, acts: list[tuple[str, Any]]) -> None:
    life = play(make_ground, acts)
    for incident in life.ground.incidents():
        check_incident(life.ground, incident)
    life.finish_everything()
    for incident in life.ground.incidents():
        assert incident.state == "resolved"
        check_incident(life.ground, incident)
    assert not [n for n in life.ground.notices() if n.state in ("pending", "delivering")]
    check_receivers(life)
    told = {event["subject"] for endpoint, event in life.taken if endpoint == "ops"}
    assert told == {i.id for i in life.ground.incidents() if was_told(i)}
    SEEN["histories"] += 1
    SEEN["incidents"] += len(life.ground.incidents())
    SEEN["notices"] += life.ground.conn.execute("SELECT count(*) FROM notice").fetchone()[0]


def was_told(incident: Any) -> bool:
    """It opened, and no silence lay over it until it was settled."""
    quiet = [why for why in incident.why if why["reason"] == "first_notification" and "holds the notice back" in why["words"]]
    reasons = [why["reason"] for why in incident.why]
    return "silence_ended" in reasons if quiet else "first_notification" in reasons


def test_the_model_sees_a_machine_that_resolves_too_early(make_ground: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: an incident that resolves while something is still open."""
    rules = [
        machine.Rule(**{**{n: getattr(r, n) for n in r.__struct_fields__}, "due": lambda it, rules: it.opened_at})
        if r.reason == "all_settled"
        else r
        for r in machine.RULES
    ]
    monkeypatch.setattr(machine, "RULES", tuple(rules))
    with pytest.raises(AssertionError):
        play(make_ground, [("start", "vital.pay"), ("fail", 0), ("wait", 1.0), ("wait", 1.0)])


HUNG = [("start", "vital.pay"), ("wait", 31.0), ("wait", 1.0)]


def test_the_model_sees_a_silence_that_is_not_kept(make_ground: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "is_withheld", lambda it, rule: False)
    monkeypatch.setattr("looseends_daemon.store.incidents.is_hushed", lambda it, rule: False)
    with pytest.raises(AssertionError):
        play(make_ground, [("silence", "service=shop-web, problem!=lost"), *HUNG])


def test_the_model_sees_an_acknowledgement_that_is_repeated(make_ground: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def heedless(it: machine.Standing, rules: AlertRules) -> int | None:
        return it.told_at + round(rules.repeat_interval * NS) if it.open and it.told_at is not None else None

    rules = [
        machine.Rule(**{**{n: getattr(r, n) for n in r.__struct_fields__}, "due": heedless})
        if r.reason == "repeat_interval"
        else r
        for r in machine.RULES
    ]
    monkeypatch.setattr(machine, "RULES", tuple(rules))
    with pytest.raises(AssertionError):
        play(make_ground, [*HUNG, ("acknowledge", 600.0), ("wait", 130.0)])


def newest_first(conn: Any, now: int, endpoint: EndpointRule, room: int) -> tuple[list[Any], int | None]:
    """The planted fault: whatever is newest goes out first, and nothing waits for what is under way."""
    rows = conn.execute(
        "SELECT * FROM notice WHERE endpoint = ? AND state = 'pending' ORDER BY no DESC LIMIT ?", (endpoint.name, room)
    ).fetchall()
    return [outbox._leased(conn, row, now, now + 60 * NS) for row in rows], None


def test_the_model_sees_an_outbox_that_forgets_its_order(make_ground: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "_supersede", lambda conn, incident, endpoint: None)
    monkeypatch.setattr(outbox, "lease", newest_first)
    life = play(make_ground, [("start", "vital.pay"), ("fail", 0), ("wait", 1.0), ("retry", 0), ("wait", 3.0)])
    life.finish_everything()
    with pytest.raises(AssertionError):
        check_receivers(life)
