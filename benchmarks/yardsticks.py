"""The yardsticks: networks with known numbers, from the folder that LIPCERT_SHARED names."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from verifier import LipcertError, check, parse_request, verify
from verifier.certificate import Certificate

Json = Mapping[str, Any]  # one object of the index


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One question with what is known of its answer."""

    name: str
    model: bytes
    request: Json
    best_known: float | None
    lower_bound: float | None  #: reached: a bound below it is false
    product_bound: float | None
    peers: Sequence[Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What lipcert answered, and how long finding and checking took."""

    certificate: Certificate | None
    seconds: float
    check_seconds: float
    refusal: str = ""

    @property
    def bound(self) -> float | None:
        """The proved bound."""
        return None if self.certificate is None else self.certificate.claim.bound


def cases(scope: str) -> list[Case]:
    """All cases of a scope whose norm a property can name; ends the program without the folder."""
    shared = os.environ.get("LIPCERT_SHARED")
    if shared is None or not Path(shared, "yardsticks").is_dir():
        sys.exit("set LIPCERT_SHARED to the folder that holds yardsticks/")
    folder = Path(shared, "yardsticks")
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))["cases"]
    return [
        _case(entry, folder)
        for entry in index
        if entry["property"]["scope"] == scope and entry["property"]["norm"] is not None
    ]


def _case(entry: Json, folder: Path) -> Case:
    asked = {name: value for name, value in entry["property"].items() if value is not None}
    if "region" in asked:
        center = np.load(folder / asked["region"]["center"]).astype(np.float64)
        asked["region"] = {**asked["region"], "center": center.ravel().tolist()}
    return Case(
        name=entry["id"],
        model=(folder / entry["file"]).read_bytes(),
        request={"property": asked},
        best_known=entry["best_known"],
        lower_bound=entry["lower_bound"],
        product_bound=entry["product_bound"],
        peers=entry["peers"] or (),
    )


def answer(case: Case, *, seconds: float, method: str = "auto", gap: float = 1e-4) -> Answer:
    """Certifies a case in this process and checks the certificate again."""
    request = parse_request(
        {**case.request, "method": method, "budget": {"seconds": seconds, "gap": gap}}
    )
    started = time.perf_counter()
    try:
        certificate = verify(case.model, request)
    except LipcertError as error:
        spent = time.perf_counter() - started
        return Answer(certificate=None, seconds=spent, check_seconds=0.0, refusal=error.code)
    found = time.perf_counter()
    verdict = check(certificate, case.model)
    checked = time.perf_counter()
    if not verdict.valid:
        sys.exit(f"{case.name}: the certificate is rejected: {verdict.reason}")
    return Answer(certificate=certificate, seconds=found - started, check_seconds=checked - found)


def ratio(ours: float | None, reference: float | None) -> float | None:
    """Ours over the reference; None where there is none."""
    return None if not reference or ours is None else ours / reference


def seconds_from_arguments(default: float) -> float:
    """The budget of each case: the first argument of the program, or the default."""
    return float(sys.argv[1]) if 1 < len(sys.argv) else default
