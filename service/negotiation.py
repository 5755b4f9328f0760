"""Which representation of a thing an Accept header prefers (RFC 9110, section 12.5.1)."""

from collections.abc import Sequence

from service.problems import Problem


def preferred(accept: str | None, offers: Sequence[str]) -> str:
    """The offer of the highest quality; of equals the first. No header, or an empty one: the first.

    Raises:
        Problem: not-acceptable.
    """
    ranges = _ranges(accept or "*/*")
    best = max(offers, key=lambda offer: _quality(offer, ranges))  # the first of equals
    if _quality(best, ranges) <= 0:
        raise Problem(
            "not-acceptable",
            f"Accept is {(accept or '')[:200]!r}",
            fix=f"accept one of {', '.join(offers)}",
        )
    return best


def _ranges(accept: str) -> dict[str, float]:
    """Media ranges and their qualities; parameters other than q are not told apart."""
    ranges: dict[str, float] = {}
    for item in accept.split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                quality = _number(parameter[2:])
        ranges[name] = quality
    return ranges


def _quality(offer: str, ranges: dict[str, float]) -> float:
    """That of the most specific range that holds the offer."""
    for name in (offer, f"{offer.partition('/')[0]}/*", "*/*"):
        if name in ranges:
            return ranges[name]
    return 0.0


def _number(text: str) -> float:
    """A quality; what is none counts as 0."""
    digits = text.replace(".", "", 1)
    return min(float(text), 1.0) if digits.isdecimal() and digits.isascii() else 0.0
