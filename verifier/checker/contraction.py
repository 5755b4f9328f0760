"""0 <= D - R'R where R has few rows: the norm of R D^(-1/2) decides, on the shorter side.

For D > 0,  0 <= D - R'R  if and only if  |R D^(-1/2)|_2 <= 1,  which one Cholesky factor shows that
has as many rows as R. With a border, for 0 < s,

    0 <= [[s, -y], [-y', D - R'R]]  if and only if  0 <= D - R'R - y'y/s,                     (1)

so that the border is one more row, y/sqrt(s).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import LEAST, UNIT, enlarged
from verifier.checker.carry import Carried
from verifier.checker.definite import SpectralTest

if TYPE_CHECKING:
    from jaxtyping import Float64


def is_contraction(rows: Carried, diagonal: Float64[np.ndarray, " n"]) -> bool:
    """Whether 0 <= D - R'R is shown for all R within the error; D is positive."""
    # 1/sqrt(D) is two roundings off, the product one more: 4u cover them.
    inverse = 1 / np.sqrt(diagonal)
    value = rows.value * inverse
    error = enlarged(rows.errors() * inverse + (4 * UNIT) * np.abs(value), 8) + LEAST
    if not (np.all(np.isfinite(value)) and np.all(np.isfinite(error))):
        return False
    return SpectralTest(value, error).proves(1.0)


def with_border(rows: Carried, border: Carried, corner: float) -> Carried:
    """The rows and y/sqrt(s) of (1)."""
    root = math.sqrt(corner)
    value = border.value / root
    # The root and the quotient round.
    error = enlarged(border.errors() / root + (4 * UNIT) * np.abs(value), 4) + LEAST
    return Carried(
        np.concatenate([rows.value, value.reshape(1, -1)]),
        np.concatenate([rows.errors(), error.reshape(1, -1)]),
    )
