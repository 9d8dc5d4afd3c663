"""`icl-theory upsample`: from losses over training to an upsampled fine-tuning set."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa

from icl_theory.errors import InputError, check_number
from icl_theory.finetuning.data_files import DataFile, Scan, copy_unchanged, open_data
from icl_theory.finetuning.loss_record import LossRecord, match_ids
from icl_theory.finetuning.paraphrases import Paraphrases
from icl_theory.finetuning.picture import draw_upsampling, nearest
from icl_theory.finetuning.record_files import load_loss_record
from icl_theory.finetuning.rule import GROUPS, MAX_FACTOR, RULES, Upsampling, group_centres, step_text, upsample
from icl_theory.finetuning.selections import SELECTIONS, check_selection, save_selection
from icl_theory.plotting import save_picture
from icl_theory.progress import ProgressReport
from icl_theory.store import exists, writing

LONGEST = 100.0  # times as long an epoch is taken for a mistake
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
@click.option(
    "--late", default="quantile=0.5", show_default=True, help="who is late: quantile=Q, threshold=S or clusters"
)
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
@click.option("--target", type=float, help="learning-time ratio that is wanted  [default: 1]")
@click.option("--other", type=FILE, help="the other record of the rules match and secant")
@click.option("--tried-factor", type=float, help="factor under which the other record was made (rule secant)")
@click.option("--factor", type=float, help="the factor itself, instead of a rule")
@click.option("--max-factor", type=float, help=f"most that a rule may give  [default: {MAX_FACTOR:g}]")
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
    floor: str,
    rule: str | None,
    other: Path | None,
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

    DATA is JSON lines or Parquet. LOSSES is the loss of each example over training, of any model and any trainer: .npz or
    .zarr (arrays steps, losses, ids), .parquet or .csv (a column id and one for each checkpoint, named by its step; or
    columns step, id, loss). Rows keep their order and fields; copies follow their original. A picture is drawn beside the
    output.

    \b
    Rules, with R the ratio of learning times of late and early examples:
      ratio    factor = R / target
      match    factor = R / R of --other, such as a record under SAM
      secant   corrects --tried-factor by what it did, seen in --other

    \b
    Examples:
      icl-theory upsample train.jsonl losses.parquet
      icl-theory upsample train.jsonl losses.zarr --factor 2 --augment paraphrases.jsonl --out train2.jsonl
      icl-theory upsample train.parquet losses.npz --late clusters --write weights --out weights.npy
    """
    check_number("--seed", seed, minimum=0, integer=True)
    if by_row and id_field is not None:
        raise InputError("--by-row", "given", "--id-field does nothing with it; give one of them")
    if augment is not None and write != "data":
        raise InputError("--augment", str(augment), f"rows are its business; with --write {write} it does nothing")
    data = open_data(data_file)
    out = out or data_file.with_name(_default_name(data_file, write))
    if not dry_run:
        _check_places(data_file, out, write, picture)
    with ProgressReport(quiet=quiet) as report:
        records = {"record": load_loss_record(losses)}
        if floor not in ("zero", "last"):
            records["floor"] = load_loss_record(Path(floor))
        if other is not None:
            records["other"] = load_loss_record(other)
        named = any(record.ids is not None for record in records.values())
        with_ids = not by_row and (named or augment is not None or id_field is not None)
        scan = data.scan(id_field, with_ids=with_ids, progress=lambda done, total: report("reading data", done, total))
        matched = {name: _matched(record, scan) for name, record in records.items()}
        record, ids = matched["record"]
        if "floor" in matched:
            settings["floor"] = matched["floor"][0].losses[-1]
        else:
            settings["floor"] = floor
        if "other" in matched:
            settings["other"] = matched["other"][0]
        found = upsample(record, rule=rule or "ratio", seed=seed, **settings)
        copies = found.copies(seed=seed)
        if write in ("data", "indices"):
            _check_length(found, copies)
        versions = None
        if augment is not None and found.factor > 1:
            versions = Paraphrases(augment, scan, found.chosen)
        for line in summary(record, found, copies, ids):
            click.echo(line)
        if versions is not None:
            click.echo(_line("augmented", _about(versions, copies)))
        if dry_run:
            return
        with ExitStack() as stack:  # the picture first, and in place only if what it shows is written too
            if picture:
                title = f"{data_file.name}: factor {found.factor:.3g} on {_group(found)}; {found.why}"
                figure = _drawn(data, record, found, scan, title)
                for path in _pictures(out):
                    _save(figure, stack.enter_context(writing(path)))
            if write != "data":
                save_selection(out, write, found, copies, scan)
            elif found.factor == 1:
                copy_unchanged(data_file, out)
            else:
                data.write(out, copies, versions, lambda done, total: report("writing", done, total))
    click.echo(_line("wrote", str(out)))
    if picture:
        click.echo(_line("drew", f"{_pictures(out)[0].with_suffix('')}.png and .svg"))


def summary(record: LossRecord, found: Upsampling, copies: np.ndarray, ids: str) -> list[str]:
    """What was found and will be done, a line each."""
    count, late, never = len(copies), int(found.late.sum()), int(np.isinf(found.times).sum())
    steps = f"{len(record.steps)}, steps {step_text(record.steps[0])} to {step_text(record.steps[-1])}"
    lines = [("examples", f"{count}, {ids}"), ("checkpoints", steps)]
    if record.steps[0] > 0:
        lines.append(("", "the first is not before training: what was learned by then is not seen"))
    lines.append(("late", f"{late} ({late / count:.1%}): {found.parted}"))
    learns = found.times > 0
    if late and late < count:
        early_median, late_median = (_median(found.times[group & learns]) for group in (~found.late, found.late))
        lines.append(("learned at", f"early {early_median}, late {late_median} (medians)"))
        bound = "at least " if late_median == "never" else ""
        lines.append(("ratio R", f"{bound}{found.ratio:.3g}" if np.isfinite(found.ratio) else "not measurable"))
    if never:
        lines.append(("never learned", f"{never} ({never / count:.1%}), taken for the last step"))
        lines.append(("", "loss that no model can remove looks the same: see --floor"))
    if not learns.all():
        lines.append(("nothing to lose", f"{int(np.sum(~learns))}, never late"))
    lines.append(("factor", f"{found.factor:.3g}: {found.why}"))
    if found.factor > 1:
        lines.append(("upsampled", f"{int(found.chosen.sum())} {_group(found)}, {count} rows to {copies.sum()}"))
        lines.append(("epoch", f"{copies.sum() / count:.2f} times as long, at the same batch size"))
    else:
        lines.append(("upsampled", "nothing"))
    return [_line(name, text) for name, text in lines]


def _line(name: str, text: str) -> str:
    return f"{name:<16}{text}"


def _group(found: Upsampling) -> str:
    kinds = {"late": "late examples", "random": "examples drawn at random", "early": "early examples"}
    return kinds[found.group] + ("" if found.group == "late" else " (a control)")


def _median(times: np.ndarray) -> str:
    if not len(times):
        return "none"
    middle = float(np.median(times))
    return "never" if np.isinf(middle) else f"step {step_text(middle)}"


def _about(versions: Paraphrases, copies: np.ndarray) -> str:
    lacking = versions.lacking(copies)
    text = f"further copies take turns with paraphrases ({', '.join(versions.fields)})"
    if lacking:
        text += f"; {lacking} of the examples have fewer than copies and repeat what there is"
    if versions.ignored:
        text += f"; no fields of the data, ignored: {', '.join(versions.ignored)}"
    return text


def _check_length(found: Upsampling, copies: np.ndarray) -> None:
    """Refuse a set that is absurdly long."""
    count, chosen = len(copies), int(found.chosen.sum())
    if copies.sum() > LONGEST * count:
        most = int((LONGEST * count - (count - chosen)) / chosen)
        remedy = f"an epoch would be {copies.sum() / count:.0f} times as long; give at most {most}"
        raise InputError("factor", f"{found.factor:g}", remedy)


def _default_name(data_file: Path, write: str) -> str:
    return f"{data_file.stem}-upsampled{data_file.suffix}" if write == "data" else f"{data_file.stem}-{write}.csv"


def _pictures(out: Path) -> list[Path]:
    return [out.with_name(f"{out.stem}-picture{suffix}") for suffix in (".png", ".svg")]


def _check_places(data_file: Path, out: Path, write: str, picture: bool) -> None:
    """Refuse before the work what could not be written after it."""
    if write != "data":
        check_selection(out, write)
    elif out.suffix != data_file.suffix:
        raise InputError("--out", str(out), f"the set keeps the form of DATA; end it in {data_file.suffix}")
    for path in [out, *(_pictures(out) if picture else [])]:
        if exists(path):
            raise InputError("--out", str(path), "it exists; give another or remove it")


def _matched(record: LossRecord, scan: Scan) -> tuple[LossRecord, str]:
    """The record in the order of the data, and how they were matched."""
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


def _save(figure: Any, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # scripts that the font lacks become boxes
        save_picture(figure, path)


def _drawn(data: DataFile, record: LossRecord, found: Upsampling, scan: Scan, title: str) -> Any:
    """The picture, with the typical examples looked up in the data."""
    distance = group_centres(record, found)[1]
    shown = {group: nearest(distance, found.late == group) for group in (False, True)}
    wanted = np.sort(np.concatenate(list(shown.values())))
    rows = dict(zip(wanted.tolist(), data.rows(wanted), strict=True))
    typical = {
        group: [(_named(row, found.times[row], scan), rows[row]) for row in places.tolist()]
        for group, places in shown.items()
    }
    return draw_upsampling(record, found, typical=typical, title=title)


def _named(row: int, time: float, scan: Scan) -> str:
    name = f"row {row}" if scan.ids is None else f"{scan.id_field} {scan.ids[row].as_py()}"
    when = "never learned" if np.isinf(time) else f"learned at step {step_text(time)}" if time else "nothing to learn"
    return f"{name}, {when}"
