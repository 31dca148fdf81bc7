"""The figures behind the metrics, as one consistent read. What is beyond the cap of names is added up here, in SQL.

Rules: counters come from their own table; what is open is counted over the partial indexes of what is open, never over all tasks.
"""

from __future__ import annotations

from looseends_daemon.core.metrics import ENVIRONMENTS_MAX, Figures, Type
from looseends_daemon.store.codes import EXPECTED
from looseends_daemon.store.questions import Question


def figures(names_max: int) -> Question[Figures]:
    """Everything that the metrics are made of."""
    types = yield "SELECT id, service, name FROM type ORDER BY id LIMIT ?", (names_max,)
    last = (types[-1]["id"] if types else 0,)
    environments = yield "SELECT id, name FROM environment ORDER BY id LIMIT ?", (ENVIRONMENTS_MAX,)
    counts = yield _COUNTS, last
    unended = yield _OPEN, last
    loose = yield _LOOSE, last
    incidents = yield _INCIDENTS, ()
    notices = yield _NOTICES, ()
    instances = yield _INSTANCES, ()
    otlp = yield _OTLP, ()
    since = yield "SELECT min(at) FROM (SELECT applied_at AS at FROM migration)", ()
    return Figures(
        types=tuple(Type(id=row["id"], service=row["service"], name=row["name"]) for row in types),
        environments={row["id"]: row["name"] for row in environments},
        counts=tuple((r[0], r[1], r[2], r[3], r[4]) for r in counts),
        open=tuple((r[0], r[1], r[2], r[3], r[4], r[5]) for r in unended),
        loose=tuple((r[0], r[1], r[2], r[3]) for r in loose),
        incidents=tuple((r[0], r[1], r[2]) for r in incidents),
        notices=tuple((r[0], r[1]) for r in notices),
        instances=tuple((r[0], r[1], r[2], r[3]) for r in instances),
        otlp=tuple((r[0], r[1]) for r in otlp),
        since=int(since[0][0] or 0),
    )


_COUNTS = """
SELECT what, environment, CASE WHEN type <= ?1 THEN type ELSE -1 END AS kind, label, sum(n)
FROM counter GROUP BY what, environment, kind, label"""
_OPEN = f"""
SELECT environment, CASE WHEN type <= ?1 THEN type ELSE -1 END AS kind, state, verdict, count(*), min(began_at)
FROM task WHERE state < 3 AND NOT (flags & {EXPECTED} AND verdict IS NULL) GROUP BY environment, kind, state, verdict"""
# A loose end whose verdict fell without a good end counts for the problem that its incident has. Types that have none any more
# stay with 0: an alert that ends shows its end.
_LOOSE = """
SELECT i.environment, CASE WHEN o.type <= ?1 THEN o.type ELSE -1 END AS kind,
    CASE o.verdict WHEN 4 THEN 'lost' WHEN 3 THEN 'stuck' WHEN 2 THEN 'stalled' WHEN 1 THEN 'never_started' WHEN 0 THEN 'missed'
        ELSE CASE WHEN o.failed THEN 'failed' ELSE i.problem END END AS problem, sum(o.n)
FROM incident_open o JOIN incident i ON i.no = o.incident GROUP BY i.environment, kind, problem"""
_INCIDENTS = "SELECT problem, severity, count(*) FROM incident WHERE state = 'open' GROUP BY problem, severity"
_NOTICES = """
SELECT e.name, (SELECT count(*) FROM notice n WHERE n.endpoint = e.name AND n.state = 'pending')
    + (SELECT count(*) FROM notice n WHERE n.endpoint = e.name AND n.state = 'delivering') FROM endpoint e"""
_INSTANCES = """
SELECT environment, service, state, count(*) FROM instance WHERE state != 'gone' GROUP BY environment, service, state"""
_OTLP = "SELECT signal, count(*) FROM outgoing GROUP BY signal"
