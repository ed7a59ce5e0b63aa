"""The network as a networkx or igraph graph, every table and every number kept.

Nodes are ``<kind>:<label>`` with attributes ``kind`` and ``label``; edges carry ``kind`` (owns, held_at, market, tier,
balance, position, wallet, holding, liability), the columns of their table and ``weight`` in money. Liability edges run
from debtor to creditor. Empty cells are left out. ``others@`` nodes are marked ``derived``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import plain
from netcontagion.errors import ContagionError
from netcontagion.network._labels import OTHERS
from netcontagion.network._schema import schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import igraph
    import networkx
    import pandas as pd

    from netcontagion.network._network import ExposureNetwork

__all__ = ["tables_of_graph", "to_igraph", "to_networkx"]

_NODES = {"traders": "trader", "exchanges": "exchange", "assets": "asset", "accounts": "account"}
_EDGES = {
    "markets": "market",
    "tiers": "tier",
    "balances": "balance",
    "positions": "position",
    "wallets": "wallet",
    "holdings": "holding",
    "liabilities": "liability",
}


def _nodes(net: ExposureNetwork) -> Iterator[tuple[str, dict[str, Any]]]:
    for table, kind in _NODES.items():
        rows = _rows(net, table, skip=("trader", "exchange") if kind == "account" else ())
        for label, row in zip(net.labels(table).tolist(), rows, strict=True):
            derived = {"derived": True} if isinstance(label, str) and label.startswith(OTHERS) else {}
            yield f"{kind}:{label}", {"kind": kind, "label": label, **row, **derived}


def _rows(net: ExposureNetwork, table: str, skip: Iterable[str] = ()) -> Iterator[dict[str, Any]]:
    """Rows of a table as attributes: Python values, empty cells left out, node attribute ``kind`` kept apart."""
    ends = {name for name, column in schema()[table].items() if column.key and not column.numeric}
    spec = {name: column for name, column in schema()[table].items() if name not in ends | set(skip)}
    columns = net.columns(table)
    lists = {}
    for name, column in spec.items():
        values = columns[name]
        if column.refers_to:
            labels = net.labels(column.refers_to)
            lists[name] = [labels[code] if code >= 0 else None for code in values.tolist()]
        else:
            lists[name] = values.tolist()
    size = len(next(iter(columns.values()))) if columns else 0
    renamed = {name: f"{table[:-1]}_kind" if name == "kind" else name for name in spec}
    for row in range(size):
        cells = ((renamed[name], plain(values[row])) for name, values in lists.items())
        yield {name: value for name, value in cells if not _empty(value)}


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))


def _edges(net: ExposureNetwork) -> Iterator[tuple[str, str, dict[str, Any]]]:
    account = net.columns("accounts")
    names = {kind: [f"{kind}:{label}" for label in net.labels(table)] for table, kind in _NODES.items()}
    owned = np.bincount(net.book.balance_account, net.book.deposited * net.book.balance_mark, len(account["trader"]))
    for place, value in enumerate(owned.tolist()):
        ends = (names["account"][place], names["trader"][account["trader"][place]])
        yield ends[1], ends[0], {"kind": "owns", "weight": value}
        yield ends[0], names["exchange"][account["exchange"][place]], {"kind": "held_at", "weight": value}
    for table, kind in _EDGES.items():
        tails, heads = _ends(net, table, names)
        for tail, head, row, weight in zip(tails, heads, _rows(net, table), _weights(net, table), strict=True):
            yield tail, head, {"kind": kind, **row, "weight": weight}


def _ends(net: ExposureNetwork, table: str, names: dict[str, list[str]]) -> tuple[list[str], list[str]]:
    columns = net.columns(table)
    if table == "liabilities":
        nodes = names["trader"] + names["exchange"]
        return [nodes[code] for code in columns["debtor"]], [nodes[code] for code in columns["creditor"]]
    tail = next(iter(schema()[table]))
    return [names[tail][code] for code in columns[tail]], [names["asset"][code] for code in columns["asset"]]


def _weights(net: ExposureNetwork, table: str) -> list[float]:
    """Money behind each edge: deposits at marks, units at prices, amounts; markets weigh what is deposited there."""
    book, columns, price = net.book, net.columns(table), net.columns("assets")["price"]
    if table == "balances":
        return list((book.deposited * book.balance_mark).tolist())
    if table == "positions":
        return list((np.abs(book.quantity) * book.market_mark[book.position_market]).tolist())
    if table in ("wallets", "holdings"):
        return list((columns["units"] * price[columns["asset"]]).tolist())
    if table == "liabilities":
        return list(columns["amount"].tolist())
    if table == "markets":
        values = book.deposited * book.balance_mark
        return list(np.bincount(book.balance_market, values, len(book.market_mark)).tolist())
    return list(columns["floor"].tolist())


def to_networkx(net: ExposureNetwork) -> networkx.MultiDiGraph[Any]:
    """Return the network as a directed multigraph; see the module's text for kinds and weights."""
    import networkx as nx

    graph: nx.MultiDiGraph[Any] = nx.MultiDiGraph(numeraire=net.numeraire, complete=net.complete, format="netcontagion")
    graph.add_nodes_from(_nodes(net))
    graph.add_edges_from(_edges(net))
    return graph


def to_igraph(net: ExposureNetwork) -> igraph.Graph:
    """Return the network as a directed igraph graph; vertex attribute ``name`` is ``<kind>:<label>``."""
    import igraph as ig

    nodes, edges = list(_nodes(net)), list(_edges(net))
    place = {name: i for i, (name, _) in enumerate(nodes)}
    graph = ig.Graph(n=len(nodes), edges=[(place[tail], place[head]) for tail, head, _ in edges], directed=True)
    graph["numeraire"], graph["complete"], graph["format"] = net.numeraire, net.complete, "netcontagion"
    graph.vs["name"] = [name for name, _ in nodes]
    for attribute in dict.fromkeys(key for _, row in nodes for key in row):
        graph.vs[attribute] = [row.get(attribute) for _, row in nodes]
    for attribute in dict.fromkeys(key for _, _, row in edges for key in row):
        graph.es[attribute] = [row.get(attribute) for _, _, row in edges]
    return graph


def tables_of_graph(
    nodes: Iterable[tuple[Any, dict[str, Any]]], edges: Iterable[tuple[Any, Any, dict[str, Any]]]
) -> dict[str, pd.DataFrame]:
    """Turn the nodes and edges of an exported graph back into tables; the order of either does not matter."""
    rows: dict[str, list[dict[str, Any]]] = {table: [] for table in schema()}
    node = {name: _present(attributes) for name, attributes in nodes}
    accounts: dict[Any, dict[str, Any]] = {}
    for name, attributes in node.items():
        table = {kind: table for table, kind in _NODES.items()}.get(attributes.get("kind", ""))
        if table is None:
            raise ContagionError(
                f"node {name!r} has kind {attributes.get('kind')!r}; allowed: {', '.join(_NODES.values())}"
            )
        row = _columns_of(table, attributes) | {_NODES[table]: attributes["label"]}
        rows[table].append(row)
        if table == "accounts":
            accounts[name] = row
    tables = {kind: table for table, kind in _EDGES.items()}
    for tail, head, given in edges:
        attributes = _present(given)
        kind = attributes.get("kind")
        if kind == "owns":
            accounts[head]["trader"] = node[tail]["label"]
        elif kind == "held_at":
            accounts[tail]["exchange"] = node[head]["label"]
        elif kind in tables:
            rows[tables[kind]].append(_edge_row(tables[kind], node[tail], node[head], attributes))
        else:
            raise ContagionError(
                f"edge {tail!r} -> {head!r} has kind {kind!r}; allowed: owns, held_at, {', '.join(tables)}"
            )
    return {table: _table(table, found) for table, found in rows.items() if found}


def _present(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}


def _columns_of(table: str, attributes: dict[str, Any]) -> dict[str, Any]:
    kind = f"{table[:-1]}_kind"
    row = {name: attributes[name] for name in schema()[table] if name in attributes and name != "kind"}
    return row | ({"kind": attributes[kind]} if kind in attributes else {})


def _edge_row(table: str, tail: dict[str, Any], head: dict[str, Any], attributes: dict[str, Any]) -> dict[str, Any]:
    first, second = list(schema()[table])[:2]
    row = {name: attributes[name] for name in schema()[table] if name in attributes}
    if table == "liabilities":
        return row | {first: (tail["kind"], tail["label"]), second: (head["kind"], head["label"])}
    return row | {first: tail["label"], second: head["label"]}


def _table(table: str, rows: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    columns = {name: pd.Series([row.get(name) for row in rows], dtype=object) for name in schema()[table]}
    frame = pd.DataFrame({name: values for name, values in columns.items() if values.notna().any()})
    for name in frame.columns:
        if schema()[table][name].numeric:
            frame[name] = frame[name].astype(float)
    return frame
