"""Types: all tasks of one service and name, how long they take, and which deadline that suggests."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import TYPE_CHECKING

from looseends.wire import NS
from looseends_daemon.core.resources import Page, Task, Value
from looseends_daemon.core.task_types import TaskType, TypeStory, span, toml_line
from looseends_dashboard import asked, links, parts, words
from looseends_dashboard.asked import BadParameter

if TYPE_CHECKING:
    from aiohttp import web

    from looseends_dashboard.site import Site

WINDOWS = {"1h": 3600, "24h": 86_400, "7d": 604_800, "30d": 2_592_000}
ROWS_MAX = 100
TASKS_MAX = 20
FAILURES_MAX = 200
ERRORS_MAX = 8


class Fault(Value, frozen=True):
    """One kind of error of a type: how often, when last, and a task that had it."""

    words: str
    count: int
    last: int | None
    task: str


class TypePages:
    """The handlers, around the site they belong to."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.types = site.pages.types

    async def listing(self, request: web.Request) -> web.Response:
        """GET /types?window=&environment=&cursor=: most unaccounted first, loops apart."""
        name, begin, end = self._window(request)
        environment, cursor = request.query.get("environment") or None, request.query.get("cursor") or None
        page: Page[TaskType] = Page(items=[])
        if self.types is not None:
            page = await asked.listed(self.types.types(begin, end, environment=environment, limit=ROWS_MAX, cursor=cursor))
        following = {"window": name, "cursor": page.next_cursor} if page.next_cursor else {}
        return self.site.page(
            request,
            "types.html",
            here="Types",
            api=links.address("/api/v1/types", links.window(begin, end)),
            rows=[row for row in page.items if not row.is_loop],
            loops=[row for row in page.items if row.is_loop],
            sparks={(row.service, row.name): parts.spark(row.slices) for row in page.items},
            window=name,
            windows=list(WINDOWS),
            next=links.address("/types", following) if following else None,
            first=f"/types?window={name}" if cursor else None,
        )

    async def one(self, request: web.Request) -> web.Response:
        """GET /types/{service}/{name}: its durations, the deadlines they suggest, its errors and its newest tasks."""
        service, type_name = request.match_info["service"], request.match_info["name"]
        window, begin, end = self._window(request)
        environment = request.query.get("environment") or None
        story = await self.types.type_of(service, type_name, begin, end, environment=environment) if self.types else None
        if story is None:
            return self.site.missing(request, "type")
        query = " ".join(filter(None, (links.term("service", service), links.term("name", type_name))))
        tasks = (await self.site.reader.tasks(query, from_=begin, to=end, limit=TASKS_MAX)).items if query else []
        return self.site.page(
            request,
            "type.html",
            here="Types",
            api=f"{story_path(story, '/api/v1/types')}?{request.query_string}".rstrip("?"),
            it=story.type,
            story=story,
            spark=parts.spark(story.type.slices),
            histogram=parts.histogram(story.durations),
            deadlines=[(one, toml_line(service, type_name, one.deadline)) for one in story.suggestions],
            span=span,
            tasks=tasks,
            tasks_href=links.href(query, begin, end),
            query=query,
            plan_href=links.plan(f"is:loose {query}", begin, end),
            silence_href=links.address("/silences", {"matchers": links.matching(service=service, name=type_name)}),
            begin=begin,
            end=end,
            errors=await self._errors(story, query, begin, end),
            window=window,
            windows=list(WINDOWS),
        )

    async def _errors(self, story: TypeStory, query: str, begin: int, end: int) -> list[Fault]:
        """The newest failures by kind of error."""
        if not query or not story.type.failed:
            return []
        failed = await self.site.reader.tasks(f"state:failed {query}", from_=begin, to=end, limit=FAILURES_MAX)
        return faults(failed.items)

    def _window(self, request: web.Request) -> tuple[str, int, int]:
        name = request.query.get("window", "24h")
        if name not in WINDOWS:
            raise BadParameter("window", f"It is one of {', '.join(WINDOWS)}.")
        minute = 60 * NS
        end = (self.site.clock() // minute + 1) * minute
        return name, end - WINDOWS[name] * NS, end


def faults(failed: Sequence[Task]) -> list[Fault]:
    """Failures by type of error and the beginning of the message without its numbers, most frequent first."""
    piles: dict[str, list[Task]] = collections.defaultdict(list)
    for task in failed:
        error = task.error
        said = f"{error.type}: {words.short(error.message, 100)}".rstrip(": ") if error else task.reason or "no error was given"
        piles["".join("#" if c.isdigit() else c for c in said)].append(task)
    found = [Fault(words=key, count=len(pile), last=pile[0].ended_at, task=pile[0].id) for key, pile in piles.items()]
    return sorted(found, key=lambda one: -one.count)[:ERRORS_MAX]


def story_path(story: TypeStory, base: str) -> str:
    """The address of a type's page."""
    return links.type_path(story.type.service, story.type.name, base)
