"""Chains of dense layers with gates between them, the networks of several benchmarks."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.network.elementwise import Relu
from verifier.network.graph import Grouped, Network, Node
from verifier.network.grouped import GroupSort
from verifier.network.linear_map import Dense
from verifier.network.nodes import Elementwise, Term, linear

SEED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A network of a fixed seed, each layer scaled to spectral norm 1."""

    name: str
    widths: tuple[int, ...]
    kind: Literal["relu", "maxmin"] = "relu"
    entries: Literal["gaussian", "signs"] = "gaussian"  #: of the weights, before they are scaled
    gap: float = 1e-6
    wanted_s: float | None = None

    @property
    def weights(self) -> list[Float64[Tensor, "_ _"]]:
        """The matrices of the layers."""
        generator = torch.Generator().manual_seed(SEED)
        found: list[Tensor] = []
        for fan_in, fan_out in pairwise(self.widths):
            weight = torch.randn(fan_out, fan_in, generator=generator, dtype=torch.float64)
            if self.entries == "signs":
                weight = weight.sign()
            found.append(weight / torch.linalg.matrix_norm(weight, 2))
        return found

    def network(self) -> Network:
        """Its layers, and gates between them."""
        nodes: list[Node] = []
        source = ""
        weights = self.weights
        for layer, weight in enumerate(weights):
            size, target, gate = len(weight), f"v{layer}", f"z{layer}"
            nodes.append(linear(target, (Term(source, Dense(weight)),)))
            if layer == len(weights) - 1:
                break
            if self.kind == "relu":
                nodes.append(Elementwise(gate, target, Relu(size), gate=gate))
            else:
                pairs = torch.arange(size).reshape(-1, 2)
                nodes.append(Grouped(gate, target, GroupSort(pairs, pairs)))
            source = gate
        return Network(nodes=tuple(nodes), input_size=self.widths[0], output=f"v{len(weights) - 1}")


def deep(depth: int, width: int) -> tuple[int, ...]:
    """`depth` hidden layers of one width, as many inputs, and ten outputs."""
    return (*((width,) * (depth + 1)), 10)
