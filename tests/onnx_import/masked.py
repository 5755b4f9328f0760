"""Scores with minus infinity where a mask leaves entries out, as exporters write it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import numpy_helper

from tests.onnx_import.cases import Case
from tests.onnx_import.graphs import floats, integers, model, node

SEEN = np.tri(3, dtype=bool)
GONE = np.array(-np.inf, np.float32)
MASK = np.where(SEEN, np.float32(0), GONE)
CONSTANTS = {
    "m": MASK,
    "seen": SEEN,
    "unseen": ~SEEN,
    "-inf": GONE,
    "0": np.array(0, np.float32),
    "axis": integers(0),
    "square": integers(3, 3),
    "one": np.array(1, np.int64),
    "swap": integers(2, 3, 3),
}
SHAPE = (2, 3, 3)


def masked(nodes: Sequence[Any], axis: int = -1) -> bytes:
    """The softmax of what these nodes call s, made of x."""
    last = node("Softmax", ["s"], ["y"], axis=axis)
    return model([*nodes, last], CONSTANTS, shape=SHAPE, opset=18)


MASKED: Mapping[str, bytes] = {
    "a mask that is added": masked([node("Add", ["x", "m"], ["s"])]),
    "a mask along another axis": masked([node("Add", ["x", "m"], ["s"])], axis=1),
    "entries that are replaced": masked([node("Where", ["unseen", "-inf", "x"], ["s"])]),
    "a mask made of truths": masked(
        [
            node("Where", ["seen", "0", "-inf"], ["w"]),
            node("Unsqueeze", ["w", "axis"], ["u"]),
            node("Cast", ["u"], ["c"], to=1),
            node("Add", ["c", "x"], ["s"]),
        ]
    ),
    "a triangle of minus infinity": masked(
        [
            node(
                "ConstantOfShape", ["square"], ["f"], value=numpy_helper.from_array(GONE.reshape(1))
            ),
            node("Trilu", ["f", "one"], ["t"]),
            node("Add", ["x", "t"], ["s"]),
        ]
    ),
    "a masked signal that is moved": masked(
        [
            node("Constant", [], ["k"], value=numpy_helper.from_array(MASK)),
            node("Add", ["x", "k"], ["a"]),
            node("Add", ["a", "m"], ["b"]),
            node("Transpose", ["b"], ["t"], perm=[1, 0, 2]),
            node("Reshape", ["t", "swap"], ["s"]),
        ]
    ),
    "a guard against nan": model(
        [
            node("Add", ["x", "m"], ["s"]),
            node("Softmax", ["s"], ["p"], axis=-1),
            node("IsNaN", ["p"], ["n"]),
            node("Where", ["n", "0", "p"], ["y"]),
        ],
        CONSTANTS,
        shape=SHAPE,
        opset=18,
    ),
}
#: What minus infinity may not meet, by the operator that is named.
NOT_FINITE: Mapping[str, bytes] = {
    "MatMul": model([node("MatMul", ["x", "m"], ["y"])], CONSTANTS, shape=SHAPE),
    "Mul": model([node("Mul", ["x", "m"], ["y"])], CONSTANTS, shape=SHAPE),
    "Relu": model(
        [node("Add", ["x", "m"], ["s"]), node("Relu", ["s"], ["y"])], CONSTANTS, shape=SHAPE
    ),
    "Softmax": model(
        [node("Add", ["x", "-inf"], ["s"]), node("Softmax", ["s"], ["y"])], CONSTANTS, shape=SHAPE
    ),
    "output": model([node("Add", ["x", "m"], ["y"])], CONSTANTS, shape=SHAPE),
}  # fmt: skip
ATTENDED = [
    Case("Attention", (1, 2, 3, 4), {"is_causal": 1}, {}, ("x", "x", "x"), opset=23),
    Case("Attention", (1, 2, 3, 4), {}, {"m": MASK}, ("x", "x", "x", "m"), opset=23),
    Case(
        "Attention", (1, 2, 3, 2), {"is_causal": 1}, {"m": np.repeat([[True, True, False]], 3, 0)},
        ("x", "x", "x", "m"), opset=24,
    ),
    Case(
        "Attention", (1, 2, 3, 2), {"is_causal": 1}, {"m": floats(2, 3, 3)},
        ("x", "x", "x", "m"), opset=24,
    ),
    Case(
        "Attention", (2, 3, 8), {"q_num_heads": 2, "kv_num_heads": 2, "is_causal": 1}, {},
        ("x", "x", "x"), opset=23,
    ),
]  # fmt: skip


def grouped_heads(*, flat: bool) -> bytes:
    """Four heads of queries, two of keys and values."""
    attributes: dict[str, int] = {"is_causal": 1}
    nodes = [node("MatMul", ["x", name], [f"x{name}"]) for name in "qkv"]
    names = ["xq", "xk", "xv"]
    if flat:
        attributes |= {"q_num_heads": 4, "kv_num_heads": 2}
    else:
        nodes += [node("Reshape", [f"x{n}", f"{n}s"], [f"r{n}"]) for n in "qkv"]
        nodes += [node("Transpose", [f"r{n}"], [f"t{n}"], perm=[0, 2, 1, 3]) for n in "qkv"]
        names = ["tq", "tk", "tv"]
    nodes.append(node("Attention", names, ["y"], **attributes))
    constants = {"q": floats(3, 8), "k": floats(3, 4, seed=1), "v": floats(3, 6, seed=2)}
    constants |= {f"{name}s": integers(0, 0, 4 if name == "q" else 2, -1) for name in "qkv"}
    return model(nodes, constants, shape=(1, 3, 3), opset=23)
