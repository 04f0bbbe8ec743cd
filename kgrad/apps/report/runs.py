"""What a report says of each network: its runs, their findings, its prediction, how to redo it."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from kgrad.diagnosis import Diagnosis, Finding, diagnose
from kgrad.experiments.names import SHORT_NAMES
from kgrad.figures.interactive.flow_drawing import FlowDrawing
from kgrad.records.flow_graph import flow_graph_from_history
from kgrad.records.history import GradientHistory
from kgrad.records.prediction import Prediction
from kgrad.records.summary import summarize, summarize_prediction

if TYPE_CHECKING:
    from kgrad.experiments import Experiment

# A history may come from anybody: what it describes is rebuilt only where that is cheap.
_MOST_WEIGHTS, _MOST_SAMPLES = 10_000_000, 100_000
_MOST_PARTS = 1000  # of a flow graph
_AXES = (
    "activation", "weight_initializer", "num_layers", "units", "normalization", "skip_connections",
    "dataset", "samples", "features",
    "optimizer", "learning_rate", "clip_norm", "epochs", "batch_size",
)  # fmt: skip


@dataclass
class Network:
    """The runs of one network, which differ in their seed.

    Attributes:
        name: what it is called.
        histories: what was measured, at least one.
        experiment: what was run, where the histories tell.
        prediction: what theory expects of it.
        unpredicted: why there is no prediction.
        diagnoses: what is wrong with each run.
        undiagnosed: why a run could not be diagnosed.
        flow: the first history's flow graph, where that says how its layers are joined.
        undrawn: why there is none all the same.
    """

    name: str
    histories: list[GradientHistory]
    experiment: "Experiment | None" = None
    prediction: Prediction | None = None
    unpredicted: str = ""
    diagnoses: list[Diagnosis] = field(default_factory=list)
    undiagnosed: str = ""
    flow: FlowDrawing | None = None
    undrawn: str = ""

    @property
    def seeds(self) -> list[Any]:
        """Of each run the seed that its history names."""
        return [history.metadata.get("seed") for history in self.histories]

    def findings(self) -> list[tuple[Finding, int]]:
        """Each finding once, and with how many of the runs."""
        found = {f.rule: f for diagnosis in reversed(self.diagnoses) for f in diagnosis}
        each = [(f, sum(rule in d.rules for d in self.diagnoses)) for rule, f in found.items()]
        return sorted(each, key=lambda one: (one[0].severity != "critical", one[0].first_epoch))


def networks_of(
    histories: Mapping[str, Any] | Sequence[GradientHistory],
    predictions: Mapping[str, Prediction] | None,
    statistic: str,
) -> list[Network]:
    """The networks, each diagnosed and, where that can be done, predicted.

    Args:
        histories: name → history or histories; or histories, named by their experiments.
        predictions: name → prediction, where they are known; None to make them.
        statistic: the one that is drawn.
    """
    if isinstance(histories, Mapping):
        groups = {
            str(name): [some] if isinstance(some, GradientHistory) else list(some)
            for name, some in histories.items()
        }
    else:
        groups = grouped({f"history {i}": one for i, one in enumerate(histories, start=1)})
    networks = [Network(name, some) for name, some in groups.items()]
    for network in networks:
        _read_experiment(network, (predictions or {}).get(network.name), predictions is None)
        if network.prediction and statistic not in network.prediction.statistics:
            network.prediction, network.unpredicted = None, f"{statistic} is not predicted"
        try:
            network.diagnoses = [diagnose(history) for history in network.histories]
        except (KeyError, ValueError) as error:  # what the rules look at was not recorded
            network.undiagnosed = str(error.args[0])
        _read_graph(network)
    return networks


def grouped(histories: Mapping[str, GradientHistory]) -> dict[str, list[GradientHistory]]:
    """Histories of one experiment that differ in the seed alone, under the experiment's name.

    Args:
        histories: name, for those that name no experiment, → history.
    """
    groups: dict[tuple[str, str], list[GradientHistory]] = {}
    for fallback, history in histories.items():
        given = history.metadata.get("experiment")
        given = given if isinstance(given, dict) else {}
        name = str(given.get("name") or fallback)
        other = sorted((key, str(value)) for key, value in given.items() if key != "seed")
        groups.setdefault((name, f"{other} {history.layers}"), []).append(history)
    named: dict[str, list[GradientHistory]] = {}
    for (name, _), some in groups.items():
        number, free = 1, name
        while free in named:
            number += 1
            free = f"{name} ({number})"
        named[free] = some
    return named


def rows_of(network: Network) -> list[dict[str, Any]]:
    """One row a run, as `table.csv` of the main job has it; None where a number is not known."""
    expected: dict[str, Any] = {}
    if network.prediction is not None:
        expected = dict(summarize_prediction(network.prediction))
    rows = []
    for history, seed in zip(network.histories, network.seeds, strict=True):
        known = "loss" in history.logs and "mean_abs" in history.statistics
        numbers = summarize(history) if known else {}
        rows.append({"name": network.name, "seed": seed} | numbers | expected)
    return rows


def described(experiment: "Experiment") -> str:
    """The experiment in a sentence."""
    e = experiment
    parts = [
        f"{e.num_layers} hidden layers of {e.units} units, {e.activation}, {e.weight_initializer}"
    ]
    parts += [f"{e.normalization} normalisation"] if e.normalization else []
    parts += ["skip connections"] if e.skip_connections else []
    samples = f", {e.samples} samples" if e.samples else ""
    clipping = f", gradients clipped to norm {e.clip_norm}" if e.clip_norm else ""
    trained = f"{e.optimizer} with learning rate {e.learning_rate}{clipping}"
    return (
        f"{', '.join(parts)}. Data: {e.dataset}{samples}. Trained for {e.epochs} epochs in batches "
        f"of {e.batch_size} by {trained}."
    )


def command_of(experiment: "Experiment", runs: int) -> str:
    """The command that trains the network again."""
    words = ["python", "-m", "kgrad", "run"]
    for axis in _AXES:
        value, default = getattr(experiment, axis), getattr(type(experiment), axis)
        if value != default or axis in ("activation", "weight_initializer"):
            option = SHORT_NAMES.get(axis, axis).replace("_", "-")
            words += [f"--{option}", _word(value)]
    if experiment.every != "epoch":
        words += ["--every", str(experiment.every)]
    if experiment.statistics:
        words += ["--statistics", *map(str, experiment.statistics)]
    words += [f"--{name}" for name in ("distributions", "probe") if getattr(experiment, name)]
    return shlex.join([*words, "--seeds", str(runs)])


def code_of(experiment: "Experiment", seeds: Sequence[Any]) -> str:
    """The Python that trains the network again."""
    given = [
        f"    {one.name}={getattr(experiment, one.name)!r},"
        for one in fields(experiment)
        if one.name not in ("seed",)
        and (getattr(experiment, one.name) != one.default or one.name in _AXES[:2])
    ]
    known = [seed for seed in seeds if isinstance(seed, int)] or [experiment.seed]
    return "\n".join(
        [
            "from kgrad.experiments import Experiment, replicates, run_all",
            "",
            "experiment = Experiment(",
            *given,
            ")",
            f"histories = run_all(replicates(experiment, {known!r}))",
        ]
    )


def _read_experiment(network: Network, prediction: Prediction | None, predict: bool) -> None:
    """Fill in what was run, and what theory expects of it or why it says nothing."""
    # With TensorFlow, without which the figures are drawn.
    from kgrad.experiments import experiment_of, predict_experiment

    history = network.histories[0]
    network.prediction = prediction
    try:
        experiment = experiment_of(history)
        _require_cheap(experiment, history)
        network.experiment = experiment
        if predict:
            network.prediction = predict_experiment(experiment)
        if network.prediction and network.prediction.layers != history.layers:
            network.prediction = None
            raise ValueError("its history has other layers than the experiment it names")
        if network.prediction and 0 not in history.epochs:
            network.prediction = None
            raise ValueError("its history has no record of epoch 0")
    except (OverflowError, TypeError, ValueError) as error:
        network.unpredicted = str(error)


def _read_graph(network: Network) -> None:
    """Fill in the flow graph, or why there is none."""
    history = network.histories[0]
    if "graph" not in history.metadata:
        return  # an assumed chain shows no more than the other figures
    try:
        graph = flow_graph_from_history(history)
        parts = len(graph) + len(graph.edges)
        if parts > _MOST_PARTS:
            raise ValueError(f"it has {parts:,} layers and edges, more than {_MOST_PARTS:,}")
        network.flow = FlowDrawing(graph)
    except ValueError as error:
        network.undrawn = str(error)


def _require_cheap(experiment: "Experiment", history: GradientHistory) -> None:
    """The experiment has the history's size, and that is not enormous."""
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


def _word(value: Any) -> str:
    """A value as the command line has it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, bool | np.bool_):
        return "on" if value else "off"
    return "none" if value is None else str(value)
