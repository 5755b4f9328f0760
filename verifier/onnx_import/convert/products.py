"""Signals multiplied and divided: each is a `Product`, entry by entry, of two signals of one size.

    Mul, Div       broadcast factors; x / y = x (1/y), the reciprocal being a gate of its own
    MatMul, Gemm   every product of two entries, in the order [*batch, row, column, inner], and sums

Copies of entries are maps in front. The checker names the same nodes alike: of a tensor t, "t" is
the product of Mul and Div, "t:reciprocal" the gate, and "t:products" those of a matrix product.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Final

import numpy as np

from verifier.errors import ShapeMismatch
from verifier.network import elementwise as functions
from verifier.network.linear_map import Adjoint, Diagonal, Identity, LinearMap
from verifier.network.nodes import Affine, Elementwise, Lowered, Product, Term, linear
from verifier.onnx_import.convert.emitted import (
    Emitted,
    affine,
    elementwise,
    gather,
    indices,
    scaled,
    spread,
    tensor,
    then,
)
from verifier.onnx_import.moves import broadcast_shape
from verifier.onnx_import.values import Constant, Shape, Signal, checked_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.onnx_import.call import Call


MAX_PRODUCTS: Final = 2**22  #: of one matrix product: each is an entry of a signal


def multiplied(call: Call, a: Signal, b: Signal) -> Emitted:
    """The product of two signals; a square where they are one."""
    shape = broadcast_shape(call, a.shape, b.shape)
    if a.node == b.node and a.shape == b.shape:
        return elementwise(call, a, functions.Power(a.size, 2.0))
    checked_size(shape, call.name)
    parts = [(a.node, spread(call, a, shape)), (b.node, spread(call, b, shape))]
    return Emitted(tuple(product_of(call.output, parts)), shape)


def divided(call: Call, b: Signal) -> Emitted:
    """A signal, or a constant, by a signal."""
    a = call.input(0)
    name = f"{call.output}:reciprocal"
    inverse = Elementwise(name, b.node, functions.Power(b.size, -1.0), gate=name)
    inverted = Signal(name, b.shape, b.dtype)
    match a:
        case Signal():
            shape = broadcast_shape(call, a.shape, b.shape)
            checked_size(shape, call.name)
            parts = [(a.node, spread(call, a, shape)), (name, spread(call, inverted, shape))]
            return Emitted((inverse, *product_of(call.output, parts)), shape)
        case Constant():
            made = scaled_by(call, inverted, a.array)
            return Emitted((inverse, *made.nodes), made.shape)
        case _:
            raise call.unsupported("an operand is missing")


def scaled_by(call: Call, x: Signal, factor: np.ndarray) -> Emitted:
    """X times a broadcast constant."""
    shape = broadcast_shape(call, x.shape, factor.shape)
    scale = tensor(np.broadcast_to(factor, shape).reshape(prod(shape)))
    return affine(call, shape, [(x, then(spread(call, x, shape), Diagonal(scale)))])


def matrix_product(call: Call, a: Signal, b: Signal) -> Emitted:
    """MatMul of two signals, with numpy's rules for vectors and stacks."""
    left, right = indices(a.shape), indices(b.shape)
    if not (a.shape and b.shape):
        raise call.unsupported("a factor is a number")
    left = left[None, :] if left.ndim == 1 else left
    right = right[:, None] if right.ndim == 1 else right
    summed, shape = _summed_products(call, (a, left), (b, right))
    dropped = {axis for axis, one in ((-2, a), (-1, b)) if len(one.shape) == 1}
    kept = tuple(size for axis, size in enumerate(shape, -len(shape)) if axis not in dropped)
    return Emitted((*summed, linear(call.output, [sum_of(call, shape, left.shape[-1])])), kept)


def general_product(call: Call, a: Signal, b: Signal) -> Emitted:
    """Gemm of two signals: alpha A' B' + beta C."""
    alpha, beta = call.attributes.number("alpha", 1.0), call.attributes.number("beta", 1.0)
    if (len(a.shape), len(b.shape)) != (2, 2):
        raise call.unsupported(f"its factors have {len(a.shape)} and {len(b.shape)} axes")
    left, right = indices(a.shape), indices(b.shape)
    left = left.T if call.attributes.integer("transA", 0) else left
    right = right.T if call.attributes.integer("transB", 0) else right
    summed, shape = _summed_products(call, (a, left), (b, right))
    term = sum_of(call, shape, left.shape[-1])
    terms, bias = [Term(term.source, scaled(term.map, alpha))], np.zeros(shape)
    match call.input(2):
        case None:
            pass
        case Signal() as addend:
            terms.append(Term(addend.node, scaled(spread(call, addend, shape), beta)))
        case _:
            bias = np.broadcast_to(beta * call.array(2), shape)
    node = Affine(call.output, tuple(terms), tensor(bias.reshape(prod(shape))))
    return Emitted((*summed, node), shape)


def _summed_products(
    call: Call, left: tuple[Signal, np.ndarray], right: tuple[Signal, np.ndarray]
) -> tuple[Sequence[Lowered], Shape]:
    """Every product of a row's and a column's entries; factors as arrays of their indices."""
    (a, rows), (b, columns) = left, right
    if rows.shape[-1] != columns.shape[-2]:
        raise ShapeMismatch(
            f"node {call.name!r} ({call.op}): columns {rows.shape[-1:]} meet rows "
            f"{columns.shape[-2:-1]}",
            node=call.name,
            fix="export the model again",
        )
    batch = np.broadcast_shapes(rows.shape[:-2], columns.shape[:-2])
    shape = (*batch, rows.shape[-2], columns.shape[-1])
    whole = (*shape, rows.shape[-1])
    if MAX_PRODUCTS < prod(whole):
        raise call.unsupported(
            f"it adds up {prod(whole):,} products of entries, more than {MAX_PRODUCTS:,}"
        )
    first = np.broadcast_to(rows[..., :, None, :], whole)
    second = np.broadcast_to(np.swapaxes(columns, -1, -2)[..., None, :, :], whole)
    parts = [(a.node, gather(first, a.size)), (b.node, gather(second, b.size))]
    return tuple(product_of(f"{call.output}:products", parts)), shape


def sum_of(call: Call, shape: Shape, inner: int) -> Term:
    """The sums over the last of the products' axes."""
    owner = np.repeat(np.arange(prod(shape)), inner)
    return Term(f"{call.output}:products", Adjoint(gather(owner, prod(shape))))


def product_of(name: str, parts: Sequence[tuple[str, LinearMap]]) -> list[Lowered]:
    """The product of two maps of signals, and what copies their entries."""
    nodes: list[Lowered] = []
    factors: list[str] = []
    for side, (source, onto) in zip(("left", "right"), parts, strict=True):
        if isinstance(onto, Identity):
            factors.append(source)
            continue
        factors.append(f"{name}:{side}:in")
        nodes.append(linear(factors[-1], [Term(source, onto)]))
    size = parts[0][1].out_size
    return [*nodes, Product(name=name, left=factors[0], right=factors[1], size=size)]
