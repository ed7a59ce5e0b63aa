"""Variation margin under stress: soft default, and payment in full or not at all."""

from __future__ import annotations

import itertools
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from netcontagion._status import Status
from netcontagion.clearing import eisenberg_noe, full_payment, margin_stress
from netcontagion.errors import ContagionError, NotSettledError, SchemaError

HERE = Path(__file__).resolve()
FIXTURE = json.loads((HERE.parent / "references" / "margin_stress.json").read_text(encoding="utf-8"))
SHARED = HERE.parents[2] / "shared" / "reference"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the folder shared/reference is not beside the checkout")

CHAIN = np.array([[0.0, 10, 0], [0, 0, 10], [0, 0, 0]])
RING = np.array([[0.0, 10, 0], [0, 0, 10], [10, 0, 0]])


# ---------------------------------------------------------------------------------------------------- published numbers


def disagreements(case, factor=1.0):
    given, tolerance = case["inputs"], case["tolerance"]["abs"]
    wrong = []
    for tau, key in zip(given["taus"], ("tau1", "tau05"), strict=True):
        found = margin_stress(given["vm"], given["buffer"], transmission=tau, initial_margin=given["im_held"])
        for name, value in (("stress", found.stress), ("paid", found.clearing.payments)):
            if not np.allclose(value, np.array(case["expected"][key][name]) * factor, rtol=0, atol=tolerance):
                wrong.append((key, name))
    return wrong


@pytest.mark.parametrize("case", FIXTURE["cases"], ids=lambda case: case["name"])
def test_case(case):
    assert disagreements(case) == []
    assert len(disagreements(case, 1.02)) == 4


@needs_shared
def test_every_case_of_the_shared_reference():
    files = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((SHARED / "cases").glob("*.json"))]
    cases = [case for case in files if case["model"] == "vm_transmission"]
    assert cases
    assert all(disagreements(case) == [] for case in cases)


def test_soft_default_pays_more_than_there_is_and_borrows_the_gap():
    result = margin_stress(CHAIN, [4, 5, 0], transmission=0.5)
    assert result.clearing.payments.tolist() == [7, 10, 0]
    assert result.stress.tolist() == [6, 0, 0]
    assert result.borrowed.tolist() == [3, 0, 0]
    assert result.clearing.payments[0] > 4  # no limited liability in its own cash


def test_hoarding_pays_less_than_there_is_and_keeps_it():
    result = margin_stress(CHAIN, [8, 5, 0], transmission=2.0)
    assert result.clearing.payments.tolist() == [6, 10, 0]
    assert result.borrowed.tolist() == [0, 0, 0]
    kept = 8 - result.clearing.payments[0]
    assert kept == 2
    assert not result.clearing.conserves


def test_initial_margin_is_used_by_its_holder_only_and_only_for_its_debtor():
    held_by_creditor, held_by_debtor = np.zeros((3, 3)), np.zeros((3, 3))
    held_by_creditor[1, 0], held_by_debtor[0, 1] = 4, 4
    helped = margin_stress(CHAIN, [4, 0, 0], transmission=1.0, initial_margin=held_by_creditor)
    assert helped.margin_used.tolist() == [0, 4, 0]
    assert helped.clearing.payments.tolist() == [4, 8, 0]
    assert helped.margin_matrix().toarray().tolist() == [[0, 4, 0], [0, 0, 0], [0, 0, 0]]
    other = margin_stress(CHAIN, [4, 0, 0], transmission=1.0, initial_margin=held_by_debtor)
    assert other.margin_used.tolist() == [0, 0, 0]
    assert other.clearing.payments.tolist() == [4, 4, 0]


def test_no_more_margin_is_used_than_is_missing():
    held = scipy.sparse.coo_array(([100.0], ([1], [0])), shape=(3, 3))
    result = margin_stress(CHAIN, [4, 0, 0], transmission=1.0, initial_margin=held)
    assert result.margin_used.tolist() == [0, 6, 0]
    assert result.clearing.payments.tolist() == [4, 10, 0]


# ------------------------------------------------------------------------------------------------------------- the laws

amounts = st.one_of(st.just(0.0), st.integers(1, 24).map(lambda half: half / 2))
taus = st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0, 1.5, 3.0])
common = settings(max_examples=28, deadline=None, derandomize=True)


@st.composite
def days(draw, passed=taus):
    """Build obligations, liquidity, transmission and margin."""
    nodes = draw(st.integers(1, 5))
    owed, held = (
        np.array(draw(st.lists(amounts, min_size=nodes**2, max_size=nodes**2))).reshape(nodes, nodes) for _ in range(2)
    )
    np.fill_diagonal(owed, 0)
    np.fill_diagonal(held, 0)
    cash = np.array(draw(st.lists(amounts, min_size=nodes, max_size=nodes)))
    return owed, cash, np.array(draw(st.lists(passed, min_size=nodes, max_size=nodes))), held


def solved(day, **options):
    owed, cash, passed, held = day
    return margin_stress(owed, cash, transmission=passed, initial_margin=held, **options)


def slow_margin_stress(day, rounds=4000):
    """Iterate from full payment, one node and one edge at a time."""
    owed, cash, passed, held = day
    nodes, paid = range(len(cash)), owed.copy()
    for _ in range(rounds):
        new = owed.copy()
        for i in nodes:
            due = sum(owed[i, j] for j in nodes)
            got = sum(paid[k, i] + min(owed[k, i] - paid[k, i], held[i, k]) for k in nodes)
            stress = max(due - got - cash[i], 0.0)
            for j in nodes:
                if owed[i, j]:
                    new[i, j] = max(owed[i, j] - passed[i] * stress * owed[i, j] / due, 0.0)
        if np.abs(new - paid).max() < 1e-14:
            return new
        paid = new
    return paid


@given(days())
@settings(common, max_examples=25)
def test_the_slow_twin_finds_the_same_payments(day):
    result = solved(day)
    np.testing.assert_allclose(result.clearing.payment_matrix().toarray(), slow_margin_stress(day, 600), atol=1e-6)


@given(days())
@common
def test_payments_solve_the_equation_in_range_and_between_bounds(day):
    result = solved(day)
    owed, cash, passed, held = day
    paid = result.clearing.payment_matrix().toarray()
    got = (paid + np.minimum(owed - paid, held.T)).sum(axis=0)
    stress = np.maximum(owed.sum(axis=1) - got - cash, 0)
    np.testing.assert_allclose(result.stress, stress, atol=1e-8)
    np.testing.assert_allclose(result.margin_used, got - paid.sum(axis=0), atol=1e-8)
    expected = np.maximum(owed.sum(axis=1) - passed * stress, 0)
    np.testing.assert_allclose(result.clearing.payments, expected, atol=1e-7)
    assert (result.clearing.lower <= result.clearing.payments).all()
    assert (result.clearing.payments <= result.clearing.upper).all()
    result.clearing.check()


@given(days())
@common
def test_cash_with_margin_used_and_borrowing_is_conserved(day):
    result = solved(day)
    owed, cash, passed, _ = day
    paid = result.clearing.payment_matrix().toarray()
    final = cash + result.margin_used + result.borrowed + paid.sum(axis=0) - paid.sum(axis=1)
    assert (final >= -1e-7).all()  # what is paid was there, was margin, or was borrowed
    total = cash.sum() + result.margin_used.sum() + result.borrowed.sum()
    assert final.sum() == pytest.approx(total, abs=1e-7)
    assert (result.borrowed[passed >= 1] == 0).all()  # liability is limited where tau is at least 1
    np.testing.assert_allclose(
        result.borrowed,
        np.maximum(result.clearing.payments - cash - paid.sum(axis=0) - result.margin_used, 0),
        atol=1e-7,
    )
    assert owed.shape == result.margin_matrix().shape
    np.testing.assert_allclose(result.margin_matrix().sum(axis=0), result.margin_used, atol=1e-9)


@given(days(passed=st.just(1.0)))
@common
def test_full_transmission_without_margin_is_eisenberg_noe(day):
    owed, cash, _, _ = day
    result = margin_stress(owed, cash, transmission=1.0)
    expected = eisenberg_noe(owed, cash)
    np.testing.assert_allclose(result.clearing.payments, expected.payments, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(result.stress, np.maximum(-expected.net_worth, 0), rtol=1e-8, atol=1e-8)


@given(days(), st.integers(0, 4), st.sampled_from(["cash", "margin", "patience"]))
@common
def test_payments_rise_with_cash_and_margin_and_fall_with_transmission(day, place, what):
    owed, cash, passed, held = (part.copy() for part in day)
    node = place % len(cash)
    if what == "cash":
        cash[node] += 2
    elif what == "margin":
        held[node] += 2
        held[node, node] = 0
    else:
        passed[node] /= 2
    before, after = solved(day), solved((owed, cash, passed, held))
    assert (after.clearing.payments >= before.clearing.payments - 1e-7).all()


@given(days(), st.randoms(use_true_random=False))
@common
def test_names_of_nodes_do_not_matter(day, random):
    owed, cash, passed, held = day
    order = list(range(len(cash)))
    random.shuffle(order)
    square = np.ix_(order, order)
    plain, shuffled = solved(day), solved((owed[square], cash[order], passed[order], held[square]))
    np.testing.assert_allclose(shuffled.clearing.payments, plain.clearing.payments[order], atol=1e-7)
    np.testing.assert_allclose(shuffled.borrowed, plain.borrowed[order], atol=1e-7)


@given(days(), st.sampled_from([1e-12, 7.0, 1e12]))
@common
def test_the_unit_of_money_does_not_matter(day, unit):
    owed, cash, passed, held = day
    plain, scaled = solved(day), solved((unit * owed, unit * cash, passed, unit * held))
    np.testing.assert_allclose(scaled.clearing.payments / unit, plain.clearing.payments, atol=1e-7)
    np.testing.assert_allclose(scaled.margin_used / unit, plain.margin_used, atol=1e-7)


@given(days(passed=st.sampled_from([0.0, 0.3, 0.7, 0.95])))
@common
def test_payments_are_unique_where_less_than_all_stress_is_passed_on(day):
    result = solved(day)
    assert result.clearing.width <= 1e-10
    assert not result.clearing.assumptions


def test_hoarders_can_be_stuck_though_all_of_them_could_pay():
    # each has 6 of 10: out of nothing stress is 4, and 2.5 x 4 is everything; out of full payment nobody is in stress
    result = margin_stress([[0, 10], [10, 0]], [6, 6], transmission=2.5)
    assert result.clearing.payments.tolist() == [10, 10]
    assert result.clearing.lower.tolist() == [0, 0]
    assert any("may differ" in sentence for sentence in result.clearing.assumptions)
    assert result.clearing.enclosure == "bracket"


def test_a_cycle_without_cash_pays_in_full_and_is_not_certain():
    result = margin_stress(RING, [0, 0, 0], transmission=1.0)
    assert result.clearing.payments.tolist() == [10, 10, 10]
    assert result.clearing.width == pytest.approx(1)
    assert result.clearing.status is Status.SETTLED


def one_round_exactly(day, paid):
    """Apply the map to what everybody pays, in fractions."""
    owed, cash, passed, held = ([[Fraction(x) for x in row] for row in np.atleast_2d(part).tolist()] for part in day)
    nodes, new = range(len(cash[0])), []
    due = [sum(owed[i]) for i in nodes]
    for i in nodes:
        got = sum(min(owed[k][i], owed[k][i] * paid[k] / due[k] + held[i][k]) if due[k] else Fraction(0) for k in nodes)
        new.append(max(due[i] - passed[0][i] * max(due[i] - got - cash[0][i], Fraction(0)), Fraction(0)))
    return new


@pytest.mark.parametrize("tau", [0.3, 0.9, 1.0, 1.7])
def test_bounds_enclose_in_exact_arithmetic(tau):
    # the map is monotone: below what it maps up there is a solution above, and above what it maps down one below
    for seed in range(12):
        random = np.random.default_rng(seed)
        owed = random.random((6, 6)) * (random.random((6, 6)) < 0.5)
        np.fill_diagonal(owed, 0)
        day = owed, random.random(6) * random.choice([0.2, 1.0]), tau * random.random(6), 0.1 * random.random() * owed.T
        clearing = solved(day).clearing
        lower, upper = ([Fraction(x) for x in bound.tolist()] for bound in (clearing.lower, clearing.upper))
        assert all(up >= x for x, up in zip(lower, one_round_exactly(day, lower), strict=True))
        assert all(down <= x for x, down in zip(upper, one_round_exactly(day, upper), strict=True))
        assert clearing.width <= 1e-10


def test_a_slow_cycle_stops_at_max_rounds():
    cycle = np.array([[0.0, 1, 1e-9], [1, 0, 0], [0, 0, 0]])
    with pytest.raises(NotSettledError, match="MAX_ROUNDS") as caught:
        margin_stress(cycle, [0, 0, 0], transmission=1.0, max_rounds=50)
    kept = caught.value.result
    assert kept.clearing.status is Status.MAX_ROUNDS
    assert kept.stress.shape == (3,)
    loose = margin_stress(cycle, [0, 0, 0], transmission=1.0, max_rounds=50, strict=False)
    assert loose.clearing.iterations == 50
    assert (loose.clearing.lower <= [0, 0, 0]).all()  # the answer is inside


def test_scenarios_stand_side_by_side():
    cash = np.array([[4.0, 20.0], [1, 1], [0, 0]])
    result = margin_stress(CHAIN, cash, transmission=0.5)
    assert result.stress.tolist() == [[6, 0], [2, 0], [0, 0]]
    assert result.borrowed.shape == (3, 2)
    single = margin_stress(CHAIN, cash[:, 0], transmission=0.5)
    np.testing.assert_array_equal(result.clearing.payments[:, 0], single.clearing.payments)
    assert result.margin_matrix(1).sum() == 0
    assert "3 to 6" not in repr(single)
    assert "stress 0 to 8" in repr(result)
    assert margin_stress(CHAIN, np.zeros((3, 0)), transmission=1.0).stress.shape == (3, 0)


def test_labels_join_what_is_given_in_another_order():
    names = ["a", "b", "c"]
    owed = pd.DataFrame(CHAIN, names, names)
    held = pd.DataFrame(0.0, names, names)
    held.loc["b", "a"] = 3.0
    cash, passed = pd.Series([0.0, 1, 4], ["c", "b", "a"]), pd.Series([1.0, 1.0, 0.5], ["c", "b", "a"])
    backwards = held.iloc[::-1, ::-1]
    result = margin_stress(owed, cash, transmission=passed, initial_margin=backwards)
    assert result.stress.to_dict() == {"a": 6, "b": 0, "c": 0}
    assert result.clearing.payments.to_dict() == {"a": 7, "b": 10, "c": 0}
    assert result.margin_used["b"] == 3
    paid = full_payment(owed, cash, order=["c", "b", "a"])
    assert paid.borrowed.to_dict() == {"a": 6, "b": 9, "c": 0}


# --------------------------------------------------------------------------------------------------------- full payment


def slow_full_payment(owed, cash, rule):
    """Settle one node at a time, going round until nobody can pay; then lend, by the rule."""
    nodes, due = range(len(cash)), owed.sum(axis=1)
    purse, waits, borrowed = cash.copy(), [bool(due[i] > 0) for i in range(len(cash))], np.zeros(len(cash))

    def pay(i):
        waits[i] = False
        purse[i] -= due[i]
        for j in nodes:
            purse[j] += owed[i, j]

    def settle():
        while True:
            able = [i for i in nodes if waits[i] and purse[i] >= due[i] * (1 - 1e-12)]
            if not able:
                return
            pay(able[-1])

    settle()
    on_time = np.array([0.0 if waits[i] else due[i] for i in nodes])
    while any(waits):
        waiting = [i for i in nodes if waits[i]]
        if rule == "together":
            chosen = waiting
        elif rule == "smallest_first":
            chosen = [min(waiting, key=lambda i: (due[i] - purse[i], i))]
        elif rule == "largest_first":
            chosen = [min(waiting, key=lambda i: (purse[i] - due[i], i))]
        else:
            chosen = [next(i for i in rule if waits[i])]
        for i in chosen:
            borrowed[i] = due[i] - purse[i]
        for i in chosen:
            purse[i] += borrowed[i]
        for i in chosen:
            pay(i)
        settle()
    return on_time, borrowed, purse


@pytest.mark.parametrize("rule", ["together", "smallest_first", "largest_first", "given"])
@given(days())
@common
def test_the_slow_twin_pays_and_borrows_the_same(rule, day):
    owed, cash, _, _ = day
    order = list(range(len(cash)))[::-1] if rule == "given" else rule
    result = full_payment(owed, cash, order=order)
    on_time, borrowed, purse = slow_full_payment(owed, cash, order)
    np.testing.assert_allclose(result.clearing.payments, on_time, atol=1e-9)
    np.testing.assert_allclose(result.borrowed, borrowed, atol=1e-9)
    np.testing.assert_allclose(result.final_cash, purse, atol=1e-9)
    result.check()


orders = st.sampled_from(["together", "smallest_first", "largest_first"])


@given(days(), orders)
@common
def test_payments_are_at_most_and_shortfalls_at_least_those_of_eisenberg_noe(day, order):
    owed, cash, _, _ = day
    result = full_payment(owed, cash, order=order)
    for which in ("least", "greatest"):
        clearing = eisenberg_noe(owed, cash, which=which)
        assert (result.clearing.payments <= clearing.payments + 1e-8).all()
        assert (result.shortfall >= np.maximum(-clearing.net_worth, 0) - 1e-8).all()
    assert result.shortfall.sum() >= eisenberg_noe(owed, cash).shortfall.sum() - 1e-8


@given(days(), orders)
@common
def test_loans_are_conserved_and_between_what_is_needed_and_all_shortfalls(day, order):
    owed, cash, _, _ = day
    result = full_payment(owed, cash, order=order)
    assert result.final_cash.sum() == pytest.approx(cash.sum() + result.borrowed.sum(), abs=1e-8)
    assert (result.final_cash >= -1e-8).all()
    net = owed.sum(axis=0) - owed.sum(axis=1)
    np.testing.assert_allclose(result.final_cash, cash + net + result.borrowed, atol=1e-8)
    assert (result.borrowed >= np.maximum(-cash - net, 0) - 1e-8).all()
    assert (result.borrowed <= result.shortfall + 1e-8).all()
    assert result.borrowed.sum() <= full_payment(owed, cash, order="together").borrowed.sum() + 1e-8


@given(days(), st.randoms(use_true_random=False), st.sampled_from([1e-12, 1.0, 1e12]))
@common
def test_names_and_unit_do_not_matter_when_all_borrow_together(day, random, unit):
    owed, cash, _, _ = day
    order = list(range(len(cash)))
    random.shuffle(order)
    plain = full_payment(owed, cash, order="together")
    other = full_payment(unit * owed[np.ix_(order, order)], unit * cash[order], order="together")
    np.testing.assert_allclose(other.clearing.payments / unit, plain.clearing.payments[order], atol=1e-8)
    np.testing.assert_allclose(other.borrowed / unit, plain.borrowed[order], atol=1e-8)
    assert other.turn.tolist() == plain.turn[order].tolist()


@given(days(), st.randoms(use_true_random=False))
@common
def test_what_is_paid_before_borrowing_does_not_depend_on_the_order(day, random):
    owed, cash, _, _ = day
    order = list(range(len(cash)))
    random.shuffle(order)
    one, other = full_payment(owed, cash, order=order), full_payment(owed, cash, order="largest_first")
    np.testing.assert_array_equal(one.clearing.payments, other.clearing.payments)
    np.testing.assert_allclose(one.shortfall, other.shortfall, atol=1e-8)


def test_what_is_borrowed_depends_on_the_order():
    assert full_payment(CHAIN, [0, 0, 0], order=[0, 1, 2]).borrowed.tolist() == [10, 0, 0]
    assert full_payment(CHAIN, [0, 0, 0], order=[1, 0, 2]).borrowed.tolist() == [10, 10, 0]
    totals = {full_payment(RING, [1, 2, 3], order=order).borrowed.sum() for order in itertools.permutations(range(3))}
    assert totals == {7, 8, 9}


def test_a_ring_with_little_cash_is_stuck_though_eisenberg_noe_pays_in_full():
    result = full_payment(RING, [1, 1, 1], order="smallest_first")
    assert eisenberg_noe(RING, [1, 1, 1]).shortfall.sum() == 0
    assert result.clearing.payments.tolist() == [0, 0, 0]
    assert result.shortfall.tolist() == [9, 9, 9]
    assert result.borrowed.tolist() == [9, 0, 0]
    assert result.turn.tolist() == [1, 1, 1]


def test_what_is_borrowed_can_be_less_than_the_shortfall_of_eisenberg_noe():
    # so "total shortfall >= that of Eisenberg-Noe" holds before borrowing, not for the loans
    assert eisenberg_noe(CHAIN, [0, 0, 0]).shortfall.sum() == 20
    assert full_payment(CHAIN, [0, 0, 0], order=[0, 1, 2]).borrowed.sum() == 10
    assert full_payment(CHAIN, [0, 0, 0], order=[0, 1, 2]).shortfall.sum() == 20


def test_the_smallest_need_first_is_not_always_the_cheapest_order():
    owed = np.array([[0.0, 4, 4], [3, 0, 0], [3, 0, 0]])
    cheapest = min(
        full_payment(owed, [0, 0, 0], order=list(p)).borrowed.sum() for p in itertools.permutations(range(3))
    )
    assert cheapest <= full_payment(owed, [0, 0, 0], order="smallest_first").borrowed.sum()
    chain = np.array([[0.0, 10, 0], [0, 0, 9], [0, 0, 0]])
    assert full_payment(chain, [0, 0, 0], order="smallest_first").borrowed.sum() == 19
    assert full_payment(chain, [0, 0, 0], order="largest_first").borrowed.sum() == 10


def test_who_lacks_most_is_found_anew_after_every_loan():
    owed = np.zeros((4, 4))
    owed[0, 2], owed[0, 3], owed[1, 2], owed[1, 3], owed[2, 3] = 5, 7, 5, 4, 10  # lack 12, 9, 10, then -, 9, 5
    result = full_payment(owed, np.zeros(4), order="largest_first")
    assert result.borrowed.tolist() == [12, 9, 0, 0]
    assert result.turn.tolist() == [1, 2, 2, 0]


def test_more_cash_can_mean_more_borrowing():
    chain = np.array([[0.0, 6, 0], [0, 0, 6], [0, 0, 0]])  # 1 lacks less than 0 once it has 3, and does not wait for it
    assert full_payment(chain, [2, 0, 0], order="smallest_first").borrowed.tolist() == [4, 0, 0]
    assert full_payment(chain, [2, 3, 0], order="smallest_first").borrowed.tolist() == [4, 3, 0]
    chain = np.array([[0.0, 4, 0], [0, 0, 5], [0, 0, 0]])
    assert full_payment(chain, [1, 2, 0], order="largest_first").borrowed.tolist() == [3, 0, 0]
    assert full_payment(chain, [3, 2, 0], order="largest_first").borrowed.tolist() == [1, 3, 0]


@given(days(), st.integers(0, 4))
@common
def test_before_borrowing_and_when_all_borrow_together_more_cash_helps(day, place):
    owed, cash, _, _ = day
    richer = cash + 2 * np.eye(len(cash))[place % len(cash)]
    before, after = (full_payment(owed, given, order="together") for given in (cash, richer))
    assert (after.clearing.payments >= before.clearing.payments).all()
    assert (after.borrowed <= before.borrowed + 1e-9).all()


def test_scenarios_of_full_payment_stand_side_by_side():
    cash = np.array([[0.0, 10], [0, 0], [0, 0]])
    result = full_payment(CHAIN, cash, order="together")
    assert result.borrowed.tolist() == [[10, 0], [10, 0], [0, 0]]
    assert result.turn.tolist() == [[1, 0], [1, 0], [0, 0]]
    assert "borrowed 0 to 20" in repr(result)
    result.check()


def test_a_long_chain_settles_link_by_link():
    nodes = 20_000
    chain = scipy.sparse.diags_array([np.full(nodes - 1, 2.0)], offsets=[1])
    result = full_payment(chain, np.append(2.0, np.zeros(nodes - 1)), order="smallest_first")
    assert result.clearing.payments.sum() == 2 * (nodes - 1)
    assert result.final_cash[-1] == 2


def test_check_finds_cash_from_nowhere():
    result = full_payment(RING, [1, 2, 3], order="together")
    object.__setattr__(result, "_final_cash", result.final_cash + 1)
    with pytest.raises(ContagionError, match="conserved"):
        result.check()


# ------------------------------------------------------------------------------------------------------------ bad input


def problems_of(call, *given, **options):
    with pytest.raises(SchemaError) as caught:
        call(*given, **options)
    return {(problem.table, problem.column, problem.row) for problem in caught.value.problems}


def test_every_problem_is_listed_under_the_names_of_the_call():
    owed = np.array([[1.0, -2.0, 0.0], [np.nan, 0.0, 0.0], [0.0, 0.0, 0.0]])
    held = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, np.inf], [0.0, 0.0, 2.0]])
    found = problems_of(margin_stress, owed, [1, -1, 1], transmission=[-0.5, 1, np.nan], initial_margin=held)
    assert found == {
        ("obligations", "0", 0),
        ("obligations", "1", 0),
        ("obligations", "0", 1),
        ("liquidity", None, 1),
        ("transmission", None, 0),
        ("transmission", None, 2),
        ("initial_margin", "1", 0),
        ("initial_margin", "2", 1),
        ("initial_margin", "2", 2),
    }


@pytest.mark.parametrize(
    ("given", "options", "expected"),
    [
        ((np.zeros((2, 3)), [1, 1]), {}, {("obligations", None, None)}),
        (([[0, 1], [0]], [1, 1]), {}, {("obligations", None, None)}),
        (
            ([[0, 1], [0, 0]], [1]),
            {"transmission": [1, 1, 1]},
            {("liquidity", None, None), ("transmission", None, None)},
        ),
        (([[0, 1], [0, 0]], [1, 1]), {"transmission": "all"}, {("transmission", None, None)}),
        (([[0, 1], [0, 0]], [1, 1]), {"transmission": np.inf}, {("transmission", None, None)}),
        (([[0, 1], [0, 0]], [1, 1]), {"initial_margin": np.zeros((3, 3))}, {("initial_margin", None, None)}),
        (([[0, 1], [0, 0]], [1, 1]), {"initial_margin": [1, 1]}, {("initial_margin", None, None)}),
    ],
)
def test_bad_shapes_and_numbers(given, options, expected):
    assert problems_of(margin_stress, *given, **({"transmission": 1.0} | options)) == expected


def test_labels_that_differ():
    owed = pd.DataFrame(CHAIN, list("abc"), list("abc"))
    held = pd.DataFrame(0.0, list("abd"), list("abd"))
    found = problems_of(margin_stress, owed, [1, 1, 1], transmission=1.0, initial_margin=held)
    assert found == {("initial_margin", None, None)}
    lacking = pd.Series([1.0, 1.0], ["a", "b"])
    assert problems_of(margin_stress, owed, [1, 1, 1], transmission=lacking) == {("transmission", None, 2)}


def test_a_negative_liquidity_names_the_cure():
    with pytest.raises(SchemaError, match="add what is missing to the obligations"):
        full_payment(CHAIN, [-1, 0, 0], order="together")


@pytest.mark.parametrize("options", [{"rtol": 0.0}, {"rtol": np.nan}, {"max_rounds": 0}])
def test_bad_options(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        margin_stress(CHAIN, [1, 1, 1], transmission=1.0, **options)


@pytest.mark.parametrize("order", ["random", [0, 1], [0, 1, 1], [0, 1, 3], []])
def test_an_order_names_every_node_once(order):
    with pytest.raises(ValueError, match="order"):
        full_payment(CHAIN, [1, 1, 1], order=order)


def test_results_are_read_only_and_the_input_is_not_changed():
    cash = np.array([4.0, 1, 0])
    result = margin_stress(CHAIN, cash, transmission=0.5)
    assert cash.flags.writeable
    for name in ("stress", "borrowed", "margin_used"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(result, name)[0] = 1
    paid = full_payment(CHAIN, cash, order="together")
    assert cash.tolist() == [4, 1, 0]
    for name in ("shortfall", "borrowed", "final_cash", "turn"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(paid, name)[0] = 1
