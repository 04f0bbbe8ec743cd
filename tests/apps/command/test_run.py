"""Tests of `kgrad run`: options, files, exit status and errors."""

import csv
import subprocess
import sys
from dataclasses import fields
from datetime import datetime, timedelta, timezone
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

import kgrad.apps.command.run as script
from kgrad import GradientHistory, Weight
from kgrad.apps.command.run_options import EVERY_AXIS, experiments_of, parse
from kgrad.apps.run_groups import read_groups
from kgrad.experiments import Experiment, replicates, run_all
from kgrad.experiments.data import DATASETS

TINY = ["--layers", "2", "--units", "4", "--epochs", "1", "--seeds", "2", "--samples", "64"]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def read_table(folder):
    with (folder / "table.csv").open() as file:
        return list(csv.DictReader(file))


def printed_table(printed):
    """Return the second line of the header, and one line per network."""
    return printed.split("median over seeds")[1].split("\n\n")[0].splitlines()[1:]


def test_help_does_not_import_tensorflow():
    code = (
        "import sys, kgrad.apps.command.run as script\n"
        "try: script.main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'tensorflow', 'keras', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in DATASETS)


def test_every_field_of_an_experiment_is_an_option():
    others = {"name", "seed", "every", "jit_compile", "statistics", "distributions", "probe"}
    axes = {axis.field for axis in EVERY_AXIS}
    assert axes | others == {field.name for field in fields(Experiment)}


def test_the_main_job_leaves_figures_a_table_and_histories(tmp_path, capsys):
    assert script.main([*TINY, "--output", str(tmp_path)]) == 0
    names = ["vanishing", "healthy", "exploding-relu", "exploding-tanh"]
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {
        *(f"{name}.png" for name in [*names, "comparison", "depth", "seeds", "prediction"]),
        *(f"{name}-seed-{seed}.jsonl" for name in names for seed in (0, 1)),
        "table.csv",
        "findings.csv",
        "report.html",
    }
    history = GradientHistory.load(tmp_path / "healthy-seed-1.jsonl")
    started = datetime.fromisoformat(history.metadata["started"])
    assert timedelta(0) <= datetime.now(timezone.utc) - started < timedelta(minutes=5)
    assert 0 < history.metadata["seconds"] < 300
    assert "s of training" in (tmp_path / "report.html").read_text(encoding="utf-8")
    rows = read_table(tmp_path)
    assert len(rows) == 8
    assert float(rows[0]["loss_first"]) > 0
    printed = capsys.readouterr().out
    for head in ("first hidden", "last hidden", "ratio", "predicted", "decades", "comparison.png"):
        assert head in printed
    assert "no prediction" not in printed


def test_findings_are_printed_in_words_and_written(tmp_path, capsys):
    long_enough = ["--epochs", "3", "--layers", "8", "--seeds", "2", "--samples", "256"]
    presets = ["--preset", "vanishing", "healthy"]
    assert script.main([*long_enough, *presets, "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out.split("\nfindings\n")[1]
    assert "vanishing: the cause, most likely: vanishing in hidden_1 …" in printed
    assert "\n    seed 0: hidden_1, epoch 0: the gradient is " in printed
    assert "since epoch 0, with 2 of 2 seeds" in printed
    assert "→ Match the initializer to the activation" in printed
    assert "healthy: nothing is wrong" in printed
    with (tmp_path / "findings.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["name"], row["seed"], row["rule"]) for row in rows} == {
        ("vanishing", "0", "vanishing"),
        ("vanishing", "1", "vanishing"),
    }
    assert float(rows[0]["value"]) < float(rows[0]["threshold"]) == 1e-4


def test_a_history_that_cannot_be_diagnosed_is_drawn_all_the_same(tmp_path, capsys):
    history = GradientHistory([Weight("a", "kernel", "a/kernel", (2, 2))], ["mean_abs"])
    history.append(1, 1, {"mean_abs": [0.5]}, {"loss": 1.0})
    history.save(tmp_path / "of_others.jsonl")
    folder = str(tmp_path / "drawn")
    assert script.main(["--load", str(tmp_path), "--output", folder]) == 0
    printed = capsys.readouterr().out
    assert "no findings for of_others: history must have l2_norm" in printed
    assert "first layer" in printed
    assert "hidden" not in printed


def test_a_history_whose_outputs_were_never_recorded_is_drawn_without_them(tmp_path):
    weights = [Weight(name, "kernel", f"{name}/kernel", (2, 2)) for name in ("a", "b")]
    history = GradientHistory(weights, ["mean_abs"], outputs=("a", "b"))
    for epoch in range(2):
        history.append(epoch, epoch, {"mean_abs": [0.5, 0.5]}, {"loss": 1.0})
    history.save(tmp_path / "unprobed.jsonl")
    folder = tmp_path / "drawn"
    assert script.main(["--load", str(tmp_path), "--output", str(folder)]) == 0
    assert {path.name for path in folder.glob("*.png")} == {"unprobed.png", "depth.png"}


def test_the_predicted_ratio_stands_beside_the_measured_one(tmp_path, capsys):
    # So wide that single networks are close to the mean.
    arguments = ["--preset", "vanishing", "--layers", "4", "--units", "128", "--epochs", "1"]
    assert (
        script.main([*arguments, "--samples", "64", "--seeds", "3", "--output", str(tmp_path)]) == 0
    )
    rows = read_table(tmp_path)
    assert len({row["predicted_ratio"] for row in rows}) == 1  # the same for all seeds
    first, last, ratio = (
        float(rows[0][f"predicted_{name}"]) for name in ("first", "last", "ratio")
    )
    assert ratio == pytest.approx(first / last)
    measured = sorted(float(row["ratio"]) for row in rows)[1]
    assert ratio == pytest.approx(measured, rel=0.5)
    assert measured < 1e-2
    head, line = printed_table(capsys.readouterr().out)
    assert line.split()[-3:-1] == [f"{measured:.3g}", f"{ratio:.3g}"]
    assert head.split()[-4:-2] == ["ratio", "predicted"]


def test_what_theory_cannot_read_is_left_blank_and_said_once(tmp_path, capsys):
    arguments = ["--activation", "prelu", "relu", "--initializer", "he"]
    assert script.main([*TINY, *arguments, "--skip", "off", "on", "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if line.startswith("no prediction")]
    start = "no prediction for he, activation prelu, skip off; he, activation prelu, skip on: model"
    assert line.startswith(start)
    _, *lines = printed_table(printed)
    assert [line.split()[-2] == "–" for line in lines] == [True, True, False, False]
    rows = read_table(tmp_path)
    assert [row["predicted_ratio"] == "" for row in rows] == [True] * 4 + [False] * 4
    assert all(float(row["ratio"]) for row in rows)
    assert (tmp_path / "prediction.png").exists()


def test_without_any_prediction_there_is_no_figure_of_it(tmp_path, capsys):
    arguments = ["--activation", "prelu", "--output", str(tmp_path)]
    assert script.main([*TINY, *arguments]) == 0
    assert not (tmp_path / "prediction.png").exists()
    assert "prediction.png" not in capsys.readouterr().out


def test_a_history_that_names_no_experiment_or_another_has_no_prediction(tmp_path, capsys):
    script.main([*TINY, "--preset", "healthy", "--seeds", "1", "--output", str(tmp_path)])
    journal = tmp_path / "healthy-seed-0.jsonl"
    text = journal.read_text()
    assert '"num_layers": 2' in text
    for known, other, reason in (
        ('"experiment"', '"trial"', "its history does not describe the experiment"),
        (
            '"num_layers": 2',
            '"num_layers": 3',
            "its history has other layers than the experiment it names",
        ),
        (
            '"num_layers": 2',
            '"num_layers": 0',
            "num_layers must be an integer of at least 1, received 0",
        ),
        ('"num_layers": 2', '"depth": 2', "its history does not describe the experiment"),
    ):
        capsys.readouterr()
        journal.write_text(text.replace(known, other))
        assert script.main(["--load", str(journal), "--output", str(tmp_path / "again")]) == 0
        printed = capsys.readouterr().out
        assert f": {reason}" in printed
        assert printed_table(printed)[1].split()[-2] == "–"


def test_saved_histories_are_redrawn_without_training(tmp_path, capsys, monkeypatch):
    script.main([*TINY, "--preset", "healthy", "--output", str(tmp_path / "run")])
    table = capsys.readouterr().out.split("median over seeds")[1].split("\n\n")[0]

    def no_training(*_):
        raise AssertionError("trained")

    monkeypatch.setattr(script, "train", no_training)
    arguments = ["--load", str(tmp_path / "run"), "--output", str(tmp_path / "again")]
    assert script.main([*arguments, "--format", "svg"]) == 0
    assert (tmp_path / "again" / "healthy.svg").stat().st_size > 1000
    printed = capsys.readouterr().out
    assert table in printed
    for seed in (0, 1):
        history = GradientHistory.load(tmp_path / "run" / f"healthy-seed-{seed}.jsonl")
        first, last = history.logs["loss"]
        shown = f"healthy-seed-{seed}.jsonl: 2 records, loss {first:.4g} → {last:.4g}\n"
        assert shown in printed


# What is in the folder already

HEALTHY = [*TINY, "--preset", "healthy"]


def histories_in(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.jsonl")}


def test_the_same_command_again_replaces_its_own_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert script.main(HEALTHY) == script.main(HEALTHY) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["gradient_output"]
    assert len(histories_in(tmp_path / "gradient_output")) == 2


def test_another_run_gets_a_folder_of_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    script.main(HEALTHY)
    before = histories_in(tmp_path / "gradient_output")
    table = (tmp_path / "gradient_output" / "table.csv").read_bytes()
    # The same files, but trained otherwise; fewer of the same runs; and other figures of them.
    for number, options in enumerate(
        (["--learning-rate", "0.1"], ["--seeds", "1"], ["--preset", "vanishing"]), start=2
    ):
        assert script.main([*HEALTHY, *options]) == 0
        assert f"\nin gradient_output-{number}: " in capsys.readouterr().out
    one = "gradient_output/healthy-seed-1.jsonl"
    assert script.main(["--load", one]) == 0
    assert "\nin gradient_output-5: " in capsys.readouterr().out
    assert histories_in(tmp_path / "gradient_output") == before
    assert (tmp_path / "gradient_output" / "table.csv").read_bytes() == table


def test_a_folder_that_was_asked_for_keeps_its_runs_unless_overwrite_is_given(tmp_path, capsys):
    output = ["--output", str(tmp_path)]
    presets = ["--preset", "healthy", "vanishing", *output]
    script.main([*TINY, *presets, "--probe"])
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for arguments, names in (
        ([*HEALTHY, *output], "healthy-seed-0.jsonl and 3 other recorded runs"),
        (["--load", str(tmp_path / "healthy-seed-1.jsonl"), *output], "healthy-seed-0.jsonl and 2"),
    ):
        capsys.readouterr()
        assert script.main(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "--output must name a folder without other recorded runs, received " in line
        assert names in line
        assert line.endswith("or replace what is in this one with --overwrite")
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / "notes.jsonl").write_text("mine\n")
    (tmp_path / "mine.png").write_text("mine")
    assert script.main([*HEALTHY, *output, "--overwrite", "--format", "svg"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "healthy-seed-0.jsonl", "healthy-seed-1.jsonl", "table.csv", "findings.csv", "report.html",
        "healthy.svg", "depth.svg", "seeds.svg", "prediction.svg", "notes.jsonl", "mine.png",
    }  # fmt: skip


def test_bad_input_removes_nothing_with_overwrite(tmp_path):
    script.main([*HEALTHY, "--output", str(tmp_path)])
    before = histories_in(tmp_path)
    bad = ["--units", "8,8,8", "--layers", "2", "--overwrite", "--output", str(tmp_path)]
    assert script.main(bad) == 2
    assert histories_in(tmp_path) == before


def test_a_folder_without_other_runs_keeps_what_is_not_of_this_run(tmp_path):
    (tmp_path / "comparison.svg").write_text("mine")
    assert script.main([*HEALTHY, "--output", str(tmp_path), "--overwrite"]) == 0
    assert (tmp_path / "comparison.svg").read_text() == "mine"


def test_loading_overwrites_figures_and_no_history(tmp_path):
    script.main([*HEALTHY, "--output", str(tmp_path)])
    before = histories_in(tmp_path)
    one = str(tmp_path / "healthy-seed-1.jsonl")
    assert script.main(["--load", one, "--output", str(tmp_path), "--overwrite"]) == 0
    assert histories_in(tmp_path) == before
    assert [row["seed"] for row in read_table(tmp_path)] == ["1"]


def test_a_file_of_somebody_else_is_not_replaced_by_a_run_of_that_name(tmp_path, capsys):
    (tmp_path / "healthy-seed-0.jsonl").write_text('{"a": 1}\n')
    assert script.main([*HEALTHY, "--output", str(tmp_path)]) == 2
    assert "received " in capsys.readouterr().err
    assert (tmp_path / "healthy-seed-0.jsonl").read_text() == '{"a": 1}\n'


@pytest.mark.parametrize("option", ["--activation", "--preset", "--learning-rate"])
def test_values_that_would_be_recorded_in_one_file_are_refused(option, tmp_path, capsys):
    values = {
        "--activation": "relu ReLU",
        "--preset": "healthy healthy",
        "--learning-rate": "1 1.0",
    }
    arguments = [*TINY, option, *values[option].split(), "--output", str(tmp_path)]
    assert script.main(arguments) == 2
    assert f"{option} must have values that differ, received " in capsys.readouterr().err


def test_a_figure_of_one_of_several_runs_says_which():
    experiment = Experiment(num_layers=2, units=4, epochs=1, samples=64, probe=True)
    histories = run_all(replicates(experiment, [4, 7]))
    several, alone = read_groups({"several": histories, "alone": histories[1:]}, predictions={})
    figures = script.draw([several, alone])
    titles = {name: figure.get_suptitle() for name, figure in figures.items()}
    for kind in ("", ", activations", ", flow"):
        assert titles[f"several{kind}"] == "several, seed 4"
        assert titles[f"alone{kind}"] == "alone"
    for name in ("comparison", "depth"):
        panels = {axes.get_title() for axes in figures[name].axes}
        assert {"several, seed 4", "alone"} <= panels
    assert any(axes.get_title() == "several" for axes in figures["seeds"].axes)


def test_what_is_recorded_on_request_is_drawn_too(tmp_path):
    asked = [*TINY, "--preset", "healthy", "--seeds", "1", "--distributions", "--probe"]
    assert script.main([*asked, "--output", str(tmp_path)]) == 0
    for figure in ("distributions", "activations", "flow"):
        assert (tmp_path / f"healthy-{figure}.png").stat().st_size > 10_000
    (journal,) = tmp_path.glob("*.jsonl")
    history = GradientHistory.load(journal)
    assert np.isfinite(history.activations["signal_l2"]).all()
    assert history.metadata["experiment"]["probe"] is True


def test_several_values_make_a_grid(tmp_path):
    arguments = ["--activation", "relu", "tanh", "--skip", "off", "on", "--seeds", "1"]
    assert script.main([*TINY, *arguments, "--output", str(tmp_path)]) == 0
    assert len(list(tmp_path.glob("*.jsonl"))) == 4
    assert (tmp_path / "he-activation-relu-skip-on.png").exists()


def test_every_option_reaches_the_experiment():
    options = parse(
        "--activation gelu --initializer normal:0.1 --bias-initializer normal:0.2 --layers 3 "
        "--units 8,6,4 --normalization layer --skip on --dataset moons --samples 100 --features 3 "
        "--optimizer adam --learning-rate 0.01 --clip-norm 2 --epochs 4 --batch-size 10 "
        "--every 5 --statistics max_abs --distributions --probe --jit off --seeds 1".split()
    )
    (asked,) = experiments_of(options)
    assert (asked.activation, asked.weight_initializer) == ("gelu", "normal:0.1")
    assert asked.bias_initializer == "normal:0.2"
    assert (asked.num_layers, asked.units) == (3, (8, 6, 4))
    assert (asked.normalization, asked.skip_connections) == ("layer", True)
    assert (asked.dataset, asked.samples, asked.features) == ("moons", 100, 3)
    assert (asked.optimizer, asked.learning_rate, asked.clip_norm) == ("adam", 0.01, 2.0)
    assert (asked.epochs, asked.batch_size, asked.every) == (4, 10, 5)
    assert (asked.statistics, asked.jit_compile, asked.seed) == (("max_abs",), False, 0)
    assert asked.distributions is asked.probe is True


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--activation", "rellu"], "'rellu'"),
        (["--initializer", "hee"], "'hee'"),
        (["--dataset", "moon"], "moons"),
        (["--initializer", "normal:wide"], "--initializer with a colon must be normal:STDDEV"),
        (["--bias-initializer", "ones"], "--bias-initializer must be zeros or normal:STDDEV"),
        (["--layers", "0"], "--layers must be an integer of at least 1, received 0"),
        (["--units", "0"], "--units must be an integer of at least 1, received 0"),
        (["--units", "8,8,8"], "--units must be one width or one per hidden layer (2), received 3"),
        (["--normalization", "group"], "--normalization must be "),
        (["--samples", "0"], "--samples of 'classification' must be an integer of at least 1"),
        (["--features", "1"], "--features of 'classification' must be an integer of at least 2"),
        (["--optimizer", "sdg"], "--optimizer must name a Keras optimizer"),
        (["--learning-rate", "nan"], "--learning-rate must be a positive, finite number"),
        (["--clip-norm", "-1"], "--clip-norm must be a positive, finite number"),
        (["--every", "0"], "--every must be an integer of at least 1, received 0"),
        (["--epochs", "0"], "--epochs must be an integer of at least 1, received 0"),
        (["--batch-size", "-3"], "--batch-size must be an integer of at least 1, received -3"),
        (["--statistics", "mean"], "did you mean 'mean_abs'?"),
        (["--seeds", "0"], "--seeds must be at least 1, received 0"),
        (["--preset", "healthy", "--activation", "relu"], "--preset fixes the activation"),
        (["--load", "nowhere.jsonl"], "--load: No such file or directory: 'nowhere.jsonl'"),
        (["--load", "."], "--load: "),
    ],
)
def test_bad_input_gets_one_sentence_and_status_2(arguments, sentence, tmp_path, capsys):
    small = [] if "--layers" in arguments else ["--layers", "2"]
    assert script.main([*small, *arguments, "--output", str(tmp_path)]) == 2
    output = capsys.readouterr()
    assert sentence in output.err
    assert len(output.err.strip().splitlines()) == 1
    assert "seed 0" not in output.out  # nothing was trained
    assert not list(tmp_path.glob("*.jsonl"))


def test_a_refused_run_leaves_no_folder_but_those_that_were_there(tmp_path):
    new, there = tmp_path / "new", tmp_path / "there"
    there.mkdir()
    for folder in (new, there):
        assert script.main(["--activation", "rellu", "--output", str(folder)]) == 2
    assert list(tmp_path.iterdir()) == [there]


def test_a_shortened_option_is_refused(capsys):
    with pytest.raises(SystemExit) as refused:
        script.main(["--epoch", "3"])
    assert refused.value.code == 2
    assert "unrecognized arguments: --epoch 3" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("not a folder")
    assert script.main(["--output", str(tmp_path / "file")]) == 2
    assert "--output must name a folder that can be written" in capsys.readouterr().err
    assert script.main(["--output", ""]) == 2
    assert "--output must name a folder, received an empty name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        *(
            ([option, "x"], f"{option} must be an integer, received 'x'")
            for option in ("--layers", "--samples", "--features", "--epochs", "--every", "--seeds")
        ),
        (["--layers", "2.5"], "--layers must be an integer, received '2.5'"),
        (
            ["--layers", "2, 4"],
            "--layers must have spaces between its values, as in 2 4; received '2, 4'",
        ),
        (
            ["--activation", "relu,tanh"],
            "--activation must have spaces between its values, as in relu tanh; received",
        ),
        (["--learning-rate", "x"], "--learning-rate must be a number, received 'x'"),
        (["--clip-norm", "x"], "--clip-norm must be a number, received 'x'"),
        (["--units", "8,"], "--units must be one width, such as 64, or one per layer"),
        (["--skip", "maybe"], "--skip must be on or off, received 'maybe'"),
        (["--jit", "yes"], "--jit must be one of "),
        (["--format", "gif"], "--format must be one of "),
        (["--preset", "good"], "--preset must be one of "),
        (["--load"], "argument --load: expected at least one argument"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_option_that_cannot_be_read_is_named_and_ends_with_status_2(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as end:
        parse(arguments)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"kgrad run: {sentence}")


def test_an_interrupt_draws_what_was_recorded(tmp_path, monkeypatch, capsys):
    import kgrad.experiments

    run = kgrad.experiments.run_replicates

    def interrupted(*arguments, **options):
        for history in run(*arguments, **options):
            history.metadata["interrupted"] = True
            yield history

    monkeypatch.setattr(kgrad.experiments, "run_replicates", interrupted)
    assert script.main([*TINY, "--output", str(tmp_path)]) == 130
    assert len(list(tmp_path.glob("*.jsonl"))) == 1
    assert (tmp_path / "vanishing.png").exists()


def test_an_interrupt_of_a_repeated_run_keeps_the_finished_one(tmp_path, monkeypatch, capsys):
    import kgrad.experiments

    run = kgrad.experiments.run_replicates
    arguments = [*TINY, "--preset", "healthy", "--epochs", "3", "--output", str(tmp_path)]
    assert script.main(arguments) == 0
    finished = histories_in(tmp_path)

    def interrupted(prepared, journals, *arguments, **options):
        """Yield the first run as if Ctrl-C had been pressed after two records."""
        runs = run(prepared, journals, *arguments, **options)
        for _, file in zip(runs, journals, strict=True):
            file.write_bytes(b"".join(file.read_bytes().splitlines(True)[:3]))
            history = GradientHistory.load(file)
            history.metadata["interrupted"] = True
            yield history

    monkeypatch.setattr(kgrad.experiments, "run_replicates", interrupted)
    capsys.readouterr()
    assert script.main(arguments) == 130
    assert histories_in(tmp_path) == finished
    assert not list(tmp_path.glob("*.new"))
    printed = capsys.readouterr().out
    journal = tmp_path / "healthy-seed-0.jsonl"
    assert f"healthy, seed 0: interrupted; {journal} keeps the 4 records it had\n" in printed
    # A longer run replaces one that was interrupted earlier.
    journal.write_bytes(b"".join(finished[journal.name].splitlines(True)[:2]))
    assert script.main(arguments) == 130
    assert len(GradientHistory.load(journal)) == 2


def test_a_run_killed_before_its_first_record_does_not_spoil_the_folder(tmp_path, capsys):
    script.main([*TINY, "--preset", "healthy", "--output", str(tmp_path)])
    journal = tmp_path / "healthy-seed-0.jsonl"
    journal.write_bytes(journal.read_bytes().split(b"\n")[0] + b"\n")
    again = ["--output", str(tmp_path / "again")]
    assert script.main(["--load", str(tmp_path), *again]) == 0
    assert script.main(["--load", str(journal), *again]) == 2
    assert "no recorded run (.jsonl with at least one record) in" in capsys.readouterr().err
