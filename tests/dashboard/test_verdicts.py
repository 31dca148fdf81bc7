"""What a task page says at its top, and how loose ends are grouped."""

from __future__ import annotations

from typing import Any

import pytest

from dashboard import shop
from looseends_daemon.core import query
from looseends_daemon.core.resources import VERDICTS, Actor, Error, InstanceRef, Task
from looseends_dashboard import access, links, marks, verdicts, views


def task(**fields: Any) -> Task:
    base = {"id": "t", "name": "mail.send", "service": "shop", "environment": "production", "state": "running"}
    return Task(**(base | fields))


def loose(verdict: str, **fields: Any) -> Task:
    return task(verdict=verdict, loose=True, reason="process killed; last heard 14:05:31", **fields)


@pytest.mark.parametrize("verdict", VERDICTS)
def test_every_verdict_says_what_it_means_and_what_to_do(verdict: str) -> None:
    head = verdicts.headline(loose(verdict), shop.NOW)
    assert head.text == f"{verdict.replace('_', ' ').capitalize()}: process killed; last heard 14:05:31"
    assert head.kind == "loose"
    assert len(head.meaning) > 30
    assert len(head.advice) > 20


def test_a_stuck_task_without_a_process_does_not_claim_that_one_lives() -> None:
    assert "process still lives" not in verdicts.headline(loose("stuck"), shop.NOW).meaning
    assert "process still lives" in verdicts.headline(loose("stuck", instance=shop.WEB_1), shop.NOW).meaning


def test_lost_work_that_had_not_started_never_began_and_nobody_has_to_wonder() -> None:
    waiting = verdicts.headline(loose("lost", state="scheduled", replayable=True), shop.NOW)
    assert waiting.meaning.endswith("its work never began.")
    assert "look there first" not in waiting.advice
    begun = verdicts.headline(loose("lost", started_at=shop.NOW), shop.NOW)
    assert "is not known" in begun.meaning


def test_a_headline_does_not_say_its_verdict_twice() -> None:
    head = verdicts.headline(task(verdict="never_started", loose=True, reason="never started: its request failed"), shop.NOW)
    assert head.text == "Never started: its request failed"


def test_a_group_says_how_many_had_not_started_only_where_some_had() -> None:
    one: dict[str, Any] = {"state": "running", "verdict": "lost", "loose": True, "instance": shop.WEB_2}
    begun = task(**one, started_at=shop.NOW, reason="process killed")
    waiting = task(**one, reason="process killed; it had not started")
    assert views.groups([waiting, begun])[0].cause == "process killed; 1 of 2 had not started"
    assert views.groups([begun, waiting])[0].cause == "process killed; 1 of 2 had not started"
    assert views.groups([waiting, waiting])[0].cause == "process killed; it had not started"
    assert views.groups([begun])[0].cause == "process killed"


@pytest.mark.parametrize("verdict", VERDICTS)
def test_replay_is_not_advised_where_it_is_not_offered(verdict: str) -> None:
    assert "Press Replay" not in verdicts.headline(loose(verdict, replayable=False), shop.NOW).advice


def test_a_failure_is_named_by_its_error() -> None:
    head = verdicts.headline(task(state="failed", loose=True, error=Error(type="KeyError", message="'sku'")), shop.NOW)
    assert head.text == "Failed: KeyError: 'sku'"


def test_a_settled_loss_says_first_that_it_is_settled() -> None:
    head = verdicts.headline(task(verdict="lost", settled="replayed", reason="process killed"), shop.NOW)
    assert head.text == "Replayed. Before that, lost: process killed"
    assert "Nothing is left to do" in head.meaning
    assert head.advice == ""


def test_a_late_success_says_it_was_given_up_before() -> None:
    head = verdicts.headline(task(state="succeeded", duration=1.24, flags=["late"]), shop.NOW)
    assert head.text == "Succeeded in 1.24 s, after it had been given up"


def test_a_mark_is_glyph_word_and_colour_and_only_loose_is_loose() -> None:
    seen = [marks.mark(task(state=state)) for state in ("scheduled", "running", "retrying", "succeeded", "failed", "cancelled")]
    assert all(mark.glyph and mark.word and mark.kind for mark in seen)
    assert "loose" not in {mark.kind for mark in seen}
    assert marks.mark(loose("never_started")) == marks.Mark(glyph="◌", word="never started", kind="loose")
    assert marks.mark(task(verdict="lost", settled="replayed")).word == "replayed"


def test_what_a_process_took_with_it_is_one_group_and_the_rest_go_by_type() -> None:
    gone = InstanceRef(id="i1", host="web-2", pid=4121)
    pile = [
        loose("lost", instance=gone, began_at=3),
        loose("lost", instance=gone, name="audit.write", began_at=2),
        task(state="failed", loose=True, name="partner.webhook", began_at=1, id="f1"),
    ]
    lost, failed = views.groups(pile)
    assert lost.title == "2 tasks lost with process 4121 on web-2 of shop"
    assert lost.names == "audit.write, mail.send"
    assert failed.title == "1 task failed: partner.webhook"
    assert failed.href == "/tasks/f1"


def test_every_link_of_the_pages_is_a_query_that_parses() -> None:
    reader = shop.hostile()
    asked = [views._group_query(task) for task in reader.all_tasks if task.loose]
    asked += [links.cause_query(incident) for incident in reader.all_incidents]
    asked += [links.term("name", text) for text in ("a b", "x*", "-x", "a,b", "ж", "a:b", "\\")]
    for text in asked:
        query.parse(text)


def test_a_value_that_no_query_can_hold_is_left_out_rather_than_broken() -> None:
    assert links.term("name", 'say "hi"') == ""
    assert links.term("name", "mail.*") == 'name:"mail.*"'


VIEWER = Actor(name="v", role="viewer", channel="token:v")
OPERATOR = Actor(name="o", role="operator", channel="token:o")


def test_the_replay_button_leaves_a_reason_where_it_is_missing() -> None:
    able, unable = task(replayable=True), task(not_replayable_because="argument card is redacted")
    assert access.replay_button(able, OPERATOR).shown
    assert "operators" in access.replay_button(able, VIEWER).why_not
    assert "operators" in access.replay_button(able, None).why_not
    assert access.replay_button(unable, OPERATOR).why_not == "Not replayable: argument card is redacted."
