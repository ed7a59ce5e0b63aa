"""Depth of on-chain markets from the public 1inch quotes of 2023-11-20."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from netcontagion.datasets._files import fetch

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["dex_depths", "exponential_depth"]

DATASET = "dex-quotes-2023-11-20"
TOKENS = {
    "0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2": ("WETH", 18),
    "0x7f39c581f595b53c5cb19bd0b3f8da6c935e2ca0": ("wstETH", 18),
    "0x2260fac5e5542a773aa44fbcfedf7c193bc2c599": ("WBTC", 8),
    "0xac3e018457b222d93114458476f3e3416abbe38f": ("sfrxETH", 18),
    "0xdac17f958d2ee523a2206206994597c13d831ec7": ("USDT", 6),
    "0x0000000000085d4780b73119b644ae5ecd22b376": ("TUSD", 18),
    "0x8e870d67f660d95d5be530380d0ec0bd388289e1": ("USDP", 18),
    "0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48": ("USDC", 6),
}
"""Address of a token -> symbol and decimals (public-chain facts)."""
MONEY = "USDC"
ROUND_GAP_SECONDS = 600
SMALLEST_QUOTES = 10


def exponential_depth(quantity: float, impact: float) -> float:
    """Return the depth D at which selling a quantity costs an average impact.

    Under ``price x exp(-Q/D)`` a sale of q gets the average price ``p0 D/q (1 - exp(-q/D))``. With x = q/D this solves
    ``1 - impact = (1 - exp(-x)) / x`` for x and returns q / x (about q / (2 impact) for a small impact).

    Parameters
    ----------
    quantity : float
        Quantity sold [units].
    impact : float
        1 - average execution price / price before, between 0 and 1, both excluded.
    """
    if not (0.0 < impact < 1.0 and quantity > 0.0):
        raise ValueError(f"quantity must be positive and impact inside (0, 1), not {quantity} and {impact}")
    low, high = 0.0, 1.0 / (1.0 - impact)  # (1 - exp(-x)) / x < 1 / x
    for _ in range(200):
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        if -math.expm1(-middle) / middle > 1.0 - impact:
            low = middle
        else:
            high = middle
    return quantity / high


def dex_depths(impact: float = 0.02) -> pd.Series:
    """Return the depth of the exponential impact form for assets sold against USDC.

    The quotes are average execution prices of single swaps, up to 20 sizes in each of 18 rounds. Per round the price
    before impact is the median of the ten smallest quotes; the size at which the quoted impact first reaches
    ``impact`` is interpolated linearly, and :func:`exponential_depth` turns it into a depth. The median over the rounds
    is returned; an asset whose impact is not reached in half of its rounds (USDT) has no row. stETH, not quoted itself,
    gets the depth of wstETH converted by the ratio of wstETH to WETH: it is the same book seen twice, not a second one.

    Parameters
    ----------
    impact : float, default 0.02
        Average impact at which the exponential form meets the quotes, between 0 and 1.

    Returns
    -------
    Series
        asset -> depth [units], named ``"depth"``.

    Raises
    ------
    DatasetError
        If the quotes cannot be found or downloaded.

    Notes
    -----
    A calm day and one aggregated route per swap: depth in a crash is about ten times lower. Source: quotes of
    xenophonlabs/crvUSDrisk (MIT), from the 1inch API.
    """
    if not 0.0 < impact < 1.0:
        raise ValueError(f"impact must lie inside (0, 1), not {impact!r}")
    return _depths(fetch(DATASET)["quotes.csv"], impact)


def _depths(path: Path, impact: float) -> pd.Series:
    import pandas as pd

    quotes = _read_quotes(path)
    depths: dict[str, float] = {}
    prices: dict[str, float] = {}
    for asset, sold in quotes.groupby("asset"):
        sizes, before = zip(
            *(_size_at(quotes_of_round, impact) for _, quotes_of_round in sold.groupby("round")), strict=True
        )
        prices[str(asset)] = float(np.median(before))
        reached = np.asarray(sizes)[np.isfinite(sizes)]
        if 2 * len(reached) >= len(sizes):
            depths[str(asset)] = exponential_depth(float(np.median(reached)), impact)
    if "wstETH" in depths:
        depths["stETH"] = depths["wstETH"] * prices["wstETH"] / prices["WETH"]
    return pd.Series(depths, name="depth").rename_axis("asset").sort_index()


def _read_quotes(path: Path) -> pd.DataFrame:
    """Return quotes against USDC: asset, round, quantity [units], price [USDC per unit]."""
    import pandas as pd

    raw = pd.read_csv(path)
    symbols = {address: symbol for address, (symbol, _) in TOKENS.items()}
    units = {address: 10.0**decimals for address, (_, decimals) in TOKENS.items()}
    starts = np.sort(raw["timestamp"].unique())
    starts = starts[np.diff(starts, prepend=-math.inf) > ROUND_GAP_SECONDS]
    quantity = raw["in_amount"] / raw["src"].map(units)
    quotes = pd.DataFrame(
        {
            "asset": raw["src"].map(symbols),
            "round": np.searchsorted(starts, raw["timestamp"], side="right"),
            "quantity": quantity,
            "price": raw["out_amount"] / raw["dst"].map(units) / quantity,
        }
    )
    return quotes[raw["dst"].map(symbols).eq(MONEY)]


def _size_at(quotes: pd.DataFrame, impact: float) -> tuple[float, float]:
    """Return the quantity at which one round first reaches the impact (NaN: not reached) and its price before."""
    ordered = quotes.sort_values("quantity")
    before = float(ordered["price"].iloc[:SMALLEST_QUOTES].median())
    size: NDArray[np.float64] = ordered["quantity"].to_numpy(dtype=float)
    cost: NDArray[np.float64] = 1.0 - ordered["price"].to_numpy(dtype=float) / before
    above = np.flatnonzero(cost >= impact)
    if not len(above):
        return math.nan, before
    last = int(above[0])
    if last == 0:
        return float(size[0]), before
    share = (impact - cost[last - 1]) / (cost[last] - cost[last - 1])
    return float(size[last - 1] + share * (size[last] - size[last - 1])), before
