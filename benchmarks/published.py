"""MaxMin chains against what was published: `python -m benchmarks.published [SECONDS] [FOLDER]`.

FOLDER holds the `networks_weights` of github.com/ppauli/QCs_MaxMin, the networks of Pauli et al.
2024 (arXiv 2401.14033), which have no licence to be shipped; without it, random weights of the same
shapes. `published` is their inequality, solved again by cvxpy and Clarabel where it is small
enough; it is no proof. Wanted: never looser, and strictly tighter from five layers on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import scipy.io
from onnx import TensorProto, helper, numpy_helper

from benchmarks.table import Table
from benchmarks.yardsticks import Case, answer, ratio, seconds_from_arguments
from tests.references.published import Matrix, product_bound, sorted_chain

SHAPES = ((2, 16), (2, 64), (5, 32), (5, 64), (8, 32), (8, 64), (18, 32), (18, 64), (18, 128))
LARGEST = 64  #: width up to which the published inequality is solved here


def main() -> None:
    """Prints one row for each network."""
    seconds = seconds_from_arguments(120.0)
    folder = Path(sys.argv[2]) if 2 < len(sys.argv) else None
    table = Table(network=14, product=12, published=12, bound=12, ratio=10, reached=12, seconds=9)
    for name, weights in networks(folder):
        given = answer(_case(name, weights), seconds=seconds, method="lipsdp")
        published = sorted_chain(weights) if len(weights[0]) <= LARGEST else None
        witness = None if given.certificate is None else given.certificate.lower_bound
        table.row(
            [
                name,
                product_bound(weights),
                published,
                given.refusal or given.bound,
                ratio(given.bound, published),
                None if witness is None else witness.value,
                given.seconds,
            ]
        )


def networks(folder: Path | None) -> Iterator[tuple[str, list[Matrix]]]:
    """By layers x width: the published weights, or random ones; as float32 holds them."""
    rng = np.random.default_rng(0)
    for layers, width in SHAPES:
        sizes = (784, *(width,) * (layers - 1), 10)
        weights = [rng.normal(size=(m, n)) * np.sqrt(2 / n) for n, m in pairwise(sizes)]
        if folder is not None:
            stored = scipy.io.loadmat(str(folder / f"weights_l2_{layers}fc_{width}.mat"))["W"]
            weights = list(stored.ravel())
        yield f"{layers} x {width}", [w.astype(np.float32).astype(np.float64) for w in weights]


def _case(name: str, weights: Sequence[Matrix]) -> Case:
    return Case(
        name=name,
        model=maxmin_chain(weights),
        request={"property": {}},
        best_known=None,
        lower_bound=None,
        product_bound=None,
        peers=(),
    )


def maxmin_chain(weights: Sequence[Matrix]) -> bytes:
    """A chain with neighbours sorted between its layers, and no biases, as ONNX bytes."""
    nodes: list[onnx.NodeProto] = []
    tensors: list[onnx.TensorProto] = [numpy_helper.from_array(np.array([2]), "two")]
    source = "x"
    for layer, weight in enumerate(weights):
        rows = len(weight)
        tensors.append(numpy_helper.from_array(weight.astype(np.float32), f"w{layer}"))
        nodes.append(helper.make_node("Gemm", [source, f"w{layer}"], [f"v{layer}"], transB=1))
        source = f"v{layer}"
        if layer == len(weights) - 1:
            break
        pairs, flat = np.array([1, rows // 2, 2]), np.array([1, rows])
        tensors.append(numpy_helper.from_array(pairs, f"p{layer}"))
        tensors.append(numpy_helper.from_array(flat, f"f{layer}"))
        nodes.append(helper.make_node("Reshape", [source, f"p{layer}"], [f"g{layer}"]))
        outputs = [f"s{layer}", f"i{layer}"]
        nodes.append(helper.make_node("TopK", [f"g{layer}", "two"], outputs, axis=-1))
        nodes.append(helper.make_node("Reshape", [f"s{layer}", f"f{layer}"], [f"z{layer}"]))
        source = f"z{layer}"
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, weights[0].shape[1]])],
        [helper.make_tensor_value_info(source, TensorProto.FLOAT, [1, len(weights[-1])])],
        tensors,
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


if __name__ == "__main__":
    main()
