"""Norms of convolutions: never below the matrix's own, and close to it."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from tests.checker.oracles import spectral_norm_at_most
from verifier.checker import symbols
from verifier.checker.cosines import cosine, cosine_table, sine_table
from verifier.checker.maps import Convolution
from verifier.checker.stencils import Axis, Stencil
from verifier.checker.symbols import sampling, stencil_norm


def matrix_of(convolution: Convolution) -> np.ndarray:
    return convolution.forward(np.eye(convolution.in_size)).T


def random_convolution(rng: np.random.Generator, rank: int, *, error: bool = False) -> Convolution:
    groups = int(rng.choice([1, 1, 2]))
    shape = [groups * int(rng.integers(1, 3)), int(rng.integers(1, 3))]
    window = [int(width) for width in rng.integers(1, 5 - (rank > 1), rank)]
    kernel = rng.standard_normal((*shape, *window))
    return Convolution(
        kernel=kernel,
        error=np.abs(kernel) * 0.01 if error else None,
        in_shape=(groups * shape[1], *(int(size) for size in rng.integers(2, 9 - 2 * rank, rank))),
        pads=tuple((int(a), int(b)) for a, b in rng.integers(0, 5, (rank, 2))),
        strides=tuple(int(s) for s in rng.integers(1, 4, rank)),
        dilations=tuple(int(d) for d in rng.integers(1, 4, rank)),
        groups=groups,
    )


def samples(count: int, rank: int, *, error: bool = False) -> list[Convolution]:
    rng = np.random.default_rng(rank)
    found = (random_convolution(rng, rank, error=error) for _ in itertools.count())
    return list(itertools.islice((c for c in found if 0 < min(c.out_spatial)), count))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_no_convolution_exceeds_its_torus(rank: int) -> None:
    """All pads, beyond the kernel's own width too, strides, dilations and groups."""
    for convolution in samples(120 if rank < 3 else 25, rank):
        truth = float(np.linalg.norm(matrix_of(convolution), 2))
        assert truth <= stencil_norm(Stencil.of(convolution)) * (1 + 1e-14)


def test_rationals_agree_with_the_torus() -> None:
    for convolution in samples(12, 1):
        bound = stencil_norm(Stencil.of(convolution))
        assert spectral_norm_at_most(matrix_of(convolution), bound)


@pytest.mark.parametrize("side", [2, 3, 4, 7, 16])
def test_no_convolution_exceeds_its_grid(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the factor 1 / prod cos(pi d / N), however coarse the grid."""
    monkeypatch.setattr(symbols, "GRIDS", (side,))
    monkeypatch.setattr(Axis, "torus", property(lambda _: 2**20))
    for convolution in samples(40, 2):
        stencil = Stencil.of(convolution)
        if any(side <= axis.degree for axis in stencil.axes):
            assert sampling(stencil) is None
        else:
            truth = float(np.linalg.norm(matrix_of(convolution), 2))
            assert truth <= stencil_norm(stencil) * (1 + 1e-14)


def test_every_kernel_within_the_error_is_bounded() -> None:
    for convolution in samples(30, 1, error=True):
        assert convolution.error is not None
        bound = stencil_norm(Stencil.of(convolution))
        for signs in (np.sign(convolution.kernel), 1.0, -1.0):
            moved = Convolution(
                kernel=convolution.kernel + signs * convolution.error,
                error=None,
                in_shape=convolution.in_shape,
                pads=convolution.pads,
                strides=convolution.strides,
                dilations=convolution.dilations,
                groups=convolution.groups,
            )
            assert float(np.linalg.norm(matrix_of(moved), 2)) <= bound


def image(channels: int, side: int, width: int, pad: int, stride: int = 1) -> Convolution:
    rng = np.random.default_rng(side)
    return Convolution(
        kernel=rng.standard_normal((channels, channels, width, width)),
        error=None,
        in_shape=(channels, side, side),
        pads=((pad, pad), (pad, pad)),
        strides=(stride, stride),
        dilations=(1, 1),
        groups=1,
    )


def test_the_torus_is_close_on_images() -> None:
    convolution = image(2, 28, 3, 1)
    truth = float(np.linalg.norm(matrix_of(convolution), 2))
    assert truth <= stencil_norm(Stencil.of(convolution)) <= truth * 1.006


@pytest.mark.parametrize(("side", "loose"), [(32, 1.0098), (64, 1.0025)])
def test_the_grid_is_close_to_the_supremum(
    side: int, loose: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The factor of a kernel of width 3: 1 / cos(pi / N)^2."""
    stencil = Stencil.of(image(3, 24, 3, 1))
    fine = np.fft.fft2(stencil.kernel[0], (256, 256)).transpose(2, 3, 0, 1)
    supremum = float(np.linalg.norm(fine, 2, axis=(2, 3)).max())
    monkeypatch.setattr(symbols, "GRIDS", (side,))
    monkeypatch.setattr(Axis, "torus", property(lambda _: 2**20))
    assert supremum * (1 - 1e-12) <= stencil_norm(stencil) <= supremum * loose


def test_a_stride_needs_no_unit_stride_bound() -> None:
    """The polyphase form: a 2 x 2 kernel with stride 2 reads disjoint patches."""
    convolution = image(3, 8, 2, 0, stride=2)
    patch = convolution.kernel.reshape(3, 12)
    bound = stencil_norm(Stencil.of(convolution))
    assert bound == pytest.approx(float(np.linalg.norm(patch, 2)), rel=1e-10)


def test_a_periodic_convolution_has_its_norm() -> None:
    rng = np.random.default_rng(3)
    kernel = rng.standard_normal((1, 2, 2, 3))
    axis = Axis(size=7, count=7, width=3, periodic=True)
    whole = np.zeros((2, 7, 2, 7))
    for p, t in itertools.product(range(7), range(3)):
        whole[:, p, :, (p + t) % 7] += kernel[0, :, :, t]
    truth = float(np.linalg.norm(whole.reshape(14, 14), 2))
    bound = stencil_norm(Stencil(kernel=kernel, error=None, axes=(axis,)))
    assert truth * (1 - 1e-14) <= bound <= truth * (1 + 1e-9)


def test_orthogonal_kernels_have_norm_one() -> None:
    rng = np.random.default_rng(4)
    rotation = np.linalg.qr(rng.standard_normal((16, 16)))[0]
    convolution = Convolution(
        kernel=rotation[:, :, None],
        error=None,
        in_shape=(16, 50),
        pads=((0, 0),),
        strides=(1,),
        dilations=(1,),
        groups=1,
    )
    assert 1.0 <= stencil_norm(Stencil.of(convolution)) <= 1 + 1e-10


@pytest.mark.parametrize("hint", [0.0, 0.5, -1.0, math.inf, math.nan])
def test_a_hint_below_the_truth_is_not_believed(hint: float) -> None:
    convolution = image(2, 8, 3, 1)
    truth = float(np.linalg.norm(matrix_of(convolution), 2))
    assert truth <= stencil_norm(Stencil.of(convolution), hint * truth)


@pytest.mark.parametrize("scale", [2.0**-1060, 1e-300, 1e300])
def test_kernels_of_any_scale(scale: float) -> None:
    convolution = image(2, 6, 3, 1)
    tiny = Stencil(
        kernel=Stencil.of(convolution).kernel * scale,
        error=None,
        axes=Stencil.of(convolution).axes,
    )
    truth = float(np.linalg.norm(matrix_of(convolution), 2))
    assert truth * scale * (1 - 1e-9) <= stencil_norm(tiny) <= truth * scale * 1.2 + 2.0**-1060


def test_zero_kernels_and_work_beyond_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    stencil = Stencil.of(image(2, 6, 3, 1))
    zero = Stencil(kernel=stencil.kernel * 0, error=None, axes=stencil.axes)
    assert stencil_norm(zero) == 0
    monkeypatch.setattr(symbols, "WORK", 1.0)
    assert stencil_norm(stencil) == math.inf


def test_cosines_are_within_their_ulp() -> None:
    """Against values known in closed form; the library's own are no proof."""
    squares = {Fraction(1, 8): Fraction(1, 2), Fraction(1, 12): Fraction(3, 4)}
    for turns, square in squares.items():
        value = Fraction(cosine(turns))
        below, above = value - Fraction(1, 2**53), value + Fraction(1, 2**53)
        assert below**2 <= square <= above**2
    assert [cosine(Fraction(k, 6)) for k in range(6)] == [1.0, 0.5, -0.5, -1.0, -0.5, 0.5]
    angles = 2 * np.pi * np.arange(101) / 101
    assert np.allclose(cosine_table(101), np.cos(angles), rtol=0, atol=1e-15)
    assert np.allclose(sine_table(101), np.sin(angles), rtol=0, atol=1e-15)
