"""What values of a certificate's JSON may be; each is read, or refused with its place.

Everything here but the hooks of `json.loads` takes a value and its place, and raises
MalformedCertificate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, TypeVar, cast

Object: TypeAlias = Mapping[str, object]
Item = TypeVar("Item")


class MalformedCertificate(ValueError):
    """The text is not a certificate of this format; the message says where and why."""


def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """The members of an object, none of them twice: for `json.loads`."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("an object has one key twice")
    return members


def no_constant(name: str) -> object:
    """Refuse nan and the infinities: for `json.loads`."""
    raise ValueError(f"{name} is not JSON")


def mapping(value: object, at: str) -> Object:
    """An object."""
    if not isinstance(value, Mapping):
        raise MalformedCertificate(f"{at}: expected an object")
    return cast("Object", value)


def exact(value: object, at: str, names: str, optional: str = "") -> Object:
    """An object with these members, and perhaps those of `optional`."""
    members = mapping(value, at)
    needed = set(names.split())
    wrong = sorted((set(members) ^ needed) - (set(optional.split()) & set(members)))
    if wrong:
        raise MalformedCertificate(f"{at}: missing or unknown members {wrong}")
    return members


def listed(value: object, at: str, item: Callable[[object, str], Item]) -> tuple[Item, ...]:
    """A list, item by item."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise MalformedCertificate(f"{at}: expected a list")
    elements = cast("Sequence[object]", value)
    return tuple(item(element, f"{at}[{index}]") for index, element in enumerate(elements))


def optional(value: object, at: str, read: Callable[[object, str], Item]) -> Item | None:
    """A value or null."""
    return None if value is None else read(value, at)


def one_of(value: object, allowed: Sequence[object], at: str) -> object:
    """One of these values."""
    if value not in allowed:
        raise MalformedCertificate(f"{at}: {value!r} is not one of {list(allowed)}")
    return value


def text(value: object, at: str) -> str:
    """A text."""
    if not isinstance(value, str):
        raise MalformedCertificate(f"{at}: expected text")
    return value


def index(value: object, at: str) -> int:
    """An integer of 0 or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise MalformedCertificate(f"{at}: expected an integer of 0 or more")
    return value


def number(value: object, at: str) -> float:
    """A number that float64 can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MalformedCertificate(f"{at}: expected a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise MalformedCertificate(f"{at}: the number is not finite in float64")
    return number
