"""Kernels in the cache: what a kernel is compiled from decides where it is kept."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest

from netcontagion import _compile
from netcontagion.margining import _answers, _sales, _trading


def write(folder, name, text):
    (folder / f"{name}.py").write_text("from netcontagion._compile import kernel\n" + textwrap.dedent(text))


def answer(folder, call="upper.total(1.0)"):
    """What a call returns in a new process that shares the cache of kernels."""
    code = f"import lower, upper; print({call})"
    there = os.environ | {"NUMBA_CACHE_DIR": str(folder / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    there["PYTHONPATH"] = os.pathsep.join([str(folder), str(Path.cwd())])
    done = subprocess.run([sys.executable, "-c", code], env=there, capture_output=True, text=True, check=True)
    return float(done.stdout)


def test_a_change_in_another_module_is_a_new_kernel(tmp_path):
    """Two modules away, and a number of another module: the file of the upper kernel itself never changes."""
    write(tmp_path, "lower", "STEP = 0.0\n@kernel\ndef more(x):\n    return x + 1.0\n")
    write(tmp_path, "middle", "from lower import more\n@kernel\ndef twice(x):\n    return more(more(x))\n")
    upper = "from lower import STEP\nfrom middle import twice\n@kernel\ndef total(x):\n    return twice(x) + STEP\n"
    write(tmp_path, "upper", upper)
    assert answer(tmp_path) == answer(tmp_path) == 3.0
    write(tmp_path, "lower", "STEP = 0.0\n@kernel\ndef more(x):\n    return x + 2.0\n")
    assert answer(tmp_path) == 5.0
    write(tmp_path, "lower", "STEP = 7.0\n@kernel\ndef more(x):\n    return x + 2.0\n")
    assert answer(tmp_path) == 12.0


@pytest.mark.parametrize("first", ["lower.more(1.0) + upper.total(1.0)", "upper.total(1.0) + lower.more(1.0)"])
def test_a_kernel_that_python_and_a_kernel_call(tmp_path, first):
    """What is cached for the one caller never reaches the other: it would have no way in."""
    write(tmp_path, "lower", "@kernel\ndef more(x):\n    return x + 1.0\n")
    write(tmp_path, "upper", "import lower\nfrom lower import more\n@kernel\ndef total(x):\n    return more(x) + 1.0\n")
    assert answer(tmp_path, first) == answer(tmp_path, first) == 5.0
    assert answer(tmp_path, "lower.more(1.0)") == 2.0


def test_the_folder_follows_from_what_is_linked(monkeypatch):
    """The source of a linked module counts, that of another one does not, nor does the order of linking."""
    read = []
    monkeypatch.setattr(_compile, "_source", lambda module: read.append(module) or module.encode())
    digest = _compile._digest(_sales.close_whole.__wrapped__)
    assert set(read) == {"netcontagion.margining._trading", "netcontagion.margining._forms"}
    assert digest == _compile._digest(_sales.close_whole.__wrapped__)
    monkeypatch.setattr(_compile, "_source", lambda module: b"another")
    assert digest != _compile._digest(_sales.close_whole.__wrapped__)
    read.clear()
    alone = _compile._digest(_answers.account_health.__wrapped__)
    assert alone == _compile._digest(_answers.account_health.__wrapped__)
    assert not read, "a kernel linked with its own module only reads no source"


def test_a_number_that_a_linked_kernel_reads_counts(monkeypatch):
    before = _compile._digest(_sales.close_whole.__wrapped__)
    monkeypatch.setattr(_trading, "LADDER", 17)
    assert _compile._digest(_sales.close_whole.__wrapped__) != before


def test_a_kernel_whose_sources_cannot_be_read_is_compiled_anew(monkeypatch):
    def unknown(_module):
        raise OSError("no source")

    def outer(x):
        return x + 1.0

    monkeypatch.setattr(_compile, "_source", unknown)
    monkeypatch.setattr(_compile, "_reached", lambda one: [one, SimpleNamespace(__module__="elsewhere")])
    assert _compile.kernel(outer)(1.0) == pytest.approx(2.0)
