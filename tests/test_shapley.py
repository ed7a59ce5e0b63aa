"""Shapley values: closed forms, plain twins, axioms, coverage of the intervals, and the split of a system loss."""

from __future__ import annotations

import itertools
from math import factorial

import numpy as np
import pytest

import netcontagion as nc
from netcontagion.errors import ContagionError
from netcontagion.ranking import shapley

NAMES = "abcdefghijklmnop"


def game(seed, size):
    """Losses of players that share a buffer and make each other's worse: neither additive nor symmetric."""
    random = np.random.default_rng(seed)
    alone, pairs = random.uniform(0, 3, size), np.triu(random.uniform(-1, 2, (size, size)), 1)
    buffer = alone.sum() / 3

    def value(who):
        places = [NAMES.index(name) for name in who]
        total = alone[places].sum() + pairs[np.ix_(places, places)].sum()
        return max(total - buffer, 0.0) + 1.7

    return value, list(NAMES[:size])


def by_all_orders(value, players):
    found = dict.fromkeys(players, 0.0)
    for order in itertools.permutations(players):
        for place, player in enumerate(order):
            found[player] += value(frozenset(order[: place + 1])) - value(frozenset(order[:place]))
    return [found[player] / factorial(len(players)) for player in players]


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("seed", range(3))
def test_exact_values_are_means_over_all_orders(seed, size):
    value, players = game(seed, size)
    table = shapley(value, players)
    np.testing.assert_allclose(table["value"], by_all_orders(value, players), rtol=1e-12, atol=1e-12)
    assert table["value"].sum() == pytest.approx(value(frozenset(players)) - value(frozenset()), rel=1e-12)
    assert (table["standard_error"] == 0).all()
    assert table["lower"].tolist() == table["value"].tolist() == table["upper"].tolist()


def test_pairs_share_what_they_make_together():
    weights = np.triu(np.random.default_rng(1).uniform(0, 1, (14, 14)), 1)

    def value(who):
        places = [NAMES.index(name) for name in who]
        return weights[np.ix_(places, places)].sum()

    table = shapley(value, NAMES[:14], samples=150, seed=3)
    expected = (weights.sum(axis=0) + weights.sum(axis=1)) / 2
    assert (np.abs(table["value"] - expected) <= 4 * table["standard_error"]).all()
    assert table["value"].sum() == pytest.approx(weights.sum(), rel=1e-12)


def test_axioms():
    def value(who):
        return 5.0 * ("a" in who) + 4.0 * ({"b", "c"} <= who) + 1.0

    assert shapley(value, "abcd")["value"].round(12).to_dict() == {"a": 5.0, "b": 2.0, "c": 2.0, "d": 0.0}
    sampled = shapley(value, "dcba", samples=30, seed=0)
    assert sampled.loc["a"].tolist() == [5.0, 0.0, 5.0, 5.0]
    assert sampled.loc["d", "value"] == 0.0


def test_each_set_is_asked_for_once_and_seeds_repeat():
    asked = []

    def value(who):
        asked.append(who)
        return float(len(who)) ** 2

    shapley(value, NAMES[:4], samples=500, seed=1)
    assert len(asked) == len(set(asked)) <= 16
    one, same, other = (shapley(game(0, 12)[0], NAMES[:12], samples=20, seed=seed) for seed in (1, 1, 2))
    assert one.equals(same)
    assert not one.equals(other)
    assert shapley(value, []).empty


def test_intervals_cover_the_exact_value():
    value, players = game(5, 8)
    known = {frozenset(one): value(one) for k in range(9) for one in itertools.combinations(players, k)}
    exact = shapley(known.__getitem__, players)["value"]
    covered = np.zeros(8)
    for seed in range(200):
        table = shapley(known.__getitem__, players, samples=40, seed=seed)
        covered += ((table["lower"] <= exact) & (exact <= table["upper"])).to_numpy()
    assert ((covered >= 180) & (covered <= 198)).all(), covered


def test_bad_input():
    with pytest.raises(ValueError, match="'a' comes twice"):
        shapley(lambda _: 0.0, ["a", "b", "a"])
    with pytest.raises(ValueError, match="2 or more"):
        shapley(lambda _: 0.0, ["a"], samples=1)
    with pytest.raises(ContagionError, match="no number"):
        shapley(lambda who: np.nan if who else 0.0, ["a"])


# the measure ------------------------------------------------------------------------------------------------------


def banks():
    owed = [[0, 6, 2, 0], [0, 0, 5, 1], [0, 0, 0, 7], [1, 0, 0, 0]]
    return nc.builders.from_matrix(owed, rows="debtor", external_assets=[5.0, 2.0, 4.0, 3.0], labels=list("pqrs"))


def test_shares_of_the_shocked_add_up_to_the_loss_of_banks():
    net = banks()
    shock = nc.Shock.loss({"p": 4.0, "q": 1.5}) + nc.Shock.default("r")
    found = nc.rank(net, by="shapley", shock=shock)["shapley"]
    parts = {"p": nc.Shock.loss({"p": 4.0}), "q": nc.Shock.loss({"q": 1.5}), "r": nc.Shock.default("r")}

    def value(who):
        return float(nc.clear(net, sum((parts[name] for name in who), nc.Shock())).loss.to_numpy().sum())

    table = shapley(value, list("pqr"))
    np.testing.assert_allclose(found[list("pqr")], table["value"], rtol=1e-12)
    assert found["s"] == 0
    assert found.sum() == pytest.approx(float(nc.clear(net, shock).loss.to_numpy().sum()), rel=1e-12)


def node_loss(net, shock):
    run = nc.cascade(net, shock, seed=0)
    return run.traders["loss"].sum() + run.exchanges["loss"].sum()


def test_shares_of_the_shocked_add_up_to_the_loss_of_a_market():
    net = nc.generators.market(30, exchanges=2, seed=3)
    who = net.labels("traders")[0]
    shock = nc.Shock.price({"ETH": -0.25}, family=True) + nc.Shock.default(who) + nc.Shock.depth(0.8)
    shock += nc.Shock.outage(net.labels("exchanges")[1])
    found = nc.rank(net, by="shapley", shock=shock)["shapley"]
    moved = [name for name, factor in zip(net.labels("assets"), shock.price_factors(net), strict=True) if factor != 1]
    hit = [*moved, who, net.labels("exchanges")[1]]
    assert set(found.index[found.abs() > 1e-6]) <= set(hit)
    expected = node_loss(net, shock) - node_loss(net, nc.Shock.depth(0.8))
    assert found.sum() == pytest.approx(expected, rel=1e-9)


def test_the_measure_says_why_it_does_not_apply():
    with pytest.raises(ContagionError, match="hits nobody"):
        nc.rank(banks(), by="shapley")
    many = nc.generators.ring(201)
    with pytest.raises(ContagionError, match=r"hits 201 nodes.*ranking\.shapley"):
        nc.rank(many, by="shapley", shock=nc.Shock.loss(0.1))
