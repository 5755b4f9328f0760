"""Blocks of sorts: what is accepted is at least 0 for every permutation, in exact arithmetic."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest

from tests.checker.oracles import Matrix, exact, is_psd, product, transposed
from verifier.checker.carry import Carried
from verifier.checker.definite import NotProved
from verifier.checker.sort_blocks import block_squares, contrasts, require_vertices, triangles


def at_vertex(block: np.ndarray, moved: tuple[int, ...]) -> Matrix:
    """[N; H'PH]' Q [N; H'PH] in rationals."""
    basis = contrasts(len(moved))
    vertex = exact(np.concatenate([basis.T @ basis, basis.T @ basis[list(moved)]]))
    return product(product(transposed(vertex), exact(block)), vertex)


def drawn(rng: np.random.Generator, width: int, shift: float) -> np.ndarray:
    order = 2 * (width - 1)
    root = rng.standard_normal((order, order))
    both = np.diag([*[1.0] * (width - 1), *[-1.0] * (width - 1)])
    return (root + root.T) / 8 + both + shift * np.eye(order)


@pytest.mark.parametrize("width", [3, 4])
def test_what_is_accepted_holds_for_every_permutation(width: int) -> None:
    rng = np.random.default_rng(width)
    accepted = 0
    for shift in np.linspace(0, 1.5, 25):
        block = drawn(rng, width, float(shift))
        try:
            require_vertices(block[None], "s")
        except NotProved:
            continue
        accepted += 1
        assert all(is_psd(at_vertex(block, moved)) for moved in permutations(range(width)))
    assert 0 < accepted < 25


def test_one_permutation_is_enough_to_reject() -> None:
    """I less a little more than the form of one vertex is negative at that one."""
    width = 3
    basis = contrasts(width)
    for moved in permutations(range(width)):
        vertex = np.concatenate([basis.T @ basis, basis.T @ basis[list(moved)]])[:, 0]
        unit = vertex / np.linalg.norm(vertex)
        require_vertices((np.eye(4) - 0.999 * np.outer(unit, unit))[None], "s")
        with pytest.raises(NotProved):
            require_vertices((np.eye(4) - 1.001 * np.outer(unit, unit))[None], "s")


def test_the_squares_enclose_the_form() -> None:
    rng = np.random.default_rng(5)
    blocks = np.stack([drawn(rng, 3, 0.3), drawn(rng, 3, 0.7)])
    rows = rng.integers(-20, 21, (2, 4, 5)) / 8
    found = block_squares(blocks, Carried(rows[0]), Carried(rows[1]))
    xi = [Fraction(int(n)) for n in rng.integers(-9, 10, 5)]

    def read(row: np.ndarray) -> Fraction:
        return sum(
            (Fraction(float(c)) * x for c, x in zip(row, xi, strict=True)), start=Fraction(0)
        )

    expected = Fraction(0)
    for group in range(2):
        z = [read(row) for side in rows for row in side[2 * group : 2 * group + 2]]
        block = exact(blocks[group])
        expected += sum(
            (
                a * q * b
                for a, line in zip(z, block, strict=True)
                for q, b in zip(line, z, strict=True)
            ),
            start=Fraction(0),
        )
    total, slack = Fraction(0), Fraction(0)
    for squares in found:
        for value, error, sign in zip(
            squares.rows.value, squares.rows.errors(), squares.sign, strict=True
        ):
            wrong = sum(
                (Fraction(float(e)) * abs(x) for e, x in zip(error, xi, strict=True)),
                start=Fraction(0),
            )
            total += int(sign) * read(value) ** 2
            slack += 2 * abs(read(value)) * wrong + wrong**2
    assert abs(total - expected) <= slack
    assert slack <= Fraction(1, 10**9)


def test_triangles_are_symmetric_blocks() -> None:
    values = np.arange(1.0, 21.0)
    blocks = triangles(values, 2, 3, "s")
    assert np.array_equal(blocks, blocks.transpose((0, 2, 1)))
    assert blocks[1, 3, 1] == 18.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300, 1e-300])
def test_entries_out_of_range_are_rejected(bad: float) -> None:
    values = np.arange(1.0, 21.0)
    values[7] = bad
    with pytest.raises(NotProved):
        triangles(values, 2, 3, "s")


@pytest.mark.parametrize(("groups", "width"), [(1, 3), (3, 3), (2, 4), (2, 7), (2, 2)])
def test_entries_of_other_groups_are_rejected(groups: int, width: int) -> None:
    with pytest.raises(NotProved):
        triangles(np.ones(20), groups, width, "s")
