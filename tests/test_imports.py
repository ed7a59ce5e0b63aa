"""Importing is quick, in whatever order it happens nothing is overwritten, and what is imported is declared."""

from __future__ import annotations

import ast
import logging
import os
import random
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from seeds import slow

import netcontagion as nc

PACKAGE = Path(nc.__file__).parent
ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HEAVY = ["pandas", "igraph", "matplotlib", "numba", "networkx", "narwhals", "pooch", "requests", "tqdm"]
MODULES = sorted(
    ".".join(("netcontagion", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if path.stem != "__main__"
)


def run(code, **environment):
    command = [sys.executable, "-W", "error", "-c", code]
    env = {**os.environ, "MPLBACKEND": "Agg", **environment}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_imports_nothing_heavy():
    found = run(f"import sys, netcontagion; print([m for m in {[*HEAVY, 'scipy', 'numpy']} if m in sys.modules])")
    assert found.strip() == "[]"


@pytest.mark.parametrize(
    "room",
    ["network", "builders", "clearing", "margining", "generators", "datasets", "figures", "ranking", "scenarios"],
)
def test_a_room_imports_nothing_heavy_until_it_is_used(room):
    found = run(f"import sys, netcontagion.{room}; print([m for m in {HEAVY} if m in sys.modules])")
    assert found.strip() == "[]"


CALLS = """
import netcontagion as nc
net = nc.ExposureNetwork(
    traders={"trader": ["a", "b"], "external_assets": [1.0, 2.0]},
    liabilities={"debtor": ["a"], "creditor": ["b"], "amount": [3.0]},
)
assert callable(nc.load) and callable(nc.merge)
assert nc.merge(net).labels("traders").tolist() == ["a", "b"]
assert nc.clear(net).payments.tolist()[0] == 1.0
assert nc.clearing.eisenberg_noe([[0, 3], [0, 0]], [1, 2]).payments.tolist() == [1.0, 0.0]
assert callable(nc.cascade) and callable(nc.contagion_map)
assert nc.builders.depth_at(1.0) > 0
for name in nc.__all__:
    value = getattr(nc, name)
    assert type(value).__name__ == "module" or callable(value), name
"""


@pytest.mark.parametrize("order", ["sorted", "reversed", *slow(1, 2)])
def test_the_order_of_imports_does_not_matter(order):
    names = sorted(MODULES, reverse=order == "reversed")
    if isinstance(order, int):
        random.Random(order).shuffle(names)
    run("\n".join(f"import {name}" for name in names) + CALLS)


def test_names_are_found_without_importing_a_room_first():
    run(CALLS)


# dependencies -----------------------------------------------------------------------------------------------------


def third_party(*paths):
    """Top-level names that files import at any depth, without the standard library and the package itself."""
    names = set()
    for node in (node for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - {"netcontagion"}


def declared(lines):
    return {canonicalize_name(Requirement(line).name) for line in lines}


def providers():
    """Import name -> distributions that install it."""
    return {name: {canonicalize_name(one) for one in found} for name, found in packages_distributions().items()}


def test_the_package_declares_what_it_imports_and_nothing_else():
    names, known = declared(PROJECT["dependencies"]), providers()
    imported = {name: known.get(name, {name}) for name in third_party(*PACKAGE.rglob("*.py"))}
    assert {name for name, found in imported.items() if not found & names} == set(), "imported, not declared"
    assert names - set().union(*imported.values()) == set(), "declared, never imported"


def test_the_tests_and_scripts_import_what_the_test_extra_installs():
    names, known = declared([*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]), providers()
    files = [path for folder in ("tests", "benchmarks", "data") for path in (ROOT / folder).rglob("*.py")]
    beside = {path.stem for path in (ROOT / "tests").glob("*.py")}
    assert {name for name in third_party(*files) - beside if not known.get(name, {name}) & names} == set()


def test_imports_are_seen_wherever_they_stand(tmp_path):
    path = tmp_path / "module.py"
    path.write_text("import os\nfrom . import y\ndef f():\n    import a.b as c\n    from d.e import f\n")
    assert third_party(path) == {"a", "d"}


# kernels ----------------------------------------------------------------------------------------------------------


def test_a_kernel_works_where_no_folder_can_be_written(monkeypatch, caplog):
    import numba

    from netcontagion._compile import kernel

    njit = numba.njit

    def without_cache(*args, **options):
        if options.get("cache"):
            message = "cannot cache function 'double': no locator available for file 'x.py'"
            raise RuntimeError(message)
        return njit(*args, **options)

    monkeypatch.setattr(numba, "njit", without_cache)

    @kernel
    def double(x):
        """Double a number."""
        return 2 * x

    with caplog.at_level(logging.INFO, logger="netcontagion"):
        assert double(2.0) == double.__wrapped__(2.0) == 4.0
        assert double(3.0) == 6.0
    assert len(caplog.records) == 1
    assert "double" in caplog.text
    assert double.__doc__ == "Double a number."


def test_declaring_a_kernel_does_not_import_numba():
    run("import sys, netcontagion._compile as c; k = c.kernel(lambda x: x); assert 'numba' not in sys.modules")
