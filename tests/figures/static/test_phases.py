"""The phase diagram, by reading its artists back."""

import numpy as np
import pytest
from figures.static.test_depth import legend_names, make_prediction, slope
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from numpy.testing import assert_allclose

from kgrad.figures.static import plot_phase_diagram

pytestmark = pytest.mark.usefixtures("nothing_leaks")


def texts(ax: Axes) -> list[str]:
    return [text.get_text().replace("\n", " ") for text in ax.texts]


def test_the_plane_of_tanh_has_two_named_phases_and_the_critical_line():
    figure = plot_phase_diagram("tanh")
    figure.canvas.draw()
    ax = figure.axes[0]
    assert texts(ax) == ["ordered phase: gradients vanish", "chaotic phase: gradients explode"]
    assert legend_names(figure) == ["critical line, $χ_1$ = 1: gradients keep their size"]
    (line,) = [one for one in ax.lines if str(one.get_label()).startswith("critical line")]
    # Published points of the line.
    for w, b in ((1.70080, 0.04), (1.76095, 0.05)):
        assert np.interp(b, line.get_ydata(), line.get_xdata()) == pytest.approx(w, abs=2e-3)
    # Each name stands on its side of the line.
    for text, side in zip(ax.texts, (-1, 1), strict=True):
        w, b = text.get_position()
        assert np.sign(w - np.interp(b, line.get_ydata(), line.get_xdata())) == side


def test_color_is_decades_a_layer_and_white_where_nothing_changes():
    (ax, bar) = plot_phase_diagram("relu").axes
    (mesh,) = [one for one in ax.collections if isinstance(one, QuadMesh)]
    # √χ_1 = √(σ_w²/2), whatever σ_b²
    w = mesh.get_coordinates()[0, :, 0]
    assert_allclose(mesh.get_array(), np.tile(np.log10(w / 2) / 2, (61, 1)), atol=1e-9)
    assert mesh.norm.vmin == -mesh.norm.vmax
    assert "decades per layer" in bar.get_ylabel()


def test_relu_has_a_critical_point_and_no_phases():
    figure = plot_phase_diagram("relu")
    ax = figure.axes[0]
    assert texts(ax) == ["gradients vanish", "variance grows without end"]
    assert legend_names(figure) == ["critical point", "$χ_1$ = 1: gradients keep their size"]
    (point,) = [one for one in ax.lines if one.get_label() == "critical point"]
    assert_allclose(point.get_xydata(), [[2, 0]], atol=1e-9)


def test_sigmoid_has_neither_line_nor_phases_in_view():
    figure = plot_phase_diagram("sigmoid")
    assert texts(figure.axes[0]) == ["gradients vanish"]
    assert legend_names(figure) == []


def test_names_of_narrow_areas_stand_upright():
    ax = plot_phase_diagram("elu").axes[0]
    assert texts(ax) == [
        "ordered phase: gradients vanish",
        "chaotic phase: gradients explode",
        "variance grows without end",
    ]
    assert [text.get_rotation() for text in ax.texts] == [0, 90, 0]


def layer_points(ax: Axes) -> dict[str, tuple[float, float]]:
    return {
        str(one.get_label()): tuple(one.get_xydata()[0])
        for one in ax.lines
        if "hidden" in str(one.get_label())
    }


def test_hidden_layers_stand_at_their_variances_and_equal_ones_are_one_point():
    prediction = make_prediction(slope(5), variances=(0.5, 1.2, 1.2, 1.2, 7.0))
    ax = plot_phase_diagram("tanh", prediction=prediction).axes[0]
    assert layer_points(ax) == {"hidden_1": (0.5, 0), "hidden_2, hidden_3, hidden_4": (1.2, 0)}
    assert texts(ax)[2:] == ["hidden_1", "hidden_2 – hidden_4"]


def test_the_plane_holds_all_its_points_and_large_variances_get_decades():
    prediction = make_prediction(
        slope(11), variances=(20.0, *[64.0] * 9, 1.0), biases=(0.1, *[0.9] * 9, 0.0)
    )
    figure = plot_phase_diagram("tanh", prediction=prediction)
    figure.canvas.draw()
    ax = figure.axes[0]
    assert ax.get_xscale() == "log"
    assert set(layer_points(ax).values()) == {(20, 0.1), (64, 0.9)}
    assert ax.get_xlim()[1] > 64
    assert ax.get_ylim()[1] > 0.9
    for text in ax.texts:
        box = text.get_window_extent()
        assert ax.get_window_extent().x0 < box.x0 < box.x1 < ax.get_window_extent().x1


def test_many_points_are_told_apart_by_a_color_bar():
    prediction = make_prediction(slope(11), variances=tuple(np.linspace(1, 2, 11)))
    figure = plot_phase_diagram("tanh", prediction=prediction)
    assert len(layer_points(figure.axes[0])) == 10
    assert len(texts(figure.axes[0])) == 2
    assert [text.get_text() for text in figure.axes[-1].get_yticklabels()] == ["input", "output"]


def test_what_has_no_place_in_the_plane_is_refused_in_one_sentence():
    with pytest.raises(TypeError, match=r"^prediction must be a Prediction, received int"):
        plot_phase_diagram("tanh", prediction=3)
    with pytest.raises(ValueError, match=r"^phi must follow a hidden layer .* \(tanh\), received"):
        plot_phase_diagram("relu", prediction=make_prediction(slope()))
    normalized = make_prediction(slope())
    del normalized.sigma_w2["hidden_2"]
    with pytest.raises(ValueError, match="of a plain dense network, received one with hidden_2"):
        plot_phase_diagram("tanh", prediction=normalized)
