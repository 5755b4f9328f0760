"""A graph's inputs and outputs: what is bound, what makes up the flat input, what is chosen.

initialisers that IR 3 lists as inputs     constants
the same from IR 4 on                      refused, or frozen on request
inputs with bound values                   constants
all others                                 the flat input, in the file's order
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from verifier.certificate import Assumption
from verifier.errors import (
    DtypeUnsupported,
    DuplicateName,
    DynamicShape,
    EmptyModel,
    InvalidRequest,
    NonFiniteWeights,
    OverridableInitializer,
)
from verifier.onnx_import import tensors, wire
from verifier.onnx_import.values import Constant

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from verifier.onnx_import.values import Shape
    from verifier.onnx_import.wire import Message
    from verifier.property import Reading

Dimensions: TypeAlias = tuple[int | str, ...]  #: a string is a symbolic dimension

FREE_SINCE: Final = 4  #: the IR version from which a weight that is an input may be replaced


@dataclass(frozen=True, slots=True)
class Declared:
    """A graph input or output as the file declares it, with the dimensions that are bound."""

    name: str
    dtype: str  #: "" for what is no dense tensor
    dims: Dimensions | None

    @property
    def has_open_batch(self) -> bool:
        """Whether the leading dimension is symbolic."""
        return bool(self.dims) and isinstance(self.dims[0], str)

    @property
    def shape(self) -> Shape | None:
        """The dimensions, 1 for a symbolic batch; None where the file does not fix them."""
        if self.dims is None:
            return None
        fixed = tuple(dim for dim in self.dims[1:] if isinstance(dim, int))
        if len(fixed) < len(self.dims[1:]):
            return None
        return (*(1 if isinstance(dim, str) else dim for dim in self.dims[:1]), *fixed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Where a graph begins and ends."""

    inputs: tuple[Declared, ...]  #: that make up the flat input
    outputs: tuple[Declared, ...]  #: all of the file
    chosen: frozenset[str]  #: of the outputs
    counted: tuple[str, ...]  #: whose sizes the indices of chosen ones rest on
    fed: Mapping[str, Constant]  #: inputs that are held constant
    frozen: tuple[Assumption, ...]  #: weights that whoever runs the file may replace


def read_ends(
    model: Message, graph: Message, stored: Mapping[str, Constant], reading: Reading
) -> Ends:
    """The ends of a graph.

    Args:
        model: the file.
        graph: its graph.
        stored: its initialisers.
        reading: what is bound, chosen and frozen.

    Raises:
        ModelRefused: inputs and outputs that make no graph.
        InvalidRequest: the reading names what the file does not have.
    """
    sizes = dict(reading.bind.shapes)
    inputs = [_bound(_declared(value), sizes) for value in graph.each("input")]
    outputs = tuple(_bound(_declared(value), sizes) for value in graph.each("output"))
    _refuse_repeated(inputs, "input")
    _refuse_repeated(outputs, "output")
    is_free = FREE_SINCE <= model.number("ir_version")
    known = {item.name for item in inputs if is_free or item.name not in stored}
    _refuse_unused(reading, known, graph)
    values = dict(reading.bind.values)
    fed = {item.name: _held(item, values[item.name]) for item in inputs if item.name in values}
    open_weights = [item.name for item in inputs if item.name in stored.keys() - fed.keys()]
    frozen = _frozen(stored, open_weights if is_free else (), freezes=reading.freezes)
    free = [item for item in inputs if item.name not in stored.keys() | fed.keys()]
    if not free and fed:
        raise InvalidRequest(
            "every input is bound to values, so that nothing varies",
            fix="leave an input out of `bind.values`",
            pointer="/property/bind/values",
        )
    if not free or not outputs:
        raise EmptyModel(
            "the graph has no input or no output", fix="export a model with an input and an output"
        )
    chosen = reading.chosen(_counts(inputs, outputs))
    return Ends(
        inputs=tuple(_checked_input(item) for item in free),
        outputs=outputs,
        chosen=chosen,
        counted=reading.counted([item.name for item in outputs], chosen),
        fed=fed,
        frozen=frozen,
    )


def _counts(inputs: Iterable[Declared], outputs: Iterable[Declared]) -> dict[str, int | None]:
    """Entries of every output; None where a symbol leads it that leads no input, where it is 1."""
    batches = {item.dims[0] for item in inputs if item.dims}
    known = {
        item.name: not item.has_open_batch or (item.dims or ("",))[0] in batches for item in outputs
    }
    return {
        item.name: prod(item.shape) if item.shape is not None and known[item.name] else None
        for item in outputs
    }


def _refuse_repeated(ends: Iterable[Declared], what: str) -> None:
    seen: set[str] = set()
    for end in ends:
        if end.name in seen:
            raise DuplicateName(
                f"{what} {end.name!r} is listed twice", node=end.name, fix="list it once"
            )
        seen.add(end.name)


def _refuse_unused(reading: Reading, inputs: set[str], graph: Message) -> None:
    """A name that the file does not have is a slip, and its value would change nothing."""
    symbols = {
        dim
        for value in (*graph.each("input"), *graph.each("output"))
        for dim in _dimensions(value) or ()
        if isinstance(dim, str)
    }
    for member, given, known in (
        ("values", reading.bind.values, inputs),
        ("shapes", reading.bind.shapes, symbols),
    ):
        for name, _ in given:
            if name not in known:
                raise InvalidRequest(
                    f"the model has no {name[:100]!r} to bind",
                    fix=f"bind one of {', '.join(sorted(known)[:20]) or 'nothing'}",
                    pointer=f"/property/bind/{member}",
                )


def _frozen(
    stored: Mapping[str, Constant], names: Sequence[str], *, freezes: bool
) -> tuple[Assumption, ...]:
    if names and not freezes:
        raise OverridableInitializer(
            f"weight {names[0]!r} is also a graph input: whoever runs the model may replace it",
            node=names[0],
            fix="export with keep_initializers_as_inputs=False, or send the option "
            "freeze_initializers=true: the certificate then says that the stored weights are meant",
        )
    for name in names:
        if not np.isfinite(stored[name].array).all():
            raise NonFiniteWeights(
                f"weight {name!r}, which is also a graph input, has an infinite entry",
                node=name,
                fix="export with keep_initializers_as_inputs=False",
            )
    return tuple(Assumption.of_weight(name, stored[name].array) for name in names)


def _held(declared: Declared, values: Sequence[float]) -> Constant:
    """An input that is held constant: each number the nearest one of its type."""
    pointer = f"/property/bind/values/{declared.name}"
    shape = declared.shape
    if shape is None:
        raise _dynamic(declared)
    if len(values) != prod(shape):
        raise InvalidRequest(
            f"input {declared.name!r} has shape {list(shape)}, and {len(values)} numbers are bound",
            fix=f"give {prod(shape)} numbers, flat and row-major",
            pointer=pointer,
        )
    held = tensors.nearest(np.array(values), declared.dtype)
    if held is None:
        raise InvalidRequest(
            f"input {declared.name!r} is {declared.dtype or 'no tensor'}, which cannot hold the "
            "numbers that are bound",
            fix="give numbers of the input's type",
            pointer=pointer,
        )
    return Constant.of(held.reshape(shape), declared.dtype)


def _bound(declared: Declared, sizes: Mapping[str, int]) -> Declared:
    dims = declared.dims
    if dims is None:
        return declared
    known = (sizes.get(dim, dim) if isinstance(dim, str) else dim for dim in dims)
    return replace(declared, dims=tuple(known))


def _declared(value: Message) -> Declared:
    name = value.text("name")
    kind = value.one("type")
    tensor = kind.one("tensor_type") if kind is not None else None
    if tensor is None:
        return Declared(name, "", None)
    known = tensors.ELEMENT_TYPES.get(tensor.number("elem_type"))
    return Declared(name, "" if known is None else known.name, _dimensions(value))


def _dimensions(value: Message) -> Dimensions | None:
    """The sizes and symbols; what the file leaves without a name is called "tensor[axis]"."""
    kind = value.one("type")
    tensor = None if kind is None else kind.one("tensor_type")
    shape = None if tensor is None else tensor.one("shape")
    if shape is None:
        return None
    own = value.text("name")
    tensors.check_axes(shape.each("dim"), own)
    return tuple(_dimension(dim, f"{own}[{axis}]") for axis, dim in enumerate(shape.each("dim")))


def _dimension(dim: Message, own: str) -> int | str:
    if dim.has("dim_value"):
        size = wire.signed(dim.number("dim_value"))
        return size if 0 <= size else own
    return dim.text("dim_param") or own


def _checked_input(declared: Declared) -> Declared:
    """A float tensor, with no symbolic dimension but a leading one."""
    if not tensors.is_float(declared.dtype):
        raise DtypeUnsupported(
            f"input {declared.name!r} is {declared.dtype or 'no tensor of numbers'}; float16, "
            "bfloat16, float32 and float64 are supported",
            node=declared.name,
            fix="export the model with float inputs, or fix this one by `bind.values`",
        )
    if declared.shape is None:
        raise _dynamic(declared)
    if 0 in declared.shape:
        raise EmptyModel(
            f"input {declared.name!r} has shape {list(declared.shape)}: no entry",
            node=declared.name,
            fix="export the model with inputs that have entries",
        )
    return declared


def _dynamic(declared: Declared) -> DynamicShape:
    shown = "unknown" if declared.dims is None else str(list(declared.dims))
    return DynamicShape(
        f"input {declared.name!r} has shape {shown}; only the leading dimension may be symbolic",
        node=declared.name,
        fix="export with fixed dimensions (no dynamic_axes beyond the batch), or name their sizes "
        "in `bind.shapes`",
    )
