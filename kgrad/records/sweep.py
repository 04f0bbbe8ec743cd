"""`Sweep`: the runs in a folder that `run_sweep` fills, their table and their histories.

    sweep.json          the experiments that were asked for
    runs/3f/3f….jsonl   the history of a finished run; .jsonl.part while it is trained
    failed/3f….json     the experiment and the traceback of a run that failed
    index.sqlite        one row per finished run, made again from the histories if it is out of date

A file gets its name when it is complete, so a run with a history is finished.
"""

import json
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pandas as pd

from kgrad.records.checks import did_you_mean
from kgrad.records.files import to_json, written_whole
from kgrad.records.history import GradientHistory
from kgrad.records.notebook import Shown
from kgrad.records.summary import summarize

FORMAT, VERSION = "kgrad-sweep", 1
MANIFEST, INDEX = "sweep.json", "index.sqlite"
NUMBERS = (
    "loss_first", "loss_last", "metric", "gradient_first", "gradient_last", "ratio",
    "decades_per_layer", "seconds",
)  # fmt: skip
"""The columns of `Sweep.to_frame` that are numbers of a run."""

_SCHEMA = f"""
pragma user_version = {VERSION};
create table if not exists networks (network text primary key, fields text) without rowid;
create table if not exists runs (
    run text primary key, network text, seed integer, {" real, ".join(NUMBERS)} real,
    findings text, started text, error text, size integer, changed integer
) without rowid;
create table if not exists folders (name text primary key, changed integer) without rowid;
"""
_SETTLED = 2 * 10**9  # nanoseconds: a folder's time of change may have a resolution of a second


class _Manifest(msgspec.Struct):
    """`sweep.json`: what all experiments share, and run → what is its own."""

    format: str
    version: int
    shared: dict[str, Any]
    runs: dict[str, dict[str, Any]]


class _Failure(msgspec.Struct):
    experiment: dict[str, Any]
    error: str
    traceback: str


class SweepStatus(NamedTuple):
    """Numbers of runs.

    Attributes:
        done: runs that are finished.
        failed: runs that raised an error; the next `run_sweep` tries them again.
        left: runs that were not finished yet, without those that failed.
    """

    done: int
    failed: int
    left: int

    def __str__(self) -> str:
        failed = f", {self.failed:,} failed" if self.failed else ""
        return f"{self.done:,} of {sum(self):,} runs are done{failed}"


class Sweep(Shown):
    """The runs in a folder that `kgrad.run_sweep` filled, or is filling.

    Nothing is read before it is needed: the table comes from an index, and histories are read for
    the runs that are chosen.

    Args:
        folder: the folder.

    Attributes:
        folder: the folder, as a `Path`.

    Raises:
        ValueError: if the folder has no sweep.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        if not is_sweep(self.folder):
            raise ValueError(
                f"folder must be one that run_sweep or kgrad sweep wrote, received {str(folder)!r} "
                f"without {MANIFEST}"
            )

    def __repr__(self) -> str:
        return f"<Sweep {str(self.folder)!r}: {self.status()}>"

    def __len__(self) -> int:
        """Return the number of finished runs."""
        return sum(1 for _ in self._finished())

    @cached_property
    def planned(self) -> dict[str, dict[str, Any]]:
        """Run → its experiment's fields, for all runs that were asked for."""
        path = self.folder / MANIFEST
        try:
            manifest = msgspec.json.decode(path.read_bytes(), type=_Manifest)
        except msgspec.DecodeError as error:
            raise ValueError(f"{str(path)!r} is no list of a sweep's runs: {error}") from None
        if (manifest.format, manifest.version) != (FORMAT, VERSION):
            raise ValueError(
                f"{str(path)!r} must have format {FORMAT!r}, version {VERSION}, received "
                f"{manifest.format!r:.40}, {manifest.version}"
            )
        return {run: manifest.shared | own for run, own in manifest.runs.items()}

    def status(self) -> SweepStatus:
        """Return how many runs are done, failed and left."""
        planned = set(self.planned)
        done = planned.intersection(run for run, _ in self._finished())
        failed = planned.intersection(path.stem for path in self._failed()) - done
        return SweepStatus(len(done), len(failed), len(planned) - len(done) - len(failed))

    def failures(self) -> dict[str, str]:
        """Return run → the traceback of its error, for the runs that failed."""
        return {path.stem: _read_failure(path).traceback for path in self._failed()}

    def to_frame(self) -> pd.DataFrame:
        """Return a table with one row per run that is finished or failed.

        Returns:
            A DataFrame whose index is the run, with a column for each field of the experiment and
            `loss_first`, `loss_last`, `gradient_first`, `gradient_last`, `ratio` and
            `decades_per_layer` as `summarize` defines them, `metric` (the skill on the training
            data after the last step: 1 for perfect answers, 0 for the best constant one),
            `seconds` that the run took, `findings` (the rules of its
            diagnosis, separated by commas), when it `started`, and `error`, empty if the run
            finished. Numbers that are not known are NaN.
        """
        with closing(self._index()) as index:
            runs = pd.read_sql_query(
                f"select run, network, seed, {', '.join(NUMBERS)}, findings, started, error "
                "from runs order by run",
                index,
                index_col="run",
            )
            fields = dict(index.execute("select network, fields from networks").fetchall())
        runs[list(NUMBERS)] = runs[list(NUMBERS)].astype(float)
        described = pd.DataFrame(
            [_fields_of(text) for text in fields.values()], index=list(fields), dtype=object
        ).infer_objects()
        own = described.reindex(runs["network"]).set_index(runs.index)
        seeds = own.assign(seed=runs["seed"])
        done = pd.concat([seeds, runs.drop(columns=["network", "seed"])], axis=1)
        failed = {p.stem: _read_failure(p) for p in self._failed() if p.stem not in done.index}
        lost = pd.DataFrame(
            [_fields(one.experiment) | {"error": one.error} for one in failed.values()],
            index=list(failed),
        )
        if lost.empty:
            return done
        return lost if done.empty else pd.concat([done, lost])

    def histories(
        self, chosen: pd.DataFrame | None = None, **fields: Any
    ) -> dict[str, GradientHistory]:
        """Load the histories of finished runs.

        Args:
            chosen: rows of `to_frame`; by default all.
            **fields: field of the experiment → the value that the runs must have, such as
                `num_layers=10`.

        Returns:
            Name of the run, with its seed → its history.

        Raises:
            ValueError: if there is no such field, or no finished run has these values.
        """
        frame = self.to_frame() if chosen is None else chosen
        frame = frame[frame["error"].fillna("") == ""]
        for field, value in fields.items():
            if field not in frame.columns:
                raise ValueError(
                    f"a field of histories must be among {', '.join(map(str, frame.columns))}, "
                    f"received {field!r}{did_you_mean(field, map(str, frame.columns))}"
                )
            frame = frame[[one == value for one in frame[field]]]
        if frame.empty:
            asked = ", ".join(f"{field}={value!r}" for field, value in fields.items())
            raise ValueError(f"histories found no finished run{f' with {asked}' * bool(asked)}")
        names = [f"{row.name}, seed {row.seed}" for row in frame[["name", "seed"]].itertuples()]
        count = Counter(names)
        return {
            f"{name} ({run})" if count[name] > 1 else name: GradientHistory.load(self.file(run))
            for name, run in zip(names, frame.index, strict=True)
        }

    # ---- The files ------------------------------------------------------------------------------

    def file(self, run: str) -> Path:
        """Return the file of a finished run's history."""
        return history_file(self.folder, run)

    def failure_file(self, run: str) -> Path:
        """Return the file of a failed run's experiment and traceback."""
        return self.folder / "failed" / f"{run}.json"

    def _finished(self) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
        """Yield each finished run with its file."""
        for folder in self._subfolders():
            yield from _histories_in(folder.path)

    def _subfolders(self) -> "list[os.DirEntry[str]]":
        try:
            with os.scandir(self.folder / "runs") as entries:
                return [entry for entry in entries if entry.is_dir()]
        except FileNotFoundError:
            return []

    def _failed(self) -> list[Path]:
        return sorted((self.folder / "failed").glob("*.json"))

    # ---- The index ------------------------------------------------------------------------------

    def add_to_index(self, run: str) -> None:
        """Add a finished run to the index, or update it."""
        with closing(self._connect()) as index, index:
            _add(index, run, self.file(run))

    def refresh_index(self) -> None:
        """Make the index agree with the histories."""
        self._index().close()

    def _connect(self) -> sqlite3.Connection:
        """Open the index; a damaged one is made anew, and one that is read-only is copied."""
        path = self.folder / INDEX
        try:
            return _opened(path)
        except sqlite3.OperationalError:  # a folder that must not be written
            index = _opened(":memory:")
            with (
                suppress(sqlite3.Error),
                closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as written,
            ):
                written.backup(index)
            return index
        except sqlite3.DatabaseError:
            path.unlink()
            return _opened(path)

    def _index(self) -> sqlite3.Connection:
        """Open the index, brought up to date."""
        index = self._connect()
        known = dict(index.execute("select name, changed from folders"))
        folders = {entry.name: entry for entry in self._subfolders()}
        with index:
            for (name,) in index.execute("select distinct substr(run, 1, 2) from runs").fetchall():
                if name not in folders:
                    _compare(index, name, {})
            for name, entry in folders.items():
                changed = entry.stat().st_mtime_ns
                if known.get(name) != changed:
                    _compare(index, name, dict(_histories_in(entry.path)))
                    if time.time_ns() - changed > _SETTLED:
                        index.execute(
                            "insert or replace into folders values (?, ?)", [name, changed]
                        )
        return index


def is_sweep(path: Path) -> bool:
    """Return whether a path is the folder of a sweep."""
    return (path / MANIFEST).is_file()


def history_file(folder: Path, run: str) -> Path:
    """Return the file of a run's history in a sweep's folder."""
    return folder / "runs" / run[:2] / f"{run}.jsonl"


def begin_sweep(folder: str | os.PathLike[str], planned: Mapping[str, Mapping[str, Any]]) -> Sweep:
    """Write the list of a sweep's runs into a folder, and return the sweep.

    Runs may be added to a sweep, but all that it has must be among them.

    Args:
        folder: the folder, made if necessary.
        planned: run → the fields of its experiment.

    Raises:
        OSError: if the folder cannot be written.
        ValueError: if the folder has a sweep with other runs, or other files.
    """
    path = Path(folder)
    if (path / MANIFEST).exists():
        sweep = Sweep(path)
        others = sweep.planned.keys() - planned.keys()
        if not others and len(sweep.planned) == len(planned):
            return sweep
        if others and (len(sweep) or sweep.failures()):
            run = min(others)
            named = f"{sweep.planned[run].get('name', run)}, seed {sweep.planned[run].get('seed')}"
            raise ValueError(
                f"folder must be empty or have a sweep of these experiments, received "
                f"{str(folder)!r} with {len(others):,} others, such as {named!r}: name another "
                "folder, or add these experiments to yours"
            )
    elif path.exists() and any(path.iterdir()):
        raise ValueError(
            f"folder must be empty or have a sweep of these experiments, received {str(folder)!r} "
            f"with other files, such as {min(path.iterdir()).name!r}: name another folder"
        )
    fields: dict[str, Any] = dict(next(iter(planned.values()), {}))
    shared = {
        field: value
        for field, value in fields.items()
        if all(one.get(field, _ABSENT) == value for one in planned.values())
    }
    own = {
        run: {field: value for field, value in one.items() if field not in shared}
        for run, one in planned.items()
    }
    manifest = {"format": FORMAT, "version": VERSION, "shared": shared, "runs": own}
    path.mkdir(parents=True, exist_ok=True)
    with written_whole(path / MANIFEST) as draft:
        draft.write_text(json.dumps(to_json(manifest)))
    return Sweep(path)


_ABSENT = object()


def write_failure(path: Path, experiment: Mapping[str, Any], error: str, traceback: str) -> None:
    """Write a failed run's experiment and traceback."""
    path.parent.mkdir(exist_ok=True)
    failure = {"experiment": to_json(experiment), "error": error, "traceback": traceback}
    with written_whole(path) as draft:
        draft.write_text(json.dumps(failure, indent=1))


def _read_failure(path: Path) -> _Failure:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Failure)
    except msgspec.DecodeError as error:
        return _Failure({}, f"{str(path)!r} is no failed run of a sweep: {error}", "")


def _histories_in(folder: str) -> "Iterator[tuple[str, os.DirEntry[str]]]":
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".jsonl"):
                yield entry.name.removesuffix(".jsonl"), entry


def _opened(path: Path | str) -> sqlite3.Connection:
    index = sqlite3.connect(path, timeout=60)
    try:
        # The histories hold everything: after a crash of the machine the index is made again.
        index.execute("pragma synchronous = off")
        (version,) = index.execute("pragma user_version").fetchone()
        (tables,) = index.execute("select count(*) from sqlite_master").fetchone()
        if tables and version != VERSION:
            raise sqlite3.DatabaseError("the index is another version's")
        index.executescript(_SCHEMA)
    except sqlite3.Error:
        index.close()
        raise
    return index


def _rows_in(index: sqlite3.Connection, folder: str) -> list[tuple[str, int, int]]:
    """Return run, size and time of change of the rows of a folder's runs."""
    return index.execute(
        "select run, size, changed from runs where run >= ? and run < ?", [folder, f"{folder}~"]
    ).fetchall()


def _compare(
    index: sqlite3.Connection, folder: str, files: "Mapping[str, os.DirEntry[str]]"
) -> None:
    """Make the rows of a folder agree with its files."""
    rows = {run: (size, changed) for run, size, changed in _rows_in(index, folder)}
    _remove(index, rows.keys() - files.keys())
    for run, entry in files.items():
        status = entry.stat()
        if rows.get(run) != (status.st_size, status.st_mtime_ns):
            _add(index, run, Path(entry.path))


def _remove(index: sqlite3.Connection, runs: Any) -> None:
    index.executemany("delete from runs where run = ?", [[run] for run in runs])


def _add(index: sqlite3.Connection, run: str, path: Path) -> None:
    """Add the row of a run."""
    status = path.stat()
    network, _, seed = run.rpartition("-")
    row: dict[str, Any] = {"run": run, "network": network, "size": status.st_size}
    row["changed"] = status.st_mtime_ns
    try:
        history = _ends_of(path)
        fields = dict(history.metadata.get("experiment") or {})
        row["seed"] = fields.pop("seed", int(seed))
        row |= _numbers_of(history) | {"error": ""}
        index.execute(
            "insert or replace into networks values (?, ?)", [network, json.dumps(fields)]
        )
    except (KeyError, TypeError, ValueError) as error:
        row["error"] = str(error)
    index.execute(
        f"insert or replace into runs ({', '.join(row)}) values ({', '.join('?' * len(row))})",
        list(row.values()),
    )


def _ends_of(path: Path) -> GradientHistory:
    """Return the first and the last record of a history."""
    header, *lines = path.read_bytes().splitlines()
    history = GradientHistory.from_header(header)
    for line in [*lines[:1], *lines[1:][-1:]]:
        history.append_line(line)
    if not len(history):
        raise ValueError(f"{path.name} has no record")
    return history


def _numbers_of(history: GradientHistory) -> dict[str, Any]:
    findings, metadata = history.metadata.get("findings"), history.metadata
    skill = metadata.get("skill")
    return summarize(history) | {
        "metric": skill if isinstance(skill, int | float) else None,
        "seconds": metadata.get("seconds"),
        "started": metadata.get("started"),
        "findings": ", ".join(map(str, findings)) if isinstance(findings, list) else None,
    }


def _fields_of(text: str) -> dict[str, Any]:
    return _fields(json.loads(text))


def _fields(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """Return an experiment's fields as a file has them, with tuples, which can be keys."""
    return {
        field: tuple(value) if isinstance(value, list) else value
        for field, value in experiment.items()
    }
