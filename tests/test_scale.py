"""One million accounts through the same path: long table, network, cascade, map. Timing is in ``benchmarks/``."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

import netcontagion as nc
from netcontagion import builders

pytestmark = pytest.mark.slow

ACCOUNTS = 1_000_000


@pytest.fixture(scope="module")
def network():
    rng = np.random.default_rng(0)
    who = np.array([f"0x{number:040x}" for number in rng.permutation(ACCOUNTS)], dtype=object)
    where = np.array(["Lend-1", "Lend-2", "Lend-3"], dtype=object)[rng.integers(0, 3, ACCOUNTS)]
    what = np.array(["ETH", "stETH", "WBTC"], dtype=object)[rng.integers(0, 3, ACCOUNTS)]
    value = np.exp(rng.normal(9, 2, ACCOUNTS))
    debt = 0.75 * value / (1.02 + np.exp(rng.normal(-0.2, 1, ACCOUNTS)))
    columns = {"who": np.tile(who, 2), "where": np.tile(where, 2)}
    columns |= {"what": np.concatenate([what, np.full(ACCOUNTS, "USDC", dtype=object)])}
    columns |= {"side": np.repeat(np.array(["collateral", "debt"], dtype=object), ACCOUNTS)}
    columns |= {"usd": np.concatenate([value, debt])}
    table = pd.DataFrame(columns).sample(frac=1, random_state=0)
    assets = ["ETH", "stETH", "WBTC", "USDC"]
    prices = {"price": [2000.0, 1990.0, 30_000.0, 1.0], "underlying": [None, "ETH", None, None]}
    prices |= {"depth": [debt.sum() / 2000, debt.sum() / 4000, debt.sum() / 30_000, np.inf]}
    return builders.from_table(
        table,
        trader="who",
        exchange="where",
        asset="what",
        side="side",
        value="usd",
        prices=pd.DataFrame(prices, index=pd.Index(assets, name="asset")),
        markets={
            "asset": assets,
            "liquidation_threshold": [0.80, 0.78, 0.75, 0.85],
            "liquidation_bonus": [0.05, 0.07, 0.06, 0.04],
        },
        exchanges={"exchange": ["Lend-1", "Lend-2", "Lend-3"], "rulebook": ["aave_v2", "aave_v3_0", "aave_v3"]},
    )


def test_a_million_accounts_from_table_to_map(network):
    assert len(network.labels("accounts")) - network.derived("accounts") == ACCOUNTS
    assert network.exposures("traders", "assets").matrix.nnz >= ACCOUNTS
    run = nc.cascade(network, nc.Shock.price({"ETH": -0.3}, family=True))
    run.check()
    assert run.status.settled
    assert run.accounts["liquidated"].sum() > 10_000
    assert (run.accounts["first_round"] > 0).any()
    assert len(run.events) > run.accounts["liquidated"].sum()
    with mpl.rc_context({"backend": "agg"}):
        axes = nc.contagion_map(run)
    assert len(axes.get_children()) < 500
    import matplotlib.pyplot as plt

    plt.close(axes.figure)


def test_a_million_accounts_clear(network):
    result = nc.clear(network, nc.Shock.price({"ETH": -0.3}, family=True))
    result.check()
    assert result.status is nc.Status.SETTLED
    assert (result.loss["direct"] >= -1e-6).all()
