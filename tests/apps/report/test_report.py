"""Tests of the report: its content, its security, and its behavior in a browser."""

import base64
import itertools
import json
import math
import re
from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser

import numpy as np
import pytest
from plotly.offline import get_plotlyjs
from waiting import until

from kgrad.apps.command.main import main
from kgrad.apps.command.run_options import command_of
from kgrad.apps.report import write_flow_graph, write_report
from kgrad.apps.report.html import render
from kgrad.diagnosis import diagnose
from kgrad.experiments import Experiment, replicates, run_all
from kgrad.figures.interactive import plot_gradient_by_depth
from kgrad.measure.tracker import GradientTracker
from kgrad.records.flow_graph import flow_graph_from_history
from kgrad.records.history import GradientHistory, Weight

EVIL = (
    "<script>alert(1)</script>",
    "</script><script>window.hacked=1</script>",
    "<img src=x onerror=window.hacked=1>",
    "\"quotes\" & 'more' %{x}",
    "Ünï→層 \u2028",
)
ALWAYS = (
    "mean_abs",
    "l2_norm",
    "nonfinite_steps",
    "first_nonfinite_step",
    "weight_l2",
    "update_l2",
)


class Structure(HTMLParser):
    """The elements of a page with their attributes, its scripts, and its other text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += data


def structure(path) -> Structure:
    return Structure(path.read_text(encoding="utf-8"))


def data_of(page: Structure) -> dict:
    return json.loads(page.scripts[0])


def numbers(values) -> list[float]:
    """Return an array as Plotly's JSON has it: a list, or the bytes of a NumPy array."""
    if isinstance(values, dict):
        return np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"]).tolist()
    return values


def make_run(values: np.ndarray, names=None, **metadata) -> GradientHistory:
    """Return a history with one kernel per layer, the default statistics and a falling loss."""
    names = names or [f"dense_{i}" for i in range(values.shape[1])]
    weights = [Weight(name, "kernel", f"{i}/kernel", (4, 4)) for i, name in enumerate(names)]
    signals = {"outputs": names} if "graph" in metadata else {}
    history = GradientHistory(weights, ALWAYS, metadata, **signals)
    for epoch, row in enumerate(values):
        known = dict.fromkeys(ALWAYS, np.ones(len(names))) | {"mean_abs": row, "l2_norm": 4 * row}
        known["nonfinite_steps"] = 1.0 * ~np.isfinite(row)
        known["update_l2"] = np.full(len(names), 0.01)
        probed = {"activations": {"signal_l2": row}} if signals else {}
        history.append(epoch, 10 * epoch, known, {"loss": 1 / (1 + epoch)}, **probed)
    return history


def joined(names) -> dict:
    """Return the metadata of a chain of layers."""
    nodes = [{"id": name, "kind": name, "layers": [name]} for name in names]
    edges = [[a, b, [a]] for a, b in itertools.pairwise(names)]
    return {"nodes": nodes, "edges": edges, "assumed": False}


@pytest.fixture(scope="module")
def runs():
    small = {"num_layers": 3, "units": 8, "epochs": 4, "samples": 128}
    bad = Experiment(name="bad", activation="sigmoid", weight_initializer="normal", **small)
    good = Experiment(name="good", bias_initializer="normal:0.1", **small)
    return run_all([*replicates(bad, 2), good])


@pytest.fixture(scope="module")
def report(runs, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(runs, path, "Sigmoid or ReLU")
    return path


@pytest.fixture(scope="module")
def evil_report(tmp_path_factory):
    values = 10.0 ** np.linspace(-9, -1, 5) * np.ones((6, 1))
    values[2, 0], values[3, 1], values[4, 2] = 0, np.nan, np.inf
    path = tmp_path_factory.mktemp("evil") / "report.html"
    claims = {"seed": EVIL[0], "model": list(EVIL), "graph": joined(EVIL)}
    evil = make_run(values, EVIL, experiment={"name": EVIL[1]}, **claims)
    write_report({EVIL[1]: evil, EVIL[2]: evil}, path, EVIL[0])
    return path


def test_the_report_says_what_was_run_found_and_how_to_do_it_again(report):
    page = structure(report)
    for words in (
        "Sigmoid or ReLU",
        "3 hidden layers of 8 units, sigmoid, normal.",
        "3 hidden layers of 8 units, relu, he, biases normal:0.1.",
        "--initializer he --bias-initializer normal:0.1 --layers 3 --units 8",
        "weight_initializer='he',\n    bias_initializer='normal:0.1',\n    num_layers=3,",
        "Trained for 4 epochs in batches of 32 by sgd with learning rate 0.05.",
        "2 runs, seeds 0, 1.",
        "Trained on 20",
        "The figures show seed 0.",
        "1 run, seed 0.",
        "--activation sigmoid --initializer normal --layers 3 --units 8 --samples 128 --epochs 4",
        "activation='sigmoid',\n    weight_initializer='normal',\n    num_layers=3,\n    units=8,",
        "replicates(experiment, [0, 1])",
    ):
        assert words in page.text, words
    assert "No prediction" not in page.text


def lines_of_verdict(path):
    html = path.read_text(encoding="utf-8")
    part = html[html.index('<ul class="verdict">') : html.index("</ul>")]
    return [
        " ".join(re.sub("<.*?>", "", line).split())
        for line in re.findall(r"<li.*?</li>", part, re.S)
    ]


def test_the_report_opens_with_a_verdict_on_each_network(tmp_path):
    well = [
        make_run(np.full((4, 3), 0.1), seed=seed, experiment={"name": "good", "seed": seed})
        for seed in (0, 1)
    ]
    values = np.full((4, 3), 0.1)
    values[2:, 1] = np.nan
    ill = make_run(values, experiment={"name": "bad"})
    lacking = GradientHistory([Weight("d", "kernel", "d/kernel", (2, 2))], ["mean_abs"])
    lacking.append(0, 0, {"mean_abs": [1.0]})
    short = make_run(np.full((2, 3), 0.1), experiment={"name": "short"})
    write_report([*well, ill, short, lacking], tmp_path / "r.html")
    good, bad, brief, unknown = lines_of_verdict(tmp_path / "r.html")
    assert good == "good is well: nothing is wrong with 2 seeds."
    # What the finding says is that of `diagnose`, which tests of its own check.
    (finding,) = diagnose(ill)
    assert bad == (f"bad is ill: nonfinite in dense_1, since epoch 2. → {finding.remedies[0]}")
    assert brief.startswith("short has no findings, but two records are too few to see ")
    assert unknown.startswith("history 5 is not diagnosed: history must have l2_norm, ")
    page = structure(tmp_path / "r.html")
    order = [
        page.text.rindex(text) for text in ("bad is ill", "All networks", "The runs", "What was")
    ]
    assert order == sorted(order)


def test_the_report_says_when_with_what_and_how_long(tmp_path):
    known = {"kgrad": "0.0.9", "keras": "3.99", "jax": "0.5", "python": "3.12", "device": "TPU"}
    runs = [make_run(np.full((3, 2), 0.1), seconds=time, started="2026-01-02T03:04:05", **known)
            for time in (40.0, 20.5)]  # fmt: skip
    before = datetime.now(timezone.utc)
    write_report({"a": runs}, tmp_path / "r.html")
    text = structure(tmp_path / "r.html").text
    (day, clock) = re.search(r"Written on (\S+) at (\S+) UTC by kgrad", text).groups()
    written = datetime.fromisoformat(f"{day}T{clock}+00:00")
    assert abs(written - before) < timedelta(minutes=2)
    assert "2 runs, 1 network · 60 s of training · recorded with kgrad 0.0.9, Keras 3.99" in text
    assert "JAX 0.5, Python 3.12 on TPU" in text
    assert "Trained on 2026-01-02 in 60 s." in text
    # Where a run does not say how long it took, the sum would be wrong.
    write_report({"a": [runs[0], make_run(np.full((3, 2), 0.1))]}, tmp_path / "r.html")
    assert "s of training" not in structure(tmp_path / "r.html").text


def test_layers_of_a_model_of_the_users_own_are_not_called_hidden(tmp_path, report):
    write_report([make_run(np.full((3, 2), 0.1))], tmp_path / "r.html")
    text = structure(tmp_path / "r.html").text
    assert "last layer" in text
    assert "hidden" not in text
    assert "last hidden layer" in structure(report).text


def test_what_was_asked_for_is_in_how_to_reproduce(tmp_path):
    small = Experiment(num_layers=2, units=4, epochs=1, samples=64, probe=True, distributions=True)
    (asked,) = run_all([small])
    write_report([asked], tmp_path / "r.html")
    text = structure(tmp_path / "r.html").text
    assert "--distributions --probe --seeds 1" in text
    assert "    distributions=True,\n    probe=True,\n" in text
    asked.metadata.pop("experiment")  # as a run of the user's own
    asked.metadata["every"] = 7
    write_report([asked], tmp_path / "r.html")
    text = structure(tmp_path / "r.html").text
    assert "GradientTracker(every=7, distributions=True, probe=(X[:64], y[:64]))" in text


def test_edges_that_were_not_measured_are_named_in_one_sentence(tmp_path, report):
    (sentence,) = re.findall(r"The edges[^.]*\.", " ".join(structure(report).text.split()))
    assert sentence.startswith("The edges of the flow graphs of bad; good were not measured: ")
    assert "Edges were not measured" not in structure(report).text
    names = [f"dense_{i}" for i in range(3)]
    history = make_run(np.full((3, 3), 0.1), names, graph=joined(names))  # with a probe
    write_report([history], tmp_path / "r.html")
    assert "not measured" not in structure(tmp_path / "r.html").text


def test_the_loss_is_above_the_gradients_on_the_same_time_axis(report, runs):
    first, *others = (one["figure"] for one in data_of(structure(report))["figures"])
    lines = [one for one in others if "xaxis99" in one["layout"]]
    shown = {"bad, seed 0": runs[0], "good": runs[2]}
    assert [len(one["data"]) > 1 for one in lines] == [True, True]
    for figure, histories in (
        (first, shown),
        *((f, {"": h}) for f, h in zip(lines, shown.values(), strict=True)),
    ):
        losses = [one for one in figure["data"] if one.get("yaxis") == "y99"]
        assert [one["name"] for one in losses] == [f"loss of {name}" for name in histories]
        for trace, history in zip(losses, histories.values(), strict=True):
            assert numbers(trace["x"]) == history.epochs.tolist()
            assert numbers(trace["y"]) == pytest.approx(history.logs["loss"].tolist(), rel=1e-6)
        layout = figure["layout"]
        assert layout["xaxis99"]["matches"] == "x"
        panels = [value["domain"] for key, value in layout.items() if key.startswith("yaxis")]
        *below, loss = sorted(panels)
        assert loss == layout["yaxis99"]["domain"]
        assert loss[1] == 1
        assert all(
            top < next_bottom for (_, top), (next_bottom, _) in itertools.pairwise(sorted(panels))
        )
        height = layout["height"] - layout["margin"]["t"] - layout["margin"]["b"]
        assert (loss[1] - loss[0]) * height == pytest.approx(130, abs=1)
        assert all(0 <= bottom < top < loss[0] for bottom, top in below)


def test_a_loss_of_nan_has_a_mark_and_a_run_without_a_loss_has_no_panel(tmp_path):
    weights = [Weight("d", "kernel", "d/kernel", (2, 2))]
    history, bare = (GradientHistory(weights, ["mean_abs"]) for _ in range(2))
    for epoch, loss in enumerate([2.0, np.nan, 1.0]):
        history.append(epoch, epoch, {"mean_abs": [0.1]}, {"loss": loss})
        bare.append(epoch, epoch, {"mean_abs": [0.1]})
    write_report([history], tmp_path / "nan.html")
    (opening, *_) = data_of(structure(tmp_path / "nan.html"))["figures"]
    marks = [
        one for one in opening["figure"]["data"]
        if one.get("yaxis") == "y99" and one["name"] == "NaN"
    ]  # fmt: skip
    assert [numbers(one["x"]) for one in marks] == [[1.0]]
    (line,) = (one for one in opening["figure"]["data"] if one.get("name") == "loss of history 1")
    assert [size > 0 for size in numbers(line["marker"]["size"])] == [True, False, True]
    write_report([bare], tmp_path / "bare.html")
    for one in data_of(structure(tmp_path / "bare.html"))["figures"]:
        assert "yaxis99" not in one["figure"]["layout"]


def test_findings_come_with_evidence_and_remedies(tmp_path):
    values = np.tile(10.0 ** np.arange(-8, -1), (6, 1))
    values[3:, 2] = np.nan
    write_report([make_run(values)], tmp_path / "r.html")
    text = structure(tmp_path / "r.html").text
    assert re.search(r"critical: may follow from it: nonfinite in .*since epoch 3", text)
    assert "A NaN or an infinity entered the gradients" in text
    assert "Reduce the learning rate" in text
    assert (
        "Measured: dense_2, epoch 3: the gradient of 1 of the updates has a NaN or infinity."
        in text
    )


def test_the_table_has_a_row_a_run_with_its_numbers(report, runs):
    html = report.read_text(encoding="utf-8")
    table = html[html.index('<table id="table">') : html.index("</table>")]
    table = re.sub("</?a.*?>", "", table)
    rows = [re.findall(r"<t[dh]>(.*?)</t[dh]>", row) for row in table.split("<tr>")[1:]]
    head, *lines = rows
    assert [line[:2] for line in lines] == [["bad", "0"], ["bad", "1"], ["good", "0"]]
    for line, history in zip(lines, runs, strict=True):
        cells = dict(zip(head, line, strict=True))
        gradient = history.by_layer("mean_abs")[0]
        assert cells["loss, last"] == f"{history.logs['loss'][-1]:.3g}"
        assert cells["ratio"] == f"{gradient[0] / gradient[2]:.3g}"
        assert float(cells["ratio predicted"]) > 0


def test_every_network_is_predicted_and_drawn(report):
    figures = data_of(structure(report))["figures"]
    names = [{trace.get("name") for trace in one["figure"]["data"]} for one in figures]
    assert sum("predicted" in some for some in names) == 2
    # The comparison; then lines, gradient against depth and flow graph of each network.
    assert len(figures) == 7


def test_the_file_is_small_and_names_no_address(report):
    html = report.read_text(encoding="utf-8")
    assert report.stat().st_size <= 6_000_000
    assert html.count(get_plotlyjs()) == 1
    rest = html.replace(get_plotlyjs(), "")
    assert not re.findall(r"(?:https?:)?//[\w-]+\.\w+", rest)
    page = Structure(rest)
    assert not [a for _, a in page.elements if "src" in a]
    links = {a["href"] for _, a in page.elements if "href" in a} - {"data:,"}
    identifiers = {a["id"] for _, a in page.elements if "id" in a}
    assert {link[0] for link in links} == {"#"}
    assert {link[1:] for link in links} <= identifiers


def test_the_policy_forbids_the_network_and_every_other_script(report):
    policies = [
        attributes["content"]
        for tag, attributes in structure(report).elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert len(policies) == 1
    directives = dict(part.strip().split(" ", 1) for part in policies[0].split(";"))
    assert directives["default-src"] == "'none'"
    assert "connect-src" not in directives
    assert re.fullmatch(r"('sha256-[\w+/]{43}=' ?){2}", directives["script-src"])


@pytest.mark.parametrize("name", EVIL)
def test_no_name_becomes_markup(evil_report, name):
    html = evil_report.read_text(encoding="utf-8").replace(get_plotlyjs(), "")
    if "<" in name:
        assert name not in html
    page = Structure(html)
    assert len(page.scripts) == 3
    assert "img" not in [tag for tag, _ in page.elements]
    assert not [a for _, a in page.elements if any(key.startswith("on") for key in a)]
    assert EVIL[0] in page.text  # the title, unchanged


def test_no_json_ends_its_script():
    html = render("page.html", "t", list(EVIL))
    found = Structure(html)
    assert len(found.scripts) == 3
    assert json.loads(found.scripts[0]) == list(EVIL)
    assert not {"<", ">", "&", "\u2028"} & set(found.scripts[0])


def test_names_reach_the_figures_as_they_are(evil_report):
    (first, *_) = data_of(structure(evil_report))["figures"]
    assert first["figure"]["layout"]["annotations"][0]["text"] == (
        "<b>&lt;/script&gt;&lt;script&gt;window.hacked=1&lt;/script&gt;</b>"
    )


def test_a_thousand_epochs_of_a_hundred_layers_fit(tmp_path, random):
    values = 10 ** random.normal(-30, 10, (1000, 100))  # beyond float32: twice the bytes
    values[600:, 3] = np.nan
    names = [f"dense_{i}" for i in range(100)]
    write_report([make_run(values, names, graph=joined(names))], tmp_path / "r.html")
    assert (tmp_path / "r.html").stat().st_size <= 6_000_000
    data = data_of(structure(tmp_path / "r.html"))
    assert data["labels"][0] == "epoch 0"
    assert data["labels"][-1] == "epoch 999"
    assert 90 <= len(data["labels"]) <= 200
    assert "epoch 600" in data["labels"]  # the first NaN


def test_a_run_that_was_not_an_experiment_is_reported_all_the_same(tmp_path):
    write_report([make_run(np.full((3, 2), 0.1))], tmp_path / "r.html")
    text = structure(tmp_path / "r.html").text
    assert "its history does not describe the experiment" in text
    assert "Nothing is wrong: the gradients look healthy." in text
    assert "model.fit(X, y, epochs=2, callbacks=[tracker])" in text


@pytest.mark.parametrize("recorded", [ALWAYS[:1], ALWAYS[:4]])
def test_a_history_that_lacks_what_the_rules_look_at_is_not_diagnosed(tmp_path, recorded):
    history = GradientHistory([Weight("d", "kernel", "d/kernel", (2, 2))], recorded)
    for epoch in range(3):
        history.append(epoch, epoch, {name: [np.nan] for name in recorded})
    write_report([history], tmp_path / "r.html")
    assert "Not diagnosed: " in structure(tmp_path / "r.html").text


@pytest.mark.parametrize(
    "claim",
    [
        {"layers": 10**9},
        {"units": 10**9},
        {"samples": 10**12},
        {"layers": "many"},
        {"units": None},
        {"activation": ["relu"]},
        {"activation": {"class_name": "x"}},
        {"every": -1},
        {"unknown": 1},
    ],
    ids=str,
)
def test_a_history_that_claims_nonsense_is_reported_and_not_rebuilt(tmp_path, claim):
    history = make_run(np.full((3, 4), 0.1), experiment={"name": "x", "layers": 3} | claim)
    write_report([history], tmp_path / "r.html")
    assert "No prediction" in structure(tmp_path / "r.html").text


def test_a_single_measurement_has_no_slider(tmp_path):
    write_report([make_run(np.full((1, 3), 0.1))], tmp_path / "r.html")
    page = structure(tmp_path / "r.html")
    assert "input" not in [tag for tag, _ in page.elements]
    assert len(data_of(page)["figures"]) == 2


def test_runs_of_other_networks_under_one_name_stay_apart(tmp_path):
    both = [make_run(np.full((2, n), 0.1), experiment={"name": "same"}) for n in (2, 3)]
    write_report(both, tmp_path / "r.html")
    headings = re.findall("<h2.*?>(.*?)</h2>", (tmp_path / "r.html").read_text(encoding="utf-8"))
    assert headings[-2:] == ["same", "same (2)"]


def test_a_command_cannot_carry_another():
    experiment = Experiment(activation="relu; rm -rf ~", weight_initializer="$(id)")
    words = command_of(experiment, 1)
    assert "--activation 'relu; rm -rf ~' --initializer '$(id)'" in words


@pytest.mark.parametrize(
    ("histories", "error", "message"),
    [
        ([], ValueError, "must hold at least one history"),
        ({"a": []}, ValueError, "must hold at least one history"),
        (3, TypeError, r"received int: pass \[history\]"),
        (GradientTracker(), TypeError, "received a GradientTracker, .*: pass tracker.history"),
        ([3], TypeError, "must be a GradientHistory, received int"),
        ([make_run(np.ones((0, 1)))], ValueError, "must have at least one record"),
    ],
)
def test_what_cannot_be_reported_is_refused_before_a_file_is_written(
    tmp_path, histories, error, message
):
    with pytest.raises(error, match=message):
        write_report(histories, tmp_path / "r.html")
    assert not list(tmp_path.iterdir())


# Plotly resizes its figures a moment after the window.
FITTED = """() => [...document.querySelectorAll(".js-plotly-plot")].every((plot) =>
  Math.abs(plot.querySelector(".main-svg").getBoundingClientRect().width - plot.clientWidth) < 2)"""


class Opened:
    """Pages opened without a network, each file once, with their messages and requests."""

    def __init__(self, browser):
        self.context = browser.new_context(offline=True)
        self.pages, self.said, self.asked = {}, [], []

    def __call__(self, path, width=1000):
        if path not in self.pages:
            self.pages[path] = self._new(path)
        page = self.pages[path]
        page.bring_to_front()
        page.set_viewport_size({"width": width, "height": 800})
        until(lambda: page.evaluate(FITTED))
        page.mouse.move(0, 0)
        page.evaluate("scrollTo(0, 0)")
        if page.locator("#moment").input_value() != "0":
            move(page, "Home", 0)
        return page

    def _new(self, path):
        page = self.context.new_page()
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("dialog", lambda dialog: (self.said.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready]", timeout=30_000)
        return page


@pytest.fixture(scope="module")
def pages(browser):
    opened = Opened(browser)
    yield opened
    opened.context.close()


@pytest.fixture
def open_page(pages):
    """Return a function that opens a file; afterwards check that no page complained or loaded."""
    yield pages
    assert pages.said == []
    assert [url for url in pages.asked if not url.startswith(("file:", "data:", "blob:"))] == []


MARKED = """() => [...document.querySelectorAll(".plot")].map((plot) => ({
  lines: (plot.layout.shapes ?? []).filter((one) => one.name === "marked").map((one) => one.x0),
  profile: plot.data.filter((one) => one.name?.startsWith("epoch")).at(-2)?.y,
  names: plot.data.map((one) => one.name),
}))"""


def move(page, key, position):
    """Move the slider, and wait until all figures have followed."""
    page.locator("#moment").press(key)
    page.wait_for_selector(f'html[data-marked="{position}"]')


def test_the_slider_marks_the_same_epoch_in_all_figures(open_page, report, runs):
    page = open_page(report)
    assert page.locator(".plot .main-svg").count() >= 5
    for position, key in ((1, "ArrowRight"), (4, "End")):
        move(page, key, position)
        assert page.locator("#said").inner_text() == f"epoch {position}"
        compared, *each = page.evaluate(MARKED)
        assert compared["lines"] == [position] * 3  # two heatmaps and the loss
        for (over_time, against_depth, _), history in zip(
            (each[:3], each[3:]), (runs[0], runs[2]), strict=True
        ):
            assert over_time["lines"] == [position] * 2
            expected = history.by_layer("mean_abs")[position]
            assert against_depth["profile"] == pytest.approx(expected.tolist())
            assert against_depth["names"][-1] == f"epoch {position}, marked"
            shown = [name for name in against_depth["names"] if name]
            assert shown.count(f"epoch {position}, marked") == 2  # the line and its special values


FLOW = """(place) => { const plot = [...document.querySelectorAll(".plot")].at(place);
  const edges = plot.data.filter((one) => one.hovertemplate && one.mode === "lines");
  const [numbers, nodes, beside] = plot.data.slice(edges.length);
  return { colors: edges.map((one) => one.line.color), dashes: edges.map((one) => one.line.dash),
    widths: edges.map((one) => one.line.width), told: edges.map((one) => one.meta),
    numbers: numbers.text, symbols: [...numbers.marker.symbol], sizes: [...nodes.marker.size],
    nodes: nodes.text, beside: beside.text, columns: new Set(nodes.x).size,
    height: plot.clientHeight }; }"""


def test_the_flow_graph_follows_the_slider(open_page, report, runs):
    page = open_page(report)
    for position, key in ((0, "Home"), (1, "ArrowRight"), (4, "End")):
        if position:
            move(page, key, position)
        for place, history in ((3, runs[0]), (-1, runs[2])):
            told = page.evaluate(FLOW, place)["nodes"]
            assert told[0].startswith(f"epoch {position}: no gradient: ")
            shown = [text.split(": ") for text in told[1:]]
            assert {epoch for epoch, _ in shown} == {f"epoch {position}"}
            expected = history.by_layer("l2_norm")[position]
            assert [float(number) for _, number in shown] == pytest.approx(expected, rel=5e-3)


NORMS = np.array([[1e-3, 0.01, 1.0], [0.5, 0.0101, 1.0], [2e-7, 0, 1], [math.nan, math.inf, 1]])


@pytest.fixture(scope="module")
def flow_page(tmp_path_factory):
    path = tmp_path_factory.mktemp("flow") / "graph.html"
    history = make_run(NORMS, graph=joined([f"dense_{i}" for i in range(3)]))
    write_flow_graph(flow_graph_from_history(history, epoch=0), path, EVIL[0])
    return path


def test_a_page_of_a_flow_graph_looks_at_every_epoch_as_the_norms_demand(open_page, flow_page):
    page = open_page(flow_page)
    seen = [page.evaluate(FLOW, 0)]
    for position in range(1, 4):
        move(page, "ArrowRight", position)
        seen.append(page.evaluate(FLOW, 0))
    green, red = "#00915f", "#c1272d"
    assert [one["colors"] for one in seen[:3]] == [[red, red], [green, green], [red, red]]
    assert [one["dashes"] for one in seen[:2]] == [["7px,4px"] * 2, ["solid"] * 2]
    # 2e-7 to 0.5 on a logarithmic scale are 1.2 to 6 pixels.
    shares = np.log10(NORMS[:2, :2] / 2e-7) / np.log10(0.5 / 2e-7)
    assert np.allclose([one["widths"] for one in seen[:2]], 1.2 + 4.8 * shares, atol=0.11)
    assert [one["numbers"] for one in seen] == [
        ["∂a 0.001", "∂a 0.01"], ["∂a 0.5", "∂a 0.01"], ["∂a 2e-7", "∂a 0"], ["∂a NaN", "∂a ∞"]
    ]  # fmt: skip
    assert [one["symbols"] for one in seen[2:]] == [["circle", "circle"], ["x", "triangle-up"]]
    assert [one["told"][1] for one in seen] == [
        "epoch 0: 0.01, at or below 0.01", "epoch 1: 0.0101, above 0.01",
        "epoch 2: 0 (exactly)", "epoch 3: infinite",
    ]  # fmt: skip
    assert seen[3]["beside"][0] == "\u2003\u2009dense_0<br>\u2003\u2009∂W NaN"
    assert seen[1]["beside"][0] == "\u2003\u2009dense_0<br>\u2003\u2009∂W 2"  # 4 × |g|
    largest = 23  # pixels, of the largest node
    assert seen[0]["sizes"][2] == pytest.approx(largest, abs=0.5)


def test_pointing_at_an_edge_tells_between_whom_when_and_how_much(open_page, flow_page):
    page = open_page(flow_page)
    for _ in range(2):
        line = page.locator(".plot .scatterlayer .trace path.js-line").first
        box = line.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 0.3 * box["height"])
        label = page.locator(".hoverlayer .hovertext").first
        label.wait_for()
        assert label.text_content() == "dense_0 → dense_1‖∂L/∂a‖, epoch 0: 0.001, at or below 0.01"


def test_a_deep_flow_graph_has_more_columns_where_the_page_is_wide(open_page, tmp_path):
    names = [f"dense_{i}" for i in range(60)]
    path = tmp_path / "deep.html"
    history = make_run(np.full((2, 60), 0.5), names, graph=joined(names))
    write_flow_graph(flow_graph_from_history(history, epoch=0), path)
    for width, columns in ((400, 3), (1100, 8), (400, 3)):
        page = open_page(path, width=width)
        found = page.evaluate(FLOW, 0)
        assert found["columns"] == columns
        assert found["beside"][59] == "\u2003\u2009dense_59<br>\u2003\u2009∂W 2"
        assert page.evaluate("document.documentElement.scrollWidth") <= width


BLOCKS = 12  # of four layers, three of them with weights


def residual_run() -> GradientHistory:
    """Return two records of a deep residual network, whose graph is larger than a screen."""
    names, edges, before = ["image"], [], "image"
    for k in range(1, BLOCKS + 1):
        inner = [f"block{k}_{part}" for part in ("conv", "norm", "dense", "add")]
        edges += [[a, b, [a]] for a, b in itertools.pairwise([before, *inner])]
        edges.append([before, inner[-1], [before]])
        before = inner[-1]
        names += inner
    names.append("output")
    edges.append([before, "output", [before]])
    weighted = [name for name in names if name != "image" and not name.endswith("add")]
    nodes = [{"id": name, "kind": "Dense", "layers": [name] * (name in weighted)} for name in names]
    weights = [Weight(name, "kernel", f"{name}/kernel", (4, 4)) for name in weighted]
    graph = {"nodes": nodes, "edges": edges, "assumed": False}
    history = GradientHistory(weights, ALWAYS, {"graph": graph}, outputs=names)
    for epoch in range(2):
        known = dict.fromkeys(ALWAYS, np.ones(len(weighted)))
        known["l2_norm"] = (1.0 + epoch) * np.arange(1, len(weighted) + 1)
        known["nonfinite_steps"] = np.zeros(len(weighted))
        probed = {"signal_l2": 0.1 * np.arange(1.0, len(names) + 1)}
        history.append(epoch, 10 * epoch, known, {"loss": 1.0}, activations=probed)
    return history


@pytest.fixture(scope="module")
def folded_report(tmp_path_factory):
    path = tmp_path_factory.mktemp("folded") / "report.html"
    write_report([residual_run()], path)
    return path


def block_norm(history, block, epoch):
    norms = history.by_layer("l2_norm")[epoch]
    inner = [i for i, name in enumerate(history.layers) if name.startswith(f"block{block}_")]
    assert len(inner) == 3
    return math.sqrt(sum(norms[i] ** 2 for i in inner))


def rounded(norm):
    """Two digits, of a norm from 1 to 1000."""
    return f"{float(f'{norm:.1e}'):g}"


def test_a_large_flow_graph_is_folded_into_blocks_that_are_named_below_it(folded_report):
    html, history = folded_report.read_text(encoding="utf-8"), residual_run()
    found = re.findall(r'<details class="block"><summary>(.*?)</summary>', html)
    assert [re.sub("<.*?>", "", one) for one in found] == [
        f"block{k}: 4 layers, ∂W {rounded(block_norm(history, k, 0))}" for k in range(1, BLOCKS + 1)
    ]
    figures = data_of(structure(folded_report))["figures"]
    with_flow = [one["flow"] for one in figures if "flow" in one]
    assert [one["nodes"]["count"] for one in with_flow] == [BLOCKS + 2] + [5] * BLOCKS
    assert "A node with a number of layers is folded: click it" in structure(folded_report).text


def test_a_small_flow_graph_is_not_folded(report):
    assert '<details class="block">' not in report.read_text(encoding="utf-8")


OPEN = """() => [...document.querySelectorAll(".block[open]")].map((block) => ({
  summary: block.querySelector("summary").textContent,
  names: (block.querySelector(".plot").data ?? []).filter((one) => one.mode === "text")
    .flatMap((one) => one.text) }))"""

NODE = """([place, node]) => { const plot = document.querySelectorAll(".plot")[place];
  plot.scrollIntoView({ block: "center" });
  const area = plot.querySelector(".nsewdrag").getBoundingClientRect();
  const nodes = plot.data.find((one) => one.customdata);
  const share = (value, [from, to]) => (value - from) / (to - from);
  return [area.left + area.width * share(nodes.x[node], plot.layout.xaxis.range),
          area.bottom - area.height * share(nodes.y[node], plot.layout.yaxis.range)]; }"""


@pytest.mark.parametrize("width", [390, 1280])
def test_a_click_on_a_block_opens_its_own_graph_below(open_page, folded_report, width):
    page, history = open_page(folded_report, width=width), residual_run()
    page.evaluate("document.querySelectorAll('.block').forEach((one) => { one.open = false; })")
    (place,) = (
        i
        for i, one in enumerate(data_of(structure(folded_report))["figures"])
        if "flow" in one and one["flow"]["blocks"]
    )
    page.mouse.move(*page.evaluate(NODE, [place, 3]))
    page.locator(".hovertext", has_text="block3").first.wait_for()
    assert page.evaluate(OPEN) == []
    page.mouse.down()
    page.mouse.up()
    until(lambda: page.evaluate(OPEN) and page.evaluate(OPEN)[0]["names"])
    (opened,) = page.evaluate(OPEN)
    assert opened["summary"] == f"block3: 4 layers, ∂W {rounded(block_norm(history, 3, 0))}"
    names = [text.split("<br>")[0].strip() for text in opened["names"]]
    assert names == ["block2_add", *(f"block3_{part}" for part in ("conv", "norm", "dense", "add"))]
    assert page.evaluate("document.activeElement.textContent") == opened["summary"]
    top = page.locator(".block[open]").bounding_box()["y"]
    assert 0 <= top < 800
    move(page, "End", 1)  # which the block's graph and its summary follow
    (opened,) = page.evaluate(OPEN)
    assert opened["summary"] == f"block3: 4 layers, ∂W {rounded(block_norm(history, 3, 1))}"
    norms = history.by_layer("l2_norm")[1][6:9]
    assert [text.split("∂W ")[1] for text in opened["names"][1:4]] == [rounded(n) for n in norms]
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_block_is_opened_with_the_keyboard_alone(open_page, folded_report):
    page = open_page(folded_report)
    page.evaluate("document.querySelectorAll('.block').forEach((one) => { one.open = false; })")
    page.locator(".block summary").nth(4).focus()
    page.keyboard.press("Enter")
    until(lambda: page.evaluate(OPEN) and page.evaluate(OPEN)[0]["names"])
    (opened,) = page.evaluate(OPEN)
    assert opened["summary"].startswith("block5: 4 layers, ")
    assert "block5_norm" in opened["names"][2]


def test_a_page_of_a_flow_graph_has_the_reports_policy_and_no_address(flow_page):
    page = structure(flow_page)
    (policy,) = (
        a["content"]
        for t, a in page.elements
        if t == "meta" and "content" in a and "default-src" in a["content"]
    )
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    rest = flow_page.read_text(encoding="utf-8").replace(get_plotlyjs(), "")
    assert not re.findall(r"(?:https?:)?//[\w-]+\.\w+", rest)
    assert len(page.scripts) == 3
    assert EVIL[0] in page.text
    assert "Data flows down (▽), gradients up (▲)." in page.text


@pytest.mark.parametrize(
    ("graph", "sentence"),
    [
        (3, "No flow graph: graph must have nodes (each with id) and edges"),
        (joined([f"<b>{i}" for i in range(600)]), "it has 1,199 layers and edges, more than 1,000"),
    ],
    ids=["malformed", "enormous"],
)
def test_a_graph_that_cannot_be_drawn_is_named_in_the_report(tmp_path, graph, sentence):
    history = make_run(np.full((2, 2), 0.1), graph=graph)
    write_report([history], tmp_path / "r.html")
    assert sentence in structure(tmp_path / "r.html").text


def test_pointing_at_a_cell_tells_layer_shape_epoch_and_value(open_page, report, runs):
    page = open_page(report)
    plot = page.locator(".plot").first
    box = plot.locator(".nsewdrag").first.bounding_box()
    # The cell in the second of four rows and the third of five columns.
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.375)
    label = plot.locator(".hoverlayer .hovertext").first
    label.wait_for()
    value = runs[0].by_layer("mean_abs")[2, 1]
    exponent = int(np.floor(np.log10(value)))
    text = label.text_content()
    assert text.startswith("hidden_2kernel (8, 8), bias (8,)epoch 2: ")
    shown = text.rsplit(": ", 1)[1].replace("−", "-")
    assert float(shown) == pytest.approx(value, abs=0.006 * 10**exponent)


def test_nothing_that_a_file_names_runs(open_page, evil_report):
    page = open_page(evil_report)
    for position in range(1, 6):
        move(page, "ArrowRight", position)
        assert page.evaluate("window.hacked") is None, position
    assert page.locator("h1").inner_text() == EVIL[0]
    assert page.locator("img").count() == 0
    assert page.locator(".plot").first.locator(".ytick text").all_text_contents() == [
        "</script>",  # shortened at the slashes
        "</s/script>",
        "…indow.hacked=1>",
        "…\" & 'more' %{x}",
        "Ünï→層 \u2028",
    ]
    box = page.locator(".nsewdrag").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + box["height"] * 0.1)
    label = page.locator(".hoverlayer .hovertext").first
    label.wait_for()
    assert EVIL[0] in label.text_content()


def test_the_last_layer_is_named_where_there_is_little_room(browser, tmp_path):
    history = make_run(np.ones((1, 11)))
    figure = plot_gradient_by_depth(history).update_layout(width=500, height=380)
    figure.write_html(tmp_path / "depth.html")
    page = browser.new_page()
    page.goto((tmp_path / "depth.html").as_uri())
    page.locator(".xtick").first.wait_for()
    names = page.locator(".xtick text >> visible=true").all_text_contents()
    page.close()
    assert names == list(history.layers)


def test_a_special_value_of_the_marked_epoch_stands_in_its_strip(open_page, evil_report):
    page = open_page(evil_report)
    shown = []
    for position in range(1, 5):
        move(page, "ArrowRight", position)
        symbols = page.evaluate(
            """() => { const plot = [...document.querySelectorAll(".plot")].at(-2);
            const one = plot.data.at(-1);
            return one.y.map((y, i) => y === null ? "" : one.marker.symbol[i]); }"""
        )
        shown.append([(i, symbol) for i, symbol in enumerate(symbols) if symbol])
    assert shown == [[], [(0, "circle")], [(1, "x")], [(2, "triangle-up")]]


def test_the_page_is_no_wider_than_a_telephone(open_page, report, evil_report):
    for path in (report, evil_report):
        page = open_page(path, width=400)
        assert page.evaluate("document.documentElement.scrollWidth") <= 400


DRAWN = """() => [...document.querySelectorAll(".plot")].map((plot) => ({
  panel: plot.layout.plot_bgcolor,
  font: plot.layout.font.color,
  lines: plot.data.filter((one) => one.mode?.includes("lines") && one.line?.width !== 0)
    .map((one) => one.line.color),
  markers: plot.data.flatMap((one) => one.marker?.color ?? []).filter((one) => one.length),
  scale: plot.layout.coloraxis?.colorscale?.map((one) => one[1]) ?? [],
}))"""


INKS = """() => [...document.querySelectorAll("body, p, td, h2, a, summary, pre")]
  .map((one) => getComputedStyle(one).color)"""


def luminance(color):
    """WCAG's relative luminance, and the opacity, of "#rrggbb", "#rgb", "rgba(…)" or a name."""
    color = {"white": "#ffffff", "black": "#000000"}.get(color, color)
    if color.startswith("#"):
        size = (len(color) - 1) // 3
        parts = [int((color[1 + size * i :][:size] * 2)[:2], 16) for i in range(3)]
    else:
        parts = [float(part) for part in color.split("(")[1].rstrip(")").split(",")]
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (part / 255 for part in parts[:3])
    ]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear)), parts[3] if len(parts) > 3 else 1


def contrast(one, other):
    low, high = sorted(luminance(color)[0] for color in (one, other))
    return (high + 0.05) / (low + 0.05)


def test_a_dark_page_is_dark_whole_and_every_line_is_seen_on_it(open_page, report, flow_page):
    for path in (report, flow_page):
        page = open_page(path)
        light = page.evaluate(DRAWN)
        assert {one["panel"] for one in light} == {"white"}
        page.emulate_media(color_scheme="dark")
        page.wait_for_selector('html[data-theme="dark"]')
        move(page, "End", int(page.locator("#moment").get_attribute("max")))
        for one in page.evaluate(DRAWN):
            assert luminance(one["panel"])[0] < 0.03
            assert contrast(one["font"], one["panel"]) > 7
            seen = [color for color in one["lines"] if luminance(color)[1] == 1]
            assert min(contrast(color, one["panel"]) for color in seen) > 3
            inks = page.evaluate(INKS)
            assert min(contrast(color, "#222227") for color in inks) > 4.5
        page.emulate_media(color_scheme="light")
        page.wait_for_selector('html[data-theme="light"]')
        move(page, "Home", 0)
        assert page.evaluate(DRAWN) == light


def test_the_links_lead_to_their_sections_below_the_slider(open_page, report):
    page = open_page(report)
    bar = page.locator("#time").bounding_box()["height"]
    for link, heading in (
        (page.locator("nav a", has_text="The runs"), "The runs"),
        (page.locator(".verdict a", has_text="good"), "good"),
        (page.locator("#table a", has_text="bad").first, "bad"),
    ):
        page.evaluate("scrollTo(0, 0)")
        link.click()
        box = page.get_by_role("heading", name=heading, exact=True).bounding_box()
        assert bar <= box["y"] + 24 < 800


def test_a_click_in_a_figure_moves_the_slider_there(open_page, report):
    page = open_page(report)
    box = page.locator(".nsewdrag").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + 5)
    page.locator(".hoverlayer .hovertext").first.wait_for()
    page.mouse.down()
    page.mouse.up()
    page.wait_for_selector('html[data-marked="3"]')
    assert page.locator("#said").inner_text() == "epoch 3"


def test_the_command_writes_a_report(tmp_path, runs, capsys):
    for i, history in enumerate(runs):
        history.save(tmp_path / f"{i}.jsonl")
    out = tmp_path / "out.html"
    arguments = ["report", str(tmp_path), "-o", str(out), "--title", "From files"]
    assert main(arguments) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert re.findall("<h2.*?>(.*?)</h2>", out.read_text(encoding="utf-8"))[-2:] == ["bad", "good"]
    assert "From files" in structure(out).text


def test_the_command_says_in_a_sentence_what_it_cannot_read(tmp_path, capsys):
    (tmp_path / "x.jsonl").write_text("nonsense\n")
    assert main(["report", str(tmp_path / "x.jsonl"), "-o", str(tmp_path / "r.html")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"kgrad report: {tmp_path / 'x.jsonl'}, line 1: ")
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize("by_file", [True, False])
def test_the_command_writes_beside_the_runs_by_default(
    by_file, tmp_path, runs, monkeypatch, capsys
):
    here, folder = tmp_path / "here", tmp_path / "recorded"
    for one in (here, folder):
        one.mkdir()
    monkeypatch.chdir(here)
    runs[0].save(folder / "one.jsonl")
    assert main(["report", str(folder / "one.jsonl" if by_file else folder)]) == 0
    assert capsys.readouterr().out == f"{folder / 'report.html'}\n"
    assert (folder / "report.html").stat().st_size > 100_000 and not list(here.iterdir())
