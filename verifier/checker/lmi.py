"""Proof kinds `lmi` and `gate-lmi`: one linear matrix inequality for each row of an item.

With xi = (dx, psi) and the constraints of `verifier.checker.constraints`, for lambda >= 0,

    l2 inputs:    0 <= blkdiag(rho I, Lambda) - Y'Y - sum_g lambda_g (C_g V_g)'(C_g V_g)
                  implies  |Y xi|_2^2 <= rho |dx|_2^2;                                      (1)
    linf inputs:  0 <= [[s, -c'Y], [., blkdiag(diag tau, Lambda) - sum_g lambda_g ...]]
                  implies  |c'Y xi| <= (s + sum tau)/2  for |dx|_inf <= 1,                  (2)
                  and with s I and Y in the place of s and c'Y the same of |Y xi|_2.

Proof: the quadratic form at xi, at (u, xi) for (2), |u|_2 = 1, and the constraints. A row may be of
steps in each input alone, or count the signs of the outputs among the gates: `columns`, `signs`.

Forms that are at least 0 at the vertices of the gates, pair cuts and blocks of sorts, are
subtracted like the constraints; all are signed squares of rows, so that the float64 matrix is
D - R' diag(sign) R, R the rows sqrt(lambda) C V, in (1) Y, and those of the forms.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from verifier.checker.arithmetic import (
    UNIT,
    Magnitude,
    enlarged,
    greatest,
    least,
    root_of_squares,
    root_up,
    sum_up,
    total,
)
from verifier.checker.carry import Carried, push
from verifier.checker.columns import column_levels
from verifier.checker.constraints import Constraint, Increments, increments
from verifier.checker.definite import NotProved
from verifier.checker.network import Elementwise
from verifier.checker.operator_norms import norm_factor
from verifier.checker.pair_cuts import Signs, cut_squares, signs_of
from verifier.checker.semidefinite import Inequality, holds, require_psd
from verifier.checker.signs import SIGNS, with_signs
from verifier.checker.sort_blocks import block_squares, require_vertices, triangles
from verifier.checker.squares import Squares
from verifier.norms import Norm, NormPair

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jaxtyping import Float64

    from verifier.certificate import LmiItem, LmiRow
    from verifier.checker.carry import Sparse
    from verifier.checker.constraints import Slopes
    from verifier.checker.items import Selection
    from verifier.checker.lowering import Lowered

#: One number for all steps, or the square of one for steps in each input.
_Bound: TypeAlias = "Magnitude | Float64[np.ndarray, ' inputs']"
#: The row's output, whether it counts signs, and its bound.
_Proved: TypeAlias = tuple[int | None, bool, Magnitude]

#: Multipliers other than 0 lie in 2^-300 .. 2^300, so that no scaling over- or underflows.
MULTIPLIER_EXPONENT = 300


def global_slopes(lowered: Lowered) -> dict[str, Slopes]:
    """The slopes that hold everywhere.

    Raises:
        NotLipschitzGlobally: a node has none.
    """
    return {
        node.name: node.function.slope_range(node.size)
        for node in lowered.network.nodes
        if isinstance(node, Elementwise)
    }


def prove_lmi(
    items: Sequence[LmiItem],
    lowered: Lowered,
    slopes: Mapping[str, Slopes],
    pair: NormPair,
    selected: Selection,
) -> tuple[Magnitude, ...]:
    """The bounds that the rows prove, one for each item of the claim.

    Raises:
        NotProved: a matrix is not shown to be positive semidefinite, multipliers are missing,
            negative or out of range, or the rows do not cover an item.
    """
    if len(items) != len(selected.items):
        raise NotProved(f"{len(items)} items for {len(selected.items)} of the claim")
    systems = _Systems(increments(lowered, selected.inputs, slopes))
    return tuple(
        _item_bound(systems, claimed.rows, item.rows, pair)
        for claimed, item in zip(items, selected.items, strict=True)
    )


def prove_row(found: Increments, row: LmiRow, outputs: Sparse, measured: Norm) -> Magnitude:
    """The bound that one row proves, per unit of |dx| in a plain input norm.

    Args:
        found: the increments and constraints.
        row: of one output; of all of them in l2, or in l1 if it counts signs.
        outputs: the item's.
        measured: the norm of dx.

    Raises:
        NotProved: the inequality is not shown to hold.
    """
    bound = _Systems(found).proved(row, outputs, measured)
    return bound if isinstance(bound, Magnitude) else greatest([_root(level) for level in bound])


def _item_bound(
    systems: _Systems, rows: Sequence[LmiRow], outputs: Sparse, pair: NormPair
) -> Magnitude:
    """The best that the rows of one item prove together: for l1 inputs, input by input."""
    count = len(outputs.index)
    whole: list[_Proved] = []
    levels: dict[tuple[int | None, bool], Float64[np.ndarray, " inputs"]] = {}
    for row in rows:
        kind = (row.output, row.output_multipliers is not None)
        found = systems.proved(row, outputs, pair.input)
        if isinstance(found, Magnitude):
            whole.append((*kind, found))
        else:
            # Each input takes its least level.
            levels[kind] = np.minimum(found, levels.get(kind, found))
    if not levels:
        return _together(whole, count, pair.output)
    return greatest(
        [
            _together(
                [*whole, *((*kind, _root(each[place])) for kind, each in levels.items())],
                count,
                pair.output,
            )
            for place in range(systems.inputs)
        ]
    )


def _root(level: np.floating) -> Magnitude:
    return Magnitude.of(root_up(float(level)))


def _together(proved: Sequence[_Proved], count: int, output: Norm) -> Magnitude:
    """The best that rows prove together for outputs measured in one norm.

    A row for all outputs bounds the l2 norm, and with it each output; one with signs the l1 norm,
    which the others do not exceed. Outputs each bounded by b_i give the greatest b_i in linf, the
    root of their squares in l2, their sum in l1.
    """
    signed = [bound for _, is_signed, bound in proved if is_signed]
    joint = [bound for place, _, bound in proved if place is None]
    each = [[bound for place, _, bound in proved if place == i] + joint for i in range(count)]
    if not all(each):
        raise NotProved(f"the rows bound {sum(map(bool, each))} of {count} outputs")
    factor = Magnitude.of(norm_factor(NormPair(Norm.L2, output), count))
    apart = COMBINED[output]([least(*bounds) for bounds in each])
    return least(apart, *signed, *(bound * factor for bound in joint))


#: The norm of outputs from bounds of each.
COMBINED: Mapping[Norm, Callable[[Sequence[Magnitude]], Magnitude]] = {
    Norm.LINF: greatest,
    Norm.L2: root_of_squares,
    Norm.L1: total,
}


class _Systems:
    """The constraints of a network, and those with signs of some outputs."""

    def __init__(self, found: Increments) -> None:
        self._found = found
        self._whole = _System(found)

    @property
    def inputs(self) -> int:
        """How many inputs vary."""
        return self._found.inputs

    def proved(self, row: LmiRow, outputs: Sparse, measured: Norm) -> _Bound:
        """What one row of an item proves."""
        if row.output_multipliers is None:
            return self._whole.proved(row, push(outputs, self._whole.output).transposed(), measured)
        if row.output is not None or SIGNS in row.multipliers:
            raise NotProved("a row with signs is of all outputs, and names the signs once")
        signed = _System(with_signs(self._found, push(outputs, self._found.output)))
        multipliers = {**row.multipliers, SIGNS: row.output_multipliers}
        only = replace(row, output=0, multipliers=multipliers)
        return signed.proved(only, signed.output.transposed(), measured)


class _System:
    """The constraints of a network, stacked once for all rows."""

    def __init__(self, found: Increments) -> None:
        self._found = found
        self.output = _padded(found.output, found.size)
        self._entering = {
            c.name: _padded(c.entering, found.size).transposed() for c in found.constraints
        }
        entering = self._entering.values()
        shape = (0, found.size)
        self._value = np.concatenate([np.zeros(shape), *(e.value for e in entering)])
        self._error = np.concatenate([np.zeros(shape), *(e.errors() for e in entering)])

    def proved(self, row: LmiRow, leaving: Carried, measured: Norm) -> _Bound:
        """The bound that one row proves, per unit of |dx| in the claim's input norm.

        A row with `input_multipliers` speaks of |dx|_inf, which no other norm is below; one
        without of |dx|_2, which sqrt(n) |dx|_inf is not below, and for l1 inputs of steps in
        each of them: then its square, input by input.
        """
        if row.output is not None and row.output >= leaving.rows:
            raise NotProved(f"output {row.output} of an item that has {leaving.rows}")
        require_multipliers(np.array([row.level]), "level")
        diagonal, root = self._weights(row.multipliers)
        spread = root[:, None] * self._error
        rows = root[:, None] * self._value
        # sqrt, its argument and the product round: 6u covers them.
        error = enlarged(spread + (6 * UNIT) * np.abs(rows), 4)
        squares = [Squares(Carried(rows, error), np.ones(len(rows))), *self._blocks(row)]
        if row.input_multipliers is not None:
            return self._linf(row, row.input_multipliers, leaving, diagonal, squares)
        index = slice(None) if row.output is None else slice(row.output, row.output + 1)
        outputs = Carried(leaving.value[index], leaving.errors()[index])
        squares += [
            Squares(outputs, np.ones(outputs.rows)),
            *cut_squares(row.cuts, self._signs(row)),
        ]
        stacked = Squares.stacked(squares, len(diagonal))
        if measured is Norm.L1:
            return self._columns(stacked, diagonal)
        diagonal[: self._found.inputs] = row.level
        require_psd(Inequality(diagonal=diagonal, squares=stacked), "rho")
        factor = norm_factor(NormPair(measured, Norm.L2), self._found.inputs)
        return Magnitude.of(root_up(row.level)) * Magnitude.of(factor)

    def _columns(
        self, squares: Squares, diagonal: Float64[np.ndarray, " xi"]
    ) -> Float64[np.ndarray, " inputs"]:
        """The squares of what a row for l2 inputs proves of steps in each input."""
        inputs = self._found.inputs
        rows = squares.rows
        inner = Squares(Carried(rows.value[:, inputs:], rows.errors()[:, inputs:]), squares.sign)

        def psis_hold(weights: Float64[np.ndarray, " psis"]) -> bool:
            return not len(weights) or holds(Inequality(diagonal=weights, squares=inner))

        return column_levels(squares, diagonal[inputs:], inputs, psis_hold)

    def _linf(
        self,
        row: LmiRow,
        tau: Float64[np.ndarray, " inputs"],
        leaving: Carried,
        diagonal: Float64[np.ndarray, " xi"],
        squares: Sequence[Squares],
    ) -> Magnitude:
        inputs = self._found.inputs
        if tau.shape != (inputs,):
            raise NotProved(f"{tau.shape} input multipliers for {inputs} inputs")
        require_multipliers(tau, "input multipliers")
        diagonal[:inputs] = tau
        if row.output is None:
            self._require_joint(row, leaving, diagonal, squares)
            return (Magnitude.of(row.level) + Magnitude.of(sum_up(tau))).shifted(-1)
        signs = self._signs_with_inputs(row, len(diagonal) + 1) if row.cuts else {}
        bordered = [Squares(_bordered(each.rows), each.sign) for each in squares]
        inequality = Inequality(
            diagonal=np.concatenate([[row.level], diagonal]),
            squares=Squares.stacked([*bordered, *cut_squares(row.cuts, signs)], len(diagonal) + 1),
            border=Carried(-leaving.value[row.output], leaving.errors()[row.output]),
        )
        require_psd(inequality, "s")
        return (Magnitude.of(row.level) + Magnitude.of(sum_up(tau))).shifted(-1)

    def _require_joint(
        self,
        row: LmiRow,
        leaving: Carried,
        diagonal: Float64[np.ndarray, " xi"],
        squares: Sequence[Squares],
    ) -> None:
        """Equation (2) for all outputs at once, by the Schur complement of s I."""
        if row.level == 0:
            raise NotProved("a row of all outputs for linf inputs needs a level above 0")
        root = math.sqrt(row.level)
        value = leaving.value / root
        # The root and the quotient round.
        error = enlarged(leaving.errors() / root + (4 * UNIT) * np.abs(value), 4)
        outputs = Squares(Carried(value, error), np.ones(len(value)))
        every = [*squares, outputs, *cut_squares(row.cuts, self._signs(row))]
        inequality = Inequality(diagonal=diagonal, squares=Squares.stacked(every, len(diagonal)))
        require_psd(inequality, "s")

    def _signs(self, row: LmiRow) -> dict[str, Signs]:
        """The scalar gates that the row's cuts name."""
        named = {name for cuts in row.cuts for name in (cuts.first, cuts.second)}
        signs: dict[str, Signs] = {}
        for constraint in self._found.constraints:
            is_scalar = constraint.psis == 1 and constraint.has_vertices
            if constraint.name in named and is_scalar:
                place = np.full(constraint.gates, -1)
                place[constraint.owner] = np.arange(len(constraint.owner))
                entering = self._entering[constraint.name]
                signs[constraint.name] = signs_of(entering, constraint.coordinates, place)
        return signs

    def _signs_with_inputs(self, row: LmiRow, size: int) -> dict[str, Signs]:
        """In (2) the increment is (1, xi), and the 1 is to dx_k what v is to psi."""
        inputs = self._found.inputs
        one = np.zeros((inputs, size))
        one[:, 0] = 1.0
        signs = {name: _bordered_signs(each) for name, each in self._signs(row).items()}
        return signs | {"": signs_of(Carried(one), 1 + np.arange(inputs), np.arange(inputs))}

    def _blocks(self, row: LmiRow) -> list[Squares]:
        """The forms of the row's sorting groups, each shown to be one."""
        sorts = {c.name: c for c in self._found.constraints if 1 < c.psis}
        if unknown := sorted(set(row.sort_blocks) - set(sorts)):
            raise NotProved(f"blocks for {unknown}, which are no sorts of three and more")
        found: list[Squares] = []
        for name, values in row.sort_blocks.items():
            constraint = sorts[name]
            blocks = triangles(values, constraint.gates, constraint.psis + 1, name)
            require_vertices(blocks, name)
            leaving = _leaving(constraint, self._found.size)
            found += block_squares(blocks, self._entering[name], leaving)
        return found

    def _weights(
        self, multipliers: Mapping[str, Float64[np.ndarray, " gates"]]
    ) -> tuple[Float64[np.ndarray, " xi"], Float64[np.ndarray, " rows"]]:
        """(the diagonal Lambda over xi, sqrt(lambda) of every stacked row)."""
        known = {constraint.name for constraint in self._found.constraints}
        if unknown := sorted(set(multipliers) - known):
            raise NotProved(f"multipliers for {unknown}, which are no gates of the network")
        diagonal = np.zeros(self._found.size)
        roots = [np.zeros(0)]
        for constraint in self._found.constraints:
            values = multipliers.get(constraint.name)
            if values is None or values.shape != (constraint.gates,):
                raise NotProved(f"node {constraint.name!r} needs {constraint.gates} multipliers")
            require_multipliers(values, constraint.name)
            own = values[constraint.owner]
            diagonal[constraint.coordinates] = own * constraint.weight
            roots.append(np.sqrt(own * constraint.share))
        return diagonal, np.concatenate(roots)


def require_multipliers(values: Float64[np.ndarray, "*shape"], name: str) -> None:
    """Each is 0 or within 2^-300 .. 2^300; nan and negative numbers are neither.

    Raises:
        NotProved: one is not.
    """
    limit = 2.0**MULTIPLIER_EXPONENT
    if not np.all((values == 0) | ((1 / limit <= values) & (values <= limit))):
        raise NotProved(f"multipliers of {name!r}: each has to be 0 or in 2^-300 .. 2^300")


def _padded(rows: Carried, height: int) -> Carried:
    """The increment over all of xi: later entries do not enter it."""
    if rows.rows == height:
        return rows
    value, error = np.zeros((2, height, rows.value.shape[1]))
    value[: rows.rows], error[: rows.rows] = rows.value, rows.errors()
    return type(rows)(value, error)


def _leaving(constraint: Constraint, size: int) -> Carried:
    """The contrasts of what leaves a sort: k(k+1) psi_k, exact."""
    value = np.zeros((len(constraint.coordinates), size))
    value[np.arange(len(value)), constraint.coordinates] = constraint.weight
    return Carried(value)


def _bordered(rows: Carried) -> Carried:
    """Rows over (1, xi) that do not read the 1."""
    edge = np.zeros((rows.rows, 1))
    return Carried(
        np.concatenate([edge, rows.value], axis=1), np.concatenate([edge, rows.errors()], axis=1)
    )


def _bordered_signs(signs: Signs) -> Signs:
    return Signs(alpha=_bordered(signs.alpha), beta=_bordered(signs.beta), place=signs.place)
