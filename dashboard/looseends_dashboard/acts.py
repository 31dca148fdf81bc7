"""What a form on a page does, and the page that answers.

Rules: the guard has checked role, CSRF token and idempotency key before anything here runs; what works answers 303 to
where its result is seen, what is refused answers on the page it came from, with the reasons and the way on.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from aiohttp import web

from looseends.wire import NOTE_CHARS_MAX
from looseends_daemon.core.resources import Actor, CommandRefused
from looseends_dashboard import access, render, words

if TYPE_CHECKING:
    from looseends_dashboard.site import Site

CONFIRM_MAX = 20
ANSWERS = ("ran", "did_not_run", "run_again")
THEME_AGE_S = 365 * 86_400


class Acts:
    """The handlers of the forms, around the pages they answer with."""

    def __init__(self, site: Site) -> None:
        self.site = site

    async def replay(self, request: web.Request) -> web.Response:
        """POST /tasks/{id}/replay: one order for one recorded task."""
        task_id = request.match_info["id"]
        form = await request.post()
        note = _text(form.get("note"))[:NOTE_CHARS_MAX]
        confirm = [_text(name) for name in form.getall("confirm", [])][:CONFIRM_MAX]
        args_text = _text(form.get("args")).strip()
        try:
            args = arguments(args_text)
            args_text = _exact(args_text, args)
            replay = await self.site.commands.replay_task(task_id, _actor(request), note=note, args=args, confirm=confirm)
        except CommandRefused as error:
            if error.status == 404:
                return self.site.missing(request, "task")
            refused = access.refusal(error, confirm, "replay", note, args_text)
            return await self.site.task_page(request, task_id, refused=refused, status=error.status)
        return see(f"/replays/{quote(replay.id, safe='')}")

    async def dismiss(self, request: web.Request) -> web.Response:
        """POST /tasks/{id}/dismiss: a person decides that nothing is to be done about a loose end."""
        task_id = request.match_info["id"]
        note = _text((await request.post()).get("note"))
        try:
            await self.site.commands.dismiss_task(task_id, _actor(request), note=note)
        except CommandRefused as error:
            if error.status == 404:
                return self.site.missing(request, "task")
            refused = access.refusal(error, [], "dismiss", note)
            return await self.site.task_page(request, task_id, refused=refused, status=error.status)
        return see(f"/tasks/{quote(task_id, safe='')}")

    async def back_to_task(self, request: web.Request) -> web.Response:
        """GET where only a form leads, as after a reload of its answer: back to the task."""
        return see(f"/tasks/{quote(request.match_info['id'], safe='')}")

    async def resolve(self, request: web.Request) -> web.Response:
        """POST /replays/{id}/orders/{order}/resolve: a person decides what nobody knows."""
        replay_id, order_id = request.match_info["id"], request.match_info["order"]
        form = await request.post()
        answer, note = _text(form.get("as")), _text(form.get("note")).strip()[:NOTE_CHARS_MAX]
        try:
            if answer not in ANSWERS:
                raise CommandRefused(422, "Not decided", [f"as is one of {', '.join(ANSWERS)}"])
            if not note:
                raise CommandRefused(422, "Not decided", ["Say in a note what you found: it is kept with the decision"])
            await self.site.commands.resolve_order(order_id, _actor(request), answer=answer, note=note)
        except CommandRefused as error:
            if error.status == 404:
                return self.site.missing(request, "order")
            refused = access.refusal(error, [], "resolve", note)
            return await self.site.replay_page(request, replay_id, refused=refused, status=error.status)
        return see(f"/replays/{quote(replay_id, safe='')}")

    async def theme(self, request: web.Request) -> web.Response:
        """POST /theme: light, dark or as the system says, kept in a cookie for a year."""
        form = await request.post()
        choice = _text(form.get("theme"))
        if choice not in render.THEMES:
            detail = f"theme is one of {', '.join(render.THEMES)}."
            return self.site.problem(request, 422, "Unknown theme", detail)
        response = see(_own_path(_text(form.get("back"))))
        response.set_cookie(
            render.THEME_COOKIE, choice, max_age=THEME_AGE_S, httponly=True, samesite="Lax", secure=request.secure, path="/"
        )
        return response


def see(path: str) -> web.Response:
    """303: look there now."""
    return web.Response(status=303, headers={"Location": path, "Cache-Control": "no-store"})


def _own_path(path: str) -> str:
    """A path of this site, or the overview: never a way to another host."""
    fine = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable() and len(path) <= 4_000
    return quote(path, safe="/?&=%:,*\"'()+-._~") if fine else "/"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def arguments(text: str) -> Any:
    """Arguments typed by a person; empty: those that were recorded. Raises CommandRefused with the place."""
    if not text:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CommandRefused(422, "The arguments cannot be read", [f"They are no JSON: {error}"]) from None
    if not isinstance(value, dict):
        raise CommandRefused(422, "The arguments cannot be read", ['Write an object, as in {"order_id": 7}'])
    return value


def _exact(typed: str, args: Any) -> str:
    """What was typed, so that a page can give it back unchanged: where it would mark unsafe characters, JSON escapes them."""
    return typed if words.visible(typed) == typed else words.json_text(args)


def _actor(request: web.Request) -> Actor:
    actor = request["actor"]
    if not isinstance(actor, Actor):
        raise web.HTTPForbidden
    return actor
