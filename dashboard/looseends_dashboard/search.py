"""The list of tasks: what was asked, its rows, what they have in common, and the way to take them along.

Rules: a mistake in a query points at its column and never looks like "no results"; every count says how far it got; a page of
rows costs the same however many match, and "all of them" is an act and no longer page.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from looseends_daemon.core import suggest
from looseends_daemon.core.front import Facet, Found
from looseends_daemon.core.query import QUERY_CHARS_MAX, QueryError, parse
from looseends_daemon.core.resources import Page, Task, Value, encode
from looseends_dashboard import asked, export, links, words
from looseends_dashboard.site import Site

ROWS_MAX = 50
QUICK = ("is:loose", "is:gap", "state:failed", "is:open", "verdict:lost", "verdict:stuck", "state:succeeded")


class Link(Value, frozen=True):
    """One value of a facet: how many have it, and the list narrowed to it (or, if it is narrowed to it, no longer)."""

    value: str
    count: int
    href: str
    on: bool


class Links(Value, frozen=True):
    """One facet as the page shows it."""

    word: str
    links: list[Link]
    left: int


def without(q: str, word: str) -> tuple[str, list[str]]:
    """A query that can be read without the plain terms of this word, and what these asked for."""
    terms = parse(q).terms
    kept, asked_for = [], []
    for n, term in enumerate(terms):
        end = terms[n + 1].column - 1 if n + 1 < len(terms) else len(q)
        if term.word == word and not term.negated and not term.detail:
            asked_for += [match.text for match in term.matches if not match.prefix]
        else:
            kept.append(q[term.column - 1 : end].strip())
    return " ".join(kept), asked_for


def facet_links(facets: list[Facet], q: str, from_: int | None, to: int | None) -> list[Links]:
    """Facets with more than one value to choose from, or with one that is chosen."""
    shown = []
    for facet in facets:
        rest, chosen = without(q, facet.word)
        made = []
        for choice in facet.choices:
            on = chosen == [choice.value]
            term = links.term(facet.word, choice.value)
            asked_for = rest if on else f"{rest} {term}".strip()
            if term:
                made.append(Link(value=choice.value, count=choice.count, on=on, href=links.href(asked_for, from_, to)))
        if len(made) > 1 or any(link.on for link in made):
            shown.append(Links(word=facet.word, links=made, left=facet.left))
    return shown


class Search:
    """The handlers, around the site they belong to."""

    def __init__(self, site: Site) -> None:
        self.site = site

    async def tasks(self, request: web.Request) -> web.Response:
        """GET /tasks?q=&from=&to=&cursor=."""
        typed = {name: request.query.get(name, "").strip() for name in ("q", "from", "to")}
        cursor = request.query.get("cursor") or None
        stamp = (await self.site.front.now()).stamp
        try:
            from_, to = asked.time_of(typed["from"], "from"), asked.time_of(typed["to"], "to")
            page, found = await asyncio.gather(
                asked.listed(self.site.reader.tasks(typed["q"], from_=from_, to=to, limit=ROWS_MAX, cursor=cursor)),
                self.site.front.found(typed["q"], from_=from_, to=to),
            )
        except QueryError as error:
            return self._page(request, typed, status=422, problem=asked.query_problem(typed["q"], error))
        except asked.BadParameter as error:
            return self._page(request, typed, status=422, problem=asked.of_parameter(error))
        return self._page(request, typed, stamp=stamp, **_listed(typed["q"], from_, to, cursor, page, found))

    def _page(self, request: web.Request, typed: dict[str, str], status: int = 200, **values: Any) -> web.Response:
        base: dict[str, Any] = {
            "api": None,
            "problem": None,
            "page": None,
            "found": None,
            "facets": [],
            "first": None,
            "next": None,
        }
        base |= {"q": typed["q"][: QUERY_CHARS_MAX + 1], "from_text": typed["from"][:40], "to_text": typed["to"][:40]}
        base |= {"quick": QUICK, "facets": [], "exports": [], "matching": "", "rows_most": export.ROWS_MAX}
        return self.site.page(request, "tasks.html", status=status, here="Tasks", **(base | values))

    async def suggest(self, request: web.Request) -> web.Response:
        """GET /suggest?q=&pos=: what may stand where the caret is, as {"start", "items": [{"text", "hint", "more"}]}."""
        q = request.query.get("q", "")[:QUERY_CHARS_MAX]
        text = request.query.get("pos", "")
        caret = int(text) if text.isascii() and text.isdigit() and len(text) <= 6 else len(q)
        at = suggest.place(q, caret)
        items = suggest.fixed(at)
        if items is None:
            items = suggest.looked_up(await self.site.front.values(at.word, at.typed))
        return web.json_response({"start": at.start, "items": encode(items[: suggest.SUGGESTIONS_MAX])})

    async def export(self, request: web.Request) -> web.StreamResponse:
        """GET /tasks.csv, /tasks.ndjson: all that match, the newest export.ROWS_MAX of them. Raises BadParameter."""
        kind = request.path.rpartition(".")[2]
        q = request.query.get("q", "").strip()
        from_, to = asked.time_of(request.query.get("from", ""), "from"), asked.time_of(request.query.get("to", ""), "to")

        async def more(cursor: str | None) -> Page[Task]:
            return await asked.listed(self.site.reader.tasks(q, from_=from_, to=to, limit=export.PAGE_ROWS, cursor=cursor))

        try:
            first = await more(None)  # what is wrong with the question is said before the first byte of the answer
        except QueryError as error:
            detail = f"{words.sentence(error.detail)} This is at column {error.column} of the query."
            return self.site.problem(request, 422, "This query cannot be read", detail)
        return await export.send(request, kind, first, more)


def _listed(
    q: str, from_: int | None, to: int | None, cursor: str | None, page: Page[Task], found: Found | None
) -> dict[str, Any]:
    return {
        "api": links.href(q, from_, to, cursor, base="/api/v1/tasks"),
        "page": page,
        "found": found,
        "facets": facet_links(found.facets, q, from_, to) if found else [],
        "first": links.href(q, from_, to) if cursor else None,
        "next": links.href(q, from_, to, page.next_cursor) if page.next_cursor else None,
        "exports": [(kind.upper(), links.href(q, from_, to, base=f"/tasks.{kind}")) for kind in export.KINDS],
        "plan": links.plan(q, from_, to),
        "matching": _matching(found),
    }


def _matching(found: Found | None) -> str:
    if found is None:
        return ""  # there was no time to count them, and the page says so
    return f"more than {words.number(found.matching)}" if found.more else words.number(found.matching)
