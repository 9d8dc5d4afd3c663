"""`icl-theory verify`: the verification table."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from icl_theory.errors import InputError
from icl_theory.progress import ProgressReport
from icl_theory.verification import CLAIMS, verify
from icl_theory.verification.table import as_json, print_table

CLAIM_LIST = "\n".join(["\b", "Claims:", *(f"  {claim.letter}  {claim.title}" for claim in CLAIMS)])


@click.command("verify", epilog=CLAIM_LIST)
@click.option("--only", help="letters of the claims to run, such as A,C  [default: all]")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="write the table as JSON too")
@click.option("--force", is_flag=True, help="overwrite the JSON file where it exists")
@click.option("--float32/--no-float32", default=True, show_default=True, help="measure in single precision too")
@click.option("--quiet", is_flag=True, help="no progress bars")
def verify_command(only: str | None, json_file: Path | None, force: bool, float32: bool, quiet: bool) -> None:
    """Hold every prediction against its measurement and print the table.

    Each statement has a tolerance that stands in the code. They are judged in float64; a last column says which are
    also within tolerance in float32 (claims from F on are measured in float64 alone). The exit code is 1 when one does not
    hold in float64. Takes about eight minutes on two cores; the session's precision is left as it is.
    """
    letters = [claim.letter for claim in CLAIMS] if only is None else [part.strip().upper() for part in only.split(",")]
    for letter in letters:
        if letter not in {claim.letter for claim in CLAIMS}:
            raise InputError("--only", letter, "give letters out of " + ", ".join(claim.letter for claim in CLAIMS))
    if json_file is not None:
        _check_writable(json_file, force)
    with ProgressReport(quiet=quiet) as report:
        rows = verify([claim for claim in CLAIMS if claim.letter in letters], float32=float32, progress=report)
    print_table(rows)
    if json_file is not None:
        try:
            json_file.write_text(as_json(rows))
        except OSError as error:
            raise InputError("--json", str(json_file), f"cannot be written ({error.strerror})") from None
        click.echo(f"wrote {json_file}")
    if not all(row.holds for row in rows):
        sys.exit(1)


def _check_writable(path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise InputError("--json", str(path), "it exists; give another file or add --force")
    if path.is_dir() or not path.parent.is_dir():
        raise InputError("--json", str(path), "give a file in an existing folder")
