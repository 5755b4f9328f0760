"""From the canonical form to inequalities, one for each set of output rows, and back.

All rows share the psis' part of T and its start. Psis whose increment is always 0 (nothing that
varies enters them) are left out, and for each set of rows also those that do not reach it; in the
certificate the former get a very large multiplier, which costs nothing, and the latter a very
small one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from verifier.methods.lipsdp.form import UNIT, Form
from verifier.methods.lipsdp.inequality import Inequality, Point, least_level
from verifier.methods.lipsdp.rounding import LEAST_EXPONENT, CertificateMatrix
from verifier.methods.lipsdp.start import Start, beyond_range, forward_start, freed

MARGIN = 2e-9  #: what is feasible here stays so if T loses this share of its diagonal
NEGLIGIBLE = 1e-13  #: the share of the bound that a psi without influence may cost
UNFELT = 1e-11  #: and one that nothing enters: far below MARGIN, and its root far above rounding
_SHARE_OF_MARGIN = 1e-3  #: with a greater margin, both may be this share of it
_NOISE_HELD = 1e5  #: the noise of a psi that nothing enters is held as if it were as much larger
_SMALLEST = 2.0 ** (LEAST_EXPONENT + 10)  #: of multipliers without influence
LEAST_LEVEL = 2.0**-150  #: in the place of 0, where the outputs do not vary


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Multipliers:
    """What the certificate stores of one inequality."""

    level: float  #: rho, or s
    gates: Float64[Tensor, " multipliers"]  #: lambda
    inputs: Float64[Tensor, " inputs"]  #: tau; empty for l2


@dataclass(frozen=True, slots=True, eq=False)
class Scaled:
    """An inequality whose start is the point of ones."""

    problem: Inequality
    unit: Point  #: what the ones are, unscaled
    kept: Int64[Tensor, " kept"]  #: the form's multipliers that the problem has
    inputs: Int64[Tensor, " inputs"]  #: the form's inputs that the problem has; none for l2

    @property
    def is_constant(self) -> bool:
        """Whether the outputs do not vary at all."""
        return float(self.unit.level) <= LEAST_LEVEL


class Family:
    """The inequalities of one form."""

    def __init__(self, form: Form, *, inputs_in_linf: bool) -> None:
        self._form = form
        self.inputs_in_linf = inputs_in_linf
        drive, spread = form.inflow[:, : form.inputs], form.inflow[:, form.inputs :]
        self._gram = drive @ drive.T
        entered = _entered(drive, spread, form.owner, form.multipliers)
        self._entered = entered
        self._psis = torch.nonzero(entered[form.owner]).flatten()
        self._start = self._started(spread)

    def _started(self, spread: Float64[Tensor, "psis psis"]) -> Start:
        """The start of the psis that are entered; g is 0 for the others."""
        psis, form = self._psis, self._form
        numbers = torch.cumsum(self._entered.long(), dim=0) - 1
        ends = torch.cumsum(self._entered[form.owner].long(), dim=0)
        cuts = [0, *(int(ends[block.stop - 1]) for block in form.blocks if block.stop)]
        blocks = [slice(a, b) for a, b in pairwise(cuts) if a < b]
        return forward_start(
            spread[psis][:, psis], self._gram[psis][:, psis], numbers[form.owner[psis]], blocks
        )

    def scaled(self, rows: Float64[Tensor, "selected outputs"]) -> Scaled:
        """The inequality of the outputs `rows` y."""
        form, psis = self._form, self._psis
        outflow = rows @ form.outflow
        whole = torch.cat([outflow, form.inflow[psis]])
        spread = whole[:, form.inputs + psis]
        numbers = torch.cumsum(self._entered.long(), dim=0) - 1
        owner = numbers[form.owner[psis]]
        reaches = _reaching(spread, len(rows), owner, len(self._start.gates))
        live = torch.nonzero(reaches[owner]).flatten()
        picked = torch.cat([torch.arange(len(rows)), len(rows) + live])
        drive = whole[picked][:, : form.inputs]
        inputs = torch.nonzero((drive != 0).any(dim=0)).flatten()
        if not self.inputs_in_linf:
            inputs = inputs[:0]
        # 0 <= (1 - c) N - Z D^-1 Z' is the inequality of a Z that is larger by this factor.
        grown = (1 - MARGIN) ** -0.5
        problem = Inequality(
            outputs=len(rows),
            spread=spread[picked][:, live] * grown,
            drive=drive[:, inputs] * grown,
            fixed=self._fixed(drive, live, len(rows)) * grown**2,
            weights=drive.new_ones(len(inputs)),
            owner=(torch.cumsum(reaches.long(), dim=0) - 1)[owner[live]],
            multipliers=int(reaches.sum()),
        )
        unit = _unit(problem, self._start.gates[reaches])
        kept = torch.nonzero(self._entered).flatten()[reaches]
        return Scaled(problem.scaled(unit), unit, kept, inputs)

    def _fixed(
        self, drive: Float64[Tensor, "rows inputs"], live: Int64[Tensor, " live"], outputs: int
    ) -> Float64[Tensor, "rows rows"]:
        """F F' of l2, its largest part shared; 0 for linf."""
        rows = drive.shape[0]
        fixed = drive.new_zeros(rows, rows)
        if self.inputs_in_linf:
            return fixed
        above = drive[:outputs] @ drive.T
        fixed[:outputs] = above
        fixed[:, :outputs] = above.T
        psis = self._psis[live]
        fixed[outputs:, outputs:] = self._gram[psis][:, psis]
        return fixed

    def bound(self, scaled: Scaled, objective: float) -> float:
        """The bound that an objective of the scaled problem stands for."""
        unscaled = float(scaled.unit.level) * objective
        return unscaled / 2 if self.inputs_in_linf else math.sqrt(max(unscaled, 0.0))

    def certified(
        self,
        scaled: Scaled,
        point: Point,
        rows: Float64[Tensor, "selected outputs"],
        *,
        margin: float = 0.0,
        factor: float = 1.0,
    ) -> Multipliers:
        """What the certificate stores, from a point of the scaled problem.

        Args:
            scaled: the problem.
            point: strictly feasible.
            rows: the outputs.
            margin: of the point; psis and inputs without influence may cost a share of it.
            factor: at least 1, of all multipliers: the inequality still holds, of a larger bound.
        """
        share = _SHARE_OF_MARGIN * margin
        found = self._multipliers(scaled, point, max(NEGLIGIBLE, share))
        found = Multipliers(
            level=found.level * factor, gates=found.gates * factor, inputs=found.inputs * factor
        )
        return self._completed(rows, found, max(UNFELT, share))

    def tested(
        self, rows: Float64[Tensor, "selected outputs"], found: Multipliers
    ) -> CertificateMatrix:
        """The certificate's matrix, D = blkdiag(rho I or diag tau, Lambda)."""
        form = self._form
        per_psi = found.gates[form.owner]
        roots = per_psi.sqrt()[:, None]
        inflow, inflow_noise = form.inflow * roots, form.inflow_noise * roots
        outflow, noise = self._outflow(rows)
        if self.inputs_in_linf and 1 < len(rows):
            # s I is eliminated: 0 <= D - R'R - Y'Y/s.
            root = found.level**-0.5
            return CertificateMatrix(
                diagonal=torch.cat([found.inputs, per_psi]),
                rows=torch.cat([outflow * root, inflow]),
                noise=torch.cat([noise * root, inflow_noise]),
                corner=None,
                border=outflow[0],
                border_noise=noise[0],
            )
        if self.inputs_in_linf:
            return CertificateMatrix(
                diagonal=torch.cat([found.inputs, per_psi]),
                rows=inflow,
                noise=inflow_noise,
                corner=found.level,
                border=outflow[0],
                border_noise=noise[0],
            )
        return CertificateMatrix(
            diagonal=torch.cat([per_psi.new_full((form.inputs,), found.level), per_psi]),
            rows=torch.cat([outflow, inflow]),
            noise=torch.cat([noise, inflow_noise]),
            corner=None,
            border=outflow[0],
            border_noise=noise[0],
        )

    @property
    def has_idle_psis(self) -> bool:
        """Whether there are psis that nothing enters."""
        return not bool(self._entered.all())

    def _outflow(
        self, rows: Float64[Tensor, "selected outputs"]
    ) -> tuple[Float64[Tensor, "selected xi"], Float64[Tensor, "selected xi"]]:
        """Y of the outputs `rows` y, and its noise."""
        form = self._form
        noise = rows.abs() @ (form.outflow_noise + 4 * UNIT * form.outflow.abs())
        return rows @ form.outflow, noise

    def _multipliers(self, scaled: Scaled, point: Point, negligible: float) -> Multipliers:
        """The certificate's, but for psis that nothing enters."""
        form, unit = self._form, scaled.unit
        level = point.level * unit.level
        # T's level is 1 for the outputs, unscaled; for l2, rho takes it in by homogeneity.
        factor = level.new_ones(()) if self.inputs_in_linf else level
        inputs = level.new_zeros(form.inputs if self.inputs_in_linf else 0)
        inputs[scaled.inputs] = 1 / (unit.inputs * point.inputs)
        unused = torch.ones_like(inputs, dtype=torch.bool)
        unused[scaled.inputs] = False
        inputs[unused] = negligible * level / form.inputs
        gates = level.new_zeros(form.multipliers)
        # The start holds for inputs alike; the least of them bounds what others may cost.
        least = inputs.min() if self.inputs_in_linf else level
        gates[self._entered] = (negligible * least / self._start.gates).clamp(min=_SMALLEST)
        gates[scaled.kept] = factor / (point.gates * unit.gates)
        return Multipliers(level=float(level), gates=gates, inputs=inputs)

    def point(self, scaled: Scaled, found: Multipliers) -> Point:
        """The scaled problem's point of some multipliers; not positive where they are not."""
        unit = scaled.unit
        gates = found.gates[scaled.kept]
        inputs = found.inputs[scaled.inputs]
        level = found.gates.new_tensor(found.level)
        factor = torch.ones_like(level) if self.inputs_in_linf else level
        return Point(
            level=level / unit.level,
            gates=factor / gates / unit.gates,
            inputs=1 / inputs / unit.inputs,
        )

    def _completed(
        self, rows: Float64[Tensor, "selected outputs"], found: Multipliers, unfelt: float
    ) -> Multipliers:
        """The same, with multipliers for psis that nothing enters: their own row costs nothing.

        What they add to a gate that is entered is made negligible. One that adds v psi to another
        of their kind, which n of them enter, is held by 2 n v^2 times that one's:
        (sum_j v_j psi_j)^2 is at most n sum_j (v_j psi_j)^2. Later ones come first.
        """
        idle = ~self._entered[self._form.owner]
        if not bool(idle.any()):
            return found
        form = self._form
        outflow, noise = self._outflow(rows)
        outflow = (outflow.abs() + _NOISE_HELD * noise)[:, form.inputs :].square().sum(dim=0)
        squares = (form.inflow.abs() + _NOISE_HELD * form.inflow_noise)[:, form.inputs :].square()
        through = (squares * found.gates[form.owner][:, None]).sum(dim=0)
        scale = found.level if self.inputs_in_linf else 1.0
        needed = (outflow / scale + through) / unfelt
        least = max(_SMALLEST, unfelt * found.level)
        most = torch.full_like(found.gates, least).scatter_reduce(0, form.owner, needed, "amax")
        gates = torch.where(self._entered, found.gates, most)
        shared = 2 * (squares[:, idle] != 0).sum(dim=1)
        for block in reversed(form.blocks):
            theirs = torch.where(idle, gates[form.owner] * shared, 0.0)
            held = (squares[:, block] * theirs[:, None]).sum(dim=0)
            more = torch.zeros_like(gates).scatter_reduce(0, form.owner[block], held, "amax")
            gates = torch.where(self._entered, gates, gates + more)
        return Multipliers(level=found.level, gates=gates, inputs=found.inputs)


def _entered(
    drive: Float64[Tensor, "psis inputs"],
    spread: Float64[Tensor, "psis psis"],
    owner: Int64[Tensor, " psis"],
    multipliers: int,
) -> Bool[Tensor, " multipliers"]:
    """Which multipliers have a psi that something varying enters."""
    known = _any((drive != 0).any(dim=1), owner, multipliers)
    while True:
        new = known | _any((spread[:, known[owner]] != 0).any(dim=1), owner, multipliers)
        if bool((new == known).all()):
            return known
        known = new


def _reaching(
    spread: Float64[Tensor, "rows psis"],
    outputs: int,
    owner: Int64[Tensor, " psis"],
    multipliers: int,
) -> Bool[Tensor, " multipliers"]:
    """Which multipliers have a psi that the outputs depend on."""
    known = _any((spread[:outputs] != 0).any(dim=0), owner, multipliers)
    while True:
        below = spread[outputs:][known[owner]]
        new = known | _any((below != 0).any(dim=0), owner, multipliers)
        if bool((new == known).all()):
            return known
        known = new


def _any(
    flags: Bool[Tensor, " psis"], owner: Int64[Tensor, " psis"], multipliers: int
) -> Bool[Tensor, " multipliers"]:
    counts = torch.zeros(multipliers, dtype=torch.int64, device=flags.device)
    return 0 < counts.index_add_(0, owner, flags.long())


def _unit(problem: Inequality, gates: Float64[Tensor, " multipliers"]) -> Point:
    """The start: the least level for its gates, and for linf all inputs alike and balanced."""
    one = problem.spread.new_ones(())
    inputs = one.expand(len(problem.weights))
    bare = Point(level=torch.zeros_like(one), gates=gates, inputs=inputs)
    level = least_level(problem.slack(bare), problem.outputs)
    if level is None or not bool(level.isfinite()):
        raise beyond_range()
    level = level.clamp(min=LEAST_LEVEL)
    start = problem.balanced(Point(level=level, gates=gates, inputs=inputs))
    return start if float(level) <= LEAST_LEVEL else freed(problem, start)
