"""A training run as plain data: `Recipe`, and `Case`, a recipe with what is known about it."""

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

HALVES = ("choose", "report")
FAMILIES = (
    "vanishing",
    "exploding",
    "nonfinite",
    "dead_units",
    "saturated",
    "not_moving",
    "moving_too_far",
    "always_clipped",
    "layer_out_of_line",
    "badly_scaled_weights",
    "output_loss_mismatch",
)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run; the same recipe gives the same numbers.

    Attributes:
        seed: of the data, the weights and the order of the samples. Even ones belong to the half
            that thresholds are chosen on, odd ones to the half that is reported.
        task: name of one of `tasks.TASKS`.
        task_options: its arguments.
        network: name of one of `networks.NETWORKS`.
        network_options: its arguments.
        changes: what is done to the built model's weights: (kind, pattern of layers, number).
        output: (units, activation) of the last layer; None for the task's.
        loss: Keras's or one of `networks.LOSSES`; None for the task's.
        optimizer: name of a Keras optimizer.
        optimizer_options: its arguments; a learning rate may be a schedule's configuration.
        epochs: passes over the data.
        batch_size: samples a step.
        jit: whether `fit` compiles with XLA.
        by: "loss" or "accuracy", what success is read from.
        tracking: "full" (all statistics and a probe), "default" or "loop"
            (`train_and_track_gradients`).
    """

    seed: int
    task: str
    task_options: dict[str, Any] = field(default_factory=dict)
    network: str = "mlp"
    network_options: dict[str, Any] = field(default_factory=dict)
    changes: tuple[tuple[str, str, float], ...] = ()
    output: tuple[int, str] | None = None
    loss: str | None = None
    optimizer: str = "adam"
    optimizer_options: dict[str, Any] = field(default_factory=dict)
    epochs: int = 10
    batch_size: int = 32
    jit: bool = False
    by: str = "loss"
    tracking: str = "full"

    @property
    def half(self) -> str:
        """The half of the gallery that the run belongs to."""
        return HALVES[self.seed % 2]

    @property
    def key(self) -> str:
        """The same for recipes whose training is the same, however it is tracked and judged."""
        return json.dumps(asdict(replace(self, tracking="", by="")), sort_keys=True)


@dataclass(frozen=True)
class Case:
    """A run and what is known about it by construction.

    Attributes:
        name: unique in the gallery.
        recipe: the run.
        family: the disease by construction; "" for a healthy run.
        accepted: further families that are an equally right name for the same construction.
        twin: the healthy twin of an ill run: the same with the disease taken out.
        carried_on: epochs after which a run that has barely started is judged; 0: as it ends.
    """

    name: str
    recipe: Recipe
    family: str = ""
    accepted: tuple[str, ...] = ()
    twin: Recipe | None = None
    carried_on: int = 0


def changed(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """A recipe with fields replaced; options given as a dict are merged into those there are."""
    fields = {
        name: getattr(recipe, name) | value if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return replace(recipe, **fields)
