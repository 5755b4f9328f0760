"""Where a tensor on the torus may be other than 0: a product of sets of places, axis by axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from jaxtyping import Bool
from torch import Tensor

from verifier.methods.torus.taps import Taps

Support: TypeAlias = Bool[Tensor, "_"]


def whole(side: int, window: int) -> Support:
    """[0, window) of a torus of this side."""
    return torch.arange(side) < window


def within(supports: Sequence[Support], windows: Sequence[Support]) -> bool:
    """Whether nothing lies outside the windows."""
    return not any(
        bool((support & ~window).any()) for support, window in zip(supports, windows, strict=True)
    )


def spread(taps: Taps, supports: Sequence[Support]) -> tuple[Support, ...]:
    """Where sum_k W_k x[s i + o_k] may be other than 0."""
    if taps.is_pointwise:
        return tuple(supports)
    reached: list[Support] = []
    for axis, (stride, support) in enumerate(zip(taps.stride, supports, strict=True)):
        side = len(support)
        places = stride * torch.arange(side // stride)
        reads = (places[:, None] + taps.offsets[:, axis].unique()) % side
        reached.append(support[reads].any(dim=1))
    return tuple(reached)
