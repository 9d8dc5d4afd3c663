"""Figures inside a page: an SVG file made small, with ids of its own, and named for those who cannot see it."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

PIXELS_PER_POINT = 4 / 3
DROPPED = re.compile(r"<metadata>.*?</metadata>|<!--.*?-->|<style[^>]*>.*?</style>", re.DOTALL)
PLACES = re.compile(r' (?:d|x|y|width|height)="[^"]*"|translate\([^)]*\)')
LONG = re.compile(r"(\d\.\d\d)\d+")
REFERENCE = re.compile(r'(?:href="#|url\(#)([^")]+)')
ID = re.compile(r' id="([^"]*)"')


def inline(svg: str, name: str, title: str) -> Markup:
    """Return an SVG picture as an element of a page, at its natural width or that of the column.

    Coordinates are cut to a hundredth of a point. Ids are kept where something refers to them, and begin with the name.

    Args:
        svg: text of the file.
        name: name of the figure, unique on the page.
        title: text for those who cannot see it.
    """
    text = DROPPED.sub("", svg[svg.index("<svg") :])
    (box,) = re.findall(r'viewBox="([^"]*)"', text)[:1]
    _, _, width, height = map(float, box.split())
    text = PLACES.sub(lambda found: LONG.sub(r"\1", found[0]), " ".join(text.split()))
    used = set(REFERENCE.findall(text))
    text = ID.sub(lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", text)
    text = text.replace('href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-").replace("> <", "><")
    start = (
        f'<svg role="img" aria-label="{escape(title)}" viewBox="0 0 {width:g} {height:g}" '
        f'style="min-width:{PIXELS_PER_POINT * width:.0f}px">'
    )
    return Markup(start + text.partition(">")[2])
