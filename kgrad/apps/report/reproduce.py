"""The report's description of a run: what was trained, and how to train it again."""

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from kgrad.apps.command.run_options import command_of
from kgrad.apps.run_groups import RunGroup
from kgrad.experiments.experiment import Experiment
from kgrad.records.history import GradientHistory

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
    if count > 1:
        words.append("The figures show the first.")
    return " ".join(words)


def code_of(group: RunGroup) -> str:
    """Return the command and the Python code that train a group again."""
    if group.experiment is None:
        return (
            "import kgrad\n\n"
            "tracker = kgrad.GradientTracker()\n"
            f"model.fit(X, y, epochs={int(group.histories[0].epochs[-1])}, callbacks=[tracker])\n"
            'tracker.history.save("run.jsonl")\n'
            'kgrad.write_report([tracker.history], "report.html")'
        )
    command = command_of(group.experiment, len(group.histories))
    return f"{command}\n\n# or, in Python:\n{_python_of(group.experiment, group.seeds)}"


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
