"""The bound of every cell by multipliers, and Newton's method that lowers it, cell by cell.

Over xi = (dx, psi) of a cell (`cells`), let C and F be the columns of psi and of dx of [y; V], with
subscripts o and w for the rows y and V. With g = 1/lambda and e = 1/tau,

    T = diag(g) - C_w diag(g) C_w' - F_w diag(e) F_w' > 0,
    t = C_w diag(g) C_o' + F_w diag(e) F_o',      q = T^-1 t,
    s = C_o diag(g) C_o' + F_o diag(e) F_o' + t'q                                        (1)

prove |y| <= sqrt(s sum 1/e) for |dx|_inf <= 1, and |y|_2 <= sqrt(lambda_max(s)) |dx|_2 for e = 1.
s is a maximum over q of functions linear in (g, e): with h = (1, q),

    ds/dg = (C'h)^2 - q^2,     ds/de = (F'h)^2,     d2s = 2 D' T^-1 D,
    D = [C_w diag(C'h) - diag(q) | F_w diag(F'h)].                                        (2)

Fixing one more gate, psi_j = sigma v_j, with the same g and e, lowers s by

    (C'h - sigma q)_j^2 / (T^-1 - 2 sigma T^-1 C_w + C_w'T^-1 C_w)_jj.                    (3)

Newton's method minimises s + sum 1/e - mu log det T, mu a share of the bound. Of the barrier's
second derivatives those by g are taken, and of those by e the diagonal, so that with T = L L'

    H = blkdiag(A, mu B) + 2 [E G]'[E G],    [E G] = L^-1 D,   A diagonal                 (4)

costs the square of the gates for every input, and no more than their cube for the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

_GROWN = (1 - 2e-9) ** -0.5  #: of [y; V]: what holds for these holds for all within rounding
_TRIALS = 6


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Systems:
    """[y; V] of every cell; open psis that are padding have rows and columns of 0."""

    above: Float64[Tensor, "cells outputs xi"]
    below: Float64[Tensor, "cells open xi"]
    real: Bool[Tensor, "cells open"]
    in_linf: bool

    @property
    def inputs(self) -> int:
        """The leading columns."""
        return self.below.shape[2] - self.below.shape[1]

    def grown(self) -> Systems:
        """What proofs in floating point are to show."""
        return replace(self, above=self.above * _GROWN, below=self.below * _GROWN)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Point:
    """g and e of every cell."""

    gates: Float64[Tensor, "cells open"]
    inputs: Float64[Tensor, "cells inputs"]

    def where(self, chosen: Bool[Tensor, " cells"], other: Point) -> Point:
        """This one in some cells, the other elsewhere."""
        here = chosen[:, None]
        return Point(
            gates=torch.where(here, self.gates, other.gates),
            inputs=torch.where(here, self.inputs, other.inputs),
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Value:
    """(1) at a point; the level is nan where T is not positive definite."""

    level: Float64[Tensor, " cells"]  #: s, of l2 its greatest eigenvalue
    factor: Float64[Tensor, "cells open open"]  #: of T
    top: Float64[Tensor, "cells outputs"]  #: the unit vector of that eigenvalue
    q: Float64[Tensor, "cells open"]

    def where(self, chosen: Bool[Tensor, " cells"], other: Value) -> Value:
        """This one in some cells, the other elsewhere."""
        here = chosen[:, None]
        return Value(
            level=torch.where(chosen, self.level, other.level),
            factor=torch.where(here[:, :, None], self.factor, other.factor),
            top=torch.where(here, self.top, other.top),
            q=torch.where(here, self.q, other.q),
        )

    def bound(self, point: Point, in_linf: bool) -> Float64[Tensor, " cells"]:
        """What (1) proves; inf where it proves nothing."""
        square = self.level * (1 / point.inputs).sum(dim=1) if in_linf else self.level
        return square.clamp(min=0).sqrt().nan_to_num(nan=torch.inf, posinf=torch.inf)


def value_at(systems: Systems, point: Point) -> Value:
    """(1)."""
    weights = torch.cat([point.inputs, point.gates], dim=1)[:, None, :]
    weighted = systems.below * weights
    inner = -(weighted @ systems.below.mT)
    inner.diagonal(dim1=1, dim2=2).add_(point.gates)
    factor, failed = torch.linalg.cholesky_ex(inner)
    holds = failed == 0
    safe = torch.where(holds[:, None, None], factor, torch.eye(factor.shape[1]).double())
    cross = weighted @ systems.above.mT
    solved = torch.cholesky_solve(cross, safe)
    square = (systems.above * weights) @ systems.above.mT + cross.mT @ solved
    if systems.above.shape[1] == 1:
        level, top = square[:, 0, 0], square.new_ones(len(square), 1)
    else:
        values, vectors = torch.linalg.eigh(square.nan_to_num(0.0, 0.0, 0.0))
        level, top = values[:, -1], vectors[:, :, -1]
    q = (solved @ top[:, :, None])[:, :, 0]
    holds = holds & level.isfinite()
    return Value(level=torch.where(holds, level, torch.nan), factor=safe, top=top, q=q)


def drops(systems: Systems, value: Value) -> Float64[Tensor, "2 cells open"]:
    """(3): by how much the square of s falls if a gate has psi = -v, or psi = +v."""
    curve = _curve(systems, value)
    above, below = systems.above[:, :, systems.inputs :], systems.below[:, :, systems.inputs :]
    psi = (above.mT @ value.top[:, :, None] + below.mT @ value.q[:, :, None])[:, :, 0]
    q = value.q
    minus = (curve.unit + curve.psis).square().sum(dim=1)
    plus = (curve.unit - curve.psis).square().sum(dim=1)
    found = torch.stack([(psi + q).square() / minus, (psi - q).square() / plus])
    return torch.where(systems.real, found, 0.0)


def lowered(systems: Systems, start: Point, *, steps: int, share: float) -> tuple[Point, Value]:
    """Points of lower bounds, by Newton's method from feasible ones, and their values.

    Args:
        systems: the cells.
        start: T > 0.
        steps: of Newton's method.
        share: of the bound, that the barrier may cost.
    """
    point, value = start, value_at(systems, start)
    variables = systems.below.shape[1] + (systems.inputs if systems.in_linf else 0)
    for _ in range(steps if variables else 0):
        point, value = _step(systems, *_balanced(systems, point, value), share)
    return point, value


def _balanced(systems: Systems, point: Point, value: Value) -> tuple[Point, Value]:
    """The same bound with s = sum 1/e: T and s are homogeneous in (g, e), and q does not change.

    Padding has g = 1, so that its part of T is not scaled.
    """
    if not systems.in_linf:
        return point, value
    factor = ((1 / point.inputs).sum(dim=1) / value.level).sqrt()
    factor = torch.where(factor.isfinite() & (0 < factor), factor, 1.0)
    scale = torch.where(systems.real, factor[:, None], 1.0)
    scaled = Point(gates=point.gates * scale, inputs=point.inputs * factor[:, None])
    factor_of = value.factor * scale.sqrt()[:, :, None]
    return scaled, replace(value, level=value.level * factor, factor=factor_of)


def _merit(
    systems: Systems, point: Point, value: Value, weight: Float64[Tensor, " cells"]
) -> Float64[Tensor, " cells"]:
    total = value.level - weight * 2 * value.factor.diagonal(dim1=1, dim2=2).log().sum(dim=1)
    if systems.in_linf:
        total = total + (1 / point.inputs).sum(dim=1)
    return total


def _step(systems: Systems, point: Point, value: Value, share: float) -> tuple[Point, Value]:
    """One step of Newton's method, shortened until it helps."""
    counts = systems.real.sum(dim=1).clamp(min=1)
    weight = share * value.level.clamp(min=1e-300) / counts
    by_gates, by_inputs = _direction(systems, point, value, weight)
    before = _merit(systems, point, value, weight)
    length = _longest(torch.cat([by_gates / point.gates, by_inputs / point.inputs], dim=1))
    best, best_value = point, value
    done = torch.zeros_like(before, dtype=torch.bool)
    for _ in range(_TRIALS):
        trial = Point(
            gates=point.gates + length[:, None] * by_gates,
            inputs=point.inputs + length[:, None] * by_inputs,
        )
        found = value_at(systems, trial)
        good = ~done & (_merit(systems, trial, found, weight) < before)
        best, best_value = trial.where(good, best), found.where(good, best_value)
        done |= good
        if bool(done.all()):
            break
        length = length / 3
    return best, best_value


def _longest(rates: Float64[Tensor, "cells n"]) -> Float64[Tensor, " cells"]:
    """At most 1, and such that no variable loses more than nine tenths."""
    return (0.9 / (-rates).amax(dim=1).clamp(min=1e-300)).clamp(max=1.0)


def _direction(
    systems: Systems, point: Point, value: Value, weight: Float64[Tensor, " cells"]
) -> tuple[Float64[Tensor, "cells open"], Float64[Tensor, "cells inputs"]]:
    """Newton's direction in (g, e), (4); for l2 in g alone."""
    inputs, mu = systems.inputs, weight[:, None]
    curve = _curve(systems, value)
    h = (systems.above.mT @ value.top[:, :, None] + systems.below.mT @ value.q[:, :, None])[:, :, 0]
    # Variables relative to the point.
    by_gates = h[:, inputs:].square() - value.q.square() - mu * curve.logs
    wanted = torch.where(systems.real, -by_gates * point.gates, 0.0)
    root = (curve.psis * h[:, None, inputs:] - curve.unit * value.q[:, None, :]) * point.gates[
        :, None, :
    ]
    own = (mu * point.gates)[:, :, None] * curve.barrier * point.gates[:, None, :]
    if not systems.in_linf:
        step = _solved(2 * root.mT @ root + own, wanted)
        return step * point.gates, torch.zeros_like(point.inputs)
    e = point.inputs
    across = curve.inputs * (h[:, :inputs] * e)[:, None, :]
    pulls = curve.inputs.square().sum(dim=1)
    aside = -(h[:, :inputs].square() - e**-2 + mu * pulls) * e
    diagonal = 2 / e + mu * (pulls * e).square()
    step, by_inputs = _eliminated(across, diagonal, aside, root, own, wanted)
    return step * point.gates, by_inputs * e


def _eliminated(
    across: Float64[Tensor, "cells open inputs"],
    diagonal: Float64[Tensor, "cells inputs"],
    aside: Float64[Tensor, "cells inputs"],
    root: Float64[Tensor, "cells open open"],
    own: Float64[Tensor, "cells open open"],
    wanted: Float64[Tensor, "cells open"],
) -> tuple[Float64[Tensor, "cells open"], Float64[Tensor, "cells inputs"]]:
    """The solution of (4), the inputs eliminated.

    With W = I + 2 E A^-1 E', E and A of (4),

        (A + 2 E'E)^-1 x = A^-1 x - 2 A^-1 E' W^-1 E A^-1 x.
    """
    spread = across / diagonal[:, None, :]
    inner = 2 * spread @ across.mT
    inner.diagonal(dim1=1, dim2=2).add_(1.0)
    factor = torch.linalg.cholesky_ex(inner)[0]
    pulled = torch.cholesky_solve(root, factor)
    schur = 2 * root.mT @ pulled + own
    right = wanted - 2 * (pulled.mT @ (spread @ aside[:, :, None]))[:, :, 0]
    step = _solved(schur, right)
    rest = aside - 2 * (across.mT @ (root @ step[:, :, None]))[:, :, 0]
    back = torch.cholesky_solve(spread @ rest[:, :, None], factor)
    return step, rest / diagonal - 2 * (spread.mT @ back)[:, :, 0]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Curve:
    """With T = L L': L^-1, L^-1 F_w and L^-1 C_w, and the barrier's derivatives by g."""

    unit: Float64[Tensor, "cells open open"]
    inputs: Float64[Tensor, "cells open inputs"]
    psis: Float64[Tensor, "cells open open"]
    logs: Float64[Tensor, "cells open"]
    barrier: Float64[Tensor, "cells open open"]


def _curve(systems: Systems, value: Value) -> _Curve:
    eye = torch.eye(systems.below.shape[1], dtype=torch.float64)
    unit = torch.linalg.solve_triangular(value.factor, eye, upper=False)
    rows = unit @ systems.below
    psis = rows[:, :, systems.inputs :]
    inverse, mixed, inner = unit.mT @ unit, unit.mT @ psis, psis.mT @ psis
    return _Curve(
        unit=unit,
        inputs=rows[:, :, : systems.inputs],
        psis=psis,
        logs=inverse.diagonal(dim1=1, dim2=2) - inner.diagonal(dim1=1, dim2=2),
        barrier=inverse.square() - mixed.square() - mixed.square().mT + inner.square(),
    )


def _solved(
    matrix: Float64[Tensor, "cells n n"], right: Float64[Tensor, "cells n"]
) -> Float64[Tensor, "cells n"]:
    """The solution; the right-hand side's direction where the matrix is not positive definite."""
    lift = matrix.diagonal(dim1=1, dim2=2).amax(dim=1, keepdim=True).clamp(min=1e-300)
    matrix.diagonal(dim1=1, dim2=2).add_(1e-11 * lift)
    factor, failed = torch.linalg.cholesky_ex(matrix)
    usable = (failed == 0)[:, None]
    safe = torch.where(usable[:, :, None], factor, torch.eye(factor.shape[1], dtype=torch.float64))
    step = torch.cholesky_solve(right[:, :, None], safe)[:, :, 0]
    return torch.where(usable & step.isfinite(), step, right / lift)
