"""Groups of recorded runs, each diagnosed and predicted, or with the reason why it is not.

Runs belong together if their experiments differ in the seed alone. The command line, the report
and the app all read recorded runs here.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

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

    def findings(self) -> list[tuple[Finding, int]]:
        """Return each rule's first finding with the number of runs in which the rule found it."""
        found = {f.rule: f for diagnosis in reversed(self.diagnoses) for f in diagnosis}
        each = [(f, sum(rule in d.rules for d in self.diagnoses)) for rule, f in found.items()]
        return sorted(each, key=lambda one: CAUSES_FIRST.index(one[0].rule))

    def causes(self) -> list[tuple[Finding, int]]:
        """Return the most likely cause, and other findings that follow from no other."""
        found = self.findings()
        return [one for place, one in enumerate(found) if not place or one[0].independent]

    def consequences(self) -> list[tuple[Finding, int]]:
        """Return the findings that may follow from the cause."""
        return [one for one in self.findings()[1:] if not one[0].independent]

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
