from __future__ import annotations

import numpy as np
import pytest

from tests.exact import Pair, floats, fractions, growth_below
from tests.oracles import run_model
from tests.tiny_gates import GATES
from tests.tiny_networks import Box, lipschitz_constant, pieces, vertex_constant
from tests.tiny_topologies import (
    COUPLED_CLAIM,
    COUPLED_SLOPE,
    IMAGES,
    VECTORS,
    chain,
    coupled,
    one_layer,
    tiny_network,
)

STRAIGHT = sorted(GATES.keys() - {"smooth"})
PAIRS: tuple[Pair, ...] = (("linf", "linf"), ("l2", "l2"), ("l1", "l1"), ("linf", "l1"))
KINDS = len(VECTORS) + len(IMAGES)


@pytest.mark.parametrize("gate", STRAIGHT)
def test_constant_is_not_below_any_secant_and_nearly_met(gate: str) -> None:
    """A chain whose gate has its kinks near 0, and secants around there."""
    norms = PAIRS[STRAIGHT.index(gate) % len(PAIRS)]
    size = {"groupsort3": 3, "groupsort5": 5}.get(gate, 4)
    tiny = chain(1, (2, size, 2), (gate,))
    rng = np.random.default_rng(1)
    starts = fractions(rng.integers(-64, 65, (300, 2)) / 16)
    runs = fractions(rng.integers(-8, 9, (300, 2)) / 1024)
    secants = [
        growth_below(tiny.network(x + dx) - tiny.network(x), dx, norms)
        for x, dx in zip(starts, runs, strict=True)
        if dx.any()
    ]
    constant = lipschitz_constant(tiny, norms)
    assert max(secants) <= constant <= vertex_constant(tiny, norms)
    assert 0.5 * constant <= max(secants)


@pytest.mark.parametrize("seed", range(2 * KINDS))
def test_model_is_the_function_that_is_enumerated(seed: int) -> None:
    """Of every topology: against ONNX Runtime, and no secant exceeds the choices of sides."""
    tiny = tiny_network(seed)
    rng = np.random.default_rng(seed)
    x, y = (fractions(rng.integers(-16, 17, tiny.network.size) / 8) for _ in range(2))
    expected = run_model(tiny.network.model, floats(x).reshape(tiny.network.shape)).ravel()
    np.testing.assert_allclose(floats(tiny.network(x)), expected, rtol=1e-4, atol=1e-4)
    for norms in PAIRS:
        secant = growth_below(tiny.network(x) - tiny.network(y), x - y, norms)
        assert secant <= vertex_constant(tiny, norms)


def test_pieces_of_a_line_are_its_breakpoints() -> None:
    """|x| + 2 relu(x - 1) has the slopes -1, 1 and 3, and the last only beyond 1."""
    first, bias = np.array([[1.0], [-1.0], [1.0]]), np.array([0.0, 0.0, -1.0])
    line = one_layer("relu", first, bias, np.array([[1.0, 1.0, 2.0]]))
    assert sorted(float(piece[0, 0]) for piece in pieces(line)) == [-1, 1, 3]
    near = Box(np.array([-2.0]), np.array([1.0]))
    assert sorted(float(piece[0, 0]) for piece in pieces(line, near)) == [-1, 1]


def test_local_constant_grows_to_the_global_one() -> None:
    tiny = chain(2, (2, 5, 1), ("relu",))
    constants = [
        lipschitz_constant(tiny, ("l2", "l2"), Box(np.full(2, -r), np.full(2, r)))
        for r in (0.125, 1.0, 1024.0)
    ]
    assert constants == sorted(constants)
    assert constants[-1] == lipschitz_constant(tiny, ("l2", "l2"))


def test_coupled_multiplier_claims_less_than_a_slope() -> None:
    """The slope exceeds what multipliers that couple neurons claim: they are false."""
    tiny = coupled()
    constant = lipschitz_constant(tiny, ("l2", "l2"))
    assert COUPLED_CLAIM < COUPLED_SLOPE <= constant
    x, y = fractions([-0.25, 1.0]), fractions([-0.3125, 1.0625])
    assert COUPLED_CLAIM < growth_below(tiny.network(x) - tiny.network(y), x - y, ("l2", "l2"))
