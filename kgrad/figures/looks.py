"""The look that static and interactive figures share: colors, sizes and words.

Color carries depth in lines (light at the input), time in profiles, and magnitude in heatmaps. The
ramps have monotone luminance, so grayscale keeps their order, and all colors are visible on white.
How 0, NaN and infinity are marked is in `kgrad.figures.scale`.
"""

from collections.abc import Sequence

import numpy as np
import seaborn as sns
from matplotlib.colors import Colormap

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
FINDING = "#d55e00"  # of what a finding is about
# Colors of a few runs in one panel: a baseline, then others that differ in grayscale, too.
RUNS = ("#404040", "#0072b2", "#117733", "#aa4499", "#8a5a00")

FEW = 8  # the largest number of lines that are named one by one; more have a color bar
BY_DEPTH = "layer, input → output"  # name of the axis along the layers
PREDICTED_LABEL, BAND_LABEL = "predicted", "95 % of networks"


def ramp(colors: Colormap, count: int) -> list[Color]:
    """Return `count` colors from one end of a ramp to the other; a single one is the dark end."""
    return [colors(float(t)) for t in (np.linspace(0, 1, count) if count != 1 else [1.0])]


def shortened(name: str, most: int = 16) -> str:
    """Return the name, or the end of a long one, which is where names of layers differ."""
    return name if len(name) <= most else "…" + name[1 - most :]


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
