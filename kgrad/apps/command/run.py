"""Train small networks, track every layer's gradient, and see it vanish, flow or explode.

Without options it trains four networks with three seeds each: one whose gradients vanish, one that
trains well, and two whose gradients explode. It leaves figures, a table and the recorded histories
in a folder, and prints the table.
"""

import argparse
import csv
import importlib.util
import os
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kgrad.experiments.names import LONG_NAMES

if TYPE_CHECKING:  # TensorFlow takes seconds to import: not before it is known to be needed
    from matplotlib.figure import Figure

    from kgrad.diagnosis import Diagnosis
    from kgrad.experiments import Experiment, Prepared
    from kgrad.experiments.prediction.predict import Prediction
    from kgrad.records.history import GradientHistory

PRESETS = ("vanishing", "healthy", "exploding")
# options that make a grid when they get several values
AXES = (
    "activation", "initializer", "layers", "units", "normalization", "skip",
    "dataset", "samples", "features",
    "optimizer", "learning_rate", "clip_norm", "epochs", "batch_size",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None, program: str = "kgrad run") -> int:
    """Run the program; returns its exit status: 0, 2 for bad input, 130 when interrupted."""
    options = parse(arguments, program)
    try:
        return run(options)
    except (MemoryError, OSError, TypeError, ValueError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; finished records are in the .jsonl files", file=sys.stderr)
        return 130


def parse(arguments: Sequence[str] | None = None, program: str = "kgrad run") -> argparse.Namespace:
    """Read the command line, without importing TensorFlow."""
    parser = argparse.ArgumentParser(
        prog=program,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Several values of a network's, data's or training's option make a grid of runs.",
    )
    what = parser.add_argument_group("what to run")
    what.add_argument(
        "--preset", nargs="+", choices=PRESETS, metavar="NAME",
        help=f"{', '.join(PRESETS)}; all of them, unless an activation or initializer is named",
    )  # fmt: skip
    what.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of each (3)")
    what.add_argument(
        "--load", nargs="+", metavar="PATH",
        help="redraw saved .jsonl histories, or all in a folder, without training",
    )  # fmt: skip
    network = parser.add_argument_group("the network")
    several(network, "--activation", str, "relu, sigmoid, tanh, gelu …: any that Keras has")
    several(
        network, "--initializer", str, "he, xavier, lecun, normal, normal:STDDEV …: any of Keras's"
    )
    several(network, "--layers", int, "number of hidden layers (10)")
    several(network, "--units", widths, "their width (64), or one for each: 64,32,16")
    several(network, "--normalization", none_or(str), "none, batch or layer, before the activation")
    several(network, "--skip", on_off, "skip connections around pairs of layers: on or off")
    data = parser.add_argument_group("the data")
    several(
        data, "--dataset", str,
        "classification, regression, circles, moons, blobs, spirals, noise, or digits: real",
    )  # fmt: skip
    several(data, "--samples", int, "how many (1024; digits: all 1797)")
    several(data, "--features", int, "how many columns (20; the plane's shapes: 2)")
    add_training_options(parser)
    output = parser.add_argument_group("what it leaves")
    output.add_argument(
        "--output", default="gradient_output", metavar="FOLDER", help="where (gradient_output)"
    )
    output.add_argument("--format", choices=("png", "svg", "pdf"), default="png", help="(png)")
    output.add_argument("--show", action="store_true", help="open the figures in windows, too")
    return parser.parse_args(arguments)


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Add what describes the loop."""
    training = parser.add_argument_group("the training")
    several(training, "--optimizer", str, "sgd, adam …: any that Keras has (sgd)")
    several(training, "--learning-rate", float, "its learning rate (0.05)")
    several(training, "--clip-norm", none_or(float), "bound on the norm of all gradients together")
    several(training, "--epochs", int, "passes over the data (30)")
    several(training, "--batch-size", int, "samples a step (32)")
    training.add_argument(
        "--every", type=int, metavar="K", help="a record every K steps, not every epoch"
    )
    training.add_argument(
        "--statistics", nargs="+", default=[], metavar="NAME",
        help="record these as well: max_abs, zero_fraction",
    )  # fmt: skip
    training.add_argument(
        "--distributions", action="store_true", help="count each gradient's entries by magnitude"
    )
    training.add_argument(
        "--probe", action="store_true",
        help="measure what layers put out and what gradient comes back: the flow graph's edges",
    )  # fmt: skip
    training.add_argument(
        "--jit", choices=("auto", "on", "off"), default="auto",
        help="compile with XLA; auto: where the run is long enough to repay it",
    )  # fmt: skip


def several(group: Any, name: str, kind: Any, text: str) -> None:
    """Add an option that takes several values."""
    group.add_argument(name, nargs="+", type=kind, metavar=kind_name(name), help=text)


def kind_name(option: str) -> str:
    """The word that stands for an option's value in the help: `--batch-size` → `SIZE`."""
    return option.rsplit("-", 1)[-1].upper()


def widths(text: str) -> int | tuple[int, ...]:
    """`"64"` → 64, `"64,32"` → (64, 32)."""
    try:
        parts = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be one width, such as 64, or one a layer, such as 64,32,16; received {text!r}"
        ) from None
    return parts if len(parts) > 1 else parts[0]


def on_off(text: str) -> bool:
    """`"on"` → True, `"off"` → False."""
    if text.lower() not in ("on", "off"):
        raise argparse.ArgumentTypeError(f"must be on or off, received {text!r}")
    return text.lower() == "on"


def none_or(kind: Any) -> Any:
    """A reader of `kind` that takes the word none, too."""

    def value(text: str) -> Any:
        return None if text.lower() == "none" else kind(text)

    value.__name__ = kind.__name__
    return value


def run(options: argparse.Namespace) -> int:
    """Train or load, then draw, tabulate and print."""
    folder = writable_folder(options.output)
    import_tensorflow_quietly()
    prepared: dict[str, Prepared] = {}
    if options.load:
        from kgrad.experiments import load_histories

        histories, interrupted = load_histories(options.load), False
        if not histories:
            raise ValueError(f"--load found no record to draw in {', '.join(options.load)!r}")
    else:
        histories, prepared, interrupted = train(options, folder)
    groups = by_name(histories)
    predictions = predict(groups, prepared)
    diagnoses = find(groups)
    files = [folder / "table.csv", folder / "findings.csv"]
    write_table(groups, predictions, files[0])
    write_findings(groups, diagnoses, files[1])
    figures = draw(groups, predictions)
    for name, figure in figures.items():
        path = folder / f"{slug(name)}.{options.format}"
        figure.savefig(path, dpi=150)
        files.append(path)
    if importlib.util.find_spec("plotly"):
        from kgrad.apps.report import write_report

        files.append(folder / "report.html")
        write_report(groups, files[-1], predictions=predictions)
    print_table(groups, predictions)
    print_findings(diagnoses)
    print(f"\nin {folder}: {', '.join(path.name for path in files)}")
    if options.show:
        import matplotlib.pyplot as plt

        plt.show()
    return 130 if interrupted else 0


def experiments(options: argparse.Namespace) -> "list[Experiment]":
    """What the options ask for: presets or one custom network, over a grid, over seeds."""
    from kgrad.experiments import PRESETS, Experiment, grid, replicates

    if options.activation or options.initializer:
        if options.preset:
            raise ValueError(
                "--preset fixes the activation and the initializer: "
                "leave it out, or leave out --activation and --initializer"
            )
        names = [(options.activation or ["relu"])[0], (options.initializer or ["he"])[0]]
        varied = [len(options.activation or []) > 1, len(options.initializer or []) > 1]
        named = [name for name, varies in zip(names, varied, strict=True) if not varies]
        bases = [Experiment(name=", ".join(named) or "network")]
    else:
        names = options.preset or list(PRESETS)
        bases = [base for name in names for base in PRESETS[name]]
    if options.seeds < 1:
        raise ValueError(f"--seeds must be at least 1, received {options.seeds}")
    common: dict[str, Any] = {
        "every": "epoch" if options.every is None else options.every,
        "jit_compile": {"auto": "auto", "on": True, "off": False}[options.jit],
        "statistics": tuple(options.statistics),
        "distributions": options.distributions,
        "probe": options.probe,
    }
    axes = {
        LONG_NAMES.get(option, option): values
        for option in AXES
        if (values := getattr(options, option)) is not None
    }
    return [
        experiment
        for base in bases
        for point in grid(replace(base, **common), **axes)
        for experiment in replicates(point, options.seeds)
    ]


def train(
    options: argparse.Namespace, folder: Path
) -> "tuple[list[GradientHistory], dict[str, Prepared], bool]":
    """Train what was asked for, each run with a journal.

    Returns:
        The histories; of each name, the parts of one run; whether Ctrl-C cut it short.
    """
    asked = experiments(options)
    from kgrad.experiments import prepare, run_replicates

    # All are made before the first is trained: bad input costs no training.
    prepared = [prepare(experiment) for experiment in asked]
    parts_of = {experiment.name: one for experiment, one in zip(asked, prepared, strict=True)}
    histories: list[GradientHistory] = []
    for replicates in in_groups(prepared):
        labels = [f"{parts.experiment.name}, seed {parts.experiment.seed}" for parts in replicates]
        journals = [folder / f"{slug(label)}.jsonl" for label in labels]
        start = time.perf_counter()
        runs = run_replicates(replicates, journals, verbose=int(sys.stderr.isatty()))
        for label, history in zip(labels, runs, strict=True):
            histories.append(history)
            loss, seconds = history.logs["loss"], time.perf_counter() - start
            print(f"{label}: loss {loss[0]:.4g} → {loss[-1]:.4g} in {seconds:.1f} s", flush=True)
            if history.metadata.get("interrupted"):
                return histories, parts_of, True
            start = time.perf_counter()
    return histories, parts_of, False


def in_groups(prepared: "Iterable[Prepared]") -> "list[list[Prepared]]":
    """Put together what differs in the seed alone, in order."""
    groups: dict[Experiment, list[Prepared]] = {}
    for parts in prepared:
        groups.setdefault(replace(parts.experiment, seed=0), []).append(parts)
    return list(groups.values())


def by_name(histories: "Iterable[GradientHistory]") -> "dict[str, list[GradientHistory]]":
    """Group replicates: histories of one experiment that differ in the seed alone."""
    groups: dict[str, list[GradientHistory]] = {}
    for number, history in enumerate(histories, start=1):
        name = history.metadata.get("experiment", {}).get("name", f"history {number}")
        groups.setdefault(name, []).append(history)
    return groups


def predict(
    groups: "dict[str, list[GradientHistory]]", prepared: "dict[str, Prepared]"
) -> "dict[str, Prediction]":
    """What theory expects of each network; of one that it cannot read, a line that says why."""
    from kgrad.experiments import experiment_of, predict_experiment

    predictions: dict[str, Prediction] = {}
    refusals: dict[str, list[str]] = {}
    for name, (history, *_) in groups.items():
        try:
            prediction = predict_experiment(prepared.get(name) or experiment_of(history))
            if prediction.layers != history.layers:
                raise ValueError("its history has other layers than the experiment it names")
            predictions[name] = prediction
        except (TypeError, ValueError) as error:
            refusals.setdefault(str(error), []).append(name)
    for reason, names in refusals.items():
        print(f"no prediction for {'; '.join(names)}: {reason}")
    return predictions


def find(groups: "dict[str, list[GradientHistory]]") -> "dict[str, list[Diagnosis]]":
    """What is wrong with each run; of one that cannot be told, a line that says why."""
    from kgrad import diagnose

    diagnoses: dict[str, list[Diagnosis]] = {}
    for name, histories in groups.items():
        try:
            diagnoses[name] = [diagnose(history) for history in histories]
        except ValueError as error:
            print(f"no findings for {name}: {error}")
    return diagnoses


def draw(
    groups: "dict[str, list[GradientHistory]]", predictions: "dict[str, Prediction]"
) -> "dict[str, Figure]":
    """Every figure of the main job, by the name of its file."""
    import kgrad

    first = {name: histories[0] for name, histories in groups.items()}
    figures = {
        name: kgrad.plot_gradients(history, title=name, prediction=predictions.get(name))
        for name, history in first.items()
    }
    for name, history in first.items():
        if history.distributions.any():
            figures[f"{name}, distributions"] = kgrad.plot_distributions(history, title=name)
        if history.outputs:
            figures[f"{name}, activations"] = kgrad.plot_activations(history, title=name)
            graph = kgrad.flow_graph_from_history(history)
            figures[f"{name}, flow"] = kgrad.plot_flow_graph(graph, title=name)
    if len(first) > 1:
        figures["comparison"] = kgrad.plot_gradients(
            first, title="The same measure, the same scales"
        )
    figures["depth"] = kgrad.plot_gradient_by_depth(first)
    replicated = {name: histories for name, histories in groups.items() if len(histories) > 1}
    if replicated:
        figures["seeds"] = kgrad.plot_seed_spread(replicated)
    if predictions:
        measured = {name: groups[name] for name in predictions}
        figures["prediction"] = kgrad.plot_prediction(measured, predictions)
    return figures


COLUMNS = (
    "loss_first", "loss_last", "gradient_first", "gradient_last", "ratio", "decades_per_layer"
)  # fmt: skip
PREDICTED = ("predicted_first", "predicted_last", "predicted_ratio")


def write_table(
    groups: "dict[str, list[GradientHistory]]", predictions: "dict[str, Prediction]", path: Path
) -> None:
    """Write one row a run; what is predicted is the same for all seeds, or empty."""
    from kgrad.records.summary import summarize, summarize_prediction

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "seed", *COLUMNS, *PREDICTED])
        for name, histories in groups.items():
            expected: dict[str, Any] = dict.fromkeys(PREDICTED)
            if name in predictions:
                expected = dict(summarize_prediction(predictions[name]))
            for history in histories:
                row = summarize(history) | expected
                cells = (row[column] for column in (*COLUMNS, *PREDICTED))
                writer.writerow([name, history.metadata.get("seed"), *cells])


def print_table(
    groups: "dict[str, list[GradientHistory]]", predictions: "dict[str, Prediction]"
) -> None:
    """Print one line an experiment: medians over its seeds, and the ratio that was predicted."""
    import numpy as np

    from kgrad.records.summary import summarize, summarize_prediction

    width = max(len(name) for name in groups) + 2
    print(f"\n{'median over seeds':{width}}{'loss':^22}{'mean |gradient| at epoch 0':^46}decades")
    heads = ("first → last epoch", "first hidden", "last hidden", "ratio", "predicted", "a layer")
    print(
        f"{'':{width}}{heads[0]:^22}{heads[1]:>13}{heads[2]:>13}{heads[3]:>10}{heads[4]:>10}"
        f"{heads[5]:>9}"
    )
    for name, histories in groups.items():
        rows = [summarize(history) for history in histories]
        median = {c: float(np.median([row[c] for row in rows])) for c in COLUMNS}
        loss = f"{median['loss_first']:.4g} → {median['loss_last']:.4g}"
        predicted = "–"
        if name in predictions:
            predicted = f"{summarize_prediction(predictions[name])['predicted_ratio']:.3g}"
        print(
            f"{name:{width}}{loss:^22}{median['gradient_first']:13.3g}"
            f"{median['gradient_last']:13.3g}{median['ratio']:10.3g}{predicted:>10}"
            f"{median['decades_per_layer']:+9.2f}"
        )


def write_findings(
    groups: "dict[str, list[GradientHistory]]",
    diagnoses: "dict[str, list[Diagnosis]]",
    path: Path,
) -> None:
    """Write one row a measurement that a finding rests on; of healthy runs there are none."""
    import pandas as pd

    tables = [pd.DataFrame(columns=["name", "seed"])]
    for name, of_seeds in diagnoses.items():
        for history, diagnosis in zip(groups[name], of_seeds, strict=True):
            seed = history.metadata.get("seed")
            tables.append(diagnosis.to_frame().assign(name=name, seed=seed))
    pd.concat([table.astype(object) for table in tables]).to_csv(path, index=False)


def print_findings(diagnoses: "dict[str, list[Diagnosis]]") -> None:
    """Print what is wrong with each experiment, how that is known and what to try first."""
    print("\nfindings")
    for name, of_seeds in diagnoses.items():
        found = {finding.rule: finding for diagnosis in of_seeds for finding in diagnosis}
        if not found:
            print(f"  {name}: nothing is wrong")
        for rule, finding in found.items():
            seeds = sum(rule in diagnosis.rules for diagnosis in of_seeds)
            print(
                f"  {name}: {rule.replace('_', ' ')} in {finding.where()}, since epoch "
                f"{finding.first_epoch}, with {seeds} of {len(of_seeds)} seeds"
            )
            for line in (str(finding.evidence[0]), finding.explanation):
                print(textwrap.fill(line, 98, initial_indent="    ", subsequent_indent="    "))
            print(f"    → {finding.remedies[0]}")


def import_tensorflow_quietly() -> None:
    """Import TensorFlow without the lines that its libraries print before any setting counts."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryFile() as printed:
        stderr = os.dup(2)
        os.dup2(printed.fileno(), 2)
        try:
            import tensorflow  # noqa: F401
        except ImportError:
            printed.seek(0)
            os.write(stderr, printed.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def writable_folder(name: str) -> Path:
    """Make the folder and see that a file can be written into it."""
    if not name:
        raise ValueError("--output must name a folder, received an empty name")
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f"--output must name a folder that can be written, received {name!r} "
            f"({os.strerror(error.errno or 0)})"
        ) from error
    return folder


def slug(name: str) -> str:
    """A file name from a run's name: letters, digits and single hyphens."""
    return "-".join("".join(c if c.isalnum() or c in "._" else " " for c in name.lower()).split())
