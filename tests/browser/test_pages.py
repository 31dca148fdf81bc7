"""The pages in a real browser: both themes, wide and narrow, by keyboard, without JavaScript."""

from __future__ import annotations

import pytest

from browser import looks
from browser.conftest import Open, Serve
from dashboard import shop
from dashboard.fakes import FakeCommands
from looseends_daemon.core.resources import Bucket

pytestmark = pytest.mark.asyncio(loop_scope="session")
STORES = {"full": shop.full, "empty": shop.empty, "hostile": shop.hostile, "calm": shop.calm, "error": shop.broken}


@pytest.mark.parametrize("store", STORES)
async def test_every_page_in_every_look_passes_axe_and_fits_its_width(serve: Serve, open_page: Open, store: str) -> None:
    page = await open_page(await serve(STORES[store]()), answers="" if store == "error" else "4")
    for path in shop.PATHS:
        waits = store == "empty" and path.partition("?")[0] in ("/", "/setup")
        await page.goto(f"{path}{'&' if '?' in path else '?'}refresh=off" if waits else path)
        assert await looks.faults(page) == [], path


async def test_a_stale_page_passes_axe_in_its_grey(serve: Serve, open_page: Open) -> None:
    page = await open_page(await serve(shop.full()))
    for path in ("/", "/tasks?q=is:loose"):
        await page.goto(path)
        await page.evaluate("document.body.classList.add('stale')")
        await page.evaluate("document.querySelectorAll('tr').forEach(row => row.classList.add('past'))")
        assert await looks.faults(page) == [], path


PLANTED = {
    "light wide": "document.querySelector('label[for=q]').remove(); document.querySelector('#q').placeholder = ''",
    "dark wide": "document.querySelector('h1').style.color = 'light-dark(#000, #333)'",
    "dark narrow": "document.querySelector('h1').style.minWidth = '500px'",
}


@pytest.mark.parametrize("look", PLANTED)
async def test_what_is_wrong_in_one_look_only_would_be_found(serve: Serve, open_page: Open, look: str) -> None:
    page = await open_page(await serve(shop.full()))
    await page.goto("/tasks")
    await page.evaluate(PLANTED[look])
    found = await looks.faults(page)
    assert found
    assert found[0].startswith(look)


async def test_one_lost_task_among_thousands_can_be_seen_on_a_phone(serve: Serve, open_page: Open) -> None:
    reader = shop.full()
    reader.buckets = [row for row in reader.buckets if not row.gap or row.gap == 37]
    reader.buckets.append(Bucket(at=shop.NOW - 600 * shop.MINUTE, tasks=1, gap=1, loose=1))
    page = await open_page(await serve(reader), viewport=looks.SIZES["narrow"])
    await page.goto("/")
    heights = await page.evaluate(
        "[...document.querySelector('.needle.loose').getAttribute('d').matchAll(/v-(\\d+)/g)].map(m => +m[1])"
    )
    assert min(heights) >= 7
    stroke = await page.evaluate("getComputedStyle(document.querySelector('.needle.loose')).strokeWidth")
    assert float(stroke.removesuffix("px")) >= 3


async def test_the_keyboard_reaches_everything_in_order_and_focus_is_seen(serve: Serve, open_page: Open) -> None:
    page = await open_page(await serve(shop.full()))
    await page.goto(f"/tasks/{shop.task_id(1)}")
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.textContent") == "Skip to the content"
    wanted = await page.evaluate(
        "[...document.querySelectorAll('a[href], button, input:not([type=hidden]), summary, [tabindex=\"0\"], textarea')]"
        ".filter(e => e.checkVisibility()).length"
    )
    seen = 1
    while seen < wanted + 5:
        await page.keyboard.press("Tab")
        if await page.evaluate("document.activeElement === document.body"):
            break
        style = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert style == "solid", await page.evaluate("document.activeElement.outerHTML")
        seen += 1
    assert seen == wanted


async def test_a_theme_is_chosen_by_a_plain_form(serve: Serve, open_page: Open) -> None:
    page = await open_page(await serve(shop.full()), color_scheme="light", java_script_enabled=False)
    await page.goto("/tasks?q=is:loose")
    await page.get_by_role("button", name="dark").click()
    assert page.url.endswith("/tasks?q=is:loose")
    assert await page.locator("html").get_attribute("data-theme") == "dark"
    ground = await page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor")
    assert ground == "rgb(20, 22, 26)"


async def test_from_the_overview_to_a_replay_without_javascript(serve: Serve, open_page: Open) -> None:
    commands = FakeCommands()
    base = await serve(shop.full(), commands=commands)
    page = await open_page(base, java_script_enabled=False)
    await page.goto("/incidents/inc_lost")
    await page.get_by_role("link", name="mail.send_welcome").first.click()
    await page.get_by_role("button", name="Replay", exact=True).click()
    assert page.url == f"{base}/replays/rep_1"
    assert commands.asked[0]["task"] == shop.task_id(1)


async def test_slash_goes_to_the_search_but_not_while_typing(serve: Serve, open_page: Open) -> None:
    page = await open_page(await serve(shop.full()))
    await page.goto("/")
    await page.keyboard.press("/")
    await page.keyboard.type("a/b")
    assert await page.evaluate("document.activeElement.value") == "a/b"


async def test_a_snippet_is_copied_whole(serve: Serve, open_page: Open) -> None:
    base = await serve(shop.empty())
    page = await open_page(base, permissions=["clipboard-read", "clipboard-write"])
    await page.goto("/setup?refresh=off")
    await page.get_by_role("button", name="Copy shop.py").click()
    await page.get_by_text("Copied").wait_for()
    copied = await page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("import time\nimport looseends\n")
    assert copied.rstrip().endswith('return {"ok": True}')
