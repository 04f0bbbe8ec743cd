"""The package as a user gets it: built, installed in clean environments, used in empty folders.

    pytest tests/package.py    # make test-package

These install TensorFlow several times, so they are no part of the suite. The variable PYTHONS lists
the interpreters to test with, separated by spaces.
"""

import os
import re
import socket
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from waiting import until

ROOT = Path(__file__).parents[1]
PYTHONS = os.environ.get("PYTHONS", sys.executable).split()
README = (ROOT / "README.md").read_text(encoding="utf-8")
TRACKED = subprocess.run(
    ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
).stdout.splitlines()


def run(*command, cwd, **environment):
    """Run a command without this checkout on the path, and return what it prints."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "KERAS"))}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=inherited | {"MPLBACKEND": "Agg"} | environment,
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def environment(folder, python, *packages):
    """Create an environment with packages; return its folder of programs."""
    uv = Path(sys.executable).with_name("uv")
    links = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS", "")
    run(uv, "venv", "--python", python, folder, cwd=folder.parent)
    run(uv, "pip", "install", "--python", folder, *packages, cwd=folder.parent, UV_FIND_LINKS=links)
    return folder / "bin"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from the source distribution, as `python -m build` does."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_the_wheel_has_all_files_of_the_package_and_no_others(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == {name for name in TRACKED if name.startswith("kgrad/")}


def test_the_source_distribution_has_no_tests_and_no_figures(wheel):
    (source,) = wheel.parent.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"} <= names
    assert not any(name.startswith(("tests", "docs", "lessons")) for name in names)


@pytest.mark.parametrize("python", PYTHONS)
def test_the_wheel_works_in_an_empty_folder(wheel, python, tmp_path, browser):
    programs = environment(tmp_path / "environment", python, f"{wheel}[tensorflow,app]")
    empty = tmp_path / "empty"
    empty.mkdir()
    examples = "\n".join(re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL))
    run(programs / "python", "-c", examples, cwd=empty)
    assert {"gradients.png", "prediction.png"} <= {path.name for path in empty.iterdir()}
    small = (
        "--preset",
        "healthy",
        "--layers",
        "4",
        "--epochs",
        "2",
        "--seeds",
        "1",
        "--samples",
        "128",
    )
    run(programs / "kgrad", "run", *small, "--output", "runs", cwd=empty)
    run(programs / "kgrad", "report", "runs", "-o", "written.html", cwd=empty)
    assert (empty / "runs" / "report.html").stat().st_size > 1e6  # it contains Plotly
    assert (empty / "written.html").stat().st_size > 1e6
    the_app_predicts(programs, empty, browser)


def the_app_predicts(programs, folder, browser):
    with socket.socket() as one:
        one.bind(("localhost", 0))
        port = one.getsockname()[1]
    command = [programs / "kgrad", "app", "--no-browser", "--port", str(port)]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as app:
        try:
            until(lambda: "URL" in app.stdout.readline())
            page = browser.new_page()
            page.goto(f"http://localhost:{port}")
            page.get_by_role("button", name=re.compile(r"\bTrain$")).wait_for(timeout=180_000)
            page.locator(".js-plotly-plot").first.wait_for(timeout=180_000)
            assert page.get_by_test_id("stException").count() == 0
            page.close()  # the server ends once its last connection is closed
            app.terminate()
            assert app.wait(timeout=30) == 0
        finally:
            app.kill()


def test_a_core_install_is_found_from_the_folder_of_its_clone(tmp_path):
    clone = tmp_path / "kgrad"  # in tmp_path, Python also finds this folder, as a namespace package
    for name in TRACKED:
        if name.startswith("kgrad/") or "/" not in name:
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            (clone / name).write_bytes((ROOT / name).read_bytes())
    programs = environment(tmp_path / "environment", PYTHONS[0], "--editable", clone)
    code = "import kgrad; print(kgrad.__file__, kgrad.GradientHistory.__module__)"
    shown = run(programs / "python", "-c", code, cwd=tmp_path)
    assert shown.split() == [str(clone / "kgrad" / "__init__.py"), "kgrad.records.history"]
    recorded = ROOT / "tests" / "records" / "data" / "run_of_0_1.jsonl"
    run(programs / "kgrad", "report", recorded, "-o", "report.html", cwd=tmp_path)
