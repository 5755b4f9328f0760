"""The end of a reading: one flat output, and the nodes that it needs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from verifier.checker.lowering import sources
from verifier.checker.maps import Gather
from verifier.checker.network import Network, Term
from verifier.checker.operands import MAX_FOLDED, Constant, Result, Signal
from verifier.checker.tensors import FLOATS
from verifier.errors import DtypeUnsupported, EmptyModel, ExpansionTooLarge

if TYPE_CHECKING:
    from verifier.certificate import Idealised
    from verifier.checker.builder import Builder
    from verifier.checker.ends import Ends

OUTPUTS = ":outputs"  #: the node of the flat output, where the file has several

Values: TypeAlias = "Mapping[str, Result]"


def finished(
    ends: Ends, builder: Builder, values: Values, idealised: Sequence[Idealised]
) -> Network:
    """The nodes that the flat output needs, and where the file's outputs lie in it.

    Of `idealised` those count that it needs.
    """
    output, places = _joined(ends, builder, values)
    if output.size == 0:
        raise EmptyModel("the outputs have no entry", fix="export outputs that have entries")
    nodes = builder.nodes
    shapes: dict[str, tuple[int, ...]] = {}
    for value in (*values.values(), output):
        if isinstance(value, Signal):
            # Later ones of the same source are reshaped.
            shapes.setdefault(value.source, value.shape)
    reached: set[str] = set()
    pending = [output.source]
    while pending:
        here = pending.pop()
        if here and here not in reached:
            reached.add(here)
            pending.extend(sources(nodes[here]))
    return Network(
        input_size=builder.sizes[""],
        output=output.source,
        output_size=output.size,
        nodes=tuple(node for node in nodes.values() if node.name in reached),
        tensors={key: size for key, size in builder.sizes.items() if not key or key in reached},
        shapes={key: shape for key, shape in shapes.items() if not key or key in reached},
        outputs=places,
        assumptions=ends.assumptions,
        idealised=tuple(
            sorted((one for one in idealised if one.node in reached), key=lambda one: one.node)
        ),
    )


def _joined(
    ends: Ends, builder: Builder, values: Values
) -> tuple[Signal, dict[str, tuple[int, int]]]:
    """The flat output, and the place of each of the file's: 0 where one is not chosen."""
    names, start = ends.outputs, 0
    places: dict[str, tuple[int, int]] = {}
    for name in names:
        places[name] = (start, start + _output_size(name, ends, values))
        start = places[name][1]
    if start > MAX_FOLDED:
        raise ExpansionTooLarge("the outputs are too large", fix="export smaller ones")
    (lead, *others) = names
    first = values.get(lead)
    if not others and isinstance(first, Signal):
        return first, places
    index: dict[str, np.ndarray] = {}
    bias, error = np.zeros(start), np.zeros(start)
    for name in names:
        value, part = values.get(name), slice(*places[name])
        if name not in ends.chosen or value is None:
            continue
        if isinstance(value, Signal):
            picked = index.setdefault(value.source, np.full(start, -1))
            picked[part] = np.arange(value.size)
        elif isinstance(value, Constant):
            bias[part], error[part] = value.value.reshape(-1), value.spread.reshape(-1)
    joined = OUTPUTS if others else lead
    terms = [Term(key, Gather(at, builder.sizes[key])) for key, at in index.items()]
    builder.affine(joined, start, terms, Constant(bias, "float64", error))
    return Signal(joined, (start,), "float64"), places


def _output_size(name: str, ends: Ends, values: Values) -> int:
    """The entries of an output: as declared where it is not chosen, else as it is."""
    if name not in ends.chosen:
        declared = ends.declared[name].fixed
        return 0 if declared is None else math.prod(declared)
    value = values[name]
    if value.dtype not in FLOATS:
        raise DtypeUnsupported(f"output {name!r} is {value.dtype}", fix="choose", node=name)
    return math.prod(value.shape)
