"""A slow, plain twin of the cascade, written from the specification with dicts and floats, held against the engine."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
from seeds import slow, some_and_slow

import netcontagion as nc
from netcontagion import builders
from netcontagion.margining import _answers, _forms, _margin_sales, _overlay, _sales, _scan, _trading
from netcontagion.margining._cascade import Play
from netcontagion.margining._events import Events
from netcontagion.margining._opening import open_state
from netcontagion.network import rulebook

CLOSE = {"rel": 1e-9, "abs": 1e-9}


def random_tables(seed):
    """Small market: exchanges of both families, shared traders, wallets, several assets on both sides, thin books."""
    rng = np.random.default_rng(seed)
    assets = ["BTC", "ETH", "SOL", "USD", "USDC"]
    price = dict(zip(assets, [30000.0, 2000.0, 50.0, 1.0, 1.0], strict=True))
    venues = [f"v{i}" for i in range(rng.integers(1, 4))]
    books = [str(rng.choice(["lending", "aave_v2", "aave_v3_0", "aave_v3", "closeout"])) for _ in venues]
    unit = float(
        rng.choice([1.0, 100.0, 5000.0])
    )  # size of accounts: below, around and above the protocol's thresholds
    tables = {
        "assets": {
            "asset": assets,
            "price": [price[a] for a in assets],
            "depth": [float(rng.choice([np.nan, 3 * unit, 40 * unit])) / price[a] for a in assets],
        },
        "exchanges": {
            "exchange": venues,
            "rulebook": books,
            "equity": (rng.exponential(unit / 2, len(venues)) * rng.integers(0, 2, len(venues))).tolist(),
            "insurance_fund": [],
            "insurance_asset": [],
        },
        "markets": {
            c: []
            for c in (
                "exchange",
                "asset",
                "price",
                "liquidation_threshold",
                "liquidation_bonus",
                "close_factor",
                "protocol_fee",
                "depth",
            )
        },
        "accounts": {c: [] for c in ("account", "trader", "exchange", "liquidation_threshold", "liquidation_bonus")},
        "balances": {c: [] for c in ("account", "asset", "deposited", "borrowed")},
        "wallets": {c: [] for c in ("trader", "asset", "units")},
        "traders": {"trader": [], "policy": []},
    }
    for _ in venues:
        kept = [None, "ETH", "USDC"][rng.integers(3)]
        tables["exchanges"]["insurance_asset"].append(kept)
        tables["exchanges"]["insurance_fund"].append(float(rng.exponential(unit / 4)) / price.get(kept, 1.0))
    for venue in venues:
        for asset in assets:
            row = {
                "exchange": venue,
                "asset": asset,
                "price": price[asset] * float(rng.choice([1.0, 1.02])),
                "liquidation_threshold": 0.0 if asset == "USD" else float(rng.uniform(0.6, 0.85)),
                "liquidation_bonus": float(rng.choice([0.02, 0.05, 0.1])),
                "close_factor": float(rng.choice([0.5, 0.3, 1.0])),
                "protocol_fee": float(rng.choice([0.0, 0.1])),
                "depth": float(rng.choice([np.nan, np.nan, 5 * unit])) / price[asset],
            }
            for name, value in row.items():
                tables["markets"][name].append(value)
    for t in range(rng.integers(2, 7)):
        trader = f"t{t}"
        tables["traders"]["trader"].append(trader)
        tables["traders"]["policy"].append("passive" if rng.random() < 0.15 else "default")
        for asset in rng.choice(assets, rng.integers(0, 3), replace=False):
            tables["wallets"]["trader"].append(trader)
            tables["wallets"]["asset"].append(str(asset))
            tables["wallets"]["units"].append(float(rng.exponential(0.2 * unit)) / price[asset])
        for venue in venues:
            for n in range(rng.integers(0, 3)):
                account = f"{trader}.{venue}.{n}"
                mode = rng.random() < 0.15
                own = {"liquidation_threshold": 0.9 if mode else np.nan, "liquidation_bonus": 0.01 if mode else np.nan}
                for name, value in ({"account": account, "trader": trader, "exchange": venue} | own).items():
                    tables["accounts"][name].append(value)
                held = {str(a): float(rng.exponential(unit)) for a in rng.choice(assets[:3], rng.integers(1, 3), False)}
                limit = sum(held.values()) * (0.9 if mode else 0.65) / 1.02
                owed = {}
                if rng.random() < 0.75:
                    share = rng.uniform(0.6, 1.05)
                    debts = rng.choice(assets, rng.integers(1, 3), False)
                    parts = rng.dirichlet(np.full(len(debts), 5.0))  # no ties
                    owed = {str(a): limit * share * part for a, part in zip(debts, parts, strict=True)}
                for asset in sorted(set(held) | set(owed)):
                    tables["balances"]["account"].append(account)
                    tables["balances"]["asset"].append(asset)
                    tables["balances"]["deposited"].append(held.get(asset, 0.0) / price[asset])
                    tables["balances"]["borrowed"].append(owed.get(asset, 0.0) / price[asset])
    return {name: table for name, table in tables.items() if len(next(iter(table.values())))}


LADDER = builders.ladder([0.99, 0.95, 0.85, 0.5, 1.01, 1.05, 1.3], [0.1, 0.2, 0.4, 1.0, 0.1, 0.3, 0.8])


def random_forms(seed):
    """The markets of ``random_tables`` with books of every form, part of whose impact passes."""
    rng, tables = np.random.default_rng([seed, 2]), random_tables(seed)
    assets = tables["assets"]
    size = len(assets["asset"])
    forms = ["exponential", "linear", "square_root", "constant_product", LADDER]
    assets["impact"] = [str(rng.choice(forms)) for _ in range(size)]
    wide = {"exponential": 1, "linear": 2, "square_root": 20, "constant_product": 3, LADDER: 1}
    assets["impact"] = [
        "linear" if math.isnan(d) else i for i, d in zip(assets["impact"], assets["depth"], strict=True)
    ]
    assets["depth"] = [d * wide[form] for d, form in zip(assets["depth"], assets["impact"], strict=True)]
    if rng.random() < 0.6:
        assets["permanent"] = rng.choice([1.0, 0.7, 0.2], size).tolist()
        assets["half_life"] = rng.choice([np.nan, 1.0, 3.0], size).tolist()
    return tables


def random_shock(seed):
    rng = np.random.default_rng([seed, 1])
    shock = nc.Shock.price({"BTC": float(rng.uniform(-0.4, 0)), "ETH": float(rng.uniform(-0.5, 0.1))})
    if rng.random() < 0.2:
        shock = shock + nc.Shock.default("t0")
    if rng.random() < 0.15:
        shock = shock + nc.Shock.outage("v0")
    if rng.random() < 0.3:
        shock = shock + nc.Shock.depth(0.5)
    return shock


class Twin:
    """The cascade as docs/design.md tells it. Accounts are dicts; nothing is shared with the engine."""

    def __init__(self, net, shock, priority="worst_first", on=("top_up", "withdrawal", "liquidation", "impact")):
        self.net, self.on, self.priority = net, on, priority
        factor = dict(zip(net.labels("assets"), shock.price_factors(net), strict=True))
        assets, markets, exchanges = net.assets, net.markets, net.exchanges
        self.money = net.numeraire
        self.kind = assets["kind"].to_dict()
        self.outside = {a: assets.loc[a, "price"] * factor[a] for a in assets.index}
        self.base = {
            (v, a): (assets.loc[a, "price"] if math.isnan(row["price"]) else row["price"]) * factor[a]
            for (v, a), row in markets.iterrows()
        }
        self.market = {key: row.to_dict() for key, row in markets.iterrows()}
        self.depth, self.sold, self.book = {}, {}, {}
        self.form, self.stays, self.keeps = {}, {}, {}
        scale = shock.depth_factor
        for a in assets.index:
            self._book_of(a, a, assets.loc[a, "depth"], scale)
        for key in self.base:
            own = self.market[key]["depth"]
            self.book[key] = key[1] if math.isnan(own) else key
            if not math.isnan(own):
                self._book_of(key, key[1], own, scale)
        if "impact" not in on:
            self.depth = dict.fromkeys(self.depth, math.inf)
        self.sold, self.passing = dict.fromkeys(self.depth, 0.0), dict.fromkeys(self.depth, 0.0)
        out = dict(zip(exchanges.index, shock.out(net), strict=True))
        self.out = {v for v, stopped in out.items() if stopped}
        self.rule = {v: rulebook(exchanges.loc[v, "rulebook"]) for v in exchanges.index}
        self.equity = exchanges["equity"].to_dict()
        self.fund = exchanges["insurance_fund"].to_dict()
        codes = net.columns("exchanges")["insurance_asset"]
        self.fund_asset = {
            v: None if c < 0 else net.labels("assets")[c] for v, c in zip(exchanges.index, codes, strict=True)
        }
        failed = dict(zip(net.labels("traders"), shock.defaulted(net), strict=True))
        self.active = {t: p != "passive" and not failed[t] for t, p in net.traders["policy"].items()}
        self.accounts = {}
        for k, row in net.accounts.iterrows():
            self.accounts[k] = {
                "trader": row["trader"],
                "venue": row["exchange"],
                "dep": {},
                "bor": {},
                "lt": row["liquidation_threshold"],
                "bonus": row["liquidation_bonus"],
                "forced": failed[row["trader"]],
                "waiting": 0.0,
            }
        for (k, a), row in net.balances.iterrows():
            self.accounts[k]["dep"][a] = row["deposited"]
            self.accounts[k]["bor"][a] = row["borrowed"]
        self.wallet = {}
        for (t, a), units in net.wallets["units"].items():
            self.wallet.setdefault(t, {})[a] = 0.0 if failed[t] else units
        self.short, self.fees = {}, {}
        self.paid_out = {}  # cash that closed accounts paid out to their owner
        self.liquidators, self.market_cash, self.bought = 0.0, 0.0, {}
        self.deficit = dict.fromkeys(self.accounts, 0.0)
        self.borne = {v: dict.fromkeys(("insurance_fund", "equity", "suppliers"), 0.0) for v in exchanges.index}
        self.liquidated = set()
        self.opening = {k: self.debt(k, self.base) for k in self.accounts}

    # prices

    def _book_of(self, book, asset, depth, scale):
        row = self.net.assets.loc[asset]
        text = row["impact"]
        self.form[book] = text.split(" ")[0]
        self.depth[book] = (1.0 if " " in text else math.inf) if math.isnan(depth) else depth
        self.depth[book] *= scale
        self.stays[book] = row["permanent"]
        self.keeps[book] = 1.0 if math.isnan(row["half_life"]) else 2 ** (-1 / row["half_life"])

    def levels(self, book, side):
        """Levels of a ladder as (units, relative price), best first."""
        asset = book[1] if isinstance(book, tuple) else book
        found = self.net.assets.loc[asset, "impact"].removeprefix("ladder ").split("|")[side]
        return [
            (float(u) * self.depth[book], float(p)) for p, u in (level.split(":") for level in found.strip().split(" "))
        ]

    def left(self, book, q, selling=None):
        """What a net quantity leaves of a price; of a ladder the last level traded, or the next one to trade."""
        depth = self.depth[book]
        if math.isinf(depth):
            return 1.0
        if self.form[book] == "exponential":
            return math.exp(-max(q / depth, -300))
        if self.form[book] == "linear":
            return max(1 - q / depth, 0.0)
        if self.form[book] == "square_root":
            return max(1 - math.copysign(math.sqrt(abs(q) / depth), q), 0.0)
        if self.form[book] == "constant_product":
            return (1 + max(q / depth, 1e-6 - 1)) ** -2
        return self._step(book, q, selling)

    def _step(self, book, q, selling):
        side = 1 if q < 0 else 0
        slack = 1e-12 * sum(units for n in (0, 1) for units, _ in self.levels(book, n))
        if selling is None:
            slack *= 2
            if abs(q) <= slack:
                return 1.0
            edge = 0.0
            for units, price in self.levels(book, side):
                edge += units
                if abs(q) <= edge + slack:
                    return price
            return price
        stairs, edge = [], -sum(u for u, _ in self.levels(book, 1))
        for units, price in self.levels(book, 1)[::-1] + self.levels(book, 0):
            stairs.append((edge, edge + units, price))
            edge += units
        for low, high, price in stairs:
            if (low - slack <= q < high - slack) if selling else (low + slack < q <= high + slack):
                return price
        return 0.0 if selling else math.inf

    def area(self, book, q):
        """Integral of ``left`` from 0 to q, where it has no bend on the way."""
        depth, form = self.depth[book], self.form[book]
        if form == "linear":
            return q - q * q / depth / 2 if q < depth else depth / 2
        if form == "square_root":
            return q - 2 / 3 * abs(q) ** 1.5 / math.sqrt(depth) if q < depth else depth / 3
        if form == "constant_product":
            return q / (1 + q / depth)
        cash, todo, side = 0.0, abs(q), 1 if q < 0 else 0
        for units, price in self.levels(book, side):
            cash += price * min(units, todo)
            todo -= min(units, todo)
        return -cash if q < 0 else cash

    def taken(self, book, units):
        """Part of an order that is filled."""
        depth, sold = self.depth[book], self.sold[book]
        if math.isinf(depth) or self.form[book] not in ("ladder", "constant_product"):
            return units
        if self.form[book] == "constant_product":
            return max(units, min((1e-6 - 1) * depth - sold, 0.0))
        most, least = (sum(u for u, _ in self.levels(book, side)) for side in (0, 1))
        return max(min(units, max(most - sold, 0.0)), min(-least - sold, 0.0))

    def price(self, base, book):
        return base * self.left(book, self.sold[book])

    def marks(self):
        return {key: self.price(base, self.book[key]) for key, base in self.base.items()}

    def cash(self, base, book, units):
        """Cash for selling units (buying where negative), the integral of the price."""
        depth, sold, units = self.depth[book], self.sold[book], self.taken(book, units)
        if math.isinf(depth):
            return base * units
        if self.form[book] == "exponential":
            return -self.price(base, book) * depth * math.expm1(min(-units / depth, 300))
        return base * (self.area(book, sold + units) - self.area(book, sold))

    def sell(self, base, book, units):
        cash, filled = self.cash(base, book, units), self.taken(book, units)
        self.sold[book] += filled
        self.passing[book] += (1 - self.stays[book]) * filled
        return cash

    def cost(self, base, book, units):
        return -self.cash(base, book, -units)

    def affordable(self, base, book, cash, most=None):
        """Units that cash buys, or whose sale brings it: by halving."""
        sign = 1 if most is None else -1
        low, high = 0.0, 1.0
        while most is None and self.cost(base, book, high) < cash:
            high *= 2
        high = high if most is None else most
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if sign * self.cost(base, book, sign * middle) <= cash else (low, middle)
        return low

    def fade(self):
        for book, part in self.passing.items():
            self.sold[book] -= part * (1 - self.keeps[book])
            self.passing[book] = part * self.keeps[book]

    # accounts

    def lt(self, k, asset):
        own = self.accounts[k]["lt"]
        listed = self.market.get((self.accounts[k]["venue"], asset), {}).get("liquidation_threshold", math.nan)
        value = listed if math.isnan(own) else own
        return 0.0 if math.isnan(value) else value

    def backing(self, k, marks):
        account = self.accounts[k]
        return sum(u * marks[account["venue"], a] * self.lt(k, a) for a, u in account["dep"].items())

    def debt(self, k, marks):
        account = self.accounts[k]
        return sum(u * marks[account["venue"], a] for a, u in account["bor"].items())

    def health(self, k, marks):
        debt = self.debt(k, marks)
        return self.backing(k, marks) / debt if debt > 0 else math.inf

    # the rounds

    def run(self, rounds):
        """Play as many rounds as the engine; nobody may act in the last, nor later, while prices come back."""
        for _ in range(rounds):
            left, acted = self.round()
        assert not acted
        later = copy.deepcopy(self)
        for _ in range(60 if any(self.passing.values()) else 1):
            assert not later.round()[1]
        return left

    def round(self):
        self.fade()
        marks = self.marks()
        self.start_prices = {a: self.price(p, a) for a, p in self.outside.items()}
        health = {k: self.health(k, marks) for k in self.accounts}
        called = [
            k for k in self.accounts if health[k] < 1 - 1e-12 or (self.accounts[k]["forced"] and health[k] < math.inf)
        ]
        sign = 1 if self.priority == "worst_first" else -1
        called.sort(key=lambda k: (float(f"{sign * health[k]:.11e}"), k))
        helped = [k for k in called if self.respond(k, set(called), marks)]
        left = [k for k in called if k not in helped]
        acted, holes = bool(helped), {}
        if "liquidation" in self.on:
            for k in left:
                if self.accounts[k]["venue"] not in self.out:
                    whole = self.rule[self.accounts[k]["venue"]].amount == "whole_account"
                    did = self.close_out(k, marks) if whole else self.liquidate(k, health[k], marks)
                    acted = acted or did
            for k in left:
                acted = self.write_off(k, marks, holes) or acted
            self.waterfall(holes, marks)
        return left, acted

    def respond(self, k, called, marks):
        account = self.accounts[k]
        trader, venue = account["trader"], account["venue"]
        if not self.active[trader] or venue in self.out or account["forced"]:
            return False
        trial = copy.deepcopy(account)
        moves = []

        def need():
            return self._need(k, trial, marks)

        def use(asset, units, source):
            """Repay what is owed in the asset, then deposit, as much as is needed."""
            price = marks.get((venue, asset), 0.0)
            taken = 0.0
            if price > 0 and trial["bor"].get(asset, 0.0) > 0 and need():
                backing, debt = self._weigh(k, trial, marks)
                paid = min(units, trial["bor"][asset], (debt - backing / 1.05) / price)
                trial["bor"][asset] -= paid
                taken += paid
            listed = self.market.get((venue, asset), {}).get("liquidation_threshold", 0.0)
            accepted = self.lt(k, asset) > 0 and (asset in account["dep"] or listed > 0)
            if price > 0 and accepted and need() and units - taken > 0:
                backing, debt = self._weigh(k, trial, marks)
                put = min(units - taken, (1.05 * debt - backing) / self.lt(k, asset) / price)
                trial["dep"][asset] = trial["dep"].get(asset, 0.0) + put
                taken += put
            if taken > 0:
                moves.append((source, asset, taken))
            return taken

        if "top_up" in self.on:
            purse = self.wallet.get(trader, {})
            # the order of wallets is that of their value right after the shock
            for asset in sorted(purse, key=lambda a: (a != self.money, -self._wallet_value(trader, a), a)):
                if need() and purse[asset] > 0:
                    use(asset, purse[asset], None)
        if "withdrawal" in self.on:

            def rank(o):
                return (-self.health(o, marks), -self.backing(o, marks), o)

            donors = [o for o in self.accounts if self.accounts[o]["trader"] == trader and o != k and o not in called]
            donors = [o for o in donors if self.accounts[o]["venue"] not in self.out and self.health(o, marks) > 1.25]
            for o in sorted(donors, key=rank):
                home, owes = self.accounts[o]["venue"], self.debt(o, marks) > 0
                spare = self.backing(o, marks) - 1.25 * self.debt(o, marks)
                held = self.accounts[o]["dep"]
                for asset in sorted(held, key=lambda a: (-held[a] * marks[home, a], a)):
                    worth = marks[home, asset] * self.lt(o, asset)
                    units = min(held[asset], max(spare, 0.0) / worth) if owes and worth > 0 else held[asset]
                    if need() and units > 0:
                        taken = use(asset, units, o)
                        spare -= taken * worth if owes else 0.0
        if need():
            return False
        for source, asset, units in moves:
            if source is None:
                self.wallet[trader][asset] = max(self.wallet[trader][asset] - units, 0.0)
            else:
                self.accounts[source]["dep"][asset] = max(self.accounts[source]["dep"][asset] - units, 0.0)
        account["dep"], account["bor"] = trial["dep"], trial["bor"]
        return bool(moves)

    def _wallet_value(self, trader, asset):
        return self.net.wallets.loc[(trader, asset), "units"] * self.outside[asset]

    def _weigh(self, k, account, marks):
        venue = account["venue"]
        backing = sum(u * marks[venue, a] * self.lt(k, a) for a, u in account["dep"].items())
        return backing, sum(u * marks[venue, a] for a, u in account["bor"].items())

    def _need(self, k, account, marks):
        backing, debt = self._weigh(k, account, marks)
        return backing < 1.05 * debt * (1 - 1e-12)

    def liquidate(self, k, health, marks):
        account = self.accounts[k]
        venue = account["venue"]
        rule = self.rule[venue]
        debts = {a: u * marks[venue, a] for a, u in account["bor"].items() if u * marks[venue, a] > 0}
        collateral = {
            a: u * marks[venue, a]
            for a, u in account["dep"].items()
            if u * marks[venue, a] > 0 and self.lt(k, a) > 0 and self.kind[a] != "residual"
        }
        if not debts or not collateral:
            return False

        def bonus_of(a):
            own, listed = account["bonus"], self.market[venue, a]["liquidation_bonus"]
            return (0.0 if math.isnan(listed) else listed) if math.isnan(own) else own

        d = max(sorted(debts), key=lambda a: debts[a])
        c = max(sorted(collateral), key=lambda a: (bonus_of(a), collateral[a]))
        bonus, owed, held = bonus_of(c), debts[d], collateral[c]
        factor = self.market[venue, d]["close_factor"]
        factor = rule.close_factor if math.isnan(factor) else factor
        full = account["forced"] or health <= rule.full_below_health * (1 + 1e-12)
        full = full or min(owed, held) < rule.full_below_value or owed <= 1e-6 * self.opening[k]
        repay = owed if full else min(owed, factor * (sum(debts.values()) if rule.base == "position" else owed))
        repay = min(repay, held / (1 + bonus))
        left, rest, least = owed - repay, held - repay * (1 + bonus), rule.minimum_leftover
        if left > 1e-12 * owed and rest > 1e-12 * held and min(left, rest) < least:
            repay = max(0.0, min(repay, owed - least, (held - least) / (1 + bonus)))
        fee = self.market[venue, c]["protocol_fee"] * bonus
        bc, bd = self.book[venue, c], self.book[venue, d]
        mc, md = marks[venue, c], marks[venue, d]
        allowed = repay
        if c != d and rule.participation == "profitable":
            # a liquidator goes on while selling the next unit of collateral brings more than buying the debt costs
            def margin(r):
                share = (1 + bonus - fee) / mc
                gain = share * self.base[venue, c] * self.left(bc, self.sold[bc] + share * r, True)
                return gain - self.base[venue, d] / md * self.left(bd, self.sold[bd] - r / md, False)

            if margin(0.0) < -1e-12:
                return False
            if margin(repay) < 0:
                low, high = 0.0, repay
                for _ in range(200):
                    middle = (low + high) / 2
                    low, high = (middle, high) if margin(middle) > 0 else (low, middle)
                repay = low
        part = ((1 + bonus - fee) - (c == d)) / mc
        if self.taken(bc, part * repay) < part * repay:
            repay = self.taken(bc, part * repay) / part
        if c != d and -self.taken(bd, -repay / md) < repay / md:
            repay = -self.taken(bd, -repay / md) * md
        if repay <= 1e-12 * owed or repay < min(allowed, 1e-6 * max(allowed, self.opening[k])):
            return False
        paid = account["bor"][d] if repay >= owed * (1 - 1e-12) else repay / md
        seized = account["dep"][c] if repay * (1 + bonus) >= held * (1 - 1e-12) else repay * (1 + bonus) / mc
        kept = seized * fee / (1 + bonus)
        account["bor"][d] -= paid
        account["dep"][c] -= seized
        if c == d:
            cash = self.sell(self.base[venue, c], bc, seized - kept - paid)
        else:
            cash = self.sell(self.base[venue, c], bc, seized - kept)
            cash += self.sell(self.base[venue, d], bd, -paid)
        self.fees[venue, c] = self.fees.get((venue, c), 0.0) + kept
        self._buy_in(venue, c, seized - kept)
        self._buy_in(venue, d, -paid)
        self.liquidators += cash
        self.market_cash -= cash
        self.liquidated.add(k)
        return True

    def _buy_in(self, venue, asset, units):
        self.bought[venue, asset] = self.bought.get((venue, asset), 0.0) + units

    def close_out(self, k, marks):
        account = self.accounts[k]
        venue, cash, acted = account["venue"], account["waiting"], False
        kept, waits = cash, False
        for a in sorted(account["dep"]):
            book = self.book[venue, a]
            units = self.taken(book, account["dep"][a])
            if units > 0 and units >= 1e-6 * account["dep"][a] and self.lt(k, a) > 0 and self.kind[a] != "residual":
                got = self.sell(self.base[venue, a], book, units)
                cash, acted = cash + got, True
                self.market_cash -= got
                self._buy_in(venue, a, units)
                account["dep"][a] -= units
        while cash > 0:
            debts = {a: u * marks[venue, a] for a, u in account["bor"].items() if u * marks[venue, a] > 0}
            if not debts:
                break
            d = max(sorted(debts), key=lambda a: debts[a])
            base, book, owed = self.base[venue, d], self.book[venue, d], account["bor"][d]
            supply = -self.taken(book, -owed)
            cost = self.cost(base, book, supply)
            broke = cost > cash
            units = self.affordable(base, book, cash) if broke else supply
            if supply < 1e-6 * owed:
                waits = True
                break
            if units > 0:
                spent = -self.sell(base, book, -units)
                account["bor"][d] -= units
                self._buy_in(venue, d, -units)
                self.market_cash += spent
                cash, acted = (0.0 if broke else cash - spent), True
            waits = waits or (supply < owed and not broke)  # nobody sells the rest of the debt: the cash waits
        account["waiting"] = cash if waits else 0.0
        self.paid_out[account["trader"]] = self.paid_out.get(account["trader"], 0.0) + cash - kept
        if acted:
            self.liquidated.add(k)
        return acted

    def write_off(self, k, marks, holes):
        account = self.accounts[k]
        venue = account["venue"]
        if venue in self.out or self.backing(k, marks) > 1e-12 * self.opening[k] or account["waiting"] > 0:
            return False
        done = False
        for a, units in account["bor"].items():
            if units > 0:
                holes[venue, a] = holes.get((venue, a), 0.0) + units
                self.deficit[k] += units * marks[venue, a]
                account["bor"][a] = 0.0
                self.liquidated.add(k)
                done = True
        return done

    def waterfall(self, holes, marks):
        for venue in sorted({v for v, _ in holes}):
            for layer in self.rule[venue].layers:
                for asset in sorted(a for v, a in holes if v == venue):
                    missing = holes[venue, asset]
                    if missing > 0:
                        units = getattr(self, f"_{layer}")(venue, asset, missing)
                        holes[venue, asset] = max(missing - units, 0.0)
                        self.borne[venue][layer] += units * marks[venue, asset]
        for key, units in holes.items():
            self.short[key] = self.short.get(key, 0.0) + units

    def _purchase(self, venue, asset, missing, cash):
        base, book = self.base[venue, asset], self.book[venue, asset]
        enough = cash >= self.cost(base, book, missing) * (1 - 1e-12)
        units = -self.taken(book, -missing) if enough else self.affordable(base, book, cash)
        self.sell(base, book, -units)
        self._buy_in(venue, asset, -units)
        self.market_cash += cash
        return units

    def _insurance_fund(self, venue, asset, missing):
        held, kept = self.fund[venue], self.fund_asset[venue]
        if held <= 0:
            return 0.0
        if kept == asset:
            self.fund[venue] -= min(held, missing)
            return min(held, missing)
        wanted = self.cost(self.base[venue, asset], self.book[venue, asset], missing)
        if kept is None:
            cash = min(wanted, held)
            self.fund[venue] -= cash
            return self._purchase(venue, asset, missing, cash)
        base = self.outside[kept]
        units = self.taken(kept, held)
        cash = self.cash(base, kept, units)
        if cash > wanted:
            units, cash = self.affordable(base, kept, wanted, units), wanted
        if cash <= 0:
            return 0.0
        self.sell(base, kept, units)
        self.fund[venue] -= units
        self.market_cash -= cash
        self.bought[kept] = self.bought.get(kept, 0.0) + units
        return self._purchase(venue, asset, missing, cash)

    def _equity(self, venue, asset, missing):
        cash = min(self.cost(self.base[venue, asset], self.book[venue, asset], missing), self.equity[venue])
        if cash <= 0:
            return 0.0
        self.equity[venue] -= cash
        return self._purchase(venue, asset, missing, cash)

    def _suppliers(self, venue, asset, missing):
        owners = [k for k, account in self.accounts.items() if account["venue"] == venue]
        total = sum(self.accounts[k]["dep"].get(asset, 0.0) for k in owners)
        if total <= 0:
            return 0.0
        share = min(missing / total, 1.0)
        for k in owners:
            if asset in self.accounts[k]["dep"]:
                self.accounts[k]["dep"][asset] *= 1 - share
        return min(missing, total)

    # wealth

    def wealth(self):
        """Wealth of every bearer at final marks."""
        marks, prices = self.marks(), {a: self.price(p, a) for a, p in self.outside.items()}
        found = dict.fromkeys([*self.net.labels("traders"), *self.net.labels("exchanges")], 0.0)
        for account in self.accounts.values():
            for side, sign in (("dep", 1), ("bor", -1)):
                found[account["trader"]] += sum(sign * u * marks[account["venue"], a] for a, u in account[side].items())
        for t, purse in self.wallet.items():
            found[t] += sum(u * prices[a] for a, u in purse.items())
        for t, cash in self.paid_out.items():
            found[t] += cash
        for v in self.net.labels("exchanges"):
            kept = self.fund_asset[v]
            found[v] += self.equity[v] + self.fund[v] * (1.0 if kept is None else prices[kept])
            found[v] += sum(u * marks[key] for key, u in self.fees.items() if key[0] == v)
            found[v] -= sum(u * marks[key] for key, u in self.short.items() if key[0] == v)
        found["liquidators"] = self.liquidators
        found["market"] = self.market_cash
        for key, units in self.bought.items():
            found["market"] += units * (marks[key] if isinstance(key, tuple) else prices[key])
        return found


def opening_wealth(net):
    found = dict.fromkeys([*net.labels("traders"), *net.labels("exchanges"), "liquidators", "market"], 0.0)
    equity, owner = net.book.equity(), net.accounts["trader"]
    for t, value in zip(owner, equity, strict=True):
        found[t] += value
    price = net.assets["price"]
    for (t, a), units in net.wallets["units"].items():
        found[t] += units * price[a]
    codes = net.columns("exchanges")["insurance_asset"]
    for code, (v, row) in zip(codes, net.exchanges.iterrows(), strict=True):
        found[v] += row["equity"] + row["insurance_fund"] * (1.0 if code < 0 else price.iloc[code])
    return found


def compare(seed, tables=random_tables, **options):
    net = nc.ExposureNetwork(**tables(seed))
    shock = random_shock(seed)
    channels = options.get("channels", ("top_up", "withdrawal", "liquidation", "impact"))
    run = nc.cascade(net, shock, priority=options.get("priority", "worst_first"), channels=channels)
    run.check()
    twin = Twin(
        net,
        shock,
        options.get("priority", "worst_first"),
        options.get("channels", ("top_up", "withdrawal", "liquidation", "impact")),
    )
    left = twin.run(len(run.rounds))
    accounts = run.accounts
    assert set(accounts.index[accounts["liquidated"]]) == twin.liquidated
    marks, prices = twin.marks(), {a: twin.price(p, a) for a, p in twin.outside.items()}
    assert run.markets["mark"].to_dict() == pytest.approx(marks, **CLOSE)
    assert run.assets["price"].to_dict() == pytest.approx(prices, **CLOSE)
    size = max(abs(net.book.deposited * net.book.balance_mark).max(initial=0.0), 1.0)
    within = {"rel": 1e-9, "abs": 1e-9 * size}
    assert accounts["deficit"].to_dict() == pytest.approx(twin.deficit, **within)
    for name, column in (
        ("insurance_fund", "insurance_fund_used"),
        ("equity", "equity_used"),
        ("suppliers", "socialised"),
    ):
        assert run.exchanges[column].to_dict() == pytest.approx({v: b[name] for v, b in twin.borne.items()}, **within)
    entries, labels = run._state.entries, net.labels("accounts")
    for e in range(len(entries)):
        k = labels[entries.account[e]]
        asset = net.labels("assets")[run._state.markets.asset[entries.market[e]]]
        mark = marks[twin.accounts[k]["venue"], asset]
        assert entries.deposited[e] * mark == pytest.approx(twin.accounts[k]["dep"].get(asset, 0.0) * mark, **within)
        assert entries.borrowed[e] * mark == pytest.approx(twin.accounts[k]["bor"].get(asset, 0.0) * mark, **within)
    before, after = opening_wealth(net), twin.wealth()
    lost = {name: before[name] - after[name] for name in before}
    found = dict(zip(net.labels("traders"), run.traders["loss"], strict=True))
    found |= dict(zip(net.labels("exchanges"), run.exchanges["loss"], strict=True))
    found |= {name: run.losses[name].sum() for name in ("liquidators", "market")}
    assert found == pytest.approx(lost, **within)
    assert (run.status is nc.Status.EXHAUSTED) == bool(left)
    return run


@pytest.mark.parametrize("block", some_and_slow(2, 10))
def test_engine_equals_its_twin(block):
    for seed in range(20 * block, 20 * block + 20):
        compare(seed)


@pytest.mark.parametrize("block", some_and_slow(1, 10))
def test_engine_equals_its_twin_with_books_of_every_form(block):
    for seed in range(20 * block, 20 * block + 20):
        compare(seed, random_forms)


@pytest.mark.parametrize("seed", some_and_slow(8, 20))
def test_engine_equals_its_twin_best_first(seed):
    compare(seed, priority="best_first")


@pytest.mark.parametrize(
    "channels",
    [("liquidation", "impact"), *slow(("liquidation",), ("top_up",), ("withdrawal",), ("liquidation", "top_up"))],
)
def test_engine_equals_its_twin_with_channels_off(channels):
    for seed in range(10):
        compare(seed, channels=channels)


@pytest.mark.slow
def test_engine_equals_its_twin_on_many_markets():
    for seed in range(1000, 1800):
        compare(seed)


@pytest.mark.slow
def test_random_markets_reach_every_branch():
    seen = {"deficit": 0, "socialised": 0, "topped": 0, "withdrawal": 0, "closeout": 0, "rounds": 0}
    for seed in range(60):
        run = nc.cascade(nc.ExposureNetwork(**random_tables(seed)), random_shock(seed))
        run.check()
        kinds = set(run.events["type"])
        seen["deficit"] += run.exchanges["deficit"].sum() > 0
        seen["socialised"] += run.exchanges["socialised"].sum() > 0
        seen["topped"] += "top_up" in kinds
        seen["withdrawal"] += "withdrawal" in kinds
        seen["closeout"] += "closeout" in set(run.network.exchanges["rulebook"])
        seen["rounds"] += len(run.rounds) > 4
    assert min(seen.values()) >= 4, seen


# kernels and their plain functions ----------------------------------------------------------------------------------


KERNELS = (_answers, _forms, _margin_sales, _overlay, _sales, _scan, _trading)


def plain_kernels(patch):
    """Replace every kernel by the plain function it was compiled from."""
    for module in KERNELS:
        for name, value in list(vars(module).items()):
            if hasattr(value, "compiled"):
                patch.setattr(module, name, value.__wrapped__)


@pytest.mark.parametrize("many", [0, 10**9])
@pytest.mark.parametrize("seed", range(8))
def test_kernels_equal_their_plain_functions(seed, many, monkeypatch):
    monkeypatch.setattr(_overlay, "MANY", many)
    net, shock = nc.ExposureNetwork(**random_tables(seed)), random_shock(seed)

    def play():
        state = open_state(net, shock, switches=frozenset(("top_up", "withdrawal", "liquidation", "impact")))
        game = Play(state, frozenset(("liquidation",)), "worst_first", np.random.default_rng(0), Events())
        for number in range(6):
            if game.round(number)[2] is not None:
                break
        parts = [state.books.sold, state.entries.deposited, state.entries.borrowed, state.wallets.units, *state.ledger]
        events = game.events.columns()
        return parts + [events[name].astype(float) for name in events]

    compiled = play()
    with monkeypatch.context() as patch:
        plain_kernels(patch)
        plain = play()
    for ours, theirs in zip(compiled, plain, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-9)
