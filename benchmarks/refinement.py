"""What refinement adds to LipSDP: `python -m benchmarks.refinement [SECONDS]`, global, l2.

The yardsticks of LIPCERT_SHARED where there is headroom, and nets of six hidden layers of 32:
weights at random, and after a short training on random labelled data, which is what leaves the
gap of a few percent that trained networks have. Gaps are to the vertex maximum as it was found:
no bound of the activations' constraints can be below it. Every refined bound is checked.
Wanted: GroupSort 5 within 0.2 %, random 10-16-16-4 within 0.5 %, trained 32 x 6 within 2 %.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Literal

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor
from torch.nn import functional

from benchmarks.table import Table
from benchmarks.yardsticks import seconds_from_arguments
from verifier.certificate import Certificate
from verifier.methods import lipsdp, refinement
from verifier.methods.clock import Clock
from verifier.methods.items import items_of
from verifier.onnx_import import load
from verifier.property import Property
from verifier.proving import Case, prove

Gate = Literal["relu", "maxmin"]
YARDSTICKS = (
    "relu_rand_10_16_16_4",
    "groupsort5_digits_60x2",
    "lipsdp_mlp_maxmin",
    "lipsdp_mlp_tanh",
    "quant_int8",
    "ldlt_seq12",
)
DEPTH, WIDTH, CLASSES = 6, 32, 10
STEPS = 300  #: of training


def main() -> None:
    """Prints one row for each network."""
    seconds = seconds_from_arguments(60.0)
    table = Table(
        network=26, base=11, refined=11, vertices=11, base_gap=9, gap=9, cuts=6, seconds=8
    )
    for name, model in models():
        table.row([name, *measured(model, seconds)])


def models() -> Iterator[tuple[str, bytes]]:
    """The yardsticks, where their folder is named, and the generated networks."""
    shared = os.environ.get("LIPCERT_SHARED")
    if shared is not None:
        for name in YARDSTICKS:
            yield name, Path(shared, "yardsticks", "onnx", f"{name}.onnx").read_bytes()
    gates: tuple[Gate, ...] = ("relu", "maxmin")
    for gate in gates:
        for steps in (STEPS, 0):
            kind = "trained" if steps else "random"
            yield f"{gate} {WIDTH} x {DEPTH} {kind}", onnx_chain(trained(gate, steps), gate)


def measured(model: bytes, seconds: float) -> list[float | None]:
    """Base bound, refined bound as checked, vertex maximum, both gaps, cuts, seconds."""
    asked, options = Property(), lipsdp.Options()
    network = load(model).network
    assert network is not None  # noqa: S101 (these are)
    clock = Clock.start(seconds)
    base = lipsdp.candidate(network, asked, options, clock)
    reached = refinement.vertex_maximum(network, asked, clock)
    case = Case(
        model=model,
        model_id="sha256:" + hashlib.sha256(model).hexdigest(),
        asked=asked,
        items=items_of(asked, network.output_size),
        patterns=network.patterns,
        target=None,
        producer={},
    )
    started = time.perf_counter()
    best, cuts = base.estimates[0], 0
    for found in refinement.candidates(network, asked, options, clock, base=base):
        proved = prove(case, found, None, [])
        if isinstance(proved, Certificate) and proved.claim.bound is not None:
            best = min(best, proved.claim.bound)
            row = found.proof.items[0].rows[0]  # pyright: ignore (of kind lmi)
            cuts = sum(len(each.first_entries) for each in row.cuts)
    spent = time.perf_counter() - started
    first = base.estimates[0]
    return [first, best, reached, first / reached - 1, best / reached - 1, float(cuts), spent]


def trained(gate: Gate, steps: int) -> list[Tensor]:
    """Weights of a chain, from a uniform start and so many steps of Adam on random classes."""
    generator = torch.Generator().manual_seed(7)
    sizes = [WIDTH] * (DEPTH + 1) + [CLASSES]

    def drawn(rows: int, columns: int) -> Tensor:
        scale = (6.0 / columns) ** 0.5 if gate == "relu" else (3.0 / columns) ** 0.5
        return (torch.rand(rows, columns, generator=generator) * 2 - 1) * scale

    weights = [drawn(b, a).requires_grad_() for a, b in pairwise(sizes)]
    centres = torch.randn(4 * CLASSES, WIDTH, generator=generator)
    optimiser = torch.optim.AdamW(weights, lr=3e-3, weight_decay=0.1)
    for _ in range(steps):
        picked = torch.randint(4 * CLASSES, (128,), generator=generator)
        signal = centres[picked] + 0.5 * torch.randn(128, WIDTH, generator=generator)
        for weight in weights[:-1]:
            signal = activated(signal @ weight.T, gate)
        loss = functional.cross_entropy(signal @ weights[-1].T, picked % CLASSES)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return [weight.detach() for weight in weights]


def activated(signal: Tensor, gate: Gate) -> Tensor:
    """The gate, as `onnx_chain` writes it."""
    if gate == "relu":
        return signal.relu()
    one, other = signal.chunk(2, dim=1)
    return torch.cat([torch.maximum(one, other), torch.minimum(one, other)], dim=1)


def onnx_chain(weights: list[Tensor], gate: Gate) -> bytes:
    """The chain as an ONNX model."""
    nodes: list[onnx.NodeProto] = []
    stored: list[onnx.TensorProto] = []
    signal = "x"
    for place, weight in enumerate(weights):
        stored.append(numpy_helper.from_array(weight.numpy(), f"w{place}"))
        nodes.append(helper.make_node("Gemm", [signal, f"w{place}"], [f"a{place}"], transB=1))
        signal = f"a{place}"
        if place + 1 == len(weights):
            break
        if gate == "relu":
            nodes.append(helper.make_node("Relu", [signal], [f"h{place}"]))
        else:
            halves = [f"l{place}", f"r{place}"]
            nodes.append(helper.make_node("Split", [signal], halves, axis=1, num_outputs=2))
            nodes.append(helper.make_node("Max", halves, [f"max{place}"]))
            nodes.append(helper.make_node("Min", halves, [f"min{place}"]))
            both = [f"max{place}", f"min{place}"]
            nodes.append(helper.make_node("Concat", both, [f"h{place}"], axis=1))
        signal = f"h{place}"
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, WIDTH])],
        [helper.make_tensor_value_info(signal, TensorProto.FLOAT, [1, CLASSES])],
        stored,
    )
    opset = helper.make_opsetid("", 22)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10).SerializeToString()


if __name__ == "__main__":
    main()
