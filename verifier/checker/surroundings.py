"""How far what enters a block moves from a point c of its box: more than its intervals say.

With w one row for each group, and v what enters the group, v in [l, u], e = v - c:

    |e_j| <= r_j,    |w.e| <= along,    |e|_2^2 <= square,    least <= w.v and w.c.         (1)

Rows w.v are carried back to the input, which keeps what entries have in common. If v = A y + b with
y in a box around y_c, |e|_2 <= |A|_2 |y - y_c|_2 + |A y_c + b - c|_2: less than r says where A is
a projection, as in front of normalisation layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from verifier.checker.arithmetic import above, below, enlarged, gamma, norm_up, up
from verifier.checker.block_maps import flat
from verifier.checker.carry import Carried, push, summed
from verifier.checker.enclosures import TINY
from verifier.checker.intervals import Interval, affine_image
from verifier.checker.maps import Adjoint
from verifier.checker.network import Affine, Blocks
from verifier.checker.operator_norms import spectral_norm
from verifier.checker.substitution import WORKING_ENTRIES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float64

    from verifier.checker.substitution import Substitution

    Rows: TypeAlias = Float64[np.ndarray, "groups n"]
    Ends: TypeAlias = tuple[Rows, Rows]
    Column: TypeAlias = Float64[np.ndarray, "groups 1"]

MOST_ENTRIES = 2**20  #: of A; larger ones are not looked at
_NOTHING = 2.0**-900  #: errors that stand where nothing is


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """(1), group by group."""

    reach: Rows  #: r
    square: Column
    towards: Rows  #: w, in the middle of what is known of f(c)
    blur: Column  #: |w - f(c)|_2 at most
    along: Column
    least: Column


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a walk knows where a block stands."""

    makers: Mapping[str, object]  #: of the signals
    walk: Substitution
    has_lines: bool = True  #: whether rows are carried back; without, intervals say it all

    def entering(self, node: Blocks) -> Interval:
        """What is known of what enters."""
        return self.walk.signals[node.source]

    def steps(self, node: Blocks, centre: Rows, reach: Rows, value: Ends) -> Steps:
        """(1) for steps from the centre c, f(c) between the ends of `value`."""
        count = reach.shape[-1]
        w = value[0] / 2 + value[1] / 2
        square = enlarged((reach * reach).sum(axis=-1, keepdims=True), count)
        along = enlarged((np.abs(w) * reach).sum(axis=-1, keepdims=True), count)
        middle = (w * centre).sum(axis=-1, keepdims=True)
        mass = (np.abs(w) * np.abs(centre)).sum(axis=-1, keepdims=True)
        slack = 2 * gamma(count + 2) * mass + count * TINY
        least = np.full_like(middle, -np.inf)
        if self.has_lines:
            square = np.minimum(square, self._square(node, centre))
            least, most = self._ends(node, w)
            moved = above(np.maximum(above(most - middle), above(middle - least)) + slack)
            along = np.minimum(along, np.maximum(moved, 0.0))
            # Points between c and v count, too, and c may be none of the region.
            least = np.minimum(least, below(middle - slack))
        blur = enlarged(above(value[1] - value[0]).sum(axis=-1, keepdims=True), count)
        return Steps(reach=reach, square=square, towards=w, blur=blur, along=along, least=least)

    def _ends(self, node: Blocks, rows: Rows) -> tuple[Column, Column]:
        """Of w.v, by lines, some groups at a time."""
        count = max(1, WORKING_ENTRIES // max(self.walk.sizes.values()))
        ends = np.empty((2, len(rows), 1))
        for begin in range(0, len(rows), count):
            part = slice(begin, begin + count)
            for side, sign in enumerate((-1.0, 1.0)):
                wanted = np.zeros((1, len(rows[part]), node.size))
                wanted[0, np.arange(len(rows[part]))[:, None], node.groups[part]] = (
                    sign * rows[part]
                )
                ends[side, part, 0] = sign * self.walk.greatest_sum({node.source: wanted})[0]
        return ends[0], ends[1]

    def _square(self, node: Blocks, centre: Rows) -> Column:
        """Of |e|_2^2, from the affine node in front; infinite where that says nothing."""
        maker = self.makers.get(node.source)
        found = np.full((len(centre), 1), np.inf)
        if not isinstance(maker, Affine) or len(set(_sources(maker))) != 1:
            return found
        known = self.walk.signals[maker.terms[0].source]
        middle, radius = known.centred()
        if MOST_ENTRIES < node.size * radius.size:
            return found
        unit = Carried(np.eye(node.size))
        matrix = summed([push(Adjoint(term.map), unit) for term in maker.terms])
        point = affine_image(maker, {maker.terms[0].source: Interval(middle, middle)})
        at = flat(node, centre)
        missed = above(np.maximum(point.upper[0] - at, at - point.lower[0]))
        norms: dict[bytes, float] = {}
        for place, group in enumerate(node.groups):
            own = Carried(matrix.value[group], matrix.errors()[group])
            length = _length(own, radius[0], missed[group], norms)
            found[place] = up(length * length)
        return found


def _sources(node: Affine) -> list[str]:
    return [term.source for term in node.terms]


def _length(
    matrix: Carried,
    radius: Float64[np.ndarray, " inputs"],
    missed: Float64[np.ndarray, " n"],
    norms: dict[bytes, float],
) -> float:
    """A number that |A y + e|_2 does not exceed, |y| <= radius and |e| <= missed by entries."""
    error = matrix.errors()
    read = np.any((matrix.value != 0) | (_NOTHING < error), axis=0)
    own = matrix.columns(np.flatnonzero(read))
    key = own.value.tobytes() + own.errors().tobytes()
    if key not in norms:
        norms[key] = spectral_norm(own, None) if np.any(read) else 0.0
    # What columns say that are 0, but for an error.
    aside = enlarged(error[:, ~read] @ radius[~read], int((~read).sum()))
    return up(up(norms[key] * norm_up(radius[read])) + norm_up(above(missed + aside)))
