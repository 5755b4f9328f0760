"""A proof from its JSON, as strictly as the certificate that it belongs to."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Literal, TypeAlias, TypeVar, cast, get_args

import numpy as np

from verifier import certificate_shapes as shapes
from verifier.certificate import (
    ABOVE,
    BlockNorm,
    CentersProof,
    FactorNorm,
    ForwardProof,
    GateLmiProof,
    Lines,
    LmiItem,
    LmiProof,
    LmiRow,
    PairCuts,
    Passage,
    Pattern,
    PatternKind,
    ProductItem,
    ProductProof,
    ProductTechnique,
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
)
from verifier.certificate_shapes import MalformedCertificate
from verifier.norms import Norm

Array: TypeAlias = np.ndarray
_Part = TypeVar("_Part")

PROOF_BYTES = 64 * 2**20  #: the most that all arrays of a proof may hold


def read_proof(value: object) -> Proof:
    """The proof that a JSON value states. Raises MalformedCertificate."""
    if shapes.mapping(value, "proof").get("kind") != "centers":
        return _split_or_single(value)
    members = shapes.exact(value, "proof", "kind patterns parts")
    parts = _parts(members, _split_or_single)
    return CentersProof(patterns=_patterns(members), parts=parts)


def _split_or_single(value: object) -> Single | SplitProof:
    if shapes.mapping(value, "proof").get("kind") != "split":
        return _single(value)
    members = shapes.exact(value, "proof", "kind patterns passages forward parts")
    forward = members["forward"]
    return SplitProof(
        patterns=_patterns(members),
        passages=shapes.listed(members["passages"], "proof.passages", _passage),
        parts=_parts(members, _single),
        forward=None if forward is None else _forward(forward),
    )


def _passage(value: object, at: str) -> Passage:
    members = shapes.exact(value, at, "node norm")
    norm = Norm(cast("str", shapes.one_of(members["norm"], tuple(Norm), at)))
    return Passage(node=shapes.text(members["node"], at), norm=norm)


def _parts(members: shapes.Object, read: Callable[[object], _Part]) -> tuple[_Part, ...]:
    """The proofs of parts, with the patterns of the whole."""

    def part(item: object, at: str) -> _Part:
        own = shapes.mapping(item, at)
        if "patterns" in own:
            raise MalformedCertificate(f"{at}: the patterns of parts are those of the proof")
        return read({**own, "patterns": members["patterns"]})

    return shapes.listed(members["parts"], "proof.parts", part)


def _single(value: object) -> Single:
    kind = shapes.mapping(value, "proof").get("kind")
    match kind:
        case "product":
            members = shapes.exact(value, "proof", "kind patterns items")
            return ProductProof(
                patterns=_patterns(members),
                items=shapes.listed(members["items"], "proof.items", _product_item),
            )
        case "lmi":
            members = shapes.exact(value, "proof", "kind patterns items", optional="gated")
            return LmiProof(
                patterns=_patterns(members),
                items=shapes.listed(members["items"], "proof.items", _lmi_item),
                gated=shapes.listed(members.get("gated", []), "proof.gated", shapes.text),
            )
        case "propagation":
            members = shapes.exact(value, "proof", "kind patterns forward technique")
            return PropagationProof(
                patterns=_patterns(members),
                forward=_forward(members["forward"]),
                technique=_jacobian_technique(members["technique"]),
            )
        case "gate-lmi":
            members = shapes.exact(value, "proof", "kind patterns forward slopes items")
            slopes = shapes.mapping(members["slopes"], "proof.slopes")
            return GateLmiProof(
                patterns=_patterns(members),
                forward=_forward(members["forward"]),
                slopes={n: SlopeRange(**_ends(v, n)) for n, v in slopes.items()},
                items=shapes.listed(members["items"], "proof.items", _lmi_item),
            )
        case "block-recursion":
            members = shapes.exact(value, "proof", "kind patterns inputs scales")
            return RecursionProof(
                patterns=_patterns(members),
                inputs=shapes.optional(members["inputs"], "proof.inputs", _array),
                scales=_arrays(members["scales"], "proof.scales"),
            )
        case "torus":
            members = shapes.exact(value, "proof", "kind patterns sides scales masks")
            return TorusProof(
                patterns=_patterns(members),
                sides=shapes.listed(members["sides"], "proof.sides", shapes.index),
                scales=_arrays(members["scales"], "proof.scales"),
                masks=_arrays(members["masks"], "proof.masks"),
            )
        case "tree":
            members = shapes.exact(value, "proof", "kind patterns forward gates items")
            return TreeProof(
                patterns=_patterns(members),
                forward=_forward(members["forward"]),
                gates=shapes.listed(members["gates"], "proof.gates", shapes.text),
                items=shapes.listed(members["items"], "proof.items", _tree_item),
            )
        case _:
            raise MalformedCertificate(f"proof.kind {kind!r} is unknown")


def _patterns(members: shapes.Object) -> tuple[Pattern, ...]:
    return shapes.listed(members["patterns"], "proof.patterns", _pattern)


def _pattern(value: object, at: str) -> Pattern:
    members = shapes.exact(value, at, "kind input output")
    kind = shapes.one_of(members["kind"], get_args(PatternKind), at)
    return Pattern(
        kind=cast("PatternKind", kind),
        input=shapes.text(members["input"], at),
        output=shapes.text(members["output"], at),
    )


def _product_item(value: object, at: str) -> ProductItem:
    members = shapes.exact(value, at, "internal blocks factors", optional="techniques")
    return ProductItem(
        internal=Norm(cast("str", shapes.one_of(members["internal"], tuple(Norm), at))),
        blocks=shapes.listed(members["blocks"], f"{at}.blocks", _block_norm),
        factors=shapes.listed(members["factors"], f"{at}.factors", _factor_norm),
        techniques=shapes.listed(members.get("techniques", ["sums"]), f"{at}.techniques", _way),
    )


def _way(value: object, at: str) -> ProductTechnique:
    return cast("ProductTechnique", shapes.one_of(value, get_args(ProductTechnique), at))


def _block_norm(value: object, at: str) -> BlockNorm:
    members = shapes.exact(value, at, "target source norm")
    return BlockNorm(
        target=shapes.text(members["target"], at),
        source=shapes.text(members["source"], at),
        norm=shapes.number(members["norm"], at),
    )


def _factor_norm(value: object, at: str) -> FactorNorm:
    members = shapes.exact(value, at, "node norm")
    return FactorNorm(
        node=shapes.text(members["node"], at), norm=shapes.number(members["norm"], at)
    )


def _lmi_item(value: object, at: str) -> LmiItem:
    return LmiItem(
        rows=shapes.listed(shapes.exact(value, at, "rows")["rows"], f"{at}.rows", _lmi_row)
    )


def _lmi_row(value: object, at: str) -> LmiRow:
    members = shapes.exact(
        value,
        at,
        "output level input_multipliers multipliers",
        optional="cuts sort_blocks output_multipliers",
    )
    return LmiRow(
        output=shapes.optional(members["output"], f"{at}.output", shapes.index),
        level=shapes.number(members["level"], f"{at}.level"),
        input_multipliers=shapes.optional(
            members["input_multipliers"], f"{at}.input_multipliers", _array
        ),
        multipliers=_arrays(members["multipliers"], f"{at}.multipliers"),
        cuts=shapes.listed(members.get("cuts", []), f"{at}.cuts", _pair_cuts),
        sort_blocks=_arrays(members.get("sort_blocks", {}), f"{at}.sort_blocks"),
        output_multipliers=shapes.optional(
            members.get("output_multipliers"), f"{at}.output_multipliers", _array
        ),
    )


def _pair_cuts(value: object, at: str) -> PairCuts:
    members = shapes.exact(value, at, "first second first_entries second_entries weights")
    return PairCuts(
        first=shapes.text(members["first"], at),
        second=shapes.text(members["second"], at),
        first_entries=shapes.listed(members["first_entries"], f"{at}.first_entries", shapes.index),
        second_entries=shapes.listed(
            members["second_entries"], f"{at}.second_entries", shapes.index
        ),
        weights=_array(members["weights"], f"{at}.weights"),
    )


def _tree_item(value: object, at: str) -> TreeItem:
    members = shapes.exact(value, at, "rows trees")
    return TreeItem(
        rows=shapes.listed(members["rows"], f"{at}.rows", _lmi_row),
        trees=shapes.listed(members["trees"], f"{at}.trees", _tree),
    )


def _tree(value: object, at: str) -> Tree:
    members = shapes.exact(
        value, at, "output kinds gates entries places weights rows levels scales"
    )
    return Tree(
        output=shapes.optional(members["output"], f"{at}.output", shapes.index),
        kinds=shapes.listed(members["kinds"], f"{at}.kinds", _node_kind),
        gates=shapes.listed(members["gates"], f"{at}.gates", shapes.index),
        entries=shapes.listed(members["entries"], f"{at}.entries", shapes.index),
        places=_array(members["places"], f"{at}.places"),
        weights=_array(members["weights"], f"{at}.weights"),
        rows=shapes.listed(members["rows"], f"{at}.rows", shapes.index),
        levels=_array(members["levels"], f"{at}.levels"),
        scales=_array(members["scales"], f"{at}.scales"),
    )


def _node_kind(value: object, at: str) -> int:
    kind = shapes.index(value, at)
    if ABOVE < kind:
        raise MalformedCertificate(f"{at}: {kind} is no kind of a tree's node")
    return kind


def _forward(value: object) -> ForwardProof:
    members = shapes.exact(value, "proof.forward", "technique lines")
    lines = shapes.mapping(members["lines"], "proof.forward.lines")
    return ForwardProof(
        technique=_technique(members["technique"]),
        lines={name: Lines(**_ends(item, name)) for name, item in lines.items()},
    )


def _ends(value: object, at: str) -> dict[str, Array]:
    members = shapes.exact(value, at, "lower upper")
    return {end: _array(members[end], f"{at}.{end}") for end in ("lower", "upper")}


def _jacobian_technique(value: object) -> Literal["interval", "linear", "joint"]:
    technique = shapes.one_of(value, ("interval", "linear", "joint"), "technique")
    return cast('Literal["interval", "linear", "joint"]', technique)


def _technique(value: object) -> Literal["interval", "linear"]:
    technique = shapes.one_of(value, ("interval", "linear"), "technique")
    return cast('Literal["interval", "linear"]', technique)


def _arrays(value: object, at: str) -> dict[str, Array]:
    return {name: _array(item, f"{at}.{name}") for name, item in shapes.mapping(value, at).items()}


def _array(value: object, at: str) -> Array:
    members = shapes.exact(value, at, "float64 length sha256")
    text = shapes.text(members["float64"], at)
    if PROOF_BYTES * 4 // 3 + 4 < len(text):
        raise MalformedCertificate(f"{at}: the array is larger than {PROOF_BYTES} bytes")
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise MalformedCertificate(f"{at}: not base64: {error}") from error
    if len(data) != 8 * shapes.index(members["length"], at):
        raise MalformedCertificate(f"{at}: length {members['length']} is not that of the data")
    if hashlib.sha256(data).hexdigest() != members["sha256"]:
        raise MalformedCertificate(f"{at}: the data's digest is another")
    array = np.frombuffer(data, dtype="<f8").astype(np.float64)
    if not np.all(np.isfinite(array)):
        raise MalformedCertificate(f"{at}: a number is nan or infinite")
    return array
