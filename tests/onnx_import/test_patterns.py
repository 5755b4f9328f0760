"""Forms of several operators: recognised in every way they are written, and only then."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.onnx_import.graphs import floats, integers, model, node
from verifier.network.graph import Grouped
from verifier.network.grouped import GroupSort, Householder
from verifier.norms import Norm
from verifier.onnx_import import load

Array = np.ndarray

SPLIT = node("Split", ["x"], ["a", "b"], axis=1)
CAT = node("Concat", ["p", "q"], ["y"], axis=1)
HALF = {"half": np.array(0.5, np.float32), "two": np.array(2.0, np.float32)}
SLICES = {
    "s0": integers(0),
    "s1": integers(1),
    "end": integers(100),
    "ax": integers(1),
    "st": integers(2),
}
VIEW = [node("Reshape", ["x", "pairs"], ["v"]), node("Reshape", ["c", "flat"], ["y"])]
SHAPES = {"pairs": integers(1, 2, 2), "flat": integers(1, 4)}
REDUCED = [
    VIEW[0],
    node("ReduceMax", ["v"], ["p"], axes=[2], keepdims=1),
    node("ReduceMin", ["v"], ["q"], axes=[2], keepdims=1),
    node("Concat", ["q", "p"], ["c"], axis=2),
    VIEW[1],
]
BY_ABS = [
    SPLIT,
    node("Add", ["a", "b"], ["s"]),
    node("Div", ["s", "two"], ["m"]),
    node("Sub", ["a", "b"], ["d"]),
    node("Abs", ["d"], ["e"]),
    node("Mul", ["half", "e"], ["r"]),
    node("Add", ["m", "r"], ["p"]),
    node("Sub", ["m", "r"], ["q"]),
    CAT,
]

MAXMIN: dict[str, tuple[list[Any], dict[str, Array]]] = {
    "split": ([SPLIT, node("Max", ["a", "b"], ["p"]), node("Min", ["b", "a"], ["q"]), CAT], {}),
    "strided": (
        [
            node("Slice", ["x", "s0", "end", "ax", "st"], ["a"]),
            node("Slice", ["x", "s1", "end", "ax", "st"], ["b"]),
            node("Max", ["a", "b"], ["p"]),
            node("Min", ["a", "b"], ["q"]),
            CAT,
        ],
        SLICES,
    ),
    "view": (REDUCED, SHAPES),
    "relu": (
        [
            SPLIT,
            node("Sub", ["a", "b"], ["d"]),
            node("Relu", ["d"], ["r"]),
            node("Add", ["b", "r"], ["p"]),
            node("Sub", ["a", "r"], ["q"]),
            CAT,
        ],
        {},
    ),
    "abs": (BY_ABS, HALF),
    "where": (
        [
            SPLIT,
            node("Greater", ["a", "b"], ["g"]),
            node("Where", ["g", "a", "b"], ["p"]),
            node("Where", ["g", "b", "a"], ["q"]),
            CAT,
        ],
        {},
    ),
    "less": (
        [
            SPLIT,
            node("Less", ["a", "b"], ["g"]),
            node("Where", ["g", "b", "a"], ["p"]),
            node("Where", ["g", "a", "b"], ["q"]),
            CAT,
        ],
        {},
    ),
}
LOOKALIKES: dict[str, tuple[list[Any], dict[str, Array]]] = {
    "max twice": ([SPLIT, node("Max", ["a", "b"], ["p"]), node("Max", ["b", "a"], ["q"]), CAT], {}),
    "min of one operand": (
        [SPLIT, node("Max", ["a", "b"], ["p"]), node("Min", ["a", "a"], ["q"]), CAT],
        {},
    ),
    "a shifted gate": (
        [
            SPLIT,
            node("Add", ["a", "half"], ["a2"]),
            node("Max", ["a", "b"], ["p"]),
            node("Min", ["a2", "b"], ["q"]),
            CAT,
        ],
        HALF,
    ),
    "a wrong half": (
        [
            *BY_ABS[:5],
            node("Div", ["e", "three"], ["r"]),
            *BY_ABS[6:],
        ],
        HALF | {"three": np.array(3.0, np.float32)},
    ),
}


@pytest.mark.parametrize("form", MAXMIN)
@pytest.mark.parametrize("opset", [13, 17])
def test_maxmin_is_recognised_however_it_is_written(form: str, opset: int) -> None:
    nodes, constants = MAXMIN[form]
    network = load(model(nodes, constants, opset=opset)).require_network()

    (pattern,) = network.patterns
    assert (pattern.kind, pattern.input) == ("maxmin", "x")
    sort = next(made for made in network.nodes if made.name == pattern.output)
    assert isinstance(sort, Grouped)
    assert isinstance(sort.group, GroupSort)
    assert sort.group.groups.shape == (2, 2)


@pytest.mark.parametrize("form", LOOKALIKES)
def test_a_lookalike_of_maxmin_is_read_as_what_it_is(form: str) -> None:
    nodes, constants = LOOKALIKES[form]
    assert load(model(nodes, constants)).require_network().patterns == ()


def test_maxmin_over_channels_pairs_halves_of_the_channel_axis() -> None:
    data = model(MAXMIN["split"][0], shape=(1, 4, 2, 1))
    (sort,) = load(data).require_network().nodes
    assert isinstance(sort, Grouped)
    assert isinstance(sort.group, GroupSort)
    assert sort.group.groups.tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]


def test_maxmin_on_a_part_of_the_channels_has_that_part_for_its_base() -> None:
    nodes = [
        node("Split", ["x"], ["u", "w"], axis=1),
        node("Split", ["u"], ["a", "b"], axis=1),
        node("Max", ["a", "b"], ["p"]),
        node("Min", ["a", "b"], ["q"]),
        node("Concat", ["p", "q"], ["c"], axis=1),
        node("Concat", ["c", "w"], ["y"], axis=1),
    ]
    network = load(model(nodes, shape=(1, 8))).require_network()
    assert [(pattern.input, pattern.output) for pattern in network.patterns] == [("u", "c")]


@pytest.mark.parametrize("largest", [0, 1])
def test_a_whole_topk_is_groupsort_and_says_where_values_go(largest: int) -> None:
    nodes = [
        node("Reshape", ["x", "groups"], ["v"]),
        node("TopK", ["v", "k"], ["t", "i"], axis=-1, largest=largest),
        node("Reshape", ["t", "flat"], ["y"]),
    ]
    constants = {"groups": integers(1, 2, 3), "k": integers(3), "flat": integers(1, 6)}
    network = load(model(nodes, constants, shape=(1, 6))).require_network()
    (pattern,) = network.patterns
    assert (pattern.kind, pattern.input, pattern.output) == ("groupsort", "v", "t")
    sort = next(made for made in network.nodes if isinstance(made, Grouped))
    assert isinstance(sort.group, GroupSort)
    first = [2, 1, 0] if largest else [0, 1, 2]
    assert sort.group.places[0].tolist() == first


def test_a_part_of_a_topk_is_no_groupsort() -> None:
    nodes = [node("TopK", ["x", "k"], ["y", "i"], axis=1)]
    assert load(model(nodes, {"k": integers(2)})).require_network().patterns == ()


def test_indices_of_topk_jump() -> None:
    nodes = [node("TopK", ["x", "k"], ["v", "i"], axis=1), node("Cast", ["i"], ["y"], to=1)]
    blocked = load(model(nodes, {"k": integers(4)})).blocked
    assert blocked is not None
    assert blocked.code == "discontinuous-op"


def reflection(vector: Array, gate: Array, comparison: str = "Greater") -> bytes:
    """x, or x - 2 (v.x) v where the gate says so."""
    column = vector.astype(np.float32).reshape(-1, 1)
    nodes = [
        node("MatMul", ["x", "G"], ["t"]),
        node(comparison, ["t", "zero"], ["g"]),
        node("MatMul", ["x", "V"], ["d"]),
        node("MatMul", ["d", "R"], ["r"]),
        node("Sub", ["x", "r"], ["m"]),
        node("Where", ["g", "x", "m"], ["y"]),
    ]
    constants = {
        "G": gate.astype(np.float32).reshape(-1, 1),
        "V": column,
        "R": 2 * column.T,
        "zero": np.array(0, np.float32),
    }
    return model(nodes, constants, shape=(1, len(vector)))


@pytest.mark.parametrize(
    ("vector", "flip", "comparison", "norm"),
    [
        (np.array([1.0, 0, 0, 0]), 1, "Greater", 1.0),
        (np.array([1.0, 0, 0, 0]), -1, "Greater", 1.0),
        (np.array([1.5, 0, 0, 0]), 1, "Greater", 3.5),
        (np.array([0.5, 0.5, -0.5, 0.5]), 1, "GreaterOrEqual", 1.0),
        (np.array([0.5, 0.5, -0.5, 0.5]), 3, "Less", 1.0),
        (floats(5, seed=3), 1, "LessOrEqual", None),
    ],
)
def test_a_householder_reflection_keeps_its_own_norm(
    vector: Array, flip: float, comparison: str, norm: float | None
) -> None:
    network = load(reflection(vector, flip * vector, comparison)).require_network()
    (pattern,) = network.patterns
    (mirror,) = network.nodes
    assert (pattern.kind, pattern.input, pattern.output) == ("householder", "x", "y")
    assert isinstance(mirror, Grouped)
    assert isinstance(mirror.group, Householder)
    if norm is not None:
        assert mirror.group.norm_bound(Norm.L2) == pytest.approx(norm, abs=1e-9)


def test_a_reflection_with_its_gate_elsewhere_jumps() -> None:
    data = reflection(np.array([1.0, 0, 0, 0]), np.array([0, 1.0, 0, 0]))
    blocked = load(data).blocked
    assert blocked is not None
    assert blocked.code == "discontinuous-op"


def test_a_reflection_by_relu_in_slices_has_a_vector_for_each() -> None:
    nodes = [
        node("Reshape", ["x", "s"], ["v"]),
        node("Mul", ["v", "u"], ["m"]),
        node("ReduceSum", ["m", "last"], ["d"], keepdims=1),
        node("Neg", ["d"], ["n"]),
        node("Relu", ["n"], ["r"]),
        node("Mul", ["r", "two"], ["w"]),
        node("Mul", ["w", "u"], ["k"]),
        node("Add", ["v", "k"], ["h"]),
        node("Reshape", ["h", "f"], ["y"]),
    ]
    constants = {
        "s": integers(1, 3, 2),
        "u": floats(3, 2, seed=1),
        "last": integers(-1),
        "two": np.array(2.0, np.float32),
        "f": integers(1, 6),
    }
    network = load(model(nodes, constants, shape=(1, 6))).require_network()
    mirror = next(made for made in network.nodes if made.name == "h")
    assert isinstance(mirror, Grouped)
    assert isinstance(mirror.group, Householder)
    assert mirror.group.slices.tolist() == [[0, 1], [2, 3], [4, 5]]


def test_a_residual_relu_is_no_reflection() -> None:
    nodes = [node("Relu", ["x"], ["r"]), node("Add", ["x", "r"], ["y"])]
    network = load(model(nodes)).require_network()
    assert network.patterns == ()


COMPOUNDS: dict[str, tuple[list[Any], dict[str, Array], str]] = {
    "gelu": (
        [
            node("Div", ["x", "r"], ["u"]),
            node("Erf", ["u"], ["e"]),
            node("Add", ["e", "one"], ["s"]),
            node("Mul", ["x", "s"], ["m"]),
            node("Mul", ["m", "half"], ["y"]),
        ],
        {"r": np.array(np.sqrt(2), np.float32)},
        "Scaled",
    ),
    "gelu, half first": (
        [
            node("Mul", ["x", "half"], ["h"]),
            node("Mul", ["x", "r"], ["u"]),
            node("Erf", ["u"], ["e"]),
            node("Add", ["one", "e"], ["s"]),
            node("Mul", ["s", "h"], ["y"]),
        ],
        {"r": np.array(np.sqrt(0.5), np.float32)},
        "Gelu",
    ),
    "silu": ([node("Sigmoid", ["x"], ["s"]), node("Mul", ["x", "s"], ["y"])], {}, "Silu"),
    "quick gelu": (
        [
            node("Mul", ["x", "r"], ["u"]),
            node("Sigmoid", ["u"], ["s"]),
            node("Mul", ["s", "x"], ["y"]),
        ],
        {"r": np.array(1.702, np.float32)},
        "Silu",
    ),
    "mish": (
        [
            node("Softplus", ["x"], ["p"]),
            node("Tanh", ["p"], ["t"]),
            node("Mul", ["x", "t"], ["y"]),
        ],
        {},
        "Mish",
    ),
    "softsign": (
        [
            node("Abs", ["x"], ["a"]),
            node("Add", ["a", "one"], ["s"]),
            node("Div", ["x", "s"], ["y"]),
        ],
        {},
        "Softsign",
    ),
}


@pytest.mark.parametrize("form", COMPOUNDS)
def test_an_activation_that_is_written_out_is_one_node(form: str) -> None:
    nodes, constants, kind = COMPOUNDS[form]
    more = {"half": np.array(0.5, np.float32), "one": np.array(1.0, np.float32)}
    summary = load(model(nodes, constants | more)).summary()
    assert f"'{kind}': 1" in str(summary["nodes"])
    assert "'neurons': 4" in str(summary["nodes"])


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Tanh", ["x"], ["t"]), node("Mul", ["x", "t"], ["y"])],
        [node("Mul", ["x", "x"], ["y"])],
    ],
    ids=["x tanh", "square"],
)
def test_a_product_that_is_no_known_activation_has_no_global_bound(nodes: list[Any]) -> None:
    read = load(model(nodes))
    assert read.blocked is None
    assert read.unbounded is not None
    assert (read.unbounded.code, read.unbounded.node) == ("not-lipschitz-globally", "y")
