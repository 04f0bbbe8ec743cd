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
from kgrad.apps.command.run_tables import print_findings
from kgrad.apps.run_groups import RunGroup
from kgrad.records.history import GradientHistory, Weight, load_runs

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


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["draw"], "kgrad: COMMAND must be one of "),
        (["graph"], "kgrad graph: the following arguments are required: RUN, -o/--output; "),
        (["graph", "a", "-o", "b", "--epoch", "x"], "kgrad graph: --epoch must be an integer, "),
        (
            ["graph", "a", "-o", "b", "--threshold", "x"],
            "kgrad graph: --threshold must be a number",
        ),
        (["graph", "a", "-o", "b", "--nested", "x"], "kgrad graph: --nested must be one of "),
        (["diagnose"], "kgrad diagnose: the following arguments are required: RUN; "),
        (["report"], "kgrad report: the following arguments are required: RUN; "),
        (["watch"], "kgrad watch: the following arguments are required: RUN; "),
        (["app", "--port", "x"], "kgrad app: --port must be an integer, received 'x'; "),
        (["app", "--port", "0"], "kgrad app: --port must be an integer from 1 to 65535, received "),
        (["watch", "a", "--port", "65536"], "kgrad watch: --port must be an integer from 1 to "),
        (["app", "--host", "no such host"], "kgrad app: --host must be an address of this machine"),
    ],
)
def test_a_command_line_that_cannot_be_read_ends_with_a_sentence_and_status_2(
    arguments, sentence, capsys
):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(sentence)
    assert line.endswith(" --help lists the options")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "--activation", "rleu"], "--activation must be among celu, "),
        (["run", "--activation", "rleu"], "received 'rleu'; did you mean 'relu'?"),
        (["run", "--initializer", "hee"], "--initializer must be among constant, "),
        (["run", "--initializer", "he:1"], "--initializer with a colon must be normal:STDDEV"),
        (["run", "--optimizer", "adm"], "--optimizer must name a Keras optimizer"),
        (["run", "--normalization", "group"], "--normalization must be None, "),
        (["run", "--layers", "0"], "--layers must be an integer of at least 1, received 0"),
        (["run", "--layers", "2", "--units", "8,8,8"], "--units must be one width or one per "),
        (["run", "--dataset", "moon"], "--dataset must be among classification, "),
        (["run", "--samples", "0"], "--samples of 'classification' must be an integer of at "),
        (["run", "--features", "1"], "--features of 'classification' must be an integer of at "),
        (["run", "--epochs", "0"], "--epochs must be an integer of at least 1, received 0"),
        (["run", "--every", "0"], "--every must be an integer of at least 1, received 0"),
        (["run", "--learning-rate", "nan"], "--learning-rate must be a positive, finite number"),
        (["run", "--clip-norm", "-1"], "--clip-norm must be a positive, finite number"),
        (["run", "--statistics", "mean"], "--statistics must be among mean_abs, "),
        (["run", "--load", "nowhere"], "--load: No such file or directory: 'nowhere'"),
        (["report", "nowhere"], "No such file or directory: 'nowhere'"),
        (["diagnose", "nowhere"], "No such file or directory: 'nowhere'"),
        (["graph", "nowhere", "-o", "a.png"], "No such file or directory: 'nowhere'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_values_are_refused_before_anything_slow_is_imported(arguments, sentence):
    done = run_apart(arguments, HEAVY - {"numpy"})
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"kgrad {arguments[0]}: ") and sentence in line


def test_without_a_command_the_help_is_printed(capsys):
    assert main([]) == 0
    alone = capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--help"])
    assert alone == capsys.readouterr().out


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
    run = write_run(tmp_path / "run.jsonl", (0.5, 0.4, 0.3), (1.0, 0.5, 0.2))
    done = run_apart(["diagnose", run], {"tensorflow", "keras", "matplotlib"})
    assert (done.returncode, done.stdout) == (0, "run (1 run): nothing is wrong\n"), done.stderr


def ill_runs(folder, seeds=3, **options):
    """Save runs of one experiment whose gradient becomes NaN, with all seeds except the first."""
    for seed in range(seeds):
        ill = seed > 0
        write_run(
            folder / f"ill-seed-{seed}.jsonl",
            (0.5, np.nan if ill else 0.4, 0.3),
            (1.0, np.nan if ill else 0.4, 0.2),
            seed=seed,
            experiment={"name": "ill", "seed": seed},
            **options,
        )


def test_diagnose_groups_seeds_and_prints_one_line_per_finding(tmp_path, capsys):
    write_run(tmp_path / "well.jsonl", (0.5, 0.4, 0.3), (1.0, 0.5, 0.2))
    ill_runs(tmp_path, name="a_layer_with_a_name_that_is_far_too_long_for_eighty_columns")
    assert main(["diagnose", str(tmp_path)]) == 1
    head, finding, *remedy, well, more = capsys.readouterr().out.splitlines()
    assert head == "ill (3 seeds)"
    start = "  cause: nonfinite since epoch 1, 2 of 3 seeds: a_layer_with_a_name_that"
    assert finding.startswith(start)
    assert finding.endswith("…")
    assert len(finding) == 80
    assert remedy[0].startswith("  → ")
    assert well == "well (1 run): nothing is wrong"
    assert more == "1 of 2 networks has findings; --verbose shows evidence and all remedies."


def test_diagnose_says_what_it_could_not_check(tmp_path, capsys):
    write_run(tmp_path / "short.jsonl")
    assert main(["diagnose", str(tmp_path)]) == 0
    sentence = "no findings, but two records are too few to see the loss fall"
    assert sentence in capsys.readouterr().out.replace("\n", " ")


SLOWLY = (1.0, 0.95, 0.9, 0.83, 0.76, 0.7)
STILL_FALLING = (
    "note: seed 1: Epoch 5: the loss fell by 16 % in the second half of the records (threshold "
    "10 %). Nothing seems wrong, but training ended while the loss was still falling."
)


def noted_runs(folder):
    """Save two runs of one experiment; the loss of the second was still falling."""
    for seed, loss in enumerate([(1.0, 0.5, 0.3, 0.2, 0.2, 0.2), SLOWLY]):
        name = folder / f"slow-seed-{seed}.jsonl"
        write_run(name, (0.5,) * 6, loss, seed=seed, experiment={"name": "slow", "seed": seed})


def test_diagnose_prints_notes_as_python_does(tmp_path, capsys):
    noted_runs(tmp_path)
    assert main(["diagnose", str(tmp_path)]) == 0
    head, *note = capsys.readouterr().out.splitlines()
    assert head == "slow (2 seeds): nothing is wrong"
    assert " ".join(line.strip() for line in note) == STILL_FALLING
    assert max(map(len, note)) <= 80
    (one,) = kgrad.diagnose(GradientHistory.load(tmp_path / "slow-seed-1.jsonl")).notes
    assert STILL_FALLING.endswith(f"{one.evidence[0]} {one.explanation}")


def test_run_prints_notes_too(tmp_path, capsys):
    noted_runs(tmp_path)
    histories = load_runs([tmp_path]).values()
    group = RunGroup("slow", list(histories), diagnoses=[kgrad.diagnose(one) for one in histories])
    print_findings([group])
    printed = capsys.readouterr().out
    assert printed == f"\nfindings\n  slow: nothing is wrong\n  slow: {STILL_FALLING}\n"


def test_diagnose_says_what_it_could_not_check_beside_findings(tmp_path, capsys):
    write_run(tmp_path / "ill.jsonl", (0.5, np.nan), (1.0, np.nan))
    assert main(["diagnose", str(tmp_path)]) == 1
    missing = kgrad.diagnose(GradientHistory.load(tmp_path / "ill.jsonl")).missing
    assert missing and f" note: {missing} " in " ".join(capsys.readouterr().out.split())


def test_diagnose_verbose_has_the_evidence_of_every_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    ill_runs(tmp_path)
    assert main(["diagnose", "--verbose", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    for seed in (1, 2):
        assert f"ill-seed-{seed}.jsonl: 3 records" in printed
    assert "ill-seed-0.jsonl" not in printed  # nothing is wrong with it
    assert printed.count("the gradient of 1 of the updates has a") == 2
    assert printed.count("A NaN or an infinity entered") == 2


def test_diagnose_json_is_for_programs(tmp_path, capsys):
    ill_runs(tmp_path, seeds=2)
    write_run(tmp_path / "well.jsonl", (0.5, 0.4, 0.3), (1.0, 0.5, 0.2))
    assert main(["diagnose", "--json", str(tmp_path)]) == 1
    content = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert (content["format"], content["version"]) == ("kgrad-diagnosis", 1)
    first, second, well = content["runs"]
    assert first == {
        "file": str(tmp_path / "ill-seed-0.jsonl"), "name": "ill", "seed": 0, "records": 3,
        "findings": [], "notes": [], "missing": "", "confidence": None,
    }  # fmt: skip
    assert (second["seed"], well["name"], well["seed"]) == (1, "well", None)
    (finding,) = second["findings"]
    assert (finding["role"], finding["rule"]) == ("cause", "nonfinite")
    assert finding["layers"] == ["dense_0", "dense_1", "dense_2"]
    measured = finding["evidence"][0]
    assert (measured["layer"], measured["epoch"], measured["value"]) == ("dense_0", 1, 1.0)
    assert set(second["confidence"] or {}) <= {"right", "runs"}


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_run_that_cannot_be_diagnosed_does_not_hide_the_others(tmp_path, capsys, options):
    history = GradientHistory([Weight("a", "b", "c", (1,))], ["mean_abs"])
    history.append(0, 0, {"mean_abs": [1.0]})
    history.save(tmp_path / "a.jsonl")
    ill_runs(tmp_path, seeds=2)
    assert main(["diagnose", *options, str(tmp_path)]) == 2
    printed = capsys.readouterr().out
    assert "history must have l2_norm" in printed
    assert "nonfinite" in printed


def test_diagnose_prints_names_as_they_are(tmp_path, capsys):
    path = write_run(tmp_path / "[red]x.jsonl", (0.5, np.nan), (1.0, np.nan), name="[bold]")
    assert main(["diagnose", str(path)]) == 1
    printed = capsys.readouterr().out
    assert "[red]x (1 run)" in printed
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
