"""Training runs as plain data: `Recipe`, and `Case`, a recipe with its known properties."""

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
    "inputs_out_of_scale",
    "targets_out_of_scale",
    "no_nonlinearity",
    "too_much_dropout",
    "too_strong_penalty",
    "unrelated_targets",
    "wrong_embedding_inputs",
    "no_path_to_loss",
)


@dataclass(frozen=True)
class Recipe:
    """The full definition of a training run; the same recipe gives the same numbers.

    Attributes:
        seed: seed of the data, the weights and the order of the samples. Even seeds belong to the
            half on which thresholds are chosen, odd seeds to the half that is reported.
        task: a name in `tasks.TASKS`.
        task_options: the arguments of the task.
        network: a name in `networks.NETWORKS`.
        network_options: the arguments of the network.
        changes: changes to the weights of the built model: (kind, pattern of layers, number).
        output: (units, activation) of the last layer; None for the task's.
        loss: name of a Keras loss or of one in `networks.LOSSES`; None for the task's.
        optimizer: name of a Keras optimizer.
        optimizer_options: its arguments; the learning rate may be a schedule's configuration.
        epochs: passes over the data.
        batch_size: samples per step.
        jit: if True, `fit` compiles with XLA.
        by: "loss" or "accuracy", the measure of success.
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
        """Return the half of the gallery to which the run belongs."""
        return HALVES[self.seed % 2]

    @property
    def key(self) -> str:
        """Return a key that depends on the training only, not on how it is tracked or judged."""
        return json.dumps(asdict(replace(self, tracking="", by="")), sort_keys=True)


@dataclass(frozen=True)
class Case:
    """A run and its properties that are known by construction.

    Attributes:
        name: a name that is unique in the gallery.
        recipe: the run.
        family: the family of the fault that was built in; "" for a healthy run.
        accepted: other families that describe the same fault equally well.
        twin: the healthy twin of an ill run: the same run without the fault.
        carried_on: epochs after which a barely started run is judged; 0 to judge it at its end.
    """

    name: str
    recipe: Recipe
    family: str = ""
    accepted: tuple[str, ...] = ()
    twin: Recipe | None = None
    carried_on: int = 0


def changed(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """Return the recipe with some fields replaced; dicts of options are merged."""
    fields = {
        name: getattr(recipe, name) | value if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return replace(recipe, **fields)
