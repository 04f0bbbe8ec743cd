"""Interactive figures against depth, by reading their traces back."""

import numpy as np
import pytest
from figures.interactive.test_gradients import named
from figures.static.test_depth import make_history as predicted_history
from figures.static.test_depth import make_prediction, slope
from figures.static.test_gradients import magnitudes, make_history, with_special
from numpy.testing import assert_allclose, assert_array_equal

from kgrad.figures.interactive import plot_gradient_by_depth, plot_prediction, plot_seed_spread
from kgrad.figures.interactive.depth import prediction_figure


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


def in_legend(figure):
    return [trace.name for trace in figure.data if trace.name and trace.showlegend is not False]


def bands(figure):
    return [trace for trace in figure.data if trace.fill == "toself"]


def test_runs_have_a_panel_each_with_the_same_moments_on_one_scale():
    values = {"a": magnitudes(9, 3), "b": magnitudes(5, 7) / 1e9}
    histories = {name: make_history(one) for name, one in values.items()}
    line = np.array([1e-4, 1e-3, 1e-2])
    figure = plot_gradient_by_depth(histories)
    profiles = [trace for trace in figure.data if trace.name == "epoch 4"]  # the last of both
    assert [trace.yaxis for trace in profiles] == ["y", "y2"]
    for trace, one in zip(profiles, values.values(), strict=True):
        assert_allclose(trace.y, one[4])
    assert figure.layout.yaxis.range == figure.layout.yaxis2.range
    assert [note.text for note in figure.layout.annotations] == ["<b>a</b>", "<b>b</b>"]
    assert in_legend(figure) == ["epoch 0", "epoch 1", "epoch 2", "epoch 4"]
    measured = predicted_history(line[None])
    figure = plot_gradient_by_depth(
        {"a": measured, "b": measured}, prediction={"b": make_prediction(line)}
    )
    assert named(figure, "predicted").yaxis == "y2"


def test_special_values_are_marked_and_named_once():
    figure = plot_gradient_by_depth(make_history(with_special()), epochs=[2, 5, 7, 8])
    names = ["0 (exactly)", "NaN", "epoch 2", "epoch 5", "epoch 7", "epoch 8", "infinite"]
    assert sorted(in_legend(figure)) == names


def test_the_spread_over_seeds_is_a_band_around_the_median():
    values = np.array([magnitudes(4, 3, seed=seed) for seed in range(5)])
    figure = plot_seed_spread([make_history(one) for one in values])
    for band, name, record in zip(bands(figure), ("epoch 0", "epoch 3"), (0, 3), strict=True):
        line = named(figure, name)
        assert_allclose(line.y, np.median(values[:, record], axis=0))
        low, high = values[:, record].min(axis=0), values[:, record].max(axis=0)
        assert_allclose(line.customdata, np.stack([low, high], axis=1))
        assert band.x == (1, 2, 3, 3, 2, 1, None)
        assert_allclose(band.y[:6], [*high, *low[::-1]])
    assert in_legend(figure) == ["epoch 0", "epoch 3", "least to greatest of 5 seeds"]


def test_a_band_is_interrupted_where_every_replicate_is_nan_and_ends_at_the_axis():
    values = [magnitudes(1, 4, seed=seed) for seed in range(3)]
    for one in values:
        one[0, 1] = np.nan
    values[0][0, 3] = 0
    figure = plot_seed_spread({"a": [make_history(one) for one in values]})
    (band,) = bands(figure)
    assert band.x == (1, 1, None, 3, 4, 4, 3, None)
    assert band.y[5] == pytest.approx(10 ** figure.layout.yaxis.range[0])
    assert_array_equal(named(figure, "NaN").x, [2])
    assert_array_equal(named(figure, "0 (exactly)").x, [4])


def test_points_are_epoch_0_of_every_replicate_over_the_prediction():
    line = slope()
    records = [line[None] * factor for factor in (0.5, 1.0, 2.0)]
    figure = plot_prediction([predicted_history(one) for one in records], make_prediction(line))
    points = named(figure, "measured, 3 seeds")
    assert_allclose(points.y, np.concatenate(records).ravel())
    assert_array_equal(points.x, np.tile(np.arange(1, 7), 3))
    assert_allclose(named(figure, "predicted").y, line)
    assert_allclose(named(figure, "95 % of networks").y, line / 3)
    assert in_legend(figure) == ["95 % of networks", "predicted", "measured, 3 seeds"]
    assert (points.mode, points.text[0]) == ("markers", "hidden_1<br>kernel (2, 2)")


def test_only_dense_layers_are_compared_with_a_prediction():
    prediction, history = make_prediction(slope()), predicted_history(slope()[None])
    del prediction.sigma_w2["hidden_2"]
    figure = plot_prediction({"a": history}, {"a": prediction}, statistic="l2_norm")
    kept = [0, 2, 3, 4, 5]
    assert_allclose(named(figure, "predicted").y, 5 * slope()[kept])
    assert_allclose(named(figure, "measured").y, 7 * slope()[kept])
    layers = ("hidden_1", "hidden_3", "hidden_4", "hidden_5", "output")
    assert figure.layout.xaxis.ticktext == layers


def test_networks_have_a_panel_each_on_a_shared_scale():
    lines = {"small": slope(4) * 1e-6, "large": slope(9), "third": slope(3)}
    figure = plot_prediction(
        {name: predicted_history(line[None]) for name, line in lines.items()},
        {name: make_prediction(line) for name, line in reversed(lines.items())},
    )
    drawn = [trace for trace in figure.data if trace.name == "predicted"]
    assert [trace.yaxis for trace in drawn] == ["y", "y2", "y3"]
    for trace, line in zip(drawn, lines.values(), strict=True):
        assert_allclose(trace.y, line)
    assert len({one.range for one in list(figure.select_yaxes())[:3]}) == 1
    assert in_legend(figure) == ["95 % of networks", "predicted", "measured"]


def test_special_values_predicted_or_measured_are_marked():
    line, measured = slope(6), slope(6)
    line[0], measured[1:3] = 0, (np.inf, np.nan)
    figure = plot_prediction(predicted_history(measured[None]), make_prediction(line))
    marked = {n: named(figure, n).x.tolist() for n in ("0 (exactly)", "infinite", "NaN")}
    assert marked == {"0 (exactly)": [1], "infinite": [2], "NaN": [3]}


def test_a_prediction_is_drawn_before_anything_is_measured():
    figure = prediction_figure(make_prediction(slope()), "mean_abs", title="Expected")
    assert figure.layout.title.text == "Expected"
    assert_allclose(named(figure, "predicted").y, slope())
    assert in_legend(figure) == ["95 % of networks", "predicted"]
