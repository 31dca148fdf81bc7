"""Many claimants, real processes, one database file: no order is ever run twice, and whoever dies with one is told of."""

from __future__ import annotations

import functools
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import harness
from looseends.wire import NS
from looseends_daemon.core.replay import Recorded
from looseends_daemon.store import codes, instances, orders, replays
from looseends_daemon.store.connection import connect
from looseends_daemon.store.schema import migrate
from looseends_daemon.store.sources import Source

CLAIMANT = Path(__file__).with_name("claimant.py")
NOW = 1_780_000_000 * NS
CLAIMANTS = ("a", "b", "c", "d")
ORDERS = 200


def prepared(path: str) -> None:
    """A database with four proven live instances and ORDERS waiting orders."""
    conn = connect(path)
    migrate(conn, path=path)
    conn.execute("BEGIN")
    for instance in CLAIMANTS:
        row = conn.execute(
            "INSERT INTO instance (id, service, environment, channel, proven, first_heard_at, last_heard_at)"
            " VALUES (?, 'shop', 'production', 1, 1, ?, ?) RETURNING no",
            (instance, NOW, NOW),
        ).fetchone()
        function = {"name": "f", "signature": "()", "code": None, "replay": "yes", "caution": None, "via": None}
        instances.put_functions(conn, row["no"], [function])
    replay = replays.insert_replay(conn, "ada", "", NOW)
    task = Recorded(name="f", service="shop", environment="production", args={})
    for n in range(ORDERS):
        root = n.to_bytes(16, "big")
        replays.insert_order(conn, replay, Source(task=root, root=root, depth=0, recorded=task), {}, False, "()", NOW)
    conn.execute("COMMIT")
    conn.close()


def _has_claimed(log: Path, process: harness.Process) -> bool:
    return not process.running or (log.exists() and log.stat().st_size > 0)


def run(processes: harness.Processes, folder: Path, mode: str, kills: int = 0) -> tuple[Counter[str], int]:
    """Let four claimants at it, killing `kills` of them in mid-work; executions per order, and how many were killed."""
    path, logs = str(folder / "le.db"), folder / "logs"
    logs.mkdir()
    prepared(path)

    def start(who: str, n: int) -> harness.Process:
        process = processes.start(sys.executable, CLAIMANT, path, who, logs / f"{who}{n}", mode, stdin=True)
        process.wait_for("ready")
        return process

    running = {who: start(who, 0) for who in CLAIMANTS}
    for process in running.values():
        process.say("go")
    killed = 0
    for n in range(1, kills + 1):
        who = CLAIMANTS[n % len(CLAIMANTS)]
        seen = logs / f"{who}{n - len(CLAIMANTS)}" if n > len(CLAIMANTS) else logs / f"{who}0"
        old = running[who]
        harness.wait_until(functools.partial(_has_claimed, seen, old), "a claim")
        killed += old.running
        old.kill()
        old.hang_up()
        running[who] = start(who, n)
        running[who].say("go")
    for process in running.values():
        process.wait_for("done", timeout_s=60)
        process.hang_up()
    return Counter(line for log in logs.iterdir() for line in log.read_text().splitlines()), killed


def test_four_processes_never_run_an_order_twice(processes: harness.Processes, tmp_path: Path) -> None:
    executions, _ = run(processes, tmp_path, "claim")
    assert len(executions) == ORDERS and max(executions.values()) == 1


def test_nor_do_they_when_claimants_are_killed_in_mid_work(processes: harness.Processes, tmp_path: Path) -> None:
    executions, killed = run(processes, tmp_path, "claim", kills=8)
    assert killed and max(executions.values()) == 1
    conn = connect(str(tmp_path / "le.db"))
    states = dict(conn.execute("SELECT state, count(*) FROM replay_order GROUP BY 1").fetchall())
    conn.close()
    assert states == {"claimed": ORDERS}
    assert ORDERS - len(executions) <= killed, "only a kill between the commit and the run leaves an order that nobody ran"


def test_the_harness_catches_a_claim_that_looks_first(processes: harness.Processes, tmp_path: Path) -> None:
    executions, _ = run(processes, tmp_path, "check_then_claim")
    assert max(executions.values()) > 1


async def test_a_claimant_that_is_killed_leaves_an_order_that_nobody_runs_again(
    processes: harness.Processes, tmp_path: Path, world: Any
) -> None:
    send = {"name": "f", "signature": "()"}
    task = await world.lost(send, name="f", args={})
    claimant, other = await world.instance(send), await world.instance(send)
    replay = await world.commands.replay_task(task, world.operator)
    process = processes.start(
        sys.executable, CLAIMANT, world.database.path, claimant["id"], tmp_path / "log", "claim_one_and_wait", stdin=True
    )
    process.wait_for("ready")
    process.say("go")
    process.wait_for("claimed")
    process.kill()
    process.hang_up()
    await world.gone(claimant)
    await world.replayer.run_once(world.now)
    shown = await world.database.read(lambda conn: replays.replay(conn, replay.id))
    assert [item.state for item in shown.items] == ["outcome_unknown"]
    assert "nothing was heard" in shown.items[0].detail
    order = codes.blob(shown.items[0].id)
    refused = await world.database.write(lambda conn: orders.claim(conn, order, other["id"], world.now))
    assert refused.order is None and refused.reason == "it is outcome_unknown already"


@pytest.mark.parametrize("instance", ["", "nobody"])
async def test_a_claim_for_nobody_is_no_claim(world: Any, instance: str) -> None:
    send = {"name": "f", "signature": "()"}
    task = await world.lost(send, name="f")
    await world.instance(send)
    order = (await world.commands.replay_task(task, world.operator)).items[0].id
    refused = await world.database.write(lambda conn: orders.claim(conn, codes.blob(order), instance, world.now))
    assert refused.order is None
    assert [row["state"] for row in await world.rows("SELECT state FROM replay_order")] == ["waiting"]
