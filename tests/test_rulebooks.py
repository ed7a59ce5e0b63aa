"""Rulebooks: dated data, no behaviour, no guessing; everything that is wrong with a file is in one error."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
from conftest import lending_tables

import netcontagion as nc
from netcontagion.network import Amount, Auction, Layer, Leg, Source, market_presets, rulebook, rulebooks
from netcontagion.network._rule_fields import COMBINATIONS, LAST_LAYERS, LAYERS, SECTIONS, keys_of

GOOD = """
name = "mine"
[amount]
rule = "close_factor"
close_factor = 0.3
[price]
rule = "fixed_spread"
[deficit]
layers = ["insurance_fund", "suppliers"]
"""

PERPETUAL = """
[health]
test = "equity"
[amount]
rule = "whole_account"
[price]
rule = "execution"
[inventory]
route = "market"
[deficit]
layers = ["insurance_fund", "auto_deleveraging", "default"]
"""

AUCTION = """
[amount]
rule = "whole_account"
[price]
rule = "auction"
[inventory]
route = "auction"
[inventory.auction]
form = "dutch"
decay = "stairs"
[deficit]
layers = ["mint"]
"""


def write(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    rulebook.cache_clear()
    return str(path)


def refused(tmp_path, text):
    """Return the parts of the one error that a file raises, as a list; the network says the same."""
    path = write(tmp_path, text)
    with pytest.raises(nc.ContagionError) as caught:
        rulebook(path)
    said = str(caught.value)
    with pytest.raises(nc.SchemaError) as door:
        nc.ExposureNetwork(exchanges={"exchange": ["X"], "rulebook": [path]})
    assert said in str(door.value)
    assert said.startswith(f"rulebook {path!r}: ")
    return said.removeprefix(f"rulebook {path!r}: ").split("; ")


def changed(text, old, new):
    assert old in text
    return text.replace(old, new)


@pytest.mark.parametrize("name", rulebooks())
def test_presets_are_frozen_and_sourced(name):
    book = rulebook(name)
    assert book.name == name
    assert book.date
    assert book.source
    assert book.layers[-1] in LAST_LAYERS
    with pytest.raises(dataclasses.FrozenInstanceError):
        book.close_factor = 1.0


def test_the_numbers_of_aave():
    v2, v30, v3 = (rulebook(name) for name in ("aave_v2", "aave_v3_0", "aave_v3"))
    assert (v2.base, v2.close_factor, v2.full_below_health) == ("reserve", 0.5, 0.0)
    assert (v30.base, v30.close_factor, v30.full_below_health) == ("reserve", 0.5, 0.95)
    assert (v3.base, v3.close_factor, v3.full_below_health) == ("position", 0.5, 0.95)
    assert (v3.full_below_value, v3.minimum_leftover) == (2000.0, 1000.0)
    assert rulebook("lending").close_factor is None
    closeout = rulebook("closeout")
    assert (closeout.amount, closeout.price, closeout.inventory, closeout.close_factor) == (
        "whole_account",
        "execution",
        "market",
        1.0,
    )
    assert not closeout.fixed_spread


def test_names():
    assert "lending" in rulebooks()
    assert not any(name.startswith("markets_") for name in rulebooks())
    assert "aave_v3_2023_06" in market_presets()
    with pytest.raises(nc.UnknownLabelError, match="aave_v3"):
        rulebook("aave_v33")


def test_short_names_are_the_keys_of_the_rules():
    book = rulebook("aave_v3")
    assert book.amount_rule == Amount(
        rule="close_factor",
        base="position",
        close_factor=0.5,
        full_below_health=0.95,
        full_below_value=2000.0,
        minimum_leftover=1000.0,
    )
    assert (book.amount, book.price, book.inventory) == ("close_factor", "fixed_spread", "liquidator")
    assert (book.participation, book.layers) == ("profitable", ("insurance_fund", "equity", "suppliers"))
    assert book.deficit_rule.layers == tuple(Layer(name) for name in book.layers)
    assert book.rules() == {
        "health": "weighted_collateral",
        "amount": "close_factor: base position, close_factor 0.5, full_below_health 0.95, full_below_value 2,000, "
        "minimum_leftover 1,000",
        "price": "fixed_spread",
        "inventory": "liquidator",
        "deficit": "insurance_fund → equity → suppliers",
    }


def test_a_rulebook_of_ones_own(tmp_path):
    path = write(tmp_path, GOOD)
    assert rulebook(path).close_factor == 0.3
    tables = lending_tables(exchanges={"exchange": ["Lend"], "rulebook": [path]})
    tables["markets"]["close_factor"] = [None, None]
    assert nc.ExposureNetwork(**tables).exchanges["rulebook"].tolist() == [path]


def test_files_from_before_the_other_rules_stay_valid(tmp_path):
    """Every key there was, the old defaults, and the keys of the close factor beside whole_account, without effect."""
    book = rulebook(write(tmp_path, GOOD))
    assert (book.base, book.full_below_health, book.full_below_value, book.minimum_leftover) == ("reserve", 0, 0, 0)
    assert (book.inventory, book.participation, book.date, book.source) == ("liquidator", "profitable", "", "")
    old = """
name = "old"
date = 2024-01-31
source = "a"
note = "b"
[health]
test = "weighted_collateral"
[amount]
rule = "whole_account"
base = "position"
close_factor = 0.5
full_below_health = 0.95
full_below_value = 2000
minimum_leftover = 1000
[price]
rule = "execution"
[inventory]
route = "market"
participation = "always"
[deficit]
layers = ["equity", "insurance_fund", "suppliers"]
"""
    book = rulebook(write(tmp_path, old))
    assert (book.date, book.note, book.close_factor) == ("2024-01-31", "b", 1.0)
    assert (book.base, book.full_below_value, book.minimum_leftover) == ("position", 2000.0, 1000.0)
    assert isinstance(book.full_below_value, float)
    assert book.layers == ("equity", "insurance_fund", "suppliers")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("close_factor = 0.3", "close_factor = 0.0", "amount.close_factor is 0.0, allowed: a number in (0, 1]"),
        ("close_factor = 0.3", "close_factor = true", "amount.close_factor is True, allowed: a number in (0, 1]"),
        ("close_factor = 0.3", "close_factor = nan", "amount.close_factor is nan, allowed: a number in (0, 1]"),
        ("close_factor = 0.3", "close_facter = 0.3",
         "unknown key 'amount.close_facter', did you mean 'amount.close_factor'?"),
        ("close_factor = 0.3", "cooldown = 1.5", "amount.cooldown is 1.5, allowed: a whole number in [0, inf)"),
        ('rule = "close_factor"', 'rule = ["close_factor"]',
         "amount.rule is ['close_factor'], allowed: close_factor, whole_account, reduce"),
        ("[price]", "[prize]", "unknown key 'prize', did you mean 'price'?"),
        ('name = "mine"', "name = 3", "name is 3, allowed: text"),
        ('name = "mine"', 'source = ["a", 1]', "source is ['a', 1], allowed: text"),
        ('name = "mine"', "health = 3", "health is 3, allowed: a table [health]"),
        ('name = "mine"', "round_seconds = 0", "round_seconds is 0, allowed: a number in (0, inf)"),
        ('"fixed_spread"', '"fixed"',
         "price.rule is 'fixed', allowed: fixed_spread, execution, bankruptcy, mark, liquidation_factor, auction"),
        ('rule = "fixed_spread"', "", "price.rule is missing, allowed: fixed_spread, execution, bankruptcy, mark, "
         "liquidation_factor, auction"),
        ('"insurance_fund", "suppliers"', '"suppliers", "insurance_fund"',
         "deficit.layers must end with one of 'suppliers', 'co_borrowers', 'mint', 'withdrawal_haircut', 'frozen', "
         "'default': somebody bears what is left"),
        ('"insurance_fund", "suppliers"', '"frozen", "suppliers"', "deficit.layers: 'frozen' must be the last"),
        ('"insurance_fund", "suppliers"', '"equity", "recourse", "suppliers"',
         "deficit.layers: 'recourse' must be the first"),
        ('"insurance_fund", "suppliers"', '"equity", "equity", "suppliers"', "deficit.layers names 'equity' twice"),
        ('"insurance_fund", "suppliers"', '"gains", "suppliers"',
         "'gains' in deficit.layers needs health.test = 'equity'"),
        ('"insurance_fund", "suppliers"]', '"suppliers"]\n[deficit.insurance_fund]\ndrawdown = 0.5',
         "[deficit.insurance_fund] has parameters, but deficit.layers does not name 'insurance_fund'"),
        ('"suppliers"]', '"suppliers"]\n[deficit.insurance_fund]\ndrawdwon = 0.5',
         "unknown key 'deficit.insurance_fund.drawdwon', did you mean 'deficit.insurance_fund.drawdown'?"),
        ('"suppliers"]', '"suppliers"]\n[deficit.insurance_fund]\ndrawdown = 0.0',
         "deficit.insurance_fund.drawdown is 0.0, allowed: a number in (0, 1]"),
        ('"suppliers"]', '"suppliers"]\nalpha = 0.5', "deficit.alpha needs 'default' in deficit.layers"),
        ('"suppliers"]', '"suppliers"]\npromised = true',
         "deficit.promised = True needs health.test = 'equity', not 'weighted_collateral'"),
        ('layers = ["insurance_fund", "suppliers"]', "layers = []", "deficit.layers is [], allowed: a list of "),
        ('layers = ["insurance_fund", "suppliers"]', 'layers = "suppliers"', "deficit.layers is 'suppliers', "),
        ('layers = ["insurance_fund", "suppliers"]', "", "deficit.layers is missing, allowed: a list of recourse, "),
        # keys that belong to another rule: both are named
        ("close_factor = 0.3", "target_health = 1.2",
         "amount.target_health = 1.2 needs amount.rule = 'reduce', not 'close_factor'"),
        ("close_factor = 0.3", "slice = 0.2",
         "amount.slice = 0.2 needs amount.rule = 'whole_account' or 'reduce', not 'close_factor'"),
        ("close_factor = 0.3", "backstop_below = 0.5",
         "amount.backstop_below = 0.5 needs health.test = 'equity', not 'weighted_collateral'"),
        ('"fixed_spread"', '"fixed_spread"\npenalty = 0.13',
         "price.penalty = 0.13 needs price.rule = 'auction', not 'fixed_spread'"),
        ('"fixed_spread"', '"fixed_spread"\ncursor = 0.2',
         "price.cursor = 0.2 needs price.bonus = 'lltv', not 'market'"),
        ('"fixed_spread"', '"fixed_spread"\n[inventory]\nstore_front = 0.5',
         "inventory.store_front = 0.5 needs inventory.route = 'protocol', not 'liquidator'"),
        ('"fixed_spread"', '"fixed_spread"\n[inventory.auction]\nlength = 5',
         "[inventory.auction] needs inventory.route = 'auction', not 'liquidator'"),
        # price sources
        ('"suppliers"]', '"suppliers"]\n[sources.late]\nlatency = 1',
         "sources.late.mode is missing, allowed: spot, asset, index, median, twap, pegged, redemption"),
        ('"suppliers"]', '"suppliers"]\n[sources.late]\nmode = "asset"\nlatncy = 1',
         "unknown key 'sources.late.latncy', did you mean 'sources.late.latency'?"),
        ('"suppliers"]', '"suppliers"]\n[sources.usd]\nmode = "pegged"',
         "sources.usd.mode = 'pegged' needs exactly one leg in sources.usd.legs, not 0"),
        ('"suppliers"]', '"suppliers"]\n[sources.usd]\nmode = "spot"\nlegs = [{asset = "USD"}]',
         "sources.usd.legs does not go with sources.usd.mode = 'spot'"),
        ('"suppliers"]', '"suppliers"]\n[sources.usd]\nmode = "asset"\nwindow = 3',
         "sources.usd.window = 3 needs sources.usd.mode = 'twap', not 'asset'"),
        ('"suppliers"]', '"suppliers"]\n[sources.usd]\nmode = "asset"\nlow = 2\nhigh = 1',
         "sources.usd.low is above sources.usd.high"),
        ('"suppliers"]', '"suppliers"]\n[sources.usd]\nmode = "index"\nlegs = [{asset = "USD", weight = 0}]',
         "sources.usd.legs[0].weight is 0, allowed: a number in (0, inf)"),
    ],
)  # fmt: skip
def test_a_rulebook_that_is_wrong_says_so(tmp_path, old, new, words):
    said = refused(tmp_path, changed(GOOD, old, new))
    assert words in "; ".join(said)
    assert len(said) == (2 if old == "[price]" else 1)  # a misspelt section is missing too


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[amount]", "scenarios = [{BTC = -1.0}]\n[amount]", "health.scenarios is"),
        ('"equity"', '"weighted_collateral"', "'auto_deleveraging' in deficit.layers needs health.test = 'equity'"),
        ('"default"]', '"default"]\n[deficit.auto_deleveraging]\nallocation = "random"\nscore = "binance"',
         "deficit.auto_deleveraging.score does not go with deficit.auto_deleveraging.allocation = 'random'"),
        ('"default"]', '"default"]\n[deficit.auto_deleveraging]\nscore = "none"',
         "deficit.auto_deleveraging.allocation = 'queue' needs deficit.auto_deleveraging.score, not 'none'"),
        ('"default"]', '"default"]\n[deficit.auto_deleveraging]\ndrawdown = 0.5',
         "unknown key 'deficit.auto_deleveraging.drawdown'"),
        ('route = "market"', 'route = "market"\ngas = 5',
         "inventory.gas = 5 needs inventory.route = 'liquidator' or 'protocol' or 'auction', not 'market'"),
    ],
)  # fmt: skip
def test_a_margin_rulebook_that_is_wrong_says_so(tmp_path, old, new, words):
    assert words in "; ".join(refused(tmp_path, changed(PERPETUAL, old, new)))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('[inventory.auction]\nform = "dutch"\ndecay = "stairs"', "",
         "inventory.route = 'auction' needs a table [inventory.auction]"),
        ('decay = "stairs"', "", "inventory.auction.length is missing: rounds until the auction ends"),
        ('form = "dutch"\ndecay = "stairs"', 'form = "english"', "inventory.auction.length is missing"),
        ('decay = "stairs"', 'decay = "stairs"\nlength = 4',
         "inventory.auction.length does not go with inventory.auction.decay = 'stairs'"),
        ('decay = "stairs"', 'length = 4\ncut = 0.5',
         "inventory.auction.cut = 0.5 needs inventory.auction.decay = 'stairs' or 'exponential', not 'linear'"),
        ('form = "dutch"\ndecay = "stairs"', 'form = "english"\nlength = 4\nbuffer = 1.2',
         "inventory.auction.buffer = 1.2 needs inventory.auction.form = 'dutch', not 'english'"),
        ('decay = "stairs"', 'decay = "stairs"\nbidders = 0',
         "inventory.auction.bidders = 0 needs inventory.auction.form = 'english', not 'dutch'"),
        ('decay = "stairs"', 'decay = "stairs"\nbufer = 1.2',
         "unknown key 'inventory.auction.bufer', did you mean 'inventory.auction.buffer'?"),
    ],
)  # fmt: skip
def test_an_auction_that_is_wrong_says_so(tmp_path, old, new, words):
    assert words in "; ".join(refused(tmp_path, changed(AUCTION, old, new)))


def test_what_can_be_left_out(tmp_path):
    book = rulebook(write(tmp_path, AUCTION))
    assert book.inventory_rule.auction == Auction(form="dutch", decay="stairs")
    book = rulebook(write(tmp_path, changed(PERPETUAL, "[amount]", "scenarios = [{BTC = -0.1, ETH = 0.2}]\n[amount]")))
    assert book.health_rule.scenarios == ((("BTC", -0.1), ("ETH", 0.2)),)
    assert rulebook(write(tmp_path, changed(PERPETUAL, '"default"]', '"default"]\n[deficit.auto_deleveraging]\n'
                    'allocation = "pro_rata"'))).deficit_rule.layers[1].score == "none"  # fmt: skip
    text = (
        GOOD
        + '[sources.index]\nmode = "index"\nlegs = [{exchange = "A", weight = 2}, {asset = "ETH", convert = true}]\n'
    )
    legs = (Leg(exchange="A", weight=2.0), Leg(asset="ETH", convert=True))
    assert rulebook(write(tmp_path, text)).sources == (Source(name="index", mode="index", legs=legs),)


def test_a_default_may_be_written_out_anywhere(tmp_path):
    text = changed(GOOD, "close_factor = 0.3", "close_factor = 0.3\nslice = 1.0\ntarget_health = 1")
    assert rulebook(write(tmp_path, text)).amount_rule == rulebook(write(tmp_path, GOOD)).amount_rule


def test_everything_wrong_is_in_one_error(tmp_path):
    text = """
round_seconds = -1
titel = "mine"
[health]
test = "equity"
notice = -1
[amount]
rule = "close_factor"
close_facter = 0.5
[price]
rule = "auction"
[deficit]
layers = ["insurence_fund", "equity"]
"""
    said = "; ".join(refused(tmp_path, text))
    for words in (
        "unknown key 'titel'",
        "round_seconds is -1",
        "health.notice is -1",
        "unknown key 'amount.close_facter', did you mean 'amount.close_factor'?",
        "deficit.layers is 'insurence_fund', did you mean 'insurance_fund'?",
        "deficit.layers must end with",
        "price.rule = 'auction' does not go with inventory.route = 'liquidator', only with 'auction'",
        "price.rule = 'auction' does not go with amount.rule = 'close_factor', only with 'whole_account'",
        "price.rule = 'auction' does not go with health.test = 'equity', only with 'weighted_collateral'",
    ):
        assert words in said


@pytest.mark.parametrize("section", ["amount", "price", "deficit"])
def test_a_missing_section_is_named(tmp_path, section):
    kept = [part for part in GOOD.split("\n[") if not part.startswith(section)]
    assert refused(tmp_path, "\n[".join(kept)) == [f"section [{section}] is missing"]


def test_text_that_is_not_toml(tmp_path):
    with pytest.raises(nc.ContagionError, match="not valid TOML"):
        rulebook(write(tmp_path, 'name = "mine'))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(nc.ContagionError, match="does not exist"):
        rulebook(str(tmp_path / "none.toml"))


# combinations -------------------------------------------------------------------------------------------------------

LEGAL = {
    ("weighted_collateral", "close_factor", "fixed_spread", "liquidator"),
    ("weighted_collateral", "whole_account", "fixed_spread", "liquidator"),
    ("weighted_collateral", "whole_account", "execution", "market"),
    ("weighted_collateral", "reduce", "execution", "market"),
    ("equity", "whole_account", "execution", "market"),
    ("equity", "reduce", "execution", "market"),
    ("equity", "whole_account", "bankruptcy", "market"),
    ("equity", "reduce", "bankruptcy", "market"),
    ("equity", "whole_account", "bankruptcy", "vault"),
    ("equity", "reduce", "bankruptcy", "vault"),
    ("equity", "whole_account", "mark", "vault"),
    ("equity", "reduce", "mark", "vault"),
    ("weighted_collateral", "whole_account", "liquidation_factor", "protocol"),
    ("weighted_collateral", "whole_account", "auction", "auction"),
}


def test_every_combination_is_read_or_refused_naming_two_keys(tmp_path):
    """All of 2 x 3 x 6 x 5, against a list written by hand."""
    choices = [keys_of(SECTIONS[section])[key].allowed for section, key in
               (("health", "test"), ("amount", "rule"), ("price", "rule"), ("inventory", "route"))]  # fmt: skip
    assert [len(values) for values in choices] == [2, 3, 6, 5]
    assert set(choices[2]) == set(COMBINATIONS)
    for way in itertools.product(*choices):
        test, amount, price, route = way
        auction = "[inventory.auction]\nlength = 2\n" if route == "auction" else ""
        text = f"""
[health]
test = "{test}"
[amount]
rule = "{amount}"
[price]
rule = "{price}"
[inventory]
route = "{route}"
{auction}
[deficit]
layers = ["equity", "default"]
"""
        if way in LEGAL:
            book = rulebook(write(tmp_path, text))
            assert (book.health_rule.test, book.amount, book.price, book.inventory) == way
        else:
            path = write(tmp_path, text)
            with pytest.raises(nc.ContagionError) as caught:
                rulebook(path)
            assert f"price.rule = '{price}' does not go with" in str(caught.value)


def test_every_layer_can_be_named(tmp_path):
    last = {"suppliers", "co_borrowers", "mint", "withdrawal_haircut", "frozen", "default"}
    assert set(LAST_LAYERS) == last
    for name in LAYERS:
        layers = [name] if name in last else [name, "default"]
        text = changed(PERPETUAL, '["insurance_fund", "auto_deleveraging", "default"]', str(layers))
        assert rulebook(write(tmp_path, text)).layers == tuple(layers)


def test_numbers_keep_their_type(tmp_path):
    text = changed(PERPETUAL, 'rule = "whole_account"', 'rule = "whole_account"\nslice_above = 5\ncooldown = 2')
    amount = rulebook(write(tmp_path, text)).amount_rule
    assert (type(amount.slice_above), type(amount.cooldown)) == (float, int)
    assert amount.capacity == math.inf
    assert amount.close_factor == 1.0
