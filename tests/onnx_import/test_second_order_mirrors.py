"""Second-order mirrors: an arc tangent and four tests, read as cones where their maps agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from tests.checker.evaluation import Runtime
from tests.onnx_import.graphs import model, node
from verifier import check, parse_request, verify
from verifier.certificate import Pattern
from verifier.checker.cones import Cones as Checked
from verifier.checker.graph import read_network
from verifier.checker.network import Blocks
from verifier.errors import PatternRefuted
from verifier.network.blocks import Cones
from verifier.network.graph import Grouped
from verifier.onnx_import import load

PI = np.float32(np.pi)
C0, C1, C2 = (np.array([c], np.float32) for c in ([0.79, 0.3], [0.1, 0.25], [1.25, 2.4]))
ANGLES = {"c0": C0, "c1": C1, "c2": C2}
HINT = Pattern(kind="second-order-mirror", input="x", output="y")
CONSTANTS = {"p": PI, "pp": np.float32(2) * PI, "0": np.float32(0), "half": np.float32(0.5)}


def second(
    first: str = "Greater", last: str = "Sub", closed: str = "Less", **other: np.ndarray
) -> bytes:
    """The function of halves; c0, c1, c2 are live, as libraries leave them."""
    tensors = {name: np.asarray(value) for name, value in (CONSTANTS | ANGLES | other).items()}
    steps = [
        ("Div", "b a", "r"), ("Atan", "r", "f"), (first, "b 0", "up"), ("Less", "a 0", "left"),
        ("Add", "f p", "f+"), ("Sub", "f p", "f-"), ("Where", "up f+ f-", "g"),
        ("Where", "left g f", "angle"), ("Mul", "c0 half", "h"), ("Sub", "angle h", "m"),
        ("Div", "m pp", "n"), ("Floor", "n", "k"), ("Mul", "k pp", "back"), ("Sub", "m back", "t"),
        ("Mul", "c1 half", "s1"), ("Add", "c1 c2", "c12"), ("Mul", "c12 half", "s2"),
        ("Add", "c2 pp", "c2p"), ("Mul", "c2p half", "s3"), ("Neg", "a", "-a"),
    ]  # fmt: skip
    steps.append(("Add", "c0 c1", "c"))
    for k, (lower, upper) in enumerate((("0", "s1"), ("s1", "s2"), ("s2", "s3"), ("s3", "pp"))):
        steps += [("GreaterOrEqual", f"t {lower}", f"ge{k}"), (closed, f"t {upper}", f"lt{k}")]
        steps += [("And", f"ge{k} lt{k}", f"in{k}"), ("Cast", f"in{k}", f"mask{k}")]
    for k, angle in ((1, "c"), (2, "c2"), (3, "c0")):
        waves = {f"cos{k}": np.cos, f"sin{k}": np.sin}
        steps += [(n[:3].title(), angle, n) for n in waves]
        lower = [("-a", "Add")] if k == 2 else [("a", last)]
        for row, left, right, (own, op) in (("p", "cos", "sin", ("a", "Add")),
                                            ("q", "sin", "cos", lower[0])):  # fmt: skip
            steps += [("Mul", f"{own} {left}{k}", f"{row}{k}1"),
                      ("Mul", f"b {right}{k}", f"{row}{k}2"),
                      (op, f"{row}{k}1 {row}{k}2", f"{row}{k}")]  # fmt: skip
    for row, own in (("p", "a"), ("q", "b")):
        steps += [
            ("Mul", f"{row}{k} mask{k}" if k else f"{own} mask0", f"{row}*{k}") for k in range(4)
        ]
        steps += [("Add", f"{row}*0 {row}*1", f"{row}+1"), ("Add", f"{row}+1 {row}*2", f"{row}+2")]
        steps += [("Add", f"{row}+2 {row}*3", f"{row}+")]
    nodes: list[Any] = [node("Split", ["x"], ["a", "b"], axis=1)]
    for op, inputs, output in steps:
        if output in tensors:
            continue  # a number already
        nodes.append(node(op, inputs.split(), [output], **({"to": 1} if op == "Cast" else {})))
    return model([*nodes, node("Concat", ["p+", "q+"], ["y"], axis=1)], tensors)


def folded(**other: np.ndarray) -> dict[str, Any]:
    """What exporters make of angles that they compute: float32 numbers."""
    half = np.float32(0.5)
    numbers: dict[str, Any] = {"h": C0 * half, "s1": C1 * half, "s2": (C1 + C2) * half}
    numbers["s3"] = (C2 + np.float32(2) * PI) * half
    for k, angle in enumerate((C0 + C1, C2, C0), start=1):
        numbers |= {f"cos{k}": np.cos(angle), f"sin{k}": np.sin(angle)}
    return numbers | other


def test_both_readings_see_the_cones() -> None:
    data = second()
    read = load(data)
    (searched,) = read.require_network().nodes
    assert isinstance(searched, Grouped)
    assert isinstance(searched.group, Cones)
    assert read.require_network().patterns == (HINT,)
    (checked,) = read_network(data, [HINT]).nodes
    assert isinstance(checked, Blocks)
    np.testing.assert_array_equal(checked.groups, searched.group.groups.numpy())
    assert Runtime(data).distance(read_network(data, [HINT]), np.random.default_rng(0), 8) < 1e-5


@pytest.mark.parametrize("scope", ["global", "local"])
def test_its_constant_is_1(scope: str) -> None:
    region = {"region": {"type": "box", "center": [1.0, 2.0, -1.0, 0.5], "radius": 0.25}}
    asked = {"scope": scope, "norm": "l2"} | (region if scope == "local" else {})
    found = verify(second(), parse_request({"property": asked, "method": "product"}))
    assert found.claim.bound is not None
    assert 1 <= found.claim.bound < 1 + 1e-8
    assert check(found, second()).valid


FALSE: Mapping[str, bytes] = {
    "an angle next to it": second(c=C0 + C1 + np.float32(1e-6)),
    "folded": second(cos1=np.cos(C0 + C1), sin1=np.sin(C0 + C1)),
    "another sign": second(last="Add"),
    "both where they meet": second(closed="LessOrEqual"),
    "another half-plane": second(first="Less"),
    "another modulus": second(pp=np.array(6.28125, np.float32)),
    "cones beyond a quarter": second(c2=np.array([[1.25, 2.6]], np.float32)),
    "a negative angle": second(c1=-C1),
}


@pytest.mark.parametrize("name", FALSE)
def test_what_only_looks_like_it_jumps(name: str) -> None:
    blocked = load(FALSE[name]).blocked
    assert blocked is not None
    assert blocked.code == "discontinuous-op"
    with pytest.raises(PatternRefuted):
        read_network(FALSE[name], [HINT])


def exact(x: np.ndarray, c0: float, c1: float, c2: float) -> np.ndarray:
    """The function of one pair, in complex numbers."""
    z = complex(*x)
    t = (np.angle(z) - c0 / 2) % (2 * np.pi)
    if t < c1 / 2:
        turned = z
    elif t < (c1 + c2) / 2:
        turned = np.exp(1j * (c0 + c1)) * z.conjugate()
    elif t < c2 / 2 + np.pi:
        turned = np.exp(-1j * c2) * z
    else:
        turned = np.exp(1j * c0) * z.conjugate()
    return np.array([turned.real, turned.imag])


@pytest.mark.parametrize(
    "c", [(0.79, 0.1, 1.25), (0.0, 0.0, 0.0), (0.0, 3.1, 0.0), (1.0, 0.0, 2.0)]
)
def test_what_is_known_of_a_box_holds_in_it(c: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(1)
    function, searched = (
        Checked(np.array([c])),
        Cones(torch.tensor([[0, 1]]), torch.tensor([c], dtype=torch.float64)),
    )
    for width in (0.0, 1e-9, 0.3, 5.0):
        centre = rng.normal(size=(64, 1, 2)) * rng.choice([1e-3, 1.0, 100.0], (64, 1, 1))
        lower, upper = centre - width, centre + width
        low, high = function.image(lower, upper)
        least, most = function.derivatives(lower, upper)
        points = rng.uniform(lower, upper)
        values = np.stack([exact(x, *c) for x in points[:, 0]])[:, None]
        rounding = 1e-14 * np.abs(points).max(axis=-1, keepdims=True)
        assert np.all((low - rounding <= values) & (values <= high + rounding))
        ours = searched.forward(torch.from_numpy(points[:, 0])).numpy()
        assert np.all(np.abs(ours - values[:, 0]) <= rounding[:, 0])
        # Around the ray of a threshold no small secant is steeper than the hull of derivatives.
        assert np.all(least <= most)
        assert np.all((least <= 1.0 + 1e-12) & (-1.0 - 1e-12 <= most))
        wide = np.abs(np.stack([least, most])).max(axis=0)
        steps = rng.uniform(lower, upper) - points
        moved = np.stack([exact(x, *c) for x in (points + steps)[:, 0]])[:, None]
        assert np.all(
            np.abs(moved - values) <= (wide @ np.abs(steps)[..., None])[..., 0] + rounding
        )
