"""The facts of every linear map; entries are small integers, so nothing below is rounded."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from jaxtyping import Float64
from torch import Tensor

from tests.oracles import run_node
from verifier.network import linear_map
from verifier.network.linear_map import (
    Adjoint,
    Composed,
    Convolution,
    Dense,
    Diagonal,
    Gather,
    Identity,
    LinearMap,
    to_dense,
)

BATCHES = (0, 1, 2, 13)  # no size below is one of these: rows cannot pass for entries


def _integers(*shape: int, seed: int) -> Float64[Tensor, ...]:
    numbers = np.random.default_rng(seed).integers(-8, 9, shape)
    return torch.from_numpy(numbers.astype(np.float64))


@dataclass(frozen=True)
class Case:
    """A map, and its matrix from elsewhere."""

    name: str
    map: LinearMap
    matrix: Float64[np.ndarray, "out in"]

    def __str__(self) -> str:
        return self.name


def _convolution(
    name: str,
    kernel: tuple[int, ...],
    in_shape: tuple[int, ...],
    stride: tuple[int, ...],
    pads: tuple[tuple[int, int], ...],
    dilation: tuple[int, ...],
    groups: int = 1,
) -> Case:
    """A convolution, and the matrix of ONNX Runtime's on the basis of its input."""
    weights = _integers(*kernel, seed=7)
    attributes = {
        "strides": stride,
        "pads": [begin for begin, _ in pads] + [end for _, end in pads],
        "dilations": dilation,
        "group": groups,
    }
    size = int(np.prod(in_shape))
    basis = np.eye(size).reshape(size, *in_shape)
    columns = run_node("Conv", basis, (weights.numpy(),), attributes).reshape(size, -1)
    return Case(
        name, Convolution(weights, in_shape, stride, pads, dilation, groups), columns.T.copy()
    )


def _cases() -> tuple[Case, ...]:
    weight, tall = _integers(5, 3, seed=1), _integers(7, 11, seed=2)
    index = torch.tensor([4, -1, 0, 0, 2, 4, 4])
    rows = np.zeros((7, 5))
    for row, column in enumerate(index.tolist()):
        rows[row, column] = column != -1
    scale = _integers(17, seed=3)
    convolutions = (
        _convolution("conv1d", (3, 2, 3), (2, 11), (1,), ((0, 0),), (1,)),
        _convolution("conv1d-strided", (4, 1, 2), (2, 9), (3,), ((2, 1),), (2,), groups=2),
        _convolution("conv2d", (3, 2, 3, 3), (2, 5, 7), (1, 1), ((1, 1), (1, 1)), (1, 1)),
        # The stride leaves a last column of the padded input unread.
        _convolution("conv2d-uneven", (2, 1, 2, 3), (1, 6, 8), (2, 3), ((1, 0), (0, 2)), (2, 1)),
        _convolution(
            "conv2d-depthwise", (6, 1, 3, 2), (3, 5, 6), (2, 1), ((1, 2), (1, 0)), (1, 2), groups=3
        ),
        _convolution("conv3d", (2, 1, 2, 2, 2), (1, 3, 4, 3), (1, 2, 1), ((0, 1),) * 3, (1,) * 3),
    )
    simple = (
        Case("identity", Identity(5), np.eye(5)),
        Case("dense", Dense(weight), weight.numpy()),
        Case("dense-wide", Dense(tall), tall.numpy()),
        Case("dense-stacked", Dense(weight, 7), np.kron(np.eye(7), weight.numpy())),
        Case("diagonal", Diagonal(scale), np.diag(scale.numpy())),
        Case("gather", Gather(index, 5), rows),
        Case("scatter", Adjoint(Gather(index, 5)), rows.T),
        Case(
            "composed",
            Composed(Dense(weight), Gather(index, 5)),
            rows @ weight.numpy(),
        ),
    )
    transposed = tuple(
        Case(f"{case.name}-transposed", Adjoint(case.map), case.matrix.T) for case in convolutions
    )
    return (*simple, *convolutions, *transposed)


CASES = _cases()
every_case = pytest.mark.parametrize("case", CASES, ids=str)


def test_every_map_is_in_the_battery() -> None:
    written = {
        kind
        for _, kind in inspect.getmembers(linear_map, inspect.isclass)
        if kind.__module__ == linear_map.__name__ and kind is not LinearMap
    }
    assert written == {type(case.map) for case in CASES}


@every_case
def test_matrix_is_that_of_the_twin(case: Case) -> None:
    assert (case.map.out_size, case.map.in_size) == case.matrix.shape
    assert np.array_equal(to_dense(case.map).numpy(), case.matrix)


@every_case
@pytest.mark.parametrize("batch", BATCHES)
def test_rows_are_mapped_one_by_one(case: Case, batch: int) -> None:
    x, y = (_integers(batch, n, seed=batch) for n in (case.map.in_size, case.map.out_size))
    assert np.array_equal(case.map.apply(x).numpy(), x.numpy() @ case.matrix.T)
    assert np.array_equal(case.map.adjoint(y).numpy(), y.numpy() @ case.matrix)


@every_case
def test_adjoint_identity(case: Case) -> None:
    """<A x, y> = <x, A' y>."""
    x, y = (_integers(13, n, seed=n) for n in (case.map.in_size, case.map.out_size))
    left = (case.map.apply(x) * y).sum(dim=1)
    assert torch.equal(left, (x * case.map.adjoint(y)).sum(dim=1))


@every_case
def test_absolute_is_the_map_of_absolute_entries(case: Case) -> None:
    assert np.array_equal(to_dense(case.map.absolute()).numpy(), abs(case.matrix))


def test_absolute_of_a_composition_is_not_below() -> None:
    """|second| |first| covers a cancellation: 1 - 1 in the product, 1 + 1 in its cover."""
    first = Dense(torch.tensor([[1.0], [1.0]], dtype=torch.float64))
    second = Dense(torch.tensor([[1.0, -1.0]], dtype=torch.float64))
    cancelling = Composed(first, second)
    assert to_dense(cancelling).item() == 0
    assert to_dense(cancelling.absolute()).item() == 2


@pytest.mark.parametrize("output_padding", [(0, 0), (1, 0)])
def test_adjoint_of_a_convolution_is_conv_transpose(output_padding: tuple[int, int]) -> None:
    kernel = _integers(3, 2, 3, 2, seed=9)
    in_shape = (3, 4, 3)
    attributes = {
        "strides": (2, 1),
        "pads": (1, 0, 0, 1),
        "output_padding": output_padding,
    }
    x = _integers(1, *in_shape, seed=11)
    theirs = run_node("ConvTranspose", x.numpy(), (kernel.numpy(),), attributes)
    forward = Convolution(kernel, theirs.shape[1:], (2, 1), ((1, 0), (0, 1)), (1, 1))
    ours = Adjoint(forward).apply(x.reshape(1, -1))
    assert forward.out_shape == in_shape
    assert np.array_equal(ours.numpy(), theirs.reshape(1, -1))
