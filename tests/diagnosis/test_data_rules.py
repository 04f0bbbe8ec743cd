"""The rules about inputs, targets and the model, on histories and data made by hand."""

from itertools import pairwise

import numpy as np
import pytest
from diagnosis.test_diagnosing import FALLING, FLAT, ROOT, history_of

from kgrad.diagnosis import ModelFacts, diagnose
from kgrad.diagnosis.evidence import Data, Dropout, Evidence, Head
from kgrad.records.history import GradientHistory

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(200, 3))
REGRESSION = Head("last", "linear", 1, "mean_squared_error")
BINARY = Head("last", "sigmoid", 1, "binary_crossentropy")
CLASSES = Head("last", "softmax", 3, "categorical_crossentropy")
ONE_HOT = np.eye(3)[RANDOM.integers(3, size=200)]
LABELS = ONE_HOT.argmax(1)


def first(facts, data=None, loss=FLAT, update=ROOT, **options):
    """The first finding's rule, its layers, and the first measurement's value and sentence."""
    facts = ModelFacts((facts,)) if isinstance(facts, Head) else facts
    found = diagnose(history_of(1.0, loss, update=update, **options), facts, data)
    if not found:
        return None
    evidence = found[0].evidence[0]
    return found[0].rule, found[0].layers, evidence.value, str(evidence)


# Inputs.


def test_a_large_column_is_named_with_its_size_and_range():
    x = np.column_stack([X[:, 0], np.where(np.arange(200) % 2, 300.0, -400.0)])
    size = np.sqrt((300**2 + 400**2) / 2)
    found = first(REGRESSION, Data(inputs=(x,)))
    assert found[:2] == ("inputs_out_of_scale", ("hidden_1",))
    assert found[2] == pytest.approx(size)
    assert found[3] == (
        "Column 1 (from 0) has a root mean square of 354 (threshold 10); it goes from -400 to 300."
    )


def test_small_inputs_are_found_and_neither_is_where_the_loss_falls_or_the_model_scales():
    assert first(REGRESSION, Data(inputs=(X / 1000,)))[0] == "inputs_out_of_scale"
    for x in (X, np.zeros((200, 3)), np.full((200, 3), np.nan), 1000 * np.full((200, 3), np.nan)):
        assert first(REGRESSION, Data(inputs=(x,))) is None
    assert first(REGRESSION, Data(inputs=(1000 * X,)), FALLING) is None
    graph = chain(("in", "InputLayer"), ("n", "Normalization"), ("hidden_1", "Dense"))
    assert first(REGRESSION, Data(inputs=(1000 * X,)), metadata={"graph": graph}) is None


def chain(*nodes):
    """A graph of layers one behind the other, as (name, class)."""
    return {
        "nodes": [{"id": name, "kind": kind} for name, kind in nodes],
        "edges": [[a[0], b[0]] for a, b in pairwise(nodes)],
        "assumed": False,
    }


@pytest.mark.parametrize("normalized", [False, True])
def test_without_data_the_size_is_read_off_the_gradients(normalized):
    """Of inputs of 1e7, too; a bias before a normalization has only rounding errors."""
    dense = [(f"hidden_{k}", "Dense") for k in range(1, 5)] + [("output", "Dense")]
    if normalized:
        dense.insert(1, ("norm", "BatchNormalization"))
    history = history_of(1.0, FLAT, metadata={"graph": chain(*dense)})
    for r in range(6):
        history.record(r)["values"]["l2_norm"][1] = 1e-7  # the bias has a 1e7th of the kernel's
    found = diagnose(history)
    if normalized:
        assert found.rules == ()
    else:
        assert found.rules == ("inputs_out_of_scale", "saturated")
        assert found[0].layers == ("hidden_1",)
        np.testing.assert_allclose(found[0].evidence[0].value, 1e7)


@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        ([[0.5, 1], [2, 3]], "25 % of the inputs are not integers, such as 0.5."),
        ([[0, 10], [2, 3]], "25 % of the inputs are outside 0 to 9, such as 10."),
        ([[0, 9], [2, 3]], None),
    ],
)
def test_an_embedding_takes_integers_for_which_it_has_rows(x, sentence):
    facts = ModelFacts((REGRESSION,), embeddings=(10,))
    found = first(facts, Data(inputs=(np.array(x, float),)))
    assert (found and found[3]) == sentence
    assert found is None or found[0] == "wrong_embedding_inputs"
    # Each input is compared with its own embedding; one that other layers take is not.
    two = facts._replace(embeddings=(0, 10))
    assert first(two, Data(inputs=(np.array([[0.5, 1], [2, 3]]), np.array(x, float)))) == found


# Targets.


@pytest.mark.parametrize(
    ("y", "value"),
    [(3e5 + X[:, :1], 3e5), (1e-4 * X[:, :1], 1e-4 * X[:, 0].std()), (X[:, :1], None)],
)
def test_targets_far_from_1_are_found_with_their_size(y, value):
    found = first(REGRESSION, Data(targets=(y,)))
    if value is None:
        assert found is None
    else:
        assert found[:2] == ("targets_out_of_scale", ("last",))
        assert found[2] == pytest.approx(value, rel=1e-6)
    assert first(REGRESSION, Data(targets=(y,)), FALLING) is None


def test_one_answer_for_imbalanced_classes_is_found_with_the_recall():
    y = (np.arange(200) < 10).astype(float)
    predict = {"predict": lambda: (np.full((200, 1), 0.05),)}
    data = Data((X,), (y,), constant_loss=0.1985, **predict)
    found = first(BINARY, data, loss=(0.7, 0.3, 0.2, 0.199, 0.199, 0.199))
    assert found[0] == "imbalanced_classes" and found[2] == 0.95
    assert "of class 1 the model finds 0 %" in found[3]
    knows = data._replace(predict=lambda: (y[:, None] * 0.9,))
    assert first(BINARY, knows, loss=FLAT) != found
    balanced = data._replace(targets=((np.arange(200) < 100).astype(float),))
    assert (
        first(BINARY, balanced, loss=(0.7, 0.3, 0.2, 0.199, 0.199, 0.199))[0] == "unrelated_targets"
    )


def test_shuffled_targets_are_found_and_related_ones_are_not():
    y = X.sum(axis=1, keepdims=True)
    data = Data((X,), (y,), constant_loss=float(y.var()), perfect_loss=0.0)
    loss = [y.var() * share for share in (1.1, 1.0, 1.0, 1.0, 0.99, 0.99)]
    assert first(REGRESSION, data, loss)[0] == "not_improving"
    shuffled = data._replace(targets=(RANDOM.permutation(y),))
    found = first(REGRESSION, shuffled, loss)
    assert found[0] == "unrelated_targets" and found[2] < 0.1
    constant = data._replace(targets=(np.full((200, 1), 7.0),), constant_loss=0.0)
    assert first(REGRESSION, constant)[3] == (
        "All 200 targets that were looked at are the same, such as 7."
    )


def test_what_to_do_depends_on_the_data():
    """Pixels of 0 to 255, tables of large numbers, and pixels that were divided twice."""
    pixels = np.arange(200.0 * 16).reshape(200, 4, 4, 1) % 256
    for x, words in (
        (pixels, "Divide the pixels by 255"),
        (1000 * X, "Standardize the inputs"),
        (pixels / 255**2, "Look for a division that is made twice"),
    ):
        found = diagnose(history_of(1.0, FLAT), ModelFacts((REGRESSION,)), Data(inputs=(x,)))
        assert found[0].rule == "inputs_out_of_scale"
        assert found[0].remedies[0].startswith(words)
    assert "2 more columns are above" in str(first(REGRESSION, Data(inputs=(1000 * X,)))[3])


def test_a_run_that_has_hardly_begun_is_to_be_continued():
    """The weights moved by 5 % in all, in 50 updates or in 5."""
    data = Data(targets=(X[:, :1],), constant_loss=0.7, perfect_loss=0.0)
    long = history_of(1.0, FLAT, update=0.01 * ROOT)
    short = GradientHistory(long.weights, long.statistics)
    for i in range(len(long)):
        record = long.record(i)
        short.append(record["epoch"], i, record["values"], record["logs"])
    usual = ModelFacts((REGRESSION,), learning_rate=0.01, usual_rate=0.01)
    slow = usual._replace(learning_rate=1e-5)
    for history, facts, words in (
        (long, usual, "Increase the learning rate from 0.01 to 0.1."),
        (short, usual, "Train for more epochs, or with smaller batches."),
        (short, slow, "Increase the learning rate from 1e-5 to 0.01."),
    ):
        (finding,) = diagnose(history, facts, data)
        assert finding.rule == "not_moving" and finding.remedies[0] == words


def test_nan_in_the_data_is_named_before_the_learning_rate():
    history = history_of(1.0, (0.7, 0.7, np.nan, np.nan))
    clean = diagnose(history, ModelFacts((REGRESSION,)), Data(inputs=(X,)))
    assert clean[0].remedies[0].startswith("Reduce the learning rate")
    bad = X.copy()
    bad[5, 1] = np.nan
    (finding,) = diagnose(history, ModelFacts((REGRESSION,)), Data(inputs=(bad,)))
    assert finding.rule == "nonfinite" and finding.tries == ("samples",)
    assert finding.explanation.startswith("The data have a NaN")


@pytest.mark.parametrize(
    ("activation", "given", "words", "remedy"),
    [
        ("exponential", {}, "Activations such as exponential overflow", "Use relu"),
        ("relu", {"inputs": (X,), "targets": (X,)}, "the data that were looked at are finite, the "
         "largest number is", "Check the loss"),
        ("relu", {"inputs": (X,)}, "it comes from the targets, the loss", "Check the data"),
        ("relu", {"targets": (X,)}, "it comes from the inputs, the loss", "Check the data"),
        ("relu", {}, "it comes from the data, the loss", "Check the data"),
    ],
)  # fmt: skip
def test_where_a_nan_of_the_very_first_gradient_comes_from(activation, given, words, remedy):
    history = history_of(1.0, (np.nan, np.nan))
    values = history.record(0)["values"]
    values["nonfinite_steps"][0] = values["first_nonfinite_step"][0] = 1
    facts = ModelFacts((REGRESSION,), activations=(("a", activation),))
    found = diagnose(history, facts, Data(**given))
    assert found[-1].rule == "nonfinite" and words in found[-1].explanation
    assert found[-1].remedies[0].startswith(remedy)


def test_a_rate_far_below_the_usual_one_comes_before_the_targets():
    """The weights moved by 5 % in all; the targets are 100 times too large."""
    history = history_of(1.0, FLAT, update=0.01 * ROOT)
    data = Data(targets=(100 * X[:, :1],), constant_loss=0.7, perfect_loss=0.0)
    for rate, rules in (
        (1e-5, ("not_moving", "targets_out_of_scale")),
        (1e-3, ("targets_out_of_scale", "not_moving")),
    ):
        facts = ModelFacts((REGRESSION,), learning_rate=rate, usual_rate=1e-3)
        found = diagnose(history, facts, data)
        assert found.rules == rules
        assert [one.rule for one in found.also_wrong] == ["targets_out_of_scale"] * (rate == 1e-5)
    slow = diagnose(history, ModelFacts(learning_rate=1e-5, usual_rate=1e-3), data)
    assert slow[0].remedies[0] == "Increase the learning rate from 1e-5 to 0.001."


# The loss against the targets.


@pytest.mark.parametrize(
    ("facts", "y", "words"),
    [
        (CLASSES._replace(loss="sparse_categorical_crossentropy"), LABELS / 255, "not integers"),
        (CLASSES, np.maximum(ONE_HOT, ONE_HOT[::-1]), "no label or several"),
        (REGRESSION._replace(loss="poisson"), X[:, 0], "outside 0 to inf"),
        (REGRESSION._replace(units=1), X, "3 columns, the output has 1 unit"),
        (REGRESSION._replace(activation="relu"), X[:, :1], "outside 0 to inf"),
        (BINARY, LABELS, "outside 0 to 1"),
    ],
)
def test_a_hard_mismatch_is_found_even_if_the_loss_falls(facts, y, words):
    found = first(facts, Data(targets=(y,)), FALLING)
    assert found[:2] == ("output_loss_mismatch", ("last",)) and words in found[3], found


@pytest.mark.parametrize(
    ("facts", "data"),
    [
        (CLASSES._replace(loss="mean_squared_error"), Data(targets=(ONE_HOT,))),
        (CLASSES._replace(activation="sigmoid"), Data(targets=(ONE_HOT,))),
        (CLASSES._replace(loss="binary_crossentropy"), Data(targets=(ONE_HOT,))),
        (CLASSES._replace(from_logits=True, from_activation=True), Data(targets=(ONE_HOT,))),
        (REGRESSION, Data(targets=(X[:, :1],), summed=True)),
        (
            REGRESSION._replace(loss="mean_absolute_percentage_error"),
            Data(targets=(np.maximum(X[:, :1], 0),)),
        ),
    ],
)
def test_a_soft_mismatch_is_a_note_if_the_loss_falls(facts, data):
    data = data._replace(constant_loss=0.7, perfect_loss=0.0)
    assert first(facts, data)[0] == "output_loss_mismatch"
    found = diagnose(history_of(1.0, FALLING), ModelFacts((facts,)), data)
    assert found.rules == ()
    assert [(note.rule, note.severity) for note in found.notes] == [
        ("output_loss_mismatch", "note")
    ]
    assert "Note: last: " in str(found)


def test_what_fits_is_no_finding():
    for facts, y in (
        (CLASSES, ONE_HOT),
        (CLASSES._replace(loss="sparse_categorical_crossentropy"), LABELS[:, None]),
        (BINARY, LABELS == 0),
        (BINARY._replace(units=3), np.maximum(ONE_HOT, ONE_HOT[::-1])),
        (REGRESSION, X[:, 0]),
        (REGRESSION._replace(loss="poisson"), np.abs(X[:, 0])),
    ):
        data = Data(targets=(np.asarray(y),))
        found = diagnose(history_of(1.0, FLAT, update=ROOT), ModelFacts((facts,)), data)
        assert "output_loss_mismatch" not in found.rules and found.notes == (), (facts, found)


# Layers.


def test_hidden_layers_without_an_activation_are_named():
    facts = ModelFacts((REGRESSION,), activations=(("a", "linear"), ("b", "relu"), ("c", "linear")))
    assert first(facts)[:3] == ("no_nonlinearity", ("a", "c"), 2 / 3)
    assert first(facts, loss=FALLING) is None
    half = ModelFacts((REGRESSION,), activations=(("a", "linear"), ("b", "relu")))
    assert first(half) is None


def test_too_much_dropout_and_dropout_of_the_outputs_are_named():
    facts = ModelFacts(
        (REGRESSION,), dropouts=(Dropout("a", 0.5), Dropout("b", 0.7), Dropout("c", 0.8))
    )
    assert first(facts)[:3] == ("too_much_dropout", ("b", "c"), 0.8)
    assert first(facts, loss=FALLING) is None
    last = ModelFacts((REGRESSION,), dropouts=(Dropout("a", 0.5), Dropout("b", 0.1, True)))
    assert first(last)[:3] == ("too_much_dropout", ("b",), 0.1)


def test_penalties_that_are_most_of_the_loss_are_found():
    facts = ModelFacts((BINARY,), penalties=(("hidden_2/kernel", 2 / ROOT**2),))  # 2 at each record
    loss = [2 + share * np.log(2) for share in (1.2, 1, 1, 0.99, 0.99, 0.99)]
    data = Data(targets=(np.arange(200) % 2.0,), constant_loss=np.log(2), perfect_loss=0.0)
    found = first(facts, data, loss)
    assert found[0] == "too_strong_penalty" and found[2] == pytest.approx(2 / loss[-1])
    e = Evidence(history_of(1.0, loss), facts, data)
    assert e.skill == pytest.approx(0.01)
    small = facts._replace(penalties=(("hidden_2/kernel", 0.1 / ROOT**2),))
    assert first(small, data, [one - 1.9 for one in loss])[0] == "not_improving"


def test_a_negative_learning_rate_is_found():
    found = first(ModelFacts((REGRESSION,), learning_rate=-0.001))
    assert found[0] == "moving_too_far" and found[3] == "The learning rate is -0.001."


def test_a_run_that_ends_as_it_began_is_found():
    """Five records of 0.02 each: a tenth of the weights, and the loss of a constant."""
    data = Data(targets=(X[:, :1],), constant_loss=0.7, perfect_loss=0.0)
    found = first(REGRESSION, data, update=0.02 * ROOT)
    assert found[0] == "not_moving" and found[2] == pytest.approx(0.1)
    assert first(REGRESSION, data, update=0.1 * ROOT)[0] == "not_improving"
    assert first(REGRESSION, data, FALLING, update=0.02 * ROOT) is None


# What the loss is compared with.


@pytest.mark.parametrize("added", [0.0, -100.0, 100.0])
def test_a_constant_added_to_the_loss_changes_nothing(added):
    """With the data, and without them for a loss of unknown name."""
    data = Data(targets=(X[:, :1],), constant_loss=0.7 + added, perfect_loss=added)
    for loss in (FALLING, FLAT):
        history = history_of(np.array([1e-6, 1e-6, 1, 1, 1]), np.array(loss) + added)
        e = Evidence(history, ModelFacts((REGRESSION._replace(loss="my_loss"),)), data)
        assert e.fall == pytest.approx(1 - loss[-1] / 0.7)
        rules = diagnose(history, ModelFacts((REGRESSION._replace(loss="my_loss"),)), data).rules
        assert rules == (() if loss is FALLING else ("vanishing",))
        rules = diagnose(history, ModelFacts((REGRESSION._replace(loss="my_loss"),))).rules
        assert rules == (() if loss is FALLING else ("vanishing",))


def test_a_sum_over_the_batch_is_compared_with_that_of_a_constant_over_a_batch():
    """Ten steps an epoch of 200 rows are batches of 20; 100 rows were sampled."""
    data = Data(targets=(X[:100, :1],), samples=200, constant_loss=50.0, perfect_loss=0.0)
    e = Evidence(history_of(1.0, (20.0, 10.0, 5.0, 5.0, 5.0, 5.0)), ModelFacts((REGRESSION,)), data)
    assert e.constant_loss == 50
    e = Evidence(e.history, ModelFacts((REGRESSION,)), data._replace(summed=True))
    assert e.constant_loss == 10 and e.skill == 0.5


def test_skill_is_the_coefficient_of_determination():
    y = X[:, :1]
    data = Data(targets=(y,), constant_loss=float(y.var()), perfect_loss=0.0)
    e = Evidence(history_of(1.0, (2.0, 1.0, 0.6, 0.4, 0.3, 0.3)), ModelFacts((REGRESSION,)), data)
    assert e.skill == pytest.approx(1 - 0.3 / y.var())


@pytest.mark.parametrize(("last", "fails"), [(0.97, True), (0.9, False)])
def test_a_loss_above_95_percent_of_a_constants_is_no_better(last, fails):
    data = Data(targets=(X[:, :1],), constant_loss=1.0, perfect_loss=0.0)
    loss = (1.2, 1.0, last, last, last, last)
    found = first(REGRESSION, data, loss)
    assert (found is not None and found[0] == "not_improving") == fails


def test_a_loss_that_is_still_falling_fast_is_given_time():
    data = Data(targets=(X[:, :1],), constant_loss=1.0, perfect_loss=0.0)
    assert first(REGRESSION, data, (1.2, 1.05, 0.98)) is None
    assert first(REGRESSION, data, (1.2, 0.9805, 0.98))[0] == "not_improving"


def test_each_head_is_compared_with_its_own_targets():
    """The mismatch that harms comes before one that the second head can live with."""
    facts = ModelFacts((REGRESSION._replace(layer="a"), BINARY._replace(layer="b")))
    fits = Data(targets=(X[:, :1], LABELS == 0))
    assert "output_loss_mismatch" not in diagnose(history_of(1.0, FLAT), facts, fits).rules
    found = first(facts, Data(targets=(X[:, :1], LABELS)), FALLING)
    assert found[:2] == ("output_loss_mismatch", ("b",))
    found = first(facts, Data(targets=(1000 * X[:, :1], LABELS == 0)))
    assert found[:2] == ("targets_out_of_scale", ("a",))
    soft = ModelFacts((REGRESSION._replace(loss="mean_absolute_percentage_error"), BINARY))
    data = Data(targets=(np.maximum(X[:, :1], 0), LABELS))
    assert first(soft, data, FALLING)[3].startswith("last: 38 % of the targets are outside 0 to 1")


# Notes.


def notes(history, facts=None, data=None):
    facts = ModelFacts((facts,)) if isinstance(facts, Head) else facts
    found = diagnose(history, facts, data)
    assert found.rules == ()
    return {note.rule: str(note.evidence[0]) for note in found.notes}


def test_constant_and_copied_columns_are_noted():
    facts = ModelFacts((REGRESSION,))

    def noted(x):
        return notes(history_of(1.0, FALLING), facts, Data(inputs=(x,))).get("idle_columns")

    assert noted(X) is None
    constant = np.column_stack([X, np.full(len(X), 7.0), np.zeros(len(X))])
    assert noted(constant) == "Column 3 (from 0) is always 7, and 1 more are constant."
    assert noted(np.column_stack([X, X[:, 1]])) == "Column 3 (from 0) is the same as column 1."


def with_validation(loss, validation):
    before = history_of(1.0, loss)
    history = GradientHistory(before.weights, before.statistics)
    for i, value in enumerate(validation):
        record = before.record(i)
        logs = record["logs"] | {"val_loss": value}
        history.append(record["epoch"], record["step"], record["values"], logs)
    return history


def test_a_validation_loss_that_rises_while_the_loss_falls_is_noted():
    falling = [1.0, 0.8, 0.5, 0.3, 0.1, 0.05]
    overfit = notes(with_validation(falling, [np.nan, 0.8, 0.6, 0.7, 0.8, 0.9]))
    assert overfit == {
        "validation_differs": "Epoch 5: the validation loss is 1.5 times its smallest value "
        "(threshold 1.2), at epoch 2."
    }
    assert notes(with_validation(falling, [np.nan, 0.8, 0.6, 0.4, 0.3, 0.33])) == {}
    # A loss that rises with the training loss is not overfitting.
    assert (
        notes(with_validation([1.0, 0.5, 0.1, 0.2, 0.3, 0.3], [1, 0.6, 0.2, 0.3, 0.4, 0.4])) == {}
    )


def test_a_validation_set_of_another_scale_is_noted():
    falling = [1.0, 0.8, 0.5, 0.3, 0.1, 0.05]
    far = notes(with_validation(falling, [np.nan, 9.0, 8.0, 8.0, 8.5, 9.0]))
    assert far == {
        "validation_differs": "Epoch 2: even the smallest validation loss is 8 times the training "
        "loss at its start (threshold 3)."
    }


def test_a_validation_loss_far_below_the_training_loss_is_noted():
    falling, graph = [1.0, 0.8, 0.6, 0.5, 0.45, 0.4], chain(("in", "InputLayer"), ("d", "Dense"))
    low = [np.nan, 0.5, 0.2, 0.18, 0.16, 0.1]

    def noted(validation, graph=graph, facts=REGRESSION, loss=falling):
        before = with_validation(loss, validation)
        history = GradientHistory(before.weights, before.statistics, {"graph": graph})
        for r in range(len(before)):
            record = before.record(r)
            record.pop("distributions")
            history.append(**record)
        return notes(history, facts).get("validation_differs")

    # 0.18 / 0.45 and 0.16 / 0.4, of the second half; 0.2 / 0.5 in the middle.
    assert noted(low) == (
        "Epoch 4: over the second half of the run, the validation loss is 40 % of the training "
        "loss of the next epoch (median, threshold 50 %)."
    )
    assert noted([np.nan, 0.7, 0.55, 0.47, 0.42, 0.38]) is None
    dropout = chain(("in", "InputLayer"), ("drop", "SpatialDropout1D"), ("d", "Dense"))
    assert noted(low, graph=dropout) is None
    penalized = ModelFacts((REGRESSION,), regularized=True)
    assert noted(low, facts=penalized) is None
    # Of two losses near 0 a ratio says nothing.
    assert noted([*low[:3], 1e-4, 1e-4, 1e-4], loss=[1.0, 0.5, 0.1, 1e-3, 1e-3, 1e-3]) is None


def test_a_column_that_is_the_target_is_noted():
    y = X[:, 0] ** 2 + RANDOM.normal(size=200)

    def noted(x, y, facts=REGRESSION):
        found = notes(history_of(1.0, FALLING), facts, Data((x,), (y,)))
        return found.get("leakage")

    leaky = np.column_stack([X, 7 - 2 * y])
    assert noted(leaky, y) == (
        "Column 3 (from 0) of X alone explains 100 % of the variance of y (threshold 99.9 %)."
    )
    assert noted(X, y) is None
    assert noted(np.column_stack([X, y + 0.1 * RANDOM.normal(size=200)]), y) is None
    assert noted(2 * y[:, None], y) is None  # of a single column, learning it is the task
    two = np.column_stack([X[:, 1] ** 2, y])
    assert "of y column 1" in noted(leaky, two, REGRESSION._replace(units=2))
    label = (y > 1).astype(float)
    assert noted(np.column_stack([X, label]), label[:, None], BINARY) is not None


def test_copies_of_samples_are_noted():
    y = X[:, 0] ** 2

    def noted(rows, y=y, x=X):
        return notes(history_of(1.0, FALLING), REGRESSION, Data((x[rows],), (y[rows],))).get(
            "leakage"
        )

    half = np.r_[:100, :100]
    assert noted(half) == (
        "50 % of the 200 samples that were looked at are copies of others (threshold 5 %)."
    )
    assert noted(np.r_[:200]) is None
    assert noted(np.r_[:195, :5]) is None  # 2.5 %
    assert noted(half, x=np.round(X)) is None  # few integers are often the same
    assert noted(half, y=RANDOM.normal(size=200)) is not None


def test_integers_that_name_categories_are_noted():
    codes = np.arange(200) % 8
    effect = np.array([3.0, -2, 0, 5, -4, 1, -1, 2])

    def noted(column, y, facts=REGRESSION, graph=None):
        metadata = {} if graph is None else {"graph": graph}
        data = Data((np.column_stack([X, column]),), (y,))
        return notes(history_of(1.0, FALLING, metadata=metadata), facts, data).get(
            "categories_as_numbers"
        )

    y = effect[codes] + 0.1 * RANDOM.normal(size=200)
    assert noted(codes, y).startswith(
        "Column 3 (from 0) has 8 different integers; as names they explain 99.9 % of the variance"
    )
    assert noted(codes, codes**2.0) is None  # a number
    assert noted(codes, RANDOM.normal(size=200)) is None  # noise
    assert noted(codes + 0.5, y) is None
    assert noted(np.arange(200) % 40, y) is None  # five samples of each are too few
    assert noted(codes, (effect[codes] > 1).astype(float), BINARY) is not None
    graph = chain(("in", "InputLayer"), ("codes", "CategoryEncoding"), ("hidden_1", "Dense"))
    assert noted(codes, y, graph=graph) is None


def test_a_loss_that_still_falls_is_noted_unless_there_is_a_finding():
    slowly = [1.0, 0.95, 0.9, 0.83, 0.76, 0.7]
    assert notes(history_of(1.0, slowly)) == {
        "too_few_steps": "Epoch 5: the loss fell by 16 % in the second half of the records "
        "(threshold 10 %)."
    }
    assert notes(history_of(1.0, [1.0, 0.8, 0.75, 0.75, 0.75, 0.74])) == {}
    assert diagnose(history_of(1e-6, slowly)).notes == ()


def test_one_hot_rows_for_an_embedding_are_found():
    facts = ModelFacts((BINARY,), embeddings=(10,))
    rows = np.eye(6)[np.arange(200) % 6]
    found = first(facts, Data(inputs=(rows,)))
    assert found[0] == "wrong_embedding_inputs"
    assert found[3].startswith("Each row has one 1 among 6 columns")
    assert first(facts, Data(inputs=(rows,)), FALLING) is None


def test_batch_normalization_that_has_not_settled_is_found():
    """Training reaches a loss of 0.2 of at most 1; predictions are no better than a constant."""
    graph = {
        "nodes": [
            {"id": "input", "kind": "InputLayer", "layers": []},
            *({"id": f"hidden_{k}", "kind": "Dense"} for k in range(1, 5)),
            {"id": "norm", "kind": "BatchNormalization", "layers": []},
        ],
        "edges": [
            ["input", "hidden_1"], ["hidden_1", "norm"], ["norm", "hidden_2"],
            ["hidden_2", "hidden_3"], ["hidden_3", "hidden_4"],
        ],
        "assumed": False,
    }  # fmt: skip
    data = Data(inputs=(X,), targets=(X[:, :1],), constant_loss=1.0, perfect_loss=0.0)
    facts = ModelFacts((REGRESSION,))
    history = history_of(1.0, FALLING, metadata={"graph": graph})
    settled = data._replace(inference_loss=lambda: 0.3)
    assert diagnose(history, facts, settled).rules == ()
    useless = data._replace(inference_loss=lambda: 1.3)
    (finding,) = diagnose(history, facts, useless)
    assert finding.rule == "unsettled_batchnorm"
    assert finding.evidence[0].value == pytest.approx(-0.3)
    without = history_of(1.0, FALLING)
    assert diagnose(without, facts, useless).rules == ()
