"""The classic cases: configurations to start from, and what to look for in each."""

from dataclasses import replace
from typing import NamedTuple

from kgrad.apps.page.configuration import Configuration

OWN = "My own"  # the name of any other configuration


class Preset(NamedTuple):
    """A classic case.

    Attributes:
        name: the name that the page shows.
        look: two sentences: the reason, and what to look for.
        first: the configuration.
        second: a configuration to compare it with; None for no comparison.
    """

    name: str
    look: str
    first: Configuration
    second: Configuration | None = None


_HEALTHY = Configuration(activation="relu", initializer="he")
_VANISHING = Configuration()
_DEEP = replace(_HEALTHY, layers=50, units=32, activation="tanh", initializer="xavier", epochs=15)

_SPIRALS = Configuration(
    layers=4,
    units=32,
    activation="tanh",
    initializer="xavier",
    optimizer="adam",
    learning_rate=0.01,
    epochs=40,
    dataset="spirals",
)

PRESETS = (
    Preset(
        "Vanishing: sigmoid",
        "Each sigmoid layer passes only a small part of its gradient back, so after ten layers "
        "almost nothing is left. Watch the gradient fall from right to left by many powers of ten "
        "while the loss does not move.",
        _VANISHING,
    ),
    Preset(
        "Healthy: ReLU and He",
        "He initialization scales the weights for ReLU, so the gradient keeps its size through "
        "all layers. Watch the gradient stay within about one power of ten while the loss falls "
        "from the first epoch.",
        _HEALTHY,
    ),
    Preset(
        "Play: two spirals",
        "Four tanh layers learn to tell two spirals apart, which no straight line can do. Watch "
        "the boundary wind itself around the points while the loss falls to a tenth, or make "
        "single steps and watch the gradient run back from the loss.",
        _SPIRALS,
    ),
    Preset(
        "Exploding: ReLU, large weights",
        "With weights this large each layer amplifies the signal, and the first gradients are "
        "hundreds of times larger than in a healthy network. Watch the loss start in the "
        "thousands and end at 0.69, the loss of guessing, while markers for 0 and NaN replace the "
        "gradient.",
        replace(_HEALTHY, initializer="normal:0.5"),
    ),
    Preset(
        "Exploding: tanh in chaos",
        "tanh keeps the signal bounded, but with weights this large the gradient grows from the "
        "output towards the input. Watch the gradient rise from right to left while the loss "
        "stays above 0.69, the loss of guessing.",
        replace(_HEALTHY, activation="tanh", initializer="normal:1"),
    ),
    Preset(
        "Cure: batch normalization",
        "Left: the sigmoid layers of the first case; right: the same with batch normalization "
        "before each sigmoid. Compare how far the two gradients fall towards the input, and "
        "which loss falls.",
        _VANISHING,
        replace(_VANISHING, normalization="batch"),
    ),
    Preset(
        "Cure: skip connections",
        "Left: ten sigmoid layers; right: the same with skip connections around every two. "
        "Compare the two gradients: the skip connections carry the gradient past the layers to "
        "the input.",
        _VANISHING,
        replace(_VANISHING, skip=True),
    ),
    Preset(
        "Cure: clipping",
        "Both networks start from the same weights, which are too large for ReLU; on the right "
        "gradients are clipped to norm 1. Compare the losses: without clipping the first epoch "
        "ends in NaN, with clipping the loss falls although the gradients are equally large.",
        replace(_HEALTHY, initializer="normal:0.3"),
        replace(_HEALTHY, initializer="normal:0.3", clip_norm=1.0),
    ),
    Preset(
        "Deep: 50 tanh layers",
        "Xavier initialization puts a tanh network at the edge between vanishing and exploding, "
        "where the signal travels furthest. Watch how the predicted band widens with depth, and "
        "where this network lies in it.",
        _DEEP,
    ),
)  # fmt: skip


def preset_of(first: Configuration, second: Configuration | None) -> Preset | None:
    """Return the preset with these configurations; None if there is none."""
    return next((one for one in PRESETS if (one.first, one.second) == (first, second)), None)
