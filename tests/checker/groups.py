"""Networks with every kind of group, for the tests of the checker."""

from __future__ import annotations

import numpy as np

from tests.checker.oracles import affine, network
from verifier.checker.maps import Dense, identity
from verifier.checker.network import Elementwise, Maximum, Network, Reflection, Sort, Term
from verifier.checker.scalars import relu


def quarters(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Weights that are multiples of 1/4."""
    return rng.integers(-6, 7, shape).astype(np.float64) / 4


def pairs(rng: np.random.Generator) -> Network:
    """Dense, MaxMin, dense."""
    return network(
        [
            affine("a", 6, Term("", Dense(quarters(rng, 6, 3))), bias=quarters(rng, 6)),
            Sort(
                name="s",
                size=6,
                source="a",
                groups=np.array([[3, 0], [1, 4], [5, 2]]),
                places=np.array([[0, 3], [4, 1], [2, 5]]),
            ),
            affine("y", 2, Term("s", Dense(quarters(rng, 2, 6)))),
        ],
        3,
    )


def sorts(rng: np.random.Generator) -> Network:
    """Dense, GroupSort of four, a skip, dense."""
    return network(
        [
            affine("a", 8, Term("", Dense(quarters(rng, 8, 3))), bias=quarters(rng, 8)),
            Sort(
                name="s",
                size=8,
                source="a",
                groups=np.array([[1, 3, 5, 7], [0, 2, 4, 6]]),
                places=np.array([[7, 1, 3, 5], [0, 2, 4, 6]]),
            ),
            affine("t", 8, Term("s", Dense(quarters(rng, 8, 8))), Term("a", identity(8))),
            affine("y", 2, Term("t", Dense(quarters(rng, 2, 8)))),
        ],
        3,
    )


def maxima(rng: np.random.Generator, sign: int = 1) -> Network:
    """Dense, overlapping windows of three, dense."""
    return network(
        [
            affine("a", 5, Term("", Dense(quarters(rng, 5, 3))), bias=quarters(rng, 5)),
            Maximum(
                name="m",
                size=3,
                source="a",
                windows=np.array([[0, 1, 2], [2, 3, 4], [4, 4, 3]]),
                sign=sign,
                overlap=2,
            ),
            affine("y", 2, Term("m", Dense(quarters(rng, 2, 3)))),
        ],
        3,
    )


def minima(rng: np.random.Generator) -> Network:
    """The same with minima."""
    return maxima(rng, -1)


def reflections(rng: np.random.Generator) -> Network:
    """Dense, two reflections whose vectors are not of length 1, dense."""
    return network(
        [
            affine("a", 4, Term("", Dense(quarters(rng, 4, 3))), bias=quarters(rng, 4)),
            Reflection(
                name="r",
                size=4,
                source="a",
                slices=np.array([[0, 2], [3, 1]]),
                vectors=quarters(rng, 2, 2) / 2,
                vector_error=np.zeros((2, 2)),
            ),
            affine("y", 2, Term("r", Dense(quarters(rng, 2, 4)))),
        ],
        3,
    )


def residual(rng: np.random.Generator) -> Network:
    """Two ReLU layers with a skip over the second, and the first input added at the end."""
    return network(
        [
            affine("a", 4, Term("", Dense(quarters(rng, 4, 3))), bias=quarters(rng, 4)),
            Elementwise(name="h", size=4, source="a", function=relu()),
            affine("b", 4, Term("h", Dense(quarters(rng, 4, 4))), Term("a", identity(4))),
            Elementwise(name="k", size=4, source="b", function=relu()),
            affine(
                "y",
                2,
                Term("k", Dense(quarters(rng, 2, 4))),
                Term("", Dense(quarters(rng, 2, 3))),
                bias=quarters(rng, 2),
            ),
        ],
        3,
    )


FAMILIES = {
    "pairs": pairs,
    "sorts": sorts,
    "maxima": maxima,
    "minima": minima,
    "reflections": reflections,
    "residual": residual,
}
