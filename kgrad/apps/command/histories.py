"""Recorded runs by the paths that a command line names."""

from collections.abc import Iterable
from pathlib import Path

from kgrad.records.history import GradientHistory


def load(paths: Iterable[Path]) -> dict[Path, GradientHistory]:
    """Load history files, and all those of the folders among the paths.

    Of a folder's files those without a record are left out: a run that was killed early shows
    nothing.

    Raises:
        OSError: if a file cannot be read.
        ValueError: if a file is malformed, has no record, or a folder has none that has.
    """
    histories: dict[Path, GradientHistory] = {}
    for path in paths:
        files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        loaded = {file: GradientHistory.load(file) for file in files}
        recorded = {file: history for file, history in loaded.items() if len(history)}
        if not recorded:
            raise ValueError(f"RUN must hold a record, received {str(path)!r}, which holds none")
        histories |= recorded
    return histories
