"""The interactive figures, by reading their traces back; every number in them is made here."""

import subprocess
import sys

import numpy as np
import plotly.graph_objects as go
import plotly.io as pio
import pytest
from figures.static.test_depth import make_history as predicted_history
from figures.static.test_depth import make_prediction
from figures.static.test_gradients import magnitudes, make_history, with_special
from matplotlib.colors import to_hex
from numpy.testing import assert_allclose, assert_array_equal

from kgrad.figures.interactive import (
    plot_distributions,
    plot_gradient_by_depth,
    plot_heatmap,
    plot_lines,
)
from kgrad.figures.interactive.parts import superscript
from kgrad.figures.looks import DEPTH, MAGNITUDE
from kgrad.figures.scale import INFINITE, NAN, ZERO, Scale
from kgrad.figures.thinning import Columns
from kgrad.records.history import GradientHistory, Weight


def curves(figure: go.Figure) -> list[go.Scatter]:
    return [trace for trace in figure.data if trace.mode == "lines"]


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


def test_a_heatmap_holds_every_value_and_its_logarithm_as_colour() -> None:
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
def test_a_special_cell_has_the_colour_of_its_kind_and_nothing_above_it(special) -> None:
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


def test_compared_runs_share_colours_and_time() -> None:
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


def test_depth_profiles_hold_the_epochs_asked_for() -> None:
    values = with_special()
    figure = plot_gradient_by_depth(make_history(values), epochs=[0, 7])
    assert_allclose(named(figure, "epoch 0").y, values[0], rtol=1e-6)
    assert_allclose(named(figure, "epoch 7").y, np.where(np.isnan(values[7]), np.nan, values[7]))
    assert_array_equal(named(figure, "NaN").x, [4])
    assert_array_equal(named(figure, "epoch 0").x, [1, 2, 3, 4, 5])
    assert named(figure, "epoch 0").text[2] == "dense_2<br>scale (1,)"


def test_the_axis_of_depth_profiles_holds_all_records() -> None:
    values = magnitudes(9, 3)
    values[5, 1] = 1e5
    bottom, top = plot_gradient_by_depth(make_history(values), epochs=[0]).layout.yaxis.range
    assert bottom < np.log10(values.min())
    assert top > 5


def test_a_prediction_is_a_line_in_its_band() -> None:
    line = np.array([1e-4, 1e-3, 1e-2])
    prediction = make_prediction(line, line / 2, line * 5)
    history = predicted_history(np.stack([line * 1.5, line * 2]))
    figure = plot_gradient_by_depth(history, prediction=prediction)
    predicted = named(figure, "predicted")
    assert_allclose(predicted.y, line)
    assert_allclose(predicted.customdata, np.stack([line / 2, line * 5], axis=1))
    assert_allclose(named(figure, "95 % of networks").y, line / 2)
    (upper,) = [t for t in figure.data if t.legendgroup == "band" and t.showlegend is False]
    assert_allclose(upper.y, line * 5)
    assert named(figure, "95 % of networks").fill == "tonexty"
    assert figure.data.index(upper) + 1 == figure.data.index(named(figure, "95 % of networks"))


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


def test_distributions_hold_the_shares_of_entries_by_magnitude() -> None:
    history, _ = with_distributions(4, 2)
    figure = plot_distributions(history)
    first, _second = main_heatmaps(figure)
    assert_allclose(np.nansum(first.z, axis=0), 1)  # of the entries that are finite and above 0
    # Bin 112 is that of |g| from 2^-15 to 2^-14; record 0 has 28 of 70 there, record 2 has 42.
    row = int(np.flatnonzero(np.isclose(first.y, -15 * np.log10(2)))[0])
    assert_allclose(first.z[row], [0.4, np.nan, 0.6, np.nan])
    zeros = [t for t in figure.data if t.type == "bar" and t.name.startswith("zeros")]
    assert_allclose(zeros[0].customdata, 0.2)
    nonfinite = [t for t in figure.data if t.type == "bar" and t.name.startswith("NaN")]
    assert_allclose(nonfinite[1].customdata, 0.1)
    assert [n.text for n in figure.layout.annotations] == ["<b>d0</b>", "<b>d1</b>"]


def test_distributions_of_many_records_are_added_up() -> None:
    figure = plot_distributions(with_distributions(1000, 1)[0])
    (cells,) = main_heatmaps(figure)
    assert cells.z.shape[1] <= 120
    assert_allclose(np.nansum(cells.z, axis=0), 1)


def test_distributions_of_many_layers_are_drawn_over_depth() -> None:
    figure = plot_distributions(with_distributions(9, 13)[0])
    assert {cells.z.shape[1] for cells in main_heatmaps(figure)} == {13}
    assert figure.layout.annotations[0].text == "<b>epoch 0</b>"


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


def test_the_core_does_not_import_plotly_and_the_web_says_what_to_install() -> None:
    code = (
        "import sys, kgrad\n"
        "assert 'plotly' not in sys.modules\n"
        "sys.modules['plotly'] = None\n"
        "import kgrad.figures.interactive"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert last == 'ModuleNotFoundError: kgrad.interactive needs plotly: pip install "kgrad[app]"'
