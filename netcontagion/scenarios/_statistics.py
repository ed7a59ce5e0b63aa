"""Estimates from scenarios that count alike, with intervals that hold the true value as often as they say."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from netcontagion.scenarios._nodes import Floats

__all__ = [
    "Estimate",
    "check_share",
    "expected_shortfall",
    "mean",
    "quantile",
    "share",
    "shares",
    "tail_weights",
]


class Estimate(NamedTuple):
    """A number and the interval it is in, with the confidence asked for."""

    value: float
    lower: float
    upper: float


def check_share(name: str, value: float) -> float:
    """Return a number strictly between 0 and 1, or refuse it."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
        raise ValueError(f"{name} is {value!r}; allowed: a share above 0 and below 1, for example 0.95")
    return float(value)


def quantile(values: Floats, level: float, confidence: float) -> Estimate:
    """Smallest value that a share ``level`` of the values does not exceed, between two order statistics.

    The number of values below the true quantile is binomial (s, level): the interval runs between the order statistics
    at its quantiles (1 - c) / 2 and (1 + c) / 2 + 1, whatever the distribution; infinite where there is none.
    """
    from scipy.stats import binom

    ranked, size = np.sort(values), len(values)
    low, high = binom.ppf([(1 - confidence) / 2, (1 + confidence) / 2], size, level).astype(int)
    lower = float(ranked[low - 1]) if low > 0 else -np.inf
    upper = float(ranked[high]) if high < size else np.inf
    return Estimate(float(ranked[rank(size, level) - 1]), lower, upper)


def rank(size: int, level: float) -> int:
    """Rank, from 1, of the smallest value that a share of all does not exceed."""
    return max(1, int(np.ceil(round(level * size, 9))))


def tail_weights(values: Floats, level: float) -> Floats:
    """Weights of the scenarios in the mean of the worst share 1 - level; the last one counts in part.

    Of equals the earlier scenario comes first.
    """
    size = len(values)
    number = max(round((1 - level) * size, 9), 0.0)
    order = np.lexsort((np.arange(size), -values))
    weights, whole = np.zeros(size), int(number)
    if number < 1:
        weights[order[0]] = 1.0
        return weights
    weights[order[:whole]] = 1 / number
    if whole < size:
        weights[order[whole]] = (number - whole) / number
    return weights


def expected_shortfall(values: Floats, level: float, confidence: float) -> Estimate:
    """Mean of the worst share 1 - level, with a Student interval from its influence function.

    The estimate is the mean of v + max(x - v, 0) / (1 - level), v the quantile, up to terms that vanish faster; the
    interval takes the spread of these, and as many degrees of freedom as there are scenarios in the tail, less one.
    """
    from scipy.stats import t

    size = len(values)
    estimate = float(tail_weights(values, level) @ values)
    if size < 2:
        return Estimate(estimate, -np.inf, np.inf)
    at = np.sort(values)[rank(size, level) - 1]
    spread = np.maximum(values - at, 0.0).std(ddof=1) / (1 - level) / np.sqrt(size)
    width = float(t.ppf((1 + confidence) / 2, max(round((1 - level) * size) - 1, 1)) * spread)
    return Estimate(estimate, estimate - width, estimate + width)


def mean(values: Floats, confidence: float) -> Estimate:
    """Mean, with a Student interval."""
    from scipy.stats import t

    size, middle = len(values), float(values.mean())
    if size < 2:
        return Estimate(middle, -np.inf, np.inf)
    width = float(t.ppf((1 + confidence) / 2, size - 1) * values.std(ddof=1) / np.sqrt(size))
    return Estimate(middle, middle - width, middle + width)


def shares(hits: Floats, size: int, confidence: float) -> tuple[Floats, Floats, Floats]:
    """Shares of scenarios, with the interval of Wilson: where a test of the true share would not reject it."""
    from scipy.stats import norm

    z = float(norm.ppf((1 + confidence) / 2))
    found = hits / size
    middle = (found + z * z / (2 * size)) / (1 + z * z / size)
    width = z / (1 + z * z / size) * np.sqrt(found * (1 - found) / size + z * z / (4 * size * size))
    return (
        found,
        np.where(hits > 0, np.maximum(middle - width, 0.0), 0.0),
        np.where(hits < size, np.minimum(middle + width, 1.0), 1.0),
    )


def share(hits: int, size: int, confidence: float) -> Estimate:
    """Share of scenarios, with the interval of Wilson."""
    return Estimate(*(float(one[0]) for one in shares(np.array([float(hits)]), size, confidence)))
