"""The figures, by reading their artists back."""

import time
import warnings
from itertools import pairwise

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from numpy.testing import assert_allclose, assert_array_equal

from kgrad.figures.static import (
    plot_gradient_by_depth,
    plot_gradients,
    plot_heatmap,
    plot_lines,
    plot_seed_spread,
    visualize_gradients,
)
from kgrad.figures.static.panels import _apart, name_lines
from kgrad.records.history import GradientHistory, Weight

SPECIAL = ("0 (exactly)", "infinite", "NaN")


pytestmark = pytest.mark.usefixtures("nothing_leaks")


def make_history(
    values: np.ndarray,
    epochs: list[int] | None = None,
    statistic: str = "mean_abs",
    prefix: str = "dense",
) -> GradientHistory:
    """A history of (records, layers) with one weight a layer, 10 steps from record to record."""
    names = [f"{prefix}_{i}" for i in range(values.shape[1])]
    history = GradientHistory([Weight(n, "scale", f"{n}/scale", (1,)) for n in names], [statistic])
    for i, row in enumerate(values):
        epoch = i if epochs is None else epochs[i]
        history.append(epoch=epoch, step=10 * i, values={statistic: row})
    return history


def magnitudes(records: int, layers: int, seed: int = 0) -> np.ndarray:
    """Positive numbers over many decades, less at the input."""
    exponents = np.linspace(-8, -1, layers) + np.random.default_rng(seed).normal(
        0, 0.3, (records, layers)
    )
    return 10.0**exponents


def with_special(records: int = 12, layers: int = 5) -> np.ndarray:
    """`magnitudes` in which 0, NaN and infinity occur, each at places of its own."""
    values = magnitudes(records, layers)
    values[2, 0] = values[3, 1] = 0
    values[5, 2] = np.inf
    values[7, 3] = values[8, 4] = np.nan
    return values


def data_lines(ax: Axes) -> list[Line2D]:
    """The lines that stand for data, without the markers of special values."""
    return [line for line in ax.lines if line.get_label() not in SPECIAL]


def markers(ax: Axes) -> dict[str, Line2D]:
    return {str(line.get_label()): line for line in ax.lines if line.get_label() in SPECIAL}


def meshes(ax: Axes) -> list[QuadMesh]:
    return [one for one in ax.collections if isinstance(one, QuadMesh)]


def legend_names(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def draw(figure: Figure) -> None:
    """Lay out and draw, which is where matplotlib warns."""
    figure.canvas.draw()


# --- visualize_gradients


def test_lines_are_the_layers_over_epochs():
    values = magnitudes(6, 4)
    figure = visualize_gradients(make_history(values), "a title")
    draw(figure)
    left, right = figure.axes[:2]
    assert figure.get_suptitle() == "a title"
    assert left.get_yscale() == "log"
    assert left.get_xlabel() == right.get_xlabel() == "epoch"
    assert left.get_ylabel() == "mean |gradient|"
    assert len(left.lines) == 4
    for line, column in zip(left.lines, values.T, strict=True):
        assert_array_equal(line.get_xdata(), np.arange(6))
        assert_array_equal(line.get_ydata(), column)


def test_a_layer_of_several_weights_is_one_line():
    weights = [Weight("a", "kernel", "a/kernel", (2, 3)), Weight("a", "bias", "a/bias", (2,))]
    history = GradientHistory(weights, ["mean_abs"])
    for i in range(3):
        history.append(epoch=i, step=i, values={"mean_abs": [0.4, 0.8]})
    (line,) = visualize_gradients(history, "").axes[0].lines
    assert_allclose(line.get_ydata(), [(6 * 0.4 + 2 * 0.8) / 8] * 3)


def test_heatmap_is_layer_by_record_with_the_input_on_top():
    values = magnitudes(6, 4)
    figure = visualize_gradients(make_history(values), "")
    draw(figure)
    ax = figure.axes[1]
    (mesh,) = meshes(ax)
    assert_array_equal(mesh.get_array(), values.T)
    assert isinstance(mesh.norm, LogNorm)
    assert mesh.norm.vmin == pytest.approx(values.min())
    assert mesh.norm.vmax == pytest.approx(values.max())
    assert ax.get_ylim() == (3.5, -0.5)
    assert [text.get_text() for text in ax.get_yticklabels()] == [f"dense_{i}" for i in range(4)]
    assert_allclose(mesh.get_coordinates()[0, :, 0], np.arange(7) - 0.5)


def test_cells_of_irregular_records_meet_halfway():
    figure = visualize_gradients(make_history(magnitudes(3, 2), epochs=[0, 1, 11]), "")
    assert_allclose(meshes(figure.axes[1])[0].get_coordinates()[0, :, 0], [-0.5, 0.5, 6, 16])


@pytest.mark.parametrize("layers", [3, 30])
def test_depth_darkens_from_input_to_output(layers):
    figure = visualize_gradients(make_history(magnitudes(5, layers)), "")
    colors = np.array([line.get_color()[:3] for line in figure.axes[0].lines])
    luminance = colors @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) < 0).all()
    assert luminance[0] < 0.8  # shows on white
    assert luminance[0] - luminance[-1] > 0.4  # grayscale keeps the order


def test_few_layers_are_named_at_their_lines_and_many_by_a_color_bar():
    few = visualize_gradients(make_history(magnitudes(5, 12)), "")
    named = [text.get_text() for text in few.axes[0].texts]
    assert named == [f"dense_{i}" for i in range(12)]
    many = visualize_gradients(make_history(magnitudes(5, 13)), "")
    assert not many.axes[0].texts
    bars = [[text.get_text() for text in ax.get_yticklabels()] for ax in many.axes[2:]]
    assert ["input", "output"] in bars
    assert not legend_names(few) and not legend_names(many)


@pytest.mark.parametrize("losses", [None, [1.0, 1.0, 1.0, 1.0]])
def test_names_of_equal_lines_do_not_collide(losses):
    values = np.full((4, 12), 0.01)
    history = make_history(values) if losses is None else with_losses(values, losses)
    figure = visualize_gradients(history, "")
    draw(figure)
    lines = next(ax for ax in figure.axes if ax.texts)
    boxes = sorted((Text.get_window_extent(t) for t in lines.texts), key=lambda box: box.y0)
    assert all(low.y1 <= high.y0 + 1 for low, high in pairwise(boxes))
    heatmap = next(ax for ax in figure.axes if any(isinstance(c, QuadMesh) for c in ax.collections))
    heatmap = heatmap.get_tightbbox()
    assert max(box.x1 for box in boxes) < heatmap.x0


def test_lines_of_ones_own_are_named_at_their_last_finite_points():
    figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
    ax.semilogy([0, 1, 2], [1.0, 10.0, 100.0], color="C1", label="up")
    ax.semilogy([0, 1, 2], [1.0, 10.0, np.nan], "o", color="C2", label="to the middle")
    ax.semilogy([0, 2], [1.0, 1.0])  # without a name
    ax.axhline(1e9, label="above")
    ax.set(xlim=(0, 4), ylim=(1, 1e4))
    name_lines(ax)
    draw(figure)
    ends = {text.get_text(): text.xy for text in ax.texts}
    assert set(ends) == {"up", "to the middle", "above"}
    # Four decades, and an x axis from 0 to 4.
    assert_allclose([ends["up"], ends["to the middle"], ends["above"]],
                    [(0.5, 0.5), (0.25, 0.25), (1, 1)])  # fmt: skip
    colors = {text.get_text(): text.arrow_patch.get_edgecolor() for text in ax.texts}
    assert colors["up"] == to_rgba("C1")
    boxes = [Text.get_window_extent(text) for text in ax.texts]
    assert all(one.x1 <= figure.bbox.x1 for one in boxes)
    plt.close(figure)


def test_records_within_an_epoch_stand_at_their_steps():
    figure = visualize_gradients(make_history(magnitudes(4, 2), epochs=[0, 1, 1, 2]), "")
    left, right = figure.axes[:2]
    assert left.get_xlabel() == right.get_xlabel() == "step"
    assert_array_equal(left.lines[0].get_xdata(), [0, 10, 20, 30])


def test_records_without_a_clock_are_counted():
    history = make_history(magnitudes(1, 2), epochs=[1])
    history.append(epoch=1, step=0, values={"mean_abs": [0.1, 0.2]})
    figure = visualize_gradients(history, "")
    assert figure.axes[0].get_xlabel() == "record"


def test_one_record_is_drawn_against_depth():
    values = magnitudes(1, 5)
    figure = visualize_gradients(make_history(values), "before training")
    draw(figure)
    (ax,) = figure.axes
    (line,) = ax.lines
    assert_array_equal(line.get_xdata(), [1, 2, 3, 4, 5])
    assert_array_equal(line.get_ydata(), values[0])
    assert line.get_marker() == "o"
    assert [text.get_text() for text in ax.get_xticklabels()] == [f"dense_{i}" for i in range(5)]


@pytest.mark.parametrize(
    ("statistic", "label", "scale"),
    [
        ("l2_norm", "gradient L2 norm", "log"),
        ("max_abs", "max |gradient|", "log"),
        ("weight_l2", "‖W‖₂", "log"),
        ("update_l2", "‖ΔW‖₂ over the record", "log"),
        ("zero_fraction", "share of exact zeros", "linear"),
        ("nonfinite_steps", "updates with a non-finite gradient", "linear"),
    ],
)
def test_each_statistic_has_its_name_and_scale(statistic, label, scale):
    figure = visualize_gradients(
        make_history(magnitudes(3, 2), statistic=statistic), "", statistic=statistic
    )
    draw(figure)
    assert figure.axes[0].get_ylabel() == figure.axes[2].get_ylabel() == label
    assert figure.axes[0].get_yscale() == scale


def test_zero_is_an_ordinary_share():
    figure = visualize_gradients(
        make_history(np.array([[0, 0.5], [0, 1.0]]), statistic="zero_fraction"),
        "",
        statistic="zero_fraction",
    )
    assert not legend_names(figure)
    assert not np.ma.getmaskarray(meshes(figure.axes[1])[0].get_array()).any()


# --- zero, NaN and infinity


def test_special_values_are_marked_on_strips_at_the_edges():
    values = with_special()
    figure = visualize_gradients(make_history(values), "")
    draw(figure)
    ax = figure.axes[0]
    marked = markers(ax)
    assert_array_equal(marked["0 (exactly)"].get_xdata(), [2, 3])
    assert_array_equal(marked["infinite"].get_xdata(), [5])
    assert_array_equal(marked["NaN"].get_xdata(), [7, 8])
    assert len({line.get_marker() for line in marked.values()}) == 3
    ordinary = values[np.isfinite(values) & (values > 0)]
    inside = ax.transAxes.inverted().transform(
        ax.transData.transform([[0, ordinary.min()], [0, ordinary.max()]])
    )[:, 1]
    heights = {name: line.get_ydata()[0] for name, line in marked.items()}
    assert 0 < heights["0 (exactly)"] < inside[0] < inside[1]
    assert inside[1] < heights["NaN"] < heights["infinite"] < 1
    for line, column in zip(data_lines(ax), values.T, strict=True):
        assert_array_equal(line.get_ydata(), column)


def test_special_cells_have_flat_colors_and_markers():
    values = with_special()
    ax = visualize_gradients(make_history(values), "").axes[1]
    ramp, *flat = meshes(ax)
    special = ~np.isfinite(values) | (values == 0)
    assert_array_equal(np.ma.getmaskarray(ramp.get_array()), special.T)
    for mesh, found in zip(flat, (values == 0, np.isinf(values), np.isnan(values)), strict=True):
        assert_array_equal(~np.ma.getmaskarray(mesh.get_array()), found.T)
    assert len({mesh.cmap(0.0) for mesh in flat}) == 3
    marked = {name: set(zip(*line.get_data(), strict=True)) for name, line in markers(ax).items()}
    assert marked == {
        "0 (exactly)": {(2, 0), (3, 1)},
        "infinite": {(5, 2)},
        "NaN": {(7, 3), (8, 4)},
    }


@pytest.mark.parametrize(
    ("number", "name"), [(0.0, "0 (exactly)"), (np.inf, "infinite"), (np.nan, "NaN")]
)
def test_the_legend_names_what_occurs_and_nothing_else(number, name):
    values = magnitudes(4, 3)
    values[1, 1] = number
    figure = visualize_gradients(make_history(values), "")
    assert legend_names(figure) == [name]
    assert set(markers(figure.axes[0])) == {name}
    assert visualize_gradients(make_history(magnitudes(4, 3)), "").legends == []


@pytest.mark.parametrize("number", [0.0, np.inf, np.nan])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 1), (4, 12)])
@pytest.mark.parametrize("statistic", ["mean_abs", "nonfinite_steps"])
def test_a_history_of_nothing_else_is_drawn(number, shape, statistic):
    history = make_history(np.full(shape, number), statistic=statistic)
    figure = visualize_gradients(history, "", statistic)
    draw(figure)
    shown = any("no finite value" in text.get_text() for ax in figure.axes for text in ax.texts)
    assert shown == (number != 0 or statistic == "mean_abs")


def test_a_point_between_gaps_is_seen():
    values = np.array([[0.1], [0.2], [0.0], [0.3], [np.nan]])
    line = data_lines(visualize_gradients(make_history(values), "").axes[0])[0]
    assert_array_equal(line.get_markevery(), [False, False, False, True, False])


def test_a_lone_special_value_among_many_is_marked():
    values = magnitudes(1000, 200)
    values[617, 123] = np.nan
    figure = visualize_gradients(make_history(values), "")
    assert_array_equal(markers(figure.axes[1])["NaN"].get_xydata(), [[617, 123]])


# --- sizes and ranges


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (1, 200), (30, 100), (1000, 200)])
def test_from_one_to_many_it_is_drawn_within_seconds(shape):
    start = time.perf_counter()
    draw(visualize_gradients(make_history(magnitudes(*shape)), ""))
    assert time.perf_counter() - start < 8


@pytest.mark.parametrize(
    ("low", "high"),
    [(1e-38, 1e38), (5e-324, 1e307), (1e-323, 3e-323), (1e307, 7e307), (0.1234, 0.1235)],
)
def test_ticks_are_few_and_within_the_range_whatever_it_is(low, high):
    values = np.geomspace(low, high, 6).reshape(3, 2)
    values[1, 0] = 0
    # By-layer means of the largest floats overflow; the norm of a single weight does not.
    figure = visualize_gradients(make_history(values, statistic="l2_norm"), "", "l2_norm")
    draw(figure)
    for axis in (figure.axes[0].yaxis, figure.axes[2].yaxis):
        ticks = axis.get_ticklocs()
        assert 1 <= len(ticks) <= 8
        assert all(label.get_text() for label in axis.get_ticklabels())
    assert len(axis.get_ticklocs(minor=True)) == 0


def test_many_layers_are_named_by_some():
    figure = visualize_gradients(make_history(magnitudes(4, 200)), "")
    draw(figure)
    labels = [text.get_text() for text in figure.axes[1].get_yticklabels()]
    assert 6 <= len(labels) <= 12
    assert (labels[0], labels[-1]) == ("dense_0", "dense_199")


def test_places_are_kept_apart_and_in_the_axes():
    for places in ([0.5, 0.5, 0.5], [0, 0, 0, 0.9], [1, 1, 1, 1], [0.1, 0.5, 0.9]):
        apart = _apart(np.array(places, dtype=float), 0.1)
        assert (np.diff(apart) > 0.1 - 1e-12).all()
        assert apart.min() >= 0 and apart.max() <= 1 + 1e-12
    assert_allclose(_apart(np.array([0.5, 0.5, 0.5]), 0.1), [0.4, 0.5, 0.6])


# --- plot_gradients of several runs


def test_compared_runs_share_their_scales():
    small, large = magnitudes(5, 3) * 1e-6, with_special(12, 6)
    figure = plot_gradients({"small": make_history(small), "large": make_history(large)})
    draw(figure)
    panels = figure.axes[:4]
    above, below = panels[:2], panels[2:]
    assert [ax.get_title() for ax in above] == ["small", "large"]
    assert above[0].get_ylim() == above[1].get_ylim()
    assert above[0].get_shared_y_axes().joined(*above)
    assert above[0].get_ylim()[0] < small.min()
    assert len({ax.get_xlim() for ax in panels}) == 1
    assert meshes(below[0])[0].norm is meshes(below[1])[0].norm
    assert_array_equal(meshes(below[0])[0].get_array(), small.T)
    for ax, values in zip(above, (small, large), strict=True):
        for line, column in zip(data_lines(ax), values.T, strict=True):
            assert_array_equal(line.get_ydata(), column)
    assert legend_names(figure) == list(SPECIAL)


@pytest.mark.parametrize("runs", range(1, 13))
def test_each_compared_run_has_two_panels(runs):
    histories = {f"run {i}": make_history(magnitudes(3, 2, seed=i)) for i in range(runs)}
    figure = plot_gradients(histories, title="runs")
    draw(figure)
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert sorted(titles) == sorted(histories)
    assert len(figure.axes) == 2 * runs + 2


def test_compared_measurements_are_drawn_against_depth():
    values = {"a": magnitudes(1, 4), "b": magnitudes(1, 6, seed=1)}
    histories = {name: make_history(one) for name, one in values.items()}
    figure = plot_gradients(histories)
    draw(figure)
    assert len({ax.get_ylim() for ax in figure.axes}) == 1
    for ax, one in zip(figure.axes, values.values(), strict=True):
        assert_array_equal(ax.lines[0].get_ydata(), one[0])


def test_compared_runs_of_unlike_clocks_share_one():
    by_epoch = make_history(magnitudes(3, 2))
    by_step = make_history(magnitudes(3, 2), epochs=[1, 1, 2])
    figure = plot_gradients({"by epoch": by_epoch, "by step": by_step})
    assert {ax.get_xlabel() for ax in figure.axes[2:4]} == {"step"}


def test_one_run_of_plot_gradients_is_what_visualize_gradients_draws():
    history = make_history(with_special())
    one, other = plot_gradients(history, title="t"), visualize_gradients(history, "t")
    assert one.get_suptitle() == other.get_suptitle() == "t"
    assert legend_names(one) == legend_names(other)
    for ax, same in zip(one.axes, other.axes, strict=True):
        assert (ax.get_xlim(), ax.get_ylim()) == (same.get_xlim(), same.get_ylim())
        for line, copy in zip(ax.lines, same.lines, strict=True):
            assert_array_equal(line.get_xydata(), copy.get_xydata())


# --- plot_lines and plot_heatmap


@pytest.mark.parametrize("layers", [4, 12])
def test_lines_alone_are_those_beside_the_heatmap(layers):
    history = make_history(with_special(layers=max(layers, 5)))
    alone, beside = plot_lines(history, title="a title").axes[0], plot_gradients(history).axes[0]
    assert alone.figure.get_suptitle() == "a title"
    assert (alone.get_ylim(), alone.get_xlabel()) == (beside.get_ylim(), "epoch")
    assert [text.get_text() for text in alone.texts] == [t.get_text() for t in beside.texts]
    for line, same in zip(alone.lines, beside.lines, strict=True):
        assert_array_equal(line.get_xydata(), same.get_xydata())
        assert line.get_color() == same.get_color()
    assert legend_names(alone.figure) == list(SPECIAL)


def test_a_heatmap_alone_is_that_beside_the_lines():
    history = make_history(with_special())
    alone, beside = plot_heatmap(history, title="a title").axes[0], plot_gradients(history).axes[1]
    assert alone.figure.get_suptitle() == "a title"
    assert alone.get_ylim() == beside.get_ylim()
    for mesh, same in zip(meshes(alone), meshes(beside), strict=True):
        assert_array_equal(mesh.get_array(), same.get_array())
    assert legend_names(alone.figure) == list(SPECIAL)
    assert len(alone.figure.axes) == 2  # with the key to its colors


@pytest.mark.parametrize("runs", [1, 2, 4, 5])
def test_lines_of_several_runs_share_their_axes(runs):
    values = {f"run {i}": magnitudes(3 + i, 2, seed=i) * 10.0**i for i in range(runs)}
    figure = plot_lines({name: make_history(one) for name, one in values.items()})
    draw(figure)
    axes = figure.axes[:runs]
    assert [ax.get_title() for ax in axes] == list(values)
    assert len(figure.axes) == runs + 1
    assert len({(ax.get_xlim(), ax.get_ylim()) for ax in axes}) == 1
    for ax, one in zip(axes, values.values(), strict=True):
        assert_array_equal([line.get_ydata() for line in ax.lines], one.T)


@pytest.mark.parametrize("runs", [1, 2, 4, 5])
def test_heatmaps_of_several_runs_share_colors_and_time(runs):
    values = {f"run {i}": magnitudes(3 + i, 2, seed=i) * 10.0**i for i in range(runs)}
    figure = plot_heatmap({name: make_history(one) for name, one in values.items()})
    draw(figure)
    axes = figure.axes[:runs]
    assert [ax.get_title() for ax in axes] == list(values)
    assert len(figure.axes) == runs + 1
    assert len({ax.get_xlim() for ax in axes}) == 1
    assert len({id(meshes(ax)[0].norm) for ax in axes}) == 1
    for ax, one in zip(axes, values.values(), strict=True):
        assert_array_equal(meshes(ax)[0].get_array(), one.T)


def test_a_run_without_a_name_is_one_of_several():
    histories = {"": make_history(magnitudes(3, 2)), "b": make_history(magnitudes(3, 2))}
    for plot in (plot_lines, plot_heatmap):
        assert [ax.get_title() for ax in plot(histories).axes[:2]] == ["", "b"]


# --- what all have in common


def figures_of(history: GradientHistory) -> list[Figure]:
    return [
        visualize_gradients(history, ""),
        plot_gradients({"a": history, "b": history}),
        plot_lines(history),
        plot_heatmap({"a": history}),
        plot_gradient_by_depth(history),
        plot_seed_spread([history, history]),
    ]


def test_the_history_is_left_as_it_was():
    history = make_history(with_special())
    header, records = history.header(), [dict(history.record(i)) for i in range(len(history))]
    values = history["mean_abs"].copy()
    for figure in figures_of(history):
        draw(figure)
    assert_array_equal(history["mean_abs"], values)
    assert history.header() == header
    assert [dict(history.record(i)) for i in range(len(history))] == records


def test_pyplot_knows_no_figure_and_nothing_is_shown(monkeypatch):
    monkeypatch.setattr(plt, "show", lambda *_, **__: pytest.fail("show was called"))
    assert all(isinstance(one, Figure) for one in figures_of(make_history(magnitudes(3, 2))))
    assert plt.get_fignums() == []


def test_a_users_style_does_not_hide_what_is_drawn():
    with plt.style.context("dark_background"):
        figure = visualize_gradients(make_history(with_special()), "on white")
        draw(figure)
    assert figure.get_facecolor() == (1, 1, 1, 1)
    assert figure.texts == [] or all(text.get_color() != "white" for text in figure.texts)
    assert all(text.get_color() != "white" for text in figure.legends[0].get_texts())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda empty, full: visualize_gradients(empty, ""),
            ValueError,
            "gradients_history must have at least one record, received none: train for an epoch "
            "or measure once",
        ),
        (
            lambda empty, full: visualize_gradients(full, "", "mean_ab"),
            ValueError,
            "statistic must be one that gradients_history recorded (mean_abs), received "
            "'mean_ab'; did you mean 'mean_abs'?",
        ),
        (
            lambda empty, full: visualize_gradients(full, "", "max_abs"),
            ValueError,
            "statistic must be one that gradients_history recorded (mean_abs), received "
            "'max_abs': ask for it when you train",
        ),
        (
            lambda empty, full: visualize_gradients([1.0], ""),
            TypeError,
            "gradients_history must be a GradientHistory, received list: pass "
            "tracker.history, the result of train_and_track_gradients, or "
            "GradientHistory.load(path)",
        ),
        (
            lambda empty, full: plot_gradients({}),
            ValueError,
            "history must hold at least one history, received an empty mapping",
        ),
        (
            lambda empty, full: plot_gradients([full]),
            TypeError,
            "history must be a GradientHistory, received list: pass "
            "tracker.history, the result of train_and_track_gradients, or "
            "GradientHistory.load(path)",
        ),
        (
            lambda empty, full: plot_gradients({"a": full, "b": empty}),
            ValueError,
            "history['b'] must have at least one record, received none: train for an epoch "
            "or measure once",
        ),
        (
            lambda empty, full: plot_gradient_by_depth(full, epochs=[1, 7]),
            ValueError,
            "epochs must be among those recorded (0, 1, 2), received 7: choose one of these",
        ),
        (
            lambda empty, full: plot_gradient_by_depth(full, epochs=[]),
            ValueError,
            "epochs must name at least one epoch, received none: leave it out for the default",
        ),
        (
            lambda empty, full: plot_seed_spread([]),
            ValueError,
            "histories must hold at least one history, received none",
        ),
        (
            lambda empty, full: plot_seed_spread(full),
            TypeError,
            "histories must be a sequence of histories, received GradientHistory: pass a list "
            "with one history per seed",
        ),
        (
            lambda empty, full: plot_seed_spread([full, make_history(magnitudes(3, 1))]),
            ValueError,
            "histories must all have the same layers, but [1] has 1 (dense_0) and [0] has 2 "
            "(dense_0, dense_1): pass runs of one model",
        ),
        (
            lambda empty, full: plot_seed_spread(
                [full, make_history(magnitudes(1, 2), epochs=[9])]
            ),
            ValueError,
            "the histories must have a recorded epoch in common, received none: pass runs that "
            "were recorded at the same times",
        ),
    ],
)
def test_an_error_is_one_sentence_and_leaves_no_figure(call, error, message):
    full = make_history(magnitudes(3, 2))
    empty = GradientHistory(full.weights, ["mean_abs"])
    with pytest.raises(error) as caught:
        call(empty, full)
    assert str(caught.value) == message
    assert plt.get_fignums() == []


def test_warnings_are_errors_here():
    with pytest.raises(UserWarning):
        warnings.warn("as pyproject.toml says", stacklevel=1)


def test_a_value_above_the_axis_is_written_where_it_leaves():
    values = magnitudes(20, 3)
    values[15, 1] = 3e31
    figure = plot_lines(make_history(values))
    (ax,) = figure.axes[:1]
    notes = [text for text in ax.texts if text.get_text().startswith("↑")]
    assert [note.get_text() for note in notes] == ["↑ $3·10^{31}$"]
    assert ax.get_ylim()[1] < 3e31
    assert notes[0].xy[0] == 15
    assert notes[0].get_horizontalalignment() == "right"
    assert not any(
        text.get_text().startswith("↑")
        for text in plot_lines(make_history(magnitudes(20, 3))).axes[0].texts
    )


def loss_panels(figure):
    return [ax for ax in figure.axes if ax.get_ylabel() == "loss"]


def with_losses(values, losses):
    """As `make_history`, with a loss in each record."""
    history = GradientHistory(
        [Weight(f"dense_{i}", "scale", f"dense_{i}/scale", (1,)) for i in range(values.shape[1])],
        ["mean_abs"],
    )
    for i, (row, loss) in enumerate(zip(values, losses, strict=True)):
        history.append(i, 10 * i, {"mean_abs": row}, {"loss": loss})
    return history


def test_the_loss_is_a_slim_strip_above_the_lines_on_their_axis_of_time():
    losses = [4.0, 3.0, np.nan, 1.0, 1.0]
    figure = visualize_gradients(with_losses(magnitudes(5, 3), losses), "a title")
    figure.canvas.draw()
    (strip,) = loss_panels(figure)
    (lines,) = [ax for ax in figure.axes if len([a for a in ax.lines if len(a.get_xdata())]) == 3]
    assert_array_equal(strip.lines[0].get_ydata(), losses)
    assert_array_equal(strip.lines[0].get_xdata(), range(5))
    assert strip.get_xlim() == lines.get_xlim()
    above, below = strip.get_position(), lines.get_position()
    assert_allclose([above.x0, above.x1], [below.x0, below.x1])
    assert above.y0 > below.y1
    assert above.height < 0.5 * below.height
    marks = [line for line in strip.lines if line.get_label() == "NaN"]
    assert_array_equal(marks[0].get_xdata(), [2])
    (legend,) = figure.legends
    assert "NaN" in [text.get_text() for text in legend.get_texts()]


def test_several_runs_have_their_losses_on_one_scale_and_a_run_without_one_has_no_strip():
    values = magnitudes(4, 3)
    runs = {"a": with_losses(values, [4.0, 3, 2, 1]), "b": with_losses(values, [9.0, 9, 9, 9])}
    figure = plot_gradients(runs)
    panels = [
        ax for ax in figure.axes if any(np.array_equal(a.get_ydata(), [9.0] * 4) for a in ax.lines)
    ]
    assert len(panels) == 1
    assert len(loss_panels(figure)) == 1  # the name is written once
    limits = {ax.get_ylim() for ax in [*panels, *loss_panels(figure)]}
    assert len(limits) == 1
    assert not loss_panels(plot_gradients({"a": runs["a"], "b": make_history(values)}))
    assert not loss_panels(visualize_gradients(make_history(values), "no loss"))
