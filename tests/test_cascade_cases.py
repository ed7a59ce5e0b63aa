"""Worked cases of margin cascades, and limits in which a cascade is something known, through the public API."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
from test_failure_modes import PAIR, called, lend, liquidated, perpetuals, run

import netcontagion as nc
from netcontagion import clearing

REFERENCES = Path(__file__).parent / "references"
DELEVERAGING = ("adl_queue_vs_prorata", "bybit_adl_trigger")
CASES = json.loads((REFERENCES / "cascade.json").read_text(encoding="utf-8"))["cases"] + [
    case
    for case in json.loads((REFERENCES / "price_formation.json").read_text(encoding="utf-8"))["cases"]
    if case["name"] in DELEVERAGING
]


# adapters: inputs of a case to what the package says -----------------------------------------------------------------


def toxic_threshold(inputs):
    """The health above which a small repayment helps."""
    incentive = [min(1.15, 1 / (1 - 0.3 * (1 - lltv))) for lltv in inputs["lltv"]]
    pairs = zip(inputs["lltv"], incentive, strict=True)
    return {"incentive": incentive, "toxic_below": [turning_point(lltv, bonus - 1) for lltv, bonus in pairs]}


def turning_point(threshold, bonus):
    markets = {"ETH": {"liquidation_threshold": threshold, "liquidation_bonus": bonus}, "USD": {"close_factor": 0.01}}

    def gain(health):
        net = lend({"k@A": {"ETH": 100.0, "USD": -100 * threshold / health}}, prices=PAIR, markets=markets)
        return nc.cascade(net, nc.Shock(), max_rounds=1, strict=False).accounts.loc["k@A", "health"] - health

    return scipy.optimize.brentq(gain, 0.4, 0.999, xtol=1e-9)


def pro_rata_node(inputs):
    members = [f"m{i}" for i in range(len(inputs["gains"]))]
    net = nc.ExposureNetwork(
        traders={"trader": members},
        exchanges={"exchange": ["ccp"], "equity": [float(inputs["collected"])]},
        liabilities={"debtor": ["ccp"] * len(members), "creditor": members, "amount": inputs["gains"]},
    )
    worth = nc.clear(net).net_worth
    paid = [float(worth[m]) for m in members]
    return {"paid": paid, "haircut": 1 - sum(paid) / sum(inputs["gains"])}


def collateral_ring(inputs):
    names, found = ["a1", "a2", "a3"], set()
    owed = {"X": ("a3", "a1"), "Y": ("a1", "a2"), "Z": ("a2", "a3")}
    accounts = {
        f"{k}@V": {collateral: inputs["collateral"], debt: -inputs["debt"]} for k, (collateral, debt) in owed.items()
    }
    parameters = {a: {"liquidation_threshold": inputs["threshold"]} for a in names}
    net = lend(accounts, prices=dict.fromkeys(names, 1.0), depth=dict.fromkeys(names, inputs["depth"]),
               markets=parameters, rulebook="closeout")  # fmt: skip
    for priority in ("worst_first", "best_first", "random"):
        found.add(tuple(sorted(k[0] for k in liquidated(run(net, priority=priority, seed=1)))))
    (only,) = found
    return {"liquidated": list(only)}


def classes(inputs):
    first, second = inputs["classes"]
    size = 1 + len(first)
    owed = [np.zeros((size, size)) for _ in inputs["classes"]]
    for matrix, amounts in zip(owed, (first, second), strict=True):
        matrix[0, 1:] = amounts
    result = clearing.elsinger(owed, [inputs["available"], *[0.0] * len(first)])
    senior = clearing.elsinger(owed[:1], [inputs["available"], *[0.0] * len(first)])
    paid = np.asarray(senior.net_worth)[1:]
    return {
        "paid": [paid.tolist(), (np.asarray(result.net_worth)[1:] - paid).tolist()],
        "left": float(np.maximum(result.net_worth[0], 0.0)),
    }


def self_consistent_prices(inputs):
    count, shock = inputs["accounts"], nc.Shock.price({"ETH": inputs["shock_price"] - 1})
    accounts = {f"k{i}@A": {"ETH": 1.0, "USD": -0.8 * inputs["trigger"]} for i in range(count)}
    net = lend(accounts, prices=PAIR, depth={"ETH": 1 / inputs["impact_per_unit"]}, rulebook="closeout")
    everybody = [name.split("@")[0] for name in accounts]
    high, low = run(net, shock), run(net, shock + nc.Shock.default(*everybody))
    prices = [float(found.assets.loc["ETH", "price"]) for found in (high, low)]
    consistent = [int((net.replace(assets=net.assets.assign(price=[p, 1.0])).health() < 1).sum()) for p in prices]
    assert consistent == [len(liquidated(found)) for found in (high, low)]
    return {"high": prices[0], "low": prices[1], "liquidated": consistent}


def liquidation_price(inputs):
    net = lend({"k@A": {"ETH": inputs["units"], "USD": -inputs["debt"]}}, prices={"ETH": inputs["price"], "USD": 1.0},
               markets={"ETH": {"liquidation_threshold": inputs["threshold"]}})  # fmt: skip
    low, high = 0.0, inputs["price"]
    for _ in range(60):
        price = (low + high) / 2
        found = nc.cascade(net, nc.Shock.price({"ETH": price / inputs["price"] - 1}), channels=[])
        low, high = (price, high) if called(found) else (low, price)
    return {"price": high}


def ccp_waterfall(inputs):
    """The member's contract falls by more than its margin; deposits of the others are beyond all layers."""
    size, capacity = 100.0, [layer for _, layer in inputs["layers"]]
    margin, own, skin, others = capacity
    net = perpetuals({"d": (margin, size, 100.0), "s": (1e5, -size, 100.0)}, rulebook="ccp", skin=skin)
    net = net.replace(accounts=net.accounts.assign(default_fund=[own, others]))
    found = run(net, nc.Shock.price({"PERP": -inputs["loss"] / size / 100}))
    row = found.exchanges.loc["P"]
    used = [margin - found.accounts.loc["d", "equity"]]
    used += row[["defaulter_fund_used", "skin_used", "default_fund_used"]].tolist()
    assert used[0] + row["deficit"] == pytest.approx(inputs["loss"])
    return {"remaining": (inputs["loss"] - np.cumsum(used)).tolist(), "used": used}


RULES = """
name = "own"
[health]
test = "equity"
[amount]
rule = "whole_account"
[price]
rule = "bankruptcy"
[inventory]
route = "market"
participation = "always"
[deficit]
layers = ["insurance_fund", "auto_deleveraging", "equity", "default"]
"""


def deleveraged(accounts, rules, shock=None, **exchange):
    """Run an exchange that closes winners at the bankruptcy price by these rules."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "own.toml"
        path.write_text(RULES + rules, encoding="utf-8")
        return run(perpetuals(accounts, rulebook=str(path), **exchange), shock)


def adl(inputs):
    """Longs and shorts from 101 at the mark 100: one contract for each unit of loss or profit, named by the queue.

    Profits and losses of the five sum to -2.5: a long that winners cannot be closed against makes the rest, and the
    short opposite makes nothing.
    """
    pnl = np.array(inputs["pnl"], dtype=float)
    names = [f"t{inputs['queue_order'].index(place)}" for place in range(len(pnl))]
    accounts = {
        name: (float(cash), -gain, 101.0) for name, cash, gain in zip(names, inputs["cash"], pnl.tolist(), strict=True)
    }
    rest = -float(pnl.sum())
    accounts |= {"long": (1e3, rest, 99.0), "short": (1e3, -2 * rest, 100.0)}
    answer = {"capacity": pnl[pnl > 0].sum()}
    for rule, word in (("queue", "queue"), ("pro_rata", "prorata")):
        rules = f'[deficit.auto_deleveraging]\nallocation = "{rule}"\nseverity = {inputs["severity"]}'
        found = deleveraged(accounts, rules, equity=100.0)
        table = found.accounts.loc[names]
        equity = (table["equity"] - table["deficit"]).to_numpy()  # of losers: what they lack
        seized = inputs["cash"] + pnl - equity
        answer |= {f"{word}_seized": seized, f"{word}_equity": equity}
        answer[f"{word}_haircut"] = seized / np.where(pnl > 0, pnl, 1.0)
        answer["deficit"], answer["budget"] = found.exchanges.loc["P", ["deficit", "auto_deleveraging_used"]]
    shares = answer["prorata_haircut"][pnl > 0]
    np.testing.assert_allclose(shares, shares[0], rtol=1e-12)
    return answer | {"prorata_haircut": shares[0]}


def adl_pool_trigger(inputs):
    """A long of 10,000 from 100 loses its margin of 100,000 and the loss of the case; the fund may fall by 30 %."""
    size, margin = 1e4, 1e5
    rules = f"[deficit.insurance_fund]\ndrawdown = {-inputs['insurance_pnl_ratio']}"
    fall = nc.Shock.price({"PERP": -(margin + inputs["symbol_loss"]) / size / 100})
    accounts = {"long": (margin, size, 100.0), "short": (margin, -size, 100.0)}
    found = deleveraged(accounts, rules, fall, insurance_fund=float(inputs["balance"]))
    row = found.exchanges.loc["P"]
    assert row["deficit"] == pytest.approx(row["insurance_fund_used"] + row["auto_deleveraging_used"])
    return {
        "pnl_ratio": -row["deficit"] / inputs["pool_max_balance"],
        "adl_triggered": bool((found.events["type"] == "auto_deleveraging").any()),
        "borne_by_users": row["auto_deleveraging_used"],
    }


ADAPTERS = {
    adapter.__name__: adapter
    for adapter in (
        toxic_threshold,
        pro_rata_node,
        collateral_ring,
        classes,
        self_consistent_prices,
        liquidation_price,
        ccp_waterfall,
        adl,
        adl_pool_trigger,
    )
}


def differs(case, found):
    """Names of the expected numbers that are not met."""
    assert found.keys() == case["expected"].keys()
    wrong = []
    for name, expected in case["expected"].items():
        ours = found[name]
        if expected and isinstance(expected, list) and isinstance(expected[0], str):
            same = ours == expected
        else:
            same = np.allclose(
                np.asarray(ours, float), np.asarray(expected, float), rtol=0, atol=case["tolerance"]["abs"]
            )
        if not same:
            wrong.append(name)
    return wrong


def changed(expected, factor):
    if isinstance(expected, list):
        return [changed(value, factor) for value in expected]
    return expected + "?" if isinstance(expected, str) else expected * factor


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_case(case):
    found = ADAPTERS[case["model"]](case["inputs"])
    assert differs(case, found) == []
    for factor in (0.98, 1.02):  # a comparison is only useful if it can fail
        for name, value in case["expected"].items():
            if value != 0:
                other = {**case, "expected": {**case["expected"], name: changed(value, factor)}}
                assert differs(other, found) == [name]


# order independence ---------------------------------------------------------------------------------------------------


def differing(books, seed, size=60):
    """Random books whose liquidated set hangs on the order: price triggers, full close-out, exponential impact."""
    rng, count = np.random.default_rng(seed), 0
    for _ in range(books):
        units = rng.lognormal(0, 1, size)
        accounts = {
            f"k{i}@A": {"ETH": q, "USD": -0.8 * q * trigger}
            for i, (q, trigger) in enumerate(zip(units.tolist(), rng.uniform(0.6, 0.97, size).tolist(), strict=True))
        }
        net = lend(accounts, prices=PAIR, depth={"ETH": units.sum() * rng.uniform(0.8, 5)}, rulebook="closeout")
        shock = nc.Shock.price({"ETH": -rng.uniform(0.03, 0.15)})
        sets = [liquidated(nc.cascade(net, shock, priority=p, seed=3)) for p in ("worst_first", "best_first", "random")]
        count += sets[0] != sets[1] or sets[0] != sets[2]
    return count


def test_order_does_not_decide_who_is_liquidated():
    assert differing(10, 5) == 0


@pytest.mark.slow
def test_order_does_not_decide_who_is_liquidated_in_many_books():
    """0 of 400 random books differ; these are 150 others."""
    assert differing(150, 17) == 0


# limits, I11 ----------------------------------------------------------------------------------------------------------


def test_the_clearing_step_is_eisenberg_noe_on_the_same_obligations():
    """After close-outs, payments are those of ``eisenberg_noe(which="greatest")`` on what everybody has left."""
    rng = np.random.default_rng(3)
    defaults = 0
    for _ in range(20):
        names = [f"t{i}" for i in range(6)]
        accounts = {f"{t}@A": {"ETH": 100.0, "USD": -float(rng.uniform(60, 79))} for t in names}
        owed = rng.exponential(30, (6, 6)) * (rng.random((6, 6)) < 0.4)
        np.fill_diagonal(owed, 0.0)
        i, j = np.nonzero(owed)
        net = lend(
            accounts, prices=PAIR, depth={"ETH": 4_000.0}, rulebook="closeout",
            traders={"trader": names, "external_assets": rng.exponential(15, 6)}, exchanges={"A": {"equity": 1e6}},
            liabilities={"debtor": [names[k] for k in i], "creditor": [names[k] for k in j], "amount": owed[i, j]},
        )  # fmt: skip
        found = run(net, nc.Shock.price({"ETH": -float(rng.uniform(0.05, 0.4))}))
        left = found.traders["wealth_before"] - found.traders["loss"] + found.traders["loss_counterparty"]
        alone = clearing.eisenberg_noe(owed, left[names], which="greatest")
        ours = found.clearing.payments.loc[names]
        np.testing.assert_allclose(ours, alone.payments, rtol=1e-9, atol=1e-9)
        defaults += int(alone.defaulted.sum())
    assert defaults > 10


def test_an_unlimited_fund_leaves_contagion_through_the_price_only():
    """One exchange, a fund without limit: with prices fixed, nobody pays for anybody else."""
    rng = np.random.default_rng(8)
    accounts = {f"t{i}@A": {"ETH": 100.0, "USD": -float(rng.uniform(15, 79))} for i in range(12)}
    accounts |= {"s@A": {"USD": 2_000.0}}
    for limit, shared in ((1e15, 0.0), (0.0, 1.0)):
        net = lend(accounts, prices=PAIR, depth={"ETH": 3_000.0}, rulebook="closeout",
                   exchanges={"A": {"insurance_fund": limit}})  # fmt: skip
        fall = nc.Shock.price({"ETH": -0.5})
        fixed, moving = run(net, fall, channels={"liquidation"}), run(net, fall)
        assert fixed.exchanges.loc["A", "deficit"] > 0
        assert (abs(fixed.losses.loc["mutualisation"]).drop("A").sum() > 0) == bool(shared)
        stays = ~fixed.accounts["liquidated"] & ~fixed.accounts.index.str.startswith("others@")
        loss = fixed.accounts.loc[stays, "loss"].drop("s@A")
        assert len(loss) > 2
        assert loss.tolist() == pytest.approx([50.0] * len(loss))  # the shock, and nothing of the others
        assert len(liquidated(moving)) > len(liquidated(fixed))
        assert moving.losses.loc["counterparty"].abs().sum() == 0.0


def test_without_obligations_a_cascade_is_a_fire_sale():
    """No clearing; prices and the liquidated set are the least fixed point of selling everything below health 1."""
    rng = np.random.default_rng(2)
    units, trigger = rng.lognormal(2, 0.7, 30), rng.uniform(0.6, 0.95, 30)
    depth = 4 * float(units.sum())
    accounts = {
        f"k{i}@A": {"ETH": float(q), "USD": -0.8 * float(q * t)}
        for i, (q, t) in enumerate(zip(units, trigger, strict=True))
    }
    found = run(lend(accounts, prices=PAIR, depth={"ETH": depth}, rulebook="closeout"), nc.Shock.price({"ETH": -0.1}))
    sold = np.zeros(30, dtype=bool)
    while True:
        price = 0.9 * math.exp(-units[sold].sum() / depth)
        if (sold == (trigger > price)).all():
            break
        sold = trigger > price
    assert found.clearing is None
    assert liquidated(found) == {f"k{i}@A" for i in np.flatnonzero(sold)}
    assert 0 < sold.sum() < 30
    assert len(found.rounds) > 3
    assert found.assets.loc["ETH", "price"] == pytest.approx(price, rel=1e-12)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("accounts", [60, 3000])
def test_figures_and_loss_are_those_of_the_tables(accounts, seed):
    net = nc.generators.market(accounts, exchanges=3, seed=seed)
    run = nc.cascade(net, nc.Shock.price({"ETH": -0.35}, family=True))
    exchanges, figures = run.exchanges, run.figures
    assert figures["called"] == run.accounts["called"].sum() > 0
    assert figures["liquidated"] == run.accounts["liquidated"].sum() > 0
    assert figures["rounds"] == len(run.rounds)
    assert figures["sold"] == pytest.approx(run.rounds["sold"].sum(), rel=1e-12)
    for name, column in (("bad_debt", "deficit"), ("equity_used", "equity_used"), ("socialised", "socialised")):
        assert figures[name] == pytest.approx(exchanges[column].sum(), rel=1e-12)
    both = run.loss.sum(axis=1)
    for table in (run.traders, exchanges):
        np.testing.assert_allclose(both[table.index], table["loss"], rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(run.loss["direct"][run.traders.index], run.traders["loss_shock"], rtol=1e-12)
    assert not run.defaulted.any()
