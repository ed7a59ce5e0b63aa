"""Textbook networks of banks: who owes whom by a rule, how much by a distribution, and balance sheets around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from netcontagion._arrays import group_sum
from netcontagion.network import ExposureNetwork

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Codes = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Seed = int | np.random.Generator | None

__all__ = ["complete", "core_periphery", "erdos_renyi", "ring", "scale_free"]

_INTERBANK = 0.20  # larger side of the interbank book over total assets, where no external side is given


def ring(
    n: int,
    *,
    liability: float = 1.0,
    dispersion: float = 0.0,
    equity: float = 0.05,
    external_assets: ArrayLike | None = None,
    external_liabilities: ArrayLike | None = None,
    seed: Seed = None,
) -> ExposureNetwork:
    """Draw a ring: bank i owes bank i + 1, the last one the first.

    Amounts: x_e = liability n w_e / sum(w), w_e lognormal exp(dispersion z_e). Balance sheet of bank i, with claims
    c_i, interbank liabilities l_i, external assets e_i and external liabilities b_i::

        c_i + e_i = (l_i + b_i) / (1 - equity)

    Parameters
    ----------
    n : int
        Banks, 2 or more; named bank-1, bank-2, ...
    liability : float, default 1.0
        Mean interbank liabilities of a bank [num], above 0.
    dispersion : float, default 0.0
        Standard deviation of the logarithm of an amount; 0: all equal.
    equity : float, default 0.05
        Book equity over total assets of every bank, in [0, 0.8].
    external_assets, external_liabilities : float or (n,) array, optional
        Assets and debt outside the network [num]. One given: the other follows from ``equity``. Both given: ``equity``
        is not used. None given: total assets are five times the larger of c_i and l_i (five times ``liability`` for a
        bank without links), and both follow.
    seed : int, numpy Generator or None
        Source of randomness; equal seeds give equal networks.

    Returns
    -------
    ExposureNetwork
        Traders of kind bank, and liabilities.

    Raises
    ------
    ValueError
        A parameter outside its range, or external amounts that leave no such balance sheet.

    References
    ----------
    Allen and Gale, Journal of Political Economy 108 (2000), doi:10.1086/262109; Acemoglu, Ozdaglar and Tahbaz-Salehi,
    American Economic Review 105 (2015), doi:10.1257/aer.20130456.

    Examples
    --------
    >>> from netcontagion import generators
    >>> net = generators.ring(4, liability=10.0)
    >>> float(net.liabilities.loc[("bank-1", "bank-2"), "amount"])
    10.0
    """
    terms = _Terms(n, liability, dispersion, equity, external_assets, external_liabilities)
    banks = np.arange(n)
    links = (banks, (banks + 1) % n)
    return _network(links, terms, np.random.default_rng(seed))


def complete(
    n: int,
    *,
    liability: float = 1.0,
    dispersion: float = 0.0,
    equity: float = 0.05,
    external_assets: ArrayLike | None = None,
    external_liabilities: ArrayLike | None = None,
    seed: Seed = None,
) -> ExposureNetwork:
    """Draw a complete network: every bank owes every other, liability / (n - 1) each where dispersion is 0.

    Amounts and balance sheets as in :func:`ring`.

    Parameters
    ----------
    n : int
        Banks, 2 or more.
    liability, dispersion, equity, external_assets, external_liabilities, seed
        As in :func:`ring`.

    Returns
    -------
    ExposureNetwork
        n (n - 1) liabilities.

    Raises
    ------
    ValueError
        As in :func:`ring`.

    References
    ----------
    As for :func:`ring`.

    Examples
    --------
    >>> from netcontagion import generators
    >>> net = generators.complete(5, liability=8.0)
    >>> float(net.liabilities.loc[("bank-1", "bank-3"), "amount"])
    2.0
    """
    terms = _Terms(n, liability, dispersion, equity, external_assets, external_liabilities)
    links = _link_at(np.arange(n * (n - 1)), n)
    return _network(links, terms, np.random.default_rng(seed))


def core_periphery(
    n: int,
    *,
    core: int | None = None,
    liability: float = 1.0,
    dispersion: float = 1.0,
    equity: float = 0.05,
    external_assets: ArrayLike | None = None,
    external_liabilities: ArrayLike | None = None,
    seed: Seed = None,
) -> ExposureNetwork:
    """Draw a core of banks that all owe each other, and a periphery that deals with the core only.

    Every periphery bank borrows from one core bank and lends to one, drawn at random so that each core bank lends to
    and borrows from at least one of them, where there are enough. Amounts and balance sheets as in :func:`ring`.

    Parameters
    ----------
    n : int
        Banks, 2 or more; the core comes first.
    core : int, optional
        Banks of the core, 1 to n; default: the square root of n, rounded.
    liability, dispersion, equity, external_assets, external_liabilities, seed
        As in :func:`ring`; the default dispersion is 1.

    Returns
    -------
    ExposureNetwork
        core (core - 1) + 2 (n - core) liabilities.

    Raises
    ------
    ValueError
        As in :func:`ring`, or a core that is empty or larger than n.

    References
    ----------
    Craig and von Peter, Journal of Financial Intermediation 23 (2014), doi:10.1016/j.jfi.2014.02.003.

    Examples
    --------
    >>> from netcontagion import generators
    >>> net = generators.core_periphery(10, core=3, seed=1)
    >>> len(net.liabilities)
    20
    """
    terms = _Terms(n, liability, dispersion, equity, external_assets, external_liabilities)
    core = round(n**0.5) if core is None else core
    if not 1 <= core <= n:
        raise ValueError(f"core is {core!r}; allowed: 1 to {n}")
    rng = np.random.default_rng(seed)
    inner = _link_at(np.arange(core * (core - 1)), core)
    outer = np.arange(core, n)
    lender, borrower = _spread(rng, len(outer), core), _spread(rng, len(outer), core)
    links = np.concatenate([inner[0], outer, borrower]), np.concatenate([inner[1], lender, outer])
    return _network(links, terms, rng)


def erdos_renyi(
    n: int,
    p: float,
    *,
    liability: float = 1.0,
    dispersion: float = 1.0,
    equity: float = 0.05,
    external_assets: ArrayLike | None = None,
    external_liabilities: ArrayLike | None = None,
    seed: Seed = None,
) -> ExposureNetwork:
    """Draw each of the n (n - 1) possible liabilities with probability p, independently.

    Drawn by geometric gaps, in time proportional to the links. Amounts and balance sheets as in :func:`ring`.

    Parameters
    ----------
    n : int
        Banks, 2 or more.
    p : float
        Probability of a link, in [0, 1]; the mean number of creditors of a bank is p (n - 1).
    liability, dispersion, equity, external_assets, external_liabilities, seed
        As in :func:`ring`; the default dispersion is 1.

    Returns
    -------
    ExposureNetwork
        Without liabilities where no link was drawn.

    Raises
    ------
    ValueError
        As in :func:`ring`, or p outside [0, 1].

    References
    ----------
    Gilbert, Annals of Mathematical Statistics 30 (1959), doi:10.1214/aoms/1177706098; gaps: Batagelj and Brandes,
    Physical Review E 71 (2005), doi:10.1103/PhysRevE.71.036113.

    Examples
    --------
    >>> from netcontagion import generators
    >>> net = generators.erdos_renyi(20, 0.2, liability=3.0, seed=1)
    >>> round(float(net.liabilities["amount"].sum()), 9)
    60.0
    """
    terms = _Terms(n, liability, dispersion, equity, external_assets, external_liabilities)
    if not 0 <= p <= 1:
        raise ValueError(f"p is {p!r}; allowed: a probability in [0, 1]")
    rng = np.random.default_rng(seed)
    links = _link_at(_bernoulli(rng, n * (n - 1), p), n)
    return _network(links, terms, rng)


def scale_free(
    n: int,
    *,
    links: int = 2,
    liability: float = 1.0,
    dispersion: float = 1.0,
    equity: float = 0.05,
    external_assets: ArrayLike | None = None,
    external_liabilities: ArrayLike | None = None,
    seed: Seed = None,
) -> ExposureNetwork:
    """Draw a network by preferential attachment: P(degree = k) falls as k^-3.

    Banks come one after the other; each draws ``links`` ends among the ends so far, so that a bank is chosen with
    probability proportional to its degree. A fair coin says who owes. Links to itself are dropped, repeated ones kept
    once. Amounts and balance sheets as in :func:`ring`.

    Parameters
    ----------
    n : int
        Banks, 2 or more; the first ones are the hubs.
    links : int, default 2
        Links each bank draws, 1 or more; the mean number of creditors of a bank is a little lower.
    liability, dispersion, equity, external_assets, external_liabilities, seed
        As in :func:`ring`; the default dispersion is 1.

    Returns
    -------
    ExposureNetwork
        At most n x links liabilities.

    Raises
    ------
    ValueError
        As in :func:`ring`, or ``links`` below 1.

    References
    ----------
    Barabási and Albert, Science 286 (1999), doi:10.1126/science.286.5439.509; Bollobás, Riordan, Spencer and Tusnády,
    Random Structures and Algorithms 18 (2001), doi:10.1002/rsa.1009; drawn as by Batagelj and Brandes, Physical Review
    E 71 (2005), doi:10.1103/PhysRevE.71.036113.

    Examples
    --------
    >>> from netcontagion import generators
    >>> net = generators.scale_free(50, links=3, seed=1)
    >>> 50 < len(net.liabilities) <= 150
    True
    """
    terms = _Terms(n, liability, dispersion, equity, external_assets, external_liabilities)
    if links < 1:
        raise ValueError(f"links is {links!r}; allowed: 1 or more")
    rng = np.random.default_rng(seed)
    return _network(_attach(rng, n, links), terms, rng)


# who owes whom ----------------------------------------------------------------------------------------------------


def _link_at(position: NDArray[np.integer], n: int) -> tuple[Codes, Codes]:
    """Debtor and creditor at a position of the off-diagonal of an n x n matrix, row by row."""
    if n < 2:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    debtor, creditor = np.divmod(position, n - 1)
    return debtor, creditor + (creditor >= debtor)


def _bernoulli(rng: np.random.Generator, size: int, p: float) -> Codes:
    """Positions below ``size`` that each come up with probability p, ascending."""
    if p == 0:
        return np.zeros(0, dtype=np.int64)
    found = np.zeros(0, dtype=np.int64)
    while not len(found) or found[-1] < size:
        expected = int(size * p + 6 * (size * p) ** 0.5) + 16
        last = found[-1] if len(found) else -1
        found = np.concatenate([found, last + np.cumsum(np.minimum(rng.geometric(p, expected), size + 1))])
    return found[found < size]


def _spread(rng: np.random.Generator, count: int, core: int) -> Codes:
    """Core bank of each periphery bank: every core bank once, then any."""
    chosen = np.concatenate([rng.permutation(core), rng.integers(core, size=max(count - core, 0))])[:count]
    return rng.permutation(chosen)


def _attach(rng: np.random.Generator, n: int, links: int) -> tuple[Codes, Codes]:
    """Draw each link's far end among the ends before it; an end that is itself drawn passes the question on."""
    edge = np.arange(n * links)
    drawn = rng.integers(2 * edge + 1)
    end = drawn.copy()
    while (open_ends := np.flatnonzero(end % 2)).size:
        end[open_ends] = drawn[end[open_ends] // 2]
    pair = np.stack([edge // links, end // 2 // links])
    flip = rng.random(len(edge)) < 0.5
    debtor, creditor = np.where(flip, pair[::-1], pair)
    key = np.unique((debtor * n + creditor)[debtor != creditor])
    return key // n, key % n


# how much, and the balance sheets around it -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Terms:
    """What all networks are told alike, checked."""

    n: int
    liability: float
    dispersion: float
    equity: float
    external_assets: ArrayLike | None
    external_liabilities: ArrayLike | None

    def __post_init__(self) -> None:
        if self.n < 2:
            raise ValueError(f"n is {self.n!r}; allowed: 2 banks or more")
        if not (np.isfinite(self.liability) and self.liability > 0):
            raise ValueError(f"liability is {self.liability!r}; allowed: an amount above 0")
        if not (np.isfinite(self.dispersion) and self.dispersion >= 0):
            raise ValueError(f"dispersion is {self.dispersion!r}; allowed: 0 or more")
        if not 0 <= self.equity <= 1 - _INTERBANK:
            raise ValueError(f"equity is {self.equity!r}; allowed: a share of total assets in [0, {1 - _INTERBANK:g}]")


def _network(links: tuple[Codes, Codes], terms: _Terms, rng: np.random.Generator) -> ExposureNetwork:
    import pandas as pd

    n, (debtor, creditor) = terms.n, links
    amount = np.exp(terms.dispersion * rng.standard_normal(len(debtor)))
    amount *= n * terms.liability / amount.sum() if len(amount) else 1.0
    assets, debt = _sheets(group_sum(creditor, amount, n), group_sum(debtor, amount, n), terms)
    width = len(str(n))
    labels = pd.Index([f"bank-{number:0{width}d}" for number in range(1, n + 1)])
    nodes = [pd.Categorical.from_codes(codes.astype(np.int32), categories=labels) for codes in (debtor, creditor)]
    return ExposureNetwork(
        traders={
            "trader": labels,
            "kind": np.full(n, "bank", dtype=object),
            "external_assets": assets,
            "external_liabilities": debt,
        },
        liabilities={"debtor": nodes[0], "creditor": nodes[1], "amount": amount} if len(amount) else None,
    )


def _sheets(claims: Floats, owed: Floats, terms: _Terms) -> tuple[Floats, Floats]:
    """Return external assets and external liabilities of each bank [num]."""
    assets = _outside("external_assets", terms.external_assets, len(claims))
    debt = _outside("external_liabilities", terms.external_liabilities, len(claims))
    if assets is None and debt is None:
        larger = np.maximum(claims, owed)
        assets = np.where(larger > 0, larger, terms.liability) / _INTERBANK - claims
    if debt is None and assets is not None:
        debt = _left("external_liabilities", (1 - terms.equity) * (claims + assets) - owed, claims + assets)
    elif assets is None and debt is not None:
        total = (owed + debt) / (1 - terms.equity)
        assets = _left("external_assets", total - claims, total)
    return np.asarray(assets), np.asarray(debt)


def _outside(name: str, given: ArrayLike | None, n: int) -> Floats | None:
    if given is None:
        return None
    values = np.asarray(given, dtype=float)
    if values.shape not in ((), (n,)):
        raise ValueError(f"{name} has shape {values.shape}; allowed: one amount, or one for each of the {n} banks")
    if not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError(f"{name} has an amount that is negative or not finite; allowed: 0 or more")
    return np.broadcast_to(values, n).copy()


def _left(name: str, values: Floats, total: Floats) -> Floats:
    """Refuse a residual side of the balance sheet that is negative beyond rounding."""
    short = values < -1e-12 * total
    if short.any():
        bank = int(np.flatnonzero(short)[0])
        raise ValueError(
            f"{name} of bank {bank + 1} would be {values[bank]:g} at this equity; cure: give more on the other side, "
            f"another equity, or {name} too"
        )
    return np.maximum(values, 0.0)
