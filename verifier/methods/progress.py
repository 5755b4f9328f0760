"""What a method is told and tells while it runs: when its answer is enough, and how far it is.

Only proved numbers reach a user, so a step carries no bound: its phase, its count and the gap that
the solver sees between its own two sides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a search."""

    phase: str  #: what is being sought, in a word or two
    iteration: int  #: counted from 1
    gap: float | None = None  #: the solver's own, relative; None where it has none
    open: int | None = None  #: parts that wait to be bounded or divided; None where there are none


Report: TypeAlias = Callable[[Step], None]
Note: TypeAlias = Callable[[str, float], None]


def unreported(_: Step) -> None:
    """A report that nobody reads."""


def unnoted(_name: str, _value: float) -> None:
    """A note that nobody keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """When a bound is as good as needed; a method stops as soon as its bound is at most this."""

    enough: float = 0.0  #: the target, or the known lower bound and the gap above it; 0: never
    gap: float = 0.0  #: the share by which a bound may exceed the constant: less need not be sought
    report: Report = unreported
    note: Note = unnoted  #: estimates by name, for the certificate's report


#: Go on until nothing improves.
NO_AIM = Aim()
