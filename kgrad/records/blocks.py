"""Blocks of layers: the branches between two layers that every path passes, such as a skip.

A long flow graph is read block by block. Which layers are a block follows from the connections;
the names of the layers say which neighbors belong to it, and how it is called.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import groupby

import networkx as nx

# A word that ends in a number, such as "block2" or "block2a", but not "conv2d".
_NUMBERED = re.compile(r".*\d(?!d$)[a-z]?$")


def blocks_of(names: Sequence[str], edges: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the block of each node that is in one: name of the node → name of the block.

    A block is what lies between two neighbors among the nodes that every path from the inputs to
    the outputs passes, together with the second one, which joins the branches. Neighboring blocks
    and nodes are one block if all their names begin with the same numbered words:
    conv2_block1_add belongs to conv2_block1. A block is called by the words with which all its
    names begin if no other name does, otherwise by its first and last node.

    Args:
        names: the nodes, in the order of their first call.
        edges: pairs of nodes.

    Example:
        >>> edges = [("x", "b1_dense"), ("b1_dense", "b1_add"), ("x", "b1_add"), ("b1_add", "y")]
        >>> blocks_of(["x", "b1_dense", "b1_add", "y"], edges)
        {'b1_dense': 'b1', 'b1_add': 'b1'}
    """
    heads = {name: _heads(name) for name in names}
    found: dict[str, str] = {}
    parts = enumerate(_parts(names, edges))
    # A part without a label is unlike its neighbors.
    labeled = [(_label([heads[name] for name in part]) or i, part) for i, part in parts]
    for _, alike in groupby(labeled, lambda one: one[0]):
        block = [name for _, part in alike for name in part]
        if len(block) > 1:
            found |= dict.fromkeys(block, _name(block, heads))
    return found


def _parts(names: Sequence[str], edges: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Divide the nodes behind each one that every path passes.

    The nodes before the first of them and behind the last one are parts of their own.
    """
    graph = nx.DiGraph()
    graph.add_nodes_from(names)
    graph.add_edges_from((source, target) for source, target in edges if source != target)
    start, end = object(), object()
    starts = [name for name in names if not graph.in_degree(name)]
    ends = [name for name in names if not graph.out_degree(name)]
    graph.add_edges_from((start, name) for name in starts)
    graph.add_edges_from((name, end) for name in ends)
    passed = set()  # the nodes that every path from the start to the end passes
    if starts and ends:
        above = nx.immediate_dominators(graph, start)
        node = above[end]
        while node is not start:
            passed.add(node)
            node = above[node]
    parts: list[list[str]] = [[]]
    for name in names:
        parts[-1].append(name)
        if name in passed:
            parts.append([])
    between = parts[1:-1]
    alone = (parts[0], parts[-1] if passed else [])
    first, last = ([[name] for name in part] for part in alone)
    return [*first, *between, *last]


def _heads(name: str) -> list[str]:
    """Return the beginnings of a name that end with a word, shortest first, without the name."""
    return [name[: separator.start()] for separator in re.finditer(r"[_/.]", name)]


def _label(heads: Sequence[Sequence[str]]) -> str:
    """Return the longest beginning that ends in a number and that all names have, or ""."""
    shared = set(heads[0]).intersection(*heads[1:])
    numbered = [head for head in shared if _NUMBERED.fullmatch(re.split(r"[_/.]", head)[-1])]
    return max(numbered, key=len, default="")


def _name(block: Sequence[str], heads: dict[str, list[str]]) -> str:
    """Return the name of a block."""
    shared = set(heads[block[0]]).intersection(*(heads[name] for name in block[1:]))
    name = max(shared, key=len, default="")
    others = [heads[other] + [other] for other in heads.keys() - set(block)]
    is_taken = any(name in other for other in others)
    return f"{block[0]} … {block[-1]}" if is_taken or not name else name
