"""The JSON of regions, both ways. What is malformed is refused with a pointer to it."""

from collections.abc import Sequence
from typing import cast

from verifier.errors import RegionEmptyInterior
from verifier.json_shapes import (
    Object,
    invalid,
    read_list,
    read_number,
    read_object,
    read_vector,
    refuse_unknown,
)
from verifier.norm_json import read_norm
from verifier.regions import Ball, CenterBox, Centers, Clip, EndsBox, Everywhere, Region, Vector


def parse_region(value: object, at: str = "/property/region") -> Region:
    """The region that a JSON object states; null is everywhere. Raises as `parse_request` does."""
    if value is None:
        return Everywhere()
    members = read_object(
        value, at, {"type", "center", "radius", "lower", "upper", "norm", "clip", "centers"}
    )
    if "centers" in members:
        return _centers(members, at)
    match members.get("type"):
        case "box":
            return _box(members, at)
        case "ball":
            refuse_unknown(members, at, {"type", "norm", "center", "radius", "clip"})
            center = read_vector(members.get("center"), f"{at}/center")
            return Ball(
                norm=read_norm(members.get("norm"), f"{at}/norm"),
                center=center,
                radius=read_number(members.get("radius"), f"{at}/radius"),
                clip=_clip(members, at),
            )
        case other:
            raise invalid(f"{at}/type", f"region type {other!r} is unknown", "use box or ball")


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
            ends = {
                "norm": region.norm.value,
                "center": list(region.center),
                "radius": region.radius,
            }
        case Centers(parts):
            alike = {**(region_json(parts[0]) or {})}
            del alike["center"]
            return {**alike, "centers": [list(part.center) for part in parts]}
    if region.clip is not None:
        ends["clip"] = {"lower": region.clip.lower, "upper": region.clip.upper}
    return {"type": "ball" if isinstance(region, Ball) else "box", **ends}


# --- members -------------------------------------------------------------------------------------


def _centers(members: Object, at: str) -> Centers:
    """One region around each center; the other members are those of each."""
    if "center" in members:
        raise invalid(f"{at}/center", "`center` stands beside `centers`", "give one of the two")
    alike = {name: value for name, value in members.items() if name != "centers"}
    centers = read_list(members["centers"], f"{at}/centers", read_vector)
    parts: list[CenterBox | Ball] = []
    for place, center in enumerate(centers):
        if len(center) != len(centers[0]):
            raise invalid(
                f"{at}/centers/{place}",
                f"{len(center)} numbers, and the first center has {len(centers[0])}",
                "give centers of one length",
            )
        part = parse_region({**alike, "center": list(center)}, at)
        if not isinstance(part, CenterBox | Ball):
            raise invalid(f"{at}/centers", "a region by its ends has none", "give a radius")
        parts.append(part)
    return Centers(tuple(parts))


def _clip(members: Object, at: str) -> Clip | None:
    if members.get("clip") is None:
        return None
    ends = read_object(members["clip"], f"{at}/clip", {"lower", "upper"})
    return Clip(
        lower=read_number(ends.get("lower"), f"{at}/clip/lower"),
        upper=read_number(ends.get("upper"), f"{at}/clip/upper"),
    )


def _box(members: Object, at: str) -> Region:
    clip = _clip(members, at)
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
