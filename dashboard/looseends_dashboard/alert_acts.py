"""What the forms about incidents, silences, endpoints and notices do, and the page that answers.

Rules: as in acts.py: the guard has checked role, CSRF token and idempotency key; what works answers 303 to where its result is
seen, what is refused answers on the page it came from, with the reasons and with what was typed.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from urllib.parse import quote

from aiohttp import web

from looseends.wire import NS
from looseends_daemon.core.marks import AlertCommands
from looseends_daemon.core.resources import Actor, CommandRefused
from looseends_dashboard import access
from looseends_dashboard.acts import see
from looseends_dashboard.alert_pages import AlertPages, actor_of

if TYPE_CHECKING:
    from looseends_dashboard.site import Site

MATCHER_LINES_MAX = 20
FIELD_CHARS_MAX = 10_000
_UNITS_S = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(\d{1,4})\s*([mhdw])", re.ASCII)
Refused = Callable[[access.Refusal, int], Awaitable[web.Response]]


class AlertActs:
    """The handlers of the forms, around the pages they answer with."""

    def __init__(self, site: Site, pages: AlertPages) -> None:
        self.site, self.pages = site, pages

    # --- incidents and dismissals ---

    async def acknowledge(self, request: web.Request) -> web.Response:
        """POST /incidents/{id}/acknowledge: somebody has it in hand, for a while."""
        incident, form = request.match_info["id"], await _form(request)

        async def act() -> str:
            expires = _seconds(form["expires"]) if form["expires"] else None
            await self._alerts().acknowledge(incident, actor_of(request), note=form["note"], expires=expires)
            return _path("incidents", incident)

        return await self._done(
            act, "acknowledge", form, lambda why, status: self.pages.incident_page(request, incident, why, status)
        )

    async def dismiss(self, request: web.Request) -> web.Response:
        """POST /incidents/{id}/dismiss: nothing is to be done about its loose ends, as they were seen."""
        incident, form = request.match_info["id"], await _form(request)

        async def act() -> str:
            made = await self._alerts().dismiss(actor_of(request), note=form["note"], digest=form["digest"], incident=incident)
            return _path("dismissals", made.id)

        return await self._done(
            act, "dismiss", form, lambda why, status: self.pages.incident_page(request, incident, why, status)
        )

    async def undo(self, request: web.Request) -> web.Response:
        """POST /dismissals/{id}/undo: take it back."""
        dismissal, form = request.match_info["id"], await _form(request)

        async def act() -> str:
            await self._alerts().undo_dismissal(dismissal, actor_of(request))
            return _path("dismissals", dismissal)

        return await self._done(act, "undo", form, lambda why, status: self.pages.dismissal_page(request, dismissal, why, status))

    # --- silences ---

    async def silence(self, request: web.Request) -> web.Response:
        """POST /silences: hold notices back; with `do=preview` only look at what it would hide."""
        form = await _form(request)
        preview = form["do"] == "preview"
        try:
            matchers = [line.strip() for line in form["matchers"].split("\n") if line.strip()]
            if not 0 < len(matchers) <= MATCHER_LINES_MAX:
                raise CommandRefused(
                    422, "Not a silence", [f'Matchers are 1 to {MATCHER_LINES_MAX} lines such as service="shop-web"']
                )
            ends_at = self.site.clock() + _seconds(form["duration"]) * NS
            if preview:
                shown = await self._alerts().preview_silence(matchers=matchers, ends_at=ends_at)
                return await self.pages.silences_page(request, form, preview=shown)
            await self._alerts().silence(actor_of(request), matchers=matchers, comment=form["comment"], ends_at=ends_at)
        except CommandRefused as error:
            refused = access.refusal(error, [], "silence", form["comment"])
            return await self.pages.silences_page(request, form, refused=refused, status=error.status)
        return see("/silences")

    async def end_silence(self, request: web.Request) -> web.Response:
        """POST /silences/{id}/end: what it withheld goes out."""
        silence, form = request.match_info["id"], await _form(request)

        async def act() -> str:
            await self._alerts().end_silence(silence, actor_of(request))
            return "/silences"

        return await self._done(act, "end", form, lambda why, status: self.pages.silences_page(request, {}, why, status=status))

    # --- endpoints and notices ---

    async def endpoint(self, request: web.Request) -> web.Response:
        """POST /endpoints/{name}/{act}: test, enable or disable."""
        name, act_name = request.match_info["name"], request.match_info["act"]
        endpoints, form = self.site.pages.endpoints, await _form(request)

        async def act() -> str:
            if act_name == "test":
                return _path("notices", (await endpoints.test_endpoint(name, actor_of(request))).id)
            if act_name == "enable":
                await endpoints.enable_endpoint(name, actor_of(request))
            elif act_name == "disable":
                await endpoints.disable_endpoint(name, actor_of(request))
            else:
                raise CommandRefused(404, "No such act", ["an endpoint can be tested, enabled or disabled"])
            return "/endpoints"

        return await self._done(act, "endpoint", form, lambda why, status: self.pages.endpoints_page(request, why, status))

    async def resend(self, request: web.Request) -> web.Response:
        """POST /notices/{id}/resend: tell its endpoint again."""
        notice, form = request.match_info["id"], await _form(request)

        async def act() -> str:
            made = await self.site.pages.endpoints.resend_notice(notice, actor_of(request))
            return _path("notices", made.id)

        return await self._done(act, "resend", form, lambda why, status: self.pages.notice_page(request, notice, why, status))

    # --- setup ---

    async def lose(self, request: web.Request) -> web.Response:
        """POST /setup/lose: begin a task that nobody will end, so that one can watch what happens."""
        await _form(request)
        lose: Callable[[Actor], Awaitable[str]] | None = self.site.pages.lose_one
        if lose is None:
            return self.site.missing(request, "act")
        return see(_path("tasks", await lose(actor_of(request))))

    async def back(self, request: web.Request) -> web.Response:
        """GET where only a form leads, as after a reload of its answer: to the page that it stands on."""
        what, found = request.path.split("/")[1], request.match_info
        return see("/" + what if "id" not in found or what == "silences" else _path(what, found["id"]))

    # --- what they share ---

    def _alerts(self) -> AlertCommands:
        if self.site.pages.alerts is None:
            raise CommandRefused(404, "No such act", ["this daemon keeps no incidents"])
        return self.site.pages.alerts

    async def _done(self, act: Callable[[], Awaitable[str]], what: str, form: dict[str, str], refused: Refused) -> web.Response:
        """To the page that shows the result, or back with the reasons."""
        try:
            return see(await act())
        except CommandRefused as error:
            return await refused(access.refusal(error, [], what, form["note"]), error.status)


async def _form(request: web.Request) -> dict[str, str]:
    """The fields that were sent, each as text of bounded length; what was not sent is empty."""
    given = await request.post()
    names = ("note", "expires", "digest", "matchers", "comment", "duration", "do")
    return {name: value[:FIELD_CHARS_MAX] if isinstance(value := given.get(name), str) else "" for name in names}


def _path(what: str, name: str) -> str:
    return f"/{what}/{quote(name, safe='')}"


def _seconds(text: str) -> int:
    """ "2h" -> 7200. Raises CommandRefused (422)."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise CommandRefused(422, "Not a duration", ["Write a number and m, h, d or w, such as 30m, 2h or 7d"])
    return int(found[1]) * _UNITS_S[found[2]]
