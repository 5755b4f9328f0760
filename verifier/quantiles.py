"""Quantiles of bounds and radii: each is one of the numbers, so that what it says is proved."""

from __future__ import annotations

import math
from collections.abc import Sequence

SHARES = {"min": 0.0, "median": 0.5, "p90": 0.9, "max": 1.0}


def quantiles_of(numbers: Sequence[float]) -> dict[str, float | None]:
    """By name, the least of the numbers that this share of them does not exceed; None: infinite."""
    ordered = sorted(numbers)
    chosen = {
        name: ordered[max(0, math.ceil(share * len(ordered)) - 1)] for name, share in SHARES.items()
    }
    return {name: number if math.isfinite(number) else None for name, number in chosen.items()}
