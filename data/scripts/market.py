"""Write the bundled data set ``data/market``: ``python data/scripts/market.py [folder]``.

Deterministic: a second run gives the same bytes. Run it again after a change of the generator or of the schema.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from netcontagion import generators
from netcontagion.network import schema

SEED, ACCOUNTS, DEPTH = 76, 200, 0.3
TITLE = (
    "Synthetic market: {accounts} accounts of {traders} traders on 4 lending protocols, USD {debt:.0f} m of debt, "
    "calibrated on public figures of Aave"
)
SOURCE = """# {title}

- Origin: synthetic. Nobody's accounts; no row is copied from anywhere.
- Made by `data/scripts/market.py`: `generators.market({accounts}, depth={depth}, seed={seed})`, netcontagion 0.1.0.
- Date: 2026-11-22. Prices, asset mix and market parameters are of June 2023.
- Licence: BSD-3-Clause, as the package.
- Money: USD. Amounts have six significant digits. Columns that hold only their default are left out.

## Calibrated on

| what | published figure | source |
|---|---|---|
| debt of an account | quantiles 10/25/50/75/90/99 %: USD 0.7k/3.5k/21k/125k/778k/17.5m; the largest owes 10 % (at 200 accounts this cuts the tail) | stETH accounts with debt above USD 100 on Aave v2 and v3 Ethereum, June 2023: lidofinance/aave-liquidation-model@a44561e9c62438e3987437218a40f82d9898b8a1 |
| health | quantiles 5/25/50/75/95 %: v2 1.16/1.38/1.81/2.61/4.91, v3 1.06/1.23/1.73/2.50/4.61 | the same |
| loops | debt below health 1.1: 8 % (v2), 27 % (v3) | the same |
| assets in an account | collateral: one 67 %, two 29 %, more 4 %; debt: one 83 %, more 17 % | the same |
| stable debt | USDC 181 m, USDT 116 m, DAI 61 m (v2) | the same |
| prices | WETH 1,720, WBTC 26,700, wstETH 1.1288 WETH | the same |
| depth | sale that moves the price by 1 %: WETH 27 m, wstETH 27 m, WBTC 6.8 m, times the debt here over the 1,282.4 m of the snapshot, times {depth} (thinner than that calm day; the trough of a crash is about 0.1) | swap quotes of 2023-11-20: xenophonlabs/crvUSDrisk@7d17fa798e908e1032e4ee432ff14667f284febe |
| thresholds, bonus, loan to value, fee, e-mode | presets `aave_v2_2023_06` and `aave_v3_2023_06` | netcontagion/network/rulebooks, which names its own sources |

Assumed, without a published figure: the collateral mix, wallets (40 % of the borrowing traders, 2 % to 50 % of their
debt), traders on several exchanges (20 %), insurance funds (0.2 % of debt), equity (0.5 %), 80 % of deposits lent, and a
last exchange (Lend-4) whose suppliers are on record in part: the rest is `others@Lend-4`.

## Tables

- `network.json`: format, unit of money.
- `traders.csv` trader: `lender-...` only lends, `trader-...` borrows
- `traders.csv` kind: lender or borrower
- `exchanges.csv` exchange: label
- `exchanges.csv` rulebook: preset of liquidation rules
- `exchanges.csv` equity: own liquid resources [USD]
- `exchanges.csv` insurance_fund: insurance fund [units of insurance_asset]
- `exchanges.csv` insurance_asset: what the fund is kept in
- `assets.csv` asset: label
- `assets.csv` price: price of one unit [USD]
- `assets.csv` kind: token or stable
- `assets.csv` underlying: family that the price follows, ETH or BTC
- `assets.csv` ratio: units of the underlying behind one unit
- `assets.csv` depth: depth D of the shared book [units], price x exp(-Q/D); empty: no impact
- `markets.csv` exchange: exchange of the market
- `markets.csv` asset: asset of the market
- `markets.csv` loan_to_value: largest loan over collateral value at opening
- `markets.csv` liquidation_threshold: share of the collateral value that counts in health; 0: not collateral
- `markets.csv` liquidation_bonus: the liquidator pays mark / (1 + bonus)
- `markets.csv` protocol_fee: share of the bonus kept by the exchange
- `accounts.csv` account: trader@exchange
- `accounts.csv` trader: owner
- `accounts.csv` exchange: exchange
- `accounts.csv` liquidation_threshold: of an account in e-mode; empty: the markets'
- `accounts.csv` liquidation_bonus: of an account in e-mode; empty: the markets'
- `balances.csv` account: account
- `balances.csv` asset: asset
- `balances.csv` deposited: deposited [units]
- `balances.csv` borrowed: borrowed [units]
- `wallets.csv` trader: owner
- `wallets.csv` asset: asset
- `wallets.csv` units: held free outside every exchange, used to top up [units]
"""  # noqa: E501


def main(folder: Path) -> None:
    (folder / "SOURCE.md").unlink(missing_ok=True)
    net = generators.market(ACCOUNTS, depth=DEPTH, seed=SEED)
    net.save(folder)
    for path in folder.glob("*.csv"):
        drop_defaults(path)
    book = net.book
    facts = {
        "accounts": ACCOUNTS,
        "traders": int((net.traders["kind"] != "others").sum()),
        "debt": float((book.borrowed * book.balance_mark).sum()) / 1e6,
    }
    words = {"title": TITLE.format(**facts), "accounts": ACCOUNTS, "depth": DEPTH, "seed": SEED}
    (folder / "SOURCE.md").write_text(SOURCE.format(**words), encoding="utf-8", newline="\n")


def drop_defaults(path: Path) -> None:
    """Leave out the columns whose every cell is empty or the default of the schema."""
    with path.open(newline="", encoding="utf-8") as table:
        header, *rows = list(csv.reader(table))
    kept = [place for place, name in enumerate(header) if not silent(path.stem, name, {row[place] for row in rows})]
    with path.open("w", newline="", encoding="utf-8") as table:
        csv.writer(table, lineterminator="\n").writerows([[row[place] for place in kept] for row in [header, *rows]])


def silent(table: str, name: str, cells: set[str]) -> bool:
    column = schema()[table][name]
    return not column.key and cells <= {"", column.default, f"{column.default}.0"}


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "market")
