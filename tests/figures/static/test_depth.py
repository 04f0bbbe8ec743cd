"""Figures against depth, by reading their artists back; every number in them is made here."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
from figures.static.test_gradients import SPECIAL, magnitudes, with_special
from figures.static.test_gradients import make_history as make_run
from matplotlib.axes import Axes
from matplotlib.collections import FillBetweenPolyCollection
from matplotlib.figure import Figure
from numpy.testing import assert_allclose, assert_array_equal

from kgrad.experiments.prediction.predict import Prediction
from kgrad.figures.static import (
    plot_gradient_by_depth,
    plot_prediction,
    plot_seed_spread,
    visualize_gradients,
)
from kgrad.records.history import GradientHistory, Weight
from kgrad.theory import activation

pytestmark = pytest.mark.usefixtures("nothing_leaks")


def names(layers: int) -> list[str]:
    return [*(f"hidden_{i}" for i in range(1, layers)), "output"]


def weights(layers: int) -> list[Weight]:
    return [Weight(name, "kernel", f"{name}/kernel", (2, 2)) for name in names(layers)]


def make_prediction(
    line: np.ndarray,
    low: np.ndarray | None = None,
    high: np.ndarray | None = None,
    phi: str = "tanh",
    variances: tuple[float, ...] = (),
    biases: tuple[float, ...] = (),
) -> Prediction:
    """One kernel a layer; `l2_norm` is 5 times `mean_abs`; all layers dense."""
    layers = names(len(line))
    low = line / 3 if low is None else low
    high = line * 3 if high is None else high
    both = [{"mean_abs": v, "l2_norm": 5 * v} for v in (line, low, high)]
    w, b = variances or (1.0,) * len(line), biases or (0.0,) * len(line)
    return Prediction(
        weights(len(line)),
        both[0],
        lower=both[1],
        upper=both[2],
        sigma_w2=dict(zip(layers, w, strict=True)),
        sigma_b2=dict(zip(layers, b, strict=True)),
        activations={name: activation(phi) for name in layers[:-1]},
    )


def make_history(records: np.ndarray, first_epoch: int = 0) -> GradientHistory:
    history = GradientHistory(weights(records.shape[1]), ["mean_abs", "l2_norm"])
    for i, row in enumerate(records):
        history.append(first_epoch + i, 10 * i, {"mean_abs": row, "l2_norm": 7 * row})
    return history


def slope(layers: int = 6) -> np.ndarray:
    return 10.0 ** np.linspace(-6, -1, layers)


def line_of(ax: Axes) -> np.ndarray:
    (line,) = [one for one in ax.lines if one.get_label() == "predicted"]
    assert_array_equal(line.get_xdata(), np.arange(1, len(line.get_xdata()) + 1))
    return np.asarray(line.get_ydata())


def points_of(ax: Axes) -> np.ndarray:
    points = [one for one in ax.lines if one.get_label() == "measured"]
    assert all((p.get_linestyle(), p.get_marker()) == ("None", "o") for p in points)
    return np.array([point.get_ydata() for point in points])


def band_of(ax: Axes) -> tuple[np.ndarray, np.ndarray]:
    (band,) = [one for one in ax.collections if isinstance(one, FillBetweenPolyCollection)]
    corners = band.get_paths()[0].vertices
    heights = [corners[corners[:, 0] == x, 1] for x in np.unique(corners[:, 0])]
    return np.array([h.min() for h in heights]), np.array([h.max() for h in heights])


def legend_names(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def ticks(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.get_xticklabels()]


# --- plot_gradient_by_depth


def test_depth_profiles_are_the_chosen_epochs():
    values = magnitudes(6, 5)
    figure = plot_gradient_by_depth(make_run(values), epochs=[0, 3])
    figure.canvas.draw()
    ax = figure.axes[0]
    assert ax.get_yscale() == "log"
    for line, epoch in zip(ax.lines, (0, 3), strict=True):
        assert_array_equal(line.get_ydata(), values[epoch])
    assert legend_names(figure) == ["epoch 0", "epoch 3"]


def test_depth_profiles_go_from_first_to_last_by_default():
    figure = plot_gradient_by_depth(make_run(magnitudes(31, 5)))
    assert legend_names(figure) == ["epoch 0", "epoch 1", "epoch 5", "epoch 12", "epoch 30"]
    short = plot_gradient_by_depth(make_run(magnitudes(2, 5)))
    assert legend_names(short) == ["epoch 0", "epoch 1"]


def test_an_epoch_of_several_records_is_its_last():
    values = magnitudes(4, 3)
    history = make_run(values, epochs=[0, 1, 1, 2])
    figure = plot_gradient_by_depth(history, epochs=[1])
    assert_array_equal(figure.axes[0].lines[0].get_ydata(), values[2])
    assert legend_names(plot_gradient_by_depth(history))[-1] == "step 30"


def test_depth_profiles_of_several_runs_share_the_scale():
    histories = {"a": make_run(magnitudes(9, 3)), "b": make_run(magnitudes(5, 7) / 1e9)}
    figure = plot_gradient_by_depth(histories)
    figure.canvas.draw()
    assert [ax.get_title() for ax in figure.axes] == ["a", "b"]
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()
    assert legend_names(figure)[-1] == "epoch 4"  # the last that both have


def test_special_values_are_marked_by_depth():
    figure = plot_gradient_by_depth(make_run(with_special()), epochs=[2, 5, 7])
    figure.canvas.draw()
    edges = "marks (outlined in their line's color):"
    assert legend_names(figure) == ["epoch 2", "epoch 5", "epoch 7", edges, *SPECIAL]
    found = {
        (str(line.get_label()), depth)
        for line in figure.axes[0].lines
        for depth in line.get_xdata()
        if line.get_label() in SPECIAL
    }
    assert found == {("0 (exactly)", 1), ("infinite", 3), ("NaN", 4)}


def test_a_prediction_is_drawn_below_the_profiles_of_a_run():
    line, records = slope(), slope() * np.array([[1.5], [3.0]])
    figure = plot_gradient_by_depth(make_history(records), prediction=make_prediction(line))
    figure.canvas.draw()
    (ax,) = figure.axes
    assert_allclose(line_of(ax), line)
    assert_allclose(band_of(ax), [line / 3, line * 3])
    labels = [one.get_label() for one in ax.lines]
    assert labels.index("predicted") < labels.index("epoch 0")
    assert ax.get_ylim()[0] < line.min() / 3
    assert legend_names(figure) == ["epoch 0", "epoch 1", "predicted", "95 % of networks"]


def test_each_run_may_have_its_prediction_over_its_dense_layers():
    prediction = make_prediction(slope())
    del prediction.sigma_w2["hidden_2"]
    history = make_history(slope()[None])
    figure = plot_gradient_by_depth({"a": history, "b": history}, prediction={"b": prediction})
    first, second = figure.axes
    assert "predicted" not in [one.get_label() for one in first.lines]
    (line,) = [one for one in second.lines if one.get_label() == "predicted"]
    assert_array_equal(line.get_xdata(), [1, 3, 4, 5, 6])
    assert_allclose(line.get_ydata(), slope()[[0, 2, 3, 4, 5]])


# --- plot_seed_spread


def test_spread_is_the_median_and_the_range_over_seeds():
    values = np.array([magnitudes(4, 3, seed=seed) for seed in range(5)])
    figure = plot_seed_spread([make_run(one) for one in values])
    figure.canvas.draw()
    ax = figure.axes[0]
    bands = [one for one in ax.collections if isinstance(one, FillBetweenPolyCollection)]
    for line, band, record in zip(ax.lines, bands, (0, 3), strict=True):
        assert_allclose(line.get_ydata(), np.median(values[:, record], axis=0))
        heights = band.get_paths()[0].vertices
        for depth in (1, 2, 3):
            here = heights[heights[:, 0] == depth, 1]
            assert here.min() == pytest.approx(values[:, record, depth - 1].min())
            assert here.max() == pytest.approx(values[:, record, depth - 1].max())
    assert legend_names(figure) == ["epoch 0", "epoch 3", "least to greatest of 5 seeds"]


def test_spread_over_groups_shares_the_scale():
    groups = {
        name: [make_run(magnitudes(3, 4, seed=seed) * factor) for seed in range(count)]
        for name, factor, count in (("a", 1, 3), ("b", 1e-9, 2))
    }
    figure = plot_seed_spread(groups, epochs=[2])
    figure.canvas.draw()
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()
    assert legend_names(figure) == ["epoch 2", "least to greatest over seeds"]


@pytest.mark.parametrize("number", [0.0, np.inf, np.nan])
def test_spread_of_special_values_is_drawn(number):
    values = [magnitudes(2, 4, seed=seed) for seed in range(3)]
    values[0][0, 1] = number
    values[1][1] = number
    figure = plot_seed_spread([make_run(one) for one in values])
    figure.canvas.draw()
    assert len(legend_names(figure)) == 5


# --- plot_prediction


def test_line_and_band_are_the_prediction_and_points_are_epoch_0():
    line, records = slope(), slope() * np.array([[1.5], [100.0]])
    figure = plot_prediction(make_history(records), make_prediction(line), title="a title")
    figure.canvas.draw()
    (ax,) = figure.axes
    assert figure.get_suptitle() == "a title"
    assert (ax.get_yscale(), ax.get_ylabel()) == ("log", "mean |gradient|")
    assert_allclose(line_of(ax), line)
    assert_allclose(band_of(ax), [line / 3, line * 3])
    assert_allclose(points_of(ax), [records[0]])
    assert ticks(ax) == names(6)
    assert legend_names(figure) == ["predicted", "95 % of networks", "measured"]


def test_the_points_lie_above_the_line_and_the_line_above_the_band():
    (ax,) = plot_prediction(make_history(slope()[None]), make_prediction(slope())).axes
    order = [
        (one.get_zorder(), i)
        for i, one in enumerate(ax.get_children())
        if one.get_label() in ("predicted", "measured")
        or isinstance(one, FillBetweenPolyCollection)
    ]
    assert order == sorted(order)


def test_every_replicate_has_its_points():
    records = [slope()[None] * factor for factor in (0.5, 1.0, 2.0)]
    figure = plot_prediction([make_history(one) for one in records], make_prediction(slope()))
    assert_allclose(points_of(figure.axes[0]), np.concatenate(records))
    assert legend_names(figure)[-1] == "measured, 3 seeds"


def test_the_norm_is_drawn_on_request():
    line = slope()
    figure = plot_prediction(make_history(line[None]), make_prediction(line), statistic="l2_norm")
    (ax,) = figure.axes
    assert ax.get_ylabel() == "gradient L2 norm"
    assert_allclose(line_of(ax), 5 * line)
    assert_allclose(points_of(ax), [7 * line])


def test_layers_of_normalization_are_left_out():
    prediction, history = make_prediction(slope()), make_history(slope()[None])
    del prediction.sigma_w2["hidden_2"]
    (ax,) = plot_prediction(history, prediction).axes
    kept = [0, 2, 3, 4, 5]
    assert ticks(ax) == [names(6)[i] for i in kept]
    assert_allclose(line_of(ax), slope()[kept])
    assert_allclose(points_of(ax), [slope()[kept]])
    assert_allclose(band_of(ax), [slope()[kept] / 3, slope()[kept] * 3])


def test_networks_have_a_panel_each_on_a_shared_scale():
    lines = {"small": slope(4) * 1e-6, "large": slope(9)}
    histories = {name: [make_history(line[None])] * 2 for name, line in lines.items()}
    predictions = {name: make_prediction(line) for name, line in reversed(lines.items())}
    figure = plot_prediction(histories, predictions)
    figure.canvas.draw()
    assert [ax.get_title() for ax in figure.axes] == ["small", "large"]
    assert len({ax.get_ylim() for ax in figure.axes}) == 1
    for ax, line in zip(figure.axes, lines.values(), strict=True):
        assert_allclose(line_of(ax), line)
        assert ticks(ax)[-1] == "output"


@pytest.mark.parametrize("layers", [1, 3, 10, 100])
def test_few_and_many_layers_are_named_from_the_first_to_the_output(layers):
    line = slope(layers)
    figure = plot_prediction(make_history(line[None]), make_prediction(line))
    figure.canvas.draw()
    shown = ticks(figure.axes[0])
    assert shown == names(layers) if layers <= 10 else 6 <= len(shown) <= 12
    assert shown[-1] == "output"
    boxes = [text.get_window_extent() for text in figure.axes[0].get_xticklabels()]
    assert all(box.y0 > 0 for box in boxes)


def test_zero_infinity_and_nan_are_marked_whether_predicted_or_measured():
    line, measured = slope(6), slope(6)
    line[0], measured[1:3] = 0, (np.inf, np.nan)
    figure = plot_prediction(make_history(measured[None]), make_prediction(line))
    figure.canvas.draw()
    assert legend_names(figure)[3:] == ["0 (exactly)", "infinite", "NaN"]
    marked = {
        (one.get_label(), x)
        for one in figure.axes[0].lines
        if one.get_label() in ("0 (exactly)", "infinite", "NaN")
        for x in one.get_xdata()
    }
    assert marked == {("0 (exactly)", 1), ("infinite", 2), ("NaN", 3)}


def test_a_band_that_reaches_zero_or_infinity_ends_at_the_axis_and_has_no_marks():
    line = slope()
    low, high = np.where(line < 1e-4, 0, line / 3), np.where(line < 1e-4, np.inf, line * 3)
    figure = plot_prediction(make_history(line[None]), make_prediction(line, low, high))
    figure.canvas.draw()
    (ax,) = figure.axes
    lowest, highest = ax.get_ylim()
    below, above = band_of(ax)
    assert_allclose(below[:2], lowest)
    assert_allclose(above[:2], highest)
    assert lowest > 1e-9
    assert legend_names(figure) == ["predicted", "95 % of networks", "measured"]


@pytest.mark.parametrize(
    ("change", "kind", "sentence"),
    [
        ({"history": 3}, TypeError, "history must be a sequence of histories, received int"),
        ({"prediction": 3}, TypeError, "prediction must be a Prediction, received int"),
        ({"history": {"a": []}}, ValueError, "prediction must map the names in history ('a')"),
        (
            {"statistic": "max_abs"},
            ValueError,
            "statistic must be one that history recorded (mean_abs, l2_norm), received 'max_abs'",
        ),
        (
            {"history": make_history(slope()[None], first_epoch=1)},
            ValueError,
            "history must have a record of epoch 0, received epochs from 1 on",
        ),
        (
            {"history": make_history(slope(5)[None])},
            ValueError,
            "history must have the layers of prediction (hidden_1, hidden_2",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_sentence(change, kind, sentence):
    given = {"history": make_history(slope()[None]), "prediction": make_prediction(slope())}
    with pytest.raises(kind) as refusal:
        plot_prediction(**(given | change))
    assert str(refusal.value).startswith(sentence)
    assert "\n" not in str(refusal.value)


def test_a_statistic_that_is_recorded_but_not_predicted_is_refused():
    history = GradientHistory(weights(3), ["max_abs"])
    history.append(0, 0, {"max_abs": [1.0, 1.0, 1.0]})
    with pytest.raises(ValueError, match=r"is predicted \(mean_abs, l2_norm\), received 'max_abs'"):
        plot_prediction(history, make_prediction(slope(3)), statistic="max_abs")


# --- visualize_gradients with a prediction


def test_a_prediction_adds_a_panel_of_epoch_0_below_the_two():
    line, records = slope(), slope() * np.array([[2.0], [0.1], [0.01]])
    history = make_history(records)
    plain = visualize_gradients(history, "t")
    figure = visualize_gradients(history, "t", prediction=make_prediction(line))
    figure.canvas.draw()
    left, right, below = figure.axes[:3]
    assert below.get_title() == "epoch 0, before training"
    assert_allclose(line_of(below), line)
    assert_allclose(points_of(below), [records[0]])
    assert_allclose(band_of(below), [line / 3, line * 3])
    assert below.get_window_extent().y1 < left.get_window_extent().y0
    for one, other in zip((left, right), plain.axes[:2], strict=True):
        assert (one.get_xlim(), one.get_ylim()) == (other.get_xlim(), other.get_ylim())
        assert len(one.lines) == len(other.lines)
    assert left.get_shared_x_axes().joined(left, right)
    assert not left.get_shared_x_axes().joined(left, below)
    assert legend_names(figure) == ["predicted", "95 % of networks", "measured"]


def test_what_only_the_prediction_holds_is_in_the_legend_once():
    line, records = slope(), slope() * np.ones((2, 1))
    records[1, 1] = np.nan
    line[2], line[3] = 0, np.nan
    figure = visualize_gradients(make_history(records), "t", prediction=make_prediction(line))
    assert sorted(legend_names(figure)[3:]) == ["0 (exactly)", "NaN"]


def test_one_record_with_a_prediction_is_one_panel():
    line = slope()
    figure = visualize_gradients(make_history(line[None]), "t", prediction=make_prediction(line))
    (ax,) = figure.axes
    assert_allclose(line_of(ax), line)
    assert_allclose(points_of(ax), [line])


def test_a_prediction_of_another_model_is_refused():
    with pytest.raises(ValueError, match="gradients_history must have the layers of prediction"):
        visualize_gradients(make_history(slope(5)[None]), "", prediction=make_prediction(slope()))


def test_a_few_runs_of_one_moment_are_named_lines_in_one_panel():
    values = {f"run {i}": 10.0 ** -np.array([i, i + 1.0, i + 2.0]) for i in range(7)}
    runs = {name: make_run(row[None]) for name, row in values.items()}
    figure = plot_gradient_by_depth(runs)
    figure.canvas.draw()
    (ax,) = figure.axes
    lines = [line for line in ax.lines if line.get_label() in values]
    assert [line.get_label() for line in lines] == list(values)
    for line, row in zip(lines, values.values(), strict=True):
        assert_allclose(line.get_ydata(), row)
    assert len({line.get_color() for line in lines}) == 7
    names = {text.get_text(): text for text in ax.texts}
    assert set(names) == set(values)
    heights = [names[name].get_position()[1] for name in values]
    assert heights == sorted(heights, reverse=True)  # as the lines end
    assert ax.get_title() == "epoch 0"
    many = runs | {f"more {i}": one for i, one in enumerate(list(runs.values())[:3])}
    assert len(plot_gradient_by_depth(many).axes) == 10


def test_runs_with_more_layers_share_the_panel_of_those_with_fewer():
    names = {"plain": ["in", "mid", "out"], "skip": ["in", "around", "mid", "out"]}
    values = {"plain": [1.0, 0.5, 0.2], "skip": [0.9, 0.7, 0.5, 0.3]}

    def run(name, layers):
        history = GradientHistory([Weight(n, "scale", n, (1,)) for n in layers], ["mean_abs"])
        history.append(0, 0, {"mean_abs": values[name]})
        return history

    runs = {name: run(name, layers) for name, layers in names.items()}
    (ax,) = plot_gradient_by_depth(runs).axes
    lines = {line.get_label(): line for line in ax.lines if line.get_label() in runs}
    assert_allclose(lines["plain"].get_xdata(), [1, 3, 4])
    assert_allclose(lines["skip"].get_xdata(), [1, 2, 3, 4])
    for name, line in lines.items():
        assert_allclose(line.get_ydata(), values[name])
    assert [text.get_text() for text in ax.get_xticklabels()] == names["skip"]
    # Layers in another order, or another last layer, do not fit on one axis.
    for other in (["mid", "in", "out"], ["in", "mid", "end"]):
        assert len(plot_gradient_by_depth(runs | {"plain": run("plain", other)}).axes) == 2


def test_a_band_ends_where_its_line_does():
    replicates = [make_run(np.array([[1.0, 0.5, 0.0, 0.5]]) * k) for k in (1, 2, 4)]
    figure = plot_seed_spread(replicates, epochs=[0])
    (band,) = [c for c in figure.axes[0].collections if isinstance(c, FillBetweenPolyCollection)]
    corners = np.concatenate([path.vertices for path in band.get_paths()])
    assert_allclose(sorted(set(corners[:, 0].tolist())), [1, 2, 4])  # none at the zeros
    assert corners[:, 1].min() >= 0.5
