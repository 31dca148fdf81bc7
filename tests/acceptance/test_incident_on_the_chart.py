"""An incident as a person with a browser lives it: from the notice to the chart, a window drawn on it, a plan, a run, the end."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from on_call import LOST, Operator, assert_each_once, counts, kill_daemon, lose, sign_in, still, wait_for_the_end
from playwright.sync_api import Page, expect
from town import Town

from browser.plain import plain_page
from harness import wait_until
from looseends.times import parse_time

CLICKS_MAX = 8
A_FEW = 12


@pytest.fixture
def page() -> Iterator[Page]:
    """A page of a real browser as people have it."""
    with plain_page(width=1280, height=900, javascript=True) as one:
        yield one


def bars(town: Town, page: Page) -> tuple[int, int, int]:
    """(the bar of the picture in which the first lost task began, that of the last one, how many bars there are)."""
    svg = page.locator("svg.gap")
    begin, end, count = (int(svg.get_attribute(f"data-{name}") or 0) for name in ("from", "to", "bars"))
    began = [parse_time(task["began_at"]) // 1_000_000 for task in town.tasks("is:loose")]
    assert began and begin <= min(began) <= max(began) < end
    return (min(began) - begin) * count // (end - begin), (max(began) - begin) * count // (end - begin), count


def test_from_the_notice_to_a_window_on_the_chart_to_the_resolved_notice(town: Town, page: Page) -> None:
    receipts = town.folder / "mails"
    town.start_receiver()
    town.start_daemon()
    incident, mailer = lose(town, receipts, LOST)

    one = Operator(page, "chart-")
    page.goto(f"http://127.0.0.1:{town.port}/incidents/{incident}")
    sign_in(town, page)
    one.shot()
    one.press(page.get_by_role("link", name="Overview"))
    first, last, count = bars(town, page)
    one.drag(page.locator(".brush"), (first - 0.5) / count, (last + 1.2) / count)
    expect(page.locator("#picked")).to_contain_text(f"{LOST} unaccounted")
    one.shot()
    one.press(page.locator("#picked").get_by_role("link", name=f"Replay {LOST}…"))
    one.click("button", "Make the plan")
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Plan to run {LOST} tasks again")
    page.get_by_label("Then so many a second").fill("50")
    one.click("button", rf"Run {LOST} that are ready")
    page.wait_for_url("**/replays/rpl_*")
    replay = page.url.rpartition("/")[2]

    wait_until(lambda: counts(town, replay)["succeeded"] >= 10, "the canary to pass and the rest to begin", 60)
    one.click("button", "Pause")
    expect(page.get_by_role("main")).to_contain_text("Paused by")
    settled = still(town, replay)
    assert 10 <= settled < LOST, "it was paused in the middle"
    kill_daemon(town)
    one.shot()
    town.start_daemon()
    page.reload()
    expect(page.get_by_role("main")).to_contain_text("Paused by")
    one.shot()
    assert counts(town, replay)["succeeded"] == settled
    assert_laid_out(page)
    one.click("button", "Resume")
    expect(page.get_by_role("heading", level=1)).to_contain_text("done", timeout=120_000)
    one.shot()
    assert counts(town, replay)["succeeded"] == LOST
    assert one.clicks <= CLICKS_MAX

    wait_for_the_end(town, incident)
    seconds = time.monotonic() - one.began
    page.goto(f"http://127.0.0.1:{town.port}/incidents/{incident}")
    one.shot()
    mailer.hang_up()
    assert_each_once(town, replay, receipts, LOST)
    print(f"\n{LOST} lost, {one.clicks} clicks, {seconds:.1f} s from the link in the notice to the resolved notice")


def assert_laid_out(page: Page) -> None:
    """The head of the table stands above its rows and is as wide; on a phone a row is a card that nothing sticks out of."""
    head, body = page.locator("table.stacked thead").bounding_box(), page.locator("table.stacked tbody").bounding_box()
    assert head is not None and body is not None
    assert abs(head["width"] - body["width"]) < 2 and head["y"] + head["height"] <= body["y"] + 1
    page.set_viewport_size({"width": 390, "height": 844})
    expect(page.locator("table.stacked thead")).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.set_viewport_size({"width": 1280, "height": 900})


def test_the_window_is_drawn_and_replayed_with_the_keyboard_alone(town: Town, page: Page) -> None:
    town.start_receiver()
    town.start_daemon()
    _, mailer = lose(town, town.folder / "mails", A_FEW)

    page.goto(f"http://127.0.0.1:{town.port}/?window=1h")
    sign_in(town, page)
    first, _, count = bars(town, page)
    tab_to(page, ".brush")
    page.keyboard.press("End")
    for _ in range(count - first):
        page.keyboard.press("Shift+ArrowLeft")
    expect(page.locator("#picked")).to_contain_text(f"{A_FEW} unaccounted")
    Operator(page, "keys-").shot()
    tab_to(page, "#picked [data-replay]")
    page.keyboard.press("Enter")
    page.wait_for_url("**/replays/new?*")
    tab_to(page, "main button.primary")
    page.keyboard.press("Enter")
    page.wait_for_url("**/plans/*")
    tab_to(page, "main button.primary")
    page.keyboard.press("Enter")
    page.wait_for_url("**/replays/rpl_*")
    replay = page.url.rpartition("/")[2]
    wait_until(lambda: counts(town, replay)["succeeded"] == A_FEW, "all of them to be done", 60)
    mailer.hang_up()
    assert_each_once(town, replay, town.folder / "mails", A_FEW)


def tab_to(page: Page, selector: str, presses_max: int = 80) -> None:
    """Go there by Tab alone."""
    for _ in range(presses_max):
        page.keyboard.press("Tab")
        if page.evaluate("wanted => document.activeElement.matches(wanted)", selector):
            return
    raise AssertionError(f"{selector} is not reached by {presses_max} presses of Tab")


def test_the_page_of_an_incident_leads_to_a_plan_of_its_open_loose_ends(town: Town, page: Page) -> None:
    town.start_receiver()
    town.start_daemon()
    incident, mailer = lose(town, town.folder / "mails", A_FEW)

    one = Operator(page, "incident-")
    page.goto(f"http://127.0.0.1:{town.port}/incidents/{incident}")
    sign_in(town, page)
    one.click("link", f"Replay {A_FEW}…")
    assert page.url.endswith(f"/replays/new?incident={incident}")
    one.click("button", "Make the plan")
    one.click("button", f"Run {A_FEW} that are ready")
    page.wait_for_url("**/replays/rpl_*")
    wait_for_the_end(town, incident)
    mailer.hang_up()
    assert_each_once(town, page.url.rpartition("/")[2], town.folder / "mails", A_FEW)
    assert one.clicks == 3
