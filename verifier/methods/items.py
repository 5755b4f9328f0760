"""What a property selects of a network: which inputs vary, and which outputs make up each item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from verifier.errors import InvalidRequest
from verifier.norms import Metric, WeightedPair, Weighting, Weights
from verifier.property import All, Each, Indices, Margins, Names, Property
from verifier.regions import Everywhere


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Item:
    """One bound of the claim: of the outputs `rows` f, measured jointly in the output norm."""

    rows: Float64[Tensor, "selected outputs"]
    output: int | None = None  #: the one output, for {"each": true}
    margin: tuple[int, int] | None = None  #: the pair, for margins


def items_of(asked: Property, output_size: int) -> tuple[Item, ...]:
    """The items of a property, in the order of the claim's list; one where it is no list.

    Raises:
        InvalidRequest: an output index is out of range.
    """
    match asked.outputs:
        case All():
            return (Item(rows=torch.eye(output_size, dtype=torch.float64)),)
        case Indices(indices):
            _refuse_beyond(indices, output_size, "outputs")
            return (Item(rows=_units(indices, output_size)),)
        case Names():
            raise InvalidRequest(
                "outputs are named, and their places are not known here",
                fix="give indices",
                pointer="/property/outputs",
            )
        case Each():
            return tuple(Item(rows=_units((i,), output_size), output=i) for i in range(output_size))
        case Margins(pairs):
            chosen = tuple(combinations(range(output_size), 2)) if pairs is None else pairs
            _refuse_beyond([i for pair in chosen for i in pair], output_size, "outputs")
            if not chosen:
                raise InvalidRequest(
                    "the model has one output, and a margin needs two",
                    fix='ask for outputs "all"',
                    pointer="/property/outputs",
                )
            return tuple(
                Item(rows=_units((i,), output_size) - _units((j,), output_size), margin=(i, j))
                for i, j in chosen
            )


def _units(indices: Sequence[int], size: int) -> Float64[Tensor, "selected outputs"]:
    """The rows of the identity of these indices; the identity itself may not fit into memory."""
    rows = torch.zeros(len(indices), size, dtype=torch.float64)
    rows[torch.arange(len(indices)), list(indices)] = 1.0
    return rows


def varying_inputs(asked: Property, input_size: int) -> Int64[Tensor, " selected"]:
    """The inputs in which x and y may differ.

    Raises:
        InvalidRequest: an input index is out of range, or the region or the weighting of the
            norm has another dimension.
    """
    if not isinstance(asked.region, Everywhere) and asked.region.dimension != input_size:
        raise InvalidRequest(
            f"the region has {asked.region.dimension} coordinates, the model's input {input_size}",
            fix=f"give {input_size} numbers, flat and row-major",
            pointer="/property/region",
        )
    if isinstance(asked.norm, WeightedPair):
        _refuse_misfit(asked.norm.weighting, input_size)
    if isinstance(asked.inputs, All):
        return torch.arange(input_size)
    _refuse_beyond(asked.inputs.indices, input_size, "inputs")
    return torch.tensor(asked.inputs.indices)


def _refuse_misfit(weighting: Weighting, size: int) -> None:
    match weighting:
        case Weights(values):
            count, member = len(values), "weights"
        case Metric(rows):
            count, member = len(rows), "matrix"
    if count != size:
        raise InvalidRequest(
            f"the norm has `{member}` for {count} inputs, and the model has {size}",
            fix=f"give one for each of the {size} inputs, chosen or not, flat and row-major",
            pointer=f"/property/norm/input/{member}",
        )


def _refuse_beyond(indices: tuple[int, ...] | list[int], size: int, member: str) -> None:
    if any(size <= index for index in indices):
        raise InvalidRequest(
            f"index {max(indices)} of `{member}` is out of range: there are {size}",
            fix=f"give indices from 0 to {size - 1}",
            pointer=f"/property/{member}",
        )
