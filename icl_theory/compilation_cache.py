"""Compiled programs kept on disk between processes, so that the second command of a day does not compile again.

Importing the package changes nothing: the command line, the experiments and the tests call `enable`. `ICL_THEORY_CACHE`
names another folder, or turns the cache off (`ICL_THEORY_CACHE=off`). Programs are keyed as JAX keys them, by their code,
JAX's version and the device, in a folder for each kind of processor. What cannot be read is compiled again.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import warnings
from contextlib import suppress
from pathlib import Path

VARIABLE = "ICL_THEORY_CACHE"
LIMIT = 2**30  # bytes; beyond it the oldest programs go, down to KEPT of it
KEPT = 0.75
SETTINGS = {  # as JAX reads them from the environment; child processes inherit them
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": 0.0,
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": -1,
}


def enable() -> Path | None:
    """Keep compiled programs in the user's cache folder, for this process and those it starts.

    Nothing is changed where JAX has a cache of its own already (`JAX_COMPILATION_CACHE_DIR`).

    Returns:
        The folder; None where the cache is off or the folder cannot be made.
    """
    given = os.environ.get(VARIABLE, "")
    if given.lower() in ("off", "0", "no", "false"):
        return None
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    folder = (Path(given).expanduser() if given else _user_cache() / "icl_theory") / f"programs-{_processor()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trim(folder)
    except OSError:
        return None
    settings = {"JAX_COMPILATION_CACHE_DIR": str(folder), **SETTINGS}
    os.environ.update({name: str(value) for name, value in settings.items()})
    if "jax" in sys.modules:
        for name, value in settings.items():
            sys.modules["jax"].config.update(name.lower(), value)
    # A damaged entry, or a full disk, costs the time of compiling; nothing needs to be said.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")
    return folder


def trim(folder: Path, limit: int = LIMIT) -> None:
    """Remove empty programs, which a stopped process leaves, and beyond the limit the oldest ones."""
    files = [(entry.stat(), entry.path) for entry in os.scandir(folder) if entry.is_file()]
    total = sum(stat.st_size for stat, _ in files)
    wanted = KEPT * limit if total > limit else total
    for stat, path in sorted(files, key=lambda file: file[0].st_mtime):
        if stat.st_size and total <= wanted:
            continue
        with suppress(OSError):  # another process was faster
            os.unlink(path)
        total -= stat.st_size


def _user_cache() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _processor() -> str:
    """A short name for the kind of processor, whose instructions compiled programs use; homes are shared between machines."""
    about = f"{platform.system()} {platform.machine()} {platform.processor()}"
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        about += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(about.encode()).hexdigest()[:12]
