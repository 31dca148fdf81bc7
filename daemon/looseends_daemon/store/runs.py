"""Runs of plans as rows: begun once, released by the pace, paused, resumed and cancelled by people, reported item by item.

Rules:

1. A plan is run once: its row names its replay, and the transaction that writes the name makes the replay. So of any number of
   presses, windows and people, one begins it.
2. An order is made in the transaction that judges its task once more. What was not waved through by then is no order: the item is
   `blocked`, with the reason. What only waits for an instance to live is held, not given up.
3. Everything a run knows is in its row, so that a daemon which is killed in the middle goes on where it was, and an item gets one
   order, whatever happens: the order and the mark of the item are one commit.
4. A paused run gives out nothing, not even what waits to be taken already.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from looseends.wire import NS, canonical
from looseends_daemon.core.orders import DETAIL_CHARS_MAX, UNCLAIMED_S_MAX
from looseends_daemon.core.pace import HELD_NS_MAX, Rule, Seen, Step, pace
from looseends_daemon.core.plans import UNSEALED, Judged, Wish, changed, edited_from, judged, may_hold, takes
from looseends_daemon.core.resources import Actor, CommandRefused, Replay, Value
from looseends_daemon.store.access import audit
from looseends_daemon.store.codes import text
from looseends_daemon.store.plans import STEP_TASKS, judge, plan_row, reasons_of
from looseends_daemon.store.questions import Question, ask
from looseends_daemon.store.replays import insert_order, insert_replay, replay_of_row
from looseends_daemon.store.sources import Around, replayable, source_now
from looseends_daemon.store.standing import flying_and_wrong, mark_over, stand

TICK_NS = NS // 10
"""How often a run that moves is looked at."""
HELD_TICK_NS = NS
LOOKED_AT_MAX = 50
"""Items looked at in one pass; those that are blocked by now make no order."""


# --- beginning ----------------------------------------------------------------------------------------------------


def ready_plan(wish: Wish, now: int) -> Question[sqlite3.Row]:
    """The plan of a wish if it can be begun. Raises CommandRefused 404, 409, 410 with what to do."""
    plan = yield from plan_row(wish.plan)
    if plan is None:
        raise CommandRefused(
            404, "No such plan", [f"there is no plan {wish.plan[:100]!r}; make one with POST /api/v1/replay-plans"]
        )
    if plan["replay_id"] is not None:
        words = f"this plan is run as {plan['replay_id']}: look there. To run anything again, make a new plan"
        raise CommandRefused(409, "This plan was run already", [words])
    if plan["expires_at"] <= now:
        raise CommandRefused(410, "This plan has expired", ["a plan is good for an hour: make it again and look at it again"])
    if plan["digest"] != wish.digest:
        words = "the digest is not that of this plan: look at the plan again and send the digest it shows"
        raise CommandRefused(409, "This is not the list you saw", [words])
    return plan


class Checked(Value, frozen=True):
    """One step of the look for changes: the last item looked at, None at the end, and (task, what changed)."""

    after: int | None
    changes: tuple[tuple[str, str], ...] = ()
    taken: int = 0


def check_step(plan: sqlite3.Row, wish: Wish, after: int, around: Around) -> Question[Checked]:
    """Judge the next STEP_TASKS items that the run would take once more."""
    rows = yield (
        "SELECT i.n, i.task AS planned, i.seal, w.answer, w.reasons, t.* FROM replay_plan_item i"
        " JOIN replay_plan_why w ON w.plan = i.plan AND w.no = i.why LEFT JOIN task t ON t.id = i.task"
        " WHERE i.plan = ? AND i.n > ? ORDER BY i.n LIMIT ?",
        (plan["no"], after, STEP_TASKS),
    )
    mine = [row for row in rows if takes(row["answer"], reasons_of(row["reasons"]), wish.confirm)]
    edit = edited_from(plan["edit"])
    said = yield from judge([row for row in mine if row["id"] is not None], None if edit is None else dict(edit), around)
    now_said = {item.task: item for item in said}
    changes = []
    for row in mine:
        reasons = tuple(reasons_of(row["reasons"]))
        before = Judged(task=row["planned"], answer=row["answer"], reasons=reasons, seal=row["seal"])
        what = changed(before, now_said.get(row["planned"]))
        if what is not None:
            changes.append((text(row["planned"]), what))
    return Checked(after=rows[-1]["n"] if len(rows) == STEP_TASKS else None, changes=tuple(changes), taken=len(mine))


def begin(conn: sqlite3.Connection, wish: Wish, actor: Actor, now: int, base_url: str = "") -> Replay:
    """Begin the run of a plan that was just looked through. Raises CommandRefused as `ready_plan`; 409: it takes nothing."""
    plan = ask(conn, ready_plan(wish, now))
    taken = _take(conn, plan["no"], wish)
    if not taken:
        raise CommandRefused(409, "Nothing of this plan can be run", _in_the_way(conn, plan["no"]))
    replay_no = insert_replay(conn, actor.name, wish.note, now)
    rule = wish.rule
    conn.execute(
        "INSERT INTO replay_run (replay, plan, confirm, canary, per_second, in_flight, stop_after_failures,"
        " taken, pending, next_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(replay_no, plan["no"], canonical(list(wish.confirm))),
            *(rule.canary, rule.per_second, rule.in_flight, rule.stop_after_failures, taken, taken, now),
        ),
    )
    conn.execute("UPDATE replay_plan SET replay = ? WHERE no = ? AND replay IS NULL", (replay_no, plan["no"]))
    how = [f"{taken} of {plan['total']} tasks", f"digest {wish.digest[:12]}", *(f"confirmed {name}" for name in wish.confirm)]
    audit(conn, now, actor.name, "start_replay", wish.plan, "; ".join(how))
    return ask(conn, replay_of_row(replay_no, base_url, now))


def _take(conn: sqlite3.Connection, plan_no: int, wish: Wish) -> int:
    taken = 0
    for row in conn.execute("SELECT no, answer, reasons, n FROM replay_plan_why WHERE plan = ?", (plan_no,)).fetchall():
        if takes(row["answer"], reasons_of(row["reasons"]), wish.confirm):
            conn.execute("UPDATE replay_plan_why SET taken = 1 WHERE plan = ? AND no = ?", (plan_no, row["no"]))
            taken += row["n"]
    return taken


def _in_the_way(conn: sqlite3.Connection, plan_no: int) -> list[str]:
    row = conn.execute("SELECT reasons FROM replay_plan WHERE no = ?", (plan_no,)).fetchone()
    return [f"{reason['name']}: {reason['words']} ({reason['tasks']} tasks)" for reason in json.loads(row["reasons"])]


# --- steering -----------------------------------------------------------------------------------------------------

STEERING = {"pause": ("running", "paused"), "resume": ("paused", "running"), "cancel": (None, "cancelled")}
"""act -> (the state it wants, None: running or paused; the state after it)."""


def steer(conn: sqlite3.Connection, replay_id: str, act: str, actor: Actor, now: int, base_url: str = "") -> Replay:
    """Pause, resume or cancel. What runs already runs on. Raises CommandRefused 404, 409."""
    row = conn.execute("SELECT no, state FROM replay WHERE id = ?", (replay_id,)).fetchone()
    if row is None:
        raise CommandRefused(404, "No such replay", [f"there is no replay {replay_id[:100]!r}"])
    shown = ask(conn, replay_of_row(row["no"], base_url)).state
    wanted, after = STEERING[act]
    if shown not in ((wanted,) if wanted else ("running", "paused")):
        raise CommandRefused(409, f"This replay cannot be {_DONE[act]}", [f"it is {shown}: only one that is {_ONLY[act]} can"])
    conn.execute("UPDATE replay SET state = ? WHERE no = ?", (after, row["no"]))
    {"pause": _pause, "resume": _resume, "cancel": _cancel}[act](conn, row["no"], actor, now)
    audit(conn, now, actor.name, f"{act}_replay", replay_id)
    return ask(conn, replay_of_row(row["no"], base_url, now))


_DONE = {"pause": "paused", "resume": "resumed", "cancel": "cancelled"}
_ONLY = {"pause": "running", "resume": "paused", "cancel": "running or paused"}


def _pause(conn: sqlite3.Connection, replay_no: int, actor: Actor, now: int) -> None:
    conn.execute("UPDATE replay_run SET why = ? WHERE replay = ?", (f"paused by {actor.name}", replay_no))


def _resume(conn: sqlite3.Connection, replay_no: int, actor: Actor, now: int) -> None:
    """Failures count anew, and a canary that a person looked at has passed. What waits may wait ten minutes from now."""
    flying, wrong = flying_and_wrong(ask(conn, stand(replay_no)))
    run = conn.execute("SELECT canary, released, forgiven FROM replay_run WHERE replay = ?", (replay_no,)).fetchone()
    if run is not None:
        looked_at = wrong > run["forgiven"] or (not flying and run["released"] >= run["canary"])
        conn.execute(
            "UPDATE replay_run SET why = NULL, held_since = NULL, forgiven = ?, next_at = ?,"
            " canary_passed = canary_passed OR ? WHERE replay = ?",
            (wrong, now, looked_at, replay_no),
        )
    conn.execute(
        "UPDATE replay_order SET expires_at = ? WHERE replay = ? AND state = 'waiting'",
        (now + int(UNCLAIMED_S_MAX * NS), replay_no),
    )


def _cancel(conn: sqlite3.Connection, replay_no: int, actor: Actor, now: int) -> None:
    words = f"{actor.name} cancelled the replay"
    conn.execute("UPDATE replay_run SET why = ?, held_since = NULL WHERE replay = ?", (f"cancelled by {actor.name}", replay_no))
    conn.execute(
        "UPDATE replay_order SET state = 'cancelled', over = 'cancelled', detail = ? WHERE replay = ? AND state = 'waiting'",
        (words, replay_no),
    )


# --- the clock ----------------------------------------------------------------------------------------------------

_MOVING = (
    "SELECT u.*, r.state, r.requested_at, p.edit FROM replay_run u JOIN replay r ON r.no = u.replay"
    " JOIN replay_plan p ON p.no = u.plan WHERE u.pending > 0 AND r.state = 'running' ORDER BY u.replay"
)


def moving() -> Question[int]:
    """How many runs have something to release."""
    return len((yield _MOVING, ()))


def turn(conn: sqlite3.Connection, now: int) -> int | None:
    """One pass over all runs that move; when to look again (ns), None: none does."""
    dues = [_turn_one(conn, run, now) for run in conn.execute(_MOVING).fetchall()]
    return min((due for due in dues if due is not None), default=None)


def awake(conn: sqlite3.Connection) -> None:
    """The daemon was started: time in which it was down is none in which a run waited for an instance."""
    conn.execute("UPDATE replay_run SET held_since = NULL WHERE held_since IS NOT NULL")


def _turn_one(conn: sqlite3.Connection, run: sqlite3.Row, now: int) -> int | None:
    seen = _look(conn, run)
    rule = Rule(
        canary=run["canary"],
        per_second=run["per_second"],
        in_flight=run["in_flight"],
        stop_after_failures=run["stop_after_failures"],
    )
    step = pace(rule, seen, now)
    if step.stop is not None:
        _stop(conn, run["replay"], step.stop)
        return None
    if step.canary_passed and not run["canary_passed"] and run["canary"]:
        conn.execute("UPDATE replay_run SET canary_passed = 1 WHERE replay = ?", (run["replay"],))
    if not step.release:
        return max(now + TICK_NS, step.next_at if seen.in_flight < rule.in_flight else 0)
    return _go_on(conn, run, rule, step, now)


def _look(conn: sqlite3.Connection, run: sqlite3.Row) -> Seen:
    """How this run stands. What was forgiven and then ended well is no credit for the next failure."""
    mark_over(conn, run["replay"])
    flying, wrong = flying_and_wrong(ask(conn, stand(run["replay"])))
    if wrong < run["forgiven"]:
        conn.execute("UPDATE replay_run SET forgiven = ? WHERE replay = ?", (wrong, run["replay"]))
    return Seen(
        pending=run["pending"],
        released=run["released"],
        in_flight=flying,
        failures=max(0, wrong - run["forgiven"]),
        canary_passed=bool(run["canary_passed"]),
        next_at=run["next_at"],
    )


def _go_on(conn: sqlite3.Connection, run: sqlite3.Row, rule: Rule, step: Step, now: int) -> int | None:
    """Release what the step allows; when to look again (ns), None: the run was stopped."""
    done = _release(conn, run, step.release, now)
    next_at = step.next_at - (step.release - done.released) * int(NS / rule.per_second)
    conn.execute(
        "UPDATE replay_run SET pending = pending - ?, released = released + ?, blocked = blocked + ?, next_n = ?, next_at = ?,"
        " held_since = CASE WHEN ? THEN coalesce(held_since, ?) END, why = ? WHERE replay = ?",
        (
            *(done.released + done.blocked, done.released, done.blocked, done.next_n, max(next_at, run["next_at"])),
            *(done.held is not None, now, done.held, run["replay"]),
        ),
    )
    if done.held is None:
        return now + TICK_NS
    if now - (run["held_since"] or now) >= HELD_NS_MAX:
        _stop(conn, run["replay"], f"nobody lived to take them for ten minutes: {done.held}")
        return None
    return now + HELD_TICK_NS


def _stop(conn: sqlite3.Connection, replay_no: int, why: str) -> None:
    conn.execute("UPDATE replay SET state = 'paused' WHERE no = ? AND state = 'running'", (replay_no,))
    conn.execute("UPDATE replay_run SET why = ?, held_since = NULL WHERE replay = ?", (why[:DETAIL_CHARS_MAX], replay_no))


class Done(Value, frozen=True):
    """What one pass did: orders made, items found blocked, where the next pass begins, and why it stopped short (or None)."""

    released: int
    blocked: int
    next_n: int
    held: str | None


def _release(conn: sqlite3.Connection, run: sqlite3.Row, wanted: int, now: int) -> Done:
    """Make `wanted` orders, if there are as many tasks to make them of."""
    rows = conn.execute(
        "SELECT i.n, i.task, i.seal, w.answer, w.reasons FROM replay_plan_item i JOIN replay_plan_why w"
        " ON w.plan = i.plan AND w.no = i.why AND w.taken = 1"
        " WHERE i.plan = ? AND i.n >= ? AND i.state IS NULL ORDER BY i.n LIMIT ?",
        (run["plan"], run["next_n"], LOOKED_AT_MAX),
    ).fetchall()
    released = blocked = 0
    next_n = run["next_n"]
    edit, confirm = edited_from(run["edit"]), json.loads(run["confirm"])
    for row in rows:
        if released == wanted:
            break
        held, why = _order(conn, run, row, edit, confirm, now)
        if held:
            return Done(released=released, blocked=blocked, next_n=next_n, held=why)
        released, blocked, next_n = released + (why is None), blocked + (why is not None), row["n"] + 1
    return Done(released=released, blocked=blocked, next_n=next_n, held=None)


def _order(
    conn: sqlite3.Connection, run: sqlite3.Row, row: sqlite3.Row, edit: Mapping[str, Any] | None, confirm: list[str], now: int
) -> tuple[bool, str | None]:
    """Make the order of one item: (False, None). Or why not, and whether to try it again."""
    found = source_now(conn, row["task"])
    why: str | None = "the task is no longer stored"
    if found is not None:
        verdict = ask(conn, replayable(found, edit))
        args = found.recorded.args if edit is None else edit
        left = verdict.unconfirmed(confirm)
        if verdict.answer == "blocked" and may_hold(left):
            return True, left[0].words
        same = row["seal"] == judged(row["task"], verdict, args).seal
        why = "; ".join(map(str, left)) or (None if same else UNSEALED)
        if why is None:
            insert_order(conn, run["replay"], found, args, edit is not None, verdict.signature, now, row["n"])
    state = "order" if why is None else "blocked"
    detail = None if why is None else why[:DETAIL_CHARS_MAX]
    conn.execute(
        "UPDATE replay_plan_item SET state = ?, detail = ? WHERE plan = ? AND n = ?", (state, detail, run["plan"], row["n"])
    )
    return False, why
