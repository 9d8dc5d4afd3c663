"""`icl-theory verify`: the verification table."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from icl_theory.errors import InputError
from icl_theory.progress import ProgressReport
from icl_theory.verification.names import GROUPS, NAMES, nearest

LIST = "\n".join(["\b", "Groups of statements:", *(f"  {name:22} {NAMES[name]}" for name in GROUPS)])


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the last of several comma-separated names: a group, or a statement after its slash."""
    before, comma, last = incomplete.rpartition(",")
    group, slash, _ = last.partition("/")
    known: Sequence[str] = GROUPS
    if slash and group in GROUPS:
        from icl_theory.verification.claims import load_claim

        known = load_claim(group).statements.names
    return [CompletionItem(before + comma + name) for name in known if name.startswith(last)]


@click.command("verify", epilog=LIST)
@click.option(
    "--only",
    metavar="NAMES",
    shell_complete=_complete,
    help="groups or statements, such as dynamics,fixed_points/gain_has_a_short_formula  [default: all]",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="write the table as JSON too")
@click.option("--force", is_flag=True, help="overwrite the JSON file where it exists")
@click.option("--float32/--no-float32", default=True, show_default=True, help="measure in single precision too")
@click.option("--quiet", is_flag=True, help="no progress bars")
def verify_command(only: str | None, json_file: Path | None, force: bool, float32: bool, quiet: bool) -> None:
    """Hold every prediction against its measurement and print the table.

    \b
    Examples:
      icl-theory verify --only fixed_points                     seconds
      icl-theory verify --only dynamics,upsampling --json table.json

    Each statement has a tolerance that stands in the code. All are judged in float64; a further column says which are
    also within tolerance in float32, where both are measured. The exit code is 1 when one does not hold in float64. All
    of it takes about eight minutes on one core; the session's precision is left as it is.
    """
    from icl_theory.verification.claims import load_claim
    from icl_theory.verification.runner import verify
    from icl_theory.verification.table import as_json, print_table

    chosen = _chosen(list(GROUPS) if only is None else [part.strip() for part in only.split(",") if part.strip()])
    claims = [load_claim(name) for name in GROUPS if name in chosen]
    for claim in claims:
        known = claim.statements.names
        for name in chosen[claim.name] - {claim.name, *known}:
            raise InputError("--only", name, f"no such statement; {nearest(name, known)}")
    if json_file is not None:
        _check_writable(json_file, force)
    with ProgressReport(quiet=quiet) as report:
        rows = verify(claims, float32=float32, progress=report)
    wanted = {name for names in chosen.values() for name in names}
    rows = [row for row in rows if wanted & {row.statement.name, row.statement.name.partition("/")[0]}]
    print_table(rows)
    if json_file is not None:
        try:
            json_file.write_text(as_json(rows))
        except OSError as error:
            raise InputError("--json", str(json_file), f"cannot be written ({error.strerror})") from None
        click.echo(f"wrote {json_file}")
    if not all(row.holds for row in rows):
        sys.exit(1)


def _chosen(names: list[str]) -> dict[str, set[str]]:
    """Return the requested names by group; raise `InputError` for an unknown group."""
    if not names:
        raise InputError("--only", "", f"name a group; {nearest('', GROUPS)}")
    chosen: dict[str, set[str]] = {}
    for name in names:
        group = name.partition("/")[0]
        if group not in GROUPS:
            raise InputError("--only", name, f"no such group of statements; {nearest(group, GROUPS)}")
        chosen.setdefault(group, set()).add(name)
    return chosen


def _check_writable(path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise InputError("--json", str(path), "it exists; give another file or add --force")
    if path.is_dir() or not path.parent.is_dir():
        raise InputError("--json", str(path), "give a file in an existing folder")
