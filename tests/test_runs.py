"""Runs on exchanges: traders who withdraw when what an exchange has falls short of what it owes."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from seeds import some_and_slow
from test_policies import own_policy

import netcontagion as nc
from netcontagion.errors import ContagionError
from netcontagion.margining._runs import Runs
from netcontagion.network import policy

HALF = nc.Shock.price({"ETH": -0.5})
CLOSEOUT = """
name = "own"
date = "undated"
source = "Whole accounts are sold on the market."
[health]
test = "weighted_collateral"
[amount]
rule = "whole_account"
[price]
rule = "execution"
[inventory]
route = "market"
participation = "always"
[deficit]
layers = {layers}
"""


@pytest.fixture
def files(tmp_path):
    """Makes a rulebook from its layers, or a policy from the keys of its table ``run``."""

    def make(layers=None, **run):
        if layers is None:
            text = "[run]\n" + "\n".join(f"{name} = {value}" for name, value in run.items())
            return own_policy(tmp_path, text, f"p{abs(hash(text))}")
        return own_policy(tmp_path, CLOSEOUT.format(layers=str(layers).replace("'", '"')), "_".join(layers))

    return make


def market(rules, runs, *, debts=(75.0,), more=(), **exchanges):
    """Borrowers b0.. owe USD at A against 100 ETH each; traders (policy, units of USD) r0.. supply A, and the first B.

    With ETH at 0.5 a debt of 75 leaves 25 unpaid; ``more`` are rows of balances of accounts named after their traders.
    """
    rows = [(f"b{k}", asset, *units) for k, debt in enumerate(debts) for asset, units in owed(debt)]
    rows += [(f"r{k}", "USD", units, 0.0) for k, (_, units) in enumerate(runs)]
    rows += [*more, ("other", "USD", 50.0, 0.0)]
    account, asset, deposited, borrowed = zip(*rows, strict=True)
    names = [*dict.fromkeys(account)]
    owner = {name: name for name in names} | {"other": "r0"}
    kept = dict(zip((f"r{k}" for k in range(len(runs))), (one for one, _ in runs), strict=True))
    traders = [name for name in names if name != "other"]
    return nc.ExposureNetwork(
        traders={"trader": traders, "policy": [kept.get(name, "passive") for name in traders]},
        assets={"asset": ["ETH", "USD"], "price": [1.0, 1.0], "depth": [math.inf] * 2},
        exchanges={"exchange": ["A", "B"], "rulebook": [rules] * 2, **exchanges},
        markets={"exchange": [*"AABB"], "asset": ["ETH", "USD"] * 2, "liquidation_threshold": [0.8, 0.0] * 2},
        accounts={
            "account": names,
            "trader": [owner[name] for name in names],
            "exchange": ["B" if name == "other" else "A" for name in names],
        },
        balances={"account": account, "asset": asset, "deposited": deposited, "borrowed": borrowed},
    )


def owed(debt):
    return (("ETH", (100.0, 0.0)), ("USD", (0.0, debt)))


def run(net, shock=HALF, **options):
    found = nc.cascade(net, shock, **options)
    found.check()
    return found


def withdrawn(found, account):
    """Units that an account withdrew, by round."""
    rows = found.events[(found.events["type"] == "run") & (found.events["account"] == account)]
    return rows.groupby("round")["quantity"].sum()


# closed form ---------------------------------------------------------------------------------------------------------


def test_a_run_on_one_of_two_exchanges(files):
    """Round 0: b's debt of 75 is backed by 50, c = 175 / 200, and r leaves with 2 x 25 / 200 of 100; then likewise."""
    found = run(market(files(["frozen"]), [(files(w1=2.0), 100.0), ("passive", 100.0)]))
    left, has, owes, expected = 100.0, 175.0, 200.0, []
    while (out := 2.0 * (1.0 - has / owes) * left) > 1e-4:
        expected.append(out)
        left, has, owes = left - out, has - out, owes - out
    assert expected[:2] == pytest.approx([25.0, 75.0 * 2.0 * 25.0 / 175.0])
    assert withdrawn(found, "r0").tolist() == pytest.approx(expected, rel=1e-12)
    assert withdrawn(found, "other").empty
    assert found._state.wallets.units.sum() == pytest.approx(sum(expected))
    assert found.traders.loc["r0", "loss"] == pytest.approx(0.0, abs=1e-12)
    parents = found.events.loc[found.events.loc[found.events["type"] == "run", "parent"], "type"]
    assert [*parents[:2]] == ["shock", "deficit"]


def test_coverage_counts_fund_equity_and_open_losses(files):
    """A fund of 30 and equity of 20 on deposits of 200, less the open loss of 25: c = 1.125, and 1.2 frightens."""
    net = market(
        files(["insurance_fund", "equity", "suppliers"]),
        [(files(w1=4.0, coverage=1.2), 100.0), ("passive", 100.0)],
        insurance_fund=[30.0, 1e3],
        equity=[20.0, 0.0],
    )
    assert withdrawn(run(net), "r0")[0] == pytest.approx(4.0 * 0.075 * 100.0)


def test_shared_losses_frighten_who_bore_them(files):
    """Suppliers lose 25 of 200: c = 175 / 200 though all that is left is covered, later 25 / (153.125 + 25) below 1."""
    found = run(market(files(["suppliers"]), [(files(w1=2.0, lag=1), 100.0), ("passive", 100.0)]))
    shares = 25.0 / np.array([200.0, 200.0, 178.125])
    expected = 2.0 * shares * 87.5 * np.cumprod([1.0, 0.75, 0.75])
    assert withdrawn(found, "r0").iloc[:3].tolist() == pytest.approx(expected.tolist())


def test_news_comes_late(files):
    found = run(market(files(["frozen"]), [(files(w1=2.0, lag=3), 100.0), ("passive", 100.0)]))
    assert withdrawn(found, "r0").head(2).to_dict() == {3: pytest.approx(25.0), 4: pytest.approx(0.25 * 75.0)}


def test_a_base_intensity_needs_no_fright(files):
    found = run(market(files(["frozen"]), [(files(w0=0.5), 100.0), ("passive", 100.0)]), nc.Shock())
    assert withdrawn(found, "r0").iloc[:3].tolist() == pytest.approx([50.0, 25.0, 12.5])
    assert withdrawn(found, "other").iloc[:2].tolist() == pytest.approx([25.0, 12.5])


def test_collateral_stays_at_the_withdrawal_health(files):
    """r0 owes 40 USD against 100 ETH: at 0.5, 40 / 40 is too little; against 200, 80 - 1.25 x 40 = 30 are free."""
    for units, free in ((100.0, 0.0), (200.0, 30.0 / 0.4)):
        more = [("r0", "ETH", units, 0.0)]
        net = market(files(["frozen"]), [(files(w0=1.0), 0.0)], debts=(), more=[*more, ("s", "USD", 100.0, 0.0)])
        net = net.replace(
            balances={
                "account": ["r0", "r0", "s", "other"],
                "asset": ["ETH", "USD", "USD", "USD"],
                "deposited": [units, 0.0, 100.0, 50.0],
                "borrowed": [0.0, 40.0, 0.0, 0.0],
            }
        )
        assert withdrawn(run(net), "r0").sum() == pytest.approx(free)


# what exchanges can pay ----------------------------------------------------------------------------------------------


def test_who_asks_at_once_is_paid_in_proportion(files):
    """Of 100 supplied 75 are lent: 25 are at hand, asked for by deposits of 20 and 60 with intensity 1."""
    policy = files(w0=1.0)
    found = run(market(files(["frozen"]), [(policy, 20.0), (policy, 60.0), ("passive", 20.0)]), nc.Shock())
    paid = [withdrawn(found, name) for name in ("r0", "r1")]
    assert [one[0] for one in paid] == pytest.approx([25.0 / 4, 75.0 / 4])
    assert [len(one) for one in paid] == [1, 1]


def test_a_cap_is_shared_by_who_asks_at_once_and_first_come_first_served_between_rounds(files):
    """Round 0: 30 and 10 asked for against a cap of 16; what is not paid waits, ahead of what comes later."""
    one, other, late = files(w0=0.3), files(w0=0.1), files(w1=2.0, lag=2)
    net = market(
        files(["frozen"]),
        [(one, 100.0), (other, 100.0), (late, 100.0), ("passive", 100.0)],
        withdraw_cap=[16.0, math.nan],
    )
    first = run(net, max_rounds=1, strict=False)
    wallets = first._state.wallets
    paid = pd.Series(wallets.units, index=first.network.labels("traders")[wallets.trader])
    paid = paid[paid > 0].groupby(level=0).sum()
    assert paid.to_dict() == {"r0": pytest.approx(12.0 + 0.3 * 50.0), "r1": pytest.approx(4.0)}
    assert first._state.transit[2].sum() == pytest.approx(24.0)
    longer = run(net, max_rounds=3, strict=False)._state
    trader, _, units = longer.transit
    waiting = pd.Series(units, index=longer.net.labels("traders")[trader]).groupby(level=0).sum()
    assert waiting["r2"] == pytest.approx(withdrawn(run(net, max_rounds=3, strict=False), "r2").sum())


def test_closed_and_silent_exchanges_pay_nothing(files):
    rules, runs = files(["frozen"]), [(files(w1=2.0), 100.0), ("passive", 100.0)]
    closed = run(market(rules, runs, withdraw_status=["closed", "open"]))
    out = run(market(rules, runs), HALF + nc.Shock.outage("A"))
    for found in (closed, out):
        assert not (found.events["type"] == "run").any()


def second_fall(files, w1, rules=("insurance_fund", "withdrawal_haircut")):
    """A fund of 26 bears the first loss of 25; reserves of 1 on 200 frighten; the next loss closes the exchange."""
    net = market(
        files(list(rules)),
        [(files(w1=w1, coverage=1.1), 100.0), ("passive", 100.0)],
        debts=(75.0, 30.0),
        insurance_fund=[26.0, 1e3],
    )
    return run(net, nc.Shock.path([HALF, nc.Shock.price({"ETH": -0.8})], every=2))


def test_who_ran_in_time_is_paid_in_full_and_the_rest_in_proportion(files):
    """Then the exchange lacks 19 of the second debt, 10 of 30 being paid: who stayed bears it, deposit by deposit."""
    found = second_fall(files, 2.0)
    left = [100.0 - withdrawn(found, "r0").sum(), 100.0]
    assert withdrawn(found, "r0").index.tolist() == [0, 1, 2]
    lost = found.traders.loc[["r0", "r1"], "loss"]
    assert lost.tolist() == pytest.approx((19.0 * np.array(left) / sum(left)).tolist())


def test_laws_of_runs(files):
    """A faster run makes no money: it takes from who stays what it saves; all losses together stay the same."""
    w1 = [0.0, 0.5, 1.0, 2.0, 4.0, 8.0]
    runs = [second_fall(files, one) for one in w1]
    mine, theirs = (np.array([one.traders.loc[name, "loss"] for one in runs]) for name in ("r0", "r1"))
    out = np.array([withdrawn(one, "r0").sum() for one in runs])
    assert (np.diff(out) > 0).all()
    assert (np.diff(mine) < 0).all()
    assert (np.diff(theirs) > 0).all()
    assert mine + theirs == pytest.approx(19.0)
    total = [one.losses.to_numpy().sum() for one in runs]
    assert total == pytest.approx([total[0]] * len(runs), rel=1e-12)


def test_neither_names_nor_sizes_matter(files):
    """Runners who swap names swap what they get, under a cap too; thrice the units and the cap bring thrice as much."""
    pair = [(files(w1=1.0), 100.0), (files(w0=0.2, w1=3.0), 60.0)]
    caps = {"withdraw_cap": [9.0, math.nan]}
    one, other = (run(market(files(["frozen"]), [*order, ("passive", 90.0)], **caps)) for order in (pair, pair[::-1]))
    for name, twin in (("r0", "r1"), ("r1", "r0")):
        pd.testing.assert_series_equal(withdrawn(one, name), withdrawn(other, twin), rtol=1e-12)
    net = one.network
    units = net.balances * 3.0
    large = run(net.replace(balances=units, exchanges=net.exchanges.assign(withdraw_cap=[27.0, math.nan])))
    for name in ("r0", "r1"):
        pd.testing.assert_series_equal(withdrawn(large, name), 3.0 * withdrawn(one, name), rtol=1e-9)
    wallets = [found._state.wallets.units.sum() for found in (one, large)]
    assert wallets[1] == pytest.approx(3.0 * wallets[0])


def test_news_is_on_its_way_until_everybody_who_may_run_has_heard_it():
    """One learns at once, the other after two rounds; in rounds that are not played nothing new is to be heard."""
    runs = Runs.__new__(Runs)
    runs.lag, runs.venue, runs.known, runs.heard = np.array([0, 2]), np.array([0, 1]), np.full((3, 2), np.inf), -1
    told = []
    for number, coverage in (
        (0, 0.9),
        (1, 0.9),
        (2, 0.9),
        (3, 0.9),
        (4, 0.8),
        (10, 0.8),
        (20, 0.7),
        (21, 0.7),
        (22, 0.7),
    ):
        runs._learn(np.array([1.0, coverage]), number)
        told.append((float(runs.known[2, 1]), runs.pending()))
    heard = [np.inf, np.inf, 0.9, 0.9, 0.9, 0.8, 0.8, 0.8, 0.7]
    assert told == list(zip(heard, [True, True, False, False, True, False, True, True, False], strict=True))


# plain twin ----------------------------------------------------------------------------------------------------------


def plain_run(deposits, rules, debt, size=400):
    """Round by round with loops: what each supplier takes out of A, which has lent a debt, 25 of it for nothing."""
    deposits, taken, at_hand = list(deposits), [0.0] * len(deposits), sum(deposits) - debt
    lost, most, news = 25.0, list(deposits), []
    for number in range(size):
        total = sum(deposits)
        news.append((total - lost) / total if total else math.inf)
        if number == 1:
            at_hand += debt - lost  # the collateral was sold, the debt repaid as far as that goes
        asks = []
        for held, rule in zip(deposits, rules, strict=True):
            heard = number - rule["lag"]
            gap = rule["coverage"] - news[heard] if heard >= 0 else 0.0
            asks.append(held * min(1.0, rule["w0"] + rule["w1"] * (gap if gap > 1e-9 else 0.0)))
        share = min(1.0, at_hand / sum(asks)) if sum(asks) else 0.0
        for k, ask in enumerate(asks):
            if share * ask > 1e-6 * most[k]:
                taken[k] += share * ask
                deposits[k] -= share * ask
                at_hand -= share * ask
    return taken


@pytest.mark.parametrize("seed", some_and_slow(3, 8))
def test_runs_agree_with_the_plain_twin(files, seed):
    rng = np.random.default_rng([seed, 4])
    rules = [
        {
            "w0": round(float(rng.choice([0.0, 0.0, 0.05])), 3),
            "w1": round(float(rng.uniform(0, 6)), 3),
            "coverage": round(float(rng.choice([0.9, 1.0, 1.0])), 3),
            "lag": int(rng.integers(0, 4)),
        }
        for _ in range(4)
    ]
    deposits = rng.uniform(10.0, 80.0, 5)
    deposits[4] += max(76.0 - deposits.sum(), 0.0)
    traders = [(files(**rule), held) for rule, held in zip(rules, deposits[:4], strict=True)]
    found = run(market(files(["frozen"]), [*traders, ("passive", deposits[4])]))
    calm = {"w0": 0.0, "w1": 0.0, "coverage": 1.0, "lag": 0}
    taken = plain_run(deposits, [*rules, calm], 75.0)
    assert [withdrawn(found, f"r{k}").sum() for k in range(5)] == pytest.approx(taken, rel=1e-9)


def test_what_a_run_costs_is_attributed_to_withdrawals(files):
    """With one account each, too: who ran would lose half of 19, as in ``second_fall``."""
    net = market(
        files(["insurance_fund", "withdrawal_haircut"]),
        [(files(w1=2.0, coverage=1.1), 100.0), ("passive", 100.0)],
        debts=(75.0, 30.0),
        insurance_fund=[26.0, 1e3],
    )
    tables = {name: getattr(net, name) for name in ("accounts", "balances")}
    net = net.replace(accounts=tables["accounts"].drop("other"), balances=tables["balances"].drop("other", level=0))
    shock = nc.Shock.path([HALF, nc.Shock.price({"ETH": -0.8})], every=2)
    shares = nc.margining.shapley(net, shock, by="node", progress=False, channels=("withdrawal", "liquidation"))
    ran = nc.cascade(net, shock, channels=("withdrawal", "liquidation")).traders["loss"]
    stayed = nc.cascade(net, shock, channels=("liquidation",)).traders["loss"]
    still = nc.cascade(net, shock, channels=()).traders["loss"]
    alone = nc.cascade(net, shock, channels=("withdrawal",)).traders["loss"]
    expected = 0.5 * (ran["r0"] - stayed["r0"] + alone["r0"] - still["r0"])
    assert expected < -1.0
    assert shares.loc["withdrawal", "r0"] == pytest.approx(expected)


# by default ----------------------------------------------------------------------------------------------------------


def test_nobody_runs_by_default_nor_without_the_channel(files):
    assert not policy("default").runs
    assert policy("runner").runs
    net = market(files(["frozen"]), [("runner", 100.0), ("passive", 100.0)])
    assert (run(net).events["type"] == "run").any()
    assert not (run(net, channels=("liquidation", "impact")).events["type"] == "run").any()
    calm = market(files(["frozen"]), [("default", 100.0), ("passive", 100.0)])
    assert not (run(calm).events["type"] == "run").any()
    assert run(net, nc.Shock()).events["type"].tolist() == ["shock"]


def test_an_equilibrium_has_no_runs(files):
    net = market(files(["suppliers"]), [("runner", 100.0), ("passive", 100.0)])
    with pytest.raises(ContagionError, match="withdraws from round to round"):
        nc.cascade(net, HALF, mode="equilibrium")
