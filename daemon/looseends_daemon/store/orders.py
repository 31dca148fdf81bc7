"""Orders as rows: found for an instance, claimed once, answered, expired, given up on, decided by a person.

Rules:

1. A claim is one UPDATE with the state in its WHERE. It is committed before the order is handed out; nothing ever sets a claimed
   order back. So one order is dispatched at most once, whatever dies in between.
2. Every answer carries the fence of its claim; an answer with another fence changes nothing.
3. The states and what may follow on what stand in core/orders.py; here they are only looked up and written.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from looseends.wire import NS
from looseends_daemon.core.orders import DETAIL_CHARS_MAX, UNCLAIMED_S_MAX, step, vanished
from looseends_daemon.core.replay import may_take
from looseends_daemon.core.resources import Value
from looseends_daemon.store.codes import text
from looseends_daemon.store.instances import OFFER_COLUMNS, offer_of
from looseends_daemon.store.questions import Question, ask
from looseends_daemon.store.sources import went_well

LOOKED_AT_MAX = 200
"""Orders looked at for one list or one pass: an instance takes them one after the other anyway."""

_PAUSED = "SELECT no FROM replay WHERE state = 'paused'"
# A live instance of the service is at work on another order of the same replay: it takes the next when it can.
_BUSY = """EXISTS (SELECT 1 FROM replay_order b JOIN instance i ON i.no = b.instance JOIN task t ON t.id = b.id
    WHERE b.replay = o.replay AND b.over IS NULL AND b.state = 'claimed' AND b.service = o.service
        AND b.environment = o.environment AND i.state = 'alive' AND t.state < 3 AND t.verdict IS NULL)"""


class Claim(Value, frozen=True):
    """The answer to a claim: the order and its fence, or None and why not."""

    order: dict[str, Any] | None = None
    fence: int = 0
    reason: str = ""


class Answered(Value, frozen=True):
    """What a claimant's answer did: the order's stored state now, and whether the answer counted."""

    state: str
    counted: bool


# --- for the instance that takes it -------------------------------------------------------------------------------


def takeable(instance_id: str, now: int, only: bytes | None = None) -> Question[list[sqlite3.Row]]:
    """The waiting orders this instance may take (or the one named), first to expire first, at most LOOKED_AT_MAX."""
    rows = yield (
        f"SELECT {OFFER_COLUMNS}, o.id AS order_id, o.service AS order_service, o.environment AS order_environment,"
        " o.queue, o.signature AS order_signature, o.name, o.args, o.edited, o.root, o.task"
        " FROM instance i JOIN replay_order o ON o.environment = i.environment JOIN function f"
        " ON f.instance = i.no AND f.name = o.name JOIN replay p ON p.no = o.replay AND p.state != 'paused'"
        " WHERE i.id = ?1 AND o.state = 'waiting' AND o.expires_at > ?2 AND (?3 IS NULL OR o.id = ?3)"
        " ORDER BY o.expires_at LIMIT ?4",
        (instance_id, now, only, LOOKED_AT_MAX),
    )
    return [row for row in rows if _fits(row)]


def _fits(row: sqlite3.Row) -> bool:
    offer = offer_of(row)
    return offer.signature == row["order_signature"] and may_take(
        offer, row["order_service"], row["order_environment"], row["queue"]
    )


def waiting_for(instance_id: str, now: int) -> Question[int]:
    """How many orders wait for this instance: the `orders` in the answers to its heartbeats and batches."""
    rows = yield "SELECT 1 FROM replay_order WHERE state = 'waiting' LIMIT 1", ()
    if not rows:
        return 0
    return len((yield from takeable(instance_id, now)))


def order_for(row: sqlite3.Row) -> dict[str, Any]:
    """The order as a client gets it.

    The idempotency key is that of the first task of the chain, so that whatever the original had already done downstream is
    recognised there. Edited arguments are other work, and get a key of their own. Work of a queue names the queue it came from.
    """
    order = {
        "id": text(row["order_id"]),
        "name": row["name"],
        "args": json.loads(row["args"]),
        "replay_of": text(row["task"]),
        "idempotency_key": text(row["order_id"] if row["edited"] else row["root"]),
        "signature": row["order_signature"],
    }
    return order if row["queue"] is None else {**order, "queue": row["queue"]}


def claim(conn: sqlite3.Connection, order_id: bytes, instance_id: str, now: int) -> Claim:
    """Give this order to this instance, or say why not. The caller commits before it hands the answer out."""
    if _ended_meanwhile(conn, order_id):
        why = "the original ended well in the meantime"
        conn.execute("UPDATE replay_order SET state = 'expired', detail = ? WHERE id = ? AND state = 'waiting'", (why, order_id))
        return Claim(reason=why)
    found = next(iter(ask(conn, takeable(instance_id, now, order_id))), None)
    taken = conn.execute(
        "UPDATE replay_order SET state = 'claimed', fence = fence + 1, claimed_at = ?,"
        " instance = (SELECT no FROM instance WHERE id = ?)"
        " WHERE id = ? AND state = 'waiting' AND expires_at > ? AND ? RETURNING fence",
        (now, instance_id, order_id, now, found is not None),
    ).fetchall()
    if found is None or not taken:
        return Claim(reason=_why_not(conn, order_id))
    return Claim(order=order_for(found), fence=taken[0]["fence"])


def _ended_meanwhile(conn: sqlite3.Connection, order_id: bytes) -> bool:
    row = conn.execute(
        "SELECT task, root FROM replay_order WHERE id = ? AND state = 'waiting' AND was_done = 0", (order_id,)
    ).fetchone()
    return row is not None and went_well(conn, (bytes(row["task"]), bytes(row["root"])))


def _why_not(conn: sqlite3.Connection, order_id: bytes) -> str:
    row = conn.execute("SELECT state FROM replay_order WHERE id = ?", (order_id,)).fetchone()
    if row is None:
        return "there is no such order"
    if row["state"] == "waiting":
        return "it has expired or is paused, or this instance does not register its function with the signature it was made for"
    return f"it is {row['state']} already"


def claimant(conn: sqlite3.Connection, order_id: bytes) -> str | None:
    """The id of the instance that claimed an order; None: nobody did, or there is no such order."""
    row = conn.execute(
        "SELECT i.id FROM replay_order o JOIN instance i ON i.no = o.instance WHERE o.id = ?", (order_id,)
    ).fetchone()
    return None if row is None else str(row["id"])


def answer(conn: sqlite3.Connection, order_id: bytes, fence: int, outcome: str, detail: str) -> Answered:
    """What the claimant says became of it: started, handed_over or refused. A stale fence or a decided order changes nothing."""
    row = conn.execute("SELECT state, fence FROM replay_order WHERE id = ?", (order_id,)).fetchone()
    after = step(row["state"], outcome) if row["fence"] == fence else None
    if after is None:
        return Answered(state=row["state"], counted=False)
    conn.execute(
        "UPDATE replay_order SET state = ?, outcome = ?, detail = ? WHERE id = ? AND fence = ?",
        (after, outcome, detail[:DETAIL_CHARS_MAX] or None, order_id, fence),
    )
    return Answered(state=after, counted=True)


# --- for the clock ------------------------------------------------------------------------------------------------


def next_expiry() -> Question[int | None]:
    """When the next waiting order expires."""
    rows = yield f"SELECT min(expires_at) AS at FROM replay_order WHERE state = 'waiting' AND replay NOT IN ({_PAUSED})", ()
    at: int | None = rows[0]["at"]
    return at


def expire(conn: sqlite3.Connection, now: int) -> int:
    """Expire what nobody took in time; how many. What waits behind others of its replay that run waits on."""
    conn.execute(
        f"UPDATE replay_order AS o SET expires_at = ? WHERE o.state = 'waiting' AND o.expires_at <= ? AND {_BUSY}",
        (now + int(UNCLAIMED_S_MAX * NS), now),
    )
    return conn.execute(
        "UPDATE replay_order SET state = 'expired', detail = 'nobody took it within ten minutes'"
        f" WHERE state = 'waiting' AND expires_at <= ? AND replay NOT IN ({_PAUSED})",
        (now,),
    ).rowcount


def unmet() -> Question[list[sqlite3.Row]]:
    """Claimed and handed-over orders that were not yet seen to have facts of their own, longest claimed first."""
    rows = yield (
        "SELECT o.id, o.state, o.claimed_at, o.outcome, i.state AS claimant, t.id IS NOT NULL AS begun FROM replay_order o"
        " LEFT JOIN instance i ON i.no = o.instance LEFT JOIN task t ON t.id = o.id"
        " WHERE o.met = 0 AND o.state IN ('claimed', 'handed_over') ORDER BY o.claimed_at LIMIT ?",
        (LOOKED_AT_MAX,),
    )
    return rows


def give_up(conn: sqlite3.Connection, row: sqlite3.Row, now: int) -> int | None:
    """Mark one row of `unmet` as met or as `outcome_unknown`; when to look at it again, None: never."""
    if row["begun"]:
        conn.execute("UPDATE replay_order SET met = 1 WHERE id = ?", (row["id"],))
        return None
    why, due = vanished(row["state"], row["claimed_at"], row["claimant"], row["outcome"] == "started", now)
    if why is None:
        return due
    state = step(row["state"], "vanish")
    conn.execute("UPDATE replay_order SET state = ?, detail = ? WHERE id = ?", (state, why, row["id"]))
    return None


def look(conn: sqlite3.Connection, now: int, watch_ns: int) -> int | None:
    """One pass of the clock over all orders under way; when to look again (ns), None: nothing is under way."""
    expire(conn, now)
    dues = [due for row in ask(conn, unmet()) if (due := give_up(conn, row, now)) is not None]
    # Whatever is heard first, the facts of the new task or the end of its claimant, is looked for every `watch_ns`.
    again = [min(min(dues), now + watch_ns)] if dues else []
    expiry = ask(conn, next_expiry())
    return min([*again, *([expiry] if expiry is not None else [])], default=None)
