"""Compiled loops: numba where it helps, imported only when a kernel is first called."""

from __future__ import annotations

import functools
import logging
from types import FunctionType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["kernel"]

P = ParamSpec("P")
R = TypeVar("R")
_log = logging.getLogger(__name__)


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a loop over arrays at its first call, cached on disk where a folder is writable.

    The plain function stays reachable as ``.__wrapped__``: tests hold the two against each other.
    A kernel may call other kernels of its module by name.
    """

    @functools.cache
    def compiled() -> Any:
        import numba

        linked = _linked(function)
        config: Any = numba.config
        folder = config.CACHE_DIR
        # kept out of the package's own folder: pip would leave it there, and what is left shadows a later install
        config.CACHE_DIR = folder or _cache_folder()
        try:
            return numba.njit(cache=True)(linked)
        except (RuntimeError, OSError) as error:
            _log.info("no folder to cache the kernel %s in (%s): it is compiled anew", function.__name__, error)
            return numba.njit(linked)
        finally:
            config.CACHE_DIR = folder

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        result: R = compiled()(*args, **kwargs)
        return result

    call.compiled = compiled  # type: ignore[attr-defined]
    return call


def _cache_folder() -> str:
    from pooch import os_cache

    return str(os_cache("netcontagion") / "kernels")


def _linked(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function with the kernels it names replaced by what they compile to."""
    if not isinstance(function, FunctionType):
        return function
    known = function.__globals__
    names = [name for name in function.__code__.co_names if hasattr(known.get(name), "compiled")]
    if not names:
        return function
    scope = known | {name: known[name].compiled() for name in names}
    linked = FunctionType(function.__code__, scope, function.__name__, function.__defaults__, function.__closure__)
    return functools.update_wrapper(linked, function, updated=())
