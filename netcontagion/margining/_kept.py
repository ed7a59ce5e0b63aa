"""What is worked out once per network and kept with it; a copy of the network works it out again."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from netcontagion.network import ExposureNetwork

__all__ = ["kept"]

T = TypeVar("T")


def kept(net: ExposureNetwork, name: str, make: Callable[[ExposureNetwork], T]) -> T:
    """Return what was made of a network under a name, made on first use; it must not be written to."""
    known = net.__dict__
    if name not in known:
        known[name] = make(net)
    found: T = known[name]
    return found
