"""Verdicts on the norms of a flow graph."""

import math

import pytest

from kgrad.figures.flow_looks import limit_of, text_of, verdict_of


@pytest.mark.parametrize(
    ("norm", "verdict"),
    [
        (0.0101, "above"), (0.01, "below"), (1e-30, "below"), (0.0, "zero"),
        (math.nan, "NaN"), (math.inf, "infinite"), (None, "not measured"),
    ],
)  # fmt: skip
def test_at_the_threshold_is_below_it(norm, verdict):
    assert verdict_of(norm, 0.01) == verdict


@pytest.mark.parametrize(
    ("norm", "text"),
    [
        (0.31, "0.31"), (2.0, "2"), (280.4, "280"), (4710, "4700"), (12345, "1.2e4"),
        (9999, "1e4"), (99.6, "100"), (0.000284, "0.00028"), (6.4e-6, "6.4e-6"), (1e-300, "1e-300"),
    ],
)  # fmt: skip
def test_a_norm_has_two_digits(norm, text):
    assert text_of(norm) == text


def test_a_relative_threshold_is_a_share_of_the_largest_finite_norm():
    assert limit_of([2.0, None, math.nan, math.inf, 50.0], 0.1, True) == 5.0
    assert limit_of([2.0, 50.0], 0.1, False) == 0.1
    assert limit_of([None], 0.1, True) == 0.0
