"""Where the operators on integers have their operands, and what they are on numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from verifier.onnx_import.counted import FOREIGN

if TYPE_CHECKING:
    from verifier.onnx_import.call import Call


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where an operator has its operands: integers, step and zero point, one after another."""

    op: str  #: on numbers
    taken: Sequence[int] = (0, 3)  #: places of integers that enter
    given: int = 6  #: the place of the step that leaves; the zero point follows
    bias: int | None = None
    #: Along which the steps of the second operand may differ, where they may.
    axis: Callable[[Call], int] | None = None


def _column(call: Call) -> int:
    return 0 if call.attributes.integer("transB", 0) else -1


_ONE: Final[Mapping[str, str]] = {
    "QLinearAveragePool": "AveragePool",
    "QLinearGlobalAveragePool": "GlobalAveragePool",
    "QLinearLeakyRelu": "LeakyRelu",
    "QLinearSigmoid": "Sigmoid",
}
LAYOUTS: Final[Mapping[str, Layout]] = {
    "QLinearConv": Layout(op="Conv", bias=8, axis=lambda _: 0),
    "QLinearMatMul": Layout(op="MatMul", axis=lambda _: -1),
    f"{FOREIGN}QGemm": Layout(op="Gemm", bias=6, given=7, axis=_column),
    f"{FOREIGN}QLinearAdd": Layout(op="Add"),
    f"{FOREIGN}QLinearMul": Layout(op="Mul"),
    f"{FOREIGN}QLinearConcat": Layout(op="Concat", taken=(), given=0),
    **{f"{FOREIGN}{name}": Layout(op=op, taken=(0,), given=3) for name, op in _ONE.items()},
}
