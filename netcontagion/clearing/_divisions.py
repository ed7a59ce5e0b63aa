"""How what is paid to a class is divided among its creditors, and who gets the next unit.

Every rule gives nobody less when more is paid, and is linear in pieces. Creditors outside the network stand in the
column after the last node.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse

from netcontagion.clearing._shares import share_paid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.clearing._system import Floats

__all__ = ["RULES", "Claims", "DividedClasses", "Division", "claims_of", "division_of"]


class Claims(NamedTuple):
    """Claims of one class, debtor by debtor; the creditor's number is that of its column."""

    debtor: NDArray[np.intp]
    creditor: NDArray[np.intp]
    amount: Floats
    due: Floats

    def in_order(self, order: NDArray[np.intp]) -> Claims:
        """Return the same claims in another order."""
        debtor, amount = self.debtor[order], self.amount[order]
        due: Floats = np.bincount(debtor, amount, len(self.due)).astype(float)
        return Claims(debtor, self.creditor[order], amount, due)


def claims_of(owed: Any, outside: Floats | None = None) -> Claims:
    """List what is owed inside the network and, in a column of its own, outside."""
    nodes, counts = owed.shape[0], np.diff(owed.indptr)
    debtor, creditor, amount = np.repeat(np.arange(nodes), counts), owed.indices.astype(np.intp), owed.data
    if outside is not None and outside.any():
        owes = np.flatnonzero(outside)
        debtor, amount = np.append(debtor, owes), np.append(amount, outside[owes])
        creditor = np.append(creditor, np.full(len(owes), nodes))
    claims = Claims(debtor, creditor, amount, np.zeros(nodes))
    return claims.in_order(np.argsort(debtor, kind="stable"))


@dataclass(frozen=True, eq=False)
class Division(abc.ABC):
    """Divides among ``claims`` what each debtor pays in all to the class, from 0 to what is due."""

    claims: Claims

    @abc.abstractmethod
    def paid(self, total: Floats) -> Floats:
        """Return what each claim is paid when the debtors pay ``total`` (n,)."""

    @abc.abstractmethod
    def next_unit(self, total: Floats, direction: float) -> tuple[Floats, Floats]:
        """Return the share of each claim in the next unit, paid more (1) or less (-1), and how far it is the same."""


class ProRata(Division):
    """Everybody gets the same share of what it is owed."""

    def paid(self, total: Floats) -> Floats:
        """Return what each claim is paid."""
        claims = self.claims
        paid: Floats = claims.amount * share_paid(total, claims.due)[claims.debtor]
        return paid

    def next_unit(self, total: Floats, direction: float) -> tuple[Floats, Floats]:
        """Return the share of each claim in the next unit, and how far it is the same."""
        claims = self.claims
        return claims.amount / claims.due[claims.debtor], claims.due - total if direction > 0 else total


@dataclass(frozen=True, eq=False)
class Queue(Division):
    """One creditor after the other is paid in full; the claims are in the order of the queues."""

    before: Floats

    def paid(self, total: Floats) -> Floats:
        """Return what each claim is paid."""
        paid: Floats = np.clip(total[self.claims.debtor] - self.before, 0.0, self.claims.amount)
        return paid

    def next_unit(self, total: Floats, direction: float) -> tuple[Floats, Floats]:
        """Return the share of each claim in the next unit, and how far it is the same."""
        claims, total = self.claims, total[self.claims.debtor]
        end = self.before + claims.amount
        if direction > 0:
            served, left = (total >= self.before) & (total < end), end - total
        else:
            served, left = (total > self.before) & (total <= end), total - self.before
        room: Floats = np.bincount(claims.debtor[served], left[served], len(claims.due)).astype(float)
        return served.astype(float), room


@dataclass(frozen=True, eq=False)
class EqualLoss(Division):
    """Everybody lacks the same amount, or all it is owed if that is less; claims are in falling order of amount.

    ``place`` counts the claims of each debtor, which start at ``first``; ``upto`` sums them up, and from ``begins`` on
    the next one is paid something.
    """

    first: NDArray[np.intp]
    place: NDArray[np.intp]
    upto: Floats
    begins: Floats

    def paid(self, total: Floats) -> Floats:
        """Return what each claim is paid."""
        claims = self.claims
        count, last = self._served(self.begins < total[claims.debtor])
        some, missing = count > 0, np.zeros(len(total))
        missing[some] = np.maximum(self.upto[last] - total[some], 0.0) / count[some]
        missing[total >= claims.due] = 0.0
        left = np.maximum(claims.amount - missing[claims.debtor], 0.0)
        paid: Floats = np.where(self.place < count[claims.debtor], left, 0.0)
        return paid

    def next_unit(self, total: Floats, direction: float) -> tuple[Floats, Floats]:
        """Return the share of each claim in the next unit, and how far it is the same."""
        claims, given = self.claims, total[self.claims.debtor]
        count, last = self._served(self.begins <= given if direction > 0 else self.begins < given)
        some, room = count > 0, np.zeros(len(total))
        if direction > 0:
            begins, debtor = np.append(self.begins, 0.0), np.append(claims.debtor, -1)
            more = debtor[last + 1] == debtor[last]
            room[some] = np.where(more, begins[last + 1], claims.due[some]) - total[some]
        else:
            room[some] = total[some] - self.begins[last]
        each = np.divide(1.0, count, out=np.zeros(len(total)), where=some)
        return np.where(self.place < count[claims.debtor], each[claims.debtor], 0.0), np.maximum(room, 0.0)

    def _served(self, served: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return how many claims of each debtor are served, and the last of them where there are some."""
        count = np.bincount(self.claims.debtor[served], minlength=len(self.claims.due))
        return count, (self.first + count - 1)[count > 0]


@dataclass(frozen=True, eq=False)
class EqualPayment(Division):
    """Everybody gets the same amount, or all it is owed if that is less: what is missing is divided as equal losses."""

    missing: EqualLoss

    def paid(self, total: Floats) -> Floats:
        """Return what each claim is paid."""
        paid: Floats = self.claims.amount - self.missing.paid(self.claims.due - total)
        return paid

    def next_unit(self, total: Floats, direction: float) -> tuple[Floats, Floats]:
        """Return the share of each claim in the next unit, and how far it is the same."""
        return self.missing.next_unit(self.claims.due - total, -direction)


def _queue(claims: Claims, priority: Floats) -> Queue:
    claims = claims.in_order(np.lexsort((claims.creditor, priority, claims.debtor)))
    place, upto = _place(claims), _running_sum(claims)
    return Queue(claims, np.where(place > 0, np.append(0.0, upto)[:-1], 0.0))


def _equal_loss(claims: Claims) -> EqualLoss:
    claims = claims.in_order(np.lexsort((-claims.amount, claims.debtor)))
    first = np.searchsorted(claims.debtor, np.arange(len(claims.due)))
    place, upto = _place(claims), _running_sum(claims)
    return EqualLoss(claims, first, place, upto, np.maximum(upto - (place + 1) * claims.amount, 0.0))


def _place(claims: Claims) -> NDArray[np.intp]:
    """Count the claims of each debtor from 0."""
    return np.arange(len(claims.debtor)) - np.searchsorted(claims.debtor, claims.debtor)


def _running_sum(claims: Claims) -> Floats:
    """Sum up the claims of each debtor, one after the other."""
    upto = claims.amount.copy()
    ends = np.searchsorted(claims.debtor, np.arange(len(claims.due) + 1))
    for first, last in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        if last - first > 1:
            np.cumsum(upto[first:last], out=upto[first:last])
    return upto


RULES = ("pro_rata", "queue", "equal_loss", "equal_payment")


def division_of(rule: str, claims: Claims, priority: Floats) -> Division:
    """Set up a rule; ``priority`` is the place of each claim in its queue, ties in the order of columns."""
    if rule == "queue":
        return _queue(claims, priority)
    if rule == "equal_loss":
        return _equal_loss(claims)
    if rule == "equal_payment":
        missing = _equal_loss(claims)
        return EqualPayment(missing.claims, missing)
    return ProRata(claims)


# ------------------------------------------------------------------------------------------------------- in a result


@dataclass(frozen=True, eq=False)
class DividedClasses:
    """What is owed and paid inside the network in each class, as a result keeps it.

    The rules are those among the creditors inside: what they get together they divide as with creditors outside.

    Attributes
    ----------
    liabilities : tuple of csr_array (n, n)
        What row i owes column j, a matrix per class from the most senior, in money.
    payments : tuple of ndarray (n,) or (n, s)
        What each node pays inside the network to each class, in money.
    divisions : tuple of Division
        Rule of each class.
    """

    liabilities: tuple[Any, ...]
    payments: tuple[Floats, ...]
    divisions: tuple[Division, ...]

    def __post_init__(self) -> None:
        for paid in self.payments:
            paid.setflags(write=False)

    @property
    def holdings(self) -> Any:
        """Share of the equity of column j that row i holds: none."""
        return scipy.sparse.csr_array(self.liabilities[0].shape)

    @property
    def held_outside(self) -> Floats:
        """Share of each node's equity that nobody in the network holds: all."""
        return np.ones(self.liabilities[0].shape[0])

    def receipts(self, equity: Floats) -> Floats:
        """Sum what each node gets from its debtors; ``equity`` (n,) or (n, s) gives the shape."""
        columns = np.atleast_2d(equity.T)
        received = [self._received([np.atleast_2d(one.T)[at] for one in self.payments]) for at in range(len(columns))]
        return np.reshape(received, columns.shape).T if equity.ndim == 2 else received[0]

    def payment_matrix(self, paid_by_class: list[Floats]) -> Any:
        """Return what row i pays column j over all classes, from the payments (n,) of one scenario."""
        matrix = scipy.sparse.csr_array(self.liabilities[0].shape)
        for division, total in zip(self.divisions, paid_by_class, strict=True):
            places = division.claims.debtor, division.claims.creditor
            matrix = matrix + scipy.sparse.coo_array((division.paid(total), places), shape=matrix.shape).tocsr()
        return matrix

    def _received(self, paid_by_class: list[Floats]) -> Floats:
        received = np.zeros(self.liabilities[0].shape[0])
        for division, total in zip(self.divisions, paid_by_class, strict=True):
            received = received + np.bincount(division.claims.creditor, division.paid(total), len(received))
        return received
