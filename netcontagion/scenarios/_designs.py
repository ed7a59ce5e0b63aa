"""Designs: every combination of given values, points that fill a box evenly, one default at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.network import Shock
from netcontagion.scenarios._axes import axes, count, in_order, raise_for, scenarios_of
from netcontagion.scenarios._scenarios import Scenarios

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from netcontagion.network import ExposureNetwork
    from netcontagion.scenarios._axes import Seed

__all__ = ["defaults", "grid", "quasi_random"]


def grid(
    *,
    price: Mapping[Any, Sequence[float]] | None = None,
    depth: Sequence[float] | None = None,
    loss: Sequence[float] | None = None,
    family: bool = False,
) -> Scenarios:
    """Combine every value with every other: prices in the order given, then depth, then loss, the last fastest.

    Parameters
    ----------
    price : mapping, optional
        Relative changes by asset, -0.3 for minus 30 %; at least -1.
    depth : sequence of float, optional
        Factors on all depths, above 0.
    loss : sequence of float, optional
        Shares that everybody loses of ``external_assets``, in [0, 1].
    family : bool, default False
        Whether what follows a named asset moves with it, see :meth:`netcontagion.Shock.price`.

    Returns
    -------
    Scenarios
        As many as the lengths of all lists multiply to; a parameter for each asset, ``depth`` and ``loss``.

    Raises
    ------
    SchemaError
        Every value that is not allowed.

    Examples
    --------
    >>> from netcontagion import scenarios
    >>> made = scenarios.grid(price={"ETH": [-0.1, -0.3]}, depth=[1.0, 0.5, 0.25], family=True)
    >>> len(made), str(made[5])
    (6, 'ETH family -30 %, depth x 0.25')
    """
    varied, problems = axes("grid", price, depth, loss)
    raise_for(problems)
    mesh = np.meshgrid(*(axis.values for axis in varied), indexing="ij")
    return scenarios_of(varied, np.stack([values.ravel() for values in mesh], axis=1), family=family)


def quasi_random(
    n: int,
    *,
    price: Mapping[Any, tuple[float, float]] | None = None,
    depth: tuple[float, float] | None = None,
    loss: tuple[float, float] | None = None,
    seed: Seed = None,
    family: bool = False,
) -> Scenarios:
    """Fill a box evenly: scrambled Sobol points, uniform between low and high in every direction.

    Point i has x_i = low + u_i (high - low), with u_1, u_2, ... the Sobol sequence scrambled by a random linear matrix
    and a digital shift. Means over n points, n a power of 2, are then in general closer than those of random draws.

    Parameters
    ----------
    n : int
        Scenarios; best a power of 2.
    price : mapping, optional
        (low, high) of the relative change by asset, at least -1.
    depth : (low, high), optional
        Factors on all depths, above 0.
    loss : (low, high), optional
        Shares that everybody loses of ``external_assets``, in [0, 1].
    seed : int, numpy Generator or None
        Source of randomness; equal seeds give equal scenarios, in whatever order assets are named.
    family : bool, default False
        Whether what follows a named asset moves with it, see :meth:`netcontagion.Shock.price`.

    Returns
    -------
    Scenarios
        A parameter for each asset, ``depth`` and ``loss``.

    Raises
    ------
    SchemaError
        Every value that is not allowed.

    References
    ----------
    Sobol, USSR Computational Mathematics and Mathematical Physics 7 (1967), doi:10.1016/0041-5553(67)90144-9;
    Matousek, Journal of Complexity 14 (1998), doi:10.1006/jcom.1998.0489; drawn by ``scipy.stats.qmc.Sobol``.

    Examples
    --------
    >>> from netcontagion import scenarios
    >>> made = scenarios.quasi_random(64, price={"ETH": (-0.5, 0.0)}, depth=(0.25, 1.0), seed=1)
    >>> float(made.parameters["ETH"].mean().round(2))
    -0.25
    """
    varied, problems = axes("quasi_random", price, depth, loss, pair=True)
    raise_for(count("quasi_random", "n", n) + problems)
    from scipy.stats import qmc

    points = np.empty((n, len(varied)))
    drawn = qmc.Sobol(len(varied), rng=seed).random_base2((n - 1).bit_length())
    points[:, in_order(axis.place for axis in varied)] = drawn[:n]
    low, high = np.array([axis.values for axis in varied]).T
    return scenarios_of(varied, low + points * (high - low), family=family)


def defaults(net: ExposureNetwork, nodes: Iterable[Any] | None = None) -> Scenarios:
    """Let traders fail one at a time.

    Parameters
    ----------
    net : ExposureNetwork
        The network they are in.
    nodes : iterable of labels, optional
        Which of its traders, in which order; by default all but ``others@``, which stands for many.

    Returns
    -------
    Scenarios
        One per trader, named by the parameter ``default``.

    Raises
    ------
    UnknownLabelError
        Every trader that the network does not know.

    Examples
    --------
    >>> from netcontagion import generators, scenarios
    >>> scenarios.defaults(generators.ring(3)).parameters["default"].tolist()
    ['bank-1', 'bank-2', 'bank-3']
    """
    labels = net.labels("traders").tolist()
    chosen = labels[: len(labels) - net.derived("traders")] if nodes is None else list(nodes)
    made = Scenarios([Shock.default(node) for node in chosen], {"default": chosen})
    if nodes is not None:
        made.check(net)
    return made
