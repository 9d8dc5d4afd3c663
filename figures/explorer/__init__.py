"""Interactive explorer of the theory: one self-contained piece of a page, without network and libraries.

`python -m figures.explorer OUT.html` writes it as a page of its own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from figures.explorer.generalisation import curves

if TYPE_CHECKING:
    import xarray as xr

FOLDER = Path(__file__).parent
SCRIPTS = ("theory.js", "simulation.js", "words.js", "drawing.js", "explorer.js")


def fragment(data: xr.Dataset | None = None) -> str:
    """Return the explorer as HTML that can stand inside another page.

    All styles are those of its root element's class, all scripts are in one closure. It is dark where the page around
    it has a dark `color-scheme`.

    Args:
        data: saved data of the claim `generalisation`. Without them the comparison of held-out losses is left out.
    """
    parts, scripts, mount = [_read("explorer.html")], [_read(name) for name in SCRIPTS], "mount(root);"
    if data is not None:
        parts.append(_read("generalisation.html"))
        scripts.append(_read("generalisation.js"))
        numbers = json.dumps(curves(data), separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
        mount += f"\nmountGeneralisation(root, {numbers});"
    code = "\n".join(scripts)
    return (
        f'<section class="icl-explorer" aria-label="Explorer">\n<style>\n{_read("explorer.css")}</style>\n'
        f"{''.join(parts)}"
        '<script>\n(() => {\n"use strict";\nconst root = document.currentScript.parentElement;\n'
        f"{code}\n{mount}\n}})();\n</script>\n</section>\n"
    )


def page(data: xr.Dataset | None = None) -> str:
    """Return the explorer as a page of its own."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<title>icl_theory: explorer</title>\n'
        "<style>body { max-width: 1240px; margin: 0 auto; padding: 8px 16px 40px; font-family: system-ui, sans-serif; }"
        "</style>\n</head>\n<body>\n<h1>What is learned first: gradient descent, SAM, and upsampled data</h1>\n"
        f"{fragment(data)}</body>\n</html>\n"
    )


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")
