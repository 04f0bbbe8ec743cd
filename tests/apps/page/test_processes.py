"""Tests of the process that trains: how it follows orders."""

import time

from kgrad.apps.page.configuration import Configuration
from kgrad.apps.page.processes import Worker
from kgrad.records.journal import Journal
from tests.waiting import until

STEPS = 128  # of an epoch, which takes a second or more
SLOW = Configuration(layers=40, units=128, batch_size=8, epochs=2, activation="relu")


def test_a_pause_acts_within_the_epoch_and_the_training_goes_on(tmp_path):
    worker, journal = Worker(), tmp_path / "run.jsonl"
    try:
        worker.start([SLOW.experiment()], [journal], "play")
        until(journal.exists)
        followed = Journal(journal)

        def records():
            followed.read()
            return 0 if followed.history is None else len(followed.history)

        until(lambda: records() > 0)
        worker.order("pause")
        until(lambda: worker.paused)
        followed.read()
        paused_at = int(followed.history.steps[-1])
        assert 0 < paused_at < STEPS
        time.sleep(0.5)
        followed.read()
        assert followed.history.steps[-1] == paused_at
        worker.order("play")
        until(lambda: not worker.running)
        followed.read()
        assert followed.history.steps.tolist() == [0, paused_at, STEPS, 2 * STEPS]
        assert worker.error == ""
    finally:
        worker.close()
