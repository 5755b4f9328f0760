"""Which inequalities bound an item, and solving them: jointly, or one output after another.

    one output      one inequality, whatever the output norm
    output l2       one inequality of all outputs jointly
    output linf     one for each output: the maximum of their bounds
    output l1       one, of the outputs' signs too (`signs`)

For inputs in l1 each of them bounds steps in one input at a time, and further ones are sought for
the worst inputs (`columns`). For a maximum, outputs are taken by the bound of their start, largest
first, and each later one only until it is below the best.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.certificate import LmiItem, LmiRow
from verifier.methods.clock import Clock
from verifier.methods.lipsdp import interior_point, reference
from verifier.methods.lipsdp.columns import worst_input_settled
from verifier.methods.lipsdp.form import LARGEST_XI, Form
from verifier.methods.lipsdp.inequality import Point, ones
from verifier.methods.lipsdp.options import Options
from verifier.methods.lipsdp.problem import MARGIN, Family, Multipliers, Scaled
from verifier.methods.lipsdp.repair import EXTRA_MARGINS, GREATEST_GROWTH, repaired
from verifier.methods.lipsdp.signs import of_signs, with_signs
from verifier.methods.progress import NO_AIM, Aim
from verifier.norms import Norm, NormPair

_SECONDS_PER_CUBE = 1e-9  #: of one step of the interior-point method, by the order of T


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Search:
    """One run: the inequalities of a form, for all items of a property."""

    form: Form
    norm: NormPair
    options: Options
    clock: Clock
    aim: Aim = NO_AIM

    def items(
        self, selections: Sequence[Float64[Tensor, "_ outputs"]]
    ) -> list[tuple[LmiItem, float]]:
        """Inequalities that bound each selection of outputs, and the bounds."""
        solver = _Rows(self, Family(self.form, inputs_in_linf=self.norm.input is Norm.LINF))
        return [self._item(solver, rows) for rows in selections]

    def _item(
        self, solver: _Rows, rows: Float64[Tensor, "selected outputs"]
    ) -> tuple[LmiItem, float]:
        if rows.shape[0] == 1:
            return solver.joint(rows, output=0)
        match self.norm.output:
            case Norm.LINF:
                return solver.greatest(rows)
            case Norm.L2:
                return solver.joint(rows, output=None)
            case Norm.L1:
                return self._signed(solver, rows)

    def _signed(
        self, solver: _Rows, rows: Float64[Tensor, "selected outputs"]
    ) -> tuple[LmiItem, float]:
        """All outputs in l1; where their signs are too many, by |y|_1 <= sqrt(m) |y|_2."""
        if LARGEST_XI < self.form.inflow.shape[1] + len(rows):
            item, bound = solver.joint(rows, output=None)
            return item, bound * math.sqrt(len(rows))
        form = with_signs(self.form, rows)
        family = Family(form, inputs_in_linf=self.norm.input is Norm.LINF)
        solver = _Rows(replace(self, form=form), family)
        item, bound = solver.joint(torch.ones(1, 1, dtype=torch.float64), output=0)
        return LmiItem(rows=tuple(of_signs(row) for row in item.rows)), bound


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Solves the inequalities of one family."""

    search: Search
    family: Family

    def joint(
        self, rows: Float64[Tensor, "selected outputs"], *, output: int | None, enough: float = 0.0
    ) -> tuple[LmiItem, float]:
        """One inequality for these outputs; for l1 inputs, those that bound every input."""
        if self.search.norm.input is not Norm.L1 or self.search.form.inputs == 1:
            row, bound = self.solved(rows, output=output, enough=enough)
            return LmiItem(rows=(row,)), bound
        found = self._sought(rows, enough)

        def solve(form: Form, best: float) -> tuple[LmiRow, Multipliers]:
            family = Family(form, inputs_in_linf=False)
            alone = _Rows(replace(self.search, form=form), family)
            multipliers = alone._sought(rows, best)
            return alone.row(multipliers, output), multipliers

        chosen, bounds = worst_input_settled(
            self.search.form,
            rows,
            (self.row(found, output), found),
            solve,
            lambda: not self.search.clock.has_expired,
            enough,
        )
        return LmiItem(rows=tuple(chosen)), float(bounds.max())

    def greatest(self, rows: Float64[Tensor, "selected outputs"]) -> tuple[LmiItem, float]:
        """One inequality for each output, and the greatest of their bounds."""
        starts = [self._start_bound(rows[[i]]) for i in range(rows.shape[0])]
        found: dict[int, LmiItem] = {}
        best = 0.0
        for output in sorted(range(len(starts)), key=lambda i: -starts[i]):
            found[output], bound = self.joint(rows[[output]], output=output, enough=best)
            best = max(best, bound)
        return LmiItem(rows=tuple(row for i in range(len(starts)) for row in found[i].rows)), best

    def _start_bound(self, row: Float64[Tensor, "1 outputs"]) -> float:
        scaled = self.family.scaled(row)
        return self.family.bound(scaled, scaled.problem.objective(ones(scaled.problem)))

    def solved(
        self,
        rows: Float64[Tensor, "selected outputs"],
        *,
        output: int | None,
        enough: float = 0.0,
    ) -> tuple[LmiRow, float]:
        """One inequality's multipliers and the bound; the search may end at a bound `enough`."""
        found = self._sought(rows, enough)
        return self.row(found, output), self._bound(found)

    def _sought(self, rows: Float64[Tensor, "selected outputs"], enough: float) -> Multipliers:
        return self._repaired(self.family.scaled(rows), rows, enough)

    def row(self, found: Multipliers, output: int | None) -> LmiRow:
        """Multipliers as the certificate stores them."""
        gates = self.search.form.by_gate(found.gates)
        return LmiRow(
            output=output,
            level=found.level,
            input_multipliers=found.inputs.numpy() if self.family.inputs_in_linf else None,
            multipliers={gate: each.numpy() for gate, each in gates.items()},
        )

    def _repaired(
        self, scaled: Scaled, rows: Float64[Tensor, "selected outputs"], enough: float
    ) -> Multipliers:
        """Multipliers with the least margin that the certificate's matrix asks for."""
        if scaled.is_constant:
            unit = ones(scaled.problem)
            found = self.family.certified(scaled, unit, rows)
            return found if self._is_shown(rows, found) else self._grown(scaled, unit, rows)
        point = self._point(scaled, rows, enough)
        strict = repaired(scaled.problem, point, 0.0)
        found = self.family.certified(scaled, strict, rows)
        for margin in EXTRA_MARGINS:
            if self._is_shown(rows, found):
                return found
            strict = repaired(scaled.problem, point, margin)
            found = self.family.certified(scaled, strict, rows, margin=margin)
        return found if self._is_shown(rows, found) else self._grown(scaled, strict, rows)

    def _grown(
        self, scaled: Scaled, point: Point, rows: Float64[Tensor, "selected outputs"]
    ) -> Multipliers:
        """All multipliers larger by the least power of two that shows the matrix, if one does."""

        def found(power: int) -> Multipliers:
            factor = 2.0**power
            margin = EXTRA_MARGINS[-1]
            return self.family.certified(scaled, point, rows, margin=margin, factor=factor)

        fails, shows = 0, 1
        while not self._is_shown(rows, found(shows)):
            if GREATEST_GROWTH <= shows:
                return found(0)
            fails, shows = shows, 2 * shows
        while fails + 1 < shows:
            middle = (fails + shows) // 2
            if self._is_shown(rows, found(middle)):
                shows = middle
            else:
                fails = middle
        return found(shows)

    def _is_shown(self, rows: Float64[Tensor, "selected outputs"], found: Multipliers) -> bool:
        """Whether a test of the certificate's matrix would succeed in spite of its rounding."""
        tested = self.family.tested(rows, found)
        if not tested.is_in_range:
            return False
        loss = tested.loss()
        if loss <= MARGIN / 4 and not self.family.has_idle_psis:
            return True
        return loss < 1 and tested.is_definite(loss)

    def _bound(self, found: Multipliers) -> float:
        if self.family.inputs_in_linf:
            return (found.level + float(found.inputs.sum())) / 2
        return math.sqrt(found.level)

    def _point(
        self, scaled: Scaled, rows: Float64[Tensor, "selected outputs"], enough: float
    ) -> Point:
        """The solver's point, whatever it is worth."""
        options, clock = self.search.options, self.search.clock
        # Without gates the inequality is an eigenvalue or a sum, and no general solver's work.
        if options.solver != "interior_point" and self.search.form.multipliers:
            return self._by_reference(scaled, rows, options.solver) or ones(scaled.problem)
        # A step that the clock cannot pay for is not begun.
        expected = _SECONDS_PER_CUBE * (scaled.problem.rows + len(scaled.inputs)) ** 3
        return interior_point.solve(
            scaled.problem,
            # For l2 inputs the objective is the bound's square.
            gap=options.gap if self.family.inputs_in_linf else 2 * options.gap,
            iterations=options.iterations,
            stop=lambda value: (
                self.family.bound(scaled, value) <= enough or clock.remaining <= expected
            ),
        ).point

    def _by_reference(
        self,
        scaled: Scaled,
        rows: Float64[Tensor, "selected outputs"],
        solver: Literal["scs", "clarabel"],
    ) -> Point | None:
        found = reference.solved(
            self.search.form, rows, inputs_in_linf=self.family.inputs_in_linf, solver=solver
        )
        return None if found is None else self.family.point(scaled, found)
