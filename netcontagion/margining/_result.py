"""What a cascade returns: tables of what happened and to whom, and the laws that were kept."""

from __future__ import annotations

import functools
import html
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion._status import Status
from netcontagion.errors import ContagionError
from netcontagion.margining._final import clear_up, is_due
from netcontagion.margining._kept import kept
from netcontagion.margining._ledger import Laws, add_up, laws_of, losses_by_bearer
from netcontagion.margining._state import CHANNELS, bearer_labels, called
from netcontagion.margining._stock import wealth_of_nodes
from netcontagion.margining._valuation import gains
from netcontagion.margining._whole import final_state

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from netcontagion._iterate import Ending
    from netcontagion.clearing import ClearingResult
    from netcontagion.margining._cascade import Play
    from netcontagion.margining._equilibrium import Bounds
    from netcontagion.margining._state import Whole
    from netcontagion.network import ExposureNetwork, Shock

__all__ = ["CascadeResult", "close"]

_TOLERANCE = 1e-9
_NAMED = {
    "insurance_fund": "insurance_fund_used",
    "equity": "equity_used",
    "suppliers": "socialised",
    "surplus": "surplus_used",
    "mint": "minted",
    "co_borrowers": "handed_on",
    "frozen": "frozen",
    "uncovered": "uncovered",
}  # columns of the layers that every result has
_SAID = ("insurance fund", "equity", "socialised", "uncovered")  # layers that every summary has


@dataclass(frozen=True, eq=False, repr=False)
class CascadeResult:
    """Result of a cascade. Tables are pandas DataFrames; money is in the numeraire.

    Attributes
    ----------
    network, shock
        What was run: the network before the shock, and the shock.
    clearing : ClearingResult or None
        Final clearing of ``liabilities`` and external debt, the last of ``clearing_passes``; None where nothing is due.
    status : Status
        SETTLED, EXHAUSTED (accounts below health 1 remain that nobody can or will close) or MAX_ROUNDS.
    assumptions : tuple of str
        What was assumed for what the network leaves open.
    facts : dict
        What was run: ``provenance`` without the hash of the data, which takes a while for a million accounts.
    provenance : dict
        Versions, seed, shock, assets moved, rounds, options, and the sha256 of the network's data.
    least : CascadeResult or None
        Of an equilibrium: the one with the least prices. This one has the greatest.
    bounds : Bounds or None
        Of an equilibrium: marks between which all equilibria lie, rounding included; ``gap`` has them as a table.
    which : {"greatest", "least"}
        Which payments clear what nodes owe each other.
    """

    network: ExposureNetwork
    shock: Shock
    status: Status
    facts: dict[str, Any]
    _play: Play
    which: str = "greatest"
    least: CascadeResult | None = None
    bounds: Bounds | None = None

    @functools.cached_property
    def clearing(self) -> ClearingResult | None:
        """Clearing of what nodes owe each other and outside at the end; None where nothing is due."""
        if self.status is Status.NONFINITE:
            return None
        net = self.network
        plain = not (len(net.columns("liabilities")["amount"]) or net.columns("traders")["external_liabilities"].any())
        if plain and not self._play.state.ledger.short.any():
            return None
        if self._play.passes.last is not None:
            return self._play.passes.last
        return clear_up(self._state, self.which) if is_due(self._state) else None

    @property
    def clearing_passes(self) -> int:
        """How often was cleared: once more for each time that somebody who defaulted was closed out; 0: never."""
        return 0 if self.clearing is None else self._play.passes.count + 1

    @functools.cached_property
    def assumptions(self) -> tuple[str, ...]:
        """What was assumed for what the network leaves open."""
        at_once = ("all sellers on a book get one average price, before losses are shared",) if self._joint else ()
        return (*_assumptions(self._play), *at_once)

    @property
    def _joint(self) -> bool:
        return bool(self.facts["mode"] == "equilibrium")

    @functools.cached_property
    def _state(self) -> Whole:
        """What everybody has at the end, whether or not the run touched it."""
        with np.errstate(over="ignore", invalid="ignore"):
            return final_state(self._play.state)

    @functools.cached_property
    def _bearer_losses(self) -> NDArray[np.float64]:
        with np.errstate(over="ignore", invalid="ignore"):  # after a NONFINITE ending nothing adds up
            return add_up(self._state, self.clearing)

    @functools.cached_property
    def _laws(self) -> Laws:
        with np.errstate(over="ignore", invalid="ignore"):
            return laws_of(self._state, self.clearing, self._bearer_losses, self._play.events.by_exchange)

    @functools.cached_property
    def provenance(self) -> dict[str, Any]:
        """What was run on what: versions, seed, shock, assets moved, rounds, options, sha256 of the data."""
        return {**self.facts, "data_sha256": self.network.data_hash}

    # tables -------------------------------------------------------------------------------------------------------

    @functools.cached_property
    def rounds(self) -> pd.DataFrame:
        """Aggregates by round: accounts called, helped and liquidated, money sold, bought, lost."""
        import pandas as pd

        return pd.DataFrame(self._play.rounds).set_index("round")

    @functools.cached_property
    def events(self) -> pd.DataFrame:
        """Every event with its ``parent``; event 0 is the shock. ``quantity`` of a call is the health.

        A ``withdrawal``, and the ``request`` for it, name the account that units leave, at its marks; their ``parent``
        is the call of the account they go to. A ``top_up`` names the account that is topped up.
        """
        return self._play.events.table(self.network, self._bearers)

    @property
    def _bearers(self) -> pd.Index:
        return kept(self.network, "_bearers", _bearer_index)

    @functools.cached_property
    def accounts(self) -> pd.DataFrame:
        """Accounts: health before, after the shock and at the end; called, topped up, liquidated; deficit and loss."""
        import pandas as pd

        play, state, net = self._play, self._state, self.network
        with np.errstate(over="ignore", invalid="ignore"):
            health, after = state.health(state.marks()), state.account_equity(state.marks())
        before = net.book.equity()
        table = net.columns("accounts")
        return pd.DataFrame(
            {
                "trader": pd.Categorical.from_codes(table["trader"], categories=net.labels("traders")),
                "exchange": pd.Categorical.from_codes(table["exchange"], categories=net.labels("exchanges")),
                "health_before": state.opening["health"],
                "health_after_shock": state.opening["health_after_shock"],
                "health": health,
                "called": play.by_account("called"),
                "first_round": play.by_account("first_round"),
                "topped_up": play.by_account("topped_up"),
                "liquidated": play.by_account("liquidated"),
                "forced": state.accounts.forced > 0,
                "repaid": play.by_account("repaid"),
                "deficit": play.by_account("deficit"),
                "equity_before": before,
                "equity": after,
                "loss": before - after + play.by_account("inflow"),
            },
            index=net.labels("accounts"),
        )

    @functools.cached_property
    def traders(self) -> pd.DataFrame:
        """Traders: wealth before, loss in all and by channel, number of accounts called and liquidated."""
        import pandas as pd

        net, play = self.network, self._play
        size, owner = len(net.labels("traders")), net.columns("accounts")["trader"]
        losses = self._bearer_losses[:, :size]
        table = {
            "wealth_before": self._state.opening["wealth"][:size],
            "loss": losses.sum(axis=0),
            "called": np.bincount(owner[play.by_account("called")], minlength=size),
            "liquidated": np.bincount(owner[play.by_account("liquidated")], minlength=size),
            "defaulted": self._defaulted[:size],
        }
        table |= {f"loss_{channel}": losses[place] for place, channel in enumerate(CHANNELS)}
        return pd.DataFrame(table, index=net.labels("traders"))

    @functools.cached_property
    def exchanges(self) -> pd.DataFrame:
        """Exchanges: debt repaid by liquidation, deficit and the layers that bore it (at marks), fees, loss."""
        import pandas as pd

        net, state = self.network, self._state
        size, first = len(net.labels("exchanges")), state.n_traders
        layers = [name for exchange in range(size) for name in state.layers_of(exchange)]
        borne = {kind: np.zeros(size) for kind in ("deficit", *_NAMED, *layers)}
        for (kind, place), value in self._play.events.by_exchange.items():
            borne[kind][place] = value
        venue = net.columns("accounts")["exchange"]
        table = {
            "called": np.bincount(venue[self._play.by_account("called")], minlength=size),
            "liquidated": np.bincount(venue[self._play.by_account("liquidated")], minlength=size),
            "repaid": np.bincount(venue, self._play.by_account("repaid"), size),
            "deficit": borne["deficit"],
            **{_NAMED.get(kind, f"{kind}_used"): values for kind, values in borne.items() if kind != "deficit"},
            "inventory": np.bincount(state.markets.exchange, state.ledger.inventory * state.marks(), size),
            "to_recover": np.bincount(state.markets.exchange, state.ledger.owed * state.marks(), size),
            "fees": np.bincount(state.markets.exchange, state.ledger.fees * state.marks(), size),
            "loss": self._bearer_losses[:, first : first + size].sum(axis=0),
            "defaulted": self._defaulted[first:],
        }
        return pd.DataFrame(table, index=net.labels("exchanges"))

    def _layers(self) -> dict[str, float]:
        """Return what each layer bore, as people call it; rounding is left out."""
        exchanges = self.exchanges
        columns = [name for name in map(str, exchanges) if name in _NAMED.values() or name.endswith("_used")]
        least = _TOLERANCE * float(exchanges["deficit"].sum())
        borne = {name.removesuffix("_used").replace("_", " "): float(exchanges[name].sum()) for name in columns}
        return {name: value for name, value in borne.items() if value > least}

    @property
    def _left_below(self) -> int:
        return int(called(self.accounts["health"].to_numpy()).sum())

    @property
    def _defaulted(self) -> NDArray[np.bool_]:
        if self.clearing is None:
            return np.zeros(len(self.network.nodes), dtype=bool)
        return np.asarray(self.clearing.defaulted)

    @functools.cached_property
    def assets(self) -> pd.DataFrame:
        """Assets: price before, after the shock and at the end, impact on top of the shock, net units sold on books.

        Contracts that are closed against winners, or end at the mark, are sold on none.
        """
        import pandas as pd

        state = self._state
        final = state.asset_prices()
        asset = np.concatenate([state.markets.asset, np.arange(len(final))])
        factor = np.divide(final, state.asset_base, out=np.ones(len(final)), where=state.asset_base > 0)
        return pd.DataFrame(
            {
                "price_before": state.opening["prices"],
                "price_after_shock": state.asset_base,
                "price": final,
                "impact": factor - 1,
                "sold": np.bincount(asset, state.ledger.bought - state.ledger.passed, len(final)),
            },
            index=self.network.labels("assets"),
        )

    @functools.cached_property
    def markets(self) -> pd.DataFrame:
        """Markets: mark before, after the shock and at the end, price of the book they trade on, net units sold."""
        state = self._state
        table = self.network.markets[[]]
        table["mark_before"] = state.opening["marks"]
        table["mark_after_shock"] = state.opening_marks()
        table["mark"] = state.marks()
        table["price"] = state.book_prices()
        table["sold"] = (state.ledger.bought - state.ledger.passed)[: len(table)]
        return table

    @functools.cached_property
    def gap(self) -> pd.DataFrame | None:
        """Markets: marks in the greatest and in the least equilibrium, and between what bounds all equilibria lie."""
        if self.least is None or self.bounds is None:
            return None
        table = self.network.markets[[]]
        table["greatest"], table["least"] = self.markets["mark"], self.least.markets["mark"]
        table["lower"], table["upper"] = self.bounds
        return table

    @property
    def _lowest_ratio(self) -> float:
        """Lowest mark in the least equilibrium, over that in the greatest."""
        if self.gap is None:
            return 1.0
        least, greatest = self.gap["least"].to_numpy(), self.gap["greatest"].to_numpy()
        return float(np.divide(least, greatest, out=np.ones(len(least)), where=greatest > 0).min(initial=1.0))

    @functools.cached_property
    def positions(self) -> pd.DataFrame:
        """Positions: contracts before and at the end, entry price, gain since entry at the last mark."""
        import pandas as pd

        state, net = self._state, self.network
        held, n_markets = state.positions, len(state.markets)
        rows = np.searchsorted(
            held.account.astype(np.int64) * n_markets + held.market,
            net.book.position_account.astype(np.int64) * n_markets + net.book.position_market,
        )
        before = np.zeros(len(held))
        before[rows] = net.book.quantity
        index = pd.MultiIndex.from_arrays(
            [net.labels("accounts")[held.account], net.labels("assets")[state.markets.asset[held.market]]],
            names=["account", "asset"],
        )
        table = {
            "quantity_before": before,
            "quantity": np.array(held.quantity),
            "entry_price": np.array(held.entry),
            "gain": gains(state.markets, held, state.marks()),
        }
        return pd.DataFrame(table, index=index)

    @functools.cached_property
    def losses(self) -> pd.DataFrame:
        """Losses by channel (rows) and bearer: traders, ``others@``, each exchange, liquidators, market, creditors."""
        return losses_by_bearer(self.network, self._bearer_losses)

    @functools.cached_property
    def loss(self) -> pd.DataFrame:
        """Bearer x (direct, contagion): what the shock takes by itself [num], and what all other channels take."""
        import pandas as pd

        direct = self._bearer_losses[CHANNELS.index("shock")]
        contagion = self._bearer_losses.sum(axis=0) - direct
        return pd.DataFrame({"direct": direct, "contagion": contagion}, index=self._bearers)

    def node_wealth(self, without: NDArray[np.int64] | None = None) -> float:
        """Add up what traders and exchanges have in the end [num], maybe without some traders.

        Where nothing is cleared and nobody trades holdings, this costs what the run touched, not what the network
        holds.

        Parameters
        ----------
        without : ndarray of int, optional
            Codes of traders, places in ``network.labels("traders")``, that do not count.

        Returns
        -------
        float
            Wealth after clearing: what nodes had before, less their losses.

        Examples
        --------
        >>> import netcontagion as nc
        >>> run = nc.cascade(nc.datasets.load("market"), nc.Shock.price({"ETH": -0.3}, family=True))
        >>> calm = nc.cascade(run.network, nc.Shock())
        >>> lost = run.traders["loss"].sum() + run.exchanges["loss"].sum()
        >>> bool(abs(calm.node_wealth() - run.node_wealth() - lost) < 1e-6 * lost)
        True
        """
        left_out = np.zeros(0, dtype=np.int64) if without is None else without
        found = wealth_of_nodes(self._play.state, left_out) if self.clearing is None else None
        if found is not None and self.status is not Status.NONFINITE:
            return found
        wealth = self._state.opening["wealth"] - self._bearer_losses.sum(axis=0)
        return float(np.delete(wealth[: len(self.network.nodes)], left_out).sum())

    @property
    def defaulted(self) -> pd.Series:
        """Which nodes do not pay in the final clearing what they owe."""
        import pandas as pd

        return pd.Series(self._defaulted, index=self.network.nodes)

    @functools.cached_property
    def figures(self) -> dict[str, float]:
        """Totals that take no look at accounts the run did not touch.

        ``rounds``; accounts ``called`` and ``liquidated``; money ``sold``; ``bad_debt`` and the layers that bore it.
        """
        borne = dict.fromkeys(("deficit", *_NAMED), 0.0)
        for (kind, _), value in self._play.events.by_exchange.items():
            borne[kind] = borne.get(kind, 0.0) + float(value)
        return {
            "rounds": len(self._play.rounds),
            "called": self._play.count("called"),
            "liquidated": self._play.count("liquidated"),
            "sold": float(sum(row["sold"] for row in self._play.rounds)),
            "bad_debt": borne.pop("deficit"),
            **{_NAMED.get(kind, f"{kind}_used"): value for kind, value in borne.items()},
        }

    # words --------------------------------------------------------------------------------------------------------

    def check(self) -> Laws:
        """Verify that cash, units of every asset and losses add up to 1e-9, and that nothing became negative.

        Returns
        -------
        Laws
            The relative errors found.

        Raises
        ------
        ContagionError
            Naming every law that does not hold.
        """
        broken = self._laws.broken(_TOLERANCE)
        if broken:
            raise ContagionError("; ".join(broken))
        if self.clearing is not None:
            self.clearing.check()
        return self._laws

    def summary(self) -> pd.Series:
        """Return the main figures as a Series."""
        import pandas as pd

        accounts, exchanges = self.accounts, self.exchanges
        money = self.network.numeraire
        facts: dict[str, Any] = {
            "shock": str(self.shock),
            "status": self.status.name,
            "rounds": len(self._play.rounds),
            "accounts": len(accounts) - self.network.derived("accounts"),
            "called": int(accounts["called"].sum()),
            "topped up": int(accounts["topped_up"].sum()),
            "liquidated": int(accounts["liquidated"].sum()),
            "left below health 1": self._left_below,
            f"debt repaid [{money}]": float(accounts["repaid"].sum()),
            f"sold [{money}]": float(self.rounds["sold"].sum()),
            f"bad debt [{money}]": float(exchanges["deficit"].sum()),
            f"insurance fund used [{money}]": float(exchanges["insurance_fund_used"].sum()),
            f"equity used [{money}]": float(exchanges["equity_used"].sum()),
            f"socialised [{money}]": float(exchanges["socialised"].sum()),
            **{f"{name} [{money}]": value for name, value in self._layers().items() if name not in _SAID},
            f"uncovered [{money}]": float(exchanges["uncovered"].sum()),
            f"loss of all bearers [{money}]": float(self._bearer_losses.sum()),
            "accounting error": self._laws.worst,
        }
        if self.clearing is not None:
            facts["defaults in clearing"] = int(self._defaulted.sum())
            facts["clearing passes"] = self.clearing_passes
        if self.least is not None and self.gap is not None:
            least = self.least.summary()
            facts |= {f"{name}, least": least[name] for name in ("called", "liquidated", f"bad debt [{money}]")}
            facts["lowest mark, least over greatest"] = self._lowest_ratio
        return pd.Series(facts, dtype=object, name="cascade")

    def __repr__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> list[str]:
        from netcontagion.network import money

        accounts, exchanges, unit = self.accounts, self.exchanges, self.network.numeraire
        seed = self.facts["seed"]
        name = f"Cascade, {self.which} equilibrium" if self._joint else "Cascade"
        head = f"{name}  {self.shock} | {self.facts['rounds']} rounds, {self.status.name.lower()}"
        head += f" | seed {seed}" if seed is not None else ""
        moved = self.facts["assets_moved"]
        helped = accounts["topped_up"] & ~accounts["liquidated"]
        calls = (
            f"{int(accounts['called'].sum()):,} margin calls: {int(helped.sum()):,} topped up, "
            f"{int(accounts['liquidated'].sum()):,} liquidated, {self._left_below:,} left below health 1"
        )
        fell = self.assets["impact"].sort_values()
        fell = fell[fell < -5e-5].head(4)
        impact = "  ".join(f"{name} {100 * value:.1f} %" for name, value in fell.items()) or "none"
        bad = exchanges["deficit"].sum()
        borne = " + ".join(f"{name} {money(value)}" for name, value in self._layers().items())
        lines = [
            head + f" | {unit}",
            *([f"  moved      {', '.join(map(str, moved[:8]))}{' ...' if len(moved) > 8 else ''}"] if moved else []),
            f"  accounts   {len(accounts) - self.network.derived('accounts'):,}: {calls}",
            f"  sold       {money(self.rounds['sold'].sum())}    price impact after the shock: {impact}",
            f"  bad debt   {money(bad)}" + (f" = {borne}" if borne else ""),
        ]
        if bad > 0:
            worst = exchanges["deficit"].idxmax()
            lines.append(f"  worst hit  {worst} {money(exchanges['deficit'].max())}")
        if self.least is not None:
            other = self.least
            lines.append(
                f"  least      {int(other.accounts['liquidated'].sum()):,} liquidated, bad debt "
                f"{money(other.exchanges['deficit'].sum())}, marks up to {100 * (1 - self._lowest_ratio):.1f} % lower"
            )
        if self.clearing is not None:
            lines.append(f"  clearing   {int(self._defaulted.sum()):,} nodes default")
        verdict = "OK" if not self._laws.broken(_TOLERANCE) else "BROKEN"
        lines.append(f"  accounting check {self._laws.worst:.1e} {verdict}")
        lines.append("  assumed    " + "; ".join(self.assumptions))
        return lines

    def _repr_html_(self) -> str:
        from netcontagion.network import money

        cells = "".join(
            f"<tr><th style='text-align:left'>{html.escape(str(name))}</th><td>"
            f"{html.escape(money(value) if isinstance(value, float) else str(value))}</td></tr>"
            for name, value in self.summary().items()
        )
        assumed = "".join(f"<li>{html.escape(line)}</li>" for line in self.assumptions)
        return f"<div><p><b>Cascade</b></p><table>{cells}</table><p>assumed</p><ul>{assumed}</ul></div>"


def close(play: Play, ending: Ending[int], *, seed: int | None, mode: str = "sequential") -> CascadeResult:
    """Freeze the result; what was lost, and by whom, is added up when somebody asks."""
    play.finish()
    state = play.state
    factors = [strike.price_factors(state.net) for _, strike in state.shock.strikes]
    names, _ = state.net.underlyings
    moved = itertools.compress(names, (np.stack(factors) != 1).any(axis=0))
    facts = {
        "shock": str(state.shock),
        "assets_moved": tuple(moved),
        "seed": seed,
        "mode": mode,
        "rounds": ending.rounds,
        "priority": play.priority,
        "channels": tuple(sorted(play.on)),
        "versions": dict(_versions()),
    }
    return CascadeResult(
        network=state.net,
        shock=state.shock,
        status=ending.status,
        facts=facts,
        _play=play,
    )


def _bearer_index(net: ExposureNetwork) -> pd.Index:
    import pandas as pd

    return pd.Index(bearer_labels(net), dtype=object, tupleize_cols=False, name="bearer")


@functools.cache
def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("netcontagion", "numpy", "scipy", "pandas", "numba")}


def _assumptions(play: Play) -> tuple[str, ...]:
    from netcontagion.margining._cascade import SWITCHES

    state = play.state
    found = list(state.net.assumptions)
    off = [name for name in SWITCHES if name not in play.on]
    if off:
        found.append(f"switched off: {', '.join(off)}")
    own = np.unique(state.markets.book[state.markets.book >= len(state.asset_base)])
    apart = int((state.net.columns("assets")["arbitrage"][state.markets.asset[own - len(state.asset_base)]] <= 0).sum())
    if apart:
        found.append(f"{apart} markets trade on books of their own, without arbitrage between exchanges")
    found += play.between.assumptions
    if play.together.unsettled:
        steps = play.together.unsettled
        found.append(
            f"{steps} times no common price fits all orders that are filled together: the last one tried holds"
        )
    bare = (state.rules.backstop_below > 0) & (state.rules.vault < 0)
    if bare.any():
        found.append(f"no backstop vault at {', '.join(map(str, state.net.labels('exchanges')[bare]))}: sold instead")
    if np.isinf(state.rules.capital).all():
        found.append("liquidators have all the capital they need")
    if state.runs is not None:
        found.append("runs are paid from what exchanges hold and have not lent")
    if play.passed_over:
        found.append(f"{play.passed_over} rounds of capped withdrawals alone are passed over")
    free = "" if state.rules.closed.any() or state.rules.gated.any() or state.runs is not None else " without limit"
    found.append(f"exchanges pay out deposits in kind{free}")
    return tuple(found)
