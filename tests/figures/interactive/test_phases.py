"""The interactive phase diagram, by reading its traces back."""

import numpy as np
import pytest
from figures.interactive.test_gradients import named
from figures.static.test_depth import make_prediction, slope
from numpy.testing import assert_allclose

from kgrad.figures.interactive import plot_phase_diagram


def words(figure):
    return [note.text.replace("<br>", " ") for note in figure.layout.annotations]


def test_the_plane_of_tanh_has_two_named_phases_and_the_critical_line():
    figure = plot_phase_diagram("tanh")
    assert figure.layout.title.text == "Deep tanh networks"
    assert words(figure) == ["ordered phase: gradients vanish", "chaotic phase: gradients explode"]
    line = named(figure, "critical line, χ<sub>1</sub> = 1")
    for w, b in ((1.70080, 0.04), (1.76095, 0.05)):  # published points of the line
        assert np.interp(b, line.y, line.x) == pytest.approx(w, abs=2e-3)
    for note, side in zip(figure.layout.annotations, (-1, 1), strict=True):
        assert np.sign(note.x - np.interp(note.y, line.y, line.x)) == side


def test_color_is_decades_per_layer_and_white_where_nothing_changes():
    figure = plot_phase_diagram("relu", title="Mine")
    assert figure.layout.title.text == "Mine"
    cells = figure.data[0]
    # √χ_1 = √(σ_w²/2), whatever σ_b²
    assert_allclose(cells.z, np.tile(np.log10(cells.x / 2) / 2, (61, 1)), atol=1e-6)
    assert_allclose(cells.customdata, np.tile(cells.x / 2, (61, 1)), rtol=1e-6)
    assert cells.zmin == -cells.zmax
    assert "decades per layer" in cells.colorbar.title.text


def test_relu_has_a_critical_point_and_a_dashed_line():
    figure = plot_phase_diagram("relu")
    assert words(figure) == ["gradients vanish", "variance grows without end"]
    point = named(figure, "critical point")
    assert_allclose([point.x, point.y], [[2], [0]], atol=1e-9)
    contour = named(figure, "χ<sub>1</sub> = 1", "contour")
    assert (contour.contours.start, contour.contours.end) == (1, 1)


def test_names_of_narrow_areas_are_upright():
    notes = plot_phase_diagram("elu").layout.annotations
    assert [note.textangle for note in notes] == [0, -90, 0]


def test_hidden_layers_are_at_their_variances_and_equal_ones_are_one_point():
    prediction = make_prediction(slope(5), variances=(0.5, 1.2, 1.2, 1.2, 7.0))
    figure = plot_phase_diagram("tanh", prediction=prediction)
    points = figure.data[-1]
    assert list(zip(points.x, points.y, points.customdata, strict=True)) == [
        (0.5, 0, "hidden_1"),
        (1.2, 0, "hidden_2, hidden_3, hidden_4"),
    ]
    assert words(figure)[2:] == ["hidden_1", "hidden_2 – hidden_4"]


def test_large_variances_have_a_logarithmic_axis_and_many_points_no_names():
    prediction = make_prediction(slope(11), variances=tuple(np.linspace(1, 64, 11)))
    figure = plot_phase_diagram("tanh", prediction=prediction)
    assert figure.layout.xaxis.type == "log"
    assert 10 ** figure.layout.xaxis.range[1] > 64
    assert len(figure.data[-1].x) == 10
    assert len(words(figure)) == 2


def test_what_has_no_place_in_the_plane_is_refused():
    with pytest.raises(TypeError, match=r"^prediction must be a Prediction, received int"):
        plot_phase_diagram("tanh", prediction=3)
    with pytest.raises(ValueError, match=r"^phi must follow a hidden layer .* \(tanh\), received"):
        plot_phase_diagram("relu", prediction=make_prediction(slope()))
