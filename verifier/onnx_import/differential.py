"""The last word on an import: the network in float64 against a run time on the original bytes.

The 32 inputs are corners (0, +-1, random
signs) and normal vectors at scales from 1e-3 to 100.

Where a function is not defined everywhere, half of the normal vectors are positive.

The tolerance follows each input's own rounding. With u the unit roundoff of the file's type, the
network is run again with every result shaken by what that type may lose there,

    affine       u (2 + sqrt(terms)) (|A| |x| + |b|)        a sum of that many terms
    elementwise  u (|f(x)| + |x| + 1)                       (u |f(x)| where f is piecewise linear)
    log-sigmoid  u (|f(x)| + |x| + 1 + e^-x)                of a sigmoid right to u
    product      u |x y|
    grouped      0                                          a choice of entries

each with a random sign, the same for every input. The largest change of any output over RUNS such
runs, times SAFETY, plus 8 u times the largest output, is the tolerance for that input. What exceeds
it is refused, never warned about, with the first node whose values part.

Where a file rounds to integers and the network does not, see `integers`: from each such node on the
network goes on from the integers of the run time.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from verifier.errors import ImportMismatch
from verifier.network.activations.piecewise import PiecewiseLinear
from verifier.network.activations.restricted import LogSigmoid, Restricted
from verifier.network.nodes import Affine, Elementwise, Product
from verifier.onnx_import.integers import Integers
from verifier.onnx_import.runtime import SAMPLES, Feed, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from verifier.network.graph import Network, Node
    from verifier.onnx_import.ports import Port
    from verifier.onnx_import.reader import Graph
    from verifier.onnx_import.values import Grid

RUNS: Final = 3
SAFETY: Final = 32.0
LARGE: Final = 2**20  #: entries of all signals from which one run has to do
CHUNK: Final = 2**23  #: entries of a signal that are held at once
_KINDS: Final = {  #: unit roundoff, the least positive number, the greatest
    "bfloat16": (2.0**-8, 2.0**-133, 2.0**127 * (2 - 2.0**-7)),
    "float16": (2.0**-11, 2.0**-24, 65504.0),
    "float32": (2.0**-24, 2.0**-149, float(np.finfo(np.float32).max)),
    "float64": (2.0**-53, 2.0**-1074, float(np.finfo(np.float64).max)),
}


@dataclass(frozen=True, slots=True)
class _Precision:
    """The type in which the file computes."""

    roundoff: float
    least: float  #: the least positive number
    greatest: float

    @staticmethod
    def of(name: str) -> _Precision:
        return _Precision(*_KINDS[name])


def check(
    data: bytes,
    graph: Graph,
    network: Network,
    outputs: Sequence[Port],
    grids: Mapping[str, Grid],
) -> None:
    """Compares network and file on 32 inputs, in all outputs that the network has.

    Args:
        data: the original bytes.
        graph: what was read from them.
        network: what it became.
        outputs: those of the file that it has.
        grids: by node, what the file rounds and the network does not.

    Raises:
        ImportMismatch: an output differs by more than rounding explains, or onnxruntime refuses
            the file.
    """
    feed = Feed.of(graph, is_restricted=_is_restricted(network))
    precision = _Precision.of(feed.dtype)
    expected = _expected(data, feed, outputs, network.output_size)
    integers = Integers.of(data, grids)
    found = torch.cat(
        [
            _signals(network, part.inputs, precision, (network.output,), steps)[network.output]
            for part, steps in _parts(network, feed, integers, outputs, expected)
        ],
        dim=1,
    )
    tolerance = _tolerance(found, precision)
    _require_numbers(expected, tolerance)
    worst = _excess(found[0].numpy(), expected, tolerance)
    if worst is None:
        return
    steps = _Steps(integers, integers.met(feed, outputs, expected))
    node = _first_difference(data, graph, network, feed, precision, steps)
    raise ImportMismatch(
        f"a run time computes {worst[1]!r} where the network as understood has {worst[0]!r} "
        f"(tolerance {worst[2]:.3g}); values part at {node!r}",
        node=node,
        fix="report the model: lipcert has misread it",
    )


def _expected(data: bytes, feed: Feed, outputs: Sequence[Port], size: int) -> np.ndarray:
    """The flat output of every sample; 0 where the network does not have an output."""
    whole = np.zeros((SAMPLES, size))
    for port, values in zip(outputs, run(data, feed, [p.name for p in outputs]), strict=True):
        start, end = port.place
        if values.shape[1] != end - start:
            raise ImportMismatch(
                f"output {port.name!r} has {values.shape[1]} numbers where the network as "
                f"understood has {end - start}",
                node=port.name,
                fix="report the model: lipcert has misread it",
            )
        whole[:, start:end] = values
    return whole


def _runs(network: Network) -> int:
    """Fewer for large networks, of which more entries are drawn at once."""
    return RUNS if sum(network.sizes.values()) < LARGE else 1


def _is_restricted(network: Network) -> bool:
    """Whether some function is not defined everywhere."""
    gates = [node for node in network.nodes if isinstance(node, Elementwise)]
    return any(isinstance(node.function, Restricted) for node in gates)


def _require_numbers(expected: np.ndarray, tolerance: np.ndarray) -> None:
    """Some input has to give numbers that can be compared."""
    comparable = np.isfinite(expected) & np.isfinite(tolerance)[:, None]
    if expected.size and not comparable.any():
        raise ImportMismatch(
            f"none of {SAMPLES} inputs gives finite numbers, so that the import cannot be tested",
            fix="keep what enters roots, logarithms and divisors inside their domains",
        )


def _excess(
    found: np.ndarray, expected: np.ndarray, tolerance: np.ndarray
) -> tuple[float, float, float] | None:
    """The worst difference beyond tolerance: (network, onnxruntime, tolerance)."""
    if found.shape != expected.shape:
        return (float("nan"), float("nan"), 0.0)
    finite = np.isfinite(expected) & np.isfinite(tolerance)[:, None]
    with np.errstate(invalid="ignore"):
        beyond = np.where(finite, np.abs(found - expected) - tolerance[:, None], -1.0)
    if not np.isfinite(beyond).all():
        return (float("nan"), float("nan"), 0.0)
    if beyond.size == 0 or beyond.max() <= 0:
        return None
    row, column = np.unravel_index(int(beyond.argmax()), beyond.shape)
    return float(found[row, column]), float(expected[row, column]), float(tolerance[row])


@dataclass(frozen=True, slots=True)
class _Steps:
    """What the run time rounds to on some samples."""

    integers: Integers
    met: Mapping[str, Tensor]


def _parts(
    network: Network,
    feed: Feed,
    integers: Integers,
    outputs: Sequence[Port],
    expected: np.ndarray,
) -> Iterator[tuple[Feed, _Steps]]:
    """The samples in chunks of rows that memory holds, each with the run time's integers."""
    sizes = network.sizes
    largest = max(*sizes.values(), sum(sizes[name] for name in integers.grids))
    rows = max(1, CHUNK // ((1 + _runs(network)) * largest))
    for start in range(0, SAMPLES, rows):
        part = feed.rows(start, start + rows)
        yield part, _Steps(integers, integers.met(part, outputs, expected[start : start + rows]))


def _tolerance(found: Tensor, precision: _Precision) -> np.ndarray:
    """How far rounding may have led each input's values of one signal."""
    exact, shaken = found[0], found[1:]
    largest = _largest(exact)
    changes = torch.stack([_largest(run - exact) for run in shaken])
    whole = SAFETY * changes.amax(dim=0) + 8 * precision.roundoff * largest
    # Beyond the greatest number of the type nothing can be compared.
    overflow = precision.greatest / 16 < largest
    whole = torch.where(overflow, torch.inf, whole + 2**9 * precision.least)
    return whole.numpy()


def _largest(values: Tensor) -> Tensor:
    """The greatest magnitude of each row."""
    if not values.shape[1]:
        return torch.zeros(len(values), dtype=torch.float64)
    return values.abs().amax(dim=1)


def _signals(
    network: Network,
    inputs: Tensor,
    precision: _Precision,
    keep: Sequence[str],
    steps: _Steps,
) -> dict[str, Tensor]:
    """[1 + runs, rows, entries] of the signals named: exact first, then with rounding drawn.

    What nothing reads any more is freed. All runs are rows of one evaluation, and share what may
    be lost at a node: that of the exact one. Where the run time rounds to integers, they are what
    the network goes on from.
    """
    generator = torch.Generator().manual_seed(0)
    runs = _runs(network)
    last_use = {source: node.name for node in network.nodes for source in node.sources}
    signals, count = {"": inputs.repeat(1 + runs, 1)}, len(inputs)

    def shaken(value: Tensor, loss: Tensor | None) -> Tensor:
        if loss is None:
            return value
        signs = torch.randint(0, 2, (runs, 1, value.shape[1]), generator=generator) * 2.0 - 1.0
        noise = (loss * signs).reshape(-1, value.shape[1])
        return torch.cat([value[:count], value[count:].add(noise, alpha=precision.roundoff)])

    for node in network.nodes:
        exact = {source: signals[source][:count] for source in node.sources}
        value = _value(node, signals)
        value = shaken(value, _loss(node, exact, value[:count]))
        if (met := steps.met.get(node.name)) is not None:
            tolerance = _tolerance(value.reshape(1 + runs, count, -1), precision)
            known = steps.integers.require_rounded(node.name, value[:count], met, tolerance)
            value = shaken(known.repeat(1 + runs, 1), known.abs())
        signals[node.name] = value
        for source in set(node.sources):
            if last_use[source] == node.name and source not in keep:
                del signals[source]
    return {name: signals[name].reshape(1 + runs, count, -1) for name in keep}


def _value(node: Node, signals: Mapping[str, Tensor]) -> Tensor:
    match node:
        case Affine():
            bias = node.bias.expand(len(next(iter(signals.values()))), -1)
            return sum((term.map.apply(signals[term.source]) for term in node.terms), bias)
        case Elementwise():
            return node.function.forward(signals[node.source])
        case Product():
            return signals[node.left] * signals[node.right]
        case _:
            return node.group.forward(signals[node.source])


def _loss(node: Node, signals: Mapping[str, Tensor], value: Tensor) -> Tensor | None:
    """What the type may lose at one node, in units of its roundoff; None where it loses nothing."""
    match node:
        case Affine():
            size = sum(
                (term.map.absolute().apply(signals[term.source].abs()) for term in node.terms),
                node.bias.abs().expand_as(value),
            )
            return (2 + sqrt(_terms(node))) * size
        case Elementwise():
            if isinstance(node.function, PiecewiseLinear):
                return value.abs()
            source = signals[node.source]
            size = value.abs() + source.abs() + 1
            return size + (-source).exp() if isinstance(node.function, LogSigmoid) else size
        case Product():
            return value.abs()
        case _:
            return None


def _terms(node: Affine) -> float:
    """About the number of terms of one sum."""
    return min(float(sum(term.map.in_size for term in node.terms)), 4096.0)


def _first_difference(
    data: bytes,
    graph: Graph,
    network: Network,
    feed: Feed,
    precision: _Precision,
    steps: _Steps,
) -> str:
    """The first node, in order, whose values differ between network and file."""
    import onnx  # only here: the file passed every rule, and a copy of it gets more outputs

    model = onnx.load_model_from_string(data)
    produced = {name for operator in graph.operators for name in operator.outputs}
    # What is rounded to integers was compared before.
    produced -= steps.met.keys()
    names = [node.name for node in network.nodes if node.name in produced]
    present = {value.name for value in model.graph.output}
    model.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in names if name not in present
    )
    last = graph.outputs[-1].name
    try:
        expected = run(model.SerializeToString(), feed, names)
    except ImportMismatch:
        return last
    signals = _signals(network, feed.inputs, precision, names, steps)
    for name, values in zip(names, expected, strict=True):
        tolerance = _tolerance(signals[name], precision)
        if _excess(signals[name][0].numpy(), values, tolerance) is not None:
            return name
    return last
