"""A real browser in front of the pages. Without one the tests are skipped aloud; with REQUIRE_ALL=1 that is a failure."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser, Page, async_playwright

from browser.chromium import FLAGS, Chromium, NoChromium, find
from dashboard import shop
from dashboard.fakes import FakeReader, make_app

Open = Callable[..., Awaitable[Page]]
Serve = Callable[..., Awaitable[str]]


@pytest.fixture(scope="session")
def chromium() -> Chromium:
    """The browser to test with."""
    try:
        return find()
    except NoChromium as error:
        if os.environ.get("REQUIRE_ALL", "") not in ("", "0"):
            pytest.fail(f"the browser tests did not run: {error}")
        pytest.skip(f"THE BROWSER TESTS DID NOT RUN: {error}")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(chromium: Chromium) -> AsyncIterator[Browser]:
    """One browser for all tests; each test opens contexts of its own."""
    async with async_playwright() as driver:
        started = await driver.chromium.launch(
            executable_path=chromium.path, args=list(FLAGS), env={**chromium.environment()}, headless=True
        )
        yield started
        await started.close()


@pytest_asyncio.fixture(loop_scope="session")
async def serve() -> AsyncIterator[Serve]:
    """serve(reader, commands=None) -> the address of an application of the pages."""
    runners: list[web.AppRunner] = []

    async def start(reader: FakeReader, **more: Any) -> str:
        runner = web.AppRunner(make_app(reader, shop.NOW, **more))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        runners.append(runner)
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest_asyncio.fixture(loop_scope="session")
async def open_page(browser: Browser) -> AsyncIterator[Open]:
    """open_page(base, answers="4", **context options) -> a page that may speak to `base` only, and whose console stays quiet."""
    complaints: list[str] = []
    contexts = []

    async def opened(base: str, answers: str = "4", **options: Any) -> Page:
        context = await browser.new_context(base_url=base, **options)
        contexts.append(context)
        page = await context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if _is_complaint(message, answers) else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda asked: None if asked.url.startswith(base) else complaints.append(f"asked {asked.url}"))
        return page

    yield opened
    for context in contexts:
        await context.close()
    assert not complaints


def _is_complaint(message: Any, answers: str) -> bool:
    """Errors and warnings; not the browser's remark on a status that begins with `answers`, such as a 404 that was asked for."""
    asked_for = f"the server responded with a status of {answers}" in message.text
    return message.type in ("error", "warning") and not asked_for
