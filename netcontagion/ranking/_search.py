"""The required buffer: the smallest size from which a target holds for every larger one that was tried."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion.clearing import Case
from netcontagion.network import Shock, policy, rulebook
from netcontagion.ranking._marginal import passed_on
from netcontagion.ranking._outcomes import LIQUIDATORS, LOSS, LOSSES
from netcontagion.ranking._stocks import exhausted
from netcontagion.ranking._tools import TOOLS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from netcontagion.ranking._outcomes import Target
    from netcontagion.ranking._response import Response
    from netcontagion.ranking._tools import Lever

__all__ = ["Crossing", "Required", "required"]

WIDENINGS = 10  # how often the largest size is made four times as large
MONOTONE = (LOSS, "shortfall", "defaults")  # of a clearing, in what nodes have
FEWEST = 0.1  # of the largest threshold: the lowest that is tried
TOUCHING = 1 + 1e-6  # two sizes a width apart, rounding aside, are near enough
NO_CHANGE = 1e-12  # relative: what more of a buffer changes by rounding


class Crossing(NamedTuple):
    """Two sizes, the smaller buffer first, between which the target begins to hold (``gained``) or ceases to."""

    smaller: float
    larger: float
    gained: bool
    met_smaller: int
    met_larger: int


@dataclass(frozen=True)
class Required:
    """What a search found; ``size`` is NaN where the target cannot be met, ``why`` then says why.

    ``tried`` are sizes in the order of growing buffers, with the scenarios that meet the target and what is closest.
    """

    lever: Lever
    size: float
    guaranteed: bool
    why: str
    crossings: tuple[Crossing, ...]
    tried: dict[float, tuple[int, dict[str, float]]]

    @property
    def closest(self) -> tuple[float, dict[str, float]]:
        """Size that comes closest, and how close."""
        size = min(self.tried, key=lambda one: (-self.tried[one][0], *self.tried[one][1].values()))
        return size, self.tried[size][1]


class _Probe:
    """The target as a function of the size, and what was found so far."""

    def __init__(self, response: Response, lever: Lever, target: Target) -> None:
        self.response, self.lever, self.target = response, lever, target
        self.tried: dict[float, tuple[int, dict[str, float]]] = {}
        self.least = target.needed(len(response.scenarios))

    def run(self, sizes: Iterable[float]) -> list[bool]:
        """Try sizes; tell where the target holds."""
        sizes = [float(size) for size in sizes]
        fresh = [size for size in dict.fromkeys(sizes) if size not in self.tried]
        for size, found in zip(fresh, self._outcomes(fresh), strict=True):
            self.tried[size] = int(self.target.met(found).sum()), self.target.closest(found)
        return [self.tried[size][0] >= self.least for size in sizes]

    def _outcomes(self, sizes: list[float]) -> list[dict[str, Any]]:
        """Run sizes; a scenario that ends without an answer does not meet any target."""
        return self.response.at(self.lever, sizes, strict=False) if sizes else []

    def holds(self, size: float) -> bool:
        """Tell whether it holds at a size."""
        return self.run([size])[0]


def required(
    response: Response, lever: Lever, target: Target, need: float, sizes: int | Sequence[float], tolerance: float
) -> Required:
    """Search the sizes of a lever; ``need`` is the largest loss known to have reached it [num]."""
    if lever.tool == "liquidation_bonus":  # who liquidates has to keep a profit
        response = dataclasses.replace(response, names=(*dict.fromkeys((*response.names, LIQUIDATORS)),))
        target = dataclasses.replace(target, limits=(*target.limits, (LIQUIDATORS, 0.0)))
    tool, probe = TOOLS[lever.tool], _Probe(response, lever, target)
    monotone = _is_monotone(response, lever, target)
    bound = ""
    if isinstance(sizes, int):
        low, high, bound = _range(response, probe, need, monotone=monotone)
        grid = np.linspace(low, high, 2 if monotone else sizes).tolist()
        grid = sorted({*grid, *([lever.held] if min(low, high) <= lever.held <= max(low, high) else [])})
    else:
        grid = sorted(set(map(float, sizes)))
    grid = grid[::-1] if tool.less else grid
    enough = probe.holds(grid[-1])
    if enough or not tool.drains:  # where all that helps is not enough, what lies between is not run
        probe.run(grid)
    run = [size for size in grid if size in probe.tried]
    crossings = _crossings(probe, run, tolerance * abs(grid[-1] - grid[0]))
    if not enough:
        why = bound or f"{grid[-1]:,.6g} is the largest that was given"
        return Required(lever, float("nan"), False, why, tuple(crossings), probe.tried)
    gained = [one for one in crossings if one.gained]
    size = gained[-1].larger if gained else grid[0]
    sure = monotone or _constant_beyond(response, lever, target, size)
    return Required(lever, size, sure, "", tuple(crossings), probe.tried)


def _range(response: Response, probe: _Probe, need: float, *, monotone: bool) -> tuple[float, float, str]:
    """Return the smallest and the largest buffer to try, and why no larger one is."""
    lever, net = probe.lever, response.net
    tool, places = TOOLS[lever.tool], np.array(lever.places)
    if tool.less:
        return lever.held, FEWEST * lever.held, f"its bound is {FEWEST * lever.held:g}, a tenth of what it is"
    if tool.most is not None:
        high = tool.most(net, places)
        bound = "LT (1 + b) < 1 bounds it by" if lever.tool == "liquidation_bonus" else "its bound is"
        return (0.0 if lever.tool == "liquidation_bonus" else 0.05), high, f"{bound} {high:.6g}"
    low = 0.0 if tool.drains else 0.05 * lever.held
    if lever.tool == "trader_margin" and net.complete and len(net.labels("accounts")):
        low = lever.held  # less would leave loans without a supply
    high = 2 * max(lever.held, need) or 1.0
    enough = max(_pays_all(response, lever), high)
    if monotone and not probe.run([high, enough])[1]:
        return low, enough, f"from {enough:,.6g} on more of it changes nothing"
    for _ in range(WIDENINGS):
        if probe.holds(high):
            return low, high, ""
        before = probe.tried[high]
        if probe.holds(4 * high):
            return low, 4 * high, ""
        if high >= enough and _alike(before, probe.tried[4 * high]):
            return low, high, f"from {high:,.6g} on more of it changes nothing"
        high *= 4
    return low, high, f"it was tried up to {high:,.6g}"


def _pays_all(response: Response, lever: Lever) -> float:
    """Return the size from which every node of a lever pays its dues by itself, where it keeps any of it.

    Counts of defaults do not tell that more is felt: they stay as they are until somebody is solvent. 0 with accounts.
    """
    net, places = response.net, np.array(lever.places)
    if response.kind != "clear" or not TOOLS[lever.tool].drains or len(net.labels("accounts")):
        return 0.0
    dues = Case.of(net, Shock()).dues[places + (TOOLS[lever.tool].nodes == "exchanges") * len(net.labels("traders"))]
    left = np.stack([passed_on(net, shock, lever.tool)[places] for shock in response.scenarios])
    kept = np.array(lever.shares) * np.where(left > 0, left, np.inf).min(axis=0)
    owed = dues + TOOLS[lever.tool].held(net)[places]  # a shock takes no more than is held
    sizes = np.divide(owed, kept, out=np.zeros(len(owed)), where=(kept > 0) & np.isfinite(kept))
    return float(sizes.max(initial=0.0))


def _alike(one: tuple[int, dict[str, float]], other: tuple[int, dict[str, float]]) -> bool:
    if one == other:
        return True
    values = np.array([list(found[1].values()) for found in (one, other)])
    return bool(one[0] == other[0] and (np.ptp(values, axis=0) <= NO_CHANGE * np.abs(values).max(axis=0)).all())


def _crossings(probe: _Probe, grid: Sequence[float], width: float) -> list[Crossing]:
    """Narrow every change between neighbours of the grid."""
    found = []
    for one, other in itertools.pairwise(grid):
        gained = probe.holds(other)
        if probe.holds(one) == gained:
            continue
        fails, holds = _narrowed(probe, *((one, other) if gained else (other, one)), width)
        low, high = (fails, holds) if gained else (holds, fails)
        found.append(Crossing(low, high, gained, probe.tried[low][0], probe.tried[high][0]))
    return found


def _narrowed(probe: _Probe, fails: float, holds: float, width: float) -> tuple[float, float]:
    """Bisect a change; first, beside where the line through the last failing sizes meets the limit."""
    while abs(holds - fails) > width * TOUCHING:
        guess, side = _line(probe, fails, holds), np.sign(holds - fails) * width / 2
        beside = [size for size in (guess + side, guess - side) if _between(fails, size, holds)]
        probe.run(beside)
        for size in (*beside, (fails + holds) / 2):
            if not _between(fails, size, holds):
                continue
            fails, holds = (fails, size) if probe.holds(size) else (size, holds)
            if abs(holds - fails) <= width * TOUCHING:
                return fails, holds
        if not _between(fails, (fails + holds) / 2, holds):
            break
    return fails, holds


def _between(one: float, size: float, other: float) -> bool:
    return min(one, other) < size < max(one, other)


def _line(probe: _Probe, fails: float, holds: float) -> float:
    """Size at which the outcome would meet a single limit if it went on in a line; NaN where there is none."""
    further = [size for size in probe.tried if (size - fails) * (holds - fails) < 0]
    if len(probe.target.limits) > 1 or not further:
        return float("nan")
    beyond = min(further, key=lambda size: abs(size - fails))
    ((name, limit),) = probe.target.limits
    here, there = probe.tried[fails][1][name], probe.tried[beyond][1][name]
    if not np.isfinite([here, there]).all() or there == here:
        return float("nan")
    return fails + (here - limit) * (fails - beyond) / (there - here)


# what is proved -------------------------------------------------------------------------------------------------------


def _is_monotone(response: Response, lever: Lever, target: Target) -> bool:
    """Whether more cannot harm: clearing vectors are monotone in what nodes have (Eisenberg and Noe; Rogers, Veraart).

    The greatest payments of both models grow with external assets, so that shortfalls and defaults fall.
    """
    plain = response.model in ("eisenberg_noe", "rogers_veraart") and not len(response.net.labels("accounts"))
    return plain and TOOLS[lever.tool].drains and all(name in MONOTONE for name, _ in target.limits)


def _constant_beyond(response: Response, lever: Lever, target: Target, size: float) -> bool:
    """Whether no larger size can change anything: the buffer is nowhere exhausted, and only its exhaustion is felt.

    A run in which a fund, or equity, always has what is asked of it is the same run with more of it, unless somebody
    looks at how much there is: a policy that runs, or an exchange that sells what it took over to refill its reserves.
    A fund that is kept in an asset loses with its price, and a larger one loses more.
    """
    if response.kind != "cascade" or lever.tool not in ("insurance_fund", "exchange_equity"):
        return False
    net = response.net
    asset = net.columns("exchanges")["insurance_asset"][np.array(lever.places)]
    if lever.tool == "insurance_fund" and (asset >= 0).any() and any(name in LOSSES for name, _ in target.limits):
        return False
    books = [rulebook(name) for name in set(net.columns("exchanges")["rulebook"])]
    looked_at = any(np.isfinite(book.inventory_rule.target_reserves) for book in books)
    looked_at |= any(policy(name).runs for name in set(net.columns("traders")["policy"]))
    return not looked_at and not exhausted(response, lever, size)
