"""Our interior-point method against cvxpy: `python -m benchmarks.lipsdp_vs_cvxpy [SECONDS]`.

Dense ReLU chains with two hidden layers of 32 and with five of 40, random weights, one run. The
three solve the same linear matrix inequality; an answer counts when it is repaired and checked.
Wanted: the same value to 1e-5, at least 20 times faster than either. Each solver runs in a process
of its own with at most half of the machine's memory: Clarabel asks for 23 GB on the second chain.
"""

from __future__ import annotations

import os
import resource
from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.table import Table
from benchmarks.yardsticks import ratio, seconds_from_arguments
from service import child
from verifier import parse_request
from verifier.certificate_reader import certificate_from_json

CHAINS = {"32-32": (16, 32, 32, 8), "5 x 40": (20, 40, 40, 40, 40, 40, 10)}
SOLVERS = ("interior_point", "clarabel", "scs")


def main() -> None:
    """Prints one row for each chain and solver; the ratios are solver over ours."""
    seconds = seconds_from_arguments(300.0)
    half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    resource.setrlimit(resource.RLIMIT_DATA, (half, half))  # the children inherit it
    table = Table(chain=8, solver=16, bound=20, difference=12, seconds=10, times_ours=12)
    for name, widths in CHAINS.items():
        model = relu_chain(widths, seed=len(widths))
        ours: tuple[float, float] | None = None
        for solver in SOLVERS:
            answer = solve(model, solver, seconds)
            if isinstance(answer, str):
                table.row([name, solver, answer, None, None, None])
                continue
            ours = ours or answer
            bound, spent = answer
            table.row([name, solver, bound, bound / ours[0] - 1, spent, ratio(spent, ours[1])])


def solve(model: bytes, solver: str, seconds: float) -> tuple[float, float] | str:
    """The checked bound and the method's seconds, its check included; or why there is none."""
    request = parse_request(
        {
            "method": "lipsdp",
            "options": {"solver": solver},
            "budget": {"seconds": seconds, "gap": 0},
        }
    )
    outcome = child.certify(model, request)
    if outcome.certificate is None:
        return "interrupted" if outcome.failure is None else str(outcome.failure.error["code"])
    certificate = certificate_from_json(outcome.certificate)
    bound = certificate.claim.bound
    spent = next(a.seconds for a in certificate.attempts if a.method == "lipsdp")
    return "overflow" if bound is None else (bound, spent)


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
