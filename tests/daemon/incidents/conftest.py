"""A store in memory that is driven as the daemon drives it: real facts, real verdicts, real incidents, a clock of our own."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from looseends.wire import NS, check_batch
from looseends_daemon.core.delivery import Message, Outcome
from looseends_daemon.core.incidents import AlertRules, EndpointRule
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import Actor, Incident, Notice
from looseends_daemon.store import acks, dismissals, frozen, incident_pages, incidents, outbox, silences
from looseends_daemon.store.facts import apply_batch, end_instance
from looseends_daemon.store.judgements import Times, judge_due
from looseends_daemon.store.questions import ask
from looseends_daemon.store.schema import migrate

START = 1_780_000_000 * NS
ACTOR = Actor(name="test", role="ingest", channel="uds:0", uid=0)
ADA = Actor(name="ada", role="operator", channel="session")
OPEN_NOW = """
    SELECT incident, type, ifnull(verdict, -1), state = 4, count(*) FROM task
    WHERE incident IS NOT NULL AND loose = 1 GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"""
SETTLED_NOW = """
    SELECT incident, settled, count(*) FROM task WHERE incident IS NOT NULL AND settled IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2"""
OPS = EndpointRule(name="ops", fingerprint="1")


class Ground:
    """One daemon's store with one service on it. Times in seconds from the start."""

    def __init__(self, rules: AlertRules) -> None:
        self.conn = sqlite3.connect(":memory:", isolation_level=None)
        self.conn.row_factory = sqlite3.Row
        migrate(self.conn)
        self.now = START
        self.rules = rules
        self.due: int | None = None
        self.number = 0
        self.instance = self.boot()
        with self.transaction():
            outbox.begin(self.conn, self.now, rules.endpoints)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.conn.execute("BEGIN")
        yield
        self.conn.execute("COMMIT")
        self.counts_are_those_of_the_rows()

    def counts_are_those_of_the_rows(self) -> None:
        """Nothing keeps the counts of an incident but the triggers: after every commit they are what a recount gives."""
        for kept, counted in (
            ("SELECT incident, type, verdict, failed, n FROM incident_open WHERE n != 0 ORDER BY 1, 2, 3, 4", OPEN_NOW),
            ("SELECT incident, settled, n FROM incident_settled WHERE n != 0 ORDER BY 1, 2", SETTLED_NOW),
        ):
            assert [*map(tuple, self.conn.execute(kept))] == [*map(tuple, self.conn.execute(counted))]

    def later(self, seconds: float) -> None:
        self.now += round(seconds * NS)

    def boot(self, host: str = "web-3", release: str | None = None) -> dict[str, Any]:
        """A new process of the service."""
        self.number += 1
        instance = {"id": str(uuid.UUID(int=self.number, version=4)), "service": "shop-web", "host": host, "pid": 4242}
        instance |= {} if release is None else {"release": release}
        self.instance = instance
        self.tell()
        return instance

    def tell(self, *events: dict[str, Any]) -> None:
        batch = check_batch({"instance": self.instance, "events": list(events)}, self.now)
        assert not batch.rejected, batch.rejected
        with self.transaction():
            applied = apply_batch(self.conn, batch, actor=ACTOR, now=self.now, policy=Policy(rules=self.rules.tasks))
        assert not applied.rejected, applied.rejected

    def start(self, name: str = "mail.send_receipt", **fields: Any) -> str:
        """A task that is running now, with a deadline of 30 s unless told otherwise; its id."""
        self.number += 1
        task = str(uuid.UUID(int=self.number, version=4))
        self.tell({"type": "started", "task": task, "name": name, "deadline": 30, **fields})
        return task

    def fail(self, task: str, message: str = "the card is 4111", **fields: Any) -> None:
        error = {"type": "TimeoutError", "message": message, "traceback": "Traceback ..."}
        self.tell({"type": "failed", "task": task, "error": error, **fields})

    def finish(self, task: str, attempt: int = 1) -> None:
        self.tell({"type": "finished", "task": task, "attempt": attempt})

    def retry(self, task: str) -> None:
        """A second attempt that succeeds."""
        self.tell({"type": "started", "task": task, "attempt": 2, "name": "mail.send_receipt"})
        self.finish(task, attempt=2)

    def kill(self) -> None:
        """The process is gone; everything it knew is here."""
        with self.transaction():
            end_instance(self.conn, self.instance["id"], state="gone", reason="process killed", now=self.now, adopted=True)

    def detect(self) -> int | None:
        """One pass of the detector, as the daemon does it: judgements, incidents and notices in one transaction."""
        self.conn.execute("UPDATE instance SET last_heard_at = ?1, said_at = ?1 WHERE state = 'alive'", (self.now,))
        times = Times(now=self.now, heard_since=START, ready_at=START)
        more = True
        while more:
            with self.transaction():
                judged = judge_due(self.conn, times, Policy(rules=self.rules.tasks))
                incidents.absorb(self.conn, self.now, judged.changes, self.rules)
                self.due = incidents.advance(self.conn, self.now, self.rules)
            more = judged.more
        return self.due

    def after(self, seconds: float) -> None:
        """Time passes, and the detector looks."""
        self.later(seconds)
        self.detect()

    # --- what people do ---

    def acknowledge(self, incident: str | None = None, note: str = "I look at it", expires: float | None = None) -> None:
        with self.transaction():
            wanted = incident or self.incident().id
            acks.acknowledge(self.conn, wanted, ADA, self.now, note=note, expires=expires, rules=self.rules)
        self.detect()

    def silence(self, matchers: str = "service=shop-web", seconds: float = 600, starts_in: float = 0) -> str:
        """A silence for so many seconds; its id."""
        begin = self.now + round(starts_in * NS)
        wish: dict[str, Any] = {"starts_at": begin, "ends_at": begin + round(seconds * NS)}
        with self.transaction():
            made = silences.add(self.conn, ADA, self.now, matchers=[matchers], comment="we are moving house", **wish)
        self.detect()
        return made.id

    def end_silence(self, silence: str) -> None:
        with self.transaction():
            silences.end(self.conn, silence, ADA, self.now)
        self.detect()

    def dismiss(self, q: str | None = None, incident: str | None = None, note: str = "known since Monday") -> str:
        """Everything that fits, to the end; the dismissal's id."""
        what, tasks = ask(self.conn, frozen.tasks_of(q, incident, self.now))
        with self.transaction():
            no = dismissals.begin(self.conn, tasks, ADA, self.now, note=note, what=what)
        self.carry_out()
        return ask(self.conn, dismissals.dismissal_numbered(no)).id

    def undo(self, dismissal: str) -> None:
        with self.transaction():
            dismissals.undo(self.conn, dismissal, ADA, self.now)
        self.carry_out()

    def carry_out(self) -> None:
        more = True
        while more:
            with self.transaction():
                more = dismissals.step(self.conn, self.now, self.rules)
        self.detect()

    # --- what is shown ---

    def incidents(self) -> list[Incident]:
        """Oldest first."""
        return list(reversed(ask(self.conn, incident_pages.incident_page(None, 500, None, "", self.now)).items))

    def incident(self) -> Incident:
        [found] = self.incidents()
        return found

    def notices(self, endpoint: str = "ops") -> list[Notice]:
        """Oldest first, with bodies."""
        page = ask(self.conn, outbox.notice_page(None, 500, None)).items
        whole = [ask(self.conn, outbox.notice_one(notice.id)) for notice in reversed(page)]
        return [notice for notice in whole if notice is not None and notice.endpoint == endpoint]

    def types(self, endpoint: str = "ops") -> list[str]:
        return [notice.type.removeprefix("looseends.incident.") for notice in self.notices(endpoint)]

    def lease(self, endpoint: EndpointRule = OPS, room: int = 8) -> list[Message]:
        with self.transaction():
            return outbox.lease(self.conn, self.now, endpoint, room)[0]

    def answer(self, message: Message, status: int | None = 200, **fields: Any) -> str:
        with self.transaction():
            return outbox.mark(self.conn, self.now, message, Outcome(status=status, **fields), 0.0)

    def deliver(self, status: int | None = 200, endpoint: EndpointRule = OPS) -> list[Message]:
        """Everything that is due is sent and answered."""
        sent = self.lease(endpoint)
        for message in sent:
            self.answer(message, status)
        return sent


@pytest.fixture
def ground() -> Ground:
    return Ground(AlertRules(endpoints=(OPS,), instance="prod-eu-1", external_url="https://ends.example.org"))


@pytest.fixture
def make_ground() -> Any:
    """A ground with rules of the test's own."""
    return Ground
