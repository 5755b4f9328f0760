"""What a convolution reads, axis by axis: the phases of its stride, and the tori that hold it.

    y[p] = sum_t K[t] x[s p + d t - b],    x = 0 outside 0 .. H - 1,   0 <= p < H'          (1)

With d t = s u_t + r_t the phase x_r[q] = x[s q + r - b] turns (1) into a convolution of stride 1
with as many inputs for a channel as there are phases: y[p] = sum_t K[t] x_(r_t)[p + u_t]. Its
symbol is K(w) = [sum over t with r_t = r of K[t] exp(i w u_t)]_r, and the norm of (1), a
compression of the convolution on all integers, is at most sup_w |K(w)|.

On a torus of M places p -> M-periodic x_r the same compression is exact, so that the norm is at
most max |K(w)| over w = 2 pi f / M, if no read place of x_r is congruent to another place of its
window: with the window [a_r, z_r) of x_r and the reads from u_min to H' - 1 + u_max,

    M >= H',   M >= z_r - a_r,   M >= z_r - u_min,   M >= H' + u_max - a_r   for every r.    (2)

An axis that is periodic in the file, with s | H and H' = H/s, has M = H/s exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float64

    from verifier.checker.convolution import Convolution


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """(1) along one axis."""

    size: int  #: H
    count: int  #: H'
    width: int  #: taps
    stride: int = 1
    dilation: int = 1
    before: int = 0  #: b; negative where the first entries are not read
    periodic: bool = False  #: x repeats with period H instead of ending

    @property
    def reads(self) -> tuple[tuple[int, int], ...]:
        """(u_t, r_t) of every tap."""
        return tuple(divmod(self.dilation * tap, self.stride) for tap in range(self.width))

    @property
    def step(self) -> int:
        """The greatest common divisor of all u_t - u_0: the symbol is a function of step w."""
        return max(1, math.gcd(*(u for u, _ in self.reads)))

    @property
    def shifts(self) -> tuple[int, ...]:
        """u_t / step, from 0."""
        return tuple(u // self.step for u, _ in self.reads)

    @property
    def phases(self) -> tuple[int, ...]:
        """The place of r_t among the phases that occur."""
        known = sorted({r for _, r in self.reads})
        return tuple(known.index(r) for _, r in self.reads)

    @property
    def degree(self) -> int:
        """Twice the degree of the symbol, centred, in step w: u_max / step."""
        return max(self.shifts)

    @property
    def torus(self) -> int:
        """The least number of frequencies, in step w, whose greatest symbol bounds the norm."""
        if self.periodic:
            side = self.size // self.stride
            return side // math.gcd(side, self.step)
        least = self.count
        for phase in {r for _, r in self.reads}:
            shifts = [u for u, r in self.reads if r == phase]
            first = -((phase - self.before) // self.stride)
            end = (self.before + self.size - 1 - phase) // self.stride + 1
            least = max(
                least,
                end - first,
                end - min(shifts),
                self.count + max(shifts) - first,
            )
        # A side that the step divides repeats itself `step` times.
        return -(-least // self.step)


@dataclass(frozen=True, kw_only=True)
class Stencil:
    """A convolution: K as [groups, outputs, inputs, *window] with |K_true - K| <= error."""

    kernel: Float64[np.ndarray, "groups out in *window"]
    error: Float64[np.ndarray, "groups out in *window"] | None
    axes: tuple[Axis, ...]

    @staticmethod
    def of(convolution: Convolution) -> Stencil:
        """The convolution itself, zeros outside."""
        groups, shape = convolution.groups, convolution.kernel.shape
        form = (groups, shape[0] // groups, *shape[1:])
        error = convolution.error
        return Stencil(
            kernel=convolution.kernel.reshape(form),
            error=None if error is None else error.reshape(form),
            axes=tuple(
                Axis(
                    size=convolution.in_shape[1 + place],
                    count=convolution.out_spatial[place],
                    width=shape[2 + place],
                    stride=convolution.strides[place],
                    dilation=convolution.dilations[place],
                    before=convolution.pads[place][0],
                )
                for place in range(len(convolution.pads))
            ),
        )

    @cached_property
    def phase_count(self) -> int:
        """Phases of all axes together."""
        return math.prod(max(axis.phases) + 1 for axis in self.axes)

    def phased(
        self, kernel: Float64[np.ndarray, "groups out in *window"]
    ) -> Float64[np.ndarray, "groups out ins shifts"]:
        """The kernel by phase: every phase of a channel is an input, every shift a coefficient."""
        groups, outputs, inputs = kernel.shape[:3]
        phases = [max(axis.phases) + 1 for axis in self.axes]
        shifts = [axis.degree + 1 for axis in self.axes]
        placed = np.zeros((groups, outputs, inputs, *phases, *shifts))
        window = np.ix_(*(range(axis.width) for axis in self.axes))
        index = [np.asarray(axis.phases)[w] for axis, w in zip(self.axes, window, strict=True)]
        index += [np.asarray(axis.shifts)[w] for axis, w in zip(self.axes, window, strict=True)]
        # Different taps of an axis differ in phase or shift, so nothing is added.
        placed[(slice(None), slice(None), slice(None), *index)] = kernel
        return placed.reshape(groups, outputs, inputs * math.prod(phases), math.prod(shifts))
