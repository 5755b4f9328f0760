"""Forms that are one thing although they are written as several operators.

Every form is verified with its constants: what only looks like one is converted operator by
operator, or blocks the model where that is not possible.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from verifier.certificate import Pattern
from verifier.network.graph import Grouped
from verifier.network.grouped import GroupSort, Householder
from verifier.onnx_import.convert.emitted import Emitted, index_tensor, tensor
from verifier.onnx_import.patterns.mirrors import MAX_BASE, MIRRORS, mirror
from verifier.onnx_import.patterns.pairs import PAIRS, max_min
from verifier.onnx_import.values import Signal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from verifier.onnx_import.call import Call
    from verifier.onnx_import.patterns.trace import Traces
    from verifier.onnx_import.values import Shape, Value


@dataclass(frozen=True, slots=True)
class Recognised:
    """A pattern, and the node that it becomes."""

    pattern: Pattern
    emitted: Emitted


def recognise(
    call: Call, shape: Shape, traces: Traces, values: Mapping[str, Value]
) -> Recognised | None:
    """MaxMin where a Concat ends it, a mirror where a sum or a choice ends it."""
    for name, trace in traces.items():
        source = values[name]
        if not trace.is_gated or not isinstance(source, Signal) or source.size != prod(shape):
            continue
        if call.op == "Concat":
            form = trace.form(PAIRS)
            found = None if form is None else max_min(form, source.size)
            if found is not None:
                sort = GroupSort(
                    index_tensor(found.pairs).reshape(found.pairs.shape),
                    index_tensor(found.places).reshape(found.places.shape),
                )
                node = Grouped(call.output, source.node, sort)
                pattern = Pattern(kind="maxmin", input=name, output=call.output)
                return Recognised(pattern, Emitted((node,), shape))
        elif call.op in {"Add", "Sub", "Where"} and source.size <= MAX_BASE:
            gated = trace.form(MIRRORS)
            reflection = None if gated is None else mirror(gated, source.size)
            if reflection is not None:
                group = Householder(
                    index_tensor(reflection.slices).reshape(reflection.slices.shape),
                    tensor(reflection.vectors),
                )
                node = Grouped(call.output, source.node, group)
                pattern = Pattern(kind="householder", input=name, output=call.output)
                return Recognised(pattern, Emitted((node,), shape))
    return None
