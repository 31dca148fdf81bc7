"""In which form records travel: the journal's bytes where the daemon asks for them, else JSON; and a kill meanwhile."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from typing import Any

import pytest

from looseends import parcel
from looseends.wire import check_batch


class Between(http.server.ThreadingHTTPServer):
    """Stands where the daemon would, keeps what it was sent, and says what it takes."""

    daemon_threads = True

    def __init__(self, takes: bool, refuses: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.takes, self.refuses = takes, refuses
        self.kinds: list[str] = []
        self.ended: set[str] = set()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Between

    def _do(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, answer = 200, {"orders": 0, "stacks": []}
        if self.path.endswith("/events"):
            status, answer = self._events(body)
        data = json.dumps(answer).encode()
        self.send_response(status)
        if self.server.takes:
            self.send_header(parcel.TAKES, parcel.TAKEN)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _events(self, body: bytes) -> tuple[int, dict[str, Any]]:
        kind = self.headers["Content-Type"]
        self.server.kinds.append(kind)
        if kind == parcel.CONTENT_TYPE and self.server.refuses:
            return self.server.refuses, {"title": "no"}
        document: Any = parcel.read(body).document if kind == parcel.CONTENT_TYPE else json.loads(body)
        batch = check_batch(document, time.time_ns())
        self.server.ended |= {event["task"] for event in batch.events if event["type"] in ("finished", "failed")}
        return 200, {"accepted": len(batch.events), "duplicates": 0, "warnings": [], "rejected": [], "orders": 0}

    do_POST = do_PUT = do_DELETE = _do

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def between() -> Iterator[Any]:
    running: list[Between] = []

    def start(**options: Any) -> Between:
        running.append(Between(**options))
        threading.Thread(target=running[-1].serve_forever, args=(0.02,), daemon=True).start()
        return running[-1]

    yield start
    for one in running:
        one.shutdown()
        one.server_close()


def wait_for(condition: Any, seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    assert condition()


def test_who_says_nothing_gets_json_alone(house: Any, between: Any) -> None:
    mine = between(takes=False)
    service = house.service(LOOSEENDS_URL=mine.url)
    service.ask(0, 300, 500.0)
    wait_for(lambda: len(mine.ended) >= 300)
    assert len(mine.ended) == 300 and set(mine.kinds) == {"application/json"}


def test_who_asks_for_the_journals_bytes_gets_them_after_the_first_batch(house: Any, between: Any) -> None:
    mine = between(takes=True)
    service = house.service(LOOSEENDS_URL=mine.url)
    service.ask(0, 300, 500.0)
    wait_for(lambda: len(mine.ended) >= 300)
    assert len(mine.ended) == 300
    assert mine.kinds[0] == "application/json" and set(mine.kinds[1:]) == {parcel.CONTENT_TYPE}


@pytest.mark.parametrize("status", [400, 415, 422])
def test_who_asks_for_them_and_refuses_them_gets_json_again(house: Any, between: Any, status: int) -> None:
    mine = between(takes=True, refuses=status)
    service = house.service(LOOSEENDS_URL=mine.url)
    service.ask(0, 300, 500.0)
    wait_for(lambda: len(mine.ended) >= 300)
    assert len(mine.ended) == 300 and mine.kinds.count(parcel.CONTENT_TYPE) == 1
    assert service.state()["dropped"] == 0


def test_a_real_daemon_asks_for_them_and_stores_all_of_it(house: Any) -> None:
    service = house.service()
    service.ask(0, 400, 800.0)
    ledger = house.wait_for_all(service, 400)
    assert ledger["failed"] == 8 and service.state()["takes_journal"], "none of it came as the journal's bytes"


def test_a_service_killed_in_the_middle_of_a_pass_loses_nothing_it_had_answered(house: Any) -> None:
    service = house.service()
    service.ask(0, 50, 500.0)
    assert service.state()["takes_journal"]
    answered: list[int] = []

    def ask(first: int) -> None:
        with closing(HTTPConnection("127.0.0.1", service.port, timeout=10)) as connection:
            for number in range(first, 100_000, 4):
                try:
                    connection.request("GET", f"/do/{number}")
                    connection.getresponse().read()
                except (OSError, HTTPException):
                    return
                answered.append(number)

    threads = [threading.Thread(target=ask, args=(1_000 + number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(answered) > 600)  # several passes: one of them is under way more often than not
    service.process.kill()
    for thread in threads:
        thread.join()
    heir = house.service()
    heir.ask(0, 1, 100.0)
    wait_for(lambda: (ledger := house.ledger())["succeeded"] + ledger["failed"] >= 51 + len(answered), 40)
    assert house.ledger()["tasks"] <= 51 + len(answered) + 4, "beside what was answered there was what was being done"
