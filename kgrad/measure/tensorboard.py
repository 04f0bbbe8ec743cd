"""The last record of a history as a few numbers, for Keras's logs and for TensorBoard."""

from typing import TYPE_CHECKING

import numpy as np

from kgrad.records.distributions import unpack_counts
from kgrad.records.history import GradientHistory

if TYPE_CHECKING:
    from kgrad.measure.event_files import TensorBoardWriter


def tracker_logs(
    history: GradientHistory, prefix: str, *, layers: bool = False
) -> dict[str, float]:
    """Summarize the gradients of the last record.

    Args:
        history: a history with at least one record.
        prefix: the first part of each name, such as `"grad"`.
        layers: whether to add the mean |g| of each layer.

    Returns:
        `<prefix>/l2_norm`: norm of the gradient of all watched weights, taken as one vector;
        `<prefix>/first_to_last`: mean |g| of the first layer divided by that of the last;
        `<prefix>/update_ratio`: norm of the change of the weights divided by that of the weights;
        `<prefix>/nonfinite_steps`: steps with NaN or infinity, in the layer that had most;
        `<prefix>/clipped_l2` and `<prefix>/clipped_steps`, likewise, if clipping is measured;
        `<prefix>/mean_abs/<layer>` if `layers` is true.
    """
    record = _last_record(history)

    def whole(statistic: str) -> float:
        return float(np.hypot.reduce(record[statistic][0]))

    mean_abs = record.by_layer("mean_abs")[0]
    with np.errstate(divide="ignore", invalid="ignore"):  # 0/0 is NaN: the ratio is unknown
        numbers = {
            "l2_norm": whole("l2_norm"),
            "first_to_last": float(mean_abs[0] / mean_abs[-1]),
            "update_ratio": float(np.divide(whole("update_l2"), whole("weight_l2"))),
            "nonfinite_steps": float(record.by_layer("nonfinite_steps").max()),
        }
    if "clipped_l2" in record.statistics:
        numbers["clipped_l2"] = whole("clipped_l2")
        numbers["clipped_steps"] = float(record.by_layer("clipped_steps").max())
    if layers:
        by_layer = zip(record.layers, mean_abs, strict=True)
        numbers |= {f"mean_abs/{layer}": float(value) for layer, value in by_layer}
    return {f"{prefix}/{name}": value for name, value in numbers.items()}


def write_last_record(
    history: GradientHistory, writer: "TensorBoardWriter", time: int, prefix: str
) -> None:
    """Write the last record for TensorBoard: the numbers of `tracker_logs` and the distributions.

    A histogram of logarithms cannot show zeros, NaN and infinity: their shares among the counted
    entries are written as scalars.
    """
    writer.scalars(time, tracker_logs(history, prefix, layers=True))
    packed = history.record(-1)["distributions"]
    if packed:
        counts = dict(zip((w.path for w in history.weights), unpack_counts(packed), strict=True))
        tags = {f"{prefix}/log10_abs/{path}": bins for path, bins in counts.items()}
        writer.exponent_histograms(time, tags)
        shares = {}
        for path, bins in counts.items():
            total = max(int(bins.sum()), 1)
            shares[f"{prefix}/zero_share/{path}"] = bins[0] / total
            shares[f"{prefix}/nonfinite_share/{path}"] = bins[-1] / total
        writer.scalars(time, shares)


def _last_record(history: GradientHistory) -> GradientHistory:
    """Return a history of the last record alone, so that the cost does not grow with the run."""
    alone = GradientHistory(history.weights, history.statistics)
    record = history.record(-1)
    parts = ("epoch", "step", "values", "logs", "layer_values")
    alone.append(**{part: record[part] for part in parts})
    return alone
