"""The interactive figure of distributions, by reading its traces back."""

import numpy as np
from figures.interactive.test_gradients import main_heatmaps, with_distributions
from numpy.testing import assert_allclose

from kgrad.figures.interactive import plot_distributions


def test_distributions_hold_the_shares_of_entries_by_magnitude() -> None:
    history, _ = with_distributions(4, 2)
    figure = plot_distributions(history)
    first, _second = main_heatmaps(figure)
    assert_allclose(np.nansum(first.z, axis=0), 1)  # of the entries that are finite and above 0
    # Bin 112 is that of |g| from 2^-15 to 2^-14; record 0 has 28 of 70 there, record 2 has 42.
    row = int(np.flatnonzero(np.isclose(first.y, -15 * np.log10(2)))[0])
    assert_allclose(first.z[row], [0.4, np.nan, 0.6, np.nan])
    zeros = [t for t in figure.data if t.type == "bar" and t.name.startswith("zeros")]
    assert_allclose(zeros[0].customdata, 0.2)
    nonfinite = [t for t in figure.data if t.type == "bar" and t.name.startswith("NaN")]
    assert_allclose(nonfinite[1].customdata, 0.1)
    assert [n.text for n in figure.layout.annotations] == ["<b>d0</b>", "<b>d1</b>"]


def test_distributions_of_many_records_are_added_up() -> None:
    figure = plot_distributions(with_distributions(1000, 1)[0])
    (cells,) = main_heatmaps(figure)
    assert cells.z.shape[1] <= 120
    assert_allclose(np.nansum(cells.z, axis=0), 1)


def test_distributions_of_many_layers_are_drawn_over_depth() -> None:
    figure = plot_distributions(with_distributions(9, 13)[0])
    assert {cells.z.shape[1] for cells in main_heatmaps(figure)} == {13}
    assert figure.layout.annotations[0].text == "<b>epoch 0</b>"


def test_distributions_of_chosen_epochs_and_layers_are_drawn_over_depth() -> None:
    history, _ = with_distributions(6, 3)
    figure = plot_distributions(history, epochs=[4, 1], layers=["d2", "d0"])
    assert [n.text for n in figure.layout.annotations] == ["<b>epoch 4</b>", "<b>epoch 1</b>"]
    first, _second = main_heatmaps(figure)
    assert first.z.shape[1] == 2
    assert figure.layout.xaxis.ticktext == ("d0", "d2")
    # At epoch 4 the bins are 114 and 116: |g| from 2^-13 and from 2^-11.
    row = int(np.flatnonzero(np.isclose(first.y, -13 * np.log10(2)))[0])
    assert_allclose(first.z[row], 0.6)
