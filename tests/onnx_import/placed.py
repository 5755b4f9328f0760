"""Cases of entries that are put, kept, added up or left out at places that the file fixes."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.onnx_import.cases import Case, case
from tests.onnx_import.graphs import floats, integers

TRUE = np.array([[True], [False], [True]])
COLUMNS = np.array([[[0, 3], [-1, 1], [2, 2]]], np.int64)
ROWS = np.array([[[0, 3], [-1, 1], [2, 0]], [[1, 2], [0, 1], [3, 2]]], np.int64)
VECTORS = np.array([[0, -1], [1, 2]], np.int64)


def _scattered(op: str, places: Any, updates: tuple[int, ...], **attributes: Any) -> list[Case]:  # noqa: ANN401 (arrays, attributes)
    """Updates of the input, and of a constant by the input."""
    constants = {"i": places, "u": floats(*updates, seed=3)}
    more = {"i": places, "c": floats(2, 3, 4, seed=4)}
    return [
        Case(op, (2, 3, 4), attributes, constants, ("x", "i", "u"), opset=18),
        Case(op, updates, attributes, more, ("c", "i", "x"), opset=18),
    ]


PLACED = [
    Case("Where", constants={"c": TRUE, "b": floats(4)}, inputs=("c", "x", "b")),
    Case("Where", (4,), constants={"c": TRUE, "b": floats(2, 1, 1)}, inputs=("c", "b", "x")),
    Case("Where", constants={"c": TRUE}, inputs=("c", "x", "x")),
    *_scattered("ScatterElements", ROWS, ROWS.shape, axis=2),
    *_scattered("ScatterND", VECTORS, (2, 4)),
    *_scattered("ScatterND", integers(1).reshape(1, 1), (1, 3, 4), reduction="add"),
    Case(
        "ScatterElements",
        COLUMNS.shape,
        {"axis": 2, "reduction": "add"},
        {"c": floats(2, 3, 4), "i": COLUMNS},
        ("c", "i", "x"),
        opset=18,
    ),
    Case(
        "Scatter", (3, 3), {"axis": 1}, {"i": integers(2, 0).reshape(1, 2), "u": floats(1, 2)},
        ("x", "i", "u"), opset=9,
    ),
    case("GatherElements", [ROWS], axis=2),
    case("GatherElements", [COLUMNS], axis=-1),
    case("GatherND", [VECTORS]),
    case("GatherND", [np.array([[[0]], [[-1]]], np.int64)], batch_dims=1),
    case("Trilu"),
    case("Trilu", [np.array(1, np.int64)]),
    case("Trilu", [np.array(-1, np.int64)], upper=0),
    case("CumSum", [np.array(1, np.int64)]),
    case("CumSum", [np.array(-1, np.int64)], exclusive=1, reverse=1),
    case("Col2Im", [integers(4, 3), integers(2, 2)], (1, 8, 6), opset=18),
    case(
        "Col2Im", [integers(5, 6), integers(1, 3)], (2, 3, 9), opset=18,
        pads=[0, 1, 1, 0], strides=[2, 1], dilations=[1, 2],
    ),
    case("Col2Im", [integers(5), integers(2)], (1, 4, 4), opset=18),
]  # fmt: skip
