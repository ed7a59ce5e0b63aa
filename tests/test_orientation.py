"""Row i owes column j, everywhere: a chain whose answers differ under transposition."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse

from netcontagion.clearing import eisenberg_noe

# Node 0 owes node 1 ten and has four; node 1 owes node 2 ten and has three; node 2 owes nothing.
CHAIN = np.array([[0.0, 10.0, 0.0], [0.0, 0.0, 10.0], [0.0, 0.0, 0.0]])
ASSETS = np.array([4.0, 3.0, 1.0])
PAYMENTS = [4.0, 7.0, 0.0]
PAYMENTS_TRANSPOSED = [0.0, 4.0, 1.0]


@pytest.mark.parametrize("form", [np.array, scipy.sparse.csr_array, scipy.sparse.csc_array, scipy.sparse.coo_matrix])
def test_rows_of_eisenberg_noe_are_debtors(form):
    result = eisenberg_noe(form(CHAIN), ASSETS)
    assert result.payments.tolist() == PAYMENTS
    assert result.net_worth.tolist() == [-6.0, -3.0, 8.0]
    assert result.payment_matrix().toarray().tolist() == [[0, 4, 0], [0, 0, 7], [0, 0, 0]]


def test_the_chain_tells_a_transposed_network():
    assert eisenberg_noe(CHAIN.T, ASSETS).payments.tolist() == PAYMENTS_TRANSPOSED


def test_labelled_input_is_joined_by_label():
    """A frame and series in any order of labels give what the plain arrays give, and the result is labelled."""
    import pandas as pd

    from netcontagion.errors import SchemaError

    names = ["a", "b", "c"]
    owed, assets = np.array([[0, 9.0, 0], [0, 0, 5.0], [0, 0, 0]]), np.array([4.0, 1.0, 2.0])
    plain = eisenberg_noe(owed, assets).payments
    frame = pd.DataFrame(owed, names, names)
    found = eisenberg_noe(frame.loc[["b", "c", "a"], ["c", "a", "b"]], pd.Series(assets, names)[["c", "b", "a"]])
    np.testing.assert_allclose(found.payments[names], plain)
    for wrong in (pd.Series(assets, ["a", "b", "x"]), pd.Series(assets[:2], ["a", "b"])):
        with pytest.raises(SchemaError, match="labels"):
            eisenberg_noe(frame, wrong)
    with pytest.raises(SchemaError, match="differ"):
        eisenberg_noe(frame.rename(columns={"a": "x"}), assets)


def test_what_is_masked_is_refused_not_read():
    from netcontagion.errors import SchemaError

    with pytest.raises(SchemaError, match="nan"):
        eisenberg_noe(np.ma.masked_array([[0, 7.0], [0, 0]], mask=[[0, 1], [0, 0]]), [2.0, 5.0])
