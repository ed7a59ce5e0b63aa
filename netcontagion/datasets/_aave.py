"""The Aave stETH snapshot of June 2023: from the raw public files to the tables of a network.

Source: lidofinance/aave-liquidation-model, repository of 2023-06-21 (the block is not recorded). The files hold every
account of Aave v2 and v3 on Ethereum with (w)stETH collateral: totals of all, itemised assets of most.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netcontagion.errors import DatasetError
from netcontagion.network import preset_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import pandas as pd

__all__ = ["read_snapshot", "snapshot_tables", "trader_label"]

V2, V3 = "aave_v2_eth", "aave_v3_eth"
RULEBOOKS = {V2: "aave_v2", V3: "aave_v3_0"}
PRESETS = {V2: "aave_v2_2023_06", V3: "aave_v3_2023_06"}
RESIDUAL = "OTHER"
UNDERLYING = dict.fromkeys(("stETH", "wstETH", "WETH", "cbETH", "rETH"), "ETH") | {"WBTC": "BTC"}

DUST_USD = 0.01
"""Itemised amounts worth less are left out (18 of them, USD 0.04 in total)."""
RESIDUAL_USD = 1.0
RESIDUAL_SHARE = 1e-3
"""A residual is booked when above both: USD 1 and 0.1 % of the on-chain total (the oracle drift between two reads)."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Pool:
    """One exchange in the raw files: its files, and the money of one unit of its accounts' base."""

    exchange: str
    accounts: str
    itemised: tuple[str, ...]


_POOLS = (
    _Pool(V2, "steth_aave.csv", ("b2.csv", "b3.csv")),
    _Pool(V3, "steth_aave_v3.csv", ("b2_v3.csv", "b3_v3.csv")),
)
_COINS = ("usdc", "usdt", "dai", "fei", "tusd", "susd", "usdp", "frax", "gusd", "busd", "lusd", "wbtc")
_WEI, _USD_ORACLE = 1e18, 1e8


def trader_label(address: str) -> str:
    """Return the short label of a public address: ``"a"`` + the first 11 digits of a sha256.

    The same address has the same label on every exchange and in every data set of the package.
    """
    return "a" + hashlib.sha256(f"netcontagion:{address.lower()}".encode()).hexdigest()[:11]


def read_snapshot(files: Mapping[str, Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read positions and accounts from the raw files of the snapshot.

    Amounts in the files are tokens or smallest units, totals are ETH (v2) or USD (v3), thresholds basis points; here
    all are units and USD. The v2 price of ETH is the one that makes USDC worth USD 1. What the files do not itemise of
    an account's on-chain total becomes the asset ``OTHER``, worth USD 1 per unit, if it exceeds USD 1 and 0.1 % of the
    total; itemised amounts worth less than USD 0.01 are left out.

    So 12 accounts (10 on v2, 2 on v3) lose all of their debt, dust of USD 1.05 in total and 0.78 at most: they owe
    nothing in ``positions``, and their health computed from it is infinite; ``accounts`` keeps both as on chain.

    Items may also exceed the total, then the residual is negative and nothing is booked. It is kept in ``accounts``:
    on v3 -0.019 % throughout (the files' prices were read later than the totals), on v2 two accounts hold USDC that
    they do not use as collateral (``a547d8b012d3`` USD 4.28 m, ``a005a225de38`` USD 0.008 m): their health computed
    from positions is above the one on chain.

    Parameters
    ----------
    files : mapping of str to Path
        File name as published -> path, as :func:`netcontagion.datasets.fetch` returns it.

    Returns
    -------
    positions : DataFrame
        ``exchange``, ``trader``, ``side`` (collateral or debt), ``asset``, ``amount`` [units],
        ``price`` [USD/unit, the oracle of the exchange], ``value`` [USD].
    accounts : DataFrame
        ``exchange``, ``trader``, ``collateral`` and ``debt`` [USD, on-chain totals], ``liquidation_threshold`` and
        ``loan_to_value`` (account-weighted fractions), ``health`` (on chain), ``emode``, ``collateral_residual`` and
        ``debt_residual`` [USD, total minus items, signed].

    Raises
    ------
    DatasetError
        If a file or a column is missing, an address occurs twice, or an amount is negative or not a number.
    """
    import pandas as pd

    parts = [_read_pool(pool, files) for pool in _POOLS]
    positions, accounts = (pd.concat(tables, ignore_index=True) for tables in zip(*parts, strict=True))
    for side in ("collateral", "debt"):
        over = -accounts[f"{side}_residual"] > RESIDUAL_SHARE * accounts[side]
        if over.any():
            beyond = accounts.loc[over, f"{side}_residual"].sum()
            logger.info("%s items exceed the total of %d accounts by USD %.0f", side, int(over.sum()), -beyond)
    dust = _unbooked_debt(positions, accounts)
    logger.info("%d accounts owe dust that is not booked: USD %.2f in total", len(dust), dust.sum())
    return positions, accounts


def _unbooked_debt(positions: pd.DataFrame, accounts: pd.DataFrame) -> pd.Series:
    """Return the on-chain debt of accounts that owe nothing in the positions."""
    import pandas as pd

    owing = pd.MultiIndex.from_frame(positions.loc[positions["side"].eq("debt"), ["exchange", "trader"]])
    debt = accounts.set_index(["exchange", "trader"])["debt"]
    return debt[debt.gt(0) & ~debt.index.isin(owing)]


def _read_pool(pool: _Pool, files: Mapping[str, Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
    import pandas as pd

    try:
        totals = _read(files, pool.accounts)
        itemised = [_read(files, name) for name in pool.itemised]
        base = _WEI / float(itemised[0]["usdc_price"].iloc[0]) if pool.exchange == V2 else 1.0
        items = _items_v2(totals, itemised, base) if pool.exchange == V2 else _items_v3(totals, itemised)
        positions = pd.concat(list(items), ignore_index=True)
        accounts = pd.DataFrame(
            {
                "exchange": pool.exchange,
                "trader": totals["trader"],
                "collateral": totals["collateral"] * base,
                "debt": totals["debt"] * base,
                "liquidation_threshold": totals["threshold"] / 1e4,
                "loan_to_value": totals["ltv"] / 1e4,
                "health": totals["healthf"],
                "emode": totals["emode"].eq(1) if pool.exchange == V3 else False,
            }
        )
    except KeyError as error:
        raise DatasetError(
            f"the raw files of {pool.exchange} lack {error}; cure: datasets.fetch gets them all"
        ) from error
    positions["value"] = positions["amount"] * positions["price"]
    _refuse_bad_amounts(positions, pool.exchange)
    positions = positions[positions["value"] > DUST_USD]
    for side in ("collateral", "debt"):
        itemised_value = positions[positions["side"].eq(side)].groupby("trader")["value"].sum()
        accounts[f"{side}_residual"] = accounts[side] - accounts["trader"].map(itemised_value).fillna(0.0)
    residuals = [_residual(accounts, side) for side in ("collateral", "debt")]
    positions = pd.concat([positions, *residuals], ignore_index=True)
    positions.insert(0, "exchange", pool.exchange)
    return positions.sort_values(["trader", "side", "asset"], ignore_index=True), accounts


def _read(files: Mapping[str, Path], name: str) -> pd.DataFrame:
    """Read one raw file: numbers as floats (some exceed 64-bit integers), addresses as labels."""
    import pandas as pd

    table = pd.read_csv(files[name], dtype=str)
    table["trader"] = [trader_label(address) for address in table["user"]]
    if not table["trader"].is_unique:
        raise DatasetError(
            f"{name}: an address occurs twice; cure: read the published file, datasets.fetch verifies it"
        )
    numbers = table.columns.drop(["user", "trader"])
    return pd.concat([table[["trader"]], table[numbers].astype(float)], axis=1)


def _item(table: pd.DataFrame, side: str, asset: str, amount: pd.Series, price: Any) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({"trader": table["trader"], "side": side, "asset": asset, "amount": amount, "price": price})


def _items_v2(totals: pd.DataFrame, itemised: list[pd.DataFrame], eth: float) -> Iterator[pd.DataFrame]:
    steth = totals["collateral_steth_calc"].sum() / totals["amount"].sum()
    yield _item(totals, "collateral", "stETH", totals["amount"], steth * eth)
    yield _item(totals, "debt", "WETH", totals["ethdebt"], eth)
    for table in itemised:
        yield from _coins(table, eth / _WEI)
        if "weth_collateral" in table:
            yield _item(table, "collateral", "WETH", table["weth_collateral"] / _WEI, eth)


def _items_v3(totals: pd.DataFrame, itemised: list[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    yield _item(totals, "collateral", "wstETH", totals["amount"], totals["steth_price"])
    yield _item(totals, "collateral", "cbETH", totals["cbeth_collateral"], totals["cbeth_price"])
    yield _item(totals, "collateral", "rETH", totals["reth_collateral"], totals["reth_price"])
    yield _item(totals, "debt", "WETH", totals["ethdebt"], totals["eth_price"])
    for table in itemised:
        yield from _coins(table, 1.0 / _USD_ORACLE)
        if "weth_collateral" in table:
            yield _item(table, "collateral", "WETH", table["weth_collateral"] / _WEI, table["eth_price"])


def _coins(table: pd.DataFrame, oracle_unit: float) -> Iterator[pd.DataFrame]:
    """Yield the coins of an itemised file: ``usdc`` is debt, ``usdc_collateral`` collateral, in smallest units."""
    for coin in _COINS:
        if f"{coin}_price" not in table:
            continue
        unit = 10.0 ** table[f"{coin}_decimals"]
        price = table[f"{coin}_price"] * oracle_unit
        yield _item(table, "debt", coin.upper(), table[coin] / unit, price)
        if f"{coin}_collateral" in table:
            yield _item(table, "collateral", coin.upper(), table[f"{coin}_collateral"] / unit, price)


def _refuse_bad_amounts(positions: pd.DataFrame, exchange: str) -> None:
    bad = positions[~(positions["amount"].ge(0) & positions["price"].gt(0))]
    if len(bad):
        row = bad.iloc[0]
        raise DatasetError(
            f"{exchange}: {len(bad)} amounts or prices in the raw files are negative or not numbers, first "
            f"{row.asset} of {row.trader}: amount {row.amount}, price {row.price}; "
            "cure: datasets.fetch verifies the published files"
        )


def _residual(accounts: pd.DataFrame, side: str) -> pd.DataFrame:
    excess = accounts[f"{side}_residual"]
    kept = accounts[(excess > RESIDUAL_USD) & (excess > RESIDUAL_SHARE * accounts[side])]
    amount = kept[f"{side}_residual"]
    return _item(kept, side, RESIDUAL, amount, 1.0).assign(value=amount)


def snapshot_tables(
    positions: pd.DataFrame, accounts: pd.DataFrame, prices: Mapping[str, float] | None = None
) -> dict[str, pd.DataFrame]:
    """Build the tables of an ``ExposureNetwork`` from the snapshot.

    An address is one trader; its account on an exchange is ``"<trader>@<exchange>"``. Marks are those of each
    exchange's oracle; the price of an asset is the mark of v3 (a USD oracle) and of v2 where v3 has none. Every account
    carries the threshold that the chain weighted for it, so that health = collateral x threshold / debt is the one on
    chain. The other market parameters are the presets of June 2023 in ``network/rulebooks``; accounts in e-mode carry
    its bonus (1 %).

    Parameters
    ----------
    positions, accounts : DataFrame
        As :func:`read_snapshot` returns them.
    prices : mapping of str to float, optional
        Prices of assets [USD/unit] that replace the ones above; marks stay.

    Returns
    -------
    dict of str to DataFrame
        ``traders``, ``exchanges``, ``assets``, ``markets``, ``accounts`` and ``balances``, indexed by their keys.
    """
    import pandas as pd

    labels = positions["trader"] + "@" + positions["exchange"]
    exchanges = pd.Index(sorted(RULEBOOKS), name="exchange")
    return {
        "traders": pd.DataFrame(index=pd.Index(sorted(accounts["trader"].unique()), name="trader")),
        "exchanges": pd.DataFrame({"rulebook": [RULEBOOKS[name] for name in exchanges]}, index=exchanges),
        "assets": _assets(positions, dict(prices or {})),
        "markets": _markets(positions),
        "accounts": pd.DataFrame(
            {
                "account": accounts["trader"] + "@" + accounts["exchange"],
                "trader": accounts["trader"],
                "exchange": accounts["exchange"],
                "liquidation_threshold": accounts["liquidation_threshold"],
                "liquidation_bonus": _emode_bonus(accounts),
            }
        )
        .set_index("account")
        .sort_index(),
        "balances": _balances(positions.assign(account=labels)),
    }


def _emode_bonus(accounts: pd.DataFrame) -> pd.Series:
    """Bonus of the e-mode an account is in; empty outside of it."""
    modes = preset_table(PRESETS[V3])["emode"]
    return accounts["emode"].map({True: modes["eth_correlated"]["liquidation_bonus"], False: float("nan")})


def _marks(positions: pd.DataFrame) -> pd.Series:
    return positions.groupby(["exchange", "asset"])["price"].first()


def _assets(positions: pd.DataFrame, prices: dict[str, float]) -> pd.DataFrame:
    import pandas as pd

    marks = _marks(positions).unstack("exchange")
    price = marks[V3].fillna(marks[V2]) if {V2, V3} <= set(marks) else marks.iloc[:, 0]
    kinds = dict.fromkeys(UNDERLYING, "token") | {RESIDUAL: "residual"}
    return pd.DataFrame(
        {
            "price": [prices.get(str(name), value) for name, value in price.items()],
            "kind": [kinds.get(str(name), "stable") for name in price.index],
            "underlying": [UNDERLYING.get(str(name)) for name in price.index],
        },
        index=price.index,
    )


def _markets(positions: pd.DataFrame) -> pd.DataFrame:
    markets = _marks(positions).to_frame()
    presets = {exchange: preset_table(PRESETS[exchange])["assets"] for exchange in markets.index.unique("exchange")}
    for name in ("loan_to_value", "liquidation_threshold", "liquidation_bonus"):
        markets[name] = [presets[exchange][asset][name] for exchange, asset in markets.index]
    markets["close_factor"] = float("nan")
    markets["protocol_fee"] = [presets[exchange][asset].get("protocol_fee", 0.0) for exchange, asset in markets.index]
    return markets


def _balances(positions: pd.DataFrame) -> pd.DataFrame:
    """Return units deposited and borrowed per account and asset, side by side and never netted."""
    wide = positions.pivot(index=["account", "asset"], columns="side", values="amount").fillna(0.0)
    wide = wide.reindex(columns=["collateral", "debt"], fill_value=0.0)
    return wide.set_axis(["deposited", "borrowed"], axis=1).sort_index()
