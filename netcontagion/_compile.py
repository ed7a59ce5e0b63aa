"""Compiled loops: numba where it helps, imported only when a kernel is first called."""

from __future__ import annotations

import functools
import logging
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
    A kernel may call another kernel through its ``.compiled()``.
    """

    @functools.cache
    def compiled() -> Any:
        import numba

        try:
            return numba.njit(cache=True)(function)
        except RuntimeError as error:
            _log.info("no folder to cache the kernel %s in (%s): it is compiled anew", function.__name__, error)
            return numba.njit(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        result: R = compiled()(*args, **kwargs)
        return result

    call.compiled = compiled  # type: ignore[attr-defined]
    return call
