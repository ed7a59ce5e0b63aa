"""A synthetic market of lending protocols and perpetual exchanges with shared traders."""

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
from netcontagion.generators._perpetuals import CONTRACTS, Holders, perpetual_network
from netcontagion.network import OTHERS, ExposureNetwork, merge, preset_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.intp]

__all__ = ["market"]

_NAMES = sorted(ASSETS)
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
    perpetuals: int | Sequence[str] = 0,
    owners: Iterable[Any] | None = None,
    prices: Mapping[Any, float] | None = None,
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

    Perpetual exchanges are stylised: an account holds BTC-PERP, ETH-PERP or both, of a value drawn as a debt, with
    leverage lognormal (median 4, sigma 0.8) and health of at least 1.05; a quarter of the accounts are one isolated
    position; traders sell at most 40 % of each contract, and market makers active on all of these exchanges hold
    whatever closes it. Margin is USDC, tiers are four public ones of Binance, funds and equity are the shares above of
    the open interest, and selling 2 % of the open interest moves a contract by 1 %, on one book for all exchanges.

    Parameters
    ----------
    n_accounts : int, default 200
        Accounts of borrowers and lenders, without ``others@``.
    exchanges : int or sequence of str, default 4
        How many (named Lend-1, Lend-2, ...), or their names; each has 0.7 times the traders of the one before it. 0 is
        possible beside ``perpetuals``.
    lenders : float, default 0.15
        Share of the accounts that only lend, in [0, 1).
    shared : float, default 0.20
        Share of the borrowing traders with accounts on several exchanges (a quarter of them on three), in [0, 1].
        One exchange: nobody. Beside ``perpetuals`` also the share of margin accounts that belong to borrowing traders
        and ``owners``, and of other margin traders on several perpetual exchanges.
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
    perpetuals : int or sequence of str, default 0
        How many perpetual exchanges (named Perp-1, Perp-2, ...), or their names. Together they have ``n_accounts`` x
        their number / the number of lending exchanges further accounts (``n_accounts`` where none lends), and those of
        the market makers.
    owners : iterable of labels, optional
        Traders of another network who also trade on the perpetual exchanges; see ``shared``. They get no wallet, so
        that ``nc.merge`` with their own network finds no contradiction. Labels ``others@`` are passed over, so that
        ``net.labels("traders")`` can be given as it is.
    prices : mapping, optional
        Prices by asset that replace those of June 2023 [USD]; those of assets unknown here are passed over, so that the
        prices of another network can be given as they are. What follows the same underlying as WBTC or WETH moves
        along, the contracts too, where it has no price of its own.
    seed : int, numpy Generator or None
        Source of randomness; equal seeds give equal networks.

    Returns
    -------
    ExposureNetwork
        In USD.

    Raises
    ------
    ValueError
        A parameter outside its range, a name that stands for two exchanges.
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
    >>> mixed = generators.market(60, exchanges=2, perpetuals=1, seed=1)
    >>> len(mixed.positions) > 30
    True
    """
    if n_accounts < 1:
        raise ValueError(f"n_accounts is {n_accounts!r}; allowed: 1 or more")
    _check_shares(lenders=lenders, shared=shared, wallets=wallets, loops=loops, under_water=under_water)
    if not (np.isfinite(depth) and depth > 0):
        raise ValueError(f"depth is {depth!r}; allowed: a factor above 0")
    rng = np.random.default_rng(seed)
    places = _exchange_names(perpetuals, "perpetuals", "Perp") if _wanted(perpetuals) else []
    lend = _exchange_names(exchanges, "exchanges", "Lend") if _wanted(exchanges) or not places else []
    if set(places) & set(lend):
        raise ValueError(f"perpetuals is {perpetuals!r}; allowed: names other than those of the lending exchanges")
    price = _prices(prices)
    given = dict.fromkeys(owners if owners is not None else ())
    known = [label for label in given if not str(label).startswith(OTHERS)]
    parts = []
    if lend:
        options = {"lenders": lenders, "shared": shared, "loops": loops, "under_water": under_water}
        parts.append(_lending(rng, n_accounts, _listing(lend), price, wallets=wallets, depth=depth, **options))
        known += [label for label in parts[0].labels("traders") if str(label).startswith("trader-")] if places else []
    if places:
        size = max(round(n_accounts * len(places) / len(lend)), 1) if lend else n_accounts
        holders = _holders(rng, size, len(places), known, shared)
        rest = {"wallets": wallets, "under_water": under_water, "depth": depth}
        parts.append(perpetual_network(rng, places, holders, price, **rest))
    return parts[0] if len(parts) == 1 else merge(*parts)


def _wanted(exchanges: int | Sequence[str]) -> bool:
    return not isinstance(exchanges, int) or exchanges != 0


def _prices(given: Mapping[Any, float] | None) -> dict[str, float]:
    """Prices of all assets and contracts; what follows an underlying moves with the asset that stands for it."""
    own = dict(given.items()) if given is not None else {}
    heads = dict(CONTRACTS.values())
    found: dict[str, float] = {}
    for name in _NAMES:
        _, underlying, _, before, _ = ASSETS[name]
        head = heads.get(str(underlying), name)
        found[name] = float(own.get(name, before * (own[head] / ASSETS[head][3] if head in own else 1.0)))
    for name, (_, head) in CONTRACTS.items():
        found[name] = float(own.get(name, found[head]))
    for name, price in found.items():
        if not (np.isfinite(price) and price > 0):
            raise ValueError(f"price of {name!r} is {price!r}; allowed: above 0")
    return found


def _lending(
    rng: np.random.Generator,
    n_accounts: int,
    listing: _Listing,
    prices: Mapping[str, float],
    *,
    lenders: float,
    shared: float,
    wallets: float,
    loops: float,
    under_water: float,
    depth: float,
) -> ExposureNetwork:
    """Draw the lending exchanges."""
    price = np.array([prices[name] for name in _NAMES])
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
        deposited=significant(np.concatenate([supplied, deposited]) / price),
        borrowed=significant(np.concatenate([np.zeros_like(supplied), borrowed]) / price),
        e_mode=np.concatenate([np.zeros(n_lenders, dtype=bool), e_mode]),
        purse=significant(purse / price),
        depth=depth,
        price=price,
    )


def _holders(rng: np.random.Generator, size: int, n_exchanges: int, known: Sequence[Any], shared: float) -> Holders:
    """Owners of margin accounts: a share of people known from elsewhere, and new ones, some on several exchanges."""
    n_known = min(round(shared * size), len(known))
    chosen = np.sort(rng.choice(len(known), n_known, replace=False)) if n_known else np.zeros(0, dtype=np.intp)
    owner, place = np.zeros(0, dtype=np.intp), np.zeros(0, dtype=np.intp)
    if size > n_known:
        owner, place = _people(rng, size - n_known, n_exchanges, shared)
    n_new = int(owner.max(initial=-1)) + 1
    digits = max(4, len(str(n_new)))
    labels = [known[i] for i in chosen.tolist()] + [f"margin-{number:0{digits}d}" for number in range(1, n_new + 1)]
    of_known = rng.choice(n_exchanges, n_known, p=_sizes(n_exchanges))
    return Holders(
        labels,
        np.arange(len(labels)) >= n_known,
        np.concatenate([np.arange(n_known), n_known + owner]),
        np.concatenate([of_known, place]),
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


def _exchange_names(exchanges: int | Sequence[str], option: str, stem: str) -> list[str]:
    if not isinstance(exchanges, int):
        names = [exchanges] if isinstance(exchanges, str) else list(exchanges)
        if not names or len(set(names)) < len(names):
            raise ValueError(f"{option} is {exchanges!r}; allowed: one name or more, none of them twice")
        return names
    if exchanges < 1:
        raise ValueError(f"{option} is {exchanges!r}; allowed: 1 or more")
    width = len(str(exchanges))
    return [f"{stem}-{number:0{width}d}" for number in range(1, exchanges + 1)]


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
    price: Floats,
) -> ExposureNetwork:
    import pandas as pd

    digits = max(4, len(str(n_lenders + len(purse))))
    names = [f"lender-{number:0{digits}d}" for number in range(1, n_lenders + 1)]
    names += [f"trader-{number:0{digits}d}" for number in range(1, len(purse) + 1)]
    traders, assets = pd.Index(names), pd.Index(_NAMES)
    pairs = zip(owner.tolist(), place.tolist(), strict=True)
    accounts = pd.Index([f"{names[trader]}@{listing.names[exchange]}" for trader, exchange in pairs])
    debt = group_sum(place, borrowed @ price, len(listing.names))
    account, asset = np.nonzero(deposited + borrowed)
    holder, held = np.nonzero(purse)
    return ExposureNetwork(
        traders={
            "trader": traders,
            "kind": np.repeat(np.array(["lender", "borrower"], dtype=object), [n_lenders, len(purse)]),
        },
        exchanges=_exchanges(listing, debt),
        assets=_assets(depth * float(debt.sum()) / SNAPSHOT_DEBT, price),
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


def _assets(scale: float, price: Floats) -> dict[str, Any]:
    kind, underlying, ratio, _, size = zip(*(ASSETS[name] for name in _NAMES), strict=True)
    moved = np.array([np.nan if amount is None else amount for amount in size])
    return {
        "asset": _NAMES,
        "kind": list(kind),
        "underlying": list(underlying),
        "ratio": list(ratio),
        "price": price.tolist(),
        "depth": significant(-scale * moved / (price * np.log(0.99))),
    }


def _markets(listing: _Listing) -> dict[str, Any]:
    exchange, asset = np.nonzero(~np.isnan(listing.threshold))
    return {
        "exchange": np.array(listing.names, dtype=object)[exchange],
        "asset": np.array(_NAMES, dtype=object)[asset],
        **{column: values[exchange, asset] for column, values in listing.parameters.items()},
    }
