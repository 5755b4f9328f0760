"""Small networks of every shape that methods must know, and their Jacobians by other means."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from fractions import Fraction

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.network.elementwise import Abs, Activation, Gelu, Relu, Silu, Tanh
from verifier.network.graph import Grouped, Network, Node
from verifier.network.grouped import Group, GroupSort, Householder, Maximum
from verifier.network.linear_map import Adjoint, Convolution, Dense, Gather, Identity
from verifier.network.nodes import Affine, Elementwise, Term
from verifier.norms import Norm


def dyadic(rng: np.random.Generator, *shape: int) -> Float64[Tensor, ...]:
    """Random multiples of 1/16 in [-2, 2]: sums of products of few of them are exact."""
    return torch.from_numpy(rng.integers(-32, 33, size=shape) / 16)


def dense(name: str, source: str, weight: Float64[Tensor, "out in"], bias: Tensor) -> Affine:
    return Affine(name, (Term(source, Dense(weight)),), bias)


def gate(name: str, source: str, function: Activation) -> Elementwise:
    return Elementwise(name, source, function, gate=name)


def chain(
    rng: np.random.Generator,
    sizes: tuple[int, ...],
    activation: Callable[[int], Activation | Group] = Relu,
) -> Network:
    """Dense layers with an activation or a group between them."""
    nodes: list[Node] = []
    source = ""
    for depth, (narrow, wide) in enumerate(itertools.pairwise(sizes)):
        nodes.append(dense(f"v{depth}", source, dyadic(rng, wide, narrow), dyadic(rng, wide)))
        source = f"v{depth}"
        if depth < len(sizes) - 2:
            function = activation(wide)
            name = f"z{depth}"
            nodes.append(
                gate(name, source, function)
                if isinstance(function, Activation)
                else Grouped(name, source, function)
            )
            source = name
    return Network(nodes=tuple(nodes), input_size=sizes[0], output=source)


def sorting(size: int, width: int) -> GroupSort:
    """Consecutive groups of `width`, smallest first, left in place."""
    groups = torch.arange(size).reshape(-1, width)
    return GroupSort(groups, groups)


def mirrors(size: int) -> Householder:
    """Mirrors of pairs along (3/5, -4/5)."""
    slices = torch.arange(size).reshape(-1, 2)
    return Householder(
        slices, torch.tensor([[0.6, -0.8]], dtype=torch.float64).repeat(size // 2, 1)
    )


def pooling(size: int) -> Maximum:
    """Overlapping windows of three, as many as entries; the last ones repeat their first."""
    starts = torch.arange(size)
    windows = torch.stack([torch.where(starts + k < size, starts + k, starts) for k in range(3)], 1)
    return Maximum(windows, size)


def residual(rng: np.random.Generator) -> Network:
    """X + W relu(V x + a), then relu, then another layer that also reads x."""
    body = Affine(
        "sum", (Term("", Identity(3)), Term("z", Dense(dyadic(rng, 3, 5)))), dyadic(rng, 3)
    )
    last = Affine(
        "y",
        (Term("s", Dense(dyadic(rng, 2, 3))), Term("", Dense(dyadic(rng, 2, 3)))),
        dyadic(rng, 2),
    )
    return Network(
        nodes=(
            dense("v", "", dyadic(rng, 5, 3), dyadic(rng, 5)),
            gate("z", "v", Relu(5)),
            body,
            gate("s", "sum", Relu(3)),
            last,
        ),
        input_size=3,
        output="y",
    )


def concatenation(rng: np.random.Generator) -> Network:
    """[relu(V x), tanh(x)] through a dense layer; a dead branch beside it."""
    first, second = torch.arange(4), torch.arange(4, 7)
    joined = Affine(
        "joined",
        (Term("z", Adjoint(Gather(first, 7))), Term("t", Adjoint(Gather(second, 7)))),
        torch.zeros(7, dtype=torch.float64),
    )
    return Network(
        nodes=(
            dense("v", "", dyadic(rng, 4, 3), dyadic(rng, 4)),
            gate("z", "v", Relu(4)),
            gate("dead", "v", Abs(4)),
            gate("t", "", Tanh(3)),
            joined,
            dense("y", "joined", dyadic(rng, 2, 7), dyadic(rng, 2)),
        ),
        input_size=3,
        output="y",
    )


def convolutional(rng: np.random.Generator) -> Network:
    """Two strided convolutions of a 1 x 5 x 4 image, with padding and two groups."""
    first = Convolution(dyadic(rng, 2, 1, 3, 2), (1, 5, 4), (2, 1), ((1, 0), (0, 1)), (1, 1))
    second = Convolution(
        dyadic(rng, 2, 1, 2, 2), first.out_shape, (1, 2), ((0, 1), (1, 0)), (1, 1), groups=2
    )
    return Network(
        nodes=(
            Affine("v", (Term("", first),), dyadic(rng, first.out_size)),
            gate("z", "v", Relu(first.out_size)),
            Affine("w", (Term("z", second),), dyadic(rng, second.out_size)),
            gate("s", "w", Relu(second.out_size)),
            dense("y", "s", dyadic(rng, 2, second.out_size), dyadic(rng, 2)),
        ),
        input_size=20,
        output="y",
    )


NETWORKS: Mapping[str, Callable[[np.random.Generator], Network]] = {
    "relu": lambda rng: chain(rng, (3, 5, 4, 2)),
    "abs": lambda rng: chain(rng, (3, 5, 2), Abs),
    "tanh": lambda rng: chain(rng, (3, 5, 4, 2), Tanh),
    "gelu": lambda rng: chain(rng, (3, 5, 2), Gelu),
    "silu": lambda rng: chain(rng, (3, 4, 4, 2), Silu),
    "maxmin": lambda rng: chain(rng, (3, 6, 4, 2), lambda size: sorting(size, 2)),
    "groupsort": lambda rng: chain(rng, (3, 6, 2), lambda size: sorting(size, 3)),
    "householder": lambda rng: chain(rng, (3, 6, 4, 2), mirrors),
    "maxpool": lambda rng: chain(rng, (3, 5, 2), pooling),
    "residual": residual,
    "concatenation": concatenation,
    "convolution": convolutional,
}


def jacobian_of_slopes(
    lowered: Network, slopes: Mapping[str, Float64[Tensor, " n"]]
) -> Float64[Tensor, "outputs inputs"]:
    """The derivative of a lowered network whose gates have these slopes."""
    tangents = {"": torch.eye(lowered.input_size, dtype=torch.float64)}
    for node in lowered.nodes:
        match node:
            case Affine():
                parts = [term.map.apply(tangents[term.source]) for term in node.terms]
                tangents[node.name] = sum(parts[1:], parts[0])
            case Elementwise():
                tangents[node.name] = tangents[node.source] * slopes[node.gate]
            case _:
                raise TypeError(node.name)
    return tangents[lowered.output].T


def exact_relu_chain(network: Network, x: tuple[float, ...]) -> list[Fraction]:
    """The value of a chain of dense layers and ReLUs, in rationals."""
    signal = [Fraction(entry) for entry in x]
    for node in network.nodes:
        if isinstance(node, Affine):
            (term,) = node.terms
            assert isinstance(term.map, Dense)
            signal = [
                sum((Fraction(w) * s for w, s in zip(row, signal, strict=True)), Fraction(b))
                for row, b in zip(term.map.weight.tolist(), node.bias.tolist(), strict=True)
            ]
        else:
            signal = [max(entry, Fraction(0)) for entry in signal]
    return signal


def exact_power(norm: Norm, vector: list[Fraction]) -> Fraction:
    """The norm; in l2 its square, which is rational."""
    magnitudes = [abs(entry) for entry in vector]
    match norm:
        case Norm.L1:
            return sum(magnitudes, Fraction(0))
        case Norm.L2:
            return sum((m * m for m in magnitudes), Fraction(0))
        case Norm.LINF:
            return max(magnitudes)
