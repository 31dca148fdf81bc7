"""Writes docs/reference.md: every door and type of the API, from the OpenAPI document that the daemon serves.

    .venv/bin/python docs/site/reference.py

Rules: nothing stands on the page that is not in the document; tests/daemon/http/test_reference.py holds the page to it.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[1] / "reference.md"
PREFIX = "/api/v1"
HEAD = """# Every door and type

Made from the daemon's own OpenAPI document (`GET /api/v1/openapi.json`) by `docs/site/reference.py`. Everything under
`/api/v1` is in JSON; [the HTTP API](api.md) says what holds for all of it: roles, errors, times, cursors. Whatever is refused
is a `Problem`.
"""


async def served() -> dict[str, Any]:
    """The document of a daemon that runs for it alone."""
    import aiohttp

    from looseends_daemon import config
    from looseends_daemon.app import running

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.toml"
        file.write_text(f'[server]\nlisten = ["127.0.0.1:0"]\n[storage]\npath = "{folder}/d.db"\n')
        async with running(config.load(str(file), {"XDG_STATE_HOME": folder})) as daemon, aiohttp.ClientSession() as http:
            assert daemon.listener is not None
            async with http.get(f"{daemon.listener.addresses[0]}{PREFIX}/openapi.json") as answer:
                answer.raise_for_status()
                document: dict[str, Any] = await answer.json()
                return document


def page(document: dict[str, Any]) -> str:
    """The whole page."""
    doors: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        bare = path.removeprefix(PREFIX) if path.startswith(PREFIX) else path
        topic = bare.strip("/").split("/")[0] or "/"
        for method, operation in methods.items():
            doors.setdefault(topic, []).append("\n".join(door(method.upper(), path, operation)))
    lines = [HEAD]
    for topic in sorted(doors):
        lines += [f"## {topic}\n", *doors[topic]]
    lines.append("## Types\n")
    for name, schema in sorted(document["components"]["schemas"].items()):
        lines += type_(name, schema)
    return "\n".join(lines).rstrip() + "\n"


def door(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    """One door: what it is for, who may, what it takes and answers."""
    yield f"### `{method} {path}`\n"
    who = "open to everybody" if operation["x-role"] == "open" else f"role *{operation['x-role']}*"
    yield f"{operation['summary']} ({who})\n"
    rows = [row(p["name"], p["schema"], p["in"], p.get("required", False)) for p in operation["parameters"]]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if body is not None:
        must = body.get("required", [])
        members = body.get("properties", {})
        rows += [row(name, schema, "body", name in must) for name, schema in members.items()]
        rows += [] if members else [f"| | {kind(body)} | body | |"]
    if rows:
        yield "| takes | | in | |\n|---|---|---|---|"
        yield from rows
        yield ""
    answers = "; ".join(f"{status}: {forms(told)}" for status, told in operation["responses"].items() if status != "default")
    yield f"Answers {answers}.\n"


def forms(answer: dict[str, Any]) -> str:
    """What an answer is, in each of its forms."""
    return " or ".join(kind(told["schema"]) + media(name) for name, told in answer["content"].items())


def media(name: str) -> str:
    """A form of an answer, where it is not JSON."""
    return "" if name.endswith("json") else f" (`{name}`)"


def row(name: str, schema: dict[str, Any], where: str, must: bool) -> str:
    """One line of what a door takes."""
    return f"| `{name}` | {kind(schema)} | {where} | {'required' if must else ''} |"


def type_(name: str, schema: dict[str, Any]) -> Iterator[str]:
    """One type and its members."""
    yield f"### {name}\n"
    told = schema.get("description")
    if told:
        yield re.sub(r"\s+", " ", told) + "\n"
    members = schema.get("properties", {})
    if not members:
        yield f"{kind(schema)}\n"
        return
    yield "| member | |\n|---|---|"
    yield from (f"| `{member}` | {kind(one)} |" for member, one in members.items())
    yield ""


def kind(schema: dict[str, Any]) -> str:
    """A schema in words; a named type as a link."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(kind(one) for one in schema[several]))
    words = schema.get("type", "anything")
    if isinstance(words, list):
        return " or ".join(kind({**schema, "type": one}) for one in words)
    if words == "array":
        return f"list of {kind(schema.get('items', {}))}"
    if words == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {kind(schema['additionalProperties'])}"
    if words == "object" and {"items", "next_cursor"} == set(schema.get("properties", {})):
        return f"list of {kind(schema['properties']['items']['items'])}, with `next_cursor`"
    return {"date-time": "time", "uuid": "UUID"}.get(schema.get("format", ""), str(words))


def main() -> int:
    """Write the page."""
    PAGE.write_text(page(asyncio.run(served())), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
