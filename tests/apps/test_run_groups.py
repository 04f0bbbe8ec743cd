"""Tests of groups of runs: which runs are grouped, predicted and diagnosed, and which are not."""

from pathlib import Path

import numpy as np
import pytest

import kgrad.experiments
from kgrad.apps.page.configuration import Configuration
from kgrad.apps.page.predicting import predicted_for_recording
from kgrad.apps.run_groups import RunGroup, group_histories, named_by_file, read_groups
from kgrad.diagnosis import Diagnosis, Finding
from kgrad.experiments import Experiment, replicates, run_all
from kgrad.records.history import GradientHistory, Weight

SMALL = Experiment(name="small", num_layers=2, units=4, epochs=1, samples=64)


@pytest.fixture(scope="module")
def runs():
    return run_all(replicates(SMALL, 2))


def recorded(epochs=(0, 1), layers=("hidden_1", "output"), **metadata):
    weights = [Weight(name, "kernel", f"{name}/kernel", (4, 4)) for name in layers]
    history = GradientHistory(weights, ["mean_abs"], metadata)
    for epoch in epochs:
        history.append(epoch, epoch, {"mean_abs": [0.1] * len(layers)})
    return history


def of(name, seed=0, **experiment):
    return recorded(experiment={"name": name, "seed": seed} | experiment, seed=seed)


def test_runs_that_differ_in_the_seed_alone_are_one_group_whatever_their_order():
    a, b, other = of("a"), of("b"), of("a", 1)
    groups = group_histories({"1": a, "2": b, "3": other})
    assert {name: list(map(id, runs)) for name, runs in groups.items()} == {
        "a": [id(a), id(other)],
        "b": [id(b)],
    }


def test_other_experiments_of_the_same_name_and_runs_without_one_stay_apart():
    histories = [of("a", units=4), of("a", units=5), recorded(), recorded(), of("a", 1, units=4)]
    groups = group_histories({f"file {i}": history for i, history in enumerate(histories)})
    sizes = {name: len(runs) for name, runs in groups.items()}
    assert sizes == {"a": 2, "a (2)": 1, "file 2": 1, "file 3": 1}


def test_runs_are_named_by_their_files_unless_two_have_one_name():
    paths = [Path("a/x.jsonl"), Path("a/y.jsonl"), Path("b/x.jsonl")]
    named = named_by_file({path: of("n", i) for i, path in enumerate(paths)})
    assert list(named) == [str(paths[0]), "y", str(paths[2])]
    assert [history.metadata["seed"] for history in named.values()] == [0, 1, 2]


def test_a_run_from_a_file_belongs_to_the_same_run_in_memory(tmp_path):
    experiment = Experiment(name="w", num_layers=2, units=(5, 4), epochs=1, samples=64)
    (history,) = run_all([experiment])
    history.save(tmp_path / "run.jsonl")
    loaded = GradientHistory.load(tmp_path / "run.jsonl")
    assert len(group_histories({"1": history, "2": loaded})) == 1


def test_a_group_has_a_prediction_a_diagnosis_of_each_run_and_its_rows(runs):
    (group,) = read_groups({"small": runs})
    assert group.experiment == SMALL
    assert group.prediction.layers == runs[0].layers
    assert group.no_prediction == group.no_diagnosis == ""
    assert len(group.diagnoses) == 2
    assert group.seeds == [0, 1]
    for row, history in zip(group.rows(), runs, strict=True):
        assert row["loss_last"] == history.logs["loss"][-1]
        assert row["predicted_ratio"] > 0


def test_an_experiment_of_a_file_is_not_rebuilt_if_it_is_not_of_the_files_size(monkeypatch):
    def rebuilt(*_):
        raise AssertionError("rebuilt")

    monkeypatch.setattr(kgrad.experiments, "predict_experiment", rebuilt)
    for claim in ({"units": 10**9}, {"num_layers": 10**9}, {"samples": 10**12}):
        history = of("evil", **({"num_layers": 1, "units": 4} | claim))
        (group,) = read_groups({"evil": [history]})
        assert group.experiment is group.prediction is None
        assert group.no_prediction.startswith("its history is not of the experiment it names")


@pytest.mark.parametrize(
    ("history", "reason"),
    [
        (recorded(layers=("a", "b", "c")), "its history has other layers"),
        (recorded((1, 2), ("hidden_1", "hidden_2", "output")), "its history has no record of"),
    ],
)
def test_a_known_prediction_is_used_only_for_a_history_that_it_fits(runs, history, reason):
    prediction = read_groups({"small": runs})[0].prediction
    (group,) = read_groups({"x": [history]}, predictions={"x": prediction})
    assert group.prediction is None
    assert group.no_prediction.startswith(reason)
    (fitting,) = read_groups({"x": runs}, predictions={"x": prediction})
    assert fitting.prediction is prediction


def test_a_history_without_what_the_rules_look_at_says_so_and_has_no_numbers():
    (group,) = read_groups({"x": [recorded()]}, predictions={})
    assert group.diagnoses == group.findings() == []
    assert "l2_norm" in group.no_diagnosis
    assert group.rows() == [{"name": "x", "seed": None}]


def test_findings_of_all_seeds_are_counted_and_the_most_severe_come_first():
    experiment = Experiment(
        name="deep", activation="sigmoid", weight_initializer="normal", samples=256, epochs=3
    )
    (group,) = read_groups({"deep": run_all(replicates(experiment, 2))}, predictions={})
    ((finding, seeds, run),) = group.findings()
    assert (finding.rule, seeds, run) == ("vanishing", 2, "seed 0")
    assert finding is group.diagnoses[0][0]


def test_a_finding_comes_from_the_first_run_that_has_it_and_the_cause_leads():
    def found(rule, leads=False):
        return Finding(rule, "critical", (), 0, (), "", (), "", leads=leads)

    group = RunGroup("g", [of("g", seed) for seed in (3, 4)])
    group.diagnoses = [Diagnosis([found("nonfinite")]), Diagnosis([found("vanishing")])]
    shown = [(one.finding.rule, one.runs, one.run) for one in group.findings()]
    assert shown == [("vanishing", 1, "seed 4"), ("nonfinite", 1, "seed 3")]
    # As in a diagnosis: strong evidence is the cause, whatever else was found.
    group.diagnoses[0] = Diagnosis([found("not_moving", leads=True), found("vanishing")])
    assert [one.finding.rule for one in group.findings()] == ["not_moving", "vanishing"]
    assert group.causes() == group.findings()[:1]


def test_a_group_says_how_many_seeds_it_has_and_which_one_is_shown():
    for seeds, size, runs in (
        ([5], "1 seed", [""]),
        ([0, 1, 2], "3 seeds", ["seed 0", "seed 1", "seed 2"]),
        ([0, 0], "2 runs", ["seed 0", "seed 0"]),  # the same run twice
        ([None, None], "2 runs", ["run 1 of 2", "run 2 of 2"]),
        ([None], "1 run", [""]),
    ):
        group = RunGroup("g", [of("g", seed) for seed in seeds])
        assert group.size == size
        assert [group.run(number) for number in range(len(seeds))] == runs


def test_the_app_predicts_a_recording_only_if_it_is_what_it_says():
    described = Configuration(layers=2, units=4).experiment()
    layers = ("hidden_1", "hidden_2", "output")
    prediction, reason = predicted_for_recording(recorded((0,), layers, experiment=described))
    assert reason == ""
    assert prediction.layers == layers
    for history, said in (
        (recorded((0,), layers), "this recording was not made from an app configuration"),
        (recorded((0,), ("a", "b", "c"), experiment=described), "its history has other layers"),
        (recorded((3,), layers, experiment=described), "its history has no record of epoch 0"),
        (
            recorded((0,), layers, experiment=described | {"units": 200}),
            "its history is not of the experiment it names",
        ),
    ):
        prediction, reason = predicted_for_recording(history)
        assert prediction is None
        assert reason.startswith(said)


def test_numbers_of_a_group_are_those_of_its_histories(runs):
    (group,) = read_groups({"small": runs}, predictions={})
    ratios = [history.by_layer("mean_abs")[0] for history in runs]
    np.testing.assert_allclose(
        [row["ratio"] for row in group.rows()], [one[0] / one[1] for one in ratios]
    )
