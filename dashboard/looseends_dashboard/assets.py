"""The files beside the pages: style, script and icon, served under /static/{hash}/{name}.

Rules: one hash over all files is the folder's name, so a file may be kept for ever and a new version has a new address;
an address of an older version gets today's file, to be asked for again, so that a page open during an upgrade keeps its
looks. Files are read once, through importlib.resources, and packed once. The parts in `static/app/` are one file, `app.js`, each
in a block of its own: a browser asks once, and nothing has to be built. Indentation and whole lines of comment stay here.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import re
from importlib import resources

from aiohttp import web

PARTS = ("copy", "keys", "brush", "table", "suggest")
"""What `app.js` is made of: at once, whatever somebody may press or type at once."""
LATER = ("zone", "views", "live")
"""Run once the page has been painted, in this order (`live` uses what `zone` offers): these ask the browser's stores, and start a
worker, and a first paint waits for both. Who reads local times would see them change: there it runs before."""
_PAINTED = (
    "(document.hidden || 'zone' in document.body.dataset ? queueMicrotask :"
    " (run) => requestAnimationFrame(() => setTimeout(run)))"
)
_WHOLE_COMMENT = re.compile(r"/\*(?:(?!\*/).)*\*/")
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Asset:
    """One file: its bytes as they are and packed, and its type."""

    def __init__(self, name: str, body: bytes) -> None:
        self.plain = body
        self.packed = gzip.compress(body, 9, mtime=0)
        self.type = _TYPES[name[name.rindex(".") :]]


@functools.cache
def assets() -> dict[str, Asset]:
    """All files by name."""
    folder = resources.files("looseends_dashboard") / "static"
    now, later = ("".join(f"{{\n{(folder / 'app' / f'{name}.js').read_text()}}}\n" for name in names) for names in (PARTS, LATER))
    script = f"{now}{_PAINTED}(() => {{\n{later}}});\n"
    texts = {"app.js": script} | {f.name: f.read_text() for f in sorted(folder.iterdir(), key=lambda f: f.name) if "." in f.name}
    return {name: Asset(name, squeezed(text).encode()) for name, text in texts.items()}


def squeezed(text: str) -> str:
    """Without indentation, and without lines that are only a comment: a ninth of what a first visit costs.

    Texts of several lines inside a script would lose their indentation too; none of ours has any.
    """
    lines = (line.strip() for line in text.splitlines())
    return "".join(f"{line}\n" for line in lines if line and not line.startswith("//") and not _WHOLE_COMMENT.fullmatch(line))


@functools.cache
def version_hash() -> str:
    """Ten hex digits that change with any file."""
    digest = hashlib.sha256()
    for name, asset in assets().items():
        digest.update(f"{name}\0{len(asset.plain)}\0".encode() + asset.plain)
    return digest.hexdigest()[:10]


def href(name: str) -> str:
    """The address of a file. Raises KeyError for a name that does not exist: a template must not point at nothing."""
    return f"/static/{version_hash()}/{name}" if assets()[name] else ""


async def serve(request: web.Request) -> web.Response:
    """GET /static/{hash}/{name}."""
    asset = assets().get(request.match_info["name"])
    if asset is None:
        raise web.HTTPNotFound
    current = request.match_info["hash"] == version_hash()
    headers = {
        "Cache-Control": "public, max-age=31536000, immutable" if current else "no-cache",
        "X-Content-Type-Options": "nosniff",
        "Vary": "Accept-Encoding",
    }
    packed = "gzip" in request.headers.get("Accept-Encoding", "")
    if packed:
        headers["Content-Encoding"] = "gzip"
    return web.Response(body=asset.packed if packed else asset.plain, content_type=asset.type, charset="utf-8", headers=headers)
