"""The tables of a network: as frames, and as they were given, without what the network derives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.network._labels import Coded
from netcontagion.network._schema import schema

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from netcontagion.network._network import ExposureNetwork
    from netcontagion.network._schema import Column

__all__ = ["frame", "own_frame", "own_rows", "own_tables"]


def frame(net: ExposureNetwork, name: str) -> pd.DataFrame:
    """Return a table as a frame indexed by its keys."""
    import pandas as pd

    columns, spec = net.columns(name), schema()[name]
    keys = [column for column in spec.values() if column.key]
    data = {column.name: _cells(net, column, columns[column.name]) for column in spec.values() if not column.key}
    if keys[0].dtype == "label":
        return pd.DataFrame(data, index=net.labels(name), copy=False)
    index = pd.MultiIndex.from_arrays(
        [_cells(net, key, columns[key.name]) for key in keys], names=[k.name for k in keys]
    )
    return pd.DataFrame(data, index=index, copy=False)


def _cells(net: ExposureNetwork, column: Column, values: NDArray[Any]) -> Any:
    import pandas as pd

    if column.refers_to:
        labels = net.nodes if column.refers_to == "nodes" else net.labels(column.refers_to)
        return pd.Categorical.from_codes(values, categories=labels, validate=False)
    if column.dtype in ("text", "name"):
        return pd.array(values, dtype="O", copy=False)
    return values


def own_rows(net: ExposureNetwork, name: str) -> int:
    """Count the rows of a table that were given; those of ``others@`` come after them."""
    if name in ("traders", "accounts"):
        return len(net.labels(name)) - net.derived(name)
    if name in ("balances", "positions"):
        return int(np.searchsorted(net.columns(name)["account"], own_rows(net, "accounts")))
    return len(next(iter(net.columns(name).values())))


def own_tables(net: ExposureNetwork, names: list[str]) -> dict[str, dict[str, Any]]:
    """Return tables as they were given: labels as codes, rows of ``others@`` left out."""
    labels = {kind: net.labels(kind)[: own_rows(net, kind)] for kind in ("traders", "accounts", "exchanges", "assets")}
    tables = {}
    for name in names:
        columns, spec, size = net.columns(name), schema()[name], own_rows(net, name)
        if not size:
            continue
        tables[name] = {
            column: Coded(np.arange(size), labels[name])
            if spec[column].dtype == "label"
            else _own_cells(net, spec[column], columns[column][:size], labels)
            for column in spec
        }
    return tables


def _own_cells(net: ExposureNetwork, column: Column, values: NDArray[Any], labels: dict[str, pd.Index]) -> Any:
    if column.refers_to in labels and (values >= 0).all():
        return Coded(values, labels[column.refers_to])
    return _cells(net, column, values)


def own_frame(net: ExposureNetwork, name: str) -> pd.DataFrame:
    """Return a table as it was given, its keys as columns; debtor and creditor are ``(kind, label)``."""
    table = frame(net, name).iloc[: own_rows(net, name)].reset_index()
    for column in table.columns:
        if table[column].dtype == "category":
            table[column] = table[column].astype(object)
    if name == "liabilities":
        kinds = [("trader", label) for label in net.labels("traders")]
        nodes = kinds + [("exchange", label) for label in net.labels("exchanges")]
        for end in ("debtor", "creditor"):
            table[end] = [nodes[code] for code in net.columns(name)[end]]
    return table
