"""Accounts that end in one stroke, without a seat: the same tables as when every account that is called has a seat."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from seeds import some_and_slow
from test_cascade_twin import random_forms, random_shock, random_tables

import netcontagion as nc
from netcontagion.margining import _cascade, _strokes
from netcontagion.margining._index import index_of

TABLES = ("accounts", "traders", "exchanges", "assets", "markets", "losses", "rounds")


def lonely_tables(seed):
    """Random markets where most exchanges close whole accounts and most owners cannot answer."""
    rng = np.random.default_rng([seed, 3])
    tables = (random_forms if rng.random() < 0.4 else random_tables)(seed)
    if "accounts" not in tables:
        return tables
    venues = tables["exchanges"]["exchange"]
    tables["exchanges"]["rulebook"] = [
        "closeout" if rng.random() < 0.8 else book for book in tables["exchanges"]["rulebook"]
    ]
    if rng.random() < 0.6:
        tables.pop("wallets", None)
    alone = rng.random(len(tables["accounts"]["account"])) < 0.8
    tables["accounts"]["trader"] = [
        account if single else trader
        for account, trader, single in zip(
            tables["accounts"]["account"], tables["accounts"]["trader"], alone, strict=True
        )
    ]
    owners = sorted(
        {*tables["accounts"]["trader"], *tables["traders"]["trader"], *tables.get("wallets", {}).get("trader", [])}
    )
    tables["traders"] = {
        "trader": owners,
        "policy": rng.choice(["default", "passive"], len(owners), p=[0.8, 0.2]).tolist(),
    }
    for limited in venues[:1]:
        if rng.random() < 0.5:
            tables["exchanges"]["equity"][venues.index(limited)] = 0.0
    return tables


def in_seats(monkeypatch):
    """Give every account that is called a seat."""
    monkeypatch.setattr(_strokes.Strokes, "fits", lambda _self, places: np.zeros(len(places), dtype=bool))


def history(run):
    """Events without the order within a round: each with the event that caused it, in words."""
    events = run.events
    cause = events.reindex(events["parent"])[["round", "type", "account"]].reset_index(drop=True)
    named = events.join(cause.add_prefix("cause_"))
    layers = ~named["type"].isin(
        ["shock", "call", "sale", "purchase", "deficit", "top_up", "withdrawal", "liquidation"]
    )
    named.loc[layers, "cause_account"] = None  # any deficit of the round stands for all
    named = named.drop(columns="parent").astype(
        dict.fromkeys(("type", "account", "asset", "exchange", "debit", "credit", "cause_type", "cause_account"), str)
    )
    return named.sort_values(["round", "type", "exchange", "account", "asset", "debit"]).reset_index(drop=True)


def assert_same(one, other):
    assert one.status is other.status
    assert one.check().worst <= 1e-9 >= other.check().worst
    for name in TABLES:
        ours, theirs = getattr(one, name), getattr(other, name)
        pd.testing.assert_frame_equal(ours, theirs, rtol=1e-9, atol=1e-7, obj=name)
    pd.testing.assert_frame_equal(history(one), history(other), rtol=1e-9, atol=1e-9, obj="events")


@pytest.mark.parametrize("block", some_and_slow(1, 10))
def test_strokes_and_seats_give_the_same_tables(block, monkeypatch):
    struck = 0
    for seed in range(30 * block, 30 * block + 30):
        net, shock = nc.ExposureNetwork(**lonely_tables(seed)), random_shock(seed)
        options = {"priority": ("worst_first", "best_first", "random")[seed % 3], "seed": seed}
        if seed % 4 == 0:
            options["channels"] = ("liquidation", "impact", "withdrawal")
        with monkeypatch.context() as patch:
            patch.setattr(_cascade, "MIX", 0)
            one = nc.cascade(net, shock, **options)
        with monkeypatch.context() as patch:
            in_seats(patch)
            other = nc.cascade(net, shock, **options)
        struck += sum(len(stroke.place) for stroke in one._play.state.overlay.strokes)
        assert not other._play.state.overlay.strokes
        assert_same(one, other)
    assert struck > 5


@pytest.mark.parametrize("block", some_and_slow(1, 4))
def test_strokes_and_seats_agree_when_shocks_strike_later(block, monkeypatch):
    """Prices fall again, and traders fail whose accounts ended in a stroke before."""
    struck = 0
    for seed in range(15 * block, 15 * block + 15):
        net = nc.ExposureNetwork(**lonely_tables(seed))
        failing = (
            nc.Shock.default(*net.labels("traders")) if seed % 2 else nc.Shock.outage(*net.labels("exchanges")[:1])
        )
        shock = nc.Shock.path([random_shock(seed), failing, random_shock(seed)], every=2)
        with monkeypatch.context() as patch:
            patch.setattr(_cascade, "MIX", 0)
            one = nc.cascade(net, shock, strict=False)
        with monkeypatch.context() as patch:
            in_seats(patch)
            other = nc.cascade(net, shock, strict=False)
        struck += sum(len(stroke.place) for stroke in one._play.state.overlay.strokes)
        assert_same(one, other)
    assert struck > 5


@pytest.mark.parametrize("fall", [-0.1, -0.3, -0.6])
def test_strokes_and_seats_agree_on_a_larger_market(fall, monkeypatch):
    net = nc.generators.market(2000, exchanges=3, seed=1, depth=0.4)
    shock = nc.Shock.price({"ETH": fall}, family=True)
    one = nc.cascade(net, shock)
    in_seats(monkeypatch)
    assert_same(one, nc.cascade(net, shock))


def crowd(form, size=400):
    """Owners of one account each, one or two collaterals, one or two debts in what no purchase makes dearer."""
    rng = np.random.default_rng(5)
    volatile, stable = ["A", "B", "C"], ["USD", "EUR"]
    rows = []
    for name in range(size):
        held = rng.choice(volatile, rng.integers(1, 3), replace=False)
        worth = rng.lognormal(0, 1, len(held))
        owed = rng.choice(stable, rng.integers(1, 3), replace=False)
        debt = rng.uniform(0.4, 0.79) * worth.sum() * rng.dirichlet(np.ones(len(owed)))
        rows += [(name, asset, units, 0.0) for asset, units in zip(held, worth, strict=True)]
        rows += [(name, asset, 0.0, units) for asset, units in zip(owed, debt, strict=True)]
    rows += [(size, asset, 2.0 * size, 0.0) for asset in stable]
    account, asset, deposited, borrowed = zip(*rows, strict=True)
    names = [*volatile, *stable]
    return nc.ExposureNetwork(
        exchanges={"exchange": ["X"], "rulebook": ["closeout"]},
        assets={
            "asset": names,
            "price": [1.0] * 5,
            "depth": [size, size, 2.0 * size, np.inf, np.inf],
            "impact": [form] * 5,
        },
        markets={"exchange": ["X"] * 5, "asset": names, "liquidation_threshold": [0.8, 0.8, 0.8, 0.0, 0.0]},
        balances={"account": account, "asset": asset, "deposited": deposited, "borrowed": borrowed},
        accounts={"account": range(size + 1), "trader": range(size + 1), "exchange": ["X"] * (size + 1)},
    )


@pytest.mark.parametrize("fall", [-0.1, -0.5])
@pytest.mark.parametrize("form", ["exponential", "linear", "square_root"])
def test_closing_in_pieces_is_closing_one_after_the_other(form, fall, monkeypatch):
    net, shock = crowd(form), nc.Shock.price({"A": fall, "B": fall})
    whole = nc.cascade(net, shock)
    assert max(len(stroke.place) for stroke in whole._play.state.overlay.strokes) > 30
    monkeypatch.setattr(_strokes, "PIECE", 7)
    pieces = nc.cascade(net, shock)
    assert_same(pieces, whole)
    in_seats(monkeypatch)
    assert_same(pieces, nc.cascade(net, shock))


def test_few_accounts_beside_many_seats_get_seats_too():
    net = nc.ExposureNetwork(**lonely_tables(3))
    run = nc.cascade(net, random_shock(3))
    assert_same(run, run)


def test_who_may_answer_has_a_seat():
    """An owner with a wallet, one without, and one with a wallet who never answers."""
    names = ["alone", "rich", "passive"]
    net = nc.ExposureNetwork(
        assets={"asset": ["ETH", "USD"], "price": [1.0, 1.0]},
        exchanges={"exchange": ["X"], "rulebook": ["closeout"]},
        markets={"exchange": ["X", "X"], "asset": ["ETH", "USD"], "liquidation_threshold": [0.8, 0.8]},
        traders={"trader": names, "policy": ["default", "default", "passive"]},
        balances={
            "account": names * 2,
            "asset": ["ETH"] * 3 + ["USD"] * 3,
            "deposited": [100.0] * 3 + [0.0] * 3,
            "borrowed": [0.0] * 3 + [75.0] * 3,
        },
        wallets={"trader": ["rich", "passive"], "asset": ["USD", "USD"], "units": [50.0, 50.0]},
    )
    index = index_of(net)
    answer = dict(zip(net.labels("accounts")[index.order], index.answer.tolist(), strict=True))
    assert [answer[name] for name in names] == [0, 1, 0]
    run = nc.cascade(net, nc.Shock.price({"ETH": -0.1}))
    assert run.accounts.loc[names, "liquidated"].tolist() == [True, False, True]
    assert run.accounts.loc[names, "topped_up"].tolist() == [False, True, False]
    off = nc.cascade(net, nc.Shock.price({"ETH": -0.1}), channels=("liquidation",))
    assert off.accounts.loc[names, "liquidated"].all()
    assert len(off._play.state.overlay.accounts) == 0
    off.check()


def test_a_result_without_its_index_gives_the_same_tables():
    net = nc.generators.market(3000, exchanges=2, seed=4, depth=0.4)
    run = nc.cascade(net, nc.Shock.price({"ETH": -0.3}, family=True))
    copy = pickle.loads(pickle.dumps(run))
    assert_same(run, copy)


def test_a_result_takes_little_more_room_than_what_was_touched():
    net = nc.generators.market(20_000, exchanges=2, seed=4, depth=2.0)
    run = nc.cascade(net, nc.Shock.price({"ETH": -0.06}, family=True))
    touched, extra = int(run.rounds["called"].sum()), len(pickle.dumps(run)) - len(pickle.dumps(net))
    assert touched > 0
    assert extra < 40_000 + 1000 * touched


def test_an_index_cannot_be_written_to_after_a_trip_through_pickle():
    index = pickle.loads(pickle.dumps(index_of(nc.datasets.load("market"))))
    assert not any(values.flags.writeable for values in vars(index).values())
