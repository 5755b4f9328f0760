"""Intervals through the nodes of a network, forwards; refused where nothing is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from verifier.errors import NotLipschitzOnRegion
from verifier.network.nodes import Affine, Elementwise

Interval: TypeAlias = tuple[Tensor, Tensor]


def affine_interval(node: Affine, intervals: Mapping[str, Interval]) -> Interval:
    """A c + b +- |A| r, summed over the terms."""
    center, reach = node.bias, torch.zeros_like(node.bias)
    for term in node.terms:
        lower, upper = intervals[term.source]
        middle = (lower + upper) / 2
        center = center + term.map.apply(middle[None])[0]
        reach = reach + term.map.absolute().apply((upper - middle)[None])[0]
    return center - reach, center + reach


def image_of(node: Elementwise, interval: Interval) -> Interval:
    """The values of a gate over an interval.

    Raises:
        NotLipschitzOnRegion: the interval leaves the function's domain, or slopes have no bound.
    """
    image = node.function.image(*interval)
    slopes = node.function.slope_range_on(*interval)
    known = torch.stack([end.isfinite() for end in (*image, *slopes)]).all(dim=0)
    if not bool(known.all()):
        place = int((~known).flatten().int().argmax()) % node.size
        lower, upper = (float(end.flatten()[place]) for end in interval)
        raise NotLipschitzOnRegion(
            f"node {node.gate!r} ({type(node.function).__name__}): over the region entry {place} "
            f"of what enters lies in [{lower:.6g}, {upper:.6g}], where its values or slopes have "
            "no bound",
            fix="make the region smaller, or keep what enters away from there: x + eps, Clip",
            node=node.gate,
        )
    return image
