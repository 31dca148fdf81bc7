"""What is open and settled of an incident, as questions that the writer and the readers ask alike."""

from __future__ import annotations

import sqlite3

from looseends_daemon.core.incidents import OpenGroup
from looseends_daemon.core.resources import PROBLEMS, SETTLEMENTS, VERDICTS
from looseends_daemon.store.questions import Question

UNSURE_MAX = 200
"""Loose ends without verdict or failure that are asked what was wrong last; the rest of their type is taken to be alike."""


def open_groups(no: int, before: str) -> Question[list[OpenGroup]]:
    """What is open, by type and problem. A loose end whose verdict fell without a good end keeps the problem it had last."""
    rows = yield _OPEN, (no,)
    last: dict[int, str] = {}
    if any(row["verdict"] < 0 and not row["failed"] for row in rows):
        told = yield _LAST, (no, UNSURE_MAX)
        for one in told:
            words = [word for word in (one["last"], last.get(one["type"])) if word]
            last[one["type"]] = max(words, key=PROBLEMS.index, default=before)
    return [
        OpenGroup(service=row["service"], name=row["name"], problem=_problem(row, last.get(row["type"], before)), count=row["n"])
        for row in rows
    ]


def _problem(row: sqlite3.Row, before: str) -> str:
    if row["verdict"] >= 0:
        return VERDICTS[row["verdict"]]
    return "failed" if row["failed"] else before


_OPEN = """
    SELECT ty.service, ty.name, o.type, o.verdict, o.failed, o.n
    FROM incident_open o JOIN type ty ON ty.id = o.type WHERE o.incident = ? AND o.n > 0"""
_LAST = """
    SELECT t.type, (
        SELECT j.verdict FROM judgement j WHERE j.task = t.id AND j.what IN ('verdict', 'loose') ORDER BY j.n DESC LIMIT 1
    ) AS last
    FROM task t WHERE t.incident = ? AND t.loose = 1 AND t.verdict IS NULL AND t.state != 4 LIMIT ?"""


def settled(no: int) -> Question[dict[str, int]]:
    """How many were settled, by how."""
    rows = yield "SELECT settled, n FROM incident_settled WHERE incident = ? AND n > 0", (no,)
    return {SETTLEMENTS[row["settled"]]: row["n"] for row in rows}
