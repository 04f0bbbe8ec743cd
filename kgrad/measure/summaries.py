"""The last record in a few numbers, as Keras's logs and TensorBoard get them."""

import numpy as np

from kgrad.measure.backends.tensorflow.event_files import TensorBoardWriter
from kgrad.records.distributions import unpack_counts
from kgrad.records.history import GradientHistory


def summarize(history: GradientHistory, prefix: str, *, layers: bool = False) -> dict[str, float]:
    """Numbers that say at a glance how the gradients were in the last record.

    Args:
        history: a history with a record.
        prefix: what the names begin with, such as `"grad"`.
        layers: whether to add each layer's mean |g|.

    Returns:
        `<prefix>/l2_norm`, that of all the watched weights taken as one vector;
        `<prefix>/first_to_last`, mean |g| of the first layer over that of the last;
        `<prefix>/update_ratio`, the norm of the weights' change over that of the weights;
        `<prefix>/nonfinite_steps`, the steps with a NaN or an infinity in the layer that had most;
        where clipping is measured, `<prefix>/clipped_l2` and `<prefix>/clipped_steps` likewise; and
        `<prefix>/mean_abs/<layer>`.
    """
    record = _last_record(history)

    def whole(statistic: str) -> float:
        return float(np.hypot.reduce(record[statistic][0]))

    mean_abs = record.by_layer("mean_abs")[0]
    with np.errstate(divide="ignore", invalid="ignore"):  # of 0 to 0 there is no ratio: NaN
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


def write_last(history: GradientHistory, writer: TensorBoardWriter, time: int, prefix: str) -> None:
    """Write the last record for TensorBoard: what `summarize` says, and the distributions.

    A histogram of logarithms has no place for zeros and what is not a number: their shares among
    the counted entries are scalars.
    """
    writer.scalars(time, summarize(history, prefix, layers=True))
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
    """The last record as a history of its own, so that the cost does not grow with the run."""
    alone = GradientHistory(history.weights, history.statistics)
    record = history.record(-1)
    parts = ("epoch", "step", "values", "logs", "layer_values")
    alone.append(**{part: record[part] for part in parts})
    return alone
