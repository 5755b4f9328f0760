"""Mirrors written with sines and cosines of angles: read as mirrors where the angles fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from tests.checker.evaluation import Runtime
from tests.onnx_import.graphs import model, node
from verifier.certificate import Pattern
from verifier.checker.graph import read_network
from verifier.checker.network import Reflection
from verifier.errors import PatternRefuted
from verifier.network.graph import Grouped
from verifier.network.grouped import Householder
from verifier.onnx_import import load

HALF = np.array([[0.3, -1.2, 2.0]], np.float32)
ANGLES = {"h": HALF, "t": 2 * HALF, "zero": np.array([0.0], np.float32)}
HINT = Pattern(kind="turned-mirror", input="x", output="y")


def mirror(kept: str = "LessOrEqual", last: str = "Sub", **constants: np.ndarray) -> bytes:
    """A mirror of halves, or what only looks like one."""
    nodes: list[Any] = [node("Split", ["x"], ["a", "b"], axis=1)]
    waves = {"sh": ("Sin", "h"), "ch": ("Cos", "h"), "st": ("Sin", "t"), "ct": ("Cos", "t")}
    nodes += [
        node(op, [angle], [name]) for name, (op, angle) in waves.items() if name not in constants
    ]
    for name, left, right, op in (
        ("d", ("a", "sh"), ("b", "ch"), "Sub"),
        ("p", ("a", "ct"), ("st", "b"), "Add"),
        ("q", ("a", "st"), ("b", "ct"), last),
    ):
        nodes += [node("Mul", left, [f"{name}1"]), node("Mul", right, [f"{name}2"])]
        nodes.append(node(op, [f"{name}1", f"{name}2"], [name]))
    tests = (("no", kept), ("yes", "Greater"))
    for name, op in tests:
        nodes += [node(op, ["d", "zero"], [f"{name}?"]), node("Cast", [f"{name}?"], [name], to=1)]
    for name, own, other in (("u", "a", "p"), ("v", "b", "q")):
        nodes += [node("Mul", [own, "no"], [f"{name}1"]), node("Mul", ["yes", other], [f"{name}2"])]
        nodes.append(node("Add", [f"{name}1", f"{name}2"], [name]))
    nodes.append(node("Concat", ["u", "v"], ["y"], axis=1))
    return model(nodes, ANGLES | constants, shape=(1, 6))


def test_both_readings_see_the_mirror() -> None:
    data = mirror()
    read = load(data)
    (searched,) = read.require_network().nodes
    assert isinstance(searched, Grouped)
    assert isinstance(searched.group, Householder)
    assert read.require_network().patterns == (HINT,)
    checked = read_network(data, [HINT])
    (reflection,) = checked.nodes
    assert isinstance(reflection, Reflection)
    np.testing.assert_array_equal(reflection.slices, searched.group.slices.numpy())
    found = searched.group.vectors.numpy()
    assert np.all(np.abs(reflection.vectors - found) <= reflection.vector_error + 2.0**-52)
    assert Runtime(data).distance(checked, np.random.default_rng(0), 8) < 1e-5


FALSE: Mapping[str, bytes] = {
    "another angle": mirror(t=2 * HALF + np.float32(1e-6)),
    "folded": mirror(sh=np.sin(HALF), ch=np.cos(HALF)),
    "both where they meet": mirror(kept="GreaterOrEqual"),
    "a closed side": mirror(kept="Less"),
    "another sign": mirror(last="Add"),
    "another gate": mirror(zero=np.array([0.5], np.float32)),
}


@pytest.mark.parametrize("name", FALSE)
def test_what_only_looks_like_a_mirror_jumps(name: str) -> None:
    blocked = load(FALSE[name]).blocked
    assert blocked is not None
    assert blocked.code == "discontinuous-op"
    with pytest.raises(PatternRefuted):
        read_network(FALSE[name], [HINT])
