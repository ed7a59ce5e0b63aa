"""Adding up: millions of accounts become a few boxes and ribbons; nothing here loops over accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from netcontagion.figures._flows import Layer, Links

if TYPE_CHECKING:
    from netcontagion.figures._flows import Bools, Codes, Floats

__all__ = ["Fold", "fold", "folded_layer", "folded_links", "largest", "names_of", "sums", "thin"]

SMALLEST_LINK = 1e-3  # share of the total below which a ribbon is left out


class Fold(NamedTuple):
    """Which box each code goes to (-1: none), and the names of the boxes."""

    box: Codes
    names: tuple[str, ...]
    pinned: Codes


def largest(score: Floats, count: int) -> Codes:
    """Positions of the largest positive scores, largest first."""
    count = min(count, int(np.count_nonzero(score > 0)))
    if count <= 0:
        return np.empty(0, dtype=np.intp)
    best = np.argpartition(score, len(score) - count)[len(score) - count :]
    return np.asarray(best[np.argsort(-score[best], kind="stable")], dtype=np.intp)


def sums(codes: Any, weights: Floats, count: int = 0) -> Floats:
    """Add weights up by code."""
    return np.asarray(np.bincount(codes, weights, count), dtype=float)


def fold(labels: Any, amount: Floats, hit: Floats, room: int) -> Fold:
    """Give the boxes that matter (by size or by distress) a place of their own and put the rest into one."""
    used = np.flatnonzero(amount > 0)
    weight = amount / amount.sum() + hit / (hit.sum() or 1.0)
    box = np.full(len(amount), -1, dtype=np.intp)
    if len(used) > room:
        keep = largest(np.where(amount > 0, weight, 0.0), room - 1)
        box[used] = room - 1
    else:
        keep = used
    keep = keep[np.argsort(-amount[keep], kind="stable")]
    box[keep] = np.arange(len(keep))
    names, pinned = names_of(labels, keep), np.zeros(len(keep), dtype=np.intp)
    if len(used) > len(keep):
        names, pinned = (*names, f"Other ({len(used) - len(keep):,})"), np.append(pinned, 1)
    return Fold(box, names, pinned)


def names_of(labels: Any, codes: Codes) -> tuple[str, ...]:
    return tuple(" ".join(str(label).split()) for label in labels[codes])


def folded_layer(
    title: str, fold: Fold, amount: Floats, hit: Floats, *, marked: Bools | None = None, details: tuple[str, ...] = ()
) -> Layer:
    """Add a column up into its boxes; a box is hatched when all that it holds is marked."""
    count, inside = len(fold.names), fold.box >= 0
    box = fold.box[inside]
    total, part = sums(box, amount[inside], count), sums(box, hit[inside], count)
    members = np.bincount(box, minlength=count)
    flag = (
        np.zeros(count, dtype=bool) if marked is None else np.bincount(box[marked[inside]], minlength=count) == members
    )
    part = np.minimum(part, total)
    return Layer(title, fold.names, details or ("",) * count, total, part, flag, fold.pinned)


def folded_links(source: Codes, target: Codes, amount: Floats, hit: Floats, targets: int) -> Links:
    """Add up what goes from each box to each box."""
    pair = source * targets + target
    if (source < 0).any() or (target < 0).any():
        inside = (source >= 0) & (target >= 0)
        pair, amount, hit = pair[inside], amount[inside], hit[inside]
    flow, part = sums(pair, amount), sums(pair, hit)
    used = np.flatnonzero(flow > 0)
    return Links(used // targets, used % targets, flow[used], np.minimum(part[used], flow[used]))


def thin(all_links: tuple[Links, ...], total: float, most: int) -> tuple[tuple[Links, ...], float]:
    """Leave out ribbons below a thousandth, and the smallest above ``most``; say what share is kept."""
    amount = np.concatenate([links.amount for links in all_links])
    floor = SMALLEST_LINK * total
    if np.count_nonzero(amount >= floor) > most:
        floor = max(floor, float(np.sort(amount)[-most]))
    kept, budget = [], most
    for links in all_links:
        chosen = np.flatnonzero((links.amount >= floor) | _only_link(links, floor))
        chosen = np.sort(chosen[np.argsort(-links.amount[chosen], kind="stable")][:budget])
        budget -= len(chosen)
        kept.append(Links(links.source[chosen], links.target[chosen], links.amount[chosen], links.hit[chosen]))
    drawn = sum(float(links.amount.sum()) for links in kept)
    return tuple(kept), drawn / float(amount.sum())


def _only_link(links: Links, floor: float) -> Bools:
    """Keep the largest ribbon of a box of which every ribbon would be left out."""
    alone = np.zeros(len(links.amount), dtype=bool)
    for end in (links.source, links.target):
        order = np.lexsort((-links.amount, end))
        first = order[np.unique(end[order], return_index=True)[1]]
        alone[first[links.amount[first] < floor]] = True
    return alone
