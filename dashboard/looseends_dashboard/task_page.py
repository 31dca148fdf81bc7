"""The page of one task: what became of it, why, what to press, and everything that was recorded around it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from looseends.wire import NS
from looseends_daemon.core.marks import Dismissal
from looseends_daemon.core.query import QueryError
from looseends_daemon.core.resources import HistoryEntry, Task, encode
from looseends_dashboard import access, links, marks, snippets, take, trace, tree, verdicts, views, why, words
from looseends_dashboard.waterfall import waterfall

if TYPE_CHECKING:
    from aiohttp import web

    from looseends_dashboard.site import Site

KIN_MAX = 20
STEPS_MAX = 200
SIBLINGS_MAX = 8
CHILDREN_MAX = 20
AROUND_S = 60
"""Siblings: tasks of the same instance that began within so many seconds of it, before or after."""


async def page(
    site: Site, request: web.Request, task_id: str, refused: access.Refusal | None = None, status: int = 200
) -> web.Response:
    """A task's page, also with the reasons why an act on it was refused."""
    task = await site.reader.task(task_id)
    if task is None:
        return site.missing(request, "task")
    site.opened(task)
    history, kin, around, undo = await asyncio.gather(
        site.reader.history(task_id), _kin(site, task), _around(site, task), _undo(site, task)
    )
    now = site.clock()
    return site.page(
        request,
        "task.html",
        status=status,
        back=f"/tasks/{quote(task.id)}",
        here="Tasks",
        api=f"/api/v1/tasks/{task.id}",
        task=task,
        trace_url=trace_link(site.pages.trace_url, task),
        seen=marks.mark(task),
        head=verdicts.headline(task, now),
        replay=access.replay_button(task, request.get("actor")),
        args_text=_editable(task),
        refused=refused,
        undo=undo if undo is not None and undo.undo_until_at > now else None,
        kin=kin[:KIN_MAX],
        kin_left=max(0, len(task.replays) + (task.replay_of is not None) - KIN_MAX),
        **around,
        **await _said(site, task, history or [], now),
        **_taken(site, task),
    )


def trace_link(template: str | None, task: Task) -> str | None:
    """Where this task's trace is seen, if somebody said where that is."""
    if template is None or not task.trace_id:
        return None
    return template.replace("{trace_id}", quote(task.trace_id, safe=""))


async def _said(site: Site, task: Task, history: list[HistoryEntry], now: int) -> dict[str, Any]:
    """What the history says: the diagnosis, the drawing, the lines."""
    explained = why.needs_answers(task)
    instance = await site.reader.instance(task.instance.id) if explained and task.instance is not None else None
    steps = views.timeline(history)
    stack = task.progress.stack if task.progress is not None else None
    return {
        "answers": why.diagnosis(task, history, instance) if explained else [],
        "drawn": waterfall(task, history, now),
        "steps": steps[-STEPS_MAX:],
        "steps_left": max(0, len(steps) - STEPS_MAX),
        "traceback": trace.parts(task.error.traceback) if task.error is not None and task.error.traceback else [],
        "stack": trace.stack_parts(stack) if stack else [],
    }


def _taken(site: Site, task: Task) -> dict[str, Any]:
    """What is recorded as trees, and what is there to copy."""
    return {
        "args": tree.tree(task.args) if task.args is not None else None,
        "result": tree.tree(task.result) if task.result is not None else None,
        "copy_json": words.json_text(encode(task)),
        "copy_curl": snippets.curl(site.addresses, f"/api/v1/tasks/{task.id}"),
        "copy_command": snippets.command_line(task),
        "copy_python": take.as_python(task),
        "copy_pytest": take.as_pytest(task),
    }


async def _around(site: Site, task: Task) -> dict[str, Any]:
    """Who began in the same instance around that time, and what this task began itself."""
    siblings: list[Task] = []
    asked = links.term("instance", task.instance.id) if task.instance is not None else ""
    began = task.began_at
    window = (began - AROUND_S * NS, began + AROUND_S * NS) if began is not None else None
    if asked and window is not None:
        found = await site.reader.tasks(asked, from_=window[0], to=window[1], limit=SIBLINGS_MAX + 1)
        siblings = [other for other in found.items if other.id != task.id][:SIBLINGS_MAX]
    children: list[Task] = []
    of_this = links.term("parent", task.id)
    if task.children.total and of_this:
        try:
            children = list((await site.reader.tasks(of_this, limit=CHILDREN_MAX)).items)
        except QueryError:  # an id that no query can hold is none of ours
            children = []
    return {
        "siblings": siblings,
        "siblings_href": links.href(asked, *window) if asked and window is not None else "",
        "children": children,
        "children_href": links.href(of_this),
        "around_s": AROUND_S,
    }


async def _kin(site: Site, task: Task) -> list[views.Kin]:
    """The task this one runs again, and those that run it again, with where they stand."""
    ids = [("Runs again", task.replay_of)] if task.replay_of else []
    ids += [("Run again as", new) for new in reversed(task.replays)]
    found = await asyncio.gather(*(site.reader.task(kin_id) for _, kin_id in ids[:KIN_MAX]))
    return [views.kin(said, kin_id, other) for (said, kin_id), other in zip(ids, found, strict=False)]


async def _undo(site: Site, task: Task) -> Dismissal | None:
    """The dismissal that settled it, while that can be taken back."""
    if task.settled != "dismissed" or site.pages.alerts is None:
        return None
    return await site.pages.alerts.dismissal_of(task.id)


def _editable(task: Task) -> str:
    """The recorded arguments as text to edit; empty where they are no object or too long to edit in a page."""
    text = words.json_text(task.args) if isinstance(task.args, dict) else ""
    return text if len(text) <= words.TEXT_CHARS_MAX else ""
