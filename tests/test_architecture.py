"""What no module of the package may contain; `make lint` checks who imports whom.

Every rule is a function from a module's name and source to sentences about what breaks it, so that
the rules themselves are tested on sources that break them.
"""

import ast
import doctest
import importlib
import re
from pathlib import Path

import keras
import pytest

import kgrad

PACKAGE = Path(kgrad.__file__).parent


def module_name(path):
    """As it is imported from kgrad: theory.phases; theory for its __init__."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


SOURCES = {
    module_name(path): path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))
}

MOST_LINES_WITHOUT_DOCSTRING = 50
Function = ast.FunctionDef | ast.AsyncFunctionDef


def forbidden_names(name, source):
    if name in ("utils", "helpers", "config", "base"):
        yield f"{name} says nothing about what is in it"


def private_tensorflow(name, source):
    for number, line in enumerate(source.splitlines(), start=1):
        if "tensorflow.python" in line:
            yield f"{name}:{number} uses what TensorFlow keeps to itself"


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


def opens_with_a_riddle(name, source):
    """A first line says what something does or is, not "what", "how" or "where" it is."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | Function):
            first = (ast.get_docstring(node) or "").partition("\n")[0]
            if re.match(r"(What|Where|How|Of|Who|That)\b", first):
                yield f"{name}:{getattr(node, 'lineno', 1)} begins with {first.split()[0]!r}"


RULES = (
    opens_with_a_riddle,
    forbidden_names,
    private_tensorflow,
    assertions,
    long_without_docstring,
    public_without_docstring,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("name", SOURCES)
def test_the_house_is_as_planned(name, rule):
    assert list(rule(name, SOURCES[name])) == []


@pytest.mark.parametrize(
    ("rule", "name", "source", "found"),
    [
        (
            opens_with_a_riddle,
            "x",
            "'Say it.'\ndef f():\n    'What it does.'\nclass A:\n    'However.'",
            ["x:2 begins with 'What'"],
        ),
        (forbidden_names, "helpers", "", ["helpers says nothing about what is in it"]),
        (
            private_tensorflow,
            "x",
            "import os\nfrom tensorflow.python.eager import context",
            ["x:2 uses what TensorFlow keeps to itself"],
        ),
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


def is_of_another_backend(name):
    """A backend's modules can be imported only where it is installed."""
    room, _, rest = name.partition("measure.backends.")
    package = rest.partition(".")[0]
    return not room and package in {"tensorflow", "jax", "torch"} - {keras.backend.backend()}


@pytest.mark.parametrize("name", [name for name in SOURCES if not is_of_another_backend(name)])
def test_the_examples_in_the_docstrings(name):
    module = importlib.import_module("kgrad" if name == "__init__" else f"kgrad.{name}")
    examples = len(re.findall(r"^\s*>>> ", SOURCES[name], re.MULTILINE))
    assert doctest.testmod(module) == (0, examples)


def test_a_wrong_example_would_be_noticed(tmp_path, monkeypatch, capsys):
    (tmp_path / "wrong_example.py").write_text('"""Says.\n\n>>> 1 + 1\n3\n"""\n')
    monkeypatch.syspath_prepend(tmp_path)
    assert doctest.testmod(importlib.import_module("wrong_example")) == (1, 1)
    assert "Expected:\n    3\nGot:\n    2" in capsys.readouterr().out
