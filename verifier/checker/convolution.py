"""The convolution as a linear map: one product with the operands of all taps, row by row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float64

WORKING_ENTRIES = 2**21  #: the most operands at a time


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """The cross-correlation that ONNX calls Conv, over any number of spatial axes.

    y[o, p] = sum over c, t of kernel[o, c, t] x[group(o) + c, stride p + dilation t - pad],
    with zeros outside.
    """

    kernel: Float64[np.ndarray, "out in_of_group *window"]
    error: Float64[np.ndarray, "out in_of_group *window"] | None
    in_shape: tuple[int, ...]  #: channels, then the spatial axes
    pads: tuple[tuple[int, int], ...]  #: (before, after) of each axis
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    groups: int
    out_spatial: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(
            self,
            "out_spatial",
            tuple(
                (size + sum(pad) - dilation * (width - 1) - 1) // stride + 1
                for size, pad, width, stride, dilation in zip(
                    self.in_shape[1:],
                    self.pads,
                    self.kernel.shape[2:],
                    self.strides,
                    self.dilations,
                    strict=True,
                )
            ),
        )

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Channels, then the spatial axes."""
        return (self.kernel.shape[0], *self.out_spatial)

    @property
    def in_size(self) -> int:
        """The number of entries that enter."""
        return int(np.prod(self.in_shape))

    @property
    def out_size(self) -> int:
        """The number of entries that leave."""
        return int(np.prod(self.out_shape))

    @property
    def terms(self) -> int:
        """Channels of a group times taps."""
        return int(np.prod(self.kernel.shape[1:]))

    @property
    def adjoint_terms(self) -> int:
        """The same seen from the input: outputs of a group times taps."""
        taps = int(np.prod(self.kernel.shape[2:]))
        return self.kernel.shape[0] // self.groups * taps

    @property
    def is_exact(self) -> bool:
        """Never claimed: products are rounded."""
        return False

    def window(self, tap: tuple[int, ...]) -> tuple[slice, ...]:
        """Where a tap finds its operands in the padded input."""
        return tuple(
            slice(start, start + stride * (count - 1) + 1, stride)
            for start, stride, count in zip(
                (t * d for t, d in zip(tap, self.dilations, strict=True)),
                self.strides,
                self.out_spatial,
                strict=True,
            )
        )

    @property
    def taps(self) -> list[tuple[int, ...]]:
        """The places of the window."""
        return list(np.ndindex(*self.kernel.shape[2:]))

    def _chunks(self, rows: Float64[np.ndarray, "k any"]) -> list[Float64[np.ndarray, "some any"]]:
        """Rows whose operands of all taps fit into little memory."""
        operands = self.in_shape[0] * len(self.taps) * int(np.prod(self.out_spatial))
        size = max(1, WORKING_ENTRIES // max(1, operands))
        return [rows[begin : begin + size] for begin in range(0, len(rows), size)]

    def _by_group(self, kernel: Float64[np.ndarray, "*any"]) -> Float64[np.ndarray, "groups o ct"]:
        """The weights of each group, channels and taps in one axis."""
        return kernel.reshape(self.groups, self.kernel.shape[0] // self.groups, -1)

    def _forward(
        self, kernel: Float64[np.ndarray, "*any"], rows: Float64[np.ndarray, "k in"]
    ) -> Float64[np.ndarray, "k out"]:
        weight = self._by_group(kernel)
        parts = [weight @ self._operands(chunk) for chunk in self._chunks(rows)]
        shape = (0, self.groups, weight.shape[1], int(np.prod(self.out_spatial)))
        return np.concatenate([np.zeros(shape), *parts]).reshape(len(rows), self.out_size)

    def _operands(self, rows: Float64[np.ndarray, "k in"]) -> Float64[np.ndarray, "k groups ct p"]:
        """What each tap meets at every position."""
        count, inner = len(rows), self.kernel.shape[1]
        padded = np.pad(rows.reshape(count, *self.in_shape), [(0, 0), (0, 0), *self.pads])
        found = np.empty((count, self.groups, inner, len(self.taps), *self.out_spatial))
        for place, tap in enumerate(self.taps):
            part = padded[(slice(None), slice(None), *self.window(tap))]
            found[:, :, :, place] = part.reshape(count, self.groups, inner, *self.out_spatial)
        return found.reshape(count, self.groups, inner * len(self.taps), -1)

    def _backward(
        self, kernel: Float64[np.ndarray, "*any"], rows: Float64[np.ndarray, "k out"]
    ) -> Float64[np.ndarray, "k in"]:
        weight = self._by_group(kernel).transpose(0, 2, 1)
        parts = [
            self._scattered(weight @ chunk.reshape(len(chunk), self.groups, weight.shape[2], -1))
            for chunk in self._chunks(rows)
        ]
        return np.concatenate([np.zeros((0, self.in_size)), *parts])

    def _scattered(
        self, parts: Float64[np.ndarray, "k groups ct p"]
    ) -> Float64[np.ndarray, "k in"]:
        """The sums of what the taps of all positions give to every entry."""
        count = len(parts)
        spatial = [size + sum(pad) for size, pad in zip(self.in_shape[1:], self.pads, strict=True)]
        padded = np.zeros((count, self.in_shape[0], *spatial))
        by_tap = parts.reshape(count, self.in_shape[0], len(self.taps), *self.out_spatial)
        for place, tap in enumerate(self.taps):
            padded[(slice(None), slice(None), *self.window(tap))] += by_tap[:, :, place]
        inside = tuple(
            slice(before, before + size)
            for (before, _), size in zip(self.pads, self.in_shape[1:], strict=True)
        )
        return padded[(slice(None), slice(None), *inside)].reshape(count, self.in_size)

    def forward(self, rows: Float64[np.ndarray, "k in"]) -> Float64[np.ndarray, "k out"]:
        """fl(K * x)."""
        return self._forward(self.kernel, rows)

    def backward(self, rows: Float64[np.ndarray, "k out"]) -> Float64[np.ndarray, "k in"]:
        """The adjoint, rounded."""
        return self._backward(self.kernel, rows)

    def magnitudes(self, rows: Float64[np.ndarray, "k in"]) -> Float64[np.ndarray, "k out"]:
        """fl(|K| * x)."""
        return self._forward(np.abs(self.kernel), rows)

    def adjoint_magnitudes(self, rows: Float64[np.ndarray, "k out"]) -> Float64[np.ndarray, "k in"]:
        """The adjoint of |K|."""
        return self._backward(np.abs(self.kernel), rows)

    def slack(self, rows: Float64[np.ndarray, "k in"]) -> Float64[np.ndarray, "k out"]:
        """fl(E * x)."""
        if self.error is None:
            return np.zeros((len(rows), self.out_size))
        return self._forward(self.error, rows)

    def adjoint_slack(self, rows: Float64[np.ndarray, "k out"]) -> Float64[np.ndarray, "k in"]:
        """The adjoint of E."""
        if self.error is None:
            return np.zeros((len(rows), self.in_size))
        return self._backward(self.error, rows)
