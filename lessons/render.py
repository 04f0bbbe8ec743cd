"""Run lessons and write their pages (all: `make lessons`; some: `lessons/render.py 03 07`).

Each lesson runs as a notebook. The results are that notebook, with its outputs and a first cell
that installs kgrad, and a Markdown page with figures, in docs/lessons. Each Markdown page becomes
one HTML file in build/lessons, which opens without a network.
"""

import argparse
import ast
import base64
import itertools
import mimetypes
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from copy import deepcopy
from html import escape
from io import BytesIO
from pathlib import Path

import jupytext
import nbformat
import numpy as np
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from mdit_py_plugins.anchors import anchors_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from PIL import Image
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from scipy.spatial import KDTree

HERE = Path(__file__).parent
ROOT = HERE.parent
LOGGED = re.compile(r"(WARNING: All log messages before|[IWEF]\d{4} \d\d:).*\n?")  # TensorFlow's
TABLE = re.compile(r"(?<=<!-- lessons -->\n).*(?=<!-- end of lessons -->)", re.DOTALL)
INITIALS = r"(?:[A-Z]\.[ -]?)+"
CITED = re.compile(  # matches X. Glorot, Y. Bengio, *Title*, 2010
    rf"((?:{INITIALS}\w+, )*{INITIALS}\w+(?: et al\.)?), (?:\*[^*]+\*, )?(\d{{4}})"
)
FIRST_CELL = re.compile(  # spaces for line breaks
    r"# (\d+)\. (.+?): (.+?) \*\*Part:\*\* (.+?) · \*\*Level:\*\* (\w+).*? "
    r"\*\*Question\.\*\* (.+?)(?: \*\*|$)"
)
PARTS = ("Start here", "What goes wrong", "What helps", "Theory", "Practice")
PICTURE = re.compile(r"!\[[^]]*\]\(\S+\)")
NUMBERED = "[0-9][0-9]_*"
DENSITY = 2  # pixels of a figure per pixel of a page: sharp on a projector and a phone
DPI = 110 * DENSITY
WIDE = 700  # pixels of a page; the labels of wider figures are too small when a phone shrinks them
SECONDS_PER_CELL = 600
# A lesson links a drawing from its own folder, so that Jupyter shows it; its page has it closer by.
FROM_LESSON, FROM_PAGE = "](../docs/lessons/figures/", "](figures/"
# Tags of cells whose code a reader opens on demand.
FOLDED = {"figure": "The code of the figure", "checks": "The checks"}
INSTALL = """\
# kgrad is on no package index: it is installed from the clone that this notebook lies in.
# In Colab, put the repository's address here: "kgrad[tensorflow] @ git+https://…"
SOURCE = "../..[tensorflow]"

import importlib.util

if importlib.util.find_spec("kgrad") is None:
    %pip install --quiet "{SOURCE}"
"""


class LessonError(Exception):
    """A failed cell (error, timeout or dead kernel), or a formula that cannot be converted."""


def execute(lesson: Path) -> NotebookNode:
    """Run the lesson with this Python in an empty folder, and return it with its outputs."""
    notebook = jupytext.read(lesson)
    started: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "matplotlibrc").write_text(f"figure.dpi: {DPI}\n")
        kernel = AsyncKernelManager(
            transport="ipc",  # with TCP, other users of this machine could connect
            connection_file=str(Path(folder, "kernel.json")),
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
        )
        client = NotebookClient(
            notebook,
            km=kernel,
            timeout=SECONDS_PER_CELL,
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
            on_cell_start=lambda cell, cell_index: started.append(cell_index),
        )
        settings = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        for name in ("KGRAD_FAST", "MPLBACKEND"):
            settings.pop(name, None)
        try:
            # The cells' standard error is among the outputs, so the kernel's own is dropped.
            client.execute(env=settings, stderr=subprocess.DEVNULL, cleanup_kc=True)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            code = notebook.cells[started[-1]].source
            why = re.sub(r"\x1b\[[\d;]*m", "", str(error))
            raise LessonError(
                f"cell {started[-1] + 1} of {len(notebook.cells)} failed; it begins with "
                f"{code.splitlines()[0]!r}\n{why}"
            ) from error
    return notebook


def small(png: bytes) -> bytes:
    """Reduce the picture to 256 colors, rare ones included: a third of the bytes.

    In a map in a smooth ramp, neighboring pixels alternate between the two nearest colors: equal
    colors would be stripes.
    """
    picture = Image.open(BytesIO(png)).convert("RGB")
    few = picture.quantize(method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    pixels = picture.width * picture.height
    common = sorted((count for count, _ in picture.getcolors(pixels)), reverse=True)[:256]
    if sum(common) < 0.9 * pixels:
        colors, wanted = np.reshape(few.getpalette(), (-1, 3)), np.asarray(picture, float)
        rows, columns = np.ogrid[: picture.height, : picture.width]
        shift = np.array([[-1.5, 0.5], [1.5, -0.5]])[rows % 2, columns % 2, None]
        shift = np.where((wanted == 255).all(axis=2, keepdims=True), 0, shift)
        nearest = KDTree(colors).query(wanted + shift)[1]
        few = Image.fromarray(nearest.astype(np.uint8))
        few.putpalette(colors.astype(np.uint8).tobytes())
    file = BytesIO()
    few.save(file, "PNG", optimize=True)
    return file.getvalue()


def without_short_settings(source: str) -> str:
    """Return code without the choice between the lesson's settings and the tests' shorter ones."""
    lines = source.splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith("FAST = ")]
    source = "".join(kept)
    while True:
        choices = [
            node
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.IfExp) and ast.unparse(node.test) == "FAST"
        ]
        if not choices:
            return (source if "os." in source else source.replace("import os\n\n", "")).strip("\n")
        source = source.replace(
            ast.get_source_segment(source, choices[0]),
            ast.get_source_segment(source, choices[0].orelse),
        )


def as_notebook(notebook: NotebookNode) -> str:
    """Return the lesson with its outputs as an .ipynb file, with a first cell that installs kgrad.

    Nothing in it depends on when and where it was run, so that equal results are equal files.
    """
    notebook = nbformat.from_dict(deepcopy(notebook))
    notebook.cells.insert(0, nbformat.v4.new_code_cell(INSTALL.rstrip(), execution_count=0))
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata.pop("execution", None)
        if cell.cell_type == "markdown":
            attach_drawings(cell)
        elif number:
            cell.source = without_short_settings(cell.source)
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                png = small(base64.b64decode(output.data["image/png"]))
                output.data["image/png"] = base64.b64encode(png).decode()
                width, height = Image.open(BytesIO(png)).size
                size = {"width": width // DENSITY, "height": height // DENSITY}
                output.metadata["image/png"] = size
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return nbformat.writes(notebook) + "\n"


def attach_drawings(cell: NotebookNode) -> None:
    """Put the drawings that a cell links into the cell, for places such as Colab."""
    for name in re.findall(rf"{re.escape(FROM_LESSON)}([^)]+)\)", cell.source):
        drawing = ROOT / "docs" / "lessons" / "figures" / name
        kind, _ = mimetypes.guess_type(name)
        content = base64.b64encode(drawing.read_bytes()).decode()
        cell.setdefault("attachments", {})[name] = {kind: content}
    cell.source = cell.source.replace(FROM_LESSON, "](attachment:")


def as_markdown(notebook: NotebookNode, name: str) -> tuple[str, dict[str, bytes]]:
    """Return the Markdown page, and its figures by file name."""
    figures: dict[str, bytes] = {}
    parts = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source.replace(FROM_LESSON, FROM_PAGE))
            continue
        tags = cell.metadata.get("tags", [])
        shown = [f"```python\n{without_short_settings(cell.source)}\n```"]
        for tag in FOLDED.keys() & set(tags):
            shown = [f"<details><summary>{FOLDED[tag]}</summary>", *shown, "</details>"]
        for output in cell.outputs:
            if output.get("name") == "stderr":
                if said := LOGGED.sub("", output.text).strip():
                    print(f"{name}: {said}", file=sys.stderr)
            elif "image/png" in output.get("data", {}):
                file = f"{name}_{len(figures) + 1}.png"
                figures[file] = small(base64.b64decode(output.data["image/png"]))
                shown.append(f"![Figure {len(figures)} of lesson {int(name[:2])}](figures/{file})")
            else:
                text = output.text if "text" in output else output.data["text/plain"]
                shown.append(f"```text\n{text.rstrip()}\n```")
        if "solution" in tags:
            shown = ["<details><summary>The code</summary>", *shown, "</details>"]
        parts += shown
    links = (
        f"[All lessons](README.md) · this lesson as [a notebook]({name}.ipynb) and as "
        f"[a script](../../lessons/{name}.py)"
    )
    return "\n\n".join([*parts, "---", links]) + "\n", figures


def write_page(lesson: Path, pages: Path) -> None:
    """Run the lesson and replace its page and figures; if it fails, the old ones stay."""
    for cell in jupytext.read(lesson).cells:
        if cell.cell_type == "markdown":
            # Finds bad formulas and missing drawings before the long run.
            as_html(cell.source.replace(FROM_LESSON, FROM_PAGE), pages, pages)
    notebook = execute(lesson)
    page, figures = as_markdown(notebook, lesson.stem)
    folder = pages / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{lesson.stem}_*.png"):
        old.unlink()
    for file, picture in figures.items():
        (folder / file).write_bytes(picture)
    (pages / f"{lesson.stem}.md").write_text(page, encoding="utf-8")
    (pages / f"{lesson.stem}.ipynb").write_text(as_notebook(notebook), encoding="utf-8")


def table_of_lessons(lessons: list[Path]) -> str:
    """Return the index: a table per part of the course, one row per lesson, from its cells."""
    parts: dict[str, list[str]] = {}
    for lesson in lessons:
        cells = jupytext.read(lesson).cells
        first, source = (" ".join(cells[place].source.split()) for place in (0, -1))
        head = FIRST_CELL.match(first)
        if head is None or (read := CITED.search(source)) is None:
            raise ValueError(
                f"the first cell of {lesson.name} must contain '# number. Name: phrase', "
                "'**Part:** … · **Level:** …' and '**Question.** …', and its last cell a source "
                f"such as 'X. Author, *Title*, 2010'; received {first[:60]!r} and {source[:60]!r}"
            )
        number, name, phrase, part, level, question = head.groups()
        link = f"[{name}]({lesson.stem}.md): {phrase}"
        time = f"{minutes_to_read(cells)} min"
        who = f"{re.sub(INITIALS, '', read.group(1))} {read.group(2)}"
        row = f"| {number} | {link} | {question} | {level}, {time} | {who} |"
        parts.setdefault(part, []).append(row)
    head_rows = ["| | lesson | question | level, reading | source |", "|---|---|---|---|---|"]
    tables = ["\n".join([f"## {part}\n", *head_rows, *parts[part]]) for part in ordered(parts)]
    return "\n\n".join(tables) + "\n"


def ordered(parts: Iterable[str]) -> list[str]:
    """Return the parts in the order of the course."""
    if unknown := set(parts) - set(PARTS):
        raise ValueError(f"parts must be among {', '.join(PARTS)}, received {unknown.pop()!r}")
    return [part for part in PARTS if part in parts]


def minutes_to_read(cells: list[NotebookNode]) -> int:
    """Return the minutes that text and visible code take: 150 words or 10 lines a minute."""
    minutes = 0.0
    for cell in cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "markdown":
            minutes += len(PICTURE.sub("", cell.source).split()) / 150
        elif not {"solution", *FOLDED} & set(tags):
            minutes += len(without_short_settings(cell.source).splitlines()) / 10
    return max(1, round(minutes))


def formula(latex: str, options: dict) -> str:
    """Convert a formula to MathML, in parts between which a narrow page can break the line."""
    display = "block" if options["display_mode"] else "inline"
    parts = re.split(r"\\qquad|(?<=,)\s*\\quad", latex) if display == "block" else [latex]
    mathml = "".join(convert(part.strip(), display=display) for part in parts)
    if "\\" in mathml:
        raise LessonError(f"the formula {latex.strip()!r} has an unknown command")
    return mathml


def colored(code: str, language: str, attributes: str) -> str:
    """Highlight code; mark printed text as columns, which scroll, or as lines, which wrap."""
    if language == "text":
        kind = "columns" if "  " in code else "lines"
        return f'<pre class="printed {kind}"><code>{escape(code)}</code></pre>'
    if not language:
        return ""
    return highlight(code, get_lexer_by_name(language), HtmlFormatter(nowrap=True))


def as_html(text: str, pages: Path, build: Path) -> str:
    """Convert Markdown to HTML with embedded figures and links relative to the build folder."""
    markdown = MarkdownIt("commonmark", {"highlight": colored}).enable("table")
    markdown.use(dollarmath_plugin, renderer=formula, allow_space=False, double_inline=True)
    markdown.use(anchors_plugin, max_level=3)
    tokens = markdown.parse(text)
    for token in itertools.chain.from_iterable(token.children or [] for token in tokens):
        source, target = token.attrGet("src"), token.attrGet("href")
        if source is not None:
            picture = (pages / str(source)).read_bytes()
            kind, _ = mimetypes.guess_type(str(source))
            token.attrSet("src", f"data:{kind};base64,{base64.b64encode(picture).decode()}")
            if kind == "image/png":
                width = Image.open(BytesIO(picture)).width // DENSITY
                token.attrSet("width", str(width))
                if width > WIDE:
                    token.attrSet("class", "wide")
        if target is not None and not re.match(r"#|\w+:", str(target)):
            path, mark, place = str(target).partition("#")
            if "/" not in path and path.endswith(".md"):
                path = page_name(Path(path))
            else:
                path = os.path.relpath(pages / path, build)
            token.attrSet("href", path + mark + place)
    return markdown.renderer.render(tokens, markdown.options, {})


def page_name(markdown: Path) -> str:
    """Return the file name of the page in the build folder."""
    return "index.html" if markdown.stem == "README" else f"{markdown.stem}.html"


def write_html(pages: Path, build: Path) -> None:
    """Write one HTML file per page, with links to the previous and the next page."""
    style = (HERE / "page.css").read_text(encoding="utf-8") + colors()
    numbered = sorted(pages.glob(f"{NUMBERED}.md"))
    files = [pages / "README.md", *numbered, *sorted(pages.glob("[a-z]*.md"))]
    texts = [file.read_text(encoding="utf-8") for file in files]
    titles = [escape(text.partition("\n")[0].removeprefix("# ")) for text in texts]
    build.mkdir(parents=True, exist_ok=True)
    for old in build.glob("*.html"):
        old.unlink()
    for place, (file, text) in enumerate(zip(files, texts, strict=True)):
        links = [
            f'<a rel="{relation}" href="{page_name(files[other])}">{titles[other]}</a>'
            for relation, other in (("prev", place - 1), ("next", place + 1))
            if 0 <= other < len(files)
        ]
        html = f"""<!DOCTYPE html>
<html lang="en-US">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{titles[place]}</title>
<style>
{style}</style>
{"" if file.stem == "README" else '<nav><a href="index.html">All lessons</a></nav>'}
<main>
{as_html(text, pages, build)}</main>
<nav>{"".join(links)}</nav>
</html>
"""
        (build / page_name(file)).write_text(html, encoding="utf-8")


def colors() -> str:
    """Return the style sheet for code, in light and in dark mode."""
    light = HtmlFormatter(style="default").get_style_defs("pre")
    dark = HtmlFormatter(style="github-dark").get_style_defs("pre")
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n"


def choose(lessons: Path, numbers: list[str]) -> list[Path]:
    """Return the lessons with these numbers, or all lessons if there are no numbers."""
    known = {path.name[:2]: path for path in sorted(lessons.glob(f"{NUMBERED}.py"))}
    wanted = [number.zfill(2) for number in numbers] or list(known)
    for number in wanted:
        if number not in known:
            raise ValueError(f"there is no lesson {number}; the lessons are {', '.join(known)}")
    return [known[number] for number in wanted]


def render(chosen: list[Path], pages: Path) -> bool:
    """Write the pages of these lessons, print the time of each, and return whether all ran."""
    complete = True
    for lesson in chosen:
        start = time.monotonic()
        try:
            write_page(lesson, pages)
        except LessonError as error:
            print(f"{lesson.name}: {error}", file=sys.stderr)
            complete = False
        else:
            print(f"{lesson.stem}: {time.monotonic() - start:.0f} s", flush=True)
    return complete


def main(
    arguments: list[str] | None = None,
    lessons: Path = HERE,
    pages: Path = ROOT / "docs" / "lessons",
    build: Path = ROOT / "build" / "lessons",
) -> int:
    """Write the pages, and return the exit status: 1 if a lesson failed, otherwise 0."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("lesson", nargs="*", help="lesson numbers, such as 03 (default: all)")
    parser.add_argument(
        "--pages", action="store_true", help="run no lesson; only write index and HTML pages"
    )
    options = parser.parse_args(arguments)
    start = time.monotonic()
    try:
        table = table_of_lessons(choose(lessons, []))
        chosen = [] if options.pages else choose(lessons, options.lesson)
    except ValueError as error:
        parser.error(str(error))
    complete = render(chosen, pages)
    index = pages / "README.md"
    index.write_text(
        TABLE.sub(lambda _: "\n" + table + "\n", index.read_text(encoding="utf-8")),
        encoding="utf-8",
    )
    write_html(pages, build)
    print(f"{len(chosen)} lessons in {time.monotonic() - start:.0f} s; see {build}/index.html")
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
