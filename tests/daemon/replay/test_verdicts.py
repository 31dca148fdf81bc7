"""Whether a recorded task may run again: every reason, alone and by name, with its way out."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from looseends_daemon.core import replay
from looseends_daemon.core.arguments import misfit, wrong_arguments
from looseends_daemon.core.replay import Offer, Recorded, Sibling, decide, may_take

LOST = Recorded(
    name="mail.send",
    service="shop",
    environment="production",
    state="running",
    verdict="lost",
    instance_state="gone",
    where="web-3, pid 42, gone",
    args={"order_id": 7},
    signature="(order_id)",
    code="abc",
    live_instances=1,
)
OFFER = Offer(
    instance="i1", service="shop", environment="production", alive=True, proven=True, signature="(order_id)", code="abc"
)


def task(**changed: Any) -> Recorded:
    return msgspec.structs.replace(LOST, **changed)


def offer(**changed: Any) -> Offer:
    return msgspec.structs.replace(OFFER, **changed)


def names(answer: replay.Replayability) -> list[str]:
    return [reason.name for reason in answer.reasons]


def test_a_lost_task_whose_function_is_offered_unchanged_is_ready() -> None:
    answer = decide(LOST, [OFFER])
    assert (answer.answer, answer.reasons, answer.signature) == ("ready", (), "(order_id)")


BLOCKED: list[tuple[str, Recorded, list[Offer]]] = [
    (replay.NO_LIVE_INSTANCE, task(live_instances=0), []),
    (replay.NO_LIVE_INSTANCE, task(live_instances=0), [offer(alive=False)]),
    (replay.NO_LIVE_INSTANCE, task(live_instances=0), [offer(environment="staging")]),
    (replay.NOT_OPTED_IN, LOST, []),
    (replay.NOT_OPTED_IN, LOST, [offer(service="warehouse")]),
    (replay.NOT_OPTED_IN, LOST, [offer(service="warehouse", via="celery")]),
    (replay.NOT_PROVEN, LOST, [offer(proven=False)]),
    (replay.ARGUMENTS, task(not_replayable_because="args/card is redacted"), [OFFER]),
    (replay.ARGUMENTS, task(args=None), [OFFER]),
    (replay.ARGUMENTS, task(args=[7]), [OFFER]),
    (replay.SIGNATURE, LOST, [offer(signature="(order_id, currency)")]),
    (replay.SIGNATURE, task(signature=None), [offer(signature="(order_id, currency)")]),
    (replay.STILL_RUNNING, task(verdict=None, instance_state="alive"), [OFFER]),
    (replay.STILL_RUNNING, task(verdict="stuck", instance_state="alive"), [OFFER]),
    (replay.STILL_RUNNING, task(state="scheduled", verdict=None, instance_state="alive"), [OFFER]),
    (replay.ORDER_OPEN, task(siblings=(Sibling(order="o1", state="waiting"),)), [OFFER]),
    (replay.ORDER_OPEN, task(siblings=(Sibling(order="o1", state="claimed"),)), [OFFER]),
    (replay.ORDER_OPEN, task(siblings=(Sibling(order="o1", state="running"),)), [OFFER]),
    (replay.OUTCOME_UNKNOWN, task(siblings=(Sibling(order="o1", state="outcome_unknown"),)), [OFFER]),
    (replay.TOO_DEEP, task(depth=replay.DEPTH_MAX), [OFFER]),
]


@pytest.mark.parametrize(("reason", "recorded", "offers"), BLOCKED)
def test_each_block_is_named_and_no_word_of_a_person_lifts_it(reason: str, recorded: Recorded, offers: list[Offer]) -> None:
    answer = decide(recorded, offers)
    assert (answer.answer, names(answer)) == ("blocked", [reason])
    assert [left.name for left in answer.unconfirmed(replay.CONFIRMABLE)] == [reason]


CONFIRM: list[tuple[str, Recorded, Offer]] = [
    (replay.ASK, LOST, offer(replay="ask")),
    (replay.CAUTION, LOST, offer(replay="ask", caution="mails the customer again")),
    (replay.CODE_CHANGED, LOST, offer(code="def")),
    (replay.MAY_STILL_RUN, task(verdict=None, instance_state="unreachable"), OFFER),
    (replay.MAY_STILL_RUN, task(verdict="stuck", instance_state=None), OFFER),
    (replay.MAY_STILL_RUN, task(state="scheduled", verdict="never_started", instance_state="alive"), OFFER),
    (replay.MAY_STILL_RUN, task(state="scheduled", verdict=None, queue="mails", instance_state="gone"), OFFER),
    (replay.MAY_STILL_RUN, task(siblings=(Sibling(order="o1", state="gap", verdict="stuck"),)), OFFER),
    (replay.MAY_REDELIVER, task(queue="mails", redelivers=True), OFFER),
    (replay.KEY_SUCCEEDED, task(key_succeeded=True), OFFER),
    (replay.ENDED_WELL, task(state="succeeded", verdict=None, ended_well=True), OFFER),
    (replay.REPLAYED_BEFORE, task(siblings=(Sibling(order="o1", state="succeeded"),)), OFFER),
    (replay.REPLAYED_BEFORE, task(siblings=(Sibling(order="o1", state="ran"),)), OFFER),
]


@pytest.mark.parametrize(("reason", "recorded", "able"), CONFIRM)
def test_each_doubt_is_named_and_stands_until_that_very_name_is_confirmed(reason: str, recorded: Recorded, able: Offer) -> None:
    answer = decide(recorded, [able])
    assert (answer.answer, names(answer)) == ("confirm", [reason])
    others = [name for name in replay.CONFIRMABLE if name != reason]
    assert [left.name for left in answer.unconfirmed(others)] == [reason]
    assert answer.unconfirmed([reason]) == []


def test_every_reason_that_exists_is_reached_by_these_tables() -> None:
    assert {reason for reason, _, _ in BLOCKED} == set(replay.BLOCKING)
    assert {reason for reason, _, _ in CONFIRM} == set(replay.CONFIRMABLE)


READY: list[Recorded] = [
    task(state="failed", verdict=None, instance_state="alive"),
    task(state="scheduled", verdict="never_started", instance_state="alive", dropped=True),
    task(state="running", verdict="lost", instance_state="alive", dropped=True),
    task(state="scheduled", verdict="missed", instance_state=None),
    task(state="cancelled", verdict=None, instance_state="alive"),
    task(verdict=None, instance_state="gone"),
    task(
        siblings=(Sibling(order="o1", state="failed"), Sibling(order="o2", state="expired"), Sibling(order="o3", state="refused"))
    ),
    task(siblings=(Sibling(order="o1", state="gap", verdict="lost"),)),
]


@pytest.mark.parametrize("recorded", READY)
def test_what_certainly_does_not_run_any_more_needs_no_word(recorded: Recorded) -> None:
    assert decide(recorded, [OFFER]).answer == "ready"


def test_all_blocks_are_told_at_once() -> None:
    answer = decide(task(not_replayable_because="args/card is redacted", depth=10), [offer(signature="(x)")])
    assert names(answer) == [replay.ARGUMENTS, replay.SIGNATURE, replay.TOO_DEEP]


def test_a_changed_signature_shows_both_and_edited_arguments_are_the_way_out() -> None:
    now = offer(signature="(order_id, currency='EUR')")
    blocked = decide(LOST, [now])
    assert "(order_id)" in blocked.reasons[0].words and "(order_id, currency='EUR')" in blocked.reasons[0].words
    edited = decide(LOST, [now], {"order_id": 7, "currency": "USD"})
    assert (edited.answer, edited.signature) == ("ready", "(order_id, currency='EUR')")
    assert names(decide(LOST, [now], {"currency": "USD"})) == [replay.SIGNATURE]


def test_edited_arguments_replace_redacted_ones() -> None:
    redacted = task(not_replayable_because="args/card is redacted", args=None)
    assert decide(redacted, [OFFER], {"order_id": 7}).answer == "ready"


def test_in_a_rolling_deploy_the_order_goes_to_the_release_that_still_has_the_signature() -> None:
    answer = decide(LOST, [offer(instance="new", signature="(order)", code="def"), offer(instance="old")])
    assert (answer.answer, answer.signature) == ("ready", "(order_id)")


def test_with_nobody_alive_it_is_also_said_that_the_dead_process_did_not_offer_it() -> None:
    dead = msgspec.structs.replace(LOST, live_instances=0)
    assert names(decide(dead, [])) == [replay.NO_LIVE_INSTANCE], "no process is known that could have offered it"
    assert names(decide(msgspec.structs.replace(dead, offered=True), [])) == [replay.NO_LIVE_INSTANCE]
    both = decide(msgspec.structs.replace(dead, offered=False), [])
    assert names(both) == [replay.NO_LIVE_INSTANCE, replay.NOT_OPTED_IN]
    assert "then reload this page" in both.reasons[0].words
    assert "replay=True" in both.reasons[1].words


def test_one_instance_with_other_code_is_enough_to_ask() -> None:
    assert names(decide(LOST, [OFFER, offer(instance="i2", code="def")])) == [replay.CODE_CHANGED]


def test_only_a_queue_task_may_be_handed_over_by_another_service_and_only_via_its_system() -> None:
    other = offer(service="frontend", via="celery")
    assert may_take(other, "shop", "production", "mails")
    assert not may_take(other, "shop", "production", None)
    assert not may_take(offer(service="frontend"), "shop", "production", "mails")
    assert not may_take(offer(service="frontend", via="celery", environment="staging"), "shop", "production", "mails")


FITS = [
    ("(order_id)", {"order_id": 7}, None),
    ("(order_id: int, *, currency: str = 'EUR') -> None", {"order_id": 7}, None),
    ("(order_id, /, currency)", {"order_id": 7}, "currency is missing"),
    ("(a, b, c=1)", {}, "a, b are missing"),
    ("(*, a, b=2)", {"b": 1}, "a is missing"),
    ("(a)", {"a": 1, "b": 2}, "it takes no b"),
    ("(order_id, currency)", {"oder_id": 7, "currency": "EUR"}, "order_id is missing, and it takes no oder_id"),
    ("(a, **rest)", {"a": 1, "b": 2}, None),
    ("(a, *args)", {"a": 1, "args": [2]}, None),
    ("()", {}, None),
    ("(a=<object object at 0x7f>)", {"zzz": 1}, None),
    ("(): pass\nimport os\ndef g()", {"zzz": 1}, None),
    (None, {"zzz": 1}, None),
    ("(" * 3000, {}, None),
]


@pytest.mark.parametrize(("signature", "args", "wrong"), FITS)
def test_arguments_are_held_against_the_text_of_a_signature(
    signature: str | None, args: dict[str, Any], wrong: str | None
) -> None:
    assert misfit(signature, args) == wrong


def _nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"order_id": 7, "lines": [{"sku": "a"}]}, None),
        ({}, None),
        ([7], "by name"),
        ({7: 1}, "by name"),
        ({"a": float("nan")}, "NaN"),
        ({"a": "\ud800"}, "surrogate"),
        ({"a": object()}, "JSON"),
        ({"a": "x" * 70_000}, "65536"),
        ({"a": _nested(40)}, "nested deeper than 32"),
        ({"a": _nested(100_000)}, "nested deeper than 32"),
    ],
)
def test_edited_arguments_are_plain_bounded_json_by_name(args: Any, says: str | None) -> None:
    wrong = wrong_arguments(args)
    assert (wrong is None) if says is None else (says in (wrong or ""))
