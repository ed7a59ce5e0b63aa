"""The page on models: every test it names exists, every cell of its table of laws names one, no model is left out."""

from __future__ import annotations

import ast
import functools
import inspect
import re
from pathlib import Path

import pytest

from netcontagion import clearing
from netcontagion.clearing._models import MODELS

TESTS = Path(__file__).resolve().parent
PAGE = (TESTS.parent / "docs" / "models.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`tests/(\w+\.py)::([\w:]+)`", PAGE)))
FILES = sorted(set(re.findall(r"`tests/(\w+\.py)", PAGE)))


def rows_of(title):
    """Cells of the first table under a title, without its head."""
    section = PAGE.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


@functools.cache
def names_in(name):
    """Names of the tests of a file, those of a class as Class::test."""
    found = set()
    for node in ast.parse((TESTS / name).read_text(encoding="utf-8")).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        found |= {f"{prefix}{one.name}" for one in inner if isinstance(one, ast.FunctionDef)}
    return {name for name in found if name.rpartition("::")[2].startswith("test")}


@pytest.mark.parametrize("name", FILES)
def test_every_file_that_is_named_exists(name):
    assert (TESTS / name).is_file()


@pytest.mark.parametrize(("file", "name"), NAMED, ids=lambda part: part)
def test_every_test_that_is_named_exists(file, name):
    assert name in names_in(file)


def test_nothing_that_looks_like_a_test_is_written_in_another_way():
    assert len(NAMED) > 60
    assert PAGE.count("::test") == len(re.findall(r"`tests/\w+\.py::(?:\w+::)?test\w+`", PAGE))


def test_every_law_names_its_test_or_says_why_it_has_no_meaning():
    rows = rows_of("Laws per model")
    assert len(rows) >= 17
    for model, *laws in rows:
        assert len(laws) == 4, model
        for law in laws:
            assert law.startswith(("yes", "no", "- (")), (model, law)
            for part in [] if law.startswith("- (") else law.split("<br>"):
                assert "`tests/" in part, (model, part)


def test_every_model_of_clear_is_described():
    described = {row[0].split()[0].strip('`"') for row in rows_of("How to call a model")}
    assert described == set(MODELS)


PUBLIC = {name: getattr(clearing, name) for name in clearing.__all__}
FUNCTIONS = [name for name, value in PUBLIC.items() if inspect.isfunction(value)]
VALUATIONS = [name for name, value in PUBLIC.items() if hasattr(value, "monotone")]


@pytest.mark.parametrize("name", [*FUNCTIONS, *VALUATIONS])
def test_every_public_function_and_valuation_is_mentioned(name):
    assert re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`", PAGE)


def test_functions_and_valuations_are_found():
    assert len(FUNCTIONS) >= 24
    assert len(VALUATIONS) >= 6
