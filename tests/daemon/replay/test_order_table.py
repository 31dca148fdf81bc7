"""The life of an order, read from its table."""

from __future__ import annotations

import re

import pytest

from looseends.wire import NS
from looseends_daemon.core import orders
from looseends_daemon.core.orders import (
    ANSWERS,
    COUNTED,
    OUTCOMES,
    STORED,
    TRANSITIONS,
    counts,
    replay_state,
    shown,
    step,
    vanished,
)
from looseends_daemon.core.resources import STATES, VERDICTS
from looseends_daemon.store.schema import migrations


def test_no_act_ever_makes_an_order_waiting_again() -> None:
    assert "waiting" not in TRANSITIONS.values()


def test_an_order_can_be_claimed_from_one_state_only() -> None:
    assert [state for state, act in TRANSITIONS if act == "claim"] == ["waiting"]


def test_only_a_person_or_the_claimant_itself_leads_out_of_an_unknown_outcome() -> None:
    assert {act for state, act in TRANSITIONS if state == "outcome_unknown"} == {*ANSWERS, *OUTCOMES}


@pytest.mark.parametrize("final", ["refused", "expired", "ran", "did_not_run", "cancelled"])
def test_what_is_decided_stays_decided(final: str) -> None:
    assert [act for state, act in TRANSITIONS if state == final] == []
    assert all(step(final, act) is None for act in (*ANSWERS, *OUTCOMES, "claim", "expire", "vanish"))


def test_the_table_and_the_database_know_the_same_states() -> None:
    sql = "".join(text for _, text in migrations())
    allowed = re.search(r"CREATE TABLE replay_order.*?state IN \((.*?)\)\)", sql, re.DOTALL)
    assert allowed is not None and set(re.findall(r"'(\w+)'", allowed[1])) == set(STORED)
    assert {state for pair in TRANSITIONS for state in (pair[0], TRANSITIONS[pair])} <= set(STORED)


def test_every_state_an_order_can_show_is_counted() -> None:
    everything = {shown(s, t, v) for s in STORED for t in (None, *STATES) for v in (None, *VERDICTS)}
    assert everything <= set(COUNTED)


def test_facts_of_the_new_task_overrule_what_was_concluded_without_them() -> None:
    assert shown("outcome_unknown") == "outcome_unknown"
    assert shown("outcome_unknown", "running") == "running"
    assert shown("did_not_run", "succeeded") == "succeeded"
    assert shown("claimed", "running", "lost") == "gap"


def test_the_counts_add_up_to_their_total() -> None:
    counted = counts([("waiting", 2), ("failed", 3), ("waiting", 1)])
    assert (counted["total"], counted["waiting"], counted["failed"]) == (6, 3, 3)
    assert sum(counted.values()) == 2 * counted["total"]


def test_a_replay_is_done_when_no_machine_has_anything_left_to_do() -> None:
    assert replay_state("running", counts([("claimed", 1), ("succeeded", 1)])) == "running"
    assert replay_state("running", counts([("outcome_unknown", 1), ("succeeded", 1)])) == "done"


AT = 1_000 * NS


@pytest.mark.parametrize(
    ("state", "claimant", "answered", "after_s", "given_up"),
    [
        ("claimed", "alive", False, 1, False),
        ("claimed", "alive", False, orders.UNANSWERED_S_MAX, True),
        ("claimed", "alive", True, 10 * orders.UNANSWERED_S_MAX, False),
        ("claimed", "gone", False, 0, True),
        ("claimed", "gone", True, 0, True),
        ("claimed", "unreachable", True, 0, True),
        ("claimed", None, False, 0, True),
        ("handed_over", "gone", True, 60, False),
        ("handed_over", "alive", True, orders.HANDED_OVER_S_MAX, True),
    ],
)
def test_an_outcome_is_unknown_when_nobody_is_left_who_could_tell(
    state: str, claimant: str | None, answered: bool, after_s: float, given_up: bool
) -> None:
    now = AT + int(after_s * NS)
    why, due = vanished(state, AT, claimant, answered, now)
    assert (why is not None) == given_up
    assert given_up or due > now
