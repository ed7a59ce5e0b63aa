"""Limits in which a cascade is a known model: a clearing, a fire sale, contagion by prices alone, or nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from seeds import some_and_slow

import netcontagion as nc
from netcontagion.clearing import default_liquidation, eisenberg_noe

LENDING = ("lending", "closeout", "aave_v2", "aave_v3_0", "aave_v3")
UNLIMITED = 1e15


# ------------------------------------------------------------------------------- the clearing step is Eisenberg-Noe


def market_with_loans(seed):
    """Lending exchanges whose traders also owe each other, outside, and have assets outside."""
    net = nc.generators.market(40, exchanges=2, seed=seed, depth=0.1)
    random = np.random.default_rng(seed)
    traders, size = net.traders, len(net.traders)
    typical = 40_000.0
    traders["external_assets"] = random.random(size) * typical * (random.random(size) < 0.5)
    traders["external_liabilities"] = random.random(size) * typical * (random.random(size) < 0.2)
    debtor, creditor = random.integers(0, size, (2, 3 * size))
    amount = random.random(3 * size) * typical
    rows = pd.DataFrame({"debtor": traders.index[debtor], "creditor": traders.index[creditor], "amount": amount})
    rows = rows[rows["debtor"] != rows["creditor"]].drop_duplicates(["debtor", "creditor"])
    return net.replace(traders=traders, liabilities=rows)


def obligations_at_the_end(run):
    """What everybody has and owes at the end, from the tables of the network and of the result alone."""
    net, accounts = run.network, run.accounts
    traders, exchanges, owed = net.traders, net.exchanges, net.liabilities
    nodes = [*traders.index, *exchanges.index]
    place = {name: number for number, name in enumerate(nodes)}
    matrix = np.zeros((len(nodes), len(nodes)))
    for (debtor, creditor), amount in owed["amount"].items():
        matrix[place[debtor], place[creditor]] += amount
    outside = np.zeros(len(nodes))
    outside[: len(traders)] = traders["external_liabilities"]
    wealth = pd.Series(0.0, index=nodes)
    wealth[traders.index] = run.traders["wealth_before"] - (run.traders["loss"] - run.traders["loss_counterparty"])
    assert (exchanges["insurance_asset"] == "USDC").all()
    fund_price = run.assets.loc["USDC", "price_before"]
    own = exchanges["equity"] + exchanges["insurance_fund"] * fund_price
    lost = run.exchanges["loss"] - run.losses.loc["counterparty", exchanges.index]
    wealth[exchanges.index] = own - lost
    assets = wealth.to_numpy().copy()  # claims and debts are not in it
    for trader, exchange, equity in accounts[["trader", "exchange", "equity"]].itertuples(index=False):
        assert equity >= 0
        matrix[place[exchange], place[trader]] += equity
        assets[place[trader]] -= equity
        assets[place[exchange]] += equity
    return matrix, assets, outside


@pytest.mark.parametrize("seed", range(6))
def test_the_clearing_step_is_the_greatest_vector_of_eisenberg_noe_on_the_same_obligations(seed):
    run = nc.cascade(market_with_loans(seed), nc.Shock.price({"ETH": -0.45}, family=True))
    run.check()
    assert run.accounts["liquidated"].any()
    matrix, assets, outside = obligations_at_the_end(run)
    assert assets.min() > -1e-6 * assets.max()
    plain = eisenberg_noe(matrix, np.maximum(assets, 0), outside, which="greatest")
    found = run.clearing
    assert found.which == "greatest"
    np.testing.assert_allclose(found.dues, plain.dues, rtol=1e-9, atol=1e-9 * plain.dues.max())
    np.testing.assert_allclose(found.payments, plain.payments, rtol=1e-9, atol=1e-9 * plain.dues.max())
    assert 0 < plain.defaulted.sum() < len(assets)
    lost = run.traders["loss_counterparty"].to_numpy()
    unpaid = matrix.sum(axis=0) - plain.payment_matrix().sum(axis=0) - plain.shortfall
    np.testing.assert_allclose(lost, unpaid[: len(lost)], rtol=1e-9, atol=1e-9 * plain.dues.max())


@pytest.mark.parametrize("seed", range(4))
def test_the_clearing_step_is_eisenberg_noe_on_what_the_result_says_was_cleared(seed):
    found = nc.cascade(market_with_loans(seed), nc.Shock.price({"ETH": -0.45}, family=True)).clearing
    values, owed = found.values, found.liabilities
    plain = eisenberg_noe(owed, values.external_assets, values.dues - owed.sum(axis=1), which="greatest")
    np.testing.assert_allclose(found.payments, plain.payments, rtol=1e-12, atol=1e-12 * values.dues.max())
    np.testing.assert_allclose(found.net_worth, plain.net_worth, rtol=0, atol=1e-12 * values.dues.max())


@pytest.mark.parametrize("seed", range(10))
def test_banks_without_exchanges_are_eisenberg_noe(seed):
    random = np.random.default_rng(seed)
    owed = random.integers(1, 20, (8, 8)) * (random.random((8, 8)) < 0.4)
    np.fill_diagonal(owed, 0)
    assets = random.integers(0, 12, 8).astype(float)
    names = [f"bank {number}" for number in range(8)]
    net = nc.builders.from_matrix(owed, rows="debtor", external_assets=assets, labels=names)
    loss = dict(zip(names, assets * random.random(8), strict=True))
    run = nc.cascade(net, nc.Shock.loss(loss))
    plain = eisenberg_noe(owed, assets - np.array(list(loss.values())))
    np.testing.assert_allclose(run.clearing.payments, plain.payments, rtol=1e-12, atol=1e-12)
    assert len(run.events) == 1


def test_of_several_vectors_the_cascade_takes_the_greatest():
    owed = scipy.sparse.csr_array([[0, 5.0], [5.0, 0]])
    net = nc.builders.from_matrix(owed, rows="debtor", external_assets=[0, 0], labels=["a", "b"])
    assert nc.cascade(net, nc.Shock()).clearing.payments.tolist() == [5, 5]
    assert eisenberg_noe(owed, [0, 0], which="least").payments.tolist() == [0, 0]


# --------------------------------------------------------------------------- no obligations between nodes: fire sale


def lending_book(seed, *, exchanges=1, fund=0.0, equity=0.0, rulebook="closeout", depth=None, size=30):
    """Borrowers of money against one or two assets, each with its own account on one of the exchanges."""
    random = np.random.default_rng(seed)
    names = [f"X{number}" for number in range(exchanges)]
    collateral = random.uniform(0, 100, (size, 2)) * (random.random((size, 2)) < 0.7)
    collateral[:, 0] += 1
    debt = 0.8 * collateral.sum(axis=1) / random.uniform(1.02, 2.0, size)
    labels = [f"k{number:02d}" for number in range(size)]
    rows = [(label, asset, units, 0.0) for label, pair in zip(labels, collateral, strict=True)
            for asset, units in zip(("A", "B"), pair, strict=True) if units]  # fmt: skip
    rows += [(label, "USD", 0.0, amount) for label, amount in zip(labels, debt, strict=True)]
    account, asset, deposited, borrowed = zip(*rows, strict=True)
    depth = collateral.sum(axis=0) / 1.2 if depth is None else np.full(2, depth)
    markets = [(name, one) for name in names for one in ("A", "B", "USD")]
    tables = {
        "assets": {"asset": ["A", "B", "USD"], "price": [1.0, 1.0, 1.0], "depth": [*depth, np.nan]},
        "exchanges": {
            "exchange": names,
            "rulebook": [rulebook] * exchanges,
            "insurance_fund": [fund] * exchanges,
            "equity": [equity] * exchanges,
        },
        "markets": {
            "exchange": [name for name, _ in markets],
            "asset": [one for _, one in markets],
            "liquidation_threshold": [0.8] * len(markets),
            "liquidation_bonus": [0.05] * len(markets),
            "close_factor": [0.5 if rulebook == "lending" else np.nan] * len(markets),
        },
        "accounts": {"account": labels, "trader": labels, "exchange": [names[at % exchanges] for at in range(size)]},
        "balances": {"account": account, "asset": asset, "deposited": deposited, "borrowed": borrowed},
    }
    return nc.ExposureNetwork(**tables), collateral, debt


@pytest.mark.parametrize("exchanges", [1, 3])
@pytest.mark.parametrize("seed", some_and_slow(4, 8))
def test_without_obligations_the_cascade_is_a_pure_fire_sale(seed, exchanges):
    # Health is below 1 where collateral lost more than collateral - debt / 0.8: a buffer as in default liquidation.
    net, collateral, debt = lending_book(seed, exchanges=exchanges, fund=UNLIMITED)
    run = nc.cascade(net, nc.Shock.price({"A": -0.08, "B": -0.02}))
    run.check()
    fires = default_liquidation(collateral, collateral.sum(axis=1) - debt / 0.8, shock=[0.08, 0.02], alpha=1.2)
    modelled = run.accounts.loc[[f"k{number:02d}" for number in range(len(debt))]]
    assert modelled["liquidated"].tolist() == (fires.wave >= 0).tolist()
    np.testing.assert_allclose(run.assets.loc[["A", "B"], "price"], fires.price, rtol=1e-12)
    assert modelled["first_round"].tolist() == np.where(fires.wave >= 0, fires.wave, -1).tolist()
    assert run.clearing is None
    assert not run.losses.loc[["counterparty", "mutualisation"]].drop(columns=net.exchanges.index).to_numpy().any()


def test_fire_sales_spread():
    waves = [nc.cascade(lending_book(seed)[0], nc.Shock.price({"A": -0.08})).rounds for seed in range(8)]
    assert max(len(rounds) for rounds in waves) >= 4


# -------------------------------------------------- one exchange with an unlimited fund: contagion through price alone


@pytest.mark.parametrize("rulebook", ["lending", "closeout"])
@pytest.mark.parametrize("seed", some_and_slow(2, 5))
def test_with_an_unlimited_fund_and_no_impact_nobody_hurts_anybody(seed, rulebook):
    shock = nc.Shock.price({"A": -0.45, "B": -0.3})
    net, _, _ = lending_book(seed, fund=UNLIMITED, rulebook=rulebook, depth=np.inf)
    run = nc.cascade(net, shock)
    run.check()
    assert run.exchanges["deficit"].sum() > 0
    assert run.exchanges[["socialised", "uncovered", "equity_used"]].to_numpy().sum() == 0
    assert run.rounds.index.max() <= 40
    alone = []
    for label in net.accounts.index[:30]:
        one = net.replace(accounts=net.accounts.loc[[label]], balances=net.balances.loc[[label]])
        alone.append(nc.cascade(one, shock).traders.loc[label, "loss"])
    np.testing.assert_allclose(run.traders.loc[net.accounts.index[:30], "loss"], alone, rtol=1e-9, atol=1e-9)
    funds = run.losses.loc["mutualisation"].drop(index=["X0"])
    assert not funds.to_numpy().any()


@pytest.mark.parametrize("rulebook", ["lending", "closeout"])
@pytest.mark.parametrize("seed", some_and_slow(2, 5))
def test_with_an_unlimited_fund_contagion_goes_through_the_price_alone(seed, rulebook):
    shock = nc.Shock.price({"A": -0.2, "B": -0.1})
    net, collateral, debt = lending_book(seed, fund=UNLIMITED, rulebook=rulebook)
    run = nc.cascade(net, shock)
    run.check()
    labels = [f"k{number:02d}" for number in range(len(debt))]
    traders, accounts = run.traders.loc[labels], run.accounts.loc[labels]
    spared = ~accounts["liquidated"].to_numpy()
    fall = 1 - run.assets.loc[["A", "B"], "price"].to_numpy()
    assert (fall > [0.2, 0.1]).all()
    np.testing.assert_allclose(traders["loss"][spared], (collateral @ fall)[spared], rtol=1e-9, atol=1e-9)
    channels = [f"loss_{name}" for name in ("mutualisation", "counterparty")]
    assert not traders[channels].to_numpy().any()
    lowest = 1 - run.assets.loc[["A", "B"], "price"]  # prices of sellers only fall: the last ones are the lowest
    told = nc.cascade(net, nc.Shock.price({name: -float(part) for name, part in lowest.items()}), channels=set())
    assert told.accounts.loc[labels, "called"].tolist() == accounts["called"].tolist()


@pytest.mark.parametrize("seed", range(5))
def test_without_a_fund_those_who_owe_nothing_lose_too(seed):
    shock = nc.Shock.price({"A": -0.45, "B": -0.3})
    rich, poor = (nc.cascade(lending_book(seed, fund=fund, depth=np.inf)[0], shock) for fund in (UNLIMITED, 0.0))
    assert rich.exchanges["deficit"].sum() == pytest.approx(poor.exchanges["deficit"].sum())
    assert rich.losses.loc["mutualisation", "others@X0"] == 0
    assert poor.losses.loc["mutualisation", "others@X0"] == pytest.approx(poor.exchanges["deficit"].sum())


# -------------------------------------------------------------------------------------- no shock: nothing happens


@pytest.mark.parametrize("rulebook", LENDING)
@pytest.mark.parametrize("seed", range(4))
def test_no_shock_on_a_healthy_start_gives_no_event(seed, rulebook):
    net, _, _ = lending_book(seed, exchanges=2, rulebook=rulebook)
    assert net.health().min() > 1
    for shock in (nc.Shock(), nc.Shock.price({"A": 0.0}), nc.Shock.loss({"k00": 0.0})):
        run = nc.cascade(net, shock)
        assert run.events["type"].tolist() == ["shock"]
        assert run.status is nc.Status.SETTLED
        assert not run.losses.to_numpy().any()
        assert run.assets["price"].tolist() == run.assets["price_before"].tolist()
        assert not run.accounts[["called", "topped_up", "liquidated", "forced"]].to_numpy().any()


@pytest.mark.parametrize("seed", range(4))
def test_no_shock_on_a_generated_market_gives_no_event(seed):
    run = nc.cascade(nc.generators.market(60, exchanges=3, seed=seed), nc.Shock())
    assert run.events["type"].tolist() == ["shock"]
    assert not run.losses.to_numpy().any()
    assert run.check().worst <= 1e-12


def test_health_of_exactly_one_is_no_call_and_a_hair_less_is():
    tables = {
        "assets": {"asset": ["A", "USD"], "price": [1.0, 1.0]},
        "exchanges": {"exchange": ["X"], "rulebook": ["lending"]},
        "markets": {
            "exchange": ["X", "X"],
            "asset": ["A", "USD"],
            "liquidation_threshold": [0.8, 0.8],
            "liquidation_bonus": [0.05, 0.05],
            "close_factor": [0.5, 0.5],
        },
        "balances": {"account": ["k", "k"], "asset": ["A", "USD"], "deposited": [100.0, 0.0], "borrowed": [0.0, 80.0]},
    }
    net = nc.ExposureNetwork(**tables)
    assert net.health()["k"] == 1.0
    assert len(nc.cascade(net, nc.Shock()).events) == 1
    assert len(nc.cascade(net, nc.Shock.price({"A": -1e-9})).events) > 1
