"""What a rule of conversion returns, and the few shapes that most of them have."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import torch

from verifier.network.blocks import Block
from verifier.network.graph import Grouped, Node
from verifier.network.grouped import Group, Maximum
from verifier.network.linear_map import Composed, Diagonal, Gather, Identity, LinearMap
from verifier.network.nodes import Affine, Elementwise, Term
from verifier.onnx_import.values import Shape, Signal, checked_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from verifier.network.elementwise import Activation
    from verifier.onnx_import.call import Call


@dataclass(frozen=True, slots=True)
class Emitted:
    """Nodes of the network, the last of which is named by the operator's output."""

    nodes: tuple[Node, ...]
    shape: Shape


def tensor(array: np.ndarray) -> Tensor:
    """A float64 tensor; of the array's memory where it can be, for nothing writes to either."""
    rows = np.ascontiguousarray(array, dtype=np.float64)
    return torch.from_numpy(rows if rows.flags.writeable else rows.copy())


def index_tensor(array: np.ndarray) -> Tensor:
    """A flat int64 tensor of its own memory."""
    return torch.tensor(np.ascontiguousarray(array).reshape(-1), dtype=torch.int64)


def indices(shape: Shape) -> np.ndarray:
    """The flat index of every entry, in place."""
    return np.arange(prod(shape), dtype=np.int64).reshape(shape)


def gather(index: np.ndarray, in_size: int) -> LinearMap:
    """The map that picks these entries; the identity where it picks each in turn."""
    flat = index.reshape(-1)
    if flat.size == in_size and np.array_equal(flat, np.arange(in_size)):
        return Identity(in_size)
    return Gather(index_tensor(flat), in_size)


def then(first: LinearMap, second: LinearMap) -> LinearMap:
    """Both, without identities."""
    if isinstance(first, Identity):
        return second
    return first if isinstance(second, Identity) else Composed(first, second)


def spread(call: Call, signal: Signal, shape: Shape) -> LinearMap:
    """The signal, broadcast to a shape."""
    checked_size(shape, call.name)
    return gather(np.broadcast_to(indices(signal.shape), shape), signal.size)


def scaled(linear: LinearMap, scale: float) -> LinearMap:
    """The map, times a number."""
    if scale == 1.0:
        return linear
    ones = torch.ones(linear.out_size, dtype=torch.float64)
    return then(linear, Diagonal(ones * scale))


def affine(
    call: Call,
    shape: Shape,
    terms: Sequence[tuple[Signal, LinearMap]],
    bias: np.ndarray | None = None,
) -> Emitted:
    """The operator as one affine node; the bias is broadcast."""
    checked_size(shape, call.name)
    size = prod(shape)
    whole = np.zeros(size) if bias is None else np.broadcast_to(bias, shape).reshape(size)
    made = tuple(Term(signal.node, linear) for signal, linear in terms)
    return Emitted((Affine(call.output, made, tensor(whole)),), shape)


def elementwise(call: Call, signal: Signal, function: Activation) -> Emitted:
    """The operator as one elementwise node."""
    node = Elementwise(call.output, signal.node, function, gate=call.output)
    return Emitted((node,), signal.shape)


def grouped(call: Call, signal: Signal, group: Group | Block, shape: Shape) -> Emitted:
    """The operator as one node of groups."""
    return Emitted((Grouped(call.output, signal.node, group),), shape)


def maximum(call: Call, signal: Signal, windows: np.ndarray, shape: Shape, sign: int) -> Emitted:
    """Greatest or least entries of windows, given as [*shape, k] indices."""
    checked_size(windows.shape, call.name)
    flat = index_tensor(windows).reshape(prod(shape), windows.shape[-1])
    return grouped(call, signal, Maximum(flat, signal.size, sign), shape)
