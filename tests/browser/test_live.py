"""Live pages in a real browser over a real daemon: what changes is seen at once, and nothing moves under a reader."""

from __future__ import annotations

import asyncio
import statistics
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, expect

from daemon.front.test_front import begun
from looseends_daemon import config
from looseends_daemon.app import Daemon, running

pytestmark = pytest.mark.asyncio(loop_scope="session")
EVENT_TO_PIXEL_S = 1.5
TABS = 12
SHIFTS = """
window.shifts = [];
const shown = (source) => source.node?.outerHTML?.slice(0, 90) ?? source.node?.textContent;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) window.shifts.push([entry.value, ...entry.sources.map(shown)]);
}).observe({type: "layout-shift", buffered: true});
"""


@dataclass
class Town:
    """A daemon, somebody who reports to it, and a browser that is signed in."""

    daemon: Daemon
    service: aiohttp.ClientSession
    context: BrowserContext
    base: str
    complaints: list[str]

    async def send(self, *events: dict[str, Any]) -> None:
        async with self.service.post(f"{self.base}/api/v1/events", json=list(events)) as answer:
            assert answer.status == 200, await answer.text()

    async def open(self, path: str) -> Page:
        page = await self.context.new_page()
        page.on("console", lambda told: self.complaints.append(told.text) if told.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda asked: None if asked.url.startswith(self.base) else self.complaints.append(asked.url))
        await page.add_init_script(SHIFTS)
        await page.goto(f"{self.base}{path}")
        return page

    async def live(self, path: str) -> Page:
        page = await self.open(path)
        await expect(page.locator("#live")).to_have_text("Live", timeout=10_000)
        return page


@pytest_asyncio.fixture(loop_scope="session")
async def town(browser: Browser, tmp_path: Path, state_dir: Path) -> AsyncIterator[Town]:
    path = str(tmp_path / "x.db")
    settings = config.with_flags(config.load(None, {"HOME": str(state_dir)}), listen=("127.0.0.1:0",), path=path)
    complaints: list[str] = []
    async with running(settings) as daemon, aiohttp.ClientSession() as service:
        base = daemon.listener.addresses[0] if daemon.listener else ""
        context = await browser.new_context(viewport={"width": 1360, "height": 1000}, reduced_motion="reduce")
        signing = await context.new_page()
        await signing.goto(f"{base}/sign-in/{await daemon.sign_in_code()}")
        await signing.close()
        yield Town(daemon, service, context, base, complaints)
        await context.close()
    assert not complaints


def number(page: Page, term: str) -> Any:
    return page.locator(".ledger li", has_text=term).locator("b")


async def test_an_event_is_on_the_page_soon_and_nothing_shifts(town: Town) -> None:
    await town.send(*begun(1, end="finished"))
    page = await town.live("/?window=1h")
    await expect(number(page, "Began")).to_have_text("1")
    took = []
    for count in range(2, 8):
        began = time.monotonic()
        await town.send(*begun(1, end="finished"))
        await expect(number(page, "Began")).to_have_text(str(count), timeout=10_000)
        took.append(time.monotonic() - began)
    print(f"event to pixel: median {statistics.median(took):.2f} s, worst {max(took):.2f} s of {len(took)}")
    assert await page.evaluate("window.shifts") == []
    assert max(took) < 10


async def test_new_tasks_are_counted_on_a_pill_and_no_row_moves(town: Town) -> None:
    await town.send(*begun(5, "first", end="finished"), *begun(6, "second", deadline=3600))
    page = await town.live("/tasks")
    before = await page.locator("tbody tr").evaluate_all("rows => rows.map(r => [r.dataset.id, r.getBoundingClientRect().top])")
    await town.send(*begun(1, "new", end="finished"), *begun(1, "newer", end="finished"))
    await expect(page.locator("#pill")).to_have_text("2 new: show", timeout=10_000)
    after = await page.locator("tbody tr").evaluate_all("rows => rows.map(r => [r.dataset.id, r.getBoundingClientRect().top])")
    assert after == before
    assert await page.evaluate("window.shifts") == []
    await page.locator("#pill").click()
    await expect(page.locator("tbody tr")).to_have_count(4)


async def test_a_row_changes_in_place(town: Town) -> None:
    open_task = begun(2, "slow", deadline=3600)
    await town.send(*open_task)
    page = await town.live("/tasks")
    await expect(page.locator("tbody tr .state")).to_contain_text("running")
    row = await page.locator("tbody tr").element_handle()
    await town.send(open_task[0] | {"type": "finished", "at": begun(0)[0]["at"]})
    await expect(page.locator("tbody tr .state")).to_contain_text("succeeded", timeout=10_000)
    assert row is not None
    assert await row.evaluate("row => row.isConnected"), "the row itself stays: who has it in focus keeps it"


async def test_two_lists_of_one_page_are_each_compared_with_themselves(town: Town) -> None:
    parent, child, beside = (begun(2, name, deadline=3600)[0] for name in ("parent", "child", "beside"))
    batch = {"instance": {"id": str(uuid.uuid4()), "service": "shop"}}
    batch["events"] = [parent, child | {"parent": parent["task"]}, beside]  # type: ignore[assignment]
    async with town.service.post(f"{town.base}/api/v1/events", json=batch) as answer:
        assert answer.status == 200, await answer.text()
    page = await town.live(f"/tasks/{parent['task']}")
    ended = child | {"type": "finished", "at": begun(0)[0]["at"]}
    async with town.service.post(f"{town.base}/api/v1/events", json=batch | {"events": [ended]}) as answer:
        assert answer.status == 200, await answer.text()
    children = page.get_by_role("region", name="Tasks that this one began")
    await expect(children.locator(".state")).to_contain_text("succeeded", timeout=10_000)
    assert await page.locator("tr.past").count() == 0
    assert await page.locator("#pill").count() == 0


async def test_nothing_changes_while_rows_are_selected_and_all_of_it_comes_afterwards(town: Town) -> None:
    await town.send(*begun(5, "first", end="finished"))
    page = await town.live("/tasks")
    await page.locator("tbody input[type=checkbox]").check()
    await expect(page.locator("#live")).to_have_text("Paused: rows are selected")
    await town.send(*begun(1, "new", end="finished"))
    await page.wait_for_timeout(1_500)
    assert await page.locator("#pill").count() == 0
    await page.locator("[data-none]").click()
    await expect(page.locator("#pill")).to_have_text("1 new: show", timeout=10_000)
    await expect(page.locator("#live")).to_have_text("Live")


async def test_pause_is_a_key_and_a_button_and_says_so(town: Town) -> None:
    await town.send(*begun(5, "first", end="finished"))
    page = await town.live("/?window=1h")
    await page.keyboard.press("p")
    await expect(page.locator("#live")).to_have_text("Paused")
    await town.send(*begun(1, end="finished"))
    await page.wait_for_timeout(1_500)
    await expect(number(page, "Began")).to_have_text("1")
    await page.locator("#live").click()
    await expect(number(page, "Began")).to_have_text("2", timeout=10_000)


async def test_twelve_tabs_of_one_browser_share_one_stream(town: Town) -> None:
    await town.send(*begun(5, end="finished"))
    pages = [await town.live("/?window=1h") for _ in range(TABS)]
    async with asyncio.timeout(10):  # the page of another test may still be hanging up
        while town.daemon.streams.listening != 1:  # noqa: ASYNC110 - nothing tells us
            await asyncio.sleep(0.05)
    await town.send(*begun(1, end="finished"))
    for page in pages:
        await page.bring_to_front()
        await expect(number(page, "Began")).to_have_text("2", timeout=10_000)


async def test_a_daemon_that_goes_away_is_said_and_found_again(
    browser: Browser, tmp_path: Path, state_dir: Path, port: int
) -> None:
    path = str(tmp_path / "x.db")
    settings = config.with_flags(config.load(None, {"HOME": str(state_dir)}), listen=(f"127.0.0.1:{port}",), path=path)
    base = f"http://127.0.0.1:{port}"
    context = await browser.new_context()
    page = await context.new_page()
    async with running(settings) as daemon, aiohttp.ClientSession() as service:
        await service.post(f"{base}/api/v1/events", json=begun(5, end="finished"))
        await page.goto(f"{base}/sign-in/{await daemon.sign_in_code()}")
        await page.goto(f"{base}/?window=1h")
        await expect(page.locator("#live")).to_have_text("Live", timeout=10_000)
    await expect(page.locator("#live")).to_have_text("Reconnecting", timeout=10_000)
    await expect(number(page, "Began")).to_have_text("1"), "what was known stays"
    async with running(settings), aiohttp.ClientSession() as service:
        await service.post(f"{base}/api/v1/events", json=begun(1, end="finished"))
        await expect(page.locator("#live")).to_have_text("Live", timeout=20_000)
        await expect(number(page, "Began")).to_have_text("2", timeout=10_000)
    await context.close()


async def test_silence_turns_the_numbers_grey_with_the_time(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    await town.send(*begun(5, end="finished"))
    page = await town.open("/?window=1h")
    await expect(page.locator("#live")).to_have_text("Live", timeout=10_000)
    monkeypatch.setattr("looseends_daemon.http.stream.ALIVE_S", 600.0)
    await asyncio.sleep(5.5)  # the wait that was under way ends with its own `alive`
    await page.evaluate("{ const real = Date.now; Date.now = () => real() + 20000; }")
    await expect(page.locator("#live")).to_contain_text("Stale since", timeout=5_000)
    assert await page.locator("body").get_attribute("class") == "stale"


async def test_a_session_that_ended_is_said_and_nothing_is_taken_for_fresh(town: Town) -> None:
    await town.send(*begun(5, end="finished"))
    page = await town.live("/?window=1h")
    await town.context.clear_cookies()
    await town.send(*begun(1, end="finished"))
    await expect(page.locator("#live")).to_have_text("Signed out", timeout=10_000)
    assert town.complaints == [] or all("401" in one for one in town.complaints)
