"""The settings of one simulated run, as a frozen dataclass, a TOML file or command-line options."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_theory.errors import InputError, check_choice, check_number
from icl_theory.models import BLOCKS, SCORES
from icl_theory.training import ENGINES

if TYPE_CHECKING:
    import optax

SPECTRA = ("linear", "white", "power-law", "geometric", "given")
BASES = ("random", "axes")
NORMALISATIONS = ("context", "tokens")
INITS = ("random", "reduced", "aligned")
MOST_STEPS, MOST_TOKENS = 10**12, 2**31 - 1
MODELS = ("separate", "merged", "cubic-mlp")
OPTIMIZERS = ("gd", "sam", "unnormalised-sam")
SAM_OPTIMIZERS = OPTIMIZERS[1:]  # those that use rho


def _field(default: Any, help: str, choices: tuple[str, ...] | None = None) -> Any:
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices})


@dataclasses.dataclass(frozen=True)
class GroupConfig:
    """Settings of one group of prompts (theory notes, §1)."""

    spectrum: str = _field("linear", "spectrum of the input covariance, trace one unless given", SPECTRA)
    exponent: float = _field(
        1.0, "decay of the power-law spectrum, λ_d ∝ d^-exponent (alone, it chooses that spectrum)"
    )
    eigenvalue_ratio: float = _field(2.0, "λ_d / λ_{d+1} of the geometric spectrum (alone, it chooses that spectrum)")
    eigenvalues: tuple[float, ...] = _field((), "λ_1,…,λ_D for the given spectrum (implies --spectrum given)")
    task_eigenvalues: tuple[float, ...] = _field((), "γ_1,…,γ_D of the task prior; default all one")
    noise_std: float = _field(0.0, "label noise σ on the context")
    num_context: int = _field(31, "context tokens N, the query not counted")
    fixed_task_share: float = _field(0.0, "share of prompts with one fixed task vector (in-weight learning)")

    def __post_init__(self) -> None:
        if len(self.eigenvalues) and self.spectrum != "given":
            object.__setattr__(self, "spectrum", "given")
        _check_choices(self)
        check_number("exponent", self.exponent, minimum=0.0)
        check_number("eigenvalue_ratio", self.eigenvalue_ratio, minimum=0.0, exclusive=True)
        check_number("noise_std", self.noise_std, minimum=0.0)
        check_number("num_context", self.num_context, minimum=1, maximum=MOST_TOKENS, integer=True)
        check_number("fixed_task_share", self.fixed_task_share, minimum=0.0, maximum=1.0)


@dataclasses.dataclass(frozen=True)
class RunConfig(GroupConfig):
    """Every setting of `icl-theory simulate`; `groups` come from a TOML file only."""

    dim: int = _field(4, "input dimension D")
    basis: str = _field("random", "eigenbasis of the covariances", BASES)
    groups: tuple[tuple[float, GroupConfig], ...] = _field((), "[[groups]] tables with a share each (TOML only)")
    upsampling_factor: float = _field(1.0, "κ, how many times as often the last of the groups is drawn in training")
    data: str = _field("population", "infinite data in closed form, or a set of prompts", ("population", "prompts"))
    num_prompts: int = _field(5000, "prompts P when --data prompts")
    engine: str = _field("auto", "train on moments of the prompts (linear attention), or on every prompt", ENGINES)
    model: str = _field("separate", "key-query parametrisation", MODELS)
    num_heads: int = _field(5, "attention heads H (hidden units of the MLP)")
    rank: int = _field(1, "rank R of keys and queries (separate model)")
    blocks: str = _field("reduced", "weights on the entries that matter, or on all D+1", BLOCKS)
    scores: str = _field("linear", "linear or softmax attention", SCORES)
    normalisation: str = _field("context", "attention divides by the N context tokens, or by all N + 1", NORMALISATIONS)
    init: str = _field(
        "random", "random normal, random on the reduced blocks alone, or one head aligned with each feature", INITS
    )
    init_scale: float = _field(0.1, "norm of each v, key and query at the start (u_0 when aligned)")
    optimizer: str = _field("gd", "gd, sam, unnormalised-sam, or any optax optimizer such as optax.adam")
    learning_rate: float = _field(0.02, "learning rate η; time is η × step")
    rho: float = _field(0.05, "SAM's radius ρ")
    num_steps: int = _field(50_000, "training steps")
    num_snapshots: int = _field(500, "evenly spaced snapshots of the model")
    threshold: float = _field(0.5, "share of its optimum at which a feature counts as learned")
    dtype: str = _field("float64", "floating-point precision", ("float64", "float32"))
    seed: int = _field(0, "seed of basis, prompts and initialisation (separate keys)")
    data_seed: int = _field(-1, "seed of basis and prompts alone; -1 takes the seed")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.eigenvalues):
            object.__setattr__(self, "dim", len(self.eigenvalues))
        for name, minimum in (("dim", 1), ("num_prompts", 1), ("num_heads", 1), ("num_steps", 1), ("num_snapshots", 2)):
            check_number(name, getattr(self, name), minimum=minimum, maximum=MOST_STEPS, integer=True)
        check_number("seed", self.seed, minimum=0, maximum=2**32 - 1, integer=True)
        check_number("data_seed", self.data_seed, minimum=-1, maximum=2**32 - 1, integer=True)
        check_number("upsampling_factor", self.upsampling_factor, minimum=0.0, exclusive=True)
        if self.upsampling_factor != 1 and not self.groups:
            remedy = "there is one group only; give [[groups]] in a TOML file, the last of them is upsampled"
            raise InputError("upsampling_factor", self.upsampling_factor, remedy)
        check_number("rank", self.rank, minimum=1, maximum=self.dim, integer=True)
        if self.rank > 1 and self.model != "separate":
            raise InputError("rank", self.rank, "only the separate model has a rank; leave it at 1")
        for name in ("learning_rate", "rho", "init_scale"):
            check_number(name, getattr(self, name), minimum=0.0)
        check_number("threshold", self.threshold, minimum=0.0, maximum=1.0, exclusive=True)
        if self.model == "cubic-mlp" and (self.blocks, self.scores) != ("reduced", "linear"):
            wrong = "blocks" if self.blocks != "reduced" else "scores"
            raise InputError(wrong, getattr(self, wrong), "the cubic-feature MLP is reduced and linear only")
        if self.data == "population" and self.scores == "softmax":
            raise InputError("data", "population", "softmax has no closed form; use data = prompts")
        if self.engine == "moments" and self.scores == "softmax":
            raise InputError("engine", "moments", "softmax attention is no function of moments; use engine = prompts")
        if self.engine == "prompts" and self.data == "population":
            raise InputError("engine", "prompts", "infinite data has no prompts; use data = prompts")
        if self.init == "aligned" and (self.model, self.rank, self.blocks, self.scores) != (
            "separate",
            1,
            "reduced",
            "linear",
        ):
            raise InputError("init", "aligned", "it needs the separate model of rank 1, reduced blocks, linear scores")
        if self.init == "reduced" and self.blocks == "reduced":
            raise InputError("init", "reduced", "reduced blocks always start so; take random, or blocks = full")
        if self.normalisation == "tokens" and self.scores == "softmax":
            raise InputError("normalisation", "tokens", "softmax attention divides by no number; leave it out")
        if self.optimizer not in OPTIMIZERS:
            optimizer_factory(self.optimizer)

    @property
    def mixture(self) -> tuple[tuple[Any, GroupConfig], ...]:
        """(share, settings) of each group; without `groups`, the config itself is the only group."""
        return self.groups or ((1.0, self),)

    @property
    def longest_context(self) -> int:
        """The largest number of context tokens in any group."""
        return max(group.num_context for _, group in self.mixture)

    @classmethod
    def from_mapping(cls, values: dict[str, Any]) -> RunConfig:
        """Build a config from names and values, as a TOML file holds them.

        Raises:
            InputError: A name is unknown (the nearest known one is named), or a value has the wrong type or range.
        """
        values = dict(values)
        groups = values.pop("groups", ())
        if not isinstance(groups, (list, tuple)) or any(not isinstance(table, dict) for table in groups):
            raise InputError("groups", groups, "write [[groups]] tables, each with a share")
        base = _implied_spectrum(_checked_values(cls, values))
        if base.get("eigenvalues"):
            for name, value in (("spectrum", "given"), ("dim", len(base["eigenvalues"]))):
                if base.get(name, value) != value:
                    raise InputError(name, base[name], "it contradicts eigenvalues; leave out one of the two")
        built = []
        for index, table in enumerate(groups):
            table = dict(table)
            if "share" not in table:
                raise InputError(f"groups[{index}].share", None, "give every group a share; they must sum to 1")
            share = table.pop("share")
            check_number(f"groups[{index}].share", share, minimum=0.0, maximum=1.0)
            inherited = {f.name: base[f.name] for f in dataclasses.fields(GroupConfig) if f.name in base}
            own = _implied_spectrum(_checked_values(GroupConfig, table))
            if "spectrum" in own:
                inherited.pop("eigenvalues", None)
            try:
                built.append((float(share), GroupConfig(**(inherited | own))))
            except InputError as error:
                raise InputError(f"groups[{index}].{error.field}", error.value, error.remedy) from None
        return cls(**base, groups=tuple(built))

    @classmethod
    def from_toml(cls, path: Path | str, overrides: dict[str, Any] | None = None) -> RunConfig:
        """Read a TOML file, with `overrides` replacing its values.

        Raises:
            InputError: `from_mapping` refuses the values, the file is unreadable, or a group sets an overridden field.
        """
        return cls.from_mapping(overridden(read_toml(path), overrides or {}))


def read_toml(path: Path | str) -> dict[str, Any]:
    """Read the tables of a TOML file.

    Raises:
        InputError: The file cannot be read or is not valid TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text())
    except OSError as error:
        raise InputError("config", str(path), f"cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError("config", str(path), f"is not valid TOML: {error}") from None


def overridden(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Replace some values of a TOML file; a new spectrum drops the eigenvalues and vice versa.

    Raises:
        InputError: A group sets an overridden field for itself.
    """
    values, groups = dict(values), values.get("groups", ())
    for table in groups if isinstance(groups, (list, tuple)) else ():
        for name in overrides.keys() & (table.keys() if isinstance(table, dict) else set()):
            raise InputError(name, overrides[name], "the groups set it each for itself; change it there")
    if "spectrum" in overrides:
        values.pop("eigenvalues", None)
    if "eigenvalues" in overrides:
        values = {name: value for name, value in values.items() if name not in ("spectrum", "dim")}
    return values | dict(overrides)


@lru_cache
def optimizer_factory(name: str) -> Callable[..., optax.GradientTransformation]:
    """Return the factory of `gd`, `sam`, `unnormalised-sam`, `optax.NAME` or `optax.contrib.NAME`.

    A factory takes `learning_rate`, those of SAM also `rho`.

    Raises:
        InputError: There is no such optimizer.
    """
    if name in OPTIMIZERS:
        from icl_theory.training.gradient_descent import gd
        from icl_theory.training.sam import sam, unnormalised_sam

        known: dict[str, Any] = {"gd": gd, "sam": sam, "unnormalised-sam": unnormalised_sam}
        return known[name]
    import jax
    import jax.numpy as jnp
    import optax

    from icl_theory.training.optimizer_step import initial_state, optimizer_step

    found: Any = optax if name.startswith("optax.") else None
    for part in name.split(".")[1:]:
        found = getattr(found, part, None)
    remedy = (
        f"give one of {', '.join(OPTIMIZERS)}, which are built in, or a factory of optax that needs learning_rate and "
        "nothing else, such as optax.adam"
    )
    if not callable(found):
        raise InputError("optimizer", name, remedy)

    def step(params: Any, **settings: Any) -> Any:
        return optimizer_step(found, settings, jnp.sum, params, initial_state(found, settings, params))

    try:
        jax.eval_shape(step, jnp.ones(2), learning_rate=0.1)
    except InputError as error:
        raise InputError("optimizer", name, f"{error.remedy}; {remedy}") from None
    return found


def _check_choices(config: Any) -> None:
    for field in dataclasses.fields(config):
        if field.metadata["choices"]:
            check_choice(field.name, getattr(config, field.name), field.metadata["choices"])


def _implied_spectrum(values: dict[str, Any]) -> dict[str, Any]:
    """Choose the spectrum to which a given number belongs, if no spectrum is given."""
    for name, spectrum in (("eigenvalue_ratio", "geometric"), ("exponent", "power-law")):
        if name in values and "spectrum" not in values and not values.get("eigenvalues"):
            return values | {"spectrum": spectrum}
    return values


def _checked_values(cls: type, values: dict[str, Any]) -> dict[str, Any]:
    known = {field.name: field for field in dataclasses.fields(cls)}
    checked = {}
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise InputError(name, value, f"unknown field; did you mean {near[0]}?" if near else "unknown field")
        default: Any = known[name].default
        if isinstance(default, tuple):
            if not isinstance(value, (list, tuple)):
                raise InputError(name, value, "give a list of numbers")
            for index, entry in enumerate(value):
                check_number(f"{name}[{index}]", entry)
            value = tuple(float(v) for v in value)
        elif isinstance(default, str):
            if not isinstance(value, str):
                raise InputError(name, value, "give a text")
        else:
            check_number(name, value, integer=isinstance(default, int))
            value = type(default)(value)
        checked[name] = value
    return checked
