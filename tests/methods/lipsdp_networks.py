"""Small networks of every kind that LipSDP knows, and the greatest norm of their Jacobians."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from math import prod

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.methods.lipsdp.form import Form, helmert
from verifier.methods.lipsdp.slopes import Slopes
from verifier.network.elementwise import Abs, Activation, Gelu, PRelu, Relu
from verifier.network.graph import Grouped, Network, Node
from verifier.network.grouped import GroupSort, Householder, Maximum
from verifier.network.linear_map import Convolution, Dense, Identity
from verifier.network.nodes import Affine, Elementwise, Term


def noise(generator: torch.Generator, *shape: int) -> Float64[Tensor, "*shape"]:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


class Builder:
    """A network, node by node; each method returns the new node's name."""

    def __init__(self, inputs: int, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._inputs = inputs
        self._sizes = {"": inputs}
        self._nodes: list[Node] = []

    def _added(self, node: Node) -> str:
        self._nodes.append(node)
        self._sizes[node.name] = node.size
        return node.name

    def dense(self, size: int, *sources: str) -> str:
        """Random weights of all sources, summed, and a random bias."""
        terms = tuple(
            Term(source, Dense(noise(self._generator, size, self._sizes[source]) / 2))
            for source in sources
        )
        bias = noise(self._generator, size)
        return self._added(Affine(f"n{len(self._nodes)}", terms, bias))

    def add(self, *sources: str) -> str:
        """The sum of signals of one size."""
        size = self._sizes[sources[0]]
        terms = tuple(Term(source, Identity(size)) for source in sources)
        bias = torch.zeros(size, dtype=torch.float64)
        return self._added(Affine(f"n{len(self._nodes)}", terms, bias))

    def map(self, linear: Convolution, source: str) -> str:
        """A given map."""
        bias = torch.zeros(linear.out_size, dtype=torch.float64)
        return self._added(Affine(f"n{len(self._nodes)}", (Term(source, linear),), bias))

    def gate(self, function: Callable[[int], Activation], source: str) -> str:
        """A function of every entry."""
        name = f"n{len(self._nodes)}"
        return self._added(Elementwise(name, source, function(self._sizes[source]), gate=name))

    def sort(self, count: int, source: str) -> str:
        """Neighbours sorted."""
        groups = torch.arange(self._sizes[source]).reshape(-1, count)
        return self._added(Grouped(f"n{len(self._nodes)}", source, GroupSort(groups, groups)))

    def mirror(self, source: str) -> str:
        """A reflection of neighbours, by vectors that are unit up to one rounding."""
        slices = torch.arange(self._sizes[source]).reshape(-1, 2)
        vectors = noise(self._generator, len(slices), 2)
        vectors = vectors / vectors.norm(dim=1, keepdim=True)
        return self._added(Grouped(f"n{len(self._nodes)}", source, Householder(slices, vectors)))

    def maxima(self, source: str) -> str:
        """Maxima of overlapping windows of three."""
        size = self._sizes[source]
        windows = torch.arange(size - 2)[:, None] + torch.arange(3)
        return self._added(Grouped(f"n{len(self._nodes)}", source, Maximum(windows, size)))

    def network(self) -> Network:
        """What was built; the last node is the output."""
        last = self._nodes[-1].name
        return Network(nodes=tuple(self._nodes), input_size=self._inputs, output=last)


def relu_chain(seed: int = 1) -> Network:
    b = Builder(3, seed)
    return _finished(b, b.gate(Relu, b.dense(4, b.gate(Relu, b.dense(5, "")))))


def residual(seed: int = 2) -> Network:
    b = Builder(3, seed)
    stem = b.dense(4, "")
    branch = b.dense(4, b.gate(Relu, stem))
    return _finished(b, b.gate(Relu, b.add(stem, branch)))


def branches(seed: int = 3) -> Network:
    b = Builder(3, seed)
    left, right = b.gate(Relu, b.dense(3, "")), b.gate(Abs, b.dense(4, ""))
    out = b.dense(2, left, right, "")
    b.add(out, out)
    return b.network()


def maxmin(seed: int = 4) -> Network:
    b = Builder(3, seed)
    return _finished(b, b.sort(2, b.dense(6, b.sort(2, b.dense(6, "")))))


def groupsort(seed: int = 5) -> Network:
    b = Builder(3, seed)
    return _finished(b, b.sort(3, b.dense(6, b.sort(3, b.dense(6, "")))))


def householder(seed: int = 6) -> Network:
    b = Builder(3, seed)
    return _finished(b, b.mirror(b.dense(6, b.mirror(b.dense(4, "")))))


def mixed_slopes(seed: int = 7) -> Network:
    b = Builder(3, seed)

    def prelu(size: int) -> PRelu:
        return PRelu(size, torch.linspace(-0.7, 1.6, size, dtype=torch.float64))

    return _finished(b, b.gate(Gelu, b.dense(4, b.gate(prelu, b.dense(5, "")))))


def maxima(seed: int = 8) -> Network:
    b = Builder(3, seed)
    return _finished(b, b.gate(Relu, b.maxima(b.dense(5, ""))))


def convolution(seed: int = 9) -> Network:
    b = Builder(8, seed)
    kernel = noise(torch.Generator().manual_seed(seed), 2, 1, 3)
    linear = Convolution(kernel, (1, 8), (2,), ((1, 1),), (1,))
    return _finished(b, b.gate(Relu, b.map(linear, "")))


def dead_and_constant(seed: int = 10) -> Network:
    """A gate that nothing reads, one that nothing enters, and an input that nothing reads."""
    weight = noise(torch.Generator().manual_seed(seed), 4, 3)
    weight[1], weight[:, 2] = 0.0, 0.0
    readout = noise(torch.Generator().manual_seed(seed + 1), 2, 4)
    readout[:, 3] = 0.0
    bias = torch.full((4,), 0.5, dtype=torch.float64)
    nodes = (
        Affine("v", (Term("", Dense(weight)),), bias),
        Elementwise("z", "v", Relu(4), gate="z"),
        Affine("y", (Term("z", Dense(readout)),), bias[:2]),
    )
    return Network(nodes=nodes, input_size=3, output="y")


def linear_only(seed: int = 11) -> Network:
    b = Builder(3, seed)
    b.dense(2, b.dense(4, ""))
    return b.network()


def _finished(b: Builder, source: str) -> Network:
    b.dense(2, source)
    return b.network()


NETWORKS: dict[str, Callable[[], Network]] = {
    "relu_chain": relu_chain,
    "residual": residual,
    "branches": branches,
    "maxmin": maxmin,
    "groupsort": groupsort,
    "householder": householder,
    "mixed_slopes": mixed_slopes,
    "maxima": maxima,
    "convolution": convolution,
    "dead_and_constant": dead_and_constant,
    "linear_only": linear_only,
}


def vertex_jacobians(form: Form, most: int = 4096) -> Iterator[Float64[Tensor, "outputs inputs"]]:
    """Jacobians with psi = T v at vertices T: signs of scalars, permutations of sorted groups.

    Every quadratic constraint admits them, so no bound of LipSDP is below one of their norms;
    and the network's own constant is at most the greatest of them.
    """
    choices = [_vertices(array.psis) for array in form.gates for _ in range(len(array.active))]
    total = prod(len(c) for c in choices)
    generator = torch.Generator().manual_seed(0)
    if total <= most:
        picks: Iterator[tuple[Tensor, ...]] = itertools.product(*choices)
    else:
        drawn = (
            [int(torch.randint(len(c), (), generator=generator)) for c in choices]
            for _ in range(most)
        )
        picks = (tuple(c[i] for c, i in zip(choices, d, strict=True)) for d in drawn)
    eye = torch.eye(len(form.owner), dtype=torch.float64)
    for pick in picks:
        turn = torch.block_diag(*pick) if pick else eye
        psis = torch.linalg.solve(
            eye - turn @ form.inflow[:, form.inputs :], turn @ form.inflow[:, : form.inputs]
        )
        yield form.outflow[:, : form.inputs] + form.outflow[:, form.inputs :] @ psis


def _vertices(psis: int) -> list[Tensor]:
    if psis == 1:
        return [torch.full((1, 1), sign, dtype=torch.float64) for sign in (-1.0, 1.0)]
    basis = helmert(psis + 1)
    eye = torch.eye(psis + 1, dtype=torch.float64)
    orders = itertools.permutations(range(psis + 1))
    return [basis.T @ eye[list(order)] @ basis for order in orders]


def realised_psis(
    network: Network, slopes: dict[str, Slopes], x: Tensor, y: Tensor
) -> Float64[Tensor, " psis"]:
    """The psis of two inputs, from the network's own signals."""
    signals = network.signals(torch.stack([x, y]))
    rise = {name: signal[0] - signal[1] for name, signal in signals.items()}
    parts = [torch.zeros(0, dtype=torch.float64)]
    for node in network.nodes:
        if isinstance(node, Elementwise):
            slope = slopes[node.gate]
            active = slope.lower < slope.upper
            middle, half = (slope.lower + slope.upper) / 2, (slope.upper - slope.lower) / 2
            psi = (rise[node.name] - middle * rise[node.source]) / half
            parts.append(psi[active])
        elif isinstance(node, Grouped) and isinstance(node.group, GroupSort):
            sorted_rise = rise[node.name][node.group.places]
            parts.append((sorted_rise @ helmert(node.group.groups.shape[1])).flatten())
    return torch.cat(parts)
