"""Small questions with reproducible answers: what the drills ask of a service.

Networks of 4 -> 6 -> 5 -> 3 with ReLU, from a seed. The same network comes in many variants that
differ in a comment alone: another digest, hence another question to the service, and the same
bounds. Every run ends by itself, never by the clock; nor by a gap to a lower bound, because on a
busy machine the clock ends the search for a witness.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

Json = Mapping[str, Any]  # a request

EXAMPLES = Path(__file__).parents[1] / "examples"
WIDTHS = (4, 6, 5, 3)
OPSET, IR_VERSION = 17, 8


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, of which network."""

    seed: int
    request: Json

    def model(self, variant: int) -> bytes:
        """The network as an ONNX file."""
        return tiny_model(self.seed, f"variant {variant}")


def questions(networks: int) -> Sequence[Question]:
    """One of each sort for each network."""
    return [Question(seed, request) for seed in range(networks) for request in requests()]


def requests() -> Sequence[Json]:
    """Every kind of work: two targets that are decided at once, and two runs of some seconds."""
    far, work = {"upper": 1e6}, {"seconds": 600}
    return (
        {"target": far, "budget": work},
        {"target": far, "budget": work, "property": _box(0.01)},
        {"method": "lipsdp", "options": {"iterations": 40}, "budget": work},
        {"method": "propagation", "property": _box(0.5), "budget": work},
    )


def lengthy() -> tuple[bytes, Json]:
    """A network, and a question about it that takes many seconds on any machine."""
    return (EXAMPLES / "maxmin_mlp.onnx").read_bytes(), {
        "method": "lipsdp",
        "options": {"iterations": 100_000},
        "budget": {"seconds": 3600, "gap": 1e-12},
    }


def tiny_model(seed: int, comment: str) -> bytes:
    """A small ReLU network."""
    rng = np.random.default_rng(seed)
    nodes, initializers, last = [], [], "x"
    for layer, (inside, outside) in enumerate(pairwise(WIDTHS)):
        weight = rng.normal(size=(inside, outside)).astype(np.float32)
        bias = rng.normal(size=outside).astype(np.float32)
        names = [f"w{layer}", f"b{layer}"]
        initializers += [
            numpy_helper.from_array(array, name)
            for array, name in zip((weight, bias), names, strict=True)
        ]
        nodes.append(helper.make_node("Gemm", [last, *names], [f"z{layer}"]))
        last = f"z{layer}"
        if layer < len(WIDTHS) - 2:
            nodes.append(helper.make_node("Relu", [last], [f"a{layer}"]))
            last = f"a{layer}"
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", 1, [1, WIDTHS[0]])],
        [helper.make_tensor_value_info(last, 1, [1, WIDTHS[-1]])],
        initializers,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        doc_string=comment,
    )
    return model.SerializeToString()


def _box(radius: float) -> Json:
    region = {"type": "box", "center": [0.5] * WIDTHS[0], "radius": radius}
    return {"scope": "local", "norm": "linf", "region": region}
