"""Rough predictions of configurations, fast enough to follow a slider."""

import threading
from functools import lru_cache

from kgrad.apps.page.configuration import Configuration, from_experiment
from kgrad.apps.run_groups import mismatch, require_cheap
from kgrad.experiments.experiment import Experiment
from kgrad.records.history import GradientHistory
from kgrad.records.prediction import Prediction

# Limit of layers × samples² (× 8 with batch normalization, whose samples depend on each other):
# the largest predictions take some seconds. The user can compute larger ones with
# `kgrad.predict_gradients`.
_MOST_WORK = 2_000_000

_lock = threading.Lock()


def predicted(configuration: Configuration) -> tuple[Prediction | None, str]:
    """Return a rough prediction of the gradients before training.

    Returns:
        The prediction and an empty text; or None and the reason why there is no prediction.
    """
    c = configuration
    # Without the options that do not change the prediction, such as the learning rate, so that
    # configurations that differ only in these share one cached result.
    return _predicted(
        Configuration(
            layers=c.layers,
            units=c.units,
            activation=c.activation,
            initializer=c.initializer,
            normalization=c.normalization,
            skip=c.skip,
            batch_size=c.batch_size,
            dataset=c.dataset,
        )
    )


def predicted_for_recording(history: GradientHistory) -> tuple[Prediction | None, str]:
    """Return a rough prediction for a run from a file.

    Anyone may have written the file: it must describe one of the app's configurations, and its
    layers must be those of that configuration.

    Returns:
        The prediction and an empty text; or None and the reason why there is no prediction.
    """
    configuration = from_experiment(history.metadata.get("experiment"))
    if configuration is None:
        return None, "this recording was not made from an app configuration"
    try:
        require_cheap(Experiment(**configuration.experiment()), history)
    except ValueError as error:
        return None, str(error)
    prediction, reason = predicted(configuration)
    if prediction is not None and (difference := mismatch(prediction, history)):
        return None, difference
    return prediction, reason


@lru_cache(maxsize=256)
def _predicted(configuration: Configuration) -> tuple[Prediction | None, str]:
    c = configuration
    factor = 8 if c.normalization == "batch" else 1
    if c.layers * c.batch_size**2 * factor > _MOST_WORK:
        return None, (
            "theory would take too long for so many layers and samples; choose a smaller batch "
            "size, or use kgrad.predict_gradients"
        )
    from kgrad.experiments import predict_experiment

    try:
        with _lock:  # Keras names layers in one table for all threads
            return predict_experiment(Experiment(**c.experiment()), rough=True), ""
    except (FloatingPointError, ValueError) as error:
        return None, str(error)
