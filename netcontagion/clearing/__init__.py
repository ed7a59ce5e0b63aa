"""Clearing: who pays whom how much when not everybody can pay in full."""

from __future__ import annotations

from netcontagion.clearing._debtrank import DebtRankResult, debtrank
from netcontagion.clearing._deleveraging import Deleveraging, cont_schaanning
from netcontagion.clearing._eisenberg_noe import eisenberg_noe, prepare
from netcontagion.clearing._elsinger import elsinger
from netcontagion.clearing._estate import Estate
from netcontagion.clearing._fire_sale import fire_sale
from netcontagion.clearing._impact import square_root_depth
from netcontagion.clearing._impact_matrix import impact_matrix
from netcontagion.clearing._leverage import LeverageEquilibria, LeverageEquilibrium, leverage_fire_sale
from netcontagion.clearing._liquidation import (
    LiquidationWaves,
    branching_matrix,
    default_liquidation,
    largest_eigenvalue,
)
from netcontagion.clearing._margin_stress import FullPaymentResult, MarginStressResult, full_payment, margin_stress
from netcontagion.clearing._models import Case
from netcontagion.clearing._network import clear, settle
from netcontagion.clearing._neva import neva
from netcontagion.clearing._node_input import Column, checked_nodes, per_node
from netcontagion.clearing._overlap import (
    LossSpiral,
    Vulnerability,
    greenwood_landier_thesmar,
    indirect_exposure,
    loss_spiral,
)
from netcontagion.clearing._ranked_costs import ranked
from netcontagion.clearing._result import ClearingResult
from netcontagion.clearing._rogers_veraart import rogers_veraart
from netcontagion.clearing._sensitivity import Gradient, Sensitivity, sensitivity
from netcontagion.clearing._suzuki import suzuki
from netcontagion.clearing._threshold import (
    ContagionWindow,
    ThresholdResult,
    contagion_window,
    furfine,
    gai_kapadia,
    threshold,
)
from netcontagion.clearing._together import Together, clear_together
from netcontagion.clearing._valuations import (
    BalanceSheets,
    BlackCox,
    EisenbergNoe,
    ExAnteMerton,
    Furfine,
    LinearDebtRank,
    RogersVeraart,
    Valuation,
)

__all__ = [
    "BalanceSheets",
    "BlackCox",
    "Case",
    "ClearingResult",
    "Column",
    "ContagionWindow",
    "DebtRankResult",
    "Deleveraging",
    "EisenbergNoe",
    "Estate",
    "ExAnteMerton",
    "FullPaymentResult",
    "Furfine",
    "Gradient",
    "LeverageEquilibria",
    "LeverageEquilibrium",
    "LinearDebtRank",
    "LiquidationWaves",
    "LossSpiral",
    "MarginStressResult",
    "RogersVeraart",
    "Sensitivity",
    "ThresholdResult",
    "Together",
    "Valuation",
    "Vulnerability",
    "branching_matrix",
    "checked_nodes",
    "clear",
    "clear_together",
    "cont_schaanning",
    "contagion_window",
    "debtrank",
    "default_liquidation",
    "eisenberg_noe",
    "elsinger",
    "fire_sale",
    "full_payment",
    "furfine",
    "gai_kapadia",
    "greenwood_landier_thesmar",
    "impact_matrix",
    "indirect_exposure",
    "largest_eigenvalue",
    "leverage_fire_sale",
    "loss_spiral",
    "margin_stress",
    "neva",
    "per_node",
    "prepare",
    "ranked",
    "rogers_veraart",
    "sensitivity",
    "settle",
    "square_root_depth",
    "suzuki",
    "threshold",
]
