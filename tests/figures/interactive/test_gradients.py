"""The interactive figures, by reading their traces back; every number in them is made here."""

import numpy as np
import plotly.graph_objects as go
import plotly.io as pio
import pytest
from figures.static.test_depth import make_history as predicted_history
from figures.static.test_depth import make_prediction
from figures.static.test_gradients import magnitudes, make_history, with_losses, with_special
from matplotlib.colors import to_hex
from numpy.testing import assert_allclose, assert_array_equal

from kgrad.figures.interactive import (
    plot_distributions,
    plot_gradient_by_depth,
    plot_gradients,
    plot_heatmap,
    plot_lines,
)
from kgrad.figures.interactive.gradients import heatmap_figure, lines_figure
from kgrad.figures.interactive.parts import superscript
from kgrad.figures.looks import DEPTH, MAGNITUDE
from kgrad.figures.scale import INFINITE, NAN, ZERO, Scale
from kgrad.records.history import GradientHistory, Weight


def curves(figure: go.Figure) -> list[go.Scatter]:
    return [t for t in figure.data if t.type == "scatter" and t.mode == "lines"]


def named(figure: go.Figure, name: str, kind: str = "scatter") -> go.Scatter:
    (found,) = (trace for trace in figure.data if trace.name == name and trace.type == kind)
    return found


def main_heatmaps(figure: go.Figure) -> list[go.Heatmap]:
    return [one for one in figure.data if one.type == "heatmap" and one.coloraxis]


def test_lines_hold_every_value_and_tell_layer_shape_and_epoch() -> None:
    values = magnitudes(6, 3)
    figure = plot_lines(make_history(values), title="Mine")
    assert figure.layout.title.text == "Mine"
    assert figure.layout.yaxis.type == "log"
    for i, trace in enumerate(curves(figure)):
        assert_allclose(trace.y, values[:, i], rtol=1e-6)
        assert_array_equal(trace.x, np.arange(6))
        assert trace.hovertemplate.startswith(f"dense_{i}<br>scale (1,)<br>epoch %{{x")
        assert trace.line.color == to_hex(DEPTH([0.0, 0.5, 1.0][i]))


def test_the_axis_is_that_of_the_static_figure() -> None:
    values = with_special()
    axis = plot_lines(make_history(values)).layout.yaxis
    scale = Scale.of("mean_abs", [values])
    assert_allclose(10 ** np.array(axis.range), scale.limits)
    strips = [scale.value_at(scale.height(special)) for special in scale.special]
    assert_allclose(axis.tickvals, [*scale.ticks(), *strips])
    assert axis.ticktext[-3:] == ("0", "∞", "NaN")


def test_zero_nan_and_infinity_have_marks_in_strips_and_interrupt_lines() -> None:
    values = with_special()
    figure = plot_lines(make_history(values))
    bottom, top = figure.layout.yaxis.range
    for name, x, layers, height in (
        ("0 (exactly)", [2, 3], ["dense_0", "dense_1"], 0.035),
        ("infinite", [5], ["dense_2"], 0.965),
        ("NaN", [7, 8], ["dense_3", "dense_4"], 0.895),
    ):
        marks = named(figure, name)
        assert_array_equal(marks.x, x)
        assert [text.split("<br>")[1] for text in marks.text] == layers
        assert_allclose((np.log10(marks.y) - bottom) / (top - bottom), height)
    assert_array_equal(np.isnan(curves(figure)[0].y), np.arange(12) == 2)
    strips = [shape for shape in figure.layout.shapes if shape.type == "rect"]
    assert len(strips) == 3


def test_a_value_between_two_gaps_is_a_dot() -> None:
    values = magnitudes(5, 1)
    values[[1, 3], 0] = np.nan
    (dots,) = [
        t for t in plot_lines(make_history(values)).data if t.mode == "markers" and t.name != "NaN"
    ]
    assert_array_equal(dots.x, [0, 2, 4])
    assert_allclose(dots.y, values[[0, 2, 4], 0], rtol=1e-6)


def test_a_heatmap_holds_every_value_and_its_logarithm_as_color() -> None:
    values = with_special()
    figure = plot_heatmap(make_history(values))
    (cells,) = main_heatmaps(figure)
    ordinary = np.isfinite(values) & (values > 0)
    expected = np.where(ordinary, values, np.nan).T
    assert_allclose(cells.customdata, expected, rtol=1e-6)
    assert_allclose(cells.z, np.log10(expected), rtol=1e-6)
    assert_array_equal(cells.x, np.arange(12))
    assert cells.y[1] == "dense_1<br>scale (1,)"
    assert figure.layout.yaxis.range == (4.5, -0.5)  # the input on top
    colors = figure.layout.coloraxis
    scale = Scale.of("mean_abs", [values])
    assert_allclose([colors.cmin, colors.cmax], np.log10([scale.low, scale.high]))
    assert colors.colorscale[0] == (0.0, to_hex(MAGNITUDE(0.0)))
    assert colors.colorscale[-1] == (1.0, to_hex(MAGNITUDE(1.0)))


@pytest.mark.parametrize("special", [ZERO, INFINITE, NAN], ids=lambda one: one.name)
def test_a_special_cell_has_the_color_of_its_kind_and_nothing_above_it(special) -> None:
    values = with_special()
    figure = plot_heatmap(make_history(values))
    cells = named(figure, special.name, "heatmap")
    found = {ZERO: values == 0, INFINITE: np.isinf(values), NAN: np.isnan(values)}[special]
    assert_array_equal(np.isfinite(cells.z), found.T)
    assert cells.colorscale[0][1] == to_hex(special.color)
    assert not cells.hoverongaps
    assert special.name in cells.hovertemplate


def test_a_magnitude_that_float32_cannot_hold_is_kept() -> None:
    values = magnitudes(4, 2) * 1e-60
    history = make_history(values)
    assert_allclose([trace.y for trace in curves(plot_lines(history))], values.T)
    assert_allclose(main_heatmaps(plot_heatmap(history))[0].customdata, values.T)


def test_compared_runs_share_colors_and_time() -> None:
    small, large = magnitudes(4, 3), 1e6 * magnitudes(7, 2)
    figure = plot_heatmap({"small": make_history(small), "large": make_history(large)})
    first, second = main_heatmaps(figure)
    assert first.coloraxis == second.coloraxis == "coloraxis"
    assert_allclose(first.customdata, small.T, rtol=1e-6)
    assert_allclose(second.customdata, large.T, rtol=1e-6)
    assert_allclose(10**figure.layout.coloraxis.cmin, small.min())
    assert_allclose(10**figure.layout.coloraxis.cmax, large.max())
    assert figure.layout.xaxis.range == figure.layout.xaxis2.range == (-0.5, 6.5)
    assert [note.text for note in figure.layout.annotations] == ["<b>small</b>", "<b>large</b>"]


def places(figure: go.Figure, traces: list) -> list[str]:
    """The y axis of each trace's panel: "y" for the first."""
    return [trace.yaxis or "y" for trace in traces]


def test_gradients_are_lines_above_a_heatmap_on_one_time_axis() -> None:
    values = with_special()
    figure = plot_gradients(make_history(values), title="Mine")
    assert figure.layout.title.text == "Mine"
    assert set(places(figure, curves(figure))) == {"y"}
    assert places(figure, main_heatmaps(figure)) == ["y2"]
    assert figure.layout.yaxis.domain[0] > figure.layout.yaxis2.domain[1]
    for i, trace in enumerate(curves(figure)):
        expected = np.where(np.isfinite(values) & (values > 0), values, np.nan)[:, i]
        assert_allclose(trace.y, expected, rtol=1e-6)
    assert main_heatmaps(figure)[0].z.shape == (5, 12)
    assert figure.layout.xaxis.range == figure.layout.xaxis2.range
    assert (figure.layout.xaxis2.matches, figure.layout.xaxis2.title.text) == ("x", "epoch")
    shown = [trace.name for trace in figure.data if trace.type == "scatter" and trace.showlegend]
    assert sorted(shown[5:]) == ["0 (exactly)", "NaN", "infinite"]  # each once


def test_gradients_of_several_runs_are_below_each_other_on_one_scale() -> None:
    small, large = magnitudes(4, 3), 1e6 * magnitudes(7, 2)
    figure = plot_gradients({"small": make_history(small), "large": make_history(large)})
    assert places(figure, curves(figure)) == ["y"] * 3 + ["y3"] * 2
    assert places(figure, main_heatmaps(figure)) == ["y2", "y4"]
    assert figure.layout.yaxis.range == figure.layout.yaxis3.range
    assert_allclose(main_heatmaps(figure)[1].customdata, large.T, rtol=1e-6)
    assert [note.text for note in figure.layout.annotations] == ["<b>small</b>", "<b>large</b>"]
    assert {one.range for one in figure.select_xaxes()} == {(-0.5, 6.5)}


def test_a_prediction_adds_a_panel_of_epoch_0() -> None:
    line = np.array([1e-4, 1e-3, 1e-2])
    history = predicted_history(np.stack([line * 1.5, line * 2]))
    figure = plot_gradients(history, prediction=make_prediction(line))
    predicted, measured = named(figure, "predicted"), named(figure, "measured")
    assert predicted.yaxis == measured.yaxis == "y3"
    assert_allclose(predicted.y, line)
    assert_allclose(measured.y, line * 1.5)
    assert figure.layout.xaxis3.matches is None
    assert figure.layout.xaxis3.ticktext == ("hidden_1", "hidden_2", "output")
    assert figure.layout.annotations[0].text == "<b>epoch 0, before training</b>"


def test_gradients_of_one_record_are_drawn_against_depth() -> None:
    values = magnitudes(1, 4)
    figure = plot_gradients(make_history(values))
    (profile,) = figure.data
    assert_allclose(profile.y, values[0])
    assert figure.layout.xaxis.title.text == "layer, input → output"
    line = np.array([1e-4, 1e-3, 1e-2])
    figure = plot_gradients(predicted_history(line[None]), prediction=make_prediction(line))
    assert_allclose(named(figure, "measured").y, line)


def test_lines_of_several_runs_are_side_by_side_on_one_scale() -> None:
    values = {f"run {i}": 10.0**i * magnitudes(3 + i, 2, seed=i) for i in range(3)}
    figure = plot_lines({name: make_history(one) for name, one in values.items()})
    assert places(figure, curves(figure)) == ["y", "y", "y2", "y2", "y3", "y3"]
    drawn = [trace.y for trace in curves(figure)]
    expected = [column for one in values.values() for column in one.T]
    for line, column in zip(drawn, expected, strict=True):
        assert_allclose(line, column, rtol=1e-6)
    assert figure.layout.yaxis.range == figure.layout.yaxis2.range == figure.layout.yaxis3.range
    assert figure.layout.xaxis4.visible is figure.layout.yaxis4.visible is False
    assert [note.text[3:-4] for note in figure.layout.annotations] == list(values)
    shown = [trace.name for trace in figure.data if trace.showlegend]
    assert shown == ["dense_0", "dense_1"]  # once for all runs


def test_figures_of_apps_share_a_scale_and_are_thinner() -> None:
    history, scale = make_history(magnitudes(50, 2)), Scale.of("mean_abs", [np.array([1e-9, 1e9])])
    figure = lines_figure(history, "mean_abs", most=20, scale=scale)
    assert_allclose(10 ** np.array(figure.layout.yaxis.range), scale.limits)
    assert {len(trace.x) for trace in curves(figure)} == {20}
    assert main_heatmaps(heatmap_figure(history, "mean_abs", most=20))[0].z.shape == (2, 20)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_key_to_depth_has_the_input_where_the_lines_have_it(sign) -> None:
    values = np.tile(10.0 ** (sign * np.arange(12)), (3, 1))
    (key,) = [t for t in plot_lines(make_history(values)).data if t.marker.showscale]
    texts = key.marker.colorbar.ticktext
    assert texts == (("input", "output") if sign > 0 else ("output", "input"))  # upwards
    ends = [key.marker.colorscale[at][1] for at in (0, -1)]
    assert ends == [to_hex(DEPTH(0.0 if text == "input" else 1.0)) for text in texts]


def test_a_history_without_a_finite_value_says_so() -> None:
    figure = plot_lines(make_history(np.zeros((3, 2))))
    assert "no finite value above 0" in [note.text for note in figure.layout.annotations]
    assert_array_equal(named(figure, "0 (exactly)").x, [0, 1, 2])


def test_names_are_shown_as_they_are_and_not_read_as_html() -> None:
    history = GradientHistory([Weight("<b>%{x}</b>", "k", "p", (2,))], ["mean_abs"])
    for epoch in (0, 1):
        history.append(epoch, epoch, {"mean_abs": [0.5]})
    assert "<b>" not in curves(plot_lines(history))[0].hovertemplate
    assert curves(plot_lines(history))[0].hovertemplate.count("%{") == 2  # epoch and value
    figure = plot_heatmap(history)
    assert main_heatmaps(figure)[0].y[0].startswith("&lt;b&gt;%{x}&lt;/b&gt;<br>")
    assert figure.layout.yaxis.ticktext == ("&lt;b&gt;%{x}&lt;/b&gt;",)
    assert "<b>" not in plot_heatmap({"<b>": history}).layout.annotations[0].text[3:-4]


def test_exponents_are_raised() -> None:
    assert superscript("$10^{-3}$") == "10<sup>−3</sup>"
    assert superscript("0.02") == "0.02"


def test_a_thousand_epochs_of_a_hundred_layers_are_few_points(random) -> None:
    values = 10 ** random.normal(-4, 1, (1000, 100))
    history = make_history(values)
    drawn = curves(plot_lines(history))
    assert max(len(trace.x) for trace in drawn) <= 400
    assert_allclose([trace.y.max() for trace in drawn], values.max(axis=0), rtol=1e-6)
    assert_allclose([trace.y.min() for trace in drawn], values.min(axis=0), rtol=1e-6)
    assert main_heatmaps(plot_heatmap(history))[0].z.shape == (100, 400)


def with_distributions(records: int, layers: int) -> tuple[GradientHistory, np.ndarray]:
    """Counts of 100 entries: 20 zeros, 10 NaN, the rest in two bins that move with the record."""
    weights = [Weight(f"d{i}", "k", f"d{i}/k", (100,)) for i in range(layers)]
    history = GradientHistory(weights, ["mean_abs"])
    counts = np.zeros((records, layers, 256), int)
    for r in range(records):
        counts[r, :, 0], counts[r, :, 255] = 20, 10
        counts[r, :, 110 + r % 5], counts[r, :, 112 + r % 5] = 42, 28
        values = {"mean_abs": [1e-4] * layers}
        history.append(r, r, values, distributions=counts[r])
    return history, counts


@pytest.mark.parametrize(
    "draw", [plot_lines, plot_heatmap, plot_gradient_by_depth, plot_distributions]
)
def test_what_is_no_history_is_refused(draw) -> None:
    with pytest.raises(TypeError, match="history must be a GradientHistory, received int"):
        draw(3)


@pytest.mark.parametrize("draw", [plot_lines, plot_heatmap, plot_gradient_by_depth])
def test_a_statistic_that_was_not_recorded_is_refused(draw) -> None:
    with pytest.raises(ValueError, match="statistic must be one that history recorded"):
        draw(make_history(magnitudes(2, 2)), statistic="max_abs")


def test_drawing_leaves_the_history_as_it_was() -> None:
    values = with_special()
    history = make_history(values)
    for draw in (plot_lines, plot_heatmap, plot_gradient_by_depth):
        draw(history)
    plot_heatmap({"a": history})
    assert_array_equal(history["mean_abs"], values)


@pytest.mark.parametrize(
    "draw", [plot_lines, plot_heatmap, plot_gradient_by_depth, plot_distributions]
)
def test_a_template_that_somebody_else_chose_changes_nothing(draw, monkeypatch) -> None:
    history, _ = with_distributions(4, 2)
    drawn = []
    for template in ("plotly", "plotly_dark"):  # Streamlit sets one, too
        monkeypatch.setattr(pio.templates, "default", template)
        drawn.append(draw(history).to_json())
    assert drawn[0] == drawn[1]


def test_the_loss_is_above_the_gradients_on_their_axis_of_time() -> None:
    losses = [4.0, 3.0, np.nan, 1.0, 1.0]
    figure = plot_gradients(with_losses(magnitudes(5, 3), losses))
    (loss,) = (axis for axis in figure.select_yaxes() if axis.title.text == "loss")
    trace = named(figure, "loss of ")
    assert_array_equal(trace.y, losses)
    assert_array_equal(trace.x, np.arange(5))
    assert figure.layout[trace.xaxis.replace("x", "xaxis")].matches == "x"
    others = [axis.domain[1] for axis in figure.select_yaxes() if axis is not loss]
    assert max(others) < loss.domain[0]
    assert loss.domain[1] == 1
    silent = plot_gradients(make_history(magnitudes(5, 3)))
    assert "loss" not in [axis.title.text for axis in silent.select_yaxes()]


def test_losses_of_several_runs_differ_in_color_and_dash() -> None:
    """Equal losses cover each other: the gaps of the upper lines show the lower ones."""
    runs = {f"run {i}": with_losses(magnitudes(3, 2), [1.0, 1.0, 1.0]) for i in range(9)}
    lines = [one for one in plot_gradients(runs).data if (one.name or "").startswith("loss of")]
    assert [one.name for one in lines] == [f"loss of {name}" for name in runs]
    assert len({(one.line.color, one.line.dash) for one in lines}) == 9
    first, *rest = [one.line.dash for one in lines[:4]]
    assert first == "solid" and "solid" not in rest
