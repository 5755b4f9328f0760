"""Which inequalities bound an item, and solving them: jointly, or one output after another.

    input l2, output l2       one inequality of all outputs jointly
    one output                one inequality, whatever the output norm
    otherwise                 one for each output: the maximum (linf), the root of the sum of
                              squares (l2) or the sum (l1) of their bounds

An input norm of l1 is treated as l2: |x|_2 <= |x|_1. For a maximum, outputs are taken by the
bound of their start, largest first, and each later one only until it is below the best.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from verifier.certificate import LmiItem, LmiRow
from verifier.methods.lipsdp import interior_point, reference
from verifier.methods.lipsdp.inequality import Point, ones
from verifier.methods.lipsdp.problem import LEAST_LEVEL, Family, Multipliers, Scaled
from verifier.methods.lipsdp.repair import margin_for, repaired
from verifier.norms import Norm, NormPair

if TYPE_CHECKING:
    from jaxtyping import Float64
    from torch import Tensor

    from verifier.methods.clock import Clock
    from verifier.methods.lipsdp.form import Form
    from verifier.methods.lipsdp.options import Options


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Search:
    """What all inequalities of one run share."""

    form: Form
    norm: NormPair
    options: Options
    clock: Clock

    @property
    def inputs_in_linf(self) -> bool:
        """Whether inputs are measured in linf; otherwise in l2, which also bounds l1."""
        return self.norm.input is Norm.LINF

    def family(self) -> Family:
        """The inequalities, with their shared start."""
        return Family(self.form, inputs_in_linf=self.inputs_in_linf)


def item_of(
    search: Search, family: Family, rows: Float64[Tensor, "selected outputs"]
) -> tuple[LmiItem, float]:
    """Inequalities that bound the outputs `rows` y jointly in the output norm, and the bound."""
    if rows.shape[0] == 1 or (not search.inputs_in_linf and search.norm.output is Norm.L2):
        # A single row is named: for inputs in linf the certificate has no joint inequality.
        output = 0 if search.inputs_in_linf else None
        row, bound = _row(search, family, rows, output=output, enough=0.0)
        return LmiItem(rows=(row,)), bound
    starts = [_start_bound(family, rows[[i]]) for i in range(rows.shape[0])]
    order = sorted(range(rows.shape[0]), key=lambda i: -starts[i])
    found: dict[int, tuple[LmiRow, float]] = {}
    best = 0.0
    for output in order:
        enough = best if search.norm.output is Norm.LINF else 0.0
        found[output] = _row(search, family, rows[[output]], output=output, enough=enough)
        best = max(best, found[output][1])
    bounds = [found[output][1] for output in range(rows.shape[0])]
    item = LmiItem(rows=tuple(found[output][0] for output in range(rows.shape[0])))
    return item, _combined(bounds, search.norm.output)


def _combined(bounds: list[float], output: Norm) -> float:
    match output:
        case Norm.LINF:
            return max(bounds)
        case Norm.L2:
            return math.hypot(*bounds)
        case Norm.L1:
            return math.fsum(bounds)


def _start_bound(family: Family, row: Float64[Tensor, "1 outputs"]) -> float:
    scaled = family.scaled(row)
    return family.bound(scaled, scaled.problem.objective(ones(scaled.problem)))


def _row(
    search: Search,
    family: Family,
    rows: Float64[Tensor, "selected outputs"],
    *,
    output: int | None,
    enough: float,
) -> tuple[LmiRow, float]:
    """One inequality's multipliers and the bound; it may stop at a bound of `enough`."""
    scaled = family.scaled(rows)
    point = _solved(search, family, scaled, rows, enough)
    margin = margin_for(search.form.inflow.shape[1] + 1)
    point = repaired(scaled.problem, point, margin)
    found = family.completed(rows, family.multipliers(scaled, point))
    row = LmiRow(
        output=output,
        level=found.level,
        input_multipliers=found.inputs.numpy() if search.inputs_in_linf else None,
        multipliers={
            gate: numbers.numpy() for gate, numbers in search.form.by_gate(found.gates).items()
        },
    )
    return row, _bound_of(found, search.inputs_in_linf)


def _bound_of(found: Multipliers, inputs_in_linf: bool) -> float:
    if inputs_in_linf:
        return (found.level + float(found.inputs.sum())) / 2
    return math.sqrt(found.level)


def _solved(
    search: Search,
    family: Family,
    scaled: Scaled,
    rows: Float64[Tensor, "selected outputs"],
    enough: float,
) -> Point:
    """The solver's point, whatever it is worth; the start where nothing varies."""
    start = ones(scaled.problem)
    if float(scaled.unit.level) <= LEAST_LEVEL:
        return start
    options = search.options
    if options.solver != "interior_point":
        return _by_reference(search, family, scaled, rows, options.solver) or start
    return interior_point.solve(
        scaled.problem,
        gap=options.gap if search.inputs_in_linf else 2 * options.gap,
        iterations=options.iterations,
        stop=lambda value: family.bound(scaled, value) <= enough or search.clock.has_expired,
    ).point


def _by_reference(
    search: Search,
    family: Family,
    scaled: Scaled,
    rows: Float64[Tensor, "selected outputs"],
    solver: Literal["scs", "clarabel"],
) -> Point | None:
    found = reference.solved(search.form, rows, inputs_in_linf=search.inputs_in_linf, solver=solver)
    return None if found is None else family.point(scaled, found)
