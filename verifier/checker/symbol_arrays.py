"""Arrays of tuples, one for each entry of a tensor inside of a pattern."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

Symbol: TypeAlias = "tuple[Any, ...]"


def filled(shape: tuple[int, ...], symbols: Sequence[Symbol]) -> np.ndarray:
    """An array of tuples, which numpy would take for further axes."""
    found = np.empty(len(symbols), dtype=object)
    for place, symbol in enumerate(symbols):
        found[place] = symbol
    return found.reshape(shape)


def flat(array: np.ndarray, shape: tuple[int, ...]) -> list[Symbol]:
    """The tuples, broadcast to a shape, in order."""
    return np.broadcast_to(array, shape).reshape(-1).tolist()
