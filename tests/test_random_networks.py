from __future__ import annotations

import numpy as np
import pytest

from tests.exact import floats, fractions
from tests.oracles import run_model
from tests.random_networks import IMAGE, VECTOR, random_network

SEEDS = range(60)


@pytest.mark.parametrize("seed", SEEDS)
def test_exact_value_is_what_onnxruntime_computes(seed: int) -> None:
    """The two ways in which every node is written denote one function."""
    network = random_network(np.random.default_rng(seed))
    x = np.random.default_rng(seed).integers(-16, 17, network.size) / 8
    theirs = run_model(network.model, x.reshape(network.shape)).ravel()
    ours = floats(network(fractions(x)))
    assert np.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * (1 + np.abs(theirs).max()))


def test_every_block_occurs() -> None:
    words = {
        word for seed in SEEDS for word in str(random_network(np.random.default_rng(seed))).split()
    }
    assert set(VECTOR) | set(IMAGE) <= words
