"""How a replay stands: its orders counted by the state people see, and what of its plan has none yet.

Rules: orders of which nothing more is expected are counted by their mark `over`, the others by joining their new task. So a
replay of 100,000 tasks is counted as fast as what of it is under way. Triggers take the mark off when more is told.
"""

from __future__ import annotations

import sqlite3

import msgspec

from looseends.wire import NS
from looseends_daemon.core.orders import IN_FLIGHT, OVER, WENT_WRONG
from looseends_daemon.core.pace import remaining_s
from looseends_daemon.core.plans import Run
from looseends_daemon.store.questions import Question
from looseends_daemon.store.sources import shown_state

RECENT_NS = 30 * NS
"""What was released in this time says how fast a run is."""
RECENT_MAX = 10_000
_UNDER_WAY = (
    "SELECT o.id, o.state, t.state AS task_state, t.verdict FROM replay_order o LEFT JOIN task t ON t.id = o.id"
    " WHERE o.replay = ? AND o.over IS NULL"
)


def stand(replay_no: int) -> Question[list[tuple[str, int]]]:
    """(shown state, how many orders) of a replay; a state may come twice."""
    over = yield "SELECT over, count(*) AS n FROM replay_order WHERE replay = ? AND over IS NOT NULL GROUP BY 1", (replay_no,)
    under_way = yield _UNDER_WAY, (replay_no,)
    return [*((row["over"], row["n"]) for row in over), *((shown_state(row), 1) for row in under_way)]


def mark_over(conn: sqlite3.Connection, replay_no: int) -> None:
    """Mark the orders of a replay of which nothing more is expected."""
    rows = [(shown_state(row), row["id"]) for row in conn.execute(_UNDER_WAY, (replay_no,))]
    conn.executemany("UPDATE replay_order SET over = ? WHERE id = ?", [row for row in rows if row[0] in OVER])


def flying_and_wrong(stands: list[tuple[str, int]]) -> tuple[int, int]:
    """(orders in flight, orders that did not do their work) of `stand`."""
    return (
        sum(n for state, n in stands if state in IN_FLIGHT),
        sum(n for state, n in stands if state in WENT_WRONG),
    )


def run_of(replay_no: int) -> Question[sqlite3.Row | None]:
    """The row of `replay_run` with its plan's id and total, None for a replay that was not planned."""
    rows = yield (
        "SELECT u.*, p.id AS plan_id, p.total FROM replay_run u JOIN replay_plan p ON p.no = u.plan WHERE u.replay = ?",
        (replay_no,),
    )
    return rows[0] if rows else None


def with_rest(counted: dict[str, int], run: sqlite3.Row, stored: str) -> dict[str, int]:
    """The counts of all that was chosen: what has no order waits, was cancelled with the run, or is blocked."""
    rest = "cancelled" if stored == "cancelled" else "waiting"
    blocked = run["blocked"] + run["total"] - run["taken"]
    return {
        **counted,
        rest: counted[rest] + run["pending"],
        "blocked": counted["blocked"] + blocked,
        "total": counted["total"] + run["pending"] + blocked,
    }


def released_since(replay_no: int, since: int) -> Question[int]:
    """How many orders of a replay were made after that time (ns), counted back from its newest item, RECENT_MAX at most."""
    rows = yield (
        "SELECT count(*) AS n FROM (SELECT created_at FROM replay_order WHERE replay = ? ORDER BY item DESC LIMIT ?)"
        " WHERE created_at > ?",
        (replay_no, RECENT_MAX, since),
    )
    return int(rows[0]["n"])


def as_run(run: sqlite3.Row, counted: dict[str, int], recent: int, age: int, state: str) -> Run:
    """How a run is paced and how far it is. `recent`: orders made in RECENT_NS, or in its `age` (ns) if it is younger."""
    flying = sum(counted[word] for word in IN_FLIGHT) - (0 if state == "cancelled" else run["pending"])
    pending = 0 if state in ("cancelled", "done") else run["pending"]
    moving = state == "running"
    return Run(
        plan=run["plan_id"],
        confirm=msgspec.json.decode(run["confirm"].encode(), type=list[str]),
        canary=run["canary"],
        per_second=run["per_second"],
        in_flight=run["in_flight"],
        stop_after_failures=run["stop_after_failures"],
        pending=pending,
        flying=flying,
        over=counted["total"] - pending - flying,
        canary_passed=bool(run["canary_passed"]),
        why=run["why"],
        remaining=remaining_s(pending, flying, recent, min(RECENT_NS, age) / NS, run["per_second"]) if moving else None,
    )
