"""Deleveraging in rounds: banks above a limit of leverage sell until they are below it, and prices give way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion._iterate import iterate
from netcontagion._status import Status
from netcontagion.clearing._impact import check_form, execution_left, price_left
from netcontagion.clearing._sale_input import AMOUNT, DEPTH, SHARE, Bounds, Reader, labelled
from netcontagion.clearing._shares import SOLVENCY_TOLERANCE
from netcontagion.errors import NotSettledError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from netcontagion.clearing._system import Floats

__all__ = ["Deleveraging", "cont_schaanning"]

LEVERAGE = Bounds("finite, at least 1", 1.0, np.inf)
ANY = Bounds("finite", -np.inf, np.inf)
TARGET = 0.95


@dataclass(frozen=True, eq=False)
class Deleveraging:
    """How a deleveraging in rounds ended.

    Attributes
    ----------
    price : ndarray or Series (m,)
        What is left of each price, shock included, as a share of the price before it.
    kept_part : ndarray or Series (n,)
        Part of its marketable assets that each bank did not sell.
    equity : ndarray or Series (n,)
        Equity in the end, in money; not above 0 for a bank that failed.
    proceeds : ndarray or Series (n,)
        What the sales of each bank brought, in money.
    direct_loss, fire_sale_loss : ndarray or Series (n,)
        Loss of each bank by the shock, and by the fall in prices and the price of execution after it, in money.
    bought : ndarray or Series (m,)
        What outsiders paid for each asset, in money.
    first_round : ndarray or Series of int (n,)
        Round in which a bank first sold, from 0; -1 never.
    rounds : int
        Rounds with sales.
    residual : float
        Part of its assets that a bank would still sell in one more round, at most.
    status : Status
        SETTLED: nobody is above the limit; EXHAUSTED: who is has nothing left to sell.
    enclosure : str
        "none": the path is computed, not the solution of an equation.
    """

    price: Any
    kept_part: Any
    equity: Any
    proceeds: Any
    direct_loss: Any
    fire_sale_loss: Any
    bought: Any
    first_round: Any
    rounds: int
    residual: float
    status: Status
    enclosure: str = "none"


def cont_schaanning(
    holdings: Any,
    equity: ArrayLike,
    other_assets: ArrayLike,
    shock: ArrayLike,
    *,
    depth: ArrayLike,
    leverage_limit: ArrayLike,
    leverage_target: ArrayLike | None = None,
    impact: str = "linear",
    execution: str = "average",
    max_rounds: int = 10_000,
    strict: bool = True,
) -> Deleveraging:
    r"""Let banks above a limit of leverage sell marketable assets, round by round (Cont and Schaanning).

    A bank whose assets exceed ``limit * equity`` sells the part ``min(1, (assets - target * equity) / marketable)`` of
    all marketable assets; one without equity sells everything. What all sell of asset k in a round, ``q_k`` in money at
    the prices of that round, makes its price fall to ``f(q_k / D_k)`` of itself, and brings the average on the way.

    Parameters
    ----------
    holdings : array_like or sparse (n, m)
        Marketable assets of each bank, in money before the shock; not negative.
    equity : array_like (n,)
        Equity of each bank before the shock, in money; may be negative.
    other_assets : array_like (n,)
        Assets that are not sold, in money.
    shock : array_like (m,)
        First fall of each price, as a share between 0 and 1.
    depth : float or array_like (m,)
        Depth D of each market, in money; ``inf`` for no impact. ``D = c ADV sqrt(tau) / sigma`` for a volume a day ADV,
        a volatility sigma, a horizon of tau days and a constant c.
    leverage_limit : float or array_like (n,)
        Assets over equity above which a bank sells; at least 1.
    leverage_target : float or array_like (n,), optional
        Leverage to which it sells; 0.95 times the limit (not below 1) where omitted. Not above the limit.
    impact : {"linear", "exponential", "square_root"}
        Form f of what is left of a price: ``max(0, 1 - z)``, ``exp(-z)`` or ``max(0, 1 - sqrt(z))``.
    execution : {"average", "terminal"}
        Whether sales bring the average price on the way down, or the price at the end of the round.
    max_rounds : int
        Most rounds.
    strict : bool
        Raise when the limit of rounds ends it, instead of returning what was reached.

    Returns
    -------
    Deleveraging
        Prices, equity, losses, who sold when, and the status.

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the numbers.
    ValueError
        An option that is not one of those allowed.
    NotSettledError
        With ``strict``, when the rounds did not suffice; its ``result`` holds what was reached.

    Notes
    -----
    Depth is per round here, on the value at the prices of the round, as in the source; with exponential impact two
    rounds then do not add up to one sale of both quantities in units.

    References
    ----------
    Cont, R., Schaanning, E. (2017). Fire sales, indirect contagion and systemic stress testing. Norges Bank Working
    Paper 2/2017. https://doi.org/10.2139/ssrn.2541114

    Examples
    --------
    >>> from netcontagion.clearing import cont_schaanning
    >>> end = cont_schaanning([[50], [50]], [5, 20], [50, 50], [0.02], depth=1000, leverage_limit=22)
    >>> end.price.round(5).tolist(), end.first_round.tolist()
    ([0.94604], [0, -1])
    """
    check_form(impact, execution)
    if max_rounds < 1:
        raise ValueError(f"max_rounds={max_rounds!r} must be at least 1")
    banks = _read(holdings, equity, other_assets, shock, depth, leverage_limit, leverage_target)
    form = (impact, execution)
    ending = iterate(lambda state: _round(banks, state, form), _shocked(banks), max_rounds=max_rounds)
    result = _result(banks, ending.state, ending.status, ending.residual)
    if strict and not result.status.settled:
        raise NotSettledError(f"cont_schaanning did not settle: {result.status} ({result.status.value})", result)
    return result


class _Banks(NamedTuple):
    held: Any
    equity: Floats
    other: Floats
    shock: Floats
    depth: Floats
    limit: Floats
    target: Floats
    nodes: Any
    assets: Any


class _State(NamedTuple):
    price: Floats
    kept: Floats
    equity: Floats
    cash: Floats
    bought: Floats
    first: NDArray[np.int64]
    rounds: int


def _read(held: Any, equity: Any, other: Any, shock: Any, depth: Any, limit: Any, target: Any) -> _Banks:
    reader = Reader()
    matrix = reader.holdings("holdings", held)
    own = reader.per_node("equity", equity, ANY, scalar=False)
    rest = reader.per_node("other_assets", other, AMOUNT, scalar=False)
    falls = reader.per_asset("shock", shock, SHARE, scalar=False)
    depths = reader.per_asset("depth", depth, DEPTH)
    most = reader.per_node("leverage_limit", limit, LEVERAGE)
    if target is None and most is not None:
        goal = np.maximum(TARGET * most, 1.0)
    else:
        goal = None if target is None else reader.per_node("leverage_target", target, LEVERAGE)
    if goal is not None and most is not None:
        for row in np.flatnonzero(goal > most):
            reader.refuse("leverage_target", int(row), float(goal[row]), f"at most the limit {most[row]:g}", "lower it")
    reader.done()
    return _Banks(matrix, own, rest, falls, depths, most, goal, reader.nodes, reader.assets)


def _shocked(banks: _Banks) -> _State:
    nodes = len(banks.equity)
    equity = banks.equity - banks.held @ banks.shock
    first = np.full(nodes, -1, dtype=np.int64)
    return _State(1 - banks.shock, np.ones(nodes), equity, np.zeros(nodes), np.zeros(len(banks.shock)), first, 0)


def _parts(banks: _Banks, state: _State) -> tuple[Floats, bool]:
    """Which part of what it still has each bank sells, and whether one that has nothing left is above its limit.

    Proceeds repay debt, so they are no assets.
    """
    marketable = state.kept * (banks.held @ state.price)
    assets = banks.other + marketable
    above = assets - banks.limit * state.equity > SOLVENCY_TOLERANCE * assets
    excess = assets - banks.target * np.maximum(state.equity, 0.0)
    part = np.divide(excess, marketable, out=np.zeros(len(assets)), where=above & (marketable > 0))
    return np.minimum(part, 1.0), bool((above & (marketable <= 0)).any())


def _round(banks: _Banks, state: _State, form: tuple[str, str]) -> tuple[_State, float, Status | None]:
    part, stuck = _parts(banks, state)
    if not part.any():
        return state, 0.0, Status.EXHAUSTED if stuck else Status.SETTLED
    quantity = state.price * (banks.held.T @ (state.kept * part))
    used = quantity / banks.depth
    left, brought = price_left(used, form[0]), execution_left(used, *form)
    before = state.kept * (banks.held @ state.price)
    proceeds = state.kept * part * (banks.held @ (state.price * brought))
    kept = state.kept * (1 - part)
    price = state.price * left
    after = kept * (banks.held @ price)
    equity = state.equity - (before - after - proceeds)
    first = np.where((state.first < 0) & (part > 0), state.rounds, state.first)
    new = _State(price, kept, equity, state.cash + proceeds, state.bought + quantity * brought, first, state.rounds + 1)
    return new, float(part.max()), None


def _result(banks: _Banks, state: _State, status: Status, residual: float) -> Deleveraging:
    direct = banks.held @ banks.shock
    nodes = (state.kept, state.equity, state.cash, direct, banks.equity - direct - state.equity)
    kept, equity, cash, direct, lost = (labelled(numbers, banks.nodes) for numbers in nodes)
    return Deleveraging(
        price=labelled(state.price, banks.assets),
        kept_part=kept,
        equity=equity,
        proceeds=cash,
        direct_loss=direct,
        fire_sale_loss=lost,
        bought=labelled(state.bought, banks.assets),
        first_round=labelled(state.first, banks.nodes),
        rounds=state.rounds,
        residual=residual,
        status=status,
    )
