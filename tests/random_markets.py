"""Random markets of every kind together, for laws that must hold whatever is thrown at the cascade.

One seed gives one market: lending and margin exchanges of all presets, traders with accounts on several of them, every
impact form, both kinds of contracts, wallets, holdings and liabilities. ``flaws`` puts what breaks simulators on top.
"""

from __future__ import annotations

import math

import numpy as np

import netcontagion as nc
from netcontagion.margining import unsupported
from netcontagion.network import rulebook, rulebooks, schema

PRICES = {"BTC": 30_000.0, "ETH": 2_000.0, "stETH": 1_990.0, "USDC": 1.0, "DAI": 1.0, "USD": 1.0}
VOLATILE, STABLE = ("BTC", "ETH", "stETH"), ("USDC", "DAI")
CONTRACTS = {"BTC-PERP": "BTC", "ETH-PERP": "ETH", "ETH-INV": "ETH"}
FORMS = ("exponential", "linear", "square_root", "constant_product")
FLAWS = ("thin", "shared", "ring", "dust", "ties", "frozen", "gates", "worthless", "sources", "passing")


def presets() -> tuple[str, ...]:
    """Rulebook presets that the engine runs."""
    return tuple(name for name in rulebooks() if not unsupported(rulebook(name)))


def has(table: str, column: str) -> bool:
    return column in schema()[table]


class Draw:
    """Tables under construction; money is about ``unit`` an account."""

    def __init__(self, seed: int, flaws: tuple[str, ...], rules: tuple[str, ...]) -> None:
        self.rng = np.random.default_rng([seed, 77])
        self.flaws, self.rules = flaws, rules
        self.unit = float(self.rng.choice([1.0, 300.0, 5_000.0]))
        self.rows: dict[str, list[dict]] = {}

    def add(self, table: str, **row) -> None:
        self.rows.setdefault(table, []).append(row)

    def tables(self) -> dict[str, dict[str, list]]:
        """Columns of every table, with the schema's defaults where a row says nothing."""
        found = {}
        for table, rows in self.rows.items():
            names = sorted({name for row in rows for name in row})
            default = {
                name: None if schema()[table][name].required else schema()[table][name].default_value for name in names
            }
            found[table] = {name: [row.get(name, default[name]) for row in rows] for name in names}
        return found

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def pick(self, values):
        return values[self.rng.integers(len(values))]

    # tables

    def assets(self) -> None:
        for name, price in PRICES.items():
            deep = name == "USD" or (name in STABLE and self.chance(0.7))
            row = {"asset": name, "price": price, "kind": "stable" if name in (*STABLE, "USD") else "token"}
            row |= {"underlying": "ETH" if name == "stETH" else None}
            self.add("assets", **row, **({} if deep else self.book(price)))
        for name, underlying in CONTRACTS.items():
            inverse, price = name.endswith("INV"), PRICES[underlying] * 1.001
            row = {"asset": name, "price": price, "kind": "inverse" if inverse else "linear", "underlying": underlying}
            row |= {"settlement": underlying if inverse else "USDC", "multiplier": 10.0 if inverse else 1.0}
            self.add("assets", **row, **self.book(10.0 if inverse else price, 30.0))

    def book(self, worth: float, times: float = 1.0) -> dict:
        size = times * self.pick([0.01, 1.0] if "thin" in self.flaws else [3.0, 20.0, 200.0])
        row = {"depth": size * self.unit / worth, "impact": self.pick(FORMS)}
        if "passing" in self.flaws and has("assets", "permanent"):
            row |= {"permanent": float(self.rng.uniform(0, 1))}
            row |= {"half_life": float(self.pick([0.5, 2.0, 5.0]))} if has("assets", "half_life") else {}
        return row

    def exchanges(self) -> None:
        timed = [name for name in self.rules if rulebook(name).round_seconds is not None]
        clock = rulebook(self.pick(timed)).round_seconds if timed else None  # rounds have one length
        rules = [name for name in self.rules if rulebook(name).round_seconds in (None, clock)]
        self.venues = {f"v{n}": self.pick(rules) for n in range(self.rng.integers(1, 5))}
        for venue, rules in self.venues.items():
            kept = self.pick([None, "USDC", "BTC"])
            row = {"exchange": venue, "rulebook": rules, "insurance_asset": kept}
            row |= {"insurance_fund": float(self.rng.exponential(0.5 * self.unit)) / PRICES.get(kept, 1.0)}
            row |= {"equity": float(self.rng.exponential(0.3 * self.unit)) * self.chance(0.7)}
            if has("exchanges", "skin"):
                row |= {"skin": float(self.rng.exponential(0.05 * self.unit))}
            if "gates" in self.flaws and has("exchanges", "withdraw_status"):
                row |= {"withdraw_status": self.pick(["open", "closed"])}
                row |= {"withdraw_delay": int(self.rng.integers(0, 3))}
                row |= {"withdraw_cap": self.pick([math.nan, 0.1 * self.unit])}
            self.add("exchanges", **row)
            self.markets(venue, rulebook(rules))

    def markets(self, venue: str, rules) -> None:
        sources = [source.name for source in rules.sources]
        for asset, price in PRICES.items():
            row = {"exchange": venue, "asset": asset, "depth": self.pick([math.nan, math.nan, 5 * self.unit / price])}
            if self.chance(0.2):
                row |= {"price": price * float(self.rng.uniform(0.98, 1.02))}
            if asset == "USD":
                row |= {"depth": math.nan, "price": math.nan}
            if rules.health == "equity":
                row |= {"liquidation_threshold": float(self.rng.uniform(0.8, 0.99)) if self.chance(0.5) else math.nan}
                if asset in VOLATILE:
                    row |= {"maintenance_margin": self.pick([math.nan, 0.2]), "initial_margin": 0.4}
            else:
                low = 0.0 if asset == "USD" else float(self.rng.uniform(0.6, 0.85))
                row |= {"liquidation_threshold": low, "liquidation_bonus": self.pick([0.02, 0.05, 0.1])}
                row |= {"close_factor": self.pick([0.5, 1.0]), "protocol_fee": self.pick([0.0, 0.1])}
            if has("markets", "price_source") and (sources or "sources" in self.flaws) and self.chance(0.5):
                row |= {"price_source": self.pick(sources or ["spot", "asset"])}
            self.add("markets", **row)
        if rules.health != "equity":
            return
        for asset in CONTRACTS:
            own = self.pick([math.nan, math.nan, 100 * self.unit / (10.0 if asset.endswith("INV") else 2_000.0)])
            self.add("markets", exchange=venue, asset=asset, maintenance_margin=0.02, initial_margin=0.04, depth=own)
            if self.chance(0.5):
                for step, rate in enumerate((0.01, 0.02, 0.05)):
                    rates = {"initial_margin": 2 * rate, "maintenance_margin": rate}
                    self.add("tiers", exchange=venue, asset=asset, floor=(0.0, 2.0, 10.0)[step] * self.unit, **rates)

    def traders(self) -> None:
        count = int(self.rng.integers(2, 9))
        for n in range(count):
            trader = f"t{n}"
            row = {"trader": trader, "policy": "passive" if self.chance(0.15) else "default"}
            row |= {"external_assets": float(self.rng.exponential(self.unit)) * self.chance(0.5)}
            self.add("traders", **row)
            for asset in self.rng.choice(list(PRICES), self.rng.integers(0, 3), replace=False).tolist():
                units = float(self.rng.exponential(0.2 * self.unit)) / PRICES[asset]
                self.add("wallets", trader=trader, asset=asset, units=units)
            if self.chance(0.2):
                self.add(
                    "holdings", trader=trader, asset="BTC", units=float(self.rng.exponential(self.unit)) / 30_000.0
                )
            for venue, rules in self.venues.items():
                for place in range(1 if "shared" in self.flaws else int(self.rng.integers(0, 3))):
                    self.account(f"{trader}.{venue}.{place}", trader, venue, rulebook(rules))
        for _ in range(int(self.rng.integers(0, 4))):
            debtor, creditor = self.rng.choice(count, 2, replace=False)
            pair = {"debtor": f"t{debtor}", "creditor": f"t{creditor}"}
            if all(pair.items() - row.items() for row in self.rows.get("liabilities", [])):
                self.add("liabilities", **pair, amount=float(self.rng.exponential(self.unit)))

    def account(self, account: str, trader: str, venue: str, rules) -> None:
        size = (
            self.unit * float(self.rng.exponential(1.0)) * (1e-9 if "dust" in self.flaws and self.chance(0.3) else 1.0)
        )
        row = {"account": account, "trader": trader, "exchange": venue}
        if has("accounts", "default_fund") and self.chance(0.3):
            row |= {"default_fund": 0.1 * size}
        self.add("accounts", **row)
        if rules.health == "equity":
            return self.margin(account, size)
        deposits = {
            str(a): size * float(self.rng.uniform(0.2, 1))
            for a in self.rng.choice(list(VOLATILE), self.rng.integers(1, 3), False)
        }
        debts: dict[str, float] = {}
        if self.chance(0.8):
            limit = 0.6 * sum(deposits.values()) * float(self.rng.uniform(0.5, 1.05))
            names = self.rng.choice([*STABLE, "USD", "BTC", "ETH"], self.rng.integers(1, 3), False).tolist()
            if "ring" in self.flaws:
                names = [name for name in ("ETH", "BTC") if name not in deposits] or ["DAI"]
            debts = {name: limit / len(names) for name in names}
        if "ties" in self.flaws:
            deposits, debts = {"ETH": self.unit}, {"DAI": 0.6 * self.unit}
        for asset in sorted({*deposits, *debts}):
            held, owed = deposits.get(asset, 0.0) / PRICES[asset], debts.get(asset, 0.0) / PRICES[asset]
            self.add("balances", account=account, asset=asset, deposited=held, borrowed=owed)
        return None

    def margin(self, account: str, size: float) -> None:
        kind = self.rng.random()
        if kind < 0.2:
            self.add("balances", account=account, asset="BTC", deposited=2.5 * size / 30_000.0, borrowed=0.0)
            self.add(
                "balances", account=account, asset="USD", deposited=0.0, borrowed=size * float(self.rng.uniform(1, 1.8))
            )
        elif kind < 0.3:
            self.add("balances", account=account, asset="ETH", deposited=0.0, borrowed=size / 2_000.0)
            self.add("balances", account=account, asset="USD", deposited=1.6 * size, borrowed=0.0)
        else:
            cash = float(self.rng.uniform(0, 1))
            self.add("balances", account=account, asset="USDC", deposited=size * cash, borrowed=0.0)
            self.add("balances", account=account, asset="ETH", deposited=size * (1 - cash) / 2_000.0, borrowed=0.0)
        for contract, underlying in CONTRACTS.items():
            if self.chance(0.5):
                price = PRICES[underlying]
                value = size * float(self.rng.uniform(1, 20)) * (1 if self.chance(0.5) else -1)
                each = 10.0 if contract.endswith("INV") else price
                entry = price * float(self.rng.uniform(0.9, 1.1))
                self.add("positions", account=account, asset=contract, quantity=value / each, entry_price=entry)

    def shock(self) -> nc.Shock:
        low = -1.0 if "worthless" in self.flaws and self.chance(0.5) else -0.7
        moves = {
            "ETH": low if low == -1.0 else float(self.rng.uniform(low, 0.5)),
            "BTC": float(self.rng.uniform(-0.5, 0.5)),
        }
        if low == -1.0:
            moves["ETH-INV"] = -0.9  # an inverse contract cannot be worthless
        shock = nc.Shock.price(moves, family=True)
        if self.chance(0.2):
            shock = shock + nc.Shock.default("t0")
        if self.chance(0.15):
            shock = shock + nc.Shock.outage("v0")
        if self.chance(0.3):
            shock = shock + nc.Shock.depth(float(self.rng.choice([0.2, 2.0])))
        return shock


def random_market(seed: int, *, flaws: tuple[str, ...] = (), rules: tuple[str, ...] = ()) -> tuple:
    """Return a network and a shock."""
    draw = Draw(seed, flaws, rules or presets())
    draw.assets()
    draw.exchanges()
    draw.traders()
    return nc.ExposureNetwork(**draw.tables()), draw.shock()
