"""The shapes of a request's JSON: what is not of the shape is refused, with a pointer to it."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, TypeVar, cast

from verifier.errors import InvalidRequest

Object: TypeAlias = Mapping[str, object]
Parsed = TypeVar("Parsed")


def invalid(pointer: str, detail: str, fix: str) -> InvalidRequest:
    """The refusal of what stands at a pointer."""
    return InvalidRequest(f"{pointer or 'the request'}: {detail}", fix=fix, pointer=pointer)


def read_object(value: object, at: str, known: set[str] | None) -> Object:
    """A JSON object, whose members are known ones; None: any."""
    if not isinstance(value, Mapping):
        raise invalid(at, f"expected an object, met {type(value).__name__}", "send a JSON object")
    members = cast("Object", value)
    if known is not None:
        refuse_unknown(members, at, known)
    return members


def refuse_unknown(members: Object, at: str, known: set[str]) -> None:
    """Raises InvalidRequest for a member that is not known."""
    for name in members:
        if name not in known:
            expected = ", ".join(sorted(known))
            raise invalid(f"{at}/{name}", f"member {name!r} is unknown", f"expected: {expected}")


def read_number(value: object, at: str) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid(at, f"expected a number, met {value!r}", "give a finite number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise invalid(at, "the number is not finite in float64", "give a finite number")
    return number


def read_list(value: object, at: str, item: Callable[[object, str], Parsed]) -> tuple[Parsed, ...]:
    """A list that is not empty, item by item."""
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise invalid(at, "expected a list that is not empty", "give a list")
    items = cast("Sequence[object]", value)
    return tuple(item(element, f"{at}/{index}") for index, element in enumerate(items))


def read_vector(value: object, at: str) -> tuple[float, ...]:
    """Numbers."""
    return read_list(value, at, read_number)


def read_index(value: object, at: str) -> int:
    """An integer of 0 or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise invalid(at, f"expected an index, met {value!r}", "give an integer of 0 or more")
    return value


def read_indices(value: object, at: str) -> tuple[int, ...]:
    """Distinct indices."""
    indices = read_list(value, at, read_index)
    if len(set(indices)) != len(indices):
        raise invalid(at, "an index occurs twice", "give each index once")
    return indices
