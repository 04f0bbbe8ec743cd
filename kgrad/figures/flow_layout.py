"""Where the nodes of a graph stand: in rows from the input down, branches side by side.

The method is Sugiyama's: rows by the longest path from an input, an order within each row that
brings neighbours close, and a way for every edge through the rows that it passes by.

References:
    Sugiyama, Tagawa, Toda (1981), Methods for visual understanding of hierarchical system
    structures; the places in a row as in Gansner, Koutsofios, North, Vo (1993), A technique for
    drawing directed graphs.
"""

from collections.abc import Hashable
from itertools import pairwise
from typing import NamedTuple

import networkx as nx
import numpy as np
from scipy.optimize import linprog
from scipy.sparse import lil_array

Edge = tuple[str, str]
Item = Hashable  # a node's name, or (edge, row) where an edge passes a row

SWEEPS = 12
LANE = 0.3  # width of what an edge needs that passes a node, as a share of a node's
# What a bend costs in an edge that passes nodes, at its ends, and in one from node to node.
STRAIGHT = (8.0, 1.0, 4.0)


class Layout(NamedTuple):
    """Where everything stands: x to the right in widths of a node, rows downwards from 0.

    Attributes:
        nodes: name → (x, row).
        ways: edge → the points that it passes, its ends included; two points for an edge that
            leads back.
        back: the edges that lead back or to the node that they came from.
        width: of all, with room for the last node.
        rows: how many there are.
    """

    nodes: dict[str, tuple[float, int]]
    ways: dict[Edge, list[tuple[float, int]]]
    back: frozenset[Edge]
    width: float
    rows: int


def layered(graph: nx.DiGraph) -> Layout:
    """Place the nodes of a graph in rows, so that edges lead down."""
    order = _order(graph)
    forward = [edge for edge in graph.edges if order[edge[0]] < order[edge[1]]]
    row_of = _rows(order, forward)
    rows: list[list[Item]] = [[] for _ in range(max(row_of.values(), default=-1) + 1)]
    links: list[tuple[Item, Item]] = []
    ways: dict[Edge, list[Item]] = {}
    for edge in forward:
        first, last = row_of[edge[0]], row_of[edge[1]]
        passed: list[Item] = [(edge, row) for row in range(first + 1, last)]
        for row, item in enumerate(passed, start=first + 1):
            rows[row].append(item)
        ways[edge] = [edge[0], *passed, edge[1]]
        links += pairwise(ways[edge])
    for name in order:
        rows[row_of[name]].append(name)
    neighbours: dict[Item, list[Item]] = {item: [] for row in rows for item in row}
    for above, below in links:
        neighbours[above].append(below)
        neighbours[below].append(above)
    _sort(rows, neighbours)
    x = _place(rows, links)
    where = {item: (x[item], row) for row, items in enumerate(rows) for item in items}
    back = frozenset(edge for edge in graph.edges if edge not in ways)
    placed = {edge: [where[item] for item in way] for edge, way in ways.items()}
    placed |= {edge: [where[edge[0]], where[edge[1]]] for edge in back}
    nodes = {name: where[name] for name in graph}
    return Layout(nodes, placed, back, 1 + max(x.values(), default=0.0), len(rows))


def _order(graph: nx.DiGraph) -> dict[str, int]:
    """The place of every node behind those that lead to it; in a cycle as the graph has them."""
    given = {name: i for i, name in enumerate(graph)}
    cycles = nx.condensation(graph)  # each as one node
    members = {
        cycle: sorted(names, key=given.__getitem__) for cycle, names in cycles.nodes(data="members")
    }
    by_cycle = nx.lexicographical_topological_sort(cycles, key=lambda c: given[members[c][0]])
    names = [name for cycle in by_cycle for name in members[cycle]]
    return {name: i for i, name in enumerate(names)}


def _rows(order: dict[str, int], forward: list[Edge]) -> dict[str, int]:
    """The row of every node: the longest way to it; what nothing leads to, above its consumer."""
    rows = dict.fromkeys(order, 0)
    sources: dict[str, list[str]] = {name: [] for name in order}
    targets: dict[str, list[str]] = {name: [] for name in order}
    for source, target in forward:
        sources[target].append(source)
        targets[source].append(target)
    for name in sorted(order, key=order.__getitem__):
        rows[name] = max((rows[source] + 1 for source in sources[name]), default=0)
    for name in order:
        if not sources[name] and targets[name]:
            rows[name] = min(rows[target] for target in targets[name]) - 1
    return rows


def _sort(rows: list[list[Item]], neighbours: dict[Item, list[Item]]) -> None:
    """Bring every row in the order of its neighbours' mean places, down and up by turns."""
    place = {item: float(i) for row in rows for i, item in enumerate(row)}
    row_of = {item: i for i, row in enumerate(rows) for item in row}
    for sweep in range(SWEEPS):
        step = 1 if sweep % 2 else -1
        for i in range(len(rows))[::-step]:
            means = {}
            for item in rows[i]:
                near = [place[n] for n in neighbours[item] if row_of[n] == i + step]
                means[item] = float(np.mean(near)) if near else place[item]
            rows[i].sort(key=means.__getitem__)
            place |= {item: float(j) for j, item in enumerate(rows[i])}


def _place(rows: list[list[Item]], links: list[tuple[Item, Item]]) -> dict[Item, float]:
    """Give every item an x: the links as straight as the room between the items allows.

    A linear programme: the least Σ w |x_i - x_j| over the links, with every item at least as far
    from the next in its row as it is wide.
    """
    number = {item: i for i, item in enumerate(item for row in rows for item in row)}
    items, count = len(number), len(links)
    is_node = {item: isinstance(item, str) for item in number}
    gaps = [
        (number[left], number[right], 1.0 if is_node[left] else LANE)
        for row in rows
        for left, right in pairwise(row)
    ]
    # Variables: the x of the items, then the length of the links.
    bounds = lil_array((2 * count + len(gaps), items + count))
    least = np.zeros(2 * count + len(gaps))
    weights = np.zeros(items + count)
    for k, (above, below) in enumerate(links):
        for row, sign in ((2 * k, 1.0), (2 * k + 1, -1.0)):
            bounds[row, [number[above], number[below], items + k]] = [sign, -sign, -1.0]
        weights[items + k] = STRAIGHT[is_node[above] + is_node[below]]
    for row, (left, right, width) in enumerate(gaps, start=2 * count):
        bounds[row, [left, right]] = [1.0, -1.0]
        least[row] = -width
    # Of all that are as straight the one that stands furthest to the left, to be definite.
    weights[:items] = 1e-6
    solved = linprog(weights, A_ub=bounds.tocsr(), b_ub=least, method="highs")
    return dict(zip(number, solved.x[:items].tolist(), strict=True))
