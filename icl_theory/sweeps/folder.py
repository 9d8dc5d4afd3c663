"""A sweep on disk: a Zarr group that `xarray.open_zarr` opens, with a receipt for every complete unit of work.

A unit's chunks are written and flushed first. Then its receipt with their digests is moved into place in one step. A
unit without a receipt, or whose chunks do not match it, is incomplete and is run again. Nothing else is changed.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tempfile
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from icl_theory.environment import commit, machine
from icl_theory.errors import InputError
from icl_theory.results import digest, first_difference
from icl_theory.sweeps.plan import Plan, Unit
from icl_theory.training.run import snapshot_schedule

OWN = ".sweep"  # folder for files that are not part of the data set
ABOUT, LOCK = "sweep.json", "lock"
ATTRIBUTES = {".zattrs": (), ".zmetadata": ("metadata", ".zattrs")}  # files, and keys to the attributes in them


class SweepFolder:
    """An existing folder of a sweep.

    Attributes:
        path: The path of the folder.
        about: What `create` wrote: description, code, pieces, and an id unique to the folder.
    """

    def __init__(self, path: Path):
        """Open the folder; raise `InputError` if it holds no sweep or a damaged one."""
        self.path = path
        if not (path / OWN).is_dir():
            raise InputError("folder", str(path), "it holds no sweep; give another")
        try:
            self.about = json.loads((path / OWN / ABOUT).read_text())
            _ = self.about["description"], self.about["code"], self.about["pieces"], self.about["id"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise damaged(path, error) from None

    @classmethod
    def create(cls, path: Path, plan: Plan, code: str) -> SweepFolder:
        """Create the folder of a sweep without any runs in one step, or open it if another process has just made it."""
        partial = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
            _write_empty(partial, plan, code)
            partial.chmod(0o755)
            os.replace(partial, path)
        except OSError as error:
            if not (path / OWN).is_dir():
                raise cannot_write(path, error) from error
        finally:
            if partial is not None and partial.exists():
                shutil.rmtree(partial, ignore_errors=True)
        return cls(path)

    def check_same(self, description: Mapping[str, Any], code: str) -> None:
        """Raise `InputError` if another sweep was begun here, naming what differs."""
        remedy = "give another --out, or --force to set it aside and start over"
        if self.about["code"] != code:
            here = f"it was begun with icl_theory {self.about['code']}, this is {code}"
            raise InputError("folder", str(self.path), f"{here}; {remedy}")
        difference = first_difference(self.about["description"], description)
        if difference:
            raise InputError("folder", str(self.path), f"it holds another sweep ({difference}); {remedy}")

    def check_intact(self, plan: Plan) -> None:
        """Raise `InputError` if the metadata of the data set are damaged; chunks are not checked."""
        try:
            group = zarr.open_group(self.path, mode="r", use_consolidated=False)
            arrays: Any = {name: group[name] for name in plan.sweep.variables}
            shapes = {name: array.shape[: len(plan.chunks)] for name, array in arrays.items()}
            if set(shapes.values()) != {plan.sweep.shape}:
                raise ValueError("shapes")
            for name in ATTRIBUTES:
                json.loads((self.path / name).read_text())
        except Exception as error:
            raise damaged(self.path, error) from error

    def is_complete(self, unit: Unit) -> bool:
        """Return True if the unit has a receipt and its chunks are as they were written."""
        receipt = self.receipt(unit)
        if receipt is None:
            return False
        try:
            return all(digest(self.path / name) == known for name, known in receipt["files"].items())
        except OSError:
            return False

    def receipt(self, unit: Unit) -> dict[str, Any] | None:
        """Return the receipt of a unit (files, seconds and device), or None if there is none that can be read."""
        try:
            found = json.loads(self._receipt_path(unit).read_text())
            return found if isinstance(found["files"], dict) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, unit: Unit, plan: Plan, values: Mapping[str, np.ndarray], seconds: float) -> None:
        """Save the runs of a unit.

        Args:
            unit: The unit.
            plan: The plan of the whole sweep.
            values: The values of each variable, runs of the unit first, with the last axis of the sweep fastest.
            seconds: The time that the runs took.

        Raises:
            InputError: The disk is full or not writable, or another sweep has taken the folder's place. Other complete
                units stay.
        """
        self._check_own()
        with zarr.config.set({"array.write_empty_chunks": True}):  # a chunk of NaN is a result too
            group = zarr.open_group(self.path, mode="r+", use_consolidated=False)
            arrays: dict[str, Any] = {name: group[name] for name in plan.sweep.variables}
        lengths = tuple(len(part) for part in unit.indices)
        files: dict[str, str] = {}
        try:
            self._receipt_path(unit).unlink(missing_ok=True)
            for name, variable in plan.sweep.variables.items():
                array = arrays[name]
                block = np.full((*lengths, *array.shape[len(lengths) :]), array.fill_value, array.dtype)
                if name in values:
                    found = values[name].reshape(*lengths, *values[name].shape[1:])
                    filled: Any = (..., *(slice(0, size) for size in found.shape[len(lengths) :]))
                    block[filled] = found
                for place, region, chunk in _blocks(unit, plan.chunks):
                    path = self.path / name / ".".join(map(str, (*chunk, *[0] * len(variable.dims))))
                    path.unlink(missing_ok=True)  # a damaged one would be read if the unit does not fill its chunk
                    array[region] = block[place]
                    _flush(path)
                    files[path.relative_to(self.path).as_posix()] = digest(path)
            receipt = {"files": files, "seconds": round(seconds, 3), "device": machine()["device"]}
            write_text(self._receipt_path(unit), json.dumps(receipt))
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def note(self, **new: Any) -> None:
        """Set entries of the record in the attributes of the data set, replacing each file in one step."""
        try:
            for name, at in ATTRIBUTES.items():
                content = json.loads((self.path / name).read_text())
                attributes = content
                for key in at:
                    attributes = attributes[key]
                record = record_name(self.about["id"])
                updated = json.dumps(json.loads(attributes.get(record, "{}")) | new, ensure_ascii=False)
                if attributes.get(record) != updated:
                    attributes[record] = updated
                    write_text(self.path / name, json.dumps(content, indent=2))
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def _check_own(self) -> None:
        try:
            found = json.loads((self.path / OWN / ABOUT).read_text())["id"]
        except (OSError, ValueError, KeyError):
            found = None
        if found != self.about["id"]:
            remedy = "another sweep has taken its place, so nothing more is written; run this one with another --out"
            raise InputError("folder", str(self.path), remedy)

    def _receipt_path(self, unit: Unit) -> Path:
        return self.path / OWN / f"unit-{unit.number:06d}.json"


def open_sweep(path: Path | str) -> xr.Dataset:
    """Open the data set of a sweep lazily: swept dimensions, variables with units, a record in the attributes.

    The record is JSON, with settings, axes, versions and machine, under a name that is the sweep's own (`sweep_` and
    eight digits). Data sets of several sweeps are combined by `xarray.combine_by_coords` and keep all records.

    It equals `xarray.open_zarr(path)`, with errors that say what to do.

    Raises:
        InputError: There is no such folder, or it holds no sweep or a damaged one.
    """
    folder = SweepFolder(Path(path))
    try:
        return xr.open_zarr(folder.path)
    except Exception as error:
        raise damaged(folder.path, error) from error


def record_name(identity: str) -> str:
    """Return the attribute that holds the record of a sweep: settings, axes, versions, commit, device and seconds.

    No two sweeps share the name, so combining their data sets keeps both records.
    """
    return f"sweep_{identity[:8]}"


def damaged(path: Path, error: BaseException) -> InputError:
    """Return the error for a folder whose metadata cannot be read."""
    remedy = "run the sweep with --force, which sets it aside and starts over"
    return InputError("folder", str(path), f"it is damaged ({type(error).__name__}); {remedy}")


def cannot_write(path: Path, error: OSError) -> InputError:
    """Return the error for a full disk or a folder that cannot be written."""
    reason = error.strerror or str(error)
    remedy = "what is complete is kept; free space or give another, and the same command goes on"
    return InputError("folder", str(path), f"cannot be written ({reason}); {remedy}")


def write_text(path: Path, text: str) -> None:
    """Write a file in one step; it is on disk when this returns."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text)
        _flush(partial)
        os.replace(partial, path)
        _flush(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def _write_empty(path: Path, plan: Plan, code: str) -> None:
    sweep = plan.sweep
    description = sweep.description
    configs = sweep.facts.corners
    dim = max(config.dim for config in configs)
    schedule = snapshot_schedule(configs[0].num_steps, configs[0].num_snapshots)
    lengths = {"feature": dim, "snapshot": len(schedule)}
    coordinates: dict[str, Any] = {
        name: (along, np.asarray(labels)) for name, (along, labels) in sweep.coordinates.items()
    }
    about = {"long_name": "feature, 1 = simplest (largest drive)"}
    coordinates["feature"] = ("feature", np.arange(1, dim + 1), about)
    if sweep.curves:
        coordinates["step"] = ("snapshot", schedule, {"long_name": "training step"})
        if "learning_rate" not in coordinates:
            time_axis = configs[0].learning_rate * schedule
            coordinates["time"] = ("snapshot", time_axis, {"long_name": "learning rate * step"})
    identity = uuid.uuid4().hex
    made = {"code": code, "commit": commit(), "created": time.strftime("%Y-%m-%d %H:%M:%S")}
    record = description | made | machine() | {"seconds": 0.0, "complete": False}
    attributes = {
        "title": "icl_theory sweep over " + ", ".join(axis.name for axis in sweep.axes),
        record_name(identity): json.dumps(record, ensure_ascii=False),
    }
    xr.Dataset(coords=coordinates, attrs=attributes).to_zarr(path, zarr_format=2, consolidated=False)
    group = zarr.open_group(path, mode="r+")
    for name, variable in sweep.variables.items():
        extra = tuple(lengths[along] for along in variable.dims)
        dims = [*(axis.name for axis in sweep.axes), *variable.dims]
        group.create_array(
            name,
            shape=(*sweep.shape, *extra),
            chunks=(*plan.chunks, *extra),
            dtype=np.float64,
            fill_value=np.nan,
            attributes={"_ARRAY_DIMENSIONS": dims, "long_name": variable.meaning, "units": variable.units},
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(path)
    (path / OWN).mkdir()
    about_sweep = {"description": description, "code": code, "pieces": plan.pieces, "id": identity}
    (path / OWN / ABOUT).write_text(json.dumps(about_sweep, indent=2, ensure_ascii=False) + "\n")


def _blocks(
    unit: Unit, chunks: tuple[int, ...]
) -> Iterator[tuple[tuple[Any, ...], tuple[slice, ...], tuple[int, ...]]]:
    """Yield, for each chunk that the unit fills, its slices in the unit, its slices in the array, and its number."""
    parts = []
    for indices, chunk in zip(unit.indices, chunks, strict=True):
        if chunk == 1:
            parts.append([(slice(i, i + 1), slice(index, index + 1), index) for i, index in enumerate(indices)])
        else:
            whole = slice(indices[0], indices[-1] + 1)
            parts.append([(slice(0, len(indices)), whole, indices[0] // chunk)])
    for chosen in itertools.product(*parts):
        place, region, chunk_index = zip(*chosen, strict=True)
        yield place, region, chunk_index


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
