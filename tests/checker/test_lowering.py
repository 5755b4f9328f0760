from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from tests.checker.groups import FAMILIES, maxima, pairs, reflections, sorts
from tests.checker.oracles import evaluate, rationals
from verifier.checker.lowering import lowered, lowered_maximum
from verifier.checker.network import Affine, Elementwise, Sort


@pytest.mark.parametrize("sorting", ["keep", "compare"])
@pytest.mark.parametrize("family", FAMILIES)
def test_lowering_changes_no_value(family: str, sorting: Literal["keep", "compare"]) -> None:
    rng = np.random.default_rng(1)
    whole = FAMILIES[family](rng)
    small = lowered(whole, sorting).network
    kinds = (Affine, Elementwise, Sort) if sorting == "keep" else (Affine, Elementwise)
    assert all(isinstance(node, kinds) for node in small.nodes)
    for _ in range(25):
        x = rationals(rng, 3)
        assert evaluate(small, x)["y"] == evaluate(whole, x)["y"]


def test_a_pair_has_one_gate_named_after_its_tensor() -> None:
    small = lowered(pairs(np.random.default_rng(0)), "compare")
    (gate,) = small.gates
    assert small.gates[gate] == "s"
    assert small.network.tensors[gate] == 3


def test_gates_of_pairs_stand_in_the_order_of_their_least_index() -> None:
    """Groups (3,0), (1,4), (5,2) are 0-3, 1-4, 2-5, and d = x_i - x_j with i < j."""
    small = lowered(pairs(np.random.default_rng(0)), "compare")
    (gate,) = small.gates
    signals = evaluate(small.network, rationals(np.random.default_rng(2), 3))
    a = signals["a"]
    assert signals[gate] == [abs(a[0] - a[3]), abs(a[1] - a[4]), abs(a[2] - a[5])]


def test_a_sort_of_four_has_the_gates_of_four_rounds() -> None:
    small = lowered(sorts(np.random.default_rng(0)), "compare")
    assert sorted(small.gates.values()) == [f"s#{i}" for i in range(6)]


def test_a_window_of_three_has_two_gates() -> None:
    small = lowered(maxima(np.random.default_rng(0)), "compare")
    assert list(small.gates.values()) == ["m#0", "m#1"]


def test_a_reflection_has_one_gate_a_slice() -> None:
    small = lowered(reflections(np.random.default_rng(0)), "compare")
    (gate,) = small.gates
    assert small.gates[gate] == "r"
    assert small.network.tensors[gate] == 2


def test_single_maxima_can_be_lowered() -> None:
    rng = np.random.default_rng(3)
    whole = maxima(rng)
    small, gates = lowered_maximum(whole, frozenset({"m"}))
    assert set(gates.values()) == {"m#0", "m#1"}
    x = rationals(rng, 3)
    assert evaluate(small, x)["y"] == evaluate(whole, x)["y"]
