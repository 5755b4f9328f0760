"""Cases of resampling, contractions, lengths and recurrent layers."""

from __future__ import annotations

import numpy as np

from tests.onnx_import.cases import Case, case
from tests.onnx_import.graphs import floats, integers
from tests.onnx_import.masked import ATTENDED
from tests.onnx_import.placed import PLACED

IMAGE = (1, 2, 7, 6)
NONE = np.zeros(0, np.float32)


def _scales(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float32)


def _resize(sizes: tuple[int, ...], **attributes: str | float) -> Case:
    constants = {"roi": NONE, "scales": NONE, "sizes": integers(1, 2, *sizes)}
    return Case("Resize", IMAGE, attributes, constants, ("x", *constants), opset=18)


RESAMPLED = [
    case("Upsample", [_scales(1, 1, 2, 3)], IMAGE, opset=9, mode="nearest"),
    case("Upsample", (), IMAGE, opset=7, mode="linear", scales=[1.0, 1.0, 2.0, 1.5]),
    case("Resize", [_scales(1, 1, 2, 2)], IMAGE, opset=10, mode="linear"),
    case("Resize", [NONE, _scales(1, 1, 2, 2)], IMAGE, opset=13),
    case("Resize", [NONE, _scales(1, 1, 1.5, 0.6)], IMAGE, opset=13, mode="linear"),
    _resize((5, 9), mode="linear", coordinate_transformation_mode="align_corners"),
    _resize((5, 1), mode="linear", coordinate_transformation_mode="pytorch_half_pixel"),
    _resize((5, 9), mode="linear", coordinate_transformation_mode="asymmetric"),
    _resize((5, 9), nearest_mode="ceil", coordinate_transformation_mode="asymmetric"),
    _resize((14, 3), nearest_mode="round_prefer_ceil"),
    _resize((5, 9), mode="cubic"),
    _resize((1, 4), mode="cubic", coordinate_transformation_mode="pytorch_half_pixel"),
    _resize((9, 4), mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5),
    _resize((3, 8), mode="linear", antialias=1),
    _resize((2, 4), mode="linear", antialias=1, exclude_outside=1),
    _resize((3, 2), mode="cubic", antialias=1, coordinate_transformation_mode="align_corners"),
    _resize((4, 8), mode="cubic", antialias=1, exclude_outside=1),
    case("Resize", [NONE, _scales(1, 1, 0.6, 1.3)], IMAGE, opset=11, mode="cubic"),
    Case(
        "Resize",
        IMAGE,
        {
            "axes": [3, 2],
            "mode": "linear",
            "coordinate_transformation_mode": "half_pixel_symmetric",
        },
        {"roi": NONE, "scales": _scales(1.3, 2.5)},
        ("x", "roi", "scales"),
        opset=19,
    ),
]
CONTRACTED = [
    case("Einsum", [floats(5, 4)], equation="bij,kj->bik"),
    case("Einsum", [floats(5, 4)], equation="...j,kj->...k"),
    case("Einsum", [floats(2, 4, 5)], equation="bij,bjk->kbi"),
    case("Einsum", [floats(3, 2)], flipped=True, equation=" ca, acd -> d"),
    case("Einsum", (), (3, 3), equation="ii->i"),
    case("Einsum", (), equation="bij->jb"),
    Case("Einsum", (2, 3), {"equation": "ij,kj->ik"}, inputs=("x", "x")),
    case("DFT", (), (2, 5, 1), axis=1),
    case("DFT", [np.array(4, np.int64)], (2, 5, 1), axis=1, onesided=1),
    case("DFT", (), (2, 3, 4, 2), axis=2, inverse=1),
    case("DFT", [np.array(6, np.int64), np.array(-2, np.int64)], (2, 5, 1), opset=20, onesided=1),
]
LENGTHS = [
    case("LpPool", (), IMAGE, kernel_shape=[2, 3], strides=[2, 1], pads=[1, 0, 0, 2]),
    case("LpPool", (), IMAGE, opset=18, kernel_shape=[3, 2], p=1, dilations=[2, 1], ceil_mode=1),
    case("GlobalLpPool", (), IMAGE, p=1),
    case("GlobalLpPool", (), IMAGE),
    case("ReduceL2", axes=[1], keepdims=0),
    case("ReduceL2", [integers(-1)], opset=18),
    case("ReduceL2"),
    case("ReduceL1", axes=[0, 2]),
    case("ReduceSumSquare", [integers(1)], opset=18, keepdims=0),
    case("ReduceLogSum", axes=[2]),
    case("ReduceLogSumExp", axes=[1, 2]),
    case("LpNormalization", axis=1, p=1),
    case("LpNormalization", p=2),
    case("MeanVarianceNormalization", (), IMAGE),
    case("MeanVarianceNormalization", axes=[0, 2]),
    case("LRN", (), (1, 5, 3, 2), size=3, alpha=0.5, bias=2.0),
    case("LRN", (), (2, 3, 4, 1), size=1, beta=0.5),
]


def _cell(op: str, gates: int, *states: int, steps: int = 3, **attributes: object) -> Case:
    """A layer of 2 sequences of 3 numbers and 2 states; `states` are the operands of states."""
    count = 2 if attributes.get("direction") == "bidirectional" else 1
    constants = {
        "w": floats(count, gates * 2, 3) / 2,
        "r": floats(count, gates * 2, 2, seed=1) / 2,
        "b": floats(count, 2 * gates * 2, seed=2) / 2,
    }
    constants |= {f"s{place}": floats(count, 2, 2, seed=place) / 4 for place in states}
    names = ("x", "w", "r", "b", "", *(f"s{place}" for place in states))
    outputs = ("", "y") if op == "GRU" else ("y",)
    return Case(op, (steps, 2, 3), {"hidden_size": 2, **attributes}, constants, names, outputs)


RECURRENT = [
    _cell("RNN", 1),
    _cell("RNN", 1, 5, direction="reverse", activations=["Relu"]),
    _cell("GRU", 3),
    _cell("GRU", 3, 5, direction="bidirectional", linear_before_reset=1),
    _cell("LSTM", 4, direction="bidirectional"),
    _cell("LSTM", 4, 5, 6, activations=["Sigmoid", "Tanh", "Relu"]),
]
ATTENTION = [
    Case("Attention", (1, 2, 3, 4), {}, {}, ("x", "x", "x"), opset=23),
    Case(
        "Attention",
        (1, 2, 3, 5),
        {"scale": 0.75, "softcap": 0.0, "is_causal": 0},
        {"mask": floats(3, 3)},
        ("x", "x", "x", "mask"),
        opset=23,
    ),
]
SELECTED = [
    Case("TopK", (2, 5), {"axis": 1}, {"k": integers(2)}, ("x", "k"), ("y", "i")),
    Case("TopK", (4, 3), {"axis": 0, "largest": 0}, {"k": integers(3)}, ("x", "k"), ("y", "i")),
]
SHARED = [
    case("GlobalMaxPool", (), IMAGE),
    case("Max", [np.array(0.25, np.float32)]),
    case("Min", [np.full((3, 1), 0.25, np.float32)], flipped=True),
    case("Max", [floats(3, 4)]),
    case("Min", [floats(2, 3, 1)]),
    case("RMSNormalization", [floats(1, 3, 4)], opset=23),
    case("Swish", opset=24, alpha=1.5),
    *(case(op) for op in ("Atan", "Asinh", "Sinh", "Cosh")),
    case("MatMul", [floats(2, 4, 5)]),
    case("MatMul", [floats(3, 2, 4, 2)], (1, 2, 3, 4)),
    case("MatMul", [floats(2, 5, 3)], (3, 4), flipped=True),
    Case("Mean", (2, 3), {}, {"c": floats(2, 1)}, ("x", "c", "x")),
]
LATER = [
    *PLACED,
    *ATTENDED,
    *SHARED,
    *ATTENTION,
    *SELECTED,
    *RESAMPLED,
    *CONTRACTED,
    *LENGTHS,
    *RECURRENT,
]
