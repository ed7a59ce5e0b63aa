"""Dated presets of market parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from netcontagion.errors import UnknownLabelError
from netcontagion.network import preset_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

__all__ = ["preset_markets"]


def preset_markets(name: str, *, exchange: Any, assets: Iterable[Any] | None = None) -> pd.DataFrame:
    """Return the market parameters of a dated preset as a ``markets`` table.

    Parameters
    ----------
    name : str
        Preset, for example "aave_v3_2023_06"; its date and source are in ``.attrs``.
    exchange : label
        Exchange the rows are for.
    assets : iterable of labels, optional
        Assets to keep; default: all of the preset.

    Returns
    -------
    pandas.DataFrame
        Indexed by exchange and asset: loan_to_value, liquidation_threshold, liquidation_bonus, protocol_fee.

    Raises
    ------
    UnknownLabelError
        No such preset, or an asset it does not have; with the nearest names.
    """
    import pandas as pd

    preset = preset_table(name)
    known = preset["assets"]
    wanted = list(known if assets is None else assets)
    for asset in wanted:
        if asset not in known:
            raise UnknownLabelError(asset, known, f"asset of preset {name!r}")
    columns = ["loan_to_value", "liquidation_threshold", "liquidation_bonus", "protocol_fee"]
    index = pd.MultiIndex.from_product([[exchange], wanted], names=["exchange", "asset"])
    table = pd.DataFrame([[known[asset].get(column) for column in columns] for asset in wanted], index, columns)
    table = table.astype(float).fillna({"protocol_fee": 0.0})
    table.attrs = {"preset": name, "date": str(preset.get("date", "")), "source": preset.get("source", "")}
    return table
