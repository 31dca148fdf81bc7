"""Whoever is on call, in a real browser: what the stories of a replay have in common."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page
from town import PYTHON, Town

from harness import Process, wait_until

LOST = int(os.environ.get("INCIDENT_TASKS", "60"))
"""INCIDENT_TASKS=500 for the full length; INCIDENT_SHOTS=folder keeps pictures of every page."""
SHOTS = os.environ.get("INCIDENT_SHOTS")
MAILER = Path(__file__).with_name("mailer.py")


class Operator:
    """Counts the clicks of one story (a drag is one), takes pictures."""

    def __init__(self, page: Page, story: str = "") -> None:
        self.page, self.story, self.clicks, self.shots, self.began = page, story, 0, 0, time.monotonic()

    def click(self, role: Any, name: str) -> None:
        """Press the first link or button of the page with this name."""
        self.press(self.page.get_by_role("main").get_by_role(role, name=re.compile(name)).first)

    def press(self, what: Locator) -> None:
        """Press this."""
        what.click()
        self.clicks += 1
        self.shot()

    def drag(self, box: Locator, first: float, last: float) -> None:
        """Draw a window on a picture with the mouse, between two shares of its width."""
        place = box.bounding_box()
        assert place is not None
        x, y = (lambda share: place["x"] + share * place["width"]), place["y"] + place["height"] / 2
        self.page.mouse.move(x(first), y)
        self.page.mouse.down()
        self.page.mouse.move(x((first + last) / 2), y, steps=4)
        self.page.mouse.move(x(last), y, steps=4)
        self.page.mouse.up()
        self.clicks += 1

    def shot(self) -> None:
        """Keep a picture, where pictures are wanted."""
        if SHOTS:
            self.shots += 1
            Path(SHOTS).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=f"{SHOTS}/{self.story}{self.shots:02}.png", full_page=True)


def start_mailer(town: Town, receipts: Path) -> Process:
    """mailer.py, up and running."""
    env = town.env(MAILER_RECEIPTS=str(receipts))
    mailer = town.processes.start(PYTHON, MAILER, env=env, stdin=True)
    mailer.wait_for("mailer is up")
    return mailer


def lose(town: Town, receipts: Path, count: int) -> tuple[str, Process]:
    """Begin `count` mails, kill the mailer in the middle of all of them, and start it anew: (the incident's id, the new one)."""
    mailer = start_mailer(town, receipts)
    mailer.say(f"many {count}")
    mailer.wait_for("begun")
    wait_until(lambda: town.api("/ledger")["tasks"] == count, "all of them to be told", 30)
    mailer.kill()
    mailer.hang_up()
    opened = town.notice(lambda n: n["type"].endswith(".opened"), "the notice", 30)
    wait_until(lambda: town.api("/ledger")["gap"] == count, "all of them to be judged", 60)
    mailer = start_mailer(town, receipts)
    task = town.tasks("is:loose")[0]["id"]
    wait_until(lambda: town.api(f"/tasks/{task}")["replayable"], "the new process to make its function known")
    incident: str = opened["data"]["incident"]["id"]
    return incident, mailer


def sign_in(town: Town, page: Page) -> None:
    """With the operator token, on the page that asks for it."""
    page.get_by_label("Token").fill(town.token)
    page.get_by_role("main").get_by_role("button", name="Sign in").click()


def counts(town: Town, replay: str) -> dict[str, int]:
    """How the orders of a replay stand."""
    found: dict[str, int] = town.api(f"/replays/{replay}")["counts"]
    return found


def still(town: Town, replay: str) -> int:
    """How many are done once nothing is under way any more."""

    def quiet() -> bool:
        found = counts(town, replay)
        return found["claimed"] + found["running"] == 0

    wait_until(quiet, "what was under way to end", 30)
    return counts(town, replay)["succeeded"]


def kill_daemon(town: Town) -> None:
    """SIGKILL."""
    assert town.daemon is not None
    town.daemon.kill()


def wait_for_the_end(town: Town, incident: str) -> None:
    """The receiver hears that the incident is resolved."""
    town.notice(lambda n: n["type"].endswith(".resolved") and n["data"]["incident"]["id"] == incident, "its end", 60)


def assert_each_once(town: Town, replay: str, receipts: Path, count: int) -> None:
    """Every mail went out once, by receipts of its own, and each new task names the one it runs again."""
    lines = [line.split() for line in receipts.read_text().splitlines()]
    assert len(lines) == count == len({line[2] for line in lines})
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
