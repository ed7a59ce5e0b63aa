"""The index of a network: indebted accounts in the order of their risk, made once and shared by runs and threads.

Those tested by debt are in it (``_margin_scan`` has the others). They lie exchange by exchange, the riskiest first, in
blocks of 128. An account is safe as long as its debt over its weighted collateral, times the most that this ratio can
have grown on its exchange, stays below 1; so is a block whose worst account is. Whatever an index says is a bound,
rounded to the unsafe side: who is called is decided elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import freeze, group_sum
from netcontagion.margining._kept import kept
from netcontagion.margining._policies import by_policy
from netcontagion.margining._posting import spans
from netcontagion.network import rulebook

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.network import ExposureNetwork

__all__ = ["BLOCK", "Index", "index_of"]

BLOCK = 128
NOBODY, WALLET, ANYBODY = range(3)  # who may help an account: nobody, its owner's wallet, other accounts too
_FEW_SLOTS = 2**16


@dataclass(frozen=True, eq=False)
class Index:
    """Indebted accounts by place, and what opening any account takes; all arrays are read-only.

    ``order`` is the account at each place; its amounts are ``first[i]:first[i + 1]`` of ``amount`` [units] and
    ``slot``, one for each side of a balance that is collateral or debt. A slot is a market, a side and a weight;
    ``as_debt`` and ``as_collateral`` tell which markets are, or may come, in use on which side. Block b holds places
    ``block_first[b]:block_first[b + 1]``, all of segment ``block_segment[b]`` (an exchange with markets);
    ``block_worst`` bounds debt over weighted collateral at the marks before any shock. ``answer`` tells who may help
    the account at each place (NOBODY, WALLET, ANYBODY). ``start`` gives the balances of every account. ``shared`` are
    the traders with several accounts: ``peer_account`` and ``peer_place`` (-1: not indebted) at ``peer_start``.
    ``supply`` and ``suppliers`` count deposits by market; ``credits`` are the markets in which an account that owes may
    come to hold a deposit, where its exchange takes it over and credits too much.
    """

    order: NDArray[np.int32]
    first: NDArray[Any]
    amount: NDArray[np.float64]
    slot: NDArray[Any]
    slot_market: NDArray[np.int32]
    slot_weight: NDArray[np.float64]
    slot_is_debt: NDArray[np.bool_]
    as_debt: NDArray[np.bool_]
    as_collateral: NDArray[np.bool_]
    block_first: NDArray[np.int64]
    block_segment: NDArray[np.int32]
    block_worst: NDArray[np.float64]
    answer: NDArray[np.uint8]
    segment_first: NDArray[np.int64]
    segment_of: NDArray[np.int32]
    start: NDArray[Any]
    shared: NDArray[np.int64]
    peer_start: NDArray[np.int64]
    peer_account: NDArray[np.int64]
    peer_place: NDArray[np.int64]
    supply: NDArray[np.float64]
    suppliers: NDArray[np.int64]
    credits: NDArray[np.bool_]

    def __setstate__(self, state: dict[str, NDArray[Any]]) -> None:
        self.__dict__.update({name: freeze(values) for name, values in state.items()})

    @property
    def nbytes(self) -> int:
        """Memory of all arrays."""
        return sum(values.nbytes for values in vars(self).values())

    def places_of(self, accounts: NDArray[np.int64]) -> NDArray[np.intp]:
        """Places of those of these accounts that owe something."""
        return np.flatnonzero(np.isin(self.order, accounts)) if len(accounts) else np.zeros(0, dtype=np.intp)


def index_of(net: ExposureNetwork) -> Index:
    """Index of a network, made on first use."""
    return kept(net, "_cascade_index", _build)


def _build(net: ExposureNetwork) -> Index:
    book, account = net.book, net.columns("accounts")
    n_markets = len(book.market_mark)
    segments, segment_first = np.unique(book.market_exchange, return_index=True)
    segment_of = np.zeros(len(net.labels("exchanges")), dtype=np.int32)
    segment_of[segments] = np.arange(len(segments))
    start = np.concatenate([[0], np.cumsum(np.bincount(book.balance_account, minlength=book.n_accounts))])
    start = start.astype(_narrow(len(book.deposited)))
    order, ratio = _ranked(net)
    block_first, block_segment = _blocks(segment_of[account["exchange"][order]])
    arrays: dict[str, Any] = {
        "order": order,
        "block_first": block_first,
        "block_segment": block_segment,
        "block_worst": ratio[block_first[:-1]] * (1 + 1e-9),
        "answer": _answers(net)[order],
        "segment_first": segment_first,
        "segment_of": segment_of,
        "start": start,
        "supply": group_sum(book.balance_market, book.deposited, n_markets),
        "suppliers": np.bincount(book.balance_market[book.deposited > 0], minlength=n_markets),
        "credits": _credits(net),
    }
    arrays |= _amounts(net, order, start) | _peers(net, order)
    return Index(**{name: freeze(values) for name, values in arrays.items()})


def _narrow(largest: int) -> Any:
    return np.int32 if largest < 2**31 else np.int64


def _ranked(net: ExposureNetwork) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Indebted accounts by exchange, then by debt over weighted collateral at the marks, falling, and that ratio."""
    book, size = net.book, net.book.n_accounts
    mark = book.market_mark[book.balance_market]
    owes = np.bincount(book.balance_account[book.borrowed > 0], minlength=size) > 0
    which = np.flatnonzero(owes & ~book.margined)
    backing = group_sum(book.balance_account, book.deposited * mark * book.threshold, size)[which]
    debt = group_sum(book.balance_account, book.borrowed * mark, size)[which]
    with np.errstate(over="ignore"):
        ratio = np.divide(debt, backing, out=np.where(debt > 0, np.inf, 0.0), where=backing > 0)
    rank = np.lexsort((-ratio, net.columns("accounts")["exchange"][which]))
    return which[rank].astype(np.int32), ratio[rank]


def _answers(net: ExposureNetwork) -> NDArray[np.uint8]:
    """Who may help each account; what stands for many traders at once (``others@``) is left to the seats."""
    wallets, owner = net.columns("wallets"), net.columns("accounts")["trader"]
    found = np.full(len(net.labels("traders")), NOBODY, dtype=np.uint8)
    found[wallets["trader"][wallets["units"] > 0]] = WALLET
    found[~by_policy(net, np.arange(len(found)), "answers")[0]] = NOBODY
    found[np.bincount(owner, minlength=len(found)) > 1] = ANYBODY
    answer: NDArray[np.uint8] = found[owner]
    answer[len(answer) - net.derived("accounts") :] = ANYBODY
    return answer


def _blocks(segment: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """First place of every block and one past the last place, and the segment of every block; none crosses two."""
    edges = np.concatenate([[0], np.flatnonzero(np.diff(segment)) + 1, [len(segment)]])
    firsts = [np.arange(low, high, BLOCK) for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)]
    first = np.concatenate(firsts).astype(np.int64)
    return np.append(first, len(segment)), segment[first]


def _amounts(net: ExposureNetwork, order: NDArray[np.int32], start: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Collateral and debts of the accounts, in the order of their places, and the slots these are in."""
    book, n_markets = net.book, len(net.book.market_mark)
    rows, place = spans(start[order].astype(np.int64), start[order + 1].astype(np.int64))
    backs, owes = (book.deposited[rows] > 0) & (book.threshold[rows] > 0), book.borrowed[rows] > 0
    number = backs.astype(np.int64) + owes
    first = np.concatenate([[0], np.cumsum(np.bincount(place, number, len(order)))])
    own, level = _own_thresholds(net)
    possible = (len(own) + 2) * n_markets
    few = possible <= _FEW_SLOTS
    amount, slot = np.empty(int(first[-1])), np.empty(int(first[-1]), dtype=np.uint16 if few else np.int64)
    target = np.cumsum(number) - number
    with_collateral, with_debt = rows[backs], rows[owes]
    amount[target[backs]] = book.deposited[with_collateral]
    slot[target[backs]] = (
        level[book.balance_account[with_collateral]] * n_markets + book.balance_market[with_collateral]
    )
    target += backs
    amount[target[owes]] = book.borrowed[with_debt]
    slot[target[owes]] = book.balance_market[with_debt]
    if few:
        ids = np.arange(possible)
    else:
        ids, slot = np.unique(slot, return_inverse=True)
        slot = slot.astype(np.uint16 if len(ids) <= _FEW_SLOTS else np.uint32)
    used = ids[np.bincount(slot, minlength=len(ids)) > 0]
    as_debt, as_collateral = np.zeros((2, n_markets), dtype=bool)
    as_debt[used[used < n_markets]] = True
    as_collateral[used[used >= n_markets] % max(n_markets, 1)] = True
    as_collateral |= _may_back(net, rows)
    return {
        "first": first.astype(_narrow(len(amount))),
        "amount": amount,
        "slot": slot,
        "slot_market": (ids % max(n_markets, 1)).astype(np.int32),
        "slot_weight": _weights(net, own, ids),
        "slot_is_debt": ids < n_markets,
        "as_debt": as_debt,
        "as_collateral": as_collateral,
    }


def _credits(net: ExposureNetwork) -> NDArray[np.bool_]:
    takes_over = [rulebook(name).inventory == "protocol" for name in net.columns("exchanges")["rulebook"]]
    return np.array(takes_over, dtype=bool)[net.book.market_exchange]


def _may_back(net: ExposureNetwork, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark markets where a top-up can become collateral of somebody indebted, whose balances are ``rows``."""
    book, markets, wallets = net.book, net.columns("markets"), net.columns("wallets")
    within_reach = np.zeros(len(net.labels("assets")), dtype=bool)
    within_reach[wallets["asset"][wallets["units"] > 0]] = True
    owner = net.columns("accounts")["trader"]
    several = np.bincount(owner, minlength=len(net.labels("traders"))) > 1
    elsewhere = several[owner[book.balance_account]] & (
        (book.deposited > 0) | ((book.borrowed > 0) & _credits(net)[book.balance_market])
    )
    within_reach[book.market_asset[book.balance_market[elsewhere]]] = True
    possible: NDArray[np.bool_] = within_reach[book.market_asset] & (markets["liquidation_threshold"] > 0)
    possible[book.balance_market[rows[book.threshold[rows] > 0]]] = True
    return possible


def _own_thresholds(net: ExposureNetwork) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Thresholds that replace the listed ones, and the level of each account's collateral: 1 as listed, 2.. its own."""
    own = net.columns("accounts")["liquidation_threshold"]
    level = np.ones(len(own), dtype=np.int64)
    given = ~np.isnan(own)
    values, place = np.unique(own[given], return_inverse=True)
    level[given] = place + 2
    return values, level


def _weights(net: ExposureNetwork, own: NDArray[np.float64], slots: NDArray[Any]) -> NDArray[np.float64]:
    """Weight of slots, numbered level x market: 1 for debt (level 0), the listed threshold, or an account's own."""
    listed = np.nan_to_num(net.columns("markets")["liquidation_threshold"], nan=0.0)
    level, market = np.divmod(slots, max(len(listed), 1))
    weight = np.ones(len(slots))
    weight[level == 1] = listed[market[level == 1]]
    weight[level > 1] = own[level[level > 1] - 2]
    return weight


def _peers(net: ExposureNetwork, order: NDArray[np.int32]) -> dict[str, NDArray[np.int64]]:
    """Traders with several accounts, and these accounts in the order of their codes."""
    owner = net.columns("accounts")["trader"]
    number = np.bincount(owner, minlength=len(net.labels("traders")))
    shared = np.flatnonzero(number > 1)
    account = np.flatnonzero(number[owner] > 1) if len(shared) else np.zeros(0, dtype=np.int64)
    account = account[np.argsort(owner[account], kind="stable")]
    place = np.zeros(0, dtype=np.int64)
    if len(shared):
        places = np.full(len(owner), -1, dtype=np.int64)
        places[order] = np.arange(len(order))
        place = places[account]
    start = np.concatenate([[0], np.cumsum(number[shared])])
    return {"shared": shared, "peer_start": start, "peer_account": account, "peer_place": place}
