"""The norms of inputs and outputs, and the pair that an operator norm is taken for."""

from dataclasses import dataclass
from enum import StrEnum


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

    def to_json(self) -> dict[str, str]:
        """The canonical form: always the pair."""
        return {"input": self.input.value, "output": self.output.value}
