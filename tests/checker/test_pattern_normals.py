"""Normalisation written out: what the importer recognises the checker verifies, or refutes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from tests.checker.evaluation import evaluate
from tests.onnx_import.graphs import floats, integers, model, node, run
from verifier.certificate import Pattern
from verifier.checker.graph import read_network
from verifier.checker.network import Blocks
from verifier.checker.normalise import Normalise
from verifier.errors import ModelRefused, PatternRefuted
from verifier.onnx_import import load

SHAPE = (1, 3, 4)
HINT = (Pattern(kind="normalise", input="x", output="y"),)


@dataclass(frozen=True)
class Chain:
    """Operators from x to y, with constants; axis -1 unless they say otherwise."""

    name: str
    nodes: Sequence[Any]
    constants: Mapping[str, Any] = field(default_factory=dict[str, Any])
    opset: int = 18

    def __str__(self) -> str:
        return self.name

    @property
    def data(self) -> bytes:
        """The model."""
        known = {"axes": integers(-1), "two": np.array(2.0, np.float32), "eps": _number(0.25)}
        used = {name for made in self.nodes for name in made.input}
        constants = {k: v for k, v in {**known, **self.constants}.items() if k in used}
        return model(self.nodes, constants, shape=SHAPE, opset=self.opset)


def _number(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def _square(how: str = "Pow") -> Any:  # noqa: ANN401 (a protobuf class)
    return node(how, ["x", "two" if how == "Pow" else "x"], ["q"])


def _root(squares: str = "ReduceMean") -> list[Any]:
    return [
        node(squares, ["q", "axes"], ["m"]),
        node("Add", ["m", "eps"], ["e"]),
        node("Sqrt", ["e"], ["s"]),
    ]


END = node("Div", ["x", "s"], ["y"])
CHAINS = [
    Chain("mean", [_square(), *_root(), END]),
    Chain("sum", [_square("Mul"), *_root("ReduceSum"), END]),
    Chain(
        "reciprocal",
        [_square(), *_root(), node("Reciprocal", ["s"], ["r"]), node("Mul", ["x", "r"], ["y"])],
    ),
    Chain(
        "one divided",
        [_square(), *_root(), node("Div", ["one", "s"], ["r"]), node("Mul", ["r", "x"], ["y"])],
        {"one": _number(1.0)},
    ),
    Chain(
        "inverse root by Pow",
        [
            _square(),
            *_root()[:2],
            node("Pow", ["e", "half"], ["r"]),
            node("Mul", ["x", "r"], ["y"]),
        ],
        {"half": _number(-0.5)},
    ),
    Chain(
        "sum of squares over two axes",
        [
            node("ReduceSumSquare", ["x", "axes"], ["m"]),
            node("Add", ["eps", "m"], ["e"]),
            node("Sqrt", ["e"], ["s"]),
            END,
        ],
        {"axes": integers(1, 2)},
    ),
    Chain(
        "length by Clip",
        [
            node("ReduceL2", ["x", "axes"], ["l"]),
            node("Clip", ["l", "eps"], ["s"]),
            node("Expand", ["s", "shape"], ["w"]),
            node("Div", ["x", "w"], ["y"]),
        ],
        {"shape": integers(*SHAPE)},
    ),
    Chain(
        "length by Max of a root",
        [
            _square(),
            node("ReduceSum", ["q", "axes"], ["m"]),
            node("Sqrt", ["m"], ["l"]),
            node("Max", ["eps", "l"], ["s"]),
            END,
        ],
        {"axes": integers(1)},
    ),
    Chain(
        "opset 9",
        [
            _square(),
            node("ReduceMean", ["q"], ["m"], axes=[-1]),
            *_root()[1:],
            END,
        ],
        opset=9,
    ),
]
LOOK_ALIKES = [
    Chain("cubes", [_square(), *_root(), END], {"two": _number(3.0)}),
    Chain("eps negative", [_square(), *_root(), END], {"eps": _number(-0.25)}),
    Chain("eps absent", [_square(), *_root()[:1], node("Sqrt", ["m"], ["s"]), END]),
    Chain("eps of many", [_square(), *_root(), END], {"eps": floats(1, 3, 1)}),
    Chain("no root", [_square(), *_root()[:2], node("Div", ["x", "e"], ["y"])]),
    Chain("turned", [_square(), *_root(), node("Div", ["s", "x"], ["y"])]),
    Chain("squares divided", [_square(), *_root(), node("Div", ["q", "s"], ["y"])]),
    Chain(
        "a mean that has a floor",
        [
            _square(),
            *_root()[:1],
            node("Sqrt", ["m"], ["l"]),
            node("Max", ["l", "eps"], ["s"]),
            END,
        ],
    ),
    Chain(
        "products of neighbours",
        [
            node("Gather", ["x", "turn"], ["t"], axis=2),
            node("Mul", ["x", "t"], ["q"]),
            *_root(),
            END,
        ],
        {"turn": integers(1, 2, 3, 0)},
    ),
    Chain(
        "the lengths of other rows",
        [
            _square(),
            *_root(),
            node("Gather", ["s", "turn"], ["t"], axis=1),
            node("Div", ["x", "t"], ["y"]),
        ],
        {"turn": integers(1, 2, 0)},
    ),
    Chain(
        "limited above",
        [
            node("ReduceL2", ["x", "axes"], ["l"]),
            node("Clip", ["l", "eps", "two"], ["s"]),
            END,
        ],
    ),
    Chain(
        "a part of the row",
        [
            node("Slice", ["x", "from", "to", "axes"], ["t"]),
            node("Pow", ["t", "two"], ["q"]),
            *_root(),
            END,
        ],
        {"from": integers(0), "to": integers(2)},
    ),
]


@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_a_chain_is_one_node_and_computes_the_same(chain: Chain) -> None:
    network = load(chain.data).require_network()
    assert network.patterns == HINT
    read = read_network(chain.data, network.patterns)
    assert [type(made) for made in read.nodes] == [Blocks]
    x = floats(*SHAPE, seed=3) * 0.5
    expected = run(chain.data, x).reshape(-1)
    found = evaluate(read, x.astype(np.float64).reshape(-1))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("chain", LOOK_ALIKES, ids=str)
def test_what_looks_like_one_is_refuted(chain: Chain) -> None:
    with pytest.raises(PatternRefuted) as refusal:
        read_network(chain.data, HINT)
    assert refusal.value.node == "y"
    with suppress(ModelRefused):
        network = load(chain.data).network
        assert network is None or not network.patterns


def test_epsilon_is_the_number_of_the_file() -> None:
    chain = CHAINS[0]
    data = Chain("thin", chain.nodes, {"eps": _number(1e-6)}).data
    (made,) = read_network(data, HINT).nodes
    assert isinstance(made, Blocks)
    assert isinstance(made.function, Normalise)
    assert made.function.epsilon == float(np.float32(1e-6))
    assert made.function.divisor == 4.0
