"""Passes of the final clearing: who defaults is closed out, and the original claims are cleared again."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from random_markets import random_market
from test_soak import flaws_of, run_of

import netcontagion as nc


def longs(owed, external, *, depth=1000.0, channels=None, loss=100.0):
    """Traders t0.. with 200 USD and 10 contracts at 100 each; t_k owes the next an amount, the last owes ``out``.

    The shock takes 100 outside from t0, which has that much more before it. The book is linear: each contract sold
    lowers the price by 100 / depth.
    """
    size = len(owed)
    names = [f"t{k}" for k in range(size)]
    net = nc.ExposureNetwork(
        traders={"trader": [*names, "out"], "external_assets": [external[0] + loss, *external[1:], 0.0]},
        assets={
            "asset": ["C", "USD"],
            "price": [100.0, 1.0],
            "kind": ["linear", "stable"],
            "depth": [depth, math.inf],
            "impact": ["linear", "exponential"],
            "settlement": ["USD", None],
        },
        exchanges={"exchange": ["X"], "rulebook": ["perpetual"]},
        markets={"exchange": ["X"] * 2, "asset": ["C", "USD"], "maintenance_margin": [0.05, math.nan]},
        accounts={"account": names, "trader": names, "exchange": ["X"] * size},
        balances={"account": names, "asset": ["USD"] * size, "deposited": [200.0] * size},
        positions={
            "account": names,
            "asset": ["C"] * size,
            "quantity": [10.0] * size,
            "entry_price": [100.0] * size,
        },
        liabilities={"debtor": names, "creditor": [*names[1:], "out"], "amount": owed},
    )
    run = nc.cascade(net, nc.Shock.loss({"t0": loss}), channels=channels)
    run.check()
    return run


def sales(run):
    rows = run.events[run.events["type"] == "contract_sale"]
    return dict(zip(rows["account"].astype(str), rows["price"], strict=True))


# by hand -------------------------------------------------------------------------------------------------------------


def test_two_passes_by_hand():
    """t0 owes 250 and has 200: closed at 99.5 it has 195; t1 gets 195, has 190 + 100 and pays all of 450."""
    run = longs([250.0, 450.0], [0.0, 100.0])
    assert run.clearing_passes == 2
    assert sales(run) == {"t0": pytest.approx(99.5)}
    assert run.assets.loc["C", "price"] == pytest.approx(99.0)
    assert run.clearing.payments[["t0", "t1"]].tolist() == pytest.approx([195.0, 450.0])
    assert run.traders.index[run.traders["defaulted"]].tolist() == ["t0"]
    assert run.accounts.index[run.accounts["forced"]].tolist() == ["t0"]
    assert run.summary()["clearing passes"] == 2


def test_three_passes_by_hand():
    """With 31 outside t1 pays 430 of 200 + 200 + 31 at first, of 195 + 190 + 31 then: it is closed at 98.5 too."""
    run = longs([250.0, 430.0], [0.0, 31.0])
    assert run.clearing_passes == 3
    assert sales(run) == {"t0": pytest.approx(99.5), "t1": pytest.approx(98.5)}
    assert run.clearing.payments[["t0", "t1"]].tolist() == pytest.approx([195.0, 195.0 + 185.0 + 31.0])
    assert run.traders.loc["out", "loss"] == pytest.approx(430.0 - 411.0)


def test_collateral_of_a_defaulter_is_sold():
    """t owes 30 outside, has 10 ETH at 10 against 75 USD, loses 5: 100 - 5 on a linear book of 100, less 75, are 20."""
    net = nc.ExposureNetwork(
        traders={"trader": ["t", "s"], "external_assets": [5.0, 0.0], "external_liabilities": [30.0, 0.0]},
        assets={
            "asset": ["ETH", "USD"],
            "price": [10.0, 1.0],
            "depth": [100.0, math.inf],
            "impact": ["linear", "exponential"],
        },
        exchanges={"exchange": ["X"], "rulebook": ["closeout"]},
        markets={"exchange": ["X"] * 2, "asset": ["ETH", "USD"], "liquidation_threshold": [0.8, 0.0]},
        accounts={"account": ["t", "s"], "trader": ["t", "s"], "exchange": ["X"] * 2},
        balances={
            "account": ["t", "t", "s"],
            "asset": ["ETH", "USD", "USD"],
            "deposited": [10.0, 0.0, 100.0],
            "borrowed": [0.0, 75.0, 0.0],
        },
    )
    run = nc.cascade(net, nc.Shock.loss({"t": 5.0}))
    run.check()
    assert run.clearing_passes == 2
    assert run.accounts.loc["t", ["called", "liquidated", "forced"]].all()
    assert run.clearing.payments["t"] == pytest.approx(20.0)
    assert run.losses.loc["counterparty", "external creditors"] == pytest.approx(10.0)


@pytest.mark.parametrize("size", [3, 6])
def test_passes_are_bounded_by_the_traders_who_can_fail(size):
    """Of a chain of debtors each is solvent, by 0.5, until the one before it is closed out."""
    owed, outside = [201.0, *(200.0 * (k + 1) for k in range(1, size))], [0.0]

    def means(k, closed):
        own = 200.0 - 10.0 * (k + 0.5 if k < closed else closed)
        return own + outside[k] + (min(owed[k - 1], means(k - 1, closed)) if k else 0.0)

    for k in range(1, size):
        outside.append(0.0)
        outside[k] = owed[k] - means(k, k - 1) + 0.5
    run = longs(owed, outside)
    assert run.clearing_passes == size + 1
    assert [*sales(run)] == [f"t{k}" for k in range(size)]


# limits --------------------------------------------------------------------------------------------------------------


def test_nobody_defaults():
    """Then there is one clearing, on the state in which the rounds ended."""
    run = longs([150.0, 250.0], [0.0, 0.0])
    assert run.clearing_passes == 1
    assert run.events["type"].tolist() == ["shock"]
    assert (run.clearing.shortfall == 0).all()


def test_who_could_not_pay_before_is_not_closed_out():
    """A market without a shock stays as it is; with one, t1 fails by it and t0 did without."""
    calm = longs([250.0, 430.0], [0.0, 31.0], loss=0.0)
    assert calm.events["type"].tolist() == ["shock"]
    assert calm.traders.loc["t0", "defaulted"]
    net, fall = calm.network, nc.Shock.price({"C": -0.05})
    run = nc.cascade(net, fall)
    run.check()
    assert sales(run) == {"t1": pytest.approx(94.525)}
    assert run.traders.loc[["t0", "t1"], "defaulted"].all()


def test_a_defaulter_with_nothing_to_close_changes_nothing():
    net, shock = nc.generators.ring(6, equity=0.05), nc.Shock.loss(0.5)
    run = nc.cascade(net, shock)
    run.check()
    assert run.clearing_passes == 1
    assert run.events["type"].tolist() == ["shock"]
    expected = nc.clear(net, shock)
    np.testing.assert_allclose(run.clearing.payments, expected.payments, rtol=1e-12)
    assert run.clearing.defaulted.any()


def test_without_liquidation_nobody_is_closed_out():
    run = longs([250.0, 430.0], [0.0, 31.0], channels=("impact",))
    assert run.clearing_passes == 1
    assert run.clearing.payments[["t0", "t1"]].tolist() == pytest.approx([200.0, 430.0])


def test_a_deep_book_makes_close_outs_harmless():
    run, still = (longs([250.0, 430.0], [0.0, 31.0], depth=math.inf, channels=on) for on in (None, ("impact",)))
    assert run.clearing_passes == 2
    np.testing.assert_allclose(run.clearing.payments, still.clearing.payments, rtol=1e-12)


# laws ----------------------------------------------------------------------------------------------------------------


def test_claims_are_the_original_ones_and_payments_post_once():
    run = longs([250.0, 430.0], [0.0, 31.0])
    owed = pd.Series(run.clearing.liabilities.sum(axis=1), index=run.clearing.payments.index)
    assert owed[["t0", "t1"]].tolist() == [250.0, 430.0]
    unpaid = run.clearing.shortfall
    posted = run.traders["loss_counterparty"]
    assert posted["t1"] == pytest.approx(unpaid["t0"] - unpaid["t1"])
    assert posted["out"] == pytest.approx(unpaid["t1"])


@pytest.mark.parametrize("depth", [100.0, 300.0, 1e3, 1e4, math.inf])
def test_thinner_books_pay_creditors_less(depth):
    thin, deep = longs([250.0, 430.0], [0.0, 31.0], depth=depth), longs([250.0, 430.0], [0.0, 31.0], depth=2 * depth)
    assert (thin.clearing.payments <= deep.clearing.payments + 1e-9)[["t0", "t1", "out"]].all()
    assert thin.clearing_passes >= deep.clearing_passes


@pytest.mark.parametrize("first", [12, 24])
def test_in_the_end_no_defaulter_has_anything_open_that_was_not_closed_by_force(first):
    passes = 0
    for seed in range(first, first + 12):
        net, _ = random_market(seed, flaws=flaws_of(seed))
        run = run_of(seed, max_rounds=2_000)
        if not run.status.settled or run.clearing is None:
            continue
        run.check()
        passes += run.clearing_passes > 1
        accounts = run.accounts.iloc[: len(run.accounts) - net.derived("accounts")]
        before = nc.cascade(net, nc.Shock(), channels=()).traders["defaulted"]
        open_ = accounts[np.isfinite(accounts["health"])]
        failed = (run.traders["defaulted"] & ~before).reindex(open_["trader"].astype(object)).to_numpy()
        assert open_["forced"].to_numpy()[failed].all(), seed
    assert passes > 0
