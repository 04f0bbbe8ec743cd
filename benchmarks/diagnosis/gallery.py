"""Build every case of the gallery, train it with its gradients recorded, and label its outcome.

A label depends on the fault that was built into a run and on the success of the training: the loss
(or accuracy) that `fit` reports for the last epoch. No diagnosis rule influences a label.
"""

import json
import math
import multiprocessing
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from scipy.stats import wasserstein_distance

from benchmarks.diagnosis.bases import twin_cases
from benchmarks.diagnosis.healthy import healthy_cases
from benchmarks.diagnosis.ill import ill_cases
from benchmarks.diagnosis.networks import LOSSES, NETWORKS, change_weights
from benchmarks.diagnosis.recipes import Case, Recipe
from benchmarks.diagnosis.tasks import REGRESSIONS, Task, gained, make_task, trivial
from kgrad import GradientHistory, GradientTracker, train_and_track_gradients

# A healthy run gains at least this share of what the best constant prediction leaves to gain.
CLEARLY = 0.2
# An ill run gains less than this share of its healthy twin's gain, or its loss is not finite.
WORSE = 0.5
_STATISTICS = ["max_abs", "zero_fraction"]
_PROBED = 128


def gallery() -> list[Case]:
    """Return every case once: healthy runs, healthy twins, and ill runs."""
    return healthy_cases() + twin_cases() + ill_cases()


def build_task(recipe: Recipe) -> Task:
    """Return the recipe's task; the recipe may replace the output layer and the loss."""
    task = make_task(recipe.task, recipe.seed, **recipe.task_options)
    if recipe.output:
        task = task._replace(output_units=recipe.output[0], output_activation=recipe.output[1])
    return task._replace(loss=recipe.loss or task.loss)


def build_model(case: Case | str) -> keras.Model:
    """Return the untrained, compiled model of a case, or of the case with this name."""
    if isinstance(case, str):
        case = next(known for known in gallery() if known.name == case)
    return _build(case.recipe, build_task(case.recipe))


def _build(recipe: Recipe, task: Task) -> keras.Model:
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(recipe.seed)
    out = (task.output_units, task.output_activation)
    model = NETWORKS[recipe.network](task.X.shape[1:], out, recipe.seed, **recipe.network_options)
    change_weights(model, recipe.changes, recipe.seed)
    options = dict(recipe.optimizer_options)
    if isinstance(options.get("learning_rate"), dict):
        schedule = keras.optimizers.schedules.deserialize(options["learning_rate"])
        options["learning_rate"] = schedule
    optimizer = keras.optimizers.get({"class_name": recipe.optimizer, "config": options})
    several = isinstance(task.loss, list)
    model.compile(
        optimizer,
        task.loss if several else LOSSES.get(task.loss, task.loss),
        metrics=None if several or task.loss in REGRESSIONS else ["accuracy"],
        jit_compile=recipe.jit,
    )
    return model


def record(recipe: Recipe) -> GradientHistory:
    """Train a recipe's model and record its gradients."""
    task = build_task(recipe)
    model = _build(recipe, task)
    metadata = {"recipe": json.loads(json.dumps(asdict(recipe)))}
    if recipe.tracking == "loop":
        return train_and_track_gradients(
            model,
            task.X,
            task.y,
            recipe.epochs,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            jit_compile=False,
            metadata=metadata,
        )
    full = recipe.tracking == "full"
    tracker = GradientTracker(
        _STATISTICS if full else (),
        probe=_probe(task) if full else None,
        metadata=metadata,
    )
    model.fit(
        task.X,
        task.y,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        verbose=0,
        callbacks=[tracker],
    )
    if task.y is not None:
        return tracker.history
    history = tracker.histories["of_generator"]
    history.metadata["gain"] = _likeness(np.asarray(model.generate(1000)), task.X)
    return history


def _probe(task: Task) -> tuple[np.ndarray, Any] | None:
    if not isinstance(task.y, np.ndarray):
        return None
    return task.X[:_PROBED], task.y[:_PROBED]


def _likeness(made: np.ndarray, real: np.ndarray) -> float:
    """Return 1 minus the distance of generated samples from real ones over that of their mean."""
    return 1 - _distance(made, real) / _distance(np.tile(real.mean(axis=0), (len(made), 1)), real)


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean of the Wasserstein distances along each axis."""
    return float(np.mean([wasserstein_distance(*axis) for axis in zip(a.T, b.T, strict=True)]))


def gain(history: GradientHistory, recipe: Recipe) -> float:
    """Return the gain over the best constant prediction as a share of the possible gain.

    The gain is 1 for a loss of 0 or an accuracy of 1, 0 for the best constant prediction, negative
    for anything worse, and NaN if the loss is not finite.
    """
    task = build_task(recipe)
    if task.y is None:
        return float(history.metadata["gain"])
    last = float(history.logs["loss"][-1])
    if not math.isfinite(last):
        return math.nan
    if recipe.by == "accuracy":
        constant = trivial(task.y, task.loss, "accuracy")
        return (float(history.logs["accuracy"][-1]) - constant) / (1 - constant)
    loss = "binary_crossentropy" if task.loss == "unclipped_log" else task.loss
    return gained(loss, task.y, last)


def label(case: Case, own: float, twins: float = math.nan) -> str:
    """Return "healthy", "ill", "harmless" (has a fault, trains well) or "unclear" (left out)."""
    if not case.family:
        return "healthy" if own >= CLEARLY else "unclear"
    if not twins >= CLEARLY:
        return "unclear"
    return "harmless" if own >= WORSE * twins else "ill"


def _saved(folder: Path, name: str, recipe: Recipe) -> GradientHistory | None:
    path = folder / f"{name}.jsonl"
    if not path.exists():
        return None
    history = GradientHistory.load(path)
    same = history.metadata.get("recipe") == json.loads(json.dumps(asdict(recipe)))
    return history if same else None


def _run(job: tuple[str, str, Recipe]) -> str:
    folder, name, recipe = job
    if _saved(Path(folder), name, recipe) is None:
        record(recipe).save(Path(folder) / f"{name}.jsonl")
    return name


def _one_thread() -> None:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def carried_on(case: Case) -> Recipe:
    """Return the recipe of a barely started run, continued for more epochs."""
    return replace(case.recipe, epochs=case.carried_on, tracking="default")


def run_all(cases: Sequence[Case], folder: Path, workers: int = 2) -> None:
    """Train the runs that the folder does not contain yet, and write all labels to `cases.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(str(folder), case.name, case.recipe) for case in cases]
    later = folder / "carried-on"
    later.mkdir(exist_ok=True)
    jobs += [(str(later), case.name, carried_on(case)) for case in cases if case.carried_on]
    jobs = [job for job in jobs if _saved(Path(job[0]), *job[1:]) is None]
    if jobs:
        _train(jobs, workers)
    text = json.dumps(labeled(cases, folder), indent=1)
    (folder / "cases.json").write_text(text, encoding="utf-8")


def _train(jobs: Sequence[tuple[str, str, Recipe]], workers: int) -> None:
    # TensorFlow leaks some memory per graph, so a process ends after some runs. Not with a
    # ProcessPoolExecutor: with `max_tasks_per_child`, Python 3.11's can hang.
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, _one_thread, maxtasksperchild=40) as pool:
        for done, name in enumerate(pool.imap_unordered(_run, jobs), start=1):
            print(f"\r{done}/{len(jobs)} {name:70}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


def labeled(cases: Sequence[Case], folder: Path) -> list[dict[str, Any]]:
    """Return what is known about each case, with its outcome and its label."""
    histories = {case.name: GradientHistory.load(folder / f"{case.name}.jsonl") for case in cases}
    names = {case.recipe.key: case.name for case in cases if not case.family}
    rows = []
    for case in cases:
        own = gain(histories[case.name], case.recipe)
        if case.carried_on:
            history = GradientHistory.load(folder / "carried-on" / f"{case.name}.jsonl")
            own = gain(history, carried_on(case))
        twin, twins = None, math.nan
        if case.twin:
            twin = names[case.twin.key]
            twins = gain(histories[twin], case.twin)
        outcome = {"nonfinite"} if case.family and math.isnan(own) else set()
        rows.append(
            {
                "name": case.name,
                "label": label(case, own, twins),
                "family": case.family,
                "accepted": sorted({case.family, *case.accepted, *outcome} - {""}),
                "half": case.recipe.half,
                "gain": None if math.isnan(own) else own,
                "twin": twin,
                "twin_gain": None if math.isnan(twins) else twins,
                "tracking": case.recipe.tracking,
                "epochs": case.recipe.epochs,
            }
        )
    return rows
