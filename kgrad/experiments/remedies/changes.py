"""Clones of a Keras model with one change; the model itself is only read.

A clone is made from the layers' configs and starts with new weights, drawn from a seed. Layers that
the change does not affect start with the same weights, and the same state of their random
generators, as in the unchanged clone.
"""

import inspect
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from kgrad.experiments.remedies.plans import Change, Plan, plan_change
from kgrad.experiments.remedies.skill import Task
from kgrad.measure.inputs import DEFAULT_LEARNING_RATE
from kgrad.measure.keras_models.graph import LayerGraph
from kgrad.measure.keras_models.layers import is_activation

# Settings that leave the layers of a model as they are.
_OUTSIDE = {
    "global_clipnorm",
    "learning_rate",
    "optimizer",
    "inputs",
    "targets",
    "class_weights",
    "samples",
}


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Restore Python's and NumPy's random state at the end of a block."""
    # TensorFlow's state cannot be restored; nothing here seeds it or draws from it.
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 (the global one)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def seed_all(seed: int) -> None:
    """Seed the generators from which layers and initializers without a seed draw one."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002


def changed_clone(
    model: keras.Model,
    X: Any,
    change: Change | None = None,
    seed: int = 0,
    *,
    loss: Any = None,
    tasks: Sequence[Task] = (),
) -> tuple[keras.Model, str]:
    """Clone a model with one change; the clone is compiled like the model.

    Args:
        model: a built Keras model, which is not changed.
        X: inputs; a subclassed model is built by a call on one of them.
        change: the change; None for an unchanged clone.
        seed: seed of the initial weights.
        loss: the loss to compile with, unless the change replaces it; None for the model's.
        tasks: what each output is asked for, for a change of the output.

    Returns:
        The clone, compiled with its own optimizer, and a description of the change.

    Raises:
        ValueError: if the model cannot be cloned, or the change cannot be made to it. The message
            is one sentence.
    """
    settings = {} if change is None else dict(change.settings)
    if loss is None and model.compiled:
        loss = model.loss
    with random_state_kept():
        optimizer, words = _optimizer(model, settings)
        if getattr(model, "inputs", None):
            graph = LayerGraph(model)
            clone, made = _cloned(graph, Plan(), seed)
            plan = plan_change(graph, settings, loss, tasks)
            if plan.words:
                unchanged = made
                clone, made = _cloned(graph, plan, seed)
                _copy_variables(unchanged, made, plan)
                words = "; ".join(part for part in (plan.words, words) if part)
            loss = plan.loss or loss
        elif settings.keys() <= _OUTSIDE:
            clone = _subclassed_clone(model, X, seed)
        else:
            LayerGraph(model)  # raises: a subclassed model has no readable graph
    options: dict[str, Any] = {}
    if model.compiled:
        options = {"run_eagerly": model.run_eagerly}
        options["loss_weights"] = model._compile_config.config.get("loss_weights")
    # XLA takes longer to compile than the few steps of a trial.
    jit_compile = False if keras.backend.backend() == "tensorflow" else "auto"
    clone.compile(optimizer, loss, jit_compile=jit_compile, **options)
    return clone, words


def _cloned(graph: LayerGraph, plan: Plan, seed: int) -> tuple[keras.Model, dict[int, Any]]:
    """Return a clone made by a plan, and a dict from the `id` of each layer to its copy."""
    made: dict[int, Any] = {}
    originals: dict[int, Any] = {}

    def copy(layer: Any) -> Any:
        made[id(layer)] = new = _copied(layer, plan.configs.get(id(layer), {}))
        originals[id(new)] = layer
        return new

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if plan.call is None:
            return layer(*args, **kwargs)
        return plan.call(originals.get(id(layer)), layer, *args, **kwargs)

    seed_all(seed)
    try:
        clone = keras.models.clone_model(
            graph.model, clone_function=copy, call_function=call, recursive=True
        )
    except Exception as error:
        raise ValueError(_not_rebuilt(graph.model, error)) from error
    return clone, made


def _copied(layer: Any, entries: Mapping[str, Any]) -> Any:
    if is_activation(layer) and "activation" in entries:
        return keras.layers.Activation(entries["activation"], name=layer.name)
    config = layer.get_config()
    f = getattr(layer, "activation", None)
    if isinstance(config.get("activation"), dict) and inspect.isfunction(f):
        config["activation"] = f  # Keras cannot find a user's function by its name
    return type(layer).from_config(_with(config, entries))


def _with(config: dict[str, Any], entries: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config with the entries that it has replaced, also inside wrappers."""
    config = config | {key: value for key, value in entries.items() if key in config}
    for key in ("layer", "backward_layer"):
        if isinstance(wrapped := config.get(key), dict):
            config[key] = wrapped | {"config": _with(wrapped["config"], entries)}
    return config


def _copy_variables(unchanged: dict[int, Any], made: dict[int, Any], plan: Plan) -> None:
    """Copy the variables that a plan does not affect from the unchanged clone."""
    for key, layer in unchanged.items():
        redrawn = "kernel_initializer" in plan.configs.get(key, {})
        pair = [getattr(one, "variables", ()) for one in (layer, made[key])]
        for before, after in zip(*pair, strict=False):
            if before.shape == after.shape and not (redrawn and before.name == "kernel"):
                after.assign(before)


def _subclassed_clone(model: keras.Model, X: Any, seed: int) -> keras.Model:
    seed_all(seed)
    try:
        clone = type(model).from_config(model.get_config())
        clone(keras.tree.map_structure(lambda x: np.asarray(x)[:1], X))
    except Exception as error:
        raise ValueError(_not_rebuilt(model, error)) from error
    return clone


def _optimizer(
    model: keras.Model, settings: Mapping[str, Any]
) -> tuple[keras.optimizers.Optimizer, str]:
    """Return an optimizer like the model's with changed settings, and a description."""
    compiled = model.optimizer if model.compiled else None
    optimizer = compiled or keras.optimizers.SGD(DEFAULT_LEARNING_RATE)
    config = optimizer.get_config()
    inner, inner_kind = config, type(optimizer).__name__
    if "inner_optimizer" in config:  # of a LossScaleOptimizer
        inner, inner_kind = (config["inner_optimizer"][key] for key in ("config", "class_name"))
    words = ""
    if "global_clipnorm" in settings:
        bounds = [
            (key, inner[key])
            for key in ("clipnorm", "global_clipnorm", "clipvalue")
            if inner.get(key) is not None
        ]
        words = changed_clipping(settings["global_clipnorm"], *(bounds or [("", None)])[0])
        inner |= {key: None for key, _ in bounds}
        inner["global_clipnorm"] = settings["global_clipnorm"]
    if "learning_rate" in settings:
        rate = inner["learning_rate"]
        if settings["learning_rate"] == "constant":
            if isinstance(rate, int | float):
                raise ValueError(f"the learning rate is constant: {rate:.3g}")
            schedule = keras.optimizers.schedules.deserialize(rate)
            inner["learning_rate"] = float(schedule(0))
            words = f"{type(schedule).__name__} → constant {inner['learning_rate']:.3g}"
            return type(optimizer).from_config(config), words
        if not isinstance(rate, int | float):
            raise ValueError("the learning rate follows a schedule")
        kind = keras.optimizers.get(inner_kind)
        inner["learning_rate"] = _changed_rate(rate, settings["learning_rate"], kind)
        words = f"learning rate {rate:.3g} → {inner['learning_rate']:.3g}"
    if "optimizer" in settings:
        if isinstance(optimizer, keras.optimizers.Adam):  # and its variants
            raise ValueError(f"the optimizer is {type(optimizer).__name__} already")
        return keras.optimizers.get(settings["optimizer"]), "Adam with learning rate 0.001"
    return type(optimizer).from_config(config), words


def _changed_rate(rate: float, change: float | str, default: keras.optimizers.Optimizer) -> float:
    """Return a learning rate times a factor, or the default of the optimizer's class."""
    if change == "default":
        usual = float(default.learning_rate)
        if 0.5 <= rate / usual <= 2:
            raise ValueError(f"the learning rate {rate:.3g} is near the default, {usual:.3g}")
        return usual
    factor = float(change)
    if factor < 0 <= rate:
        raise ValueError(f"the learning rate {rate:.3g} is not negative")
    # Rounded, so that 0.05 × 0.1 is 0.005.
    return float(f"{rate * factor:.12g}")


def changed_clipping(wanted: float | None, key: str, bound: float | None) -> str:
    """Describe a change of clipping.

    Args:
        wanted: the new bound; None to remove clipping.
        key: the name of the current bound.
        bound: the current bound; None if there is none.

    Raises:
        ValueError: if the optimizer already clips, or there is no clipping to remove.
    """
    if wanted is None and bound is None:
        raise ValueError("the optimizer does not clip")
    if wanted is not None and bound is not None:
        raise ValueError(f"the optimizer already clips: {key}={bound:g}")
    return f"no {key}={bound:g}" if wanted is None else f"global_clipnorm={wanted:g}"


def _not_rebuilt(model: keras.Model, error: Exception) -> str:
    reason = " ".join(str(error).split())
    return f"model {model.name!r} cannot be rebuilt from its config: {reason:.200}"
