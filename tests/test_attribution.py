"""What causes a loss: the Shapley split over channels, leave-one-out differences, and the gap between orders."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_cascade_twin import random_shock, random_tables
from test_failure_modes import PAIR, lend

import netcontagion as nc
from netcontagion import margining
from netcontagion.margining import SWITCHES, leave_one_channel_out, order_gap, shapley

SEEDS = st.integers(0, 2**32 - 1)
QUIET = {"progress": False}


def losses(net, shock, channels, **options):
    """Loss of every bearer with some channels on."""
    return nc.cascade(net, shock, channels=channels, **options).losses.sum(axis=0)


def permuted(net, shock, **options):
    """The Shapley value as its words say: marginal losses averaged over all orders of switching channels on."""
    known = {}

    def loss(on):
        if on not in known:
            known[on] = losses(net, shock, on, **options)
        return known[on]

    orders = list(itertools.permutations(SWITCHES))
    total = dict.fromkeys(SWITCHES, 0.0)
    for order in orders:
        for place, name in enumerate(order):
            total[name] = total[name] + loss(frozenset(order[: place + 1])) - loss(frozenset(order[:place]))
    return pd.DataFrame({name: value / len(orders) for name, value in total.items()}).T


def random_market(seed):
    return nc.ExposureNetwork(**random_tables(seed)), random_shock(seed)


def scale(net, shock):
    return max(float(losses(net, shock, SWITCHES).abs().sum()), 1.0)


# numbers by hand ------------------------------------------------------------------------------------------------------


def closed_out():
    """100 ether for a debt of 90 on a book of depth 50: sold at the mark, 10 are left; with impact, nothing is."""
    return lend({"k@A": {"ETH": 100.0, "USD": -90.0}}, prices=PAIR, depth={"ETH": 50.0}, rulebook="closeout")


def test_two_channels_that_need_each_other_share_alike():
    """Liquidation without impact costs nothing, impact without sales neither: each is half of what both do."""
    split = shapley(closed_out(), nc.Shock(), channels=["liquidation", "impact"], **QUIET)
    proceeds = 50 * -math.expm1(-2)
    assert split.index.tolist() == ["liquidation", "impact"]
    assert split["traders"].tolist() == pytest.approx([5.0, 5.0])  # the account loses its equity of 10
    assert split["others@A"].tolist() == pytest.approx([(90 - proceeds) / 2] * 2)  # and those who lent the rest
    assert split["market"].tolist() == pytest.approx([(proceeds - 100 * math.exp(-2)) / 2] * 2)


def test_differences_count_such_channels_twice_and_show_it():
    found = leave_one_channel_out(closed_out(), nc.Shock(), channels=["liquidation", "impact"], **QUIET)
    assert found["traders"].to_dict() == pytest.approx(
        {"liquidation": 10.0, "impact": 10.0, "interaction": -10.0, "together": 10.0}
    )


def test_a_wallet_that_saves_the_account_bears_a_negative_share():
    """The only liquidation is avoided by the top-up: it takes off what liquidation puts on, to the cent."""
    net = lend(
        {"k@A": {"ETH": 100.0, "USD": -81.0}}, prices=PAIR, wallets={"trader": ["k"], "asset": ["USD"], "units": [50.0]}
    )
    split = shapley(net, nc.Shock(), **QUIET)
    penalty = 0.05 * 40.5
    assert split["traders"].to_dict() == pytest.approx(
        dict.fromkeys(SWITCHES, 0.0) | {"top_up": -penalty / 2, "liquidation": penalty / 2}
    )
    assert split["liquidators"].to_dict() == pytest.approx((-split["traders"]).to_dict())


# laws -----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SEEDS)
def test_shares_add_up_and_equal_the_average_over_orders(seed):
    net, shock = random_market(seed)
    split, size = shapley(net, shock, **QUIET), scale(net, shock)
    assert split.index.tolist() == list(SWITCHES)
    added = losses(net, shock, SWITCHES) - losses(net, shock, ())
    pd.testing.assert_index_equal(split.columns, added.index, check_names=False)
    np.testing.assert_allclose(split.sum(axis=0), added, rtol=0, atol=1e-12 * size)
    np.testing.assert_allclose(split, permuted(net, shock).loc[split.index], rtol=0, atol=1e-11 * size)


@pytest.mark.slow
def test_shares_add_up_on_many_markets():
    for seed in range(60):
        net, shock = random_market(30_000 + seed)
        options = {"priority": ("worst_first", "best_first", "random")[seed % 3], "seed": seed}
        split = shapley(net, shock, by="node", **options, **QUIET).sum(axis=0)
        runs = [nc.cascade(net, shock, channels=on, **options) for on in (SWITCHES, ())]
        added = runs[0].traders["loss"] - runs[1].traders["loss"]
        np.testing.assert_allclose(split[added.index], added, rtol=0, atol=1e-12 * scale(net, shock))
        added = runs[0].losses.to_numpy().sum() - runs[1].losses.to_numpy().sum()
        assert split.sum() == pytest.approx(added, rel=0, abs=1e-12 * scale(net, shock))


def test_channels_are_a_set():
    net, shock = random_market(7)
    given = ["impact", "withdrawal", "liquidation"]
    one, other = shapley(net, shock, channels=given, **QUIET), shapley(net, shock, channels=set(given), **QUIET)
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    assert one.index.tolist() == [name for name in SWITCHES if name in given]


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SEEDS)
def test_differences_and_their_interaction_add_up(seed):
    net, shock = random_market(seed)
    found, size = leave_one_channel_out(net, shock, **QUIET), scale(net, shock)
    everything = losses(net, shock, SWITCHES)
    for name in SWITCHES:
        without = losses(net, shock, [other for other in SWITCHES if other != name])
        np.testing.assert_allclose(found.loc[name], everything - without, rtol=0, atol=1e-11 * size)
    np.testing.assert_allclose(found.loc["together"], everything - losses(net, shock, ()), rtol=0, atol=1e-11 * size)
    parts = found.drop("together").sum(axis=0)
    np.testing.assert_allclose(parts, found.loc["together"], rtol=0, atol=1e-11 * size)


IDLE = {
    "top_up": lambda tables: tables.pop("wallets", None),
    "withdrawal": lambda tables: tables["accounts"].update(trader=tables["accounts"]["account"]),
    "reduction": lambda tables: tables["accounts"].update(trader=tables["accounts"]["account"]),
    "purchase": lambda tables: None,  # nobody buys by default
    "liquidation": lambda tables: tables["balances"].update(borrowed=[0.0] * len(tables["balances"]["borrowed"])),
    "impact": lambda tables: [tables[name].update(depth=[np.nan] * len(tables[name]["depth"]))
                              for name in ("assets", "markets")],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", SWITCHES)
def test_a_channel_that_is_not_run_would_have_changed_nothing(name, monkeypatch):
    """The proofs of the docstring: with or without it losses are the same, whatever the other channels do."""
    ran = []
    monkeypatch.setattr(
        "netcontagion.margining._attribution.cascade", lambda *a, **o: ran.append(o["channels"]) or nc.cascade(*a, **o)
    )
    others = [other for other in SWITCHES if other != name]
    for seed in range(2):
        tables = random_tables(seed)
        tables.pop("traders")
        IDLE[name](tables)
        net, shock = nc.ExposureNetwork(**tables), nc.Shock.price({"BTC": -0.3, "ETH": -0.4})
        ran.clear()
        split = shapley(net, shock, **QUIET)
        assert (split.loc[name] == 0).all()
        assert ran
        assert all(name not in channels for channels in ran)
        for size in range(len(others) + 1):
            for on in itertools.combinations(others, size):
                assert losses(net, shock, on).equals(losses(net, shock, [*on, name]))


def test_a_channel_that_does_nothing_in_the_full_run_is_kept():
    """The wallet is never used when all is on (it cannot save the account), so is no proof."""
    net = lend(
        {"k@A": {"ETH": 100.0, "USD": -81.0}}, prices=PAIR, wallets={"trader": ["k"], "asset": ["USD"], "units": [1.0]}
    )
    split = shapley(net, nc.Shock(), **QUIET)
    assert (split.loc["top_up"] == 0).all()
    assert split.index.tolist() == list(SWITCHES)


def test_a_book_of_one_market_is_enough_for_impact():
    net = lend(
        {"k@A": {"ETH": 100.0, "USD": -90.0}}, prices=PAIR, markets={("A", "ETH"): {"depth": 50.0}}, rulebook="closeout"
    )
    split = shapley(net, nc.Shock(), channels=["liquidation", "impact"], **QUIET)
    assert split["traders"].tolist() == pytest.approx([5.0, 5.0])


def test_nothing_happens_without_debt():
    net = nc.ExposureNetwork(traders={"trader": ["a", "b"], "external_assets": [4.0, 3.0]})
    for found in (shapley(net, nc.Shock.loss({"a": 1.0}), **QUIET), leave_one_channel_out(net, nc.Shock(), **QUIET)):
        assert (found == 0).all(axis=None)


def test_columns_by_bearer_node_and_group_are_sums_of_each_other():
    net, shock = random_market(1)
    bearer, node, group = (shapley(net, shock, by=by, **QUIET) for by in ("bearer", "node", "group"))
    others = [name for name in bearer.columns if str(name).startswith("others@")]
    exchanges = net.labels("exchanges").tolist()
    close = {"rtol": 0, "atol": 1e-9 * scale(net, shock)}
    assert group.columns.tolist() == ["traders", "others", "exchanges", "liquidators", "market", "external creditors"]
    np.testing.assert_allclose(group["others"], bearer[others].sum(axis=1), **close)
    np.testing.assert_allclose(group["exchanges"], bearer[exchanges].sum(axis=1), **close)
    assert node.columns.tolist() == [*net.nodes, "liquidators", "market", "external creditors"]
    people = [name for name in net.labels("traders") if name not in others]
    np.testing.assert_allclose(node[people].sum(axis=1), bearer["traders"], **close)
    np.testing.assert_allclose(node[[*others, *exchanges]], bearer[[*others, *exchanges]], **close)
    for found in (node, group):
        np.testing.assert_allclose(found.sum(axis=1), bearer.sum(axis=1), **close)


def test_labels_that_are_shared_keep_their_columns():
    """A trader called market, and a trader with the name of the exchange."""
    accounts = {"market@A": {"ETH": 100.0, "USD": -90.0}, "A@A": {"ETH": 100.0, "USD": -10.0}}
    net = lend(accounts, prices=PAIR, depth={"ETH": 50.0}, rulebook="closeout")
    bearer, node = (shapley(net, nc.Shock(), by=by, **QUIET) for by in ("bearer", "node"))
    assert ("bearer", "market") in bearer.columns
    assert [name for name in node.columns if name[1:] == ("A",)] == [("trader", "A"), ("exchange", "A")]
    assert node.sum(axis=1).tolist() == pytest.approx(bearer.sum(axis=1).tolist())


# seeds and processes --------------------------------------------------------------------------------------------------


def test_every_run_has_the_same_seed():
    net, shock = nc.generators.market(60, exchanges=2, seed=4, depth=0.2), nc.Shock.price({"ETH": -0.3}, family=True)
    options = {"priority": "random", "seed": 5}
    split = shapley(net, shock, **options, **QUIET)
    added = losses(net, shock, SWITCHES, **options) - losses(net, shock, (), **options)
    np.testing.assert_allclose(split.sum(axis=0), added, rtol=0, atol=1e-12 * scale(net, shock))
    again = shapley(net, shock, priority="random", seed=np.random.default_rng(5), **QUIET)
    same = shapley(net, shock, priority="random", seed=np.random.default_rng(5), **QUIET)
    pd.testing.assert_frame_equal(again, same, check_exact=True)


@pytest.mark.parametrize("call", [shapley, leave_one_channel_out, order_gap])
def test_results_do_not_depend_on_the_number_of_jobs(call):
    joblib = pytest.importorskip("joblib", reason="needs joblib")
    net, shock = nc.generators.market(60, exchanges=2, seed=4, depth=0.2), nc.Shock.price({"ETH": -0.3}, family=True)
    options = {"seed": 3, **QUIET} | ({"orders": 3} if call is order_gap else {"priority": "random"})
    alone = call(net, shock, **options)
    with joblib.parallel_config(backend="threading"):
        pd.testing.assert_frame_equal(call(net, shock, n_jobs=2, **options), alone, check_exact=True)


@pytest.mark.slow
def test_processes_give_the_same_and_hand_errors_on():
    pytest.importorskip("joblib", reason="needs joblib")
    net, shock = nc.generators.market(60, exchanges=2, seed=4, depth=0.2), nc.Shock.price({"ETH": -0.3}, family=True)
    alone = shapley(net, shock, **QUIET)
    pd.testing.assert_frame_equal(shapley(net, shock, n_jobs=2, **QUIET), alone, check_exact=True)
    with pytest.raises(nc.NotSettledError) as caught:
        shapley(net, shock, n_jobs=2, max_rounds=2, **QUIET)
    assert caught.value.result.status is nc.Status.MAX_ROUNDS


def test_short_work_says_nothing(capsys):
    shapley(closed_out(), nc.Shock(), channels=["impact"])
    order_gap(closed_out(), nc.Shock(), orders=1)
    assert capsys.readouterr() == ("", "")


# refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [shapley, leave_one_channel_out])
def test_what_is_refused(call):
    net = closed_out()
    with pytest.raises(nc.UnknownLabelError, match="bearer"):
        call(net, nc.Shock(), by="bearers")
    with pytest.raises(nc.UnknownLabelError, match="impact"):
        call(net, nc.Shock(), channels=["impacts"])
    with pytest.raises(TypeError, match="collection"):
        call(net, nc.Shock(), channels="impact")
    with pytest.raises(TypeError, match="colour"):
        call(net, nc.Shock(), colour="red")
    with pytest.raises(nc.UnknownLabelError, match="ETH"):
        call(net, nc.Shock.price({"ETHH": -0.1}))
    with pytest.raises(TypeError, match="Shock"):
        call(net, -0.1)
    with pytest.raises(nc.UnknownLabelError, match="worst_first"):
        call(net, nc.Shock(), priority="worst")


def test_a_run_that_does_not_settle_is_named():
    net = lend({"k@A": {"ETH": 100.0, "USD": -81.0}}, prices=PAIR, depth={"ETH": 10.0})
    with pytest.raises(nc.NotSettledError, match="max_rounds") as caught:
        shapley(net, nc.Shock(), max_rounds=2, **QUIET)
    assert caught.value.result.status is nc.Status.MAX_ROUNDS
    assert "('liquidation', 'impact')" in caught.value.__notes__[0]
    assert shapley(net, nc.Shock(), max_rounds=2, strict=False, **QUIET).shape == (6, 6)


# orders ---------------------------------------------------------------------------------------------------------------


def test_gap_of_a_wallet_that_serves_one_of_two():
    """The wallet goes to the worse account or to the better one, and the other one is liquidated."""
    accounts = {"t@A/1": {"ETH": 100.0, "USD": -80.5}, "t@A/2": {"ETH": 100.0, "USD": -81.5}}
    net = lend(accounts, prices=PAIR, wallets={"trader": ["t"], "asset": ["USD"], "units": [6.0]})
    found = order_gap(net, nc.Shock(), orders=6, seed=1, **QUIET)
    assert found.columns.tolist() == ["worst_first", "best_first", "pro_rata", "min", "max", "gap"]
    assert found.loc["accounts liquidated"].tolist() == [1, 1, 1, 1, 1, 0]
    assert found.loc["accounts with another fate"].tolist() == [0, 2, 0, 0, 2, 2]
    assert found.loc["debt repaid [USD]"].tolist() == pytest.approx([40.25, 40.75, 40.25, 40.25, 40.75, 0.5])
    assert found.loc["loss of traders [USD]", "gap"] == pytest.approx(0.05 * 0.5)
    assert found.loc["price of ETH [USD]"].tolist() == [1, 1, 1, 1, 1, 0]


def test_no_gap_where_the_order_decides_nothing():
    """Full close-out, numeraire debts: the liquidated set and prices are a least fixed point."""
    accounts = {f"k{i}@A": {"ETH": 10.0, "USD": -7.9 + 0.2 * i} for i in range(12)}
    net = lend(accounts, prices=PAIR, depth={"ETH": 1_000.0}, rulebook="closeout")
    found = order_gap(net, nc.Shock.price({"ETH": -0.05}), orders=5, seed=2, **QUIET)
    assert 0 < found.loc["accounts liquidated", "min"] < 12
    for name in ("accounts liquidated", "accounts with another fate", "accounts called", "rounds"):
        assert found.loc[name, "gap"] == 0
    assert found.loc["price of ETH [USD]", "gap"] == pytest.approx(0, abs=1e-12)
    assert found.loc["bad debt [USD]", "gap"] >= 0


def test_gap_holds_all_runs_and_hangs_on_the_seed_only():
    net, shock = nc.generators.market(80, exchanges=3, seed=5, depth=0.2), nc.Shock.price({"ETH": -0.35}, family=True)
    found = order_gap(net, shock, orders=4, seed=1, **QUIET)
    pd.testing.assert_frame_equal(found, order_gap(net, shock, orders=4, seed=1, **QUIET), check_exact=True)
    for name in ("worst_first", "best_first", "pro_rata"):
        run = nc.cascade(net, shock, priority=name)
        assert found.loc["bad debt [USD]", name] == run.exchanges["deficit"].sum()
        assert found.loc["accounts called", name] == run.accounts["called"].sum()
    assert (found["min"] <= found[["worst_first", "best_first"]].min(axis=1)).all()
    assert (found["max"] >= found[["worst_first", "best_first"]].max(axis=1)).all()
    assert (found["gap"] == found["max"] - found["min"]).all()
    assert found.loc["bad debt [USD]", "gap"] > 0
    few = order_gap(net, shock, orders=0, **QUIET)
    assert (few["gap"] <= found["gap"]).all()


def test_what_order_gap_refuses():
    with pytest.raises(TypeError, match="priority"):
        order_gap(closed_out(), nc.Shock(), priority="random")
    with pytest.raises(ValueError, match="orders"):
        order_gap(closed_out(), nc.Shock(), orders=-1)
    with pytest.raises(nc.UnknownLabelError, match="ETH"):
        order_gap(closed_out(), nc.Shock.price({"ETHH": -0.1}))


def test_the_door_offers_them():
    assert {"leave_one_channel_out", "order_gap", "shapley"} <= set(margining.__all__)
