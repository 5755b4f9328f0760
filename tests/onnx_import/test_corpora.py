"""The public models, where a checkout of the shared data is at hand ($LIPCERT_SHARED)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from verifier import check, parse_request, verify
from verifier.errors import ModelRefused
from verifier.onnx_import import load
from verifier.property import Names, Reading

SHARED = os.environ.get("LIPCERT_SHARED", "")
pytestmark = pytest.mark.skipif(
    not SHARED, reason="LIPCERT_SHARED does not name the folder of public models"
)

#: The outputs that are meant, where the file also has a label.
MEANT = {"skl_mlp_classifier.skl2onnx.onnx": ("output_probability",)}


def exports() -> list[dict[str, Any]]:
    if not SHARED:
        return []
    return json.loads((Path(SHARED) / "models/exports/index.json").read_text())


def answer(data: bytes, meant: tuple[str, ...] = ()) -> str:
    """`read`, or the code that takes the model away."""
    try:
        model = load(data, Reading(outputs=Names(meant)) if meant else None)
    except ModelRefused as refusal:
        return refusal.code
    reason = model.blocked or model.unbounded
    return "read" if reason is None else reason.code


@pytest.mark.parametrize("entry", exports(), ids=lambda entry: entry["file"])
def test_an_export_is_read_or_answered_by_what_is_known_of_it(entry: dict[str, Any]) -> None:
    data = (Path(SHARED) / "models/exports" / entry["file"]).read_bytes()
    found = answer(data, MEANT.get(entry["file"], ()))
    expected = {
        "discontinuous": {"discontinuous-op"},
        "invalid": {"invalid-attribute", "unsupported-op"},
        "lipschitz": {"read"},
        "not_lipschitz_globally": {"not-lipschitz-globally", "unsupported-op"},
    }[entry["global_l2"]]
    assert found in expected


@pytest.mark.parametrize("folder", ["yardsticks/onnx", "models"])
def test_no_public_model_is_read_as_another_function(folder: str) -> None:
    large = 1_000_000 if folder == "models" else sys.maxsize
    answers = {
        path.stem: answer(path.read_bytes())
        for path in sorted((Path(SHARED) / folder).glob("*.onnx"))
        if path.stat().st_size < large and "__light_" not in path.name
    }
    assert "import-mismatch" not in answers.values()
    assert sum(found == "read" for found in answers.values()) >= 0.7 * len(answers)


def test_hostile_files_are_answered_as_their_manifest_says(tmp_path: Path) -> None:
    script = Path(SHARED) / "hostile/make_hostile.py"
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True, capture_output=True)
    wrong: list[str] = []
    for entry in json.loads((tmp_path / "manifest.json").read_text()):
        name = entry["file"].removesuffix(".onnx")
        found = answer((tmp_path / entry["file"]).read_bytes())
        is_accepted = entry["expected"] == "accept"
        expected = "read" if is_accepted else entry["code"]
        if found != expected:
            wrong.append(f"{name}: {found} instead of {expected}")
    assert wrong == []


@pytest.mark.parametrize(
    "entry",
    [e for e in exports() if e["idealised_l2"] is not None],
    ids=lambda entry: entry["file"],
)
def test_a_file_that_jumps_by_a_rounding_has_the_constant_of_what_is_meant(
    entry: dict[str, Any],
) -> None:
    data = (Path(SHARED) / "models/exports" / entry["file"]).read_bytes()
    found = verify(data, parse_request({"method": "product", "semantics": "real-idealised"}))
    assert check(found, data).valid
    assert found.claim.bound is not None
    assert entry["idealised_l2"] * (1 - 1e-7) <= found.claim.bound
    assert found.claim.bound <= entry["idealised_l2"] * (1 + 1e-3)
    assert all(one.relative <= 1e-7 for one in found.claim.idealised)
