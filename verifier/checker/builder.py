"""The network while it grows: nodes by name, in the order in which they are made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.maps import Composed, Diagonal, Gather, composed, identity
from verifier.checker.network import Affine, Elementwise, Term
from verifier.checker.operands import Call, Constant, Signal
from verifier.errors import ExpansionTooLarge, NotCheckable

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64

    from verifier.checker.network import Map, Node, Scalar

MAX_ENTRIES = 2**27  #: of all signals together: of a DenseNet of 121 layers they are 80 million


class Builder:
    """Collects nodes; the network's input is the signal "" from the beginning."""

    def __init__(self, input_size: int) -> None:
        self.nodes: dict[str, Node] = {}
        self.sizes: dict[str, int] = {"": input_size}
        self._entries = input_size

    def add(self, node: Node) -> None:
        """Append a node. Its name has to be new."""
        if node.name in self.sizes:
            raise NotCheckable(
                f"the name {node.name!r} is taken", fix="rename the tensor", node=node.name
            )
        self.nodes[node.name] = node
        self.sizes[node.name] = node.size
        self._entries += node.size
        if self._entries > MAX_ENTRIES:
            raise ExpansionTooLarge(
                f"the signals have more than {MAX_ENTRIES} entries", fix="export a smaller network",
                node=node.name,
            )  # fmt: skip

    def affine(
        self,
        name: str,
        size: int,
        terms: Sequence[Term],
        bias: Constant | None = None,
    ) -> None:
        """Append a sum of linear maps; `bias` is flat or has as many entries."""
        # A broadcast zero takes no memory.
        zero = np.broadcast_to(np.float64(0.0), (size,))
        self.add(
            Affine(
                name=name,
                size=size,
                terms=tuple(terms),
                bias=zero if bias is None else np.ascontiguousarray(bias.value).reshape(size),
                bias_error=zero
                if bias is None or bias.error is None
                else np.ascontiguousarray(bias.error).reshape(size),
            )
        )

    def linear(
        self,
        call: Call,
        shape: tuple[int, ...],
        terms: Sequence[Term],
        bias: Constant | None = None,
    ) -> Signal:
        """The affine node that the call's first result is."""
        self.affine(call.node.name, math.prod(shape), terms, bias)
        return self._result(call, shape)

    def elementwise(self, call: Call, source: Signal, function: Scalar) -> Signal:
        """The elementwise node that the call's first result is."""
        self.add(
            Elementwise(
                name=call.node.name, size=source.size, source=source.source, function=function
            )
        )
        return Signal(call.node.name, source.shape, source.dtype)

    def _result(self, call: Call, shape: tuple[int, ...]) -> Signal:
        dtypes = [item.dtype for item in call.operands if isinstance(item, Signal)]
        return Signal(call.node.name, shape, dtypes[0])


# --- Maps that builders share --------------------------------------------------------------------


def indices(shape: tuple[int, ...]) -> Int64[np.ndarray, "*any"]:
    """The flat index of every entry."""
    return np.arange(math.prod(shape)).reshape(shape)


def spread(shape: tuple[int, ...], onto: tuple[int, ...]) -> Gather:
    """The broadcast of a tensor of one shape onto another."""
    size = math.prod(shape)
    if shape == onto:
        return identity(size)
    return Gather(np.broadcast_to(indices(shape), onto).reshape(-1), size)


def scaled(first: Map, scale: Float64[np.ndarray, " n"], error: np.ndarray | None) -> Map:
    """diag(scale) after `first`; the map itself where every scale is 1."""
    if error is None and np.all(scale == 1.0):
        return first
    diagonal = Diagonal(scale, error)
    is_identity = isinstance(first, Gather) and np.array_equal(
        first.index, np.arange(first.in_size)
    )
    return diagonal if is_identity else Composed(first, diagonal)


def rearranged(shape: tuple[int, ...], order: tuple[int, ...]) -> Gather:
    """The transposition of the axes."""
    return Gather(indices(shape).transpose(order).reshape(-1), math.prod(shape))


__all__ = ["Builder", "composed", "indices", "rearranged", "scaled", "spread"]
