"""The differential test: what was misread is refused with the node, what rounds is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper

from tests.onnx_import.graphs import floats, info, model, node
from verifier.errors import ImportMismatch, ShapeMismatch
from verifier.onnx_import import differential, load, prescan, reader, rounding
from verifier.onnx_import.build import build
from verifier.property import Reading

if TYPE_CHECKING:
    from collections.abc import Mapping

TYPES = {"float16": 10, "bfloat16": 16, "float32": 1, "float64": 11}
MISREADINGS: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a weight": ({}, {"weight": 1e-3}),
    "pads": ({}, {"pads": [2, 2, 0, 0]}),
    "a slope": ({}, {"alpha": 0.0101}),
    "a bias": ({}, {"bias": 1e-3}),
}


def image_network(
    *,
    weight: float = 0.0,
    bias: float = 0.0,
    pads: tuple[int, ...] = (1, 1, 1, 1),
    alpha: float = 0.01,
) -> bytes:
    """Two convolutions with a leaky ReLU; what is added goes to one number."""
    first, second, shift = floats(4, 2, 3, 3), floats(3, 4, 3, 3, seed=1), floats(4, seed=2)
    first[1, 1, 1, 1] += weight
    shift[2] += bias
    return model(
        [
            node("Conv", ["x", "V", "b"], ["s"], pads=pads),
            node("LeakyRelu", ["s"], ["t"], alpha=alpha),
            node("Conv", ["t", "W"], ["y"]),
        ],
        {"V": first, "W": second, "b": shift},
        shape=(1, 2, 6, 6),
    )


def compare(read: bytes, data: bytes) -> None:
    """The test of what one file became against the bytes of another."""
    graph = reader.read(prescan.scan(read), Reading())
    built = build(graph)
    assert built.network is not None
    differential.check(data, graph, built.network, built.outputs, {})


@pytest.mark.parametrize("what", MISREADINGS)
def test_a_misreading_is_refused_at_its_node(what: str) -> None:
    good, bad = MISREADINGS[what]
    compare(image_network(**good), image_network(**good))
    with pytest.raises(ImportMismatch) as refused:
        compare(image_network(**bad), image_network(**good))
    assert refused.value.node == ("t" if what == "a slope" else "s")


@pytest.mark.parametrize(("name", "change"), [*zip(TYPES, (0.2, 2.0, 1e-3, 1e-12), strict=True)])
def test_the_tolerance_follows_the_type(name: str, change: float) -> None:
    def made(added: float) -> bytes:
        weight = floats(5, 4).astype(np.float64).round(1)
        weight[2, 3] += added
        kind = TYPES[name]
        cast = helper.make_tensor("W", kind, weight.shape, weight.ravel().tolist())
        return model(
            [node("Gemm", ["x", "W"], ["s"], transB=1), node("Relu", ["s"], ["y"])],
            {"W": numpy_helper.to_array(cast)},
            inputs=[info("x", (1, 4), kind)],
            outputs=[info("y", (1, 5), kind)],
        )

    compare(made(0.0), made(0.0))
    with pytest.raises(ImportMismatch):
        compare(made(change), made(0.0))


def test_what_the_quick_way_does_not_accept_is_looked_at_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ways: list[bool] = []
    outputs = differential.rounding.outputs

    def counted(*arguments: Any) -> Any:  # noqa: ANN401 (as outputs)
        ways.append(arguments[3].is_single)
        found = outputs(*arguments)
        if ways == [True]:
            found.exact[5] += 1.0
        return found

    monkeypatch.setattr(differential.rounding, "outputs", counted)
    load(image_network())
    assert ways == [True, False]


@pytest.mark.parametrize("entries", [1, 2000])
def test_rows_are_taken_in_chunks(monkeypatch: pytest.MonkeyPatch, entries: int) -> None:
    """Some without a shaken input among them."""
    whole, parts = (_run(limit, monkeypatch) for limit in (2**23, entries))
    torch.testing.assert_close(whole.exact, parts.exact, rtol=1e-12, atol=1e-12)
    assert whole.shaken.shape == parts.shaken.shape


def _run(entries: int, monkeypatch: pytest.MonkeyPatch) -> rounding.Shaken:
    network = load(image_network()).require_network()
    inputs = torch.linspace(-1, 1, 32 * network.input_size, dtype=torch.float64).reshape(32, -1)
    monkeypatch.setattr(rounding, "CHUNK", entries)
    runs = rounding.Runs(shaken=(0, 3, 28), times=2, is_single=False)
    return rounding.outputs(
        network, inputs, rounding.Precision.of("float32"), runs, rounding.Steps()
    )


@pytest.mark.parametrize(
    ("said", "kind"),
    [("shapes cannot be multiplied", ShapeMismatch), ("can't allocate memory", MemoryError)],
)
def test_no_memory_is_no_fault_of_the_file(
    monkeypatch: pytest.MonkeyPatch, said: str, kind: type[Exception]
) -> None:
    def failing(*_: Any) -> Any:  # noqa: ANN401 (as outputs)
        raise RuntimeError(said)

    monkeypatch.setattr(differential.rounding, "outputs", failing)
    with pytest.raises(kind):
        load(image_network())
