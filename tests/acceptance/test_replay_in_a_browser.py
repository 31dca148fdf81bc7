"""From the link in the webhook, through sign-in, to a replay that settles the loss: one person, one browser, few clicks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page
from town import Town

from browser.plain import plain_page
from harness import wait_until

CLICKS_MAX = 4


@pytest.fixture
def page() -> Iterator[Page]:
    """A page of a real browser on a phone's width, JavaScript off: the pages must be complete without it."""
    with plain_page(width=390, height=844) as one:
        yield one


def receipts(town: Town) -> list[dict[str, Any]]:
    return [json.loads(line) for line in town.receipts.read_text().splitlines()] if town.receipts.exists() else []


def test_the_link_in_the_webhook_ends_in_a_replay_that_settles_the_loss(town: Town, page: Page) -> None:
    town.start_receiver()
    town.start_daemon()
    town.start_shop()
    eve = "eve+partner-slow@example.com"
    town.register(eve)
    wait_until(lambda: town.tasks(f"state:running name:partner.notify key:{eve}"), "the slow call to begin")
    town.kill_shop()
    notice, lost = town.told("lost", "partner.notify", eve)
    town.start_shop()
    wait_until(lambda: town.api(f"/tasks/{lost['id']}")["replayable"], "the restarted service to make its functions known")

    clicks = 0
    page.goto(notice["data"]["incident"]["url"])
    page.get_by_label("Token").fill(town.token)
    page.get_by_role("main").get_by_role("button", name="Sign in").click()
    assert page.url == notice["data"]["incident"]["url"]

    page.get_by_role("main").get_by_role("link", name="partner.notify").first.click()
    clicks += 1
    page.wait_for_url(f"**/tasks/{lost['id']}")
    page.get_by_role("button", name="Replay", exact=False).first.click()
    clicks += 1
    page.wait_for_url("**/replays/*")
    assert clicks <= CLICKS_MAX

    root = wait_until(lambda: settled(town, lost["id"]), "the replay to settle the loss")
    assert isinstance(root, dict)
    assert_linked_both_ways(town, root)
    assert_resolved_and_told(town, notice["data"]["incident"]["id"])
    assert [row["replay_of"] for row in receipts(town) if row["effect"] == "partner"] == [lost["id"]]
    page.goto(f"{notice['data']['incident']['url']}")
    assert "resolved" in page.get_by_role("main").inner_text()


def settled(town: Town, task: str) -> dict[str, Any] | None:
    found: dict[str, Any] = town.api(f"/tasks/{task}")
    return found if found["settled"] == "replayed" else None


def assert_linked_both_ways(town: Town, root: dict[str, Any]) -> None:
    """The old task is not edited, the new one is a task of its own, each names the other."""
    assert (root["state"], root["verdict"], root["loose"]) == ("running", "lost", False)
    (new_id,) = root["replays"]
    new = town.api(f"/tasks/{new_id}")
    assert (new["replay_of"], new["state"], new["args"]) == (root["id"], "succeeded", root["args"])
    assert new["instance"]["id"] != root["instance"]["id"]
    history = town.api(f"/tasks/{root['id']}/history")["items"]
    assert [row["what"] for row in history if row["kind"] == "judgement"][-1] == "settled"


def assert_resolved_and_told(town: Town, incident: str) -> None:
    """The incident resolves and the receiver hears it, once, signed."""

    def resolved(notice: dict[str, Any]) -> bool:
        return bool(notice["type"] == "looseends.incident.resolved" and notice["data"]["incident"]["id"] == incident)

    told = town.notice(resolved, "the resolved webhook")
    assert told["data"]["incident"]["resolution"] == "replayed"
    assert told["data"]["incident"]["counts"]["open"] == 0
    assert sum(resolved(notice) for notice in town.notices()) == 1
    acts = [(row["act"], row["actor"]) for row in town.api("/audit")["items"]]
    assert any("replay" in act for act, _ in acts), acts
