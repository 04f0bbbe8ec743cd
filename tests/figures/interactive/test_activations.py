"""The interactive figure of activations, by reading its traces back."""

import numpy as np
import pytest
from figures.static.test_activations import SPECIAL, TITLES, make_history, make_tables
from numpy.testing import assert_allclose, assert_array_equal

from kgrad.figures.interactive import plot_activations


def panels(figure):
    """Title of a panel → its traces without marks of special values."""
    titles = [note.text[3:-4] for note in figure.layout.annotations if note.text.startswith("<b>")]
    axes = ["y", *(f"y{i}" for i in range(2, len(titles) + 1))]
    drawn = [t for t in figure.data if t.name not in SPECIAL and t.x[0] is not None]
    return {
        title: [trace for trace in drawn if trace.yaxis == axis]
        for title, axis in zip(titles, axes, strict=True)
    }


def test_each_statistic_has_a_panel_with_a_line_per_output():
    tables = make_tables()
    figure = plot_activations(make_history(tables), title="a title")
    drawn = panels(figure)
    assert figure.layout.title.text == "a title"
    assert list(drawn) == list(TITLES.values())
    for name, title in TITLES.items():
        assert_allclose([trace.y for trace in drawn[title]], tables[name].T, rtol=1e-6)
        assert_array_equal(drawn[title][0].x, np.arange(6))
    types = [axis.type for axis in figure.select_yaxes()]
    assert types == ["linear", "log", "linear", "linear", "linear", "log"]
    named = [trace.name for trace in figure.data if trace.showlegend]
    assert named == [f"layer_{i}" for i in range(4)]
    assert figure.layout.xaxis6.title.text == "epoch"


def test_many_outputs_have_a_color_bar_instead_of_names():
    figure = plot_activations(make_history(make_tables(outputs=9)))
    assert not [trace.name for trace in figure.data if trace.showlegend]
    (bar,) = [trace for trace in figure.data if trace.marker.showscale]
    assert bar.marker.colorbar.ticktext == ("output", "input")  # upwards


def test_nan_infinity_and_zero_are_marked_in_their_panels():
    tables = make_tables()
    tables["activation_mean"][3, 1] = np.nan
    tables["activation_mean"][4, 0] = np.inf
    tables["activation_std"][5, 2] = 0
    figure = plot_activations(make_history(tables))
    marks = {(t.name, t.yaxis): t for t in figure.data if t.name in SPECIAL}
    assert {key: mark.x.tolist() for key, mark in marks.items()} == {
        ("infinite", "y"): [4],
        ("NaN", "y"): [3],
        ("0 (exactly)", "y2"): [5],
    }
    assert marks["NaN", "y"].text == ("epoch 3<br>layer_1",)
    assert all(mark.showlegend for mark in marks.values())


def test_one_record_is_drawn_against_depth_with_bars_of_one_standard_deviation():
    tables = make_tables(records=1)
    figure = plot_activations(make_history(tables))
    drawn = panels(figure)
    for name, title in TITLES.items():
        (line,) = drawn[title]
        assert_array_equal(line.x, [1, 2, 3, 4])
        assert_allclose(line.y, tables[name][0])
    assert_allclose(drawn["mean activation"][0].error_y.array, tables["activation_std"][0])
    assert drawn["standard deviation"][0].error_y.array is None
    assert figure.layout.xaxis6.ticktext == ("layer_0", "layer_1", "layer_2", "layer_3")
    assert figure.layout.xaxis6.title.text == "layer, input → output"


def test_a_history_without_activations_is_refused():
    with pytest.raises(TypeError, match=r"^history must be a GradientHistory, received dict"):
        plot_activations({})
    history = make_history(make_tables(records=1), without=[0])
    assert len(history) == 2
    assert panels(plot_activations(history))
