"""Our interior-point method against cvxpy: `python -m benchmarks.lipsdp_vs_cvxpy [SECONDS]`.

Dense ReLU chains with two hidden layers of 32 and with five of 40, random weights, one run. The
three solve the same linear matrix inequality; an answer counts when it is repaired and checked.
Wanted: the same value to 1e-5, at least 20 times faster than either.
"""

from __future__ import annotations

import sys
import time
from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.table import Table
from benchmarks.yardsticks import ratio, seconds_from_arguments
from verifier import LipcertError, parse_request, verify

CHAINS = {"32-32": (16, 32, 32, 8), "5 x 40": (20, 40, 40, 40, 40, 40, 10)}
SOLVERS = ("interior_point", "clarabel", "scs")


def main() -> None:
    """Prints one row for each chain and solver; the ratios are solver over ours."""
    seconds = seconds_from_arguments(300.0)
    table = Table(chain=8, solver=16, bound=14, difference=12, seconds=10, times_ours=12)
    for name, widths in CHAINS.items():
        model = relu_chain(widths, seed=len(widths))
        ours: tuple[float, float] | None = None
        for solver in SOLVERS:
            bound, spent = solve(model, solver, seconds)
            if ours is None and bound is not None:
                ours = bound, spent
            if bound is None or ours is None:
                table.row([name, solver, None, None, spent, None])
                continue
            table.row([name, solver, bound, bound / ours[0] - 1, spent, ratio(spent, ours[1])])


def solve(model: bytes, solver: str, seconds: float) -> tuple[float | None, float]:
    """The checked bound, and the seconds that the method took."""
    request = parse_request(
        {
            "method": "lipsdp",
            "options": {"solver": solver},
            "budget": {"seconds": seconds, "gap": 0},
        }
    )
    started = time.perf_counter()
    try:
        certificate = verify(model, request)
    except LipcertError as error:
        sys.stderr.write(f"{solver}: {error.code}: {error}\n")
        return None, time.perf_counter() - started
    spent = next(a.seconds for a in certificate.attempts if a.method == "lipsdp")
    return certificate.claim.bound, spent


def relu_chain(widths: tuple[int, ...], seed: int) -> bytes:
    """A dense ReLU network with Gaussian weights of variance 2 / fan-in, as ONNX bytes."""
    rng = np.random.default_rng(seed)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    source = "x"
    for layer, (fan_in, fan_out) in enumerate(pairwise(widths)):
        weight = rng.standard_normal((fan_in, fan_out)) * np.sqrt(2 / fan_in)
        bias = rng.standard_normal(fan_out) / 10
        weights += [
            numpy_helper.from_array(weight.astype(np.float32), f"w{layer}"),
            numpy_helper.from_array(bias.astype(np.float32), f"b{layer}"),
        ]
        is_last = layer == len(widths) - 2
        target = "y" if is_last else f"z{layer}"
        nodes.append(helper.make_node("Gemm", [source, f"w{layer}", f"b{layer}"], [target]))
        if not is_last:
            nodes.append(helper.make_node("Relu", [target], [f"a{layer}"]))
            source = f"a{layer}"
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, widths[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, widths[-1]])],
        weights,
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


if __name__ == "__main__":
    main()
