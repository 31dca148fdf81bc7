"""Acknowledge, silence, dismiss and take back over HTTP: a whole daemon with its loops, on a unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from harness import WAIT_S
from looseends.wire import NEVER, NS
from looseends_daemon import config
from looseends_daemon.app import Daemon, running
from looseends_daemon.core.incidents import AlertRules
from looseends_daemon.services.marks import Settler
from looseends_daemon.store import dismissals
from looseends_daemon.store.connection import Database

CONFIG = """
[server]
listen = ["unix:{folder}/d.sock"]
[storage]
path = "{folder}/d.db"
[alerts]
group_wait = "0s"
ack_expires = "2h"
[detect]
grace = "0s"
"""


class Desk:
    """Somebody with a token."""

    def __init__(self, daemon: Daemon, http: aiohttp.ClientSession) -> None:
        self.daemon, self._http, self._keys = daemon, http, itertools.count()
        self._bearer = {"Authorization": f"Bearer {Path(daemon.database.path + '.token').read_text().strip()}"}

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """One request; its status and its JSON."""
        given = {**self._bearer, "Idempotency-Key": f"key-of-{next(self._keys):06}", **headers}
        async with self._http.request(method, f"http://localhost/api/v1{path}", json=body, headers=given) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text else None

    async def fail(self, *names: str) -> None:
        """One failure of each name; returns when their incidents are open."""
        tasks = [f"run-{next(self._keys)}" for _ in names]
        common = [{"task": task, "service": "shop", "name": name} for task, name in zip(tasks, names, strict=True)]
        error = {"error": {"type": "E", "message": "m"}}
        events = [
            {"type": kind, **one, **(error if kind == "failed" else {})} for one in common for kind in ("started", "failed")
        ]
        async with self._http.post("http://localhost/api/v1/events", json=events) as answer:
            assert (answer.status, (await answer.json())["rejected"]) == (200, [])
        await self.until(lambda items: len({one["name"] for one in items} & set(names)) == len(set(names)), state="open")

    async def until(self, fits: Callable[[list[dict[str, Any]]], bool], state: str) -> list[dict[str, Any]]:
        """The incidents of this state, as soon as they fit."""
        async with asyncio.timeout(WAIT_S):
            while True:
                found: list[dict[str, Any]] = (await self.ask("GET", f"/incidents?state={state}"))[1]["items"]
                if fits(found):
                    return found
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Desk]:
    file = folder / "config.toml"
    file.write_text(CONFIG.format(folder=folder))
    async with (
        running(config.load(str(file), {"HOME": str(folder)})) as daemon,
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(f"{folder}/d.sock")) as http,
    ):
        yield Desk(daemon, http)


@pytest.fixture
async def desk(state_dir: Path) -> AsyncIterator[Desk]:
    async with opened(state_dir) as made:
        yield made


async def test_an_incident_is_acknowledged_and_shown_so_until_it_resolves(desk: Desk) -> None:
    await desk.fail("mail.send")
    [found] = await desk.until(lambda items: len(items) == 1, "open")
    path = f"/incidents/{found['id']}/acknowledge"
    status, shown = await desk.ask("POST", path, {"note": "I look at it"})
    assert (status, shown["acknowledged"]["by"], shown["acknowledged"]["note"]) == (200, "operator", "I look at it")
    assert shown["acknowledged"]["at"] < shown["acknowledged"]["expires_at"]
    [later] = await desk.until(lambda items: items[0]["why"][-1]["reason"] == "acknowledged", "open")
    assert later["acknowledged"] == shown["acknowledged"]
    await desk.ask("POST", "/dismissals", {"incident": found["id"], "note": "x", **await digest(desk, incident=found["id"])})
    await desk.until(lambda items: len(items) == 1, "resolved")
    status, refused = await desk.ask("POST", path, {"note": "again"})
    assert (status, refused["title"]) == (409, "It is resolved")


async def digest(desk: Desk, **which: str) -> dict[str, str]:
    status, frozen = await desk.ask("POST", "/dismissals", which)
    assert status == 200, frozen
    return {"digest": frozen["digest"]}


async def test_a_silence_is_tried_made_listed_and_ended(desk: Desk) -> None:
    await desk.fail("mail.send", "audit.write")
    wish = {"matchers": ['name=~"mail.*"'], "comment": "the mail server moves", "duration": 3600}
    status, preview = await desk.ask("POST", "/silences", {**wish, "dry_run": True})
    assert (status, preview["hides"], [one["name"] for one in preview["items"]]) == (200, 1, ["mail.send"])
    assert (await desk.ask("GET", "/silences"))[1]["items"] == []
    status, made = await desk.ask("POST", "/silences", wish)
    assert (status, made["state"], made["matchers"], made["author"]) == (201, "active", ['name=~"mail.*"'], "operator")
    found = {one["name"]: one["silenced"] for one in await desk.until(lambda items: len(items) == 2, "open")}
    assert found["audit.write"] is None
    assert found["mail.send"] == {"id": made["id"], "by": "operator", "comment": wish["comment"], "ends_at": made["ends_at"]}
    assert (await desk.ask("GET", "/silences?state=active"))[1]["items"] == [made]
    status, ended = await desk.ask("DELETE", f"/silences/{made['id']}")
    assert (status, ended["state"], ended["ended_by"]) == (200, "expired", "operator")
    assert (await desk.ask("GET", f"/silences/{made['id']}"))[1] == ended
    assert (await desk.ask("DELETE", f"/silences/{made['id']}"))[0] == 409
    _, audit = await desk.ask("GET", "/audit")
    assert [row["act"] for row in audit["items"]][:2] == ["end_silence", "silence"]


async def test_a_query_is_dismissed_by_the_digest_of_what_was_seen_and_taken_back(desk: Desk) -> None:
    await desk.fail("mail.send", "mail.send", "audit.write")
    status, frozen = await desk.ask("POST", "/dismissals", {"q": "name:mail.*"})
    assert (status, frozen["count"], len(frozen["items"])) == (200, 2, 2)
    await desk.fail("mail.print")
    wish = {"q": "name:mail.*", "note": "known", "digest": frozen["digest"]}
    status, refused = await desk.ask("POST", "/dismissals", wish)
    assert (status, refused["title"]) == (409, "They are others by now") and "3 loose ends" in refused["detail"]
    status, made = await desk.ask("POST", "/dismissals", {**wish, **await digest(desk, q="name:mail.*")})
    assert (status, made["state"], made["dismissed"]) == (201, "done", 3)
    assert (await desk.ask("GET", "/tasks?q=is:loose"))[1]["items"][0]["name"] == "audit.write"
    await desk.until(lambda items: len(items) == 2, "resolved")
    status, back = await desk.ask("DELETE", f"/dismissals/{made['id']}")
    assert (status, back["state"], back["undone"]) == (200, "undone", 3)
    assert len((await desk.ask("GET", "/tasks?q=is:loose"))[1]["items"]) == 4
    assert (await desk.ask("GET", f"/dismissals/{made['id']}"))[1] == back
    assert (await desk.ask("GET", "/dismissals"))[1]["items"] == [back]
    assert (await desk.ask("DELETE", f"/dismissals/{made['id']}"))[0] == 409
    history = (await desk.ask("GET", f"/tasks/{frozen['items'][0]['id']}/history"))[1]["items"]
    assert [one["what"] for one in history if one["kind"] == "judgement"] == ["loose", "dismissed", "restored"]


@pytest.mark.parametrize(
    ("path", "body", "pointer", "says"),
    [
        ("/silences", {}, "/matchers", "1 to 20 texts"),
        ("/silences", {"matchers": ["service=x"], "comment": "c"}, "/ends_at", 'give "ends_at"'),
        ("/silences", {"matchers": ["service=x"], "comment": "c", "ends_at": "soon"}, "/ends_at", "cannot be read"),
        ("/silences", {"matchers": ["service=x"], "comment": "c", "duration": -1}, "/duration", "above 0"),
        ("/silences", {"matchers": ["service=x"], "duration": 60}, "", "say in a comment why"),
        ("/silences", {"matchers": ["service=x", "nme=y"], "duration": 60}, "/matchers/1", "did you mean name?"),
        ("/silences", {"matchers": ['service=~"(a"'], "duration": 60}, "/matchers/0", "column 1 of the pattern"),
        ("/silences", {"matchers": [7], "duration": 60}, "/matchers/0", "a matcher is text"),
        ("/silences", {"matcher": ["service=x"]}, "/matcher", "did you mean matchers?"),
        ("/silences", {"matchers": ["service=x"], "duration": 60, "dry_run": "yes"}, "/dry_run", "true or false"),
        ("/silences", [], "", "the body is an object"),
        ("/incidents/inc_0/acknowledge", {"note": "x", "expires": "1h"}, "/expires", "a number of seconds"),
        ("/incidents/inc_0/acknowledge", {"note": 7}, "/note", "note is text"),
        ("/incidents/inc_0/acknowledge", {"note": ""}, "", "say in a note who does what"),
        ("/dismissals", {}, "/q", 'give "q"'),
        ("/dismissals", {"q": "nme:x"}, "/q", "nme"),
        ("/dismissals", {"q": "is:loose timeout"}, "/q", "cannot search text"),
        ("/dismissals", {"q": ["is:loose"]}, "/q", "q is text"),
    ],
)
async def test_a_wrong_body_is_refused_with_its_place(desk: Desk, path: str, body: Any, pointer: str, says: str) -> None:
    status, refused = await desk.ask("POST", path, body)
    assert status == 422
    assert refused["errors"][0]["pointer"] == pointer and says in refused["detail"], refused


async def test_what_is_not_there_is_a_404(desk: Desk) -> None:
    for method, path in (
        *(
            ("GET", "/silences/sil_0"),
            ("DELETE", "/silences/sil_0"),
            ("GET", "/dismissals/dis_0"),
            ("DELETE", "/dismissals/dis_0"),
        ),
        ("POST", "/incidents/inc_0/acknowledge"),
    ):
        assert (await desk.ask(method, path, {"note": "x"} if method == "POST" else None))[0] == 404, (method, path)
    assert (await desk.ask("GET", "/silences?cursor=!!"))[0] == 422
    assert (await desk.ask("GET", "/dismissals?cursor=!!"))[0] == 422
    assert (await desk.ask("GET", "/silences?state=gone"))[0] == 422


async def test_the_loop_finishes_what_no_request_waited_for(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dismissals, "STEP_TASKS_MAX", 2)
    monkeypatch.setattr("looseends_daemon.services.marks.WAIT_S", 0.0)
    await desk.fail(*(["mail.send"] * 9))
    status, made = await desk.ask("POST", "/dismissals", {"q": "is:loose", "note": "x", **await digest(desk, q="is:loose")})
    assert (status, made["state"]) == (201, "running")
    await desk.until(lambda items: len(items) == 1, "resolved")
    assert (await desk.ask("GET", f"/dismissals/{made['id']}"))[1]["dismissed"] == 9


async def test_an_idle_settler_writes_nothing_and_never_means_never(desk: Desk) -> None:
    database: Database = desk.daemon.database
    await desk.fail("mail.send")
    far = desk.daemon.clock.wall_ns() + 3_000 * 86_400 * NS
    for after, settled in ((NEVER, 0), (7 * 86_400.0, 1)):
        settler = Settler(database, partial(AlertRules, settle_failed_after=after), lambda: 1)
        now: int | None = far
        while now is not None and now < far + NS:
            now = await settler.run_once(now)
        rows = await database.write(
            lambda conn: conn.execute("SELECT count(*) FROM task WHERE settled IS NOT NULL").fetchone()[0]
        )
        assert rows == settled
    before = database.commits
    assert await Settler(database, AlertRules, lambda: 1).run_once(far) == far + 60 * NS
    assert database.commits == before
