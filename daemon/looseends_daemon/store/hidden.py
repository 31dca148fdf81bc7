"""What a silence would hide: the incidents that are not resolved and fit its matchers.

Rules: counted to the end up to LOOKED_AT_MAX of them, newest first; in the words of the machine, which asks the same question at
every step.
"""

from __future__ import annotations

from collections.abc import Sequence

from looseends_daemon.core.marks import is_about_tasks, labels_of
from looseends_daemon.core.matchers import Matcher, fit
from looseends_daemon.core.resources import Incident
from looseends_daemon.store.incident_counts import open_groups
from looseends_daemon.store.incident_pages import of_row
from looseends_daemon.store.questions import Question
from looseends_daemon.store.silences import in_force

LOOKED_AT_MAX = 5_000
"""An incident takes about 0.1 ms."""


def hidden(wanted: Sequence[Matcher], limit: int, now: int, base_url: str = "") -> Question[tuple[int, list[Incident]]]:
    """(how many incidents fit, the newest `limit` of them)."""
    rows = yield (
        "SELECT * FROM incident WHERE state IN ('pending', 'open') ORDER BY no DESC LIMIT ?",
        (LOOKED_AT_MAX,),
    )
    silences = yield from in_force(now)
    count = 0
    items: list[Incident] = []
    for row in rows:
        groups = yield from open_groups(row["no"], row["problem"])
        if not is_about_tasks(row["problem"]) or not fit(wanted, labels_of(row, groups)):
            continue
        count += 1
        if len(items) < limit:
            items.append((yield from of_row(row, base_url, silences)))
    return count, items
