"""What a sweep's folder holds: the table against numbers set by hand, and an index that is lost."""

import json
import math
import os
import shutil
import sqlite3

import numpy as np
import pytest

from kgrad.records.history import GradientHistory, Weight, load_runs
from kgrad.records.sweep import INDEX, Sweep, begin_sweep, write_failure

FIELDS = {"name": "net", "num_layers": 2, "units": [4, 8], "normalization": None}
PLANNED = {f"{name}-{seed}": FIELDS | {"name": name, "seed": seed}
           for name in ("aa11", "ab22", "ba33") for seed in (0, 1)}  # fmt: skip


def history(losses, gradients=(1e-3, 1e-1), **metadata):
    weights = [
        Weight(f"hidden_{i + 1}", "kernel", f"hidden_{i + 1}/kernel", (2, 2)) for i in (0, 1)
    ]
    made = GradientHistory(weights, ["mean_abs"], metadata)
    for epoch, loss in enumerate(losses):
        made.append(
            epoch, epoch, {"mean_abs": list(gradients)},
            {"loss": loss, "accuracy": 1 - loss / 10},
        )  # fmt: skip
    return made


def keep(sweep, run, losses=(2.0, 1.5, 1.0), findings=("vanishing", "not_moving"), **options):
    file = sweep.file(run)
    file.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"experiment": PLANNED[run], "findings": list(findings), "seconds": 1.5,
                "skill": 0.9, "started": "2026-11-30T06:00:00+00:00"}  # fmt: skip
    history(losses, **options, **metadata).save(file)
    return file


@pytest.fixture
def sweep(tmp_path):
    made = begin_sweep(tmp_path / "sweep", PLANNED)
    for run in ("aa11-0", "aa11-1", "ba33-1"):
        keep(made, run)
    return made


def test_the_table_has_a_row_for_each_run_with_its_fields_and_numbers(sweep):
    keep(sweep, "ab22-0", losses=(3.0, math.inf, math.nan), gradients=(0.0, 1.0), findings=())
    frame = sweep.to_frame()
    assert list(frame.index) == ["aa11-0", "aa11-1", "ab22-0", "ba33-1"]
    row = frame.loc["aa11-1"]
    assert (row["name"], row["num_layers"], row["units"], row["seed"]) == ("aa11", 2, (4, 8), 1)
    assert row["normalization"] is None or math.isnan(row["normalization"])
    numbers = row[["loss_first", "loss_last", "metric", "gradient_first", "gradient_last", "ratio",
                   "decades_per_layer", "seconds"]]  # fmt: skip
    expected = [2.0, 1.0, 0.9, 1e-3, 1e-1, 1e-2, -2.0, 1.5]
    np.testing.assert_allclose(numbers.astype(float), expected, rtol=1e-12)
    assert (row["findings"], row["error"]) == ("vanishing, not_moving", "")
    diverged = frame.loc["ab22-0"]
    assert math.isnan(diverged["loss_last"]) and diverged["gradient_first"] == 0.0
    assert diverged["decades_per_layer"] == -math.inf and diverged["findings"] == ""


def test_a_run_that_failed_is_a_row_with_its_error(sweep):
    write_failure(sweep.failure_file("ab22-1"), PLANNED["ab22-1"], "ValueError: no", "Traceback …")
    frame = sweep.to_frame()
    row = frame.loc["ab22-1"]
    assert (row["error"], row["name"], row["seed"]) == ("ValueError: no", "ab22", 1)
    assert math.isnan(row["loss_last"])
    assert sweep.failures() == {"ab22-1": "Traceback …"}
    assert tuple(sweep.status()) == (3, 1, 2) and len(sweep) == 3
    assert str(sweep.status()) == "3 of 6 runs are done, 1 failed"
    # It was run again, and another process has not yet removed the failure.
    keep(sweep, "ab22-1")
    assert sweep.to_frame().loc["ab22-1", "error"] == ""
    assert tuple(sweep.status()) == (4, 0, 2)


def test_a_sweep_with_failures_only_and_one_without_runs_have_tables(tmp_path):
    sweep = begin_sweep(tmp_path, PLANNED)
    assert sweep.to_frame().empty and len(sweep) == 0
    write_failure(sweep.failure_file("ab22-1"), PLANNED["ab22-1"], "ValueError: no", "Traceback …")
    assert list(sweep.to_frame()["error"]) == ["ValueError: no"]


@pytest.mark.parametrize("damage", ["missing", "no database", "a directory", "other columns"])
def test_an_index_that_is_lost_or_damaged_is_made_again(sweep, damage):
    before = sweep.to_frame()
    path = sweep.folder / INDEX
    path.unlink()
    if damage == "no database":
        path.write_bytes(b"nonsense " * 1000)
    elif damage == "a directory":  # a stand-in for a folder that must not be written
        path.mkdir()
    elif damage == "other columns":
        with sqlite3.connect(path) as index:
            index.execute("create table runs (run text)")
        index.close()
    after = sweep.to_frame()
    assert after.equals(before) and len(after) == 3


@pytest.mark.parametrize("settled", [True, False])
def test_an_index_that_is_older_than_the_histories_is_brought_up_to_date(sweep, settled):
    if settled:  # the folders have not changed for some time
        for folder in (sweep.folder / "runs").iterdir():
            os.utime(folder, (1e9, 1e9))
    sweep.to_frame()
    keep(sweep, "ab22-0", losses=(1.0, 0.25))
    keep(sweep, "aa11-0", losses=(1.0, 0.125))
    sweep.file("aa11-1").unlink()
    shutil.rmtree(sweep.file("ba33-1").parent)
    frame = Sweep(sweep.folder).to_frame()
    assert frame["loss_last"].to_dict() == {"aa11-0": 0.125, "ab22-0": 0.25}


def test_the_index_is_not_made_again_if_nothing_changed(sweep, monkeypatch):
    for folder in (sweep.folder / "runs").iterdir():
        os.utime(folder, (1e9, 1e9))
    before = sweep.to_frame()
    for name in ("_ends_of", "_compare"):
        monkeypatch.setattr(f"kgrad.records.sweep.{name}", None)
    assert sweep.to_frame().equals(before)


def test_a_file_that_is_no_history_is_a_row_that_says_so(sweep):
    keep(sweep, "ab22-0").write_text("{}\n")
    assert "expected a header" in sweep.to_frame().loc["ab22-0", "error"]
    assert len(sweep.histories()) == 3


def test_histories_are_those_of_the_chosen_runs(sweep):
    keep(sweep, "ab22-0", losses=(1.0, 0.25))
    found = sweep.histories(name="aa11", units=(4, 8))
    assert list(found) == ["aa11, seed 0", "aa11, seed 1"]
    frame = sweep.to_frame()
    (name, one), *rest = sweep.histories(frame[frame["loss_last"] < 0.5]).items()
    assert (name, one.logs["loss"][-1], rest) == ("ab22, seed 0", 0.25, [])
    with pytest.raises(ValueError, match=r"received 'layers'"):
        sweep.histories(layers=2)
    with pytest.raises(ValueError, match=r"no finished run with num_layers=7"):
        sweep.histories(num_layers=7)


def test_a_folder_has_one_sweep_to_which_runs_may_be_added(sweep):
    more = PLANNED | {"cc44-0": FIELDS | {"name": "cc44", "seed": 0}}
    assert begin_sweep(sweep.folder, more).planned == more
    with pytest.raises(ValueError, match=r"with 1 others, such as 'cc44, seed 0'"):
        begin_sweep(sweep.folder, PLANNED)
    # Nothing is lost if nothing was run.
    shutil.rmtree(sweep.folder / "runs")
    assert list(begin_sweep(sweep.folder, {"aa11-0": PLANNED["aa11-0"]}).planned) == ["aa11-0"]


def test_what_is_no_sweep_is_refused_with_its_name(tmp_path):
    with pytest.raises(ValueError, match=r"without sweep.json"):
        Sweep(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"other files, such as 'notes.txt'"):
        begin_sweep(tmp_path, PLANNED)
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(ValueError, match=r"sweep.json' is no list of a sweep's runs"):
        Sweep(tmp_path).status()
    content = {"format": "kgrad-sweep", "version": 9, "shared": {}, "runs": {}}
    (tmp_path / "sweep.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"version 1, received 'kgrad-sweep', 9"):
        Sweep(tmp_path).status()


def test_the_commands_read_a_sweep_as_a_folder_of_runs(sweep):
    assert [path.stem for path in load_runs([sweep.folder])] == ["aa11-0", "aa11-1", "ba33-1"]
