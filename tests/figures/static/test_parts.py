"""What every static figure is: a figure that pyplot does not manage and that a notebook shows."""

import copy
import io
import pickle
import subprocess
import sys

import matplotlib.pyplot as plt
import nbclient
import nbformat
import numpy as np
import pytest
from figures.static.test_gradients import magnitudes, make_history, with_special
from matplotlib.figure import Figure
from matplotlib.text import Text

from kgrad.figures import static
from kgrad.figures.static import plot_gradient_by_depth, plot_gradients, plot_lines, show
from kgrad.records.flow_graph import flow_graph_from_history
from kgrad.records.history import GradientHistory, Weight

pytestmark = pytest.mark.usefixtures("nothing_leaks")

PNG = b"\x89PNG\r\n"


def pixels(figure: Figure) -> np.ndarray:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="rgba", dpi=50)
    return np.frombuffer(drawn.getvalue(), np.uint8)


def make_figure() -> Figure:
    return plot_gradients(make_history(with_special()), title="A run")


def test_a_figure_is_a_figure_with_a_png_for_notebooks():
    figure = make_figure()
    assert isinstance(figure, Figure)
    assert figure._repr_png_().startswith(PNG)
    assert figure.canvas.manager is None


def test_a_figure_is_saved_without_a_backend(tmp_path):
    code = (
        "from kgrad.figures.static import plot_lines\n"
        "from kgrad.records.history import GradientHistory, Weight\n"
        "history = GradientHistory([Weight('d', 'k', 'd/k', (2,))], ['mean_abs'])\n"
        "for epoch in (0, 1): history.append(epoch, epoch, {'mean_abs': [0.5]})\n"
        "for form in ('png', 'svg', 'pdf'): plot_lines(history).savefig(f'figure.{form}')\n"
        "import matplotlib.pyplot as plt\n"
        "assert plt.get_fignums() == []\n"
        "assert plt._backend_mod is None\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert all(
        (tmp_path / f"figure.{form}").stat().st_size > 1000 for form in ("png", "svg", "pdf")
    )


def test_a_figure_can_be_copied_and_pickled():
    figure = make_figure()
    pixels(figure)  # the layout of the second drawing is that of all further ones
    expected = pixels(figure)
    for copied in (copy.deepcopy(figure), pickle.loads(pickle.dumps(figure))):
        assert copied.get_suptitle() == "A run"
        assert np.array_equal(pixels(copied), expected)
    assert plt.get_fignums() == []


def test_show_hands_figures_to_pyplot_in_their_order(monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.extend(plt.get_fignums()))
    figures = [plot_lines(make_history(magnitudes(3, 2))) for _ in range(22)]  # 20 would warn
    show(figures)
    assert shown == list(range(1, 23))
    assert [plt.figure(number) for number in shown] == figures
    assert figures[0].canvas.manager.num == 1
    plt.close("all")


def strips_named(ax) -> dict[str, float]:
    ax.figure.canvas.draw()
    texts = [label.get_text() for label in ax.yaxis.get_minorticklabels()]
    points = [ax.transScale.transform((1, place)) for place in ax.yaxis.get_minorticklocs()]
    heights = [round(float(ax.transLimits.transform(point)[1]), 3) for point in points]
    return dict(zip(texts, heights, strict=True))


def test_the_strips_are_named_beside_the_axis():
    figure = plot_lines(make_history(with_special()))
    assert strips_named(figure.axes[0]) == {"0": 0.035, "∞": 0.965, "NaN": 0.895}
    assert strips_named(plot_lines(make_history(magnitudes(4, 3))).axes[0]) == {}
    several = plot_gradient_by_depth(
        {"a": make_history(with_special())} | {"b": make_history(with_special())}
    )
    shown = [ax.yaxis.get_tick_params(which="minor")["labelleft"] for ax in several.axes]
    assert shown == [True, False]


@pytest.mark.parametrize(
    ("decades", "order"), [(8, ["output", "input"]), (-8, ["input", "output"])]
)
def test_the_key_to_depth_has_the_input_where_the_lines_have_it(decades, order):
    values = np.tile(10.0 ** np.linspace(0, decades, 13), (3, 1))
    figure = plot_lines(make_history(values))
    figure.canvas.draw()
    labels = figure.axes[1].get_yticklabels()
    heights = {one.get_text(): one.get_window_extent().y0 for one in labels}
    assert sorted(heights, key=heights.get, reverse=True) == order


CELLS = {
    "before": "from kgrad.figures.static import plot_lines\n"
    "from kgrad.records.history import GradientHistory, Weight\n"
    "history = GradientHistory([Weight('d', 'k', 'd/k', (2,))], ['mean_abs'])\n"
    "for epoch in (0, 1): history.append(epoch, epoch, {'mean_abs': [0.5]})\n"
    "import sys; 'matplotlib_inline.backend_inline' in sys.modules",
    "shown": "plot_lines(history, title='A run')",
    "assigned": "figure = plot_lines(history)",
    "assigned and shown": "figure",
    "pyplot": "import matplotlib.pyplot as plt\nplt.plot([0, 1])\nplt.show()",
    "shown with pyplot": "plot_lines(history, title='A run')",
    "assigned with pyplot": "figure = plot_lines(history)\nplt.get_fignums()",
    "shown by show": "from kgrad.figures.static import show\nshow([plot_lines(history)])",
}


def test_a_notebook_shows_a_figure_once_and_only_if_a_cell_returns_it(tmp_path, monkeypatch):
    monkeypatch.delenv("MPLBACKEND")  # as in a user's shell: the kernel sets its own
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(c) for c in CELLS.values()]
    )
    nbclient.NotebookClient(notebook, timeout=100, kernel_name="python3").execute(cwd=str(tmp_path))
    images = {
        name: sum("image/png" in output.get("data", {}) for output in cell.outputs)
        for name, cell in zip(CELLS, notebook.cells, strict=True)
    }
    assert images == {
        "before": 0,
        "shown": 1,
        "assigned": 0,
        "assigned and shown": 1,
        "pyplot": 1,
        "shown with pyplot": 1,
        "assigned with pyplot": 0,
        "shown by show": 1,
    }
    by_name = dict(zip(CELLS, notebook.cells, strict=True))
    assert by_name["before"].outputs[0]["data"]["text/plain"] == "False"
    assert by_name["assigned with pyplot"].outputs[0]["data"]["text/plain"] == "[]"
    outputs = [output for cell in notebook.cells for output in cell.outputs]
    assert not [one for one in outputs if one.output_type in ("error", "stream")]


FORMULA = "$\\foo$"  # which matplotlib would refuse to set
DRAWN_WITH_NAMES = {
    "visualize_gradients": lambda one: static.visualize_gradients(one, FORMULA),
    "plot_gradients": lambda one: static.plot_gradients({FORMULA: one, "b": one}, title=FORMULA),
    "plot_heatmap": lambda one: static.plot_heatmap({FORMULA: one, "b": one}, title=FORMULA),
    "plot_lines": lambda one: static.plot_lines({FORMULA: one, "b": one}, title=FORMULA),
    "plot_gradient_by_depth": lambda one: static.plot_gradient_by_depth(
        {FORMULA: one, "b": one}, title=FORMULA
    ),
    "plot_seed_spread": lambda one: static.plot_seed_spread({FORMULA: [one, one]}, title=FORMULA),
    "plot_distributions": lambda one: static.plot_distributions(one, title=FORMULA),
    "plot_flow_graph": lambda one: static.plot_flow_graph(
        flow_graph_from_history(one), title=FORMULA
    ),
}


@pytest.mark.parametrize("name", DRAWN_WITH_NAMES)
def test_a_dollar_in_a_name_or_title_is_no_formula(name):
    history = GradientHistory(
        [Weight(f"{FORMULA}{i}", "kernel", f"{i}/kernel", (2, 2)) for i in range(3)],
        ["mean_abs", "l2_norm"],
    )
    counts = np.zeros((3, 256), int)
    counts[:, 120] = 4
    for epoch in range(3):
        values = {"mean_abs": [1.0, 2.0, 3.0], "l2_norm": [1.0, 2.0, 3.0]}
        history.append(epoch, epoch, values, {"loss": 1.0}, distributions=counts)
    figure = DRAWN_WITH_NAMES[name](history)
    figure.savefig(io.BytesIO())
    written = [text.get_text() for text in figure.findobj(Text) if FORMULA in text.get_text()]
    assert written
