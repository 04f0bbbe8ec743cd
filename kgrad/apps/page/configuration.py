"""What the app's knobs are set to: a value that a link can carry, and every refusal of one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

from kgrad.experiments.names import LONG_NAMES, SHORT_NAMES

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
DATASETS = (
    "classification", "regression", "circles", "moons", "blobs", "spirals", "noise", "digits",
)  # fmt: skip
BATCH_SIZES = (8, 16, 32, 64, 128, 256)
SECOND = "b_"  # stands before the names of the second configuration's knobs in a link
_MOST_SHOWN = 40  # characters of what somebody else wrote into a link


class Knob(NamedTuple):
    """One knob: where it stands, what it is called, what it accepts.

    Attributes:
        group: "Network", "Training" or "Data".
        label: what the page calls it.
        help: what it does, in a sentence.
        choices: what it accepts, if that is a list.
        low: the least number that it accepts, if it is a number.
        high: the greatest.
        optional: whether it may be off, None.
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
        optimizer, learning_rate, clip_norm, epochs, batch_size, seed: its training.
        dataset: what it learns from.
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
        """Such as `10 × 64, relu, he, batch normalisation`."""
        parts = [f"{self.layers} × {self.units}", self.activation, self.initializer]
        parts += [f"{self.normalization} normalisation"] if self.normalization != "none" else []
        parts += ["skip connections"] if self.skip else []
        parts += [f"clipped at {self.clip_norm:g}"] if self.clip_norm else []
        return ", ".join(parts)

    def experiment(self) -> dict[str, Any]:
        """The arguments of `kgrad.experiments.Experiment`."""
        own = {LONG_NAMES.get(name, name): value for name, value in asdict(self).items()}
        normalization = None if self.normalization == "none" else self.normalization
        return own | {"name": str(self), "normalization": normalization}


KNOBS: dict[str, Knob] = {
    "layers": Knob("Network", "Hidden layers", "How deep the network is.", low=1, high=100),
    "units": Knob("Network", "Units in each", "How wide each hidden layer is.", low=1, high=256),
    "activation": Knob(
        "Network", "Activation", "What each unit does to its sum of inputs.", ACTIVATIONS
    ),
    "initializer": Knob(
        "Network",
        "Initial weights",
        "he and xavier fit the spread of the weights to the width; normal:0.5 draws them with a "
        "standard deviation of 0.5, normal with 0.05.",
        INITIALIZERS,
    ),
    "normalization": Knob(
        "Network", "Normalisation", "What stands before each activation.", NORMALIZATIONS
    ),
    "skip": Knob("Network", "Skip connections", "A way around every two hidden layers."),
    "optimizer": Knob(
        "Training", "Optimizer", "How a gradient becomes a change of the weights.", OPTIMIZERS
    ),
    "learning_rate": Knob(
        "Training", "Learning rate", "How far each step goes.", low=1e-6, high=100.0
    ),
    "clip_norm": Knob(
        "Training",
        "Clip gradients to norm",
        "All gradients together are scaled down to this norm where they exceed it; empty: never.",
        low=1e-6,
        high=1e6,
        optional=True,
    ),
    "epochs": Knob("Training", "Epochs", "Passes over the data.", low=1, high=1000),
    "batch_size": Knob("Training", "Batch size", "Samples in each step.", BATCH_SIZES),
    "seed": Knob(
        "Training",
        "Seed",
        "Decides the initial weights and the order of the samples.",
        low=0,
        high=2**31 - 1,
    ),
    "dataset": Knob("Data", "Data set", "What the network learns from.", DATASETS),
}


def from_query(query: Mapping[str, str], prefix: str = "") -> tuple[Configuration, list[str]]:
    """The configuration that a link carries.

    Args:
        query: the link's parameters, written by anybody.
        prefix: what stands before the names of the knobs.

    Returns:
        The configuration, with the default of every knob that is refused, and a sentence for each
        refusal.
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
    """The parameters of a link: of every knob that is not at its default, as text."""
    query = {}
    for one in fields(Configuration):
        value = getattr(configuration, one.name)
        if value != one.default:
            query[prefix + one.name] = _written(value)
    return query


def from_experiment(described: Any) -> Configuration | None:
    """The configuration that a history says it is of; None if it is of something else.

    Args:
        described: `metadata["experiment"]` of the history, written by anybody.
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
    return Configuration(**values) if same and not any(map(given.get, others)) else None


def unknown(query: Mapping[str, str], others: Sequence[str]) -> list[str]:
    """A sentence that names the link's parameters that the app does not know.

    Args:
        query: the link's parameters.
        others: names that are known beside those of the knobs.
    """
    known = {*others, *KNOBS, *(SECOND + name for name in KNOBS)}
    names = [_short(name) for name in query if name not in known]
    if not names:
        return []
    return [f"The link has parameters that the app does not know: {', '.join(names[:5])}."]


def checked(name: str, value: Any) -> Any:
    """A knob's value, found acceptable.

    Raises:
        ValueError: if it is not; says what is accepted.
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
    """A knob's value from the text in a link."""
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
        number = math.nan  # which no knob accepts
    try:
        return checked(name, number)
    except ValueError as error:
        sentence, _, _ = str(error).rpartition(", received ")
        raise ValueError(f"{sentence}, received {_short(text)}.") from None


def _is_normal(value: Any) -> bool:
    """Whether it is normal:STDDEV, of a size that makes a network."""
    name, colon, number = str(value).partition(":")
    try:
        return name == "normal" and bool(colon) and 1e-6 <= float(number) <= 100
    except ValueError:
        return False


def _written(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _short(value: Any) -> str:
    text = str(value)
    return repr(text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "…")
