"""A certificate from its JSON. Strict: what the format does not know is rejected, with a place."""

import json
from collections.abc import Mapping
from typing import cast, get_args

from verifier import certificate_shapes as shapes
from verifier.certificate import (
    FORMAT,
    Assumption,
    Attempt,
    Certificate,
    Claim,
    Entries,
    Idealisation,
    Idealised,
    ItemBound,
    Soundness,
    Verdict,
    Witness,
    semantics_of,
)
from verifier.certificate_json import certificate_id
from verifier.certificate_shapes import MalformedCertificate
from verifier.errors import InvalidRequest, RegionEmptyInterior
from verifier.proof_reader import read_proof
from verifier.property import Property
from verifier.request_json import parse_property, property_json


def parse_certificate(text: bytes | str) -> Certificate:
    """The certificate that a JSON text states.

    Raises:
        MalformedCertificate: the text is not strict JSON, a member is unknown, missing or of the
            wrong type, an array's digest is wrong, or the id is not that of the content.
    """
    try:
        value = json.loads(text, object_pairs_hook=shapes.unique, parse_constant=shapes.no_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedCertificate(f"not strict JSON: {error}") from error
    return certificate_from_json(value)


def certificate_from_json(value: object) -> Certificate:
    """The certificate that a JSON value states. Raises as `parse_certificate` does."""
    members = shapes.exact(
        value,
        "certificate",
        "format id claim lower_bound target soundness verdict proof attempts producer resources",
        optional="report",
    )
    if members["format"] != FORMAT:
        raise MalformedCertificate(f"format is {members['format']!r}, this reader knows {FORMAT!r}")
    certificate = Certificate(
        claim=_claim(members["claim"]),
        proof=read_proof(members["proof"]),
        lower_bound=_witness(members["lower_bound"]),
        target=_target(members["target"]),
        verdict=cast(
            "Verdict | None",
            shapes.one_of(
                members["verdict"], ("certified", "violated", "undecided", None), "verdict"
            ),
        ),
        soundness=cast(
            "Soundness", shapes.one_of(members["soundness"], ("exact", "rigorous"), "soundness")
        ),
        attempts=shapes.listed(members["attempts"], "attempts", _attempt),
        producer=cast(
            "Mapping[str, str | int | None]", shapes.mapping(members["producer"], "producer")
        ),
        resources={
            name: shapes.number(value, f"resources.{name}")
            for name, value in shapes.mapping(members["resources"], "resources").items()
        },
        report=shapes.optional(members.get("report"), "report", shapes.mapping),
    )
    if certificate_id(certificate) != members["id"]:
        raise MalformedCertificate("the id is not that of the content")
    return certificate


def _claim(value: object) -> Claim:
    members = shapes.exact(
        value,
        "claim",
        "model kind scope norm region inputs outputs semantics bound bound_hex log10_bound"
        " assumptions bounds",
        optional="monotone bind idealised",
    )
    idealised = shapes.listed(members.get("idealised", []), "claim.idealised", _idealised)
    names = ("kind", "scope", "norm", "region", "inputs", "outputs", "monotone", "bind")
    asked = {name: members[name] for name in names if name in members}
    try:
        claimed: Property = parse_property(asked, "/claim")
    except (InvalidRequest, RegionEmptyInterior) as error:
        raise MalformedCertificate(str(error)) from error
    # Only the canonical form: otherwise one claim would have two ids.
    if property_json(claimed) != asked:
        raise MalformedCertificate("claim: not in canonical form")
    is_matrix = claimed.kind == "jacobian"
    bounds = None if is_matrix else members["bounds"]
    claim = Claim(
        model=shapes.text(members["model"], "claim.model"),
        property=claimed,
        bound=_bound(members, "claim"),
        log10_bound=shapes.optional(members["log10_bound"], "claim.log10_bound", shapes.number),
        bounds=None if bounds is None else shapes.listed(bounds, "claim.bounds", _item_bound),
        entries=_entries(members["bounds"]) if is_matrix else None,
        assumptions=shapes.listed(members["assumptions"], "claim.assumptions", _assumption),
        idealised=idealised,
    )
    # The list is there exactly under its semantics.
    if members["semantics"] != semantics_of(claim) or ("idealised" in members and not idealised):
        raise MalformedCertificate(f"claim.semantics {members['semantics']!r} does not fit")
    return claim


def _idealised(value: object, at: str) -> Idealised:
    members = shapes.exact(value, at, "node pattern deviation")
    deviation = shapes.exact(members["deviation"], f"{at}.deviation", "absolute relative")
    pattern = shapes.one_of(members["pattern"], get_args(Idealisation), f"{at}.pattern")
    return Idealised(
        node=shapes.text(members["node"], f"{at}.node"),
        pattern=cast("Idealisation", pattern),
        absolute=shapes.number(deviation["absolute"], f"{at}.deviation.absolute"),
        relative=shapes.number(deviation["relative"], f"{at}.deviation.relative"),
    )


def _assumption(value: object, at: str) -> Assumption:
    members = shapes.exact(value, at, "code node value")
    code, node, stored = (shapes.text(members[name], at) for name in ("code", "node", "value"))
    if code != "overridable-initializer":
        raise MalformedCertificate(f"{at}: this version knows no assumption {code!r}")
    return Assumption(code=code, node=node, value=stored)


def _entries(value: object) -> Entries:
    members = shapes.exact(value, "claim.bounds", "shape lower upper")
    rows, *columns = shapes.listed(members["shape"], "claim.bounds.shape", shapes.index) or (0,)
    if len(columns) != 1:
        raise MalformedCertificate("claim.bounds.shape: expected two sizes")
    return Entries(
        shape=(rows, columns[0]),
        lower=shapes.listed(members["lower"], "claim.bounds.lower", shapes.number),
        upper=shapes.listed(members["upper"], "claim.bounds.upper", shapes.number),
    )


def _item_bound(value: object, at: str) -> ItemBound:
    members = shapes.mapping(value, at)
    labels = [name for name in ("center", "output", "margin") if name in members]
    if not labels or {"output", "margin"} <= set(labels):
        raise MalformedCertificate(f"{at}: of which item is this?")
    members = shapes.exact(value, at, f"{' '.join(labels)} bound bound_hex")
    pair = shapes.listed(members.get("margin", [0, 0]), at, shapes.index)
    if len(pair) != 2:
        raise MalformedCertificate(f"{at}.margin: expected a pair")
    return ItemBound(
        bound=_bound(members, at),
        output=shapes.index(members["output"], at) if "output" in labels else None,
        margin=(pair[0], pair[1]) if "margin" in labels else None,
        center=shapes.index(members["center"], at) if "center" in labels else None,
    )


def _bound(members: shapes.Object, at: str) -> float | None:
    """`bound` and `bound_hex`, which have to say the same."""
    bound = shapes.optional(members["bound"], f"{at}.bound", shapes.number)
    if members["bound_hex"] != (None if bound is None else bound.hex()):
        raise MalformedCertificate(f"{at}: bound and bound_hex differ")
    return bound


def _witness(value: object) -> Witness | None:
    if value is None:
        return None
    members = shapes.exact(value, "lower_bound", "value witness item")
    pair = shapes.exact(members["witness"], "lower_bound.witness", "x y")
    return Witness(
        value=shapes.number(members["value"], "lower_bound.value"),
        x=shapes.listed(pair["x"], "lower_bound.witness.x", shapes.number),
        y=shapes.listed(pair["y"], "lower_bound.witness.y", shapes.number),
        item=shapes.optional(members["item"], "lower_bound.item", shapes.index),
    )


def _target(value: object) -> float | None:
    return (
        None
        if value is None
        else shapes.number(shapes.exact(value, "target", "upper")["upper"], "target")
    )


def _attempt(value: object, at: str) -> Attempt:
    members = shapes.exact(value, at, "method bound seconds")
    return Attempt(
        method=shapes.text(members["method"], at),
        bound=shapes.optional(members["bound"], at, shapes.number),
        seconds=shapes.number(members["seconds"], at),
    )
