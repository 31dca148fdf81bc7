"""`looseends doctor --app`: which of an application's ways of starting work are covered, and the line that covers the rest.

Rules: the application is imported, as its server would import it, and not run; nothing is recorded meanwhile. A system counts as
used where the application imported its library. Exit code 0: all that is used is covered, 1: something is not.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from . import options
from .errors import LooseEndsError, UsageError
from .instrument import library
from .spec import Spec
from .task import INSTALLED, INTEGRATIONS, audited

HELP = """\
usage: looseends doctor --app MODULE[:ATTRIBUTE] [--json]

Say what of an application is captured and what is not. Imports it as its server would; records and changes nothing.

examples:
  looseends doctor --app shop:app
  looseends doctor --app shop.main

exit codes: 0 everything it uses is covered, 1 something is not or it cannot be imported, 2 wrong usage"""
COVERED, UNCOVERED, UNSUPPORTED, UNUSED = "covered", "not covered", "unsupported", "not used"
FUNCTIONS_MAX = 200
_NUMBERS = re.compile(r"\d+")


class Finding(NamedTuple):
    """One system: how it stands, which version of its library, and what to do."""

    system: str
    state: str
    version: str
    words: str


def main(arguments: Sequence[str]) -> int:
    """Run `looseends doctor --app`. -> exit code. Raises UsageError, LooseEndsError."""
    found, rest = options.split("doctor", arguments, ("--app",), ("--json",))
    app = options.one(found, "--app", "doctor")
    if rest or app is None:
        raise UsageError("looseends doctor: --app MODULE[:ATTRIBUTE] [--json], such as --app shop:app")
    load(app)
    rows, functions = list(findings()), list(declared(app.partition(":")[0]))
    if "--json" in found:
        _print_json(rows, functions)
    else:
        _print(rows, functions)
    return 1 if any(row.state in (UNCOVERED, UNSUPPORTED) for row in rows) else 0


def load(app: str) -> None:
    """Import an application as its server would, from the current folder, recording nothing. Raises LooseEndsError."""
    name, _, attribute = app.partition(":")
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", name):
        raise UsageError(f"looseends doctor: --app is MODULE[:ATTRIBUTE], such as shop:app, not {app!r:.200}")
    os.environ["LOOSEENDS_DISABLED"] = "1"
    sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it is said, in one line, whatever it is
        raise LooseEndsError(f"{name} cannot be imported: {type(error).__name__}: {error}") from None
    for part in attribute.split(".") if attribute else ():
        if not hasattr(found, part):
            there = [word for word in vars(found) if not word.startswith("_")] if hasattr(found, "__dict__") else []
            hint = f"it has {', '.join(sorted(there)[:20])}" if there else ""
            raise LooseEndsError(f"{name} has no {attribute}", hint=hint)
        found = getattr(found, part)


def findings() -> Iterator[Finding]:
    """Every system of the table, in its order."""
    for system in INTEGRATIONS:
        wanted = library(system)
        version = version_of(wanted.distribution)
        if wanted.module not in sys.modules:
            words = "this application does not import it" if version else "it is not installed here"
            yield Finding(system, UNUSED, version, words)
        elif unusable := why_not(system, version):
            yield Finding(system, UNSUPPORTED, version, unusable)
        elif system in INSTALLED:
            yield Finding(system, COVERED, version, "installed")
        else:
            yield Finding(system, UNCOVERED, version, f'add looseends.install("{system}"), or run it under looseends instrument')


def why_not(system: str, version: str) -> str | None:
    """Why a system cannot be captured here (None: it can), by the versions that its integration knows."""
    try:
        module = importlib.import_module(INTEGRATIONS[system])
    except Exception as error:  # noqa: BLE001 - it is said, whatever it is
        return f"it cannot be captured: {type(error).__name__}: {error}"
    least, below = getattr(module, "LEAST", ()), getattr(module, "BELOW", ())
    return None if knows(version, least, below) else f"known are {_dotted(least)} or later, below {_dotted(below)}"


def knows(version: str, least: Sequence[int], below: Sequence[int]) -> bool:
    """Whether a version lies in a range, by its numbers. One that cannot be read does; without a range, every one does."""
    numbers = [int(part) for part in _NUMBERS.findall(version)]
    if not numbers or not least or not below:
        return True
    return list(least) <= numbers[: len(least)] and numbers[: len(below)] < list(below)


def _dotted(numbers: Sequence[int]) -> str:
    return ".".join(map(str, numbers))


def version_of(distribution: str) -> str:
    """The version of a distribution, of Python itself for none; empty where it is not installed."""
    if not distribution:
        return ".".join(str(part) for part in sys.version_info[:3])
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def declared(name: str) -> Iterator[Spec]:
    """Functions of the application's own package that were declared by `@looseends.task`, at most FUNCTIONS_MAX."""
    top = name.partition(".")[0]
    seen: set[Spec] = set()
    for found, module in list(sys.modules.items()):
        if found.partition(".")[0] == top:
            for value in list(vars(module).values()):
                spec = audited(value) if callable(value) else None
                if spec is not None and spec not in seen and len(seen) < FUNCTIONS_MAX:
                    seen.add(spec)
                    yield spec


def _print(rows: list[Finding], functions: list[Spec]) -> None:
    for row in rows:
        print(f"{row.state:<12} {row.system:<16} {row.version or '-':<10} {row.words}")
    print()
    for spec in functions:
        replay = {"yes": "replayable", "ask": "replayable when confirmed"}.get(spec.replay or "", "not offered for replay")
        print(f"declared     {spec.name}: {replay}")
    if not functions:
        print("no function of it is declared with @looseends.task; captured work is seen, and cannot be replayed")
    missing = [row.system for row in rows if row.state in (UNCOVERED, UNSUPPORTED)]
    print(f"\nnot covered: {', '.join(missing)}" if missing else "\neverything it uses is covered")


def _print_json(rows: list[Finding], functions: list[Spec]) -> None:
    import json

    systems = [row._asdict() for row in rows]
    said = {"systems": systems, "declared": [{"name": spec.name, "replay": spec.replay} for spec in functions]}
    print(json.dumps(said, indent=1))
