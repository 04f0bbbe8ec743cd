"""What theory expects of a configuration, soon enough to follow a knob."""

import threading
from functools import lru_cache

from kgrad.apps.page.configuration import Configuration
from kgrad.records.prediction import Prediction

# Layers × samples² (× 8 with batch normalisation, whose samples depend on each other) that take
# some seconds. More is for `kgrad.predict_gradients`, which has the time.
_MOST_WORK = 2_000_000

_lock = threading.Lock()


def predicted(configuration: Configuration) -> tuple[Prediction | None, str]:
    """A rough prediction of the gradients before training, or why there is none, in a sentence.

    Of configurations that differ in nothing that theory looks at, it is made once.
    """
    c = configuration
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


@lru_cache(maxsize=256)
def _predicted(configuration: Configuration) -> tuple[Prediction | None, str]:
    c = configuration
    together = 8 if c.normalization == "batch" else 1
    if c.layers * c.batch_size**2 * together > _MOST_WORK:
        return None, (
            "Theory would take long over so many layers and samples. A smaller batch is predicted "
            "at once, and kgrad.predict_gradients takes its time."
        )
    from kgrad.experiments import Experiment, predict_experiment

    try:
        with _lock:  # layers are named in one table for all threads
            return predict_experiment(Experiment(**c.experiment()), rough=True), ""
    except (FloatingPointError, ValueError) as error:
        return None, f"Theory cannot read this configuration: {error}"
