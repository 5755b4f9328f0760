"""Patterns that a proof hints at: every exported form holds, every look-alike is refuted."""

# ruff: noqa: E501  (a case a line)

from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest

from tests.checker.evaluation import Runtime
from tests.checker.shared import ROOT, hostile, needs_shared
from tests.checker.test_graph import Maker
from verifier.certificate import Pattern
from verifier.checker.graph import read_network
from verifier.checker.network import Reflection, Sort
from verifier.errors import CapabilityBlocked, LipcertError

Kind = Literal["maxmin", "groupsort", "householder"]

EXPORTS: dict[str, Kind] = {
    "exports/deel_groupsort2.dynamo": "maxmin",
    "exports/fullsort.dynamo": "groupsort",
    "exports/groupsort2_conv_nchw.legacy": "maxmin",
    "exports/groupsort2_sort.legacy": "groupsort",
    "exports/groupsort4_desc.dynamo": "groupsort",
    "exports/groupsort4_dynbatch.dynamo": "groupsort",
    "exports/groupsort4_dynbatch.legacy": "groupsort",
    "exports/groupsort4_sort.legacy": "groupsort",
    "exports/groupsort4_topk.legacy": "groupsort",
    "exports/hh_vector_relu.legacy": "householder",
    "exports/hh_vector_where.dynamo": "householder",
    "exports/maxmin_chunk.dynamo": "maxmin",
    "exports/maxmin_chunk.legacy": "maxmin",
    "exports/maxmin_relu.legacy": "maxmin",
    "exports/maxmin_split.dynamo": "maxmin",
    "exports/maxmin_stride.dynamo": "maxmin",
    "exports/maxmin_view.dynamo": "maxmin",
    "exports/maxmin_where.dynamo": "maxmin",
    "../yardsticks/onnx/bro_dense_lln": "maxmin",
    "../yardsticks/onnx/groupsort5_digits_60x2": "groupsort",
    "../yardsticks/onnx/householder2_digits_64x2": "householder",
    "../yardsticks/onnx/maxmin_digits_64x2": "maxmin",
}


def between_layers(path: Path, kind: Kind) -> tuple[Pattern, ...]:
    """The hint that everything between two Gemm or Conv is one pattern."""
    nodes = [node for node in onnx.load(path).graph.node if node.op_type in ("Gemm", "Conv")]
    return tuple(
        Pattern(kind=kind, input=before.output[0], output=after.input[0])
        for before, after in pairwise(nodes)
    )


@needs_shared
@pytest.mark.parametrize("name", sorted(EXPORTS))
def test_exported_forms_hold(name: str) -> None:
    assert ROOT is not None
    path = ROOT / "models" / f"{name}.onnx"
    hints = between_layers(path, EXPORTS[name])
    network = read_network(path.read_bytes(), hints)
    names = [node.name for node in network.nodes if isinstance(node, Sort | Reflection)]
    assert names == [hint.output for hint in hints]
    assert Runtime(path.read_bytes()).distance(network, np.random.default_rng(1), 5) < 1e-5


@needs_shared
@pytest.mark.parametrize("kind", ["maxmin", "groupsort", "householder"])
@pytest.mark.parametrize("name", sorted(EXPORTS))
def test_a_form_is_no_other_pattern(name: str, kind: Kind) -> None:
    assert ROOT is not None
    path = ROOT / "models" / f"{name}.onnx"
    is_pair = "groupsort2" in name and {kind, EXPORTS[name]} <= {"maxmin", "groupsort"}
    if kind != EXPORTS[name] and not is_pair:
        with pytest.raises(CapabilityBlocked):
            read_network(path.read_bytes(), between_layers(path, kind))


GENUINE = {
    ("impostor__householder_flipped_gate.onnx", "householder"),
    ("impostor__householder_not_unit.onnx", "householder"),
    ("impostor__householder_true.onnx", "householder"),
    ("impostor__maxmin_true.onnx", "maxmin"),
}
IMPOSTORS = sorted(name for name in hostile() if name.startswith("impostor"))


@needs_shared
@pytest.mark.parametrize("kind", ["maxmin", "groupsort", "householder"])
@pytest.mark.parametrize("name", IMPOSTORS)
def test_impostors_are_refuted(name: str, kind: Kind) -> None:
    hint = Pattern(kind=kind, input="x", output="y")
    if (name, kind) in GENUINE:
        assert read_network(hostile()[name][0], (hint,)).output == "y"
    else:
        with pytest.raises(LipcertError):
            read_network(hostile()[name][0], (hint,))


def halves(*nodes: tuple[str, str, str], opset: int = 20) -> Maker:
    maker = Maker([1, 4], opset).node("Split", "x", "a,b", axis=1, num_outputs=2)
    for op, inputs, outputs in nodes:
        maker = maker.node(op, inputs, outputs)
    return maker.node("Concat", "p,q", axis=1).weight("h", 0.5).weight("two", 2.0).weight("z", 0.0)


MAXMIN = Pattern(kind="maxmin", input="x", output="y")
TRUE_PAIRS = {
    "abs": halves(("Add", "a,b", "s"), ("Sub", "a,b", "d"), ("Abs", "d", "m"), ("Mul", "s,h", "t"),
                  ("Mul", "m,h", "n"), ("Add", "t,n", "p"), ("Sub", "t,n", "q")),
    "abs_div": halves(("Add", "b,a", "s"), ("Sub", "b,a", "d"), ("Abs", "d", "m"),
                      ("Sub", "s,m", "u"), ("Add", "s,m", "v"), ("Div", "u,two", "q"), ("Div", "v,two", "p")),
    "relu": halves(("Sub", "b,a", "d"), ("Relu", "d", "r"), ("Add", "a,r", "p"), ("Sub", "b,r", "q")),
    "where": halves(("Less", "a,b", "g"), ("Where", "g,b,a", "p"), ("Where", "g,a,b", "q")),
    "where_difference": halves(("Sub", "a,b", "d"), ("GreaterOrEqual", "d,z", "g"),
                               ("Where", "g,a,b", "p"), ("Where", "g,b,a", "q")),
}  # fmt: skip
FALSE_PAIRS = {
    "cubed_gate": halves(("Add", "a,b", "d"), ("Relu", "d", "r"), ("Add", "a,r", "p"), ("Sub", "b,r", "q")),
    "doubled_relu": halves(("Sub", "a,b", "d"), ("Relu", "d", "r"), ("Mul", "r,two", "r2"),
                           ("Add", "b,r2", "p"), ("Sub", "a,r2", "q")),
    "same_branch": halves(("Greater", "a,b", "g"), ("Where", "g,a,b", "p"), ("Where", "g,a,b", "q")),
    "scaled_gate": halves(("Mul", "a,two", "a2"), ("Greater", "a2,b", "g"), ("Where", "g,a,b", "p"), ("Where", "g,b,a", "q")),
    "shifted": halves(("Add", "a,h", "c"), ("Max", "a,b", "p"), ("Min", "c,b", "q")),
    "swapped_where": halves(("Greater", "a,b", "g"), ("Where", "g,a,z", "p"), ("Where", "g,b,a", "q")),
    "twice": halves(("Max", "a,b", "p"), ("Max", "b,a", "q")),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(TRUE_PAIRS))
def test_written_out_pairs_hold(name: str) -> None:
    data = TRUE_PAIRS[name].bytes()
    network = read_network(data, (MAXMIN,))
    (node,) = network.nodes
    assert isinstance(node, Sort)
    assert node.groups.tolist() == [[0, 2], [1, 3]]
    assert Runtime(data).distance(network, np.random.default_rng(2), 5) < 1e-6


@pytest.mark.parametrize("name", sorted(FALSE_PAIRS))
def test_look_alikes_of_pairs_are_refuted(name: str) -> None:
    with pytest.raises(CapabilityBlocked) as caught:
        read_network(FALSE_PAIRS[name].bytes(), (MAXMIN,))
    assert caught.value.code == "pattern-refuted"


def mirror(gate: list[float], vector: list[float], factor: float, compare: str) -> Maker:
    """where(gate.x > 0, x, x - factor vector (vector.x))."""
    return (
        Maker([1, 4])
        .node("MatMul", "x,G", "t").node(compare, "t,z", "g").node("MatMul", "x,V", "d")
        .node("Mul", "d,k", "e").node("Mul", "e,R", "r").node("Sub", "x,r", "m")
        .node("Where", "g,x,m")
        .weight("G", np.array(gate).reshape(4, 1)).weight("V", np.array(vector).reshape(4, 1))
        .weight("R", np.array(vector)).weight("z", 0.0).weight("k", factor)
    )  # fmt: skip


VECTOR = [0.5, -0.25, 0.75, 0.1]
HOUSEHOLDER = Pattern(kind="householder", input="x", output="y")


@pytest.mark.parametrize("compare", ["Greater", "GreaterOrEqual", "Less", "LessOrEqual"])
@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("factor", [2.0, 0.5, 3.0])
def test_mirrors_hold_whatever_their_length(compare: str, scale: float, factor: float) -> None:
    gate = [scale * number for number in VECTOR]
    data = mirror(gate, VECTOR, factor, compare).bytes()
    network = read_network(data, (HOUSEHOLDER,))
    (node,) = network.nodes
    assert isinstance(node, Reflection)
    # v v' = factor / 2 times the file's.
    expected = np.array(VECTOR, dtype=np.float32) * np.sqrt(factor / 2)
    assert np.all(np.abs(np.abs(node.vectors[0]) - np.abs(expected)) <= node.vector_error[0])
    assert Runtime(data).distance(network, np.random.default_rng(3), 5) < 1e-6


@pytest.mark.parametrize(
    "maker",
    [
        mirror([0.5, -0.25, 0.75, 0.1000001], VECTOR, 2.0, "Greater"),
        mirror([1.0, 0.0, 0.0, 0.0], VECTOR, 2.0, "Greater"),
        mirror(VECTOR, VECTOR, -2.0, "Greater"),
    ],
    ids=["nearly_parallel", "other_hyperplane", "stretched"],
)
def test_folded_householder_jumps(maker: Maker) -> None:
    """A gate that is not exactly the mirror's jumps: no bound can carry it."""
    with pytest.raises(CapabilityBlocked) as caught:
        read_network(maker.bytes(), (HOUSEHOLDER,))
    assert caught.value.code == "pattern-refuted"


def test_a_sort_whose_indices_are_used_is_refuted() -> None:
    maker = Maker([1, 4]).node("TopK", "x,k", "v,i", axis=1).node("Gather", "v,i", axis=1)
    with pytest.raises(CapabilityBlocked):
        read_network(
            maker.weight("k", [4]).bytes(), (Pattern(kind="groupsort", input="x", output="y"),)
        )
