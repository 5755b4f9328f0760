"""Signals multiplied and divided, as `Product` nodes; copies of entries are maps in front.

Of a tensor t, "t" is the product of Mul and Div, "t:reciprocal" the gate 1/y of Div, and
"t:products" the product of MatMul and Gemm: all products of two entries that they add up, in the
order [*batch, row, column, inner]. Proofs know these by their names.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.builder import Builder, indices, scaled, spread
from verifier.checker.maps import Adjoint, Gather
from verifier.checker.network import Elementwise, Product, Term
from verifier.checker.operands import Call, Constant, Signal
from verifier.checker.restricted import Power

if TYPE_CHECKING:
    from verifier.checker.network import Map


def multiply(builder: Builder, call: Call, first: Signal, second: Signal) -> Signal:
    """Mul of two signals."""
    shape = call.broadcast(first.shape, second.shape)
    product(
        builder,
        call.node.name,
        (first.source, spread(first.shape, shape)),
        (second.source, spread(second.shape, shape)),
    )
    return Signal(call.node.name, shape, first.dtype)


def divide(builder: Builder, call: Call, first: Signal | Constant, second: Signal) -> Signal:
    """Div by a signal."""
    shape = call.broadcast(first.shape, second.shape)
    inverse = f"{call.node.name}:reciprocal"
    builder.add(
        Elementwise(name=inverse, size=second.size, source=second.source, function=Power(-1.0))
    )
    onto = spread(second.shape, shape)
    if isinstance(first, Constant):
        value = np.broadcast_to(first.value, shape).reshape(-1)
        error = np.broadcast_to(first.spread, shape).reshape(-1)
        term = Term(inverse, scaled(onto, value, error if np.any(error) else None))
        builder.affine(call.node.name, math.prod(shape), [term])
    else:
        factor = (first.source, spread(first.shape, shape))
        product(builder, call.node.name, factor, (inverse, onto))
    return Signal(call.node.name, shape, second.dtype)


def matrix_product(builder: Builder, call: Call, first: Signal, second: Signal) -> Signal:
    """MatMul of two signals: numpy's rules for vectors and stacks."""
    if not (first.shape and second.shape):
        call.mismatch("a factor is a number")
    left, right = indices(first.shape), indices(second.shape)
    left = left[None, :] if left.ndim == 1 else left
    right = right[:, None] if right.ndim == 1 else right
    shape, term = summed_products(builder, call, (first, left), (second, right))
    rows = shape[-2:-1] if len(first.shape) > 1 else ()
    columns = shape[-1:] if len(second.shape) > 1 else ()
    return builder.linear(call, (*shape[:-2], *rows, *columns), [term])


def summed_products(
    builder: Builder,
    call: Call,
    first: tuple[Signal, np.ndarray],
    second: tuple[Signal, np.ndarray],
) -> tuple[tuple[int, ...], Term]:
    """The shape of a matrix product, and the sums; factors as arrays of their entries' places."""
    (one, left), (other, right) = first, second
    if left.shape[-1] != right.shape[-2]:
        call.mismatch(f"{left.shape} times {right.shape}")
    batch = call.broadcast(left.shape[:-2], right.shape[:-2])
    inner = left.shape[-1]
    shape = call.allowed([*batch, left.shape[-2], right.shape[-1]])
    whole = call.allowed([*shape, inner])
    rows = np.broadcast_to(left[..., :, None, :], whole).reshape(-1)
    columns = np.broadcast_to(np.swapaxes(right, -1, -2)[..., None, :, :], whole).reshape(-1)
    factors = (one.source, Gather(rows, one.size)), (other.source, Gather(columns, other.size))
    return shape, added_up(builder, call, factors, math.prod(shape), inner)


def added_up(
    builder: Builder,
    call: Call,
    factors: tuple[tuple[str, Map], tuple[str, Map]],
    size: int,
    inner: int,
) -> Term:
    """Products of entries, and so many of them added up to each of `size` sums."""
    name = f"{call.node.name}:products"
    product(builder, name, *factors)
    owner = np.repeat(np.arange(size), inner)
    return Term(name, Adjoint(Gather(owner, size)))


def product(builder: Builder, name: str, left: tuple[str, Map], right: tuple[str, Map]) -> None:
    """The product of two maps of signals, which are nodes where they move or copy entries."""
    factors: list[str] = []
    for side, (source, onto) in (("left", left), ("right", right)):
        if _is_identity(onto):
            factors.append(source)
            continue
        factors.append(f"{name}:{side}:in")
        builder.affine(factors[-1], onto.out_size, [Term(source, onto)])
    builder.add(Product(name=name, size=left[1].out_size, left=factors[0], right=factors[1]))


def _is_identity(linear: Map) -> bool:
    return (
        isinstance(linear, Gather)
        and linear.in_size == linear.out_size
        and np.array_equal(linear.index, np.arange(linear.in_size))
    )
