"""The house: imports go down only, doors are the only way in, every name has a place."""

from __future__ import annotations

import ast
import inspect
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import netcontagion as nc
from netcontagion.network import schema

PACKAGE = Path(nc.__file__).parent
FLOORS = [
    {"figures", "reporting"},
    {"ranking", "scenarios", "events"},
    {"clearing", "margining"},
    {"builders", "generators", "datasets"},
    {"network"},
    {"errors", "_status", "_iterate", "_arrays", "_compile"},
]
SIDEWAYS = {
    ("reporting", "figures"),
    ("ranking", "scenarios"),
    ("events", "scenarios"),
    ("margining", "clearing"),
    ("datasets", "builders"),
}
GROUND = {("_iterate", "_status")}  # the loop returns a status
LEVEL = {room: len(FLOORS) - height for height, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def room_of(path):
    parts = path.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py")


def imported(path):
    """Dotted names of the package that a module imports, at any depth, also for type checking."""
    package = ["netcontagion", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("netcontagion."))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "netcontagion":
            if not node.attr.startswith("__"):
                yield f"netcontagion.{node.attr}"
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            if name == "netcontagion":
                yield from (f"netcontagion.{alias.name}" for alias in node.names)
            elif name.startswith("netcontagion."):
                yield name


def rooms_imported(path):
    home = nc._HOME  # ``from netcontagion import ExposureNetwork`` opens the room it lives in
    for name in imported(path):
        room = name.split(".")[1]
        yield home.get(room) or room


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path):
    room = room_of(path)
    if room in ("__init__", "__main__", "cli"):
        return  # the front door and the command line may open any room
    assert room in LEVEL, "a room that the house does not know"
    for other in set(rooms_imported(path)) - {room}:
        assert other in LEVEL, f"{path.name} imports {other}"
        down = LEVEL[other] < LEVEL[room]
        assert down or (room, other) in SIDEWAYS | GROUND, f"{path.name} ({room}) imports {other}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_is_entered_by_its_door(path):
    for name in imported(path):
        room, *inside = name.split(".")[1:]
        stranger = room != room_of(path) and room in ROOMS
        assert not (stranger and inside and inside[0].startswith("_")), f"{path.name} imports {name}"


def test_this_test_sees_imports_inside_functions():
    names = set(imported(PACKAGE / "network" / "_network.py"))
    assert {"netcontagion.network._storage", "netcontagion.errors"} <= names
    assert "network" in set(rooms_imported(PACKAGE / "builders" / "_table.py"))


@pytest.mark.parametrize("room", ROOMS)
def test_the_modules_of_a_room_are_private(room):
    modules = [path.stem for path in (PACKAGE / room).glob("*.py") if path.stem != "__init__"]
    assert all(name.startswith("_") for name in modules)
    assert not list((PACKAGE / room).glob("*/__init__.py")), "rooms have no rooms inside"


def public(module):
    return {name: getattr(module, name) for name in module.__all__}


def test_no_room_bears_the_name_of_a_function():
    functions = {name for name, value in public(nc).items() if not inspect.ismodule(value)}
    for room in ROOMS:
        functions |= set(public(import_module(f"netcontagion.{room}")))
    modules = {path.stem for path in PACKAGE.glob("*.py")} | set(ROOMS)
    assert not functions & modules


@pytest.mark.parametrize("room", [*ROOMS, "errors", "_arrays", "_compile", "_iterate", "_status"])
def test_every_public_name_says_what_it_does(room):
    module = import_module(f"netcontagion.{room}")
    assert module.__doc__
    for name, value in public(module).items():
        if not (inspect.isfunction(value) or inspect.isclass(value)):
            continue
        assert inspect.getdoc(value), f"{room}.{name}"
        members = vars(value).items() if inspect.isclass(value) else ()
        for member, function in members:
            if not member.startswith("_") and callable(getattr(value, member)):
                inner = getattr(function, "__func__", function)
                assert inspect.getdoc(inner) or inspect.isclass(inner), f"{room}.{name}.{member}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_says_what_it_is_for_and_what_it_offers(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    names = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    assert "__all__" in names or path.stem == "__main__"


# the schema -------------------------------------------------------------------------------------------------------


def test_the_schema_holds_every_table_of_the_constructor():
    parameters = inspect.signature(nc.ExposureNetwork).parameters
    assert [name for name in parameters if name not in ("numeraire", "complete")] == list(schema())
    assert all(value.kind is inspect.Parameter.KEYWORD_ONLY for value in parameters.values())


def test_every_column_of_the_schema_makes_sense():
    tables = schema()
    for table, columns in tables.items():
        keys = [column.key for column in columns.values()]
        assert keys[0], f"{table}: keys come first"
        assert keys == sorted(keys, reverse=True), f"{table}: keys come first"
        for column in columns.values():
            place = f"{table}.{column.name}"
            assert column.meaning, place
            assert column.dtype in ("label", "text", "name", "number", "integer", "boolean") or (
                column.refers_to in ("nodes", *tables)
            ), place
            if column.numeric:
                assert column.unit or column.dtype == "integer", place
                assert str(column.interval) == column.allowed, place
            if column.numeric and not column.required and not column.nullable:
                assert column.interval.holds(np.array([column.default_value], dtype=float)).all(), place
            if column.choices and not column.required and not column.nullable:
                assert column.default_value in column.choices, place
            assert not (column.key and column.nullable), place
