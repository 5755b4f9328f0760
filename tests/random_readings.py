"""Random small files of operators that move, pool, resize and fold: where readers may differ.

Every block appends nodes to an image of shape (1, C, H, W); constants are computed from constants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from tests.onnx_import.graphs import info, node, proto, serialised

Array: TypeAlias = np.ndarray
Shape: TypeAlias = tuple[int, int, int, int]


class Draft:
    """A file while it grows."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        height, width = (int(n) for n in self.rng.integers(2, 5, 2))
        self.shape: Shape = (1, 2, height, width)
        self.start = self.shape
        self.last = "x"
        self.nodes: list[Any] = []
        self.constants: dict[str, Array] = {}
        self.blocks: list[str] = []

    def pick(self, *given: Any) -> Any:  # noqa: ANN401 (any attribute)
        """One of them."""
        return given[int(self.rng.integers(len(given)))]

    def constant(self, value: Array | list[int] | float) -> str:
        """A stored number or list: integers as int64, all else as float32."""
        array = np.asarray(value)
        name = f"c{len(self.constants)}"
        self.constants[name] = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        return name

    def apply(self, op: str, *more: str, **attributes: Any) -> str:  # noqa: ANN401 (any attribute)
        """A node of the last tensor and others, which is the last one then."""
        self.last = self.made(op, self.last, *more, **attributes)
        return self.last

    def made(self, op: str, *inputs: str, **attributes: Any) -> str:  # noqa: ANN401 (any attribute)
        """A node of these tensors."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(node(op, inputs, [name], **attributes))
        return name

    def computed(self, *shape: int) -> str:
        """A constant above 0 that is computed, also through small ones."""
        found = self.constant(self.rng.uniform(0.25, 1.5, shape))
        other = self.constant(self.rng.uniform(0.5, 1.5, shape))
        tiny, huge = self.constant(2.0**-50), self.constant(2.0**50)
        match int(self.rng.integers(6)):
            case 0:
                return self.made("Sqrt", self.made("Add", found, other))
            case 1:
                return self.made("Div", found, self.made("Pow", other, self.constant(2.0)))
            case 2:
                shrunk = self.made("Mul", self.made("Mul", found, tiny), tiny)
                return self.made("Mul", self.made("Mul", shrunk, huge), huge)
            case 3:
                greater = self.made("Greater", found, other)
                return self.made("Where", greater, found, self.made("Sigmoid", other))
            case 4:
                whole = self.made("Div", self.constant([7, 9]), self.constant(2))
                sums = self.made("ReduceSum", whole, keepdims=0)
                return self.made("Mul", found, self.made("Cast", sums, to=1))
            case _:
                return self.made("Min", found, other)

    def file(self) -> bytes:
        """The bytes."""
        self.nodes.append(node("Identity", [self.last], ["y"]))
        ends = {"inputs": [info("x", self.start)], "outputs": [info("y", None)]}
        return serialised(proto(self.nodes, self.constants, opset=19, ir=9, **ends))


def _resize(draft: Draft) -> None:
    mode = draft.pick("nearest", "linear", "cubic")
    where = draft.pick(
        "half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"
    )
    chosen: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": where}
    if mode == "nearest":
        chosen["nearest_mode"] = draft.pick(
            "round_prefer_floor", "round_prefer_ceil", "floor", "ceil"
        )
    elif draft.pick(True, False):
        chosen |= {"antialias": 1, "exclude_outside": draft.pick(0, 1)}
    height, width = (int(n) for n in draft.rng.integers(1, 6, 2))
    axes = draft.pick([2, 3], [-1, 2])
    sizes = [height, width] if axes == [2, 3] else [width, height]
    draft.apply("Resize", "", "", draft.constant(sizes), axes=axes, **chosen)
    draft.shape = (*draft.shape[:2], height, width)


def _lp_pool(draft: Draft) -> None:
    _, channels, height, width = draft.shape
    rows, columns = (int(draft.rng.integers(1, min(n, 2) + 1)) for n in (height, width))
    pads = [int(draft.rng.integers(k)) for k in (rows, columns, rows, columns)]
    stride = draft.pick(1, 2)
    draft.apply(
        "LpPool", kernel_shape=[rows, columns], strides=[stride, 1], pads=pads, p=draft.pick(1, 2)
    )
    down = (height + pads[0] + pads[2] - rows) // stride + 1
    draft.shape = (1, channels, down, width + pads[1] + pads[3] - columns + 1)


def _root(draft: Draft) -> None:
    """The root of a weighted sum of squares over channels, perhaps of 1/4 more."""
    draft.apply("Mul", draft.last)
    draft.apply("Mul", draft.computed(1, draft.shape[1], 1, 1))
    draft.apply("ReduceSum", draft.constant([draft.pick(1, -3)]))
    if draft.pick(True, False):
        draft.apply("Add", draft.constant(0.25))
    draft.apply("Sqrt")
    draft.shape = (1, 1, *draft.shape[2:])


def _matrix(draft: Draft) -> None:
    """A matrix with leading axes of length 1, from the left or from the right."""
    _, channels, height, width = draft.shape
    if draft.pick(True, False):
        draft.apply("MatMul", draft.computed(1, 1, width, 2))
        draft.shape = (1, channels, height, 2)
    else:
        draft.last = draft.made("MatMul", draft.computed(1, 1, 3, height), draft.last)
        draft.shape = (1, channels, 3, width)


def _pad(draft: Draft) -> None:
    _, channels, height, width = draft.shape
    pads = (
        [int(n) for n in draft.rng.integers(0, 2, 2)],
        [int(n) for n in draft.rng.integers(0, 2, 2)],
    )
    mode = draft.pick("constant", "edge")
    form = [0, 0, *pads[0], 0, 0, *pads[1]]
    draft.apply("Pad", draft.constant(form), draft.constant(0.5), mode=mode)
    draft.shape = (1, channels, height + pads[0][0] + pads[1][0], width + pads[0][1] + pads[1][1])


def _slice(draft: Draft) -> None:
    """Every second row, backwards."""
    numbers = (draft.constant([n]) for n in (-1, -(2**31), 2, -2))
    draft.apply("Slice", *numbers)
    draft.shape = (1, draft.shape[1], (draft.shape[2] + 1) // 2, draft.shape[3])


def _concat(draft: Draft) -> None:
    draft.apply("Concat", draft.computed(*draft.shape), axis=draft.pick(1, -3))
    draft.shape = (1, 2 * draft.shape[1], *draft.shape[2:])


def _scale(draft: Draft) -> None:
    draft.apply(draft.pick("Mul", "Div", "Sub"), draft.computed(draft.shape[3]))


def _relu(draft: Draft) -> None:
    draft.apply(draft.pick("Relu", "Tanh", "Abs"))


BLOCKS: Mapping[str, Callable[[Draft], None]] = {
    "concat": _concat,
    "matrix": _matrix,
    "pad": _pad,
    "pool": _lp_pool,
    "relu": _relu,
    "resize": _resize,
    "root": _root,
    "scale": _scale,
    "slice": _slice,
}


def random_reading(seed: int) -> Draft:
    """Four blocks, the first of which goes round."""
    draft = Draft(seed)
    names = sorted(BLOCKS)
    for place in range(4):
        name = names[(seed if place == 0 else int(draft.rng.integers(len(names)))) % len(names)]
        BLOCKS[name](draft)
        draft.blocks.append(name)
    return draft
