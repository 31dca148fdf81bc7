"""Troubles of the daemon itself, which are incidents too: when one begins, what it is called, and when it is over. Pure.

The rules, in prose:

1. `endpoint_failing`: an endpoint fails, or disabled itself (410, days of failures). Told to the other endpoints. What a
   person disabled is no trouble.
2. `storage`: the storage takes no events, cannot be cut, or lost something.
3. `blind_window`: the daemon was away for AWAY_S_MIN or longer, or records of an instance are known to be missing. Over when the
   records came after all, else SHOWN_S after the window was sure: it stays on its page, and nobody can do more about it.
4. `not_draining`: a live instance has been behind for too long (10 minutes; an hour while its backlog falls).
5. A short absence, a freeze of a minute and a rolling restart are no troubles: those are what grace, spools and leases are for.

Matchers and silences speak of tasks: they never hold a trouble back. It has both a name (its problem) and an instance (what it is
about), which no incident about tasks has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from looseends.wire import NS
from looseends_daemon.core.endpoints import Endpoint
from looseends_daemon.core.resources import BlindWindow, Value

TROUBLES = ("not_draining", "endpoint_failing", "storage", "blind_window")
OWN = "looseends"
"""Service and environment of what is about the daemon and nobody's service."""
AWAY_S_MIN = 300.0
SHOWN_S = 3_600.0
SUBJECTS_MAX = 100
"""Troubles of one problem at a time; more of a kind are one more of the same sorrow."""
TITLE_CHARS_MAX = 300
_SEVERITY = {"storage": "critical"}


class Trouble(Value, frozen=True):
    """One thing that is wrong with the daemon. `subject` tells it from others of its problem: an endpoint, instance or time."""

    problem: str
    subject: str
    title: str
    environment: str = OWN
    service: str = OWN

    @property
    def severity(self) -> str:
        """How bad it is."""
        return _SEVERITY.get(self.problem, "warning")

    @property
    def key(self) -> tuple[str, str]:
        """What makes two of them the same."""
        return self.problem, self.subject


class Behind(Value, frozen=True):
    """A live instance that does not drain: `records` still to come, behind since then (ns)."""

    instance: str
    service: str
    environment: str
    host: str | None
    since: int
    records: int


def troubles(
    *,
    now: int,
    endpoints: Iterable[Endpoint] = (),
    storage: Sequence[str] = (),
    windows: Iterable[BlindWindow] = (),
    behind: Iterable[Behind] = (),
) -> list[Trouble]:
    """All that is wrong at `now` (ns), at most SUBJECTS_MAX of each problem, one for each subject."""
    found = [
        *_some(_endpoint(one) for one in endpoints if _is_failing(one)),
        *_some(_storage(words) for words in storage[:1]),
        *_some(_window(one) for one in windows if _is_told(one, now)),
        *_some(_behind(one, now) for one in behind),
    ]
    return list({one.key: one for one in found}.values())


def _some(found: Iterable[Trouble]) -> list[Trouble]:
    return list(found)[:SUBJECTS_MAX]


def _is_failing(one: Endpoint) -> bool:
    return one.state == "failing" or (one.state == "disabled" and one.disabled_by is None)


def _endpoint(one: Endpoint) -> Trouble:
    what = "is disabled" if one.state == "disabled" else "fails"
    return _trouble(
        "endpoint_failing", one.name, f"The endpoint {one.name} {what}, so nobody hears of incidents there: {one.detail}"
    )


def _storage(words: str) -> Trouble:
    return _trouble("storage", "storage", f"The storage of looseends: {words}")


def _is_told(one: BlindWindow, now: int) -> bool:
    if one.to + SHOWN_S * NS <= now:
        return False
    return one.missing > 0 or (one.cause in ("down", "frozen") and one.to - one.from_ >= AWAY_S_MIN * NS)


def _window(one: BlindWindow) -> Trouble:
    """Windows of one instance are one trouble: it is about that instance, however often its records go missing."""
    if one.instance is None:
        subject = f"{one.cause}-{one.to // NS}"
        return _trouble("blind_window", subject, f"looseends did not hear: {one.reason}; what ended then may be told late")
    title = f"Work of {one.service} may be unaccounted for: {one.reason}"
    return _trouble("blind_window", one.instance, title, one.environment, one.service)


def _behind(one: Behind, now: int) -> Trouble:
    minutes = (now - one.since) // (60 * NS)
    where = f" on {one.host}" if one.host else ""
    title = f"{one.service}{where} has been behind for {minutes} minutes: {one.records} records are still to come"
    return _trouble("not_draining", one.instance, title, one.environment, one.service)


def _trouble(problem: str, subject: str, title: str, environment: str | None = None, service: str | None = None) -> Trouble:
    line = " ".join(title.split())[:TITLE_CHARS_MAX]
    return Trouble(problem=problem, subject=subject[:200], title=line, environment=environment or OWN, service=service or OWN)
