"""A task to take along: as a Python call and as a pytest file.

Rules: what was redacted or could not be recorded becomes `...` with a comment, never a made-up value; the text is valid Python
whatever was recorded; nothing in it runs by being looked at. Who imports from where is a guess from the name, and says so.
"""

from __future__ import annotations

import ast
import itertools
import keyword
import re
from typing import Any

from looseends_daemon.core.resources import Task
from looseends_dashboard import words
from looseends_dashboard.tree import TAG

CALL_CHARS_MAX = 20_000
_INDENT = "    "
_WRAPPED = {"tuple": ("(", ",)"), "set": ("{", "}"), "frozenset": ("frozenset({", "})"), "list": ("[", "]")}
_BUILT = {"uuid": "UUID", "decimal": "Decimal", "date": "date.fromisoformat", "datetime": "datetime.fromisoformat"}
_BUILT |= {"time": "time.fromisoformat", "path": "Path", "int": "int", "float": "float"}
_IMPORTS = {
    "UUID(": "from uuid import UUID",
    "Decimal(": "from decimal import Decimal",
    "Path(": "from pathlib import Path",
    "date.fromisoformat(": "from datetime import date",
    "datetime.fromisoformat(": "from datetime import datetime",
    "time.fromisoformat(": "from datetime import time",
}


def as_python(task: Task) -> str:
    """The call that was recorded."""
    module, name = _where(task.name)
    call = _call(name, task.args)
    return "\n".join([*_imports(call), *_own_import(module, name), "", call, ""])


def as_pytest(task: Task) -> str:
    """A test that makes the recorded call, to see the failure on one's own machine."""
    module, name = _where(task.name)
    call = _call(name, task.args)
    inside = "\n".join(_INDENT + line for line in call.split("\n"))
    words_of = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "task"
    said = _comment(f"Task {task.id} of {task.service}: {task.verdict or task.state}")
    head = [said, *_imports(call), *_own_import(module, name), "", ""]
    return "\n".join([*head, f"def test_{words_of}_with_the_recorded_arguments():", inside, ""])


def _where(name: str) -> tuple[str, str]:
    """Module and function as the name suggests them."""
    parts = [part for part in name.split(".") if part]
    fine = bool(parts) and all(part.isidentifier() and not keyword.iskeyword(part) for part in parts) and len(name) <= 200
    if not fine:
        return "", "the_function"
    return ".".join(parts[:-1]), parts[-1]


def _own_import(module: str, name: str) -> list[str]:
    """The function's own import; a guess, since a name may be anything."""
    if not module:
        return [f"from your_module import {name}  # a guess: the task's name does not say where it lives"]
    return [f"from {module} import {name}  # a guess from the task's name"]


def _imports(call: str) -> list[str]:
    return sorted(line for sign, line in _IMPORTS.items() if re.search(rf"(?<![\w.]){re.escape(sign)}", call))


def _call(name: str, args: Any) -> str:
    given = args if isinstance(args, dict) and TAG not in args else {} if args is None else {"args": args}
    lines = []
    for key, value in itertools.islice(given.items(), 200):
        text, why = _value(value, 0)
        note = f"  {_comment(why)}" if why else ""
        plain = key.isidentifier() and not keyword.iskeyword(key)
        lines.append(f"{_INDENT}{key}={text},{note}" if plain else f"{_INDENT}**{{{_literal(key)}: {text}}},{note}")
    call = f"{name}()" if not lines else "\n".join([f"{name}(", *lines, ")"])
    if len(call) <= CALL_CHARS_MAX and _is_python(call):
        return call
    return f"{name}(\n{_INDENT}...,  # its arguments are too large for a snippet: they are in the JSON\n)"


def _is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _comment(text: str) -> str:
    return "# " + words.short(words.visible(text.replace("\r", " ").replace("\x0c", " ")), 120)


def _literal(value: Any) -> str:
    """A plain value as Python writes it; odd characters as escapes, so that it can be copied unchanged."""
    return ascii(value) if isinstance(value, str) and words.visible(value) != value else repr(value)


def _value(value: Any, depth: int) -> tuple[str, str]:
    """(Python, why it is not all of it)."""
    if depth > 20:
        return "...", "nested too deep"
    if isinstance(value, dict) and isinstance(value.get(TAG), str):
        return _tagged(value, depth)
    if isinstance(value, dict):
        return _joined("{", [(_literal(key) + ": ", item) for key, item in value.items()], "}", depth)
    if isinstance(value, list):
        return _joined("[", [("", item) for item in value], "]", depth)
    return _literal(value), ""


def _joined(begin: str, items: list[tuple[str, Any]], end: str, depth: int) -> tuple[str, str]:
    texts, whys = [], []
    for before, item in items:
        text, why = _value(item, depth + 1)
        texts.append(before + text)
        whys.append(why)
    if not items:
        return begin + end.lstrip(","), ""
    return begin + ", ".join(texts) + end, next((why for why in whys if why), "")


def _tagged(value: dict[str, Any], depth: int) -> tuple[str, str]:
    """What the client wrote where JSON has no word for it."""
    tag, held = value[TAG], value.get("v")
    if tag == "redacted":
        return "...", "redacted before it left the process: put the real value here"
    if tag in _BUILT and isinstance(held, str):
        return f"{_BUILT[tag]}({_literal(held)})", ""
    if tag in _WRAPPED and isinstance(held, list):
        begin, end = _WRAPPED[tag]
        if not held and tag in ("set", "frozenset"):
            return f"{tag}()", ""
        return _joined(begin, [("", item) for item in held], end, depth)
    name = words.short(str(value.get("class") or tag), 80)
    return "...", f"{name}: not plain data" + (f", {words.short(str(value['why']), 80)}" if value.get("why") else "")
