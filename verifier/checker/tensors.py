"""Tensors of a file: exactly one data field, of exactly the size that the shape says, finite."""

from __future__ import annotations

import math
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
    ExpansionTooLarge,
    NonFiniteWeights,
    TensorSizeMismatch,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

#: number in the file -> (name, type of the raw bytes, the field that holds it unpacked)
_TYPES: dict[int, tuple[str, str, int]] = {
    1: ("float32", "<f4", 4),
    2: ("uint8", "<u1", 5),
    3: ("int8", "<i1", 5),
    4: ("uint16", "<u2", 5),
    5: ("int16", "<i2", 5),
    6: ("int32", "<i4", 5),
    7: ("int64", "<i8", 7),
    9: ("bool", "<u1", 5),
    10: ("float16", "<f2", 5),
    11: ("float64", "<f8", 10),
    16: ("bfloat16", "<u2", 5),
    21: ("uint4", "<u1", 5),
    22: ("int4", "<u1", 5),
}
#: What is stored in int32_data: the least integer, and the first beyond the greatest.
_STORED = {
    "bfloat16": (0, 2**16), "bool": (0, 2), "float16": (0, 2**16), "int16": (-(2**15), 2**15),
    "int32": (-(2**31), 2**31), "int4": (0, 256), "int8": (-128, 128), "uint16": (0, 2**16),
    "uint4": (0, 256), "uint8": (0, 256),
}  # fmt: skip
HALVES = ("int4", "uint4")  #: two in a byte, the first one in its lower half
FLOATS = ("bfloat16", "float16", "float32", "float64")
#: every type that may be declared for a tensor between nodes
NAMES = {number: name for number, (name, _, _) in _TYPES.items()}
MAX_AXES = 16  #: of a tensor: numpy and run times have limits of their own above
_DATA_FIELDS = (4, 5, 6, 7, 9, 10, 11)
_RAW = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """Numbers as the file stores them; `array` is float64, int64 or bool and never written to."""

    dtype: str
    array: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Gapped:
    """Floats of which some are minus infinity; 0 stands there. Of another type, lest it be used."""

    dtype: str
    numbers: np.ndarray
    keeps: np.ndarray  #: true at the others


def read_tensor(message: memoryview) -> tuple[str, Tensor | Gapped]:
    """(name, content) of a TensorProto.

    Raises:
        AmbiguousTensor: data in two fields, or in segments.
        DtypeUnsupported: an element type other than float16, 32, 64, bfloat16, integers of 8 to 64
            bits (unsigned: to 16), bool.
        TensorSizeMismatch: the data have not the size that the shape says.
        NonFiniteWeights: an entry is nan or plus infinity.
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
    dtype, _, place = _TYPES[number]
    shape, count = _shape(parts.get(1, []), shown)
    if given and given[0] not in (place, _RAW):
        raise AmbiguousTensor(f"tensor {shown!r}: data in a foreign field", fix="export again")
    stored = -(-count // 2) if dtype in HALVES else count
    array = _numbers(parts, number, stored, shown)
    if dtype in HALVES:
        array = _halves(array, dtype, count)
    array = _as_float32(array) if dtype == "bfloat16" else array
    if dtype in FLOATS and not np.all(array < np.inf):
        raise NonFiniteWeights(f"tensor {shown!r} is not finite", fix="export finite weights")
    return name, _opened(_widened(array, dtype).reshape(shape), dtype)


def _opened(widened: np.ndarray, dtype: str) -> Tensor | Gapped:
    """The numbers, and apart from them where they are minus infinity."""
    if dtype not in FLOATS or np.all(np.isfinite(widened)):
        return Tensor(dtype=dtype, array=widened)
    keeps = np.asarray(np.isfinite(widened))
    return Gapped(dtype=dtype, numbers=np.where(keeps, widened, 0.0), keeps=keeps)


def _shape(values: Sequence[Value], name: str) -> tuple[tuple[int, ...], int]:
    """(shape, its product), in integers that do not overflow."""
    dims = unpack_ints(values)
    if MAX_AXES < len(dims):
        raise ExpansionTooLarge(f"tensor {name!r} has {len(dims)} axes", fix="export again")
    count = math.prod(dims)
    # numpy multiplies also what stands beside a 0.
    if any(dim < 0 or dim >= 2**31 for dim in dims) or math.prod(dim or 1 for dim in dims) > 2**40:
        raise _mismatch(name, f"shape {dims[:8]}")
    return tuple(dims), count


def _mismatch(name: str, what: str) -> TensorSizeMismatch:
    return TensorSizeMismatch(f"tensor {name!r}: {what}", fix="export again")


def _numbers(parts: dict[int, list[Value]], kind: int, count: int, name: str) -> np.ndarray:
    """The `count` stored numbers, whichever field has them."""
    dtype, raw, place = _TYPES[kind]
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
        array = _from_varints(values, dtype, raw, name)
    if array.size != count:
        raise _mismatch(name, f"{array.size} entries for {count}")
    return array


def _from_varints(values: Sequence[Value], dtype: str, raw: str, name: str) -> np.ndarray:
    numbers = _unsigned(values)
    if raw == "<i8":
        return numbers.view(np.int64)
    whole = numbers.view(np.int64)
    low, high = _STORED[dtype]
    if np.any((whole < low) | (whole >= high)):
        raise _mismatch(name, "an entry outside its type")
    if raw == "<f2":
        return whole.astype(np.uint16).view(np.float16)
    return whole.astype(raw)


def _halves(stored: np.ndarray, dtype: str, count: int) -> np.ndarray:
    """The numbers of four bits; those of int4 from 8 up are 16 less."""
    found = np.empty(2 * stored.size, dtype=np.int64)
    found[0::2], found[1::2] = stored % 16, stored // 16
    return np.where(found >= 8, found - 16, found)[:count] if dtype == "int4" else found[:count]


def _as_float32(bits: np.ndarray) -> np.ndarray:
    """The numbers whose bits are the upper halves of float32 numbers."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def nearest(numbers: np.ndarray, dtype: str) -> np.ndarray | None:
    """The float64 numbers in a type of the file, as `Tensor` holds them; None: it has not all.

    Floats are rounded, ties to even (bfloat16: of the nearest float32). Others are not rounded.
    """
    if dtype in FLOATS:
        with np.errstate(over="ignore"):
            found = _rounded(numbers, dtype)
        return found if np.all(np.isfinite(found)) else None
    limits = {"bool": (0, 1), "int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}
    if dtype not in limits:
        return None
    low, high = limits[dtype]
    if not all(float(number).is_integer() and low <= int(number) <= high for number in numbers):
        return None
    whole = np.array([int(number) for number in numbers], dtype=np.int64)
    return whole.astype(np.bool_) if dtype == "bool" else whole


def _rounded(numbers: np.ndarray, dtype: str) -> np.ndarray:
    if dtype != "bfloat16":
        return numbers.astype(dtype).astype(np.float64)
    bits = numbers.astype(np.float32).view(np.uint32)
    upper, lower = bits >> np.uint32(16), bits & np.uint32(0xFFFF)
    is_up = (lower > 0x8000) | ((lower == 0x8000) & (upper % 2 == 1))
    return _as_float32((upper + is_up).astype(np.uint16)).astype(np.float64)


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
