"""Scenarios out of a table of past returns: its windows, and blocks of it drawn again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from netcontagion.errors import Problem
from netcontagion.scenarios._axes import count, price_scenarios, raise_for, size, wrong_numbers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from netcontagion.scenarios._axes import Seed
    from netcontagion.scenarios._scenarios import Scenarios

    Floats = NDArray[np.float64]
    Codes = NDArray[np.int64]

__all__ = ["bootstrap", "historical"]


def historical(
    returns: pd.DataFrame | Mapping[Any, ArrayLike], window: int = 1, *, overlap: bool = False, family: bool = False
) -> Scenarios:
    """Replay what happened: each window of past returns is a scenario, compounded.

    x_a = (1 + r_a,1) (1 + r_a,2) ... (1 + r_a,window) - 1. The last window ends with the last row; the oldest rows that
    do not fill a window are left out.

    Parameters
    ----------
    returns : DataFrame or mapping of columns
        Simple returns, -0.3 for minus 30 %: a row per period, oldest first, a column per asset. No gaps.
    window : int, default 1
        Rows of a window.
    overlap : bool, default False
        Whether a window starts at every row, else after the one before.
    family : bool, default False
        Whether what follows a named asset moves with it, see :meth:`netcontagion.Shock.price`.

    Returns
    -------
    Scenarios
        Oldest first; the parameter ``date`` is the label of a window's last row, then one for each asset.

    Raises
    ------
    SchemaError
        Returns that are missing or below -1, fewer rows than a window.

    Examples
    --------
    >>> import pandas as pd
    >>> from netcontagion import scenarios
    >>> past = pd.DataFrame({"ETH": [-0.1, -0.2, 0.5, -0.5]}, index=pd.date_range("2024-01-01", periods=4))
    >>> scenarios.historical(past, window=2).parameters["ETH"].round(2).tolist()
    [-0.28, -0.25]
    """
    table, values, problems = _read("historical", returns, "date")
    problems += count("historical", "window", window)
    if not problems and window > len(table):
        message = f"{len(table)} rows, a window has {window}"
        problems.append(Problem("historical", "returns", None, message, "at least a window", "give more rows"))
    raise_for(problems)
    step = 1 if overlap else window
    starts = np.arange(len(table) - window, -1, -step)[::-1]
    changes = _compounded(values, (starts + row for row in range(window)))
    dates = table.index[starts + window - 1]
    return price_scenarios(table.columns, changes, family=family, before={"date": dates})


def bootstrap(
    returns: pd.DataFrame | Mapping[Any, ArrayLike],
    n: int,
    *,
    block: float,
    horizon: int = 1,
    method: Literal["stationary", "circular"] = "stationary",
    seed: Seed = None,
    family: bool = False,
) -> Scenarios:
    """Draw blocks of past returns again, all assets together, until ``horizon`` rows are full, and compound them.

    Row t of a draw is I_t, of T rows in the table; the first is uniform, and, with U_t uniform again::

        I_t = U_t            where a block ends, else
        I_t = I_t-1 + 1      (the first row follows the last)

    A stationary bootstrap ends a block after each row with probability 1 / block, so that blocks are geometric of mean
    ``block``; a circular one after every ``block`` rows. Every row is equally likely at every t.

    Parameters
    ----------
    returns : DataFrame or mapping of columns
        Simple returns, -0.3 for minus 30 %: a row per period, oldest first, a column per asset. No gaps.
    n : int
        Scenarios.
    block : float
        Rows of a block, 1 or more: the mean (stationary) or the number (circular, whole).
    horizon : int, default 1
        Rows of a scenario.
    method : {"stationary", "circular"}, default "stationary"
        How blocks end.
    seed : int, numpy Generator or None
        Source of randomness; equal seeds give equal scenarios, in whatever order the columns stand.
    family : bool, default False
        Whether what follows a named asset moves with it, see :meth:`netcontagion.Shock.price`.

    Returns
    -------
    Scenarios
        A parameter for each asset.

    Raises
    ------
    SchemaError
        Returns that are missing or below -1, numbers that are not allowed.

    References
    ----------
    Politis and Romano, Journal of the American Statistical Association 89 (1994), 1303-1313,
    doi:10.1080/01621459.1994.10476870 (stationary); Politis and Romano, A circular block-resampling procedure for
    stationary data, in LePage and Billard (eds), Exploring the Limits of Bootstrap (1992), 263-270 (circular).

    Examples
    --------
    >>> from netcontagion import scenarios
    >>> made = scenarios.bootstrap({"ETH": [-0.1, 0.2, 0.0, -0.3]}, 100, block=2, horizon=3, seed=1)
    >>> len(made), bool((made.parameters["ETH"] > -1).all())
    (100, True)
    """
    table, values, problems = _read("bootstrap", returns)
    problems += count("bootstrap", "n", n) + count("bootstrap", "horizon", horizon)
    if method not in ("stationary", "circular"):
        cure = "choose one of them"
        problems.append(Problem("bootstrap", "method", None, repr(method), "'stationary' or 'circular'", cure))
    whole = method == "circular"
    problems += count("bootstrap", "block", block) if whole else size("bootstrap", "block", block, least=1)
    raise_for(problems)
    rng = np.random.default_rng(seed)
    changes = _compounded(values, _drawn_rows(len(table), n, block, horizon, rng, fixed=whole))
    return price_scenarios(table.columns, changes, family=family)


def _drawn_rows(
    rows: int, n: int, block: float, horizon: int, rng: np.random.Generator, *, fixed: bool
) -> Iterable[Codes]:
    """Yield the row (n,) that each draw stands on at every step."""
    at = rng.integers(rows, size=n)
    yield at
    for step in range(1, horizon):
        again = rng.integers(rows, size=n)
        ends = np.full(n, step % block == 0) if fixed else rng.random(n) < 1 / block
        at = np.where(ends, again, (at + 1) % rows)
        yield at


def _compounded(returns: Floats, steps: Iterable[Codes]) -> Floats:
    """Compound returns (rows, assets) over steps, each the row (n,) that every scenario stands on."""
    change: Any = 0.0
    for rows in steps:
        change = change + returns[rows] * (1 + change)
    changes: Floats = np.maximum(change, -1.0)  # a fall to nothing may come out a rounding below
    return changes


def _read(maker: str, returns: Any, *taken: str) -> tuple[pd.DataFrame, Floats, list[Problem]]:
    """Return the table, its numbers (rows, assets), and everything that is wrong with it."""
    import pandas as pd

    table = pd.DataFrame(returns)
    problems = []
    if not len(table) or not len(table.columns):
        cure = "give a row per period and a column per asset"
        problems.append(Problem(maker, "returns", None, f"a table of {table.shape}", "at least one number", cure))
    twice = table.columns[table.columns.duplicated()].tolist()
    problems += [Problem(maker, f"returns[{name!r}]", None, "twice", "one column", "leave one out") for name in twice]
    clash = [name for name in taken if name in table]
    cure = "make it the index of the table, table.set_index(...)"
    problems += [Problem(maker, f"returns[{name!r}]", None, "a column", "an asset", cure) for name in clash]
    numbers = table.apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    for place, name in enumerate(table.columns):
        given = table.iloc[:, place].tolist()
        problems += wrong_numbers(maker, f"returns[{name!r}]", "price", numbers[:, place], given)
    return table, numbers, problems
