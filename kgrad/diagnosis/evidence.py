"""What the rules look at: a history's numbers, brought to scales on which networks compare.

A gradient of 1e-7 says nothing by itself: it is what a loss, a width and a depth make of it. Rules
therefore see a kernel's gradient against the one that a healthy network of the same shape would
have, and its change against its own size.
"""

import math
from functools import cached_property

import numpy as np

from kgrad.records.history import GradientHistory, Weight


class Evidence:
    """The measurements of a history that rules compare with thresholds.

    Kernels are the weights of two axes and more, without biases, which have two in some recurrent
    and attention layers, and without the tables of embeddings: a row of those has a gradient only
    where it occurs. R records, K kernels.

    Args:
        history: the history.
        loss_name: of the loss, if its metadata do not tell.
        classes: units of the model's output; 0 for those of the last weight.
        regularized: whether the loss is more than that of the outputs.
        diverges: whether a NaN or an infinity follows on the last record.

    Attributes:
        history: the history.
        kernels: the places of the kernels among the history's weights.
        layers: the layer of each kernel, (K,).
        fan_in: number of inputs of a unit of each kernel, (K,).
        gradient: `l2_norm` of each kernel, (R, K).
        weight, update: `weight_l2` and `update_l2` of each kernel, (R, K).
        epochs: of the records, (R,).
        steps: training steps in each record, (R,); 1 for a record before training.
    """

    def __init__(
        self,
        history: GradientHistory,
        loss_name: str = "",
        classes: int = 0,
        *,
        regularized: bool = False,
        diverges: bool = False,
    ) -> None:
        self.history, self._diverges, self._regularized = history, diverges, regularized
        self._classes = classes or max(history.weights[-1].shape[-1:], default=1)
        self._loss_name = loss_name or str(history.metadata.get("loss", ""))
        weights = history.weights
        self.kernels = [
            i
            for i, w in enumerate(weights)
            if len(w.shape) >= 2 and w.size and not w.name.endswith(("bias", "embeddings"))
        ]
        self.layers = tuple(weights[i].layer for i in self.kernels)
        self.fan_in = np.array([_fan_in(weights[i]) for i in self.kernels], float)
        self.gradient = history["l2_norm"][:, self.kernels]
        self.weight = history["weight_l2"][:, self.kernels]
        self.update = history["update_l2"][:, self.kernels]
        self.epochs = history.epochs
        self.steps = np.maximum(np.diff(history.steps, prepend=0), 1)

    @property
    def normalized(self) -> bool:
        """Whether the model has normalization layers."""
        return any(weight.name == "gamma" for weight in self.history.weights)

    @cached_property
    def loss(self) -> np.ndarray | None:
        """The loss of each record, (R,), if it was recorded."""
        return self.history.logs.get("loss")

    @cached_property
    def fall(self) -> float:
        """By what share of its first value the loss has fallen; NaN if that is not known.

        First is the larger one of the first record, of a single batch, and the first epoch; last
        the least of the last three. Below two epochs nothing can be said. A cross-entropy falls
        from that of guessing at most: what it loses above that was lost before.
        """
        if self._diverges:
            return -math.inf
        if self.loss is None or len(self.loss) < 3:
            return math.nan
        first = min(float(np.fmax.reduce(self.loss[:2])), self._guessing)
        last = float(np.fmin.reduce(self.loss[2:][-3:]))
        return (first - last) / max(abs(first), 1e-12)

    @cached_property
    def _guessing(self) -> float:
        """Cross-entropy of the answer that all classes are equally likely; else infinite."""
        if self._regularized or not self._loss_name.endswith("crossentropy"):
            return math.inf
        return math.log(2 if self._loss_name.startswith("binary") else max(self._classes, 2))

    @cached_property
    def rises(self) -> np.ndarray:
        """Whether the loss of each record is a fifth above the one before it, bool (R,)."""
        if self.loss is None:
            return np.zeros(len(self.epochs), bool)
        before = np.concatenate([self.loss[:1], self.loss[:-1]])
        return self.loss > before + 0.2 * np.abs(before)

    @property
    def fails(self) -> bool:
        """Whether the loss is no better than guessing, or half as large again as it began."""
        if not np.isfinite(self.fall) or self.loss is None:
            return False
        last = np.fmin.reduce(self.loss[2:][-3:])
        return bool(last > 0.98 * self._guessing or last > 1.5 * np.fmax.reduce(self.loss[:2]))

    @cached_property
    def begins_trained(self) -> bool:
        """Whether the weights were trained before: most biases are not 0, as they begin.

        Biases of recurrent layers do not count: that of an LSTM's forget gate begins at 1.
        """
        weights = self.history.weights
        recurrent = {w.layer for w in weights if w.name == "recurrent_kernel"}
        biases = [b for b in self.biases if b is not None and weights[b].layer not in recurrent]
        at_first = self.history["weight_l2"][0, biases]
        # Below that is what a first record leaves that was made after the first steps.
        moved = np.nansum(self.history["update_l2"][:2, biases], axis=0)
        return bool(len(biases) and (at_first > 10 * moved).mean() > 0.5)

    def falls_from_first_epoch_by(self, share: float) -> bool:
        """Whether the loss has fallen by that share since the first epoch."""
        if self.loss is None or len(self.loss) < 3:
            return False
        return bool(self.loss[1] - self.loss[-1] >= share * abs(self.loss[1]))

    def falls_by(self, share: float) -> bool:
        """Whether the loss is known to have fallen by that share."""
        return bool(self.fall >= share)

    def falls_less(self, share: float) -> bool:
        """Whether the loss is known to have fallen by less than that share."""
        return bool(self.fall < share)

    @cached_property
    def nonfinite_steps(self) -> np.ndarray:
        """Steps of each record with a NaN or infinity, (R, layers), without skipped ones."""
        steps = self.history.by_layer("nonfinite_steps")
        # Skipping steps is how a loss scale finds its size.
        skipped = self.history.logs.get("skipped_steps", np.zeros(len(steps)))
        return np.maximum(steps - np.nan_to_num(skipped)[:, None], 0)

    @cached_property
    def biases(self) -> list[int | None]:
        """The place of the bias beside each kernel among the history's weights."""
        places = {w.path: i for i, w in enumerate(self.history.weights)}
        found = []
        for k in self.kernels:
            path = self.history.weights[k].path
            found.append(places.get(path.removesuffix("kernel") + "bias"))
        return found

    @cached_property
    def output_error(self) -> np.ndarray:
        """About |∂L/∂h| at the last layer's output h, (R,).

        The gradient of its bias is the mean of the samples' errors, which may cancel; the gradient
        of its kernel is error times input, and inputs of healthy networks are about 1.
        """
        return np.fmax(self._error_by_bias, self._error_by_kernel)

    @cached_property
    def _error_by_bias(self) -> np.ndarray:
        bias = self.biases[-1] if self.kernels else None
        if bias is None:
            return np.zeros(len(self.epochs))
        return self.history["l2_norm"][:, bias]

    @cached_property
    def _error_by_kernel(self) -> np.ndarray:
        return self.gradient[:, -1] / np.sqrt(self.fan_in[-1])

    @cached_property
    def level(self) -> np.ndarray:
        """Each kernel's gradient over that of a network that keeps signals at 1, (R, K).

        There |x| = √fan_in comes in and the error |δ| of the output comes back unchanged, so that
        ‖∂L/∂W‖ = |δ| √fan_in: the recursion of `kgrad.theory.propagate` at its critical point. What
        a small last kernel holds back for a start, as of a network that begins as a constant, is
        not counted. NaN where the gradient is exactly 0: that is another disease, or such a start.
        """
        last = np.minimum(np.sqrt(self.sigma_w2[:, -1:]), 1.0)
        passed = np.where(np.arange(len(self.kernels)) < len(self.kernels) - 1, last, 1.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.gradient == 0, np.nan, self._over(self.output_error) / passed)

    @cached_property
    def level_by_bias(self) -> np.ndarray:
        """The same with the error taken from the last bias, which a large signal leaves as it is.

        Where there is no last bias, or its gradient cancels to less than a hundredth, `level`.
        """
        cancels = self._error_by_bias < 1e-2 * np.minimum(self._error_by_kernel, 1.0)
        return self._over(np.where(cancels, self.output_error, self._error_by_bias))

    def _over(self, error: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return self.gradient / (error[:, None] * np.sqrt(self.fan_in))

    @cached_property
    def input_size(self) -> np.ndarray:
        """About |x|/√fan_in of what comes into each kernel, (R, K); NaN where there is no bias.

        The gradient of the bias is the sum of the errors, that of the kernel of error times input.
        NaN, too, where the gradient of the bias is 0 but for rounding, as before normalization.
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
        """‖ΔW‖ over a record by ‖W‖ before it, (R, K); 0 in the first.

        Against what starts at 0 or, to begin as the identity, near it any change is large: W is
        taken to be at least of σ_w² = 0.02 then.
        """
        before = np.concatenate([self.weight[:1], self.weight[:-1]])
        sizes = np.array([self.history.weights[i].size for i in self.kernels], float)
        with np.errstate(invalid="ignore", over="ignore"):
            return self.update / np.maximum(before, np.sqrt(0.02 * sizes / self.fan_in))

    @cached_property
    def bias_size(self) -> np.ndarray:
        """Root mean square of the bias beside each kernel, (R, K); 0 where there is none."""
        size = np.zeros_like(self.weight)
        l2 = self.history["weight_l2"]
        for k, bias in enumerate(self.biases):
            if bias is not None:
                size[:, k] = l2[:, bias] / math.sqrt(self.history.weights[bias].size)
        return size

    @cached_property
    def sigma_w2(self) -> np.ndarray:
        """Fan-in times the mean square of a kernel's entries, (R, K): σ_w² of mean-field theory."""
        sizes = np.array([self.history.weights[i].size for i in self.kernels], float)
        return self.weight**2 / sizes * self.fan_in

    @cached_property
    def dead(self) -> tuple[tuple[str, ...], np.ndarray, str]:
        """Layers, for each record the share of each that is dead, and what that share is of."""
        activations = self.history.activations
        if "activation_dead" in activations:
            share = activations["activation_dead"]
            return self.history.outputs, share, "share of units that are 0 on the whole probe"
        if "zero_fraction" in self.history.statistics:
            # Not of the first: inputs may be sparse.
            share = self.history["zero_fraction"][:, self.kernels[1:]]
            return self.layers[1:], share, "share of the gradient's entries that are exactly 0"
        return self.layers, (self.gradient == 0).astype(float), "share of steps without a gradient"

    @cached_property
    def saturated(self) -> tuple[tuple[str, ...], np.ndarray] | None:
        """Layers, and the share of each that is saturated but not 0; None without a probe.

        What is 0 for one sample and not for another is how a ReLU works.
        """
        activations = self.history.activations
        if "activation_saturated" not in activations:
            return None
        share = activations["activation_saturated"] - activations["activation_zero_fraction"]
        # An output that is sure of its answers is flat too.
        return self.history.outputs[:-1], share[:, :-1]


def _fan_in(weight: Weight) -> int:
    """Number of inputs that a unit adds up."""
    if "depthwise" in weight.path:
        return math.prod(weight.shape[:-2])
    owner = weight.path.rpartition("/")[0].rpartition("/")[2]
    if len(weight.shape) == 3 and owner in ("query", "key", "value"):
        return weight.shape[0]  # the others are heads and their units
    return math.prod(weight.shape[:-1])
