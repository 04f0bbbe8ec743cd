"""Training steps, many of them in one compiled loop, and the gradients of a batch."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import keras
import numpy as np
from jax import numpy as jnp
from keras import ops

from kgrad.measure.backends.jax.totals import Carried, Totals
from kgrad.measure.inputs import loss_value
from kgrad.measure.interrupts import interrupt_deferred

# The values of variables, by their kind: those of a model, and "optimizer".
State = dict[str, Any]
Loss = Callable[[Any, Any], Any]


class Listener(Protocol):
    """Measures the updates of an optimizer.

    Attributes:
        totals: what it folds them into.
    """

    totals: Totals

    def listen_to(self, optimizer: keras.optimizers.Optimizer) -> Callable[[], None]:
        """Start to listen to an optimizer; return a function that ends it."""


class TrainingLoop:
    """A model's training steps, compiled.

    The compiled loop takes the values of the variables and returns new ones; between its calls they
    are in the variables. Under `keras.distribution` each batch is split over the devices.

    Args:
        model: a built Keras model.
        X: inputs, (samples, ...).
        y: targets, (samples, ...).
        batch_size: samples per step.
        optimizer: built for the model's weights.
        loss: function of (y_true, y_pred), or None for the compiled loss.
        jit_compile: whether the steps are compiled; otherwise JAX runs their operations one by one.
        recorder: measures the gradients of each step; None trains without measuring.
    """

    def __init__(
        self,
        model: keras.Model,
        X: np.ndarray,
        y: np.ndarray,
        batch_size: int,
        optimizer: keras.optimizers.Optimizer,
        loss: Loss | None,
        jit_compile: bool,
        recorder: Listener | None = None,
    ) -> None:
        self._model, self._optimizer, self._loss = model, optimizer, loss
        self._recorder, self._jit_compile = recorder, jit_compile
        totals = [] if recorder is None else [(optimizer, recorder.totals)]
        self._carried = Carried(optimizer, totals)
        self._distribution = keras.distribution.distribution()
        self._data = self._placed(X), self._placed(y)
        self.samples, self._batch_size = len(X), min(batch_size, len(X))
        self.steps_per_epoch = -(-self.samples // self._batch_size)
        self._compiled: dict[int, Callable[..., State]] = {}
        self.set_order(np.arange(self.samples))
        self._forget_losses()

    def set_order(self, order: np.ndarray) -> None:
        """Take the samples in this order from now on: int32, (samples,)."""
        self._order = self._placed(order.astype(np.int32))

    def run(self, first: int, count: int) -> int:
        """Run up to `count` steps of the epoch, beginning with step `first` (0-based).

        Returns:
            The number of steps run: a partial last batch is a call of its own.
        """
        full = self.samples // self._batch_size
        if first < full:
            count = min(count, full - first)
            size = self._batch_size
        else:
            count, size = 1, self.samples - full * self._batch_size
        function = self._function(size)
        places = self._order, np.int32(first * self._batch_size), np.int32(count)
        # A call takes the arrays away from the variables, which must get the new ones.
        with interrupt_deferred():
            self._keep(function(self._state(), self._data, *places))
            self._samples_seen += count * size
        jax.block_until_ready(self._losses)
        return count

    def logs(self) -> dict[str, float]:
        """Return the mean loss per sample and the compiled metrics since `reset_logs`."""
        seen = self._samples_seen
        logs = {"loss": float(np.asarray(self._losses)[0]) / seen if seen else float("nan")}
        if self._model.compiled:
            results = self._model.get_metrics_result()
            logs |= {name: float(value) for name, value in results.items() if name != "loss"}
        return logs

    def reset_logs(self) -> None:
        """Start the means of `logs` anew."""
        self._forget_losses()
        if self._model.compiled:
            self._model.reset_metrics()

    def _forget_losses(self) -> None:
        # Σ loss · samples, and what its rounding has added to it: JAX has no float64.
        self._losses = self._placed(np.zeros(2, np.float32))
        self._samples_seen = 0

    def _placed(self, array: np.ndarray) -> jax.Array:
        """Put an array on the device, or on each of several."""
        if self._distribution is None:
            return jnp.asarray(array)
        mesh = self._distribution.device_mesh.backend_mesh
        layout = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        array = array.astype(jax.dtypes.canonicalize_dtype(array.dtype), copy=False)
        return jax.make_array_from_callback(array.shape, layout, lambda place: array[place])

    def _split(self, batch: jax.Array) -> jax.Array:
        """Divide a batch among several devices, if it can be divided evenly."""
        if self._distribution is None:
            return batch
        layout = self._distribution.get_data_layout(batch.shape).backend_layout
        axis = layout.spec[0]
        if axis is None or len(batch) % layout.mesh.shape[axis]:
            return batch
        return jax.lax.with_sharding_constraint(batch, layout)

    def _variables(self) -> dict[str, list[keras.Variable]]:
        """Return the variables that a step updates, by kind."""
        return _model_variables(self._model) | {"optimizer": self._optimizer.variables}

    def _state(self) -> State:
        """Return the values that a step takes: those of the variables, totals, and losses."""
        state: State = _values(self._variables())
        optimizer = self._carried.put_in(state["optimizer"])
        return state | {"optimizer": optimizer, "losses": self._losses}

    def _keep(self, state: State) -> None:
        """Keep the values that a step returns."""
        self._losses = state["losses"]
        values = state | {"optimizer": self._carried.take_out(state["optimizer"])}
        for kind, variables in self._variables().items():
            for variable, value in zip(variables, values[kind], strict=True):
                variable._value = value  # `assign` would convert it and place it anew

    def _function(self, size: int) -> Callable[..., State]:
        """Return the steps for batches of `size`, which are traced once."""
        if size not in self._compiled:
            step = partial(self._step, size)
            run = self._compile(step) if self._jit_compile else partial(self._run, step)
            self._compiled[size] = run
        return self._compiled[size]

    def _compile(self, step: Callable[..., State]) -> Callable[..., State]:
        def steps(state: State, data: Any, order: Any, first: Any, count: Any) -> State:
            return jax.lax.fori_loop(
                0, count, lambda i, state: step(state, data, order, first, i), state
            )

        state = self._state()
        layouts = None
        if self._distribution is not None:
            layouts = jax.tree.map(lambda array: array.sharding, state)
        function = jax.jit(steps, donate_argnums=0, out_shardings=layouts)
        with self._listening():
            return function.lower(state, self._data, self._order, *np.zeros(2, np.int32)).compile()

    def _run(
        self, step: Callable, state: State, data: Any, order: Any, first: Any, count: Any
    ) -> State:
        with self._listening():
            for i in range(count):
                state = step(state, data, order, first, i)
        return state

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Have the recorder measure the steps that are traced or run in this block."""
        with ExitStack() as listening:
            if self._recorder is not None:
                # Its operations become part of the steps.
                listening.callback(self._recorder.listen_to(self._optimizer))
            listening.enter_context(self._carried.as_variables())
            yield

    def _step(self, size: int, state: State, data: Any, order: Any, first: Any, i: Any) -> State:
        """Train on the i-th batch of `size` samples from position `first` of the order on."""
        batch = jax.lax.dynamic_slice_in_dim(order, first + i * size, size)
        X, y = (self._split(jnp.take(array, batch, axis=0, mode="clip")) for array in data)
        model, optimizer = self._model, self._optimizer
        passed = _training_pass(model, state, X, y, self._loss, optimizer)
        state = state | passed.updated
        trainable, of_optimizer = optimizer.stateless_apply(
            state["optimizer"], passed.gradients, state["trainable"]
        )
        state |= {"trainable": trainable, "optimizer": of_optimizer}
        if model.compiled:
            with _scope(_model_variables(model), state) as scope:
                model.compute_metrics(X, y, passed.y_pred)
            state |= _current(scope, {"metrics": model.metrics_variables})
        return state | {"losses": _add(state["losses"], passed.loss * size)}


def backward(
    model: keras.Model,
    X: Any,
    y: Any,
    loss: Loss | None,
    optimizer: keras.optimizers.Optimizer | None = None,
) -> tuple[jax.Array, list[jax.Array], jax.Array]:
    """Run a forward and a backward pass as in training.

    Args:
        model: a built Keras model; nothing in it changes.
        X: inputs, (samples, ...), a tensor or an array.
        y: targets, (samples, ...), a tensor or an array.
        loss: function of (y_true, y_pred), or None for the compiled loss.
        optimizer: scales the gradients, if it is a `LossScaleOptimizer`.

    Returns:
        The loss, the gradient of each trainable variable, and the model's output.
    """
    variables = _model_variables(model)
    if optimizer is not None:
        variables |= {"optimizer": optimizer.variables}

    def training_pass(state: State, X: Any, y: Any) -> tuple[Any, Any, Any]:
        passed = _training_pass(model, state, X, y, loss, optimizer)
        return passed.loss, passed.gradients, passed.y_pred

    if all(layer.supports_jit for layer in model._flatten_layers()):
        training_pass = jax.jit(training_pass)
    return training_pass(_values(variables), jnp.asarray(X), jnp.asarray(y))


class _Pass(NamedTuple):
    """A forward and a backward pass.

    Attributes:
        loss: scalar.
        gradients: of each trainable variable, scaled if the optimizer scales the loss.
        y_pred: the model's output.
        updated: values of the variables that the pass updates, by kind.
    """

    loss: jax.Array
    gradients: list[jax.Array]
    y_pred: Any
    updated: State


def _training_pass(
    model: keras.Model,
    state: State,
    X: Any,
    y: Any,
    loss: Loss | None,
    optimizer: keras.optimizers.Optimizer | None,
) -> _Pass:
    """Run a forward and a backward pass from the values of a state; the model keeps its own."""
    variables = _model_variables(model)
    if optimizer is not None:
        variables |= {"optimizer": optimizer.variables}

    def forward(trainable: list[jax.Array]) -> tuple[Any, tuple[Any, Any, State]]:
        with _scope(variables, state | {"trainable": trainable}) as scope:
            y_pred = model(X, training=True)
            value = loss_value(model, X, y, y_pred, loss)
            if loss is not None:  # the compiled loss includes regularization
                value = value + sum(ops.sum(extra) for extra in model.losses)
            target = value if optimizer is None else optimizer.scale_loss(value)
        kinds = {kind: variables[kind] for kind in ("rest", "metrics")}
        return target, (value, y_pred, _current(scope, kinds))

    differentiated = jax.value_and_grad(forward, has_aux=True)
    (_, (value, y_pred, updated)), gradients = differentiated(state["trainable"])
    return _Pass(value, gradients, y_pred, updated)


def _model_variables(model: keras.Model) -> dict[str, list[keras.Variable]]:
    return {
        "trainable": model.trainable_variables,
        "rest": model.non_trainable_variables,
        "metrics": model.metrics_variables,
    }


def _values(variables: Mapping[str, list[keras.Variable]]) -> State:
    return {kind: [v.value for v in of_kind] for kind, of_kind in variables.items()}


def _scope(
    variables: Mapping[str, list[keras.Variable]], state: Mapping[str, Any]
) -> keras.StatelessScope:
    """Return a scope in which variables have the values of a state, and layers' losses are kept."""
    pairs = [
        pair
        for kind, of_kind in variables.items()
        for pair in zip(of_kind, state[kind], strict=True)
    ]
    return keras.StatelessScope(state_mapping=pairs, collect_losses=True)


def _current(scope: keras.StatelessScope, variables: Mapping[str, list[keras.Variable]]) -> State:
    return {
        kind: [scope.get_current_value(v) for v in of_kind] for kind, of_kind in variables.items()
    }


def _add(losses: jax.Array, loss: jax.Array) -> jax.Array:
    """Add to a sum in float32 without adding up its rounding errors (Kahan)."""
    total, excess = losses
    summand = ops.cast(loss, "float32") - excess
    new = total + summand
    excess = (new - total) - summand
    return jnp.stack([new, jnp.where(jnp.isfinite(excess), excess, 0)])
