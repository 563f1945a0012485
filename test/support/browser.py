"""A real browser for tests: headless Chromium, driven by Playwright."""

import shutil
from contextlib import contextmanager

import pytest

CHROMIUM = next(filter(None, map(shutil.which, (
    'chromium', 'chromium-browser', 'google-chrome'))), None)


@contextmanager
def chromium():
    """Start the Chromium of this machine; skips the test where it or Playwright is missing."""
    api = pytest.importorskip('playwright.sync_api')
    if CHROMIUM is None:
        pytest.skip('Chromium is not installed')
    with api.sync_playwright() as playwright, playwright.chromium.launch(
            executable_path=CHROMIUM, args=['--no-sandbox']) as browser:
        yield browser


@contextmanager
def opened_page(browser, path, **options):
    """Open a file in a window of its own; fails where console, log or scripts complain.

    ``options`` are those of Playwright's ``new_page``. Yields the page and the addresses of
    everything that it asked for.
    """
    with browser.new_page(**{'viewport': {'width': 1280, 'height': 900}, **options}) as page:
        requests, complaints = [], []
        page.on('request', lambda request: requests.append(request.url))
        page.on('console', lambda message: complaints.append(message.text))
        page.on('pageerror', lambda error: complaints.append(str(error)))
        page.goto(path.as_uri())
        yield page, requests
    assert complaints == []
