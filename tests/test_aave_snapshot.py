"""The Aave stETH snapshot: raw files -> positions, accounts and tables, against the tidy files and their oracle."""

from __future__ import annotations

import inspect
import logging
from pathlib import Path

import numpy as np
import pytest

from netcontagion import datasets
from netcontagion.datasets import _aave
from netcontagion.errors import DatasetError
from netcontagion.network import preset_table

SHARED = Path(__file__).parents[2] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the real data are not here: no ../shared/data")

FALLING = {"stETH", "wstETH", "WETH", "cbETH", "rETH", "WBTC"}
ORACLE = [  # fall, then accounts, debt and shortfall [USD m] with health < 1: v2, v3. Source: shared/data/README.md
    (0.0, (4, "0.001", "0.000"), (0, "0.000", "0.000")),
    (0.1, (13, "4.873", "0.000"), (5, "0.192", "0.000")),
    (0.2, (43, "51.751", "0.000"), (21, "17.401", "0.000")),
    (0.3, (97, "123.316", "0.843"), (46, "53.107", "0.015")),
    (0.4, (178, "154.651", "9.036"), (79, "65.318", "1.648")),
    (0.5, (284, "198.592", "26.551"), (131, "70.888", "9.113")),
]
UNUSED_COLLATERAL = {"a547d8b012d3", "a005a225de38"}


@pytest.fixture(scope="module")
def snapshot():
    if not SHARED.is_dir():
        pytest.skip("the real data are not here: no ../shared/data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NETCONTAGION_DATA", str(SHARED))
        files = datasets.fetch("aave-steth-2023-06")
    return _aave.read_snapshot(files)


@pytest.fixture(scope="module")
def tables(snapshot):
    return _aave.snapshot_tables(*snapshot)


def health(tables, fall=0.0):
    """Return collateral, debt and health per account from the tables alone, after a fall of ETH and BTC."""
    books = tables["balances"].join(tables["accounts"], on="account")
    books = books.join(tables["markets"]["price"], on=["exchange", "asset"])
    falls = books.index.get_level_values("asset").isin(tables["assets"].query("underlying.notna()").index)
    mark = books["price"] * np.where(falls, 1.0 - fall, 1.0)
    sums = (books[["deposited", "borrowed"]].mul(mark, axis=0)).groupby("account").sum()
    sums["health"] = sums["deposited"] * tables["accounts"]["liquidation_threshold"] / sums["borrowed"]
    return sums


@needs_shared
def test_positions_are_those_of_the_tidy_file(snapshot):
    import pandas as pd

    positions, _ = snapshot
    tidy = pd.read_csv(SHARED / "defi" / "aave_steth_2023-06_positions.csv.gz")
    # The raw files itemise 2.59 WETH of collateral on v3 that the tidy file left in OTHER: the one difference.
    one = positions[
        positions["exchange"].eq("aave_v3_eth") & positions["side"].eq("collateral") & positions["asset"].eq("WETH")
    ]
    assert one["trader"].tolist() == ["a86d5a4f90b5"]
    positions = positions.drop(one.index)
    tidy = tidy.drop(tidy[tidy["account"].eq("a86d5a4f90b5") & tidy["asset"].eq("OTHER")].index)
    keys = ["exchange", "trader", "side", "asset"]
    tidy = tidy.rename(columns={"venue": "exchange", "account": "trader"})
    both = positions.merge(tidy, on=keys, how="outer", suffixes=("", "_tidy"), indicator=True, validate="1:1")
    assert len(both) == 4689
    assert both["_merge"].eq("both").all()
    items = both[both["asset"].ne("OTHER")]
    # The tidy file has six decimals, so an amount near its last digit agrees to half of that digit only.
    np.testing.assert_allclose(items["amount"], items["amount_tidy"], rtol=1e-6, atol=0.51e-6)
    np.testing.assert_allclose(both["value"], both["value_usd"], rtol=1e-6, atol=1e-6)


@needs_shared
def test_accounts_are_those_of_the_tidy_file(snapshot):
    import pandas as pd

    _, accounts = snapshot
    tidy = pd.read_csv(SHARED / "defi" / "aave_steth_2023-06_accounts.csv.gz")
    tidy = tidy.rename(columns={"venue": "exchange", "account": "trader"})
    both = accounts.merge(tidy, on=["exchange", "trader"], validate="1:1")
    assert len(accounts) == len(both) == 1811
    assert accounts["exchange"].value_counts().to_dict() == {"aave_v2_eth": 1309, "aave_v3_eth": 502}
    for ours, theirs in (("collateral", "collateral_usd"), ("debt", "debt_usd"), ("health", "health_factor")):
        np.testing.assert_allclose(both[ours], both[theirs], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(both["liquidation_threshold"], both["liq_threshold"])
    np.testing.assert_array_equal(both["loan_to_value"], both["ltv"])
    assert both["emode_x"].sum() == 130


@needs_shared
def test_negative_residuals_are_the_documented_ones(snapshot):
    _, accounts = snapshot
    for side in ("collateral", "debt"):
        share = accounts[f"{side}_residual"] / accounts[side]
        beyond = accounts[share < -_aave.RESIDUAL_SHARE]
        assert set(beyond["trader"]) == (UNUSED_COLLATERAL if side == "collateral" else set())
        usual = share.drop(beyond.index)
        assert usual.min() > -2e-4  # oracle drift between two reads on v3
        assert usual[accounts["exchange"].eq("aave_v2_eth")].min() > -1e-5


@needs_shared
def test_itemised_value_and_residual_add_up_to_the_chain(snapshot):
    positions, accounts = snapshot
    for side in ("collateral", "debt"):
        items = positions[positions["side"].eq(side) & positions["asset"].ne("OTHER")]
        items = items.groupby(["exchange", "trader"])["value"].sum().rename("items")
        both = accounts.join(items, on=["exchange", "trader"]).fillna({"items": 0.0})
        np.testing.assert_allclose(both["items"] + both[f"{side}_residual"], both[side], rtol=1e-12, atol=1e-9)


@needs_shared
def test_health_is_the_one_on_chain(snapshot, tables):
    _, accounts = snapshot
    ours = health(tables)
    chain = accounts.assign(account=accounts["trader"] + "@" + accounts["exchange"]).set_index("account")
    owing = ours[ours["borrowed"] > 0].index
    difference = (ours.loc[owing, "health"] / chain.loc[owing, "health"] - 1.0).abs()
    assert len(owing) == 1799
    assert difference.median() < 1e-3
    odd = chain.loc[difference[difference > 2e-3].index, "trader"]
    assert set(odd) == UNUSED_COLLATERAL


@needs_shared
def test_debts_left_out_as_dust_are_the_documented_ones(snapshot, tables, monkeypatch, caplog):
    _, accounts = snapshot
    debt = accounts.set_index(accounts["trader"] + "@" + accounts["exchange"])["debt"]
    booked = tables["balances"]["borrowed"].groupby("account").sum()
    dust = debt[(debt > 0) & (booked == 0)]
    assert (len(dust), f"{dust.sum():.2f}", f"{dust.max():.2f}") == (12, "1.05", "0.78")
    assert dust.index.str.endswith("v2_eth").sum() == 10
    monkeypatch.setenv("NETCONTAGION_DATA", str(SHARED))
    with caplog.at_level(logging.INFO, logger="netcontagion"):
        _aave.read_snapshot(datasets.fetch("aave-steth-2023-06"))
    assert "12 accounts owe dust that is not booked: USD 1.05 in total" in caplog.text


def test_the_user_is_told_of_the_debts_left_out():
    listed = datasets.available().set_index("name").loc["aave-steth-2023-06", "what"]
    for text in (listed, inspect.getdoc(datasets.load), inspect.getdoc(_aave.read_snapshot)):
        words = " ".join(text.split())
        assert "12 accounts" in words
        assert "dust" in words
        assert "USD 1.05 in total" in words


@needs_shared
@pytest.mark.parametrize(("fall", "v2", "v3"), ORACLE)
def test_oracle_table(tables, fall, v2, v3):
    sums = health(tables, fall)
    below = sums[(sums["borrowed"] > 0) & (sums["health"] < 1.0)]
    for exchange, expected in (("aave_v2_eth", v2), ("aave_v3_eth", v3)):
        here = below[below.index.str.endswith(exchange)]
        shortfall = (here["borrowed"] - here["deposited"]).clip(lower=0.0).sum()
        assert (len(here), f"{here['borrowed'].sum() / 1e6:.3f}", f"{shortfall / 1e6:.3f}") == expected


@needs_shared
def test_tables_have_the_shape_of_a_network(tables):
    assert {name: len(table) for name, table in tables.items()} == {
        "traders": 1803,
        "exchanges": 2,
        "assets": 18,
        "markets": 24,
        "accounts": 1811,
        "balances": len(tables["balances"]),
    }
    assert tables["exchanges"]["rulebook"].to_dict() == {"aave_v2_eth": "aave_v2", "aave_v3_eth": "aave_v3_0"}
    assert tables["balances"].index.is_unique
    assert (tables["balances"] >= 0).all().all()
    assert (tables["balances"] > 0).all(axis=1).sum() > 0  # the same asset deposited and borrowed, kept gross
    assert set(tables["assets"].query("underlying.notna()").index) == FALLING
    assert tables["assets"].loc["OTHER", ["price", "kind"]].tolist() == [1.0, "residual"]
    assert tables["accounts"]["trader"].value_counts().eq(2).sum() == 8
    assert tables["accounts"]["liquidation_threshold"].between(0.6, 0.95).all()
    parameters = tables["markets"][["price", "loan_to_value", "liquidation_threshold", "liquidation_bonus"]]
    assert parameters.notna().all().all()


@needs_shared
def test_prices_replace_prices_and_leave_marks(snapshot, tables):
    other = _aave.snapshot_tables(*snapshot, prices={"WETH": 1.0})
    assert other["assets"].loc["WETH", "price"] == 1.0
    assert other["markets"].equals(tables["markets"])


@needs_shared
def test_load_gives_a_network(monkeypatch, tables):
    monkeypatch.setenv("NETCONTAGION_DATA", str(SHARED))
    ours = health(tables)
    of_network = datasets.load("aave-steth-2023-06").health()
    owing = ours[ours["borrowed"] > 0].index
    np.testing.assert_allclose(of_network.loc[owing], ours.loc[owing, "health"], rtol=1e-9)


@pytest.mark.parametrize("preset", sorted(_aave.PRESETS.values()))
def test_no_preset_market_makes_liquidation_toxic_at_health_one(preset):
    table = preset_table(preset)
    assert table["date"] == "2023-06"
    assert table["source"]
    for name, market in [*table["assets"].items(), *table.get("emode", {}).items()]:
        assert 0.0 <= market["loan_to_value"] <= market["liquidation_threshold"] < 1.0, name
        assert market["liquidation_threshold"] * (1.0 + market["liquidation_bonus"]) < 1.0, name


def test_a_missing_raw_file_is_named():
    with pytest.raises(DatasetError, match=r"steth_aave\.csv"):
        _aave.read_snapshot({})


def write_v2(folder, **changes):
    accounts = {"user": "0xA", "collateral": 1.0, "debt": 0.5, "threshold": 8300, "ltv": 7200, "healthf": 1.66}
    accounts |= {"amount": 1.0, "ethdebt": 0.5, "collateral_steth_calc": 1.0} | changes
    coins = {"user": "0xA", "usdc": 0.0, "usdc_price": 1e15, "usdc_decimals": 6, "usdc_collateral": 0}
    paths = {}
    for name, row in (("steth_aave.csv", accounts), ("b2.csv", coins), ("b3.csv", coins)):
        paths[name] = folder / name
        paths[name].write_text(",".join(row) + "\n" + ",".join(map(str, row.values())) + "\n")
    return paths


@pytest.mark.parametrize("changes", [{"amount": -1.0}, {"ethdebt": ""}])
def test_amounts_that_cannot_be_are_refused(tmp_path, changes):
    with pytest.raises(DatasetError, match="aave_v2_eth"):
        _aave.read_snapshot(write_v2(tmp_path, **changes))


def test_an_address_twice_is_refused(tmp_path):
    paths = write_v2(tmp_path)
    text = paths["steth_aave.csv"].read_text()
    paths["steth_aave.csv"].write_text(text + text.splitlines()[1].lower() + "\n")
    with pytest.raises(DatasetError, match="twice"):
        _aave.read_snapshot(paths)


def test_labels_do_not_depend_on_the_case_of_the_address():
    assert _aave.trader_label("0xAbC") == _aave.trader_label("0xabc")
    assert len(_aave.trader_label("0xabc")) == 12
