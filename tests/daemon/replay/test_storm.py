"""Orders under SIGKILL and SIGSTOP: whoever dies, sleeps or wakes up as a ghost, no order is ever done twice.

REPLAY_STORM=10000,420 for the full length: so many orders, so many claimants killed (two of three) or stopped in mid-work.
Until the last of them is upset no claimant takes more than its share, so there is work left for each however slow the machine is.
"""

from __future__ import annotations

import functools
import os
import signal
import sqlite3
import sys
from collections import Counter
from pathlib import Path

import harness
from looseends.wire import NS
from looseends_daemon.core.replay import Recorded
from looseends_daemon.store import codes, instances, orders, replays, sources
from looseends_daemon.store.connection import connect
from looseends_daemon.store.schema import migrate
from looseends_daemon.store.sources import Source

CLAIMANT = Path(__file__).with_name("doomed_claimant.py")
NOW = 1_780_000_000 * NS
CLAIMANTS = 4
ORDERS, UPSETS = (int(number) for number in os.environ.get("REPLAY_STORM", "300,12").split(","))
WORK_S = "0.2"
"""How long the work of one order takes while the storm lasts: most are upset in the middle of it."""
GHOSTS = 3
"""How many upsets later a stopped claimant wakes up again."""


class Storm:
    """A database with waiting orders, and claimants of which some are killed and some put to sleep."""

    def __init__(self, processes: harness.Processes, folder: Path, mode: str, count: int, upsets: int) -> None:
        self.processes, self.logs, self.mode = processes, folder / "logs", mode
        self.logs.mkdir()
        self.path = str(folder / "le.db")
        self.conn = connect(self.path)
        self.conn.execute("PRAGMA busy_timeout = 60000")
        migrate(self.conn, path=self.path)
        self.upsets = upsets
        self.started = self.killed = self.stopped = 0
        self.calm = folder / "calm"
        self.share = str(max(1, count // (upsets + CLAIMANTS + 1)))
        self.asleep: list[harness.Process] = []
        self._orders(count)

    def _orders(self, count: int) -> None:
        self.conn.execute("BEGIN")
        replay = replays.insert_replay(self.conn, "ada", "", NOW)
        task = Recorded(name="f", service="shop", environment="production", args={})
        for n in range(count):
            root = n.to_bytes(16, "big")
            of = Source(task=root, root=root, depth=0, recorded=task)
            replays.insert_order(self.conn, replay, of, {}, False, "()", NOW)
        self.conn.execute("COMMIT")

    def claimant(self) -> tuple[str, harness.Process]:
        """A new process, a new instance."""
        self.started += 1
        who = f"instance-{self.started}"
        row = self.conn.execute(
            "INSERT INTO instance (id, service, environment, channel, proven, first_heard_at, last_heard_at)"
            " VALUES (?, 'shop', 'production', (SELECT id FROM channel WHERE name = 'uds:0'), 1, ?, ?) RETURNING no",
            (who, NOW, NOW),
        ).fetchone()
        function = {"name": "f", "signature": "()", "code": None, "replay": "yes", "caution": None, "via": None}
        instances.put_functions(self.conn, row["no"], [function])
        told = (self.path, who, self.logs / who, self.mode, WORK_S, self.share, self.calm)
        process = self.processes.start(sys.executable, CLAIMANT, *told, stdin=True)
        process.wait_for("ready", timeout_s=60)
        process.say("go")
        process.hang_up()
        return who, process

    def upset(self, who: str, process: harness.Process, asleep: bool) -> None:
        """Kill it, or put it to sleep; to the daemon it is gone either way."""
        log = self.logs / who
        harness.wait_until(functools.partial(_has_done, log, process), "an execution", 60)
        assert process.running, "it ended before it could be upset: " + process.output
        if asleep:
            self.put_to_sleep(process)
        else:
            process.kill()
            self.killed += 1
        self.conn.execute("UPDATE instance SET state = 'gone', reason = 'killed' WHERE id = ?", (who,))
        if len(self.asleep) > GHOSTS:
            self.wake()

    def put_to_sleep(self, process: harness.Process) -> None:
        """Stop it, though not in the middle of a transaction: a real one never holds the database, its daemon does."""
        self.conn.execute("PRAGMA busy_timeout = 500")
        for _ in range(100):
            process.signal(signal.SIGSTOP)
            harness.wait_until(functools.partial(_is_stopped, process.pid), "it to stand still")
            try:
                self.conn.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                process.signal(signal.SIGCONT)
                continue
            self.conn.execute("COMMIT")
            break
        self.conn.execute("PRAGMA busy_timeout = 60000")
        self.asleep.append(process)
        self.stopped += 1

    def wake(self) -> None:
        """A ghost goes on where it was, with an order that it took in its former life."""
        self.asleep.pop(0).signal(signal.SIGCONT)

    def run(self) -> Counter[str]:
        """The storm; how often each order was done, by receipts."""
        self.conn.execute("INSERT OR IGNORE INTO channel (name) VALUES ('uds:0')")
        running = [self.claimant() for _ in range(CLAIMANTS)]
        everybody = list(running)
        for n in range(self.upsets):
            place = n % CLAIMANTS
            self.upset(*running[place], asleep=n % 3 == 2)
            running[place] = self.claimant()
            everybody.append(running[place])
        self.calm.touch()
        while self.asleep:
            self.wake()
        for _, process in everybody:
            code = process.wait(timeout_s=900)
            assert code in (0, -signal.SIGKILL), process.output
        return Counter(line for log in self.logs.iterdir() for line in log.read_text().splitlines())

    def states(self) -> Counter[str]:
        """What the daemon's clock makes of it: the states people see."""
        self.conn.execute("UPDATE instance SET state = 'gone', reason = 'killed'")
        for _ in range(self.started * 60 + 1):
            orders.look(self.conn, NOW + NS, NS)
            left = "SELECT count(*) FROM replay_order WHERE met = 0 AND state IN ('claimed', 'handed_over')"
            if not self.conn.execute(left).fetchone()[0]:
                break
        shown = self.conn.execute(
            "SELECT o.state, t.state AS task_state, t.verdict FROM replay_order o LEFT JOIN task t ON t.id = o.id"
        )
        return Counter(sources.shown_state(row) for row in shown)


def _is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "TtZ"


def _has_done(log: Path, process: harness.Process) -> bool:
    return not process.running or (log.exists() and log.stat().st_size > 0)


def told_of(conn: sqlite3.Connection) -> set[str]:
    return {codes.text(row["id"]).replace("-", "") for row in conn.execute("SELECT id FROM task")}


def test_no_order_is_done_twice_and_what_is_not_known_is_said_to_be_unknown(processes: harness.Processes, tmp_path: Path) -> None:
    storm = Storm(processes, tmp_path, "claim", ORDERS, UPSETS)
    executions = storm.run()
    assert (storm.killed, storm.stopped) == (UPSETS - UPSETS // 3, UPSETS // 3)
    assert max(executions.values()) == 1, "done twice"
    states = storm.states()
    assert set(states) <= {"succeeded", "outcome_unknown"} and sum(states.values()) == ORDERS
    unknown = states["outcome_unknown"]
    assert unknown <= storm.killed, "only a kill between the claim and the telling leaves something unknown"
    assert told_of(storm.conn) <= set(executions), "nothing is said to be done that was not"
    silent = len(executions) - states["succeeded"]
    print(
        f"\n{ORDERS} orders, {storm.started} claimants, {storm.killed} killed, {storm.stopped} stopped and woken:"
        f" at most {max(executions.values())} execution each, {states['succeeded']} known to be done,"
        f" {unknown} unknown (of which {silent} were done)"
    )
    storm.conn.close()


def test_the_same_storm_catches_a_claim_that_looks_first(processes: harness.Processes, tmp_path: Path) -> None:
    storm = Storm(processes, tmp_path, "check_then_claim", min(ORDERS, 1_000), min(UPSETS, 8))
    executions = storm.run()
    twice = sum(count > 1 for count in executions.values())
    print(f"\nplanted fault: {twice} of {len(executions)} orders were done more than once")
    storm.conn.close()
    assert twice
