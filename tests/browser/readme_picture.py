"""`python tests/browser/readme_picture.py`: the overview on the shop's Friday morning, for the README, light and dark.

Rules: the real pages over a real daemon that was told `story.py`, so the picture shows what somebody gets; it is
as narrow as its text stays readable at the width of a README, and taken larger for fine screens.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path

from playwright.async_api import async_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from browser import story
from browser.chromium import FLAGS, find

WIDTH_PX, SCALE = 1000, 1.5
FILES = {"light": "overview.png", "dark": "overview-dark.png"}


async def main(folder: Path) -> None:
    """Take both pictures, from the top of the page to the end of what needs a look."""
    chromium = find()
    with tempfile.TemporaryDirectory(prefix="le-") as state:
        os.environ["XDG_STATE_HOME"] = state
        async with story.told(Path(state)) as shop, async_playwright() as driver:
            browser = await driver.chromium.launch(
                executable_path=chromium.path, args=list(FLAGS), env={**chromium.environment()}, headless=True
            )
            context = await browser.new_context(viewport={"width": WIDTH_PX, "height": 900}, device_scale_factor=SCALE)
            page = await context.new_page()
            await page.goto(f"{shop.base}/sign-in/{await shop.daemon.sign_in_code()}")
            await page.goto(shop.base)
            await page.locator("#live", has_text="Live").wait_for()
            for scheme, file in FILES.items():
                await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
                box = await page.locator(".groups").bounding_box()
                assert box is not None
                height = box["y"] + box["height"] + 3
                clip = {"x": 0, "y": 0, "width": WIDTH_PX, "height": height}
                await page.screenshot(path=folder / file, full_page=True, clip=clip, animations="disabled")  # type: ignore[arg-type]
                print(f"{folder / file}: {(folder / file).stat().st_size:,} bytes")
            print(" ".join(await page.locator("h1, .ledger").all_inner_texts()))
            await browser.close()


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", nargs="?", default=Path(__file__).resolve().parents[2] / "docs", type=Path)
    asyncio.run(main(options.parse_args().folder))
