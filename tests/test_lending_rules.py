"""Every rule of a lending exchange by hand: absorption, auctions, gas, capital, waiting, capacity and layers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from seeds import slow
from test_failure_modes import PAIR, lend, liquidated, money, run
from test_lending_twin import HEAD, OWN, written

import netcontagion as nc
from netcontagion.network import rulebook

DUTCH = "[inventory.auction]\n{terms}"
ENGLISH = '[inventory.auction]\nform = "english"\nlength = 48\nbid_length = 3\n{more}'


@pytest.fixture
def own(tmp_path):
    """Write a rulebook and return its path."""

    def write(text):
        path = tmp_path / f"own{len(list(tmp_path.iterdir()))}.toml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def falling(net, move, **options):
    return run(net, nc.Shock.price({"ETH": move}), **options)


def of_kind(found, kind):
    return found.events[found.events["type"] == kind]


# bonus --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lltv", "incentive"),
    [
        (0.385, 1.15),
        (0.625, 1.12676),
        (0.77, 1.07411),
        (0.86, 1.04384),
        (0.915, 1.02617),
        (0.945, 1.01678),
        (0.98, 1.00604),
    ],
)
def test_morpho_charges_the_incentive_of_its_threshold(lltv, incentive):
    """G3: collateral seized over debt repaid is the published incentive factor."""
    net = lend(
        {"k@A": {"ETH": 100.0, "USD": -lltv * 101}},
        prices=PAIR,
        rulebook="morpho",
        markets={
            "ETH": {"liquidation_threshold": lltv, "liquidation_bonus": math.nan},
            "USD": {"liquidation_bonus": math.nan, "close_factor": math.nan},
        },
    )
    found = run(net)
    repaid, seized = found.accounts.loc["k@A", "repaid"], of_kind(found, "liquidation")["quantity"].iloc[0]
    assert seized / repaid == pytest.approx(incentive, rel=1e-5)
    assert repaid == pytest.approx(min(lltv * 101, 100 / incentive), rel=1e-5)  # no close factor


def test_morpho_takes_bad_debt_from_the_suppliers_of_that_market_at_once():
    accounts = {
        "k@A": {"ETH": 100.0, "USD": -80.0},
        "s@A": {"USD": 100.0},
        "t@A": {"USD": 60.0},
        "s@B": {"USD": 100.0},
        "h@B": {"ETH": 100.0, "USD": -10.0},
    }
    markets = {"USD": {"close_factor": math.nan}}
    found = falling(lend(accounts, prices=PAIR, rulebook="morpho", markets=markets), -0.5)
    deficit = 80 - 50 / (1 / (1 - 0.3 * 0.2))
    assert found.accounts.loc["k@A", "deficit"] == pytest.approx(deficit)
    assert of_kind(found, "suppliers")["round"].tolist() == of_kind(found, "deficit")["round"].tolist() == [0]
    losses = found.accounts["loss"]
    assert losses["s@A"] == pytest.approx(deficit * 100 / 160)
    assert losses["t@A"] == pytest.approx(deficit * 60 / 160)
    assert losses["s@B"] == 0
    assert found.exchanges.loc["A", "insurance_fund_used"] == found.exchanges.loc["A", "equity_used"] == 0


# order of the collateral --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("order", "first"), [("bonus", "B"), ("largest", "C"), ("most_relief", "D")])
def test_which_collateral_goes_first(own, order, first):
    prices = {"B": 1.0, "C": 1.0, "D": 1.0, "USD": 1.0}
    markets = {"B": {"liquidation_bonus": 0.1}, "D": {"liquidation_threshold": 0.5}}
    net = lend(
        {"k@A": {"B": 30.0, "C": 50.0, "D": 40.0, "USD": -90.0}},
        prices=prices,
        markets=markets,
        rulebook=own(written("lend", amount=f'order = "{order}"\n')),
    )
    assert of_kind(run(net), "liquidation")["asset"].iloc[0] == first


# gas and capital ----------------------------------------------------------------------------------------------------


def test_20_gas_leaves_dust_unliquidated(own):
    """Two accounts under water alike: the bonus on the small one does not pay the gas, so nobody closes it."""
    accounts = {"big@A": {"ETH": 1000.0, "USD": -850.0}, "small@A": {"ETH": 10.0, "USD": -8.5}}
    found = run(lend(accounts, prices=PAIR, rulebook=own(written("lend", inventory="gas = 2.0\n"))))
    assert liquidated(found) == {"big@A"}
    assert found.status is nc.Status.EXHAUSTED
    assert found.accounts.loc["small@A", "health"] < 1
    free = run(lend(accounts, prices=PAIR, rulebook=own(written("lend"))))
    assert liquidated(free) == {"big@A", "small@A"}
    times = len(of_kind(found, "liquidation"))
    repaid = found.accounts["repaid"].sum()
    assert found.losses["liquidators"].sum() == pytest.approx(-(0.05 * repaid - 2.0 * times))


def test_buyers_repay_no_more_in_a_round_than_they_have(own):
    accounts = {f"k{i}@A": {"ETH": 100.0, "USD": -85.0 - i} for i in range(4)}
    found = run(lend(accounts, prices=PAIR, rulebook=own(written("lend", inventory="capital = 60.0\n"))))
    spent = of_kind(found, "purchase").groupby("round")["cash"].sum()
    assert spent.max() == pytest.approx(60.0)
    assert (spent <= 60.0 * (1 + 1e-12)).all()
    assert found.status is nc.Status.SETTLED


# waiting ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("notice", [0, 1, 4])
def test_nobody_is_liquidated_within_the_notice(own, notice):
    book = own(written("lend", head=f"[health]\nnotice = {notice}\n"))
    found = run(lend({"k@A": {"ETH": 100.0, "USD": -85.0}}, prices=PAIR, rulebook=book))
    assert of_kind(found, "liquidation")["round"].min() == notice
    assert found.status is nc.Status.SETTLED


def test_a_trader_in_default_gets_no_notice(own):
    book = own(written("lend", head="[health]\nnotice = 4\n"))
    net = lend({"k@A": {"ETH": 100.0, "USD": -50.0}}, prices=PAIR, rulebook=book)
    assert of_kind(run(net, nc.Shock.default("k")), "liquidation")["round"].min() == 0


@pytest.mark.parametrize("cooldown", [0, 1, 3])
def test_liquidations_of_an_account_are_a_cooldown_apart(own, cooldown):
    book = own(written("lend", amount=f"cooldown = {cooldown}\n"))
    markets = {"USD": {"close_factor": 0.1}}
    found = run(lend({"k@A": {"ETH": 100.0, "USD": -87.0}}, prices=PAIR, markets=markets, rulebook=book))
    rounds = of_kind(found, "liquidation")["round"].to_numpy()
    assert len(rounds) > 2
    assert (np.diff(rounds) == max(cooldown, 1)).all()


def test_capacity_binds(own):
    accounts = {f"k{i}@A": {"ETH": 100.0, "USD": -85.0 - i} for i in range(4)}
    found = run(lend(accounts, prices=PAIR, rulebook=own(written("lend", amount="capacity = 50\n"))))
    repaid = of_kind(found, "liquidation").groupby("round")["cash"].sum()
    assert repaid.max() == pytest.approx(50.0)
    assert (repaid <= 50.0 * (1 + 1e-9)).all()
    assert found.status is nc.Status.SETTLED


def test_of_an_account_above_the_capacity_a_share_is_closed(own):
    """Room for 130 of debt: all of the worst one, and 42 / 87 of the next one, each against its collateral."""
    accounts = {f"k{i}@A": {"ETH": 100.0, "USD": -85.0 - i} for i in range(4)}
    found = run(lend(accounts, prices=PAIR, rulebook=own(written("close", amount="capacity = 130\n"))))
    sales = of_kind(found, "sale")
    first = sales[sales["round"] == 0]
    assert first["account"].tolist() == ["k3@A", "k2@A"]
    assert first["quantity"].tolist() == pytest.approx([100.0, 100 * 42 / 87])
    assert found.status is nc.Status.SETTLED


# absorption ---------------------------------------------------------------------------------------------------------


def comet(own, **changes):
    text = {"target_reserves = 5000000.0": f"target_reserves = {changes.pop('target', 1e9)}"}
    return own(_preset("comet", text))


def _preset(name, changes=()):
    from importlib import resources

    text = resources.files("netcontagion.network").joinpath("rulebooks", f"{name}.toml").read_text(encoding="utf-8")
    text = text.split("\n[sources", 1)[0].replace("round_seconds", "# round_seconds") + "\n"
    for old, new in dict(changes).items():
        assert old in text
        text = text.replace(old, new)
    return text


BASE = {"A": {"insurance_fund": 30.0, "insurance_asset": "USD"}}
FACTOR = {"ETH": {"liquidation_bonus": 1 / 0.95 - 1}}  # a liquidation factor of 0.95


def test_comet_absorbs_the_whole_account_and_credits_the_rest(own):
    """C = 100 at 0.85, factor 0.95: credit 80.75 pays 70 and leaves 10.75 as a deposit of the base asset."""
    net = lend(
        {"k@A": {"ETH": 100.0, "USD": -70.0}, "s@A": {"USD": 200.0}},
        prices=PAIR,
        markets=FACTOR,
        rulebook=comet(own),
        exchanges=BASE,
    )
    found = falling(net, -0.15)
    after = found.accounts.loc["k@A"]
    assert after["equity"] == pytest.approx(80.75 - 70)
    assert found.traders.loc["k", "loss_penalty"] == pytest.approx(85 * 0.05)
    absorbed = of_kind(found, "absorb")
    assert absorbed[["quantity", "cash"]].to_numpy().tolist() == [[100.0, pytest.approx(80.75)]]
    # sold at 0.85 x (1 - 0.5 x 0.05): 82.875 come in for 80.75
    assert of_kind(found, "take")["cash"].sum() == pytest.approx(85 * 0.975)
    assert found.exchanges.loc["A", "loss"] == pytest.approx(-(85 * 0.975 - 80.75))
    assert found.exchanges.loc["A", ["inventory", "to_recover", "deficit"]].tolist() == [0.0, 0.0, 0.0]
    assert found.losses["liquidators"].sum() == pytest.approx(-85 * 0.025)
    assert found.status is nc.Status.SETTLED


def test_comet_absorbs_excess_debt_into_reserves_which_go_below_zero(own):
    """C = 100 at 0.5: credit 47.5 of 80: 32.5 are missing, 30 from the fund, 2.5 frozen; the sale brings 48.75."""
    net = lend(
        {"k@A": {"ETH": 100.0, "USD": -80.0}, "s@A": {"USD": 200.0}},
        prices=PAIR,
        markets=FACTOR,
        rulebook=comet(own),
        exchanges=BASE,
    )
    found = falling(net, -0.5)
    assert found.accounts.loc["k@A", ["deficit", "repaid"]].tolist() == [pytest.approx(32.5), pytest.approx(47.5)]
    exchange = found.exchanges.loc["A"]
    assert exchange["insurance_fund_used"] == pytest.approx(30.0)
    assert exchange["frozen"] + exchange["surplus_used"] == pytest.approx(2.5)
    assert exchange["loss"] == pytest.approx(80 - 50 * 0.975)
    assert found.accounts.loc["s@A", "loss"] == 0.0  # suppliers are not cut


def test_comet_sells_only_while_reserves_are_below_their_target(own):
    """Reserves 30 - 80.75 before the sale and a target of 0: buyers are let in for 50.75."""
    net = lend(
        {"k@A": {"ETH": 100.0, "USD": -70.0}, "s@A": {"USD": 200.0}},
        prices=PAIR,
        markets=FACTOR,
        rulebook=comet(own, target=0.0),
        exchanges=BASE,
    )
    found = falling(net, -0.15)
    assert of_kind(found, "take")["cash"].sum() == pytest.approx(80.75 - 30)
    kept = 100 - 50.75 / (0.85 * 0.975)
    assert found.exchanges.loc["A", "inventory"] == pytest.approx(kept * 0.85)
    assert found.exchanges.loc["A", "to_recover"] == pytest.approx(30.0)
    assert found.status is nc.Status.SETTLED  # what it does not want to sell is no open end


def test_buyers_of_inventory_act_only_if_it_pays(own):
    """A thin book: each round buyers sell until the discount is used up, so that the sale takes rounds."""
    net = lend(
        {"k@A": {"ETH": 100.0, "USD": -70.0}, "s@A": {"USD": 200.0}},
        prices=PAIR,
        markets=FACTOR,
        depth={"ETH": 1000.0},
        rulebook=comet(own),
        exchanges=BASE,
    )
    found = falling(net, -0.15)
    takes = of_kind(found, "take")
    assert takes["quantity"].iloc[0] == pytest.approx(-1000 * math.log(0.975))
    assert takes["quantity"].sum() == pytest.approx(100.0)
    assert len(takes) == 4
    assert found.losses["liquidators"].sum() < 0


# Dutch auctions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "path"),
    [
        ('buffer = 1.2\ndecay = "linear"\nlength = 40\n', lambda s: 1.2 * (1 - s / 40)),
        ('buffer = 1.2\ndecay = "stairs"\nstep = 3\ncut = 0.95\n', lambda s: 1.2 * 0.95 ** (s // 3)),
        ('buffer = 1.2\ndecay = "exponential"\nstep = 3\ncut = 0.95\n', lambda s: 1.2 * 0.95 ** (s / 3)),
    ],
)
def test_the_price_of_a_dutch_auction_falls_as_written_until_somebody_buys(own, terms, path):
    """On a deep book the first price at or below the mark is taken, the whole tab at once; the rest goes back."""
    book = own(written("auction", inventory=DUTCH.format(terms=terms)))
    found = run(lend({"k@A": {"ETH": 100.0, "USD": -85.0}, "s@A": {"USD": 90.0}}, prices=PAIR, rulebook=book))
    first = next(s for s in range(100) if path(s) <= 1 + 1e-12)
    (take,) = of_kind(found, "take").to_dict("records")
    assert take["round"] == first
    tab, price = 85 * 1.13, path(first)
    paid = min(tab, 100 * price)
    assert take["cash"] == pytest.approx(paid)
    assert take["quantity"] == pytest.approx(paid / price)
    assert found.accounts.loc["k@A", "equity"] == pytest.approx(100 - paid / price)
    assert found.exchanges.loc["A", "loss"] == pytest.approx(-(paid - 85))
    assert found.losses["liquidators"].sum() == pytest.approx(-(paid / price - paid))


def test_an_auction_starts_anew_after_its_tail_and_below_its_cusp(own):
    """Gas keeps buyers away until the price is at 0.4: cusp 0.6 never gets there, without a cusp it does."""
    steady = 'buffer = 1.0\ndecay = "stairs"\nstep = 1\ncut = 0.9\n{more}'
    found = {}
    for more in ("", "cusp = 0.6\n", "tail = 3\n"):
        book = own(written("auction", inventory="gas = 60.0\n" + DUTCH.format(terms=steady.format(more=more))))
        found[more] = run(
            lend({"k@A": {"ETH": 100.0, "USD": -120.0}, "s@A": {"USD": 90.0}}, prices=PAIR, rulebook=book)
        )
    assert of_kind(found[""], "take")["round"].tolist() == [9]  # 100 - 100 x 0.9^9 is above 60
    for more in ("cusp = 0.6\n", "tail = 3\n"):
        assert of_kind(found[more], "take").empty
        assert found[more].status is nc.Status.EXHAUSTED  # it would start anew for ever
        assert found[more].exchanges.loc["A", "inventory"] == pytest.approx(100.0)
        assert found[more].exchanges.loc["A", "to_recover"] == pytest.approx(120.0)


def test_tip_and_chip_are_owed_by_the_exchange(own):
    terms = "buffer = 1.0\nlength = 10\ntip = 3.0\nchip = 0.01\n"
    book = own(written("auction", inventory=DUTCH.format(terms=terms), layers='"equity", "suppliers"'))
    net = lend(
        {"k@A": {"ETH": 200.0, "USD": -100.0}, "s@A": {"USD": 100.0}}, prices={"ETH": 0.6, "USD": 1.0}, rulebook=book
    )
    found = run(net)
    pay = 3.0 + 0.01 * 113
    assert money(found, "incentive") == pytest.approx(pay)
    assert found.exchanges.loc["A", "loss"] == pytest.approx(pay - 13)  # the penalty pays it


def test_the_hole_limits_open_auctions(own):
    """Room for 113 of tab: the second account waits until the first auction brought enough."""
    accounts = {"a@A": {"ETH": 100.0, "USD": -90.0}, "b@A": {"ETH": 100.0, "USD": -85.0}, "s@A": {"USD": 300.0}}
    book = own(
        written("auction", amount="capacity = 113\n", inventory=DUTCH.format(terms="buffer = 1.1\nlength = 20\n"))
    )
    found = run(lend(accounts, prices=PAIR, rulebook=book))
    opened = of_kind(found, "auction")
    tab = {account: 1.13 * debt for account, debt in (("a@A", 90.0), ("b@A", 85.0))}
    assert opened["account"].iloc[:2].tolist() == ["a@A", "b@A"]
    share = (113 - tab["a@A"]) / tab["b@A"]
    assert opened["quantity"].iloc[:2].tolist() == pytest.approx([100.0, 100 * share])
    assert (opened["round"].iloc[2:] > of_kind(found, "take")["round"].min()).all()
    assert found.accounts["equity"].notna().all()
    assert found.status is nc.Status.SETTLED


def test_keepers_buy_when_the_price_is_what_the_book_brings(own):
    """On a thin book each price step is taken as far as it pays at the margin."""
    terms = 'buffer = 1.0\ndecay = "stairs"\nstep = 1\ncut = 0.99\n'
    net = lend(
        {"k@A": {"ETH": 100.0, "USD": -85.0}, "s@A": {"USD": 90.0}},
        prices=PAIR,
        depth={"ETH": 2000.0},
        rulebook=own(written("auction", inventory=DUTCH.format(terms=terms))),
    )
    takes = of_kind(run(net), "take")
    step = -2000 * math.log(0.99)
    assert takes["round"].tolist()[:3] == [1, 2, 3]  # at the start the margin is 0
    assert takes["quantity"].tolist()[:3] == pytest.approx([step] * 3)


# English auctions ---------------------------------------------------------------------------------------------------


def test_a_single_bid_of_nothing_wins(own):
    """12 March 2020: bidders without money. The collateral is gone for 0, the whole debt is a deficit, shares pay."""
    book = own(_preset("maker_flip", {"length = 48": "length = 48\nbidders = 0.0"}))
    net = lend(
        {"k@A": {"ETH": 100.0, "USD": -85.0}, "s@A": {"USD": 85.0}},
        prices=PAIR,
        rulebook=book,
        exchanges={"A": {"insurance_fund": 5.0}},
    )
    found = run(net)
    (take,) = of_kind(found, "take").to_dict("records")
    assert (take["quantity"], take["cash"], take["round"]) == (100.0, 0.0, 3)
    assert found.accounts.loc["k@A", ["equity", "deficit"]].tolist() == [0.0, pytest.approx(85.0)]
    assert found.losses["liquidators"].sum() == pytest.approx(-100.0)
    exchange = found.exchanges.loc["A"]
    assert exchange[["insurance_fund_used", "minted", "loss"]].tolist() == pytest.approx([5.0, 80.0, 85.0])
    assert found.accounts.loc["s@A", "loss"] == found.losses["market"].sum() == 0.0
    assert found.status is nc.Status.SETTLED


def test_bidders_with_money_bid_up_to_the_tab_and_then_ask_for_less(own):
    book = own(_preset("maker_flip"))
    net = lend({"k@A": {"ETH": 100.0, "USD": -82.0}, "s@A": {"USD": 85.0}}, prices=PAIR, rulebook=book)
    found = run(net)
    tab = 82 * 1.13
    assert of_kind(found, "bid")["quantity"].tolist() == pytest.approx([tab])
    assert of_kind(found, "return")["quantity"].tolist() == pytest.approx([100 - tab])
    assert found.accounts.loc["k@A", "equity"] == pytest.approx(100 - tab)
    assert found.exchanges.loc["A", "loss"] == pytest.approx(-82 * 0.13)


def test_bidders_share_one_purse(own):
    book = own(written("auction", inventory=ENGLISH.format(more="bidders = 120.0\n"), layers='"suppliers"'))
    accounts = {"a@A": {"ETH": 100.0, "USD": -85.0}, "b@A": {"ETH": 100.0, "USD": -86.0}, "s@A": {"USD": 300.0}}
    found = run(lend(accounts, prices=PAIR, rulebook=book))
    assert of_kind(found, "bid")["cash"].tolist() == pytest.approx([86 * 1.13, 120 - 86 * 1.13])
    assert found.accounts.loc["a@A", "deficit"] == pytest.approx(85 - (120 - 86 * 1.13))


# layers -------------------------------------------------------------------------------------------------------------


def test_frozen_stays_with_the_exchange(own):
    book = own(written("close", layers='"insurance_fund", "frozen"'))
    net = lend({"k@A": {"ETH": 100.0, "USD": -80.0}, "s@A": {"USD": 90.0}}, prices=PAIR, rulebook=book)
    found = falling(net, -0.5)
    exchange = found.exchanges.loc["A"]
    assert exchange[["deficit", "frozen", "uncovered", "loss"]].tolist() == pytest.approx([30.0, 30.0, 0.0, 30.0])
    assert found.accounts.loc["s@A", "loss"] == 0.0


def test_the_fund_keeps_its_floor_and_bears_no_more_than_its_cap(own):
    accounts = {"k@A": {"ETH": 100.0, "USD": -80.0}, "s@A": {"USD": 90.0}}
    borne = {}
    for limits in ("", "cap = 10.0\n", "drawdown = 0.25\n"):
        text = written("close", layers='"insurance_fund", "suppliers"', more=f"[deficit.insurance_fund]\n{limits}")
        net = lend(accounts, prices=PAIR, rulebook=own(text), exchanges={"A": {"insurance_fund": 28.0}})
        borne[limits] = falling(net, -0.5).exchanges.loc["A", ["insurance_fund_used", "socialised"]].tolist()
    assert borne[""] == pytest.approx([28.0, 2.0])
    assert borne["cap = 10.0\n"] == pytest.approx([10.0, 20.0])
    assert borne["drawdown = 0.25\n"] == pytest.approx([7.0, 23.0])


def test_new_shares_pay_what_is_missing_and_their_buyers_lose_nothing(own):
    book = own(written("close", layers='"mint"'))
    net = lend(
        {"k@A": {"ETH": 100.0, "USD": -80.0}, "s@A": {"USD": 90.0}},
        prices=PAIR,
        rulebook=book,
        exchanges={"A": {"equity": 1.0}},
    )
    found = falling(net, -0.5)
    assert found.exchanges.loc["A", ["minted", "loss"]].tolist() == pytest.approx([30.0, 30.0])
    assert found.losses["market"].sum() == pytest.approx(0.0)
    assert found.accounts.loc["s@A", "loss"] == 0.0


# Liquity ------------------------------------------------------------------------------------------------------------


POOL = OWN["pool"].replace('"liquidation_factor"', '"liquidation_factor"\nfactor = 0.9')


def liquity(own, pool):
    """Borrowers at a minimum ratio of 110 %; the stability pool is the fund, in the debt asset."""
    accounts = {
        "x@A": {"ETH": 100.0, "USD": -88.0},
        "a@A": {"ETH": 100.0, "USD": -60.0},
        "b@A": {"ETH": 300.0, "USD": -150.0},
        "c@A": {"ETH": 50.0},
        "s@A": {"USD": 300.0},
    }
    net = lend(
        accounts,
        prices=PAIR,
        rulebook=own(POOL),
        traders={"trader": list("abcsx"), "policy": ["passive"] * 5},
        markets={"ETH": {"liquidation_threshold": 1 / 1.1}},
        exchanges={"A": {"insurance_fund": pool, "insurance_asset": "USD"}},
    )
    return falling(net, -0.05)


def test_an_empty_pool_hands_debt_and_collateral_to_the_other_borrowers(own):
    found = liquity(own, 0.0)
    state, labels = found._state, found.network.labels("accounts")
    table = {}
    for entry in state.entries:
        table.setdefault(labels[entry.account], []).append((entry.deposited, entry.borrowed))
    assert table["a@A"][0][0] == pytest.approx(125.0)
    assert table["b@A"][0][0] == pytest.approx(375.0)
    assert table["a@A"][1][1] == pytest.approx(60 + 22)
    assert table["b@A"][1][1] == pytest.approx(150 + 66)
    assert table["c@A"][0] == (50.0, 0.0)  # owes nothing, takes nothing
    health = found.accounts["health"]
    assert health["a@A"] < health["b@A"]  # as before
    assert found.exchanges.loc["A", ["handed_on", "inventory", "loss"]].tolist() == pytest.approx([88.0, 0.0, 0.0])


def test_the_pool_takes_its_part_with_the_collateral(own):
    """A pool of 44 takes half of the debt and half of the collateral; the rest is handed on."""
    found = liquity(own, 44.0)
    exchange = found.exchanges.loc["A"]
    assert exchange[["insurance_fund_used", "handed_on"]].tolist() == pytest.approx([44.0, 44.0])
    handed = of_kind(found, "co_borrowers")["quantity"].sum()
    assert handed == pytest.approx(44.0)
    loss = found.accounts["loss"]
    fell = {"a@A": 5.0, "b@A": 15.0}  # 5 % of the collateral
    part = 44 - 0.95 * 50  # they take 44 of debt and half of the collateral, at a gain
    assert loss["a@A"] == pytest.approx(fell["a@A"] + part / 4)
    assert loss["b@A"] == pytest.approx(fell["b@A"] + part * 3 / 4)


def test_redistribution_keeps_the_order_of_ratios(own):
    """Proportional to collateral: (1 + x) / (1 / ICR + y) rises with ICR."""
    rng = np.random.default_rng(3)
    held = rng.uniform(50, 500, 30)
    ratio = np.sort(rng.uniform(1.2, 5.0, 30))
    accounts = {f"k{i:02d}@A": {"ETH": held[i], "USD": -held[i] / ratio[i]} for i in range(30)}
    accounts["x@A"] = {"ETH": 100.0, "USD": -95.0}
    net = lend(
        accounts,
        prices=PAIR,
        rulebook=own(POOL),
        markets={"ETH": {"liquidation_threshold": 1 / 1.1}},
    )
    found = run(net)
    assert liquidated(found) == {"x@A"}
    health = found.accounts["health"].drop(["x@A", "others@A"], errors="ignore").to_numpy()
    assert (np.diff(health) > 0).all()


# adversarial markets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(OWN))
@pytest.mark.parametrize("depth", [1e-9, *slow(1.0, math.inf)])
def test_it_ends_and_conserves_in_a_ring_of_ties_dust_and_shared_traders(own, name, depth):
    """Collateral of one is the debt of the next; equal accounts; dust; one trader owns all."""
    assets = {"X": 1.0, "Y": 1.0, "Z": 1.0}
    accounts = {}
    for i, (held, owed) in enumerate([("X", "Y"), ("Y", "Z"), ("Z", "X"), ("X", "Y"), ("X", "X")]):
        size = 1e-7 if i == 3 else 100.0
        accounts[f"t@A/{i}"] = {held: size, owed: -0.85 * size} if held != owed else {held: 15.0}
    accounts |= {"t@B": {"X": 50.0, "Y": 40.0, "Z": -74.0}, "t@B/1": {"Y": 1e-12, "X": -1e-12}}
    net = lend(
        accounts,
        prices=assets,
        depth=dict.fromkeys(assets, depth),
        rulebook=own(OWN[name]),
        exchanges={v: {"insurance_fund": 3.0, "insurance_asset": "Y", "equity": 2.0} for v in "AB"},
    )
    found = run(net, nc.Shock.price({"X": -0.3}))
    assert found.status.settled
    laws = found.check()
    assert laws.worst < 1e-9


def test_lots_that_remain_are_the_exchanges(own):
    """Stopped in the middle of an auction, everything still adds up."""
    book = own(written("auction", inventory=DUTCH.format(terms="buffer = 2.0\nlength = 50\n")))
    net = lend({"k@A": {"ETH": 100.0, "USD": -85.0}, "s@A": {"USD": 90.0}}, prices=PAIR, rulebook=book)
    found = nc.cascade(net, nc.Shock(), max_rounds=5, strict=False)
    found.check()
    assert found.status is nc.Status.MAX_ROUNDS
    assert found.exchanges.loc["A", ["inventory", "to_recover"]].tolist() == pytest.approx([100.0, 85.0])
    assert found.accounts.loc["k@A", "equity"] == 0.0


def test_these_rulebooks_are_valid(own):
    assert set(HEAD) == {"lend", "close", "absorb", "auction"}
    for text in OWN.values():
        assert rulebook(own(text)).date == ""
