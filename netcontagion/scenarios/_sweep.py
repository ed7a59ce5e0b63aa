"""The sweep: every scenario on every network, by however many processes, into one table and one sum by node."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.margining import cascade
from netcontagion.network import ExposureNetwork
from netcontagion.scenarios._checkpoint import Checkpoint, digest_of
from netcontagion.scenarios._handle import Handles
from netcontagion.scenarios._nodes import Forest
from netcontagion.scenarios._reading import RAN
from netcontagion.scenarios._run import SETTLED, TOTAL, as_run
from netcontagion.scenarios._scenarios import as_scenarios
from netcontagion.scenarios._statistics import check_share, tail_weights
from netcontagion.scenarios._sweep_result import NetworkSums, SweepResult
from netcontagion.scenarios._tasks import Job, carry_out

if TYPE_CHECKING:
    from pathlib import Path

    from netcontagion.network import Shock
    from netcontagion.scenarios._handle import Handle
    from netcontagion.scenarios._nodes import Floats, Segment
    from netcontagion.scenarios._run import Run
    from netcontagion.scenarios._scenarios import Scenarios

    Networks = ExposureNetwork | Mapping[Any, ExposureNetwork] | Iterable[ExposureNetwork]

__all__ = ["Means", "Plan", "as_networks", "play", "sweep"]

QUIET = 1.0  # seconds before a progress bar shows
RUNS, TAIL = "runs", "tail"  # stages of a sweep, and names of its parts


def sweep(
    nets: Networks,
    shocks: Shock | Iterable[Shock],
    *,
    run: Callable[..., Any] = cascade,
    outputs: Iterable[str] | Mapping[str, Callable[[Any], float]] | None = None,
    nodes: bool = True,
    tail: float | None = 0.95,
    n_jobs: int | None = None,
    progress: bool = True,
    seed: int | np.random.Generator | None = None,
    checkpoint: str | Path | None = None,
) -> SweepResult:
    """Run many scenarios on one network or several; a scenario that fails is a row with its error.

    Results depend on neither ``n_jobs`` nor the backend of joblib: ``with joblib.parallel_config(backend="dask"):``
    runs the same on a cluster. A network is written to a folder once, where ``JOBLIB_TEMP_FOLDER`` says, and mapped
    into memory by every process, which keeps its index and compiled kernels for all scenarios.

    Parameters
    ----------
    nets : ExposureNetwork, mapping of name to network, or iterable of networks
        Networks, all checked before any work; without names they are numbered from 0.
    shocks : Scenarios, Shock or iterable of Shock
        Scenarios, the same for every network.
    run : callable, default nc.cascade
        ``nc.cascade``, ``nc.clear``, a ``functools.partial`` of either with options, or any ``run(net, shock)`` that
        returns one of their results, or numbers by name. It is given ``seed=``, its own for every network and scenario,
        where it takes one. Clearing by "eisenberg_noe" solves scenarios side by side.
    outputs : collection of str, or mapping of name to function of a result, optional
        Columns of numbers; default: all below, of a run of one's own all numbers it returns. Of both engines ``loss``
        [num], ``direct`` (by the shock itself), ``contagion`` (the rest), ``defaults``, ``rounds``; of ``nc.cascade``
        ``called``, ``liquidated``, ``sold``, ``bad_debt``, ``insurance_fund_used``, ``equity_used``, ``socialised``,
        ``uncovered``; of ``nc.clear`` ``shortfall``. Losses are summed over bearers, the market's included.
    nodes : bool, default True
        Whether to add up, by node, expected losses, defaults and tail losses. Without, and without the first four
        outputs, a cascade costs what it touches, not what the network holds.
    tail : float or None, default 0.95
        Level of the tail losses by node: their mean over the worst share ``1 - tail`` of the scenarios by loss of all
        nodes, exactly, by running these scenarios once more. None: no second run.
    n_jobs : int, optional
        Processes, as joblib counts them; default: what ``joblib.parallel_config`` says, else one.
    progress : bool, default True
        Whether work that lasts over a second shows a bar.
    seed : int or numpy Generator, optional
        Of all runs that take one.
    checkpoint : path, optional
        Folder that keeps what is done; the same call takes it up after a kill.

    Returns
    -------
    SweepResult
        ``table``, ``nodes``, quantiles, value at risk and expected shortfall with intervals.

    Raises
    ------
    TypeError, SchemaError, UnknownLabelError
        Not a network, not a shock, or names that a network or the outputs do not know: before any work.
    ContagionError
        A checkpoint that cannot be written, holds something else, or was made from other inputs.

    Examples
    --------
    >>> import netcontagion as nc
    >>> net = nc.datasets.load("market")
    >>> falls = [nc.Shock.price({"ETH": -x / 10}, family=True) for x in range(5)]
    >>> found = nc.sweep(net, falls, outputs=["liquidated"])
    >>> bool(found.table["liquidated"].is_monotonic_increasing)
    True
    """
    if tail is not None:
        check_share("tail", tail)
    plan = Plan.of(nets, shocks, as_run(run, outputs, nodes=nodes), seed)
    return play(plan, Means(n_jobs, progress, checkpoint), tail)


@dataclass(frozen=True)
class Means:
    """By what a sweep is carried out; nothing in its result depends on it."""

    n_jobs: int | None = None
    progress: bool = True
    checkpoint: str | Path | None = None


@dataclass(frozen=True)
class Plan:
    """What a sweep is made from, checked; ``common``: a scenario has the same seed on every network."""

    names: tuple[Any, ...]
    nets: tuple[ExposureNetwork, ...]
    scenarios: Scenarios
    run: Run
    seed: int | None
    entropy: int
    common: bool = False

    @classmethod
    def of(cls, nets: Any, shocks: Any, run: Run, seed: Any, *, common: bool = False) -> Plan:
        """Check all of it."""
        named, scenarios = as_networks(nets), as_scenarios(shocks)
        if not len(scenarios):
            message = "there is no scenario to run"
            raise ValueError(message)
        for net in named.values():
            run.check(net, scenarios)
        given, entropy = _entropy(seed)
        return cls(tuple(named), tuple(named.values()), scenarios, run, given, entropy, common)

    def made_from(self) -> dict[str, str]:
        """Digests of everything that results depend on."""
        found = digest_of(self.nets, self.names, self.scenarios.shocks, self.run)
        return found | {"seed": f"{self.seed}{' common' if self.common else ''}"}


def as_networks(nets: Any) -> dict[Any, ExposureNetwork]:
    """Return networks by name, or one error about all that is none."""
    if isinstance(nets, ExposureNetwork):
        return {0: nets}
    if not isinstance(nets, Iterable) or isinstance(nets, str):
        raise TypeError(f"the networks come first: an ExposureNetwork or several, not {type(nets).__name__}")
    named = dict(nets) if isinstance(nets, Mapping) else dict(enumerate(nets))
    wrong = [
        f"{name!r} is a {type(net).__name__}" for name, net in named.items() if not isinstance(net, ExposureNetwork)
    ]
    if wrong or not named:
        raise TypeError(f"networks are ExposureNetworks: {', '.join(wrong) or 'there is none'}")
    return named


def _entropy(seed: Any) -> tuple[int | None, int]:
    """Return the seed as it was given, and the entropy of all seeds."""
    if seed is None:
        drawn: Any = np.random.SeedSequence().entropy
        return None, int(drawn)
    if isinstance(seed, np.random.Generator):
        drawn = int(seed.integers(2**63))
        return drawn, drawn
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed is {seed!r}; allowed: a whole number, 0 or more, or a numpy Generator")
    return int(seed), int(seed)


def play(plan: Plan, means: Means, tail: float | None) -> SweepResult:
    """Run all scenarios, then those of the tail once more, and put the result together."""
    store = None
    if means.checkpoint is not None:
        store = Checkpoint(means.checkpoint, plan.made_from(), plan.entropy)
    entropy = plan.entropy if store is None else store.entropy
    everything = np.arange(len(plan.scenarios))
    with Handles(plan.nets) as handles:
        job = _job(plan, handles, entropy, [everything] * len(handles), [np.ones(len(everything))] * len(handles))
        runs = _gather(job, RUNS, means, store)
        worst = [_tail(one, tail) for one in runs]
        again = _gather(
            job._replace(chosen=tuple(at for at, _ in worst), weights=tuple(weight for _, weight in worst)),
            f"{TAIL}_{tail}",
            means,
            store,
        )
    sums = [NetworkSums.of(net, one, other) for net, one, other in zip(plan.nets, runs, again, strict=True)]
    rows = [one.rows for one in runs if one is not None]
    return SweepResult.of(plan.names, plan.scenarios.parameters, rows, sums, tail=tail, seed=entropy)


def _job(plan: Plan, handles: list[Handle], entropy: int, chosen: list[Any], weights: list[Floats]) -> Job:
    sizes = tuple(plan.run.size(net) for net in plan.nets)
    shocks = plan.scenarios.shocks
    return Job(plan.run, shocks, entropy, plan.common, tuple(handles), sizes, tuple(chosen), tuple(weights))


def _gather(job: Job, stage: str, means: Means, store: Checkpoint | None) -> list[Segment | None]:
    """Run a job as far as it is not done; return what each network gave."""
    from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

    forest = Forest() if store is None else store.parts(stage)
    done = sum(len(segment.rows.status) for segment in forest.segments.values())
    total = sum(map(len, job.chosen))
    with tqdm(
        total=total, initial=done, desc=stage.partition("_")[0], delay=QUIET, leave=False, disable=not means.progress
    ) as bar:

        def take(segments: list[Segment]) -> None:
            known = set(forest.segments)
            for segment in segments:
                forest.add(segment)
            if store is not None:
                store.keep(stage, forest, known)
            bar.update(sum(len(segment.rows.status) for segment in segments))

        if done < total:
            carry_out(job, forest, take, means.n_jobs)
    return [forest.whole(network) if job.blocks(network) else None for network in range(len(job.handles))]


def _tail(found: Segment | None, level: float | None) -> tuple[Any, Floats]:
    """Return numbers and weights of the scenarios of the tail, by the loss of all nodes."""
    if found is None or level is None or found.sums is None:
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    losses = np.where(np.isin(found.rows.status.astype(str), [*SETTLED, RAN]), found.rows.column(TOTAL), np.nan)
    counted = np.flatnonzero(~np.isnan(losses))
    if not len(counted):
        return counted, np.zeros(0)
    weights = tail_weights(losses[counted], level)
    return counted[weights > 0], weights[weights > 0]
