"""What LipSDP may be told; everything else it decides itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch

from verifier.errors import InvalidRequest

Solver: TypeAlias = Literal["interior_point", "first_order", "scs", "clarabel"]
Device: TypeAlias = Literal["auto", "cpu", "cuda"]

_WORTH_A_DEVICE = 300  #: the order of T from which on transfers are repaid


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The method's options, by the names that requests use.

    solver      what seeks the multipliers. Whatever it answers is made strictly feasible, then
                checked.
                interior_point  second order and dense: the optimum to `gap`; cost grows with the
                                cube of the number of gates
                first_order     the block recursion: larger chains and residual networks
                scs, clarabel   general solvers through cvxpy, for comparison
    gap         stop when the bound and its dual estimate differ by this share; 0 < gap < 1
    iterations  of the interior-point method, at most
    multipliers of a convolutional network too large for the dense method: "neuron", one for each
                where so many fit, or "channel", one for all places of a channel
    device      where matrices are multiplied: "cpu", "cuda", or "auto", which takes a CUDA device
                where there is one and the inequality is large
    """

    solver: Solver = "interior_point"
    gap: float = 1e-6
    iterations: int = 100
    multipliers: Literal["neuron", "channel"] = "neuron"
    device: Device = "auto"

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
        if self.device == "cuda" and not torch.cuda.is_available():
            raise InvalidRequest(
                "there is no CUDA device here",
                fix='give device "auto" or "cpu"',
                pointer="/options/device",
            )

    def device_for(self, order: int) -> torch.device:
        """Where inequalities of this order are solved."""
        takes = self.device == "auto" and _WORTH_A_DEVICE <= order and torch.cuda.is_available()
        return torch.device("cuda" if takes or self.device == "cuda" else "cpu")
