"""Listens to a Keras optimizer and to a model's `fit`, and leaves both as they were.

Every update that a Keras optimizer makes, from `fit`, `apply_gradients` or `apply`, passes two of
its methods, one after the other: `_clip_gradients(gradients)`, whose argument is the gradient of
the loss (unscaled; averaged, where an optimizer accumulates gradients), and
`_backend_update_step(gradients, variables, learning_rate)`, which gets what clipping left. Keras
has no public place where both can be seen. The methods are replaced on the instance: its class, and
with it its configuration and everything that is saved, stays what it was.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import keras
import tensorflow as tf

from kgrad.measure.backends.tensorflow.unshared import unshared

Gradients = Sequence[Any]


class UpdateListener(Protocol):
    """What an optimizer's updates are told to. Called in the graph that makes the update."""

    def update(
        self,
        variables: Sequence[keras.Variable],
        gradients: Gradients,
        clipped: Gradients,
    ) -> None:
        """An update: the gradient of each variable, before and after clipping."""

    def attempt(self, variables: Sequence[keras.Variable], gradients: Gradients) -> None:
        """A step, scaled, that a `LossScaleOptimizer` will skip if a gradient is not finite."""


class FitListener(Protocol):
    """What a `fit` is told to."""

    def after_execution(self, logs: dict[str, Any]) -> None:
        """The compiled function returned: one step, or `steps_per_execution` of them."""

    def before_trace(self) -> None:
        """A callback has the step traced anew."""

    def interrupted(self) -> None:
        """The `fit` ended by an exception."""


def listen_to_updates(
    optimizer: keras.optimizers.Optimizer, listener: UpdateListener
) -> Callable[[], None]:
    """Tell a listener of every update that an optimizer makes.

    Args:
        optimizer: a Keras optimizer; of a `LossScaleOptimizer` the inner one makes the updates.
        listener: called once a trace, and once a replica: graph operations only. Under a
            distribution strategy the gradients are summed over the replicas.

    Returns:
        A function that ends it; called twice it does nothing.
    """
    inner = getattr(optimizer, "inner_optimizer", None)
    taps = [_UpdateTap.on(optimizer if inner is None else inner)]
    if inner is not None:
        taps.append(_AttemptTap.on(optimizer))
    return _join(taps, listener)


def clips(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether an optimizer clips gradients."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    limits = (inner.clipnorm, inner.global_clipnorm, inner.clipvalue)
    return any(limit is not None for limit in limits)


def listen_to_fit(model: keras.Model, listener: FitListener) -> Callable[[], None]:
    """Have a `fit` that is about to begin trace its step anew, and tell a listener of it.

    Args:
        model: a compiled model whose `fit` calls `on_train_begin` now.
        listener: called between the steps.

    Returns:
        A function that ends it and gives the model the compiled step back that it had before.
    """
    return _join([_FitTap.on(model)], listener)


def _join(taps: Sequence["_Tap"], listener: Any) -> Callable[[], None]:
    for tap in taps:
        tap.listeners.append(listener)

    def stop() -> None:
        for tap in taps:
            tap.leave(listener)

    return stop


class _Replacement:
    """A method of one instance, handled by a tap."""

    def __init__(self, tap: "_Tap", name: str) -> None:
        self.tap = tap
        self._handle, self._original = getattr(tap, name), getattr(tap.target, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._handle(self._original, *args, **kwargs)


class _Tap:
    """Replaces methods of an instance for as long as there are listeners."""

    methods: tuple[str, ...]

    def __init__(self, target: Any) -> None:
        self.target = target
        self.listeners: list[Any] = []
        # Not setattr, by which Keras would track what it is given.
        target.__dict__.update({name: _Replacement(self, name) for name in self.methods})

    @classmethod
    def on(cls, target: Any) -> "_Tap":
        """The tap of an instance, which may have one already."""
        found = target.__dict__.get(cls.methods[0])
        return found.tap if isinstance(found, _Replacement) else cls(target)

    def leave(self, listener: Any) -> None:
        """Forget a listener, and put the methods back behind the last one."""
        if listener in self.listeners:
            self.listeners.remove(listener)
            if not self.listeners:
                self.close()

    def close(self) -> None:
        """Put the methods back."""
        for name in self.methods:
            del self.target.__dict__[name]


class _UpdateTap(_Tap):
    methods = ("_clip_gradients", "_backend_update_step")

    def __init__(self, optimizer: keras.optimizers.Optimizer) -> None:
        super().__init__(optimizer)
        # Replicas run in threads, which take turns between the two methods.
        self._unclipped = threading.local()

    def _clip_gradients(self, original: Callable, gradients: Gradients) -> Gradients:
        self._unclipped.gradients = gradients
        return original(gradients)

    def _backend_update_step(
        self,
        original: Callable,
        grads: Gradients,
        trainable_variables: Sequence[keras.Variable],
        learning_rate: Any,
    ) -> None:
        unclipped = _over_replicas(unshared(self._unclipped.gradients))
        # Without clipping Keras hands on the same list.
        same = grads is self._unclipped.gradients
        clipped = unclipped if same else _over_replicas(unshared(grads))
        del self._unclipped.gradients
        for listener in tuple(self.listeners):
            listener.update(trainable_variables, unclipped, clipped)
        original(grads, trainable_variables, learning_rate)


class _AttemptTap(_Tap):
    methods = ("apply",)

    def apply(
        self,
        original: Callable,
        grads: Gradients,
        trainable_variables: Sequence[keras.Variable] | None = None,
    ) -> None:
        """Tell of a step that may yet be skipped."""
        inner = self.target.inner_optimizer
        known = trainable_variables or inner._trainable_variables
        reduced = _over_replicas(unshared(grads))
        for listener in tuple(self.listeners):
            listener.attempt(known, reduced)
        original(grads, trainable_variables)


class _FitTap(_Tap):
    methods = ("make_train_function",)

    def __init__(self, model: keras.Model) -> None:
        self._before = model.train_function
        model.make_train_function(force=True)
        super().__init__(model)
        self._install()

    def make_train_function(self, original: Callable, force: bool = False) -> None:
        """Notice that another `fit` begins: this one ended without `on_train_end`."""
        if force:  # a callback that changes the model asks for a new trace of the same fit
            for listener in tuple(self.listeners):
                listener.before_trace()
            original(force=True)
            self._install()
            return
        self._tell_of_the_end()
        self.target.make_train_function()

    def close(self) -> None:
        """Give the model its compiled step back."""
        super().close()
        if self.target.train_function is self._function:  # else it was compiled anew meanwhile
            self.target.train_function = self._before

    def _install(self) -> None:
        function = self.target.train_function

        def train_function(iterator: Any) -> Any:
            try:
                logs = function(iterator)
            except (StopIteration, tf.errors.OutOfRangeError):  # the end of the data
                raise
            except BaseException:
                self._tell_of_the_end()
                raise
            for listener in tuple(self.listeners):
                listener.after_execution(logs)
            return logs

        self._function = self.target.train_function = train_function

    def _tell_of_the_end(self) -> None:
        for listener in tuple(self.listeners):
            listener.interrupted()
            self.leave(listener)


def _over_replicas(gradients: Gradients) -> Gradients:
    """The gradients summed over the replicas of a distribution strategy."""
    replicas = tf.distribute.get_replica_context()
    if replicas is None or replicas.num_replicas_in_sync == 1:
        return gradients
    present = [g for g in gradients if g is not None]
    reduced = iter(replicas.all_reduce(tf.distribute.ReduceOp.SUM, present))
    return [None if g is None else next(reduced) for g in gradients]
