"""The bytes of a checkpoint: a zip of a JSON header and numpy arrays, trees in preorder.

    checkpoint.json   format, model, property, gates, trees: [[item, output], ...]
    kinds, bounds     of every node
    split_kinds, split_gates, split_entries, split_places     of every cut
    weights           of every empty leaf, one for each cut above it
    trim_counts       of every node
    trim_gates, trim_entries, trim_kinks, trim_ends, trim_sides     of every trim
    trim_weights      of every trim, one for each cut above it
    rows              of every leaf with a bound: which row of the next two
    gate_multipliers, input_multipliers
    points            a row for each

Read as what a stranger sent: nothing is unpickled, no array is larger than its bytes, and what does
not fit together is refused.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from verifier.canonical_json import Json, canonical_json
from verifier.certificate import CUT, EMPTY, INEQUALITY, JACOBIAN
from verifier.checkpoint.growth import (
    ELSEWHERE,
    SPLIT_KINDS,
    Growth,
    Node,
    Root,
    Row,
    Split,
    SplitKind,
    Trim,
    folded,
    unusable,
)
from verifier.request_json import property_json

if TYPE_CHECKING:
    from verifier.property import Property

FORMAT = "lipcert-checkpoint/1"
MOST_BYTES = 48 * 2**20  #: of a checkpoint
HEADER = "checkpoint.json"

Array: TypeAlias = np.ndarray
Arrays: TypeAlias = dict[str, Array]

#: The arrays, by name: their type and number of axes.
ARRAYS: Mapping[str, tuple[str, int]] = {
    "kinds": ("<i8", 1),
    "bounds": ("<f8", 1),
    "split_kinds": ("<i8", 1),
    "split_gates": ("<i8", 1),
    "split_entries": ("<i8", 1),
    "split_places": ("<f8", 1),
    "weights": ("<f8", 1),
    "trim_counts": ("<i8", 1),
    "trim_gates": ("<i8", 1),
    "trim_entries": ("<i8", 1),
    "trim_kinks": ("<f8", 1),
    "trim_ends": ("<f8", 1),
    "trim_sides": ("<i8", 1),
    "trim_weights": ("<f4", 1),
    "rows": ("<i8", 1),
    "gate_multipliers": ("<f8", 2),
    "input_multipliers": ("<f8", 2),
    "points": ("<f8", 2),
}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Checkpoint:
    """A growth, and the question that it belongs to."""

    model: str
    asked: Mapping[str, object]  #: the property, as JSON
    growth: Growth

    @staticmethod
    def of(model: str, asked: Property, growth: Growth) -> Checkpoint:
        """Of a search about a property of a model."""
        return Checkpoint(model=model, asked=property_json(asked), growth=growth)

    def require(self, model: str, asked: Property) -> Growth:
        """The growth, where it belongs to this question.

        Raises:
            InvalidRequest: it is about another model or property.
        """
        if self.model != model:
            raise unusable(f"is about model {self.model[:80]}, not {model}")
        if canonical_json(cast("Json", self.asked)) != canonical_json(
            cast("Json", property_json(asked))
        ):
            raise unusable("is about another property")
        return self.growth

    def to_bytes(self) -> bytes | None:
        """The bytes that `read_checkpoint` reads; None where they would be too many."""
        growth = self.growth
        header = {
            "format": FORMAT,
            "model": self.model,
            "property": self.asked,
            "gates": growth.gates,
            "trees": [[root.item, root.output] for root in growth.roots],
        }
        arrays = _arrays(growth)
        if MOST_BYTES < sum(array.nbytes for array in arrays.values()):
            return None
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.writestr(HEADER, json.dumps(header))
            for name, array in arrays.items():
                member = io.BytesIO()
                np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
                archive.writestr(f"{name}.npy", member.getvalue())
        return data.getvalue()


#: What is raised by bytes that are no zip, no JSON, encrypted, or packed in an unknown way.
_UNREADABLE = (
    ValueError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    OverflowError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_checkpoint(data: bytes) -> Checkpoint:
    """The checkpoint that bytes state.

    Raises:
        InvalidRequest: they state none.
    """
    try:
        header, arrays = _unpacked(data)
    except _UNREADABLE as error:
        raise unusable(f"cannot be read: {error}") from error
    gates, heads = _names(header.get("gates")), _heads(header.get("trees"))
    model, asked = header.get("model"), header.get("property")
    if header.get("format") != FORMAT or not isinstance(model, str) or not isinstance(asked, dict):
        raise unusable(f"is not of format {FORMAT}")
    nodes = _Feed(arrays).trees(len(heads), len(gates))
    roots = (
        Root(item=item, output=output, node=node)
        for (item, output), node in zip(heads, nodes, strict=True)
    )
    growth = Growth(gates=gates, roots=tuple(roots), points=arrays["points"])
    return Checkpoint(model=model, asked=cast("dict[str, object]", asked), growth=growth)


# --- Writing -------------------------------------------------------------------------------------


def _arrays(growth: Growth) -> Arrays:
    nodes = list(chain.from_iterable(root.node.preorder() for root in growth.roots))
    splits = [node.split for node in nodes if node.split is not None]
    leaves = [node.row for node in nodes if node.row is not None]
    rows = {id(row): row for row in leaves}
    numbers = {key: number for number, key in enumerate(rows)}
    weights = [node.weights for node in nodes if node.weights is not None]
    trims = [trim for node in nodes for trim in node.trims]
    listed: dict[str, Sequence[object] | Array] = {
        "kinds": [node.kind for node in nodes],
        "bounds": [node.bound for node in nodes],
        "split_kinds": [SPLIT_KINDS.index(split.kind) for split in splits],
        "split_gates": [split.gate for split in splits],
        "split_entries": [split.entry for split in splits],
        "split_places": [split.place for split in splits],
        "weights": np.concatenate([np.zeros(0), *weights]),
        "trim_counts": [len(node.trims) for node in nodes],
        "trim_gates": [trim.split.gate for trim in trims],
        "trim_entries": [trim.split.entry for trim in trims],
        "trim_kinks": [trim.split.place for trim in trims],
        "trim_ends": [trim.at for trim in trims],
        "trim_sides": [trim.is_below for trim in trims],
        "trim_weights": np.concatenate([np.zeros(0), *(trim.weights for trim in trims)]),
        "rows": [numbers[id(row)] for row in leaves],
        "gate_multipliers": [row.gates for row in rows.values()],
        "input_multipliers": [row.inputs for row in rows.values()],
        "points": list(growth.points),
    }
    arrays = {name: np.array(listed[name], dtype=kind) for name, (kind, _) in ARRAYS.items()}
    return {name: _with_axes(array, ARRAYS[name][1]) for name, array in arrays.items()}


def _with_axes(array: Array, axes: int) -> Array:
    """An empty list has one axis, whatever it is a list of."""
    return array.reshape(0, 0) if axes == 2 and array.ndim == 1 else array


# --- Reading -------------------------------------------------------------------------------------


def _unpacked(data: bytes) -> tuple[Mapping[str, object], Arrays]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {info.filename: info for info in archive.infolist()}
        if set(members) != {HEADER, *(f"{name}.npy" for name in ARRAYS)}:
            raise ValueError("its members are not those of a checkpoint")
        if len(archive.infolist()) != len(members):
            raise ValueError("a member occurs twice")
        if 2 * MOST_BYTES < sum(info.file_size for info in members.values()):
            raise ValueError("it is too large")
        header = json.loads(archive.read(HEADER))
        if not isinstance(header, dict):
            raise ValueError("its header is not an object")  # noqa: TRY004 (one kind of error)
        arrays = {name: _array(archive.read(f"{name}.npy"), name) for name in ARRAYS}
    return cast("dict[str, object]", header), arrays


def _array(data: bytes, name: str) -> Array:
    """The array of a member: of its type and axes, with as many bytes as it says."""
    kind, axes = ARRAYS[name]
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError(f"{name} is of another version")
    shape, is_fortran, found = np.lib.format.read_array_header_1_0(stream)
    rest = data[stream.tell() :]
    is_expected = found == np.dtype(kind) and len(shape) == axes and not is_fortran
    if not is_expected or len(rest) != prod(shape) * found.itemsize:
        raise ValueError(f"{name} is not an array of its kind")
    array = np.frombuffer(rest, dtype=kind).reshape(shape)
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise ValueError(f"{name} has a number that is none")
    return array


def _names(value: object) -> tuple[str, ...]:
    names = cast("list[object]", value) if isinstance(value, list) else [None]
    if not all(isinstance(name, str) for name in names):
        raise unusable("has no list of gates")
    return tuple(map(str, names))


def _heads(value: object) -> list[tuple[int, int | None]]:
    heads: list[tuple[int, int | None]] = []
    for one in cast("list[object]", value) if isinstance(value, list) else [None]:
        match one:
            case [int(item), int() | None as output]:
                heads.append((item, output))
            case _:
                raise unusable("has no list of trees")
    return heads


class _Runs:
    """An array of numbers that is taken run by run."""

    def __init__(self, numbers: Array) -> None:
        self._numbers, self._place = numbers, 0

    def taken(self, count: int) -> Array:
        """The next ones."""
        run = self._numbers[self._place : self._place + count]
        if len(run) != count:
            raise unusable("ends in the middle of weights")
        self._place += count
        return run

    @property
    def is_over(self) -> bool:
        """Whether all were taken."""
        return self._place == len(self._numbers)


class _Feed:
    """The arrays, read from their beginnings on."""

    def __init__(self, arrays: Arrays) -> None:
        self._listed: dict[str, Iterator[Any]] = {  # Any: numbers, by array
            name: iter(array.tolist()) for name, array in arrays.items() if array.ndim == 1
        }
        self._weights = _Runs(arrays["weights"])
        self._trims = _Runs(arrays["trim_weights"])
        tables = arrays["gate_multipliers"], arrays["input_multipliers"]
        if len(tables[0]) != len(tables[1]):
            raise unusable("has multipliers that do not fit together")
        self._rows = [Row(gates, inputs) for gates, inputs in zip(*tables, strict=True)]
        self._fill: Mapping[int, Callable[[Node, int], None]] = {
            CUT: self._cut,
            EMPTY: self._empty,
            INEQUALITY: self._leaf,
            JACOBIAN: self._leaf,
            ELSEWHERE: lambda _, __: None,
        }

    def trees(self, count: int, gates: int) -> list[Node]:
        """So many trees, with which the arrays are at their ends."""
        self._gates = gates
        start = [(Node(kind=CUT), 0) for _ in range(count)]
        nodes = [folded(one, self._step, _with_children) for one in start]
        for name in ("weights", "trim_weights"):
            del self._listed[name]
        is_over = all(next(numbers, None) is None for numbers in self._listed.values())
        if not (is_over and self._weights.is_over and self._trims.is_over):
            raise unusable("has more numbers than its trees need")
        return nodes

    def _step(self, problem: tuple[Node, int]) -> Node | tuple[tuple[Node, int], tuple[Node, int]]:
        node, depth = problem
        node.kind, node.bound = self._next("kinds"), self._next("bounds")
        if node.kind not in self._fill:
            raise unusable(f"has a node of kind {node.kind}")
        count = self._next("trim_counts")
        node.trims = tuple(self._trim(depth) for _ in range(count))
        self._fill[node.kind](node, depth)
        if node.kind != CUT:
            return node
        return (Node(kind=CUT), depth + 1), (Node(kind=CUT), depth + 1)

    def _next(self, name: str) -> Any:  # noqa: ANN401 - a number, of the array's type
        number = next(self._listed[name], None)
        if number is None:
            raise unusable(f"ends in the middle of {name}")
        return number

    def _cut(self, node: Node, _depth: int) -> None:
        kind, gate = self._next("split_kinds"), self._next("split_gates")
        if not (0 <= kind < len(SPLIT_KINDS) and 0 <= gate < self._gates):
            raise unusable("has a split that is unknown")
        entry, place = self._next("split_entries"), self._next("split_places")
        node.split = Split(gate=gate, entry=entry, place=place, kind=_kind(kind))

    def _empty(self, node: Node, depth: int) -> None:
        node.weights = self._weights.taken(depth)

    def _trim(self, depth: int) -> Trim:
        gate, entry = self._next("trim_gates"), self._next("trim_entries")
        if not 0 <= gate < self._gates:
            raise unusable("has a trim that is unknown")
        return Trim(
            split=Split(gate=gate, entry=entry, place=self._next("trim_kinks")),
            at=self._next("trim_ends"),
            is_below=bool(self._next("trim_sides")),
            weights=self._trims.taken(depth),
        )

    def _leaf(self, node: Node, _depth: int) -> None:
        row = self._next("rows")
        if not 0 <= row < len(self._rows):
            raise unusable("has a leaf without multipliers")
        node.row = self._rows[row]


def _kind(number: int) -> SplitKind:
    return SPLIT_KINDS[number]


def _with_children(problem: tuple[Node, int], below: Node, above: Node) -> Node:
    problem[0].children = (below, above)
    return problem[0]
