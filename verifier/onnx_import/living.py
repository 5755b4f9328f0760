"""The bytes of a file without what nothing needs: what a run time is given to run.

A run time runs every node of a file, also one whose result nothing reads, of which nothing here
has been read or measured. So such nodes are cut out of the bytes, with the outputs that are not
compared; every other byte stays. What is cut by mistake is missed: the run fails, and the file is
refused.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Final, TypeAlias

from verifier.onnx_import.reader import reached
from verifier.onnx_import.wire import varint_at

if TYPE_CHECKING:
    from verifier.onnx_import.inline import Operator
    from verifier.onnx_import.reader import Graph

#: (number of the field, its bytes with the tag, its bytes without)
_Field: TypeAlias = "tuple[int, memoryview, memoryview]"

_GRAPH: Final = 7  #: of a model
_NODE, _OUTPUT, _NAME = 1, 12, 1  #: of a graph; of an output
_FIXED: Final = {1: 8, 5: 4}  #: bytes by wire type


def living(data: bytes, graph: Graph, names: Collection[str]) -> bytes:
    """The file's bytes, without the nodes that the outputs of these names do not need."""
    places = reached(graph.operators, names)
    if len(places) == graph.node_count and len(names) == len(graph.outputs):
        return data
    return _rebuilt(memoryview(data), lambda at, field: _model_field(at, field, places, names))


def idle(graph: Graph, names: Collection[str]) -> list[Operator]:
    """The operators that such a run computes for nothing: parts of functions that are called."""
    places = reached(graph.operators, names)
    wanted, found = set(names), list["Operator"]()
    for operator in reversed(graph.operators):
        if not wanted.isdisjoint(operator.outputs):
            wanted.update(operator.reads)
        elif operator.place in places:
            found.append(operator)
    return found


def _rebuilt(view: memoryview, kept: Callable[[int, _Field], bytes | memoryview]) -> bytes:
    """A message of what is kept of each field; with its place among those of its number."""
    counts: dict[int, int] = {}
    parts: list[bytes | memoryview] = []
    for field in _fields(view):
        place = counts.get(field[0], 0)
        counts[field[0]] = place + 1
        parts.append(kept(place, field))
    return b"".join(parts)


def _model_field(
    _at: int, field: _Field, places: Collection[int], names: Collection[str]
) -> bytes | memoryview:
    number, whole, inside = field
    if number != _GRAPH:
        return whole
    graph = _rebuilt(inside, lambda at, part: _graph_field(at, part, places, names))
    return _varint(_GRAPH << 3 | 2) + _varint(len(graph)) + graph


def _graph_field(
    at: int, field: _Field, places: Collection[int], names: Collection[str]
) -> bytes | memoryview:
    number, whole, inside = field
    if number == _NODE:
        return whole if at in places else b""
    if number == _OUTPUT:
        name = next((part for field, _, part in _fields(inside) if field == _NAME), b"")
        return whole if bytes(name).decode() in names else b""
    return whole


def _fields(view: memoryview) -> Iterator[_Field]:
    """The fields of a message that was read before."""
    start = 0
    while start < len(view):
        tag, at = varint_at(view, start)
        kind = tag & 7
        if kind == 0:
            end = varint_at(view, at)[1]
        elif kind in _FIXED:
            end = at + _FIXED[kind]
        else:
            length, at = varint_at(view, at)
            end = at + length
        yield tag >> 3, view[start:end], view[at:end]
        start = end


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])
