"""One message of a file as its fields, by number; names are checked where they are taken."""

from __future__ import annotations

from typing import TypeAlias

from verifier.checker.wire import Value, fields, not_onnx, signed, text
from verifier.errors import InvalidName

MAX_NAME = 256

Parts: TypeAlias = "dict[int, list[Value]]"


def collect(message: memoryview) -> Parts:
    """Every field of a message, by number, in order. Packed numbers stay packed."""
    parts: Parts = {}
    for number, _, value in fields(message):
        parts.setdefault(number, []).append(value)
    return parts


def view(value: Value) -> memoryview:
    """The message that a field holds."""
    if not isinstance(value, memoryview):
        raise not_onnx("a number stands where a message should")
    return value


def integer(parts: Parts, number: int, absent: int) -> int:
    """A field that holds one number."""
    values = parts.get(number)
    return signed(values[0]) if values and isinstance(values[0], int) else absent


def name_of(parts: Parts, number: int) -> str:
    """A field that holds one name; "" where it is absent."""
    values = parts.get(number)
    return check_name(text(values[0])) if values else ""


def check_name(name: str) -> str:
    """The name, if it is one. Raises InvalidName."""
    if len(name.encode()) > MAX_NAME or not name.isprintable():
        raise InvalidName(
            f"a name of {len(name)} characters: over {MAX_NAME} bytes, or not printable",
            fix="export with short plain names",
        )
    return name
