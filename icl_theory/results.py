"""Result folders that are complete or absent: written elsewhere, moved into place in one step, checked on reading."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from icl_theory.environment import machine
from icl_theory.errors import InputError

MANIFEST = "manifest.json"
# what reading a damaged or foreign file of arrays raises
UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)
DERIVED = (
    "figures",
    "report",
    "simulate",
    "sweeps",
    ".sweep",
)  # folders of a results folder that hold no manifest themselves


def plain(value: Any) -> Any:
    """Return a config as JSON holds it: dataclasses become dictionaries, tuples and arrays become lists."""

    def convert(item: Any) -> Any:
        if dataclasses.is_dataclass(item) and not isinstance(item, type):
            return dataclasses.asdict(item)
        return item.tolist() if hasattr(item, "tolist") else str(item)

    return json.loads(json.dumps(value, default=convert))


def read_manifest(folder: Path, *, remedy: str) -> dict[str, Any]:
    """Return the manifest of a complete folder.

    Raises:
        InputError: The folder is half written, damaged or not a result folder.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(
            "folder", str(folder), f"it holds no {MANIFEST}, so it is half written or not a result folder; {remedy}"
        )
    try:
        manifest = json.loads(path.read_text())
        files = dict(manifest["files"])
        _ = manifest["code"], manifest["config"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError("folder", str(folder), f"its {MANIFEST} is damaged; {remedy}") from None
    for name, known in files.items():
        if not (folder / name).is_file() or digest(folder / name) != known:
            raise InputError("folder", str(folder), f"{name} is missing or damaged; {remedy}")
    return manifest


def is_complete(folder: Path, *, config: Any, code: str, remedy: str) -> bool:
    """Return True if the folder holds a finished result of this config and code, False if there is no folder.

    Raises:
        InputError: Something else is there: a half-written result, or one of another version or config.
    """
    if not exists(folder):
        return False
    if not folder.is_dir():
        raise InputError("folder", str(folder), "it is a file, not a folder; give another")
    manifest = read_manifest(folder, remedy=remedy)
    if manifest["code"] != code:
        raise InputError(
            "folder", str(folder), f"it was written by icl_theory {manifest['code']}, this is {code}; {remedy}"
        )
    difference = first_difference(manifest["config"], plain(config))
    if difference:
        raise InputError("folder", str(folder), f"it holds another setting ({difference}); {remedy}")
    return True


def check_place(folder: Path) -> None:
    """Raise `InputError` if a result folder could not be written here; call before the work."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent)).rmdir()
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError("folder", str(folder), f"cannot be written ({reason}); give another") from error


def write_result(
    folder: Path, write: Callable[[Path], None], *, config: Any, code: str, seconds: float, **about: Any
) -> dict[str, Any]:
    """Let `write(partial_folder)` write files, add the manifest, and move the whole into place.

    Raises:
        InputError: The folder exists already or cannot be written (nothing of it is left behind).
    """
    if folder.exists():
        raise InputError("folder", str(folder), "it exists; give another or remove it")
    partial = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        write(partial)
        files = {path.relative_to(partial).as_posix(): digest(path) for path in _files(partial)}
        manifest = plain(
            {
                "config": config,
                "code": code,
                "seconds": round(seconds, 3),
                "created": time.strftime("%Y-%m-%d %H:%M:%S"),
                "machine": machine(),
                "files": files,
                **about,
            }
        )
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
        partial.chmod(0o755)
        os.replace(partial, folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError("folder", str(folder), f"cannot be written ({reason}); free space or give another") from error
    finally:
        if partial is not None and partial.exists():
            shutil.rmtree(partial, ignore_errors=True)
    return manifest


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a path in a hidden folder beside `path`, moved to `path` in one step when the block ends without error.

    Raises:
        InputError: `path` exists, at the start or by the end, or cannot be written. Nothing is left behind.
    """
    if exists(path):
        raise InputError("output", str(path), "it exists; give another or remove it")
    folder, made = None, [parent for parent in path.parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.stem[:100]}.", dir=path.parent))
        yield folder / path.name
        if exists(path):
            raise InputError("output", str(path), "it was made meanwhile; give another or remove it")
        os.replace(folder / path.name, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError("output", str(path), f"cannot be written ({reason}); free space or give another") from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # parents that hold something stay
            for parent in made:
                parent.rmdir()


def set_aside(folder: Path) -> Path | None:
    """Rename a folder of results to the first free of `NAME.old-1`, `NAME.old-2`, …

    Returns:
        The new path, or None if there was no folder.

    Raises:
        InputError: Nothing in it looks like a result, so it is left alone, or it cannot be renamed.
    """
    if not exists(folder):
        return None
    inside = list(folder.iterdir()) if folder.is_dir() else [folder]
    known = any((path / MANIFEST).is_file() or path.name in (MANIFEST, *DERIVED) for path in inside)
    if inside and not known:
        raise InputError("folder", str(folder), "it holds other things than results; move it yourself or give another")
    number = 1
    while (target := folder.with_name(f"{folder.name}.old-{number}")).exists():
        number += 1
    try:
        folder.rename(target)
    except OSError as error:
        raise InputError(
            "folder", str(folder), f"cannot be set aside ({error.strerror}); remove it yourself"
        ) from error
    return target


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays as a compressed `.npz`, which `numpy.load` reads."""
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays that `save_arrays` wrote."""
    with np.load(path) as stored:
        return dict(stored)


def exists(folder: Path) -> bool:
    """Return True if the path exists, a broken link included; raise `InputError` for a path that cannot be used."""
    try:
        folder.stat()
    except FileNotFoundError:
        return folder.is_symlink()
    except NotADirectoryError:
        raise InputError("folder", str(folder), "a part of it is a file, not a folder; give another") from None
    except OSError as error:
        raise InputError("folder", str(folder), f"cannot be used ({error.strerror}); give another") from None
    return True


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def first_difference(old: Any, new: Any, name: str = "config") -> str:
    """Return `field was this, now that` for the first field that differs, or an empty text if none does."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            found = first_difference(old.get(key), new.get(key), key)
            if found:
                return found
        return ""
    return "" if old == new else f"{name} was {_brief(old)}, now {_brief(new)}"


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
