"""The rule about the model's output layer and its loss."""

import numpy as np

from kgrad.diagnosis.data_rules import targets_out_of_range
from kgrad.diagnosis.evidence import Evidence, ModelFacts
from kgrad.diagnosis.rules import (
    MODEL,
    Observation,
    Remedy,
    Rule,
    ThresholdValues,
    number,
    of_last_layer,
)


@Rule(
    severity="critical",
    thresholds=(),
    explanation="The output layer cannot produce the values this loss expects.",
    remedies=(
        Remedy(
            "Match activation and loss: sigmoid with binary_crossentropy for one unit, softmax "
            "with categorical_crossentropy for several, linear with mean_squared_error for "
            "numbers.",
            (),
        ),
        Remedy("Alternatively, keep the output linear and pass from_logits=True to the loss.", ()),
    ),
    reference="Goodfellow, Bengio & Courville, Deep Learning (2016), section 6.2.2",
    needs=(MODEL,),
)
def output_loss_mismatch(e: Evidence, t: ThresholdValues) -> Observation | None:
    """Detect a loss that the output layer cannot minimize, given its range and the targets."""
    if e.facts is None or not e.facts.last_layer:
        return None
    return _unsuitable_output(e, e.facts) or targets_out_of_range(e, e.facts)


def _unsuitable_output(e: Evidence, facts: ModelFacts) -> Observation | None:
    """Detect an output layer that does not suit the loss, whatever the targets."""
    loss, activation = facts.loss, facts.activation
    crossentropy = loss.endswith("crossentropy")
    low, high = facts.output_range
    if facts.units == 1 and (
        activation == "softmax" or loss.startswith(("categorical", "sparse_cat"))
    ):
        return of_last_layer(
            e,
            facts,
            ("output units", 1, 2),
            "there is 1 output unit; softmax and categorical cross-entropy need at least 2",
            "With one output unit softmax is always 1, so nothing can be learned."
            if activation == "softmax"
            else f"With one output unit {loss} has a single class, so nothing can be learned.",
        )
    if crossentropy and not facts.from_logits and low < 0:
        return of_last_layer(
            e,
            facts,
            (f"smallest output of {activation}", low, 0),
            f"{activation} outputs can be as small as {number(low)}, probabilities only 0",
            f"{loss} takes the logarithm of probabilities, but receives values below 0.",
        )
    if crossentropy and not facts.from_logits and high > 1:
        return of_last_layer(
            e,
            facts,
            (f"largest output of {activation}", high, 1),
            f"{activation} outputs can be as large as {number(high)}, probabilities only 1",
            f"{loss} takes the logarithm of probabilities, but receives values above 1.",
        )
    if crossentropy and facts.from_logits and activation in ("sigmoid", "softmax"):
        return of_last_layer(
            e,
            facts,
            (f"largest logit of {activation}", 1, np.inf),
            f"{activation} limits the logits to at most 1",
            "The loss applies sigmoid or softmax a second time, so no prediction can be confident.",
        )
    return None
