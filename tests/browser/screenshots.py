"""`make screenshots`: every page x light and dark x wide and 390 px x full, empty, error, as pictures and one contact sheet.

Rules: the pages are the ones of the test shop, so two runs show the same; a page that is added to `shop.PATHS` is here by
itself. The pictures are for looking: what can be checked by a program is checked in test_pages.py.
"""

from __future__ import annotations

import argparse
import asyncio
import html
import re
import sys
from pathlib import Path
from typing import NamedTuple

from aiohttp import web
from playwright.async_api import Browser, async_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from browser.chromium import FLAGS, find
from browser.looks import LOOKS, SIZES, take
from dashboard import shop
from dashboard.fakes import FakeReader, make_app

STORES = {"full": shop.full, "empty": shop.empty, "error": shop.broken}
HEIGHT_PX_MAX = 2_400
COLUMN_PX = {"wide": 300, "narrow": 130}


class Shot(NamedTuple):
    """One picture: what it is of, and its file."""

    path: str
    store: str
    scheme: str
    size: str

    @property
    def file(self) -> str:
        """A name that says all of it."""
        name = re.sub(r"[^a-z0-9]+", "-", self.path.lower()).strip("-")[:60] or "overview"
        return f"{name}.{self.store}.{self.scheme}.{self.size}.png"


async def _serve(reader: FakeReader) -> tuple[web.AppRunner, str]:
    runner = web.AppRunner(make_app(reader, shop.NOW))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


async def shoot(browser: Browser, folder: Path, wanted: str) -> list[Shot]:
    """All pictures whose file name matches `wanted`, a regular expression. A page is loaded once for all of its looks."""
    taken = []
    for store, made in STORES.items():
        runner, base = await _serve(made())
        context = await browser.new_context(base_url=base)
        page = await context.new_page()
        for path in shop.PATHS:
            shots = [Shot(path, store, scheme, size) for scheme, size in LOOKS]
            shots = [shot for shot in shots if re.search(wanted, shot.file)]
            if shots:
                await page.goto(path)
            for shot in shots:
                await take(page, shot.scheme, shot.size)
                height = await page.evaluate("document.documentElement.scrollHeight")
                await page.set_viewport_size({"width": SIZES[shot.size]["width"], "height": min(height, HEIGHT_PX_MAX)})
                await page.screenshot(path=str(folder / shot.file), animations="disabled")
            taken += shots
        await context.close()
        await runner.cleanup()
    return taken


def sheet(shots: list[Shot]) -> str:
    """One page with all of them: a row for each page and store, a column for each scheme and size."""
    rows = dict.fromkeys((shot.path, shot.store) for shot in shots)
    columns = sorted(LOOKS, key=lambda look: (look[1] == "narrow", look[0] == "dark"))
    head = "".join(f"<th>{size}, {scheme}</th>" for scheme, size in columns)
    body = []
    for path, store in rows:
        cells = []
        for scheme, size in columns:
            shot = Shot(path, store, scheme, size)
            picture = (
                f'<a href="{shot.file}"><img src="{shot.file}" width="{COLUMN_PX[size]}" alt=""></a>' if shot in shots else ""
            )
            cells.append(f"<td>{picture}</td>")
        body.append(f"<tr><th>{html.escape(path)}<br>{store}</th>{''.join(cells)}</tr>")
    style = "body{font:12px sans-serif}td,th{vertical-align:top;padding:4px;text-align:left}img{border:1px solid #888}"
    return (
        f"<!doctype html><meta charset=utf-8><title>Contact sheet</title><style>{style}</style>"
        f"<table><tr><th></th>{head}</tr>{''.join(body)}</table>"
    )


async def main(folder: Path, wanted: str) -> int:
    """Take the pictures and write `index.html` and `sheet.png` beside them."""
    chromium = find()
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(
            executable_path=chromium.path, args=list(FLAGS), env={**chromium.environment()}, headless=True
        )
        shots = await shoot(browser, folder, wanted)
        (folder / "index.html").write_text(sheet(shots))
        page = await browser.new_page(viewport={"width": 1100, "height": 900})
        await page.goto((folder / "index.html").resolve().as_uri())
        await page.screenshot(path=str(folder / "sheet.png"), full_page=True)
        await browser.close()
    print(f"{len(shots)} pictures in {folder}; look at {folder / 'index.html'} or {folder / 'sheet.png'}")
    return 0 if shots else 1


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", nargs="?", default=".run/screenshots", type=Path, help="where they go (default %(default)s)")
    options.add_argument("--only", default="", help="only files whose name matches this regular expression")
    given = options.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    sys.exit(asyncio.run(main(given.folder, given.only)))
