"""Rows for l1 inputs, l1 outputs, and all outputs of linf inputs: never too small or forged."""

from __future__ import annotations

from dataclasses import replace

import mpmath
import numpy as np
import pytest

from tests.checker.groups import FAMILIES
from tests.checker.oracles import dense_network
from tests.checker.test_lmi import attempt, best_level
from verifier.certificate import LmiRow
from verifier.checker.carry import Carried
from verifier.checker.columns import column_levels
from verifier.checker.constraints import increments
from verifier.checker.definite import NotProved
from verifier.checker.lmi import global_slopes
from verifier.checker.lowering import lowered
from verifier.checker.network import Network
from verifier.checker.squares import Squares
from verifier.norms import Norm, NormPair

L1_L2, L2_L1 = NormPair(Norm.L1, Norm.L2), NormPair(Norm.L2, Norm.L1)
LINF_L2, LINF_L1 = NormPair(Norm.LINF, Norm.L2), NormPair(Norm.LINF, Norm.L1)


def columns_of(whole: Network, row: LmiRow) -> np.ndarray:
    """K_kk by its definition, in 60 digits."""
    small = lowered(whole, "keep")
    found = increments(small, np.arange(whole.input_size), global_slopes(small))
    with mpmath.workdps(60):
        matrix = mpmath.matrix(found.output.value.tolist())
        matrix = -matrix * matrix.T
        for constraint in found.constraints:
            weight = row.multipliers[constraint.name][constraint.owner]
            entering = np.zeros((found.size, len(weight)))
            entering[: constraint.entering.rows] = constraint.entering.value
            for k, coordinate in enumerate(constraint.coordinates.tolist()):
                column = mpmath.matrix(entering[:, k].tolist())
                scaled = mpmath.mpf(weight[k]) * mpmath.mpf(constraint.share[k])
                matrix -= scaled * column * column.T
                matrix[coordinate, coordinate] += mpmath.mpf(weight[k]) * constraint.weight[k]
        n = found.inputs
        inner = matrix[n:, n:]
        levels = [
            -matrix[k, k] + (matrix[k, n:] * mpmath.lu_solve(inner, matrix[n:, k]))[0]
            for k in range(n)
        ]
        return np.array([float(level) for level in levels])


@pytest.mark.parametrize("family", FAMILIES)
def test_columns_are_bounded_from_above_and_closely(family: str) -> None:
    """The greatest root of K_kk, by 60 digits: never above what is proved, and nearly it."""
    whole = FAMILIES[family](np.random.default_rng(4))
    row, bound = best_level(whole)
    truth = float(np.sqrt(columns_of(whole, row).max()))
    proved = attempt(whole, (row,), L1_L2)
    assert truth * (1 - 1e-15) <= proved <= truth * (1 + 1e-9)
    assert proved <= bound


def test_each_input_takes_its_best_row() -> None:
    """One row is good for input 0, another for input 1: together they are better than either."""
    whole = dense_network([np.diag([1.0, 4.0]), np.eye(2)])
    rows = [
        LmiRow(
            output=None,
            level=1.0,
            input_multipliers=None,
            multipliers={"h0": np.array([first, second])},
        )
        for first, second in [(0.5, 3.0), (3.0, 0.5)]
    ]
    apart = [attempt(whole, (row,), L1_L2) for row in rows]
    assert attempt(whole, tuple(rows), L1_L2) <= min(apart)
    assert 4.0 <= min(apart)


def test_inner_matrix_that_is_not_definite_is_refused() -> None:
    """With lambda below w^2/4 the psi of a neuron would pay for itself."""
    whole = dense_network([np.array([[1.0]]), np.array([[3.0]])])
    for weight in (2.25, 2.0, 1e-3):
        row = LmiRow(
            output=None,
            level=1e6,
            input_multipliers=None,
            multipliers={"h0": np.array([weight])},
        )
        with pytest.raises(NotProved):
            attempt(whole, (row,), L1_L2)


def test_signed_squares_count_with_their_sign() -> None:
    """K = 4 - 1 + (2 - 1/2)^2 / (3 - 1 + 1/4) for the squares (2 + psi)^2 - (1 + psi/2)^2."""
    rows = Carried(np.array([[2.0, 1.0], [1.0, 0.5]]))
    squares = Squares(rows, np.array([1.0, -1.0]))
    (level,) = column_levels(squares, np.array([3.0]), 1, lambda _: True)
    truth = 4 - 1 + (2 - 0.5) ** 2 / (3 - 1 + 0.25)
    assert truth <= level <= truth * (1 + 1e-12)


def signed(level: float, signs: list[float], tau: np.ndarray | None = None) -> LmiRow:
    return LmiRow(
        output=None,
        level=level,
        input_multipliers=tau,
        multipliers={"h0": np.array([20.0, 20.0])},
        output_multipliers=np.array(signs),
    )


def two_by_two() -> Network:
    """Y = diag(1, 2) (x)+: |y|_1 reaches sqrt(5) |x|_2 and 3 |x|_inf."""
    return dense_network([np.eye(2), np.diag([1.0, 2.0])])


def test_signs_bound_the_sum_of_outputs() -> None:
    """Weights 1/mu with sum of mu at most 1, mu as |y_j|: (3, 3/2)."""
    proved = attempt(two_by_two(), (signed(40.0, [3.3, 1.7]),), L2_L1)
    assert 5**0.5 <= proved <= 40.0**0.5
    with pytest.raises(NotProved):
        attempt(two_by_two(), (signed(4.99, [3.3, 1.7]),), L2_L1)


@pytest.mark.parametrize(
    "signs", [[3.3], [3.3, 1.7, 1.0], [-3.3, 1.7], [3.3, 0.0], [1.5, 1.5], [np.nan, 1.0]]
)
def test_forged_signs_are_refused(signs: list[float]) -> None:
    """Of another number, negative, or with 1/lambda_1 + 1/lambda_2 above 1."""
    with pytest.raises(NotProved):
        attempt(two_by_two(), (signed(1e6, signs),), L2_L1)


def test_signs_are_of_all_outputs_and_no_gate_of_the_network() -> None:
    row = signed(40.0, [3.3, 1.7])
    with pytest.raises(NotProved):
        attempt(two_by_two(), (replace(row, output=0),), L2_L1)
    named = {**row.multipliers, "\0signs": np.array([3.3, 1.7])}
    with pytest.raises(NotProved):
        attempt(two_by_two(), (replace(row, multipliers=named),), L2_L1)


def test_joint_outputs_of_linf_inputs() -> None:
    """|y|_2 <= (s + sum tau)/2 for |dx|_inf <= 1; here |y|_2 reaches sqrt(5)."""

    def row(level: float) -> LmiRow:
        return LmiRow(
            output=None,
            level=level,
            input_multipliers=np.array([1.0, 4.0]) / 5**0.5,
            multipliers={"h0": np.array([0.5, 2.0]) / 5**0.5},
        )

    best = 5**0.5
    assert best <= attempt(two_by_two(), (row(best * (1 + 1e-9)),), LINF_L2) <= best * (1 + 1e-8)
    assert attempt(two_by_two(), (row(best * (1 + 1e-9)),), LINF_L1) >= 3
    for level in (best * (1 - 1e-9), 1.0, 0.0):
        with pytest.raises(NotProved):
            attempt(two_by_two(), (row(level),), LINF_L2)


def test_signs_with_linf_inputs() -> None:
    """(s + sum tau)/2 = 3 is the least for |y|_1 of diag(1, 2) (x)+."""
    tau = np.array([1.0, 2.0]) * (1 + 1e-6)
    # psi_j = s_j y_j: 2 sum psi <= 3 + sum (lambda_j ...) with lambda_j = 1/|y_j| = (1, 1/2).
    row = LmiRow(
        output=None,
        level=3.0 * (1 + 1e-6),
        input_multipliers=tau,
        multipliers={"h0": np.array([0.5, 1.0])},
        output_multipliers=np.array([1.0, 0.5]),
    )
    assert 3 <= attempt(two_by_two(), (row,), LINF_L1) <= 3 * (1 + 1e-5)
    with pytest.raises(NotProved):
        attempt(two_by_two(), (replace(row, level=2.999),), LINF_L1)
