"""Self-contained HTML pages: nothing from a file becomes markup, nothing is fetched, gaps in the data do no harm."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from simplepose.reports.page import Html, Page, Picture, bar_plot, line_plot, thumbnail

NASTY = '"><script>alert(1)</script>\ud800'  # a name from a file, with half of a character


class Elements(HTMLParser):
    """Every start tag with its attributes, and all text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    def named(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_with(text: str) -> Page:
    page = Page(text, text)
    page.section(text, text)
    page.heading(text)
    page.items([text])
    page.table([text], [[text]], caption=text)
    page.plots(line_plot(text, {text: ([0, 1], [0, 1])}, text, text), bar_plot(text, [text], {text: [1]}, text))
    page.gallery(
        [Picture(np.zeros((4, 4, 3), np.uint8), text, [text]), Picture(np.zeros((4, 4, 3), np.uint8), "", "b")]
    )
    return page


def test_text_is_never_markup(tmp_path):
    page_with(NASTY).write(tmp_path / "page.html")
    elements = Elements((tmp_path / "page.html").read_text(encoding="utf-8"))
    plain = Elements(page_with("plain").html())
    assert [tag for tag, _ in elements.tags] == [tag for tag, _ in plain.tags]
    assert len(elements.named("script")) == 1  # the page's own
    assert "<b>" in Page(Html("<b>bold</b>")).html()


def test_nothing_is_fetched():
    elements = Elements(page_with("plain").html())
    (policy,) = [meta["content"] for meta in elements.named("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'; img-src data:;")
    for _, attributes in elements.tags:
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/"))


def test_a_thumbnail_is_the_image_made_smaller():
    image = np.zeros((300, 600, 3), np.uint8)
    image[:, 300:] = (0, 0, 255)
    attributes = Elements(thumbnail(image, "two halves", side=60)).named("img")[0]
    assert (attributes["width"], attributes["height"], attributes["alt"]) == ("60", "30", "two halves")
    data = np.frombuffer(base64.b64decode(attributes["src"].partition(",")[2]), np.uint8)
    shown = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert shown.shape == (30, 60, 3)
    assert shown[15, 10].max() < 20 and shown[15, 50].tolist()[2] > 235
    assert 'width="1"' in thumbnail(np.zeros((1000, 1, 3), np.uint8), "", side=10)


def test_a_gallery_has_a_button_for_each_tag():
    page = Page("page")
    image = np.zeros((4, 4, 3), np.uint8)
    page.gallery(Picture(image, str(n), tags) for n, tags in enumerate([("a", "a"), ("a", "b"), ()]))
    text = page.html()
    assert re.findall(r'data-tag="(\w*)">([^<]*)<', text) == [("", "all (3)"), ("a", "a (2)"), ("b", "b (1)")]
    for few in ((), [Picture(image, "alone", ["a"])]):
        page = Page("page")
        page.gallery(few)
        assert "<button" not in page.html()


def test_cells_show_numbers_as_numbers():
    page = Page("page")
    page.table(["a"], [[1234567, 0.125, np.float64("nan"), None, np.int64(3), "x"]], digits=2)
    cells = re.findall(r"<td(?: class=\"number\")?>(.*?)</td>", page.html())
    assert cells == ["1234567", "0.12", "–", "–", "3", "x"]


def test_a_line_is_interrupted_where_it_has_no_value():
    plot = line_plot("t", {"a": ([0, 1, 2, 3], [0, np.nan, 5, 10]), "b": ([], [])}, "x", "y")
    (path,) = re.findall(r'class="line c0" d="([^"]*)"', plot)
    assert re.fullmatch(r"M[\d.]+ [\d.]+ M[\d.]+ [\d.]+ L[\d.]+ [\d.]+", path)


def test_bars_are_as_long_as_their_values():
    plot = bar_plot("t", ["one", "two"], {"a": [1, 3], "b": [2, np.nan]}, stacked=True)
    widths = [float(width) for width in re.findall(r'width="([\d.]+)" height', plot)]
    assert widths[1] == pytest.approx(2 * widths[0], abs=0.2) and widths[2] == pytest.approx(3 * widths[0], abs=0.2)
    assert widths[3] == 0
    for empty in (bar_plot("t", [], {"a": []}), bar_plot("t", ["one"], {"a": [np.nan]}), line_plot("t", {}, "x", "y")):
        assert "nan" not in empty


@pytest.mark.parametrize("values", [(0, 0), (5, 5), (-3, -3), (1e-9, 2e-9), (-1e6, 1e6), (0.1, 0.7)])
def test_axes_hold_all_values(values):
    plot = line_plot("t", {"a": ([0, 1], list(values))}, "x", "y")
    (path,) = re.findall(r'class="line c0" d="([^"]*)"', plot)
    heights = [float(pair[1]) for pair in re.findall(r"([\d.-]+) ([\d.-]+)", path)]
    assert all(12 <= y <= 316.05 for y in heights)
