"""What the API and the pages show of expectations: the real application on a unix socket, its clock in the test's hand."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
from ground import expected, finished, started, uid

from looseends.wire import format_time, parse_time
from looseends_daemon import config
from looseends_daemon.app import Daemon
from looseends_daemon.clock import Clock
from looseends_daemon.http.listen import listen
from looseends_daemon.services.detector import Detector
from looseends_daemon.services.vigil import Vigil
from looseends_daemon.store.connection import Database

S = 1_000_000_000
TWO = parse_time("2026-11-20T01:59:30Z")
RULES = """
[[expect]]
name = "nightly.backup"
service = "cron"
cron = "0 2 * * *"
within = "30m"

[[expect]]
name = "mail.send_receipt"
after = "order.create"
by = "key"
within = "60s"
"""


class HandClock(Clock):
    now = TWO

    def wall_ns(self) -> int:
        return self.now


class Unmoved(Vigil):
    """This clock is moved by hand: that is no freeze."""

    def look(self, now: int) -> None:
        return


class Running:
    """A daemon without its loops: the test says when they run."""

    def __init__(self, daemon: Daemon, clock: HandClock, http: aiohttp.ClientSession) -> None:
        self.daemon, self.clock, self.http = daemon, clock, http
        self.bearer = {"Authorization": f"Bearer {Path(daemon.database.path + '.token').read_text().strip()}"}
        vigil = Unmoved(started_at=TWO - 3600 * S)
        self.detector = Detector(daemon.database, daemon.policy, lambda: daemon.rules, started_at=TWO - 3600 * S, vigil=vigil)

    async def at(self, seconds: float) -> None:
        """Set the clock, then let every loop run that has a part in this."""
        self.clock.now = TWO + int(seconds * S)
        await self.tell()  # its service is alive and has nothing more to say
        await self.daemon.expecter.run_once(self.clock.now)
        await self.detector.run_once(self.clock.now)

    async def tell(self, *events: dict[str, Any]) -> Any:
        made = [{"at": format_time(self.clock.now), **event, "task": uid(event["task"])} for event in events]
        body = {"instance": {"id": "web-1", "service": "shop-web"}, "events": made}
        async with self.http.post("http://localhost/api/v1/events", json=body) as answer:
            assert answer.status == 200
            return await answer.json()

    async def get(self, path: str) -> Any:
        async with self.http.get(f"http://localhost{path}", headers=self.bearer) as answer:
            assert answer.status == 200, await answer.text()
            return await (answer.json() if path.startswith("/api") else answer.text())


@contextlib.asynccontextmanager
async def running(text: str) -> AsyncIterator[Running]:
    folder = Path(tempfile.mkdtemp(prefix="le-"))
    (folder / "config.toml").write_text(text)
    settings = config.with_flags(
        config.load(str(folder / "config.toml"), {"HOME": str(folder)}), listen=(f"unix:{folder}/s",), path=str(folder / "x.db")
    )
    clock = HandClock()
    daemon = Daemon(settings, await Database.open(str(folder / "x.db")), clock)
    try:
        await daemon.prepare()
        daemon.listener = await listen(daemon.application(), [f"unix:{folder}/s"])
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(f"{folder}/s")) as http:
            yield Running(daemon, clock, http)
    finally:
        await daemon.close()
        shutil.rmtree(folder)


async def test_a_nightly_job_that_never_began_is_missed_in_words_on_page_and_api() -> None:
    async with running(RULES) as place:
        await place.at(0)
        await place.at(31)
        assert (await place.get("/api/v1/tasks"))["items"] == []
        await place.at(30 + 1801)
        (task,) = (await place.get("/api/v1/tasks?q=verdict:missed"))["items"]
        assert (task["state"], task["verdict"], task["service"], task["loose"]) == ("scheduled", "missed", "cron", True)
        assert (task["began_at"], task["due_at"]) == ("2026-11-20T02:00:00.000000Z", "2026-11-20T02:30:00.000000Z")
        assert task["reason"] == "expected at 02:00 within 30 min, never seen"
        assert task["expected"] == {"within": 1800.0, "cron": "0 2 * * *", "after": None, "met_by": None, "late": False}
        whole = await place.get(f"/api/v1/tasks/{task['id']}")
        assert not whole["replayable"] and "no arguments were recorded" in whole["not_replayable_because"]
        page = await place.get(f"/tasks/{task['id']}")
        for words in ("Missed", "expected at 02:00 within 30 min, never seen", "never seen: most often an early return"):
            assert words in page
        (incident,) = (await place.get("/api/v1/incidents"))["items"]
        assert (incident["problem"], incident["severity"], incident["service"]) == ("missed", "critical", "cron")
        ledger = await place.get("/api/v1/ledger?from=2026-11-20T02:00:00Z&to=2026-11-20T02:01:00Z")
        assert (ledger["tasks"], ledger["gap"], ledger["loose"]) == (1, 1, 1)


async def test_word_that_it_began_in_time_takes_it_out_of_lists_and_ledger_and_its_page_tells_why() -> None:
    async with running("") as place:
        await place.at(30)
        await place.tell(expected("e", "mail.send_receipt", args={"order_id": 7}))
        await place.at(100)
        shown = await place.get(f"/api/v1/tasks/{uid('e')}")
        assert (shown["verdict"], shown["args"]) == ("missed", {"order_id": 7})
        late = {"at": format_time(TWO + 60 * S)}
        await place.tell(started("t", "mail.send_receipt", **late), finished("t", **late))
        await place.at(101)
        listed = (await place.get("/api/v1/tasks"))["items"]
        assert [task["id"] for task in listed] == [uid("t")]
        shown = await place.get(f"/api/v1/tasks/{uid('e')}")
        assert (shown["verdict"], shown["loose"], shown["expected"]["met_by"]) == (None, False, uid("t"))
        assert shown["reason"].startswith("it began in time after all, at 02:00:30, and was told late")
        history = (await place.get(f"/api/v1/tasks/{uid('e')}/history"))["items"]
        assert [entry["what"] for entry in history] == ["expected", "verdict", "withdrawn"]
        assert history[0]["reason"] == "within 1 min"
        page = await place.get(f"/tasks/{uid('e')}")
        assert "met in time" in page and "It waits for its turn" not in page
        ledger = await place.get("/api/v1/ledger?from=2026-11-20T00:00:00Z&to=2026-11-21T00:00:00Z")
        assert (ledger["tasks"], ledger["succeeded"], ledger["gap"]) == (1, 1, 0)
        (incident,) = (await place.get("/api/v1/incidents"))["items"]
        assert (incident["state"], incident["resolution"]) == ("resolved", "withdrawn")


async def test_a_late_success_is_shown_as_met_late() -> None:
    async with running("") as place:
        await place.at(30)
        await place.tell(expected("e"))
        await place.at(100)
        await place.tell(started("t"), finished("t"))
        await place.at(101)
        shown = await place.get(f"/api/v1/tasks/{uid('e')}")
        assert (shown["verdict"], shown["settled"], shown["expected"]["late"]) == ("missed", "finished_late", True)
        page = await place.get(f"/tasks/{uid('e')}")
        assert "met late" in page and "ended well after all, later than it should have" in page


async def test_after_an_order_its_receipt_is_expected() -> None:
    async with running(RULES) as place:
        await place.at(0)
        await place.tell(started("o1", "order.create", key="7"), started("o2", "order.create", key="8"))
        await place.tell(started("t", key="7"))
        await place.at(61)
        (task,) = (await place.get("/api/v1/tasks?q=is:gap"))["items"]
        assert task["reason"] == "expected at 01:59:30, after order.create, within 1 min, never seen"
        assert (task["key"], task["parent"], task["expected"]["after"]) == ("8", uid("o2"), "order.create")


async def test_overlap_is_a_flag_that_can_be_searched() -> None:
    async with running('[[task]]\nmatch = "*/sync"\noverlap = "warn"\n') as place:
        await place.at(0)
        await place.tell(started("a", "sync", key="7"), started("b", "sync", key="7"), started("c", "sync", key="8"))
        await place.at(1)
        found = (await place.get("/api/v1/tasks?q=is:overlap"))["items"]
        assert {task["id"] for task in found} == {uid("a"), uid("b")} and found[0]["flags"] == ["overlap"]
        assert (await place.get("/api/v1/tasks?q=is:ran_twice"))["items"] == []
        assert (await place.get("/api/v1/incidents"))["items"] == []
