"""The downloads of a run: its history, figures, a report, and the Keras code."""

import io
import re
import tempfile
import threading
import zipfile
from pathlib import Path

import streamlit as st
from matplotlib.figure import Figure

from kgrad.apps.page.keras_code import keras_code
from kgrad.apps.page.runs import Run
from kgrad.apps.report import write_report
from kgrad.figures import static as plots
from kgrad.records.flow_graph import flow_graph_from_history
from kgrad.records.history import GradientHistory

# Browser tabs run in separate threads, and matplotlib's settings are global.
_drawing_lock = threading.Lock()


def downloads(run: Run) -> None:
    """Draw the download buttons, once there is a record, and show the Keras code.

    The history, figures and report are made only when their button is clicked, because this takes
    seconds. There is no Keras code for a run that was opened from a file.
    """
    history = run.history
    if history is None:
        return
    name = re.sub(r"[^A-Za-z0-9]+", "_", run.name).strip("_")[:60] or "run"
    for label, ending, kind, make in (
        ("History", ".jsonl", "application/jsonl", lambda: history_bytes(history)),
        ("Figures", ".zip", "application/zip", lambda: figures_zip(run)),
        ("Report", ".html", "text/html", lambda: report_bytes(run)),
    ):
        st.download_button(
            f"{label} ({ending})",
            data=make,
            file_name=name + ending,
            mime=kind,
            key=f"{label} {run.name}",
            on_click="ignore",
            width="stretch",
        )
    if run.configuration is not None:
        code = keras_code(run.configuration)
        st.download_button(
            "Keras code (.py)",
            data=code,
            file_name=name + ".py",
            mime="text/x-python",
            key=f"Code {run.name}",
            on_click="ignore",
            width="stretch",
        )
        with st.expander("Keras code of this configuration"):
            st.code(code, language="python")


def history_bytes(history: GradientHistory) -> bytes:
    """Return the contents of the history's .jsonl file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "history.jsonl"
        history.save(path)
        return path.read_bytes()


def report_bytes(run: Run) -> bytes:
    """Return the contents of the report's .html file.

    The report shows the prediction that the page shows: none is computed here.
    """
    predictions = {run.name: run.prediction} if run.prediction is not None else {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        write_report({run.name: run.recorded()}, path, run.name, predictions=predictions)
        return path.read_bytes()


def figures_zip(run: Run) -> bytes:
    """Return the contents of a .zip file with the run's static figures as PNG files."""
    with _drawing_lock:
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as packed:
            for name, figure in _figures(run).items():
                drawn = io.BytesIO()
                figure.savefig(drawn, dpi=150, format="png")
                packed.writestr(f"{name}.png", drawn.getvalue())
        return archive.getvalue()


def _figures(run: Run) -> dict[str, Figure]:
    """Draw the figures for which the run has data: file name without ending → figure."""
    history, title = run.recorded(), run.name
    figures = {
        "gradients": plots.plot_gradients(history, title=title),
        "depth": plots.plot_gradient_by_depth(history, title=title),
        "flow": plots.plot_flow_graph(flow_graph_from_history(history), title=title, relative=True),
    }
    if history.has_distributions:
        figures["distributions"] = plots.plot_distributions(history, title=title)
    if run.prediction is not None:
        figures["prediction"] = plots.plot_prediction(history, run.prediction, title=title)
    return figures
