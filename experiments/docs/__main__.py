"""`python -m experiments.docs` (`make docs`) builds the site in results/docs; a dead link is an error."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import click
from mkdocs.commands.build import build
from mkdocs.config import load_config

from experiments.docs.pages import write_pages
from icl_theory.cli.one_line import run
from icl_theory.errors import InputError

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
THEME_WORKER = "https://unpkg.com/iframe-worker/shim"


@click.command()
@click.option("--check", is_flag=True, help="Build aside, without running the tutorials: only to find dead links.")
def main(check: bool) -> None:
    """Put the pages together, run the tutorials and build the site."""
    if check:
        with tempfile.TemporaryDirectory() as folder:
            _build(Path(folder), run_tutorials=False)
        return
    _build(RESULTS, run_tutorials=True)
    click.echo(f"wrote {RESULTS / 'docs' / 'index.html'}")


def _build(folder: Path, *, run_tutorials: bool) -> None:
    """Build the site in `folder/docs`."""
    source, site = folder / "docs-source", folder / "docs"
    shutil.rmtree(source, ignore_errors=True)
    write_pages(ROOT, source)
    _keep_kernels_apart(folder / "docs-kernels")
    config = load_config(str(ROOT / "mkdocs.yml"), docs_dir=str(source), site_dir=str(site), strict=True)
    config.plugins["mkdocs-jupyter"].config["execute"] = run_tutorials
    build(config)
    _search_offline(site)


def _search_offline(site: Path) -> None:
    """Make the search work for pages opened as files: replace a script that the theme would download by a local one."""
    for page in site.rglob("*.html"):
        text = page.read_text()
        if THEME_WORKER not in text:
            raise InputError("page", str(page), f"the theme no longer asks for {THEME_WORKER}; see how it searches now")
        page.write_text(text.replace(THEME_WORKER, os.path.relpath(site / "worker.js", page.parent)))


def _keep_kernels_apart(folder: Path) -> None:
    """Set up the tutorials' kernels without the user's own start-up files, and let them log errors only."""
    profile = folder / "profile_default"
    profile.mkdir(parents=True, exist_ok=True)
    (profile / "ipython_kernel_config.py").write_text("get_config().IPKernelApp.log_level = 40\n")
    os.environ |= {"IPYTHONDIR": str(folder), "JUPYTER_PLATFORM_DIRS": "1"}


if __name__ == "__main__":
    run(main, "docs")
