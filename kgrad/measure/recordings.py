"""The recordings of a tracker: which optimizers it listens to, and which weights it measures."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from kgrad.measure.accumulators import Way, cheapest_way
from kgrad.measure.backends.current import backend
from kgrad.measure.keras_models.weights import Selection, describe_weights, select_weights
from kgrad.measure.native_optimizers import NativeOptimizer, is_native
from kgrad.measure.recorder import Recorder, describe_run
from kgrad.measure.taps import Gradients, clips, listen_to_updates
from kgrad.records.history import GradientHistory

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
    metadata: Mapping[str, Any]


class OptimizerRecording:
    """Passes the updates of one optimizer to a recorder.

    The recorder is made as soon as the weights are known. For a model that is not built, this is
    when its first update is traced.

    Args:
        name: the optimizer's name.
        options: what to record.

    Attributes:
        optimizer: the optimizer that it listens to, or listened to last.
        recorder: the recorder; None before the weights are known, and for an optimizer that trains
            none of the selected weights.
        previous: histories that ended because the optimizer began to train other weights.
    """

    def __init__(self, name: str, options: RecordingOptions) -> None:
        self.name = name
        self.recorder: Recorder | None = None
        self.previous: list[GradientHistory] = []
        self._options = options
        self._recorders = 0
        self._measured: Any = None  # model, weights and clipping that the recorder measures

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
        self.optimizer, self._model = optimizer, model
        self._watches_nothing = False  # it trains none of the selected weights
        self._outputs, self._way, self._fit_metadata = outputs, way, dict(metadata or {})
        self._inner = getattr(optimizer, "inner_optimizer", optimizer)
        self._ready: Recorder | None = None  # until the weights are known
        self._has_values = self._inner.built or model.built
        if self._inner.built or (model.built and alone):
            with backend.variable_scope(model):
                self._prepare()
        self._stop = listen_to_updates(optimizer, self)

    def end(self) -> None:
        """Stop listening and close the journal."""
        self._stop()
        if self.recorder is not None:
            self.recorder.close()

    def update(
        self,
        variables: Sequence[keras.Variable],
        gradients: Gradients,
        clipped: Gradients,
        made: Any = None,
    ) -> None:
        """Measure an update; called in the step that makes it."""
        recorder = self._prepared()
        if recorder is not None:
            recorder.update(variables, gradients, clipped, made)

    def attempt(self, variables: Sequence[keras.Variable], gradients: Gradients) -> None:
        """Count a step that may yet be skipped; called in the step that makes it."""
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
        measured = self._model, [id(variable) for variable in watched], clipped
        if self.recorder is not None:
            if measured == self._measured:
                self.recorder.resume()
                self._ready = self.recorder
                return
            self.previous.append(self.recorder.history)
        self._measured = measured
        self._recorders += 1
        self._ready = self.recorder = Recorder(
            self._model,
            self._options.statistics,
            variables=watched,
            clipped=clipped,
            distributions=self._options.distributions,
            outputs=self._outputs,
            way=self._way,
            journal=self._journal(),
            metadata=describe_run(self._model, self.optimizer)
            | self._fit_metadata
            | dict(self._options.metadata),
        )

    def _watched(self) -> list[keras.Variable]:
        """List the variables that the optimizer trains and the user selected, in model order."""
        described = describe_weights(self._model)
        trained = [
            variable
            for variable in self._model.weights
            if variable.trainable
            and id(variable) in described
            and not getattr(variable, "overwrite_with_gradient", False)
            and described[id(variable)].size  # an empty one has no mean
        ]
        if not trained:
            raise ValueError(
                f"model {self._model.name!r} must have trainable weights, received none: "
                "set trainable = True on a layer"
            )
        weights = [described[id(variable)] for variable in trained]
        chosen = [trained[i] for i in select_weights(weights, self._options.weights)]
        own = self._inner._trainable_variables if self._inner.built else trained
        own_ids = {id(variable) for variable in own}
        if not any(id(variable) in own_ids for variable in trained):
            raise ValueError(
                f"optimizer {self.name!r} must train weights of model {self._model.name!r}, "
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
        if not isinstance(model, keras.Model):
            model = getattr(model, "module", model)  # of torch's DistributedDataParallel
        for argument, value, kind in (
            (
                "optimizer",
                optimizer,
                object if is_native(optimizer) else keras.optimizers.Optimizer,
            ),
            ("model", model, keras.Model),
            ("name", name, str),
        ):
            if not isinstance(value, kind):
                raise TypeError(f"{argument} must be a {kind.__name__}, received {value!r:.100}")
        if "/" in name:
            raise ValueError(f"name must have no slash, received {name!r}")
        if any(recording.name == name for recording in self._running):
            raise ValueError(
                f"name must be one that is not attached yet, received {name!r}: give this "
                'optimizer another name, such as name="generator"'
            )
        if is_native(optimizer):
            optimizer = NativeOptimizer(optimizer, model)
        recording = self._all.setdefault(name, OptimizerRecording(name, self._options))
        recording.begin(optimizer, model, **settings)
        self._running.append(recording)

    def begin_all(self, model: keras.Model, outputs: Sequence[str]) -> None:
        """Listen to every optimizer of a compiled model; for the outputs see `Recorder`."""
        metadata = {
            "jit_compile": bool(model.jit_compile),
            "steps_per_execution": int(model.steps_per_execution),
            "run_eagerly": bool(model.run_eagerly),
        }
        optimizers = _find_optimizers(model)
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

    @property
    def recorders(self) -> dict[str, Recorder]:
        """The recorders that exist so far, by the name of their optimizer."""
        return {one.name: one.recorder for one in self._running if one.recorder}

    @property
    def histories(self) -> dict[str, GradientHistory]:
        """The history of each optimizer, by its name."""
        return {name: one.recorder.history for name, one in self._all.items() if one.recorder}

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


def _find_optimizers(model: keras.Model) -> dict[str, keras.optimizers.Optimizer]:
    """Find the optimizers that a model holds and that make updates, by name of the attribute."""
    held: dict[str, Any] = {}
    # Attributes that begin with an underscore are Keras's own references to the same objects.
    attributes = {name: value for name, value in vars(model).items() if name[0] != "_"}
    for name, value in attributes.items():
        if isinstance(value, list | tuple):
            held |= {f"{name}_{i}": item for i, item in enumerate(value)}
        elif isinstance(value, dict):
            held |= {f"{name}_{key}": item for key, item in value.items()}
        else:
            held[name] = value
    found: dict[str, keras.optimizers.Optimizer] = {}
    for name, value in held.items():
        if isinstance(value, keras.optimizers.Optimizer) and value not in found.values():
            shared = getattr(value, "inner_optimizer", value)
            if not hasattr(shared, "optimizers"):
                found[name] = value
                continue
            # A MultiOptimizer makes no update itself: it passes its variables to its parts, which
            # it chooses when it is built.
            if model.built and not value.built:
                value.build(model.trainable_variables)
            for part in shared.optimizers:
                same = sum(other.name == part.name for other in found.values())
                found[f"{name}_{part.name}" + (f"_{same + 1}" if same else "")] = part
    return found
