"""One optimizer's updates, measured: what stands between a hook and a recorder."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kgrad.descriptions import Selection, describe_run, describe_weights, select_weights
from kgrad.history import GradientHistory
from kgrad.hooks import Gradients, clips, listen_to_updates
from kgrad.recorder import Recorder


@dataclass(frozen=True)
class Options:
    """What a tracker was asked to record; see `GradientTracker`."""

    statistics: Sequence[str] = ()
    weights: Selection = None
    clipped: bool | None = None
    distributions: bool = False
    journal: str | os.PathLike[str] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Track:
    """Feeds the updates of one optimizer to a recorder.

    The recorder is made as soon as the weights are known, which for a model that is not built is
    when its first update is traced.

    Args:
        name: what the optimizer is called.
        options: what to record.

    Attributes:
        recorder: the recorder, or None before the weights are known.
        previous: histories that ended because other weights came to be trained.
    """

    def __init__(self, name: str, options: Options) -> None:
        self.name = name
        self.recorder: Recorder | None = None
        self.previous: list[GradientHistory] = []
        self._options = options
        self._recorders = 0

    def begin(
        self,
        optimizer: keras.optimizers.Optimizer,
        model: keras.Model,
        *,
        outputs: Sequence[str] = (),
        whole: bool = True,
        by_entry: bool = False,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Listen to an optimizer from now on.

        Args:
            optimizer: a Keras optimizer that trains weights of the model.
            model: a Keras model.
            outputs: names of the layer outputs of which `record` will be given activations.
            whole: whether the optimizer trains all weights of the model; those of which it trains
                a part are known once it is built.
            by_entry: see `Recorder`.
            metadata: what the history shall say beside what the options say.
        """
        self._optimizer, self._model = optimizer, model
        self._outputs, self._by_entry, self._found = outputs, by_entry, dict(metadata or {})
        self._inner = getattr(optimizer, "inner_optimizer", optimizer)
        self._ready: Recorder | None = None  # before it is known which weights this is about
        self._has_values = self._inner.built or model.built
        if self._inner.built or (model.built and whole):
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
        self._prepared().update(variables, gradients, clipped)

    def attempt(self, variables: Sequence[keras.Variable], gradients: Gradients) -> None:
        """Count a step that may yet be skipped; called in its graph."""
        self._prepared().attempt(variables, gradients)

    def _prepared(self) -> Recorder:
        if self._ready is None:
            if tf.distribute.has_strategy():
                # Made in a replica, the recorder's variables would be those of one replica.
                raise ValueError(
                    f"optimizer {self.name!r} must be built before training under a distribution "
                    "strategy: call optimizer.build(model.trainable_variables)"
                )
            with tf.init_scope():  # variables outlive the trace in which they are made
                recorder = self._prepare()
        else:
            recorder = self._ready
        if not self._has_values:
            with tf.init_scope():
                recorder.close()
                recorder.resume()
                # Those that the model makes in a trace have no values before the next one.
                self._has_values = all(v.value.is_initialized() for v in recorder.variables)
        return recorder

    def _prepare(self) -> Recorder:
        """Make the recorder, or go on with that of the last `fit` if it watches the same."""
        watched = self._watched()
        if self.recorder is not None:
            if [id(v) for v in self.recorder.variables] == [id(v) for v in watched]:
                self.recorder.resume()
                self._ready = self.recorder
                return self.recorder
            self.previous.append(self.recorder.history)
        clipped = self._options.clipped
        self._recorders += 1
        self._ready = self.recorder = Recorder(
            self._model,
            self._options.statistics,
            variables=watched,
            clipped=clips(self._optimizer) if clipped is None else clipped,
            distributions=self._options.distributions,
            outputs=self._outputs,
            by_entry=self._by_entry,
            journal=self._journal(),
            metadata=describe_run(self._model, self._optimizer)
            | self._found
            | dict(self._options.metadata),
        )
        return self.recorder

    def _watched(self) -> list[keras.Variable]:
        """The variables that this optimizer trains and the user chose, in the model's order."""
        described = describe_weights(self._model)
        known = self._inner._trainable_variables if self._inner.built else self._model.weights
        candidates = {id(variable) for variable in known}
        trained = [
            variable
            for variable in self._model.weights
            if variable.trainable
            and id(variable) in described
            and id(variable) in candidates
            and not getattr(variable, "overwrite_with_gradient", False)
        ]
        if not trained:
            raise ValueError(
                f"model {self._model.name!r} must have trainable weights, received none: "
                "set trainable = True on a layer"
            )
        weights = [described[id(variable)] for variable in trained]
        return [trained[i] for i in select_weights(weights, self._options.weights)]

    def _journal(self) -> Path | None:
        """The journal's path: the one asked for is that of the first optimizer's first history."""
        if self._options.journal is None:
            return None
        path = Path(self._options.journal)
        parts = [path.stem] + ([] if self.name == "optimizer" else [self.name])
        parts += [str(self._recorders)] if self._recorders > 1 else []
        return path.with_name("-".join(parts) + path.suffix)


def find_optimizers(model: keras.Model) -> dict[str, keras.optimizers.Optimizer]:
    """Every optimizer that a model holds and that makes updates, by the name of the attribute."""
    found: dict[str, keras.optimizers.Optimizer] = {}
    for name, value in vars(model).items():
        if isinstance(value, keras.optimizers.Optimizer) and value not in found.values():
            # A MultiOptimizer hands its variables on, and makes no update of its own.
            parts = getattr(getattr(value, "inner_optimizer", value), "optimizers", ())
            if not parts:
                found[name] = value
            for part in parts:
                same = sum(other.name == part.name for other in found.values())
                found[f"{name}_{part.name}" + (f"_{same + 1}" if same else "")] = part
    return found
