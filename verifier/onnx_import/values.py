"""What a tensor of the file is while the graph is read: a constant, a signal, or blocked."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np

from verifier.errors import ExpansionTooLarge
from verifier.onnx_import import tensors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from verifier.onnx_import.patterns.trace import Trace
    from verifier.onnx_import.wire import Message

Shape: TypeAlias = tuple[int, ...]
Code: TypeAlias = Literal[
    "discontinuous-op", "not-lipschitz-globally", "unsupported-dtype", "unsupported-op"
]

MAX_ENTRIES: Final = 2**26  #: of any tensor: 512 MB in float64

_STORED_AS: Final[Mapping[str, type]] = {
    "f": np.float64,
    "b": np.bool_,
    "i": np.int64,
    "u": np.int64,
}


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A tensor that does not depend on the input."""

    array: np.ndarray  #: float64, int64 or bool
    dtype: str  #: as in the file

    @staticmethod
    def of_tensor(tensor: Message) -> Constant:
        """A stored tensor; floats widen exactly."""
        stored = tensors.array(tensor)
        name = tensors.ELEMENT_TYPES[tensor.number("data_type")].name
        return Constant.of(stored, name)

    @staticmethod
    def of(array: np.ndarray, dtype: str) -> Constant:
        """An array of any width."""
        return Constant(array.astype(_STORED_AS[array.dtype.kind], copy=False), dtype)

    @property
    def shape(self) -> Shape:
        """Its shape."""
        return self.array.shape

    @property
    def is_float(self) -> bool:
        """Whether it can meet signals."""
        return tensors.is_float(self.dtype)


@dataclass(frozen=True, slots=True, eq=False)
class Signal:
    """A tensor that depends on the input, and the network's node that computes it."""

    node: str  #: "" for the network's input
    shape: Shape
    dtype: str
    traces: Mapping[str, Trace] = field(default_factory=dict[str, "Trace"])

    @property
    def size(self) -> int:
        """The number of entries."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True, eq=False)
class Masked:
    """A tensor of floats with entries that are minus infinity, see `masks`."""

    inner: Constant | Signal  #: all other entries; numbers without meaning at these
    keeps: np.ndarray  #: true at the others

    @property
    def shape(self) -> Shape:
        """Its shape."""
        return self.inner.shape

    @property
    def dtype(self) -> str:
        """Its type."""
        return self.inner.dtype

    @property
    def traces(self) -> Mapping[str, Trace]:
        """None: it is no function of anything."""
        return {}


@dataclass(frozen=True, slots=True)
class Blocked:
    """Why a tensor has no place in a network."""

    node: str
    op: str
    code: Code
    detail: str
    fix: str


@dataclass(frozen=True, slots=True, eq=False)
class Opaque:
    """A tensor that no node computes: itself blocked, or it depends on one that is."""

    shape: Shape | None
    dtype: str
    reasons: tuple[Blocked, ...]
    traces: Mapping[str, Trace] = field(default_factory=dict[str, "Trace"])


@dataclass(frozen=True, slots=True)
class Grid:
    """The numbers step (q - zero) that integers q with least <= q <= greatest count."""

    step: float
    zero: int
    least: int
    greatest: int
    kind: str  #: the type of the integers

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the greatest of the numbers, exact: a float32 number times 17 bits."""
        return self.step * (self.least - self.zero), self.step * (self.greatest - self.zero)


@dataclass(frozen=True, slots=True, eq=False)
class Stepped:
    """Integers that depend on the input, in place of which stands what they count, unrounded."""

    signal: Signal
    grid: Grid

    @property
    def shape(self) -> Shape:
        """Its shape."""
        return self.signal.shape

    @property
    def dtype(self) -> str:
        """The type of the integers."""
        return self.grid.kind


Value: TypeAlias = Constant | Signal | Stepped | Masked | Opaque


def checked_size(shape: Shape, node: str) -> Shape:
    """The shape, if a tensor of that shape may be made."""
    if MAX_ENTRIES < prod(shape):
        raise ExpansionTooLarge(
            f"node {node!r} makes a tensor of shape {list(shape)}, {prod(shape):,} entries; at "
            f"most {MAX_ENTRIES:,} are supported",
            node=node,
            fix="export a model with smaller tensors",
        )
    return shape
