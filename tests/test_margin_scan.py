"""Only margin accounts whose room is used up are valued: the same are found as when all of them are, at any prices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_markets import random_market
from seeds import slow
from test_margin_cascade import RULES, book
from test_margin_twin import random_tables, rules  # noqa: F401

import netcontagion as nc
from netcontagion.margining import _margin_scan
from netcontagion.margining._cascade import SWITCHES
from netcontagion.margining._margin_scan import NEAR, MarginScan, margin_index_of
from netcontagion.margining._opening import open_state

STEPS = 12


class Walk:
    """Prices and shares that move, and what is found on the way, by the scan and by valuing everybody."""

    def __init__(self, net, seed, size, stressed=False):
        self.stressed = stressed
        self.net, self.rng, self.size = net, np.random.default_rng(seed), size
        state = open_state(net, nc.Shock.depth(1.0), switches=SWITCHES)
        self.scan, self.terms, self.index = MarginScan(net, state.terms), state.terms, margin_index_of(net)
        self.marks, self.share = net.book.market_mark.copy(), np.ones(len(net.book.market_mark))
        self.open = np.zeros(len(self.index.accounts), dtype=bool)
        self.found, self.valued = [], []

    def stress(self, times):
        """Multiply all margins, as volatility does."""
        markets = self.terms.markets.copy()
        for name in ("long", "short"):
            markets[name] *= times / self.terms.stress
        self.terms = replace(self.terms, markets=markets, stress=times)

    def everybody(self):
        """Places below health 1, near enough, of those that are not open."""
        entries = self.index.entries.copy()
        entries["deposited"] *= self.share[entries.market]
        test = self.index.test[self.index.accounts]
        backing, must = self.terms.weigh(test, entries, self.index.positions, self.marks)
        return np.flatnonzero(~self.open & (must > 0) & (backing < must * NEAR))

    def step(self):
        rng = self.rng
        if rng.random() < 0.8:
            moves = rng.normal(0, self.size, len(self.marks)) * (rng.random(len(self.marks)) < 0.5)
            self.marks = self.marks * np.exp(moves)
        if rng.random() < 0.3:
            self.share = self.share * rng.uniform(1 - self.size, 1, len(self.share))
        if self.stressed and rng.random() < 0.3:
            self.stress(rng.uniform(1.0, 3.0, len(self.marks)))
        expected = self.everybody()
        found = self.scan.exposed(self.terms, self.marks, self.share)
        assert sorted(found.tolist()) == self.index.accounts[expected].tolist()
        self.found.append(len(found))
        opened = np.flatnonzero(rng.random(len(self.open)) < 0.05)
        self.open[expected] = self.open[opened] = True
        self.scan.open(self.index.accounts[self.open])

    def run(self, monkeypatch):
        plain = MarginScan._value

        def value(scan, terms, place, *prices):
            self.valued.append(len(place))
            return plain(scan, terms, place, *prices)

        monkeypatch.setattr(MarginScan, "_value", value)
        for _ in range(STEPS):
            self.step()
        monkeypatch.setattr(MarginScan, "_value", plain)
        return self


@pytest.mark.parametrize("remembered", [3, *slow(1, 64)])
@pytest.mark.parametrize("size", [1e-4, 0.01, 0.1, 0.6])
def test_the_same_are_found_as_by_valuing_everybody(size, remembered, rules, monkeypatch):  # noqa: F811
    """Linear and inverse contracts, tiers, portfolios, debts in other coins, several exchanges."""
    monkeypatch.setattr(_margin_scan, "REMEMBERED", remembered)
    walks = [Walk(nc.ExposureNetwork(**random_tables(seed, rules)), seed, size).run(monkeypatch) for seed in range(15)]
    found, valued = (sum(sum(getattr(walk, name)) for walk in walks) for name in ("found", "valued"))
    everybody = sum(STEPS * len(walk.open) for walk in walks)
    assert found > 0
    assert valued < {1e-4: 0.05, 0.01: 0.2, 0.1: 0.5, 0.6: 0.9}[size] * everybody


def test_the_same_are_found_when_margins_change(rules, monkeypatch):  # noqa: F811
    walks = [Walk(nc.ExposureNetwork(**random_tables(seed, rules)), seed, 1e-3, True) for seed in range(10)]
    assert sum(sum(walk.run(monkeypatch).found[1:]) for walk in walks) > 0


@given(st.integers(0, 2**20), st.sampled_from([1e-9, 1e-3, 0.05, 0.3, 2.0]))
@settings(max_examples=60, deadline=None)
def test_the_same_are_found_on_markets_of_every_kind(seed, size):
    with pytest.MonkeyPatch.context() as monkeypatch:
        net = random_market(seed, flaws=("worthless", "ties"))[0]
        if len(margin_index_of(net).accounts):
            Walk(net, seed, size).run(monkeypatch)


def corner(walk, place, moves):
    """What backs an account over what it must back, less 1, at prices moved within its room; None where beyond it."""
    scan, index, account = walk.scan, walk.index, walk.index.accounts[place]
    _, room = scan._value(walk.terms, np.arange(len(walk.open)), walk.marks, walk.share)
    marks = walk.marks * (1.0 + (room[place] - 1.0) * moves)
    scan.past = [scan.past[0], scan._prices(marks, walk.share)]
    growth = scan._growth()[0, walk.net.columns("accounts")["exchange"][account]]
    backing, must = walk.terms.weigh(index.test[index.accounts], index.entries, index.positions, marks)
    inside = growth <= room[place] * (1 + 1e-12) and must[place] > 0  # an inverse contract may move by more
    return backing[place] / must[place] - 1.0 if inside else None


@pytest.mark.parametrize("seeds", [range(4, 5), *slow(range(12))], ids=len)
def test_nobody_fails_within_the_room_and_some_fail_right_beyond_it(seeds, rules):  # noqa: F811
    """All prices move by the room of one account, up or down: it stands on its margin in the worst of these corners."""
    closest = np.inf
    for seed in seeds:
        walk = Walk(nc.ExposureNetwork(**random_tables(seed, rules)), seed, 0.0)
        _, room = walk.scan._value(walk.terms, np.arange(len(walk.open)), walk.marks, walk.share)
        for place in np.flatnonzero((room > 1.0) & (room < 1.5)).tolist():
            for moves in walk.rng.choice([-1.0, 1.0], (100, len(walk.marks))):
                above = corner(walk, place, moves)
                assert above is None or above > -1e-9
                closest = closest if above is None else min(closest, above)
    assert closest < 1e-6


def test_the_room_of_a_portfolio_leaves_its_scenarios_room_to_widen(tmp_path):
    """Short of one contract at 100 on 30 of money: 30 (1 - x) - 100 x = 15 (1 + x) at x = 15 / 145."""
    parts = {"health": "scenarios = [{ C = 0.15 }]", "amount": 'rule = "whole_account"', "price": 'rule = "execution"'}
    path = tmp_path / "portfolio.toml"
    path.write_text(RULES.format(name="portfolio", route="market", **parts), encoding="utf-8")
    walk = Walk(book({"k": ({"S": 30.0}, {"P": (-1.0, 100.0)})}, rulebook=str(path), modes={"k": "portfolio"}), 0, 0.0)
    name = walk.net.labels("assets")[walk.net.book.market_asset]
    above = corner(walk, 0, np.where(name == "S", -1.0, 1.0))
    assert 0.0 <= above < 0.1


def test_a_price_that_comes_back_from_nothing_is_looked_at(rules, monkeypatch):  # noqa: F811
    """No share of 0 is a move: whoever holds what had no price is valued again."""
    for seed in range(5):
        walk = Walk(nc.ExposureNetwork(**random_tables(seed, rules)), seed, 0.01)
        dead = walk.net.labels("assets").get_indexer(["BTC"])[0]
        before, gone = walk.marks.copy(), walk.net.book.market_asset != dead
        for marks in (before, before * gone, np.where(gone, before, 3.0 * before), before):
            walk.marks = marks
            with np.errstate(divide="ignore", invalid="ignore"):
                expected = walk.everybody()
                found = walk.scan.exposed(walk.terms, walk.marks, walk.share)
            assert sorted(found.tolist()) == walk.index.accounts[expected].tolist()
            walk.open[expected] = True
            walk.scan.open(walk.index.accounts[walk.open])


def test_tiers_whose_rates_fall_are_bounded_from_above():
    """A bound needs margins that rise ever faster: rates that fall are held at the highest so far."""
    tiers = nc.network._margin.Tiers.build(
        np.array([0, 3]), np.array([3, 1]), np.array([0.0, 10, 20, 0]), np.array([0.1, 0.4, 0.2, 0.3])
    )
    steep = tiers.steepest()
    assert steep.rate.tolist() == [0.1, 0.4, 0.4, 0.3]
    contract, start = np.zeros(200, dtype=np.int64), np.linspace(0.1, 40, 200)
    room = steep.margin(contract, 2 * start) - steep.margin(contract, start)
    for share in (0.01, 0.3, 1.0):
        gained = tiers.margin(contract, start * (1 + share)) - tiers.margin(contract, start)
        assert (gained <= share * room + 1e-12).all()
