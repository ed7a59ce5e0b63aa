"""How large an insurance fund has to be for a share of the scenarios, in units of its asset and in money."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netcontagion._arrays import as_share
from netcontagion.network import Shock
from netcontagion.ranking._tools import fund_price

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from netcontagion.network import ExposureNetwork
    from netcontagion.scenarios import Scenarios

    Floats = NDArray[np.float64]

__all__ = ["sizing"]


def sizing(net: ExposureNetwork, scenarios: Scenarios, reached: Floats, level: float) -> pd.DataFrame:
    """Take the quantile of what reaches each fund; and its largest one and two losses, where scenarios are defaults.

    ``reached`` is by scenario and exchange [num], at the marks of the rounds. Units are at the price of the insurance
    asset after the shock of the scenario; one without a price cannot cover anything, which needs infinitely many.
    """
    import pandas as pd

    price = np.stack([fund_price(net, shock.price_factors(net)) for shock in scenarios])
    with np.errstate(divide="ignore", invalid="ignore"):
        units = np.where(reached > 0, reached / price, 0.0)
    held = net.columns("exchanges")["insurance_fund"]
    table = {
        "held_units": held,
        "units": _quantile(units, level),
        "money": _quantile(reached, level),
        "covered": (held * price >= reached).mean(axis=0),
    }
    if all(len(shock.defaults) == 1 and shock == Shock.default(*shock.defaults) for shock in scenarios):
        worst = -np.sort(-reached, axis=0)[:2]
        table |= {"cover_1": worst[0], "cover_2": worst.sum(axis=0)}
    return pd.DataFrame(table, index=net.labels("exchanges"))


def _quantile(values: Floats, level: float) -> Floats:
    """Smallest value that a share of the scenarios does not exceed."""
    return np.asarray(np.quantile(values, as_share(level), axis=0, method="inverted_cdf"))
