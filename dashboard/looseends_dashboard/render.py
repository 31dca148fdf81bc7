"""Templates to HTML: the one place where text becomes a page.

Rules: every value that a template prints passes `words.visible` and then HTML escaping; only SVG and markup built here
from numbers and escaped labels is `Markup`. A missing value is an error, never an empty spot. No template holds a style
or a script of its own: the policy below would refuse it.
"""

from __future__ import annotations

import functools
import secrets
from typing import TYPE_CHECKING, Any

from aiohttp import web
from markupsafe import Markup

from looseends_daemon.core.titles import bare_reason
from looseends_dashboard import access, assets, links, marks, parts, tree, words

if TYPE_CHECKING:
    import jinja2
    from jinja2.runtime import Context

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; worker-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
PAGE_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Vary": "Accept-Encoding, Cookie",
}
THEMES = ("auto", "light", "dark")
THEME_COOKIE = "looseends_theme"
ZONE_COOKIE = "looseends_zone"
"""`local` where this browser shows local times; static/app/zone.js sets it."""
_COMPRESS_BYTES_MIN = 1_000


def _printed(value: Any) -> Any:
    """What every `{{ }}` passes before escaping."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return words.visible(value)
    return "" if value is None else value


def _when(context: Context, at: int | None) -> Markup:
    """A time: its age for reading, its date and clock for the mouse and for machines."""
    if at is None:
        return Markup("")
    now = context["now"]
    return Markup('<time datetime="{}" title="{} UTC" data-ago>{}</time>').format(
        words.iso(at), words.clock(at, now), words.ago(at, now)
    )


def _ago(context: Context, at: int) -> str:
    """The age of a time as text."""
    return words.ago(at, context["now"])


def _at(context: Context, at: int | None, millis: bool = False) -> Markup:
    """A time: its clock for reading, its age for the mouse."""
    if at is None:
        return Markup("")
    now = context["now"]
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        words.iso(at), words.ago(at, now), words.clock(at, now, millis)
    )


@functools.cache
def environment() -> jinja2.Environment:
    """The templates, compiled as they are first asked for. So is jinja2: a daemon whose pages nobody opens holds 3 MiB less."""
    import jinja2

    env = jinja2.Environment(
        loader=jinja2.PackageLoader("looseends_dashboard"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_printed,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    env.filters.update(
        when=jinja2.pass_context(_when),
        ago=jinja2.pass_context(_ago),
        at=jinja2.pass_context(_at),
        number=words.number,
        duration=words.duration,
        limit=words.limit,
        iso=words.iso,
        short=words.short,
        brief=tree.brief,
        mark=marks.mark,
        spoken=marks.spoken,
        bare=bare_reason,
        plural=words.plural,
        sentence=words.sentence,
    )
    env.globals.update(
        asset=assets.href,
        version_hash=assets.version_hash,
        new_key=new_key,
        themes=THEMES,
        href=links.href,
        word=links.term,
        incident_mark=marks.incident_mark,
        instance_mark=marks.instance_mark,
        notice_mark=marks.notice_mark,
        type_path=links.type_path,
        sections={"alerting": parts.ALERTING, "running": parts.RUNNING},
    )
    return env


def new_key() -> str:
    """A fresh idempotency key for one form, so that pressing twice acts once."""
    return secrets.token_urlsafe(18)


def theme_of(request: web.Request) -> str:
    """The viewer's choice; anything unknown is `auto`."""
    choice = request.cookies.get(THEME_COOKIE, "auto")
    return choice if choice in THEMES else "auto"


def draw(template: str, **values: Any) -> str:
    """One template as text, with what the frame around every page needs."""
    frame: dict[str, Any] = {"now": 0, "theme": "auto", "actor": None, "operator": False, "csrf": None}
    frame |= {"back": "/", "api": None, "here": "", "stamp": "", "local": False}
    return environment().get_template(template).render(frame | values)


def page(request: web.Request, template: str, now: int, status: int = 200, **values: Any) -> web.Response:
    """A page for this visitor. `back` is where the theme buttons return to: by default this address."""
    actor = request.get("actor")
    seen: dict[str, Any] = {"back": request.path_qs, "csrf": request.get("csrf", "")}
    seen["local"] = request.cookies.get(ZONE_COOKIE) == "local" or request.query.get("tz") == "local"
    text = draw(template, now=now, theme=theme_of(request), actor=actor, operator=access.may_act(actor), **(seen | values))
    response = web.Response(text=text, content_type="text/html", status=status, headers=PAGE_HEADERS)
    if len(text) >= _COMPRESS_BYTES_MIN and "gzip" in request.headers.get("Accept-Encoding", ""):
        response.enable_compression(web.ContentCoding.gzip)
    return response


def render_error(status: int, title: str, detail: str) -> str:
    """A whole small page for an error: its number, what is wrong, and the way out."""
    return draw("error.html", code=status, title=title, detail=detail)


def render_sign_in(error: str | None, next_path: str) -> str:
    """The sign-in page; `error` says what was wrong with the last try, `next_path` is where it leads."""
    return draw("sign_in.html", error=error, next_path=next_path)
