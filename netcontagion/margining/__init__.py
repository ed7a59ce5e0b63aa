"""Margin-call cascades: calls, responses, liquidations, prices, waterfalls and the ledger behind them."""

from __future__ import annotations

from netcontagion.margining._adl import (
    ALLOCATIONS,
    SCORES,
    Deleveraged,
    FundUse,
    adl_score,
    allocate,
    auto_deleverage,
    insurance_drawdown,
)
from netcontagion.margining._arbitrage import Arbitrage, arbitrage
from netcontagion.margining._attribution import leave_one_channel_out, order_gap, shapley
from netcontagion.margining._cascade import SWITCHES, cascade
from netcontagion.margining._contracts import (
    LeverageMass,
    bankruptcy_price,
    funding_payment,
    funding_rate,
    leverage_mass,
    liquidation_price,
    maintenance_margin,
    scenario_margin,
    skew_funding_rate,
    unrealised_pnl,
)
from netcontagion.margining._impact import cash_from_sale, price_after_sale, units_for_cash
from netcontagion.margining._kept import with_amounts
from netcontagion.margining._makers import maker_depth, maker_spread, update_volatility
from netcontagion.margining._manipulation import Manipulation, attack_profit, manipulation_cost
from netcontagion.margining._result import CascadeResult
from netcontagion.margining._sizing import (
    closeout_deficit,
    collateral_liquidation_price,
    health_after_repayment,
    jump_to_bad_debt,
    lltv_bonus,
    minimal_sale,
    repay_to_target,
    toxic_health,
)
from netcontagion.margining._stablecoin import StablecoinPath, stablecoin_deleveraging
from netcontagion.margining._state import CHANNELS, bearer_labels
from netcontagion.margining._supported import check_supported, unsupported
from netcontagion.margining._tracing import Trace, trace

__all__ = [
    "ALLOCATIONS",
    "CHANNELS",
    "SCORES",
    "SWITCHES",
    "Arbitrage",
    "CascadeResult",
    "Deleveraged",
    "FundUse",
    "LeverageMass",
    "Manipulation",
    "StablecoinPath",
    "Trace",
    "adl_score",
    "allocate",
    "arbitrage",
    "attack_profit",
    "auto_deleverage",
    "bankruptcy_price",
    "bearer_labels",
    "cascade",
    "cash_from_sale",
    "check_supported",
    "closeout_deficit",
    "collateral_liquidation_price",
    "funding_payment",
    "funding_rate",
    "health_after_repayment",
    "insurance_drawdown",
    "jump_to_bad_debt",
    "leave_one_channel_out",
    "leverage_mass",
    "liquidation_price",
    "lltv_bonus",
    "maintenance_margin",
    "maker_depth",
    "maker_spread",
    "manipulation_cost",
    "minimal_sale",
    "order_gap",
    "price_after_sale",
    "repay_to_target",
    "scenario_margin",
    "shapley",
    "skew_funding_rate",
    "stablecoin_deleveraging",
    "toxic_health",
    "trace",
    "units_for_cash",
    "unrealised_pnl",
    "unsupported",
    "update_volatility",
    "with_amounts",
]
