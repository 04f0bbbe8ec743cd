"""Draw the ideas of the first ten lessons: docs/lessons/figures/01_idea.svg to 10_idea.svg.

    python docs/lesson_ideas.py

Each function draws one idea with a few lines, arrows and words. The lines tremble as if drawn by
hand, but curves and proportions are exact, which is why a script draws them. A phone shows the
drawings 358 of their 480 pixels wide, so letters of 17 pixels have more than 12 there. The card is
white because a picture on GitHub cannot know whether the page around it is dark.
"""

import itertools
import math
import random
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import jupytext

from kgrad.figures.looks import INK, RUNS

ROOT = Path(__file__).parent.parent
WIDTH, LETTERS = 480, 17
GRAY, BLUE, GRADIENT = RUNS[0], RUNS[1], RUNS[4]
PALE = "#c9cdd2"
TREMBLE, STRETCH = 0.7, 18.0  # how far, and after which distance, the hand strays

Point = tuple[float, float]


class Sketch:
    """A white card with lines, shapes and words; the seed fixes how the hand trembles."""

    def __init__(self, height: int, seed: int) -> None:
        self.height = height
        self.parts: list[str] = []
        self._random = random.Random(seed)

    def line(
        self, *points: Point, color: str = INK, pen: float = 2.0, dashes: str = "none"
    ) -> None:
        """Draw a smooth line through the points."""
        self._path(self._stroke(points), f"{_look(color, pen)} stroke-dasharray='{dashes}'")

    def shape(self, *points: Point, color: str = INK, fill: str = "none", pen: float = 2.0) -> None:
        """Draw a closed shape with corners."""
        if fill != "none":
            self.parts.append(_polygon(points, fill, opacity=0.3))
        if pen:
            sides = zip(points, [*points[1:], points[0]], strict=True)
            self._path(" ".join(map(self._stroke, sides)), _look(color, pen))

    def box(self, x: float, y: float, width: float, height: float, **look: Any) -> None:
        """Draw a rectangle, given its upper left corner."""
        right, bottom = x + width, y + height
        self.shape((x, y), (right, y), (right, bottom), (x, bottom), **look)

    def circle(self, x: float, y: float, radius: float, **look: Any) -> None:
        """Draw a circle."""
        turns = [6.4 * k / 24 for k in range(25)]  # the ends overlap a little
        self.line(*((x + radius * math.cos(t), y + radius * math.sin(t)) for t in turns), **look)

    def dot(self, x: float, y: float, radius: float, color: str = INK) -> None:
        """Draw a filled dot."""
        self.parts.append(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{radius}' fill='{color}'/>")

    def arrow(
        self, start: Point, end: Point, color: str = INK, pen: float = 2.0, head: float = 11.0
    ) -> None:
        """Draw an arrow."""
        self.line(start, end, color=color, pen=pen)
        angle = math.atan2(end[1] - start[1], end[0] - start[0])
        barbs = [angle + turn for turn in (2.6, -2.6)]
        one, other = ((end[0] + head * math.cos(t), end[1] + head * math.sin(t)) for t in barbs)
        self._path(self._stroke((one, end)) + self._stroke((end, other)), _look(color, pen))

    def words(
        self, x: float, y: float, text: str, color: str = INK, anchor: str = "middle"
    ) -> None:
        """Write text; y is its baseline."""
        place = f"x='{x:.1f}' y='{y:.1f}' fill='{color}' text-anchor='{anchor}'"
        self.parts.append(f"<text {place}>{escape(text)}</text>")

    def svg(self, title: str, description: str) -> str:
        """Return the file's text, with a title and a description for screen readers."""
        size = f"width='{WIDTH}' height='{self.height}'"
        lines = [
            f"<svg xmlns='http://www.w3.org/2000/svg' {size} viewBox='0 0 {WIDTH} {self.height}'",
            f" role='img' aria-labelledby='t d' font-family='sans-serif' font-size='{LETTERS}'>",
            f"<title id='t'>{escape(title)}</title>",
            f"<desc id='d'>{escape(description)}</desc>",
            f"<rect x='0.5' y='0.5' width='{WIDTH - 1}' height='{self.height - 1}' rx='8'"
            f" fill='#ffffff' stroke='{PALE}'/>",
            *self.parts,
            "</svg>",
        ]
        return "\n".join(lines) + "\n"

    def _path(self, path: str, look: str) -> None:
        self.parts.append(f"<path d='{path}' {look}/>")

    def _stroke(self, points: Sequence[Point]) -> str:
        """Return the path through the points, with trembling ones between distant points."""
        on_way = [points[0]]
        for (x, y), (to_x, to_y) in itertools.pairwise(points):
            pieces = max(1, round(math.hypot(to_x - x, to_y - y) / STRETCH))
            on_way += [
                (x + (to_x - x) * k / pieces, y + (to_y - y) * k / pieces)
                for k in range(1, pieces + 1)
            ]
        stray = self._random.uniform
        hand = [(x + stray(-TREMBLE, TREMBLE), y + stray(-TREMBLE, TREMBLE)) for x, y in on_way]
        path = f"M{hand[0][0]:.1f} {hand[0][1]:.1f}"
        for (x, y), (to_x, to_y) in itertools.pairwise(hand[1:]):
            path += f"Q{x:.1f} {y:.1f} {(x + to_x) / 2:.1f} {(y + to_y) / 2:.1f}"
        return path + f"L{hand[-1][0]:.1f} {hand[-1][1]:.1f}"


def _polygon(points: Iterable[Point], fill: str, opacity: float = 1.0) -> str:
    corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f"<polygon points='{corners}' fill='{fill}' fill-opacity='{opacity}'/>"


def _look(color: str, pen: float) -> str:
    return (
        f"fill='none' stroke='{color}' stroke-width='{pen:g}' stroke-linecap='round'"
        " stroke-linejoin='round'"
    )


def walker(s: Sketch, x: float, y: float) -> None:
    """Draw a person who stands at this place."""
    s.circle(x, y - 37, 5.5)
    s.line((x, y - 31), (x, y - 14))
    s.line((x - 8, y - 19), (x, y - 27), (x + 8, y - 19))
    s.line((x - 5, y), (x, y - 14))
    s.line((x + 5, y), (x, y - 14))


def slopes(s: Sketch) -> None:
    """Lesson 1: two hillsides; saturated as the lesson defines it, on the axis of its figure."""

    def sigmoid(z: float) -> float:
        return 1 / (1 + math.exp(-z))

    def relu(z: float) -> float:
        return max(z, 0) / 10

    for name, left, function, parts in (
        ("sigmoid", 20, sigmoid, [(-10, -6, GRAY), (-6, 6, BLUE), (6, 10, GRAY)]),
        ("ReLU", 260, relu, [(-10, 0, GRAY), (0, 10, BLUE)]),
    ):
        for start, end, color in parts:
            way = [(left + 10 * (z + 10), 150 - 105 * function(z)) for z in range(start, end + 1)]
            s.line(*way, color=color, pen=4)
        s.words(left + 100, 200, name)
    walker(s, 40, 147)
    walker(s, 392, 117)
    s.words(60, 172, "flat", GRAY)
    s.words(200, 34, "flat", GRAY)
    s.words(108, 76, "slope", BLUE, "end")
    s.words(305, 172, "flat", GRAY)
    s.words(378, 62, "slope", BLUE, "end")


def gears(s: Sketch) -> None:
    """Lesson 2: each gear's turns are those of the one before, times the ratio of their teeth."""
    module, y = 7.4, 112
    x = 78.0
    # The third number turns the gear so that its teeth meet the gaps of the one before.
    gaps = (12, "1 turn", 0.0), (24, "½ turn", math.pi / 24), (8, "1½", 0.0)
    for teeth, said, turned in gaps:
        radius = module * teeth / 2
        x += radius
        around = []
        for tooth in range(teeth):
            for part, height in ((-0.24, -6), (-0.14, 4), (0.14, 4), (0.24, -6)):
                angle = turned + 2 * math.pi * (tooth + part) / teeth
                reach = radius + height
                around.append((x + reach * math.cos(angle), y + reach * math.sin(angle)))
        s.shape(*around, color=GRAY, fill=PALE)
        s.words(x, y + 6, said)
        x += radius
    s.words(150, 50, "× ½", GRADIENT)
    s.words(368, 66, "× 3", GRADIENT)
    s.words(122, 186, "weight")
    s.words(374, 170, "loss")
    s.arrow((400, 236), (80, 236), color=GRADIENT, pen=3)
    s.words(240, 262, "the backward pass multiplies: 3 × ½ = 1½", GRADIENT)


def bars(s: Sketch, last: float, factor: float, labels: Iterable[str], said: str) -> None:
    """Lessons 3 and 4: the signal of each layer, from the last one (right) to the first (left)."""
    ground = 168
    for back, label in enumerate(labels):
        x, height = 420 - 72 * back, last * factor**back
        s.box(x - 24, ground - height, 48, height, color=GRADIENT, fill=GRADIENT, pen=1.5)
        above = ground - height - 8
        s.words(x, above if above > 12 else 100, label)
    s.line((24, ground), (456, ground))
    s.words(60, 190, "first layer")
    s.words(420, 190, "last layer")
    s.arrow((420, 208), (60, 208), color=GRADIENT, pen=3)
    s.words(240, 234, said, GRADIENT)


def vanishing(s: Sketch) -> None:
    """Lesson 3: a quarter per layer."""
    labels = ("1", "¼", "1/16", "1/64", "1/256", "1/1024")
    bars(s, 128, 1 / 4, labels, "the gradient on its way back: at most ¼ per layer")


def exploding(s: Sketch) -> None:
    """Lesson 4: three times as much per layer, until a bar is higher than the card."""
    labels = ("1", "3", "9", "27", "81", "243")
    bars(s, 4, 3, labels, "the signal on its way back: × 3 per layer")


def asleep(s: Sketch) -> None:
    """Lesson 5: six layers, and a message from the loss of which each lets a quarter pass."""
    for layer in range(6):
        x = 42 + 64 * layer
        s.box(x - 24, 48, 48, 56, color=GRAY, fill=PALE if layer < 4 else BLUE)
        for eye in (x - 9, x + 9):
            if layer < 4:
                s.line((eye - 5, 70), (eye, 74), (eye + 5, 70))
            else:
                s.dot(eye, 70, 3.5)
        if layer < 4:
            s.line((x - 5, 90), (x + 5, 90))
            s.words(x + 12, 38, "z z", GRAY)
        else:
            s.line((x - 9, 87), (x, 93), (x + 9, 87))
    s.words(438, 82, "loss", GRADIENT)
    places = [460 - 8 * k for k in range(55)]
    thick = [16 * 4 ** (min(0, x - 400) / 64) for x in places]
    lower = [(x, 134 + t) for x, t in zip(places, thick, strict=True)]
    upper = [(x, 134 - t) for x, t in zip(places, thick, strict=True)]
    s.shape(*lower, *reversed(upper), fill=GRADIENT, pen=0)
    s.line(*lower, color=GRADIENT)
    s.line(*upper, color=GRADIENT)
    s.words(18, 172, "first layer", anchor="start")
    s.words(386, 172, "last layer", anchor="end")
    s.words(240, 200, "what the loss says fades on its way back", GRADIENT)


def six_views(s: Sketch) -> None:
    """Lesson 6: the same gradients of four layers in four epochs, drawn in six ways."""
    first, shrink = (0.6, 0.8, 0.25, 1.0), 0.75
    value = {(k, t): g * shrink**t for k, g in enumerate(first) for t in range(4)}
    names = ("numbers", "lines", "heatmap", "depth profile", "distribution", "graph")
    corners = [(20 + 155 * column, 16 + 128 * row) for row in (0, 1) for column in (0, 1, 2)]
    for (x, y), name in zip(corners, names, strict=True):
        s.box(x, y, 130, 82, color=PALE)
        s.words(x + 65, y + 104, name)
    x, y = corners[0]
    for t, k in itertools.product(range(3), range(4)):
        s.words(x + 20 + 30 * k, y + 26 + 24 * t, f"{10 * value[k, t]:.0f}")
    x, y = corners[1]
    for k in range(4):
        line = [(x + 14 + 34 * t, y + 74 - 62 * value[k, t]) for t in range(4)]
        s.line(*line, color=GRADIENT if k == 2 else BLUE)
    x, y = corners[2]
    for k, t in value:
        cell = f"x='{x + 9 + 28 * t}' y='{y + 58 - 17 * k}' width='28' height='17'"
        s.parts.append(f"<rect {cell} fill='{BLUE}' fill-opacity='{value[k, t]:.2f}'/>")
    x, y = corners[3]
    profile = [(x + 17 + 32 * k, y + 74 - 62 * value[k, 0]) for k in range(4)]
    s.line(*profile, color=GRAY, pen=1.5)
    for k, (left, top) in enumerate(profile):
        s.dot(left, top, 4.5, GRADIENT if k == 2 else BLUE)
    x, y = corners[4]
    s.box(x + 12, y + 24, 14, 50, color=GRADIENT, fill=GRADIENT)
    hump = [(x + 40 + 4 * k, y + 74 - 52 * math.exp(-(((k - 10) / 4.5) ** 2))) for k in range(21)]
    s.line(*hump, color=BLUE)
    s.line((x + 8, y + 74), (x + 122, y + 74), color=GRAY, pen=1.5)
    x, y = corners[5]
    for k in range(4):
        s.dot(x + 17 + 32 * k, y + 50, 8, GRADIENT if k == 2 else BLUE)
    s.line((x + 17, y + 50), (x + 113, y + 50), color=GRAY, pen=1.5)
    arc = [(x + 49 + 4 * k, y + 40 - 24 * math.sin(math.pi * k / 16)) for k in range(17)]
    s.line(*arc, color=GRAY, pen=1.5)


def choirs(s: Sketch) -> None:
    """Lesson 7: the sum of 16 independent numbers of size ½ is about that of 4 of size 1."""
    for left, count, size, weight in ((24, 4, 5.0, "1"), (264, 16, 2.5, "½")):
        for k in range(count):
            y = 24 + 132 * (k + 0.5) / count
            s.dot(left + 8, y, size, BLUE)
            s.line((left + 8, y), (left + 104, 90 + (y - 90) / 8), color=BLUE, pen=size / 2)
        s.circle(left + 118, 90, 14, pen=2.5)
        s.arrow((left + 136, 90), (left + 184, 90), color=BLUE, pen=5, head=16)
        s.words(left + 92, 186, f"{count} inputs")
        s.words(left + 92, 210, f"weights of size {weight}")
    s.words(240, 238, "the sums are about equally large", BLUE)


def clipped(s: Sketch) -> None:
    """Lesson 8: the arrow (3, 1), by norm and by value; both results have the same length."""
    bound, y = 44.0, 84.0
    for left, name in ((20, "by norm"), (260, "by value")):
        x = left + 66.0
        if name == "by norm":
            length = bound * math.sqrt(2) / math.hypot(3, 1)
            tip = (x + 3 * length, y - length)
            s.circle(x, y, bound * math.sqrt(2), color=GRAY)
            s.words(left + 100, 200, "same direction", BLUE)
        else:
            tip = (x + bound, y - bound)
            s.box(x - bound, y - bound, 2 * bound, 2 * bound, color=GRAY)
            s.words(left + 100, 200, "it turns", BLUE)
        s.arrow((x, y), (x + 3 * bound, y - bound), color=GRADIENT, pen=2)
        s.arrow((x, y), tip, color=BLUE, pen=4.5, head=14)
        s.dot(x, y, 4)
        s.words(left + 100, 176, name)
    s.words(190, 26, "step", GRADIENT)
    s.words(430, 26, "step", GRADIENT)


def recentered(s: Sketch) -> None:
    """Lesson 9: two heaps of numbers, before and after; all heaps hold equally many."""
    for ground, middle, spread in ((82, 46, 9), (172, 126, 22)):
        for start, center, width in ((14, middle, spread), (294, 376, 14)):
            offsets = [k * width / 4 for k in range(-11, 12)]
            heap = [(z, 540 / width * math.exp(-((z / width) ** 2) / 2)) for z in offsets]
            s.line((start, ground), (start + 172, ground), pen=1.5)
            s.line(*((center + z, ground - high) for z, high in heap), color=BLUE, pen=3)
            zero = start + 82
            s.line((zero, ground), (zero, ground + 6))
            s.words(zero, ground + 24, "0")
        s.arrow((198, ground - 22), (284, ground - 22), color=GRAY, pen=3)
    s.words(240, 50, "shift", GRAY)
    s.words(240, 140, "shift", GRAY)
    s.words(240, 82, "stretch", GRAY)
    s.words(240, 172, "shrink", GRAY)
    s.words(100, 224, "before")
    s.words(380, 224, "after")


def corridor(s: Sketch) -> None:
    """Lesson 10: rooms with narrow doors, and a corridor beside them."""
    for left in (60, 190, 320):
        right = left + 100
        s.shape((left, 124), (right, 124), (right, 196), (left, 196), fill=PALE, pen=0)
        s.line((left, 138), (left, 124), (right, 124), (right, 138), color=GRAY)
        s.line((left, 150), (left, 196), (right, 196), (right, 150), color=GRAY)
        s.words(left + 50, 182, "2 layers")
        s.line((left, 86), (right, 86), color=GRAY)
    s.line((46, 36), (434, 36), color=GRAY)
    s.words(240, 24, "skip connections")
    for junction in (45, 175, 305, 435):
        s.line((junction, 68), (junction, 144), color=GRADIENT, pen=1.5, dashes="5 5")
    s.arrow((456, 61), (26, 61), color=GRADIENT, pen=8, head=24)
    for start in (175, 305, 435):
        wedge = (start, 140), (start - 110, 143.5), (start - 110, 144.5), (start, 148)
        s.parts.append(_polygon(wedge, GRADIENT))
        s.arrow((start - 110, 144), (start - 127, 144), color=GRADIENT, pen=1.2, head=7)
    s.words(20, 226, "first layer", anchor="start")
    s.words(240, 226, "the gradient on its way back", GRADIENT)
    s.words(460, 226, "loss", GRADIENT, "end")


IDEAS = {  # function and height
    "01": (slopes, 214),
    "02": (gears, 276),
    "03": (vanishing, 248),
    "04": (exploding, 248),
    "05": (asleep, 214),
    "06": (six_views, 268),
    "07": (choirs, 252),
    "08": (clipped, 216),
    "09": (recentered, 238),
    "10": (corridor, 242),
}


def draw(number: str) -> str:
    """Return the drawing of a lesson, which says to screen readers what the lesson says of it."""
    (lesson,) = (ROOT / "lessons").glob(f"{number}_*.py")
    opening = jupytext.read(lesson).cells[0].source
    title = opening.partition("\n")[0].removeprefix("# ")
    described = re.search(rf"!\[([^]]+)\]\(\S+/{number}_idea\.svg\)", opening)
    if described is None:
        raise ValueError(f"the first cell of {lesson.name} must show {number}_idea.svg")
    function, height = IDEAS[number]
    sketch = Sketch(height, seed=int(number))
    function(sketch)
    return sketch.svg(title, " ".join(described[1].split()))


def main() -> None:
    """Write the ten drawings."""
    for number in IDEAS:
        path = ROOT / "docs" / "lessons" / "figures" / f"{number}_idea.svg"
        path.write_text(draw(number), encoding="utf-8")


if __name__ == "__main__":
    main()
