"""Pages in headless Chromium: the system's, driven by playwright."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator

import pytest

REQUIRED = os.environ.get('LDM_JAX_BROWSER') == 'required'  # set by .ci/run


@contextlib.contextmanager
def page(path: pathlib.Path) -> Iterator:
    """A playwright page that shows a file. Skips, or fails where a browser is required, without one."""
    found = shutil.which('chromium') or shutil.which('google-chrome')
    if found is None:
        (pytest.fail if REQUIRED else pytest.skip)('no browser was found: apt-get install chromium')
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=found, args=['--no-sandbox']
        )  # as root, in containers
        try:
            opened = browser.new_page()
            opened.errors = []
            opened.on('pageerror', lambda error: opened.errors.append(str(error)))
            opened.goto(path.absolute().as_uri())
            yield opened
        finally:
            browser.close()
