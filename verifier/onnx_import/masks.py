"""Tensors that are minus infinity at constant places: what a softmax leaves out.

Such a tensor is what it is elsewhere, and which entries those are. It passes through what moves
and adds entries, and ends at a softmax, which gives 0 there; anything else refuses it.

    Add         minus infinity where an operand is
    Where       by a constant condition: where the operand chosen is
    Cast, moves as the entries are converted and moved
    Softmax     over the others; of none of them it is not defined
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from verifier.errors import NonFiniteWeights
from verifier.network.blocks import Softmax
from verifier.network.graph import Grouped
from verifier.onnx_import.convert.blocks import masked_softmax
from verifier.onnx_import.moves import MOVES
from verifier.onnx_import.values import Constant, Masked, Shape, Signal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from verifier.network.graph import Node
    from verifier.onnx_import.call import Call
    from verifier.onnx_import.convert.emitted import Emitted
    from verifier.onnx_import.values import Value

Array: TypeAlias = np.ndarray

_MOVED: Final = MOVES.keys() - {"Pad"}


def opened(constant: Constant) -> Constant | Masked:
    """A stored constant, taken apart where it has minus infinity."""
    if not constant.is_float or not np.isneginf(constant.array).any():
        return constant
    keeps = np.asarray(np.isfinite(constant.array))
    return Masked(Constant(np.where(keeps, constant.array, 0.0), constant.dtype), keeps)


def softmax_of(call: Call) -> Emitted | None:
    """A softmax of what is partly minus infinity; None of any other operator."""
    value = call.input(0)
    if call.op != "Softmax" or not isinstance(value, Masked):
        return None
    if not isinstance(value.inner, Signal):
        raise not_finite(call)
    keeps = value.keeps
    return masked_softmax(replace(call, inputs=(value.inner,)), keeps)


def passed(call: Call, evaluated: Callable[[Call], list[Value]]) -> list[Value]:
    """What leaves an operator that passes minus infinity on.

    Raises:
        NonFiniteWeights: it does not.
    """
    plain = replace(call, inputs=tuple(_inner(value) for value in call.inputs))
    if call.opaque_inputs():
        return evaluated(plain)  # blocked by more than this
    keeps = _kept(call, plain)
    results = evaluated(plain)
    return [
        Masked(value, np.broadcast_to(kept, value.shape))
        if isinstance(value, Constant | Signal) and not kept.all()
        else value
        for value, kept in zip(results, keeps, strict=False)
    ]


def _inner(value: Value | None) -> Value | None:
    return value.inner if isinstance(value, Masked) else value


def _keeps(call: Call, place: int) -> Array:
    value = call.input(place)
    return value.keeps if isinstance(value, Masked) else np.ones((), np.bool_)


def _kept(call: Call, plain: Call) -> Sequence[Array]:
    """Which entries of each result are not minus infinity."""
    first = call.input(0)
    if call.op == "Add":
        return [np.asarray(_keeps(call, 0) & _keeps(call, 1))]
    if call.op == "Where" and isinstance(first, Constant):
        return [np.where(first.array, _keeps(call, 1), _keeps(call, 2))]
    if isinstance(first, Masked) and call.op == "Cast":
        return [first.keeps]
    if isinstance(first, Masked) and call.op in _MOVED:
        shape: Shape = first.shape
        places = np.arange(prod(shape), dtype=np.int64).reshape(shape)
        padded = np.append(first.keeps.reshape(-1), np.True_)  # FILL picks the last one
        return [padded[index] for index in MOVES[call.op](plain, places)]
    raise not_finite(call)


def not_finite(call: Call) -> NonFiniteWeights:
    """The refusal of minus infinity anywhere else."""
    return NonFiniteWeights(
        f"node {call.name!r} ({call.op}): an operand has an entry that is minus infinity, which "
        "only the mask of a softmax may have",
        node=call.name,
        fix="train or export again: every weight has to be finite",
    )


def never_nan(call: Call, nodes: Mapping[str, Node]) -> Constant | None:
    """IsNaN of a softmax, which is false; None of anything else."""
    value = call.input(0)
    node = nodes.get(value.node) if isinstance(value, Signal) and call.op == "IsNaN" else None
    if not isinstance(value, Signal) or not isinstance(node, Grouped):
        return None
    is_softmax = isinstance(node.group, Softmax)
    return Constant(np.zeros(value.shape, np.bool_), "bool") if is_softmax else None


__all__ = ["never_nan", "not_finite", "opened", "passed", "softmax_of"]
