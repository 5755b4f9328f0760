"""Files that are written to be misread: both readings are right about them, or refuse them."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np
import pytest
from onnx import helper

from tests.checker.evaluation import Runtime
from tests.onnx_import.graphs import info, model, node, proto, serialised
from verifier.checker.graph import read_network
from verifier.checker.maps import Composed, Diagonal
from verifier.checker.network import Affine
from verifier.errors import LipcertError
from verifier.onnx_import import load

Array = np.ndarray


def _f(*values: float) -> Array:
    return np.array(values, np.float32).squeeze()


def _i(*values: int, kind: type = np.int64) -> Array:
    return np.array(values, kind).squeeze()


def _sums(*shape: int) -> Array:
    return np.arange(prod(shape), dtype=np.float32).reshape(shape)


def _branch(nodes: list[Any], output: str) -> Any:  # noqa: ANN401 (a protobuf class)
    return helper.make_graph(nodes, "branch", [], [info(output, None)])


def _two_ifs() -> bytes:
    """Their branches call different values by one name."""

    def made(number: str, output: str) -> Any:  # noqa: ANN401 (a protobuf class)
        inner = [node("Add", [number, number], ["a"]), node("Mul", ["a", number], ["r"])]
        branches = {name: _branch(inner, "r") for name in ("then_branch", "else_branch")}
        return node("If", ["holds"], [output], **branches)

    nodes = [made("one", "p"), made("five", "q")]
    nodes += [node("Mul", ["x", "p"], ["z"]), node("Mul", ["z", "q"], ["y"])]
    return model(nodes, {"holds": np.array(True), "one": _f(1), "five": _f(5)})


def _two_ifs_on_signals() -> bytes:
    """Their branches call different signals by one name."""

    def made(factor: str, output: str) -> Any:  # noqa: ANN401 (a protobuf class)
        inner = _branch([node("Mul", ["x", factor], ["r"])], "r")
        return node("If", ["holds"], [output], then_branch=inner, else_branch=inner)

    nodes = [made("one", "p"), made("five", "q"), node("Add", ["p", "q"], ["y"])]
    return model(nodes, {"holds": np.array(True), "one": _f(1), "five": _f(5)})


def _resized(**attributes: Any) -> bytes:  # noqa: ANN401 (any attribute)
    made = node("Resize", ["x", "", "s"], ["y"], **attributes)
    return model([made], {"s": np.array([2], np.float32)}, opset=18, shape=(1, 1, 3, 2))


READ: Mapping[str, bytes] = {
    "one name in two Ifs": _two_ifs(),
    "signals of one name in two Ifs": _two_ifs_on_signals(),
    "axes of length 1 before a matrix": model(
        [node("MatMul", ["w", "x"], ["m"]), node("ReduceSum", ["m", "a"], ["y"], keepdims=0)],
        {"w": _sums(1, 3, 4), "a": np.array([0])},
        shape=(4, 2),
    ),
    "axes of length 1 before a matrix of a vector": model(
        [node("MatMul", ["w", "x"], ["m"]), node("ReduceSum", ["m", "a"], ["y"], keepdims=0)],
        {"w": _sums(1, 3, 4), "a": np.array([0])},
        shape=(4,),
    ),
    "axes of length 1 after a vector": model(
        [node("MatMul", ["x", "w"], ["m"]), node("Transpose", ["m"], ["t"]),
         node("Add", ["t", "m"], ["y"])],
        {"w": _sums(1, 4, 3)}, shape=(4,),
    ),
    "an axis that is not resized": _resized(
        axes=[3], nearest_mode="ceil", coordinate_transformation_mode="tf_half_pixel_for_nn"
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", READ)
def test_both_readings_compute_what_onnxruntime_computes(form: str) -> None:
    data = READ[form]
    assert Runtime(data).distance(read_network(data), np.random.default_rng(0), 2) < 1e-5
    if form != "an axis that is not resized":  # where onnxruntime has no halves at scale 1
        load(data).require_network()


def _scaled(nodes: list[Any], constants: Mapping[str, Array]) -> bytes:
    """X times the constant w of these nodes, as a float."""
    last = [node("Cast", ["w"], ["f"], to=1), node("Mul", ["x", "f"], ["y"])]
    return model([*nodes, *last], dict(constants), opset=18)


def _one(op: str, shape: tuple[int, ...] = (1, 4), opset: int = 18, **more: Any) -> bytes:  # noqa: ANN401 (constants, attributes)
    constants = {name: value for name, value in more.items() if isinstance(value, np.ndarray)}
    attributes = {name: value for name, value in more.items() if name not in constants}
    made = node(op, ["x", *constants], ["y"], **attributes)
    return model([made], constants, shape=shape, opset=opset)


IMAGE = (1, 1, 2, 4)
LARGE = {"c": _i(2**30, kind=np.int32)}
REFUSED: Mapping[str, bytes] = {
    "a sum that wraps": _scaled([node("Add", ["c", "c"], ["w"])], LARGE),
    "a product that wraps": _scaled([node("Mul", ["c", "c"], ["w"])], LARGE),
    "a Cast that wraps": _scaled([node("Cast", ["c"], ["w"], to=6)], {"c": _i(2**32 + 2**10)}),
    "a quotient of what has no magnitude": _scaled(
        [node("Div", ["c", "d"], ["w"])], {"c": _i(-(2**63)), "d": _i(2**40)}
    ),
    "a Cast that float64 rounds": _scaled(
        [node("Cast", ["c"], ["d"], to=11), node("Identity", ["d"], ["w"])],
        {"c": _i(2**53 + 1)},
    ),
    "the length of integers": _scaled([node("ReduceL2", ["c"], ["w"])], {"c": _i(1, 1)}),
    "a sum of truths": _scaled([node("Add", ["c", "c"], ["w"])], {"c": np.array(True)}),
    "minus a truth": _scaled([node("Neg", ["c"], ["w"])], {"c": np.array(True)}),
    "an exponent of more axes": model(
        [node("Pow", ["c", "e"], ["p"]), node("Transpose", ["p"], ["t"]),
         node("Add", ["x", "t"], ["y"])],
        {"c": _f(0, 1, 2, 3), "e": np.array([[2]], np.float32)},
    ),
    # 2^53 + 1 - 2^53 - 1/2 is 1/2, and -1/2 in float64.
    "a gate times a number of unknown sign": model(
        [node("Add", ["big", "one"], ["s"]), node("Sub", ["s", "big"], ["d"]),
         node("Sub", ["d", "half"], ["c"]), node("Mul", ["x", "c"], ["t"]),
         node("Sigmoid", ["x"], ["g"]), node("Mul", ["t", "g"], ["y"])],
        {"big": np.array(2.0**53), "one": np.array(1.0), "half": np.array(0.5)},
        inputs=[info("x", (1, 1), 11)], outputs=[info("y", None, 11)],
    ),
    "the length of nothing": _one("ReduceL2", noop_with_empty_axes=1),
    "an output without entries": model(
        [node("Slice", ["x", "i", "i", "i"], ["y"])], {"i": np.array([1])}
    ),
    "pads that cut too much": _one("Pad", (1, 3), p=_i(0, 4, 0, -5)),
    "pads that cut too much at once": _one("Pad", (1, 3), p=_i(0, -4, 0, 3)),
    "a size and a scale": model(
        [node("Resize", ["x", "", "s", "z"], ["y"])],
        {"s": _f(1, 1, 2, 2), "z": _i(1, 1, 3, 3)}, opset=18, shape=IMAGE,
    ),
    "Upsample after its time": _one("Upsample", IMAGE, 10, s=_f(1, 1, 2, 2)),
    "an attribute before its time": _one(
        "Resize", IMAGE, 10, s=_f(1, 1, 2, 2), coordinate_transformation_mode="align_corners"
    ),
    "the nearest of opset 10": _one("Resize", IMAGE, 10, s=_f(1, 1, 0.6, 0.6)),
    "features along some axis": model(
        [node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", scale=[1.0, 9.0], offset=[0.0, 0.0])],
        shape=(1, 2, 2), domains=("ai.onnx.ml",),
    ),
    "two labels that are one": model(
        [node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 1, 2])],
        domains=("ai.onnx.ml",),
    ),
    "a branch of fewer outputs": model(
        [node("If", ["holds"], ["y", "z"], **{
            name: _branch([node("Relu", ["x"], ["r"])], "r")
            for name in ("then_branch", "else_branch")
        })],
        {"holds": np.array(True)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", REFUSED)
def test_what_may_be_misread_is_refused(form: str) -> None:
    with pytest.raises(LipcertError) as caught:
        read_network(REFUSED[form])
    assert caught.value.fix


def _calling(read: str, *given: str) -> bytes:
    """A file whose own function reads `read`, called with these inputs; y/v is made outside."""
    body = helper.make_function(
        "local", "F", ["a"], ["o"], [node("Add", ["a", read], ["o"])], [helper.make_opsetid("", 18)]
    )
    nodes = [
        node("Neg", ["x"], ["y/v"]),
        node("F", list(given), ["y"], domain="local"),
    ]
    made = proto(nodes, domains=("local",), opset=18)
    made.functions.append(body)
    return serialised(made)


@pytest.mark.parametrize("data", [_calling("v", "x"), _calling("a", "x", "x")], ids=["v", "two"])
def test_a_function_reads_what_it_makes_and_takes_what_it_names(data: bytes) -> None:
    assert len(read_network(_calling("a", "x")).nodes) == 1
    with pytest.raises(LipcertError):
        read_network(data)


def _last_scale(data: bytes) -> tuple[Array, Array]:
    """The factors of the last affine node, and their errors."""
    affine = [item for item in read_network(data).nodes if isinstance(item, Affine)][-1]
    to = affine.terms[0].map
    to = to.second if isinstance(to, Composed) else to
    assert isinstance(to, Diagonal)
    assert to.error is not None
    return to.scale, to.error


def test_what_underflowed_is_not_forgotten_when_it_grows_again() -> None:
    """1e-38^9 is 0 in float64, and 1e-38^9 / 4 * 1e38^9 is not: its error says so."""
    factors = ["tiny"] * 8 + ["quarter"] + ["huge"] * 9
    constants = {"tiny": _f(1e-38), "quarter": _f(0.25), "huge": _f(1e38)}
    names = ["tiny", *(f"m{k}" for k in range(len(factors)))]
    nodes = [
        node("Mul", [name, factor], [after])
        for name, factor, after in zip(names, factors, names[1:], strict=False)
    ]
    nodes.append(node("Mul", ["x", names[-1]], ["y"]))
    scale, error = _last_scale(model(nodes, constants))
    true = Fraction(1)
    for name in ["tiny", *factors]:
        true *= Fraction(float(constants[name]))
    assert true > 0
    for value, spread in zip(scale, error, strict=True):
        assert abs(true - Fraction(float(value))) <= Fraction(float(spread))


def test_every_term_of_a_product_may_underflow() -> None:
    """s (2 + d) and r (1 + d) are 3s and 2r, d = 2^53 + 1 - 2^53 being 0 in float64."""
    nodes = [
        node("Add", ["big", "one"], ["e"]),
        node("Sub", ["e", "big"], ["d"]),
        node("Add", ["d", "two"], ["a"]),
        node("Add", ["d", "one"], ["b"]),
        node("Mul", ["a", "s"], ["left"]),
        node("Mul", ["b", "r"], ["right"]),
        node("MatMul", ["left", "right"], ["m"]),
        node("Mul", ["x", "m"], ["y"]),
    ]
    count, least = 1000, 2.0**-1074
    small = 0.245 * 2.0**-537  # of 2s r = 0.49 eta every product is rounded to 0
    constants = {
        "big": np.array(2.0**53),
        "one": np.array(1.0),
        "two": np.array(2.0),
        "s": np.full((1, count), 2.0**-537),
        "r": np.full((count, 1), small),
    }
    ends = {"inputs": [info("x", (1, 1), 11)], "outputs": [info("y", None, 11)]}
    scale, error = _last_scale(model(nodes, constants, **ends))
    true = count * Fraction(3 * 2.0**-537) * Fraction(2 * small)
    assert Fraction(scale[0]) < Fraction(least) < true
    assert abs(true - Fraction(scale[0])) <= Fraction(error[0])


def test_the_root_of_what_underflowed_has_the_root_of_its_error() -> None:
    """sqrt(1e-200 * 1e-200 x^2) is 1e-200 |x|, though the product is 0 in float64."""
    nodes = [
        node("Mul", ["x", "x"], ["s"]),
        node("Mul", ["s", "c"], ["t"]),
        node("Mul", ["t", "c"], ["u"]),
        node("Sqrt", ["u"], ["y"]),
    ]
    ends = {"inputs": [info("x", (1, 2), 11)], "outputs": [info("y", None, 11)]}
    network = read_network(model(nodes, {"c": np.array(1e-200)}, **ends))
    (parts,) = [item for item in network.nodes if item.name == "y:parts"]
    assert isinstance(parts, Affine)
    to = parts.terms[0].map
    assert isinstance(to, Diagonal)
    assert to.error is not None
    assert np.all(to.scale + to.error >= 1e-200)
