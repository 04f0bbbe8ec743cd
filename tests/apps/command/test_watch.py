"""Tests of `kgrad watch`: a page that follows a file of another process, from before it exists."""

import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from waiting import until

from kgrad.apps.command.main import main
from kgrad.records.history import GradientHistory, Weight

ROOT = Path(__file__).parents[3]


@pytest.fixture
def watched(tmp_path):
    """The page of a file that does not exist yet: its path, its address, and the process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = tmp_path / "run.jsonl"
    command = [sys.executable, "-m", "kgrad", "watch", path, "--no-browser", "--port", str(port)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    yield path, f"http://localhost:{port}/", process
    process.terminate()
    process.wait(30)
    process.stdout.close()


def answers(url):
    try:
        with urllib.request.urlopen(f"{url}_stcore/health", timeout=1):
            return True
    except OSError:
        return False


def lines_of(path, last):
    """Return the lines of a journal of `last` epochs, whose loss is 1, 1/2, 1/3, …"""
    weights = [Weight(name, "kernel", f"{name}/kernel", (2, 3)) for name in ("dense", "output")]
    history = GradientHistory(weights, ["mean_abs", "l2_norm"], {"epochs": last})
    for epoch in range(last + 1):
        values = np.array([0.1, 0.3]) / (1 + epoch)
        known = {"mean_abs": values, "l2_norm": 2 * values}
        history.append(epoch, epoch, known, {"loss": 1 / (1 + epoch)})
    history.save(path)
    return path.read_bytes().splitlines(keepends=True)


LOSS = """() => [...document.querySelectorAll(".js-plotly-plot")].filter((one) => one.data)
  .flatMap((one) => one.calcdata.map((trace) => trace.map((point) => point.y)))"""


def drawn(page, values):
    """Return whether a line on the page has these values."""
    return any(
        len(line) == len(values) and np.allclose(np.array(line, float), values)
        for line in page.evaluate(LOSS)
    )


def test_the_page_follows_a_file_from_its_first_line_to_its_last(browser, watched, tmp_path):
    path, url, process = watched
    lines = lines_of(tmp_path / "whole.jsonl", 4)
    assert process.stdout.readline() == f"waiting for {path}; Ctrl-C ends\n"
    assert not answers(url)
    path.write_bytes(b"".join(lines[:3]))
    until(lambda: answers(url))
    page = browser.new_page()
    page.goto(url)
    until(lambda: drawn(page, [1, 1 / 2]), 90)
    with path.open("ab") as file:
        file.write(lines[3] + lines[4][:30])
    until(lambda: drawn(page, [1, 1 / 2, 1 / 3]))
    with path.open("ab") as file:
        file.write(lines[4][30:] + lines[5])
    until(lambda: drawn(page, [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]))
    page.get_by_text("epoch 4 of 4").wait_for()
    time.sleep(1)  # what is complete is not followed further
    assert page.get_by_test_id("stException").count() == 0
    page.close()


@pytest.mark.parametrize("name", [".", "no/run.jsonl"])
def test_a_file_that_cannot_appear_is_not_waited_for(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["watch", name]) == 2
    sentence = "kgrad watch: RUN must be a .jsonl journal in a folder that exists, received "
    assert capsys.readouterr().err == f"{sentence}{name!r}\n"
