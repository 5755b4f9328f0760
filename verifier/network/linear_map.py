"""The linear maps that affine nodes are sums of: some 25 ONNX operators become these few.

A map acts on batches of flat row-major vectors, `[batch, in] -> [batch, out]`, in float64 on
whatever device its numbers are on. `absolute` is the map of |A|: with it intervals propagate, and
row and column sums are one application to ones.
"""

from dataclasses import dataclass
from math import prod
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F  # noqa: N812 (the name that every reader of torch knows)
from jaxtyping import Float, Float64, Int64
from torch import Tensor


@runtime_checkable
class LinearMap(Protocol):
    """A linear map A from R^in to R^out."""

    @property
    def in_size(self) -> int:
        """The number of entries that enter."""
        ...

    @property
    def out_size(self) -> int:
        """The number of entries that leave."""
        ...

    def apply(self, x: Float64[Tensor, "batch in"]) -> Float64[Tensor, "batch out"]:
        """A x for every row."""
        ...

    def adjoint(self, y: Float64[Tensor, "batch out"]) -> Float64[Tensor, "batch in"]:
        """A' y for every row."""
        ...

    def absolute(self) -> "LinearMap":
        """|A|, entry by entry."""
        ...


def to_dense(linear: LinearMap) -> Float64[Tensor, "out in"]:
    """The matrix of a map, from its action on the smaller basis."""
    if linear.in_size <= linear.out_size:
        return linear.apply(torch.eye(linear.in_size, dtype=torch.float64)).T.contiguous()
    return linear.adjoint(torch.eye(linear.out_size, dtype=torch.float64))


@dataclass(frozen=True, slots=True)
class Identity:
    """x itself."""

    size: int

    @property
    def in_size(self) -> int:
        """The number of entries that enter."""
        return self.size

    @property
    def out_size(self) -> int:
        """The number of entries that leave."""
        return self.size

    def apply(self, x: Float64[Tensor, "batch n"]) -> Float64[Tensor, "batch n"]:
        """The rows as they are."""
        return x

    def adjoint(self, y: Float64[Tensor, "batch n"]) -> Float64[Tensor, "batch n"]:
        """The rows as they are."""
        return y

    def absolute(self) -> LinearMap:
        """Itself."""
        return self


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """W x, along the last axis of `outer` stacked vectors: kron(I, W)."""

    weight: Float[Tensor, "rows columns"]
    outer: int = 1

    @property
    def in_size(self) -> int:
        """The number of entries that enter."""
        return self.outer * self.weight.shape[1]

    @property
    def out_size(self) -> int:
        """The number of entries that leave."""
        return self.outer * self.weight.shape[0]

    def apply(self, x: Float[Tensor, "batch in"]) -> Float[Tensor, "batch out"]:
        """W x for every row."""
        stacked = x.reshape(x.shape[0] * self.outer, self.weight.shape[1])
        return (stacked @ self.weight.T).reshape(x.shape[0], self.out_size)

    def adjoint(self, y: Float[Tensor, "batch out"]) -> Float[Tensor, "batch in"]:
        """W' y for every row."""
        stacked = y.reshape(y.shape[0] * self.outer, self.weight.shape[0])
        return (stacked @ self.weight).reshape(y.shape[0], self.in_size)

    def absolute(self) -> LinearMap:
        """|W| in the place of W."""
        return Dense(self.weight.abs(), self.outer)


@dataclass(frozen=True, slots=True, eq=False)
class Diagonal:
    """scale o x, entry by entry."""

    scale: Float64[Tensor, " n"]

    @property
    def in_size(self) -> int:
        """The number of entries that enter."""
        return self.scale.shape[0]

    @property
    def out_size(self) -> int:
        """The number of entries that leave."""
        return self.scale.shape[0]

    def apply(self, x: Float64[Tensor, "batch n"]) -> Float64[Tensor, "batch n"]:
        """The rows, scaled."""
        return x * self.scale

    def adjoint(self, y: Float64[Tensor, "batch n"]) -> Float64[Tensor, "batch n"]:
        """The same."""
        return y * self.scale

    def absolute(self) -> LinearMap:
        """|scale| in the place of the scale."""
        return Diagonal(self.scale.abs())


@dataclass(frozen=True, slots=True, eq=False)
class Gather:
    """y_j = x[index_j], or 0 where the index is -1: reshapes, slices, padding, permutations."""

    index: Int64[Tensor, " out"]
    in_size: int

    @property
    def out_size(self) -> int:
        """The number of entries that leave."""
        return self.index.shape[0]

    def apply(self, x: Float64[Tensor, "batch in"]) -> Float64[Tensor, "batch out"]:
        """The picked entries of every row."""
        if (start := self._start) is not None:
            return x[:, start : start + self.out_size]
        if bool((0 <= self.index).all()):
            return x.index_select(1, self.index)
        return F.pad(x, (0, 1)).index_select(1, self.index % (self.in_size + 1))

    @property
    def _start(self) -> int | None:
        """The first index, where the others follow one by one."""
        if self.out_size == 0 or (start := int(self.index[0])) < 0:
            return None
        is_run = torch.equal(self.index, torch.arange(start, start + self.out_size))
        return start if is_run else None

    def adjoint(self, y: Float64[Tensor, "batch out"]) -> Float64[Tensor, "batch in"]:
        """Every entry sent back to where it came from, and summed there."""
        if (start := self._start) is not None:
            return F.pad(y, (start, self.in_size - start - self.out_size))
        sums = torch.zeros(y.shape[0], self.in_size + 1, dtype=y.dtype, device=y.device)
        # Index -1 is the extra last column, which is dropped again.
        sums.index_add_(1, self.index % (self.in_size + 1), y)
        return sums[:, :-1]

    def absolute(self) -> LinearMap:
        """Itself: all entries are 0 or 1."""
        return self


@dataclass(frozen=True, slots=True, eq=False)
class Convolution:
    """Cross-correlation with a kernel, zero padding, stride, dilation and groups, in 1-3 axes."""

    kernel: Float[Tensor, "out_channels group_channels *window"]
    in_shape: tuple[int, ...]  #: (channels, *spatial)
    stride: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]  #: (begin, end) of each spatial axis
    dilation: tuple[int, ...]
    groups: int = 1

    @property
    def in_size(self) -> int:
        """The number of entries that enter."""
        return prod(self.in_shape)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """(channels, *spatial) of what leaves."""
        spatial = (
            (size + begin + end - dilation * (width - 1) - 1) // stride + 1
            for size, (begin, end), dilation, width, stride in zip(
                self.in_shape[1:],
                self.pads,
                self.dilation,
                self.kernel.shape[2:],
                self.stride,
                strict=True,
            )
        )
        return (self.kernel.shape[0], *spatial)

    @property
    def out_size(self) -> int:
        """The number of entries that leave."""
        return prod(self.out_shape)

    @property
    def _padded_shape(self) -> tuple[int, ...]:
        spatial = (n + b + e for n, (b, e) in zip(self.in_shape[1:], self.pads, strict=True))
        return (self.in_shape[0], *spatial)

    def apply(self, x: Float[Tensor, "batch in"]) -> Float[Tensor, "batch out"]:
        """The convolution of every row."""
        images = x.reshape(x.shape[0], *self.in_shape)
        # torch pads the last axis first.
        flat_pads = [side for pair in reversed(self.pads) for side in pair]
        convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(self.pads)]
        out = convolve(
            F.pad(images, flat_pads),
            self.kernel,
            stride=self.stride,
            dilation=self.dilation,
            groups=self.groups,
        )
        return out.reshape(x.shape[0], self.out_size)

    def adjoint(self, y: Float[Tensor, "batch out"]) -> Float[Tensor, "batch in"]:
        """The transposed convolution of every row, cropped to the unpadded input."""
        spatial = len(self.pads)
        padded, *_ = torch.ops.aten.convolution_backward(
            y.reshape(y.shape[0], *self.out_shape),
            y.new_empty(y.shape[0], *self._padded_shape),
            self.kernel,
            None,
            list(self.stride),
            [0] * spatial,
            list(self.dilation),
            False,  # not transposed
            [0] * spatial,
            self.groups,
            [True, False, False],
        )
        for axis, (begin, _) in enumerate(self.pads):
            padded = padded.narrow(axis + 2, begin, self.in_shape[axis + 1])
        return padded.reshape(y.shape[0], self.in_size)

    def absolute(self) -> LinearMap:
        """|kernel| in the place of the kernel."""
        return Convolution(
            self.kernel.abs(), self.in_shape, self.stride, self.pads, self.dilation, self.groups
        )


@dataclass(frozen=True, slots=True, eq=False)
class Adjoint:
    """A' of a map A: transposed convolutions, sums over axes, scattering."""

    of: LinearMap

    @property
    def in_size(self) -> int:
        """The number of entries that enter."""
        return self.of.out_size

    @property
    def out_size(self) -> int:
        """The number of entries that leave."""
        return self.of.in_size

    def apply(self, x: Float[Tensor, "batch in"]) -> Float[Tensor, "batch out"]:
        """A' x for every row."""
        return self.of.adjoint(x)

    def adjoint(self, y: Float[Tensor, "batch out"]) -> Float[Tensor, "batch in"]:
        """A y for every row."""
        return self.of.apply(y)

    def absolute(self) -> LinearMap:
        """|A|'."""
        return Adjoint(self.of.absolute())


@dataclass(frozen=True, slots=True, eq=False)
class Composed:
    """first, then second. `absolute` is |second| |first|, which |second first| does not exceed."""

    first: LinearMap
    second: LinearMap

    @property
    def in_size(self) -> int:
        """The number of entries that enter."""
        return self.first.in_size

    @property
    def out_size(self) -> int:
        """The number of entries that leave."""
        return self.second.out_size

    def apply(self, x: Float64[Tensor, "batch in"]) -> Float64[Tensor, "batch out"]:
        """second(first(x)) for every row."""
        return self.second.apply(self.first.apply(x))

    def adjoint(self, y: Float64[Tensor, "batch out"]) -> Float64[Tensor, "batch in"]:
        """first'(second'(y)) for every row."""
        return self.first.adjoint(self.second.adjoint(y))

    def absolute(self) -> LinearMap:
        """|second| |first|: exact where one of them only moves or scales entries."""
        return Composed(self.first.absolute(), self.second.absolute())
