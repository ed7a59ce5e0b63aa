"""``nc.buffers``: what buffers did, what a unit of each saves, how large they have to be, and where a budget goes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import plain
from netcontagion.errors import ContagionError, UnknownLabelError
from netcontagion.network import ExposureNetwork, check_call
from netcontagion.ranking._allocation import allocate
from netcontagion.ranking._buffer_report import BufferReport
from netcontagion.ranking._marginal import firewalls, marginals
from netcontagion.ranking._outcomes import LOSS, as_target, known_outcomes
from netcontagion.ranking._response import Response, engine_of
from netcontagion.ranking._search import required
from netcontagion.ranking._sizing import sizing
from netcontagion.ranking._stocks import stocks
from netcontagion.ranking._study import NotApplicable
from netcontagion.ranking._tools import TOOLS, lever_of, places_of
from netcontagion.scenarios import as_scenarios

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from netcontagion.network import Shock
    from netcontagion.ranking._allocation import Allocation
    from netcontagion.ranking._outcomes import Target
    from netcontagion.ranking._search import Required
    from netcontagion.ranking._stocks import Stock
    from netcontagion.ranking._tools import Lever
    from netcontagion.scenarios import Scenarios

    Floats = NDArray[np.float64]

__all__ = ["buffers"]

ROUNDING = {"cascade": 1e-12, "clear": 1e-9}  # of all money in the network: a limit that is passed by less is met


def buffers(
    net: ExposureNetwork,
    shocks: Shock | Iterable[Shock],
    *,
    tools: str | Iterable[str] | Mapping[str, Any] = ("insurance_fund",),
    target: float | Mapping[str, float] | None = None,
    quantile: float | None = None,
    budget: float | None = None,
    outcome: str = LOSS,
    run: Callable[..., Any] | None = None,
    grid: int | Mapping[str, Sequence[float]] = 17,
    step: float = 0.01,
    tolerance: float = 1e-6,
    n_jobs: int | None = None,
    seed: int | None = None,
) -> BufferReport:
    r"""Measure buffers: what they held back, what a unit more of them saves, how large they have to be.

    Sizes are money at prices before the shock (margin, equity, fund, depth), summed over the nodes of a tool, or rates
    that hold in each of its markets (threshold, bonus, close factor). All nodes together ("all") share money in
    proportion to their largest loss over the scenarios, else to what they hold.

    Parameters
    ----------
    net : ExposureNetwork
        The network.
    shocks : Scenarios, Shock or iterable of Shock
        Scenarios; each counts alike.
    tools : str, collection of str, or mapping of tool to nodes
        "trader_margin", "exchange_equity", "insurance_fund", "liquidation_threshold", "liquidation_bonus",
        "close_factor", "depth"; for which traders, exchanges or assets, by default all.
    target : float or mapping of outcome to float, optional
        Largest outcomes allowed: ``{"bad_debt": 1e6}``, ``{"defaults": 0}``; a number limits the spillover. Of
        ``liquidation_bonus`` it is also asked that liquidators do not lose.
    quantile : float, optional
        Share of the scenarios in which the target has to hold (default: all), and which funds are sized for.
    budget : float, optional
        Money to spend on the tools so that the mean outcome falls most.
    outcome : str, default "spillover"
        What firewall, marginal values and allocation are about. "spillover" is what passes the buffers [num]: what loss
        layers take from others than the exchange and what is left unpaid in the end; the shortfall of a clearing. Or an
        output of :func:`netcontagion.sweep`: "bad_debt", "contagion", "defaults", "liquidated", ...
    run : callable, optional
        ``nc.cascade`` or ``nc.clear``, or a ``functools.partial`` of either; by default the former where there are
        accounts. All sizes of a buffer meet the same random numbers.
    grid : int or mapping of tool to sizes, default 17
        Points between none and enough of a tool, or the sizes themselves.
    step : float, default 0.01
        Bump of a marginal value, over what is held, else over the largest loss that reaches the buffer.
    tolerance : float, default 1e-6
        Width to which crossings are bisected, over the grid's.
    n_jobs : int, optional
        Processes, as in :func:`netcontagion.sweep`.
    seed : int, optional
        Of a cascade that takes one.

    Returns
    -------
    BufferReport
        ``buffers``, ``scenarios``, ``required``, ``crossings``, ``sizing``, ``allocation``, ``rescue``.

    Raises
    ------
    UnknownLabelError, ValueError
        Tools, outcomes or nodes that are not known, numbers that make no sense; several in one error.
    ContagionError
        A tool that does not apply (why), a target that cannot be met (how close, why), a run without an answer.

    References
    ----------
    Eisenberg, Noe, Management Science 47 (2001), doi:10.1287/mnsc.47.2.236.9835; Demange, Management Science 64 (2018),
    doi:10.1287/mnsc.2016.2592 (the marginal value of a clearing).

    Examples
    --------
    >>> import netcontagion as nc
    >>> net = nc.builders.from_matrix([[0, 8], [0, 0]], rows="debtor", external_assets=[9, 1], labels=["a", "b"])
    >>> tools = {"trader_margin": ["a", "b"]}
    >>> report = nc.buffers(net, nc.Shock.loss({"a": 3.0}), tools=tools, target=0.5, budget=1.0)
    >>> report.buffers["marginal"].tolist()[:2]
    [1.0, 0.0]
    >>> report.required["required"].round(4).tolist()[0]
    10.5
    >>> report.allocation["money"].tolist()
    [1.0, 0.0]
    """
    ask = _Ask.of(net, shocks, tools, target, quantile, budget, outcome, run, grid, step, tolerance, n_jobs, seed)
    response = ask.response
    levers = _levers(ask, response.deficits.max(axis=0, initial=0.0))
    draining = [lever for lever in levers if TOOLS[lever.tool].drains]
    did = dict(zip(draining, stocks(response, draining), strict=True))
    needs = {lever: float(did[lever].reached.max()) if lever in did else 0.0 for lever in levers}
    found = [] if ask.target is None else _searched(ask, levers, needs)
    spending = _alone_if_any(levers)
    spent = None if budget is None else allocate(response, spending, float(budget), outcome)
    sized = quantile is not None and response.kind == "cascade" and "insurance_fund" in ask.tools
    return BufferReport(
        buffers=_table(ask, levers, did, needs),
        scenarios=_by_scenario(did),
        outcomes=_outcomes(response),
        required=_required(net, found) if found else None,
        crossings=_crossings(found) if found else None,
        tried=_tried(found) if found else None,
        sizing=_sizes(response, did, float(quantile)) if sized and quantile is not None else None,
        allocation=None if spent is None else _allocation(spending, spent),
        assumptions=_assumptions(ask, found),
        outcome=outcome,
        target=ask.target,
        quantile=quantile,
        budget=budget,
        _response=response,
    )


# what is asked --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Ask:
    """What is asked, checked: the places of every tool, and whether they were named."""

    response: Response
    tools: dict[str, tuple[Any, bool]]
    target: Target | None
    outcome: str
    grid: int | Mapping[str, Sequence[float]]
    step: float
    tolerance: float

    @classmethod
    def of(
        cls, net: Any, shocks: Any, tools: Any, target: Any, quantile: Any, budget: Any, outcome: Any, run: Any,
        grid: Any, step: Any, tolerance: Any, n_jobs: Any, seed: Any,
    ) -> _Ask:  # fmt: skip
        """Check everything; all that is wrong is one error."""
        if not isinstance(net, ExposureNetwork):
            raise TypeError(f"the network comes first and is an ExposureNetwork, not {type(net).__name__}")
        scenarios = as_scenarios(shocks)
        call, kind = engine_of(net, run, seed)
        problems: list[Exception] = [] if len(scenarios) else [ValueError("there is no scenario to run")]
        chosen = _chosen(net, tools, problems)
        limits, wrong = as_target(target, quantile, kind, ROUNDING[kind] * _gross(net))
        problems += wrong
        if outcome not in known_outcomes(kind):
            problems.append(UnknownLabelError(outcome, known_outcomes(kind), "outcome"))
        share = "a share above 0 and below 1"
        for name, value, high, allowed in (
            ("quantile", quantile, 1.0, share),
            ("budget", budget, math.inf, "money above 0"),
            ("step", step, 1.0, share),
            ("tolerance", tolerance, 1.0, share),
        ):
            if value is not None and not (_is_number(value) and 0 < value < high):
                problems.append(ValueError(f"{name} is {value!r}; allowed: {allowed}"))
        if quantile is not None and target is None and "insurance_fund" not in chosen:
            problems.append(ValueError("quantile needs a target, or the tool 'insurance_fund' to be sized"))
        rates = [name for name in chosen if not TOOLS[name].is_money]
        if budget is not None and rates:
            problems.append(ValueError(f"budget is money, and {', '.join(rates)} cost none; leave them out"))
        problems += _grid_problems(grid, chosen)
        try:
            scenarios.check(net)
            problems += _impossible(net, scenarios, kind)
        except UnknownLabelError as unknown:
            problems.append(unknown)
        _raise(problems)
        names = tuple(dict.fromkeys([outcome, *([] if limits is None else [name for name, _ in limits.limits])]))
        response = Response(net, scenarios, call, kind, names, n_jobs)
        return cls(response, chosen, limits, outcome, grid, step, tolerance)

    def sizes(self, tool: str) -> int | Sequence[float]:
        """Return the points of the grid of a tool, or its sizes."""
        return self.grid if isinstance(self.grid, int) else self.grid.get(tool, 17)


def _is_number(value: Any) -> bool:
    return isinstance(plain(value), (int, float)) and not isinstance(plain(value), bool)


def _chosen(net: ExposureNetwork, tools: Any, problems: list[Exception]) -> dict[str, tuple[Any, bool]]:
    """Find the places of each tool; what is wrong is added to the problems."""
    if not isinstance(tools, Iterable):
        raise TypeError(f"tools is {tools!r}; give names of tools, or their nodes by name")
    given = {tools: None} if isinstance(tools, str) else tools if isinstance(tools, Mapping) else dict.fromkeys(tools)
    if not given:
        problems.append(ValueError(f"tools is empty; choose from {', '.join(TOOLS)}"))
    found: dict[str, tuple[Any, bool]] = {}
    for name, nodes in given.items():
        if name not in TOOLS:
            problems.append(UnknownLabelError(name, TOOLS, "tool"))
            continue
        try:
            places = places_of(net, name)
        except NotApplicable as why:
            problems.append(ContagionError(f"tool {name!r} does not apply: {why}"))
            continue
        found[name] = (places, False) if nodes is None else (_named(net, name, nodes, places, problems), True)
    return found


def _named(net: ExposureNetwork, name: str, nodes: Any, places: Any, problems: list[Exception]) -> Any:
    kind = TOOLS[name].nodes
    labels = net.labels(kind)
    wanted = list(nodes) if isinstance(nodes, (list, tuple, set, frozenset, np.ndarray)) else [nodes]
    if not wanted:
        problems.append(ValueError(f"tool {name!r}: name at least one of {kind}"))
    known = {label: place for place, label in enumerate(labels.tolist())}
    chosen = {known[label] for label in wanted if label in known}
    problems += [UnknownLabelError(label, known, kind.removesuffix("s")) for label in wanted if label not in known]
    for place in sorted(chosen - set(places.tolist())):
        told = f"tool {name!r} does not apply to {labels[place]!r}: it has nothing of the kind"
        problems.append(ContagionError(told))
    return np.array(sorted(chosen), dtype=np.intp)


def _grid_problems(grid: Any, chosen: Mapping[str, Any]) -> list[Exception]:
    if isinstance(grid, int) and not isinstance(grid, bool):
        return [] if grid >= 2 else [ValueError(f"grid is {grid!r}; allowed: 2 points or more, or sizes by tool")]
    if not isinstance(grid, Mapping):
        return [ValueError(f"grid is {grid!r}; allowed: 2 points or more, or sizes by tool")]
    problems: list[Exception] = [UnknownLabelError(name, chosen, "tool") for name in grid if name not in chosen]
    for name, sizes in grid.items():
        values = list(sizes)
        least = 0.0 if (name in chosen and TOOLS[name].drains) or name == "liquidation_bonus" else np.nextafter(0, 1)
        fit = all(_is_number(value) and least <= value < math.inf for value in values)
        if not fit or len(set(values)) < 2:
            problems.append(
                ValueError(f"grid of {name!r} is {values!r}; allowed: two sizes or more, finite, not below 0")
            )
    return problems


def _impossible(net: ExposureNetwork, scenarios: Scenarios, kind: str) -> list[Exception]:
    """Tell which scenarios take more than there is: sizes of margin cut losses, what the network holds does not."""
    found: dict[str, Exception] = {}
    for shock in scenarios:
        if shock.losses or shock.later:
            try:
                check_call(net, shock, path=kind == "cascade")
            except ValueError as error:
                found.setdefault(str(error), error)
    return list(found.values())


def _raise(problems: Sequence[Exception]) -> None:
    """Raise what is wrong as one error."""
    if not problems:
        return
    if len(problems) == 1:
        raise problems[0]
    unknown = [problem for problem in problems if isinstance(problem, UnknownLabelError)]
    if len(unknown) == len(problems):
        raise UnknownLabelError.together(unknown)
    listed = "\n".join(f"  - {problem}" for problem in problems)
    message = f"{len(problems)} things are wrong:\n{listed}"
    raise ValueError(message) if any(isinstance(one, ValueError) for one in problems) else ContagionError(message)


def _gross(net: ExposureNetwork) -> float:
    """All money in a network, for the size of rounding."""
    traders, exchanges, book = net.columns("traders"), net.columns("exchanges"), net.book
    held = float((book.deposited * book.market_mark[book.balance_market]).sum() + book.notional().sum())
    owed = float(net.columns("liabilities")["amount"].sum() + traders["external_liabilities"].sum())
    return held + owed + float(traders["external_assets"].sum() + exchanges["equity"].sum())


# levers ---------------------------------------------------------------------------------------------------------------


def _levers(ask: _Ask, need: Floats) -> list[Lever]:
    """Nodes of each tool one by one where they were named, are exchanges or clear; and all together."""
    net, found = ask.response.net, []
    for name, (places, named) in ask.tools.items():
        needed = need if TOOLS[name].nodes == "exchanges" else None
        alone = named or TOOLS[name].nodes == "exchanges" or ask.response.kind == "clear" or len(places) == 1
        if alone:
            found += [lever_of(net, name, places[at : at + 1], needed, alone=True) for at in range(len(places))]
        if not alone or len(places) > 1:
            found.append(lever_of(net, name, places, needed))
    return found


def _alone_if_any(levers: Sequence[Lever]) -> list[Lever]:
    """Return levers of single nodes; of tools without any, that of all nodes."""
    alone = {lever.tool for lever in levers if lever.alone}
    return [lever for lever in levers if lever.alone or lever.tool not in alone]


def _searched(ask: _Ask, levers: Sequence[Lever], needs: Mapping[Lever, float]) -> list[Required]:
    """Search the required size of levers; an error where none can meet the target.

    Traders one by one are many: they are searched where they were named, or where there is one.
    """
    assert ask.target is not None
    together = {lever.tool for lever in levers if not lever.alone}
    found = [
        required(ask.response, lever, ask.target, needs[lever], ask.sizes(lever.tool), ask.tolerance)
        for lever in levers
        if not lever.alone
        or TOOLS[lever.tool].nodes != "traders"
        or ask.tools[lever.tool][1]
        or lever.tool not in together
    ]
    if all(np.isnan(one.size) for one in found):
        told = "".join(f"\n  - {_failure(one, len(ask.response.scenarios))}" for one in found)
        raise ContagionError(f"the target {ask.target} cannot be met:{told}")
    return found


def _failure(one: Required, scenarios: int) -> str:
    size, (met, values) = one.closest[0], one.tried[one.closest[0]]
    near = " and ".join(f"{name} {value:,.6g}" for name, value in values.items())
    return f"{one.lever} comes closest at {size:,.6g}: {near}, met in {met} of {scenarios} scenarios; {one.why}"


# tables ---------------------------------------------------------------------------------------------------------------


def _index(levers: Sequence[Lever]) -> pd.MultiIndex:
    import pandas as pd

    return pd.MultiIndex.from_arrays(
        [[lever.tool for lever in levers], pd.Index([lever.node for lever in levers], dtype=object)],
        names=["tool", "node"],
    )


def _table(
    ask: _Ask, levers: Sequence[Lever], did: Mapping[Lever, Stock], needs: Mapping[Lever, float]
) -> pd.DataFrame:
    import pandas as pd

    rows = []
    worth = marginals(ask.response, levers, ask.outcome, needs, ask.step)
    walls = firewalls(ask.response, levers, ask.outcome)
    for lever, marginal, wall in zip(levers, worth, walls, strict=True):
        row = {"held": lever.held, "unit": ask.response.net.numeraire if TOOLS[lever.tool].is_money else "1"}
        if lever in did:
            stock = did[lever]
            reached, used = float(stock.reached.sum()), float(stock.used.sum())
            ended = stock.exhausted[~np.isnan(stock.exhausted)]
            row |= {"reached": float(stock.reached.mean()), "used": float(stock.used.mean())}
            row |= {"absorption": used / reached if reached > 0 else np.nan}
            row |= {"exhausted": len(ended) / len(stock.exhausted), "first_exhausted": ended.min(initial=np.inf)}
        row |= {"firewall": wall, "marginal": marginal.more, "marginal_less": marginal.less, "step": marginal.step}
        rows.append(row)
    columns = ["held", "unit", "reached", "used", "absorption", "exhausted", "first_exhausted"]
    columns += ["firewall", "marginal", "marginal_less", "step"]
    table = pd.DataFrame(rows, index=_index(levers)).reindex(columns=columns)
    return table.assign(first_exhausted=table["first_exhausted"].replace(np.inf, np.nan))


def _by_scenario(did: Mapping[Lever, Stock]) -> pd.DataFrame:
    import pandas as pd

    parts = [pd.DataFrame(stock._asdict()).rename_axis(index="scenario") for stock in did.values()]
    keys = [(lever.tool, lever.node) for lever in did]
    if not parts:
        return pd.DataFrame(columns=["reached", "used", "exhausted"])
    return pd.concat(parts, keys=keys, names=["tool", "node"])


def _outcomes(response: Response) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(response.now).rename_axis(index="scenario")


def _required(net: ExposureNetwork, found: Sequence[Required]) -> pd.DataFrame:
    import pandas as pd

    price = net.columns("assets")["price"]
    rows = []
    for one in found:
        lever, units = one.lever, np.nan
        if lever.tool == "insurance_fund" and len(lever.places) == 1:
            asset = net.columns("exchanges")["insurance_asset"][lever.places[0]]
            units = one.size / (1.0 if asset < 0 else price[asset])
        rows.append(
            {
                "required": one.size,
                "guaranteed": one.guaranteed,
                "held": lever.held,
                "added": one.size - lever.held,
                "units": units,
                "closest": one.closest[0] if np.isnan(one.size) else np.nan,
                "why": one.why,
            }
        )
    return pd.DataFrame(rows, index=_index([one.lever for one in found]))


def _crossings(found: Sequence[Required]) -> pd.DataFrame:
    import pandas as pd

    rows = [(one.lever, crossing) for one in found for crossing in one.crossings]
    columns = ["smaller", "larger", "gained", "met_smaller", "met_larger"]
    return pd.DataFrame([crossing for _, crossing in rows], columns=columns, index=_index([lever for lever, _ in rows]))


def _tried(found: Sequence[Required]) -> pd.DataFrame:
    import pandas as pd

    rows, keys = [], []
    for one in found:
        for size, (met, values) in sorted(one.tried.items()):
            rows.append({"size": size, "meet": met, **values})
            keys.append(one.lever)
    return pd.DataFrame(rows, index=_index(keys))


def _sizes(response: Response, did: Mapping[Lever, Stock], level: float) -> pd.DataFrame:
    net = response.net
    reached = np.zeros((len(response.scenarios), len(net.labels("exchanges"))))
    alone = [lever for lever in did if lever.tool == "insurance_fund" and len(lever.places) == 1]
    for lever in alone:
        reached[:, lever.places[0]] = did[lever].reached
    return sizing(net, response.scenarios, reached, level).iloc[[lever.places[0] for lever in alone]]


def _allocation(levers: Sequence[Lever], spent: Allocation) -> pd.DataFrame:
    import pandas as pd

    table = pd.DataFrame({"money": spent.money}, index=_index(levers))
    table.attrs |= {"before": spent.before, "after": spent.after, "bound": spent.bound, "method": spent.method}
    return table


def _assumptions(ask: _Ask, found: Sequence[Required]) -> tuple[str, ...]:
    response = ask.response
    told = [f"every scenario counts alike; run: {response.model or 'cascade'}"]
    if "trader_margin" in ask.tools and response.kind == "cascade":
        told.append("margin grows in proportion to deposits, from outside the network")
    if "liquidation_bonus" in ask.tools and np.isfinite(response.net.columns("accounts")["liquidation_bonus"]).any():
        told.append("accounts keep bonuses of their own")
    if any(not one.guaranteed and not np.isnan(one.size) for one in found):
        told.append("required sizes that are not guaranteed hold at every size that was tried, not between them")
    if any(math.isinf(value) for one in found for _, outcomes in one.tried.values() for value in outcomes.values()):
        told.append("sizes at which too many scenarios end without an answer do not meet the target")
    return tuple(told)
