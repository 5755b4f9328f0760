"""Inputs in l1: what one row proves of steps in each input alone.

|f(x) - f(y)| <= sum_k |dx_k| b_k where b_k bounds steps in input k alone, so that the greatest b_k
bounds steps of |dx|_1 = 1. For xi = (e_k, psi) the constraints give |Y xi|^2 <= K_k with

    K_k = max over psi of  q(psi) = Q(R_k + R_psi psi) - psi'Lambda psi,                    (1)

R_k the column of dx_k in all signed squares Q(z) = sum_i sign_i z_i^2, Y's among them. Where
P = Lambda - R_psi'diag(sign) R_psi is positive definite, q is concave, and for any y

    K_k = q(y) + r'P^-1 r,   r = R_psi'diag(sign)(R_k + R_psi y) - Lambda y.                (2)

With P - c Lambda >= 0 shown, r'P^-1 r <= sum_j r_j^2 / (c Lambda_j): y is found in floating point,
where r is hardly more than rounding, and (2) is rounded up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import LEAST, UNIT, enlarged, gamma
from verifier.checker.definite import NotProved

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float64

    from verifier.checker.squares import Squares

#: The c of (2) that are tried: a larger one makes less of r.
FLOORS = tuple(2.0**-power for power in (6, 12, 18, 24, 30, 36))


def column_levels(
    squares: Squares,
    weights: Float64[np.ndarray, " psis"],
    inputs: int,
    holds: Callable[[Float64[np.ndarray, " psis"]], bool],
) -> Float64[np.ndarray, " inputs"]:
    """Numbers that the K of (1) do not exceed, input by input.

    Args:
        squares: all signed squares, over xi = (dx, psi).
        weights: the diagonal of Lambda.
        inputs: how many entries of xi are dx.
        holds: whether 0 <= D - R_psi'diag(sign) R_psi is shown for a diagonal D.

    Raises:
        NotProved: P is not shown to be positive definite by a share of Lambda.
    """
    if not np.all(0 < weights):
        raise NotProved("a row for l1 inputs needs multipliers above 0")
    floor = next((c for c in FLOORS if holds(np.nextafter(weights * (1 - c), 0.0))), None)
    if floor is None:
        raise NotProved("the matrix inequality of the gates is not shown to hold with a margin")
    value, spread = squares.rows.value, squares.rows.errors()
    drive, inner = value[:, :inputs], value[:, inputs:]
    sign = squares.sign[:, None]
    at = _maximisers(drive, inner, sign, weights)
    count, size = inner.shape
    # What enters each square: G = R_k + R_psi y, and what is wrong with it.
    reached = drive + inner @ at
    mass = np.abs(drive) + enlarged(np.abs(inner) @ np.abs(at), size)
    wrong = spread[:, :inputs] + enlarged(spread[:, inputs:] @ np.abs(at), size)
    wrong = enlarged(wrong + gamma(size + 2) * mass + size * LEAST, 8)
    height = enlarged(np.abs(reached) + wrong, 2)
    depth = np.maximum(0.0, np.nextafter(np.abs(reached) - wrong, -np.inf))
    above = enlarged(np.square(np.where(sign > 0, height, 0.0)).sum(axis=0), count)
    below = np.square(np.where(sign < 0, depth, 0.0)).sum(axis=0)
    below = below + (weights[:, None] * np.square(at)).sum(axis=0)
    below = np.maximum(0.0, below * (1 - 2 * gamma(count + size + 6)) - (count + size) * 4 * LEAST)
    # r, and what is wrong with it.
    held = weights[:, None] * at
    rest = inner.T @ (sign * reached) - held
    error = np.abs(inner).T @ wrong + spread[:, inputs:].T @ height
    error = enlarged(error, 2 * count) + enlarged(
        gamma(count + 2) * enlarged(np.abs(inner).T @ height, count)
        + 2 * UNIT * (np.abs(held) + np.abs(rest)),
        8,
    )
    root = np.sqrt(floor * weights)[:, None] * (1 - 4 * UNIT)
    share = enlarged((np.abs(rest) + error + (count + 4) * LEAST) / root, 8)
    excess = enlarged(np.square(share).sum(axis=0), size)
    levels = enlarged(np.maximum(0.0, above - below) + excess + UNIT * (above + below), 8)
    if not np.all(np.isfinite(levels)):
        raise NotProved("a level of one input exceeds float64")
    return levels


def _maximisers(
    drive: Float64[np.ndarray, "k inputs"],
    inner: Float64[np.ndarray, "k psis"],
    sign: Float64[np.ndarray, "k 1"],
    weights: Float64[np.ndarray, " psis"],
) -> Float64[np.ndarray, "psis inputs"]:
    """The psi of (1) for every input, to rounding: P y = R_psi'diag(sign) R_k, in scaled form."""
    scale = 1 / np.sqrt(weights)
    scaled = inner * scale
    matrix = np.eye(len(weights)) - scaled.T @ (sign * scaled)
    try:
        found = np.linalg.solve(matrix, scaled.T @ (sign * drive))
    except np.linalg.LinAlgError as error:
        raise NotProved("the matrix inequality of the gates is singular") from error
    return found * scale[:, None]
