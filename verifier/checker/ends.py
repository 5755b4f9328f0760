"""A graph's inputs and outputs: what is declared, bound, held constant and chosen.

* an initialiser that is also an input is a constant; from IR 4 on only if the claim says so;
* an input with bound values is a constant: each number the nearest one of the input's type;
* all other inputs make up the flat input, in the file's order;
* of outputs that are not chosen the shape counts, where chosen ones behind them are counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from verifier.certificate import Assumption
from verifier.checker.messages import Parts, collect, integer, name_of, view
from verifier.checker.tensors import MAX_AXES, NAMES, Gapped, Tensor, nearest
from verifier.checker.wire import not_onnx, text
from verifier.errors import (
    DuplicateName,
    DynamicShape,
    EmptyModel,
    ExpansionTooLarge,
    InvalidName,
    InvalidRequest,
    NonFiniteWeights,
    OverridableInitializer,
    ShapeMismatch,
)

if TYPE_CHECKING:
    from verifier.property import Reading

MAPPING = "mapping"  #: the type of what is no dense tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What the file says of a tensor: type, and shape where it gives one (None: symbolic)."""

    dtype: str
    shape: tuple[int | None, ...] | None
    symbol: str = field(default="", compare=False)  #: of the leading dimension, where it has one

    @property
    def is_open(self) -> bool:
        """Whether the leading dimension is symbolic."""
        return bool(self.shape) and self.shape[0] is None

    @property
    def fixed(self) -> tuple[int, ...] | None:
        """The shape, 1 for a symbolic leading dimension; None where another one is not fixed."""
        if self.shape is None:
            return None
        rest = tuple(size for size in self.shape[1:] if size is not None)
        if len(rest) < len(self.shape[1:]):
            return None
        return (*(1 if size is None else size for size in self.shape[:1]), *rest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Where the graph begins and ends."""

    inputs: tuple[str, ...]  #: that make up the flat input
    outputs: tuple[str, ...]  #: all of the file
    chosen: frozenset[str]  #: of the outputs
    counted: tuple[str, ...]  #: whose sizes the indices of chosen ones rest on
    held: Mapping[str, Tensor]  #: inputs that are held constant
    assumptions: tuple[Assumption, ...]
    idealises: bool  #: whether known functions that jump stand for continuous ones
    declared: Mapping[str, Declared]  #: of ends, and of tensors between


def read_ends(
    parts: Parts, initialisers: Mapping[str, Tensor | Gapped], reading: Reading, *, is_free: bool
) -> Ends:
    """The ends of a graph.

    Args:
        parts: the graph's fields.
        initialisers: its weights.
        reading: what is bound, chosen and frozen.
        is_free: whether a weight that is also an input may be replaced by whoever runs the file.

    Raises:
        ModelRefused: inputs and outputs that make no graph.
        InvalidRequest: the reading does not fit the file.
    """
    sizes = dict(reading.bind.shapes)
    inputs, outputs, inner = (
        [_read_value(collect(view(item)), sizes) for item in parts.get(field, [])]
        for field in (11, 12, 13)
    )
    for ends in (inputs, outputs):
        _refuse_repeated([name for name, _ in ends])
    declared = _merged(inputs + outputs, inner)
    names = [name for name, _ in inputs]
    values = dict(reading.bind.values)
    if not values.keys() <= {name for name in names if is_free or name not in initialisers}:
        raise InvalidRequest("a bound input is none of the file's", fix="name inputs of the file")
    held = {name: _held(name, declared[name], values[name]) for name in names if name in values}
    weights = [name for name in names if name in initialisers and name not in held]
    if weights and is_free and not reading.freezes:
        raise OverridableInitializer(
            f"{weights[0]!r} is a weight and an input", fix="export weights as constants",
            node=weights[0],
        )  # fmt: skip
    free = tuple(name for name in names if name not in initialisers and name not in held)
    if not free or not outputs:
        raise EmptyModel("the graph has no input or no output", fix="export the network again")
    chosen = reading.chosen(_counts(inputs, outputs))
    return Ends(
        inputs=free,
        outputs=tuple(name for name, _ in outputs),
        chosen=chosen,
        counted=reading.counted([name for name, _ in outputs], chosen),
        held=held,
        assumptions=tuple(
            Assumption.of_weight(name, _finite(name, initialisers[name]).array)
            for name in weights
            if is_free
        ),
        declared=declared,
        idealises=reading.idealises,
    )


def _finite(name: str, weight: Tensor | Gapped) -> Tensor:
    if not isinstance(weight, Tensor):
        raise NonFiniteWeights(
            f"{name!r}, a weight and an input, is infinite", fix="export a constant", node=name
        )
    return weight


def _counts(
    inputs: Sequence[tuple[str, Declared]], outputs: Sequence[tuple[str, Declared]]
) -> dict[str, int | None]:
    """How many entries each output has; None where the file does not say.

    A symbol is 1 where it leads an input. What another one is, only the nodes tell.
    """
    batches = {one.symbol for _, one in inputs if one.is_open} - {""}
    return {
        name: None
        if one.fixed is None or (one.is_open and one.symbol not in batches)
        else math.prod(one.fixed)
        for name, one in outputs
    }


def _refuse_repeated(names: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        raise DuplicateName("a graph input or output is listed twice", fix="export again")


def _held(name: str, declared: Declared, values: Sequence[float]) -> Tensor:
    if declared.fixed is None:
        raise DynamicShape(f"the shape of {name!r} is not fixed", fix="bind its shape", node=name)
    numbers = nearest(np.array(values, dtype=np.float64), declared.dtype)
    if numbers is None or numbers.size != math.prod(declared.fixed):
        raise InvalidRequest(
            f"input {name!r} is {declared.dtype} of shape {declared.fixed[:8]}, which does not "
            f"hold the {len(values)} numbers that are bound",
            fix="bind numbers that fit",
        )
    return Tensor(dtype=declared.dtype, array=numbers.reshape(declared.fixed))


def _merged(
    ends: Sequence[tuple[str, Declared]], inner: Sequence[tuple[str, Declared]]
) -> dict[str, Declared]:
    # A tensor that is declared twice has to be what both say; the ends come first.
    declared: dict[str, Declared] = {}
    for name, value in [*ends, *inner]:
        if name in declared and declared[name] != value:
            raise DuplicateName(f"tensor {name!r} is declared twice", fix="export again", node=name)
        declared[name] = value
    return declared


def _read_value(parts: Parts, sizes: Mapping[str, int]) -> tuple[str, Declared]:
    name = name_of(parts, 1)
    if not name:
        raise InvalidName("a graph value has no name", fix="export again")
    if 2 not in parts:
        return name, Declared(dtype="", shape=None)
    kind = collect(view(parts[2][0]))
    if 1 not in kind or kind.keys() - {1, 6}:
        return name, Declared(dtype=MAPPING, shape=None)
    tensor = collect(view(kind[1][0]))
    dtype = NAMES.get(integer(tensor, 1, 0), "other")
    if 2 not in tensor:
        return name, Declared(dtype=dtype, shape=None)
    dims = collect(view(tensor[2][0])).get(1, [])
    if MAX_AXES < len(dims):
        raise ExpansionTooLarge(f"{name!r} has {len(dims)} axes", fix="export again", node=name)
    # A dimension without a symbol is called by its place.
    shape = tuple(
        _dimension(view(dim), name, f"{name}[{axis}]", sizes) for axis, dim in enumerate(dims)
    )
    symbol = text(collect(view(dims[0])).get(2, [memoryview(b"")])[0]) if dims else ""
    return name, Declared(dtype=dtype, shape=shape, symbol=symbol)


def _dimension(message: memoryview, name: str, own: str, sizes: Mapping[str, int]) -> int | None:
    parts = collect(message)
    if 1 in parts and 2 in parts:
        raise not_onnx(f"a dimension of {name!r} is a number and a symbol")
    if 2 in parts:
        return sizes.get(text(parts[2][0]) or own)
    if 1 not in parts:
        return sizes.get(own)
    size = integer(parts, 1, 0)
    if not 0 <= size < 2**31:
        raise ShapeMismatch(f"{name!r} has a dimension {size}", fix="export again", node=name)
    return size
