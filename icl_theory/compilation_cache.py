"""Compiled programs kept on disk, so that later processes need not compile them again.

Importing the package changes nothing: the command line, the experiments and the tests call `enable`. `ICL_THEORY_CACHE`
names another folder, or turns the cache off (`ICL_THEORY_CACHE=off`). JAX keys programs by their code, JAX's version
and the device. XLA's programs also depend on the kind of processor and the number of threads, so each combination has
its own folder. A program that cannot be read is compiled again. Whoever can write to the folder can run code in the
processes that read it, so it is made private and must belong to the user.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

from icl_theory.environment import cores

VARIABLE = "ICL_THEORY_CACHE"
OFF, ON = ("off", "0", "no", "false"), ("", "on", "1", "yes", "true")
NAME = "icl_theory-programs"
LIMIT = 2**30  # bytes; beyond it the oldest programs are removed until a share KEPT of it is left
KEPT = 0.75
FOLDER = "JAX_COMPILATION_CACHE_DIR"
SETTINGS = {  # as JAX reads them from the environment; child processes inherit them
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": 0.0,
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": -1,
}


def enable() -> Path | None:
    """Keep compiled programs in the user's cache folder, for this process and those it starts.

    A cache of JAX's own (`JAX_COMPILATION_CACHE_DIR`) is left as it is.

    Returns:
        The folder, or None if the cache is off, or if the folder cannot be made or belongs to somebody else.
    """
    given = os.environ.get(VARIABLE, "")
    if given.lower() in OFF:
        disable()
        return None
    # A damaged program, or a full disk, costs the time of compiling; nothing needs to be said.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")
    own = Path(os.environ.get(FOLDER, ""))
    if own.name and own.parent.name != NAME:
        return own
    try:
        base = (_user_cache() if given.lower() in ON else Path(given).expanduser().absolute()) / NAME
        folder = base / f"{_processor()}-{cores()}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (hasattr(os, "getuid") and folder.stat().st_uid != os.getuid()) or not os.access(folder, os.W_OK):
            return None
    except (OSError, RuntimeError):  # RuntimeError: no home folder
        return None
    trim(base)
    for name, value in {FOLDER: str(folder), **SETTINGS}.items():
        _set(name, value)
    return folder


def disable() -> None:
    """Turn off any compilation cache, for this process and those it starts."""
    _set("JAX_ENABLE_COMPILATION_CACHE", False)


def trim(base: Path, limit: int = LIMIT) -> None:
    """Remove empty files, which a stopped process may leave, and the oldest programs if the total exceeds the limit."""
    files = []
    for path in base.rglob("*"):
        with suppress(OSError):  # another process removed it
            if path.is_file():
                files.append((path.stat(), path))
    total = sum(stat.st_size for stat, _ in files)
    wanted = KEPT * limit if total > limit else total
    for stat, path in sorted(files, key=lambda file: file[0].st_mtime):
        if stat.st_size and total <= wanted:
            continue
        with suppress(OSError):
            path.unlink()
        total -= stat.st_size


def _set(name: str, value: Any) -> None:
    """Set one of JAX's settings in the environment, for a later import, and in JAX itself if it is imported already."""
    os.environ[name] = str(int(value)) if isinstance(value, bool) else str(value)
    if "jax" in sys.modules:
        import jax

        jax.config.update(name.lower(), value)


def _user_cache() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _processor() -> str:
    """Return a short name for the kind of processor, since machines that share a home folder may differ in it."""
    about = f"{platform.system()} {platform.machine()} {platform.processor()}"
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        about += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(about.encode()).hexdigest()[:12]
