"""The acts of people on replays, each one transaction: look, decide, write, audit.

Rules: the verdict is reached in the transaction that makes the order, so two presses cannot both be first; whatever is refused
leaves nothing behind; every refusal names its reasons, and those that a person may confirm begin with the name to confirm.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from looseends.wire import NOTE_CHARS_MAX
from looseends_daemon.core.arguments import wrong_arguments
from looseends_daemon.core.orders import ANSWERS
from looseends_daemon.core.replay import CONFIRMABLE, Reason
from looseends_daemon.core.resources import Actor, CommandRefused, Replay
from looseends_daemon.store.access import audit
from looseends_daemon.store.codes import blob, text
from looseends_daemon.store.questions import ask
from looseends_daemon.store.replays import Undecided, insert_order, insert_replay, order, replay_of_row, resolve
from looseends_daemon.store.sources import Source, replayable, source_now


def press(
    conn: sqlite3.Connection,
    task_id: str,
    actor: Actor,
    now: int,
    *,
    note: str,
    args: Any,
    confirm: Sequence[str],
    base_url: str = "",
) -> Replay:
    """Make one order for one recorded task. Raises CommandRefused 404, 409 (the reasons) or 422 (what was asked wrongly)."""
    _check(note, args, confirm)
    found = _source(conn, task_id)
    verdict = ask(conn, replayable(found, args))
    left = verdict.unconfirmed(confirm)
    if left:
        raise _refused(verdict.answer, left)
    replay_no = insert_replay(conn, actor.name, note, now)
    given = args if args is not None else found.recorded.args
    order_id = insert_order(conn, replay_no, found, given, args is not None, verdict.signature, now)
    how = [f"order {order_id}", *(["arguments edited"] if args is not None else []), *(f"confirmed {name}" for name in confirm)]
    audit(conn, now, actor.name, "replay_task", task_id, "; ".join(how))
    return ask(conn, replay_of_row(replay_no, base_url))


def decide_order(
    conn: sqlite3.Connection, order_id: str, actor: Actor, now: int, *, answer: str, note: str, base_url: str = ""
) -> Replay:
    """A person says what became of an `outcome_unknown`. Raises CommandRefused 404, 409 or 422."""
    if answer not in ANSWERS:
        raise CommandRefused(422, "Unknown answer", [f"as is one of {', '.join(ANSWERS)}"])
    _check(note, None, ())
    found = order(conn, _blob(order_id, "order"))
    if found is None:
        raise CommandRefused(404, "No such order", [f"there is no order {order_id}"])
    if found.state != "outcome_unknown":
        raise CommandRefused(409, "Nothing to decide", [f"the order is {found.state}; only an outcome_unknown needs a person"])
    detail = f"{actor.name}: {answer}" + (f", {note}" if note else "")
    again = _again(conn, found, now) if answer == "run_again" else None
    resolve(conn, found, answer, f"{detail}, as order {again}" if again else detail, now)
    audit(conn, now, actor.name, "resolve_order", order_id, f"{answer}; {note}" if note else answer)
    return ask(conn, replay_of_row(found.replay_no, base_url))


def _again(conn: sqlite3.Connection, of: Undecided, now: int) -> str:
    """A second order in the same replay. The person accepted that the work may be done twice; a block still stands."""
    found = _source(conn, text(of.task))
    args = json.loads(of.args)
    verdict = ask(conn, replayable(found, args if of.edited else None, without=text(of.id)))
    if verdict.answer == "blocked":
        raise _refused("blocked", verdict.reasons)
    return insert_order(conn, of.replay_no, found, args, of.edited, verdict.signature, now, of.item)


def _source(conn: sqlite3.Connection, task_id: str) -> Source:
    found = source_now(conn, _blob(task_id, "task"))
    if found is None:
        raise CommandRefused(404, "No such task", [f"there is no task {task_id}"])
    return found


def _blob(text_id: str, what: str) -> bytes:
    try:
        return blob(text_id)
    except ValueError:
        raise CommandRefused(404, f"No such {what}", [f"the id of a {what} is a UUID"]) from None


def _refused(answer: str, reasons: Sequence[Reason]) -> CommandRefused:
    if answer == "blocked":
        return CommandRefused(409, "This task cannot be replayed now", [str(reason) for reason in reasons])
    return CommandRefused(409, "This replay needs to be confirmed", [str(reason) for reason in reasons])


def _check(note: str, args: Any, confirm: Sequence[str]) -> None:
    if len(note) > NOTE_CHARS_MAX:
        raise CommandRefused(422, "Note too long", [f"a note is at most {NOTE_CHARS_MAX} characters"])
    wrong = wrong_arguments(args) if args is not None else None
    if wrong is not None:
        raise CommandRefused(422, "Unusable arguments", [f"args {wrong}"])
    for name in confirm:
        if name not in CONFIRMABLE:
            raise CommandRefused(422, "Unknown reason", [f"confirm takes {', '.join(CONFIRMABLE)}, not {name[:60]!r}"])
