"""Scales in closed form, gate after gate: the millisecond tier, and where every search starts.

    D = f d lmax(d^-1/2 K d^-1/2),    d = diag(K)^p                                        (1)

with K what enters the gate. f = 2 and p = 0 is the closed form known as ECLipsE-Fast: for slopes
[0, 1] the covariance that leaves is at most lmax(K) I. In general a gate whose K is at most k I
leaves at most k max(|a|, |b|)^2 I if D = k (1 + |m|/r), m = (a + b)/2, r = (b - a)/2 (no factor).

`PRODUCT` is the layer product as a recursion: where a single signal is alive, its covariance is
replaced by lmax I, which it does not exceed. No product of layer norms is below what comes out,
and D chosen on the way is large enough for the covariance itself.

Source: Xu and Sivaranjani 2024 (arXiv 2404.04375) for ECLipsE and ECLipsE-Fast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import frexp

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.methods.recursion.frontier import crossed, moved
from verifier.methods.recursion.gates import Gate, Scalars
from verifier.methods.recursion.plan import Step

_MOST = 1e6  #: 1 + |m|/r is not greater than this
_DENSE = 600  #: the greatest order whose eigenvalues are all computed
_STEPS = 40  #: of Lanczos' method for larger ones
_SHORTEST, _LONGEST = 2.0**-40, 2.0**40  #: covariances beyond are rescaled
_FELT = 1e-11  #: no scale is below this share of the greatest covariance, or rounding exceeds it
_NOTHING = 1e-30  #: nor below this, where nothing varies
_ENOUGH = 1.02  #: times the greatest eigenvalue of K against D: known scales are at least that


@dataclass(frozen=True, slots=True)
class Rule:
    """How to choose the scales of a gate: equation (1)."""

    factor: float | None  #: f; None for 1 + |m|/r
    power: float = 0.0  #: p
    room: float = 1e-6  #: by how much scales exceed what they must, where there is nothing to gain
    flattened: bool = False  #: whether single signals count as if they were isotropic


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """Scales that are good for a similar network; they grow where a gate's K asks for it."""

    scales: Mapping[str, Float64[Tensor, " _"]]  #: by gate, in the steps' units, one each or alike


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Found:
    """Scales for which the recursion passes, and the output's covariance."""

    scales: tuple[Float64[Tensor, " _"], ...]
    covariance: Float64[Tensor, "outputs outputs"]
    inputs: Float64[Tensor, " searched"] | None = None  #: the inputs' covariance, if it is searched
    gap: float | None = None  #: of the bound against the best scales' bound, where it is known


FAST = Rule(factor=2.0)
PRODUCT = Rule(factor=None, flattened=True)
#: Deep nets want small factors, one layer wants 2; the last one is near the product.
SCAN = (
    *(Rule(factor, power) for power in (0.5, 1.0) for factor in (1.4, 1.3, 1.6, 2.0, 2.5)),
    Rule(factor=None, room=0.02, flattened=True),
)


def chosen(
    steps: Sequence[Step], start: Float64[Tensor, "inputs inputs"], rule: Rule | Known
) -> Found | None:
    """The scales of a rule; None where rounding leaves none."""
    covariance, scales = start, list[Tensor]()
    for step in steps:
        noise: Tensor | None = None
        if isinstance(rule, Rule) and rule.flattened and len(step.before) == 1:
            covariance = _flat(covariance)
        if step.psis:
            noise = _scales(step, covariance, rule)
            through = crossed(step, covariance, noise)
            if through is None:
                return None
            covariance = through[1]
            scales.append(noise)
        covariance = moved(step, covariance, noise)
        if not bool(covariance.isfinite().all()):
            return None
    return Found(scales=tuple(scales), covariance=covariance)


def normalised(steps: Sequence[Step], start: Float64[Tensor, "inputs inputs"]) -> tuple[Step, ...]:
    """The steps with powers of two that keep the rule `FAST`'s covariances near 1."""
    covariance, found = start, list[Step]()
    for step in steps:
        noise: Tensor | None = None
        if step.psis:
            noise = _scales(step, covariance, FAST)
            through = crossed(step, covariance, noise)
            covariance = covariance if through is None else through[1]
        after = moved(step, covariance, noise)
        largest = float(after.diagonal().max()) if len(after) else 0.0
        scale = 1.0
        if 0 < largest and not _SHORTEST <= largest <= _LONGEST:
            scale = 2.0 ** -(frexp(largest)[1] // 2)
        found.append(replace(step, scale=scale))
        covariance = after * scale**2
    return tuple(found)


def _flat(covariance: Float64[Tensor, "n n"]) -> Float64[Tensor, "n n"]:
    size = len(covariance)
    return greatest_eigenvalue(covariance) * torch.eye(size).to(covariance)


def _scales(
    step: Step, covariance: Float64[Tensor, "before before"], rule: Rule | Known
) -> Float64[Tensor, " psis"]:
    gate = step.gated
    entering = gate.inflow(gate.inflow(covariance[step.entrance, step.entrance]).T)
    diagonal = _shared(entering.diagonal(), gate)
    largest = diagonal.max()
    floor = max(_FELT * float(covariance.diagonal().max()), _NOTHING)
    if not 0 < largest:
        return torch.full_like(diagonal, floor)
    if isinstance(rule, Known):
        given = rule.scales[gate.name]
        given = given.repeat_interleave(gate.size // len(given))[gate.owner].clamp(min=floor)
        roots = given.sqrt()
        least = greatest_eigenvalue(entering / roots / roots[:, None])
        return given * (_ENOUGH * least).clamp(min=1.0)
    # What hardly varies gets a scale that costs little and still exceeds rounding.
    shape = (diagonal / largest).clamp(min=1e-9) ** rule.power
    roots = shape.sqrt()
    least = greatest_eigenvalue(entering / roots / roots[:, None])
    factor = _even(gate, rule.room) if rule.factor is None else rule.factor
    return (least * shape * factor).clamp(min=floor)


def _even(gate: Gate, room: float) -> Float64[Tensor, " psis"]:
    """1 + |m|/r of every psi."""
    if isinstance(gate, Scalars):
        ratio = gate.middle[gate.owner].abs() / gate.half
        return 1 + ratio.clamp(room, _MOST)
    return torch.full(gate.owner.shape, 1 + room, dtype=torch.float64)


def _shared(values: Float64[Tensor, " psis"], gate: Gate) -> Float64[Tensor, " psis"]:
    """The greatest value of each owner, at each of its psis."""
    if isinstance(gate, Scalars):
        return values
    greatest = values.new_zeros(gate.size).scatter_reduce(0, gate.owner, values, "amax")
    return greatest[gate.owner]


def greatest_eigenvalue(
    matrix: Float64[Tensor, "n n"], *, exact: bool = False
) -> Float64[Tensor, ""]:
    """The greatest eigenvalue of a symmetric matrix, of large ones by Lanczos' method; or 0."""
    if not len(matrix):
        return matrix.new_zeros(())
    if exact or len(matrix) <= _DENSE:
        return torch.linalg.eigvalsh(matrix)[-1].clamp(min=0.0)
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(len(matrix), generator=generator, dtype=matrix.dtype).to(matrix)
    basis = vector.new_zeros(_STEPS, len(matrix))
    images = torch.zeros_like(basis)
    for step in range(_STEPS):
        basis[step] = vector / vector.norm()
        images[step] = matrix @ basis[step]
        vector = images[step]
        for _ in range(2):
            vector = vector - basis[: step + 1].T @ (basis[: step + 1] @ vector)
        if float(vector.norm()) <= 1e-12 * float(images[step].norm()):
            basis, images = basis[: step + 1], images[: step + 1]
            break
    values, vectors = torch.linalg.eigh(basis @ images.T)
    # The estimate is from below by at most the residual.
    ritz = vectors[:, -1] @ basis
    missed = (vectors[:, -1] @ images - values[-1] * ritz).norm()
    return values[-1] + missed
