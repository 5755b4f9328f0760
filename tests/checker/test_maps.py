"""Linear maps: dense twins, adjoints, and the error bound (1) of `network` against rationals."""

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.checker.maps import Adjoint, Composed, Convolution, Dense, Diagonal, Gather, composed
from verifier.checker.network import Map

U = 2.0**-53


def _maps() -> Iterator[tuple[str, Map]]:
    rng = np.random.default_rng(7)
    weight = rng.normal(size=(5, 7)) * 10.0 ** rng.integers(-6, 6, size=(5, 7))
    gather = Gather(np.array([3, -1, 0, 0, 6, 3]), 7)
    diagonal = Diagonal(rng.normal(size=7), np.abs(rng.normal(size=7)) * 1e-9)
    plane = Convolution(
        kernel=rng.normal(size=(4, 1, 3, 2)),
        error=np.abs(rng.normal(size=(4, 1, 3, 2))) * 1e-8,
        in_shape=(2, 5, 7),
        pads=((1, 2), (0, 1)),
        strides=(2, 3),
        dilations=(1, 2),
        groups=2,
    )
    line = Convolution(
        kernel=rng.normal(size=(3, 2, 4)),
        error=None,
        in_shape=(2, 11),
        pads=((3, 0),),
        strides=(2,),
        dilations=(1,),
        groups=1,
    )
    yield "gather", gather
    yield "permutation", Gather(np.array([2, 0, 1]), 3)
    yield "scatter", Adjoint(gather)
    yield "dense", Dense(weight)
    yield "dense_with_error", Dense(weight, np.abs(weight) * 1e-9)
    yield "rows", Dense(weight, np.abs(weight) * 1e-9, rows=3)
    yield "diagonal", diagonal
    yield "convolution_2d", plane
    yield "convolution_1d", line
    yield "transposed", Adjoint(plane)
    yield "composed", Composed(diagonal, Dense(weight, np.abs(weight) * 1e-7))


MAPS = dict(_maps())
each_map = pytest.mark.parametrize("name", sorted(MAPS))


def dense(name: str) -> np.ndarray:
    return MAPS[name].forward(np.eye(MAPS[name].in_size)).T


@each_map
def test_the_adjoint_is_the_transpose(name: str) -> None:
    back = MAPS[name].backward(np.eye(MAPS[name].out_size))
    np.testing.assert_allclose(back, dense(name), rtol=1e-12, atol=1e-12)


@each_map
def test_magnitudes_are_not_below_those_of_the_matrix(name: str) -> None:
    matrix, item = np.abs(dense(name)), MAPS[name]
    assert np.all(matrix <= item.magnitudes(np.eye(item.in_size)).T * (1 + 1e-12))
    assert np.all(matrix <= item.adjoint_magnitudes(np.eye(item.out_size)) * (1 + 1e-12))


@each_map
def test_slack_and_its_adjoint_agree(name: str) -> None:
    item = MAPS[name]
    slack = item.slack(np.eye(item.in_size)).T
    assert np.all(slack >= 0)
    np.testing.assert_allclose(item.adjoint_slack(np.eye(item.out_size)), slack, rtol=1e-12, atol=0)


@each_map
@given(seed=st.integers(0, 2**32 - 1), turn=st.sampled_from([-1, 1]))
def test_the_error_bound_holds_for_the_true_map(name: str, seed: int, turn: int) -> None:
    """|fl(A x) - A_true x| <= gamma_(terms+2) |A||x| + E |x| with A_true at the end of E."""
    item = MAPS[name]
    rng = np.random.default_rng(seed)
    x = rng.normal(size=item.in_size) * 10.0 ** rng.integers(-8, 8, size=item.in_size)
    found = item.forward(x[None])[0]
    size = np.abs(x)[None]
    gamma = (item.terms + 2) * U / (1 - (item.terms + 2) * U)
    allowed = gamma * item.magnitudes(size)[0] + item.slack(size)[0]
    error = item.slack(np.eye(item.in_size)).T
    # 1e-10: what the slack itself and the unit vectors above were rounded by.
    matrix = dense(name)
    for row in range(0, item.out_size, max(1, item.out_size // 5)):
        true = sum(
            (
                (Fraction(a) + turn * Fraction(e) * Fraction(1 - 1e-10)) * Fraction(b)
                for a, e, b in zip(matrix[row], error[row], x, strict=True)
            ),
            Fraction(0),
        )
        assert abs(Fraction(found[row]) - true) <= Fraction(allowed[row]) * Fraction(1 + 1e-9)


def test_two_index_maps_become_one() -> None:
    first, second = Gather(np.array([4, -1, 2]), 5), Gather(np.array([2, 0, -1, 1]), 3)
    both = composed(first, second)
    assert isinstance(both, Gather)
    assert both.index.tolist() == [2, 4, -1, -1]


def test_copies_are_counted() -> None:
    assert Gather(np.array([1, 1, -1, 0, 1]), 3).multiplicity == 3
    assert not Gather(np.array([1, 1]), 3).is_exact
    assert Gather(np.array([2, 0]), 3).is_exact


def test_a_convolution_is_the_sum_of_its_definition() -> None:
    item = MAPS["convolution_2d"]
    assert isinstance(item, Convolution)
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2, 5, 7))
    padded = np.zeros((2, 8, 8))
    padded[:, 1:6, 0:7] = x
    expected = np.zeros(item.out_shape)
    for o, i, j in np.ndindex(*item.out_shape):
        for s, t in np.ndindex(3, 2):
            expected[o, i, j] += item.kernel[o, 0, s, t] * padded[o // 2, 2 * i + s, 3 * j + 2 * t]
    found = item.forward(x.reshape(1, -1))[0]
    np.testing.assert_allclose(found, expected.reshape(-1), rtol=1e-12)
