"""What pyproject.toml, requirements.txt and the constraints files say, against each other."""

import ast
import re
import runpy
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import kgrad

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
IMPORTED_AS = {"scikit-learn": "sklearn"}


def named(lines):
    """Requirements by name, as pip compares names."""
    requirements = [Requirement(line) for line in lines]
    return {re.sub(r"[-_.]+", "-", r.name).lower(): r for r in requirements if r.name != "kgrad"}


def lines_of(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith(("#", "-c"))]


def test_requirements_are_the_dependencies_with_tensorflow():
    lines = [*PROJECT["dependencies"], *EXTRAS["keras"], *EXTRAS["tensorflow"]]
    assert named(lines_of("requirements.txt")) == named(lines)


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_each_backend_is_an_extra_with_what_all_share(backend):
    assert set(named(EXTRAS[backend])) == {backend}
    assert "kgrad[keras]" in EXTRAS[backend]


def test_the_lower_bounds_are_the_oldest_versions_tested():
    extras = (EXTRAS[name] for name in ("keras", "tensorflow", "tensorboard"))
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]
    pinned = named(lines_of("constraints-oldest.txt"))
    assert set(named(lines)) <= set(pinned)
    for name, requirement in named(lines).items():
        bounds = {one.operator: one.version for one in requirement.specifier}
        (pin,) = pinned[name].specifier
        assert pin.operator == "=="
        assert release(pin.version) == release(bounds[">="]), name


def release(version):
    """3.1.0 as (3, 1)."""
    return tuple(int(part) for part in re.sub(r"(\.0)+$", "", version).split("."))


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-jax-torch.txt"])
def test_the_versions_tested_are_allowed(name):
    pinned = named(lines_of(name))
    lines = PROJECT["dependencies"] + [line for extra in EXTRAS.values() for line in extra]
    compared = 0
    for requirement in map(Requirement, lines):
        pin = pinned.get(re.sub(r"[-_.]+", "-", requirement.name).lower())
        if pin is not None:
            (version,) = pin.specifier
            assert requirement.specifier.contains(version.version), requirement
            compared += 1
    assert compared >= 2


def test_the_design_lists_what_a_core_install_adds():
    namespace = runpy.run_path(str(ROOT / "docs" / "dependencies.py"), run_name="dependencies")
    table = "\n".join(namespace["table"]())
    assert table in (ROOT / "docs" / "design.md").read_text(encoding="utf-8")


def test_the_citation_is_of_this_version():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {kgrad.__version__}\n" in citation
    assert f"\nlicense: {PROJECT['license']}\n" in citation


def test_the_page_on_installing_names_the_wheel_of_this_version():
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    named = set(re.findall(r"kgrad-[\d.]+-py3-none-any\.whl", page))
    assert named == {f"kgrad-{kgrad.__version__}-py3-none-any.whl"}


PLAIN = ["records", "theory", "diagnosis", "figures", "apps"]
WITH_BACKEND = ["measure", "experiments"]


@pytest.mark.parametrize("rooms", [PLAIN, WITH_BACKEND], ids=["plain", "with a backend"])
def test_what_is_imported_is_installed(rooms):
    extras = (
        [] if rooms is PLAIN else ["keras", "tensorflow", "jax", "torch", "tensorboard", "cluster"]
    )
    lines = PROJECT["dependencies"] + [line for name in extras for line in EXTRAS[name]]
    declared = {IMPORTED_AS.get(name, name.replace("-", "_")) for name in named(lines)}
    for room in rooms:
        for path in sorted((ROOT / "kgrad" / room).rglob("*.py")):
            # The app has an extra of its own, and trains in modules that it imports late.
            allowed = declared | ({"keras", "streamlit"} if path.parent.name == "page" else set())
            allowed |= {"streamlit"} if path.name == "app.py" else set()
            # A notebook has IPython: it is imported where one was found.
            allowed |= {"IPython"} if path.name in ("live.py", "progress.py") else set()
            allowed |= sys.stdlib_module_names | {"kgrad", "markupsafe"}  # the latter is of jinja2
            assert imported(path) <= allowed, path


def imported(path):
    """The packages that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module)
    return {name.partition(".")[0] for name in found}
