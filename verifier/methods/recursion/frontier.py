"""The recursion: covariances of the live signals, from the input to the output, and back.

J is such that for the increments z of the live signals, and psi of the gates already passed,

    z' J^+ z <= |dx|^2 + sum_g (|psi_g|^2 - |C_g v_g|^2)/D_g    hence    z z' <= J |dx|^2.      (1)

A gate with scales D passes if S = D - C J_tt C' is positive definite:

    G = J + J_t C' S^-1 C J_t',     J <- L G L' + N D N'                                       (2)

and an affine node makes J <- L J L'. At the end J is the output's: |R dy|^2 <= lmax(R J R') |dx|^2.

Derivatives. With H = J_t C' S^-1 the differential of (2) is W dJ W' - H dD H' + N dD N' with
W = 1 + H C E_t, so that what has gradient Gamma in J afterwards has before

    in J   W' L' Gamma L W,      in D   diag(N' Gamma N) - diag(H' L' Gamma L H)                (3)

and the barrier -log det S besides C' S^-1 C at J_tt and -diag(S^-1) in D. Where D is a multiple
of the mean of K = C J_tt C', J_tt has a share in D's gradient as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.methods.recursion.plan import Step

LEAST_MEAN = 1e-200  #: the unit of relative scales where nothing enters


@dataclass(frozen=True, slots=True, eq=False)
class Passed:
    """What a gate's step leaves behind for derivatives."""

    inverse: Float64[Tensor, "psis psis"]  #: S^-1
    noise: Float64[Tensor, " psis"]  #: D
    entering: Float64[Tensor, " psis"]  #: the diagonal of K
    log_det: float  #: of S
    far: Float64[Tensor, "before psis"] | None  #: H; None where it is D S^-1 - 1

    @property
    def mean(self) -> Float64[Tensor, ""]:
        """The mean of K, the unit of relative scales."""
        return self.entering.mean().clamp(min=LEAST_MEAN)

    @property
    def pull(self) -> Float64[Tensor, "before psis"]:
        """H. If the gate is all that is alive, K S^-1 = D S^-1 - 1."""
        if self.far is not None:
            return self.far
        grown = self.inverse * self.noise[:, None]
        return grown.diagonal_scatter(grown.diagonal() - 1)


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """One run from the input to the output."""

    covariance: Float64[Tensor, "outputs outputs"]
    passed: tuple[Passed | None, ...]  #: by step; None for affine steps, and if nothing was kept
    log_det: float  #: sum of log det S


@dataclass(frozen=True, slots=True, eq=False)
class Gradient:
    """Equation (3) for one gate: the gradient in D is `felt` - `drawn`."""

    felt: Float64[Tensor, " psis"]
    drawn: Float64[Tensor, " psis"]


def forward(
    steps: Sequence[Step],
    start: Float64[Tensor, "inputs inputs"],
    scales: Sequence[Float64[Tensor, " _"]],
    *,
    keeps: bool = False,
    relative: bool = False,
) -> Pass | None:
    """Equation (2) along the steps; None where a scale is too small.

    Args:
        steps: of the network.
        start: the covariance of the inputs.
        scales: D of every gate, one for each psi, in the order of the steps with psis.
        keeps: whether derivatives will be asked for.
        relative: whether scales are in units of the mean of K.
    """
    covariance, passed, log_det = start, list[Passed | None](), 0.0
    remaining = iter(scales)
    for step in steps:
        left: Passed | None = None
        if step.psis:
            through = crossed(step, covariance, next(remaining), relative=relative)
            if through is None:
                return None
            left, covariance = through
            log_det += left.log_det
        covariance = moved(step, covariance, None if left is None else left.noise)
        passed.append(left if keeps else None)
    return Pass(covariance, tuple(passed), log_det)


def crossed(
    step: Step,
    covariance: Float64[Tensor, "before before"],
    scales: Float64[Tensor, " psis"],
    *,
    relative: bool = False,
) -> tuple[Passed, Float64[Tensor, "before before"]] | None:
    """What a gate leaves behind, and G of equation (2)."""
    gate = step.gated
    across = gate.inflow(covariance[:, step.entrance])
    entering = gate.inflow(across[step.entrance].T)
    diagonal = entering.diagonal().clone()
    noise = scales * diagonal.mean().clamp(min=LEAST_MEAN) if relative else scales
    factor, failed = torch.linalg.cholesky_ex(torch.diag(noise) - entering)
    if failed or not bool(factor.isfinite().all()):
        return None
    log_det = 2 * float(factor.diagonal().log().sum())
    inverse = torch.cholesky_inverse(factor)
    if step.is_cut:
        # K + K S^-1 K = D S^-1 D - D.
        grown = inverse * noise * noise[:, None]
        after = grown.diagonal_scatter(grown.diagonal() - noise)
        return Passed(inverse, noise, diagonal, log_det, None), after
    pull = across @ inverse
    return Passed(inverse, noise, diagonal, log_det, pull), torch.addmm(covariance, pull, across.T)


def moved(
    step: Step, covariance: Float64[Tensor, "before before"], noise: Float64[Tensor, " psis"] | None
) -> Float64[Tensor, "after after"]:
    """L G L' + N D N'."""
    after = step.apply(step.apply(covariance).T)
    if noise is not None:
        gate = step.gated
        after[step.exit, step.exit] += step.scale**2 * gate.noise(gate.noise(torch.diag(noise)).T)
    # Both halves alike, or what is subtracted later could turn it indefinite.
    return (after + after.T) / 2


def backward(
    steps: Sequence[Step],
    run: Pass,
    weight: Float64[Tensor, "outputs outputs"],
    *,
    relative: bool = False,
) -> tuple[list[Gradient], Float64[Tensor, "inputs inputs"]]:
    """Equation (3): the gradients in every D, and in the inputs' covariance.

    Args:
        steps: of the network.
        run: with what derivatives need.
        weight: the gradient in the output's covariance.
        relative: whether D moves with the mean of K; the gradients are in D all the same.
    """
    gradients: list[Gradient] = []
    gamma = weight
    for step, left in zip(reversed(steps), reversed(run.passed), strict=True):
        spread = gamma[step.exit, step.exit]
        gamma = step.adjoint(step.adjoint(gamma).T)
        if left is None:
            continue
        gate, pull = step.gated, left.pull
        felt = gate.noise_adjoint(gate.noise_adjoint(spread).T).diagonal() * step.scale**2
        drawn = gamma @ pull
        core = pull.T @ drawn
        gradients.append(Gradient(felt, core.diagonal().clone()))
        if relative:
            share = ((felt - core.diagonal()) * left.noise).sum()
            core.diagonal().add_(share / left.entering.sum().clamp(min=1e-300))
        gamma = pulled(step, gamma, drawn, core)
    return gradients[::-1], gamma


def pulled(
    step: Step,
    gamma: Float64[Tensor, "before before"],
    drawn: Float64[Tensor, "before psis"],
    core: Float64[Tensor, "psis psis"],
) -> Float64[Tensor, "before before"]:
    """W' Gamma W from Gamma, Gamma H and H' Gamma H."""
    gate, place = step.gated, step.entrance
    wide = gate.inflow_adjoint(drawn)
    gamma = gamma.clone()
    gamma[:, place] += wide
    gamma[place, :] += wide.T
    gamma[place, place] += gate.inflow_adjoint(gate.inflow_adjoint(core).T)
    return gamma
