"""Files that say less than they seem to: what two readers could take differently is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from tests.attempts import PROPAGATION, bounds
from tests.onnx_import.graphs import floats, integers, model, node, run
from verifier.certificate import Pattern
from verifier.checker import check
from verifier.checker.graph import read_network
from verifier.errors import LipcertError, PatternRefuted
from verifier.onnx_import import load
from verifier.property import Property
from verifier.regions import CenterBox


@dataclass(frozen=True)
class Hostile:
    """One operator on x, and the code with which it is refused."""

    code: str
    op: str
    shape: tuple[int, ...]
    inputs: Sequence[str] = ("x",)
    constants: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    outputs: Sequence[str] = ("y",)
    opset: int = 17

    @property
    def data(self) -> bytes:
        """The model."""
        made = node(self.op, self.inputs, self.outputs, **self.attributes)
        return model([made], self.constants, shape=self.shape, opset=self.opset)


def _einsum(code: str, equation: str, shape: tuple[int, ...]) -> Hostile:
    return Hostile(code, "Einsum", shape, attributes={"equation": equation})


def _gru(code: str, **other: Any) -> Hostile:  # noqa: ANN401 (any field)
    states = {"w": floats(1, 6, 3), "r": floats(1, 6, 2)}
    constants = states | other.pop("constants", {})
    return Hostile(
        code, "GRU", (4, 1, 3), ("x", "w", "r", *other.pop("more", ())), constants, **other
    )


def _masked(shape: tuple[int, ...], opset: int = 24) -> Hostile:
    constants = {"m": floats(*shape)}
    return Hostile(
        "not-checkable", "Attention", (1, 2, 3, 4), ("x", "x", "x", "m"), constants, opset=opset
    )


HOSTILE: Mapping[str, Hostile] = {
    "an ellipsis that is summed": _einsum("invalid-attribute", "...ij->ij", (2, 2, 3)),
    "ellipses of two lengths": Hostile(
        "not-checkable",
        "Einsum",
        (3, 2),
        ("k", "x"),
        {"k": floats(2)},
        {"equation": "a...,...a->...a"},
    ),
    "two ellipses in a term": _einsum("invalid-attribute", "......->...", (2, 3)),
    "a diagonal of a row": _einsum("shape-mismatch", "ii->i", (1, 3)),
    "an alphabet of its own": _einsum("not-checkable", "aB", (2, 3)),
    "an axis as an attribute that is none": Hostile(
        "invalid-attribute", "DFT", (2, 3, 4, 1), attributes={"axis": 2}, opset=20
    ),
    "a length of a half": Hostile(
        "invalid-attribute", "DFT", (2, 3, 1), ("x", "n"), {"n": np.array(2.5, np.float32)}
    ),
    "a mask that is filled up": _masked((3, 1)),
    "a mask of one axis": _masked((3,), 23),
    "a negative scale": Hostile(
        "not-checkable", "Attention", (1, 2, 3, 4), ("x",) * 3, attributes={"scale": -1.0}, opset=23
    ),
    "a cell state of a GRU": _gru(
        "invalid-attribute", more=("", "", "", "c"), constants={"c": floats(1, 1, 2)}
    ),
    "a third result of a GRU": _gru("invalid-attribute", outputs=("", "", "y")),
    "a state with its axes exchanged": _gru(
        "shape-mismatch", more=("", "", "h"), constants={"h": floats(1, 2, 1)}
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_the_checker_refuses(name: str) -> None:
    with pytest.raises(LipcertError) as refusal:
        read_network(HOSTILE[name].data)
    assert refusal.value.code == HOSTILE[name].code


def test_a_sequence_without_steps_is_no_state() -> None:
    nodes = [
        node("Slice", ["x", "0", "0"], ["none"]),
        node("RNN", ["none", "w", "r"], ["", "y"]),
    ]
    constants = {"0": integers(0), "w": floats(1, 3, 3), "r": floats(1, 3, 3)}
    with pytest.raises(LipcertError) as refusal:
        read_network(model(nodes, constants, shape=(1, 1, 3)))
    assert refusal.value.code == "shape-mismatch"


def test_a_power_that_copies_is_no_normalisation() -> None:
    """The exponents are all 2, but two rows of them: what is divided has twice the entries."""
    nodes = [
        node("Pow", ["x", "two"], ["squares"]),
        node("ReduceSum", ["squares", "axes"], ["sums"]),
        node("Add", ["sums", "eps"], ["shifted"]),
        node("Sqrt", ["shifted"], ["length"]),
        node("Div", ["x", "length"], ["y"]),
    ]
    hint = Pattern(kind="normalise", input="x", output="y")
    for rows, raises in ((1, False), (2, True)):
        constants = {
            "two": np.full((rows, 4), 2, np.float32),
            "axes": integers(1),
            "eps": np.array(0.5, np.float32),
        }
        data = model(nodes, constants)
        if raises:
            with pytest.raises(PatternRefuted):
                read_network(data, [hint])
        else:
            assert read_network(data, [hint]).output_size == 4


@pytest.mark.parametrize("gate", ["Relu", "Tanh"])
def test_a_gate_that_is_no_share_does_not_keep_the_state_small(gate: str) -> None:
    """z is 0 where imports are tested, and 10 where the bound is asked for: h' is 1 - z."""
    zero_to_ten = np.array([[[1.0 if gate == "Relu" else -0.001], [0.0], [-1.0]]], np.float32)
    constants = {
        "w": zero_to_ten,
        "r": np.zeros((1, 3, 1), np.float32),
        "b": np.array([[-300.0 if gate == "Relu" else 0.0] + [0.0] * 5], np.float32),
    }
    made = node("GRU", ["x", "w", "r", "b"], ["y"], hidden_size=1, activations=[gate, "Tanh"])
    data = model([made], constants, shape=(1, 1, 1))
    asked = Property(scope="local", region=CenterBox(center=(310.0,), radius=1.0))
    certificate = PROPAGATION.answer(data, asked)
    assert check(certificate, data).valid
    low, high = (run(data, np.full((1, 1, 1), x, np.float32)).item() for x in (309.5, 310.5))
    (bound,) = bounds(certificate)
    assert bound is not None
    assert 0 < abs(high - low) * (1 - 1e-3) <= bound


def test_what_the_runtime_breaks_down_over_is_refused_before_it_runs() -> None:
    with pytest.raises(LipcertError) as refusal:
        load(HOSTILE["ellipses of two lengths"].data).require_network()
    assert refusal.value.code == "unsupported-op"
