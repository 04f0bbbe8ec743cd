"""The look that static and interactive figures share: colors, sizes and words.

Color carries depth in lines (light at the input), time in profiles, and magnitude in heatmaps. The
ramps have monotone luminance, so grayscale keeps their order, and all colors are visible on white.
How 0, NaN and infinity are marked is in `kgrad.figures.scale`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.colors import Colormap
from matplotlib.rcsetup import cycler

from kgrad.figures.scale import Scale

Color = tuple[float, float, float, float]

DEPTH: Colormap = sns.color_palette("flare", as_cmap=True)
TIME: Colormap = sns.color_palette("crest", as_cmap=True)
MAGNITUDE: Colormap = sns.color_palette("viridis", as_cmap=True)
DENSITY: Colormap = sns.color_palette("mako_r", as_cmap=True)
CHANGE: Colormap = sns.color_palette("vlag", as_cmap=True)  # white at "no change"

INK, INK_ON_DARK = "#222", "#e8e8ee"  # of text on a light and on a dark page
STRIP_SHADE = 0.07  # opacity of the black that shades the strips of 0, NaN and infinity
PREDICTED, MEASURED = "#262626", DEPTH(0.35)
BAND, PREDICTED_BAND = 0.25, 0.2  # opacity of the bands of several runs and of a prediction
LOSS = "#262626"
MARK = "#aa4499"  # the marked moment of figures that are linked
FINDING = "#d55e00"  # of what a finding is about
# Colors of a few runs in one panel: a baseline, then others that differ in grayscale, too.
RUNS = ("#404040", "#0072b2", "#117733", "#aa4499", "#8a5a00")

# Colors of a few series that have no order, as far from each other for the color-blind as may be.
SERIES = ("#0072b2", "#d55e00", "#117733", "#aa4499", "#e69f00", "#404040")

# The look of a figure of one's own beside kgrad's: plt.style.use(kgrad.figures.looks.STYLE).
STYLE: dict[str, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=SERIES),
    "axes.titlelocation": "left",
    "image.cmap": "viridis",
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "font.size": 11,
    "axes.titlesize": 12,
} | dict.fromkeys(
    ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), LOSS
)

FEW_AT_LINES = 12  # the largest number of lines that are named where they end
FEW = 8  # the largest number of lines that are named one by one; more have a color bar
BY_DEPTH = "layer, input → output"  # name of the axis along the layers
PREDICTED_LABEL, BAND_LABEL = "predicted", "95 % of networks"


def ramp(colors: Colormap, count: int) -> list[Color]:
    """Return `count` colors from one end of a ramp to the other; a single one is the dark end."""
    return [colors(float(t)) for t in (np.linspace(0, 1, count) if count != 1 else [1.0])]


def shortened(name: str, most: int = 16) -> str:
    """Return the name, or a short form of a long one.

    The layers that a layer is in are named by initials and number, since the names of Keras repeat
    in every block: `mha_3/attention_output`. A normalization becomes a norm. What is then still
    long is cut at its start.
    """
    if len(name) > most:
        name = name.replace("normalization", "norm")
    if len(name) <= most:
        return name
    parts = name.split("/")
    for i in range(len(parts) - 1):  # as few as needed, the outermost first
        parts[i] = _initials(parts[i])
        short = "/".join(parts)
        if len(short) <= most + 6:
            return short
    return "…" + name[1 - most :]


def _initials(name: str) -> str:
    """Return the first letter of each word of a name, and its number: `mha_3`."""
    words = name.split("_")
    number = [words.pop()] if words[-1].isdigit() and len(words) > 1 else []
    return "_".join(["".join(word[:1] for word in words), *number])


def columns_for(count: int) -> int:
    """Return how many of `count` panels are drawn side by side."""
    return 2 if count == 4 else min(count, 3)


def blank_note(scale: Scale) -> str:
    """Return the note of a panel that has nothing but zeros, NaN and infinities."""
    return "no finite value" + (" above 0" if scale.logarithmic else "")


def measured_label(replicates: int) -> str:
    """Return the legend's name of measured points."""
    return "measured" + (f", {replicates} seeds" if replicates > 1 else "")


def spread_label(groups: Sequence[Sequence[object]]) -> str:
    """Return the legend's name of a band over replicates, with their number if it is the same."""
    counts = {len(group) for group in groups}
    return "least to greatest" + (
        f" of {counts.pop()} seeds" if len(counts) == 1 else " over seeds"
    )
