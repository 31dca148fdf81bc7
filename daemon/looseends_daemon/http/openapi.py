"""GET /api/v1/openapi.json: the API as an OpenAPI 3.1 document, made from the route table, http/doors.py and the types answered.

Rules: a time is an RFC 3339 string in answers, as `resources.encode` writes it; every refusal is `application/problem+json`; the
role of a door stands in `x-role`. The document is made once, at the first request.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from aiohttp import web

from looseends_daemon.core.routing import Route
from looseends_daemon.http.answers import json_response, only_known
from looseends_daemon.http.doors import API, ROOT, TIME, Door

PREFIX = "/api/v1"
REF = "#/components/schemas/{name}"
PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
}
LIMIT = {"type": "integer", "minimum": 1, "maximum": 500, "default": 50}
IDEMPOTENCY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": True,
    "description": "any token of your own; the same key and body give the first answer again, for 24 hours",
    "schema": {"type": "string", "minLength": 8, "maxLength": 200, "pattern": "^[!-~]+$"},
}
_HOLE = re.compile(r"\{(\w+)\}")


def route(table: list[Route], version: str) -> Route:
    """The door of the document. `table` may still grow until the first request."""
    made: list[dict[str, Any]] = []

    async def openapi(request: web.Request) -> web.Response:
        only_known(request)
        if not made:
            made.append(document(table, version))
        return json_response(made[0])

    return Route(method="GET", path=f"{PREFIX}/openapi.json", role="viewer", handler=openapi, local=True)


def described(routes: list[Route]) -> list[tuple[Route, Door]]:
    """Every route that is not a page or a file of one, with what is said of it. Raises KeyError for one that nobody described."""
    found = []
    for one in routes:
        if one.page or one.path.startswith("/static/"):
            continue
        under = one.path.startswith(PREFIX)
        table, path = (API, one.path.removeprefix(PREFIX)) if under else (ROOT, one.path)
        found.append((one, table[f"{one.method} {path}"]))
    return found


def document(routes: list[Route], version: str) -> dict[str, Any]:
    """The whole document. Raises KeyError for a route that nobody described."""
    doors = described(routes)
    types = {kind for _, door in doors for kind in (door.answer, *(kind for _, kind in door.also)) if isinstance(kind, type)}
    _, components = msgspec.json.schema_components(sorted(types, key=lambda kind: kind.__name__), ref_template=REF)
    schemas = {name: _as_sent(schema) for name, schema in components.items()}
    paths: dict[str, dict[str, Any]] = {}
    for one, door in doors:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, door)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "looseends",
            "version": version,
            "description": "Accounts for background work: tasks, the gap, incidents, replays.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": {**schemas, "Problem": PROBLEM},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _operation(one: Route, door: Door) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in _HOLE.findall(one.path)
    ]
    parameters += [{"name": name, "in": "query", "schema": _of_query(name)} for name in door.query]
    if one.acts:
        parameters.append(IDEMPOTENCY)
    answers = {str(status): _answer(kind, door) for status, kind in ((door.status, door.answer), *door.also)}
    for status, told in answers.items():
        if int(status) >= 400:
            told["content"]["application/problem+json"] = {"schema": _ref("Problem")}
    problem = {"description": "refused, with the way out", "content": {"application/problem+json": {"schema": _ref("Problem")}}}
    operation: dict[str, Any] = {
        "operationId": _name(one),
        "summary": door.summary,
        "x-role": one.role,
        "parameters": parameters,
        "responses": {**answers, "default": problem},
    }
    if one.role == "open":
        operation["security"] = []
    elif one.local or one.role == "ingest":
        operation["security"] = [{}, {"token": []}]  # on this host without a token, unless the configuration asks for one
    body = door.body if door.body is not None else _members(door)
    if body is not None:
        operation["requestBody"] = {"required": bool(door.must), "content": {"application/json": {"schema": body}}}
    return operation


def _members(door: Door) -> dict[str, Any] | None:
    if door.takes is None:
        return None
    return {"type": "object", "properties": door.takes, "required": list(door.must), "additionalProperties": False}


def _of_query(name: str) -> dict[str, Any]:
    known: dict[str, dict[str, Any]] = {"limit": LIMIT, "from": TIME, "to": TIME}
    return known.get(name, {"type": "string"})


def _answer(kind: Any, door: Door) -> dict[str, Any]:
    if kind is None:
        return {"description": door.summary, "content": {door.media: {"schema": {"type": "string"}}}}
    schema: dict[str, Any] = _ref(kind.__name__) if isinstance(kind, type) else kind
    if door.many:
        items = {"items": {"type": "array", "items": schema}, "next_cursor": {"type": ["string", "null"]}}
        schema = {"type": "object", "required": ["items", "next_cursor"], "properties": items}
    return {"description": door.summary, "content": {"application/json": {"schema": schema}}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": REF.format(name=name)}


def _name(one: Route) -> str:
    words = re.findall(r"[A-Za-z0-9]+", one.path.removeprefix(PREFIX)) or ["routes"]
    return one.method.lower() + "".join(word.capitalize() for word in words)


def _as_sent(schema: Any, name: str = "") -> Any:
    """A type's schema as `resources.encode` sends it: integers that are times become RFC 3339 texts."""
    if isinstance(schema, list):
        return [_as_sent(one, name) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") == "integer" and (name in ("at", "from", "to") or name.endswith("_at")):
        return {"type": "string", "format": "date-time"}
    if "properties" in schema:
        members = {member: _as_sent(one, member) for member, one in schema["properties"].items()}
        return {**{k: v for k, v in schema.items() if k != "default"}, "properties": members}
    return {key: _as_sent(one, name) for key, one in schema.items() if key != "default"}
