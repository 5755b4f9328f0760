"""What integers count: constants by QuantizeLinear and DequantizeLinear, and grids of numbers.

    DequantizeLinear     s (q - z)
    QuantizeLinear       clip(round(x/s) + z, least, greatest), ties to even

A step has 24 bits and q - z at most 18, unless q is int32: their product is exact in float64. To
which side of n + 1/2 the quotient x/s lies is the sign of 2x - (2n + 1) s, of which the product is
exact too.
"""

from __future__ import annotations

import numpy as np

from verifier.checker.enclosures import TINY, U
from verifier.checker.folded import UP, finite
from verifier.checker.operands import Call, Constant, Grid

FOREIGN = "com.microsoft::"  #: where 16 bits come from before opset 21
QUANTISERS = ("QuantizeLinear", f"{FOREIGN}QuantizeLinear")
DEQUANTISERS = ("DequantizeLinear", f"{FOREIGN}DequantizeLinear")
RANGES = {
    "int4": (-8, 7),
    "uint4": (0, 15),
    "int8": (-128, 127),
    "uint8": (0, 255),
    "int16": (-(2**15), 2**15 - 1),
    "uint16": (0, 2**16 - 1),
}
_KINDS = {2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 21: "uint4", 22: "int4"}
_STEPS = {1: "float32", 10: "float16", 16: "bfloat16"}
_FAR = 2.0**20  #: steps beyond every range


def dequantised(call: Call) -> list[Constant]:
    """S (q - z) of stored integers."""
    call.arity(2, 3)
    counted, step = call.exact(0), steps_of(call, 1)
    if counted.dtype not in (*RANGES, "int32"):
        call.invalid(f"{counted.dtype} are no integers that it takes")
    numbers = counted.value - _spread(call, 2, zeros_of(call, 2, counted.dtype))
    check_type_of_result(call, step.dtype)
    value = numbers * _spread(call, 1, step.value)
    error = np.where(np.abs(numbers) < 2**29, 0.0, (np.abs(value) * U + TINY) * UP)
    return finite(call, value, error if np.any(error) else None, step.dtype)


def quantised(call: Call) -> list[Constant]:
    """The integers that count exact numbers."""
    call.arity(2, 3)
    counted, step, kind = call.exact(0), steps_of(call, 1), kind_of(call)
    zero = zeros_of(call, 2, kind)
    if counted.dtype != step.dtype:
        call.not_checkable(f"{counted.dtype} in steps of {step.dtype}")
    if np.any(step.value <= 0):
        call.invalid("a step that is not positive")
    steps = _spread(call, 1, step.value)
    with np.errstate(over="ignore"):
        half = np.floor(np.clip(counted.value / steps, -_FAR, _FAR)) + 0.5
    side = np.sign(2 * counted.value - 2 * half * steps)
    whole = np.where(side == 0, np.rint(half), half + side / 2)
    found = np.clip(whole + _spread(call, 2, zero), *RANGES[kind])
    return [Constant(found.astype(np.int64), kind)]


def grid_of(call: Call, dtype: str, kind: str, step: int = 1, zero: int = 2) -> Grid:
    """The grid of one step that two operands say.

    Args:
        call: the operator.
        dtype: the type of the numbers that are counted.
        kind: the type of the integers.
        step: the operand that is the step.
        zero: the operand that is the zero point.
    """
    found, start = steps_of(call, step), zeros_of(call, zero, kind)
    if found.value.size != 1 or found.value.ndim > 1 or start.size != 1 or start.ndim > 1:
        call.not_checkable("steps that differ along an axis")
    if kind not in RANGES:
        call.not_checkable(f"it counts in {kind}")
    number = float(found.value.reshape(()))
    if not number > 0:
        call.invalid(f"a step of {number}")
    if found.dtype != dtype:
        call.not_checkable(f"{dtype} in steps of {found.dtype}")
    return Grid(number, int(start.reshape(())), *RANGES[kind], kind)


def kind_of(call: Call) -> str:
    """The integers that leave: of the zero point's type, or as it says, or uint8."""
    given = call.optional(2)
    number = 0
    if call.opset >= 19:
        call.integer("saturate", 1)  # of 8-bit floats alone
    if call.opset >= 21:
        number = call.integer("output_dtype", 0)
    if call.opset >= 23:
        call.integer("precision", 0)  # of how the quotient is rounded
    said = _KINDS.get(number, "") if number else "uint8"
    kind = said if given is None else given.dtype
    if kind not in RANGES or (number and kind != said):
        call.not_checkable("integers of another type")
    return kind


def check_type_of_result(call: Call, dtype: str) -> None:
    """DequantizeLinear gives numbers of the step's type."""
    number = call.integer("output_dtype", 0) if call.opset >= 23 else 0
    if number and _STEPS.get(number) != dtype:
        call.not_checkable("numbers of another type than the step's")


def along(call: Call) -> tuple[int, int]:
    """(axis, size of a block) of steps that differ."""
    is_foreign = call.node.op.startswith(FOREIGN)
    axis = call.integer("axis", 1) if is_foreign or call.opset >= 13 else 0
    return axis, call.integer("block_size", 0) if is_foreign or call.opset >= 21 else 0


def steps_of(call: Call, place: int) -> Constant:
    """The steps, exact numbers of 24 bits."""
    found = call.exact(place)
    if found.dtype not in _STEPS.values():
        call.not_checkable(f"steps of {found.dtype}")
    with np.errstate(over="ignore"):
        if not np.array_equal(found.value.astype(np.float32), found.value):
            call.not_checkable("a step that float32 rounds")
    return found


def zeros_of(call: Call, place: int, kind: str) -> np.ndarray:
    """The zero points; 0 where they are left out."""
    if call.optional(place) is None:
        return np.zeros((), np.int64)
    found = call.exact(place)
    if found.dtype != kind:
        call.invalid(f"a zero point of {found.dtype} for {kind}")
    return found.value


def _spread(call: Call, place: int, array: np.ndarray) -> np.ndarray:
    """Steps or zero points as they broadcast onto the first operand."""
    shape = call.operand(0).shape
    axis, block = along(call)
    if array.size == 1 and array.ndim <= 1 and not block:
        return array.reshape(())
    if call.optional(place) is None:
        return array
    axis = call.axis(axis, len(shape))
    if block:
        return _blocks(call, shape, array, axis, block)
    if array.shape != (shape[axis],):
        call.mismatch(f"steps or zero points of shape {array.shape} beside {shape}")
    return array.reshape([-1 if place == axis else 1 for place in range(len(shape))])


def _blocks(
    call: Call, shape: tuple[int, ...], array: np.ndarray, axis: int, block: int
) -> np.ndarray:
    count = -(-shape[axis] // block) if block > 0 else -1
    if array.shape != (*shape[:axis], count, *shape[axis + 1 :]):
        call.mismatch(f"blocks of {block} beside {shape}")
    return np.repeat(array, block, axis=axis).take(range(shape[axis]), axis=axis)
