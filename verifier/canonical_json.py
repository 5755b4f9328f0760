"""RFC 8785: the one JSON text of a value, whose SHA-256 names it. Standard library only.

The numbers are the whole difficulty: they print as ECMAScript prints them, shortest digits first.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"


def canonical_json(value: Json) -> bytes:
    """The RFC 8785 text of a JSON value, UTF-8.

    Raises:
        ValueError: a number is nan, infinite or an integer that float64 cannot hold.
    """
    return _text(value).encode()


def content_id(value: Json) -> str:
    """`sha256:` and the hex digest of the canonical text."""
    return "sha256:" + hashlib.sha256(canonical_json(value)).hexdigest()


def _text(value: Json) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            if int(float(value)) != value:
                raise ValueError(f"integer {value} is not a float64")
            return _number(float(value))
        case float():
            # Of numpy's float64, which is one, `repr` shows the type.
            return _number(float(value))
        case str():
            return json.dumps(value, ensure_ascii=False)
        case Mapping():
            # RFC 8785 sorts by UTF-16 code units, which differs from code points above U+FFFF.
            keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
            return "{" + ",".join(f"{_text(key)}:{_text(value[key])}" for key in keys) + "}"
        case _:
            return "[" + ",".join(_text(item) for item in value) + "]"


def _number(value: float) -> str:
    """The ECMAScript text of a finite float64: Number::toString, ECMA-262."""
    if not math.isfinite(value):
        raise ValueError(f"{value} is not a JSON number")
    if value == 0:
        return "0"
    if 1e-4 <= abs(value) < 1e16:
        # Here Python's shortest digits stand as ECMAScript's do, but for a last ".0".
        return repr(value).removesuffix(".0")
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = f"{abs(value)!r}e0".partition("e")
    shift = int(exponent.removesuffix("e0"))
    whole, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    digits = (whole + fraction).lstrip("0")
    # value = 0.d1 d2 ... x 10^point
    point = shift + len(whole) if whole != "0" else shift - (len(fraction) - len(digits))
    digits = digits.rstrip("0")
    return sign + _place_point(digits, point)


def _place_point(digits: str, point: int) -> str:
    if len(digits) <= point <= 21:
        return digits + "0" * (point - len(digits))
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return "0." + "0" * -point + digits
    mantissa = digits[0] + (f".{digits[1:]}" if len(digits) > 1 else "")
    return f"{mantissa}e{'+' if 0 < point else '-'}{abs(point - 1)}"
