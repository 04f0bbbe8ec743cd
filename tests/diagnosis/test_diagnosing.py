"""Rules on histories made by hand, whose numbers are known, and on runs that are really ill."""

import dataclasses
import io
import json
import logging
import time

import numpy as np
import pytest
import rich.console

from kgrad import GradientHistory, Weight
from kgrad.diagnosis import (
    Diagnosis,
    Finding,
    Measurement,
    ModelFacts,
    Thresholds,
    calibration,
    diagnose,
)
from kgrad.diagnosis.diagnosing import Watch
from kgrad.diagnosis.evidence import Data, Evidence, Head
from kgrad.diagnosis.findings import Confidence
from kgrad.experiments import Experiment, run_experiment
from kgrad.records.statistics import STATISTICS

WIDTH = 64
FALLING = (1.0, 0.9, 0.6, 0.4, 0.3, 0.2)
FLAT = (0.7, 0.7, 0.699, 0.7, 0.699, 0.699)
ROOT = np.sqrt(WIDTH)


def history_of(
    level=1.0,
    loss=FALLING,
    *,
    layers=5,
    error=1.0,
    weight=ROOT,
    update=0.1,
    bias_size=0.0,
    statistics=(),
    outputs=(),
    metadata=None,
):
    """Dense layers of 64 units; `level` is broadcast to (records, layers), as are the others.

    The last bias has the gradient `error`, that of others follows the level: inputs are about 1.
    """
    shape = (len(loss), layers)
    names = [f"hidden_{k}" for k in range(1, layers)] + ["output"]
    weights = []
    for name in names:
        weights += [
            Weight(name, "kernel", f"{name}/kernel", (WIDTH, WIDTH)),
            Weight(name, "bias", f"{name}/bias", (WIDTH,)),
        ]
    always = ("mean_abs", "l2_norm", "nonfinite_steps", "first_nonfinite_step")
    history = GradientHistory(
        weights, (*always, "weight_l2", "update_l2", *statistics), metadata, outputs=outputs
    )
    kernel = np.broadcast_to(level, shape) * error * ROOT
    bias = np.where(np.arange(layers) < layers - 1, kernel / ROOT, error)
    sizes = np.broadcast_to(weight, shape)
    moved = np.broadcast_to(update, shape)
    for r in range(shape[0]):
        interleaved = np.ravel(np.column_stack([kernel[r], bias[r]]))
        values = {
            "l2_norm": interleaved,
            "mean_abs": interleaved / WIDTH,
            "nonfinite_steps": (~np.isfinite(interleaved)).astype(float),
            "first_nonfinite_step": np.where(np.isfinite(interleaved), 0, max(10 * r, 1)),
            "weight_l2": np.ravel(np.column_stack([sizes[r], np.full(layers, bias_size)])),
            "update_l2": np.ravel(np.column_stack([moved[r] * (r > 0), np.zeros(layers)])),
        }
        values |= {name: np.zeros(2 * layers) for name in statistics}
        history.append(r, 10 * r, values, {} if np.isnan(loss[0]) else {"loss": loss[r]})
    return history


def copy_of(history, logs=None, activations=None):
    """Return the history with further logs and activations in every record."""
    copy = GradientHistory(
        history.weights, history.statistics, history.metadata, outputs=history.outputs
    )
    for r in range(len(history)):
        record = history.record(r)
        copy.append(
            record["epoch"],
            record["step"],
            record["values"],
            {**record["logs"], **(logs or {})},
            activations={**record["activations"], **(activations or {})},
        )
    return copy


def with_updates(history, updates=10, present=None):
    """Return the history with counts of updates, (records, weights), and NaN without a gradient.

    By default, every update that contains a weight has a gradient of it.
    """
    shape = len(history), len(history.weights)
    updates = np.broadcast_to(updates, shape).astype(float)
    present = updates if present is None else np.broadcast_to(present, shape)
    counted = GradientHistory(
        history.weights,
        (*history.statistics, "updates", "gradients_present"),
        history.metadata,
        outputs=history.outputs,
    )
    for r in range(len(history)):
        record = history.record(r)
        values = {
            name: np.where(present[r] > 0, row, np.nan) if STATISTICS[name].needs_gradient else row
            for name, row in record["values"].items()
        }
        values |= {"updates": updates[r], "gradients_present": present[r]}
        keys = ("epoch", "step", "logs", "layer_values", "activations")
        counted.append(**{key: record[key] for key in keys}, values=values)
    return counted


def rules_of(*arguments, **options):
    return diagnose(history_of(*arguments, **options)).rules


def test_the_level_is_the_gradient_over_that_of_the_recursion_at_its_critical_point():
    from kgrad.theory import DenseStack, activation, propagate

    linear = activation("linear")
    stack = DenseStack((64,) * 6, (1 / 64,) * 5, (linear,) * 4)
    critical = np.sqrt(propagate(stack, a_0=1.0, S_L=9.0).weight_norm_squared)
    history = history_of(np.full(5, 0.25), error=3.0)
    np.testing.assert_allclose(history["l2_norm"][0, ::2], 0.25 * critical)
    np.testing.assert_allclose(Evidence(history).level, 0.25)


def test_sigma_w2_is_the_variance_of_the_weights_times_the_fan_in(random):
    kernel = random.normal(0, 0.3, (WIDTH, WIDTH))
    found = Evidence(history_of(weight=np.linalg.norm(kernel))).sigma_w2
    np.testing.assert_allclose(found, WIDTH * np.mean(kernel**2))


def test_a_healthy_run_has_no_findings():
    diagnosis = diagnose(history_of())
    assert len(diagnosis) == 0 and not diagnosis
    assert "No findings" in str(diagnosis)
    assert diagnosis.to_dict() == [] and diagnosis.to_frame().empty


@pytest.mark.parametrize(
    ("level", "loss", "expected"),
    [
        (1e-5, FLAT, ("vanishing",)),
        (1e-5, FALLING, ()),  # a network that learns is not ill
        (5e-3, FLAT, ("vanishing",)),
        (5e-3, (1.0, 1.0, 0.9, 0.85, 0.8, 0.75), ()),
        (5e-5, (1.0, 1.0, 0.9, 0.85, 0.8, 0.75), ("vanishing",)),
        (2e-2, FLAT, ("vanishing",)),
        (5e-2, FLAT, ()),
        (2e3, FLAT, ("exploding",)),
        (2e2, FLAT, ("exploding",)),
        (2e2, FALLING, ()),
        (50, FLAT, ()),
    ],
)
def test_levels_are_judged_together_with_the_loss(level, loss, expected):
    levels = np.array([level, level, 1, 1, 1])
    assert rules_of(levels, loss) == expected


def test_converged_is_not_vanished():
    """The error itself fell, and with it every gradient: levels stay."""
    history = history_of(loss=(1.0, 0.5, 0.1, 1e-3, 1e-4, 1e-5), error=1e-9)
    assert diagnose(history).rules == ()


def test_a_relu_networks_disease_is_a_level_and_not_a_ratio_between_layers():
    levels = np.full(5, 1e-6)
    history = history_of(levels, FLAT)
    norms = history["l2_norm"][0, ::2]
    assert norms.max() == norms.min()
    assert diagnose(history).rules == ("vanishing",)


def test_a_finding_says_where_since_when_and_by_which_numbers():
    level = np.ones((6, 5))
    level[2:, :2] = 1e-6
    level[3, 0] = 1e-7
    finding = diagnose(history_of(level, FLAT))[0]
    assert finding.layers == ("hidden_1", "hidden_2")
    assert finding.first_epoch == 2
    first = finding.evidence[0]
    assert (first.layer, first.epoch, first.threshold) == ("hidden_1", 2, 1e-4)
    np.testing.assert_allclose(first.value, 1e-6)
    assert "1e-6" in str(finding) and "hidden_1" in str(finding) and "epoch 2" in str(finding)


def test_a_record_that_is_no_rule_is_no_finding():
    level = np.ones((6, 5))
    level[2] = 1e-6
    assert rules_of(level, FLAT) == ()


def test_nan_is_found_with_its_layer_and_its_first_step():
    level = np.ones((6, 5))
    level[2:, 1:] = np.nan
    finding = diagnose(history_of(level, (1, 0.9, np.nan, np.nan, np.nan, np.nan)))[0]
    assert finding.rule == "nonfinite"
    assert finding.severity == "critical"
    assert finding.layers == ("hidden_2", "hidden_3", "hidden_4", "output")
    assert [m.value for m in finding.evidence[:2]] == [1, 20]
    assert finding.first_epoch == 2


def test_steps_that_a_loss_scale_skipped_are_not_nonfinite():
    history = copy_of(history_of(), {"skipped_steps": 1.0})
    for r in range(len(history)):
        history.record(r)["values"]["nonfinite_steps"][:] = 1
    assert diagnose(history).rules == ()
    history.record(3)["values"]["nonfinite_steps"][0] = 2
    assert diagnose(history).rules == ("nonfinite",)


def test_weights_that_do_not_move_are_found_where_gradients_are_well():
    assert rules_of(1.0, FLAT, update=1e-9) == ("not_moving",)
    assert rules_of(1e-6, FLAT, update=1e-9) == ("vanishing",)
    assert rules_of(1.0, FALLING, update=1e-9) == ()


def test_weights_that_move_too_far_are_found():
    rising = (0.7, 0.9, 3.0, 2.0, 4.0, 3.0)
    assert rules_of(1.0, rising, update=3 * ROOT) == ("moving_too_far",)
    assert rules_of(1.0, FALLING, update=3 * ROOT) == ()


def test_a_layer_out_of_line_is_found_by_its_weights():
    weight = np.array([ROOT, ROOT, ROOT / 1000, ROOT, ROOT])
    finding = diagnose(history_of(1.0, FLAT, weight=weight, update=1e-3))[0]
    assert (finding.rule, finding.layers) == ("layer_out_of_line", ("hidden_3",))
    np.testing.assert_allclose(finding.evidence[0].value, 1e6)


def test_a_loss_that_does_not_fall_is_said_only_where_nothing_else_explains_it():
    rising = (0.7, 0.7, 0.9, 1.2, 1.3, 1.4)
    assert rules_of(1.0, rising) == ("not_improving",)
    assert rules_of(1e-6, rising) == ("vanishing",)
    assert rules_of(1.0, (1e-4, 1e-4, 1.1e-4, 1e-4, 1.2e-4, 1.1e-4)) == ()  # is low already


def test_a_cross_entropy_no_better_than_guessing_is_not_improving():
    binary = {"loss": "binary_crossentropy"}
    above = (1.4, 1.2, 1.0, 0.8, 0.73, 0.72)
    far = {"metadata": binary, "update": ROOT}
    assert diagnose(history_of(1.0, above, **far)).rules == ("not_improving",)
    assert diagnose(history_of(1.0, above)).rules == ()  # of another loss nothing is known
    below = (5.0, 3.0, 1.0, 0.6, 0.5, 0.4)
    assert diagnose(history_of(1.0, below, metadata=binary)).rules == ()
    ten = {"loss": "sparse_categorical_crossentropy"}  # the last layer has 64 units: ln 64 = 4.16
    slow = (5, 4.5, 4.3, 4.25, 4.22, 4.2)
    found = diagnose(history_of(1.0, slow, metadata=ten, update=ROOT))
    assert found.rules == ("not_improving",)


def test_a_network_that_begins_as_a_constant_is_not_ill():
    """Its last kernel is 0, or nearly, and no gradient passes it in the first step."""
    level, weight = np.ones((6, 5)), np.full((6, 5), ROOT)
    level[0, :-1], weight[0, -1] = 0.0, 0.0
    weight[1, -1] = ROOT / 300
    level[1, :-1] = 1 / 300
    assert rules_of(level, FLAT, weight=weight) == ()


def test_one_record_tells_only_what_is_far_out():
    assert rules_of(1e-6, (0.7,)) == ("vanishing",)
    assert rules_of(1e-3, (0.7,)) == ()


def with_activations(history, **shares):
    rows = {f"activation_{n}": np.broadcast_to(v, len(history.outputs)) for n, v in shares.items()}
    return copy_of(history, activations=rows)


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ({"dead": [0, 0.95], "zero_fraction": 0.5, "saturated": 0.5}, ("dead_units",)),
        ({"dead": [0, 0.4], "zero_fraction": 0.5, "saturated": 0.5}, ()),
        ({"dead": 0.0, "zero_fraction": 0.0, "saturated": [0.9, 0.1]}, ("saturated",)),
        ({"dead": 0.0, "zero_fraction": 0.9, "saturated": 0.9}, ()),  # a ReLU's zeros
    ],
)
def test_dead_and_saturated_units_are_found_in_the_probe(shares, expected):
    history = with_activations(history_of(1.0, FLAT, outputs=("a", "b")), **shares)
    assert diagnose(history).rules == expected


def in_turns(weights=10, records=6):
    """Return updates of a first and a second half of the weights, in turns."""
    second = np.arange(weights) >= weights // 2
    return 10.0 * (second == (np.arange(records)[:, None] % 2))


@pytest.mark.parametrize("loss", [FLAT, FALLING])
@pytest.mark.parametrize("statistics", [(), ("zero_fraction",)])
def test_parts_that_are_updated_in_turns_are_not_ill(loss, statistics):
    healthy = history_of(1.0, loss, statistics=statistics)
    assert diagnose(healthy).rules == ()
    assert diagnose(with_updates(healthy, in_turns())).rules == ()
    # In every record some updates have no gradient.
    assert diagnose(with_updates(healthy, 10, np.where(in_turns(), 10, 1))).rules == ()
    # One part is never updated, for example because another optimizer trains it.
    assert diagnose(with_updates(healthy, 10 * (np.arange(10) > 3))).rules == ()


def test_what_is_ill_in_its_turn_is_found():
    level = np.ones((6, 5))
    level[:, :2] = 1e-6
    updates = np.where(np.arange(10) < 4, 3, 7)  # in turns within every record
    (finding,) = diagnose(with_updates(history_of(level, FLAT), updates))
    assert (finding.rule, finding.layers) == ("vanishing", ("hidden_1", "hidden_2"))


@pytest.mark.parametrize("unused", [0, 2, 4])
@pytest.mark.parametrize("loss", [FLAT, FALLING])
def test_a_layer_without_a_path_to_the_loss_is_found_and_hides_nothing(unused, loss):
    own = np.isin(np.arange(10), [2 * unused, 2 * unused + 1])
    healthy = with_updates(history_of(1.0, loss), 10, np.where(own, 0, 10))
    (finding,) = diagnose(healthy)
    name = healthy.layers[unused]
    assert (finding.rule, finding.layers, finding.first_epoch) == ("no_path_to_loss", (name,), 0)
    assert [str(one) for one in finding.evidence] == [
        f"{name}: the weights had no gradient in any of 60 updates."
    ]
    assert "does not depend" in finding.explanation
    # The other layers are judged by the last layer that the loss depends on.
    level = np.full(5, 1e-6)
    level[3:] = 1.0
    ill = with_updates(history_of(level, FLAT), 10, np.where(own, 0, 10))
    vanishing = next(one for one in diagnose(ill) if one.rule == "vanishing")
    assert name not in vanishing.layers and set(vanishing.layers) <= {
        "hidden_1",
        "hidden_2",
        "hidden_3",
    }


def test_a_weight_without_a_path_to_the_loss_is_named():
    bias = np.arange(10) == 3
    (finding,) = diagnose(with_updates(history_of(1.0, FLAT), 10, np.where(bias, 0, 10)))
    assert finding.rule == "no_path_to_loss"
    assert str(finding.evidence[0]) == "hidden_2: bias had no gradient in any of 60 updates."


def test_where_no_kernel_has_a_gradient_that_is_the_finding():
    diagnosis = diagnose(with_updates(history_of(1.0, FLAT), 10, np.arange(10) % 2 * 10))
    assert diagnosis.rules == ("no_path_to_loss",)
    assert "no weight with two or more axes has a gradient" in diagnosis.missing


@pytest.mark.parametrize(
    ("zeros_of_bias", "named"),
    [(None, ("hidden_2", "hidden_3")), (0.85, ("hidden_2", "hidden_3")), (0.95, None)],
)
def test_a_layer_whose_bias_has_a_gradient_is_not_dead(zeros_of_bias, named):
    """Behind dead units a kernel has inputs of 0, and its bias learns all the same."""
    statistics = () if zeros_of_bias is None else ("zero_fraction",)
    history = history_of(np.array([1, 0, 0, 0, 1]), FLAT, statistics=statistics)
    for r in range(len(history)):
        values = history.record(r)["values"]
        values["l2_norm"][7] = 0.3  # the bias of hidden_4; those of 2 and 3 have no gradient
        if statistics:
            values["zero_fraction"][2:8] = 1.0
            values["zero_fraction"][7] = zeros_of_bias
    (finding,) = diagnose(with_updates(history))
    assert (finding.rule, finding.layers) == (
        "dead_units", named or ("hidden_2", "hidden_3", "hidden_4")
    )  # fmt: skip


def test_a_layer_is_named_where_every_bias_has_a_gradient():
    history = history_of(np.array([1, 1, 0, 1, 1]), FLAT)
    for r in range(len(history)):
        history.record(r)["values"]["l2_norm"][5] = 0.3
    (finding,) = diagnose(with_updates(history))
    assert (finding.rule, finding.layers) == ("dead_units", ("hidden_3",))


def test_a_gradient_of_zero_is_dead_or_unused_and_a_probe_tells():
    level = np.array([1, 1, 0, 1, 1])
    history = with_updates(history_of(level, FLAT))
    (finding,) = diagnose(history)
    assert (finding.rule, finding.layers) == ("dead_units", ("hidden_3",))
    assert "the loss does not depend on them" in finding.explanation
    probed = with_activations(
        history_of(level, FLAT, outputs=("a", "b")), dead=[0, 0.95], zero_fraction=0.5, saturated=0
    )
    assert "depend" not in diagnose(probed)[0].explanation


def test_growth_is_that_of_the_kernels_which_the_first_record_has():
    level = np.array([2, 2, 2, 2, 1e-4])
    updates = np.full((6, 10), 10)
    updates[0, :8] = 0  # at first only the output, whose gradient is small
    assert diagnose(with_updates(history_of(level, FLAT), updates)).rules == ()
    grown = np.ones((6, 5))
    grown[0] = 1e-4
    grown[1:, 4] = 1.01
    with_all = with_updates(history_of(grown, FLAT, error=np.ones((6, 5))), 10)
    assert "exploding" in diagnose(with_all).rules


@pytest.mark.parametrize(("updates", "clipped", "found"), [(2, 2, True), (10, 2, False)])
def test_clipped_updates_are_compared_with_updates(updates, clipped, found):
    """With gradient accumulation a record of 10 steps has 2 updates."""
    history = history_of(1.0, FLAT, statistics=("clipped_l2", "clipped_steps"))
    for r in range(len(history)):
        values = history.record(r)["values"]
        values["clipped_l2"] = values["l2_norm"] / 1000
        values["clipped_steps"][:] = clipped
    assert diagnose(with_updates(history, updates)).rules == ("always_clipped",) * found
    assert diagnose(history).rules == ()  # 2 of 10 steps, in a file without counts of updates
    unused = np.arange(10) < 2
    without = with_updates(history, updates, np.where(unused, 0, updates))
    assert ("always_clipped" in diagnose(without).rules) is found


def test_changes_are_per_update():
    rising = (0.7, 0.9, 3.0, 2.0, 4.0, 3.0)
    history = history_of(1.0, rising, update=1.2 * ROOT)  # 1.2 / √10 = 0.38, 1.2 / √2 = 0.85
    assert "moving_too_far" not in diagnose(history).rules
    assert "moving_too_far" not in diagnose(with_updates(history, 10)).rules
    assert "moving_too_far" in diagnose(with_updates(history, 2)).rules


@pytest.mark.parametrize(
    ("optimizer", "rate", "size"),
    [("SGD", 30.0, 30.0), ("SGD", 0.9, None), ("Adam", 0.3, 2.4), ("Adam", 0.1, None)],
)
def test_a_first_update_larger_than_the_weights_breaks_a_run_down(optimizer, rate, size):
    """Gradients of norm 8, as the weights; entries of size 1/8, so that Adam moves by 8 × rate."""
    history = history_of(1.0, (0.7, np.nan, np.nan))
    facts = ModelFacts(learning_rate=rate, optimizer=optimizer)
    found = diagnose(history, facts)
    if size is None:
        assert found.rules == ("nonfinite",)
        return
    assert found.rules == ("moving_too_far", "nonfinite")
    assert found[0].evidence[0].value == pytest.approx(size)
    assert str(found[0].evidence[0]).endswith(f"(threshold 1), at a learning rate of {rate:g}.")
    falling = history_of(1.0, FALLING)
    assert diagnose(falling, facts).rules == ()
    exploding = history_of(500.0, (0.7, np.nan, np.nan))
    assert "moving_too_far" not in diagnose(exploding, facts).rules


def test_large_steps_before_a_collapse_are_its_cause():
    """Gradients are healthy for two records, weights move by a third of their norm, then nothing.

    0.3 × √10 in ten updates is 0.3 per √update.
    """
    level = np.array([1, 1, 1, 1e-3, 1e-3, 1e-3])[:, None]
    update = np.array([0.1, 0.1, 0.3 * np.sqrt(10) * ROOT, 0.01, 0.01, 0.01])[:, None]
    found = diagnose(with_updates(history_of(level, FLAT, update=update), 10))
    assert found.rules == ("moving_too_far", "vanishing")
    assert found[0].first_epoch == 2 and found[0].evidence[0].value == pytest.approx(0.3, rel=1e-2)
    assert "healthy at first" in found[0].explanation
    small = diagnose(with_updates(history_of(level, FLAT, update=update / 2), 10))
    assert small.rules == ("vanishing",)
    from_the_start = with_updates(history_of(np.full((6, 1), 1e-3), FLAT, update=update), 10)
    assert diagnose(from_the_start).rules == ("vanishing",)


def test_clipping_that_leaves_little_at_every_step_is_found():
    history = history_of(1.0, FLAT, statistics=("clipped_l2", "clipped_steps"))
    for r in range(len(history)):
        values = history.record(r)["values"]
        values["clipped_l2"] = values["l2_norm"] / 1000
        values["clipped_steps"][:] = 10
    finding = diagnose(history)[0]
    assert finding.rule == "always_clipped"
    np.testing.assert_allclose(finding.evidence[0].value, 1e-3)
    for r in range(len(history)):
        values = history.record(r)["values"]
        values["clipped_l2"] = values["l2_norm"] / 2  # clipped, but not by much
    assert diagnose(history).rules == ()


def test_thresholds_can_be_moved_and_rules_chosen():
    history = history_of(np.array([5e-3, 5e-3, 1, 1, 1]), FLAT)
    assert diagnose(history).rules == ("vanishing",)
    assert diagnose(history, thresholds=Thresholds(vanishing_level=1e-3)).rules == ()
    assert diagnose(history, rules=["exploding"]).rules == ()


def test_a_diagnosis_can_be_printed_and_converted():
    diagnosis = diagnose(history_of(1e-6, FLAT))
    assert json.loads(json.dumps(diagnosis.to_dict()))[0]["rule"] == "vanishing"
    frame = diagnosis.to_frame()
    assert list(frame["rule"]) == ["vanishing"] * len(frame)
    assert set(frame["quantity"]) == {m.quantity for m in diagnosis[0].evidence}
    console = rich.console.Console(width=80, record=True, file=io.StringIO())
    console.print(diagnosis.details)
    shown = console.export_text()
    assert "vanishing" in shown and "1e-6" in shown and "→" in shown
    assert isinstance(diagnosis, Diagnosis) and isinstance(diagnosis[0], Finding)
    assert isinstance(diagnosis[0].evidence[0], Measurement)


def finding(rule, severity="critical", remedies=("Do this.", "Or that.")):
    evidence = Measurement("size", 2.0, 1.0, "a", 0, f"Epoch 0: {rule} is 2 (threshold 1).")
    return Finding(rule, severity, ("a",), 1, (evidence,), "It matters.", remedies, "Someone")


def test_a_diagnosis_prints_its_cause_evidence_remedy_and_consequences():
    several = [finding("first"), finding("second", "warning"), finding("third")]
    diagnosis = Diagnosis(
        several, "the loss was not recorded", [finding("a_note")], Confidence(9, 11)
    )
    lines = str(diagnosis).replace(" \n", "\n").splitlines()
    assert lines == [
        "The cause, most likely: first in a, since epoch 1 (9 of 11 runs with this first finding "
        "had this fault in",
        "kgrad's gallery of runs with known faults).",
        "Epoch 0: first is 2 (threshold 1).",
        "→ Do this.",
        "May follow from it: second in a; third in a.",
        "1 note; the loss was not recorded; print(diagnosis.details) shows everything.",
    ]
    assert diagnosis.cause.rule == "first"
    assert [one.rule for one in diagnosis.consequences] == ["second", "third"]
    table = str(diagnosis.details)
    for words in ("the cause, most", "may follow from it", "→ Or that.", "It matters.", "Note: "):
        assert words in table
    alone = Diagnosis([finding("only")])
    assert str(alone).splitlines() == [
        "The cause, most likely: only in a, since epoch 1.",
        "Epoch 0: only is 2 (threshold 1).",
        "→ Do this.",
        "print(diagnosis.details) shows everything.",
    ]
    healthy = Diagnosis([], "", [finding("a_note")])
    assert healthy.cause is None and healthy.consequences == ()
    assert str(healthy).splitlines() == [
        "No findings: the gradients look healthy.",
        "Note: Epoch 0: a_note is 2 (threshold 1). It matters.",
    ]
    assert str(healthy.details) == str(healthy)


def test_the_confidence_is_that_of_the_gallery(monkeypatch):
    """(right + 1) / (runs + 2); for other thresholds, and with few runs, it is unknown."""
    history = history_of(1e-6, FLAT)
    for runs, known in ((4, None), (12, Confidence(11, 12))):
        monkeypatch.setitem(calibration.HISTORY_ALONE, "vanishing", (11, runs))
        assert diagnose(history).confidence == known
    assert diagnose(history).confidence.probability == pytest.approx(12 / 14)
    assert diagnose(history, thresholds=Thresholds()).confidence is None
    facts = ModelFacts((Head("last", "linear", 1, "mean_squared_error"),))
    data = Data((np.ones((30, 2)),), (np.arange(30.0)[:, None] / 30,))
    monkeypatch.setitem(calibration.WITH_DATA, "vanishing", (7, 8))
    assert diagnose(history, facts, data).confidence == (7, 8)
    assert diagnose(history, facts).confidence == (11, 12)
    assert diagnose(history_of()).confidence is None


def test_a_long_and_deep_history_is_diagnosed_in_a_moment(random):
    level = np.exp(random.normal(size=(1000, 100)))
    history = history_of(level, np.linspace(1, 0.2, 1000), layers=100)
    start = time.process_time()  # others may be using the machine
    diagnose(history)
    assert time.process_time() - start < 0.2


# Errors.


def unwatched():
    """A history of biases alone."""
    names = ("mean_abs", "l2_norm", "nonfinite_steps", "weight_l2", "update_l2")
    history = GradientHistory([Weight("a", "bias", "a/bias", (4,))], names)
    for r in range(5):
        history.append(r, r, {name: np.full(1, r > 3) * 1.0 for name in names}, {"loss": 1.0})
    return history


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("model",), {}, TypeError, r"facts must be a ModelFacts, received str: kgrad.diagnose\("),
        ((None, [[1]]), {}, ValueError, "received data without a model"),
        ((), {"rules": 3}, TypeError, "rules must be names of rules, received 3"),
        ((), {"rules": [3]}, ValueError, "rules must be among nonfinite, .*, received 3$"),
        ((), {"thresholds": {"far": 1}}, TypeError, "must be a kgrad.Thresholds, received dict"),
        ((), {"rules": ["always_clipped"]}, ValueError, "needs the statistic clipped_steps"),
        ((), {"rules": ["output_loss_mismatch"]}, ValueError, "needs the model"),
    ],
)
def test_what_cannot_be_looked_at_is_refused_in_a_sentence(arguments, options, error, message):
    with pytest.raises(error, match=message) as caught:
        diagnose(history_of(), *arguments, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["0.3", None, float("nan")])
def test_a_threshold_that_is_no_number_is_refused(value):
    with pytest.raises(TypeError, match="falls_well must be a number, received"):
        Thresholds(falls_well=value)


def test_of_biases_alone_only_nan_is_told():
    history = unwatched()
    found = diagnose(history)
    assert (found.rules, found[0].layers, found[0].first_epoch) == (("nonfinite",), ("a",), 4)
    with pytest.raises(ValueError, match="a weight with two or more axes"):
        diagnose(history, rules=["vanishing"])


def test_no_rules_find_nothing():
    assert diagnose(history_of(1e-6, FLAT), rules=[]).rules == ()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (lambda: ([1, 2],), TypeError, "received list: pass tracker.history"),
        (lambda: (history_of(loss=()),), ValueError, "received none: train"),
    ],
)
def test_what_is_no_history_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        diagnose(*arguments())


def test_a_history_without_the_usual_statistics_is_refused():
    history = GradientHistory([Weight("a", "kernel", "a/kernel", (2, 2))], ["l2_norm"])
    history.append(0, 0, {"l2_norm": [1.0]})
    with pytest.raises(ValueError, match="without weight_l2, update_l2, nonfinite_steps"):
        diagnose(history)


def test_an_unknown_rule_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="received 'vanish'; did you mean 'vanishing'"):
        diagnose(history_of(), rules=["vanish"])


# Real runs.


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({}, None),
        ({"activation": "sigmoid", "weight_initializer": "normal"}, "vanishing"),
        ({"weight_initializer": "normal"}, "vanishing"),
        ({"activation": "tanh", "weight_initializer": "normal:1"}, "exploding"),
        ({"learning_rate": 100.0}, "nonfinite"),
        ({"learning_rate": 1e-9}, "not_moving"),
    ],
)
def test_ill_runs_of_five_epochs_are_named(changes, rule):
    run = Experiment(epochs=5, samples=512, learning_rate=0.1)
    found = diagnose(run_experiment(dataclasses.replace(run, **changes)))
    assert (rule in found.rules) if rule else found.rules == ()


# What was missing.


@pytest.mark.parametrize(
    ("history", "said"),
    [
        (lambda: history_of(1.0, (0.7,)), "No findings, but one record is too few"),
        (lambda: history_of(1.0, (0.7, 0.7)), "No findings, but two records are too few"),
        (lambda: history_of(1.0, (np.nan,) * 6), "No findings, but the loss was not recorded"),
        (lambda: history_of(1e-6, (0.7,)), "one record is too few"),
        (unwatched, "no weight with two or more axes is watched"),
    ],
)
def test_what_could_not_be_looked_at_is_said(history, said):
    assert said in str(diagnose(history()))


def test_where_nothing_is_missing_nothing_is_said():
    assert diagnose(history_of()).missing == ""


def test_epochs_are_those_of_the_records_and_not_their_places():
    source = history_of(1e-6, FLAT)
    late = GradientHistory(source.weights, source.statistics)
    for r in range(6):
        record = source.record(r)
        late.append(50 + r, 500 + 10 * r, record["values"], record["logs"])
    finding = diagnose(late)[0]
    assert finding.first_epoch == 50
    assert [m.epoch for m in finding.evidence] == [50, 55]


# While training.


def told_by(history, caplog, *, records=None, watch=None):
    """The lines that a watch logs while a history grows, and where it would have stopped."""
    watch, stopped = watch or Watch(["vanishing"]), []
    growing = GradientHistory(history.weights, history.statistics)
    with caplog.at_level(logging.WARNING, "kgrad"):
        for r in range(len(history)):
            record = history.record(r)
            growing.append(**{name: record[name] for name in ("epoch", "step", "values", "logs")})
            if watch.look(growing, None):
                stopped.append(r)
    return [record.getMessage() for record in caplog.records], stopped


def test_a_finding_is_told_once_and_not_of_the_first_batch(caplog):
    lines, stopped = told_by(history_of(1e-6, FLAT), caplog)
    assert [line.split(" (")[0] for line in lines] == ["epoch 1: vanishing"]
    assert stopped == [1, 2, 3, 4, 5]


def test_zeros_beside_a_nan_in_the_first_batch_are_not_dead_units():
    """Processors differ in whether relu(NaN) is NaN or 0; behind a 0 all gradients are 0."""
    level = np.array([np.nan, 0.0, 0.0, 0.0, 0.0])
    assert diagnose(history_of(level, FLAT)).rules == ("nonfinite",)


def test_nan_in_the_first_batch_is_told_at_once(caplog):
    lines, stopped = told_by(history_of(np.nan, FALLING), caplog, watch=Watch(["nonfinite"]))
    assert lines[0].startswith("epoch 0: nonfinite")
    assert stopped[0] == 0


def test_a_second_history_is_told_of_anew(caplog):
    watch, history = Watch(), history_of(1e-6, FLAT)
    told_by(history, caplog, watch=watch)
    assert len(told_by(history, caplog, watch=watch)[0]) == 2


def test_long_histories_are_looked_at_every_tenth_time_and_whenever_a_nan_comes(caplog):
    level = np.ones((118, 5))
    level[115:] = np.nan
    history = history_of(level, np.linspace(1, 0.2, 118), weight=ROOT)
    looked = told_by(history, caplog, watch=Watch(["nonfinite"]))
    assert looked[1] == [115, 116, 117]
