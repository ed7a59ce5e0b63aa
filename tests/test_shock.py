"""Shocks: frozen values that add up, in any order."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from conftest import full_tables
from hypothesis import given, settings
from hypothesis import strategies as st

import netcontagion as nc

common = settings(max_examples=40, deadline=None, derandomize=True)
FAMILY = {
    "asset": ["ETH", "USDC", "aETH", "cETH", "stETH", "wstETH"],
    "price": [1.0] * 6,
    "underlying": [None, "USD", "stETH", "ETH", "ETH", "stETH"],
}


def family():
    return nc.ExposureNetwork(assets=FAMILY)


def factors(shock, net=None):
    net = net or family()
    return dict(zip(net.labels("assets"), shock.price_factors(net).tolist(), strict=True))


def test_a_price_shock_multiplies():
    assert factors(nc.Shock.price({"ETH": -0.3}))["ETH"] == 0.7
    assert factors(nc.Shock.price({"ETH": -0.3}))["stETH"] == 1.0
    both = nc.Shock.price({"ETH": -0.5}) + nc.Shock.price({"ETH": 0.5, "USDC": -1})
    assert factors(both)["ETH"] == 0.75
    assert factors(both)["USDC"] == 0.0


def test_a_family_moves_along_its_chain():
    found = factors(nc.Shock.price({"ETH": -0.3}, family=True))
    assert found == {"ETH": 0.7, "USDC": 1.0, "aETH": 0.7, "cETH": 0.7, "stETH": 0.7, "wstETH": 0.7}
    assert factors(nc.Shock.price({"USD": -0.1}, family=True))["USDC"] == 0.9


def test_a_named_asset_keeps_its_own_and_passes_it_on():
    found = factors(nc.Shock.price({"ETH": -0.3, "stETH": -0.5}, family=True))
    assert found == {"ETH": 0.7, "USDC": 1.0, "aETH": 0.5, "cETH": 0.7, "stETH": 0.5, "wstETH": 0.5}


@pytest.mark.parametrize("change", [-1.0001, -30, np.nan, np.inf, None, "x", True, np.True_])
def test_a_price_change_is_a_number_above_minus_one(change):
    with pytest.raises(ValueError, match="allowed"):
        nc.Shock.price({"ETH": change})


@pytest.mark.parametrize(
    "make",
    [
        lambda: nc.Shock.price({}),
        lambda: nc.Shock.price(-0.3),
        lambda: nc.Shock.loss({}),
        nc.Shock.default,
        nc.Shock.outage,
        lambda: nc.Shock.loss({"a": -1.0}),
        lambda: nc.Shock.loss({"a": math.nan}),
        lambda: nc.Shock.loss(1.1),
        lambda: nc.Shock.loss(-0.1),
        lambda: nc.Shock.loss(True),
        lambda: nc.Shock.depth(0.0),
        lambda: nc.Shock.depth(math.inf),
        lambda: nc.Shock.depth("x"),
    ],
)
def test_shocks_that_say_nothing_sensible_are_refused(make):
    with pytest.raises(ValueError, match=r"allowed|name at least|mapping"):
        make()


def test_unknown_names_come_with_the_nearest():
    net = nc.ExposureNetwork(**full_tables())
    for shock, ask, near in (
        (nc.Shock.price({"stEHT": -0.1}), nc.Shock.price_factors, "stETH"),
        (nc.Shock.default("an"), nc.Shock.defaulted, "ann"),
        (nc.Shock.loss({"bop": 1.0}), nc.Shock.external_assets, "bob"),
        (nc.Shock.outage("prep"), nc.Shock.out, "perp"),
    ):
        with pytest.raises(nc.UnknownLabelError, match=f"did you mean '{near}'"):
            ask(shock, net)
    with pytest.raises(nc.UnknownLabelError, match="family=True"):
        nc.Shock.price({"USD": -0.1}).price_factors(family())
    for shock, ask in (
        (nc.Shock.outage(("trader", "hub")), nc.Shock.out),
        (nc.Shock.default(("exchange", "hub")), nc.Shock.defaulted),
    ):
        with pytest.raises(nc.UnknownLabelError, match="hub"):
            ask(shock, net)


def test_losses_take_money_or_a_share():
    net = nc.ExposureNetwork(traders={"trader": ["a", "b"], "external_assets": [100.0, 40.0]})
    assert nc.Shock.loss({"a": 30.0}).external_assets(net).tolist() == [70.0, 40.0]
    assert nc.Shock.loss(0.25).external_assets(net).tolist() == [75.0, 30.0]
    assert (nc.Shock.loss(0.5) + nc.Shock.loss(0.5) + nc.Shock.loss({"b": 10.0})).external_assets(net).tolist() == [
        25.0,
        0.0,
    ]
    assert (nc.Shock.loss({"a": 30.0}) + nc.Shock.default("a")).external_assets(net).tolist() == [0.0, 40.0]
    assert net.traders["external_assets"].tolist() == [100.0, 40.0]
    with pytest.raises(ValueError, match="exceeds"):
        nc.Shock.loss({"b": 40.1}).external_assets(net)


def test_a_trader_that_was_found_once_is_found_again_by_its_own_name_only():
    net = nc.ExposureNetwork(traders={"trader": [1, 2], "external_assets": [100.0, 40.0]})
    for _ in range(2):
        assert nc.Shock.default(2, ("trader", 1)).defaulted(net).all()
        assert nc.Shock.default(1).failing(net) == [0]
        for wrong in (True, "1", 3):
            with pytest.raises(nc.UnknownLabelError):
                nc.Shock.default(wrong).failing(net)
    assert nc.Shock.default(2).failing(net.replace(traders=net.traders.iloc[[1]])) == [0]


def test_defaults_outages_and_depth():
    net = nc.ExposureNetwork(**full_tables())
    assert nc.Shock.default("bob", ("trader", "hub")).defaulted(net).tolist() == [
        False,
        True,
        True,
        False,
        False,
        False,
    ]
    assert (
        nc.Shock.outage(("exchange", "hub")).out(net).tolist()
        == nc.Shock.outage("hub").out(net).tolist()
        == [True, False]
    )
    assert (nc.Shock.depth(0.5) + nc.Shock.depth(0.5)).depth_factor == 0.25
    assert nc.Shock().depth_factor == 1.0


atoms = st.one_of(
    st.builds(
        lambda changes, family: nc.Shock.price(changes, family=family),
        st.dictionaries(st.sampled_from(FAMILY["asset"]), st.floats(-1, 3), min_size=1),
        st.booleans(),
    ),
    st.builds(nc.Shock.depth, st.floats(0.1, 10)),
    st.builds(nc.Shock.loss, st.floats(0, 1)),
    st.builds(nc.Shock.default, st.sampled_from("ab")),
    st.builds(nc.Shock.outage, st.sampled_from("xy")),
)


@given(st.lists(atoms, min_size=1, max_size=4))
@common
def test_the_order_of_a_sum_does_not_matter(parts):
    net, sums = family(), []
    for order in itertools.permutations(parts):
        total = nc.Shock()
        for part in order:
            total += part
        sums.append(total)
    assert len(set(sums)) == 1
    assert len({(str(total), total.depth_factor, tuple(total.price_factors(net))) for total in sums}) == 1
    apart = np.prod([part.price_factors(net) for part in parts], axis=0)
    np.testing.assert_allclose(sums[0].price_factors(net), apart, rtol=1e-12, atol=0)


def test_a_shock_says_what_it_is():
    assert str(nc.Shock()) == "no shock"
    shock = nc.Shock.price({"ETH": -0.3}, family=True) + nc.Shock.loss({"bank": 120.0}) + nc.Shock.loss(0.05)
    assert str(shock) == "ETH family -30 %, loss of 120 at bank, loss of 5 % of external assets"
    assert (
        str(nc.Shock.default("b", "a") + nc.Shock.outage("x") + nc.Shock.depth(0.5))
        == "default of a, b, outage of x, depth x 0.5"
    )
    assert hash(shock) == hash(shock + nc.Shock())
    with pytest.raises(AttributeError):
        shock.moves = ()
    with pytest.raises(TypeError):
        shock + 1
