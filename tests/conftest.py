"""Tables that several test files share."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings

import netcontagion as nc

settings.register_profile("untimed", deadline=None)  # a busy machine, and a first compilation, are no failures
settings.load_profile("untimed")


def pytest_collection_modifyitems(items):
    """Put what runs cascades first: two workers, who begin at the top and in the middle, then compile each its own."""
    items.sort(key=lambda item: not _runs_cascades(item.path))


@functools.cache
def _runs_cascades(path):
    return "cascade" in path.read_text(encoding="utf-8")


def lending_tables(**changes):
    """Two borrowers on one exchange, every number easy: ann is at 1.6, bob at exactly 1."""
    tables = {
        "markets": {
            "exchange": ["Lend", "Lend"],
            "asset": ["ETH", "USDC"],
            "price": [2000.0, 1.0],
            "liquidation_threshold": [0.8, 0.85],
            "liquidation_bonus": [0.05, 0.05],
            "close_factor": [0.5, 0.5],
        },
        "balances": {
            "account": ["ann", "ann", "bob", "bob"],
            "asset": ["ETH", "USDC", "ETH", "USDC"],
            "deposited": [1.0, 0.0, 1.0, 0.0],
            "borrowed": [0.0, 1000.0, 0.0, 1600.0],
        },
    }
    return tables | changes


def full_tables():
    """Every table filled, every column used, two exchanges, a contract with tiers, an ambiguous label."""
    return {
        "traders": {
            "trader": ["ann", "bob", "hub", "mm"],
            "kind": ["fund", "trader", "bank", "market_maker"],
            "policy": ["default", "passive", "default", "default"],
            "external_assets": [10.5, 0.1, 7.0, 0.0],
            "external_liabilities": [0.0, 1 / 3, 0.0, 2.0],
            "leverage_limit": [np.nan, 20.0, np.nan, 3.5],
        },
        "exchanges": {
            "exchange": ["hub", "perp"],
            "rulebook": ["aave_v3", "lending"],
            "equity": [5.0, 0.0],
            "insurance_fund": [3.0, 0.0],
            "insurance_asset": ["USDC", None],
            "recourse": [True, False],
        },
        "assets": {
            "asset": ["ETH", "ETH-PERP", "USDC", "rest", "stETH", "uETH-USD"],
            "price": [2000.0, 2001.0, 1.0, 1.0, 1999.5, 1998.0],
            "kind": ["token", "linear", "stable", "residual", "token", "inverse"],
            "underlying": [None, "ETH", None, None, "ETH", "ETH"],
            "ratio": [1.0, 1.0, 1.0, 1.0, 1.15, 1.0],
            "settlement": [None, "USDC", None, None, None, "ETH"],
            "multiplier": [1.0, 1.0, 1.0, 1.0, 1.0, 10.0],
            "depth": [1000.0, np.nan, np.inf, np.nan, 50.0, np.nan],
            "volume": [np.nan, 7.0, np.nan, np.nan, 3.0, np.nan],
            "volatility": [0.04, np.nan, 0.0, np.nan, 0.05, np.nan],
        },
        "markets": {
            "exchange": ["hub"] * 4 + ["perp"] * 3,
            "asset": ["ETH", "USDC", "rest", "stETH", "ETH-PERP", "USDC", "uETH-USD"],
            "price": [np.nan, np.nan, np.nan, 1990.0, 2002.0, np.nan, np.nan],
            "loan_to_value": [0.7, 0.8, np.nan, 0.6, np.nan, np.nan, np.nan],
            "liquidation_threshold": [0.8, 0.85, 0.5, 0.75, np.nan, np.nan, np.nan],
            "liquidation_bonus": [0.05, 0.04, np.nan, 0.07, np.nan, np.nan, np.nan],
            "protocol_fee": [0.1, 0.0, 0.0, 0.2, 0.0, 0.0, 0.0],
            "initial_margin": [np.nan, np.nan, np.nan, np.nan, 0.1, np.nan, 0.1],
            "maintenance_margin": [np.nan, np.nan, np.nan, np.nan, 0.05, np.nan, 0.02],
            "maintenance_margin_short": [np.nan, np.nan, np.nan, np.nan, np.nan, np.nan, 0.03],
            "depth": [np.nan, np.nan, np.nan, 20.0, 30.0, np.nan, np.nan],
        },
        "tiers": {
            "exchange": ["perp"] * 2,
            "asset": ["ETH-PERP"] * 2,
            "floor": [0.0, 50_000.0],
            "initial_margin": [0.01, 0.02],
            "maintenance_margin": [0.004, 0.005],
        },
        "accounts": {
            "account": ["ann@hub", "bob@hub", "bob@perp", "mm@perp"],
            "trader": ["ann", "bob", "bob", "mm"],
            "exchange": ["hub", "hub", "perp", "perp"],
            "mode": ["cross", "cross", "isolated", "cross"],
            "liquidation_threshold": [np.nan, 0.9, np.nan, np.nan],
            "liquidation_bonus": [np.nan, 0.01, np.nan, np.nan],
        },
        "balances": {
            "account": ["ann@hub", "ann@hub", "ann@hub", "bob@hub", "bob@hub", "bob@perp", "mm@perp"],
            "asset": ["ETH", "USDC", "rest", "stETH", "USDC", "USDC", "USDC"],
            "deposited": [1.1, 0.0, 12.0, 2.0, 5.0, 300.0, 400.0],
            "borrowed": [0.0, 900.0, 0.0, 0.0, 3000.0, 0.0, 0.0],
        },
        "positions": {
            "account": ["bob@perp", "bob@perp", "mm@perp", "mm@perp"],
            "asset": ["ETH-PERP", "uETH-USD", "ETH-PERP", "uETH-USD"],
            "quantity": [0.75, 3.0, -0.25, -1.5],
            "entry_price": [1980.0, 2100.0, 1990.0, 1900.0],
        },
        "wallets": {"trader": ["bob", "mm"], "asset": ["USDC", "ETH"], "units": [100.0, 0.1]},
        "holdings": {"trader": ["ann", "hub"], "asset": ["stETH", "USDC"], "units": [0.3, 1e-9]},
        "liabilities": {
            "debtor": ["ann", ("trader", "hub"), ("exchange", "hub"), "ann"],
            "creditor": [("trader", "hub"), "perp", "mm", "mm"],
            "seniority": [0, 1, 0, 2],
            "amount": [4.0, 2.5, 1 / 7, 0.1],
        },
    }


def permuted(table, rng):
    """Return the rows of a dict of columns in another order."""
    columns = {name: np.asarray(pd.Series(values, dtype=object)) for name, values in table.items()}
    order = rng.permutation(len(next(iter(columns.values()))))
    return {name: values[order].tolist() for name, values in columns.items()}


def assert_same(left, right):
    """Two networks are the same, to the last bit."""
    assert (left.numeraire, left.complete) == (right.numeraire, right.complete)
    assert left.nodes.tolist() == right.nodes.tolist()
    for kind in ("traders", "exchanges", "assets", "accounts"):
        assert left.labels(kind).tolist() == right.labels(kind).tolist()
        assert [type(v) for v in left.labels(kind)] == [type(v) for v in right.labels(kind)]
    for name in full_tables():
        ours, theirs = left.columns(name), right.columns(name)
        assert ours.keys() == theirs.keys()
        for column, values in ours.items():
            assert values.dtype == theirs[column].dtype
            if values.dtype == object:
                assert values.tolist() == theirs[column].tolist(), (name, column)
            else:
                np.testing.assert_array_equal(values, theirs[column], err_msg=f"{name}.{column}")


def refused(call, *args, **kwargs):
    """Return the problems of a refused input by (table, column, row)."""
    with pytest.raises(nc.SchemaError) as caught:
        call(*args, **kwargs)
    found = caught.value.problems
    cells = {(problem.table, problem.column, problem.row): problem for problem in found}
    assert len({cell for cell in cells if cell[2] is not None}) == sum(problem.row is not None for problem in found)
    assert len(set(found)) == len(found), "no problem twice"
    assert str(caught.value).splitlines()[0].endswith("nothing was loaded:")
    for problem in found:
        assert problem.value not in (None, "")
        assert problem.allowed
        assert problem.cure
        assert all(str(part) in str(problem) for part in (problem.table, problem.value, problem.allowed, problem.cure))
    return cells


@pytest.fixture
def full():
    return nc.ExposureNetwork(**full_tables(), numeraire="EUR m")
