"""Recorded runs in the files and folders that a command line names."""

from collections.abc import Iterable
from pathlib import Path

from kgrad.records.history import GradientHistory


def load(paths: Iterable[Path]) -> dict[Path, GradientHistory]:
    """Load history files, and all .jsonl files of the folders among the paths.

    Files without a record in a folder are left out: their run was stopped before its first record.

    Raises:
        OSError: if a file cannot be read.
        ValueError: if a file is malformed, or a path has no recorded run.
    """
    histories: dict[Path, GradientHistory] = {}
    for path in paths:
        files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        loaded = {file: GradientHistory.load(file) for file in files}
        recorded = {file: history for file, history in loaded.items() if len(history)}
        if not recorded:
            raise ValueError(f"no recorded run (.jsonl with at least one record) in {str(path)!r}")
        histories |= recorded
    return histories
