"""Declarations of rules: they are complete, and their sentences are fit to read."""

import dataclasses
import pickle

import numpy as np
import pytest
from diagnosis.test_diagnosing import FALLING, FLAT, ROOT, history_of, with_activations

from kgrad.diagnosis import RULES, Thresholds, diagnose
from kgrad.diagnosis.diagnosing import CAUSES_FIRST, DECLARED
from kgrad.diagnosis.evidence import Data, Head, ModelFacts
from kgrad.diagnosis.rules import Remedy, Rule, Threshold, number, percent

COMPLETE = {
    "severity": "warning",
    "thresholds": (Threshold("most", 1.0, "more is too much"),),
    "explanation": "It is too much.",
    "remedies": (Remedy("Take less.", ()),),
    "reference": "Somebody (2001)",
}


def too_much(e, t):
    return None


def test_a_complete_declaration_is_accepted():
    rule = Rule(**COMPLETE)(too_much)
    assert (rule.name, rule.check, rule.explanation) == ("too_much", too_much, "It is too much.")


@pytest.mark.parametrize("part", COMPLETE)
def test_a_declaration_without_a_part_fails(part):
    rest = {name: value for name, value in COMPLETE.items() if name != part}
    with pytest.raises(TypeError, match=f"required keyword-only argument: '{part}'"):
        Rule(**rest)


@pytest.mark.parametrize(
    ("part", "value", "missing"),
    [
        ("explanation", "", "an explanation"),
        ("reference", "", "a reference"),
        ("remedies", (), "a remedy"),
        ("remedies", (Remedy("Take less.", ()), Remedy("", ())), "the text of remedy 2"),
        ("thresholds", (Threshold("most", 1.0, ""),), "the reason for threshold 'most'"),
    ],
)
def test_a_declaration_with_an_empty_part_fails(part, value, missing):
    with pytest.raises(ValueError, match=f"rule 'too_much' must have {missing}, received"):
        Rule(**COMPLETE | {part: value})(too_much)


def test_a_threshold_without_a_reason_and_a_remedy_without_its_kinds_fail():
    with pytest.raises(TypeError, match="reason"):
        Threshold("most", 1.0)
    with pytest.raises(TypeError, match="tries"):
        Remedy("Take less.")


def test_the_rules_are_applied_in_the_order_of_their_declarations():
    assert RULES == (
        "nonfinite",
        "exploding",
        "vanishing",
        "dead_units",
        "no_path_to_loss",
        "saturated",
        "layer_out_of_line",
        "badly_scaled_weights",
        "moving_too_far",
        "not_moving",
        "always_clipped",
        "too_few_steps",
        "validation_differs",
        "not_improving",
        "output_loss_mismatch",
        "no_nonlinearity",
        "too_much_dropout",
        "too_strong_penalty",
        "unsettled_batchnorm",
        "inputs_out_of_scale",
        "targets_out_of_scale",
        "wrong_embedding_inputs",
        "idle_columns",
        "leakage",
        "categories_as_numbers",
        "imbalanced_classes",
        "unrelated_targets",
    )
    assert sorted(CAUSES_FIRST) == sorted(RULES)


def test_a_finding_names_the_changes_that_try_its_remedies():
    """Of the remedies that are not in place, each change once, in their order."""
    (finding,) = diagnose(history_of(1e-6, FLAT, weight=0.5 * ROOT))  # σ_w² of 0.25
    assert finding.rule == "vanishing"
    assert finding.tries == (
        "initializer", "activation relu, initializer he", "activation gelu", "skip_connections",
        "normalization",
    )  # fmt: skip
    assert finding.to_dict()["tries"] == list(finding.tries)
    open_ones = ModelFacts(activations=tuple((f"hidden_{k}", "relu") for k in range(1, 5)))
    (finding,) = diagnose(history_of(1e-6, FLAT), open_ones)
    assert "activation gelu" not in finding.tries


VALUES = {
    "vanishing_level": 0.03,
    "far_vanishing_level": 1e-4,
    "exploding_level": 1e2,
    "far_exploding_level": 1e3,
    "exploding_level_before_nonfinite": 10.0,
    "growth": 1e3,
    "falls_hardly": 0.1,
    "falls_well": 0.5,
    "dead_share": 0.9,
    "saturated_share": 0.8,
    "far_saturated_share": 0.95,
    "saturating_input": 30.0,
    "saturating_bias": 3.0,
    "still": 1e-4,
    "far": 0.5,
    "very_far": 2.5,
    "first_step": 1.0,
    "far_before_collapse": 0.25,
    "clipped_share": 0.9,
    "clipped_left": 0.1,
    "out_of_line": 100.0,
    "small_sigma_w2": 0.02,
    "large_sigma_w2": 20.0,
    "saturating_sigma_w2": 100.0,
    "persistent": 0.6,
    "hardly_moved": 0.2,
    "few_updates": 50,
    "linear_share": 0.5,
    "dropout_rate": 0.6,
    "penalty_share": 0.5,
    "weights_left": 0.2,
    "large_input": 10.0,
    "small_input": 0.03,
    "large_input_by_gradient": 30.0,
    "large_target": 10.0,
    "small_target": 0.01,
    "majority": 0.7,
    "neighbors_gain": 0.1,
    "still_falling": 0.1,
    "overfit": 1.2,
    "validation_far": 3.0,
    "validation_easier": 0.5,
    "column_is_target": 0.999,
    "copied_share": 0.05,
    "explained_by_codes": 0.2,
    "skill_at_inference": 0.1,
}


def test_thresholds_are_keywords_with_the_declared_values():
    assert dataclasses.asdict(Thresholds()) == VALUES
    moved = Thresholds(falls_well=0.3)
    assert dataclasses.asdict(moved) == VALUES | {"falls_well": 0.3}
    assert dataclasses.replace(moved, falls_well=0.5) == Thresholds() != moved
    assert pickle.loads(pickle.dumps(moved)) == moved
    with pytest.raises(dataclasses.FrozenInstanceError):
        moved.far = 1.0
    with pytest.raises(TypeError, match="'fals_well'"):
        Thresholds(fals_well=0.3)
    with pytest.raises(TypeError, match="positional"):
        Thresholds(0.3)


def test_the_description_of_the_thresholds_has_every_value_and_reason():
    described = " ".join(Thresholds.__doc__.split())
    declared = [one for rule in DECLARED.values() for one in rule.thresholds]
    for one in declared:
        assert f"{one.name} ({one.value:g}): {one.reason}." in described
    shared = {"falls_hardly", "falls_well", "persistent"}
    assert {one.name for one in declared} == set(VALUES) - shared
    for name in shared:
        assert f" {name} ({VALUES[name]:g}): " in described


# Sentences.


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (2.82e-10, "2.8e-10"),
        (1e-4, "1e-4"),
        (0.00099999, "0.001"),
        (0.03, "0.03"),
        (1 / 3, "0.333"),
        (1.63, "1.63"),
        (21.64, "21.6"),
        (345.4, "345"),
        (999.9, "1,000"),
        (5884.0, "5,880"),
        (1.234e7, "1.23e7"),
        (-2.5, "-2.5"),
        (np.inf, "inf"),
        (np.nan, "nan"),
    ],
)
def test_numbers_are_short_and_have_no_padded_exponents(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"),
        (1.9e-5, "0.002 %"),
        (0.00316, "0.3 %"),
        (0.0538, "5.4 %"),
        (0.821, "82 %"),
        (0.9999, "100 %"),
        (2.394, "239 %"),
        (11.13, "1,113 %"),
    ],
)
def test_shares_are_percentages(share, text):
    assert percent(share) == text


def probed(**shares):
    nothing = {"dead": 0.0, "zero_fraction": 0.0, "saturated": 0.0}
    return with_activations(history_of(1.0, FLAT, outputs=("a", "b")), **nothing | shares)


def clipped():
    history = history_of(1.0, FLAT, statistics=("clipped_l2", "clipped_steps"))
    for r in range(len(history)):
        values = history.record(r)["values"]
        values["clipped_l2"] = values["l2_norm"] / 1000
        values["clipped_steps"][:] = 10 if r else 1
    return history


def infinite_loss():
    level = np.ones((6, 5))
    level[3:, 1] = np.nan
    return history_of(level, (1, 0.9, 0.8, np.inf, 0.7, 0.6))


FELL = "The loss fell by 0.1 % by epoch 5; a healthy run at least halves it."


@pytest.mark.parametrize(
    ("history", "sentences"),
    [
        (
            lambda: history_of(np.array([2.82e-10, 1e-5, 1, 1, 1]), FLAT),
            [
                "hidden_1, epoch 0: the gradient is 2.8e-10 of a healthy network's (threshold "
                "1e-4).",
                FELL,
            ],
        ),
        (
            lambda: history_of(np.array([5884, 1, 1, 1, 1]), FLAT),
            [
                "hidden_1, epoch 0: the gradient is 5,880 times a healthy network's (threshold "
                "1,000).",
                FELL,
            ],
        ),
        (
            lambda: probed(dead=[0, 0.97]),
            [
                "b, epoch 0: 97 % of the units are 0 for every sample of the probe (threshold "
                "90 %).",
                FELL,
            ],
        ),
        (
            lambda: probed(saturated=[0.8004, 0]),  # shown as different from the threshold
            [
                "a, epoch 0: the slope of 80.04 % of the activations is nearly 0 (threshold 80 %).",
                FELL,
            ],
        ),
        (
            lambda: history_of(1.0, FLAT, bias_size=32.0),
            [
                "hidden_1, epoch 0: the biases have a root mean square of 4 (threshold 3).",
                FELL,
            ],
        ),
        (
            lambda: history_of(1.0, FLAT, weight=np.array([1, 1, 1e-2, 1, 1]) * ROOT),
            [
                "hidden_3, epoch 0: σ_w², fan-in times the mean square of the weights, is 10,000 "
                "times smaller than the median of all layers (threshold 100).",
                FELL,
            ],
        ),
        (
            lambda: history_of(1.0, FLAT, weight=5 * ROOT),
            [
                "hidden_1, epoch 0: σ_w² (fan-in times the mean square of the weights) is 25 "
                "(threshold 20).",
                FELL,
            ],
        ),
        (
            lambda: history_of(1.0, FLAT, update=1e-9),
            [
                "hidden_1, epoch 1: an update changes the kernel by 1.3e-11 of its norm, the "
                "most of all kernels (threshold 1e-4).",
                FELL,
            ],
        ),
        (
            lambda: history_of(1.0, (0.7, 0.9, 3.0, 2.0, 4.0, 3.0), update=3 * ROOT),
            [
                "hidden_1, epoch 1: the weights changed by 0.949 times their norm, divided by the "
                "square root of the number of updates (threshold 0.5).",
                "The loss rose to 2.22 times its first value by epoch 5; a healthy run at least "
                "halves it.",
            ],
        ),
        (
            clipped,
            [
                "Epoch 0: clipping left 0.1 % of the gradient norm (threshold 10 %).",
                "Epoch 0: 100 % of the updates were clipped (threshold 90 %).",
                FELL,
            ],
        ),
        (
            lambda: history_of(1.0, (0.7, 0.7, 0.9, 1.2, 1.2, 1.2)),
            ["The loss rose by 71 % by epoch 5; a healthy run at least halves it."],
        ),
        (
            lambda: history_of(
                1.0,
                (1.4, 1.2, 1.0, 0.8, 0.73, 0.72),
                metadata={"loss": "binary_crossentropy"},
                update=ROOT,
            ),
            [
                "The loss at epoch 5 is 104 % of that of guessing; a healthy run reaches "
                "50 % or less."
            ],
        ),
        (
            infinite_loss,
            [
                "hidden_2, epoch 3: the gradient of 1 of the updates has a NaN or infinity.",
                "hidden_2, epoch 3: the first NaN or infinity occurred in training step 30.",
                "Epoch 3: the loss is inf.",
            ],
        ),
    ],
)
def test_evidence_reads_as_sentences(history, sentences):
    (finding,) = diagnose(history())
    assert [str(one) for one in finding.evidence] == sentences


def test_a_loss_that_falls_well_is_not_compared_with_a_healthy_run():
    (finding,) = diagnose(history_of(1.0, FALLING, weight=11 * ROOT))
    assert str(finding.evidence[1]) == "The loss fell by 80 % by epoch 5."


@pytest.mark.parametrize(
    ("facts", "y", "sentence", "explanation"),
    [
        (
            ModelFacts((Head("last", "softmax", 1, "mean_squared_error"),)),
            None,
            "last: there is 1 output unit; softmax needs at least 2.",
            "Softmax over one unit is always 1, so every prediction is the same.",
        ),
        (
            ModelFacts((Head("last", "tanh", 1, "binary_crossentropy"),)),
            None,
            "last: tanh outputs can be below 0, probabilities cannot.",
            "binary_crossentropy takes the logarithm of probabilities, but receives values below "
            "0.",
        ),
        (
            ModelFacts((Head("last", "sigmoid", 1, "mean_squared_error"),)),
            [-3.0, 0.5, 1.0, 4.0],
            "last: 50 % of the targets are outside 0 to 1, the range of the output.",
            "The loss cannot reach its minimum, because the output cannot reach all targets: they "
            "go from -3 to 4.",
        ),
        (
            ModelFacts(equal_units=("hidden_2", "hidden_3")),
            None,
            "hidden_2: all units have the same incoming weights.",
            "Units that begin with the same weights get the same gradients, so they stay copies of "
            "one unit.",
        ),
    ],
)
def test_findings_about_the_model_read_as_sentences(facts, y, sentence, explanation):
    data = None if y is None else Data(targets=(np.array(y),))
    (finding,) = diagnose(history_of(), facts, data)
    assert [str(one) for one in finding.evidence] == [sentence]
    assert finding.explanation == explanation


def test_the_class_that_the_loss_ignores_may_be_out_of_range():
    head = Head("last", "softmax", 3, "sparse_categorical_crossentropy", ignored_class=-1)
    for labels, rules in (([0, -1, 2], ()), ([0, -1, 3], ("output_loss_mismatch",))):
        data = Data(targets=(np.array(labels),))
        assert diagnose(history_of(), ModelFacts((head,)), data).rules == rules
