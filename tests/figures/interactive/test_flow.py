"""The interactive flow graph, by reading its traces back; every number in them is made here."""

import base64
import itertools
import json
import math
import subprocess
import sys

import keras
import networkx as nx
import numpy as np
import pytest
from keras import layers
from matplotlib.colors import to_hex
from numpy.testing import assert_allclose, assert_array_equal

import kgrad
from kgrad.figures.flow_looks import AREAS, EDGE_WIDTHS, LOOKS
from kgrad.figures.interactive import plot_flow_graph
from kgrad.figures.interactive.flow import flow_figure
from kgrad.figures.interactive.flow_drawing import FlowDrawing
from kgrad.figures.scale import INFINITE, NAN, ZERO
from kgrad.records.flow_graph import NO_PROBE, NO_WEIGHTS, NOT_IN_RECORD, NOT_SEEN
from kgrad.records.history import GradientHistory, Weight

pytestmark = pytest.mark.usefixtures("nothing_leaks")

GREEN, RED = "#00915f", "#c1272d"


def make_history(norms, signals=None, names=None, joined=None):
    """A record a row, a layer a column; each layer hands its output to the next, or as `joined`."""
    norms = np.asarray(norms, float)
    names = names or [f"dense_{i}" for i in range(norms.shape[1])]
    joined = joined or list(itertools.pairwise(names))
    nodes = [{"id": name, "kind": "Dense", "layers": [name]} for name in names]
    graph = {"nodes": nodes, "edges": [[a, b, [a]] for a, b in joined], "assumed": False}
    weights = [Weight(name, "kernel", f"{name}/kernel", (4, 3)) for name in names]
    history = GradientHistory(weights, ["l2_norm"], {"graph": graph}, outputs=names)
    for epoch, row in enumerate(norms):
        probed = {} if signals is None else {"activations": {"signal_l2": signals[epoch]}}
        history.append(epoch, 10 * epoch, {"l2_norm": row}, **probed)
    return history


def graph_of(*given, **options):
    return kgrad.flow_graph_from_history(make_history(*given, **options))


def edges_of(figure):
    return [trace for trace in figure.data if trace.mode == "lines" and trace.hovertemplate]


def others_of(figure):
    """The traces of the edges' numbers, of the nodes, and of what stands beside these."""
    count = len(edges_of(figure))
    return figure.data[count : count + 3]


def key_of(figure):
    return [trace.name for trace in figure.data if trace.showlegend is not False]


def steps_of(figure):
    """Of each step of the slider its label, and attribute → value of each trace."""
    (slider,) = figure.layout.sliders
    return [(step.label, step.args[0]) for step in slider.steps]


SIGNALS = np.array([[0.5, 0.01, 2.0], [0.0101, 1e-7, 2.0], [3.0, 0.03, 2.0]])


def test_edges_are_green_and_solid_above_and_red_and_dashed_at_or_below():
    lines = edges_of(plot_flow_graph(graph_of(np.ones((1, 3)), [[0.0101, 0.01, 1.0]])))
    assert [line.line.color for line in lines] == [GREEN, RED]
    assert [line.line.dash for line in lines] == ["solid", "7px,4px"]
    assert {to_hex(LOOKS["above"][0]), to_hex(LOOKS["below"][0])} == {GREEN, RED}


def test_every_step_of_the_slider_has_the_colors_and_numbers_of_its_epoch():
    figure = plot_flow_graph(graph_of(np.ones((3, 3)) * [[1], [2], [3]], SIGNALS))
    steps = steps_of(figure)
    assert [label for label, _ in steps] == ["0", "1", "2"]
    assert figure.layout.sliders[0].currentvalue.prefix == "epoch "
    for epoch, (_, state) in enumerate(steps):
        expected = [GREEN if norm > 0.01 else RED for norm in SIGNALS[epoch, :2]]
        assert list(state["line.color"][:2]) == expected
        *_, numbers, nodes, beside = state["text"]
        assert all(number.startswith("∂a ") for number in numbers)
        assert [float(number[3:]) for number in numbers] == pytest.approx(
            SIGNALS[epoch, :2], rel=0.05
        )
        for text, norm in zip(state["meta"], SIGNALS[epoch, :2], strict=False):
            assert text.startswith(f"epoch {epoch}: {norm:.3g}, ")
        assert list(nodes) == [f"epoch {epoch}: {epoch + 1}"] * 3
        assert [text.split("<br>")[1].strip() for text in beside] == [f"∂W {epoch + 1}"] * 3


def test_the_slider_begins_at_the_graphs_own_epoch():
    history = make_history(np.ones((3, 3)), SIGNALS)
    figure = plot_flow_graph(kgrad.flow_graph_from_history(history, epoch=1))
    assert figure.layout.sliders[0].active == 1
    assert [line.meta for line in edges_of(figure)] == [
        "epoch 1: 0.0101, above 0.01", "epoch 1: 1e-07, at or below 0.01"
    ]  # fmt: skip


def test_a_step_changes_what_moves_and_nothing_else():
    figure = plot_flow_graph(graph_of(np.ones((3, 3)), SIGNALS * [[1, 1, 1], [1, 1, 1], [2, 2, 2]]))
    _, state = steps_of(figure)[0]
    assert set(state) == {"line.color", "line.dash", "line.width", "meta", "text"}


def test_pointing_tells_layer_kind_shape_epoch_norm_and_verdict():
    figure = plot_flow_graph(graph_of(np.full((3, 3), 0.25), SIGNALS))
    line, (_, nodes, _) = edges_of(figure)[0], others_of(figure)
    assert line.hovertemplate.startswith("dense_0 → dense_1<br>")
    assert "%{meta}" in line.hovertemplate
    assert line.meta == "epoch 2: 3, above 0.01"
    assert nodes.customdata[0] == "dense_0 (Dense)<br>kernel (4, 3)"
    assert nodes.text[0] == "epoch 2: 0.25"
    assert "%{customdata}<br>" in nodes.hovertemplate and "%{text}" in nodes.hovertemplate


def test_an_edge_can_be_pointed_at_anywhere():
    joined = [("dense_0", "dense_1"), ("dense_1", "dense_2"), ("dense_0", "dense_2")]
    for line in edges_of(plot_flow_graph(graph_of(np.ones((1, 3)), joined=joined))):
        x, y = np.diff(line.x), np.diff(line.y)
        assert len(line.x) >= 5
        assert np.hypot(x, y).max() <= 20  # pixels: as near as Plotly asks the pointer to come


def test_what_was_not_measured_is_dotted_and_says_why():
    signals = SIGNALS.copy()
    history = make_history(np.ones((2, 3)), signals)
    history.append(2, 20, {"l2_norm": np.ones(3)})
    figure = plot_flow_graph(kgrad.flow_graph_from_history(history, epoch=0))
    _, state = steps_of(figure)[2]
    assert state["line.dash"][0] == "1.2px,2.4px"
    assert state["meta"][0] == f"epoch 2: not measured: {NOT_IN_RECORD}"
    assert key_of(figure) == ["edge above 0.01", "edge at or below 0.01", "edge: not measured"]
    silent = plot_flow_graph(graph_of(np.ones((1, 3))))
    assert edges_of(silent)[0].meta == f"epoch 0: not measured: {NO_PROBE}"
    assert "Edges were not measured: no probe was recorded" in (
        silent.layout.annotations[0].text.replace("<br>", " ")
    )


def test_a_node_without_weights_and_an_edge_that_no_probe_sees_say_so(random):
    model = kgrad.create_model(1, "relu", "he", input_shape=(2,))
    X = random.normal(size=(8, 2))
    model.compile("sgd", "binary_crossentropy")
    tracker = kgrad.GradientTracker(probe=(X, X[:, 0] > 0))
    model.fit(X, X[:, 0] > 0, verbose=0, callbacks=[tracker])
    figure = plot_flow_graph(kgrad.flow_graph(model, tracker.history))
    assert edges_of(figure)[0].meta == f"epoch 1: not measured: {NOT_SEEN}"
    _, nodes, beside = others_of(figure)
    assert nodes.text[0] == f"epoch 1: no gradient: {NO_WEIGHTS}"
    assert nodes.marker.color[0] == "#ffffff"
    assert beside.text[0].strip() == "input"
    assert nodes.customdata[1] == "hidden_1 (Dense)<br>kernel (2, 64)<br>bias (64,)"


def test_zero_nan_and_infinity_are_seen_on_edges_and_nodes():
    special = [0.0, math.nan, math.inf, 1.0, 1.0]
    figure = plot_flow_graph(graph_of([special], [special]))
    numbers, nodes, beside = others_of(figure)
    symbols = ("circle", "x", "triangle-up")
    colors = [to_hex(one.color) for one in (ZERO, NAN, INFINITE)]
    for marks in (numbers.marker, nodes.marker):
        assert tuple(marks.symbol[:3]) == symbols
        assert list(marks.color[:3]) == colors
    assert tuple(numbers.text[:3]) == ("∂a 0", "∂a NaN", "∂a ∞")
    assert numbers.marker.color[3] == "rgba(0,0,0,0)"
    assert [text.split("<br>")[1].strip() for text in beside.text[:3]] == [
        "∂W 0", "∂W NaN", "∂W ∞"
    ]  # fmt: skip
    assert [line.meta for line in edges_of(figure)[:3]] == [
        "epoch 0: 0 (exactly)", "epoch 0: NaN", "epoch 0: infinite"
    ]  # fmt: skip
    assert key_of(figure) == [
        "edge above 0.01", "edge at or below 0.01", "0 (exactly)", "infinite", "NaN"
    ]  # fmt: skip


def test_a_relative_threshold_is_a_share_of_the_largest_edge_of_its_epoch():
    signals = np.array([[1e-6, 1e-8, 0], [10.0, 2.0, 0]])
    figure = plot_flow_graph(graph_of(np.ones((2, 3)), signals), threshold=0.1, relative=True)
    colors = [list(state["line.color"][:2]) for _, state in steps_of(figure)]
    assert colors == [[GREEN, RED], [GREEN, GREEN]]
    assert key_of(figure)[0] == "edge above 0.1 of the largest"
    assert edges_of(figure)[0].meta == "epoch 1: 10, above 0.1 of the largest"


def test_thickness_and_size_are_logarithmic_on_one_scale_of_all_epochs():
    signals = np.array([[1.0, 1e-4, 1], [1e-1, 1e-3, 1]])
    norms = [[1, 1e-3, 1e-6], [1e-3, 1e-4, 1e-5]]
    states = [state for _, state in steps_of(plot_flow_graph(graph_of(norms, signals)))]
    low, high = EDGE_WIDTHS
    shares = np.array([[1, 0], [0.75, 0.25]])
    assert_allclose([s["line.width"][:2] for s in states], low + (high - low) * shares, atol=0.11)
    low, high = AREAS
    shares = np.array([[1, 1 / 2, 0], [1 / 2, 1 / 3, 1 / 6]])
    areas = [np.square(state["marker.size"][3]) for state in states]
    assert_allclose(areas, low + (high - low) * shares, atol=10)


def test_the_static_figure_has_the_same_widths_and_sizes():
    graph = graph_of([[1, 1e-3, 1e-6], [1e-3, 1e-2, 1e-4]], [[1.0, 1e-4, 1], [3e-3, 0.2, 1]])
    figure, (ax,) = plot_flow_graph(graph), kgrad.plot_flow_graph(graph, title="x").axes
    drawn = [line.line.width for line in edges_of(figure)]
    static = {patch.get_gid(): patch.get_linewidth() for patch in ax.patches}
    assert_allclose(drawn, [static[f"{a} → {b}"] for a, b in graph.edges], atol=0.11)
    sizes = {one.get_gid(): one.get_sizes()[0] for one in ax.collections}
    drawn = np.square(others_of(figure)[1].marker.size)
    assert_allclose(drawn, [sizes[name] for name in graph], atol=10)


def test_edges_that_carry_the_same_signal_have_its_number_once():
    joined = [("a", "b"), ("b", "c"), ("a", "c")]
    figure = plot_flow_graph(
        graph_of(np.ones((1, 3)), [[0.25, 0.5, 1]], names=list("abc"), joined=joined)
    )
    assert [line.hovertemplate[:5] for line in edges_of(figure)] == ["a → b", "a → c", "b → c"]
    assert others_of(figure)[0].text == ("∂a 0.25", "", "∂a 0.5")
    assert edges_of(figure)[1].meta == "epoch 0: 0.25, above 0.01"


def test_arrowheads_show_where_data_and_gradients_arrive():
    """Of an edge that leads back, one in its middle; none of gradients that were not measured."""
    joined = [("a", "b"), ("b", "a"), ("b", "c")]
    signals = np.array([[1.0, 1.0, math.nan]])
    graph = graph_of(np.ones((1, 3)), signals, names=list("abc"), joined=joined)
    graph.edges["b", "c"].update(gradient_norm=None, norms=[None])
    figure = plot_flow_graph(graph)
    heads, nodes = figure.data[6], figure.data[4]
    assert heads.marker.symbol == (
        "triangle-up", "triangle-down-open", "triangle-up", "triangle-down-open"
    )  # fmt: skip
    assert heads.x[2] in edges_of(figure)[1].x
    (a, b, c), (gradient, data, _, other) = nodes.y, heads.y
    assert_allclose([a - gradient, data - b, other - c], 14, atol=0.5)  # rows are 48 pixels apart


def test_one_record_or_none_needs_no_slider():
    assert not plot_flow_graph(graph_of(np.ones((1, 3)))).layout.sliders
    assert not flow_figure(graph_of(np.ones((3, 3))), most=1).layout.sliders
    given = {"nodes": [{"id": "a", "gradient_norm": 0.5}], "edges": []}
    figure = plot_flow_graph(kgrad.graph_from_json(given))
    assert figure.data[1].text == ("no epoch: 0.5",)
    assert not figure.layout.sliders


def test_a_graph_that_was_written_with_its_records_has_the_same_figure():
    graph = graph_of(np.ones((3, 3)), SIGNALS)
    content = json.loads(json.dumps(kgrad.graph_to_json(graph, every_record=True)))
    assert (
        plot_flow_graph(kgrad.graph_from_json(content)).to_json()
        == plot_flow_graph(graph).to_json()
    )


def test_a_folded_model_tells_its_first_weights_and_how_many_more():
    inner = keras.Sequential([keras.Input((4,))] + [layers.Dense(4) for _ in range(4)], name="in")
    model = keras.Sequential([keras.Input((4,)), inner, layers.Dense(1)])
    X = np.ones((4, 4))
    history = kgrad.measure_gradients(model, X, X[:, :1], loss="mse")
    told = others_of(plot_flow_graph(kgrad.flow_graph(model, history)))[1].customdata[1]
    first = "in/dense kernel (4, 4)<br>in/dense bias (4,)<br>in/dense_1 kernel"
    assert told.startswith(f"in (Model)<br>{first}")
    assert told.endswith("<br>and 2 more")


def test_a_node_of_several_layers_says_how_many():
    graph = graph_of([[0.5, 2.0]])
    graph.nodes["dense_0"]["folded"] = ("a", "b")
    _, _, beside = others_of(plot_flow_graph(graph))
    assert [text.split("<br>")[1].strip() for text in beside.text] == ["2 layers, ∂W 0.5", "∂W 2"]


def test_names_are_shown_as_they_are():
    names = ["<b>%{x}</b>", "b"]
    figure = plot_flow_graph(graph_of(np.ones((1, 2)), [[1, 1]], names=names), title="<i>title")
    (line,), (_, nodes, beside) = edges_of(figure), others_of(figure)
    assert line.hovertemplate.startswith("&lt;b&gt;%&#123;x}&lt;/b&gt; → b<br>")
    assert nodes.customdata[0].startswith("&lt;b&gt;%{x}&lt;/b&gt; (Dense)<br>")
    assert beside.text[0].startswith("\u2003\u2009&lt;b&gt;%{x}&lt;/b&gt;<br>")
    assert figure.layout.title.text == "&lt;i&gt;title"


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(TypeError, match="must be a networkx DiGraph, received GradientHistory"):
        plot_flow_graph(make_history(np.ones((1, 2))))
    with pytest.raises(ValueError, match="at least one node"):
        plot_flow_graph(nx.DiGraph())
    with pytest.raises(ValueError, match="threshold must be a share from 0 to 1, received 3"):
        plot_flow_graph(graph_of(np.ones((1, 2))), threshold=3, relative=True)


# Where everything stands


def residual(depth):
    names = [f"hidden_{i}" for i in range(depth)]
    joined = [*itertools.pairwise(names), *zip(names[:-3:3], names[3::3], strict=False)]
    return graph_of(np.full((1, depth), 1.2e-5), names=names, joined=joined)


def branched():
    names = ["input", *[f"block_{a}_{b}" for a in range(2) for b in range(4)], "output_of_it"]
    joined = [("input", f"block_0_{k}") for k in range(4)]
    joined += [(f"block_0_{k}", f"block_1_{k}") for k in range(4)]
    joined += [(f"block_1_{k}", "output_of_it") for k in range(4)]
    return graph_of(np.full((1, 10), 1.2e-5), names=names, joined=joined)


GRAPHS = {
    "ten layers": graph_of(np.full((1, 10), 1.2e-5)),
    "a hundred layers": graph_of(np.full((1, 100), 1.2e-5)),
    "a hundred layers with skips": residual(100),
    "branches": branched(),
    "long names": graph_of(np.ones((1, 40)), names=[f"{i}_of_a_very_long_name" for i in range(40)]),
}


@pytest.mark.parametrize("width", [360, 400, 1000, 1200])
@pytest.mark.parametrize("name", GRAPHS)
def test_no_label_covers_another_or_leaves_the_figure(name, width):
    """A letter is at most 6.7 pixels wide on average at this size, and a line 16 high."""
    arrangement = FlowDrawing(GRAPHS[name]).arranged(width)
    left, right = arrangement.across
    assert right - left <= width + 1e-6
    edges = len(GRAPHS[name].edges)
    places = zip(arrangement.x[edges + 1], arrangement.y[edges + 1], strict=True)
    boxes = []
    for (x, y), text in zip(places, arrangement.names, strict=True):
        assert len(text) >= 4
        assert left + 10 <= x
        boxes.append((x + 12, x + 12 + 6.7 * max(len(text), 10), y - 16, y + 16))
    assert max(box[1] for box in boxes) <= right + 1
    bottom, top = arrangement.up
    assert bottom <= min(box[2] for box in boxes) and max(box[3] for box in boxes) <= top
    for one, other in itertools.combinations(boxes, 2):
        beside = one[1] <= other[0] or other[1] <= one[0]
        assert beside or one[3] <= other[2] or other[3] <= one[2], (one, other)


def test_a_deep_graph_goes_on_in_as_many_columns_as_there_is_room_for():
    heights = []
    for width in (360, 1000):
        bottom, top = FlowDrawing(GRAPHS["a hundred layers"]).arranged(width).up
        heights.append(top - bottom)
    assert heights[0] < 50 * 48
    assert heights[1] < 18 * 48


@pytest.fixture(scope="module")
def long_graph():
    random = np.random.default_rng(0)
    values = 10 ** (random.normal(0, 0.2, (1000, 100)) + np.linspace(-6, 0, 100))
    values[703:, 40] = np.nan
    values[250, 60] *= 1e4
    return graph_of(values, 2 * values)


def test_a_thousand_epochs_of_a_hundred_layers_are_a_small_figure(long_graph):
    figure = plot_flow_graph(long_graph)
    labels = [label for label, _ in steps_of(figure)]
    assert len(labels) <= 50
    assert {"0", "250", "703", "999"} <= set(labels)
    assert len(figure.to_json()) < 1_500_000
    before, after = (
        dict(steps_of(figure))[label] for label in (labels[labels.index("703") - 1], "703")
    )
    assert before["marker.symbol"][100][40] == "circle"
    assert after["marker.symbol"][100][40] == "x"


def test_what_a_page_gets_holds_every_number_and_look(long_graph):
    """Decoded here as the page's script does it."""
    drawing, records = FlowDrawing(long_graph), [0, 250, 703]
    packed = json.loads(json.dumps(drawing.to_json(records)))
    for parts, graph_parts in (("edges", long_graph.edges), ("nodes", long_graph.nodes)):
        part = packed[parts]
        logs = np.frombuffer(base64.b64decode(part["logs"]), "<f4").reshape(3, -1)
        codes = np.frombuffer(base64.b64decode(part["codes"]), "u1").reshape(3, -1)
        norms = np.array([one["norms"] for one in graph_parts.values()]).T[records]
        shown = np.array(part["looks"]["shown"], object)[codes]
        assert_array_equal(shown == "NaN", np.isnan(norms))
        assert_allclose(10.0 ** logs[shown == None], norms[shown == None], rtol=1e-5)  # noqa: E711
    verdicts = np.array(packed["edges"]["looks"]["verdict"])
    colors = np.array(packed["edges"]["looks"]["color"])
    assert_array_equal(colors[verdicts == "above"], GREEN)
    assert_array_equal(colors[verdicts == "below"], RED)
    assert len(json.dumps(drawing.to_json(range(200)))) < 350_000


def test_figures_and_pages_are_drawn_without_tensorflow():
    code = (
        "import sys, kgrad.figures.static, kgrad.figures.interactive\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
