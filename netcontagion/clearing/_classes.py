"""Debt in classes of seniority and cross-holdings of equity, as a result keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse

from netcontagion.clearing._shares import share_paid

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["DebtClasses"]


@dataclass(frozen=True, eq=False)
class DebtClasses:
    """What is owed and paid inside the network in each class, and who holds whose equity.

    Attributes
    ----------
    liabilities : tuple of csr_array (n, n)
        What row i owes column j, a matrix per class from the most senior, in money.
    payments : tuple of ndarray (n,) or (n, s)
        What each node pays inside the network to each class, in money.
    holdings : csr_array (n, n)
        Share of the equity of column j that row i holds.
    """

    liabilities: tuple[Any, ...]
    payments: tuple[NDArray[np.float64], ...]
    holdings: Any

    def __post_init__(self) -> None:
        for paid in self.payments:
            paid.setflags(write=False)

    @property
    def held_outside(self) -> NDArray[np.float64]:
        """Share of each node's equity that nobody in the network holds."""
        share: NDArray[np.float64] = 1.0 - self.holdings.sum(axis=0)
        return share

    def receipts(self, equity: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum what each node gets from its debtors, and from the equity it holds."""
        received: NDArray[np.float64] = self.holdings @ equity
        for owed, paid in zip(self.liabilities, self.payments, strict=True):
            received = received + owed.T @ _share(owed, paid)
        return received

    def payment_matrix(self, paid_by_class: list[NDArray[np.float64]]) -> Any:
        """Return what row i pays column j over all classes, from the payments (n,) of one scenario."""
        matrix = scipy.sparse.csr_array(self.holdings.shape)
        for owed, paid in zip(self.liabilities, paid_by_class, strict=True):
            matrix = matrix + scipy.sparse.diags_array(_share(owed, paid)) @ owed
        return matrix.tocsr()


def _share(owed: Any, paid: NDArray[np.float64]) -> NDArray[np.float64]:
    due = owed.sum(axis=1)
    return share_paid(paid, due if paid.ndim == 1 else np.broadcast_to(due[:, None], paid.shape))
