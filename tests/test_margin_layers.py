"""Loss layers of margin exchanges: random waterfalls keep every law, and each layer against numbers worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from seeds import some_and_slow

import netcontagion as nc
from netcontagion.margining import ALLOCATIONS
from netcontagion.network import rulebook
from netcontagion.network._rule_fields import MARGIN_LAYERS

NAN = float("nan")
AMOUNTS = {
    "whole": 'rule = "whole_account"',
    "slice": 'rule = "whole_account"\nslice = 0.2\nslice_above = 500.0',
    "reduce": 'rule = "reduce"\ntarget_health = 1.1',
}
PRICES = {
    "execution": 'rule = "execution"\nfee = 0.002',
    "bankruptcy": 'rule = "bankruptcy"',
    "bankruptcy_fee": 'rule = "bankruptcy"\nfee = 0.005',
}
MIDDLE = (*MARGIN_LAYERS, "insurance_fund", "equity", "suppliers")
LAST = ("suppliers", "withdrawal_haircut", "default")


def write_rules(path, layers, *, amount="whole", price="execution", deficit="", tables=""):
    """Write a rulebook and return its path."""
    text = f"""
name = "{path.stem}"
[health]
test = "equity"
[amount]
{AMOUNTS[amount]}
[price]
{PRICES.get(price, f'rule = "{price}"')}
[inventory]
route = "market"
participation = "always"
[deficit]
layers = [{", ".join(f'"{name}"' for name in layers)}]
{deficit}
{tables}
"""
    path.write_text(text, encoding="utf-8")
    rulebook.cache_clear()
    return str(path)


def random_rules(path, rng):
    last = str(rng.choice(LAST))
    chosen = [str(name) for name in rng.permutation([one for one in MIDDLE if one != last])[: rng.integers(0, 7)]]
    layers = [*(["recourse"] if rng.random() < 0.2 else []), *chosen, last]
    deficit = f"protect_flat = {str(rng.random() < 0.3).lower()}\n"
    if last == "default":
        deficit += f"alpha = {rng.choice([1.0, 0.8])}\nbeta = {rng.choice([1.0, 0.9])}\n"
        deficit += f"promised = {str(rng.random() < 0.3).lower()}\n"
        deficit += f'division = "{rng.choice(["pro_rata", "queue", "equal_loss"])}"\n'
    tables = ""
    if "auto_deleveraging" in layers:
        allocation = str(rng.choice(list(ALLOCATIONS)))
        score = str(rng.choice(["pnl_leverage", "binance", "hyperliquid", "bluefin", "ethereal"]))
        tables += f"""
[deficit.auto_deleveraging]
allocation = "{allocation}"
{f'score = "{score}"' if "queue" in allocation else ""}
price = "{rng.choice(["bankruptcy", "mark"])}"
severity = {rng.choice([1.0, 0.5])}
"""
    if "vault" in layers:
        tables += f"[deficit.vault]\ncap = {rng.choice([1e9, 5.0])}\n"
    kinds = {"amount": str(rng.choice(list(AMOUNTS))), "price": str(rng.choice(list(PRICES)))}
    return write_rules(path, layers, deficit=deficit, tables=tables, **kinds)


def random_market(seed, folder):
    """Margin exchanges with linear and inverse contracts, members, vaults, and a waterfall of any layers."""
    rng = np.random.default_rng(seed)
    venues = [f"V{place}" for place in range(rng.integers(1, 4))]
    books = [random_rules(folder / f"{seed}_{name}.toml", rng) for name in venues]
    fund = [str(rng.choice(["USD", "BTC"])) if rng.random() < 0.7 else None for _ in venues]
    columns = {
        "markets": ("exchange", "asset", "liquidation_threshold", "maintenance_margin", "depth"),
        "accounts": ("account", "trader", "exchange", "default_fund"),
        "balances": ("account", "asset", "deposited", "borrowed"),
        "positions": ("account", "asset", "quantity", "entry_price"),
        "wallets": ("trader", "asset", "units"),
        "liabilities": ("debtor", "creditor", "amount"),
    }
    tables = {name: {column: [] for column in given} for name, given in columns.items()}

    def add(name, *values):
        for column, value in zip(columns[name], values, strict=True):
            tables[name][column].append(value)

    for venue in venues:
        add("markets", venue, "BTC", 0.9, float(rng.choice([NAN, 0.25])), NAN)
        add("markets", venue, "USD", NAN, NAN, NAN)
        for contract in "LI":
            add("markets", venue, contract, NAN, 0.02, float(rng.choice([NAN, 30.0])))
    for place in range(rng.integers(3, 12)):
        trader = f"t{place}"
        for asset, mean in (("USD", 30.0), ("BTC", 0.3)):
            if rng.random() < 0.5:
                add("wallets", trader, asset, float(rng.exponential(mean)))
        for venue in venues:
            if rng.random() < 0.6:
                add_account(rng, add, trader, venue)
    for venue in venues:
        add("accounts", f"vault@{venue}", f"vault_{venue}", venue, 0.0)
        add("balances", f"vault@{venue}", "USD", float(rng.exponential(20.0)), 0.0)
        add("balances", f"vault@{venue}", "BTC", float(rng.exponential(0.2)), 0.0)
    if rng.random() < 0.3:
        add("liabilities", "vault_V0", "bank", 10.0)
    given = {name: table for name, table in tables.items() if len(next(iter(table.values())))}
    return nc.ExposureNetwork(
        assets={
            "asset": ["BTC", "USD", "L", "I"],
            "price": [100.0, 1.0, 101.0, 99.0],
            "kind": ["token", "stable", "linear", "inverse"],
            "underlying": [None, None, "BTC", "BTC"],
            "settlement": [None, None, "USD", "BTC"],
            "multiplier": [1.0, 1.0, 1.0, 10.0],
            "depth": [
                float(rng.choice([50, 500])),
                np.inf,
                float(rng.choice([20, 200])),
                float(rng.choice([200, 2000])),
            ],
        },
        exchanges={
            "exchange": venues,
            "rulebook": books,
            "insurance_fund": rng.exponential(20.0, len(venues)) * np.where([one == "BTC" for one in fund], 0.01, 1.0),
            "insurance_asset": fund,
            "equity": rng.exponential(20.0, len(venues)),
            "skin": rng.exponential(5.0, len(venues)),
            "backstop": [f"vault@{venue}" if rng.random() < 0.7 else None for venue in venues],
            "recourse": [bool(rng.random() < 0.2) for _ in venues],
        },
        **given,
    )


def add_account(rng, add, trader, venue):
    account, equity = f"{trader}@{venue}", float(rng.exponential(100.0))
    add("accounts", account, trader, venue, float(rng.choice([0.0, 5.0])))
    cash, kind = float(rng.random()), rng.random()
    if kind < 0.2:
        add("balances", account, "BTC", 3 * equity / 100, 0.0)
        add("balances", account, "USD", 0.0, equity * float(rng.uniform(1.0, 1.9)))
    elif kind < 0.3:
        add("balances", account, "BTC", 0.0, equity / 100)
        add("balances", account, "USD", 2 * equity, 0.0)
    else:
        add("balances", account, "USD", equity * cash, 0.0)
        add("balances", account, "BTC", equity * (1 - cash) / 100, 0.0)
    for contract, price in (("L", 101.0), ("I", 99.0)):
        if rng.random() < 0.6:
            size = equity * rng.uniform(2, 25) * rng.choice([-1, 1])
            each = price if contract == "L" else 10.0
            add("positions", account, contract, float(size / each), float(price * rng.uniform(0.9, 1.1)))


def random_run(seed, folder):
    net, rng = random_market(seed, folder), np.random.default_rng([seed, 5])
    shock = nc.Shock.price({"BTC": float(rng.uniform(-0.5, 0.6))}, family=True)
    if rng.random() < 0.2 and "t0" in net.labels("traders"):
        shock = shock + nc.Shock.default("t0")
    return nc.cascade(net, shock, seed=0, strict=False, max_rounds=3000)


@pytest.mark.parametrize("block", some_and_slow(1, 4))
def test_laws_hold_whatever_the_layers(block, tmp_path):
    used = set()
    for seed in range(25 * block, 25 * block + 25):
        run = random_run(seed, tmp_path)
        if run.status is nc.Status.NONFINITE:
            continue
        assert run.status.name in ("SETTLED", "EXHAUSTED"), seed
        assert run.check().worst <= 1e-9
        exchanges, state = run.exchanges, run._state
        borne = [name for name in exchanges if name.endswith("_used") or name in ("socialised", "uncovered")]
        np.testing.assert_allclose(exchanges["deficit"], exchanges[borne].sum(axis=1), rtol=1e-9, atol=1e-6)
        assert exchanges[borne].to_numpy().min() >= 0.0
        used |= {name for name in borne if exchanges[name].sum() > 0.0}
        reserves = state.reserves
        for part in (state.entries.deposited, state.entries.borrowed, state.wallets.units, state.fund_units,
                     state.equity, reserves.skin, reserves.default_fund, reserves.claims):  # fmt: skip
            assert (part >= 0.0).all(), seed
        assert not state.ledger.hole.any()
        assert (run.events["parent"].iloc[1:] < run.events.index[1:]).all()
    assert len(used) > 4


# by hand: long 10 at 100 with margin 50, so the bankruptcy price is 95; at the mark 93 it lacks 20 -----------------


def one_long(
    folder,
    layers,
    *,
    mark=93.0,
    margin=50.0,
    price="bankruptcy",
    shorts=((-6.0, 100.0), (-4.0, 100.0)),
    depth=np.inf,
    **given,
):
    """Run the long against some shorts with 100 each, and a user without contracts who has 40."""
    rules = {name: given.pop(name, "") for name in ("deficit", "tables")}
    book = write_rules(folder / "one.toml", layers, price=price, **rules)
    names = ["long", *(f"short{place}" for place in range(len(shorts))), "flat"]
    account = {"account": names, "trader": [f"of_{name}" for name in names], "exchange": ["P"] * len(names)}
    funds = given.pop("default_fund", {})
    account["default_fund"] = [funds.get(name, 0.0) for name in names]
    wallets = given.pop("wallets", None)
    net = nc.ExposureNetwork(
        exchanges={"exchange": ["P"], "rulebook": [book], **{name: [value] for name, value in given.items()}},
        assets={"asset": ["PERP", "USD"], "price": [100.0, 1.0], "kind": ["linear", "stable"],
                "underlying": ["BTC", None], "settlement": ["USD", None], "depth": [depth, np.inf]},
        markets={"exchange": ["P"] * 2, "asset": ["PERP", "USD"], "maintenance_margin": [0.005, NAN]},
        accounts=account,
        balances={"account": names, "asset": ["USD"] * len(names),
                  "deposited": [margin] + [100.0] * len(shorts) + [40.0]},
        positions={"account": names[:-1], "asset": ["PERP"] * (len(shorts) + 1),
                   "quantity": [10.0, *(units for units, _ in shorts)],
                   "entry_price": [100.0, *(entry for _, entry in shorts)]},
        **({} if wallets is None else {"wallets": wallets}),
    )  # fmt: skip
    run = nc.cascade(net, nc.Shock.price({"PERP": mark / 100.0 - 1.0}), seed=0)
    run.check()
    return run


def borne(run):
    """What each layer bore, without those that bore nothing."""
    row = run.exchanges.loc["P"]
    named = {name.removesuffix("_used"): row[name] for name in row.index if name.endswith("_used")}
    named |= {name: row[name] for name in ("socialised", "uncovered")}
    assert sum(named.values()) == pytest.approx(row["deficit"], abs=1e-9)
    return {name: value for name, value in named.items() if value > 1e-9}


def held(run):
    return dict(zip(run.network.positions.index.get_level_values(0), run._state.positions.quantity, strict=True))


def losses(run):
    return run.traders["loss"].rename(lambda name: name.removeprefix("of_")).to_dict()


def test_the_haircut_at_the_bankruptcy_price_is_the_deficit(tmp_path):
    run = one_long(tmp_path, ["auto_deleveraging", "default"])
    assert borne(run) == pytest.approx({"auto_deleveraging": 20.0})
    assert held(run) == {"long": 0.0, "short0": 0.0, "short1": 0.0}  # 10 contracts on both sides
    assert losses(run) == pytest.approx({"long": 50.0, "short0": -30.0, "short1": -20.0, "flat": 0.0}, abs=1e-9)
    closed = run.events[run.events["type"] == "auto_deleveraging"]
    assert closed["quantity"].tolist() == [6.0, 4.0]
    assert closed["price"].tolist() == pytest.approx([95.0, 95.0])
    assert run.markets["sold"].tolist() == [0.0, 0.0]  # no order reaches a book
    assert run.rounds[["sold", "bought"]].to_numpy().sum() == 0.0


def test_the_fund_pays_for_orders_beyond_the_bankruptcy_price_before_winners_are_closed(tmp_path):
    """A fund of 8 closes 4 contracts at 93; 6 pass to the winner with the higher score."""
    run = one_long(tmp_path, ["insurance_fund", "auto_deleveraging", "default"], insurance_fund=8.0)
    assert borne(run) == pytest.approx({"insurance_fund": 8.0, "auto_deleveraging": 12.0})
    assert held(run) == pytest.approx({"long": 0.0, "short0": 0.0, "short1": -4.0}, abs=1e-12)
    assert run.assets.loc["PERP", "sold"] == pytest.approx(4.0)
    full = one_long(tmp_path, ["insurance_fund", "auto_deleveraging", "default"], insurance_fund=20.0)
    assert borne(full) == pytest.approx({"insurance_fund": 20.0})
    assert held(full)["short0"] == -6.0


def test_deleveraging_at_the_mark_leaves_the_deficit_to_the_next_layer(tmp_path):
    tables = '[deficit.auto_deleveraging]\nprice = "mark"'
    run = one_long(tmp_path, ["auto_deleveraging", "equity", "default"], tables=tables, equity=30.0)
    assert borne(run) == pytest.approx({"equity": 20.0})
    assert held(run) == {"long": 0.0, "short0": 0.0, "short1": 0.0}
    assert losses(run) == pytest.approx({"long": 50.0, "short0": -42.0, "short1": -28.0, "flat": 0.0}, abs=1e-9)


def test_severity_is_the_share_of_the_order_that_winners_take(tmp_path):
    tables = "[deficit.auto_deleveraging]\nseverity = 0.5"
    run = one_long(tmp_path, ["auto_deleveraging", "equity", "default"], tables=tables, equity=30.0)
    assert borne(run) == pytest.approx({"auto_deleveraging": 10.0, "equity": 10.0})
    assert held(run) == pytest.approx({"long": 0.0, "short0": -1.0, "short1": -4.0})


@pytest.mark.parametrize(
    ("allocation", "left"),
    [("pro_rata", (-3.0, -2.0)), ("water_filling", (-2.5, -2.5)), ("queue", (-1.0, -4.0))],
)
def test_allocations(tmp_path, allocation, left):
    tables = f'[deficit.auto_deleveraging]\nallocation = "{allocation}"\nseverity = 0.5'
    run = one_long(tmp_path, ["auto_deleveraging", "equity", "default"], tables=tables, equity=30.0)
    assert (held(run)["short0"], held(run)["short1"]) == pytest.approx(left)


def test_whole_positions_may_be_more_than_the_order(tmp_path):
    """Whoever is reached is closed whole: 6 contracts for an order of 5; the exchange keeps what is beyond it."""
    tables = '[deficit.auto_deleveraging]\nallocation = "whole_queue"\nseverity = 0.5'
    run = one_long(tmp_path, ["auto_deleveraging", "equity", "default"], tables=tables, equity=30.0)
    assert held(run) == pytest.approx({"long": 0.0, "short0": 0.0, "short1": -4.0})
    assert losses(run)["short0"] == pytest.approx(-30.0)  # 6 x 7 less 6 x 2
    assert run.assets.loc["PERP", "sold"] == pytest.approx(5.0)  # the half that winners do not take
    assert run.exchanges.loc["P", "loss"] == pytest.approx(10.0 - 2.0)


def test_nobody_gives_up_more_than_the_profit_of_the_position(tmp_path):
    """Shorts from 94 make 1 each: at a loss of 2 per contract they can take half of their size."""
    run = one_long(
        tmp_path, ["auto_deleveraging", "equity", "default"], shorts=((-6.0, 94.0), (-4.0, 109.0)), equity=30.0
    )
    assert held(run) == pytest.approx({"long": 0.0, "short0": -3.0, "short1": 0.0})
    assert losses(run)["short0"] == pytest.approx(-36.0)  # the fall made 42, closing took 6


def test_an_order_within_the_bankruptcy_price_is_filled_by_the_book(tmp_path):
    """Mark 95.2 is above 95: nothing is lacking; on a thin book the rest passes at 95, and nobody loses at marks."""
    deep = one_long(tmp_path, ["auto_deleveraging", "default"], mark=95.2)
    assert borne(deep) == {}
    assert held(deep)["short0"] == -6.0
    thin = one_long(tmp_path, ["auto_deleveraging", "default"], mark=95.2, depth=10.0)
    assert borne(thin) == {}
    assert thin.assets.loc["PERP", "price"] == pytest.approx(95.0)
    assert thin.assets.loc["PERP", "sold"] == pytest.approx(10.0 * np.log(95.2 / 95.0))
    assert sum(held(thin).values()) == pytest.approx(-thin.assets.loc["PERP", "sold"])


def test_gains_are_cut_by_one_share(tmp_path):
    """Gains of 42 and 28 bear 20; of gains of 30, 50 and 20 with 70 collected, 21, 35 and 14 are left."""
    run = one_long(tmp_path, ["gains", "default"])
    assert borne(run) == pytest.approx({"gains": 20.0})
    assert losses(run) == pytest.approx({"long": 50.0, "short0": -30.0, "short1": -20.0, "flat": 0.0}, abs=1e-9)
    assert run._state.positions.entry[1:] == pytest.approx([98.0, 98.0])
    three = ((-3.0, 100.0), (-5.0, 100.0), (-2.0, 100.0))
    cut = one_long(tmp_path, ["gains", "default"], shorts=three, mark=90.0, margin=70.0)
    left = cut.accounts["equity"][["short0", "short1", "short2"]].to_numpy() - 100.0
    assert left == pytest.approx([21.0, 35.0, 14.0])


def test_contracts_that_are_torn_up_end_at_the_mark(tmp_path):
    """Gains pay what is lacking, and every contract is settled without a trade."""
    run = one_long(tmp_path, ["tear_up", "default"])
    assert borne(run) == pytest.approx({"tear_up": 20.0})
    assert held(run) == {"long": 0.0, "short0": 0.0, "short1": 0.0}
    equity = run.accounts["equity"][["short0", "short1"]].to_numpy()
    assert equity == pytest.approx([130.0, 120.0])
    assert run._state.entries.deposited.sum() == pytest.approx(130.0 + 120.0 + 40.0)
    assert run.rounds["bought"].sum() == 0.0


def test_a_default_divides_what_is_left(tmp_path):
    """Deposits are worth 142, 128 and 40; 20 are lacking."""
    plain = one_long(tmp_path, ["default"])
    assert borne(plain) == pytest.approx({"default": 20.0})
    worth = np.array([142.0, 128.0, 40.0])
    names = ["of_short0", "of_short1", "of_flat"]
    assert plain.clearing.equity[names].to_numpy() == pytest.approx(worth * 290.0 / 310.0)
    owed = nc.clearing.eisenberg_noe(plain.clearing.liabilities, plain.clearing.values.external_assets)
    assert plain.clearing.values.payments == pytest.approx(owed.values.payments)
    assert bool(plain.exchanges.loc["P", "defaulted"])
    costly = one_long(tmp_path, ["default"], deficit="alpha = 0.5")
    assert costly.clearing.equity[names].to_numpy() == pytest.approx(worth * 145.0 / 310.0)
    assert costly.losses.to_numpy().sum() == pytest.approx(plain.losses.to_numpy().sum() + 145.0)
    flat = one_long(tmp_path, ["default"], deficit="protect_flat = true")
    assert flat.clearing.equity[names].to_numpy() == pytest.approx([142 * 250 / 270, 128 * 250 / 270, 40.0])
    equal = one_long(tmp_path, ["default"], deficit='division = "equal_loss"')
    assert equal.clearing.equity[names].to_numpy() == pytest.approx(worth - 20.0 / 3.0)
    promised = one_long(tmp_path, ["default"], deficit="promised = true")
    assert promised.clearing.equity[names].to_numpy() == pytest.approx([100 + 42 * 5 / 7, 100 + 28 * 5 / 7, 40.0])


def test_deposits_are_cut_and_users_without_contracts_may_be_spared(tmp_path):
    """Deposits of USD are 100, 100 and 40."""
    run = one_long(tmp_path, ["suppliers"])
    assert run.accounts["equity"][["short0", "short1", "flat"]].to_numpy() == pytest.approx(
        [42 + 100 * 220 / 240, 28 + 100 * 220 / 240, 40 * 220 / 240]
    )
    spared = one_long(tmp_path, ["suppliers"], deficit="protect_flat = true")
    assert spared.accounts["equity"][["short0", "short1", "flat"]].to_numpy() == pytest.approx([132.0, 118.0, 40.0])


def test_recourse_makes_the_trader_owe_it(tmp_path):
    purse = {"trader": ["of_long"], "asset": ["USD"], "units": [12.0]}
    passive = one_long(tmp_path, ["recourse", "insurance_fund", "default"], wallets=purse, insurance_fund=5.0)
    assert borne(passive) == pytest.approx({"recourse": 20.0})
    assert passive.clearing.equity["of_long"] == 0.0  # its 12 go to the exchange, which adds its fund
    assert passive.clearing.equity[["of_short0", "of_short1", "of_flat"]].sum() == pytest.approx(310.0 - 3.0)
    column = one_long(tmp_path, ["insurance_fund", "default"], wallets=purse, insurance_fund=5.0, recourse=True)
    assert borne(column) == borne(passive)


def test_members_of_a_clearing_house_bear_it_in_order(tmp_path):
    """20 lacking: own fund 3, skin 4, the others' 6 and 3, assessments of 2 and 1 from wallets, the rest of gains."""
    layers = ["defaulter_fund", "skin", "default_fund", "assessments", "gains", "default"]
    purse = {"trader": ["of_short0", "of_short1"], "asset": ["USD"] * 2, "units": [50.0, 50.0]}
    given = {"skin": 4.0, "default_fund": {"long": 3.0, "short0": 6.0, "short1": 3.0}, "wallets": purse}
    run = one_long(tmp_path, layers, tables="[deficit.assessments]\nmultiple = 0.3333333333333333", **given)
    expected = {"defaulter_fund": 3.0, "skin": 4.0, "default_fund": 9.0, "assessments": 3.0, "gains": 1.0}
    assert borne(run) == pytest.approx(expected)
    found = losses(run)
    assert found == pytest.approx({"long": 53.0, "short0": -42 + 6 + 2 + 0.6, "short1": -28 + 3 + 1 + 0.4, "flat": 0.0})
    small = one_long(tmp_path, layers, mark=94.8, **given)  # lacks 2: the defaulter's own fund is enough
    assert borne(small) == pytest.approx({"defaulter_fund": 2.0})
    assert small._state.reserves.default_fund.sum() == pytest.approx(10.0)


def test_a_fund_of_members_is_their_wealth_and_the_house_owes_it(tmp_path):
    run = one_long(tmp_path, ["default"], default_fund={"flat": 7.0})
    assert run.traders.loc["of_flat", "wealth_before"] == pytest.approx(47.0)
    assert run.clearing.values.dues.sum() == pytest.approx(317.0)
    assert nc.clear(run.network).equity["of_flat"] == pytest.approx(47.0)


def test_the_vault_bears_up_to_its_cap(tmp_path):
    run = one_long(tmp_path, ["vault", "default"], backstop="flat", tables="[deficit.vault]\ncap = 15.0")
    assert borne(run) == pytest.approx({"vault": 15.0, "default": 5.0})
    assert run.accounts.loc["flat", "equity"] == pytest.approx(25.0)
    with pytest.raises(nc.SchemaError, match=r"exchanges\.backstop"):
        one_long(tmp_path, ["vault", "default"], backstop="flatt")


def test_what_is_better_than_the_bankruptcy_price_pays_for_others_then_goes_to_the_fund(tmp_path):
    """At 95.2 the account is charged the 2 it has left; the fund keeps them."""
    run = one_long(tmp_path, ["account_surplus", "insurance_fund", "default"], mark=95.2, insurance_fund=1.0)
    assert run._state.fund_units.tolist() == pytest.approx([3.0])
    assert run.exchanges.loc["P", "fees"] == 0.0
    assert run.exchanges.loc["P", "loss"] == pytest.approx(-2.0)


def test_a_backstop_must_be_an_account_of_its_exchange():
    with pytest.raises(nc.SchemaError, match="an account of the exchange"):
        nc.ExposureNetwork(
            exchanges={"exchange": ["A", "B"], "backstop": ["k", None]},
            accounts={"account": ["k"], "trader": ["t"], "exchange": ["B"]},
        )
