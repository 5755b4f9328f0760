"""Which inequalities bound an item, and solving them: jointly, or one for each output.

    one output                one inequality, whatever the output norm
    input l2, output l2       one inequality of all outputs jointly
    output linf               one for each output: the maximum of their bounds
    otherwise                 one for each output: the root of the sum of squares (l2) or the sum
                              (l1) of their bounds; or the joint one, by
                              |y|_1 <= sqrt(m) |y|_2 and |x|_2 <= sqrt(n) |x|_inf

An input norm of l1 is treated as l2: |x|_2 <= |x|_1. For a maximum, outputs are taken by the
bound of their start, largest first, and each only until it is below another's dual estimate.

Inequalities that have their zeros in common are solved side by side, as far as memory is small.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from verifier.certificate import LmiItem, LmiRow
from verifier.methods.clock import Clock
from verifier.methods.lipsdp import interior_point, reference
from verifier.methods.lipsdp.form import Form
from verifier.methods.lipsdp.inequality import Point, ones
from verifier.methods.lipsdp.interior_point import CENTRING, CENTRING_WARM
from verifier.methods.lipsdp.options import Options
from verifier.methods.lipsdp.problem import MARGIN, Family, Multipliers, Scaled
from verifier.methods.lipsdp.repair import EXTRA_MARGINS, GREATEST_GROWTH, repaired
from verifier.methods.progress import NO_AIM, Aim, Step
from verifier.norms import Norm, NormPair

_SECONDS_PER_CUBE = 1e-9  #: of one step of the interior-point method, by the order of T
_BATCH_ENTRIES = 1 << 18  #: of the matrices T that are solved side by side
_LARGE = 400  #: rows of T from which on margins are bisected
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

    def items(
        self, selections: Sequence[Float64[Tensor, "_ outputs"]]
    ) -> list[tuple[LmiItem, float]]:
        """Inequalities that bound each selection of outputs, and the bounds."""
        linf = self.norm.input is Norm.LINF
        single = self._rows(in_linf=linf)
        if all(rows.shape[0] == 1 for rows in selections):
            enough = self.aim.enough if len(selections) == 1 else 0.0
            solved = single.solved(selections, enough=enough)
            return [(LmiItem(rows=(row,)), bound) for row, bound in solved]
        joint = single
        if linf and self.norm.output is not Norm.LINF:
            joint = self._rows(in_linf=False)
        return [self._item(single, joint, rows) for rows in selections]

    def _rows(self, *, in_linf: bool) -> _Rows:
        device = self.options.device_for(len(self.form.owner))
        return _Rows(self, Family(self.form, inputs_in_linf=in_linf, device=device))

    def _item(
        self, single: _Rows, joint: _Rows, rows: Float64[Tensor, "selected outputs"]
    ) -> tuple[LmiItem, float]:
        if self.norm.output is Norm.LINF:
            return single.greatest(rows, self.aim.enough)
        factor = 1.0
        if self.norm.input is Norm.LINF:
            factor *= math.sqrt(self.form.inputs)
        if self.norm.output is Norm.L1:
            factor *= math.sqrt(rows.shape[0])
        ((row, bound),) = joint.solved([rows], enough=self.aim.enough / factor)
        together = LmiItem(rows=(row,)), bound * factor
        is_done = together[1] <= self.aim.enough
        if is_done or (joint is single and self.norm.output is Norm.L2):
            return together
        apart = single.apart(rows, self.norm.output)
        return min(apart, together, key=lambda found: found[1])


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Solves the inequalities of one family."""

    search: Search
    family: Family

    def apart(
        self, rows: Float64[Tensor, "selected outputs"], output: Norm
    ) -> tuple[LmiItem, float]:
        """One inequality for each output, and the l2 norm or the sum of their bounds."""
        found = self.solved(list(rows[:, None]), outputs=range(rows.shape[0]))
        bounds = [bound for _, bound in found]
        total = math.hypot(*bounds) if output is Norm.L2 else math.fsum(bounds)
        return LmiItem(rows=tuple(row for row, _ in found)), total

    def greatest(
        self, rows: Float64[Tensor, "selected outputs"], enough: float
    ) -> tuple[LmiItem, float]:
        """One inequality for each output, and the greatest of their bounds."""
        starts = self.family.start_levels(rows)
        order = sorted(range(len(starts)), key=lambda i: -starts[i])
        found = self.solved(
            [rows[[i]] for i in order], outputs=order, enough=enough, only_greatest=True
        )
        kept = {row.output: row for row, _ in found}
        best = max(bound for _, bound in found)
        return LmiItem(rows=tuple(kept[i] for i in range(len(order)))), best

    def solved(
        self,
        selections: Sequence[Float64[Tensor, "_ outputs"]],
        *,
        outputs: Sequence[int] | None = None,
        enough: float = 0.0,
        only_greatest: bool = False,
    ) -> list[tuple[LmiRow, float]]:
        """Multipliers of each selection's inequality, and the bound.

        Args:
            selections: the outputs of each.
            outputs: their numbers, where each is one of an item's; otherwise one is output 0 and
                several are joint.
            enough: a bound that need not be bettered.
            only_greatest: nor need those that are below another one.
        """
        found: dict[int, tuple[LmiRow, float]] = {}
        for chunk in self._chunks(selections):
            left = len(selections) - len(found)
            clock = self.search.clock
            share = clock.remaining if only_greatest else clock.remaining * len(chunk) / left
            rows = torch.stack([selections[i] for i in chunk])
            scaled = self.family.scaled(rows, self.family.support(rows[0]))
            known = self._known()
            if known is not None:
                scaled = self.family.warmed(scaled, known)
            watch = self._watch(scaled, Clock.start(share), enough, only_greatest)
            points = self._points(scaled, rows, watch, is_warm=known is not None)
            for place, i in enumerate(chunk):
                multipliers = self._repaired(scaled[place], points[place], rows[place])
                number = 0 if rows.shape[1] == 1 else None
                number = number if outputs is None else outputs[i]
                found[i] = self._row(multipliers, number)
            if only_greatest:
                enough = max(enough, *(bound for _, bound in found.values()))
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

    def _row(self, found: Multipliers, output: int | None) -> tuple[LmiRow, float]:
        form = self.search.form
        row = LmiRow(
            output=output,
            level=found.level,
            input_multipliers=found.inputs.numpy() if self.family.inputs_in_linf else None,
            multipliers={gate: each.numpy() for gate, each in form.by_gate(found.gates).items()},
        )
        return row, self._bound(found)

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
        while first < beyond:
            # Few need more than a little: of large ones, whose tests are long, the middle is tried.
            place = first if scaled.problem.rows < _LARGE else (first + beyond) // 2
            margin = EXTRA_MARGINS[place]
            strict = repaired(scaled.problem, point, margin)
            found = self.family.certified(scaled, strict, rows, margin=margin)
            if self._is_shown(rows, found):
                shown, beyond = found, place
            else:
                first = place + 1
        return self._grown(scaled, strict, rows) if shown is None else shown

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
