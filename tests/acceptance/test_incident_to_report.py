"""An incident at full length: tasks lost at once, planned, run by canary and pace, through a pause and a killed daemon."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from on_call import LOST, Operator, assert_each_once, counts, kill_daemon, lose, sign_in, still, wait_for_the_end
from playwright.sync_api import Page
from town import Town

from browser.plain import plain_page
from harness import wait_until

CLICKS_MAX = 8


@pytest.fixture
def page() -> Iterator[Page]:
    """A page of a real browser, JavaScript off: every step is a plain form."""
    with plain_page(width=1280, height=900) as one:
        yield one


def test_an_incident_from_the_page_to_the_resolved_notice(town: Town, page: Page) -> None:
    receipts = town.folder / "mails"
    town.start_receiver()
    town.start_daemon()
    incident, mailer = lose(town, receipts, LOST)

    one = Operator(page, "plain-")
    page.goto(f"http://127.0.0.1:{town.port}/")
    sign_in(town, page)
    one.shot()
    one.click("link", rf"^Replay {LOST}…$")
    one.click("button", "Make the plan")
    assert f"{LOST} tasks again" in page.get_by_role("main").inner_text()
    page.get_by_label("Then so many a second").fill("50")
    one.click("button", rf"Run {LOST} that are ready")
    page.wait_for_url("**/replays/rpl_*")
    replay = page.url.rpartition("/")[2]

    wait_until(lambda: counts(town, replay)["succeeded"] >= 10, "the canary to pass and the rest to begin", 60)
    one.click("button", "Pause")
    settled = still(town, replay)
    assert 10 <= settled < LOST, "it was paused in the middle"
    kill_daemon(town)
    town.start_daemon()
    page.goto(page.url)
    one.shot()
    assert counts(town, replay)["succeeded"] == settled and "Paused by" in page.get_by_role("main").inner_text()
    one.click("button", "Resume")
    wait_until(lambda: counts(town, replay)["succeeded"] == LOST, "all of them to be done", 120)
    page.goto(page.url)
    one.shot()
    assert one.clicks <= CLICKS_MAX

    wait_for_the_end(town, incident)
    seconds = time.monotonic() - one.began
    mailer.hang_up()
    assert_each_once(town, replay, receipts, LOST)
    print(f"\n{LOST} lost, {one.clicks} clicks, {seconds:.1f} s from the overview to the resolved notice")
