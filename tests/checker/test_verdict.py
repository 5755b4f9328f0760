from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.checker.oracles import dense_network
from tests.checker.recursions import reference
from tests.checker.trees import tree_proof
from verifier.canonical_json import content_id
from verifier.certificate import (
    BlockNorm,
    Certificate,
    Claim,
    FactorNorm,
    ForwardProof,
    GateLmiProof,
    ItemBound,
    LmiItem,
    LmiProof,
    LmiRow,
    Pattern,
    ProductItem,
    ProductProof,
    Proof,
    PropagationProof,
    RecursionProof,
    SlopeRange,
    Witness,
    decimal_upper,
    log10_upper,
    verdict_of,
)
from verifier.certificate_json import certificate_json, certificate_text
from verifier.certificate_reader import certificate_from_json, parse_certificate
from verifier.certificate_shapes import MalformedCertificate
from verifier.checker import Verdict, api, check_raised
from verifier.checker import verdict as verdict_module
from verifier.checker.items import Selection
from verifier.checker.network import Network
from verifier.checker.verdict import judge
from verifier.norms import Norm, NormPair
from verifier.property import Each, Margins, Outputs, Property, Reading
from verifier.regions import CenterBox

RNG = np.random.default_rng(20)
WEIGHTS = [RNG.standard_normal((5, 3)), RNG.standard_normal((4, 5)), RNG.standard_normal((2, 4))]
BIASES = [RNG.standard_normal(5), RNG.standard_normal(4), RNG.standard_normal(2)]
MODEL = "sha256:" + "0" * 64
L2 = NormPair(Norm.L2, Norm.L2)
LINF = NormPair(Norm.LINF, Norm.LINF)
BOX = CenterBox(center=(0.25, -0.5, 1.0), radius=0.25)


def toy() -> Network:
    return dense_network(WEIGHTS, BIASES)


def product_proof() -> ProductProof:
    norms = [float(np.linalg.norm(w, 2)) * (1 + 1e-9) for w in WEIGHTS]
    names = (("h0", ""), ("h1", "h0"), ("", "h1"))
    blocks = tuple(
        BlockNorm(target=t, source=s, norm=n) for (t, s), n in zip(names, norms, strict=True)
    )
    return ProductProof(
        patterns=(),
        items=(ProductItem(internal=Norm.L2, blocks=blocks, factors=()),),
    )


def lmi_rows() -> tuple[LmiRow, ...]:
    """A chain's feasible start: lambda_l = r T_l (1+1/D)^(D-l), rho = product^2 (1+1/D)^D."""
    norms = [float(np.linalg.norm(w, 2)) * (1 + 1e-9) for w in WEIGHTS]
    growth = 1 + 1 / 3
    tails = [norms[1] ** 2 * norms[2] ** 2, norms[2] ** 2]
    return (
        LmiRow(
            output=None,
            level=math.prod(n * n for n in norms) * growth**3,
            input_multipliers=None,
            multipliers={
                "h0": np.full(5, tails[0] / 2 * growth**2),
                "h1": np.full(4, tails[1] / 2 * growth),
            },
        ),
    )


def gate_proof() -> GateLmiProof:
    return GateLmiProof(
        patterns=(),
        forward=ForwardProof(technique="linear"),
        slopes={
            "h0": SlopeRange(lower=np.zeros(5), upper=np.ones(5)),
            "h1": SlopeRange(lower=np.zeros(4), upper=np.ones(4)),
        },
        items=(LmiItem(rows=lmi_rows()),),
    )


PROOFS: dict[str, tuple[Proof, Property]] = {
    "product": (product_proof(), Property(norm=L2)),
    "lmi": (LmiProof(patterns=(), items=(LmiItem(rows=lmi_rows()),)), Property(norm=L2)),
    "gate-lmi": (gate_proof(), Property(scope="local", region=BOX, norm=L2)),
    "propagation": (
        PropagationProof(patterns=(), forward=ForwardProof(technique="linear"), technique="linear"),
        Property(scope="local", region=BOX, norm=LINF),
    ),
    "tree": (
        tree_proof(toy(), BOX, [(0, 1)]),
        Property(scope="local", region=BOX, norm=LINF),
    ),
    "block-recursion": (
        RecursionProof(patterns=(), inputs=None, scales=reference(toy()).scales),
        Property(norm=L2),
    ),
}


def claimed(proof: Proof, asked: Property, bound: float, **more: Any) -> Certificate:  # noqa: ANN401 (members of many types)
    return Certificate(
        claim=Claim(model=MODEL, property=asked, bound=bound, log10_bound=log10_upper(bound)),
        proof=proof,
        **more,
    )


def valid(kind: str) -> Certificate:
    """A certificate with a target, a verdict and a witness, claimed at what its proof proves."""
    proof, asked = PROOFS[kind]
    proved = judge(claimed(proof, asked, 1e-3), toy()).proved
    assert proved is not None
    bound = decimal_upper(proved[0])
    witness = Witness(value=0.001, x=(0.25, -0.5, 1.0), y=(0.25, -0.25, 1.0))
    return claimed(
        proof,
        asked,
        bound,
        lower_bound=witness,
        target=bound * 2,
        verdict=verdict_of(bound, witness, bound * 2),
    )


@pytest.mark.parametrize("kind", PROOFS)
def test_a_true_certificate_is_valid(kind: str) -> None:
    verdict = judge(valid(kind), toy())
    assert (verdict.code, verdict.valid) == ("valid", True), verdict.reason
    assert verdict.proved is not None
    assert verdict.log10 == log10_upper(verdict.proved[0])


@pytest.mark.parametrize("share", [0.9, 1 - 1e-6, 1 - 1e-12])
@pytest.mark.parametrize("kind", PROOFS)
def test_a_lying_bound_is_rejected_and_the_proved_one_is_told(kind: str, share: float) -> None:
    true = valid(kind)
    assert true.claim.bound is not None
    proof, asked = PROOFS[kind]
    verdict = judge(claimed(proof, asked, true.claim.bound * share), toy())
    assert verdict.code == "bound-not-proved"
    assert verdict.proved is not None
    assert verdict.proved[0] <= true.claim.bound


@pytest.mark.parametrize("kind", PROOFS)
def test_one_bit_less_than_is_proved_is_rejected(kind: str) -> None:
    true = valid(kind)
    assert true.claim.bound is not None
    proof, asked = PROOFS[kind]
    proved = judge(true, toy()).proved
    assert proved is not None
    verdict = judge(claimed(proof, asked, math.nextafter(proved[0], 0)), toy())
    assert verdict.code == "bound-not-proved"


Edit = Callable[[Certificate], Certificate]


def with_claim(**changes: Any) -> Edit:  # noqa: ANN401 (members of many types)
    return lambda c: replace(c, claim=replace(c.claim, **changes))


def bound_of(certificate: Certificate) -> float:
    assert certificate.claim.bound is not None
    return certificate.claim.bound


CLAIM_EDITS: dict[str, Edit] = {
    "bound zero": with_claim(bound=0.0, log10_bound=None),
    "bound -0": with_claim(bound=-0.0, log10_bound=None),
    "bound negative": with_claim(bound=-1.0),
    "bound nan": with_claim(bound=math.nan),
    "bound infinite": with_claim(bound=math.inf),
    "bound missing": with_claim(bound=None),
    "bound missing, logarithm small": with_claim(bound=None, log10_bound=1.0),
    "logarithm missing": with_claim(log10_bound=None),
    "logarithm nan": with_claim(log10_bound=math.nan),
    "logarithm one bit down": lambda c: with_claim(
        log10_bound=math.nextafter(log10_upper(bound_of(c)) or 0.0, -math.inf)
    )(c),
    "logarithm one bit up": lambda c: with_claim(
        log10_bound=math.nextafter(log10_upper(bound_of(c)) or 0.0, math.inf)
    )(c),
    "list out of nowhere": with_claim(bounds=(ItemBound(bound=1e9, output=0),)),
    "target below the bound": lambda c: replace(c, target=bound_of(c) / 2),
    "target missing": lambda c: replace(c, target=None),
    "target negative": lambda c: replace(c, target=-1.0),
    "target nan": lambda c: replace(c, target=math.nan),
    "verdict violated": lambda c: replace(c, verdict="violated"),
    "verdict undecided": lambda c: replace(c, verdict="undecided"),
    "verdict missing": lambda c: replace(c, verdict=None),
    "soundness exact": lambda c: replace(c, soundness="exact"),
    "witness too good": lambda c: replace(
        c, lower_bound=Witness(value=bound_of(c), x=(0.25, -0.5, 1.0), y=(0.25, -0.25, 1.0))
    ),
    "witness of one point": lambda c: replace(
        c, lower_bound=Witness(value=0.0, x=(0.25, -0.5, 1.0), y=(0.25, -0.5, 1.0))
    ),
    "witness too short": lambda c: replace(
        c, lower_bound=Witness(value=0.0, x=(0.25, -0.5), y=(0.25, -0.25))
    ),
    "witness nan": lambda c: replace(
        c, lower_bound=Witness(value=0.0, x=(0.25, math.nan, 1.0), y=(0.25, -0.25, 1.0))
    ),
    "witness value nan": lambda c: replace(
        c, lower_bound=Witness(value=math.nan, x=(0.25, -0.5, 1.0), y=(0.25, -0.25, 1.0))
    ),
    "witness value negative": lambda c: replace(
        c, lower_bound=Witness(value=-1.0, x=(0.25, -0.5, 1.0), y=(0.25, -0.25, 1.0))
    ),
    "witness of an item": lambda c: replace(
        c, lower_bound=Witness(value=0.001, x=(0.25, -0.5, 1.0), y=(0.25, -0.25, 1.0), item=0)
    ),
    "outputs each": lambda c: replace(
        c, claim=replace(c.claim, property=replace(c.claim.property, outputs=Each()))
    ),
}


@pytest.mark.parametrize("edit", CLAIM_EDITS)
@pytest.mark.parametrize("kind", PROOFS)
def test_a_claim_that_was_altered_is_rejected(kind: str, edit: str) -> None:
    altered = CLAIM_EDITS[edit](valid(kind))
    assert not judge(altered, toy()).valid


def with_blocks(change: Callable[[BlockNorm], BlockNorm]) -> Edit:
    def edit(certificate: Certificate) -> Certificate:
        proof = product_proof()
        item = replace(proof.items[0], blocks=tuple(change(b) for b in proof.items[0].blocks))
        return replace(certificate, proof=replace(proof, items=(item,)))

    return edit


def with_row(**changes: Any) -> Edit:  # noqa: ANN401 (members of many types)
    def edit(certificate: Certificate) -> Certificate:
        row = replace(lmi_rows()[0], **changes)
        return replace(certificate, proof=LmiProof(patterns=(), items=(LmiItem(rows=(row,)),)))

    return edit


def without_items(certificate: Certificate) -> Certificate:
    assert isinstance(certificate.proof, ProductProof | LmiProof | GateLmiProof)
    return replace(certificate, proof=replace(certificate.proof, items=()))


def doubled_items(certificate: Certificate) -> Certificate:
    assert isinstance(certificate.proof, ProductProof | LmiProof | GateLmiProof)
    items = certificate.proof.items * 2
    return replace(certificate, proof=replace(certificate.proof, items=items))


PROOF_EDITS: dict[str, tuple[str, Edit]] = {
    "product without items": ("product", without_items),
    "product with two items": ("product", doubled_items),
    "product with larger norms": (
        "product",
        with_blocks(lambda b: replace(b, norm=b.norm * (1 + 1e-9))),
    ),
    "product with another internal norm": (
        "product",
        lambda c: replace(
            c, proof=replace(product_proof(), items=(ProductItem(internal=Norm.L1),))
        ),
    ),
    "lmi without items": ("lmi", without_items),
    "lmi with two items": ("lmi", doubled_items),
    "lmi with a higher level": ("lmi", with_row(level=lmi_rows()[0].level * 1.001)),
    "lmi with a level of nan": ("lmi", with_row(level=math.nan)),
    "lmi with no multipliers": ("lmi", with_row(multipliers={})),
    "lmi with negative multipliers": (
        "lmi",
        with_row(multipliers={"h0": -np.ones(5), "h1": -np.ones(4)}),
    ),
    "lmi with input multipliers": ("lmi", with_row(input_multipliers=np.ones(3))),
    "lmi of one output only": ("lmi", with_row(output=0)),
    "gate-lmi without items": ("gate-lmi", without_items),
    "gate-lmi for a global claim": (
        "gate-lmi",
        lambda c: replace(c, claim=replace(c.claim, property=Property(norm=L2))),
    ),
    "propagation for a global claim": (
        "propagation",
        lambda c: replace(c, claim=replace(c.claim, property=Property(norm=LINF))),
    ),
    "propagation by intervals": (
        "propagation",
        lambda c: replace(
            c,
            proof=PropagationProof(
                patterns=(), forward=ForwardProof(technique="interval"), technique="interval"
            ),
        ),
    ),
}


@pytest.mark.parametrize("edit", PROOF_EDITS)
def test_a_proof_that_was_altered_is_rejected(edit: str) -> None:
    kind, change = PROOF_EDITS[edit]
    assert not judge(change(valid(kind)), toy()).valid


@pytest.mark.parametrize("share", [0.0, 0.5, 1 - 1e-6, 1 - 1e-12])
def test_norms_that_are_too_small_do_not_lower_what_is_proved(share: float) -> None:
    true = valid("product")
    altered = with_blocks(lambda b: replace(b, norm=b.norm * share))(true)
    smaller = claimed(altered.proof, true.claim.property, bound_of(true) * (1 - 1e-7))
    assert not judge(smaller, toy()).valid


def test_factors_prove_the_product_too() -> None:
    """One operator each: the same norms, named by the tensors that leave the operators."""
    norms = [float(np.linalg.norm(w, 2)) * (1 + 1e-9) for w in WEIGHTS]
    factors = tuple(FactorNorm(node=f"z{i}", norm=n) for i, n in enumerate(norms))
    proof = ProductProof(patterns=(), items=(ProductItem(internal=Norm.L2, factors=factors),))
    bound = decimal_upper(math.prod(norms) * (1 + 1e-12))
    assert judge(claimed(proof, Property(norm=L2), bound), toy()).valid


@pytest.mark.parametrize("kind", PROOFS)
def test_the_proof_of_another_network_is_rejected(kind: str) -> None:
    # The multipliers here leave room for weights that are a little larger.
    grown = [w * (2.0 if "lmi" in kind else 1 + 1e-6) for w in WEIGHTS]
    assert not judge(valid(kind), dense_network(grown, BIASES)).valid


@pytest.mark.parametrize("kind", PROOFS)
def test_a_network_of_other_sizes_is_rejected(kind: str) -> None:
    wide = [np.ones((5, 4)), np.ones((4, 5)), np.ones((2, 4))]
    assert not judge(valid(kind), dense_network(wide)).valid


def of_list(outputs: Outputs, labels: tuple[ItemBound, ...]) -> Certificate:
    proof, asked = PROOFS["propagation"]
    bounds = tuple(replace(label, bound=1e3) for label in labels)
    return Certificate(
        claim=Claim(
            model=MODEL,
            property=replace(asked, outputs=outputs),
            bound=1e3,
            log10_bound=log10_upper(1e3),
            bounds=bounds,
        ),
        proof=proof,
    )


def test_lists_are_valid_in_their_order_only() -> None:
    right = of_list(Each(), (ItemBound(bound=None, output=0), ItemBound(bound=None, output=1)))
    assert judge(right, toy()).valid
    bounds = right.claim.bounds
    assert bounds is not None
    for wrong in (bounds[::-1], bounds[:1], (*bounds, bounds[0]), None):
        altered = replace(right, claim=replace(right.claim, bounds=wrong))
        assert judge(altered, toy()).code == "inconsistent"
    low = (bounds[0], replace(bounds[1], bound=1e-9))
    assert (
        judge(replace(right, claim=replace(right.claim, bounds=low)), toy()).code
        == "bound-not-proved"
    )
    high = (bounds[0], replace(bounds[1], bound=1e4))
    assert (
        judge(replace(right, claim=replace(right.claim, bounds=high)), toy()).code == "inconsistent"
    )


def test_margins_are_valid_with_their_pairs_only() -> None:
    right = of_list(Margins(((1, 0),)), (ItemBound(bound=None, margin=(1, 0)),))
    assert judge(right, toy()).valid
    wrong = of_list(Margins(((1, 0),)), (ItemBound(bound=None, margin=(0, 1)),))
    assert judge(wrong, toy()).code == "inconsistent"
    beyond = of_list(Margins(((1, 2),)), (ItemBound(bound=None, margin=(1, 2)),))
    assert judge(beyond, toy()).code == "invalid-request"


def test_deep_product_overflows_to_log10() -> None:
    """Forty layers of norm 1e20: the bound is null, and its logarithm 800 is proved."""
    deep = dense_network([np.array([[1e20]])] * 40)
    proof = ProductProof(patterns=(), items=(ProductItem(internal=Norm.L2),))
    claim = Claim(model=MODEL, property=Property(norm=L2), bound=None, log10_bound=800.0001)
    assert judge(Certificate(claim=claim, proof=proof), deep).valid
    low = replace(claim, log10_bound=799.9999)
    verdict = judge(Certificate(claim=low, proof=proof), deep)
    assert verdict.code == "bound-not-proved"
    assert verdict.proved == (math.inf,)
    assert verdict.log10 is not None
    assert 800 <= verdict.log10 <= 800.0001


def test_bound_zero_has_no_log10() -> None:
    proof = ProductProof(patterns=(), items=(ProductItem(internal=Norm.L2),))
    assert judge(claimed(proof, Property(norm=L2), 0.0), dense_network([np.zeros((2, 3))])).valid


# --- The JSON text -------------------------------------------------------------------------------


def reidentified(members: dict[str, Any]) -> dict[str, Any]:
    """The members with the id of their content, so that more than the digest is tested."""
    covered = ("format", "claim", "target", "soundness", "verdict", "lower_bound", "proof")
    return {**members, "id": content_id({name: members[name] for name in covered})}


def numbers(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The paths of all numbers of a JSON value."""
    if isinstance(value, dict):
        return [p for k, v in value.items() for p in numbers(v, (*path, k))]
    if isinstance(value, list):
        return [p for k, v in enumerate(value) for p in numbers(v, (*path, k))]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return [path] if is_number else []


def verdict_of_json(members: dict[str, Any]) -> bool:
    try:
        return judge(certificate_from_json(reidentified(members)), toy()).valid
    except (MalformedCertificate, ValueError):
        return False


@pytest.mark.parametrize("kind", PROOFS)
def test_no_smaller_number_is_accepted_in_the_claim(kind: str) -> None:
    """Every number of the claim and of the target, made smaller, negated or no number."""
    members = json.loads(certificate_text(valid(kind)))
    for part in ("claim", "target", "lower_bound"):
        for path in numbers(members[part]):
            if path[:1] == ("property",) or "region" in path or "witness" in path:
                continue
            low = () if part == "lower_bound" else (0.5,)
            for value in (*low, -1.0, 1e308, True, "1", None):
                altered = copy.deepcopy(members)
                place: Any = altered[part]
                for step in path[:-1]:
                    place = place[step]
                place[path[-1]] = value
                assert not verdict_of_json(altered) or part == "target", (path, value)


@pytest.mark.parametrize("kind", PROOFS)
def test_unknown_and_missing_members_are_malformed(kind: str) -> None:
    members = json.loads(certificate_text(valid(kind)))
    for name in members:
        fewer = {key: value for key, value in members.items() if key != name}
        with pytest.raises(MalformedCertificate):
            certificate_from_json(fewer)
    with pytest.raises(MalformedCertificate):
        certificate_from_json({**members, "more": 1})
    for name in members["proof"]:
        altered = copy.deepcopy(members)
        del altered["proof"][name]
        assert not verdict_of_json(altered)


def test_a_duplicate_key_is_malformed() -> None:
    text = certificate_text(valid("product"))
    doubled = text.replace('"soundness"', '"soundness": "rigorous", "soundness"', 1)
    with pytest.raises(MalformedCertificate, match="twice"):
        parse_certificate(doubled)


@pytest.mark.parametrize("kind", PROOFS)
def test_the_json_of_a_valid_certificate_is_valid(kind: str) -> None:
    assert verdict_of_json(dict(certificate_json(valid(kind))))


@pytest.mark.parametrize("kind", ["lmi", "gate-lmi", "block-recursion"])
def test_no_byte_of_an_array_changes_unseen(kind: str) -> None:
    text = certificate_text(valid(kind))
    place = text.index('"float64": "') + len('"float64": "') + 5
    changed = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
    with pytest.raises(MalformedCertificate):
        parse_certificate(changed)


def test_a_proof_is_followed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim that is too small is raised to what the proof proves; another proof is followed."""
    model, honest, other = b"any", valid("product"), valid("lmi").proof
    followed: list[Certificate] = []
    follow = verdict_module.prove

    def counted(certificate: Certificate, network: Network, selected: Selection) -> Any:  # noqa: ANN401 (passed on)
        followed.append(certificate)
        return follow(certificate, network, selected)

    def any_model(_: Certificate, __: bytes) -> None:
        """The toy has no file."""

    def toy_network(_: bytes, __: Sequence[Pattern], ___: Reading) -> Network:
        return toy()

    monkeypatch.setattr(verdict_module, "prove", counted)
    monkeypatch.setattr(api, "_require_model", any_model)
    monkeypatch.setattr(api, "read_network", toy_network)
    small = claimed(honest.proof, honest.claim.property, 1e-3)

    raised, verdict = check_raised(small, model, lambda word: _claiming(small, word))
    assert verdict.valid
    assert raised.claim.bound == honest.claim.bound
    assert len(followed) == 1

    def lying(word: Verdict) -> Certificate:
        assert word.proved is not None
        return claimed(other, honest.claim.property, 1e-3)

    assert not check_raised(small, model, lying)[1].valid
    assert len(followed) == 3


def _claiming(certificate: Certificate, word: Verdict) -> Certificate:
    assert word.proved is not None
    bound = decimal_upper(word.proved[0])
    claim = replace(certificate.claim, bound=bound, log10_bound=log10_upper(bound))
    return replace(certificate, claim=claim)
