"""`looseends instrument`: capture in a Python program without a change to it, its workers and reloads included.

Rules: the program is begun in our place (same process, same streams, same signals) with a folder of ours first in PYTHONPATH;
its interpreter runs `autostart/sitecustomize.py` from there, and so does every one it begins in turn. No library is imported for
this: a system is installed at the moment the program itself has imported its library. What cannot be installed is one line
on standard error, and the program goes on.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from . import launch, options
from .errors import UsageError
from .task import AHEAD, INTEGRATIONS, install

VARIABLE = "LOOSEENDS_INSTRUMENT"
ALL = "all"
AUTOSTART = f"{os.path.dirname(os.path.abspath(__file__))}/autostart"
HELP = """\
usage: looseends instrument [OPTIONS] [--] PROGRAM [ARGS...]

Run a Python program with capture and no change to it: what it starts with create_task, BackgroundTasks, threads or a queue
is recorded. It reaches worker processes and reloads too. Replay needs one line in the code per function: looseends.register.

  --only SYSTEMS          capture these alone, such as asyncio,starlette; default: every library that the program imports
  --service NAME          default: LOOSEENDS_SERVICE, else the program's name
  --environment NAME      default: LOOSEENDS_ENVIRONMENT, else production

examples:
  looseends instrument --service shop-web -- uvicorn shop:app --workers 2
  looseends instrument -- python -m worker
  looseends instrument --only celery -- celery -A shop worker

exit codes: the program's own; 2 wrong usage, 126 it cannot be run, 127 there is no such program"""


class Library(NamedTuple):
    """What a system captures: the module after whose import it can be installed, and its distribution (empty: part of Python)."""

    module: str
    distribution: str = ""


LIBRARIES = {
    "asyncio": Library("asyncio"),
    "threading": Library("threading"),
    "futures": Library("concurrent.futures"),
    "multiprocessing": Library("multiprocessing"),
    "starlette": Library("starlette.applications", "starlette"),
    "celery": Library("celery", "celery"),
    "arq": Library("arq", "arq"),
    "rq": Library("rq", "rq"),
    "dramatiq": Library("dramatiq", "dramatiq"),
    "huey": Library("huey", "huey"),
}


def library(system: str) -> Library:
    """The library of a system; one without a row here is called like its system."""
    return LIBRARIES.get(system) or Library(system, system)


# --- in the shell: become the program -----------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    """Run `looseends instrument`: become the program. -> exit code, where that cannot be. Raises UsageError."""
    found, program = options.split("instrument", arguments, ("--only", "--service", "--environment"))
    if not program or not program[0]:
        raise UsageError("looseends instrument: which program? looseends instrument -- uvicorn shop:app")
    systems = chosen(options.one(found, "--only", "instrument"))
    env = environment(os.environ, systems)
    for option, name in (("--service", "LOOSEENDS_SERVICE"), ("--environment", "LOOSEENDS_ENVIRONMENT")):
        value = options.one(found, option, "instrument")
        if value is not None:
            env[name] = value
    command = runnable(program)
    if ignores_us(command):
        print(f"looseends: {command[0]} was told to ignore PYTHONPATH (-I, -E or -S): nothing is captured", file=sys.stderr)
    try:
        launch.become(command, env, launch.Held(set(signal.pthread_sigmask(signal.SIG_BLOCK, [])), False))
    except OSError as error:
        print(f"looseends: {command[0]}: {error.strerror}", file=sys.stderr)
        return launch.NOT_FOUND if isinstance(error, FileNotFoundError | NotADirectoryError) else launch.NOT_RUNNABLE


def chosen(only: str | None) -> str:
    """What VARIABLE says: ALL, or names of systems with commas between. Raises UsageError."""
    if only is None:
        return ALL
    names = [name.strip() for name in only.split(",") if name.strip()]
    for name in names:
        if name not in INTEGRATIONS:
            raise UsageError(f"looseends instrument: --only: {options.unknown(name, tuple(INTEGRATIONS))}")
    if not names:
        raise UsageError(f"looseends instrument: --only names systems; allowed are {', '.join(INTEGRATIONS)}")
    return ",".join(names)


def environment(environ: Mapping[str, str], systems: str) -> dict[str, str]:
    """The environment in which every Python begins with our file."""
    others = [path for path in environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != AUTOSTART]
    return {**environ, "PYTHONPATH": os.pathsep.join([AUTOSTART, *others]), VARIABLE: systems}


def runnable(program: Sequence[str]) -> list[str]:
    """The program; a script that is not executable is run by this Python."""
    name = program[0]
    if name.endswith(".py") and os.path.isfile(name) and not os.access(name, os.X_OK):
        return [sys.executable, *program]
    return list(program)


def ignores_us(command: Sequence[str]) -> bool:
    """Whether this is a Python that was told not to look at PYTHONPATH, or not to run `sitecustomize`."""
    if not os.path.basename(command[0]).startswith(("python", "pypy")):
        return False
    for word in command[1:]:
        if not word.startswith("-") or word.startswith("--") or word == "-":
            return False
        if any(letter in word for letter in "IES") and not word.startswith(("-c", "-m", "-W", "-X")):
            return True
        if word.startswith(("-c", "-m")):
            return False
    return False


# --- in the program: install what appears -------------------------------------------------------------------------


def begin() -> None:
    """Install every wanted system whose library is there, and the others when theirs appears. Raises nothing of theirs."""
    wanted = os.environ.get(VARIABLE, "")
    systems = list(INTEGRATIONS) if wanted == ALL else [name for name in wanted.split(",") if name]
    waiting: dict[str, list[str]] = {}
    for system in systems:
        if system not in INTEGRATIONS:
            _say(system, "this looseends does not know it")
        elif library(system).module in sys.modules:
            _install(system)
        else:
            waiting.setdefault(library(system).module, []).append(system)
    if waiting:
        sys.meta_path.insert(0, _Watch(waiting))


def _install(system: str) -> None:
    try:
        install(system)
        AHEAD.add(system)
    except Exception as error:  # noqa: BLE001 - a system that cannot be captured must not stop the program that uses it
        _say(system, f"{type(error).__name__}: {error}")


def _say(system: str, why: str) -> None:
    try:
        sys.stderr.write(f"looseends: {system} is not captured: {why}\n")
    except (OSError, ValueError, AttributeError):  # standard error is closed
        return


class _Watch:
    """A finder that finds nothing itself: it has the others find, and learns when a library was imported."""

    def __init__(self, waiting: dict[str, list[str]]) -> None:
        self._waiting = waiting

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """What the other finders say; for a library we wait for, with a loader that tells us."""
        if name not in self._waiting:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find is not None and finder is not self else None
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Watched(spec.loader, lambda: self._imported(name))
                return spec
        return None

    def _imported(self, name: str) -> None:
        for system in self._waiting.pop(name, ()):
            _install(system)
        if not self._waiting and self in sys.meta_path:
            sys.meta_path.remove(self)


class _Watched:
    """A loader that steps aside before its module runs, and says when that is done."""

    def __init__(self, loader: Any, imported: Callable[[], None]) -> None:
        self._loader, self._imported = loader, imported

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: Any) -> Any:
        """As the real loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        """Run the module as the real loader does; to the module it is as if we had never been there."""
        module.__loader__ = module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._imported()
