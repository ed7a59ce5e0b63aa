"""nc.clear: banks, traders x exchanges and their identity, recourse, losses, labels; clearing inside a cascade."""

from __future__ import annotations

import numpy as np
import pytest
from seeds import some_and_slow

import netcontagion as nc
from netcontagion import builders
from netcontagion.clearing import eisenberg_noe

NAN = np.nan


def random_banks(seed):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(2, 12))
    owed = rng.exponential(10, (size, size)) * (rng.random((size, size)) < 0.4)
    np.fill_diagonal(owed, 0.0)
    owed[0, 1] += 1.0
    return owed, rng.exponential(10, size), rng.exponential(4, size) * rng.integers(0, 2, size)


def banks(owed, assets, outside):
    names = [f"b{i:02d}" for i in range(len(assets))]
    rows, columns = np.nonzero(owed)
    return nc.ExposureNetwork(
        traders={"trader": names, "external_assets": assets, "external_liabilities": outside},
        liabilities={"debtor": [names[i] for i in rows], "creditor": [names[j] for j in columns],
                     "amount": owed[rows, columns]},
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("rank", ["pari_passu", "senior"])
def test_a_network_of_banks_is_eisenberg_noe(seed, rank):
    owed, assets, outside = random_banks(seed)
    ours = nc.clear(banks(owed, assets, outside), external_rank=rank)
    theirs = eisenberg_noe(owed, assets, outside, external_rank=rank)
    ours.check()
    np.testing.assert_allclose(ours.payments, theirs.payments, rtol=1e-12)
    np.testing.assert_allclose(ours.net_worth, theirs.net_worth, rtol=1e-9, atol=1e-9)
    assert list(ours.payments.index) == [f"b{i:02d}" for i in range(len(assets))]


def random_book(seed, *, recourse=False, liabilities=False):
    """Lending and contracts on several exchanges, some accounts far under water."""
    rng = np.random.default_rng(seed)
    venues, assets = [f"v{i}" for i in range(rng.integers(1, 4))], ["ETH", "USD"]
    accounts = [(f"k{i}", f"t{rng.integers(0, 5)}", str(rng.choice(venues))) for i in range(rng.integers(2, 15))]
    balances = [(k, a, rng.exponential(10), rng.exponential(10) * rng.integers(0, 2))
                for k, _, _ in accounts for a in assets]  # fmt: skip
    holders = rng.choice([k for k, _, _ in accounts], rng.integers(1, len(accounts) + 1), replace=False)
    tables = {
        "assets": {"asset": [*assets, "PERP"], "price": [2.0, 1.0, 2.0], "kind": ["token", "token", "linear"],
                   "underlying": [None, None, "ETH"]},
        "exchanges": {"exchange": venues, "rulebook": ["lending"] * len(venues),
                      "insurance_fund": rng.exponential(1, len(venues)), "equity": rng.exponential(1, len(venues)),
                      "insurance_asset": [str(a) for a in rng.choice(assets, len(venues))],
                      "recourse": [bool(recourse)] * len(venues)},
        "accounts": {"account": [a[0] for a in accounts], "trader": [a[1] for a in accounts],
                     "exchange": [a[2] for a in accounts]},
        "markets": {"exchange": np.repeat(venues, 3).tolist(), "asset": [*assets, "PERP"] * len(venues),
                    "liquidation_threshold": [0.8, 0.8, NAN] * len(venues),
                    "liquidation_bonus": [0.05, 0.05, NAN] * len(venues),
                    "close_factor": [0.5, 0.5, NAN] * len(venues),
                    "maintenance_margin": [NAN, NAN, 0.05] * len(venues)},
        "balances": {"account": [b[0] for b in balances], "asset": [b[1] for b in balances],
                     "deposited": [b[2] for b in balances], "borrowed": [b[3] for b in balances]},
        "positions": {"account": holders.tolist(), "asset": ["PERP"] * len(holders),
                      "quantity": rng.normal(0, 5, len(holders)), "entry_price": rng.uniform(1, 3, len(holders))},
    }  # fmt: skip
    if liabilities:
        names = sorted({a[1] for a in accounts})
        pairs = [(i, j) for i in names for j in names if i != j and rng.random() < 0.4]
        if pairs:
            tables["liabilities"] = {"debtor": [p[0] for p in pairs], "creditor": [p[1] for p in pairs],
                                     "amount": rng.exponential(20, len(pairs))}  # fmt: skip
    return nc.ExposureNetwork(**tables)


@pytest.mark.parametrize("seed", range(40))
def test_exchange_is_short_by_its_deficits_less_fund_and_equity(seed):
    """MODELS 21: dues - resources = sum of max(0, -E_k) - fund - equity, to 1e-12."""
    net = random_book(seed)
    shock = nc.Shock.price({"ETH": -0.3}, family=True)
    result = nc.clear(net, shock)
    result.check()
    price = np.array([{"ETH": 1.4, "USD": 1.0, "PERP": 1.4}[asset] for asset in net.labels("assets")])
    equity = np.zeros(len(net.labels("accounts")))
    table, position = net.columns("balances"), net.columns("positions")
    np.add.at(equity, table["account"], (table["deposited"] - table["borrowed"]) * price[table["asset"]])
    gain = position["quantity"] * (price[position["asset"]] - position["entry_price"])
    np.add.at(equity, position["account"], gain)
    exchange = net.columns("exchanges")
    buffers = exchange["insurance_fund"] * price[exchange["insurance_asset"]] + exchange["equity"]
    holes = np.bincount(net.columns("accounts")["exchange"], np.maximum(-equity, 0.0), len(buffers))
    place = slice(len(net.labels("traders")), None)
    short = (result.values.dues - result.values.external_assets)[place]
    np.testing.assert_allclose(short, holes - buffers, rtol=1e-12, atol=1e-12 * np.abs(equity).sum())
    np.testing.assert_allclose(result.values.shortfall[place], np.maximum(holes - buffers, 0.0), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("seed", range(10))
def test_recourse_lets_the_trader_owe_the_hole(seed):
    net, plain = random_book(seed, recourse=True), random_book(seed)
    shock = nc.Shock.price({"ETH": -0.6}, family=True)
    with_recourse, without = nc.clear(net, shock), nc.clear(plain, shock)
    with_recourse.check()
    equity = net.book.equity(shock.price_factors(net)[net.book.market_asset])
    owner = net.columns("accounts")["trader"]
    holes = np.bincount(owner, np.maximum(-equity, 0.0), len(net.labels("traders")))
    dues = with_recourse.values.dues[: len(holes)]
    np.testing.assert_allclose(dues, holes, rtol=1e-12, atol=1e-12)
    assert (without.values.dues[: len(holes)] == 0).all()
    exchanges = list(net.labels("exchanges"))
    assert (with_recourse.payments[exchanges] >= without.payments[exchanges] - 1e-9).all()


def test_nothing_is_set_off_across_accounts():
    """One trader with +50 and -30 at one exchange is paid like one with +50 alone."""
    tables = {
        "assets": {"asset": ["ETH", "USD"], "price": [1.0, 1.0]},
        "markets": {"exchange": ["X"] * 2, "asset": ["ETH", "USD"], "liquidation_threshold": [0.8] * 2,
                    "liquidation_bonus": [0.05] * 2, "close_factor": [0.5] * 2},
        "accounts": {"account": ["good", "bad"], "trader": ["t", "t"], "exchange": ["X", "X"]},
        "balances": {"account": ["good", "bad", "bad"], "asset": ["ETH", "ETH", "USD"],
                     "deposited": [50.0, 70.0, 0.0], "borrowed": [0.0, 0.0, 100.0]},
    }  # fmt: skip
    result = nc.clear(nc.ExposureNetwork(**tables))
    # custody 120 of ether (USD lent comes from others@X); dues 50 to t and 100 to others@X; short by 30
    assert result.dues["X"] == pytest.approx(150.0)
    assert result.shortfall["X"] == pytest.approx(30.0)
    assert result.payment_matrix().toarray()[2].tolist() == pytest.approx([40.0, 80.0, 0.0])


CHAIN = {
    "traders": {"trader": ["a", "b", "c"], "external_assets": [12.0, 3.0, 1.0]},
    "liabilities": {"debtor": ["a", "b"], "creditor": ["b", "c"], "amount": [10.0, 10.0]},
}


def test_rows_are_debtors():
    result = nc.clear(nc.ExposureNetwork(**CHAIN), nc.Shock.loss({"a": 8.0}))
    assert result.payments.tolist() == [4.0, 7.0, 0.0]
    assert result.default_wave is None


def test_loss_is_direct_and_contagion():
    loss = nc.clear(nc.ExposureNetwork(**CHAIN), nc.Shock.loss({"a": 8.0})).loss
    assert loss["direct"].tolist() == [2.0, 0.0, 0.0]  # limited liability: a had an equity of 2
    assert loss["contagion"].tolist() == [0.0, 3.0, 3.0]
    assert nc.clear(nc.ExposureNetwork(**CHAIN)).loss.to_numpy().sum() == 0.0


@pytest.mark.parametrize("seed", range(10))
def test_loss_adds_up_to_the_fall_in_equity(seed):
    net = random_book(seed, liabilities=True)
    shock = nc.Shock.price({"ETH": -0.5}, family=True)
    calm, hit = nc.clear(net), nc.clear(net, shock)
    np.testing.assert_allclose(hit.loss.sum(axis=1), calm.equity - hit.equity, rtol=1e-9, atol=1e-9)


def test_shocks_reach_wallets_holdings_and_funds():
    net = nc.ExposureNetwork(
        traders={"trader": ["a", "b"], "external_assets": [1.0, 0.0]},
        assets={"asset": ["ETH"], "price": [2.0]},
        wallets={"trader": ["a"], "asset": ["ETH"], "units": [3.0]},
        holdings={"trader": ["a"], "asset": ["ETH"], "units": [4.0]},
        liabilities={"debtor": ["a"], "creditor": ["b"], "amount": [100.0]},
    )
    assert nc.clear(net).payments["a"] == pytest.approx(15.0)
    assert nc.clear(net, nc.Shock.price({"ETH": -0.5})).payments["a"] == pytest.approx(8.0)
    assert nc.clear(net, nc.Shock.loss(1.0)).payments["a"] == pytest.approx(14.0)
    assert nc.clear(net, nc.Shock.default("a")).payments["a"] == pytest.approx(8.0)  # holdings stay


def test_what_clear_refuses():
    ranked = dict(CHAIN["liabilities"], seniority=[0, 1])
    with pytest.raises(nc.ContagionError, match="seniorities"):
        nc.clear(nc.ExposureNetwork(**(CHAIN | {"liabilities": ranked})))
    with pytest.raises(nc.UnknownLabelError, match="eisenberg_noe"):
        nc.clear(nc.ExposureNetwork(**CHAIN), model="eisenberg_no")
    with pytest.raises(nc.UnknownLabelError):
        nc.clear(nc.ExposureNetwork(**CHAIN), nc.Shock.default("z"))


def test_labels_that_a_trader_and_an_exchange_share():
    net = nc.ExposureNetwork(
        traders={"trader": ["X", "a"], "external_assets": [0.0, 5.0]},
        exchanges={"exchange": ["X"], "equity": [7.0]},
        liabilities={"debtor": [("exchange", "X"), "a"], "creditor": ["a", ("trader", "X")], "amount": [9.0, 3.0]},
    )
    result = nc.clear(net)
    assert result.payments[[("exchange", "X")]].tolist() == [7.0]
    assert result.payments["a"] == 3.0
    assert result.equity[[("trader", "X")]].tolist() == [3.0]


def test_options_reach_the_model():
    net = builders.from_matrix([[0, 10, 0], [0, 0, 10], [0, 0, 0]], rows="debtor", external_assets=[4, 3, 1])
    assert nc.clear(net, waves=True).default_wave.tolist() == [0, 1, -1]
    assert nc.clear(net, which="least").payments.tolist() == pytest.approx([4.0, 7.0, 0.0])


# inside a cascade ---------------------------------------------------------------------------------------------------


def indebted(**changes):
    """A borrower who also owes his lender; the lender owes a third."""
    tables = {
        "assets": {"asset": ["ETH", "USD"], "price": [1.0, 1.0]},
        "exchanges": {"exchange": ["X"], "rulebook": ["aave_v3"], "equity": [5.0]},
        "markets": {"exchange": ["X"] * 2, "asset": ["ETH", "USD"], "liquidation_threshold": [0.8] * 2,
                    "liquidation_bonus": [0.05] * 2},
        "traders": {"trader": ["a", "b", "c"], "external_assets": [0.0, 2.0, 0.0]},
        "accounts": {"account": ["k"], "trader": ["a"], "exchange": ["X"]},
        "balances": {"account": ["k", "k"], "asset": ["ETH", "USD"], "deposited": [100.0, 0.0],
                     "borrowed": [0.0, 70.0]},
        "liabilities": {"debtor": ["a", "b"], "creditor": ["b", "c"], "amount": [20.0, 10.0]},
    }  # fmt: skip
    return nc.ExposureNetwork(**(tables | changes))


def test_final_clearing_of_a_cascade():
    net = indebted()
    calm = nc.cascade(net, nc.Shock())
    calm.check()
    assert calm.clearing.shortfall.sum() == pytest.approx(0.0)
    run = nc.cascade(net, nc.Shock.price({"ETH": -0.25}))
    run.check()
    left = 75 - 70 * 1.05  # the account is closed: 1.5 is left
    assert run.clearing.payments[["a", "b"]].tolist() == pytest.approx([left, left + 2.0])
    assert run.traders["loss_counterparty"].loc[["a", "b", "c"]].tolist() == pytest.approx(
        [left - 20, (20 - left) - (10 - left - 2), 10 - left - 2]
    )
    assert run.losses.loc["counterparty"].sum() == pytest.approx(0.0, abs=1e-12)
    assert run.traders.loc[["a", "b", "c"], "defaulted"].tolist() == [True, True, False]
    assert run.clearing.equity[["a", "b"]].tolist() == [0.0, 0.0]


def test_external_creditors_bear_what_is_not_paid():
    net = nc.ExposureNetwork(
        traders={"trader": ["a", "b"], "external_assets": [6.0, 0.0], "external_liabilities": [10.0, 0.0]},
        liabilities={"debtor": ["a"], "creditor": ["b"], "amount": [10.0]},
    )
    run = nc.cascade(net, nc.Shock.loss({"a": 2.0}))
    run.check()
    assert run.losses.loc["counterparty"].tolist() == pytest.approx([8.0 - 16.0, 0, 0, 8.0])
    assert run.losses.loc["shock", "traders"] == pytest.approx(2.0)


def owing_traders(seed, who):
    """A market in which some traders owe each other more than they have."""
    rng = np.random.default_rng(seed)
    net = nc.generators.market(60, exchanges=3, seed=seed, depth=0.3, lenders=0.5)
    borrows = net.balances["borrowed"].gt(0).groupby("account", observed=True).any()
    debtors = set(net.accounts["trader"].astype(str)[borrows[borrows].index.astype(str)])
    names = [t for t in net.labels("traders") if not t.startswith("others@") and (t in debtors) == (who == "borrowers")]
    pairs = sorted({tuple(rng.choice(names, 2, replace=False).tolist()) for _ in range(80)})
    size = net.traders.assign(external_assets=rng.exponential(1e3, len(net.traders)))
    table = {"debtor": [p[0] for p in pairs], "creditor": [p[1] for p in pairs],
             "amount": rng.exponential(2e4, len(pairs))}  # fmt: skip
    return net.replace(liabilities=table, traders=size), net


@pytest.mark.parametrize("seed", some_and_slow(5, 15))
def test_liabilities_of_those_with_nothing_to_close_change_counterparty_losses_only(seed):
    owing, net = owing_traders(seed, "suppliers")
    shock = nc.Shock.price({"ETH": -0.45}, family=True)
    run, apart = nc.cascade(owing, shock), nc.cascade(net, shock)
    run.check()
    assert run.traders["loss_counterparty"].abs().sum() > 0
    assert run.losses.loc["counterparty"].sum() == pytest.approx(0.0, abs=1e-6)
    rest = [c for c in run.losses.index if c != "counterparty"]
    np.testing.assert_allclose(run.losses.loc[rest, "traders"], apart.losses.loc[rest, "traders"], rtol=1e-9)


@pytest.mark.parametrize("seed", some_and_slow(5, 15))
def test_borrowers_whom_the_clearing_makes_default_are_closed_out_and_the_laws_hold(seed):
    owing, net = owing_traders(seed, "borrowers")
    shock = nc.Shock.price({"ETH": -0.45}, family=True)
    run, apart = nc.cascade(owing, shock), nc.cascade(net, shock)
    run.check()
    assert run.losses.loc["counterparty"].sum() == pytest.approx(0.0, abs=1e-6)
    assert run.clearing_passes >= apart.clearing_passes
    closed = run.accounts["liquidated"].sum() - apart.accounts["liquidated"].sum()
    assert (closed > 0) == (run.clearing_passes > 1)


# orientation --------------------------------------------------------------------------------------------------------


def test_turning_liabilities_round_changes_the_answer():
    turned = {"debtor": CHAIN["liabilities"]["creditor"], "creditor": CHAIN["liabilities"]["debtor"],
              "amount": [10.0, 10.0]}  # fmt: skip
    shock = nc.Shock.loss({"a": 8.0})
    for call in (nc.clear, nc.cascade):
        paid = []
        for table in (CHAIN["liabilities"], turned):
            result = call(nc.ExposureNetwork(traders=CHAIN["traders"], liabilities=table), shock)
            result.check()
            paid.append((result if call is nc.clear else result.clearing).payments.tolist())
        assert paid[0] == [4.0, 7.0, 0.0]
        assert paid[1] == [0.0, 4.0, 1.0]


def test_a_node_that_was_wiped_out_before_the_shock_loses_nothing():
    net = builders.from_matrix(
        [[0, 10.0], [0, 0]], rows="debtor", external_assets=[2.0, 5.0], external_liabilities=[0, 8.0], labels=["a", "b"]
    )
    loss = nc.clear(net, nc.Shock.loss({"b": 5.0})).loss
    assert loss.loc["b"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("seed", range(20))
def test_a_loss_of_money_never_gives_negative_contagion(seed):
    rng = np.random.default_rng(seed)
    owed = rng.random((8, 8)) * (rng.random((8, 8)) < 0.5)
    np.fill_diagonal(owed, 0)
    net = builders.from_matrix(owed, rows="debtor", external_assets=rng.random(8))
    loss = nc.clear(net, nc.Shock.loss(float(rng.random()))).loss
    assert (loss >= -1e-12).all(axis=None)


@pytest.mark.parametrize("verb", [nc.clear, nc.cascade])
def test_wrong_arguments_are_named_before_any_work(verb):
    net = builders.from_matrix([[0, 1.0], [0, 0]], rows="debtor", external_assets=[1, 1])
    with pytest.raises(TypeError, match=r"Shock\.price"):
        verb(net, {"ETH": -0.3})
    with pytest.raises(TypeError, match="ExposureNetwork"):
        verb(nc.Shock.loss(0.1), net)
    with pytest.raises(nc.UnknownLabelError, match="typo"):
        verb(net, nc.Shock.outage("typo"))
    with pytest.raises(TypeError, match="one by one"):
        nc.Shock.default(["a", "b"])


def test_a_loss_that_takes_nothing_is_said():
    net = nc.datasets.load("market")
    assert "the loss takes nothing" in nc.clear(net, nc.Shock.loss(0.05)).assumptions[-1]


def test_provenance_names_the_data():
    net = nc.datasets.load("market")
    shuffled = net.replace(balances=net.balances.sample(frac=1, random_state=0))
    found = [nc.cascade(n, nc.Shock.price({"ETH": -0.1}, family=True)).provenance for n in (net, shuffled)]
    assert found[0] == found[1]
    assert set(found[0]) >= {"versions", "seed", "shock", "assets_moved", "data_sha256"}
    wallets = net.wallets.assign(units=2 * net.wallets["units"])
    assert net.replace(wallets=wallets).data_hash != net.data_hash
