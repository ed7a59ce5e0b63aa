"""Variation margin under stress: who pays the calls of a day, in part or late, and what is borrowed outside.

Two models of the same day. :func:`margin_stress`: a node in stress passes a part of it on to whom it owes (Paddrik,
Rajan, Young). :func:`full_payment`: a node pays all its calls or waits, and borrows at the last moment (Bardoscia,
Ferrara, Vause, Yoganayagam).
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion._arrays import group_sum
from netcontagion._iterate import iterate
from netcontagion._status import Status
from netcontagion.clearing._input import checked_input
from netcontagion.clearing._outcome import Outcome, result_of
from netcontagion.clearing._shares import SOLVENCY_TOLERANCE, share_paid
from netcontagion.clearing._system import EPS
from netcontagion.errors import ContagionError, NotSettledError, Problem, SchemaError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from netcontagion.clearing._result import ClearingResult
    from netcontagion.clearing._system import Bools, Floats

__all__ = ["FullPaymentResult", "MarginStressResult", "full_payment", "margin_stress"]

ORDERS = ("together", "smallest_first", "largest_first")
CHECKED = 1e-9  # relative tolerance of ``check``


# ------------------------------------------------------------------------------------------------------- soft default


def margin_stress(
    obligations: Any,
    liquidity: ArrayLike,
    *,
    transmission: ArrayLike,
    initial_margin: Any = None,
    rtol: float = 1e-10,
    max_rounds: int = 10_000,
    strict: bool = True,
) -> MarginStressResult:
    r"""Compute payments of variation margin when nodes in stress pay less, as Paddrik, Rajan and Young.

    With what is due ``d_i = sum_j L_ij``, liquidity b and initial margin ``M_ji`` that j holds of i, the stress of a
    node, what it pays and what its counterparties get are

        ``s_i = max(0, d_i - r_i - b_i)``, ``p_ij = L_ij max(0, 1 - tau_i s_i / d_i)``,
        ``r_j = sum_i (p_ij + min(L_ij - p_ij, M_ji))``.

    The greatest payments are found, by iteration from full payment. ``tau = 1`` without margin is Eisenberg-Noe;
    ``tau < 1`` pays more than there is: ``borrowed`` comes from outside; ``tau > 1`` pays less and keeps the rest.

    Parameters
    ----------
    obligations : array_like or sparse (n, n)
        Variation margin that row i owes column j, in money; not negative, nothing on the diagonal.
    liquidity : array_like (n,) or (n, s)
        Cash and what can be sold today, in money, not negative; s columns are s scenarios.
    transmission : float or array_like (n,)
        tau, the part of its stress that a node passes on to whom it owes; not negative.
    initial_margin : array_like or sparse (n, n), optional
        What row j holds of column i, in money, not negative: holders are rows. It covers only what i owes j.
    rtol : float
        Width of the bracket, relative to what is due, at which a solve has settled.
    max_rounds : int
        Most rounds per scenario.
    strict : bool
        Raise when a scenario does not settle, instead of returning what was reached.

    Returns
    -------
    MarginStressResult
        ``clearing``, ``stress``, ``borrowed``, ``margin_used``.

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the numbers.
    ValueError
        ``rtol`` or ``max_rounds`` out of range.
    NotSettledError
        With ``strict``, when a solve ended without an answer; its ``result`` holds what was reached.

    Notes
    -----
    Bounds are monotone runs from no and from full payment, rounded outwards ("bracket"); they meet where tau < 1.
    For tau = 1 least and greatest payments can differ, for tau > 1 even where every node has liquidity: then the runs
    end where rounding lets them, the greatest payments are returned and ``assumptions`` says so.

    References
    ----------
    Paddrik, M., Rajan, S., Young, H. P. (2020). Contagion in derivatives markets. Management Science 66(8),
    3603-3616. https://doi.org/10.1287/mnsc.2019.3354

    Examples
    --------
    >>> from netcontagion.clearing import margin_stress
    >>> soft = margin_stress([[0, 10, 0], [0, 0, 10], [0, 0, 0]], [4, 5, 0], transmission=0.5)
    >>> soft.clearing.payments.tolist(), soft.borrowed.tolist()
    ([7.0, 10.0, 0.0], [3.0, 0.0, 0.0])
    """
    if not rtol > 0:
        raise ValueError(f"rtol={rtol!r} must be positive")
    if max_rounds < 1:
        raise ValueError(f"max_rounds={max_rounds!r} must be at least 1")
    owed, cash, passed, held = _checked(obligations, liquidity, transmission, initial_margin)
    calls = _Calls(owed, passed, held)
    solved = [_solve(calls, column, rtol, max_rounds) for column in np.atleast_2d(cash.T)]
    clearing = _cleared("margin_stress", calls, solved, cash, obligations)
    used, borrowed = (_side_by_side([getattr(one, name) for one in solved], cash) for name in ("used", "borrowed"))
    result = MarginStressResult(clearing, used, borrowed, held)
    return _or_raise(result) if strict else result


@dataclass(frozen=True, eq=False, repr=False)
class MarginStressResult:
    """Payments of variation margin under stress, from :func:`margin_stress`; arrays (n,) or (n, s), in money.

    Attributes
    ----------
    clearing : ClearingResult
        Payments, shortfalls, defaults, bounds and status. ``external_assets`` is all cash that nodes have beside the
        payments of others: liquidity, initial margin of others that they use, and what they borrow. ``net_worth`` is
        liquidity + receipts - dues, the margin used among the receipts. ``clearing.check()`` holds: nobody pays more
        than this cash, and with tau <= 1 none of it is lost.
    """

    clearing: ClearingResult
    _used: Floats
    _borrowed: Floats
    _held: Floats

    @property
    def stress(self) -> Any:
        """What a node lacks to pay all its calls."""
        return self.clearing._labelled(np.maximum(-self.clearing.values.net_worth, 0.0))

    @property
    def borrowed(self) -> Any:
        """What a node pays beyond its liquidity and receipts, and has to borrow outside; 0 where tau >= 1."""
        return self.clearing._labelled(self._borrowed)

    @property
    def margin_used(self) -> Any:
        """Initial margin of others that a node uses because they pay it less than they owe."""
        return self.clearing._labelled(self._used)

    def margin_matrix(self, scenario: int | None = None) -> Any:
        """Return the initial margin of row i that column j uses, as a ``csr_array`` (n, n).

        Parameters
        ----------
        scenario : int, optional
            Column of the scenario; needed where there are several.
        """
        used = self.clearing.liabilities.copy()
        unpaid = used.data - self.clearing.payment_matrix(scenario).data
        used.data = np.minimum(np.maximum(unpaid, 0.0), self._held)
        return used

    def __repr__(self) -> str:
        lines = f"{self.clearing!r}\n  stress {_total(self.stress)}, borrowed {_total(self.borrowed)}"
        return f"{lines}, initial margin used {_total(self.margin_used)}"


class _Calls:
    """The calls of a day: who owes whom, how much of its stress a node passes on, what margin covers an edge."""

    def __init__(self, owed: Any, passed: Floats, held: Floats) -> None:
        self.owed, self.passed, self.held = owed, passed, held
        self.due: Floats = owed.sum(axis=1)
        self.count = np.diff(owed.indptr)
        self.incoming = owed.T
        in_degree = np.bincount(owed.indices, minlength=len(self.due)).max(initial=0)
        sums = float(in_degree + self.count.max(initial=0) + 4) * EPS
        self.rounding: Floats = sums * (1 + 3 * passed)  # of a share: of 1 - tau s / d with s at most d

    def used(self, share: Floats) -> Floats:
        """Sum the initial margin that each node uses."""
        if not self.held.any():
            return np.zeros(len(self.due))
        drawn = np.minimum(self.owed.data * (1 - np.repeat(share, self.count)), self.held)
        return group_sum(self.owed.indices, drawn, len(self.due))

    def receipts(self, share: Floats) -> Floats:
        """Sum what each node gets when every debtor pays this share, initial margin included."""
        received: Floats = self.incoming @ share
        return received + self.used(share)

    def pay(self, share: Floats, cash: Floats) -> Floats:
        """Return the shares paid when the others pay ``share``; 1 where nothing is due."""
        stress = np.maximum(self.due - self.receipts(share) - cash, 0.0)
        return np.maximum(1 - self.passed * share_paid(stress, self.due), 0.0)


class _Run(NamedTuple):
    share: Floats
    lower: Floats
    upper: Floats
    width: float


class _Paid(NamedTuple):
    """A scenario solved."""

    outcome: Outcome
    used: Floats
    borrowed: Floats


def _solve(calls: _Calls, cash: Floats, rtol: float, max_rounds: int) -> _Paid:
    """Run from full payment, between bounds from none and from full payment that are rounded outwards."""

    def step(run: _Run) -> tuple[_Run, float, Status | None]:
        share = np.minimum(run.share, calls.pay(run.share, cash))
        lower = np.maximum(run.lower, calls.pay(run.lower, cash) - calls.rounding)
        upper = np.minimum(run.upper, calls.pay(run.upper, cash) + calls.rounding)
        residual = float((run.share - share).max(initial=0.0))
        moved = max(residual, float((lower - run.lower).max(initial=0.0)), float((run.upper - upper).max(initial=0.0)))
        width = float((upper - lower)[calls.due > 0].max(initial=0.0))
        done = width <= rtol or moved <= EPS
        return _Run(share, lower, upper, width), residual, Status.SETTLED if done else None

    nodes = len(cash)
    start = _Run(np.ones(nodes), np.where(calls.due > 0, 0.0, 1.0), 1 + calls.rounding, 1.0)
    ending = iterate(step, start, max_rounds=max_rounds)
    run = ending.state
    share = np.clip(run.share, run.lower, run.upper)
    notes: tuple[str, ...] = ()
    if run.width > rtol:
        notes = (f"uncertified: the bracket is {run.width:.3g} wide, least and greatest payments may differ",)
    worth = cash + calls.receipts(share) - calls.due
    outcome = Outcome(
        share=share,
        net_worth=worth,
        residual=float(np.abs(calls.pay(share, cash) - share).max(initial=0.0)),
        rounds=ending.rounds,
        status=ending.status,
        lower=run.lower,
        upper=run.upper,
        enclosure="bracket",
        notes=notes,
    )
    return _Paid(outcome, calls.used(share), np.maximum(1 - calls.passed, 0.0) * np.maximum(-worth, 0.0))


# ------------------------------------------------------------------------------------------------------- all or nothing


def full_payment(obligations: Any, liquidity: ArrayLike, *, order: str | Sequence[Any]) -> FullPaymentResult:
    """Settle calls when a node pays all it owes or waits, and those who still wait borrow at the last moment.

    Whoever can pay all its calls out of liquidity and receipts does, until nobody can (``clearing``; this does not
    depend on any order). Then those who wait borrow what they lack and pay, in the ``order`` given; after each,
    whoever now can pays without borrowing. What is borrowed depends on the order.

    Parameters
    ----------
    obligations : array_like or sparse (n, n)
        Variation margin that row i owes column j, in money; not negative, nothing on the diagonal.
    liquidity : array_like (n,) or (n, s)
        Cash and what can be sold today, in money, not negative; s columns are s scenarios.
    order : {"together", "smallest_first", "largest_first"} or sequence of nodes
        Who borrows when nobody else can pay. ``"together"``: all who wait, at once, which is the most that any order
        borrows. ``"smallest_first"``, ``"largest_first"``: who lacks least or most at that moment, ties by position.
        Or all nodes (positions, or labels of a labelled matrix), each once: the first of them that waits.

    Returns
    -------
    FullPaymentResult
        ``clearing`` before anybody borrows; ``shortfall``, ``borrowed``, ``final_cash``, ``turn``.

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the numbers.
    ValueError
        An order that is not one of those allowed, or that does not name every node once.

    Notes
    -----
    Payments before borrowing are at most those of Eisenberg-Noe, and shortfalls at least as large. What is borrowed in
    the end is at least the sum of ``max(0, dues - liquidity - all that is owed to the node)``, and at most the sum of
    shortfalls; with a good order it can be less than the shortfall of Eisenberg-Noe.

    References
    ----------
    Bardoscia, M., Ferrara, G., Vause, N., Yoganayagam, M. (2021). Simulating liquidity stress in the derivatives
    market. Journal of Economic Dynamics and Control 133, 104215. https://doi.org/10.1016/j.jedc.2021.104215

    Examples
    --------
    >>> from netcontagion.clearing import full_payment
    >>> ring = [[0, 10, 0], [0, 0, 10], [10, 0, 0]]
    >>> [float(full_payment(ring, [1, 2, 3], order=order).borrowed.sum()) for order in ("together", "smallest_first")]
    [24.0, 7.0]
    """
    owed, cash, _, _ = _checked(obligations, liquidity, 1.0, None)
    labels = obligations.index if hasattr(obligations, "columns") else None
    rule = order if isinstance(order, str) else _places(order, labels, owed.shape[0])
    if isinstance(rule, str) and rule not in ORDERS:
        raise ValueError(f"order={order!r} is not one of {', '.join(map(repr, ORDERS))}, nor a sequence of nodes")
    calls = _Calls(owed, np.ones(owed.shape[0]), np.zeros(owed.nnz))
    days = [_Day(calls, column, rule) for column in np.atleast_2d(cash.T)]
    paid = [_Paid(day.outcome(), day.none, day.none) for day in days]
    clearing = _cleared("full_payment", calls, paid, cash, obligations)
    names = ("borrowed", "final_cash", "turn")
    return FullPaymentResult(clearing, *(_side_by_side([getattr(day, name) for day in days], cash) for name in names))


@dataclass(frozen=True, eq=False, repr=False)
class FullPaymentResult:
    """Calls paid in full or not before anybody borrows, and what is borrowed then; arrays (n,) or (n, s), in money.

    Attributes
    ----------
    clearing : ClearingResult
        Before anybody borrows: payments are 0 or all dues.
    """

    clearing: ClearingResult
    _borrowed: Floats
    _final_cash: Floats
    _turn: NDArray[np.int64]

    @property
    def shortfall(self) -> Any:
        """What a waiting node lacks when nobody can pay without borrowing."""
        waits = self.clearing.values.payments < self.clearing.values.dues
        return self.clearing._labelled(np.where(waits, np.maximum(-self.clearing.values.net_worth, 0.0), 0.0))

    @property
    def borrowed(self) -> Any:
        """What a node borrows at the last moment."""
        return self.clearing._labelled(self._borrowed)

    @property
    def final_cash(self) -> Any:
        """Cash of a node when all calls are paid, loans included."""
        return self.clearing._labelled(self._final_cash)

    @property
    def turn(self) -> Any:
        """When a node pays: 0 without any borrowing, k after the k-th loan (all loans of "together" are the first)."""
        return self.clearing._labelled(self._turn)

    def check(self) -> None:
        """Verify payments in range, limited liability, and that final cash is liquidity plus loans.

        Raises
        ------
        ContagionError
            Naming every law that does not hold.
        """
        self.clearing.check()
        cash, loans = self.clearing.values.external_assets, self._borrowed
        gap = np.abs(self._final_cash.sum(axis=0) - cash.sum(axis=0) - loans.sum(axis=0))
        most = np.maximum(cash.sum(axis=0) + loans.sum(axis=0), self.clearing.values.dues.sum(axis=0))
        if (gap > CHECKED * most).any() or (self._final_cash < -CHECKED * most).any():
            raise ContagionError(f"full_payment: cash is not conserved, or negative: off by {np.max(gap):.6g}")

    def __repr__(self) -> str:
        return f"{self.clearing!r}\n  shortfall {_total(self.shortfall)}, borrowed {_total(self.borrowed)}"


class _Day:
    """One scenario of full payment: pay while somebody can, then borrow in order."""

    def __init__(self, calls: _Calls, cash: Floats, rule: Any) -> None:
        self.calls, self.cash = calls, cash
        self.held = cash.copy()  # liquidity and receipts
        self.waits: Bools = calls.due > 0
        self.none = np.zeros(len(cash))
        self.borrowed, self.turn = np.zeros(len(cash)), np.zeros(len(cash), dtype=np.int64)
        self.rounds, self.loans = 0, 0
        self._settle(np.flatnonzero(self.waits))
        self.waiting, self.gridlock = self.waits.copy(), self.held.copy()
        if isinstance(rule, str) and rule == "together":
            self._lend(np.flatnonzero(self.waits))
        elif isinstance(rule, str):
            self._in_order_of_need(1.0 if rule == "smallest_first" else -1.0)
        else:
            for node in rule:
                if self.waits[node]:
                    self._lend(np.array([node]))

    def outcome(self) -> Outcome:
        """Return what is paid before anybody borrows."""
        share = np.where(self.waiting, 0.0, 1.0)
        worth = self.gridlock - self.calls.due
        return Outcome(share, worth, 0.0, self.rounds, Status.SETTLED, lower=share, upper=share, enclosure="bracket")

    @property
    def final_cash(self) -> Floats:
        """Cash when all is paid."""
        return self.held + self.borrowed - self.calls.due

    def _settle(self, candidates: NDArray[Any]) -> list[NDArray[Any]]:
        """Let pay who can, then those whom that enables; return who got money."""
        reached = [candidates]
        while len(candidates):
            least = self.calls.due[candidates] * (1 - SOLVENCY_TOLERANCE)
            able = self.waits[candidates] & (self.held[candidates] >= least)
            candidates = self._pay(candidates[able]) if able.any() else candidates[:0]
            reached.append(candidates)
        return reached

    def _pay(self, payers: NDArray[Any]) -> NDArray[Any]:
        """Pay all dues of these nodes; return their creditors, each once."""
        self.waits[payers] = False
        self.turn[payers] = self.loans
        self.rounds += self.loans == 0
        owed = self.calls.owed
        if len(payers) == 1:  # slicing a matrix takes longer than all the rest
            part = slice(owed.indptr[payers[0]], owed.indptr[payers[0] + 1])
            self.held[owed.indices[part]] += owed.data[part]
            return np.asarray(owed.indices[part])
        rows = owed[payers]
        creditors, place = np.unique(rows.indices, return_inverse=True)
        self.held[creditors] += group_sum(place, rows.data, len(creditors))
        return np.asarray(creditors)

    def _lend(self, nodes: NDArray[Any]) -> list[NDArray[Any]]:
        """Lend these nodes what they lack, let them pay, and then who can; return who got money."""
        self.loans += 1
        self.borrowed[nodes] = np.maximum(self.calls.due[nodes] - self.held[nodes], 0.0)
        return self._settle(self._pay(nodes))

    def _in_order_of_need(self, sign: float) -> None:
        """Lend to who lacks least (or most), again and again; what is lacking falls as others pay."""
        lacks = sign * (self.calls.due - self.held)
        queue = [(float(lacks[node]), int(node)) for node in np.flatnonzero(self.waits)]
        heapq.heapify(queue)
        while queue:
            need, node = heapq.heappop(queue)
            if not self.waits[node] or need != sign * (self.calls.due[node] - self.held[node]):
                continue  # it has paid, or a newer entry of it is in the queue
            for reached in self._lend(np.array([node])):
                others = reached[self.waits[reached]]
                lacks = sign * (self.calls.due[others] - self.held[others])
                for entry in zip(lacks.tolist(), others.tolist(), strict=True):
                    heapq.heappush(queue, entry)


def _places(order: Sequence[Any], labels: Any, nodes: int) -> NDArray[np.int64]:
    """Positions of the nodes in the order given."""
    places = np.asarray(order) if labels is None else labels.get_indexer(list(order))
    if places.shape != (nodes,) or not np.array_equal(np.sort(places), np.arange(nodes)):
        raise ValueError(f"order must name each of the {nodes} nodes once")
    return places.astype(np.int64)


# --------------------------------------------------------------------------------------------------- input and results


def _checked(obligations: Any, liquidity: Any, transmission: Any, margin: Any) -> tuple[Any, Floats, Floats, Floats]:
    """Convert once, or raise one SchemaError with everything that is wrong; margin in the order of the edges."""
    problems: list[Problem] = []
    owed, cash = None, np.zeros(0)
    try:
        owed, cash, _ = checked_input(obligations, liquidity, None)
    except SchemaError as error:
        problems += [_renamed(problem, "obligations", "liquidity") for problem in error.problems]
    labels = obligations.index if hasattr(obligations, "columns") and hasattr(obligations, "index") else None
    nodes = _size(obligations)
    passed = _transmission(transmission, labels, nodes, problems)
    held = _held(margin, labels, nodes, problems)
    if problems or owed is None:
        raise SchemaError(problems)
    return owed, cash, passed, _on_edges(held, owed)


def _size(matrix: Any) -> int | None:
    """Nodes of a square matrix; None where it is none."""
    try:
        shape = matrix.shape if hasattr(matrix, "shape") else np.shape(matrix)
    except ValueError:  # rows of different lengths
        return None
    return int(shape[0]) if len(shape) == 2 and shape[0] == shape[1] else None


_CURES = {
    "obligations": "turn the entry round: what the creditor owes the debtor",
    "liquidity": "add what is missing to the obligations, and give 0 here",
}


def _renamed(problem: Problem, matrix: str, vector: str) -> Problem:
    table = {"liabilities": matrix, "external_assets": vector}[problem.table]
    negative = isinstance(problem.value, float) and problem.value < 0 and problem.allowed == "finite, at least 0"
    return replace(problem, table=table, cure=_CURES[table] if negative else problem.cure)


def _transmission(given: Any, labels: Any, nodes: int | None, problems: list[Problem]) -> Floats:
    cure, allowed = "give a number, or one per node", "finite, at least 0"
    if labels is not None and hasattr(given, "reindex"):
        given = given.reindex(labels)
    try:
        passed = np.array(given, dtype=float)
    except (TypeError, ValueError) as error:
        problems.append(Problem("transmission", None, None, str(error), "numbers", cure))
        return np.zeros(0)
    if passed.ndim > 1 or (passed.ndim == 1 and nodes not in (None, len(passed))):
        problems.append(Problem("transmission", None, None, f"shape {passed.shape}", f"a number or ({nodes},)", cure))
        return np.zeros(0)
    bad = ~(np.isfinite(passed) & (passed >= 0))
    rows = np.flatnonzero(bad)
    if passed.ndim == 0:
        problems += [Problem("transmission", None, None, float(passed), allowed, cure)] if bad else []
        return np.full(nodes or 0, float(passed))
    problems += [Problem("transmission", None, int(row), float(passed[row]), allowed, cure) for row in rows]
    return passed


def _held(given: Any, labels: Any, nodes: int | None, problems: list[Problem]) -> Any:
    """Convert initial margin, holders in rows, to a csr_array; None where there is none or it is wrong."""
    if given is None or nodes is None:
        return None
    if labels is not None and hasattr(given, "columns") and hasattr(given, "index"):
        if len(given.index.symmetric_difference(labels)) or len(given.columns.symmetric_difference(labels)):
            cure = "label it as the obligations are, or give plain values"
            problems.append(Problem("initial_margin", None, None, "other labels", "the same labels", cure))
            return None
        given = given.loc[labels, labels]
    if _size(given) != nodes:
        cure = "give what row j holds of column i, of the same nodes"
        problems.append(Problem("initial_margin", None, None, "another shape", f"({nodes}, {nodes})", cure))
        return None
    try:
        held, _, _ = checked_input(given, np.zeros(nodes), None)
    except SchemaError as error:
        cure = "give what row j holds of column i, 0 or more"
        problems += [replace(problem, table="initial_margin", cure=cure) for problem in error.problems]
        return None
    return held


def _on_edges(held: Any, owed: Any) -> Floats:
    """Margin of the debtor that the creditor holds, for each edge of ``owed`` in its order; 0 where none."""
    if held is None:
        return np.zeros(owed.nnz)
    nodes, of_debtor = owed.shape[0], held.T.tocsr()
    of_debtor.sort_indices()

    def keys(matrix: Any) -> Any:
        return np.repeat(np.arange(nodes, dtype=np.int64), np.diff(matrix.indptr)) * nodes + matrix.indices

    found, known = keys(owed), keys(of_debtor)
    place = np.minimum(np.searchsorted(known, found), max(len(known) - 1, 0))
    there = known[place] == found if len(known) else np.zeros(len(found), dtype=bool)
    margin: Floats = np.zeros(len(found))
    margin[there] = of_debtor.data[place[there]]
    return margin


def _cleared(model: str, calls: _Calls, solved: list[_Paid], cash: Floats, obligations: Any) -> ClearingResult:
    """Put scenarios side by side; what is drawn or borrowed counts as cash from outside the payments."""
    extra = _side_by_side([one.used + one.borrowed for one in solved], cash)
    return result_of(
        [one.outcome for one in solved],
        model=model,
        owed=calls.owed,
        assets=cash + extra,
        external=np.zeros(len(calls.due)),
        labels=obligations.index if hasattr(obligations, "columns") else None,
        conserves=model == "margin_stress" and bool((calls.passed <= 1).all()),
    )


def _side_by_side(columns: list[Any], cash: Floats) -> Any:
    table = np.column_stack(columns) if columns else np.zeros(cash.shape)
    return table if cash.ndim == 2 else table[:, 0]


def _or_raise(result: MarginStressResult) -> MarginStressResult:
    try:
        result.clearing.raise_for_status()
    except NotSettledError as error:
        raise NotSettledError(str(error).split(" (the unsettled")[0], result) from None
    return result


def _total(amounts: Any) -> str:
    total = np.asarray(amounts).sum(axis=0)
    return f"{total:.6g}" if total.ndim == 0 else f"{total.min(initial=np.inf):.6g} to {total.max(initial=0.0):.6g}"
