"""Arrays that JAX's training steps fold into: `Totals`, and how a compiled step carries them."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import jax
import keras
import numpy as np

Merge = Callable[[Any, Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]


class Totals:
    """Named arrays that training steps fold into.

    A compiled step of JAX is a function without side effects. `Carried` passes the arrays through
    it; a step that it does not know, in a loop of the user's own, sends what it folds to the host.

    Args:
        zeros: the initial values, by name.
    """

    def __init__(self, zeros: Mapping[str, np.ndarray]) -> None:
        self._zeros = dict(zeros)
        self._values: dict[str, Any] = dict(zeros)
        self._variables: dict[str, keras.Variable] = {}
        # JAX calls the host from threads of its own.
        self._lock = threading.Lock()

    def fold(self, merge: Merge, step: Mapping[str, Any], made: Any = None) -> None:
        """Replace the values by `merge(ops, values, step)`, unless `made` is false; in the step."""
        if self._rides():
            # An update that does not stay is taken back together with the optimizer's variables.
            values = {name: variable.value for name, variable in self._variables.items()}
            for name, value in merge(keras.ops, values, step).items():
                if value is not values[name]:
                    self._variables[name].assign(value)
            return
        parts = dict(step), made
        if any(isinstance(part, jax.core.Tracer) for part in jax.tree.leaves(parts)):
            jax.debug.callback(partial(self._fold_on_host, merge), *parts)
        else:
            self._fold_on_host(merge, *parts)

    def read(self, *names: str) -> dict[str, np.ndarray]:
        """Return the values, those named or all."""
        jax.effects_barrier()
        return {name: self._on_host(name) for name in names or self._values}

    def take(self) -> dict[str, np.ndarray]:
        """Return all values, and set them to the initial ones."""
        values = self.read()
        self.write(**self._zeros)
        return values

    def write(self, **arrays: np.ndarray) -> None:
        """Set values."""
        jax.effects_barrier()
        for name, array in arrays.items():
            self._values[name] = self._on_device(name, array) if self._variables else array

    def _rides(self) -> bool:
        """Return whether a scope around this step holds the values."""
        return any(v.value is not v._value for v in self._variables.values())

    def _fold_on_host(self, merge: Merge, step: Mapping[str, Any], made: Any) -> None:
        if made is not None and not made:
            return
        step = {name: np.asarray(part) for name, part in step.items()}
        with self._lock, np.errstate(all="ignore"):  # infinities are data
            values = {name: self._on_host(name) for name in self._values}
            self._values = merge(np, values, step)

    def _on_host(self, name: str) -> np.ndarray:
        value = self._values[name]
        if isinstance(value, jax.Array) and value.is_deleted():
            # A step that got them did not return: its updates are lost, and so are the weights.
            return self._zeros[name]
        return np.array(value)

    def _on_device(self, name: str, array: np.ndarray) -> jax.Array:
        """Place values as the step returns them: it would be compiled anew for another place."""
        layout = self._variables[name]._value.sharding
        if isinstance(layout, jax.sharding.SingleDeviceSharding):
            return jax.numpy.array(array)
        return jax.make_array_from_callback(array.shape, layout, lambda place: array[place])

    def _begin_ride(self) -> list[keras.Variable]:
        """Return variables that stand for the values while a step is traced."""
        if not self._variables:
            self._variables = {
                name: keras.Variable(
                    zeros, trainable=False, autocast=False, layout=_replicated(zeros), name="kgrad"
                )
                for name, zeros in self._zeros.items()
            }
            self.write(**self._values)
        return list(self._variables.values())

    def _get(self) -> list[Any]:
        return [self._values[name] for name in self._variables]

    def _set(self, before: Sequence[Any], values: Sequence[Any]) -> None:
        for name, old, new in zip(self._variables, before, values, strict=True):
            if new is not old:  # a step that is not compiled may have folded on the host
                self._values[name] = new


class Carried:
    """Passes totals through a training step as variables of the optimizer.

    They are variables of the optimizer only while the step is traced: Keras then carries them
    through its scopes, its conditions and whatever a train step does with `optimizer_variables`.
    Nobody outside the step, a checkpoint say, sees them.

    Args:
        optimizer: the optimizer whose variables are the step's state.
        pairs: what the step folds into, and the optimizer whose updates it folds. Totals of an
            optimizer that is no part of the first one are not carried.
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer | None,
        pairs: Sequence[tuple[keras.optimizers.Optimizer, Totals]],
    ) -> None:
        parts = [] if optimizer is None else _parts(optimizer)
        inner = [(getattr(o, "inner_optimizer", o), totals) for o, totals in pairs]
        self._totals = [
            (part, totals) for part, totals in inner if any(part is one for one in parts)
        ]
        self._variables = [
            (part, variable) for part, totals in self._totals for variable in totals._begin_ride()
        ]
        with self.as_variables():
            variables = [] if optimizer is None else optimizer.variables
        at = {id(variable): i for i, variable in enumerate(variables)}
        self._at = [at[id(variable)] for _, variable in self._variables]

    @contextmanager
    def as_variables(self) -> Iterator[None]:
        """Have the totals among the optimizer's variables in this block."""
        with ExitStack() as tracked:
            for part, variable in self._variables:
                part._track_variable(variable)
                tracked.callback(part._untrack_variable, variable)
            yield

    def put_in(self, optimizer_variables: Sequence[Any]) -> list[Any]:
        """Add the totals to the values of the optimizer's variables."""
        values = list(optimizer_variables)
        self._before = [totals._get() for _, totals in self._totals]
        added = [value for of_one in self._before for value in of_one]
        for at, value in sorted(zip(self._at, added, strict=True), key=lambda pair: pair[0]):
            values.insert(at, value)
        return values

    def take_out(self, values: Sequence[Any]) -> list[Any]:
        """Keep the totals of what a step returns, and return the optimizer's own values."""
        added = iter([values[at] for at in self._at])
        for (_, totals), before in zip(self._totals, self._before, strict=True):
            totals._set(before, [next(added) for _ in before])
        places = set(self._at)
        return [value for at, value in enumerate(values) if at not in places]


def _parts(optimizer: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    """List the optimizers whose variables are among those of an optimizer."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return [inner, *getattr(inner, "optimizers", [])]


def _replicated(array: np.ndarray) -> keras.distribution.TensorLayout | None:
    """Return the layout of an array that every device holds, under `keras.distribution`."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return None
    return keras.distribution.TensorLayout([None] * array.ndim, distribution.device_mesh)
