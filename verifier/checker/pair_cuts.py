"""Pair cuts: forms of two gates that are at least 0 wherever both gates are at a vertex.

J(T), the network's increment for psi = T v, is affine in every gate's T, and a norm is convex: so
over -1 <= T_i <= 1 the greatest |J(T) dx| is reached where each T_i is -1 or 1, and an inequality
need only hold there (CERTIFICATE.md, section 5). There each gate has

    alpha = v + psi,   beta = v - psi,   alpha = 0 or beta = 0,                            (1)

and for any numbers p, r the form of gates i and j,

    (p1 alpha_i)^2 + (p2 beta_i)^2 + (r1 alpha_j)^2 + (r2 beta_j)^2
      + 2 [p1 r1 alpha_i alpha_j + p1 r2 alpha_i beta_j + p2 r1 beta_i alpha_j
           - p2 r2 beta_i beta_j],                                                         (2)

is one square by (1). With x = (p1 alpha_i, p2 beta_i), y = (r1 alpha_j, r2 beta_j) and the matrix
H = [[1, 1], [1, -1]], H'H = 2 I, it is |x|^2 + |y|^2 + 2 x'H y, that is

    |x + H y|^2 - |y|^2:   four signed squares.                                            (3)

Multipliers are in p and r: their roots may be of any size and sign.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.carry import Carried
from verifier.checker.definite import NotProved
from verifier.checker.squares import Squares, combined, require_weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Int64

    from verifier.certificate import PairCuts


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """The scalar gates of one node, as rows over xi: alpha and beta of (1) for those with a psi."""

    alpha: Carried
    beta: Carried
    place: Int64[np.ndarray, " gates"]  #: of each gate among the rows; -1 without a psi


def signs_of(
    entering: Carried, coordinates: Int64[np.ndarray, " k"], place: Int64[np.ndarray, " gates"]
) -> Signs:
    """Alpha and beta of gates.

    Args:
        entering: their v, rows over xi.
        coordinates: the place of each one's psi in xi.
        place: of each of the node's gates among the rows; -1 without a psi.
    """
    psi = np.zeros_like(entering.value)
    psi[np.arange(len(coordinates)), coordinates] = 1.0
    ones, unit = np.ones(len(coordinates)), Carried(psi)
    return Signs(
        alpha=combined([(ones, entering), (ones, unit)]),
        beta=combined([(ones, entering), (-ones, unit)]),
        place=place,
    )


def cut_squares(cuts: Sequence[PairCuts], gates: Mapping[str, Signs]) -> list[Squares]:
    """The forms (2) of all cuts.

    Raises:
        NotProved: a node has no scalar gates, an entry no psi, or a weight is out of range.
    """
    return [_squares(each, gates) for each in cuts]


def _squares(cuts: PairCuts, gates: Mapping[str, Signs]) -> Squares:
    count = len(cuts.first_entries)
    if len(cuts.second_entries) != count or cuts.weights.shape != (4 * count,):
        raise NotProved(f"{count} cuts need as many second entries, and four weights each")
    require_weights(cuts.weights, "pair cuts")
    p1, p2, r1, r2 = cuts.weights.reshape((count, 4)).T
    alpha_i, beta_i = _rows(gates, cuts.first, cuts.first_entries)
    alpha_j, beta_j = _rows(gates, cuts.second, cuts.second_entries)
    rows = [
        combined([(p1, alpha_i), (r1, alpha_j), (r2, beta_j)]),
        combined([(p2, beta_i), (r1, alpha_j), (-r2, beta_j)]),
        combined([(r1, alpha_j)]),
        combined([(r2, beta_j)]),
    ]
    return Squares(
        Carried(
            np.concatenate([row.value for row in rows]),
            np.concatenate([row.errors() for row in rows]),
        ),
        np.repeat([1.0, 1.0, -1.0, -1.0], count),
    )


def _rows(
    gates: Mapping[str, Signs], name: str, entries: tuple[int, ...]
) -> tuple[Carried, Carried]:
    known = gates.get(name)
    if known is None:
        raise NotProved(f"{name!r} has no scalar gates, and cuts are of those")
    index = np.array(entries, dtype=np.int64)
    if not np.all((0 <= index) & (index < len(known.place))):
        raise NotProved(f"cuts of {name!r} name gates beyond its {len(known.place)}")
    place = known.place[index]
    if np.any(place < 0):
        raise NotProved(f"cuts of {name!r} name a gate that is linear")
    return _picked(known.alpha, place), _picked(known.beta, place)


def _picked(rows: Carried, place: Int64[np.ndarray, " k"]) -> Carried:
    return Carried(rows.value[place], rows.errors()[place])
