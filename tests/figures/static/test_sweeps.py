"""Maps of a sweep, by reading their artists back; the tables are made here."""

import math
import statistics
from itertools import pairwise

import matplotlib
import numpy as np
import pandas as pd
import pytest
from figures.static.test_depth import legend_names
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm
from numpy.testing import assert_allclose

from kgrad.figures.static import plot_sweep, plot_trainability
from kgrad.figures.sweep_maps import SweepMap, varying_fields
from kgrad.records.history import GradientHistory, Weight
from kgrad.records.sweep import begin_sweep

pytestmark = pytest.mark.usefixtures("nothing_leaks")

FIELDS = {
    "name": "net",
    "activation": "tanh",
    "weight_initializer": "normal:0.5",
    "num_layers": 10,
    "units": 16,
    "normalization": None,
    "skip_connections": False,
    "learning_rate": 0.1,
    "clip_norm": None,
}
NUMBERS = {"loss_first": 2.0, "loss_last": 1.0, "findings": "", "error": ""}


def run(**changes):
    return FIELDS | {"seed": 0} | NUMBERS | changes


def table(runs):
    return pd.DataFrame(list(runs), index=[f"run-{i}" for i in range(len(runs))])


def losses(layers, rate, seed):
    """Return numbers without order, all different, whose means are not their medians."""
    return (layers + 7 * (seed + 1) ** 2) / (1 + 30 * rate)


def grid_of(layers=(2, 4, 8), rates=(0.001, 0.01, 0.1), seeds=3, **shared):
    return [
        run(num_layers=depth, learning_rate=rate, seed=seed, loss_last=losses(depth, rate, seed),
            **shared)
        for seed in range(seeds) for rate in rates for depth in layers
    ]  # fmt: skip


def mesh_of(figure):
    return next(one for one in figure.axes[0].collections if isinstance(one, QuadMesh))


def drawn_values(figure):
    return np.ma.filled(mesh_of(figure).get_array().astype(float), np.nan)


def bar_label(figure):
    return figure.axes[-1].get_ylabel()


def marks(figure):
    """Return the legend's name of each mark, with its points."""
    return {
        line.get_label(): sorted(map(tuple, line.get_xydata().tolist()))
        for line in figure.axes[0].lines
        if line.get_linestyle() == "None"
    }


def line(figure, beginning):
    (found,) = [one for one in figure.axes[0].lines if str(one.get_label()).startswith(beginning)]
    return found.get_xydata()


def test_a_cell_is_the_median_of_its_seeds_at_its_place():
    figure = plot_sweep(table(grid_of()), "learning_rate", "num_layers")
    expected = [
        [statistics.median(losses(depth, rate, seed) for seed in range(3))
         for rate in (0.001, 0.01, 0.1)]
        for depth in (2, 4, 8)
    ]  # fmt: skip
    assert_allclose(drawn_values(figure), expected)
    ax = figure.axes[0]
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    figure.canvas.draw()
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0.001", "0.01", "0.1"]
    corners = mesh_of(figure).get_coordinates()
    assert_allclose(corners[0, :, 0], 10 ** np.array([-3.5, -2.5, -1.5, -0.5]))
    assert_allclose(corners[:, 0, 1], 2 ** np.array([0.5, 1.5, 2.5, 3.5]))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("learning rate", "hidden layers")
    assert bar_label(figure) == "last loss\nmedian of 3 runs per cell"
    assert figure.get_suptitle() == "tanh networks, 27 runs"
    assert legend_names(figure) == []


def test_the_caption_says_over_how_many_runs_the_medians_are():
    runs = grid_of()
    figure = plot_sweep(table(runs[:-1]), "learning_rate", "num_layers", title="Mine")
    assert bar_label(figure).endswith("\nmedian of 2 to 3 runs per cell")
    assert figure.get_suptitle() == "Mine"
    figure = plot_sweep(table(grid_of(seeds=1)), "learning_rate", "num_layers")
    assert bar_label(figure) == "last loss"


def test_evenly_spaced_numbers_have_a_linear_axis_and_words_their_order():
    initializers = ("normal:10", "he", "normal:2")
    runs = [run(num_layers=depth, weight_initializer=one)
            for depth in (5, 15, 25) for one in initializers]  # fmt: skip
    ax = plot_sweep(table(runs), "num_layers", "weight_initializer").axes[0]
    assert ax.get_xscale() == "linear"
    assert [text.get_text() for text in ax.get_yticklabels()] == ["he", "normal:2", "normal:10"]
    assert_allclose(ax.get_xlim(), (0, 30))


def test_missing_values_truths_and_widths_are_categories():
    runs = [run(clip_norm=clip, units=units)
            for clip in (None, 1.0) for units in (8, (8, 4))]  # fmt: skip
    ax = plot_sweep(table(runs), "clip_norm", "units").axes[0]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["1", "None"]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["8", "(8, 4)"]
    runs = [run(skip_connections=skip, units=units) for skip in (True, False) for units in (4, 8)]
    ax = plot_sweep(table(runs), "skip_connections", "units").axes[0]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["False", "True"]


@pytest.mark.parametrize(
    ("values", "logarithmic", "ends"),
    [
        ((0.01, 0.5, 1.0), True, (0.01, 1.0)),
        ((0.1, 0.5, 1.0), False, (0.1, 1.0)),
        ((-0.1, 0.5, 0.3), False, (-0.5, 0.5)),  # white at 0
        ((-3.0, -1.0, -2.0), False, (-3.0, 3.0)),
        ((0.7, 0.7, 0.7), False, (0.0, 0.7)),
    ],
)
def test_colors_are_logarithmic_over_decades_and_white_at_zero_of_both_signs(
    values, logarithmic, ends
):
    runs = [run(learning_rate=1 + i, loss_last=one) for i, one in enumerate(values)]
    mesh = mesh_of(plot_sweep(table(runs), "learning_rate", "num_layers"))
    assert isinstance(mesh.norm, LogNorm) == logarithmic
    assert_allclose((mesh.norm.vmin, mesh.norm.vmax), ends)
    assert mesh.cmap.name == ("vlag" if min(values) < 0 else "viridis")


def test_runs_that_diverged_or_failed_are_marked_and_the_others_counted():
    nothing = math.nan
    cells = {
        1: [run(loss_last=0.5), run(loss_last=0.7)],
        2: [run(loss_last=math.inf), run(loss_last=nothing)],
        3: [run(loss_last=math.inf), run(loss_last=0.7), run(loss_last=0.3)],
        4: [run(loss_last=nothing, error="ValueError: no")],
        5: [run(loss_last=nothing, error="ValueError: no"), run(loss_last=0.9)],
        6: [run(loss_last=nothing, error="ValueError: no"), run(loss_last=nothing)],
    }
    runs = [one | {"learning_rate": place, "seed": seed}
            for place, own in cells.items() for seed, one in enumerate(own)]  # fmt: skip
    figure = plot_sweep(table(runs), "learning_rate", "num_layers")
    expected = [[0.6, nothing, 0.5, nothing, 0.9, nothing]]
    assert_allclose(drawn_values(figure), expected)
    others = "; color: median of the others"
    assert marks(figure) == {
        "failed": [(4, 10)],
        f"some failed{others}": [(5, 10), (6, 10)],
        "diverged": [(2, 10), (6, 10)],
        f"some diverged{others}": [(3, 10)],
    }
    assert set(legend_names(figure)) == set(marks(figure))


def test_a_run_that_diverged_counts_with_a_number_from_before():
    runs = [run(gradient_first=1.0), run(seed=1, loss_last=math.nan, gradient_first=3.0)]
    figure = plot_sweep(table(runs), "num_layers", "units", "gradient_first")
    assert_allclose(drawn_values(figure), [[2.0]])
    assert list(marks(figure)) == ["some diverged; color: median of the others"]


def test_numbers_without_a_color_have_marks():
    numbers = (0.0, 1e-3, 1.0, math.inf, math.nan)
    runs = [run(learning_rate=i, ratio=one) for i, one in enumerate(numbers)]
    figure = plot_sweep(table(runs), "learning_rate", "num_layers", "ratio")
    assert marks(figure) == {
        "0 (exactly)": [(0, 10)],
        "infinite": [(3, 10)],
        "not known": [(4, 10)],
    }
    assert_allclose(drawn_values(figure), [[math.nan, 1e-3, 1.0, math.nan, math.nan]])


def test_cells_without_a_run_are_gray_and_named():
    figure = plot_sweep(table(grid_of()[1:-1]), "learning_rate", "num_layers")
    assert legend_names(figure) == []  # each cell still has two runs
    figure = plot_sweep(table(grid_of(seeds=1)[1:]), "learning_rate", "num_layers")
    assert legend_names(figure) == ["no run"]
    blank = [one for one in figure.axes[0].collections if isinstance(one, QuadMesh)][1]
    assert np.argwhere(~np.ma.getmaskarray(blank.get_array())).tolist() == [[0, 0]]


def test_a_table_with_nothing_to_color_has_marks_and_no_color_bar():
    runs = [run(learning_rate=rate, loss_last=math.nan) for rate in (0.1, 1.0)]
    figure = plot_sweep(table(runs), "learning_rate", "num_layers")
    assert len(figure.axes) == 1 and legend_names(figure) == ["diverged"]


# ---- σ_w² and theory -----------------------------------------------------------------------------


def initialized(stddevs=(0.1, 0.2, 0.3, 0.4), layers=(5, 15, 25), units=(16,), **shared):
    return [
        run(weight_initializer=f"normal:{stddev}", num_layers=depth, units=width, **shared)
        for stddev in stddevs for depth in layers for width in units
    ]  # fmt: skip


def test_sigma_w2_is_units_times_the_variance_and_equal_ones_are_one_column():
    runs = [run(weight_initializer="normal:0.5", units=64), run(
        weight_initializer="normal:0.3", units=10)]  # fmt: skip
    ax = plot_sweep(table(runs), "sigma_w2", "units").axes[0]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0.9", "16"]
    # 10·0.3² is 0.8999999999999999 in floats, and 40·0.15² 0.9.
    runs = [run(weight_initializer="normal:0.3", units=10), run(
        weight_initializer="normal:0.15", units=40)]  # fmt: skip
    assert drawn_values(plot_sweep(table(runs), "sigma_w2", "units")).shape == (2, 1)


def test_theory_of_tanh_is_where_its_formulas_are():
    figure = plot_sweep(table(initialized()), "sigma_w2", "num_layers")
    critical = line(figure, "critical")
    assert_allclose(critical[:, 0], 1, atol=1e-9)  # tanh'(0) = 1
    assert_allclose(critical[:, 1], (0, 30), atol=1e-9)
    w, depth = line(figure, "6").T
    assert (np.diff(w) > 0).all() and w[0] < 0.3 and w[-1] > 2
    # The signal dies out below 1, and |δ|² changes by tanh'(0)²σ_w² per layer.
    ordered = w < 0.97
    assert ordered.sum() > 20
    assert_allclose(depth[ordered], -6 / np.log(w[ordered]), rtol=1e-6)
    assert depth[np.argmin(np.abs(w - 1))] > 1000
    # Above it two samples become unrelated, c* = 0: E[tanh'(u)]² over u of variance q*, on a grid.
    u = np.linspace(-12, 12, 20001)
    for at in np.flatnonzero(w > 1.5)[::20]:
        q = 1.0
        for _ in range(4000):
            density = np.exp(-(u**2) / 2 / q) / math.sqrt(2 * math.pi * q)
            q = w[at] * np.trapezoid(np.tanh(u) ** 2 * density, u)
        slope = np.trapezoid(density / np.cosh(u) ** 2, u)
        assert depth[at] == pytest.approx(-6 / math.log(w[at] * slope**2), rel=1e-4)
    assert legend_names(figure) == ["critical $σ_w^2$ = 1", "6 $ξ_c$: expected depth limit"]


def test_theory_has_the_variance_of_the_biases():
    runs = initialized((0.25, 0.3, 0.35, 0.4), bias_initializer=f"normal:{0.05**0.5}")
    figure = plot_trainability(table(runs))
    # Schoenholz et al. (2017) and independent quadrature: the edge at σ_b² = 0.05 is at 1.76095.
    assert_allclose(line(figure, "critical")[:, 0], 1.76095, atol=1e-4)
    w, depth = line(figure, "6").T
    # On a grid, not with kgrad.theory: ordered, where c* = 1.
    u = np.linspace(-12, 12, 20001)
    ordered = np.flatnonzero(w < 1.6)[::20]
    assert len(ordered) > 2
    for at in ordered:
        q = 1.0
        for _ in range(4000):
            density = np.exp(-(u**2) / 2 / q) / math.sqrt(2 * math.pi * q)
            q = w[at] * np.trapezoid(np.tanh(u) ** 2 * density, u) + 0.05
        chi = w[at] * np.trapezoid(density / np.cosh(u) ** 4, u)
        assert depth[at] == pytest.approx(-6 / math.log(chi), rel=1e-4)
    # In the chaotic phase: ξ_c of 9.05 at 3, from the same references.
    chaotic = initialized((0.3, 0.4, 0.5), bias_initializer=f"normal:{0.05**0.5}")
    w, depth = line(plot_trainability(table(chaotic)), "6").T
    assert np.interp(3, w, depth) == pytest.approx(6 * 9.05, rel=0.01)
    assert legend_names(figure)[0] == "critical $σ_w^2$ = 1.76 at $σ_b^2$ = 0.05"


def test_runs_from_before_biases_had_an_initializer_are_those_with_zeros():
    runs = initialized() + initialized(seed=1, bias_initializer="zeros")
    figure = plot_sweep(table(runs), "sigma_w2", "num_layers")
    assert_allclose(line(figure, "critical")[:, 0], 1, atol=1e-9)
    assert bar_label(figure).endswith("median of 2 runs per cell")
    assert "bias_initializer" not in varying_fields(table(runs))
    others = runs + initialized(seed=2, bias_initializer="normal:1")
    assert varying_fields(table(others))["bias_initializer"] == 2


def test_theory_of_relu_is_critical_at_two_and_ends_there():
    runs = initialized((0.2, 0.3, 0.4, 0.5), activation="relu")
    figure = plot_trainability(table(runs))
    assert_allclose(line(figure, "critical")[:, 0], 2, atol=1e-9)
    w, depth = line(figure, "6").T
    below = w < 1.95
    assert_allclose(depth[below], -6 / np.log(w[below] / 2), rtol=1e-6)
    assert np.isnan(depth[w > 2.05]).all()  # the variance grows without end


def test_theory_turns_with_the_axes_and_has_no_depth_over_another_field():
    figure = plot_sweep(table(initialized()), "num_layers", "sigma_w2")
    assert_allclose(line(figure, "critical")[:, 1], 1, atol=1e-9)
    depth, w = line(figure, "6").T
    assert (w < 0.97).sum() > 20
    assert_allclose(depth[w < 0.97], -6 / np.log(w[w < 0.97]), rtol=1e-6)
    runs = [one | {"learning_rate": rate}
            for one in initialized(layers=(5,)) for rate in (0.1, 1)]  # fmt: skip
    figure = plot_sweep(table(runs), "sigma_w2", "learning_rate")
    assert legend_names(figure) == ["critical $σ_w^2$ = 1"]


def test_gelu_has_no_critical_line_where_no_signal_comes_to_rest():
    # At σ_b² = 0 gelu'(0) = 1/2 is critical at 4, but from q = 1 the variance grows from 2.4 on.
    runs = initialized((0.3, 0.4, 0.5, 0.6), activation="gelu")
    assert not any(
        name.startswith("critical") for name in legend_names(plot_trainability(table(runs)))
    )


@pytest.mark.parametrize(
    "shared",
    [
        {"activation": "softmax"},
        {"normalization": "batch"},
        {"skip_connections": True},
    ],
)
def test_theory_is_left_out_if_it_does_not_know_the_networks(shared):
    runs = table(initialized(**shared))
    assert legend_names(plot_sweep(runs, "sigma_w2", "num_layers")) == []
    with pytest.raises(
        ValueError, match=r"^theory can be drawn only if .*, received .*(softm|norm|skip)"
    ):
        plot_sweep(runs, "sigma_w2", "num_layers", theory=True)


def test_theory_can_be_left_out_and_asked_for():
    runs = table(initialized())
    assert legend_names(plot_sweep(runs, "sigma_w2", "num_layers", theory=False)) == []
    assert len(legend_names(plot_sweep(runs, "sigma_w2", "num_layers", theory=True))) == 2
    with pytest.raises(ValueError, match=r"^theory can be drawn only if x or y is 'sigma_w2'"):
        plot_sweep(runs, "weight_initializer", "num_layers", theory=True)
    runs = [one | {"bias_initializer": biases}
            for one in initialized(layers=(5,)) for biases in ("zeros", "normal:0.2")]  # fmt: skip
    assert legend_names(plot_sweep(table(runs), "sigma_w2", "bias_initializer")) == []
    with pytest.raises(ValueError, match=r", received 2 initializers of the biases$"):
        plot_sweep(table(runs), "sigma_w2", "bias_initializer", theory=True)
    with pytest.raises(ValueError, match=r"^theory must be None, True or False, received 1"):
        plot_sweep(runs, "sigma_w2", "num_layers", theory=1)


def test_trainability_is_the_share_by_which_the_loss_fell():
    runs = initialized((0.2, 0.3), (5, 15), loss_first=4.0)
    for one, last in zip(runs, (3.0, 1.0, 5.0, 0.0), strict=True):
        one["loss_last"] = last
    figure = plot_trainability(table(runs), title="Depths")
    # 5 and 15 layers at 0.2, then at 0.3
    assert_allclose(drawn_values(figure), [[0.25, -0.25], [0.75, 1.0]])
    mesh = mesh_of(figure)
    assert (mesh.norm.vmin, mesh.norm.vmax) == (0, 1)
    assert figure.axes[-1].get_ylabel() == "decrease of the loss as a share of the first"
    assert figure.get_suptitle() == "Depths"


# ---- Sweeps and refusals -------------------------------------------------------------------------


def sweep_in(folder, runs):
    """Return a sweep with a history of each run."""
    planned = {f"aa{i:02}-{one['seed']}": {field: one[field] for field in (*FIELDS, "seed")}
               for i, one in enumerate(runs)}  # fmt: skip
    sweep = begin_sweep(folder, planned)
    weights = [Weight(f"hidden_{i}", "kernel", f"hidden_{i}/kernel", (2, 2)) for i in (1, 2)]
    for (name, fields), one in zip(planned.items(), runs, strict=True):
        made = GradientHistory(
            weights, ["mean_abs"],
            {"experiment": fields, "findings": one["findings"].split(", ")},
        )  # fmt: skip
        made.append(0, 0, {"mean_abs": [1e-3, 1e-1]}, {"loss": one["loss_first"]})
        made.append(1, 1, {"mean_abs": [1e-3, 1e-1]}, {"loss": one["loss_last"]})
        sweep.file(name).parent.mkdir(parents=True, exist_ok=True)
        made.save(sweep.file(name))
    return sweep


def test_a_sweep_is_drawn_as_its_table_and_unreadable_runs_are_counted(tmp_path):
    runs = initialized((0.2, 0.4), (5, 15))
    sweep = sweep_in(tmp_path / "sweep", runs)
    figure = plot_sweep(sweep, "sigma_w2", "num_layers", "decades_per_layer")
    assert_allclose(drawn_values(figure), np.full((2, 2), -2.0))
    assert mesh_of(figure).cmap.name == "vlag"
    sweep.failure_file("bb-0").parent.mkdir()
    sweep.failure_file("bb-0").write_text("damaged")
    figure = plot_sweep(sweep, "sigma_w2", "num_layers")
    assert bar_label(figure) == "last loss\n1 unreadable left out"


def test_rows_can_be_chosen_first():
    runs = table([*grid_of(units=8), *grid_of(units=16)])
    assert (
        len(
            SweepMap.of(
                runs[runs["units"] == 8], "num_layers", "learning_rate", "loss_last", None
            ).cells
        )
        == 9
    )


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (("lerning_rate", "num_layers"), ValueError,
         r"^x must be a field of .*, received 'lerning_rate'; did you mean 'learning_rate'\?$"),
        (("num_layers", "loss_first"), ValueError, r"^y must be a field .*received 'loss_first'"),
        (("units", "units"), ValueError, r"^x and y must be different .*received 'units' twice$"),
        (("units", "num_layers", "units"), ValueError, r"^value must be another column than x and"),
        (("units", "num_layers", "findings"), ValueError,
         r"^value must be a column of numbers \(.*loss_last.*\), received 'findings'"),
        (("units", "num_layers", "los_last"), ValueError, r"did you mean 'loss_last'\?$"),
        (("units", "sigma_w2"), ValueError,
         r"^y can be 'sigma_w2' only if .*normal:STDDEV .*received one with 'he' and units=16$"),
    ],
)  # fmt: skip
def test_columns_of_the_wrong_kind_are_refused(given, error, message):
    runs = table([run(weight_initializer="he"), run(weight_initializer="he", seed=1)])
    with pytest.raises(error, match=message):
        plot_sweep(runs, *given)


def test_widths_that_differ_have_no_sigma_w2():
    with pytest.raises(
        ValueError, match=r"^x can be 'sigma_w2' .* 'normal:0.5' and units=\(4, 8\)$"
    ):
        plot_sweep(table([run(units=(4, 8))]), "sigma_w2", "num_layers")


def test_networks_that_differ_in_a_cell_are_refused_with_the_way_to_choose():
    runs = table([*grid_of(units=8), *grid_of(units=16)])
    with pytest.raises(
        ValueError,
        match=r"^sweep must have one units per cell, received 8 and 16 at learning_rate=0.001, "
        r"num_layers=2: choose rows of to_frame\(\) first, such as frame\[frame\['units'\] == 8\]$",
    ):
        plot_sweep(runs, "learning_rate", "num_layers")
    # A field that goes along with an axis is fine, and so are names.
    runs = table([run(learning_rate=rate, clip_norm=rate, name=str(rate)) for rate in (1.0, 2.0)])
    plot_sweep(runs, "learning_rate", "num_layers")


def test_what_is_no_sweep_and_an_empty_one_are_refused(tmp_path):
    with pytest.raises(TypeError, match=r"^sweep must be a Sweep, or a DataFrame .*received list$"):
        plot_sweep([run()], "units", "num_layers")
    with pytest.raises(ValueError, match=r"^sweep must have at least one run that is finished"):
        plot_sweep(begin_sweep(tmp_path, {"aa-0": FIELDS}), "units", "num_layers")
    with pytest.raises(ValueError, match=r"^sweep must have at least one run that is finished"):
        plot_trainability(table([run()])[:0])


def test_the_legend_and_the_marks_fit_into_a_map_of_many_cells():
    runs = [run(learning_rate=1 + i, num_layers=1 + j, loss_last=math.nan if i > j else i + 1)
            for i in range(40) for j in range(30)]  # fmt: skip
    figure = plot_sweep(table(runs), "learning_rate", "num_layers")
    figure.canvas.draw()
    ax = figure.axes[0]
    (crosses,) = [one for one in ax.lines if one.get_label() == "diverged"]
    (a, _), (b, _) = ax.transData.transform([(1, 1), (2, 1)])
    assert crosses.get_markersize() * figure.dpi / 72 < b - a
    labels = [text.get_window_extent() for text in ax.get_xticklabels()]
    assert all(one.x1 < other.x0 for one, other in pairwise(labels))
    assert matplotlib.get_backend().lower() == "agg"
