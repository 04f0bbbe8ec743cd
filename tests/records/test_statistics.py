"""What the rows of statistics declare, with expected numbers computed by hand."""

import numpy as np
import pytest

from kgrad.records.statistics import STATISTICS, GradientStatistic, select

NAN = np.nan


@pytest.mark.parametrize(
    ("name", "totals", "expected"),
    [
        # 4 and 2 entries, and 2 without a gradient; over 5, 1 and 0 updates
        ("mean_abs", [40.0, 6.0, 0.0], [2.0, 3.0, NAN]),
        ("l2_norm", [80.0, 9.0, 0.0], [4.0, 3.0, NAN]),
        ("zero_fraction", [5.0, 2.0, 0.0], [0.25, 1.0, NAN]),
        ("max_abs", [7.0, 0.5, 0.0], [7.0, 0.5, NAN]),
        ("mean_abs", [NAN, np.inf, 0.0], [NAN, np.inf, NAN]),
        ("max_abs", [NAN, np.inf, 0.0], [NAN, np.inf, NAN]),
    ],
)
def test_a_statistic_of_a_gradient_is_over_the_updates_that_had_one(name, totals, expected):
    row = STATISTICS[name]
    assert isinstance(row, GradientStatistic) and row.needs_gradient
    sizes, updates = np.array([4.0, 2.0, 2.0]), np.array([5, 1, 0])
    # Warnings are errors: a weight without a gradient divides nothing by nothing.
    np.testing.assert_array_equal(row.finish(np.array(totals), sizes, updates), expected)


def test_counts_are_whole_numbers_on_a_linear_axis():
    whole = {name for name, row in STATISTICS.items() if row.whole}
    assert whole == {
        "updates",
        "gradients_present",
        "nonfinite_steps",
        "first_nonfinite_step",
        "clipped_steps",
    }
    assert all(STATISTICS[name].linear for name in whole)


def test_updates_and_their_gradients_are_always_recorded():
    assert {STATISTICS[name].recorded for name in ("updates", "gradients_present")} == {"always"}
    # They are counted beside the folds of gradients.
    assert [row.name for row in select(())] == ["mean_abs", "l2_norm"]


@pytest.mark.parametrize("name", ["clipped_steps", "nonfinite_steps", "updates"])
def test_a_count_says_that_it_counts_updates(name):
    assert "updates" in STATISTICS[name].label
    assert STATISTICS[name].definition.startswith("number of updates")
