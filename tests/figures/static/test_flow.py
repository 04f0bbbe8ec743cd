"""The flow graph's layout, and its figure by reading the artists back."""

import itertools
import math

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from numpy.testing import assert_allclose

import kgrad
from kgrad.figures.flow_looks import AREAS, EDGE_WIDTHS, LOOKS
from kgrad.figures.scale import INFINITE, NAN, ZERO

pytestmark = pytest.mark.usefixtures("nothing_leaks")


def graph_of(edges, nodes=None):
    """A graph from {"a b": norm}; every node has its norm from `nodes`, or 1."""
    graph = nx.DiGraph(name="model", epoch=3, step=30, assumed=False)
    for pair in edges:
        for name in pair.split():
            graph.add_node(name, gradient_norm=(nodes or {}).get(name, 1.0))
    for pair, norm in edges.items():
        source, target = pair.split()
        graph.add_edge(source, target, gradient_norm=norm, outputs=(source,), reason="")
    return graph


def chain(norms, **options):
    names = [f"layer_{i}" for i in range(len(norms) + 1)]
    pairs = itertools.pairwise(names)
    return graph_of(
        {f"{a} {b}": norm for (a, b), norm in zip(pairs, norms, strict=True)}, **options
    )


def edges_drawn(figure):
    return {patch.get_gid(): patch for patch in figure.axes[0].patches}


def nodes_drawn(figure):
    return {one.get_gid(): one for one in figure.axes[0].collections}


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def look(patch):
    """Its color, and whether it is dashed."""
    return patch.get_edgecolor()[:3], patch.get_linestyle() != "solid"


def markers(figure):
    """Of all but the arrowheads."""
    return [line.get_marker() for line in figure.axes[0].lines if line.get_gid() is None]


@pytest.mark.parametrize(
    ("threshold", "relative"),
    [(-1, False), (math.nan, False), (math.inf, False), ("1", False), (True, False), (1.5, True)],
)
def test_a_threshold_that_is_none_is_refused(threshold, relative):
    with pytest.raises(ValueError, match="threshold must be"):
        kgrad.plot_flow_graph(chain([1.0]), title="x", threshold=threshold, relative=relative)


def test_edges_are_green_and_solid_above_and_red_and_dashed_at_or_below():
    figure = kgrad.plot_flow_graph(chain([0.02, 0.01, 1e-5]), title="A chain")
    drawn = [look(patch) for patch in edges_drawn(figure).values()]
    green, red = (to_rgb(LOOKS[verdict][0]) for verdict in ("above", "below"))
    by_name = {gid: look(patch) for gid, patch in edges_drawn(figure).items()}
    assert by_name["layer_0 → layer_1"] == (green, False)
    assert by_name["layer_1 → layer_2"] == by_name["layer_2 → layer_3"] == (red, True)
    assert len(drawn) == 3
    assert green[1] > max(green[0], green[2]) and red[0] > max(red[1:])
    assert legend(figure)[:2] == ["edge above 0.01", "edge at or below 0.01"]


def test_the_threshold_can_be_moved_and_be_relative():
    norms = [1e-5, 1e-6, 1e-8]
    red = to_rgb(LOOKS["below"][0])

    def reds(**options):
        figure = kgrad.plot_flow_graph(chain(norms), title="x", **options)
        drawn = edges_drawn(figure)
        return [
            look(drawn[f"layer_{i} → layer_{i + 1}"])[0] == red for i in range(len(norms))
        ], legend(figure)

    assert reds()[0] == [True, True, True]
    assert reds(threshold=5e-7)[0] == [False, False, True]
    found, key = reds(threshold=0.2, relative=True)
    assert found == [False, True, True]
    assert "edge above 2e-06" in key


def test_thickness_and_size_are_logarithmic():
    norms = [1.0, 1e-2, 1e-4]
    nodes = {f"layer_{i}": 10.0 ** (-2 * i) for i in range(4)}
    figure = kgrad.plot_flow_graph(chain(norms, nodes=nodes), title="x")
    widths = [edges_drawn(figure)[f"layer_{i} → layer_{i + 1}"].get_linewidth() for i in range(3)]
    assert_allclose(widths, [EDGE_WIDTHS[1], sum(EDGE_WIDTHS) / 2, EDGE_WIDTHS[0]])
    areas = [nodes_drawn(figure)[f"layer_{i}"].get_sizes()[0] for i in range(4)]
    assert_allclose(areas, np.linspace(AREAS[1], AREAS[0], 4))


def test_dashes_are_as_long_on_thick_edges_as_on_thin_ones():
    figure = kgrad.plot_flow_graph(chain([1e-3, 1e-9]), title="x")
    dashes = [patch._dash_pattern[1] for patch in edges_drawn(figure).values()]
    assert_allclose(dashes[0], dashes[1])


def test_every_number_is_written_once_for_what_is_the_same():
    graph = graph_of({"a b": 0.25, "b c": 0.5, "a c": 0.25}, nodes={"a": 7.5, "b": None, "c": 3})
    figure = kgrad.plot_flow_graph(graph, title="x")
    assert sorted(texts(figure)) == sorted(["a\n∂W 7.5", "b", "c\n∂W 3", "∂a 0.25", "∂a 0.5"])


def test_calls_of_a_shared_layer_have_a_number_each():
    graph = graph_of({"a b": 0.25, "a c": 0.75})
    graph.edges["a", "c"]["outputs"] = ("a (2)",)
    assert {"∂a 0.25", "∂a 0.75"} <= set(texts(kgrad.plot_flow_graph(graph, title="x")))


def test_zero_nan_and_infinity_have_their_looks_on_edges_and_nodes():
    norms = [0.0, math.nan, math.inf, None, 1.0]
    nodes = {"layer_1": 0.0, "layer_2": math.nan, "layer_3": math.inf, "layer_4": None}
    figure = kgrad.plot_flow_graph(chain(norms, nodes=nodes), title="x")
    assert sorted(markers(figure)) == sorted(2 * [ZERO.marker, NAN.marker, INFINITE.marker])
    assert set(nodes_drawn(figure)) == {"layer_0", "layer_4", "layer_5"}
    assert {"∂a 0", "∂a NaN", "∂a ∞"} <= set(texts(figure))
    assert {"layer_1\n∂W 0", "layer_2\n∂W NaN", "layer_3\n∂W ∞", "layer_4"} <= set(texts(figure))
    assert {
        "edge: not measured", "edge at or below 0.01", "node: not measured",
        ZERO.name, NAN.name, INFINITE.name,
    } <= set(legend(figure))  # fmt: skip


def test_arrowheads_show_where_data_and_gradients_arrive():
    figure = kgrad.plot_flow_graph(chain([1.0, None]), title="x")
    lines = figure.axes[0].lines
    data = [line for line in lines if line.get_gid() == "data"]
    (gradient,) = [line for line in lines if line.get_gid() == "gradient"]  # of what is measured
    y = [nodes_drawn(figure)[f"layer_{i}"].get_offsets()[0][1] for i in range(3)]
    assert [line.get_marker() for line in data] == ["v", "v"]
    assert_allclose([line.get_ydata()[0] for line in data], np.add(y[1:], 0.2), atol=0.02)
    assert_allclose(gradient.get_ydata()[0], y[0] - 0.2, atol=0.02)
    assert gradient.get_marker() == "^"
    assert gradient.get_color() == LOOKS["above"][0]


def test_a_graph_without_any_number_is_drawn_and_says_why():
    graph = chain([None, None], nodes=dict.fromkeys([f"layer_{i}" for i in range(3)]))
    for edge in graph.edges.values():
        edge["reason"] = "no probe was recorded"
    figure = kgrad.plot_flow_graph(graph, title="x")
    assert "Edges were not measured: no probe was recorded." in (
        figure.axes[0].get_title(loc="left").replace("\n", " ")
    )
    assert legend(figure) == ["edge: not measured", "node: not measured"]


def test_an_assumed_chain_and_the_epoch_stand_above():
    graph = chain([1.0])
    graph.graph["assumed"] = True
    above = kgrad.plot_flow_graph(graph, title="The title").axes[0].get_title(loc="left")
    assert above.startswith("Epoch 3.")
    assert "assumed" in above


def overlaps(figure):
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    # A point of antialiasing is no overlap.
    return [
        (one, other)
        for one, other in itertools.combinations(range(len(boxes)), 2)
        if boxes[one].padded(-1).overlaps(boxes[other].padded(-1))
    ]


def branches():
    names = [f"branch_{k}" for k in range(3)]
    edges = {"input stem": None, "join shared": 0.3, "shared shared": 0.2, "shared out": 0.1}
    edges |= {f"stem {name}": 0.7 for name in names} | {f"{name} join": 0.5 for name in names}
    return graph_of(edges | {"stem join": 0.7, "join auxiliary": 0.3})


@pytest.mark.parametrize(
    "graph",
    [chain([1e-5] * 11), chain([0.5] * 50), branches()],
    ids=["ten layers", "fifty layers", "branches"],
)
def test_no_text_covers_another_or_leaves_the_figure(graph):
    figure = kgrad.plot_flow_graph(graph, title="x")
    assert overlaps(figure) == []
    inside = figure.bbox.padded(1)
    for text in figure.axes[0].texts:
        box = text.get_window_extent()
        assert inside.x0 <= box.x0 and box.x1 <= inside.x1
        assert inside.y0 <= box.y0 and box.y1 <= inside.y1


def test_a_node_of_several_layers_says_how_many():
    graph = chain([1.0, 1.0], nodes={"layer_0": 0.3, "layer_1": None})
    graph.nodes["layer_0"]["folded"] = ("a", "b", "c")
    graph.nodes["layer_1"]["folded"] = ("d",)
    drawn = texts(kgrad.plot_flow_graph(graph, title="x"))
    assert {"layer_0\n3 layers, ∂W 0.3", "layer_1\n1 layer", "layer_2\n∂W 1"} <= set(drawn)


def test_the_numbers_are_explained_above():
    graph = chain([1.0])
    above = kgrad.plot_flow_graph(graph, title="x").axes[0].get_title(loc="left")
    above = above.replace("\n", " ")
    assert "∂W: gradient norm of a node's weights, ‖∂L/∂W‖." in above
    assert "∂a: norm of the gradient that flows back along an edge, ‖∂L/∂a‖." in above


def test_a_deep_graph_goes_on_in_more_columns():
    figure = kgrad.plot_flow_graph(chain([0.5] * 50), title="x")
    width, height = figure.get_size_inches()
    assert width <= 12 and height <= 15
    figure = kgrad.plot_flow_graph(chain([0.5] * 10), title="x")
    assert figure.get_size_inches()[0] < 6


def test_a_name_is_drawn_as_it_is():
    graph = graph_of({"<script> b": 1.0}, nodes={})
    nx.relabel_nodes(graph, {"b": "$x^{", "<script>": "<script>$$"}, copy=False)
    figure = kgrad.plot_flow_graph(graph, title="$title")
    figure.canvas.draw()
    assert "$x^{\n∂W 1" in texts(figure)


def test_what_is_no_graph_is_refused():
    with pytest.raises(TypeError, match="must be a networkx DiGraph, received dict"):
        kgrad.plot_flow_graph({}, title="x")
    with pytest.raises(ValueError, match="at least one node"):
        kgrad.plot_flow_graph(nx.DiGraph(), title="x")


def test_the_figure_of_a_model_has_a_node_a_layer_and_an_edge_a_link():
    model = kgrad.create_model(4, "relu", "he", input_shape=(3,), skip_connections=True)
    graph = kgrad.flow_graph(model)
    figure = kgrad.plot_flow_graph(graph, title="Residual")
    assert set(edges_drawn(figure)) == {f"{a} → {b}" for a, b in graph.edges}
    assert set(nodes_drawn(figure)) == set(graph)
    assert plt.get_fignums() == []
