"""Take the screenshots of the app for `docs/app.md`.

python docs/app_figures.py
"""

import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from playwright.sync_api import Browser, expect, sync_playwright

from kgrad.apps.page.configuration import to_query
from kgrad.apps.page.presets import PRESETS

FIGURES = Path(__file__).parent / "figures"
PORT = 8598
SPIRALS = urlencode(to_query(next(one.first for one in PRESETS if one.name == "Play: two spirals")))
WIDE = {"viewport": {"width": 1300, "height": 1180}, "color_scheme": "light"}
NARROW = {"viewport": {"width": 400, "height": 1700}, "color_scheme": "dark"}


def wait_for_server() -> None:
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"http://localhost:{PORT}/_stcore/health", timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError("the app did not start")


def screenshot(browser: Browser, name: str, query: str, options: dict[str, Any]) -> None:
    """Train the network that a link describes, and take a screenshot after the training."""
    page = browser.new_page(**options)
    page.set_default_timeout(120_000)
    page.goto(f"http://localhost:{PORT}/?{query}")
    page.locator(".js-plotly-plot").first.wait_for()
    page.get_by_role("button", name="Train", exact=True).click()
    expect(page.get_by_role("tab", name="Observations")).to_be_visible(timeout=120_000)
    expect(page.get_by_role("button", name="Stop", exact=True)).to_be_disabled()
    page.wait_for_timeout(3000)
    page.screenshot(path=FIGURES / f"{name}.png")
    page.close()


def main() -> None:
    command = [sys.executable, "-m", "kgrad", "app", "--no-browser", "--port", str(PORT)]
    server = subprocess.Popen(command)
    try:
        wait_for_server()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            screenshot(browser, "app_wide", SPIRALS, WIDE)
            screenshot(browser, "app_narrow_dark", SPIRALS, NARROW)
            browser.close()
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)


if __name__ == "__main__":
    main()
