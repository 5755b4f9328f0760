"""A method's options from the request's: known names, right types, nothing silently ignored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

from verifier.errors import InvalidRequest
from verifier.property import OptionValue

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Options = TypeVar("Options", bound=DataclassInstance)
else:  # the bound is a name of the type checker's alone
    Options = TypeVar("Options")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What every method may be told."""

    seed: int = 0  #: of every random choice; recorded in the certificate
    #: whether weights that a caller of the file may replace count as stored: claim.assumptions
    freeze_initializers: bool = False


def refuse_unknown(given: Mapping[str, OptionValue], known: Sequence[type]) -> None:
    """Raise InvalidRequest for an option that none of the classes has."""
    names = sorted({field.name for kind in known if is_dataclass(kind) for field in fields(kind)})
    for name in given:
        if name not in names:
            raise InvalidRequest(
                f"option {name!r} is unknown",
                fix=f"use one of {', '.join(names)}",
                pointer=f"/options/{name}",
            )


def read_options(kind: type[Options], given: Mapping[str, OptionValue]) -> Options:
    """The options of one class, from those given under its names.

    Raises:
        InvalidRequest: a value is not of its option's type, or not one of its choices.
    """
    hints = get_type_hints(kind)
    chosen: dict[str, Any] = {}  # checked below, field by field
    for field in fields(kind):
        if field.name in given:
            chosen[field.name] = _value(field.name, given[field.name], hints[field.name])
    try:
        return kind(**chosen)
    except ValueError as error:
        raise InvalidRequest(f"options: {error}", fix="see the method's options") from error


def _value(name: str, value: OptionValue, hint: object) -> OptionValue:
    choices = get_args(hint)
    if choices and all(isinstance(choice, str) for choice in choices):
        if value in choices:
            return value
        expected = f"one of {', '.join(map(str, choices))}"
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif isinstance(hint, type) and type(value) is hint:
        return value
    else:
        expected = f"a {getattr(hint, '__name__', hint)}"
    raise InvalidRequest(
        f"option {name!r} is {value!r}", fix=f"give {expected}", pointer=f"/options/{name}"
    )
