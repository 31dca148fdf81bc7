"""docs/alerts.md has every line of the machine's table, with its notice, and the limits as they are."""

from __future__ import annotations

import re

from harness import ROOT
from looseends_daemon.core.incidents import RULES
from looseends_daemon.core.marks import ACK_S_MAX, ACK_S_MIN, DISMISSED_MAX, SILENCES_MAX, UNDO_S
from looseends_daemon.core.matchers import LABELS
from looseends_daemon.core.patterns import PATTERN_CHARS_MAX
from looseends_daemon.store.dismissals import STEP_TASKS_MAX

TEXT = (ROOT / "docs" / "alerts.md").read_text("utf-8")
ROW = re.compile(r"^\| ?(\w*) \| `(\w+)` \| (.*?)\| ", re.MULTILINE)


def test_the_page_has_every_line_of_the_table() -> None:
    rows = {reason: (state, notice) for state, reason, notice in ROW.findall(TEXT)}
    for rule in RULES:
        state, notice = rows[rule.reason]
        assert state == rule.state
        assert (f"`{rule.notice}`" in notice) if rule.notice else not notice, rule.reason
    assert rows.keys() - {rule.reason for rule in RULES} == {"first_loose_end", "silenced"}


def test_the_page_has_the_limits_as_they_are() -> None:
    assert f"({ACK_S_MIN:g} to {ACK_S_MAX:,.0f})" in TEXT
    assert f"At most {SILENCES_MAX} silences" in TEXT and f"{PATTERN_CHARS_MAX} characters" in TEXT
    assert f"Up to {DISMISSED_MAX:,} go at once, {STEP_TASKS_MAX} a commit" in TEXT
    assert (UNDO_S, "ten minutes" in TEXT) == (600, True)
    assert all(f"`{label}`" in TEXT for label in LABELS)
