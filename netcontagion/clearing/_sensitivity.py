"""Derivatives of Eisenberg-Noe payments: what one more unit of assets, or of debt, does to everybody.

Near a clearing every node is in one of three states: it pays in full, it pays all it has (*active*: it passes on what
it gets), or, where external debt is senior, all it has goes outside. While nobody changes state payments are smooth.
With ``a`` = external assets (less senior external debt) plus receipts, ``d`` = dues in the system, ``x = p / d``, ``D``
the active nodes and ``Pi = diag(d)^-1 L``, changes ``dL`` of the liabilities and ``dq`` of what nodes have follow

    da = dq + dL^T x + Pi_D^T (da_D - x_D dd_D),

whose transpose gives the gradient of any sum of payments, equities and external receipts with one solve.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse

from netcontagion._arrays import group_sum
from netcontagion.clearing._extremes import alive_nodes
from netcontagion.clearing._linear import solve_unpaid
from netcontagion.clearing._shares import share_paid
from netcontagion.clearing._system import Prepared
from netcontagion.errors import ContagionError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from scipy.sparse.linalg import LinearOperator

    from netcontagion.clearing._result import ClearingResult
    from netcontagion.clearing._system import Bools, Floats, System

__all__ = ["Gradient", "Sensitivity", "sensitivity"]

DIRECTIONS = ("up", "down")
OUTCOMES = ("payments", "equity", "external")
SOLVED = 1e-12  # residual of a linear solve, relative to its solution
KINK_TOLERANCE = 1e-9
"""How near to its dues, relative to them, a node counts as exactly solvent."""


def sensitivity(
    result: ClearingResult, *, scenario: int | None = None, direction: str = "up", tolerance: float = KINK_TOLERANCE
) -> Sensitivity:
    r"""Differentiate an Eisenberg-Noe clearing, in either rank of the external debt.

    Payments are piecewise smooth: they have a kink where a node is exactly solvent (or, with senior external debt,
    where what it has just covers that debt). There the derivative is one-sided and ``direction`` says which side.

    Parameters
    ----------
    result : ClearingResult
        Of :func:`eisenberg_noe`, or of :func:`netcontagion.clear` with that model.
    scenario : int, optional
        Column of the scenario; needed where there are several.
    direction : {"up", "down"}
        At a kink, the derivative for a rise ("up": a node that is exactly solvent stays solvent) or a fall ("down": it
        defaults) of external assets. Away from kinks both are the same.
    tolerance : float
        How near to a kink, relative to its dues, a node counts as at it.

    Returns
    -------
    Sensitivity
        ``threat_index``, ``shadow_prices``, ``adjoint``, ``by_external_assets``, ``by_liabilities`` and ``kinks``.

    Raises
    ------
    ValueError
        A result of another model, an unknown direction, or a scenario that is missing or too much.
    NotSettledError
        A result that did not settle.
    ContagionError
        Payments that jump: among nodes that owe only each other and pay less than they owe, a small change has a
        finite effect. That happens to the least vector in a cycle that no value reaches (use ``which="greatest"``),
        and with senior external debt where least and greatest vector differ.

    Notes
    -----
    A change that makes one node at a kink richer and another poorer is covered by neither direction. Where no value
    reaches a node nothing can fall: there "down" too is the derivative for a rise. A node without dues is solvent.

    References
    ----------
    Demange, G. (2018). Contagion in financial networks: a threat index. Management Science 64(2), 955-970.
    https://doi.org/10.1287/mnsc.2016.2592

    Liu, M., Staum, J. (2010). Sensitivity analysis of the Eisenberg-Noe model of contagion. Operations Research
    Letters 38(5), 489-491. https://doi.org/10.1016/j.orl.2010.07.007

    Feinstein, Z., Pang, W., Rudloff, B., Schaanning, E., Sturm, S., Wildman, M. (2018). Sensitivity of the
    Eisenberg-Noe clearing vector to individual interbank liabilities. SIAM Journal on Financial Mathematics 9(4),
    1286-1325. https://doi.org/10.1137/18M1171060

    Examples
    --------
    >>> from netcontagion.clearing import eisenberg_noe, sensitivity
    >>> chain = eisenberg_noe([[0, 8, 0], [0, 0, 6], [0, 0, 0]], external_assets=[3, 1, 0])
    >>> sensitivity(chain).threat_index.tolist()
    [2.0, 1.0, 0.0]
    """
    if direction not in DIRECTIONS:
        raise ValueError(f"direction={direction!r} is not one of {', '.join(map(repr, DIRECTIONS))}")
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance={tolerance!r} must be at least 0 and less than 1")
    if result.model != "eisenberg_noe":
        raise ValueError(f"sensitivity needs a result of model 'eisenberg_noe', not {result.model!r}")
    result.raise_for_status()
    return Sensitivity(result, direction, _local(result, scenario, direction, tolerance))


class Gradient(NamedTuple):
    """Gradient of one number: of a weighted sum of payments, equities and external receipts.

    ``external_assets`` and ``external_liabilities`` are (n,), Series where the result is labelled; ``liabilities`` is a
    ``csr_array`` (n, n) with the edges of the result's ``liabilities`` in the same order.
    """

    external_assets: Any
    liabilities: Any
    external_liabilities: Any


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Derivatives of a clearing, from :func:`sensitivity`; n nodes, z edges.

    Attributes
    ----------
    result : ClearingResult
        What is differentiated.
    direction : {"up", "down"}
        The side, at kinks.
    """

    result: ClearingResult
    direction: str
    _local: _Local

    @property
    def kinks(self) -> Any:
        """Nodes at a kink, where "up" and "down" differ: positions, or labels where the result has them."""
        places = np.flatnonzero(self._local.kink)
        return places if self.result.labels is None else self.result.labels[places]

    @property
    def threat_index(self) -> Any:
        """Derivative of the sum of all payments in the external assets of each node.

        ``(I - Pi_DD)^-1 1`` among the active nodes D, 0 at solvent ones. With senior external debt a node that pays
        only that has 1: its unit goes outside and ends there.
        """
        return self.adjoint(payments=1.0).external_assets

    @property
    def shadow_prices(self) -> Any:
        """Dual values of ``p <= e + Pi^T p`` in the programme ``max 1'p`` subject to it and ``0 <= p <= dues``.

        With senior external debt p are the payments inside the network and e is less that debt. At a kink the dual
        value is not unique: "up" is its least value, "down" its greatest.

        Raises
        ------
        ContagionError
            Where senior external debt exceeds external assets: the programme has no feasible point, or is not the
            clearing.
        """
        if not self._local.system.concave:
            raise ContagionError(
                "no linear programme: senior external debt exceeds the external assets of a node; use threat_index"
            )
        return self.result._labelled(self._local.multipliers(self._local.active.astype(float)))

    def adjoint(self, *, payments: ArrayLike = 0.0, equity: ArrayLike = 0.0, external: ArrayLike = 0.0) -> Gradient:
        """Differentiate ``payments @ p + equity @ E + external @ x`` in everything given, with one solve.

        Parameters
        ----------
        payments, equity, external : array_like (n,) or float
            Weights on what each node pays (to all), on its equity, and on what its external creditors receive.

        Returns
        -------
        Gradient
            In external assets (n,), in each stored liability, in external liabilities (n,).
        """
        weights = (payments, equity, external)
        flat = [self._weights(name, given) for name, given in zip(OUTCOMES, weights, strict=True)]
        assets, edges, outside = self._local.backward(dict(zip(OUTCOMES, flat, strict=True)))
        owed = self.result.liabilities
        table = scipy.sparse.csr_array((edges, owed.indices.copy(), owed.indptr.copy()), shape=owed.shape)
        return Gradient(self.result._labelled(assets), table, self.result._labelled(outside))

    def by_external_assets(self, of: str = "payments") -> LinearOperator:
        """Return the derivative in the external assets, an operator (n, n).

        Parameters
        ----------
        of : {"payments", "equity", "external"}
            What is differentiated: payments to all, equity, or what external creditors of each node receive.
        """
        zero, count = np.zeros(self.result.liabilities.nnz), len(self._local.share)

        def forward(change: Floats) -> Floats:
            return self._local.forward(of, np.ravel(change), zero, np.zeros(count))

        def backward(weights: Floats) -> Floats:
            return self._local.backward({of: np.ravel(weights)})[0]

        return _operator((count, count), forward, backward, of)

    def by_liabilities(self, of: str = "payments") -> LinearOperator:
        """Return the derivative in the liabilities, an operator (n, z + n).

        It maps a change of the z stored ``liabilities`` in CSR order, then of the n external liabilities, and includes
        what the change does to the shares that creditors get and to the dues of solvent nodes. Its transpose takes one
        solve.

        Parameters
        ----------
        of : {"payments", "equity", "external"}
            What is differentiated: payments to all, equity, or what external creditors of each node receive.
        """
        edges, count = self.result.liabilities.nnz, len(self._local.share)

        def forward(change: Floats) -> Floats:
            flat = np.ravel(change)
            return self._local.forward(of, np.zeros(count), flat[:edges], flat[edges:])

        def backward(weights: Floats) -> Floats:
            return np.concatenate(self._local.backward({of: np.ravel(weights)})[1:])

        return _operator((count, edges + count), forward, backward, of)

    def __repr__(self) -> str:
        active, kinks = int(self._local.active.sum()), int(self._local.kink.sum())
        head = f"Sensitivity of {self.result.model}, external debt {self.result.external_rank}"
        return f"{head}, direction {self.direction}: {len(self._local.share)} nodes, {active} active, {kinks} at a kink"

    def _weights(self, name: str, given: ArrayLike) -> Floats:
        labels: Any = self.result.labels
        if labels is not None and hasattr(given, "reindex"):
            given = given.reindex(labels)
        weights = np.asarray(given, dtype=float)
        count = len(self._local.share)
        if weights.shape not in ((), (count,)) or not np.isfinite(weights).all():
            raise ValueError(f"{name}: weights must be a number or ({count},) finite numbers, one per node")
        return np.broadcast_to(weights, count)


def _operator(shape: tuple[int, int], forward: Any, backward: Any, of: str) -> LinearOperator:
    from scipy.sparse.linalg import LinearOperator as Operator

    if of not in OUTCOMES:
        raise ValueError(f"of={of!r} is not one of {', '.join(map(repr, OUTCOMES))}")
    return Operator(shape, matvec=forward, rmatvec=backward, dtype=np.dtype(float))


# ---------------------------------------------------------------------------------------------------------- the states


def _local(result: ClearingResult, scenario: int | None, direction: str, tolerance: float) -> _Local:
    """Find the state of every node, and refuse where payments jump."""
    values = result.values
    dues, assets = (result._column(array, scenario) for array in (values.dues, values.external_assets))
    prepared = Prepared(result.liabilities, dues - result.liabilities.sum(axis=1), result.external_rank)
    system = prepared.system(assets)
    paid = result._column(values.payments_internal if prepared.senior else values.payments, scenario)
    available = system.available(paid)
    near = tolerance * dues
    low = (np.abs(available) <= near) & (prepared.external > 0) & prepared.senior & (dues > 0)
    high = (np.abs(available - system.due) <= near) & (system.due > 0)
    still = ~_value_reaches(system, paid)
    rises: Bools = np.full(len(dues), direction == "up") | still
    kept = np.where(low, ~rises, available < 0) if prepared.senior else system.nobody()
    full = (np.where(high, rises, available > system.due) | (system.due == 0)) & ~kept
    share = np.where(full, 1.0, np.where(kept, 0.0, np.clip(share_paid(available, system.due), 0.0, 1.0)))
    local = _Local(system, prepared.external, share, full, kept, (low | high) & ~still)
    trapped = local.trapped()
    if trapped.any():
        verb = "rise" if direction == "up" else "fall"
        raise ContagionError(
            f"payments jump when external assets {verb}: {int(trapped.sum())} nodes, first {np.argmax(trapped)}, pay "
            f"less than they owe and owe only each other. Try the other direction, or the other which (this result: "
            f"{result.which!r})"
        )
    return local


def _value_reaches(system: System, paid: Floats) -> Bools:
    """Nodes that have external assets, or are paid by a node that value reaches."""
    owed = system.owed.copy()
    owed.data = owed.data * np.repeat(paid > 0, np.diff(owed.indptr))
    owed.eliminate_zeros()
    return alive_nodes(replace(system, owed=owed, incoming=owed.T, income=system.assets))


@dataclass(frozen=True, eq=False)
class _Local:
    """The clearing near its solution: who pays in full, who passes on what it gets, whose value stays outside.

    Outcomes are ``A da + B dd + C db``: of what a node has, of its dues in the system, of its external debt.
    """

    system: System
    external: Floats
    share: Floats
    full: Bools
    kept: Bools
    kink: Bools

    @property
    def active(self) -> Bools:
        """Nodes that pay all they have, and would pay the next unit."""
        return ~self.full & ~self.kept

    def trapped(self) -> Bools:
        """Active nodes whose payments reach only active nodes and nobody outside: the system is singular there."""
        active = self.active
        among = self.system.owed[active][:, active]
        fewer = np.diff(among.indptr) < np.diff(self.system.owed.indptr)[active]
        exits = (self.system.leaks[active] | fewer).astype(float)
        backwards = replace(self.system, owed=among.T.tocsr(), incoming=among, income=exits, due=np.ones(len(exits)))
        trapped = self.system.nobody()
        trapped[active] = ~alive_nodes(backwards)
        return trapped

    def forward(self, of: str, assets: Floats, edges: Floats, outside: Floats) -> Floats:
        """Change of an outcome, per node, with changes of assets, of stored liabilities and of external debt."""
        owed = self.system.owed
        debtor = np.repeat(np.arange(len(self.share)), np.diff(owed.indptr))
        due = group_sum(debtor, edges, len(self.share))
        due = due if self.senior else due + outside
        direct = assets + group_sum(owed.indices, self.share[debtor] * edges, len(self.share))
        direct = direct - outside if self.senior else direct
        direct = direct - self._passed_on(self.share * due)
        active = self.active
        change = np.zeros(len(self.share))
        change[active] = self._solved(self.system, direct[active])
        change = direct + self._passed_on(change)
        by_assets, by_due, by_debt = self._outcome(of)
        return by_assets * change + by_due * due + by_debt * outside

    def backward(self, weights: dict[str, Floats]) -> tuple[Floats, Floats, Floats]:
        """Gradient of the weighted sum of outcomes in assets, in stored liabilities and in external debt."""
        terms = [[weight * part for part in self._outcome(of)] for of, weight in weights.items()]
        by_assets, by_due, by_debt = (np.sum(parts, axis=0) for parts in zip(*terms, strict=True))
        value = self.multipliers(by_assets)
        of_due = by_due - self.active * self.share * self._passed_back(value)
        debtor = np.repeat(np.arange(len(self.share)), np.diff(self.system.owed.indptr))
        edges = self.share[debtor] * value[self.system.owed.indices] + of_due[debtor]
        return value, edges, by_debt - value if self.senior else by_debt + of_due

    def multipliers(self, direct: Floats) -> Floats:
        """Worth of one more unit with each node, ``direct`` being what it is worth before it is passed on."""
        active = self.active
        value = np.where(active, 0.0, direct)
        right = (direct + self._passed_back(value))[active]
        transposed = replace(self.system, owed=self.system.owed.T.tocsr(), incoming=self.system.owed, shared=None)
        due = self.system.due[active]
        value[active] = self._solved(transposed, right * due) / due
        return value

    @property
    def senior(self) -> bool:
        """Whether external debt is paid before the network."""
        return self.system.senior is not None

    def _outcome(self, of: str) -> tuple[Floats, Floats, Floats]:
        full, active, kept = (flags.astype(float) for flags in (self.full, self.active, self.kept))
        none, one = np.zeros(len(full)), np.ones(len(full))
        if of == "equity":
            return full, -full, none
        if self.senior:
            return (active + kept, full, one) if of == "payments" else (kept, none, one)
        if of == "payments":
            return active, full, none
        part = active * share_paid(self.external, self.system.due)
        return part, -part * self.share, self.share

    def _passed_on(self, amounts: Floats) -> Floats:
        """Sum what nodes get when active nodes pay on these amounts."""
        return self.system.receipts(np.where(self.active, amounts, 0.0))

    def _passed_back(self, value: Floats) -> Floats:
        """Value a unit paid by each node with those who get it."""
        worth: Floats = share_paid(self.system.owed @ value, self.system.due)
        return worth

    def _solved(self, system: System, right: Floats) -> Floats:
        """Solve ``p = right + receipts(p)`` among the active nodes; by iteration where they are many and that does."""
        active, found = self.active, np.zeros(len(self.share))
        size = float(np.abs(right / system.due[active]).max(initial=0.0))
        if size == 0.0:
            return right
        scaled = right / size
        for direct in (False, True):
            solved = solve_unpaid(system, active, scaled, direct=direct)
            if solved is None:
                continue
            found[active] = solved
            missing = scaled + system.receipts(found)[active] - solved
            if np.abs(missing / system.due[active]).max() <= SOLVED * max(
                1.0, np.abs(solved / system.due[active]).max()
            ):
                return solved * size
        raise ContagionError("the linear system of the defaulters is singular to rounding: payments jump there")
