"""The certificate's JSON: what is written, and the id that names it. `certificate_reader` reads it.

Arrays of float64 travel as {"float64": base64 of the little-endian bytes, "length", "sha256"}.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias, cast

import numpy as np

from verifier.canonical_json import Json, content_id
from verifier.certificate import (
    FORMAT,
    CentersProof,
    Certificate,
    Claim,
    ForwardProof,
    GateLmiProof,
    Idealised,
    LmiItem,
    LmiProof,
    LmiRow,
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
    semantics_of,
)
from verifier.request_json import property_json

Array: TypeAlias = np.ndarray


def certificate_json(certificate: Certificate) -> dict[str, object]:
    """The certificate as JSON members, with its id."""
    return {
        **_identified(certificate),
        "id": certificate_id(certificate),
        "attempts": [
            {"method": a.method, "bound": a.bound, "seconds": a.seconds}
            for a in certificate.attempts
        ],
        "producer": dict(certificate.producer),
        "resources": dict(certificate.resources),
        **({} if certificate.report is None else {"report": dict(certificate.report)}),
    }


def certificate_text(certificate: Certificate) -> str:
    """The certificate as indented JSON text, with a final newline."""
    return json.dumps(certificate_json(certificate), indent=2, allow_nan=False) + "\n"


def certificate_id(certificate: Certificate) -> str:
    """`sha256:` of the canonical JSON of what the id covers."""
    return content_id(cast("Json", _identified(certificate)))


def _identified(certificate: Certificate) -> dict[str, object]:
    """What the id covers: {format, claim, target, soundness, verdict, lower_bound, proof}."""
    witness = certificate.lower_bound
    lower = None
    if witness is not None:
        lower = {
            "value": witness.value,
            "witness": {"x": list(witness.x), "y": list(witness.y)},
            "item": witness.item,
        }
    return {
        "format": FORMAT,
        "claim": _claim_json(certificate.claim),
        "target": None if certificate.target is None else {"upper": certificate.target},
        "soundness": certificate.soundness,
        "verdict": certificate.verdict,
        "lower_bound": lower,
        "proof": proof_json(certificate.proof),
    }


def _claim_json(claim: Claim) -> dict[str, object]:
    bounds: object = None
    if claim.entries is not None:
        lower, upper = list(claim.entries.lower), list(claim.entries.upper)
        bounds = {"shape": list(claim.entries.shape), "lower": lower, "upper": upper}
    elif claim.bounds is not None:
        bounds = [
            {
                **({"center": item.center} if item.center is not None else {}),
                **({"output": item.output} if item.output is not None else {}),
                **({"margin": list(item.margin)} if item.margin is not None else {}),
                "bound": item.bound,
                "bound_hex": _hex(item.bound),
            }
            for item in claim.bounds
        ]
    return {
        "model": claim.model,
        **property_json(claim.property),
        "semantics": semantics_of(claim),
        "bound": claim.bound,
        "bound_hex": _hex(claim.bound),
        "log10_bound": claim.log10_bound,
        "assumptions": [
            {"code": item.code, "node": item.node, "value": item.value}
            for item in claim.assumptions
        ],
        "bounds": bounds,
        **(
            {"idealised": [_idealised_json(one) for one in claim.idealised]}
            if claim.idealised
            else {}
        ),
    }


def _idealised_json(idealised: Idealised) -> dict[str, object]:
    deviation = {"absolute": idealised.absolute, "relative": idealised.relative}
    return {"node": idealised.node, "pattern": idealised.pattern, "deviation": deviation}


def proof_json(proof: Proof) -> dict[str, object]:
    """The proof as JSON members."""
    head: dict[str, object] = {
        "kind": proof.kind,
        "patterns": [
            {"kind": p.kind, "input": p.input, "output": p.output} for p in proof.patterns
        ],
    }
    if isinstance(proof, CentersProof):
        return {**head, **_parts(proof.parts)}
    return {**head, **_of_part(proof)}


def _parts(parts: Sequence[Single | SplitProof]) -> dict[str, object]:
    """Proofs without their patterns, which are those of the whole."""
    return {"parts": [{"kind": part.kind, **_of_part(part)} for part in parts]}


def _of_part(proof: Single | SplitProof) -> dict[str, object]:
    """What a proof has besides its kind and its patterns."""
    if isinstance(proof, SplitProof):
        passages = [{"node": p.node, "norm": p.norm.value} for p in proof.passages]
        forward = None if proof.forward is None else _forward_json(proof.forward)
        return {"passages": passages, "forward": forward, **_parts(proof.parts)}
    return _members(proof)


def _members(proof: Single) -> dict[str, object]:
    """The same for a proof without parts."""
    match proof:
        case ProductProof():
            return {"items": [_product_item_json(item) for item in proof.items]}
        case LmiProof():
            # Absent where there is none, which keeps the ids of what was written before.
            gated = {"gated": list(proof.gated)} if proof.gated else {}
            return {"items": [_lmi_item_json(item) for item in proof.items], **gated}
        case PropagationProof():
            return {"forward": _forward_json(proof.forward), "technique": proof.technique}
        case GateLmiProof():
            return {
                "forward": _forward_json(proof.forward),
                "slopes": _slopes_json(proof.slopes),
                "items": [_lmi_item_json(item) for item in proof.items],
            }
        case RecursionProof():
            return {
                "inputs": None if proof.inputs is None else _array_json(proof.inputs),
                "scales": _arrays_json(proof.scales),
            }
        case TorusProof():
            return {
                "sides": list(proof.sides),
                "scales": _arrays_json(proof.scales),
                "masks": _arrays_json(proof.masks),
            }
        case TreeProof():
            return {
                "forward": _forward_json(proof.forward),
                "gates": list(proof.gates),
                "items": [_tree_item_json(item) for item in proof.items],
            }


def _slopes_json(slopes: Mapping[str, SlopeRange]) -> dict[str, object]:
    return {
        name: {"lower": _array_json(r.lower), "upper": _array_json(r.upper)}
        for name, r in slopes.items()
    }


def _product_item_json(item: ProductItem) -> dict[str, object]:
    return {
        "internal": item.internal.value,
        "blocks": [{"target": b.target, "source": b.source, "norm": b.norm} for b in item.blocks],
        "factors": [{"node": f.node, "norm": f.norm} for f in item.factors],
        # Absent where there is one way only, which keeps the ids of what was written before.
        **({} if item.techniques == ("sums",) else {"techniques": list(item.techniques)}),
    }


def _lmi_item_json(item: LmiItem) -> dict[str, object]:
    return {"rows": [_lmi_row_json(row) for row in item.rows]}


def _lmi_row_json(row: LmiRow) -> dict[str, object]:
    tau = row.input_multipliers
    members: dict[str, object] = {
        "output": row.output,
        "level": row.level,
        "input_multipliers": None if tau is None else _array_json(tau),
        "multipliers": _arrays_json(row.multipliers),
    }
    if row.cuts:
        members["cuts"] = [
            {
                "first": cuts.first,
                "second": cuts.second,
                "first_entries": list(cuts.first_entries),
                "second_entries": list(cuts.second_entries),
                "weights": _array_json(cuts.weights),
            }
            for cuts in row.cuts
        ]
    if row.sort_blocks:
        members["sort_blocks"] = _arrays_json(row.sort_blocks)
    if row.output_multipliers is not None:
        members["output_multipliers"] = _array_json(row.output_multipliers)
    return members


def _tree_item_json(item: TreeItem) -> dict[str, object]:
    return {
        "rows": [_lmi_row_json(row) for row in item.rows],
        "trees": [_tree_json(tree) for tree in item.trees],
    }


def _tree_json(tree: Tree) -> dict[str, object]:
    return {
        "output": tree.output,
        "kinds": list(tree.kinds),
        "gates": list(tree.gates),
        "entries": list(tree.entries),
        "places": _array_json(tree.places),
        "weights": _array_json(tree.weights),
        "rows": list(tree.rows),
        "levels": _array_json(tree.levels),
        "scales": _array_json(tree.scales),
    }


def _forward_json(forward: ForwardProof) -> dict[str, object]:
    return {
        "technique": forward.technique,
        "lines": {
            name: {"lower": _array_json(line.lower), "upper": _array_json(line.upper)}
            for name, line in forward.lines.items()
        },
    }


def _arrays_json(arrays: Mapping[str, Array]) -> dict[str, object]:
    return {name: _array_json(array) for name, array in arrays.items()}


def _array_json(array: Array) -> dict[str, object]:
    data = np.ascontiguousarray(array, dtype="<f8").tobytes()
    return {
        "float64": base64.b64encode(data).decode(),
        "length": int(array.size),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def _hex(value: float | None) -> str | None:
    return None if value is None else value.hex()
