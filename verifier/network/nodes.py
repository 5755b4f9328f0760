"""The kinds of node that lowered networks are made of: affine, elementwise, products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
from jaxtyping import Float64
from torch import Tensor

if TYPE_CHECKING:
    from verifier.network.elementwise import Activation
    from verifier.network.linear_map import LinearMap


@dataclass(frozen=True, slots=True)
class Term:
    """A linear map of a signal; the signal "" is the network's input."""

    source: str
    map: LinearMap


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """The sum of linear maps of signals, and a bias."""

    name: str
    terms: tuple[Term, ...]
    bias: Float64[Tensor, " n"]

    @property
    def size(self) -> int:
        """The number of entries that leave."""
        return self.bias.shape[0]

    @property
    def sources(self) -> tuple[str, ...]:
        """The signals that enter."""
        return tuple(term.source for term in self.terms)


@dataclass(frozen=True, slots=True, eq=False)
class Elementwise:
    """A scalar function of every entry of a signal."""

    name: str
    source: str
    function: Activation
    gate: str  #: what proofs call it: the tensor that leaves it, or a part of a lowered group

    @property
    def size(self) -> int:
        """The number of entries that leave."""
        return self.function.size

    @property
    def sources(self) -> tuple[str, ...]:
        """The signal that enters."""
        return (self.source,)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Product:
    """The products of two signals, entry by entry; proofs call it by its name."""

    name: str
    left: str
    right: str
    size: int

    @property
    def sources(self) -> tuple[str, ...]:
        """The signals that enter."""
        return self.left, self.right


Lowered: TypeAlias = Affine | Elementwise | Product


def linear(name: str, terms: Sequence[Term]) -> Affine:
    """An affine node without bias."""
    size = terms[0].map.out_size
    return Affine(name, tuple(terms), torch.zeros(size, dtype=torch.float64))
