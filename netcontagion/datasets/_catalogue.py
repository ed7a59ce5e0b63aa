"""The list of data sets, and the loader that turns each into a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from netcontagion.datasets._aave import read_snapshot, snapshot_tables
from netcontagion.datasets._files import bundled, bundled_names, fetch, licences, registry
from netcontagion.errors import DatasetError, UnknownLabelError

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from netcontagion.network import ExposureNetwork

__all__ = ["available", "load"]

AAVE = "aave-steth-2023-06"
WHAT = {
    AAVE: "1,811 accounts with (w)stETH collateral on Aave v2 and v3 Ethereum, June 2023: USD 2.6 bn collateral, "
    "USD 1.3 bn debt, 17 assets; load() gives a network; 12 accounts lose dust debts (USD 1.05 in total)",
    "dex-quotes-2023-11-20": "19,278 swap quotes between 8 tokens, sizes to USD 157 m; dex_depths() gives depths",
}


def available() -> pd.DataFrame:
    """List the data sets.

    Returns
    -------
    DataFrame
        One row per data set: ``name``, ``kind`` (bundled with the package, or download), ``licence``, ``bytes``,
        ``source`` and ``what``. Downloads are made by the machine of the user, under the licence named here.
    """
    import pandas as pd

    rows = [_bundled_row(name) for name in bundled_names()]
    entries = registry()
    for name in sorted(entries):
        licence, size, source = licences(entries, name)
        rows.append((name, "download", licence, size, source, WHAT.get(name, "")))
    return pd.DataFrame(rows, columns=["name", "kind", "licence", "bytes", "source", "what"])


def _bundled_row(name: str) -> tuple[str, str, str, int, str, str]:
    folder = bundled(name)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return name, "bundled", "BSD-3-Clause", size, "netcontagion", _first_line(folder / "SOURCE.md")


def _first_line(readme: Path) -> str:
    if not readme.is_file():
        return ""
    lines = (line.strip("# ").strip() for line in readme.read_text(encoding="utf-8").splitlines())
    return next((line for line in lines if line), "")


def load(name: str) -> ExposureNetwork:
    """Return a data set as a network.

    Parameters
    ----------
    name : str
        Name of a data set, see :func:`available`. Downloads are fetched once and verified, see :func:`fetch`.

    Raises
    ------
    UnknownLabelError
        If no data set has that name; the message has the nearest ones.
    DatasetError
        If its files cannot be found or verified, or it is not a network.

    Notes
    -----
    ``aave-steth-2023-06``: only accounts with (w)stETH collateral are in it. What its publisher did not itemise is the
    asset ``OTHER`` at USD 1 per unit, which follows no other price. 12 accounts that owe dust, USD 1.05 in total, owe
    nothing in the network and have infinite health, so 1,799 of the 1,811 have a debt. Two accounts hold USDC that they
    do not use as collateral (USD 4.28 m and 0.008 m); it counts here, so their health is above the one on chain.
    """
    if name in bundled_names():
        from netcontagion.network import load as load_folder

        return load_folder(bundled(name))
    if name == AAVE:
        from netcontagion.network import ExposureNetwork

        tables: dict[str, Any] = dict(snapshot_tables(*read_snapshot(fetch(name))))
        return ExposureNetwork(**tables, numeraire="USD")
    if name in registry():
        raise DatasetError(
            f"data set {name!r} is not a network; cure: datasets.dex_depths(), or datasets.fetch({name!r})"
        )
    raise UnknownLabelError(name, [*bundled_names(), *registry()], "data set")
