"""Loss records as files, `.npz`, `.zarr`, `.parquet` or `.csv`; Zarr can also be written checkpoint by checkpoint.

.npz, .zarr     arrays `steps` (T,), `losses` (T, P) and, if wanted, `ids` (P,)
.parquet, .csv  a row for each example: column `id` (if wanted), and one column for each checkpoint, named by its step;
                or a row for each loss: columns `step`, `id`, `loss`, in any order of rows
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import zarr

from icl_theory.errors import InputError
from icl_theory.results import exists, writing
from icl_theory.upsampling.loss_record import LossRecord, id_array
from icl_theory.upsampling.record_tables import Arrays, plain_ids, read_csv, read_parquet, write_csv, write_parquet

SUFFIXES = (".npz", ".zarr", ".parquet", ".csv")
UNWRITTEN = np.nan  # step of a checkpoint whose losses are still being written


def load_loss_record(path: str | Path, *, gaps: bool = False) -> LossRecord:
    """Read a loss record, of the format that the suffix says.

    Args:
        path: Path of the record.
        gaps: Accept losses that are NaN or infinite, as `LossRecord` does.

    Raises:
        InputError: There is no such file, its format is another or it is damaged, arrays or columns are missing, or
            `LossRecord` refuses them.
    """
    path = Path(path)
    reader = _by_suffix(path, {".npz": _read_npz, ".zarr": _read_zarr, ".parquet": read_parquet, ".csv": read_csv})
    if not exists(path):
        raise InputError("loss record", str(path), "there is no such file")
    try:
        return LossRecord(*reader(path), gaps=gaps)
    except InputError as error:
        raise InputError(f"loss record {path}, {error.field}", error.value, error.remedy) from None
    except (OSError, ValueError, KeyError, EOFError, pa.ArrowException) as error:
        reason = str(error).strip("'").splitlines()[0] if str(error) else type(error).__name__
        raise InputError("loss record", str(path), f"cannot be read ({reason})") from None


def save_loss_record(record: LossRecord, path: str | Path) -> None:
    """Write a loss record in the format that the suffix says, completely or not at all.

    Raises:
        InputError: The file exists, cannot be written, or has another suffix.
    """
    path = Path(path)
    writer: Callable[[LossRecord, Path], None] = _by_suffix(
        path, {".npz": _write_npz, ".zarr": _write_zarr, ".parquet": write_parquet, ".csv": write_csv}
    )
    with writing(path) as partial:
        writer(record, partial)


class LossRecorder:
    """Write a record checkpoint by checkpoint; each is complete on disk when `add` returns.

    An existing record is continued: a training run that resumes from an earlier step overwrites what follows. A run
    that starts anew needs a record of its own. Read it at any time with `load_loss_record`, or with xarray or zarr.

    Args:
        path: Path of a new or an earlier record, ending in `.zarr`.
        ids: Whole numbers or texts, (P,). None names examples by their row in the data.

    Raises:
        InputError: The suffix is another, or the folder is not a record or has other ids.
    """

    def __init__(self, path: str | Path, ids: Any = None):
        self.path = Path(path)
        check_growing(self.path)
        self.ids = None if ids is None else id_array("ids", ids)
        self._group: Any = None
        if exists(self.path) and _is_empty(self.path):  # stopped before its first checkpoint was complete
            shutil.rmtree(self.path)
        if exists(self.path):
            record = load_loss_record(self.path)
            same = record.ids is None if self.ids is None else self.ids.equals(record.ids)
            if not same:
                raise InputError("path", str(path), "it holds losses of other examples; give another")
            self._group = zarr.open_group(self.path, mode="r+")

    @property
    def num_checkpoints(self) -> int:
        """The number of complete checkpoints."""
        return 0 if self._group is None else int(np.sum(np.isfinite(self._group["steps"][:])))

    def add(self, step: float, losses: Any) -> None:
        """Add the losses at one step, (P,), replacing existing ones of this step and later ones.

        Raises:
            InputError: `LossRecord` refuses the losses, their number has changed, the step would replace all of several
                checkpoints, or the record cannot be written.
        """
        losses = np.asarray(losses)
        LossRecord([step], losses.reshape(1, -1), self.ids)
        losses = losses.astype(np.float32)
        try:
            if self._group is None:
                with writing(self.path) as partial:
                    _new_group(partial, len(losses), self.ids)
                self._group = zarr.open_group(self.path, mode="r+")
            self._write(step, losses)
        except OSError as error:
            raise InputError("path", str(self.path), f"cannot be written ({error.strerror or error})") from error

    def _write(self, step: float, losses: np.ndarray) -> None:
        steps, rows = self._group["steps"], self._group["losses"]
        if rows.shape[1] != len(losses):
            raise InputError("losses", f"{len(losses)} of them", f"the record holds {rows.shape[1]} examples")
        known = steps[:]
        count = int(np.sum(known < step))  # an unwritten step is NaN, so not below
        if not count and np.sum(np.isfinite(known)) > 1:
            raise InputError(
                "path", str(self.path), f"step {step:g} would replace all of it; give another, or remove it"
            )
        steps[count:] = UNWRITTEN
        for array in (steps, rows):
            array.resize((count, *array.shape[1:]))
        rows.resize((count + 1, rows.shape[1]))
        rows[count] = losses
        steps.resize((count + 1,))
        steps[count] = step  # written last: a checkpoint with a step is complete


def check_growing(path: Path) -> None:
    """Raise `InputError` unless a record at this path can be written checkpoint by checkpoint."""
    if path.suffix != ".zarr":
        raise InputError("path", str(path), "a record that grows is a Zarr folder; end it in .zarr")


def _is_empty(path: Path) -> bool:
    """Return True for a record without a complete checkpoint."""
    try:
        steps: Any = np.asarray(zarr.open_group(path, mode="r")["steps"])
    except Exception:  # not a record; zarr raises errors of many kinds
        return False
    return not np.isfinite(steps).any()


def _by_suffix(path: Path, forms: dict[str, Callable[..., Any]]) -> Callable[..., Any]:
    if path.suffix not in forms:
        raise InputError("loss record", str(path), "give a file that ends in " + ", ".join(forms))
    return forms[path.suffix]


def _read_npz(path: Path) -> Arrays:
    try:
        stored = np.load(path, allow_pickle=False)
    except Exception as error:  # zipfile's and numpy's own
        raise ValueError(str(error)) from None
    if not isinstance(stored, np.lib.npyio.NpzFile):
        raise InputError("file", path.name, "it is a single array; save steps= and losses= with numpy.savez")
    with stored:
        return _arrays(stored, set(stored.files))


def _arrays(stored: Any, names: set[str]) -> Arrays:
    missing = {"steps", "losses"} - names
    if missing:
        raise InputError("arrays", ", ".join(sorted(names)), f"{' and '.join(sorted(missing))} missing")
    try:
        return stored["steps"][:], stored["losses"][:], stored["ids"][:] if "ids" in names else None
    except ValueError as error:
        if "pickle" in str(error):
            raise InputError("ids", "Python objects", "save them as np.array(ids, dtype=str)") from None
        raise


def _write_npz(record: LossRecord, path: Path) -> None:
    ids: dict[str, Any] = {} if record.ids is None else {"ids": plain_ids(record.ids)}
    with path.open("wb") as file:
        np.savez(file, steps=record.steps, losses=record.stored, **ids)


def _read_zarr(path: Path) -> Arrays:
    try:
        group = zarr.open_group(path, mode="r")
        steps, losses, ids = _arrays(group, set(group.array_keys()))
    except (InputError, OSError):
        raise
    except Exception as error:  # zarr's and its codecs' own
        raise ValueError(str(error) or type(error).__name__) from None
    count = int(np.argmax(np.isnan(np.append(steps, UNWRITTEN))))  # checkpoints before one that is being written
    if not count:
        raise InputError("steps", "empty", "no checkpoint is complete yet")
    return steps[:count], losses[:count], ids


def _write_zarr(record: LossRecord, path: Path) -> None:
    group = _new_group(path, record.num_examples, record.ids, record.losses.dtype)
    for name, values in (("losses", record.stored), ("steps", record.steps)):
        array = group[name]
        array.resize(values.shape)
        array[:] = values


def _new_group(path: Path, num_examples: int, ids: pa.Array | None, dtype: Any = np.float32) -> Any:
    """Create an empty record with one chunk per checkpoint, in Zarr format 2, whose texts other tools can read."""
    group = zarr.open_group(path, mode="w", zarr_format=2)
    _new_array(group, "steps", (0,), np.dtype(float), (1024,), ["checkpoint"])
    _new_array(group, "losses", (0, num_examples), np.dtype(dtype), (1, num_examples), ["checkpoint", "example"])
    if ids is not None:
        values = plain_ids(ids)
        _new_array(group, "ids", values.shape, values.dtype, values.shape, ["example"])[:] = values
    return group


def _new_array(
    group: Any, name: str, shape: tuple[int, ...], dtype: Any, chunks: tuple[int, ...], dimensions: list[str]
) -> Any:
    fill = UNWRITTEN if dtype.kind == "f" else None
    array = group.create_array(name, shape=shape, dtype=dtype, chunks=chunks, fill_value=fill)
    array.attrs["_ARRAY_DIMENSIONS"] = dimensions
    return array
