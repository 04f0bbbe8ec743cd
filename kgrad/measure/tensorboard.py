"""The last record of a history as a few numbers, for Keras's logs and for TensorBoard."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from kgrad.records.distributions import unpack_counts
from kgrad.records.history import GradientHistory

if TYPE_CHECKING:
    from kgrad.measure.event_files import TensorBoardWriter


def tracker_logs(
    history: GradientHistory, prefix: str, *, layers: bool = False
) -> dict[str, float]:
    """Summarize the gradients of the last record.

    Weights without a gradient in the record are left out; a number of gradients is NaN if no weight
    had one.

    Args:
        history: a history with at least one record.
        prefix: the first part of each name, such as `"grad"`.
        layers: whether to add the mean |g| of each layer.

    Returns:
        `<prefix>/l2_norm`: norm of the gradient of all watched weights, taken as one vector;
        `<prefix>/first_to_last`: mean |g| of the first layer divided by that of the last, of the
        layers with a gradient;
        `<prefix>/update_ratio`: norm of the change of the weights divided by that of the weights;
        `<prefix>/nonfinite_steps`: updates with NaN or infinity, in the layer that had most;
        `<prefix>/clipped_l2` and `<prefix>/clipped_steps`, likewise, if clipping is measured;
        `<prefix>/mean_abs/<layer>` of each layer with a gradient, if `layers` is true.
    """
    record = _last_record(history)
    present = record.missing[0] == ""

    def whole(statistic: str, of: Any = slice(None)) -> float:
        values = record[statistic][0, of]
        return float(np.hypot.reduce(values)) if len(values) else math.nan

    shown = record.missing_by_layer[0] == ""
    by_layer = dict(
        zip(np.array(record.layers)[shown], record.by_layer("mean_abs")[0, shown], strict=True)
    )
    mean_abs = np.array([*by_layer.values()] or [np.nan])
    with np.errstate(divide="ignore", invalid="ignore"):  # 0/0 is NaN: the ratio is unknown
        numbers = {
            "l2_norm": whole("l2_norm", present),
            "first_to_last": float(mean_abs[0] / mean_abs[-1]),
            "update_ratio": float(np.divide(whole("update_l2"), whole("weight_l2"))),
            "nonfinite_steps": float(record.by_layer("nonfinite_steps").max()),
        }
    if "clipped_l2" in record.statistics:
        numbers["clipped_l2"] = whole("clipped_l2", present)
        numbers["clipped_steps"] = float(record.by_layer("clipped_steps").max())
    if layers:
        numbers |= {f"mean_abs/{layer}": float(value) for layer, value in by_layer.items()}
    return {f"{prefix}/{name}": value for name, value in numbers.items()}


def write_last_record(
    history: GradientHistory, writer: "TensorBoardWriter", time: int, prefix: str
) -> None:
    """Write the last record for TensorBoard: the numbers of `tracker_logs` and the distributions.

    A histogram of logarithms cannot show zeros, NaN and infinity: their shares among the counted
    entries are written as scalars. A weight without a gradient has neither.
    """
    writer.scalars(time, tracker_logs(history, prefix, layers=True))
    packed = history.record(-1)["distributions"]
    if packed:
        by_weight = zip(history.weights, unpack_counts(packed), strict=True)
        counts = {weight.path: bins for weight, bins in by_weight if bins.any()}
        tags = {f"{prefix}/log10_abs/{path}": bins for path, bins in counts.items()}
        writer.exponent_histograms(time, tags)
        shares = {}
        for path, bins in counts.items():
            shares[f"{prefix}/zero_share/{path}"] = bins[0] / bins.sum()
            shares[f"{prefix}/nonfinite_share/{path}"] = bins[-1] / bins.sum()
        writer.scalars(time, shares)


def _last_record(history: GradientHistory) -> GradientHistory:
    """Return a history of the last record alone, so that the cost does not grow with the run."""
    alone = GradientHistory(history.weights, history.statistics)
    record = history.record(-1)
    parts = ("epoch", "step", "values", "logs", "layer_values")
    alone.append(**{part: record[part] for part in parts})
    return alone
