"""Tests of the app without a browser: Streamlit runs the page, and the tests set its widgets."""

import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from apps.report.test_sweep_page import filled, loss_of, runs_of
from streamlit.testing.v1 import AppTest

from kgrad.apps.command.app import is_local, parse
from kgrad.apps.command.main import main as kgrad_main
from kgrad.apps.findings import escape_markdown
from kgrad.apps.page.configuration import LEARNING_RATES
from kgrad.apps.page.figures import losses, mark_moment, on_dark, themed
from kgrad.apps.page.presets import PRESETS
from kgrad.apps.page.runs import Run
from kgrad.experiments.sweeps import run_name
from kgrad.records.checks import unique_name
from kgrad.records.history import GradientHistory, Weight
from kgrad.records.journal import Journal
from kgrad.records.sweep import begin_sweep

EVIL = "<script>window.hacked=1</script>"
PAGE = Path(__file__).parents[3] / "kgrad" / "apps" / "page" / "main.py"


@pytest.fixture(scope="module")
def page():
    """Return the page after its first run."""
    return AppTest.from_file(str(PAGE), default_timeout=60).run()


def opened(**query):
    page = AppTest.from_file(str(PAGE), default_timeout=60)
    for name, value in query.items():
        page.query_params[name] = value
    return page.run()


def charts(page):
    """Return the figures as they are sent to the browser."""
    return [json.loads(element.proto.json) for element in page.get("bidi_component")]


def button(page, label):
    return next(one for one in page.button if one.label == label)


def test_the_first_page_has_a_title_knobs_a_preset_and_a_prediction(page):
    assert not page.exception
    assert page.title[0].value == "Gradients, layer by layer"
    assert page.selectbox(key="preset").value == PRESETS[0].name
    assert PRESETS[0].look in " ".join(one.value for one in page.markdown)
    assert [one.label for one in page.sidebar.expander] == ["Network", "Training", "Data"]
    assert page.slider(key="a_layers").value == 10
    assert len(charts(page)) == 3  # gradient against depth, an empty loss, and the network
    assert not page.warning


def test_a_knob_changes_the_prediction_and_the_link_and_leaves_the_preset():
    page = opened()
    before = charts(page)
    page.slider(key="a_layers").set_value(4).run()
    assert charts(page) != before
    assert page.query_params == {"layers": ["4"]} or page.query_params["layers"] in ("4", ["4"])
    assert page.selectbox(key="preset").value == "My own"
    page.selectbox(key="preset").select(PRESETS[1].name).run()
    assert page.selectbox(key="a_activation").value == "relu"
    assert page.slider(key="a_layers").value == 10
    assert not page.exception


def test_a_bound_on_the_norm_that_is_taken_away_is_none():
    page = opened(clip_norm="2")
    page.number_input(key="a_clip_norm").set_value(None).run()
    assert page.number_input(key="a_clip_norm").value is None
    assert "clip_norm" not in page.query_params
    assert not page.exception


def test_a_page_that_fails_keeps_its_knobs(monkeypatch):
    page = opened()

    def fails(*_):
        raise RuntimeError("as nobody thought of")

    monkeypatch.setattr("kgrad.apps.page.results._figures", fails)
    page.slider(key="a_layers").set_value(4).run()
    assert page.exception[0].message == "as nobody thought of"
    assert [one.label for one in page.sidebar.expander] == ["Network", "Training", "Data"]


def test_a_preset_of_two_shows_two_predictions_on_one_scale():
    page = opened()
    cure = next(one for one in PRESETS if one.second is not None)
    page.selectbox(key="preset").select(cure.name).run()
    assert not page.exception
    assert page.toggle(key="compare").value
    assert page.selectbox(key="b_normalization").value == cure.second.normalization
    first, second, *_ = charts(page)
    ranges = [one.split('"range":[')[-1].split("]")[0] for one in (first, second)]
    assert ranges[0] == ranges[1]
    assert first != second


def test_a_link_of_two_configurations_opens_them_both():
    page = opened(compare="on", layers="3", b_layers="5", b_activation="relu", b_skip="on")
    assert not page.exception
    assert not page.warning
    assert (page.slider(key="a_layers").value, page.slider(key="b_layers").value) == (3, 5)
    assert page.toggle(key="b_skip").value


def test_a_comparison_begins_with_the_same_configuration_twice():
    page = opened(layers="3", activation="relu")
    page.toggle(key="compare").set_value(True).run()
    assert page.slider(key="b_layers").value == 3
    assert page.selectbox(key="b_activation").value == "relu"
    assert not page.exception


def test_nonsense_in_the_link_is_named_and_the_page_goes_on():
    page = opened(layers="1000", compare="maybe", b_epochs="x", what="<script>alert(1)</script>")
    assert not page.exception
    said = [one.value for one in page.warning]
    assert len(said) == 4
    assert said[0].startswith("Hidden layers must be a whole number from 1 to 100")
    assert any("compare must be on or off" in one for one in said)
    assert page.slider(key="a_layers").value == 10
    assert charts(page)


def test_a_link_writes_no_markdown_into_the_page():
    page = opened(layers="![x](//a.invalid/y)")
    (said,) = (one.value for one in page.warning)
    assert r"\!\[x\]\(\/\/a\.invalid\/y\)" in said
    assert "![x]" not in said


def test_what_theory_cannot_read_is_said():
    page = opened(skip="on", layers="4", activation="relu", normalization="batch", batch_size="256")
    page.slider(key="a_layers").set_value(100).run()
    assert not page.exception
    assert len(charts(page)) == 2  # no gradients
    assert "theory would take too long for so many layers and samples" in page.info[
        0
    ].value.replace("\\", "")


def test_weights_of_a_spread_of_ones_own_are_taken_and_nonsense_is_refused():
    page = opened(initializer="normal:0.3")
    assert not page.warning
    assert page.selectbox(key="a_initializer").value == "normal:0.3"
    state = page.session_state
    assert state.configurations[0].initializer == "normal:0.3"


def test_a_training_is_followed_to_its_end_and_explained():
    page = opened(layers="2", units="8", epochs="3", activation="relu", initializer="he")
    page.button[0].click().run()
    assert not page.exception
    assert page.button[0].disabled
    deadline = time.monotonic() + 60
    while page.button[0].disabled and time.monotonic() < deadline:
        time.sleep(0.3)
        page.run()
    assert not page.exception
    (run,) = page.session_state.runs
    assert run.history.epochs.tolist() == [0, 1, 2, 3]
    assert run.history.activations  # a probe, for the flow graph
    assert run.history.distributions.any()
    assert run.history.metadata["experiment"]["units"] == 8
    said = " ".join(one.value for one in [*page.success, *page.info])
    assert "The loss went from" in said.replace("\\", "")


def test_without_the_extra_the_command_says_what_to_install(monkeypatch, capsys):
    real = __import__("importlib.util").util.find_spec
    monkeypatch.setattr(
        "kgrad.apps.command.app.find_spec", lambda name: None if name == "streamlit" else real(name)
    )
    assert kgrad_main(["app"]) == 2
    assert capsys.readouterr().err.strip() == (
        'kgrad app: the app needs streamlit: pip install -e ".[app]" in your checkout of kgrad'
    )


def test_the_command_binds_to_this_machine_unless_it_is_told_otherwise(capsys):
    options = parse([], "kgrad app")
    assert (options.host, options.port, options.run) == ("localhost", 8501, None)
    assert all(map(is_local, ("localhost", "127.0.0.1", "::1")))
    assert not any(map(is_local, ("0.0.0.0", "192.168.1.2", "example.org", "::")))
    assert kgrad_main(["app", "nothing.jsonl"]) == 2
    expected = "RUN must be a .jsonl history or journal, or the folder of a sweep, received"
    assert expected in capsys.readouterr().err


def test_a_file_that_grows_is_followed_without_a_browser_too(tmp_path, monkeypatch):
    history = GradientHistory(
        [Weight(EVIL, "kernel", f"{EVIL}/kernel", (2, 3))], ["mean_abs", "l2_norm"], {"epochs": 9}
    )
    for epoch in range(4):
        history.append(epoch, epoch, {"mean_abs": [0.1], "l2_norm": [np.nan]}, {"loss": np.inf})
    history.save(tmp_path / "run.jsonl")
    monkeypatch.setattr("sys.argv", ["app", f"--open={tmp_path / 'run.jsonl'}", "--open-paths"])
    page = opened()
    assert not page.exception
    (run,) = page.session_state.runs
    assert run.epochs == (3, 9)
    stop = button(page, "Stop")
    assert not stop.disabled
    stop.click().run()
    assert not page.exception
    said = [one.value for one in page.info]
    assert any("cannot be diagnosed" in one for one in said)
    assert all("<script>" not in one.replace("\\<", "") for one in said)


def test_a_sweep_shows_its_map_and_the_runs_of_a_cell(tmp_path, monkeypatch):
    runs = runs_of(num_layers=[2, 3], learning_rate=[0.1, 0.2])
    failed = run_name(runs[0])
    sweep = filled(tmp_path / "sweep", runs, [failed])
    monkeypatch.setattr("sys.argv", ["app", f"--open={sweep.folder}", "--open-paths"])
    page = opened()
    assert not page.exception
    assert any(
        "11 of 12 runs are done, 1 failed" in one.value.replace("\\", "") for one in page.markdown
    )
    assert [one.value for one in page.selectbox if one.label == "Color"] == ["loss_gained"]
    page.session_state.sweep_cell = [run_name(run) for run in runs[:3]]
    page.run()
    (warned,) = [one.value for one in page.warning]
    assert warned.startswith("1 failed: ") and "<script>" not in warned.replace("\\<", "")
    names = [one.label for one in page.button if one.label.startswith("seed")]
    assert names == [f"seed {run.seed}: loss {loss_of(run):.3g}" for run in runs[1:3]]
    button(page, names[1]).click().run()
    assert not page.exception
    (run,) = page.session_state.runs
    assert run.recorded().metadata["experiment"]["seed"] == 2


def test_a_sweep_without_a_run_is_named(tmp_path, monkeypatch):
    (run,) = runs_of()[:1]
    begin_sweep(tmp_path / "sweep", {run_name(run): asdict(run)})
    monkeypatch.setattr("sys.argv", ["app", f"--open={tmp_path / 'sweep'}"])
    page = opened()
    assert "has no finished run yet: 0 of 1" in page.error[0].value.replace("\\", "")


def test_what_was_made_of_a_file_is_forgotten_when_another_takes_its_place(tmp_path):
    def recorded(name, epochs, path):
        history = GradientHistory([Weight(name, "kernel", "k", (2, 3))], ["mean_abs"])
        for epoch in range(epochs):
            history.append(epoch, epoch, {"mean_abs": [0.1]}, {"loss": 1.0})
        history.save(path)

    path = tmp_path / "run.jsonl"
    recorded("a", 2, path)
    run = Run("run", Journal(path))
    run.follow()
    run.prediction, run.made["figure"] = object(), object()
    run.follow()
    assert run.prediction is not None
    assert run.made
    recorded("b", 3, tmp_path / "other.jsonl")
    (tmp_path / "other.jsonl").replace(path)
    run.follow()
    assert run.recorded().layers == ("b",)
    assert run.prediction is None
    assert not run.made


def test_a_file_that_is_not_there_or_is_no_history_is_named(tmp_path, monkeypatch):
    (tmp_path / "x.jsonl").write_text("secret\n")
    for name, said in (("y.jsonl", "There is no file"), ("x.jsonl", "x.jsonl is no history")):
        monkeypatch.setattr("sys.argv", ["app", f"--open={tmp_path / name}"])
        page = opened()
        assert not page.exception
        assert said in page.error[0].value.replace("\\", "")
        assert "secret" not in page.error[0].value
        assert charts(page)


def test_files_are_opened_by_path_only_where_the_app_is_for_this_machine_alone(monkeypatch):
    assert not [one for one in opened().text_input if one.key == "path"]
    monkeypatch.setattr("sys.argv", ["app", "--open-paths"])
    assert [one for one in opened().text_input if one.key == "path"]


def test_names_are_shown_as_they_are():
    assert escape_markdown("<b>*x*\n[y](z)") == r"\<b\>\*x\* \[y\]\(z\)"
    names = ["a", "a (2)"]
    assert (unique_name("a", names), unique_name("b", names)) == ("a (3)", "b")


def contrast(color, other):
    """Return WCAG's ratio of two colors' luminances, colors as `(red, green, blue)`."""
    light = []
    for one in (color, other):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in one]
        light.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(light) + 0.05) / (min(light) + 0.05)


@pytest.mark.parametrize("color", ["#222", "#262626", "#1b6ca8", "#c8553d", "#2c3071", "#a4cc90"])
def test_colors_made_for_white_are_seen_on_a_dark_page(color):
    parts = on_dark(color).removeprefix("rgba(").split(",")[:3]
    assert contrast([int(one) / 255 for one in parts], (0.09, 0.09, 0.09)) > 3


def test_a_figure_is_themed_whole_and_its_heatmap_keeps_its_colors():
    figure = go.Figure(layout={"font": {"color": "#222"}, "plot_bgcolor": "white"})
    figure.add_heatmap(z=[[1]], colorscale=[[0, "#000000"], [1, "#ffffff"]])
    figure.add_scatter(x=[1, 2], y=[1, 2], marker={"color": ["#000000", "#222222"]})
    assert json.loads(themed(figure, False)) == json.loads(figure.to_json())
    dark = json.loads(themed(figure, True))
    assert dark["data"][0]["colorscale"] == [[0, "#000000"], [1, "#ffffff"]]
    assert dark["layout"]["plot_bgcolor"] == "rgba(255,255,255,0.03)"
    assert dark["layout"]["font"]["color"] == on_dark("#222")
    assert dark["data"][1]["marker"]["color"] == [on_dark("#000000"), on_dark("#222222")]
    assert dark["data"][1]["x"] == [1, 2]
    assert figure.layout.font.color == "#222"  # the figure itself is as it was


def test_what_is_special_in_a_loss_is_marked():
    history = GradientHistory([Weight("d", "kernel", "d/kernel", (2, 3))], ["mean_abs"])
    for epoch, loss in enumerate([1.0, 0.5, np.inf, np.nan]):
        history.append(epoch, epoch, {"mean_abs": [0.1]}, {"loss": loss})
    figure = losses({"mine": history}, 9)
    assert [one.name for one in figure.data] == ["mine", "infinite", "NaN"]
    assert [list(one.x) for one in figure.data[1:]] == [[2], [3]]
    assert figure.layout.xaxis.range == (-0.5, 9.5)


def test_a_moment_is_marked_once_in_every_panel():
    figure = go.Figure()
    figure.add_scatter(x=[0, 1], y=[1, 2])
    figure.add_scatter(x=[0, 1], y=[1, 2], xaxis="x2", yaxis="y2")
    figure.add_shape(type="rect", x0=0, x1=1, y0=0, y1=1)
    mark_moment(mark_moment(figure, 3.0), 7.0)
    marks = [one for one in figure.layout.shapes if one.type == "line"]
    assert [(one.x0, one.x1, one.xref) for one in marks] == [(7, 7, "x"), (7, 7, "x2")]
    assert len(mark_moment(figure, None).layout.shapes) == 1


def test_the_learning_rate_is_a_logarithmic_slider_that_takes_any_rate_of_a_link():
    assert np.allclose(np.diff(np.log10(LEARNING_RATES)), np.log10(2), atol=0.1)
    page = opened(learning_rate="0.0123")
    slider = page.select_slider(key="a_learning_rate")
    assert slider.value == 0.0123
    slider.set_value(0.5).run()
    assert page.session_state.configurations[0].learning_rate == 0.5
    assert page.query_params["learning_rate"] in ("0.5", ["0.5"])
    assert not page.exception


def point_of(page):
    """Return σ_w² of the network's point in the phase diagram."""
    figures = [one for one in charts(page) if isinstance(one, str) or "data" in one]
    traces = [json.loads(one) if isinstance(one, str) else one for one in figures][-1]["data"]
    return next(one for one in traces if one.get("hovertemplate", "").startswith("this network"))


def test_the_scale_of_the_initial_weights_moves_the_network_in_the_phase_diagram():
    page = opened(activation="tanh", initializer="xavier", units="50", layers="3")
    page.session_state.phases = True
    page.run()
    assert not page.exception
    assert point_of(page)["x"][0] == pytest.approx(1, rel=0.03)
    page.slider(key="a_variance").set_value(2.0).run()
    assert not page.exception
    assert page.session_state.configurations[0].initializer == "normal:0.2"  # √(2 / 50)
    assert point_of(page)["x"][0] == pytest.approx(2, rel=1e-6)
    assert page.slider(key="a_variance").value == 2.0
