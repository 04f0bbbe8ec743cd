"""Tests of the app in a browser: one server, and pages used as a student would use them."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from apps.report.test_sweep_page import filled, loss_of, runs_of
from playwright.sync_api import expect
from waiting import until

from kgrad.apps.page.configuration import Configuration
from kgrad.apps.page.figures import on_dark
from kgrad.experiments import Experiment, run_experiment
from kgrad.records.history import GradientHistory, Weight

SECONDS = 90_000  # milliseconds, on a busy machine
LONG = "layers=20&units=256&activation=relu&initializer=he&epochs=600&batch_size=128"
SHORT = "layers=3&units=8&activation=relu&initializer=he&epochs=3"
MARKED = "g => g.layout.shapes.filter(s => s.name == 'moment').map(s => s.x0)"
PIXELS = "g => JSON.stringify(g.data[0].z)"
EVIL = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1>"


class Server:
    """The app, served by a separate process."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [sys.executable, "-m", "kgrad", "app", "--no-browser", "--port", str(self.port)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.printed: list[str] = []
        self._reading = threading.Thread(target=self._read)
        self._reading.start()
        self.url = f"http://localhost:{self.port}/"
        for _ in range(300):
            try:
                with urllib.request.urlopen(f"{self.url}_stcore/health", timeout=1):
                    return
            except OSError:
                time.sleep(0.1)
        raise TimeoutError("".join(self.printed))

    def workers(self) -> set[int]:
        """Return the ids of the training processes."""
        found = set()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((process / "stat").read_text().rsplit(")", 1)[1].split()[1])
                command = (process / "cmdline").read_text()
            except OSError:  # it ended
                continue
            if parent == self.process.pid and "kgrad.apps.page.worker" in command:
                found.add(int(process.name))
        return found

    def training(self) -> set[int]:
        """Return the ids of the training processes that have a journal open."""
        found = set()
        for pid in self.workers():
            open_files = [str(one.readlink()) for one in Path(f"/proc/{pid}/fd").iterdir()]
            if any(one.endswith(".jsonl") for one in open_files):
                found.add(pid)
        return found

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)
        self._reading.join()
        self.process.stdout.close()

    def _read(self) -> None:
        self.printed.extend(self.process.stdout)


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    left = server.workers()
    server.stop()
    until(lambda: not any(alive(pid) for pid in left))  # none is left behind
    assert "Traceback" not in "".join(server.printed)


@contextmanager
def page_of(browser, server, query="", width=1300, **options):
    """Open a page in a new browser tab and wait for its first figure."""
    context = browser.new_context(viewport={"width": width, "height": 1000}, **options)
    context.set_default_timeout(SECONDS)
    page = context.new_page()
    said: list[str] = []
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    try:
        page.goto(f"{server.url}?{query}")
        page.locator(".js-plotly-plot").first.wait_for()
        yield page
        assert page.evaluate("window.hacked") is None
        assert said == []
    finally:
        context.close()


def alive(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


def figures(page):
    """Return the names and values of the lines in every figure on the page."""
    return page.evaluate(
        """() => [...document.querySelectorAll('.js-plotly-plot')].filter(g => g.data).map(g => ({
            names: g.data.map(t => t.name || ''),
            kinds: g.data.map(t => t.type),
            range: g.layout.yaxis.range,
            values: JSON.stringify(g.calcdata.map(t => t.map(p => [p.x, p.y])))
        }))"""
    )


def epoch(page):
    """Return the epoch that the progress bar shows."""
    texts = page.get_by_test_id("stProgress").all_inner_texts()
    found = [one.split("epoch ")[1].split(" ")[0].strip(",") for one in texts if "epoch " in one]
    return int(found[0]) if found else 0


def button(page, name):
    return page.get_by_role("button", name=name, exact=True)


def train(page):
    button(page, "Train").click()
    expect(button(page, "Stop")).to_be_enabled(timeout=SECONDS)


def open_tab(page, name):
    """Open a tab; a page that still draws the previous tab may undo a click."""
    tab = page.get_by_role("tab", name=name, exact=True)

    def opened():
        tab.click()
        time.sleep(0.5)
        return tab.get_attribute("aria-selected") == "true"

    until(opened)


def grown(path, last, names=("dense", "output"), **metadata):
    history = GradientHistory(
        [Weight(name, "kernel", f"{name}/kernel", (2, 3)) for name in names],
        ["mean_abs", "l2_norm"],
        metadata,
    )
    for number in range(last + 1):
        values = np.array([0.1, 0.3]) / (1 + number)
        history.append(
            number, number, {"mean_abs": values, "l2_norm": 2 * values}, {"loss": 1 / (1 + number)}
        )
    history.save(path)
    return path.read_bytes().splitlines(keepends=True)


def test_a_knob_redraws_the_prediction_and_changes_the_address(browser, server):
    with page_of(browser, server, "layers=4") as page:
        before = figures(page)[0]
        assert before["names"][1:] == ["95 % of networks", "predicted"]
        page.get_by_role("slider", name="Hidden layers").press("ArrowRight")
        page.wait_for_url("**/?layers=5")
        until(lambda: figures(page) and figures(page)[0]["values"] != before["values"])
        assert len(json.loads(figures(page)[0]["values"])[2]) == 6  # five hidden, one output


def test_a_training_moves_the_figures_and_stops_at_once(browser, server):
    with page_of(browser, server, LONG) as page:
        train(page)
        until(lambda: epoch(page) >= 2 and len(figures(page)) == 2)
        first, at = figures(page), epoch(page)
        assert [one["names"][-1][:5] for one in first] == ["epoch", "20 × "]
        until(lambda: epoch(page) >= at + 5)
        for i in (0, 1):
            until(lambda i=i: figures(page)[i]["values"] != first[i]["values"])
        assert "of 600" in page.get_by_test_id("stProgress").inner_text()
        assert "left" in page.get_by_test_id("stProgress").inner_text()
        start = time.monotonic()
        button(page, "Stop").click()
        expect(button(page, "Train")).to_be_enabled(timeout=10_000)
        assert time.monotonic() - start < 5
        expect(page.get_by_test_id("stProgress")).to_contain_text(", stopped", timeout=SECONDS)
        stopped = epoch(page)
        time.sleep(1.5)
        assert epoch(page) == stopped < 600


def test_two_configurations_are_trained_side_by_side_on_one_scale(browser, server):
    second = "&compare=on&b_layers=3&b_units=8&b_epochs=3"
    with page_of(browser, server, SHORT + second) as page:
        train(page)
        page.get_by_role("tab", name="Heatmap", exact=True).wait_for()
        until(lambda: [one["names"][-1] for one in figures(page)[:2]] == ["epoch 3", "epoch 3"])
        *profiles, loss = figures(page)
        assert len(loss["names"]) == 2
        assert profiles[0]["range"] == pytest.approx(profiles[1]["range"])
        assert profiles[0]["values"] != profiles[1]["values"]
        open_tab(page, "Heatmap")
        until(lambda: "heatmap" in figures(page)[-1]["kinds"])
        assert figures(page)[-1]["kinds"].count("heatmap") == 2


def test_every_tab_shows_something_and_everything_can_be_downloaded(browser, server, tmp_path):
    with page_of(browser, server, SHORT) as page:
        train(page)
        page.get_by_role("tab", name="Heatmap", exact=True).wait_for()
        expect(page.get_by_text("The loss went from")).to_be_visible(timeout=SECONDS)
        for name, kind in (
            ("Heatmap", "heatmap"),
            ("Lines", "scatter"),
            ("Depth", "scatter"),
            ("Prediction", "scatter"),
            ("Distributions", "heatmap"),
            ("Flow graph", "scatter"),
        ):
            open_tab(page, name)
            until(lambda kind=kind: len(figures(page)) == 3 and kind in figures(page)[-1]["kinds"])
            assert page.get_by_test_id("stException").count() == 0
        open_tab(page, "Download")
        given = {}
        for name, ending in (
            ("History (.jsonl)", "jsonl"),
            ("Keras code (.py)", "py"),
            ("Report (.html)", "html"),
            ("Figures (.zip)", "zip"),
        ):
            with page.expect_download() as download:
                button(page, name).click()
            given[ending] = tmp_path / f"given.{ending}"
            download.value.save_as(given[ending])
        history = GradientHistory.load(given["jsonl"])
        assert history.epochs.tolist() == [0, 1, 2, 3]
        assert history.layers == ("hidden_1", "hidden_2", "hidden_3", "output")
        assert "for k in range(1, 4):" in given["py"].read_text()
        assert given["zip"].read_bytes()[:2] == b"PK"
        report = page.context.new_page()
        report.goto(given["html"].as_uri())
        report.locator(".js-plotly-plot").first.wait_for()
        assert "3 × 8, relu, he" in report.title()


def test_recordings_are_opened_and_what_is_none_is_refused(browser, server, tmp_path):
    evil = tmp_path / "evil.jsonl"
    grown(evil, 4, (EVIL, "**output** ![x](http://example.invalid/x.png)"), epochs=4)
    nothing = tmp_path / "photo.jsonl"
    nothing.write_bytes(b"\x89PNG secret\n" * 100)
    huge = tmp_path / "huge.jsonl"
    with huge.open("wb") as file:
        file.truncate(65 * 2**20)
    with page_of(browser, server) as page:
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        button(page, "folder_open Open a recording").or_(
            page.get_by_role("button", name="Open a recording")
        ).first.click()
        page.locator("input[type=file]").set_input_files(huge)
        expect(
            page.get_by_text("64MB or smaller").or_(page.get_by_text("64.0MB or smaller"))
        ).to_be_visible(timeout=SECONDS)
        page.locator("input[type=file]").set_input_files(nothing)
        expect(page.get_by_text("photo.jsonl is no history, line 1")).to_be_visible(timeout=SECONDS)
        assert "secret" not in page.inner_text("body")
        page.locator("input[type=file]").set_input_files(evil)
        page.get_by_role("tab", name="Heatmap", exact=True).wait_for()
        for name in ("Lines", "Heatmap", "Depth", "Prediction", "Flow graph", "Distributions"):
            open_tab(page, name)
        assert page.get_by_test_id("stException").count() == 0
        assert page.evaluate("window.hacked") is None
        assert not [url for url in asked if "example.invalid" in url]


def test_a_recording_is_headed_by_the_configuration_that_it_was_made_with(
    browser, server, tmp_path
):
    path, made_with = tmp_path / "run.jsonl", Configuration(layers=3, units=7, epochs=1)
    run_experiment(Experiment(**made_with.experiment()), path)
    with page_of(browser, server) as page:
        page.get_by_role("button", name="Open a recording").click()
        field = page.get_by_placeholder("run.jsonl")
        field.fill(str(path))
        field.press("Enter")
        heading = f"Recording run.jsonl ({made_with})"
        assert "3 × 7" in heading
        expect(page.get_by_test_id("stProgress")).to_contain_text(heading, timeout=SECONDS)


def test_a_growing_file_of_another_process_is_followed(browser, server, tmp_path):
    lines = grown(tmp_path / "whole.jsonl", 6, epochs=6)
    path = tmp_path / "run.jsonl"
    path.write_bytes(b"".join(lines[:3]))
    with page_of(browser, server) as page:
        page.get_by_role("button", name="Open a recording").click()
        field = page.get_by_placeholder("run.jsonl")
        field.fill(str(path))
        field.press("Enter")
        until(lambda: epoch(page) == 1)
        until(lambda: figures(page)[0]["names"] == ["epoch 0", "epoch 1"])
        page.keyboard.press("Escape")
        before = figures(page)
        expect(page.get_by_test_id("stProgress")).to_contain_text("Recording run.jsonl")
        with path.open("ab") as file:
            file.write(b"".join(lines[3:5]) + lines[5][:30])
        until(lambda: epoch(page) == 3)
        until(lambda: figures(page)[0]["values"] != before[0]["values"])
        with path.open("ab") as file:
            file.write(lines[5][30:] + b"".join(lines[6:]))
        page.get_by_role("tab", name="Heatmap", exact=True).wait_for()  # complete
        assert epoch(page) == 6


def test_tabs_do_not_disturb_each_other_and_closing_one_ends_its_training(browser, server):
    with page_of(browser, server, LONG) as left:
        train(left)
        until(lambda: epoch(left) >= 1)
        of_left = server.training()
        assert len(of_left) == 1
        with page_of(browser, server, LONG + "&seed=1") as right:
            train(right)
            until(lambda: epoch(right) >= 1, 180)  # its process begins with TensorFlow's import
            of_right = server.training() - of_left
            assert len(of_right) == 1
        until(lambda: not of_right & server.workers(), 10)
        at = epoch(left)
        until(lambda: epoch(left) > at)
        assert of_left <= server.workers()
        button(left, "Stop").click()
        expect(button(left, "Train")).to_be_enabled(timeout=10_000)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_narrow_page_has_no_sideways_scrolling(browser, server, theme):
    with page_of(browser, server, SHORT, width=400, color_scheme=theme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        plot = page.locator(".js-plotly-plot").first.bounding_box()
        assert plot["x"] >= 0
        assert plot["x"] + plot["width"] <= 400
        background = page.evaluate(
            "getComputedStyle(document.querySelector('.stApp')).backgroundColor"
        )
        dark = sum(map(int, background.split("(")[1].rstrip(")").split(",")[:3])) < 200
        assert dark == (theme == "dark")
        ink = page.evaluate("document.querySelector('.js-plotly-plot').layout.font.color")
        assert ink == (on_dark("#222") if dark else "#222")


def test_a_figure_stays_the_same_element_and_fills_its_place(browser, server):
    fits = """() => { const plot = document.querySelector(".js-plotly-plot");
      const drawn = plot.querySelector(".main-svg").getBoundingClientRect().width;
      return Math.abs(drawn - plot.clientWidth) < 2 && plot.clientWidth; }"""
    with page_of(browser, server, "layers=4") as page:
        until(lambda: page.evaluate(fits))
        width = page.evaluate(fits)
        page.evaluate("document.querySelector('.js-plotly-plot').marked = true")
        page.get_by_role("slider", name="Hidden layers").press("ArrowRight")
        until(lambda: len(json.loads(figures(page)[0]["values"])[2]) == 6)
        assert page.evaluate("document.querySelector('.js-plotly-plot').marked")
        page.set_viewport_size({"width": 900, "height": 1000})
        until(lambda: page.evaluate(fits) < width - 100)
        narrow = page.evaluate(fits)
        page.get_by_test_id("stSidebar").hover()
        page.locator("[data-testid=stSidebarCollapseButton] button").click()
        until(lambda: page.evaluate(fits) > narrow + 100)


def moment(page):
    """Return the moment on show, in words."""
    # While Streamlit redraws the page, the slider of before may still be there.
    text = page.get_by_test_id("stSlider").filter(has_text="On show").last.inner_text()
    return text.split("On show: ")[1].split("\n")[0]


def scrub(page, key, count=1):
    """Move the slider of the moments."""
    thumb = page.get_by_role("slider", name="On show")
    for _ in range(count):
        thumb.press(key)


def progress(page):
    return page.get_by_test_id("stProgress")


def test_a_training_is_stepped_played_paused_and_scrubbed(browser, server):
    with page_of(browser, server, f"{SHORT}00&dataset=moons") as page:
        page.evaluate("document.querySelector('.network').pulses = 0")
        button(page, "Step").click()
        expect(progress(page)).to_contain_text("step 1, paused", timeout=SECONDS)
        button(page, "Step").click()
        expect(progress(page)).to_contain_text("epoch 1 of 300, step 2, paused", timeout=SECONDS)
        until(lambda: page.evaluate("document.querySelector('.network').pulses") >= 2)
        button(page, "Epoch").click()
        expect(progress(page)).to_contain_text("step 32, paused", timeout=SECONDS)
        until(lambda: moment(page) == "epoch 1, step 32")
        button(page, "Continue").click()
        until(lambda: epoch(page) >= 5)
        button(page, "Pause").click()
        expect(progress(page)).to_contain_text(", paused", timeout=SECONDS)
        at = epoch(page)
        time.sleep(1.5)
        assert epoch(page) == at < 300
        open_tab(page, "Heatmap")
        until(lambda: "heatmap" in figures(page)[-1]["kinds"])
        before, network = figures(page), page.locator(".network").inner_html()
        boundary = page.locator(".js-plotly-plot").nth(2).evaluate(PIXELS)
        scrub(page, "Home")
        until(lambda: moment(page) == "epoch 0, step 0")
        until(lambda: page.locator(".network").inner_html() != network)
        until(lambda: figures(page)[0]["values"] != before[0]["values"])
        until(lambda: page.locator(".js-plotly-plot").nth(2).evaluate(PIXELS) != boundary)
        for number in (1, 3):  # the loss and the heatmap mark the moment
            plot = page.locator(".js-plotly-plot").nth(number)
            until(lambda plot=plot: set(plot.evaluate(MARKED)) == {0})
        scrub(page, "End")
        until(lambda: moment(page).startswith(f"epoch {at}, step"))
        button(page, "Stop").click()
        expect(progress(page)).to_contain_text(", stopped", timeout=SECONDS)


def test_the_page_is_never_blank_and_says_what_it_shows(browser, server):
    with page_of(browser, server, LONG) as page:
        predicted = figures(page)[0]
        button(page, "Train").click()
        expect(progress(page)).to_contain_text("so far predicted", timeout=SECONDS)
        assert figures(page)[0]["values"] == predicted["values"]
        button(page, "Stop").click()
        expect(progress(page)).to_contain_text("nothing was recorded; predicted", timeout=SECONDS)
        assert figures(page)[0]["values"] == predicted["values"]
        expect(button(page, "Train")).to_be_enabled(timeout=SECONDS)
        page.get_by_role("slider", name="Hidden layers").press("ArrowRight")
        expect(page.get_by_text("The settings now: predicted, not trained")).to_be_visible(
            timeout=SECONDS
        )
        expect(progress(page)).to_contain_text("Trained with other settings: 20", timeout=SECONDS)


def test_a_remedy_is_applied_and_raced(browser, server):
    with page_of(browser, server, "layers=8&units=16&epochs=12") as page:
        train(page)
        cure = page.get_by_role("button", name="activation relu, initial weights he")
        cure.first.click(timeout=SECONDS)
        until(lambda: progress(page).count() == 2)
        expect(page.get_by_label("Compare two configurations")).to_be_checked()
        assert "b_activation=relu" in page.url
        for place in (0, 1):
            expect(progress(page).nth(place)).to_contain_text("epoch 12 of 12", timeout=SECONDS)
        until(lambda: len(figures(page)) == 3)
        slow, fast = (json.loads(figures(page)[2]["values"])[run][-1][1] for run in (0, 1))
        assert fast < 0.9 * slow
        assert page.locator(".network").count() == 2


def test_nothing_moves_when_a_training_starts(browser, server):
    watched = """() => new PerformanceObserver((list) => list.getEntries().forEach((entry) => {
      if (!entry.hadRecentInput) window.shifted = (window.shifted ?? 0) + entry.value;
    })).observe({ type: "layout-shift" })"""
    with page_of(browser, server, SHORT + "&dataset=moons") as page:
        until(lambda: page.locator(".network svg").count() == 1)
        time.sleep(2)
        page.evaluate(watched)
        train(page)
        until(lambda: epoch(page) == 3)
        assert (page.evaluate("window.shifted") or 0) <= 0.05


def test_a_click_on_a_cell_of_a_sweep_lists_its_runs_and_opens_one(browser, server, tmp_path):
    runs = runs_of(num_layers=[2, 3], learning_rate=[0.1, 0.2])
    sweep = filled(tmp_path / "sweep", runs)
    with page_of(browser, server, SHORT) as page:
        page.get_by_text("Open a recording").click()
        path = page.get_by_placeholder("run.jsonl")
        path.fill(str(sweep.folder))
        path.press("Enter")
        page.get_by_text("Click a cell to see its runs.").wait_for()
        page.keyboard.press("Escape")
        panel = page.locator(".js-plotly-plot .nsewdrag").first
        panel.scroll_into_view_if_needed()
        box = panel.bounding_box()
        page.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + 0.25 * box["height"])
        last = runs[-1]  # the most layers, the largest rate
        page.get_by_role("button", name=f"seed {last.seed}: loss {loss_of(last):.3g}").click()
        page.get_by_text("Recording").first.wait_for()


@pytest.mark.parametrize(("name", "answer"), [("localhost", 101), ("evil.example", 403)])
def test_a_page_elsewhere_whose_name_leads_here_is_refused(server, name, answer):
    host = f"{name}:{server.port}"
    with socket.create_connection(("127.0.0.1", server.port), 20) as connection:
        connection.sendall(
            f"GET /_stcore/stream HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            "Sec-WebSocket-Protocol: streamlit\r\n\r\n".encode()
        )
        assert connection.recv(100).split()[1] == str(answer).encode()
