"""`kgrad sweep`: ranges, what is refused before Keras is imported, what is printed."""

import re
import subprocess
import sys

import numpy as np
import pytest

from kgrad.apps.command.main import main
from kgrad.apps.command.run_options import experiments_of, parse
from kgrad.records.sweep import Sweep, write_failure

SMALL = "--activation tanh --units 4 --samples 64 --features 3 --epochs 2".split()


def values_of(option, *words):
    options = parse([option, *words, "--activation", "tanh"])
    field = {"--layers": "num_layers", "--initializer": "weight_initializer"}.get(
        option, option[2:].replace("-", "_")
    )
    return getattr(options, field)


def test_ranges_have_their_steps_and_their_ends():
    assert values_of("--layers", "5:20:5") == [5, 10, 15, 20]
    assert values_of("--layers", "5:19:5", "30") == [5, 10, 15, 30]
    assert values_of("--learning-rate", "0.1:0.3:0.1") == [0.1, 0.2, 0.3]
    assert values_of("--units", "64,32", "8:16:8") == [(64, 32), 8, 16]
    assert values_of("--units", "64..2048:6") == [64, 128, 256, 512, 1024, 2048]
    assert values_of("--epochs", "1..3:8") == [1, 2, 3]  # integers, each once


def test_logarithmic_ranges_have_equal_factors_up_to_three_digits():
    rates = values_of("--learning-rate", "1e-3..1")
    np.testing.assert_allclose(rates, np.geomspace(1e-3, 1, 8), rtol=5e-3)
    assert (rates[0], rates[-1]) == (1e-3, 1.0)
    initializers = values_of("--initializer", "he", "normal:0.05..0.5:3")
    assert initializers == ["he", "normal:0.05", "normal:0.158", "normal:0.5"]
    assert values_of("--initializer", "normal:0.3") == ["normal:0.3"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--layers 9:3:1", "--layers must be a range FIRST:LAST:STEP"),
        ("--layers 1:3:0", "--layers must be a range FIRST:LAST:STEP"),
        ("--layers 1:10000000000:1", "at most 10,000 values, received '1:10000000000:1'"),
        ("--learning-rate 1..0.1", "--learning-rate must be a range LOW..HIGH"),
        ("--learning-rate 0..0.1", "--learning-rate must be a range LOW..HIGH"),
        ("--learning-rate 0.1..1:1", "N from 2 to 10000, received '0.1..1:1'"),
        ("--initializer normal:a..b", "--initializer must be a number, received 'a'"),
        ("--layers 2:x:1", "--layers must be an integer, received 'x'"),
        ("--layers 1:1000:1 --learning-rate 0.1..1:1000", "received 3,000,000"),
        ("--layers 1:1000:1 --learning-rate 0.1..1:1000 --yes", "received 3,000,000"),
        ("--layers 1:100:1 --epochs 1:100:1", "--yes 1,000,000, received 30,000"),
        ("--layers 2 2:3:1", "--layers must have values that differ, received '2' twice"),
        ("--activation rleu", "--activation must be among"),
        ("--engine precesses", "--engine must be .*did you mean 'processes'"),
        ("--status nowhere", "--status must be one that run_sweep"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(
    arguments, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    base = [] if "--activation" in arguments else ["--activation", "tanh"]
    try:
        status = main(["sweep", *base, *arguments.split()])
    except SystemExit as end:
        status = end.code
    said = capsys.readouterr().err
    assert status == 2 and said.count("\n") == 1
    assert re.search(message, said), said
    assert list(tmp_path.iterdir()) == []


def test_a_grid_of_many_runs_needs_a_yes():
    options = parse(["--layers", "1:100:1", "--seeds", "101", "--activation", "tanh"])
    with pytest.raises(ValueError, match="received 10,100"):
        experiments_of(options)
    assert len(experiments_of(options, yes=True)) == 10_100


def test_a_sweep_is_trained_printed_and_not_trained_again(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "sweep"
    command = ["sweep", *SMALL, "--layers", "1:2:1", "--seeds", "2", "--engine", "here",
               "-o", str(folder)]  # fmt: skip
    assert main(command) == 0
    first, *lines = capsys.readouterr().out.splitlines()[-3:]
    assert str(folder) in "".join([first, *lines]) and "4 of 4 runs are done" in first + lines[0]
    monkeypatch.setattr("kgrad.experiments.lanes.opened", None)
    assert main(command) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == f"{folder}: 4 of 4 runs are done"
    assert sum(int(line.split()[0]) for line in lines) == 4
    # A run that failed, and one that is left.
    sweep = Sweep(folder)
    one, other = sorted(sweep.planned)[:2]
    sweep.file(other).unlink()
    sweep.file(one).unlink()
    write_failure(sweep.failure_file(one), sweep.planned[one], "ValueError: no", "Traceback")
    assert main(["sweep", "--status", str(folder)]) == 1
    said = capsys.readouterr().out
    assert "2 of 4 runs are done, 1 failed, 1 left" in said and "1  failed: ValueError: no" in said


def test_a_finished_sweep_imports_no_keras(tmp_path):
    folder = str(tmp_path / "sweep")
    command = ["sweep", *SMALL, "--layers", "1", "--seeds", "1", "--engine", "here", "-o", folder]
    assert main(command) == 0
    program = (
        "import sys; from kgrad.apps.command.main import main\n"
        f"assert main({command!r}) == 0\n"
        "assert not {'keras', 'tensorflow', 'distributed'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
