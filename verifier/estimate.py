"""What a request will take of memory and time, before anything is solved.

Two numbers, and they are not mixed. `memory_bytes` and `seconds` say what to expect. `least_bytes`
is what every way of answering holds at one time, so that a request is refused for it only where
nothing could have been proved; whatever may fit is begun. Method lipsdp is refused as well where
neither its dense inequality nor the recursion over blocks fits, by a margin.

Reads a model's summary as JSON, which a child has written and nobody has checked, and knows no
network. Standard library only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import cast

from verifier.errors import TooLarge
from verifier.property import All, Each, Indices, Margins, Names, Property, Request
from verifier.regions import Everywhere

FLOAT = 8  #: bytes
LARGEST_XI = 6500  #: rows that the dense inequality may have: method lipsdp's own limit
RECURSION_BYTES = 8e9  #: that the recursion may hold: its own limit
MOST_ENTRIES = 2**22  #: of a Jacobian, that a certificate lists
BATCH_ENTRIES = 2**22  #: of linear functions that propagation holds at one time, for each signal

_BASE_BYTES = 300e6  #: of a process with everything imported
_DENSE_MATRICES = 10  #: of the inequality's size, that its solution holds
_LEAST_MATRICES = 2  #: without which no solution is thinkable
_SECONDS_PER_CUBE = 7e-9  #: of a dense solution, by its rows
_SECONDS_PER_PRODUCT = 2e-9  #: of some passes of the recursion, by the products of one
_GIGABYTE = 1e9

Members = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """About what a request takes."""

    memory_bytes: int  #: at the peak
    seconds: float  #: at most the budget
    bounds: int  #: that are asked for, of each region
    weight_bytes: int  #: of the operators' entries
    output_bytes: int  #: of the rows that select outputs
    batch_bytes: int  #: of one batch of propagation
    inequality_rows: int | None  #: of LipSDP over all inputs; null where it has none
    inequality_bytes: int | None  #: of its dense solution
    recursion_bytes: int | None  #: of its solution block by block

    @property
    def least_bytes(self) -> int:
        """What is there in any case: the weights as they were read, in float32."""
        return self.weight_bytes // 2 + self.output_bytes

    def to_json(self) -> dict[str, object]:
        """The members on the wire."""
        return asdict(self)


def estimate(request: Request, summary: Members) -> Estimate | None:
    """What a request about a model takes; None where the summary does not say enough."""
    sizes = _members(summary, "sizes")
    counts = (
        size_of(summary, "input"),
        size_of(summary, "output"),
        _count(summary, "parameters"),
        _count(sizes, "signals"),
        _count(sizes, "widest"),
    )
    if None in counts:
        return None
    inputs, outputs, weights, signals, widest = cast("tuple[int, ...]", counts)
    bounds, selected = _selected(request.property.entries, outputs)
    rows = _count(sizes, "inequality_rows")
    rows = None if rows is None else rows + _varying(request.property, inputs)
    dense = None if rows is None else FLOAT * _DENSE_MATRICES * rows**2
    held = _count(sizes, "recursion_entries")
    held = None if held is None else FLOAT * held
    batch = FLOAT * signals * max(1, min(widest, BATCH_ENTRIES // max(1, widest)))
    known = (FLOAT * weights, FLOAT * selected * outputs)
    peak = _BASE_BYTES + 3 * sum(known) + _working(request, batch, rows, dense, held)
    return Estimate(
        memory_bytes=round(peak),
        seconds=_seconds(request, rows, _count(sizes, "recursion_products")),
        bounds=bounds,
        weight_bytes=known[0],
        output_bytes=known[1],
        batch_bytes=batch,
        inequality_rows=rows,
        inequality_bytes=dense,
        recursion_bytes=held,
    )


def refuse_too_large(request: Request, summary: Members, allowed_bytes: int) -> None:
    """Refuse a request of which it is known that no method answers it.

    Args:
        request: what is asked.
        summary: what the importer understood of the model.
        allowed_bytes: the memory that there is.

    Raises:
        TooLarge: with what is too large, and what to ask instead.
    """
    expected = estimate(request, summary)
    if expected is None:
        return
    inputs, outputs = size_of(summary, "input") or 0, size_of(summary, "output") or 0
    if request.property.kind == "jacobian":
        _require_listed(request.property.entries, inputs, outputs)
    if allowed_bytes < expected.least_bytes:
        raise _too_large(expected, outputs, allowed_bytes)
    is_global = isinstance(request.property.region, Everywhere)
    if request.method == "lipsdp" and is_global and request.property.kind == "lipschitz":
        has_frequencies = _members(summary, "sizes").get("convolutions") is True
        if not has_frequencies:
            _require_solvable(expected, allowed_bytes)


def available_bytes() -> int:
    """The memory that this process may use: the machine's, or what its limits leave of it."""
    if sys.platform == "win32":
        return sys.maxsize
    import resource

    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return machine if limit == resource.RLIM_INFINITY else min(machine, limit)


def size_of(summary: Members, name: str) -> int | None:
    """The number of entries of the input or output that a summary describes."""
    return _count(_members(summary, name), "size")


# --- parts ---------------------------------------------------------------------------------------


def _selected(asked: Property, outputs: int) -> tuple[int, int]:
    """How many bounds are asked for, and how many rows select their outputs."""
    match asked.outputs:
        case All():
            return 1, outputs
        case Indices(indices):
            return 1, len(indices)
        case Names():
            return 1, 1  # at least; how many entries they have is known when the file is read
        case Each():
            return outputs, outputs
        case Margins(pairs):
            count = outputs * (outputs - 1) // 2 if pairs is None else len(pairs)
            return count, count


def _varying(asked: Property, inputs: int) -> int:
    """How many inputs vary."""
    return len(asked.inputs.indices) if isinstance(asked.inputs, Indices) else inputs


def _fits_densely(rows: int | None) -> bool:
    return rows is not None and rows <= LARGEST_XI


def _working(
    request: Request, batch: int, rows: int | None, dense: int | None, held: int | None
) -> int:
    """What the methods hold at the peak, besides what is there in any case."""
    solving = (dense if _fits_densely(rows) else held) or 0
    if held is not None and RECURSION_BYTES < held and not _fits_densely(rows):
        solving = 0  # it is not begun
    is_global = isinstance(request.property.region, Everywhere)
    match request.method:
        case "product":
            return 0
        case "propagation":
            return batch
        case "lipsdp":
            return solving
        case "auto":
            return solving if is_global else max(batch, solving)


def _seconds(request: Request, rows: int | None, products: int | None) -> float:
    """About how long the answer takes: of semidefinite methods their solution, else the budget."""
    if request.method == "lipsdp" and rows is not None and _fits_densely(rows):
        return min(request.budget.seconds, _SECONDS_PER_CUBE * rows**3)
    if request.method == "lipsdp" and products is not None:
        return min(request.budget.seconds, _SECONDS_PER_PRODUCT * products)
    return request.budget.seconds


def _require_listed(asked: Property, inputs: int, outputs: int) -> None:
    _, rows = _selected(asked, outputs)
    if MOST_ENTRIES < rows * inputs:
        raise TooLarge(
            f"the Jacobian has {rows * inputs} entries; {MOST_ENTRIES} can be listed",
            fix="ask about some inputs or outputs, by indices",
        )


def _require_solvable(expected: Estimate, allowed_bytes: int) -> None:
    rows, held = expected.inequality_rows, expected.recursion_bytes
    if rows is None or held is None:
        return
    dense = FLOAT * _LEAST_MATRICES * rows**2
    if (LARGEST_XI < rows or allowed_bytes < dense) and (
        RECURSION_BYTES < held or allowed_bytes < held / 4
    ):
        raise TooLarge(
            f"the inequality has {rows} rows, about {_gigabytes(expected.inequality_bytes or 0)}, "
            f"and block by block it takes about {_gigabytes(held)}; at most {LARGEST_XI} rows, or "
            f"{_gigabytes(min(RECURSION_BYTES, allowed_bytes))} are allowed",
            fix='ask for method "auto" or "product"',
        )


def _too_large(expected: Estimate, outputs: int, allowed: int) -> TooLarge:
    """The refusal of what no method holds."""
    said = f"{_gigabytes(allowed)} are allowed"
    if expected.output_bytes < expected.weight_bytes:
        return TooLarge(
            f"the weights alone take {_gigabytes(expected.weight_bytes)}; {said}",
            fix="export a smaller model, or give the service more memory",
        )
    rows = expected.output_bytes // (FLOAT * max(1, outputs))
    return TooLarge(
        f"the matrix of {rows} selections of {outputs} outputs takes "
        f"{_gigabytes(expected.output_bytes)}; {said}",
        fix='ask about some outputs, by indices, or about fewer "margins"',
    )


def _gigabytes(count: int | float) -> str:
    return f"{count / _GIGABYTE:.1f} GB"


def _members(value: Members, name: str) -> Members:
    found = value.get(name)
    return cast("Members", found) if isinstance(found, Mapping) else {}


def _count(value: Members, name: str) -> int | None:
    """A number of things, from a process that is not trusted to count."""
    found = value.get(name)
    if isinstance(found, bool) or not isinstance(found, int):
        return None
    return found if 0 <= found < 2**53 else None
