"""The blocks of a topology, each written down by hand."""

import itertools
import random

import networkx as nx
import pytest

from kgrad.records.blocks import blocks_of


def blocks(*ways, names=()):
    """Return the blocks of nodes that are joined in these ways, each "a b c": block → nodes."""
    edges = [pair for way in ways for pair in itertools.pairwise(way.split())]
    order = list(dict.fromkeys([*names, *" ".join(ways).split()]))
    found = {}
    for node, block in blocks_of(order, edges).items():
        found.setdefault(block, []).append(node)
    return found


def test_a_block_is_what_branches_and_what_joins_it():
    assert blocks("x a b sum y", "x sum") == {"a … sum": ["a", "b", "sum"]}
    assert blocks("x a sum y", "x b sum", "x c sum", names="xabc") == {
        "a … sum": ["a", "b", "c", "sum"]
    }


def test_a_plain_chain_has_none():
    assert blocks("input hidden_1 hidden_2 hidden_3 output") == {}
    assert blocks("input_layer conv2d conv2d_1 max_pooling2d conv2d_2 dense") == {}


def test_numbered_words_join_neighbors_whatever_connects_them():
    assert blocks("conv1_pad conv1_bn pool1 block2a_conv block2a_bn out") == {
        "conv1": ["conv1_pad", "conv1_bn"], "block2a": ["block2a_conv", "block2a_bn"],
    }  # fmt: skip
    assert blocks("x b1_norm b1_heads b1_add b1_up b1_sum y", "x b1_add", "b1_add b1_sum") == {
        "b1": ["b1_norm", "b1_heads", "b1_add", "b1_up", "b1_sum"]
    }


def test_the_layers_of_a_resnet_are_its_blocks():
    ways = [
        "image stem s1_block1_1_conv s1_block1_1_bn s1_block1_add s1_block1_out "
        "s1_block2_1_conv s1_block2_1_bn s1_block2_add s1_block2_out average",
        "stem s1_block1_0_conv s1_block1_add", "s1_block1_out s1_block2_add",
    ]  # fmt: skip
    names = ["image", "stem", "s1_block1_0_conv"]
    assert {name: len(inner) for name, inner in blocks(*ways, names=names).items()} == {
        "s1_block1": 5, "s1_block2": 4,
    }  # fmt: skip


def test_a_name_that_others_share_is_the_first_and_the_last():
    ways = "x h_1 h_2 skip_1 h_3 h_4 skip_2 y", "x skip_1", "skip_1 skip_2"
    assert blocks(*ways) == {
        "h_1 … skip_1": ["h_1", "h_2", "skip_1"], "h_3 … skip_2": ["h_3", "h_4", "skip_2"],
    }  # fmt: skip
    assert list(blocks("x enc_a enc_b enc_sum y", "x enc_sum")) == ["enc"]
    assert list(blocks("x enc_a enc_b enc_sum enc", "x enc_sum")) == ["enc_a … enc_sum"]


def test_several_inputs_and_outputs_are_not_folded_away():
    ways = "a left join trunk p q sum head_1", "b right join", "trunk sum", "sum head_2"
    assert blocks(*ways, names="ab") == {"p … sum": ["p", "q", "sum"]}


def test_cycles_and_graphs_without_an_end_do_no_harm():
    assert blocks("x a a b y") == {}
    assert blocks("x a b a y", names="xaby") == {"b … y": ["b", "y"]}
    assert blocks("a b a") == {}
    assert blocks_of([], []) == {}


@pytest.mark.parametrize("seed", range(30))
def test_a_block_ends_at_a_node_whose_removal_parts_the_graph(seed):
    """An independent way to find what every path passes: take it out and look for a path."""
    draw = random.Random(seed)
    names = [f"n{i}" for i in range(12)]
    edges = set(itertools.pairwise(draw.sample(range(12), 4)))
    edges |= {(i, min(11, i + draw.choice([1, 1, 1, 2, 3]))) for i in range(11)}
    pairs = [(names[min(e)], names[max(e)]) for e in edges if min(e) < max(e)]
    graph = nx.DiGraph(pairs)
    graph.add_nodes_from(names)
    sources = [n for n in names if not graph.in_degree(n)]
    sinks = [n for n in names if not graph.out_degree(n)]
    graph.add_edges_from([("start", n) for n in sources] + [(n, "end") for n in sinks])

    def parts(name):
        rest = graph.copy()
        rest.remove_node(name)
        return not nx.has_path(rest, "start", "end")

    cuts = [name for name in names if parts(name)]
    expected = {}
    for before, after in itertools.pairwise(cuts):
        inner = names[names.index(before) + 1 : names.index(after) + 1]
        if len(inner) > 1:
            expected |= dict.fromkeys(inner, f"{inner[0]} … {inner[-1]}")
    assert blocks_of(names, pairs) == expected
