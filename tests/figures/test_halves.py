"""Static and interactive figures: the same functions, on one shared half, with old spellings."""

import ast
import inspect
from pathlib import Path

import numpy as np
import pytest
from figures.interactive.test_flow import graph_of
from figures.interactive.test_gradients import with_distributions
from figures.static.test_activations import make_history as probed_history
from figures.static.test_activations import make_tables
from figures.static.test_depth import make_history as predicted_history
from figures.static.test_depth import make_prediction, slope
from figures.static.test_gradients import magnitudes, make_history
from figures.static.test_remedies import make_trials

from kgrad.figures import interactive, static

HALVES = {"static": static, "interactive": interactive}
NAMES = sorted(set(static.__all__) - {"show", "visualize_gradients"})

pytestmark = pytest.mark.usefixtures("nothing_leaks")


def test_both_halves_have_the_same_functions():
    assert sorted(interactive.__all__) == NAMES
    assert len(NAMES) == 13


@pytest.mark.parametrize("name", NAMES)
def test_both_halves_have_the_same_arguments(name):
    one, other = (inspect.signature(getattr(half, name)) for half in HALVES.values())
    assert list(one.parameters.values()) == list(other.parameters.values())
    title = one.parameters["title"]
    assert (title.kind, type(title.default)) == (inspect.Parameter.KEYWORD_ONLY, str)


@pytest.mark.parametrize("name", NAMES)
def test_both_halves_document_every_argument(name):
    for half in HALVES.values():
        function = getattr(half, name)
        text = inspect.getdoc(function)
        for argument in inspect.signature(function).parameters:
            assert f"\n    {argument}: " in text


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_the_halves_do_not_import_each_other_and_nothing_imports_pyplot_or_a_half():
    root = Path(static.__file__).parents[1]
    halves = {"static", "interactive"}
    for path in root.rglob("*.py"):
        own = path.parent.name if path.parent != root else ""
        for module in imported(path):
            parts = module.split(".")
            if parts[:2] == ["kgrad", "figures"]:
                assert not set(parts[2:3]) & (halves - {own}), f"{path} imports {module}"
            assert own == "interactive" or parts[0] != "plotly", f"{path} imports {module}"
            at_top = path.name != "parts.py" or own != "static"  # show() opens windows
            assert module != "matplotlib.pyplot" or not at_top, f"{path} imports {module}"


def prediction_pair():
    return predicted_history(slope()[None]), make_prediction(slope())


def run():
    return make_history(magnitudes(4, 3))


# What kgrad 0.1 accepted: name, positional arguments, and the keywords that they are now.
OLD = [
    ("static", "plot_gradients", [{"a": run()}, "A title", "mean_abs"], ("title", "statistic")),
    (
        "static",
        "plot_gradient_by_depth",
        [run(), [0, 1], "A title", "mean_abs"],
        ("epochs", "title", "statistic"),
    ),
    (
        "static",
        "plot_seed_spread",
        [[run(), run()], [0], "A title", "mean_abs"],
        ("epochs", "title", "statistic"),
    ),
    ("static", "plot_prediction", [*prediction_pair(), "A title"], ("title",)),
    (
        "static",
        "plot_phase_diagram",
        ["tanh", make_prediction(slope()), "A title"],
        ("prediction", "title"),
    ),
    (
        "static",
        "plot_remedies",
        [make_trials(0.9, 0.5), 1, "A title", "mean_abs"],
        ("most", "title", "statistic"),
    ),
    ("static", "plot_distributions", [with_distributions(3, 2)[0], "A title"], ("title",)),
    ("static", "plot_activations", [probed_history(make_tables()), "A title"], ("title",)),
    ("static", "plot_flow_graph", [graph_of(np.ones((1, 3))), "A title"], ("title",)),
    # kgrad.web.lines, heatmap, comparison, depth_profile, distributions and flow
    ("interactive", "plot_lines", [run(), "A title", "mean_abs"], ("title", "statistic")),
    ("interactive", "plot_heatmap", [run(), "A title", "mean_abs"], ("title", "statistic")),
    (
        "interactive",
        "plot_gradient_by_depth",
        [run(), "A title", "mean_abs"],
        ("title", "statistic"),
    ),
    ("interactive", "plot_distributions", [with_distributions(3, 2)[0], "A title"], ("title",)),
    ("interactive", "plot_flow_graph", [graph_of(np.ones((1, 3))), "A title"], ("title",)),
]


def title_of(figure):
    return figure.get_suptitle() if hasattr(figure, "get_suptitle") else figure.layout.title.text


@pytest.mark.parametrize(("half", "name", "given", "keywords"), OLD)
def test_positional_arguments_of_the_first_release_are_accepted_with_a_warning(
    half, name, given, keywords
):
    function = getattr(HALVES[half], name)
    count = len(given) - len(keywords)
    with pytest.warns(DeprecationWarning) as caught:
        old = function(*given)
    messages = [str(warning.message) for warning in caught]
    assert [message.split("=")[0] for message in messages] == [f"pass {one}" for one in keywords]
    assert all(warning.filename == __file__ for warning in caught)
    new = function(*given[:count], **dict(zip(keywords, given[count:], strict=True)))
    assert title_of(old) == title_of(new) == "A title"


@pytest.mark.parametrize(
    ("half", "name"),
    [("static", "plot_gradients"), ("interactive", "plot_heatmap")],
)
def test_the_old_name_of_the_mapping_is_accepted_with_a_warning(half, name):
    with pytest.warns(DeprecationWarning, match=r"histories is now called history"):
        getattr(HALVES[half], name)(histories={"a": run()})


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("name", ["plot_gradients", "plot_lines", "plot_heatmap"])
def test_a_prediction_or_history_of_the_wrong_kind_is_refused_by_both(half, name):
    function = getattr(HALVES[half], name)
    with pytest.raises(TypeError, match=r"^history must be a GradientHistory, received int"):
        function(3)
    with pytest.raises(ValueError, match=r"^history must hold at least one history, received an"):
        function({})
    with pytest.raises(ValueError, match=r"^statistic must be one that history\['a'\] recorded"):
        function({"a": run()}, statistic="max_abs")


@pytest.mark.parametrize("half", HALVES)
def test_several_runs_have_no_single_prediction(half):
    history, prediction = prediction_pair()
    with pytest.raises(ValueError, match=r"^prediction must be None if history holds several runs"):
        HALVES[half].plot_gradients({"a": history}, prediction=prediction)
    draw = HALVES[half].plot_gradient_by_depth
    with pytest.raises(ValueError, match=r"^prediction must be a mapping of 'a', as history is"):
        draw({"a": history}, prediction=prediction)
    with pytest.raises(ValueError, match=r"^prediction must be a mapping of 'a', as .* 'b'"):
        draw({"a": history}, prediction={"b": prediction})
    with pytest.raises(ValueError, match=r"^prediction must be a Prediction, as history is"):
        draw(history, prediction={"a": prediction})
    with pytest.raises(ValueError, match=r"^history\['a'\] must have the layers of prediction\['"):
        draw({"a": run_of_five()}, prediction={"a": prediction})


def run_of_five():
    return predicted_history(slope(5)[None])


class Tracker:
    """Holds a history, as a `GradientTracker` does."""

    history = make_history(np.ones((2, 3)))


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize(
    "call",
    [
        lambda half, one: half.plot_gradients(one),
        lambda half, one: half.plot_gradients({"a": one}),
        lambda half, one: half.plot_lines(one),
        lambda half, one: half.plot_heatmap(one),
        lambda half, one: half.plot_gradient_by_depth(one),
        lambda half, one: half.plot_seed_spread(one),
        lambda half, one: half.plot_seed_spread([one]),
        lambda half, one: half.plot_distributions(one),
        lambda half, one: half.plot_activations(one),
        lambda half, one: half.plot_prediction(one, make_prediction(np.ones(3))),
        lambda half, one: half.plot_prediction({"a": one}, {"a": make_prediction(np.ones(3))}),
    ],
)
def test_a_tracker_is_refused_with_the_way_to_its_history(half, call):
    with pytest.raises(TypeError, match=r"^histor.* received a Tracker, .*: pass tracker.history$"):
        call(HALVES[half], Tracker())
