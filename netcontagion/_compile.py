"""Compiled loops: numba where it helps, imported only when a kernel is first called."""

from __future__ import annotations

import functools
import hashlib
import inspect
import logging
import os
import sys
import threading
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import ThreadPoolExecutor

__all__ = ["in_threads", "kernel"]

P = ParamSpec("P")
R = TypeVar("R")
_log = logging.getLogger(__name__)
_OUTER: dict[str, Any] = {"nogil": True}
_INNER = _OUTER | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_declaring = threading.RLock()  # kernels declare the kernels they call, and threads share numba's settings


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a loop over arrays at its first call, cached on disk where a folder is writable.

    The plain function stays reachable as ``.__wrapped__``: tests hold the two against each other.
    A kernel may call other kernels by name, and read numbers: those of other modules are part of the name of its folder
    in the cache, which numba keeps up to date with the kernel's own module only. What kernels call is compiled without
    the wrappers that Python calls through, a quarter of the work; one that both call is compiled for each.
    """

    @functools.cache
    def compiled(inner: bool = False) -> Any:
        import numba

        with _declaring:
            linked = _linked(function)
            config: Any = numba.config
            folder, options = config.CACHE_DIR, _INNER if inner else _OUTER
            try:
                # kept out of the package's own folder: pip would leave it there, and what is left shadows a later one
                config.CACHE_DIR = str(Path(folder or _cache_folder()) / _digest(function) / ("inner" if inner else ""))
                return numba.njit(cache=True, **options)(linked)
            except (RuntimeError, OSError) as error:
                _log.info("no folder to cache the kernel %s in (%s): it is compiled anew", function.__name__, error)
                return numba.njit(**options)(linked)
            finally:
                config.CACHE_DIR = folder

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        result: R = compiled()(*args, **kwargs)
        return result

    call.compiled = compiled  # type: ignore[attr-defined]
    return call


def in_threads(work: Callable[..., R], pieces: Iterable[tuple[Any, ...]]) -> list[R]:
    """Call a function that runs kernels on every piece of the work, on all processors; results in order.

    Kernels release the interpreter's lock. What a piece does must not depend on who does it, so that results are the
    same for every number of processors.
    """
    todo = list(pieces)
    helpers = min(len(todo), _processors()) - 1
    if helpers < 1:
        return [work(*piece) for piece in todo]
    turns, lock = iter(enumerate(todo)), threading.Lock()
    done: dict[int, R] = {}

    def take_turns() -> None:
        while True:
            with lock:
                turn = next(turns, None)
            if turn is None:
                return
            done[turn[0]] = work(*turn[1])

    others = [_helpers().submit(take_turns) for _ in range(helpers)]
    try:
        take_turns()
    finally:
        for other in others:
            if not other.cancel():  # one that has not begun has nothing left to do
                other.result()
    return [done[place] for place in range(len(todo))]


def _processors() -> int:
    """Return how many threads may run kernels: no more than ``NUMBA_NUM_THREADS``, which joblib sets in its workers."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = os.environ.get("NUMBA_NUM_THREADS", "")
    return min(own, max(int(most), 1)) if most.isdigit() else own


@functools.cache
def _helpers() -> ThreadPoolExecutor:
    """Threads beside the calling one, kept: to start them takes longer than most of what they do."""
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(_processors() - 1, thread_name_prefix="netcontagion")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helpers.cache_clear)  # a fork has no threads but its own


def _cache_folder() -> str:
    from pooch import os_cache

    return str(os_cache("netcontagion") / "kernels")


def _digest(function: Callable[P, R]) -> str:
    """Digest what a kernel is compiled from beside its own module: other modules' kernels, and the numbers read."""
    found, modules, numbers = hashlib.sha256(), {function.__module__}, []
    for one in _reached(function):
        if one.__module__ not in modules:
            modules.add(one.__module__)
            found.update(_source(one.__module__))
        numbers += [f"{name}={value!r}" for name, value in _named(one) if isinstance(value, (int, float, str, tuple))]
    found.update("\n".join(sorted(numbers)).encode())
    return found.hexdigest()[:16]


@functools.cache
def _source(module: str) -> bytes:
    return inspect.getsource(sys.modules[module]).encode()


def _reached(function: Callable[..., Any]) -> list[Callable[..., Any]]:
    """Return the function and all plain functions of kernels that it calls, directly or not."""
    found = [function]
    for one in found:
        called = [value.__wrapped__ for _, value in _named(one) if hasattr(value, "compiled")]
        found += [inner for inner in dict.fromkeys(called) if inner not in found]
    return found


def _named(function: Callable[..., Any]) -> list[tuple[str, Any]]:
    """Return the globals that a function names, with their values."""
    if not isinstance(function, FunctionType):
        return []
    known = function.__globals__
    return [(name, known[name]) for name in function.__code__.co_names if name in known]


def _linked(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function with the kernels it names replaced by what they compile to."""
    kernels = {name: value.compiled(inner=True) for name, value in _named(function) if hasattr(value, "compiled")}
    if not kernels or not isinstance(function, FunctionType):
        return function
    scope = function.__globals__ | kernels
    linked = FunctionType(function.__code__, scope, function.__name__, function.__defaults__, function.__closure__)
    return functools.update_wrapper(linked, function, updated=())
