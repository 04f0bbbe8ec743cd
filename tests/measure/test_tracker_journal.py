"""A journal that is there already: continued by a `fit` that resumes, and lost to nobody else."""

import json

import keras
import numpy as np
import pytest
from keras import layers

from kgrad.measure.loop import train_and_track_gradients
from kgrad.measure.tracker import GradientTracker
from kgrad.records.history import GradientHistory

RANDOM = np.random.default_rng(12345)
X = RANDOM.normal(size=(29, 5)).astype(np.float32)
Y = (X[:, :1] > 0).astype(np.float32)
STEPS = 4
# Keras's own, of saving under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy")


class KilledError(Exception):
    """Ends a fit as a killed process does: no callback is called any more."""


def plain():
    """A model whose layers have Keras's own, numbered names."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((5,)), layers.Dense(6, "tanh"), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    return model


class Subclassed(keras.Model):
    """Not built before its first step."""

    def __init__(self):
        super().__init__()
        self.hidden, self.out = layers.Dense(6, "tanh"), layers.Dense(1)

    def call(self, x):
        return self.out(self.hidden(x))


def unbuilt():
    keras.utils.set_random_seed(3)
    model = Subclassed()
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def go(model, *callbacks, epochs=5, **options):
    options = {"batch_size": 8, "shuffle": False, "verbose": 0} | options
    return model.fit(X, Y, epochs=epochs, callbacks=list(callbacks), **options)


def kill_in(epoch, step=None):
    """A callback that kills the fit at the end of an epoch, or after a step in it."""

    class Kill(keras.callbacks.Callback):
        def on_epoch_begin(self, at, logs=None):
            self.epoch = at + 1

        def on_train_batch_end(self, batch, logs=None):
            if (self.epoch, batch + 1) == (epoch, step):
                raise KilledError

        def on_epoch_end(self, at, logs=None):
            if (at + 1, None) == (epoch, step):
                raise KilledError

    return Kill()


def killed(model, *callbacks, **options):
    with pytest.raises(KilledError):
        go(model, *callbacks, **options)


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "run.jsonl"


@pytest.fixture
def whole():
    """The history of a training that nothing interrupted."""
    tracker = GradientTracker()
    go(plain(), tracker)
    return tracker.history


def assert_same_records(history, expected):
    assert history.epochs.tolist() == expected.epochs.tolist()
    assert history.steps.tolist() == expected.steps.tolist()
    for name in ("mean_abs", "l2_norm", "weight_l2", "update_l2"):
        np.testing.assert_allclose(history[name], expected[name], 1e-5, 1e-7, err_msg=name)
    np.testing.assert_allclose(history.logs["loss"], expected.logs["loss"], 1e-5)


@pytest.mark.parametrize("backup_first", [True, False])
@pytest.mark.parametrize(
    ("epoch", "step", "backup_is_older"), [(3, None, False), (3, None, True), (4, 2, False)]
)
def test_a_restored_fit_continues_the_journal(
    journal, tmp_path, whole, backup_first, epoch, step, backup_is_older
):
    def callbacks(*kill):
        tracker = GradientTracker(journal=journal)
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        pair = [backup, tracker] if backup_first else [tracker, backup]
        if backup_is_older:  # killed between the record and the backup of an epoch
            return tracker, [tracker, *kill, backup]
        return tracker, [*pair, *kill]

    killed(plain(), *callbacks(kill_in(epoch, step))[1])
    tracker, again = callbacks()
    go(plain(), *again)
    assert_same_records(tracker.history, whole)
    at = epoch - (1 if backup_is_older or step else 0)
    resumed = tracker.history.metadata["resumed"]
    assert [(one["epoch"], one["step"]) for one in resumed] == [(at, at * STEPS)]
    assert_same_records(GradientHistory.load(journal), whole)


def test_a_record_every_so_many_steps_keeps_its_steps(journal, tmp_path):
    def callbacks():
        return GradientTracker(journal=journal, every=3), keras.callbacks.BackupAndRestore(tmp_path)

    killed(plain(), *callbacks(), kill_in(3, 2))
    assert GradientHistory.load(journal).steps.tolist() == [0, 3, 6, 9]
    tracker, backup = callbacks()
    go(plain(), tracker, backup)
    # Epoch 3 begins again after step 8; the record of step 9 is one of the training that was lost.
    assert tracker.history.steps.tolist() == [0, 3, 6, 9, 12, 15, 18, 20]
    assert tracker.history.epochs.tolist() == [0, 1, 2, 3, 3, 4, 5, 5]
    whole = GradientTracker(every=3)
    go(plain(), whole)
    for record in (1, 2, 4, 5, 6, 7):
        np.testing.assert_allclose(
            tracker.history["mean_abs"][record], whole.history["mean_abs"][record], 1e-5
        )
    last_step = GradientTracker(every=1)
    go(plain(), last_step)
    np.testing.assert_allclose(
        tracker.history["mean_abs"][3], last_step.history["mean_abs"][9], 1e-5
    )


def test_a_model_that_is_not_built_continues_the_journal(journal):
    go(unbuilt(), GradientTracker(journal=journal), epochs=2)
    tracker = GradientTracker(journal=journal, every=3)
    go(unbuilt(), tracker, initial_epoch=2, epochs=4)
    assert tracker.history.epochs.tolist() == [0, 1, 2, 3, 4, 4]
    assert tracker.history.steps.tolist() == [0, 4, 8, 11, 14, 16]
    further = GradientTracker(journal=journal, journal_mode="continue")
    go(unbuilt(), further, epochs=1)
    assert further.history.epochs.tolist() == [0, 1, 2, 3, 4, 4, 5]
    assert further.history.steps[-1] == 20


def test_a_nan_after_resuming_has_its_step(journal):
    def poisoned(epochs, bad, **options):
        x = np.tile(X[:24], (1, 1))
        x[8 * (bad - 1), 0] = np.nan
        tracker = GradientTracker(journal=journal, every=5)
        go_options = {"batch_size": 8, "shuffle": False, "verbose": 0} | options
        plain().fit(x if bad else X[:24], Y[:24], epochs=epochs, callbacks=[tracker], **go_options)
        return tracker.history

    poisoned(2, 0)
    history = poisoned(4, 2, initial_epoch=2)
    assert history.steps.tolist() == [0, 5, 6, 11, 12]
    assert history["first_nonfinite_step"][:, 0].tolist() == [0, 0, 0, 8, 12]


def test_records_are_refused_before_the_training_and_nothing_is_left(journal):
    go(plain(), GradientTracker(journal=journal), epochs=1)
    before, model = journal.read_bytes(), plain()
    weights = model.get_weights()
    with pytest.raises(
        ValueError, match=r"run.jsonl' already has 2 records: name another file, or"
    ):
        go(model, GradientTracker(journal=journal))
    assert journal.read_bytes() == before
    for now, then in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(now, then)
    assert not {"make_train_function", "train_on_batch"} & set(vars(model))
    assert "_clip_gradients" not in vars(model.optimizer)
    tracker = GradientTracker(journal=journal, journal_mode="replace")
    go(model, tracker, epochs=1)
    assert GradientHistory.load(journal).epochs.tolist() == [0, 1]
    go(model, tracker, epochs=1)  # the tracker's own journal
    assert GradientHistory.load(journal).epochs.tolist() == [0, 1, 2]


def test_a_further_training_counts_on(journal):
    go(plain(), GradientTracker(journal=journal), epochs=2)
    model, tracker = plain(), GradientTracker(journal=journal, journal_mode="continue")
    go(model, tracker, epochs=1)
    go(model, tracker, epochs=1)
    assert tracker.history.epochs.tolist() == [0, 1, 2, 3, 4]
    assert tracker.history.steps.tolist() == [0, 4, 8, 12, 16]
    one = GradientTracker()
    go(plain(), one, epochs=1)
    for name in ("mean_abs", "update_l2", "weight_l2"):
        np.testing.assert_allclose(tracker.history[name][3], one.history[name][1], 1e-5)
    assert_loaded = GradientHistory.load(journal)
    np.testing.assert_array_equal(assert_loaded["mean_abs"], tracker.history["mean_abs"])


def test_other_weights_are_refused_in_a_sentence(journal):
    go(plain(), GradientTracker(journal=journal), epochs=1)
    with pytest.raises(ValueError, match="can be continued only with the same weights: only the f"):
        go(plain(), GradientTracker(journal=journal, weights="*kernel"), initial_epoch=1)
    with pytest.raises(
        ValueError, match=r"with the same statistics: .* only this training has max_"
    ):
        go(plain(), GradientTracker(["max_abs"], journal=journal), initial_epoch=1)


def test_two_trackers_with_one_journal_are_refused(journal):
    model = plain()
    with pytest.raises(
        ValueError, match="is being written by another tracker: give each a file of"
    ):
        go(model, GradientTracker(journal=journal), GradientTracker(journal=journal, every=1))
    assert not int(model.optimizer.iterations)


def test_a_fit_that_an_exception_ended_leaves_its_journal_to_the_next_model(journal):
    crashed, tracker = plain(), GradientTracker(journal=journal)
    killed(crashed, tracker, kill_in(2))
    go(plain(), GradientTracker(journal=journal), initial_epoch=2, epochs=3)
    assert GradientHistory.load(journal).epochs.tolist() == [0, 1, 2, 3]
    go(crashed)  # ends the tracking of the first fit, without a word in the second one's journal
    assert tracker.history.metadata["interrupted"]
    assert GradientHistory.load(journal).epochs.tolist() == [0, 1, 2, 3]


def test_a_fit_with_nothing_left_to_do_leaves_the_journal_alone(journal):
    go(plain(), GradientTracker(journal=journal), epochs=2)
    before = journal.read_bytes()
    go(plain(), GradientTracker(journal=journal), initial_epoch=2, epochs=2)
    assert journal.read_bytes() == before


def test_a_loop_of_ones_own_continues_on_request(journal):
    def loop(**options):
        model = plain()
        with GradientTracker(journal=journal, **options).attach(model.optimizer, model) as tracker:
            for start in range(0, len(X), 8):
                model.train_on_batch(X[start : start + 8], Y[start : start + 8])
            tracker.record({"loss": 0.5})
        return tracker.history

    first = loop()
    with pytest.raises(ValueError, match="already has 1 records"):
        loop()
    second = loop(journal_mode="continue")
    assert second.epochs.tolist() == [1, 2]
    assert second.steps.tolist() == [4, 8]
    np.testing.assert_allclose(second["mean_abs"], first["mean_abs"][[0, 0]], 1e-5)


def test_the_loop_continues_its_journal(journal):
    def train(epochs, **options):
        return train_and_track_gradients(
            plain(), X, Y, epochs, batch_size=8, seed=0, journal=journal, **options
        )

    first = train(2)
    before = journal.read_bytes()
    with pytest.raises(ValueError, match="already has 3 records"):
        train(1)
    with pytest.raises(ValueError, match='journal_mode must be "refuse", "continue" or "replace"'):
        train(1, journal_mode="append")
    assert journal.read_bytes() == before
    history = train(2, journal_mode="continue", every=3)
    assert history.epochs.tolist() == [0, 1, 2, 3, 4, 4]
    assert history.steps.tolist() == [0, 4, 8, 11, 14, 16]
    np.testing.assert_array_equal(history["mean_abs"][:3], first["mean_abs"])
    changed = history.metadata["resumed"][0]["metadata"]
    assert changed["every"] == 3
    lines = journal.read_bytes().splitlines()
    assert "resumed" in json.loads(lines[4])
    again = train(2, journal_mode="replace")
    np.testing.assert_allclose(again["mean_abs"], first["mean_abs"], 1e-6)
    assert GradientHistory.load(journal).epochs.tolist() == [0, 1, 2]


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match=r"journal_mode must be .*, received 'append'"):
        GradientTracker(journal_mode="append")
