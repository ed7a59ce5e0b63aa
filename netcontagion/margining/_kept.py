"""What is worked out once per network and kept with it; a copy of the network works it out again.

A network that differs only in what a few columns hold shares what does not depend on them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

    from netcontagion.network import ExposureNetwork

__all__ = ["kept", "with_amounts"]

T = TypeVar("T")

FREE = {("exchanges", "equity"), ("exchanges", "insurance_fund"), ("traders", "external_assets")}
SHARED = (
    "nodes",
    "book",
    "_bearers",
    "_cascade_index",
    "_fit_for_cascades",
    "_impact_forms",
    "_margin_index",
    "_margin_ranking",
    "_margined",
    "_market_makers",
    "_policies",
    "_settlement",
    "_stock",
    "_unused_books",
    "_vaults",
)
"""What depends on no column of FREE."""


def kept(net: ExposureNetwork, name: str, make: Callable[[ExposureNetwork], T]) -> T:
    """Return what was made of a network under a name, made on first use; it must not be written to."""
    known = net.__dict__
    if name not in known:
        known[name] = make(net)
    found: T = known[name]
    return found


def with_amounts(net: ExposureNetwork, table: str, column: str, amounts: ArrayLike) -> ExposureNetwork:
    """Return a network with other amounts in a column of money or funds, and the index of the old one.

    Parameters
    ----------
    net : ExposureNetwork
        The network; it stays as it is.
    table, column : str
        ``exchanges.equity``, ``exchanges.insurance_fund`` or ``traders.external_assets``.
    amounts : array_like
        One finite number, 0 or more, by row, in the order of the labels.

    Returns
    -------
    ExposureNetwork
        Equal to ``net.replace(...)`` with that column.

    Raises
    ------
    ValueError
        Another column, or amounts that it cannot hold.

    Examples
    --------
    >>> import netcontagion as nc
    >>> net = nc.datasets.load("market")
    >>> bare = nc.margining.with_amounts(net, "exchanges", "insurance_fund", [0, 0, 0, 0])
    >>> float(bare.exchanges["insurance_fund"].sum())
    0.0
    """
    given = np.asarray(amounts, dtype=float)
    if (table, column) not in FREE:
        raise ValueError(f"{table}.{column} cannot be exchanged by itself; use net.replace({table}=...)")
    size = len(net.columns(table)[column])
    if given.shape != (size,) or not (np.isfinite(given) & (given >= 0)).all():
        raise ValueError(f"{table}.{column}: give {size} finite numbers, 0 or more, not {amounts!r}")
    state: dict[str, Any] = net.__getstate__()
    state["columns"][table] = {**state["columns"][table], column: np.array(given)}
    fresh = type(net).__new__(type(net))
    fresh.__setstate__(state)
    fresh.__dict__.update({name: net.__dict__[name] for name in SHARED if name in net.__dict__})
    return fresh
