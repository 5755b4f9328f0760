"""The norms of inputs and outputs, and the pair that an operator norm is taken for.

Inputs may be weighted: |w o x|_p, or sqrt(x'Px). Either is a plain norm of other coordinates,
|x| = |z|_p for x = T z, so that a function has the constant in the weighted norm that z -> f(T z)
has in the plain one. Methods and checker make that change and know plain pairs only.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias


class Norm(StrEnum):
    """A vector norm."""

    L1 = "l1"
    L2 = "l2"
    LINF = "linf"

    @property
    def dual(self) -> "Norm":
        """The norm q with |x.y| <= |x| |y|_q, least such."""
        return {Norm.L1: Norm.LINF, Norm.L2: Norm.L2, Norm.LINF: Norm.L1}[self]


@dataclass(frozen=True, slots=True)
class NormPair:
    """The norm of input increments and the norm of output increments."""

    input: Norm
    output: Norm

    def to_json(self) -> dict[str, object]:
        """The canonical form: always the pair."""
        return {"input": self.input.value, "output": self.output.value}


@dataclass(frozen=True, slots=True)
class Weights:
    """|w o x|_p: coordinate k counts w_k times."""

    values: tuple[float, ...]  #: above 0, one for each input of the network

    def to_json(self) -> dict[str, object]:
        """The member of the norm."""
        return {"weights": list(self.values)}


@dataclass(frozen=True, slots=True)
class Metric:
    """sqrt(x'Px), P symmetric and positive definite."""

    rows: tuple[tuple[float, ...], ...]  #: P, one row for each input of the network

    def to_json(self) -> dict[str, object]:
        """The member of the norm."""
        return {"matrix": [list(row) for row in self.rows]}


Weighting: TypeAlias = Weights | Metric


@dataclass(frozen=True, slots=True)
class WeightedPair:
    """A pair whose input norm is weighted.

    It has no member `input`, so that what knows plain pairs only fails on it: weights that are
    forgotten would make a false bound.
    """

    plain: NormPair  #: of the coordinates z; its input norm is l2 where the weighting is a Metric
    weighting: Weighting

    def __post_init__(self) -> None:
        if isinstance(self.weighting, Metric) and self.plain.input is not Norm.L2:
            raise ValueError("a matrix weights the l2 norm only")

    @property
    def output(self) -> Norm:
        """The norm of output increments."""
        return self.plain.output

    def to_json(self) -> dict[str, object]:
        """The canonical form: always the pair."""
        weighted = {"type": self.plain.input.value, **self.weighting.to_json()}
        return {"input": weighted, "output": self.plain.output.value}


Norms: TypeAlias = NormPair | WeightedPair


def leading_to(norms: Norms, output: Norm) -> Norms:
    """The same input norm, weighted or not, and another output norm."""
    if isinstance(norms, NormPair):
        return NormPair(norms.input, output)
    return replace(norms, plain=NormPair(norms.plain.input, output))
