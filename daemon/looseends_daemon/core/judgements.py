"""What the daemon and people concluded about a task: append-only, each with its reason, each made at a time.

Rules:

1. A loose end is a task that got a verdict or failed for good and is not settled. It is sticky: from the first verdict or
   failure until it is settled, whatever overrules the verdict meanwhile.
2. The first settlement stands; so does a dismissal. A settled task never becomes loose again, unless the person who dismissed
   it takes that back: then it is as if it had not been (`restored`).
3. A verdict that only rested on the absence of an instance and is taken back because that instance, or a second one with
   the same attempt, lives is *withdrawn*: the loose end ends as if
   it had not been. So is a failure of captured work that turns out to have been handled, and a missed expectation of which
   it is told late that it was met in time; and any verdict, as long as no other made this loose end too, of which it is told
   late that what it waited for had happened in time.
4. Ended well = succeeded, or cancelled as requested or revoked.
5. A replay's trouble is its root's: it makes a loose end of its own only if the root is none. Its verdict is given all the
   same, and *carried* by the root: so the ledger counts it in the gap, and it never looks as if it were still in time.

`standing_of` reads where a task stands from its judgements alone; `conclude` adds what has to be said now.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from looseends_daemon.core.detect import Finding
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import Value
from looseends_daemon.core.view import View
from looseends_daemon.core.words import clock, span

DISMISSED, RESTORED = "dismissed", "restored"
GOOD_CANCELLATIONS = ("requested", "revoked")
VERDICT_WORDS = {
    "lost": "Lost",
    "stuck": "Stuck",
    "stalled": "Stalled",
    "never_started": "Never started",
    "missed": "Missed",
}


class Judgement(Value, frozen=True):
    """One row. `what`: verdict, carried, overruled, loose, settled, withdrawn, dismissed or restored.

    `verdict` also holds the settlement's word.
    """

    at: int
    what: str
    reason: str
    verdict: str | None = None
    attempt: int = 1
    by: str | None = None


class Standing(Value, frozen=True):
    """Where a task stands after its judgements. `problem` is why it is, or last was, loose; `attempt` its attempt then.

    `given_at`: when its latest verdict was given, ns; `grounds`: everything that its loose end rests on, or that verdict.
    """

    verdict: str | None = None
    loose: bool = False
    settled: str | None = None
    late: bool = False
    problem: str | None = None
    attempt: int = 1
    absence_only: bool = True
    given_at: int | None = None
    grounds: frozenset[str] = frozenset()


class LooseChange(Value, frozen=True):
    """What incidents have to know. `what`: opened, changed, settled or withdrawn; `problem`: one of resources.PROBLEMS."""

    task: str
    at: int
    what: str
    environment: str
    service: str
    name: str
    instance: str | None
    problem: str
    reason: str
    settled: str | None = None


class Replayed(Value, frozen=True):
    """What became of the orders that ran this task again: whether one succeeded (or a person says so), and when it began."""

    succeeded: bool = False
    began_at: int | None = None
    by: str | None = None


class Conclusion(Value, frozen=True):
    """What has to be written now, and where the task stands afterwards."""

    standing: Standing
    judgements: tuple[Judgement, ...] = ()
    changes: tuple[LooseChange, ...] = ()


def standing_of(judgements: Iterable[Judgement]) -> Standing:
    """Fold judgements in the order they were made."""
    standing = Standing()
    for judgement in _in_force(judgements):
        standing = _after(standing, judgement)
    return standing


def _in_force(judgements: Iterable[Judgement]) -> list[Judgement]:
    """Without the dismissals that were taken back."""
    kept: list[Judgement] = []
    for row in judgements:
        if row.what == RESTORED:
            taken_back = max((n for n, one in enumerate(kept) if one.what == DISMISSED), default=None)
            kept = [one for n, one in enumerate(kept) if n != taken_back]
        else:
            kept.append(row)
    return kept


def _after(now: Standing, row: Judgement) -> Standing:
    if row.what == "verdict":
        return Standing(
            verdict=row.verdict,
            loose=now.settled is None,
            settled=now.settled,
            late=now.late,
            problem=row.verdict,
            attempt=row.attempt if not now.loose else now.attempt,
            absence_only=(now.absence_only or not now.loose) and row.verdict == "lost",
            given_at=row.at,
            grounds=(now.grounds if now.loose else frozenset()) | {str(row.verdict)},
        )
    if row.what == "loose":
        late = now.late or (now.loose and now.problem != "failed")
        changed = {"problem": "failed", "attempt": row.attempt, "absence_only": False, "grounds": now.grounds | {"failed"}}
        return _with(now, loose=now.settled is None, late=late, **changed)
    if row.what == "carried":
        return _with(now, loose=False)
    if row.what == "overruled":
        return _with(now, verdict=None, late=now.late or row.verdict == "ended")
    if row.what == "withdrawn":
        return _with(now, verdict=None, loose=False, absence_only=True, late=False)
    late = now.late or (row.verdict == "finished_late" and now.problem != "failed")
    return _with(now, loose=False, late=late, settled=row.verdict)


def _with(now: Standing, **changed: object) -> Standing:
    fields = {name: getattr(now, name) for name in now.__struct_fields__}
    return Standing(**{**fields, **changed})


def ended_well(view: View) -> bool:
    """Succeeded, or cancelled as requested or revoked."""
    if view.state == "cancelled":
        return view.end.get("reason", "requested") in GOOD_CANCELLATIONS
    return view.state == "succeeded"


def failed_for_good(view: View, policy: Policy) -> bool:
    """A failure that makes a loose end: not of captured work that was handled, not of a type that is only counted."""
    if view.state != "failed" or (not view.declared and view.end.get("handled")):
        return False
    rule = policy.rule(view.service, view.name)
    return rule is None or rule.failures != "ledger"


def conclude(
    task: str,
    view: View,
    finding: Finding,
    standing: Standing,
    policy: Policy,
    now: int,
    *,
    replayed: Replayed | None = None,
    root_is_loose: bool = False,
) -> Conclusion:
    """What has to be said about a task at `now`, given where it stood. Saying it twice says nothing the second time."""
    rows: list[Judgement] = []
    at = standing
    overruled = _overrule(view, finding, at, now)
    if overruled is not None:
        rows.append(overruled)
        at = _after(at, overruled)
    if root_is_loose and not at.loose:
        found = _carried(view, finding, at, now)
    else:
        found = [row for row in (_verdict(view, finding, at, now), _failure(view, at, policy, now)) if row is not None]
    for row in found:
        rows.append(row)
        at = _after(at, row)
    settled = _settle(view, at, finding, replayed, now)
    if settled is not None:
        rows.append(settled)
        at = _after(at, settled)
    return Conclusion(standing=at, judgements=tuple(rows), changes=tuple(_changes(task, view, standing, at, rows, now)))


def _overrule(view: View, finding: Finding, standing: Standing, now: int) -> Judgement | None:
    """Take back what no longer holds: a verdict after an end or a sign of life, a failure that was handled."""
    if standing.verdict is None:
        handled = standing.loose and standing.problem == "failed" and not view.declared and view.end.get("handled")
        return _row(view, now, "withdrawn", "its exception was handled after all", "failed") if handled else None
    words = _belied_words(view, finding, standing)
    if words is not None:
        return _row(view, now, "withdrawn", words, standing.verdict)
    if view.ended:
        return _row(view, now, "overruled", _ended_words(view, standing), "ended")
    if finding.verdict is not None or not finding.known:
        return None
    if standing.verdict == "missed":
        return _row(view, now, "withdrawn", finding.reason, "missed")
    if standing.verdict == "lost":
        same = standing.absence_only and view.attempt == standing.attempt
        return _row(view, now, "withdrawn" if same else "overruled", _alive_words(view, standing), standing.verdict)
    return _row(view, now, "overruled", _moved_words(view, standing.verdict), standing.verdict)


def _belied_words(view: View, finding: Finding, standing: Standing) -> str | None:
    """Why the verdict that stands was never right, and nothing else made this loose end; None: it was, or may have been."""
    belied = finding.belied.get(standing.verdict or "")
    if belied is None or view.attempt != standing.attempt or not standing.grounds <= finding.belied.keys():
        return None
    if standing.given_at is None or belied.at >= standing.given_at:
        return None
    return f"it had {belied.words} in time, at {clock(belied.at)}; that was told late"


def _row(view: View, now: int, what: str, reason: str, verdict: str | None = None, by: str | None = None) -> Judgement:
    return Judgement(at=now, what=what, reason=reason, verdict=verdict, attempt=view.attempt, by=by)


def _ended_words(view: View, standing: Standing) -> str:
    at = f" at {clock(view.ended_at)}" if view.ended_at is not None else ""
    took = f" after {span(view.duration)}" if view.duration is not None else ""
    return f"it {view.state}{at}{took}; the verdict {standing.verdict} no longer stands"


def _alive_words(view: View, standing: Standing) -> str:
    if view.attempt > standing.attempt:
        return f"attempt {view.attempt} has begun"
    return "another live instance has taken it over" if view.executions > 1 else "its instance was heard again"


def _moved_words(view: View, verdict: str) -> str:
    if verdict == "stalled":
        return "it made progress"
    if verdict == "never_started":
        return "it began after all"
    return f"attempt {view.attempt} is running and in time"


def _verdict(view: View, finding: Finding, standing: Standing, now: int) -> Judgement | None:
    if finding.verdict is None or finding.verdict == standing.verdict:
        return None
    return _row(view, now, "verdict", finding.reason, finding.verdict)


def _carried(view: View, finding: Finding, standing: Standing, now: int) -> list[Judgement]:
    """A verdict on a replay whose root is loose: given, and no loose end of its own. A failure needs no row: the facts say it."""
    verdict = _verdict(view, finding, standing, now)
    if verdict is None:
        return []
    words = "no loose end of its own: the task that it replays is one, and stays open until it is settled"
    return [verdict, _row(view, now, "carried", words, finding.verdict)]


def _failure(view: View, standing: Standing, policy: Policy, now: int) -> Judgement | None:
    if standing.settled is not None or not failed_for_good(view, policy):
        return None
    if standing.loose and standing.problem == "failed":
        return None
    error = view.end.get("error") or {}
    words = ": ".join(part for part in (error.get("type", "failed"), error.get("message", "").split("\n")[0]) if part)
    return _row(view, now, "loose", f"failed for good: {words[:300]}", "failed")


def _settle(view: View, standing: Standing, finding: Finding, replayed: Replayed | None, now: int) -> Judgement | None:
    if not standing.loose:
        return None
    if finding.settles:
        return _row(view, now, "settled", finding.settles, "finished_late")
    if ended_well(view):
        if view.attempt > standing.attempt:
            return _row(view, now, "settled", f"attempt {view.attempt} {view.state}", "retried")
        return _row(view, now, "settled", f"it {view.state} late{_at(view)}", "finished_late")
    if replayed is not None and replayed.succeeded:
        return _row(view, now, "settled", "a replay of it succeeded", "replayed", replayed.by)
    return None


def _at(view: View) -> str:
    return f", at {clock(view.ended_at)}" if view.ended_at is not None else ""


def _changes(
    task: str, view: View, before: Standing, after: Standing, rows: Sequence[Judgement], now: int
) -> Iterable[LooseChange]:
    """The difference that incidents must hear of; a task that became loose and settled at once opens and settles."""
    if not rows:
        return
    was_loose = before.loose
    carried = any(row.what == "carried" for row in rows)
    became = not carried and any(row.what in ("verdict", "loose") for row in rows) and after.problem is not None
    if not was_loose and became and before.settled is None:
        reason = next(row.reason for row in rows if row.what in ("verdict", "loose"))
        yield _change(task, view, now, "opened", after.problem or "failed", reason)
        was_loose = True
    elif was_loose and became and after.problem != before.problem:
        reason = next(row.reason for row in reversed(rows) if row.what in ("verdict", "loose"))
        yield _change(task, view, now, "changed", after.problem or "failed", reason)
    if was_loose and not after.loose:
        last = rows[-1]
        what = "withdrawn" if last.what == "withdrawn" else "settled"
        yield _change(task, view, now, what, after.problem or "failed", last.reason, after.settled)


def _change(task: str, view: View, now: int, what: str, problem: str, reason: str, settled: str | None = None) -> LooseChange:
    return LooseChange(
        task=task,
        at=now,
        what=what,
        environment=view.environment,
        service=view.service,
        name=view.name,
        instance=view.instance,
        problem=problem,
        reason=reason,
        settled=settled,
    )


def incident_key(change: LooseChange) -> tuple[str, str, str, str]:
    """The cause that loose ends share: (environment, service, "instance", id) for lost work, else (.., "name", name)."""
    if change.problem == "lost" and change.instance is not None:
        return (change.environment, change.service, "instance", change.instance)
    return (change.environment, change.service, "name", change.name)
