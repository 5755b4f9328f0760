"""A table on standard output, row by row as the measurements come in."""

from __future__ import annotations

import sys
from collections.abc import Sequence


class Table:
    """Prints its header at once, and every row when it is there."""

    def __init__(self, **widths: int) -> None:
        self._widths = list(widths.values())
        self.row([name.replace("_", " ") for name in widths])

    def row(self, cells: Sequence[str | float | None]) -> None:
        """Prints one row; the first column to the left, numbers to the right."""
        texts = [_text(cell) for cell in cells]
        first, *rest = zip(texts, self._widths, strict=True)
        line = " ".join([f"{first[0]:{first[1]}}", *(f"{text:>{width}}" for text, width in rest)])
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def _text(cell: str | float | None) -> str:
    if cell is None:
        return "-"
    return cell if isinstance(cell, str) else f"{cell:.6g}"
