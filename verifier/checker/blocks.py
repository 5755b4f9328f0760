"""Linear maps of stacked signals: matrices of blocks, of which many are 0 or an identity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.batches import multiplied

if TYPE_CHECKING:
    from jaxtyping import Float64

    from verifier.checker.batches import Batch


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a map: an identity, exactly, or any matrix."""

    rows: slice
    columns: slice
    is_unit: bool


@dataclass(frozen=True, slots=True)
class Rows:
    """A linear map B of stacked signals: |B_true(f) - value(f)| <= error entrywise, at every f."""

    value: Batch
    error: Float64[np.ndarray, "rows columns"] | None = None
    blocks: tuple[Block, ...] | None = None  #: `value` is 0 elsewhere; None: one block


def applied(linear: Batch, blocks: tuple[Block, ...] | None, operand: Batch) -> Batch:
    """fl(B X), block by block; in an identity's block B is a power of two for each row."""
    if blocks is None:
        return multiplied(linear, operand)
    is_complex = np.iscomplexobj(linear) or np.iscomplexobj(operand)
    shape = (max(len(linear), len(operand)), linear.shape[1], operand.shape[2])
    value = np.zeros(shape, np.complex128 if is_complex else np.float64)
    for block in blocks:
        part, entering = linear[:, block.rows, block.columns], operand[:, block.columns]
        if block.is_unit:
            own = np.arange(len(part[0]))
            value[:, block.rows] += part[:, own, own, None] * entering
        else:
            value[:, block.rows] += multiplied(part, entering)
    return value
