from __future__ import annotations

import numpy as np
import pytest

from tests.exact import Pair, fractions, growth_below
from tests.tiny_networks import (
    COUPLED,
    COUPLED_CLAIM,
    COUPLED_SLOPE,
    Box,
    Gate,
    Layer,
    TinyNetwork,
    lipschitz_constant,
    pieces,
    tiny_network,
)

GATES: tuple[Gate, ...] = ("abs", "leaky", "maxmin", "relu")
PAIRS: tuple[Pair, ...] = (("linf", "linf"), ("l2", "l2"), ("l1", "l1"), ("linf", "l1"))


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("norms", PAIRS)
def test_constant_is_not_below_any_secant_and_nearly_met(gate: Gate, norms: Pair) -> None:
    rng = np.random.default_rng(1)
    tiny = tiny_network(rng, (2, 4, 4, 2), (gate, gate))
    network, constant = tiny.built(), lipschitz_constant(tiny, norms)
    starts = fractions(rng.integers(-64, 65, (300, 2)) / 16)
    runs = fractions(rng.integers(-8, 9, (300, 2)) / 1024)
    secants = [
        growth_below(network(x + dx) - network(x), dx, norms)
        for x, dx in zip(starts, runs, strict=True)
        if dx.any()
    ]
    assert max(secants) <= constant
    assert 0.5 * constant <= max(secants)


def test_pieces_of_a_line_are_its_breakpoints() -> None:
    """|x| + 2 relu(x - 1) has the slopes -1, 1 and 3, and the last only beyond 1."""
    layer = Layer(np.array([[1.0], [-1.0], [1.0]]), np.array([0.0, 0.0, -1.0]), "relu")
    line = TinyNetwork((layer,), np.array([[1.0, 1.0, 2.0]]))
    assert sorted(float(piece[0, 0]) for piece in pieces(line)) == [-1, 1, 3]
    near = Box(np.array([-2.0]), np.array([1.0]))
    assert sorted(float(piece[0, 0]) for piece in pieces(line, near)) == [-1, 1]


def test_local_constant_grows_to_the_global_one() -> None:
    tiny = tiny_network(np.random.default_rng(2), (2, 5, 1), ("relu",))
    constants = [
        lipschitz_constant(tiny, ("l2", "l2"), Box(np.full(2, -r), np.full(2, r)))
        for r in (0.125, 1.0, 1024.0)
    ]
    assert constants == sorted(constants)
    assert constants[-1] == lipschitz_constant(tiny, ("l2", "l2"))


def test_coupled_multiplier_claims_less_than_a_slope() -> None:
    """The slope exceeds what multipliers that couple neurons claim: they are false."""
    constant = lipschitz_constant(COUPLED, ("l2", "l2"))
    assert COUPLED_CLAIM < COUPLED_SLOPE <= constant
    x, y = fractions([-0.25, 1.0]), fractions([-0.3125, 1.0625])
    network = COUPLED.built()
    assert COUPLED_CLAIM < growth_below(network(x) - network(y), x - y, ("l2", "l2"))
