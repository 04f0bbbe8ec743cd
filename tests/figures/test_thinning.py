"""What is shown if there is no room for everything."""

import numpy as np
import pytest
from figures.static.test_gradients import magnitudes
from numpy.testing import assert_allclose, assert_array_equal

from kgrad.figures.scale import Scale
from kgrad.figures.thinning import (
    Columns,
    evenly_spaced,
    notable_records,
    sampled_cells,
    well_apart,
)


@pytest.mark.parametrize("count", [1, 2, 5, 12, 13, 20, 100, 200])
@pytest.mark.parametrize("most", [2, 5, 12])
def test_evenly_spaced_indices_keep_the_ends_and_the_order(count, most):
    indices = evenly_spaced(count, most)
    assert indices[0] == 0 or count == 1
    assert indices[-1] == count - 1
    assert (np.diff(indices) > 0).all()
    assert len(indices) <= most + 1


@pytest.mark.parametrize(
    ("places", "least", "kept"),
    [
        ([], 1.0, []),
        ([3.0], 1.0, [0]),
        ([3.0, 3.1], 1.0, [0, 1]),
        ([0, 1, 2, 3, 4, 5, 6], 2.0, [0, 2, 4, 6]),
        ([0, 1, 2, 3, 4, 5], 2.0, [0, 2, 5]),
        ([0, 10, 20], 2.0, [0, 1, 2]),
        ([0, 1, 2], 0.0, [0, 1, 2]),
    ],
)
def test_marks_along_an_axis_do_not_overlap_and_keep_the_ends(places, least, kept):
    assert well_apart(np.array(places, float), least) == kept


def test_markers_of_a_heatmap_are_few_and_near_every_special_cell():
    found = np.random.default_rng(0).random((200, 1000)) < 0.3
    rows, columns = sampled_cells(found, 12)
    assert len(rows) <= 12 * 13
    assert found[rows, columns].all()


def test_thinning_keeps_the_extremes_of_every_bin(random) -> None:
    """The bins are cut here by hand: 1,000 records in 50 pairs of columns, 20 records each."""
    values = 10 ** random.normal(-4, 2, (1000, 5))
    scale = Scale.of("mean_abs", [values])
    columns = Columns.of(values, np.arange(1000), scale, 100)
    assert columns.values.shape == (100, 5)
    pairs, bins = columns.values.reshape(50, 2, 5), values.reshape(50, 20, 5)
    assert_array_equal(pairs.min(axis=1), bins.min(axis=1))
    assert_array_equal(pairs.max(axis=1), bins.max(axis=1))
    in_order = bins.argmin(axis=1) < bins.argmax(axis=1)
    assert_array_equal(pairs[:, 0] < pairs[:, 1], in_order)
    assert_allclose(columns.edges, np.arange(-0.5, 1000, 10))


def test_thinning_keeps_a_single_nan_and_the_values_around_it() -> None:
    values = np.full((1000, 2), 1e-3)
    values[500, 1] = 1e3
    values[503, 1] = np.nan
    values[504, 1] = 0
    columns = Columns.of(values, np.arange(1000), Scale.of("mean_abs", [values]), 100)
    where = {special.name: np.argwhere(found).tolist() for special, found in columns.found.items()}
    assert where == {"0 (exactly)": [[50, 1]], "NaN": [[50, 1]]}
    assert columns.edges[50] < 503 < columns.edges[51]
    assert np.nanmax(columns.values[:, 1]) == 1e3
    assert np.isfinite(columns.values).all()


def test_what_fits_is_not_thinned() -> None:
    values = magnitudes(100, 2)
    columns = Columns.of(values, np.arange(100), Scale.of("mean_abs", [values]), 100)
    assert_array_equal(columns.values, values)
    assert_array_equal(columns.centers, np.arange(100))


@pytest.mark.parametrize(("records", "most"), [(7, 6), (1001, 400), (401, 400), (150, 100)])
def test_thinned_columns_cover_the_whole_time_once(records, most, random) -> None:
    values = 10 ** random.normal(0, 1, (records, 3))
    times = np.arange(records)
    columns = Columns.of(values, times, Scale.of("mean_abs", [values]), most)
    assert len(columns.values) == len(columns.centers) == len(columns.edges) - 1 <= most
    assert (np.diff(columns.edges) > 0).all()
    assert (columns.edges[0], columns.edges[-1]) == (-0.5, records - 0.5)
    assert_array_equal(np.nanmin(columns.values, axis=0), values.min(axis=0))
    assert_array_equal(np.nanmax(columns.values, axis=0), values.max(axis=0))


def test_notable_records_are_the_extremes_of_every_part_and_the_first_special_values(random):
    values = 10 ** (random.normal(0, 0.1, (1000, 6)) + np.linspace(-6, 0, 6))
    values[123, 2] *= 1e3
    values[456, 4] /= 1e3
    values[301, 1], values[500, 0], values[700:, 3], values[620:650, 5] = 0, np.inf, np.nan, -1
    kept = notable_records(values, 50)
    assert len(kept) <= 50
    assert (np.diff(kept) > 0).all()
    assert {0, 123, 301, 456, 500, 700, 999} <= set(kept.tolist())
    assert np.diff(kept).max() <= 2 * 1000 / 22


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -1.0, 1.0])
def test_records_that_are_all_alike_are_thinned(value):
    kept = notable_records(np.full((100, 3), value), 10)
    assert 2 <= len(kept) <= 10
    assert {0, 99} <= set(kept.tolist())


def test_records_that_fit_are_all_notable():
    assert_array_equal(notable_records(np.ones((7, 2)), 7), np.arange(7))
