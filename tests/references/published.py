"""Bounds as other people published them, of chains f = W_d g(W_(d-1) ... g(W_1 x)) in l2.

Written from their formulas with cvxpy and NumPy, each on the original unknowns: an oracle that
shares nothing with the (dx, psi) form of ours. What a solver prints is no proof; its digits are
good to about 1e-7 where it says that it has solved the problem, and else None is returned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import cvxpy as cp
import numpy as np
import numpy.typing as npt

Expression: TypeAlias = Any  # of cvxpy, which ships no types
Matrix: TypeAlias = npt.NDArray[np.float64]
Groups: TypeAlias = Sequence[
    tuple[Sequence[int], Matrix]
]  #: the places of each group, and F of its R = F'F


def product_bound(weights: Sequence[Matrix]) -> float:
    """|W_d| ... |W_1|, for activations that are 1-Lipschitz."""
    return math.prod(float(np.linalg.norm(weight, 2)) for weight in weights)


def lipsdp_neuron(
    weights: Sequence[Matrix], slopes: tuple[float, float] = (0.0, 1.0)
) -> float | None:
    """LipSDP-Neuron, Fazlyab et al. 2019 (arXiv 1906.04893), theorem 2.

    With the signals z = (x, g_1, ..., g_(d-1)), A z what enters the activations, B z what leaves
    them, T = diag(t), 0 <= t and slopes in [a, b], minimise rho subject to

        0 >= [A; B]' [[-2ab T, (a+b) T], [(a+b) T, -2 T]] [A; B] + blkdiag(-rho I, 0, W_d' W_d).
    """
    low, high = slopes
    entering, leaving, first, last = _stacked(weights)
    scales = cp.diag(cp.Variable(len(entering), nonneg=True))
    level = cp.Variable(nonneg=True)
    cross = entering.T @ scales @ leaving
    total = (
        -2 * low * high * entering.T @ scales @ entering
        + (low + high) * (cross + cross.T)
        - 2 * leaving.T @ scales @ leaving
        - level * first.T @ first
        + last.T @ last
    )
    return _least(level, -total)


def sorted_groups(
    weights: Sequence[Matrix], groups: Sequence[Groups], *, held: float
) -> float | None:
    """The constraint for GroupSort and Householder of Pauli et al. 2024 (arXiv 2401.14033).

    With v what enters a layer's groups, z what leaves them, 0 <= lam and S, P, T as in

        0 <= [v; z]' [[T - 2 S, P + S], [P + S, -T - 2 P]] [v; z],                         (1)
        T = diag(lam) (x) I + diag(gam) (x) R, S = diag(nu) (x) R, P = diag(tau) (x) R,

    R = 11' for GroupSort, I - u u' for the reflection by a unit vector u. Per group that is

        lam (|v|^2 - |z|^2) + gam (v'Rv - z'Rz) - 2 (nu v - tau z)' R (v - z).

    nu = tau -> infinity enforces R v = R z, as eliminating it does: the least bound is a limit
    that no multipliers attain. `held` keeps |nu|, |tau| at most that; with 0, T alone is left.
    """
    entering, leaving, first, last = _stacked(weights)
    count = sum(len(layer) for layer in groups)
    lam, gam = cp.Variable(count, nonneg=True), cp.Variable(count)
    nu, tau = cp.Variable(count), cp.Variable(count)
    level = cp.Variable(nonneg=True)
    whole, kept = _gathered(weights, groups)

    def form(scales: Expression, left: Matrix, right: Matrix, owner: Matrix) -> Expression:
        cross = left.T @ cp.diag(owner @ scales) @ right
        return (cross + cross.T) / 2

    v, z, a, b = (rows @ signal for rows in (whole[0], kept[0]) for signal in (entering, leaving))
    of_whole, of_kept = whole[1], kept[1]
    total = (
        level * first.T @ first
        - last.T @ last
        - form(lam, v - z, v + z, of_whole)
        - form(gam, a - b, a + b, of_kept)
        + form(nu, 2 * a, a - b, of_kept)
        - form(tau, 2 * b, a - b, of_kept)
    )
    return _least(level, total, [cp.abs(nu) <= held, cp.abs(tau) <= held])


def sorted_chain(weights: Sequence[Matrix], count: int = 2) -> float | None:
    """The same for sorts of `count` neighbours with T alone, which splits layer by layer.

    It is what the authors' program solves: with T_0 = rho I,

        0 <= T_(i-1) - W_i' T_i W_i,    0 <= T_(d-1) - W_d' W_d.

    Weights are scaled to norm 1 first, and inputs beyond the first layer's rank left out.
    """
    scales = [float(np.linalg.norm(weight, 2)) for weight in weights]
    first = np.linalg.cholesky(weights[0] @ weights[0].T) if _is_wide(weights[0]) else weights[0]
    level = cp.Variable(nonneg=True)
    before: Expression = level * np.eye(first.shape[1])
    limits: list[Expression] = []
    for weight, scale in zip([first, *weights[1:]], scales, strict=True):
        unit, rows = weight / scale, len(weight)
        after: Expression = np.eye(rows)
        if len(limits) + 1 < len(weights):
            groups = np.repeat(np.eye(rows // count), count, axis=0)
            lam, gam = cp.Variable(rows // count, nonneg=True), cp.Variable(rows // count)
            after = cp.diag(groups @ lam) + groups @ cp.diag(gam) @ groups.T
        matrix = before - unit.T @ after @ unit
        limits.append((matrix + matrix.T) / 2 >> 0)
        before = after
    problem = cp.Problem(cp.Minimize(level), limits)
    problem.solve(solver=cp.CLARABEL)
    if problem.status != cp.OPTIMAL or level.value is None:
        return None
    return math.prod(scales) * math.sqrt(float(level.value))


def _is_wide(weight: Matrix) -> bool:
    return weight.shape[0] < weight.shape[1]


def eclipse(weights: Sequence[Matrix]) -> float | None:
    """ECLipsE, Xu and Sivaranjani 2024, for slopes in [0, 1]: one layer after another.

    X_0 = I and X_i = L - L W_i X_(i-1)^-1 W_i' L / 4, where L = diag(l) maximises the s with
    s W_(i+1)' W_(i+1) <= X_i.
    """
    inverse = np.eye(weights[0].shape[1])
    for weight, following in pairwise(weights):
        spread = weight @ inverse @ weight.T / 4
        values, vectors = np.linalg.eigh(spread)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        scales, gain = cp.Variable(len(weight), nonneg=True), cp.Variable(nonneg=True)
        corner = cp.diag(scales) - gain * following.T @ following
        side = cp.diag(scales) @ root
        whole = cp.bmat([[corner, side], [side.T, np.eye(len(weight))]])
        problem = cp.Problem(cp.Maximize(gain), [(whole + whole.T) / 2 >> 0])
        problem.solve(solver=cp.CLARABEL)
        if problem.status != cp.OPTIMAL or scales.value is None:
            return None
        found = np.diag(np.asarray(scales.value))
        inverse = np.linalg.inv(found - found @ spread @ found)
    return math.sqrt(float(np.linalg.norm(weights[-1] @ inverse @ weights[-1].T, 2)))


def eclipse_fast(weights: Sequence[Matrix]) -> float:
    """ECLipsE-Fast, the same with L = 2 / lambda_max(W_i X_(i-1)^-1 W_i') I: a closed form."""
    inverse = np.eye(weights[0].shape[1])
    for weight in weights[:-1]:
        spread = weight @ inverse @ weight.T
        scale = 2 / float(np.linalg.norm(spread, 2))
        inverse = np.linalg.inv(scale * np.eye(len(weight)) - scale**2 / 4 * spread)
    return math.sqrt(float(np.linalg.norm(weights[-1] @ inverse @ weights[-1].T, 2)))


def sort_groups(places: Sequence[Sequence[int]]) -> Groups:
    """Groups that are sorted: their sum is kept."""
    return [(group, np.ones((1, len(group)))) for group in places]


def mirror_group(direction: Matrix) -> Groups:
    """One group, reflected or not along a vector: what is orthogonal to it is kept."""
    return [(range(len(direction)), np.linalg.svd(direction[None])[2][1:])]


def _gathered(
    weights: Sequence[Matrix], groups: Sequence[Groups]
) -> tuple[tuple[Matrix, Matrix], tuple[Matrix, Matrix]]:
    """Every group's entries, and what it keeps of them, out of all signals; and whose it is."""
    size = sum(len(weight) for weight in weights[:-1])
    eye = np.eye(size)
    parts: list[tuple[Matrix, Matrix]] = []
    start = 0
    for layer, weight in zip(groups, weights, strict=False):
        for places, keeps in layer:
            entries = eye[[start + place for place in places]]
            parts.append((entries, keeps @ entries))
        start += len(weight)
    owners = np.eye(len(parts))
    return tuple(
        (
            np.vstack([part[k] for part in parts]),
            np.vstack([np.tile(owners[g], (len(part[k]), 1)) for g, part in enumerate(parts)]),
        )
        for k in (0, 1)
    )  # type: ignore[reportReturnType]


def _stacked(weights: Sequence[Matrix]) -> tuple[Matrix, Matrix, Matrix, Matrix]:
    """A, B, and the first and last rows: x = E z and the output W_d F z."""
    sizes = [weights[0].shape[1], *(len(weight) for weight in weights[:-1])]
    ends = np.cumsum([0, *sizes])
    eye = np.eye(int(ends[-1]))
    signals = [eye[a:b] for a, b in pairwise(ends.tolist())]
    entering = [weight @ signal for weight, signal in zip(weights, signals, strict=True)]
    return np.vstack(entering[:-1]), eye[sizes[0] :], signals[0], entering[-1]


def _least(
    level: Expression, matrix: Expression, limits: Sequence[Expression] = ()
) -> float | None:
    """The root of the least level with 0 <= matrix; None where the solver gives up."""
    problem = cp.Problem(cp.Minimize(level), [(matrix + matrix.T) / 2 >> 0, *limits])
    problem.solve(solver=cp.CLARABEL)
    if problem.status != cp.OPTIMAL or level.value is None:
        return None
    return math.sqrt(float(level.value))
