"""The checker's increments over xi: each number is within its error of exact arithmetic's."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import pytest

from tests.tiny_topologies import tiny_network
from verifier.checker.carry import Carried
from verifier.checker.constraints import Increments, centred, increments
from verifier.checker.graph import read_network
from verifier.checker.lmi import global_slopes
from verifier.checker.lowering import Lowered, lowered
from verifier.checker.network import Affine, Elementwise, Map, Network, Sort
from verifier.onnx_import import load

SEEDS = range(0, 13 * 19, 13)  # through the topologies and their gates


def read(seed: int) -> Network:
    """A tiny network as the checker reads it."""
    model = tiny_network(seed).network.model
    return read_network(model, load(model).require_network().patterns)


def exact(numbers: np.ndarray) -> np.ndarray:
    """The same numbers as fractions."""
    return np.array([Fraction(x) for x in numbers.ravel().tolist()], dtype=object).reshape(
        numbers.shape
    )


def columns_of(linear: Map) -> np.ndarray:
    """A', exactly: weights are in eighths, whose products float64 holds."""
    return exact(linear.forward(np.eye(linear.in_size)))


def laid_out(
    small: Lowered, slopes: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> tuple[dict[str, int], int]:
    """Where the psis of every node begin in xi, and its size."""
    places: dict[str, int] = {}
    size = small.network.input_size
    for node in small.network.nodes:
        if isinstance(node, Elementwise):
            places[node.name], size = size, size + int((centred(*slopes[node.name])[1] > 0).sum())
        elif isinstance(node, Sort):
            places[node.name], size = size, size + node.groups[:, 1:].size
    return places, size


def forwards(
    small: Lowered, slopes: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Every signal's increment, xi by entries, walked from the input in exact arithmetic."""
    network = small.network
    places, size = laid_out(small, slopes)
    start = np.full((size, network.input_size), Fraction(0), dtype=object)
    start[np.arange(network.input_size), np.arange(network.input_size)] = Fraction(1)
    signals = {"": start}
    for node in network.nodes:
        match node:
            case Affine():
                parts = [signals[term.source] @ columns_of(term.map) for term in node.terms]
                signals[node.name] = sum(parts[1:], parts[0])
            case Elementwise():
                middle, radius = centred(*slopes[node.name])
                leaving = signals[node.source] * exact(middle)
                for place, entry in enumerate(np.flatnonzero(radius > 0)):
                    leaving[places[node.name] + place, entry] += Fraction(float(radius[entry]))
                signals[node.name] = leaving
            case Sort():
                signals[node.name] = _sorted(node, signals[node.source], places[node.name])
            case _:
                raise TypeError(node)
    return signals


def _sorted(node: Sort, entering: np.ndarray, place: int) -> np.ndarray:
    """The mean of each group, and k ones and a -k for its k-th psi."""
    count, width = node.groups.shape
    leaving = np.full((len(entering), node.size), Fraction(0), dtype=object)
    for group in range(count):
        mean = entering[:, node.groups[group]].sum(axis=1) / width
        leaving[:, node.places[group]] = mean[:, None]
        for k in range(1, width):
            row = place + group * (width - 1) + k - 1
            leaving[row, node.places[group, :k]] += 1
            leaving[row, node.places[group, k]] -= k
    return leaving


def assert_within(found: Carried, expected: np.ndarray) -> None:
    """Columns |value - true| <= error; rows that are missing are 0."""
    height = len(found.value)
    assert not np.any(expected[height:])
    distance = np.abs(exact(found.value) - expected[:height])
    assert np.all(distance <= exact(found.errors()))


@pytest.mark.parametrize("seed", SEEDS)
def test_increments_are_within_their_errors(seed: int) -> None:
    network = read(seed)
    small = lowered(network, "keep")
    slopes = global_slopes(small)
    found = increments(small, np.arange(network.input_size), slopes)
    signals = forwards(small, slopes)
    assert_within(found.output, signals[small.network.output])
    gates = [node for node in small.network.nodes if isinstance(node, Elementwise | Sort)]
    for node, constraint in zip(gates, found.constraints, strict=True):
        entering = signals[node.source]
        if isinstance(node, Elementwise):
            assert_within(constraint.entering, entering[:, constraint.owner])
        else:
            assert_within(constraint.entering, _contrasts(node, entering))


def _contrasts(node: Sort, entering: np.ndarray) -> np.ndarray:
    """h_k.v, group by group."""
    grouped = entering[:, node.groups]
    columns = [
        grouped[:, group, :k].sum(axis=1) - k * grouped[:, group, k]
        for group in range(len(node.groups))
        for k in range(1, node.groups.shape[1])
    ]
    return np.stack(columns, axis=1)


def test_some_inputs_alone_are_rows_of_all() -> None:
    network = read(13)
    small = lowered(network, "keep")
    slopes = global_slopes(small)
    kept = np.array([network.input_size - 1])

    def outputs(inputs: np.ndarray) -> Increments:
        return increments(small, inputs, slopes)

    whole, one = outputs(np.arange(network.input_size)), outputs(kept)
    rows = np.concatenate([kept, np.arange(network.input_size, whole.size)])
    assert np.array_equal(one.output.value, whole.output.value[rows])
