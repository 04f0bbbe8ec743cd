"""The report's description of a run: what was trained, and how to train it again."""

import json
import math
from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from kgrad._version import __version__
from kgrad.apps.command.run_options import command_of
from kgrad.apps.run_groups import RunGroup
from kgrad.experiments.experiment import Experiment, grid, replicates
from kgrad.experiments.sweeps import run_name
from kgrad.records.history import GradientHistory
from kgrad.records.statistics import STATISTICS
from kgrad.records.sweep import Sweep

_VERSIONS = {
    "kgrad": "kgrad",
    "keras": "Keras",
    "tensorflow": "TensorFlow",
    "jax": "JAX",
    "torch": "PyTorch",
    "numpy": "NumPy",
    "python": "Python",
}
_LONGEST = 2000  # characters of one metadata value


def description_of(group: RunGroup) -> str:
    """Return what was trained, with which seeds, in a few sentences."""
    history, count = group.histories[0], len(group.histories)
    words = [
        _network_and_training(group.experiment)
        if group.experiment
        else f"A model with {len(history.layers)} layers that have weights."
    ]
    seeds = ", ".join(str(seed) for seed in group.seeds if seed is not None)
    plural = "s" if count > 1 else ""
    words.append(f"{count} run{plural}" + (f", seed{plural} {seeds}." if seeds else "."))
    seconds = _seconds([group])
    started = history.metadata.get("started")
    when = [f"on {started[:10]}"] if isinstance(started, str) else []
    when += [f"in {duration(seconds)}"] if seconds is not None else []
    words += [f"Trained {' '.join(when)}."] if when else []
    if count > 1:
        words.append(f"The figures show {group.run(0)}.")
    return " ".join(words)


def facts_of(groups: Sequence[RunGroup], now: datetime) -> list[str]:
    """Return when the report was written, what recorded the runs, and how long they took."""
    histories = [history for group in groups for history in group.histories]
    count = len(histories)
    facts = [
        f"Written on {now:%Y-%m-%d at %H:%M} UTC by kgrad {__version__}",
        f"{count} run{'s' * (count > 1)}, {len(groups)} network{'s' * (len(groups) > 1)}",
    ]
    seconds = _seconds(groups)
    facts += [f"{duration(seconds)} of training"] if seconds is not None else []
    described = dict.fromkeys(filter(None, (_versions(one) for one in histories)))
    return facts + [f"recorded with {versions}" for versions in described]


def _versions(history: GradientHistory) -> str:
    """Return the versions and the device that a history names: "kgrad 0.1.0, Keras 3.12 …"."""
    known = {
        name: history.metadata[key]
        for key, name in _VERSIONS.items()
        if isinstance(history.metadata.get(key), str)
    }
    device = history.metadata.get("device")
    on = f" on {device}" if isinstance(device, str) else ""
    return ", ".join(f"{name} {version}" for name, version in known.items()) + on * bool(known)


def _seconds(groups: Sequence[RunGroup]) -> float | None:
    """Return how long all runs took; None if one does not say it."""
    times = [one.metadata.get("seconds") for group in groups for one in group.histories]
    known = [float(time) for time in times if isinstance(time, int | float)]
    return sum(known) if len(known) == len(times) else None


def duration(seconds: float) -> str:
    """Return a time in words: "1.4 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def code_of(group: RunGroup) -> str:
    """Return the command and the Python code that train a group again."""
    if group.experiment is None:
        return (
            "import kgrad\n\n"
            f"tracker = kgrad.GradientTracker({_asked_for(group.histories[0])})\n"
            f"model.fit(X, y, epochs={int(group.histories[0].epochs[-1])}, callbacks=[tracker])\n"
            'tracker.history.save("run.jsonl")\n'
            'kgrad.write_report([tracker.history], "report.html")'
        )
    command = command_of(group.experiment, len(group.histories))
    return f"{command}\n\n# or, in Python:\n{_python_of(group.experiment, group.seeds)}"


def _asked_for(history: GradientHistory) -> str:
    """Return the arguments of a `GradientTracker` that records what the history has."""
    others = [
        name
        for name in history.statistics
        if name in STATISTICS and STATISTICS[name].recorded == "on request"
    ]
    every = history.metadata.get("every", "epoch")
    return ", ".join(
        ([repr(others)] if others else [])
        + ([f"every={every}"] if isinstance(every, int) else [])
        + (["distributions=True"] if history.has_distributions else [])
        + (["probe=(X[:64], y[:64])"] if history.outputs else [])
    )


def code_of_sweep(sweep: Sweep) -> str:
    """Return the Python code that runs a sweep again; empty if it is no grid over seeds."""
    defaults = {field.name: field.default for field in fields(Experiment)}
    values: dict[str, list[Any]] = {field: [] for field in defaults}
    for planned in sweep.planned.values():
        for field, value in planned.items():
            value = tuple(value) if isinstance(value, list) else value
            if value not in values.setdefault(field, []):
                values[field].append(value)
    if values.keys() - defaults.keys():  # of another version
        return ""
    seeds, _ = values.pop("seed"), values.pop("name")
    shared = {f: one[0] for f, one in values.items() if len(one) == 1 and one[0] != defaults[f]}
    varying = {field: one for field, one in values.items() if len(one) > 1}
    if math.prod(map(len, [seeds, *varying.values()])) != len(sweep.planned):
        return ""
    try:
        networks = grid(Experiment(**shared), **varying)
        runs = [run for network in networks for run in replicates(network, seeds)]
        if {run_name(run) for run in runs} != sweep.planned.keys():
            return ""
    except (TypeError, ValueError):  # of another version
        return ""
    described = ", ".join(f"{field}={value!r}" for field, value in shared.items())
    axes = "".join(f", {field}={some!r}" for field, some in varying.items())
    return (
        "from kgrad.experiments import Experiment, grid, replicates, run_sweep\n\n"
        f"networks = grid(Experiment({described}){axes})\n"
        f"runs = [run for network in networks for run in replicates(network, {seeds!r})]\n"
        'if __name__ == "__main__":\n'
        '    run_sweep(runs, "sweep", "processes")'
    )


def metadata_of(history: GradientHistory) -> list[tuple[str, str]]:
    """Return what was recorded about a run, each value as JSON; long values are cut."""
    found = []
    for key, value in history.metadata.items():
        text = json.dumps(value, ensure_ascii=False, default=str)
        found.append((str(key), text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"))
    return found


def _network_and_training(experiment: Experiment) -> str:
    e = experiment
    parts = [
        f"{e.num_layers} hidden layers of {e.units} units, {e.activation}, {e.weight_initializer}"
    ]
    parts += [f"biases {e.bias_initializer}"] if e.bias_initializer != "zeros" else []
    parts += [f"{e.normalization} normalization"] if e.normalization else []
    parts += ["skip connections"] if e.skip_connections else []
    samples = f", {e.samples} samples" if e.samples else ""
    clipping = f", gradients clipped to norm {e.clip_norm}" if e.clip_norm else ""
    trained = f"{e.optimizer} with learning rate {e.learning_rate}{clipping}"
    return (
        f"{', '.join(parts)}. Data: {e.dataset}{samples}. Trained for {e.epochs} epochs in batches "
        f"of {e.batch_size} by {trained}."
    )


def _python_of(experiment: Experiment, seeds: Sequence[Any]) -> str:
    values = {one.name: getattr(experiment, one.name) for one in fields(experiment)}
    given = [
        f"    {one.name}={values[one.name]!r},"
        for one in fields(experiment)
        if one.name != "seed"
        and (values[one.name] != one.default or one.name in ("activation", "weight_initializer"))
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
