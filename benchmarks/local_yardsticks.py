"""Local linf bounds against other tools: `python -m benchmarks.local_yardsticks [SECONDS]`.

The peer is the best bound that another tool gave at the root, without branching. Wanted: at most
that bound, times 1 + 1e-6 for peers that compute in float32.
"""

from __future__ import annotations

from benchmarks.table import Table
from benchmarks.yardsticks import Case, answer, cases, ratio, seconds_from_arguments


def main() -> None:
    """Prints one row for each case."""
    seconds = seconds_from_arguments(20.0)
    table = Table(
        case=32, bound=12, peer=12, ratio=10, best_known=12, reached=12, seconds=9, peer_s=9
    )
    for case in cases("local"):
        given = answer(case, seconds=seconds)
        peer_bound, peer_seconds = root_peer(case)
        table.row(
            [
                case.name,
                given.refusal or given.bound,
                peer_bound,
                ratio(given.bound, peer_bound),
                case.best_known,
                case.lower_bound,
                given.seconds,
                peer_seconds,
            ]
        )


def root_peer(case: Case) -> tuple[float | None, float | None]:
    """The least bound of a peer that does not branch, and its time."""
    rooted = [peer for peer in case.peers if "BaB" not in peer["name"]]
    if not rooted:
        return None, None
    best = min(rooted, key=lambda peer: peer["bound"])
    return best["bound"], best["seconds"]


if __name__ == "__main__":
    main()
