"""Whether a recorded task may run again, and who may run it. Pure: values in, a verdict with named reasons out.

Rules of this file:

1. An answer is never a bare no. Every reason has a name (a constant below, which `confirm` takes back) and a sentence
   that says what is in the way and what to do about it.
2. `blocked` wins over `confirm`, and all reasons of the winning kind are given at once: nobody fixes one to meet the next.
3. Nothing runs that its author did not allow, with arguments nobody has seen, or in a process that is not proven.
4. The order names the signature it was made for, and only instances that register exactly that one may take it. So a
   rolling deploy cannot hand old arguments to a new function between the press of the button and the claim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from looseends_daemon.core.arguments import misfit
from looseends_daemon.core.resources import Value

NO_LIVE_INSTANCE = "no_live_instance"
NOT_OPTED_IN = "not_opted_in"
NOT_PROVEN = "not_proven"
ARGUMENTS = "arguments"
SIGNATURE = "signature"
STILL_RUNNING = "still_running"
ORDER_OPEN = "order_open"
OUTCOME_UNKNOWN = "outcome_unknown"
TOO_DEEP = "too_deep"
BLOCKING = (
    NO_LIVE_INSTANCE,
    NOT_OPTED_IN,
    NOT_PROVEN,
    ARGUMENTS,
    SIGNATURE,
    STILL_RUNNING,
    ORDER_OPEN,
    OUTCOME_UNKNOWN,
    TOO_DEEP,
)
ASK = "ask"
CAUTION = "caution"
CODE_CHANGED = "code_changed"
MAY_STILL_RUN = "may_still_run"
ENDED_WELL = "ended_well"
REPLAYED_BEFORE = "replayed_before"
KEY_SUCCEEDED = "key_succeeded"
MAY_REDELIVER = "may_redeliver"
CONFIRMABLE = (
    ASK,
    CAUTION,
    CODE_CHANGED,
    MAY_STILL_RUN,
    MAY_REDELIVER,
    ENDED_WELL,
    KEY_SUCCEEDED,
    REPLAYED_BEFORE,
)
"""The reasons a person may wave through by naming them in `confirm`."""

DEPTH_MAX = 10
"""Replays of replays of replays: at ten, running it once more is not the cure."""


class Offer(Value, frozen=True):
    """One function as one instance registered it, and what is known about that instance."""

    instance: str
    service: str
    environment: str
    alive: bool
    proven: bool
    signature: str | None = None
    code: str | None = None
    replay: str = "yes"
    caution: str | None = None
    via: str | None = None


class Sibling(Value, frozen=True):
    """An order of the same chain: its id, the state people see, and the verdict that stands over its task, if one does."""

    order: str
    state: str
    verdict: str | None = None


class Recorded(Value, frozen=True):
    """What is known about the task that is to run again.

    `signature` and `code` are those of the instance that ran it, None where it registered nothing. `where` is its
    process in words (`web-3, pid 42`); `redelivers`: its queue keeps a message until the work has ended; `key_succeeded`: a later
    task of its type with its key did. `offered`: whether that process had registered the function, None where no process is
    known, and `proven` whether it could take orders. `dropped`: the client itself saw that this work will not run. `siblings`
    are the other orders of the same chain, oldest first; `depth` counts the replays that led to this task.
    """

    name: str
    service: str
    environment: str
    queue: str | None = None
    state: str = "running"
    verdict: str | None = None
    ended_well: bool = False
    dropped: bool = False
    redelivers: bool = False
    key_succeeded: bool = False
    instance_state: str | None = None
    where: str = "an unnamed process"
    args: Any = None
    not_replayable_because: str | None = None
    signature: str | None = None
    code: str | None = None
    offered: bool | None = None
    proven: bool = False
    siblings: tuple[Sibling, ...] = ()
    depth: int = 0
    live_instances: int = 0


class Reason(Value, frozen=True):
    """One thing in the way: its name, and one sentence with the way out."""

    name: str
    words: str

    def __str__(self) -> str:
        return f"{self.name}: {self.words}"


class Replayability(Value, frozen=True):
    """The answer: `ready`, `confirm` or `blocked`, the reasons for it, the signature an order would be made for, and what of
    the functions the doubts rest on."""

    answer: str
    reasons: tuple[Reason, ...] = ()
    signature: str | None = None
    rests_on: tuple[str, ...] = ()

    def unconfirmed(self, confirm: Sequence[str]) -> list[Reason]:
        """What still stands in the way once the reasons named in `confirm` are waved through."""
        waved = confirm if self.answer == "confirm" else ()
        return [reason for reason in self.reasons if reason.name not in waved]


def may_take(offer: Offer, service: str, environment: str, queue: str | None) -> bool:
    """Whether this instance may be given an order for a task of this service, environment and queue.

    Another service may stand in only for a task of a queue and only with a function registered `via` that queue's
    system: it does not run the work itself, it hands it to the queue that the work came from.
    """
    at_home = offer.service == service or (queue is not None and offer.via is not None)
    return offer.alive and offer.proven and offer.environment == environment and at_home


def is_allowed(task: Recorded, offers: Sequence[Offer]) -> bool:
    """Whether its author allowed a replay and its recorded arguments are whole: what a notice can say about it.

    Nobody has to be alive for it: lost work has just lost its process, whose registration still counts.
    """
    whole = isinstance(task.args, Mapping) and not task.not_replayable_because
    taken = any(may_take(offer, task.service, task.environment, task.queue) for offer in offers)
    return whole and (taken or bool(task.offered and task.proven))


def decide(task: Recorded, offers: Sequence[Offer], edited: Mapping[str, Any] | None = None) -> Replayability:
    """May this task run again, by one of these offers (newest instance first), with `edited` arguments if given?"""
    takers = [offer for offer in offers if may_take(offer, task.service, task.environment, task.queue)]
    chosen, misfit = _choose(task, takers, edited)
    blocked = [
        *_nobody(task, offers, takers),
        *_arguments(task, edited),
        *([Reason(name=SIGNATURE, words=misfit)] if misfit else []),
        *_in_flight(task),
    ]
    if blocked:
        return Replayability(answer="blocked", reasons=tuple(blocked))
    able = [offer for offer in takers if offer.signature == chosen]
    doubts = (*_author(task, able), *_code(task, able), *_history(task))
    answer = "confirm" if doubts else "ready"
    return Replayability(answer=answer, reasons=doubts, signature=chosen, rests_on=_rests_on(doubts, able))


def _rests_on(doubts: Sequence[Reason], able: Sequence[Offer]) -> tuple[str, ...]:
    """What a person's word to these doubts was about: another caution, or other code still, needs another word."""
    names = {reason.name for reason in doubts}
    cautions = {f"caution {offer.caution}" for offer in able if offer.caution} if CAUTION in names else set()
    codes = {f"code {offer.code}" for offer in able if offer.code} if CODE_CHANGED in names else set()
    return (*sorted(cautions), *sorted(codes))


def _choose(task: Recorded, takers: Sequence[Offer], edited: Mapping[str, Any] | None) -> tuple[str | None, str | None]:
    """The signature to make the order for, and why there is none (or None): the recorded one, else one that fits."""
    if not takers:
        return None, None
    if edited is None and task.signature is not None:
        if any(offer.signature == task.signature for offer in takers):
            return task.signature, None
        return None, (
            f"the function's signature was {task.signature} when this was recorded and is now {takers[0].signature}. "
            "Give arguments that fit the new one, or start a release that still has the old one"
        )
    args = task.args if edited is None else edited
    if not isinstance(args, Mapping):
        return None, None
    misfits = [(offer.signature, misfit(offer.signature, args)) for offer in takers]
    for signature, wrong in misfits:
        if wrong is None:
            return signature, None
    return None, f"the arguments do not fit {misfits[0][0]}: {misfits[0][1]}. Give arguments that do"


def _nobody(task: Recorded, offers: Sequence[Offer], takers: Sequence[Offer]) -> list[Reason]:
    if takers:
        return []
    here = [offer for offer in offers if offer.alive and offer.environment == task.environment]
    if any(may_take(msgspec.structs.replace(offer, proven=True), task.service, task.environment, task.queue) for offer in here):
        words = (
            f"{task.service} registers {task.name}, but came over plain loopback, and orders go only to a proven process. "
            "Let it use the daemon's unix socket as the same user, or give it an ingest token"
        )
        return [Reason(name=NOT_PROVEN, words=words)]
    if task.live_instances:
        words = (
            f"no live instance of {task.service} offers {task.name} for replay. "
            "Its author allows it with @looseends.task(replay=True) or looseends.register(...)"
        )
        return [Reason(name=NOT_OPTED_IN, words=words)]
    words = f"no instance of {task.service} is alive in {task.environment}. Start one, then reload this page"
    nobody = [Reason(name=NO_LIVE_INSTANCE, words=words)]
    if task.offered is not False:
        return nobody
    words = (
        f"the process it ran in did not offer {task.name} for replay either. "
        "Its author allows it with @looseends.task(replay=True) or looseends.register(...)"
    )
    return [*nobody, Reason(name=NOT_OPTED_IN, words=words)]


def _arguments(task: Recorded, edited: Mapping[str, Any] | None) -> list[Reason]:
    if edited is not None:
        return []
    if task.not_replayable_because:
        words = f"the recorded arguments cannot be used: {task.not_replayable_because}. Give the arguments yourself"
        return [Reason(name=ARGUMENTS, words=words)]
    if not isinstance(task.args, Mapping):
        words = "no arguments were recorded by name, so there is nothing to call it with. Give the arguments yourself"
        return [Reason(name=ARGUMENTS, words=words)]
    return []


def _in_flight(task: Recorded) -> list[Reason]:
    """What makes a second run now a double run: the original in a live process, or an order that is not decided."""
    reasons = []
    if _is_live(task):
        words = f"it has not ended and its process lives ({task.where}). Wait for its end, or end that process first"
        reasons.append(Reason(name=STILL_RUNNING, words=words))
    for sibling in task.siblings:
        order, state = sibling.order, sibling.state
        if state in ("waiting", "claimed", "running"):
            words = f"it is being replayed already: order {order} is {state}. Wait for its end, or for it to expire"
            reasons.append(Reason(name=ORDER_OPEN, words=words))
        elif state == "outcome_unknown":
            words = f"nobody knows whether order {order} ran. Look there, then resolve it: ran, did_not_run or run_again"
            reasons.append(Reason(name=OUTCOME_UNKNOWN, words=words))
    if task.depth >= DEPTH_MAX:
        words = f"this is replay {task.depth} in a row, and {DEPTH_MAX} are allowed. Replay the first task of the chain instead"
        reasons.append(Reason(name=TOO_DEEP, words=words))
    return reasons


def _is_open(task: Recorded) -> bool:
    return task.state in ("scheduled", "running", "retrying") and not task.dropped and task.verdict not in ("lost", "missed")


def _is_bound(task: Recorded) -> bool:
    """Whether the end of its process would be its own end: what waits in a queue is bound to none."""
    return task.state == "running" or task.queue is None


def _is_live(task: Recorded) -> bool:
    """Running in a live process, however late; or waiting its turn there and not overdue."""
    in_time = task.state == "running" or task.verdict is None
    return _is_open(task) and _is_bound(task) and in_time and task.instance_state == "alive"


def _history(task: Recorded) -> tuple[Reason, ...]:
    reasons = []
    over = _is_bound(task) and task.instance_state == "gone"
    if _is_open(task) and not _is_live(task) and not over:
        held = task.where if _is_bound(task) else f"queue {task.queue} may still deliver it"
        words = f"it has not ended, and nothing proves that it will not ({held}): it may run twice"
        reasons.append(Reason(name=MAY_STILL_RUN, words=words))
    for sibling in task.siblings:
        if sibling.verdict in ("stuck", "stalled"):
            words = f"its replay {sibling.order} is {sibling.verdict} and may still end: it may run twice"
            reasons.append(Reason(name=MAY_STILL_RUN, words=words))
    if task.queue is not None and task.redelivers and task.state not in ("succeeded", "failed", "cancelled"):
        words = f"queue {task.queue} keeps its message until the work has ended and may deliver it again: it may run twice"
        reasons.append(Reason(name=MAY_REDELIVER, words=words))
    if task.key_succeeded and not task.ended_well:
        words = "a later task of this name with the same key succeeded: the work may be done already"
        reasons.append(Reason(name=KEY_SUCCEEDED, words=words))
    if task.ended_well:
        reasons.append(Reason(name=ENDED_WELL, words="it ended well already: this does the work a second time"))
    done = [sibling.order for sibling in task.siblings if sibling.state in ("succeeded", "ran")]
    if done:
        words = f"it was replayed before, with success (order {done[-1]}): this does the work once more"
        reasons.append(Reason(name=REPLAYED_BEFORE, words=words))
    return tuple(reasons)


def _author(task: Recorded, able: Sequence[Offer]) -> tuple[Reason, ...]:
    cautions = dict.fromkeys(offer.caution for offer in able if offer.caution)
    reasons = [Reason(name=CAUTION, words=f"its author says: {caution}") for caution in cautions]
    if not cautions and any(offer.replay == "ask" for offer in able):
        reasons.append(Reason(name=ASK, words=f"the author of {task.name} wants to be asked before each replay"))
    return tuple(reasons)


def _code(task: Recorded, able: Sequence[Offer]) -> tuple[Reason, ...]:
    if task.code is None or all(offer.code in (None, task.code) for offer in able):
        return ()
    words = f"the code of {task.name} has changed since this was recorded: the same arguments may mean something else now"
    return (Reason(name=CODE_CHANGED, words=words),)
