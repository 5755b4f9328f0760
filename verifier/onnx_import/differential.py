"""The last word on an import: the network against a run time on the original bytes.

The 32 inputs are corners (0, +-1, random signs) and normal vectors at scales from 1e-3 to 100.
Where a function is not defined everywhere, half of the normal vectors are positive.

The tolerance follows each input's own rounding: the network is run again with every result shaken
(verifier/onnx_import/rounding.py); the largest change of any output over those runs, times a safety
factor, plus 8 u times the largest output, is the tolerance for that input.

A file of float32 is compared in a quick way first: matrices and convolutions in float32, one input
of each scale shaken for all of it, and half the safety factor. What agrees so closely also does in
float64; only what does not is looked at in the thorough way. What exceeds the tolerance there is
refused, never warned about, with the first node whose values part.

Where a file rounds to integers and the network does not, see `integers`: from each such node on the
network goes on from the integers of the run time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from verifier.errors import ImportMismatch, ShapeMismatch
from verifier.network.activations.restricted import Restricted
from verifier.network.nodes import Elementwise
from verifier.onnx_import import rounding
from verifier.onnx_import.integers import Integers
from verifier.onnx_import.rounding import Precision, Runs, Shaken, Steps
from verifier.onnx_import.runtime import SAMPLES, SCALES, Feed, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

    from verifier.network.graph import Network
    from verifier.onnx_import.ports import Port
    from verifier.onnx_import.reader import Graph
    from verifier.onnx_import.values import Grid

LARGE: Final = 2**20  #: entries of all signals from which one run has to do


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """How network and run time are compared."""

    runs: Runs
    of_row: Sequence[int]  #: for each input the place of the shaken one that stands for it
    safety: float  #: times the largest change that rounding made

    @staticmethod
    def thorough(network: Network) -> _Way:
        """Every input shaken; once in large networks, of which more entries are drawn at once."""
        times = 3 if sum(network.sizes.values()) < LARGE else 1
        rows = range(SAMPLES)
        runs = Runs(shaken=rows, times=times, is_single=False)
        return _Way(runs=runs, of_row=rows, safety=32.0)

    @staticmethod
    def quick() -> _Way:
        """The first input of each scale shaken, which stands for all of it."""
        firsts = [scale[0] for scale in SCALES]
        places = [place for place, scale in enumerate(SCALES) for _ in scale]
        runs = Runs(shaken=firsts, times=1, is_single=True)
        return _Way(runs=runs, of_row=places, safety=16.0)

    def of_first(self, count: int) -> _Way:
        """That of so many inputs, where each stands for itself."""
        rows = range(count)
        return replace(self, runs=replace(self.runs, shaken=rows), of_row=rows)


def _ways(network: Network, precision: Precision, *, is_stepped: bool) -> Iterator[_Way]:
    """The quick one first, where float32 and few inputs tell as much; then the thorough one."""
    is_coarse = Precision.of("float32").roundoff <= precision.roundoff
    if is_coarse and not is_stepped and not _is_restricted(network):
        yield _Way.quick()
    yield _Way.thorough(network)


def check(
    data: bytes,
    graph: Graph,
    network: Network,
    outputs: Sequence[Port],
    grids: Mapping[str, Grid],
) -> None:
    """Compares network and file on 32 inputs, in all outputs that the network has.

    Args:
        data: the original bytes, perhaps without nodes that these outputs do not need.
        graph: what was read from them.
        network: what it became.
        outputs: those of the file that it has.
        grids: by node, what the file rounds and the network does not.

    Raises:
        ImportMismatch: an output differs by more than rounding explains, or onnxruntime refuses
            the file.
        ShapeMismatch: the network cannot be computed.
    """
    feed = Feed.of(graph, is_restricted=_is_restricted(network))
    precision = Precision.of(feed.dtype)
    expected = _expected(data, feed, outputs, network.output_size)
    integers = Integers.of(data, grids)
    worst, tolerance, steps = None, np.empty(0), Steps()
    for way in _ways(network, precision, is_stepped=bool(grids)):
        if grids:
            steps = _steps(integers, feed, precision, outputs, expected, way)
        found = _computed(network, feed, precision, way, steps)
        tolerance = _tolerance(found, way, precision)
        worst = _excess(found.exact, expected, tolerance)
        if worst is None and np.isfinite(tolerance).all():
            return
    _require_numbers(expected, tolerance)
    if worst is None:
        return
    node = _first_difference(data, graph, network, feed, precision, steps)
    raise ImportMismatch(
        f"a run time computes {worst[1]!r} where the network as understood has {worst[0]!r} "
        f"(tolerance {worst[2]:.3g}); values part at {node!r}",
        node=node,
        fix="report the model: lipcert has misread it",
    )


def _steps(
    integers: Integers,
    feed: Feed,
    precision: Precision,
    outputs: Sequence[Port],
    expected: np.ndarray,
    way: _Way,
) -> Steps:
    """What the run time rounds to, checked against the values that the network has there."""

    def begin(start: int, end: int) -> dict[str, Callable[[Shaken], Tensor]]:
        met = integers.met(feed.rows(start, end), outputs, expected[start:end])
        part = way.of_first(end - start)

        def known(name: str, value: Shaken) -> Tensor:
            tolerance = _tolerance(value, part, precision)
            return integers.require_rounded(name, value.exact, met[name], tolerance)

        return {name: partial(known, name) for name in met}

    return Steps(integers.grids.keys(), begin)


def _computed(
    network: Network, feed: Feed, precision: Precision, way: _Way, steps: Steps
) -> Shaken:
    try:
        return rounding.outputs(network, feed.inputs, precision, way.runs, steps)
    except RuntimeError as error:  # of torch, where maps do not fit together
        if "alloc" in str(error):  # torch has no other type for it
            raise MemoryError(str(error)) from error
        raise ShapeMismatch(
            "the network as understood cannot be computed: its nodes do not fit together",
            fix="export the model again with a current exporter",
        ) from error


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
    signal: Tensor, expected: np.ndarray, tolerance: np.ndarray
) -> tuple[float, float, float] | None:
    """The worst difference beyond tolerance: (network, onnxruntime, tolerance)."""
    found = signal.numpy()
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


def _tolerance(found: Shaken, way: _Way, precision: Precision) -> np.ndarray:
    """How far rounding may have led each input's values of one signal."""
    largest = _largest(found.exact)
    stands = [way.runs.shaken[place] for place in way.of_row]
    # One input stands for another of its scale only as far as their outputs are of one size.
    share = (largest / largest[stands]).nan_to_num(1.0, 1.0).clamp(max=1.0)
    changes = found.changes(way.runs)[list(way.of_row)] * share
    whole = way.safety * changes + 8 * precision.roundoff * largest
    # Beyond the greatest number of the type nothing can be compared.
    overflow = precision.greatest / 16 < largest
    whole = torch.where(overflow, torch.inf, whole + 2**9 * precision.least)
    return whole.numpy()


def _largest(values: Tensor) -> Tensor:
    """The greatest magnitude of each row."""
    if not values.shape[1]:
        return torch.zeros(len(values), dtype=torch.float64)
    return values.abs().amax(dim=1)


def _first_difference(
    data: bytes,
    graph: Graph,
    network: Network,
    feed: Feed,
    precision: Precision,
    steps: Steps,
) -> str:
    """The first node, in order, whose values differ between network and file."""
    import onnx  # only here: the file passed every rule, and a copy of it gets more outputs

    model = onnx.load_model_from_string(data)
    produced = {name for operator in graph.operators for name in operator.outputs}
    # What is rounded to integers was compared before.
    produced -= set(steps.nodes)
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
    way = _Way.thorough(network)
    found = rounding.signals(
        network, feed.inputs, precision, way.runs, names, steps.begin(0, SAMPLES)
    )
    for name, values in zip(names, expected, strict=True):
        tolerance = _tolerance(found[name], way, precision)
        if _excess(found[name].exact, values, tolerance) is not None:
            return name
    return last
