"""Taps on a Keras optimizer and on a model's `fit`: listeners get every update and every step.

Every update that a Keras optimizer makes, from `fit`, `apply_gradients`, `apply` or
`stateless_apply`, calls three of its methods, one after the other:
`_filter_empty_gradients(gradients, variables)`, which drops the variables that the loss does not
depend on; `_clip_gradients(gradients)`, whose argument is the gradient of the loss (unscaled;
averaged if the optimizer accumulates gradients); and
`_backend_update_step(gradients, variables, learning_rate)`, which gets the clipped gradients. Keras
has no public method that sees all this. The methods are replaced on the instance: its class does
not change, nor do its configuration and what is saved. The last listener that leaves restores them.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import keras

from kgrad.measure.backends.current import backend
from kgrad.measure.keras_models.trainable import known_to_optimizers, trainable_as

Gradients = Sequence[Any]


class UpdateListener(Protocol):
    """Gets an optimizer's updates, in the step that makes the update."""

    def update(
        self,
        variables: Sequence[keras.Variable],
        gradients: Gradients,
        clipped: Gradients,
        made: Any = None,
    ) -> None:
        """Handle an update: the gradient of each variable, before and after clipping.

        A gradient is None if the loss does not depend on the variable. `made` is a scalar bool,
        whether the update stays; None for True.
        """

    def attempt(self, variables: Sequence[keras.Variable], gradients: Gradients) -> None:
        """Handle the scaled gradients of a step before a `LossScaleOptimizer`.

        It skips the step if a gradient is not finite.
        """


class FitListener(Protocol):
    """Gets what happens in a `fit` between the steps."""

    def carried(self) -> list[tuple[keras.optimizers.Optimizer, backend.Totals]]:
        """Return what the step folds into, and the optimizer whose updates it folds."""

    def after_execution(self, logs: dict[str, Any]) -> None:
        """Handle the return of the compiled function: one step, or `steps_per_execution`."""

    def before_trace(self) -> None:
        """Prepare for a new trace of the step, which a callback asked for."""

    def interrupted(self) -> None:
        """Handle the end of the `fit` by an exception."""


def listen_to_updates(
    optimizer: keras.optimizers.Optimizer, listener: UpdateListener
) -> Callable[[], None]:
    """Call a listener at every update that an optimizer makes.

    Args:
        optimizer: a Keras optimizer; in a `LossScaleOptimizer` the inner one makes the updates.
        listener: called once per trace and replica where steps are compiled, otherwise at every
            update. Under a distribution strategy it gets the gradients summed over the replicas.

    Returns:
        A function that ends it; a second call does nothing.
    """
    inner = getattr(optimizer, "inner_optimizer", None)
    taps = [_UpdateTap.on(optimizer if inner is None else inner)]
    if inner is not None:
        taps.append(_AttemptTap.on(optimizer))
    return _join(taps, listener)


def clips(optimizer: keras.optimizers.Optimizer) -> bool:
    """Return whether an optimizer clips gradients."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    limits = (inner.clipnorm, inner.global_clipnorm, inner.clipvalue)
    return any(limit is not None for limit in limits)


def listen_to_fit(model: keras.Model, listener: FitListener) -> Callable[[], None]:
    """Have a `fit` trace its step anew, and call a listener between the steps.

    Args:
        model: a compiled model whose `fit` is calling `on_train_begin`.
        listener: called between the steps.

    Returns:
        A function that ends it and restores the compiled step that the model had before.
    """
    return _join([_FitTap.on(model)], listener)


def as_compiled(model: keras.Model) -> AbstractContextManager[None]:
    """Return the context in which that is trainable which the compiled step of `fit` trains.

    Keras's step goes on training what was trainable when it was traced, until `compile` is called.
    """
    found = model.__dict__.get("make_train_function")
    is_tapped = isinstance(found, _Replacement)
    return trainable_as(model, found.tap.trained if is_tapped else _trained(model))


def _trained(model: keras.Model) -> frozenset[int] | None:
    """Return the `id` of each variable that the compiled step of `fit` trains, if it was traced."""
    step, known = model.train_function, known_to_optimizers(model)
    updated = backend.trained_variables(step, known)
    if updated is None and step is not None:
        updated = _TRAINED.get(step)
    if updated is None:
        return None
    # One that the loss does not depend on is trained, but not updated.
    return updated | (_ids(known) & _ids(model.trainable_variables))


def _ids(variables: Sequence[keras.Variable]) -> frozenset[int]:
    return frozenset(id(variable) for variable in variables)


def _join(taps: Sequence["_Tap"], listener: Any) -> Callable[[], None]:
    for tap in taps:
        tap.listeners.append(listener)

    def stop() -> None:
        for tap in taps:
            tap.leave(listener)

    return stop


class _Replacement:
    """A method of one instance, replaced by a tap's method of the same name."""

    def __init__(self, tap: "_Tap", name: str) -> None:
        self.tap = tap
        self._handle, self._original = getattr(tap, name), getattr(tap.target, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._handle(self._original, *args, **kwargs)


class _Tap:
    """Replaces methods of an instance as long as there are listeners."""

    methods: tuple[str, ...]

    def __init__(self, target: Any) -> None:
        self.target = target
        self.listeners: list[Any] = []
        # With setattr Keras would track the values.
        target.__dict__.update({name: _Replacement(self, name) for name in self.methods})

    @classmethod
    def on(cls, target: Any) -> "_Tap":
        """Return the tap of an instance, a new one unless it has one already."""
        found = target.__dict__.get(cls.methods[0])
        return found.tap if isinstance(found, _Replacement) else cls(target)

    def leave(self, listener: Any) -> None:
        """Remove a listener, and restore the methods when it was the last one."""
        if listener in self.listeners:
            self.listeners.remove(listener)
            if not self.listeners:
                self.close()

    def close(self) -> None:
        """Restore the methods."""
        for name in self.methods:
            del self.target.__dict__[name]


class _UpdateTap(_Tap):
    methods = ("_filter_empty_gradients", "_clip_gradients", "_backend_update_step")

    def __init__(self, optimizer: keras.optimizers.Optimizer) -> None:
        super().__init__(optimizer)
        # Replicas run in threads that may switch between the methods.
        self._seen = threading.local()
        self._tell = backend.uncompiled(self._tell_listeners)

    def _filter_empty_gradients(
        self, original: Callable, grads: Gradients, variables: Sequence[keras.Variable]
    ) -> tuple[Gradients, Sequence[keras.Variable]]:
        pairs = zip(grads, variables, strict=True)
        self._seen.unconnected = [variable for g, variable in pairs if g is None]
        return original(grads, variables)

    def _clip_gradients(self, original: Callable, gradients: Gradients) -> Gradients:
        self._seen.unclipped = gradients
        return original(gradients)

    def _backend_update_step(
        self,
        original: Callable,
        grads: Gradients,
        trainable_variables: Sequence[keras.Variable],
        learning_rate: Any,
    ) -> None:
        self._tell(grads, trainable_variables)
        original(grads, trainable_variables, learning_rate)

    def _tell_listeners(self, grads: Gradients, variables: Sequence[keras.Variable]) -> None:
        seen, self._seen.unclipped = self._seen.unclipped, None
        unclipped = backend.readable_gradients(seen)
        # Without clipping Keras passes the same list.
        clipped = unclipped if grads is seen else backend.readable_gradients(grads)
        unconnected = self._seen.unconnected
        none = [None] * len(unconnected)
        made = backend.update_made(self.target)
        for listener in tuple(self.listeners):
            listener.update([*variables, *unconnected], unclipped + none, clipped + none, made)


class _AttemptTap(_Tap):
    # On JAX the second one does not call the first.
    methods = ("apply", "stateless_apply")

    def __init__(self, optimizer: keras.optimizers.Optimizer) -> None:
        super().__init__(optimizer)
        self._attempt = backend.uncompiled(self._tell_listeners)

    def apply(
        self,
        original: Callable,
        grads: Gradients,
        trainable_variables: Sequence[keras.Variable] | None = None,
    ) -> None:
        """Call the listeners with a step that may yet be skipped."""
        self._attempt(grads, trainable_variables)
        original(grads, trainable_variables)

    def stateless_apply(
        self,
        original: Callable,
        optimizer_variables: Sequence[Any],
        grads: Gradients,
        trainable_variables: Sequence[Any],
    ) -> Any:
        """Call the listeners likewise; what they fold into is among the optimizer's variables."""
        variables = self.target.variables
        values = zip(variables, optimizer_variables, strict=True)
        with keras.StatelessScope(list(values)) as scope:
            self._attempt(grads)
        counted = [scope.get_current_value(variable) for variable in variables]
        return original(counted, grads, trainable_variables)

    def _tell_listeners(
        self, grads: Gradients, variables: Sequence[keras.Variable] | None = None
    ) -> None:
        known = variables or self.target.inner_optimizer._trainable_variables
        readable = backend.readable_gradients(grads)
        for listener in tuple(self.listeners):
            listener.attempt(known, readable)


# What the compiled steps update that a tap replaced before they were traced: in an untracked `fit`
# they would have been traced then.
_TRAINED: WeakKeyDictionary[Callable, frozenset[int]] = WeakKeyDictionary()


class _FitTap(_Tap):
    methods = ("make_train_function", "train_on_batch")

    def __init__(self, model: keras.Model) -> None:
        self._before = model.train_function
        self.trained = _trained(model)
        self._is_in_batch = False
        make = model.make_train_function
        super().__init__(model)
        self._install(make)

    def train_on_batch(self, original: Callable, *args: Any, **kwargs: Any) -> Any:
        """Have a batch of a loop of the user's own pass the tap's step."""
        self._is_in_batch = True
        try:
            return original(*args, **kwargs)
        finally:
            self._is_in_batch = False

    def make_train_function(self, original: Callable, force: bool = False) -> None:
        """Handle a new trace, or the begin of another `fit` after one without `on_train_end`."""
        if force:  # a callback changed the model and asks for a new trace in the same fit
            original(force=True)
            self._before, self.trained = self.target.train_function, None
            for listener in tuple(self.listeners):
                listener.before_trace()
            self._install(original)
        elif not self._is_in_batch:
            self._end_interrupted()
            self.target.make_train_function()

    def close(self) -> None:
        """Restore the model's compiled step."""
        super().close()
        if self.trained is None:
            updated = backend.trained_variables(self._step, known_to_optimizers(self.target))
            if updated is not None:
                _TRAINED[self._before] = updated
        if self.target.train_function is self._function:  # otherwise it was compiled anew
            self.target.train_function = self._before

    def _install(self, make: Callable) -> None:
        backend.make_fit_step(self.target, make, self._carried)
        function = self._step = self.target.train_function

        def train_function(*args: Any) -> Any:
            try:
                with trainable_as(self.target, self.trained):
                    result = function(*args)
            except backend.END_OF_DATA:
                raise
            except BaseException:
                self._end_interrupted()
                raise
            for listener in tuple(self.listeners):
                listener.after_execution(backend.step_logs(result))
            return result

        self._function = self.target.train_function = train_function

    def _carried(self) -> list[tuple[keras.optimizers.Optimizer, backend.Totals]]:
        return [pair for listener in self.listeners for pair in listener.carried()]

    def _end_interrupted(self) -> None:
        for listener in tuple(self.listeners):
            listener.interrupted()
            self.leave(listener)
