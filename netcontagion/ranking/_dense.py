"""How many nodes a dense matrix may have."""

from __future__ import annotations

__all__ = ["MOST_NODES", "check_dense"]

MOST_NODES = 10_000  # 800 MB a matrix


def check_dense(what: str, nodes: int, error: type[Exception] = ValueError) -> None:
    """Refuse more nodes than a dense matrix may have."""
    if nodes > MOST_NODES:
        cure = "take the part of the network that matters, such as the largest debtors and creditors"
        raise error(f"{what} of {nodes:,} nodes takes a dense matrix; allowed: {MOST_NODES:,} nodes; {cure}")
