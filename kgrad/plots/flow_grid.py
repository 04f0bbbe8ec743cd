"""Where the places of a layout are in a figure, and the curves that join them: in inches."""

from itertools import pairwise

import numpy as np
from matplotlib.path import Path

from kgrad.flow.layout import Layout

ROW = 0.75  # inches from a node to the one below
LANES, LETTER = (1.3, 2.2), 0.09  # inches from a node to the next, least and most; of a letter
MARGIN, GUTTER = 0.45, 0.5  # inches left of the first and between columns
LOOP = 0.7  # inches to the left of a node for an edge that leads back to it
MOST_ROWS, WIDEST = 16, 11.5  # rows in a column; inches of all columns
STEEP = 0.5  # inches to the side, below which an edge counts as going straight down


class Grid:
    """Where a place of a layout is in the figure: inches, in columns side by side."""

    def __init__(self, layout: Layout, letters: int) -> None:
        self._lane = min(max(LANES[0], 0.45 + LETTER * letters), LANES[1])
        lanes = layout.width * self._lane
        columns = max(1, min(-(-layout.rows // MOST_ROWS), int(WIDEST / (lanes + GUTTER))))
        self.rows = -(-layout.rows // columns)
        self.pitch = lanes + GUTTER
        self.drawn = self.rows * ROW + 0.3
        loops = LOOP if layout.back else 0.0
        needed = loops + columns * self.pitch
        self.width = max(5.4, needed + MARGIN)
        self.height = self.drawn + 2.4
        # A narrow graph stands in the middle.
        self._start = loops + max(0.0, (self.width - needed + GUTTER - MARGIN) / 2)

    def at(self, place: tuple[float, int]) -> tuple[float, float]:
        """The point, x to the right and y upwards."""
        column, row = divmod(place[1], self.rows)
        return self._start + column * self.pitch + place[0] * self._lane, -row * ROW

    def path(self, way: list[tuple[float, int]]) -> Path:
        """The way as a curve that leaves and enters every place vertically."""
        points, codes = [self.at(way[0])], [Path.MOVETO]
        for before, after in pairwise(way):
            (x0, y0), (x1, y1) = self.at(before), self.at(after)
            if before[1] // self.rows == after[1] // self.rows:
                middle = (y0 + y1) / 2
                points += [(x0, middle), (x1, middle), (x1, y1)]
                codes += [Path.CURVE4] * 3
            else:  # on to the next column: down, up beside it, and in from above
                bottom, top, x = y0 - 0.75 * ROW, 0.5 * ROW, x1 - 0.35 - 0.1 * before[0]
                points += [(x0, bottom), (x, bottom), (x, top), (x1, top), (x1, y1)]
                codes += [Path.LINETO] * 5
        return Path(points, codes)

    def loop(self, way: list[tuple[float, int]]) -> Path:
        """The way back of an edge, to the left of everything between its ends."""
        (x0, y0), (x1, y1) = self.at(way[0]), self.at(way[-1])
        left = min(x0, x1) - LOOP
        ends = [(x0, y0), (left, y0 - 0.4), (left, y1 + 0.4), (x1, y1)]
        return Path(ends, [Path.MOVETO, *[Path.CURVE4] * 3])


def middle_of(path: Path) -> tuple[tuple[float, float], int | None]:
    """The middle of a path's first piece, and whether it leads to the right, 1, or left, -1.

    Of one that goes on in another column the middle of its turn, and None.
    """
    points = np.asarray(path.vertices, dtype=np.float64)
    if np.array(path.codes)[1] == Path.LINETO:
        x, y = points[1:3].mean(axis=0)
        return (float(x), float(y)), None
    x, y = np.array([1, 3, 3, 1]) @ points[:4] / 8
    run = points[3, 0] - points[0, 0]
    return (float(x), float(y)), 0 if abs(run) < STEEP else int(np.sign(run))
