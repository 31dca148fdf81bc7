"""The pure machine with its two marks: acknowledged and silenced, line by line."""

from __future__ import annotations

from typing import Any

import pytest

from looseends.wire import NS
from looseends_daemon.core.incidents import RULES, AlertRules, Standing, Taken, after, decide
from looseends_daemon.core.marks import InForce, labels_of, silence_over
from looseends_daemon.core.matchers import matchers

T = 1_780_000_000 * NS
RULE_SET = AlertRules(group_wait=1, group_interval=60, repeat_interval=3600)
HOUR = 3600 * NS


def told(**fields: Any) -> Standing:
    """An open incident with two loose ends, told about at T."""
    given: dict[str, Any] = {
        "state": "open",
        "opened_at": T,
        "severity": "warning",
        "open": 2,
        "arrivals": 2,
        "ripe": True,
        "reached": True,
    }
    return Standing(**{**given, "grave": True, "told": 2, "told_at": T, "told_severity": "warning", **fields})


def taken(**fields: Any) -> Taken:
    given: dict[str, Any] = {"at": T + NS, "until": T + 24 * HOUR, "count": 2, "severity": "warning", "told": True}
    return Taken(**{**given, **fields})


def reason(it: Standing, seconds: float) -> str | None:
    decision = decide(it, RULE_SET, T + round(seconds * NS))
    return decision.rule.reason if decision.rule else None


def walk(it: Standing, seconds: float) -> list[str]:
    """The reasons of all steps that are due then."""
    now, reasons = T + round(seconds * NS), []
    while (rule := decide(it, RULE_SET, now).rule) is not None:
        reasons.append(rule.reason)
        it = after(it, rule, now)
    return reasons


def test_an_acknowledgement_is_told_once() -> None:
    it = told(taken=taken(told=False))
    assert reason(it, 1) == "acknowledged"
    assert walk(it, 1) == ["acknowledged"]


def test_nothing_is_repeated_and_few_more_are_not_told_while_it_is_acknowledged() -> None:
    assert walk(told(taken=taken(), open=3, arrivals=3), 23 * 3600) == []


def test_twice_as_many_clear_it_and_are_told() -> None:
    it = told(taken=taken(), open=4, arrivals=4)
    assert walk(it, 10) == ["acknowledgement_outgrown"]
    assert walk(it, 60) == ["acknowledgement_outgrown", "new_tasks"]


def test_what_is_open_counts_and_not_what_ever_came() -> None:
    assert walk(told(taken=taken(), open=3, arrivals=40), 60) == []


def test_a_higher_severity_clears_it_and_is_told_at_once() -> None:
    assert walk(told(taken=taken(), severity="critical"), 2) == ["acknowledgement_worse", "severity"]


def test_its_time_clears_it_and_the_incident_is_repeated() -> None:
    it = told(taken=taken(until=T + 5 * HOUR))
    assert decide(it, RULE_SET, T + HOUR).look_at == T + 5 * HOUR
    assert walk(it, 5 * 3600) == ["acknowledgement_expired", "repeat_interval"]


def test_an_acknowledged_incident_resolves_like_any_other() -> None:
    it = told(taken=taken(), open=0, settled={"replayed": 2}, quiet_since=T)
    assert walk(it, 2) == ["all_settled"]


def test_an_acknowledgement_before_the_opening_is_told_with_it() -> None:
    it = told(state="pending", taken=taken(told=False), told=0, told_at=None, told_severity=None)
    assert walk(it, 2) == ["first_notification"]


def silenced(seconds: float = 600, **fields: Any) -> Standing:
    return told(silenced_until=T + round(seconds * NS), **fields)


def test_a_silenced_incident_opens_and_nobody_is_told_until_the_silence_ends() -> None:
    it = silenced(state="pending", told=0, told_at=None, told_severity=None)
    rule = decide(it, RULE_SET, T + NS).rule
    assert rule is not None and rule.reason == "first_notification"
    opened = after(it, rule, T + NS)
    assert (opened.state, opened.held, opened.told_at) == ("open", True, None)
    assert decide(opened, RULE_SET, T + NS).look_at == T + 600 * NS
    free = Standing(**{**{n: getattr(opened, n) for n in opened.__struct_fields__}, "silenced_until": None})
    assert walk(free, 600) == ["silence_ended"]


@pytest.mark.parametrize(
    "fields",
    [{"severity": "critical"}, {"arrivals": 5}, {"taken": taken(told=False)}, {"told_at": T - HOUR}],
    ids=["severity", "new_tasks", "acknowledged", "repeat_interval"],
)
def test_what_is_due_under_a_silence_is_withheld_and_looked_at_again_at_its_end(fields: dict[str, Any]) -> None:
    decision = decide(silenced(**fields), RULE_SET, T + 60 * NS)
    assert (decision.rule, decision.withheld, decision.look_at) == (None, True, T + 600 * NS)


def test_once_the_silence_is_over_one_notice_says_it_all() -> None:
    it = told(held=True, severity="critical", arrivals=9, open=9, told_at=T - 9 * HOUR)
    assert walk(it, 600) == ["silence_ended"]


def test_a_silence_that_withheld_nothing_ends_without_a_word() -> None:
    assert walk(told(), 30) == []


def test_what_was_settled_meanwhile_is_not_told_as_open() -> None:
    assert walk(told(held=True, open=0, quiet_since=T, settled={"retried": 2}), 600) == ["all_settled"]


def test_the_end_goes_out_under_a_silence_too() -> None:
    decision = decide(silenced(open=0, quiet_since=T, settled={"retried": 2}), RULE_SET, T)
    assert decision.rule is not None and decision.rule.notice == "resolved"


def test_every_step_of_the_table_ends() -> None:
    """Applied once, no rule is due again at the same moment: or the daemon would go round in circles."""
    for rule in RULES:
        marks: tuple[dict[str, Any], ...] = ({}, {"silenced_until": T + HOUR})
        for mark in marks:
            it = after(
                told(state=rule.state, taken=taken(told=False), held=True, open=0 if rule.to == "resolved" else 2, **mark),
                rule,
                T,
            )
            assert decide(it, RULE_SET, T).rule is not rule


def group_labels(**fields: Any) -> dict[str, str | None]:
    row = {
        "service": "shop",
        "environment": "production",
        "instance": None,
        "problem": "lost",
        "severity": "critical",
        "name": None,
    }
    return labels_of({**row, **fields}, [])


def in_force(text: str, ends_at: int = T) -> InForce:
    return InForce(id=text, author="ada", comment="", matchers=matchers(text), ends_at=ends_at)


def test_of_several_silences_the_last_to_end_counts() -> None:
    found = silence_over(
        [in_force("service=shop", T), in_force("problem=lost", T + 1), in_force("name=x", T + 9)], group_labels()
    )
    assert found is not None and found.id == "problem=lost"


def test_what_is_about_the_daemon_itself_is_never_silenced() -> None:
    assert silence_over([in_force('service!=""')], group_labels(problem="endpoint_failing", service="looseends")) is None
