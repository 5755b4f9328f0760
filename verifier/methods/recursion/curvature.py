"""Second derivatives of the barrier: every pair of scales, from pairs of neighbouring steps only.

The matrix T whose block factors are the S of the recursion is linear in D: T = T_0 + sum_i D_i
(alpha_i alpha_i' - beta_i beta_i'), so that for -log det T, with V = T^-1,

    gradient_i = -alpha_i'V alpha_i + beta_i'V beta_i
    H_ij = (alpha_i'V alpha_j)^2 - (alpha_i'V beta_j)^2 - (beta_i'V alpha_j)^2
         + (beta_i'V beta_j)^2.

No V is formed. Between the steps, alpha_i and beta_i are the columns x_i and y_i that a unit of D_i
adds to the covariance afterwards, -x x' + y y': x = L h_i, y = N e_i at its own gate, and both are
carried on by L W. With Gamma the barrier's gradient in the covariance after the gate t,

    a'V alpha_j = a_t' (C'S^-1 + W'L' Gamma L H) e_j,    a'V beta_j = a_t' W'L' Gamma N e_j    (1)

for j of gate t and columns a_t of earlier ones as they arrive there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.methods.recursion.frontier import Pass, pulled
from verifier.methods.recursion.plan import Step


@dataclass(frozen=True, slots=True, eq=False)
class Curvature:
    """The barrier's derivatives; psis in the order of the steps, then what `level` adds."""

    gradient: Float64[Tensor, " psis"]
    hessian: Float64[Tensor, "psis psis"]
    crossed: Float64[Tensor, " psis"]  #: sum over outputs o of (alpha_i'V e_o)^2 - (beta_i'V e_o)^2


@dataclass(frozen=True, slots=True, eq=False)
class _Weights:
    """Equation (1) at one gate: what to multiply a_t with, and the gate's own corner."""

    pulls: Float64[Tensor, "before psis"]
    pushes: Float64[Tensor, "before psis"]
    own: tuple[Tensor, Tensor, Tensor]  #: alpha'V alpha, alpha'V beta, beta'V beta


def curvature(
    steps: Sequence[Step],
    run: Pass,
    rows: Float64[Tensor, "selected outputs"],
    inverse: Float64[Tensor, "selected selected"],
) -> Curvature:
    """Gradient and Hessian of -sum log det S - log det (s I - R P R').

    Args:
        steps: of the network.
        run: with what derivatives need.
        rows: R.
        inverse: of s I - R P R', or of its diagonal where outputs are bounded one by one: then the
            Hessian is a little too large.
    """
    weight = rows.T @ inverse @ rows
    weights = _weights(steps, run, weight)
    count = sum(len(each.pulls.T) for each in weights if each is not None)
    hessian = weight.new_zeros(count, count)
    gradient = weight.new_zeros(count)
    drawn = weight.new_zeros(0, _first(steps))
    added = drawn
    for step, left, each in zip(steps, run.passed, weights, strict=True):
        if left is not None and each is not None:
            done = len(drawn)
            place = slice(done, done + len(left.inverse))
            _fill(hessian, drawn, added, each, place)
            gradient[place] = each.own[2].diagonal() - each.own[0].diagonal()
            own = torch.eye(len(left.inverse), dtype=weight.dtype, device=weight.device)
            pull = left.pull
            drawn = torch.cat([_carried(step, pull, drawn), pull.T])
            added = _carried(step, pull, added)
            spread = added.new_zeros(len(own), step.leaving)
            spread[:, step.exit] = step.gated.noise(own) * step.scale
            drawn, added = step.apply(drawn), torch.cat([step.apply(added), spread])
        else:
            drawn, added = step.apply(drawn), step.apply(added)
    outflow = rows.T @ inverse
    crossed = (drawn @ outflow).square().sum(dim=1) - (added @ outflow).square().sum(dim=1)
    return Curvature(gradient, hessian, crossed)


def _first(steps: Sequence[Step]) -> int:
    return steps[0].entering if steps else 0


def _carried(
    step: Step, pull: Float64[Tensor, "before psis"], rows: Float64[Tensor, "columns before"]
) -> Float64[Tensor, "columns before"]:
    """W a = a + H C a_t of every row."""
    return torch.addmm(rows, step.gated.inflow(rows[:, step.entrance]), pull.T)


def _fill(hessian: Tensor, drawn: Tensor, added: Tensor, each: _Weights, place: slice) -> None:
    """The gate's own block, and those with all earlier gates, in place."""
    both, mixed, pushed = each.own
    hessian[place, place] = both.square() - mixed.square() - mixed.T.square() + pushed.square()
    if place.start == 0:
        return
    block = (drawn @ each.pulls).square_()
    block -= (drawn @ each.pushes).square_()
    block -= (added @ each.pulls).square_()
    block += (added @ each.pushes).square_()
    hessian[: place.start, place] = block
    hessian[place, : place.start] = block.T


def _weights(
    steps: Sequence[Step], run: Pass, weight: Float64[Tensor, "outputs outputs"]
) -> list[_Weights | None]:
    """Equation (1) of every step, from the last to the first."""
    found: list[_Weights | None] = []
    gamma = weight
    for step, left in zip(reversed(steps), reversed(run.passed), strict=True):
        half = step.adjoint(gamma)  # Gamma L: rows after, columns before
        after, gamma = gamma, step.adjoint(half.T)
        if left is None:
            found.append(None)
            continue
        gate, place, pull = step.gated, step.entrance, left.pull
        toward = gate.noise_adjoint(half[step.exit].T) * step.scale  # L' Gamma N
        drawn = gamma @ pull  # L' Gamma L H
        core = pull.T @ drawn + left.inverse
        mixed = pull.T @ toward
        spread = (
            gate.noise_adjoint(gate.noise_adjoint(after[step.exit, step.exit]).T) * step.scale**2
        )
        pulls, pushes = drawn.clone(), toward.clone()
        pulls[place] += gate.inflow_adjoint(core.T).T
        pushes[place] += gate.inflow_adjoint(mixed.T).T
        found.append(_Weights(pulls, pushes, (core, mixed, spread)))
        gamma = pulled(step, gamma, drawn, core)
    return found[::-1]
