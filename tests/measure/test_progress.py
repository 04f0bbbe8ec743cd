"""Progress bars, in a terminal and in a notebook without ipywidgets."""

import io
import re

from notebooks import run_cell
from rich.console import Console

from kgrad.measure import progress
from kgrad.measure.progress import progress_bar


def test_a_terminal_shows_the_text_as_it_is_and_the_end(monkeypatch):
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr(progress, "Console", lambda: console)
    with progress_bar(4, 1) as show:
        show(1, lambda: "[red]a")
        show(4, lambda: "[red]b")
    assert re.search(r"\[red\]b .* 100%", console.file.getvalue())


def test_without_verbose_nothing_is_asked_and_nothing_written(capsys):
    with progress_bar(4, 0) as show:
        show(1, lambda: 1 / 0)
    assert capsys.readouterr().out == ""


def test_a_notebook_has_one_bar_and_no_warning_for_training_and_remedies(tmp_path):
    code = """
import kgrad
data = kgrad.make_dataset("moons", 64)
model = kgrad.create_model(2, "relu", "he", units=8, input_shape=(2,), seed=0)
_ = kgrad.train_and_track_gradients(model, data.X, data.y, epochs=3, verbose=1)
trials = kgrad.try_remedies(model, data.X, data.y, epochs=1, remedies=["clipping"], verbose=1)
"""
    outputs = run_cell(code, tmp_path)
    shown = [one for one in outputs if one.output_type == "display_data"]
    assert len(shown) == 2
    training, remedies = (one.data["text/html"] for one in shown)
    assert training.startswith('<progress value="6" max="6"></progress> 6/6 ')
    assert "epoch 3  loss 0." in training
    assert re.match('<progress value="(.)" max="\\1">.* [23]/[23] .*done', remedies)
    said = [one.text for one in outputs if one.output_type == "stream"]
    assert not [text for text in said if "ipywidgets" in text]
