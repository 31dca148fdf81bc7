"""Nothing is left out of the documents: every route, setting, event field and command, no link that leads nowhere.

What has to be named is read from the code, so that a new one without a word about it fails here.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import urllib.parse
from typing import Any
from unittest.mock import MagicMock

from harness import ROOT
from looseends import wire
from test_docs import FENCE, documents, looseends_script


def prose() -> str:
    """All that somebody wrote as one text, placeholders made equal: `/tasks/{id}` and `/tasks/{task}` are the same path."""
    written = [text for path, text in documents().items() if path != "docs/reference.md"]
    return re.sub(r"\{\w+(?::[^}]*)?\}", "{}", "\n".join(written))


def routes() -> list[Any]:
    """Every row of the route tables. They are only listed, never asked, so a stand-in serves for what they hold."""
    folder = ROOT / "daemon/looseends_daemon/http"
    modules = [f"looseends_daemon.http.{path.stem}" for path in sorted(folder.glob("[a-z]*.py"))]
    found = []
    for name in [*modules, "looseends_dashboard.routes"]:
        module = importlib.import_module(name)
        made = getattr(module, "api_routes" if name.endswith(".api") else "routes", None)
        if callable(made) and made.__module__ == name:
            found += made(MagicMock())
    return found


def is_named(method: str, path: str, text: str) -> bool:
    """Whether some line names this door: the method, then the path (`/api/v1` may be left out)."""
    bare = re.sub(r"\{\w+(?::[^}]*)?\}", "{}", path).removeprefix("/api/v1")
    door = rf"\b{method}\b[^\n]*(?<![\w}}])(?:/api/v1)?{re.escape(bare)}(?![\w/{{])"
    return re.search(door, text) is not None


def test_every_route_is_named() -> None:
    text = prose()
    found = routes()
    assert len(found) > 20, "the route tables were not found"
    missing = [f"{route.method} {route.path}" for route in found if not is_named(route.method, route.path, text)]
    assert not missing, "not named in any document:\n  " + "\n  ".join(missing)


def test_a_route_that_is_only_part_of_another_is_not_named() -> None:
    text = "`POST /tasks/{}/replay` and `GET /tasks`"
    assert is_named("POST", "/api/v1/tasks/{id}/replay", text) and is_named("GET", "/tasks", text)
    assert not is_named("GET", "/api/v1/tasks/{id}", text) and not is_named("POST", "/replay", text)


def test_every_setting_is_named() -> None:
    from looseends_daemon.config.declared import tables

    text = documents()["docs/configuration.md"]
    missing = [
        f"{table.name}.{setting.name}"
        for table in tables()
        for setting in table.settings
        if f"[{table.name}]" not in text or re.search(rf"(?<!\w){setting.name}(?!\w)", text) is None
    ]
    assert not missing, f"docs/configuration.md does not name {', '.join(missing)}"


def test_every_event_and_every_field_of_it_is_named() -> None:
    text = prose()
    words = {*wire.TYPES, *(field for fields in wire.FIELDS.values() for field in fields)}
    words |= {*wire.CANCEL_REASONS, *wire.DROP_REASONS}
    missing = sorted(word for word in words if re.search(rf'[`"| ]{word}[`"| ,:]', text) is None)
    assert not missing, f"no document names {', '.join(missing)}"


def commands() -> list[str]:
    """Every command that `looseends --help` lists."""
    done = subprocess.run([looseends_script(), "--help"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    listed = re.findall(r"^    ([a-z-]+) +\S", done.stdout, re.MULTILINE)
    assert {"serve", "exec", "replay", "version"} <= set(listed), f"no list of commands in:\n{done.stdout}"
    return listed


def test_every_command_is_named() -> None:
    text = "\n".join(documents().values())
    missing = [name for name in commands() if re.search(rf"looseends {name}\b", text) is None]
    assert not missing, f"no document names looseends {', '.join(missing)}"


def test_every_link_inside_the_documents_leads_somewhere() -> None:
    broken = []
    for path, text in documents().items():
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", FENCE.sub("", text)):
            if not urllib.parse.urlsplit(target).scheme and not (ROOT / path).parent.joinpath(target).exists():
                broken.append(f"{path}: {target}")
    assert not broken, "\n".join(broken)


def test_every_target_of_make_is_listed_by_help() -> None:
    makefile = (ROOT / "Makefile").read_text()
    declared = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert declared is not None
    listed = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    assert set(declared[1].split()) == listed
