"""One network, one shock, every model of ``nc.clear``: the same nodes, the same direct loss, comparable contagion."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from test_clear import random_book

import netcontagion as nc
from netcontagion import builders
from netcontagion.clearing import EisenbergNoe, ExAnteMerton, LinearDebtRank, eisenberg_noe

OPTIONS = {
    "eisenberg_noe": {},
    "rogers_veraart": {"alpha": 0.7, "beta": 0.8},
    "elsinger": {},
    "suzuki": {},
    "neva": {"valuation": EisenbergNoe()},
    "furfine": {"recovery": 0.4},
    "threshold": {"loss_given_default": 0.6},
    "debtrank": {},
    "linear_debtrank": {},
    "fire_sale": {},
}


def banks(seed=0, nodes=12, **tables):
    """Banks with equity, of which a third of the assets are bonds with a thin book."""
    rng = np.random.default_rng(seed)
    owed = rng.lognormal(0, 1, (nodes, nodes)) * (rng.random((nodes, nodes)) < 0.3)
    np.fill_diagonal(owed, 0.0)
    outside = rng.uniform(2, 6, nodes)
    equity = rng.uniform(0.3, 1.5, nodes)
    need = owed.sum(axis=1) + outside + equity - owed.sum(axis=0)
    cash = np.maximum(need - 0.3, 0.5)
    names = [f"bank-{k:02}" for k in range(nodes)]
    debtor, creditor = np.nonzero(owed)
    given = {
        "traders": {"trader": names, "external_assets": cash, "external_liabilities": outside},
        "liabilities": {
            "debtor": [names[k] for k in debtor],
            "creditor": [names[k] for k in creditor],
            "amount": owed[debtor, creditor],
        },
        "assets": {"asset": ["bond"], "price": [1.0], "depth": [6.0]},
        "holdings": {"trader": names, "asset": ["bond"] * nodes, "units": [0.3] * nodes},
    }
    return nc.ExposureNetwork(**(given | tables))


SHOCK = nc.Shock.loss(0.15) + nc.Shock.default("bank-03")


@pytest.mark.parametrize("model", OPTIONS)
def test_every_model_answers_on_the_same_network(model):
    net = banks()
    result = nc.clear(net, SHOCK, model=model, **OPTIONS[model])
    assert result.model == model
    assert result.status.settled
    result.check()
    assert result.loss.index.equals(net.nodes)
    assert (result.loss["contagion"] >= -1e-9).all()
    assert result.loss["contagion"].sum() > 0.01
    assert result.numeraire == "USD"
    assert model in repr(result)
    total = result.loss.sum(axis=1)
    calm = nc.clear(net, model=model, **OPTIONS[model])
    assert total.to_numpy() == pytest.approx((calm.equity - result.equity).to_numpy(), abs=1e-9)
    assert calm.loss.to_numpy() == pytest.approx(0.0, abs=1e-9)


def test_direct_loss_is_the_same_in_every_model():
    net = banks()
    losses = {model: nc.clear(net, SHOCK, model=model, **OPTIONS[model]).loss for model in OPTIONS}
    for model, loss in losses.items():
        assert loss["direct"].to_numpy() == pytest.approx(losses["eisenberg_noe"]["direct"].to_numpy(), abs=1e-9), model


def test_models_that_are_special_cases_agree():
    net = banks()
    exact = nc.clear(net, SHOCK)
    senior = nc.clear(net, SHOCK, external_rank="senior")
    first = nc.clear(net, SHOCK, model="elsinger", external_class="senior")
    assert first.payments.to_numpy() == pytest.approx(senior.payments.to_numpy(), abs=1e-8)
    for model, options in {
        "rogers_veraart": {"alpha": 1.0, "beta": 1.0},
        "elsinger": {},
        "suzuki": {},
        "neva": {"valuation": EisenbergNoe()},
    }.items():
        same = nc.clear(net, SHOCK, model=model, **options)
        assert same.equity.to_numpy() == pytest.approx(exact.equity.to_numpy(), abs=1e-8), model
        assert same.payments.to_numpy() == pytest.approx(exact.payments.to_numpy(), abs=1e-8), model
    deep = net.replace(assets={"asset": ["bond"], "price": [1.0]})
    sold = nc.clear(deep, SHOCK, model="fire_sale")
    assert sold.payments.to_numpy() == pytest.approx(exact.payments.to_numpy(), abs=1e-8)
    lower = nc.clear(net, SHOCK, model="furfine", recovery=0.4)
    twin = nc.clear(net, SHOCK, model="threshold", loss_given_default=0.6)
    assert lower.loss.equals(twin.loss)


def test_linear_debtrank_is_the_linear_valuation():
    net = banks()
    shock = nc.Shock.loss(0.1)
    ranked = nc.clear(net, shock, model="linear_debtrank")
    valued = nc.clear(net, shock, model="neva", valuation=LinearDebtRank(), external_rank="senior")
    assert ranked.equity.to_numpy() == pytest.approx(valued.equity.to_numpy(), abs=1e-8)


def test_a_thin_book_costs_more_than_a_deep_one():
    net = banks()
    equity = {}
    for depth in (np.inf, 12.0, 3.6):
        book = net.replace(assets={"asset": ["bond"], "price": [1.0], "depth": [depth]})
        result = nc.clear(book, SHOCK, model="fire_sale")
        assert isinstance(result.prices, pd.Series)
        equity[depth] = float(result.equity.sum()), float(result.prices["bond"])
    assert equity[np.inf] > equity[12.0] > equity[3.6]
    thinner = nc.clear(net, SHOCK + nc.Shock.depth(0.6), model="fire_sale")
    assert thinner.prices["bond"] == pytest.approx(equity[3.6][1])


def test_seniority_is_ranked_by_elsinger_and_refused_by_the_others():
    frame = banks().liabilities.reset_index()
    frame["seniority"] = np.arange(len(frame)) % 2
    net = banks(liabilities=frame)
    ranked = nc.clear(net, SHOCK, model="elsinger")
    assert ranked.status.settled
    assert len(ranked.payments_by_class) == 2
    for model in ("eisenberg_noe", "suzuki", "fire_sale"):
        with pytest.raises(nc.errors.ContagionError, match="use 'elsinger'"):
            nc.clear(net, SHOCK, model=model, **OPTIONS[model])


def test_debtrank_needs_equity():
    net = builders.from_matrix([[0, 5], [0, 0]], rows="debtor", external_assets=[5, 1], labels=["a", "b"])
    with pytest.raises(nc.errors.ContagionError, match="divides by equity, which is not more than 0 at 'a'"):
        nc.clear(net, nc.Shock.default("a"), model="linear_debtrank")


def test_banks_only_are_the_array_level():
    net = banks()
    owed = net.exposures("traders", "traders").matrix
    table = net.traders
    worth = table["external_assets"].to_numpy() + 0.3
    alone = eisenberg_noe(owed, worth, table["external_liabilities"].to_numpy())
    assert nc.clear(net).payments.tolist() == alone.payments.tolist()


def test_unknown_models_are_named():
    with pytest.raises(nc.errors.UnknownLabelError, match="rogers_veraart"):
        nc.clear(banks(), SHOCK, model="rogers_verart")


def test_a_calibrated_valuation_splits_the_loss_as_the_others_do():
    net, options = banks(), {"valuation": ExAnteMerton(0.05, 0.5)}
    plain = nc.clear(net, SHOCK, model="neva", **options).loss
    calibrated = nc.clear(net, SHOCK, model="neva", calibrate=True, **options).loss
    exact = nc.clear(net, SHOCK).loss
    assert (calibrated["contagion"] >= -1e-9).all()
    assert calibrated["direct"].to_numpy() == pytest.approx(exact["direct"].to_numpy(), abs=1e-9)
    assert not calibrated.equals(plain)


@pytest.mark.parametrize("model", ["eisenberg_noe", "rogers_veraart", "neva", "fire_sale"])
def test_nothing_is_lost_without_a_shock_where_external_debt_is_senior(model):
    net = builders.from_matrix(
        [[0, 9], [0, 0]], rows="debtor", external_assets=[9, 1], external_liabilities=[9, 0], labels=["a", "b"]
    )
    if model == "fire_sale":
        net = net.replace(assets={"asset": ["bond"], "price": [1.0]})
    options = {**OPTIONS[model], "external_rank": "senior"}
    assert nc.clear(net, model=model, **options).loss.to_numpy() == pytest.approx(0.0, abs=1e-9)
    lost = nc.clear(net, nc.Shock.loss({"b": 0.5}), model=model, **options).loss.loc["b"]
    assert lost.tolist() == pytest.approx([0.5, 0.0], abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_models_of_ranked_debt_split_the_loss_on_exchanges_as_eisenberg_noe_does(seed):
    net = random_book(seed, recourse=bool(seed % 2))
    shock = nc.Shock.price({"ETH": -0.3}, family=True)
    exact = nc.clear(net, shock).loss.to_numpy()
    for model in ("elsinger", "suzuki"):
        assert nc.clear(net, shock, model=model).loss.to_numpy() == pytest.approx(exact, abs=1e-6), model
