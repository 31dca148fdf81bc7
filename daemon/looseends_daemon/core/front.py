"""What the first pages ask of the store beyond the resources of the API: the ledger of one environment, what happened beside
the tasks, counts for a search.

Rules: as in core/resources.py. Every count says how far it got: nothing here may take as long as it likes.
"""

from __future__ import annotations

from typing import Protocol

from looseends_daemon.core.resources import Ledger, Page, Task, Value

MATCHING_MAX = 5_000
"""How many matching tasks are counted; beyond it the answer is "more than"."""
FACET_TASKS_MAX = 5_000
FACET_CHOICES_MAX = 8
MARKS_MAX = 200
VALUES_MAX = 10
SEEN_S_MAX = 0.04
"""How long counts beside a list may look before they say "more than" what they found (s)."""
FACETS = ("state", "verdict", "name", "service", "environment", "host", "release")
"""Words of the query language whose values are counted beside a list, in the order in which they stand there."""


class Happened(Value, frozen=True):
    """Something beside the tasks: `release` (the first instance of a release was heard) or `death` (one ended without a goodbye).

    `release` is what was released; `instance`, `host` and `pid` are whose death it was.
    """

    what: str
    at: int
    service: str
    environment: str
    release: str | None = None
    instance: str | None = None
    host: str | None = None
    pid: int | None = None


class TypeCount(Value, frozen=True):
    """One type in a window: tasks that began in it, how many of them failed, have no end, are loose ends still open."""

    service: str
    name: str
    tasks: int
    failed: int
    gap: int
    loose: int


class Choice(Value, frozen=True):
    """One value of a facet and how many of the counted tasks have it."""

    value: str
    count: int


class Facet(Value, frozen=True):
    """One word of the query language with its most frequent values; `left` values more are not named."""

    word: str
    choices: list[Choice]
    left: int = 0


class Found(Value, frozen=True):
    """What matches a query: how many (`more`: it is only known to be more than that), and the facets of the newest `counted`."""

    matching: int
    more: bool
    counted: int
    facets: list[Facet]


class Now(Value, frozen=True):
    """How things stand at this moment; equal values mean that nothing a page shows has changed. Times in ns."""

    last_event_at: int | None
    loose: int
    incidents: int
    acts: int
    instances: int

    @property
    def stamp(self) -> str:
        """All of it in one word: a page drawn at the same stamp shows nothing old."""
        return ".".join(str(part or 0) for part in (self.last_event_at, self.loose, self.incidents, self.acts, self.instances))


class Front(Protocol):
    """The port. `environment` None is all of them; windows are [from_, to) in ns, widths in seconds, multiples of 60."""

    async def ledger(self, from_: int, to: int, bucket: float | None = None, environment: str | None = None) -> Ledger: ...
    async def happened(self, from_: int, to: int, environment: str | None = None) -> list[Happened]:
        """The newest MARKS_MAX releases and deaths of a window, newest first."""
        ...

    async def types(self, from_: int, to: int, environment: str | None = None, limit: int = 5) -> list[TypeCount]:
        """Those with most unaccounted, then most failed tasks, then most tasks."""
        ...

    async def loose(self, environment: str | None = None, limit: int = 50) -> Page[Task]:
        """The newest open loose ends; whether they can be replayed is not looked up, which is most of what a task costs."""
        ...

    async def environments(self) -> list[str]:
        """All that tasks were ever reported from, by name."""
        ...

    async def found(self, q: str, *, from_: int | None = None, to: int | None = None) -> Found | None:
        """Counts beside a list; None: they could not be had within SEEN_S_MAX. Raises core.query.QueryError."""
        ...

    async def values(self, word: str, beginning: str, limit: int = VALUES_MAX) -> list[str]:
        """Values of a word of the query language that begin with this, ignoring case; none where they are not kept."""
        ...

    async def now(self) -> Now: ...
