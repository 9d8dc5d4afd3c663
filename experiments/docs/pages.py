"""Sources of the site: pages of the repository with rewritten links, and a reference page for each stage."""

from __future__ import annotations

import posixpath
import re
import shutil
from pathlib import Path

import jupytext

from experiments.docs.typesetting import typeset

PAGES = {  # page of the repository: page of the site
    "README.md": "index.md",
    "icl_theory/upsampling/GUIDE.md": "guides/upsampling.md",
    "icl_theory/llm/GUIDE.md": "guides/language_models.md",
    "icl_theory/sweeps/GUIDE.md": "guides/sweeps.md",
    "icl_theory/moments/GUIDE.md": "guides/moments.md",
    "icl_theory/simulation/ZSLS25.md": "guides/zsls25.md",
    "icl_theory/theory/NOTES.md": "theory/notes.md",
    "icl_theory/theory/FORMULAS.md": "theory/formulas.md",
    "icl_theory/verification/RESULTS.md": "results/verification.md",
    "experiments/language_models/RESULTS.md": "results/language_models.md",
    "experiments/language_models/PROTOCOL.md": "results/protocol.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
FILES = {".github/overview.png": "overview.png", "CITATION.cff": "CITATION.cff"}
FILES |= {f"experiments/docs/{name}": name for name in ("style.css", "worker.js")}
TUTORIALS = "experiments/tutorial"
CARD_ROW = re.compile(r"^\|.*\|\n", re.MULTILINE)
STAGES = (
    *("tasks", "models", "moments", "training", "analysis", "theory"),
    *("upsampling", "simulation", "sweeps", "verification", "llm"),
)


def write_pages(root: Path, source: Path) -> None:
    """Write all sources of the site.

    Args:
        root: root folder of the repository.
        source: folder to write the sources into.
    """
    for origin, target in PAGES.items():
        text = turned((root / origin).read_text(), origin, target)
        if target == "theory/formulas.md":
            text = CARD_ROW.sub(card_of, text)
        _write(source / target, typeset(text) if target.startswith("theory/") else text)
    for origin, target in FILES.items():
        (source / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / origin, source / target)
    for path in sorted((root / TUTORIALS).glob("*.py")):
        if path.stem != "__init__":
            notebook = path.with_suffix(".ipynb").name
            _write(source / "tutorials" / notebook, jupytext.writes(jupytext.read(path), fmt="ipynb"))
            title, rest = path.read_text().removeprefix("# %% [markdown]\n").split("\n", 1)
            linked = f"# %% [markdown]\n{title}\n#\n# [Download as a notebook]({notebook})\n#\n{rest}"
            _write(source / "tutorials" / path.name, linked)
    for stage in STAGES:
        _write(source / "reference" / f"{stage}.md", _reference(root, stage))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def turned(text: str, origin: str, target: str) -> str:
    """Return a page whose links to pages of the repository now lead to those of the site."""
    known = PAGES | FILES | {TUTORIALS: "tutorials/step1_prompt.py"}

    def turn(match: re.Match[str]) -> str:
        link, _, anchor = match[1].partition("#")
        place = posixpath.normpath(posixpath.join(posixpath.dirname(origin), link))
        if link.startswith("http") or not link or place not in known:
            return match[0]
        link = posixpath.relpath(known[place], posixpath.dirname(target) or ".")
        return f"]({link}{'#' + anchor if anchor else ''})"

    return re.sub(r"\]\(([^)\s]+)\)", turn, text)


def card_of(match: re.Match[str]) -> str:
    """Return a row of the table of formulas as a card, which fits a narrow page too; its code is linked."""
    cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", match[0])[1:-1]]
    if cells[0] == "formula" or set(cells[0]) <= set("-: "):
        return ""
    formula, says, code, *held = cells
    code = re.sub(r"`((?:" + "|".join(STAGES) + r")\.[\w.]+)`", r"[`\1`][icl_theory.\1]", code)
    named = zip(("code", "statements", "test", "figure"), (code, *held), strict=True)
    about = "<br>".join(f"{name}: {text}" for name, text in named if text)
    return f'\n<div class="card" markdown>\n\n{formula}<br>{says}\n\n{about}\n{{: .about }}\n\n</div>\n'


def _reference(root: Path, stage: str) -> str:
    """Return the reference page of one stage: modules with public names first, in the order of `__init__.pyi`."""
    package = root / "icl_theory"
    public = re.findall(rf"from \.({stage}\.[\w.]+) import", (package / "__init__.pyi").read_text())
    modules = [path.relative_to(package).with_suffix("") for path in sorted((package / stage).rglob("*.py"))]
    inner = [".".join(path.parts) for path in modules if path.stem not in ("__init__", "huggingface")]
    names = [f"icl_theory.{name}" for name in dict.fromkeys((*public, *inner))]
    return "\n".join([f"# {stage}", "", *(f"::: {name}\n" for name in names)])
