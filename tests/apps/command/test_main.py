"""Tests of the `kgrad` command: output, files, imports and exit status."""

import json
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

import kgrad
import kgrad.apps.command.run as script
from kgrad.apps.command.main import COMMANDS, main
from kgrad.records.history import GradientHistory, Weight

HEAVY = {"tensorflow", "keras", "pandas", "matplotlib", "numpy"}


def run_apart(arguments, forbidden):
    """Run a command in a new process; it fails if a forbidden module was imported."""
    code = (
        "import sys\nfrom kgrad.apps.command.main import main\n"
        f"try: status = main({[str(a) for a in arguments]!r})\n"
        "except SystemExit as end: status = end.code\n"
        f"found = {forbidden!r} & set(sys.modules)\n"
        "assert not found, found\nsys.exit(status)"
    )
    root = Path(__file__).parents[3]
    return subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60
    )


def write_run(path, gradients=(0.5, 0.4), loss=(1.0, 0.5), name="dense", **metadata):
    """Save a run of three layers that all have the same gradient."""
    names = [f"{name}_{i}" for i in range(3)]
    weights = [Weight(one, "kernel", f"{one}/kernel", (4, 4)) for one in names]
    statistics = ["mean_abs", "l2_norm", "nonfinite_steps", "first_nonfinite_step"]
    statistics += ["weight_l2", "update_l2"]
    history = GradientHistory(weights, statistics, metadata, outputs=names)
    for epoch, (gradient, value) in enumerate(zip(gradients, loss, strict=True)):
        bad = float(not np.isfinite(gradient))
        history.append(
            epoch,
            10 * epoch,
            {
                "mean_abs": [gradient] * 3, "l2_norm": [4 * gradient] * 3,
                "nonfinite_steps": [bad] * 3, "first_nonfinite_step": [10.0 * epoch * bad] * 3,
                "weight_l2": [2.0] * 3, "update_l2": [0.05] * 3,
            },
            {"loss": value},
            activations={"signal_l2": [1.0, 1e-3, 2.0]},
        )  # fmt: skip
    history.save(path)
    return path


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


# Help


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=str)
def test_help_imports_nothing_heavy_and_is_there_at_once(command):
    start = time.perf_counter()
    done = run_apart([*command, "--help"], HEAVY)
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - start < 2  # TensorFlow alone takes longer
    assert done.stdout.startswith(" ".join(["usage: kgrad", *command]))


def test_help_lists_the_commands(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    printed = capsys.readouterr().out
    assert all(f"  {name}" in printed and text in printed for name, (_, text) in COMMANDS.items())


def test_python_dash_m_is_the_same_and_tells_the_version():
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-m", "kgrad", "--version"], cwd=root, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, f"kgrad {kgrad.__version__}\n")


@pytest.mark.parametrize("arguments", [[], ["draw"], ["graph"], ["diagnose"]])
def test_a_command_line_that_cannot_be_read_ends_with_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "error: " in capsys.readouterr().err


# run


def test_run_is_the_main_job(tmp_path, capsys):
    arguments = "--layers 1 --units 4 --epochs 1 --seeds 1 --samples 64 --preset healthy".split()
    assert main(["run", *arguments, "--output", str(tmp_path / "by command")]) == 0
    assert script.main([*arguments, "--output", str(tmp_path / "by script")]) == 0
    one, other = ({p.name for p in (tmp_path / by).iterdir()} for by in ("by command", "by script"))
    assert one == other
    assert "healthy.png" in one


def test_run_names_itself_where_something_is_wrong(capsys):
    assert main(["run", "--seeds", "0"]) == 2
    assert capsys.readouterr().err == "kgrad run: --seeds must be at least 1, received 0\n"
    name = "ann_gradient_visualization.py"
    assert script.main(["--seeds", "0"], name) == 2
    assert capsys.readouterr().err.startswith(f"{name}: --seeds must")


# graph


def test_graph_writes_json_without_tensorflow(tmp_path):
    run = write_run(tmp_path / "run.jsonl")
    done = run_apart(["graph", run, "-o", tmp_path / "graph.json"], {"tensorflow", "keras"})
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "graph.json").read_text())
    assert [(node["id"], node["gradient_norm"]) for node in content["nodes"]] == [
        (f"dense_{i}", 1.6) for i in range(3)
    ]
    assert [(e["source"], e["target"], e["gradient_norm"]) for e in content["edges"]] == [
        ("dense_0", "dense_1", 1.0), ("dense_1", "dense_2", 1e-3)
    ]  # fmt: skip
    assert "records" not in content


def test_graph_takes_an_epoch_and_every_record(tmp_path):
    run = write_run(tmp_path / "run.jsonl")
    arguments = ["graph", str(run), "-o", str(tmp_path / "graph.json"), "--epoch", "0"]
    assert main([*arguments, "--every-record"]) == 0
    content = json.loads((tmp_path / "graph.json").read_text())
    assert content["epoch"] == 0
    assert [record["nodes"] for record in content["records"]] == [[2.0] * 3, [1.6] * 3]


def test_graph_writes_a_page_of_all_epochs_without_tensorflow(tmp_path):
    run, file = write_run(tmp_path / "run.jsonl"), tmp_path / "graph.html"
    options = ["--epoch", "0", "--title", "<Mine>", "--threshold", "0.5"]
    done = run_apart(["graph", run, "-o", file, *options], {"tensorflow", "keras"})
    assert done.returncode == 0, done.stderr
    html = file.read_text(encoding="utf-8")
    assert "<h1>&lt;Mine&gt;</h1>" in html
    assert 'max="1" value="0" step="1">' in html
    assert "edge above 0.5" in html


def test_graph_draws_without_tensorflow(tmp_path):
    run = write_run(tmp_path / "run.jsonl")
    done = run_apart(["graph", run, "-o", tmp_path / "graph.png"], {"tensorflow", "keras"})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf"])
def test_graph_draws_a_run(tmp_path, ending):
    run = write_run(tmp_path / "run.jsonl")
    file = tmp_path / f"graph{ending}"
    assert main(["graph", str(run), "-o", str(file), "--relative", "--title", "Mine"]) == 0
    assert file.stat().st_size > 5000


def test_graph_draws_what_it_wrote(tmp_path, monkeypatch):
    run, file = write_run(tmp_path / "run.jsonl"), tmp_path / "graph.json"
    main(["graph", str(run), "-o", str(file)])
    monkeypatch.setattr("kgrad.records.history.GradientHistory.load", None)
    again = tmp_path / "again.json"
    assert main(["graph", str(file), "-o", str(again)]) == 0
    assert again.read_text() == file.read_text()
    assert main(["graph", str(file), "-o", str(tmp_path / "graph.png")]) == 0


@pytest.mark.parametrize(
    ("name", "content", "options", "sentence"),
    [
        ("a.jsonl", None, [], "No such file"),
        ("a.jsonl", "{}\n", [], 'expected a header with "format": "kgrad-history"'),
        ("a.json", "{", [], "a.json: "),
        ("a.json", "[" * 100_000, [], "a.json: "),
        ("a.json", '{"nodes": 1}', [], "got `int` - at `$.nodes`"),
        (
            "a.json",
            "{}",
            ["--epoch", "1"],
            "--epoch and --nested are for a .jsonl history",
        ),
        ("run.jsonl", "", ["--epoch", "9"], "--epoch must be one that was recorded, from 0 to 1"),
        ("run.jsonl", "", ["-o", "a.gif"], "--output must end in .html, .json, .png"),
        ("run.jsonl", "", ["-o", "no/folder/a.json"], "No such file or directory"),
        ("run.jsonl", "", ["-o", "a.svg", "--threshold", "-1"], "--threshold must be"),
    ],
)
def test_graph_says_in_a_sentence_what_is_wrong(
    name, content, options, sentence, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run.jsonl")
    if content:
        (tmp_path / name).write_text(content)
    assert main(["graph", name, "-o", "b.json", *options]) == 2
    printed = capsys.readouterr()
    assert sentence in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert printed.err.startswith("kgrad graph: ")
    assert not (tmp_path / "b.json").exists()


# diagnose


def test_diagnose_returns_0_for_a_healthy_run_without_tensorflow(tmp_path):
    run = write_run(tmp_path / "run.jsonl")
    done = run_apart(["diagnose", run], {"tensorflow", "keras", "matplotlib"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "run.jsonl: 2 records" in done.stdout.replace("\n", "")
    assert "No findings" in done.stdout


def test_diagnose_returns_1_and_a_table_if_one_of_the_runs_is_ill(tmp_path, capsys):
    write_run(tmp_path / "a.jsonl")
    write_run(tmp_path / "b.jsonl", gradients=(0.5, np.nan), loss=(1.0, np.nan))
    assert main(["diagnose", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "No findings" in printed
    assert "nonfinite" in printed
    assert main(["diagnose", str(tmp_path / "a.jsonl")]) == 0


def test_diagnose_prints_names_as_they_are(tmp_path, capsys):
    folder = tmp_path / "[red]x"
    folder.mkdir()
    path = write_run(folder / "a.jsonl", (0.5, np.nan), (1.0, np.nan), name="[bold]")
    assert main(["diagnose", str(path)]) == 1
    printed = capsys.readouterr().out.replace("\n", "")
    assert "[red]x" in printed
    assert "[bold]_0" in printed


def test_diagnose_refuses_what_holds_no_run(tmp_path, capsys):
    empty = tmp_path / "empty.jsonl"
    GradientHistory([Weight("a", "b", "c", (1,))], ["mean_abs"]).save(empty)
    for path, sentence in (
        (tmp_path / "none.jsonl", "No such file"),
        (tmp_path, "no recorded run (.jsonl with at least one record) in"),
        (empty, "no recorded run (.jsonl with at least one record) in"),
    ):
        assert main(["diagnose", str(path)]) == 2
        assert sentence in capsys.readouterr().err
