"""The gallery on which diagnoses are scored: its rules from the literature, labels and scores."""

import ast
import json
import math
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # the benchmarks are no part of the package

from benchmarks.diagnosis import gallery, healthy, reference_rules, score, tasks  # noqa: E402
from benchmarks.diagnosis.recipes import FAMILIES, Case, Recipe, changed  # noqa: E402
from kgrad import GradientHistory, Weight  # noqa: E402

KERNELS = 6


def history(place=None, value=None, *, kernels=slice(None), records=slice(1, None), probe=True):
    """Seven records of a run that no rule objects to, but for one table, of 16 steps each."""
    tables = {
        "mean_abs": 0.01,
        "l2_norm": 0.1,
        "zero_fraction": 0.0,
        "nonfinite_steps": 0.0,
        "weight_l2": 5.0,
        "update_l2": 16 * 0.005,
    }
    tables = {name: np.full((7, KERNELS), number) for name, number in tables.items()}
    probed = ("activation_zero_fraction", "activation_dead", "activation_saturated")
    outputs = {name: np.zeros((7, KERNELS)) for name in probed}
    logs = {"accuracy": 0.65 + 0.05 * np.arange(7.0), "loss": 1 / (1 + np.arange(7.0))}
    if place in logs:
        logs[place][records] = value
    elif place is not None:
        (tables | outputs)[place][records, kernels] = value
    weights = [Weight(f"d{k}", "kernel", f"d{k}/kernel", (10, 10)) for k in range(KERNELS)]
    made = GradientHistory(weights, tables, outputs=[w.layer for w in weights])
    for i in range(7):
        made.append(
            i,
            16 * i,
            {name: table[i] for name, table in tables.items()},
            {name: log[i] for name, log in logs.items()},
            activations={name: table[i] for name, table in outputs.items()} if probe else None,
        )
    return made


@pytest.mark.parametrize("name", reference_rules.PUBLISHED)
@pytest.mark.parametrize("probe", [True, False])
def test_no_published_rule_objects_to_the_run_that_the_others_are_made_from(name, probe):
    assert reference_rules.PUBLISHED[name](history(probe=probe)) == set()


# tool, table, kernels, a value that is just within the threshold, one just beyond, the family
THRESHOLDS = [
    ("DeepDiagnosis", "mean_abs", 2, 1.01e-7, 0.99e-7, "vanishing"),
    ("DeepDiagnosis", "activation_zero_fraction", 2, 0.69, 0.7, "dead_units"),
    ("DeepDiagnosis", "activation_saturated", 2, 0.5, 0.51, "saturated"),
    # 16 steps, and a weight of norm 5
    ("DeepDiagnosis", "update_l2", 2, 16 * 5 * 1.01e-5, 16 * 5 * 0.99e-5, "not_moving"),
    ("DeepDiagnosis", "update_l2", 2, 16 * 5 * 0.099, 16 * 5 * 0.101, "moving_too_far"),
    ("SageMaker Debugger", "mean_abs", 3, 1.01e-7, 0.99e-7, "vanishing"),
    ("SageMaker Debugger", "update_l2", 3, 5 * 1.01e-8, 5 * 0.99e-8, "not_moving"),
    ("SageMaker Debugger", "update_l2", 3, 5 * 9.9, 5 * 10.1, "moving_too_far"),
    ("TheDeepChecker", "mean_abs", slice(None), 1.01e-6, 0.99e-6, "vanishing"),
    ("TheDeepChecker", "mean_abs", slice(None), 0.99e6, 1.01e6, "exploding"),
    ("TheDeepChecker", "update_l2", slice(None), 16 * 5 * 1.01e-4, 16 * 5 * 0.99e-4, "not_moving"),
    ("TheDeepChecker", "update_l2", slice(None), 16 * 5 * 0.099, 16 * 5 * 0.101, "moving_too_far"),
    ("TheDeepChecker", "activation_dead", 1, 0.5, 0.51, "dead_units"),
    ("BTTackler", "mean_abs", slice(None), 0.99e4, 1.01e4, "exploding"),
    ("BTTackler", "mean_abs", slice(None), 1.01e-5, 0.99e-5, "vanishing"),
    ("BTTackler", "mean_abs", 0, 0.01 * 999, 0.01 * 1001, "exploding"),
    ("BTTackler", "mean_abs", 0, 0.01 * 1.01e-4, 0.01 * 0.99e-4, "vanishing"),
    ("BTTackler", "zero_fraction", 3, 0.5, 0.51, "dead_units"),
]


@pytest.mark.parametrize(("tool", "table", "kernels", "within", "beyond", "family"), THRESHOLDS)
def test_a_rule_speaks_beyond_its_threshold_and_not_within(
    tool, table, kernels, within, beyond, family
):
    rule = reference_rules.PUBLISHED[tool]
    assert rule(history(table, within, kernels=kernels)) == set()
    assert rule(history(table, beyond, kernels=kernels)) == {family}


@pytest.mark.parametrize(
    ("ratio", "named"),
    [(0.49, {"vanishing"}), (0.51, set()), (1.99, set()), (2.01, {"exploding"})],
)
def test_thedeepchecker_follows_the_gradient_from_a_kernel_to_the_one_before(ratio, named):
    falling = 0.01 * ratio ** np.array([4, 3, 2, 1, 0, 0])
    assert reference_rules.the_deep_checker(history("mean_abs", falling)) == named


def test_thedeepchecker_wants_four_ratios_running():
    three = 0.01 * 0.4 ** np.array([3, 2, 1, 0, 0, 0])
    assert reference_rules.the_deep_checker(history("mean_abs", three)) == set()


@pytest.mark.parametrize(("ratio", "named"), [(9.9, set()), (10.1, {"badly_scaled_weights"})])
def test_sagemaker_compares_the_variances_of_the_first_weights(ratio, named):
    wide = history("weight_l2", 5 * math.sqrt(ratio), kernels=1, records=slice(0, 1))
    assert reference_rules.sagemaker(wide) == named


@pytest.mark.parametrize("accuracy", [0.599, 0.601])
@pytest.mark.parametrize(
    ("table", "values", "family"),
    [
        ("l2_norm", [0.99e-4, 0.1, 0.1, 0.1, 0.1, 0.1], "vanishing"),
        ("l2_norm", [1.01e-4, 0.2, 0.2, 0.2, 0.2, 0.2], ""),
        ("l2_norm", [0.99e-4, 0.1, 0.1, 0.1, 0.1, 0.09], ""),
        ("l2_norm", [7.1, 0.1, 0.1, 0.1, 0.1, 0.1], "exploding"),
        ("l2_norm", [6.9, 0.1, 0.1, 0.1, 0.1, 0.1], ""),
        ("zero_fraction", [1, 1, 1, 1, 0.1, 0.1], "dead_units"),
        ("zero_fraction", [1, 1, 1, 1, 0.1, 0.0], ""),
    ],
)
def test_autotrainer_speaks_only_while_training_fails(accuracy, table, values, family):
    """Its two thresholds of vanishing are 1e-4 and a thousandth of the last layer's norm."""
    made = history(table, values)
    logs = [made.record(i)["logs"] for i in range(7)]
    for place, of_record in enumerate(logs):
        # Moves enough not to be a stall.
        of_record["accuracy"] = accuracy + 0.014 * (place % 2) * (1 if accuracy > 0.6 else -1)
    assert reference_rules.autotrainer(made) == ({family} - {""} if accuracy < 0.6 else set())


@pytest.mark.parametrize(("span", "named"), [(0.009, {"exploding"}), (0.011, set())])
def test_autotrainer_takes_a_stall_for_failing(span, named):
    made = history("l2_norm", 100.0, kernels=0)
    for i in range(7):
        made.record(i)["logs"]["accuracy"] = 0.9 + span * (i % 2)
    assert reference_rules.autotrainer(made) == named


@pytest.mark.parametrize("name", reference_rules.PUBLISHED)
@pytest.mark.parametrize("table", ["nonfinite_steps", "loss"])
def test_every_published_rule_sees_what_is_not_finite(name, table):
    made = history(table, 1.0 if table == "nonfinite_steps" else math.nan)
    if table == "nonfinite_steps":
        for i in range(7):  # AutoTrainer's gate
            made.record(i)["logs"]["accuracy"] = 0.1
    assert reference_rules.PUBLISHED[name](made) == {"nonfinite"}


# Made once: the cases are plain data.
CASES = gallery.gallery()


def test_names_are_unique_and_every_family_is_known():
    assert max(Counter(case.name for case in CASES).values()) == 1
    assert {case.family for case in CASES} == {"", *FAMILIES}
    assert {name for case in CASES for name in case.accepted} < set(FAMILIES)


def test_the_halves_share_no_seed_nor_a_twin():
    seeds = {
        half: {c.recipe.seed for c in CASES if c.recipe.half == half}
        for half in ("choose", "report")
    }
    assert not seeds["choose"] & seeds["report"]
    assert all(case.twin.half == case.recipe.half for case in CASES if case.twin)


def test_every_family_is_in_both_halves_alike():
    counts = Counter((case.family, case.recipe.half) for case in CASES)
    for family in ("", *FAMILIES):
        assert counts[family, "choose"] == counts[family, "report"] >= 7


def test_a_twin_differs_in_the_disease_alone():
    for case in CASES:
        if case.twin:
            assert case.twin.key != case.recipe.key
            for name in ("seed", "task", "epochs", "batch_size", "by"):
                assert getattr(case.twin, name) == getattr(case.recipe, name), case.name


def test_a_recipe_survives_the_way_to_a_file():
    for case in CASES:
        assert Recipe(**json.loads(case.recipe.key)).key == case.recipe.key


def test_options_that_are_changed_are_merged():
    recipe = Recipe(0, "moons", optimizer_options={"learning_rate": 1.0, "clipnorm": 2.0})
    merged = changed(recipe, {"optimizer_options": {"learning_rate": 3.0}, "epochs": 1})
    assert merged.optimizer_options == {"learning_rate": 3.0, "clipnorm": 2.0}
    assert (merged.epochs, merged.seed) == (1, 0)


def diagnoses(source):
    """The names of rules, or of a diagnosis, that a source uses."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
    judges = ("diagnose", "diagnosis", "score", "reference_rules")
    return {
        name
        for name in names - {"benchmarks.diagnosis"}
        if name.startswith("kgrad.diagnosis") or name.rpartition(".")[2] in judges
    }


@pytest.mark.parametrize(
    "module", ["gallery", "recipes", "healthy", "ill", "bases", "networks", "tasks"]
)
def test_labels_are_made_without_a_diagnosis(module):
    source = (ROOT / "benchmarks" / "diagnosis" / f"{module}.py").read_text(encoding="utf-8")
    assert diagnoses(source) == set()


@pytest.mark.parametrize(
    "source",
    [
        "from kgrad.diagnosis.evidence import Evidence",
        "from kgrad import diagnose",
        "import kgrad.diagnosis",
        "import kgrad\nkgrad.diagnose(history)",
        "from benchmarks.diagnosis import score",
        "from benchmarks.diagnosis.reference_rules import PUBLISHED",
    ],
)
def test_a_label_made_with_a_diagnosis_would_be_noticed(source):
    assert diagnoses(source) != set()


@pytest.mark.parametrize(
    ("family", "own", "twins", "expected"),
    [
        ("", 0.21, math.nan, "healthy"),
        ("", 0.19, math.nan, "unclear"),
        ("", math.nan, math.nan, "unclear"),
        ("vanishing", 0.39, 0.8, "ill"),
        ("vanishing", 0.41, 0.8, "harmless"),
        ("vanishing", math.nan, 0.8, "ill"),
        ("vanishing", 0.0, 0.19, "unclear"),
        ("vanishing", 0.0, math.nan, "unclear"),
    ],
)
def test_a_label_follows_from_construction_and_success(family, own, twins, expected):
    assert gallery.label(Case("c", Recipe(0, "moons"), family), own, twins) == expected


def test_the_trivial_predictor_by_hand():
    assert tasks.trivial(np.array([0.0, 2.0]), "mean_squared_error", "loss") == 1
    assert tasks.trivial(np.array([[0.0, 5], [2, 5]]), "mean_squared_error", "loss") == 0.5
    assert tasks.trivial(np.array([0.0, 0, 3]), "mean_absolute_error", "loss") == 1
    binary = tasks.trivial(np.array([[0], [1], [1], [1]]), "binary_crossentropy", "loss")
    assert binary == pytest.approx(-0.25 * math.log(0.25) - 0.75 * math.log(0.75))
    classes = tasks.trivial(np.arange(10), "sparse_categorical_crossentropy", "loss")
    assert classes == pytest.approx(math.log(10))
    assert tasks.trivial(np.array([2.0, 2, 1]), "binary_crossentropy", "accuracy") == 2 / 3


ROWS = [
    {"name": "a", "label": "ill", "family": "vanishing", "accepted": ["vanishing"]},
    {"name": "b", "label": "ill", "family": "vanishing", "accepted": ["vanishing", "exploding"]},
    {"name": "c", "label": "ill", "family": "saturated", "accepted": ["saturated"]},
    {"name": "d", "label": "ill", "family": "saturated", "accepted": ["saturated"]},
    {"name": "e", "label": "healthy", "family": "", "accepted": []},
    {"name": "f", "label": "healthy", "family": "", "accepted": []},
    {"name": "g", "label": "healthy", "family": "", "accepted": []},
    {"name": "h", "label": "harmless", "family": "saturated", "accepted": ["saturated"]},
]
FOUND = {
    "a": {"vanishing", "saturated"},
    "b": {"exploding"},
    "c": {"vanishing"},
    "d": set(),
    "e": set(),
    "f": {"saturated"},
    "g": set(),
    "h": {"saturated"},
}


def test_a_score_by_hand():
    """Ill: two of four named, three with an alarm. One of three healthy with an alarm."""
    assert score.score(ROWS, FOUND) == (2 / 4, 3 / 4, 1 / 3, 3 / 4, 4, 3)


def test_a_share_of_nothing_is_not_a_number():
    result = score.score([ROWS[4]], FOUND)
    assert math.isnan(result.named) and math.isnan(result.precision)
    assert result.false_alarms == 0


def test_a_confusion_by_hand():
    assert score.confusion(ROWS, FOUND) == {
        "vanishing": {"runs": 2, "vanishing": 1, "saturated": 1, "exploding": 1},
        "saturated": {"runs": 2, "vanishing": 1, "nothing": 1},
        "healthy": {"runs": 3, "saturated": 1, "nothing": 2},
    }


def test_the_tables_show_the_shares_and_counts():
    assert (
        "| a tool | 50.0 % (6.8 to 93.2) | 75.0 % (19.4 to 99.4) | 33.3 % (0.8 to 90.6) | 75.0 % |"
        in score.overview(ROWS, {"a tool": FOUND})
    )
    families = score.by_family(ROWS, {"a tool": FOUND})
    assert "| vanishing | 2 | 2 |" in families
    assert "| saturated | 2 | 0 |" in families
    assert "| saturated | 2 | 1 |  |  | 1 |" in score.confusion_table(ROWS, FOUND)


@pytest.mark.parametrize(
    ("right", "count", "low", "high"), [(0, 92, 0, 3.93), (10, 10, 69.15, 100), (2, 4, 6.76, 93.24)]
)
def test_the_interval_of_a_share(right, count, low, high):
    """Its ends are where a tail of the binomial distribution has 2.5 %."""
    text = score.with_interval(right / count, count)
    shown = re.findall(r"[0-9.]+", text)
    assert [float(number) for number in shown] == pytest.approx(
        [100 * right / count, low, high], abs=0.06
    )
    for end, tail in ((low, binom.sf(right - 1, count, low / 100)),
                      (high, binom.cdf(right, count, high / 100))):  # fmt: skip
        assert end in (0, 100) or tail == pytest.approx(0.025, rel=0.02)


def test_how_often_the_first_finding_is_right_by_hand():
    """Right is the first finding of a, wrong are those of b and f; h, which is harmless, is out."""
    found = {
        "a": ["vanishing", "saturated"], "b": ["saturated"], "c": ["saturated"], "d": [],
        "e": [], "f": ["saturated"], "g": [], "h": ["saturated"],
    }  # fmt: skip
    counts = score.first_right(ROWS, found)
    assert counts == {"vanishing": (1, 1), "saturated": (1, 3)}
    text = score.calibration(counts, {"vanishing": (3, 4)})
    assert "| vanishing | 1 of 1 | 67 % | 3 of 4 |" in text
    assert "Expected on the half report: 3 of 4 right. Seen: 3." in text


def test_the_gains_of_losses_by_hand():
    """0 for the best constant prediction, 1 for a perfect one."""
    y = np.array([[1.0], [1], [0], [0]])
    share = np.array([[0.05], [0.95]])
    smooth = float(-(share * np.log(share)).sum())
    unit = np.array([[1.0, 0], [0, 1]])
    for loss, targets, constant, best in (
        ("mean_squared_error", y, 0.25, 0),
        ("hinge", 2 * y - 1, 1, 0),
        ("binary_crossentropy", np.hstack([y, y]), math.log(2), 0),
        ("smoothed", y, math.log(2), smooth),
        ("cosine_similarity", unit, -math.sqrt(0.5), -1),
        ("poisson", y + 1, 1.5 - 1.5 * math.log(1.5), 0.5 * (2 - 2 * math.log(2) + 1)),
        ("binary_focal_crossentropy", y, math.log(2) / 4, 0),
        ("huber", np.array([0.0, 1]), 0.125, 0),
        (["mean_squared_error", "binary_crossentropy"], [y, y], 0.25 + math.log(2), 0),
    ):
        assert tasks.gained(loss, targets, constant) == pytest.approx(0, abs=1e-4), loss
        assert tasks.gained(loss, targets, best) == pytest.approx(1, abs=1e-4), loss
    normal = np.array([-1.0, 1.0])  # variance 1: ½ (log 1 + 1); a tenth of the deviation gains 99 %
    assert tasks.gained("gaussian", normal, 0.5) == pytest.approx(0)
    assert tasks.gained("gaussian", normal, 0.5 + math.log(0.1)) == pytest.approx(0.99)


def test_the_variants_of_healthy_runs_differ_in_one_setting():
    base = Recipe(1000, "moons", optimizer_options={"learning_rate": 0.1}, batch_size=8, epochs=5)
    half, slow, large = (healthy.varied(base, v) for v in (1, 2, 3))
    assert healthy.varied(base, 0) == base
    assert [one.seed for one in (half, slow, large)] == [2000, 3000, 4000]
    assert half.batch_size == 4
    assert (slow.optimizer_options["learning_rate"], slow.epochs) == (0.05, 10)
    assert large.task_options == {"samples": 768}


def test_the_misses_are_listed_for_whoever_tunes_the_rules():
    rows = [
        row | {"half": "choose", "tracking": "full", "gain": 0.1, "twin_gain": 1} for row in ROWS
    ]
    assert score.misses(rows, FOUND, "healthy") == ["f (choose, full): ['saturated']"]
    assert [line[0] for line in score.misses(rows, FOUND, "saturated")] == ["c", "d"]


def test_two_tiny_cases_are_built_trained_and_labeled(tmp_path):
    twin = Recipe(
        3,
        "blobs",
        {"samples": 64},
        network_options={"depth": 1, "units": 8},
        optimizer_options={"learning_rate": 0.05},
        epochs=5,
        batch_size=16,
        tracking="default",
    )
    sick = changed(
        twin, {"optimizer_options": {"learning_rate": 1e-8}, "tracking": "full", "epochs": 5}
    )
    cases = [Case("twin", twin), Case("sick", sick, "not_moving", (), twin)]
    for case in cases:
        gallery.record(case.recipe).save(tmp_path / f"{case.name}.jsonl")
    rows = {row["name"]: row for row in gallery.labeled(cases, tmp_path)}
    assert (rows["twin"]["label"], rows["sick"]["label"]) == ("healthy", "ill")
    assert rows["sick"]["accepted"] == ["not_moving"]
    assert (rows["sick"]["half"], rows["sick"]["twin"]) == ("report", "twin")
    full = GradientHistory.load(tmp_path / "sick.jsonl")
    assert "zero_fraction" in full.statistics and full.activations
    # The loss of uniform predictions on three classes is log 3: what was gained is 1 - loss/log 3.
    constant = tasks.trivial(gallery.build_task(twin).y, "sparse_categorical_crossentropy", "loss")
    own = rows["twin"]
    default = GradientHistory.load(tmp_path / "twin.jsonl")
    assert own["gain"] == pytest.approx(1 - default.logs["loss"][-1] / constant)
    model = gallery.build_model(cases[1])
    start = np.linalg.norm(model.get_layer("hidden_1").kernel)
    assert start == pytest.approx(full["weight_l2"][0, 0], rel=1e-5)


def test_what_is_done_to_the_weights_is_done_to_those_that_match():
    recipe = Recipe(
        1,
        "moons",
        network_options={"depth": 2, "units": 4},
        changes=(
            ("constant", "hidden_1/*", 0.5),
            ("bias", "hidden_2/bias", -3.0),
            ("scale", "output/kernel", 10.0),
        ),
    )
    model = gallery.build_model(Case("c", recipe))
    plain = gallery.build_model(Case("c", changed(recipe, {"changes": ()})))
    (k1, b1), (k2, b2), (k3, _) = (layer.get_weights() for layer in model.layers[1:])
    (_, _), (p2, _), (p3, _) = (layer.get_weights() for layer in plain.layers[1:])
    np.testing.assert_array_equal(k1, np.full((2, 4), 0.5, np.float32))
    np.testing.assert_array_equal(b1, 0)
    np.testing.assert_array_equal(b2, -3)
    np.testing.assert_array_equal(k2, p2)
    np.testing.assert_allclose(k3, 10 * p3)
