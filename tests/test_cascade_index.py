"""Only accounts that can act are valued and opened: the same accounts, prices and losses as when all of them are."""

from __future__ import annotations

import gc
import pickle
import threading
import weakref

import numpy as np
import pandas as pd
import pytest
from random_markets import random_market
from seeds import slow, slow_rows, some_and_slow
from test_cascade_twin import random_forms, random_shock, random_tables

import netcontagion as nc
from netcontagion.margining import _cascade, _index, _overlay, _scan
from netcontagion.margining._index import index_of
from netcontagion.margining._whole import final_state
from netcontagion.network import HEALTH_TOL

SHOCKS = [
    nc.Shock.price({"ETH": -0.3}, family=True),
    nc.Shock.price({"ETH": -0.1, "WBTC": 0.2}, family=True),
    nc.Shock.price({"ETH": -0.55}, family=True) + nc.Shock.depth(0.3),
    nc.Shock.price({"USDC": 0.6, "USDT": -1.0}),
    nc.Shock.price({"ETH": -1.0}, family=True),
]


def generated(seed, accounts=300):
    return nc.generators.market(accounts, exchanges=4, seed=seed, depth=0.3)


def fresh(net):
    """The same network without anything that was worked out about it."""
    return pickle.loads(pickle.dumps(net))


def outcome(run):
    frames = [run.events, run.accounts, run.traders, run.exchanges, run.losses, run.markets, run.assets, run.rounds]
    assert run.check().worst <= 1e-9
    return frames


def assert_equal(one, other):
    for ours, theirs in zip(outcome(one), outcome(other), strict=True):
        pd.testing.assert_frame_equal(ours, theirs)


def spy_on_calls(monkeypatch):
    """Hold what every round calls against the health of all accounts of the network."""
    plain, seen = _cascade.Play.find_called, []

    def find_called(play, marks, number):
        which, health = plain(play, marks, number)
        everybody = final_state(play.state)
        full = everybody.health(marks)
        expected = (full < 1 - HEALTH_TOL) | ((everybody.accounts.forced > 0) & np.isfinite(full))
        codes = play.state.overlay.codes_of(which)
        assert sorted(codes.tolist()) == np.flatnonzero(expected).tolist()
        np.testing.assert_allclose(health, full[codes], rtol=1e-12)
        seen.append(len(which))
        return which, health

    monkeypatch.setattr(_cascade.Play, "find_called", find_called)
    return seen


@pytest.mark.parametrize("shock", SHOCKS, ids=str)
@pytest.mark.parametrize("seed", some_and_slow(1, 2))
def test_every_account_below_1_is_called_in_every_round(seed, shock, monkeypatch):
    seen = spy_on_calls(monkeypatch)
    nc.cascade(generated(seed, 600), shock, strict=False).check()
    assert sum(seen) > 0


@pytest.mark.parametrize("tables", [random_tables, random_forms])
@pytest.mark.parametrize("block", some_and_slow(1, 4))
def test_every_account_below_1_is_called_in_random_markets(block, tables, monkeypatch):
    """With suppliers cut, wallets, several accounts a trader, own thresholds and defaults; blocks of two accounts."""
    monkeypatch.setattr(_index, "BLOCK", 2)
    monkeypatch.setattr(_scan, "REMEMBERED", 3)
    seen = spy_on_calls(monkeypatch)
    for seed in range(10 * block, 10 * block + 10):
        nc.cascade(nc.ExposureNetwork(**tables(seed)), random_shock(seed)).check()
    assert sum(seen) > 50


def test_accounts_on_a_tie_are_called_together(monkeypatch):
    """A thousand accounts of the same health, one part in 1e13 around 1 after the shock."""
    size = 1000
    nudge = 1 + np.random.default_rng(0).integers(-20, 20, size) * 1e-13
    names = [f"k{i:04d}" for i in range(size)]
    net = nc.ExposureNetwork(
        assets={"asset": ["ETH", "USD"], "price": [1.0, 1.0]},
        exchanges={"exchange": ["X"], "rulebook": ["closeout"]},
        markets={"exchange": ["X", "X"], "asset": ["ETH", "USD"], "liquidation_threshold": [0.8, 0.8]},
        balances={
            "account": names * 2,
            "asset": ["ETH"] * size + ["USD"] * size,
            "deposited": np.concatenate([100 * nudge, np.zeros(size)]),
            "borrowed": np.concatenate([np.zeros(size), np.full(size, 72.0)]),
        },
    )
    seen = spy_on_calls(monkeypatch)
    nc.cascade(net, nc.Shock.price({"ETH": -0.1})).check()
    assert 0 < seen[0] < size


# the same whatever the work is split into ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        (_scan, "CHUNK", 1),
        (_index, "BLOCK", 1),
        (_overlay, "MANY", 0),
        *slow_rows(
            (_scan, "REMEMBERED", 1), (_scan, "NEAR", 1.5), (_index, "_FEW_SLOTS", 2), (_overlay, "MANY", 10**9)
        ),
    ],
)
def test_sizes_of_blocks_and_pieces_change_nothing(module, name, value, monkeypatch):
    net = generated(5)
    expected = [nc.cascade(net, shock) for shock in SHOCKS[:2]]
    random = [nc.cascade(nc.ExposureNetwork(**random_tables(seed)), random_shock(seed)) for seed in range(4)]
    monkeypatch.setattr(module, name, value)
    if name == "NEAR":  # a kernel reads its constants when it is compiled
        monkeypatch.setattr(_scan, "scan", _scan.scan.__wrapped__)
    if name == "BLOCK":
        monkeypatch.setattr(_scan, "BLOCK", value)
    for run in expected:
        assert_same_up_to_rounding(nc.cascade(fresh(net), run.shock), run)
    for run in random:
        assert_same_up_to_rounding(nc.cascade(fresh(run.network), run.shock), run)


def assert_same_up_to_rounding(one, other):
    """Deposits without a seat are added up in another order where other accounts have one."""
    for ours, theirs in zip(outcome(one), outcome(other), strict=True):
        pd.testing.assert_frame_equal(ours, theirs, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("workers", [2, *slow(1, 7)])
def test_threads_change_nothing(workers, monkeypatch):
    net = generated(6, 3000)
    expected = nc.cascade(net, SHOCKS[0])
    monkeypatch.setattr(_scan, "CHUNK", 2)
    monkeypatch.setattr(_index, "BLOCK", 16)
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(workers)), raising=False)
    assert_equal(nc.cascade(fresh(net), SHOCKS[0]), expected)


def test_runs_in_threads_share_an_index_and_change_nothing():
    net = generated(7)
    expected = [nc.cascade(fresh(net), shock) for shock in SHOCKS[:3]]
    found = [None] * 3

    def work(place):
        found[place] = nc.cascade(net, SHOCKS[place])

    threads = [threading.Thread(target=work, args=(place,)) for place in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for ours, theirs in zip(found, expected, strict=True):
        assert_equal(ours, theirs)


def test_a_deposit_made_where_suppliers_lost_everything_is_watched(monkeypatch):
    """Uncovered holes, then top-ups into the same market: what is deposited anew can fall again."""
    seen = spy_on_calls(monkeypatch)
    run = nc.cascade(generated(4, 600), SHOCKS[2], strict=False)
    assert run.exchanges["uncovered"].sum() > 0
    assert (run._play.state.overlay.share == 0).any()
    assert len(seen) > 50


# what a run costs ----------------------------------------------------------------------------------------------------


def test_an_index_is_made_once_and_cannot_be_written_to():
    net = generated(8)
    index = index_of(net)
    nc.cascade(net, SHOCKS[0])
    assert index_of(net) is index
    assert index_of(fresh(net)) is not index
    for values in vars(index).values():
        assert not values.flags.writeable


def test_memory_of_the_index():
    """10 bytes per balance and 16 per account, and what the markets and the blocks take."""
    net = generated(9, 20_000)
    index = index_of(net)
    budget = 10 * len(index.amount) + 16 * len(net.labels("accounts"))
    small = 40 * len(index.block_first) + 64 * len(index.slot_market) + 64 * len(net.book.market_mark) + 1024
    peers = index.shared.nbytes + index.peer_start.nbytes + index.peer_account.nbytes + index.peer_place.nbytes
    assert index.nbytes - peers <= budget + small


def test_only_accounts_that_are_called_and_their_peers_get_a_seat():
    net = generated(10, 5000)
    run = nc.cascade(net, nc.Shock.price({"ETH": -0.05}, family=True))
    called = run.accounts["called"].to_numpy()
    opened = run._play.state.overlay.accounts
    owner = net.columns("accounts")["trader"]
    assert np.isin(owner[opened], owner[called]).mean() > 0.9
    assert called.sum() <= len(opened) < len(called) / 4


def test_a_shock_that_calls_nobody_opens_nobody():
    net = generated(11).replace(traders=None)
    calm = net.replace(balances=net.balances.assign(borrowed=net.balances["borrowed"] / 10))
    run = nc.cascade(calm, nc.Shock.price({"WETH": -0.01}))
    assert len(run._play.state.overlay.accounts) == 0
    assert "_state" not in vars(run)  # nothing was worked out for anybody
    assert run.check().worst <= 1e-12


def test_a_result_can_be_pickled_before_anybody_looked_at_it():
    run = nc.cascade(generated(12), SHOCKS[0])
    assert_equal(fresh(run), run)


# found by trying to break it -----------------------------------------------------------------------------------------


def test_collateral_that_arrives_as_a_top_up_is_watched():
    """Nobody indebted at X has SOL, until ann posts some; then sales at Y move the book that both share."""
    borrowers = [f"y{i}" for i in range(6)]
    owners, exchanges = ["ann", *borrowers, "bank", "banky"], ["X", *["Y"] * 6, "X", "Y"]
    balances = [
        ("ann", "ETH", 100.0, 0.0),
        ("ann", "USD", 0.0, 79.0),
        ("bank", "USD", 5e3, 0.0),
        ("banky", "USD", 5e3, 0.0),
    ]
    for i, label in enumerate(borrowers):
        balances += [(label, "SOL", 100.0, 0.0), (label, "USD", 0.0, 80 * (1 - 0.015 * i))]
    markets = [(x, a, 0.8, 0.05, 0.5) for x in "XY" for a in ("ETH", "SOL", "USD")]

    def columns(rows, *names):
        return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))

    net = nc.ExposureNetwork(
        assets={"asset": ["ETH", "SOL", "USD"], "price": [1.0, 1.0, 1.0], "depth": [np.nan, 1500.0, np.nan]},
        exchanges={"exchange": ["X", "Y"], "rulebook": ["lending", "lending"]},
        markets=columns(markets, "exchange", "asset", "liquidation_threshold", "liquidation_bonus", "close_factor"),
        accounts={"account": owners, "trader": owners, "exchange": exchanges},
        balances=columns(balances, "account", "asset", "deposited", "borrowed"),
        wallets={"trader": ["ann"], "asset": ["SOL"], "units": [60.0]},
    )
    run = nc.cascade(net, nc.Shock.price({"ETH": -0.4, "SOL": -0.01}))
    assert run.accounts["health"]["ann"] > 1.0


@pytest.mark.parametrize("big", [1e3, 1e8, 1e12, 1e16])
def test_a_small_supplier_beside_a_whale_bears_its_loss(big):
    balances = {
        "account": ["w", "w", "s", "d", "d", "u"],
        "asset": ["ETH", "USD", "ETH", "SOL", "ETH", "USD"],
        "deposited": [big, 0.0, 1.23456789, 1.0, 0.0, big * 2],
        "borrowed": [0.0, big * 0.79, 0.0, 0.0, 0.79, 0.0],
    }
    owners = ["w", "s", "d", "u"]
    net = nc.ExposureNetwork(
        assets={"asset": ["ETH", "SOL", "USD"], "price": [1.0, 1.0, 1.0]},
        exchanges={"exchange": ["X"], "rulebook": ["closeout"]},
        markets={"exchange": ["X"] * 3, "asset": ["ETH", "SOL", "USD"], "liquidation_threshold": [0.8] * 3},
        accounts={"account": owners, "trader": owners, "exchange": ["X"] * 4},
        balances=balances,
    )
    run = nc.cascade(net, nc.Shock.price({"ETH": -0.1, "SOL": -0.9}))
    assert run.exchanges["socialised"]["X"] == pytest.approx(0.611)
    assert run.accounts["equity"]["s"] == pytest.approx(1.23456789 * 0.9 - 0.611, rel=1e-12)


@pytest.mark.parametrize("make", [generated, lambda seed: random_market(seed)[0]])
def test_a_result_is_freed_with_its_last_name(make):
    """Nothing of a run holds itself: many runs take no more memory than those that are kept."""
    nets = [make(seed) for seed in range(4)]
    gc.disable()
    try:
        for net in nets:
            run = nc.cascade(net, nc.Shock.price({"ETH": -0.4}, family=True), strict=False)
            run.check()
            alive = [weakref.ref(part) for part in (run._play, run._play.state, run._play.events, run._state)]
            del run
            assert [part() for part in alive] == [None] * 4
    finally:
        gc.enable()
