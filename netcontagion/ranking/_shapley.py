"""Shapley values: what each of several players adds to a number, averaged over all orders in which they come in."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import shapley_weights
from netcontagion.errors import ContagionError
from netcontagion.ranking._hit import hit_by, only
from netcontagion.ranking._runs import losses
from netcontagion.ranking._study import KINDS, NotApplicable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from netcontagion.ranking._study import Floats, Scores, Study

    Masks = NDArray[np.bool_]
    Seed = int | np.random.Generator | None

__all__ = ["of_the_shocked", "shapley"]

MOST_EXACT = 10
"""Players up to which every set of them is valued: 1,024."""
SAMPLES = 200
"""Orders that are drawn beyond."""
MOST_PLAYERS = 200
"""Players of the measure of a study."""
CONFIDENCE = 0.95


def shapley(
    value: Callable[[frozenset[Any]], float],
    players: Collection[Hashable],
    *,
    samples: int | None = None,
    seed: Seed = None,
) -> pd.DataFrame:
    r"""Split a number over players by the Shapley value, exactly for up to ten of them, from sampled orders beyond.

    Player i bears its marginal contribution averaged over all orders of the n players N::

        phi_i = sum over S of N without i of |S|! (n - |S| - 1)! / n! (v(S with i) - v(S))

    Over players it adds up to ``v(N) - v(nobody)``, sampled or not.

    Parameters
    ----------
    value : callable
        ``v(S)`` of a frozenset of players, a finite number; asked once for every set.
    players : collection of hashable
        Who the number is split over, each once.
    samples : int, optional
        Orders to draw, at least 2, each of which takes n values. By default all sets are valued with up to 10 players,
        2^n values, and 200 orders are drawn with more.
    seed : int or numpy Generator, optional
        For the orders.

    Returns
    -------
    DataFrame
        By player: ``value``, ``standard_error``, and ``lower`` and ``upper``, the 95 % interval of a sampled value from
        Student's t over independent orders. Exact values have an error of 0.

    Raises
    ------
    ValueError
        A player that comes twice, or too few samples.
    ContagionError
        A value that is no finite number.

    References
    ----------
    Shapley, L. S. (1953). A value for n-person games. https://doi.org/10.1515/9781400881970-018

    Castro, J., Gomez, D., Tejada, J. (2009). Polynomial calculation of the Shapley value based on sampling. Computers
    and Operations Research 36(5), 1726-1730. https://doi.org/10.1016/j.cor.2008.04.004

    Examples
    --------
    >>> from netcontagion.ranking import shapley
    >>> shapley(lambda who: 6.0 if {"a", "b"} <= who else 0.0, ["a", "b", "c"])["value"].round(9).to_dict()
    {'a': 3.0, 'b': 3.0, 'c': 0.0}
    """
    import pandas as pd

    named = list(players)
    if len(set(named)) < len(named):
        twice = next(name for name in named if named.count(name) > 1)
        raise ValueError(f"player {twice!r} comes twice; name each once")

    def values(masks: Masks) -> Floats:
        sets = (frozenset(named[place] for place in np.flatnonzero(mask).tolist()) for mask in masks)
        return np.array([float(value(one)) for one in sets])

    found, error, half = split(values, len(named), samples=samples, seed=seed)
    table = {"value": found, "standard_error": error, "lower": found - half, "upper": found + half}
    return pd.DataFrame(table, index=pd.Index(named, tupleize_cols=False, name="player"))


def split(
    values: Callable[[Masks], Floats], size: int, *, samples: int | None = None, seed: Seed = None
) -> tuple[Floats, Floats, Floats]:
    """Return Shapley values, standard errors and half the width of the intervals; ``values`` of many sets at once."""
    if samples is not None and samples < 2:
        raise ValueError(f"samples is {samples!r}; allowed: 2 or more, for a standard error")
    if samples is None and size <= MOST_EXACT:
        return _exact(values, size), np.zeros(size), np.zeros(size)
    return _sampled(values, size, samples or SAMPLES, np.random.default_rng(seed))


def _exact(values: Callable[[Masks], Floats], size: int) -> Floats:
    numbers = np.arange(2**size)
    masks = (numbers[:, None] >> np.arange(size) & 1).astype(bool)
    found = _finite(values(masks))
    weights = np.array([shapley_weights(size, number) for number in numbers.tolist()]).reshape(len(numbers), size)
    return np.asarray((found - found[0]) @ weights)


def _sampled(
    values: Callable[[Masks], Floats], size: int, samples: int, rng: np.random.Generator
) -> tuple[Floats, Floats, Floats]:
    """Average over random orders; sets that come again are valued once."""
    from scipy.stats import t

    orders = rng.permuted(np.tile(np.arange(size), (samples, 1)), axis=1)
    ranks = np.argsort(orders, axis=1)
    masks = (ranks[:, None, :] < np.arange(size + 1)[None, :, None]).reshape(-1, size)
    sets, place = np.unique(np.packbits(masks, axis=1), axis=0, return_inverse=True)
    found = _finite(values(np.unpackbits(sets, axis=1, count=size).astype(bool)))
    steps = np.diff(found[place.ravel()].reshape(samples, size + 1), axis=1)
    gains = np.take_along_axis(steps, ranks, axis=1)
    error = gains.std(axis=0, ddof=1) / math.sqrt(samples)
    return gains.mean(axis=0), error, error * float(t.ppf(0.5 + CONFIDENCE / 2, samples - 1))


def _finite(found: Floats) -> Floats:
    if not np.isfinite(found).all():
        raise ContagionError(f"the value of a set of players is {found[~np.isfinite(found)][0]}, which is no number")
    return found


# as a measure of a study ------------------------------------------------------------------------------------------


def of_the_shocked(study: Study) -> Scores:
    """Score the nodes that the shock hits by what they add to the loss of all nodes [num]; all others have 0.

    v(S): what all nodes lose when the shock hits only S. What it does to all depths is no player and always there.
    Beyond ten players it is an estimate from 200 orders; :func:`shapley` gives its standard errors.
    """
    net = study.net
    players = hit_by(net, study.shock)
    if not players:
        raise NotApplicable("the shock hits nobody; give one that does")
    if len(players) > MOST_PLAYERS:
        message = f"the shock hits {len(players):,} nodes, and at most {MOST_PLAYERS} are split over"
        raise NotApplicable(f"{message}; use ranking.shapley with groups of them")

    def values(masks: Masks) -> Floats:
        chosen: Sequence[Any] = [[players[place] for place in np.flatnonzero(mask).tolist()] for mask in masks]
        return losses(study, [only(net, study.shock, one) for one in chosen])

    found = split(values, len(players), seed=0)[0]
    scores = {kind: np.zeros(study.size(kind)) for kind in KINDS}
    for player, share in zip(players, found.tolist(), strict=True):
        scores[player.kind][player.place] = share
    return scores
