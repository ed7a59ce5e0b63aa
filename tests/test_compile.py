"""Kernels in the cache: what a kernel is compiled from decides where it is kept."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
from seeds import slow

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


@pytest.mark.parametrize("first", ["lower.more(1.0) + upper.total(1.0)", *slow("upper.total(1.0) + lower.more(1.0)")])
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


def test_pieces_come_back_in_order_and_the_caller_takes_part(monkeypatch):
    monkeypatch.setattr(_compile, "_processors", lambda: 3)
    assert _compile.in_threads(lambda a, b: a - b, [(n, 1) for n in range(200)]) == list(range(-1, 199))
    inner = _compile.in_threads(
        lambda n: sum(_compile.in_threads(lambda m: n * m, [(1,), (2,)])), [(k,) for k in range(9)]
    )
    assert inner == [3 * k for k in range(9)], "threads that wait for one another would never end"


def test_what_a_piece_raises_reaches_the_caller(monkeypatch):
    monkeypatch.setattr(_compile, "_processors", lambda: 3)

    def work(n):
        if n == 7:
            raise IndexError("seven")
        return n

    with pytest.raises(IndexError, match="seven"):
        _compile.in_threads(work, [(n,) for n in range(20)])
    assert _compile.in_threads(work, [(n,) for n in range(3)]) == [0, 1, 2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_starts_threads_of_its_own():
    code = """
        import os, threading
        from netcontagion import _compile
        _compile._processors = lambda: 2
        pieces = [(n,) for n in range(4)]
        before = _compile.in_threads(abs, pieces)
        child = os.fork()
        if not child:
            os._exit(0 if _compile.in_threads(abs, pieces) == before and threading.active_count() == 2 else 1)
        raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], check=True, timeout=60)


@pytest.mark.parametrize(("given", "threads"), [("1", 1), ("3", 3), ("0", 1), ("99", 4), ("many", 4), ("", 4)])
def test_no_more_threads_than_workers_are_told_to_use(given, threads, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(4)), raising=False)
    monkeypatch.setenv("NUMBA_NUM_THREADS", given)
    assert _compile._processors() == threads
