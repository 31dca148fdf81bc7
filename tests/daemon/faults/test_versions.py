"""Clients and daemons of different versions: each recorded side is taken as it was, and what nobody knows is in nobody's way.

What earlier versions said stands in tests/fixtures/wire, made by make_wire.py beside this file. A later version is this one with
members that nobody knows, in everything that it says.
"""

from __future__ import annotations

import copy
import json
import socketserver
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from between import Between, Exchange
from faulty import Faulty, Service

import harness
from harness import ROOT
from wired import JsonHandler

WIRE = ROOT / "tests/fixtures/wire"
CLIENTS, DAEMONS = sorted(WIRE.glob("client-*.json")), sorted(WIRE.glob("daemon-*.json"))
LATER = {"x_later": {"deep": [1, None, "two"]}}
UNKNOWN_TYPE = {"type": "pondered", "task": "0190a1b2-0000-7000-8000-000000000001", "depth": 3}
OPAQUE = ("args", "result", "tags")
"""Members whose content is the service's own, not the wire's."""


def later(value: Any) -> Any:
    """What a later version would say: a member that nobody knows in every object."""
    if isinstance(value, list):
        return [later(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {name: item if name in OPAQUE else later(item) for name, item in value.items()} | LATER


def test_there_is_a_recording_of_this_version() -> None:
    from looseends import __version__

    assert {path.stem for path in (*CLIENTS, *DAEMONS)} >= {f"client-{__version__}", f"daemon-{__version__}"}


# --- an earlier or later client, this daemon ----------------------------------------------------------------------


def replay(faulty: Faulty, requests: list[dict[str, Any]], change: Callable[[Any], Any]) -> Iterator[tuple[dict[str, Any], Any]]:
    """Each recorded request is sent again, changed; (the request, its answer). Orders of then are unknown to a new daemon."""
    for request in requests:
        body = None if request["body"] is None else change(copy.deepcopy(request["body"]))
        status, answer = faulty.ask(request["method"], request["path"], body)
        expected = (404, 409) if "/orders/" in request["path"] else (request["status"],)
        assert status in expected, (request, status, answer)
        yield request, answer


@pytest.mark.parametrize("recorded", CLIENTS, ids=lambda path: path.stem)
def test_what_every_earlier_client_said_is_taken_whole(faulty: Faulty, recorded: Path) -> None:
    told = json.loads(recorded.read_text())
    faulty.start()
    answers = [answer for request, answer in replay(faulty, told["requests"], lambda body: body) if "accepted" in (answer or {})]
    assert sum(answer["accepted"] for answer in answers) == told["accepted"]
    assert not any(answer["warnings"] or answer["rejected"] or answer["duplicates"] for answer in answers)
    assert faulty.states() == told["states"]


@pytest.mark.parametrize("recorded", CLIENTS, ids=lambda path: path.stem)
def test_what_a_later_client_adds_is_named_and_ignored_and_an_unknown_type_is_rejected_alone(
    faulty: Faulty, recorded: Path
) -> None:
    told = json.loads(recorded.read_text())
    faulty.start()

    def change(body: Any) -> Any:
        if isinstance(body, dict) and body.get("events"):
            body["events"].insert(1, dict(UNKNOWN_TYPE))
        return later(body)

    accepted = 0
    for request, answer in replay(faulty, told["requests"], change):
        if not request["path"].endswith("/events"):
            continue
        events = len(request["body"]["events"])
        accepted += answer["accepted"]
        assert [(one["index"], one["pointer"]) for one in answer["rejected"]] == [(1, "/type")] * bool(events)
        named = {(one["index"], one["pointer"]) for one in answer["warnings"]}
        assert named == {(n, "/x_later") for n in range(-1, events + bool(events)) if not (n == 1 and events)}
    assert accepted == told["accepted"], "nothing that is known is lost"
    assert faulty.states() == told["states"]


def test_an_event_that_an_earlier_daemon_does_not_know_is_dropped_and_counted_by_the_client(
    faulty: Faulty, between: Between, service: Callable[..., Service]
) -> None:
    faulty.start()

    def ask(method: str, path: str, asked: Any) -> Any:
        for event in asked["events"] if path.endswith("/events") else ():
            event["type"] = "pondered" if event["type"] == "progress" else event["type"]
        return asked

    between.ask = ask
    one = service(between.path)
    one.do("run 2")
    one.do("progress 3")
    one.do("run 2")
    one.send()
    rejected = [entry for exchange in between.batches() for entry in exchange.answered["rejected"]]
    assert len(rejected) >= 3 and {entry["pointer"] for entry in rejected} == {"/type"}
    assert one.counts()["rejected"] == len(rejected)
    one.end()
    assert Counter(faulty.states().values()) == {"succeeded": 7}
    sent = Counter(event["type"] for exchange in between.batches() for event in exchange.asked["events"])
    assert sent["pondered"] == len(rejected), "what was rejected is not sent again"


# --- an earlier or later daemon, this client ----------------------------------------------------------------------


class Recorded:
    """A server that gives the answers a daemon of then gave; `events` are what it was told."""

    def __init__(self, path: str, answers: dict[str, list[Any]]) -> None:
        self.path, self.events, self.asked = path, list[dict[str, Any]](), Counter[str]()
        self._answers = answers
        self._server = _Server(path, _handler(self))
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Take no new connection."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """The answer of then to a request of this kind; the last one is given again and again."""
        kind = "DELETE instance" if method == "DELETE" else f"{method} {path.rsplit('/', 1)[-1]}"
        if kind == "POST events":
            self.events += body["events"]
        if kind == "GET orders" and self.asked["POST result"]:
            return 200, {"items": []}
        given = self._answers[kind]
        one = given[min(self.asked[kind], len(given) - 1)]
        self.asked[kind] += 1
        return one["status"], one["body"]


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def _handler(recorded: Recorded) -> type[JsonHandler]:
    class Handler(JsonHandler):
        def reply(self, body: Any) -> None:
            self.tell(*recorded.answer(self.command, self.path, body))

    return Handler


@pytest.mark.parametrize("recorded", DAEMONS, ids=lambda path: path.stem)
def test_with_every_earlier_daemon_the_client_sends_all_and_runs_its_orders(
    faulty: Faulty, service: Callable[..., Service], recorded: Path
) -> None:
    answers = json.loads(recorded.read_text())
    then = Recorded(f"{faulty.folder}/then", answers)
    try:
        one = service(then.path)
        one.do("run 3")
        one.do("fail 2")
        one.send()
        harness.wait_until(lambda: then.asked["POST result"], "the order of then to be run")
        one.send()
        assert one.counts() == {}
        one.end()
    finally:
        then.close()
    (order,) = answers["GET orders"][-1]["body"]["items"]
    kinds = [event["type"] for event in then.events if event["task"] == order["id"]]
    assert kinds == ["scheduled", "started", "finished"]
    ends = Counter(event["type"] for event in then.events if event["task"] != order["id"])
    assert ends == {"started": 5, "finished": 3, "failed": 2}


def test_what_a_later_daemon_adds_to_its_answers_disturbs_no_client(
    faulty: Faulty, between: Between, service: Callable[..., Service]
) -> None:
    faulty.start()
    told: list[Any] = []

    def tell(exchange: Exchange) -> Any:
        told.append(later(exchange.answered))
        return told[-1]

    between.tell = tell
    one = service(between.path)
    one.do("run 3")
    one.do("fail 2")
    one.do("progress")
    one.send()
    task = faulty.get("tasks?q=name:mail.double&limit=1")["items"][0]["id"]
    harness.wait_until(lambda: any(exchange.path.endswith("/functions") for exchange in between.exchanges), "its functions")
    wish = {"note": "again", "confirm": ["ended_well"]}
    assert faulty.ask("POST", f"/api/v1/tasks/{task}/replay", wish, operator=True)[0] == 202
    harness.wait_until(lambda: Counter(faulty.states().values())["succeeded"] == 5, "the replay to succeed")
    assert one.counts() == {}
    one.end()
    assert all("x_later" in answer for answer in told if isinstance(answer, dict)) and len(told) > 5
    assert Counter(faulty.states().values()) == {"succeeded": 5, "failed": 2}
