"""The figure of remedies, by reading its artists back."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from numpy.testing import assert_allclose, assert_array_equal

from kgrad.figures.static import plot_remedies
from kgrad.records.history import GradientHistory, Weight
from kgrad.records.trials import Trials

pytestmark = pytest.mark.usefixtures("nothing_leaks")


def run(gradients, losses, added=0.0):
    """(records, 2 layers), and a third layer where one was added."""
    names = ["hidden_1", "output"] + (["projection_1"] if added else [])
    weights = [Weight(name, "kernel", f"{name}/kernel", (2, 2)) for name in names]
    history = GradientHistory(weights, ["mean_abs", "l2_norm"])
    for i, (row, loss) in enumerate(zip(gradients, losses, strict=True)):
        row = [*row, added] if added else row
        history.append(i, 10 * i, {"mean_abs": row, "l2_norm": row}, {"loss": loss})
    return history


def make_trials(*last_losses, first=1.0):
    as_it_is = run([[1e-8, 1e-2], [1e-9, 1e-3]], [first, last_losses[0]])
    changed = [
        (f"change {i}", "", run([[1e-3, 10.0 ** (i - 2)], [1e-3, 1e-2]], [first, loss], added=1e6))
        for i, loss in enumerate(last_losses[1:])
    ]
    return Trials.ranked(as_it_is, changed)


def mesh_of(ax):
    (mesh,) = [one for one in ax.collections if isinstance(one, QuadMesh)]
    return mesh


def test_the_unchanged_run_and_the_best_three_stand_side_by_side_on_one_scale():
    trials = make_trials(0.9, 0.5, 0.1, 0.7, 0.8)
    figure = plot_remedies(trials, title="a title")
    figure.canvas.draw()
    panels = figure.axes[:4]
    assert figure.get_suptitle() == "a title"
    assert [ax.get_title() for ax in panels] == ["unchanged", "change 1", "change 0", "change 2"]
    for ax, trial in zip(panels, trials[:4], strict=True):
        # Records from left to right, the input on top; without the layer that the change added.
        values = trial.history["mean_abs"][:, :2].T
        assert_array_equal(np.asarray(mesh_of(ax).get_array()).reshape(2, 2), values)
        assert ax.get_ylim() == (1.5, -0.5)
    norms = {(mesh_of(ax).norm.vmin, mesh_of(ax).norm.vmax) for ax in panels}
    ((low, high),) = norms
    assert_allclose([low, high], [1e-9, 1.0], rtol=1e-6)  # of what is drawn alone
    assert [text.get_text() for text in panels[0].get_yticklabels()] == ["hidden_1", "output"]


@pytest.mark.parametrize(
    ("worst", "label"),
    [(-3.0, "skill, by R² (below -0.2: cut off)"), (-0.1, "skill, by R²")],
)
def test_skills_are_drawn_from_a_little_below_0_to_1(worst, label):
    def history_with(skills):
        weights = [Weight("hidden_1", "kernel", "hidden_1/kernel", (2, 2))]
        history = GradientHistory(weights, ["mean_abs", "l2_norm"])
        for i, skill in enumerate(skills):
            values = {"mean_abs": [1.0], "l2_norm": [1.0]}
            history.append(i, 10 * i, values, {"loss": 1.0, "skill": skill})
        return history

    unchanged, changed = history_with([np.nan, worst, 0.0]), history_with([np.nan, 0.5, 0.99])
    figure = plot_remedies(Trials.ranked(unchanged, [("one", "", changed)], metric="R²"))
    ax = figure.axes[-2] if figure.axes[-1].get_ylabel() == "mean |gradient|" else figure.axes[-1]
    assert ax.get_ylabel() == label
    assert_allclose(ax.get_yticks(), [-0.2, 0, 0.2, 0.4, 0.6, 0.8, 1], atol=1e-12)
    assert_allclose(ax.lines[0].get_ydata(), [max(worst, -0.2), 0.0])
    assert_array_equal(ax.lines[0].get_xdata(), [1, 2])  # unknown before training


def test_losses_are_lines_told_apart_by_color_dash_and_marker_as_the_titles_are():
    trials = make_trials(0.9, 0.5, 0.1, 0.8, 0.7)
    figure = plot_remedies(trials, most=4)
    (ax,) = [one for one in figure.axes if one.get_ylabel() == "loss"]
    lines = [line for line in ax.lines if len(line.get_xdata())]
    assert [line.get_label() for line in lines] == [trial.name for trial in trials[:5]]
    for line, trial, panel in zip(lines, trials[:5], figure.axes, strict=False):
        assert_array_equal(line.get_xdata(), [0, 1])
        assert_array_equal(line.get_ydata(), trial.history.logs["loss"])
        assert line.get_color() == panel.title.get_color()
    for look in ("get_color", "get_linestyle", "get_marker"):
        assert len({str(getattr(line, look)()) for line in lines[:4]}) == 4
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [t.name for t in trials[:5]]


@pytest.mark.parametrize(
    ("losses", "first", "scale"),
    [((0.9, 0.5), 1.0, "linear"), ((0.9, 1e-3), 1.0, "log"), ((-5.0, 500.0), 1.0, "linear")],
)
def test_losses_are_logarithmic_where_they_span_decades(losses, first, scale):
    figure = plot_remedies(make_trials(*losses, first=first))
    (ax,) = [one for one in figure.axes if one.get_ylabel() == "loss"]
    assert ax.get_yscale() == scale
    low, high = ax.get_ylim()
    assert low < min(losses) and high > max(*losses, first)


def test_a_loss_that_hardly_moves_looks_so():
    figure = plot_remedies(make_trials(0.6931, 0.6932, first=0.6930))
    (ax,) = [one for one in figure.axes if one.get_ylabel() == "loss"]
    low, high = ax.get_ylim()
    assert high - low > 0.06


@pytest.mark.parametrize("first", [1.0, 1e9])
def test_losses_that_are_no_numbers_are_marked(first):
    figure = plot_remedies(make_trials(np.nan, 0.5, np.inf, first=first))
    figure.canvas.draw()
    (ax,) = [one for one in figure.axes if one.get_ylabel() == "loss"]
    marks = {
        line.get_label(): list(line.get_xdata())
        for line in ax.lines
        if line.get_label() in ("NaN", "infinite") and len(line.get_xdata())
    }
    assert marks == {"NaN": [1], "infinite": [1]}
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[-2:] == ["infinite", "NaN"]


def test_nothing_but_the_unchanged_run_is_drawn_too():
    figure = plot_remedies(make_trials(0.9))
    figure.canvas.draw()
    assert [ax.get_title() for ax in figure.axes[:1]] == ["unchanged"]


def test_bad_arguments_are_refused():
    trials = make_trials(0.9, 0.5)
    with pytest.raises(TypeError, match=r"^trials must be Trials, received list: pass what try_"):
        plot_remedies(list(trials))
    for most in (0, 5, 1.5):
        with pytest.raises(
            ValueError, match=rf"^most must be an integer from 1 to 4, received {most}"
        ):
            plot_remedies(trials, most=most)
    with pytest.raises(
        ValueError, match=r"^statistic must be one that trials\[0\]\.history record"
    ):
        plot_remedies(trials, statistic="max_abs")
