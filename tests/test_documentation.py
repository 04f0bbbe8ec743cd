"""Every snippet of the README and of docs/ runs: a page's in order, in an empty folder."""

import argparse
import importlib
import re
import runpy
import shlex
from pathlib import Path

import pytest

from kgrad.apps.command.main import COMMANDS, main
from kgrad.figures import static

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPET = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Installing and the programs of the repository itself: CI, `make` and people run these.
NOT_HERE = ("make", "pip", "python3", "python3.11", ".venv/bin/python", ".venv/bin/kgrad")
# These train for minutes, or serve until they are stopped: only their options are read.
LONG = ("run", "sweep", "app", "watch")
# On the page about them, trainings run as well, with the smallest networks.
SMALL = ["--epochs", "1", "--seeds", "1", "--units", "4", "--samples", "64"]


def snippets(page):
    return SNIPPET.findall(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs_in_order_in_an_empty_folder(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for language, source in snippets(page):
        if language == "python" and page.stem == "backends":
            pass  # these run on their backend, in tests/backends
        elif language == "python":
            exec(compile(source, page.name, "exec"), names)
        elif language == "bash":
            for line in source.splitlines():
                run_command(shlex.split(line, comments=True), page)
        else:
            pytest.fail(
                f"{page.name} has a snippet in {language!r}: python or bash, or no language"
            )


def run_command(words, page):
    while words and "=" in words[0]:
        words = words[1:]  # a variable of the environment
    if not words or words[0] in NOT_HERE:
        return
    if words[:2] == ["python", "ann_gradient_visualization.py"]:
        words = ["kgrad", "run", *words[2:]]
    if words[:3] == ["python", "-m", "kgrad"]:
        words = ["kgrad", *words[3:]]
    if words[0] == "python" and (words[1] == "-c" or (ROOT / words[1]).exists()):
        return  # a script of the repository
    assert words[0] == "kgrad", f"{page.name}: no test runs {shlex.join(words)!r}"
    if words[1] == "run" and page.stem == "command_line":
        assert main([*words[1:], *SMALL]) == 0
    elif words[1] in LONG and "--status" not in words:
        module, _ = COMMANDS[words[1]]
        options = importlib.import_module(module).parse(words[2:], "kgrad")
        assert isinstance(options, argparse.Namespace)
    else:
        assert main(words[1:]) in (0, 1)  # 1: something was found


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 600


def test_every_link_leads_to_a_file():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_reference_is_that_of_this_package():
    written = runpy.run_path(str(ROOT / "docs" / "reference.py"), run_name="reference")["page"]()
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert page == written, "run python docs/reference.py"


def test_the_gallery_has_every_figure_and_is_that_of_its_script():
    gallery = runpy.run_path(str(ROOT / "docs" / "gallery.py"), run_name="gallery")
    written = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    assert written == gallery["page"](), "run python docs/gallery.py"
    functions = [example.function for example in gallery["EXAMPLES"]]
    assert set(functions) == {*static.__all__} - {"show"}
    for function in functions:
        assert (ROOT / "docs" / "figures" / "gallery" / f"{function}.png").exists()
