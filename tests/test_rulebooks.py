"""Rulebooks: dated data, no behaviour, no guessing."""

from __future__ import annotations

import dataclasses

import pytest
from conftest import lending_tables

import netcontagion as nc
from netcontagion.network import market_presets, rulebook, rulebooks

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


def write(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    rulebook.cache_clear()
    return str(path)


@pytest.mark.parametrize("name", rulebooks())
def test_presets_are_frozen_and_sourced(name):
    book = rulebook(name)
    assert book.name == name
    assert book.date
    assert book.source
    assert book.layers[-1] == "suppliers"
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


def test_a_rulebook_of_ones_own(tmp_path):
    path = write(tmp_path, GOOD)
    assert rulebook(path).close_factor == 0.3
    tables = lending_tables(exchanges={"exchange": ["Lend"], "rulebook": [path]})
    tables["markets"]["close_factor"] = [None, None]
    assert nc.ExposureNetwork(**tables).exchanges["rulebook"].tolist() == [path]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("close_factor = 0.3", "close_factor = 0.0", r"\(0, 1\]"),
        ("close_factor = 0.3", "close_factor = true", "number"),
        ("close_factor = 0.3", "close_facter = 0.3", "did you mean 'amount.close_factor'"),
        ("[price]", "[prize]", "did you mean 'price'"),
        ('rule = "fixed_spread"', 'rule = "fixed"', "fixed_spread"),
        ('rule = "fixed_spread"', 'rule = "execution"', "whole_account goes with"),
        ('"insurance_fund", "suppliers"', '"suppliers", "insurance_fund"', "must end with 'suppliers'"),
        ('"insurance_fund"', '"insurence_fund"', "insurance_fund"),
        ('rule = "fixed_spread"', "", "price.rule is missing"),
        ('name = "mine"', 'name = "mine', "not valid TOML"),
    ],
)
def test_a_rulebook_that_is_wrong_says_so(tmp_path, old, new, words):
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(nc.ContagionError, match=words):
        rulebook(path)
    with pytest.raises(nc.SchemaError, match=words):
        nc.ExposureNetwork(exchanges={"exchange": ["X"], "rulebook": [path]})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(nc.ContagionError, match="does not exist"):
        rulebook(str(tmp_path / "none.toml"))
