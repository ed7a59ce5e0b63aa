"""One home for every setting, and everything that belongs into the wheel is in it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def contents():
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def words(text):
    return [word.strip() for word in re.split(r"[,\n]", text) if word.strip()]


def test_setup_cfg_says_what_enters_the_wheel_and_nothing_else():
    assert set(contents().sections()) == {"options", "options.package_data"}
    assert set(contents()["options"]) == {"packages", "package_dir"}
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
    assert all(pattern == "py.typed" or pattern.startswith("**/*.") for pattern in patterns)


def requirements():
    extras = PROJECT["project"]["optional-dependencies"]
    return [*PROJECT["project"]["dependencies"], *(line for lines in extras.values() for line in lines)]


@pytest.mark.parametrize("line", requirements())
def test_dependencies_have_floors_and_no_pins(line):
    assert not re.search(r"==|<|~=|!=|@", line)
    assert ">=" in line or line.startswith("netcontagion[")


def test_tests_are_stricter_than_life():
    options = PROJECT["tool"]["pytest"]["ini_options"]
    assert options["filterwarnings"] == ["error"]
    assert options["xfail_strict"] is True
    assert options["addopts"][-2:] == ["-m", "not slow"]
    assert PROJECT["tool"]["mypy"]["strict"] is True
    assert "T20" in PROJECT["tool"]["ruff"]["lint"]["select"], "a quiet library prints nothing"


def wanted():
    package, data = ROOT / "netcontagion", ROOT / "data"
    kinds = {".py", ".csv", ".toml", ".mplstyle"}
    files = {path for path in package.rglob("*") if path.suffix in kinds or path.name == "py.typed"}
    names = {str(path.relative_to(ROOT)) for path in files}
    bundled = {path for path in data.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    return names | {str(Path("netcontagion/data") / path.relative_to(data)) for path in bundled}


@pytest.mark.slow
def test_the_wheel_holds_every_file(tmp_path):
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--quiet",
        "-w",
        str(tmp_path),
        "--",
        str(copy_of_root(tmp_path)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    scripts = {name for name in held if name.startswith("netcontagion/data/") and name.endswith(".py")}
    assert held - scripts == wanted()


def copy_of_root(tmp_path):
    """Build from a copy: a build folder of another day must not fill the wheel, nor this one the checkout."""
    import shutil

    target = tmp_path / "source"
    target.mkdir()
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, target / name)
    for name in ("netcontagion", "data"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    return target
