"""MkDocs' hooks for the site: pages made of other files, links to them, formulas without scripts.

The pages of docs/ are written to be read on their own, with links to the files of the repository.
"""

import re
import runpy
import sys
from html import unescape
from os.path import normpath, relpath
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "lessons"))
from render import formula  # noqa: E402  LaTeX as MathML, as in the lessons' own pages

# File of the repository → page of the site. Files in docs/ keep their path below docs/.
PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}
SCRIPTS = [
    str(path.relative_to(ROOT))
    for folder in ("examples", "lessons")
    for path in sorted((ROOT / folder).glob("*.py"))
]
LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=[)#])")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\s*\\[(\[](.*?)\\[)\]]\s*</\1>', re.DOTALL)

reference = runpy.run_path(str(ROOT / "docs" / "reference.py"), run_name="reference")
# Page of the API → its title and the objects that it documents.
API = {
    f"api/{room}.md": (title, [f"kgrad.{name}" for name in sorted(reference["names"]()[room])])
    for room, title in reference["GROUPS"].items()
}
API["api/figures.md"][1].remove("kgrad.interactive")
API["api/interactive.md"] = ("Interactive figures", ["kgrad.figures.interactive"])
API["api/theory.md"] = ("Theory", ["kgrad.theory"])
API["api/experiments_module.md"] = ("Experiments", ["kgrad.experiments"])


def on_config(config: MkDocsConfig) -> None:
    """Put the lessons and the pages of the API into the navigation."""
    sections = {name: pages for section in config.nav for name, pages in section.items()}
    lessons = sorted((ROOT / "docs" / "lessons").glob("[0-9]*.md"))
    sections["Course"][1:1] = [
        *(f"lessons/{path.name}" for path in lessons),
        "lessons/glossary.md",
        "lessons/teaching.md",
    ]
    sections["Reference"] += [{title: page} for page, (title, _) in API.items()]


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages and scripts that are not in docs/."""
    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    for script in SCRIPTS:
        files.append(File.generated(config, script, abs_src_path=str(ROOT / script)))
    for page, (title, names) in API.items():
        text = "\n\n".join([f"# {title}", *(f"::: {name}" for name in names)])
        files.append(File.generated(config, page, content=text))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at pages of the site, and let Markdown be read inside <details>."""
    here = page.file.src_uri
    source = {there: file for file, there in PAGES.items()}.get(here, f"docs/{here}")

    def on_site(match: re.Match[str]) -> str:
        target = normpath(PurePosixPath(source).parent / match[1])
        there = PAGES.get(target, target.removeprefix("docs/"))
        if files.get_file_from_path(there) is None:
            return match[1]  # MkDocs warns of it
        return relpath(there, PurePosixPath(here).parent)

    markdown = LINK.sub(on_site, markdown)
    if page.parent is None:
        page.meta["hide"] = ["navigation"]  # it would list this page alone
    if here in API:
        page.meta["search"] = {"boost": 3}  # a name leads to its own entry first
    if here == "reference.md":
        markdown = re.sub(r"(?<=^\| )`(\w+)`", linked, markdown, flags=re.MULTILINE)
    return markdown.replace("<details>", '<details markdown="1">')


def linked(match: re.Match[str]) -> str:
    """Return a name of the reference with a link to its entry in the API, if it has one."""
    for page, (_, names) in API.items():
        if f"kgrad.{match[1]}" in names:
            return f"[{match[0]}]({page}#kgrad.{match[1]})"
    return match[0]


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace formulas by MathML, which browsers draw without a script."""
    return FORMULA.sub(
        lambda match: formula(unescape(match[2]), {"display_mode": match[1] == "div"}), html
    )


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> None:
    """Name the lessons in the navigation by number and subject alone."""
    for page in nav.pages:
        if re.match(r"lessons/\d", page.file.src_uri):
            first = Path(page.file.abs_src_path).read_text(encoding="utf-8").partition("\n")[0]
            page.title = first.removeprefix("# ").partition(":")[0]
