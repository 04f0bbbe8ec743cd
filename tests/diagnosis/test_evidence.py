"""The numbers, thresholds, layers and epochs of findings against ones computed by hand."""

import numpy as np
import pytest
from diagnosis.test_diagnosing import FALLING, FLAT, ROOT, history_of, with_activations

from kgrad import GradientHistory, Weight
from kgrad.diagnosis import ModelFacts, Thresholds, diagnose
from kgrad.diagnosis.evidence import Evidence

SLOWLY = (1.0, 1.0, 0.9, 0.85, 0.8, 0.75)  # a quarter: neither hardly nor well
ALWAYS = ("mean_abs", "l2_norm", "nonfinite_steps", "weight_l2", "update_l2")


def told(history, **options):
    """The only finding as plain values: rule, layers, epoch, and each (value, threshold, ...)."""
    (finding,) = diagnose(history, **options)
    numbers = [(m.value, m.threshold, m.layer, m.epoch) for m in finding.evidence]
    return finding.rule, finding.layers, finding.first_epoch, numbers


def assert_told(history, rule, layers, epoch, numbers):
    found = told(history)
    assert found[:3] == (rule, layers, epoch)
    assert len(found[3]) == len(numbers)
    for (value, threshold, *rest), (v, t, *r) in zip(found[3], numbers, strict=True):
        np.testing.assert_allclose([value, threshold], [v, t], rtol=1e-9)
        assert rest == list(r)


def table(ones, **at):
    """(6, 5) of one number but for `r2k3=value`: record 2, kernel 3."""
    values = np.full((6, 5), float(ones))
    for place, value in at.items():
        values[int(place[1]), int(place[3])] = value
    return values


# Gradients.


def test_vanishing_needs_two_layers_and_names_those_below_the_threshold():
    assert diagnose(history_of(np.array([1e-6, 1, 1, 1, 1]), FLAT)).rules == ()
    level = np.array([1e-6, 1e-5, 1e-2, 1, 1])
    numbers = [(1e-6, 1e-4, "hidden_1", 0), ((0.7 - 0.699) / 0.7, 0.5, "", 5)]
    assert_told(history_of(level, FLAT), "vanishing", ("hidden_1", "hidden_2"), 0, numbers)


def test_what_was_far_out_once_persists_where_it_stays_below_the_nearer_threshold():
    level = np.full((6, 5), 1e-2)
    level[0] = 1e-6
    assert diagnose(history_of(level, SLOWLY)).rules == ("vanishing",)


def test_exploding_names_the_largest_level_and_all_layers_beyond_the_threshold():
    level = np.array([5e3, 2e3, 2e2, 1, 1])
    numbers = [(5e3, 1e3, "hidden_1", 0), (1e-3 / 0.7, 0.5, "", 5)]
    assert_told(history_of(level, FLAT), "exploding", ("hidden_1", "hidden_2"), 0, numbers)


def test_before_a_nan_a_smaller_level_is_enough():
    level = np.full((6, 5), [50.0, 1, 1, 1, 1])
    level[4:] = np.nan
    found = diagnose(history_of(level, (1, 0.5, 0.4, 0.3, np.nan, np.nan)))
    assert found.rules == ("exploding", "nonfinite")
    assert found[0].evidence[0].threshold == 10
    level[:4, 0] = 9
    found = diagnose(history_of(level, (1, 0.5, 0.4, 0.3, np.nan, np.nan)))
    assert found.rules == ("nonfinite",)


def test_a_large_signal_into_the_last_kernel_does_not_hide_an_explosion():
    """The error is then the last bias's, not the last kernel's over the root of its inputs."""
    history = history_of(np.array([5e3, 1, 1, 1, 100]), FLAT)
    np.testing.assert_allclose(Evidence(history).level[0, 0], 50)
    np.testing.assert_allclose(Evidence(history).level_by_bias[0, 0], 5e3)
    assert diagnose(history, rules=["exploding"]).rules == ("exploding",)


def test_growth_is_that_of_the_whole_norm_over_the_first_record():
    level = np.ones((6, 5))
    level[0] = 1e-3
    level[3:] = [2, 1, 1, 1, 1]
    history = history_of(level, (0.7, 0.7, 0.8, 0.9, 0.9, 0.9), error=1.0)
    first, fourth = np.linalg.norm([1e-3] * 5), np.linalg.norm([2, 1, 1, 1, 1])
    numbers = [(fourth / first, 1000.0, "hidden_1", 3)]
    limits = Thresholds(growth=1000)
    assert told(history, thresholds=limits, rules=["exploding"])[2] == 3
    assert_told(history, "exploding", ("hidden_1",), 3, numbers)
    assert diagnose(history_of(level, SLOWLY), rules=["exploding"]).rules == ()  # it learns
    level[3:, 0] = 0.9  # as large as usual, after nearly nothing
    assert diagnose(history_of(level, FLAT), rules=["exploding"]).rules == ()


def test_dead_units_are_told_with_the_worst_layer_of_that_record():
    history = with_activations(
        history_of(1.0, FLAT, outputs=("a", "b", "c")), dead=0.0, zero_fraction=0, saturated=0
    )
    for r in range(2, 6):
        history.record(r)["activations"]["activation_dead"] = np.array([0.1, 0.92, 0.97])
    history.record(0)["activations"]["activation_dead"] = np.array([0.5, 0.4, 0.3])
    numbers = [(0.97, 0.9, "c", 2), (1e-3 / 0.7, 0.5, "", 5)]
    assert_told(history, "dead_units", ("b", "c"), 2, numbers)
    for r, loss in enumerate(FALLING):
        history.record(r)["logs"]["loss"] = loss
    assert diagnose(history).rules == ()


def test_zeros_in_gradients_stand_in_for_a_probe_but_not_in_the_first_kernel():
    history = history_of(1.0, FLAT, statistics=("zero_fraction",))
    for r in range(6):
        history.record(r)["values"]["zero_fraction"][0] = 0.99  # inputs may be sparse
    assert diagnose(history).rules == ()
    for r in range(6):
        history.record(r)["values"]["zero_fraction"][4] = 0.95
    assert told(history)[1] == ("hidden_3",)
    assert told(history)[3][0] == (0.95, 0.9, "hidden_3", 0)


def test_saturation_of_the_output_is_certainty_and_of_everything_an_illness_even_where_loss_falls():
    shares = {"dead": 0.0, "zero_fraction": 0.0}
    history = history_of(1.0, FLAT, outputs=("a", "b"))
    assert diagnose(with_activations(history, saturated=[0.1, 0.99], **shares)).rules == ()
    assert diagnose(with_activations(history, saturated=[0.85, 0], **shares)).rules == (
        "saturated",
    )
    falling = history_of(1.0, FALLING, outputs=("a", "b"))
    assert diagnose(with_activations(falling, saturated=[0.85, 0], **shares)).rules == ()
    found = told(with_activations(falling, saturated=[0.97, 0], **shares))
    assert found[:3] == ("saturated", ("a",), 0)
    assert found[3][0] == (0.97, 0.8, "a", 0)


def test_without_a_probe_large_inputs_and_biases_tell_saturation():
    history = history_of(1.0, FLAT)
    for r in range(6):  # |x| = 40 √n: the bias has a 40th of the kernel's gradient over √n
        history.record(r)["values"]["l2_norm"][1] = 1 / 40
    found = diagnose(history)
    assert found.rules == ("inputs_out_of_scale", "saturated")
    for finding in found:
        assert (finding.layers, finding.first_epoch) == (("hidden_1",), 0)
        np.testing.assert_allclose(finding.evidence[0][1:3], (40, 30))
    relu = ModelFacts(activations=tuple((f"hidden_{k}", "relu") for k in range(1, 5)))
    assert diagnose(history, relu).rules == ("inputs_out_of_scale",)  # relu is not flat there
    # 64 biases of norm 32: 4 each.
    found = told(history_of(1.0, FLAT, bias_size=32.0))
    assert found[:2] == ("saturated", ("hidden_1", "hidden_2", "hidden_3", "hidden_4"))
    assert found[3][0] == (4.0, 3.0, "hidden_1", 0)
    assert diagnose(history_of(1.0, FLAT, bias_size=32.0), relu).rules == ()


def test_clipping_is_counted_by_the_steps_of_a_record():
    history = history_of(1.0, FLAT, statistics=("clipped_l2", "clipped_steps"))
    for r in range(6):
        values = history.record(r)["values"]
        values["clipped_l2"] = values["l2_norm"] / 50
        values["clipped_steps"][:] = 8  # of 10: not always
    assert diagnose(history).rules == ()
    for r in range(1, 6):
        history.record(r)["values"]["clipped_steps"][:] = 9.5
    numbers = [(0.02, 0.1, "", 1), (0.95, 0.9, "", 1), (1e-3 / 0.7, 0.5, "", 5)]
    # Of the first record, of one step, eight were clipped: more than all.
    history.record(0)["values"]["clipped_steps"][:] = 0
    assert_told(history, "always_clipped", (), 1, numbers)
    for r, loss in enumerate(FALLING):
        history.record(r)["logs"]["loss"] = loss
    assert diagnose(history).rules == ()


# NaN and infinity.


def test_a_loss_that_is_no_number_is_told_with_its_value():
    loss = (1, 0.9, 0.8, np.inf, 0.7, 0.6)
    assert_told(history_of(1.0, loss), "nonfinite", (), 3, [(np.inf, np.inf, "", 3)])


def test_weights_that_overflow_in_the_last_step_of_all_are_told():
    history = history_of(1.0, FALLING, weight=table(ROOT, r5k2=np.inf))
    numbers = [(np.inf, np.inf, "hidden_3", 5)]
    assert_told(history, "nonfinite", ("hidden_3",), 5, numbers)


def test_records_before_a_nan_are_still_judged_and_those_after_it_not():
    level = np.full((6, 5), 1e-6)
    level[3:] = np.nan
    found = diagnose(history_of(level, FLAT))
    assert set(found.rules) == {"vanishing", "nonfinite"}
    late = history_of(table(1, r2k0=np.nan), FLAT, update=table(0.1, r2k1=1e3, r3k1=1e3))
    assert diagnose(late).rules == ("nonfinite",)
    early = history_of(table(1, r2k0=np.nan), FLAT, update=table(0.1, r1k1=1e3))
    assert diagnose(early).rules == ("moving_too_far", "nonfinite")
    assert diagnose(early, rules=["moving_too_far"]).rules == ("moving_too_far",)


# Weights and updates.


def test_not_moving_tells_the_largest_change_of_a_step():
    update = np.array([1e-4, 2e-4, 1e-4, 1e-4, 1e-4])  # in 10 steps, of norm 8
    numbers = [(2e-4 / 8 / 10, 1e-4, "hidden_2", 1), (1e-3 / 0.7, 0.1, "", 5)]
    assert_told(history_of(1.0, FLAT, update=update), "not_moving", (), 1, numbers)
    (finding,) = diagnose(history_of(1.0, FLAT, update=update), rules=["not_moving"])
    # Biases are not judged: they may move.
    sentence = "an update changes the kernel by 2.5e-6 of its norm, the most of all kernels"
    assert sentence in finding.evidence[0].sentence
    assert diagnose(history_of(1.0, FLAT, update=np.array([1e-4, 1, 1e-4, 0, 0]))).rules == ()
    # 0.4 % a record, 0.04 % a step of ten; and 0.06 % a record, 0.006 % a step
    assert diagnose(history_of(1.0, FLAT, update=0.032)).rules == ()
    assert diagnose(history_of(1.0, FLAT, update=0.0048)).rules == ("not_moving",)


def test_a_schedule_that_ends_at_nothing_leaves_weights_still_and_healthy():
    last, half = np.full((6, 5), 0.1), np.full((6, 5), 0.1)
    last[4:] = half[2:] = 1e-9
    assert diagnose(history_of(1.0, FLAT, update=last)).rules == ()
    assert diagnose(history_of(1.0, FLAT, update=half)).rules == ("not_moving",)
    assert diagnose(history_of(1.0, FALLING, update=half)).rules == ()
    back = np.full((6, 5), 1e-9)
    back[3] = 0.1
    assert diagnose(history_of(1.0, FLAT, update=back)).rules == ()


def test_weights_that_were_trained_before_may_move_by_little():
    """Biases begin at 0: these were moved before the history began."""
    assert diagnose(history_of(1.0, FLAT, update=1e-6)).rules == ("not_moving",)
    assert diagnose(history_of(1.0, FLAT, update=1e-6, bias_size=0.5)).rules == ()


def test_movement_is_over_the_weight_before_and_by_the_root_of_the_steps():
    update = table(0.1, r3k1=30.0)
    weight = table(ROOT, r2k1=4.0, r3k1=40.0)
    value = 30 / 4 / np.sqrt(10)
    numbers = [(value, 0.5, "hidden_2", 3), (1e-3 / 0.7, 0.5, "", 5)]
    history = history_of(1.0, FLAT, update=update, weight=weight)
    np.testing.assert_allclose(value, 2.3717, rtol=1e-4)  # very far, 2.5, it is not
    found = told(history, thresholds=Thresholds(), rules=["moving_too_far"])
    assert found[:3] == ("moving_too_far", ("hidden_2",), 3)
    assert_told(history, "moving_too_far", ("hidden_2",), 3, numbers)


def test_moving_far_is_ill_where_the_loss_jumps_and_moving_very_far_always():
    far, very = table(0.1, r3k1=20.0), table(0.1, r3k1=80.0)  # 0.79 and 3.2
    assert diagnose(history_of(1.0, FALLING, update=far)).rules == ()
    assert diagnose(history_of(1.0, FALLING, update=very)).rules == ("moving_too_far",)
    jumps = (1.0, 0.9, 0.5, 0.7, 0.3, 0.2)  # by 40 %, in that record
    assert diagnose(history_of(1.0, jumps, update=far)).rules == ("moving_too_far",)
    assert diagnose(history_of(1.0, (1.0, 0.9, 0.5, 0.55, 0.3, 0.2), update=far)).rules == ()


def test_a_layer_out_of_line_is_one_of_many_and_really_out():
    out = np.array([ROOT, ROOT / 100, ROOT, ROOT, ROOT])
    numbers = [(1e4, 100, "hidden_2", 0), (1e-3 / 0.7, 0.5, "", 5)]
    history = history_of(1.0, FLAT, weight=out)
    assert_told(history, "layer_out_of_line", ("hidden_2",), 0, numbers)
    assert diagnose(history_of(1.0, FALLING, weight=out)).rules == ()
    two = np.array([ROOT, ROOT / 100, ROOT / 100, ROOT, ROOT])  # 2 of 5: no exception
    only = ["layer_out_of_line"]
    assert diagnose(history_of(1.0, FLAT, weight=two), rules=only).rules == ()
    # 0.1 and 15 are usual both, and 150 apart
    usual = ROOT * np.sqrt([0.1, 0.1, 15.0, 0.1, 0.1])
    assert diagnose(history_of(1.0, FLAT, weight=usual)).rules == ()


def test_badly_scaled_weights_are_told_with_the_bound_that_they_pass():
    small = np.array([ROOT, ROOT, ROOT / 10, ROOT / 10, ROOT / 10])
    found = told(history_of(1.0, FLAT, weight=small), rules=["badly_scaled_weights"])
    assert found[:3] == ("badly_scaled_weights", ("hidden_3", "hidden_4", "output"), 0)
    np.testing.assert_allclose(found[3][0][:2], (0.01, 0.02))
    large = np.array([5, 5, 1, 1, 5]) * ROOT  # two hidden of four, σ_w² = 25
    found = told(history_of(1.0, FLAT, weight=large), rules=["badly_scaled_weights"])
    assert found[1] == ("hidden_1", "hidden_2", "output")
    assert found[3][0][1:] == (20.0, "hidden_1", 0)
    np.testing.assert_allclose(found[3][0][0], 25)
    huge = history_of(1.0, FALLING, weight=11 * ROOT)  # 121: flat, whatever the loss does
    assert diagnose(huge).rules == ("badly_scaled_weights",)


def test_a_loss_that_rises_is_not_improving_since_the_first_epoch():
    loss = (0.7, 0.8, 0.9, 1.3, 1.3, 1.4)
    assert_told(history_of(1.0, loss), "not_improving", (), 1, [((0.8 - 1.3) / 0.8, 0.1, "", 5)])


# What numbers are made of.


def kernels(*weights):
    history = GradientHistory([Weight(*w) for w in weights], ALWAYS)
    history.append(0, 1, {name: np.ones(len(weights)) for name in ALWAYS})
    return Evidence(history)


@pytest.mark.parametrize(
    ("name", "path", "shape", "inputs"),
    [
        ("kernel", "d/kernel", (7, 5), 7),
        ("kernel", "c/kernel", (3, 2, 7, 5), 42),
        ("kernel", "x/depthwise_kernel", (3, 2, 7, 1), 6),
        ("kernel", "a/query/kernel", (7, 2, 5), 7),
        ("kernel", "a/attention_output/kernel", (2, 5, 7), 10),
        ("w", "w", (3, 2, 5), 6),
    ],
)
def test_fan_in_counts_what_a_unit_adds_up(name, path, shape, inputs):
    assert kernels(("l", name, path, shape)).fan_in[0] == inputs


def test_biases_embeddings_and_empty_weights_are_no_kernels():
    found = kernels(
        ("e", "embeddings", "e/embeddings", (9, 4)),
        ("r", "bias", "r/bias", (2, 12)),
        ("z", "kernel", "z/kernel", (0, 4)),
        ("s", "scale", "s/scale", ()),
        ("d", "kernel", "d/kernel", (4, 4)),
    )
    assert found.layers == ("d",)


@pytest.mark.parametrize(("gradient", "judged"), [(0.0, ["kernel"]), (1.0, ["kernel"] * 2)])
def test_the_recurrent_kernel_of_series_of_one_step_is_no_kernel(gradient, judged):
    weights = [
        Weight("r", "kernel", "r/kernel", (4, 4)),
        Weight("r", "recurrent_kernel", "r/recurrent_kernel", (4, 4)),
    ]
    history = GradientHistory(weights, ALWAYS)
    history.append(0, 1, {name: np.array([1.0, gradient]) for name in ALWAYS})
    found = [weights[k].name.removeprefix("recurrent_") for k in Evidence(history).kernels]
    assert found == judged


def test_the_fall_of_the_loss_is_from_the_larger_of_the_first_two_to_the_least_of_the_last_three():
    def fall(*loss):
        return Evidence(history_of(1.0, loss)).fall

    np.testing.assert_allclose(fall(1.0, 2.0, 1.5, 0.5, 0.8, 0.9), 0.75)
    assert np.isnan(fall(-1.0, -1.0, -2.0, -3.0))  # of which the smallest possible is unknown
    assert np.isnan(fall(1.0, 0.5))


def test_the_level_is_corrected_for_a_small_last_kernel():
    """A last kernel of σ_w = 1/300 passes a 300th of the error back to all other kernels."""
    weight = np.array([1, 1, 1, 1, 1 / 300]) * ROOT
    level = np.array([1, 1, 1, 1, 300]) / 300
    history = history_of(level, FLAT, weight=weight)
    np.testing.assert_allclose(Evidence(history).level, 1)
    np.testing.assert_allclose(Evidence(history_of(level, FLAT)).level[:, 0], 1 / 300)
