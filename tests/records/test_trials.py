"""Trials: ranking and verdicts, on histories written by hand."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from kgrad.records.history import GradientHistory, Weight
from kgrad.records.trials import Trials


def made_history(loss, norms, weight=1.0, added=(), skill=None):
    """Return two records of a kernel per layer, of added layers, and of one without a kernel."""
    names = [*(f"layer_{i}" for i in range(len(norms))), *added]
    weights = [Weight(n, "kernel", f"{n}/kernel", (2, 2)) for n in names]
    weights += [Weight("norm", "gamma", "norm/gamma", (2,))]
    norms = [*norms, *[123.0] * len(added), 1e9]
    history = GradientHistory(weights, ["mean_abs", "l2_norm", "weight_l2"])
    values = {"mean_abs": norms, "l2_norm": norms, "weight_l2": [weight] * len(weights)}
    history.append(0, 0, values, {"loss": 4.0})
    history.append(1, 9, values, {"loss": loss} | ({} if skill is None else {"skill": skill}))
    return history


def test_skills_rank_where_they_are_known_whatever_the_loss():
    """A gain of 0.05 is an improvement, one of 0.3 a large one."""

    def run(skill, loss=1.0, weight=1.0):
        return made_history(loss, [1.0, 1.0], weight, skill=skill)

    changed = {
        "other loss": run(0.9, loss=50.0),
        "a little": run(0.2),
        "same": run(0.13),
        "worse": run(-3.0, loss=0.001),
        "broken": run(0.95, weight=np.nan),
    }
    changes = [(name, "", history) for name, history in changed.items()]
    trials = Trials.ranked(run(0.1), changes, metric="R²")
    assert {trial.name: trial.note for trial in trials} == {
        "unchanged": "baseline",
        "other loss": "large improvement: skill 0.90 instead of 0.10",
        "a little": "improvement: skill 0.20 instead of 0.10",
        "same": "little change in this time",
        "worse": "worse: skill -3.00 instead of 0.10",
        "broken": "worse: training breaks down",
    }
    assert [trial.name for trial in trials] == [
        "unchanged", "other loss", "a little", "same", "worse", "broken",
    ]  # fmt: skip
    assert trials.best.name == "other loss" and trials.best.skill == 0.9
    assert trials.to_frame()["skill"].tolist() == [0.1, 0.9, 0.2, 0.13, -3.0, 0.95]
    lines = " ".join(str(trials).split())
    assert "skill: 1 means perfect answers, 0 means no better than always giving" in lines
    assert "below 0 means worse than that. Computed from R²." in lines
    from_nothing = Trials.ranked(
        run(0.0, weight=np.nan), [("flat", "", run(0.01)), ("good", "", run(0.4))], metric="R²"
    )
    assert [trial.note for trial in from_nothing[1:]] == [
        "large improvement: training no longer breaks down",
        "training no longer breaks down, but is no better than a constant answer",
    ]


@pytest.mark.parametrize(
    ("before", "after", "note"),
    [
        (0.0, -0.48, "worse: skill -0.48 instead of 0.00"),
        (-0.37, 0.9, "large improvement: skill 0.90 instead of -0.37"),
        (-0.5, 0.2, "improvement: skill 0.20 instead of -0.50"),
        (-0.37, 0.04, "no better than a constant answer: skill 0.04 instead of -0.37"),
        (-3000.0, -2000.0, "no better than a constant answer: skill -2000.00 instead of -3000.00"),
        (-99.0, -103.0, "little change in this time"),  # 104 / 100 of the squared error
        (-99.0, -105.0, "worse: skill -105.00 instead of -99.00"),
        (0.06, -0.004, "worse: skill 0.00 instead of 0.06"),
    ],
)
def test_the_skill_that_is_judged_is_the_one_that_is_printed(before, after, note):
    runs = [made_history(1.0, [1.0], skill=skill) for skill in (before, after)]
    trials = Trials.ranked(runs[0], [("other", "", runs[1])], metric="R²")
    assert trials[1].note == note
    table = str(trials)
    for skill in (before, after):
        assert f" {skill:.2f} ".replace("-0.00", "0.00") in table


@pytest.mark.parametrize(
    ("loss", "note"),
    [
        (3.8, "improvement: skill 0.60 instead of 0.00, but its loss has hardly changed"),
        (4.2, "improvement: skill 0.60 instead of 0.00, but its loss has hardly changed"),
        (3.5, "large improvement: skill 0.60 instead of 0.00"),
    ],
)
def test_a_gain_is_not_large_while_the_loss_hardly_changes(loss, note):
    """The loss of the first step is 4."""
    unchanged = made_history(4.0, [1.0], skill=0.0)
    trials = Trials.ranked(
        unchanged, [("other", "", made_history(loss, [1.0], skill=0.6))], [], "R²"
    )
    assert trials[1].note == note
    assert trials.best is trials[1]


def test_a_run_that_no_longer_breaks_down_is_judged_by_its_skill():
    broken = made_history(np.nan, [1.0], skill=0.0)
    changed = [(f"{skill}", "", made_history(1.0, [1.0], skill=skill)) for skill in (0.31, 0.29)]
    trials = Trials.ranked(broken, changed, metric="R²")
    assert [trial.note for trial in trials[1:]] == [
        "large improvement: training no longer breaks down",
        "improvement: training no longer breaks down",
    ]


def test_it_is_said_when_nothing_helps():
    trials = ranked(made_history(1.0, [1.0]), a=made_history(1.0, [1.0]))
    assert trials.best is None and "Nothing that was tried helps." in str(trials)
    assert "Nothing that was tried" not in str(ranked(made_history(1.0, [1.0])))


def test_many_reasons_are_only_named():
    reasons = [(f"change {i}, and more", "of a reason") for i in range(5)]
    trials = Trials.ranked(made_history(1.0, [1.0]), [], reasons)
    lines = " ".join(str(trials).split())
    assert "not tried: change 0, and more; change 1, and more; change 2" in lines
    assert lines.endswith("and more. trials.not_possible lists the reasons.")
    assert "of a reason" not in str(trials)


def ranked(before, **changed):
    return Trials.ranked(before, [(name, "", history) for name, history in changed.items()])


def test_losses_rank_in_two_digits_then_the_evenness_of_the_gradients_and_broken_runs_last():
    trials = ranked(
        made_history(1.0, [1.0, 1.0]),
        nan=made_history(np.nan, [1.0, 1.0]),
        broken=made_history(0.01, [1.0, 1.0], weight=np.nan),
        endless=made_history(np.inf, [1.0, 1.0]),
        worse=made_history(3.0, [1.0, 1.0]),
        uneven=made_history(0.501, [1e-4, 1.0]),
        even=made_history(0.504, [0.1, 1.0]),
        silent=made_history(0.502, [0.0, 1.0]),
        best=made_history(0.4, [1e-9, 1.0]),
    )
    names = [trial.name for trial in trials]
    assert names == [
        "unchanged", "best", "even", "uneven", "silent", "worse", "broken", "endless", "nan",
    ]  # fmt: skip
    assert [trials.decades(t) for t in trials[2:5]] == pytest.approx([1, 4, np.inf])


def test_verdicts_by_hand():
    trials = ranked(
        made_history(1.0, [1.0, 4.0]),
        a=made_history(0.3, [1.0, 1.0]),
        b=made_history(0.004, [1.0, 1.0]),
        c=made_history(0.7, [1.0, 1.0]),
        d=made_history(0.95, [1.0, 1.0]),
        e=made_history(2.5, [1.0, 1.0]),
        f=made_history(np.nan, [1.0, 1.0]),
    )
    assert {trial.name: trial.note for trial in trials} == {
        "unchanged": "baseline",
        "a": "large improvement: loss is 30 % of the baseline's",
        "b": "large improvement: loss is less than 1 % of the baseline's",
        "c": "improvement: loss is 70 % of the baseline's",
        "d": "little change in this time",
        "e": "worse: loss is 2.5 times the baseline's",
        "f": "worse: training breaks down",
    }
    broken = made_history(0.7, [1.0, 1.0], weight=np.nan)
    ill = ranked(broken, healed=made_history(0.9, [1.0, 1.0]), same=broken)
    assert [trial.note for trial in ill] == [
        "baseline; training breaks down",
        "large improvement: training no longer breaks down",
        "training breaks down, as in the baseline",
    ]
    negative = ranked(made_history(-1.0, [1.0]), a=made_history(-2.0, [1.0]))
    assert negative[1].note == "improvement"


def test_layers_without_kernels_and_those_that_a_change_adds_do_not_count():
    trials = ranked(
        made_history(1.0, [1.0, 10.0]), skip=made_history(1.0, [2.0, 10.0], added=["projection_1"])
    )
    assert trials.layers == ("layer_0", "layer_1")
    assert_array_equal(trials.by_layer(trials[1], "l2_norm"), [[2, 10], [2, 10]])
    assert trials.first_to_last(trials[1]) == pytest.approx(0.2)
    assert trials.decades(trials[1]) == pytest.approx(np.log10(5))


def test_layers_of_a_model_that_names_them_anew_are_compared_in_their_order():
    trials = ranked(made_history(1.0, [1.0, 10.0]))
    weights = [Weight(f"other_{i}", "kernel", f"{i}", (2, 2)) for i in range(2)]
    history = GradientHistory(weights, ["l2_norm", "mean_abs"])
    history.append(0, 0, {"l2_norm": [3.0, 30.0], "mean_abs": [3.0, 30.0]}, {"loss": 1.0})
    trials = Trials.ranked(trials[0].history, [("same", "", history)])
    assert_array_equal(trials.by_layer(trials[1], "l2_norm"), [[3, 30]])


def test_trials_as_table_frame_and_dict():
    history = made_history(0.25, [1.0, 10.0])
    trials = Trials.ranked(
        made_history(1.0, [1.0, 1.0]), [("better", "more of it", history)], [("this", "of that")]
    )
    frame = trials.to_frame()
    assert list(frame.columns) == [
        "name", "change", "skill", "loss_first", "loss", "gradient_first_to_last",
        "gradient_decades", "note",
    ]  # fmt: skip
    assert frame.loc[1, "loss_first"] == 4.0 and frame.loc[1, "loss"] == 0.25
    assert frame.loc[1, "gradient_first_to_last"] == pytest.approx(0.1)
    assert trials.to_dict()["not_possible"] == [["this", "of that"]]
    text = str(trials)
    for part in (
        "better",
        "more of it",
        "4 → 0.25",
        "loss is 25 % of the",
        "not tried: this: of that",
    ):
        assert part in text
    assert repr(trials) == "Trials([unchanged: loss 1, better: loss 0.25])"
    assert len(trials) == 2 and trials[1].history is history


def test_layers_without_a_gradient_are_left_out():
    weights = [Weight(f"layer_{i}", "kernel", f"{i}", (2, 2)) for i in range(4)]
    names = ["mean_abs", "l2_norm", "weight_l2", "updates", "gradients_present"]

    def made(norms, present):
        history = GradientHistory(weights, names)
        rows = [norms, norms, [1.0] * 4, [4] * 4, present]
        history.append(0, 0, dict(zip(names, rows, strict=True)), {"loss": 1.0})
        return history

    nan = np.nan
    trials = ranked(
        made([nan, 1e-3, 1e-1, nan], [0, 4, 4, 0]),
        measured=made([nan, 1e-3, 1e-1, nan], [4, 4, 4, 0]),
        nothing=made([nan] * 4, [0] * 4),
    )
    found = {trial.name: (trials.decades(trial), trials.first_to_last(trial)) for trial in trials}
    assert found["unchanged"] == pytest.approx((2, 1e-2))
    assert np.isnan(found["measured"]).all() and np.isnan(found["nothing"]).all()
    none = "no path to the loss"
    assert trials.missing(trials[0]).tolist() == [[none, "", "", none]]
