"""The app's configurations: their options, their limits, and how a link stores them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

from kgrad.experiments.data import DATASETS
from kgrad.experiments.experiment import LONG_NAMES, SHORT_NAMES, option_value
from kgrad.records.checks import normal_stddev

ACTIVATIONS = (
    "sigmoid", "tanh", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "softplus", "softsign",
    "linear",
)  # fmt: skip
INITIALIZERS = (
    "he", "xavier", "lecun", "he_uniform", "xavier_uniform", "normal", "normal:0.1", "normal:0.2",
    "normal:0.5", "normal:1",
)  # fmt: skip
NORMALIZATIONS = ("none", "batch", "layer")
OPTIMIZERS = ("sgd", "adam", "adamw", "nadam", "rmsprop", "adagrad")
# The marks of the logarithmic slider; a link may have any rate between.
LEARNING_RATES = tuple(float(f"{digit}e{power}") for power in range(-6, 3) for digit in (1, 2, 5))[
    :-2
]
BATCH_SIZES = (8, 16, 32, 64, 128, 256)
SECOND = "b_"  # prefix of the second configuration's parameters in a link
_MOST_SHOWN = 40  # characters of a link's value in an error


class Knob(NamedTuple):
    """One option of a configuration, as the app shows and checks it.

    Attributes:
        group: "Network", "Training" or "Data".
        label: the name that the page shows.
        help: the text that explains it.
        choices: the accepted values; empty if any number in a range is accepted.
        low: the smallest accepted number.
        high: the largest accepted number.
        optional: whether None is accepted, which turns it off.
    """

    group: str
    label: str
    help: str
    choices: tuple[Any, ...] = ()
    low: float = 0
    high: float = 0
    optional: bool = False


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A network, its training and its data, named as in `kgrad.experiments.Experiment`.

    Attributes:
        layers, units, activation, initializer, normalization, skip: the network.
        optimizer, learning_rate, clip_norm, epochs, batch_size, seed: the training.
        dataset: the data.
    """

    layers: int = 10
    units: int = 64
    activation: str = "sigmoid"
    initializer: str = "normal"
    normalization: str = "none"
    skip: bool = False
    optimizer: str = "sgd"
    learning_rate: float = 0.05
    clip_norm: float | None = None
    epochs: int = 30
    batch_size: int = 32
    seed: int = 0
    dataset: str = "classification"

    def __str__(self) -> str:
        """Return a short description: `10 × 64, relu, he, batch normalization`."""
        parts = [f"{self.layers} × {self.units}", self.activation, self.initializer]
        parts += [f"{self.normalization} normalization"] if self.normalization != "none" else []
        parts += ["skip connections"] if self.skip else []
        parts += [f"clipped at {self.clip_norm:g}"] if self.clip_norm else []
        return ", ".join(parts)

    def experiment(self) -> dict[str, Any]:
        """Return the arguments of `kgrad.experiments.Experiment`."""
        own = {LONG_NAMES.get(name, name): value for name, value in asdict(self).items()}
        normalization = None if self.normalization == "none" else self.normalization
        return own | {"name": str(self), "normalization": normalization}


_DATASET_HELP = "\n".join(f"- {name}: {recipe.task}" for name, recipe in DATASETS.items())
KNOBS: dict[str, Knob] = {
    "layers": Knob("Network", "Hidden layers", "Depth of the network.", low=1, high=100),
    "units": Knob("Network", "Units per layer", "Width of each hidden layer.", low=1, high=256),
    "activation": Knob(
        "Network", "Activation", "Function that each hidden unit applies to its input.", ACTIVATIONS
    ),
    "initializer": Knob(
        "Network",
        "Initial weights",
        "he, xavier and lecun scale the weights to the width of the layer; normal:0.5 draws them "
        "with standard deviation 0.5, normal with 0.05.",
        INITIALIZERS,
    ),
    "normalization": Knob(
        "Network", "Normalization", "Layer placed before each activation.", NORMALIZATIONS
    ),
    "skip": Knob("Network", "Skip connections", "Connections around every two hidden layers."),
    "optimizer": Knob(
        "Training", "Optimizer", "Rule that turns a gradient into an update.", OPTIMIZERS
    ),
    "learning_rate": Knob("Training", "Learning rate", "Size of each step.", low=1e-6, high=100.0),
    "clip_norm": Knob(
        "Training",
        "Clip gradients to norm",
        "Scales all gradients down if their total norm is larger; empty: no clipping.",
        low=1e-6,
        high=1e6,
        optional=True,
    ),
    "epochs": Knob("Training", "Epochs", "Passes over the data.", low=1, high=1000),
    "batch_size": Knob("Training", "Batch size", "Samples per step.", BATCH_SIZES),
    "seed": Knob(
        "Training",
        "Seed",
        "Seed of the initial weights and of the order of the samples.",
        low=0,
        high=2**31 - 1,
    ),
    "dataset": Knob("Data", "Data set", _DATASET_HELP, tuple(DATASETS)),
}


def from_query(query: Mapping[str, str], prefix: str = "") -> tuple[Configuration, list[str]]:
    """Read the configuration in a link.

    Args:
        query: the link's parameters; anyone may have written them.
        prefix: prefix of the parameters' names.

    Returns:
        The configuration, with defaults in place of refused values; one sentence per refused value.
    """
    values: dict[str, Any] = {}
    refusals: list[str] = []
    for name in KNOBS:
        if prefix + name in query:
            try:
                values[name] = _read(name, query[prefix + name])
            except ValueError as error:
                refusals.append(f"{error} The link's value is ignored.")
    return Configuration(**values), refusals


def to_query(configuration: Configuration, prefix: str = "") -> dict[str, str]:
    """Return the parameters of a link: all values that differ from the default, as text."""
    query = {}
    for one in fields(Configuration):
        value = getattr(configuration, one.name)
        if value != one.default:
            number = isinstance(value, float)
            query[prefix + one.name] = f"{value:.15g}" if number else option_value(value)
    return query


def from_experiment(described: Any) -> Configuration | None:
    """Return the configuration that a history was recorded with; None if it is not of the app.

    Args:
        described: `metadata["experiment"]` of the history; anyone may have written it.
    """
    if not isinstance(described, dict):
        return None
    given = described | {"normalization": described.get("normalization") or "none"}
    others = ("samples", "features")
    try:
        given |= {SHORT_NAMES[field]: given[field] for field in SHORT_NAMES if field in given}
        values = {name: checked(name, given[name]) for name in KNOBS}
    except (KeyError, TypeError, ValueError):
        return None
    same = all(values[name] == given[name] for name in KNOBS)
    same &= given.get("bias_initializer", "zeros") == "zeros"  # the app has no other
    return Configuration(**values) if same and not any(map(given.get, others)) else None


def unknown(query: Mapping[str, str], others: Sequence[str]) -> list[str]:
    """Return a sentence that names the unknown parameters in a link; nothing if all are known.

    Args:
        query: the link's parameters.
        others: known parameters that are not part of a configuration.
    """
    known = {*others, *KNOBS, *(SECOND + name for name in KNOBS)}
    names = [_short(name) for name in query if name not in known]
    if not names:
        return []
    return [f"The link has unknown parameters, which are ignored: {', '.join(names[:5])}."]


def checked(name: str, value: Any) -> Any:
    """Return a value that is accepted, as the type of the option.

    Raises:
        ValueError: if the value is not accepted.
    """
    knob = KNOBS[name]
    if value is None and knob.optional:
        return None
    if name == "initializer" and _is_normal(value):
        return value
    if knob.choices:
        if value not in knob.choices:
            listed = ", ".join(map(str, knob.choices))
            raise ValueError(f"{knob.label} must be one of {listed}, received {_short(value)}.")
        return value
    if isinstance(getattr(Configuration, name), bool):
        return bool(value)
    whole = isinstance(getattr(Configuration, name), int)
    if not knob.low <= value <= knob.high:
        kind = "a whole number" if whole else "a number"
        raise ValueError(
            f"{knob.label} must be {kind} from {knob.low:,g} to {knob.high:,.15g}, "
            f"received {_short(value)}."
        )
    return int(value) if whole else float(value)


def _read(name: str, text: str) -> Any:
    """Return a value from its text in a link."""
    knob, default = KNOBS[name], getattr(Configuration, name)
    if isinstance(default, bool):
        if text not in ("on", "off"):
            raise ValueError(f"{knob.label} must be on or off, received {_short(text)}.")
        return text == "on"
    if isinstance(default, str):
        return checked(name, text)
    if text == "none" and knob.optional:
        return None
    try:
        number = int(text) if isinstance(default, int) else float(text)
    except ValueError:
        number = math.nan  # in no range
    try:
        return checked(name, number)
    except ValueError as error:
        sentence, _, _ = str(error).rpartition(", received ")
        raise ValueError(f"{sentence}, received {_short(text)}.") from None


def _is_normal(value: Any) -> bool:
    """Return whether a value is normal:STDDEV with a usable standard deviation."""
    try:
        stddev = normal_stddev(str(value))
    except ValueError:
        return False
    return stddev is not None and 1e-6 <= stddev <= 100


def _short(value: Any) -> str:
    text = str(value)
    return repr(text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "…")
