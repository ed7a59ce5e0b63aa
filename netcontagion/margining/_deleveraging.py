"""Auto-deleveraging: contracts that no book takes at the bankruptcy price are closed against winners.

The layers that come before may pay first, as far as they reach, for closing on the book beyond that price. What is
left passes to winners of the other side, equal sizes on both sides and at no book; what no winner takes is sold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.margining._adl import ROUNDING, SCORES, adl_score, allocate
from netcontagion.margining._layers_money import means
from netcontagion.margining._layers_winners import pass_to_market, rows_at
from netcontagion.margining._margin_sales import close_at, spend
from netcontagion.margining._state import DEFICIT, EXECUTION, MUTUALISATION
from netcontagion.margining._valuation import gains, notional, worth

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.margining._desk import Desk
    from netcontagion.network import Layer

    Floats = NDArray[np.float64]

__all__ = ["deleverage"]

SMALLEST = 1e-12  # collateral of a winner, relative to its notional, that a score divides by at least


def deleverage(desk: Desk, orders: Floats, marks: Floats) -> list[Floats]:
    """Close the orders (account, position, units, value per unit at bankruptcy); return the logs of what was traded."""
    logs, venue = [], desk.state.accounts.exchange[orders[:, 0].astype(np.int64)]
    for exchange in np.unique(venue).tolist():
        left = orders[venue == exchange]
        log, left = _pay_first(desk, exchange, left, marks)
        left = _pass_to_winners(desk, exchange, left, marks)
        rest, _, _ = spend(left, np.inf, desk.state.board, marks)
        logs += [log, rest]
    return logs


def _rule(desk: Desk, exchange: int) -> tuple[list[str], Layer]:
    """Layers before the deleveraging, and its rule."""
    layers = desk.state.deficits[exchange].layers
    names = [layer.name for layer in layers]
    place = names.index("auto_deleveraging")
    return names[:place], layers[place]


def _pay_first(desk: Desk, exchange: int, orders: Floats, marks: Floats) -> tuple[Floats, Floats]:
    """Close on the book what the layers before can pay for; return the log, and the orders that are left."""
    before, rule = _rule(desk, exchange)
    key, drawn = (rule.name, exchange), desk.state.reserves.drawn
    here = desk.state.markets.exchange == exchange
    taken = float((desk.state.ledger.hole * marks)[here].sum())
    money = sum(means(desk.state, exchange, name, marks) for name in before) - taken - drawn.get(key, 0.0)
    if not money > 0.0:
        return np.zeros((0, 5)), orders
    log, left, used = spend(orders, money, desk.state.board, marks)
    drawn[key] = drawn.get(key, 0.0) + used
    orders = np.column_stack([orders[:, :2], left, orders[:, 3]])
    return log, orders[left != 0.0]


def _pass_to_winners(desk: Desk, exchange: int, orders: Floats, marks: Floats) -> Floats:
    """Close orders against winners, contract by contract; return what is left of them."""
    if not len(orders):
        return orders
    rows_at(desk, exchange)  # everybody with contracts gets a seat
    market = desk.state.positions.market[orders[:, 1].astype(np.int64)]
    left = orders[:, 2].copy()
    for one in np.unique(market).tolist():
        for side in (1.0, -1.0):
            mine = np.flatnonzero((market == one) & (side * orders[:, 2] > 0.0))
            if len(mine):
                winners = _winners(desk, int(one), side, orders[:, 1], marks)
                left[mine] -= _close_side(desk, exchange, winners, side, orders[mine], marks)
    more = np.abs(left) > ROUNDING * np.abs(orders[:, 2])
    return np.asarray(np.column_stack([orders[:, :2], left, orders[:, 3]])[more])


def _winners(desk: Desk, market: int, side: float, waiting: Floats, marks: Floats) -> NDArray[np.intp]:
    """Positions with a gain on the other side of a contract; those that wait to be closed themselves are none."""
    held = desk.state.positions[: desk.state.overlay.used["positions"]]
    rows = np.flatnonzero((held.market == market) & (held.quantity * side < 0.0))
    rows = rows[~np.isin(rows, waiting)]
    return np.asarray(rows[gains(desk.state.markets, held[rows], marks) > 0.0])


def _close_side(
    desk: Desk, exchange: int, rows: NDArray[np.intp], side: float, orders: Floats, marks: Floats
) -> Floats:
    """Close orders of one side of a contract against winners; return the units of each that were closed."""
    _, rule = _rule(desk, exchange)
    state = desk.state
    market = int(state.positions.market[int(orders[0, 1])])
    unit = float(worth(state.markets, marks)[market])
    wanted = rule.severity * orders[:, 2]
    total = abs(float(wanted.sum()))
    price = np.where(rule.price == "mark", unit, orders[:, 3])
    mean = float((wanted * price).sum() / wanted.sum()) if total > 0.0 else unit
    held = state.positions[: state.overlay.used["positions"]]
    gain = gains(state.markets, held[rows], marks)
    able, each = np.abs(held.quantity[rows]), side * (mean - unit)  # each: what a winner loses per contract
    if each > 0.0:
        able = np.minimum(able, gain / each)
    if not len(rows) or total <= 0.0:
        return np.zeros(len(orders))
    taken = _shared_out(desk, rule, rows, total, able, marks)
    closed = wanted * min(float(taken.sum()) / total, 1.0)
    ours = np.column_stack([orders[:, :2], closed, price])
    theirs = np.column_stack([held.account[rows], rows, -side * taken, np.full(len(rows), mean)])[taken > 0.0]
    borne = side * (price - unit) * np.abs(closed)
    bad = np.where(borne >= 0.0, DEFICIT, EXECUTION)
    channel = np.concatenate([bad, np.full(len(theirs), MUTUALISATION if each > 0.0 else EXECUTION)])
    close_at(np.concatenate([ours, theirs]), channel.astype(np.int64), state.board, marks)
    excess = float(theirs[:, 2].sum() + closed.sum())
    if abs(excess) > ROUNDING * total:
        pass_to_market(state, market, excess, mean, marks)
    desk.touch(np.unique(np.concatenate([ours[:, 0], theirs[:, 0]])).astype(np.int64))
    _record(desk, exchange, ours, theirs, borne)
    return closed


def _shared_out(desk: Desk, rule: Layer, rows: NDArray[np.intp], total: float, able: Floats, marks: Floats) -> Floats:
    """Contracts that each winner closes, by the allocation of the rulebook."""
    options: dict[str, Any] = {}
    if rule.allocation in ("queue", "whole_queue"):
        options["score"] = _scores(desk, rule.score, rows, marks)
    if rule.allocation == "random":
        options["seed"] = desk.play.rng
    return np.asarray(allocate(total, able, rule=rule.allocation, **options))


def _scores(desk: Desk, name: str, rows: NDArray[np.intp], marks: Floats) -> Floats:
    """Scores of positions by the rule of the exchange; contracts count by their value at the mark."""
    state, held = desk.state, desk.state.positions[rows]
    seats = held.account.astype(np.int64)
    mark = np.maximum(marks[held.market], 1e-300)
    size = notional(state.markets, held, marks)
    equity = desk.equity(seats, marks)  # values the accounts too
    facts = {
        "quantity": np.sign(held.quantity) * size / mark,
        "entry_price": np.maximum(held.entry, 1e-300),
        "mark_price": mark,
        "equity": equity,
        "maintenance_margin": state.accounts.required[seats],
        "collateral": np.maximum(equity - state.accounts.gains[seats], SMALLEST * np.maximum(size, 1e-300)),
        "opened": state.overlay.code[seats].astype(float),
    }
    return np.nan_to_num(adl_score(name, **{key: facts[key] for key in SCORES[name][1]}), posinf=np.inf, neginf=-np.inf)


def _record(desk: Desk, exchange: int, ours: Floats, theirs: Floats, borne: Floats) -> None:
    """Note who was closed, the deficits that winners took over, and what more they paid."""
    play, seats = desk.play, ours[:, 0].astype(np.int64)
    lost = np.maximum(borne, 0.0)
    np.add.at(play.notes["deficit"], seats, lost)
    market = int(desk.state.positions.market[int(ours[0, 1])])
    play.events.add_deleveraging(exchange, int(desk.state.markets.asset[market]), ours, theirs, lost)
