"""What a figure draws, before any library draws it."""

import numpy as np
import pytest
from figures.static.test_gradients import magnitudes, make_history
from numpy.testing import assert_allclose

from kgrad.figures.scale import INFINITE, NAN, Scale
from kgrad.figures.selection import input_is_above, loss_scale, profiles, range_of


def test_the_median_is_of_logarithms_and_ranks_zero_and_infinity():
    values = np.array(
        [
            [1e-4, 0, 0, np.nan, np.nan, 1e-3],
            [1e-2, 0, 1, np.nan, 0.1, np.inf],
            [1e-6, 1, np.inf, np.nan, 0.3, np.inf],
            [1e-3, 1, np.inf, np.nan, 0.2, np.inf],
        ]
    )
    middle = range_of(values, logarithmic=True)[1]
    assert_allclose(middle, [10**-3.5, 0, np.inf, np.nan, 0.2, np.inf])
    assert_allclose(range_of(values[:3], logarithmic=False)[1, :3], [1e-4, 0, 1])


@pytest.mark.parametrize(
    ("losses", "logarithmic"),
    [([0.9, 0.5], False), ([0.9, 1e-3], True), ([-5.0, 500.0], False), ([0.0, 500.0], False)],
)
def test_losses_are_logarithmic_if_they_span_decades_and_are_positive(losses, logarithmic):
    scale = loss_scale([np.array(losses)])
    assert scale.logarithmic == logarithmic
    assert scale.limits[0] < min(losses) < max(losses) < scale.limits[1]


@pytest.mark.parametrize("loss", [0.0, 0.5, 1e9, -3.0])
def test_a_constant_loss_has_an_axis(loss):
    low, high = loss_scale([np.array([loss, loss])]).limits
    assert low < loss < high
    assert high - low >= 0.1 * abs(loss)


def test_losses_that_are_no_numbers_have_a_scale():
    scale = loss_scale([np.array([np.nan, np.inf])])
    assert scale.special == (INFINITE, NAN)
    assert np.isfinite(scale.limits).all()


@pytest.mark.parametrize("layers", [1, 2, 3, 12])
def test_the_side_of_the_input_is_that_of_its_lines(layers):
    rising = 10.0 ** np.arange(layers) * np.ones((4, 1))
    rising[0] = [np.nan, 0.0, np.inf, 1.0, *[1.0] * 8][:layers]
    scale = Scale.of("mean_abs", [rising])
    assert input_is_above(rising, scale) == (layers == 1)
    assert input_is_above(rising[:, ::-1], scale)


def test_the_side_of_the_input_is_known_without_a_finite_value():
    values = np.full((3, 4), np.nan)
    assert input_is_above(values, Scale.of("mean_abs", [values]))


def test_a_moment_is_the_last_record_of_its_epoch_in_every_run():
    first, second = magnitudes(4, 2), magnitudes(3, 2, seed=1)
    groups = {
        "a": [make_history(first, epochs=[0, 1, 1, 2])],
        "b": [make_history(second, epochs=[0, 1, 2])],
    }
    panels = profiles(groups, "mean_abs", [1])
    assert {name: [one.label for one in some] for name, (_, some) in panels.items()} == {
        "a": ["epoch 1"],
        "b": ["epoch 1"],
    }
    assert_allclose(panels["a"][1][0].values, first[[2]])
    assert_allclose(panels["b"][1][0].values, second[[1]])
