"""Global bounds against the best known values: `python -m benchmarks.global_yardsticks [SECONDS]`.

`auto` is all tiers one after another, refinement included. `published` is the best bound that a
peer gave: of the published inequality, or of a general solver on ours. `witness` is what we reach,
`reached` what is known to be. Wanted: at most 1.001 times the best known value, never above the
product, never below what is reached. A ratio below 1 beats what was known.
"""

from __future__ import annotations

from benchmarks.table import Table
from benchmarks.yardsticks import Case, answer, cases, ratio, seconds_from_arguments

METHODS = ("product", "lipsdp", "auto")
NO_BOUNDS = ("SCS",)  #: peers that stop below the optimum: no bound is proved by their numbers


def main() -> None:
    """Prints one row for each case."""
    seconds = seconds_from_arguments(30.0)
    table = Table(
        case=24,
        product=11,
        lipsdp=11,
        auto=11,
        best_known=11,
        ratio=9,
        published=11,
        witness=11,
        reached=11,
        lipsdp_s=9,
        auto_s=9,
    )
    for case in cases("global"):
        given = {name: answer(case, seconds=seconds, method=name) for name in METHODS}
        witnesses = [
            each.certificate.lower_bound.value
            for each in given.values()
            if each.certificate is not None and each.certificate.lower_bound is not None
        ]
        table.row(
            [
                case.name,
                *(each.refusal or each.bound for each in given.values()),
                case.best_known,
                ratio(given["auto"].bound, case.best_known),
                published(case),
                max(witnesses, default=None),
                case.lower_bound,
                given["lipsdp"].seconds,
                given["auto"].seconds,
            ]
        )


def published(case: Case) -> float | None:
    """The least bound of a peer."""
    bounds = [peer["bound"] for peer in case.peers if not peer["name"].endswith(NO_BOUNDS)]
    return min(bounds, default=None)


if __name__ == "__main__":
    main()
