"""Tasks and skills, by hand and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, r2_score

from kgrad.experiments.remedies.skill import Task, read_task, skill

LABELS = np.array([0.0, 1, 2, 1] * 10)


@pytest.mark.parametrize(
    ("y", "loss", "activation", "task"),
    [
        (np.eye(3)[[0, 1, 2, 1]], "mse", "", Task("class", (0, 1, 2), one_hot=True)),
        (np.array([[1, 1, 0], [0, 0, 0]]), "binary_crossentropy", "", Task("labels")),
        (LABELS, "sparse_categorical_crossentropy", "softmax", Task("class", (0, 1, 2))),
        (LABELS[:, None], "binary_crossentropy", "sigmoid", Task("class", (0, 1, 2))),
        (LABELS, "mse", "softmax", Task("class", (0, 1, 2))),
        (LABELS, "mse", "linear", Task("numbers")),  # counts, perhaps
        (LABELS / 2, "categorical_crossentropy", "softmax", Task("class", (0, 0.5, 1))),
        (2 * (LABELS > 0) - 1, "hinge", "tanh", Task("class", (-1, 1))),
        (np.linspace(0, 1, 40), "binary_crossentropy", "sigmoid", Task("numbers")),
        (np.linspace(0, 1, 40).reshape(20, 2), "mse", "", Task("numbers")),
        (np.full(40, 7.0), "mse", "", Task("numbers")),
    ],
)
def test_what_an_output_is_asked_for(y, loss, activation, task):
    assert read_task(np.asarray(y, float), loss, activation) == task


def test_the_skill_of_numbers_is_r2(random):
    y = random.normal(size=(50, 3)) * [1, 10, 100]
    outputs = y + random.normal(size=(50, 3))
    wanted = r2_score(y, outputs, multioutput="variance_weighted")
    assert skill(Task("numbers"), y, outputs) == pytest.approx(wanted)
    assert skill(Task("numbers"), y, np.tile(y.mean(axis=0), (50, 1))) == pytest.approx(0)
    assert skill(Task("numbers"), y[:, 0], y[:, :1]) == 1  # (n,) against (n, 1)


@pytest.mark.parametrize("shape", ["softmax", "one unit"])
def test_the_skill_of_classes_is_the_balanced_accuracy_rescaled(random, shape):
    truth = random.choice(3, 200, p=[0.8, 0.15, 0.05])
    guess = np.where(random.random(200) < 0.3, random.integers(3, size=200), truth)
    outputs = (
        np.eye(3)[guess] + 0.1 if shape == "softmax" else guess + random.uniform(-0.4, 0.4, 200)
    )
    wanted = balanced_accuracy_score(truth, guess, adjusted=True)
    assert skill(Task("class", (0, 1, 2)), truth, outputs) == pytest.approx(wanted)
    rows = np.eye(3)[truth]
    if shape == "softmax":
        one_hot = Task("class", (0, 1, 2), one_hot=True)
        assert skill(one_hot, rows, outputs) == pytest.approx(wanted)
    largest = np.zeros((200, 1))
    assert skill(Task("class", (0, 1, 2)), truth, largest) == pytest.approx(0)


@pytest.mark.parametrize(
    ("classes", "logits", "outputs", "chosen"),
    [
        ((0, 1), False, [0.4, 0.6], [0, 1]),
        ((0, 1), True, [-0.1, 0.1], [0, 1]),
        ((1, 2), False, [0.9, 0.8], [1, 1]),  # of a sigmoid, which cannot say 2
        ((-1, 1), False, [-0.1, 0.1], [-1, 1]),
    ],
)
def test_one_unit_chooses_between_two_classes(classes, logits, outputs, chosen):
    truth = np.array(classes, float)
    wanted = balanced_accuracy_score(truth, chosen, adjusted=True)
    outputs = np.array(outputs)[:, None]
    assert skill(Task("class", classes), truth, outputs, from_logits=logits) == wanted


def test_the_skill_of_labels_is_the_mean_over_them(random):
    y = (random.random((100, 3)) < [0.5, 0.2, 0.9]).astype(float)
    outputs = np.where(random.random((100, 3)) < 0.2, 1 - y, y)
    wanted = np.mean(
        [balanced_accuracy_score(y[:, k], outputs[:, k], adjusted=True) for k in range(3)]
    )
    assert skill(Task("labels"), y, outputs) == pytest.approx(wanted)


def test_every_step_of_a_sequence_counts(random):
    truth = random.integers(4, size=(20, 5))
    guess = np.where(random.random((20, 5)) < 0.5, truth, random.integers(4, size=(20, 5)))
    wanted = balanced_accuracy_score(truth.ravel(), guess.ravel(), adjusted=True)
    task = read_task(truth, "sparse_categorical_crossentropy", "softmax")
    assert skill(task, truth, np.eye(4)[guess]) == pytest.approx(wanted)


def test_what_cannot_be_compared_has_no_skill():
    y = np.arange(8.0)
    assert np.isnan(skill(Task("numbers"), y, np.full(8, np.nan)))
    assert np.isnan(skill(Task("numbers"), y.reshape(2, 4), np.ones((2, 3))))
    assert np.isnan(skill(Task("numbers"), np.ones(8), y))
    assert np.isnan(skill(Task("labels"), np.ones((4, 2)), np.ones((4, 3))))
