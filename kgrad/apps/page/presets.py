"""The classic cases: configurations to begin with, and what to look for in each."""

from dataclasses import replace
from typing import NamedTuple

from kgrad.apps.page.configuration import Configuration

OWN = "My own"


class Preset(NamedTuple):
    """A classic case.

    Attributes:
        name: what it is called.
        look: two sentences on what to look for.
        first: its configuration.
        second: what to compare it with; None for nothing.
    """

    name: str
    look: str
    first: Configuration
    second: Configuration | None = None


_HEALTHY = Configuration(activation="relu", initializer="he")
_VANISHING = Configuration()
_DEEP = replace(_HEALTHY, layers=50, units=32, activation="tanh", initializer="xavier", epochs=15)

PRESETS = (
    Preset(
        "Vanishing: sigmoid",
        "Each sigmoid layer passes back a small part of the gradient that reaches it, so that ten "
        "of them leave almost nothing for the first. Watch the profile fall from right to left by "
        "many powers of ten, and the loss stay where it was.",
        _VANISHING,
    ),
    Preset(
        "Healthy: ReLU and He",
        "He's initial weights are as large as ReLU needs them, so that the gradient keeps its size "
        "through all layers. Watch the profile stay within about a power of ten, and the loss "
        "fall from the first epoch on.",
        _HEALTHY,
    ),
    Preset(
        "Exploding: ReLU, large weights",
        "With weights this large each layer multiplies the signal, and the first gradients are "
        "hundreds of times those of a healthy network. Watch the loss begin in the thousands and "
        "drop to 0.69, that of guessing, as markers for 0 and NaN take the place of the profile.",
        replace(_HEALTHY, initializer="normal:0.5"),
    ),
    Preset(
        "Exploding: tanh in chaos",
        "tanh keeps the signal bounded, yet with weights this large the gradient grows from the "
        "output towards the input. Watch the profile rise from right to left, and the loss fall "
        "no lower than that of guessing, 0.69.",
        replace(_HEALTHY, activation="tanh", initializer="normal:1"),
    ),
    Preset(
        "Cure: batch normalisation",
        "Left are the sigmoid layers of the first case, right are the same with batch "
        "normalisation before each sigmoid. Compare how far the two profiles fall towards the "
        "input, and which of the losses moves.",
        _VANISHING,
        replace(_VANISHING, normalization="batch"),
    ),
    Preset(
        "Cure: skip connections",
        "Left are ten sigmoid layers, right the same with a way around every two of them. Compare "
        "the profiles: the way around carries the gradient to the input, whatever the layers make "
        "of it.",
        _VANISHING,
        replace(_VANISHING, skip=True),
    ),
    Preset(
        "Cure: clipping",
        "Both networks begin with the same weights, too large for ReLU; on the right gradients are "
        "clipped to norm 1. Compare the losses: without clipping the first epoch ends in NaN, with "
        "it the loss falls, from gradients that were as large.",
        replace(_HEALTHY, initializer="normal:0.3"),
        replace(_HEALTHY, initializer="normal:0.3", clip_norm=1.0),
    ),
    Preset(
        "Deep: 50 tanh layers",
        "Xavier's weights stand at the edge between vanishing and exploding, where the signal "
        "travels furthest. Watch how wide the band of single networks becomes with depth, and "
        "where in it yours lies.",
        _DEEP,
    ),
)  # fmt: skip


def preset_of(first: Configuration, second: Configuration | None) -> Preset | None:
    """The preset that has these configurations; None if none has."""
    return next((one for one in PRESETS if (one.first, one.second) == (first, second)), None)
