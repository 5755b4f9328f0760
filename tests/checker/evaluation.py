"""The checker's network in plain float64, and what onnxruntime says of the same file."""

import math
import os

import numpy as np

from verifier.checker.network import (
    Affine,
    Blocks,
    Elementwise,
    Gated,
    Maximum,
    Network,
    Node,
    Product,
    Reflection,
    Sort,
)

os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def evaluate(network: Network, x: np.ndarray) -> np.ndarray:
    """f(x) for one flat x, up to rounding."""
    values = {"": x}
    for node in network.nodes:
        values[node.name] = _evaluate(node, values)
    return values[network.output]


def _evaluate(node: Node, values: dict[str, np.ndarray]) -> np.ndarray:
    match node:
        case Affine():
            parts = (term.map.forward(values[term.source][None])[0] for term in node.terms)
            return sum(parts, np.array(node.bias))
        case Elementwise():
            low, high = node.function.values(values[node.source])  # pyright: ignore[reportAttributeAccessIssue]  # a Curve
            return low / 2 + high / 2
        case Product():
            return values[node.left] * values[node.right]
        case _:
            return _grouped(node, values[node.source])


def _grouped(node: Sort | Reflection | Maximum | Blocks | Gated, x: np.ndarray) -> np.ndarray:
    result = np.full(node.size, np.nan)
    match node:
        case Sort():
            result[node.places] = np.sort(x[node.groups], axis=1)
        case Reflection():
            result[node.slices] = _reflected(node, x[node.slices])
        case Blocks():
            low, high = node.function.image(x[node.groups], x[node.groups])
            result[node.groups] = low / 2 + high / 2
        case Maximum():
            result[:] = (x[node.windows] * node.sign).max(axis=1) * node.sign
        case Gated():
            raise TypeError(f"node {node.name!r} has increments, and no values")
    return result


def _reflected(node: Reflection, parts: np.ndarray) -> np.ndarray:
    along = np.sum(parts * node.vectors, axis=1, keepdims=True)
    return parts + node.vectors * (np.abs(along) - along)


class Runtime:
    """onnxruntime on the same bytes, without its optimisations."""

    def __init__(self, model: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        entries = self.session.get_inputs()
        kinds = {"tensor(float16)": np.float16, "tensor(double)": np.float64}
        self.kind = kinds.get(entries[0].type, np.float32)
        self.shapes = {
            entry.name: tuple(size if isinstance(size, int) else 1 for size in entry.shape)
            for entry in entries
        }

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """f(x) for a flat x of `kind`: all outputs, one after another."""
        ends = np.cumsum([math.prod(shape) for shape in self.shapes.values()])
        parts = zip(self.shapes.items(), np.split(x, ends[:-1]), strict=True)
        fed = {name: part.reshape(shape) for (name, shape), part in parts}
        found = self.session.run(None, fed)
        return np.concatenate([np.asarray(y, dtype=np.float64).reshape(-1) for y in found])

    def distance(self, network: Network, rng: np.random.Generator, points: int) -> float:
        """How far the network is from it, relative to the largest output."""
        worst = 0.0
        for scale in np.geomspace(0.1, 4.0, points):
            size = sum(math.prod(shape) for shape in self.shapes.values())
            x = (rng.normal(size=size) * scale).astype(self.kind)
            expected = self(x)
            found = evaluate(network, x.astype(np.float64))
            worst = max(worst, float(np.max(np.abs(found - expected), initial=0.0)))
            worst = worst / max(1.0, float(np.max(np.abs(expected), initial=0.0)))
        return worst
