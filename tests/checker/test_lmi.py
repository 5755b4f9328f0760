from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import product as every

import numpy as np
import pytest

from tests.checker.groups import FAMILIES
from tests.checker.oracles import dense_network, evaluate, rationals
from verifier.certificate import LmiItem, LmiRow
from verifier.checker.constraints import Increments, centred, increments
from verifier.checker.definite import NotProved
from verifier.checker.items import selection
from verifier.checker.lmi import global_slopes, prove_lmi
from verifier.checker.lowering import Lowered, lowered
from verifier.checker.network import Elementwise, Network, Sort
from verifier.norms import Norm, NormPair
from verifier.property import Indices, Property

L2 = NormPair(Norm.L2, Norm.L2)


def gates(small: Lowered) -> dict[str, int]:
    """How many multipliers every gate needs."""
    return {
        small.gates[node.name]: len(node.groups) if isinstance(node, Sort) else node.size
        for node in small.network.nodes
        if isinstance(node, Elementwise | Sort)
    }


def attempt(
    whole: Network, rows: tuple[LmiRow, ...], pair: NormPair = L2, asked: Property | None = None
) -> float:
    small = lowered(whole, "keep")
    chosen = selection(asked or Property(norm=pair), whole.input_size, whole.output_size)
    slopes = global_slopes(small)
    return prove_lmi((LmiItem(rows=rows),), small, slopes, pair, chosen)[0].upper()


def best_level(whole: Network, share: float = 1e-9) -> tuple[LmiRow, float]:
    """About the least level for one multiplier a node, and the bound that it proves.

    For given multipliers the least level is an eigenvalue of a Schur complement of (1).
    """
    small = lowered(whole, "keep")
    found = increments(small, np.arange(whole.input_size), global_slopes(small))
    names = list(gates(small).items())
    best: tuple[float, LmiRow] | None = None
    for weights in every(
        2.0 ** np.arange(-6.0, 12.0, 1.0 if len(names) < 3 else 3.0), repeat=len(names)
    ):
        multipliers = {
            name: np.full(count, weight)
            for (name, count), weight in zip(names, weights, strict=True)
        }
        level = least_level(found, multipliers)
        if level is not None and (best is None or level < best[0]):
            row = LmiRow(
                output=None,
                level=level * (1 + share),
                input_multipliers=None,
                multipliers=multipliers,
            )
            best = (level, row)
    assert best is not None
    return best[1], attempt(whole, (best[1],))


def least_level(found: Increments, multipliers: dict[str, np.ndarray]) -> float | None:
    """The least rho of (1) for these multipliers, in plain float64; None where there is none."""
    matrix = np.zeros((found.size, found.size))
    for constraint in found.constraints:
        weight = multipliers[constraint.name][constraint.owner]
        entering = constraint.entering.value
        matrix[: len(entering), : len(entering)] -= (
            entering * (weight * constraint.share)
        ) @ entering.T
        matrix[constraint.coordinates, constraint.coordinates] += weight * constraint.weight
    matrix -= found.output.value @ found.output.value.T
    inputs = found.inputs
    one, cross, other = matrix[:inputs, :inputs], matrix[:inputs, inputs:], matrix[inputs:, inputs:]
    if len(other) and np.linalg.eigvalsh(other)[0] <= 1e-9:
        return None
    return float(np.linalg.eigvalsh(cross @ np.linalg.solve(other, cross.T) - one)[-1])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_level_below_the_least_is_rejected(family: str) -> None:
    whole = FAMILIES[family](np.random.default_rng(4))
    candidate, _ = best_level(whole)
    for share in (1e-8, 1e-6, 1e-3):
        lower = replace(candidate, level=candidate.level * (1 - share))
        with pytest.raises(NotProved):
            attempt(whole, (lower,))


@pytest.mark.parametrize("family", FAMILIES)
def test_no_exact_quotient_exceeds_a_proved_bound(family: str) -> None:
    rng = np.random.default_rng(4)
    for _ in range(2):
        whole = FAMILIES[family](rng)
        _, bound = best_level(whole)
        for _ in range(60):
            x, y = rationals(rng, 3), rationals(rng, 3)
            rise = zip(evaluate(whole, x)["y"], evaluate(whole, y)["y"], strict=True)
            run = sum(((a - b) ** 2 for a, b in zip(x, y, strict=True)), Fraction(0))
            assert sum(((a - b) ** 2 for a, b in rise), Fraction(0)) <= Fraction(bound) ** 2 * run


def scalar_chain(weight: float) -> Network:
    """Y = w relu(x): the relaxation is exact, w^2 = rho, lambda = w^2/2 (r = m = 1/2)."""
    return dense_network([np.array([[1.0]]), np.array([[weight]])])


@pytest.mark.parametrize("share", [1e-15, 1e-14, 1e-13, 1e-12, 1e-11, 1e-10, 1e-6, 0.1])
def test_a_level_below_the_optimum_is_rejected(share: float) -> None:
    """M = [[rho - lambda - w^2/4, -w^2/4], [., lambda - w^2/4]] is singular at rho = w^2."""
    whole = scalar_chain(3.0)
    for weight in (9 / 2, 9 / 2 * (1 + 1e-8), 9 / 2 * (1 - 1e-8), 4.0, 5.0):
        candidate = LmiRow(
            output=None,
            level=9.0 * (1 - share),
            input_multipliers=None,
            multipliers={"h0": np.array([weight])},
        )
        with pytest.raises(NotProved):
            attempt(whole, (candidate,))


def test_a_level_just_above_the_optimum_is_proved() -> None:
    candidate = LmiRow(
        output=None,
        level=9.0 * (1 + 1e-12),
        input_multipliers=None,
        multipliers={"h0": np.array([4.5])},
    )
    assert 3.0 < attempt(scalar_chain(3.0), (candidate,)) < 3.0 * (1 + 1e-12)


def test_linf_rows_bound_their_output() -> None:
    """Y = (x_1 + x_2)+ has |dy| <= 2 |dx|_inf; s = tau_1 + tau_2 = 2 is the least proof."""
    whole = dense_network([np.array([[1.0, 1.0]]), np.array([[1.0]])])
    pair = NormPair(Norm.LINF, Norm.LINF)
    found: list[float] = []
    for level, weight in every((2.0, 2.0 + 1e-9, 2.1), (0.25, 0.5, 1.0)):
        candidate = LmiRow(
            output=0,
            level=level,
            input_multipliers=np.full(2, level / 2),
            multipliers={"h0": np.array([weight])},
        )
        try:
            found.append(attempt(whole, (candidate,), pair))
        except NotProved:
            continue
    assert found
    assert 2.0 <= min(found) <= 2.0 + 1e-8


def mutated(candidate: LmiRow, name: str, value: float) -> LmiRow:
    array = candidate.multipliers[name].copy()
    array[0] = value
    return LmiRow(
        output=candidate.output,
        level=candidate.level,
        input_multipliers=None,
        multipliers={**candidate.multipliers, name: array},
    )


@pytest.mark.parametrize("bad", [-1.0, -1e-300, np.nan, np.inf, -np.inf, 1e308, 1e-308])
def test_multipliers_out_of_range_are_rejected(bad: float) -> None:
    whole = FAMILIES["residual"](np.random.default_rng(4))
    candidate, _ = best_level(whole)
    with pytest.raises(NotProved):
        attempt(whole, (mutated(candidate, "h", bad),))


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf, 1e308, 0.0])
def test_levels_out_of_range_are_rejected(bad: float) -> None:
    whole = FAMILIES["residual"](np.random.default_rng(4))
    candidate, _ = best_level(whole)
    changed = LmiRow(
        output=None, level=bad, input_multipliers=None, multipliers=candidate.multipliers
    )
    with pytest.raises(NotProved):
        attempt(whole, (changed,))


@pytest.mark.parametrize("change", ["missing", "unknown", "short", "long"])
def test_multipliers_of_the_wrong_gates_are_rejected(change: str) -> None:
    whole = FAMILIES["residual"](np.random.default_rng(4))
    candidate, _ = best_level(whole)
    known = dict(candidate.multipliers)
    match change:
        case "missing":
            del known["k"]
        case "unknown":
            known["other"] = np.ones(4)
        case "short":
            known["k"] = known["k"][:3]
        case _:
            known["k"] = np.ones(5)
    changed = LmiRow(output=None, level=candidate.level, input_multipliers=None, multipliers=known)
    with pytest.raises(NotProved):
        attempt(whole, (changed,))


def test_rows_have_to_cover_every_output() -> None:
    whole = FAMILIES["residual"](np.random.default_rng(4))
    candidate, _ = best_level(whole)
    one = LmiRow(
        output=0,
        level=candidate.level,
        input_multipliers=None,
        multipliers=candidate.multipliers,
    )
    with pytest.raises(NotProved, match="1 of 2 outputs"):
        attempt(whole, (one,))
    with pytest.raises(NotProved):
        attempt(whole, ())
    beyond = LmiRow(output=2, level=1e6, input_multipliers=None, multipliers=candidate.multipliers)
    with pytest.raises(NotProved, match="output 2"):
        attempt(whole, (one, beyond))


def test_an_l2_row_for_linf_inputs_costs_the_root_of_their_number() -> None:
    whole = dense_network([np.eye(4)])
    candidate = LmiRow(output=None, level=1.0 + 1e-9, input_multipliers=None, multipliers={})
    two = attempt(whole, (candidate,))
    inf = attempt(whole, (candidate,), NormPair(Norm.LINF, Norm.L2))
    assert 2.0 <= inf
    assert inf == pytest.approx(2 * two)
    one = attempt(whole, (candidate,), NormPair(Norm.L2, Norm.L1))
    assert one == pytest.approx(2 * two)


def test_only_selected_inputs_vary() -> None:
    whole = dense_network([np.array([[1.0, 100.0]])])
    candidate = LmiRow(output=None, level=1.0 + 1e-9, input_multipliers=None, multipliers={})
    asked = Property(inputs=Indices((0,)))
    assert attempt(whole, (candidate,), asked=asked) <= 1.0 + 1e-8
    with pytest.raises(NotProved):
        attempt(whole, (candidate,))


def test_coupled_multiplier_is_false() -> None:
    """W0, W1 have the slope .90294; a level below its square is proved by no multipliers."""
    first = np.array([[-1.0379, 1.06128], [-0.47245, -0.21774]])
    whole = dense_network([first, np.array([[0.60827, -0.8852]])])
    for level in (0.86496**2, 0.90294**2 - 1e-6):
        for one, other in every(2.0 ** np.arange(-6.0, 3.0), repeat=2):
            candidate = LmiRow(
                output=None,
                level=level,
                input_multipliers=None,
                multipliers={"h0": np.array([one, other])},
            )
            with pytest.raises(NotProved):
                attempt(whole, (candidate,))


def test_a_slope_range_is_centred_outward() -> None:
    rng = np.random.default_rng(8)
    ends = np.sort(rng.standard_normal((2, 2000)) * 10.0 ** rng.integers(-8, 9, 2000), axis=0)
    middle, radius = centred(*ends)
    for low, high, m, r in zip(*ends, middle, radius, strict=True):
        assert Fraction(m) - Fraction(r) <= Fraction(low)
        assert Fraction(high) <= Fraction(m) + Fraction(r)
    assert centred(np.zeros(1), np.ones(1)) == (0.5, 0.5)
    assert centred(np.ones(1), np.ones(1)) == (1.0, 0.0)
