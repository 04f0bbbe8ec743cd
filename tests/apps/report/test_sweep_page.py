"""The report of a sweep: its counts, maps, table and figures, also in a browser."""

import math
import statistics
from dataclasses import asdict, replace

import pytest
from apps.report.test_report import EVIL, data_of, numbers, structure
from waiting import until

import kgrad
from kgrad.apps.command.main import main
from kgrad.apps.report import sweep_page
from kgrad.apps.report.reproduce import code_of_sweep
from kgrad.experiments import Experiment, grid, replicates
from kgrad.experiments.sweeps import run_name
from kgrad.records.history import GradientHistory, Weight
from kgrad.records.sweep import Sweep, begin_sweep, history_file, write_failure

DEPTHS, STDDEVS, SEEDS = (3, 5), (0.2, 0.5, 1.0), (0, 1, 2)
BASE = Experiment(name=EVIL[1], activation="tanh", units=4, epochs=2)


def loss_of(run: Experiment) -> float:
    """Return a number of its own for each run, whose median over the seeds is not its mean."""
    stddev = float(run.weight_initializer.partition(":")[2] or 0)
    return run.num_layers / 100 + stddev / 10 + (run.seed + 1) ** 2 / 1000


def filled(folder, runs, failed=()) -> Sweep:
    """Write a sweep whose histories are made up here."""
    planned = {run_name(run): asdict(run) for run in runs}
    sweep = begin_sweep(folder, planned)
    for name, run in zip(planned, runs, strict=True):
        if name in failed:
            write_failure(sweep.failure_file(name), planned[name], EVIL[0], "traceback")
            continue
        layers = [f"hidden_{k}" for k in range(1, run.num_layers + 1)]
        history = GradientHistory(
            [Weight(name, "kernel", f"{name}/kernel", (4, 4)) for name in layers],
            ["mean_abs"],
            {"experiment": planned[name], "findings": ["vanishing"] * (run.seed == 0)}
            | {"seconds": 1.5},
        )
        for epoch, loss in enumerate((1.0, loss_of(run))):
            row = [10.0**k for k in range(run.num_layers)]
            history.append(epoch, epoch, {"mean_abs": row}, {"loss": loss})
        file = history_file(sweep.folder, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        history.save(file)
    return sweep


def runs_of(**axes):
    return [run for network in grid(BASE, **axes) for run in replicates(network, SEEDS)]


@pytest.fixture(scope="module")
def runs():
    initializers = [f"normal:{stddev:g}" for stddev in STDDEVS]
    return runs_of(num_layers=list(DEPTHS), weight_initializer=initializers)


@pytest.fixture(scope="module")
def sweep(runs, tmp_path_factory):
    return filled(tmp_path_factory.mktemp("sweep"), runs, failed=[run_name(runs[0])])


@pytest.fixture(scope="module")
def report(sweep):
    path = sweep.folder / "report.html"
    kgrad.write_report(sweep, path)
    return path


def maps_of(report):
    return [one for one in data_of(structure(report))["figures"] if "opens" in one]


def test_it_counts_the_findings_and_the_failures(report):
    text = " ".join(structure(report).text.split())
    assert "5 runs: vanishing" in text
    assert "12 runs: nothing is wrong" in text
    assert f"1 run failed: {EVIL[0]}" in text
    assert "17 of 18 runs are done, 1 failed" in text
    assert "26 s of training, all runs together" in text  # 17 of 1.5 s


def test_maps_have_medians_over_the_seeds(report, runs):
    gained, decades = maps_of(report)
    cells = gained["figure"]["data"][0]["z"]
    values = numbers(cells)
    values = [value for row in values for value in row] if isinstance(values[0], list) else values
    for row, depth in enumerate(DEPTHS):
        for column, stddev in enumerate(STDDEVS):
            of_cell = [
                1 - loss_of(run)
                for run in runs[1:]
                if (run.num_layers, run.weight_initializer) == (depth, f"normal:{stddev:g}")
            ]
            assert values[3 * row + column] == pytest.approx(statistics.median(of_cell))
    shown = numbers(decades["figure"]["data"][0]["z"])
    flat = [value for row in shown for value in row] if isinstance(shown[0], list) else shown
    assert flat == pytest.approx([-1.0] * 6)  # towards the input, a tenth


def test_the_table_has_a_row_for_each_network_and_no_script_of_a_name(report, runs):
    page = structure(report)
    opened = [dict(attributes)["id"] for tag, attributes in page.elements if tag == "details"]
    assert opened == [f"network-{i}" for i in range(1, 7)]
    assert len(page.scripts) == 3
    rows = report.read_text().split("<tbody>")[1].split("</tbody>")[0].split("<tr>")[1:]
    first = [cell.split("</td>")[0].split(">")[-1] for cell in rows[0].split("<td>")[1:]]
    assert "3, 1 failed" in rows[0]
    assert len(rows) == 6
    median = statistics.median(map(loss_of, runs[1:3]))
    assert f"{median:.3g}" in rows[0]
    assert first[-1] == "nothing is wrong"


def test_the_code_runs_the_same_runs_again(report, sweep, monkeypatch):
    code = structure(report).text.split("How to reproduce")[1].strip()
    given = {}
    monkeypatch.setattr("kgrad.experiments.run_sweep", lambda *all_: given.update(runs=all_[0]))
    exec(code, {"__name__": "__main__"})
    assert {run_name(run) for run in given["runs"]} == set(sweep.planned)


def test_a_sweep_that_is_no_grid_has_no_code(tmp_path, runs):
    sweep = filled(tmp_path / "sweep", runs[:-1])
    kgrad.write_report(sweep, tmp_path / "report.html")
    assert "How to reproduce" not in structure(tmp_path / "report.html").text


def test_fields_that_are_no_axes_have_maps_of_their_own(tmp_path):
    runs = runs_of(num_layers=[2, 3, 4], learning_rate=[0.1, 0.2, 0.4], activation=["relu", "tanh"])
    kgrad.write_report(filled(tmp_path / "sweep", [
        run for run in runs if run.weight_initializer == BASE.weight_initializer
    ]), tmp_path / "report.html")  # fmt: skip
    page = structure(tmp_path / "report.html")
    assert len(maps_of(tmp_path / "report.html")) == 4
    assert "activation relu" in page.text
    assert "activation tanh" in page.text


def test_one_field_is_drawn_over_the_seeds_and_one_network_without_a_map(tmp_path):
    kgrad.write_report(filled(tmp_path / "one", runs_of(num_layers=[2, 3])), tmp_path / "1.html")
    assert len(maps_of(tmp_path / "1.html")) == 2
    kgrad.write_report(filled(tmp_path / "none", replicates(BASE, 2)), tmp_path / "0.html")
    assert maps_of(tmp_path / "0.html") == []


def test_of_many_networks_some_that_are_spread_evenly_are_shown(tmp_path, monkeypatch, runs):
    monkeypatch.setattr(sweep_page, "MOST_NETWORKS", 3)
    kgrad.write_report(filled(tmp_path / "sweep", runs), tmp_path / "report.html")
    page = structure(tmp_path / "report.html")
    assert sum(tag == "details" for tag, _ in page.elements) == 3
    assert "3 of 6 networks, evenly spread" in page.text
    (opens, _) = (one["opens"] for one in maps_of(tmp_path / "report.html"))
    assert opens == [["network-1", "network-2", None], [None, None, "network-3"]]


def test_a_sweep_without_a_run_is_refused(tmp_path, runs):
    begin_sweep(tmp_path / "sweep", {run_name(runs[0]): asdict(runs[0])})
    with pytest.raises(ValueError, match="at least one run that is finished or failed"):
        kgrad.write_report(Sweep(tmp_path / "sweep"), tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_the_command_writes_it_into_the_sweep(sweep, capsys):
    (sweep.folder / "report.html").unlink(missing_ok=True)
    assert main(["report", str(sweep.folder)]) == 0
    assert capsys.readouterr().out.strip() == str(sweep.folder / "report.html")
    assert "The networks" in (sweep.folder / "report.html").read_text()
    assert main(["report", str(sweep.folder), "--statistic", "nonsense"]) == 2
    assert "--statistic must be" in capsys.readouterr().err


@pytest.mark.parametrize("width", [390, 1200])
def test_a_click_on_a_cell_or_a_row_opens_the_network(report, browser, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    errors = []
    page.on("pageerror", lambda error: errors.append(error))
    page.goto(report.as_uri())
    page.wait_for_selector("html[data-ready]")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    title = page.locator("#map-0-loss_gained .xtitle").bounding_box()
    panel = page.locator("#map-0-loss_gained .nsewdrag").bounding_box()
    assert title["y"] >= panel["y"] + panel["height"]
    box = panel
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 0.2 * box["height"])
    page.mouse.click(box["x"] + 0.9 * box["width"], box["y"] + 0.2 * box["height"])
    opened = page.locator("details[open]")
    until(lambda: opened.count() == 1)
    assert opened.get_attribute("id") == "network-6"  # 5 layers, the largest variance
    until(lambda: page.locator("#network-6 .main-svg").count() > 0)
    page.locator("#table a").first.click()
    until(lambda: opened.count() == 2)
    until(lambda: page.locator("#network-1 .main-svg").count() > 0)
    assert errors == []
    assert page.evaluate("window.hacked") is None
    page.close()


def test_a_dark_page_keeps_which_color_is_below_and_which_above(report, browser):
    scales = []
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.goto(report.as_uri())
        page.wait_for_selector("html[data-ready]")
        element = 'document.getElementById("map-0-decades_per_layer")'
        scales.append(page.evaluate(f"{element}.data[0].colorscale"))
        page.close()
    assert scales[0] == scales[1]


def test_numbers_of_a_failed_network_are_unknown(tmp_path, runs):
    failed = [run_name(run) for run in runs[:3]]
    kgrad.write_report(filled(tmp_path / "sweep", runs, failed), tmp_path / "report.html")
    rows = (tmp_path / "report.html").read_text().split("<tbody>")[1].split("<tr>")[1:]
    assert rows[0].count("<td>–</td>") == 5
    assert not math.isnan(kgrad.Sweep(tmp_path / "sweep").to_frame()["loss_last"].iloc[0])


def test_a_value_with_which_everything_fails_has_a_map_too(tmp_path):
    runs = runs_of(num_layers=[2, 3], learning_rate=[0.1, 0.2], optimizer=["sgd", "adam"])
    failed = [run_name(run) for run in runs if run.optimizer == "adam"]
    kgrad.write_report(filled(tmp_path / "sweep", runs, failed), tmp_path / "report.html")
    text = structure(tmp_path / "report.html").text
    assert "optimizer sgd" in text
    assert len(maps_of(tmp_path / "report.html")) == 2  # nothing to draw for the other
    kinds = runs_of(num_layers=[2, 3], weight_initializer=["normal:0.1", "normal:0.2", "he"])
    failed = [run_name(run) for run in kinds if run.weight_initializer == "he"]
    kgrad.write_report(filled(tmp_path / "kinds", kinds, failed), tmp_path / "kinds.html")
    assert len(maps_of(tmp_path / "kinds.html")) == 2


def test_a_sweep_of_which_everything_failed_says_so(tmp_path, runs):
    failed = [run_name(run) for run in runs]
    kgrad.write_report(filled(tmp_path / "sweep", runs, failed), tmp_path / "report.html")
    text = structure(tmp_path / "report.html").text
    assert "18 runs failed" in text
    assert maps_of(tmp_path / "report.html") == []


def test_values_of_unlike_kinds_and_none_are_named(tmp_path):
    runs = runs_of(
        num_layers=[2, 3], learning_rate=[0.1, 0.2], normalization=[None, "batch"],
        units=[4, (4, 8)],
    )  # fmt: skip
    runs = [run for run in runs if not isinstance(run.units, tuple) or run.num_layers == 2]
    kgrad.write_report(filled(tmp_path / "sweep", runs), tmp_path / "report.html")
    text = structure(tmp_path / "report.html").text
    assert "normalization none" in text
    assert "units 4,8" in text
    assert "nan" not in text


def test_runs_that_diverged_are_counted_and_left_out_of_the_medians(tmp_path, monkeypatch):
    runs = runs_of(num_layers=[2, 3])
    infinite = {runs[0].seed: math.nan, runs[1].seed: math.inf}
    monkeypatch.setitem(globals(), "loss_of", lambda run: infinite.get(run.seed, 0.25))
    kgrad.write_report(filled(tmp_path / "sweep", runs), tmp_path / "report.html")
    rows = (tmp_path / "report.html").read_text().split("<tbody>")[1].split("<tr>")[1:]
    assert "<td>3, 2 diverged</td>" in rows[0]
    assert "<td>0.25</td>" in rows[0]


def test_a_sweep_that_is_far_from_a_grid_is_compared_without_building_one(tmp_path):
    axes = ("learning_rate", "batch_size", "epochs", "samples")
    runs = [
        replace(BASE, **dict(zip(axes, (0.001 * i, i, i, 64 + i), strict=True)))
        for i in range(1, 200)
    ]
    planned = {run_name(run): asdict(run) | {"gadget": 3} for run in runs}
    assert code_of_sweep(begin_sweep(tmp_path / "other", planned)) == ""  # of another version
    planned = {run_name(run): asdict(run) for run in runs}
    assert code_of_sweep(begin_sweep(tmp_path / "sweep", planned)) == ""  # 1.6e9 combinations
