"""Groups of recorded runs, each diagnosed and predicted, or with the reason why it is not.

Runs belong together if their experiments differ in the seed alone. The command line, the report
and the app all read recorded runs here.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kgrad.diagnosis import Diagnosis, Finding, diagnose
from kgrad.diagnosis.diagnosing import CAUSES_FIRST
from kgrad.experiments.experiment import Experiment, experiment_of
from kgrad.measure.backends import import_quietly
from kgrad.records.checks import unique_name
from kgrad.records.history import GradientHistory
from kgrad.records.prediction import Prediction
from kgrad.records.summary import summarize, summarize_prediction

if TYPE_CHECKING:
    from kgrad.experiments import Prepared

# Anyone may have written a history file: the network it describes is rebuilt only if that is cheap.
_MOST_WEIGHTS, _MOST_SAMPLES = 10_000_000, 100_000


class Found(NamedTuple):
    """A rule's finding in the runs of a group.

    Attributes:
        finding: the finding in the first run that has one of this rule.
        runs: the number of runs with a finding of this rule.
        run: the run that `finding` and its numbers are of, in words; empty if it is the only one.
    """

    finding: Finding
    runs: int
    run: str


@dataclass
class RunGroup:
    """Runs of one experiment that differ in the seed alone.

    Attributes:
        name: the name of the experiment.
        histories: the runs, at least one.
        experiment: the experiment; None if the histories do not describe one.
        prediction: the gradients that theory expects before training; None if there are none.
        no_prediction: the reason why there is no prediction; empty if there is one.
        diagnoses: one diagnosis per run; empty if a run cannot be diagnosed.
        no_diagnosis: the reason why a run cannot be diagnosed; empty if all can.
    """

    name: str
    histories: list[GradientHistory]
    experiment: Experiment | None = None
    prediction: Prediction | None = None
    no_prediction: str = ""
    diagnoses: list[Diagnosis] = field(default_factory=list)
    no_diagnosis: str = ""

    @property
    def seeds(self) -> list[Any]:
        """The seed of each run, as recorded in its history."""
        return [history.metadata.get("seed") for history in self.histories]

    @property
    def size(self) -> str:
        """The number of runs, in words: "3 seeds", or "3 runs" if their seeds are not known."""
        count = len(self.histories)
        known = None not in self.seeds and len(set(map(str, self.seeds))) == count
        return f"{count} {'seed' if known else 'run'}{'s' * (count > 1)}"

    @property
    def missing(self) -> str:
        """The reason why some run could not be checked whole; empty if all could."""
        return next((one.missing for one in self.diagnoses if one.missing), "")

    def run(self, number: int) -> str:
        """Return which run it is, in words: "seed 0", or "run 1 of 3"; empty for the only one."""
        if len(self.histories) == 1:
            return ""
        seed = self.seeds[number]
        return f"run {number + 1} of {len(self.histories)}" if seed is None else f"seed {seed}"

    def findings(self) -> list[Found]:
        """Return each rule's finding in the first run that has one, the most likely cause first."""
        return sorted(
            self._first_of_each_rule(self.diagnoses),
            key=lambda one: (not one.finding.leads, CAUSES_FIRST.index(one.finding.rule)),
        )

    def notes(self) -> list[Found]:
        """Return each rule's note in the first run that has one."""
        return self._first_of_each_rule([diagnosis.notes for diagnosis in self.diagnoses])

    def _first_of_each_rule(self, by_run: Sequence[Sequence[Finding]]) -> list[Found]:
        runs = Counter(rule for some in by_run for rule in {finding.rule for finding in some})
        found: dict[str, Found] = {}
        for number, some in enumerate(by_run):
            for finding in some:
                found.setdefault(finding.rule, Found(finding, runs[finding.rule], self.run(number)))
        return list(found.values())

    def causes(self) -> list[Found]:
        """Return the most likely cause, and other findings that follow from no other."""
        found = self.findings()
        return [one for place, one in enumerate(found) if not place or one.finding.independent]

    def consequences(self) -> list[Found]:
        """Return the findings that may follow from the cause."""
        return [one for one in self.findings()[1:] if not one.finding.independent]

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per run: name, seed, and the numbers of its summary that are known."""
        expected: dict[str, Any] = {}
        if self.prediction is not None:
            expected = dict(summarize_prediction(self.prediction))
        rows = []
        for history, seed in zip(self.histories, self.seeds, strict=True):
            known = "loss" in history.logs and "mean_abs" in history.statistics
            numbers = summarize(history) if known else {}
            rows.append({"name": self.name, "seed": seed} | numbers | expected)
        return rows


def named_by_file(histories: Mapping[Path, GradientHistory]) -> dict[str, GradientHistory]:
    """Return file's name without its ending → history; the whole path if two names are the same."""
    stems = [path.stem for path in histories]
    return {
        path.stem if stems.count(path.stem) == 1 else str(path): history
        for path, history in histories.items()
    }


def group_histories(histories: Mapping[str, GradientHistory]) -> dict[str, list[GradientHistory]]:
    """Group histories whose experiments differ in the seed alone, under the experiment's name.

    Args:
        histories: name → history; the name is used if the history does not name an experiment.

    Returns:
        Name → histories, in order. Different experiments of one name get a number: "deep (2)".
    """
    groups: dict[tuple[str, str], list[GradientHistory]] = {}
    for fallback, history in histories.items():
        described = history.metadata.get("experiment")
        described = described if isinstance(described, dict) else {}
        name = str(described.get("name") or fallback)
        # As JSON, because a history from a file has lists where one in memory has tuples.
        identity = [described | {"seed": None}, history.layers]
        key = name, json.dumps(identity, sort_keys=True, default=str)
        groups.setdefault(key, []).append(history)
    named: dict[str, list[GradientHistory]] = {}
    for (name, _), runs in groups.items():
        named[unique_name(name, named)] = runs
    return named


def read_groups(
    histories: Mapping[str, Sequence[GradientHistory]],
    *,
    prepared: Mapping[str, "Prepared"] | None = None,
    predictions: Mapping[str, Prediction] | None = None,
) -> list[RunGroup]:
    """Diagnose and predict every group of histories.

    Args:
        histories: name → histories that differ in the seed alone.
        prepared: name → the prepared experiment, for runs that were trained here. Other
            experiments are read from the histories, and predicted only if that is cheap.
        predictions: name → prediction, if they are known already; None to compute them.
    """
    groups = []
    for name, runs in histories.items():
        group = RunGroup(name, list(runs))
        given = None if predictions is None else predictions.get(name)
        _predict(group, (prepared or {}).get(name), given, predictions is None)
        group.diagnoses, group.no_diagnosis = diagnose_runs(group.histories)
        groups.append(group)
    return groups


def kind_of_layers(groups: Sequence[RunGroup]) -> str:
    """Return the name of the layers in `rows`; only `create_model` has hidden ones."""
    layers = [layer for group in groups for layer in group.histories[0].layers]
    return "hidden layer" if any(one.startswith("hidden_") for one in layers) else "layer"


def diagnose_runs(histories: Sequence[GradientHistory]) -> tuple[list[Diagnosis], str]:
    """Return a diagnosis of each run and an empty text, or none and the reason why not."""
    try:
        return [diagnose(history) for history in histories], ""
    except ValueError as error:  # the history lacks a statistic that the rules need
        return [], str(error)


def mismatch(prediction: Prediction, history: GradientHistory) -> str:
    """Return the reason why a prediction is not of a history; empty if it is."""
    if prediction.layers != history.layers:
        return "its history has other layers than the experiment it names"
    if 0 not in history.epochs:
        return "its history has no record of epoch 0"
    return ""


def require_cheap(experiment: Experiment, history: GradientHistory) -> None:
    """Check that an experiment read from a history has the history's size and is cheap to rebuild.

    Raises:
        ValueError: if not.
    """
    units = experiment.units if isinstance(experiment.units, tuple) else (experiment.units,)
    numbers = [experiment.num_layers, experiment.samples or 0, experiment.features or 0, *units]
    weights = sum(weight.size for weight in history.weights)
    if (
        not all(isinstance(number, int) for number in numbers)
        or experiment.num_layers > len(history.layers)
        or max(units) > max(max(weight.shape, default=1) for weight in history.weights)
        or max(experiment.samples or 0, experiment.features or 0) > _MOST_SAMPLES
        or weights > _MOST_WEIGHTS
    ):
        raise ValueError("its history is not of the experiment it names, or that is too large")


def _predict(
    group: RunGroup, prepared: "Prepared | None", prediction: Prediction | None, compute: bool
) -> None:
    """Set the group's experiment, and its prediction or the reason why there is none."""
    history = group.histories[0]
    try:
        if prepared is None:
            experiment = experiment_of(history)
            require_cheap(experiment, history)
        else:
            experiment = prepared.experiment
        group.experiment = experiment
        if compute:
            import_quietly("a prediction")
            from kgrad.experiments import predict_experiment

            prediction = predict_experiment(prepared or experiment)
    except (ModuleNotFoundError, OverflowError, TypeError, ValueError) as error:
        group.no_prediction = str(error)
    if prediction is not None:
        group.no_prediction = mismatch(prediction, history)
        group.prediction = None if group.no_prediction else prediction
