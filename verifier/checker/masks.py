"""Tensors that are minus infinity at places which the file fixes: what a softmax leaves out.

`Masked` is a tensor's numbers elsewhere, and where these are. The extended reals that it denotes
pass through four kinds of operator, entry by entry, and through a softmax, where exp(-inf) = 0:

    Add      -inf + a = -inf, a finite or -inf
    Where    the operand that a constant condition chooses
    Cast     between float types
    moves    but Pad and Concat

Every other operator refuses them, since no accessor of `Call` hands them out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.block_operators import masked_softmax
from verifier.checker.movements import MOVEMENTS
from verifier.checker.network import Blocks
from verifier.checker.operands import Call, Constant, Masked, Signal
from verifier.checker.softmax import Softmax
from verifier.checker.tensors import Gapped, Tensor

if TYPE_CHECKING:
    from verifier.checker.builder import Builder
    from verifier.checker.operands import Value

_MOVED = frozenset(MOVEMENTS) - {"Concat", "Pad"}


def stored(tensor: Tensor | Gapped) -> Constant | Masked:
    """A stored tensor as an operand."""
    if isinstance(tensor, Tensor):
        return Constant(tensor.array, tensor.dtype)
    return Masked(Constant(tensor.numbers, tensor.dtype), tensor.keeps)


def declared(call: Call) -> list[Masked] | None:
    """What leaves a Constant, or a ConstantOfShape, that is minus infinity somewhere."""
    tensor = call.gapped("value") if call.node.op in ("Constant", "ConstantOfShape") else None
    if tensor is None:
        return None
    if call.node.op == "Constant":
        call.arity(0, 0)
        return [Masked(Constant(tensor.numbers, tensor.dtype), tensor.keeps)]
    call.arity(1, 1)
    shape = call.allowed(call.integers(0))
    if tensor.numbers.size != 1:
        call.invalid("its value is not one number")
    zeros = Constant(np.broadcast_to(np.zeros(()), shape), tensor.dtype)
    return [Masked(zeros, np.broadcast_to(np.zeros((), np.bool_), shape))]


def passed(
    builder: Builder, call: Call, evaluate: Callable[[Call], Sequence[Value | None]]
) -> list[Value | None]:
    """What leaves an operator with such an operand.

    Raises:
        NonFiniteWeights: it does not pass minus infinity on.
    """
    operands = call.operands
    if call.node.op == "Attention":
        return [*evaluate(call)]  # its own mask
    plain = call.on([item.inner if isinstance(item, Masked) else item for item in operands])
    first = operands[0] if operands else None
    op = call.node.op
    if op == "Softmax" and isinstance(first, Masked) and isinstance(first.inner, Signal):
        return [masked_softmax(builder, plain, first.keeps)]
    if op == "Add" and len(operands) == 2:
        keeps = [np.asarray(_keeps(call, 0) & _keeps(call, 1))]
    elif op == "Where" and len(operands) == 3 and isinstance(first, Constant):
        if first.dtype != "bool":
            call.invalid("its condition is no truth value")
        keeps = [np.where(first.value, _keeps(call, 1), _keeps(call, 2))]
    elif isinstance(first, Masked) and op == "Cast":
        keeps = [first.keeps]
    elif isinstance(first, Masked) and op in _MOVED:
        keeps = _moved(plain, first)
    else:
        raise call.not_finite()
    return [
        None if value is None else _masked(call, value, kept)
        for value, kept in zip(evaluate(plain), keeps, strict=True)
    ]


def _masked(call: Call, value: Value, keeps: np.ndarray) -> Masked:
    if not isinstance(value, Constant | Signal):
        call.not_checkable("minus infinity among integers")
    return Masked(value, np.broadcast_to(keeps, value.shape))


def _keeps(call: Call, place: int) -> np.ndarray:
    item = call.operands[place]
    return item.keeps if isinstance(item, Masked) else np.ones((), np.bool_)


def _moved(plain: Call, first: Masked) -> list[np.ndarray]:
    """Where the entries that are not minus infinity go; places without an entry are 0."""
    places = np.arange(math.prod(first.shape)).reshape(first.shape)
    padded = np.append(first.keeps.reshape(-1), np.True_)
    return [padded[index] for index in MOVEMENTS[plain.node.op](plain, [places], -1)]


def never_nan(builder: Builder, call: Call) -> list[Constant] | None:
    """IsNaN of a softmax, which is false; None of anything else."""
    if call.node.op != "IsNaN":
        return None
    call.arity(1, 1)
    signal = call.signal(0)
    node = builder.nodes.get(signal.source)
    if isinstance(node, Blocks) and isinstance(node.function, Softmax):
        return [Constant(np.zeros(signal.shape, np.bool_), "bool")]
    return None
