"""Tensors of a file: exactly one data field, of exactly the size that the shape says, finite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.wire import (
    Value,
    fields,
    not_onnx,
    signed,
    text,
    varints,
)
from verifier.errors import (
    AmbiguousTensor,
    DtypeUnsupported,
    NonFiniteWeights,
    TensorSizeMismatch,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

#: number in the file -> (name, type of the raw bytes, the field that holds it unpacked)
_TYPES: dict[int, tuple[str, str, int]] = {
    1: ("float32", "<f4", 4),
    6: ("int32", "<i4", 5),
    7: ("int64", "<i8", 7),
    9: ("bool", "<u1", 5),
    10: ("float16", "<f2", 5),
    11: ("float64", "<f8", 10),
}
FLOATS = ("float16", "float32", "float64")
#: every type that may be declared for a tensor between nodes
NAMES = {number: name for number, (name, _, _) in _TYPES.items()}
_DATA_FIELDS = (4, 5, 6, 7, 9, 10, 11)
_RAW = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """Numbers as the file stores them; `array` is float64, int64 or bool and never written to."""

    dtype: str
    array: np.ndarray


def read_tensor(message: memoryview) -> tuple[str, Tensor]:
    """(name, content) of a TensorProto.

    Raises:
        AmbiguousTensor: data in two fields, or in segments.
        DtypeUnsupported: an element type other than float16, 32, 64, int32, 64 and bool.
        TensorSizeMismatch: the data have not the size that the shape says.
        NonFiniteWeights: an entry is nan or infinite.
    """
    parts: dict[int, list[Value]] = {}
    for number, _, value in fields(message):
        parts.setdefault(number, []).append(value)
    name = text(parts[8][0]) if 8 in parts else ""
    shown = name[:64]
    given = [number for number in _DATA_FIELDS if number in parts]
    if 3 in parts or len(given) > 1:
        raise AmbiguousTensor(f"tensor {shown!r} states its data twice", fix="export again")
    number = parts.get(2, [0])[0]
    if not isinstance(number, int) or number not in _TYPES:
        raise DtypeUnsupported(f"tensor {shown!r} has element type {number}", fix="use float32")
    dtype, raw, place = _TYPES[number]
    shape, count = _shape(parts.get(1, []), shown)
    if given and given[0] not in (place, _RAW):
        raise AmbiguousTensor(f"tensor {shown!r}: data in a foreign field", fix="export again")
    array = _numbers(parts, raw, place, count, shown)
    if dtype in FLOATS and not np.all(np.isfinite(array)):
        raise NonFiniteWeights(f"tensor {shown!r} is not finite", fix="export finite weights")
    return name, Tensor(dtype=dtype, array=_widened(array, dtype).reshape(shape))


def _shape(values: Sequence[Value], name: str) -> tuple[tuple[int, ...], int]:
    """(shape, its product), in integers that do not overflow."""
    dims = unpack_ints(values)
    count = 1
    for dim in dims:
        count *= dim
    if any(dim < 0 or dim >= 2**31 for dim in dims):
        raise _mismatch(name, f"shape {dims[:8]}")
    return tuple(dims), count


def _mismatch(name: str, what: str) -> TensorSizeMismatch:
    return TensorSizeMismatch(f"tensor {name!r}: {what}", fix="export again")


def _numbers(
    parts: dict[int, list[Value]], raw: str, place: int, count: int, name: str
) -> np.ndarray:
    """The `count` stored numbers, whichever field has them."""
    if _RAW in parts:
        chunk = parts[_RAW][0]
        item = np.dtype(raw).itemsize
        if not isinstance(chunk, memoryview) or len(chunk) != count * item:
            size = len(chunk) if isinstance(chunk, memoryview) else 0
            raise _mismatch(name, f"{size} bytes for {count} entries of {item}")
        return np.frombuffer(chunk, dtype=raw)
    values = parts.get(place, [])
    if raw in ("<f4", "<f8"):
        array = unpack_floats(values, raw)
    else:
        array = _from_varints(values, raw, name)
    if array.size != count:
        raise _mismatch(name, f"{array.size} entries for {count}")
    return array


def _from_varints(values: Sequence[Value], raw: str, name: str) -> np.ndarray:
    numbers = _unsigned(values)
    if raw == "<i8":
        return numbers.view(np.int64)
    whole = numbers.view(np.int64)
    low, high = {"<i4": (-(2**31), 2**31), "<f2": (0, 2**16), "<u1": (0, 2)}[raw]
    if np.any((whole < low) | (whole >= high)):
        raise _mismatch(name, "an entry outside its type")
    if raw == "<f2":
        return whole.astype(np.uint16).view(np.float16)
    return whole.astype(raw)


def _widened(array: np.ndarray, dtype: str) -> np.ndarray:
    """float64, int64 or bool: every conversion here is exact."""
    if dtype in FLOATS:
        return array.astype(np.float64)
    if dtype == "bool":
        if np.any(array > 1):
            raise not_onnx("a bool is neither 0 nor 1")
        return array.astype(np.bool_)
    return array.astype(np.int64)


# --- Repeated numbers, packed or not -------------------------------------------------------------


def _unsigned(values: Sequence[Value]) -> np.ndarray:
    chunks = [
        varints(value) if isinstance(value, memoryview) else np.array([value], dtype=np.uint64)
        for value in values
    ]
    return np.concatenate(chunks) if chunks else np.zeros(0, dtype=np.uint64)


def unpack_ints(values: Sequence[Value]) -> list[int]:
    """The int64s of a repeated field."""
    found: list[int] = []
    for value in values:
        if isinstance(value, memoryview):
            found.extend(int(i) for i in varints(value).view(np.int64))
        else:
            found.append(signed(value))
    return found


def unpack_floats(values: Sequence[Value], kind: str) -> np.ndarray:
    """The floats of a repeated field, of type "<f4" or "<f8"."""
    chunk = b"".join(bytes(value) for value in values if isinstance(value, memoryview))
    if len(chunk) % np.dtype(kind).itemsize:
        raise not_onnx("packed floats do not end where their field does")
    return np.frombuffer(chunk, dtype=kind)
