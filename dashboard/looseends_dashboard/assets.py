"""The files beside the pages: style, script and icon, served under /static/{hash}/{name}.

Rules: one hash over all files is the folder's name, so a file may be kept for ever and a new version has a new address;
an address of an older version gets today's file, to be asked for again, so that a page open during an upgrade keeps its
looks. Files are read once, through importlib.resources, and packed once.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
from importlib import resources

from aiohttp import web

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
    return {f.name: Asset(f.name, f.read_bytes()) for f in sorted(folder.iterdir(), key=lambda f: f.name) if "." in f.name}


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
