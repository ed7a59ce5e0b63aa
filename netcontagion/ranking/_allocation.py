"""Where a budget saves most: by linear programme where losses are concave in it, else step by step.

Eisenberg and Noe, one scenario s with assets e: the clearing payments are the only maximum of sum p over
0 <= p <= d, p <= e + Pi' p. With money x put into nodes, of which a_s is left after the shock, the least mean shortfall
is therefore the linear programme

    min 1/S sum_s 1'(d - p_s)  over  p, x >= 0,  p_s <= e_s + a_s x + Pi' p_s,  p_s <= d,  1'x <= B,

whose optimum is proved by its dual. A rescued node pays its dues whatever it has: p_is <= e_is + (Pi' p_s)_i + d_i y_i,
y binary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from netcontagion.clearing import Case
from netcontagion.errors import ContagionError
from netcontagion.ranking._marginal import passed_on
from netcontagion.ranking._outcomes import LOSS
from netcontagion.ranking._response import fitted
from netcontagion.ranking._tools import TOOLS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from netcontagion.ranking._outcomes import Target
    from netcontagion.ranking._response import Response
    from netcontagion.ranking._tools import Lever

    Floats = NDArray[np.float64]

__all__ = ["Allocation", "Programme", "allocate", "is_linear"]

STEPS = 10  # in which a budget is spent where no programme is linear
SHORT = ("shortfall", LOSS)


@dataclass(frozen=True)
class Allocation:
    """Money by lever; mean outcome before and with it, and a bound that no allocation goes below, with its reason."""

    money: tuple[float, ...]
    before: float
    after: float
    bound: float
    method: str


def is_linear(response: Response) -> bool:
    """Whether payments solve a linear programme: Eisenberg and Noe, external debt pari passu, without accounts."""
    rank = response.options.get("external_rank", "pari_passu")
    plain = rank == "pari_passu" and response.options.get("which", "greatest") == "greatest"
    return response.model == "eisenberg_noe" and plain and not len(response.net.labels("accounts"))


def allocate(response: Response, levers: Sequence[Lever], budget: float, outcome: str) -> Allocation:
    """Spend a budget on levers so that the mean outcome falls most."""
    if is_linear(response) and outcome in SHORT and all(TOOLS[lever.tool].drains for lever in levers):
        return Programme.of(response).spend(response, levers, budget)
    return _step_by_step(response, levers, budget, outcome)


# linear ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Programme:
    """Payments of n nodes in s scenarios, scenario by scenario: dues (n,), assets (s, n), p - Pi' p as a matrix."""

    dues: Floats
    assets: Floats
    retained: Any

    @classmethod
    def of(cls, response: Response) -> Programme:
        """Lay it out."""
        import scipy.sparse as sp

        cases = [Case.of(response.net, shock) for shock in fitted(response.scenarios, response.net)]
        dues, owed = cases[0].dues, cases[0].owed
        share = np.divide(1.0, dues, out=np.zeros(len(dues)), where=dues > 0)
        passed = (sp.diags_array(share) @ owed).T
        matrix = sp.csr_array(sp.eye_array(len(dues)) - passed)
        assets = np.stack([case.after.assets for case in cases])
        return cls(dues, assets, sp.kron(sp.eye_array(len(cases)), matrix, format="csr"))

    def spend(self, response: Response, levers: Sequence[Lever], budget: float) -> Allocation:
        """Solve the linear programme of a budget."""
        import scipy.sparse as sp
        from scipy.optimize import linprog

        scenarios, size = self.assets.shape
        gains = self._gains(response, levers)
        limits = sp.block_array(
            [[self.retained, sp.csr_array(-gains)], [None, sp.csr_array(np.ones((1, len(levers))))]], format="csr"
        )
        scale = max(float(self.dues.max(initial=0.0)), budget) or 1.0
        right = np.append(self.assets.ravel(), budget) / scale
        cost = np.append(np.full(scenarios * size, -1.0 / scenarios), np.zeros(len(levers)))
        tops = [*np.tile(self.dues / scale, scenarios).tolist(), *[None] * len(levers)]
        found = linprog(cost, limits, right, bounds=[(0.0, top) for top in tops], method="highs")
        if not found.success:
            raise ContagionError(f"the linear programme of the budget was not solved: {found.message}")
        money = np.maximum(found.x[scenarios * size :], 0.0) * scale
        money *= min(1.0, budget / money.sum()) if money.sum() > 0 else 1.0
        bound = float(self.dues.sum() + scale * self._dual(found, right, tops))
        net, name = _with(response, levers, money), response.names[0]
        before, after = (float(one[name].mean()) for one in (response.now, response.of({"the budget": net})[0]))
        return Allocation(tuple(money.tolist()), before, after, max(bound, 0.0), "linear programme, bound by its dual")

    def _gains(self, response: Response, levers: Sequence[Lever]) -> Floats:
        """Return what nodes have more of in each scenario by a unit of money in a lever, (s n, levers)."""
        scenarios, size = self.assets.shape
        gains = np.zeros((scenarios, size, len(levers)))
        cut = len(response.net.labels("traders"))
        for row, shock in enumerate(fitted(response.scenarios, response.net)):
            for column, lever in enumerate(levers):
                places = np.array(lever.places)
                nodes = places + (cut if TOOLS[lever.tool].nodes == "exchanges" else 0)
                left = passed_on(response.net, shock, lever.tool)[places]
                gains[row, nodes, column] = left * np.array(lever.shares)
        return gains.reshape(scenarios * size, len(levers))

    @staticmethod
    def _dual(found: Any, right: Floats, tops: list[float | None]) -> float:
        """Value of the dual solution: a lower bound of the objective, which no allocation goes below."""
        upper = np.array([0.0 if top is None else top for top in tops])
        return float(found.ineqlin.marginals @ right + found.upper.marginals @ upper)

    def rescue(self, target: Target) -> NDArray[np.bool_]:
        """Find the fewest nodes whose dues have to be guaranteed for a target to hold."""
        import scipy.sparse as sp
        from scipy.optimize import Bounds, LinearConstraint, milp

        scenarios, size = self.assets.shape
        scale = float(self.dues.max(initial=0.0)) or 1.0
        dues = self.dues / scale
        count = scenarios * size
        guarantee = sp.csr_array(sp.vstack([sp.diags_array(dues)] * scenarios))
        failing = sp.diags_array(np.tile(dues, scenarios))
        missed = sp.kron(sp.eye_array(scenarios), np.ones((1, size)), format="csr")
        none = sp.csr_array((count, scenarios))
        rows = [
            (sp.hstack([self.retained, -guarantee, sp.csr_array((count, count)), none]), self.assets.ravel() / scale),
            (sp.hstack([-sp.eye_array(count), sp.csr_array((count, size)), -failing, none]), -np.tile(dues, scenarios)),
        ]
        nothing, no_node = sp.csr_array((scenarios, count)), sp.csr_array((scenarios, size))
        for name, limit in target.limits:
            short = name in SHORT
            worst = dues.sum() if short else float(size)
            give = -sp.diags_array(np.full(scenarios, worst))
            part = [-missed, no_node, nothing, give] if short else [nothing, no_node, missed, give]
            allowed = (limit + target.slack) / scale - dues.sum() if short else limit
            rows.append((sp.hstack(part), np.full(scenarios, allowed)))
        spare = scenarios - target.needed(scenarios)
        let = sp.hstack([sp.csr_array((1, 2 * count + size)), sp.csr_array(np.ones((1, scenarios)))])
        rows.append((let, np.array([float(spare)])))
        cost = np.concatenate([np.zeros(count), np.ones(size), np.zeros(count + scenarios)])
        whole = np.concatenate([np.zeros(count), np.ones(size + count + scenarios)])
        top = np.concatenate([np.tile(dues, scenarios), np.ones(size + count + scenarios)])
        limits = LinearConstraint(sp.vstack([row for row, _ in rows]), -np.inf, np.concatenate([to for _, to in rows]))
        proven = {"mip_rel_gap": 0.0}
        found = milp(cost, integrality=whole, bounds=Bounds(0.0, top), constraints=limits, options=proven)
        if not found.success:
            raise ContagionError(f"the fewest nodes to rescue were not found: {found.message}")
        return np.asarray(found.x[count : count + size] > 0.5)


def _with(response: Response, levers: Sequence[Lever], money: Floats) -> Any:
    """Return the network with money added to levers."""
    net = response.net
    for lever, amount in zip(levers, money.tolist(), strict=True):
        if amount > 0:
            net = lever.moved(net, amount) or net
    return net


# step by step ---------------------------------------------------------------------------------------------------------


def _step_by_step(response: Response, levers: Sequence[Lever], budget: float, outcome: str) -> Allocation:
    """Give each part of the budget to the lever by which the mean outcome falls most.

    Where no part changes anything, losses may only fall once more has been spent: then all that is left is tried at
    once on each lever, and spent on the best if that helps.
    """
    money = np.zeros(len(levers))
    before = now = float(response.now[outcome].mean())
    left, part = budget, budget / STEPS
    while left > 0.5 * part:
        for amount in (min(part, left), left):
            tried = [money + amount * np.eye(len(levers))[place] for place in range(len(levers))]
            means = _mean(response, levers, tried, outcome)
            best = int(np.argmin(means))
            if means[best] < now - 1e-12 * abs(now):
                money, now, left = tried[best], means[best], left - amount
                break
        else:
            break
    method = f"{STEPS} steps, each where it saves most; no bound is known beside zero"
    return Allocation(tuple(money.tolist()), before, now, 0.0, method)


def _mean(response: Response, levers: Sequence[Lever], money: Sequence[Floats], outcome: str) -> list[float]:
    nets = {str(number): _with(response, levers, one) for number, one in enumerate(money)}
    return [float(found[outcome].mean()) for found in response.of(nets)]
