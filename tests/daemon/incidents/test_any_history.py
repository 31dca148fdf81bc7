"""Random lives of tasks, processes and receivers: whatever happens, the alert machine keeps its promises."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from looseends.wire import NS
from looseends_daemon.core import incidents as machine
from looseends_daemon.core.incidents import AlertRules, EndpointRule
from looseends_daemon.core.policy import TaskRule
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
act = st.one_of(
    st.tuples(st.just("start"), st.sampled_from(NAMES)),
    st.tuples(st.just("fail"), st.integers(0, 7)),
    st.tuples(st.just("finish"), st.integers(0, 7)),
    st.tuples(st.just("retry"), st.integers(0, 7)),
    st.tuples(st.just("kill"), st.none()),
    st.tuples(st.just("return"), st.none()),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.4, 1.0, 3.0, 21.0, 31.0, 130.0])),
    st.tuples(st.just("lease"), st.sampled_from([OPS, PAGER])),
    st.tuples(st.just("answer"), st.sampled_from([200, 200, 500, None])),
    st.tuples(st.just("restart"), st.none()),
)


class Life:
    """A ground, what is running on it, and what the receivers were sent and took."""

    def __init__(self, ground: Any) -> None:
        self.ground = ground
        self.tasks: list[str] = []
        self.flying: list[Any] = []
        self.taken: list[tuple[str, dict[str, Any]]] = []

    def do(self, what: str, how: Any) -> None:
        getattr(self, f"do_{what}")(how)
        self.ground.detect()

    def do_start(self, name: str) -> None:
        self.tasks.append(self.ground.start(name))

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
            self.taken.append((message.endpoint, json.loads(message.body)))
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

    A receiver knows a message that arrives twice by its id, as the guarantee asks of it; the bytes must be the same.
    """
    once: dict[str, tuple[str, dict[str, Any]]] = {}
    for endpoint, event in life.taken:
        assert once.setdefault(event["id"], (endpoint, event)) == (endpoint, event)
    seen: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for endpoint, event in once.values():
        seen.setdefault((endpoint, event["subject"]), []).append(event)
    for events in seen.values():
        types = [event["type"].rpartition(".")[2] for event in events]
        assert types[0] in ("opened", "resolved")
        assert types.count("opened") <= 1
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
    return life


def check_counts(ground: Any) -> None:
    """Every loose end stands in exactly one incident that is not resolved: what is open is never nobody's."""
    rows = ground.conn.execute(
        "SELECT i.state FROM task t LEFT JOIN incident i ON i.no = t.incident WHERE t.loose = 1"
    ).fetchall()
    assert all(row["state"] in ("pending", "open") for row in rows)


@given(st.lists(act, max_size=40))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_incidents_keep_their_promises_whatever_happens(make_ground: Any, acts: list[tuple[str, Any]]) -> None:
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
    assert told == {i.id for i in life.ground.incidents() if "first_notification" in [why["reason"] for why in i.why]}


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
