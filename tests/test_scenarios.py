"""Scenarios: what makers make, in which order, from which distribution; how they are put together, kept and refused."""

from __future__ import annotations

import doctest
import itertools
import math
import pickle
from importlib import import_module

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import netcontagion as nc
from netcontagion import scenarios
from netcontagion.errors import nearest

common = settings(max_examples=30, deadline=None, derandomize=True)
LEVEL = stats.norm.ppf(0.9995)  # two-sided 99.9 %


def market():
    return nc.ExposureNetwork(
        assets={"asset": ["ETH", "stETH", "BTC"], "price": [1.0] * 3, "underlying": [None, "ETH", None]},
        traders={"trader": ["ann", "bob"], "external_assets": [5.0, 7.0]},
        exchanges={"exchange": ["Lend"], "rulebook": ["lending"]},
    )


def past(rows=40, seed=0, assets=("ETH", "BTC")):
    drawn = np.random.default_rng(seed).normal(0, 0.05, (rows, len(assets)))
    return pd.DataFrame(drawn, columns=list(assets), index=pd.date_range("2024-01-01", periods=rows))


def problems(error):
    return [str(problem) for problem in error.value.problems]


# many shocks together ---------------------------------------------------------------------------------------------


def test_scenarios_are_a_sequence_of_shocks_with_a_row_each():
    made = scenarios.grid(price={"ETH": [-0.1, -0.2, -0.3]})
    assert len(made) == 3
    assert made[1] == made[-2] == nc.Shock.price({"ETH": -0.2})
    assert list(made) == list(made.shocks)
    assert isinstance(made[1:], scenarios.Scenarios)
    assert made[1:].parameters["ETH"].tolist() == [-0.2, -0.3]
    assert made[1:].parameters.index.tolist() == [0, 1]
    assert made.parameters.index.name == "scenario"
    assert made == scenarios.grid(price={"ETH": [-0.1, -0.2, -0.3]}) != made[1:]
    assert pickle.loads(pickle.dumps(made)) == made
    assert "3 scenarios" in repr(made)
    assert "-0.2" in made._repr_html_()
    with pytest.raises(IndexError):
        made[3]


def test_nobody_outside_can_change_scenarios():
    made = scenarios.grid(depth=[1.0, 0.5])
    table = made.parameters
    table.loc[0, "depth"] = 7.0
    assert made.parameters["depth"].tolist() == [1.0, 0.5]
    with pytest.raises(AttributeError):
        made.shocks = ()


def test_anything_made_of_shocks_becomes_scenarios():
    one, two = nc.Shock.depth(0.5), nc.Shock.loss(0.1)
    assert scenarios.as_scenarios(one).shocks == (one,)
    assert scenarios.as_scenarios(shock for shock in (one, two)).shocks == (one, two)
    assert len(scenarios.as_scenarios([])) == 0
    made = scenarios.as_scenarios([one, two])
    assert scenarios.as_scenarios(made) is made
    assert made.parameters["shock"].tolist() == [str(one), str(two)]


def test_every_item_that_is_no_shock_is_named():
    with pytest.raises(nc.SchemaError) as error:
        scenarios.as_scenarios([nc.Shock.depth(0.5), -0.3, "ETH"])
    assert len(problems(error)) == 2
    assert "row 1: -0.3" in problems(error)[0]
    for wrong in ("ETH", {"ETH": -0.3}, None):
        with pytest.raises(nc.SchemaError, match=r"allowed: a Shock"):
            scenarios.as_scenarios(wrong)
    with pytest.raises(ValueError, match="2 shocks have 1 rows of parameters"):
        scenarios.Scenarios([nc.Shock.depth(0.5)] * 2, {"name": ["x"]})


def test_a_shock_is_added_to_each_and_scenarios_one_by_one():
    falls, thin = scenarios.grid(price={"ETH": [-0.1, -0.2]}), nc.Shock.depth(0.5)
    assert (falls + thin).shocks == (thin + falls).shocks == tuple(one + thin for one in falls)
    assert (falls + thin).parameters.equals(falls.parameters)
    both = falls + scenarios.grid(depth=[0.5, 0.25])
    assert both[1] == nc.Shock.price({"ETH": -0.2}) + nc.Shock.depth(0.25)
    assert list(both.parameters) == ["ETH", "depth"]
    with pytest.raises(ValueError, match=r"2 and 1 scenarios .* cross\(\)"):
        falls + scenarios.grid(depth=[0.5])
    with pytest.raises(TypeError):
        falls + 1


def test_cross_takes_every_combination_and_the_last_changes_fastest():
    falls, thin = scenarios.grid(price={"ETH": [-0.1, -0.2]}), scenarios.grid(depth=[1.0, 0.5, 0.25])
    both = scenarios.cross(falls, thin, nc.Shock.loss(0.1))
    expected = [one + two + nc.Shock.loss(0.1) for one, two in itertools.product(falls, thin)]
    assert list(both) == expected
    assert both.parameters[["ETH", "depth"]].to_numpy().tolist() == [
        [x, d] for x, d in itertools.product([-0.1, -0.2], [1.0, 0.5, 0.25])
    ]
    assert len(scenarios.cross(falls, [])) == 0


def test_a_parameter_that_comes_twice_is_numbered_unless_it_is_the_same():
    falls = scenarios.grid(price={"ETH": [-0.1, -0.2]})
    assert list((falls + falls).parameters) == ["ETH"]
    crossed = scenarios.cross(falls, falls, falls[::-1])
    assert list(crossed.parameters) == ["ETH", "ETH (2)", "ETH (3)"]
    assert crossed.parameters["ETH (3)"].tolist() == [-0.2, -0.1] * 4


def test_concat_puts_one_after_the_other():
    made = scenarios.concat(scenarios.grid(depth=[0.5]), scenarios.grid(loss=[0.1]), nc.Shock())
    assert made.shocks == (nc.Shock.depth(0.5), nc.Shock.loss(0.1), nc.Shock())
    assert made.parameters["loss"].isna().tolist() == [True, False, True]
    with pytest.raises(ValueError, match="at least one"):
        scenarios.concat()


def test_unknown_names_are_all_listed_before_any_work():
    wrong = [
        nc.Shock.price({"ETHH": -0.1, "BTC": -0.1}),
        nc.Shock.default("anne") + nc.Shock.outage("Lent"),
        nc.Shock.path([nc.Shock(), nc.Shock.loss({"bobb": 1.0})]),
        nc.Shock.price({"ETHH": -0.2}),
    ]
    with pytest.raises(nc.UnknownLabelError) as error:
        scenarios.as_scenarios(wrong).check(market())
    said = str(error.value)
    assert "4 names are unknown" in said
    for name, near in (("ETHH", "ETH"), ("anne", "ann"), ("Lent", "Lend"), ("bobb", "bob")):
        assert f"{name!r}; did you mean {near!r}" in said
    assert error.value.label == "ETHH"
    assert str(pickle.loads(pickle.dumps(error.value))) == said
    with pytest.raises(nc.UnknownLabelError, match=r"^unknown asset 'ETHH'; did you mean 'ETH'"):
        scenarios.as_scenarios(wrong[3]).check(market())
    scenarios.as_scenarios([nc.Shock.price({"ETH": -1.0}, family=True), nc.Shock.default("ann")]).check(market())


# designs ----------------------------------------------------------------------------------------------------------


@common
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(0, 3), st.booleans())
def test_a_grid_is_a_product_in_the_order_given(sizes, depths, family):
    price = {("a", "a b", 12)[place]: [-i / 10 for i in range(size)] for place, size in enumerate(sizes)}
    depth = [1 / (i + 1) for i in range(depths)] or None
    made = scenarios.grid(price=price, depth=depth, family=family)
    rows = list(itertools.product(*price.values(), *([depth] if depth else [])))
    assert made.parameters.to_numpy().tolist() == [list(row) for row in rows]
    for row, shock in zip(rows, made, strict=True):
        expected = nc.Shock.price(dict(zip(price, row, strict=False)), family=family)
        assert shock == (expected + nc.Shock.depth(row[-1]) if depth else expected)


def test_a_grid_of_losses():
    assert list(scenarios.grid(loss=(0.0, 1.0))) == [nc.Shock.loss(0.0), nc.Shock.loss(1.0)]
    assert scenarios.grid(depth=0.5)[0] == nc.Shock.depth(0.5)


def test_a_grid_lists_everything_that_is_wrong_with_it():
    with pytest.raises(nc.SchemaError) as error:
        scenarios.grid(price={"ETH": [-0.1, -1.01, "x"], "BTC": []}, depth=[0.0, 1.0], loss=[math.nan, 2])
    assert problems(error) == [
        "grid.price['ETH'], row 1: -1.01; allowed: -1 (worthless) or above; -0.3 is -30 %; cure: correct the number",
        "grid.price['ETH'], row 2: 'x'; allowed: -1 (worthless) or above; -0.3 is -30 %; cure: correct the number",
        "grid.price['BTC']: no value; allowed: at least one number; cure: give values, or leave it out",
        "grid.depth, row 0: 0.0; allowed: a factor above 0; cure: correct the number",
        "grid.loss, row 0: nan; allowed: a share in [0, 1]; cure: correct the number",
        "grid.loss, row 1: 2; allowed: a share in [0, 1]; cure: correct the number",
    ]
    for wrong in ({}, {"price": [-0.1]}, {"price": {"depth": [-0.1]}}):
        with pytest.raises(nc.SchemaError):
            scenarios.grid(**wrong)


def test_quasi_random_points_fill_the_box_evenly():
    made = scenarios.quasi_random(
        256, price={"ETH": (-0.5, 0.0), "BTC": (-0.25, 0.25)}, depth=(0.5, 1.0), loss=(0.0, 0.1), seed=3
    )
    box = {"BTC": (-0.25, 0.25), "ETH": (-0.5, 0.0), "depth": (0.5, 1.0), "loss": (0.0, 0.1)}
    assert list(made.parameters) == ["ETH", "BTC", "depth", "loss"]
    for name, (low, high) in box.items():
        values = made.parameters[name].to_numpy()
        # one point in every 256th of each side: the elementary intervals of a (0, 1)-sequence
        assert sorted(np.floor((values - low) / (high - low) * 256).astype(int).tolist()) == list(range(256))
        assert abs(values.mean() - (low + high) / 2) < (high - low) / 256
    assert made[7] == (
        nc.Shock.price(made.parameters.loc[7, ["ETH", "BTC"]].to_dict())
        + nc.Shock.depth(made.parameters["depth"][7])
        + nc.Shock.loss(made.parameters["loss"][7])
    )


@pytest.mark.parametrize("n", [1, 3, 8])
def test_quasi_random_draws_as_many_as_asked_for(n):
    made = scenarios.quasi_random(n, depth=(1.0, 1.0), seed=1)
    assert made.parameters["depth"].tolist() == [1.0] * n


def test_quasi_random_lists_everything_that_is_wrong_with_it():
    with pytest.raises(nc.SchemaError) as error:
        scenarios.quasi_random(0, price={"ETH": (-2, 0)}, depth=(1.0, 0.5), loss=0.1)
    assert [text.partition(":")[0] for text in problems(error)] == [
        "quasi_random.n",
        "quasi_random.price['ETH'], row 0",
        "quasi_random.depth",
        "quasi_random.loss",
    ]


def test_every_trader_defaults_once():
    net = market()
    made = scenarios.defaults(net)
    assert made.parameters["default"].tolist() == ["ann", "bob"]
    assert list(made) == [nc.Shock.default("ann"), nc.Shock.default("bob")]
    assert scenarios.defaults(net, ["bob"]).shocks == (nc.Shock.default("bob"),)
    with pytest.raises(nc.UnknownLabelError, match=r"2 names are unknown"):
        scenarios.defaults(net, ["ann", "Anne", "Lend"])


def test_those_who_stand_for_many_do_not_default():
    net = nc.datasets.load("market")
    assert net.derived("traders")
    names = scenarios.defaults(net).parameters["default"]
    assert len(names) == len(net.labels("traders")) - net.derived("traders")
    assert not names.str.startswith("others@").any()


# draws ------------------------------------------------------------------------------------------------------------

SIGMA = {"ETH": 0.06, "BTC": 0.04, "USDC": 0.0}
PAIRS = {"ETH": {"BTC": 0.7, "USDC": 0.0}, "BTC": {"USDC": 0.0}}


def logs(made):
    return np.log1p(made.parameters)


@pytest.mark.parametrize("distribution", ["normal", "student"])
def test_draws_have_the_marginals_they_should(distribution):
    freedom = 5.0 if distribution == "student" else None
    n, horizon = 4000, 4.0
    made = scenarios.correlated(
        n, volatility=SIGMA, correlation=PAIRS, horizon=horizon, distribution=distribution, freedom=freedom, seed=11
    )
    law = stats.norm() if freedom is None else stats.t(freedom, scale=math.sqrt((freedom - 2) / freedom))
    assert made.parameters["USDC"].abs().max() == 0.0
    for name in ("ETH", "BTC"):
        z = logs(made)[name] / (SIGMA[name] * math.sqrt(horizon))
        assert stats.kstest(z, law.cdf).pvalue > 1e-3
        # 99.9 % interval of the variance: 1 +- q sqrt((kurtosis - 1) / n)
        kurtosis = 3.0 if freedom is None else 3 * (freedom - 2) / (freedom - 4)
        assert abs(z.var() - 1) < LEVEL * math.sqrt((kurtosis - 1) / n)


def test_draws_have_the_correlation_they_should():
    n = 4000
    both = logs(scenarios.correlated(n, volatility=SIGMA, correlation=PAIRS, seed=5))[["ETH", "BTC"]]
    fisher = np.arctanh(np.corrcoef(both.to_numpy().T)[0, 1])
    assert abs(fisher - np.arctanh(0.7)) < LEVEL / math.sqrt(n - 3)
    # Kendall's tau of every elliptical law: 2 / pi arcsin(rho)
    tail = logs(
        scenarios.correlated(n, volatility=SIGMA, correlation=PAIRS, distribution="student", freedom=3.0, seed=6)
    )
    tau = stats.kendalltau(tail["ETH"], tail["BTC"]).statistic
    assert abs(tau - 2 / math.pi * math.asin(0.7)) < LEVEL * 2 * math.sqrt(1 / n)  # var(tau) <= 2 (1 - tau^2) / n


def test_tails_of_students_t_come_together_and_those_of_a_normal_do_not():
    def joint(**law):
        drawn = logs(scenarios.correlated(8000, volatility={"a": 1.0, "b": 1.0}, seed=2, **law))
        low = drawn < drawn.quantile(0.01)
        return (low["a"] & low["b"]).sum()

    assert joint(distribution="student", freedom=2.5) > joint() + 10


def test_perfect_correlation_is_exact_and_independence_is_the_default():
    made = logs(scenarios.correlated(500, volatility={"a": 0.1, "b": 0.2}, correlation=1.0, seed=1))
    np.testing.assert_allclose(made["b"], 2 * made["a"], rtol=1e-7, atol=1e-9)
    apart = logs(scenarios.correlated(4000, volatility={"a": 0.1, "b": 0.2}, seed=1)).corr().loc["a", "b"]
    assert abs(apart) < LEVEL / math.sqrt(4000)


def test_half_a_table_is_enough():
    whole = pd.DataFrame([[1.0, 0.7, 0.0], [0.7, 1.0, 0.0], [0.0, 0.0, 1.0]], index=list(SIGMA), columns=list(SIGMA))
    assert scenarios.correlated(20, volatility=SIGMA, correlation=PAIRS, seed=1) == scenarios.correlated(
        20, volatility=SIGMA, correlation=whole, seed=1
    )


def test_draws_lists_everything_that_is_wrong():
    with pytest.raises(nc.SchemaError) as error:
        scenarios.correlated(
            2.5, volatility={"ETH": -0.1, "BTC": "x"}, horizon=0, distribution="student", freedom=2, seed=1
        )
    columns = [problem.column for problem in error.value.problems]
    assert columns == ["n", "horizon", "freedom", "volatility['ETH']", "volatility['BTC']"]


@pytest.mark.parametrize(
    ("correlation", "said"),
    [
        ({"ETH": {"BTC": 1.2}}, r"'BTC'\]: 1.2; allowed: a number in \[-1, 1\]"),
        ({"ETH": {"BTX": 0.2}}, r"'BTX'; allowed: assets that have a volatility; cure: did you mean 'BTC'"),
        ({"ETH": {"BTC": 0.2}, "BTC": {"ETH": 0.3}}, r"0.\d and 0.\d; allowed: the same on both sides"),
        ({"ETH": {"ETH": 0.9, "BTC": 0.2}}, "0.9; allowed: 1"),
        ({"ETH": {"ETH": 1.0}}, "missing, or no number"),
        (math.nan, "correlation: nan"),
        (-0.6, "lowest eigenvalue -0.2; allowed: no eigenvalue below 0"),
    ],
)
def test_what_is_no_correlation_matrix_is_refused(correlation, said):
    volatility = dict.fromkeys(["ETH", "BTC", "SOL"] if correlation == -0.6 else ["ETH", "BTC"], 0.1)
    with pytest.raises(nc.SchemaError, match=said):
        scenarios.correlated(3, volatility=volatility, correlation=correlation)


def test_a_price_past_all_numbers_is_refused():
    with pytest.raises(nc.SchemaError, match=r"change of 'a', row \d+: inf"):
        scenarios.correlated(50, volatility={"a": 1e6}, seed=1)


def test_freedom_is_for_students_t():
    with pytest.raises(nc.SchemaError, match="freedom"):
        scenarios.correlated(3, volatility={"a": 0.1}, freedom=4)
    with pytest.raises(nc.SchemaError, match="did you mean 'student'"):
        scenarios.correlated(3, volatility={"a": 0.1}, distribution="students")


# past returns -----------------------------------------------------------------------------------------------------


def test_a_window_of_one_row_is_that_row():
    table = past()
    made = scenarios.historical(table)
    assert made.parameters[["ETH", "BTC"]].to_numpy().tolist() == table.to_numpy().tolist()
    assert made.parameters["date"].tolist() == table.index.tolist()
    assert made[3] == nc.Shock.price(table.iloc[3].to_dict())


def test_windows_compound_exactly():
    # binary fractions: every product is exact
    table = pd.DataFrame(
        {"ETH": [0.5, -0.5, 0.25, -0.75, 1.0], "BTC": [-1.0, 0.5, 0.5, -0.25, 0.0]}, index=list("abcde")
    )
    made = scenarios.historical(table, 2)
    assert made.parameters["date"].tolist() == ["c", "e"]
    assert made.parameters["ETH"].tolist() == [0.5 * 1.25 - 1, 0.25 * 2 - 1]
    assert made.parameters["BTC"].tolist() == [1.5 * 1.5 - 1, 0.75 - 1]
    over = scenarios.historical(table, 2, overlap=True, family=True)
    assert over.parameters["date"].tolist() == list("bcde")
    assert over.parameters["BTC"].tolist() == [-1.0, 1.25, 0.125, -0.25]
    assert over[0] == nc.Shock.price({"ETH": -0.25, "BTC": -1.0}, family=True)


@common
@given(st.integers(1, 12), st.integers(1, 5), st.booleans(), st.integers(0, 99))
def test_windows_agree_with_a_plain_loop(rows, window, overlap, seed):
    table = past(rows, seed)
    if window > rows:
        with pytest.raises(nc.SchemaError, match=f"{rows} rows, a window has {window}"):
            scenarios.historical(table, window, overlap=overlap)
        return
    last = [end for end in range(rows, 0, -1 if overlap else -window) if end >= window][::-1]
    expected = [math.prod(1 + table["ETH"].iloc[end - window : end]) - 1 for end in last]
    made = scenarios.historical(table, window, overlap=overlap).parameters
    np.testing.assert_allclose(made["ETH"], expected, rtol=0, atol=1e-15)
    assert made["date"].tolist() == [table.index[end - 1] for end in last]


def test_returns_that_cannot_be_are_all_listed():
    table = {"ETH": [-0.1, None, -1.5], "BTC": ["x", 0.0, 0.1], "date": [0.0, 0.0, 0.0]}
    with pytest.raises(nc.SchemaError) as error:
        scenarios.historical(table, 0)
    assert [text.partition(";")[0] for text in problems(error)] == [
        "historical.returns['date']: a column",
        "historical.returns['ETH'], row 1: nan",
        "historical.returns['ETH'], row 2: -1.5",
        "historical.returns['BTC'], row 0: 'x'",
        "historical.window: 0",
    ]
    with pytest.raises(nc.SchemaError, match="a table of"):
        scenarios.bootstrap(pd.DataFrame(), 3, block=1)
    with pytest.raises(nc.SchemaError, match="twice"):
        scenarios.historical(past(assets=("ETH", "ETH")))


def followed(rows, n, block, horizon, method, seed):
    """Rows that draws stood on, step by step, read off returns that tell each row: 1 + r = a prime per row."""
    primes = np.array([2, 3, 5, 7, 11, 13, 17, 19])[:rows]
    made = [
        scenarios.bootstrap({"a": primes - 1.0}, n, block=block, horizon=h, method=method, seed=seed)
        for h in range(1, horizon + 1)
    ]
    values = [np.ones(n), *(1 + one.parameters["a"].to_numpy() for one in made)]
    return np.array([np.searchsorted(primes, np.round(b / a)) for a, b in itertools.pairwise(values)]).T


def test_a_circular_bootstrap_keeps_blocks():
    path = followed(8, 300, 3, 6, "circular", 1)
    steps = (path[:, 1:] - path[:, :-1]) % 8
    assert (steps[:, [0, 1, 3, 4]] == 1).all()
    assert 0 < (steps[:, 2] == 1).mean() < 0.3  # a new block, by chance the next row in one of 8
    assert (np.diff(path, axis=1) == -7).any(), "the first row follows the last"


def test_blocks_of_a_stationary_bootstrap_are_geometric_and_every_row_as_likely():
    n, block, horizon = 2000, 4.0, 6
    path = followed(8, n, block, horizon, "stationary", 2)
    follow = ((path[:, 1:] - path[:, :-1]) % 8 == 1).mean()
    expected = 1 - 1 / block + 1 / block / 8
    assert abs(follow - expected) < LEVEL * math.sqrt(expected * (1 - expected) / (n * (horizon - 1)))
    for step in range(horizon):
        assert stats.chisquare(np.bincount(path[:, step], minlength=8)).pvalue > 1e-3
    # how long the first block lasts: P(more than k rows) = (1 - 1 / block)^k, give or take a jump to the next row
    lasting = ((path[:, 1:4] - path[:, :3]) % 8 == 1).all(axis=1).mean()
    assert abs(lasting - expected**3) < LEVEL * math.sqrt(expected**3 / n)


def test_a_block_as_long_as_the_horizon_gives_windows_that_happened():
    table = past(12)
    circle = pd.concat([table, table.iloc[:2]])
    happened = {
        tuple(row) for row in scenarios.historical(circle, 3, overlap=True).parameters[["ETH", "BTC"]].to_numpy()
    }
    drawn = scenarios.bootstrap(table, 60, block=3, horizon=3, method="circular", seed=4).parameters
    assert {tuple(row) for row in drawn.to_numpy()} <= happened, "assets stay together"
    assert len(drawn.drop_duplicates()) > 8


def test_a_fall_to_nothing_stays_there():
    drawn = scenarios.bootstrap({"a": [-1.0, 0.3, 0.1]}, 50, block=1, horizon=9, seed=1)
    assert drawn.parameters["a"].min() == -1.0


def test_bootstrap_lists_everything_that_is_wrong():
    with pytest.raises(nc.SchemaError) as error:
        scenarios.bootstrap(past(3), 0, block=0.5, horizon=0, method="moving")
    assert [problem.column for problem in error.value.problems] == ["n", "horizon", "method", "block"]
    with pytest.raises(nc.SchemaError, match="a whole number"):
        scenarios.bootstrap(past(3), 1, block=1.5, method="circular")


# what all random makers keep --------------------------------------------------------------------------------------


def quasi(names, seed):
    return scenarios.quasi_random(9, price=dict.fromkeys(names, (-0.5, 0.1)), depth=(0.5, 1.0), seed=seed)


def normal(names, seed):
    return scenarios.correlated(9, volatility=dict.fromkeys(names, 0.1), correlation=0.5, seed=seed)


def student(names, seed):
    return scenarios.correlated(
        9, volatility=dict.fromkeys(names, 0.1), correlation=0.5, distribution="student", freedom=3, seed=seed
    )


def blocks(names, seed):
    return scenarios.bootstrap(past(assets=("ETH", "BTC", "SOL"))[names], 9, block=2, horizon=3, seed=seed)


@pytest.mark.parametrize("maker", [quasi, normal, student, blocks])
def test_seeds_decide_and_the_order_of_names_does_not(maker):
    names = ["SOL", "ETH", "BTC"]
    made = maker(names, 7)
    assert made == maker(names, 7) == maker(names, np.random.default_rng(7))
    assert made != maker(names, 8)
    assert list(made.parameters)[:3] == names
    for order in itertools.permutations(names):
        again = maker(list(order), 7)
        assert again.shocks == made.shocks
        assert again.parameters[list(made.parameters)].equals(made.parameters)
    np.random.seed(1)  # noqa: NPY002
    maker(names, None)
    after = np.random.random()  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    assert np.random.random() == after, "global state is left alone"  # noqa: NPY002


# TOML -------------------------------------------------------------------------------------------------------------

FILE = """
[sweep]
network = "market"

[[scenario]]
name = "slump"
price = {ETH = -0.3, BTC = -0.2}
family = true
default = "ann"

[[scenario]]
name = "outage"
loss = {bob = 2.0}
outage = ["Lend"]
plus = [{price = {ETH = -0.1}}, {depth = 0.5}]
later = [{round = 3, depth = 0.5}, {round = 7, loss = 0.1}]

[grid]
depth = [1.0, 0.5]
"""


def test_a_file_is_read_and_its_tables_are_crossed(tmp_path):
    path = tmp_path / "scenario.toml"
    path.write_text(FILE)
    made = scenarios.read(path)
    assert made == scenarios.read(str(path)) == scenarios.read(FILE)
    slump = nc.Shock.price({"ETH": -0.3, "BTC": -0.2}, family=True) + nc.Shock.default("ann")
    out = nc.Shock.loss({"bob": 2.0}) + nc.Shock.outage("Lend") + nc.Shock.price({"ETH": -0.1}) + nc.Shock.depth(0.5)
    out += nc.Shock(later=((3, nc.Shock.depth(0.5)), (7, nc.Shock.loss(0.1))))
    assert list(made) == [one + nc.Shock.depth(d) for one in (slump, out) for d in (1.0, 0.5)]
    assert made.parameters["name"].tolist() == ["slump", "slump", "outage", "outage"]
    made.check(market())


def test_every_maker_can_be_called_from_a_file(tmp_path):
    past().to_csv(tmp_path / "returns.csv")
    tables = {
        "grid": (
            "price = {ETH = [-0.1, -0.2]}\nfamily = true",
            scenarios.grid(price={"ETH": [-0.1, -0.2]}, family=True),
        ),
        "quasi_random": ("n = 4\ndepth = [0.5, 1]\nseed = 1", scenarios.quasi_random(4, depth=(0.5, 1), seed=1)),
        "correlated": (
            "n = 4\nseed = 1\nvolatility = {ETH = 0.1, BTC = 0.2}\ncorrelation = {ETH = {BTC = 0.5}}",
            scenarios.correlated(4, volatility={"ETH": 0.1, "BTC": 0.2}, correlation=0.5, seed=1),
        ),
        "historical": ('returns = "returns.csv"\nwindow = 5', scenarios.historical(past(), 5)),
        "bootstrap": (
            'returns = "returns.csv"\nn = 4\nblock = 2.5\nhorizon = 3\nseed = 1',
            scenarios.bootstrap(past(), 4, block=2.5, horizon=3, seed=1),
        ),
        "defaults": ('nodes = ["bob"]', scenarios.defaults(market(), ["bob"])),
    }
    for name, (text, expected) in tables.items():
        path = tmp_path / f"{name}.toml"
        path.write_text(f"[{name}]\n{text}\n")
        assert scenarios.read(path, market()).shocks == expected.shocks, name
    assert scenarios.read("[bootstrap]\nreturns = {a = [0.1, 0.2]}\nn = 2\nblock = 1\nseed = 1").parameters.shape == (
        2,
        1,
    )


shares = st.floats(0, 1)
changes = st.dictionaries(st.text(min_size=1), st.floats(-1, 5), min_size=1, max_size=3)
simple = st.one_of(
    st.builds(nc.Shock),
    st.builds(lambda price, family: nc.Shock.price(price, family=family), changes, st.booleans()),
    st.builds(nc.Shock.depth, st.floats(0.01, 5)),
    st.builds(nc.Shock.loss, shares),
    st.builds(nc.Shock.loss, st.dictionaries(st.text(), st.floats(0, 1e12), min_size=1, max_size=2)),
    st.builds(lambda names: nc.Shock.default(*names), st.sets(st.text(), min_size=1)),
    st.builds(lambda names: nc.Shock.outage(*names), st.sets(st.text(), min_size=1)),
)
composed = st.lists(simple, min_size=1, max_size=4).map(lambda parts: sum(parts, nc.Shock()))
paths = st.builds(
    lambda parts, every: nc.Shock.path(parts, every=every),
    st.lists(composed, min_size=1, max_size=3),
    st.integers(1, 9),
)


@common
@given(st.lists(paths, min_size=1, max_size=3))
def test_shocks_come_back_from_toml_as_they_went(tmp_path_factory, shocks):
    path = tmp_path_factory.mktemp("toml") / "x.toml"
    made = scenarios.Scenarios(shocks, {"number": range(len(shocks)), 'a "quoted" name': ["x\n"] * len(shocks)})
    assert scenarios.write(made, path) == path
    again = scenarios.read(path)
    assert again == made
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_parameters_come_back_with_their_kinds(tmp_path):
    made = scenarios.Scenarios(
        [nc.Shock.depth(0.5)] * 2,
        {
            "date": pd.to_datetime(["2024-01-01", "2024-01-02"]),
            "x": [0.1, math.nan],
            "n": [1, 2],
            "ok": [True, False],
        },
    )
    again = scenarios.read(scenarios.write(made, tmp_path / "x.toml")).parameters
    pd.testing.assert_frame_equal(again, made.parameters, check_dtype=False)
    assert again["date"].dtype.kind == "M"


def test_what_toml_cannot_say_is_refused_and_nothing_is_written(tmp_path):
    made = scenarios.as_scenarios([nc.Shock.loss({7: 1.0}), nc.Shock.default(7), nc.Shock.price({("a", 1): -0.1})])
    with pytest.raises(nc.SchemaError) as error:
        scenarios.write(made, tmp_path / "x.toml")
    assert [problem.row for problem in error.value.problems] == [0, 2]
    assert not list(tmp_path.iterdir())


def test_a_file_with_errors_lists_them_all():
    text = """
    [[scenario]]
    prise = {ETH = -0.3}
    price = {ETH = -1.5, BTC = -2, SOL = -0.1}
    [[scenario]]
    depth = 0
    family = "yes"
    plus = [{loss = 2}]
    later = [{round = 0, depth = 1}]
    [grid]
    price = {ETH = [-3]}
    [quasi_random]
    deth = [0.5, 1]
    [defaults]
    [gird]
    """
    with pytest.raises(nc.SchemaError) as error:
        scenarios.read(text)
    places = [(problem.table, problem.column, problem.row) for problem in error.value.problems]
    assert places == [
        ("scenario", "prise", 0),
        ("scenario", "price", 0),
        ("scenario", "price", 0),
        ("scenario", "depth", 1),
        ("scenario", "loss", 1),
        ("scenario", "later.round", 1),
        ("grid", "price['ETH']", 0),
        ("quasi_random", "deth", None),
        ("quasi_random", "n", None),
        ("quasi_random", "seed", None),
        ("defaults", "net", None),
        ("TOML", "gird", None),
    ]
    said = str(error.value)
    assert "did you mean 'price'" in said
    assert "did you mean 'depth'" in said
    assert "price change of 'BTC' is -2; allowed: -1 (worthless) or above" in said
    assert nearest("gird", ["grid"]) == ["grid"]
    assert "did you mean 'grid'" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = ", "the text is not TOML"),
        ("missing.toml", "missing.toml cannot be read"),
        ("[sweep]\n", "no scenario"),
        ("[scenario]\ndepth = 1", r"write \[\[scenario\]\]"),
        ("[[scenario]]\nparameters = 3", "a table"),
        ("[[scenario]]\nprice = {ETH = -0.1}\nfamily = 1", "family is 1"),
        ("[[scenario]]\nplus = {depth = 1}", "an array of tables"),
        ("scenario = [3]", "row 0: 3; allowed: a table"),
        ("grid = 3", r"write \[grid\]"),
        ("[historical]\nreturns = 'nowhere.csv'", "a CSV file"),
    ],
)
def test_bad_files_are_one_clear_error(text, said):
    with pytest.raises(nc.ContagionError, match=said):
        scenarios.read(text)


@pytest.mark.parametrize("module", ["_scenarios", "_designs", "_draws", "_returns", "_toml"])
def test_examples_run_as_written(module):
    found = doctest.testmod(import_module(f"netcontagion.scenarios.{module}"))
    assert found.attempted
    assert not found.failed
