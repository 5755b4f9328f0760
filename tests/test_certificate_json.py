"""Certificates: the JSON reads back as itself, and nothing that the format lacks is accepted."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from verifier.certificate import (
    Attempt,
    BlockNorm,
    CentersProof,
    Certificate,
    Claim,
    Entries,
    FactorNorm,
    ForwardProof,
    GateLmiProof,
    ItemBound,
    Lines,
    LmiItem,
    LmiProof,
    LmiRow,
    PairCuts,
    Passage,
    Pattern,
    ProductItem,
    ProductProof,
    Proof,
    PropagationProof,
    RecursionProof,
    Single,
    SlopeRange,
    SplitProof,
    TorusProof,
    Tree,
    TreeItem,
    TreeProof,
    Witness,
    decimal_lower,
    decimal_upper,
    log10_upper,
    verdict_of,
)
from verifier.certificate_json import certificate_id, certificate_json, certificate_text
from verifier.certificate_reader import parse_certificate
from verifier.certificate_shapes import MalformedCertificate
from verifier.norms import Norm
from verifier.property import Each, Monotone, Property
from verifier.regions import CenterBox

PATTERNS = (Pattern(kind="maxmin", input="a", output="b"),)
ROW = LmiRow(
    output=None,
    level=1.5,
    input_multipliers=np.array([0.1, 0.2]),
    multipliers={"b": np.array([1.0, 0.1])},
)
REFINED = LmiRow(
    output=0,
    level=1.5,
    input_multipliers=None,
    multipliers={"b": np.array([1.0, 0.1])},
    cuts=(
        PairCuts(
            first="b",
            second="b",
            first_entries=(0, 1),
            second_entries=(1, 0),
            weights=np.arange(8.0),
        ),
    ),
    sort_blocks={"c": np.arange(10.0)},
)
FORWARD = ForwardProof(
    technique="linear", lines={"b": Lines(lower=np.array([0.0]), upper=np.array([1.0]))}
)
TREE = Tree(
    output=None,
    kinds=(0, 0, 1, 2, 3),
    gates=(1, 0),
    entries=(0, 1),
    places=np.array([0.0, 0.5]),
    weights=np.array([1.0, 0.25]),
    rows=(0,),
    levels=np.array([1.25]),
    scales=np.array([0.5]),
)
SINGLE: dict[str, Single] = {
    "product": ProductProof(
        patterns=PATTERNS,
        items=(
            ProductItem(
                internal=Norm.L2,
                blocks=(BlockNorm(target="b", source="", norm=1.25),),
                factors=(FactorNorm(node="c", norm=2.0),),
            ),
        ),
    ),
    "lmi": LmiProof(patterns=PATTERNS, items=(LmiItem(rows=(ROW, REFINED)),)),
    "propagation": PropagationProof(patterns=PATTERNS, forward=FORWARD, technique="interval"),
    "gate-lmi": GateLmiProof(
        patterns=PATTERNS,
        forward=FORWARD,
        slopes={"b": SlopeRange(lower=np.array([0.0]), upper=np.array([1.0]))},
        items=(LmiItem(rows=(ROW,)),),
    ),
    "block-recursion": RecursionProof(
        patterns=PATTERNS, inputs=np.array([0.5, 2.0]), scales={"b": np.array([1.0, 0.0])}
    ),
    "torus": TorusProof(
        patterns=PATTERNS,
        sides=(6, 8),
        scales={"b": np.array([1.0])},
        masks={"a": np.array([0.25])},
    ),
    "tree": TreeProof(
        patterns=PATTERNS,
        forward=FORWARD,
        gates=("", "b"),
        items=(TreeItem(rows=(ROW,), trees=(TREE,)), TreeItem(rows=(), trees=())),
    ),
}
SPLIT = SplitProof(
    patterns=PATTERNS,
    passages=(Passage(node="b", norm=Norm.LINF),),
    parts=(SINGLE["gate-lmi"], SINGLE["product"]),
    forward=FORWARD,
)
PROOFS: dict[str, Proof] = {
    **SINGLE,
    "split": SPLIT,
    "centers": CentersProof(
        patterns=PATTERNS, parts=(SINGLE["propagation"], SINGLE["gate-lmi"], SPLIT)
    ),
}

SCHEMA = Draft202012Validator(
    json.loads(
        (Path(__file__).parents[1] / "verifier/schemas/certificate.json").read_text(
            encoding="utf-8"
        )
    )
)

Members = Any  # a JSON object that a test is about to spoil


def certificate(proof: Proof = PROOFS["product"]) -> Certificate:
    asked = Property(
        scope="local", region=CenterBox(center=(0.5, 0.5), radius=0.25), outputs=Each()
    )
    return Certificate(
        claim=Claim(
            model="sha256:" + "0" * 64,
            property=asked,
            bound=2.5,
            log10_bound=log10_upper(2.5),
            bounds=(ItemBound(bound=2.5, output=0), ItemBound(bound=None, output=1)),
        ),
        proof=proof,
        lower_bound=Witness(value=1.0, x=(0.5, 0.5), y=(0.5, 0.75), item=0),
        target=3.0,
        verdict="certified",
        attempts=(Attempt(method="product", bound=2.5, seconds=0.1),),
        producer={"version": "0"},
        resources={"seconds": 0.1},
    )


@pytest.mark.parametrize("kind", PROOFS)
def test_text_reads_back_as_itself(kind: str) -> None:
    text = certificate_text(certificate(PROOFS[kind]))
    again = parse_certificate(text)
    assert certificate_text(again) == text
    assert again.proof.kind == kind
    SCHEMA.validate(json.loads(text))


SIGN = Monotone(input=1, output=0, direction="decreasing")
ENTRIES: dict[str, Certificate] = {
    "jacobian": replace(
        certificate(PROOFS["propagation"]),
        claim=Claim(
            model="sha256:" + "0" * 64,
            property=Property(kind="jacobian"),
            bound=None,
            log10_bound=None,
            entries=Entries(shape=(1, 2), lower=(-0.5, 0.0), upper=(0.0, 0.1)),
        ),
        lower_bound=None,
        target=None,
        verdict=None,
    ),
    "monotone": replace(
        certificate(PROOFS["propagation"]),
        claim=Claim(
            model="sha256:" + "0" * 64,
            property=Property(kind="monotone", monotone=SIGN),
            bound=None,
            log10_bound=None,
        ),
        lower_bound=Witness(value=1.0, x=(0.5, 0.5), y=(0.5, 0.75)),
        target=None,
        verdict="violated",
    ),
}


@pytest.mark.parametrize("kind", ENTRIES)
def test_kinds_about_entries_read_back_as_themselves(kind: str) -> None:
    text = certificate_text(ENTRIES[kind])
    again = parse_certificate(text)
    assert certificate_text(again) == text
    assert again.claim == ENTRIES[kind].claim
    SCHEMA.validate(json.loads(text))
    assert json.loads(text)["claim"]["norm"] is None


@pytest.mark.parametrize("shape", [[], [1], [1, 2, 1], 2, [1, -2]])
def test_shape_of_a_matrix_has_two_sizes(shape: object) -> None:
    members = json.loads(certificate_text(ENTRIES["jacobian"]))
    members["claim"]["bounds"]["shape"] = shape
    with pytest.raises(MalformedCertificate, match="shape"):
        parse_certificate(json.dumps(members))


def test_claim_of_a_bound_names_no_sign() -> None:
    """What was written before has no such member, and its id is that of then."""
    members = json.loads(certificate_text(certificate()))
    assert "monotone" not in members["claim"]
    members["claim"]["monotone"] = None
    with pytest.raises(MalformedCertificate, match="canonical"):
        parse_certificate(json.dumps(members))


@pytest.mark.parametrize("labels", [{"center": 1}, {"center": 0, "margin": [1, 0]}])
def test_items_around_centers_read_back_as_themselves(labels: dict[str, object]) -> None:
    members = json.loads(certificate_text(certificate(PROOFS["centers"])))
    item = {**labels, "bound": 2.5, "bound_hex": (2.5).hex()}
    members["claim"]["bounds"] = [item]
    SCHEMA.validate(members)
    with pytest.raises(MalformedCertificate, match="id"):
        parse_certificate(json.dumps(members))
    members["claim"]["bounds"] = [{"bound": 2.5, "bound_hex": (2.5).hex()}]
    with pytest.raises(MalformedCertificate, match="which item"):
        parse_certificate(json.dumps(members))


def test_part_of_a_proof_has_no_patterns_and_no_parts() -> None:
    members = json.loads(certificate_text(certificate(PROOFS["centers"])))
    part = members["proof"]["parts"][0]
    for spoilt in ({**part, "patterns": []}, {"kind": "centers", "parts": [part]}):
        members["proof"]["parts"] = [spoilt]
        assert not SCHEMA.is_valid(members)
        with pytest.raises(MalformedCertificate):
            parse_certificate(json.dumps(members))


def test_arrays_keep_every_bit() -> None:
    values = np.array([5e-324, -0.0, 1.7976931348623157e308, 0.1])
    row = LmiRow(output=0, level=1.0, input_multipliers=values, multipliers={})
    proof = LmiProof(patterns=(), items=(LmiItem(rows=(row,)),))
    again = parse_certificate(certificate_text(certificate(proof))).proof
    assert isinstance(again, LmiProof)
    read = again.items[0].rows[0].input_multipliers
    assert read is not None
    assert read.tobytes() == values.tobytes()


def test_id_covers_the_claim_and_not_the_run() -> None:
    members = certificate_json(certificate())
    members["attempts"], members["resources"] = [], {}
    assert certificate_id(parse_certificate(json.dumps(members))) == members["id"]


def spoil(change: Callable[[Members], object]) -> str:
    """The text of a certificate after a change, its id put right again where that can be."""
    members = copy.deepcopy(certificate_json(certificate(PROOFS["gate-lmi"])))
    change(members)
    return json.dumps(members)


def put(path: str, value: object) -> Callable[[Members], object]:
    *parents, last = path.split("/")

    def change(members: Members) -> None:
        for name in parents:
            members = members[int(name) if name.isdigit() else name]
        members[last] = value

    return change


def drop(path: str) -> Callable[[Members], object]:
    *parents, last = path.split("/")

    def change(members: Members) -> None:
        for name in parents:
            members = members[name]
        del members[last]

    return change


@pytest.mark.parametrize(
    "change",
    [
        put("format", "lipcert/2"),
        put("extra", 1),
        put("id", "sha256:" + "0" * 64),
        put("claim/bound", 2.0),
        put("claim/bound_hex", "0x1p+0"),
        put("claim/log10_bound", float("inf")),
        put("claim/semantics", "float"),
        put("claim/assumptions", [{"code": "trust-me"}]),
        put("claim/norm", "l2"),
        put("claim/scope", "global"),
        put("claim/kind", "monotone"),
        put("claim/region/radius", 0.5),
        put("claim/region/radius", 0),
        put("claim/bounds/0/bound", 1.0),
        put("claim/bounds/0/margin", [0, 1]),
        put("lower_bound/value", "1"),
        put("lower_bound/value", True),
        put("target", {"upper": 1.0}),
        put("target", 3.0),
        put("verdict", "proved"),
        put("soundness", "numerical"),
        put("soundness", []),
        put("proof", {"kind": "trust"}),
        put("proof/kind", "lmi"),
        put("proof/technique", "linear"),
        put("proof/forward/technique", "crown"),
        put("proof/patterns/0/kind", "sort"),
        put("proof/items/0/rows/0/level", None),
        put("proof/items/0/rows/0/multipliers/b/length", 3),
        put("proof/items/0/rows/0/multipliers/b/sha256", "0"),
        put("proof/items/0/rows/0/multipliers/b/float64", "AAAA"),
        put("proof/items/0/rows/0/multipliers/b/float64", "not base64"),
        put("attempts", {}),
        put("producer", []),
        drop("verdict"),
        drop("claim/inputs"),
    ],
)
def test_altered_certificate_is_malformed(change: Callable[[Members], object]) -> None:
    with pytest.raises(MalformedCertificate):
        parse_certificate(spoil(change))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"[1]",
        b"null",
        b"\xff\xfe",
        b'{"format": 1, "format": 2}',
        b'{"format": NaN}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_certificate_is_malformed(text: bytes) -> None:
    with pytest.raises(MalformedCertificate):
        parse_certificate(text)


@pytest.mark.parametrize("value", [0.1, 0.3, 1 / 3, 2.5, 1e300, 5e-324])
def test_decimals_keep_their_side(value: float) -> None:
    from fractions import Fraction

    assert Fraction(value) <= Fraction(repr(decimal_upper(value)))
    assert Fraction(repr(decimal_lower(value))) <= Fraction(value)


def test_log10_holds_beyond_float64() -> None:
    assert log10_upper(0.0) is None
    beyond = log10_upper(1.5, 5000)
    assert beyond is not None
    assert 1505.32 < beyond < 1505.33


@pytest.mark.parametrize(
    ("bound", "reached", "target", "verdict"),
    [
        (2.0, 1.0, None, None),
        (2.0, 1.0, 2.0, "certified"),
        (2.0, 1.0, 1.5, "undecided"),
        (2.0, 1.0, 0.5, "violated"),
        (2.0, None, 1.5, "undecided"),
        (None, 1.0, 0.5, "violated"),
    ],
)
def test_verdict_is_against_the_target(
    bound: float | None, reached: float | None, target: float | None, verdict: str | None
) -> None:
    witness = None if reached is None else Witness(value=reached, x=(0.0,), y=(1.0,))
    assert verdict_of(bound, witness, target) == verdict
