"""The recordings of a tracker: which optimizers it listens to, and which weights it measures."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kgrad.measure.accumulators import Way, cheapest_way
from kgrad.measure.backends.current import backend
from kgrad.measure.keras_models.trainable import find_optimizers
from kgrad.measure.keras_models.weights import (
    Selection,
    all_built,
    describe_weights,
    select_weights,
    short_layer_names,
)
from kgrad.measure.recorder import Recorder, describe_run, time_now
from kgrad.measure.taps import Gradients, clips, listen_to_updates
from kgrad.records.history import GradientHistory
from kgrad.records.journal import JournalMode, JournalWriter

# The name of the optimizer that a model was compiled with.
COMPILED = "optimizer"


@dataclass(frozen=True)
class RecordingOptions:
    """The arguments of `GradientTracker` that say what to record."""

    statistics: Sequence[str]
    weights: Selection
    clipped: bool | None
    distributions: bool
    journal: str | os.PathLike[str] | None
    journal_mode: JournalMode
    metadata: Mapping[str, Any]


class OptimizerRecording:
    """Passes the updates of one optimizer to a recorder.

    The recorder is made as soon as the weights are known. For a model that is not built, this is
    when its first update is traced.

    Args:
        name: the optimizer's name.
        options: what to record.

    Attributes:
        optimizer, model: what it listens to, or listened to last.
        recorder: the recorder; None before the weights are known, and for an optimizer that trains
            none of the selected weights.
        previous: histories that ended because the optimizer began to train other weights.
        heard: whether an update was measured, or traced to be measured, since `begin`.
    """

    def __init__(self, name: str, options: RecordingOptions) -> None:
        self.name = name
        self.recorder: Recorder | None = None
        self.previous: list[GradientHistory] = []
        self._options = options
        self._recorders = 0
        self._measured: Any = None  # model, weights and clipping that the recorder measures
        self._kept: GradientHistory | None = None  # of a tracker that was copied

    def begin(
        self,
        optimizer: keras.optimizers.Optimizer,
        model: keras.Model,
        *,
        outputs: Sequence[str] = (),
        alone: bool = True,
        way: Way | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Listen to an optimizer from now on.

        Args:
            optimizer: a Keras optimizer that trains weights of the model.
            model: a Keras model.
            outputs: names of the layer outputs whose activations `record` will be given.
            alone: whether the optimizer trains all weights of the model. If there are several
                optimizers, the weights of each are known once it is built.
            way: see `Recorder`.
            metadata: entries for the history's metadata besides those of the options.
        """
        self.optimizer, self.model = optimizer, model
        self._watches_nothing = False  # it trains none of the selected weights
        self._outputs, self._way, self._fit_metadata = outputs, way, dict(metadata or {})
        self._inner = getattr(optimizer, "inner_optimizer", optimizer)
        self._ready: Recorder | None = None  # until the weights are known
        self._training: tuple[int, int | None] | None = None  # the arguments of `begin_training`
        self.heard = False
        self._has_values = self._inner.built or all_built(model)
        if self._inner.built or (alone and all_built(model)):
            with backend.variable_scope(model):
                self._prepare()
        self._stop = listen_to_updates(optimizer, self)

    def begin_training(self, initial_epoch: int = 0, steps_per_epoch: int | None = None) -> None:
        """Take the weights as they are before the first step, and open the journal.

        Args:
            initial_epoch: number of epochs that the training had done before.
            steps_per_epoch: number of steps of an epoch, None if unknown.
        """
        self._training = initial_epoch, steps_per_epoch
        if self._ready is not None:
            if self._has_values:
                self._ready.reread_weights()
            self._open_journal(self._ready)

    def end(self) -> None:
        """Stop listening and close the journal."""
        self._stop()
        if self.recorder is not None:
            self.recorder.close()

    @property
    def history(self) -> GradientHistory | None:
        """The history that was begun last."""
        return self._kept if self.recorder is None else self.recorder.history

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy keeps: the histories, but nothing of the training that made them."""
        return {
            "name": self.name,
            "recorder": None,
            "previous": self.previous,
            "heard": False,
            "_options": self._options,
            "_recorders": self._recorders,
            "_measured": None,
            "_kept": self.history,
        }

    def update(
        self,
        variables: Sequence[keras.Variable],
        gradients: Gradients,
        clipped: Gradients,
        made: Any = None,
    ) -> None:
        """Measure an update; called in the step that makes it."""
        self.heard = True
        recorder = self._prepared()
        if recorder is not None:
            recorder.update(variables, gradients, clipped, made)

    def attempt(self, variables: Sequence[keras.Variable], gradients: Gradients) -> None:
        """Count a step that may yet be skipped; called in the step that makes it."""
        self.heard = True
        recorder = self._prepared()
        if recorder is not None:
            recorder.attempt(variables, gradients)

    def _prepared(self) -> Recorder | None:
        if self._ready is None and not self._watches_nothing:
            if backend.under_strategy():
                # Variables made here would belong to one replica.
                raise ValueError(
                    f"optimizer {self.name!r} must be built before training under a distribution "
                    "strategy: call optimizer.build(model.trainable_variables)"
                )
            with backend.outside_trace():
                self._prepare()
        recorder = self._ready
        if recorder is not None and not self._has_values:
            with backend.outside_trace():
                recorder.reread_weights()
                # Variables that the model makes in a trace have no values before the next one.
                self._has_values = backend.have_values(recorder.variables)
        return recorder

    def _prepare(self) -> None:
        """Make the recorder, or continue with the last one if it measures the same."""
        watched = self._watched()
        if not watched:
            self._watches_nothing = True
            return
        clipped = self._options.clipped
        clipped = clips(self.optimizer) if clipped is None else clipped
        measured = self.model, [id(variable) for variable in watched], clipped
        if self.recorder is not None and measured == self._measured:
            self.recorder.resume()
            self._ready = self.recorder
            return
        if self.history is not None:
            self.previous.append(self.history)
        self._measured, self._kept = measured, None
        self._recorders += 1
        self._ready = self.recorder = Recorder(
            self.model,
            self._options.statistics,
            variables=watched,
            clipped=clipped,
            distributions=self._options.distributions,
            outputs=self._outputs,
            way=self._way,
            metadata=describe_run(self.model, self.optimizer)
            | {"started": time_now()}
            | self._fit_metadata
            | dict(self._options.metadata),
        )
        self._open_journal(self.recorder)

    def _open_journal(self, recorder: Recorder) -> None:
        """Open the journal of a new recorder, unless the training has yet to begin."""
        path = self._journal()
        if path is None or self._training is None or recorder.has_journal:
            return
        if backend.workers(self.model).is_chief:
            initial_epoch, steps_per_epoch = self._training
            journal = JournalWriter(
                path, self._options.journal_mode, initial_epoch, owner=self.model
            )
            recorder.write_to(journal, steps_per_epoch)

    def _watched(self) -> list[keras.Variable]:
        """List the variables that the optimizer trains and the user selected, in model order."""
        described = describe_weights(self.model)
        trained = [
            variable
            for variable in self.model.weights
            if variable.trainable
            and id(variable) in described
            and not getattr(variable, "overwrite_with_gradient", False)
            and described[id(variable)].size  # an empty one has no mean
        ]
        if not trained:
            raise ValueError(
                f"model {self.model.name!r} must have trainable weights, received none: "
                "set trainable = True on a layer"
            )
        weights = [described[id(variable)] for variable in trained]
        short = short_layer_names(self.model)
        short_layers = [short[id(variable)] for variable in trained]
        chosen = [trained[i] for i in select_weights(weights, self._options.weights, short_layers)]
        own = self._inner._trainable_variables if self._inner.built else trained
        own_ids = {id(variable) for variable in own}
        if not any(id(variable) in own_ids for variable in trained):
            raise ValueError(
                f"optimizer {self.name!r} must train weights of model {self.model.name!r}, "
                "received one that was built for others: pass the model that it trains"
            )
        return [variable for variable in chosen if id(variable) in own_ids]

    def _journal(self) -> Path | None:
        """Return the journal's path: the given one for the first history of the compiled optimizer.

        Others have the optimizer's name or a number appended.
        """
        if self._options.journal is None:
            return None
        path = Path(self._options.journal)
        parts = [path.stem] + ([] if self.name == COMPILED else [self.name])
        parts += [str(self._recorders)] if self._recorders > 1 else []
        return path.with_name("-".join(parts) + path.suffix)


class Recordings:
    """The recordings of a tracker, one per optimizer that it listens to.

    Args:
        options: what to record.
    """

    def __init__(self, options: RecordingOptions) -> None:
        self._options = options
        self._all: dict[str, OptimizerRecording] = {}
        self._running: list[OptimizerRecording] = []

    def begin(
        self, name: str, optimizer: keras.optimizers.Optimizer, model: keras.Model, **settings: Any
    ) -> None:
        """Listen to an optimizer from now on; for the settings see `OptimizerRecording.begin`."""
        for argument, value, kind, accepted in (
            ("optimizer", optimizer, keras.optimizers.Optimizer, "an optimizer of Keras"),
            ("model", model, keras.Model, "a Keras model and not its wrapper"),
        ):
            if not isinstance(value, kind):
                found = f"{type(value).__module__}.{type(value).__qualname__}"
                raise TypeError(f"{argument} must be {accepted}, received a {found}")
        if not isinstance(name, str):
            raise TypeError(f"name must be a str, received {name!r:.100}")
        if "/" in name:
            raise ValueError(f"name must have no slash, received {name!r}")
        if any(recording.name == name for recording in self._running):
            raise ValueError(
                f"name must be one that is not attached yet, received {name!r}: give this "
                'optimizer another name, such as name="generator"'
            )
        parts = getattr(getattr(optimizer, "inner_optimizer", optimizer), "optimizers", None)
        if parts is not None:
            raise ValueError(
                f"optimizer {optimizer.name!r} makes no updates itself: build it, and attach each "
                "of its `optimizers` under a name of its own"
            )
        recording = self._all.setdefault(name, OptimizerRecording(name, self._options))
        recording.begin(optimizer, model, **settings)
        self._running.append(recording)

    def attach(self, name: str, optimizer: keras.optimizers.Optimizer, model: keras.Model) -> None:
        """Listen to an optimizer of a loop whose training begins now."""
        self.begin(name, optimizer, model)
        recording = self._running[-1]
        try:
            recording.begin_training()
        except BaseException:
            self._running.pop().end()
            raise
        recorder = recording.recorder
        backend.forget_traces(optimizer, None if recorder is None else recorder.totals)

    def begin_training(self, initial_epoch: int = 0, steps_per_epoch: int | None = None) -> None:
        """Begin the training of all optimizers, see `OptimizerRecording.begin_training`."""
        for recording in self._running:
            recording.begin_training(initial_epoch, steps_per_epoch)

    @property
    def heard(self) -> bool:
        """Whether an update was seen since the recordings began."""
        return any(one.heard for one in self._running) or any(
            recorder.pending_steps for recorder in self.recorders.values()
        )

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy keeps: nothing is running."""
        return self.__dict__ | {"_running": []}

    def begin_all(self, model: keras.Model, outputs: Sequence[str]) -> None:
        """Listen to every optimizer of a compiled model; for the outputs see `Recorder`."""
        metadata = {
            "jit_compile": bool(model.jit_compile),
            "steps_per_execution": int(model.steps_per_execution),
            "run_eagerly": bool(model.run_eagerly),
        }
        optimizers = find_optimizers(model)
        if not optimizers:
            raise ValueError(
                f"model {model.name!r} must hold its optimizers as attributes, received none: "
                "compile it with one, or attach the tracker to each"
            )
        alone = len(optimizers) == 1
        for name, optimizer in optimizers.items():
            self.begin(
                name,
                optimizer,
                model,
                outputs=outputs,
                alone=alone,
                way=cheapest_way(bool(model.jit_compile)),
                metadata=metadata,
            )

    def end(self) -> None:
        """Stop listening."""
        for recording in self._running:
            recording.end()
        self._running.clear()

    def carried(self) -> list[tuple[keras.optimizers.Optimizer, backend.Totals]]:
        """Return what the steps fold into, and the optimizer whose updates they fold."""
        return [(one.optimizer, one.recorder.totals) for one in self._running if one.recorder]

    def checked_weights(
        self, weights: Sequence[Any] | Mapping[str, Sequence[Any]] | None
    ) -> dict[str, list[np.ndarray]]:
        """Return the weights that a loop keeps itself, by the name of their optimizer.

        Raises:
            ValueError: if they are not those of the attached models.
        """
        if weights is None:
            return {}
        names = [one.name for one in self._running]
        if not isinstance(weights, Mapping):
            weights = dict.fromkeys(names[:1], weights) if len(names) == 1 else {}
        if set(weights) - set(names) or not weights:
            raise ValueError(
                "weights must be a dict with the weights of each optimizer if several are "
                f"attached, received other names than {', '.join(names)}"
            )
        arrays = {name: [backend.as_array(v) for v in values] for name, values in weights.items()}
        for one in self._running:
            shapes = [tuple(v.shape) for v in one.model.trainable_variables]
            if one.name in arrays and [array.shape for array in arrays[one.name]] != shapes:
                raise ValueError(
                    "weights must be the values of the trainable variables of model "
                    f"{one.model.name!r}, {len(shapes)} arrays, received {len(arrays[one.name])} "
                    "arrays or other shapes: pass what optimizer.stateless_apply returned"
                )
        return arrays

    @property
    def recorders(self) -> dict[str, Recorder]:
        """The recorders that exist so far, by the name of their optimizer."""
        return {one.name: one.recorder for one in self._running if one.recorder}

    @property
    def histories(self) -> dict[str, GradientHistory]:
        """The history of each optimizer that made an update, by its name; until then of each."""
        begun = {name: one.history for name, one in self._all.items() if one.history is not None}
        # Keras compiles every model with an optimizer, and builds it, used or not.
        used = {name: h for name, h in begun.items() if len(h) or self._all[name].heard}
        return used or begun

    @property
    def previous(self) -> list[GradientHistory]:
        """Histories that ended because an optimizer began to train other weights."""
        return [history for recording in self._all.values() for history in recording.previous]

    def only_history(self) -> GradientHistory:
        """Return the history, if there is exactly one."""
        histories = self.histories
        if not histories:
            raise RuntimeError(
                "nothing was tracked yet: pass the tracker to fit as a callback, or attach it"
            )
        if len(histories) > 1:
            raise ValueError(
                "several optimizers train this model, and each has a history: use histories, "
                f"which holds {', '.join(histories)}"
            )
        return next(iter(histories.values()))

    def prefix(self, name: str) -> str:
        """Return the prefix of an optimizer's numbers in logs and TensorBoard."""
        return "grad" if len(self.histories) == 1 else f"grad/{name}"
