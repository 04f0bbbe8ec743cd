"""The house plan, held: who imports whom, and what no room may contain.

Every rule is a function from a module's name and source to sentences about what breaks it, so that
the rules themselves are tested on sources that break them.
"""

import ast
import doctest
import importlib
import re
import sys
from pathlib import Path

import pytest

import kgrad

PACKAGE = Path(kgrad.__file__).parent


def module_name(path):
    """As it is imported from kgrad: theory.phases; theory for its __init__."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


SOURCES = {
    module_name(path): path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))
}

# module → (what it may import from kgrad, what else beside the standard library)
TABLE = {
    "_version": ("", ""),
    "distributions": ("", "numpy"),
    "jsonl": ("distributions", "numpy"),
    "records": ("jsonl", "numpy"),
    "history": ("distributions jsonl records _version", "numpy pandas"),
    "data": ("", "numpy sklearn"),
    "theory": (
        "theory.activations theory.depths theory.entries theory.finite_width theory.gaussian "
        "theory.mean_field theory.phases theory.rates",
        "",
    ),
    "theory.activations": ("", "numpy scipy"),
    "theory.gaussian": ("", "numpy"),
    "theory.series": ("theory.activations", "numpy"),
    "theory.mean_field": ("theory.activations theory.gaussian theory.series", "numpy"),
    "theory.units": ("theory.activations theory.gaussian theory.mean_field", "numpy"),
    "theory.networks": ("theory.units", "numpy"),
    "theory.network_gradients": ("theory.networks", "numpy"),
    "theory.network_draws": (
        "theory.activations theory.network_gradients theory.networks theory.units",
        "numpy",
    ),
    "theory.phases": ("theory.activations theory.gaussian theory.mean_field", "numpy scipy"),
    "theory.finite_width": ("theory.activations theory.gaussian theory.mean_field", "numpy scipy"),
    "theory.rates": ("theory.activations theory.gaussian theory.mean_field", "numpy"),
    "theory.entries": ("theory.mean_field", "numpy"),
    "theory.depths": ("theory.activations theory.mean_field theory.phases", "numpy"),
    "diagnosis": ("diagnosis.diagnose diagnosis.findings diagnosis.thresholds", ""),
    "diagnosis.texts": ("", ""),
    "diagnosis.thresholds": ("", ""),
    "diagnosis.findings": ("", "pandas rich"),
    "diagnosis.evidence": ("history", "numpy"),
    "diagnosis.of_models": ("", "numpy"),
    "diagnosis.statements": ("diagnosis.evidence diagnosis.findings diagnosis.texts", "numpy"),
    "diagnosis.gradient_rules": (
        "diagnosis.evidence diagnosis.findings diagnosis.statements diagnosis.thresholds",
        "numpy",
    ),
    "diagnosis.weight_rules": (
        "diagnosis.evidence diagnosis.findings diagnosis.statements diagnosis.thresholds",
        "numpy",
    ),
    "diagnosis.rules": (
        "diagnosis.evidence diagnosis.findings diagnosis.gradient_rules diagnosis.thresholds "
        "diagnosis.weight_rules",
        "",
    ),
    "diagnosis.model_rules": (
        "diagnosis.evidence diagnosis.findings diagnosis.of_models diagnosis.statements "
        "diagnosis.thresholds",
        "numpy",
    ),
    "diagnosis.diagnose": (
        "diagnosis.evidence diagnosis.findings diagnosis.gradient_rules diagnosis.model_rules "
        "diagnosis.of_models diagnosis.rules diagnosis.thresholds history",
        "numpy",
    ),
    "diagnosis.watch": ("diagnosis.diagnose diagnosis.findings history", ""),
    "models": ("", "numpy keras"),
    "predicted": ("history records theory", "numpy"),
    "prediction.initializers": ("theory", "numpy keras scipy"),
    "prediction.networks": ("prediction.initializers theory", "numpy keras tensorflow"),
    "prediction.single_networks": ("theory", "numpy scipy"),
    "prediction.predict": (
        "predicted prediction.networks prediction.single_networks recording.descriptions inputs "
        "theory",
        "numpy keras tensorflow threadpoolctl",
    ),
    "statistics": ("", "numpy keras"),
    "tensorboard": ("distributions", "numpy tensorflow"),
    "inputs": ("", "numpy keras tensorflow"),
    "recording.counters": ("distributions", "numpy tensorflow"),
    "recording.accumulators": ("recording.counters statistics", "keras numpy tensorflow"),
    "recording.names": ("", "keras"),
    "recording.topology": ("recording.names", "keras"),
    "recording.descriptions": (
        "history recording.names recording.topology _version",
        "numpy keras tensorflow",
    ),
    "recording.recorder": (
        "recording.accumulators recording.counters recording.descriptions history jsonl statistics",
        "numpy keras tensorflow",
    ),
    "recording.unshared": ("", "tensorflow"),
    "recording.hooks": ("recording.unshared", "keras tensorflow"),
    "recording.position": ("", "keras"),
    "recording.tracks": (
        "recording.accumulators recording.descriptions history recording.hooks recording.recorder",
        "keras tensorflow",
    ),
    "recording.summaries": ("distributions history tensorboard", "numpy"),
    "callback": (
        "diagnosis.watch history inputs probe.measure recording.descriptions recording.hooks "
        "recording.position recording.summaries recording.tracks statistics tensorboard",
        "numpy keras",
    ),
    "loop": ("recording.hooks recording.recorder", "numpy keras tensorflow"),
    "probe.layer_outputs": ("", "keras tensorflow"),
    "probe.saturation": ("", "numpy tensorflow"),
    "probe.measure": (
        "recording.descriptions inputs probe.layer_outputs probe.saturation",
        "numpy keras tensorflow",
    ),
    "training": (
        "recording.accumulators recording.descriptions recording.hooks loop probe.measure "
        "recording.recorder track history inputs",
        "numpy keras tensorflow",
    ),
    "track": ("loop probe.measure recording.recorder history", "numpy rich"),
    "experiments": (
        "data models predicted prediction.predict training history inputs statistics",
        "numpy keras",
    ),
    "summary": ("history predicted", "numpy"),
    "remedies.layers": ("inputs", "keras"),
    "remedies.plans": ("remedies.layers", "keras"),
    "remedies.changes": ("remedies.plans remedies.layers", "numpy keras"),
    "remedies.trials": ("history", "numpy pandas rich"),
    "remedies.trying": (
        "callback diagnosis experiments history inputs remedies.changes remedies.layers "
        "remedies.plans remedies.trials training",
        "numpy keras",
    ),
    "plots.remedies": ("plots.parts plots.panels plots.scale remedies.trials", "numpy matplotlib"),
    "plots.scale": ("", "numpy matplotlib"),
    "plots.panels": ("plots.scale", "numpy matplotlib seaborn"),
    "plots.parts": ("history plots.panels plots.scale", "numpy matplotlib seaborn"),
    "plots.predictions": (
        "history predicted plots.parts plots.panels plots.scale",
        "numpy matplotlib",
    ),
    "plots.phases": (
        "theory predicted plots.parts plots.panels",
        "numpy matplotlib seaborn",
    ),
    "plots.gradients": (
        "history predicted plots.parts plots.panels plots.predictions plots.scale",
        "numpy matplotlib seaborn",
    ),
    "plots.distributions": (
        "distributions history plots.parts plots.panels plots.gradients plots.scale",
        "numpy matplotlib seaborn",
    ),
    "plots.activations": (
        "history plots.parts plots.panels plots.gradients plots.scale",
        "numpy matplotlib",
    ),
    "web": (
        "web.distributions web.figures web.flow web.flow_page web.heatmaps web.report",
        "plotly",
    ),
    "web.flow_states": (
        "flow.graph flow.verdicts plots.flow_looks plots.scale web.looks",
        "numpy matplotlib networkx",
    ),
    "web.flow_places": (
        "flow.layout plots.flow_grid plots.panels web.looks",
        "numpy networkx",
    ),
    "web.flow_drawing": (
        "flow.layout plots.flow_looks web.flow_places web.flow_states web.looks",
        "numpy matplotlib networkx plotly",
    ),
    "web.flow": ("web.flow_drawing web.looks web.thinning", "networkx plotly"),
    "web.flow_page": ("web.flow_drawing web.page web.thinning", "networkx plotly"),
    "web.thinning": ("plots.panels plots.scale", "numpy"),
    "web.looks": ("history plots.panels plots.scale web.thinning", "numpy matplotlib plotly"),
    "web.heatmaps": (
        "history plots.panels plots.parts plots.scale web.looks web.thinning",
        "numpy matplotlib plotly",
    ),
    "web.figures": (
        "history plots.gradients plots.panels plots.parts plots.predictions plots.scale "
        "predicted web.looks web.thinning",
        "numpy matplotlib plotly",
    ),
    "web.distributions": (
        "distributions history plots.distributions plots.panels plots.parts plots.scale web.looks",
        "numpy matplotlib plotly",
    ),
    "web.runs": ("diagnosis experiments flow history predicted summary web.flow_drawing", "numpy"),
    "web.page": ("_version diagnosis web.runs", ""),
    "web.report": (
        "history plots.parts plots.scale predicted web.distributions web.figures "
        "web.flow_drawing web.flow_page web.heatmaps web.looks web.page web.runs web.thinning",
        "numpy plotly",
    ),
    "flow.topology": ("", ""),
    "flow.graph": (
        "flow.topology history inputs records recording.topology",
        "numpy networkx",
    ),
    "flow.files": ("flow.graph jsonl", "networkx"),
    "flow.layout": ("", "numpy networkx scipy"),
    "flow.verdicts": ("", ""),
    "plots.flow_grid": ("flow.layout", "numpy matplotlib"),
    "plots.flow_looks": ("flow.layout flow.verdicts plots.scale", "numpy networkx"),
    "plots.flow": (
        "flow.layout flow.verdicts plots.flow_grid plots.flow_looks plots.parts plots.panels "
        "plots.scale",
        "numpy matplotlib networkx",
    ),
    "command.main": ("_version", ""),
    "command.histories": ("history", ""),
    "command.diagnose": ("command.histories diagnosis", "rich"),
    "command.graph": ("flow history plots.flow web", "matplotlib"),
    "app": ("", ""),
    "app.configuration": ("", ""),
    "app.presets": ("app.configuration", ""),
    "app.keras_code": ("app.configuration", ""),
    "app.journal": ("history jsonl", ""),
    "app.worker": ("experiments", "keras"),
    "app.processes": ("", ""),
    "app.predicting": ("app.configuration experiments predicted", ""),
    "app.runs": ("app.configuration app.journal app.processes history predicted", ""),
    "app.figures": (
        "history plots.parts plots.scale predicted web.figures web.looks web.thinning",
        "numpy plotly",
    ),
    "app.drawing": ("app.figures", "plotly streamlit"),
    "app.texts": ("diagnosis history summary", ""),
    "app.knobs": ("app.configuration", "streamlit"),
    "app.downloads": (
        "app.keras_code app.runs flow history plots web",
        "matplotlib streamlit",
    ),
    "app.views": (
        "app.downloads app.drawing app.figures app.runs app.texts flow history plots.scale web",
        "streamlit",
    ),
    "app.results": (
        "app.configuration app.drawing app.figures app.journal app.predicting app.runs app.texts "
        "app.views",
        "streamlit",
    ),
    "app.main": (
        "app.configuration app.knobs app.predicting app.presets app.processes app.results app.runs "
        "experiments",
        "streamlit",
    ),
    "command.app": ("", "streamlit"),
    "command.report": ("command.histories web", "ann_gradient_visualization"),
    "__main__": ("command.main", ""),
    "recording": ("", ""),
    "flow": ("flow.files flow.graph", ""),
    "command": ("", ""),
    "probe": ("probe.measure", ""),
    "prediction": ("predicted prediction.initializers prediction.predict", ""),
    "remedies": ("remedies.trials remedies.trying", ""),
    "plots": (
        "plots.activations plots.distributions plots.flow plots.gradients plots.phases "
        "plots.predictions plots.remedies",
        "",
    ),
}
MOST_LINES = 350
MOST_LINES_WITHOUT_DOCSTRING = 50
Function = ast.FunctionDef | ast.AsyncFunctionDef


def imported(source):
    """Every module that a source names in an import, at any depth, with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = "kgrad" if node.level else ""
            module = ".".join(part for part in (start, node.module) if part)
            if module == "kgrad":  # from kgrad import data
                yield from ((f"kgrad.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield module, node.lineno


def forbidden_imports(name, source):
    if name == "__init__":
        return
    if name not in TABLE:
        yield f"{name} is not in the table: say in DESIGN.md and here what it may import"
        return
    ours, others = (set(names.split()) for names in TABLE[name])
    for module, line in imported(source):
        top, _, rest = module.partition(".")
        if top == "kgrad":
            if rest not in ours and rest.split(".")[0] not in ours:
                yield f"{name}:{line} must not import {module}"
        elif top not in sys.stdlib_module_names and top not in others:
            yield f"{name}:{line} must not import {module}"


def forbidden_names(name, source):
    if name in ("utils", "helpers", "config", "base"):
        yield f"{name} says nothing about what is in it"


def private_tensorflow(name, source):
    for number, line in enumerate(source.splitlines(), start=1):
        if "tensorflow.python" in line:
            yield f"{name}:{number} uses what TensorFlow keeps to itself"


def too_long(name, source):
    lines = len(source.splitlines())
    if lines > MOST_LINES:
        yield f"{name} has {lines} lines, more than {MOST_LINES}: it is asking to be two"


def assertions(name, source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assert):
            yield f"{name}:{node.lineno} asserts: raise an error that says what is accepted"


def long_without_docstring(name, source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Function) and not ast.get_docstring(node):
            lines = node.end_lineno - node.lineno + 1
            if lines > MOST_LINES_WITHOUT_DOCSTRING:
                yield f"{name}:{node.lineno} {node.name} has {lines} lines and no docstring"


def public_without_docstring(name, source):
    """The module, its public functions and classes, and the public methods of those."""
    tree = ast.parse(source)
    if not ast.get_docstring(tree) and not name.startswith("_"):
        yield f"{name} has no docstring"
    rooms = [tree]
    while rooms:
        for node in rooms.pop().body:
            if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
                if not ast.get_docstring(node):
                    yield f"{name}:{node.lineno} {node.name} has no docstring"
                if isinstance(node, ast.ClassDef):
                    rooms.append(node)


RULES = (
    forbidden_imports,
    forbidden_names,
    private_tensorflow,
    too_long,
    assertions,
    long_without_docstring,
    public_without_docstring,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("name", SOURCES)
def test_the_house_is_as_planned(name, rule):
    assert list(rule(name, SOURCES[name])) == []


def test_every_module_of_the_table_is_there():
    """Else a room that moved would take its rule with it."""
    assert set(TABLE) <= set(SOURCES)


@pytest.mark.parametrize(
    ("rule", "name", "source", "found"),
    [
        (forbidden_imports, "history", "import keras", ["history:1 must not import keras"]),
        (forbidden_imports, "history", "import pandas as pd, numpy.linalg, json", []),
        (
            forbidden_imports,
            "training",
            "def f():\n    from kgrad.plots.gradients import visualize_gradients",
            ["training:2 must not import kgrad.plots.gradients"],
        ),
        (
            forbidden_imports,
            "recording.recorder",
            "from kgrad import history, training",
            ["recording.recorder:1 must not import kgrad.training"],
        ),
        (
            forbidden_imports,
            "statistics",
            "from kgrad.recording.recorder import Recorder\nfrom .history import Weight",
            [
                "statistics:1 must not import kgrad.recording.recorder",
                "statistics:2 must not import kgrad.history",
            ],
        ),
        (
            forbidden_imports,
            "theory.mean_field",
            "from kgrad.theory.gaussian import f\nfrom kgrad.theory.phases import g",
            ["theory.mean_field:2 must not import kgrad.theory.phases"],
        ),
        (forbidden_imports, "plots", "import kgrad", ["plots:1 must not import kgrad"]),
        (
            forbidden_imports,
            "plots.gradients",
            "from kgrad.history import Weight\nimport tensorflow as tf",
            ["plots.gradients:2 must not import tensorflow"],
        ),
        (
            forbidden_imports,
            "magic",
            "",
            ["magic is not in the table: say in DESIGN.md and here what it may import"],
        ),
        (forbidden_imports, "__init__", "from kgrad.plots.gradients import f", []),
        (forbidden_names, "helpers", "", ["helpers says nothing about what is in it"]),
        (
            private_tensorflow,
            "x",
            "import os\nfrom tensorflow.python.eager import context",
            ["x:2 uses what TensorFlow keeps to itself"],
        ),
        (too_long, "x", "\n" * 350, []),
        (too_long, "x", "\n" * 351, ["x has 351 lines, more than 350: it is asking to be two"]),
        (
            assertions,
            "x",
            "if True:\n    assert 1",
            ["x:2 asserts: raise an error that says what is accepted"],
        ),
        (long_without_docstring, "x", "def f():\n" + "    1\n" * 49, []),
        (
            long_without_docstring,
            "x",
            "def f():\n" + "    1\n" * 50,
            ["x:1 f has 51 lines and no docstring"],
        ),
        (long_without_docstring, "x", "def f():\n    'Says.'\n" + "    1\n" * 50, []),
        (
            public_without_docstring,
            "x",
            "def f(): pass\ndef _f(): pass\n"
            "class A:\n    'Says.'\n    def g(self): pass\n    def _h(self): pass\nclass B: pass",
            [
                "x has no docstring",
                "x:1 f has no docstring",
                "x:7 B has no docstring",
                "x:5 g has no docstring",
            ],
        ),
    ],
)
def test_the_rules_find_what_breaks_them(rule, name, source, found):
    assert list(rule(name, source)) == found


@pytest.mark.parametrize("name", SOURCES)
def test_the_examples_in_the_docstrings(name):
    module = importlib.import_module("kgrad" if name == "__init__" else f"kgrad.{name}")
    examples = len(re.findall(r"^\s*>>> ", SOURCES[name], re.MULTILINE))
    assert doctest.testmod(module) == (0, examples)


def test_a_wrong_example_would_be_noticed(tmp_path, monkeypatch, capsys):
    (tmp_path / "wrong_example.py").write_text('"""Says.\n\n>>> 1 + 1\n3\n"""\n')
    monkeypatch.syspath_prepend(tmp_path)
    assert doctest.testmod(importlib.import_module("wrong_example")) == (1, 1)
    assert "Expected:\n    3\nGot:\n    2" in capsys.readouterr().out
