"""Optimizers' updates, measured: what stands between the hooks and the recorders."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kgrad.measure.backends.tensorflow.accumulators import StepTotals, Way, cheapest_way
from kgrad.measure.backends.tensorflow.recorder import Recorder
from kgrad.measure.backends.tensorflow.taps import Gradients, clips, listen_to_updates
from kgrad.measure.descriptions import describe_run
from kgrad.measure.keras_models.weights import Selection, describe_weights, select_weights
from kgrad.records.history import GradientHistory

# The name of the optimizer that a model was compiled with.
COMPILED = "optimizer"


@dataclass(frozen=True)
class Options:
    """What a tracker was asked to record; see `GradientTracker`."""

    statistics: Sequence[str]
    weights: Selection
    clipped: bool | None
    distributions: bool
    journal: str | os.PathLike[str] | None
    metadata: Mapping[str, Any]


class Track:
    """Feeds the updates of one optimizer to a recorder.

    The recorder is made as soon as the weights are known, which for a model that is not built is
    when its first update is traced.

    Args:
        name: what the optimizer is called.
        options: what to record.

    Attributes:
        recorder: the recorder, or None before the weights are known, and for an optimizer that
            trains none of the weights to watch.
        previous: histories that ended because other weights came to be trained.
    """

    def __init__(self, name: str, options: Options) -> None:
        self.name = name
        self.recorder: Recorder | None = None
        self.previous: list[GradientHistory] = []
        self._options = options
        self._recorders = 0
        self._what: Any = None  # the recorder measures

    def begin(
        self,
        optimizer: keras.optimizers.Optimizer,
        model: keras.Model,
        *,
        outputs: Sequence[str] = (),
        alone: bool = True,
        way: Way = StepTotals,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Listen to an optimizer from now on.

        Args:
            optimizer: a Keras optimizer that trains weights of the model.
            model: a Keras model.
            outputs: names of the layer outputs of which `record` will be given activations.
            alone: whether the optimizer trains all weights of the model; which of them one of
                several trains is known once it is built.
            way: see `Recorder`.
            metadata: what the history shall say beside what the options say.
        """
        self._optimizer, self._model = optimizer, model
        self._watches_nothing = False  # as it trains none of the weights to watch
        self._outputs, self._way, self._fit_metadata = outputs, way, dict(metadata or {})
        self._inner = getattr(optimizer, "inner_optimizer", optimizer)
        self._ready: Recorder | None = None  # before it is known which weights this is about
        self._has_values = self._inner.built or model.built
        if self._inner.built or (model.built and alone):
            with model.distribute_strategy.scope():
                self._prepare()
        self._stop = listen_to_updates(optimizer, self)

    def end(self) -> None:
        """Stop listening, and close the journal."""
        self._stop()
        if self.recorder is not None:
            self.recorder.close()

    def update(
        self, variables: Sequence[keras.Variable], gradients: Gradients, clipped: Gradients
    ) -> None:
        """Measure an update; called in its graph."""
        recorder = self._prepared()
        if recorder is not None:
            recorder.update(variables, gradients, clipped)

    def attempt(self, variables: Sequence[keras.Variable], gradients: Gradients) -> None:
        """Count a step that may yet be skipped; called in its graph."""
        recorder = self._prepared()
        if recorder is not None:
            recorder.attempt(variables, gradients)

    def _prepared(self) -> Recorder | None:
        if self._ready is None and not self._watches_nothing:
            if tf.distribute.has_strategy():
                # Made in a replica, the recorder's variables would be those of one replica.
                raise ValueError(
                    f"optimizer {self.name!r} must be built before training under a distribution "
                    "strategy: call optimizer.build(model.trainable_variables)"
                )
            with tf.init_scope():  # variables outlive the trace in which they are made
                self._prepare()
        recorder = self._ready
        if recorder is not None and not self._has_values:
            with tf.init_scope():
                recorder.reread_weights()
                # Those that the model makes in a trace have no values before the next one.
                self._has_values = all(v.value.is_initialized() for v in recorder.variables)
        return recorder

    def _prepare(self) -> None:
        """Make the recorder, or go on with that of the last `fit` if it watches the same."""
        watched = self._watched()
        if not watched:
            self._watches_nothing = True
            return
        clipped = self._options.clipped
        clipped = clips(self._optimizer) if clipped is None else clipped
        what = self._model, [id(variable) for variable in watched], clipped
        if self.recorder is not None:
            if what == self._what:
                self.recorder.resume()
                self._ready = self.recorder
                return
            self.previous.append(self.recorder.history)
        self._what = what
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
            metadata=describe_run(self._model, self._optimizer)
            | self._fit_metadata
            | dict(self._options.metadata),
        )

    def _watched(self) -> list[keras.Variable]:
        """The variables that this optimizer trains and the user chose, in the model's order."""
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
                "received one that was built for others: take the model that it trains"
            )
        return [variable for variable in chosen if id(variable) in own_ids]

    def _journal(self) -> Path | None:
        """The journal's path: the one asked for is that of the first optimizer's first history."""
        if self._options.journal is None:
            return None
        path = Path(self._options.journal)
        parts = [path.stem] + ([] if self.name == COMPILED else [self.name])
        parts += [str(self._recorders)] if self._recorders > 1 else []
        return path.with_name("-".join(parts) + path.suffix)


class Tracks:
    """The optimizers that a tracker listens to, each with a track.

    Args:
        options: what to record.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._all: dict[str, Track] = {}
        self._attached: list[Track] = []

    def follow(
        self, name: str, optimizer: keras.optimizers.Optimizer, model: keras.Model, **settings: Any
    ) -> None:
        """Listen to an optimizer from now on; for the settings see `Track.begin`."""
        for argument, value, kind in (
            ("optimizer", optimizer, keras.optimizers.Optimizer),
            ("model", model, keras.Model),
            ("name", name, str),
        ):
            if not isinstance(value, kind):
                raise TypeError(f"{argument} must be a {kind.__name__}, received {value!r:.100}")
        if "/" in name:
            raise ValueError(f"name must have no slash, received {name!r}")
        if any(track.name == name for track in self._attached):
            raise ValueError(
                f"name must be one that is not attached yet, received {name!r}: give this "
                'optimizer another, such as name="generator"'
            )
        track = self._all.setdefault(name, Track(name, self._options))
        track.begin(optimizer, model, **settings)
        self._attached.append(track)

    def follow_all(self, model: keras.Model, outputs: Sequence[str]) -> None:
        """Listen to every optimizer that a compiled model holds; for the outputs see `Track`."""
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
            self.follow(
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
        for track in self._attached:
            track.end()
        self._attached.clear()

    @property
    def recorders(self) -> dict[str, Recorder]:
        """The recorders that exist by now, of the optimizers that are listened to."""
        return {track.name: track.recorder for track in self._attached if track.recorder}

    @property
    def histories(self) -> dict[str, GradientHistory]:
        """The history of each optimizer, by its name."""
        return {name: t.recorder.history for name, t in self._all.items() if t.recorder}

    @property
    def previous(self) -> list[GradientHistory]:
        """Histories that ended because other weights came to be trained."""
        return [history for track in self._all.values() for history in track.previous]

    def only_history(self) -> GradientHistory:
        """The history, if there is one and no other."""
        histories = self.histories
        if not histories:
            raise RuntimeError(
                "nothing was tracked yet: give the tracker to fit as a callback, or attach it"
            )
        if len(histories) > 1:
            raise ValueError(
                "several optimizers train this model, and each has a history: take one of "
                f"histories, which has {', '.join(histories)}"
            )
        return next(iter(histories.values()))

    def prefix(self, name: str) -> str:
        """What stands before an optimizer's numbers in logs and TensorBoard."""
        return "grad" if len(self.histories) == 1 else f"grad/{name}"


def _find_optimizers(model: keras.Model) -> dict[str, keras.optimizers.Optimizer]:
    """Every optimizer that a model holds and that makes updates, by the name of the attribute."""
    held: dict[str, Any] = {}
    # What begins with an underscore is the framework's own record of the same.
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
            # A MultiOptimizer hands its variables on to its parts, which it may first have to
            # choose, and makes no update of its own.
            if model.built and not value.built:
                value.build(model.trainable_variables)
            for part in shared.optimizers:
                same = sum(other.name == part.name for other in found.values())
                found[f"{name}_{part.name}" + (f"_{same + 1}" if same else "")] = part
    return found
