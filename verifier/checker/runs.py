"""Norms of runs of linear maps that are too large for a matrix, fused where that is exact.

A run is applied map by map: m_1, then m_2, ... Its l2 norm is at most the product of the norms of
its pieces. A piece is one map, or

    scales of channels, a wrapped padding, scales of channels, a convolution, scales of channels

which is a convolution again: a scale a channel multiplies the kernel, zeros outside stay zeros,
and a padding that repeats the signal with its own period closes it to a torus. Adjoints of
convolutions take scales alike, from the other side. A dense weight takes scales of any kind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import ONE, Magnitude, enlarged
from verifier.checker.carry import stages
from verifier.checker.maps import Adjoint, Convolution, Dense, Diagonal, Gather
from verifier.checker.operator_norms import operator_norm
from verifier.checker.stencils import Stencil
from verifier.checker.symbols import stencil_norm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float64, Int64

    from verifier.checker.network import Map


@dataclass(frozen=True, slots=True)
class Scale:
    """One factor for each channel, with an error."""

    value: Float64[np.ndarray, " channels"]
    error: Float64[np.ndarray, " channels"]


def run_norm(maps: Sequence[Map], hint: float | None) -> Magnitude:
    """A number that the l2 norm of a run does not exceed.

    Args:
        maps: the run, first to last.
        hint: a norm of the last piece that is tried first.
    """
    waiting = [stage for linear in maps for stage in stages(linear) if not _is_identity(stage)]
    whole = ONE
    while waiting:
        norm, used = _last_piece(waiting, hint)
        whole, waiting, hint = whole * Magnitude.of(norm), waiting[: len(waiting) - used], None
    return whole


def _is_identity(linear: Map) -> bool:
    if not isinstance(linear, Gather) or linear.in_size != linear.out_size:
        return False
    return bool(np.array_equal(linear.index, np.arange(linear.in_size)))


def _last_piece(maps: Sequence[Map], hint: float | None) -> tuple[float, int]:
    """(the norm, the number of maps) of the piece that ends a run."""
    place = len(maps) - 1
    while 0 < place and isinstance(maps[place], Diagonal):
        place -= 1
    core = maps[place]
    inner = core.of if isinstance(core, Adjoint) else core
    if isinstance(inner, Convolution):
        found = _convolution_piece(maps, place, inner, hint)
        if found is not None:
            return found
    if isinstance(core, Dense) and core.rows == 1 and len(maps) - place > 1:
        scale = _product([_entries(linear) for linear in maps[place + 1 :]])
        return operator_norm(_scaled_dense(core, scale), hint), len(maps) - place
    return operator_norm(maps[-1], hint), 1


def _convolution_piece(
    maps: Sequence[Map], place: int, inner: Convolution, hint: float | None
) -> tuple[float, int] | None:
    """A convolution with the scales around it, and a wrapped padding before it."""
    is_adjoint = isinstance(maps[place], Adjoint)
    ends = inner.in_shape[0], inner.out_shape[0]
    entering, leaving = reversed(ends) if is_adjoint else ends
    after = [_channels(linear, leaving) for linear in maps[place + 1 :]]
    known = [scale for scale in after if scale is not None]
    if len(known) < len(after):
        return None
    before, periods, start = _scales_before(maps, place, entering, None if is_adjoint else inner)
    scales = _product(known), _product(before)
    rows, columns = reversed(scales) if is_adjoint else scales
    scaled = _scaled_kernel(inner, rows, columns)
    if periods is None:
        return operator_norm(scaled, hint), len(maps) - start
    stencil = Stencil.of(scaled)
    axes = tuple(
        replace(axis, size=period, periodic=True)
        for axis, period in zip(stencil.axes, periods, strict=True)
    )
    norm = stencil_norm(replace(stencil, axes=axes), hint)
    return (norm, len(maps) - start) if math.isfinite(norm) else None


def _scales_before(
    maps: Sequence[Map], place: int, channels: int, inner: Convolution | None
) -> tuple[list[Scale], tuple[int, ...] | None, int]:
    """(scales, periods of a wrapped padding, where the piece starts) before a convolution."""
    before, periods, start = list[Scale](), None, place
    while 0 < start:
        linear = maps[start - 1]
        scale = _channels(linear, channels)
        if scale is not None:
            before.append(scale)
        elif inner is not None and periods is None and isinstance(linear, Gather):
            periods = _wrapped(linear, inner)
            if periods is None:
                break
        else:
            break
        start -= 1
    return before, periods, start


def _channels(linear: Map, channels: int) -> Scale | None:
    """The factors of a diagonal map that has one for each channel; None of any other map."""
    if not isinstance(linear, Diagonal) or linear.in_size % channels:
        return None
    whole = _entries(linear)
    value, error = whole.value.reshape(channels, -1), whole.error.reshape(channels, -1)
    if np.any(value != value[:, :1]):
        return None
    return Scale(value[:, 0], error.max(axis=1))


def _entries(linear: Map) -> Scale:
    assert isinstance(linear, Diagonal)  # noqa: S101 (its callers match)
    error = np.zeros(linear.in_size) if linear.error is None else linear.error
    return Scale(linear.scale, error)


def _product(scales: Sequence[Scale]) -> Scale | None:
    """All factors as one: |ab - a~b~| <= |a~| db + da |b~| + da db, and a rounding."""
    if not scales:
        return None
    whole = scales[0]
    for scale in scales[1:]:
        value = whole.value * scale.value
        error = (
            np.abs(whole.value) * scale.error
            + whole.error * np.abs(scale.value)
            + whole.error * scale.error
            + 2.0**-52 * np.abs(value)
        )
        whole = Scale(value, enlarged(error, 8))
    return whole


def _scaled_kernel(inner: Convolution, rows: Scale | None, columns: Scale | None) -> Convolution:
    """The convolution between scales of its outputs and of its inputs."""
    kernel = inner.kernel
    error = np.zeros_like(kernel) if inner.error is None else inner.error
    spatial = (1,) * (kernel.ndim - 2)
    forms: list[tuple[Scale, tuple[int, ...]]] = []
    if rows is not None:
        forms.append((rows, (-1, 1, *spatial)))
    if columns is not None:
        per = int(inner.kernel.shape[1])
        owner: Int64[np.ndarray, " out"] = np.repeat(
            np.arange(inner.groups), len(kernel) // inner.groups
        )
        chosen = (owner[:, None] * per + np.arange(per)).ravel()
        columns = Scale(columns.value[chosen], columns.error[chosen])
        forms.append((columns, (len(kernel), per, *spatial)))
    for scale, form in forms:
        value, spread = scale.value.reshape(form), scale.error.reshape(form)
        moved = kernel * value
        error = enlarged(
            error * np.abs(value)
            + np.abs(kernel) * spread
            + error * spread
            + 2.0**-52 * np.abs(moved),
            8,
        )
        kernel = moved
    return replace(inner, kernel=kernel, error=error if np.any(error) else None)


def _scaled_dense(core: Dense, scale: Scale | None) -> Dense:
    if scale is None:
        return core
    kernel = core.weight[:, :, None]
    whole = Convolution(
        kernel=kernel,
        error=None if core.error is None else core.error[:, :, None],
        in_shape=(kernel.shape[1], 1),
        pads=((0, 0),),
        strides=(1,),
        dilations=(1,),
        groups=1,
    )
    scaled = _scaled_kernel(whole, scale, None)
    error = None if scaled.error is None else scaled.error[:, :, 0]
    return Dense(scaled.kernel[:, :, 0], error)


def _wrapped(linear: Gather, inner: Convolution) -> tuple[int, ...] | None:
    """The periods of the axes, if the map repeats a smaller signal just for this convolution.

    Place p of the padded axis holds place (p - b) mod H of the signal, and the convolution reads
    a window that starts at every s-th place, H/s of them: around the torus of H places once.
    """
    channels, *padded = inner.in_shape
    if any(pad != (0, 0) for pad in inner.pads) or linear.in_size % channels:
        return None
    index = linear.index.reshape(inner.in_shape)
    periods: list[int] = []
    rest = linear.in_size // channels
    for count, stride in zip(inner.out_spatial, inner.strides, strict=True):
        periods.append(count * stride)
    if math.prod(periods) != rest or np.any(index < 0):
        return None
    places = np.unravel_index(index, (channels, *periods))
    if np.any(places[0] != np.arange(channels).reshape(-1, *(1,) * len(padded))):
        return None
    for axis, (size, period) in enumerate(zip(padded, periods, strict=True)):
        form = [1] * (len(padded) + 1)
        form[axis + 1] = size
        first = places[axis + 1].reshape(-1)[0]
        if np.any(places[axis + 1] != ((np.arange(size) + first) % period).reshape(form)):
            return None
    return tuple(periods)
