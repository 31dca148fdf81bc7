"""The looks of a page: light and dark, wide and a phone's width, taken one after another without loading it again.

Rules: the server sends one page for all of them, so whatever differs is style, and style follows the browser at once. A scheme
changes colours and nothing else, so a second look of the same width is asked the rules of axe about colours only.
"""

from __future__ import annotations

from typing import Any

from axe_playwright_python.base import AXE_SCRIPT  # type: ignore[import-untyped]
from playwright.async_api import Page, ViewportSize

SIZES: dict[str, ViewportSize] = {"wide": {"width": 1360, "height": 900}, "narrow": {"width": 390, "height": 844}}
LOOKS = (("light", "wide"), ("dark", "wide"), ("dark", "narrow"), ("light", "narrow"))
"""Each differs from the one before in one thing."""
_SIDEWAYS = "document.documentElement.scrollWidth - window.innerWidth"
_SAID = """async (options) => (await axe.run(document, {resultTypes: ["violations"], ...options})).violations.map(
  (rule) => rule.id + ": " + rule.nodes.map((node) => node.html + " " + node.failureSummary).join(" | "))"""
_COLOURS = {"runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}}


async def take(page: Page, scheme: str, size: str) -> None:
    """The page in this look."""
    await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce")
    await page.set_viewport_size(SIZES[size])


async def axe(page: Page, *, colours: bool = False) -> list[str]:
    """What axe finds wrong with the page as it looks now; `colours`: by its rules about colours alone."""
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(AXE_SCRIPT)
    found: list[str] = await page.evaluate(_SAID, _COLOURS if colours else {})
    return found


async def faults(page: Page) -> list[str]:
    """What is wrong with the page in any of its looks: axe, and anything that makes the page itself scroll sideways."""
    found: list[str] = []
    before: Any = None
    for scheme, size in LOOKS:
        await take(page, scheme, size)
        if await page.evaluate(_SIDEWAYS) > 0:
            found.append(f"{scheme} {size}: wider than its window")
        found += [f"{scheme} {size}: {said}" for said in await axe(page, colours=size == before)]
        before = size
    return found
