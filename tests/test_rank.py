"""``nc.rank``: labels, ranks, order, what it leaves out, what it refuses; and the graph of exposures it looks at."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import full_tables
from random_markets import random_market

import netcontagion as nc
from netcontagion import ranking
from netcontagion._status import Status
from netcontagion.errors import ContagionError, NotSettledError, UnknownLabelError
from netcontagion.margining import price_after_sale
from netcontagion.ranking import _rank
from netcontagion.ranking._exposures import ExposureGraph, depths
from netcontagion.ranking._measures import MEASURES, Measure
from netcontagion.ranking._study import KINDS, NotApplicable, Study

PAGE = Path(__file__).parents[1] / "docs" / "ranking.md"
GRAPH = [name for name, measure in MEASURES.items() if measure.home.startswith("_graph_measures")]
POWER = {"strength": 1, "closeness": 1, "overlap": 1}  # of the unit of money


@pytest.fixture(scope="module")
def market():
    return nc.datasets.load("market")


@pytest.fixture
def given(monkeypatch):
    """Put a measure with given scores by kind into the table of measures."""

    def put(name, scores, **options):
        class Given(Measure):
            def scores(self, study):
                if isinstance(scores, Exception):
                    raise scores
                return {kind: np.asarray(values, dtype=float) for kind, values in scores.items()}

        kinds = tuple(scores) if isinstance(scores, dict) else ("trader",)
        monkeypatch.setattr(_rank, "MEASURES", {**_rank.MEASURES, name: Given("", kinds, "", **options)})

    return put


# the table ----------------------------------------------------------------------------------------------------------


def test_a_table_of_nodes_with_a_score_and_a_rank_by_every_measure(market):
    found = nc.rank(market, ["strength", "pagerank"])
    assert found.columns.tolist() == ["kind", "size_share", "strength", "strength_rank", "pagerank", "pagerank_rank"]
    assert found.index.name == "node"
    assert found.index.is_unique
    assert found.loc["WETH", "kind"] == "asset"
    assert len(found) == sum(len(market.labels(kind)) for kind in KINDS.values())
    for name in ("strength", "pagerank"):
        for _, part in found.groupby("kind"):
            expected = [int((part[name] > score).sum()) + 1 for score in part[name]]
            assert part[f"{name}_rank"].tolist() == expected
    share = found.groupby(found["kind"].replace("others", "trader"))["size_share"].sum()
    np.testing.assert_allclose(share, 1.0)
    assert (found["size_share"] >= 0).all()


def test_the_first_rows_are_the_most_systemic_of_every_kind(market):
    found = nc.rank(market, "pagerank")
    own = found[found["kind"] != "others"]
    assert own["pagerank_rank"].is_monotonic_increasing
    assert set(own["kind"].head(3)) == {"trader", "exchange", "asset"}
    two = nc.rank(market, ["pagerank", "overlap"])
    own = two[two["kind"] != "others"]
    assert (own["pagerank_rank"] + own["overlap_rank"]).is_monotonic_increasing


def test_others_are_scored_and_ranked_apart_and_come_last(market):
    found = nc.rank(market, "strength")
    named = found.index.str.startswith("others@")
    assert named.any()
    assert (found["kind"] == "others").to_numpy().tolist() == named.tolist()
    assert named[-named.sum() :].all()
    assert (found.loc[named, "strength"] > 0).all()
    assert found.loc[named, "strength_rank"].tolist() == list(range(1, named.sum() + 1))
    assert 1 in found.loc[found["kind"] == "trader", "strength_rank"].tolist()


def test_labels_of_several_kinds_say_which_they_mean():
    tables = full_tables()
    tables["traders"] = {name: [*column, column[0]] for name, column in tables["traders"].items()}
    tables["traders"]["trader"][-1] = "ETH"
    found = nc.rank(nc.ExposureNetwork(**tables), "strength")
    assert found.index.is_unique
    labels = set(found.index)
    assert {("trader", "hub"), ("exchange", "hub"), ("trader", "ETH"), ("asset", "ETH"), "ann", "perp"} <= labels
    assert not {"hub", "ETH"} & labels
    assert found.xs(("asset", "ETH"))["kind"] == "asset"
    assert found.xs(("trader", "ETH"))["strength"] == 0.0
    assert found.loc["stETH", "kind"] == "asset"


def test_whole_numbers_are_labels_too():
    found = nc.rank(
        nc.generators.ring(3).replace(
            traders={"trader": [7, 8, 9], "external_assets": [1.0] * 3},
            liabilities={"debtor": [7, 8], "creditor": [8, 9], "amount": [1.0, 2.0]},
        ),
        "strength",
    )
    assert found.loc[8, "strength"] == 3.0


def test_ties_share_the_least_rank_and_rounding_ties(given):
    given("fake", {"trader": [1.0, 0.3, 0.1 + 0.2, 2.0, np.nan]})
    net = nc.generators.ring(5)
    found = nc.rank(net, "fake")
    rank = found["fake_rank"].reindex(net.labels("traders"))
    assert rank.iloc[:4].tolist() == [2, 3, 3, 1]
    assert rank.isna().tolist() == [False] * 4 + [True]
    assert found.index[-1] == net.labels("traders")[4]


def test_kinds_that_a_measure_does_not_score_have_no_number(given, market):
    given("fake", {"exchange": np.arange(len(market.labels("exchanges")))})
    found = nc.rank(market, ["fake", "strength"])
    scored = found["kind"] == "exchange"
    assert (found["fake"].notna() == scored).all()
    assert (found["fake_rank"].notna() == scored).all()
    assert found["strength_rank"].notna().all()


def test_names_of_groups_have_no_rank(market):
    found = nc.rank(market, "community")
    assert found.columns.tolist() == ["kind", "size_share", "community"]
    assert found["size_share"].head(5).is_monotonic_decreasing


def test_nothing_asked_for_is_sizes(market):
    found = nc.rank(market, [])
    assert found.columns.tolist() == ["kind", "size_share"]
    pd.testing.assert_frame_equal(found, nc.rank(market, []))
    assert nc.rank(market, ["strength", "strength"]).columns.is_unique


def test_the_default_set_leaves_out_what_does_not_apply_and_says_so(given):
    found = nc.rank(nc.generators.ring(4))
    defaults = [name for name, measure in MEASURES.items() if measure.default]
    left_out = found.attrs["left_out"]
    assert [name for name in defaults if name not in found] == list(left_out)
    assert "no asset has a depth" in left_out["overlap"]
    assert "left out: overlap (no asset has a depth" in repr(found)
    assert "left out: overlap" in found._repr_html_()
    assert "left out" not in repr(found.head(2))
    given("fake", NotSettledError("it swings", None), default=True)
    assert "it swings" in nc.rank(nc.generators.ring(4)).attrs["left_out"]["fake"]


def test_scores_that_are_all_zero_say_why(given):
    safe = nc.generators.ring(4, equity=0.8)
    found = nc.rank(safe, ["furfine", "strength"])
    assert not found["furfine"].any()
    why = "nobody who has equity fails in the wake of another; contagion_index counts losses short of failure"
    assert found.attrs["all_zero"] == {"furfine": why}
    assert f"all 0: furfine ({why})" in repr(found)
    assert "all 0: furfine" in found._repr_html_()
    given("fake", {"trader": [0.0, np.nan, 0.0, 0.0]})
    assert nc.rank(safe, "fake").attrs["all_zero"] == {"fake": "it tells no node from another"}
    given("fake", {"trader": [np.nan] * 4})
    assert nc.rank(safe, "fake").attrs["all_zero"] == {}


# bad input ----------------------------------------------------------------------------------------------------------


def test_unknown_measures_are_named_together(market):
    with pytest.raises(UnknownLabelError) as caught:
        nc.rank(market, ["pagerakn", "strength", "hitz"])
    assert "unknown measure 'pagerakn'; did you mean 'pagerank'" in str(caught.value)
    assert "unknown measure 'hitz'; did you mean 'hits'" in str(caught.value)


@pytest.mark.parametrize("name", list(MEASURES))
def test_a_network_without_traders_is_ranked_or_refused_with_a_reason(name):
    net = nc.ExposureNetwork(
        exchanges={"exchange": ["v"], "insurance_fund": [2.0], "insurance_asset": ["X"]},
        assets={"asset": ["X", "Y"], "price": [2.0, 0.0], "depth": [10.0, np.inf]},
    )
    assert nc.rank(net)["kind"].value_counts().to_dict() == {"asset": 2, "exchange": 1}
    study = Study(net)
    try:
        found = _rank._scores_of(study, MEASURES[name])
    except NotApplicable:
        return
    for kind in MEASURES[name].kinds:
        assert np.isfinite(found[kind]).all()
        assert len(found[kind]) == study.size(kind)


def test_a_measure_that_was_asked_for_is_not_left_out(given, market):
    banks = nc.generators.ring(4)
    with pytest.raises(ContagionError, match="measure 'overlap' does not apply: no asset has a depth"):
        nc.rank(banks, "overlap")
    with pytest.raises(ContagionError, match="measure 'hits' does not apply: nobody is exposed to an asset"):
        nc.rank(banks, "hits")
    given("fake", {"exchange": []})
    with pytest.raises(ContagionError, match="'fake' does not apply: it scores exchanges; the network has none"):
        nc.rank(banks, "fake")
    lonely = nc.ExposureNetwork(traders={"trader": ["a"], "external_assets": [1.0]})
    for name in GRAPH:
        with pytest.raises(ContagionError, match=f"measure '{name}' does not apply"):
            nc.rank(lonely, name)
    given("fake", NotSettledError("it swings", Status.STALLED))
    with pytest.raises(NotSettledError, match="it swings"):
        nc.rank(banks, "fake")


def test_the_wrong_kind_of_argument_is_refused(market):
    with pytest.raises(TypeError, match="the network comes first"):
        nc.rank({"a": 1})
    with pytest.raises(TypeError, match="the shock is a Shock"):
        nc.rank(market, shock={"ETH": -0.3})
    with pytest.raises(TypeError, match="by is the name of a measure"):
        nc.rank(market, 3)
    with pytest.raises(UnknownLabelError, match="unknown measure 3"):
        nc.rank(market, [3])
    with pytest.raises(UnknownLabelError, match="ETHH"):
        nc.rank(market, "strength", shock=nc.Shock.price({"ETHH": -0.3}))


# the measures -------------------------------------------------------------------------------------------------------


def test_every_measure_says_what_it_is():
    table = ranking.measures()
    assert table.index.tolist() == list(MEASURES)
    for name, measure in MEASURES.items():
        assert measure.meaning, name
        assert measure.source, name
        assert set(measure.kinds) <= set(KINDS), name
        assert measure.meaning == table.loc[name, "meaning"]
    assert {"pagerank", "overlap", "linear_debtrank"} <= set(table.index[table["default"]])


def test_the_page_lists_the_measures():
    rows = [
        f"| `{name}` | {row.kinds} | {'yes' if row.default else ''} | {row.meaning} | {row.source} |"
        for name, row in ranking.measures().iterrows()
    ]
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("| `")] == rows


@pytest.mark.parametrize("seed", range(3))
def test_measures_of_the_graph_score_every_node_of_a_random_market(seed):
    net, shock = random_market(seed)
    found = nc.rank(net, [name for name in GRAPH if name != "overlap"])
    assert found[[name for name in GRAPH if name != "overlap"]].notna().all(axis=None)
    shocked = nc.rank(net, ["pagerank", "birank"], shock=shock)
    pd.testing.assert_frame_equal(shocked, nc.rank(net, ["pagerank", "birank"]))


def renamed(tables):
    """Traders and accounts bear other names, in the opposite order; rows stand in another order."""
    other = {name: {column: values[::-1] for column, values in table.items()} for name, table in tables.items()}
    places = {"traders": ["trader"], "accounts": ["trader"], "wallets": ["trader"], "holdings": ["trader"]}
    places["liabilities"] = ["debtor", "creditor"]
    for table, columns in places.items():
        for column in columns:
            if table in other:
                other[table][column] = [f"x{9 - int(label[1:])}" for label in other[table][column]]
    return other


def in_cents(tables):
    """Money is counted in another unit."""
    money = {"traders": ["external_assets"], "assets": ["price"], "markets": ["price"]}
    money |= {"positions": ["entry_price"], "liabilities": ["amount"], "exchanges": ["equity"], "tiers": ["floor"]}
    other = {name: dict(table) for name, table in tables.items()}
    for table, columns in money.items():
        for column in [column for column in columns if column in other.get(table, {})]:
            other[table][column] = [100 * value for value in other[table][column]]
    inverse = [kind == "inverse" for kind in tables["assets"]["kind"]]
    faces = zip(tables["assets"]["multiplier"], inverse, strict=True)
    other["assets"]["multiplier"] = [100 * face if paid else face for face, paid in faces]
    return other


@pytest.mark.parametrize("seed", [4, 9])
def test_names_and_currency_change_no_rank(seed, monkeypatch):
    import random_markets

    made = []
    network = nc.ExposureNetwork
    monkeypatch.setattr(random_markets.nc, "ExposureNetwork", lambda **tables: made.append(tables) or network(**tables))
    net, _ = random_market(seed)
    monkeypatch.undo()
    (tables,) = made
    scores = nc.rank(net, GRAPH)
    other = nc.rank(network(**renamed(tables)), GRAPH)
    back = other.rename(index=lambda label: f"t{9 - int(label[1:])}" if label.startswith("x") else label)
    back = back.reindex(scores.index)
    dear = nc.rank(network(**in_cents(tables)), GRAPH).reindex(scores.index)
    for name in GRAPH:
        np.testing.assert_allclose(back[name], scores[name], rtol=1e-6, atol=1e-9, err_msg=name)
        factor = 100.0 ** POWER.get(name, 0)
        np.testing.assert_allclose(dear[name], factor * scores[name], rtol=1e-6, atol=1e-9, err_msg=name)


# the graph of exposures ---------------------------------------------------------------------------------------------


def plain_exposures(net):
    """Who is exposed to what, row by row of the tables."""
    found = {}

    def add(row, column, money):
        if money > 0:
            found[row, column] = found.get((row, column), 0.0) + money

    accounts, assets = net.accounts, net.assets
    price = net.markets["price"].fillna(
        pd.Series(assets["price"].reindex(net.markets.index.get_level_values("asset")).to_numpy(), net.markets.index)
    )
    for (account, asset), row in net.balances.iterrows():
        trader, exchange = ("trader", accounts.loc[account, "trader"]), ("exchange", accounts.loc[account, "exchange"])
        mark = price[exchange[1], asset]
        has, owes = row["deposited"] * mark, row["borrowed"] * mark
        add(trader, ("asset", asset), has + owes)
        add(exchange, ("asset", asset), has + owes)
        add(trader, exchange, has)
        add(exchange, trader, owes)
    for (account, asset), row in net.positions.iterrows():
        trader, exchange = ("trader", accounts.loc[account, "trader"]), ("exchange", accounts.loc[account, "exchange"])
        notional = abs(row["quantity"]) * price[exchange[1], asset]
        if assets.loc[asset, "kind"] == "inverse":
            coin = price[exchange[1], assets.loc[asset, "settlement"]]
            notional = abs(row["quantity"]) * assets.loc[asset, "multiplier"] * coin / price[exchange[1], asset]
        add(trader, ("asset", asset), notional)
        add(exchange, ("asset", asset), notional)
    for table in (net.wallets, net.holdings):
        for (trader, asset), row in table.iterrows():
            add(("trader", trader), ("asset", asset), row["units"] * assets.loc[asset, "price"])
    for exchange, row in net.exchanges.iterrows():
        if isinstance(row["insurance_asset"], str):
            money = row["insurance_fund"] * assets.loc[row["insurance_asset"], "price"]
            add(("exchange", exchange), ("asset", row["insurance_asset"]), money)
    traders = set(net.labels("traders"))
    for debtor, creditor, *_ in net.liabilities.index:
        kinds = [("trader" if label in traders else "exchange", label) for label in (creditor, debtor)]
        add(*kinds, net.liabilities.loc[(debtor, creditor), "amount"].sum())
    return found


@pytest.mark.parametrize("seed", range(3))
def test_exposures_are_those_of_the_tables(seed):
    net, _ = random_market(seed)
    nodes = [(kind, label) for kind, table in KINDS.items() for label in net.labels(table)]
    place = {node: at for at, node in enumerate(nodes)}
    expected = np.zeros((len(nodes),) * 2)
    for (row, column), money in plain_exposures(net).items():
        expected[place[row], place[column]] = money
    graph = ExposureGraph(net)
    np.testing.assert_allclose(graph.directed.toarray(), expected, rtol=1e-12)
    np.testing.assert_allclose(graph.either_way.toarray(), expected + expected.T, rtol=1e-12)
    strengths = nc.rank(net, "strength")["strength"].sum()
    assert strengths == pytest.approx(2 * expected.sum())


@pytest.mark.parametrize("form", ["exponential", "linear", "square_root", "constant_product"])
def test_depths_are_compared_at_a_fall_of_one_per_cent(form):
    assets = {
        "asset": ["A", "B", "C"],
        "price": [20.0, 1.0, 3.0],
        "depth": [50.0, np.nan, np.inf],
        "impact": [form] * 3,
    }
    found = depths(nc.ExposureNetwork(assets=assets))
    assert found[1:].tolist() == [np.inf, np.inf]
    sold = 0.01 * found[0] / 20.0
    after = price_after_sale(sold, form=form, price=20.0, depth=50.0)
    assert float(after) == pytest.approx(0.99 * 20.0)


def test_depths_of_ladders_and_of_several_books():
    assets = {
        "asset": ["A", "B", "C", "D", "E"],
        "price": [10.0] * 5,
        "depth": [np.nan, 2.0, np.nan, 5.0, 7.0],
        "impact": [
            "ladder 0.999:10 0.98:30 0.9:500",
            "ladder 0.999:10 0.995:25",
            "ladder | 1.001:8",
            "linear",
            "linear",
        ],
        "kind": ["token"] * 4 + ["residual"],
    }
    markets = {
        "exchange": ["x", "x"],
        "asset": ["D", "A"],
        "depth": [3.0, np.nan],
        "liquidation_threshold": [0.5] * 2,
        "liquidation_bonus": [0.05] * 2,
    }
    found = depths(nc.ExposureNetwork(assets=assets, markets=markets))
    np.testing.assert_allclose(found, [40 / 0.02 * 10, 2 * 35 / 0.005 * 10, np.inf, 8.0 * 10, np.inf])


def test_many_holders_of_one_asset_make_no_matrix_of_pairs():
    size = 50_000
    net = nc.ExposureNetwork(
        traders={"trader": np.arange(size)},
        assets={"asset": ["A"], "price": [1.0], "depth": [1e6], "impact": ["linear"]},
        holdings={"trader": np.arange(size), "asset": ["A"] * size, "units": np.ones(size)},
    )
    found = nc.rank(net, ["overlap", "hits", "birank", "k_core"])
    np.testing.assert_allclose(found["overlap"].iloc[1:], (size - 1) / 1e6)
    assert found.loc["A", "overlap"] == pytest.approx(size * (size - 1) / 1e6)
    assert (found["k_core"] == 1).all()


def test_the_aave_snapshot_is_ranked(monkeypatch):
    data = PAGE.parents[2] / "shared" / "data"
    if not data.is_dir():
        pytest.skip("the real data are not here: no ../shared/data")
    monkeypatch.setenv("NETCONTAGION_DATA", str(data))
    net = nc.datasets.load("aave-steth-2023-06")
    found = nc.rank(net, [name for name in GRAPH if name not in ("overlap", "betweenness", "closeness")])
    for name in ("strength", "pagerank", "eigenvector", "katz", "hits", "birank"):
        first = found[(found[f"{name}_rank"] == 1) & (found["kind"] != "others")]
        assert {"aave_v2_eth", "stETH", "a6e5588c3a42"} == set(first.index), name
    with pytest.raises(ContagionError, match="no asset has a depth"):
        nc.rank(net, "overlap")


def test_what_would_take_minutes_is_left_out_unless_named(monkeypatch):
    net = nc.generators.complete(6)
    assert "linear_debtrank" in nc.rank(net)
    monkeypatch.setattr(importlib.import_module("netcontagion.ranking._distress"), "MOST", 100)
    found = nc.rank(net)
    assert "linear_debtrank" not in found
    assert "6 nodes owe something" in found.attrs["left_out"]["linear_debtrank"]
    assert nc.rank(net, "linear_debtrank")["linear_debtrank"].notna().all()
