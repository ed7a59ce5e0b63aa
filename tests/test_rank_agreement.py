"""Agreement of measures with realised losses, and ranges of ranks: against plain counts, laws and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from seeds import slow

import netcontagion as nc
from netcontagion.ranking import agreement, amplifiers, rank_ranges, reconstructions
from netcontagion.ranking._agreement import _correlated


def banks(assets=(9.0, 7.0, 5.0, 3.0, 2.0), owes=(8.0, 6.0, 4.0, 2.0, 1.0)):
    """Debtors d0 to d4 that each owe one creditor of their own; who owes more fails with more."""
    size = len(assets)
    names = [f"d{n}" for n in range(size)]
    return nc.ExposureNetwork(
        traders={"trader": [*names, *(f"c{n}" for n in range(size))],
                 "external_assets": [*assets, *[20.0] * size]},
        liabilities={"debtor": names, "creditor": [f"c{n}" for n in range(size)], "amount": list(owes)},
    )  # fmt: skip


def plain_spearman(one, other):
    """Correlation of ranks, ties sharing their average, from the definition."""

    def ranks(values):
        return [sum(x < v for x in values) + (sum(x == v for x in values) + 1) / 2 for v in values]

    return float(np.corrcoef(ranks(one), ranks(other))[0, 1])


def plain_kendall(one, other):
    """Concordant less discordant pairs, over the root of the pairs that do not tie in either."""
    signs = [
        (np.sign(one[i] - one[j]), np.sign(other[i] - other[j])) for i in range(len(one)) for j in range(i)
    ]  # fmt: skip
    first, second = (sum(1 for pair in signs if pair[side]) for side in (0, 1))
    return float(sum(a * b for a, b in signs) / math.sqrt(first * second))


@pytest.mark.parametrize("seed", range(20))
def test_correlations_are_those_of_plain_counts(seed):
    rng = np.random.default_rng(seed)
    one, other = rng.integers(0, 6, (2, int(rng.integers(4, 25)))).astype(float)
    if np.ptp(one) and np.ptp(other):
        found = _correlated(one, other, 0.95)
        assert found.spearman == pytest.approx(plain_spearman(one, other), abs=1e-12)
        assert found.kendall == pytest.approx(plain_kendall(one, other), abs=1e-12)
        assert found.spearman_low <= found.spearman <= found.spearman_high
        assert found.kendall_low <= found.kendall <= found.kendall_high


@pytest.mark.parametrize("rho", [0.5, *slow(0.0, 0.8)])
def test_intervals_hold_the_true_correlation_as_often_as_they_say(rho):
    # of two normals rho is 6 / pi arcsin(r / 2), tau is 2 / pi arcsin r
    truth = (6 / math.pi * math.asin(rho / 2), 2 / math.pi * math.asin(rho))
    rng, held = np.random.default_rng(7), np.zeros(2)
    for _ in range(300):
        first, noise = rng.standard_normal((2, 60))
        found = _correlated(first, rho * first + math.sqrt(1 - rho**2) * noise, 0.95)
        held += [found.spearman_low <= truth[0] <= found.spearman_high,
                 found.kendall_low <= truth[1] <= found.kendall_high]  # fmt: skip
    assert (held >= 0.92 * 300).all()
    assert (held <= 0.99 * 300).all()


def test_the_exact_p_value_of_a_perfect_order():
    found = _correlated(np.arange(5.0), np.arange(5.0) ** 3, 0.9)
    assert found.kendall_p == pytest.approx(2 / math.factorial(5))
    assert found.spearman_p == pytest.approx(2 / math.factorial(5))
    assert (found.spearman, found.spearman_low, found.spearman_high) == pytest.approx((1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("one", "other", "p_value"),
    [
        ([1, 2], [1, 2], 1.0),
        ([1, 2, 3], [1, 2, 3], 2 / 6),
        ([1, 2, 3], [3, 2, 1], 2 / 6),
        ([1, 2, 3], [1, 3, 2], 1.0),  # rho 0.5: no order is nearer to 0
        ([0, 0, 1], [0, 0, 1], 2 / 6),  # the last stays in its place in two orders
        ([0, 0, 1], [0, 1, 0], 1.0),
        (range(20), range(20), 2 / math.factorial(20)),
    ],
)
def test_p_values_by_hand(one, other, p_value):
    found = _correlated(np.array(one, dtype=float), np.array(other, dtype=float), 0.95)
    assert found.spearman_p == pytest.approx(p_value, rel=1e-12)


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6, 7, *slow(8)])
@pytest.mark.parametrize("ties", [False, True])
def test_p_values_of_few_nodes_are_those_of_all_orders(size, ties):
    rng = np.random.default_rng(size)
    one, other = rng.integers(0, 3, (2, size)) if ties else rng.random((2, size))
    one, other = np.append(one, 9.0)[-size:], np.append(other, 7.0)[-size:]  # never all the same
    rank = scipy.stats.rankdata(other)

    def rho(values, axis=-1):
        ranks = scipy.stats.rankdata(values, axis=axis) - (size + 1) / 2
        return np.abs(ranks @ (rank - rank.mean()))

    expected = scipy.stats.permutation_test(
        (one,), rho, permutation_type="pairings", alternative="greater", n_resamples=np.inf, vectorized=True
    ).pvalue
    found = _correlated(one, other, 0.95)
    assert found.spearman_p == pytest.approx(expected, rel=1e-12)
    if not ties:
        assert found.spearman_p >= 2 / math.factorial(size)


def test_p_values_of_more_nodes_are_those_of_student():
    one, other = np.random.default_rng(3).random((2, 9))
    expected = scipy.stats.spearmanr(one, other).pvalue
    assert _correlated(one, other, 0.95).spearman_p == pytest.approx(expected, rel=1e-12)


def test_what_says_nothing_is_not_a_number_and_few_nodes_say_little():
    assert math.isnan(_correlated(np.ones(6), np.arange(6.0), 0.95).spearman)
    few = _correlated(np.arange(4.0), np.array([0.0, 2.0, 1.0, 3.0]), 0.95)
    assert (few.spearman_low, few.spearman_high) == (-1.0, 1.0)


def test_what_nodes_lose_and_what_they_cause_are_told_apart():
    net = banks()
    shocks = nc.scenarios.defaults(net)
    lost = agreement(net, shocks, "linear_debtrank", run=nc.clear, progress=False)
    caused = agreement(net, shocks, "linear_debtrank", run=nc.clear, realised="caused", progress=False)
    # by hand: who defaults causes what it owes, which is its score; it loses itself what it has less what it owes: 1
    scores = nc.rank(net, "linear_debtrank")["linear_debtrank"]
    passed = sum(amplifiers(nc.clear(net, shock))["passed_on"] for shock in shocks.shocks)
    expected = plain_spearman(scores[net.nodes].tolist(), passed[net.nodes].tolist())
    assert caused.loc[("trader", "linear_debtrank"), "spearman"] == pytest.approx(expected)
    assert expected == pytest.approx(1.0)
    assert lost.loc[("trader", "linear_debtrank"), "spearman"] < 0
    assert caused.loc[("trader", "linear_debtrank"), "nodes"] == 10


def test_realised_losses_of_a_cascade_are_those_of_its_runs():
    net = nc.datasets.load("market")
    falls = [nc.Shock.price({"ETH": -x}, family=True) for x in (0.1, 0.3)]
    found = agreement(net, falls, ["linear_debtrank", "overlap"], progress=False, seed=1)
    scores = nc.rank(net, "overlap")
    traders = scores[scores["kind"] == "trader"]["overlap"]
    lost = sum(nc.cascade(net, shock).traders["loss"] for shock in falls)[traders.index]
    expected = plain_spearman(traders.tolist(), lost.tolist())
    assert found.loc[("trader", "overlap"), "spearman"] == pytest.approx(expected, abs=1e-9)
    assert math.isnan(found.loc[("trader", "linear_debtrank"), "spearman"])  # no trader owes more than it has pledged


def test_agreement_says_what_is_wrong():
    net = banks()
    with pytest.raises(nc.UnknownLabelError, match="caused"):
        agreement(net, nc.Shock(), "linear_debtrank", realised="cause")
    with pytest.raises(ValueError, match="confidence is 1"):
        agreement(net, nc.Shock(), "linear_debtrank", confidence=1)


# ranges -------------------------------------------------------------------------------------------------------------


def test_ranges_by_hand():
    # d0 owes most in the first network, least in the others
    nets = [banks(), *[banks(owes=(1.0, 6.0, 4.0, 2.0, 1.5))] * 3]
    found = rank_ranges(nets, "linear_debtrank", quantiles=[0.25, 0.9])
    assert found.columns.tolist() == ["min", "q0.25", "median", "q0.9", "max", "rankings"]
    row = found.loc[("linear_debtrank", "trader", "d0")]
    assert row.tolist() == [1, 1, 5, 5, 5, 4]
    assert found.index.get_level_values("node")[0] == "d1"  # its median is 1


def test_one_ranking_has_no_range_and_nodes_may_be_missing():
    net, more = banks(), banks(assets=(9.0, 7.0, 5.0, 3.0, 2.0, 4.0), owes=(8.0, 6.0, 4.0, 2.0, 1.0, 3.0))
    found = rank_ranges(net, ["linear_debtrank", "debtrank"])
    assert (found["min"] == found["max"]).all()
    assert found.index.unique("measure").tolist() == ["linear_debtrank", "debtrank"]
    both = rank_ranges({"small": net, "large": more}, "linear_debtrank").droplevel(["measure", "kind"])["rankings"]
    assert (both["d5"], both["d0"]) == (1, 2)


def test_ranks_over_scenarios():
    net = nc.datasets.load("market")
    shocks = [nc.Shock(), nc.Shock.price({"ETH": -0.5}, family=True)]
    found = rank_ranges(net, "linear_debtrank", shocks=shocks)
    assert (found["rankings"] == 2).all()
    each = [nc.rank(net, "linear_debtrank", shock=shock)["linear_debtrank_rank"] for shock in shocks]
    for node in net.labels("exchanges"):
        low, high = sorted(float(ranks[node]) for ranks in each)
        assert found.loc[("linear_debtrank", "exchange", node), ["min", "max"]].tolist() == [low, high]


def test_reconstructions_keep_what_every_node_owes_and_is_owed():
    net = nc.generators.core_periphery(12, seed=3)
    nets = reconstructions(net, 3, seed=1, link_probability=0.4)
    owed = net.exposures("traders", "traders").matrix
    assert len({one.data_hash for one in nets}) == 3
    for one in nets:
        drawn = one.exposures("traders", "traders").matrix
        for axis in (0, 1):
            np.testing.assert_allclose(drawn.sum(axis=axis), owed.sum(axis=axis), rtol=1e-9)
        assert one.traders.equals(net.traders)
    ranges = rank_ranges(nets, "debtrank")
    assert (ranges["rankings"] == 3).all()
    assert (ranges["max"] > ranges["min"]).any()
    assert len(reconstructions(net, method="max_entropy")) == 1


def test_reconstructions_say_what_is_wrong():
    with pytest.raises(nc.ContagionError, match="no liabilities to reconstruct"):
        reconstructions(nc.datasets.load("market"))
    net = banks()
    ranked = net.replace(liabilities=net.liabilities.assign(seniority=[0, 1, 0, 0, 0]).reset_index())
    with pytest.raises(nc.ContagionError, match="several seniorities"):
        reconstructions(ranked, link_probability=0.5)
    with pytest.raises(TypeError, match="not int"):
        rank_ranges(3)
    with pytest.raises(TypeError, match="there is none"):
        rank_ranges([])
    with pytest.raises(ValueError, match="a quantile is 1"):
        rank_ranges(net, "debtrank", quantiles=[1])


def test_a_ranking_that_was_made_is_not_made_again(monkeypatch):
    net, measures = banks(), ["linear_debtrank", "loss_if_defaults"]
    shocks, shock = [nc.Shock.loss(0.3), nc.Shock.loss(0.6)], nc.Shock.loss(0.5)
    ranking = nc.rank(net, measures, shock=shock)
    given = {"run": nc.clear, "realised": "caused", "progress": False}
    expected = agreement(net, shocks, measures, shock=shock, **given)
    with monkeypatch.context() as patch:
        patch.setattr("netcontagion.ranking._defaults.loss_if_defaults", None)
        found = agreement(net, shocks, ranking, **given)
    pd.testing.assert_frame_equal(found, expected)
    assert found["nodes"].tolist() == [10, 10]
    debtors = agreement(net, shocks, ranking[ranking.index.str.startswith("d")], **given)
    assert debtors["nodes"].tolist() == [5, 5]
    with pytest.raises(TypeError, match="has seen its shock"):
        agreement(net, shocks, ranking, shock=shock, **given)
    with pytest.raises(ValueError, match="'c0' is not in it"):
        agreement(nc.datasets.load("market"), shocks, ranking, **given)
    with pytest.raises(ValueError, match="no ranking of this network; give what"):
        agreement(net, shocks, ranking.drop(columns="kind"), **given)


@pytest.mark.parametrize("show", [True, False])
def test_bars_of_the_runs_of_measures_can_be_put_away(show, monkeypatch, capsys):
    monkeypatch.setattr("netcontagion.scenarios._sweep.QUIET", 0.0)
    market = nc.generators.market(10, seed=1)
    rank_ranges(market, "loss_if_defaults", progress=show)
    assert bool(capsys.readouterr().err) is show
    agreement(market, nc.Shock.depth(0.5), "loss_if_defaults", progress=show)
    assert bool(capsys.readouterr().err) is show
