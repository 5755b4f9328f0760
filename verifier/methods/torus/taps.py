"""Convolutions as sums of shifts: what every linear map before the crop is.

    y[i] = sum_k W_k x[s i + o_k]                                                        (1)

with one matrix of channels W_k for each offset o_k, and the stride s, axis by axis. On a torus a
plane wave x[n] = a e^(i w.n) leaves as e^(i s w.i) M(w) a with the symbol

    M(w) = sum_k W_k e^(i w.o_k).                                                        (2)
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Complex, Float64, Int64
from torch import Tensor

from verifier.network.linear_map import Convolution


@dataclass(frozen=True, slots=True, eq=False)
class Taps:
    """Equation (1)."""

    stride: tuple[int, ...]
    offsets: Int64[Tensor, "taps axes"]
    weights: Float64[Tensor, "taps out in"]

    @property
    def is_pointwise(self) -> bool:
        """Whether every entry comes from its own place alone."""
        return not self.offsets.any() and set(self.stride) <= {1}

    def then(self, second: Taps) -> Taps:
        """Both: x[s1 (s2 i + o2) + o1]."""
        first_stride = torch.tensor(self.stride)
        offsets = self.offsets[None, :, :] + first_stride * second.offsets[:, None, :]
        weights = torch.einsum("koc,lci->kloi", second.weights, self.weights)
        return _merged(
            tuple(a * b for a, b in zip(self.stride, second.stride, strict=True)),
            offsets.flatten(0, 1),
            weights.flatten(0, 1),
        )

    def plus(self, other: Taps) -> Taps:
        """The sum of two maps of one stride."""
        if self.stride != other.stride:
            raise ValueError("maps of two strides meet")
        offsets = torch.cat([self.offsets, other.offsets])
        return _merged(self.stride, offsets, torch.cat([self.weights, other.weights]))

    def symbol(self, waves: Float64[Tensor, "waves axes"]) -> Complex[Tensor, "waves out in"]:
        """Equation (2) at every wave vector."""
        phases = torch.exp(1j * (waves @ self.offsets.to(waves).T))
        flat = self.weights.flatten(1).to(phases)
        return (phases @ flat).reshape(len(waves), *self.weights.shape[1:])


def pointwise(matrix: Float64[Tensor, "out in"], axes: int) -> Taps:
    """A map that mixes channels, at every place alike."""
    return Taps((1,) * axes, torch.zeros(1, axes, dtype=torch.int64), matrix[None])


def of_convolution(conv: Convolution) -> Taps:
    """The taps of a convolution: offsets are dilation times place, less the padding before."""
    window = conv.kernel.shape[2:]
    places = torch.tensor(list(product(*(range(width) for width in window))))
    begin = torch.tensor([pad for pad, _ in conv.pads])
    offsets = places * torch.tensor(conv.dilation) - begin
    out_channels, group_channels = conv.kernel.shape[:2]
    kernel = conv.kernel.flatten(2).permute(2, 0, 1)
    if conv.groups == 1:
        return Taps(conv.stride, offsets, kernel.contiguous())
    weights = kernel.new_zeros(len(kernel), out_channels, conv.in_shape[0])
    size = out_channels // conv.groups
    for group in range(conv.groups):
        rows = slice(group * size, (group + 1) * size)
        columns = slice(group * group_channels, (group + 1) * group_channels)
        weights[:, rows, columns] = kernel[:, rows]
    return Taps(conv.stride, offsets, weights)


def _merged(stride: tuple[int, ...], offsets: Tensor, weights: Tensor) -> Taps:
    """Taps of one offset, added."""
    unique, owner = offsets.unique(dim=0, return_inverse=True)
    if len(unique) == len(offsets):
        return Taps(stride, offsets, weights)
    sums = weights.new_zeros(len(unique), *weights.shape[1:])
    return Taps(stride, unique, sums.index_add_(0, owner, weights))
