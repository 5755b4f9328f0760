"""Which inequalities bound an item, and solving them: jointly, or one for each output.

    one output      one inequality, whatever the output norm
    output l2       one inequality of all outputs jointly
    output linf     one for each output: the maximum of their bounds
    output l1       one, of the outputs' signs too (`signs`)

For inputs in l1 each of them bounds steps in one input at a time, and further ones are sought for
the worst inputs (`columns`). For a maximum, outputs are taken by the bound of their start, largest
first, and each only until it is below another's dual estimate.

Inequalities that have their zeros in common are solved side by side, as far as memory is small.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from verifier.certificate import LmiItem, LmiRow
from verifier.methods.clock import Clock
from verifier.methods.lipsdp import interior_point, reference
from verifier.methods.lipsdp.columns import MOST_ROWS, worst_input_settled
from verifier.methods.lipsdp.form import LARGEST_XI, Form
from verifier.methods.lipsdp.inequality import Point, ones
from verifier.methods.lipsdp.interior_point import CENTRING, CENTRING_WARM
from verifier.methods.lipsdp.multipliers import Multipliers
from verifier.methods.lipsdp.options import Options
from verifier.methods.lipsdp.problem import MARGIN, Family, Scaled
from verifier.methods.lipsdp.repair import EXTRA_MARGINS, GREATEST_GROWTH, repaired
from verifier.methods.lipsdp.signs import of_signs, with_signs
from verifier.methods.progress import NO_AIM, Aim, Step
from verifier.norms import Norm, NormPair

_SECONDS_PER_CUBE = 1e-9  #: of one step of the interior-point method, by the order of T
_BATCH_ENTRIES = 1 << 18  #: of the matrices T that are solved side by side
_LARGE = 400  #: rows of T from which on margins are bisected, and starts hurried when time is up
_UNFELT_MARGIN = 2e-7  #: a margin up to which no smaller one is sought
_PROVED = 1e-8  #: the share of a bound that making it strict may cost


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Search:
    """One run: the inequalities of a form, for all items of a property."""

    form: Form
    norm: NormPair
    options: Options
    clock: Clock
    aim: Aim = NO_AIM
    warm: LmiRow | None = None  #: multipliers to start near, of these outputs or others
    parts: int = 1  #: inequalities that are solved input by input, and share time and rows

    def items(
        self, selections: Sequence[Float64[Tensor, "_ outputs"]]
    ) -> list[tuple[LmiItem, float]]:
        """Inequalities that bound each selection of outputs, and the bounds."""
        solver = self.rows_of(self.form)
        if not solver.by_columns and all(rows.shape[0] == 1 for rows in selections):
            enough = self.aim.enough if len(selections) == 1 else 0.0
            found = solver.sought(selections, enough=enough)
            return [(LmiItem(rows=(solver.row(each, 0),)), solver.bound(each)) for each in found]
        several = self.norm.output is Norm.LINF
        parts = sum(rows.shape[0] if several else 1 for rows in selections)
        aim = self.aim if len(selections) == 1 else replace(self.aim, enough=0.0)
        apart = replace(self, parts=parts, aim=aim)
        return [apart.item(apart.rows_of(self.form), rows) for rows in selections]

    def rows_of(self, form: Form) -> _Rows:
        """What solves the inequalities of a form."""
        device = self.options.device_for(len(form.owner))
        in_linf = self.norm.input is Norm.LINF
        family = Family(form, inputs_in_linf=in_linf, device=device)
        return _Rows(replace(self, form=form), family)

    def item(
        self, solver: _Rows, rows: Float64[Tensor, "selected outputs"]
    ) -> tuple[LmiItem, float]:
        """Inequalities that bound one selection of outputs, and the bound."""
        if rows.shape[0] == 1:
            return solver.joint(rows, output=0, enough=self.aim.enough)
        match self.norm.output:
            case Norm.LINF:
                return solver.greatest(rows, self.aim.enough)
            case Norm.L2:
                return solver.joint(rows, output=None, enough=self.aim.enough)
            case Norm.L1:
                return self._signed(solver, rows)

    def _signed(
        self, solver: _Rows, rows: Float64[Tensor, "selected outputs"]
    ) -> tuple[LmiItem, float]:
        """All outputs in l1; where their signs are too many, by |y|_1 <= sqrt(m) |y|_2."""
        if LARGEST_XI < self.form.inflow.shape[1] + len(rows):
            root = math.sqrt(len(rows))
            item, bound = solver.joint(rows, output=None, enough=self.aim.enough / root)
            return item, bound * root
        one = torch.ones(1, 1, dtype=torch.float64)
        signed = self.rows_of(with_signs(self.form, rows))
        item, bound = signed.joint(one, output=0, enough=self.aim.enough)
        return LmiItem(rows=tuple(of_signs(row) for row in item.rows)), bound


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Solves the inequalities of one family."""

    search: Search
    family: Family

    @property
    def by_columns(self) -> bool:
        """Whether inputs are bounded one by one."""
        return self.search.norm.input is Norm.L1 and self.search.form.inputs != 1

    def joint(
        self, rows: Float64[Tensor, "selected outputs"], *, output: int | None, enough: float
    ) -> tuple[LmiItem, float]:
        """One inequality for these outputs; for l1 inputs, those that bound every input."""
        (found,) = self.sought([rows], enough=enough)
        row = self.row(found, output)
        if not self.by_columns:
            return LmiItem(rows=(row,)), self.bound(found)

        # Half of the time is for the checker, which reads every row.
        until = self.search.clock.remaining * (1 - 0.5 / self.search.parts)

        def solve(form: Form, best: float) -> tuple[LmiRow, Multipliers]:
            alone = self.search.rows_of(form)
            (multipliers,) = alone.sought([rows], enough=best)
            return alone.row(multipliers, output), multipliers

        chosen, bounds = worst_input_settled(
            self.search.form,
            rows,
            (row, found),
            solve,
            lambda count: (
                count * self.search.parts < MOST_ROWS and until < self.search.clock.remaining
            ),
            enough,
        )
        return LmiItem(rows=tuple(chosen)), float(bounds.max())

    def greatest(
        self, rows: Float64[Tensor, "selected outputs"], enough: float
    ) -> tuple[LmiItem, float]:
        """One inequality for each output, and the greatest of their bounds."""
        starts = self.family.start_levels(rows)
        order = sorted(range(len(starts)), key=lambda i: -starts[i])
        if self.by_columns:
            best, items = 0.0, dict[int, LmiItem]()
            for i in order:
                items[i], bound = self.joint(rows[[i]], output=i, enough=max(best, enough))
                best = max(best, bound)
        else:
            alone = [rows[[i]] for i in order]
            found = self.sought(alone, enough=enough, only_greatest=True)
            best = max(map(self.bound, found))
            pairs = zip(order, found, strict=True)
            items = {i: LmiItem(rows=(self.row(each, i),)) for i, each in pairs}
        return LmiItem(rows=tuple(row for i in range(len(order)) for row in items[i].rows)), best

    def sought(
        self,
        selections: Sequence[Float64[Tensor, "_ outputs"]],
        *,
        enough: float,
        only_greatest: bool = False,
    ) -> list[Multipliers]:
        """Multipliers of each selection's inequality.

        Args:
            selections: the outputs of each.
            enough: a bound that need not be bettered.
            only_greatest: nor need those that are below another one.
        """
        found: dict[int, Multipliers] = {}
        for chunk in self._chunks(selections):
            left = len(selections) - len(found)
            clock = self.search.clock
            share = clock.remaining if only_greatest else clock.remaining * len(chunk) / left
            rows = torch.stack([selections[i] for i in chunk])
            support = self.family.support(rows[0])
            hurried = clock.has_expired and _LARGE <= self.family.order(support)
            scaled = self.family.scaled(rows, support, hurried=hurried)
            known = self._known()
            if known is not None:
                scaled = self.family.warmed(scaled, known)
            watch = self._watch(scaled, Clock.start(share), enough, only_greatest)
            points = self._points(scaled, rows, watch, is_warm=known is not None)
            for place, i in enumerate(chunk):
                found[i] = self._repaired(scaled[place], points[place], rows[place])
            if only_greatest:
                enough = max(enough, *map(self.bound, found.values()))
        return [found[i] for i in range(len(selections))]

    def _chunks(self, selections: Sequence[Float64[Tensor, "_ outputs"]]) -> list[list[int]]:
        """Which are solved side by side: those of one support, in the order of their first."""
        alike: dict[tuple[int, bytes, bytes], list[int]] = {}
        orders: dict[tuple[int, bytes, bytes], int] = {}
        for i, rows in enumerate(selections):
            support = self.family.support(rows)
            alike.setdefault(support.key, []).append(i)
            orders[support.key] = self.family.order(support)
        chunks: list[list[int]] = []
        for key, members in alike.items():
            count = max(1, _BATCH_ENTRIES // max(1, orders[key]) ** 2)
            chunks += [members[k : k + count] for k in range(0, len(members), count)]
        return sorted(chunks)

    def _known(self) -> Multipliers | None:
        """The multipliers to start near; none for another norm of the input."""
        warm, form = self.search.warm, self.search.form
        linf = self.family.inputs_in_linf
        if warm is None or linf is (warm.input_multipliers is None):
            return None
        inputs = [] if warm.input_multipliers is None else warm.input_multipliers
        return Multipliers(
            level=warm.level,
            gates=form.from_gates(warm.multipliers),
            inputs=torch.as_tensor(inputs, dtype=torch.float64),
        )

    def row(self, found: Multipliers, output: int | None) -> LmiRow:
        """Multipliers as the certificate stores them."""
        gates = self.search.form.by_gate(found.gates)
        return LmiRow(
            output=output,
            level=found.level,
            input_multipliers=found.inputs.numpy() if self.family.inputs_in_linf else None,
            multipliers={gate: each.numpy() for gate, each in gates.items()},
        )

    def bound(self, found: Multipliers) -> float:
        """The bound that multipliers stand for."""
        if self.family.inputs_in_linf:
            return (found.level + float(found.inputs.sum())) / 2
        return math.sqrt(found.level)

    def _repaired(
        self, scaled: Scaled, point: Point, rows: Float64[Tensor, "selected outputs"]
    ) -> Multipliers:
        """Multipliers with the least margin that the certificate's matrix asks for."""
        if scaled.is_constant:
            unit = ones(scaled.problem)
            found = self.family.certified(scaled, unit, rows)
            return found if self._is_shown(rows, found) else self._grown(scaled, unit, rows)
        strict = repaired(scaled.problem, point, 0.0)
        found = self.family.certified(scaled, strict, rows)
        if self._is_shown(rows, found):
            return found
        shown: Multipliers | None = None
        first, beyond = 0, len(EXTRA_MARGINS)
        # Few need more than a little: of large ones, whose tests are long, what is lost is tried.
        is_large = _LARGE <= scaled.problem.rows
        place = self._place_of_loss(rows, found) if is_large else first
        while first < beyond:
            margin = EXTRA_MARGINS[place]
            strict = repaired(scaled.problem, point, margin)
            found = self.family.certified(scaled, strict, rows, margin=margin)
            if self._is_shown(rows, found):
                shown, beyond = found, first if margin <= _UNFELT_MARGIN else place
            else:
                first = place + 1
            place = (first + beyond) // 2 if is_large else first
        return self._grown(scaled, strict, rows) if shown is None else shown

    def _place_of_loss(self, rows: Float64[Tensor, "selected outputs"], found: Multipliers) -> int:
        """The least of the margins that are above what a test would lose; or the greatest."""
        tested = self.family.tested(rows, found)
        loss = tested.loss() if tested.is_in_range else math.inf
        return min(sum(margin < loss for margin in EXTRA_MARGINS), len(EXTRA_MARGINS) - 1)

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

    def _points(
        self,
        scaled: Scaled,
        rows: Float64[Tensor, "batch selected outputs"],
        watch: interior_point.Watch,
        *,
        is_warm: bool,
    ) -> list[Point]:
        """The solver's points, whatever they are worth."""
        options, problem = self.search.options, scaled.problem
        starts = ones(problem)
        # Without gates the inequality is an eigenvalue or a sum, and no general solver's work.
        if options.solver in ("scs", "clarabel") and self.search.form.multipliers:
            return [
                self._by_reference(scaled[i], rows[i], options.solver) or starts[i]
                for i in range(rows.shape[0])
            ]
        if self.search.clock.has_expired:
            return [starts[i] for i in range(rows.shape[0])]
        found = interior_point.solve(
            problem,
            # For l2 inputs the objective is the bound's square.
            gap=options.gap if self.family.inputs_in_linf else 2 * options.gap,
            iterations=options.iterations,
            watch=watch,
            centring=CENTRING_WARM if is_warm else CENTRING,
        )
        return [found.point[i] for i in range(rows.shape[0])]

    def _watch(
        self, scaled: Scaled, clock: Clock, enough: float, only_greatest: bool
    ) -> interior_point.Watch:
        """When to stop, and who is told."""
        expected = _SECONDS_PER_CUBE * scaled.problem.order**3 * len(scaled.problem.weights)
        pace = _Pace(clock, expected)
        # For l2 inputs the objective is the bound's square.
        power = 1.0 if self.family.inputs_in_linf else 2.0

        def watch(
            iteration: int, values: Float64[Tensor, " batch"], lowers: Float64[Tensor, " batch"]
        ) -> Bool[Tensor, " batch"]:
            gaps = (values - lowers) / values / power
            self.search.aim.report(
                Step(phase="interior point", iteration=iteration, gap=_finite(float(gaps.max())))
            )
            if pace.is_spent():
                return torch.ones_like(values, dtype=torch.bool)
            limit = enough
            if only_greatest:
                limit = max(limit, float(self.family.bounds(scaled, lowers).max()))
            return self.family.bounds(scaled, values) * (1 + _PROVED) <= limit

        return watch

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


class _Pace:
    """Whether the clock can pay for another step, by what the last one took."""

    def __init__(self, clock: Clock, expected: float) -> None:
        self._clock = clock
        self._expected = expected
        self._last: float | None = None

    def is_spent(self) -> bool:
        """Asked before every step."""
        now = time.monotonic()
        if self._last is not None:
            self._expected = now - self._last
        self._last = now
        return self._clock.remaining <= self._expected


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
