"""Several networks as one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import plain
from netcontagion.errors import Problem, SchemaError
from netcontagion.network._network import ExposureNetwork
from netcontagion.network._schema import schema
from netcontagion.network._tables import own_frame

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from netcontagion.network._schema import Column

__all__ = ["merge"]

_AMOUNTS = ("balances", "positions", "wallets", "holdings", "liabilities")


def merge(*networks: ExposureNetwork) -> ExposureNetwork:
    """Join networks into one; nodes, assets and accounts of the same label are the same.

    A row that two networks share must say the same in both, where both say something other than the default. It is the
    same row then, and counts once: amounts (balances, positions, wallets, holdings, liabilities) are never added up.

    Parameters
    ----------
    *networks : ExposureNetwork
        At least one, all of one numeraire.

    Raises
    ------
    SchemaError
        Listing every contradiction.
    """
    import pandas as pd

    if not networks:
        message = "merge needs at least one network"
        raise ValueError(message)
    money = sorted({net.numeraire for net in networks})
    if len(money) > 1:
        cure = "convert the networks to one unit of money first"
        raise SchemaError([Problem("network", "numeraire", None, " and ".join(money), "one numeraire", cure)])
    problems: list[Problem] = []
    tables: dict[str, pd.DataFrame] = {}
    for name in schema():
        frames = [own_frame(net, name) for net in networks]
        frames = [frame for frame in frames if len(frame)]
        if not frames:
            continue
        stacked = pd.concat(frames, ignore_index=True)
        tables[name] = stacked.drop_duplicates() if name in _AMOUNTS else _reconcile(name, stacked, problems)
    if problems:
        raise SchemaError(problems)
    return ExposureNetwork(**tables, numeraire=money[0], complete=all(net.complete for net in networks))


def _reconcile(name: str, stacked: pd.DataFrame, problems: list[Problem]) -> pd.DataFrame:
    """Make one row of all rows of a key: the first that says something decides, the others must not say otherwise."""
    spec = schema()[name]
    keys = [column.name for column in spec.values() if column.identity]
    group = stacked.groupby(keys, sort=False, dropna=False).ngroup().to_numpy()
    heads = _first_of(group, np.arange(len(group)), int(group.max()) + 1)
    rows = stacked.iloc[heads].reset_index(drop=True)
    found: list[tuple[int, Problem]] = []
    for column in (column for column in spec.values() if not column.identity):
        values = stacked[column.name].to_numpy()
        said = np.flatnonzero(~_silent(column, values))
        first = _first_of(group, said, len(heads))
        rows[column.name] = values[np.where(first >= 0, first, heads)]
        against = said[values[said] != values[first[group[said]]]]
        words: dict[int, dict[str, None]] = {}
        for row in said[np.isin(group[said], group[against])].tolist():
            words.setdefault(int(group[row]), {})[repr(plain(values[row]))] = None
        for place, differing in words.items():
            key = tuple(rows.loc[place, keys])
            value = f"{key if len(key) > 1 else key[0]!r} is {' and '.join(differing)}"
            found.append((place, Problem(name, column.name, None, value, "one value", _agreement(name))))
    problems += [problem for _, problem in sorted(found, key=lambda pair: pair[0])]
    return rows


def _first_of(group: NDArray[Any], rows: NDArray[Any], size: int) -> NDArray[np.intp]:
    """First of some rows in every group, -1: none."""
    first = np.full(size, -1, dtype=np.intp)
    first[group[rows][::-1]] = rows[::-1]
    return first


def _silent(column: Column, values: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell the cells that say nothing: empty, or the default."""
    import pandas as pd

    empty: NDArray[np.bool_] = pd.isna(values)
    return empty if column.required else empty | (values == column.default_value)


def _agreement(table: str) -> str:
    if table == "accounts":
        return "name accounts by trader and exchange in each network, for example account='trader@exchange'"
    return "make the networks agree"
