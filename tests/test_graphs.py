"""networkx and igraph: there and back without losing a bit, and graphs of other makers."""

from __future__ import annotations

import random

import igraph as ig
import networkx as nx
import numpy as np
import pandas as pd
import pytest
from conftest import assert_same, full_tables, lending_tables, refused
from hypothesis import given, settings
from hypothesis import strategies as st

import netcontagion as nc
from netcontagion import builders

common = settings(max_examples=25, deadline=None, derandomize=True)
KINDS = {"traders": "trader", "exchanges": "exchange", "assets": "asset", "accounts": "account"}


def shuffled_networkx(graph, seed):
    rng = random.Random(seed)
    nodes, edges = list(graph.nodes(data=True)), list(graph.edges(data=True))
    rng.shuffle(nodes)
    rng.shuffle(edges)
    twin = nx.MultiDiGraph(**graph.graph)
    twin.add_nodes_from(nodes)
    twin.add_edges_from(edges)
    return twin


def shuffled_igraph(graph, seed):
    rng = random.Random(seed)
    twin = graph.permute_vertices(rng.sample(range(graph.vcount()), graph.vcount()))
    order = rng.sample(range(twin.ecount()), twin.ecount())
    turned = ig.Graph(n=twin.vcount(), edges=[twin.es[i].tuple for i in order], directed=True)
    for name in twin.attributes():
        turned[name] = twin[name]
    for name in twin.vs.attributes():
        turned.vs[name] = twin.vs[name]
    for name in twin.es.attributes():
        turned.es[name] = [twin.es[i][name] for i in order]
    return turned


@pytest.mark.parametrize("seed", range(4))
def test_round_trip_in_any_order(full, seed):
    assert_same(builders.from_networkx(shuffled_networkx(full.to_networkx(), seed)), full)
    assert_same(builders.from_igraph(shuffled_igraph(full.to_igraph(), seed)), full)


@pytest.mark.parametrize("complete", [True, False])
def test_round_trip_of_small_networks(complete):
    for tables in (
        {"traders": {"trader": [3, 1]}},
        {"liabilities": {"debtor": ["a"], "creditor": ["b"], "amount": [0.1]}},
        {"assets": {"asset": ["A"], "price": [0.0]}},
    ):
        net = nc.ExposureNetwork(**tables, complete=complete, numeraire="EUR")
        assert_same(builders.from_networkx(net.to_networkx()), net)
        assert_same(builders.from_igraph(net.to_igraph()), net)


def test_integer_labels_survive():
    tables = lending_tables()
    tables["balances"]["account"] = [12, 12, 7, 7]
    net = nc.ExposureNetwork(**tables)
    assert_same(builders.from_networkx(net.to_networkx()), net)
    assert_same(builders.from_igraph(net.to_igraph()), net)


@given(st.lists(st.tuples(*[st.floats(0, 1e300)] * 3), min_size=1, max_size=6), st.integers(0, 99))
@common
def test_round_trip_of_any_numbers(rows, seed):
    names = [f"t{i}" for i in range(len(rows))]
    owed = [(a, b, x) for a, (_, _, x) in zip(names, rows, strict=True) for b in names if a < b]
    net = nc.ExposureNetwork(
        traders={
            "trader": names,
            "external_assets": [x for x, _, _ in rows],
            "external_liabilities": [y for _, y, _ in rows],
        },
        liabilities={
            "debtor": [a for a, _, _ in owed],
            "creditor": [b for _, b, _ in owed],
            "amount": [x for _, _, x in owed],
        }
        if owed
        else None,
    )
    assert_same(builders.from_networkx(shuffled_networkx(net.to_networkx(), seed)), net)
    assert_same(builders.from_igraph(shuffled_igraph(net.to_igraph(), seed)), net)


def test_kinds_names_and_weights(full):
    graph, twin = full.to_networkx(), full.to_igraph()
    assert graph.is_directed()
    assert graph.is_multigraph()
    assert graph.graph == {"numeraire": "EUR m", "complete": False, "format": "netcontagion"}
    for table, kind in KINDS.items():
        names = [f"{kind}:{label}" for label in full.labels(table)]
        assert [name for name, data in graph.nodes(data=True) if data["kind"] == kind] == names
        assert [graph.nodes[name]["label"] for name in names] == full.labels(table).tolist()
    assert twin.vs["name"] == list(graph.nodes)
    drawn = [
        (twin.vs[edge.source]["name"], twin.vs[edge.target]["name"], edge["kind"], edge["weight"]) for edge in twin.es
    ]
    assert sorted(drawn) == sorted((u, v, data["kind"], data["weight"]) for u, v, data in graph.edges(data=True))
    assert {name for name, data in graph.nodes(data=True) if data.get("derived")} == {
        "trader:others@hub",
        "trader:others@perp",
        "account:others@hub",
        "account:others@perp",
    }
    kinds = {data["kind"] for _, _, data in graph.edges(data=True)}
    assert kinds == {"owns", "held_at", "market", "tier", "balance", "position", "wallet", "holding", "liability"}

    def weights(kind):
        return {(tail, head): data["weight"] for tail, head, data in graph.edges(data=True) if data["kind"] == kind}

    assert weights("balance")["account:bob@hub", "asset:stETH"] == 2 * 1990.0
    assert (
        weights("owns")["trader:bob", "account:bob@hub"]
        == weights("held_at")["account:bob@hub", "exchange:hub"]
        == 3985.0
    )
    assert weights("liability")["trader:hub", "exchange:perp"] == 2.5
    assert weights("wallet")["trader:mm", "asset:ETH"] == pytest.approx(200.0)
    assert weights("position")["account:bob@perp", "asset:ETH-PERP"] == 0.75 * 2002
    assert weights("market")["exchange:hub", "asset:stETH"] == 2 * 1990.0
    for _, data in graph.nodes(data=True):
        assert not any(pd.isna(value) for value in data.values()), "empty cells are left out"


def test_a_graph_of_ours_that_was_bent_is_refused(full):
    graph = full.to_networkx()
    graph.nodes["trader:ann"]["external_assets"] = -1.0
    assert ("traders", "external_assets") in {cell[:2] for cell in refused(builders.from_networkx, graph)}
    graph = full.to_networkx()
    graph.nodes["exchange:hub"]["recourse"] = None
    assert ("exchanges", "recourse", 0) in refused(builders.from_networkx, graph)
    graph = full.to_networkx()
    graph.add_node("x", kind="banks")
    with pytest.raises(nc.ContagionError, match="banks"):
        builders.from_networkx(graph)
    graph = full.to_networkx()
    graph.add_edge("trader:ann", "trader:bob", kind="owes")
    with pytest.raises(nc.ContagionError, match="owes"):
        builders.from_networkx(graph)


# graphs of other makers -------------------------------------------------------------------------------------------


def banks(**changes):
    graph = nx.DiGraph()
    graph.add_node("a", external_assets=4.0, external_liabilities=1.0)
    graph.add_node("b", external_assets=3)
    graph.add_edge("a", "b", weight=10.0, **changes)
    return graph


def test_a_foreign_graph():
    net = builders.from_networkx(banks(), edges="debtor_to_creditor", numeraire="EUR")
    assert net.liabilities["amount"].to_dict() == {("a", "b"): 10.0}
    assert net.traders["external_liabilities"].tolist() == [1.0, 0.0]
    assert net.numeraire == "EUR"
    named = builders.from_networkx(banks(due=7), edges="creditor_to_debtor", amount="due")
    assert named.liabilities["amount"].to_dict() == {("b", "a"): 7.0}
    plain = ig.Graph(n=2, edges=[(0, 1)], directed=True)
    plain.vs["external_assets"], plain.es["weight"] = [1.0, 2.0], [np.float32(0.5)]
    assert builders.from_igraph(plain, edges="debtor_to_creditor").labels("traders").tolist() == [0, 1]


@pytest.mark.parametrize("edges", [None, "debtor", "u owes v"])
def test_the_direction_of_a_foreign_graph_has_no_default(edges):
    with pytest.raises(ValueError, match="creditor_to_debtor"):
        builders.from_networkx(banks(), edges=edges)
    with pytest.raises(ValueError, match="undirected"):
        builders.from_networkx(banks().to_undirected(), edges="debtor_to_creditor")


@pytest.mark.parametrize("bad", [None, np.nan, -1.0, np.inf, "1", True])
def test_bad_attributes_of_a_foreign_graph_come_in_one_error(bad):
    graph = nx.MultiDiGraph(banks())
    graph.add_edge("a", "b", weight=bad)
    graph.add_edge("b", "b", weight=1.0)
    graph.add_node("c", external_assets=bad)
    graph.add_node("d", external_assets=1.0, external_liabilities=bad)
    expected = {("nodes", "external_assets", 2), ("edges", "weight", 1), ("edges", None, 2)}
    found = set(refused(builders.from_networkx, graph, edges="debtor_to_creditor"))
    assert found == expected | {("nodes", "external_liabilities", 3)}


def test_a_foreign_graph_without_nodes_or_with_repeated_names():
    assert ("traders", None, None) in refused(builders.from_networkx, nx.DiGraph(), edges="debtor_to_creditor")
    twins = ig.Graph(n=2, directed=True)
    twins.vs["name"], twins.vs["external_assets"] = ["a", "a"], [1.0, 2.0]
    assert ("traders", "trader", 1) in refused(builders.from_igraph, twins, edges="debtor_to_creditor")


def test_the_graph_of_the_caller_stays_as_it_was():
    graph = banks()
    before = nx.to_dict_of_dicts(graph)
    builders.from_networkx(graph, edges="debtor_to_creditor")
    assert nx.to_dict_of_dicts(graph) == before
    net = nc.ExposureNetwork(**full_tables())
    net.to_networkx().nodes["trader:ann"]["external_assets"] = 5.0
    assert net.traders.loc["ann", "external_assets"] == 10.5


def test_an_igraph_of_many_rows_is_read_back_exactly():
    from netcontagion import generators

    net = generators.market(20_000, seed=1)
    twin = builders.from_igraph(net.to_igraph())
    assert twin.data_hash == net.data_hash


def test_text_where_a_number_stood_is_refused(full):
    graph = full.to_networkx()
    graph.nodes["trader:ann"]["external_assets"] = "5"
    assert ("traders", "external_assets", 0) in refused(builders.from_networkx, graph)


def test_an_igraph_that_lost_its_names_is_read_by_number(full):
    graph = full.to_igraph()
    del graph.vs["name"]
    assert_same(builders.from_igraph(graph), full)
