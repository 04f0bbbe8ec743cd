"""Depths and χ_1 over the plane, compared with published numbers, closed forms and sums."""

import numpy as np
import pytest

from kgrad.theory import activation
from kgrad.theory.depths import depth_table, phase_plane, trainable_depths

TANH, RELU, SIGMOID = (activation(name) for name in ("tanh", "relu", "sigmoid"))


def iterated(f, df, sigma_w2, sigma_b2, steps=3000):
    """Return q*, starting from q = 1, and χ_1 there, by the recursion and a sum over z."""
    z = np.linspace(-10, 10, 4001)
    p = np.exp(-(z**2) / 2)
    p /= p.sum()
    q = 1.0
    for _ in range(steps):
        q = sigma_w2 * p @ f(np.sqrt(q) * z) ** 2 + sigma_b2
    return q, sigma_w2 * p @ df(np.sqrt(q) * z) ** 2


def test_depths_of_tanh_are_those_of_the_table():
    # σ_w², q*, χ_1, ξ_∇, ξ_c at σ_b² = 0.05
    table = [
        (1.0, 0.19359, 0.75903, 3.63, 3.63),
        (1.5, 0.41804, 0.93864, 15.79, 15.79),
        (2.0, 0.72176, 1.04767, 21.48, 25.21),
        (3.0, 1.42801, 1.20893, 5.27, 9.05),
    ]
    rows = trainable_depths(TANH, [(w, 0.05) for w, *_ in table])
    for row, (w, q, chi, xi_gradient, xi_c) in zip(rows, table, strict=True):
        assert row[:2] == (w, 0.05)
        assert row[2:4] == pytest.approx((q, chi), abs=6e-6)
        assert row[4:6] == pytest.approx((xi_gradient, xi_c), abs=6e-3)
        assert row.trainable == pytest.approx(6 * xi_c, abs=0.04)


def test_depths_are_infinite_where_critical_and_unknown_where_the_variance_diverges():
    critical, ordered, divergent = trainable_depths(RELU, [(2, 0), (1, 0.1), (3, 0.1)])
    assert critical.chi_1 == pytest.approx(1)
    assert critical.trainable == np.inf
    assert ordered.gradient_scale == ordered.correlation_scale == pytest.approx(1 / np.log(2))
    assert ordered.q == pytest.approx(0.2)
    assert divergent.q == np.inf
    assert np.isnan(divergent.correlation_scale)
    assert np.isnan(divergent.trainable)


def test_the_table_has_a_line_a_point_and_a_dash_where_nothing_is_known():
    head, *lines = depth_table(trainable_depths(RELU, [(2, 0), (3, 0.1)])).splitlines()
    assert head.split("  ")[-1].strip() == "6 ξ_c"
    assert lines[0].split() == ["2", "0", "1", "1", "inf", "inf", "inf"]
    assert lines[1].split() == ["3", "0.1", "inf", "1.5", "2.47", "–", "–"]
    assert {len(line) for line in (head, *lines)} == {7 * 9}


@pytest.mark.parametrize(
    ("name", "f", "df"),
    [
        ("tanh", np.tanh, lambda x: 1 / np.cosh(x) ** 2),
        (
            "sigmoid",
            lambda x: 1 / (1 + np.exp(-x)),
            lambda x: np.exp(-x) / (1 + np.exp(-x)) ** 2,
        ),
    ],
)
def test_the_plane_is_the_recursion_run_to_its_end(name, f, df):
    sigma_w2, sigma_b2 = np.array([0.5, 1.7, 3.9]), np.array([0.02, 0.4])
    q, chi = phase_plane(activation(name), sigma_w2, sigma_b2)
    for i, b in enumerate(sigma_b2):
        for j, w in enumerate(sigma_w2):
            assert (q[i, j], chi[i, j]) == pytest.approx(iterated(f, df, w, b), rel=1e-3)


def test_the_plane_of_relu_is_its_closed_form():
    sigma_w2, sigma_b2 = np.array([0.4, 1.6, 2.0, 2.5]), np.array([0.0, 0.3])
    q, chi = phase_plane(RELU, sigma_w2, sigma_b2)
    assert chi == pytest.approx(np.tile(sigma_w2 / 2, (2, 1)), rel=1e-9)
    assert q[1, :2] == pytest.approx([0.3 / (1 - 0.2), 0.3 / (1 - 0.8)], rel=1e-3)
    assert q[0].tolist() == [0, 0, 1, np.inf]
    assert q[1, 2:].tolist() == [np.inf, np.inf]


def test_the_plane_refuses_what_is_no_variance():
    with pytest.raises(ValueError, match="received -1"):
        phase_plane(TANH, np.array([1.0]), np.array([0.0, -1.0]))
