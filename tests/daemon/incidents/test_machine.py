"""The pure machine: every line of its table, the times it gives, severities, titles."""

from __future__ import annotations

from typing import Any

import pytest

from looseends.wire import NEVER, NS
from looseends_daemon.core.incidents import (
    RULES,
    AlertRules,
    OpenGroup,
    Standing,
    decide,
    is_ripe,
    resolution_of,
    severity_of,
    worst_problem,
    worst_severity,
)
from looseends_daemon.core.policy import TaskRule
from looseends_daemon.core.titles import TITLE_CHARS_MAX, Scene, scene_of, settled_title, title_of

T = 1_780_000_000 * NS
RULE_SET = AlertRules(group_wait=1, group_interval=60, repeat_interval=3600, keep_open_for=0)


def standing(**fields: object) -> Standing:
    """An incident with one open loose end, pending since T."""
    given: dict[str, Any] = {"state": "pending", "opened_at": T, "severity": "critical", "open": 1, "arrivals": 1, "ripe": True}
    return Standing(**{**given, "reached": True, "grave": True, **fields})


def told(**fields: object) -> Standing:
    """The same once it is open and was told about at T."""
    return standing(**{"state": "open", "told": 1, "told_at": T, "told_severity": "critical", **fields})


def reason(it: Standing, seconds: float, rules: AlertRules = RULE_SET) -> str | None:
    decision = decide(it, rules, T + round(seconds * NS))
    return decision.rule.reason if decision.rule else None


def look_at(it: Standing, rules: AlertRules = RULE_SET) -> float | None:
    found = decide(it, rules, T).look_at
    return None if found is None else (found - T) / NS


def test_a_new_incident_gathers_for_group_wait_and_then_opens() -> None:
    assert reason(standing(), 0.999) is None
    assert look_at(standing()) == 1
    assert reason(standing(), 1) == "first_notification"


def test_below_open_after_nothing_opens_however_long_it_waits() -> None:
    few = standing(ripe=False, reached=False)
    assert reason(few, 86_400) is None
    assert look_at(few) is None


def test_what_was_settled_before_anybody_had_to_know_resolves_silently() -> None:
    mended = standing(open=0, ripe=False, grave=False, settled={"finished_late": 1}, quiet_since=T)
    decision = decide(mended, RULE_SET, T)
    assert decision.rule is not None
    assert (decision.rule.reason, decision.rule.to, decision.rule.notice) == ("settled_before_notice", "resolved", None)


def test_a_mended_loss_is_still_reported() -> None:
    assert reason(standing(open=0, ripe=False, settled={"replayed": 1}, quiet_since=T), 0) == "first_notification"


def test_a_withdrawn_loss_is_reported_to_nobody() -> None:
    assert reason(standing(open=0, ripe=False, settled={}, quiet_since=T), 0) == "settled_before_notice"


def test_more_loose_ends_are_told_after_group_interval_and_not_before() -> None:
    more = told(arrivals=5, open=5)
    assert reason(more, 59.9) is None
    assert look_at(more) == 60
    assert reason(more, 60) == "new_tasks"


def test_a_higher_severity_is_told_at_once() -> None:
    assert reason(told(told_severity="warning"), 0) == "severity"
    assert reason(told(told_severity="critical", severity="critical"), 0) is None


def test_an_open_incident_is_repeated_and_never_means_never() -> None:
    assert reason(told(), 3599) is None
    assert reason(told(), 3600) == "repeat_interval"
    quiet = AlertRules(repeat_interval=NEVER)
    assert reason(told(), 1e6, quiet) is None
    assert look_at(told(), quiet) is None


def test_it_resolves_when_all_stayed_settled_for_keep_open_for() -> None:
    done = told(open=0, settled={"replayed": 1}, quiet_since=T)
    assert reason(done, 0) == "all_settled"
    patient = AlertRules(keep_open_for=30)
    assert look_at(done, patient) == 30
    assert reason(done, 29, patient) is None


def test_nothing_is_repeated_or_updated_while_it_waits_to_resolve() -> None:
    done = told(open=0, arrivals=9, settled={"replayed": 9}, quiet_since=T, told_severity="info")
    assert reason(done, 99_999, AlertRules(keep_open_for=100_000)) is None


def test_a_resolved_incident_has_no_way_out() -> None:
    assert not [rule for rule in RULES if rule.state == "resolved"]
    assert decide(standing(state="resolved"), RULE_SET, T + 10**18).rule is None


def test_every_rule_has_a_reason_of_its_own_and_says_it_in_words() -> None:
    assert len({rule.reason for rule in RULES}) == len(RULES)
    assert all(rule.words and rule.to in ("open", "resolved") for rule in RULES)


def group(problem: str, count: int = 1, name: str = "mail.send_receipt") -> OpenGroup:
    return OpenGroup(service="shop-web", name=name, problem=problem, count=count)


def test_the_worst_open_problem_is_the_incidents_problem_and_the_last_one_stands() -> None:
    assert worst_problem([group("failed"), group("stuck"), group("missed")], "failed") == "stuck"
    assert worst_problem([group("stuck"), group("lost")], "failed") == "lost"
    assert worst_problem([], "stuck") == "stuck"


@pytest.mark.parametrize(
    ("problem", "severity"),
    [
        *(("lost", "critical"), ("never_started", "critical"), ("missed", "critical")),
        *(("stuck", "warning"), ("stalled", "warning"), ("failed", "warning")),
    ],
)
def test_severity_by_default(problem: str, severity: str) -> None:
    assert severity_of(problem, None) == severity


def test_a_task_rule_overrides_the_severity_and_the_first_match_wins() -> None:
    rules = AlertRules(tasks=(TaskRule(match="shop-web/mail.*", severity="info"), TaskRule(match="*", severity="critical")))
    assert worst_severity([group("lost")], rules, "info") == "info"
    assert worst_severity([group("failed", name="audit.write")], rules, "info") == "critical"


def test_severity_never_falls() -> None:
    assert worst_severity([group("failed")], AlertRules(), "critical") == "critical"


def test_open_after_counts_the_loose_ends_of_one_type() -> None:
    rules = AlertRules(tasks=(TaskRule(match="*/warm_cache", open_after=3),))
    assert not is_ripe([group("failed", 1, "warm_cache"), group("stuck", 1, "warm_cache")], rules)
    assert is_ripe([group("failed", 2, "warm_cache"), group("stuck", 1, "warm_cache")], rules)
    assert is_ripe([group("failed", 1, "warm_cache"), group("failed", 1)], rules)


def test_the_resolution_names_the_one_way_or_says_mixed() -> None:
    assert resolution_of({"replayed": 3}) == "replayed"
    assert resolution_of({"replayed": 3, "finished_late": 1}) == "mixed"
    assert resolution_of({"replayed": 0}) == "withdrawn"


AT = 1_763_647_531 * NS  # 14:05:31


@pytest.mark.parametrize(
    ("scene", "title"),
    [
        (
            Scene(problem="lost", service="shop-web", count=12, host="web-3", instance_state="gone", died_at=AT),
            "12 tasks lost when shop-web on web-3 died at 14:05 UTC",
        ),
        (
            Scene(problem="lost", service="shop-web", count=1, name="mail.send", host="web-3", instance_state="gone"),
            "mail.send lost when shop-web on web-3 died",
        ),
        (
            Scene(
                problem="lost",
                service="shop-web",
                count=2,
                instance_state="unreachable",
                died_at=AT,
                others=(("stuck", 1), ("failed", 2)),
            ),
            "2 tasks lost when shop-web went silent at 14:05 UTC, 1 stuck, 2 failed",
        ),
        (
            Scene(problem="lost", service="shop-web", count=1, name="a", instance_state="alive", detail="lost in mid-task: x"),
            "a of shop-web is lost: x",
        ),
        (
            Scene(problem="stuck", service="shop-web", count=1, name="mail.send_receipt", detail="no end within 30 s"),
            "mail.send_receipt of shop-web is stuck: no end within 30 s",
        ),
        (Scene(problem="stuck", service="s", count=3, name="mail.send"), "3 mail.send tasks of s are stuck"),
        (
            Scene(problem="never_started", service="s", count=1, name="a", detail="never started: its request failed"),
            "a of s never started: its request failed",
        ),
        (Scene(problem="failed", service="s", count=1, name="a", detail="failed for good: E: secret"), "a of s failed"),
        (Scene(problem="failed", service="s", count=4), "4 tasks of s failed"),
        (Scene(problem="lost", service="my-shop", count=2, name="my.mail"), "2 my.mail tasks of my-shop are lost"),
        (
            Scene(problem="lost", service="my-shop", count=2, name="my.mail", others=(("failed", 2),)),
            "my.mail of my-shop: 2 lost, 2 failed",
        ),
        (Scene(problem="never_started", service="s", count=1, others=(("missed", 3),)), "s: 1 never started, 3 missed"),
    ],
)
def test_titles_are_sentences_for_a_tired_reader(scene: Scene, title: str) -> None:
    assert title_of(scene) == title


DEAD = Scene(problem="lost", service="shop-web", count=3, host="web-3", instance_state="gone", died_at=AT)


@pytest.mark.parametrize(
    ("scene", "settled", "title"),
    [
        (
            Scene(problem="stuck", service="shop-web", count=1, name="mail.send", detail="no end within 1 s; it is alive"),
            {"finished_late": 1},
            "Settled: mail.send of shop-web ended late (was stuck)",
        ),
        (
            Scene(problem="lost", service="shop-web", count=1, name="mail.send"),
            {"replayed": 1},
            "Settled: mail.send of shop-web was lost; replayed",
        ),
        (Scene(problem="failed", service="s", count=1, name="a"), {"retried": 1}, "Settled: a of s failed; retried"),
        (Scene(problem="missed", service="s", count=1, name="a"), {"dismissed": 1}, "Settled: a of s was missed; dismissed"),
        (Scene(problem="lost", service="s", count=1, name="a"), {}, "Settled: a of s was lost; that was withdrawn"),
        (
            Scene(problem="stuck", service="s", count=3, name="a"),
            {"finished_late": 3, "replayed": 0},
            "Settled: 3 a tasks of s, stuck at worst; all ended late",
        ),
        (
            DEAD,
            {"finished_late": 1, "replayed": 2},
            "Settled: 3 tasks lost when shop-web on web-3 died at 14:05 UTC; 1 ended late, 2 replayed",
        ),
    ],
)
def test_a_settled_title_says_what_was_and_what_became_of_it(scene: Scene, settled: dict[str, int], title: str) -> None:
    assert settled_title(scene, settled) == title


def test_a_title_is_one_line_of_bounded_length() -> None:
    scene = Scene(problem="stuck", service="s" * 200, count=1, name="n" * 200, detail="a\nb " * 300)
    title = title_of(scene)
    assert len(title) <= TITLE_CHARS_MAX
    assert "\n" not in title
    assert len(settled_title(scene, {"retried": 1})) <= TITLE_CHARS_MAX


def test_the_scene_counts_each_problem_and_names_the_tasks_only_if_all_share_it() -> None:
    groups = [group("stuck", 2), group("failed", 3), group("stuck", 1, "audit.write")]
    scene = scene_of("stuck", "shop-web", groups, "")
    assert (scene.count, scene.others, scene.name) == (3, (("failed", 3),), None)
