"""`python -m experiments.docs` (`make docs`) builds the site in results/docs; a dead link is an error."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import click
from mkdocs.commands.build import build
from mkdocs.config import load_config

from experiments.docs.pages import write_pages
from icl_theory.cli.one_line import run
from icl_theory.errors import InputError

ROOT = Path(__file__).parents[2]
SITE = ROOT / "results" / "docs"
SOURCE, KERNELS = ROOT / "results" / "docs-source", ROOT / "results" / "docs-kernels"
THEME_WORKER = "https://unpkg.com/iframe-worker/shim"


@click.command()
def main() -> None:
    """Put the pages together, run the tutorials and build the site."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    write_pages(ROOT, SOURCE)
    _keep_kernels_apart()
    config = load_config(str(ROOT / "mkdocs.yml"), docs_dir=str(SOURCE), site_dir=str(SITE), strict=True)
    build(config)
    _search_offline()
    click.echo(f"wrote {SITE / 'index.html'}")


def _search_offline() -> None:
    """Make the search work for pages opened as files: replace a script that the theme would download by a local one."""
    for page in SITE.rglob("*.html"):
        text = page.read_text()
        if THEME_WORKER not in text:
            raise InputError("page", str(page), f"the theme no longer asks for {THEME_WORKER}; see how it searches now")
        page.write_text(text.replace(THEME_WORKER, os.path.relpath(SITE / "worker.js", page.parent)))


def _keep_kernels_apart() -> None:
    """Set up the tutorials' kernels without the user's own start-up files, and let them log errors only."""
    profile = KERNELS / "profile_default"
    profile.mkdir(parents=True, exist_ok=True)
    (profile / "ipython_kernel_config.py").write_text("get_config().IPKernelApp.log_level = 40\n")
    os.environ |= {"IPYTHONDIR": str(KERNELS), "JUPYTER_PLATFORM_DIRS": "1"}


if __name__ == "__main__":
    run(main, "docs")
