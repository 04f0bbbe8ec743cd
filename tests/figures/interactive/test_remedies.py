"""The interactive figure of remedies, by reading its traces back."""

import numpy as np
import pytest
from figures.interactive.test_gradients import main_heatmaps
from figures.static.test_remedies import make_trials
from numpy.testing import assert_allclose, assert_array_equal

from kgrad.figures.interactive import plot_remedies
from kgrad.figures.looks import RUNS


def losses(figure):
    return [t for t in figure.data if t.type == "scatter" and t.mode == "lines+markers"]


def test_the_unchanged_run_and_the_best_three_are_below_each_other_on_one_scale():
    trials = make_trials(0.9, 0.5, 0.1, 0.7, 0.8)
    figure = plot_remedies(trials, title="a title")
    assert figure.layout.title.text == "a title"
    titles = [note.text[3:-4] for note in figure.layout.annotations]
    assert titles == [*(trial.name for trial in trials[:4]), "loss"]
    for cells, trial in zip(main_heatmaps(figure), trials[:4], strict=True):
        # Without the layer that the change added.
        assert_allclose(cells.customdata, trial.history["mean_abs"][:, :2].T, rtol=1e-6)
        assert cells.y == ("hidden_1<br>kernel (2, 2)", "output<br>kernel (2, 2)")
    colors = figure.layout.coloraxis
    assert_allclose([colors.cmin, colors.cmax], [-9, 0], atol=1e-6)


def test_losses_are_lines_with_the_colors_of_the_titles():
    trials = make_trials(0.9, 0.5, 0.1, 0.8, 0.7)
    figure = plot_remedies(trials, most=4)
    for i, (line, trial) in enumerate(zip(losses(figure), trials[:5], strict=True)):
        assert_array_equal(line.x, [0, 1])
        assert_allclose(line.y, trial.history.logs["loss"], rtol=1e-6)
        assert (line.name, line.yaxis) == (trial.name, "y6")
        assert line.line.color == figure.layout.annotations[i].font.color == RUNS[i]
    assert len({(line.line.dash, line.marker.symbol) for line in losses(figure)}) == 5
    assert figure.layout.yaxis6.type == "linear"
    assert plot_remedies(make_trials(0.9, 1e-3)).layout.yaxis3.type == "log"


def test_losses_that_are_no_numbers_are_marked():
    figure = plot_remedies(make_trials(0.9, np.nan, np.inf))
    marks = {t.name: t.x.tolist() for t in figure.data if t.name in ("NaN", "infinite")}
    assert marks == {"NaN": [1], "infinite": [1]}


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(TypeError, match=r"^trials must be Trials, received int"):
        plot_remedies(3)
    with pytest.raises(ValueError, match=r"^most must be an integer from 1 to 4, received 5"):
        plot_remedies(make_trials(0.9), most=5)
