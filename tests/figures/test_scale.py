"""The scale of an axis and of a color ramp."""

import numpy as np
import pytest

from kgrad.figures.scale import Scale


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.01, 1, ["0.01", "0.1", "1"]),
        (2e-7, 3e-5, ["$3·10^{-7}$", "$10^{-6}$", "$3·10^{-6}$", "$10^{-5}$", "$3·10^{-5}$"]),
        (1e-12, 1, [f"$10^{{{k}}}$" for k in (-12, -10, -8, -6, -4, -2, 0)]),
    ],
)
def test_tick_labels(low, high, labels):
    scale = Scale.of("mean_abs", [np.array([low, high])])
    assert [scale.tick_label(tick) for tick in scale.ticks()] == labels


def test_nearly_equal_values_are_not_blown_up():
    low, high = Scale.of("mean_abs", [np.array([0.1, 0.1001])]).limits
    assert high / low >= 10


def test_a_few_values_stranded_far_away_do_not_squash_the_scale():
    values = np.geomspace(1e-6, 1e-2, 300).reshape(100, 3)
    values[50, 1] = 1e31
    scale = Scale.of("mean_abs", [values])
    assert scale.high == pytest.approx(1e-2)
    assert scale.extend == "max"
    few_decades_away = values.copy()
    few_decades_away[50, 1] = 1e3
    assert Scale.of("mean_abs", [few_decades_away]).high == pytest.approx(1e3)
    assert Scale.of("mean_abs", [few_decades_away]).extend == "neither"
