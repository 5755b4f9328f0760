"""A stored tensor: checked in unbounded integers before any array is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from verifier.errors import (
    AmbiguousTensor,
    DtypeUnsupported,
    ExpansionTooLarge,
    ExternalData,
    NonFiniteWeights,
    TensorSizeMismatch,
)
from verifier.onnx_import.wire import packed_varints, signed

if TYPE_CHECKING:
    from verifier.onnx_import.wire import Message

_DATA_FIELDS: Final = (
    "raw_data",
    "float_data",
    "int32_data",
    "string_data",
    "int64_data",
    "double_data",
    "uint64_data",
)
MAX_AXES: Final = 16  #: of a tensor; run times and libraries have limits of their own above
MAX_DIMENSION: Final = 2**40  #: also of their product, zeros left out


@dataclass(frozen=True, slots=True)
class ElementType:
    """How one of ONNX's element types is stored."""

    name: str
    dtype: np.dtype[Any]
    field: str  #: where its numbers stand if not in raw_data
    packed: int = 1  #: how many of them one stored number holds

    @property
    def is_float(self) -> bool:
        """Whether it is one of the real types of the data path."""
        return is_float(self.name)


ELEMENT_TYPES: Final[Mapping[int, ElementType]] = {
    1: ElementType("float32", np.dtype("<f4"), "float_data"),
    2: ElementType("uint8", np.dtype("<u1"), "int32_data"),
    3: ElementType("int8", np.dtype("<i1"), "int32_data"),
    4: ElementType("uint16", np.dtype("<u2"), "int32_data"),
    5: ElementType("int16", np.dtype("<i2"), "int32_data"),
    6: ElementType("int32", np.dtype("<i4"), "int32_data"),
    7: ElementType("int64", np.dtype("<i8"), "int64_data"),
    9: ElementType("bool", np.dtype("?"), "int32_data"),
    10: ElementType("float16", np.dtype("<f2"), "int32_data"),
    11: ElementType("float64", np.dtype("<f8"), "double_data"),
    12: ElementType("uint32", np.dtype("<u4"), "uint64_data"),
    13: ElementType("uint64", np.dtype("<u8"), "uint64_data"),
    16: ElementType("bfloat16", np.dtype("<u2"), "int32_data"),  #: the upper half of a float32
    21: ElementType("uint4", np.dtype("<u1"), "int32_data", 2),  #: the lower half of a byte first
    22: ElementType("int4", np.dtype("<u1"), "int32_data", 2),
}
_BY_NAME: Final = {kind.name: kind for kind in ELEMENT_TYPES.values()}


def is_float(name: str) -> bool:
    """Whether an element type holds real numbers."""
    return name in {"bfloat16", "float16", "float32", "float64"}


def nearest(numbers: np.ndarray, name: str) -> np.ndarray | None:
    """The float64 numbers rounded to an element type; None where it cannot hold them.

    Floats go to the nearest, ties to even; integers and truth values have to be such already.
    """
    if name == "bfloat16":
        rounded = _rounded_bfloat16(numbers)
    elif is_float(name):
        with np.errstate(over="ignore"):
            rounded = numbers.astype(_BY_NAME[name].dtype)
    elif name not in _BY_NAME or 1 < _BY_NAME[name].packed:
        return None
    else:
        rounded = _whole(numbers, _BY_NAME[name].dtype)
    return rounded if rounded is not None and np.isfinite(rounded).all() else None


def _rounded_bfloat16(numbers: np.ndarray) -> np.ndarray:
    """Float32 numbers of eight bits: to the nearest of float32 first, as run times do."""
    with np.errstate(over="ignore"):
        bits = numbers.astype("<f4").view(np.uint32)
    halves = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (halves & np.uint32(0xFFFF0000)).view("<f4")


def _whole(numbers: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray | None:
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    is_whole = all(float(i).is_integer() and low <= int(i) <= high for i in numbers)
    return np.array([int(i) for i in numbers], dtype) if is_whole else None


def element_type(number: int, where: str) -> ElementType:
    """The element type of this number, or `DtypeUnsupported`."""
    if number not in ELEMENT_TYPES:
        raise DtypeUnsupported(
            f"{where} has element type {number}; float16, bfloat16, float32, float64, integers and "
            "bool are supported",
            node=where,
            fix="export the model in float32",
        )
    return ELEMENT_TYPES[number]


def check(tensor: Message, where: str) -> None:
    """Refuses a tensor whose data are elsewhere, doubtful, of the wrong size, nan or infinite."""
    if tensor.number("data_location") != 0 or tensor.has("external_data"):
        raise ExternalData(
            f"tensor {where!r} keeps its data outside the file",
            node=where,
            fix="save the model with all weights inside the file (save_as_external_data=False)",
        )
    given = [name for name in _DATA_FIELDS if tensor.has(name)]
    if tensor.has("segment") or 1 < len(given):
        raise AmbiguousTensor(
            f"tensor {where!r} states its data in {' and '.join(['segment', *given])}",
            node=where,
            fix="export the model again: one data field a tensor",
        )
    kind = element_type(tensor.number("data_type"), where)
    dims = _dims(tensor)
    check_axes(dims, where)
    # Beside a 0 the others count as well: numpy multiplies them.
    if min(dims, default=0) < 0 or MAX_DIMENSION < prod(dim or 1 for dim in dims):
        raise TensorSizeMismatch(
            f"tensor {where!r} has dimensions {dims}",
            node=where,
            fix="export the model again: dimensions are at least 0, their product at most 2^40",
        )
    if _stored_count(tensor, kind) != (-(-prod(dims) // kind.packed), 0):
        raise TensorSizeMismatch(
            f"tensor {where!r} has shape {dims}, {prod(dims)} entries of {kind.name}; "
            "its data have another size",
            node=where,
            fix="export the model again; the file may be damaged",
        )
    # Minus infinity may be the mask of a softmax: who uses it decides.
    if kind.is_float and not (array(tensor) < np.inf).all():
        raise NonFiniteWeights(
            f"tensor {where!r} has an entry that is nan or infinite",
            node=where,
            fix="train or export again: every weight has to be finite",
        )


def check_axes(shape: Sequence[object], where: str) -> None:
    """Raises ExpansionTooLarge where a tensor has more axes than any network needs."""
    if MAX_AXES < len(shape):
        raise ExpansionTooLarge(
            f"tensor {where!r} has {len(shape)} axes; at most {MAX_AXES} are supported",
            node=where,
            fix="export a model whose tensors have fewer axes",
        )


def array(tensor: Message) -> np.ndarray:
    """The numbers as stored; only after `check`."""
    kind = ELEMENT_TYPES[tensor.number("data_type")]
    dims = _dims(tensor)
    if tensor.has("raw_data"):
        stored = np.frombuffer(tensor.views["raw_data"][0], kind.dtype)
        return _widened(stored, kind, prod(dims)).reshape(dims)
    if kind.field in {"float_data", "double_data"}:
        parts = tensor.views.get(kind.field, [])
        return np.frombuffer(b"".join(parts), kind.dtype).reshape(dims)
    numbers = np.array(list(_varints(tensor, kind.field)), np.int64)
    if kind.name == "float16":  # the bits, as an integer
        return numbers.astype(np.uint16).view(np.float16).reshape(dims)
    return _widened(numbers.astype(kind.dtype), kind, prod(dims)).reshape(dims)


def _widened(stored: np.ndarray, kind: ElementType, count: int) -> np.ndarray:
    """The bits of bfloat16 as float32 numbers, halves of bytes one by one; others as they are."""
    if 1 < kind.packed:
        halves = np.stack([stored & 15, stored >> 4], axis=1).reshape(-1)[:count].astype(np.int8)
        return halves if kind.name == "uint4" else (halves ^ 8) - 8
    if kind.name != "bfloat16":
        return stored
    return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _stored_count(tensor: Message, kind: ElementType) -> tuple[int, int]:
    """How many numbers are stored, and the bytes left over."""
    if tensor.has("raw_data"):
        return divmod(tensor.views["raw_data"][0].nbytes, kind.dtype.itemsize)
    if kind.field in {"float_data", "double_data"}:
        size = sum(view.nbytes for view in tensor.views.get(kind.field, ()))
        return divmod(size, kind.dtype.itemsize)
    return sum(1 for _ in _varints(tensor, kind.field)), 0


def _dims(tensor: Message) -> tuple[int, ...]:
    return tuple(_varints(tensor, "dims"))


def _varints(message: Message, name: str) -> Iterator[int]:
    """A repeated int64 field, packed or not."""
    yield from map(signed, message.numbers.get(name, ()))
    for view in message.views.get(name, ()):
        yield from map(signed, packed_varints(view))


def integers(message: Message, name: str) -> tuple[int, ...]:
    """A repeated int64 field."""
    return tuple(_varints(message, name))


def floats(message: Message, name: str) -> tuple[float, ...]:
    """A repeated float32 field."""
    data = b"".join(message.views.get(name, ()))
    with np.errstate(invalid="ignore"):  # what is no number is refused elsewhere
        return tuple(np.frombuffer(data, "<f4").astype(np.float64).tolist())
