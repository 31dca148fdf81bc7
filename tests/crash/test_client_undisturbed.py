"""A service goes on undisturbed while its daemon is killed under it; later everything has arrived and nothing is called lost.

Each check is proven on a client, or a daemon, with the fault it looks for.
"""

from __future__ import annotations

import random
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import harness
from crash import books
from crash.daemons import HERE, Daemon
from crash.receipts import Line, Receipt

INSTANT_S = (0.05, 0.4)
DEADLINE_S = 0.8
"""Of the service's tasks. The daemon stays dead for longer: what ended meanwhile is overdue in its books when it is back."""
GRACE = "0s"  # so that nothing but not having heard yet keeps the daemon from a verdict
SHARE = 3  # a kill takes three times as long here as elsewhere: the client must have found its daemon again before the next
KILLS_PLANTED = 2
END_S = 60.0


@dataclass
class Account:
    """What became of the service and of its tasks. `missing`, `judged` and `wrong` must stay empty."""

    kills: int = 0
    tasks: int = 0
    while_dead: int = 0
    missing: list[str] = field(default_factory=list)
    judged: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.kills} kills of the daemon; {self.tasks:,} tasks, {self.while_dead:,} of them ended while it was dead, "
            f"{len(self.missing)} never arrived, {len(self.judged)} are judged"
        )


class Work:
    """A service at work on a daemon: made running, any number of `strike`, `end`; then read `account`."""

    def __init__(self, daemon: Daemon, processes: harness.Processes, receipt: Path, seed: int, client: str = "looseends") -> None:
        self.daemon, self.receipt, self.account = daemon, Receipt(receipt), Account()
        self._chance = random.Random(seed)
        daemon.start()
        command = (sys.executable, HERE / "service.py", "steady", receipt)
        self._service = processes.start(*command, env=daemon.service_env(client), stdin=True)
        self._wait_heard()

    def strike(self, in_time: bool) -> None:
        """Kill the daemon, let the service work without it for over a deadline, start it, wait for news of the service.

        `in_time`: only once the daemon knows what runs now; else it may still be taking in what it missed the last time.
        """
        if in_time:
            self._wait(lambda: not self._backlog(), "the daemon to know all there is")
        time.sleep(self._chance.uniform(*INSTANT_S))
        self.daemon.kill()
        self.account.kills += 1
        self.account.while_dead += self._work_alone()
        self.daemon.start()
        self._wait_heard()

    def end(self) -> None:
        """The service sends all it has and leaves; then receipt and books are compared."""
        self._service.hang_up()
        unsent = self._service.wait_for(r"unsent (\d+)", END_S)[1]
        code = self._service.wait(END_S)
        if unsent != "0" or code != 0 or "Traceback" in self._service.output:
            self.account.wrong.append(f"the service ended with {code}, {unsent} records unsent: {self._service.output}")
        self.receipt.read()
        _read_receipt(self.account, self.receipt.lines)
        _look(self.account, {line.task for line in self.receipt.lines if line.what == "ended"}, self.daemon)

    def _wait_heard(self) -> None:
        """Until the service's news reach this daemon (again)."""
        before = self._number("SELECT count(*) FROM task")
        self._wait(lambda: self._number("SELECT count(*) FROM task") > before, "the daemon to hear of new tasks")

    def _wait(self, condition: Callable[[], object], what: str) -> None:
        self.daemon.wait_until(condition, what, self._service)

    def _backlog(self) -> int:
        return self._number("SELECT sum(backlog) FROM instance")

    def _number(self, sql: str) -> int:
        with self.daemon.look() as conn:
            return int(conn.execute(sql).fetchone()[0])

    def _work_alone(self) -> int:
        """Until a task has ended a whole deadline from now; how many ended meanwhile."""
        self.receipt.read()
        first, due = len(self.receipt.lines), time.monotonic() + DEADLINE_S

        def overdue() -> bool:
            return any(line.what == "ended" and line.at > due for line in self.receipt.read())

        self._wait(overdue, "the service to go on without a daemon")
        return sum(line.what == "ended" for line in self.receipt.lines[first:])


def _read_receipt(account: Account, lines: list[Line]) -> None:
    """What the service itself saw: every call gave what it should, once, and raised nothing."""
    ended = [line for line in lines if line.what == "ended"]
    account.tasks = len(ended)
    account.wrong += [f"a call raised {line.more}" for line in lines if line.what == "raised"]
    account.wrong += [f"a call gave {line.more}" for line in ended if int(line.more[1]) != int(line.more[0]) ** 2]
    account.wrong += [f"{task} ended {n} times" for task, n in Counter(line.task for line in ended).items() if n > 1]


def _look(account: Account, ended: set[str], daemon: Daemon) -> None:
    """What the daemon's books say."""
    with daemon.look() as conn:
        rows = {str(UUID(bytes=row["id"])): row for row in conn.execute("SELECT id, state, flags FROM task")}
        account.judged = _judged(conn)
        account.wrong += books.miscounted(conn)
        account.wrong += [f"incident: {row[0]}" for row in conn.execute("SELECT title FROM incident")]
        instances = [tuple(row) for row in conn.execute("SELECT service, state, backlog, dropped FROM instance")]
    account.missing = sorted(ended - rows.keys())
    account.wrong += [f"{task} is in no receipt" for task in rows.keys() - ended]
    states = {task: books.STATES[row["state"]] for task, row in rows.items()}
    account.wrong += [f"{task} is {state}" for task, state in states.items() if state != "succeeded"]
    account.wrong += [f"{task} has flags {row['flags']}" for task, row in rows.items() if row["flags"]]
    if instances != [("steady", "gone", 0, 0)]:
        account.wrong.append(f"instances: {instances}")


def _judged(conn: sqlite3.Connection) -> list[str]:
    """Every task with a verdict or any judgement in its history, in words."""
    rows = conn.execute("SELECT id FROM task WHERE verdict IS NOT NULL UNION SELECT task FROM judgement")
    return [str(UUID(bytes=row[0])) for row in rows]


def test_a_service_is_undisturbed_while_its_daemon_is_killed_and_everything_arrives_afterwards(
    processes: harness.Processes, state_dir: Path, port: int, kills: int, seed: int, say: Callable[[str], None], tmp_path: Path
) -> None:
    daemon = Daemon(processes, state_dir / "looseends", port, grace=GRACE)
    work = Work(daemon, processes, tmp_path / "receipt", seed)
    for number in range(max(1, kills // SHARE)):
        work.strike(in_time=number % 2 == 0)
    work.end()
    say(f"{work.account}; seed {seed}")
    assert not work.account.missing, books.some(work.account.missing)
    assert not work.account.judged, books.some(work.account.judged)
    assert not work.account.wrong, books.some(work.account.wrong)
    assert daemon.stop() == 0
    assert not daemon.bad_lines, books.some(daemon.bad_lines)


def test_a_client_that_gives_up_on_a_dead_daemon_is_caught(
    processes: harness.Processes, state_dir: Path, port: int, seed: int, say: Callable[[str], None], tmp_path: Path
) -> None:
    work = Work(Daemon(processes, state_dir / "looseends", port, grace=GRACE), processes, tmp_path / "receipt", seed, "in_memory")
    for _ in range(KILLS_PLANTED):
        work.strike(in_time=True)
    work.end()
    say(f"planted: {work.account}; seed {seed}")
    assert work.account.missing, "what ended while the daemon was dead must have been missed"


def test_a_daemon_that_judges_before_it_has_heard_is_caught(
    processes: harness.Processes, state_dir: Path, port: int, seed: int, say: Callable[[str], None], tmp_path: Path
) -> None:
    daemon = Daemon(processes, state_dir / "looseends", port, "judges-unheard", GRACE)
    work = Work(daemon, processes, tmp_path / "receipt", seed)
    for _ in range(KILLS_PLANTED):
        work.strike(in_time=True)
    work.end()
    say(f"planted: {work.account}; seed {seed}")
    assert work.account.judged, "tasks whose end was still on its way must have been called stuck"
