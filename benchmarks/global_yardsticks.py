"""Global bounds against the best known values: `python -m benchmarks.global_yardsticks [SECONDS]`.

Wanted: at most 1.001 times the best known value, never above the product, never below what is
reached. A ratio below 1 beats what was known.
"""

from __future__ import annotations

from benchmarks.table import Table
from benchmarks.yardsticks import answer, cases, ratio, seconds_from_arguments


def main() -> None:
    """Prints one row for each case."""
    seconds = seconds_from_arguments(30.0)
    table = Table(case=28, bound=12, best_known=12, ratio=10, product=12, reached=12, seconds=9)
    for case in cases("global"):
        given = answer(case, seconds=seconds)
        table.row(
            [
                case.name,
                given.refusal or given.bound,
                case.best_known,
                ratio(given.bound, case.best_known),
                case.product_bound,
                case.lower_bound,
                given.seconds,
            ]
        )


if __name__ == "__main__":
    main()
