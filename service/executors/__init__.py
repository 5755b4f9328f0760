"""Where attempts run. What the dispatcher asks of an executor, and what it hears back.

An executor holds nothing that may not be lost: the database decides what is true of a job.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from service.worker import Order


@dataclass(frozen=True, slots=True)
class Handle:
    """One running attempt."""

    number: int


@dataclass(frozen=True, slots=True)
class Progressed:
    """The attempt says what it is doing. Unchecked."""

    progress: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Improved:
    """The attempt has a better certificate. Unchecked bytes."""

    certificate: bytes
    place: int = 0  #: of radii the center's number


@dataclass(frozen=True, slots=True)
class Kept:
    """What a later attempt may go on from. Unchecked bytes, which prove nothing."""

    checkpoint: bytes


@dataclass(frozen=True, slots=True)
class Resulted:
    """The attempt is done; its last certificate, of a bound. Unchecked bytes."""

    certificate: bytes | None


@dataclass(frozen=True, slots=True)
class Summarised:
    """What the attempt read in a model. Unchecked."""

    summary: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Erred:
    """Why the attempt has no result: a refusal, a failure, a defect."""

    error: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Overran:
    """The attempt was killed for its memory."""

    bytes: int
    allowed: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The attempt's process is gone; after this there is nothing more."""

    exit_code: int | None


Report: TypeAlias = Progressed | Improved | Kept | Resulted | Summarised | Erred | Overran | Ended


@runtime_checkable
class Executor(Protocol):
    """A place that runs attempts."""

    def submit(self, order: Order) -> Handle:
        """Start an attempt."""
        ...

    def poll(self) -> list[tuple[Handle, Report]]:
        """What was heard since the last poll, in order."""
        ...

    def cancel(self, handle: Handle) -> None:
        """Stop an attempt within a second, whatever it is doing. `Ended` follows."""
        ...

    def describe(self) -> Mapping[str, object]:
        """What the readiness probe shows of this executor."""
        ...

    def close(self) -> None:
        """Stop every attempt."""
        ...
