"""The plan of a sweep: units of work that are one program each, sized to memory, and chunks on disk that fit them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from icl_theory.environment import memory_bytes, process_bytes
from icl_theory.errors import InputError
from icl_theory.models.cubic_features import num_features
from icl_theory.simulation.config import RunConfig
from icl_theory.simulation.simulate import CHUNK_SIZE
from icl_theory.sweeps.batched_runs import CACHED_BYTES
from icl_theory.sweeps.specification import Sweep
from icl_theory.sweeps.structure import structure_of, uses_prompts

FEWEST_RUNS, FEWEST_LARGE, MOST_RUNS = 64, 8, 4096  # of a unit, of one of large models; memory may ask for fewer
RUN_STEPS, REDUCED_RUN_STEPS = 5 * 10**6, 10**8  # of a unit: about a second of work on two cores
SMALL_PRODUCTS = 500.0  # multiply-adds of a loss (D = 4, moments) from which a step costs more than to be taken at all
HEAVY = 2**16  # bytes of data from which runs that share them go together
COMPILER = 400 * 2**20  # what compiling takes beside the arrays
PLANNED = 0.95  # of the limit, so that a process that goes on with the same units fits too
SHARE_OF_MEMORY = 0.5  # used where no limit is given


class Unit(NamedTuple):
    """Runs that are one program and are saved together: the product of some indices of each axis."""

    number: int
    indices: tuple[tuple[int, ...], ...]

    @property
    def num_runs(self) -> int:
        """Product of the numbers of indices."""
        return int(np.prod([len(part) for part in self.indices]))


class Plan(NamedTuple):
    """A sweep cut into units.

    Attributes:
        sweep: what is cut.
        pieces: the most indices of each axis in a unit.
        shared: the runs of a unit all have the same data.
        limit: bytes that the process may take.
    """

    sweep: Sweep
    pieces: tuple[int, ...]
    shared: bool
    limit: float

    @classmethod
    def from_sweep(
        cls, sweep: Sweep, *, memory_gib: float | None = None, pieces: tuple[int, ...] | None = None
    ) -> Plan:
        """Cut to memory.

        Args:
            sweep: what to cut.
            memory_gib: limit for the whole process; default half of the machine's memory, and not more than a device
                has.
            pieces: those of a sweep that was begun, to go on with (see `check_limit`).

        Raises:
            InputError: not even one run fits.
        """
        limit = min(SHARE_OF_MEMORY * memory_bytes(), _device_bytes()) if memory_gib is None else memory_gib * 2**30
        if pieces is None:
            per_run, alone = _largest(sweep)
            base = process_bytes() + COMPILER + alone
            room = int(min((PLANNED * limit - base) / per_run, MOST_RUNS))
            if room < 1:
                need = (base + per_run) / 2**30
                raise InputError(
                    "memory", f"{limit / 2**30:.3g} GiB", f"one run alone takes about {need:.2g} GiB; raise it"
                )
            heavy = max(_data_bytes(config) for config in sweep.facts.corners) > HEAVY
            pieces = _pieces(sweep, min(room, _wanted(sweep)), [axis.data and heavy for axis in sweep.facts.axes])
        shared = not any(axis.data and piece > 1 for axis, piece in zip(sweep.facts.axes, pieces, strict=True))
        return cls(sweep, pieces, shared, limit)

    def check_limit(self) -> None:
        """Raise `InputError` where the units of a sweep that was begun do not fit under the limit."""
        need = self.bytes_needed()
        if need > self.limit:
            remedy = f"this sweep was begun in units that take about {need / 2**30:.2g} GiB; raise it, or start over"
            raise InputError("memory", f"{self.limit / 2**30:.3g} GiB", remedy)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Chunk lengths on disk along the swept dimensions: those of units, 1 along axes of several programs."""
        return tuple(
            1 if len(fact.counts) > 1 else piece for fact, piece in zip(self.sweep.facts.axes, self.pieces, strict=True)
        )

    def units(self) -> Iterator[Unit]:
        """All units in order; the same for the same pieces."""
        parts = [
            list(_parts(fact.classes, piece)) for fact, piece in zip(self.sweep.facts.axes, self.pieces, strict=True)
        ]
        for number, indices in enumerate(itertools.product(*parts)):
            yield Unit(number, indices)

    def size(self, unit: Unit) -> int:
        """Runs of the unit's program: as many as any unit of the same classes has, so that they share it."""
        lengths = []
        for fact, piece, part in zip(self.sweep.facts.axes, self.pieces, unit.indices, strict=True):
            lengths.append(_even(fact.counts[fact.classes[part[0]]], piece))
        return int(np.prod(lengths))

    def programs(self) -> set[tuple[RunConfig, int]]:
        """Structures to be compiled, each with its number of runs."""
        return {(structure_of(self.first(unit)), self.size(unit)) for unit in self._representatives()}

    def first(self, unit: Unit) -> RunConfig:
        """The config of a unit's first run."""
        return self.sweep.config([part[0] for part in unit.indices])

    def configs(self, unit: Unit) -> list[RunConfig]:
        """The configs of a unit's runs, the last axis fastest."""
        return [self.sweep.config(index) for index in itertools.product(*unit.indices)]

    def bytes_needed(self) -> float:
        """Peak memory of the process, estimated."""
        per_run, alone = _largest(self.sweep)
        return process_bytes() + COMPILER + alone + per_run * max(self.size(unit) for unit in self._representatives())

    def run_steps(self, config: RunConfig) -> float:
        """Steps of one run, the reduced system's counted too."""
        return float(config.num_steps * (int(self.sweep.full) + int(self.sweep.theory)))

    def representatives(self) -> list[tuple[Unit, int]]:
        """One unit for each combination of classes, with how many runs there are of it."""
        return [(unit, self._runs_like(unit)) for unit in self._representatives()]

    def _representatives(self) -> list[Unit]:
        firsts = []
        for fact, piece in zip(self.sweep.facts.axes, self.pieces, strict=True):
            seen: dict[int, tuple[int, ...]] = {}
            for part in _parts(fact.classes, piece):
                seen.setdefault(fact.classes[part[0]], part)
            firsts.append(list(seen.values()))
        return [Unit(-1, indices) for indices in itertools.product(*firsts)]

    def _runs_like(self, unit: Unit) -> int:
        facts = zip(self.sweep.facts.axes, unit.indices, strict=True)
        return int(np.prod([fact.counts[fact.classes[part[0]]] for fact, part in facts]))


def _device_bytes() -> float:
    """Return the memory for arrays on an accelerator; no limit of its own on a CPU."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return float(stats.get("bytes_limit", np.inf))


def _data_bytes(config: RunConfig) -> float:
    width = 8 if config.dtype == "float64" else 4
    if uses_prompts(config):
        return width * config.num_prompts * (config.longest_context + 1) * (config.dim + 2)
    if config.data == "population" and config.blocks == "reduced":
        return width * config.dim**2 * (2 * len(config.mixture) + 1)
    return width * num_features(config.dim, config.blocks) ** 2


def _largest(sweep: Sweep) -> tuple[float, float]:
    """The most that each run of a unit takes, and that a unit takes once, over all combinations of classes."""
    found = [_bytes_per_run(sweep, config) for config in sweep.facts.corners]
    return max(per_run for per_run, _ in found), max(alone for _, alone in found)


def _bytes_per_run(sweep: Sweep, config: RunConfig) -> tuple[float, float]:
    """Return the bytes of each run of a unit, and those of the unit itself."""
    width = 8 if config.dtype == "float64" else 4
    dim, heads = config.dim, config.dim if config.init == "aligned" else config.num_heads
    weights = heads * (1 + dim**2 if config.model != "separate" else 1 + 2 * config.rank * dim)
    seen = (min(config.num_snapshots, config.num_steps + 1) + 32) * (dim + 1)
    per_run = width * (12 * weights + 6 * seen + 8 * dim**2) + 3 * _data_bytes(config)
    tokens = config.num_prompts * config.longest_context
    if uses_prompts(config):
        per_run += 6 * width * tokens * heads  # the scores of every head
    if config.blocks == "full":
        per_run += 8 * num_features(dim, "full") ** 2  # infinite data, for the population loss
    alone = 0.0
    if config.data == "prompts":
        drawn = min(config.num_prompts, CHUNK_SIZE) * config.longest_context
        alone = min(CACHED_BYTES, sweep.num_runs * _data_bytes(config)) + 6.0 * width * drawn * (dim + 1)
    return float(per_run + (8 * seen if sweep.curves else 0)), alone


def _wanted(sweep: Sweep) -> int:
    """Runs of a unit: about a second of work, so that little is lost when the power goes."""
    target = RUN_STEPS if sweep.full else REDUCED_RUN_STEPS
    sizes = [max(1.0, _products(config) / SMALL_PRODUCTS) if sweep.full else 1.0 for config in sweep.facts.corners]
    work = max(config.num_steps * size for config, size in zip(sweep.facts.corners, sizes, strict=True))
    fewest = max(FEWEST_LARGE, FEWEST_RUNS / max(sizes))
    return int(np.clip(target / work, fewest, MOST_RUNS))


def _products(config: RunConfig) -> float:
    """Multiply-adds of the loss of one run, to its order."""
    dim, heads = config.dim, config.dim if config.init == "aligned" else config.num_heads
    weights = heads * dim * (dim if config.model != "separate" else config.rank * dim)
    if uses_prompts(config):
        return float(config.num_prompts * config.longest_context * (dim + 1) ** 2 * heads)
    if config.data == "population" and config.blocks == "reduced":
        return float(2 * len(config.mixture) * dim**3 + weights)
    return float(num_features(dim, config.blocks) ** 2 + weights)


def _pieces(sweep: Sweep, wanted: int, kept_together: list[bool]) -> tuple[int, ...]:
    """From the last axis on, as many indices as fit, in even parts."""
    pieces = [1] * len(sweep.axes)
    for position in reversed(range(len(sweep.axes))):
        if kept_together[position]:
            continue
        pieces[position] = _even(max(sweep.facts.axes[position].counts.values()), max(1, wanted))
        wanted //= pieces[position]
    return tuple(pieces)


def _even(members: int, most: int) -> int:
    """Length of equal parts of `members` things, at most `most` each."""
    return -(-members // -(-members // most))


def _parts(classes: tuple[int, ...], piece: int) -> Iterator[tuple[int, ...]]:
    """Indices of one class together, in even parts of at most `piece`."""
    for number in dict.fromkeys(classes):
        members = [index for index, other in enumerate(classes) if other == number]
        step = piece if len(set(classes)) == 1 else _even(len(members), piece)
        for start in range(0, len(members), step):
            yield tuple(members[start : start + step])
