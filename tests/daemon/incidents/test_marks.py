"""Acknowledged and silenced, in the store: what is told, what is withheld, what is shown and kept."""

from __future__ import annotations

import json
from typing import Any

import pytest

from looseends.wire import NS, format_time
from looseends_daemon.core.incidents import AlertRules, EndpointRule
from looseends_daemon.core.marks import SILENCES_MAX
from looseends_daemon.core.policy import TaskRule
from looseends_daemon.core.resources import Actor, CommandRefused
from looseends_daemon.store import silences
from looseends_daemon.store.hidden import hidden
from looseends_daemon.store.incidents import announce
from looseends_daemon.store.questions import ask

OPS = EndpointRule(name="ops", fingerprint="1")
ADA = Actor(name="ada", role="operator", channel="session")


def opened(ground: Any, failures: int = 2) -> str:
    """An open incident of so many failures, told and delivered; its id."""
    for _ in range(failures):
        ground.fail(ground.start())
    ground.after(0)
    ground.after(1)
    ground.deliver()
    found: str = ground.incidents()[-1].id
    return found


def why(ground: Any, n: int = -1) -> list[str]:
    return [one["reason"] for one in ground.incidents()[n].why]


def incident_of(notice: Any) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(notice.body)["data"]["incident"]
    return told


# --- acknowledged -------------------------------------------------------------------------------------------------


def test_an_acknowledgement_is_shown_told_and_kept_with_its_reason(ground: Any) -> None:
    opened(ground)
    at = ground.now
    ground.acknowledge(note="  I look at it ")
    shown = ground.incident().acknowledged
    assert shown == {"by": "ada", "at": at, "note": "I look at it", "expires_at": at + 86_400 * NS}
    notice = ground.notices()[-1]
    assert (notice.type, notice.reason) == ("looseends.incident.acknowledged", "acknowledged")
    times = {"at": format_time(at), "expires_at": format_time(at + 86_400 * NS)}
    assert incident_of(notice)["acknowledged"] == {**shown, **times}
    assert why(ground)[-1] == "acknowledged"
    audited = ground.conn.execute("SELECT actor, act, subject FROM audit").fetchone()
    assert tuple(audited) == ("ada", "acknowledge_incident", ground.incident().id)


def test_while_it_is_acknowledged_nothing_is_repeated_until_its_time_is_over(ground: Any) -> None:
    opened(ground)
    ground.acknowledge(expires=20 * 3600)
    ground.deliver()
    ground.after(19.9 * 3600)
    assert ground.types() == ["opened", "acknowledged"]
    assert ground.due == ground.now + round(0.1 * 3600 * NS)
    ground.after(0.1 * 3600)
    assert ground.types() == ["opened", "acknowledged", "repeated"]
    assert why(ground)[-2:] == ["acknowledgement_expired", "repeat_interval"]
    assert ground.incident().acknowledged is None


def test_a_few_more_are_kept_quiet_and_twice_as_many_are_told(ground: Any) -> None:
    opened(ground)
    ground.acknowledge()
    ground.deliver()
    ground.fail(ground.start())
    ground.after(100)
    assert ground.types()[-1] == "acknowledged"
    ground.fail(ground.start())
    ground.after(0)
    assert why(ground)[-2:] == ["acknowledgement_outgrown", "new_tasks"]
    assert ground.types()[-1] == "updated"
    assert incident_of(ground.notices()[-1])["acknowledged"] is None


def test_a_worse_problem_clears_it_at_once(make_ground: Any) -> None:
    ground = make_ground(AlertRules(endpoints=(OPS,)))
    ground.start(deadline=10)
    ground.after(10)
    ground.after(1)
    ground.deliver()
    ground.acknowledge()
    ground.deliver()
    ground.kill()
    ground.after(0)
    assert why(ground)[-2:] == ["acknowledgement_worse", "severity"]
    assert ground.notices()[-1].reason == "severity"


def test_the_severity_of_a_task_rule_is_the_incidents(make_ground: Any) -> None:
    rules = AlertRules(endpoints=(OPS,), tasks=(TaskRule(match="*/mail.*", severity="info"),))
    ground = make_ground(rules)
    opened(ground)
    assert ground.incident().severity == "info"


def test_it_can_be_acknowledged_again_and_then_that_counts(ground: Any) -> None:
    opened(ground)
    ground.acknowledge(note="mine")
    ground.deliver()
    ground.after(5)
    ground.acknowledge(note="yours", expires=60)
    assert ground.incident().acknowledged["note"] == "yours"
    assert ground.types() == ["opened", "acknowledged", "acknowledged"]


def test_a_resolved_incident_cannot_be_acknowledged_and_an_open_one_needs_a_note(ground: Any) -> None:
    task = ground.start()
    ground.fail(task)
    ground.after(0)
    ground.after(1)
    for wish, status, says in (
        ({"note": " "}, 422, "say in a note"),
        ({"note": "x" * 501}, 422, "at most 500"),
        ({"note": "x", "expires": 5}, 422, "from 60 to"),
        ({"note": "x", "expires": float("nan")}, 422, "from 60 to"),
        ({"note": "x", "incident": "inc_0"}, 404, "there is no incident"),
    ):
        refuse(ground, status, says, lambda wish=wish: ground.acknowledge(**wish))
    ground.retry(task)
    ground.after(1)
    refuse(ground, 409, "nothing of it is open", ground.acknowledge)


def refuse(ground: Any, status: int, says: str, act: Any) -> None:
    with pytest.raises(CommandRefused) as refused:
        act()
    if ground.conn.in_transaction:
        ground.conn.execute("ROLLBACK")
    assert (refused.value.status, says in " ".join(refused.value.reasons)) == (status, True), refused.value.reasons


# --- silenced -----------------------------------------------------------------------------------------------------


def test_a_silence_holds_the_opening_back_and_its_end_lets_it_out_once(ground: Any) -> None:
    ground.silence(seconds=600)
    ground.fail(ground.start())
    ground.after(0)
    ground.after(1)
    found = ground.incident()
    assert (found.state, found.silenced["by"], ground.notices()) == ("open", "ada", [])
    assert "a silence holds the notice back" in found.why[-1]["words"]
    ground.after(598)
    assert ground.notices() == []
    ground.after(1)
    assert [(n.type.rpartition(".")[2], n.reason) for n in ground.notices()] == [("opened", "silence_ended")]
    assert ground.incident().silenced is None
    ground.after(3600)
    assert len(ground.notices()) == 1


def test_whoever_ends_a_silence_hears_at_once_what_it_withheld(ground: Any) -> None:
    silence = ground.silence(seconds=86_400)
    opened(ground)
    ground.after(10)
    ground.end_silence(silence)
    assert [n.reason for n in ground.notices()] == ["silence_ended"]
    shown = ask(ground.conn, silences.silence_one(silence, ground.now))
    assert shown is not None
    assert (shown.state, shown.ended_by) == ("expired", "ada")
    refuse(ground, 409, "it ended at", lambda: ground.end_silence(silence))


def test_what_was_told_before_and_is_repeated_under_a_silence_is_told_once_after_it(ground: Any) -> None:
    opened(ground)
    ground.silence(seconds=86_400)
    for _ in range(5):
        ground.after(4 * 3600)
    assert ground.types() == ["opened"]
    assert why(ground).count("silenced") == 1
    ground.after(4 * 3600)
    assert [(n.type.rpartition(".")[2], n.reason) for n in ground.notices()][1:] == [("updated", "silence_ended")]


def test_what_was_settled_under_the_silence_is_never_told(ground: Any) -> None:
    ground.silence()
    task = ground.start()
    ground.fail(task)
    ground.after(1)
    ground.after(1)
    ground.retry(task)
    ground.after(601)
    assert (ground.incident().state, ground.notices()) == ("resolved", [])


def test_whoever_heard_of_the_opening_hears_the_end_under_a_silence_too(ground: Any) -> None:
    task = ground.start()
    ground.fail(task)
    ground.after(0)
    ground.after(1)
    ground.deliver()
    ground.silence()
    ground.retry(task)
    ground.after(1)
    assert ground.types() == ["opened", "resolved"]


def test_a_silence_that_begins_later_hides_nothing_before(ground: Any) -> None:
    ground.silence(starts_in=5, seconds=100)
    opened(ground)
    assert ground.types() == ["opened"]
    ground.after(10)
    assert ground.incident().silenced is not None


def test_an_incident_that_becomes_worse_than_its_silence_says_is_told(ground: Any) -> None:
    ground.silence('problem="stuck"')
    ground.start(deadline=10)
    ground.after(10)
    ground.after(1)
    assert ground.notices() == []
    ground.kill()
    ground.after(0)
    assert [(n.type.rpartition(".")[2], n.reason) for n in ground.notices()] == [("opened", "silence_ended")]


def test_a_silence_of_a_name_hides_lost_work_of_that_name_and_of_no_other(ground: Any) -> None:
    ground.silence("name=mail.send_receipt")
    for name in ("mail.send_receipt", "audit.write"):
        ground.boot(name)
        ground.start(name)
        ground.kill()
    ground.after(0)
    ground.after(1)
    [notice] = ground.notices()
    assert "audit.write" in json.loads(notice.body)["data"]["incident"]["title"]


def test_an_endpoint_that_is_new_is_not_told_of_what_is_silenced(ground: Any) -> None:
    opened(ground)
    ground.silence(seconds=60)
    ground.rules = AlertRules(endpoints=(OPS, EndpointRule(name="pager", fingerprint="1")))
    with ground.transaction():
        announce(ground.conn, ground.now, ["pager"], ground.rules)
    ground.after(30)
    assert ground.notices("pager") == []
    ground.after(30)
    assert [(n.type.rpartition(".")[2], n.reason) for n in ground.notices("pager")] == [("opened", "silence_ended")]


def test_a_preview_counts_what_a_silence_would_hide_and_changes_nothing(ground: Any) -> None:
    for name in ("mail.send", "mail.print", "audit.write"):
        ground.fail(ground.start(name))
    ground.after(1)
    wanted = silences._read('name=~"mail.*"')
    count, items = ask(ground.conn, hidden(wanted, 1, ground.now))
    assert (count, [one.name for one in items]) == (2, ["mail.print"])
    assert ask(ground.conn, silences.silence_page(None, 10, None, ground.now)).items == []


@pytest.mark.parametrize(
    ("matchers", "seconds", "says"),
    [
        ("servce=x", 60, "/matchers/0: no label 'servce'; did you mean service?"),
        ('service=~".*"', 60, "one matcher at least must ask for something"),
        ("service!=x", 60, "one matcher at least must ask for something"),
        ("", 60, "one matcher at least must ask for something"),
        ("service=x", -1, "has passed"),
        ("service=x", 367 * 86_400, "at most 366 days ahead"),
    ],
)
def test_a_silence_that_cannot_be_meant_is_refused_with_the_place(ground: Any, matchers: str, seconds: float, says: str) -> None:
    refuse(ground, 422, says, lambda: ground.silence(matchers, seconds))


def test_there_are_at_most_so_many_silences(ground: Any) -> None:
    with ground.transaction():
        for n in range(SILENCES_MAX):
            row = (f"sil_{n}", "service=x", "ada", "c", 0, 0, ground.now + 60 * NS)
            ground.conn.execute(
                "INSERT INTO silence (id, matchers, author, comment, created_at, starts_at, ends_at) VALUES"
                " (?, ?, ?, ?, ?, ?, ?)",
                row,
            )
    refuse(ground, 409, "at most 200", ground.silence)
    with ground.transaction():
        assert silences.forget(ground.conn, ground.now + 61 * NS) == SILENCES_MAX
    ground.silence()


# --- the release of a dead instance -------------------------------------------------------------------------------


def test_a_dead_instance_is_one_incident_that_names_the_release_before_and_after(ground: Any) -> None:
    ground.boot("web-3", "2026.11.2")
    for name in ("mail.send", "audit.write"):
        ground.start(name)
    ground.later(60)
    ground.kill()
    ground.later(0.2)
    ground.boot("web-3", "2026.11.3")
    ground.detect()
    ground.after(1)
    found = ground.incident()
    assert found.release == {"before": "2026.11.2", "after": "2026.11.3"}
    assert found.title.endswith("(release 2026.11.2 -> 2026.11.3)")
    assert incident_of(ground.notices()[0])["release"] == found.release


def test_a_successor_that_comes_later_stands_in_the_next_notice(ground: Any) -> None:
    ground.boot("web-3", "2026.11.2")
    task = ground.start()
    ground.later(60)
    ground.kill()
    ground.detect()
    ground.after(1)
    assert "release" not in ground.incident().title
    ground.deliver()
    ground.later(5)
    ground.boot("web-3", "2026.11.3")
    ground.after(0)
    assert ground.incident().release["after"] == "2026.11.3"
    ground.acknowledge()
    assert "release 2026.11.2 -> 2026.11.3" in incident_of(ground.notices()[-1])["title"]
    assert task


@pytest.mark.parametrize(
    ("host", "release", "wait"),
    [("web-3", "2026.11.2", 1), ("web-4", "2026.11.3", 1), ("web-3", "2026.11.3", 1_000)],
    ids=["the same release", "another host", "long after"],
)
def test_who_did_not_take_its_place_is_not_named(ground: Any, host: str, release: str, wait: float) -> None:
    ground.boot("web-3", "2026.11.2")
    ground.start()
    ground.later(60)
    ground.kill()
    ground.detect()
    ground.later(wait)
    ground.boot(host, release)
    ground.after(1)
    assert ground.incident().release == {"before": "2026.11.2", "after": None}
    assert "->" not in ground.incident().title
