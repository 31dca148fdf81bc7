"""An incident at full length: tasks lost at once, planned, run by canary and pace, through a pause and a killed daemon."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, sync_playwright
from town import PYTHON, Town

from browser.chromium import FLAGS, NoChromium, find
from harness import Process, wait_until

LOST = int(os.environ.get("INCIDENT_TASKS", "60"))
"""INCIDENT_TASKS=500 for the full length; INCIDENT_SHOTS=folder keeps pictures of every page."""
SHOTS = os.environ.get("INCIDENT_SHOTS")
MAILER = Path(__file__).with_name("mailer.py")
CLICKS_MAX = 8


@pytest.fixture
def page() -> Iterator[Page]:
    """A page of a real browser, JavaScript off: every step is a plain form."""
    try:
        chromium = find()
    except NoChromium as error:
        if os.environ.get("REQUIRE_ALL", "") not in ("", "0"):
            pytest.fail(f"the browser tests did not run: {error}")
        pytest.skip(f"THE BROWSER TESTS DID NOT RUN: {error}")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium.path, args=list(FLAGS), env={**chromium.environment()})
        context = browser.new_context(java_script_enabled=False, viewport={"width": 1280, "height": 900})
        yield context.new_page()
        browser.close()


class Operator:
    """Whoever is on call: counts clicks, takes pictures."""

    def __init__(self, page: Page) -> None:
        self.page, self.clicks, self.shots, self.began = page, 0, 0, time.monotonic()

    def click(self, role: Any, name: str) -> None:
        self.page.get_by_role("main").get_by_role(role, name=re.compile(name)).first.click()
        self.clicks += 1
        self.shot()

    def shot(self) -> None:
        if SHOTS:
            self.shots += 1
            Path(SHOTS).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=f"{SHOTS}/{self.shots:02}.png", full_page=True)


def start_mailer(town: Town, receipts: Path) -> Process:
    env = town.env(MAILER_RECEIPTS=str(receipts))
    mailer = town.processes.start(PYTHON, MAILER, env=env, stdin=True)
    mailer.wait_for("mailer is up")
    return mailer


def sign_in(town: Town, page: Page) -> None:
    page.get_by_label("Token").fill(town.token)
    page.get_by_role("main").get_by_role("button", name="Sign in").click()


def counts(town: Town, replay: str) -> dict[str, int]:
    found: dict[str, int] = town.api(f"/replays/{replay}")["counts"]
    return found


def sent(receipts: Path) -> list[str]:
    return receipts.read_text().splitlines() if receipts.exists() else []


def test_an_incident_from_the_page_to_the_resolved_notice(town: Town, page: Page) -> None:
    receipts = town.folder / "mails"
    town.start_receiver()
    town.start_daemon()
    mailer = start_mailer(town, receipts)
    mailer.say(f"many {LOST}")
    mailer.wait_for("begun")
    wait_until(lambda: town.api("/ledger")["tasks"] == LOST, "all of them to be told", 30)
    mailer.kill()
    mailer.hang_up()
    opened = town.notice(lambda n: n["type"].endswith(".opened"), "the notice", 30)
    wait_until(lambda: town.api("/ledger")["gap"] == LOST, "all of them to be judged", 60)
    mailer = start_mailer(town, receipts)
    task = town.tasks("is:loose")[0]["id"]
    wait_until(lambda: town.api(f"/tasks/{task}")["replayable"], "the new process to make its function known")

    one = Operator(page)
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
    assert town.daemon is not None
    town.daemon.kill()
    town.start_daemon()
    page.goto(page.url)
    one.shot()
    assert counts(town, replay)["succeeded"] == settled and "Paused by" in page.get_by_role("main").inner_text()
    one.click("button", "Resume")
    wait_until(lambda: counts(town, replay)["succeeded"] == LOST, "all of them to be done", 120)
    page.goto(page.url)
    one.shot()
    assert one.clicks <= CLICKS_MAX

    incident = opened["data"]["incident"]["id"]
    town.notice(lambda n: n["type"].endswith(".resolved") and n["data"]["incident"]["id"] == incident, "its end", 60)
    seconds = time.monotonic() - one.began
    mailer.hang_up()
    assert_each_once(town, replay, receipts)
    print(f"\n{LOST} lost, {one.clicks} clicks, {seconds:.1f} s from the overview to the resolved notice")


def still(town: Town, replay: str) -> int:
    """How many are done once nothing is under way any more."""

    def quiet() -> bool:
        found = counts(town, replay)
        return found["claimed"] + found["running"] == 0

    wait_until(quiet, "what was under way to end", 30)
    return counts(town, replay)["succeeded"]


def assert_each_once(town: Town, replay: str, receipts: Path) -> None:
    lines = [line.split() for line in sent(receipts)]
    assert len(lines) == LOST == len({line[2] for line in lines}), "every mail went out once, by receipts of its own"
    items: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = town.api(f"/replays/{replay}/items?limit=500{cursor}")
        items += page["items"]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert {(item["new"]["id"], item["task"]) for item in items} == {(line[0], line[1]) for line in lines}
    for item in items[:3]:
        root = town.api(f"/tasks/{item['task']}")
        assert root["settled"] == "replayed" and root["replays"] == [item["new"]["id"]]
        assert town.api(f"/tasks/{item['new']['id']}")["replay_of"] == item["task"]
