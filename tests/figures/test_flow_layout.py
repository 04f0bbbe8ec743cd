"""The flow graph's layout."""

import itertools

import numpy as np
import pytest
from figures.static.test_flow import graph_of

from kgrad.figures.flow_layout import layered, starts_of


def segments(layout):
    for edge, way in layout.ways.items():
        for before, after in itertools.pairwise(way):
            yield edge, before, after


def test_edges_lead_down_one_row_at_a_time():
    layout = layered(graph_of(dict.fromkeys(["a b", "b c", "c d", "a d", "b e", "e d", "x d"], 1)))
    assert not layout.back
    assert all(after[1] == before[1] + 1 for _, before, after in segments(layout))
    assert layout.nodes["x"][1] == layout.nodes["d"][1] - 1  # not at the top, far from its use


def test_a_skip_passes_beside_the_nodes_and_the_trunk_is_straight():
    edges = [f"h{i} h{i + 1}" for i in range(9)] + ["h0 h3", "h3 h6", "h6 h9"]
    layout = layered(graph_of(dict.fromkeys(edges, 1)))
    assert len({x for x, _ in layout.nodes.values()}) == 1
    for i, way in ((0, ("h0", "h3")), (3, ("h3", "h6"))):
        passed = layout.ways[way][1:-1]
        assert [row for _, row in passed] == [i + 1, i + 2]
        trunk = layout.nodes["h0"][0]
        assert all(abs(x - trunk) >= 0.29 for x, _ in passed)


def test_branches_stand_side_by_side_without_crossing():
    edges = [f"{a} {b}" for k in range(4) for a, b in (("s", f"b{k}"), (f"b{k}", f"c{k}"))]
    edges += [f"c{k} t" for k in (2, 0, 3, 1)]
    layout = layered(graph_of(dict.fromkeys(edges, 1)))
    for row in "bc":
        x = sorted(layout.nodes[f"{row}{k}"][0] for k in range(4))
        assert min(np.diff(x)) >= 1 - 1e-6
    for k in range(4):
        assert layout.nodes[f"b{k}"][0] == pytest.approx(layout.nodes[f"c{k}"][0])


def test_a_row_is_ordered_so_that_edges_do_not_cross():
    pairs = ["r p", "r q", "q x", "p y", "x s", "y t", "s end", "t end"]
    x = {name: at for name, (at, _) in layered(graph_of(dict.fromkeys(pairs, 1))).nodes.items()}
    assert (x["p"] < x["q"]) == (x["y"] < x["x"]) == (x["t"] < x["s"])


def test_what_leads_back_is_known_and_the_rest_still_leads_down():
    layout = layered(graph_of(dict.fromkeys(["a b", "b c", "c b", "b b"], 1)))
    assert layout.back == {("c", "b"), ("b", "b")}
    assert [layout.nodes[name][1] for name in "abc"] == [0, 1, 2]


def test_a_foreign_graph_in_any_order_is_laid_out_from_its_sources():
    layout = layered(graph_of({"c d": 1, "b c": 1, "a b": 1}))
    assert [layout.nodes[name][1] for name in "abcd"] == [0, 1, 2, 3]


def chained(count, *more):
    edges = [f"h{i} h{i + 1}" for i in range(count - 1)]
    return layered(graph_of(dict.fromkeys([*edges, *more], 1)))


@pytest.mark.parametrize(
    ("rows", "fitting", "starts"),
    [(9, 9, [0]), (10, 9, [0, 5]), (10, 1, [0]), (21, 4, [0, 5, 10, 16]), (60, 3, [0, 20, 40])],
)
def test_a_chain_has_as_many_columns_as_fit(rows, fitting, starts):
    assert starts_of(chained(rows), fitting) == starts


def test_a_column_ends_where_a_single_edge_leads_on():
    assert starts_of(chained(12, "h3 h6"), 2) == [0, 7]  # not at 6, in the skip
    assert starts_of(chained(12, "h1 h10"), 2) == [0]
    # Too long for one column.
    (_, start) = starts_of(chained(30, "h1 h28"), 2)
    assert 9 <= start <= 21
