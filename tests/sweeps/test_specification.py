"""What a sweep is: axes are read and labelled with their decimals, and bad ones are named."""

import jax.numpy as jnp
import numpy as np
import pytest

from icl_theory import InputError
from icl_theory.sweeps.axes import parse_axis
from icl_theory.sweeps.specification import Sweep


def test_an_axis_that_matters_at_some_values_of_another_is_taken():
    grid = {"fixed_task_share": [0.0, 0.3], "data_seed": range(3)}
    assert Sweep.create({"basis": "axes"}, grid=grid).num_runs == 6
    grid = {"data_seed": [5, -1], "seed": range(3)}
    assert Sweep.create({"init": "aligned"}, grid=grid).num_runs == 6


@pytest.mark.parametrize(
    "bases",
    [
        ({"eigenvalues": [2.0, 1.0]}, {"eigenvalues": [3.0, 1.0]}),
        ({"exponent": 1.0}, {}),
        ({"num_context": 5}, {"num_context": 6}),
    ],
)
def test_sweeps_that_differ_in_later_points_only_are_different(bases):
    points = [{"spectrum": "white", "dim": 2, "num_context": 9}, {"rho": 0.1}]
    one, other = (Sweep.create({"optimizer": "sam"} | base, points=points) for base in bases)
    assert one.config([0]) == other.config([0])
    assert one.config([1]) != other.config([1])
    assert one.description != other.description


def test_points_are_labelled_with_what_they_are():
    points = [{"spectrum": "white"}, {"eigenvalue_ratio": 3.0}, {"eigenvalues": [2.0, 1.0000001]}, {"dim": 3}]
    labels = {name: values for name, (_, values) in Sweep.create(points=points).coordinates.items()}
    assert labels["spectrum"] == ["white", "geometric", "given", "linear"]
    assert labels["dim"] == [4, 4, 2, 3]
    assert labels["eigenvalues"] == ["", "", "2,1.0000001", ""]


@pytest.mark.parametrize(
    "values",
    [
        np.linspace(0.0, 0.5, 6),  # with 0.30000000000000004
        np.linspace(0.5, 0.0, 6)[::-1],  # with 0.09999999999999998
        np.arange(0.5, -0.05, -0.1)[::-1],  # with 1.1102230246251565e-16
        np.arange(6, dtype=np.float32) * np.float32(0.1),
        jnp.linspace(0.0, 0.5, 6, dtype=jnp.float32),
        [jnp.float32(0.0), jnp.float32(0.1), 0.2, 0.3, 0.4, 0.5],
        [np.float32(0.0), np.float64(0.1), 0.2, 0.1 + 0.2, 0.4, 0.5],
        "0:0.5:6",
    ],
)
def test_a_grid_is_labelled_with_its_decimals(values):
    swept = Sweep.create({"optimizer": "sam"}, grid={"rho": values})
    assert swept.coordinates["rho"] == ("rho", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5])


def test_values_that_stand_for_no_decimal_stay():
    for values in (
        [1 / 3, 2 / 3],
        [0.1234567890123456, 0.7],
        [1e-300, 1e-9],
        [0.3, 0.1 + 0.2],
        [1e-16, 0.5, 1.0],
        [1e-16 / 3, 1 / 3, 7.0],
    ):
        assert Sweep.create(grid={"learning_rate": values}).coordinates["learning_rate"][1] == values
    assert Sweep.create(grid={"learning_rate": "0:1:4"}).coordinates["learning_rate"][1][1] == 1 / 3
    single = np.asarray([1 / 3, 0.123456], np.float32)
    labels = Sweep.create(grid={"learning_rate": single}).coordinates["learning_rate"][1]
    assert labels == [0.33333334, 0.123456]
    assert np.array_equal(np.asarray(labels, np.float32), single)
    assert Sweep.create(points=[{"seed": 1, "learning_rate": 0.1 + 0.2}]).coordinates["learning_rate"][1] == [0.3]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("rho=0:0.1:5", [0.0, 0.025, 0.05, 0.075, 0.1]),
        ("rho = 0, 0.5", [0.0, 0.5]),
        ("seed=3:6", [3, 4, 5]),
        ("num_context=10:30:3", [10, 20, 30]),
        ("learning-rate=1e-3:1e-1:3:log", [0.001, 0.01, 0.1]),
        ("optimizer=gd,sam", ["gd", "sam"]),
        ("eigenvalues=2,1;3,1", [(2.0, 1.0), (3.0, 1.0)]),
    ],
)
def test_axes_are_read(text, values):
    axis = parse_axis(text)
    assert [setting[axis.name] for setting in axis.settings] == values
    assert all(type(setting[axis.name]) is type(value) for setting, value in zip(axis.settings, values, strict=True))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"grid": {}}, "at least one axis"),
        ({"grid": {"rhoo": [1]}}, "did you mean rho"),
        ({"grid": {"rho": []}}, "list of values"),
        ({"grid": {"rho": 0.5}}, "list of values"),
        ({"grid": {"rho": [0.1, 0.1]}}, "twice"),
        ({"grid": {"rho": [0.1, 0.2]}}, "changes nothing with optimizer = gd"),
        ({"grid": {"exponent": [1, 2]}, "base": {"spectrum": "linear"}}, "changes nothing"),
        ({"grid": {"rank": [1, 5]}}, "at most 4"),
        ({"grid": {"dim": [4, 2], "rank": [1, 3]}}, "at most 2"),
        ({"grid": {"dim": [1, 2], "fixed_task_share": [0.0, 0.5], "init": ["aligned", "random"]}}, "init"),
        ({"grid": {"rho": [{"a": 1}]}}, "numbers or texts"),
        ({"grid": {"eigenvalues": [[[1, 2]]]}}, "numbers or texts"),
        ({"points": [{"rho": [[1], [1, 2]]}]}, "numbers or texts"),
        ({"grid": {"rho": [1.0, 2.0]}, "base": {"rho": 0.5, "optimizer": "sam"}}, "it is on an axis too"),
        ({"grid": {"seed": [1, 2**40]}}, "seed"),
        ({"grid": {"seed": [1, 1.5]}}, "seed"),
        ({"grid": {"learning_rate": [0.1, float("nan")]}}, "finite"),
        ({"grid": {"learning_rate": [0.1, "fast"]}}, "finite number"),
        ({"grid": {"eigenvalues": [(1, 2), (0, 0)]}}, "positive"),
        ({"grid": {"model": ["separate", "mamba"]}}, "merged"),
        ({"grid": {"seed": [1, 2]}, "base": {"groups": 3}}, "groups"),
        ({"grid": {"noise_std": [0.1]}, "base": {"groups": [{"share": 1.0, "noise_std": 0.3}]}}, "groups set it"),
        ({"grid": {"upsampling_factor": [1, 2]}}, "one group only"),
        ({"grid": {"init": ["random", "reduced"]}}, "blocks = full"),
        ({"points": [{}]}, "points"),
        ({"points": {"rho": 1}}, "points"),
        ({"points": [{"seed": 1}], "grid": {"seed": [1]}}, "one axis only"),
        ({"grid": {"seed": [1, 2]}, "base": {"blocks": "full"}, "system": "reduced"}, "separate heads of rank 1"),
        ({"grid": {"seed": [1, 2]}, "system": "both"}, "auto"),
        ({"grid": {"num_steps": [10, 20]}, "curves": True}, "one schedule"),
        ({"grid": {"seed": [1, 2], "fixed_task_share": [0.0, 0.5]}, "base": {"init": "aligned"}}, "init"),
    ],
)
def test_bad_sweeps_name_field_and_remedy(settings, words):
    with pytest.raises(InputError, match=words):
        Sweep.create(settings.pop("base", None), **settings)


def test_a_toml_file_holds_a_whole_sweep(tmp_path):
    (tmp_path / "sweep.toml").write_text(
        'optimizer = "sam"\nsystem = "full"\ncurves = true\n[grid]\nrho = "0:0.1:3"\nseed = [1, 2]\n'
        "[[groups]]\nshare = 0.5\n[[groups]]\nshare = 0.5\nnoise_std = 0.1\n"
    )
    found = Sweep.from_toml(tmp_path / "sweep.toml", base={"dim": 3}, grid=(parse_axis("rho=0.2,0.3"),))
    assert found.curves
    assert found.system == "full"
    assert {axis.name: len(axis) for axis in found.axes} == {"seed": 2, "rho": 2}
    assert found.config([0, 1]).rho == 0.3
    assert found.config([0, 1]).dim == 3
    for text, words in (("grid = 3\n", "table"), ("[grid]\nrho = 'a:b:c'\n", "not a number"), ("curves = 1\n", "true")):
        (tmp_path / "bad.toml").write_text(text)
        with pytest.raises(InputError, match=words):
            Sweep.from_toml(tmp_path / "bad.toml", grid=(parse_axis("seed=0:2"),) if "curves" in text else ())
