"""What a gate leaves behind, and the derivative of it: the one expensive step of the recursion.

    J' = R (D - K)^-1 R* + M E M* + J_ww,   R = M (m D) + J_wt,   E = (r^2 - m^2) D      (1)

With H = (D - K)^-1 R* and Z the (Hermitian) derivative of a number by J',

    by R: 2 (H Z)*,   by K: H Z H*,   by D: -diag(H Z H*) + m diag Re(M* . 2 (H Z)*) + ...  (2)

so the way back costs two products. Beside J' the distance to what is infeasible is told,

    barrier = -mean_w log det(I - D^-1/2 K D^-1/2) >= 0,   by K: mean_w (D - K)^-1.        (3)

The curvature by log D, K standing still, is about the Hadamard product

    D [ (2 H Z H* + share (D - K)^-1) o conj (D - K)^-1 ] D >= 0.                        (4)
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from verifier.methods.torus.frequencies import Alias, aliases, frequencies
from verifier.methods.torus.plan import Step


class Infeasible(Exception):
    """Some scale is not above the covariance that it has to exceed."""


def left_by(
    joint: Tensor,
    scales: Tensor,
    sent: Tensor,
    step: Step,
    curvatures: dict[str, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Equations (1) and (3), differentiable in J and D.

    Args:
        joint: J, [waves, n, n].
        scales: D, one for each entry of the gate.
        sent: M, [waves, n afterwards, entries].
        step: where everything lies.
        curvatures: where the way back leaves equation (4), by key of the gate.

    Raises:
        Infeasible: D - K is not positive definite at some frequency.
    """
    return cast("tuple[Tensor, Tensor]", _Leaving.apply(joint, scales, sent, step, curvatures))


class _Leaving(torch.autograd.Function):
    """Equation (1) with the derivative (2)."""

    @staticmethod
    def forward(  # noqa: ANN205
        ctx: Any,  # noqa: ANN401 (torch's context has no type)
        joint: Tensor,
        scales: Tensor,
        sent: Tensor,
        step: Step,
        curvatures: dict[str, Tensor] | None,
    ):
        mean, extra = _numbers(step, scales)
        own = picked(joint, step.own, step.own)
        factor, failed = torch.linalg.cholesky_ex(torch.diag(scales.to(own.dtype)) - own)
        if failed.any():
            raise Infeasible
        rows = sent * (mean * scales)
        if len(step.waiting):
            rows.index_add_(1, step.kept, picked(joint, step.waiting, step.own))
        solved = torch.cholesky_solve(rows.mH, factor)
        weights = _weights(step, scales)
        diagonal = factor.diagonal(dim1=-2, dim2=-1).real
        barrier = scales.log().sum() - 2 * (weights @ diagonal.log()).sum()
        every = _aliases(step)
        after: Tensor | None = None
        for alias in every:
            product = _seen(alias, rows) @ _seen(alias, solved)
            after = product if after is None else after.add_(product)
            if extra.any():
                part = _seen(alias, sent)
                after += (part * (extra * scales)) @ part.mH
        assert after is not None  # noqa: S101 (there is always one)
        if 1 < len(every):
            after /= len(every)
        if len(step.waiting):
            after[:, step.kept[:, None], step.kept] += picked(joint, step.waiting, step.waiting)
        ctx.step = step
        ctx.curvatures = curvatures
        ctx.save_for_backward(solved, sent, factor, scales)
        ctx.size = joint.shape[1]
        return after, barrier

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        solved, sent, factor, scales = ctx.saved_tensors
        step: Step = ctx.step
        after = (gradients[0] + gradients[0].mH) / 2
        mean, extra = _numbers(step, after.real)
        every = _aliases(step)
        by_rows = torch.zeros_like(solved)  # half of the adjoint of what (2) calls "by R"
        by_scales = torch.zeros_like(mean)
        for alias in every:
            part = _seen(alias, solved) @ after / len(every)
            if alias is None:
                by_rows = part
            else:
                by_rows.index_add_(0, alias.place, alias.back(part))
            if extra.any():
                seen = _seen(alias, sent)
                moved = (seen.conj() * (after @ seen)).real.sum(dim=(0, 1))
                by_scales = by_scales + extra * moved / len(every)
        by_own = by_rows @ solved.mH
        shares = gradients[1] * _weights(step, scales)
        inverse = torch.cholesky_inverse(factor)
        if ctx.curvatures is not None:
            bends = 2 * by_own + shares[:, None, None] * inverse
            block = (bends * inverse.conj()).real.sum(dim=0)
            ctx.curvatures[step.gate.key] = scales[:, None] * block * scales
        by_own += shares[:, None, None] * inverse
        by_scales = by_scales + gradients[1] / scales
        by_scales = by_scales - by_own.diagonal(dim1=-2, dim2=-1).real.sum(dim=0)
        by_scales = by_scales + 2 * mean * (by_rows.mT * sent).real.sum(dim=(0, 1))
        joint = torch.zeros(len(solved), ctx.size, ctx.size, dtype=solved.dtype)
        joint[:, step.own[:, None], step.own] = by_own
        if len(step.waiting):
            # R holds J_wt, and J_tw is its adjoint: each gets half of the derivative by R.
            cross = by_rows[:, :, step.kept]
            joint[:, step.own[:, None], step.waiting] = cross
            joint[:, step.waiting[:, None], step.own] = cross.mH
            joint[:, step.waiting[:, None], step.waiting] = after[:, step.kept][:, :, step.kept]
        return joint, by_scales, None, None, None


def _aliases(step: Step) -> tuple[Alias | None, ...]:
    """What folds when the torus gets coarser; one None where it does not."""
    return aliases(step.sides, step.strides) if step.is_coarser else (None,)


def _seen(alias: Alias | None, values: Tensor) -> Tensor:
    return values if alias is None else alias.of(values)


def _weights(step: Step, like: Tensor) -> Tensor:
    """The shares of the frequencies in a mean over all."""
    if not step.sides:
        return torch.ones(1).to(like)
    grid = frequencies(step.sides)
    return (grid.weights / grid.count).to(like)


def _numbers(step: Step, like: Tensor) -> tuple[Tensor, Tensor]:
    """M and r^2 - m^2 of the gate's slopes m +- r."""
    mean, radius = step.gate.mean.to(like), step.gate.radius.to(like)
    return mean, radius**2 - mean**2


def picked(joint: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """A block of every matrix; without a copy where it is the whole."""
    if len(rows) == len(columns) == joint.shape[1] and torch.equal(rows, columns):
        return joint
    return joint[:, rows[:, None], columns]
