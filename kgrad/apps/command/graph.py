"""`kgrad graph RUN -o FILE`: a recorded run as a flow graph, drawn, as a page or as JSON."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kgrad.apps.command.main import Parser, integer, naming_options, number, require_existing

FIGURES = (".png", ".svg", ".pdf")


def main(arguments: Sequence[str], program: str) -> int:
    """Write the flow graph of one run.

    Returns:
        0.
    """
    options = parse(arguments, program)
    output: Path = options.output
    if output.suffix not in (".html", ".json", *FIGURES):
        raise ValueError(
            f"--output must end in .html, .json, {', '.join(FIGURES)}, received {str(output)!r}"
        )
    require_existing([options.run])
    write = {".json": _write_json, ".html": _write_page}.get(output.suffix, _draw)
    with naming_options({"epoch": "--epoch", "threshold": "--threshold"}):
        write(_read(options), options)
    print(output)
    return 0


def parse(arguments: Sequence[str], program: str) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        prog=program,
        description="Draw a recorded run as a flow graph, or write it as JSON.",
        epilog="Edges show numbers if the run was recorded with --probe, or with "
        "GradientTracker(probe=(X, y)).",
    )
    parser.add_argument(
        "run", type=Path, metavar="RUN",
        help="a .jsonl history or journal, or a .json graph that this command wrote",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE",
        help="file to write: .png, .svg, .pdf or .json for one epoch, .html for all",
    )  # fmt: skip
    parser.add_argument(
        "--epoch", type=integer,
        help="epoch to draw (default: last); for .html, the epoch shown on opening",
    )  # fmt: skip
    parser.add_argument(
        "--nested", choices=("folded", "opened", "blocks"), default="folded",
        help="draw a nested model as one node or with its layers; blocks: draw each block, "
        "such as a residual block, as one node, too (default: folded)",
    )  # fmt: skip
    parser.add_argument(
        "--every-record", action="store_true", help="for .json: also write the other records"
    )
    parser.add_argument(
        "--title", help="title of the figure or page (default: the name of the file)"
    )
    parser.add_argument(
        "--threshold", type=number, default=0.01,
        help="largest norm at which an edge is drawn red (default: 0.01)",
    )  # fmt: skip
    parser.add_argument(
        "--relative", action="store_true",
        help="read the threshold as a share of the largest norm of an edge",
    )  # fmt: skip
    return parser.parse_args(arguments)


def _read(options: argparse.Namespace) -> Any:
    """Return the graph of a history file, or of a file that holds a graph."""
    from kgrad.records.flow_graph import flow_graph_from_history, graph_from_json

    path: Path = options.run
    if path.suffix == ".json":
        if options.epoch is not None or options.nested != "folded":
            raise ValueError(
                f"--epoch and --nested are for a .jsonl history, received {str(path)!r}"
            )
        try:
            return graph_from_json(json.loads(path.read_bytes()))
        except (RecursionError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error
    from kgrad.records.history import GradientHistory

    return flow_graph_from_history(
        GradientHistory.load(path), epoch=options.epoch, nested=options.nested
    )


def _write_json(graph: Any, options: argparse.Namespace) -> None:
    from kgrad.records.files import written_whole
    from kgrad.records.flow_graph import graph_to_json

    content = graph_to_json(graph, every_record=options.every_record)
    text = json.dumps(content, indent=1, allow_nan=False)
    with written_whole(options.output) as draft:
        draft.write_text(text + "\n", encoding="utf-8")


def _look(options: argparse.Namespace) -> dict[str, Any]:
    title = options.run.stem if options.title is None else options.title
    return {"title": title, "threshold": options.threshold, "relative": options.relative}


def _draw(graph: Any, options: argparse.Namespace) -> None:
    from kgrad.figures.static import plot_flow_graph
    from kgrad.records.files import written_whole

    with written_whole(options.output) as draft:
        plot_flow_graph(graph, **_look(options)).savefig(
            draft, dpi=150, format=options.output.suffix[1:].lower()
        )


def _write_page(graph: Any, options: argparse.Namespace) -> None:
    from kgrad.apps.report import write_flow_graph

    write_flow_graph(graph, options.output, **_look(options))
