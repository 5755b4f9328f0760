"""The estimate: what cannot fit is refused before any work, what may fit never is."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from service import child_work
from verifier import entries, estimate
from verifier.errors import ModelRefused, TooLarge
from verifier.estimate import available_bytes, refuse_too_large
from verifier.methods import lipsdp, recursion
from verifier.methods.items import items_of
from verifier.methods.propagation.forward import BATCH_ENTRIES
from verifier.property import All, Each, Indices, Margins, Method, Outputs, Property, Request
from verifier.regions import EndsBox
from verifier.verify import inspect, verify

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("LIPCERT_SHARED", ROOT.parent / "shared"))
SMALL_MACHINE = 2 * 2**30

#: Not the large ones: importing them takes minutes, and is no matter of estimates.
MODELS = sorted(
    path
    for folder in (ROOT / "examples", SHARED / "models")
    for path in folder.glob("*.onnx")
    if "light" not in path.name
)
LOCAL = Property(scope="local", region=EndsBox(lower=(0.0,), upper=(1.0,)))


def summary(**sizes: object) -> dict[str, Any]:
    """What is said of a small model, with some sizes of another one."""
    small = {
        "signals": 40,
        "widest": 20,
        "convolutions": False,
        "inequality_rows": 20,
        "recursion_entries": 4000,
        "recursion_products": 10_000,
    }
    return {
        "input": {"size": sizes.pop("inputs", 10)},
        "output": {"size": sizes.pop("outputs", 10)},
        "parameters": sizes.pop("parameters", 300),
        "sizes": small | sizes,
    }


def test_the_limits_are_those_of_the_methods() -> None:
    assert estimate.LARGEST_XI == lipsdp.LARGEST_XI
    assert estimate.RECURSION_BYTES == recursion.MEMORY_BYTES
    assert estimate.MOST_ENTRIES == entries.MOST_ENTRIES
    assert estimate.BATCH_ENTRIES == BATCH_ENTRIES


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_nothing_that_is_certified_is_refused(path: Path) -> None:
    try:
        said = inspect(path.read_bytes())
    except ModelRefused:
        return  # of it nothing is estimated
    if said["sizes"] is None:
        return  # blocked, and said so by the job
    for asked in (Property(), LOCAL, Property(outputs=Margins(None)), Property(outputs=Each())):
        for method in ("auto", "product", "lipsdp", "propagation"):
            request = Request(property=asked, method=method)
            expected = estimate.estimate(request, said)
            assert expected is not None
            assert expected.least_bytes < expected.memory_bytes
            refuse_too_large(request, said, SMALL_MACHINE)


@pytest.mark.parametrize(
    "outputs", [All(), Indices((3, 5)), Each(), Margins(None), Margins(((0, 1), (2, 6)))], ids=str
)
def test_the_rows_that_select_outputs_are_counted_exactly(outputs: Outputs) -> None:
    asked = Property(outputs=outputs)
    expected = estimate.estimate(Request(property=asked), summary(outputs=7))
    assert expected is not None
    items = items_of(asked, 7)
    assert expected.output_bytes == sum(8 * item.rows.numel() for item in items)
    assert expected.bounds == len(items)


@pytest.mark.parametrize(
    ("sizes", "outputs", "said"),
    [
        ({"outputs": 10**5}, All(), "100000 selections of 100000 outputs"),
        ({"outputs": 2000}, Margins(None), "1999000 selections"),
        ({"parameters": 10**9}, All(), "the weights alone take 8.0 GB"),
    ],
)
@pytest.mark.parametrize("method", ["auto", "product", "lipsdp", "propagation"])
def test_what_no_method_holds_is_refused(
    method: Method, sizes: dict[str, object], outputs: Outputs, said: str
) -> None:
    request = Request(property=Property(outputs=outputs), method=method)
    with pytest.raises(TooLarge, match=said) as caught:
        refuse_too_large(request, summary(**sizes), SMALL_MACHINE)
    assert caught.value.fix
    refuse_too_large(request, summary(), SMALL_MACHINE)


def test_a_part_of_what_is_too_large_is_not() -> None:
    asked = Property(outputs=Indices((0, 99_999)))
    refuse_too_large(Request(property=asked), summary(outputs=10**5), SMALL_MACHINE)


def test_a_jacobian_that_cannot_be_listed_is_refused() -> None:
    asked = replace(LOCAL, kind="jacobian")
    with pytest.raises(TooLarge, match="9000000 entries"):
        refuse_too_large(Request(property=asked), summary(inputs=3000, outputs=3000), 2**40)


def test_semidefinite_methods_are_refused_only_where_no_way_of_solving_fits() -> None:
    large = {"inequality_rows": 40_000, "recursion_entries": 2 * 10**9}
    wide = Request(method="lipsdp")
    with pytest.raises(TooLarge, match=r"40010 rows.*16\.0 GB"):
        refuse_too_large(wide, summary(**large), 2**40)
    for fits in (
        {"recursion_entries": 10**8},
        {"inequality_rows": 6000},
        {"convolutions": True},
        {"inequality_rows": None, "recursion_entries": None},
    ):
        refuse_too_large(wide, summary(**large | fits), 2**40)
    refuse_too_large(Request(), summary(**large), 2**40)
    refuse_too_large(Request(method="lipsdp", property=LOCAL), summary(**large), 2**40)


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"sizes": None},
        summary() | {"parameters": True},
        summary() | {"output": []},
        summary(widest="many"),
        summary(signals=-1),
        summary(widest=10**400),
    ],
)
def test_a_summary_that_does_not_suffice_refuses_nothing(said: dict[str, object]) -> None:
    assert estimate.estimate(Request(), said) is None
    refuse_too_large(Request(), said, 0)


def test_the_run_refuses_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("verifier.verify"), "available_bytes", lambda: 1000)
    model = (ROOT / "examples" / "relu_mlp.onnx").read_bytes()
    told: list[object] = []
    with pytest.raises(TooLarge):
        verify(model, Request(), on_progress=told.append)
    assert told == []
    # What `lipcert certify` says: the same code, and that it was refused.
    request = {"property": {}, "method": "auto", "options": {}, "budget": {}, "target": None}
    child_work.work({"task": "certify", "request": request}, model, b"", told.append)
    (said,) = told
    assert isinstance(said, dict)
    assert said["failure"]["error"]["code"] == "too-large"
    assert said["failure"]["exit_code"] == 3


def test_there_is_memory() -> None:
    assert 2**28 < available_bytes()
