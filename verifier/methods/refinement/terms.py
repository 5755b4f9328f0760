"""A matrix inequality that is linear in its variables, each the factor of a few rank-one terms.

    M(y) = sum_i y_i F_i - C >= 0,    F_i = sum over its squares of sign f f'                   (1)

or, for entries of the blocks of sorting groups, F_i = -kappa sym(u_a u_b'). The factors of squares
are at least 0, and every block Q_g, whose entries are variables, has to hold at its vertices:

    S_gP = K_P' Q_g K_P >= 0    for every permutation P.                                        (2)

With W the rows f and u, everything that Newton's method needs of F_i is an entry of W Z W' for some
symmetric Z: <F_i, Z> is a sum of its entries, and <F_i, X F_j V> a sum of products of entries of
W X W' and W V W' (no F_i is ever formed).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Squares:
    """Variables whose F is a signed sum of squares."""

    rows: Float64[Tensor, "squares xi"]
    sign: Float64[Tensor, " squares"]
    owner: Int64[Tensor, " squares"]  #: counted from 0
    count: int
    runs: tuple[slice, ...]  #: of squares with one sign each, and owners that ascend

    def pooled(self, values: Tensor) -> Tensor:
        """Sums over the squares of each variable."""
        return values.new_zeros(self.count, *values.shape[1:]).index_add_(0, self.owner, values)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Blocks:
    """The blocks of sorting groups of one width: variables are their lower triangles."""

    rows: Float64[Tensor, "groups order xi"]  #: c and d of every group
    vertices: Float64[Tensor, "permutations order steps"]  #: K_P

    @property
    def groups(self) -> int:
        """The number of groups."""
        return self.rows.shape[0]

    @property
    def order(self) -> int:
        """Of each block."""
        return self.rows.shape[1]

    @property
    def triangle(self) -> tuple[Tensor, Tensor]:
        """Rows and columns of the variables of one block."""
        index = torch.tril_indices(self.order, self.order)
        return index[0], index[1]

    @property
    def count(self) -> int:
        """The number of variables."""
        return self.groups * self.order * (self.order + 1) // 2

    def matrices(self, values: Float64[Tensor, " count"]) -> Float64[Tensor, "groups order order"]:
        """Q of every group."""
        row, column = self.triangle
        lower = values.reshape(self.groups, -1)
        found = values.new_zeros(self.groups, self.order, self.order)
        found[:, row, column] = lower
        found[:, column, row] = lower
        return found

    def entries(self, matrices: Float64[Tensor, "groups order order"]) -> Float64[Tensor, " count"]:
        """The adjoint of `matrices` for symmetric ones: entries off the diagonal count twice."""
        row, column = self.triangle
        return (matrices[:, row, column] * _kappa(row, column)).flatten()

    def at_vertices(
        self, matrices: Float64[Tensor, "groups order order"]
    ) -> Float64[Tensor, "groups permutations steps steps"]:
        """S of (2)."""
        vertices = self.vertices
        return torch.einsum("pai,gab,pbj->gpij", vertices, matrices, vertices)

    def gathered(
        self, forms: Float64[Tensor, "groups permutations steps steps"]
    ) -> Float64[Tensor, "groups permutations order order"]:
        """K_P Z K_P' of every group and permutation."""
        return torch.einsum("pai,gpij,pbj->gpab", self.vertices, forms, self.vertices)

    def paired(
        self,
        one: Float64[Tensor, "groups permutations order order"],
        other: Float64[Tensor, "groups permutations order order"],
    ) -> Float64[Tensor, "groups entries entries"]:
        """Sums over permutations of what `_paired` gives for each."""
        flat = torch.bmm(one.flatten(2).mT, other.flatten(2))
        whole = flat.unflatten(2, (self.order, self.order)).unflatten(1, (self.order, self.order))
        row, column = self.triangle
        a, b, c, d = row[:, None], column[:, None], row, column
        total = whole[:, a, c, b, d] + whole[:, a, d, b, c]
        total = total + whole[:, b, c, a, d] + whole[:, b, d, a, c]
        kappa = _kappa(row, column)
        return total * (kappa[:, None] * kappa / 4)


def _kappa(row: Int64[Tensor, " n"], column: Int64[Tensor, " n"]) -> Float64[Tensor, " n"]:
    return torch.where(row == column, 1.0, 2.0).to(torch.float64)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Problem:
    """Minimise goal.y subject to (1), (2) and 0 <= y for squares, which come first in y."""

    goal: Float64[Tensor, " squares"]
    squares: Squares
    blocks: tuple[Blocks, ...]
    constant: Float64[Tensor, "xi xi"]  #: C

    @property
    def variables(self) -> int:
        """How many there are."""
        return self.squares.count + sum(block.count for block in self.blocks)

    def parts(self, values: Float64[Tensor, " variables"]) -> list[Float64[Tensor, " n"]]:
        """The variables of the squares, and those of each width of blocks."""
        sizes = [self.squares.count, *(block.count for block in self.blocks)]
        return list(values.split(sizes))

    def linear(self, values: Float64[Tensor, " variables"]) -> Float64[Tensor, "xi xi"]:
        """M + C."""
        own, *others = self.parts(values)
        squares = self.squares
        weight = squares.sign * own[squares.owner]
        total = squares.rows.T @ (squares.rows * weight[:, None])
        for block, part in zip(self.blocks, others, strict=True):
            flat = block.rows.flatten(0, 1)
            total = total - flat.T @ (block.matrices(part) @ block.rows).flatten(0, 1)
        return (total + total.T) / 2

    def slack(self, values: Float64[Tensor, " variables"]) -> Float64[Tensor, "xi xi"]:
        """M."""
        return self.linear(values) - self.constant

    def vertex_slacks(self, values: Float64[Tensor, " variables"]) -> list[Tensor]:
        """S of every width of blocks."""
        _, *others = self.parts(values)
        return [b.at_vertices(b.matrices(p)) for b, p in zip(self.blocks, others, strict=True)]

    def adjoint(
        self, matrix: Float64[Tensor, "xi xi"], forms: list[Tensor]
    ) -> Float64[Tensor, " variables"]:
        """<F_i, Z>, and for blocks what the vertices' Z add."""
        squares = self.squares
        through = (squares.rows * (squares.rows @ matrix)).sum(dim=1)
        found = [squares.pooled(squares.sign * through)]
        for block, form in zip(self.blocks, forms, strict=True):
            inside = torch.einsum("gai,ij,gbj->gab", block.rows, matrix, block.rows)
            found.append(block.entries(block.gathered(form).sum(dim=1) - inside))
        return torch.cat(found)

    def hessian(
        self,
        dual: Float64[Tensor, "xi xi"],
        inverse: Float64[Tensor, "xi xi"],
        dual_forms: list[Tensor],
        inverse_forms: list[Tensor],
    ) -> Float64[Tensor, "variables variables"]:
        """<F_i, X F_j V> of all blocks of the inequality."""
        squares = self.squares
        found = torch.zeros(self.variables, self.variables, dtype=dual.dtype)
        self._add_squares(found, dual, inverse)
        if self.blocks:
            rows = torch.cat([squares.rows, *(block.rows.flatten(0, 1) for block in self.blocks)])
            one, other = rows @ dual @ rows.T, rows @ inverse @ rows.T
            count = len(squares.rows)
            row, column, kappa = self._places()
            cross = one[:count, row] * other[:count, column]
            cross = cross + one[:count, column] * other[:count, row]
            edge = squares.pooled(cross * squares.sign[:, None]) * (-kappa / 2)
            found[: squares.count, squares.count :] = edge
            found[squares.count :, : squares.count] = edge.T
            found[squares.count :, squares.count :] = _paired(one, other, row, column, kappa)
        first = squares.count
        for block, dual_form, inverse_form in zip(
            self.blocks, dual_forms, inverse_forms, strict=True
        ):
            inside = block.paired(block.gathered(dual_form), block.gathered(inverse_form))
            size = inside.shape[-1]
            for own in inside:
                found[first : first + size, first : first + size] += own
                first += size
        return (found + found.T) / 2

    def _add_squares(
        self,
        found: Float64[Tensor, "variables variables"],
        dual: Float64[Tensor, "xi xi"],
        inverse: Float64[Tensor, "xi xi"],
    ) -> None:
        """Sums of (f'X f*)(f'V f*) over squares, run by run: each pair of runs once."""
        squares = self.squares
        for place, one in enumerate(squares.runs):
            left, right = squares.rows[one] @ dual, squares.rows[one] @ inverse
            for other in squares.runs[place:]:
                rows = squares.rows[other]
                terms = (left @ rows.T).mul_(right @ rows.T)
                if float(squares.sign[one.start] * squares.sign[other.start]) < 0:
                    terms.neg_()
                _add_pooled(found, terms, squares.owner[one], squares.owner[other])
                if other is not one:
                    _add_pooled(found, terms.T, squares.owner[other], squares.owner[one])

    def _places(self) -> tuple[Tensor, Tensor, Tensor]:
        """For all variables of blocks: the two rows of W, and kappa."""
        first = len(self.squares.rows)
        rows, columns, kappas = list[Tensor](), list[Tensor](), list[Tensor]()
        for block in self.blocks:
            row, column = block.triangle
            starts = first + block.order * torch.arange(block.groups)[:, None]
            rows.append((starts + row).flatten())
            columns.append((starts + column).flatten())
            kappas.append(_kappa(row, column).repeat(block.groups))
            first += block.groups * block.order
        return torch.cat(rows), torch.cat(columns), torch.cat(kappas)


def _add_pooled(
    found: Float64[Tensor, "variables variables"],
    terms: Float64[Tensor, "one other"],
    one: Int64[Tensor, " one"],
    other: Int64[Tensor, " other"],
) -> None:
    """Adds entries to those of their owners; owners ascend, and mostly without gaps."""
    first, size = int(one[0]), int(one[-1] - one[0]) + 1
    if size != len(one):
        terms = terms.new_zeros(size, len(other)).index_add_(0, one - first, terms)
    start, width = int(other[0]), int(other[-1] - other[0]) + 1
    if width != len(other):
        terms = terms.new_zeros(size, width).index_add_(1, other - start, terms)
    found[first : first + size, start : start + width] += terms


def _paired(one: Tensor, other: Tensor, row: Tensor, column: Tensor, kappa: Tensor) -> Tensor:
    """<F_i, X F_j V> of F_i = kappa sym(u_a u_b'), from all u'X u and u'V u."""

    def entries(matrix: Tensor, left: Tensor, right: Tensor) -> Tensor:
        return matrix[..., left[:, None], right]

    total = (
        entries(one, row, row) * entries(other, column, column)
        + entries(one, row, column) * entries(other, column, row)
        + entries(one, column, row) * entries(other, row, column)
        + entries(one, column, column) * entries(other, row, row)
    )
    return total * (kappa[:, None] * kappa / 4)
