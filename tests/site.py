"""The built documentation: every link leads somewhere, and nothing is loaded from elsewhere.

pytest tests/site.py    # make site
"""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

SITE = Path(__file__).parents[1] / "build" / "site"
PAGES = sorted(SITE.rglob("*.html"))
MENTIONED = {"a", "link canonical"}  # these may lead to other sites: nothing is loaded


class Document(HTMLParser):
    """The places in a page that can be linked to, and what the page links to and loads."""

    def __init__(self, path):
        super().__init__()
        self.anchors = {"", "__top"}
        self.links = []  # (element, address)
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.anchors |= {given.get("id"), given.get("name") if tag == "a" else None}
        element = f"{tag} {given.get('rel')}" if tag == "link" else tag
        self.links += [(element, given[one]) for one in ("href", "src") if given.get(one)]


@pytest.fixture(scope="module")
def documents():
    assert len(PAGES) > 40, "run make site"
    return {path: Document(path) for path in PAGES}


def test_every_link_leads_to_a_page_and_a_place_in_it(documents):
    broken = []
    for path, document in documents.items():
        if path.name == "404.html":
            continue  # a server shows it at any address: its links are absolute
        for _, address in document.links:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                broken.append(f"{path.relative_to(SITE)}: {address}")
            elif target in documents and unquote(parts.fragment) not in documents[target].anchors:
                broken.append(f"{path.relative_to(SITE)}: {address} has no such place")
    assert broken == []


def test_nothing_is_loaded_from_elsewhere(documents):
    for path, document in documents.items():
        for element, address in document.links:
            if urlsplit(address).netloc:
                assert element in MENTIONED, f"{path.relative_to(SITE)} loads {address}"


def test_the_gallery_shows_the_picture_before_the_code(documents):
    page = (SITE / "gallery.html").read_text(encoding="utf-8")
    sections = page.split("<h2")[1:-1]
    assert len(sections) == len([*(SITE / "figures" / "gallery").glob("*.png")]) > 0
    assert all(0 < one.index("<img") < one.index("highlight") for one in sections)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_phone_and_search_works_from_files(browser, scheme):
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    page = context.new_page()
    loaded, errors = [], []
    page.on("request", lambda request: loaded.append(request.url))
    page.on("pageerror", lambda error: errors.append(error))
    for path in ("index", "gallery", "api/measure", "lessons/02_chain_rule", "comparison"):
        page.goto((SITE / f"{path}.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")
    page.locator("label.md-header__button[for=__search]").click()
    page.get_by_role("textbox", name="Search").press_sequentially("GradientTracker")
    first = page.locator(".md-search-result__link").first
    first.wait_for()
    assert "/api/measure.html" in first.get_attribute("href")
    assert all(url.startswith(("file:", "data:", "blob:")) for url in loaded)
    assert errors == []
    context.close()
