"""Overview and task list in a real browser: the brush by mouse, finger and keyboard, search, selection, views, keys, zones."""

from __future__ import annotations

import re
import struct
import zlib
from typing import Any

import pytest
from playwright.async_api import Page, expect

from browser.conftest import Open, Serve
from dashboard import shop
from looseends_daemon.core.resources import Bucket

pytestmark = pytest.mark.asyncio(loop_scope="session")
NARROW = {"width": 390, "height": 844}


async def place_of(page: Page, share: float) -> tuple[float, float]:
    """A point of the picture, so far from its left edge."""
    box = await page.locator("svg.gap").bounding_box()
    assert box is not None
    return box["x"] + box["width"] * share, box["y"] + box["height"] / 2


async def drag(page: Page, first: float, last: float) -> None:
    await page.mouse.move(*await place_of(page, first))
    await page.mouse.down()
    await page.mouse.move(*await place_of(page, last), steps=4)
    await page.mouse.up()


# --- the brush ----------------------------------------------------------------------------------------------------


async def test_dragging_says_what_the_selection_holds_and_leads_on(serve: Serve, open_page: Open) -> None:
    reader = shop.full()
    base = await serve(reader)
    page = await open_page(base)
    await page.goto("/?window=24h")
    await drag(page, 0.98, 0.9999)
    line = page.locator("#picked")
    await expect(line).to_contain_text("38 unaccounted")
    words = await line.inner_text()
    assert re.search(r"\d\d:\d\d to \d\d:\d\d: [\d,]+ began, 38 unaccounted, \d+ failed", words), words
    asked = await page.evaluate("Object.fromEntries(new URLSearchParams(location.search))")
    began = sum(b.tasks for b in reader.buckets if shop.parse_time(asked["sel_from"]) <= b.at < shop.parse_time(asked["sel_to"]))
    assert f"{began:,} began" in words, "the line is the ledger's own count"
    replay = await line.get_by_role("link", name=re.compile("Replay 38")).get_attribute("href")
    assert replay is not None
    assert replay.startswith("/replays/new?q=is%3Agap")
    await line.get_by_role("link", name="Zoom in").click()
    assert "from=" in page.url
    await page.go_back()
    await expect(page.locator("#picked")).to_contain_text("38 unaccounted")


async def test_a_shared_selection_is_drawn_without_javascript(serve: Serve, open_page: Open) -> None:
    page = await open_page(await serve(shop.full()), java_script_enabled=False)
    await page.goto("/?window=24h&sel_from=2026-11-20T14:00:00Z&sel_to=2026-11-20T14:10:00Z")
    await expect(page.locator("#picked")).to_contain_text("14:00 to 14:10")
    box = await page.locator("rect.picked").bounding_box()
    assert box is not None
    assert box["width"] > 2
    await page.get_by_role("link", name="Clear").click()
    await expect(page.locator("#picked")).to_contain_text("In the last 24 hours")


async def test_the_keyboard_selects_zooms_and_clears(serve: Serve, open_page: Open) -> None:
    page = await open_page(await serve(shop.full()))
    await page.goto("/?window=1h")
    brush = page.get_by_role("slider")
    await brush.focus()
    await page.keyboard.press("End")
    for _ in range(5):
        await page.keyboard.press("Shift+ArrowLeft")
    await expect(page.locator("#picked")).to_contain_text("14:05 to 14:11")
    assert await brush.get_attribute("aria-valuetext") == "2026-11-20 14:05 to 2026-11-20 14:11 UTC"
    await page.keyboard.press("Escape")
    await expect(page.locator("#picked")).to_contain_text("In the last hour")
    assert "sel_from" not in page.url
    await page.keyboard.press("End")
    await page.keyboard.press("Shift+ArrowLeft")
    await expect(page.get_by_role("link", name="Zoom in")).to_be_visible()
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/?from=*")
    await expect(page.locator("h1")).to_contain_text("14:09 to 14:11")


async def test_a_finger_selects_and_a_finger_that_scrolls_does_not(serve: Serve, open_page: Open) -> None:
    page = await open_page(await serve(shop.full()), viewport=NARROW, has_touch=True)
    await page.goto("/?window=24h")

    async def touch(*events: tuple[str, float]) -> None:
        for kind, share in events:
            x, y = await place_of(page, share)
            options = {"pointerType": "touch", "pointerId": 1, "button": 0, "isPrimary": True, "clientX": x, "clientY": y}
            await page.locator(".brush").dispatch_event(kind, options)

    await page.evaluate("Element.prototype.setPointerCapture = () => {}; Element.prototype.hasPointerCapture = () => true")
    await touch(("pointerdown", 0.4), ("pointermove", 0.5), ("pointercancel", 0.5))
    assert float((await page.locator("rect.picked").get_attribute("width") or "1%").rstrip("%")) == 0
    await touch(("pointerdown", 0.4), ("pointermove", 0.6), ("pointerup", 0.6))
    await expect(page.locator("#picked")).to_contain_text(" to ")
    assert await page.evaluate("getComputedStyle(document.querySelector('.brush')).touchAction") == "pan-y"


# --- one among millions -------------------------------------------------------------------------------------------


def pixels(png: bytes) -> list[list[tuple[int, int, int]]]:
    """A picture as rows of colours: 8 bits, RGB or RGBA, as Chromium writes it."""
    width, height, depth, kind = struct.unpack(">IIBB", png[16:26])
    assert depth == 8
    step = {2: 3, 6: 4}[kind]
    packed, at = b"", 8
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        if png[at + 4 : at + 8] == b"IDAT":
            packed += png[at + 8 : at + 8 + size]
        at += size + 12
    raw, rows, above = zlib.decompress(packed), [], bytes(width * step)
    for y in range(height):
        start = y * (width * step + 1)
        above = _unfiltered(raw[start], bytearray(raw[start + 1 : start + 1 + width * step]), above, step)
        rows.append([(above[x], above[x + 1], above[x + 2]) for x in range(0, len(above), step)])
    return rows


def _unfiltered(kind: int, row: bytearray, above: bytes, step: int) -> bytes:
    for x in range(len(row)):
        left, up, corner = (row[x - step] if x >= step else 0), above[x], (above[x - step] if x >= step else 0)
        guess = left + up - corner
        nearest = min((left, up, corner), key=lambda v: abs(guess - v))
        row[x] = (row[x] + (0, left, up, (left + up) // 2, nearest)[kind]) & 255
    return bytes(row)


def blocks(rows: list[list[tuple[int, int, int]]], colour: tuple[int, int, int], width: int, height: int) -> int:
    """How many places there are where a whole block of this size has the colour."""
    same = [[pixel == colour for pixel in row] for row in rows]
    return sum(
        all(same[y + dy][x + dx] for dy in range(height) for dx in range(width))
        for y in range(len(same) - height)
        for x in range(len(same[0]) - width)
    )


def week(gap: int) -> list[Bucket]:
    """Seven days of 180 tasks a minute: 1.8 million, with so many of the gap in one minute of the fourth."""
    rows = []
    for minute in range(7 * 1440):
        lost = gap if minute == 5_000 else 0
        rows.append(Bucket(at=shop.NOW - minute * shop.MINUTE, tasks=180, succeeded=180 - lost, gap=lost, loose=lost))
    return rows


@pytest.mark.parametrize(("scheme", "colour"), [("light", (0xC2, 0x44, 0x00)), ("dark", (0xFF, 0x8A, 0x3D))])
async def test_one_task_of_the_gap_among_1_8_million_is_seen_at_390_px(
    serve: Serve, open_page: Open, scheme: str, colour: tuple[int, int, int]
) -> None:
    seen = {}
    for gap in (0, 1):
        reader = shop.calm()
        reader.buckets = week(gap)
        page = await open_page(await serve(reader), viewport=NARROW, color_scheme=scheme)
        await page.goto("/?window=7d")
        assert await page.locator(".ledger b").first.inner_text() >= "1,81"
        shot = await page.locator("svg.gap").screenshot(animations="disabled")
        seen[gap] = blocks(pixels(shot), colour, 3, 7)
    assert seen[0] == 0, "the colour of the gap is nowhere else"
    assert seen[1] >= 1, "at least 3 x 7 px"


# --- search -------------------------------------------------------------------------------------------------------


async def test_suggestions_are_taken_by_keyboard_and_enter_alone_still_searches(serve: Serve, open_page: Open) -> None:
    page = await open_page(await serve(shop.full()))
    await page.goto("/tasks")
    field = page.get_by_label("Query")
    await field.focus()
    await page.keyboard.type("is:loose na")
    await expect(page.get_by_role("option")).to_have_count(1)
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Enter")
    await expect(field).to_have_value("is:loose name:")
    await expect(page.get_by_role("option").first).to_be_visible()
    await page.keyboard.type("mail.send_r")
    await expect(page.get_by_role("option")).to_have_text(["mail.send_receipt"])
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Enter")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/tasks?q=*")
    await expect(page.locator("tbody tr")).to_have_count(1)


async def test_escape_closes_the_suggestions_and_keeps_what_was_typed(serve: Serve, open_page: Open) -> None:
    page = await open_page(await serve(shop.full()))
    await page.goto("/tasks")
    field = page.get_by_label("Query")
    await field.focus()
    await page.keyboard.type("st")
    await expect(page.get_by_role("listbox")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.locator(".suggestions").first).to_be_hidden()
    await expect(field).to_have_value("st")


async def test_a_facet_narrows_and_a_second_press_lets_go(serve: Serve, open_page: Open) -> None:
    page = await open_page(await serve(shop.full()), java_script_enabled=False)
    await page.goto("/tasks?q=is:loose")
    await page.locator(".facets").get_by_role("link", name="lost").click()
    await expect(page.get_by_label("Query")).to_have_value("is:loose verdict:lost")
    await expect(page.locator("tbody tr")).to_have_count(3)
    await page.locator(".facets").get_by_role("link", name="lost").click()
    await expect(page.get_by_label("Query")).to_have_value("is:loose")


async def test_rows_are_selected_by_range_and_sent_by_a_plain_form(serve: Serve, open_page: Open) -> None:
    page = await open_page(await serve(shop.full()))
    await page.goto("/tasks?q=is:loose")
    boxes = page.locator("tbody input[type=checkbox]")
    await boxes.nth(1).click()
    await boxes.nth(4).click(modifiers=["Shift"])
    await expect(page.locator("#selected")).to_contain_text("4 selected")
    await page.locator("#all-rows").check()
    await expect(page.locator("#selected")).to_contain_text("7 selected")
    ids = await page.evaluate("new FormData(document.getElementById('selected-form')).getAll('task')")
    assert len(ids) == 7
    await page.locator("[data-none]").click()
    await expect(page.locator("#selected")).to_be_hidden()


async def test_a_view_is_saved_in_this_browser_and_forgotten(serve: Serve, open_page: Open) -> None:
    page = await open_page(await serve(shop.full()))
    await page.goto("/tasks?q=is:loose")
    await page.get_by_label("Name of this view").fill("<b>mine</b>")
    await page.keyboard.press("Enter")
    await page.goto("/tasks")
    link = page.locator("#views").get_by_role("link")
    await expect(link).to_have_text("<b>mine</b>")
    await link.click()
    await expect(page.get_by_label("Query")).to_have_value("is:loose")
    await page.get_by_role("button", name="Forget").click()
    await expect(link).to_have_count(0)


async def test_a_spoilt_store_of_views_harms_nothing(serve: Serve, open_page: Open) -> None:
    page = await open_page(await serve(shop.full()))
    await page.goto("/tasks")
    for spoilt in ("{", '"x"', '[{"name": 3}]', '[{"name": "x", "path": "javascript:alert(1)"}]'):
        await page.evaluate("text => localStorage.setItem('looseends.views', text)", spoilt)
        await page.reload()
        await expect(page.locator("#views").get_by_role("link")).to_have_count(0)


# --- keys and zones -----------------------------------------------------------------------------------------------


async def test_the_help_names_the_keys_and_turns_them_off(serve: Serve, open_page: Open) -> None:
    page = await open_page(await serve(shop.full()))
    await page.goto("/")
    await page.keyboard.press("?")
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("overview")
    await dialog.get_by_label("single keys are on").uncheck()
    await page.keyboard.press("Escape")
    await page.keyboard.press("g")
    await page.keyboard.press("t")
    assert page.url.endswith("/")
    await page.keyboard.press("?")
    await dialog.get_by_label("single keys are on").check()
    await dialog.get_by_role("button", name="Close").click()
    await page.keyboard.press("g")
    await page.keyboard.press("t")
    await page.wait_for_url("**/tasks")


async def test_j_and_k_walk_the_rows_and_x_selects(serve: Serve, open_page: Open) -> None:
    page = await open_page(await serve(shop.full()))
    await page.goto("/tasks?q=is:loose")
    for key in ("j", "j", "j", "k", "x"):
        await page.keyboard.press(key)
    assert await page.evaluate("[...document.querySelectorAll('tbody input')].map(i => i.checked)") == [False, True, *[False] * 5]


async def test_times_become_local_and_stay_so(serve: Serve, open_page: Open) -> None:
    page = await open_page(await serve(shop.full()), timezone_id="Asia/Tokyo")
    await page.goto("/?window=1h")
    tick = page.locator("text[data-at]").first
    assert (await tick.inner_html()) == "13:15"
    await page.get_by_role("button", name="Show local time").click()
    assert (await tick.inner_html()) == "22:15"
    await expect(page.locator("#zone")).to_contain_text("Asia/Tokyo")
    await page.goto("/tasks?tz=utc")
    await expect(page.locator("#zone")).to_contain_text("Times are UTC")
    await page.goto("/tasks")
    await expect(page.locator("#zone")).to_contain_text("Asia/Tokyo")


async def test_the_back_button_brings_back_what_was_selected(serve: Serve, open_page: Open) -> None:
    page = await open_page(await serve(shop.full()))
    await page.goto("/?window=24h")
    await drag(page, 0.98, 0.9999)
    line = page.locator("#picked")
    await expect(line).to_contain_text("38 unaccounted")
    said = await line.inner_text()
    await line.get_by_role("link", name="38 unaccounted").click()
    await page.wait_for_url("**/tasks?q=is%3Agap*")
    await page.go_back()
    assert await page.locator("#picked").inner_text() == said
    assert await page.locator("svg.gap .picked").evaluate("band => parseFloat(band.getAttribute('width'))") > 0


async def test_the_back_button_leaves_ticked_rows_counted(serve: Serve, open_page: Open) -> None:
    page = await open_page(await serve(shop.full()))
    await page.goto("/tasks?q=is:loose")
    await page.locator("tbody input[type=checkbox]").first.check()
    await page.locator("tbody .what a").first.click()
    await page.wait_for_url("**/tasks/*")
    await page.go_back()
    ticked = await page.locator("tbody input:checked").count()
    if ticked:
        await expect(page.locator("#selected")).to_contain_text(f"{ticked} selected")
    else:
        await expect(page.locator("#selected")).to_be_hidden()


async def test_forced_colours_and_print_keep_the_picture(serve: Serve, open_page: Open) -> None:
    page: Any = await open_page(await serve(shop.full()), forced_colors="active")
    await page.goto("/")
    stroke = await page.evaluate("getComputedStyle(document.querySelector('.needle.loose')).stroke")
    assert stroke not in ("none", "rgb(194, 68, 0)")
    await page.emulate_media(media="print")
    assert await page.locator("svg.gap").is_visible()
    assert await page.locator(".ledger").is_visible()
    for hidden in (".top nav", "#live", ".go", ".foot form"):
        assert not await page.locator(hidden).first.is_visible(), hidden
