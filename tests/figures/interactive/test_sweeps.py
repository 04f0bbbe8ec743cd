"""Interactive maps of a sweep, by reading their traces back; the tables are made by hand."""

import math
import statistics

import numpy as np
import pytest
from figures.interactive.test_gradients import named
from figures.static.test_sweeps import grid_of, initialized, losses, run, table
from numpy.testing import assert_allclose

from kgrad.figures.interactive import plot_sweep, plot_trainability


def cells(figure):
    """Return the heatmap with hover texts."""
    (found,) = [one for one in figure.data if one.type == "heatmap" and one.hoverinfo != "skip"]
    return found


def test_a_cell_is_the_median_of_its_seeds_at_its_place():
    figure = plot_sweep(table(grid_of()), "learning_rate", "num_layers")
    expected = [
        [statistics.median(losses(depth, rate, seed) for seed in range(3))
         for rate in (0.001, 0.01, 0.1)]
        for depth in (2, 4, 8)
    ]  # fmt: skip
    assert_allclose(cells(figure).z, expected)
    assert_allclose(cells(figure).x, 10 ** np.array([-3.5, -2.5, -1.5, -0.5]))
    axis = figure.layout.xaxis
    assert (axis.type, axis.ticktext) == ("log", ("0.001", "0.01", "0.1"))
    assert_allclose(axis.range, (-3.5, -0.5))
    assert cells(figure).colorbar.title.text == "last loss<br>median of 3 runs per cell"
    assert figure.layout.title.text == "tanh networks, 27 runs"


def test_logarithmic_colors_have_ticks_at_their_values():
    runs = [run(learning_rate=1 + i, loss_last=one) for i, one in enumerate((0.01, 1.0, 10.0))]
    drawn = cells(plot_sweep(table(runs), "learning_rate", "num_layers"))
    assert_allclose(drawn.z, [[-2, 0, 1]])
    assert (drawn.zmin, drawn.zmax) == (-2, 1)
    pairs = dict(zip(drawn.colorbar.tickvals, drawn.colorbar.ticktext, strict=True))
    assert pairs[-2] == "0.01" and pairs[0] == "1"


def test_the_hover_text_lists_the_runs_of_a_cell_with_their_findings():
    runs = [
        run(name="<b>", seed=2, loss_last=0.25, findings="vanishing, not_moving"),
        run(name="<b>", seed=0, loss_last=0.75),
        run(name="<b>", seed=1, loss_last=math.inf, findings="non_finite"),
        run(name="<b>", seed=3, loss_last=math.nan, error="ValueError: no"),
    ]
    (text,) = cells(plot_sweep(table(runs), "learning_rate", "num_layers")).text[0]
    assert text.split("<br>") == [
        "learning rate: 0.1", "hidden layers: 10", "<b>median 0.5</b>", "&lt;b&gt;",
        "seed 0: 0.75", "seed 1: diverged, inf; non finite",
        "seed 2: 0.25; vanishing, not moving", "seed 3: failed: ValueError: no",
    ]  # fmt: skip
    many = table([run(seed=seed, name=f"net {seed}") for seed in range(10)])
    (text,) = cells(plot_sweep(many, "learning_rate", "num_layers")).text[0]
    assert "net 7, seed 7: 1" in text and "net 8" not in text and text.endswith("and 2 more runs")


def test_marks_leave_the_hover_text_to_their_cells_and_empty_cells_are_named():
    runs = [run(learning_rate=1, loss_last=math.nan), run(learning_rate=2),
            run(learning_rate=1, num_layers=20)]  # fmt: skip
    figure = plot_sweep(table(runs), "learning_rate", "num_layers")
    diverged = named(figure, "diverged")
    assert (list(diverged.x), list(diverged.y), diverged.hoverinfo) == ([1], [10], "skip")
    assert named(figure, "no run").showlegend
    (blank,) = [one for one in figure.data if one.type == "heatmap" and one.hoverinfo == "skip"]
    assert np.argwhere(~np.isnan(blank.z)).tolist() == [[1, 1]]
    assert cells(figure).text[1][1].endswith("no run")


def test_theory_of_tanh_is_where_its_formulas_are():
    figure = plot_trainability(table(initialized()))
    critical = named(figure, "critical σ<sub>w</sub>² = 1")
    assert_allclose(critical.x, 1, atol=1e-9)
    limit = named(figure, "6 ξ<sub>c</sub>: expected depth limit")
    below = limit.x < 0.97
    assert_allclose(limit.y[below], -6 / np.log(limit.x[below]), rtol=1e-6)
    assert figure.layout.xaxis.title.text.startswith("σ<sub>w</sub>²")
    assert_allclose(figure.layout.yaxis.range, (0, 30), atol=1e-9)


def test_theory_has_the_variance_of_the_biases():
    runs = initialized((0.25, 0.3, 0.35, 0.4), bias_initializer=f"normal:{0.05**0.5}")
    figure = plot_trainability(table(runs))
    critical = named(figure, "critical σ<sub>w</sub>² = 1.76 at σ<sub>b</sub>² = 0.05")
    assert_allclose(critical.x, 1.76095, atol=1e-4)  # by independent quadrature


def test_a_loss_that_rose_is_at_the_end_of_the_shares():
    runs = initialized((0.2,), (5, 15), loss_first=4.0)
    runs[0]["loss_last"], runs[1]["loss_last"] = 1.0, 5.0
    drawn = cells(plot_trainability(table(runs)))
    assert_allclose(drawn.z, [[0.75], [-0.25]])
    assert (drawn.zmin, drawn.zmax, drawn.colorbar.ticktext[0]) == (0, 1, "≤ 0")


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(TypeError, match=r"^sweep must be a Sweep, or a DataFrame .*received list$"):
        plot_sweep([run()], "units", "num_layers")
    with pytest.raises(ValueError, match=r"did you mean 'learning_rate'\?$"):
        plot_sweep(table([run()]), "learning_rat", "num_layers")
