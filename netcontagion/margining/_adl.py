"""Auto-deleveraging: which winners pay for a deficit, and how much each."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from netcontagion.margining._given import AMOUNT, ANY, POSITIVE, Given, choice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

__all__ = [
    "ALLOCATIONS",
    "SCORES",
    "Deleveraged",
    "FundUse",
    "adl_score",
    "allocate",
    "auto_deleverage",
    "insurance_drawdown",
]

ROUNDING = 1e-12  # relative: what is left of a deficit below it counts as covered


def allocate(
    deficit: float,
    capacity: ArrayLike,
    *,
    rule: str = "queue",
    score: ArrayLike | None = None,
    seed: int | np.random.Generator | None = None,
) -> Floats:
    r"""Divide a deficit among those who can bear it.

    =============  ==================================================================================================
    rule           who bears it
    =============  ==================================================================================================
    queue          the highest score first, each up to its capacity, until the deficit is covered
    whole_queue    the same, but whoever is reached gives its whole capacity: may take more than the deficit
    pro_rata       each the same share of its capacity
    water_filling  those with most: everybody keeps at most one level, the highest that covers the deficit
    random         each up to its capacity in the order given, beginning anywhere with the same chance
    =============  ==================================================================================================

    Parameters
    ----------
    deficit : float
        What is to be borne, at least 0: money, or contracts to be closed.
    capacity : array_like (n,)
        What each can bear, at least 0, in the same unit.
    rule : str
        See above.
    score : array_like (n,), optional
        For the queues: the highest pays first (:func:`adl_score`). Equal scores, and no scores at all, keep the order
        that is given.
    seed : int, numpy Generator or None
        For "random".

    Returns
    -------
    ndarray (n,)
        What each bears, between 0 and its capacity. The sum is the smaller of deficit and capacity of all (of
        whole_queue: at least that).

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the numbers.
    UnknownLabelError
        A rule that does not exist.
    ValueError
        A score or a seed that the rule does not use.

    Notes
    -----
    O(n log n), all of it array operations.

    References
    ----------
    Chitra, T. (2025). Autodeleveraging: Impossibilities and Optimization. arXiv:2512.01112. The random start is that of
    the dYdX chain.

    Examples
    --------
    >>> from netcontagion.margining import allocate
    >>> allocate(30, [40, 25, 20, 10, 5], rule="pro_rata").tolist()
    [12.0, 7.5, 6.0, 3.0, 1.5]
    """
    choice(rule, ALLOCATIONS, "allocation rule")
    for name, value, users in (("score", score, ("queue", "whole_queue")), ("seed", seed, ("random",))):
        if value is not None and rule not in users:
            raise ValueError(f"{name}= is not used by rule={rule!r}; it belongs to {' and '.join(map(repr, users))}")
    given = Given("allocate")
    missing = given.numbers("deficit", deficit, AMOUNT, dimensions=0)
    bound = given.numbers("capacity", capacity, AMOUNT, dimensions=1)
    ranks = given.numbers("score", np.zeros(bound.shape) if score is None else score, "[-inf, inf]", dimensions=1)
    given.done()
    if not len(bound) or not missing > 0:
        return np.zeros(len(bound))
    if rule == "random":
        rng = np.random.default_rng(seed)
        order = np.roll(np.arange(len(bound)), -int(rng.integers(len(bound))))
    else:
        order = np.argsort(-ranks, kind="stable")
    if float(missing) >= bound.sum():
        return np.array(bound)
    return ALLOCATIONS[rule](float(missing), bound, order)


def _queue(deficit: float, capacity: Floats, order: NDArray[np.int64]) -> Floats:
    taken = np.empty(len(capacity))
    queued = capacity[order]
    taken[order] = np.clip(deficit - (np.cumsum(queued) - queued), 0.0, queued)
    return taken


def _whole_queue(deficit: float, capacity: Floats, order: NDArray[np.int64]) -> Floats:
    queued = capacity[order]
    taken = np.empty(len(capacity))
    taken[order] = np.where(np.cumsum(queued) - queued < deficit * (1 - ROUNDING), queued, 0.0)
    return taken


def _pro_rata(deficit: float, capacity: Floats, _: NDArray[np.int64]) -> Floats:
    taken: Floats = np.minimum(capacity * (deficit / capacity.sum()), capacity)
    return taken


def _water_filling(deficit: float, capacity: Floats, _: NDArray[np.int64]) -> Floats:
    """Take from the k largest what they have above a level, k the fewest for which the level is not below the next."""
    below = np.sort(capacity)[::-1] - capacity.max()  # of the largest: no digits are lost where all are alike
    counts = np.arange(1, len(capacity) + 1)
    enough = np.cumsum(below) - counts * np.append(below[1:], -np.inf) >= deficit
    k = int(np.argmax(enough)) + 1
    level = (below[:k].sum() - deficit) / k
    taken: Floats = np.clip(capacity - capacity.max() - level, 0.0, capacity)
    return taken


ALLOCATIONS: Mapping[str, Callable[[float, Floats, NDArray[np.int64]], Floats]] = MappingProxyType(
    {
        "queue": _queue,
        "whole_queue": _whole_queue,
        "pro_rata": _pro_rata,
        "water_filling": _water_filling,
        "random": _queue,
    }
)


# scores -------------------------------------------------------------------------------------------------------------


def _relative_profit(w: Mapping[str, Floats]) -> Floats:
    return np.sign(w["quantity"]) * (w["mark_price"] / w["entry_price"] - 1.0)


def _leverage(w: Mapping[str, Floats]) -> Floats:
    """Notional over equity, infinite where no equity is left."""
    notional = np.abs(w["quantity"]) * w["mark_price"]
    own = np.maximum(w["equity"], 0.0)
    return np.divide(notional, own, out=np.where(notional > 0, np.inf, 0.0), where=own > 0)


def _pnl_leverage(w: Mapping[str, Floats]) -> Floats:
    profit, leverage = _relative_profit(w), _leverage(w)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(profit > 0, profit * leverage, np.where(profit < 0, profit / leverage, 0.0))


def _binance(w: Mapping[str, Floats]) -> Floats:
    pnl = w["quantity"] * (w["mark_price"] - w["entry_price"])
    used = np.divide(
        w["maintenance_margin"],
        w["equity"],
        out=np.full(pnl.shape, np.inf),
        where=np.broadcast_to(w["equity"] > 0, pnl.shape),
    )
    with np.errstate(invalid="ignore"):
        return np.where(pnl == 0, 0.0, pnl / w["collateral"] * used)


def _hyperliquid(w: Mapping[str, Floats]) -> Floats:
    return w["mark_price"] / w["entry_price"] * _leverage(w)


def _bluefin(w: Mapping[str, Floats]) -> Floats:
    notional = np.abs(w["quantity"]) * w["mark_price"]
    rate = np.maximum(w["equity"], w["maintenance_margin"])
    rate = np.divide(rate, notional, out=np.full(rate.shape, np.inf), where=notional > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        profit = np.maximum(_relative_profit(w), 0.0)
        return np.where(profit > 0, profit / rate, 0.0)


def _ethereal(w: Mapping[str, Floats]) -> Floats:
    """Place in the order by leverage, then profit, then the smaller balance, then the newer position."""
    pnl = w["quantity"] * (w["mark_price"] - w["entry_price"])
    keys = [np.broadcast_to(key, pnl.shape) for key in (w["opened"], -w["collateral"], pnl, _leverage(w))]
    order = np.lexsort(keys)
    new = np.zeros(len(order), dtype=bool)
    for key in keys:
        new[1:] |= key[order][1:] != key[order][:-1]
    place = np.empty(len(order))
    place[order] = np.cumsum(new)
    return place


def _none(w: Mapping[str, Floats]) -> Floats:
    return np.zeros(len(w["quantity"]))


_POSITION = ("quantity", "entry_price", "mark_price", "equity")
_ALLOWED = {"entry_price": POSITIVE, "mark_price": POSITIVE, "maintenance_margin": AMOUNT, "collateral": POSITIVE}
SCORES: Mapping[str, tuple[Callable[[Mapping[str, Floats]], Floats], tuple[str, ...]]] = MappingProxyType(
    {
        "pnl_leverage": (_pnl_leverage, _POSITION),
        "binance": (_binance, (*_POSITION, "maintenance_margin", "collateral")),
        "hyperliquid": (_hyperliquid, _POSITION),
        "bluefin": (_bluefin, (*_POSITION, "maintenance_margin")),
        "ethereal": (_ethereal, (*_POSITION, "collateral", "opened")),
        "none": (_none, ("quantity",)),
    }
)


def adl_score(rule: str, **positions: ArrayLike) -> Floats:
    r"""Rank winning positions for auto-deleveraging by the rule of an exchange: the highest is closed first.

    ============  ==================================================================================================
    rule          score
    ============  ==================================================================================================
    pnl_leverage  PnL% x leverage where PnL% > 0, PnL% / leverage otherwise (BitMEX). PnL% = (mark value - entry
                  value) / \|entry value\|, leverage = \|mark value\| / equity
    binance       PnL / collateral x maintenance margin / equity
    hyperliquid   mark / entry x notional / equity; as published, for shorts too (a larger fall lowers the first factor)
    bluefin       max(0, PnL%) / max(maintenance margin, equity) x notional
    ethereal      place by leverage, then PnL, then the smaller collateral, then the newer position
    none          0
    ============  ==================================================================================================

    Parameters
    ----------
    rule : str
        See above.
    quantity, entry_price, mark_price : array_like (n,)
        Position (short: negative), price at which it was opened, mark [units, num/unit].
    equity : array_like (n,)
        Equity of the account at the mark [num]. Where none is left, leverage is infinite.
    maintenance_margin : array_like (n,)
        Maintenance margin of the account [num]: binance, bluefin.
    collateral : array_like (n,)
        Balance without unrealised profit, above 0 [num]: binance, ethereal.
    opened : array_like (n,)
        When the position was opened, larger is later: ethereal.

    Returns
    -------
    ndarray (n,)
        Score for :func:`allocate`.

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the numbers, and each column that is missing or not used.
    UnknownLabelError
        A rule that does not exist.

    References
    ----------
    Documentation of the exchanges, as read in 2025 and 2026.

    Examples
    --------
    >>> from netcontagion.margining import adl_score
    >>> adl_score("pnl_leverage", quantity=[1, -2], entry_price=[80, 125], mark_price=100, equity=50).round(6).tolist()
    [0.5, 0.8]
    """
    function, columns = SCORES[choice(rule, SCORES, "score")]
    given = Given("adl_score")
    for name in sorted({*columns} - {*positions}):
        given.refuse(name, None, "missing", "an array (n,)", f"rule {rule!r} needs {', '.join(columns)}")
    for name in sorted({*positions} - {*columns}):
        given.refuse(name, None, "given", ", ".join(columns), f"leave out what rule {rule!r} does not use")
    read = {
        name: given.numbers(name, positions[name], _ALLOWED.get(name, ANY)) for name in columns if name in positions
    }
    shape = given.done()
    size = shape or (1,)
    return function({name: np.broadcast_to(array, size) for name, array in read.items()})


# closing of positions -----------------------------------------------------------------------------------------------


class Deleveraged(NamedTuple):
    """Positions closed against winners.

    Attributes
    ----------
    closed : ndarray (n,)
        Contracts each winner closes, with the sign of what it trades: the sum is what the loser gives up.
    haircut : ndarray (n,)
        What each loses against the mark [num].
    left : float
        Contracts of the loser for which no winner is left, signed.
    """

    closed: Floats
    haircut: Floats
    left: float


def auto_deleverage(
    quantity: float,
    price: float,
    *,
    positions: ArrayLike,
    entry_price: ArrayLike,
    mark_price: float,
    rule: str = "queue",
    score: ArrayLike | None = None,
    seed: int | np.random.Generator | None = None,
) -> Deleveraged:
    r"""Close the position of a bankrupt account against winners of the other side, at one transfer price.

    At the bankruptcy price the haircuts add up to the deficit: with q contracts, mark P and bankruptcy price
    P_b = E - M / q, ``sum(haircut) = q (P_b - P) = -(M + q (P - E))``. At the mark nobody loses and the deficit
    remains. No order reaches a book.

    A winner is an account on the other side whose unrealised profit is above 0. It closes no more than it holds, and
    no more than its profit pays for.

    Parameters
    ----------
    quantity : float
        Contracts of the bankrupt account (short: negative).
    price : float
        Transfer price, at least 0: bankruptcy price or mark.
    positions, entry_price : array_like (n,)
        Contracts (signed) and entry prices of the other accounts. Those that are no winners close nothing.
    mark_price : float
        Mark, above 0.
    rule, score, seed
        See :func:`allocate`; capacities are contracts.

    Returns
    -------
    Deleveraged
        Contracts closed, haircuts, and what is left.

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the numbers.

    Examples
    --------
    >>> from netcontagion.margining import auto_deleverage
    >>> found = auto_deleverage(10, 95.0, positions=[-6, -8], entry_price=[100, 99], mark_price=93.0)
    >>> found.closed.tolist(), found.haircut.tolist(), found.left
    ([6.0, 4.0], [12.0, 8.0], 0.0)
    """
    given = Given("auto_deleverage")
    loser = given.numbers("quantity", quantity, dimensions=0)
    transfer = given.numbers("price", price, AMOUNT, dimensions=0)
    mark = given.numbers("mark_price", mark_price, POSITIVE, dimensions=0)
    held = given.numbers("positions", positions, dimensions=1)
    entry = given.numbers("entry_price", entry_price, AMOUNT)
    given.done()
    entry, side = np.broadcast_to(entry, held.shape), float(np.sign(loser))
    profit = held * (mark - entry)
    cost = side * float(transfer - mark)  # of a winner, per contract
    able = np.where((held * side < 0) & (profit > 0), np.abs(held), 0.0)
    if cost > 0:
        able = np.minimum(able, profit.clip(min=0.0) / cost)
    wanted = abs(float(loser))
    taken = allocate(wanted, able, rule=rule, score=score, seed=seed)
    left = 0.0 if taken.sum() >= wanted * (1 - ROUNDING) else wanted - taken.sum()
    return Deleveraged(side * taken, cost * taken, side * left)


class FundUse(NamedTuple):
    """What an insurance fund pays of a loss.

    Attributes
    ----------
    ratio : float
        Profit and loss of the fund since its peak, over its peak balance.
    triggered : bool
        Whether the loss passes the limit, and auto-deleveraging begins.
    paid : float
        Paid by the fund [num].
    passed_on : float
        Left for the next layer [num].
    """

    ratio: float
    triggered: bool
    paid: float
    passed_on: float


def insurance_drawdown(
    loss: float, *, peak: float, balance: float | None = None, limit: float = 1.0, earlier: float = 0.0
) -> FundUse:
    """Split a loss between an insurance fund that may fall by a share of its peak, and those who come after it.

    The fund pays ``min(loss, balance, limit x peak - earlier)``, and the rest is passed on.

    Parameters
    ----------
    loss : float
        Loss to cover [num], at least 0.
    peak : float
        Highest balance of the fund in the window [num], above 0.
    balance : float, optional
        Balance of the fund now; the peak less what was lost earlier, if left out.
    limit : float
        Largest fall since the peak, as a share of the peak, in [0, 1].
    earlier : float
        What the fund lost since its peak, before this loss [num].

    Returns
    -------
    FundUse
        Ratio, trigger, and what the fund and the others pay.

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the numbers.

    References
    ----------
    Bybit, Auto-deleveraging (documentation of the API, 2025).

    Examples
    --------
    >>> from netcontagion.margining import insurance_drawdown
    >>> insurance_drawdown(350_000, peak=1_000_000, limit=0.3)
    FundUse(ratio=-0.35, triggered=True, paid=300000.0, passed_on=50000.0)
    """
    given = Given("insurance_drawdown")
    lost = given.numbers("loss", loss, AMOUNT, dimensions=0)
    highest = given.numbers("peak", peak, POSITIVE, dimensions=0)
    share = given.numbers("limit", limit, "[0, 1]", dimensions=0)
    before = given.numbers("earlier", earlier, AMOUNT, dimensions=0)
    rest = given.numbers("balance", max(float(highest - before), 0.0) if balance is None else balance, AMOUNT)
    given.done()
    paid = float(min(lost, rest, max(share * highest - before, 0.0)))
    return FundUse(float(-(lost + before) / highest), bool(paid < lost), paid, float(lost - paid))
