"""What the synthetic market is calibrated on, and the samplers of debt and health.

Sources, restated as facts:

- accounts: stETH positions on Aave v2 and v3 Ethereum, June 2023, debts above USD 100;
  lidofinance/aave-liquidation-model@a44561e9c62438e3987437218a40f82d9898b8a1. Debt quantiles 10/25/50/75/90/99 %:
  USD 0.7k/3.5k/21k/125k/778k/17.5m; the ten largest owe 49 % (v2) and 55 % (v3), the largest 10 % (v2) and 11 % (v3);
  health quantiles 5/25/50/75/95 %: v2 1.16/1.38/1.81/2.61/4.91, v3 1.06/1.23/1.73/2.50/4.61; debt below health 1.1:
  8 % (v2), 27 % (v3); rank correlation of debt and health -0.24; stable debt on v2: USDC 181 m, USDT 116 m, DAI 61 m;
- depth: swap quotes of 2023-11-20, xenophonlabs/crvUSDrisk@7d17fa798e908e1032e4ee432ff14667f284febe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Flags = NDArray[np.bool_]

__all__ = [
    "ASSETS", "COLLATERAL", "COLLATERAL_COUNTS", "DEBT", "DEBT_COUNTS", "KITS", "SNAPSHOT_DEBT", "STAKED",
    "draw_debts", "draw_health", "draw_loops", "significant",
]  # fmt: skip

# asset -> kind, underlying, ratio [units of underlying], price [USD, June 2023], sale that moves it by 1 % [USD].
# stETH is given the book of wstETH, which is the same token wrapped; stablecoins have no depth: no impact.
ASSETS: dict[str, tuple[str, str | None, float, float, float | None]] = {
    "DAI": ("stable", None, 1.0, 1.0, None),
    "USDC": ("stable", None, 1.0, 1.0, None),
    "USDT": ("stable", None, 1.0, 1.0, None),
    "WBTC": ("token", "BTC", 1.0, 26_700.0, 6.8e6),
    "WETH": ("token", "ETH", 1.0, 1_720.0, 27e6),
    "stETH": ("token", "ETH", 1.0, 1_720.0, 27e6),
    "wstETH": ("token", "ETH", 1.1288, 1_941.54, 27e6),
}
SNAPSHOT_DEBT = 1_282.4e6  # USD, of all accounts of the snapshot: the market that the depths belong to

# rulebook and preset of market parameters, by turns over the exchanges
KITS = (("aave_v2", "aave_v2_2023_06"), ("aave_v3_0", "aave_v3_2023_06"), ("aave_v3", "aave_v3_2023_06"))
STAKED = ("stETH", "wstETH")  # collateral of loops, whichever the exchange lists

# Chance that an account outside the loops holds or owes an asset (where listed). Stable debt is shared as on v2; the
# share of WETH is lower than in the snapshot, which has accounts with stETH only.
COLLATERAL = {"stETH": 0.45, "wstETH": 0.45, "WETH": 0.25, "WBTC": 0.15, "USDC": 0.10, "DAI": 0.05}
DEBT = {"WETH": 0.35, "USDC": 0.33, "USDT": 0.21, "DAI": 0.11}
COLLATERAL_COUNTS = (0.67, 0.29, 0.04)  # accounts of the snapshot with one, two, three or more collateral assets
DEBT_COUNTS = (0.83, 0.17)  # with one, two or more debt assets

_DEBT_MEDIAN, _DEBT_SIGMA = 21_000.0, 2.7
_TAIL_FROM, _TAIL_EXPONENT, _TAIL_END = 0.90, 0.62, 120e6  # Pareto above the 90 % quantile, cut at USD 120 m
_LARGEST = 0.10  # no account owes more than this share of all debt
_MARGIN_MEDIAN, _MARGIN_SIGMA = 0.8, 1.0  # lognormal health - 1
_LOOP_HEALTH = (1.02, 1.10)
_UNDER_WATER_HEALTH = (0.90, 1.0)
_COPULA = -0.15  # of debt and health
_POWERS = np.array([float(f"1e{exponent}") for exponent in range(23)])


def draw_debts(rng: np.random.Generator, size: int) -> Floats:
    """Draw debts [USD]: a lognormal body and a Pareto tail, stratified, the largest at most a tenth of the total."""
    rank = _stratified(rng, size)
    end = _TAIL_END
    if _too_large(_debt_quantile(rank, end)):
        low, high = float(_debt_quantile(np.array([_TAIL_FROM]), end)[0]), end
        for _ in range(50):
            end = (low + high) / 2
            low, high = (low, end) if _too_large(_debt_quantile(rank, end)) else (end, high)
        end = low * (1 + 1e-9)
    return _debt_quantile(rank, end)


def _too_large(debts: Floats) -> bool:
    return bool(debts.max() > _LARGEST * debts.sum())


def _debt_quantile(rank: Floats, end: float) -> Floats:
    from scipy.special import ndtri

    body = _DEBT_MEDIAN * np.exp(_DEBT_SIGMA * ndtri(np.minimum(rank, _TAIL_FROM)))
    above = np.maximum(rank - _TAIL_FROM, 0.0) / (1 - _TAIL_FROM)
    start = _DEBT_MEDIAN * np.exp(_DEBT_SIGMA * ndtri(_TAIL_FROM))
    tail = 1 - above * (1 - (start / end) ** _TAIL_EXPONENT)
    return np.asarray(body * tail ** (-1 / _TAIL_EXPONENT))


def draw_loops(rng: np.random.Generator, debts: Floats, share: float) -> Flags:
    """Choose accounts of the larger half, up to a share of all debt."""
    goal = share * debts.sum()
    candidates = rng.permutation(np.flatnonzero((debts >= np.median(debts)) & (debts <= goal / 2)))
    looped = np.zeros(len(debts), dtype=bool)
    looped[candidates[np.cumsum(debts[candidates]) <= goal]] = True
    return looped


def draw_health(rng: np.random.Generator, debts: Floats, looped: Flags, under_water: float) -> Floats:
    """Draw health: 1 + lognormal, lower for large debts; uniform in loops; below 1 for a share of the others."""
    from scipy.special import ndtri

    size = len(debts)
    by_debt = ndtri((_ranks(debts) + 0.5) / size)
    mixed = _COPULA * by_debt + np.sqrt(1 - _COPULA**2) * rng.standard_normal(size)
    rank = (_ranks(mixed) + rng.uniform(0.05, 0.95, size)) / size
    health = 1 + _MARGIN_MEDIAN * np.exp(_MARGIN_SIGMA * ndtri(rank))
    health = np.where(looped, rng.uniform(*_LOOP_HEALTH, size), health)
    sunk = ~looped & (rng.random(size) < under_water)
    return np.where(sunk, rng.uniform(*_UNDER_WATER_HEALTH, size), health)


def _ranks(values: Floats) -> NDArray[np.intp]:
    ranks = np.empty(len(values), dtype=np.intp)
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
    return ranks


def _stratified(rng: np.random.Generator, size: int) -> Floats:
    return np.asarray((rng.permutation(size) + rng.uniform(0.05, 0.95, size)) / size)


def significant(values: Any, digits: int = 6) -> Floats:
    """Round to significant digits, to the nearest double, so that tables are short as text."""
    array = np.asarray(values, dtype=float)
    magnitude = np.floor(np.log10(np.where(array > 0, array, 1.0))).astype(int)
    places = digits - 1 - magnitude
    up, down = _POWERS[np.clip(places, 0, 22)], _POWERS[np.clip(-places, 0, 22)]
    return np.asarray(np.where(places >= 0, np.round(array * up) / up, np.round(array / down) * down))
