"""The request's JSON, both ways. What is malformed is refused with a pointer to it.

`property_json` writes the canonical claim form: the norm is the pair, every field is present.
"""

from collections.abc import Sequence
from typing import cast

from verifier.errors import RegionEmptyInterior
from verifier.json_shapes import (
    Object,
    invalid,
    read_indices,
    read_list,
    read_number,
    read_object,
    read_vector,
    refuse_unknown,
)
from verifier.norm_json import read_norm, read_norms
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

METHODS = ("auto", "product", "lipsdp", "propagation")


def parse_request(value: object) -> Request:
    """The request that a JSON object states; what it leaves out takes its default.

    Raises:
        InvalidRequest: a member is unknown, of the wrong type or out of range.
        RegionEmptyInterior: the region has no two points.
    """
    members = read_object(value, "", {"property", "method", "options", "budget", "target"})
    method = members.get("method", "auto")
    if method not in METHODS:
        raise invalid("/method", f"method {method!r} is unknown", f"use {', '.join(METHODS)}")
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
    members = read_object(value, at, known)
    kind = members.get("kind", "lipschitz")
    if kind != "lipschitz":
        raise invalid(
            f"{at}/kind", f"kind {kind!r} is not supported", 'this version bounds "lipschitz"'
        )
    bind = read_object(members.get("bind", {}), f"{at}/bind", {"shapes", "values"})
    if any(bind.values()):
        raise invalid(f"{at}/bind", "`bind` is not supported", "export the model with fixed shapes")
    region = parse_region(members.get("region"), f"{at}/region")
    scope = members.get("scope", "global" if isinstance(region, Everywhere) else "local")
    if scope not in ("global", "local"):
        raise invalid(f"{at}/scope", f"scope {scope!r} is unknown", 'use "global" or "local"')
    if (scope == "global") != isinstance(region, Everywhere):
        raise invalid(
            f"{at}/region",
            f"scope {scope} {'takes no' if scope == 'global' else 'needs a'} region",
            'give a region with scope "local", none with scope "global"',
        )
    return Property(
        scope=scope,
        norm=read_norms(members.get("norm", "l2"), f"{at}/norm"),
        region=region,
        inputs=_inputs(members.get("inputs", "all"), f"{at}/inputs"),
        outputs=_outputs(members.get("outputs", "all"), f"{at}/outputs"),
    )


def parse_region(value: object, at: str = "/property/region") -> Region:
    """The region that a JSON object states; null is everywhere. Raises as `parse_request` does."""
    if value is None:
        return Everywhere()
    members = read_object(
        value, at, {"type", "center", "radius", "lower", "upper", "norm", "clip", "centers"}
    )
    if "centers" in members:
        raise invalid(f"{at}/centers", "many centers are not supported", "send a request for each")
    match members.get("type"):
        case "box":
            return _box(members, at)
        case "ball":
            refuse_unknown(members, at, {"type", "norm", "center", "radius"})
            center = read_vector(members.get("center"), f"{at}/center")
            radius = read_number(members.get("radius"), f"{at}/radius")
            return Ball(
                norm=read_norm(members.get("norm"), f"{at}/norm"), center=center, radius=radius
            )
        case other:
            raise invalid(f"{at}/type", f"region type {other!r} is unknown", "use box or ball")


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
        ends = read_object(members["clip"], f"{at}/clip", {"lower", "upper"})
        clip = Clip(
            lower=read_number(ends.get("lower"), f"{at}/clip/lower"),
            upper=read_number(ends.get("upper"), f"{at}/clip/upper"),
        )
    if "center" in members or "radius" in members:
        refuse_unknown(members, at, {"type", "center", "radius", "clip"})
        center = read_vector(members.get("center"), f"{at}/center")
        return CenterBox(center=center, radius=_radius(members, at, len(center)), clip=clip)
    refuse_unknown(members, at, {"type", "lower", "upper", "clip"})
    lower = read_vector(members.get("lower"), f"{at}/lower")
    upper = read_vector(members.get("upper"), f"{at}/upper")
    if len(lower) != len(upper):
        raise invalid(
            f"{at}/upper",
            f"`lower` has {len(lower)} numbers, `upper` {len(upper)}",
            "give lists of one length",
        )
    return EndsBox(lower=lower, upper=upper, clip=clip)


def _radius(members: Object, at: str, dimension: int) -> float | Vector:
    """A number above 0, or one for each coordinate, not all 0."""
    value = members.get("radius")
    if not isinstance(value, Sequence) or isinstance(value, str):
        radius = read_number(value, f"{at}/radius")
        if radius <= 0:
            raise RegionEmptyInterior(f"radius is {radius}", fix="give a radius above 0")
        return radius
    radii = read_vector(cast("object", value), f"{at}/radius")
    if len(radii) != dimension:
        raise invalid(
            f"{at}/radius",
            f"`center` has {dimension} numbers, `radius` {len(radii)}",
            "give one radius, or one for each coordinate",
        )
    if min(radii) < 0:
        raise RegionEmptyInterior(f"a radius is {min(radii)}", fix="give radii of 0 or more")
    return radii


def _inputs(value: object, at: str) -> Inputs:
    if value == "all":
        return All()
    return Indices(
        read_indices(read_object(value, at, {"indices"}).get("indices"), f"{at}/indices")
    )


def _outputs(value: object, at: str) -> Outputs:
    if value == "all":
        return All()
    members = read_object(value, at, {"indices", "names", "each", "margins"})
    if len(members) != 1:
        raise invalid(at, "`outputs` has several members", "give one of indices, each, margins")
    (name, item), *_ = members.items()
    match name:
        case "indices":
            return Indices(read_indices(item, f"{at}/indices"))
        case "each" if item is True:
            return Each()
        case "margins":
            return Margins(None if item == "all" else _pairs(item, f"{at}/margins"))
        case _:
            raise invalid(
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
    members = read_object(value, "/options", None)
    for name, item in members.items():
        if not isinstance(item, str | int | float | bool):
            raise invalid(
                f"/options/{name}", f"option {name!r} is not a scalar", "give text, number or bool"
            )
    return cast("dict[str, OptionValue]", dict(members))


def _budget(value: object) -> Budget:
    members = read_object(value, "/budget", {"seconds", "gap"})
    seconds = read_number(members.get("seconds", 60.0), "/budget/seconds")
    gap = read_number(members.get("gap", 0.01), "/budget/gap")
    if seconds <= 0:
        raise invalid("/budget/seconds", f"{seconds} seconds", "give a number above 0")
    if gap < 0:
        raise invalid("/budget/gap", f"gap {gap}", "give a number of 0 or more")
    return Budget(seconds=seconds, gap=gap)


def _target(value: object) -> float | None:
    if value is None:
        return None
    upper = read_number(read_object(value, "/target", {"upper"}).get("upper"), "/target/upper")
    if upper < 0:
        raise invalid("/target/upper", f"target {upper}", "give a number of 0 or more")
    return upper


def _pairs(value: object, at: str) -> tuple[tuple[int, int], ...]:
    def pair(item: object, where: str) -> tuple[int, int]:
        ends = read_indices(item, where)
        if len(ends) != 2:
            raise invalid(where, f"a margin of {len(ends)} indices", "give pairs [i, j]")
        return ends[0], ends[1]

    return read_list(value, at, pair)
