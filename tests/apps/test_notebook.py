"""The pages of results in a notebook, read back as a browser would."""

import pickle
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
from figures.static.test_depth import make_prediction
from figures.static.test_remedies import make_trials
from figures.static.test_sweeps import FIELDS, initialized, sweep_in

import kgrad
from kgrad.diagnosis import Diagnosis, Finding
from kgrad.diagnosis.findings import Measurement
from kgrad.records.history import GradientHistory, Weight
from kgrad.records.sweep import begin_sweep, write_failure
from kgrad.records.trials import Trials

pytestmark = pytest.mark.usefixtures("nothing_leaks")

EVIL = "<script>$\\frac$"  # short enough for a figure


class Page(HTMLParser):
    """The elements of a page, and its text outside of style sheets."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)

    def handle_data(self, data):
        if not self.tags or self.tags[-1] != "style" or data.strip().startswith("\n"):
            self.words.append(data)


def page(result):
    return Page(result._repr_html_())


def svg_of(result):
    return ElementTree.fromstring(
        re.search("<svg.*</svg>", result._repr_html_(), flags=re.DOTALL)[0]
    )


def colors_of(result):
    return set(
        re.findall(r"(?:stroke|fill): ([^;\"]+)", ElementTree.tostring(svg_of(result), "unicode"))
    )


def make_history(records=5, names=("dense_0", "dense_1", "dense_2"), losses=True):
    history = GradientHistory(
        [Weight(name, "kernel", f"{name}/kernel", (2, 2)) for name in names],
        ["mean_abs", "l2_norm"],
        {"model": EVIL, "optimizer": "adam"},
    )
    for i in range(records):
        row = 10.0 ** -np.arange(len(names))
        history.append(
            i, 10 * i, {"mean_abs": row, "l2_norm": row}, {"loss": 1 / (i + 1)} if losses else {}
        )
    return history


def finding(rule, layers=(), since=0, *, independent=False):
    said = Measurement("size", 1.0, 2.0, "", since, f"evidence of {rule}")
    return Finding(
        rule,
        "critical",
        layers,
        since,
        (said,),
        f"meaning of {rule}",
        (f"remedy of {rule}",),
        "",
        independent=independent,
    )


def test_a_history_shows_a_heatmap_and_the_loss_and_says_what_it_is():
    history = make_history()
    shown = page(history)
    assert shown.tags.count("svg") == 1
    assert shown.tags.count("image") >= 1  # the cells of the heatmap
    assert "5 records of 3 layers ; loss 1 → 0.2" in shown.text
    assert "optimizer adam" in shown.text
    words = [text.text for text in svg_of(history).iter("{http://www.w3.org/2000/svg}text")]
    assert {"loss", "epoch", "dense_0", "dense_2"} <= set(words)


@pytest.mark.parametrize(
    "history",
    [make_history(0), make_history(1), make_history(losses=False)],
    ids=["empty", "one record", "no loss"],
)
def test_every_history_has_a_page(history):
    shown = page(history)
    assert shown.tags.count("svg") == (len(history) > 0)
    assert "record" in shown.text


def test_a_diagnosis_says_cause_evidence_remedy_and_consequences_in_this_order():
    diagnosis = Diagnosis(
        [
            finding("vanishing", ("dense_1",)),
            finding("not_improving"),
            finding("inputs_out_of_scale", independent=True),
        ],
        history=make_history(),
    )
    text = page(diagnosis).text
    parts = [
        "The cause, most likely: vanishing in dense_1, since epoch 0",
        "evidence of vanishing",
        "remedy of vanishing",
        "lso wrong: inputs out of scale",
        "May follow from it",
        "not improving in whole model: evidence of not_improving",
    ]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_the_layers_of_the_cause_are_framed_from_its_first_epoch_on():
    history = make_history()
    framed = Diagnosis([finding("vanishing", ("dense_1", "dense_2"), 2)], history=history)
    assert "#d55e00" in colors_of(framed)
    assert "#d55e00" not in colors_of(Diagnosis([], history=history))


def test_a_healthy_diagnosis_and_one_without_a_history_have_pages():
    assert "No findings: the gradients look healthy." in page(Diagnosis([])).text
    assert "No findings, but nothing was seen." in page(Diagnosis([], "nothing was seen")).text
    diagnosis = kgrad.diagnosis.diagnose(kgrad.GradientHistory.load(RUN))
    assert page(diagnosis).tags.count("svg") == 1
    assert pickle.loads(pickle.dumps(diagnosis)).rules == diagnosis.rules


RUN = "tests/records/data/run_of_0_1.jsonl"


def test_trials_show_the_unchanged_run_beside_the_best_and_a_table():
    trials = make_trials(0.9, 0.5, 0.1)
    shown = page(trials)
    words = [text.text for text in svg_of(trials).iter("{http://www.w3.org/2000/svg}text")]
    assert words.count("unchanged") == words.count("change 1") == 1
    assert "Best: change 1; large improvement" in shown.text
    assert shown.tags.count("tr") == 4


def test_a_prediction_shows_its_line_and_its_ratio():
    prediction = make_prediction(np.array([1e-4, 1e-3, 1e-2, 1.0]))
    assert page(prediction).tags.count("svg") == 1
    assert (
        "mean |gradient| 0.0001 in the first hidden layer, 0.01 in the last one, a ratio of 0.01"
        in page(prediction).text
    )


@pytest.mark.parametrize(
    "result",
    [
        make_history(names=(EVIL, "b")),
        Diagnosis(
            [finding(EVIL, (EVIL,))], EVIL, [finding(EVIL)], history=make_history(names=(EVIL, "b"))
        ),
        Trials.ranked(make_history(), [(EVIL, EVIL, make_history())], [(EVIL, EVIL)]),
    ],
    ids=lambda one: type(one).__name__,
)
def test_names_are_text_and_never_markup(result):
    assert "script" not in page(result).tags
    assert EVIL in page(result).text


def test_pictures_take_the_color_of_the_page_and_equal_results_have_equal_pages():
    history = make_history()
    assert "currentColor" in colors_of(history)
    assert not {"#262626", "#ffffff", "white"} & colors_of(history)
    assert history._repr_html_() == make_history()._repr_html_()


def test_a_sweep_of_two_fields_shows_its_map_findings_and_errors(tmp_path):
    rules = ("vanishing, not_moving", "vanishing", "", "")
    runs = initialized((0.2, 0.4), (5, 15))
    runs = [one | {"findings": found} for one, found in zip(runs, rules, strict=True)]
    sweep = sweep_in(tmp_path / "sweep", runs)
    failed = runs[0] | {"seed": 7}
    write_failure(sweep.failure_file("cc-7"), failed, f"ValueError: {EVIL}", "Traceback …")
    shown = page(sweep)
    assert shown.tags.count("svg") == 1
    assert "4 of 4 runs are done" in shown.text
    assert "weight_initializer: 2 values; num_layers: 2 values" in shown.text
    assert "runs first finding 2 vanishing 2 nothing is wrong" in shown.text
    assert f"1 failed: ValueError: {EVIL}" in shown.text and "script" not in shown.tags
    assert 'kgrad.plot_sweep(sweep, "weight_initializer", "num_layers")' in shown.text
    words = [text.text for text in svg_of(sweep).iter("{http://www.w3.org/2000/svg}text")]
    assert {"normal:0.2", "normal:0.4", "5", "15", "hidden layers"} <= set(words)


def test_a_sweep_of_other_fields_without_runs_and_with_failures_only_has_a_page(tmp_path):
    sweep = sweep_in(tmp_path / "one", initialized((0.2, 0.4), (5,)))
    assert page(sweep).tags.count("svg") == 0 and "2 nothing is wrong" in page(sweep).text
    planned = {"aa-0": FIELDS | {"seed": 0}, "ab-0": FIELDS | {"seed": 0, "units": 4}}
    sweep = begin_sweep(tmp_path / "two", planned)
    assert "0 of 2 runs are done , 2 left" in page(sweep).text
    for run, fields in planned.items():
        write_failure(sweep.failure_file(run), fields, "ValueError: no", "Traceback …")
    text = page(sweep).text
    assert "0 of 2 runs are done, 2 failed units: 2 values 2 failed: ValueError: no" in text
    planned = {f"a{i}-0": FIELDS | {"seed": 0, "units": i % 2, "num_layers": i} for i in range(4)}
    sweep = begin_sweep(tmp_path / "map", planned)
    for run, fields in planned.items():
        write_failure(sweep.failure_file(run), fields, "ValueError: no", "Traceback …")
    assert page(sweep).tags.count("svg") == 0
