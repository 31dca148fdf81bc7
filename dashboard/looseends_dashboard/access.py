"""Who sees which button, and what stands there instead of it.

Rules: the server's guard decides who may act, this file only keeps a page from offering what would be refused. A button
that is not shown leaves a sentence in its place that says why, and what would bring it back.
"""

from __future__ import annotations

from looseends_daemon.core.replay import ARGUMENTS, BLOCKING, CONFIRMABLE, SIGNATURE
from looseends_daemon.core.resources import Actor, CommandRefused, Task, Value
from looseends_dashboard import words


class Button(Value, frozen=True):
    """Whether a button is shown; where it is not, `why_not` says in words what stands against it."""

    shown: bool
    why_not: str = ""


def may_act(actor: Actor | None) -> bool:
    """Whether this viewer is an operator."""
    return actor is not None and actor.role == "operator"


def replay_button(task: Task, actor: Actor | None) -> Button:
    """The Replay button of a task page."""
    if not task.replayable:
        reason = task.not_replayable_because or "no live instance of its service has made this function known for replay"
        return Button(shown=False, why_not=words.sentence(f"not replayable: {reason}"))
    if not may_act(actor):
        return Button(shown=False, why_not="Replay is for operators; you are signed in to look. Sign in with the operator token.")
    return Button(shown=True)


class Reason(Value, frozen=True):
    """One thing in the way: its name (empty where it has none) and the sentence."""

    name: str
    words: str


class Refusal(Value, frozen=True):
    """An act that was refused, as its page shows it. `confirm` holds the names to send back; empty: nothing can be waved.

    `act` is replay, dismiss or resolve; `note` and `args` are what was typed; `edit`: other arguments are the way on.
    """

    title: str
    reasons: list[Reason]
    confirm: list[str]
    act: str = "replay"
    note: str = ""
    args: str = ""
    edit: bool = False


def refusal(error: CommandRefused, confirmed: list[str], act: str, note: str = "", args: str = "") -> Refusal:
    """What a person reads after a refusal. Confirming is offered only where that would be enough, nothing typed is lost."""
    reasons = [_reason(text) for text in error.reasons] or [Reason(name="", words=error.title)]
    enough = error.status == 409 and all(reason.name in CONFIRMABLE for reason in reasons)
    names = dict.fromkeys([*confirmed, *(reason.name for reason in reasons)]) if enough else {}
    edit = not enough and (bool(args) or any(reason.name in (ARGUMENTS, SIGNATURE) for reason in reasons))
    return Refusal(title=error.title, reasons=reasons, confirm=list(names), act=act, note=note, args=args, edit=edit)


def _reason(text: str) -> Reason:
    name, colon, rest = text.partition(": ")
    if colon and name in (*BLOCKING, *CONFIRMABLE):
        return Reason(name=name, words=words.sentence(rest))
    return Reason(name="", words=text)
