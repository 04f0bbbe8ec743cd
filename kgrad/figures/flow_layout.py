"""The flow graph's layout: nodes in rows from the input down, edges as curves between them.

The method is Sugiyama's: rows by the longest path from an input, an order within each row that
brings neighbors close, and a path for every edge through the rows that it passes. A deep graph
continues in another column of the figure.

References:
    Sugiyama, Tagawa, Toda (1981), Methods for visual understanding of hierarchical system
    structures; the places in a row as in Gansner, Koutsofios, North, Vo (1993), A technique for
    drawing directed graphs.
"""

import math
from bisect import bisect_right
from collections.abc import Hashable
from itertools import pairwise
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
from matplotlib.path import Path
from scipy.optimize import linprog
from scipy.sparse import lil_array

Edge = tuple[str, str]
Item = Hashable  # a node's name, or (edge, row) for an edge that passes a row

LEAST_ROWS, MOST_ROWS = 5, 16  # of a column, if there is room for as many columns
_SWEEPS = 12
_LANE = 0.3  # width that a passing edge needs, as a share of a node's
# The cost of a bend within an edge that passes nodes, at its ends, and in an edge that passes none.
_STRAIGHT = (8.0, 1.0, 4.0)
_BENT_POINTS, _STRAIGHT_POINTS = 15, 5  # of a piece of a curve that is drawn from point to point


class Layout(NamedTuple):
    """Places of nodes and edges: x to the right in widths of a node, rows downwards from 0.

    Attributes:
        nodes: name → (x, row).
        ways: edge → the places that it passes, including its ends; two places for an edge that
            leads back.
        back: the edges that lead back, or from a node to itself.
        width: width of the whole, with room for the last node.
        rows: number of rows.
    """

    nodes: dict[str, tuple[float, int]]
    ways: dict[Edge, list[tuple[float, int]]]
    back: frozenset[Edge]
    width: float
    rows: int


def layered(graph: nx.DiGraph) -> Layout:
    """Return the layout of a graph in rows, such that edges lead down."""
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
    neighbors: dict[Item, list[Item]] = {item: [] for row in rows for item in row}
    for above, below in links:
        neighbors[above].append(below)
        neighbors[below].append(above)
    _sort(rows, neighbors)
    x = _place(rows, links)
    where = {item: (x[item], row) for row, items in enumerate(rows) for item in items}
    back = frozenset(edge for edge in graph.edges if edge not in ways)
    placed = {edge: [where[item] for item in way] for edge, way in ways.items()}
    placed |= {edge: [where[edge[0]], where[edge[1]]] for edge in back}
    nodes = {name: where[name] for name in graph}
    return Layout(nodes, placed, back, 1 + max(x.values(), default=0.0), len(rows))


def _order(graph: nx.DiGraph) -> dict[str, int]:
    """Return each node's rank, after those that lead to it; in a cycle in the graph's own order."""
    given = {name: i for i, name in enumerate(graph)}
    cycles = nx.condensation(graph)  # each as one node
    members = {
        cycle: sorted(names, key=given.__getitem__) for cycle, names in cycles.nodes(data="members")
    }
    by_cycle = nx.lexicographical_topological_sort(cycles, key=lambda c: given[members[c][0]])
    names = [name for cycle in by_cycle for name in members[cycle]]
    return {name: i for i, name in enumerate(names)}


def _rows(order: dict[str, int], forward: list[Edge]) -> dict[str, int]:
    """Return each node's row: the longest path to it; a node without one is above its consumer."""
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


def _sort(rows: list[list[Item]], neighbors: dict[Item, list[Item]]) -> None:
    """Sort every row by the mean places of its neighbors, down and up alternately."""
    place = {item: float(i) for row in rows for i, item in enumerate(row)}
    row_of = {item: i for i, row in enumerate(rows) for item in row}
    for sweep in range(_SWEEPS):
        step = 1 if sweep % 2 else -1
        for i in range(len(rows))[::-step]:
            means = {}
            for item in rows[i]:
                near = [place[n] for n in neighbors[item] if row_of[n] == i + step]
                means[item] = float(np.mean(near)) if near else place[item]
            rows[i].sort(key=means.__getitem__)
            place |= {item: float(j) for j, item in enumerate(rows[i])}


def _place(rows: list[list[Item]], links: list[tuple[Item, Item]]) -> dict[Item, float]:
    """Return an x for every item that makes the links as straight as possible.

    A linear program: minimize Σ w |x_i - x_j| over the links, with every item at least its own
    width away from the next in its row.
    """
    number = {item: i for i, item in enumerate(item for row in rows for item in row)}
    items, count = len(number), len(links)
    is_node = {item: isinstance(item, str) for item in number}
    gaps = [
        (number[left], number[right], 1.0 if is_node[left] else _LANE)
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
        weights[items + k] = _STRAIGHT[is_node[above] + is_node[below]]
    for row, (left, right, width) in enumerate(gaps, start=2 * count):
        bounds[row, [left, right]] = [1.0, -1.0]
        least[row] = -width
    # Among equally straight solutions take the leftmost, so that the result is unique.
    weights[:items] = 1e-6
    solved = linprog(weights, A_ub=bounds.tocsr(), b_ub=least, method="highs")
    return dict(zip(number, solved.x[:items].tolist(), strict=True))


class Room(NamedTuple):
    """Sizes of a figure's parts, in inches or in pixels.

    Attributes:
        row: from a node to the one below.
        lane: from a node to the next one beside it.
        gutter: between columns.
        loop: to the left of a node, for an edge that leads back to it.
        margin: to the left of the first column.
        least: width of the figure if less is needed.
        widest: the largest width of all columns together.
    """

    row: float
    lane: float
    gutter: float
    loop: float
    margin: float
    least: float
    widest: float


def starts_of(layout: Layout, fitting: int) -> list[int]:
    """Return the first row of each column.

    A column ends where a single edge leads on. Only if a graph has too many rows for that it ends
    where as few edges lead on as possible.

    Args:
        layout: the layout.
        fitting: the number of columns that fit into the figure.
    """
    edges = [0] * (layout.rows + 1)  # that lead from the row above to each row
    for way in layout.ways.values():
        for _, row in way[1:]:
            edges[row] += 1
    least = min(-(-layout.rows // MOST_ROWS), fitting)
    for columns in range(max(1, min(layout.rows // LEAST_ROWS, fitting)), 0, -1):
        length = layout.rows / columns
        near = [
            range(math.ceil((k - 0.4) * length), math.floor((k + 0.4) * length) + 1)
            for k in range(1, columns)
        ]
        ends = [
            min(rows, key=lambda row: (edges[row], abs(row - k * length)))
            for k, rows in enumerate(near, start=1)
        ]
        if columns <= least or all(edges[end] == 1 for end in ends):
            return [0, *ends]
    return [0]


class Grid:
    """Places of a layout in the figure, in columns side by side.

    Attributes:
        room: the sizes.
        columns: number of columns.
        rows: the largest number of rows of a column.
        width: width of the figure, including `room.margin` to the left of 0.
        drawn: height of the columns.
    """

    def __init__(self, layout: Layout, room: Room) -> None:
        self.room = room
        self._pitch = layout.width * room.lane + room.gutter
        loops = room.loop if layout.back else 0.0
        fitting = int((room.widest - loops) / self._pitch + 1e-9)
        self._starts = starts_of(layout, fitting)
        self.columns = len(self._starts)
        self.rows = max(b - a for a, b in pairwise([*self._starts, layout.rows]))
        self.drawn = (self.rows + 0.4) * room.row
        needed = loops + self.columns * self._pitch
        self.width = max(room.least, needed + room.margin)
        # A narrow graph is centered.
        spare = self.width - needed + room.gutter - room.margin
        self._start = loops + max(0.0, spare / 2)

    def at(self, place: tuple[float, int]) -> tuple[float, float]:
        """Return a place's point, x to the right and y upwards."""
        column = self._column(place)
        return (
            self._start + column * self._pitch + place[0] * self.room.lane,
            -(place[1] - self._starts[column]) * self.room.row,
        )

    def _column(self, place: tuple[float, int]) -> int:
        return bisect_right(self._starts, place[1]) - 1

    def path(self, way: list[tuple[float, int]]) -> Path:
        """Return an edge's curve, which leaves and enters every place vertically."""
        points, codes = [self.at(way[0])], [Path.MOVETO]
        row, gutter = self.room.row, self.room.gutter
        for before, after in pairwise(way):
            (x0, y0), (x1, y1) = self.at(before), self.at(after)
            if self._column(before) == self._column(after):
                middle = (y0 + y1) / 2
                points += [(x0, middle), (x1, middle), (x1, y1)]
                codes += [Path.CURVE4] * 3
            else:  # to the next column: down, up beside it, and in from above
                bottom, top = y0 - 0.75 * row, 0.5 * row
                x = x1 - (0.7 + 0.2 * before[0]) * gutter
                points += [(x0, bottom), (x, bottom), (x, top), (x1, top), (x1, y1)]
                codes += [Path.LINETO] * 5
        return Path(points, codes)

    def loop(self, way: list[tuple[float, int]]) -> Path:
        """Return the curve of an edge that leads back, to the left of all between its ends."""
        (x0, y0), (x1, y1) = self.at(way[0]), self.at(way[-1])
        left, steep = min(x0, x1) - self.room.loop, 0.53 * self.room.row
        ends = [(x0, y0), (left, y0 - steep), (left, y1 + steep), (x1, y1)]
        return Path(ends, [Path.MOVETO, *[Path.CURVE4] * 3])


def middle_of(path: Path, steep: float) -> tuple[tuple[float, float], int | None]:
    """Return the middle of a path's first piece, and its direction.

    The direction is 1 to the right, -1 to the left and 0 down. If the path continues in another
    column, the middle is that of its turn and the direction is None.

    Args:
        path: what `Grid.path` or `Grid.loop` returned.
        steep: the largest distance to the side at which a piece still counts as going down.
    """
    points = np.asarray(path.vertices, dtype=np.float64)
    if np.array(path.codes)[1] == Path.LINETO:
        x, y = points[1:3].mean(axis=0)
        return (float(x), float(y)), None
    x, y = np.array([1, 3, 3, 1]) @ points[:4] / 8
    run = points[3, 0] - points[0, 0]
    return (float(x), float(y)), 0 if abs(run) < steep else int(np.sign(run))


def points_of(path: Path) -> np.ndarray:
    """Return points along a path, close enough to draw lines between them: (points, 2)."""
    curves: Any = path.iter_bezier()  # its type hint is wrong: it yields pairs
    pieces = []
    for curve, code in curves:
        if code != Path.MOVETO:
            count = _BENT_POINTS if np.ptp(curve.control_points[:, 0]) else _STRAIGHT_POINTS
            pieces.append(curve(np.linspace(0, 1, count)[1:]))
    return np.concatenate([np.asarray(path.vertices)[:1], *pieces])


def ends_of(path: Path, distance: float) -> np.ndarray:
    """Return the points of a path at a distance from its start and from its end, (2, 2)."""
    points = points_of(path)
    way = np.r_[0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))]
    at = [min(distance, way[-1] / 2), max(way[-1] - distance, way[-1] / 2)]
    return np.column_stack([np.interp(at, way, coordinate) for coordinate in points.T])
