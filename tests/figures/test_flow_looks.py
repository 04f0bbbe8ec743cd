"""Verdicts on the norms of a flow graph."""

import math

import pytest

from kgrad.figures.flow_looks import limit_of, verdict_of


@pytest.mark.parametrize(
    ("norm", "verdict"),
    [
        (0.0101, "above"), (0.01, "below"), (1e-30, "below"), (0.0, "zero"),
        (math.nan, "NaN"), (math.inf, "infinite"), (None, "not measured"),
    ],
)  # fmt: skip
def test_at_the_threshold_is_below_it(norm, verdict):
    assert verdict_of(norm, 0.01) == verdict


def test_a_relative_threshold_is_a_share_of_the_largest_finite_norm():
    assert limit_of([2.0, None, math.nan, math.inf, 50.0], 0.1, True) == 5.0
    assert limit_of([2.0, 50.0], 0.1, False) == 0.1
    assert limit_of([None], 0.1, True) == 0.0
