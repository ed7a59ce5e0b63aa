"""The tools of ``nc.buffers``: what each is a buffer of, what nodes hold of it, how its size is set.

A size is money at the prices before any shock, summed over the nodes that hold it, or a rate that holds for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion._arrays import group_sum
from netcontagion.errors import SchemaError
from netcontagion.margining import with_amounts
from netcontagion.network import is_ladder, rulebook
from netcontagion.ranking._study import NotApplicable

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from netcontagion.network import ExposureNetwork

    Floats = NDArray[np.float64]
    Places = NDArray[np.intp]

__all__ = ["EVERYBODY", "TOOLS", "Lever", "Tool", "fund_price", "lever_of", "margin_rows", "places_of"]

EVERYBODY = "all"
UNDER_ONE = 1 - 1e-9  # LT (1 + b) stays below 1 by this factor


class Tool(NamedTuple):
    """A tool by name.

    ``nodes`` are the kind of node it is set for; ``held`` says what each holds, NaN where it does not apply, ``put``
    makes the network in which some hold other sizes. ``most`` is the largest rate; money has none. Where ``less`` is
    more, a lower rate is the larger buffer. ``drains``: it is used up by what it bears.
    """

    nodes: str
    meaning: str
    held: Callable[[ExposureNetwork], Floats]
    put: Callable[[ExposureNetwork, Places, Floats], ExposureNetwork]
    absent: str
    most: Callable[[ExposureNetwork, Places], float] | None = None
    less: bool = False
    drains: bool = False

    @property
    def is_money(self) -> bool:
        """Whether sizes are money, which may be zero and may be budgeted; else they are rates."""
        return self.most is None


@dataclass(frozen=True)
class Lever:
    """A tool at some nodes together, or at one ``alone``; money is split over them by fixed ``shares``."""

    tool: str
    node: Any
    places: tuple[int, ...]
    shares: tuple[float, ...]
    held: float
    alone: bool

    def at(self, net: ExposureNetwork, size: float) -> ExposureNetwork:
        """Return the network in which it has this size."""
        tool, places = TOOLS[self.tool], np.array(self.places, dtype=np.intp)
        sizes = size * np.array(self.shares) if tool.is_money else np.full(len(places), size)
        return tool.put(net, places, sizes)

    def moved(self, net: ExposureNetwork, by: float) -> ExposureNetwork | None:
        """Return the network with more of it, or less; None where that is not possible."""
        tool, places = TOOLS[self.tool], np.array(self.places, dtype=np.intp)
        if tool.most is not None:
            fits = 0 < self.held + by <= tool.most(net, places)
            return self.at(net, self.held + by) if fits else None
        sizes = tool.held(net)[places] + by * np.array(self.shares)
        if (sizes < 0).any() or (not tool.drains and (sizes == 0).any()):
            return None
        try:
            return tool.put(net, places, sizes)
        except SchemaError:  # a record that is said to be complete lends what is deposited
            return None

    def __str__(self) -> str:
        return f"{self.tool} of {self.node!r}" if self.alone else self.tool


def lever_of(net: ExposureNetwork, name: str, places: Places, need: Floats | None, *, alone: bool = False) -> Lever:
    """Move a tool at some nodes: split by need where there is one, else by what is held, else evenly."""
    tool = TOOLS[name]
    held = tool.held(net)[places]
    weight = np.ones(len(places))
    for wanted in (held, None if need is None else need[places]):
        weight = weight if wanted is None or not wanted.sum() > 0 else wanted
    label = net.labels(tool.nodes)[int(places[0])] if alone else EVERYBODY
    level = held.sum() if tool.is_money else (held.max() if tool.less else held.mean())
    shares = weight / weight.sum() if tool.is_money else np.ones(len(places))
    return Lever(name, label, tuple(map(int, places)), tuple(shares.tolist()), float(level), alone)


# money of exchanges ---------------------------------------------------------------------------------------------------


def _layered(net: ExposureNetwork, layer: str) -> NDArray[np.bool_]:
    """Exchanges at which a layer bears losses: it stands in the rulebook, or a clearing counts what there is."""
    if not len(net.labels("accounts")):
        return np.ones(len(net.labels("exchanges")), dtype=bool)
    table = net.columns("exchanges")
    layers = [rulebook(name).layers for name in table["rulebook"]]
    cleared = [bool(set(names) & {"default", "withdrawal_haircut", "recourse"}) for names in layers]
    drawn = np.array([layer in names for names in layers], dtype=bool)
    return np.asarray(drawn | np.array(cleared, dtype=bool) | table["recourse"])


def fund_price(net: ExposureNetwork, factor: Floats | None = None) -> Floats:
    """Price of the asset in which each exchange keeps its insurance fund."""
    price = net.columns("assets")["price"] * (1.0 if factor is None else factor)
    asset = net.columns("exchanges")["insurance_asset"]
    return np.asarray(np.where(asset < 0, 1.0, np.append(price, 1.0)[asset]))


def _fund(net: ExposureNetwork) -> Floats:
    price = fund_price(net)
    units = net.columns("exchanges")["insurance_fund"]
    return np.where(_layered(net, "insurance_fund") & (price > 0), units * price, np.nan)


def _put_fund(net: ExposureNetwork, places: Places, sizes: Floats) -> ExposureNetwork:
    return _put_amounts(net, "exchanges", "insurance_fund", places, sizes / fund_price(net)[places])


def _equity(net: ExposureNetwork) -> Floats:
    return np.where(_layered(net, "equity"), net.columns("exchanges")["equity"], np.nan)


def _put_equity(net: ExposureNetwork, places: Places, sizes: Floats) -> ExposureNetwork:
    return _put_amounts(net, "exchanges", "equity", places, sizes)


def _put_amounts(net: ExposureNetwork, table: str, column: str, places: Places, amounts: Floats) -> ExposureNetwork:
    values = np.array(net.columns(table)[column])
    values[places] = amounts
    return with_amounts(net, table, column, values)


# margin of traders ----------------------------------------------------------------------------------------------------


def margin_rows(net: ExposureNetwork) -> tuple[NDArray[np.intp], NDArray[Any], Floats]:
    """Balances that are margin (deposits of accounts that owe or have contracts): row, trader, value."""
    book, account = net.book, net.columns("accounts")
    at_risk = np.zeros(book.n_accounts, dtype=bool)
    at_risk[book.balance_account[book.borrowed > 0]] = True
    at_risk[book.position_account] = True
    at_risk[book.n_accounts - net.derived("accounts") :] = False
    rows = np.flatnonzero(at_risk[book.balance_account] & (book.deposited > 0))
    value = book.deposited[rows] * book.market_mark[book.balance_market[rows]]
    return rows, account["trader"][book.balance_account[rows]], value


def _margin(net: ExposureNetwork) -> Floats:
    """Margin by trader; in a network without accounts external assets."""
    size = len(net.labels("traders"))
    if not len(net.labels("accounts")):
        found = np.array(net.columns("traders")["external_assets"], dtype=float)
    else:
        _, trader, value = margin_rows(net)
        found = group_sum(trader, value, size)
        found[found <= 0] = np.nan
    found[size - net.derived("traders") :] = np.nan
    return found


def _put_margin(net: ExposureNetwork, places: Places, sizes: Floats) -> ExposureNetwork:
    if not len(net.labels("accounts")):
        return _put_amounts(net, "traders", "external_assets", places, sizes)
    held, factor = _margin(net), np.ones(len(net.labels("traders")))
    factor[places] = sizes / held[places]
    rows, trader, _ = margin_rows(net)
    table = net.balances.reset_index()
    units = table["deposited"].to_numpy(copy=True)
    units[rows] *= factor[trader]
    return net.replace(balances=table.assign(deposited=units))


# rates of markets -----------------------------------------------------------------------------------------------------


def _by_asset(net: ExposureNetwork, values: Floats, rows: NDArray[np.bool_], how: Any) -> Floats:
    found = np.full(len(net.labels("assets")), np.nan)
    asset = net.columns("markets")["asset"]
    for place in np.unique(asset[rows]).tolist():
        found[place] = how(values[rows & (asset == place)])
    return found


def _in_play(net: ExposureNetwork, column: str, fits: Callable[[Any], bool]) -> NDArray[np.bool_]:
    """Markets with a value in a column, on exchanges whose rulebook reads it."""
    market = net.columns("markets")
    reads = np.array([fits(rulebook(name)) for name in net.columns("exchanges")["rulebook"]], dtype=bool)
    return np.asarray((market[column] > 0) & np.append(reads, False)[market["exchange"]])


def _secures(net: ExposureNetwork) -> NDArray[np.bool_]:
    return _in_play(net, "liquidation_threshold", lambda book: book.health == "weighted_collateral")


def _spreads(net: ExposureNetwork) -> NDArray[np.bool_]:
    given = _in_play(net, "liquidation_bonus", lambda book: book.fixed_spread)
    return given & (net.columns("markets")["liquidation_threshold"] > 0)


def _lends(net: ExposureNetwork) -> NDArray[np.bool_]:
    return _in_play(net, "close_factor", lambda book: book.amount == "close_factor" and book.close_factor is None)


def _chosen(net: ExposureNetwork, rows: NDArray[np.bool_], places: Places) -> NDArray[np.intp]:
    return np.flatnonzero(rows & np.isin(net.columns("markets")["asset"], places))


def _put_rate(net: ExposureNetwork, rows: Any, rate: float, column: str) -> ExposureNetwork:
    table = net.markets.reset_index()
    values = table[column].to_numpy(copy=True)
    values[rows] = rate
    return net.replace(markets=table.assign(**{column: values}))


def _put_threshold(net: ExposureNetwork, places: Places, sizes: Floats) -> ExposureNetwork:
    """Let no threshold be above a rate, nor a loan to value; nor those of accounts where all assets move."""
    rate, rows = float(sizes[0]), _chosen(net, _secures(net), places)
    table, accounts = net.markets.reset_index(), net.accounts.reset_index()
    for column in ("liquidation_threshold", "loan_to_value"):
        values = table[column].to_numpy(copy=True)
        values[rows] = np.minimum(values[rows], rate)  # NaN stays: no limit of its own
        table[column] = values
    if len(places) == int((~np.isnan(TOOLS["liquidation_threshold"].held(net))).sum()):
        accounts["liquidation_threshold"] = accounts["liquidation_threshold"].clip(upper=rate)
    return net.replace(markets=table, accounts=accounts)


def _put_bonus(net: ExposureNetwork, places: Places, sizes: Floats) -> ExposureNetwork:
    rows = _chosen(net, _spreads(net), places)
    return _put_rate(net, rows, float(sizes[0]), "liquidation_bonus")


def _put_close_factor(net: ExposureNetwork, places: Places, sizes: Floats) -> ExposureNetwork:
    return _put_rate(net, _chosen(net, _lends(net), places), float(sizes[0]), "close_factor")


def _largest_bonus(net: ExposureNetwork, places: Places) -> float:
    """Largest bonus that keeps LT (1 + b) below 1 in every market it is set for."""
    threshold = net.columns("markets")["liquidation_threshold"][_chosen(net, _spreads(net), places)]
    own = net.columns("accounts")["liquidation_threshold"]
    return float(UNDER_ONE / np.nanmax(np.append(threshold, own)) - 1)


# depth ----------------------------------------------------------------------------------------------------------------


def _worth(net: ExposureNetwork) -> Floats:
    table = net.columns("assets")
    return np.where(table["kind"] == "inverse", table["multiplier"], table["price"])


def _depth(net: ExposureNetwork) -> Floats:
    """Money of depth by asset, on its shared book and the exchanges' own; NaN where no book has a finite one."""
    asset, market = net.columns("assets"), net.columns("markets")
    ladder = np.array([is_ladder(form) for form in asset["impact"]], dtype=bool)
    shared = np.where(np.isfinite(asset["depth"]), asset["depth"], 0.0)
    own = group_sum(market["asset"], np.where(np.isfinite(market["depth"]), market["depth"], 0.0), len(shared))
    return np.where((shared + own > 0) & ~ladder, (shared + own) * _worth(net), np.nan)


def _put_depth(net: ExposureNetwork, places: Places, sizes: Floats) -> ExposureNetwork:
    factor = np.ones(len(net.labels("assets")))
    factor[places] = sizes / _depth(net)[places]
    assets, markets = net.assets.reset_index(), net.markets.reset_index()
    deep = net.columns("markets")["depth"] * factor[net.columns("markets")["asset"]]
    return net.replace(assets=assets.assign(depth=assets["depth"] * factor), markets=markets.assign(depth=deep))


TOOLS = {
    "trader_margin": Tool(
        "traders",
        "deposits of accounts that owe or hold contracts, in proportion; without accounts external assets",
        _margin,
        _put_margin,
        "no trader has an account that owes or holds contracts, with a deposit",
        drains=True,
    ),
    "exchange_equity": Tool(
        "exchanges",
        "own liquid resources of exchanges",
        _equity,
        _put_equity,
        "no exchange has a rulebook whose losses reach its equity",
        drains=True,
    ),
    "insurance_fund": Tool(
        "exchanges",
        "insurance funds, at prices before the shock",
        _fund,
        _put_fund,
        "no exchange has a rulebook whose losses reach an insurance fund",
        drains=True,
    ),
    "liquidation_threshold": Tool(
        "assets",
        "no liquidation threshold above this; the lower, the earlier accounts are liquidated",
        lambda net: _by_asset(net, net.columns("markets")["liquidation_threshold"], _secures(net), np.max),
        _put_threshold,
        "no lending market takes collateral",
        most=lambda _net, _places: 1.0,
        less=True,
    ),
    "liquidation_bonus": Tool(
        "assets",
        "bonus of every market that gives one, LT (1 + b) < 1",
        lambda net: _by_asset(net, net.columns("markets")["liquidation_bonus"], _spreads(net), np.mean),
        _put_bonus,
        "no exchange pays liquidators a bonus set by market",
        most=_largest_bonus,
    ),
    "close_factor": Tool(
        "assets",
        "largest share of a debt closed by one liquidation, of every market that gives one",
        lambda net: _by_asset(net, net.columns("markets")["close_factor"], _lends(net), np.mean),
        _put_close_factor,
        "no exchange leaves the close factor to its markets",
        most=lambda _net, _places: 1.0,
    ),
    "depth": Tool(
        "assets",
        "money on the books, in proportion; not of ladders",
        _depth,
        _put_depth,
        "no book has a finite depth",
    ),
}
"""By name."""


def places_of(net: ExposureNetwork, name: str) -> Places:
    """Nodes a tool applies to; NotApplicable where there is none."""
    tool = TOOLS[name]
    held = tool.held(net)
    places = np.flatnonzero(~np.isnan(held))
    if not len(places):
        raise NotApplicable(tool.absent if len(held) else f"the network has no {tool.nodes}")
    return places
