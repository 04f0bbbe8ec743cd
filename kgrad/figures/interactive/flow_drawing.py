"""A flow graph as Plotly draws it: at any width, and at any of its records.

Colours, dashes, sizes and scales are those of `kgrad.plot_flow_graph`. Pointing at a layer or at
any point of an edge tells what it is, when it was recorded and how large it is.
"""

from collections.abc import Sequence
from typing import Any

import networkx as nx
import numpy as np
import plotly.graph_objects as go
from matplotlib.colors import to_hex

from kgrad.figures.flow_layout import layered
from kgrad.figures.flow_looks import (
    LOOKS,
    NODE_EDGE,
    SPECIAL,
    labels_of,
    notes_of,
    numbered,
    require_graph,
)
from kgrad.figures.interactive.flow_places import Arrangement, arranged
from kgrad.figures.interactive.flow_states import edge_states, node_states, records_of
from kgrad.figures.interactive.looks import dashes_of, new_figure, plain, special_marker

_SHAPES = 6  # as many weights of a layer are told
_KEY = 210  # pixels of the longest entry of the key
WIDTHS = (360, 640, 1000)  # pixels of figures: on a telephone, a tablet and a desk
_INDENT = "\u2003"  # what stands beside a circle begins outside it
_INK = "#222222"
_HALO = "1px 1px 2px white, 1px -1px 2px white, -1px 1px 2px white, -1px -1px 2px white"


class FlowDrawing:
    """A flow graph as Plotly draws it, at any width and any of its records.

    The traces are one for each edge, one for the numbers of the edges and what is special among
    them, one for the nodes, one for their names and numbers, and one for the heads of edges that
    lead back; the key comes after them.

    Attributes:
        edges: how each edge looks at each record.
        nodes: how each node looks at each record.
        labels: what the records are called.
        own: the record that the graph itself is of.
        notes: what is to be known of the figure, in sentences.
    """

    def __init__(self, graph: nx.DiGraph, threshold: float = 0.01, relative: bool = False) -> None:
        require_graph(graph)
        self._graph, self._layout = graph, layered(graph)
        self.edges = edge_states(graph, threshold, relative)
        self.nodes = node_states(graph)
        self.labels, self.own = records_of(graph)
        self.notes = notes_of(graph, relative, threshold)
        self._key = labels_of(f"{threshold:g} of the largest" if relative else f"{threshold:g}")
        with_number = set(numbered(graph, self._layout))
        self._numbered = [edge in with_number for edge in graph.edges]

    @property
    def values(self) -> np.ndarray:
        """All norms, negative where nothing was measured: (records, edges and nodes)."""
        return np.hstack([self.edges.values, self.nodes.values])

    def arranged(self, width: int) -> Arrangement:
        """Where everything is in a figure of some pixels' width."""
        return arranged(self._graph, self._layout, width)

    def restyled(self, record: int, names: Sequence[str]) -> dict[str, list[Any]]:
        """What differs from record to record: attribute → its value in every trace but the last."""
        edges, nodes, label = self.edges, self.nodes, self.labels[record]
        numbers = [
            text if wanted else ""
            for text, wanted in zip(edges.shown(record), self._numbered, strict=True)
        ]
        beside = [
            "<br>".join(_INDENT + line for line in lines if line)
            for lines in zip(names, nodes.shown(record), strict=True)
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
        texts = {
            # Of one text for all points of a line a hover template knows nothing.
            "meta": [*edges.told(record, label), None, None, None],
            "text": [*none, numbers, nodes.told(record, label), beside],
        }
        return lines | marks | texts

    def packed(self, records: Sequence[int]) -> dict[str, Any]:
        """All that the page's script needs, in JSON's types: row i is of `records[i]`."""
        arrangements = [self.arranged(width) for width in WIDTHS]
        return {
            "edges": self.edges.packed(records),
            "nodes": self.nodes.packed(records),
            "numbered": self._numbered,
            "indent": _INDENT,
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
        """The figure of one record, with a key to all that occurs in some.

        Args:
            arrangement: where everything is.
            record: what is drawn.
            records: what may be drawn in the figure after.
            title: stands above it.
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
        """What an arrangement makes of the layout; below the graph there is room for the key."""
        beside = max(1, int((arrangement.across[1] - arrangement.across[0]) / _KEY))
        below = 20 * -(-len(self._key_of(records)) // beside) + 12
        return {
            "height": round(arrangement.up[1] - arrangement.up[0] + below + 4),
            "margin.b": below,
            "xaxis.range": list(arrangement.across),
            "yaxis.range": list(arrangement.up),
        }

    def _traces(self, arrangement: Arrangement) -> list[go.Scatter]:
        """Everything that does not differ from record to record."""
        text = {"color": _INK, "size": 12, "shadow": _HALO}
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
                "marker": {"symbol": "triangle-up", "size": 8, "color": _INK},
                "hoverinfo": "skip",
            },
        ]
        places = zip(arrangement.x, arrangement.y, looks, strict=True)
        return [go.Scatter(x=x, y=y, showlegend=False, **look) for x, y, look in places]

    def _key_of(self, records: Sequence[int]) -> list[go.Scatter]:
        """What lines and markers mean, as far as they occur."""
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
            keys.append({"mode": "markers", "marker": bare, "name": "node without a gradient"})
        return [go.Scatter(x=[None], y=[None], hoverinfo="skip", **key) for key in keys]


def _edge_hover(source: str, target: str) -> str:
    return f"{_in_template(f'{source} → {target}')}<br>‖∂L/∂a‖, %{{meta}}<extra></extra>"


def _described(name: str, node: dict[str, Any]) -> str:
    """A node's name and kind, and its weights with their shapes."""
    shapes = [str(shape) for shape in node.get("shapes", ())]
    more = len(shapes) - _SHAPES
    lines = [name + (f" ({node['kind']})" if node.get("kind") else ""), *shapes[:_SHAPES]]
    lines += [f"and {more} more"] * (more > 0)
    return "<br>".join(plain(line) for line in lines)


def _in_template(text: str) -> str:
    """Text in a template, where %{ would begin a variable."""
    return plain(text).replace("%{", "%&#123;")
