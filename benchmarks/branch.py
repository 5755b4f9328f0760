"""Branch and bound of local linf constants: `python -m benchmarks.branch [SECONDS]`.

Beside the bound stand the constant and the peers' best bound, rooted or
branched, with its time; peers were measured at the radii of the yardsticks only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from benchmarks.table import Table
from benchmarks.yardsticks import Case, answer, cases, ratio, seconds_from_arguments
from verifier.certificate import CUT, Certificate

EIGHT = 8 / 255
#: File, radius, and the constant.
WANTED: tuple[tuple[str, float, float], ...] = (
    ("mlp_2_16_2", 0.5, 7.473065),
    ("mlp_4_20_20_3", 0.05, 20.697911),
    ("mlp_4_20_20_3", 0.1, 29.527508),
    ("mlp_4_20_20_3", 0.3, 33.742736),
    ("mlp_8_12_12_4_rand", 0.1, 0.463691),
    ("mlp_8_12_12_4_rand", 1.0, 0.625224),
    ("mlp_16_32_32_10", EIGHT, 23.876200),
    ("digits_64_32_32_10", EIGHT, 268.737129),
    ("digits_64_32_32_10", 0.1, 300.950795),
    ("mlp_16_32_32_10", 0.1, 42.068911),
)
GAP = 1e-6


@dataclass(frozen=True, slots=True)
class Spent:
    """What an attempt took."""

    seconds: float
    leaves: int


def main() -> None:
    """Prints one row for each question."""
    seconds = seconds_from_arguments(60.0)
    table = Table(
        case=28, bound=12, reached=12, constant=12, ratio=12, leaves=8, branch_s=9, all_s=9,
        check_s=9, peer=10, peer_s=9,
    )  # fmt: skip
    known = cases("local")
    for name, radius, constant in WANTED:
        case = at_radius(known, name, radius)
        given = answer(case, seconds=seconds, gap=GAP)
        spent = spent_branching(given.certificate)
        lower = None if given.certificate is None else given.certificate.lower_bound
        peer_bound, peer_seconds = best_peer(known, name, radius)
        table.row(
            [
                f"{name}@{radius:.3g}",
                given.refusal or given.bound,
                None if lower is None else lower.value,
                constant,
                ratio(given.bound, constant),
                float(spent.leaves),
                spent.seconds,
                given.seconds,
                given.check_seconds,
                peer_bound,
                peer_seconds,
            ]
        )


def at_radius(known: list[Case], name: str, radius: float) -> Case:
    """The question of a file at its own center, whatever the radius of the yardstick."""
    case = next(case for case in known if case.name.startswith(f"{name}@"))
    asked = case.request["property"]
    region: Mapping[str, object] = {**asked["region"], "radius": radius}
    return replace(
        case, name=f"{name}@{radius:.3g}", request={"property": {**asked, "region": region}}
    )


def spent_branching(certificate: Certificate | None) -> Spent:
    """The seconds of the last tier, its check included, and the leaves of its trees."""
    if certificate is None:
        return Spent(0.0, 0)
    seconds = sum(a.seconds for a in certificate.attempts if a.method == "branch")
    proof = certificate.proof
    trees = [tree for item in proof.items for tree in item.trees] if proof.kind == "tree" else []
    return Spent(seconds, sum(tree.kinds.count(CUT) + 1 for tree in trees))


def best_peer(known: list[Case], name: str, radius: float) -> tuple[float | None, float | None]:
    """The least bound of a peer at this radius, and its time."""
    peers = [
        peer
        for case in known
        if case.name.startswith(f"{name}@")
        and math.isclose(case.request["property"]["region"]["radius"], radius)
        for peer in case.peers
    ]
    if not peers:
        return None, None
    best = min(peers, key=lambda peer: peer["bound"])
    return best["bound"], best["seconds"]


if __name__ == "__main__":
    main()
