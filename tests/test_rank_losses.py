"""Measures by loss of a network under a shock: each against runs one by one, plain twins, laws, what does not apply."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from conftest import permuted
from random_markets import random_market

import netcontagion as nc
from netcontagion.clearing import Case, debtrank
from netcontagion.errors import ContagionError
from netcontagion.ranking import _books
from netcontagion.ranking._exposures import depths
from netcontagion.ranking._study import Study

SEEDS = range(4)
OBLIGATIONS = ("debtrank", "linear_debtrank", "furfine", "contagion_index", "glasserman_young")


def bank_tables(seed, nodes=8, equity=1.0):
    random = np.random.default_rng(seed)
    owed = random.uniform(0, 5, (nodes, nodes)) * (random.random((nodes, nodes)) < 0.35)
    np.fill_diagonal(owed, 0)
    owed[0] = 0.0  # who owes nobody
    net_debt = owed.sum(axis=1) - owed.sum(axis=0)
    external = random.uniform(0, 6, nodes)
    names = [f"bank-{place}" for place in range(nodes)]
    debtor, creditor = np.nonzero(owed)
    return {
        "traders": {
            "trader": names,
            "external_assets": (np.maximum(net_debt + external, 0) + equity * random.uniform(0.2, 2, nodes)).tolist(),
            "external_liabilities": external.tolist(),
        },
        "assets": {"asset": ["BOND", "GOLD"], "price": [10.0, 4.0], "underlying": [None, "BOND"]},
        "wallets": {"trader": names[:4], "asset": ["BOND"] * 4, "units": [0.1, 0.2, 0.3, 0.0]},
        "holdings": {"trader": names[2:5], "asset": ["GOLD"] * 3, "units": [0.5, 0.5, 0.1]},
        "liabilities": {
            "debtor": [names[i] for i in debtor],
            "creditor": [names[j] for j in creditor],
            "amount": owed[debtor, creditor].tolist(),
        },
    }


def banks(seed, **options):
    return nc.ExposureNetwork(**bank_tables(seed, **options))


BANK_SHOCK = nc.Shock.loss(0.15) + nc.Shock.price({"BOND": -0.2}, family=True)


def scores(net, measure, shock=None):
    return nc.rank(net, by=measure, shock=shock)[measure]


def lost(run):
    """Loss of every node."""
    if isinstance(run, nc.CascadeResult):
        return pd.concat([run.traders["loss"], run.exchanges["loss"]])
    return run.loss.sum(axis=1)


def others(run, label):
    return float(lost(run).drop(label).sum())


# defaults ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shock", [nc.Shock(), BANK_SHOCK, nc.Shock.default("bank-3")], ids=str)
@pytest.mark.parametrize("seed", SEEDS)
def test_defaults_of_banks_agree_with_clearings_one_by_one(seed, shock):
    net = banks(seed)
    found, calm = scores(net, "loss_if_defaults", shock), nc.clear(net, shock)
    for bank in net.labels("traders"):
        run = nc.clear(net, shock + nc.Shock.default(bank))
        assert found[bank] == pytest.approx(others(run, bank) - others(calm, bank), rel=1e-9, abs=1e-9)
    assert found["bank-0"] == 0
    assert found.max() > 0
    assert found.min() >= -1e-9


def test_blocks_of_defaults_are_each_as_if_alone(monkeypatch):
    net = banks(7)
    whole = {name: scores(net, name, BANK_SHOCK) for name in ("loss_if_defaults", "leave_one_out", *OBLIGATIONS)}
    monkeypatch.setattr(_books, "NUMBERS", 17)
    for name, found in whole.items():
        np.testing.assert_allclose(scores(net, name, BANK_SHOCK), found, rtol=1e-9, atol=1e-12)


def assert_defaults_of_a_market(net, shock, chosen):
    found = scores(net, "loss_if_defaults", shock)
    calm = nc.cascade(net, shock, seed=0)
    for trader in chosen:
        run = nc.cascade(net, shock + nc.Shock.default(("trader", trader)), seed=0)
        assert found[trader] == pytest.approx(others(run, trader) - others(calm, trader), rel=1e-9, abs=1e-6)
    for exchange in net.labels("exchanges"):
        table = net.exchanges
        table.loc[exchange, ["equity", "insurance_fund", "skin"]] = 0.0
        run = nc.cascade(net.replace(exchanges=table), shock + nc.Shock.outage(exchange), seed=0)
        assert found[exchange] == pytest.approx(others(run, exchange) - others(calm, exchange), rel=1e-9, abs=1e-6)
    return found


def test_defaults_in_a_market_agree_with_cascades_one_by_one():
    net = nc.generators.market(24, exchanges=2, seed=2)
    named = net.labels("traders")[: len(net.labels("traders")) - net.derived("traders")]
    found = assert_defaults_of_a_market(net, nc.Shock.price({"ETH": -0.2}, family=True), named)
    assert found[net.labels("traders")[len(named) :]].isna().all()
    assert found.abs().max() > 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_defaults_in_random_markets_agree_with_cascades_one_by_one(seed):
    net, shock = random_market(seed)
    named = net.labels("traders")[: len(net.labels("traders")) - net.derived("traders")]
    assert_defaults_of_a_market(net, shock, named)


def test_a_depositor_who_owes_nobody_costs_nobody_anything():
    net = nc.generators.market(30, exchanges=2, lenders=0.5, seed=4)
    book, account = net.book, net.columns("accounts")
    owes = np.zeros(len(net.labels("traders")), dtype=bool)
    owes[account["trader"][book.balance_account[book.borrowed > 0]]] = True
    named = np.arange(len(owes)) < len(owes) - net.derived("traders")
    idle = net.labels("traders")[~owes & named]
    assert len(idle)
    assert (scores(net, "loss_if_defaults")[idle] == 0).all()
    run, calm = nc.cascade(net, nc.Shock.default(idle[0])), nc.cascade(net, nc.Shock())
    assert others(run, idle[0]) == others(calm, idle[0])


# without a node ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_a_bank_taken_out_agrees_with_clearing_without_it(seed):
    """Its creditors have cash for their claims, its debtors owe outside what they owed it."""
    tables, shock = bank_tables(seed), nc.Shock.loss(0.6)
    net = nc.ExposureNetwork(**tables)
    found = scores(net, "leave_one_out", shock)
    contagion = nc.clear(net, shock).loss["contagion"]
    assert contagion.sum() > 0
    for bank in net.labels("traders"):
        traders = {name: list(values) for name, values in tables["traders"].items()}
        cash = dict.fromkeys(traders["trader"], 0.0)
        rows = list(zip(*(tables["liabilities"][name] for name in ("debtor", "creditor", "amount")), strict=True))
        for debtor, creditor, amount in rows:
            if debtor == bank:
                cash[creditor] += amount
            if creditor == bank:
                traders["external_liabilities"][traders["trader"].index(debtor)] += amount
        left = [row for row in rows if bank not in row[:2]]
        columns = dict(zip(("debtor", "creditor", "amount"), map(list, zip(*left, strict=True)), strict=True))
        owned = dict(zip(traders["trader"], traders["external_assets"], strict=True))
        traders["external_assets"] = [owned[name] + cash[name] for name in traders["trader"]]
        without = nc.ExposureNetwork(**(tables | {"traders": traders, "liabilities": columns}))
        losses = {name: 0.6 * owned[name] for name in traders["trader"]}
        run = nc.clear(without, nc.Shock.loss(losses))
        expected = contagion.drop(bank).sum() - run.loss["contagion"].drop(bank).sum()
        assert found[bank] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_a_node_of_a_market_taken_out_has_no_part_in_the_cascade():
    net = nc.generators.market(40, exchanges=2, seed=2)
    shock = nc.Shock.price({"ETH": -0.35}, family=True)
    found, run = scores(net, "leave_one_out", shock), nc.cascade(net, shock, seed=0)
    named = len(net.labels("traders")) - net.derived("traders")
    assert found.drop(net.labels("traders")[:named]).drop(net.labels("exchanges")).isna().all()
    idle = run.traders.index[:named][(run.traders["called"][:named] == 0)]
    assert (found[idle] == 0).all()

    def contagion(result, label):
        by_node = result.loss["contagion"][: len(result.network.nodes)].copy()
        derived = slice(named, len(result.network.labels("traders")))
        by_node.iloc[derived] -= result.traders["loss_impact"].iloc[derived]
        return by_node.drop(label).sum()

    for trader in run.traders.index[:named][run.traders["called"][:named] > 0][:8]:
        balances = net.balances
        mine = net.accounts.index[net.accounts["trader"] == trader]
        balances.loc[balances.index.get_level_values(0).isin(mine), "borrowed"] = 0.0
        without = nc.cascade(net.replace(balances=balances), shock, seed=0)
        assert found[trader] == pytest.approx(contagion(run, trader) - contagion(without, trader), rel=1e-9, abs=1e-6)
    assert found[run.traders.index[:named]].max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_random_markets_can_be_ranked_without_each_node(seed):
    net, shock = random_market(seed)
    found = scores(net, "leave_one_out", shock + nc.Shock.default("t0"))
    named = net.labels("traders")[: len(net.labels("traders")) - net.derived("traders")]
    assert found[named].notna().all()


# prices -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shock", [nc.Shock(), nc.Shock.price({"WETH": -0.1})], ids=str)
def test_a_fall_of_a_price_costs_what_two_runs_differ_by(shock):
    net = nc.generators.market(40, exchanges=2, seed=2)
    found = scores(net, "price_impact", shock)
    calm = lost(nc.cascade(net, shock, seed=0)).sum()
    for asset in net.labels("assets"):
        run = nc.cascade(net, shock + nc.Shock.price({asset: -0.1}, family=True), seed=0)
        assert found[asset] == pytest.approx(lost(run).sum() - calm, rel=1e-9, abs=1e-6)
    assert found[net.labels("exchanges")].isna().all()


def test_what_follows_a_price_falls_with_it():
    net = banks(0)
    found = scores(net, "price_impact")
    held = {"BOND": 0.1 * 0.6 * 10, "GOLD": 0.1 * 1.1 * 4}
    assert found["GOLD"] == pytest.approx(held["GOLD"])
    assert found["BOND"] == pytest.approx(held["BOND"] + held["GOLD"])


# obligations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_debtrank_lets_every_bank_default_alone(seed):
    net = banks(seed)
    case = Case.of(net, nc.Shock())
    owed, equity = case.owed_before, case.book_equity(case.before)
    assert (equity > 0).all()
    single = debtrank(owed, equity, np.eye(8), variant="single_hit")
    np.testing.assert_allclose(scores(net, "debtrank")[net.labels("traders")], single.value, rtol=1e-9, atol=1e-12)
    linear = debtrank(owed, equity, np.eye(8))
    money = equity @ (np.asarray(linear.distress) - np.eye(8))
    np.testing.assert_allclose(scores(net, "linear_debtrank")[net.labels("traders")], money, rtol=1e-8, atol=1e-9)


def test_a_bank_without_equity_passes_distress_on_only_by_its_own_default():
    """a -> b -> c: b has nothing to lose, so the default of a stops there; that of b reaches c."""
    net = nc.builders.from_matrix(
        [[0, 4, 0], [0, 0, 9], [0, 0, 0]], rows="debtor", external_assets=[10, 5, 3], labels=list("abc")
    )
    assert Case.of(net, nc.Shock()).book_equity(Case.of(net, nc.Shock()).before).tolist() == [6, 0, 12]
    assert scores(net, "linear_debtrank")[list("abc")].tolist() == [0, 9, 0]
    np.testing.assert_allclose(scores(net, "debtrank")[list("abc")], [0, 0.75 * 9 / 13, 0])
    assert scores(net, "contagion_index")["a"] == pytest.approx(9 / 12 * 12 * 0 + np.mean([9, 9, 9, 8.4, 7.2, 6]))


def test_furfine_counts_the_equity_of_those_who_fail():
    net = nc.builders.from_matrix(
        [[0, 4, 4], [0, 0, 3], [0, 0, 0]], rows="debtor", external_assets=[10, 1, 3], labels=list("abc")
    )  # equity: a 2, b 2, c 10
    assert scores(net, "furfine")[list("abc")].tolist() == [2, 0, 0]
    assert scores(net, "furfine", nc.Shock.default("b"))[list("abc")].tolist() == [0, 0, 0]
    safe = nc.builders.from_matrix([[0, 4, 4], [0, 0, 3], [0, 0, 0]], rows="debtor", external_assets=[1e6] * 3)
    assert scores(safe, "furfine").tolist() == [0, 0, 0]


@pytest.mark.parametrize("seed", SEEDS)
def test_buffers_that_are_huge_leave_no_contagion(seed):
    net = banks(seed, equity=1e9)
    assert (scores(net, "furfine")[net.labels("traders")] == 0).all()
    owed = Case.of(net, nc.Shock()).owed_before.sum(axis=1)
    np.testing.assert_allclose(scores(net, "contagion_index")[net.labels("traders")], owed, rtol=1e-6)
    np.testing.assert_allclose(scores(net, "linear_debtrank")[net.labels("traders")], owed, rtol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_threat_index_is_what_a_unit_more_adds_to_payments(seed):
    net, shock = banks(seed), nc.Shock.loss(0.6)
    found, step = scores(net, "threat_index", shock), 1e-6
    paid = nc.clear(net, shock).payments.sum()
    for bank in net.labels("traders"):
        lighter = nc.Shock.loss(
            {name: 0.6 * value - step * (name == bank) for name, value in net.traders["external_assets"].items()}
        )
        assert found[bank] == pytest.approx((nc.clear(net, lighter).payments.sum() - paid) / step, abs=1e-4)
    assert found.max() >= 1


# portfolios -------------------------------------------------------------------------------------------------------


def portfolio_net():
    return nc.ExposureNetwork(
        traders={"trader": ["a", "b", "c"], "external_liabilities": [90.0, 40.0, 0.0], "external_assets": [0, 0, 7.0]},
        assets={"asset": ["BOND", "CASH"], "price": [2.0, 1.0], "depth": [5000.0, np.nan], "impact": ["linear"] * 2},
        holdings={"trader": ["a", "b"], "asset": ["BOND", "BOND"], "units": [50.0, 25.0]},
    )


def test_sales_of_two_banks_as_published():
    """The case of Greenwood, Landier and Thesmar, as a network: 1e-4 per unit of money is a depth of 5,000 x 2."""
    shock = nc.Shock.price({"BOND": -0.01})
    systemic = scores(portfolio_net(), "systemicness", shock)
    share = 20.0 / 27.0  # the third has equity too, and sells nothing
    np.testing.assert_allclose(systemic[["a", "b", "c"]], [0.00675 * share, 0.0015 * share, 0], rtol=0, atol=1e-10)
    vulnerable = scores(portfolio_net(), "vulnerability", shock)
    np.testing.assert_allclose(vulnerable[["a", "b", "c"]], [0.011, 0.0055, 0], rtol=0, atol=1e-10)


def test_overlap_is_what_others_lose():
    found = scores(portfolio_net(), "indirect_exposure")
    np.testing.assert_allclose(found[["a", "b", "c"]], [0.5, 0.5, 0.0], rtol=1e-12)
    market = nc.generators.market(60, exchanges=2, seed=3)
    held = market.exposures("traders", "assets").matrix
    overlap = nc.clearing.indirect_exposure(held, depths(market)).toarray()
    expected = overlap.sum(axis=1) - np.diag(overlap)
    found = scores(market, "indirect_exposure")[market.labels("traders")]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-6 * expected.max())


# laws -------------------------------------------------------------------------------------------------------------


ALL = ("loss_if_defaults", "leave_one_out", "price_impact", "shapley", *OBLIGATIONS, "threat_index")


@pytest.mark.parametrize("measure", ALL)
def test_order_of_rows_and_unit_of_money_do_not_matter(measure):
    tables = bank_tables(5, nodes=6)
    base = scores(nc.ExposureNetwork(**tables), measure, nc.Shock.loss(0.6))
    order = np.random.default_rng(0)
    mixed = {name: permuted(table, order) for name, table in tables.items()}
    other = scores(nc.ExposureNetwork(**mixed), measure, nc.Shock.loss(0.6))
    np.testing.assert_allclose(other[base.index], base, rtol=1e-9, atol=1e-12)
    renamed = {f"bank-{place}": f"z{9 - place}" for place in range(6)}
    for table in tables.values():
        for column in ("trader", "debtor", "creditor"):
            if column in table:
                table[column] = [renamed[name] for name in table[column]]
    other = scores(nc.ExposureNetwork(**tables), measure, nc.Shock.loss(0.6))
    np.testing.assert_allclose(other[[renamed.get(name, name) for name in base.index]], base, rtol=1e-9, atol=1e-12)
    unit = 1.0 if measure in ("debtrank", "threat_index") else 1e3
    for table, column in (
        ("traders", "external_assets"),
        ("traders", "external_liabilities"),
        ("assets", "price"),
        ("liabilities", "amount"),
    ):
        tables[table][column] = [value * 1e3 for value in tables[table][column]]
    other = scores(nc.ExposureNetwork(**tables), measure, nc.Shock.loss(0.6))
    np.testing.assert_allclose(
        other[[renamed.get(name, name) for name in base.index]], base * unit, rtol=1e-9, atol=1e-9
    )


@pytest.mark.slow
@pytest.mark.parametrize("measure", ["loss_if_defaults", "leave_one_out", "price_impact", "shapley"])
def test_results_do_not_depend_on_the_number_of_processes(measure):
    net = nc.generators.market(40, exchanges=2, seed=2)
    shock = nc.Shock.price({"ETH": -0.3}, family=True)
    one, two = (nc.rank(net, by=measure, shock=shock, n_jobs=jobs)[measure] for jobs in (1, 2))
    pd.testing.assert_series_equal(one, two, rtol=0, atol=0)


# what does not apply ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("measure", "shock", "why"),
    [
        ("leave_one_out", None, "nobody loses by contagion"),
        ("threat_index", None, "all pay in full"),
        ("systemicness", None, "lowers no price"),
        ("indirect_exposure", None, "has a depth"),
        ("vulnerability", nc.Shock.price({"BOND": -0.1}), "has a depth"),
    ],
)
def test_measures_say_why_they_do_not_apply(measure, shock, why):
    with pytest.raises(ContagionError, match=why):
        scores(banks(0, equity=1e6), measure, shock)


@pytest.mark.parametrize("measure", [*OBLIGATIONS, "threat_index", "sinkrank"])
def test_obligations_need_debts(measure):
    net = portfolio_net()
    with pytest.raises(ContagionError, match=r"nobody owes anybody|no node that money"):
        scores(net, measure)


@pytest.mark.parametrize("measure", ["loss_if_defaults", "leave_one_out", "furfine", "debtrank", "threat_index"])
def test_debts_of_several_classes_are_refused(measure):
    tables = bank_tables(0)
    tables["liabilities"]["seniority"] = [0] + [1] * (len(tables["liabilities"]["amount"]) - 1)
    with pytest.raises(ContagionError, match="several seniorities"):
        scores(nc.ExposureNetwork(**tables), measure, nc.Shock.loss(0.5))


def test_a_run_without_an_answer_is_named():
    from netcontagion.ranking import _runs

    net = nc.ExposureNetwork(
        traders={"trader": ["a", "b"], "external_assets": [5.0, 0.0]},
        liabilities={"debtor": ["a"], "creditor": ["b"], "amount": [1.0]},
    )
    with pytest.raises(ContagionError, match="1 of 2 runs have no answer"):
        _runs.losses(Study(net), [nc.Shock(), nc.Shock.loss({"a": 9.0})])


def test_who_alone_holds_an_asset_has_no_indirect_exposure():
    units = np.random.default_rng(0).lognormal(0, 6, 40)
    net = nc.ExposureNetwork(
        traders={"trader": np.arange(40)},
        assets={"asset": [f"A{place}" for place in range(20)], "price": [0.1] * 20, "depth": [7.0] * 20},
        wallets={"trader": np.arange(40), "asset": [f"A{place % 20}" for place in range(40)], "units": units},
    )
    alone = net.replace(
        wallets=net.wallets[net.wallets["units"] == net.wallets.groupby("asset")["units"].transform("max")]
    )
    found = nc.rank(alone, ["indirect_exposure", "overlap"])
    traders = found[found["kind"] == "trader"]
    assert (traders["indirect_exposure"] == 0).all()
    both = nc.rank(net, ["indirect_exposure", "overlap"], shock=nc.Shock.depth(0.5))
    traders = both[both["kind"] == "trader"]
    np.testing.assert_allclose(traders["indirect_exposure"], 2 * traders["overlap"], rtol=1e-12)
    assert (traders["overlap"] > 0).all()
