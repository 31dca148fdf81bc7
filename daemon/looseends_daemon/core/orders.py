"""The life of one replay order, as one table.

Rules:

    waiting --claim--> claimed --handed_over--> handed_over
       |                  |  \\--refused--> refused
       |                  \\--vanish--> outcome_unknown --ran | did_not_run | run_again--> decided by a person
       \\--expire | cancel--> expired | cancelled

1. An order is claimed once in its life. Whoever claimed it may have run it, so no machine ever makes it `waiting` again:
   from `outcome_unknown` only a person leads on, or an event of the new task.
2. What the new task did (running, succeeded, failed, gap) is never stored here: it is read from that task's own facts,
   and facts overrule whatever this table says.
3. A claimant's late answer still counts while nothing has been decided, if it carries the fence of its claim.
"""

from __future__ import annotations

from collections.abc import Iterable

from looseends.wire import NS

UNCLAIMED_S_MAX = 600.0
"""An order that nobody takes for ten minutes expires: it must not fire at 3 a.m. after a deploy. What
waits behind others of its replay that run right now does not expire: long work waits its turn."""
UNANSWERED_S_MAX = 120.0
"""A live claimant that neither answers nor reports for this long probably never got our answer to its claim."""
HANDED_OVER_S_MAX = 3600.0
"""How long a queue may hold a handed-over order before we say that nothing was heard of it."""
DETAIL_CHARS_MAX = 500

STORED = (
    "waiting",
    "claimed",
    "handed_over",
    "refused",
    "expired",
    "outcome_unknown",
    "ran",
    "did_not_run",
    "cancelled",
)
OUTCOMES = ("started", "handed_over", "refused")
ANSWERS = ("ran", "did_not_run", "run_again")
TRANSITIONS: dict[tuple[str, str], str] = {
    ("waiting", "claim"): "claimed",
    ("waiting", "expire"): "expired",
    ("waiting", "cancel"): "cancelled",
    ("claimed", "started"): "claimed",
    ("claimed", "handed_over"): "handed_over",
    ("claimed", "refused"): "refused",
    ("claimed", "vanish"): "outcome_unknown",
    ("handed_over", "vanish"): "outcome_unknown",
    ("outcome_unknown", "started"): "claimed",
    ("outcome_unknown", "handed_over"): "handed_over",
    ("outcome_unknown", "refused"): "refused",
    ("outcome_unknown", "ran"): "ran",
    ("outcome_unknown", "did_not_run"): "did_not_run",
    ("outcome_unknown", "run_again"): "cancelled",
}
"""(stored state, act) -> stored state. What is not in here cannot happen; the rest of the life is in the new task."""

COUNTED = (
    "waiting",
    "claimed",
    "running",
    "succeeded",
    "failed",
    "cancelled",
    "gap",
    "refused",
    "outcome_unknown",
    "ran",
    "did_not_run",
    "blocked",
    "expired",
)

OVER = ("succeeded", "failed", "cancelled", "refused", "expired", "ran", "did_not_run")
"""Shown states that nothing more is expected of. Something may still be told: then the state is looked at anew."""
WENT_WRONG = ("failed", "gap", "refused", "expired", "outcome_unknown")
"""Shown states of orders that did not do their work, as far as is known now."""
IN_FLIGHT = ("waiting", "claimed", "running")


def step(state: str, act: str) -> str | None:
    """The stored state after this act; None: the act means nothing in this state and changes nothing."""
    return TRANSITIONS.get((state, act))


def shown(stored: str, task_state: str | None = None, verdict: str | None = None) -> str:
    """The state people see. `task_state` and `verdict` are those of the new task, None while nothing is known of it."""
    if task_state is None:
        return "claimed" if stored == "handed_over" else stored
    if task_state in ("succeeded", "failed", "cancelled"):
        return task_state
    return "running" if verdict is None else "gap"


def counts(states: Iterable[tuple[str, int]]) -> dict[str, int]:
    """(shown state, how many) pairs -> how a replay stands; every state is named, and `total` is their sum."""
    result = dict.fromkeys(("total", *COUNTED), 0)
    for state, number in states:
        result[state] += number
        result["total"] += number
    return result


def replay_state(stored: str, counted: dict[str, int]) -> str:
    """running or paused until no order is left for a machine to move; one of unknown outcome waits for a person, not for us."""
    moving = sum(counted[state] for state in IN_FLIGHT)
    return stored if moving or stored == "cancelled" else "done"


def vanished(state: str, claimed_at: int, claimant: str | None, answered: bool, now: int) -> tuple[str | None, int]:
    """Why an order without any event of its task must be called `outcome_unknown` (None: not yet), and when to look again.

    `claimant` is the state of the instance that claimed it, `answered` whether it told us that it started it.
    A queue may keep what it was handed, so there the end of the claimant proves nothing.
    """
    if state == "handed_over":
        due = claimed_at + int(HANDED_OVER_S_MAX * NS)
        return ("it was handed to a queue an hour ago and nothing was heard of it" if now >= due else None), due
    if claimant != "alive":
        return f"the instance that claimed it is {claimant or 'unknown'}, and nothing was heard of the new task", now
    due = claimed_at + int(UNANSWERED_S_MAX * NS)
    if answered:
        return None, now + NS
    words = "the instance that claimed it lives, but has neither begun nor refused it: our answer may not have reached it"
    return (words if now >= due else None), due
