"""What a unit of a buffer saves: by the adjoint of a clearing where it has one, else by a bump of stated size."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from netcontagion.clearing import clear, sensitivity
from netcontagion.errors import ContagionError, SchemaError
from netcontagion.ranking._outcomes import LOSS
from netcontagion.ranking._response import fitted
from netcontagion.ranking._tools import TOOLS, fund_price

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from netcontagion.network import ExposureNetwork, Shock
    from netcontagion.ranking._response import Response
    from netcontagion.ranking._tools import Lever

    Floats = NDArray[np.float64]

__all__ = ["Marginal", "firewalls", "marginals", "passed_on"]

RATE_STEP = 0.01  # bump of a rate


class Marginal(NamedTuple):
    """What one more unit of a buffer saves of the mean outcome, and what one less costs; ``step`` 0: a derivative."""

    more: float
    less: float
    step: float


def marginals(
    response: Response, levers: Sequence[Lever], outcome: str, needs: Mapping[Lever, float], step: float
) -> list[Marginal]:
    """Return the marginal value of every lever."""
    if _has_adjoint(response, levers, outcome):
        try:
            return _by_adjoint(response, levers)
        except ContagionError:  # payments jump: a derivative there is none
            pass
    return _by_bumps(response, levers, outcome, [_step(lever, needs[lever], step) for lever in levers])


def firewalls(response: Response, levers: Sequence[Lever], outcome: str) -> list[float]:
    """Mean outcome with a buffer at zero less that with it; NaN where it cannot be zero."""
    found, nets = np.full(len(levers), np.nan), {}
    for place, lever in enumerate(levers):
        if TOOLS[lever.tool].drains:
            try:
                nets[place] = lever.at(response.net, 0.0)
            except SchemaError:  # a record that is said to be complete lends what is deposited
                continue
    now = response.now[outcome].mean()
    without = response.of({f"{levers[place]} at zero": net for place, net in nets.items()}) if nets else []
    for place, outcomes in zip(nets, without, strict=True):
        found[place] = outcomes[outcome].mean() - now
    return found.tolist()


# by adjoint -----------------------------------------------------------------------------------------------------------


def _has_adjoint(response: Response, levers: Sequence[Lever], outcome: str) -> bool:
    plain = response.model == "eisenberg_noe" and outcome in (LOSS, "shortfall")
    return plain and all(TOOLS[lever.tool].drains for lever in levers) and not len(response.net.labels("accounts"))


def _by_adjoint(response: Response, levers: Sequence[Lever]) -> list[Marginal]:
    """Average the gradient of all payments in what nodes have; dues are fixed, so it is that of the shortfall."""
    net = response.net
    found = np.zeros((2, len(levers)))
    shocks = list(fitted(response.scenarios, net))
    for shock in shocks:
        result = clear(net, shock, **{name: value for name, value in response.options.items() if name != "model"})
        up = sensitivity(result, direction="up")
        sides = [up, up if not len(up.kinks) else sensitivity(result, direction="down")]
        for row, (side, more) in enumerate(zip(sides, (True, False), strict=True)):
            gradient = np.asarray(side.adjoint(payments=1.0).external_assets)
            for place, lever in enumerate(levers):
                found[row, place] += _slope(net, shock, lever, gradient, more=more)
    return [Marginal(more, less, 0.0) for more, less in (found / len(shocks)).T.tolist()]


def _slope(net: ExposureNetwork, shock: Shock, lever: Lever, gradient: Floats, *, more: bool) -> float:
    places, shares = np.array(lever.places), np.array(lever.shares)
    cut = len(net.labels("traders"))
    nodes = places + (cut if TOOLS[lever.tool].nodes == "exchanges" else 0)
    return float((gradient[nodes] * passed_on(net, shock, lever.tool, more=more)[places]) @ shares)


def passed_on(net: ExposureNetwork, shock: Shock, tool: str, *, more: bool = True) -> Floats:
    """Return what a shock leaves of one more unit of money that each node has before it, or one less."""
    if tool == "exchange_equity":
        return np.ones(len(net.labels("exchanges")))
    if tool == "insurance_fund":
        before = fund_price(net)
        after = fund_price(net, shock.price_factors(net))
        return np.divide(after, before, out=np.zeros(len(before)), where=before > 0)
    left = float(np.prod([1 - share for share in shock.loss_shares]))
    spent = np.zeros(len(net.labels("traders")), dtype=bool)
    for name in dict.fromkeys(name for name, _ in shock.losses):
        bare = name[1] if isinstance(name, tuple) and len(name) == 2 and name[0] == "trader" else name
        place = net.labels("traders").get_loc(bare)
        spent[place] = not more and not shock.external_assets(net)[place] > 0
    return np.where(shock.defaulted(net) | spent, 0.0, left)


# by a bump ------------------------------------------------------------------------------------------------------------


def _step(lever: Lever, need: float, share: float) -> float:
    """Size of the bump: a share of what is held, else of the largest loss that reaches it; of rates a hundredth."""
    tool = TOOLS[lever.tool]
    if not tool.is_money:
        return -RATE_STEP if tool.less else RATE_STEP
    return share * (lever.held or need or 1.0)


def _by_bumps(response: Response, levers: Sequence[Lever], outcome: str, steps: Sequence[float]) -> list[Marginal]:
    """Compare the network as it is with a step more and a step less of each, as far as both are possible."""
    moved: dict[str, ExposureNetwork | None] = {}
    for lever, step in zip(levers, steps, strict=True):
        moved |= {f"{lever}, {change:+.6g}": lever.moved(response.net, change) for change in (step, -step)}
    nets = {name: net for name, net in moved.items() if net is not None}
    found = dict(zip(nets, response.of(nets) if nets else [], strict=True))
    means = [float(found[name][outcome].mean()) if name in found else np.nan for name in moved]
    now = float(response.now[outcome].mean())
    return [
        Marginal((now - more) / abs(step), (less - now) / abs(step), abs(step))
        for more, less, step in zip(means[::2], means[1::2], steps, strict=True)
    ]
