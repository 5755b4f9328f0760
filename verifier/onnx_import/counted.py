"""Constants that integers count: DequantizeLinear of stored weights, and QuantizeLinear of them.

    (q - z) s        and        clip(round(x/s) + z, least, greatest), ties to even,

for one step, one for every place along an axis, or one for every block along it.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Final

import numpy as np

from verifier.onnx_import.moves import axis_of
from verifier.onnx_import.tensors import ELEMENT_TYPES
from verifier.onnx_import.values import Constant

if TYPE_CHECKING:
    from verifier.onnx_import.call import Call

FOREIGN: Final = "com.microsoft::"  #: where 16 bits come from before opset 21
QUANTISERS: Final = frozenset({"QuantizeLinear", f"{FOREIGN}QuantizeLinear"})
DEQUANTISERS: Final = frozenset({"DequantizeLinear", f"{FOREIGN}DequantizeLinear"})
RANGES: Final = {
    "int4": (-8, 7),
    "uint4": (0, 15),
    "int8": (-128, 127),
    "uint8": (0, 255),
    "int16": (-(2**15), 2**15 - 1),
    "uint16": (0, 2**16 - 1),
}


def dequantised(call: Call) -> Constant:
    """(q - z) s."""
    counted = _constant(call, 0)
    step, zero = _spread(call, 1), _spread(call, 2)
    if counted.dtype not in {*RANGES, "int32"}:
        raise call.unsupported(f"operand 0 is {counted.dtype}")
    if call.input(2) is not None and _constant(call, 2).dtype != counted.dtype:
        raise call.attributes.invalid("x_zero_point", f"is no {counted.dtype}")
    dtype = _constant(call, 1).dtype
    check_output(call, dtype)
    return Constant.of(np.asarray((counted.array - zero) * step), dtype)


def quantised(call: Call) -> Constant:
    """clip(round(x/s) + z, least, greatest)."""
    kind = integers_of(call)
    if kind not in RANGES:
        raise call.unsupported(f"it counts in {kind}")
    if _constant(call, 0).dtype != _constant(call, 1).dtype:
        raise call.unsupported("its step is of another type than what it counts")
    step, zero = _spread(call, 1), _spread(call, 2)
    if not (0 < step).all():
        raise call.attributes.invalid("y_scale", "is not positive everywhere")
    rounded = np.rint(call.array(0) / step) + zero
    return Constant.of(np.asarray(np.clip(rounded, *RANGES[kind]), np.int64), kind)


def integers_of(call: Call) -> str:
    """The type in which QuantizeLinear counts: its zero point's, or as it says, or uint8."""
    given = call.input(2)
    number = 0
    if 19 <= call.opset:
        call.attributes.ignore("saturate")  # of 8-bit floats
    if 21 <= call.opset:
        number = call.attributes.integer("output_dtype", 0)
    if 23 <= call.opset:
        call.attributes.ignore("precision")  # of rounding
    said = ELEMENT_TYPES[number].name if number in ELEMENT_TYPES else f"element type {number}"
    if given is None:
        return said if number else "uint8"
    if number and said != given.dtype:
        raise call.attributes.invalid("output_dtype", "is not the type of the zero point")
    return given.dtype


def check_output(call: Call, dtype: str) -> None:
    """DequantizeLinear gives numbers of the step's type."""
    number = call.attributes.integer("output_dtype", 0) if 23 <= call.opset else 0
    if number and (number not in ELEMENT_TYPES or ELEMENT_TYPES[number].name != dtype):
        raise call.attributes.invalid("output_dtype", "is not the type of the step")


def along(call: Call) -> tuple[int, int]:
    """(axis, block size) that the attributes say; neither concerns a single step."""
    since = 13 <= call.opset or call.op.startswith(FOREIGN)
    axis = call.attributes.integer("axis", 1) if since else 0
    block = 0
    if 21 <= call.opset or call.op.startswith(FOREIGN):
        block = call.attributes.integer("block_size", 0)
    return axis, block


def _constant(call: Call, place: int) -> Constant:
    value = call.input(place)
    if not isinstance(value, Constant):
        raise call.unsupported(f"operand {place} is no constant")
    return value


def _spread(call: Call, place: int) -> np.ndarray:
    """Steps or zero points, so that they broadcast onto what is counted; 0 where left out."""
    axis, block = along(call)
    if call.input(place) is None:
        return np.zeros((), np.int64)
    array, shape = call.array(place), call.array(0).shape
    if array.size == 1 and array.ndim <= 1 and not block:
        return array.reshape(())
    axis = axis_of(call, axis, len(shape))
    if block:
        return _blocks(call, array, axis, block)
    if array.shape != (shape[axis],):
        raise call.unsupported(f"operand {place} has shape {array.shape} beside {shape}")
    return array.reshape([-1 if place == axis else 1 for place in range(len(shape))])


def _blocks(call: Call, array: np.ndarray, axis: int, block: int) -> np.ndarray:
    shape = list(call.array(0).shape)
    size = shape[axis]
    shape[axis] = ceil(size / block) if 0 < block else -1
    if list(array.shape) != shape:
        raise call.unsupported(f"its blocks of {block} do not fit")
    return np.take(array, np.arange(size) // block, axis=axis)
