"""Incidents in the database: keys, joining, steps and their reasons, counts, and what is read of them."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from looseends_daemon.core.incidents import AlertRules, EndpointRule
from looseends_daemon.core.policy import TaskRule
from looseends_daemon.store import incident_pages, incidents
from looseends_daemon.store.questions import ask


def test_tasks_lost_with_their_process_share_one_incident_that_names_the_process(ground: Any) -> None:
    tasks = [ground.start(name) for name in ("mail.send_receipt", "mail.send_receipt", "audit.write")]
    ground.later(1)
    ground.kill()
    ground.detect()
    found = ground.incident()
    assert (found.state, found.problem, found.name, found.severity) == ("pending", "lost", None, "critical")
    assert found.instance == ground.instance["id"]
    ground.after(1)
    found = ground.incident()
    assert (found.state, found.reason, found.counts.open, found.counts.total) == ("open", "first_notification", 3, 3)
    assert found.title.startswith("3 tasks lost when shop-web on web-3 died at ")
    rows = ground.conn.execute("SELECT count(*) FROM task WHERE incident IS NOT NULL").fetchone()
    assert rows[0] == len(tasks)


def test_failures_share_an_incident_by_name(ground: Any) -> None:
    for name in ("mail.send_receipt", "mail.send_receipt", "audit.write"):
        ground.fail(ground.start(name))
    ground.after(1.1)
    assert [(i.name, i.counts.open, i.severity) for i in ground.incidents()] == [
        ("mail.send_receipt", 2, "warning"),
        ("audit.write", 1, "warning"),
    ]


def test_two_processes_that_die_are_two_incidents(ground: Any) -> None:
    ground.start()
    ground.kill()
    ground.boot("web-4")
    ground.start()
    ground.kill()
    ground.after(0)
    ground.after(1)
    assert [i.title.split(" on ")[1][:5] for i in ground.incidents()] == ["web-3", "web-4"]


def test_a_stuck_task_whose_process_dies_stays_in_its_incident_which_becomes_worse(ground: Any) -> None:
    ground.start()
    ground.after(30)
    ground.after(1)
    assert ground.types() == ["opened"]
    assert ground.incident().title == "mail.send_receipt of shop-web is stuck: no end within 30 s; its process is alive"
    ground.deliver()
    ground.kill()
    ground.after(0.5)
    found = ground.incident()
    assert (found.problem, found.severity, found.name) == ("lost", "critical", "mail.send_receipt")
    assert [n.reason for n in ground.notices()] == ["first_notification", "severity"]


def test_the_last_settlement_resolves_it_and_says_how(ground: Any) -> None:
    first, second = ground.start(), ground.start()
    ground.after(30)
    ground.after(1)
    ground.finish(first)
    ground.after(1)
    found = ground.incident()
    assert (found.state, found.counts.open, found.counts.settled["finished_late"]) == ("open", 1, 1)
    ground.finish(second)
    ground.after(1)
    found = ground.incident()
    assert (found.state, found.resolution, found.resolved_at) == ("resolved", "finished_late", ground.now)
    assert found.title.startswith("Settled: ")
    assert [why["reason"] for why in found.why] == ["first_loose_end", "first_notification", "all_settled"]
    assert ground.due is None


def test_different_settlements_are_mixed(ground: Any) -> None:
    stuck, failed = ground.start(), ground.start()
    ground.fail(failed)
    ground.after(30)
    ground.after(1)
    ground.finish(stuck)
    ground.retry(failed)
    ground.after(1)
    assert ground.incident().resolution == "mixed"
    assert ground.incident().counts.settled == {"finished_late": 1, "retried": 1, "replayed": 0, "dismissed": 0}


def test_the_next_loose_end_after_the_resolution_is_a_new_incident(ground: Any) -> None:
    for _ in range(2):
        task = ground.start()
        ground.fail(task)
        ground.after(1)
        ground.after(1)
        ground.retry(task)
        ground.after(1)
    assert [i.state for i in ground.incidents()] == ["resolved", "resolved"]
    assert len({i.id for i in ground.incidents()}) == 2


def test_an_instance_heard_again_withdraws_the_loss_and_nobody_is_told(ground: Any) -> None:
    ground.start()
    ground.kill()
    ground.detect()
    assert ground.incident().state == "pending"
    ground.conn.execute("UPDATE instance SET state = 'alive'")
    ground.conn.execute("UPDATE task SET check_at = ?", (ground.now,))
    ground.after(0.5)
    found = ground.incident()
    assert (found.state, found.resolution, found.counts.total) == ("resolved", "withdrawn", 0)
    assert ground.notices() == []


def test_a_failure_mended_within_group_wait_is_still_reported(ground: Any) -> None:
    task = ground.start()
    ground.fail(task)
    ground.detect()
    ground.retry(task)
    ground.after(0.5)
    assert [why["reason"] for why in ground.incident().why] == ["first_loose_end", "first_notification", "all_settled"]
    assert [(n.type.rpartition(".")[2], n.state) for n in ground.notices()] == [
        ("opened", "superseded"),
        ("resolved", "pending"),
    ]


def test_open_after_holds_an_incident_back_until_enough_are_open(make_ground: Any) -> None:
    rules = AlertRules(tasks=(TaskRule(match="*/mail.*", open_after=3),), endpoints=(EndpointRule(name="ops", fingerprint="1"),))
    ground = make_ground(rules)
    for _ in range(2):
        ground.fail(ground.start())
    ground.after(0)
    ground.after(60)
    assert ground.incident().state == "pending"
    ground.fail(ground.start())
    ground.after(0)
    assert ground.incident().state == "open"


def test_more_loose_ends_bring_one_update_per_interval(ground: Any) -> None:
    ground.fail(ground.start())
    ground.after(0)
    ground.after(1)
    ground.deliver()
    for _ in range(5):
        ground.fail(ground.start())
        ground.after(5)
    assert ground.types() == ["opened"]
    ground.after(35)
    assert ground.types() == ["opened", "updated"]
    assert ground.notices()[1].reason == "new_tasks"
    ground.after(70)
    assert ground.types() == ["opened", "updated"]


def test_one_withdrawn_and_one_new_is_news_although_the_count_is_the_same(ground: Any) -> None:
    failed = ground.start(declared=False, deadline="never")
    ground.fail(failed, handled=False)
    ground.fail(ground.start())
    ground.after(0)
    ground.after(1)
    ground.deliver()
    ground.tell({"type": "failed", "task": failed, "error": {"type": "TimeoutError"}, "handled": True})
    ground.fail(ground.start())
    ground.after(61)
    assert ground.incident().counts.total == 2
    assert ground.types() == ["opened", "updated"]


def test_what_stays_open_is_repeated(make_ground: Any) -> None:
    ground = make_ground(AlertRules(repeat_interval=100, endpoints=(EndpointRule(name="ops", fingerprint="1"),)))
    ground.fail(ground.start())
    ground.after(0)
    ground.after(1)
    ground.deliver()
    ground.after(99)
    assert ground.types() == ["opened"]
    ground.after(1)
    ground.deliver()
    assert ground.types() == ["opened", "repeated"]


def test_advance_says_when_the_next_step_is_due(ground: Any) -> None:
    assert ground.detect() is None
    ground.fail(ground.start())
    assert ground.detect() == ground.now + 1_000_000_000
    ground.after(1)
    assert ground.due == ground.now + 4 * 3600 * 1_000_000_000


def test_a_storm_is_taken_in_steps_and_said_to_be_due(ground: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incidents, "STEPS_MAX", 2)
    for n in range(5):
        ground.fail(ground.start(f"job.{n}"))
    ground.detect()
    ground.later(1)
    assert ground.detect() is not None
    assert ground.due is not None and ground.due <= ground.now
    ground.detect()
    ground.detect()
    assert len(ground.notices()) == 5


def test_pages_go_backwards_by_cursor_and_a_made_up_cursor_is_refused(ground: Any) -> None:
    for n in range(5):
        ground.fail(ground.start(f"job.{n}"))
    ground.after(1)
    page = ask(ground.conn, incident_pages.incident_page(None, 2, None))
    rest = ask(ground.conn, incident_pages.incident_page(None, 10, page.next_cursor))
    assert [i.name for i in [*page.items, *rest.items]] == ["job.4", "job.3", "job.2", "job.1", "job.0"]
    assert rest.next_cursor is None
    assert ask(ground.conn, incident_pages.incident_page("resolved", 10, None)).items == []
    with pytest.raises(ValueError, match="cursor"):
        ask(ground.conn, incident_pages.incident_page(None, 2, "!!"))


def test_no_statement_of_the_machine_reads_a_whole_table(ground: Any) -> None:
    """The writer waits for these; each must find its rows by an index."""
    ground.fail(ground.start())
    seen: list[str] = []
    ground.conn.set_trace_callback(seen.append)
    ground.after(1)
    ground.deliver()
    ground.conn.set_trace_callback(None)
    recounts = " ORDER BY 1"  # the ground's own check of every commit
    tables = ("incident", "notice", "task")
    ours = {s for s in seen if recounts not in s and any(f"{verb} {t}" in s for verb in ("FROM", "UPDATE") for t in tables)}
    scans = [
        (statement, row["detail"])
        for statement in ours
        for row in ground.conn.execute("EXPLAIN QUERY PLAN " + statement)
        if row["detail"].startswith("SCAN") and "CONSTANT" not in row["detail"] and "USING" not in row["detail"]
    ]
    assert ours
    assert not scans


def test_a_loose_end_whose_verdict_fell_keeps_its_own_problem_and_not_that_of_its_neighbours(ground: Any) -> None:
    moving = ground.start(progress_within=5)
    ground.start(deadline=5)
    ground.after(5)
    ground.tell({"type": "progress", "task": moving, "done": 0.5})
    ground.after(1.1)
    assert ground.incident().problem == "stuck"
    hung = list(ground.conn.execute("SELECT id FROM task WHERE verdict IS NOT NULL"))
    ground.finish(str(uuid.UUID(bytes=hung[0]["id"])))
    ground.tell({"type": "progress", "task": moving, "done": 0.6})
    ground.after(1)
    found = ground.incident()
    assert (found.problem, found.counts.open, found.title) == (
        "stalled",
        1,
        "mail.send_receipt of shop-web has stalled: no progress within 5 s of its start",
    )
