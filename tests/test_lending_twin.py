"""A slow, plain twin of the lending rules beyond the fixed spread, held against the engine on random markets."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from seeds import some_and_slow
from test_cascade_twin import Twin, opening_wealth, random_shock, random_tables

import netcontagion as nc

CHANNELS = ("top_up", "withdrawal", "liquidation", "impact")  # that the twin knows
TINY = 1e-12

HEAD = {
    "lend": '[amount]\nrule = "close_factor"\nclose_factor = 0.5\n{amount}[price]\nrule = "fixed_spread"\n'
    '[inventory]\nroute = "liquidator"\n',
    "close": '[amount]\nrule = "whole_account"\n{amount}[price]\nrule = "execution"\n'
    '[inventory]\nroute = "market"\nparticipation = "always"\n',
    "absorb": '[amount]\nrule = "whole_account"\n{amount}[price]\nrule = "liquidation_factor"\n'
    '[inventory]\nroute = "protocol"\nstore_front = 0.5\n',
    "auction": '[amount]\nrule = "whole_account"\n{amount}[price]\nrule = "auction"\npenalty = 0.13\n'
    '[inventory]\nroute = "auction"\n',
}  # fmt: skip
STAIRS = (
    '[inventory.auction]\nbuffer = 1.1\ndecay = "stairs"\ncut = 0.97\ntail = 40\ncusp = 0.45\ntip = 2.0\nchip = 0.01\n'
)
LINEAR = "[inventory.auction]\nbuffer = 1.2\nlength = 12\n"
SMOOTH = '[inventory.auction]\nbuffer = 1.05\ndecay = "exponential"\ncut = 0.9\nstep = 3\ntail = 30\n'
ENGLISH = '[inventory.auction]\nform = "english"\nlength = 9\nbid_length = 3\n'
FUND_FIRST = 'layers = ["insurance_fund", {last}]\n'


def written(kind, *, amount="", inventory="", layers='"insurance_fund", "equity", "suppliers"', head="", more=""):
    return f"{head}{HEAD[kind].format(amount=amount)}{inventory}[deficit]\nlayers = [{layers}]\n{more}"


MINT, FROZEN, HANDED = '"insurance_fund", "mint"', '"insurance_fund", "frozen"', '"insurance_fund", "co_borrowers"'
OWN = {
    "dutch": written("auction", amount="capacity = 4000\ncapacity_per_asset = 1500\n", inventory=STAIRS, layers=MINT),
    "linear": written("auction", inventory="gas = 4.0\n" + LINEAR, layers='"equity", "suppliers"'),
    "smooth": written("auction", inventory="capital = 400.0\n" + SMOOTH, layers=FROZEN),
    "english": written("auction", inventory="gas = 1.0\n" + ENGLISH, layers=MINT),
    "poor": written("auction", inventory=ENGLISH + "bidders = 300.0\n", layers=MINT),
    "nobody": written("auction", inventory=ENGLISH + "bidders = 0.0\n", layers=FROZEN),
    "reserves": written("absorb", inventory="target_reserves = 500.0\ngas = 1.0\ncapital = 300.0\n",
                        amount="capacity = 2000\n", layers='"insurance_fund", "equity", "frozen"'),
    "pool": written("absorb", layers=HANDED),
    "patient": written("lend", head="[health]\nnotice = 2\n", amount='cooldown = 3\norder = "most_relief"\n'),
    "dear": written("lend", amount='capacity = 700\ncapacity_per_asset = 400\norder = "largest"\n',
                    inventory="gas = 10.0\ncapital = 500.0\n",
                    more="[deficit.insurance_fund]\ncap = 30.0\ndrawdown = 0.5\n"),
    "handed": written("close", amount="capacity = 2500\ncooldown = 2\n", layers=HANDED),
    "whole": '[amount]\nrule = "whole_account"\n[price]\nrule = "fixed_spread"\n[inventory]\nroute = "liquidator"\n'
             '[deficit]\nlayers = ["mint"]\n',
}  # fmt: skip
PRESETS = ("morpho", "comet", "compound_v2", "aave_v3", "lending", "closeout")


@pytest.fixture(scope="module")
def books(tmp_path_factory):
    folder = tmp_path_factory.mktemp("books")
    for name, text in OWN.items():
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    return [*PRESETS, *(str(folder / f"{name}.toml") for name in OWN)]


def market_of(seed, books):
    tables, rng = random_tables(seed), np.random.default_rng([seed, 7])
    tables["exchanges"]["rulebook"] = [str(rng.choice(books)) for _ in tables["exchanges"]["rulebook"]]
    return nc.ExposureNetwork(**tables)


class LendingTwin(Twin):
    """Adds absorption, auctions, waiting, limits and layers to the plain twin."""

    def __init__(self, net, shock):
        super().__init__(net, shock)
        for (venue, _), row in self.market.items():
            price = self.rule[venue].price_rule
            if price.bonus == "lltv" and row["liquidation_threshold"] > 0:
                incentive = 1 / (1 - price.cursor * (1 - row["liquidation_threshold"]))
                row["liquidation_bonus"] = min(1 + price.bonus_cap, incentive) - 1
        self.stock, self.lots = [], []
        self.inventory, self.owed, self.minted = {}, {}, dict.fromkeys(self.rule, 0.0)
        self.peak = dict(self.fund)
        self.since, self.seen, self.closed = {}, {}, {}
        layers = ("surplus", "insurance_fund", "equity", "suppliers", "mint", "co_borrowers", "frozen")
        self.borne = {v: dict.fromkeys(layers, 0.0) for v in self.rule}

    # the rounds

    def run(self):
        changed, last_act, before = -1, -1, None
        for number in range(6000):
            marks = self.marks()
            self.start_prices = {a: self.price(p, a) for a, p in self.outside.items()}
            health = {k: self.health(k, marks) for k in self.accounts}
            called = [
                k
                for k in self.accounts
                if health[k] < 1 - 1e-12 or (self.accounts[k]["forced"] and health[k] < math.inf)
            ]
            called.sort(key=lambda k: (float(f"{health[k]:.11e}"), k))
            for k in called:
                if self.seen.get(k) != number - 1:
                    self.since[k] = number
                self.seen[k] = number
            helped = [k for k in called if self.respond(k, set(called), marks)]
            left = [k for k in called if k not in helped]
            self.holes = {}
            self.renew(marks)
            ready, waiting, written_off = [], False, []
            for k in left:
                venue, forced = self.accounts[k]["venue"], self.accounts[k]["forced"]
                if venue in self.out:
                    continue
                rule = self.rule[venue]
                noticed = number - self.since[k] < rule.health_rule.notice and not forced
                resting = k in self.closed and number - self.closed[k] < rule.amount_rule.cooldown
                waiting = waiting or noticed or resting
                if not noticed:
                    written_off.append(k)
                if not (noticed or resting):
                    ready.append(k)
            acted = self.close_all(ready, health, marks, number) or bool(helped)
            acted = self.sell_lots(marks, number) or acted
            for k in written_off:
                acted = self.write_off(k, marks, self.holes) or acted
            self.waterfall(self.holes, marks)
            last_act = number if acted else last_act
            if acted or marks != before:
                changed, before = number, marks
            open_lots = any(lot["tried"][1] <= changed and lot["tried"][0] <= last_act for lot in self.lots)
            if not (acted or waiting or open_lots):
                unsold = any(lot["units"] > 0 and self.wanted[lot["venue"]] > 0 for lot in self.stock)
                return bool(left or self.lots or unsold), number + 1
        raise AssertionError("the twin does not settle")

    def renew(self, marks):
        self.money_left = {v: rule.inventory_rule.capital for v, rule in self.rule.items()}
        self.room = {v: rule.amount_rule.capacity for v, rule in self.rule.items()}
        self.room |= {key: self.rule[key[0]].amount_rule.capacity_per_asset for key in self.base}
        for lot in self.lots:
            value = lot["tab"] * marks[lot["venue"], lot["d"]]
            self.room[lot["venue"]] -= value
            self.room[lot["venue"], lot["c"]] -= value
        self.wanted = dict.fromkeys(self.rule, math.inf)

    def close_all(self, ready, health, marks, number):
        acted = False
        for route, group in itertools.groupby(ready, lambda k: self.rule[self.accounts[k]["venue"]].inventory):
            opened, fresh = [], []
            for k in list(group):
                share = 1.0 if route == "liquidator" else self.admit(k, marks)
                if route == "liquidator":
                    done = self.liquidate(k, health[k], marks)
                elif share <= 0:
                    done = False
                elif route == "market":
                    done = self.close_share(k, share, marks)
                elif route == "protocol":
                    done = self.absorb(k, share, marks, fresh)
                else:
                    done = self.open(k, share, marks, number, opened)
                if done:
                    acted = True
                    self.liquidated.add(k)
                    self.closed[k] = number
            self.stock += sorted(fresh, key=lambda lot: (lot["venue"], lot["c"], lot["d"]))
            for lot in opened:
                self.pay_starter(lot, marks)
        return acted

    # what can be taken

    def collateral(self, k, marks):
        account = self.accounts[k]
        venue = account["venue"]
        return {
            a: u * marks[venue, a]
            for a, u in sorted(account["dep"].items())
            if u * marks[venue, a] > 0 and self.lt(k, a) > 0 and self.kind[a] != "residual"
        }

    def debts(self, k, marks):
        account = self.accounts[k]
        priced = {a: u * marks[account["venue"], a] for a, u in sorted(account["bor"].items())}
        return {a: value for a, value in priced.items() if value > 0}

    def admit(self, k, marks):
        """Share of a whole account that the capacities leave room for."""
        venue = self.accounts[k]["venue"]
        rule = self.rule[venue]
        held, owed = self.collateral(k, marks), sum(self.debts(k, marks).values()) * (1 + rule.price_rule.penalty)
        limits = (rule.amount_rule.capacity, rule.amount_rule.capacity_per_asset)
        if min(limits) == math.inf or not held or owed <= 0:
            return 1.0
        total = sum(held.values())
        share = min(1.0, self.room[venue] / owed, *(self.room[venue, a] * total / v / owed for a, v in held.items()))
        if share * owed < 1e-6 * min(owed, *limits):
            return 0.0
        self.room[venue] -= share * owed
        for a, value in held.items():
            self.room[venue, a] -= share * owed * value / total
        return share

    def bonus_of(self, k, a):
        own, listed = self.accounts[k]["bonus"], self.market[self.accounts[k]["venue"], a]["liquidation_bonus"]
        return (0.0 if math.isnan(listed) else listed) if math.isnan(own) else own

    # routes

    def liquidate(self, k, health, marks):
        account = self.accounts[k]
        venue = account["venue"]
        rule, held, owes = self.rule[venue], self.collateral(k, marks), self.debts(k, marks)
        if not held or not owes:
            return False
        scores = {
            "bonus": lambda a: (self.bonus_of(k, a), held[a]),
            "largest": lambda a: held[a],
            "most_relief": lambda a: (-self.lt(k, a) * (1 + self.bonus_of(k, a)), held[a]),
        }
        d, c = max(owes, key=owes.get), max(held, key=scores[rule.amount_rule.order])
        bonus, owed, value = self.bonus_of(k, c), owes[d], held[c]
        factor = self.market[venue, d]["close_factor"]
        factor = rule.close_factor if math.isnan(factor) else factor
        full = account["forced"] or rule.amount == "whole_account" or owed <= 1e-6 * self.opening[k]
        full = full or health <= rule.full_below_health * (1 + TINY) or min(owed, value) < rule.full_below_value
        repay = owed if full else min(owed, factor * (sum(owes.values()) if rule.base == "position" else owed))
        repay = min(repay, value / (1 + bonus))
        left, rest, least = owed - repay, value - repay * (1 + bonus), rule.minimum_leftover
        if left > TINY * owed and rest > TINY * value and min(left, rest) < least:
            repay = max(0.0, min(repay, owed - least, (value - least) / (1 + bonus)))
        repay = allowed = min(repay, self.room[venue], self.room[venue, c])
        fee = self.market[venue, c]["protocol_fee"] * bonus
        price = marks[venue, c] / (1 + bonus - fee)
        if c != d:
            repay = min(repay, self.worth_paying(venue, c, d, price, repay, marks))
            repay = min(repay, self.affordable_value(venue, d, marks))
        if repay <= TINY * owed or repay < min(allowed, 1e-6 * max(allowed, self.opening[k])):
            return False
        paid = account["bor"][d] if repay >= owed * (1 - TINY) else repay / marks[venue, d]
        all_of_it = repay * (1 + bonus) >= value * (1 - TINY)
        seized = account["dep"][c] if all_of_it else repay * (1 + bonus) / marks[venue, c]
        kept = seized * fee / (1 + bonus)
        if not self.swap(venue, c, d, seized - kept, paid):
            return False
        account["bor"][d] -= paid
        account["dep"][c] -= seized
        self.fees[venue, c] = self.fees.get((venue, c), 0.0) + kept
        for key in (venue, (venue, c)):
            self.room[key] -= paid * marks[venue, d]
        return True

    def worth_paying(self, venue, c, d, price, most, marks):
        """Money up to which the next unit of collateral brings more than the debt asset for it costs."""
        if self.rule[venue].participation == "always":
            return math.inf
        bases, owns = (self.base[venue, c], self.base[venue, d]), (self.book[venue, c], self.book[venue, d])

        def margin(money):
            gain = self.price_after(bases[0], owns[0], money / price) / price
            return gain - self.price_after(bases[1], owns[1], -money / marks[venue, d]) / marks[venue, d]

        scale = self.price(bases[1], owns[1]) / marks[venue, d]
        if margin(0.0) < -TINY * scale:
            return -1.0
        if math.isinf(most) or margin(most) >= 0:
            return most
        low, high = 0.0, most
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if margin(middle) > 0 else (low, middle)
        return low

    def price_after(self, base, book, units):
        units = max(units, -700 * self.depth[book]) if math.isfinite(self.depth[book]) else units
        self.sold[book] += units
        price = self.price(base, book)
        self.sold[book] -= units
        return price

    def affordable_value(self, venue, d, marks):
        if math.isinf(self.money_left[venue]):
            return math.inf
        units = self.affordable(self.base[venue, d], self.book[venue, d], self.money_left[venue])
        return units * marks[venue, d]

    def brings(self, venue, asset, units):
        base, book = self.base[venue, asset], self.book[venue, asset]
        depth, price = self.depth[book], self.price(base, book)
        return price * units if math.isinf(depth) else price * depth * -math.expm1(-units / depth)

    def swap(self, venue, c, d, taken, paid, *, won=False):
        """Buyers sell what they took and buy what they pay with, if that brings what gas costs."""
        rule = self.rule[venue].inventory_rule
        if c == d:
            proceeds, cost = self.brings(venue, c, taken - paid), 0.0
        else:
            proceeds = self.brings(venue, c, taken)
            cost = self.cost(self.base[venue, d], self.book[venue, d], paid)
        if not won and rule.participation == "profitable" and rule.gas > 0 and proceeds - cost < rule.gas:
            return False
        self.sold[self.book[venue, c]] += taken
        self.sold[self.book[venue, d]] -= paid
        self._buy_in(venue, c, taken)
        self._buy_in(venue, d, -paid)
        self.liquidators += proceeds - cost - rule.gas
        self.market_cash -= proceeds - cost - rule.gas
        self.money_left[venue] -= cost
        return True

    def close_share(self, k, share, marks):
        account = self.accounts[k]
        kept = {}
        for a in self.collateral(k, marks):
            kept[a] = account["dep"][a] * (1 - share)
            account["dep"][a] *= share
        acted = self.close_out(k, marks)
        for a, units in kept.items():
            account["dep"][a] += units
        return acted

    def absorb(self, k, share, marks, fresh):
        account = self.accounts[k]
        venue, held, owes = account["venue"], self.collateral(k, marks), self.debts(k, marks)
        if not held or not owes:
            return False
        hands_on = "co_borrowers" in self.rule[venue].layers
        fixed = self.rule[venue].price_rule.factor
        credit = {a: v * share * (1 / (1 + self.bonus_of(k, a)) if fixed is None else fixed) for a, v in held.items()}
        total, left, paid = sum(credit.values()), sum(credit.values()), {}
        order = sorted(owes, key=lambda a: (-owes[a], a))
        for a in order:
            paid[a] = owes[a] if hands_on else min(owes[a], max(left, 0.0))
            left -= owes[a]
            if paid[a] >= owes[a] * (1 - TINY):
                paid[a] = owes[a]
        excess = left if left > TINY * total else 0.0
        taken = {a: account["dep"][a] * share for a in held}
        for a in held:
            account["dep"][a] -= taken[a]
            self.inventory[venue, a] = self.inventory.get((venue, a), 0.0) + taken[a]
        for a, value in paid.items():
            units = account["bor"][a] if value == owes[a] else value / marks[venue, a]
            account["bor"][a] -= units
            if hands_on:
                self.holes[venue, a] = self.holes.get((venue, a), 0.0) + units
                self.deficit[k] += value
            else:
                self.owed[venue, a] = self.owed.get((venue, a), 0.0) + units
        base = order[0]
        account["dep"][base] = account["dep"].get(base, 0.0) + excess / marks[venue, base]
        self.owed[venue, base] = self.owed.get((venue, base), 0.0) + excess / marks[venue, base]
        paid[base] += excess
        for c in held:
            for d, value in paid.items():
                lots = [lot for lot in self.stock + fresh if (lot["venue"], lot["c"], lot["d"]) == (venue, c, d)]
                lot = lots[0] if lots else {"venue": venue, "c": c, "d": d, "units": 0.0, "owed": 0.0, "opened": 0.0}
                if not lots:
                    lot |= {"tab": math.inf, "k": None}
                    fresh.append(lot)
                owed = value / marks[venue, d] * credit[c] / total
                lot["units"] += taken[c] * value / sum(paid.values())
                lot["owed"] += owed
                lot["opened"] += owed
        return True

    def open(self, k, share, marks, number, opened):
        account = self.accounts[k]
        venue, held, owes = account["venue"], self.collateral(k, marks), self.debts(k, marks)
        if not held or not owes:
            return False
        rule = self.rule[venue]
        units = {a: account["dep"][a] * share for a in held}
        debts = {a: account["bor"][a] * share for a in owes}
        for a in held:
            account["dep"][a] -= units[a]
            self.inventory[venue, a] = self.inventory.get((venue, a), 0.0) + units[a]
        for a in owes:
            account["bor"][a] -= debts[a]
            self.owed[venue, a] = self.owed.get((venue, a), 0.0) + debts[a]
        for c in held:
            for d in owes:
                owed = debts[d] * held[c] / sum(held.values())
                lot = {"venue": venue, "c": c, "d": d, "k": k, "owed": owed, "tried": [-1, -1]}
                lot |= {"units": units[c] * owes[d] / sum(owes.values()), "tab": owed * (1 + rule.price_rule.penalty)}
                lot["opened"] = lot["tab"]
                self.start(lot, marks, number)
                self.lots.append(lot)
                opened.append(lot)
        return True

    def start(self, lot, marks, number):
        auction = self.rule[lot["venue"]].inventory_rule.auction
        buffer = auction.buffer if auction.form == "dutch" else 1.0
        lot |= {"top": marks[lot["venue"], lot["c"]] * buffer, "start": number, "bid": None}

    def pay_starter(self, lot, marks):
        venue, d = lot["venue"], lot["d"]
        auction, mark = self.rule[venue].inventory_rule.auction, marks[venue, d]
        value = auction.tip + auction.chip * lot["tab"] * mark
        worth = min(lot["tab"] * mark, lot["units"] * marks[venue, lot["c"]])
        if auction.form == "dutch" and 0 < value <= worth:
            lot["owed"] += value / mark
            self.owed[venue, d] += value / mark
            cash = self.sell(self.base[venue, d], self.book[venue, d], value / mark)
            self._buy_in(venue, d, value / mark)
            self.liquidators += cash
            self.market_cash -= cash

    # selling

    def sell_lots(self, marks, number):
        anew = []
        for lot in self.lots:
            auction, age = self.rule[lot["venue"]].inventory_rule.auction, number - lot["start"]
            if auction.form == "english":
                if lot["bid"] is None and age >= auction.length:
                    lot["tried"] = [lot["tried"][1], lot["start"]]
                    self.start(lot, marks, number)
                continue
            lot["price"] = lot["top"] * self.fallen(auction, age)
            if age > auction.tail or lot["price"] < auction.cusp * lot["top"] * (1 - TINY):
                lot["tried"] = [lot["tried"][1], lot["start"]]
                self.start(lot, marks, number)
                lot["price"] = lot["top"]
                anew.append(lot)
            elif lot["price"] <= TINY * lot["top"] and age > 0:
                lot["tried"][1] = number
        for lot in anew:
            self.pay_starter(lot, marks)
        for_sale = self.offer_stock(marks)
        won = [lot for lot in self.lots if self.wins(lot, number)]
        acted = bool(won)
        for lot in won:
            self.swap(lot["venue"], lot["c"], lot["d"], lot["asked"], lot["bid"], won=True)
            self.settle(lot, lot["asked"], lot["bid"])
        for lot in for_sale + [lot for lot in self.lots if "price" in lot]:
            acted = self.take(lot, marks) or acted
        for lot in list(self.lots):
            if any(lot is one for one in won) or lot["units"] <= 0 or lot["tab"] <= TINY * lot["opened"]:
                acted = True
                self.accounts[lot["k"]]["dep"][lot["c"]] += lot["units"]
                self.inventory[lot["venue"], lot["c"]] -= lot["units"]
                if lot["owed"] > 0:
                    self.deficit[lot["k"]] += lot["owed"] * marks[lot["venue"], lot["d"]]
                    self.leave(lot)
                self.lots = [one for one in self.lots if one is not lot]
        for lot in self.stock:
            if lot["units"] <= 0 and lot["owed"] > TINY * lot["opened"]:
                self.leave(lot)
        return self.bid_all(number) or acted

    def leave(self, lot):
        """What a lot did not raise is a hole."""
        key = lot["venue"], lot["d"]
        self.owed[key] -= lot["owed"]
        self.holes[key] = self.holes.get(key, 0.0) + lot["owed"]
        lot["owed"] = 0.0

    @staticmethod
    def fallen(auction, age):
        if auction.decay == "linear":
            return max(1 - age / auction.length, 0.0)
        return auction.cut ** (age // auction.step if auction.decay == "stairs" else age / auction.step)

    def offer_stock(self, marks):
        found = []
        if any(lot["units"] > 0 for lot in self.stock):
            for venue, rule in self.rule.items():
                reserves = 0.0
                if "insurance_fund" in rule.layers:
                    kept = self.fund_asset[venue]
                    reserves += self.fund[venue] * (1.0 if kept is None else self.start_prices[kept])
                reserves += self.equity[venue] * ("equity" in rule.layers)
                for key, mark in marks.items():
                    if key[0] == venue:
                        debts = self.owed.get(key, 0.0) + self.short.get(key, 0.0) + self.holes.get(key, 0.0)
                        reserves += (self.fees.get(key, 0.0) - debts) * mark
                self.wanted[venue] = max(rule.inventory_rule.target_reserves - reserves, 0.0)
        for lot in self.stock:
            venue, c = lot["venue"], lot["c"]
            rule = self.rule[venue]
            held_back = "co_borrowers" in rule.layers and lot["owed"] > 0
            if lot["units"] > 0 and not held_back:
                listed, factor = self.market[venue, c]["liquidation_bonus"], rule.price_rule.factor
                factor = 1 / (1 + (0.0 if math.isnan(listed) else listed)) if factor is None else factor
                lot["price"] = marks[venue, c] * (1 - rule.inventory_rule.store_front * (1 - factor))
                if self.wanted[venue] > 0:
                    found.append(lot)
        return found

    def take(self, lot, marks):
        venue, c, d, price = lot["venue"], lot["c"], lot["d"], lot["price"]
        mark, paid, taken, due = marks[venue, d], 0.0, lot["units"], 0.0
        if taken <= 0:
            return False
        if price > 0:
            due = allowed = min(taken * price, lot["tab"] * mark, self.wanted[venue])
            if c != d:
                due = min(
                    due, self.worth_paying(venue, c, d, price, due, marks), self.affordable_value(venue, d, marks)
                )
            elif self.rule[venue].participation == "profitable" and price > marks[venue, c] * (1 + TINY):
                return False
            least = 1e-6 * lot["opened"] * max(mark, self.base[venue, d])
            if due <= TINY * lot["opened"] * mark or due < min(allowed, least):
                return False
            paid = lot["tab"] if due >= lot["tab"] * mark * (1 - TINY) else due / mark
            taken = taken if due >= taken * price * (1 - TINY) else due / price
        if not self.swap(venue, c, d, taken, paid):
            return False
        self.wanted[venue] -= due
        self.settle(lot, taken, paid)
        return True

    def settle(self, lot, taken, paid):
        venue = lot["venue"]
        settled = min(paid, lot["owed"])
        lot["owed"] -= settled
        lot["units"] -= taken
        lot["tab"] -= paid
        self.inventory[venue, lot["c"]] -= taken
        self.owed[venue, lot["d"]] = self.owed.get((venue, lot["d"]), 0.0) - settled
        self.fees[venue, lot["d"]] = self.fees.get((venue, lot["d"]), 0.0) + paid - settled

    def wins(self, lot, number):
        auction = self.rule[lot["venue"]].inventory_rule.auction
        if auction.form == "dutch" or lot["bid"] is None:
            return False
        return number - lot["bid_at"] >= auction.bid_length or number - lot["start"] >= auction.length

    def bid_all(self, number):
        acted = False
        money = {}
        for venue, rule in self.rule.items():
            if rule.inventory_rule.auction is not None:
                stakes = sum(lot.get("stake", 0.0) for lot in self.lots if lot["venue"] == venue)
                money[venue] = rule.inventory_rule.auction.bidders - stakes
        for lot in self.lots:
            venue, c, d = lot["venue"], lot["c"], lot["d"]
            rule = self.rule[venue].inventory_rule
            if rule.auction.form == "dutch":
                continue
            purse = money[venue] + lot.get("stake", 0.0)
            if c == d:
                offer = asked = min(lot["tab"], lot["units"])
                stake = 0.0
            else:
                worth = self.brings(venue, c, lot["units"]) - rule.gas
                if worth < 0:
                    continue
                base, book = self.base[venue, d], self.book[venue, d]
                whole = self.cost(base, book, lot["tab"])
                spent = min(worth, purse)
                if spent < whole * (1 - TINY):
                    offer, asked, stake = self.affordable(base, book, max(spent, 0.0)), lot["units"], max(spent, 0.0)
                elif worth <= whole * (1 + TINY):
                    offer, asked, stake = lot["tab"], lot["units"], whole
                else:
                    offer, asked, stake = lot["tab"], self.units_that_bring(venue, c, whole + rule.gas, lot), whole
            rise, last = 1 + rule.auction.increase, lot["bid"]
            if last is not None and last < lot["tab"]:
                if not ((offer >= rise * last * (1 - TINY) and offer > last) or offer == lot["tab"]):
                    continue
            elif last is not None and not (
                offer == lot["tab"] and asked * rise <= lot["asked"] * (1 + TINY) and asked < lot["asked"]
            ):
                continue
            money[venue] = purse - stake
            lot |= {"bid": offer, "asked": asked, "stake": stake, "bid_at": number}
            acted = True
        return acted

    def units_that_bring(self, venue, c, cash, lot):
        low, high = 0.0, lot["units"]
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if self.brings(venue, c, middle) < cash else (low, middle)
        return high

    # layers

    def waterfall(self, holes, marks):
        for venue in sorted({v for v, _ in holes}):
            rule = self.rule[venue]
            self.peak[venue] = max(self.peak[venue], self.fund[venue])
            self.cap = next((one.cap for one in rule.deficit_rule.layers if one.name == "insurance_fund"), math.inf)
            first = ("surplus",) if rule.inventory in ("protocol", "auction") else ()
            for layer in (*first, *rule.layers):
                for asset in sorted(a for v, a in holes if v == venue):
                    missing = holes[venue, asset]
                    if missing > 0:
                        self.now = marks
                        units = getattr(self, f"_{layer}")(venue, asset, missing)
                        holes[venue, asset] = max(missing - units, 0.0)
                        self.borne[venue][layer] += units * marks[venue, asset]
        for key, units in holes.items():
            self.short[key] = self.short.get(key, 0.0) + units
        for lot in self.stock:
            if "co_borrowers" in self.rule[lot["venue"]].layers:
                lot["owed"] = 0.0

    def _surplus(self, venue, asset, missing):
        units = min(self.fees.get((venue, asset), 0.0), missing)
        if units > 0:
            self.fees[venue, asset] -= units
        return max(units, 0.0)

    def _insurance_fund(self, venue, asset, missing):
        rule = next(one for one in self.rule[venue].deficit_rule.layers if one.name == "insurance_fund")
        stays, mark = (1 - rule.drawdown) * self.peak[venue], self.now[venue, asset]
        missing = min(missing, self.cap / mark) if mark > 0 else missing
        if self.fund[venue] - stays <= 0 or missing <= 0:
            return 0.0
        self.fund[venue] -= stays
        units = super()._insurance_fund(venue, asset, missing)
        self.fund[venue] += stays
        self.cap -= units * mark
        return units

    def _mint(self, venue, asset, missing):
        cash = self.cost(self.base[venue, asset], self.book[venue, asset], missing)
        self.minted[venue] += cash
        self.market_cash -= cash
        return self._purchase(venue, asset, missing, cash)

    def _frozen(self, venue, asset, missing):
        self.short[venue, asset] = self.short.get((venue, asset), 0.0) + missing
        return missing

    def _co_borrowers(self, venue, asset, missing):
        marks = self.now
        weight = {}
        for k, account in self.accounts.items():
            if account["venue"] == venue and account["bor"].get(asset, 0.0) > 0:
                held = account["dep"].items()
                weight[k] = sum(u * marks[venue, a] for a, u in held if self.lt(k, a) > 0)
        total = sum(weight.values())
        if total <= 0:
            return 0.0
        for k, share in weight.items():
            self.accounts[k]["bor"][asset] += missing * share / total
        lots = [lot for lot in self.stock if (lot["venue"], lot["d"]) == (venue, asset) and lot["owed"] > 0]
        lots = [lot for lot in lots if lot["units"] > 0]
        owed = sum(lot["owed"] for lot in lots)
        for lot in lots:
            c = lot["c"]
            takers = {k: w for k, w in weight.items() if self.accounts[k]["dep"].get(c, 0.0) > 0 and self.lt(k, c) > 0}
            if sum(takers.values()) > 0:
                units = lot["units"] * min(missing / owed, 1.0)
                for k, share in takers.items():
                    self.accounts[k]["dep"][c] += units * share / sum(takers.values())
                lot["units"] = lot["units"] - units if units < lot["units"] * (1 - TINY) else 0.0
                self.inventory[venue, c] -= units
        return missing

    def wealth(self):
        marks, found = self.marks(), super().wealth()
        for sign, table in ((1, self.inventory), (-1, self.owed)):
            for key, units in table.items():
                found[key[0]] += sign * units * marks[key]
        for venue, cash in self.minted.items():
            found[venue] -= cash
            found["market"] += cash
        return found


def compare(net, shock):
    run = nc.cascade(net, shock, channels=CHANNELS)
    run.check()
    twin = LendingTwin(net, shock)
    stuck, rounds = twin.run()
    marks, size = twin.marks(), max(abs(net.book.deposited * net.book.balance_mark).max(initial=0.0), 1.0)
    within = {"rel": 1e-8, "abs": 1e-8 * size}
    assert run.markets["mark"].to_dict() == pytest.approx(marks, rel=1e-8)
    assert run.accounts["deficit"].to_dict() == pytest.approx(twin.deficit, **within)
    columns = {"surplus": "surplus_used", "insurance_fund": "insurance_fund_used", "equity": "equity_used"}
    columns |= {"suppliers": "socialised", "mint": "minted", "co_borrowers": "handed_on", "frozen": "frozen"}
    for layer, column in columns.items():
        borne = {v: layers[layer] for v, layers in twin.borne.items()}
        assert run.exchanges[column].to_dict() == pytest.approx(borne, **within), column
    state, labels, assets = run._state, net.labels("accounts"), net.labels("assets")
    for e in range(len(state.entries)):
        account = twin.accounts[labels[state.entries.account[e]]]
        asset = assets[state.markets.asset[state.entries.market[e]]]
        mark = marks[account["venue"], asset]
        assert state.entries.deposited[e] * mark == pytest.approx(account["dep"].get(asset, 0.0) * mark, **within)
        assert state.entries.borrowed[e] * mark == pytest.approx(account["bor"].get(asset, 0.0) * mark, **within)
    before, after = opening_wealth(net), twin.wealth()
    found = dict(zip(net.labels("traders"), run.traders["loss"], strict=True))
    found |= dict(zip(net.labels("exchanges"), run.exchanges["loss"], strict=True))
    found |= {name: run.losses[name].sum() for name in ("liquidators", "market")}
    assert found == pytest.approx({name: before[name] - after[name] for name in before}, **within)
    assert set(run.accounts.index[run.accounts["liquidated"]]) == twin.liquidated
    assert (run.status is nc.Status.EXHAUSTED) == stuck
    assert len(run.rounds) == rounds
    return run


@pytest.mark.parametrize("block", some_and_slow(1, 10))
def test_engine_equals_its_twin(block, books):
    for seed in range(30 * block, 30 * block + 30):
        compare(market_of(seed, books), random_shock(seed))
