"""What a network says about itself: summary, assumptions, text and HTML."""

from __future__ import annotations

import html as markup
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.network._labels import OTHERS

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from netcontagion.network._network import ExposureNetwork

__all__ = ["assumptions", "describe", "html", "money", "summary", "text"]


def money(amount: float) -> str:
    """Write an amount with three digits and k, m, bn."""
    size = abs(amount)
    for unit, name in ((1e12, "tn"), (1e9, "bn"), (1e6, "m"), (1e3, "k")):
        if size >= 0.9995 * unit:
            scaled = amount / unit
            return f"{scaled:.3g}{name}" if abs(scaled) < 999.5 else f"{scaled:.0f}{name}"
    return f"{amount:.3g}"


def summary(net: ExposureNetwork) -> pd.Series:
    """Return counts and totals as a Series."""
    import pandas as pd

    book = net.book
    others = _others_supply(net)
    deposited = float((book.deposited * book.balance_mark).sum())
    supplied = sum(others.values())
    facts: dict[str, Any] = {
        "traders": len(net.labels("traders")) - net.derived("traders"),
        "exchanges": len(net.labels("exchanges")),
        "assets": len(net.labels("assets")),
        "accounts": len(net.labels("accounts")) - net.derived("accounts"),
        "balances": len(book.deposited),
        f"deposited [{net.numeraire}]": deposited - supplied,
        f"borrowed [{net.numeraire}]": float((book.borrowed * book.balance_mark).sum()),
        f"liabilities [{net.numeraire}]": float(net.columns("liabilities")["amount"].sum()),
        "accounts below health 1": int(net.under_water.sum()),
    }
    if len(book.quantity):
        bought = book.quantity > 0
        facts["positions"] = len(book.quantity)
        facts[f"open interest [{net.numeraire}]"] = float(book.notional()[bought].sum())
    facts |= {f"{label} supplies [{net.numeraire}]": value for label, value in others.items()}
    facts |= {f"{label} holds contracts [{net.numeraire}]": value for label, value in _others_contracts(net).items()}
    return pd.Series(facts, dtype=object, name="network")


def _others_supply(net: ExposureNetwork) -> dict[str, float]:
    count = net.derived("accounts")
    first, book = len(net.labels("accounts")) - count, net.book
    rows = book.balance_account >= first
    value = np.bincount(book.balance_account[rows] - first, (book.deposited * book.balance_mark)[rows], count)
    return _above_zero(net, value)


def _others_contracts(net: ExposureNetwork) -> dict[str, float]:
    """Notional of the contract sides that ``others@`` holds, at marks."""
    count, book = net.derived("accounts"), net.book
    first = len(net.labels("accounts")) - count
    rows = book.position_account >= first
    return _above_zero(net, np.bincount(book.position_account[rows] - first, book.notional()[rows], count))


def _above_zero(net: ExposureNetwork, value: NDArray[Any]) -> dict[str, float]:
    labels = net.labels("accounts")[len(net.labels("accounts")) - len(value) :]
    return {label: amount for label, amount in zip(labels, value.tolist(), strict=True) if amount > 0}


def _completed(net: ExposureNetwork) -> list[str]:
    supplied = [f"{label} supplies {money(v)} {net.numeraire}" for label, v in _others_supply(net).items()]
    held = [f"{label} holds contracts of {money(v)} {net.numeraire}" for label, v in _others_contracts(net).items()]
    return supplied + held


def describe(net: ExposureNetwork) -> str:
    """One line: size, completed supply, accounts under water."""
    facts = summary(net)
    parts = [
        f"{facts[kind]:,} {kind}" for kind in ("balances", "accounts", "traders", "exchanges", "assets") if facts[kind]
    ]
    if "positions" in facts:
        interest = money(facts[f"open interest [{net.numeraire}]"])
        parts.append(f"{facts['positions']:,} positions with open interest of {interest} {net.numeraire}")
    owed = len(net.columns("liabilities")["amount"])
    parts += [f"{owed:,} liabilities"] if owed else []
    line = ", ".join(parts)
    line = "; ".join([line, *_completed(net)])
    below = facts["accounts below health 1"]
    return line + (f"; {below:,} accounts already under water (health below 1)" if below else "")


def assumptions(net: ExposureNetwork) -> tuple[str, ...]:
    """List what is assumed for what the tables leave open."""
    found: list[str] = []
    book = net.book
    if len(book.deposited):
        thin = np.isinf(book.book_depth[book.market_book])
        names = sorted({str(net.labels("assets")[code]) for code in book.market_asset[thin].tolist()})
        if names:
            found.append(f"no depth given for {_list(names)}: no impact")
        if not len(net.columns("wallets")["units"]):
            found.append("no wallets: no top-up from outside the exchanges")
        if not net.columns("exchanges")["insurance_fund"].any():
            found.append("no insurance fund")
        plain = net.columns("exchanges")["rulebook"] == "lending"
        if plain.any():
            found.append(f"rulebook of {_list(net.labels('exchanges')[plain])}: plain lending")
        found += _full_collateral(net)
    found += _completed(net)
    if _others_contracts(net):
        found.append(f"entry prices of {OTHERS}<exchange>: chosen so that nobody's profit is missing")
    below = int(net.under_water.sum())
    if below:
        found.append(f"{below:,} accounts below health 1 before the shock")
    return tuple(found)


def _full_collateral(net: ExposureNetwork) -> list[str]:
    """Say which deposits of margin accounts count in full for want of a haircut."""
    book = net.book
    own = book.balance_account < len(net.labels("accounts")) - net.derived("accounts")
    held = own & book.margined[book.balance_account] & (book.deposited > 0)
    given = net.columns("markets")["liquidation_threshold"][book.balance_market]
    codes = np.unique(book.market_asset[book.balance_market[held & np.isnan(given)]])
    names = sorted(str(net.labels("assets")[code]) for code in codes.tolist())
    return [f"no haircut given for {_list(names)}: deposits of margin accounts count in full"] if names else []


def _list(names: Any, most: int = 6) -> str:
    shown = [str(name) for name in names]
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")


def text(net: ExposureNetwork) -> str:
    """Several lines for the console."""
    lines = [f"ExposureNetwork  {describe(net)} | {net.numeraire}"]
    if assumptions(net):
        lines.append("  assumed    " + "; ".join(assumptions(net)))
    return "\n".join(lines)


def html(net: ExposureNetwork) -> str:
    """Return a small table for notebooks."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{markup.escape(str(name))}</th><td>{_cell(value)}</td></tr>"
        for name, value in summary(net).items()
    )
    assumed = "".join(f"<li>{markup.escape(line)}</li>" for line in assumptions(net))
    notes = f"<p>assumed</p><ul>{assumed}</ul>" if assumed else ""
    return f"<div><p><b>ExposureNetwork</b></p><table>{rows}</table>{notes}</div>"


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else money(float(value))
