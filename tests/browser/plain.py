"""A page of a real browser, for stories that are told from outside this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from browser.chromium import FLAGS, NoChromium, find


@contextmanager
def plain_browser() -> Iterator[Browser]:
    """A browser. Without one the test is skipped, under REQUIRE_ALL failed."""
    try:
        chromium = find()
    except NoChromium as error:
        if os.environ.get("REQUIRE_ALL", "") not in ("", "0"):
            pytest.fail(f"the browser tests did not run: {error}")
        pytest.skip(f"THE BROWSER TESTS DID NOT RUN: {error}")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium.path, args=list(FLAGS), env={**chromium.environment()})
        yield browser
        browser.close()


@contextmanager
def plain_page(*, width: int, height: int, javascript: bool = False) -> Iterator[Page]:
    """A page of this size (px)."""
    with plain_browser() as browser:
        yield browser.new_context(java_script_enabled=javascript, viewport={"width": width, "height": height}).new_page()
