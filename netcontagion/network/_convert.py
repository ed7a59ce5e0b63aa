"""The network as a networkx or igraph graph, every table and every number kept.

Nodes are ``<kind>:<label>`` with attributes ``kind`` and ``label``; edges carry ``kind`` (owns, held_at, market, tier,
balance, position, wallet, holding, liability), the columns of their table and ``weight`` in money. Liability edges run
from debtor to creditor. Empty cells are left out. ``others@`` nodes are marked ``derived``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import plain
from netcontagion.errors import ContagionError
from netcontagion.network._schema import schema
from netcontagion.network._tables import own_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import igraph
    import networkx
    from numpy.typing import NDArray

    from netcontagion.network._network import ExposureNetwork

__all__ = ["GraphPart", "tables_of_graph", "to_igraph", "to_networkx"]

Columns = dict[str, list[Any]]
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
_OWNERSHIP = {"owns": (1, 0, "trader"), "held_at": (0, 1, "exchange")}  # end of the account, other end, its column


@dataclass(frozen=True)
class GraphPart:
    """The nodes or edges of one kind: names of the nodes (of edges: of tails and heads), and attributes by name."""

    kind: Any
    ends: tuple[list[Any], ...]
    column: Callable[[str], list[Any]]  # None where a node or edge does not have it


def _nodes(net: ExposureNetwork) -> Iterator[tuple[list[str], Columns]]:
    """Names and attributes of the nodes of each kind."""
    for table, kind in _NODES.items():
        labels = net.labels(table).tolist()
        columns = _columns(net, table, skip=("trader", "exchange") if kind == "account" else ())
        fixed = {"kind": [kind] * len(labels), "label": labels}
        derived = len(labels) - own_rows(net, table)
        if derived:
            columns["derived"] = [None] * (len(labels) - derived) + [True] * derived
        yield [f"{kind}:{label}" for label in labels], fixed | columns


def _columns(net: ExposureNetwork, table: str, skip: Iterable[str] = ()) -> Columns:
    """Columns of a table as attributes: Python values, None where empty, node attribute ``kind`` kept apart."""
    spec = [column for column in schema()[table].values() if not column.key or column.numeric]
    columns = {}
    for column in (column for column in spec if column.name not in skip):
        name = f"{table[:-1]}_kind" if column.name == "kind" else column.name
        values = net.columns(table)[column.name]
        if column.refers_to:
            columns[name] = list(map([*net.labels(column.refers_to).tolist(), None].__getitem__, values.tolist()))
        elif values.dtype == float and np.isnan(values).any():
            columns[name] = [None if value != value else value for value in values.tolist()]  # noqa: PLR0124
        else:
            columns[name] = list(map(plain, values.tolist())) if values.dtype == object else values.tolist()
    return columns


def _edges(net: ExposureNetwork) -> Iterator[tuple[list[int], list[int], Columns]]:
    """Tails, heads (places among the nodes) and attributes of the edges of each kind."""
    first = dict(zip(_NODES, np.cumsum([0, *(len(net.labels(table)) for table in _NODES)]).tolist(), strict=False))
    account, size = net.columns("accounts"), len(net.labels("accounts"))
    owned = np.bincount(net.book.balance_account, net.book.deposited * net.book.balance_mark, size).tolist()
    place, trader, exchange = (
        (first[kind] + codes).tolist()
        for kind, codes in (
            ("accounts", np.arange(size)),
            ("traders", account["trader"]),
            ("exchanges", account["exchange"]),
        )
    )
    yield trader, place, {"kind": ["owns"] * size, "weight": owned}
    yield place, exchange, {"kind": ["held_at"] * size, "weight": owned}
    for table, kind in _EDGES.items():
        tails, heads = (
            (first.get(column.refers_to or "", 0) + net.columns(table)[column.name]).tolist()
            for column in list(schema()[table].values())[:2]
        )
        yield tails, heads, {"kind": [kind] * len(tails), **_columns(net, table), "weight": _weights(net, table)}


def _weights(net: ExposureNetwork, table: str) -> list[float]:
    """Money behind each edge: deposits at marks, units at prices, amounts; markets weigh what is deposited there."""
    book, columns, price = net.book, net.columns(table), net.columns("assets")["price"]
    if table == "balances":
        return list((book.deposited * book.balance_mark).tolist())
    if table == "positions":
        return list(book.notional().tolist())
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
    names: list[str] = []
    for labels, columns in _nodes(net):
        names += labels
        graph.add_nodes_from(zip(labels, _rows(columns), strict=True))
    for tails, heads, columns in _edges(net):
        ends = (map(names.__getitem__, places) for places in (tails, heads))
        graph.add_edges_from(zip(*ends, _rows(columns), strict=True))
    return graph


def _rows(columns: Columns) -> Iterator[dict[str, Any]]:
    """Attributes row by row, empty cells left out."""
    empty = {name: values.count(None) for name, values in columns.items()}
    kept = {name: values for name, values in columns.items() if empty[name] < len(values)}
    rows = zip(*kept.values(), strict=True)
    if not any(empty[name] for name in kept):
        return (dict(zip(kept, row, strict=True)) for row in rows)
    return ({name: cell for name, cell in zip(kept, row, strict=True) if cell is not None} for row in rows)


def to_igraph(net: ExposureNetwork) -> igraph.Graph:
    """Return the network as a directed igraph graph; vertex attribute ``name`` is ``<kind>:<label>``."""
    import igraph as ig

    nodes, edges = list(_nodes(net)), list(_edges(net))
    names = [name for part, _ in nodes for name in part]
    ends = [pair for tails, heads, _ in edges for pair in zip(tails, heads, strict=True)]
    graph = ig.Graph(n=len(names), edges=ends, directed=True)
    graph["numeraire"], graph["complete"], graph["format"] = net.numeraire, net.complete, "netcontagion"
    graph.vs["name"] = names
    for attribute, values in _joined([columns for _, columns in nodes]):
        graph.vs[attribute] = values
    for attribute, values in _joined([columns for _, _, columns in edges]):
        graph.es[attribute] = values
    return graph


def _joined(parts: list[Columns]) -> Iterator[tuple[str, list[Any]]]:
    """Every attribute that somebody has, over all parts; None where a part does not have it."""
    for attribute in dict.fromkeys(name for columns in parts for name in columns):
        values: list[Any] = []
        for columns in parts:
            values += columns.get(attribute) or [None] * len(columns["kind"])
        if values.count(None) < len(values):
            yield attribute, values


def tables_of_graph(nodes: Iterable[GraphPart], edges: Iterable[GraphPart]) -> dict[str, dict[str, Any]]:
    """Turn the nodes and edges of an exported graph back into tables; the order of either does not matter."""
    tables: dict[str, dict[str, Any]] = {}
    labels: dict[Any, tuple[str, Any]] = {}
    for part in nodes:
        table = _table_of(part, _NODES)
        names, given = part.ends[0], part.column("label")
        labels |= zip(names, zip([part.kind] * len(names), given, strict=True), strict=True)
        tables[table] = {_NODES[table]: given} | _read(part, table)
    place = {name: row for part in nodes if part.kind == "account" for row, name in enumerate(part.ends[0])}
    for part in edges:
        ends = [[labels[name] for name in names] for names in part.ends]
        if part.kind in _OWNERSHIP:
            of_account, of_other, column = _OWNERSHIP[part.kind]
            cells = tables["accounts"].setdefault(column, [None] * len(place))
            for name, (_, label) in zip(part.ends[of_account], ends[of_other], strict=True):
                cells[place[name]] = label
            continue
        table = _table_of(part, _EDGES, _OWNERSHIP)
        first, second = list(schema()[table])[:2]
        if table != "liabilities":
            ends = [[label for _, label in end] for end in ends]
        tables[table] = _read(part, table) | {first: ends[0], second: ends[1]}
    return {table: {name: _cells(values) for name, values in columns.items()} for table, columns in tables.items()}


def _table_of(part: GraphPart, kinds: dict[str, str], others: Iterable[str] = ()) -> str:
    table = {kind: table for table, kind in kinds.items()}.get(part.kind)
    if table is None:
        what = " -> ".join(repr(names[0]) for names in part.ends)
        allowed = ", ".join([*others, *kinds.values()])
        raise ContagionError(f"{'edge' if others else 'node'} {what} has kind {part.kind!r}; allowed: {allowed}")
    return table


def _read(part: GraphPart, table: str) -> Columns:
    """Columns of a table among the attributes; those nobody has are left out."""
    names = {name: f"{table[:-1]}_kind" if name == "kind" else name for name in schema()[table]}
    columns = {name: part.column(attribute) for name, attribute in names.items()}
    return {name: values for name, values in columns.items() if values.count(None) < len(values)}


def _cells(values: list[Any]) -> NDArray[Any]:
    """Turn numbers and gaps into floats; the door looks at anything else."""
    import pandas as pd

    if pd.api.types.infer_dtype(values, skipna=True) in ("floating", "mixed-integer-float"):
        return np.array(values, dtype=float)
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
