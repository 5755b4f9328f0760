"""Operators by name, each with the rule that makes it a node of the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from verifier.onnx_import.convert import (
    activations,
    affine,
    attention,
    blocks,
    contractions,
    lengths,
    placements,
    resampling,
    windows,
)

if TYPE_CHECKING:
    from verifier.onnx_import.call import Call
    from verifier.onnx_import.convert.emitted import Emitted

RULES: Final[Mapping[str, Callable[[Call], Emitted]]] = {
    **activations.RULES,
    **affine.RULES,
    **attention.RULES,
    **blocks.RULES,
    **contractions.RULES,
    **lengths.RULES,
    **placements.RULES,
    **resampling.RULES,
    **windows.RULES,
}
