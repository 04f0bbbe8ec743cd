"""Measure the app's response times in Chromium: first page, change of a setting, training.

Also measured are the time from *Train* to the first measured point, how far the page moves
meanwhile, and predictions of random configurations. Every round measures each of the three,
together with its baseline. The table shows medians over the
rounds.

    python benchmarks/app.py --rounds 9
"""

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, Page, expect, sync_playwright

from kgrad.apps.page.configuration import KNOBS, Configuration
from kgrad.apps.page.predicting import predicted
from kgrad.apps.page.processes import Worker

TRAINED = Configuration(activation="relu", initializer="he")  # ten layers of 64, 30 epochs
LINK = "activation=relu&initializer=he"
SETTINGS = {
    "10 to 14 layers": "layers=9",
    "10 to 14 layers, batch normalization": "layers=9&normalization=batch",
    "31 to 35 layers": "layers=30",
}
CHANGES = 5
FIRST_POINTS = {10: 2, 30: 4}  # layers → seconds from *Train* to the first measured point
MOST_SHIFT = 0.05
RANDOM = 200  # configurations of the knobs
# Adds up the layout shifts that no input explains, as Chromium's CLS does.
SHIFTS = """() => {
  window.shifted = 0;
  new PerformanceObserver((list) => list.getEntries().forEach((entry) => {
    if (!entry.hadRecentInput) window.shifted += entry.value;
  })).observe({ type: "layout-shift" });
}"""
MEASURED = """() => [...document.querySelectorAll(".js-plotly-plot")].some(
  (plot) => plot.data?.some((trace) => trace.name?.startsWith("epoch")))"""
# Milliseconds from the key press to the first frame in which the figure shows new numbers.
REDRAWN = """() => {
  const drawn = () => {
    const plot = document.querySelector(".js-plotly-plot");
    return plot?.calcdata ? JSON.stringify(plot.calcdata.map((t) => t.map((p) => p.y))) : "";
  };
  const before = drawn();
  window.redrawn = new Promise((done) => {
    document.addEventListener("keydown", () => {
      const start = performance.now();
      const look = () => drawn() && drawn() !== before
        ? done(performance.now() - start) : requestAnimationFrame(look);
      look();
    }, { once: true, capture: true });
  });
}"""


def bare_import() -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import tensorflow"], check=True, capture_output=True)
    return time.perf_counter() - start


@contextmanager
def app() -> Iterator[str]:
    """Run the app in its own process and yield its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "kgrad", "app", "--no-browser", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                socket.create_connection(("localhost", port), timeout=0.2).close()
                break
            except OSError:
                time.sleep(0.02)
        yield f"http://localhost:{port}/"
    finally:
        process.terminate()
        process.wait()


@contextmanager
def page_at(browser: Browser, address: str) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1300, "height": 1000})
    context.set_default_timeout(90_000)
    page = context.new_page()
    page.goto(address)
    yield page
    context.close()


def first_page(browser: Browser) -> tuple[float, float]:
    """Return the seconds from the command to the page with its settings, and to the prediction."""
    start = time.perf_counter()
    with app() as address, page_at(browser, address) as page:
        page.get_by_role("slider", name="Hidden layers").wait_for()
        settings = time.perf_counter() - start
        page.locator(".js-plotly-plot .main-svg").first.wait_for()
        return settings, time.perf_counter() - start


def change_setting(browser: Browser, address: str) -> list[float]:
    """Return the milliseconds from each change of a setting to the redrawn prediction."""
    with page_at(browser, address) as page:
        page.locator(".js-plotly-plot .main-svg").first.wait_for()
        page.wait_for_timeout(2000)
        page.get_by_role("slider", name="Hidden layers").focus()
        times = []
        for _ in range(CHANGES):
            page.evaluate(REDRAWN)
            page.keyboard.press("ArrowRight")
            times.append(page.evaluate("window.redrawn"))
            page.wait_for_timeout(300)
        return times


def seconds_of(journal: Path) -> float:
    """Return the seconds from the creation of a file to its last line."""
    output = subprocess.check_output(["stat", "--format=%w|%y", journal], text=True)
    times = (re.sub(r"(\.\d{6})\d* (.*)", r"\1\2", one.strip()) for one in output.split("|"))
    born, written = map(datetime.fromisoformat, times)
    return (written - born).total_seconds()


def trained_alone(worker: Worker, folder: Path) -> float:
    """Return the seconds of a training in the same kind of process, without a browser."""
    journal = Path(tempfile.mkdtemp(dir=folder)) / "run.jsonl"
    worker.start([TRAINED.experiment()], [journal], "play")
    while worker.running:
        time.sleep(0.05)
    return seconds_of(journal)


def trained_in_app(page: Page, folder: Path) -> float:
    """Return the seconds of a training that is started in the browser."""
    known = set(folder.rglob("*.jsonl"))
    page.get_by_role("button", name="Train", exact=True).click()
    expect(page.get_by_role("button", name="Train", exact=True)).to_be_disabled()
    expect(page.get_by_role("button", name="Train", exact=True)).to_be_enabled(timeout=90_000)
    (journal,) = set(folder.rglob("*.jsonl")) - known
    page.wait_for_timeout(2000)
    return seconds_of(journal)


def first_point(page: Page) -> tuple[float, float]:
    """Return the seconds from *Train* to the first measured point, and the layout shift so far."""
    train = page.get_by_role("button", name="Train", exact=True)
    page.evaluate(SHIFTS)
    start = time.perf_counter()
    train.click()
    page.wait_for_function(MEASURED, polling=20)
    seconds = time.perf_counter() - start
    page.wait_for_timeout(3000)
    shift = float(page.evaluate("window.shifted"))
    stop = page.get_by_role("button", name="Stop", exact=True)
    if stop.is_enabled():  # a small network has finished
        stop.click()
    expect(train).to_be_enabled()
    return seconds, shift


def random_predictions(count: int) -> list[float]:
    """Return the milliseconds that predictions of random configurations take, without a browser."""
    random = np.random.default_rng(0)
    predicted(TRAINED)
    times = []
    for _ in range(count):
        values = {}
        for name, knob in KNOBS.items():
            if knob.choices:
                values[name] = knob.choices[random.integers(len(knob.choices))]
            elif name in ("layers", "units"):
                values[name] = int(random.integers(knob.low, knob.high + 1))
            elif name == "skip":
                values[name] = bool(random.integers(2))
        start = time.perf_counter()
        predicted(Configuration(**values))
        times.append(1000 * (time.perf_counter() - start))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="number of rounds (default: 9)")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        os.environ["TMPDIR"] = name  # where the app's processes write their journals
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        opened = np.array([[bare_import(), *first_page(browser)] for _ in range(rounds)])
        points: dict[int, list[tuple[float, float]]] = {layers: [] for layers in FIRST_POINTS}
        changes: dict[str, list[float]] = {name: [] for name in SETTINGS}
        worker = Worker()
        worker.ready.wait()
        with app() as address, page_at(browser, f"{address}?{LINK}") as page:
            page.locator(".js-plotly-plot .main-svg").first.wait_for()
            trained_in_app(page, folder), trained_alone(worker, folder)  # warm-up
            trained = np.array(
                [
                    [trained_alone(worker, folder), trained_in_app(page, folder)]
                    for _ in range(rounds)
                ]
            )
            for i in range(max(1, rounds // 3)):
                for name, query in SETTINGS.items():
                    # Predictions are cached, so each round needs another number of units.
                    link = f"{address}?{query}&units={64 - i}"
                    changes[name] += change_setting(browser, link)
            for layers, found in points.items():
                link = f"{address}?{LINK}&dataset=moons&layers={layers}"
                with page_at(browser, link) as page:
                    page.locator(".js-plotly-plot .main-svg").first.wait_for()
                    first_point(page)  # its process may still import TensorFlow
                for seed in range(rounds):
                    with page_at(browser, f"{link}&seed={seed}") as page:
                        page.locator(".js-plotly-plot .main-svg").first.wait_for()
                        page.wait_for_timeout(15_000)  # until there is a spare process
                        found.append(first_point(page))
        worker.close()
        browser.close()
    tensorflow, page_shown, prediction = np.median(opened, axis=0)
    print("| | median | target |\n|---|---|---|")
    ratio = np.median(opened[:, 1] / opened[:, 0])
    print(f"| `import tensorflow` | {tensorflow:.1f} s | |")
    print(f"| command to first page | {page_shown:.1f} s, {ratio:.2f} × the import | ≤ 1.5 × |")
    ratio = np.median(opened[:, 2] / opened[:, 0])
    print(f"| command to first prediction | {prediction:.1f} s, {ratio:.2f} × the import | |")
    for name, found in changes.items():
        print(f"| change to prediction, {name} | {np.median(found):.0f} ms | ≤ 300 ms |")
    for layers, measured in points.items():
        seconds, shift = np.median(measured, axis=0)
        print(
            f"| *Train* to the first measured point, {layers} layers | {seconds:.1f} s | "
            f"≤ {FIRST_POINTS[layers]} s |"
        )
        print(f"| layout shift meanwhile | {shift:.3f} | ≤ {MOST_SHIFT} |")
    middle, slow = np.quantile(random_predictions(RANDOM), [0.5, 0.95])
    print(
        f"| prediction of {RANDOM} random configurations, without the browser | {middle:.0f} ms, "
        f"95 % within {slow:.0f} ms | |"
    )
    alone, watched = np.median(trained, axis=0)
    ratio = np.median(trained[:, 1] / trained[:, 0])
    print(f"| 10×64, 30 epochs: alone {alone:.2f} s, in the app {watched:.2f} s | "
          f"{ratio:.2f} × | ≤ 1.2 × |")  # fmt: skip


if __name__ == "__main__":
    main()
