"""Eight jobs as somebody new does them: with the address of the first page and nothing else, by what is written on the pages.

Rules: only visible text is used, no address, no selector; a click is a press of the mouse on a link or a button, what is typed
is counted apart. The counts asserted are the fewest that the pages needed when this was written: a change that needs more has
made a job harder. Run with `-s` to see clicks and seconds, and with JOBS_PICTURES=folder to look at each step.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, expect

from browser import story

pytestmark = pytest.mark.asyncio(loop_scope="session")
WAIT_MS = 20_000


class Newcomer:
    """Somebody at the first page; `clicks` and `typed` count what they had to do."""

    def __init__(self, page: Page, base: str, job: str) -> None:
        self.page, self._base, self._job = page, base, job
        self.clicks = self.typed = self._pictures = 0
        self._since = time.monotonic()

    @property
    def main(self) -> Locator:
        """What the page is about."""
        return self.page.get_by_role("main")

    async def press(self, text: str, role: str = "link", inside: Locator | None = None) -> None:
        """One click on the first thing that says this."""
        found = (inside or self.page).get_by_role(role, name=text).first  # type: ignore[arg-type]
        await self.hit(found)

    async def hit(self, found: Locator) -> None:
        """One click on something that is seen."""
        await expect(found).to_be_visible(timeout=WAIT_MS)
        await found.click()
        await self.page.wait_for_load_state()
        self.clicks += 1
        await self.picture()

    async def write(self, into: str, text: str) -> None:
        """Type into a field that is labelled so, and press Enter."""
        await self.page.get_by_label(into).fill(text)
        await self.page.keyboard.press("Enter")
        await self.page.wait_for_url("**/tasks?q=*")
        self.typed += 1
        await self.picture()

    async def fill(self, label: str, text: str) -> None:
        """Type into a field that is labelled so."""
        await self.page.get_by_label(label).fill(text)
        self.typed += 1

    async def reads(self, *texts: str) -> None:
        """All of this stands on the page, and can be seen."""
        for text in texts:
            await expect(self.main.get_by_text(text).filter(visible=True).first).to_be_visible(timeout=WAIT_MS)

    async def picture(self) -> None:
        """For whoever wants to look."""
        folder = os.environ.get("JOBS_PICTURES")
        if folder:
            await self.page.screenshot(path=Path(folder) / f"{self._job}.{self._pictures}.png", full_page=True)
            self._pictures += 1

    def done(self, clicks: int, typed: int = 0) -> None:
        """The job is done, with no more than this."""
        print(f"\n{self._job}: {self.clicks} clicks, {self.typed} typed, {time.monotonic() - self._since:.1f} s of pages")
        assert (self.clicks, self.typed) == (clicks, typed)


@pytest_asyncio.fixture(loop_scope="session", params=[1360, 390], ids=["wide", "phone"])
async def newcomer(
    request: pytest.FixtureRequest, browser: Browser, tmp_path: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Newcomer]:
    """Signed in at the first page of the shop's Friday morning."""
    monkeypatch.setattr("looseends_daemon.store.reads.SEEK_S_MAX", 10.0)  # on a busy machine a click more would be needed
    complaints: list[str] = []
    async with story.told(tmp_path) as shop:
        context = await browser.new_context(viewport={"width": request.param, "height": 900}, reduced_motion="reduce")
        page = await context.new_page()
        page.on("console", lambda told: complaints.append(told.text) if told.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        await page.goto(f"{shop.base}/sign-in/{await shop.daemon.sign_in_code()}")
        await page.goto(shop.base)
        one = Newcomer(page, shop.base, f"{request.node.originalname.removeprefix('test_')}.{request.param}")
        await one.picture()
        yield one
        await context.close()
    assert not complaints


async def test_1_why_yesterdays_receipts_are_missing(newcomer: Newcomer) -> None:
    await newcomer.reads("16 tasks lost with process 4121 on web-2", "its process was killed")
    await newcomer.press("16 tasks lost when shop-web on web-2 died at 14:05")
    await newcomer.reads("mail.send_receipt", "its process was killed", "Replay 16")
    newcomer.done(clicks=1)


async def test_2_who_was_affected(newcomer: Newcomer) -> None:
    await newcomer.press("16 tasks lost with process 4121 on web-2")
    await newcomer.reads(f"order-{story.ORDER}", "CSV")
    await expect(newcomer.main.get_by_role("table").get_by_role("row")).to_have_count(1 + 16)
    if (newcomer.page.viewport_size or {})["width"] > 700:
        await newcomer.reads("eli1042@example.com")
    newcomer.done(clicks=1)


async def test_3_silence_a_noisy_type_for_two_hours(newcomer: Newcomer) -> None:
    await newcomer.press("partner.sync", inside=newcomer.page.get_by_role("region", name="Types"))
    await newcomer.press("Silence…")
    await expect(newcomer.page.get_by_label("For how long")).to_have_value("2h")
    await newcomer.fill("Why it may be quiet", "the partner moves house")
    await newcomer.press("Silence", role="button")
    await newcomer.reads("active", 'name="partner.sync"', "until 11:1")
    newcomer.done(clicks=3, typed=1)


async def test_4_a_task_by_an_argument(newcomer: Newcomer) -> None:
    await newcomer.write("Search tasks", f"dee{story.ORDER - 1}@example.com")
    await expect(newcomer.main.get_by_role("table").get_by_role("row")).to_have_count(1 + 2, timeout=WAIT_MS)
    await newcomer.press("mail.send_receipt", inside=newcomer.main.get_by_role("table"))
    await newcomer.reads("Lost", f"dee{story.ORDER - 1}@example.com")
    newcomer.done(clicks=1, typed=1)


async def test_5_is_web_2_healthy(newcomer: Newcomer) -> None:
    await newcomer.press("Instances")
    row = newcomer.page.get_by_role("row", name="pid 4377 web-2")
    await expect(row).to_contain_text("alive")
    await expect(newcomer.page.get_by_role("row", name="pid 4121 web-2")).to_contain_text("gone")
    newcomer.done(clicks=1)


async def test_6_what_changed_at_14_05(newcomer: Newcomer) -> None:
    await newcomer.reads("first sight of release 2026.11.3", "process 4121 on web-2 of shop-web ended without a goodbye")
    newcomer.done(clicks=0)


async def test_7_which_deadline_the_receipts_should_have(newcomer: Newcomer) -> None:
    await newcomer.press("mail.send_receipt", inside=newcomer.page.get_by_role("region", name="Types"))
    await newcomer.reads("Which deadline it should have", "suggested", 'deadline = "')
    newcomer.done(clicks=1)


async def test_8_replay_one(newcomer: Newcomer) -> None:
    await newcomer.press("16 tasks lost with process 4121 on web-2")
    await newcomer.press("mail.send_receipt", inside=newcomer.main.get_by_role("table"))
    await newcomer.press("Replay", role="button", inside=newcomer.main)
    await newcomer.reads("succeeded")
    newcomer.done(clicks=3)
