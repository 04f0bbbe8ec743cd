"""The data that the rules check: a history's numbers on scales that are comparable across networks.

A gradient of 1e-7 means nothing by itself: its size depends on the loss, the width and the depth.
Rules therefore compare a kernel's gradient with that of a healthy network of the same shape, and a
kernel's change with its own size.
"""

import math
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np

from kgrad.diagnosis.structure import Structure
from kgrad.records.history import GradientHistory, Weight

# The values that an activation can produce.
_RANGES = {
    "linear": (-np.inf, np.inf),
    "sigmoid": (0.0, 1.0),
    "hard_sigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "softsign": (-1.0, 1.0),
    "relu": (0.0, np.inf),
    "softplus": (0.0, np.inf),
    "exponential": (0.0, np.inf),
    "relu6": (0.0, 6.0),
}

# Share of a constant prediction's loss above which a loss is no better.
_CONSTANT = 0.95
# Steps in which a network may first learn the best constant, and nothing else.
_FEW_STEPS = 100
# Share of the first loss below which a network may stop learning because nothing is left to learn.
_PERFECT = 0.01
# Optimizers whose first update changes each weight by about the learning rate.
_UNIT_STEPS = ("Adam", "AdamW", "Nadam", "Adamax", "Lion")
# Activations that are flat for large inputs of either sign.
FLAT = ("tanh", "sigmoid", "hard_sigmoid", "hard_tanh", "softsign", "softmax", "relu6")
# Losses of Keras that are 0 for perfect predictions and never below.
_ZERO_AT_BEST = {
    "mean_squared_error",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_logarithmic_error",
    "huber",
    "log_cosh",
    "binary_crossentropy",
    "categorical_crossentropy",
    "sparse_categorical_crossentropy",
    "binary_focal_crossentropy",
    "categorical_focal_crossentropy",
    "kl_divergence",
    "hinge",
    "squared_hinge",
    "categorical_hinge",
    "dice",
    "tversky",
}


class Dropout(NamedTuple):
    """A dropout layer: its name, its rate, and whether it drops the last layer's outputs."""

    layer: str
    rate: float
    drops_outputs: bool = False


class Head(NamedTuple):
    """One output of a model, and its loss; the defaults stand for "unknown".

    Attributes:
        layer: name of the output's layer.
        activation: name of its activation function.
        units: size of the output's last axis.
        loss: name of the loss in snake case, such as "mean_squared_error".
        from_logits: whether the loss expects values before sigmoid or softmax.
        ignored_class: the class that the loss leaves out, if any.
        from_activation: whether the loss takes the logits of a sigmoid or softmax that the model
            applies, whatever `from_logits` says, as on TensorFlow.
    """

    layer: str = ""
    activation: str = ""
    units: int = 0
    loss: str = ""
    from_logits: bool = False
    ignored_class: int | None = None
    from_activation: bool = False

    @property
    def output_range(self) -> tuple[float, float]:
        """Smallest and largest value that the layer can produce; NaN if unknown."""
        return _RANGES.get(self.activation, (np.nan, np.nan))


class ModelFacts(NamedTuple):
    """Facts about a model that its history does not contain.

    The defaults stand for "unknown".

    Attributes:
        heads: the outputs, in the order of the targets; none if they are unknown.
        regularized: whether the loss has additional terms of an unknown size.
        equal_units: names of the layers whose units all have the same incoming weights.
        activations: (layer, name of the activation before the next kernel) of each hidden dense or
            convolutional layer.
        dropouts: the dropout layers.
        penalties: (path, factor) of each weight with an L2 penalty, factor times its squared norm.
        learning_rate: the optimizer's learning rate; NaN if unknown.
        usual_rate: the default learning rate of the optimizer's class; NaN if unknown.
        optimizer: name of the optimizer's class; empty if unknown.
        embeddings: for each input, the rows of the largest embedding that takes it; 0 for an input
            that other layers take, too.
    """

    heads: tuple[Head, ...] = ()
    regularized: bool = False
    equal_units: tuple[str, ...] = ()
    activations: tuple[tuple[str, str], ...] = ()
    dropouts: tuple[Dropout, ...] = ()
    penalties: tuple[tuple[str, float], ...] = ()
    learning_rate: float = math.nan
    usual_rate: float = math.nan
    optimizer: str = ""
    embeddings: tuple[int, ...] = ()

    @property
    def head(self) -> Head:
        """The only output; an unknown one if there are several."""
        return self.heads[0] if len(self.heads) == 1 else Head()


class Data(NamedTuple):
    """A sample of a run's data, and the losses of simple answers to it.

    Attributes:
        inputs: the model's inputs, each (samples, ...).
        targets: the targets of its outputs, each (samples, ...).
        samples: number of rows of the whole data; 0 if unknown.
        constant_loss: loss of the best constant prediction; NaN if unknown.
        perfect_loss: loss of predictions that equal the targets; NaN if unknown.
        summed: whether the loss adds up over the samples of a batch instead of averaging.
        inference_loss: function that returns the loss of the model as it is for the sample, without
            penalties; None if it is unknown.
        predict: function that returns the outputs of the model as it is for `inputs`; None if the
            inputs are unknown.
    """

    inputs: tuple[np.ndarray, ...] = ()
    targets: tuple[np.ndarray, ...] = ()
    samples: int = 0
    constant_loss: float = math.nan
    perfect_loss: float = math.nan
    summed: bool = False
    inference_loss: Callable[[], float] | None = None
    predict: Callable[[], tuple[np.ndarray, ...]] | None = None


class Evidence:
    """The measurements of a history that the rules compare with thresholds.

    Kernels are the weights with two or more axes. Excluded are biases, which have two axes in some
    recurrent and attention layers, embedding tables, whose rows have a gradient only if they
    occur in the batch, recurrent kernels of series of one step, whose gradient is always 0, and
    weights that have no gradient in any record. Below, R is the number of records and K the number
    of kernels. A gradient that is missing in a record is NaN.

    Args:
        history: the history.
        facts: facts about the model, if it is at hand.
        data: what is known about the data.
        diverges: whether a NaN or infinity follows after the last record.

    Attributes:
        history: the history.
        facts: facts about the model, or None.
        data: what is known about the data.
        structure: which layers feed which.
        all_present: whether each weight has a gradient, bool (R, weights).
        kernels: positions of the kernels among the history's weights.
        layers: layer name of each kernel, (K,).
        fan_in: number of inputs per unit of each kernel, (K,).
        gradient: `l2_norm` of each kernel, (R, K).
        present: whether each kernel has a gradient, bool (R, K).
        weight: `weight_l2` of each kernel, (R, K).
        update: `update_l2` of each kernel, (R, K).
        epochs: epoch of each record, (R,).
        updates: updates of each kernel per record, at least 1, (R, K); training steps in histories
            that do not count updates.
    """

    def __init__(
        self,
        history: GradientHistory,
        facts: ModelFacts | None = None,
        data: Data | None = None,
        *,
        diverges: bool = False,
    ) -> None:
        self.history, self.facts, self.data = history, facts, data or Data()
        self._diverges = diverges
        known = facts or ModelFacts()
        paths = {weight.path for weight in history.weights}
        self._penalties = dict(known.penalties)
        self._regularized = known.regularized or not paths.issuperset(self._penalties)
        self._classes = known.head.units or max(history.weights[-1].shape[-1:], default=1)
        self._loss_name = known.head.loss or str(history.metadata.get("loss", ""))
        weights, present = history.weights, history.missing == ""
        self.all_present = present
        self.kernels = [
            i
            for i, w in enumerate(weights)
            if len(w.shape) >= 2
            and w.size
            and not w.name.endswith(("bias", "embeddings"))
            and present[:, i].any()
            and not (w.name == "recurrent_kernel" and (history["l2_norm"][:, i] == 0).all())
        ]
        self.layers = tuple(weights[i].layer for i in self.kernels)
        self.structure = Structure(history.metadata.get("graph"), self.layers)
        self.fan_in = np.array([_fan_in(weights[i]) for i in self.kernels], float)
        self.present = present[:, self.kernels]
        self.gradient = history["l2_norm"][:, self.kernels]
        self.weight = history["weight_l2"][:, self.kernels]
        self.update = history["update_l2"][:, self.kernels]
        self.epochs = history.epochs
        self.updates = np.maximum(self.all_updates[:, self.kernels], 1)

    @cached_property
    def all_updates(self) -> np.ndarray:
        """Updates of each weight per record, (R, weights); training steps if they are unknown."""
        if "updates" in self.history.statistics:
            return self.history["updates"]
        steps = np.maximum(np.diff(self.history.steps, prepend=0), 1)
        return np.tile(steps[:, None], len(self.history.weights))

    @property
    def heads(self) -> list[tuple[Head, np.ndarray | None]]:
        """The model's outputs, each with its targets; None if they are unknown."""
        heads, targets = (self.facts or ModelFacts()).heads, self.data.targets
        known = targets if len(targets) == len(heads) else [None] * len(heads)
        return list(zip(heads, known, strict=True))

    @property
    def normalized(self) -> bool:
        """Whether the model has normalization layers."""
        return any(weight.name == "gamma" for weight in self.history.weights)

    @cached_property
    def loss(self) -> np.ndarray | None:
        """The loss of each record without L2 penalties, (R,); None if it was not recorded."""
        loss = self.history.logs.get("loss")
        return loss - self.penalty if loss is not None and self._penalties else loss

    @cached_property
    def penalty(self) -> np.ndarray:
        """The mean sum of the L2 penalties over the steps of each record, (R,).

        Between two records they are taken to shrink or grow exponentially, as penalties that
        outweigh the loss do: the mean of a and b is then (a − b) / log(a / b).
        """
        factors = [self._penalties.get(weight.path, 0.0) for weight in self.history.weights]
        with np.errstate(all="ignore"):
            end = self.history["weight_l2"] ** 2 @ np.array(factors)
            start = np.concatenate([end[:1], end[:-1]])
            changes = np.abs(np.log(start / end)) > 1e-6
            return np.where(changes, (start - end) / np.log(start / end), end)

    @cached_property
    def floor(self) -> float:
        """The smallest possible value of the loss; NaN if unknown.

        All comparisons of losses count from it, so that a constant added to the loss changes none.
        """
        if math.isfinite(self.data.perfect_loss):
            return self._of_batch * self.data.perfect_loss
        named = self._loss_name not in ("", "as compiled")
        known = self._loss_name in _ZERO_AT_BEST if named else True
        # The mean loss of an epoch minus the penalty's estimated mean may be a little below 0.
        below = 0.0 if self.loss is None else np.fmin.reduce(self.loss, initial=0.0)
        negative = below < -1e-3 * float(self.penalty.max(initial=0.0)) and below < 0
        return 0.0 if known and not negative else math.nan

    @cached_property
    def constant_loss(self) -> float:
        """Loss of the best constant prediction; infinite if unknown.

        Without targets it is known for a cross-entropy only: all classes as equally likely.
        """
        if math.isfinite(self.data.constant_loss):
            return self._of_batch * self.data.constant_loss
        if self._regularized or not self._loss_name.endswith("crossentropy"):
            return math.inf
        return math.log(2 if self._loss_name.startswith("binary") else max(self._classes, 2))

    @property
    def _of_batch(self) -> float:
        """Batch size over the sampled rows if the loss adds up over the batch, otherwise 1."""
        if not self.data.summed or not self.data.samples or not self.epochs[-1]:
            return 1.0
        batches = self.history.steps[-1] / self.epochs[-1]
        return float(self.data.samples / batches / len(self.data.targets[0]))

    @cached_property
    def last_loss(self) -> float:
        """The smallest loss of the last three records; NaN with fewer than three records."""
        if self.loss is None or len(self.loss) < 3:
            return math.nan
        return float(np.fmin.reduce(self.loss[2:][-3:]))

    @cached_property
    def fall(self) -> float:
        """The relative fall of the loss, (first − last) / (first − floor); NaN if unknown.

        First is `first_loss`, last is `last_loss`.
        """
        if self._diverges:
            return -math.inf
        return (self.first_loss - self.last_loss) / max(abs(self.first_loss - self.floor), 1e-12)

    @cached_property
    def first_loss(self) -> float:
        """The loss from which a fall is counted; NaN if unknown.

        It is the larger one of the first record, which is a single batch, and the first epoch, but
        at most that of the best constant prediction: a fall above that is no progress.
        """
        return math.nan if self.loss is None else min(self._loss_at_start, self.constant_loss)

    @property
    def starts_worse_than_constant(self) -> bool:
        """Whether the loss starts above that of the best constant prediction."""
        return self.loss is not None and self._loss_at_start > self.constant_loss

    @cached_property
    def _loss_at_start(self) -> float:
        return math.nan if self.loss is None else float(np.fmax.reduce(self.loss[:2]))

    @cached_property
    def rises(self) -> np.ndarray:
        """Whether the loss of each record is at least 20 % above the previous one, bool (R,).

        If the smallest possible loss is unknown, 20 % of the range of the losses so far.
        """
        if self.loss is None:
            return np.zeros(len(self.epochs), bool)
        before = np.concatenate([self.loss[:1], self.loss[:-1]])
        size = before - self.floor
        if math.isnan(self.floor):
            size = np.fmax.accumulate(before) - np.fmin.accumulate(before)
        return self.loss > before + 0.2 * np.abs(size)

    @property
    def is_stuck(self) -> bool:
        """Whether the loss is no better than a constant's, and not on the way to become so."""
        constant, last = self.constant_loss - self.floor, self.last_loss - self.floor
        # The first steps of a healthy run often lead from far above to the best constant.
        just_there = self.history.steps[-1] < _FEW_STEPS and last < 0.5 * (
            self._loss_at_start - self.floor
        )
        return bool(last > _CONSTANT * constant) and not self._progresses and not just_there

    @property
    def fails(self) -> bool:
        """Whether the loss is no better than a constant's, or 50 % larger than at the start."""
        start, last = self._loss_at_start - self.floor, self.last_loss - self.floor
        return self.is_stuck or bool(math.isfinite(last) and last > 1.5 * start)

    @cached_property
    def _progresses(self) -> bool:
        """Whether the loss falls fast enough to be clearly below a constant's soon.

        It is continued for twice as long, as it fell in the two halves of the run: by as much again
        as in the second half, or by less each time if it slows down.
        """
        if self.loss is None:
            return False
        loss = self.loss[1:] if len(self.loss) > 3 else self.loss
        before, fallen = loss[0] - loss[len(loss) // 2], loss[len(loss) // 2] - loss[-1]
        slows_to = np.clip(fallen / before, 0, 1) if before > 0 and len(loss) > 3 else 1.0
        missing = self.loss[-1] - (self.floor + 0.9 * (self.constant_loss - self.floor))
        return bool(missing <= fallen * (slows_to ** np.arange(1, 5)).sum())

    @cached_property
    def _falls_steadily(self) -> bool:
        """Whether three of four pairs of records have the smaller loss later (Kendall's tau)."""
        if self.loss is None or len(self.loss) < 4 or self._diverges:
            return False
        loss = self.loss[1:]
        first, later = np.triu_indices(len(loss), 1)
        return bool(np.mean(loss[later] < loss[first]) >= 0.75)

    @property
    def skill(self) -> float:
        """Share gained of what the best constant prediction leaves to gain; NaN if unknown.

        It is the coefficient of determination for a mean squared error.
        """
        with np.errstate(all="ignore"):
            constant = np.float64(self.constant_loss)
            return float((constant - self.last_loss) / (constant - self.floor))

    @property
    def has_batchnorm(self) -> bool:
        """Whether the recorded graph has a batch normalization."""
        return self.structure.has("BatchNormalization")

    @cached_property
    def begins_trained(self) -> bool:
        """Whether the weights were trained before: most biases are not at 0, their initial value.

        Biases of recurrent layers do not count: the bias of an LSTM's forget gate starts at 1.
        """
        weights = self.history.weights
        recurrent = {w.layer for w in weights if w.name == "recurrent_kernel"}
        biases = [b for b in self.biases if b is not None and weights[b].layer not in recurrent]
        at_first = self.history["weight_l2"][0, biases]
        # If the first record follows some steps, biases that started at 0 have moved a little.
        moved = np.nansum(self.history["update_l2"][:2, biases], axis=0)
        return bool(len(biases) and (at_first > 10 * moved).mean() > 0.5)

    def falls_from_first_epoch_by(self, share: float) -> bool:
        """Return whether the loss has fallen by this share since the first epoch."""
        if self.loss is None or len(self.loss) < 3:
            return False
        if math.isnan(self.floor):
            return self._falls_steadily
        return bool(self.loss[1] - self.loss[-1] >= share * abs(self.loss[1] - self.floor))

    def falls_by(self, share: float) -> bool:
        """Return whether the loss is known to have fallen by at least this share.

        If its smallest possible value is unknown, whether it falls steadily.
        """
        return self._falls_steadily if math.isnan(self.floor) else bool(self.fall >= share)

    def falls_after(self, record: int, share: float) -> bool:
        """Return whether the loss falls by this share after a record, or is as good as perfect."""
        if self.loss is None or math.isnan(self.floor):
            return False
        before, last = self.loss[record] - self.floor, self.loss[-1] - self.floor
        start = self._loss_at_start - self.floor
        return bool(before - last >= share * before or last <= _PERFECT * start)

    def falls_less(self, share: float) -> bool:
        """Return whether the loss is known to have fallen by less than this share."""
        return bool(self.fall < share)

    @cached_property
    def nonfinite_steps(self) -> np.ndarray:
        """Updates per record with a NaN or infinity, (R, layers), without skipped ones."""
        updates = self.history.by_layer("nonfinite_steps")
        # Loss scaling finds its scale by skipping updates, so skipped ones are normal.
        skipped = self.history.logs.get("skipped_steps", np.zeros(len(updates)))
        return np.maximum(updates - np.nan_to_num(skipped)[:, None], 0)

    @cached_property
    def first_nonfinite_record(self) -> int | None:
        """The first record with a NaN or infinity in gradients, weights or loss; None if none.

        Updates that loss scaling skipped do not count, nor a loss that was not recorded, as of an
        epoch that was interrupted.
        """
        bad = self.nonfinite_steps.any(axis=1)
        bad = bad | ~np.isfinite(self.history["weight_l2"]).all(axis=1)
        if self.loss is not None:
            records = map(self.history.record, range(len(self.epochs)))
            recorded = np.array(["loss" in record["logs"] for record in records])
            bad = bad | (~np.isfinite(self.loss) & recorded)
        return int(np.argmax(bad)) if bad.any() else None

    @cached_property
    def biases(self) -> list[int | None]:
        """Position of each kernel's bias among the history's weights; None if it has none."""
        places = {w.path: i for i, w in enumerate(self.history.weights)}
        found = []
        for k in self.kernels:
            path = self.history.weights[k].path
            found.append(places.get(path.removesuffix("kernel") + "bias"))
        return found

    @cached_property
    def bias_zeros(self) -> np.ndarray:
        """Share of zeros in the gradient of each kernel's bias, (R, K); NaN without a bias.

        Counted in whole gradients, 0 or 1, if the zeros of entries were not counted.
        """
        zeros = np.full(self.gradient.shape, np.nan)
        counted = "zero_fraction" in self.history.statistics
        for k, bias in enumerate(self.biases):
            if bias is not None:
                size = self.history["l2_norm"][:, bias]
                own = self.history["zero_fraction"][:, bias] if counted else size == 0
                zeros[:, k] = np.where(self.all_present[:, bias], own, np.nan)
        return zeros

    @cached_property
    def _feeds(self) -> dict[str, tuple[str, ...]]:
        return self.structure.heads()

    @cached_property
    def _head_kernels(self) -> list[int]:
        """Position of the last kernel of each head."""
        feeds = self._feeds
        last = {layer: k for k, layer in enumerate(self.layers)}
        return [last[head] for head in dict.fromkeys(h for name in last for h in feeds[name])]

    def _passed(self, error: np.ndarray) -> np.ndarray:
        """Return the error that reaches each kernel, (R, K), of that of each head, (R, heads)."""
        feeds = self._feeds
        names = [self.layers[k] for k in self._head_kernels]
        feeding = [[name in feeds[layer] for layer in self.layers] for name in names]
        squares = np.where(np.array(feeding, ndmin=2), error[:, :, None] ** 2, 0)
        return np.sqrt(squares.sum(axis=1))

    @cached_property
    def _error(self) -> np.ndarray:
        """Approximation of |∂L/∂h| at the output h of each head, (R, heads).

        The gradient of the last bias is the mean of the samples' errors, which may cancel. The
        gradient of the last kernel is error times input, and inputs of healthy networks are near 1.
        """
        return np.fmax(self._error_by_bias, self._error_by_kernel)

    @cached_property
    def _error_by_bias(self) -> np.ndarray:
        error = np.zeros((len(self.epochs), len(self._head_kernels)))
        for head, k in enumerate(self._head_kernels):
            if (bias := self.biases[k]) is not None:
                own = self.history["l2_norm"][:, bias]
                error[:, head] = np.where(self.all_present[:, bias], own, 0.0)
        return error

    @cached_property
    def _error_by_kernel(self) -> np.ndarray:
        heads = self._head_kernels
        gradient = np.where(self.present[:, heads], self.gradient[:, heads], 0.0)
        return gradient / np.sqrt(self.fan_in[heads])

    @cached_property
    def level(self) -> np.ndarray:
        """Each kernel's gradient divided by that of a network that keeps signals at 1, (R, K).

        In such a network, |x| = √fan_in enters a kernel and the error |δ| of the output comes back
        unchanged, so that ‖∂L/∂W‖ = |δ| √fan_in: the recursion of `kgrad.theory.propagate` at its
        critical point. A kernel that feeds several heads gets the root of the sum of their squared
        errors. A small last kernel, as in a network that starts as a constant function, reduces all
        other gradients at first; the level corrects for this. It is NaN if the gradient is exactly
        0, which is a different problem or such a start.
        """
        error = self._passed(self._error)
        last = np.minimum(np.sqrt(self.sigma_w2[:, self._head_kernels]), 1.0)
        before = self._passed(self._error * last)
        level = self._over(np.where(self.is_head, error, before))
        return np.where(self.gradient == 0, np.nan, level)

    @cached_property
    def level_by_bias(self) -> np.ndarray:
        """The level with the error read from the last bias, which a large signal does not change.

        Equal to `level` without that correction if there is no last bias, or if its gradient
        cancels to less than a hundredth.
        """
        cancels = self._error_by_bias < 1e-2 * np.minimum(self._error_by_kernel, 1.0)
        return self._over(self._passed(np.where(cancels, self._error, self._error_by_bias)))

    def _over(self, error: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return self.gradient / (error * np.sqrt(self.fan_in))

    @cached_property
    def input_size(self) -> np.ndarray:
        """Approximation of |x|/√fan_in for the input x of each kernel, (R, K); NaN without a bias.

        The gradient of the bias is the sum of the errors, that of the kernel is error times input.
        Also NaN if the gradient of the bias is 0 except for rounding, as before normalization.
        """
        size = np.full_like(self.gradient, np.nan)
        l2 = self.history["l2_norm"]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            for k, bias in enumerate(self.biases):
                if bias is not None and not self.structure.is_normalized(self.layers[k]):
                    size[:, k] = self.gradient[:, k] / l2[:, bias] / np.sqrt(self.fan_in[k])
        if not self.structure.is_known:  # the layers before a normalization are not known, either
            size = np.where(size < 1e5, size, np.nan)
        return np.where(np.isfinite(size), size, np.nan)

    @cached_property
    def movement(self) -> np.ndarray:
        """‖ΔW‖ over a record divided by ‖W‖ before it, (R, K); 0 in the first record.

        Any change is large compared with a kernel that starts at or near 0, for example to start as
        the identity. W is therefore taken to have at least σ_w² = 0.02.
        """
        before = np.concatenate([self.weight[:1], self.weight[:-1]])
        with np.errstate(invalid="ignore", over="ignore"):
            return self.update / np.maximum(before, self._least_norm)

    @cached_property
    def _least_norm(self) -> np.ndarray:
        return np.sqrt(0.02 * self._sizes / self.fan_in)

    @cached_property
    def first_step(self) -> np.ndarray:
        """‖ΔW‖ of the first update over ‖W‖, (K,), as the optimizer makes it; NaN if unknown.

        SGD moves by the learning rate times the gradient. Adam and its relatives move each entry by
        about the learning rate.
        """
        facts = self.facts or ModelFacts()
        if facts.optimizer == "SGD":
            step = self.gradient[0]
        elif facts.optimizer in _UNIT_STEPS:
            step = np.sqrt(self._sizes)
        else:
            return np.full(len(self.kernels), np.nan)
        with np.errstate(invalid="ignore", over="ignore"):
            return facts.learning_rate * step / np.maximum(self.weight[0], self._least_norm)

    @cached_property
    def bias_size(self) -> np.ndarray:
        """Root mean square of each kernel's bias, (R, K); 0 if it has none."""
        size = np.zeros_like(self.weight)
        l2 = self.history["weight_l2"]
        for k, bias in enumerate(self.biases):
            if bias is not None:
                size[:, k] = l2[:, bias] / math.sqrt(self.history.weights[bias].size)
        return size

    @cached_property
    def sigma_w2(self) -> np.ndarray:
        """Fan-in times the mean square of a kernel's entries, (R, K): σ_w² of mean-field theory."""
        return self.weight**2 / self._sizes * self.fan_in

    @cached_property
    def scale(self) -> np.ndarray:
        """The initial σ_w² nearest to 1 with fan-in or its mean with fan-out in its place, (K,).

        Glorot's initializers scale by that mean: a wide layer on one feature, Keras's default, has
        a small σ_w² by fan-in alone. NaN for kernels with one or two inputs, which have too few
        entries to a unit, and for those that only begin at 0, as residual branches may by design.
        """
        square = self.weight[0] ** 2 / self._sizes
        both = np.array([self.fan_in, (self.fan_in + self._sizes / self.fan_in) / 2]) * square
        with np.errstate(divide="ignore"):
            nearest = np.abs(np.log(both)).argmin(axis=0)
        scale = np.take_along_axis(both, nearest[None], axis=0)[0]
        return np.where((self.fan_in > 2) & ~self.only_begins_at_0, scale, np.nan)

    @property
    def only_begins_at_0(self) -> np.ndarray:
        """Whether each kernel begins at 0, unlike others, and does not stay there, bool (K,)."""
        is_0 = self.weight[0] == 0
        moves = (self.weight[-1] > 0) | (len(self.weight) == 1)
        return is_0 & moves & (not is_0.all())

    @property
    def is_normalized(self) -> np.ndarray:
        """Whether each kernel's output is normalized: its scale has no effect then, bool (K,)."""
        return np.array([self.structure.is_normalized(layer) for layer in self.layers], bool)

    @property
    def can_saturate(self) -> np.ndarray:
        """Whether each kernel's activation may be flat, bool (K,); True if it is unknown."""
        known = dict(self.facts.activations) if self.facts is not None else {}
        return np.array([known.get(layer, "tanh") in FLAT for layer in self.layers])

    @cached_property
    def is_head(self) -> np.ndarray:
        """Whether each kernel is the last one before an output, bool (K,)."""
        return np.isin(np.arange(len(self.kernels)), self._head_kernels)

    @cached_property
    def _sizes(self) -> np.ndarray:
        return np.array([self.history.weights[i].size for i in self.kernels], float)

    @cached_property
    def dead(self) -> list[tuple[tuple[str, ...], np.ndarray, str]]:
        """Signs of dead units: layers, the dead share of each per record, and what is counted.

        That is "units" on the probe if there is one, and "entries" of the gradient if their zeros
        were counted, otherwise "updates".
        """
        signs = []
        if "activation_dead" in self.history.activations:
            share = self.history.activations["activation_dead"]
            own = [i for i, name in enumerate(self.history.outputs) if self.structure.can_die(name)]
            signs.append((tuple(self.history.outputs[i] for i in own), share[:, own], "units"))
        if "zero_fraction" in self.history.statistics:
            # Without the first kernel, because inputs may be sparse.
            share = self.history["zero_fraction"][:, self.kernels[1:]]
            if any(one.rate > 0.5 for one in (self.facts or ModelFacts()).dropouts):
                return signs  # dropout makes entries 0, too
            return [*signs, (self.layers[1:], share, "entries")]
        share = np.where(self.present, self.gradient == 0, np.nan)
        return [*signs, (self.layers, share, "updates")]

    @cached_property
    def zero_from(self) -> int | None:
        """The record from which every gradient is exactly 0 for good; None if there is none."""
        alive = np.flatnonzero((self.history["l2_norm"] != 0).any(axis=1))
        first = int(alive[-1]) + 1 if alive.size else 0
        return first if first < len(self.epochs) else None

    @cached_property
    def without_path(self) -> dict[int, int]:
        """Weights that have updates, but no gradient in any of them → number of these updates."""
        if not {"updates", "gradients_present"} <= set(self.history.statistics):
            return {}
        updates = self.history["updates"].sum(axis=0)
        none = (updates > 0) & (self.history["gradients_present"] == 0).all(axis=0)
        return {int(i): int(updates[i]) for i in np.flatnonzero(none)}

    @cached_property
    def saturated(self) -> tuple[tuple[str, ...], np.ndarray] | None:
        """Layers, and the share of each that is saturated but not 0; None without a probe.

        Zeros do not count: a ReLU is 0 for some samples and not for others.
        """
        activations = self.history.activations
        if "activation_saturated" not in activations:
            return None
        share = activations["activation_saturated"] - activations["activation_zero_fraction"]
        # Without the model's outputs, which are also flat if their predictions are confident.
        names = self.history.outputs
        hidden = [i for i, name in enumerate(names[:-1]) if self.structure.is_hidden(name)]
        return tuple(names[i] for i in hidden), share[:, hidden]


def _fan_in(weight: Weight) -> int:
    """Return the number of inputs that one unit sums."""
    if "depthwise" in weight.path:
        return math.prod(weight.shape[:-2])
    owner = weight.path.rpartition("/")[0].rpartition("/")[2]
    if len(weight.shape) == 3 and owner in ("query", "key", "value"):
        return weight.shape[0]  # the other axes are heads and their units
    return math.prod(weight.shape[:-1])
