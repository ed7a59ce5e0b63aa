"""Failures that follow a failure, recovery 0: who fails in the wake of each node, and what others lose by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.clearing import Column, checked_nodes, per_node, threshold
from netcontagion.ranking._books import NOISE, blocks, of_one_class
from netcontagion.ranking._given import labelled
from netcontagion.ranking._study import NotApplicable

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from netcontagion.ranking._study import Floats, Scores, Study

__all__ = ["contagion_index", "expected_loss", "furfine"]

COMMON_LOSSES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
"""Shares of their equity that all nodes lose at once, equally likely: the shocks of ``expected_loss``."""


def contagion_index(
    liabilities: Any,
    equity: ArrayLike,
    losses: ArrayLike | None = None,
    *,
    probabilities: ArrayLike | None = None,
    recovery: ArrayLike = 0.0,
) -> Any:
    r"""Compute the contagion index: what others are expected to lose by contagion when a node defaults.

    In scenario s every node j has lost ``losses_js`` of its equity; then node i defaults, and whoever's loss exceeds
    its equity after it, creditors losing ``1 - recovery`` of their claims. The index of i is the mean over scenarios of
    ``sum_j min(loss_js, equity_j) - min(losses_js, equity_j)`` over all other nodes j.

    Parameters
    ----------
    liabilities : array_like or sparse (n, n)
        What row i owes column j, in money; not negative, nothing on the diagonal.
    equity : array_like (n,)
        Equity before the losses, in money; not negative.
    losses : array_like (n,) or (n, s), optional
        What every node loses first, by scenario, in money; not negative. By default nothing, in one scenario.
    probabilities : array_like (s,), optional
        Weights of the scenarios, used as shares of their sum; by default all are equally likely. Give the probability
        of each scenario, or 0 where the node in question would not default, to condition as the source does.
    recovery : float or array_like (n,)
        Share of its debt that a failed node pays, from 0 to 1; 0 in the source: nothing is paid in time.

    Returns
    -------
    ndarray (n,), or Series where the matrix has labels
        Index of every node, in money.

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the numbers.
    ValueError
        Probabilities or a recovery that are out of range.

    Notes
    -----
    A node whose first loss already exceeds its equity fails in every run of that scenario, and what it costs others
    counts for everybody. Who has no equity fails by the first loss.

    References
    ----------
    Cont, R., Moussa, A., Santos, E. B. (2013). Network structure and systemic risk in banking systems. In: Handbook on
    Systemic Risk, Cambridge University Press, 327-368. https://doi.org/10.1017/CBO9781139151184.018

    Examples
    --------
    >>> from netcontagion.ranking import contagion_index
    >>> chain = [[0, 5, 0], [0, 0, 9], [0, 0, 0]]
    >>> contagion_index(chain, [1, 4, 6]).tolist()
    [10.0, 6.0, 0.0]
    """
    columns = {"equity": Column(equity, least=0.0, dimensions=(1,)), "losses": Column(losses, least=0.0)}
    owed, found, labels = checked_nodes(liabilities, columns)
    buffer = found["equity"]
    given = found.get("losses", np.zeros(len(buffer)))
    scenarios = given if given.ndim == 2 else given[:, None]
    weights = _shares(probabilities, scenarios.shape[1])
    lost = 1.0 - per_node("recovery", recovery, len(buffer), labels)
    index = np.zeros(len(buffer))
    for weight, first in zip(weights, scenarios.T, strict=True):
        index += weight * _lost_by_others(owed, buffer, first, lost)
    return labelled(index, labels)


def _shares(given: ArrayLike | None, count: int) -> Floats:
    weights = np.ones(count) if given is None else np.asarray(given, dtype=float)
    if weights.shape != (count,) or not (np.isfinite(weights) & (weights >= 0)).all() or not weights.sum() > 0:
        raise ValueError(f"probabilities: give {count} numbers that are not negative, one per scenario, not all 0")
    return np.asarray(weights / weights.sum())


def _lost_by_others(owed: Any, buffer: Floats, first: Floats, lost: Floats) -> Floats:
    """Let every node fail alone after the first losses; return what the others lose on top, no more than they have.

    Who owes nothing, or fails anyway, changes nothing for the others: all of them share one run.
    """
    kept = np.minimum(first, buffer)
    anyway = threshold(owed, buffer, first, loss_given_default=lost).values
    more = np.minimum(anyway.loss, buffer) - kept
    found: Floats = more.sum() - more
    alone = np.flatnonzero((np.diff(owed.indptr) > 0) & ~(anyway.default_wave >= 0))
    for seeds in blocks(alone, len(buffer)):
        loss = threshold(owed, buffer, first, defaulted=_each(seeds, len(buffer)), loss_given_default=lost).values.loss
        more = np.minimum(loss, buffer[:, None]) - kept[:, None]
        more[seeds, np.arange(len(seeds))] = 0.0
        found[seeds] = more.sum(axis=0)
    return found


def _each(seeds: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    """Mark one node in every column."""
    mask = np.zeros((size, len(seeds)), dtype=bool)
    mask[seeds, np.arange(len(seeds))] = True
    return mask


# as measures of a study -------------------------------------------------------------------------------------------


def expected_loss(study: Study) -> Scores:
    """Score by the contagion index after the shock, over common losses of 0 to 50 % of equity."""
    owed, buffer, failed = _after(study)
    buffer = np.where(failed, 0.0, buffer)
    losses = buffer[:, None] * np.array(COMMON_LOSSES)
    losses[failed] = 1.0  # more than nothing: they fail in every scenario
    return study.by_kind(contagion_index(owed, buffer, losses))


def furfine(study: Study) -> Scores:
    """Score by the equity of the other nodes that fail in the wake of each, recovery 0."""
    owed, buffer, start = _after(study)
    anyway = threshold(owed, buffer, defaulted=start).values.default_wave >= 0
    found = np.zeros(len(buffer))
    for seeds in blocks(np.flatnonzero((np.diff(owed.indptr) > 0) & ~anyway), len(buffer)):
        marked = _each(seeds, len(buffer)) | start[:, None]
        failed = threshold(owed, buffer, defaulted=marked).values.default_wave >= 0
        failed &= ~anyway[:, None]
        failed[seeds, np.arange(len(seeds))] = False
        found[seeds] = buffer @ failed
    return study.by_kind(found)


def _after(study: Study) -> tuple[Any, Floats, NDArray[np.bool_]]:
    """Return who owes whom after the shock, the equity that is left, at least 0, and whom the shock alone makes fail.

    Those are the nodes that it names, and those that had equity before and owe more than they have after it.
    """
    of_one_class(study)
    case = study.case
    if not case.owed.nnz:
        raise NotApplicable("nobody owes anybody")
    had, left = case.book_equity(case.before), case.book_equity(case.after)
    noise = NOISE * (case.after.assets + case.owed.sum(axis=0))
    failed = case.defaulted | ((had > noise) & (left < -noise))
    return case.owed, np.maximum(left, 0.0), failed
