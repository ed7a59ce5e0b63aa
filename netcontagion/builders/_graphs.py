"""From networkx and igraph graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.errors import Problem, SchemaError
from netcontagion.network import ExposureNetwork, tables_of_graph

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
        return _exported(nodes, links, graph.graph)
    return _foreign(nodes, links, directed=graph.is_directed(), edges=edges, amount=amount, numeraire=numeraire)


def from_igraph(
    graph: igraph.Graph, *, edges: str | None = None, amount: str = "weight", numeraire: str = "USD"
) -> ExposureNetwork:
    """Build a network from an igraph graph; see :func:`from_networkx`.

    Vertices of a foreign graph are named by their attribute ``name``, or else by their number.
    """
    named = "name" in graph.vs.attributes()
    nodes = [(vertex["name"] if named else vertex.index, vertex.attributes()) for vertex in graph.vs]
    links = [(nodes[edge.source][0], nodes[edge.target][0], edge.attributes()) for edge in graph.es]
    meta = {name: graph[name] for name in graph.attributes()}
    if meta.get("format") == "netcontagion":
        return _exported(nodes, links, meta)
    return _foreign(nodes, links, directed=graph.is_directed(), edges=edges, amount=amount, numeraire=numeraire)


def _exported(nodes: _Nodes, links: _Edges, meta: dict[str, Any]) -> ExposureNetwork:
    tables: dict[str, Any] = dict(tables_of_graph(nodes, links))
    return ExposureNetwork(**tables, numeraire=meta["numeraire"], complete=meta["complete"])


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
