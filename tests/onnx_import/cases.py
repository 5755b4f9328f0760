"""One operator on the input, in many attributes: what the operators' tests are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.onnx_import.graphs import model, node

Array = np.ndarray


@dataclass(frozen=True)
class Case:
    """One operator on the input x, with constants, at an opset."""

    op: str
    shape: tuple[int, ...] = (2, 3, 4)
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    constants: Mapping[str, Array] = field(default_factory=dict[str, Array])
    inputs: Sequence[str] = ("x",)
    outputs: Sequence[str] = ("y",)
    opset: int = 17
    domain: str = ""

    def __str__(self) -> str:
        shown = [f"{name}={value}" for name, value in self.attributes.items()]
        inputs = [f"{name}{list(a.shape)}" for name, a in self.constants.items()]
        return " ".join([self.op, str(self.opset), *shown, *inputs]).replace("'", "")

    @property
    def data(self) -> bytes:
        """The model."""
        made = node(self.op, self.inputs, self.outputs, domain=self.domain, **dict(self.attributes))
        domains = [self.domain] if self.domain else []
        return model([made], self.constants, shape=self.shape, opset=self.opset, domains=domains)


def case(
    op: str,
    constants: Sequence[Array] = (),
    shape: tuple[int, ...] = (2, 3, 4),
    *,
    opset: int = 17,
    flipped: bool = False,
    **attributes: Any,  # noqa: ANN401 (any attribute)
) -> Case:
    """The constants follow x, or lead where flipped."""
    names = [f"c{place}" for place in range(len(constants))]
    return Case(
        op,
        shape,
        attributes,
        dict(zip(names, constants, strict=True)),
        (*names, "x") if flipped else ("x", *names),
        opset=opset,
    )
