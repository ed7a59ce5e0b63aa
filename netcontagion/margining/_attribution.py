"""Why a loss occurs and what hangs on the order of fills: the same cascade, run again with something changed."""

from __future__ import annotations

import functools
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import shapley_weights
from netcontagion.errors import ContagionError, NotSettledError, UnknownLabelError
from netcontagion.margining._cascade import SWITCHES, cascade
from netcontagion.margining._policies import traders_who
from netcontagion.margining._state import bearers
from netcontagion.network import check_call

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator

    import pandas as pd
    from numpy.typing import NDArray

    from netcontagion.margining._result import CascadeResult
    from netcontagion.network import ExposureNetwork, Shock

    Measure = Callable[[CascadeResult], Any]
    Seed = int | np.random.Generator | None

__all__ = ["leave_one_channel_out", "order_gap", "shapley"]

_MOST_CHANNELS = 6  # 64 runs
_QUIET = 1.0  # seconds before a progress bar shows


def shapley(
    net: ExposureNetwork,
    shock: Shock,
    *,
    by: str = "bearer",
    seed: Seed = None,
    n_jobs: int | None = None,
    progress: bool = True,
    **options: Any,
) -> pd.DataFrame:
    r"""Split what a cascade adds to losses over the behavioural channels that cause it (Shapley value).

    With ``L(S)`` the loss of a bearer when the channels in S are on and all others off, channel i of the k channels N
    bears its marginal loss averaged over all orders of switching them on::

        phi_i = sum over S of N without i of |S|! (k - |S| - 1)! / k! (L(S with i) - L(S))

    for every bearer; over channels it adds up to ``L(N) - L(none)``. ``L(none)`` is what the shock itself takes, with
    final clearing. The split by entries of the ledger is another one: ``CascadeResult.losses``.

    Parameters
    ----------
    net, shock
        As in ``cascade``.
    by : {"bearer", "node", "group"}
        Columns: those of ``CascadeResult.losses``; every trader and every exchange on its own; or traders, others,
        exchanges, liquidators, market, external creditors.
    seed : int or numpy Generator, optional
        The same seed for each of the runs.
    n_jobs : int, optional
        Runs at a time, as in joblib, whose ``parallel_config`` chooses processes or threads; results do not depend on
        it. Starting processes takes seconds: for runs that last longer.
    progress : bool, default True
        Show a progress bar when the work lasts.
    **options
        Passed on to ``cascade``. ``channels`` are the ones to split by, at most six; all others stay off.

    Returns
    -------
    DataFrame
        Losses [num], channel x bearer.

    Raises
    ------
    NotSettledError
        A run did not settle (with ``strict``); the note says which channels were on.
    ContagionError
        A run ended with losses that are no number.

    Notes
    -----
    2^k runs for k channels. A channel that cannot act whatever the others do has the share 0 and is not run on and off:

    * ``top_up`` moves units from wallets, and nothing is ever put into a wallet: idle when no wallet holds a unit.
    * ``withdrawal`` moves units between two accounts of one trader: idle when nobody has two accounts.
    * ``liquidation`` closes accounts below health 1, and health is infinite without debt and positions: idle when
      there are none.
    * ``impact`` moves a price by a function of Q / depth that is 1 at 0: idle when no depth is finite.

    References
    ----------
    Shapley (1953), A value for n-person games, doi:10.1515/9781400881970-018.

    Examples
    --------
    >>> import netcontagion as nc
    >>> from netcontagion import margining
    >>> net, shock = nc.datasets.load("market"), nc.Shock.price({"ETH": -0.3}, family=True)
    >>> split = margining.shapley(net, shock, channels=("liquidation", "impact"), by="group", progress=False)
    >>> bool(split.loc["impact", "traders"] > 0)
    True
    """
    measure = _losses_by(by)
    channels, acting = _players(net, shock, options)
    sets = [[name for place, name in enumerate(acting) if mask >> place & 1] for mask in range(2 ** len(acting))]
    jobs = _with_channels(sets, options, seed)
    runs = _run_each(net, shock, jobs, measure, n_jobs=n_jobs, progress=progress, title="Shapley")
    none = next(runs)
    shares = np.zeros((len(acting), len(none)))
    for mask, found in enumerate(runs, start=1):  # one at a time: a row per trader may be long
        shares += shapley_weights(len(acting), mask)[:, None] * (found.to_numpy() - none.to_numpy())
    return _table(_filled(shares, acting, channels), channels, none.index)


def leave_one_channel_out(
    net: ExposureNetwork,
    shock: Shock,
    *,
    by: str = "bearer",
    seed: Seed = None,
    n_jobs: int | None = None,
    progress: bool = True,
    **options: Any,
) -> pd.DataFrame:
    """Return by how much losses fall when one channel is switched off, with the interaction of the channels.

    Row i is ``L(N) - L(N without i)``; "together" is ``L(N) - L(none)``; "interaction" is what the rows of the
    channels leave of it, and is what they count twice where it is negative. These differences do not split a loss:
    ``shapley`` does.

    Parameters
    ----------
    net, shock
        As in ``cascade``.
    by : {"bearer", "node", "group"}
        Columns, as in ``shapley``.
    seed, n_jobs, progress, **options
        As in ``shapley``.

    Returns
    -------
    DataFrame
        Differences of losses [num]: the channels, "interaction" and "together" x bearer.

    Raises
    ------
    NotSettledError, ContagionError
        As in ``shapley``.

    Examples
    --------
    >>> import netcontagion as nc
    >>> from netcontagion import margining
    >>> net, shock = nc.datasets.load("market"), nc.Shock.price({"ETH": -0.3}, family=True)
    >>> found = margining.leave_one_channel_out(net, shock, channels=("liquidation", "impact"), progress=False)
    >>> found.index.tolist()
    ['liquidation', 'impact', 'interaction', 'together']
    """
    measure = _losses_by(by)
    channels, acting = _players(net, shock, options)
    sets = [[], acting, *([name for name in acting if name != out] for out in acting)]
    jobs = _with_channels(sets, options, seed)
    runs = _run_each(net, shock, jobs, measure, n_jobs=n_jobs, progress=progress, title="leave one out")
    index = next(runs)
    none, everything, *without = (found.to_numpy() for found in (index, *runs))
    rows = np.array([everything - found for found in without]).reshape(len(acting), len(none))
    found, together = _filled(rows, acting, channels), everything - none
    table = np.vstack([found, together - found.sum(axis=0), together])
    return _table(table, [*channels, "interaction", "together"], index.index)


def order_gap(
    net: ExposureNetwork,
    shock: Shock,
    *,
    orders: int = 20,
    seed: Seed = None,
    n_jobs: int | None = None,
    progress: bool = True,
    **options: Any,
) -> pd.DataFrame:
    """Return how far outcomes hang on the order in which called accounts respond and are liquidated.

    The cascade runs worst first, best first and in ``orders`` random orders; for each quantity x, the gap is
    ``max x - min x`` over all of these runs. 0 says that none of them differs, not that no order does.

    Parameters
    ----------
    net, shock
        As in ``cascade``.
    orders : int, default 20
        Number of random orders, 0 or more.
    seed : int or numpy Generator, optional
        For the random orders.
    n_jobs, progress
        As in ``shapley``.
    **options
        Passed on to ``cascade``; not ``priority``.

    Returns
    -------
    DataFrame
        Quantity x (worst_first, best_first, pro_rata, min, max, gap); pro_rata, which fills a round's orders together,
        is no order and not in min, max and gap. "accounts with another fate" counts those that are
        liquidated where worst first does not liquidate them, or the other way round.

    Raises
    ------
    NotSettledError
        A run did not settle (with ``strict``); the note says which.

    Examples
    --------
    >>> import netcontagion as nc
    >>> from netcontagion import margining
    >>> net, shock = nc.datasets.load("market"), nc.Shock.price({"ETH": -0.3}, family=True)
    >>> found = margining.order_gap(net, shock, orders=2, seed=1, progress=False)
    >>> bool((found["gap"] >= 0).all())
    True
    """
    import pandas as pd

    if "priority" in options:
        message = "order_gap runs all priorities; leave priority out"
        raise TypeError(message)
    if orders < 0:
        raise ValueError(f"orders is {orders!r}; allowed: 0 or more")
    check_call(net, shock, path=True)
    drawn = np.random.default_rng(seed).integers(2**63, size=orders).tolist()
    jobs = [options | {"priority": "worst_first"}, options | {"priority": "best_first"}]
    jobs += [options | {"priority": "random", "seed": number} for number in drawn]
    jobs.append(options | {"priority": "pro_rata"})
    columns: list[pd.Series] = []
    first = None
    for quantities, liquidated in _run_each(
        net, shock, jobs, _outcome, n_jobs=n_jobs, progress=progress, title="orders"
    ):
        first = liquidated if first is None else first
        quantities["accounts with another fate"] = float((liquidated != first).sum())
        columns.append(quantities)
    runs = pd.concat(columns, axis=1)
    ordered = runs.iloc[:, :-1]
    table = pd.DataFrame(
        {
            "worst_first": runs.iloc[:, 0],
            "best_first": runs.iloc[:, 1],
            "pro_rata": runs.iloc[:, -1],
            "min": ordered.min(axis=1),
            "max": ordered.max(axis=1),
        }
    )
    return table.assign(gap=table["max"] - table["min"]).rename_axis(index="quantity")


# which channels ---------------------------------------------------------------------------------------------------


def _players(net: ExposureNetwork, shock: Shock, options: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Channels to look at, and those of them that can act; takes ``channels`` out of the options."""
    check_call(net, shock, path=True)
    channels = _named(options.pop("channels", None))
    return channels, [name for name in channels if name not in _IDLE or not _IDLE[name](net)]


def _named(given: Collection[str] | None) -> list[str]:
    if isinstance(given, str):
        raise TypeError(f"channels is {given!r}; give a collection of {', '.join(SWITCHES)}")
    wanted = SWITCHES if given is None else given
    for name in wanted:
        if name not in SWITCHES:
            raise UnknownLabelError(name, SWITCHES, "channel")
    found = [name for name in SWITCHES if name in wanted]
    if len(found) > _MOST_CHANNELS:
        raise ValueError(
            f"{len(found)} channels take {2 ** len(found)} runs; name at most {_MOST_CHANNELS} in channels"
        )
    return found


def _nobody_runs(net: ExposureNetwork) -> bool:
    return not len(traders_who(net, "runs"))


def _no_wallets(net: ExposureNetwork) -> bool:
    return _nobody_runs(net) and not (net.columns("wallets")["units"] > 0).any()  # runs fill wallets


def _one_account_each(net: ExposureNetwork) -> bool:
    owner = net.columns("accounts")["trader"]
    return len(np.unique(owner)) == len(owner)


def _nobody_owes(net: ExposureNetwork) -> bool:
    return not (net.columns("balances")["borrowed"] > 0).any() and not len(net.columns("positions")["quantity"])


def _no_depth(net: ExposureNetwork) -> bool:
    return not np.isfinite(net.book.book_depth).any()


_IDLE: dict[str, Callable[[ExposureNetwork], bool]] = {
    "top_up": _no_wallets,
    "withdrawal": lambda net: _one_account_each(net) and _nobody_runs(net),
    "reduction": lambda net: _one_account_each(net) and not len(traders_who(net, "orders")),
    "purchase": lambda net: not len(traders_who(net, "buys")),
    "liquidation": _nobody_owes,
    "impact": _no_depth,
}


# what is measured -------------------------------------------------------------------------------------------------


def _losses_by(by: str) -> Measure:
    measures: dict[str, Measure] = {"bearer": _by_bearer, "node": _by_node, "group": _by_group}
    if by not in measures:
        raise UnknownLabelError(by, tuple(measures), "value of by")
    return functools.partial(_finite, measures[by])


def _finite(measure: Measure, run: CascadeResult) -> pd.Series:
    found: pd.Series = measure(run)
    if not np.isfinite(found.to_numpy()).all():
        raise ContagionError(f"losses are no number in a run that ended {run.status.name}: {run.status.value}")
    return found


def _by_bearer(run: CascadeResult) -> pd.Series:
    return run.losses.sum(axis=0)


def _by_node(run: CascadeResult) -> pd.Series:
    import pandas as pd

    losses, net = run.losses.sum(axis=0), run.network
    outside = len(bearers(net))
    last = len(net.labels("exchanges")) + outside
    values = np.concatenate([run.traders["loss"].to_numpy(), losses.to_numpy()[-last:]])
    labels = [*net.nodes, *losses.index[-outside:]]
    return pd.Series(values, index=pd.Index(labels, dtype=object, tupleize_cols=False))


def _by_group(run: CascadeResult) -> pd.Series:
    import pandas as pd

    losses = run.losses.sum(axis=0)
    exchanges, outside = len(run.network.labels("exchanges")), bearers(run.network)
    others = len(losses) - 1 - exchanges - len(outside)
    group = ["traders", *["others"] * others, *["exchanges"] * exchanges, *outside]
    groups = ["traders", "others", "exchanges", *outside]
    return pd.Series(losses.to_numpy()).groupby(group, sort=False).sum().reindex(groups, fill_value=0.0)


def _outcome(run: CascadeResult) -> tuple[pd.Series, NDArray[np.bool_]]:
    """Return the main quantities of a run, and which accounts were liquidated."""
    import pandas as pd

    accounts, exchanges, money = run.accounts, run.exchanges, run.network.numeraire
    liquidated = accounts["liquidated"].to_numpy()
    found = {
        "rounds": len(run.rounds),
        "accounts called": accounts["called"].sum(),
        "accounts topped up": accounts["topped_up"].sum(),
        "accounts liquidated": liquidated.sum(),
        "accounts with another fate": 0.0,
        f"debt repaid [{money}]": accounts["repaid"].sum(),
        f"sold [{money}]": run.rounds["sold"].sum(),
        f"bad debt [{money}]": exchanges["deficit"].sum(),
    }
    found |= {f"loss of {name} [{money}]": value for name, value in _by_group(run).items()}
    found |= {f"price of {name} [{money}]": value for name, value in run.assets["price"].items()}
    return pd.Series(found, dtype=float), liquidated


# runs -------------------------------------------------------------------------------------------------------------


def _with_channels(sets: list[list[str]], options: dict[str, Any], seed: Seed) -> list[dict[str, Any]]:
    """Options of one run for each set of channels, all with one seed."""
    if seed is None or isinstance(seed, np.random.Generator):
        seed = int(np.random.default_rng(seed).integers(2**63))
    return [options | {"channels": tuple(on), "seed": seed} for on in sets]


def _run_each(
    net: ExposureNetwork,
    shock: Shock,
    jobs: list[dict[str, Any]],
    measure: Measure,
    *,
    n_jobs: int | None,
    progress: bool,
    title: str,
) -> Iterator[Any]:
    """Measure one cascade for each set of options, in their order whoever runs them."""
    from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

    with closing(_run_all(net, shock, jobs, measure, n_jobs)) as found:
        bar = tqdm(found, total=len(jobs), desc=title, delay=_QUIET, leave=False, disable=not progress)
        for job, measured in zip(jobs, bar, strict=True):
            if measured is None:
                _raise_unsettled(net, shock, job)
            yield measured


def _run_all(
    net: ExposureNetwork, shock: Shock, jobs: list[dict[str, Any]], measure: Measure, n_jobs: int | None
) -> Generator[Any, None, None]:
    yield _run_one(net, shock, jobs[0], measure)  # here, so that what is wrong with the options is said here
    if n_jobs is None or n_jobs == 1:
        yield from (_run_one(net, shock, job, measure) for job in jobs[1:])
        return
    from joblib import Parallel, delayed  # type: ignore[import-untyped, import-not-found, unused-ignore]

    work = (delayed(_run_one)(net, shock, job, measure) for job in jobs[1:])
    found = Parallel(n_jobs=n_jobs, return_as="generator")(work)
    try:
        for measured in found:  # noqa: UP028 - "yield from" would close it early
            yield measured
    finally:
        for _ in found:  # joblib warns of runs that nobody takes
            pass


def _run_one(net: ExposureNetwork, shock: Shock, options: dict[str, Any], measure: Measure) -> Any:
    """Measure one cascade; None where it should have settled and did not."""
    run = cascade(net, shock, **(options | {"strict": False}))
    if options.get("strict", True) and not run.status.settled:
        return None
    return measure(run)


def _raise_unsettled(net: ExposureNetwork, shock: Shock, options: dict[str, Any]) -> None:
    """Run once more what did not settle, so that the error carries its result from whichever process."""
    try:
        cascade(net, shock, **options)
    except NotSettledError as error:
        changed = {name: options[name] for name in ("channels", "priority", "seed") if name in options}
        error.add_note(f"in the run with {changed}")
        raise


# tables -----------------------------------------------------------------------------------------------------------


def _filled(rows: NDArray[np.float64], acting: list[str], channels: list[str]) -> NDArray[np.float64]:
    """Rows of all channels, 0 for those that cannot act."""
    found = np.zeros((len(channels), rows.shape[1]))
    found[[channels.index(name) for name in acting]] = rows
    return found


def _table(values: NDArray[np.float64], rows: list[str], bearers: pd.Index) -> pd.DataFrame:
    import pandas as pd

    index = pd.Index(rows, dtype=object, name="channel")
    return pd.DataFrame(values, index=index, columns=bearers.rename("bearer"))
