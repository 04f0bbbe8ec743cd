"""The numbers of the last record that Keras's logs and TensorBoard receive, by hand."""

import math

import numpy as np
import pytest

from kgrad.measure.tensorboard import tracker_logs, write_last_record
from kgrad.records.history import GradientHistory, Weight

NAMES = (
    "mean_abs", "l2_norm", "nonfinite_steps", "weight_l2", "update_l2", "clipped_l2",
    "clipped_steps", "updates", "gradients_present",
)  # fmt: skip
NAN = math.nan


def made(gradient, updates, present):
    """Return one record of three layers; layer b has a bias as the third of four weights."""
    paths = ("a/kernel", "b/kernel", "b/bias", "c/kernel")
    weights = [Weight(p[0], p[2:], p, (2, 2) if p.endswith("kernel") else (2,)) for p in paths]
    history = GradientHistory(weights, NAMES)
    rows = [gradient, gradient, [0] * 4, [6, 8, 0, 0], [3, 4, 0, 0], gradient, [2] * 4]
    bins = np.zeros((4, 256), int)
    bins[np.array(present) > 0, [0]] = 3
    bins[np.array(present) > 0, [100]] = 1
    values = dict(zip(NAMES, [*rows, updates, present], strict=True))
    history.append(1, 10, values, distributions=bins)
    return history


def test_weights_without_a_gradient_are_left_out():
    history = made([NAN, 3.0, NAN, 4.0], [0, 5, 5, 5], [0, 5, 0, 5])
    assert tracker_logs(history, "grad", layers=True) == pytest.approx(
        {
            "grad/l2_norm": 5.0,
            "grad/first_to_last": 0.75,  # of b and c
            "grad/update_ratio": 0.5,
            "grad/nonfinite_steps": 0.0,
            "grad/clipped_l2": 5.0,
            "grad/clipped_steps": 2.0,
            "grad/mean_abs/b": 3.0,
            "grad/mean_abs/c": 4.0,
        }
    )


def test_a_nan_that_was_measured_is_told():
    logs = tracker_logs(made([NAN, 3.0, NAN, 4.0], [5] * 4, [5, 5, 0, 5]), "grad")
    assert math.isnan(logs["grad/l2_norm"]) and math.isnan(logs["grad/first_to_last"])
    assert logs["grad/update_ratio"] == 0.5


def test_without_any_gradient_numbers_of_gradients_are_nan():
    logs = tracker_logs(made([NAN] * 4, [5] * 4, [0] * 4), "grad", layers=True)
    unknown = {name for name, value in logs.items() if math.isnan(value)}
    assert unknown == {"grad/l2_norm", "grad/first_to_last", "grad/clipped_l2"}
    assert not [name for name in logs if name.startswith("grad/mean_abs")]


class Writer:
    """Keeps what it is given."""

    def __init__(self):
        self.tags = {}

    def scalars(self, time, numbers):
        self.tags |= numbers

    def exponent_histograms(self, time, counts):
        self.tags |= counts


def test_tensorboard_receives_no_distribution_of_a_missing_gradient():
    writer = Writer()
    write_last_record(made([NAN, 3.0, NAN, 4.0], [0, 5, 5, 5], [0, 5, 0, 5]), writer, 1, "grad")
    shown = {tag for tag in writer.tags if "/log10_abs/" in tag or "_share/" in tag}
    assert shown == {
        f"grad/{kind}/{path}"
        for kind in ("log10_abs", "zero_share", "nonfinite_share")
        for path in ("b/kernel", "c/kernel")
    }
    assert writer.tags["grad/zero_share/b/kernel"] == 0.75
