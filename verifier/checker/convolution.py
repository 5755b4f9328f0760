"""The convolution as a linear map: one strided product for every tap of the window."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float64


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

    def _window(self, tap: tuple[int, ...]) -> tuple[slice, ...]:
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

    def _forward(
        self, kernel: Float64[np.ndarray, "*any"], rows: Float64[np.ndarray, "k in"]
    ) -> Float64[np.ndarray, "k out"]:
        count = len(rows)
        image = rows.reshape(count, *self.in_shape)
        padded = np.pad(image, [(0, 0), (0, 0), *self.pads])
        per_group = self.kernel.shape[0] // self.groups
        inner = self.kernel.shape[1]
        positions = int(np.prod(self.out_spatial))
        result = np.zeros((count, self.groups, per_group, positions))
        for tap in np.ndindex(*self.kernel.shape[2:]):
            part = padded[(slice(None), slice(None), *self._window(tap))]
            part = part.reshape(count, self.groups, inner, positions)
            weight = kernel[(slice(None),) * 2 + tap].reshape(self.groups, per_group, inner)
            result += weight @ part
        return result.reshape(count, self.out_size)

    def _backward(
        self, kernel: Float64[np.ndarray, "*any"], rows: Float64[np.ndarray, "k out"]
    ) -> Float64[np.ndarray, "k in"]:
        count = len(rows)
        per_group = self.kernel.shape[0] // self.groups
        inner = self.kernel.shape[1]
        signal = rows.reshape(count, self.groups, per_group, -1)
        spatial = [size + sum(pad) for size, pad in zip(self.in_shape[1:], self.pads, strict=True)]
        padded = np.zeros((count, self.in_shape[0], *spatial))
        for tap in np.ndindex(*self.kernel.shape[2:]):
            weight = kernel[(slice(None),) * 2 + tap].reshape(self.groups, per_group, inner)
            part = weight.transpose(0, 2, 1) @ signal
            window = (slice(None), slice(None), *self._window(tap))
            padded[window] += part.reshape(count, self.in_shape[0], *self.out_spatial)
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
