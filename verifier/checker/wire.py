"""Protobuf's wire format and the messages of ONNX, read by hand and without trust.

`scan` walks the whole file once before anything is taken from it: every field has to be one that
ONNX defines, with its wire type, and once where it is not repeated; lengths end where their message
ends; messages and nesting are counted before anything is stored. The walk keeps its own stack, so
that nesting costs nothing. Views of the bytes are handed on; nothing is copied.

Knows no tensor and no graph. It also finds every tensor that points outside the file, wherever it
hides: in attributes, subgraphs, functions, sparse values, training information.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from verifier.errors import (
    ControlFlow,
    ExternalData,
    FileTooLarge,
    NotOnnx,
    TooManyNodes,
    UnknownField,
)

if TYPE_CHECKING:
    from jaxtyping import UInt64

MAX_BYTES = 512 * 2**20
MAX_MESSAGES = 2_000_000
MAX_WITH_SUBGRAPHS = 50_000  #: messages; such files are refused anyway, only later
MAX_NODES = 20_000
MAX_DEPTH = 100  # protobuf's own limit: deeper files are read by nobody

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

Value: TypeAlias = "int | memoryview"


class Spec(NamedTuple):
    """What one field of a message may be."""

    wire: int
    repeated: bool = False
    message: str | None = None  #: the message inside, for fields that hold one


def _one(wire: int) -> Spec:
    return Spec(wire)


def _many(wire: int) -> Spec:
    return Spec(wire, repeated=True)


def _sub(message: str) -> Spec:
    return Spec(BYTES, message=message)


def _subs(message: str) -> Spec:
    return Spec(BYTES, repeated=True, message=message)


_INT, _TEXT, _INTS, _TEXTS = _one(VARINT), _one(BYTES), _many(VARINT), _many(BYTES)
_PROPS = _subs("Entry")

#: Every field of every message that ONNX defines (IR 13), by number.
SCHEMA: Mapping[str, Mapping[int, Spec]] = {
    "Model": {
        1: _INT, 2: _TEXT, 3: _TEXT, 4: _TEXT, 5: _INT, 6: _TEXT, 7: _sub("Graph"),
        8: _subs("OperatorSet"), 14: _PROPS, 20: _subs("Training"), 25: _subs("Function"),
        26: _subs("DeviceConfiguration"),
    },
    "OperatorSet": {1: _TEXT, 2: _INT},
    "Entry": {1: _TEXT, 2: _TEXT},
    "Graph": {
        1: _subs("Node"), 2: _TEXT, 5: _subs("Tensor"), 10: _TEXT, 11: _subs("ValueInfo"),
        12: _subs("ValueInfo"), 13: _subs("ValueInfo"), 14: _subs("Annotation"),
        15: _subs("Sparse"), 16: _PROPS,
    },
    "Node": {
        1: _TEXTS, 2: _TEXTS, 3: _TEXT, 4: _TEXT, 5: _subs("Attribute"), 6: _TEXT, 7: _TEXT,
        8: _TEXT, 9: _PROPS, 10: _subs("NodeDevice"),
    },
    "Attribute": {
        1: _TEXT, 2: _one(FIXED32), 3: _INT, 4: _TEXT, 5: _sub("Tensor"), 6: _sub("Graph"),
        7: _many(FIXED32), 8: _INTS, 9: _TEXTS, 10: _subs("Tensor"), 11: _subs("Graph"),
        13: _TEXT, 14: _sub("Type"), 15: _subs("Type"), 20: _INT, 21: _TEXT, 22: _sub("Sparse"),
        23: _subs("Sparse"),
    },
    "Tensor": {
        1: _INTS, 2: _INT, 3: _sub("Segment"), 4: _many(FIXED32), 5: _INTS, 6: _TEXTS, 7: _INTS,
        8: _TEXT, 9: _TEXT, 10: _many(FIXED64), 11: _INTS, 12: _TEXT, 13: _PROPS, 14: _INT,
        16: _PROPS,
    },
    "Segment": {1: _INT, 2: _INT},
    "Sparse": {1: _sub("Tensor"), 2: _sub("Tensor"), 3: _INTS},
    "ValueInfo": {1: _TEXT, 2: _sub("Type"), 3: _TEXT, 4: _PROPS},
    "Type": {
        1: _sub("TensorType"), 4: _sub("SequenceType"), 5: _sub("MapType"), 6: _TEXT,
        7: _sub("Opaque"), 8: _sub("TensorType"), 9: _sub("SequenceType"),
    },
    "TensorType": {1: _INT, 2: _sub("Shape")},
    "SequenceType": {1: _sub("Type")},
    "MapType": {1: _INT, 2: _sub("Type")},
    "Opaque": {1: _TEXT, 2: _TEXT},
    "Shape": {1: _subs("Dimension")},
    "Dimension": {1: _INT, 2: _TEXT, 3: _TEXT},
    "Annotation": {1: _TEXT, 2: _PROPS},
    "Training": {1: _sub("Graph"), 2: _sub("Graph"), 3: _PROPS, 4: _PROPS},
    "Function": {
        1: _TEXT, 4: _TEXTS, 5: _TEXTS, 6: _TEXTS, 7: _subs("Node"), 8: _TEXT,
        9: _subs("OperatorSet"), 10: _TEXT, 11: _subs("Attribute"), 12: _subs("ValueInfo"),
        13: _TEXT, 14: _PROPS,
    },
    "DeviceConfiguration": {1: _TEXT, 2: _INT, 3: _TEXTS},
    "NodeDevice": {1: _TEXT, 2: _subs("Sharding"), 3: _INT},
    "Sharding": {1: _TEXT, 2: _INTS, 3: _subs("IntIntList"), 4: _subs("ShardedDim")},
    "IntIntList": {1: _INT, 2: _INTS},
    "ShardedDim": {1: _INT, 2: _subs("SimpleShardedDim")},
    "SimpleShardedDim": {1: _INT, 2: _TEXT, 3: _INT},
}  # fmt: skip

_EXTERNAL_DATA, _LOCATION = 13, 14  # of a Tensor
_DEPTH_OF_NODES = 2  # model, graph, node
_OPERAND_FIELDS = (1, 2)  # of a Node


def not_onnx(what: str) -> NotOnnx:
    """The refusal of bytes that are no ONNX file."""
    return NotOnnx(what, fix="give the file as the exporter wrote it")


def read_varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    """(the unsigned number at `at`, where it ends)."""
    value = shift = 0
    while at < end:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 2**64 or (byte == 0 and shift):
                raise not_onnx(f"the number that ends at byte {at} is over-long")
            return value, at
        shift += 7
        if shift > 63:
            break
    raise not_onnx(f"the number at byte {at} does not end")


def signed(value: int) -> int:
    """The int64 whose two's complement is `value`."""
    return value - 2**64 if value >= 2**63 else value


def fields(message: memoryview) -> Iterator[tuple[int, int, Value]]:
    """(number, wire type, value) of every field of one message, in the file's order."""
    at, end = 0, len(message)
    while at < end:
        tag = message[at]
        # Nearly every number has one byte: no call for those.
        if tag < 0x80:
            at += 1
        else:
            tag, at = read_varint(message, at, end)
        wire = tag & 7
        if wire == VARINT:
            value, at = read_varint(message, at, end)
            yield tag >> 3, wire, value
            continue
        size, at = _size(message, at, end, wire)
        if end - at < size:
            raise not_onnx(f"byte {at}: {size} bytes are announced, {end - at} are left")
        yield tag >> 3, wire, message[at : at + size]
        at += size


def _size(message: memoryview, at: int, end: int, wire: int) -> tuple[int, int]:
    """(how many bytes the payload has, where it starts)."""
    if wire == BYTES:
        return read_varint(message, at, end)
    if wire in (FIXED64, FIXED32):
        return (8 if wire == FIXED64 else 4), at
    raise not_onnx(f"byte {at}: a group or an unknown wire type")


def _check_field(kind: str, number: int, wire: int, seen: set[int]) -> Spec:
    """The field's specification. Raises: it has none, another wire type, or came before."""
    if number == 0 or wire not in (VARINT, FIXED64, BYTES, FIXED32):
        raise not_onnx(f"{kind} has a field of number {number} and wire type {wire}")
    spec = SCHEMA[kind].get(number)
    if spec is None:
        raise UnknownField(
            f"{kind} has field {number}, which ONNX does not define",
            fix="export again without foreign data in the file",
        )
    packed = spec.repeated and spec.wire != BYTES and wire == BYTES
    if wire != spec.wire and not packed:
        raise not_onnx(f"field {number} of {kind} has wire type {wire}")
    if number in seen and not spec.repeated:
        raise not_onnx(f"field {number} of {kind} appears twice")
    seen.add(number)
    return spec


class _Counts:
    """What may not grow beyond its limit, counted before anything is stored."""

    def __init__(self) -> None:
        self.messages = 0
        self.nodes = 0
        self.has_subgraph = False

    def message(self, kind: str, depth: int) -> None:
        """Count one more message."""
        self.messages += 1
        if self.messages > MAX_MESSAGES:
            raise TooManyNodes(
                f"the file has more than {MAX_MESSAGES} messages", fix="export a smaller graph"
            )
        if depth > MAX_DEPTH:
            raise not_onnx(f"messages are nested deeper than {MAX_DEPTH}")
        self.has_subgraph = self.has_subgraph or (kind == "Graph" and depth > 1)
        if self.has_subgraph and self.messages > MAX_WITH_SUBGRAPHS:
            raise ControlFlow("subgraphs", fix="export one straight graph")
        if kind == "Node" and depth == _DEPTH_OF_NODES:
            self.nodes += 1
            if self.nodes > MAX_NODES:
                raise TooManyNodes(
                    f"the graph has more than {MAX_NODES} nodes", fix="export a smaller graph"
                )

    def operands(self, number: int) -> None:
        """One node's operands so far."""
        if number > MAX_NODES:
            raise TooManyNodes(
                f"a node has more than {MAX_NODES} operands", fix="export a smaller graph"
            )


class _Frame:
    """A message that the walk is inside of."""

    __slots__ = ("fields", "kind", "operands", "seen")

    def __init__(self, kind: str, message: memoryview) -> None:
        self.kind = kind
        self.fields = fields(message)
        self.seen: set[int] = set()
        self.operands = 0


def _points_outside(kind: str, number: int, value: Value) -> bool:
    return kind == "Tensor" and (number == _EXTERNAL_DATA or (number == _LOCATION and value != 0))


def scan(data: bytes) -> memoryview:
    """The file's bytes, after every rule of the wire format has been checked.

    Raises:
        FileTooLarge, NotOnnx, UnknownField, TooManyNodes: the file breaks one.
        ExternalData: a tensor, anywhere, keeps its data outside the file.
    """
    if len(data) > MAX_BYTES:
        raise FileTooLarge(f"{len(data)} bytes; {MAX_BYTES} are allowed", fix="export less")
    if not data:
        raise not_onnx("the file is empty")
    counts = _Counts()
    is_external = False
    root = memoryview(data)
    frames = [_Frame("Model", root)]
    while frames:
        frame = frames[-1]
        item = next(frame.fields, None)
        if item is None:
            frames.pop()
            continue
        number, wire, value = item
        spec = _check_field(frame.kind, number, wire, frame.seen)
        if spec.message is not None and isinstance(value, memoryview):
            counts.message(spec.message, len(frames))
            frames.append(_Frame(spec.message, value))
        elif frame.kind == "Node" and number in _OPERAND_FIELDS:
            frame.operands += 1
            counts.operands(frame.operands)
        is_external = is_external or _points_outside(frame.kind, number, value)
    if is_external:
        raise ExternalData(
            "a tensor keeps its data outside the file", fix="save the model with inline weights"
        )
    return root


# --- Scalars and packed arrays -------------------------------------------------------------------


def varints(chunk: memoryview) -> UInt64[np.ndarray, " n"]:
    """The unsigned 64-bit numbers of a packed field, decoded together."""
    octets = np.frombuffer(chunk, dtype=np.uint8)
    ends = np.flatnonzero(octets < 0x80)
    if octets.size and (ends.size == 0 or ends[-1] != octets.size - 1):
        raise not_onnx("a packed number does not end")
    starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)
    lengths = ends - starts + 1
    if lengths.size and lengths.max() > 10:
        raise not_onnx("a packed number is over-long")
    values = np.zeros(ends.size, dtype=np.uint64)
    for place in range(int(lengths.max()) if lengths.size else 0):
        rows = np.flatnonzero(lengths > place)
        septet = octets[starts[rows] + place].astype(np.uint64) & np.uint64(0x7F)
        if place == 9 and np.any(septet > 1):
            raise not_onnx("a packed number exceeds 64 bits")
        values[rows] |= septet << np.uint64(7 * place)
    last = octets[ends]
    if np.any((last == 0) & (lengths > 1)):
        raise not_onnx("a packed number is over-long")
    return values


def text(value: Value) -> str:
    """UTF-8 text. Raises NotOnnx where it is none."""
    try:
        return bytes(value).decode("utf-8") if isinstance(value, memoryview) else ""
    except UnicodeDecodeError:
        raise not_onnx("a text is not UTF-8") from None
