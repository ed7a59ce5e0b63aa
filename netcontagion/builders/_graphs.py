"""From networkx and igraph graphs."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.errors import Problem, SchemaError
from netcontagion.network import ExposureNetwork, GraphPart, tables_of_graph

if TYPE_CHECKING:
    from collections.abc import Iterable

    import igraph
    import networkx

__all__ = ["from_igraph", "from_networkx"]

_Nodes = list[tuple[Any, dict[str, Any]]]
_Edges = list[tuple[Any, Any, dict[str, Any]]]
_DIRECTIONS = ("debtor_to_creditor", "creditor_to_debtor")


def from_networkx(
    graph: networkx.Graph[Any], *, edges: str | None = None, amount: str = "weight", numeraire: str = "USD"
) -> ExposureNetwork:
    """Build a network from a networkx graph.

    Parameters
    ----------
    graph : networkx.Graph
        Either what :meth:`ExposureNetwork.to_networkx` made, read back exactly, or any directed graph of banks with
        node attributes ``external_assets`` (required) and ``external_liabilities``.
    edges : {"debtor_to_creditor", "creditor_to_debtor"}
        Direction of the edges of a foreign graph. There is no default for it.
    amount : str, default "weight"
        Edge attribute with the amount owed [num], in a foreign graph. Parallel edges are summed.
    numeraire : str, default "USD"
        Unit of money of a foreign graph.

    Raises
    ------
    SchemaError
        Listing every missing or wrong attribute.
    ValueError
        A foreign graph without ``edges=``, or an undirected one.
    """
    nodes, links = list(graph.nodes(data=True)), list(graph.edges(data=True))
    if graph.graph.get("format") == "netcontagion":
        return _exported(_parts_of_rows(nodes), _parts_of_rows(links), graph.graph)
    return _foreign(nodes, links, directed=graph.is_directed(), edges=edges, amount=amount, numeraire=numeraire)


def from_igraph(
    graph: igraph.Graph, *, edges: str | None = None, amount: str = "weight", numeraire: str = "USD"
) -> ExposureNetwork:
    """Build a network from an igraph graph; see :func:`from_networkx`.

    Vertices of a foreign graph are named by their attribute ``name``, or else by their number.
    """
    named = "name" in graph.vs.attributes()
    meta = {name: graph[name] for name in graph.attributes()}
    if meta.get("format") == "netcontagion":
        names = graph.vs["name"] if named else list(range(graph.vcount()))
        ends = [[names[place] for place in places] for places in zip(*graph.get_edgelist(), strict=True)]
        return _exported(_parts_of_columns(graph.vs, [names]), _parts_of_columns(graph.es, ends), meta)
    nodes = [(vertex["name"] if named else vertex.index, vertex.attributes()) for vertex in graph.vs]
    links = [(nodes[edge.source][0], nodes[edge.target][0], edge.attributes()) for edge in graph.es]
    return _foreign(nodes, links, directed=graph.is_directed(), edges=edges, amount=amount, numeraire=numeraire)


def _exported(nodes: list[GraphPart], links: list[GraphPart], meta: dict[str, Any]) -> ExposureNetwork:
    tables: dict[str, Any] = dict(tables_of_graph(nodes, links))
    return ExposureNetwork(**tables, numeraire=meta["numeraire"], complete=meta["complete"])


def _parts_of_rows(rows: list[Any]) -> list[GraphPart]:
    """Sort nodes ``(name, attributes)`` or edges ``(tail, head, attributes)`` by kind."""
    kinds: dict[Any, list[Any]] = {}
    for row in rows:
        kinds.setdefault(row[-1].get("kind"), []).append(row)
    parts = []
    for kind, found in kinds.items():
        *ends, attributes = map(list, zip(*found, strict=True))
        parts.append(GraphPart(kind, tuple(ends), functools.partial(_cells_of, attributes)))
    return parts


def _cells_of(rows: list[dict[str, Any]], name: str) -> list[Any]:
    return [row.get(name) for row in rows]


def _parts_of_columns(items: Any, ends: list[list[Any]]) -> list[GraphPart]:
    """Sort the vertices or edges of an igraph graph by kind."""
    columns = {name: items[name] for name in items.attributes()}
    kinds: dict[Any, list[int]] = {}
    for row, kind in enumerate(columns.get("kind", ())):
        kinds.setdefault(kind, []).append(row)

    def column(name: str, rows: list[int]) -> list[Any]:
        values = columns.get(name)
        return [None] * len(rows) if values is None else [values[row] for row in rows]

    return [
        GraphPart(kind, tuple([end[row] for row in rows] for end in ends), functools.partial(column, rows=rows))
        for kind, rows in kinds.items()
    ]


def _foreign(
    nodes: _Nodes, links: _Edges, *, directed: bool, edges: str | None, amount: str, numeraire: str
) -> ExposureNetwork:
    if edges not in _DIRECTIONS:
        cure = "say what an edge u -> v means: it has no default"
        raise SchemaError([Problem("graph", "edges", None, repr(edges), " or ".join(map(repr, _DIRECTIONS)), cure)])
    if not directed:
        message = "the graph is undirected: who owes whom cannot be read from it"
        raise ValueError(message)
    problems = list(_wrong(nodes, links, amount))
    if problems:
        raise SchemaError(problems)
    forward = edges == "debtor_to_creditor"
    owed: dict[tuple[Any, Any], float] = {}
    for tail, head, attributes in links:
        pair = (tail, head) if forward else (head, tail)
        owed[pair] = owed.get(pair, 0.0) + float(attributes[amount])
    traders = {
        "trader": [name for name, _ in nodes],
        "external_assets": [attributes["external_assets"] for _, attributes in nodes],
        "external_liabilities": [attributes.get("external_liabilities", 0.0) for _, attributes in nodes],
    }
    liabilities = {
        "debtor": [debtor for debtor, _ in owed],
        "creditor": [creditor for _, creditor in owed],
        "amount": list(owed.values()),
    }
    return ExposureNetwork(traders=traders, liabilities=liabilities if owed else None, numeraire=numeraire)


def _wrong(nodes: _Nodes, links: _Edges, amount: str) -> Iterable[Problem]:
    """Check every attribute by itself: parallel edges are summed, so that a negative one would hide."""
    cure = "set the attribute on every node"
    for row, (name, attributes) in enumerate(nodes):
        for item, default in (("external_assets", None), ("external_liabilities", 0.0)):
            if said := _not_an_amount(attributes.get(item, default)):
                yield Problem("nodes", item, row, f"{said} on {name!r}", "a number, 0 or more", cure)
    cure = "set it, or name the attribute in amount="
    for row, (tail, head, attributes) in enumerate(links):
        if said := _not_an_amount(attributes.get(amount)):
            yield Problem("edges", amount, row, f"{said} on {tail!r} -> {head!r}", "a number, 0 or more", cure)
        elif tail == head:
            yield Problem("edges", None, row, f"{tail!r} -> {head!r}", "two different nodes", "drop the edge")


def _not_an_amount(value: Any) -> str:
    """Say what stands where an amount should; nothing where there is one."""
    if value is None:
        return "missing"
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return "" if number and 0 <= value < float("inf") else repr(value)
