"""Every act in a browser without JavaScript, over a real daemon and a real receiver of its notices: find, open, dismiss, undo,
acknowledge, silence, end, test, disable, enable, resend, lose on purpose.

Replay one: tests/acceptance/test_replay_in_a_browser.py.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser, Page, expect

from daemon.notify.conftest import webhook_table
from looseends.wire import format_time
from looseends_daemon import config
from looseends_daemon.app import Daemon, running

pytestmark = pytest.mark.asyncio(loop_scope="session")
WAIT_MS = 20_000


@dataclass
class Desk:
    """A daemon that tells a receiver, and an operator's browser without JavaScript."""

    daemon: Daemon
    page: Page
    base: str
    client: aiohttp.ClientSession
    heard: list[dict[str, Any]] = field(default_factory=list)
    rang: asyncio.Event = field(default_factory=asyncio.Event)

    async def lose(self, name: str, **more: Any) -> str:
        """A task that is past its deadline; its id, once its page says so."""
        task = str(uuid.uuid4())
        began = format_time(time.time_ns() - 60 * 1_000_000_000)
        event = {"type": "started", "task": task, "name": name, "service": "shop", "at": began, "deadline": 1, **more}
        async with self.client.post(f"{self.base}/api/v1/events", json=[event]) as answer:
            assert answer.status == 200, await answer.text()
        await self.until(f"/tasks/{task}", "Stuck:")
        return task

    async def until(self, path: str, text: str) -> None:
        """Look again, as a person without JavaScript does, until the page says this."""
        async with asyncio.timeout(WAIT_MS / 1000):
            while True:
                await self.page.goto(f"{self.base}{path}")
                if text in await self.page.locator("main").inner_text():
                    return

    async def press(self, name: str) -> None:
        await self.page.get_by_role("main").get_by_role("button", name=name, exact=True).first.click()

    async def says(self, text: str) -> None:
        await expect(self.page.get_by_role("main")).to_contain_text(text)


@pytest_asyncio.fixture(loop_scope="session")
async def desk(browser: Browser, tmp_path: Path) -> AsyncIterator[Desk]:
    heard: list[dict[str, Any]] = []
    rang = asyncio.Event()

    async def hook(request: web.Request) -> web.Response:
        heard.append(await request.json())
        rang.set()
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/hook", hook)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    file = tmp_path / "config.toml"
    head = f'[server]\nlisten = ["127.0.0.1:0"]\n[storage]\npath = "{tmp_path}/x.db"\n[detect]\ngrace = "0s"\n'
    endpoint = webhook_table(f"http://127.0.0.1:{runner.addresses[0][1]}/hook", "pager")
    file.write_text(f'{head}[alerts]\ngroup_wait = "0s"\n{endpoint}')
    async with running(config.load(str(file), {"HOME": str(tmp_path)})) as daemon, aiohttp.ClientSession() as client:
        base = daemon.listener.addresses[0] if daemon.listener else ""
        context = await browser.new_context(java_script_enabled=False, viewport={"width": 390, "height": 844})
        page = await context.new_page()
        await page.goto(f"{base}/sign-in/{await daemon.sign_in_code()}")
        button = page.get_by_role("main").get_by_role("button")
        if await button.count() and "/sign-in" in page.url:
            await button.first.click()
        yield Desk(daemon, page, base, client, heard, rang)
        await context.close()
    await runner.cleanup()


async def test_find_open_dismiss_and_undo(desk: Desk) -> None:
    task = await desk.lose("mail.send", args={"order_id": 7})
    await desk.page.goto(f"{desk.base}/tasks")
    await desk.page.get_by_label("Query").fill("is:loose name:mail.*")
    await desk.press("Search")
    await desk.page.get_by_role("link", name="mail.send").first.click()
    assert desk.page.url.endswith(f"/tasks/{task}")
    await desk.says("Why?")
    await desk.says("Was a session, a loop or a pool closed under it?")
    await desk.page.get_by_text("Dismiss: nothing is to be done").click()
    await desk.page.get_by_label("Why, for whoever looks later").fill("a test order")
    await desk.press("Dismiss it")
    await desk.says("Dismissed. Before that, stuck")
    await desk.press("Undo")
    await desk.says("Taken back")
    await desk.until(f"/tasks/{task}", "Stuck:")
    await desk.page.goto(f"{desk.base}/audit")
    await desk.says("dismiss task")


async def test_acknowledge_dismiss_all_and_undo(desk: Desk) -> None:
    await desk.lose("mail.send")
    await desk.lose("mail.send")
    await desk.page.goto(f"{desk.base}/incidents")
    await desk.page.locator("tbody .what a").first.click()
    incident = desk.page.url
    await desk.page.get_by_label("Note").fill("I look into it")
    await desk.press("Acknowledge")
    assert desk.page.url == incident
    await desk.says("“I look into it”")
    await desk.page.get_by_text("Dismiss all 2").click()
    await desk.page.get_by_label("Why, for whoever looks later").fill("load test")
    await desk.press("Dismiss 2 loose ends")
    await desk.says("2 of 2 loose ends dismissed")
    await desk.press("Undo")
    await desk.says("2 of them taken back")


async def test_what_changed_since_it_was_looked_at_is_not_dismissed(desk: Desk) -> None:
    await desk.lose("mail.send")
    await desk.page.goto(f"{desk.base}/incidents")
    await desk.page.locator("tbody .what a").first.click()
    await desk.page.get_by_text("Dismiss all 1").click()
    await desk.page.get_by_label("Why, for whoever looks later").fill("I saw one")
    other = await desk.page.context.new_page()
    await Desk(desk.daemon, other, desk.base, desk.client).lose("mail.send")
    await desk.press("Dismiss 1 loose end")
    await desk.says("They are others by now")
    assert await desk.page.get_by_label("Why, for whoever looks later").input_value() == "I saw one"


async def test_silence_from_an_incident_see_what_it_hides_and_end_it(desk: Desk) -> None:
    await desk.lose("mail.send")
    await desk.page.goto(f"{desk.base}/incidents")
    await desk.page.locator("tbody .what a").first.click()
    incident = desk.page.url
    await desk.page.get_by_role("link", name="Silence…").click()
    typed = await desk.page.get_by_label("What must fit").input_value()
    assert typed.strip() == 'environment="production", service="shop", name="mail.send"'
    await desk.press("Show what it would hide")
    await desk.says("This would hide 1 incident")
    await desk.press("Silence")
    await expect(desk.page.locator("input:invalid")).to_have_id("comment"), "the browser itself asks for a few words"
    await desk.page.get_by_label("Why").fill("their API is down")
    await desk.press("Silence")
    await desk.says("“their API is down”")
    await desk.page.goto(incident)
    await desk.says("Silenced by")
    await desk.page.goto(f"{desk.base}/silences")
    await desk.page.get_by_role("button", name="End the silence").click()
    await desk.says("None is in force")
    await desk.page.get_by_label("What must fit").fill("nonsense=1")
    await desk.page.get_by_label("Why").fill("x")
    await desk.press("Silence")
    await desk.says("/matchers/0")
    assert await desk.page.get_by_label("What must fit").input_value() == "nonsense=1"


async def test_resend_test_disable_and_enable(desk: Desk) -> None:
    await desk.lose("mail.send")
    async with asyncio.timeout(WAIT_MS / 1000):
        await desk.rang.wait()
    await desk.until("/endpoints", "delivered")
    await desk.page.get_by_role("link", name="incident.opened").first.click()
    await desk.says("204")
    desk.rang.clear()
    await desk.press("Send again")
    await desk.says("manual resend")
    async with asyncio.timeout(WAIT_MS / 1000):
        await desk.rang.wait()
    assert desk.heard[-1]["data"]["incident"]["reason"] == "manual_resend"
    desk.rang.clear()
    await desk.page.goto(f"{desk.base}/endpoints")
    await desk.page.get_by_role("button", name="Send a test to pager").click()
    async with asyncio.timeout(WAIT_MS / 1000):
        await desk.rang.wait()
    assert desk.heard[-1]["type"] == "looseends.endpoint.test"
    await desk.page.goto(f"{desk.base}/endpoints")
    await desk.page.get_by_role("button", name="Disable pager").click()
    await desk.says("disabled")
    await desk.page.get_by_role("button", name="Enable pager").click()
    await expect(desk.page.get_by_role("button", name="Disable pager")).to_be_visible()


async def test_the_first_run_turns_green_and_a_task_can_be_lost_on_purpose(desk: Desk) -> None:
    await desk.page.goto(f"{desk.base}/setup?refresh=off")
    await desk.says("Waiting for the first event")
    await desk.press("Lose a task on purpose")
    await desk.says("demo.lost_on_purpose")
    await desk.until(desk.page.url.removeprefix(desk.base), "Stuck:")
    await desk.page.goto(f"{desk.base}/setup")
    await desk.says("Events are coming in.")
    await desk.page.goto(f"{desk.base}/types")
    await desk.page.get_by_role("link", name="demo.lost_on_purpose").click()
    await desk.says("None succeeded in this window")
    await desk.page.goto(f"{desk.base}/status")
    await desk.says("detector")
