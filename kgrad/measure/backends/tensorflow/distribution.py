"""TensorFlow's distribution strategies: replicas of a model in one process or in several."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kgrad.measure.workers import Workers

_MEANS = ("sum_over_batch_size", "mean", "mean_with_sample_weight")


def replicated_strategy(model: keras.Model) -> tf.distribute.Strategy | None:
    """Return the strategy under which a model was made, None if it has a single replica."""
    strategy = model.distribute_strategy
    return strategy if strategy.num_replicas_in_sync > 1 else None


def require_loop_strategy(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    loss: Callable[[Any, Any], Any] | None,
    *,
    samples: int,
    batch_size: int,
    jit_compile: bool | str,
    probe: bool,
) -> None:
    """Refuse what the compiled loop cannot distribute over the replicas of a strategy.

    Raises:
        ValueError: if the model has several replicas and one of the arguments does not suit them.
    """
    strategy = replicated_strategy(model)
    if strategy is None:
        return
    name, replicas = type(strategy).__name__, strategy.num_replicas_in_sync
    if not isinstance(
        strategy, tf.distribute.MirroredStrategy | tf.distribute.MultiWorkerMirroredStrategy
    ):
        raise ValueError(
            "train_and_track_gradients works under MirroredStrategy and "
            f"MultiWorkerMirroredStrategy, received {name}: use GradientTracker in fit"
        )
    if jit_compile is True:
        raise ValueError(
            f'jit_compile must be False or "auto" under {name}, whose replicas XLA cannot '
            "compile, received True"
        )
    if probe:
        raise ValueError(
            f"probe must be None under {name}, received data: measure with kgrad.Probe on a "
            "copy of the model that was made outside of the strategy"
        )
    if optimizer._distribution_strategy is not strategy:
        raise ValueError(
            f"optimizer {optimizer.name!r} must be made in the scope of the strategy, received "
            f"one that was made outside of {name}'s: make it in `with strategy.scope():`"
        )
    if hasattr(optimizer, "inner_optimizer"):
        raise ValueError(
            f"optimizer must not be a LossScaleOptimizer under {name}, received one: use "
            "loss_scale_factor of another optimizer, or the dtype policy mixed_bfloat16"
        )
    if loss is None and type(model).compute_loss is not keras.Model.compute_loss:
        raise ValueError(
            f"model {model.name!r} must have Keras's own compute_loss under {name}, received one "
            "that may not divide the loss by the number of replicas: pass loss, or use "
            "GradientTracker in fit"
        )
    losses = keras.tree.flatten(model.loss if loss is None else loss)
    if any(getattr(one, "reduction", "mean") not in _MEANS for one in losses):
        raise ValueError(
            f"loss must be a mean over the batch under {name}, received one with another "
            "reduction: use reduction='sum_over_batch_size'"
        )
    smallest = samples % batch_size or batch_size
    if min(smallest, batch_size) < replicas:
        raise ValueError(
            f"every batch must hold a sample for each of the {replicas} replicas of {name}, "
            f"received one of {min(smallest, batch_size)}: choose another batch_size or leave "
            "the last samples out"
        )


def own_part(positions: tf.Tensor, first: tf.Tensor, size: int) -> tf.Tensor:
    """Return the part of a batch that the current replica takes: int32 (samples of the part,).

    Args:
        positions: positions of all samples in the order of the epoch.
        first: position of the batch in that order.
        size: samples in the batch. The parts differ by at most one sample.
    """
    context = tf.distribute.get_replica_context()
    replicas = context.num_replicas_in_sync
    replica = tf.cast(context.replica_id_in_sync_group, tf.int32)
    begin, end = size * replica // replicas, size * (replica + 1) // replicas
    count = end - begin if size % replicas else size // replicas
    return tf.gather(positions, first + begin + tf.range(count))


def summed_over_replicas(values: Sequence[Any]) -> list[Any]:
    """In a replica: return the sums over the replicas of tensors, `IndexedSlices` or None."""
    present = [tf.convert_to_tensor(value) for value in values if value is not None]
    context = tf.distribute.get_replica_context()
    sums = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, present))
    return [None if value is None else next(sums) for value in values]


def local_values(values: Sequence[Any], strategy: tf.distribute.Strategy) -> list[Any]:
    """Outside of the replicas: return what the first replica of this process returned."""
    results = strategy.experimental_local_results
    return [None if value is None else results(value)[0] for value in values]


def require_no_mask(model: keras.Model, y_pred: tf.Tensor) -> None:
    """Refuse a model whose output has a mask.

    The loss is a mean over the entries that are not masked, of which each replica knows its own.

    Raises:
        ValueError: if the output has a mask.
    """
    if getattr(y_pred, "_keras_mask", None) is not None:
        raise ValueError(
            f"model {model.name!r} must not mask its output under a distribution strategy, "
            "received one that passes a mask to the loss: set mask_zero=False, or train on one "
            "device"
        )


def workers(model: keras.Model) -> Workers:
    """Return the processes that train a model: several under MultiWorkerMirroredStrategy."""
    strategy = replicated_strategy(model)
    if strategy is None:
        return Workers()
    if strategy.num_replicas_in_sync == len(strategy.extended.worker_devices):
        return Workers(strategy.num_replicas_in_sync)
    return _StrategyWorkers(strategy)


class _StrategyWorkers(Workers):
    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        super().__init__(strategy.num_replicas_in_sync)
        own_replicas = len(strategy.extended.worker_devices)
        self.count = self.replicas // own_replicas
        self.is_chief = strategy.extended.should_checkpoint

        @tf.function
        def gathered(values: tf.Tensor) -> tf.Tensor:
            return strategy.gather(strategy.run(lambda: values[None]), axis=0)[::own_replicas]

        self._gathered = gathered

    def everyone(self, values: Sequence[int]) -> np.ndarray:
        """Exchange integers; see `Workers`."""
        return self._gathered(tf.constant(values, tf.int64)).numpy()
