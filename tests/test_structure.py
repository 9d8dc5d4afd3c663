"""The import graph: no circles, data flow one way, and importing is cheap."""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("jax", "flax", "optax", "diffrax", "scipy", "xarray", "zarr", "matplotlib", "pyarrow", "rich", "transformers")
LONGEST = 300  # lines of a file


def modules():
    """File of every module of the package, the experiments and the figures."""
    found = {}
    for folder in ("icl_theory", "experiments", "figures"):
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports():
    """Which modules each module imports, anywhere in its file."""
    known, graph = modules(), defaultdict(set)
    for name, path in known.items():
        graph[name] |= set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                graph[name] |= {
                    f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in known else node.module
                    for alias in node.names
                }
            elif isinstance(node, ast.Import):
                graph[name] |= {alias.name for alias in node.names}
    return {name: {other for other in found if other in known and other != name} for name, found in graph.items()}


def circle(graph):
    """One circle in a graph, as a list of names; empty where there is none."""
    done = set()

    def follow(name, path):
        if name in path:
            return path[path.index(name) :]
        if name in done:
            return []
        for other in sorted(graph.get(name, ())):
            if found := follow(other, [*path, name]):
                return found
        done.add(name)
        return []

    for name in sorted(graph):
        if found := follow(name, []):
            return found
    return []


def packages(graph):
    """The same between packages of the first level; modules at the root stand for themselves."""
    joined = defaultdict(set)
    for name, found in graph.items():
        here = ".".join(name.split(".")[:2])
        joined[here] |= {".".join(other.split(".")[:2]) for other in found} - {here, "icl_theory"}
    return joined


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c"]
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []


def test_no_circle_between_files():
    graph = imports()
    assert len(graph) > 150
    assert circle({name: found - {"icl_theory"} for name, found in graph.items()}) == []


def test_packages_import_those_above_them():
    """In the order of the table in CONTRIBUTING.md."""
    table = re.findall(r"^\| (`icl_theory/.*?) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    order = [name for row in table for name in re.findall(r"`(?:icl_theory/)?(\w+)`", row)]
    assert len(order) == 13
    graph = packages(imports())
    for place, name in enumerate(order):
        below = {f"icl_theory.{other}" for other in order[place + 1 :]}
        assert graph[f"icl_theory.{name}"] & below == set(), name


def test_no_circle_between_packages():
    assert circle(packages({name: found for name, found in imports().items() if name.startswith("icl_theory.")})) == []


@pytest.mark.parametrize(
    "below", ["numerics", "tasks", "models", "moments", "training", "analysis", "upsampling", "llm"]
)
def test_nothing_that_trains_imports_the_theory(below):
    graph = packages(imports())
    assert f"icl_theory.{below}" in graph
    assert "icl_theory.theory" not in graph[f"icl_theory.{below}"]


def test_the_package_does_not_know_its_experiments_and_figures():
    for name, found in imports().items():
        wrong = {other for other in found if other.split(".")[0] in ("experiments", "figures")}
        assert not (name.startswith("icl_theory") and wrong), name
        assert not (name.startswith("figures") and any(other.startswith("experiments") for other in wrong)), name


def test_few_modules_at_the_root():
    assert len(list((ROOT / "icl_theory").glob("*.py"))) <= 8


def test_files_are_read_in_one_sitting():
    lengths = {name: len(path.read_text().splitlines()) for name, path in modules().items()}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


@pytest.mark.parametrize("code", ["import icl_theory", "from icl_theory.cli import main; main(['--help'])"])
def test_importing_loads_nothing_heavy(code):
    """Also with the command line's help; the interpreter itself tells what it loaded."""
    report = f"import sys\ntry:\n    {code.replace('; ', chr(10) + '    ')}\nfinally:\n    print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, cwd=ROOT)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "icl_theory" in loaded, done.stderr
    assert loaded & set(HEAVY) == set()


def test_every_public_name_can_be_had():
    import icl_theory

    assert len(icl_theory.__all__) > 80
    for name in icl_theory.__all__:
        assert getattr(icl_theory, name) is not None
