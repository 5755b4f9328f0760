"""The request's JSON, both ways. What is malformed is refused with a pointer to it.

`property_json` writes the canonical claim form: the norm is the pair, every field is present.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, TypeVar, cast

from verifier.errors import InvalidRequest, RegionEmptyInterior
from verifier.norms import Norm, NormPair
from verifier.property import (
    All,
    Budget,
    Each,
    Indices,
    Inputs,
    Margins,
    OptionValue,
    Outputs,
    Property,
    Request,
)
from verifier.regions import Ball, CenterBox, Clip, EndsBox, Everywhere, Region, Vector

Object: TypeAlias = Mapping[str, object]
Parsed = TypeVar("Parsed")

NORMS = ", ".join(norm.value for norm in Norm)
METHODS = ("auto", "product", "lipsdp", "propagation")


def parse_request(value: object) -> Request:
    """The request that a JSON object states; what it leaves out takes its default.

    Raises:
        InvalidRequest: a member is unknown, of the wrong type or out of range.
        RegionEmptyInterior: the region has no two points.
    """
    members = _object(value, "", {"property", "method", "options", "budget", "target"})
    method = members.get("method", "auto")
    if method not in METHODS:
        raise _invalid("/method", f"method {method!r} is unknown", f"use {', '.join(METHODS)}")
    return Request(
        property=parse_property(members.get("property", {})),
        method=method,
        options=_options(members.get("options", {})),
        budget=_budget(members.get("budget", {})),
        target=_target(members.get("target")),
    )


def parse_property(value: object, at: str = "/property") -> Property:
    """The property that a JSON object states. Raises as `parse_request` does."""
    known = {"kind", "scope", "norm", "region", "inputs", "outputs", "bind"}
    members = _object(value, at, known)
    kind = members.get("kind", "lipschitz")
    if kind != "lipschitz":
        raise _invalid(
            f"{at}/kind", f"kind {kind!r} is not supported", 'this version bounds "lipschitz"'
        )
    bind = _object(members.get("bind", {}), f"{at}/bind", {"shapes", "values"})
    if any(bind.values()):
        raise _invalid(
            f"{at}/bind", "`bind` is not supported", "export the model with fixed shapes"
        )
    region = parse_region(members.get("region"), f"{at}/region")
    scope = members.get("scope", "global" if isinstance(region, Everywhere) else "local")
    if scope not in ("global", "local"):
        raise _invalid(f"{at}/scope", f"scope {scope!r} is unknown", 'use "global" or "local"')
    if (scope == "global") != isinstance(region, Everywhere):
        raise _invalid(
            f"{at}/region",
            f"scope {scope} {'takes no' if scope == 'global' else 'needs a'} region",
            'give a region with scope "local", none with scope "global"',
        )
    return Property(
        scope=scope,
        norm=_norm_pair(members.get("norm", "l2"), f"{at}/norm"),
        region=region,
        inputs=_inputs(members.get("inputs", "all"), f"{at}/inputs"),
        outputs=_outputs(members.get("outputs", "all"), f"{at}/outputs"),
    )


def parse_region(value: object, at: str = "/property/region") -> Region:
    """The region that a JSON object states; null is everywhere. Raises as `parse_request` does."""
    if value is None:
        return Everywhere()
    members = _object(
        value, at, {"type", "center", "radius", "lower", "upper", "norm", "clip", "centers"}
    )
    if "centers" in members:
        raise _invalid(f"{at}/centers", "many centers are not supported", "send a request for each")
    match members.get("type"):
        case "box":
            return _box(members, at)
        case "ball":
            _only(members, at, {"type", "norm", "center", "radius"})
            center = _vector(members.get("center"), f"{at}/center")
            radius = _number(members.get("radius"), f"{at}/radius")
            return Ball(norm=_norm(members.get("norm"), f"{at}/norm"), center=center, radius=radius)
        case other:
            raise _invalid(f"{at}/type", f"region type {other!r} is unknown", "use box or ball")


def property_json(asked: Property) -> dict[str, object]:
    """The canonical JSON members of a property, as a claim carries them."""
    return {
        "kind": asked.kind,
        "scope": asked.scope,
        "norm": asked.norm.to_json(),
        "region": region_json(asked.region),
        "inputs": _inputs_json(asked.inputs),
        "outputs": _outputs_json(asked.outputs),
    }


def request_json(request: Request) -> dict[str, object]:
    """The JSON of a request, every field present."""
    return {
        "property": property_json(request.property),
        "method": request.method,
        "options": dict(request.options),
        "budget": {"seconds": request.budget.seconds, "gap": request.budget.gap},
        "target": None if request.target is None else {"upper": request.target},
    }


def region_json(region: Region) -> dict[str, object] | None:
    """The JSON of a region; everywhere is null."""
    match region:
        case Everywhere():
            return None
        case CenterBox():
            ends: dict[str, object] = {
                "center": list(region.center),
                "radius": list(region.radius)
                if isinstance(region.radius, tuple)
                else region.radius,
            }
        case EndsBox():
            ends = {"lower": list(region.lower), "upper": list(region.upper)}
        case Ball():
            return {
                "type": "ball",
                "norm": region.norm.value,
                "center": list(region.center),
                "radius": region.radius,
            }
    if region.clip is not None:
        ends["clip"] = {"lower": region.clip.lower, "upper": region.clip.upper}
    return {"type": "box", **ends}


# --- members -------------------------------------------------------------------------------------


def _box(members: Object, at: str) -> Region:
    clip = None
    if members.get("clip") is not None:
        ends = _object(members["clip"], f"{at}/clip", {"lower", "upper"})
        clip = Clip(
            lower=_number(ends.get("lower"), f"{at}/clip/lower"),
            upper=_number(ends.get("upper"), f"{at}/clip/upper"),
        )
    if "center" in members or "radius" in members:
        _only(members, at, {"type", "center", "radius", "clip"})
        center = _vector(members.get("center"), f"{at}/center")
        return CenterBox(center=center, radius=_radius(members, at, len(center)), clip=clip)
    _only(members, at, {"type", "lower", "upper", "clip"})
    lower = _vector(members.get("lower"), f"{at}/lower")
    upper = _vector(members.get("upper"), f"{at}/upper")
    if len(lower) != len(upper):
        raise _invalid(
            f"{at}/upper",
            f"`lower` has {len(lower)} numbers, `upper` {len(upper)}",
            "give lists of one length",
        )
    return EndsBox(lower=lower, upper=upper, clip=clip)


def _radius(members: Object, at: str, dimension: int) -> float | Vector:
    """A number above 0, or one for each coordinate, not all 0."""
    value = members.get("radius")
    if not isinstance(value, Sequence) or isinstance(value, str):
        radius = _number(value, f"{at}/radius")
        if radius <= 0:
            raise RegionEmptyInterior(f"radius is {radius}", fix="give a radius above 0")
        return radius
    radii = _vector(cast("object", value), f"{at}/radius")
    if len(radii) != dimension:
        raise _invalid(
            f"{at}/radius",
            f"`center` has {dimension} numbers, `radius` {len(radii)}",
            "give one radius, or one for each coordinate",
        )
    if min(radii) < 0:
        raise RegionEmptyInterior(f"a radius is {min(radii)}", fix="give radii of 0 or more")
    return radii


def _norm_pair(value: object, at: str) -> NormPair:
    if isinstance(value, str):
        return NormPair(_norm(value, at), _norm(value, at))
    members = _object(value, at, {"input", "output"})
    return NormPair(
        _norm(members.get("input"), f"{at}/input"), _norm(members.get("output"), f"{at}/output")
    )


def _norm(value: object, at: str) -> Norm:
    if not isinstance(value, str) or value not in set(Norm):
        raise _invalid(at, f"norm {value!r} is not supported", f"use one of {NORMS}")
    return Norm(value)


def _inputs(value: object, at: str) -> Inputs:
    if value == "all":
        return All()
    return Indices(_indices(_object(value, at, {"indices"}).get("indices"), f"{at}/indices"))


def _outputs(value: object, at: str) -> Outputs:
    if value == "all":
        return All()
    members = _object(value, at, {"indices", "names", "each", "margins"})
    if len(members) != 1:
        raise _invalid(at, "`outputs` has several members", "give one of indices, each, margins")
    (name, item), *_ = members.items()
    match name:
        case "indices":
            return Indices(_indices(item, f"{at}/indices"))
        case "each" if item is True:
            return Each()
        case "margins":
            return Margins(None if item == "all" else _pairs(item, f"{at}/margins"))
        case _:
            raise _invalid(
                f"{at}/{name}", f"`{name}` {item!r} is not supported", "use indices, each, margins"
            )


def _inputs_json(inputs: Inputs) -> object:
    return "all" if isinstance(inputs, All) else {"indices": list(inputs.indices)}


def _outputs_json(outputs: Outputs) -> object:
    match outputs:
        case All():
            return "all"
        case Indices(indices):
            return {"indices": list(indices)}
        case Each():
            return {"each": True}
        case Margins(None):
            return {"margins": "all"}
        case Margins(pairs):
            return {"margins": [list(pair) for pair in pairs or ()]}


def _options(value: object) -> dict[str, OptionValue]:
    members = _object(value, "/options", None)
    for name, item in members.items():
        if not isinstance(item, str | int | float | bool):
            raise _invalid(
                f"/options/{name}", f"option {name!r} is not a scalar", "give text, number or bool"
            )
    return cast("dict[str, OptionValue]", dict(members))


def _budget(value: object) -> Budget:
    members = _object(value, "/budget", {"seconds", "gap"})
    seconds = _number(members.get("seconds", 60.0), "/budget/seconds")
    gap = _number(members.get("gap", 0.01), "/budget/gap")
    if seconds <= 0:
        raise _invalid("/budget/seconds", f"{seconds} seconds", "give a number above 0")
    if gap < 0:
        raise _invalid("/budget/gap", f"gap {gap}", "give a number of 0 or more")
    return Budget(seconds=seconds, gap=gap)


def _target(value: object) -> float | None:
    if value is None:
        return None
    upper = _number(_object(value, "/target", {"upper"}).get("upper"), "/target/upper")
    if upper < 0:
        raise _invalid("/target/upper", f"target {upper}", "give a number of 0 or more")
    return upper


# --- shapes of JSON ------------------------------------------------------------------------------


def _invalid(pointer: str, detail: str, fix: str) -> InvalidRequest:
    return InvalidRequest(f"{pointer or 'the request'}: {detail}", fix=fix, pointer=pointer)


def _object(value: object, at: str, known: set[str] | None) -> Object:
    if not isinstance(value, Mapping):
        raise _invalid(at, f"expected an object, met {type(value).__name__}", "send a JSON object")
    members = cast("Object", value)
    if known is not None:
        _only(members, at, known)
    return members


def _only(members: Object, at: str, known: set[str]) -> None:
    for name in members:
        if name not in known:
            expected = ", ".join(sorted(known))
            raise _invalid(f"{at}/{name}", f"member {name!r} is unknown", f"expected: {expected}")


def _number(value: object, at: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _invalid(at, f"expected a number, met {value!r}", "give a finite number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _invalid(at, "the number is not finite in float64", "give a finite number")
    return number


def _list_of(value: object, at: str, item: Callable[[object, str], Parsed]) -> tuple[Parsed, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise _invalid(at, "expected a list that is not empty", "give a list")
    items = cast("Sequence[object]", value)
    return tuple(item(element, f"{at}/{index}") for index, element in enumerate(items))


def _vector(value: object, at: str) -> Vector:
    return _list_of(value, at, _number)


def _index(value: object, at: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _invalid(at, f"expected an index, met {value!r}", "give an integer of 0 or more")
    return value


def _indices(value: object, at: str) -> tuple[int, ...]:
    indices = _list_of(value, at, _index)
    if len(set(indices)) != len(indices):
        raise _invalid(at, "an index occurs twice", "give each index once")
    return indices


def _pairs(value: object, at: str) -> tuple[tuple[int, int], ...]:
    def pair(item: object, where: str) -> tuple[int, int]:
        ends = _indices(item, where)
        if len(ends) != 2:
            raise _invalid(where, f"a margin of {len(ends)} indices", "give pairs [i, j]")
        return ends[0], ends[1]

    return _list_of(value, at, pair)
