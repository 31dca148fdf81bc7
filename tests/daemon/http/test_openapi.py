"""The OpenAPI document: valid, whole, and true of what the daemon really answers."""

from __future__ import annotations

import json
import re
import sys
import uuid
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import jsonschema
import pytest
from openapi_spec_validator import validate

import harness
from looseends_daemon.core.routing import Route
from looseends_daemon.http import openapi
from looseends_daemon.http.doors import API, ROOT


class Served:
    """A running daemon with a little past, asked as its operator."""

    def __init__(self, address: str, token: str) -> None:
        self.address, self.token = address, token
        self.document: dict[str, Any] = self.ask("GET", "/api/v1/openapi.json")[1]

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any, str]:
        """(status, decoded answer, content type)."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": uuid.uuid4().hex}
        if path != "/api/v1/events":  # an operator's token is never a service's
            headers["Authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body).encode()
        try:
            with urlopen(Request(self.address + path, data, headers, method=method), timeout=20) as answer:
                status, raw, kind = answer.status, answer.read(), answer.headers.get_content_type()
        except HTTPError as error:
            status, raw, kind = error.code, error.read(), error.headers.get_content_type()
        return status, json.loads(raw) if kind.endswith("json") else raw, kind

    def check(self, method: str, template: str, path: str, body: Any = None) -> int:
        """Ask, and hold the answer to the document."""
        status, answer, kind = self.ask(method, path, body)
        said = self.document["paths"][template][method.lower()]["responses"]
        told = said.get(str(status), said["default"])
        assert kind in told["content"], f"{method} {path}: {status} came as {kind}, not {list(told['content'])}"
        schema = {**told["content"][kind]["schema"], "components": self.document["components"]}
        if kind.endswith("json"):
            jsonschema.validate(answer, schema, format_checker=jsonschema.FormatChecker())
        return status


@pytest.fixture
def served(processes: harness.Processes, state_dir: Path, port: int) -> Served:
    """The daemon, one succeeded and one failed task, one incident."""
    db = state_dir / "d.db"
    daemon = processes.start(sys.executable, "-m", "looseends.cli", "serve", "--listen", f"127.0.0.1:{port}", "--db", str(db))
    daemon.wait_for("sign-in")
    made = Served(f"http://127.0.0.1:{port}", (state_dir / "d.db.token").read_text().strip())
    events = [
        {
            "type": "started",
            "task": str(uuid.UUID(int=n, version=4)),
            "name": "mail.send",
            "service": "shop-web",
            "key": "k",
            "args": {"n": n},
        }
        for n in (1, 2)
    ]
    events.append({"type": "finished", "task": str(uuid.UUID(int=1, version=4))})
    events.append({"type": "failed", "task": str(uuid.UUID(int=2, version=4)), "error": {"type": "E", "message": "m"}})
    assert made.check("POST", "/api/v1/events", "/api/v1/events", events) == 200
    harness.wait_until(lambda: made.ask("GET", "/api/v1/incidents")[1]["items"], "the incident", 20)
    return made


def test_the_document_is_valid_openapi(served: Served) -> None:
    validate(served.document)
    assert served.document["openapi"] == "3.1.0"


def test_every_list_and_every_single_thing_is_as_the_document_says(served: Served) -> None:
    lists = [
        path for path, verbs in served.document["paths"].items() if "get" in verbs and "{" not in path and "stream" not in path
    ]
    assert len(lists) > 15
    for path in lists:
        assert served.check("GET", path, path) == 200, path
    one = {
        "tasks": str(uuid.UUID(int=2, version=4)),
        "incidents": served.ask("GET", "/api/v1/incidents")[1]["items"][0]["id"],
    }
    for what, ident in one.items():
        assert served.check("GET", f"/api/v1/{what}/{{id}}", f"/api/v1/{what}/{ident}") == 200
    assert served.check("GET", "/api/v1/tasks/{id}/history", f"/api/v1/tasks/{one['tasks']}/history") == 200
    assert served.check("GET", "/api/v1/types/{service}/{name}", "/api/v1/types/shop-web/mail.send") == 200


def test_acts_answer_as_the_document_says(served: Served) -> None:
    incident = served.ask("GET", "/api/v1/incidents")[1]["items"][0]["id"]
    acknowledge = "/api/v1/incidents/{id}/acknowledge"
    assert served.check("POST", acknowledge, acknowledge.format(id=incident), {"note": "on it"}) == 200
    silence = {"matchers": ["service=shop-web"], "duration": 60, "comment": "c"}
    assert served.check("POST", "/api/v1/silences", "/api/v1/silences", {**silence, "dry_run": True}) == 200
    assert served.check("POST", "/api/v1/silences", "/api/v1/silences", silence) == 201
    assert served.check("POST", "/api/v1/dismissals", "/api/v1/dismissals", {"incident": incident}) == 200
    assert served.check("POST", "/api/v1/replay-plans", "/api/v1/replay-plans", {"incident": incident}) == 201


def test_refusals_are_problems_at_every_door(served: Served) -> None:
    for path, verbs in served.document["paths"].items():
        if not path.startswith("/api/v1") or path.endswith("/stream"):
            continue
        filled = re.sub(r"\{\w+\}", "no-such-thing", path)
        for verb in verbs:
            body = {"nobody-knows-this": 1} if verb in ("post", "put") else None
            assert served.check(verb.upper(), path, filled, body) < 500, f"{verb} {path}"


def test_no_door_goes_undescribed_and_no_description_is_left_over(served: Served) -> None:
    paths = served.document["paths"]
    told = {f"{verb.upper()} {path}" for path, verbs in paths.items() for verb in verbs}
    assert told == {f"{door.split(' ', 1)[0]} /api/v1{door.split(' ', 1)[1]}" for door in API} | set(ROOT)


def test_a_route_that_nobody_described_is_found() -> None:
    async def nothing(request: Any) -> Any:
        return None

    with pytest.raises(KeyError, match="GET /planted"):
        openapi.described([Route(method="GET", path="/api/v1/planted", role="viewer", handler=nothing)])
