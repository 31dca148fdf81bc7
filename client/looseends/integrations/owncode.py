"""Whose code is it: the service's own, or a library's? Capture is for the work a service starts, not for what its libraries do.

Rules:

1. The service's own code is what lies outside the standard library and outside `site-packages`.
2. A service that is itself installed there is known by its packages: the one that runs as `__main__`, those named on the command
   line (`uvicorn shop.web:app`), the one that called `looseends.install`, those of registered functions, and those in
   LOOSEENDS_OWN_PACKAGES ("shop,shop_jobs").
3. Answers are kept by file name, FILES_MAX of them; a new registration asks again.
"""

from __future__ import annotations

import os
import re
import sys
from types import FrameType
from typing import Any

from looseends.spec import REGISTRY
from looseends.stacks import file_of

VARIABLE = "LOOSEENDS_OWN_PACKAGES"
FILES_MAX = 10_000
PACKAGES_MAX = 100
_APPLICATION = re.compile(r"([A-Za-z_]\w*)(?:\.\w+)*:\w[\w.()]*")
# What serves an application is never the application, though it runs as `__main__` and stands on the command line.
_SERVERS = frozenset(
    (
        *("uvicorn", "gunicorn", "hypercorn", "granian", "daphne", "aiohttp", "fastapi", "looseends", "pytest"),
        *("arq", "celery", "dramatiq", "huey", "rq"),
    )
)


class Own:
    """Which files are the service's own, as this process was started."""

    def __init__(self) -> None:
        self._packages: set[str] = set()
        self._version = -1
        self._looked = False
        self._known: dict[str, bool] = {}

    def add(self, package: str) -> None:
        """Count this package (the first part of its dotted name) as the service's own."""
        top = package.partition(".")[0]
        if top and top not in _SERVERS and top not in sys.stdlib_module_names and len(self._packages) < PACKAGES_MAX:
            self._packages.add(top)
            self._known.clear()

    def look_around(self) -> None:
        """Learn from how the process was started: its main module, its command line, the environment. Asked for when the first
        task is: `looseends instrument` installs us before the program's main module is known."""
        self._looked = True
        spec = getattr(sys.modules.get("__main__"), "__spec__", None)
        self.add(getattr(spec, "name", None) or "")
        for word in sys.argv[1:]:
            found = _APPLICATION.fullmatch(word)
            if found is not None:
                self.add(found[1])
        for word in os.environ.get(VARIABLE, "").split(","):
            self.add(word.strip())

    def has(self, path: str) -> bool:
        """Whether the code of this file is the service's own."""
        if not self._looked:
            self.look_around()
        if self._version != REGISTRY.version:
            self._version = REGISTRY.version
            self._known.clear()
            for spec in list(REGISTRY.functions.values()):
                self.add(getattr(spec.function, "__module__", None) or "")
        known = self._known.get(path)
        if known is None:
            found = file_of(path)
            known = found is not None and (not found[1] or found[1] in self._packages) and not path.startswith("<frozen ")
            if len(self._known) < FILES_MAX:
                self._known[path] = known
        return known


OWN = Own()


def caller_package(depth: int = 1) -> str:
    """The package of the first code outside looseends that called, from `depth` frames up; empty where there is none."""
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None:
        name = frame.f_globals.get("__name__")
        if isinstance(name, str) and name.partition(".")[0] not in ("looseends", "importlib", "runpy"):
            return name if name != "__main__" else getattr(frame.f_globals.get("__spec__"), "name", None) or ""
        frame = frame.f_back
    return ""


def place_of(frame: Any) -> str | None:
    """`shop/mail.py:88` of the first frame of the service's own code, from this one outwards; None: there is none."""
    for _ in range(100):
        if frame is None:
            return None
        path = frame.f_code.co_filename
        if OWN.has(path):
            return f"{short(path)}:{frame.f_lineno}"
        frame = frame.f_back
    return None


def short(path: str) -> str:
    """The end of a path, as much as tells files apart."""
    return "/".join(path.rsplit("/", 2)[-2:])
