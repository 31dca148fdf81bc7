"""However a plan is run twice, it is run once: double click, back button, two browsers, two operators, in real browsers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from on_call import Operator, assert_each_once, counts, lose, sign_in
from playwright.sync_api import Browser, Locator, Page, expect
from town import Town

from browser.plain import plain_browser
from harness import wait_until

LOST = 24


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A real browser; each of its contexts is a person with a machine of his own."""
    with plain_browser() as one:
        yield one


class Story:
    """Tasks that were lost, and people who look at the same plan of them."""

    def __init__(self, town: Town, browser: Browser) -> None:
        self.town, self.browser = town, browser
        self.base, self.receipts = f"http://127.0.0.1:{town.port}", town.folder / "mails"
        town.start_receiver()
        town.start_daemon()
        _, self.mailer = lose(town, self.receipts, LOST)

    def person(self, path: str, javascript: bool = True) -> Page:
        """Somebody who is signed in and looks at this page."""
        page = self.browser.new_context(java_script_enabled=javascript, viewport={"width": 1280, "height": 900}).new_page()
        page.goto(f"{self.base}{path}")
        sign_in(self.town, page)
        page.wait_for_url(f"**{path.partition('?')[0]}*")
        return page

    def plan(self, page: Page) -> str:
        """Make a plan of everything loose; its path."""
        page.goto(f"{self.base}/replays/new?q=is:loose")
        page.get_by_role("button", name="Make the plan").click()
        page.wait_for_url("**/plans/*")
        return page.url.removeprefix(self.base)

    def assert_one_replay(self) -> str:
        """One replay, every mail sent once; its id."""
        (replay,) = self.town.api("/replays")["items"]
        wait_until(lambda: counts(self.town, replay["id"])["succeeded"] == LOST, "all of them to be done", 60)
        self.mailer.hang_up()
        assert_each_once(self.town, replay["id"], Path(self.receipts), LOST)
        found: str = replay["id"]
        return found


@pytest.fixture
def story(town: Town, browser: Browser) -> Story:
    return Story(town, browser)


def run(page: Page) -> Locator:
    """The button that starts it."""
    return page.get_by_role("button", name=f"Run {LOST} that are ready")


@pytest.mark.parametrize("javascript", [True, False], ids=["with JavaScript", "without"])
def test_a_double_click_is_one_run(story: Story, javascript: bool) -> None:
    page = story.person("/replays", javascript)
    story.plan(page)
    run(page).dblclick()
    expect(page).to_have_url(re.compile("/replays/rpl_"), timeout=30_000)
    assert page.url.rpartition("/")[2] == story.assert_one_replay()


@pytest.mark.parametrize("javascript", [True, False], ids=["with JavaScript", "without"])
def test_the_back_button_leads_to_a_plan_that_says_it_is_run(story: Story, javascript: bool) -> None:
    page = story.person("/replays", javascript)
    story.plan(page)
    run(page).click()
    page.wait_for_url("**/replays/rpl_*")
    replay = page.url.rpartition("/")[2]
    page.go_back()
    page.wait_for_url("**/plans/*")
    Operator(page, "back-").shot()
    again = page.get_by_role("button", name="Run ")
    if again.count():  # a browser that shows the page as it was left
        page.get_by_label("Then so many a second").fill("20")
        again.click()
        page.wait_for_load_state()
        Operator(page, "back-again-").shot()
    page.get_by_role("main").get_by_role("link", name=replay).first.click()
    page.wait_for_url(f"**/replays/{replay}")
    assert story.assert_one_replay() == replay


def test_two_people_with_the_same_plan_make_one_run_and_the_second_is_led_to_it(story: Story) -> None:
    ada, bob = story.person("/replays"), story.person("/replays")
    path = story.plan(ada)
    bob.goto(f"{story.base}{path}")
    run(ada).click()
    run(bob).click()
    ada.wait_for_url("**/replays/rpl_*")
    expect(bob.get_by_role("alert")).to_contain_text("This plan was run already")
    Operator(bob, "second-").shot()
    replay = ada.url.rpartition("/")[2]
    bob.get_by_role("main").get_by_role("link", name=replay).first.click()
    bob.wait_for_url(f"**/replays/{replay}")
    assert story.assert_one_replay() == replay


def test_two_people_with_plans_of_the_same_tasks_make_one_run(story: Story) -> None:
    ada, bob = story.person("/replays"), story.person("/replays")
    story.plan(ada)
    story.plan(bob)
    run(ada).click()
    ada.wait_for_url("**/replays/rpl_*")
    wait_until(lambda: counts(story.town, ada.url.rpartition("/")[2])["succeeded"] > 0, "the first of them to be done")
    run(bob).click()
    expect(bob.get_by_role("alert")).to_contain_text("changed since this plan was made")
    Operator(bob, "changed-").shot()
    story.assert_one_replay()
