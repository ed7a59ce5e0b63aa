"""Final clearing: what exchanges owe their accounts, traders their exchanges, and everybody each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._arrays import group_sum
from netcontagion.margining._valuation import gains
from netcontagion.margining._wealth import wealth

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.clearing import ClearingResult
    from netcontagion.margining._state import Whole

__all__ = ["clear_up", "coverage", "is_due"]

ROUNDING = 1e-12  # of what an exchange keeps: lacking less than this share of it is no default
_CUT = ("default", "withdrawal_haircut")  # layers that leave it to clearing what an exchange pays


def is_due(state: Whole) -> bool:
    """Whether anything has to be cleared."""
    net = state.net
    owed = len(net.columns("liabilities")["amount"]) or net.columns("traders")["external_liabilities"].any()
    marks, book = state.marks(), net.book
    short = group_sum(state.markets.exchange, state.ledger.short * marks, state.n_exchanges)
    held = state.entries.deposited * marks[state.entries.market]
    custody = group_sum(book.market_exchange[state.entries.market], held, state.n_exchanges)
    lacking = np.flatnonzero(short > ROUNDING * (short + custody))
    failing = any(state.layers_of(exchange)[-1] in _CUT for exchange in lacking.tolist())
    return bool(owed or failing or state.reserves.claims.any())


def coverage(state: Whole, shared: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide what each exchange has by what it owes its accounts and the losses they shared [num], at marks.

    What accounts owe beyond their deposits counts as lost; +inf where nothing is owed.
    """
    venue, size = state.accounts.exchange, state.n_exchanges
    equity, fund = state.account_equity(state.marks()), state.reserves.default_fund
    own = wealth(state, state.marks(), state.asset_prices())[state.n_traders :][:size] + state.ledger.minted
    has = own + group_sum(venue, equity + fund - state.reserves.claims, size)
    owed = group_sum(venue, np.maximum(equity, 0.0) + fund, size) + shared
    return np.asarray(np.divide(has, owed, out=np.full(size, np.inf), where=owed > 0.0))


def clear_up(state: Whole, which: str = "greatest") -> ClearingResult:
    """Clear liabilities, external debt, accounts and claims by the greatest payments or the least.

    Accounts that are still open keep their debt at face, where the exchange has no recourse.
    """
    from netcontagion.clearing import settle

    net, marks = state.net, state.marks()
    account, banks = state.accounts, state.n_traders + state.accounts.exchange.astype(np.int64)
    equity, size = state.account_equity(marks), len(net.nodes)
    recourse = np.array([state.has_recourse(exchange) for exchange in range(state.n_exchanges)], dtype=bool)
    open_hole = np.where(recourse[account.exchange], np.maximum(-equity, 0.0), 0.0)
    deposits = np.maximum(equity, 0.0) + state.reserves.default_fund
    claims = state.reserves.claims
    held = wealth(state, marks, state.asset_prices())[:size].copy()
    held -= group_sum(account.trader, equity + state.reserves.default_fund - claims, size)
    held += group_sum(banks, deposits - open_hole - claims, size)
    held[state.n_traders :] += state.ledger.minted  # shares are no debt
    by_traders = _matrix(account.trader, banks, open_hole + claims, size)
    parts, rules = _classes(state, deposits, marks)
    owed = [_matrix(banks, account.trader, part, size) for part in parts]
    base = len(parts) - 1 - ("gains" in rules)
    owed[base] = owed[base] + by_traders
    return settle(net, np.maximum(held, 0.0), owed, base=base, which=which, **_terms(state, rules))


def _matrix(debtor: Any, creditor: Any, amount: NDArray[np.float64], size: int) -> Any:
    from scipy.sparse import coo_array

    rows = np.flatnonzero(amount > 0.0)
    pairs = (np.asarray(debtor)[rows], np.asarray(creditor)[rows])
    return coo_array((amount[rows], pairs), shape=(size, size)).tocsr()


def _classes(
    state: Whole, deposits: NDArray[np.float64], marks: NDArray[np.float64]
) -> tuple[list[NDArray[np.float64]], list[str]]:
    """Split what accounts are owed into classes, the most senior first, and name the rule of each.

    Users without contracts come first where the rulebook protects them, gains last where it promises that; deposits are
    divided in between by the rule of their exchange.
    """
    venue, left = state.accounts.exchange, deposits.copy()
    bare = np.ones(len(venue), dtype=bool)
    bare[state.net.book.position_account] = False
    gained = group_sum(state.positions.account, gains(state.markets, state.positions, marks), len(venue))
    kinds = {
        "flat": np.array([deficit.protect_flat for deficit in state.deficits], dtype=bool)[venue] & bare,
        "queue": np.array([deficit.division == "queue" for deficit in state.deficits], dtype=bool)[venue],
        "equal_loss": np.array([deficit.division == "equal_loss" for deficit in state.deficits], dtype=bool)[venue],
    }
    promised = np.array([deficit.promised for deficit in state.deficits], dtype=bool)[venue]
    junior = np.where(promised, np.minimum(np.maximum(gained, 0.0), deposits), 0.0)
    left -= junior
    parts, rules = [], []
    for kind, chosen in kinds.items():
        part = np.where(chosen, left, 0.0)
        left = left - part
        if part.any():
            parts.append(part)
            rules.append(kind)
    parts, rules = [*parts, left], [*rules, "pro_rata"]
    return ([*parts, junior], [*rules, "gains"]) if junior.any() else (parts, rules)


def _terms(state: Whole, rules: list[str]) -> dict[str, Any]:
    """Options of the clearing: nothing where it is plain."""
    size = len(state.net.nodes)
    costs = {name: np.ones(size) for name in ("alpha", "beta")}
    for exchange, deficit in enumerate(state.deficits):
        for name, share in costs.items():
            share[state.n_traders + exchange] = getattr(deficit, name)
    if rules == ["pro_rata"] and all((share == 1.0).all() for share in costs.values()):
        return {}
    return {**costs, "division": [rule if rule in ("queue", "equal_loss") else "pro_rata" for rule in rules]}
