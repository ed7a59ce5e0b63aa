"""Correlated draws: lognormal price factors, or with the fat tails of Student's t."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from netcontagion.errors import Problem, SchemaError, nearest
from netcontagion.scenarios._axes import count, in_order, price_scenarios, raise_for, size, wrong_numbers

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from netcontagion.scenarios._axes import Seed
    from netcontagion.scenarios._scenarios import Scenarios

    Floats = NDArray[np.float64]
    Correlation = float | Mapping[Any, Mapping[Any, float]] | pd.DataFrame

__all__ = ["correlated"]

TOLERANCE = 1e-9  # by which a table of correlations may be off symmetry, a unit diagonal and a lowest eigenvalue of 0


def correlated(
    n: int,
    *,
    volatility: Mapping[Any, float],
    correlation: Correlation = 0.0,
    horizon: float = 1.0,
    distribution: Literal["normal", "student"] = "normal",
    freedom: float | None = None,
    seed: Seed = None,
    family: bool = False,
) -> Scenarios:
    """Draw price changes of several assets together.

    With C the correlation matrix, C^(1/2) its symmetric root, and g independent standard normals, asset a changes by
    x_a, of median 0 and never below -1::

        ln(1 + x_a) = sigma_a sqrt(horizon) z_a,     z = C^(1/2) g                                    normal
                                                     z = C^(1/2) g sqrt((nu - 2) / w), w ~ chi2(nu)   student

    All assets share w, so that they are extreme together; z has covariance C either way.

    Parameters
    ----------
    n : int
        Scenarios.
    volatility : mapping
        Standard deviation sigma of the log return over one unit of time, by asset; 0 or more.
    correlation : float, DataFrame or nested mapping, default 0.0
        Of the log returns: one number for every pair, or a table by asset and asset. Of a symmetric table one half is
        enough, and the diagonal may be left out.
    horizon : float, default 1.0
        Time over which prices change, in the unit of time of ``volatility``.
    distribution : {"normal", "student"}, default "normal"
        Of the log returns.
    freedom : float, optional
        Degrees of freedom nu of Student's t, above 2; needed there, and only there.
    seed : int, numpy Generator or None
        Source of randomness; equal seeds give equal scenarios, in whatever order assets are named.
    family : bool, default False
        Whether what follows a named asset moves with it, see :meth:`netcontagion.Shock.price`.

    Returns
    -------
    Scenarios
        A parameter for each asset.

    Raises
    ------
    SchemaError
        Every number that is not allowed, pairs without a correlation, a table that is no correlation matrix.

    References
    ----------
    Glasserman, Monte Carlo Methods in Financial Engineering (2004), section 2.3.3, doi:10.1007/978-0-387-21617-1;
    McNeil, Frey and Embrechts, Quantitative Risk Management (2015), section 6.2 (normal variance mixtures).

    Examples
    --------
    >>> from netcontagion import scenarios
    >>> made = scenarios.correlated(1000, volatility={"ETH": 0.05, "BTC": 0.04}, correlation=0.8, seed=1)
    >>> len(made), float(made.parameters[["ETH", "BTC"]].corr().iloc[0, 1].round(1))
    (1000, 0.8)
    """
    problems = count("correlated", "n", n) + size("correlated", "horizon", horizon)
    problems += _distribution_problems(distribution, freedom) + _volatility_problems(volatility)
    raise_for(problems)
    given = list(volatility)
    order = in_order(given)
    names = [given[place] for place in order]
    root = _root(_matrix(names, correlation))

    rng = np.random.default_rng(seed)
    # no matrix product: how that rounds may depend on n
    normals = rng.standard_normal((n, len(names)))
    together = sum(normals[:, [place]] * root[place] for place in range(len(names)))
    if distribution == "student" and freedom is not None:
        together = together * np.sqrt((freedom - 2) / rng.chisquare(freedom, size=(n, 1)))
    sigma = np.array([volatility[name] for name in names], dtype=float)
    with np.errstate(over="ignore"):  # reported as no number
        changes = np.expm1(sigma * np.sqrt(horizon) * together)
    for place, name in enumerate(names):
        problems += wrong_numbers("correlated", f"change of {name!r}", "price", changes[:, place])
    raise_for(problems)
    in_given_order = np.empty_like(changes)
    in_given_order[:, order] = changes
    return price_scenarios(given, in_given_order, family=family)


def _distribution_problems(distribution: str, freedom: float | None) -> list[Problem]:
    if distribution not in ("normal", "student"):
        near = nearest(distribution, ("normal", "student"))
        cure = f"did you mean {near[0]!r}?" if near else "choose one of them"
        return [Problem("correlated", "distribution", None, repr(distribution), "'normal' or 'student'", cure)]
    if distribution == "student":
        return size("correlated", "freedom", freedom, above=2)
    if freedom is not None:
        cure = "leave it out, or say distribution='student'"
        return [Problem("correlated", "freedom", None, repr(freedom), "nothing: a normal has none", cure)]
    return []


def _volatility_problems(volatility: Any) -> list[Problem]:
    if not isinstance(volatility, Mapping) or not volatility:
        cure = "for example volatility={'ETH': 0.05}"
        return [Problem("correlated", "volatility", None, repr(volatility), "a mapping of asset to a number", cure)]
    items = volatility.items()
    return [
        problem
        for name, value in items
        for problem in size("correlated", f"volatility[{name!r}]", value, above=-np.inf, least=0)
    ]


def _matrix(names: list[Any], correlation: Any) -> Floats:
    """Correlations of the assets in order, completed by symmetry, or one error with everything wrong with them."""
    import pandas as pd

    if not isinstance(correlation, (Mapping, pd.DataFrame)):
        raise_for(size("correlated", "correlation", correlation, above=-np.inf, least=-1))
        return _valid(names, np.where(np.eye(len(names), dtype=bool), 1.0, float(correlation)))
    table = pd.DataFrame(correlation).apply(pd.to_numeric, errors="coerce")
    unknown = [name for name in dict.fromkeys([*table.columns, *table.index]) if name not in names]
    if unknown:
        raise SchemaError(_stranger(name, names) for name in unknown)
    square = table.reindex(index=names, columns=names)
    values = square.fillna(square.T).to_numpy(copy=True)
    empty = np.isnan(values.diagonal())
    values[empty, empty] = 1.0
    return _valid(names, values)


def _stranger(name: Any, names: list[Any]) -> Problem:
    near = nearest(name, names)
    cure = f"did you mean {near[0]!r}?" if near else "give its volatility, or leave it out"
    return Problem("correlated", "correlation", None, repr(name), "assets that have a volatility", cure)


def _valid(names: list[Any], values: Floats) -> Floats:
    """Refuse what is no correlation matrix, naming every pair."""
    problems = []
    for row, one in enumerate(names):
        for column, other in enumerate(names[: row + 1]):
            pair, value = f"correlation[{one!r}, {other!r}]", values[row, column]
            if np.isnan(value):
                cure = "give it once, on either side"
                problems.append(Problem("correlated", pair, None, "missing, or no number", "a number in [-1, 1]", cure))
            elif row == column and abs(value - 1) > TOLERANCE:
                problems.append(Problem("correlated", pair, None, f"{value:g}", "1", "correct it, or leave it out"))
            elif abs(value) > 1 + TOLERANCE:
                problems.append(
                    Problem("correlated", pair, None, f"{value:g}", "a number in [-1, 1]", "correct the number")
                )
            elif abs(value - values[column, row]) > TOLERANCE:
                both = f"{value:g} and {values[column, row]:g}"
                problems.append(
                    Problem("correlated", pair, None, both, "the same on both sides", "correct one of them")
                )
    if not problems and (lowest := np.linalg.eigvalsh(values)[0]) < -TOLERANCE * len(names):
        allowed, cure = (
            "no eigenvalue below 0",
            "no assets can be correlated like this: use an estimate that is a matrix of one sample",
        )
        problems.append(Problem("correlated", "correlation", None, f"lowest eigenvalue {lowest:.3g}", allowed, cure))
    raise_for(problems)
    return values


def _root(matrix: Floats) -> Floats:
    """Return the symmetric root of a positive semi-definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    root: Floats = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    return root
