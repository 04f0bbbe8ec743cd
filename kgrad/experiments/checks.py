"""Checks of an experiment that need no Keras, which takes seconds to import."""

import math
import sys

from kgrad.experiments.data import data_shape, require_recipe
from kgrad.experiments.experiment import Experiment
from kgrad.measure.aliases import (
    ACTIVATIONS,
    INITIALIZERS,
    accepted_names,
    exported_names,
    meaning,
    normalization_class,
    unknown_name,
)
from kgrad.records.checks import (
    bias_stddev,
    hidden_widths,
    normal_stddev,
    require_integer,
    require_one_of,
)
from kgrad.records.statistics import select


def require_valid(experiment: Experiment) -> None:
    """Check the fields of an experiment as far as that needs no Keras.

    If Keras is imported, its own names are not checked here: others may be registered with it.

    Raises:
        ValueError: if a field has a value that is not accepted.
    """
    for name in ("epochs", "batch_size"):
        require_integer(name, getattr(experiment, name), 1)
    if experiment.every != "epoch":
        require_integer("every", experiment.every, 1)
    for name in ("learning_rate", "clip_norm"):
        value = getattr(experiment, name)
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} must be a positive, finite number, received {value!r}")
    for name in ("skip_connections", "distributions", "probe"):
        require_one_of(name, getattr(experiment, name), (True, False))
    select(experiment.statistics)
    require_recipe("dataset", experiment.dataset)
    data_shape(experiment.dataset, experiment.samples, experiment.features)
    hidden_widths(experiment.num_layers, experiment.units)
    bias_stddev(experiment.bias_initializer)
    normalization_class(experiment.normalization)
    if "keras" not in sys.modules:
        _require_names_of_keras(experiment)


def _require_names_of_keras(experiment: Experiment) -> None:
    named = [("activation", "activations", ACTIVATIONS | {"prelu": "PReLU"})]
    try:
        if normal_stddev(experiment.weight_initializer) is None:
            named.append(("weight_initializer", "initializers", INITIALIZERS))
    except ValueError as error:
        raise ValueError(f"weight_initializer {error}") from None
    for field, module, aliases in named:
        value, exported = getattr(experiment, field), exported_names(module)
        accepted = accepted_names(exported, aliases)
        if exported and meaning(value, accepted) is None and value not in exported:
            raise unknown_name(field, value, accepted)
    optimizers = [name.lower() for name in exported_names("optimizers")]
    if optimizers and experiment.optimizer.lower() not in optimizers:
        raise unknown_optimizer(experiment.optimizer)


def unknown_optimizer(name: str) -> ValueError:
    """Return the error for a name that is not an optimizer's."""
    return ValueError(
        f"optimizer must name a Keras optimizer, such as sgd or adam, received {name!r}"
    )
