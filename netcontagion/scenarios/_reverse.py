"""Reverse stress: the smallest shock at which a loss, defaults or bad debt reach a threshold."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion.errors import ContagionError
from netcontagion.margining import cascade
from netcontagion.network import Shock
from netcontagion.scenarios._run import as_run
from netcontagion.scenarios._scenarios import Scenarios, as_scenarios
from netcontagion.scenarios._sweep import Means, Plan, as_networks, play
from netcontagion.scenarios._sweep_result import answered
from netcontagion.scenarios._tasks import seed_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

    from netcontagion.network import ExposureNetwork
    from netcontagion.scenarios._nodes import Floats
    from netcontagion.scenarios._run import Run

__all__ = ["ReverseStress", "reverse_stress"]

REACHED = 1e-12  # relative: a value that is the threshold up to rounding reaches it
MONOTONE = ("loss", "shortfall", "defaults")  # what falls in no price where it rises in none
PASSES = 20  # most grids that are laid below the first crossing


def reverse_stress(
    net: ExposureNetwork,
    direction: Callable[[float], Shock] | Mapping[Any, float] | Iterable[Shock],
    threshold: float,
    *,
    measure: str | Callable[[Any], float] = "loss",
    run: Callable[..., Any] = cascade,
    most: float | None = None,
    size: Callable[[Shock], float] | None = None,
    monotone: bool | None = None,
    points: int = 33,
    tolerance: float = 1e-12,
    n_jobs: int | None = None,
    progress: bool = True,
    seed: int | np.random.Generator | None = None,
) -> ReverseStress:
    """Find the smallest shock at which a measure reaches a threshold.

    Along a direction the answer is a bracket: the threshold is not reached at its lower end and is at its upper end,
    the ``size``. Where the response is monotone, no smaller shock reaches it. Else a grid is run, every change between
    two of its points is bisected, and grids are laid below the first crossing until none is found before it; what lies
    between the points of the last grid is not known.

    Parameters
    ----------
    net : ExposureNetwork
        The network.
    direction : callable, mapping of asset to weight, or Scenarios
        ``direction(size)`` makes the shock of a size; with weights the price of each asset falls by size x weight. Of
        scenarios, or any shocks in a list, all are run, and the smallest that reaches the threshold is the answer.
    threshold : float
        Value to be reached, above what the network has without a shock.
    measure : str or callable, default "loss"
        An output of :func:`netcontagion.sweep`, for example "loss", "defaults", "bad_debt", "called", or a function of
        a result.
    run : callable, default nc.cascade
        As in :func:`netcontagion.sweep`. Runs that take a seed get the same for all sizes.
    most : float, optional
        Largest size; default 1, and with weights that at which the first asset is worthless.
    size : callable, optional
        Size of a shock, for a set; default: the Euclidean norm of its price changes, for shocks to prices alone.
    monotone : bool, optional
        Whether the measure cannot fall when the shock grows; default: where it is known, which is clearing by
        "eisenberg_noe" without margin accounts under falling prices. True is taken on trust.
    points : int, default 33
        Points of a grid.
    tolerance : float, default 1e-12
        Width of a bracket, over ``most``.
    n_jobs, progress, seed
        As in :func:`netcontagion.sweep`.

    Returns
    -------
    ReverseStress
        ``size`` (inf where no shock reaches the threshold), ``shock``, ``bracket``, all ``crossings``.

    Raises
    ------
    ValueError
        An option that is not allowed, or a direction that makes impossible shocks.
    UnknownLabelError
        Names that the network or the outputs do not know: before any work.
    ContagionError
        A run that fails or ends without an answer, with its size.

    Examples
    --------
    >>> import netcontagion as nc
    >>> net = nc.ExposureNetwork(
    ...     markets={"exchange": ["Lend"] * 2, "asset": ["ETH", "USDC"], "price": [2000, 1],
    ...              "close_factor": [0.5] * 2, "liquidation_threshold": [0.8, 0.85], "liquidation_bonus": [0.05] * 2},
    ...     balances={"account": ["ann", "ann"], "asset": ["ETH", "USDC"],
    ...               "deposited": [1.0, 0.0], "borrowed": [0.0, 1000.0]})
    >>> found = nc.reverse_stress(net, {"ETH": 1.0}, 1, measure="called", progress=False)
    >>> round(found.size, 9)
    0.375
    """
    as_networks(net)
    if not isinstance(threshold, (int, float)) or not math.isfinite(threshold):
        raise ValueError(f"threshold is {threshold!r}; give a finite number")
    if isinstance(points, bool) or not isinstance(points, int) or points < 2 or not 0 < tolerance < 1:
        raise ValueError(f"points={points!r}, tolerance={tolerance!r}; allowed: 2 or more, and above 0 and below 1")
    name = measure if isinstance(measure, str) else "measure"
    outputs: Any = [measure] if isinstance(measure, str) else {name: measure}
    seeded = _seeded(as_run(run, outputs, nodes=False), seed)
    response = _Response(net, seeded, name, float(threshold), Means(n_jobs, progress))
    if isinstance(direction, Mapping):
        response.known = _known_monotone(response, direction) if monotone is None else bool(monotone)
        made, limit = _falls(direction)
        return _along(response, made, limit if most is None else most, points, tolerance)
    if callable(direction):
        response.known = bool(monotone)
        return _along(response, direction, 1.0 if most is None else most, points, tolerance)
    return _within(response, as_scenarios(direction), _norm if size is None else size)


class Crossing(NamedTuple):
    """Two sizes between which the threshold is passed, upwards where it ``rises``, and the values there."""

    below: float
    above: float
    rises: bool
    value_below: float
    value_above: float


@dataclass(frozen=True, eq=False, repr=False)
class ReverseStress:
    """The smallest shock that reaches a threshold.

    Attributes
    ----------
    size : float
        Its size; inf where none was found.
    shock : Shock or None
        The shock of that size.
    value : float
        The measure there; the largest found where the threshold was not reached.
    bracket : tuple of float
        Sizes around the crossing: not reached at the first, reached at the second.
    guaranteed : bool
        Whether no smaller shock can reach it: the response is monotone, or all shocks of a set were run.
    crossings : DataFrame
        All crossings found, by size: ``below``, ``above``, ``rises``, ``value_below``, ``value_above``. Of a set, the
        shocks that reach the threshold: ``scenario``, ``size``, ``value``.
    evaluated : DataFrame
        ``size`` and ``value`` of every run, by size.
    threshold, measure
        What was asked for.
    """

    size: float
    shock: Shock | None
    value: float
    bracket: tuple[float, float]
    guaranteed: bool
    crossings: pd.DataFrame
    evaluated: pd.DataFrame
    threshold: float
    measure: str

    def __repr__(self) -> str:
        head = f"Reverse stress  {self.measure} >= {self.threshold:,.6g}"
        if self.shock is None:
            low, high = self.evaluated["size"].min(), self.evaluated["size"].max()
            return f"{head} | not reached by sizes {low:g} to {high:g}, at most {self.value:,.6g}"
        sure = "the smallest" if self.guaranteed else "the smallest found on the grids"
        many = f", {len(self.crossings)} crossings in all" if len(self.crossings) > 1 else ""
        return f"{head} | size {self.size:.12g}, {sure}{many}\n  {self.shock}: {self.value:,.6g}"

    def _repr_html_(self) -> str:
        import html

        return f"<p><b>{html.escape(repr(self))}</b></p>{self.crossings.to_html(max_rows=20)}"


@dataclass(eq=False)
class _Response:
    """The measure as a function of shocks, and what was found so far, by size."""

    net: ExposureNetwork
    run: Run
    measure: str
    threshold: float
    means: Means
    known: bool = False

    def __post_init__(self) -> None:
        self.found: dict[float, float] = {}

    def of(self, shocks: Scenarios, sizes: Iterable[float]) -> Floats:
        """Run some shocks."""
        table = play(Plan.of(self.net, shocks, self.run, 0), self.means, None).table
        for size, status, error in zip(sizes, table["status"], table["error"], strict=True):
            self._check(size, status, error)
        return table[self.measure].to_numpy(dtype=float)

    def at(self, size: float, shock: Shock) -> float:
        """Run one shock here."""
        read = self.run.one(self.net, shock, 0)
        if isinstance(read, str):
            raise ContagionError(f"the run at size {size:.12g} failed: {read}")
        self._check(size, read.status, "")
        return float(read.numbers[self.measure])

    def _check(self, size: float, status: str, error: str) -> None:
        if not answered([status])[0]:
            raise ContagionError(f"the run at size {size:.12g} ended with {status} {error}".rstrip())

    def reached(self, value: float) -> bool:
        """Whether a value reaches the threshold, rounding aside."""
        return value >= self.threshold - REACHED * abs(self.threshold)


def _seeded(run: Run, seed: Any) -> Run:
    """Give all runs the same seed."""
    run = replace(run, together=None)
    if not run.takes_seed:
        return run
    given = seed.integers(2**63) if isinstance(seed, np.random.Generator) else seed
    fixed = seed_of(np.random.SeedSequence(given).entropy, 0, 0)  # type: ignore[arg-type]
    return replace(run, call=functools.partial(run.call, seed=fixed), takes_seed=False)


def _falls(weights: Mapping[Any, float]) -> tuple[Callable[[float], Shock], float]:
    """Return the maker of falls in proportion to weights, and the size at which the first asset is worthless."""
    wrong = [
        f"{name!r}: {value!r}"
        for name, value in weights.items()
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value)
    ]
    if wrong or not any(value > 0 for value in weights.values()):
        raise ValueError(f"weights ({', '.join(wrong) or weights}) must be finite numbers, at least one above 0")

    def made(size: float) -> Shock:
        return Shock.price({name: max(-size * weight, -1.0) for name, weight in weights.items()})

    return made, 1 / max(weights.values())


def _known_monotone(response: _Response, weights: Mapping[Any, float]) -> bool:
    """Whether nobody gains by the fall of a price: clearing, in which nothing is owed in units."""
    run, net = response.run, response.net
    model = run.call.keywords.get("model", "eisenberg_noe") if isinstance(run.call, functools.partial) else ""
    plain = run.kind == "clear" and model == "eisenberg_noe" and not len(net.labels("accounts"))
    return plain and response.measure in MONOTONE and all(value >= 0 for value in weights.values())


def _along(
    response: _Response, made: Callable[[float], Shock], most: float, points: int, tolerance: float
) -> ReverseStress:
    """Search the sizes from 0 to ``most``."""
    if not isinstance(most, (int, float)) or not 0 < most < math.inf:
        raise ValueError(f"most is {most!r}; allowed: above 0")
    _grid(response, made, np.linspace(0.0, most, 2 if response.known else points))
    width = tolerance * most
    crossings = _crossings(response, made, width)
    for _ in range(0 if response.known else PASSES):
        first = next((one for one in crossings if one.rises), None)
        if first is None or first.below <= width:
            break
        _grid(response, made, np.linspace(0.0, first.below, points))
        crossings = _crossings(response, made, width)
        if next(one for one in crossings if one.rises) == first:
            break
    return _answer(response, made, crossings)


def _grid(response: _Response, made: Callable[[float], Shock], sizes: Floats) -> None:
    """Run the sizes that have not been run."""
    fresh = [size for size in sizes.tolist() if size not in response.found]
    if fresh:
        values = response.of(as_scenarios([made(size) for size in fresh]), fresh)
        response.found |= dict(zip(fresh, values.tolist(), strict=True))


def _crossings(response: _Response, made: Callable[[float], Shock], width: float) -> list[Crossing]:
    """Bisect every change between neighbours that were run; return all, by size."""
    sizes = sorted(response.found)
    found = []
    for one, other in itertools.pairwise(sizes):
        low, high = one, other
        rises = response.reached(response.found[high])
        if response.reached(response.found[low]) == rises:
            continue
        while high - low > width and low < (middle := (low + high) / 2) < high:
            value = response.at(middle, made(middle))
            response.found[middle] = value
            low, high = (low, middle) if response.reached(value) == rises else (middle, high)
        found.append(Crossing(low, high, rises, response.found[low], response.found[high]))
    return found


def _answer(response: _Response, made: Callable[[float], Shock], crossings: list[Crossing]) -> ReverseStress:
    import pandas as pd

    evaluated = pd.DataFrame({"size": list(response.found), "value": list(response.found.values())})
    evaluated = evaluated.sort_values("size", ignore_index=True)
    size, bracket, value = math.inf, (float(evaluated["size"].iloc[-1]), math.inf), float(evaluated["value"].max())
    if response.reached(response.found[0.0]):
        size, bracket, value = 0.0, (0.0, 0.0), response.found[0.0]
    else:
        first = next((one for one in crossings if one.rises), None)
        if first is not None:
            size, bracket, value = first.above, (first.below, first.above), first.value_above
    return ReverseStress(
        size=size,
        shock=made(size) if math.isfinite(size) else None,
        value=value,
        bracket=bracket,
        guaranteed=response.known or size == 0.0,
        crossings=pd.DataFrame(crossings, columns=list(Crossing._fields)),
        evaluated=evaluated,
        threshold=response.threshold,
        measure=response.measure,
    )


def _norm(shock: Shock) -> float:
    """Euclidean norm of price changes, those of one asset put together."""
    if shock.losses or shock.loss_shares or shock.defaults or shock.outages or shock.depth_factors or shock.later:
        raise ValueError(f"{shock} is no shock to prices alone; say with size= which of two shocks is smaller")
    factors: dict[Any, float] = {}
    for pairs, _ in shock.moves:
        for name, change in pairs:
            factors[name] = factors.get(name, 1.0) * (1 + change)
    return math.sqrt(sum((factor - 1) ** 2 for factor in factors.values()))


def _within(response: _Response, scenarios: Scenarios, size: Callable[[Shock], float]) -> ReverseStress:
    """Run a set, and choose the smallest shock that reaches the threshold; of equals the first."""
    import pandas as pd

    sizes = [float(size(shock)) for shock in scenarios]
    values = response.of(scenarios, sizes)
    table = pd.DataFrame({"scenario": range(len(sizes)), "size": sizes, "value": values})
    table = table.sort_values(["size", "scenario"], ignore_index=True)
    reaching = table[[response.reached(value) for value in table["value"].tolist()]]
    evaluated = table[["size", "value"]]
    best = reaching.iloc[0] if len(reaching) else None
    smaller = table["size"][table["size"] < (math.inf if best is None else best["size"])]
    bracket = (float(smaller.max()) if len(smaller) else 0.0, math.inf if best is None else float(best["size"]))
    return ReverseStress(
        size=bracket[1],
        shock=None if best is None else scenarios[int(best["scenario"])],
        value=float(values.max()) if best is None else float(best["value"]),
        bracket=bracket,
        guaranteed=True,
        crossings=reaching.reset_index(drop=True),
        evaluated=evaluated,
        threshold=response.threshold,
        measure=response.measure,
    )
