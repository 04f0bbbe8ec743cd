"""The data that the rules check: a history's numbers on scales that are comparable across networks.

A gradient of 1e-7 means nothing by itself: its size depends on the loss, the width and the depth.
Rules therefore compare a kernel's gradient with that of a healthy network of the same shape, and a
kernel's change with its own size.
"""

import math
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

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


class ModelFacts(NamedTuple):
    """Facts about a model that its history does not contain.

    The defaults stand for "unknown": a model with several outputs or losses has no last layer
    here.

    Attributes:
        last_layer: name of the last layer; empty if the model has no single output.
        activation: name of the last layer's activation function; empty if unknown.
        units: size of the output's last axis; 0 if unknown.
        loss: name of the loss in snake case, such as "mean_squared_error"; empty if unknown.
        from_logits: whether the loss expects values before sigmoid or softmax.
        ignored_class: the class that the loss leaves out, if any.
        regularized: whether weights are regularized, so that the loss has additional terms.
        equal_units: names of the layers whose units all have the same incoming weights.
    """

    last_layer: str = ""
    activation: str = ""
    units: int = 0
    loss: str = ""
    from_logits: bool = False
    ignored_class: int | None = None
    regularized: bool = False
    equal_units: tuple[str, ...] = ()

    @property
    def output_range(self) -> tuple[float, float]:
        """Smallest and largest value that the last layer can produce; NaN if unknown."""
        return _RANGES.get(self.activation, (np.nan, np.nan))


class Evidence:
    """The measurements of a history that the rules compare with thresholds.

    Kernels are the weights with two or more axes. Excluded are biases, which have two axes in some
    recurrent and attention layers, embedding tables, whose rows have a gradient only if they
    occur in the batch, and weights that have no gradient in any record. Below, R is the number of
    records and K the number of kernels. A gradient that is missing in a record is NaN.

    Args:
        history: the history.
        facts: facts about the model, if it is at hand.
        targets: the training targets, if they are at hand.
        diverges: whether a NaN or infinity follows after the last record.

    Attributes:
        history: the history.
        facts: facts about the model, or None.
        targets: the training targets, or None.
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
        targets: Any = None,
        *,
        diverges: bool = False,
    ) -> None:
        self.history, self.facts, self.targets = history, facts, targets
        self._diverges = diverges
        known = facts or ModelFacts()
        self._regularized = known.regularized
        self._classes = known.units or max(history.weights[-1].shape[-1:], default=1)
        self._loss_name = known.loss or str(history.metadata.get("loss", ""))
        weights, present = history.weights, history.missing == ""
        self.all_present = present
        self.kernels = [
            i
            for i, w in enumerate(weights)
            if len(w.shape) >= 2
            and w.size
            and not w.name.endswith(("bias", "embeddings"))
            and present[:, i].any()
        ]
        self.layers = tuple(weights[i].layer for i in self.kernels)
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
    def normalized(self) -> bool:
        """Whether the model has normalization layers."""
        return any(weight.name == "gamma" for weight in self.history.weights)

    @cached_property
    def loss(self) -> np.ndarray | None:
        """The loss of each record, (R,); None if it was not recorded."""
        return self.history.logs.get("loss")

    @cached_property
    def fall(self) -> float:
        """The relative fall of the loss, (first − last) / |first|; NaN if unknown.

        First is `first_loss`, last is the smallest loss of the last three records. Fewer than three
        records are too few.
        """
        if self._diverges:
            return -math.inf
        if self.loss is None or len(self.loss) < 3:
            return math.nan
        last = float(np.fmin.reduce(self.loss[2:][-3:]))
        return (self.first_loss - last) / max(abs(self.first_loss), 1e-12)

    @cached_property
    def first_loss(self) -> float:
        """The loss from which a fall is counted; NaN if unknown.

        It is the larger one of the first record, which is a single batch, and the first epoch. A
        cross-entropy counts from that of guessing at most: a fall above that is no progress.
        """
        return math.nan if self.loss is None else min(self._loss_at_start, self._guessing)

    @property
    def starts_worse_than_guessing(self) -> bool:
        """Whether the loss is a cross-entropy that starts above that of guessing."""
        return self.loss is not None and self._loss_at_start > self._guessing

    @cached_property
    def _loss_at_start(self) -> float:
        return math.nan if self.loss is None else float(np.fmax.reduce(self.loss[:2]))

    @cached_property
    def _guessing(self) -> float:
        """Cross-entropy if all classes are predicted as equally likely; infinite otherwise."""
        if self._regularized or not self._loss_name.endswith("crossentropy"):
            return math.inf
        return math.log(2 if self._loss_name.startswith("binary") else max(self._classes, 2))

    @cached_property
    def rises(self) -> np.ndarray:
        """Whether the loss of each record is at least 20 % above the previous one, bool (R,)."""
        if self.loss is None:
            return np.zeros(len(self.epochs), bool)
        before = np.concatenate([self.loss[:1], self.loss[:-1]])
        return self.loss > before + 0.2 * np.abs(before)

    @property
    def fails(self) -> bool:
        """Whether the loss is no better than guessing, or 50 % larger than at the start."""
        if not np.isfinite(self.fall) or self.loss is None:
            return False
        last = np.fmin.reduce(self.loss[2:][-3:])
        return bool(last > 0.98 * self._guessing or last > 1.5 * self._loss_at_start)

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
        return bool(self.loss[1] - self.loss[-1] >= share * abs(self.loss[1]))

    def falls_by(self, share: float) -> bool:
        """Return whether the loss is known to have fallen by at least this share."""
        return bool(self.fall >= share)

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

        Updates that loss scaling skipped do not count.
        """
        bad = self.nonfinite_steps.any(axis=1)
        bad = bad | ~np.isfinite(self.history["weight_l2"]).all(axis=1)
        if self.loss is not None:
            bad = bad | ~np.isfinite(self.loss)
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
    def output_error(self) -> np.ndarray:
        """Approximation of |∂L/∂h| at the last layer's output h, (R,).

        The gradient of the last bias is the mean of the samples' errors, which may cancel. The
        gradient of the last kernel is error times input, and inputs of healthy networks are near 1.
        """
        return np.fmax(self._error_by_bias, self._error_by_kernel)

    @cached_property
    def _error_by_bias(self) -> np.ndarray:
        bias = self.biases[-1] if self.kernels else None
        if bias is None:
            return np.zeros(len(self.epochs))
        return np.where(self.all_present[:, bias], self.history["l2_norm"][:, bias], 0.0)

    @cached_property
    def _error_by_kernel(self) -> np.ndarray:
        return self.gradient[:, -1] / np.sqrt(self.fan_in[-1])

    @cached_property
    def level(self) -> np.ndarray:
        """Each kernel's gradient divided by that of a network that keeps signals at 1, (R, K).

        In such a network, |x| = √fan_in enters a kernel and the error |δ| of the output comes back
        unchanged, so that ‖∂L/∂W‖ = |δ| √fan_in: the recursion of `kgrad.theory.propagate` at its
        critical point. A small last kernel, as in a network that starts as a constant function,
        reduces all other gradients at first; the level corrects for this. It is NaN if the gradient
        is exactly 0, which is a different problem or such a start.
        """
        last = np.minimum(np.sqrt(self.sigma_w2[:, -1:]), 1.0)
        passed = np.where(np.arange(len(self.kernels)) < len(self.kernels) - 1, last, 1.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.gradient == 0, np.nan, self._over(self.output_error) / passed)

    @cached_property
    def level_by_bias(self) -> np.ndarray:
        """The level with the error read from the last bias, which a large signal does not change.

        Equal to `level` without that correction if there is no last bias, or if its gradient
        cancels to less than a hundredth.
        """
        cancels = self._error_by_bias < 1e-2 * np.minimum(self._error_by_kernel, 1.0)
        return self._over(np.where(cancels, self.output_error, self._error_by_bias))

    def _over(self, error: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return self.gradient / (error[:, None] * np.sqrt(self.fan_in))

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
                if bias is not None:
                    size[:, k] = self.gradient[:, k] / l2[:, bias] / np.sqrt(self.fan_in[k])
        return np.where(size < 1e5, size, np.nan)

    @cached_property
    def movement(self) -> np.ndarray:
        """‖ΔW‖ over a record divided by ‖W‖ before it, (R, K); 0 in the first record.

        Any change is large compared with a kernel that starts at or near 0, for example to start as
        the identity. W is therefore taken to have at least σ_w² = 0.02.
        """
        before = np.concatenate([self.weight[:1], self.weight[:-1]])
        with np.errstate(invalid="ignore", over="ignore"):
            return self.update / np.maximum(before, np.sqrt(0.02 * self._sizes / self.fan_in))

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
    def _sizes(self) -> np.ndarray:
        return np.array([self.history.weights[i].size for i in self.kernels], float)

    @cached_property
    def dead(self) -> tuple[tuple[str, ...], np.ndarray, str]:
        """Layers, the dead share of each per record, and what the share was counted in.

        That is "units" with a probe, otherwise "entries" of the gradient if their zeros were
        counted, otherwise "updates".
        """
        activations = self.history.activations
        if "activation_dead" in activations:
            return self.history.outputs, activations["activation_dead"], "units"
        if "zero_fraction" in self.history.statistics:
            # Without the first kernel, because inputs may be sparse.
            share = self.history["zero_fraction"][:, self.kernels[1:]]
            return self.layers[1:], share, "entries"
        share = np.where(self.present, self.gradient == 0, np.nan)
        return self.layers, share, "updates"

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
        # Without the output, which is also flat if its predictions are confident.
        return self.history.outputs[:-1], share[:, :-1]


def _fan_in(weight: Weight) -> int:
    """Return the number of inputs that one unit sums."""
    if "depthwise" in weight.path:
        return math.prod(weight.shape[:-2])
    owner = weight.path.rpartition("/")[0].rpartition("/")[2]
    if len(weight.shape) == 3 and owner in ("query", "key", "value"):
        return weight.shape[0]  # the other axes are heads and their units
    return math.prod(weight.shape[:-1])
