"""The importer and the checker read one file alike: the same function, nodes of the same names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from tests.checker.evaluation import Runtime
from tests.onnx_import.graphs import floats, integers, model, node
from tests.onnx_import.lengths_and_states import LATER
from tests.onnx_import.masked import MASKED, NOT_FINITE, grouped_heads
from verifier.checker import network as checked
from verifier.checker.graph import read_network
from verifier.errors import CapabilityBlocked, DynamicShape, InvalidRequest, NonFiniteWeights
from verifier.network.nodes import Affine
from verifier.onnx_import import load
from verifier.property import Bind, Reading

LIMIT = np.array(0.25, np.float32)
NUMBERS = {
    "t": LIMIT,
    "-t": -LIMIT,
    "0": np.array(0.0, np.float32),
    "2": np.array(2.0, np.float32),
    "1/2": np.array(0.5, np.float32),
    "4": np.array(4.0, np.float32),
    "c": np.array(0.75, np.float32),
    "axes": integers(1),
    "-inf": np.array(-np.inf, np.float32),
}


def shrunk(limit: str = "t", other: str = "-t") -> bytes:
    """where(limit < x, x - t, 0) + where(x < other, x + t, 0)."""
    nodes = [
        node("Greater", ["x", limit], ["g"]),
        node("Sub", ["x", "t"], ["s"]),
        node("Where", ["g", "s", "0"], ["right"]),
        node("Less", ["x", other], ["l"]),
        node("Add", ["t", "x"], ["p"]),
        node("Where", ["l", "p", "0"], ["left"]),
        node("Add", ["left", "right"], ["y"]),
    ]
    return model(nodes, NUMBERS)


def shrunk_by_sign(zero: str = "0") -> bytes:
    """where(t < |x|, x - t sign(x), zero x)."""
    nodes = [
        node("Abs", ["x"], ["a"]),
        node("Greater", ["a", "t"], ["g"]),
        node("Sign", ["x"], ["s"]),
        node("Mul", ["t", "s"], ["m"]),
        node("Sub", ["x", "m"], ["d"]),
        node("Mul", ["x", zero], ["z"]),
        node("Where", ["g", "d", "z"], ["y"]),
    ]
    return model(nodes, NUMBERS)


def bent(
    test: tuple[str, str, str], *, yes: str = "x", no: str = "0", nodes: Sequence[Any] = ()
) -> bytes:
    """where(test, yes, no); m is -x/2, s is x - t."""
    lines = [
        node("Neg", ["x"], ["n"]),
        node("Mul", ["1/2", "n"], ["m"]),
        node("Sub", ["x", "t"], ["s"]),
    ]
    compared = [node(test[0], test[1:], ["g"])]
    return model([*lines, *compared, *nodes, node("Where", ["g", yes, no], ["y"])], NUMBERS)


def pooled(guard: str) -> bytes:
    """The l2 pooling of torch: powers, means, a guarded root."""
    nodes = [
        node("Pow", ["x", "2"], ["s"]),
        node("AveragePool", ["s"], ["m"], kernel_shape=[2, 2], strides=[2, 1]),
        node("Sign", ["m"], ["sign"]),
        node("Abs", [guard], ["size"]),
        node("Relu", ["size"], ["r"]),
        node("Mul", ["sign", "r"], ["same"]),
        node("Mul", ["same", "4"], ["sum"]),
        node("Pow", ["sum", "1/2"], ["y"]),
    ]
    return model(nodes, NUMBERS, shape=(1, 2, 4, 3))


def rooted(*, shift: bool) -> bytes:
    """The root of a sum of squares of two signals, and of c."""
    nodes = [
        node("MatMul", ["x", "W"], ["z"]),
        node("Mul", ["z", "z"], ["zz"]),
        node("Pow", ["x", "2"], ["xx"]),
        node("Mul", ["xx", "1/2"], ["half"]),
        node("Add", ["half", "zz"], ["s"]),
        node("Add", ["s", "c"], ["sc"]),
        node("Sqrt", ["sc" if shift else "s"], ["y"]),
    ]
    return model(nodes, NUMBERS | {"W": floats(4, 4)})


def softsign() -> bytes:
    """4 x / 2 / (c (t + |x/2|))."""
    nodes = [
        node("Mul", ["x", "1/2"], ["h"]),
        node("Abs", ["h"], ["a"]),
        node("Add", ["t", "a"], ["d"]),
        node("Mul", ["c", "d"], ["e"]),
        node("Mul", ["4", "h"], ["n"]),
        node("Div", ["n", "e"], ["y"]),
    ]
    return model(nodes, NUMBERS)


DENIED = model(
    [
        node("LessOrEqual", ["x", "0"], ["l"]),
        node("Not", ["l"], ["g"]),
        node("Shape", ["x"], ["n"]),
        node("ConstantOfShape", ["n"], ["zeros"]),
        node("Where", ["g", "x", "zeros"], ["y"]),
    ],
    NUMBERS,
)
FORMS: Mapping[str, bytes] = {
    "relu": bent(("Greater", "x", "0")),
    "relu with a mirrored test": bent(("Less", "0", "x")),
    "relu with its branches exchanged": bent(("LessOrEqual", "x", "0"), yes="0", no="x"),
    "relu denied, of zeros in x's shape": DENIED,
    "leaky relu that falls": bent(("GreaterOrEqual", "x", "0"), no="m"),
    "leaky relu upside down": bent(("Less", "x", "0"), no="m"),
    "a maximum with a number": bent(("GreaterOrEqual", "t", "x"), yes="t", no="x"),
    "a line cut off": bent(("Greater", "x", "t"), yes="s"),
    "soft shrinkage by sides": shrunk(),
    "soft shrinkage by the sign": shrunk_by_sign(),
    "l2 pooling": pooled("m"),
    "a modulus": rooted(shift=False),
    "a modulus above 0": rooted(shift=True),
    "softsign of any scale": softsign(),
    "heads that share keys": grouped_heads(flat=False),
    "heads side by side": grouped_heads(flat=True),
    **MASKED,
} | {str(case): case.data for case in LATER}
LOOK_ALIKE: Mapping[str, bytes] = {
    "a test at another number": bent(("Greater", "x", "t")),
    "a branch that is shifted": bent(("Greater", "x", "0"), yes="s"),
    "a branch of another tensor": bent(
        ("Greater", "x", "0"), yes="sin", nodes=[node("Sin", ["x"], ["sin"])]
    ),
    "a test of another tensor": bent(("Greater", "s", "0")),
    "a slope that is no float64": bent(
        ("Greater", "x", "0"), no="third", nodes=[node("Div", ["x", "c"], ["third"])]
    ),
    "minus infinity where a test says": bent(
        ("Greater", "x", "t"), no="gone", nodes=[node("Cast", ["-inf"], ["gone"], to=1)]
    ),
    "another limit": shrunk(limit="c"),
    "limits that do not meet": shrunk(other="0"),
    "a slope between": shrunk_by_sign(zero="c"),
    "the sign of another tensor": pooled("s"),
}


@pytest.mark.parametrize("form", FORMS)
def test_both_readings_compute_what_onnxruntime_computes(form: str) -> None:
    read = read_network(FORMS[form])
    assert Runtime(FORMS[form]).distance(read, np.random.default_rng(0), 3) < 1e-4
    searched = load(FORMS[form]).require_network()
    ours = {node.name for node in searched.nodes if not isinstance(node, Affine)}
    assert ours == {node.name for node in read.nodes if not isinstance(node, checked.Affine)}


def test_a_dimension_without_a_name_is_bound_by_its_place() -> None:
    data = model([node("Relu", ["x"], ["y"])], shape=(None, 3, None))
    bind = Bind(shapes=(("x[2]", 5),))
    assert read_network(data, (), Reading(bind=bind)).input_size == 15
    assert load(data, Reading(bind=bind)).require_network().input_size == 15
    for read in (lambda: load(data), lambda: read_network(data)):
        with pytest.raises(DynamicShape):
            read()
    with pytest.raises(InvalidRequest) as refusal:
        load(data, Reading(bind=Bind(shapes=(("x[1]", 5),))))
    assert refusal.value.fix == "bind one of x[0], x[2]"


@pytest.mark.parametrize("op", NOT_FINITE)
def test_minus_infinity_is_the_mask_of_a_softmax_or_refused(op: str) -> None:
    for read in (load, read_network):
        with pytest.raises(NonFiniteWeights) as refusal:
            read(NOT_FINITE[op])
        assert op in refusal.value.detail
        assert refusal.value.node


@pytest.mark.parametrize("form", LOOK_ALIKE)
def test_what_only_looks_like_it_jumps(form: str) -> None:
    with pytest.raises(CapabilityBlocked) as refusal:
        read_network(LOOK_ALIKE[form])
    assert refusal.value.code == "discontinuous-op"
    blocked = load(LOOK_ALIKE[form]).blocked
    assert blocked is not None
    assert blocked.code == "discontinuous-op"


def test_a_thresholded_softplus_is_named_with_its_remedy() -> None:
    nodes = [
        node("Softplus", ["x"], ["s"]),
        node("Greater", ["x", "4"], ["g"]),
        node("Where", ["g", "x", "s"], ["y"]),
    ]
    blocked = load(model(nodes, NUMBERS)).blocked
    assert blocked is not None
    assert (blocked.code, blocked.op) == ("discontinuous-op", "Where")
    assert "exporter" in blocked.fix
