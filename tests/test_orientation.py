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
