"""Choices of what a figure draws: arguments checked, moments and layers chosen, values computed.

Both libraries draw what these functions return. A run without a name of its own is named "".
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from kgrad.figures.scale import Scale, with_missing
from kgrad.figures.thinning import denser_early
from kgrad.records.checks import did_you_mean
from kgrad.records.history import GradientHistory, refuse_tracker, require_history
from kgrad.records.prediction import Prediction
from kgrad.records.statistics import STATISTICS, needs_gradient
from kgrad.records.trials import SKILL, Trial, Trials

Runs = GradientHistory | Mapping[str, GradientHistory]
Replicates = GradientHistory | Sequence[GradientHistory]

MOST_MOMENTS = 5  # drawn against depth by default
MOST_REMEDIES = 4  # more cannot be distinguished
_DECADES_FOR_LOG = 1.3  # losses over fewer decades have a linear axis
_LEAST_SPAN = 0.1  # of a linear axis of losses, as a share of the largest
# The lowest skill that is drawn.
_LEAST_SKILL = -0.2


# --- Arguments


def require_drawable(histories: Mapping[str, Any], statistic: str) -> None:
    """Check that every history, named by its argument, has a record and the statistic."""
    for argument, history in histories.items():
        require_history(argument, history)
        if statistic not in history.statistics:
            fix = ": ask for it when you train"
            if statistic not in STATISTICS:
                fix = did_you_mean(statistic, history.statistics, cutoff=0)
            raise ValueError(
                f"statistic must be one that {argument} recorded "
                f"({', '.join(history.statistics)}), received {statistic!r}{fix}"
            )


def require_mapping(argument: str, given: Any) -> dict[str, Any]:
    """Return a mapping from names to histories as a dict.

    Raises:
        TypeError: if it is no mapping.
        ValueError: if it is empty.
    """
    if not isinstance(given, Mapping):
        raise TypeError(
            f"{argument} must map names to histories, received {type(given).__name__}: "
            'pass a dict such as {"relu": history}'
        )
    if not given:
        raise ValueError(f"{argument} must hold at least one history, received an empty mapping")
    return dict(given)


def require_replicates(argument: str, given: Any) -> list[Any]:
    """Return a sequence of histories as a list.

    Raises:
        TypeError: if it is no sequence.
        ValueError: if it is empty.
    """
    refuse_tracker(argument, given)
    if isinstance(given, GradientHistory | str) or not isinstance(given, Sequence):
        raise TypeError(
            f"{argument} must be a sequence of histories, received {type(given).__name__}: "
            "pass a list with one history per seed"
        )
    if not given:
        raise ValueError(f"{argument} must hold at least one history, received none")
    return list(given)


def drawable_runs(given: Any, statistic: str) -> dict[str, GradientHistory]:
    """Return the argument `history`, a history or a mapping to histories, as name → history.

    Raises:
        TypeError: if it is neither.
        ValueError: if there is no history, or one has no record or not the statistic.
    """
    if not isinstance(given, Mapping):
        require_drawable({"history": given}, statistic)
        return {"": given}
    runs = require_mapping("history", given)
    require_drawable({f"history[{name!r}]": one for name, one in runs.items()}, statistic)
    return runs


def drawable_groups(given: Any, statistic: str) -> dict[str, list[GradientHistory]]:
    """Return the argument `histories`, replicates or a mapping to replicates, as name → replicates.

    Raises:
        TypeError: if it is neither.
        ValueError: if there is no history, one has no record or not the statistic, or replicates
            have different layers.
    """
    if isinstance(given, Mapping):
        groups = {
            name: require_replicates(f"histories[{name!r}]", some)
            for name, some in require_mapping("histories", given).items()
        }
    else:
        groups = {"": require_replicates("histories", given)}
    for name, group in groups.items():
        label = f"histories[{name!r}]" if name else "histories"
        require_drawable({f"{label}[{i}]": one for i, one in enumerate(group)}, statistic)
        for i, one in enumerate(group):
            if one.layers != group[0].layers:
                raise ValueError(
                    f"{label} must all have the same layers, but [{i}] has {len(one.layers)} "
                    f"({', '.join(one.layers):.60}) and [0] has {len(group[0].layers)} "
                    f"({', '.join(group[0].layers):.60}): pass runs of one model"
                )
    return groups


# --- Values


def layer_values(history: GradientHistory, statistic: str) -> np.ndarray:
    """Return what is drawn of a statistic, (records, layers): `by_layer` and what is missing."""
    values = history.by_layer(statistic)
    if not needs_gradient(statistic):
        return values
    return with_missing(values, history.missing_by_layer)


# --- Time


def time_axis(histories: Iterable[GradientHistory]) -> tuple[str, list[np.ndarray]]:
    """Return the coarsest clock that separates all records, and the times of each history.

    Returns:
        "epoch", "step" or "record"; and the time of each history's records, (records,).
    """
    histories = list(histories)
    for name, times in (
        ("epoch", [history.epochs for history in histories]),
        ("step", [history.steps for history in histories]),
    ):
        if all((np.diff(one) > 0).all() for one in times):
            return name, times
    return "record", [np.arange(len(history)) for history in histories]


def chosen_epochs(epochs: Sequence[int], times: Sequence[np.ndarray]) -> list[int]:
    """Return the argument `epochs` without repetitions.

    Args:
        epochs: epochs to draw.
        times: the recorded epochs of each history.

    Raises:
        ValueError: if there is none, or a history has no record of one.
    """
    if not len(epochs):
        raise ValueError(
            "epochs must name at least one epoch, received none: leave it out for the default"
        )
    for epoch in epochs:
        for known in times:
            if epoch not in known:
                listed = [str(one) for one in np.unique(known)]
                if len(listed) > 8:
                    listed = [*listed[:5], "…", *listed[-2:]]
                raise ValueError(
                    f"epochs must be among those recorded ({', '.join(listed)}), received "
                    f"{epoch!r}: choose one of these"
                )
    return [int(epoch) for epoch in dict.fromkeys(epochs)]


def input_is_above(values: np.ndarray, scale: Scale) -> bool:
    """Return whether lines near the input are above those near the output, for their color key.

    Args:
        values: (records, layers).
        scale: the scale of the y axis.
    """
    half = (values.shape[1] + 1) // 2
    first, last = values[:, :half], values[:, -half:]
    first, last = first[scale.ordinary(first)], last[scale.ordinary(last)]
    return not (first.size and last.size) or bool(np.median(first) >= np.median(last))


# --- Gradient against depth


class Profile(NamedTuple):
    """Values to draw against depth at one moment.

    Attributes:
        label: the moment, such as "epoch 3"; may be empty.
        values: (replicates, layers).
    """

    label: str
    values: np.ndarray


Panels = dict[str, tuple[tuple[str, ...], list[Profile]]]  # name → layers and profiles


def profiles(
    groups: Mapping[str, Sequence[GradientHistory]],
    statistic: str,
    epochs: Sequence[int] | None,
    most: int = MOST_MOMENTS,
) -> Panels:
    """Return each group's values at the same moments, each by its last record.

    Args:
        groups: name → replicates.
        statistic: a statistic of all of them.
        epochs: the epochs; None for moments that all histories have, more of them early.
        most: the largest number of moments if `epochs` is None.

    Raises:
        ValueError: if an epoch was not recorded, or the histories have no moment in common.
    """
    histories = [history for group in groups.values() for history in group]
    if epochs is None:
        time, times = time_axis(histories)
        common = sorted(set.intersection(*(set(one.tolist()) for one in times)))
        if not common:
            raise ValueError(
                f"the histories must have a recorded {time} in common, received none: pass "
                "runs that were recorded at the same times"
            )
        moments = [common[i] for i in denser_early(len(common), most)]
    else:
        time, times = "epoch", [history.epochs for history in histories]
        moments = chosen_epochs(epochs, times)
    at = iter(times)
    panels = {}
    for name, group in groups.items():
        runs = [(next(at), layer_values(history, statistic)) for history in group]
        panels[name] = (
            group[0].layers,
            [
                Profile(f"{time} {moment}", np.stack([v[t <= moment][-1] for t, v in runs]))
                for moment in moments
            ],
        )
    return panels


def scale_of_panels(panels: Panels, statistic: str, predicted: Iterable["Predicted"] = ()) -> Scale:
    """Return the scale that holds all values of the panels, and lines and bands predicted."""
    arrays = [profile.values for _, some in panels.values() for profile in some]
    return Scale.of(statistic, arrays + [array for one in predicted for array in one.drawn()])


def range_of(values: np.ndarray, logarithmic: bool) -> np.ndarray:
    """Return minimum, median and maximum over replicates: (replicates, n) → (3, n).

    The median is that of logarithms if `logarithmic`. Zeros and infinities are ranked as what they
    are. NaN has no rank and is left out.
    """
    result = np.full((3, values.shape[1]), np.nan)
    for i, column in enumerate(values.T):
        ranked = np.sort(column[~np.isnan(column)])
        if ranked.size:
            below, above = ranked[(ranked.size - 1) // 2], ranked[ranked.size // 2]
            result[:, i] = ranked[0], _middle(below, above, logarithmic), ranked[-1]
    return result


def _middle(below: float, above: float, logarithmic: bool) -> float:
    """Return the mean of two numbers, or of their logarithms."""
    if below == above:
        return below
    with np.errstate(invalid="ignore"):  # 0 and infinity have no middle
        return np.sqrt(below) * np.sqrt(above) if logarithmic else below / 2 + above / 2


# --- Predictions


class Predicted(NamedTuple):
    """A prediction of one statistic of the dense layers.

    Layers of normalization are left out: their few weights are on another scale.

    Attributes:
        dense: True for each dense layer of the model, (layers,).
        low: lower end of the band that holds 95 % of networks, (dense layers,).
        line: the prediction, (dense layers,).
        high: upper end of the band.
    """

    dense: np.ndarray
    low: np.ndarray
    line: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, prediction: Prediction, statistic: str) -> "Predicted":
        """Return the numbers of a prediction."""
        dense = np.array([name in prediction.sigma_w2 for name in prediction.layers])
        return cls(
            dense,
            *(
                one.by_layer(statistic)[0, dense]
                for one in (prediction.lower, prediction, prediction.upper)
            ),
        )

    def drawn(self) -> list[np.ndarray]:
        """Return the values that need a place on an axis.

        The band has no marks: where it reaches 0 or infinity it leaves the axis.
        """
        band = np.concatenate([self.low, self.high])
        return [self.line, band[np.isfinite(band) & (band > 0)]]


def at_epoch_0(histories: Sequence[GradientHistory], statistic: str) -> np.ndarray:
    """Return the values of each history's first record of epoch 0: (histories, layers)."""
    first = [np.flatnonzero(history.epochs == 0)[0] for history in histories]
    return np.stack([layer_values(h, statistic)[i] for i, h in zip(first, histories, strict=True)])


def predicted_groups(
    history: Any, prediction: Any, statistic: str
) -> dict[str, tuple[list[GradientHistory], Prediction]]:
    """Return the arguments of `plot_prediction` as name → replicates and their prediction.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if names differ, or a history and its prediction do not fit.
    """
    if isinstance(history, Mapping) or isinstance(prediction, Mapping):
        given = require_mapping("history", history)
        if not isinstance(prediction, Mapping) or set(prediction) != set(given):
            received = (
                ", ".join(map(repr, prediction))
                if isinstance(prediction, Mapping)
                else type(prediction).__name__
            )
            raise ValueError(
                f"prediction must map the names in history ({', '.join(map(repr, given)):.100}) "
                f"to predictions, received {received:.100}: pass one for each"
            )
        pairs = {name: (some, prediction[name]) for name, some in given.items()}
    else:
        pairs = {"": (history, prediction)}
    groups = {}
    for name, (some, one) in pairs.items():
        at = f"[{name!r}]" if name else ""
        single = isinstance(some, GradientHistory)
        group = [some] if single else require_replicates(f"history{at}", some)
        for i, measured in enumerate(group):
            label = f"history{at}[{i}]" if len(group) > 1 else f"history{at}"
            require_predicted(label, measured, f"prediction{at}", one, statistic)
        groups[name] = (group, one)
    return groups


def predictions_of(
    runs: Mapping[str, GradientHistory], prediction: Any, statistic: str
) -> dict[str, Prediction]:
    """Return the argument `prediction`, one or a mapping or None, as name → prediction.

    Args:
        runs: the histories, by name; "" for a single one.
        prediction: of the single run; or name → prediction, for some of several runs.
        statistic: the statistic that is drawn.

    Raises:
        TypeError: if something is no prediction.
        ValueError: if a name is unknown, or a history and its prediction do not fit.
    """
    if prediction is None:
        return {}
    single = list(runs) == [""]
    if single and not isinstance(prediction, Mapping):
        require_predicted("history", runs[""], "prediction", prediction, statistic)
        return {"": prediction}
    if not isinstance(prediction, Mapping) or not set(prediction) <= set(runs):
        received = (
            ", ".join(map(repr, prediction))
            if isinstance(prediction, Mapping)
            else type(prediction).__name__
        )
        expected = "a Prediction" if single else f"a mapping of {', '.join(map(repr, runs))}"
        raise ValueError(
            f"prediction must be {expected:.100}, as history is, received {received:.100}"
        )
    for name, one in prediction.items():
        label = f"[{name!r}]"
        require_predicted(f"history{label}", runs[name], f"prediction{label}", one, statistic)
    return dict(prediction)


def require_predicted(
    argument: str, history: Any, prediction_argument: str, prediction: Any, statistic: str
) -> None:
    """Check that a history has a record of epoch 0 that can be drawn over this prediction."""
    require_drawable({argument: history}, statistic)
    if not isinstance(prediction, Prediction):
        raise TypeError(
            f"{prediction_argument} must be a Prediction, received {type(prediction).__name__}: "
            "pass what predict_gradients returned"
        )
    if statistic not in prediction.statistics:
        raise ValueError(
            f"statistic must be one that is predicted ({', '.join(prediction.statistics)}), "
            f"received {statistic!r}: choose one of these"
        )
    if 0 not in history.epochs:
        raise ValueError(
            f"{argument} must have a record of epoch 0, received epochs from "
            f"{history.epochs[0]} on: gradients are predicted before training"
        )
    if history.layers != prediction.layers:
        raise ValueError(
            f"{argument} must have the layers of {prediction_argument} "
            f"({', '.join(prediction.layers):.60}), received {len(history.layers)} "
            f"({', '.join(history.layers):.60}): predict the model that was measured"
        )


def shared_scale(
    histories: Iterable[GradientHistory], predictions: Iterable[Prediction], statistic: str
) -> Scale:
    """Return the scale that holds all records of several runs, and lines and bands predicted."""
    arrays = [layer_values(history, statistic) for history in histories]
    for prediction in predictions:
        arrays += Predicted.of(prediction, statistic).drawn()
    return Scale.of(statistic, arrays)


def scale_before_training(
    pairs: Iterable[tuple[Sequence[GradientHistory], Prediction]], statistic: str
) -> Scale:
    """Return the scale that holds the dense layers at epoch 0, measured and predicted."""
    arrays = []
    for histories, prediction in pairs:
        predicted = Predicted.of(prediction, statistic)
        arrays += [*predicted.drawn(), at_epoch_0(histories, statistic)[:, predicted.dense]]
    return Scale.of(statistic, arrays)


# --- Activations

MEAN, STD = "activation_mean", "activation_std"
SHARES = {
    "activation_zero_fraction": "share of zeros",
    "activation_saturated": "share saturated",
    "activation_dead": "share of dead units",
}
_ROWS: tuple[dict[str, str], ...] = (
    {MEAN: "mean activation", STD: "standard deviation"},
    SHARES,
    {"signal_mean_abs": "back-propagated mean |∂L/∂a|"},
)
ACTIVATION_TITLES = {name: title for row in _ROWS for name, title in row.items()}


class Activations(NamedTuple):
    """The contents of a figure of activations.

    Attributes:
        rows: names of the statistics that were measured, row by row.
        tables: name → (records, outputs), the records that have activations only.
        scales: name → its scale.
        time: "epoch", "step" or "record".
        times: when these records were made, (records,).
    """

    rows: list[list[str]]
    tables: dict[str, np.ndarray]
    scales: dict[str, Scale]
    time: str
    times: np.ndarray


def drawable_activations(history: Any) -> Activations:
    """Return what a figure of a history's activations draws.

    Raises:
        TypeError: if it is not a `GradientHistory`.
        ValueError: if no record has activations.
    """
    require_history("history", history)
    records = [i for i in range(len(history)) if history.record(i)["activations"]]
    tables = {name: table[records] for name, table in history.activations.items()}
    rows = [[name for name in row if name in tables and _applies(name, tables)] for row in _ROWS]
    rows = [row for row in rows if row]
    if not rows:
        raise ValueError(
            "history must have activations, received none: ask for them when you train"
        )
    scales = {name: _activation_scale(name, tables) for row in rows for name in row}
    time, (times,) = time_axis([history])
    return Activations(rows, tables, scales, time, times[records])


def _applies(name: str, tables: Mapping[str, np.ndarray]) -> bool:
    """Return whether any layer has the share: NaN means that a layer cannot saturate."""
    return name not in SHARES or not np.isnan(tables[name]).all()


def _activation_scale(name: str, tables: Mapping[str, np.ndarray]) -> Scale:
    """Return a linear scale for shares and means, otherwise a logarithmic one."""
    # A mean may be negative.
    values = tables[name]
    if name in SHARES:
        return Scale.of(name, [values[~np.isnan(values)]], logarithmic=False)
    scale = Scale.of(name, [values], logarithmic=name != MEAN)
    if name != MEAN:
        return scale
    ends = np.append(values, 0.0)
    if len(values) == 1 and STD in tables:
        ends = np.append(deviation_bars(tables), ends)
    ends = ends[np.isfinite(ends)]
    low, high = float(ends.min()), float(ends.max())
    return replace(scale, low=low, high=high if high > low else 1.0)


def deviation_bars(tables: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the first record's mean minus and plus one standard deviation: (2, outputs).

    NaN if one of them is not finite.
    """
    mean, std = (np.where(np.isfinite(t[0]), t[0], np.nan) for t in (tables[MEAN], tables[STD]))
    return np.stack([mean - std, mean + std])


# --- Remedies


def drawable_trials(trials: Any, most: int, statistic: str) -> tuple[Trial, ...]:
    """Return the unchanged run and the best `most` remedies.

    Raises:
        TypeError: if `trials` is no `Trials`.
        ValueError: if `most` is out of range, or the statistic was not recorded.
    """
    if not isinstance(trials, Trials):
        raise TypeError(
            f"trials must be Trials, received {type(trials).__name__}: pass what try_remedies "
            "returned"
        )
    if most not in range(1, MOST_REMEDIES + 1):
        raise ValueError(f"most must be an integer from 1 to {MOST_REMEDIES}, received {most!r}")
    shown = trials[: most + 1]
    require_drawable(
        {f"trials[{i}].history": trial.history for i, trial in enumerate(shown)}, statistic
    )
    return shown


def trial_values(trials: Trials, shown: Sequence[Trial], statistic: str) -> list[np.ndarray]:
    """Return what is drawn of each trial, (records, layers): values and what is missing."""
    values = [trials.by_layer(trial, statistic) for trial in shown]
    if not needs_gradient(statistic):
        return values
    return [
        with_missing(one, trials.missing(trial)) for one, trial in zip(values, shown, strict=True)
    ]


def compared_values(
    trials: Trials, shown: Sequence[Trial], times: Sequence[np.ndarray]
) -> tuple[str, list[np.ndarray], list[np.ndarray], Scale]:
    """Return what ranks the trials, over time: the skill, or the loss if the skill is unknown.

    Returns:
        Its name, the values of each trial, their times, and the scale. The skill is not known
        before training, and far below 0 it is cut off: it is as bad as a constant answer there.
    """
    if not trials.metric:
        losses = [trial.history.logs["loss"] for trial in shown]
        return "loss", losses, list(times), loss_scale(losses)
    values = [trial.history.logs[SKILL][1:] for trial in shown]
    scale = Scale.of("loss", values, logarithmic=False)
    scale = replace(scale, low=_LEAST_SKILL, high=1.0)
    is_cut = any((one < _LEAST_SKILL).any() for one in values)
    values = [np.where(one < _LEAST_SKILL, _LEAST_SKILL, one) for one in values]
    name = f"skill, by {trials.metric}{f' (below {_LEAST_SKILL:g}: cut off)' if is_cut else ''}"
    return name, values, [at[1:] for at in times], scale


class Losses(NamedTuple):
    """The losses of some runs.

    Attributes:
        values: of each run, (records,).
        scale: the scale of all of them.
    """

    values: list[np.ndarray]
    scale: Scale


def losses_of(histories: Iterable[GradientHistory]) -> Losses | None:
    """Return the losses to draw above the gradients; None if a run has none."""
    logs = [history.logs.get("loss") for history in histories]
    losses = [one for one in logs if one is not None]
    return Losses(losses, loss_scale(losses)) if losses and len(losses) == len(logs) else None


def loss_scale(losses: Sequence[np.ndarray]) -> Scale:
    """Return the scale of several runs' losses: logarithmic if they span decades.

    A linear axis spans at least a tenth of the largest loss: one that hardly changes looks flat.
    """
    every = np.concatenate(losses)
    finite = every[np.isfinite(every)]
    decades = 0.0
    if finite.size and finite.min() > 0:
        decades = float(np.log10(np.ptp(finite) / finite.min() + 1))
    scale = Scale.of("loss", losses, logarithmic=decades > _DECADES_FOR_LOG)
    if scale.logarithmic:
        return scale
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    wider = max(0.0, _LEAST_SPAN * (abs(high) or 1.0) - (high - low)) / 2
    return replace(scale, low=low - wider, high=high + wider)
