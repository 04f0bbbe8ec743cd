"""The course: its lessons run, have one form, and become pages that a telephone can show."""

import ast
import base64
import importlib.util
import re
import socket
import sys
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qsl, urlsplit
from xml.etree import ElementTree

import jupytext
import keras
import matplotlib
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from jupyter_client.manager import AsyncKernelManager
from matplotlib.figure import Figure
from nbclient import NotebookClient
from PIL import Image

import kgrad
from kgrad.apps.page.configuration import SECOND, from_query, to_query
from kgrad.diagnosis import RULES
from kgrad.measure import probe
from kgrad.records.statistics import STATISTICS

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "lessons"
LESSONS = sorted((ROOT / "lessons").glob("[0-9][0-9]_*.py"))
WRITTEN = ("teaching", "glossary")
SECTIONS = [
    "The experiment",
    "What it shows, and why",
    "What must hold",
    "Exercises",
    "Source",
]
TINY = r"""# %% [markdown]
# # 1. Tiny: a lesson for a test
#
# **Part:** Practice · **Level:** basic · **After:** lesson 2
#
# **The idea.** A line is
# drawn.
#
# ![A line,
# drawn.](../docs/lessons/figures/01_idea.svg)
#
# **Question.** How long is
# a line?
#
# **Predict first.** Write it down.

# %%
import os
import sys

import matplotlib.pyplot as plt

print("fast", "KGRAD_FAST" in os.environ)
print("I0000 00:00:1.2 3 port.cc:1] noise", file=sys.stderr)
plt.figure(figsize=(6, 4))
plt.plot([0, 3], [0, 4])
plt.show()

# %% tags=["figure"] jupyter={"source_hidden": true}
print("drawn")

# %% [markdown]
# ## What it shows, and why
#
# $$\ell^2 = \sum_i x_i^2, \qquad \ell > 0$$ and $\sigma_w$;
# [another](02_broken.md), [theory](../theory.md#how)

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# It is *five*.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
print(6 * 7)

# %% [markdown]
# ## Source
#
# As we know. E. A. Euclid, T.-L. Heath, *Elements*, 1482. O. Others, *Other*, 1.
"""
BROKEN = """# %% [markdown]
# # 2. Broken: it fails
#
# **Part:** Start here · **Level:** advanced
#
# **Question.** Does it?

# %%
print("begun")

# %%
found = 2
assert found == 3

# %% [markdown]
# ## Source
#
# See: N. Nobody et al., 2000.
"""

A_DOZEN = 14
PHONE = 390 - 2 * 16  # pixels that a page leaves for a figure


def load(path):
    specification = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


render = load(ROOT / "lessons" / "render.py")
ideas = load(ROOT / "docs" / "lesson_ideas.py")
each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)


@each_lesson
def test_a_lesson_holds_what_it_claims(lesson, monkeypatch, tmp_path):
    def no_network(*_):
        raise OSError("a lesson must not need the network")

    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.get_fignums()) or plt.close("all"))
    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setenv("KGRAD_FAST", "1")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    with matplotlib.rc_context():  # lessons set their look
        for cell in jupytext.read(lesson).cells:
            value = run_cell(cell.source, names) if cell.cell_type == "code" else None
            if isinstance(value, Figure):  # a notebook shows it
                shown.append([value])
    assert shown
    assert all(shown), "a cell shows a figure that is not there"
    assert not list(tmp_path.iterdir())


def run_cell(source, names):
    """Run a cell as a notebook does; return the value of its last expression."""
    *body, last = ast.parse(source).body
    if not isinstance(last, ast.Expr):
        body, last = [*body, last], None
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    return (
        None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    )


def test_a_cell_runs_as_in_a_notebook():
    names = {}
    assert run_cell("x = 2\nx + 1", names) == 3
    assert run_cell("x = 5", names) is None
    assert names["x"] == 5


@each_lesson
def test_a_lesson_has_the_form_of_all_lessons(lesson):
    assert faults(lesson.read_text(encoding="utf-8"), lesson.stem) == []


def faults(text, name):
    """What a lesson lacks of the form that all have."""
    cells = jupytext.reads(text, "py:percent").cells
    words = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    solutions = [c for c in cells if "solution" in c.metadata.get("tags", [])]
    folded = [c.source for c in solutions if c.cell_type == "markdown"]
    asserted = [
        node
        for cell in cells
        if cell.cell_type == "code" and cell not in solutions
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.Assert)
    ]
    found = {
        "its number and name": re.match(rf"# {int(name[:2])}\. [^:\n]+: .+", words),
        "its part and level": re.search(
            rf"^\*\*Part:\*\* ({'|'.join(render.PARTS)}) · \*\*Level:\*\* "
            r"(basic|intermediate|advanced)( · \*\*After:\*\* lessons? \d+( and \d+)?)?$",
            words,
            re.MULTILINE,
        ),
        "an idea, drawn": int(name[:2]) > 10
        or re.search(
            r"^\*\*Part:.+\n\n\*\*The idea\.\*\* (.+\n)+\n!\[(.+\n)*.*\]"
            rf"\(\.\./docs/lessons/figures/{name[:2]}_idea\.svg\)\n\n\*\*Question",
            words,
            re.MULTILINE,
        ),
        "a question": "**Question.** " in words,
        "a prediction": "**Predict first.** " in words,
        "the sections": re.findall(rf"^## ({'|'.join(SECTIONS)})", words, re.MULTILINE) == SECTIONS,
        "a formula": "$$" in words,
        "two exercises": re.findall(r"^\*\*(\d)\.\*\* ", words, re.MULTILINE) == ["1", "2"],
        "two solutions": [re.findall(r"<summary>(.+?)</summary>", one) for one in folded]
        == [["Solution 1"], ["Solution 2"]],
        "solutions that close": all(one.rstrip().endswith("</details>") for one in folded),
        "an assertion": asserted,
        "hidden code": all(
            cell.metadata.get("jupyter", {}).get("source_hidden", False)
            == bool({"solution", *render.FOLDED} & set(cell.metadata.get("tags", [])))
            for cell in cells
            if cell.cell_type == "code"
        ),
        "folded figures": all(
            "figure" in cell.metadata.get("tags", [])
            for cell in cells
            if cell.cell_type == "code" and "plt.subplots(" in cell.source and cell not in solutions
        ),
    }
    shown = [cell for cell in cells if cell.cell_type == "code" and cell not in solutions]
    longest = max(map(code_lines, shown), default=0)
    found[f"cells of a dozen lines: {longest}"] = longest <= A_DOZEN
    return [what for what, there in found.items() if not there]


def code_lines(cell):
    """Lines of a cell, without imports, what explains and, where it draws a figure, all of it."""
    tree = ast.parse(cell.source)
    if any(isinstance(node, ast.Name) and node.id == "plt" for node in ast.walk(tree)):
        return 0
    texts = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    ]
    left_out = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)] + texts
    beside = {n for node in left_out for n in range(node.lineno, node.end_lineno + 1)}
    lines = enumerate(cell.source.splitlines(), start=1)
    return sum(line.split("#")[0].strip() != "" and n not in beside for n, line in lines)


def test_a_lesson_without_its_form_is_noticed():
    missing = faults(TINY, "02_tiny")
    assert {"its number and name", "an idea, drawn"} < set(missing)
    assert "an idea, drawn" not in faults(TINY, "01_tiny")
    assert {"the sections", "two exercises", "two solutions", "an assertion"} < set(missing)
    assert not {"a question", "a prediction", "a formula", "hidden code"} & set(missing)


def test_a_cell_that_is_too_long_is_noticed():
    cell = '# %%\nimport os\n\n\n# %%\ndef f():\n    """Explains."""\n{}    return 1\n'
    assert "cells of a dozen lines: 15" in faults(cell.format("    x = 1  # why\n" * 13), "02_t")
    assert "cells of a dozen lines: 14" not in faults(cell.format("    x = 1\n" * 12), "02_t")


@each_lesson
def test_a_lesson_becomes_a_notebook_and_itself_again(lesson):
    text = lesson.read_text(encoding="utf-8")
    cells = jupytext.reads(text, "py:percent")
    assert jupytext.writes(cells, "py:percent") == text
    notebook = jupytext.reads(jupytext.writes(cells, "ipynb"), "ipynb")
    for cell, read in zip(cells.cells, notebook.cells, strict=True):
        assert (cell.cell_type, cell.source) == (read.cell_type, read.source)
        assert cell.metadata == read.metadata


@each_lesson
def test_a_lesson_stands_alone(lesson):
    imported = {
        name.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(ast.parse(lesson.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    installed = {
        "kgrad",
        "keras",
        "tensorflow",
        "numpy",
        "pandas",
        "matplotlib",
        "seaborn",
        "scipy",
    }
    assert {name.split(".")[0] for name in imported} <= installed | sys.stdlib_module_names


@each_lesson
def test_the_page_of_a_lesson_is_that_of_this_lesson(lesson):
    page = (PAGES / f"{lesson.stem}.md").read_text(encoding="utf-8")
    for cell in jupytext.read(lesson).cells:
        source = cell.source.replace("](../docs/lessons/figures/", "](figures/")
        if cell.cell_type == "code":
            source = render.without_short_settings(source)
        assert source in page, f"run lessons/render.py {lesson.stem[:2]}"
    assert "FAST" not in page


def test_every_page_and_figure_is_of_a_lesson_and_small():
    stems = {lesson.stem for lesson in LESSONS}
    assert {page.stem for page in PAGES.glob("*.md")} == {*stems, *WRITTEN, "README"}
    figures = {figure.name: figure for figure in (PAGES / "figures").iterdir()}
    linked = [
        name
        for page in PAGES.glob("*.md")
        for name in re.findall(r"\]\(figures/([^)]+)\)", page.read_text(encoding="utf-8"))
    ]
    assert set(linked) == set(figures)
    for figure in figures.values():
        most = 30_000 if figure.suffix == ".svg" else 170_000  # a map in a smooth ramp
        assert figure.stat().st_size <= most, figure.name


def test_the_first_ten_lessons_have_the_drawings_that_the_script_makes():
    assert list(ideas.IDEAS) == [lesson.name[:2] for lesson in LESSONS[:10]]
    for number in ideas.IDEAS:
        file = PAGES / "figures" / f"{number}_idea.svg"
        assert ideas.draw(number) == file.read_text("utf-8"), "run python docs/lesson_ideas.py"


@pytest.mark.parametrize("drawing", sorted(PAGES.glob("figures/*.svg")), ids=lambda path: path.stem)
def test_a_drawing_can_be_read_on_a_telephone_and_aloud(drawing, browser):
    root = ElementTree.parse(drawing).getroot()
    name = "{http://www.w3.org/2000/svg}"
    number = drawing.stem[:2]
    (lesson,) = (path for path in LESSONS if path.name.startswith(number))
    text = " ".join(lesson.read_text(encoding="utf-8").replace("\n#", " ").split())
    assert f"# {root.findtext(f'{name}title')} **Part:**" in text
    assert f"![{root.findtext(f'{name}desc')}](../docs" in text
    assert float(root.get("font-size")) * PHONE / float(root.get("width")) >= 12
    assert not {"style", "href", "font-size"} & {
        key for part in root.iter() if part is not root for key in part
    }
    page = browser.new_page()
    page.goto(drawing.as_uri())
    for words in page.locator("text").all():
        left, right, top, bottom = words.evaluate(
            "one => { const b = one.getBBox(); return [b.x, b.x + b.width, b.y, b.y + b.height] }"
        )
        assert left >= 5 and top >= 3, words.text_content()
        assert right <= float(root.get("width")) - 5, words.text_content()
        assert bottom <= float(root.get("height")) - 3, words.text_content()
    page.close()


def test_the_index_says_what_the_lessons_say():
    index = (PAGES / "README.md").read_text(encoding="utf-8")
    assert render.table_of_lessons(LESSONS) in index, "run lessons/render.py --pages"


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda path: path.stem)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\((?!\w+:)([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, place = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        if place:
            assert f' id="{place}"' in html_of(file)


def html_of(page):
    return render.as_html(page.read_text(encoding="utf-8"), page.parent, page.parent)


def code_in(text):
    """What is written as code, in a line or in a block."""
    return "\n".join(
        a + b for a, b in re.findall(r"```python\n(.*?)```|`([^`\n]+)`", text, re.DOTALL)
    )


def names_not_there(code):
    """What is written as part of kgrad or of Keras, up to a call, and is not."""
    missing = []
    for package, dotted in re.findall(r"\b(kgrad|keras)((?:\.[A-Za-z_]\w*)+)", code):
        found = {"kgrad": kgrad, "keras": keras}[package]
        for name in dotted.strip(".").split("."):
            found = getattr(found, name, None)
        if found is None:
            missing.append(package + dotted)
    return missing


def words_not_there(code):
    """Statistics, keys of the logs and rules that kgrad does not have."""
    tracker = kgrad.GradientTracker()
    model = kgrad.create_model(1, "relu", "he", units=2, input_shape=(2,))
    model.compile("sgd", "mse")
    logs = model.fit(np.ones((2, 2)), np.ones(2), verbose=0, callbacks=[tracker]).history
    known = {
        r'history\["(\w+)"\]': set(STATISTICS),
        r'history\.activations\["(\w+)"\]': set(probe.PROBE_STATISTICS),
        r'history\.logs\["(\w+)"\]': {"loss", "skipped_steps"},
        r"\bgrad/(\w+)": {name.removeprefix("grad/") for name in logs},
        r"^\"(\w+)\"$": {*RULES, "xavier", "he", "lecun"},
        r"\bhistory\.(\w+)": set(dir(tracker.history)),
    }
    return [
        word
        for pattern, there in known.items()
        for word in re.findall(pattern, code, re.MULTILINE)
        if word not in there
    ]


@pytest.mark.parametrize("page", WRITTEN)
def test_every_name_of_kgrad_in_the_pages_is_there(page):
    code = code_in((PAGES / f"{page}.md").read_text(encoding="utf-8"))
    assert code.count("kgrad.") >= 3
    assert names_not_there(code) == []
    assert words_not_there(code) == []


def test_a_name_that_is_not_there_would_be_noticed():
    code = code_in(
        "`kgrad.theory.chi_7(phi)` kgrad.no `keras.layers.Dense` `keras.Layr`\n"
        '`history["norm"]`, `history["mean_abs"]`, `history.activations["signal"]` `"exploded"`\n'
        "`grad/first` `history.weight` ```python\nkgrad.seen()\n```"
    )
    assert names_not_there(code) == ["kgrad.theory.chi_7", "keras.Layr", "kgrad.seen"]
    assert words_not_there(code) == ["norm", "signal", "first", "exploded", "weight"]


def test_what_refutes_a_misconception_stands_as_it_was_measured_where_its_link_leads():
    wrong = re.findall(r'^\*\*"(?:.+\n)+', (PAGES / "teaching.md").read_text("utf-8"), re.MULTILINE)
    assert len(wrong) > 20
    numbers = 0
    for paragraph in wrong:
        links = re.findall(r"\]\(([^)#]+)", paragraph)
        measured = "".join((PAGES / link).read_text("utf-8") for link in links)
        for number in re.findall(r"\d+\.\d+", paragraph):
            assert re.search(rf"(?<![\d.]){re.escape(number)}(?!\d)", measured), paragraph
            numbers += 1
    assert numbers > 30


def test_every_link_to_the_app_sets_what_it_says():
    page = (PAGES / "teaching.md").read_text(encoding="utf-8")
    links = re.findall(r"`http://localhost:8501/(\S*)`", page)
    assert links
    for link in links:
        query = dict(parse_qsl(urlsplit(link).query, strict_parsing=True))
        written = {"compare": "on"} if "compare" in query else {}
        for prefix in ("", SECOND):
            chosen, refused = from_query(query, prefix)
            assert refused == []
            written |= to_query(chosen, prefix)
        assert written == query


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """A lesson that runs and one that fails, after both had pages from before."""
    folder = tmp_path_factory.mktemp("course")
    lessons, pages, build = (folder / name for name in ("lessons", "pages", "build/html"))
    for made in (lessons, pages, pages / "figures"):
        made.mkdir()
    (lessons / "01_tiny.py").write_text(TINY, encoding="utf-8")
    (lessons / "02_broken.py").write_text(BROKEN, encoding="utf-8")
    (pages / "README.md").write_text("# Index\n\n<!-- lessons -->\nold\n<!-- end of lessons -->\n")
    (pages / "02_broken.md").write_text("# 2. Broken: as it was\n")
    (pages / "figures" / "01_tiny_9.png").write_bytes(b"old")
    drawing = (PAGES / "figures" / "01_idea.svg").read_bytes()
    (pages / "figures" / "01_idea.svg").write_bytes(drawing)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KGRAD_FAST", "1")  # a page is of the whole lesson all the same
        status = render.main([], lessons, pages, build)
    return status, pages, build


def test_a_lesson_becomes_markdown_with_small_figures(rendered):
    _, pages, _ = rendered
    page = (pages / "01_tiny.md").read_text(encoding="utf-8")
    assert "```text\nfast False\n```\n\n![Figure 1 of lesson 1](figures/01_tiny_1.png)" in page
    figure = "<details><summary>The code of the figure</summary>"
    assert f'{figure}\n\n```python\nprint("drawn")\n```\n\n</details>\n\n```text\ndrawn' in page
    assert "<details><summary>The code</summary>\n\n```python\nprint(6 * 7)\n```" in page
    assert "noise\n" not in page
    assert "![A line,\ndrawn.](figures/01_idea.svg)\n\n**Question.**" in page
    figures = sorted(figure.name for figure in (pages / "figures").iterdir())
    assert figures == ["01_idea.svg", "01_tiny_1.png"]
    with Image.open(pages / "figures" / "01_tiny_1.png") as figure:
        assert figure.mode == "P"
        assert 500 < figure.width / render.DENSITY < 6 * 110


def test_a_small_figure_keeps_its_colors_also_where_they_are_rare(nothing_leaks):
    before, file = BytesIO(), BytesIO()
    kgrad.plot_phase_diagram("tanh").savefig(before, dpi=render.DPI)  # with thousands of colors
    file.write(render.small(before.getvalue()))
    with Image.open(before) as large, Image.open(file) as small:
        changed = np.asarray(large.convert("RGB"), int) - np.asarray(small.convert("RGB"), int)
    assert abs(changed).max() <= 10
    assert file.tell() < before.tell() / 3


def test_a_smooth_map_has_no_stripes(nothing_leaks):
    before = BytesIO()
    kgrad.plot_phase_diagram("relu").savefig(before, dpi=render.DPI)
    with Image.open(BytesIO(render.small(before.getvalue()))) as small:
        rows = np.asarray(small.convert("RGB"), float)[400:600, 700:1700]
    changes = np.flatnonzero(np.abs(np.diff(rows.mean(axis=0), axis=0)).max(axis=1) > 0.1)
    assert np.diff(changes).max() <= 18  # pixels of one color side by side; stripes have 30


def test_a_lesson_that_fails_is_named_and_leaves_its_old_page(rendered, tmp_path):
    status, pages, _ = rendered
    assert status == 1
    assert (pages / "02_broken.md").read_text() == "# 2. Broken: as it was\n"
    lesson = tmp_path / "02_broken.py"
    lesson.write_text(BROKEN)
    with pytest.raises(render.LessonError) as failed:
        render.execute(lesson)
    words = str(failed.value)
    assert words.startswith("cell 3 of 4 failed; it begins with 'found = 2'\n")
    assert "assert found == 3" in words
    assert "\x1b" not in words


def test_the_index_is_made_from_the_lessons(rendered):
    _, pages, _ = rendered
    index = (pages / "README.md").read_text(encoding="utf-8")
    assert "old" not in index
    assert (
        "| 1 | [Tiny](01_tiny.md): a lesson for a test | How long is a line? | basic, 1 min"
        in index
    )
    assert "| Euclid, Heath 1482 |\n" in index
    # In the order of the parts.
    assert index.index("## Start here") < index.index("[Broken]") < index.index("## Practice")
    assert "| Nobody et al. 2000 |\n" in index


def test_pages_do_not_show_the_shorter_settings_of_the_tests():
    shown = render.without_short_settings(
        'import os\n\nimport kgrad\n\nFAST = "KGRAD_FAST" in os.environ  # short\n'
        "seeds = range(3 if FAST else 8)\na, b = (1, 2) if FAST else (3, 4 if x else 5)\n"
    )
    assert shown == "import kgrad\n\nseeds = range(8)\na, b = (3, 4 if x else 5)"
    assert render.without_short_settings("os.getcwd()") == "os.getcwd()"


def test_reading_takes_a_minute_per_150_words_or_10_lines():
    picture = "![" + "unseen " * 300 + "](a.svg)"
    text = "# %% [markdown]\n# " + "word " * 300 + picture + "\n\n# %%\n" + "x = 1\n" * 30
    folded = '\n# %% tags=["figure"]\n' + "y = 1\n" * 100
    cells = jupytext.reads(text + folded, "py:percent").cells
    assert render.minutes_to_read(cells) == 5


def test_a_page_is_one_file_with_formulas_as_mathml(rendered):
    _, _, build = rendered
    html = (build / "01_tiny.html").read_text(encoding="utf-8")
    assert "<mi>&#x02113;</mi>" in html or "<mi>ℓ</mi>" in html
    assert html.count("<math") == 3
    assert html.count('display="block"') == 2
    assert 'src="data:image/png;base64,' in html
    assert 'src="data:image/svg+xml;base64,' in html
    assert 'href="02_broken.html"' in html
    assert 'href="../../theory.md#how"' in html
    assert '<a rel="next" href="02_broken.html">2. Broken: as it was</a>' in html
    assert '<a rel="prev" href="index.html">Index</a>' in html


def test_a_formula_that_cannot_be_drawn_is_refused():
    with pytest.raises(render.LessonError, match=r"formula '\\\\nosuch x' has an unknown command"):
        render.as_html("$$\\nosuch x$$", PAGES, PAGES)


def test_a_lesson_that_is_not_there_is_refused(capsys):
    with pytest.raises(SystemExit) as refused:
        render.main(["77"])
    assert refused.value.code == 2
    assert "there is no lesson 77; the lessons are 01," in capsys.readouterr().err


def widths(page):
    return page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )


def test_no_page_scrolls_sideways_on_a_telephone(browser, tmp_path):
    render.write_html(PAGES, tmp_path)
    page = browser.new_page(viewport={"width": 400, "height": 800})
    said = []
    page.on("console", lambda message: said.append(message.text))
    for file in sorted(tmp_path.glob("*.html")):
        page.goto(file.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
        assert widths(page) == [400, 400], file.name
        for formula in page.locator(".math.block").all():  # in whatever font there is
            assert formula.evaluate("one => one.scrollWidth <= 1.1 * one.clientWidth"), file.name
        for figure in page.locator("img").all():
            shown, drawn = figure.evaluate("one => [one.clientWidth, one.naturalWidth]")
            drawn /= render.DENSITY
            # Labels are drawn 15 pixels high, or 18 in a figure of several panels.
            height = 15 if drawn < 700 else 18
            assert height * shown / drawn > 7, file.name
    page.close()
    assert said == []


def test_a_telephone_shows_the_formula_the_figure_and_the_folded_solution(rendered, browser):
    page = browser.new_page(viewport={"width": 400, "height": 800})
    page.goto((rendered[2] / "01_tiny.html").as_uri())
    assert page.locator("math").first.bounding_box()["height"] > 20
    for figure in page.locator("img").all():
        assert 200 < figure.bounding_box()["width"] <= 400
        assert figure.evaluate("one => one.naturalWidth") > 0
    answer, code = page.get_by_text("It is five."), page.get_by_text("42")
    assert not answer.is_visible()
    assert not code.is_visible()
    page.get_by_text("Solution 1").click()
    page.get_by_text("The code", exact=True).click()
    assert answer.is_visible()
    assert code.is_visible()
    page.get_by_text("2. Broken: as it was").click()
    assert page.title() == "2. Broken: as it was"
    page.close()


@each_lesson
def test_a_lesson_is_committed_as_an_executed_notebook_that_installs_first(lesson):
    notebook = nbformat.read(PAGES / f"{lesson.stem}.ipynb", as_version=4)
    nbformat.validate(notebook)
    first, *cells = notebook.cells
    assert first.source == render.INSTALL.rstrip()
    wanted = jupytext.read(lesson).cells
    for cell, asked in zip(cells, wanted, strict=True):
        source = asked.source.replace(render.FROM_LESSON, "](attachment:")
        is_code = asked.cell_type == "code"
        assert cell.source == (render.without_short_settings(source) if is_code else source)
        for name in re.findall(r"\(attachment:([^)]+)\)", cell.source):
            drawing = base64.b64decode(cell.attachments[name]["image/svg+xml"])
            assert drawing == (PAGES / "figures" / name).read_bytes()
    for cell in cells:
        if cell.cell_type == "code":
            assert cell.execution_count
            assert not [one for one in cell.outputs if one.output_type == "error"]
            assert "stderr" not in [one.get("name") for one in cell.outputs]
    figures = re.findall(
        r"\]\(figures/(\S+png)\)", (PAGES / f"{lesson.stem}.md").read_text(encoding="utf-8")
    )
    shown = [
        output
        for cell in cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    for file, output in zip(figures, shown, strict=True):
        png = (PAGES / "figures" / file).read_bytes()
        assert base64.b64decode(output.data["image/png"]) == png
        with Image.open(BytesIO(png)) as figure:
            assert output.metadata["image/png"]["width"] == figure.width // 2  # sharp


def test_an_executed_notebook_runs_again_and_installs_only_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("KGRAD_FAST", "1")
    notebook = nbformat.read(PAGES / "03_vanishing.ipynb", as_version=4)
    for cell in notebook.cells:
        cell.pop("outputs", None)
    kernel = AsyncKernelManager(transport="ipc", connection_file=str(tmp_path / "kernel.json"))
    NotebookClient(
        notebook, km=kernel, timeout=300, resources={"metadata": {"path": tmp_path}}
    ).execute(cleanup_kc=True)
    first, *cells = notebook.cells
    assert first.outputs == []  # kgrad is there
    assert any(
        "image/png" in one.get("data", {}) for cell in cells for one in cell.get("outputs", [])
    )
    # Where it is not, pip is asked for the clone.
    asked = []
    code = TransformerManager().transform_cell(first.source)
    shell = SimpleNamespace(run_line_magic=lambda *line: asked.append(line))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    exec(code, {"get_ipython": lambda: shell})
    assert asked == [("pip", 'install --quiet "{SOURCE}"')]
