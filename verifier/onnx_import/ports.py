"""The inputs and outputs of a network that was built, and what keeps an output from being read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from verifier.errors import (
    DtypeUnsupported,
    EmptyModel,
    NonFiniteWeights,
    OpUnsupported,
    ShapeMismatch,
)
from verifier.onnx_import import tensors
from verifier.onnx_import.unread import counted_shape
from verifier.onnx_import.values import (
    MAX_ENTRIES,
    Blocked,
    Constant,
    Masked,
    Opaque,
    Shape,
    Signal,
    Stepped,
    Value,
    checked_size,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from verifier.onnx_import.ends import Declared
    from verifier.onnx_import.reader import Graph


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """An input or output of the file, and its place in the flat vector of all."""

    name: str
    dtype: str  #: "" for what is no dense tensor
    shape: Shape | None  #: without a symbolic batch; None where nothing tells it
    place: tuple[int, int]  #: (start, end)
    blocked: Blocked | None = None  #: why the network does not have it
    chosen: bool = True

    @property
    def size(self) -> int | None:
        """The number of its entries, where that is known."""
        return None if self.shape is None else self.place[1] - self.place[0]

    @property
    def is_read(self) -> bool:
        """Whether the network has it."""
        return self.chosen and self.blocked is None


def input_ports(graph: Graph) -> Iterator[Port]:
    """The inputs, one after another."""
    start = 0
    for declared in graph.inputs:
        shape = declared.shape or ()
        end = start + prod(shape)
        shown = shape[1:] if declared.has_open_batch else shape
        yield Port(name=declared.name, dtype=declared.dtype, shape=shown, place=(start, end))
        start = end


def output_ports(
    graph: Graph, values: Mapping[str, Value], unread: Mapping[str, Shape]
) -> Iterator[Port]:
    """The outputs, one after another, with what became of those that are chosen.

    Args:
        graph: what the file says.
        values: what its tensors are.
        unread: shapes of tensors that are opaque.

    Raises:
        ModelRefused: what the file declares of one is not what it is.
    """
    start = 0
    for declared in graph.outputs:
        chosen = declared.name in graph.chosen
        value = values.get(declared.name) if chosen else None
        reason = _unread(declared, value) if chosen else None
        shape = declared.shape if value is None or value.shape is None else value.shape
        if declared.name in graph.counted:
            shape = counted_shape(declared, values, unread)
            _check_shape(replace(declared, dims=declared.shape), shape)
        end = start + (0 if shape is None else prod(shape))
        is_batch = declared.has_open_batch and shape is not None and shape[:1] == (1,)
        yield Port(
            name=declared.name,
            dtype=declared.dtype,
            shape=shape[1:] if is_batch and shape is not None else shape,
            place=(start, end),
            blocked=reason,
            chosen=chosen,
        )
        start = end
    if MAX_ENTRIES < start:
        checked_size((start,), graph.outputs[-1].name)


def _unread(declared: Declared, value: Value | None) -> Blocked | None:
    """Why an output is no vector of numbers; None where it is one."""
    if value is None or not (declared.dtype or isinstance(value, Signal)):
        return _no_floats(declared, "no tensor of numbers")
    if isinstance(value, Opaque):
        return _foremost(value.reasons)
    if isinstance(value, Stepped):
        return _no_floats(declared, value.dtype)
    if isinstance(value, Masked):
        raise NonFiniteWeights(
            f"output {declared.name!r} has an entry that is minus infinity",
            node=declared.name,
            fix="end with a softmax of it, or leave the mask out",
        )
    if declared.dtype:  # else it is keyed by labels
        _check_output(declared, value)
    if not tensors.is_float(value.dtype):
        return _no_floats(declared, value.dtype)
    return None


def _no_floats(declared: Declared, what: str) -> Blocked:
    return Blocked(
        node=declared.name,
        op="output",
        code="unsupported-dtype",
        detail=f"output {declared.name!r} is {what}",
        fix="choose outputs of floats: outputs.names",
    )


def refuse_unreadable(outputs: Sequence[Port]) -> None:
    """Raises what keeps a file from being a model, where no other output says more of it."""
    reasons = [port.blocked for port in outputs if port.blocked is not None]
    for reason in reasons:
        if reason.code in {"discontinuous-op", "not-lipschitz-globally"}:
            return
    for reason in reasons:
        kind = DtypeUnsupported if reason.code == "unsupported-dtype" else OpUnsupported
        raise kind(reason.detail, node=reason.node, fix=reason.fix)


def refuse_empty(outputs: Sequence[Port]) -> None:
    """Raises where the outputs that were read have no entry: nothing can be said of them."""
    read = [port for port in outputs if port.is_read]
    if read and not any(port.size for port in read):
        raise EmptyModel(
            f"output {read[0].name!r} has shape {list(read[0].shape or ())}: no entry",
            node=read[0].name,
            fix="export the model with outputs that have entries",
        )


def _foremost(reasons: tuple[Blocked, ...]) -> Blocked:
    """What is said of a blocked output.

    A jump decides, then what has no global bound.
    """
    for code in ("discontinuous-op", "not-lipschitz-globally"):
        for reason in reasons:
            if reason.code == code:
                return reason
    return reasons[0]


def _check_output(declared: Declared, value: Signal | Constant) -> None:
    if declared.dtype != value.dtype:
        raise ShapeMismatch(
            f"output {declared.name!r} is declared as {declared.dtype} and is {value.dtype}",
            node=declared.name,
            fix="export the model again",
        )
    _check_shape(declared, value.shape)


def _check_shape(declared: Declared, shape: Shape) -> None:
    if declared.dims is None:
        return
    fits = len(declared.dims) == len(shape) and all(
        isinstance(dim, str) or dim == size for dim, size in zip(declared.dims, shape, strict=True)
    )
    if not fits:
        raise ShapeMismatch(
            f"output {declared.name!r} is declared as {list(declared.dims)} and has shape "
            f"{list(shape)}",
            node=declared.name,
            fix="export the model again with one fixed batch size, or a symbolic one",
        )
