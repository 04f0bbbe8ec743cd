"""A flow graph as Plotly draws it: at any width, and at any of its records.

Colors, dashes, sizes and scales are those of the static figure. Hovering over a layer or over any
point of an edge shows its name, when it was recorded, and its norm.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
import plotly.graph_objects as go
from matplotlib.colors import to_hex

from kgrad.figures.flow_layout import (
    MOST_ROWS,
    Grid,
    Layout,
    Room,
    ends_of,
    layered,
    middle_of,
    points_of,
)
from kgrad.figures.flow_looks import (
    LOOKS,
    NODE_EDGE,
    NOT_MEASURED,
    OF_EDGE,
    OF_WEIGHTS,
    SPECIAL,
    beside,
    labels_of,
    layers_in,
    notes_of,
    numbered,
    require_graph,
)
from kgrad.figures.interactive.flow_states import edge_states, node_states, records_of
from kgrad.figures.interactive.parts import (
    HALO,
    dashes_of,
    in_template,
    new_figure,
    plain,
    special_marker,
)
from kgrad.figures.looks import INK, shortened

WIDTHS = (360, 640, 1000)  # pixels of figures on a phone, a tablet and a desktop
_SHAPES = 6  # the largest number of a layer's weights in a hover text
_KEY = 210  # pixels of the legend's longest entry
_INDENT = "\u2003\u2009"  # text beside a circle begins outside of it
_ROW, _LETTER, _CIRCLE = 48, 6.7, 30  # pixels: row, letter, and circle to the left of a label
_LONGEST, _SHORTEST = 22, 4  # letters of a label
_LEAST_LANE = 85  # pixels of a lane in a deep graph
_NUMBER = "0.00012"  # as long as any
_ARROW = 14  # pixels from a node's center to an arrowhead
_PLACES = {0: "middle right", 1: "top right", -1: "bottom right", None: "top center"}


class Arrowhead(NamedTuple):
    """The symbol and size of an arrowhead in Plotly."""

    symbol: str
    size: int


_BACK, _GRADIENT, _DATA = (
    Arrowhead("triangle-up", 8),
    Arrowhead("triangle-up", 9),
    Arrowhead("triangle-down-open", 6),
)


class Arrangement(NamedTuple):
    """Places of everything, in pixels of a figure of one width.

    Attributes:
        x: coordinates of every trace.
        y: see `x`.
        names: the nodes' names, shortened to fit.
        places: the position of each edge's number, as Plotly names it.
        heads: the look of each arrowhead.
        across: the ends of the x axis.
        up: the ends of the y axis.
    """

    x: list[list[float]]
    y: list[list[float]]
    names: list[str]
    places: list[str]
    heads: list[Arrowhead]
    across: tuple[float, float]
    up: tuple[float, float]


class FlowDrawing:
    """A flow graph as Plotly draws it, at any width and any of its records.

    There is one trace for each edge, one for the numbers and special values of edges, one for the
    nodes, one for their names and numbers, and one for the arrowheads. The legend's traces follow.

    Attributes:
        edges: the look of each edge at each record.
        nodes: the look of each node at each record.
        labels: names of the records.
        own: number of the graph's own record.
        notes: notes on the figure, in sentences.
    """

    def __init__(self, graph: nx.DiGraph, threshold: float = 0.01, relative: bool = False) -> None:
        require_graph(graph)
        self._graph, self._layout = graph, layered(graph)
        self._threshold, self._relative = threshold, relative
        self.edges = edge_states(graph, threshold, relative)
        self.nodes = node_states(graph)
        self.labels, self.own = records_of(graph)
        self.notes = notes_of(graph, relative, threshold)
        self._key = labels_of(f"{threshold:g} of the largest" if relative else f"{threshold:g}")
        with_number = set(numbered(graph, self._layout))
        self._numbered = [edge in with_number for edge in graph.edges]

    @property
    def silent(self) -> bool:
        """Whether no edge was measured, for one reason that a note gives."""
        return any(note.startswith(NOT_MEASURED) for note in self.notes)

    @property
    def names(self) -> list[str]:
        """Return the names of the nodes."""
        return list(self._graph)

    @property
    def inside(self) -> dict[int, "FlowDrawing"]:
        """Return what is folded into nodes: number of the node → drawing of its layers."""
        nodes = enumerate(self._graph.nodes.values())
        return {
            i: FlowDrawing(node["inside"], self._threshold, self._relative)
            for i, node in nodes
            if "inside" in node
        }

    @property
    def layers(self) -> list[str]:
        """Return the number of layers of each node that others are folded into, as text."""
        return [layers_in(node) for node in self._graph.nodes.values()]

    @property
    def values(self) -> np.ndarray:
        """Return all norms, negative if nothing was measured: (records, edges and nodes)."""
        return np.hstack([self.edges.values, self.nodes.values])

    def arranged(self, width: int) -> Arrangement:
        """Return the places of everything in a figure, for its width in pixels."""
        return _arranged(self._graph, self._layout, width)

    def restyled(self, record: int, names: Sequence[str]) -> dict[str, list[Any]]:
        """Return what a record changes: attribute → its value in every trace except the last."""
        edges, nodes, label = self.edges, self.nodes, self.labels[record]
        numbers = [
            f"{OF_EDGE} {text}" if wanted and text else ""
            for text, wanted in zip(edges.shown(record), self._numbered, strict=True)
        ]
        texts = [
            beside(*one)
            for one in zip(names, self._graph.nodes.values(), nodes.shown(record), strict=True)
        ]
        indented = [
            "<br>".join(_INDENT + line for line in text.split("\n")) if text else ""
            for text in texts
        ]
        none = [None] * len(numbers)
        lines = {
            f"line.{key}": [*edges.drawn(key, record), None, None, None]
            for key in ("color", "dash", "width")
        }
        marks = {
            f"marker.{key}": [*none, edges.drawn(own, record), nodes.drawn(key, record), None]
            for key, own in (("symbol", "symbol"), ("size", "size"), ("color", "marked"))
        }
        words = {
            # A hover template cannot read a single text of a whole line, but it can read "meta".
            "meta": [*edges.hovers(record, label), None, None, None],
            "text": [*none, numbers, nodes.hovers(record, label), indented],
        }
        return lines | marks | words

    def to_json(self, records: Sequence[int]) -> dict[str, Any]:
        """Return all that a page's script needs, in JSON's types: row i is `records[i]`."""
        arrangements = [self.arranged(width) for width in WIDTHS]
        return {
            "edges": self.edges.to_json(records),
            "nodes": self.nodes.to_json(records),
            "numbered": self._numbered,
            "indent": _INDENT,
            "called": [OF_WEIGHTS, OF_EDGE],
            "layers": self.layers,
            "arrangements": [
                {
                    "least": width,
                    "x": one.x,
                    "y": one.y,
                    "names": one.names,
                    "places": one.places,
                    "layout": self._size(one, records),
                }
                for width, one in zip(WIDTHS, arrangements, strict=True)
            ],
        }

    def figure(
        self,
        arrangement: Arrangement,
        record: int,
        records: Sequence[int],
        title: str = "",
    ) -> go.Figure:
        """Return the figure of one record, with a legend of all that occurs in some records.

        Args:
            arrangement: the places of everything.
            record: the record to draw.
            records: the records that may be drawn in this figure later.
            title: text above the figure.
        """
        size = self._size(arrangement, records)
        figure = new_figure(title, size["height"], hovermode="closest", dragmode=False)
        figure.update_layout(
            xaxis={"visible": False},
            yaxis={"visible": False},
            legend={"itemclick": False, "itemdoubleclick": False},
            margin={"l": 0, "r": 0, "t": 4, "autoexpand": False},
        )
        for attribute, value in size.items():
            figure.layout[attribute] = value
        figure.add_traces([*self._traces(arrangement), *self._key_of(records)])
        for attribute, values in self.restyled(record, arrangement.names).items():
            for trace, value in zip(figure.data, values, strict=False):
                if value is not None:
                    trace[attribute] = value
        return figure

    def _size(self, arrangement: Arrangement, records: Sequence[int]) -> dict[str, Any]:
        """Return the layout that an arrangement needs, with room for the legend below the graph."""
        beside = max(1, int((arrangement.across[1] - arrangement.across[0]) / _KEY))
        below = 20 * -(-len(self._key_of(records)) // beside) + 12
        return {
            "height": round(arrangement.up[1] - arrangement.up[0] + below + 4),
            "margin.b": below,
            "xaxis.range": list(arrangement.across),
            "yaxis.range": list(arrangement.up),
        }

    def _traces(self, arrangement: Arrangement) -> list[go.Scatter]:
        """Return the traces, with all that is the same at every record."""
        text = {"color": INK, "size": 12, "shadow": HALO}
        looks: list[dict[str, Any]] = [
            {"mode": "lines", "line": {"simplify": False}, "hovertemplate": _edge_hover(*edge)}
            for edge in self._graph.edges
        ]
        looks += [
            {
                "mode": "markers+text",
                "marker": {"line": {"width": 0}, "opacity": 1},
                "textposition": arrangement.places,
                "textfont": text | {"size": 11},
                "hoverinfo": "skip",
            },
            {
                "mode": "markers",
                "marker": {"line": {"color": to_hex(NODE_EDGE), "width": 1.2}, "opacity": 1},
                "customdata": [_described(*node) for node in self._graph.nodes.items()],
                "hovertemplate": "%{customdata}<br>‖∂L/∂W‖, %{text}<extra></extra>",
            },
            {
                "mode": "text",
                "textposition": "middle right",
                "textfont": text,
                "hoverinfo": "skip",
            },
            {
                "mode": "markers",
                "marker": {
                    "symbol": [head.symbol for head in arrangement.heads],
                    "size": [head.size for head in arrangement.heads],
                    "color": INK,
                    # White around the arrowheads of gradients, which lie on wide edges.
                    "line": {
                        "color": [INK if head is _DATA else "white" for head in arrangement.heads],
                        "width": 1,
                    },
                },
                "hoverinfo": "skip",
            },
        ]
        places = zip(arrangement.x, arrangement.y, looks, strict=True)
        return [go.Scatter(x=x, y=y, showlegend=False, **look) for x, y, look in places]

    def _key_of(self, records: Sequence[int]) -> list[go.Scatter]:
        """Return the legend's traces of lines and markers that occur."""
        edges = self.edges.occurring(records)
        occurring = edges | self.nodes.occurring(records)
        keys: list[dict[str, Any]] = []
        for verdict, name in self._key.items():
            if verdict in edges or (verdict == "below" and "zero" in edges):
                color, dashes = LOOKS[verdict]
                line = {"color": to_hex(color), "dash": dashes_of(dashes), "width": 2.5}
                keys.append({"mode": "lines", "line": line, "name": name})
        keys += [
            {"mode": "markers", "marker": special_marker(special), "name": special.name}
            for verdict, special in SPECIAL.items()
            if verdict in occurring
        ]
        if "not measured" in self.nodes.occurring(records):
            bare = {"color": "white", "size": 8, "line": {"color": to_hex(NODE_EDGE), "width": 1.2}}
            keys.append({"mode": "markers", "marker": bare, "name": "node: not measured"})
        return [go.Scatter(x=[None], y=[None], hoverinfo="skip", **key) for key in keys]


def _edge_hover(source: str, target: str) -> str:
    names = in_template(plain(f"{source} → {target}"))
    return f"{names}<br>‖∂L/∂a‖, %{{meta}}<extra></extra>"


def _described(name: str, node: dict[str, Any]) -> str:
    """Return a node's name and kind, and its weights with their shapes."""
    shapes = [str(shape) for shape in node.get("shapes", ())]
    more = len(shapes) - _SHAPES
    lines = [name + (f" ({node['kind']})" if node.get("kind") else ""), *shapes[:_SHAPES]]
    lines += [f"and {more} more"] * (more > 0)
    return "<br>".join(plain(line) for line in lines)


def _arranged(graph: nx.DiGraph, layout: Layout, width: int) -> Arrangement:
    """Return the places in a figure that is legible from a width in pixels on."""
    grid = Grid(layout, _room(graph, layout, width))
    lines, middles, places = [], [], []
    heads: list[tuple[Any, Arrowhead]] = []
    for edge in graph.edges:
        way, back = layout.ways[edge], edge in layout.back
        path = grid.loop(way) if back else grid.path(way)
        middle, slope = middle_of(path, grid.room.lane / 3)
        lines.append(points_of(path))
        middles.append(middle)
        places.append("middle left" if back else _PLACES[slope])
        heads += _arrowheads(path, graph.edges[edge], back, middle)
    nodes = [grid.at(layout.nodes[name]) for name in graph]
    drawn = (*lines, middles, nodes, nodes, [place for place, _ in heads])
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
        [look for _, look in heads],
        (-grid.room.margin, grid.width - grid.room.margin),
        (-(grid.rows - 0.15) * _ROW, 0.65 * _ROW),
    )


def _arrowheads(
    path: Any, edge: dict[str, Any], back: bool, middle: tuple[float, float]
) -> list[tuple[Any, Arrowhead]]:
    """Return the places and looks of an edge's arrowheads, where gradients and data arrive."""
    if back:
        return [(middle, _BACK)]
    gradient, data = ends_of(path, _ARROW)
    is_measured = any(
        norm is not None for norm in (edge.get("gradient_norm"), *edge.get("norms", ()))
    )
    return [(gradient, _GRADIENT)] * is_measured + [(data, _DATA)]


def _room(graph: nx.DiGraph, layout: Layout, width: int) -> Room:
    """Return the sizes in pixels."""
    margin, gutter, loop = 16.0, 20.0, 40.0 if layout.back else 0.0
    texts = [beside(shortened(name, _LONGEST), node, _NUMBER) for name, node in graph.nodes.items()]
    letters = max(len(line) for text in texts for line in text.split("\n")) + 0.5
    widest = width - margin - loop
    lane = min(_CIRCLE + _LETTER * letters, (widest - gutter) / layout.width)
    columns = -(-layout.rows // MOST_ROWS)
    if columns > 1:  # narrower lanes if that makes room for more columns
        most = max(1, min(columns, int(widest / (layout.width * _LEAST_LANE + gutter))))
        lane = min(lane, (widest / most - gutter) / layout.width)
    return Room(_ROW, lane, gutter, loop, margin, float(width), widest + loop)


def _room_beside(layout: Layout, grid: Grid) -> list[float]:
    """Return the distance from each node to the next on its right, or to the column's end."""
    places = list(layout.nodes.values())
    rooms = []
    for x, row in places:
        lanes = min((other - x for other, at in places if at == row and other > x), default=None)
        if lanes is None:
            rooms.append((layout.width - x) * grid.room.lane + 0.5 * grid.room.gutter)
        else:
            rooms.append(lanes * grid.room.lane)
    return rooms
