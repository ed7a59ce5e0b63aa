"""What a clearing returns: payments, who defaults, how sure the numbers are and how the solve ended."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.clearing._laws import broken_laws
from netcontagion.clearing._shares import SOLVENCY_TOLERANCE, share_paid
from netcontagion.clearing._show import as_html, as_text, summary_of
from netcontagion.errors import ContagionError, NotSettledError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from netcontagion._status import Status
    from netcontagion.clearing._classes import DebtClasses
    from netcontagion.clearing._divisions import DividedClasses

__all__ = ["ClearingResult", "NodeValues"]


@dataclass(frozen=True, eq=False)
class NodeValues:
    """Plain read-only arrays of a clearing, each (n,) or (n, s), in the numeraire."""

    payments: NDArray[np.float64]
    payments_internal: NDArray[np.float64]
    payments_external: NDArray[np.float64]
    dues: NDArray[np.float64]
    external_assets: NDArray[np.float64]
    net_worth: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    default_wave: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            array = getattr(self, field.name)
            if array is not None:
                array.setflags(write=False)

    @property
    def shortfall(self) -> NDArray[np.float64]:
        """Dues less payments."""
        return self.dues - self.payments

    def defaulted(self, tolerance: float) -> NDArray[np.bool_]:
        """Whether the shortfall is more than ``tolerance`` times the dues."""
        return np.asarray(self.shortfall > tolerance * self.dues)


@dataclass(frozen=True, eq=False, repr=False)
class ClearingResult:
    """Result of a clearing; n nodes, one scenario or s of them.

    Per-node results are arrays (n,) or (n, s); with ``labels`` they are pandas Series, or DataFrames
    (node x scenario). Amounts are in the numeraire.

    Attributes
    ----------
    values : NodeValues
        The plain arrays behind the properties.
    liabilities : csr_array (n, n)
        What row i owes column j.
    model, external_rank, which : str
        What was solved: the model, the rank of external debt, the greatest or the least vector.
    enclosure : {"concave", "bracket", "none"}
        How ``lower`` and ``upper`` are known; of several scenarios the weakest.
    residual : float or ndarray (s,)
        Largest ``abs(Phi(p) - p) / dues``, or a bound of it: where bounds are p <= Phi(p) and p >= Phi(p), their width.
    iterations : int or ndarray (s,)
        Rounds of iteration and waves of exact solves together.
    status : Status
        How the solve ended; of several scenarios the first that did not settle. All: ``statuses``.
    tolerance : float
        ``defaulted`` is shortfall > tolerance x dues.
    conserves : bool
        Whether equities and external receipts add up to the external assets (no default costs).
    limited : bool
        Whether liability is limited: nobody pays more than it has. Not where a recovery is given, or debt is valued
        before anybody pays.
    numeraire : str
        Unit of money.
    labels : pandas.Index or None
        Names of the nodes.
    loss : pandas.DataFrame or None
        Node x (direct, contagion) in equity, from :func:`netcontagion.clear`.
    prices, sold : ndarray, Series or None
        Of a fire sale: price of each asset [num/unit] and units of it sold, (m,) or (m, s).
    classes : DebtClasses, DividedClasses or None
        Of ranked debt and cross-holdings: what is owed and paid in each class, and who holds whose equity.
    assumptions : tuple of str
        What was taken for granted, and what is not certain.
    """

    values: NodeValues
    liabilities: Any
    model: str
    external_rank: str
    which: str
    enclosure: str
    residual: float | NDArray[np.float64]
    iterations: int | NDArray[np.int64]
    status: Status
    statuses: tuple[Status, ...] = ()
    tolerance: float = SOLVENCY_TOLERANCE
    conserves: bool = True
    limited: bool = True
    numeraire: str = ""
    labels: pd.Index[Any] | None = None
    loss: pd.DataFrame | None = None
    prices: Any = None
    sold: Any = None
    classes: DebtClasses | DividedClasses | None = None
    assumptions: tuple[str, ...] = ()

    @property
    def payments(self) -> Any:
        """Everything a node pays, to all creditors in either rank."""
        return self._labelled(self.values.payments)

    @property
    def payments_internal(self) -> Any:
        """What a node pays to nodes of the network."""
        return self._labelled(self.values.payments_internal)

    @property
    def payments_external(self) -> Any:
        """What a node pays to creditors outside the network."""
        return self._labelled(self.values.payments_external)

    @property
    def dues(self) -> Any:
        """Everything a node owes, inside and outside."""
        return self._labelled(self.values.dues)

    @property
    def shortfall(self) -> Any:
        """Dues less payments."""
        return self._labelled(self.values.shortfall)

    @property
    def recovery_rate(self) -> Any:
        """Payments over dues; 1 where nothing is due."""
        return self._labelled(share_paid(self.values.payments, self.values.dues, empty=1.0))

    @property
    def defaulted(self) -> Any:
        """Whether the shortfall is more than ``tolerance`` times the dues."""
        return self._labelled(self.values.defaulted(self.tolerance))

    @property
    def net_worth(self) -> Any:
        """External assets plus receipts less all dues: negative for a defaulter, before default costs."""
        return self._labelled(self.values.net_worth)

    @property
    def equity(self) -> Any:
        """Net worth where positive, else 0."""
        return self._labelled(np.maximum(self.values.net_worth, 0.0))

    @property
    def default_costs(self) -> Any:
        """What a defaulter has, receipts included, and does not pay out: what its default destroys."""
        return self._labelled(self.values.shortfall + np.minimum(self.values.net_worth, 0.0))

    @property
    def payments_by_class(self) -> Any:
        """What a node pays to nodes of the network in each class, from the most senior; None without classes."""
        return None if self.classes is None else tuple(self._labelled(paid) for paid in self.classes.payments)

    @property
    def default_wave(self) -> Any:
        """Wave of the fictitious-default algorithm in which a node falls, -1 never; None if not asked for.

        0 means that the node cannot pay though all others do.
        """
        return None if self.values.default_wave is None else self._labelled(self.values.default_wave)

    @property
    def lower(self) -> Any:
        """Lower bound of the payments, see ``enclosure``."""
        return self._labelled(self.values.lower)

    @property
    def upper(self) -> Any:
        """Upper bound of the payments, see ``enclosure``."""
        return self._labelled(self.values.upper)

    @property
    def width(self) -> Any:
        """Largest (upper - lower) / dues: a float, or an array (s,)."""
        width = share_paid(self.values.upper - self.values.lower, self.values.dues).max(axis=0, initial=0.0)
        return float(width) if width.ndim == 0 else width

    def payment_matrix(self, scenario: int | None = None) -> Any:
        """Return what row i pays column j, as a ``csr_array`` (n, n).

        Parameters
        ----------
        scenario : int, optional
            Column of the scenario; needed where there are several.
        """
        if self.classes is not None:
            return self.classes.payment_matrix([self._column(paid, scenario) for paid in self.classes.payments])
        share = share_paid(self._column(self.values.payments_internal, scenario), self.liabilities.sum(axis=1))
        matrix = self.liabilities.copy()
        matrix.data = matrix.data * np.repeat(share, np.diff(matrix.indptr))
        return matrix

    def raise_for_status(self) -> ClearingResult:
        """Return this result, or raise ``NotSettledError`` carrying it where a scenario did not settle."""
        if self.status.settled:
            return self
        failed = [column for column, status in enumerate(self.statuses) if not status.settled]
        place = (
            f" in {len(failed)} of {len(self.statuses)} scenarios, first {failed[0]}" if len(self.statuses) > 1 else ""
        )
        residual = float(np.max(self.residual, initial=0.0))
        message = f"{self.model} did not settle{place}: {self.status} ({self.status.value}); residual {residual:.3g}"
        raise NotSettledError(message, self)

    def check(self) -> None:
        """Verify payments, limited liability and conservation to 1e-9 relative (or the residual, where that is larger).

        Raises
        ------
        ContagionError
            Naming every law that does not hold and the node where it fails most.
        """
        wrong = broken_laws(self)
        if wrong:
            raise ContagionError(f"{self.model}: " + "; ".join(wrong))

    def summary(self) -> Any:
        """Return the main figures: a Series, or a DataFrame with a row per scenario."""
        return summary_of(self)

    def __repr__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        return as_html(self)

    def _labelled(self, array: NDArray[Any]) -> Any:
        if self.labels is None:
            if array.flags.writeable:
                array.setflags(write=False)
            return array
        import pandas as pd

        return pd.Series(array, index=self.labels) if array.ndim == 1 else pd.DataFrame(array, index=self.labels)

    def _column(self, array: NDArray[np.float64], scenario: int | None) -> NDArray[np.float64]:
        if array.ndim == 1:
            if scenario is not None:
                raise ValueError(f"scenario={scenario}: this result has one scenario, leave it out")
            return array
        if scenario is None:
            raise ValueError(f"this result has {array.shape[1]} scenarios: choose one with scenario=")
        column: NDArray[np.float64] = array[:, scenario]
        return column
