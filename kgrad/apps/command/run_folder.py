"""The folder that `kgrad run` writes into: it must not lose the runs that are recorded there."""

import json
import os
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kgrad._version import __version__
from kgrad.apps.command.run_options import FORMATS
from kgrad.experiments.experiment import Experiment
from kgrad.records.history import GradientHistory

DEFAULT = "gradient_output"
FIGURE_KINDS = ("distributions", "activations", "flow")
"""Figures of one run besides its gradients, which are named after the run alone."""
SHARED_FIGURES = ("comparison", "depth", "seeds", "prediction")


def writable_folder(name: str) -> Path:
    """Return the output folder, made if necessary and found to be writable.

    Raises:
        OSError: if it cannot be written.
        ValueError: if the name is empty.
    """
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
    """Return a name as a file name: letters, digits and single hyphens."""
    return "-".join("".join(c if c.isalnum() or c in "._" else " " for c in name.lower()).split())


def journal_of(folder: Path, experiment: Experiment) -> Path:
    """Return the file that an experiment is recorded in."""
    return folder / f"{slug(f'{experiment.name}, seed {experiment.seed}')}.jsonl"


def other_runs(folder: Path, experiments: Sequence[Experiment]) -> dict[Path, str]:
    """Return file → name of the recorded runs in a folder that are not the given experiments'.

    A run of the very same experiment, seed included, may be recorded again: it comes out the same.
    """
    own = {
        journal_of(folder, one): (__version__, json.loads(json.dumps(asdict(one))))
        for one in experiments
    }
    return {
        path: _name_of(metadata)
        for path, metadata in recorded_runs(folder, own).items()
        if own.get(path) != (metadata.get("kgrad"), metadata.get("experiment"))
    }


def runs_not_among(folder: Path, loaded: Collection[Path]) -> dict[Path, str]:
    """Return file → name of the recorded runs in a folder that are none of the given files."""
    known = {path.resolve() for path in loaded}
    return {
        path: _name_of(metadata)
        for path, metadata in recorded_runs(folder).items()
        if path.resolve() not in known
    }


def chosen_folder(
    name: str | None, others_in: Callable[[Path], dict[Path, str]], overwrite: bool
) -> tuple[Path, dict[Path, str]]:
    """Return the folder to write into, and the other recorded runs that it has.

    Args:
        name: the folder that was asked for; None for `DEFAULT`, or if that has other recorded runs
            for the first of `DEFAULT`-2, `DEFAULT`-3, … that has none.
        others_in: function that returns file → name of the other recorded runs in a folder.
        overwrite: whether other recorded runs may be replaced.

    Raises:
        OSError: if the folder cannot be written.
        ValueError: if the folder that was asked for has other recorded runs.
    """
    folder, number = writable_folder(DEFAULT if name is None else name), 1
    others = others_in(folder)
    while others and not overwrite:
        if name is not None:
            first, *more = others
            runs = f"{first.name} and {len(more)} other recorded runs" if more else first.name
            raise ValueError(
                f"--output must name a folder without other recorded runs, received {name!r} with "
                f"{runs}: name another folder, or replace what is in this one with --overwrite"
            )
        number += 1
        folder = writable_folder(f"{DEFAULT}-{number}")
        others = others_in(folder)
    return folder, others


def remove_runs(folder: Path, runs: Mapping[Path, str]) -> None:
    """Remove recorded runs with the figures that `kgrad run` made of them."""
    stems = [*SHARED_FIGURES] if runs else []
    for path, name in runs.items():
        path.unlink()
        stems += [slug(f"{name} {kind}") for kind in ("", *FIGURE_KINDS)]
    for stem in stems:
        for ending in FORMATS:
            (folder / f"{stem}.{ending}").unlink(missing_ok=True)


def recorded_runs(folder: Path, own: Collection[Path] = ()) -> dict[Path, dict[str, Any]]:
    """Return file → metadata of the runs in a folder that have a record.

    A file that is no history counts only if it is among `own`, the files that would be replaced.
    """
    found: dict[Path, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        with path.open("rb") as file:
            header, record = file.readline(), file.readline()
        try:
            metadata = GradientHistory.from_header(header).metadata
        except ValueError:
            if path in own and header:
                found[path] = {}
            continue
        if record:
            found[path] = metadata
    return found


def _name_of(metadata: Mapping[str, Any]) -> str:
    described = metadata.get("experiment")
    return str(described.get("name", "")) if isinstance(described, dict) else ""
