"""What is said about a map: its title and the parts of its footer."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.figures._labels import money, percent

if TYPE_CHECKING:
    from netcontagion.figures._flows import Bools, Floats

__all__ = [
    "RESIDUAL",
    "assumption_note",
    "empty_note",
    "floor_percent",
    "liability_note",
    "run_notes",
    "supply_note",
    "title",
]

RESIDUAL = "others@"
LONGEST_NOTE = 160  # letters of an assumption; a longer one ends after a whole word


def title(result: Any, share: float, what: str) -> str:
    if result is None:
        return f"{percent(share)} of {what} in accounts below health 1.1"
    shock = _provenance(result).get("shock")
    head = f"{shock}: " if shock else ""
    return f"{head}{percent(share)} of {what} in liquidated accounts"


def _provenance(result: Any) -> dict[str, Any]:
    """Return what was run; ``facts`` spare the hash of the data that ``provenance`` holds."""
    return dict(getattr(result, "facts", None) or getattr(result, "provenance", None) or {})


def run_notes(result: Any) -> tuple[str, ...]:
    """Shock, rounds, ending and seed, as far as they are known."""
    if result is None:
        return ("before any shock",)
    known = _provenance(result)
    notes = [str(known["shock"])] if known.get("shock") else []
    status = getattr(result, "status", None)
    ending = str(getattr(status, "name", status)).lower().replace("_", " ") if status is not None else ""
    rounds = known.get("rounds", len(result.rounds) if hasattr(result, "rounds") else None)
    turns = "" if rounds is None else f"{rounds} round{'' if rounds == 1 else 's'}"
    notes += [part for part in (", ".join(filter(None, (turns, ending))),) if part]
    if known.get("seed") is not None:
        notes.append(f"seed {known['seed']}")
    return tuple(notes)


def empty_note(exchanges: Any, amount: Floats) -> tuple[str, ...]:
    empty = np.flatnonzero(~(amount > 0))
    if not len(empty):
        return ()
    what = str(exchanges[empty[0]]) if len(empty) == 1 else f"{len(empty):,} exchanges"
    return (f"{what} without exposure not drawn",)


def supply_note(labels: Any, residual: Bools, supply: float, unit: str) -> tuple[str, ...]:
    if not supply > 0:
        return ()
    which = np.flatnonzero(residual)
    name = str(labels[which[0]]) if len(which) == 1 else f"{RESIDUAL}… ({len(which)} exchanges)"
    return (f"supply of {name}, {money(supply, unit)}, not drawn",)


def liability_note(network: Any) -> tuple[str, ...]:
    owed = float(np.sum(np.asarray(network.columns("liabilities")["amount"], dtype=float)))
    return (f"liabilities of {money(owed, network.numeraire)} not drawn",) if owed > 0 else ()


def assumption_note(result: Any) -> tuple[str, ...]:
    given = [text for text in getattr(result, "assumptions", ()) or () if not str(text).startswith(RESIDUAL)]
    if not given:
        return ()
    shown = [textwrap.shorten(str(text), LONGEST_NOTE, placeholder=" …") for text in given[:3]]
    more = f"; and {len(given) - 3} more" if len(given) > 3 else ""
    return (f"assumed: {'; '.join(shown)}{more}",)


def floor_percent(share: float) -> str:
    """Percentage to one decimal, never rounded up to more than is drawn."""
    tenths = int(share * 1000 + 1e-6)
    return "100 %" if tenths >= 1000 else f"{tenths / 10:.1f} %"
