"""Hostile text in every field of every page, in a real browser: nothing runs, nothing is reported, everything can be read."""

from __future__ import annotations

import pytest
from playwright.async_api import Page

from browser.conftest import Open, Serve
from dashboard import shop

pytestmark = pytest.mark.asyncio(loop_scope="session")
CORPUS = {
    "markup": "\"'><script>window.ran=1</script><img src=x onerror=window.ran=1><svg onload=window.ran=1>",
    "ends": "</title></textarea></pre></script></style>--><script>window.ran=1</script>",
    "template": "{{7*7}}${window.ran=1}{% raw %}<%= window.ran=1 %>",
    "address": 'javascript:window.ran=1//" autofocus onfocus=window.ran=1 x="',
    "entities": "&lt;script&gt;window.ran=1&lt;/script&gt;&#60;img src=x onerror=window.ran=1&#62;",
    "utf7": "+ADw-script+AD4-window.ran=1+ADw-/script+AD4- \ufeff\u2028\u2029<script>window.ran=1</script>",
    "frames": "<iframe srcdoc='<script>parent.ran=1</script>'></iframe><object data=javascript:window.ran=1><base href=//evil>",
    "style": "<style>*{background:url(//evil)}</style><link rel=stylesheet href=//evil/x.css><p style=color:red>",
}
WATCH = """
window.ran = 0;
window.reports = [];
document.addEventListener("securitypolicyviolation", (e) => window.reports.push(e.violatedDirective + " " + e.blockedURI));
"""


async def nothing_ran(page: Page, where: str) -> None:
    assert await page.evaluate("window.ran") == 0, where
    assert await page.evaluate("window.reports") == [], where
    assert await page.locator("iframe, object, embed, base, main script, main style").count() == 0, where


@pytest.mark.parametrize("name", CORPUS)
async def test_nothing_runs_on_any_page_and_no_policy_has_to_step_in(serve: Serve, open_page: Open, name: str) -> None:
    page = await open_page(await serve(shop.hostile(CORPUS[name])))
    await page.add_init_script(WATCH)
    page.on("dialog", lambda dialog: pytest.fail(f"a dialog: {dialog.message}"))
    for path in shop.PATHS:
        await page.goto(path)
        await nothing_ran(page, f"{path} {name}")


async def test_what_scripts_of_ours_put_on_a_page_stays_text(serve: Serve, open_page: Open) -> None:
    page = await open_page(await serve(shop.hostile(CORPUS["markup"].replace('"', ""))))
    await page.add_init_script(WATCH)
    await page.goto("/tasks")
    field = page.get_by_label("Query")
    await field.focus()
    await page.keyboard.type("name:")
    await page.get_by_role("option").first.wait_for()
    assert "<script>" in await page.get_by_role("option").first.inner_text()
    await nothing_ran(page, "suggestions")


async def test_a_script_that_ran_and_a_policy_that_stepped_in_would_be_found(serve: Serve, open_page: Open) -> None:
    page = await open_page(await serve(shop.full()))
    await page.add_init_script(WATCH)
    await page.goto("/")
    await page.evaluate("window.ran = 1")
    with pytest.raises(AssertionError):
        await nothing_ran(page, "planted")
