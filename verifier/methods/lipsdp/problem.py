"""From the canonical form to inequalities, one for each set of output rows, and back.

All rows share the psis' part of T and its start. Psis whose increment is always 0 (nothing that
varies enters them) are left out, and for each set of rows also those that do not reach it; in the
certificate the former get a very large multiplier, which costs nothing, and the latter a very
small one.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from verifier.errors import JobFailed
from verifier.methods.lipsdp.form import Form
from verifier.methods.lipsdp.inequality import Inequality, Point, least_level, ones
from verifier.methods.lipsdp.multipliers import (
    SMALLEST,
    Multipliers,
    certificate_matrix,
    with_idle_psis,
)
from verifier.methods.lipsdp.panels import panels_of
from verifier.methods.lipsdp.rounding import CertificateMatrix
from verifier.methods.lipsdp.start import (
    FACTOR,
    FACTOR_LINF,
    MORE_ROOM,
    Start,
    beyond_range,
    forward_start,
    freed,
    leaning,
)

MARGIN = 2e-9  #: what is feasible here stays so if T loses this share of its diagonal
NEGLIGIBLE = 1e-13  #: the share of the bound that a psi without influence may cost
UNFELT = 1e-11  #: and one that nothing enters: far below MARGIN, and its root far above rounding
_SHARE_OF_MARGIN = 1e-3  #: with a greater margin, both may be this share of it
_MANY_INPUTS = 64  #: from here on it is worth to look for a low rank
_DEPENDENT = 1e-14  #: an entry of QR's that is only rounding, of rows of length 1
_MIXED = 0.1  #: the start's share in a warm one
LEAST_LEVEL = 2.0**-150  #: in the place of 0, where the outputs do not vary


@dataclass(frozen=True, slots=True, eq=False)
class Scaled:
    """Inequalities whose start is the point of ones: a batch, or one of it."""

    problem: Inequality
    unit: Point  #: what the ones are, unscaled
    kept: Int64[Tensor, " kept"]  #: the form's multipliers that the problem has, in its order
    inputs: Int64[Tensor, " inputs"]  #: the form's inputs that the problem has; none for l2

    def __getitem__(self, index: int) -> Scaled:
        """One of the batch."""
        return Scaled(self.problem[index], self.unit[index], self.kept, self.inputs)

    @property
    def is_constant(self) -> bool:
        """Whether the outputs do not vary at all; of one inequality."""
        return float(self.unit.level) <= LEAST_LEVEL


@dataclass(frozen=True, slots=True, eq=False)
class Support:
    """What a set of outputs depends on."""

    outputs: int
    reaches: Bool[Tensor, " entered"]  #: of the multipliers that something varying enters
    inputs: Int64[Tensor, " inputs"]  #: none for l2

    @property
    def key(self) -> tuple[int, bytes, bytes]:
        """Equal for equal ones."""
        return self.outputs, self.reaches.numpy().tobytes(), self.inputs.numpy().tobytes()


class Family:
    """The inequalities of one form, on a device; multipliers come and go on the CPU."""

    def __init__(
        self, form: Form, *, inputs_in_linf: bool, device: torch.device | None = None
    ) -> None:
        self._form = form
        self._device = device or torch.device("cpu")
        self.inputs_in_linf = inputs_in_linf
        drive, spread = form.inflow[:, : form.inputs], form.inflow[:, form.inputs :]
        entered = _entered(drive, spread, form.owner, form.multipliers)
        self._entered = entered
        psis = torch.nonzero(entered[form.owner]).flatten()
        self._psis = psis
        whole = len(psis) == len(form.owner)
        self._spread = spread if whole else spread[psis][:, psis]
        self._drive = drive if whole else drive[psis]
        self._gram = self._drive @ self._drive.T
        self._is_entry = self._spread != 0
        self._owner = (torch.cumsum(entered.long(), dim=0) - 1)[form.owner[psis]]
        ends = torch.cumsum(entered[form.owner].long(), dim=0)
        cuts = [0, *(int(ends[block.stop - 1]) for block in form.blocks if block.stop)]
        self._blocks = [slice(a, b) for a, b in pairwise(cuts) if a < b]
        self._start = self._started(FACTOR_LINF if inputs_in_linf else FACTOR)
        self._thin = self._thinned() if inputs_in_linf else None

    def _started(self, excess: float) -> Start:
        return forward_start(self._spread, self._gram, self._owner, self._blocks, excess)

    def _thinned(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """F_0 of the psis and of all outputs, and M, where F = F_0 M has a low rank.

        QR's of F', its columns of length 1: what is dependent leaves rows of rounding.
        """
        form = self._form
        whole = torch.cat([self._drive, form.outflow[:, : form.inputs]])
        norms = whole.norm(dim=1, keepdim=True).clamp(min=1e-300)
        if form.inputs < _MANY_INPUTS:
            return None
        basis, right = torch.linalg.qr((whole / norms).T)
        felt = _DEPENDENT < right.abs().amax(dim=1)
        rank, psis = int(felt.sum()), len(self._psis)
        # F diag(e) F' by F itself, and by F_0 (M diag(e) M') F_0'.
        if psis**2 * form.inputs < rank**2 * (form.inputs + psis) + rank * psis**2:
            return None
        thin = right[felt].T * norms
        return thin[: len(self._psis)], thin[len(self._psis) :], basis[:, felt].T.contiguous()

    def support(self, rows: Float64[Tensor, "selected outputs"]) -> Support:
        """What the outputs `rows` y depend on."""
        form = self._form
        outflow = rows @ form.outflow
        reaches = self._reaching((outflow[:, form.inputs + self._psis] != 0).any(dim=0))
        inputs = torch.arange(0)
        if self.inputs_in_linf:
            live = self._drive[reaches[self._owner]]
            felt = (live != 0).any(dim=0) | (outflow[:, : form.inputs] != 0).any(dim=0)
            inputs = torch.nonzero(felt).flatten()
        return Support(rows.shape[0], reaches, inputs)

    def _reaching(self, read: Bool[Tensor, " psis"]) -> Bool[Tensor, " multipliers"]:
        """The multipliers with a psi that is read, by the outputs or by such a one; last first."""
        known = torch.zeros(len(self._start.gates), dtype=torch.bool)
        for block in reversed(self._blocks):
            later = slice(block.stop, None)
            alive = known[self._owner[later]]
            into = self._is_entry[later, block]
            by_later = into.any(dim=0) if bool(alive.all()) else into[alive].any(dim=0)
            known[self._owner[block][read[block] | by_later]] = True
        return known

    def order(self, support: Support) -> int:
        """The order of T and e of such inequalities."""
        psis = int(support.reaches[self._owner].sum())
        return support.outputs + psis + len(support.inputs)

    def scaled(
        self,
        rows: Float64[Tensor, "batch selected outputs"],
        support: Support,
        *,
        hurried: bool = False,
    ) -> Scaled:
        """The inequalities of several sets of outputs, of one support.

        Args:
            rows: the outputs.
            support: what they depend on.
            hurried: take the shared start as it is, without looking for gates to be raised.
        """
        form, batch, outputs = self._form, rows.shape[0], support.outputs
        live = torch.nonzero(support.reaches[self._owner]).flatten().flip(0)
        # In the order in which psis come: then a multiplier of one psi has its number.
        numbered = torch.nonzero(support.reaches).flatten().flip(0)
        numbers = torch.empty_like(support.reaches, dtype=torch.int64)
        numbers[numbered] = torch.arange(len(numbered))
        nodes = [int(support.reaches[self._owner[block]].sum()) for block in reversed(self._blocks)]
        outflow = rows @ form.outflow
        spread = _below(outflow[..., form.inputs + self._psis[live]], self._spread[live][:, live])
        drive, mix = self._driven(rows, outflow, live, support.inputs)
        # 0 <= (1 - c) N - Z D^-1 Z' is the inequality of a Z that is larger by this factor.
        grown = (1 - MARGIN) ** -0.5
        problem = Inequality(
            outputs=outputs,
            spread=spread.mul_(grown),
            drive=drive * grown,
            mix=None if mix is None else mix.expand(batch, *mix.shape),
            fixed=self._fixed(outflow[..., : form.inputs], live).mul_(grown**2),
            weights=drive.new_ones(batch, len(support.inputs)),
            owner=numbers[self._owner[live]],
            multipliers=len(numbered),
            panels=panels_of([count for count in nodes if count], outputs),
        ).to(self._device)
        unit = self._unit(problem, numbered, hurried=hurried)
        kept = torch.nonzero(self._entered).flatten()[numbered]
        return Scaled(problem.scaled(unit), unit, kept, support.inputs)

    def _unit(
        self, problem: Inequality, numbered: Int64[Tensor, " kept"], *, hurried: bool
    ) -> Point:
        """The start, with more room where T has lost more than that to rounding and `MARGIN`.

        Raises:
            JobFailed: no room is enough.
        """
        for excess in MORE_ROOM:
            try:
                return _unit(
                    problem, self._start.gates[numbered].to(problem.spread), hurried=hurried
                )
            except JobFailed:
                self._start = self._started(excess)
        return _unit(problem, self._start.gates[numbered].to(problem.spread), hurried=hurried)

    def warmed(self, scaled: Scaled, known: Multipliers) -> Scaled:
        """The same inequalities with starts near known multipliers, where they are feasible.

        Multipliers of a row are feasible for any other row's gates: 0 <= T_ww reads no output. They
        lie at the cone's boundary, where no method should start, and are mixed with the start.
        """
        point = self.point(scaled, known)
        usable = (0 < point.gates) & point.gates.isfinite()
        gates = torch.where(usable, point.gates, 1.0)
        usable = (0 < point.inputs) & point.inputs.isfinite()
        inputs = torch.where(usable, point.inputs, 1.0)
        mixed = Point(
            level=torch.zeros_like(scaled.unit.level),
            gates=(1 - _MIXED) * gates + _MIXED,
            inputs=(1 - _MIXED) * inputs + _MIXED,
        )
        level = least_level(scaled.problem.slack(mixed), scaled.problem.outputs)
        unit = scaled.problem.balanced(mixed.at_level(level))
        better = (LEAST_LEVEL < level) & (
            scaled.problem.objective(unit) < scaled.problem.objective(ones(scaled.problem))
        )
        if not bool(better.all()):
            return scaled
        whole = Point(
            level=scaled.unit.level * unit.level,
            gates=scaled.unit.gates * unit.gates,
            inputs=scaled.unit.inputs * unit.inputs,
        )
        return Scaled(scaled.problem.scaled(unit), whole, scaled.kept, scaled.inputs)

    def _driven(
        self,
        rows: Float64[Tensor, "batch selected outputs"],
        outflow: Float64[Tensor, "batch selected xi"],
        live: Int64[Tensor, " live"],
        inputs: Int64[Tensor, " inputs"],
    ) -> tuple[Float64[Tensor, "batch rows rank"], Float64[Tensor, "rank inputs"] | None]:
        """F_0 and M of linf; no columns for l2."""
        if self._thin is None:
            return _below(outflow[..., inputs], self._drive[live][:, inputs]), None
        psis, outputs, mix = self._thin
        return _below(rows @ outputs, psis[live]), mix[:, inputs]

    def _fixed(
        self, above: Float64[Tensor, "batch selected inputs"], live: Int64[Tensor, " live"]
    ) -> Float64[Tensor, "batch rows rows"]:
        """F F' of l2, its largest part shared; 0 for linf."""
        batch, outputs, _ = above.shape
        rows = outputs + len(live)
        fixed = above.new_zeros(batch, rows, rows)
        if self.inputs_in_linf:
            return fixed
        aside = above @ self._drive[live].T
        fixed[:, :outputs, :outputs] = above @ above.mT
        fixed[:, :outputs, outputs:] = aside
        fixed[:, outputs:, :outputs] = aside.mT
        fixed[:, outputs:, outputs:] = self._gram[live][:, live]
        return fixed

    def start_levels(self, rows: Float64[Tensor, "selected outputs"]) -> list[float]:
        """The level of the shared start for each output by itself: an order of their bounds.

        T_ow T_ww^-1 T_wo - T_oo, of T at level 0 and inputs alike.
        """
        form = self._form
        outflow = rows @ form.outflow
        direct, spread = outflow[:, : form.inputs], outflow[:, form.inputs + self._psis]
        scaled = spread * self._start.gates[self._owner]
        cross = scaled @ self._spread.T + direct @ self._drive.T
        solved = torch.linalg.solve_triangular(self._start.factor, cross.T, upper=False)
        levels = solved.square().sum(dim=0) + (scaled * spread).sum(dim=1)
        return (levels + direct.square().sum(dim=1)).tolist()

    def bounds(
        self, scaled: Scaled, objectives: Float64[Tensor, " batch"]
    ) -> Float64[Tensor, " batch"]:
        """The bounds that objectives of the scaled problems stand for."""
        unscaled = scaled.unit.level * objectives
        return unscaled / 2 if self.inputs_in_linf else unscaled.clamp(min=0.0).sqrt()

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
        found = self._multipliers(scaled, point, max(NEGLIGIBLE, share)).times(factor)
        return with_idle_psis(
            self._form,
            self._entered,
            rows,
            found,
            max(UNFELT, share),
            inputs_in_linf=self.inputs_in_linf,
        )

    def tested(
        self, rows: Float64[Tensor, "selected outputs"], found: Multipliers
    ) -> CertificateMatrix:
        """The certificate's matrix."""
        return certificate_matrix(self._form, rows, found, inputs_in_linf=self.inputs_in_linf)

    @property
    def has_idle_psis(self) -> bool:
        """Whether there are psis that nothing enters."""
        return not bool(self._entered.all())

    def _multipliers(self, scaled: Scaled, point: Point, negligible: float) -> Multipliers:
        """The certificate's, but for psis that nothing enters."""
        form, unit, point = self._form, scaled.unit.to("cpu"), point.to("cpu")
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
        gates[self._entered] = (negligible * least / self._start.gates).clamp(min=SMALLEST)
        gates[scaled.kept] = factor / (point.gates * unit.gates)
        return Multipliers(level=float(level), gates=gates, inputs=inputs)

    def point(self, scaled: Scaled, found: Multipliers) -> Point:
        """The scaled problem's point of some multipliers; not positive where they are not."""
        unit = scaled.unit.to("cpu")
        gates = found.gates[scaled.kept]
        inputs = found.inputs[scaled.inputs]
        level = torch.full_like(unit.level, found.level)
        factor = torch.ones_like(level) if self.inputs_in_linf else level
        return Point(
            level=level / unit.level,
            gates=factor[..., None] / gates / unit.gates,
            inputs=1 / inputs / unit.inputs,
        ).to(self._device)


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


def _below(
    above: Float64[Tensor, "batch m n"], shared: Float64[Tensor, "k n"]
) -> Float64[Tensor, "batch rows n"]:
    """Rows of their own above rows that all have."""
    return torch.cat([above, shared.expand(above.shape[0], *shared.shape)], dim=1)


def _any(
    flags: Bool[Tensor, " psis"], owner: Int64[Tensor, " psis"], multipliers: int
) -> Bool[Tensor, " multipliers"]:
    counts = torch.zeros(multipliers, dtype=torch.int64, device=flags.device)
    return 0 < counts.index_add_(0, owner, flags.long())


def _unit(problem: Inequality, gates: Float64[Tensor, " multipliers"], *, hurried: bool) -> Point:
    """The start: the least level for its gates, and for linf all inputs alike and balanced."""
    bare = ones(problem)
    bare = Point(
        level=torch.zeros_like(bare.level), gates=gates.expand_as(bare.gates), inputs=bare.inputs
    )
    level = least_level(problem.slack(bare), problem.outputs)
    if not bool(level.isfinite().all()):
        raise beyond_range()
    start = problem.balanced(bare.at_level(level.clamp(min=LEAST_LEVEL)))
    varies = LEAST_LEVEL < level
    found = start if hurried else leaning(problem, freed(problem, start))
    return Point(
        level=torch.where(varies, found.level, start.level),
        gates=torch.where(varies[:, None], found.gates, start.gates),
        inputs=torch.where(varies[:, None], found.inputs, start.inputs),
    )
