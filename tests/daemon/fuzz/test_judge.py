"""What the judge of answers must object to, and what it must let pass."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode needs to be told where the judge is

from fuzz_judge import faults
from fuzz_line import Case, Reply

ALWAYS = {"x-content-type-options": "nosniff", "content-security-policy": "default-src 'none'"}
PROBLEM = {"type": "about:blank", "title": "Not Found", "status": 404, "detail": "there is nothing"}
ELSEWHERE: dict[str, Any] = {"access-control-allow-origin": "*"}
PAGE = b"<!doctype html><html><body>Not here</body></html>"


def case(path: str = "/api/v1/tasks", method: str = "GET") -> Case:
    return Case("", method, path.encode())


def reply(status: int = 404, body: Any = PROBLEM, kind: str = "application/problem+json", **headers: Any) -> Reply:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply(status, {**ALWAYS, "content-type": kind, **headers}, raw)


WRONG = {
    "no answer": (case(), Reply(0, body=b"no answer: TimeoutError"), "no answer"),
    "an accident": (case(), reply(500, {**PROBLEM, "status": 500}), "status 500"),
    "a gateway": (case(), reply(502, {**PROBLEM, "status": 502}), "status 502"),
    "405 without Allow": (case(), reply(405, {**PROBLEM, "status": 405}), "without Allow"),
    "another status inside": (case(), reply(400), "a problem of status 404 in an answer of status 400"),
    "no detail": (case(), reply(body={**PROBLEM, "detail": ""}), "detail is ''"),
    "no title": (case(), reply(body={name: PROBLEM[name] for name in ("type", "status", "detail")}), "title is None"),
    "an entry without a place": (case(), reply(body={**PROBLEM, "errors": [{"detail": "x"}]}), "without pointer"),
    "plain text": (case(), reply(body=b"404", kind="text/plain"), "a refusal as text/plain"),
    "a page of the API": (case(), reply(body=PAGE, kind="text/html"), "a refusal as text/html"),
    "half a page": (case("/tasks/x"), reply(body=b"<!doctype html><p>", kind="text/html"), "without beginning or end"),
    "a traceback": (case("/x"), reply(body=PAGE + b"Traceback (most recent call last)", kind="text/html"), "of the inside"),
    "half a document": (case(), reply(200, b'{"items": [', "application/json"), "cannot be read"),
    "no number": (case(), reply(200, b'{"tasks": NaN}', "application/json"), "NaN is no JSON"),
    "no text": (case(), reply(200, b'{"tasks": "\xff"}', "application/json"), "cannot be read"),
    "an answer of no kind": (case(), reply(200, b"ok", "text/plain"), "an answer as text/plain"),
    "a body to HEAD": (case(method="HEAD"), reply(200, {}, "application/json"), "bytes of a body"),
    "a way out": (case("/sign-in"), reply(303, b"", location="//evil.example"), "leads elsewhere"),
    "no policy": (
        case(),
        Reply(404, {"content-type": "application/problem+json"}, json.dumps(PROBLEM).encode()),
        "without the header",
    ),
    "another origin": (case(), reply(404, PROBLEM, "", **ELSEWHERE), "CORS"),
    "nothing said of 503": (case("/readyz"), reply(503, b"", "text/html"), "without beginning or end"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_objected_to(what: str) -> None:
    asked, answered, words = WRONG[what]
    assert any(words in fault for fault in faults(asked, answered)), faults(asked, answered)


FINE = {
    "a problem": (case(), reply()),
    "an answer": (case(), reply(200, {"items": [], "next_cursor": None}, "application/json")),
    "nothing to say": (case("/api/v1/instances/x", "DELETE"), reply(204, b"", "")),
    "later": (case(), reply(503, {**PROBLEM, "status": 503})),
    "not ready": (case("/readyz"), reply(503, b"the detector has not run\n", "text/plain")),
    "rejected": (
        case("/api/v1/events", "POST"),
        reply(422, {"accepted": 0, "rejected": [{"index": 0}]}, "application/json"),
    ),
    "onwards": (case("/tasks"), reply(303, b"", location="/sign-in?next=/tasks")),
    "a refusal to HEAD": (case(method="HEAD"), reply(body=b"")),
    "a page": (case("/tasks/x"), reply(body=PAGE, kind="text/html")),
    "not done": (case(method="PUT"), reply(405, {**PROBLEM, "status": 405}, allow="GET,HEAD")),
}


@pytest.mark.parametrize("what", FINE)
def test_what_is_fine_is_left_in_peace(what: str) -> None:
    assert faults(*FINE[what]) == []
