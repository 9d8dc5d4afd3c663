"""`icl-theory upsample`: from losses over training to an upsampled fine-tuning set."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa

from icl_theory.errors import InputError, check_number
from icl_theory.progress import ProgressReport
from icl_theory.results import exists, writing
from icl_theory.upsampling import GROUPS
from icl_theory.upsampling.data_file import Scan, check_form, check_outside, form_of
from icl_theory.upsampling.data_files import copy_unchanged, open_data
from icl_theory.upsampling.loss_record import LossRecord, match_ids
from icl_theory.upsampling.noise_scale import load_noise_scale
from icl_theory.upsampling.optimizer_rule import OPTIMIZERS, check_optimizer
from icl_theory.upsampling.paraphrases import Paraphrases
from icl_theory.upsampling.picture import save_upsampling_picture, with_examples
from icl_theory.upsampling.record_files import load_loss_record
from icl_theory.upsampling.rule import Upsampling, upsample
from icl_theory.upsampling.selections import SELECTIONS, check_selection, save_selection
from icl_theory.upsampling.settings import MAX_FACTOR, RECIPES, RULES, SMALL_SOURCES, check_settings
from icl_theory.upsampling.sources import read_sources
from icl_theory.upsampling.summary import beside_the_rule, group_text, line, summary

LONGEST = 100.0  # an epoch that is this many times as long counts as a mistake
SELECTING = ("late", "first", "small_sources", "remaining", "group")  # settings that need no file to be checked
FILE: Any = click.Path(path_type=Path)


@click.command("upsample")
@click.argument("data_file", metavar="DATA", type=FILE)
@click.argument("losses", metavar="LOSSES", type=FILE)
@click.option(
    "--out",
    type=FILE,
    help="what to write  [default: DATA-upsampled in the form of DATA, or DATA-weights.csv and so on]",
)
@click.option("--write", type=click.Choice(("data", *SELECTIONS)), default="data", show_default=True, help="what of it")
@click.option("--recipe", type=click.Choice(tuple(RECIPES)), help="settings as published, see below")
@click.option(
    "--late", help="who is late: quantile=Q, threshold=S, clusters or ratio-clusters  [default: quantile=0.5]"
)
@click.option("--first", type=int, help="cluster by so many checkpoints, from the first  [default: all]")
@click.option("--by", metavar="FIELD", help="cluster within each source, which this field of DATA names")
@click.option(
    "--small-sources",
    type=click.Choice(SMALL_SOURCES),
    help="with --by: sources smaller than the average are late as a whole, or clustered  [default: late]",
)
@click.option("--gaps", is_flag=True, help="accept losses that are NaN or infinite, as missing: the loss as unchanged")
@click.option(
    "--remaining", default=0.5, show_default=True, help="learned when this share of an example's first loss is left"
)
@click.option(
    "--floor",
    default="zero",
    show_default=True,
    help="loss that stays whatever is learned: zero, last, or a record whose last checkpoint it is",
)
@click.option("--rule", type=click.Choice(RULES), help="how the factor comes about  [default: ratio]")
@click.option("--target", type=float, help="learning-time ratio that is wanted  [default: 1; excess needs one above 1]")
@click.option("--other", type=FILE, help="the other record of the rules match and secant")
@click.option("--tried-factor", type=float, help="factor under which the other record was made (rule secant)")
@click.option("--factor", type=float, help="the factor itself, instead of a rule")
@click.option("--max-factor", type=float, help=f"most that a rule may give  [default: {MAX_FACTOR:g}]")
@click.option("--optimizer", type=click.Choice(OPTIMIZERS), help="find the factor by the law of this optimizer")
@click.option("--batch-size", type=int, help="rows of a step, on which the law of adamw depends")
@click.option("--noise-scale", type=FILE, help="noise.npz of a measured model  [default: groups that share no feature]")
@click.option("--group", type=click.Choice(GROUPS), default="late", show_default=True, help="late, or a control")
@click.option("--augment", type=FILE, help="table of paraphrases by example id, used instead of copies")
@click.option("--id-field", help="field of DATA that holds the ids of LOSSES  [default: id, else the row, from 0]")
@click.option("--by-row", is_flag=True, help="take the ids of LOSSES for rows of DATA, though DATA has ids")
@click.option("--seed", default=0, show_default=True, help="draws who takes the rounding, and the random control")
@click.option("--picture/--no-picture", default=True, show_default=True, help="draw beside the output what was found")
@click.option("--dry-run", is_flag=True, help="say what would be done; write nothing")
@click.option("--quiet", is_flag=True, help="no progress bars")
def upsample_command(
    data_file: Path,
    losses: Path,
    out: Path | None,
    write: str,
    recipe: str | None,
    late: str | None,
    by: str | None,
    gaps: bool,
    floor: str,
    rule: str | None,
    other: Path | None,
    noise_scale: Path | None,
    augment: Path | None,
    id_field: str | None,
    by_row: bool,
    seed: int,
    picture: bool,
    dry_run: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Find the examples of DATA that are learned late by LOSSES, and write DATA with them upsampled.

    DATA is JSON lines (.jsonl), a JSON array (.json), a table with a header (.csv, .tsv), each also compressed (.gz), a
    .parquet file, or a folder of such. LOSSES is the loss of each example over training, of any model and any trainer:
    .npz or .zarr (arrays steps, losses, ids), .parquet or .csv (a column id and one for each checkpoint, named by its
    step; or columns step, id, loss). Rows keep their order and fields; copies follow their original. A picture is drawn
    beside the output.

    \b
    Rules, with R the ratio of learning times of late and early examples:
      ratio    factor = R / target
      excess   factor = (R − 1) / (target − 1): the late begin when the early are learned, by the same units
      match    factor = R / R of --other, such as a record under SAM
      secant   corrects --tried-factor by what it did, seen in --other
    With --optimizer sgd, ratio is as above. Under adamw a factor acts through the noise of batches, and through what
    late and early examples share, which --noise-scale knows: the command finds it by that law, or says that none lowers
    R and what to do instead. LOSSES has to come from a run with this optimizer and batch size.

    \b
    Recipes:
      vattheuer2025   --late ratio-clusters --by source --small-sources late --factor 2 --gaps; of these, only
                      --by, --small-sources and --factor may be given beside it, and --first

    \b
    Examples:
      icl-theory upsample train.jsonl losses.parquet
      icl-theory upsample train.jsonl losses.zarr --factor 2 --augment paraphrases.jsonl --out train2.jsonl
      icl-theory upsample train.jsonl losses.zarr --optimizer adamw --batch-size 64
      icl-theory upsample train.parquet losses.npz --late clusters --write weights --out weights.npy
    """
    check_number("--seed", seed, minimum=0, integer=True)
    if by_row and id_field is not None:
        raise InputError("--by-row", "given", "--id-field does nothing with it; give one of them")
    if augment is not None and write != "data":
        raise InputError("--augment", str(augment), f"rows are its business; with --write {write} it does nothing")
    if recipe is not None:
        if late is not None:
            raise InputError("--late", late, f"the recipe {recipe} says who is late; give one of them")
        gaps, by = True, by or "source"
        settings |= {name: value for name, value in RECIPES[recipe].items() if settings.get(name) is None}
    settings = {"late": "quantile=0.5" if late is None else late} | settings
    check_settings(**{name: value for name, value in settings.items() if name in SELECTING}, by=by)
    law = (settings["optimizer"], settings["batch_size"], noise_scale)
    check_optimizer(*law, rule=rule or "ratio", factor=settings["factor"])
    data = open_data(data_file)
    out = out or _default_out(data_file, write)
    if not dry_run:
        _check_places(data_file, out, write, picture)
    with ProgressReport(quiet=quiet) as report:
        records = {"record": load_loss_record(losses, gaps=gaps)}
        if floor not in ("zero", "last"):
            records["floor"] = load_loss_record(Path(floor), gaps=gaps)
        if other is not None:
            records["other"] = load_loss_record(other, gaps=gaps)
        named = any(record.ids is not None for record in records.values())
        with_ids = not by_row and (named or augment is not None or id_field is not None)
        settings["noise"] = None if noise_scale is None else load_noise_scale(noise_scale)
        scan = data.scan(id_field, with_ids=with_ids, progress=lambda done, total: report("reading data", done, total))
        matched = {name: _matched(record, scan) for name, record in records.items()}
        record, ids = matched["record"]
        if "floor" in matched:
            settings["floor"] = matched["floor"][0].losses[-1]
        else:
            settings["floor"] = floor
        if "other" in matched:
            settings["other"] = matched["other"][0]
        if by is not None:
            settings["by"] = read_sources(data, by, scan, lambda done, total: report("reading sources", done, total))
        found = upsample(record, rule=rule or "ratio", seed=seed, **settings)
        copies = found.copies(seed=seed)
        if write in ("data", "indices"):
            _check_length(found, copies)
        versions = None
        if augment is not None and found.factor > 1:
            versions = Paraphrases(augment, scan, found.chosen)
        for text in summary(record, found, copies, ids):
            click.echo(text)
        if settings["late"] == "ratio-clusters":
            for text in beside_the_rule(record, found):
                click.echo(text)
        if versions is not None:
            click.echo(line("augmented", _about(versions, copies)))
        if dry_run:
            return
        with ExitStack() as stack:  # the picture is drawn first, but appears only once the output is written
            if picture:
                title = f"{data_file.name}: factor {found.factor:.3g} on {group_text(found)}; {found.why}"
                figure = with_examples(record, found, rows_of=data.rows, name_of=_named(scan), title=title)
                for path in _pictures(out):
                    save_upsampling_picture(figure, stack.enter_context(writing(path)))
            if write != "data":
                save_selection(out, write, found, copies, scan)
            elif found.factor == 1:
                copy_unchanged(data, out)
            else:
                data.write(out, copies, versions, lambda done, total: report("writing", done, total))
    click.echo(line("wrote", str(out)))
    if picture:
        click.echo(line("drew", f"{_pictures(out)[0].with_suffix('')}.png and .svg"))


def _about(versions: Paraphrases, copies: np.ndarray) -> str:
    lacking = versions.lacking(copies)
    text = f"further copies take turns with paraphrases ({', '.join(versions.fields)})"
    if lacking:
        text += f"; {lacking} of the examples have fewer than copies and repeat what there is"
    if versions.ignored:
        text += f"; no fields of the data, ignored: {', '.join(versions.ignored)}"
    return text


def _check_length(found: Upsampling, copies: np.ndarray) -> None:
    """Raise `InputError` if the upsampled set is absurdly long."""
    count, chosen = len(copies), int(found.chosen.sum())
    if copies.sum() > LONGEST * count:
        most = int((LONGEST * count - (count - chosen)) / chosen)
        remedy = f"an epoch would be {copies.sum() / count:.0f} times as long; give at most {most}"
        raise InputError("factor", f"{found.factor:g}", remedy)


def _default_out(data_file: Path, write: str) -> Path:
    path = data_file if data_file.name not in ("", "..") else data_file.resolve()
    form = form_of(path)
    name = path.name.removesuffix(form)
    return path.with_name(f"{name}-upsampled{form}" if write == "data" else f"{name}-{write}.csv")


def _pictures(out: Path) -> list[Path]:
    name = out.name.removesuffix(form_of(out) or out.suffix)
    return [out.with_name(f"{name}-picture{suffix}") for suffix in (".png", ".svg")]


def _check_places(data_file: Path, out: Path, write: str, picture: bool) -> None:
    """Raise `InputError` before the work if the output could not be written after it."""
    if write != "data":
        check_selection(out, write)
    else:
        check_form(data_file, out)
    check_outside(data_file, out)
    for path in [out, *(_pictures(out) if picture else [])]:
        if exists(path):
            raise InputError("--out", str(path), "it exists; give another or remove it")


def _matched(record: LossRecord, scan: Scan) -> tuple[LossRecord, str]:
    """Return the record in the order of the data, and in words how they were matched."""
    if record.ids is None:
        if record.num_examples != scan.num_rows:
            remedy = f"the data have {scan.num_rows} rows; a record without ids needs one loss for each, in their order"
            raise InputError("loss record", f"{record.num_examples} examples", remedy)
        return record, "losses in the order of the rows"
    if scan.ids is None:
        rows = pa.array(map(str, range(scan.num_rows)), pa.large_string())
        return record.arranged(match_ids(record, rows, where="row (from 0)")), "ids of the losses are rows of the data"
    where = f"field {scan.id_field}"
    return record.arranged(match_ids(record, scan.ids, where=where)), f"matched by {where}"


def _named(scan: Scan) -> Callable[[int], str]:
    return lambda row: f"row {row}" if scan.ids is None else f"{scan.id_field} {scan.ids[row].as_py()}"
