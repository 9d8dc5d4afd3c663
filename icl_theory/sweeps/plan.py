"""The plan of a sweep: units of work, each one program that fits into memory, and the matching chunks on disk."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from icl_theory.environment import cores, memory_bytes, process_bytes
from icl_theory.errors import InputError
from icl_theory.models.cubic_features import num_features
from icl_theory.simulation.config import RunConfig
from icl_theory.simulation.prediction import theory_of
from icl_theory.simulation.simulate import CHUNK_SIZE
from icl_theory.sweeps.batched_runs import CACHED_BYTES
from icl_theory.sweeps.specification import Sweep
from icl_theory.sweeps.structure import structure_of, uses_prompts
from icl_theory.theory.cascade_steps import KEPT, STEPS_AT_ONCE
from icl_theory.theory.random_start_cascade import BLOCK

FEWEST_RUNS, FEWEST_LARGE, MOST_RUNS = (64, 8, 4096)  # runs of a unit: least, least if large, most
RUN_STEPS, REDUCED_RUN_STEPS = 5 * 10**6, 10**8  # of a unit: about a second of work on two cores
CASCADE_STEPS = 10**5  # steps of the reduced system that cost as much as the cascade of one random start
SMALL_PRODUCTS = 500.0  # multiply-adds of a loss (D = 4, moments) that cost as much as the overhead of a step
HEAVY = 2**16  # bytes of data beyond which runs that share them are kept together
COMPILER = 400 * 2**20  # bytes that compiling takes besides the arrays
PLANNED = 0.95  # share of the limit that is used, so that a process that resumes with the same units fits too
SHARE_OF_MEMORY = 0.5  # the limit if none is given


class Unit(NamedTuple):
    """Runs that are trained as one program and saved together: the product of some indices of each axis."""

    number: int
    indices: tuple[tuple[int, ...], ...]

    @property
    def num_runs(self) -> int:
        """The number of runs."""
        return int(np.prod([len(part) for part in self.indices]))


class Plan(NamedTuple):
    """A sweep cut into units.

    Attributes:
        sweep: The sweep.
        pieces: The largest number of indices of each axis in a unit.
        shared: Whether the runs of a unit all have the same data.
        limit: The bytes of memory that the process may take.
    """

    sweep: Sweep
    pieces: tuple[int, ...]
    shared: bool
    limit: float

    @classmethod
    def from_sweep(
        cls, sweep: Sweep, *, memory_gib: float | None = None, pieces: tuple[int, ...] | None = None
    ) -> Plan:
        """Cut a sweep into units that fit into memory.

        Args:
            sweep: The sweep.
            memory_gib: Limit for the whole process. The default is half of the machine's memory, and at most what an
                accelerator has.
            pieces: The pieces of a sweep that was begun, if it is resumed (see `check_limit`).

        Raises:
            InputError: Not even one run fits.
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
        """Raise `InputError` if the units of a resumed sweep need more memory than the limit."""
        need = self.bytes_needed()
        if need > self.limit:
            remedy = f"this sweep was begun in units that take about {need / 2**30:.2g} GiB; raise it, or start over"
            raise InputError("memory", f"{self.limit / 2**30:.3g} GiB", remedy)

    @property
    def chunks(self) -> tuple[int, ...]:
        """The chunk lengths on disk along the swept axes: those of units, or 1 if an axis has several classes."""
        return tuple(
            1 if len(fact.counts) > 1 else piece for fact, piece in zip(self.sweep.facts.axes, self.pieces, strict=True)
        )

    def units(self) -> Iterator[Unit]:
        """Yield all units in order; the same pieces give the same units."""
        parts = [
            list(_parts(fact.classes, piece)) for fact, piece in zip(self.sweep.facts.axes, self.pieces, strict=True)
        ]
        for number, indices in enumerate(itertools.product(*parts)):
            yield Unit(number, indices)

    def size(self, unit: Unit) -> int:
        """Return the number of runs in the unit's program, which all units of the same classes share."""
        lengths = []
        for fact, piece, part in zip(self.sweep.facts.axes, self.pieces, unit.indices, strict=True):
            lengths.append(_even(fact.counts[fact.classes[part[0]]], piece))
        return int(np.prod(lengths))

    def programs(self) -> set[tuple[RunConfig, int]]:
        """Return the structures to be compiled, each with its number of runs."""
        return {(structure_of(self.first(unit)), self.size(unit)) for unit in self._representatives()}

    def first(self, unit: Unit) -> RunConfig:
        """Return the config of a unit's first run."""
        return self.sweep.config([part[0] for part in unit.indices])

    def configs(self, unit: Unit) -> list[RunConfig]:
        """Return the configs of a unit's runs, with the last axis fastest."""
        return [self.sweep.config(index) for index in itertools.product(*unit.indices)]

    def bytes_needed(self) -> float:
        """Estimate the peak memory of the process."""
        per_run, alone = _largest(self.sweep)
        return process_bytes() + COMPILER + alone + per_run * max(self.size(unit) for unit in self._representatives())

    def run_steps(self, config: RunConfig) -> float:
        """Return the steps of one run, with as many for its theory."""
        return float(config.num_steps * (int(self.sweep.full) + int(self.sweep.theory)))

    def representatives(self) -> list[tuple[Unit, int]]:
        """Return one unit for each combination of classes, with the number of runs of that combination."""
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
    """Return the memory for arrays on an accelerator; infinite on a CPU."""
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
    """Return the largest bytes per run, and per unit besides its runs, over all combinations of classes."""
    found = [_bytes_per_run(sweep, config) for config in sweep.facts.corners]
    return max(per_run for per_run, _ in found), max(alone for _, alone in found)


def _bytes_per_run(sweep: Sweep, config: RunConfig) -> tuple[float, float]:
    """Return the bytes that a unit takes for each of its runs, and those that it takes once."""
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
    if sweep.theory and theory_of(config) == "cascade":
        per_run += 48 * seen  # strengths and losses in float64, and copies of them
        alone += min(cores(), MOST_RUNS // BLOCK) * BLOCK * STEPS_AT_ONCE * KEPT * 24 * (dim + 1)
    return float(per_run + (8 * seen if sweep.curves else 0)), alone


def _wanted(sweep: Sweep) -> int:
    """Return the wanted number of runs in a unit: about a second of work, so that an interruption loses little."""
    target = RUN_STEPS if sweep.full else REDUCED_RUN_STEPS
    sizes = [max(1.0, _products(config) / SMALL_PRODUCTS) if sweep.full else 1.0 for config in sweep.facts.corners]
    steps = [
        CASCADE_STEPS if not sweep.full and theory_of(config) == "cascade" else config.num_steps
        for config in sweep.facts.corners
    ]
    work = max(count * size for count, size in zip(steps, sizes, strict=True))
    fewest = max(FEWEST_LARGE, FEWEST_RUNS / max(sizes))
    return int(np.clip(target / work, fewest, MOST_RUNS))


def _products(config: RunConfig) -> float:
    """Return the order of magnitude of the multiply-adds in the loss of one run."""
    dim, heads = config.dim, config.dim if config.init == "aligned" else config.num_heads
    weights = heads * dim * (dim if config.model != "separate" else config.rank * dim)
    if uses_prompts(config):
        return float(config.num_prompts * config.longest_context * (dim + 1) ** 2 * heads)
    if config.data == "population" and config.blocks == "reduced":
        return float(2 * len(config.mixture) * dim**3 + weights)
    return float(num_features(dim, config.blocks) ** 2 + weights)


def _pieces(sweep: Sweep, wanted: int, kept_together: list[bool]) -> tuple[int, ...]:
    """Cut the axes, starting from the last, into even parts with as many indices as fit."""
    pieces = [1] * len(sweep.axes)
    for position in reversed(range(len(sweep.axes))):
        if kept_together[position]:
            continue
        pieces[position] = _even(max(sweep.facts.axes[position].counts.values()), max(1, wanted))
        wanted //= pieces[position]
    return tuple(pieces)


def _even(members: int, most: int) -> int:
    """Return the length of even parts of `members` things, at most `most` each."""
    return -(-members // -(-members // most))


def _parts(classes: tuple[int, ...], piece: int) -> Iterator[tuple[int, ...]]:
    """Yield the indices class by class, in even parts of at most `piece`."""
    for number in dict.fromkeys(classes):
        members = [index for index, other in enumerate(classes) if other == number]
        step = piece if len(set(classes)) == 1 else _even(len(members), piece)
        for start in range(0, len(members), step):
            yield tuple(members[start : start + step])
