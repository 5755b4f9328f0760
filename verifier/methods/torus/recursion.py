"""One pass: the covariance of the frontier, gate after gate, at every frequency at once.

J bounds the increments that enter the frontier: z z* <= J |dx|^2. A gate with slopes m +- r and
scales D > K = J_tt, which stands before waiting nodes w and sends M phi, leaves behind

    R  = M (m D) + J_wt                        rows: what follows                        (1)
    J' = R (D - K)^-1 R* + M (r^2 - m^2) D M* + J_ww                                     (2)

which is J' = M A G A' M* + M Q D Q' M* with G = J + J_.t (D - K)^-1 J_t. written out. For slopes
[0, b], and for masks, m = r and the middle term is none. A linear node sends M J M*. Where the
torus gets coarser, J' is the mean over aliases. At the crop, with the rows' transform R^,

    P = 1/N sum_w R^(w) J(w) R^(w)*.                                                     (3)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.methods.torus.frequencies import Frequencies, folded, frequencies
from verifier.methods.torus.leaving import left_by, picked
from verifier.methods.torus.plan import Gate, Plan, Step
from verifier.methods.torus.taps import Taps

Scales: TypeAlias = Float64[Tensor, " entries"]
#: The scales of a gate, from its covariance and the weights of the frequencies.
Policy: TypeAlias = Callable[[Gate, Tensor, Tensor], Scales]


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """Runs the recursion of a plan."""

    plan: Plan
    real: torch.dtype = torch.float64

    @property
    def complex(self) -> torch.dtype:
        """The type of covariances on the torus."""
        return torch.complex128 if self.real == torch.float64 else torch.complex64

    def run(self, policy: Policy) -> Float64[Tensor, "rows rows"]:
        """The covariance of the network's output."""
        return self.run_within(policy)[0]

    def run_within(
        self, policy: Policy, curvatures: dict[str, Tensor] | None = None
    ) -> tuple[Float64[Tensor, "rows rows"], Tensor]:
        """The same, and the sum of all gates' barriers.

        Args:
            policy: chooses the scales.
            curvatures: filled on the way back, by key of the gate.

        Raises:
            Infeasible: a covariance is not below the policy's scales.
        """
        joint, total = self._start(), torch.zeros((), dtype=self.real)
        for step in self.plan.torus:
            joint, barrier = self._after(joint, step, policy, curvatures)
            total = total + barrier
        joint = self.cropped(joint)
        for step in self.plan.dense:
            joint, barrier = self._after(joint, step, policy, curvatures)
            total = total + barrier
        return joint[0], total

    def _start(self) -> Tensor:
        waves = frequencies(self.plan.sides).waves
        unit = torch.eye(self.plan.torus[0].gate.size, dtype=self.complex)
        return unit.expand(len(waves), -1, -1)

    def _after(
        self, joint: Tensor, step: Step, policy: Policy, curvatures: dict[str, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        sent = self.symbols(step, joint)
        if not step.gate.is_linear:
            return self._gated(joint, step, sent, policy, curvatures)
        after = _linear(joint, step, sent)
        if step.is_coarser:
            after = folded(after, step.sides, step.strides)
        return after, torch.zeros((), dtype=self.real)

    def _gated(
        self,
        joint: Tensor,
        step: Step,
        sent: Tensor,
        policy: Policy,
        curvatures: dict[str, Tensor] | None,
    ) -> tuple[Tensor, Tensor]:
        """Equations (1) and (2)."""
        weights = frequencies(step.sides).weights if step.sides else torch.ones(1)
        own = picked(joint, step.own, step.own)
        scales = policy(step.gate, own, weights.to(self.real))
        return left_by(joint, scales, sent, step, curvatures)

    def symbols(self, step: Step, like: Tensor) -> Tensor:
        """M at every frequency: [waves, rows after, entries]."""
        waves = frequencies(step.sides).waves.to(self.real) if step.sides else None
        count = 1 if waves is None else len(waves)
        total = torch.zeros(count, step.size, step.gate.size, dtype=like.dtype)
        for first, linear in step.sent:
            if isinstance(linear, Taps):
                assert waves is not None  # noqa: S101 (taps live on the torus)
                total[:, first : first + linear.weights.shape[1]] += linear.symbol(waves)
            else:
                total[:, first : first + len(linear)] += linear.to(self.real)
        return total

    def cropped(self, joint: Tensor) -> Float64[Tensor, "1 rows rows"]:
        """Equation (3)."""
        plan, grid = self.plan, frequencies(self.plan.crop_sides)
        rows = transformed(plan, grid, self.complex)
        weighted = rows * grid.weights.to(self.real)[:, None, None]
        # P is real: w and -w add up to twice the real part.
        left = (weighted @ joint).transpose(0, 1).flatten(1)
        right = rows.transpose(0, 1).flatten(1)
        whole = left.real @ right.real.T + left.imag @ right.imag.T
        return (whole / grid.count)[None]


def transformed(plan: Plan, grid: Frequencies, dtype: torch.dtype) -> Tensor:
    """R^(w) = sum over places of R e^(i w.place): [waves, rows, channels]."""
    channels, *window = plan.crop
    places = torch.cartesian_prod(*(torch.arange(size) for size in window)).reshape(-1, len(window))
    phases = torch.exp(1j * (places.to(torch.float64) @ grid.waves.T)).to(dtype)
    rows = plan.rows.reshape(len(plan.rows), channels, len(places)).to(phases.real.dtype)
    return torch.complex(rows @ phases.real, rows @ phases.imag).permute(2, 0, 1)


def _linear(joint: Tensor, step: Step, sent: Tensor) -> Tensor:
    """What is sent is M (m z)."""
    sent = sent * step.gate.mean.to(sent.real.dtype)
    own = joint[:, step.own][:, :, step.own]
    after = sent @ own @ sent.mH
    if len(step.waiting):
        cross = sent @ joint[:, step.own][:, :, step.waiting]
        after = after.index_add(2, step.kept, cross)
        after = after.index_add(1, step.kept, cross.mH)
    return _with_waiting(after, joint, step)


def _with_waiting(after: Tensor, joint: Tensor, step: Step) -> Tensor:
    if not len(step.waiting):
        return after
    block = joint[:, step.waiting][:, :, step.waiting]
    whole = torch.zeros_like(after)
    whole[:, step.kept[:, None], step.kept] = block
    return after + whole
