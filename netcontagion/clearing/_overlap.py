"""Overlapping portfolios: what one round of deleveraging costs, and who is exposed to whom by what both hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse

from netcontagion.clearing._sale_input import AMOUNT, DEPTH, POSITIVE, SHARE, Reader, labelled

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from netcontagion.clearing._system import Floats

__all__ = ["LossSpiral", "Vulnerability", "greenwood_landier_thesmar", "indirect_exposure", "loss_spiral"]


@dataclass(frozen=True, eq=False)
class Vulnerability:
    """What one round of deleveraging costs, by bank and by asset; one shock or s of them.

    Attributes
    ----------
    direct_loss : ndarray or Series (n,) or (n, s)
        Loss of each bank by the shock itself, in money.
    sales : ndarray or Series (n,) or (n, s)
        What each bank sells to return to its leverage, in money.
    price_fall : ndarray or Series (m,) or (m, s)
        Fall of each price that all sales cause, as a share.
    indirect_loss : ndarray or Series (n,) or (n, s)
        Loss of each bank by that fall, in money.
    vulnerability : ndarray or Series (n,) or (n, s)
        Indirect loss over equity.
    systemicness : ndarray or Series (n,) or (n, s)
        Loss of all banks that the sales of each cause, over the equity of all; adds up to the aggregate vulnerability.
    aggregate_vulnerability : float or ndarray (s,)
        Indirect loss of all banks over the equity of all.
    """

    direct_loss: Any
    sales: Any
    price_fall: Any
    indirect_loss: Any
    vulnerability: Any
    systemicness: Any
    aggregate_vulnerability: Any


def greenwood_landier_thesmar(
    holdings: Any, equity: ArrayLike, shock: ArrayLike, *, liquidity: ArrayLike
) -> Vulnerability:
    r"""Compute how vulnerable banks are to one round of deleveraging (Greenwood, Landier and Thesmar).

    With assets ``a_i = sum_k A_ik``, leverage ``B_i = (a_i - E_i) / E_i`` and weights ``W_ik = A_ik / a_i``, the shock
    ``f`` makes bank i sell ``phi_i = B_i sum_k A_ik f_k`` pro rata, prices fall by
    ``dp_k = l_k sum_i W_ik phi_i`` and bank i loses ``sum_k A_ik dp_k``.

    Parameters
    ----------
    holdings : array_like or sparse (n, m)
        Assets of each bank, all of them, in money; not negative.
    equity : array_like (n,)
        Equity of each bank, in money; above 0 and not above its assets.
    shock : array_like (m,) or (m, s)
        Fall of each price, as a share between 0 and 1.
    liquidity : float or array_like (m,)
        Fall of the price per money sold (l); 0 for no impact.

    Returns
    -------
    Vulnerability
        Losses, sales, falls in price, vulnerability and systemicness.

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the numbers.

    Notes
    -----
    One round and linear: a bank may be made to sell more than it holds, and no price stops at 0; nothing is clipped.
    What counts is the order of the banks and where the loss comes from. :func:`cont_schaanning` has limits and rounds.

    References
    ----------
    Greenwood, R., Landier, A., Thesmar, D. (2015). Vulnerable banks. Journal of Financial Economics 115(3), 471-485.
    https://doi.org/10.1016/j.jfineco.2014.11.006

    Examples
    --------
    >>> from netcontagion.clearing import greenwood_landier_thesmar
    >>> found = greenwood_landier_thesmar([[100], [50]], [10, 10], [0.01], liquidity=1e-4)
    >>> round(found.aggregate_vulnerability, 6), found.systemicness.round(6).tolist()
    (0.00825, [0.00675, 0.0015])
    """
    reader = Reader()
    held = reader.holdings("holdings", holdings)
    own = reader.per_node("equity", equity, POSITIVE, scalar=False)
    falls = reader.per_asset("shock", shock, SHARE, several=True, scalar=False)
    impact = reader.per_asset("liquidity", liquidity, AMOUNT)
    if held is not None and own is not None:
        for row in np.flatnonzero(held.sum(axis=1) < own):
            cure = "give all assets of the bank, what cannot be sold as one with liquidity 0"
            reader.refuse("equity", int(row), float(own[row]), f"at most its assets {held.sum(axis=1)[row]:g}", cure)
    reader.done()
    return _vulnerability(held, own, falls, impact, reader)


def _vulnerability(held: Any, own: Floats, falls: Floats, impact: Floats, reader: Reader) -> Vulnerability:
    assets: Floats = held.sum(axis=1)

    def per_bank(numbers: Floats) -> Floats:
        return numbers if falls.ndim == 1 else numbers[:, None]

    direct = held @ falls
    sales = per_bank((assets - own) / own) * direct
    per_money = per_bank(1 / assets) * sales
    price_fall = per_bank(impact) * (held.T @ per_money)
    indirect = held @ price_fall
    caused = per_bank(held @ (impact * held.sum(axis=0))) * per_money / own.sum()
    total = indirect.sum(axis=0) / own.sum()
    banks = [labelled(table, reader.nodes) for table in (direct, sales, indirect, indirect / per_bank(own), caused)]
    direct, sales, indirect, vulnerability, caused = banks
    aggregate = float(total) if falls.ndim == 1 else total
    price_fall = labelled(price_fall, reader.assets)
    return Vulnerability(direct, sales, price_fall, indirect, vulnerability, caused, aggregate)


def indirect_exposure(holdings: Any, depth: ArrayLike) -> Any:
    r"""Compute the liquidity-weighted overlap of portfolios: who is exposed to whom by holding the same assets.

    ``Omega_ij = sum_k H_ik H_jk / D_k``: what i loses, under linear impact, when j sells everything.

    Parameters
    ----------
    holdings : array_like or sparse (n, m)
        Marketable assets of each node, in money; not negative.
    depth : float or array_like (m,)
        Depth of each asset, in money; ``inf`` for no impact.

    Returns
    -------
    csr_array (n, n), or DataFrame of it where the holdings have labels
        The overlaps; symmetric, with what a node does to itself on the diagonal. Only pairs with a common asset of
        finite depth are stored, but an asset held by c nodes makes c^2 of them.

    Raises
    ------
    SchemaError
        Listing everything that is wrong with the numbers.

    References
    ----------
    Cont, R., Schaanning, E. (2019). Monitoring indirect contagion. Journal of Banking and Finance 104, 85-102.
    https://doi.org/10.1016/j.jbankfin.2019.04.007

    Examples
    --------
    >>> from netcontagion.clearing import indirect_exposure
    >>> indirect_exposure([[4, 0], [2, 3]], [8, 1]).toarray().tolist()
    [[2.0, 1.0], [1.0, 9.5]]
    """
    reader = Reader()
    held = reader.holdings("holdings", holdings)
    depths = reader.per_asset("depth", depth, DEPTH)
    reader.done()
    product = held @ scipy.sparse.diags_array(1 / depths) @ held.T
    overlap = scipy.sparse.csr_array((product + product.T) / 2)  # exactly symmetric, which rounding alone would not be
    overlap.eliminate_zeros()
    overlap.sort_indices()
    if reader.nodes is None:
        return overlap
    import pandas as pd

    frame: Any = pd.DataFrame
    return frame.sparse.from_spmatrix(overlap, index=reader.nodes, columns=reader.nodes)


class LossSpiral(NamedTuple):
    """A loss that feeds on itself: gain of one turn, sum of all turns, fall in all, and whether it has no end."""

    loop_gain: float
    multiplier: float
    total_fall: float
    explosive: bool


def loss_spiral(position: float, leverage: float, *, impact: float, shock: float) -> LossSpiral:
    r"""Compute the linear loss spiral of one leveraged position.

    A fall by x costs ``A x``, makes the holder sell ``A (lambda - 1) x`` to return to its leverage, and the price falls
    on by ``k A (lambda - 1) x``: in all ``f / (1 - k A (lambda - 1))``, without end where the gain is 1 or more.

    Parameters
    ----------
    position : float
        Value A of what is held, in money; not negative.
    leverage : float
        Assets over equity, lambda; at least 1.
    impact : float
        Fall of the price per money sold, k; not negative.
    shock : float
        First fall of the price, f, between 0 and 1.

    Returns
    -------
    LossSpiral
        Gain, multiplier and total fall of the linear model (not cut off at 1); infinite where it is explosive.

    Raises
    ------
    ValueError
        A number that is not allowed.

    References
    ----------
    Brunnermeier, M. K., Pedersen, L. H. (2009). Market liquidity and funding liquidity. Review of Financial Studies
    22(6), 2201-2238. https://doi.org/10.1093/rfs/hhn098

    Examples
    --------
    >>> from netcontagion.clearing import loss_spiral
    >>> spiral = loss_spiral(100, 5, impact=0.001, shock=0.02)
    >>> spiral.loop_gain, round(spiral.total_fall, 6)
    (0.4, 0.033333)
    """
    for name, value, low, high in (
        ("position", position, 0.0, np.inf),
        ("leverage", leverage, 1.0, np.inf),
        ("impact", impact, 0.0, np.inf),
        ("shock", shock, 0.0, 1.0),
    ):
        if not (low <= value <= high and np.isfinite(value)):
            raise ValueError(f"{name}={value!r} must be finite, at least {low:g}" + (" and at most 1" * (high == 1)))
    gain = float(impact * position * (leverage - 1))
    explosive = gain >= 1
    multiplier = np.inf if explosive else 1 / (1 - gain)
    return LossSpiral(gain, float(multiplier), float(shock * multiplier) if shock > 0 else 0.0, explosive)
