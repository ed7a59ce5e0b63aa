"""A synthetic market of lending protocols with shared traders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import group_sum
from netcontagion.generators._calibration import (
    ASSETS,
    COLLATERAL,
    COLLATERAL_COUNTS,
    DEBT,
    DEBT_COUNTS,
    KITS,
    SNAPSHOT_DEBT,
    STAKED,
    draw_debts,
    draw_health,
    draw_loops,
    significant,
)
from netcontagion.network import ExposureNetwork, preset_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.intp]

__all__ = ["market"]

_NAMES = sorted(ASSETS)
_PRICES = np.array([ASSETS[name][3] for name in _NAMES])
_SIZE_STEP = 0.7  # each exchange has this many times the traders of the one before it
_UTILISATION = 0.80  # borrowed over deposited units, where suppliers are on record
_RECORDED = 0.70  # share of the supply on record at the last exchange; the rest is others@
_FUND, _EQUITY = 0.002, 0.005  # insurance fund and equity of an exchange, of its debt
_WALLET = (0.02, 0.50)  # wallet over debt of its trader
_WALLET_ASSETS = {"USDC": 0.7, "WETH": 0.3}
_SUPPLIER_SIGMA = 1.5


def market(
    n_accounts: int = 200,
    *,
    exchanges: int | Sequence[str] = 4,
    lenders: float = 0.15,
    shared: float = 0.20,
    wallets: float = 0.40,
    loops: float = 0.18,
    under_water: float = 0.0,
    depth: float = 1.0,
    seed: int | np.random.Generator | None = None,
) -> ExposureNetwork:
    """Draw a market of lending protocols with shared traders, calibrated on public figures of Aave.

    A borrowing account k owes d_k, lognormal (median USD 21,000, sigma 2.7) with a Pareto tail (exponent 0.62) above
    its 90 % quantile, and has health h_k, where h_k - 1 is lognormal (median 0.8, sigma 1) and falls with size (copula
    -0.15). With its collateral mix w (one to three assets) and the thresholds LT of its exchange its collateral is::

        V_k = h_k d_k / sum_a w_ka LT_a

    Loops owe WETH against (w)stETH at health 1.02 to 1.10, in e-mode where the exchange has one. Exchanges take the
    rulebooks aave_v2, aave_v3_0 and aave_v3 by turns, with the market parameters of June 2023. Lenders deposit so
    that 80 % of an asset is lent; the last of several exchanges is a partial record, where a part is left to
    ``others@<exchange>``. Each exchange has an insurance fund (USDC) of 0.2 % and equity of 0.5 % of its debt. Amounts
    carry six significant digits.

    Parameters
    ----------
    n_accounts : int, default 200
        Accounts of borrowers and lenders, without ``others@``.
    exchanges : int or sequence of str, default 4
        How many (named Lend-1, Lend-2, ...), or their names; each has 0.7 times the traders of the one before it.
    lenders : float, default 0.15
        Share of the accounts that only lend, in [0, 1).
    shared : float, default 0.20
        Share of the borrowing traders with accounts on several exchanges (a quarter of them on three), in [0, 1].
        One exchange: nobody.
    wallets : float, default 0.40
        Share of the borrowing traders with a wallet, in [0, 1]: USDC or WETH worth 2 % to 50 % of their debt.
    loops : float, default 0.18
        Share of all debt in loops, reached from below, in [0, 1).
    under_water : float, default 0.0
        Share of the borrowing accounts outside loops with health in [0.9, 1) before any shock, in [0, 1].
    depth : float, default 1.0
        Factor on depth, above 0; 0.1 is about the trough of a crash. At 1 a sale worth x d / 1,282.4 m, d the debt of
        the network [USD], moves the price by 1 %, with x = USD 27 m for WETH, stETH and wstETH and 6.8 m for WBTC
        (a calm day): D = -size / (price ln 0.99) units. Depth grows with the debt, so that a small market and a large
        one are equally fragile. Stablecoins have no depth: no impact.
    seed : int, numpy Generator or None
        Source of randomness; equal seeds give equal networks.

    Returns
    -------
    ExposureNetwork
        In USD.

    Raises
    ------
    ValueError
        A parameter outside its range.
    SchemaError
        Names of exchanges that are no labels.

    References
    ----------
    lidofinance/aave-liquidation-model@a44561e (positions of June 2023), xenophonlabs/crvUSDrisk@7d17fa7 (swap quotes of
    2023-11-20); market parameters: see ``builders.preset_markets``. Figures in ``generators/_calibration.py``.

    Examples
    --------
    >>> from netcontagion import generators
    >>> net = generators.market(60, exchanges=3, seed=1)
    >>> bool((net.health() > 1).all())
    True
    """
    if n_accounts < 1:
        raise ValueError(f"n_accounts is {n_accounts!r}; allowed: 1 or more")
    _check_shares(lenders=lenders, shared=shared, wallets=wallets, loops=loops, under_water=under_water)
    if not (np.isfinite(depth) and depth > 0):
        raise ValueError(f"depth is {depth!r}; allowed: a factor above 0")
    rng = np.random.default_rng(seed)
    listing = _listing(_exchange_names(exchanges))
    n_lenders = min(round(lenders * n_accounts), n_accounts - 1)
    owner, place = _people(rng, n_accounts - n_lenders, len(listing.names), shared)
    debts = draw_debts(rng, len(owner))
    looped = draw_loops(rng, debts, loops)
    health = draw_health(rng, debts, looped, under_water)
    deposited, borrowed, e_mode = _balances(rng, listing, place, debts=debts, health=health, looped=looped)
    supplier_place, supplied = _suppliers(rng, n_lenders, _supply_wanted(listing, place, deposited, borrowed))
    purse = _wallets(rng, group_sum(owner, debts, int(owner.max()) + 1), wallets)
    return _network(
        listing,
        owner=np.concatenate([np.arange(n_lenders), n_lenders + owner]),
        place=np.concatenate([supplier_place, place]),
        n_lenders=n_lenders,
        deposited=significant(np.concatenate([supplied, deposited]) / _PRICES),
        borrowed=significant(np.concatenate([np.zeros_like(supplied), borrowed]) / _PRICES),
        e_mode=np.concatenate([np.zeros(n_lenders, dtype=bool), e_mode]),
        purse=significant(purse / _PRICES),
        depth=depth,
    )


def _check_shares(**shares: float) -> None:
    for name, share in shares.items():
        below_one = name in ("lenders", "loops")
        if not (0 <= share < 1 or (share == 1 and not below_one)):
            raise ValueError(f"{name} is {share!r}; allowed: a share in [0, 1{')' if below_one else ']'}")


# exchanges and what they list -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Listing:
    """Exchanges x assets: market parameters, NaN where an asset is not listed or has none."""

    names: list[str]
    rulebooks: list[str]
    parameters: dict[str, Floats]
    mode: dict[str, Floats]  # by exchange: parameters of the ETH e-mode, NaN where there is none

    @property
    def threshold(self) -> Floats:
        return self.parameters["liquidation_threshold"]


def _exchange_names(exchanges: int | Sequence[str]) -> list[str]:
    if not isinstance(exchanges, int):
        names = [exchanges] if isinstance(exchanges, str) else list(exchanges)
        if not names or len(set(names)) < len(names):
            raise ValueError(f"exchanges is {exchanges!r}; allowed: one name or more, none of them twice")
        return names
    if exchanges < 1:
        raise ValueError(f"exchanges is {exchanges!r}; allowed: 1 or more")
    width = len(str(exchanges))
    return [f"Lend-{number:0{width}d}" for number in range(1, exchanges + 1)]


def _listing(names: list[str]) -> _Listing:
    kits = [KITS[number % len(KITS)] for number in range(len(names))]
    presets = [preset_table(preset) for _, preset in kits]
    columns = ("loan_to_value", "liquidation_threshold", "liquidation_bonus", "protocol_fee")
    parameters = {
        column: np.array([[_cell(p["assets"], a, column) for a in _NAMES] for p in presets]) for column in columns
    }
    fee = parameters["protocol_fee"]
    parameters["protocol_fee"] = np.where(np.isnan(fee), 0.0, fee)
    mode = {
        column: np.array([_cell(p.get("emode", {}), "eth_correlated", column) for p in presets]) for column in columns
    }
    return _Listing(names, [rulebook for rulebook, _ in kits], parameters, mode)


def _cell(table: Mapping[str, Mapping[str, Any]], row: str, column: str) -> float:
    return float(table.get(row, {}).get(column, np.nan))


# accounts ---------------------------------------------------------------------------------------------------------


def _people(rng: np.random.Generator, size: int, n_exchanges: int, shared: float) -> tuple[Ints, Ints]:
    """Owner and exchange of each borrowing account, sorted; the accounts of an owner are on different exchanges."""
    on_three = 0.25 if n_exchanges > 2 else 0.0
    extra_each = shared * (1 + on_three) if n_exchanges > 1 else 0.0
    n_traders = int(np.ceil(size / (1 + extra_each)))
    extra = size - n_traders
    third = max(extra // 5 if on_three else 0, extra - n_traders)
    several = rng.permutation(n_traders)[: extra - third]
    owner = np.concatenate([np.arange(n_traders), several, several[:third]])
    turn = np.repeat([0, 1, 2], [n_traders, extra - third, third])
    first = rng.choice(n_exchanges, n_traders, p=_sizes(n_exchanges))
    place = (first[owner] + turn) % n_exchanges
    order = np.lexsort((place, owner))
    return owner[order], place[order]


def _sizes(n_exchanges: int) -> Floats:
    weights = _SIZE_STEP ** np.arange(n_exchanges)
    return np.asarray(weights / weights.sum())


def _balances(
    rng: np.random.Generator,
    listing: _Listing,
    place: Ints,
    *,
    debts: Floats,
    health: Floats,
    looped: NDArray[np.bool_],
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Deposits and debts of each account by asset [USD], and which accounts are in e-mode."""
    collateral = _log_chances(listing, COLLATERAL, np.isin(_NAMES, STAKED))
    owed = _log_chances(listing, DEBT, np.isin(_NAMES, ["WETH"]))
    mix = _mix(rng, collateral[looped.astype(int), place], COLLATERAL_COUNTS)
    of_debt = owed[looped.astype(int), place]
    of_debt[mix > 0] = -np.inf
    borrowed = _mix(rng, of_debt, DEBT_COUNTS) * debts[:, None]
    mode_threshold = listing.mode["liquidation_threshold"][place]
    e_mode = looped & ~np.isnan(mode_threshold)
    threshold = (mix * np.nan_to_num(listing.threshold)[place]).sum(axis=1)
    threshold = np.where(e_mode, mode_threshold, threshold)
    return mix * (health * debts / threshold)[:, None], borrowed, e_mode


def _log_chances(listing: _Listing, chances: Mapping[str, float], in_loops: NDArray[np.bool_]) -> Floats:
    """Logarithms of the chances of each asset: (outside and in loops) x exchanges x assets; -inf where impossible."""
    chance = np.tile([chances.get(name, 0.0) for name in _NAMES], (len(listing.names), 1))
    chance[np.isnan(listing.threshold)] = 0.0
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.stack([chance, chance * in_loops])))


def _mix(rng: np.random.Generator, log_chances: Floats, counts: Sequence[float]) -> Floats:
    """Shares of each asset in each account: the first one, two, ... by the Gumbel trick, then random weights."""
    size, most = len(log_chances), len(counts)
    keys = log_chances + rng.gumbel(size=log_chances.shape)
    top = np.argsort(-keys, axis=1)[:, :most]
    wanted = rng.choice(most, size, p=counts)[:, None] >= np.arange(most)
    wanted &= np.isfinite(np.take_along_axis(keys, top, axis=1))
    weights = wanted * rng.uniform(0.2, 1.0, (size, most))
    shares = np.zeros(log_chances.shape)
    np.put_along_axis(shares, top, weights / weights.sum(axis=1, keepdims=True), axis=1)
    return shares


# suppliers, wallets -----------------------------------------------------------------------------------------------


def _supply_wanted(listing: _Listing, place: Ints, deposited: Floats, borrowed: Floats) -> Floats:
    """Return what lenders deposit, exchanges x assets [USD]."""
    shape = (len(listing.names), len(_NAMES))
    cell = (place[:, None] * shape[1] + np.arange(shape[1])).ravel()
    held = group_sum(cell, deposited.ravel(), shape[0] * shape[1]).reshape(shape)
    lent = group_sum(cell, borrowed.ravel(), shape[0] * shape[1]).reshape(shape)
    wanted = np.maximum(lent / _UTILISATION - held, 0.0)
    if len(listing.names) > 1:
        wanted[-1] = _RECORDED * np.maximum(lent[-1] - held[-1], 0.0)
    return wanted


def _suppliers(rng: np.random.Generator, count: int, wanted: Floats) -> tuple[Ints, Floats]:
    """Exchange and deposits [USD] of each lender: one for each gap, the largest first, the others by its size."""
    cells = np.argsort(-wanted, axis=None, kind="stable")
    cells = cells[: int((wanted > 0).sum())]
    supplied = np.zeros((count, wanted.shape[1]))
    if not count or not len(cells):
        return np.zeros(count, dtype=np.intp), supplied
    size = wanted.ravel()[cells]
    more = rng.choice(len(cells), max(count - len(cells), 0), p=size / size.sum())
    gap = np.concatenate([np.arange(len(cells)), more])[:count]
    weight = np.exp(_SUPPLIER_SIGMA * rng.standard_normal(count))
    amount = size[gap] * weight / group_sum(gap, weight, len(cells))[gap]
    place, asset = np.divmod(cells[gap], wanted.shape[1])
    supplied[np.arange(count), asset] = amount
    return place, supplied


def _wallets(rng: np.random.Generator, debts: Floats, share: float) -> Floats:
    """Wallet of each borrowing trader by asset [USD]."""
    size = len(debts)
    worth = debts * rng.uniform(*_WALLET, size) * (rng.random(size) < share)
    asset = rng.choice([_NAMES.index(name) for name in _WALLET_ASSETS], size, p=list(_WALLET_ASSETS.values()))
    purse = np.zeros((size, len(_NAMES)))
    purse[np.arange(size), asset] = worth
    return purse


# tables -----------------------------------------------------------------------------------------------------------


def _network(
    listing: _Listing,
    *,
    owner: Ints,
    place: Ints,
    n_lenders: int,
    deposited: Floats,
    borrowed: Floats,
    e_mode: NDArray[np.bool_],
    purse: Floats,
    depth: float,
) -> ExposureNetwork:
    import pandas as pd

    digits = max(4, len(str(n_lenders + len(purse))))
    names = [f"lender-{number:0{digits}d}" for number in range(1, n_lenders + 1)]
    names += [f"trader-{number:0{digits}d}" for number in range(1, len(purse) + 1)]
    traders, assets = pd.Index(names), pd.Index(_NAMES)
    pairs = zip(owner.tolist(), place.tolist(), strict=True)
    accounts = pd.Index([f"{names[trader]}@{listing.names[exchange]}" for trader, exchange in pairs])
    debt = group_sum(place, borrowed @ _PRICES, len(listing.names))
    account, asset = np.nonzero(deposited + borrowed)
    holder, held = np.nonzero(purse)
    return ExposureNetwork(
        traders={
            "trader": traders,
            "kind": np.repeat(np.array(["lender", "borrower"], dtype=object), [n_lenders, len(purse)]),
        },
        exchanges=_exchanges(listing, debt),
        assets=_assets(depth * float(debt.sum()) / SNAPSHOT_DEBT),
        markets=_markets(listing),
        accounts={
            "account": accounts,
            "trader": _coded(traders, owner),
            "exchange": np.array(listing.names, dtype=object)[place],
            "liquidation_threshold": np.where(e_mode, listing.mode["liquidation_threshold"][place], np.nan),
            "liquidation_bonus": np.where(e_mode, listing.mode["liquidation_bonus"][place], np.nan),
        },
        balances={
            "account": _coded(accounts, account),
            "asset": _coded(assets, asset),
            "deposited": deposited[account, asset],
            "borrowed": borrowed[account, asset],
        },
        wallets={
            "trader": _coded(traders, n_lenders + holder),
            "asset": _coded(assets, held),
            "units": purse[holder, held],
        }
        if len(holder)
        else None,
    )


def _coded(categories: pd.Index, codes: NDArray[Any]) -> pd.Categorical:
    import pandas as pd

    return pd.Categorical.from_codes(codes.astype(np.int32), categories=categories)


def _exchanges(listing: _Listing, debt: Floats) -> dict[str, Any]:
    return {
        "exchange": listing.names,
        "rulebook": listing.rulebooks,
        "equity": significant(_EQUITY * debt, 3),
        "insurance_fund": significant(_FUND * debt, 3),
        "insurance_asset": ["USDC"] * len(debt),
    }


def _assets(scale: float) -> dict[str, Any]:
    kind, underlying, ratio, price, size = zip(*(ASSETS[name] for name in _NAMES), strict=True)
    moved = np.array([np.nan if amount is None else amount for amount in size])
    return {
        "asset": _NAMES,
        "kind": list(kind),
        "underlying": list(underlying),
        "ratio": list(ratio),
        "price": list(price),
        "depth": significant(-scale * moved / (np.array(price) * np.log(0.99))),
    }


def _markets(listing: _Listing) -> dict[str, Any]:
    exchange, asset = np.nonzero(~np.isnan(listing.threshold))
    return {
        "exchange": np.array(listing.names, dtype=object)[exchange],
        "asset": np.array(_NAMES, dtype=object)[asset],
        **{column: values[exchange, asset] for column, values in listing.parameters.items()},
    }
