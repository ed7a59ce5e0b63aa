"""One home for every setting, and the wheel, the sdist and the README hold what they should, and nothing else."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from configparser import ConfigParser
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import netcontagion as nc
from netcontagion import cli

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def contents():
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def words(text):
    return [word.strip() for word in re.split(r"[,\n]", text) if word.strip()]


def test_setup_cfg_says_what_enters_the_wheel_and_nothing_else():
    made = {"egg_info"}  # setuptools adds it in an sdist
    assert set(contents().sections()) - made == {"options", "options.package_data"}
    assert set(contents()["options"]) == {"include_package_data", "packages", "package_dir"}
    assert contents()["options"]["include_package_data"] == "False", "what MANIFEST.in lists is for the sdist alone"
    assert "setuptools" not in PROJECT["tool"]


def test_no_setting_has_a_second_home():
    for name in (
        "pytest.ini",
        ".pytest.ini",
        ".coveragerc",
        "mypy.ini",
        ".mypy.ini",
        "tox.ini",
        "ruff.toml",
        ".ruff.toml",
        "setup.py",
    ):
        assert not (ROOT / name).exists(), name


def test_every_package_is_listed():
    folders = sorted(path.parent for path in (ROOT / "netcontagion").rglob("__init__.py"))
    packages = [".".join(folder.relative_to(ROOT).parts) for folder in folders]
    assert sorted(words(contents()["options"]["packages"])) == sorted([*packages, "netcontagion.data"])
    assert words(contents()["options"]["package_dir"]) == ["netcontagion = netcontagion", "netcontagion.data = data"]


@pytest.mark.parametrize("package", ["netcontagion", "netcontagion.data"])
def test_patterns_reach_into_folders(package):
    patterns = words(contents()["options.package_data"][package])
    assert all(pattern == "py.typed" or pattern.startswith("**/") for pattern in patterns)


# dependencies -----------------------------------------------------------------------------------------------------


def requirements():
    extras = PROJECT["project"]["optional-dependencies"]
    given = [*PROJECT["project"]["dependencies"], *(line for lines in extras.values() for line in lines)]
    return [Requirement(line) for line in given if not line.startswith("netcontagion[")]


def floor(requirement):
    """Return the lowest version a requirement takes; anything but one plain floor is refused."""
    (only,) = requirement.specifier
    assert only.operator == ">=", f"{requirement}: a floor, no pin and no upper bound"
    assert requirement.url is None
    assert not Version(only.version).is_prerelease
    return Version(only.version)


@pytest.mark.parametrize(
    "requirement", [*requirements(), *map(Requirement, PROJECT["build-system"]["requires"])], ids=str
)
def test_dependencies_have_floors_and_no_pins(requirement):
    assert floor(requirement) > Version("0")


@pytest.mark.parametrize("line", ["a", "a==1", "a>=1,<2", "a~=1.0", "a>1", "a>=1rc1", "a @ https://b.c/a.whl"])
def test_anything_but_a_floor_is_refused(line):
    with pytest.raises((AssertionError, ValueError)):
        floor(Requirement(line))


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_what_runs_here_is_not_older_than_the_floor(requirement):
    try:
        here = version(requirement.name)
    except PackageNotFoundError:
        pytest.skip(f"{requirement.name} is not installed: an extra")
    assert Version(here) >= floor(requirement)


def test_no_distribution_is_required_twice():
    names = [requirement.name for requirement in requirements()]
    assert sorted(names) == sorted(set(names))


def test_the_floor_of_python_is_the_one_that_is_checked():
    lowest = floor(Requirement(f"python{PROJECT['project']['requires-python']}"))
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{lowest.major}{lowest.minor}"
    assert sys.version_info >= lowest.release


def test_tests_are_stricter_than_life():
    options = PROJECT["tool"]["pytest"]["ini_options"]
    assert options["filterwarnings"] == ["error"]
    assert options["xfail_strict"] is True
    assert "-m not slow" in " ".join(options["addopts"])
    assert PROJECT["tool"]["mypy"]["strict"] is True
    assert "T20" in PROJECT["tool"]["ruff"]["lint"]["select"], "a quiet library prints nothing"


# wheel and sdist --------------------------------------------------------------------------------------------------

CLUTTER = (
    ".pytest_cache/x",
    "data/.DS_Store",
    "dist/x.whl",
    "docs/.x.swp",
    "netcontagion/__pycache__/x.pyc",
    "notebooks/.ipynb_checkpoints/x.ipynb",
    "tests/.hypothesis/x",
    "tests/__pycache__/x.pyc",
)
FOLDERS = ("netcontagion", "data", "tests", "docs", "notebooks", "benchmarks")
LOOSE = ("pyproject.toml", "setup.cfg", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md")


def tracked(folder):
    """Files of a folder of the checkout, without caches and hidden files."""
    paths = (path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file())
    return {path for path in paths if not any(part.startswith((".", "__pycache__")) for part in path.parts)}


def wanted_in_wheel():
    code = {path for path in tracked("netcontagion") if path.suffix in (".py", ".csv", ".toml", ".mplstyle", ".typed")}
    data = {path for path in tracked("data") if path.suffix in (".csv", ".json") or path.name == "SOURCE.md"}
    return {path.as_posix() for path in code} | {f"netcontagion/{path.as_posix()}" for path in data}


def wanted_in_sdist():
    return {path.as_posix() for folder in FOLDERS for path in tracked(folder)} | set(LOOSE)


def held(wheel):
    return {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, **options)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy to build from, with the clutter of a busy day: none of it may enter, nor a build leave any here."""
    target = tmp_path_factory.mktemp("source")
    for name in LOOSE:
        shutil.copy(ROOT / name, target / name)
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in CLUTTER:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).touch()
    return target


@pytest.fixture(scope="module")
def sdist(source, tmp_path_factory):
    pytest.importorskip("build", reason="needs the dev extra")
    out = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "build", "--sdist", "--outdir", str(out), str(source))
    (archive,) = out.iterdir()
    with tarfile.open(archive) as opened:
        opened.extractall(out, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))  # since 3.11.4
    (unpacked,) = (path for path in out.iterdir() if path.is_dir())
    return unpacked


def build_wheel(source, out):
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", str(out), "--", str(source))
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.mark.slow
def test_the_sdist_holds_everything_and_no_clutter(sdist):
    names = {path.relative_to(sdist).as_posix() for path in sdist.rglob("*") if path.is_file()}
    made = {name for name in names if name.startswith("netcontagion.egg-info/")} | {"PKG-INFO"}
    assert names - made == wanted_in_sdist()
    assert {"tests/conftest.py", "tests/references/eisenberg_noe.json", "data/scripts/market.py"} <= names


@pytest.mark.slow
def test_the_suite_runs_from_the_sdist(sdist):
    there = {"cwd": sdist, "env": {**os.environ, "PYTHONPATH": str(sdist)}}
    quiet = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0")
    run(*quiet, "--collect-only", **there)
    run(*quiet, "tests/test_config.py", "tests/test_datasets.py", "tests/test_published_clearing.py", **there)


@pytest.mark.slow
def test_the_wheel_holds_what_it_should_and_nothing_else(source, tmp_path):
    assert held(build_wheel(source, tmp_path)) == wanted_in_wheel()


@pytest.mark.slow
def test_the_wheel_from_the_sdist_is_the_same(sdist, tmp_path):
    assert held(build_wheel(sdist, tmp_path)) == wanted_in_wheel()


# what a reader is told --------------------------------------------------------------------------------------------

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, block in BLOCKS if kind == "bash" for line in block.splitlines() if line]


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "docs/design.md", "data/market/SOURCE.md"])
def test_links_lead_somewhere(name):
    path = ROOT / name
    links = re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8"))
    assert links or name != "README.md"
    for link in links:
        assert link.startswith("https://") or (path.parent / link).exists(), link


def test_the_readme_links_only_to_what_the_sdist_holds():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    wanted = wanted_in_sdist()
    assert all(any(name == link or name.startswith(link.rstrip("/") + "/") for name in wanted) for link in links)


def test_the_commands_of_the_readme_are_the_ones_that_are_checked():
    script = ROOT / ".ci" / "run"
    if not script.is_file():
        pytest.skip("an sdist has no .ci")
    for command in ("pip install . && netcontagion demo", 'pip install -e ".[test]" && pytest'):
        assert command in COMMANDS
        assert f"README: {command}".replace('"', "'") in script.read_text(encoding="utf-8")


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("netcontagion")])
def test_the_command_line_takes_what_the_readme_says(command):
    arguments = cli._parser().parse_args(shlex.split(command, comments=True)[1:])
    assert callable(arguments.command)


@pytest.mark.slow
def test_the_python_of_the_readme_runs(capsys):
    import matplotlib.pyplot as plt

    table = {
        "wallet": ["ann", "ann", "bob", "bob"],
        "protocol": ["Aave"] * 4,
        "token": ["WETH", "USDC", "USDC", "WETH"],
        "side": ["collateral", "debt", "collateral", "debt"],
        "units": [100.0, 130_000.0, 50_000.0, 10.0],
    }
    names = {"table": table}
    blocks = [block for kind, block in BLOCKS if kind == "python"]
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    plt.close("all")
    assert "ETH family -30 %" in capsys.readouterr().out
    said = re.search(r"eisenberg_noe\(.*\)\.payments +# ([\d., ]+)", README)
    expression = said[0].partition("#")[0]
    assert eval(expression, names) == pytest.approx([float(number) for number in said[1].split(",")], abs=5e-5)


def test_the_changelog_is_of_this_version():
    latest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert latest[1] == PROJECT["project"]["version"] == nc.__version__
