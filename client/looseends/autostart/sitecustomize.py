"""Runs at the start of every Python that `looseends instrument` began: turns capture on, then makes way for the next one.

Rules: this folder stands first in PYTHONPATH, so the interpreter finds this file instead of the `sitecustomize` that it would
have found; that one runs right after, as if this were not here, and its errors are its own. Whatever goes wrong here is one
line on standard error: the program runs as it would have run. Any version of Python 3 may come by.
"""

import importlib
import importlib.util
import os
import sys

FOLDER = os.path.dirname(os.path.abspath(__file__))


def _begin() -> None:
    """Turn capture on."""
    try:
        if sys.version_info < (3, 11):  # noqa: UP036 - not every Python that comes by is one of ours
            raise RuntimeError("it needs Python 3.11 or newer")
        _load(os.path.dirname(FOLDER))
        importlib.import_module("looseends.instrument").begin()
    except Exception as error:  # noqa: BLE001 - the program must not be the one to suffer
        version = "%d.%d" % sys.version_info[:2]  # noqa: UP031 - this line must be read by every Python 3
        sys.stderr.write("looseends: nothing is captured in this Python %s: %s\n" % (version, error))  # noqa: UP031


def _load(package: str) -> None:
    """Have `looseends` in this interpreter: its own, else the one this file belongs to (its folder alone, nothing beside it)."""
    if importlib.util.find_spec("looseends") is None:
        path = os.path.join(package, "__init__.py")
        spec = importlib.util.spec_from_file_location("looseends", path, submodule_search_locations=[package])
        if spec is None or spec.loader is None:
            raise RuntimeError(path + " cannot be loaded")
        module = importlib.util.module_from_spec(spec)
        sys.modules["looseends"] = module
        spec.loader.exec_module(module)


def _make_way() -> None:
    """Run the `sitecustomize` that this one stands before, if there is one. Raises what it raises."""
    mine = sys.modules.pop("sitecustomize")
    sys.path[:] = [path for path in sys.path if path != FOLDER]
    try:
        importlib.import_module("sitecustomize")
    except ImportError as error:
        if error.name != "sitecustomize":
            raise
        sys.modules["sitecustomize"] = mine


if __name__ == "sitecustomize":
    _begin()
    _make_way()
