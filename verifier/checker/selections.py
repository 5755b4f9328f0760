"""TopK: an axis is sorted, and its first places are taken.

Of a tensor t with fewer places than the axis the sort is "t:sorted", and t picks entries of it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.builder import Builder, indices
from verifier.checker.maps import Gather
from verifier.checker.network import Sort, Term
from verifier.checker.operands import Signal
from verifier.errors import NonDeterministicOp

if TYPE_CHECKING:
    from verifier.checker.operands import Call


def top_k(builder: Builder, call: Call) -> Signal:
    """The values; whoever reads the places finds no such tensor."""
    call.arity(1, 2)
    signal, name = call.signal(0), call.node.name
    rank = len(signal.shape)
    axis = call.axis(call.integer("axis", -1), rank)
    count = call.integer("k", 0) if call.opset < 10 else int(call.scalar(1))
    largest = call.integer("largest", 1) != 0
    if not call.integer("sorted", 1):
        raise NonDeterministicOp("TopK without an order", fix="use sorted", node=name)
    if not 1 <= count <= signal.shape[axis]:
        call.invalid(f"k {count} of {signal.shape[axis]}")
    rest = tuple(other for other in range(rank) if other != axis)
    groups = indices(signal.shape).transpose(*rest, axis).reshape(-1, signal.shape[axis])
    places = groups[:, ::-1] if largest else groups
    first = np.take(indices(signal.shape), np.arange(count), axis)
    is_whole = count == signal.shape[axis]
    sort = Sort(
        name=name if is_whole else f"{name}:sorted",
        size=signal.size,
        source=signal.source,
        groups=groups,
        places=np.ascontiguousarray(places),
    )
    builder.add(sort)
    shape = (*signal.shape[:axis], count, *signal.shape[axis + 1 :])
    if not is_whole:
        picked = Gather(np.ascontiguousarray(first).reshape(-1), math.prod(signal.shape))
        return builder.linear(call, shape, [Term(sort.name, picked)])
    return Signal(name, shape, signal.dtype)
