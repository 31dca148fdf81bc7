"""A service that is killed loses no start: once a task's body has run its first line, the daemon will know of it.

The same harness is proven on a client that keeps what it has to tell in memory.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import harness
from crash import books
from crash.daemons import HERE, Daemon
from crash.receipts import Receipt
from looseends.wire import NS

INSTANT_S = (0.05, 0.4)
YOUNG_EVERY, YOUNG_S = 4, (0.05, 0.35)
"""Every fourth service is killed as it begins: so long after its process was started, wherever it has got to by then."""
DAEMON_EVERY, DAEMON_S = 5, (0.0, 0.7)
"""With every fifth the daemon dies as well, so long after it: before, while or after it takes over the journal."""
SOON_NS = 60 * NS
KILLS_PLANTED = 3
PROCESSES = 2  # of each service: itself and its forked child
KILLED_WORDS = "process ended without saying goodbye: killed or crashed"


@dataclass
class Account:
    """What the daemon says about the tasks in the receipt. `unknown` and `wrong` must stay empty."""

    kills: int = 0
    young: int = 0
    with_daemon: int = 0
    began: int = 0
    known: int = 0
    lost: int = 0
    unknown: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.kills} kills of {PROCESSES} processes each, {self.young} as they began, {self.with_daemon} with the daemon; "
            f"{self.began:,} tasks had begun, the starts of {len(self.unknown)} of them are lost; the daemon knows "
            f"{self.known:,}, {self.lost:,} of them with the verdict lost"
        )


class Work:
    """Services that live briefly: made with a daemon running, any number of `strike`, `end`; then read `account`.

    `said`: what the services printed, which is where their clients name their troubles.
    """

    def __init__(self, daemon: Daemon, processes: harness.Processes, receipt: Path, seed: int, client: str = "looseends") -> None:
        self.daemon, self.receipt, self.account = daemon, Receipt(receipt), Account()
        self.said: list[str] = []
        self._processes, self._chance, self._env = processes, random.Random(seed), daemon.service_env(client)
        daemon.start()

    def strike(self) -> None:
        """Start the service, let it come to work in both its processes, kill both at once."""
        service = self._begin()
        self._wait_at_work(service)
        time.sleep(self._chance.uniform(*INSTANT_S))
        self._kill(service)

    def strike_young(self) -> None:
        """Start the service and kill whatever there is of it a moment later."""
        service = self._begin()
        time.sleep(self._chance.uniform(*YOUNG_S))
        self._kill(service)
        self.account.young += 1

    def strike_daemon(self) -> None:
        """The daemon dies, too."""
        time.sleep(self._chance.uniform(*DAEMON_S))
        self.daemon.kill()
        self.daemon.start()
        self.account.with_daemon += 1

    def _begin(self) -> harness.Process:
        return self._processes.start(sys.executable, HERE / "service.py", "doomed", self.receipt.path, env=self._env)

    def _wait_at_work(self, service: harness.Process) -> None:
        self.receipt.read()
        first = len(self.receipt.lines)

        def both() -> bool:
            self.receipt.read()
            return len({line.pid for line in self.receipt.lines[first:] if line.what == "hangs"}) == PROCESSES

        self.daemon.wait_until(both, "the service and its child to be at work", service)

    def _kill(self, service: harness.Process) -> None:
        service.kill()
        self._processes.started.remove(service)
        self.account.kills += 1
        self.said += service.lines

    # --- the account ---

    def end(self, spool: Path) -> None:
        """Once there is nothing more to adopt or to judge: the receipt against the books."""
        self.daemon.wait_until(lambda: not left_in(spool) and self._all_judged(), "every journal to be adopted and judged")
        self.receipt.read()
        with self.daemon.look() as conn:
            states = {
                str(UUID(bytes=row["id"])): books.STATES[row["state"]] for row in conn.execute("SELECT id, state FROM task")
            }
            self.account.wrong += books.miscounted(conn)
        lost = {task["id"]: task for task in self.daemon.tasks("verdict:lost")}
        self._compare(states, lost)

    def _all_judged(self) -> bool:
        """Nothing is on the agenda of the near future: a daemon just started puts off what is due until its grace is over."""
        with self.daemon.look() as conn:
            return not conn.execute("SELECT 1 FROM task WHERE check_at < ? LIMIT 1", (time.time_ns() + SOON_NS,)).fetchall()

    def _compare(self, states: dict[str, str], lost: dict[str, dict[str, object]]) -> None:
        made, receipt = self.account, self.receipt
        began, ended, hung = (set(receipt.tasks(*what)) for what in (("began", "hangs"), ("ended",), ("hangs",)))
        made.began, made.known, made.lost, made.unknown = len(began), len(states), len(lost), sorted(began - states.keys())
        made.wrong += [f"{task} ended, and is {states[task]}" for task in ended & states.keys() if states[task] != "succeeded"]
        made.wrong += [f"{task} hung, and is not lost" for task in hung - lost.keys()]
        made.wrong += [f"{task} is {state}" for task, state in states.items() if state != "succeeded" and task not in lost]
        made.wrong += [f"{task} is lost: {shown['reason']!r}" for task, shown in lost.items() if not _says_why(shown)]


def _says_why(task: dict[str, object]) -> bool:
    return str(task["reason"]).startswith(KILLED_WORDS) and task["loose"] is True and task["state"] == "running"


def left_in(spool: Path) -> list[str]:
    """Journals that wait for somebody. A folder whose process died before it had said who it is holds no record."""
    return [name for name in os.listdir(spool) if (spool / name / "instance.json").exists()] if spool.exists() else []


def test_a_killed_service_loses_no_start(
    processes: harness.Processes, state_dir: Path, port: int, kills: int, seed: int, say: Callable[[str], None], tmp_path: Path
) -> None:
    daemon = Daemon(processes, state_dir / "looseends", port)
    work = Work(daemon, processes, tmp_path / "receipt", seed)
    for number in range(1, kills + 1):
        work.strike_young() if number % YOUNG_EVERY == 0 else work.strike()
        if number % DAEMON_EVERY == 0:
            work.strike_daemon()
    work.end(state_dir / "looseends/spool")
    say(f"{work.account}; seed {seed}")
    assert not work.account.unknown, f"{books.some(work.account.unknown)}\nthe services said:\n  {books.some(work.said)}"
    assert not work.account.wrong, books.some(work.account.wrong)
    every_process_is_gone(work)
    assert daemon.stop() == 0
    assert not daemon.bad_lines, books.some(daemon.bad_lines)


def every_process_is_gone(work: Work) -> None:
    """Each process that began a task is an instance of its own, a forked child too, and each instance says how it ended."""
    with work.daemon.look() as conn:
        ends = [tuple(row) for row in conn.execute("SELECT pid, state, adopted, reason FROM instance")]
    assert {line.pid for line in work.receipt.lines} <= {pid for pid, *_ in ends}
    assert len(ends) >= (work.account.kills - work.account.young) * PROCESSES
    wrong = [str(end) for end in ends if end[1:3] != ("gone", 1) or not end[3].startswith(KILLED_WORDS)]
    assert not wrong, books.some(wrong)


def test_a_client_that_keeps_starts_in_memory_is_caught(
    processes: harness.Processes, state_dir: Path, port: int, seed: int, say: Callable[[str], None], tmp_path: Path
) -> None:
    work = Work(Daemon(processes, state_dir / "looseends", port), processes, tmp_path / "receipt", seed, "in_memory")
    for _ in range(KILLS_PLANTED):
        work.strike()
    work.end(state_dir / "looseends/spool")
    say(f"planted: {work.account}; seed {seed}")
    assert work.account.known > 0, "this client reports as well, as long as it lives"
    assert work.account.unknown, "starts that were still in memory must have been missed"
