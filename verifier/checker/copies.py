"""Entries that are only copied from elsewhere: bounds of all copies are those of one.

The factors of a matrix product repeat each entry of its operands; and all products that are added
up to one sum have its derivative.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.maps import Adjoint, Gather
from verifier.checker.network import Affine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Int64

    from verifier.checker.network import Map

    Places = Int64[np.ndarray, " n"]


def copied_from(
    makers: Mapping[str, object], signal: str, places: Places | None = None
) -> tuple[str, Places | None]:
    """The signal that entries are copied from, itself where it is made anew; and which they are.

    Args:
        makers: what makes each signal.
        signal: the copy.
        places: entries of it, which are followed where they are given.
    """
    while isinstance(node := makers.get(signal), Affine) and len(node.terms) == 1:
        inner = _picks(node.terms[0].map)
        if inner is None or np.any(node.bias) or np.any(node.bias_error):
            break
        signal = node.terms[0].source
        places = None if places is None else inner[places]
    return signal, places


def _picks(linear: Map) -> Places | None:
    """The entries that a map picks; None where it does anything else."""
    match linear:
        case Gather():
            return linear.index if np.all(0 <= linear.index) else None
        case Adjoint(of=Adjoint(of=inner)):
            return _picks(inner)
        case Adjoint(of=Gather() as inner) if inner.is_exact and inner.in_size == inner.out_size:
            # Each entry once: a permutation, and this its inverse.
            return np.argsort(inner.index) if np.all(0 <= inner.index) else None
        case _:
            return None
