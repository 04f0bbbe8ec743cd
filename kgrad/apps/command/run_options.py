"""The options of `kgrad run`, and the experiments they describe."""

import argparse
import math
import re
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import chain
from typing import Any, NamedTuple

from kgrad.apps.command.main import Parser, integer, number
from kgrad.experiments.data import dataset_lines
from kgrad.experiments.experiment import (
    PRESETS,
    SHORT_NAMES,
    Experiment,
    grid,
    option_value,
    replicates,
)

FORMATS = ("png", "svg", "pdf")
MOST_OF_A_RANGE = 10_000  # values
RUNS_WITHOUT_YES, MOST_RUNS = 10_000, 1_000_000

DESCRIPTION = """\
Train small networks, track the gradient of every layer, and see it vanish, flow or explode.

Without options, four networks are trained with three seeds each: in one the gradients vanish, one
trains well, and in two they explode. Figures, a table and the recorded histories are written to a
folder, and the table is printed.
"""


def widths(text: str) -> int | tuple[int, ...]:
    """Read units per layer: `"64"` → 64, `"64,32"` → (64, 32)."""
    try:
        parts = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be one width, such as 64, or one per layer, such as 64,32,16; received {text!r}"
        ) from None
    return parts if len(parts) > 1 else parts[0]


def on_off(text: str) -> bool:
    """Read a switch: `"on"` → True, `"off"` → False."""
    if text.lower() not in ("on", "off"):
        raise argparse.ArgumentTypeError(f"must be on or off, received {text!r}")
    return text.lower() == "on"


def none_or(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a reader of `kind` that also accepts the word none."""
    return lambda text: None if text.lower() == "none" else kind(text)


_LOG_RANGE = re.compile(r"(?P<before>normal:)?(?P<low>[^:]+?)\.\.(?P<high>[^:]+?)(:(?P<count>.*))?")
_STEPS = re.compile(r"(?P<first>[^:]*):(?P<last>[^:]*):(?P<step>[^:]*)")
_POINTS = 8  # of LOW..HIGH


def expanded(read: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """Return a reader of one value or of a range.

    `"5:20:5"` is 5, 10, 15, 20. `"0.01..1"` is 8 values from 0.01 to 1, each the same factor from
    the next, and `"0.01..1:3"` is 3 of them: 0.01, 0.1, 1. An initializer's standard deviation may
    be such a range: `"normal:0.05..0.5"`.

    Args:
        read: returns one value.
    """

    def one_or_more(text: str) -> list[Any]:
        if found := _LOG_RANGE.fullmatch(text):
            return [read(word) for word in _log_range(text, found)]
        if read in (integer, number, widths) and (found := _STEPS.fullmatch(text)):
            return [read(word) for word in _steps(text, found, read is not number)]
        if "," not in text or read is widths:
            return [read(text)]
        raise argparse.ArgumentTypeError(
            f"must have spaces between its values, as in {' '.join(text.replace(',', ' ').split())}"
            f"; received {text!r}"
        )

    return one_or_more


def _log_range(text: str, found: "re.Match[str]") -> list[str]:
    """Return the words of a logarithmic range, whose ends are as they were written."""
    low, high = number(found["low"]), number(found["high"])
    count = _POINTS if found["count"] is None else integer(found["count"])
    if not (0 < low < high < math.inf and 2 <= count <= MOST_OF_A_RANGE):
        raise argparse.ArgumentTypeError(
            f"must be a range LOW..HIGH or LOW..HIGH:N with 0 < LOW < HIGH and N from 2 to "
            f"{MOST_OF_A_RANGE}, received {text!r}"
        )
    inner = [low * (high / low) ** (i / (count - 1)) for i in range(1, count - 1)]
    if found["before"] is None and low.is_integer() and high.is_integer():
        words = [str(round(value)) for value in inner]
    else:  # three digits, or as many as tell the values apart
        rounded = ([f"{value:.{digits}g}" for value in inner] for digits in range(3, 18))
        words = next(one for one in rounded if len(set(one)) == len(inner))
    before = found["before"] or ""
    return list(dict.fromkeys(before + word for word in (found["low"], *words, found["high"])))


def _steps(text: str, found: "re.Match[str]", whole: bool) -> list[str]:
    """Return the words of a range with steps; the last value is among them if a step meets it."""
    kind = integer if whole else number
    first, last, step = (Decimal(str(kind(found[name]))) for name in ("first", "last", "step"))
    count = int((last - first) / step) + 1 if step else 0
    if not (step > 0 and 1 <= count <= MOST_OF_A_RANGE):
        raise argparse.ArgumentTypeError(
            f"must be a range FIRST:LAST:STEP with FIRST up to LAST, a positive STEP and at most "
            f"{MOST_OF_A_RANGE:,} values, received {text!r}"
        )
    return [str(first + i * step) for i in range(count)]


class Axis(NamedTuple):
    """An option that takes several values, which make a grid of experiments.

    Attributes:
        field: the field of `Experiment` that it sets.
        read: returns the value of one word.
        help: the line in `--help`.
    """

    field: str
    read: Callable[[str], Any]
    help: str

    @property
    def option(self) -> str:
        """The name on the command line."""
        return f"--{SHORT_NAMES.get(self.field, self.field).replace('_', '-')}"


AXES = {
    "network": (
        Axis("activation", str, "any Keras activation: relu, sigmoid, tanh …"),
        Axis(
            "weight_initializer", str,
            "he, xavier, lecun, normal, normal:STDDEV, or any Keras initializer",
        ),
        Axis("bias_initializer", str, "zeros or normal:STDDEV (default: zeros)"),
        Axis("num_layers", integer, "number of hidden layers (default: 10)"),
        Axis(
            "units", widths,
            "units per hidden layer (default: 64), or one number for each: 64,32,16",
        ),
        Axis(
            "normalization", none_or(str),
            "none, batch or layer: placed before each activation (default: none)",
        ),
        Axis(
            "skip_connections", on_off,
            "skip connections around every two hidden layers: on or off (default: off)",
        ),
    ),
    "data": (
        Axis("dataset", str, "data sets to train on, listed below (default: classification)"),
        Axis("samples", integer, "number of samples (default: 1024; digits: all 1797)"),
        Axis(
            "features", integer,
            "number of input columns (default: listed below)",
        ),
    ),
    "training": (
        Axis("optimizer", str, "any Keras optimizer: sgd, adam … (default: sgd)"),
        Axis("learning_rate", number, "learning rate (default: 0.05)"),
        Axis(
            "clip_norm", none_or(number),
            "largest norm of all gradients together, or none (default: none)",
        ),
        Axis("epochs", integer, "passes over the data (default: 30)"),
        Axis("batch_size", integer, "samples per step (default: 32)"),
    ),
}  # fmt: skip
EVERY_AXIS = tuple(axis for axes in AXES.values() for axis in axes)
OPTIONS = {axis.field: axis.option for axis in EVERY_AXIS} | {
    "every": "--every",
    "statistics": "--statistics",
}
"""Field of `Experiment` → option."""


def parse(arguments: Sequence[str] | None = None, program: str = "kgrad run") -> argparse.Namespace:
    """Read the command line, without importing TensorFlow."""
    parser = new_parser(program, DESCRIPTION)
    what = parser.add_argument_group("what to run")
    add_runs(what, seeds=3)
    what.add_argument(
        "--load", nargs="+", metavar="PATH",
        help="redraw saved .jsonl histories, or all in a folder, without training",
    )  # fmt: skip
    add_experiments(parser)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--output", metavar="FOLDER",
        help="folder for figures, tables and histories (default: gradient_output, or "
        "gradient_output-2 and so on if that has other recorded runs)",
    )  # fmt: skip
    output.add_argument(
        "--overwrite", action="store_true",
        help="replace other recorded runs in the folder, and their figures",
    )  # fmt: skip
    output.add_argument(
        "--format", choices=FORMATS, default="png",
        help="file format of the figures (default: png)",
    )  # fmt: skip
    output.add_argument("--show", action="store_true", help="also open the figures in windows")
    return flattened(parser.parse_args(arguments))


def new_parser(program: str, description: str) -> Parser:
    """Return a parser, without options, whose help says how to write grids and lists data sets."""
    return Parser(
        prog=program,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n  ".join(
            [
                "Several values of a network, data or training option make a grid of experiments.\n"
                "5:20:5 is 5 10 15 20; 0.01..1 is 8 values from 0.01 to 1, each the same factor\n"
                "from the next, 0.01..1:3 is 3 of them; also normal:0.05..0.5.\n\ndata sets:",
                *dataset_lines(),
            ]
        ),
    )


def add_runs(group: Any, seeds: int) -> None:
    """Add the options that choose presets and seeds.

    Args:
        group: a parser or a group of its options.
        seeds: the default number of seeds.
    """
    group.add_argument(
        "--preset", nargs="+", choices=PRESETS, metavar="NAME",
        help=f"{', '.join(PRESETS)} (default: all, unless --activation or --initializer is given)",
    )  # fmt: skip
    group.add_argument(
        "--seeds", type=integer, default=seeds, metavar="N",
        help=f"runs per experiment (default: {seeds})",
    )  # fmt: skip


def add_experiments(parser: Parser) -> None:
    """Add the options that describe networks, data, training and what is recorded."""
    groups = {title: parser.add_argument_group(title) for title in AXES}
    for title, axes in AXES.items():
        for axis in axes:
            word = axis.option.rpartition("-")[2].upper()  # --batch-size → SIZE
            groups[title].add_argument(
                axis.option, dest=axis.field, nargs="+", type=expanded(axis.read), metavar=word,
                help=axis.help,
            )  # fmt: skip
    groups["training"].add_argument(
        "--jit", choices=("auto", "on", "off"), default="auto",
        help="compile with XLA; auto does so if the run is long enough to repay it (default: auto)",
    )  # fmt: skip
    recording = parser.add_argument_group("recording")
    recording.add_argument(
        "--every", type=integer, metavar="K", help="record every K steps (default: once per epoch)"
    )
    recording.add_argument(
        "--statistics", nargs="+", default=[], metavar="NAME",
        help="also record these, such as max_abs; a wrong name lists all",
    )  # fmt: skip
    recording.add_argument(
        "--distributions", action="store_true",
        help="also record how the entries of each gradient are distributed over magnitudes",
    )  # fmt: skip
    recording.add_argument(
        "--probe", action="store_true",
        help="also record activations and the gradients between layers, on one mini-batch; "
        "the flow graph shows them at its edges",
    )  # fmt: skip


def flattened(options: argparse.Namespace) -> argparse.Namespace:
    """Return the options with one list for each axis, in place of a list for each word."""
    for axis in EVERY_AXIS:
        if (words := getattr(options, axis.field)) is not None:
            setattr(options, axis.field, list(chain.from_iterable(words)))
    return options


def experiments_of(options: argparse.Namespace, yes: bool = False) -> list[Experiment]:
    """Return what the options describe: presets or one network, over a grid and over seeds.

    Args:
        options: what `parse` returned.
        yes: whether to make a grid of very many runs.

    Raises:
        ValueError: if the options contradict each other, or make too many runs.
    """
    if options.activation or options.weight_initializer:
        if options.preset:
            raise ValueError(
                "--preset fixes the activation and the initializer: "
                "leave it out, or leave out --activation and --initializer"
            )
        names = [(options.activation or ["relu"])[0], (options.weight_initializer or ["he"])[0]]
        varied = [len(options.activation or []) > 1, len(options.weight_initializer or []) > 1]
        named = [name for name, varies in zip(names, varied, strict=True) if not varies]
        bases = [Experiment(name=", ".join(named) or "network")]
    else:
        bases = [base for name in options.preset or PRESETS for base in PRESETS[name]]
    if options.seeds < 1:
        raise ValueError(f"--seeds must be at least 1, received {options.seeds}")
    lengths = [len(getattr(options, axis.field) or [None]) for axis in EVERY_AXIS]
    runs = math.prod([len(bases), options.seeds, *lengths])
    if runs > (MOST_RUNS if yes else RUNS_WITHOUT_YES):
        raise ValueError(
            f"the grid and --seeds must make at most {RUNS_WITHOUT_YES:,} runs, or with "
            f"kgrad sweep --yes {MOST_RUNS:,}, received {runs:,}: leave values out"
        )
    common: dict[str, Any] = {
        "every": "epoch" if options.every is None else options.every,
        "jit_compile": {"auto": "auto", "on": True, "off": False}[options.jit],
        "statistics": tuple(options.statistics),
        "distributions": options.distributions,
        "probe": options.probe,
    }
    axes = {
        axis.field: values
        for axis in EVERY_AXIS
        if (values := getattr(options, axis.field)) is not None
    }
    given = {OPTIONS[field]: values for field, values in axes.items()}
    for option, values in (given | {"--preset": options.preset or ["all"]}).items():
        # In any case: the runs would be recorded in files of the same name.
        (word, count), *_ = Counter(option_value(value).lower() for value in values).most_common(1)
        if count > 1:
            raise ValueError(f"{option} must have values that differ, received {word!r} twice")
    return [
        experiment
        for base in bases
        for point in grid(replace(base, **common), **axes)
        for experiment in replicates(point, options.seeds)
    ]


def command_of(experiment: Experiment, runs: int) -> str:
    """Return the command that trains an experiment again, with seeds from 0."""
    words = ["python", "-m", "kgrad", "run"]
    for axis in EVERY_AXIS:
        value, default = getattr(experiment, axis.field), getattr(type(experiment), axis.field)
        if value != default or axis.field in ("activation", "weight_initializer"):
            words += [axis.option, option_value(value)]
    if experiment.every != "epoch":
        words += ["--every", str(experiment.every)]
    if experiment.statistics:
        words += ["--statistics", *map(str, experiment.statistics)]
    words += [f"--{name}" for name in ("distributions", "probe") if getattr(experiment, name)]
    return shlex.join([*words, "--seeds", str(runs)])
