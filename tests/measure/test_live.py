"""The live view of a run: how often it is drawn, where, and that it changes nothing else."""

import io

import keras
import numpy as np
import pytest
from notebooks import run_cell
from rich.console import Console

import kgrad
from kgrad.measure import live
from kgrad.measure.live import MOST_TIME, LiveView


def small_model(seed=0):
    model = kgrad.create_model(3, "relu", "he", units=8, input_shape=(2,), seed=seed)
    model.compile("adam", "binary_crossentropy")
    return model


DATA = kgrad.make_dataset("moons", 96)


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of 90 × 30, as what is written to it."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=90, height=30, color_system=None)
    monkeypatch.setattr(live, "Console", lambda: console)
    return file


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def drawn_times(seconds_per_drawing, records, between, terminal):
    """Show `records` histories; return when each was drawn, of a view whose time is simulated."""
    clock, drawn = Clock(), []
    view = LiveView(clock=clock)

    def draw(histories, findings):
        drawn.append(clock.now)
        clock.now += seconds_per_drawing

    view._draw.draw = draw
    history = kgrad.measure_gradients(small_model(), DATA.X, DATA.y)
    for _ in range(records):
        view.show({"": history})
        clock.now += between
    before = len(drawn)
    view.close()
    return drawn, before, clock.now - 100.0


@pytest.mark.parametrize("cost", [0.001, 0.02, 0.3])
@pytest.mark.parametrize("between", [0.001, 0.1, 2.0])
def test_drawing_takes_at_most_its_share_of_the_time(cost, between, terminal):
    drawn, before, total = drawn_times(cost, 400, between, terminal)
    assert drawn[0] == 100.0  # something is on show at once
    spent = cost * (before - 1)  # but for the first and the last
    assert spent <= MOST_TIME * total
    wanted = min(400, MOST_TIME * total / cost)
    assert before >= 0.8 * wanted - 1
    assert len(drawn) - before == (before < 400)  # the last record is always drawn


def test_weights_and_history_are_bit_for_bit_those_of_a_run_without_a_view(terminal, capsys):
    results = []
    for shown in (False, True):
        keras.utils.set_random_seed(0)
        model, tracker = small_model(), kgrad.GradientTracker(live=shown)
        model.fit(DATA.X, DATA.y, epochs=4, verbose=int(shown), callbacks=[tracker])
        results.append((model.get_weights(), tracker.history["mean_abs"]))
    for one, other in zip(*(weights for weights, _ in results), strict=True):
        assert one.tobytes() == other.tobytes()
    assert results[0][1].tobytes() == results[1][1].tobytes()
    last = terminal.getvalue().rpartition("epoch 4")[2]
    assert [last.count(name) for name in ("hidden_1", "hidden_3", "output")] == [1, 1, 1]
    assert "━" not in capsys.readouterr().out  # Keras's progress bar
    assert keras.config.is_interactive_logging_enabled()


def test_lines_of_verbose_2_and_the_bar_of_the_next_fit_are_printed(terminal, capsys):
    model = small_model()
    model.fit(DATA.X, DATA.y, verbose=2, callbacks=[kgrad.GradientTracker(live=True)])
    assert "3/3 - " in terminal.getvalue() + capsys.readouterr().out
    model.fit(DATA.X, DATA.y, verbose=1)
    assert "━" in capsys.readouterr().out


def test_a_crashed_fit_leaves_the_terminal_as_it_was(terminal, capsys):
    class Fails(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise OSError("disk full")

    model = small_model()
    with pytest.raises(OSError, match="disk full"), kgrad.GradientTracker(live=True) as tracker:
        model.fit(DATA.X, DATA.y, verbose=1, callbacks=[Fails(), tracker])
    assert keras.config.is_interactive_logging_enabled()
    print("as before")
    assert capsys.readouterr().out.endswith("as before\n")


def test_a_loop_of_ones_own_is_shown_at_its_records(terminal):
    model = small_model()
    optimizer = keras.optimizers.SGD()
    optimizer.build(model.trainable_variables)
    with kgrad.GradientTracker(live=True).attach(optimizer, model) as tracker:
        for _ in range(2):
            optimizer.apply([keras.ops.ones_like(v) for v in model.trainable_variables])
            tracker.record({"loss": 1.5})
    assert "epoch 2, step 2: loss 1.5" in terminal.getvalue()


def test_findings_are_shown_as_they_come(terminal):
    model = small_model()
    model.set_weights([np.full_like(w, np.nan) for w in model.get_weights()])
    model.fit(DATA.X, DATA.y, verbose=0, callbacks=[kgrad.GradientTracker(live=True)])
    assert "nonfinite (hidden_1" in terminal.getvalue()


def test_nothing_is_drawn_if_the_output_is_neither_a_notebook_nor_a_terminal(capsys):
    model = small_model()
    model.fit(DATA.X, DATA.y, verbose=0, callbacks=[kgrad.GradientTracker(live=True)])
    assert capsys.readouterr().out == ""


def test_a_notebook_has_one_picture_that_is_replaced(tmp_path):
    code = """
import kgrad
data = kgrad.make_dataset("moons", 96)
model = kgrad.create_model(3, "relu", "he", units=8, input_shape=(2,), seed=0)
model.compile("adam", "binary_crossentropy")
tracker = kgrad.GradientTracker(live=True)
model.fit(data.X, data.y, epochs=3, verbose=0, callbacks=[tracker])
tracker.history
"""
    outputs = [one for one in run_cell(code, tmp_path) if one.output_type != "stream"]
    assert [one.output_type for one in outputs] == ["display_data", "execute_result"]
    assert "epoch 3, step 9" in outputs[0].data["text/html"]
    assert "4 records of 4 layers" in outputs[1].data["text/html"]
