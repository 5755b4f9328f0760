"""What LipSDP may be told; everything else it decides itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from verifier.errors import InvalidRequest

Solver: TypeAlias = Literal["interior_point", "scs", "clarabel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The method's options, by the names that requests use."""

    solver: Solver = "interior_point"
    gap: float = 1e-6  #: stop when the bound and its dual estimate differ by this share
    iterations: int = 100  #: of the interior-point method, at most

    def __post_init__(self) -> None:
        if not 0 < self.gap < 1:
            raise InvalidRequest(
                f"the gap is {self.gap}", fix="give 0 < gap < 1", pointer="/options/gap"
            )
        if not 1 <= self.iterations:
            raise InvalidRequest(
                f"the number of iterations is {self.iterations}",
                fix="give at least 1",
                pointer="/options/iterations",
            )
