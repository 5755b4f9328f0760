"""Values of blocks over a region as affine nodes that are known up to an error.

For x in a box around c, with all derivatives in M +- E, entry by entry, f(x) = A x + b in one of
three ways, of which each output takes the one that knows b best:

    A = 0        b in the image of the box,
    A = M        b in f(c) - M c +- E |x - c|, by the mean value theorem,                   (1)
    A = f'(c)    b in f(c) - f'(c) c + the remainder of `second_order`.

Of a normalised root 1/s has a tangent of its own, for derivatives that follow it (`followed`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from verifier.checker.arithmetic import above, below
from verifier.checker.block_maps import derivatives, flat, grouped, offsets, sparse
from verifier.checker.enclosures import lower_of, upper_of
from verifier.checker.intervals import Interval, affine_image
from verifier.checker.network import Affine, Blocks, Term
from verifier.checker.normalise import Normalise
from verifier.checker.second_order import has_remainder, inverse_remainder, remainder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float64

    from verifier.checker.surroundings import Steps, Surroundings

    Rows: TypeAlias = Float64[np.ndarray, "groups n"]
    Squares: TypeAlias = Float64[np.ndarray, "groups n n"]
    Ends: TypeAlias = tuple[Rows, Rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Box:
    """The box of what enters, its middle c, and what is known of f(c) and of steps from c."""

    node: Blocks
    ends: Ends
    centre: Rows
    reach: Rows  #: |x - c|
    value: Ends  #: of f(c)
    around: Surroundings

    @staticmethod
    def of(node: Blocks, around: Surroundings) -> _Box:
        """Raises NotProved where there are several rows, or the blocks are too large."""
        lower, upper = grouped(node, around.entering(node))
        centre = np.clip(Interval(lower, upper).centred()[0], lower, upper)
        return _Box(
            node=node,
            ends=(lower, upper),
            centre=centre,
            reach=above(np.maximum(upper - centre, centre - lower)),
            value=node.function.image(centre, centre),
            around=around,
        )

    def steps(self) -> Steps:
        """Of x - c."""
        # Of shares nothing but the reach is asked.
        has_lines = self.around.has_lines and isinstance(self.node.function, Normalise)
        around = replace(self.around, has_lines=has_lines)
        return around.steps(self.node, self.centre, self.reach, self.value)

    def offsets(
        self, matrix: tuple[Squares, Squares], value: Ends, rest: Ends | None = None
    ) -> Ends:
        """Ends of b, with M and E, the value at c and what is left beside them."""
        least, most = offsets(*matrix, self.centre, self.reach, value)
        return (least, most) if rest is None else (below(least + rest[0]), above(most + rest[1]))

    def affine(self, name: str, matrix: Squares, ends: Ends) -> Affine:
        """The node."""
        bias, error = Interval(*ends).centred()
        return Affine(
            name=name,
            size=self.node.size,
            terms=(Term(self.node.source, sparse(self.node, matrix, None)),),
            bias=flat(self.node, bias),
            bias_error=flat(self.node, error),
        )


def value_node(node: Blocks, around: Surroundings) -> tuple[Affine, Interval]:
    """(1) over one row of bounds, and what is known of the values.

    Raises:
        NotProved: a bound is not finite, there are several rows, or the blocks are too large.
    """
    box = _Box.of(node, around)
    image = node.function.image(*box.ends)
    over = derivatives(node, *box.ends)
    ways = [(np.zeros_like(over[0]), *image), (over[0], *box.offsets(over, box.value))]
    if has_remainder(node.function):
        at = derivatives(node, box.centre, box.centre)
        rest = remainder(node.function, box.ends, box.steps())
        ways.append((at[0], *box.offsets(at, box.value, rest)))
    matrix, *ends = _narrowest(ways)
    known = Interval(flat(node, image[0])[None], flat(node, image[1])[None])
    return box.affine(node.name, matrix, (ends[0], ends[1])), known.required_finite(node.name)


def _narrowest(ways: Sequence[tuple[Squares, Rows, Rows]]) -> tuple[Squares, Rows, Rows]:
    """Of each row the A for which the ends of b are nearest."""
    matrix, low, high = ways[0]
    for other, least, most in ways[1:]:
        nearer = most - least < high - low
        matrix = np.where(nearer[..., None], other, matrix)
        low, high = np.where(nearer, least, low), np.where(nearer, most, high)
    return matrix, low, high


def inverse_node(node: Blocks, name: str, around: Surroundings) -> tuple[Affine, Interval]:
    """1/s of a normalised root, once for every entry, and its bounds.

    Raises:
        NotProved: there are several rows, or the blocks are too large.
    """
    function, box = node.function, _Box.of(node, around)
    assert isinstance(function, Normalise)  # noqa: S101 (whoever calls asks for it)
    at, over = _inverses(function, box.centre, box.centre), _inverses(function, *box.ends)
    # The gradient at c, -z(c)/(d s^2), from the ends of its factors.
    ends = [-z * (rho * rho / function.divisor) for z in box.value for rho in at]
    low, high = lower_of(np.minimum.reduce(ends)), upper_of(np.maximum.reduce(ends))
    middle = low / 2 + high / 2
    spread = above(np.maximum(high - middle, middle - low))
    matrix = (_repeated(middle), _repeated(spread))
    rest = inverse_remainder(function, box.ends, box.steps())
    least, most = box.offsets(matrix, at, rest)
    found = box.affine(name, matrix[0], (least, most))
    known = Interval(flat(node, over[0])[None], flat(node, over[1])[None])
    return found, known.intersected(affine_image(found, around.walk.signals))


def _inverses(function: Normalise, lower: Rows, upper: Rows) -> Ends:
    """Ends of 1/s, entry by entry."""
    shortest, longest = function.lengths(lower, upper)
    with np.errstate(divide="ignore"):
        ends = np.maximum(lower_of(1.0 / longest), 0.0), upper_of(1.0 / shortest)
    return np.broadcast_to(ends[0], lower.shape), np.broadcast_to(ends[1], lower.shape)


def _repeated(row: Rows) -> Squares:
    """The row in the place of every row of a matrix."""
    return np.broadcast_to(row[:, None, :], (*row.shape, row.shape[-1]))
