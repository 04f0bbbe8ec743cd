"""Where a flow graph's nodes, edges and words are in a figure of some pixels' width."""

from typing import NamedTuple

import networkx as nx
import numpy as np

from kgrad.figures.flow_grid import Grid, Room, middle_of, points_of
from kgrad.figures.flow_layout import Layout
from kgrad.figures.interactive.looks import plain
from kgrad.figures.static.panels import shortened

_ROW, _LETTER, _CIRCLE = 48, 6.7, 30  # pixels: of a row, of a letter, and left of a label
_LONGEST, _SHORTEST = 18, 4  # letters of a label
_MOST_ROWS, _LEAST_LANE = 16, 70  # of a column; pixels of a lane in a deep graph
_PLACES = {0: "middle right", 1: "top right", -1: "bottom right", None: "top center"}


class Arrangement(NamedTuple):
    """Where everything is, in pixels of a figure of one width.

    Attributes:
        x: of every trace.
        y: see `x`.
        names: of the nodes, as short as there is room for.
        places: where the number of each edge stands, as Plotly names it.
        across: the ends of the x axis.
        up: the ends of the y axis.
    """

    x: list[list[float]]
    y: list[list[float]]
    names: list[str]
    places: list[str]
    across: tuple[float, float]
    up: tuple[float, float]


def arranged(graph: nx.DiGraph, layout: Layout, width: int) -> Arrangement:
    """Arrange a graph, as a figure is legible that is at least so many pixels wide."""
    grid = Grid(layout, _room(graph, layout, width))
    lines, middles, places, heads = [], [], [], []
    for edge in graph.edges:
        way, back = layout.ways[edge], edge in layout.back
        path = grid.loop(way) if back else grid.path(way)
        middle, slope = middle_of(path, grid.room.lane / 3)
        lines.append(points_of(path))
        middles.append(middle)
        places.append("middle left" if back else _PLACES[slope])
        heads += [middle] * back
    nodes = [grid.at(layout.nodes[name]) for name in graph]
    drawn = (*lines, middles, nodes, nodes, heads)
    traces = [np.array(points).reshape(-1, 2).round(1) for points in drawn]
    beside = zip(graph, _room_beside(layout, grid), strict=True)
    letters = {name: int((room - _CIRCLE) / _LETTER) for name, room in beside}
    names = [
        shortened(name, min(most, _LONGEST)) if most >= _SHORTEST else ""
        for name, most in letters.items()
    ]
    return Arrangement(
        [points[:, 0].tolist() for points in traces],
        [points[:, 1].tolist() for points in traces],
        [plain(name) for name in names],
        places,
        (-grid.room.margin, grid.width - grid.room.margin),
        (-(grid.rows - 0.15) * _ROW, 0.65 * _ROW),
    )


def _room(graph: nx.DiGraph, layout: Layout, width: int) -> Room:
    """In pixels."""
    margin, gutter, loop = 16.0, 20.0, 40.0 if layout.back else 0.0
    letters = max(len(shortened(name, _LONGEST)) for name in graph) + 0.5
    widest = width - margin - loop
    lane = min(_CIRCLE + _LETTER * letters, (widest - gutter) / layout.width)
    columns = -(-layout.rows // _MOST_ROWS)
    if columns > 1:  # narrower lanes, if so there are more columns
        most = max(1, min(columns, int(widest / (layout.width * _LEAST_LANE + gutter))))
        lane = min(lane, (widest / most - gutter) / layout.width)
    return Room(_ROW, lane, gutter, loop, margin, float(width), widest + loop, _MOST_ROWS)


def _room_beside(layout: Layout, grid: Grid) -> list[float]:
    """How far it is from each node to the next on its right, or to the column's end."""
    places = list(layout.nodes.values())
    rooms = []
    for x, row in places:
        lanes = min((other - x for other, at in places if at == row and other > x), default=None)
        if lanes is None:
            rooms.append((layout.width - x) * grid.room.lane + 0.5 * grid.room.gutter)
        else:
            rooms.append(lanes * grid.room.lane)
    return rooms
