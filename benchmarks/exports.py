"""What torch's exporters write, layer by layer: `python -m benchmarks.exports FOLDER [NAME ...]`.

FOLDER holds ONNX files and index.json: a list of {file, layer, global_l2, exact_l2,
sampled_l2_lower_bound, ...}. Every file is certified in l2 everywhere, and its answer is compared
with what is known of it:

    a jump, no global constant, an invalid file     refused by the code that says so
    a Lipschitz function                            a bound; never below the sampled value, and at
                                                    most 1.001 times the exact one, where known
    one layer, two exporters                        products of norms equal to 1e-9, if both are
                                                    Lipschitz; what a search reaches in a given
                                                    time is not so exact

The last lines count the files that hold, and name every other with what is wrong. LIPCERT_SECONDS
is the budget of a file (10).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from benchmarks.table import Table
from verifier import LipcertError, check, parse_request, verify

Entry: TypeAlias = Mapping[str, Any]

ABOVE_EXACT: Final = 1e-3  #: how far above a known constant a bound may be
ALIKE: Final = 1e-9  #: how far apart the bounds of two exports of one function may be
#: Samples are of the layer that was exported; the file's weights are its float32 numbers.
SAMPLED: Final = 1e-7

CODES: Final[Mapping[str, frozenset[str]]] = {
    "discontinuous": frozenset({"discontinuous-op"}),
    "invalid": frozenset({"invalid-attribute"}),
    "not_lipschitz_globally": frozenset({"not-lipschitz-globally"}),
}
#: The outputs that are meant, where a file also has a label.
MEANT: Final[Mapping[str, object]] = {
    "skl_mlp_classifier.skl2onnx.onnx": {"names": ["output_probability"]}
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a file was answered."""

    bound: float | None
    code: str  #: empty where there is a bound
    where: str = ""
    product: float | None = None  #: the product's bound, which no search changes


def main() -> None:
    """Prints the table, and what does not hold."""
    folder, wanted = Path(sys.argv[1]), sys.argv[2:]
    entries = [
        entry
        for entry in json.loads((folder / "index.json").read_text())
        if not wanted or any(name in entry["file"] for name in wanted)
    ]
    table = Table(file=44, kind=13, exact=9, sampled=9, bound=10, answer=23, holds=6)
    answers: dict[str, Answer] = {}
    wrong: dict[str, str] = {}
    for entry in entries:
        name = entry["file"]
        found = answers[name] = answered((folder / name).read_bytes(), MEANT.get(name))
        deviation = what_is_wrong(entry, found)
        if deviation:
            wrong[name] = deviation
        table.row(
            [
                name,
                entry["global_l2"][:13],
                entry["exact_l2"],
                entry["sampled_l2_lower_bound"],
                found.bound,
                found.code,
                "no" if deviation else "yes",
            ]
        )
    wrong |= differing(entries, answers)
    sys.stdout.write(f"\n{len(entries) - len(wrong)} of {len(entries)} hold\n")
    for name, deviation in wrong.items():
        sys.stdout.write(f"{name}: {deviation}\n")


def answered(model: bytes, outputs: object = None) -> Answer:
    """The global l2 bound that is certified and checked again, or the code that takes it away."""
    seconds = float(os.environ.get("LIPCERT_SECONDS", "10"))
    asked = {"norm": "l2"} | ({} if outputs is None else {"outputs": outputs})
    request = parse_request({"property": asked, "budget": {"seconds": seconds}})
    try:
        certificate = verify(model, request)
    except LipcertError as error:
        return Answer(None, error.code, f"{error.node}: {error.detail}")
    verdict = check(certificate, model)
    products = [attempt.bound for attempt in certificate.attempts if attempt.method == "product"]
    code = "" if verdict.valid else "check-rejected"
    return Answer(certificate.claim.bound, code, product=products[0] if products else None)


def what_is_wrong(entry: Entry, found: Answer) -> str:
    """Empty where the answer is the one that is known."""
    if entry["global_l2"] != "lipschitz":
        fits = found.code in CODES[entry["global_l2"]]
        return "" if fits else f"{found.code or found.bound} ({found.where})"
    if found.bound is None or found.code:
        return f"{found.code} ({found.where})"
    sampled, exact = entry["sampled_l2_lower_bound"], entry["exact_l2"]
    if sampled is not None and found.bound < sampled * (1 - SAMPLED):
        return f"UNSOUND: {found.bound!r} < {sampled!r}, which was sampled"
    if exact is not None and exact * (1 + ABOVE_EXACT) < found.bound:
        return f"{found.bound / exact - 1:.2g} above the exact constant"
    return ""


def differing(entries: Sequence[Entry], answers: Mapping[str, Answer]) -> dict[str, str]:
    """Exports of one layer whose products of norms are not the same, by the later file."""
    first: dict[str, str] = {}
    found: dict[str, str] = {}
    for name, layer in _certified(entries, answers):
        other = first.setdefault(layer, name)
        one, two = answers[name].product, answers[other].product
        if one is not None and two is not None and ALIKE * min(one, two) < abs(one - two):
            found[name] = f"{one!r}, but {other} {two!r}"
    return found


def _certified(entries: Iterable[Entry], answers: Mapping[str, Answer]) -> list[tuple[str, str]]:
    return [
        (entry["file"], entry["layer"])
        for entry in entries
        if entry["global_l2"] == "lipschitz" and answers[entry["file"]].bound is not None
    ]


if __name__ == "__main__":
    main()
