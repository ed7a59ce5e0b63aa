"""Forms of price impact: kernels and arrays against integrals, a walked order book, published numbers and laws."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.integrate
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from netcontagion import SchemaError, UnknownLabelError
from netcontagion._compile import kernel
from netcontagion.builders import depth_at, ladder
from netcontagion.clearing import _impact as clearing_impact
from netcontagion.margining import _forms, _trading, cash_from_sale, price_after_sale, units_for_cash
from netcontagion.margining._forms import DRY, FORMS, NO_LEVELS, PriceCurve, levels_of
from netcontagion.margining._impact import Curves, quotes
from netcontagion.margining._state import records
from netcontagion.network import Ladder, read_ladder, write_ladder

REFERENCES = json.loads((Path(__file__).parent / "references" / "price_formation.json").read_text(encoding="utf-8"))
GOLDEN = REFERENCES["golden"]["constant_product"]
CASES = {case["name"]: case for case in REFERENCES["cases"]}
SMOOTH = ("exponential", "linear", "square_root", "constant_product")
BOOK = "ladder 0.999:10 0.99:25 0.9:40 | 1.001:8 1.02:30 1.3:50"
ALL = (*SMOOTH, BOOK)


def curve(form, base=1.0, sold=0.0, depth=1.0):
    kind = form.split(" ")[0]
    return PriceCurve(
        FORMS[kind], float(base), float(sold), float(depth), levels_of(form) if " " in form else NO_LEVELS
    )


def most_that_pays(share, collateral, debt, mark_c, mark_d):
    """The kernel of the cascade on two curves, as rows of its table of books."""
    ends = np.cumsum([0, collateral.levels.shape[1], debt.levels.shape[1]])
    books = records(
        form=([collateral.form, debt.form], np.uint8), first=(ends[:2], np.int64), last=(ends[1:], np.int64),
        depth=([collateral.depth, debt.depth], float), sold=([collateral.sold, debt.sold], float),
        spread=([0.0, 0.0], float), common=([np.nan, np.nan], float), together=([0.0, 0.0], float),
        refused=([0.0, 0.0], float), crowd=([0.0, 0.0], float),
    )  # fmt: skip
    levels = np.concatenate([collateral.levels, debt.levels], axis=1) if ends[-1] else None
    return _trading.most_that_pays(1e12, share, collateral.base, debt.base, *books, mark_c, mark_d, levels)


def price_now(book):
    """Price of the last unit traded."""
    place = (np.asarray(x) for x in (book.base, book.sold, book.depth))
    return float(Curves(book.form, *place, book.levels).price())


def moved(book, units):
    return book._replace(sold=book.sold + _forms.fillable(book, units))


# a slow twin, written from the table of forms -----------------------------------------------------------------------


def twin_price(form, q, depth):
    """Price over the price at the start, after net sales of q units."""
    z = q / depth
    if form == "exponential":
        return math.exp(-z)
    if form == "linear":
        return max(1 - z, 0.0)
    if form == "square_root":
        return max(1 - math.copysign(math.sqrt(abs(z)), z), 0.0)
    return 1 / (1 + z) ** 2


def twin_cash(form, sold, depth, units):
    points = sorted({0.0, depth} & {x for x in (0.0, depth) if min(sold, sold + units) < x < max(sold, sold + units)})
    value, _ = scipy.integrate.quad(
        lambda q: twin_price(form, q, depth),
        sold,
        sold + units,
        points=points or None,
        epsabs=0,
        epsrel=1e-11,
        limit=200,
    )
    return value


def walk(text, units):
    """Fill an order unit by unit of the book's levels; filled units and cash."""
    bids, _, asks = text.removeprefix("ladder").partition("|")
    rest, cash = abs(units), 0.0
    for level in (bids if units > 0 else asks).split():
        price, size = map(float, level.split(":"))
        part = min(rest, size)
        rest, cash = rest - part, cash + price * part
    return math.copysign(abs(units) - rest, units), math.copysign(cash, units)


@pytest.mark.parametrize("form", SMOOTH)
@pytest.mark.parametrize(
    ("sold", "units"), [(0, 3), (0, -3), (2, 5), (-4, 6), (-2, -5), (9, 4), (9.5, 0.01), (12, -6), (3, -9)]
)
def test_cash_is_the_integral_of_the_price(form, sold, units):
    expected = 7 * twin_cash(form, sold, 10.0, units)
    assert _forms.cash_for(curve(form, 7.0, sold, 10.0), float(units)) == pytest.approx(expected, rel=1e-8, abs=1e-9)
    ours = cash_from_sale(units, price=7.0, depth=10.0, form=form, sold=sold)
    assert ours == pytest.approx(expected, rel=1e-8, abs=1e-9)
    after = 7 * twin_price(form, sold + units, 10.0)
    assert price_after_sale(units, price=7.0, depth=10.0, form=form, sold=sold) == pytest.approx(after, rel=1e-12)
    assert price_now(curve(form, 7.0, sold + units, 10.0)) == pytest.approx(after, rel=1e-12)


@pytest.mark.parametrize("units", [1.0, 10.0, 12.0, 35.0, 74.0, 80.0, -1.0, -8.0, -20.0, -38.0, -200.0])
def test_a_ladder_is_walked_level_by_level(units):
    filled, cash = walk(BOOK, units)
    book = curve(BOOK, 2000.0)
    assert _forms.fillable(book, units) == pytest.approx(filled)
    assert _forms.cash_for(book, units) == pytest.approx(2000 * cash)
    assert cash_from_sale(units, price=2000.0, form=BOOK) == pytest.approx(2000 * cash)
    half = _forms.cash_for(book, units / 2) + _forms.cash_for(moved(book, units / 2), units / 2)
    assert half == pytest.approx(2000 * cash)
    doubled = curve(BOOK, 2000.0, 0.0, 2.0)
    assert _forms.cash_for(doubled, 2 * units) == pytest.approx(4000 * cash)


@pytest.mark.parametrize(
    ("sold", "price"), [(0, 1), (5, 0.999), (10, 0.999), (10.1, 0.99), (75, 0.9), (-3, 1.001), (-8, 1.001), (-88, 1.3)]
)
def test_the_price_of_a_ladder_is_that_of_the_last_unit_traded(sold, price):
    assert price_now(curve(BOOK, 1.0, sold)) == price
    assert price_after_sale(0.0, price=1.0, form=BOOK, sold=sold) == price


def test_a_used_up_ladder_trades_no_more():
    book = curve(BOOK, 1.0, 75.0)
    assert _forms.cash_for(book, 5.0) == 0.0
    assert _forms.marginal_price(book, 0.0, True) == 0.0
    assert _forms.marginal_price(book, 0.0, False) == 0.9
    assert _forms.units_for(book, 5.0) == 0.0
    assert price_after_sale(5.0, price=1.0, form=BOOK, sold=75.0) == 0.9
    one_sided = curve("ladder 0.5:4")
    assert _forms.fillable(one_sided, -3.0) == 0.0
    assert _forms.cash_for(one_sided, -3.0) == 0.0
    assert _forms.marginal_price(one_sided, 0.0, False) == math.inf


# published numbers --------------------------------------------------------------------------------------------------


def test_constant_product_golden():
    pool = {"price": GOLDEN["money"] / GOLDEN["units"], "depth": GOLDEN["units"], "form": "constant_product"}
    ratio = price_after_sale(GOLDEN["sale"], **pool) / pool["price"]
    assert ratio == pytest.approx(GOLDEN["price_ratio"], abs=1e-12)
    average = cash_from_sale(GOLDEN["sale"], **pool) / GOLDEN["sale"] / pool["price"]
    assert average == pytest.approx(GOLDEN["average"], abs=1e-12)
    share = GOLDEN["two_percent_share"]
    assert depth_at(share * GOLDEN["units"], impact=0.02, form="constant_product") == pytest.approx(1000.0, rel=1e-9)


def answers(case):
    given_numbers = case["inputs"]
    price = given_numbers["y"] / given_numbers["x"]
    pool = {"price": price, "depth": given_numbers["x"], "form": "constant_product"}
    return {
        "out": cash_from_sale(given_numbers["sell"], **pool),
        "price_before": price_after_sale(0.0, **pool),
        "price_after": price_after_sale(given_numbers["sell"], **pool),
    }


@pytest.mark.parametrize("factor", [1.0, 1.02])
def test_case_amm_constant_product(factor):
    case = CASES["amm_constant_product"]
    found = answers(case)
    agrees = [abs(found[name] - value * factor) <= case["tolerance"]["abs"] for name, value in case["expected"].items()]
    assert all(agrees) if factor == 1.0 else not any(agrees)


@pytest.mark.parametrize("form", SMOOTH)
@pytest.mark.parametrize("impact", [1e-6, 0.02, 0.5, 0.97])
def test_depth_at_gives_back_the_quote_for_every_form(form, impact):
    depth = depth_at(np.array([3.0, 500.0]), impact=impact, form=form)
    after = price_after_sale([3.0, 500.0], price=1.0, depth=depth, form=form)
    np.testing.assert_allclose(1 - after, impact, rtol=1e-9)


def test_depth_is_that_of_its_form():
    quoted = {form: depth_at(12.0, impact=0.5, form=form) for form in SMOOTH}
    assert quoted["linear"] == 24.0
    assert quoted["square_root"] == 48.0
    assert quoted["exponential"] == pytest.approx(12 / math.log(2))
    assert quoted["constant_product"] == pytest.approx(12 / (math.sqrt(2) - 1))


@pytest.mark.parametrize("form", ["exponential", "linear", "square_root"])
def test_forms_are_those_of_fire_sales(form):
    used = np.array([0.0, 1e-6, 0.3, 0.9, 1.0, 2.5])
    ours = price_after_sale(used, price=1.0, depth=1.0, form=form)
    np.testing.assert_allclose(ours, clearing_impact.price_left(used, form), rtol=1e-14)
    brought = cash_from_sale(used, price=1.0, depth=1.0, form=form)
    np.testing.assert_allclose(brought, used * clearing_impact.execution_left(used, form), rtol=1e-12)


def test_sales_after_a_shock_move_the_shocked_price():
    """94 after the shock: 10 units sold lead to 89 and 8 more to 85, where each unit costs half a unit of money."""
    depth = 94 / 0.5
    assert price_after_sale(10.0, price=94.0, depth=depth, form="linear") == pytest.approx(89.0)
    assert price_after_sale(8.0, price=94.0, depth=depth, form="linear", sold=10.0) == pytest.approx(85.0)


# the arithmetic that the cascade had before -------------------------------------------------------------------------


@kernel
def former_cash(base, sold, depth, units):
    if np.isinf(depth):
        return base * units
    if abs(units) < depth:
        return -base * np.exp(-sold / depth) * depth * np.expm1(-units / depth)
    return base * depth * (np.exp(-sold / depth) - np.exp(-(sold + units) / depth))


@kernel
def former_units(base, sold, depth, cash):
    if np.isinf(depth):
        return cash / base
    share = cash / (base * depth)
    price = np.exp(-sold / depth)
    if abs(share) < 0.5 * price:
        return -depth * np.log1p(-share / price)
    return -depth * np.log(price - share) - sold


@kernel
def former_debt(share, base_c, sold_c, depth_c, base_d, sold_d, depth_d, mark_c, mark_d):
    edge = np.log(share * (base_c / mark_c) / (base_d / mark_d))
    edge += sold_d / depth_d - sold_c / depth_c
    slope = share / mark_c / depth_c + 1.0 / mark_d / depth_d
    if edge < -1e-12:
        return -1.0
    return max(edge, 0.0) / slope if slope > 0.0 else 1e12


def test_the_exponential_form_is_the_former_one_to_the_bit():
    rng = np.random.default_rng(1)
    for _ in range(1000):
        base, depth = math.exp(rng.normal(0, 4)), math.exp(rng.normal(5, 4)) if rng.random() < 0.9 else math.inf
        scale = 100.0 if math.isinf(depth) else depth
        sold, units = scale * rng.normal(), scale * rng.normal() * 10 ** rng.uniform(-8, 0.5)
        book = curve("exponential", base, sold, depth)
        cash = _forms.cash_for(book, units)
        assert cash == former_cash(base, sold, depth, units)
        assert _forms.units_for(book, cash) == former_units(base, sold, depth, cash)
        other = curve("exponential", base * 2, -sold, depth * 3)
        marks = base * rng.uniform(0.9, 1.1), 2 * base * rng.uniform(0.9, 1.1)
        ours = most_that_pays(1.05, book, other, *marks)
        assert ours == former_debt(1.05, base, sold, depth, 2 * base, -sold, depth * 3, *marks)


# laws ---------------------------------------------------------------------------------------------------------------


forms = st.sampled_from(ALL)
places = st.floats(-0.9, 1.5)
trades = st.floats(-3.0, 3.0).filter(lambda x: x == 0 or abs(x) > 1e-9)


def some_curve(form, place, depth, base):
    if " " in form:
        place, depth = place * 40, 1.0
    return curve(form, base, place * depth, depth), (40.0 if " " in form else depth)


@settings(max_examples=80, deadline=None)
@given(forms, places, trades, trades, st.floats(0.01, 1e6), st.floats(1e-3, 1e5))
def test_splitting_a_sale_changes_nothing(form, place, first, second, depth, base):
    assume(first * second >= 0)
    book, scale = some_curve(form, place, depth, base)
    first, second = first * scale, second * scale
    whole = _forms.cash_for(book, first + second)
    after = moved(book, first)
    parts = _forms.cash_for(book, first) + _forms.cash_for(after, second)
    filled = _forms.fillable(book, first) + _forms.fillable(after, second)
    near_dry = form == "constant_product" and (book.sold + first + second) / depth < 1e-3 - 1
    tolerance = 1e-4 if near_dry else 1e-9
    assert filled == pytest.approx(_forms.fillable(book, first + second), rel=1e-9, abs=1e-9 * scale)
    assert parts == pytest.approx(whole, rel=tolerance, abs=1e-9 * base * scale)


@settings(max_examples=80, deadline=None)
@given(forms, places, trades, st.floats(0.01, 1e6), st.floats(1e-3, 1e5))
def test_cash_lies_between_the_prices_before_and_after(form, place, units, depth, base):
    book, scale = some_curve(form, place, depth, base)
    units = _forms.fillable(book, units * scale)
    cash, before, after = _forms.cash_for(book, units), price_now(book), price_now(moved(book, units))
    slack = 1e-9 * (abs(cash) + 1e-12 * base * scale) + (1e-5 * abs(cash) if form == "constant_product" else 0)
    assert math.isfinite(cash)
    assert math.isfinite(after)
    assert after >= 0
    assert (after <= before) if units > 0 else (after >= before * (1 - 1e-12))
    low, high = sorted((units * before, units * after))
    assert low - slack <= cash <= high + slack


@settings(max_examples=80, deadline=None)
@given(forms, places, trades, trades, st.floats(0.01, 1e6))
def test_more_units_bring_more_cash(form, place, some, more, depth):
    assume(some < more)
    book, scale = some_curve(form, place, depth, 1.0)
    less, most = _forms.cash_for(book, some * scale), _forms.cash_for(book, more * scale)
    assert less <= most + 1e-12 * (abs(less) + abs(most))


@settings(max_examples=80, deadline=None)
@given(forms, places, trades, st.floats(0.01, 1e6), st.floats(1e-3, 1e5))
def test_units_for_cash_is_the_inverse(form, place, units, depth, base):
    book, scale = some_curve(form, place, depth, base)
    units = _forms.fillable(book, units * scale)
    cash = _forms.cash_for(book, units)
    back = _forms.units_for(book, cash)
    arrays = (
        float(units_for_cash(cash, price=base, depth=depth if " " not in form else None, form=form, sold=book.sold))
        if abs(book.sold) < scale * 0.9
        else back
    )
    for found in (back, arrays):
        assert not math.isnan(found)
        assert _forms.cash_for(book, found) == pytest.approx(cash, rel=1e-9, abs=1e-12 * base * scale)
    pays = price_now(moved(book, units)) > 0.03 * base and abs(cash) > 1e-6 * abs(units) * base
    if pays and not (form == "constant_product" and (book.sold + units) / depth < 1e-2 - 1):
        assert back == pytest.approx(units, rel=1e-8)


@settings(max_examples=60, deadline=None)
@given(forms, forms, st.floats(-0.3, 0.3), st.floats(-0.3, 0.3), st.floats(1.0, 1.3))
def test_the_last_unit_that_pays_pays(form_c, form_d, place_c, place_d, share):
    collateral, scale_c = some_curve(form_c, place_c, 50.0, 2.0)
    debt, scale_d = some_curve(form_d, place_d, 80.0, 1.0)
    mark_c, mark_d = 2.0, 1.0

    def margin(repaid):
        brought = _forms.marginal_price(collateral, share * repaid / mark_c, True) * share / mark_c
        return brought - _forms.marginal_price(debt, -repaid / mark_d, False) / mark_d

    found = most_that_pays(share, collateral, debt, mark_c, mark_d)
    if found < 0:
        assert margin(0.0) < 1e-12
    else:
        size = min(scale_c, scale_d)
        assert margin(max(found - 1e-6 * size, 0.0)) >= -1e-9 or found < 1e-6 * size
        assert margin(found + 1e-6 * size) <= 1e-9


# ends of the domain -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ALL)
@pytest.mark.parametrize("units", [0.0, 1e-300, 1e300, -1e300, 1.0, -1.0])
@pytest.mark.parametrize("depth", [1e-9, 1.0, math.inf])
def test_nothing_is_nan_at_the_ends(form, units, depth):
    book = curve(form, 2.0, 0.0, depth)
    filled = _forms.fillable(book, units)
    cash = _forms.cash_for(book, units)
    after = price_now(moved(book, units))
    back = _forms.units_for(book, cash)
    assert not any(map(math.isnan, (filled, cash, after, back, _forms.marginal_price(book, units, units > 0))))
    arrays = [
        function(units, price=2.0, depth=depth, form=form)
        for function in (price_after_sale, cash_from_sale, units_for_cash)
    ]
    assert not np.isnan(arrays).any()
    assert arrays[:2] == pytest.approx([after, cash], rel=1e-9)


def test_a_price_of_zero_stays_there():
    for form, most in (("linear", 50.0), ("square_root", 100 / 3)):
        assert cash_from_sale([100.0, 250.0], price=1.0, depth=100.0, form=form) == pytest.approx([most, most])
        assert price_after_sale(250.0, price=1.0, depth=100.0, form=form) == 0.0
        assert units_for_cash(1e9, price=1.0, depth=100.0, form=form) == pytest.approx(100.0)
        assert cash_from_sale(-150.0, price=1.0, depth=100.0, form=form, sold=250.0) == 0.0


def test_what_a_market_never_pays():
    for form in ("exponential", "constant_product"):
        assert units_for_cash(100.0, price=1.0, depth=100.0, form=form) == math.inf
        assert _forms.units_for(curve(form, 1.0, 0.0, 100.0), 100.0) == math.inf
        assert _forms.cash_for(curve(form, 1.0, 0.0, 100.0), math.inf) == pytest.approx(100.0)
    assert units_for_cash(1e9, price=1.0, form=BOOK) == 75.0
    assert units_for_cash(-1e9, price=1.0, form=BOOK) == -88.0


def test_a_pool_is_never_emptied():
    pool = {"price": 1.0, "depth": 100.0, "form": "constant_product"}
    assert cash_from_sale(-100.0, **pool) == cash_from_sale(-1e9, **pool)
    assert price_after_sale(-1e9, **pool) == pytest.approx(DRY**-2.0, rel=1e-6)
    assert units_for_cash(-1e30, **pool) == -100.0 * (1 - DRY)


# kernels and arrays -------------------------------------------------------------------------------------------------


def test_kernels_equal_their_plain_functions_and_the_arrays(monkeypatch):
    rng = np.random.default_rng(4)
    cases = []
    for form in ALL:
        for _ in range(40):
            book, scale = some_curve(form, rng.uniform(-0.8, 1.3), 30.0, 4.0)
            cases.append((form, book, rng.normal() * scale))

    def run():
        found = []
        for _, book, units in cases:
            cash = _forms.cash_for(book, units)
            pays = most_that_pays(1.08, book, cases[0][1], 4.0, 4.0)
            ends = _forms.marginal_price(book, units, units > 0)
            found.append((cash, _forms.units_for(book, cash), pays, ends))
        return np.array(found)

    compiled = run()
    for module in (_forms, _trading):
        for name, value in list(vars(module).items()):
            if hasattr(value, "compiled"):
                monkeypatch.setattr(module, name, value.__wrapped__)
    plain = run()
    np.testing.assert_allclose(compiled, plain, rtol=1e-11, atol=1e-9)
    for (form, book, units), row in zip(cases, compiled, strict=True):
        market = {"price": 4.0, "depth": None if " " in form else 30.0, "form": form, "sold": book.sold}
        if " " in form and not -88 <= book.sold <= 75:
            continue
        assert cash_from_sale(units, **market) == pytest.approx(row[0], rel=1e-11, abs=1e-9)
        assert units_for_cash(row[0], **market) == pytest.approx(row[1], rel=1e-9, abs=1e-9)


def test_quotes_of_books_of_every_form():
    impact = ["linear", BOOK, "exponential", "ladder 0.9:5", "square_root", BOOK, "constant_product", "exponential"]
    read = _forms.read_forms(impact)
    sold = np.array([3.0, 12.0, 2.0, 1.0, -4.0, -3.0, 5.0, 8.0])
    depth = np.array([10.0, 1.0, 10.0, 2.0, 10.0, 1.0, 10.0, np.inf])
    base = np.arange(1.0, 9.0)
    found = quotes(read, base, sold, depth)
    for book, form in enumerate(impact):
        assert found[book] == pytest.approx(price_now(curve(form, base[book], sold[book], depth[book])), rel=1e-14)
        own = read.levels[:, read.first[book] : read.last[book]]
        np.testing.assert_array_equal(own, levels_of(form) if " " in form else NO_LEVELS)
    assert read.levels.shape == (3, 9)  # the ladder that two share is kept once
    exponential = read.form == _forms.EXPONENTIAL
    np.testing.assert_array_equal(
        found[exponential], base[exponential] * np.exp(-sold[exponential] / depth[exponential])
    )
    empty = _forms.read_forms([])
    assert quotes(empty, np.zeros(0), np.zeros(0), np.zeros(0)).shape == (0,)
    with pytest.raises(UnknownLabelError, match="linear"):
        _forms.read_forms(["linaer"])


# input --------------------------------------------------------------------------------------------------------------


def test_bad_numbers_are_refused_all_together():
    with pytest.raises(SchemaError) as caught:
        cash_from_sale([1.0, np.nan], price=-1.0, depth=[5.0, 0.0])
    assert len(caught.value.problems) == 3
    assert {problem.column for problem in caught.value.problems} == {"units", "price", "depth"}
    with pytest.raises(SchemaError, match="depth"):
        cash_from_sale(1.0, price=1.0, form="linear")
    with pytest.raises(SchemaError, match="go together"):
        cash_from_sale([1.0, 2.0], price=[1.0, 2.0, 3.0], depth=1.0)
    with pytest.raises(SchemaError, match="numbers"):
        cash_from_sale("many", price=1.0, depth=1.0)
    with pytest.raises(UnknownLabelError, match="exponential"):
        price_after_sale(1.0, price=1.0, depth=1.0, form="exponentiel")
    with pytest.raises(SchemaError, match="sold"):
        price_after_sale(1.0, price=1.0, depth=[1.0, 2.0], form="constant_product", sold=[-1.0, -1.0])
    with pytest.raises(SchemaError, match="sold"):
        price_after_sale(1.0, price=1.0, form=BOOK, sold=76.0)


def test_a_ladder_is_built_from_any_order_and_read_back():
    prices, units = [1.02, 0.99, 0.999, 1.001, 0.99], [30, 20, 10.5, 8, 5]
    text = ladder(prices, units)
    assert text == "ladder 0.999:10.5 0.99:25.0 | 1.001:8.0 1.02:30.0"
    book = read_ladder(text)
    assert book.bids.tolist() == [0.999, 0.99]
    assert book.bid_units.tolist() == [10.5, 25.0]
    assert book.ask_units.tolist() == [8.0, 30.0]
    assert write_ladder(book) == text
    assert ladder([0.5], [1 / 3]) == "ladder 0.5:0.3333333333333333"
    assert read_ladder(ladder([1.5], [2])).bids.size == 0
    empty = np.zeros(0)
    assert write_ladder(Ladder(empty, empty, np.array([1.5]), np.array([2.0]))) == "ladder | 1.5:2.0"


@pytest.mark.parametrize(
    ("text", "count", "said"),
    [
        ("ladder", 1, "at least one level"),
        ("rungs 0.9:1", 1, "the word ladder"),
        ("ladder 0.9", 1, "price:units"),
        ("ladder 0.9:1 0.95:2", 1, "falling"),
        ("ladder 0.9:1 | 1.2:1 1.1:1", 1, "rising"),
        ("ladder 1.2:1 | 0.9:0", 3, "relative price of a bid"),
        ("ladder 0.9:nan 0.8:inf 0.7:-1 x:y", 4, "units in"),
        ("ladder 0.9:1 | 1.1:1 | 1.2:1", 1, "price:units"),
    ],
)
def test_a_wrong_ladder_is_one_error(text, count, said):
    with pytest.raises(SchemaError, match=said) as caught:
        read_ladder(text, row=7)
    assert len(caught.value.problems) == count
    assert all(
        (problem.table, problem.column, problem.row) == ("assets", "impact", 7) for problem in caught.value.problems
    )


def test_a_wrong_book_is_refused():
    with pytest.raises(SchemaError) as caught:
        ladder([0.9, -1.0, np.nan], [1.0, 2.0, 0.0])
    assert len(caught.value.problems) == 3
    with pytest.raises(SchemaError, match="same length"):
        ladder([0.9], [1.0, 2.0])
    with pytest.raises(SchemaError, match="not empty"):
        ladder([], [])
