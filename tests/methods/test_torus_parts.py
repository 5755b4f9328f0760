"""The parts of the torus method: shifts and their symbols, half of the frequencies, gradients."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from jaxtyping import Complex, Float64
from torch import Tensor

from tests.methods.torus_networks import NETWORKS
from verifier.methods.torus.bounds import Measure
from verifier.methods.torus.frequencies import folded, frequencies
from verifier.methods.torus.plan import plan_of
from verifier.methods.torus.problem import Problem, Recorded
from verifier.methods.torus.recursion import Pass
from verifier.methods.torus.starts import Start, largest_eigenvalue
from verifier.methods.torus.structure import structure_of
from verifier.methods.torus.taps import of_convolution, pointwise
from verifier.methods.torus.terms import moved
from verifier.network.linear_map import Adjoint, Composed, Convolution, Diagonal, Gather
from verifier.norms import Norm, NormPair
from verifier.onnx_import import load


def kernel(*shape: int) -> Float64[Tensor, "*shape"]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


CONVOLUTIONS = [
    Convolution(kernel(2, 3, 3), (3, 5), (1,), ((1, 1),), (1,)),
    Convolution(kernel(2, 3, 2), (3, 5), (2,), ((0, 1),), (2,)),
    Convolution(kernel(4, 1, 3, 2), (2, 4, 3), (1, 1), ((1, 1), (2, 0)), (1, 1), 2),
    Convolution(kernel(1, 2, 3, 3), (2, 5, 5), (2, 2), ((1, 1), (1, 1)), (1, 1)),
]


@pytest.mark.parametrize("conv", CONVOLUTIONS, ids=lambda conv: str(conv.kernel.shape))
def test_taps_act_on_a_window_as_the_convolution_does(conv: Convolution) -> None:
    step = moved(conv, conv.in_shape)
    assert step is not None
    x = torch.randn(*conv.in_shape, dtype=torch.float64)
    # Wide enough for every wrap, and divisible by the stride.
    sides = tuple(
        s * math.ceil((side + 2) / s) for side, s in zip(step.sides, conv.stride, strict=True)
    )
    padded = torch.zeros(conv.in_shape[0], *sides, dtype=torch.float64)
    padded[(slice(None), *(slice(size) for size in conv.in_shape[1:]))] = x
    rows = []
    for place in product(*(range(size) for size in conv.out_shape[1:])):
        value = torch.zeros(conv.kernel.shape[0], dtype=torch.float64)
        for offset, weight in zip(step.taps.offsets, step.taps.weights, strict=True):
            read = [
                (s * i + int(o)) % side
                for s, i, o, side in zip(conv.stride, place, offset, sides, strict=True)
            ]
            value += weight @ padded[(slice(None), *read)]
        rows.append(value)
    expected = conv.apply(x.reshape(1, -1)).reshape(conv.kernel.shape[0], -1)
    assert torch.allclose(torch.stack(rows, dim=1), expected)


def test_a_symbol_is_what_plane_waves_are_multiplied_by() -> None:
    conv = CONVOLUTIONS[0]
    grid = frequencies((8,))
    symbol = of_convolution(conv).symbol(grid.waves)
    place = torch.arange(8, dtype=torch.float64)
    for wave, matrix in zip(grid.waves, symbol, strict=True):
        planar = torch.exp(1j * wave * place)
        taps = of_convolution(conv)
        shifted = torch.stack([planar.roll(-int(offset)) for offset in taps.offsets[:, 0]])
        leaving = torch.einsum("koc,kn->ocn", taps.weights.to(planar), shifted)
        assert torch.allclose(leaving, matrix[:, :, None] * planar)


def test_composed_symbols_multiply() -> None:
    first, second = of_convolution(CONVOLUTIONS[0]), pointwise(torch.eye(2).double(), 1)
    waves = frequencies((8,)).waves
    both = first.then(second).plus(first)
    assert torch.allclose(both.symbol(waves), 2 * first.symbol(waves))


def spectrum(cov: Float64[Tensor, "c c n m"]) -> Complex[Tensor, "n m c c"]:
    return torch.fft.fft2(cov).permute(2, 3, 0, 1)


@pytest.mark.parametrize(
    ("sides", "strides"), [((6, 4), (2, 2)), ((6, 6), (3, 2)), ((4, 5), (2, 1))]
)
def test_folding_is_subsampling(sides: tuple[int, int], strides: tuple[int, int]) -> None:
    """The spectrum of every s-th covariance, from half of the frequencies."""
    values = torch.randn(2, 2, *sides, dtype=torch.float64)
    grid = frequencies(sides)
    full = spectrum(values).flatten(0, 1)
    kept = full[torch.nonzero(~grid.turned).flatten()]
    coarse = spectrum(values[:, :, :: strides[0], :: strides[1]]).flatten(0, 1)
    other = frequencies(tuple(n // s for n, s in zip(sides, strides, strict=True)))
    assert torch.allclose(folded(kept, sides, strides), coarse[~other.turned])


def test_weights_count_all_frequencies() -> None:
    grid = frequencies((5, 4))
    assert float(grid.weights.sum()) == grid.count == 20


def test_channels_that_move_are_pointwise() -> None:
    swap = Gather(torch.tensor([3, 4, 5, 0, 1, 2]), 6)
    step = moved(Composed(swap, Diagonal(torch.tensor([2.0] * 3 + [1.0] * 3).double())), (2, 3))
    assert step is not None
    assert step.taps.is_pointwise
    assert step.taps.weights[0].tolist() == [[0.0, 2.0], [1.0, 0.0]]


def test_what_treats_places_differently_has_no_taps() -> None:
    assert moved(Diagonal(torch.tensor([1.0, 2.0]).double()), (1, 2)) is None
    assert moved(Gather(torch.tensor([1, 0]), 2), (1, 2)) is None
    assert moved(Adjoint(Gather(torch.tensor([0, 0]), 1)), (1, 2)) is None


def test_every_second_place_is_a_stride() -> None:
    step = moved(Gather(torch.tensor([1, 3, 5, 7]), 8), (2, 4))
    assert step is not None
    assert step.taps.stride == (2,)
    assert step.spatial == (2,)


def test_the_largest_eigenvalue_is_found_among_many() -> None:
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(50, 6, 6, generator=generator, dtype=torch.float64)
    matrices = half @ half.mT
    exact = float(torch.linalg.eigvalsh(matrices).max())
    assert largest_eigenvalue(matrices) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize(
    "name", ["identity block", "projection block", "max-min", "max pool", "dense tail"]
)
def test_gradients_are_difference_quotients(name: str) -> None:
    network = load(NETWORKS[name](0), differential=False).require_network()
    run, recorded = Pass(plan_of(structure_of(network))), Recorded(Start(reach=0.7))
    run.run(recorded)
    measure = Measure(
        items=[torch.eye(network.output_size, dtype=torch.float64)],
        norm=NormPair(Norm.L2, Norm.L2),
        inputs=network.input_size,
    )
    problem = Problem(run, measure)
    theta = problem.packed(recorded.relative)
    generator = torch.Generator().manual_seed(0)
    step = 1e-5 * torch.randn(len(theta), generator=generator, dtype=torch.float64)
    here, ahead, behind = (problem.evaluate(theta + k * step, 0.01) for k in (0, 1, -1))
    assert here is not None
    assert ahead is not None
    assert behind is not None
    assert (ahead.value - behind.value) / 2 == pytest.approx(float(here.gradient @ step), rel=1e-4)
