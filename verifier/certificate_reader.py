"""A certificate from its JSON. Strict: what the format does not know is rejected, with a place."""

import base64
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias, TypeVar, cast, get_args

import numpy as np

from verifier.certificate import (
    ABOVE,
    FORMAT,
    Assumption,
    Attempt,
    BlockNorm,
    CentersProof,
    Certificate,
    Claim,
    Entries,
    FactorNorm,
    ForwardProof,
    GateLmiProof,
    Idealisation,
    Idealised,
    ItemBound,
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
    Soundness,
    SplitProof,
    TorusProof,
    Tree,
    TreeItem,
    TreeProof,
    Verdict,
    Witness,
    semantics_of,
)
from verifier.certificate_json import certificate_id
from verifier.errors import InvalidRequest, RegionEmptyInterior
from verifier.norms import Norm
from verifier.property import Property
from verifier.request_json import parse_property, property_json

Object: TypeAlias = Mapping[str, object]
Array: TypeAlias = np.ndarray
Item = TypeVar("Item")
_Part = TypeVar("_Part")


class MalformedCertificate(ValueError):
    """The text is not a certificate of this format; the message says where and why."""


PROOF_BYTES = 64 * 2**20  #: the most that all arrays of a proof may hold


def parse_certificate(text: bytes | str) -> Certificate:
    """The certificate that a JSON text states.

    Raises:
        MalformedCertificate: the text is not strict JSON, a member is unknown, missing or of the
            wrong type, an array's digest is wrong, or the id is not that of the content.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedCertificate(f"not strict JSON: {error}") from error
    return certificate_from_json(value)


def certificate_from_json(value: object) -> Certificate:
    """The certificate that a JSON value states. Raises as `parse_certificate` does."""
    members = _exact(
        value,
        "certificate",
        "format id claim lower_bound target soundness verdict proof attempts producer resources",
        optional="report",
    )
    if members["format"] != FORMAT:
        raise MalformedCertificate(f"format is {members['format']!r}, this reader knows {FORMAT!r}")
    certificate = Certificate(
        claim=_claim(members["claim"]),
        proof=_proof(members["proof"]),
        lower_bound=_witness(members["lower_bound"]),
        target=_target(members["target"]),
        verdict=cast(
            "Verdict | None",
            _one_of(members["verdict"], ("certified", "violated", "undecided", None), "verdict"),
        ),
        soundness=cast(
            "Soundness", _one_of(members["soundness"], ("exact", "rigorous"), "soundness")
        ),
        attempts=_list(members["attempts"], "attempts", _attempt),
        producer=cast("Mapping[str, str | int | None]", _mapping(members["producer"], "producer")),
        resources={
            name: _number(value, f"resources.{name}")
            for name, value in _mapping(members["resources"], "resources").items()
        },
        report=_optional(members.get("report"), "report", _mapping),
    )
    if certificate_id(certificate) != members["id"]:
        raise MalformedCertificate("the id is not that of the content")
    return certificate


def _claim(value: object) -> Claim:
    members = _exact(
        value,
        "claim",
        "model kind scope norm region inputs outputs semantics bound bound_hex log10_bound"
        " assumptions bounds",
        optional="monotone bind idealised",
    )
    idealised = _list(members.get("idealised", []), "claim.idealised", _idealised)
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
        model=_text(members["model"], "claim.model"),
        property=claimed,
        bound=_bound(members, "claim"),
        log10_bound=_optional(members["log10_bound"], "claim.log10_bound", _number),
        bounds=None if bounds is None else _list(bounds, "claim.bounds", _item_bound),
        entries=_entries(members["bounds"]) if is_matrix else None,
        assumptions=_list(members["assumptions"], "claim.assumptions", _assumption),
        idealised=idealised,
    )
    # The list is there exactly under its semantics.
    if members["semantics"] != semantics_of(claim) or ("idealised" in members and not idealised):
        raise MalformedCertificate(f"claim.semantics {members['semantics']!r} does not fit")
    return claim


def _idealised(value: object, at: str) -> Idealised:
    members = _exact(value, at, "node pattern deviation")
    deviation = _exact(members["deviation"], f"{at}.deviation", "absolute relative")
    pattern = _one_of(members["pattern"], get_args(Idealisation), f"{at}.pattern")
    return Idealised(
        node=_text(members["node"], f"{at}.node"),
        pattern=cast("Idealisation", pattern),
        absolute=_number(deviation["absolute"], f"{at}.deviation.absolute"),
        relative=_number(deviation["relative"], f"{at}.deviation.relative"),
    )


def _assumption(value: object, at: str) -> Assumption:
    members = _exact(value, at, "code node value")
    code, node, stored = (_text(members[name], at) for name in ("code", "node", "value"))
    if code != "overridable-initializer":
        raise MalformedCertificate(f"{at}: this version knows no assumption {code!r}")
    return Assumption(code=code, node=node, value=stored)


def _entries(value: object) -> Entries:
    members = _exact(value, "claim.bounds", "shape lower upper")
    rows, *columns = _list(members["shape"], "claim.bounds.shape", _index) or (0,)
    if len(columns) != 1:
        raise MalformedCertificate("claim.bounds.shape: expected two sizes")
    return Entries(
        shape=(rows, columns[0]),
        lower=_list(members["lower"], "claim.bounds.lower", _number),
        upper=_list(members["upper"], "claim.bounds.upper", _number),
    )


def _item_bound(value: object, at: str) -> ItemBound:
    members = _mapping(value, at)
    labels = [name for name in ("center", "output", "margin") if name in members]
    if not labels or {"output", "margin"} <= set(labels):
        raise MalformedCertificate(f"{at}: of which item is this?")
    members = _exact(value, at, f"{' '.join(labels)} bound bound_hex")
    pair = _list(members.get("margin", [0, 0]), at, _index)
    if len(pair) != 2:
        raise MalformedCertificate(f"{at}.margin: expected a pair")
    return ItemBound(
        bound=_bound(members, at),
        output=_index(members["output"], at) if "output" in labels else None,
        margin=(pair[0], pair[1]) if "margin" in labels else None,
        center=_index(members["center"], at) if "center" in labels else None,
    )


def _bound(members: Object, at: str) -> float | None:
    """`bound` and `bound_hex`, which have to say the same."""
    bound = _optional(members["bound"], f"{at}.bound", _number)
    if members["bound_hex"] != (None if bound is None else bound.hex()):
        raise MalformedCertificate(f"{at}: bound and bound_hex differ")
    return bound


def _witness(value: object) -> Witness | None:
    if value is None:
        return None
    members = _exact(value, "lower_bound", "value witness item")
    pair = _exact(members["witness"], "lower_bound.witness", "x y")
    return Witness(
        value=_number(members["value"], "lower_bound.value"),
        x=_list(pair["x"], "lower_bound.witness.x", _number),
        y=_list(pair["y"], "lower_bound.witness.y", _number),
        item=_optional(members["item"], "lower_bound.item", _index),
    )


def _target(value: object) -> float | None:
    return None if value is None else _number(_exact(value, "target", "upper")["upper"], "target")


def _attempt(value: object, at: str) -> Attempt:
    members = _exact(value, at, "method bound seconds")
    return Attempt(
        method=_text(members["method"], at),
        bound=_optional(members["bound"], at, _number),
        seconds=_number(members["seconds"], at),
    )


def _proof(value: object) -> Proof:
    if _mapping(value, "proof").get("kind") != "centers":
        return _split_or_single(value)
    members = _exact(value, "proof", "kind patterns parts")
    parts = _parts(members, _split_or_single)
    return CentersProof(patterns=_patterns(members), parts=parts)


def _split_or_single(value: object) -> Single | SplitProof:
    if _mapping(value, "proof").get("kind") != "split":
        return _single(value)
    members = _exact(value, "proof", "kind patterns passages forward parts")
    forward = members["forward"]
    return SplitProof(
        patterns=_patterns(members),
        passages=_list(members["passages"], "proof.passages", _passage),
        parts=_parts(members, _single),
        forward=None if forward is None else _forward(forward),
    )


def _passage(value: object, at: str) -> Passage:
    members = _exact(value, at, "node norm")
    norm = Norm(cast("str", _one_of(members["norm"], tuple(Norm), at)))
    return Passage(node=_text(members["node"], at), norm=norm)


def _parts(members: Object, read: Callable[[object], _Part]) -> tuple[_Part, ...]:
    """The proofs of parts, with the patterns of the whole."""

    def part(item: object, at: str) -> _Part:
        own = _mapping(item, at)
        if "patterns" in own:
            raise MalformedCertificate(f"{at}: the patterns of parts are those of the proof")
        return read({**own, "patterns": members["patterns"]})

    return _list(members["parts"], "proof.parts", part)


def _single(value: object) -> Single:
    kind = _mapping(value, "proof").get("kind")
    match kind:
        case "product":
            members = _exact(value, "proof", "kind patterns items")
            return ProductProof(
                patterns=_patterns(members),
                items=_list(members["items"], "proof.items", _product_item),
            )
        case "lmi":
            members = _exact(value, "proof", "kind patterns items")
            return LmiProof(
                patterns=_patterns(members), items=_list(members["items"], "proof.items", _lmi_item)
            )
        case "propagation":
            members = _exact(value, "proof", "kind patterns forward technique")
            return PropagationProof(
                patterns=_patterns(members),
                forward=_forward(members["forward"]),
                technique=_jacobian_technique(members["technique"]),
            )
        case "gate-lmi":
            members = _exact(value, "proof", "kind patterns forward slopes items")
            slopes = _mapping(members["slopes"], "proof.slopes")
            return GateLmiProof(
                patterns=_patterns(members),
                forward=_forward(members["forward"]),
                slopes={n: SlopeRange(**_ends(v, n)) for n, v in slopes.items()},
                items=_list(members["items"], "proof.items", _lmi_item),
            )
        case "block-recursion":
            members = _exact(value, "proof", "kind patterns inputs scales")
            return RecursionProof(
                patterns=_patterns(members),
                inputs=_optional(members["inputs"], "proof.inputs", _array),
                scales=_arrays(members["scales"], "proof.scales"),
            )
        case "torus":
            members = _exact(value, "proof", "kind patterns sides scales masks")
            return TorusProof(
                patterns=_patterns(members),
                sides=_list(members["sides"], "proof.sides", _index),
                scales=_arrays(members["scales"], "proof.scales"),
                masks=_arrays(members["masks"], "proof.masks"),
            )
        case "tree":
            members = _exact(value, "proof", "kind patterns forward gates items")
            return TreeProof(
                patterns=_patterns(members),
                forward=_forward(members["forward"]),
                gates=_list(members["gates"], "proof.gates", _text),
                items=_list(members["items"], "proof.items", _tree_item),
            )
        case _:
            raise MalformedCertificate(f"proof.kind {kind!r} is unknown")


def _patterns(members: Object) -> tuple[Pattern, ...]:
    return _list(members["patterns"], "proof.patterns", _pattern)


def _pattern(value: object, at: str) -> Pattern:
    members = _exact(value, at, "kind input output")
    kind = _one_of(members["kind"], get_args(PatternKind), at)
    return Pattern(
        kind=cast("PatternKind", kind),
        input=_text(members["input"], at),
        output=_text(members["output"], at),
    )


def _product_item(value: object, at: str) -> ProductItem:
    members = _exact(value, at, "internal blocks factors", optional="techniques")
    return ProductItem(
        internal=Norm(cast("str", _one_of(members["internal"], tuple(Norm), at))),
        blocks=_list(members["blocks"], f"{at}.blocks", _block_norm),
        factors=_list(members["factors"], f"{at}.factors", _factor_norm),
        techniques=_list(members.get("techniques", ["sums"]), f"{at}.techniques", _way),
    )


def _way(value: object, at: str) -> ProductTechnique:
    return cast("ProductTechnique", _one_of(value, get_args(ProductTechnique), at))


def _block_norm(value: object, at: str) -> BlockNorm:
    members = _exact(value, at, "target source norm")
    return BlockNorm(
        target=_text(members["target"], at),
        source=_text(members["source"], at),
        norm=_number(members["norm"], at),
    )


def _factor_norm(value: object, at: str) -> FactorNorm:
    members = _exact(value, at, "node norm")
    return FactorNorm(node=_text(members["node"], at), norm=_number(members["norm"], at))


def _lmi_item(value: object, at: str) -> LmiItem:
    return LmiItem(rows=_list(_exact(value, at, "rows")["rows"], f"{at}.rows", _lmi_row))


def _lmi_row(value: object, at: str) -> LmiRow:
    members = _exact(
        value,
        at,
        "output level input_multipliers multipliers",
        optional="cuts sort_blocks output_multipliers",
    )
    return LmiRow(
        output=_optional(members["output"], f"{at}.output", _index),
        level=_number(members["level"], f"{at}.level"),
        input_multipliers=_optional(
            members["input_multipliers"], f"{at}.input_multipliers", _array
        ),
        multipliers=_arrays(members["multipliers"], f"{at}.multipliers"),
        cuts=_list(members.get("cuts", []), f"{at}.cuts", _pair_cuts),
        sort_blocks=_arrays(members.get("sort_blocks", {}), f"{at}.sort_blocks"),
        output_multipliers=_optional(
            members.get("output_multipliers"), f"{at}.output_multipliers", _array
        ),
    )


def _pair_cuts(value: object, at: str) -> PairCuts:
    members = _exact(value, at, "first second first_entries second_entries weights")
    return PairCuts(
        first=_text(members["first"], at),
        second=_text(members["second"], at),
        first_entries=_list(members["first_entries"], f"{at}.first_entries", _index),
        second_entries=_list(members["second_entries"], f"{at}.second_entries", _index),
        weights=_array(members["weights"], f"{at}.weights"),
    )


def _tree_item(value: object, at: str) -> TreeItem:
    members = _exact(value, at, "rows trees")
    return TreeItem(
        rows=_list(members["rows"], f"{at}.rows", _lmi_row),
        trees=_list(members["trees"], f"{at}.trees", _tree),
    )


def _tree(value: object, at: str) -> Tree:
    members = _exact(value, at, "output kinds gates entries places weights rows levels scales")
    return Tree(
        output=_optional(members["output"], f"{at}.output", _index),
        kinds=_list(members["kinds"], f"{at}.kinds", _node_kind),
        gates=_list(members["gates"], f"{at}.gates", _index),
        entries=_list(members["entries"], f"{at}.entries", _index),
        places=_array(members["places"], f"{at}.places"),
        weights=_array(members["weights"], f"{at}.weights"),
        rows=_list(members["rows"], f"{at}.rows", _index),
        levels=_array(members["levels"], f"{at}.levels"),
        scales=_array(members["scales"], f"{at}.scales"),
    )


def _node_kind(value: object, at: str) -> int:
    kind = _index(value, at)
    if ABOVE < kind:
        raise MalformedCertificate(f"{at}: {kind} is no kind of a tree's node")
    return kind


def _forward(value: object) -> ForwardProof:
    members = _exact(value, "proof.forward", "technique lines")
    lines = _mapping(members["lines"], "proof.forward.lines")
    return ForwardProof(
        technique=_technique(members["technique"]),
        lines={name: Lines(**_ends(item, name)) for name, item in lines.items()},
    )


def _ends(value: object, at: str) -> dict[str, Array]:
    members = _exact(value, at, "lower upper")
    return {end: _array(members[end], f"{at}.{end}") for end in ("lower", "upper")}


def _jacobian_technique(value: object) -> Literal["interval", "linear", "joint"]:
    technique = _one_of(value, ("interval", "linear", "joint"), "technique")
    return cast('Literal["interval", "linear", "joint"]', technique)


def _technique(value: object) -> Literal["interval", "linear"]:
    technique = _one_of(value, ("interval", "linear"), "technique")
    return cast('Literal["interval", "linear"]', technique)


def _arrays(value: object, at: str) -> dict[str, Array]:
    return {name: _array(item, f"{at}.{name}") for name, item in _mapping(value, at).items()}


def _array(value: object, at: str) -> Array:
    members = _exact(value, at, "float64 length sha256")
    text = _text(members["float64"], at)
    if PROOF_BYTES * 4 // 3 + 4 < len(text):
        raise MalformedCertificate(f"{at}: the array is larger than {PROOF_BYTES} bytes")
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise MalformedCertificate(f"{at}: not base64: {error}") from error
    if len(data) != 8 * _index(members["length"], at):
        raise MalformedCertificate(f"{at}: length {members['length']} is not that of the data")
    if hashlib.sha256(data).hexdigest() != members["sha256"]:
        raise MalformedCertificate(f"{at}: the data's digest is another")
    array = np.frombuffer(data, dtype="<f8").astype(np.float64)
    if not np.all(np.isfinite(array)):
        raise MalformedCertificate(f"{at}: a number is nan or infinite")
    return array


# --- shapes of JSON ------------------------------------------------------------------------------


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("an object has one key twice")
    return members


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _mapping(value: object, at: str) -> Object:
    if not isinstance(value, Mapping):
        raise MalformedCertificate(f"{at}: expected an object")
    return cast("Object", value)


def _exact(value: object, at: str, names: str, optional: str = "") -> Object:
    members = _mapping(value, at)
    needed = set(names.split())
    wrong = sorted((set(members) ^ needed) - (set(optional.split()) & set(members)))
    if wrong:
        raise MalformedCertificate(f"{at}: missing or unknown members {wrong}")
    return members


def _list(value: object, at: str, item: Callable[[object, str], Item]) -> tuple[Item, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise MalformedCertificate(f"{at}: expected a list")
    elements = cast("Sequence[object]", value)
    return tuple(item(element, f"{at}[{index}]") for index, element in enumerate(elements))


def _optional(value: object, at: str, read: Callable[[object, str], Item]) -> Item | None:
    return None if value is None else read(value, at)


def _one_of(value: object, allowed: Sequence[object], at: str) -> object:
    if value not in allowed:
        raise MalformedCertificate(f"{at}: {value!r} is not one of {list(allowed)}")
    return value


def _text(value: object, at: str) -> str:
    if not isinstance(value, str):
        raise MalformedCertificate(f"{at}: expected text")
    return value


def _index(value: object, at: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise MalformedCertificate(f"{at}: expected an integer of 0 or more")
    return value


def _number(value: object, at: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MalformedCertificate(f"{at}: expected a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise MalformedCertificate(f"{at}: the number is not finite in float64")
    return number
