"""Checkpoints of a fine-tuning run, saved with orbax; a run that was stopped resumes from the newest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from icl_theory.errors import InputError, error_text
from icl_theory.llm.model.sharding import wait_for_all_hosts
from icl_theory.llm.training.held_signals import signals_held
from icl_theory.llm.training.step import Learner
from icl_theory.results import first_difference

SETTINGS, CHECKPOINTS = "settings.json", "checkpoints"


class Checkpoints:
    """Checkpoints of one run in a folder; a folder of another run raises `InputError`.

    What a killed process left half written is removed.

    Args:
        folder: a new folder, or one in which the same run was started before (then `begun` is true).
        described: settings that identify the run.

    Attributes:
        begun: whether the run was started in this folder before.
    """

    def __init__(self, folder: Path, described: dict[str, Any]):
        path = folder / SETTINGS
        self.begun = path.exists()
        wait_for_all_hosts("checkpoints")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if self.begun and any((folder / CHECKPOINTS).glob("*")):
                found = json.loads(path.read_text())
                difference = first_difference(found, described)
                if difference:
                    raise InputError("folder", str(folder), f"it holds another run ({difference}); give another folder")
            elif jax.process_index() > 0:
                pass  # the first host checks and writes
            elif not self.begun and any(folder.iterdir()):
                raise InputError("folder", str(folder), "it holds other things; give a new or empty one")
            else:
                path.write_text(json.dumps(described, indent=1) + "\n")
            options = ocp.CheckpointManagerOptions(
                max_to_keep=2, enable_async_checkpointing=False, cleanup_tmp_directories=True
            )
            with signals_held():
                self._manager = ocp.CheckpointManager(folder.absolute() / CHECKPOINTS, options=options)
        except (OSError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError("folder", str(folder), f"cannot be used ({error})") from None

    def restore(self, learner: Learner, curve: np.ndarray) -> tuple[Learner, np.ndarray]:
        """Return the learner and losses of the newest checkpoint, or those given if there is no checkpoint.

        If there is one, the arrays of the learner given are deleted to free memory. Its fixed weights stay, as they are
        not in a checkpoint.

        Raises:
            InputError: the checkpoint cannot be read.
        """
        newest = self._manager.latest_step()
        if newest is None:
            return learner, curve
        changing, frozen = tuple(learner[:-1]), learner.frozen
        wanted = {"learner": jax.tree.map(_abstract, changing), "losses": curve}
        jax.tree.map(lambda leaf: leaf.delete(), changing)  # frees memory for the arrays that are read
        try:
            with signals_held():
                found = self._manager.restore(newest, args=ocp.args.StandardRestore(wanted))
        except Exception as error:  # the storage library raises many types
            where = self._manager.directory / str(newest)
            raise InputError(
                "checkpoint",
                str(where),
                f"cannot be read ({error_text(error)}); remove it to go on from the one before",
            ) from None
        params, optimizer, step = found["learner"]
        return Learner(params, optimizer, step, frozen), np.array(found["losses"])

    def save(self, learner: Learner, curve: np.ndarray) -> None:
        """Write a checkpoint, completely or not at all; Ctrl-C and SIGTERM are held until it is written.

        Raises:
            InputError: the checkpoint cannot be written.
        """
        try:
            with signals_held():
                saved = {"learner": tuple(learner[:-1]), "losses": curve}
                self._manager.save(int(learner.step), args=ocp.args.StandardSave(saved))
        except (OSError, ValueError) as error:  # ValueError: the storage library's error for a full disk
            remedy = f"cannot be written ({error_text(error)}); free space, then give the same command"
            raise InputError("checkpoint", str(self._manager.directory), remedy) from None

    def close(self) -> None:
        """Wait for pending writes and close the checkpoint manager."""
        with signals_held():
            self._manager.wait_until_finished()
            self._manager.close()


def newest_step(folder: Path) -> int | None:
    """Return the step of the newest complete checkpoint of the run in a folder; None if there is none."""
    return max((int(path.name) for path in (folder / CHECKPOINTS).glob("*") if path.name.isdecimal()), default=None)


def _abstract(leaf: Any) -> Any:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
