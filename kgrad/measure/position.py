"""Where a `fit` stands: its epoch and its step, counted on from one `fit` to the next."""

import keras


class FitPosition:
    """Epoch and step as the records number them, from what Keras tells its callbacks.

    Attributes:
        model: the model that was last fitted.
        epoch: the epoch that is running, from 1; 0 before the first.
        step: the steps that are done.
        epoch_start: the steps that were done when the epoch began.
        executions: calls of the compiled step in this `fit`.
    """

    def __init__(self) -> None:
        self.epoch = self.step = self.epoch_start = self.executions = 0
        self.model: keras.Model | None = None

    def begin_fit(self, model: keras.Model, steps: int | None) -> None:
        """A `fit` begins, of `steps` an epoch if that is known; another model starts from 0."""
        if model is not self.model:
            self.model, self.epoch, self.step = model, 0, 0
        self._steps, self._size = steps, int(model.steps_per_execution)
        self.executions = 0
        self._epochs_before: int | None = None

    def begin_epoch(self, index: int) -> None:
        """An epoch begins: Keras counts from 0, or from an `initial_epoch`."""
        if self._epochs_before is None:
            # An initial_epoch that goes on by itself needs no help.
            self._epochs_before = max(0, self.epoch - index)
        self.epoch = self._epochs_before + index + 1
        self.epoch_start, self._executions_before = self.step, self.executions

    def after_execution(self) -> None:
        """The compiled step returned."""
        self.executions += 1

    def after_batch(self, index: int) -> None:
        """Keras tells of a batch, or of the last one of an execution of several."""
        # An execution is told of as whole, also where it ended the epoch early.
        done = index + 1
        self.step = self.epoch_start + (done if self._steps is None else min(done, self._steps))

    def at_interruption(self) -> None:
        """The `fit` ended, and Keras may not have told of the last steps."""
        done = (self.executions - self._executions_before) * self._size
        self.step = max(self.step, self.epoch_start + done)
