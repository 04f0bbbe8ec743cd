"""Where the places of a layout are in a figure, and the curves that join them."""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from matplotlib.path import Path

from kgrad.figures.flow_layout import Layout

_BENT, _STRAIGHT = 15, 5  # points of a piece that is drawn from point to point


class Room(NamedTuple):
    """How much room things take: in inches, or in pixels.

    Attributes:
        row: from a node to the one below.
        lane: from a node to the next beside it.
        gutter: between columns.
        loop: to the left of a node, for an edge that leads back to it.
        margin: left of the first column.
        least: width of the figure, also where less is needed.
        widest: width of all columns.
        rows: of a column, as long as there is room for another.
    """

    row: float
    lane: float
    gutter: float
    loop: float
    margin: float
    least: float
    widest: float
    rows: int


class Grid:
    """Where a place of a layout is in the figure, in columns side by side.

    Attributes:
        columns: how many there are.
        rows: of a column, at most.
        width: of the figure, of which `room.margin` is left of 0.
        drawn: height of the columns.
    """

    def __init__(self, layout: Layout, room: Room) -> None:
        self.room = room
        self._pitch = layout.width * room.lane + room.gutter
        loops = room.loop if layout.back else 0.0
        fitting = int((room.widest - loops) / self._pitch + 1e-9)
        self.columns = max(1, min(-(-layout.rows // room.rows), fitting))
        self.rows = -(-layout.rows // self.columns)
        self.drawn = (self.rows + 0.4) * room.row
        needed = loops + self.columns * self._pitch
        self.width = max(room.least, needed + room.margin)
        # A narrow graph stands in the middle.
        spare = self.width - needed + room.gutter - room.margin
        self._start = loops + max(0.0, spare / 2)

    def at(self, place: tuple[float, int]) -> tuple[float, float]:
        """The point, x to the right and y upwards."""
        column, row = divmod(place[1], self.rows)
        return (
            self._start + column * self._pitch + place[0] * self.room.lane,
            -row * self.room.row,
        )

    def path(self, way: list[tuple[float, int]]) -> Path:
        """The way as a curve that leaves and enters every place vertically."""
        points, codes = [self.at(way[0])], [Path.MOVETO]
        row, gutter = self.room.row, self.room.gutter
        for before, after in pairwise(way):
            (x0, y0), (x1, y1) = self.at(before), self.at(after)
            if before[1] // self.rows == after[1] // self.rows:
                middle = (y0 + y1) / 2
                points += [(x0, middle), (x1, middle), (x1, y1)]
                codes += [Path.CURVE4] * 3
            else:  # on to the next column: down, up beside it, and in from above
                bottom, top = y0 - 0.75 * row, 0.5 * row
                x = x1 - (0.7 + 0.2 * before[0]) * gutter
                points += [(x0, bottom), (x, bottom), (x, top), (x1, top), (x1, y1)]
                codes += [Path.LINETO] * 5
        return Path(points, codes)

    def loop(self, way: list[tuple[float, int]]) -> Path:
        """The way back of an edge, to the left of everything between its ends."""
        (x0, y0), (x1, y1) = self.at(way[0]), self.at(way[-1])
        left, steep = min(x0, x1) - self.room.loop, 0.53 * self.room.row
        ends = [(x0, y0), (left, y0 - steep), (left, y1 + steep), (x1, y1)]
        return Path(ends, [Path.MOVETO, *[Path.CURVE4] * 3])


def middle_of(path: Path, steep: float) -> tuple[tuple[float, float], int | None]:
    """The middle of a path's first piece, and whether it leads to the right, 1, or left, -1.

    Of one that goes on in another column the middle of its turn, and None.

    Args:
        path: of `Grid.path` or `Grid.loop`.
        steep: how far to the side a piece may lead and still go straight down.
    """
    points = np.asarray(path.vertices, dtype=np.float64)
    if np.array(path.codes)[1] == Path.LINETO:
        x, y = points[1:3].mean(axis=0)
        return (float(x), float(y)), None
    x, y = np.array([1, 3, 3, 1]) @ points[:4] / 8
    run = points[3, 0] - points[0, 0]
    return (float(x), float(y)), 0 if abs(run) < steep else int(np.sign(run))


def points_of(path: Path) -> np.ndarray:
    """Points along a path, close enough to draw lines between them: (points, 2)."""
    curves: Any = path.iter_bezier()  # of pairs, unlike what its type says
    pieces = []
    for curve, code in curves:
        if code != Path.MOVETO:
            count = _BENT if np.ptp(curve.control_points[:, 0]) else _STRAIGHT
            pieces.append(curve(np.linspace(0, 1, count)[1:]))
    return np.concatenate([np.asarray(path.vertices)[:1], *pieces])
