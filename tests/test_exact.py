"""The oracles are checked, too: against closed forms, and against ONNX Runtime."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

from tests.exact import SCALAR, STEEP, Pair, Size, fractions, norm_below, sqrt_above, sqrt_below
from tests.oracles import run_node

SIZES: tuple[Size, ...] = ("l1", "l2", "linf")


@pytest.mark.parametrize("op", sorted({*SCALAR, *STEEP} - {"GeluTanh", "Silu"}))
def test_scalar_functions_equal_onnxruntime(op: str) -> None:
    lowest = 1 if op in ("Log", "Sqrt") else -40
    points = np.arange(lowest, 41, dtype=np.float64)[None] / 8
    theirs = run_node(op, points)
    ours = [float({**SCALAR, **STEEP}[op](x)) for x in fractions(points)[0]]
    assert np.allclose(ours, theirs[0], rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("norms", list(itertools.product(SIZES, SIZES)))
def test_norm_of_the_identity_is_that_of_the_inclusion(norms: Pair) -> None:
    """|I|_{p -> q} = n^(1/q - 1/p) where that exceeds 1."""
    power = {"l1": 1.0, "l2": 0.5, "linf": 0.0}
    expected = max(1.0, 4 ** (power[norms[1]] - power[norms[0]]))
    norm = norm_below(fractions(np.eye(4)), norms)
    assert norm <= expected
    assert float(norm) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("norms", list(itertools.product(SIZES, SIZES)))
def test_norm_is_not_below_any_growth(norms: Pair) -> None:
    rng = np.random.default_rng(3)
    matrix = rng.integers(-9, 10, (3, 5)).astype(np.float64)
    order = {"l1": 1, "l2": 2, "linf": np.inf}
    directions = rng.normal(size=(2000, 5))
    growth = np.linalg.norm(directions @ matrix.T, order[norms[1]], axis=1)
    growth /= np.linalg.norm(directions, order[norms[0]], axis=1)
    norm = float(norm_below(fractions(matrix), norms))
    assert growth.max() <= norm * (1 + 1e-12)
    # The norm of the transpose for the dual pair is the same number.
    dual: dict[Size, Size] = {"l1": "linf", "l2": "l2", "linf": "l1"}
    transposed = norm_below(fractions(matrix.T), (dual[norms[1]], dual[norms[0]]))
    assert float(transposed) == pytest.approx(norm, rel=1e-12)


@pytest.mark.parametrize("value", [Fraction(2), Fraction(1, 3), Fraction(9, 4), Fraction(0)])
def test_roots_enclose(value: Fraction) -> None:
    below, above = sqrt_below(value), sqrt_above(value)
    assert below**2 <= value <= above**2
    assert above - below <= Fraction(1, 2**190)
