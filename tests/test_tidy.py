"""The house rules, as one fast test per rule over every file, and each rule proven on faults planted for it.

Import directions, purity, lengths, dropped tasks, silent excepts, docstrings, doors and words: ARCHITECTURE.md says why.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import pytest

from harness import ROOT

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 400
# Files that were longer when the limit came: they may shrink, never grow.
RATCHET = {"client/looseends/wire.py": 500}

PACKAGES = {
    "looseends": "client",
    "looseends_daemon": "daemon",
    "looseends_dashboard": "dashboard",
}
# What each part may import of this project; the longest key that fits a module counts.
_SHARED = ("looseends.wire", "looseends.errors")
_GROUND = (*_SHARED, "looseends_daemon.core", "looseends_daemon.config", "looseends_daemon.clock")
_ABOVE = (*_GROUND, "looseends_daemon.store")
ALLOWED: dict[str, tuple[str, ...]] = {
    "looseends": ("looseends",),
    "looseends.cli": ("looseends", "looseends_daemon.cli"),
    "looseends_daemon": _GROUND,
    "looseends_daemon.core": ("looseends.wire", "looseends_daemon.core"),
    "looseends_daemon.store": _ABOVE,
    "looseends_daemon.services": (*_ABOVE, "looseends_daemon.services"),
    "looseends_daemon.services.adopter": (*_ABOVE, "looseends_daemon.services", "looseends.journal"),
    "looseends_daemon.http.ingest": (*_ABOVE, "looseends_daemon.http", "looseends.parcel"),
    "looseends_daemon.http": (*_ABOVE, "looseends_daemon.http"),
    "looseends_daemon.notify": (*_ABOVE, "looseends_daemon.notify"),
    "looseends_daemon.app": ("looseends", "looseends_daemon", "looseends_dashboard"),
    "looseends_daemon.cli": ("looseends", "looseends_daemon", "looseends_dashboard"),
    "looseends_daemon.commands": ("looseends", "looseends_daemon"),  # commands, apart from cli.py for their length
    "looseends_daemon.outgoing": ("looseends", "looseends_daemon"),  # endpoints, apart from app.py for its length
    "looseends_daemon.serve": ("looseends", "looseends_daemon"),  # the command `serve`, apart from the others for its length
    "looseends_dashboard": ("looseends.wire", "looseends_daemon.core", "looseends_dashboard"),
}
OPTIONAL = {("looseends.plain", "msgspec")}  # looseends[fast]: used where it is installed, missed by nobody where it is not
DATABASE = {"sqlite3", "aiosqlite"}
MAY_OPEN_DATABASE = ("looseends_daemon.store", "looseends_daemon.app", "looseends_daemon.cli")
PURE = (
    *("looseends_daemon.core", "looseends.wire", "looseends.errors", "looseends.capture", "looseends.redact"),
    *("looseends.plain", "looseends.values", "looseends.forms", "looseends.scrub", "looseends.rebuild"),
)
IMPURE_MODULES = {
    *("aiohttp", "aiosqlite", "asyncio", "glob", "http", "io", "logging", "multiprocessing", "os", "pathlib", "random"),
    *("secrets", "select", "shutil", "signal", "socket", "sqlite3", "subprocess", "tempfile", "threading", "time"),
    "urllib",
}
IMPURE_CALLS = {"now", "utcnow", "today", "uuid1", "uuid4", "open", "print", "input"}
SPAWNERS = {"create_task", "ensure_future", "run_coroutine_threadsafe", "create_eager_task_factory"}
BROAD = {"Exception", "BaseException"}
ROLES = {"open", "ingest", "viewer", "operator"}
ROUTER = "looseends_daemon.http.server"
ROUTE_TABLES = ("looseends_daemon.http", "looseends_dashboard.routes")
ADDERS = {f"add_{verb}" for verb in ("get", "head", "post", "put", "patch", "delete", "route", "routes", "view", "static")}
WEB_VERBS = {"get", "head", "post", "put", "patch", "delete", "route", "view", "static", "RouteTableDef"}
# A word that names one of our things by another name, and the name to write instead.
SYNONYMS = {
    r"boot_id": "instance",
    r"deadline_at": "due_at",
    r"healthz": "livez",
    r"run-app": "instrument",
    r"re-?runs?": "replay",
    r"re-?running": "replaying",
    r"lost jobs?": "lost task",
    r"zombie tasks?": "stuck or lost task",
    r"dead letters?": "loose end",
    r"unaccounted (?:jobs?|work)": "gap",
}
MACHINE_PATHS = re.compile(r"(?<![\w.:/])/(?:work|root|Users|home/[a-z]+)/[\w.-]+")
PROSE = (".md", ".html", ".toml", ".sql", ".css", ".js")
Fault = tuple[int, str]


class Source(NamedTuple):
    """One file: its path from the root, its dotted module name (empty outside the packages), text and tree."""

    path: str
    module: str
    text: str
    tree: ast.Module


def source(path: str, text: str) -> Source:
    """A file as the rules see it; prose has an empty tree."""
    parts = path.removesuffix(".py").split("/")
    inside = len(parts) > 1 and PACKAGES.get(parts[1]) == parts[0]
    module = ".".join(part for part in parts[1:] if part != "__init__") if inside else ""
    return Source(path, module, text, ast.parse(text if path.endswith(".py") else "", path))


@cache
def tree() -> tuple[Source, ...]:
    """Every file of ours that holds code or prose."""
    kinds = (".py", *PROSE)
    roots = [*PACKAGES.values(), "docs", "examples", "tests", "bench"]
    paths = [path for root in roots for path in (ROOT / root).rglob("*") if path.suffix in kinds and "/." not in str(path)]
    paths += [path for path in ROOT.iterdir() if path.suffix in kinds or path.name == "Makefile"] + [ROOT / ".ci/run"]
    return tuple(source(str(path.relative_to(ROOT)), path.read_text()) for path in sorted(paths))


def within(module: str, parts: tuple[str, ...]) -> bool:
    """Whether this module is one of these parts or lies below one."""
    return any(module == part or module.startswith(part + ".") for part in parts)


def _only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(file: Source, types_too: bool = True) -> Iterator[Fault]:
    """(line, absolute dotted name) of everything imported, wherever in the file it stands."""
    is_package = file.path.endswith("__init__.py")
    skipped: set[ast.AST] = set()
    for node in ast.walk(file.tree):
        if not types_too and _only_for_types(node):
            skipped.update(ast.walk(node))
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = file.module.split(".")[: len(file.module.split(".")) - node.level + is_package] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def calls(file: Source) -> Iterator[tuple[ast.Call, str, str]]:
    """(call, owner, name) of every call: `self.loop.create_task(x)` is (call, "self.loop", "create_task")."""
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node, ast.unparse(node.func.value), node.func.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node, "", node.func.id


# --- the rules: a file -> its faults ------------------------------------------------------------------------------


def import_directions(file: Source) -> Iterator[Fault]:
    """Who may import whom, inside the project."""
    fitting = [key for key in ALLOWED if within(file.module, (key,))]
    layer = max(fitting, key=len, default=None)
    if layer is None:
        return
    for line, name in imports(file):
        if name.split(".")[0] in PACKAGES and not within(name, ALLOWED[layer]):
            yield line, f"{file.module} may import {', '.join(ALLOWED[layer])}, not {name}"


def client_needs_nothing(file: Source) -> Iterator[Fault]:
    """The client runs on the standard library; an integration may import what it integrates, `testing` pytest."""
    if not within(file.module, ("looseends",)) or within(file.module, ("looseends.integrations", "looseends.testing")):
        return
    for line, name in imports(file, types_too=False):
        top = name.split(".")[0]
        if top not in sys.stdlib_module_names and top not in PACKAGES and (file.module, top) not in OPTIONAL:
            yield line, f"the client imports only the standard library, not {top}"


def pure_core(file: Source) -> Iterator[Fault]:
    """Decisions do no I/O and read no clock: time and data are handed in."""
    if not within(file.module, PURE):
        return
    for line, name in imports(file):
        if name.split(".")[0] in IMPURE_MODULES:
            yield line, f"{file.module} decides and does no I/O, found {name}"
    for call, _, name in calls(file):
        if name in IMPURE_CALLS:
            yield call.lineno, f"{file.module} decides and does no I/O, found {name}()"


def one_door_to_the_database(file: Source) -> Iterator[Fault]:
    """All SQL lives in store/; the type of a connection handed in may be named elsewhere."""
    if not within(file.module, tuple(PACKAGES)) or within(file.module, MAY_OPEN_DATABASE):
        return
    if within(file.module, ("looseends",)):
        return  # client_needs_nothing and its own budget of modules hold it
    for line, name in imports(file, types_too=False):
        if name.split(".")[0] in DATABASE:
            yield line, f"only looseends_daemon.store opens the database, found {name}"


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node) is not None:
        lines -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
    return lines


def short_functions(file: Source) -> Iterator[Fault]:
    """A function fits on a screen; its docstring does not count."""
    for node in ast.walk(file.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _lines(node) > FUNCTION_LINES_MAX:
            yield node.lineno, f"{node.name} has {_lines(node)} lines, {FUNCTION_LINES_MAX} are the limit: split it"


def short_files(file: Source) -> Iterator[Fault]:
    """One noun per file; tests may be longer than what they test."""
    limit = RATCHET.get(file.path, FILE_LINES_MAX)
    lines = file.text.count("\n")
    if file.path.endswith(".py") and not file.path.startswith("tests/") and lines > limit:
        yield lines, f"{lines} lines, {limit} are the limit: it holds more than one noun"


def _task_groups(file: Source) -> set[str]:
    """Names of this file that hold a TaskGroup: it keeps its tasks, waits for them and raises what they raise."""
    found = {"tg"}
    for node in ast.walk(file.tree):
        if isinstance(node, ast.withitem) and node.optional_vars and "TaskGroup(" in ast.unparse(node.context_expr):
            found.add(ast.unparse(node.optional_vars))
        elif isinstance(node, ast.arg | ast.AnnAssign) and node.annotation and "TaskGroup" in ast.unparse(node.annotation):
            found.add(node.arg if isinstance(node, ast.arg) else ast.unparse(node.target))
    return found


def no_dropped_task(file: Source) -> Iterator[Fault]:
    """A task nobody keeps can vanish in mid-flight: this project exists because of that."""
    if file.path.startswith(("tests/", "examples/articles/")):  # those show the fault, and how it is caught
        return
    dropped = [node.value for node in ast.walk(file.tree) if isinstance(node, ast.Expr)]
    groups = _task_groups(file)
    for call, owner, name in calls(file):
        if name in SPAWNERS and call in dropped and owner not in groups:
            yield call.lineno, f"the task of {name}() is dropped: keep it, or use a TaskGroup"


def loops_live_in_the_shell(file: Source) -> Iterator[Fault]:
    """In the daemon only the supervised shell starts tasks; a TaskGroup inside one run of a loop is no loop."""
    parts = ("looseends_daemon", "looseends_dashboard")
    if not within(file.module, parts) or file.module == "looseends_daemon.services.shell":
        return
    groups = _task_groups(file)
    for call, owner, name in calls(file):
        if name in SPAWNERS and owner not in groups:
            yield call.lineno, f"{name}() outside services/shell.py: make it a supervised Loop"


def _is_broad(node: ast.expr | None) -> bool:
    if isinstance(node, ast.Tuple):
        return any(_is_broad(item) for item in node.elts)
    return node is None or ast.unparse(node) in BROAD


def _does_nothing(step: ast.stmt) -> bool:
    return isinstance(step, ast.Pass | ast.Continue) or (isinstance(step, ast.Expr) and isinstance(step.value, ast.Constant))


def no_silent_except(file: Source) -> Iterator[Fault]:
    """Nobody needs to know is an answer for one named exception, never for all of them."""
    for node in ast.walk(file.tree):
        if isinstance(node, ast.ExceptHandler) and _is_broad(node.type) and all(map(_does_nothing, node.body)):
            yield node.lineno, "a broad except that only passes: name the exception, or count and say it"
    for call, _, name in calls(file):
        if name == "suppress" and any(_is_broad(argument) for argument in call.args):
            yield call.lineno, "suppress() of everything: name the exception"


def module_docstrings(file: Source) -> Iterator[Fault]:
    """A file says in its first sentence what it is for."""
    if file.tree.body and ast.get_docstring(file.tree) is None:
        yield 1, "no module docstring: one sentence of purpose, then the rules of the file"


def public_docstrings(file: Source) -> Iterator[Fault]:
    """What others call says what it takes and gives; a private name and an overload need not."""
    if not file.module or any(part.startswith("_") for part in file.module.split(".")):
        return
    for node in file.tree.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        if any("overload" in ast.unparse(decorator) for decorator in node.decorator_list):
            continue
        if ast.get_docstring(node) is None:
            yield node.lineno, f"{node.name} is public and has no docstring"


def every_route_has_a_role(file: Source) -> Iterator[Fault]:
    """A door without a lock cannot be written down, nor one whose lock is decided at run time."""
    if not file.module:
        return
    for call, _, name in calls(file):
        if name != "Route":
            continue
        role = next((word.value for word in call.keywords if word.arg == "role"), None)
        if not (isinstance(role, ast.Constant) and role.value in ROLES):
            yield call.lineno, f"a Route needs role= one of {', '.join(sorted(ROLES))}, written out"
        if not within(file.module, ROUTE_TABLES):
            yield call.lineno, f"Route rows stand in {' and '.join(ROUTE_TABLES)} only"


def no_door_beside_the_table(file: Source) -> Iterator[Fault]:
    """Handlers reach aiohttp through the route table alone, so that the guard sees every door."""
    if not within(file.module, ("looseends_daemon", "looseends_dashboard")) or file.module == ROUTER:
        return
    for call, owner, name in calls(file):
        if name in ADDERS and "router" in owner or owner in ("web", "aiohttp.web") and name in WEB_VERBS:
            yield call.lineno, f"{owner}.{name}() goes round the route table: write a Route row"


def _prose(file: Source) -> Iterator[Fault]:
    """(line, text) of what a person reads: documents whole, docstrings of code."""
    if not file.path.endswith(".py"):
        yield from enumerate(file.text.splitlines(), 1)
        return
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=False)
            if text is not None:
                yield from enumerate(text.splitlines(), node.body[0].lineno)


def one_word_per_thing(file: Source) -> Iterator[Fault]:
    """One thing has one name, on every page."""
    if file.path == "tests/test_tidy.py":
        return
    for line, text in _prose(file):
        for pattern, word in SYNONYMS.items():
            found = re.search(rf"(?<![\w-]){pattern}(?![\w-])", text, re.IGNORECASE)
            if found:
                yield line, f'say "{word}" instead of "{found[0]}"'


def no_machine_paths(file: Source) -> Iterator[Fault]:
    """A path of somebody's machine means nothing on another."""
    if file.path == "tests/test_tidy.py":
        return
    for line, text in enumerate(file.text.splitlines(), 1):
        for found in MACHINE_PATHS.findall(text):
            yield line, f"{found} exists on one machine only"


RULES: dict[str, Callable[[Source], Iterator[Fault]]] = {
    rule.__name__: rule
    for rule in (
        import_directions,
        client_needs_nothing,
        pure_core,
        one_door_to_the_database,
        short_functions,
        short_files,
        no_dropped_task,
        loops_live_in_the_shell,
        no_silent_except,
        module_docstrings,
        public_docstrings,
        every_route_has_a_role,
        no_door_beside_the_table,
        one_word_per_thing,
        no_machine_paths,
    )
}


@pytest.mark.parametrize("rule", RULES)
def test_the_tree_keeps_the_rule(rule: str) -> None:
    faults = [f"{file.path}:{line}: {text}" for file in tree() for line, text in RULES[rule](file)]
    assert not faults, f"{RULES[rule].__doc__}\n  " + "\n  ".join(faults)


def test_the_tree_is_really_read() -> None:
    read = {file.module for file in tree()}
    assert {"looseends.wire", "looseends_daemon.core.resources", "looseends_dashboard"} <= read


CORE, HTTP, CLIENT = "daemon/looseends_daemon/core/x.py", "daemon/looseends_daemon/http/x.py", "client/looseends/x.py"
SERVICE, STORE, PAGES = (
    "daemon/looseends_daemon/services/x.py",
    "daemon/looseends_daemon/store/x.py",
    "dashboard/looseends_dashboard/routes.py",
)
LONG = "def long() -> None:\n" + "    x = 1\n" * FUNCTION_LINES_MAX

PLANTED = [
    ("import_directions", CORE, "from looseends_daemon.store import reads"),
    ("import_directions", CORE, "from ..store import reads"),
    ("import_directions", CORE, "def f():\n    import looseends.errors"),
    ("import_directions", CLIENT, "import looseends_daemon.core.facts"),
    ("import_directions", CLIENT, "from looseends_daemon import cli"),
    ("import_directions", HTTP, "from looseends_daemon.services import detector"),
    ("import_directions", SERVICE, "from looseends_daemon.notify import webhook"),
    ("import_directions", SERVICE, "from looseends import journal"),
    ("import_directions", "daemon/looseends_daemon/notify/x.py", "import looseends_daemon.http.api"),
    ("import_directions", STORE, "from looseends_daemon.app import run"),
    ("import_directions", HTTP, "import looseends_dashboard.routes"),
    ("import_directions", PAGES, "from looseends_daemon.store import reads"),
    ("client_needs_nothing", CLIENT, "import msgspec"),
    ("client_needs_nothing", CLIENT, "def f():\n    from aiohttp import web"),
    ("pure_core", CORE, "import time"),
    ("pure_core", CORE, "from os import path"),
    ("pure_core", CORE, "import datetime\nx = datetime.datetime.now()"),
    ("pure_core", CORE, "def f() -> str:\n    return uuid.uuid4()"),
    ("pure_core", "client/looseends/capture.py", "import threading"),
    ("one_door_to_the_database", SERVICE, "import sqlite3"),
    ("one_door_to_the_database", PAGES, "from aiosqlite import connect"),
    ("short_functions", CLIENT, LONG),
    ("short_files", CLIENT, "x = 1\n" * (FILE_LINES_MAX + 1)),
    ("no_dropped_task", CLIENT, "asyncio.create_task(f())"),
    ("no_dropped_task", CLIENT, "self.loop.create_task(f())"),
    ("no_dropped_task", CLIENT, "task_group.create_task(f())"),
    ("no_dropped_task", "examples/x.py", "ensure_future(f())"),
    ("loops_live_in_the_shell", SERVICE, "kept = asyncio.create_task(f())"),
    ("loops_live_in_the_shell", HTTP, "group.create_task(f())"),
    ("no_silent_except", CLIENT, "try:\n    f()\nexcept Exception:\n    pass"),
    ("no_silent_except", CLIENT, "try:\n    f()\nexcept:\n    'nobody cares'"),
    ("no_silent_except", CLIENT, "for x in y:\n    try:\n        f()\n    except (OSError, BaseException):\n        continue"),
    ("no_silent_except", CLIENT, "with contextlib.suppress(Exception):\n    f()"),
    ("module_docstrings", CLIENT, "x = 1"),
    ("public_docstrings", CLIENT, "def shown() -> None:\n    f()"),
    ("public_docstrings", CLIENT, "class Shown:\n    x = 1"),
    ("every_route_has_a_role", HTTP, "Route(method='GET', path='/x', handler=h)"),
    ("every_route_has_a_role", HTTP, "Route(method='GET', path='/x', role='everybody', handler=h)"),
    ("every_route_has_a_role", HTTP, "Route(method='GET', path='/x', role=role, handler=h)"),
    ("every_route_has_a_role", SERVICE, "Route(method='GET', path='/x', role='viewer', handler=h)"),
    ("no_door_beside_the_table", HTTP, "app.router.add_get('/x', h)"),
    ("no_door_beside_the_table", PAGES, "app.add_routes([web.get('/x', h)])"),
    ("one_word_per_thing", "docs/x.md", "Press the button to re-run the task."),
    ("one_word_per_thing", CLIENT, '"""Finds zombie tasks."""'),
    ("no_machine_paths", "docs/x.md", "see /root/looseends/notes"),
    ("no_machine_paths", CLIENT, "PATH = '/home/ada/spool'"),
]
INNOCENT = [
    ("import_directions", CORE, "from looseends.wire import NS\nfrom looseends_daemon.core import facts\nfrom . import stats"),
    ("import_directions", "client/looseends/cli.py", "from looseends_daemon.cli import main"),
    ("import_directions", "daemon/looseends_daemon/services/adopter.py", "from looseends.journal import adopt"),
    ("import_directions", "daemon/looseends_daemon/app.py", "import looseends_dashboard.routes"),
    ("import_directions", PAGES, "from looseends_daemon.core.resources import Task"),
    ("client_needs_nothing", CLIENT, "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import starlette"),
    ("client_needs_nothing", "client/looseends/integrations/starlette.py", "def f():\n    import starlette"),
    ("pure_core", CORE, "import hashlib, re, datetime\nx = datetime.timedelta(1)"),
    ("pure_core", SERVICE, "import time"),
    ("one_door_to_the_database", STORE, "import sqlite3"),
    ("one_door_to_the_database", SERVICE, "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import sqlite3"),
    ("short_functions", CLIENT, LONG.removesuffix("    x = 1\n")),
    ("no_dropped_task", CLIENT, "kept.add(asyncio.create_task(f()))"),
    ("no_dropped_task", CLIENT, "async def f():\n    async with asyncio.TaskGroup() as group:\n        group.create_task(g())"),
    ("loops_live_in_the_shell", SERVICE, "def f(group: asyncio.TaskGroup):\n    group.create_task(g())"),
    ("loops_live_in_the_shell", "daemon/looseends_daemon/services/shell.py", "kept = asyncio.create_task(f())"),
    ("no_silent_except", CLIENT, "try:\n    f()\nexcept KeyError:\n    pass"),
    ("no_silent_except", CLIENT, "try:\n    f()\nexcept Exception:\n    counted += 1"),
    ("module_docstrings", "client/looseends/__init__.py", ""),
    ("public_docstrings", CLIENT, "def _private() -> None:\n    f()"),
    ("every_route_has_a_role", HTTP, "Route(method='GET', path='/x', role='viewer', handler=h)"),
    ("no_door_beside_the_table", "daemon/looseends_daemon/http/server.py", "app.router.add_route('GET', '/x', h)"),
    ("no_door_beside_the_table", HTTP, "self.requests.get('x')"),
    ("one_word_per_thing", "docs/x.md", "Two runs of one task; prerun; rerunner."),
    ("no_machine_paths", "docs/x.md", "https://example.org/home/ada/x and $XDG_STATE_HOME/looseends"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "path", "text"), PLANTED)
def test_a_planted_fault_is_found(rule: str, path: str, text: str) -> None:
    assert list(RULES[rule](source(path, text)))


@pytest.mark.parametrize(("rule", "path", "text"), INNOCENT)
def test_what_is_allowed_is_left_in_peace(rule: str, path: str, text: str) -> None:
    assert not list(RULES[rule](source(path, text)))


def test_every_rule_has_a_planted_fault() -> None:
    assert {rule for rule, _, _ in PLANTED} == set(RULES)
