"""What people do about incidents: acknowledge, silence, dismiss and take back; values, limits, and the two ports for it.

Rules: an acknowledgement says that somebody has it in hand, a silence holds notices back, a dismissal settles. None of them
changes a fact. Times are ns, durations seconds; every act names who acted and is audited in its own transaction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from looseends.wire import NS, format_time
from looseends_daemon.core.incidents import OpenGroup
from looseends_daemon.core.matchers import MATCHERS_MAX, Matcher, MatcherError, fit, matchers
from looseends_daemon.core.resources import PROBLEMS, Actor, CommandRefused, Incident, Page, Task, Value

ACK_S_MIN, ACK_S_MAX = 60.0, 30 * 86_400.0
SILENCE_S_MIN, SILENCE_S_MAX = 1.0, 366 * 86_400.0
SILENCES_MAX = 200
"""Silences that are in force or still to come, all together: each step of an incident asks all of them."""
TEXT_CHARS_MAX = 500
"""Notes and comments."""
UNDO_S = 600.0
DISMISSED_MAX = 100_000
"""Loose ends in one dismissal; who has more narrows the query, or does it in parts."""
SHOWN_MAX = 20
"""Incidents or tasks that a preview lists; its counts are exact."""
SILENCE_STATES = ("active", "pending", "expired")
DISMISSAL_STATES = ("running", "done", "undoing", "undone")


class Silence(Value, frozen=True):
    """Matchers whose incidents are quiet in [starts_at, ends_at). `ended_by`: who ended it before its time."""

    id: str
    state: str
    matchers: list[str]
    author: str
    comment: str
    created_at: int
    starts_at: int
    ends_at: int
    ended_by: str | None = None


class Preview(Value, frozen=True):
    """What a silence would hide now: how many unresolved incidents fit it, and the newest of them."""

    matchers: list[str]
    starts_at: int
    ends_at: int
    hides: int
    items: list[Incident] = msgspec.field(default_factory=list)


class Frozen(Value, frozen=True):
    """The loose ends that a dismissal would settle: how many, which (`digest`), and the newest of them."""

    what: str
    digest: str
    count: int
    items: list[Task] = msgspec.field(default_factory=list)


class Dismissal(Value, frozen=True):
    """A person's decision that nothing is to be done about `total` loose ends.

    `what` names them (a query, an incident, a task). `state`: running, done, undoing or undone. `dismissed` of them it settled
    (the others were settled before it got there), `undone` of those were taken back; that can be asked for until `undo_until_at`.
    """

    id: str
    state: str
    at: int
    by: str
    note: str
    what: str
    digest: str
    total: int
    dismissed: int
    undone: int
    undo_until_at: int


class InForce(Value, frozen=True):
    """A silence as incidents are measured by it."""

    id: str
    author: str
    comment: str
    matchers: tuple[Matcher, ...]
    ends_at: int

    def shown(self) -> dict[str, object]:
        """For the `silenced` member of an incident."""
        return {"id": self.id, "by": self.author, "comment": self.comment, "ends_at": self.ends_at}


class AlertCommands(Protocol):
    """The write side, for routes and pages. Each act is audited in the transaction that does it."""

    async def acknowledge(self, incident_id: str, actor: Actor, *, note: str, expires: float | None = None) -> Incident:
        """Say that somebody has it in hand, for `expires` seconds (None: [alerts] ack_expires).

        Again: the new note and time count. Raises CommandRefused (404, 409 it is resolved, 422 note or time).
        """
        ...

    async def silence(
        self, actor: Actor, *, matchers: Sequence[str], comment: str, ends_at: int, starts_at: int | None = None
    ) -> Silence:
        """Hold back the notices of incidents that fit all `matchers`, from `starts_at` (None: now) until `ends_at`, ns.

        Raises CommandRefused (422 with the place, 409 there are SILENCES_MAX).
        """
        ...

    async def preview_silence(self, *, matchers: Sequence[str], ends_at: int, starts_at: int | None = None) -> Preview:
        """What such a silence would hide now; nothing is changed. Raises CommandRefused (422)."""
        ...

    async def end_silence(self, silence_id: str, actor: Actor) -> Silence:
        """End it now; what it withheld goes out. Raises CommandRefused (404, 409 it is over)."""
        ...

    async def freeze(self, *, q: str | None = None, incident: str | None = None) -> Frozen:
        """The loose ends of a query or of an incident, as `dismiss` will ask for them.

        Raises CommandRefused (404, 409 there are none, 422), QueryError.
        """
        ...

    async def dismiss(
        self, actor: Actor, *, note: str, digest: str, q: str | None = None, incident: str | None = None
    ) -> Dismissal:
        """Dismiss the loose ends that `freeze` named by this digest; `running` if there are too many to wait for.

        Raises CommandRefused (404, 409 they are others by now, or none; 422), QueryError.
        """
        ...

    async def undo_dismissal(self, dismissal_id: str, actor: Actor) -> Dismissal:
        """Take it back: what it settled is loose again, unless it ended meanwhile.

        Raises CommandRefused (404, 409 it is too late, or done already).
        """
        ...


class AlertReader(Protocol):
    """The read side. Lists are newest first; a made-up cursor is a ValueError in words."""

    async def silences(self, state: str | None = None, limit: int = 50, cursor: str | None = None) -> Page[Silence]: ...
    async def silence_of(self, silence_id: str) -> Silence | None: ...
    async def dismissals(self, limit: int = 50, cursor: str | None = None) -> Page[Dismissal]: ...
    async def dismissal(self, dismissal_id: str) -> Dismissal | None: ...
    async def dismissal_of(self, task_id: str) -> Dismissal | None:
        """The dismissal that settled this task, while it can be undone."""
        ...


class Alerts(AlertCommands, AlertReader, Protocol):
    """Both sides, as one object is handed in."""


class Row(Protocol):
    """A row of incidents, or a mapping like one."""

    def __getitem__(self, key: str, /) -> str | None: ...


def labels_of(incident: Row, groups: Sequence[OpenGroup]) -> dict[str, str | None]:
    """What matchers are measured on.

    The loose ends of a dead instance have a name if all that are open share it: a silence of that name hides nothing else.
    """
    names = {group.name for group in groups}
    only = next(iter(names)) if len(names) == 1 else None
    labels = {label: incident[label] for label in ("service", "environment", "instance", "problem", "severity")}
    return {**labels, "name": incident["name"] or only}


def is_about_tasks(problem: str) -> bool:
    """Whether an incident is about tasks. What is about the daemon itself is never silenced: matchers speak of tasks."""
    return problem in PROBLEMS


def silence_over(in_force: Iterable[InForce], labels: Mapping[str, str | None]) -> InForce | None:
    """The silence that fits, of several the one that ends last; None: it may be told."""
    if not is_about_tasks(labels.get("problem") or ""):
        return None
    fitting = [one for one in in_force if fit(one.matchers, labels)]
    return max(fitting, key=lambda one: one.ends_at, default=None)


def checked_matchers(texts: Sequence[str]) -> tuple[Matcher, ...]:
    """The matchers of a silence. Raises CommandRefused (422) with the place.

    One of them must ask for something: a silence that fits every incident of every service is refused, as Alertmanager does.
    """
    found: list[Matcher] = []
    for n, text in enumerate(texts):
        try:
            found += matchers(text)
        except MatcherError as error:
            raise CommandRefused(422, "Not a matcher", [f"/matchers/{n}: {error}"]) from None
    if len(found) > MATCHERS_MAX:
        raise CommandRefused(422, "Too many matchers", [f"/matchers: at most {MATCHERS_MAX}"])
    if all(one.fits({}) for one in found):
        way = 'one matcher at least must ask for something, such as service="shop-web" or service=~".+"'
        raise CommandRefused(422, "This silence would hide everything", [f"/matchers: {way}"])
    return tuple(found)


def checked_window(starts_at: int | None, ends_at: int, now: int) -> tuple[int, int]:
    """From when until when, ns. Raises CommandRefused (422)."""
    begin = now if starts_at is None else starts_at
    if ends_at <= now:
        raise CommandRefused(422, "This silence is over", [f"/ends_at: {format_time(ends_at)} has passed"])
    if ends_at - max(begin, now) < SILENCE_S_MIN * NS or ends_at - now > SILENCE_S_MAX * NS:
        words = f"lies after starts_at and at most {SILENCE_S_MAX / 86_400:g} days ahead"
        raise CommandRefused(422, "Not a time for a silence", [f"/ends_at: {words}"])
    return max(begin, now), ends_at


def checked_text(text: str, why: str) -> str:
    """A note or a comment: 1 to TEXT_CHARS_MAX characters. Raises CommandRefused (422)."""
    words = text.strip()
    if not words:
        raise CommandRefused(422, "A few words are needed", [why])
    if len(words) > TEXT_CHARS_MAX:
        raise CommandRefused(422, "Too many words", [f"a note or comment is at most {TEXT_CHARS_MAX} characters"])
    return words


def checked_expiry(expires: float | None, default: float) -> float:
    """Seconds for which an acknowledgement stands. Raises CommandRefused (422)."""
    if expires is None:
        return default
    if not ACK_S_MIN <= expires <= ACK_S_MAX:
        words = f"is a number of seconds from {ACK_S_MIN:g} to {ACK_S_MAX:g} (30 days)"
        raise CommandRefused(422, "Not a time for an acknowledgement", [f"/expires: {words}"])
    return expires


def digest_of(tasks: Iterable[bytes]) -> str:
    """What stands for a list of tasks, whatever their order."""
    return hashlib.sha256(b"".join(sorted(tasks))).hexdigest()[:32]
