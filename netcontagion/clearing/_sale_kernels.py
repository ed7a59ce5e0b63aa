"""The compiled round of a fire sale: passes over claims and holdings that are stored in the order in which they go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from netcontagion._compile import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from netcontagion.clearing._system import Floats

    Csr: TypeAlias = tuple[NDArray[np.integer], NDArray[np.integer], Floats]

__all__ = ["fill_shelves", "fill_strips", "pay_in_turn", "receive", "sum_units", "value_shelves"]


@kernel
def fill_strips(owed: Csr, bits: int, free: Any, creditors: Any, debtors: Any, claims: Floats) -> None:
    """Put every claim at the next free place of the strip of its creditor: 2 ** bits creditors, by debtor."""
    starts, columns, amounts = owed
    within = (1 << bits) - 1
    for debtor in range(len(starts) - 1):
        for at in range(starts[debtor], starts[debtor + 1]):
            place = free[columns[at] >> bits]
            free[columns[at] >> bits] = place + 1
            creditors[place], debtors[place], claims[place] = columns[at] & within, debtor, amounts[at]


@kernel
def receive(strips: Any, strip: int, shares: Floats, received: Floats) -> None:
    """Add up what the creditors of a strip receive when these shares are paid."""
    begins, creditors, debtors, claims = strips
    received[:] = 0.0
    for at in range(np.uintp(begins[strip]), np.uintp(begins[strip + 1])):
        received[np.uintp(creditors[at])] += claims[at] * shares[np.uintp(debtors[at])]


@kernel
def pay_in_turn(strips: Any, bits: int, books: Any, up: float, rising: bool, shares: Floats, cash: Floats) -> None:
    """Let strip after strip pay what it has, seeing what those before it just paid; shares move in one direction.

    ``books``: what a node has beside ``cash``, its dues (not 0), and the cash from which it pays in full
    whatever else it has. ``up`` is the factor of rounding.
    """
    own, dues, enough = books
    for strip in range(len(strips[0]) - 1):
        first, last = strip << bits, min(len(shares), (strip + 1) << bits)
        receive(strips, strip, shares, cash[first:last])
        for node in range(first, last):
            got = cash[node] * up
            new = min(max(got + own[node], 0.0) * up / dues[node], 1.0)
            new = 1.0 if got >= enough[node] else new
            shares[node] = max(new, shares[node]) if rising else min(new, shares[node])


@kernel
def fill_shelves(
    held: Csr, size: int, assets: int, begins: Any, holders: Any, units: Floats, first: int, last: int
) -> None:  # fmt: skip
    """Sort the holdings of each block of ``size`` nodes by asset, then by node; of the blocks first to last."""
    starts, columns, amounts = held
    nodes = len(starts) - 1
    free = np.empty(assets, np.int64)
    for block in range(first, last):
        low, high = block * size, min(nodes, (block + 1) * size)
        free[:] = 0
        for at in range(starts[low], starts[high]):
            free[columns[at]] += 1
        place = np.int64(starts[low])
        for asset in range(assets):
            count = free[asset]
            begins[block * assets + asset] = free[asset] = place
            place += count
        for node in range(low, high):
            for at in range(starts[node], starts[node + 1]):
                place = free[columns[at]]
                free[columns[at]] = place + 1
                holders[place], units[place] = node - low, amounts[at]


@kernel
def value_shelves(shelves: Any, size: int, prices: Floats, worth: Floats, first: int, last: int) -> None:
    """Value what each node of the blocks first to last holds."""
    begins, holders, units = shelves
    assets = len(prices)
    for block in range(first, last):
        here = worth[block * size : (block + 1) * size]
        here[:] = 0.0
        for asset in range(assets):
            price, shelf = prices[asset], block * assets + asset
            for at in range(np.uintp(begins[shelf]), np.uintp(begins[shelf + 1])):
                here[np.uintp(holders[at])] += units[at] * price


@kernel
def sum_units(shelves: Any, size: int, parts: Floats, sums: Floats, first: int, last: int) -> None:
    """Sum by block and asset the units sold, when each node sells this part of what it holds: four sums in turn."""
    begins, holders, units = shelves
    assets = sums.shape[1]
    for block in range(first, last):
        here = parts[block * size : (block + 1) * size]
        for asset in range(assets):
            shelf = block * assets + asset
            start, end = np.uintp(begins[shelf]), np.uintp(begins[shelf + 1])
            one = two = three = four = 0.0
            whole = start + ((end - start) & ~np.uintp(3))
            for at in range(start, whole, np.uintp(4)):
                one += units[at] * here[np.uintp(holders[at])]
                two += units[at + np.uintp(1)] * here[np.uintp(holders[at + np.uintp(1)])]
                three += units[at + np.uintp(2)] * here[np.uintp(holders[at + np.uintp(2)])]
                four += units[at + np.uintp(3)] * here[np.uintp(holders[at + np.uintp(3)])]
            for at in range(whole, end):
                one += units[at] * here[np.uintp(holders[at])]
            sums[block, asset] = (one + two) + (three + four)
