"""Tests of the app without a browser: Streamlit runs the page, and the tests set its widgets."""

import json
import time
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from streamlit.testing.v1 import AppTest

from kgrad.apps.command.app import is_local, parse
from kgrad.apps.command.main import main as kgrad_main
from kgrad.apps.findings import escape_markdown
from kgrad.apps.page.figures import losses, themed
from kgrad.apps.page.presets import PRESETS
from kgrad.apps.page.runs import Run
from kgrad.records.checks import unique_name
from kgrad.records.history import GradientHistory, Weight
from kgrad.records.journal import Journal

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


def test_the_first_page_has_a_title_knobs_a_preset_and_a_prediction(page):
    assert not page.exception
    assert page.title[0].value == "Gradients, layer by layer"
    assert page.selectbox(key="preset").value == PRESETS[0].name
    assert PRESETS[0].look in " ".join(one.value for one in page.markdown)
    assert [one.label for one in page.sidebar.expander] == ["Network", "Training", "Data"]
    assert page.slider(key="a_layers").value == 10
    assert len(charts(page)) == 1
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

    monkeypatch.setattr("kgrad.apps.page.results._prediction", fails)
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
    first, second = charts(page)
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
    assert not charts(page)
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
    assert "RUN must be a .jsonl history or journal, received" in capsys.readouterr().err


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
    assert not page.button[1].disabled  # Stop
    page.button[1].click().run()
    assert not page.exception
    said = [one.value for one in page.info]
    assert any("cannot be diagnosed" in one for one in said)
    assert all("<script>" not in one.replace("\\<", "") for one in said)


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


def test_a_figure_is_legible_in_either_theme_one_after_the_other():
    figure = themed(themed(go.Figure(), True), False)
    assert figure.layout.font.color == "#222"
    assert themed(figure, True).layout.font.color == "#e8e8ee"


def test_what_is_special_in_a_loss_is_marked():
    history = GradientHistory([Weight("d", "kernel", "d/kernel", (2, 3))], ["mean_abs"])
    for epoch, loss in enumerate([1.0, 0.5, np.inf, np.nan]):
        history.append(epoch, epoch, {"mean_abs": [0.1]}, {"loss": loss})
    figure = losses({"mine": history}, 9)
    assert [one.name for one in figure.data] == ["mine", "infinite", "NaN"]
    assert [list(one.x) for one in figure.data[1:]] == [[2], [3]]
    assert figure.layout.xaxis.range == (-0.5, 9.5)
