"""Small networks and activations for the tests of the methods."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Relu:
    size: int

    def forward(self, x):
        return x.clamp(min=0)

    def slope_range(self):
        o = torch.ones(self.size, dtype=torch.float64)
        return 0 * o, o

    def slope_range_on(self, l, u):
        return (0 < l).double(), (0 <= u).double()

    def image(self, l, u):
        return l.clamp(min=0), u.clamp(min=0)

    def relaxation(self, l, u):
        below = (0 < l + u).double()
        above = torch.where(0 <= l, 1.0, torch.where(u <= 0, 0.0, u / (u - l).clamp(min=1e-300)))
        below = torch.where(0 <= l, 1.0, torch.where(u <= 0, 0.0, below))
        a, b = self.offsets(l, u, below, above)
        return below, a, above, b

    def offsets(self, l, u, below, above):
        lo = torch.minimum(l.clamp(min=0) - below * l, u.clamp(min=0) - below * u)
        k = (l < 0) & (0 < u)
        lo = torch.where(k, lo.clamp(max=0), lo)
        hi = torch.maximum(l.clamp(min=0) - above * l, u.clamp(min=0) - above * u)
        hi = torch.where(k, hi.clamp(min=0), hi)
        return lo, hi


@dataclass(frozen=True, slots=True)
class Tanh:
    size: int

    def forward(self, x):
        return x.tanh()

    def slope_range(self):
        o = torch.ones(self.size, dtype=torch.float64)
        return 0 * o, o

    def slope_range_on(self, l, u):
        a = 1 - l.tanh() ** 2
        b = 1 - u.tanh() ** 2
        return torch.minimum(a, b), torch.where((l <= 0) & (0 <= u), 1.0, torch.maximum(a, b))

    def image(self, l, u):
        return l.tanh(), u.tanh()

    def relaxation(self, l, u):
        s = torch.minimum(1 - l.tanh() ** 2, 1 - u.tanh() ** 2)
        return s, l.tanh() - s * l, s, u.tanh() - s * u
