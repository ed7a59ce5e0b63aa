"""The presets: each reads, says where it is from, stands in the docs as it is, and runs or is refused by name."""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
from importlib import resources
from pathlib import Path

import pytest

import netcontagion as nc
from netcontagion.margining import ALLOCATIONS, SCORES, check_supported, unsupported
from netcontagion.margining._waterfall import RUN as RUN_LAYERS
from netcontagion.network import Auction, Layer, Leg, Source, rulebook, rulebooks
from netcontagion.network._rule_fields import COMBINATIONS, LAST_LAYERS, LAYERS, MARGIN_LAYERS, SECTIONS, keys_of

NAN = float("nan")
PAGE = (Path(__file__).resolve().parents[1] / "docs" / "rulebooks.md").read_text(encoding="utf-8")
LENDS = (
    "aave_v2",
    "aave_v3",
    "aave_v3_0",
    "closeout",
    "comet",
    "compound_v2",
    "lending",
    "maker",
    "maker_flip",
    "morpho",
)
MARGINS = ("binance", "bitmex", "broker", "bybit", "ccp", "deribit", "dydx_v4", "hyperliquid", "paradex", "perpetual")
RUNS = LENDS + MARGINS
EMPTY = ("insurance_fund", "defaulter_fund", "skin", "default_fund", "assessments")  # where nobody paid in

# What the sources of each preset say, written down a second time:
# test, amount, price, route, last layer, and a few numbers.
FACTS = {
    "aave_v2": ("weighted_collateral", "close_factor", "fixed_spread", "liquidator", "suppliers"),
    "aave_v3_0": ("weighted_collateral", "close_factor", "fixed_spread", "liquidator", "suppliers"),
    "aave_v3": ("weighted_collateral", "close_factor", "fixed_spread", "liquidator", "suppliers"),
    "binance": ("equity", "whole_account", "bankruptcy", "market", "default"),
    "bitmex": ("equity", "whole_account", "bankruptcy", "market", "default"),
    "broker": ("equity", "reduce", "execution", "market", "default"),
    "bybit": ("equity", "whole_account", "bankruptcy", "market", "default"),
    "ccp": ("equity", "whole_account", "execution", "market", "default"),
    "closeout": ("weighted_collateral", "whole_account", "execution", "market", "suppliers"),
    "comet": ("weighted_collateral", "whole_account", "liquidation_factor", "protocol", "frozen"),
    "compound_v2": ("weighted_collateral", "close_factor", "fixed_spread", "liquidator", "suppliers"),
    "deribit": ("equity", "reduce", "execution", "market", "default"),
    "dydx_v4": ("equity", "whole_account", "bankruptcy", "market", "frozen"),
    "hyperliquid": ("equity", "whole_account", "execution", "market", "default"),
    "lending": ("weighted_collateral", "close_factor", "fixed_spread", "liquidator", "suppliers"),
    "maker": ("weighted_collateral", "whole_account", "auction", "auction", "mint"),
    "maker_flip": ("weighted_collateral", "whole_account", "auction", "auction", "mint"),
    "morpho": ("weighted_collateral", "close_factor", "fixed_spread", "liquidator", "suppliers"),
    "paradex": ("equity", "whole_account", "execution", "market", "withdrawal_haircut"),
    "perpetual": ("equity", "whole_account", "execution", "market", "default"),
}


def layer(name, kind):
    return next(one for one in rulebook(name).deficit_rule.layers if one.name == kind)


def test_the_facts_are_of_every_preset():
    assert set(FACTS) == set(rulebooks())


@pytest.mark.parametrize("name", FACTS)
def test_the_five_rules(name):
    book = rulebook(name)
    kinds = (book.health_rule.test, book.amount_rule.rule, book.price_rule.rule, book.inventory_rule.route)
    assert (*kinds, book.layers[-1]) == FACTS[name]
    assert (book.health, book.amount, book.price, book.inventory) == kinds


@pytest.mark.parametrize("name", FACTS)
def test_it_is_frozen_dated_and_sourced(name):
    book = rulebook(name)
    assert book.name == name
    assert re.fullmatch(r"20\d\d(-[01]\d)?|undated", book.date)
    assert len(book.source) > 40
    assert book.layers[-1] in LAST_LAYERS
    hash(book)
    for part in (book, book.health_rule, book.amount_rule, book.price_rule, book.inventory_rule, book.deficit_rule):
        with pytest.raises(dataclasses.FrozenInstanceError):
            part.name = "other"


@pytest.mark.parametrize("name", FACTS)
def test_the_file_says_every_choice_and_no_time_in_rounds_without_their_length(name):
    """A preset leaves none of its five kinds to a default, and counts no rounds of unknown length."""
    text = resources.files("netcontagion.network").joinpath("rulebooks", f"{name}.toml").read_text(encoding="utf-8")
    data = tomllib.loads(text)
    assert list(SECTIONS) == [key for key in data if key in SECTIONS]
    assert all(data[section][key] for section, key in (("health", "test"), ("amount", "rule"), ("price", "rule")))
    assert {"route", "participation"} <= set(data["inventory"])
    timed = "\nstep =" in text or "\ncooldown" in text or "\nnotice" in text or "\nlatency" in text
    assert timed is (rulebook(name).round_seconds is not None)


# numbers ------------------------------------------------------------------------------------------------------------


def test_compound():
    v2, comet = rulebook("compound_v2"), rulebook("comet")
    assert (v2.base, v2.close_factor, v2.layers) == ("reserve", 0.5, ("insurance_fund", "equity", "suppliers"))
    assert comet.price_rule.factor is None
    assert (comet.inventory_rule.store_front, comet.inventory_rule.target_reserves) == (0.5, 5e6)
    assert comet.layers == ("insurance_fund", "frozen")


def test_morpho_has_no_close_factor_and_a_bonus_of_its_own():
    book = rulebook("morpho")
    assert book.close_factor == 1.0
    assert (book.price_rule.bonus, book.price_rule.cursor, book.price_rule.bonus_cap) == ("lltv", 0.3, 0.15)
    assert book.layers == ("suppliers",)


def test_maker():
    book, auction = rulebook("maker"), rulebook("maker").inventory_rule.auction
    assert (book.amount_rule.capacity, book.amount_rule.capacity_per_asset, book.price_rule.penalty) == (7e7, 4e7, 0.13)
    assert (auction.form, auction.buffer, auction.cut, auction.cusp, auction.chip) == ("dutch", 1.1, 0.99, 0.45, 0.001)
    assert auction.tail * book.round_seconds == 7200.0
    assert auction.step * book.round_seconds == 90.0
    assert book.sources == (Source(name="osm", mode="asset", latency=40.0),)
    assert book.sources[0].latency * book.round_seconds == 3600.0
    flip = rulebook("maker_flip").inventory_rule.auction
    assert (flip.form, flip.increase, flip.bid_length, flip.length, flip.bidders) == ("english", 0.05, 3, 48, math.inf)


def test_a_dutch_price_is_at_half_of_the_mark_when_the_auction_starts_anew():
    """The risk unit's reason for 7,200 seconds: 1.1 x 0.99^80 is about half of the oracle's price."""
    auction = rulebook("maker").inventory_rule.auction
    assert auction.buffer * auction.cut**auction.tail == pytest.approx(0.5, abs=0.01)


def test_perpetuals():
    perpetual = rulebook("perpetual")
    longest = ("account_surplus", "insurance_fund", "auto_deleveraging", "gains", "equity", "default")
    assert perpetual.layers == longest
    assert layer("perpetual", "auto_deleveraging") == Layer("auto_deleveraging")
    assert layer("bybit", "insurance_fund").drawdown == 1.0
    assert layer("binance", "auto_deleveraging").score == "binance"
    deleveraging = layer("hyperliquid", "auto_deleveraging")
    assert (deleveraging.allocation, deleveraging.price) == ("whole_queue", "mark")
    amount = rulebook("hyperliquid").amount_rule
    assert (amount.slice, amount.slice_above, amount.cooldown, amount.backstop_below) == (0.2, 1e5, 1, 2 / 3)
    assert layer("dydx_v4", "auto_deleveraging").allocation == "random"
    assert layer("dydx_v4", "auto_deleveraging").score == "none"
    assert rulebook("dydx_v4").price_rule.fee == 0.005
    assert rulebook("deribit").layers == ("insurance_fund", "gains", "equity", "default")
    assert rulebook("paradex").layers == ("insurance_fund", "withdrawal_haircut")


def test_broker_and_ccp():
    broker = rulebook("broker")
    assert (broker.layers[0], broker.health_rule.notice, broker.round_seconds) == ("recourse", 2, 86400.0)
    order = ("defaulter_fund", "skin", "default_fund", "assessments", "gains", "tear_up", "equity", "default")
    assert rulebook("ccp").layers == order


def test_every_rule_of_deleveraging_that_can_be_named_can_be_computed():
    keys = keys_of(Layer)
    assert set(keys["allocation"].allowed) == set(ALLOCATIONS)
    assert set(keys["score"].allowed) == set(SCORES)


# what runs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FACTS)
def test_it_runs_or_is_refused_by_name(name):
    found = unsupported(rulebook(name))
    assert (not found) is (name in RUNS)
    book = rulebook(name)
    assert {text for text in found if "in deficit.layers" in text} == {
        f"{one!r} in deficit.layers" for one in book.layers if one not in RUN_LAYERS
    }


@pytest.mark.parametrize("name", ["comet", "maker", "maker_flip", "morpho"])
def test_nothing_is_refused_of_the_lending_presets(name):
    assert unsupported(rulebook(name)) == ()


CLOSEOUT = """
[amount]
rule = "whole_account"
[price]
rule = "execution"
[inventory]
route = "market"
[deficit]
layers = ["suppliers"]
"""


def test_sources_of_marks_run(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(CLOSEOUT + '[sources.late]\nmode = "asset"\nlatency = 2\n', encoding="utf-8")
    rulebook.cache_clear()
    assert unsupported(rulebook(str(path))) == ()


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (("[price]", "slice = 0.5\n[price]"), "amount.slice = 0.5"),
        (("[price]", 'order = "worst_pnl"\n[price]'), "amount.order = 'worst_pnl'"),
        (('"whole_account"\n[price]', '"reduce"\n[price]'),
         "health.test = 'weighted_collateral' with amount.rule = 'reduce' with price.rule = 'execution' "
         "with inventory.route = 'market'"),
        (("[inventory]", "fee = 0.01\n[inventory]"), "price.fee = 0.01"),
        (('["suppliers"]', '["suppliers"]\ndivision = "queue"'), "deficit.division = 'queue'"),
    ],
)  # fmt: skip
def test_no_key_is_ignored(tmp_path, change, key):
    path = tmp_path / "own.toml"
    path.write_text(CLOSEOUT, encoding="utf-8")
    rulebook.cache_clear()
    assert unsupported(rulebook(str(path))) == ()
    assert change[0] in CLOSEOUT
    path.write_text(CLOSEOUT.replace(*change), encoding="utf-8")
    rulebook.cache_clear()
    assert unsupported(rulebook(str(path))) == (key,)


def lending(**exchanges):
    """A borrower on every exchange, with the columns that its rulebook wants."""
    names = list(exchanges)
    bonus = [0.05 if rulebook(book).fixed_spread else NAN for book in exchanges.values()]
    factor = [0.5 if rulebook(book).close_factor is None else NAN for book in exchanges.values()]
    return nc.ExposureNetwork(
        exchanges={"exchange": names, "rulebook": list(exchanges.values())},
        assets={"asset": ["ETH", "USD"], "price": [1.0, 1.0]},
        markets={
            "exchange": names * 2,
            "asset": ["ETH"] * len(names) + ["USD"] * len(names),
            "liquidation_threshold": [0.8] * (2 * len(names)),
            "liquidation_bonus": bonus + [NAN] * len(names),
            "close_factor": [NAN] * len(names) + factor,
        },
        accounts={"account": [f"k@{name}" for name in names], "trader": ["k"] * len(names), "exchange": names},
        balances={
            "account": [f"k@{name}" for name in names] * 2,
            "asset": ["ETH"] * len(names) + ["USD"] * len(names),
            "deposited": [100.0] * len(names) + [0.0] * len(names),
            "borrowed": [0.0] * len(names) + [70.0] * len(names),
        },
    )


def perpetual_tables(name):
    """A long and a short on one exchange."""
    return {
        "exchanges": {"exchange": ["P"], "rulebook": [name]},
        "assets": {"asset": ["BTC-PERP", "USD"], "price": [100.0, 1.0], "kind": ["linear", "stable"],
                   "underlying": ["BTC", None], "settlement": ["USD", None]},
        "markets": {"exchange": ["P"] * 2, "asset": ["BTC-PERP", "USD"], "maintenance_margin": [0.005, NAN]},
        "accounts": {"account": ["long", "short"], "trader": ["a", "b"], "exchange": ["P", "P"]},
        "balances": {"account": ["long", "short"], "asset": ["USD"] * 2, "deposited": [50.0, 50.0]},
        "positions": {"account": ["long", "short"], "asset": ["BTC-PERP"] * 2, "quantity": [10.0, -10.0],
                      "entry_price": [100.0] * 2},
    }  # fmt: skip


@pytest.mark.parametrize("name", MARGINS)
def test_a_perpetual_exchange_of_a_preset_that_runs_is_run(name):
    """The long lacks 20 at 93; somebody bears them, by the layers of the preset."""
    tables = perpetual_tables(name)
    run = nc.cascade(nc.ExposureNetwork(**tables), nc.Shock.price({"BTC-PERP": -0.07}), seed=0)
    run.check()
    assert run.accounts.loc["long", "liquidated"]
    assert run.exchanges.loc["P", "deficit"] == pytest.approx(20.0)
    book = rulebook(name)
    bare = ("account_surplus", *EMPTY)
    if any(layer.name == "auto_deleveraging" and layer.price == "mark" for layer in book.deficit_rule.layers):
        bare = (
            *bare,
            "auto_deleveraging",
            "vault",
            "equity",
        )  # winners closed at the mark leave it to others
    first = next(one for one in book.layers if one not in bare)
    assert run.exchanges.loc["P", f"{first}_used"] == pytest.approx(20.0)


@pytest.mark.parametrize("name", LENDS)
def test_a_network_of_a_preset_that_runs_is_run(name):
    net = lending(X=name)
    check_supported(net)
    run = nc.cascade(net, nc.Shock.price({"ETH": -0.2}))
    assert run.accounts.loc["k@X", "liquidated"]
    run.check()


def test_everything_that_does_not_run_is_in_one_error(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(
        CLOSEOUT.replace("[price]", 'order = "worst_pnl"\n[price]') + 'division = "queue"\n', encoding="utf-8"
    )
    rulebook.cache_clear()
    net = lending(A="aave_v3", M=str(path))
    with pytest.raises(nc.ContagionError) as caught:
        check_supported(net)
    text = str(caught.value)
    assert f"exchange 'M', rulebook '{path}': amount.order = 'worst_pnl', deficit.division = 'queue'" in text
    assert "'A'" not in text


def test_the_cascade_refuses_by_name_what_it_does_not_run(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(CLOSEOUT + 'division = "queue"\n', encoding="utf-8")
    net = lending(M=str(path))
    with pytest.raises(nc.ContagionError, match=r"exchange 'M', rulebook '.*own\.toml': deficit\.division = 'queue'"):
        nc.cascade(net, nc.Shock.price({"ETH": -0.2}))


def test_rounds_of_different_length_are_refused():
    with pytest.raises(nc.ContagionError, match="rounds of different length: 'maker' 90 seconds, 'maker_flip' 3600"):
        check_supported(lending(X="maker", Y="maker_flip"))
    check_supported(lending(X="maker", Y="aave_v3"))  # a rulebook that counts no time goes with any


@pytest.mark.parametrize("name", [name for name in FACTS if rulebook(name).health != "equity"])
def test_only_a_market_whose_bonus_is_charged_must_give_one(name):
    """Fixed spreads and comet's credit charge the market's bonus; morpho's follows from the threshold."""
    assert rulebook(name).fixed_spread is (name not in ("closeout", "maker", "maker_flip", "morpho"))
    net = lending(X=name)
    if rulebook(name).fixed_spread:
        with pytest.raises(nc.SchemaError, match="liquidation_bonus"):
            net.replace(markets=net.markets.assign(liquidation_bonus=NAN))


@pytest.mark.parametrize("name", [name for name in FACTS if rulebook(name).health == "equity"])
def test_an_exchange_tested_by_equity_needs_margin_rates_and_nothing_of_lending(name):
    tables = perpetual_tables(name)
    net = nc.ExposureNetwork(**tables)
    assert net.health()["long"] == pytest.approx(50.0 / 5.0)
    tables["markets"]["maintenance_margin"] = [NAN, NAN]
    with pytest.raises(nc.SchemaError, match="maintenance_margin"):
        nc.ExposureNetwork(**tables)


@pytest.mark.parametrize("name", [name for name in FACTS if rulebook(name).health == "equity"])
def test_balances_tested_by_equity_need_no_threshold_no_bonus_and_no_close_factor(name):
    """A long call comes at P* = loan / (q (1 - m)): 10 shares, a loan of 700, a rate of 25 %."""
    call = 700.0 / (10.0 * (1 - 0.25))
    net = nc.ExposureNetwork(
        exchanges={"exchange": ["B"], "rulebook": [name]},
        assets={"asset": ["SHARE", "USD"], "price": [call, 1.0]},
        markets={"exchange": ["B"] * 2, "asset": ["SHARE", "USD"], "maintenance_margin": [0.25, NAN]},
        accounts={"account": ["k"], "trader": ["a"], "exchange": ["B"]},
        balances={"account": ["k"] * 2, "asset": ["SHARE", "USD"], "deposited": [10.0, 0.0], "borrowed": [0.0, 700.0]},
    )
    assert net.health()["k"] == pytest.approx(1.0, rel=1e-12)


# the page -----------------------------------------------------------------------------------------------------------


def cells(*parts):
    return "| " + " | ".join(parts) + " |"


def preset_rows():
    for name in rulebooks():
        book = rulebook(name)
        yield cells(f"`{name}`", book.date, *book.rules().values())


def source_lines():
    for name in rulebooks():
        book = rulebook(name)
        seconds = "" if book.round_seconds is None else f" One round: {book.round_seconds:,g} s."
        yield f"- `{name}` ({book.date}). {book.source}{' Note: ' + book.note if book.note else ''}{seconds}"


def key_rows():
    tables = SECTIONS | {"inventory.auction": Auction, "sources.<name>": Source, "sources.<name>.legs": Leg}
    for place, rule in tables.items():
        for key in keys_of(rule).values():
            yield key_row(place, key)
    for key in keys_of(Layer).values():
        yield key_row(f"deficit.{key.needs[1][0]}", key._replace(needs=None))


def key_row(place, key):
    needs = "" if key.needs is None else f"{key.needs[0]} = {' or '.join(key.needs[1])}"
    default = "must be given" if key.default is dataclasses.MISSING else "left out" if key.default is None else (
        f"{key.default:g}" if isinstance(key.default, float) else str(key.default).lower()
    )  # fmt: skip
    unit = f" [{key.unit}]" if key.unit else ""
    return cells(f"`{place}.{key.name}`", key.words + unit, default, needs, key.meaning)


def combination_rows():
    for price, others in COMBINATIONS.items():
        yield cells(f"`{price}`", *(", ".join(values) for values in others.values()))


def layer_rows():
    for name, meaning in LAYERS.items():
        yield cells(f"`{name}`", meaning, "health.test = equity" if name in MARGIN_LAYERS else "")


@pytest.mark.parametrize(
    ("title", "lines"),
    [
        ("The presets", preset_rows),
        ("Where they are from", source_lines),
        ("Which rules go together", combination_rows),
        ("Layers", layer_rows),
        ("Keys", key_rows),
    ],
)
def test_the_page_says_what_the_files_say(title, lines):
    section = PAGE.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]
    marked = [line for line in section.splitlines() if line.startswith(("| `", "- `"))]
    assert marked == list(lines())


def test_the_rulebook_of_the_page_is_valid(tmp_path):
    text = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL).group(1)
    path = tmp_path / "own.toml"
    path.write_text(text, encoding="utf-8")
    rulebook.cache_clear()
    assert rulebook(str(path)).name == "my_exchange"
    assert unsupported(rulebook(str(path))) == ()
