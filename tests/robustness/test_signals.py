"""SIGTERM, which batch systems and containers send, is Ctrl-C: what was recorded is written."""

import re
import signal
import subprocess
import sys
import time

import pytest

from kgrad.records.history import GradientHistory

LOOP = """
import sys, signal
import numpy as np
from kgrad import create_model, train_and_track_gradients
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
X = np.ones((64, 4), np.float32)
model = create_model(2, "relu", "he", units=4, input_shape=(4,), seed=0)
train_and_track_gradients(model, X, X[:, :1], 1_000_000, journal=sys.argv[1], jit_compile=False)
print("not reached")
"""
MAIN = """
import sys, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from kgrad.apps.command.main import main
options = "--activation relu --layers 2 --units 4 --seeds 2 --epochs 100000".split()
sys.exit(main(["run", *options, "--output", sys.argv[1]]))
"""


def terminated(code, argument, journals):
    """Run a program, send SIGTERM once it has recorded something; return it and what it printed."""
    program = subprocess.Popen(
        [sys.executable, "-c", code, argument],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while program.poll() is None and not any(
            path.read_bytes().count(b"\n") > 3 for path in journals()
        ):
            time.sleep(0.05)
        time.sleep(0.3)
        program.send_signal(signal.SIGTERM)
        printed, said = program.communicate(timeout=60)
    finally:
        program.kill()
    return program.returncode, printed, said


def test_the_loop_makes_its_last_record_and_the_process_ends_by_the_signal(tmp_path):
    path = tmp_path / "run.jsonl"
    status, printed, said = terminated(LOOP, path, lambda: tmp_path.glob("*.jsonl"))
    assert status == -signal.SIGTERM, said
    assert "ended by SIGTERM" in said
    assert "Traceback" not in said
    assert printed == ""
    history = GradientHistory.load(path)
    assert len(history) > 2
    assert path.read_bytes().endswith(b"\n")  # no torn line


def test_the_main_program_writes_its_outputs(tmp_path):
    out = tmp_path / "out"
    status, printed, said = terminated(MAIN, out, lambda: out.rglob("*.jsonl"))
    assert status == -signal.SIGTERM, said
    assert "Traceback" not in said
    assert re.search(r"^in .*: table.csv, findings.csv, .*report.html$", printed, re.MULTILINE)
    assert (out / "report.html").read_text().rstrip().endswith("</html>")


@pytest.mark.parametrize("ignored", [True, False])
def test_a_handler_of_the_programs_own_is_left_alone(ignored):
    from kgrad.measure.interrupts import termination_as_interrupt

    received = []
    mine = signal.SIG_IGN if ignored else lambda *given: received.append(given)
    before = signal.signal(signal.SIGTERM, mine)
    try:
        with termination_as_interrupt():
            signal.raise_signal(signal.SIGTERM)
            assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(received) == (not ignored)
