"""The table itself: each wrong cell is seen, shown on values."""

from __future__ import annotations

import re
from dataclasses import replace

from quiet.table import CAUSES, PROBLEMS, Loss, Said, Table

HUNG = Loss("loss-1", "hung past its deadline")
FOUND = Said("t1", "loss-1", "loss.hung", "stuck", "stuck in steady.py:20 hang; no end within 1.5 s; its process is alive")
QUIET = Said("t2", None, "web.mail", "lost", "process ended without saying goodbye")


def test_a_loss_that_is_found_once_with_its_cause_and_told_is_right() -> None:
    table = Table([HUNG], [FOUND], [FOUND])
    assert table.wrong == [] and table.missing == []
    assert "false alarms: 0" in str(table)
    assert re.search(r"hung past its deadline +1 .*1\*", str(table))


def test_a_loss_nobody_found_is_wrong() -> None:
    assert Table([HUNG], [], []).wrong == ["hung past its deadline, loss-1: found as none, not as stuck (nothing was said)"]


def test_a_loss_found_as_something_else_is_wrong() -> None:
    assert "found as lost, not as stuck" in Table([HUNG], [replace(FOUND, problem="lost")], [FOUND]).wrong[0]


def test_a_loss_judged_twice_is_wrong_even_if_the_last_word_is_right() -> None:
    assert "found as several" in Table([HUNG], [replace(FOUND, problem="stalled"), FOUND], [FOUND]).wrong[0]


def test_a_right_verdict_with_the_wrong_words_is_wrong() -> None:
    assert "does not match" in Table([HUNG], [replace(FOUND, reason="no end")], [FOUND]).wrong[0]


def test_a_loss_that_was_not_told_or_told_as_something_else_is_wrong() -> None:
    for told in ([], [replace(FOUND, problem="lost")], [replace(FOUND, reason="no end")]):
        assert Table([HUNG], [FOUND], told).wrong == ["hung past its deadline, loss-1: found, and no notice told of it"]


def test_a_false_alarm_is_wrong_by_its_kind_with_task_and_reason_even_if_it_was_taken_back() -> None:
    table = Table([HUNG], [FOUND, QUIET, replace(QUIET, problem="withdrawn")], [FOUND, QUIET], ["opened: 1 task lost"])
    assert [line.partition(": ")[0] for line in table.wrong] == [
        "false alarm, lost",
        "false alarm, notice of lost",
        "false alarm, notice of no task",
        "false alarm, withdrawn",
    ]
    assert "t2 web.mail : process ended without saying goodbye" in str(table)


def test_every_cause_is_a_problem_that_the_table_has_a_column_for() -> None:
    assert {cause.problem for cause in CAUSES.values()} <= set(PROBLEMS)
