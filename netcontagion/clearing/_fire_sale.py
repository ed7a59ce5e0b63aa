"""Fire sales: payments and prices cleared together, when those who cannot pay sell what others hold too.

The equation is in :mod:`._sale_map`, how it is solved and enclosed in :mod:`._sale_solver`, the forms of price impact
in :mod:`._impact`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion._status import Status
from netcontagion.clearing._impact import EXECUTIONS, FORMS
from netcontagion.clearing._input import EXTREMES, RANKS, checked_input
from netcontagion.clearing._outcome import Outcome, result_of
from netcontagion.clearing._sale_input import AMOUNT, DEPTH, Reader, labelled
from netcontagion.clearing._sale_map import RULES, Market, SaleMap, stored
from netcontagion.clearing._sale_solver import Monotone, solve_monotone
from netcontagion.clearing._shares import SOLVENCY_TOLERANCE
from netcontagion.clearing._system import EPS
from netcontagion.errors import Problem, SchemaError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from netcontagion.clearing._result import ClearingResult
    from netcontagion.clearing._sale_solver import Enclosed
    from netcontagion.clearing._system import Floats

__all__ = ["fire_sale"]


def fire_sale(
    liabilities: Any,
    external_assets: ArrayLike,
    holdings: Any,
    *,
    prices: ArrayLike,
    depth: ArrayLike,
    external_liabilities: ArrayLike | None = None,
    external_rank: str = "pari_passu",
    impact: str = "exponential",
    execution: str = "average",
    rule: str = "shortfall",
    which: str = "greatest",
    rtol: float = 1e-10,
    max_rounds: int = 10_000,
    strict: bool = True,
) -> ClearingResult:
    r"""Clear payments and prices together when those who cannot pay sell what they hold.

    Node i holds ``H_ik`` units of asset k and sells the part ``phi_i`` of each holding; ``Q_k = sum_i phi_i H_ik`` is
    sold, the price ends at ``p_k = p0_k f(Q_k / D_k)`` and each unit brings ``r_k``. With dues
    ``d_i = sum_j L_ij + b_i`` and cash ``c_i = e_i + sum_j x_j L_ji``, the shares x of the dues that are paid solve
    ``x_i d_i = min(d_i, c_i + sum_k H_ik r_k)`` together with ``phi_i``:

    * rule "shortfall": sell what is missing, ``phi_i = min(1, max(0, d_i - c_i) / sum_k H_ik r_k)``;
    * rule "default": sell everything where ``c_i + sum_k H_ik p_k < d_i``, else nothing, and pay in full (what is held
      is taken for money at its end price).

    ``f(z)`` is ``exp(-z)``, ``max(0, 1 - z)`` or ``max(0, 1 - sqrt(z))``.

    Parameters
    ----------
    liabilities : array_like or sparse (n, n)
        What row i owes column j, in money; not negative, nothing on the diagonal.
    external_assets : array_like (n,) or (n, s)
        Cash, in money, not negative; s columns are s scenarios.
    holdings : array_like or sparse (n, m)
        Units of each asset (column) that each node (row) holds and can sell; not negative.
    prices : array_like (m,) or (m, s)
        Prices before the sale, in money per unit; not negative.
    depth : array_like (m,)
        Depth D of each asset, in units; ``inf`` for no impact.
    external_liabilities : array_like (n,), optional
        What each node owes outside the network, in money; nothing where omitted.
    external_rank : {"pari_passu", "senior"}
        Whether external creditors are paid in proportion with the others or before them.
    impact : {"exponential", "linear", "square_root"}
        The form f of the price impact.
    execution : {"average", "terminal"}
        What a unit brings: the integral of the price over the quantity, divided by the quantity, one price for all
        sellers; or the end price for everything.
    rule : {"shortfall", "default"}
        Who sells how much.
    which : {"greatest", "least"}
        Equilibrium with the greatest payments and prices, or with the least.
    rtol : float
        Width of the enclosure, relative to dues and prices, at which a solve has settled.
    max_rounds : int
        Most rounds of the run towards the equilibrium, per scenario, and of one from the other end if it is needed.
    strict : bool
        Raise when a scenario does not settle, instead of returning what was reached.

    Returns
    -------
    ClearingResult
        With ``prices`` (at the end) and ``sold`` [units], (m,) or (m, s). What the sellers get and what the others
        still hold, at end prices, counts among the external assets of the result. ``status`` is EXHAUSTED where a node
        defaults and nobody has anything left to sell.

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the numbers.
    ValueError
        An option that is not one of those allowed.
    NotSettledError
        With ``strict``, when the solve ended without an answer; its ``result`` holds what was reached.

    Notes
    -----
    Every node only sells and prices only fall, so the map is increasing and has a greatest and a least equilibrium
    (Tarski); they may differ. The enclosure "bracket" is proved for the one asked for, rounding included: by a monotone
    run from full payment and no sale, and a state just below it that the map does not lower. The other equilibria lie
    between ``which="least"`` and ``which="greatest"``. A shortage of up to 1e-12 of the dues counts as none; the
    square-root impact has an infinite slope at 0, where rounding would otherwise move prices.

    References
    ----------
    Cifuentes, R., Ferrucci, G., Shin, H. S. (2005). Liquidity risk and contagion. Journal of the European Economic
    Association 3(2-3), 556-566. https://doi.org/10.1162/jeea.2005.3.2-3.556
    Amini, H., Filipovic, D., Minca, A. (2016). Uniqueness of equilibrium in a payment system with liquidation costs.
    Operations Research Letters 44(1), 1-5. https://doi.org/10.1016/j.orl.2015.10.005

    Examples
    --------
    >>> from netcontagion.clearing import fire_sale
    >>> result = fire_sale([[0, 6], [0, 0]], [1, 0], [[10], [5]], prices=[1], depth=[20], impact="linear")
    >>> result.payments.round(4).tolist(), result.prices.round(4).tolist(), result.sold.round(4).tolist()
    ([6.0, 0.0], [0.7071], [5.8579])
    """
    options = _Options(external_rank, impact, execution, rule, which, rtol, max_rounds)
    options.check()
    given = _read(liabilities, external_assets, external_liabilities, holdings, prices, depth)
    maps = _maps(given, options)
    solved = [_solve(one, options) for one in maps]
    result = _result(given, maps, solved, options, told_external=external_liabilities is not None)
    return result.raise_for_status() if strict else result


class _Options(NamedTuple):
    external_rank: str
    impact: str
    execution: str
    rule: str
    which: str
    rtol: float
    max_rounds: int

    def check(self) -> None:
        allowed = (RANKS, FORMS, EXECUTIONS, RULES, EXTREMES)
        for name, values in zip(self._fields[:5], allowed, strict=True):
            if getattr(self, name) not in values:
                raise ValueError(f"{name}={getattr(self, name)!r} is not one of {', '.join(map(repr, values))}")
        if not self.rtol > 0:
            raise ValueError(f"rtol={self.rtol!r} must be positive")
        if self.max_rounds < 1:
            raise ValueError(f"max_rounds={self.max_rounds!r} must be at least 1")


class _Given(NamedTuple):
    """The numbers, checked: what is owed, cash, dues outside, units, prices, depths; and the labels."""

    owed: Any
    assets: Floats
    external: Floats
    holdings: Any
    prices: Floats
    depth: Floats
    nodes: Any
    labels: Any


# --------------------------------------------------------------------------------------------------------- the numbers


def _read(liabilities: Any, assets: Any, external: Any, holdings: Any, prices: Any, depth: Any) -> _Given:
    """Read everything, or raise one SchemaError with everything that is wrong."""
    reader = Reader(liabilities.index if hasattr(liabilities, "columns") else None)
    units = reader.holdings("holdings", holdings)
    if reader.nodes is not None and not hasattr(liabilities, "columns"):
        assets, external = (
            given.reindex(reader.nodes) if hasattr(given, "reindex") else given for given in (assets, external)
        )
    marks = reader.per_asset("prices", prices, AMOUNT, several=True, scalar=False)
    depths = reader.per_asset("depth", depth, DEPTH)
    problems: list[Problem] = list(reader.problems)
    owed: Any = None
    try:
        owed, assets, external = checked_input(liabilities, assets, external)
    except SchemaError as error:
        problems = [*error.problems, *problems]
    if owed is not None and units is not None:
        problems += _misfits(owed, assets, units, marks)
    if problems:
        raise SchemaError(problems)
    return _Given(owed, assets, external, units, marks, depths, reader.nodes, reader.assets)


def _misfits(owed: Any, assets: Floats, units: Any, marks: Floats | None) -> list[Problem]:
    """Name the tables that do not fit together, and sums that overflow."""
    problems = []
    if units.shape[0] != owed.shape[0]:
        cure = "give one row per row of liabilities"
        problems.append(Problem("holdings", None, None, f"{units.shape[0]} rows", f"{owed.shape[0]} rows", cure))
    if marks is None or marks.shape[0] != units.shape[1]:
        return problems
    if marks.ndim == 2 and assets.shape[1:] != marks.shape[1:]:
        cure = "give external_assets (n, s) and prices (m, s), or prices (m,)"
        problems.append(Problem("prices", None, None, f"shape {marks.shape}", "as many scenarios", cure))
    with np.errstate(over="ignore", invalid="ignore"):
        worth = np.atleast_2d((units @ marks).T).T
    if not np.isfinite(worth.sum(axis=0)).all():
        cure = "count in a larger unit of money"
        problems.append(Problem("holdings", None, None, "values overflow", "a finite sum", cure))
    return problems


def _maps(given: _Given, options: _Options) -> list[SaleMap]:
    """One increasing map per scenario."""
    internal: Floats = given.owed.sum(axis=1)
    dues, senior = internal + given.external, options.external_rank == "senior"
    claims, holdings = stored(given.owed, _narrow(given.holdings))
    supply = holdings.units(np.ones(len(dues)))
    due = internal if senior else dues
    columns = given.assets.T if given.assets.ndim == 2 else given.assets[None]
    marks = given.prices.T if given.prices.ndim == 2 else [given.prices] * len(columns)
    links = holdings.terms + _most(given.owed) + _most(given.holdings) + claims.most
    rounding = float(links + 16) * EPS
    before = given.external if senior else None
    return [
        SaleMap(claims, due, before, dues, cash, market, options.rule, rounding)
        for cash, prices in zip(columns, marks, strict=True)
        for market in [Market(holdings, prices, given.depth, supply, options.impact, options.execution)]
    ]


def _narrow(matrix: Any) -> Any:
    """Give a matrix short indices where they suffice: a pass over it is bound by memory."""
    if matrix.indices.dtype == np.int32 or max(matrix.nnz, *matrix.shape) > np.iinfo(np.int32).max:
        return matrix
    short = matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32)
    return type(matrix)((matrix.data, *short), shape=matrix.shape)


def _most(matrix: Any) -> int:
    """Most entries in a row."""
    return int(np.diff(matrix.indptr).max(initial=0))


# -------------------------------------------------------------------------------------------------------- the solution


def _solve(equation: SaleMap, options: _Options) -> Enclosed:
    greatest = options.which == "greatest"
    problem = Monotone(
        equation.step, equation.sweep, equation.top(), equation.bottom(), equation.distance, equation.width
    )
    return solve_monotone(problem, greatest=greatest, rtol=options.rtol, max_rounds=options.max_rounds)


class _Ended(NamedTuple):
    """What a scenario ends with: an outcome, prices, units sold and what the nodes have beside what they are paid."""

    outcome: Outcome
    prices: Floats
    sold: Floats
    resources: Floats
    status: Status


def _ended(equation: SaleMap, solved: Enclosed, external: Floats, rtol: float) -> _Ended:
    """Let everybody pay and sell once more at the equilibrium, so that all numbers belong together."""
    now = equation.sales(solved.state)
    market, nodes = equation.market, len(external)
    sold: Floats = now.fraction * market.supply
    resources = equation.assets + now.sold_part * now.worth
    resources = resources + (1 - now.sold_part) * (market.holdings @ now.end)
    outside = None
    lower, upper = solved.lower[:nodes], solved.upper[:nodes]
    if equation.before is not None:
        outside, low, high = (
            _senior_share(equation, state, sign)
            for state, sign in ((solved.state, 0.0), (solved.lower, -1.0), (solved.upper, 1.0))
        )
        lower, upper = (_all_in(equation, inside, out) for inside, out in ((lower, low), (upper, high)))
    outcome = Outcome(
        share=now.share,
        net_worth=resources + equation.incoming @ now.share - equation.dues,
        residual=solved.residual,
        rounds=solved.rounds,
        status=solved.status,
        lower=lower,
        upper=upper,
        enclosure="bracket",
        external=outside,
        notes=solved.doubts(rtol),
    )
    short = (now.available < equation.dues * (1 - SOLVENCY_TOLERANCE)).any()
    nothing_left = bool(short and (sold > 0).any() and (now.sold_part[_holders(market)] >= 1).all())
    exhausted = solved.status is Status.SETTLED and nothing_left
    return _Ended(outcome, now.end, sold, resources, Status.EXHAUSTED if exhausted else solved.status)


def _holders(market: Market) -> Any:
    return np.diff(market.holdings.matrix.indptr) > 0


def _senior_share(equation: SaleMap, state: Floats, sign: float) -> Floats:
    """Share of the senior dues that is paid outside."""
    before = equation.before
    assert before is not None
    now = equation.sales(state, sign)
    paid = now.available * (1 + sign * equation.rounding)
    if equation.rule == "default":
        paid = np.where(now.sold_part > 0, paid, equation.dues)
    return np.minimum(np.divide(paid, before, out=np.ones(len(before)), where=before > 0), 1.0)


def _all_in(equation: SaleMap, inside: Floats, outside: Floats) -> Floats:
    """Share of all dues, of the share inside and of that outside."""
    assert equation.before is not None
    paid = inside * equation.due + outside * equation.before
    return np.divide(paid, equation.dues, out=np.ones(len(paid)), where=equation.dues > 0)


def _result(
    given: _Given, maps: list[SaleMap], solved: list[Enclosed], options: _Options, *, told_external: bool
) -> ClearingResult:
    ends = [_ended(equation, one, given.external, options.rtol) for equation, one in zip(maps, solved, strict=True)]
    several = given.assets.ndim == 2
    silent = () if told_external else ("no external liabilities were given: all debt is owed inside the network",)
    assumptions = (
        *silent,
        f"price impact {options.impact}, execution {options.execution}, rule {options.rule}; nobody buys but outsiders",
        "external assets count the proceeds of sales, and what is left unsold at end prices",
    )

    def side_by_side(columns: list[Floats], rows: int) -> Floats:
        table = np.column_stack(columns) if columns else np.zeros((rows, 0))
        return table if several else table[:, 0]

    nodes, assets = given.holdings.shape
    result = result_of(
        [end.outcome for end in ends],
        model="fire_sale",
        owed=given.owed,
        assets=side_by_side([end.resources for end in ends], nodes),
        external=given.external,
        external_rank=options.external_rank,
        which=options.which,
        conserves=True,
        labels=given.nodes,
        prices=labelled(side_by_side([end.prices for end in ends], assets), given.labels),
        sold=labelled(side_by_side([end.sold for end in ends], assets), given.labels),
        assumptions=assumptions,
    )
    statuses = tuple(end.status for end in ends)
    unsettled = [status for status in statuses if not status.settled]
    status = next(iter(unsettled), Status.EXHAUSTED if Status.EXHAUSTED in statuses else Status.SETTLED)
    return replace(result, status=status, statuses=statuses)
