"""Full-block multipliers of sorting groups: forms that are at least 0 for every permutation.

Sorting n numbers moves an increment v to phi = B v, B the mean of permutations along the segment,
so a hull of permutations; as for pair cuts (`verifier.checker.pair_cuts`) an inequality need only
hold where B is a permutation P. With the contrasts h_1, .., h_k, k = n-1, of
`verifier.checker.constraints` as columns of H, N = H'H = diag(j(j+1)), and

    c = H'v,   d = H'phi = N psi,   P v - mean = P H N^-1 c   =>   d = H'P H z,  c = N z,    (1)

a symmetric Q of order 2k gives a form (c, d)'Q(c, d) that is at least 0 for all P exactly if

    0 <= [N; H'PH]' Q [N; H'PH]   for all n! permutations P.                                (2)

N and H'PH are integers, hence exact: (2) costs n! factorisations of order k.
"""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import LEAST, enlarged, gamma, root_up, squares_up
from verifier.checker.carry import Carried
from verifier.checker.definite import NotProved, proves_psd
from verifier.checker.squares import Squares, combined

if TYPE_CHECKING:
    from jaxtyping import Float64

WIDEST = 6  #: n! factorisations are too many beyond
#: Entries other than 0 lie in 2^-300 .. 2^300.
_EXPONENT = 300


def contrasts(width: int) -> Float64[np.ndarray, "n k"]:
    """H: columns (1, .., 1, -j, 0, .., 0) with j ones, j = 1 .. n-1."""
    columns = np.zeros((width, width - 1))
    for j in range(1, width):
        columns[:j, j - 1], columns[j, j - 1] = 1.0, -float(j)
    return columns


def triangles(
    values: Float64[np.ndarray, " n"], groups: int, width: int, name: str
) -> Float64[np.ndarray, "groups order order"]:
    """Q of every group, from lower triangles row by row.

    Raises:
        NotProved: the groups are too wide, or a number is missing or out of range.
    """
    if not 3 <= width <= WIDEST:
        raise NotProved(f"{name!r} sorts {width}, and blocks are for 3 to {WIDEST}")
    order = 2 * (width - 1)
    rows, columns = np.tril_indices(order)
    if values.shape != (groups * len(rows),):
        raise NotProved(f"{name!r} needs {groups * len(rows)} entries of its blocks")
    size, limit = np.abs(values), 2.0**_EXPONENT
    if not np.all((size == 0) | ((1 / limit <= size) & (size <= limit))):
        raise NotProved(f"blocks of {name!r}: each entry has to be 0 or in 2^-300 .. 2^300")
    blocks = np.zeros((groups, order, order))
    lower = values.reshape((groups, len(rows)))
    blocks[:, rows, columns] = lower
    blocks[:, columns, rows] = lower
    return blocks


def require_vertices(blocks: Float64[np.ndarray, "groups order order"], name: str) -> None:
    """Equation (2) for every group whose block is not 0.

    Raises:
        NotProved: it is not shown.
    """
    order = blocks.shape[1]
    blocks = blocks[np.any(blocks != 0, axis=(1, 2))]
    width = order // 2 + 1
    basis = contrasts(width)
    lengths = np.diag(np.diag(basis.T @ basis))
    for moved in permutations(range(width)):
        vertex = np.concatenate([lengths, basis.T @ basis[list(moved)]])
        size = np.abs(vertex)
        forms = vertex.T @ blocks @ vertex
        forms = (forms + forms.transpose((0, 2, 1))) / 2
        # Two products of at most `order` terms each, and the mean of the two triangles.
        spread = enlarged(gamma(2 * order + 8) * (size.T @ np.abs(blocks) @ size), 4 * order)
        for form, error in zip(forms, spread, strict=True):
            if not proves_psd(form, lambda scale, error=error: _norm(error, scale)):
                raise NotProved(f"a block of {name!r} is not shown to hold for every permutation")


def _norm(error: Float64[np.ndarray, "k k"], scale: Float64[np.ndarray, " k"]) -> float:
    """A number that |S E S|_2 does not exceed for |E| <= error."""
    scaled = error * scale[:, None] * scale[None, :]
    return root_up(squares_up(scaled)) * (1 + 1e-9) + LEAST * scaled.size


def block_squares(
    blocks: Float64[np.ndarray, "groups order order"],
    entering: Carried,
    leaving: Carried,
) -> list[Squares]:
    """The forms (c, d)'Q(c, d) of all groups as signed squares.

    2 q x y = (|q|/2) sign(q) [(x + y)^2 - (x - y)^2],   q x^2 = sign(q) (sqrt(|q|) x)^2.

    Args:
        blocks: Q of every group.
        entering: c, rows over xi, group after group.
        leaving: d, likewise.
    """
    order = blocks.shape[1]
    found: list[Squares] = []
    for row in range(order):
        one = _coordinate(entering, leaving, row, order // 2)
        own = blocks[:, row, row]
        found.append(Squares(combined([(np.sqrt(np.abs(own)), one)]), np.sign(own)))
        for column in range(row):
            entry = blocks[:, row, column]
            other = _coordinate(entering, leaving, column, order // 2)
            root = np.sqrt(np.abs(entry) / 2)
            sign = np.sign(entry)
            found.append(Squares(combined([(root, one), (root, other)]), sign))
            found.append(Squares(combined([(root, one), (-root, other)]), -sign))
    return found


def _coordinate(entering: Carried, leaving: Carried, place: int, steps: int) -> Carried:
    """Entry `place` of (c, d), one row for each group."""
    rows = entering if place < steps else leaving
    index = slice(place % steps, None, steps)
    return Carried(rows.value[index], rows.errors()[index])
