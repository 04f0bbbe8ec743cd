"""JAX's devices, Keras's compiled step on JAX, and the values of variables."""

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import jax
import keras
import numpy as np
from jax.experimental import multihost_utils

from kgrad.measure.backends.jax.totals import Carried, Totals
from kgrad.measure.workers import Workers

# Exceptions by which a compiled step of `fit` reports the end of the data.
END_OF_DATA = (StopIteration,)
# Without XLA, JAX compiles each operation by itself: 64 steps of four layers take 20 seconds.
STEPS_THAT_REPAY_COMPILING: float = 0

# The parts of the state that `fit` passes from step to step.
_STATE = (
    "trainable_variables",
    "non_trainable_variables",
    "optimizer_variables",
    "metrics_variables",
)


def version() -> str:
    """Return JAX's version."""
    return str(jax.__version__)


def describe_device() -> dict[str, Any]:
    """Describe what the rounding of a run depends on: the kind and the number of devices."""
    devices = jax.devices()
    return {
        "device": "CPU" if devices[0].platform == "cpu" else devices[0].device_kind,
        "devices": len(devices),
    }


def require_fit_strategy(model: keras.Model) -> None:
    """Refuse NNX variables, whose compiled step passes no state that could be added to.

    Raises:
        ValueError: if Keras makes them.
    """
    if keras.config.is_nnx_enabled():
        raise ValueError(
            "GradientTracker works in fit with Keras's own variables, received those of Flax NNX: "
            "unset KERAS_NNX_ENABLED before Keras is imported"
        )


def require_loop_strategy(model: keras.Model, optimizer: Any, loss: Any, **arguments: Any) -> None:
    """Refuse distributions that the compiled loop does not know: there are none."""


def workers(model: keras.Model) -> Workers:
    """Return the processes that train a model: several after `jax.distributed.initialize`."""
    return Workers() if jax.process_count() == 1 else _Processes()


class _Processes(Workers):
    def __init__(self) -> None:
        super().__init__()
        self.count = jax.process_count()
        self.is_chief = jax.process_index() == 0

    def everyone(self, values: Sequence[int]) -> np.ndarray:
        """Exchange integers; see `Workers`."""
        # JAX has no int64: the halves go separately.
        halves = np.array(values, np.int64).view(np.int32)
        gathered = np.asarray(multihost_utils.process_allgather(halves))
        return gathered.view(np.int64)


def trained_variables(step: Any, variables: Sequence[keras.Variable]) -> None:
    """Return what a compiled step of `fit` trains; None, as a step trains what is trainable."""
    return None


def forget_traces(optimizer: keras.optimizers.Optimizer, totals: Totals | None) -> None:
    """Have functions traced anew that make an optimizer's updates.

    JAX does not tell which ones do, so that all are traced anew.
    """
    jax.clear_caches()


def make_fit_step(
    model: keras.Model,
    make: Callable[..., None],
    carried: Callable[[], list[tuple[keras.optimizers.Optimizer, Totals]]],
) -> None:
    """Have `fit`'s step traced anew, carrying what it folds into.

    Args:
        model: a compiled model.
        make: its method `make_train_function`.
        carried: returns what the step folds into; called before the first step.
    """
    made: list[tuple[Callable, Carried]] = []

    def keep_state(state: Sequence[Any]) -> None:
        # With setattr Keras would track every array, which takes longer than a small step.
        model.__dict__["_jax_state"] = dict(zip(_STATE, state, strict=True))

    def first() -> tuple[Callable, Carried]:
        # `make` asks the variables for their layouts. Their values are in the state.
        model.jax_state_sync()
        model._jax_state_synced = False
        installed = model.train_function
        totals = Carried(model.optimizer, carried())
        with _carrying(model, totals):
            make(force=True)
        function, model.train_function = model.train_function, installed
        return function, totals

    def train_function(state: Sequence[Any], iterator: Any) -> tuple[Any, Sequence[Any]]:
        # Keras has taken the values out of the variables: who wants the weights finds them here.
        keep_state(state)
        if not made:
            made.append(first())
        function, totals = made[0]
        trainable, rest, optimizer, metrics = state
        logs, state = function((trainable, rest, totals.put_in(optimizer), metrics), iterator)
        trainable, rest, optimizer, metrics = state
        state = trainable, rest, totals.take_out(optimizer), metrics
        keep_state(state)
        return logs, state

    model.train_function = train_function


def step_logs(result: Any) -> Mapping[str, Any]:
    """Return the logs in the result of a model's `train_function`."""
    return result[0]


def uncompiled(function: Callable) -> Callable:
    """Return a function that is not compiled apart from the step: the function itself."""
    return function


def xla_on_cpu(jit_compile: bool) -> bool:
    """Return whether XLA compiles a step for a CPU."""
    return jit_compile and jax.default_backend() == "cpu"


def variable_scope(model: keras.Model) -> AbstractContextManager[Any]:
    """Return the context in which to make arrays that a model's steps update."""
    return nullcontext()


def under_strategy() -> bool:
    """Return whether the code runs under a distribution strategy of TensorFlow: never."""
    return False


def outside_trace() -> AbstractContextManager[Any]:
    """Return a context in which values are computed at once, also while a step is traced."""
    return jax.ensure_compile_time_eval()


def have_values(variables: Sequence[keras.Variable]) -> bool:
    """Return whether all variables have values: Keras makes none while it traces a step."""
    return True


def weight_values(model: keras.Model, variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    """Return the values of a model's variables: for each a flat float32 array.

    The values are NaN of a variable whose array a step took, and did not give back.
    """
    return [
        np.full(array.size, np.nan, np.float32)
        if array.is_deleted()
        else as_array(array).astype(np.float32).ravel()
        for array in _arrays(model, variables)
    ]


def notice_assignment(
    model: keras.Model, variables: Sequence[keras.Variable]
) -> Callable[[], bool]:
    """Return a function that says whether any of a model's variables was assigned since now.

    A loop of the user's own may keep the weights outside of the variables.
    """
    # JAX's arrays never change, so that a new value is another array.
    arrays = [weakref.ref(array) for array in _arrays(model, variables)]

    def were_assigned() -> bool:
        pairs = zip(arrays, _arrays(model, variables), strict=True)
        return any(before() is not now for before, now in pairs)

    return were_assigned


def as_array(array: Any) -> np.ndarray:
    """Return an array, of which this process may hold a part; all processes call it."""
    if isinstance(array, jax.Array) and not (
        array.is_fully_addressable or array.is_fully_replicated
    ):
        return np.asarray(multihost_utils.process_allgather(array, tiled=True))
    return np.asarray(array)


def _arrays(model: keras.Model, variables: Sequence[keras.Variable]) -> list[jax.Array]:
    # While `fit` runs, the values are in its state and not in the variables.
    running = getattr(model, "_jax_state", None)
    state = running if running and not model._jax_state_synced else {}
    values = {
        id(variable): value
        for kind in _STATE[:2]
        for variable, value in zip(getattr(model, kind), state.get(kind) or (), strict=False)
    }
    return [values.get(id(variable), variable._value) for variable in variables]


@contextmanager
def _carrying(model: keras.Model, carried: Carried) -> Iterator[None]:
    """Have a model's step carry totals, if it is compiled in this block."""
    train_step = model.train_step
    before = model.__dict__.get("train_step")

    def step(state: Sequence[Any], data: Any) -> tuple[Any, Sequence[Any]]:
        with carried.as_variables():
            return train_step(state, data)

    # With setattr Keras would track it.
    model.__dict__["train_step"] = step
    try:
        # The layouts of the step's results are those of the variables.
        with carried.as_variables():
            yield
    finally:
        del model.__dict__["train_step"]
        if before is not None:
            model.__dict__["train_step"] = before
