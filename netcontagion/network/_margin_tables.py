"""Margin of a network as tables: by account, by position, and over a grid of prices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import group_sum
from netcontagion.errors import UnknownLabelError
from netcontagion.network._shock import Shock, check_call

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from netcontagion.network._network import ExposureNetwork

    Floats = NDArray[np.float64]

__all__ = ["liquidation_prices", "maintenance_curve", "margins"]

_GROUPS = {"exchange": "exchanges", "trader": "traders"}


def margins(net: ExposureNetwork, shock: Shock | None) -> pd.DataFrame:
    """Margin by account; see :meth:`ExposureNetwork.margins`."""
    import pandas as pd

    book, factor = net.book, _factor(net, shock)
    kept = _own_margined(net)
    equity, required = book.margin_equity(factor)[kept], book.requirement(factor)[kept]
    initial, lent = book.initial_requirement(factor)[kept], book.margin_equity(factor, initial=True)[kept]
    used = np.where(required > 0, np.inf, 0.0)
    np.divide(required, equity, out=used, where=(equity > 0) & (required > 0))
    return pd.DataFrame(
        {
            "equity": book.equity(factor)[kept],
            "margin_equity": equity,
            "initial_margin": initial,
            "maintenance_margin": required,
            "health": np.divide(equity, required, out=np.full(len(kept), np.inf), where=required > 0),
            "utilisation": used,
            "free": lent - initial,
        },
        index=net.labels("accounts")[kept],
    )


def liquidation_prices(net: ExposureNetwork, shock: Shock | None) -> pd.DataFrame:
    """Prices at which accounts fail, by position; see :meth:`ExposureNetwork.liquidation_prices`."""
    import pandas as pd

    frame = net.positions
    bankrupt, called = net.book.closing_prices(_factor(net, shock))
    others = net.book.position_account >= len(net.labels("accounts")) - net.derived("accounts")
    called[others] = np.nan
    return pd.DataFrame({"bankruptcy_price": bankrupt, "liquidation_price": called}, index=frame.index)


def maintenance_curve(net: ExposureNetwork, changes: Mapping[Any, Any], by: str, family: bool) -> pd.DataFrame:
    """Sum margin over a grid of prices; see :meth:`ExposureNetwork.maintenance_curve`."""
    import pandas as pd

    if by not in _GROUPS:
        raise UnknownLabelError(by, _GROUPS, "group")
    steps = _steps(changes)
    kept, labels = _own_margined(net), net.labels(_GROUPS[by])
    group = net.columns("accounts")[by][kept]
    used = np.unique(group)
    sums = np.zeros((len(steps), 2, len(used)))
    for row, step in enumerate(steps):
        factor = _factor(net, Shock.price(step, family=family))
        for column, values in enumerate((net.book.margin_equity(factor), net.book.requirement(factor))):
            sums[row, column] = group_sum(group, values[kept], len(labels))[used]
    levels = [np.repeat([step[name] for step in steps], len(used)) for name in changes]
    index = pd.MultiIndex.from_arrays(
        [*levels, np.tile(np.asarray(labels[used], dtype=object), len(steps))], names=[*map(str, changes), by]
    )
    equity, required = sums[:, 0].ravel(), sums[:, 1].ravel()
    cover = np.full(len(required), np.inf)
    np.divide(equity, required, out=cover, where=required > 0)
    return pd.DataFrame({"equity": equity, "maintenance_margin": required, "coverage": cover}, index=index)


def _factor(net: ExposureNetwork, shock: Shock | None) -> Floats | None:
    check_call(net, shock, optional=True)
    return None if shock is None else shock.price_factors(net)[net.book.market_asset]


def _own_margined(net: ExposureNetwork) -> NDArray[np.intp]:
    """Codes of the accounts tested by equity, without those of ``others@``, whose margin nobody knows."""
    own = len(net.labels("accounts")) - net.derived("accounts")
    return np.flatnonzero(net.book.margined[:own])


def _steps(changes: Mapping[Any, Any]) -> list[dict[Any, float]]:
    """One mapping of name to relative change per point of the grid."""
    if not isinstance(changes, Mapping) or not changes:
        raise ValueError(f"changes is {changes!r}; give a mapping of asset to a grid of relative changes")
    grids = {name: np.atleast_1d(np.asarray(grid, dtype=float)).tolist() for name, grid in changes.items()}
    if len({len(grid) for grid in grids.values()}) > 1 or not all(grids.values()):
        raise ValueError("the grids of several assets move together: give each the same number of changes, at least 1")
    return [dict(zip(grids, point, strict=True)) for point in zip(*grids.values(), strict=True)]
