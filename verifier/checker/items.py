"""What a claim selects of a network: the inputs that vary, and the outputs of each of its items."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.carry import Sparse
from verifier.errors import InvalidRequest
from verifier.property import All, Each, Indices, Margins, Names, Property
from verifier.regions import Everywhere

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Int64


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One bound of the claim: of some outputs, or of one difference of two."""

    rows: Sparse  #: the network's output to the item's outputs; entries 1 and -1
    output: int | None = None
    margin: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The inputs in which x and y may differ, and the items in the order of the claim's list."""

    inputs: Int64[np.ndarray, " selected"]
    items: tuple[Item, ...]


def selection(asked: Property, input_size: int, output_size: int) -> Selection:
    """What the property selects.

    Raises:
        InvalidRequest: an index is out of range or named twice, or the region has another
            dimension than the network's input.
    """
    if not isinstance(asked.region, Everywhere) and asked.region.dimension != input_size:
        raise _beyond(f"the region has {asked.region.dimension} coordinates, not {input_size}")
    inputs = np.arange(input_size)
    if isinstance(asked.inputs, Indices):
        inputs = _checked(asked.inputs.indices, input_size)
    return Selection(inputs=inputs, items=tuple(_items(asked, output_size)))


def _items(asked: Property, size: int) -> list[Item]:
    match asked.outputs:
        case All():
            return [Item(rows=_rows([(i,) for i in range(size)], size))]
        case Indices(indices):
            chosen = _checked(indices, size)
            return [Item(rows=_rows([(int(i),) for i in chosen], size))]
        case Names():
            raise _beyond("outputs are named, not counted")
        case Each():
            return [Item(rows=_rows([(i,)], size), output=i) for i in range(size)]
        case Margins(pairs):
            listed = tuple(combinations(range(size), 2)) if pairs is None else pairs
            if not listed:
                raise _beyond("a margin needs two outputs")
            for i, j in listed:
                _checked((i, j), size)
            return [Item(rows=_rows([(i, j)], size), margin=(i, j)) for i, j in listed]


def _rows(chosen: Sequence[tuple[int, ...]], size: int) -> Sparse:
    index = np.array(chosen, dtype=np.int64)
    weight = np.ones(index.shape)
    weight[:, 1:] = -1.0
    return Sparse(index, weight, size)


def _checked(indices: Sequence[int], size: int) -> Int64[np.ndarray, " n"]:
    if not indices or not all(0 <= i < size for i in indices) or len(set(indices)) != len(indices):
        raise _beyond(f"indices {indices} are not distinct ones below {size}")
    return np.array(indices, dtype=np.int64)


def _beyond(detail: str) -> InvalidRequest:
    return InvalidRequest(detail, fix="ask about inputs and outputs that the model has")
