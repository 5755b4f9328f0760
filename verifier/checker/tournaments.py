"""Max and Min of signals: rounds of comparisons, each a gate |a - b|; and limits by constants.

max(a, b) = (a + b)/2 + |a - b|/2. Gate c of tensor t is called `t#c`, in the order of comparison.
A limit is the gate t itself, or `t:over` where its numbers differ.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from verifier.checker import scalars
from verifier.checker.builder import Builder, scaled, spread
from verifier.checker.linear import flat
from verifier.checker.maps import identity
from verifier.checker.network import Elementwise, Term
from verifier.checker.operands import Call, Constant, Signal


def maximum(builder: Builder, call: Call) -> Signal:
    """Max."""
    return _extreme(builder, call, 1)


def minimum(builder: Builder, call: Call) -> Signal:
    """Min."""
    return _extreme(builder, call, -1)


def _extreme(builder: Builder, call: Call, sign: int) -> Signal:
    call.one_float_type()
    operands = [call.operand(place) for place in range(len(call.operands))]
    shape = call.broadcast(*(operand.shape for operand in operands))
    signals = [operand for operand in operands if isinstance(operand, Signal)]
    if len(signals) == len(operands):
        return _tournament(builder, call, signals, shape, sign)
    if len(operands) == 2 and signals[0].shape == shape:
        limit = next(operand for operand in operands if isinstance(operand, Constant))
        if limit.error is not None and np.any(limit.error):
            call.not_checkable("a limit that is rounded")
        return _limited(builder, call, signals[0], flat(limit, shape), sign)
    return call.not_checkable("constants and signals of several shapes")


def _limited(builder: Builder, call: Call, signal: Signal, limit: Constant, sign: int) -> Signal:
    """max(x, c) or min(x, c); of numbers c that differ, c + relu(x - c) or c - relu(c - x)."""
    values = limit.value
    if values.size and np.all(values == values[0]):
        end = float(values[0])
        curve = scalars.clip(end, None) if sign > 0 else scalars.clip(None, end)
        return builder.elementwise(call, signal, curve)
    name, size = call.node.name, signal.size
    turned = scaled(identity(size), np.full(size, float(sign)), None)
    shift = Constant(-sign * values, limit.dtype)
    builder.affine(f"{name}:in", size, [Term(signal.source, turned)], shift)
    over = f"{name}:over"
    builder.add(Elementwise(name=over, size=size, source=f"{name}:in", function=scalars.relu()))
    return builder.linear(call, signal.shape, [Term(over, turned)], Constant(values, limit.dtype))


def _tournament(
    builder: Builder, call: Call, signals: Sequence[Signal], shape: tuple[int, ...], sign: int
) -> Signal:
    """The rounds: neighbours are compared, an odd last one passes on."""
    name, dtype, gate = call.node.name, signals[0].dtype, 0
    queue = list(signals)
    while len(queue) > 1:
        following: list[Signal] = []
        for place in range(0, len(queue) - 1, 2):
            is_last = len(queue) == 2
            target = name if is_last else f"{name}#{gate}:out"
            _compare(builder, f"{name}#{gate}", target, queue[place], queue[place + 1], shape, sign)
            following.append(Signal(target, shape, dtype))
            gate += 1
        if len(queue) % 2:
            following.append(queue[-1])
        queue = following
    return queue[0]


def _compare(
    builder: Builder,
    gate: str,
    target: str,
    first: Signal,
    second: Signal,
    shape: tuple[int, ...],
    sign: int,
) -> None:
    onto_first, onto_second = spread(first.shape, shape), spread(second.shape, shape)
    size = onto_first.out_size
    half = np.full(size, 0.5)
    builder.affine(
        f"{gate}:in",
        size,
        [
            Term(first.source, onto_first),
            Term(second.source, scaled(onto_second, np.full(size, -1.0), None)),
        ],
    )
    builder.add(Elementwise(name=gate, size=size, source=f"{gate}:in", function=scalars.absolute()))
    builder.affine(
        target,
        size,
        [
            Term(first.source, scaled(onto_first, half, None)),
            Term(second.source, scaled(onto_second, half, None)),
            Term(gate, scaled(identity(size), sign * half, None)),
        ],
    )
