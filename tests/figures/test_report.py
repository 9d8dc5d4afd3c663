"""The report without a browser: what it says follows from the numbers, its links lead somewhere, all can read it."""

import dataclasses
import math
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from report_material import (
    LATE_END,
    LATE_HALF,
    LATE_RATIO,
    MERGED,
    ROWS,
    SAM_HALF,
    SAM_RATIO,
    SAM_STEPS,
    drawing,
    made,
    numbers,
)

from figures import FIGURES
from figures.report import material, pages
from figures.report.svg import inline
from icl_theory.errors import InputError
from icl_theory.verification import Row, load_claim

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
STUDIES = (ROOT / "experiments" / "language_models" / "RESULTS.md").read_text()
LARGEST = 5e6  # bytes of the page
FIGURE = 120_000  # bytes of an SVG, at most


class Page(HTMLParser):
    """What a page holds: tags with attributes in order, and the text of each element that has an id."""

    def __init__(self, text):
        super().__init__()
        self.text, self.tags = text, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def all(self, *names):
        return [(tag, attrs) for tag, attrs in self.tags if tag in names]

    @property
    def ids(self):
        return [attrs["id"] for _, attrs in self.tags if "id" in attrs]

    @property
    def links(self):
        return [attrs["href"] for _, attrs in self.all("a")]


@pytest.fixture(scope="module")
def texts():
    return pages.pages(made())


@pytest.fixture(scope="module")
def site(texts):
    return {name: Page(text) for name, text in texts.items()}


def table_rows(text):
    """The cells of the verdict table, as text: claim, verdict, size, why."""
    table = text.partition('id="verdicts"')[2].partition("</table>")[0]
    rows = re.findall(r"<tr.*?</tr>", table, re.DOTALL)[1:]
    return [[re.sub(r"<.*?>", "", cell) for cell in re.findall(r"<t[hd] .*?</t[hd]>", row, re.DOTALL)] for row in rows]


def test_the_page_can_be_read_alone(site):
    page = site["index.html"]
    assert not page.all("link", "img", "iframe", "object")
    assert not any("src" in attrs for _, attrs in page.tags)
    assert "@import" not in page.text
    for target in re.findall(r"url\(([^)]*)\)", page.text):
        assert target.startswith("#")


def test_the_page_can_be_sent():
    """With every figure as large as a figure may be."""
    assert len(pages.pages(made(size=FIGURE))["index.html"].encode()) < LARGEST


def test_every_figure_is_there_once_with_its_finding(site):
    pictures = [attrs for _, attrs in site["index.html"].all("svg") if attrs.get("role") == "img"]
    assert [one["aria-label"] for one in pictures] == [spec.title for spec in material.page_order()]
    assert sorted(spec.name for spec in material.page_order()) == sorted(FIGURES)


def test_every_figure_says_how_it_was_made(texts):
    figures = re.findall(r'<figure id="figure-(\w+)">(.*?)</figure>', texts["index.html"], re.DOTALL)
    assert {name for name, _ in figures} == set(FIGURES)
    for name, figure in figures:
        spec = FIGURES[name]
        assert spec.command in figure
        assert "0.0+abc" in figure
        assert spec.saved in figure
        assert not (spec.saved and re.search(r"measured once\W*Drawing", re.sub("<.*?>", "", figure))), name
        for source in spec.reads:
            assert f"{load_claim(source).command}</code>, 2 s" in figure


def test_pages_are_in_order_for_those_who_hear_them(site):
    for name, page in site.items():
        assert page.tags[0] == ("html", {"lang": "en"})
        levels = [int(tag[1]) for tag, _ in page.all("h1", "h2", "h3", "h4")]
        assert levels[0] == 1, name
        assert levels.count(1) == 1, name
        assert all(after - before <= 1 for before, after in pairwise(levels)), name
        assert page.links[0] == "#content"


def test_tables_that_do_not_wrap_scroll_by_themselves(texts):
    for text in texts.values():
        for kind in ("cards gains", "comparison"):
            tables = text.count(f'<table class="{kind}"')
            assert len(re.findall(rf'<div class="scroll"[^>]*>\s*<table class="{kind}"', text)) == tables


def test_every_other_figure_has_a_heading_and_a_sentence(texts):
    assert set(pages.HEADINGS) == {spec.name for spec in material.page_order()[len(material.LEAD) + 1 :]}
    for article in re.findall(r"<article>(.*?)</article>", texts["index.html"], re.DOTALL):
        assert re.match(r"\s*<h3>.*?</h3>\s*<p>\w", article)


def test_sections_are_in_the_order_of_the_story(site):
    sections = [attrs["id"] for _, attrs in site["index.html"].all("section") if "id" in attrs]
    claims = [f"claim-{letter}" for letter in "abcd"]
    assert sections == ["verdicts", "hero", "words", *claims, "explorer", "more", "details"]


def test_ids_are_unique_and_links_lead_somewhere(site):
    files = {f"figures/{name}.{suffix}" for name in FIGURES for suffix in ("png", "svg", "pdf")} | {"verification.json"}
    for name, page in site.items():
        assert len(page.ids) == len(set(page.ids)), name
        for link in page.links:
            target, _, place = link.partition("#")
            if link.startswith("https://") or link in files:
                continue
            assert (target or name) in site, f"{name}: {link}"
            assert not place or place in site[target or name].ids, f"{name}: {link}"
        references = re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', page.text)
        assert set(references) <= set(page.ids)


def test_every_statement_has_its_row_and_the_story_leads_to_many(site):
    assert {row.statement.name for row in ROWS} <= set(site["statements.html"].ids)
    cited = {link.partition("#")[2] for link in site["index.html"].links if link.startswith("statements.html#")}
    assert len(cited) > 100


@pytest.mark.parametrize(
    ("row", "name", "label"),
    [
        (0, SAM_RATIO, "t2/t1"),
        (0, MERGED, "merged: progress"),
        (1, SAM_HALF, "held-out loss"),
        (1, SAM_STEPS, ";"),
        (2, LATE_RATIO, "t3/t1"),
        (2, LATE_HALF, "held-out loss"),
        (2, LATE_END, ";"),
    ],
)
def test_sizes_are_the_exponentials_of_what_was_measured(texts, row, name, label):
    (statement,) = (row.statement for row in ROWS if row.statement.name == name)
    size = table_rows(texts["index.html"])[row][2]
    expected = [math.exp(value) for value in (statement.measured, *statement.interval)]
    for found in re.findall(rf"{label}\s*×\s*([\d.]+) \(([\d.]+) to ([\d.]+)\)", size):
        errors = [abs(float(text) - exact) * 10 ** (len(text) - 2) for text, exact in zip(found, expected, strict=True)]
        if max(errors) <= 0.5:
            return
    pytest.fail(f"{size}: not {expected}")


def test_gains_are_those_of_the_results_on_language_models(texts):
    size = table_rows(texts["index.html"])[3][2].replace("\xa0", " ")
    (small,) = re.findall(r"^\| late × κ \| (.*?) \| (.*?) \| .*± .*\|$", STUDIES, re.MULTILINE)[:1]
    words = re.findall(r"^\| late × κ \| .*? \| .*? \| (.*?) \| (.*?) \|$", STUDIES, re.MULTILINE)[1]
    shown = re.findall(r"([+−]?\d\.\d\d) ± (\d\.\d\d)", size)
    assert len(shown) == 4
    for pair, cell in zip(shown, (*small, *words), strict=True):
        for text, exact in zip(pair, numbers(cell.replace("±", "")), strict=True):
            assert abs(numbers(text)[0] - exact) <= 0.0056


def test_the_readme_has_the_same_numbers_and_verdicts(texts):
    rows = re.findall(r"^\| \*\*([A-D])\*\* (.*?) \| (.*?) \| (.*?) \|", README, re.MULTILINE)
    for (letter, claim, verdict, size), cells in zip(rows, table_rows(texts["index.html"]), strict=True):
        page_claim, page_verdict, page_size, _ = (" ".join(cell.split()) for cell in cells)
        assert page_claim == f"{letter} {claim}"
        if letter != "D":  # there the README says more
            assert page_verdict.endswith(verdict.removeprefix("Hardly. "))
        parts = [re.findall(r"[+−]?\d\.\d+", part) for part in size.split(";")]
        for said, part in zip(parts, page_size.split(";"), strict=True):
            found = re.findall(r"[+−]?\d\.\d+", part)
            assert len(said) in (2, len(found)) or letter == "A"
            for one, other in zip(said, found, strict=False):
                assert abs(numbers(one)[0] - numbers(other)[0]) <= 0.5 * 10.0 ** -len(one.partition(".")[2])


def test_a_statement_that_fails_is_marked_and_named_above():
    rows = [
        Row(dataclasses.replace(row.statement, error=1.0)) if row.statement.name == SAM_HALF else row for row in ROWS
    ]
    text = pages.pages(made(rows))["index.html"]
    alarm = text.partition('class="alarm"')[2].partition("</p>")[0]
    assert alarm.startswith(">1 statement does not hold: ")
    assert f"statements.html#{SAM_HALF}" in alarm
    mark = rf'<a class="no" href="statements.html#{SAM_HALF}" [^>]*aria-label="does not hold: [^>]*>✗</a>'
    assert re.search(mark, text)
    assert not re.search(r'<a class="no" href="statements', pages.pages(made())["index.html"])


def test_a_drawing_becomes_small_and_keeps_its_ids_to_itself():
    svg = drawing(2000)
    text = inline(svg, "one", 'a < b "c"')
    assert len(text) < 0.8 * len(svg)
    assert re.findall(r' id="([^"]*)"', text) == ["one-m1", "one-p1"]
    assert 'clip-path="url(#one-p1)"' in text
    assert 'xlink:href="#one-m1"' in text
    assert "style>" not in text
    assert 'aria-label="a &lt; b &#34;c&#34;"' in text
    assert "min-width:653px" in text  # 6.8 inches: text of 7 pt is 9 px high


def test_a_figure_that_is_not_drawn_is_named(tmp_path):
    with pytest.raises(InputError, match="python -m figures overview"):
        material._picture(FIGURES["overview"], 1, tmp_path)


def luminance(colour):
    channels = [int(colour[1:][i * len(colour[1:]) // 3 :][: len(colour[1:]) // 3], 16) for i in range(3)]
    channels = [c / 15 if len(colour) == 4 else c / 255 for c in channels]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def test_text_can_be_read_by_day_and_by_night():
    """Contrast of 4.5 and more, as WCAG counts it."""
    themes = re.findall(r":root \{(.*?)\}", (pages.TEMPLATES / "style.css").read_text(), re.DOTALL)
    assert len(themes) == 2
    for theme in themes:
        colours = dict(re.findall(r"--([\w-]+): (#\w+)", theme))
        pairs = [(ink, paper) for ink in ("ink", "quiet", "link") for paper in ("paper", "soft")]
        pairs += [(ink, f"{ink}-soft") for ink in ("good", "mixed", "slight", "bad")]
        pairs += [(ink, "paper") for ink in ("good", "mixed", "bad")]
        for pair in pairs:
            light, dark = sorted((luminance(colours[name]) for name in pair), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, pair
