"""Perpetual exchanges of a synthetic market.

Stylised, not fitted: sizes are drawn as those of loans, leverage is lognormal, margin tiers are the public ones of a
large exchange (see ``TIERS``), depth is a multiple of the open interest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion._arrays import group_sum
from netcontagion.generators._calibration import draw_debts, significant
from netcontagion.network import ExposureNetwork, Tiers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.intp]

__all__ = ["CONTRACTS", "MARGIN_ASSET", "Holders", "perpetual_network"]

CONTRACTS = {"BTC-PERP": ("BTC", "WBTC"), "ETH-PERP": ("ETH", "WETH")}  # contract -> underlying, asset of its price
MARGIN_ASSET = "USDC"
TIERS = {  # cumulative amounts 0, 50, 1,300, 16,300: Binance, BTC and ETH contracts
    "floor": (0.0, 50_000.0, 250_000.0, 1_000_000.0),
    "initial_margin": (0.008, 0.01, 0.02, 0.05),
    "maintenance_margin": (0.004, 0.005, 0.01, 0.025),
}
_BOTH = 0.30  # share of the cross accounts that hold both contracts
_ISOLATED = 0.25  # share of the accounts that are one isolated position
_SHORT = 0.40  # share of the contracts sold by traders; market makers hold the rest of that side
_LEVERAGE, _LEVERAGE_SIGMA = 4.0, 0.8  # notional over equity, lognormal
_SAFE, _SUNK = (1.05, 1.5), (0.90, 0.995)  # lowest health of an account, of one that is under water
_MOVED = 0.10  # largest move of the price since entry
_TURNOVER = 0.02  # share of the open interest whose sale moves the price by 1 %
_FUND, _EQUITY = 0.002, 0.005  # insurance fund and equity of an exchange, of its open interest
_PURSE = (0.02, 0.50)  # wallet over equity of its trader


class Holders(NamedTuple):
    """Who has an account where: labels, those of them that are new here, and owner and exchange by account."""

    labels: Sequence[Any]
    new: NDArray[np.bool_]
    owner: Ints
    place: Ints


class _Positions(NamedTuple):
    account: Ints
    contract: Ints
    quantity: Floats
    entry: Floats


def perpetual_network(
    rng: np.random.Generator,
    exchanges: Sequence[str],
    holders: Holders,
    prices: Mapping[Any, float],
    *,
    wallets: float,
    under_water: float,
    depth: float,
) -> ExposureNetwork:
    """Draw margin accounts of the holders, positions that sum to zero with market makers, and their margin."""
    price = np.array([prices[name] for name in CONTRACTS])
    size = len(holders.owner)
    isolated = rng.random(size) < _ISOLATED
    value = _split(rng, draw_debts(rng, size), isolated)
    account, contract = np.nonzero(value)
    quantity = significant(value[account, contract] / price[contract])
    quantity *= _sides(rng, holders.place[account] * len(price) + contract, quantity)
    worth = np.abs(quantity) * price[contract]
    equity = _equity(rng, account, worth, under_water, size)
    room = np.minimum(_MOVED, 0.8 * equity / group_sum(account, worth, size))
    moved = room[account] * rng.uniform(-1, 1, len(account))
    held = _Positions(account, contract, quantity, significant(price[contract] * (1 - moved)))
    gains = group_sum(account, quantity * (price[contract] - held.entry), size)
    margin = significant((equity - gains) / prices[MARGIN_ASSET])
    made, of_maker, place, stake = _makers(held, holders.place, price, len(exchanges))
    purse = significant(_purses(rng, group_sum(holders.owner, equity, len(holders.labels)), holders.new, wallets))
    return _network(
        exchanges,
        holders,
        isolated,
        positions=held,
        makers=(made, of_maker, place),
        margin=np.concatenate([margin, significant(stake / prices[MARGIN_ASSET])]),
        purse=purse / prices[MARGIN_ASSET],
        prices=prices,
        depth=depth,
    )


def _split(rng: np.random.Generator, total: Floats, isolated: NDArray[np.bool_]) -> Floats:
    """Value held in each contract: all in one, or shared by both."""
    first = rng.integers(len(CONTRACTS), size=len(total))
    share = np.where(~isolated & (rng.random(len(total)) < _BOTH), rng.uniform(0.3, 0.9, len(total)), 1.0)
    value = np.tile((total * (1 - share))[:, None], len(CONTRACTS))
    value[np.arange(len(total)), first] = total * share
    return value


def _sides(rng: np.random.Generator, market: Ints, quantity: Floats) -> Floats:
    """Draw -1 for positions in random order up to the share of shorts in their market, else 1."""
    order = rng.permutation(len(market))
    order = order[np.argsort(market[order], kind="stable")]
    through = np.cumsum(quantity[order])
    start = np.append(True, market[order][1:] != market[order][:-1]) if len(order) else np.zeros(0, dtype=bool)
    before = np.maximum.accumulate(np.where(start, through - quantity[order], 0.0))
    total = group_sum(market, quantity, int(market.max(initial=0)) + 1)
    side = np.ones(len(market))
    side[order[through - before <= _SHORT * total[market[order]]]] = -1.0
    return side


def _equity(rng: np.random.Generator, account: Ints, worth: Floats, under_water: float, size: int) -> Floats:
    """Equity of each account [USD]: by leverage, and no less than keeps it safe; below its margin where under water."""
    floor, rate = (np.array(TIERS[name]) for name in ("floor", "maintenance_margin"))
    tiers = Tiers.build(np.zeros(1, dtype=np.int64), np.array([len(floor)]), floor, rate)
    required = group_sum(account, tiers.margin(np.zeros(len(worth), dtype=np.int64), worth), size)
    leverage = _LEVERAGE * np.exp(_LEVERAGE_SIGMA * rng.standard_normal(size))
    equity = np.maximum(group_sum(account, worth, size) / leverage, rng.uniform(*_SAFE, size) * required)
    sunk = rng.random(size) < under_water
    return np.where(sunk, rng.uniform(*_SUNK, size) * required, equity)


def _makers(held: _Positions, place: Ints, price: Floats, n_exchanges: int) -> tuple[_Positions, Ints, Ints, Floats]:
    """Market makers take the other side of every market, as entered: positions, maker, exchange and margin [USD]."""
    n_contracts = len(price)
    market = place[held.account] * n_contracts + held.contract
    net = group_sum(market, held.quantity, n_exchanges * n_contracts)
    cost = group_sum(market, held.quantity * held.entry, n_exchanges * n_contracts)
    open_market = np.flatnonzero(net)
    where, contract = np.divmod(open_market, n_contracts)
    quantity, entry = -net[open_market], cost[open_market] / net[open_market]
    gains = quantity * (price[contract] - entry)
    stake = np.abs(quantity) * price[contract] - gains
    return _Positions(np.arange(len(open_market)), contract, quantity, entry), contract, where, stake


def _purses(rng: np.random.Generator, equity: Floats, new: NDArray[np.bool_], share: float) -> Floats:
    """Wallet of each trader that is new here [USD]."""
    size = len(equity)
    return np.asarray(equity * rng.uniform(*_PURSE, size) * ((rng.random(size) < share) & new))


def _network(
    exchanges: Sequence[str],
    holders: Holders,
    isolated: NDArray[np.bool_],
    *,
    positions: _Positions,
    makers: tuple[_Positions, Ints, Ints],
    margin: Floats,
    purse: Floats,
    prices: Mapping[Any, float],
    depth: float,
) -> ExposureNetwork:
    names, made, of_maker, where = list(CONTRACTS), *makers
    known, maker_names = list(holders.labels), [f"maker-{underlying}" for underlying, _ in CONTRACTS.values()]
    first = np.full(len(holders.owner), -1)
    first[positions.account[::-1]] = positions.contract[::-1]
    rows = zip(holders.owner.tolist(), holders.place.tolist(), isolated.tolist(), first.tolist(), strict=True)
    labels = [f"{known[i]}@{exchanges[j]}{f':{names[k]}' if alone else ''}" for i, j, alone, k in rows]
    labels += [f"{maker_names[i]}@{exchanges[j]}" for i, j in zip(of_maker.tolist(), where.tolist(), strict=True)]
    account = np.array(labels, dtype=object)
    quantity = np.concatenate([positions.quantity, made.quantity])
    contract = np.concatenate([positions.contract, made.contract])
    place = np.concatenate([holders.place, where])
    holder = np.concatenate([positions.account, len(holders.owner) + made.account])
    trader = [known[i] for i in holders.owner.tolist()] + [maker_names[i] for i in of_maker.tolist()]
    price = np.array([prices[name] for name in names])
    bought = np.maximum(quantity, 0.0)
    interest = group_sum(place[holder], bought * price[contract], len(exchanges))
    units = group_sum(contract, bought, len(names))
    used = sorted(set(of_maker.tolist()))
    rich = np.flatnonzero(purse)
    return ExposureNetwork(
        traders={
            "trader": [*known, *(maker_names[i] for i in used)],
            "kind": [*("margin trader" if fresh else "trader" for fresh in holders.new), *["market_maker"] * len(used)],
        },
        exchanges={
            "exchange": list(exchanges),
            "rulebook": ["perpetual"] * len(exchanges),
            "equity": significant(_EQUITY * interest, 3),
            "insurance_fund": significant(_FUND * interest / prices[MARGIN_ASSET], 3),
            "insurance_asset": [MARGIN_ASSET] * len(exchanges),
        },
        assets={
            "asset": [*names, MARGIN_ASSET],
            "price": [*price.tolist(), prices[MARGIN_ASSET]],
            "kind": [*["linear"] * len(names), "stable"],
            "underlying": [*(underlying for underlying, _ in CONTRACTS.values()), None],
            "settlement": [*[MARGIN_ASSET] * len(names), None],
            "depth": [*_depth(units, depth).tolist(), np.nan],
        },
        tiers={
            "exchange": np.repeat(exchanges, len(names) * len(TIERS["floor"])),
            "asset": np.tile(np.repeat(names, len(TIERS["floor"])), len(exchanges)),
            **{column: np.tile(values, len(exchanges) * len(names)) for column, values in TIERS.items()},
        },
        accounts={
            "account": account,
            "trader": trader,
            "exchange": np.array(exchanges, dtype=object)[place],
            "mode": np.where(np.append(isolated, np.zeros(len(where), dtype=bool)), "isolated", "cross").astype(object),
        },
        balances={"account": account, "asset": [MARGIN_ASSET] * len(account), "deposited": margin},
        positions={
            "account": account[holder],
            "asset": np.array(names, dtype=object)[contract],
            "quantity": quantity,
            "entry_price": np.concatenate([positions.entry, made.entry]),
        },
        wallets={
            "trader": [known[i] for i in rich.tolist()],
            "asset": [MARGIN_ASSET] * len(rich),
            "units": purse[rich],
        }
        if len(rich)
        else None,
    )


def _depth(units: Floats, factor: float) -> Floats:
    """Depth of each contract [units]; empty where nobody holds it."""
    size = significant(-factor * _TURNOVER * units / np.log(0.99))
    return np.where(size > 0, size, np.nan)
