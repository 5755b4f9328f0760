"""The request's JSON, both ways. What is malformed is refused with a pointer to it.

`property_json` writes the canonical claim form: the norm is the pair, every field is present.
"""

from dataclasses import replace
from typing import cast, get_args

from verifier.json_shapes import (
    Object,
    invalid,
    read_index,
    read_indices,
    read_list,
    read_number,
    read_object,
    read_vector,
)
from verifier.norm_json import read_norms
from verifier.norms import Norms
from verifier.property import (
    All,
    Bind,
    Budget,
    Direction,
    Each,
    Indices,
    Inputs,
    Kind,
    Margins,
    Monotone,
    Names,
    OptionValue,
    Outputs,
    Property,
    Request,
    Semantics,
)
from verifier.region_json import parse_region, region_json
from verifier.regions import Centers, Everywhere

METHODS = ("auto", "product", "lipsdp", "propagation")
KINDS: tuple[Kind, ...] = get_args(Kind)
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
SEMANTICS: tuple[Semantics, ...] = get_args(Semantics)
SELECTIONS = "indices, names, each, margins"  #: of outputs
MAX_DIMENSION = 2**31


def parse_request(value: object) -> Request:
    """The request that a JSON object states; what it leaves out takes its default.

    Raises:
        InvalidRequest: a member is unknown, of the wrong type or out of range.
        RegionEmptyInterior: the region has no two points.
    """
    known = {"property", "method", "options", "budget", "target", "semantics"}
    members = read_object(value, "", known)
    method = members.get("method", "auto")
    if method not in METHODS:
        raise invalid("/method", f"method {method!r} is unknown", f"use {', '.join(METHODS)}")
    asked = parse_property(members.get("property", {}))
    target = _target(members.get("target"))
    if asked.kind != "lipschitz":
        _refuse_bounding(asked.kind, method, target)
    return Request(
        property=asked,
        method=method,
        options=_options(members.get("options", {})),
        budget=_budget(members.get("budget", {})),
        target=target,
        semantics=_semantics(members.get("semantics", "real")),
    )


def parse_property(value: object, at: str = "/property") -> Property:
    """The property that a JSON object states. Raises as `parse_request` does."""
    known = {"kind", "scope", "norm", "region", "inputs", "outputs", "monotone", "bind"}
    members = read_object(value, at, known)
    kind = members.get("kind", "lipschitz")
    if kind not in KINDS:
        raise invalid(f"{at}/kind", f"kind {kind!r} is unknown", f"use {', '.join(KINDS)}")
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
    norm = _norm(members, kind, f"{at}/norm")
    asked = Property(
        scope=scope,
        norm=norm,
        region=region,
        inputs=_inputs(members.get("inputs", "all"), f"{at}/inputs"),
        outputs=_outputs(members.get("outputs", "all"), f"{at}/outputs"),
        bind=read_bind(members.get("bind", {}), f"{at}/bind"),
    )
    return _of_kind(kind, asked, members.get("monotone"), at)


def property_json(asked: Property) -> dict[str, object]:
    """The canonical JSON members of a property, as a claim carries them."""
    members = {
        "kind": asked.kind,
        "scope": asked.scope,
        "norm": asked.norm.to_json() if asked.kind == "lipschitz" else None,
        "region": region_json(asked.region),
        "inputs": _inputs_json(asked.inputs),
        "outputs": _outputs_json(asked.outputs),
    }
    # What does not apply is absent: claims that were written before have no such members.
    if asked.bind != Bind():
        members["bind"] = bind_json(asked.bind)
    if asked.monotone is not None:
        sign = asked.monotone
        named = {"input": sign.input, "output": sign.output, "direction": sign.direction}
        members["monotone"] = named
    return members


def bind_json(bind: Bind) -> dict[str, object]:
    """The JSON that `read_bind` reads."""
    return {
        "shapes": dict(bind.shapes),
        "values": {name: list(values) for name, values in bind.values},
    }


def request_json(request: Request) -> dict[str, object]:
    """The JSON of a request, every field present."""
    return {
        "property": property_json(request.property),
        "method": request.method,
        "options": dict(request.options),
        "budget": {"seconds": request.budget.seconds, "gap": request.budget.gap},
        "target": None if request.target is None else {"upper": request.target},
        # As in claims: what is not said otherwise has no member.
        **({} if request.semantics == "real" else {"semantics": request.semantics}),
    }


# --- kinds ---------------------------------------------------------------------------------------


def _norm(members: Object, kind: Kind, at: str) -> Norms:
    """The norms; where none has a meaning, any is read and the default stands for it."""
    norm = members.get("norm", "l2")
    if kind == "lipschitz":
        return read_norms(norm, at)
    if norm is not None:
        read_norms(norm, at)
    return Property().norm


def _of_kind(kind: Kind, asked: Property, monotone: object, at: str) -> Property:
    """The property of this kind, where what it selects fits the kind."""
    if kind != "monotone" and monotone is not None:
        raise invalid(
            f"{at}/monotone", f"kind {kind} has no `monotone`", 'say kind "monotone", or leave it'
        )
    if kind != "lipschitz" and isinstance(asked.region, Centers):
        raise invalid(
            f"{at}/region/centers", f"kind {kind} has one region", "send a request for each center"
        )
    match kind:
        case "lipschitz":
            return asked
        case "jacobian":
            if not isinstance(asked.outputs, All | Indices | Names):
                raise invalid(
                    f"{at}/outputs",
                    "a Jacobian has a row for each output",
                    'use "all", indices or names',
                )
            return replace(asked, kind=kind)
        case "monotone":
            if (asked.inputs, asked.outputs) != (All(), All()):
                raise invalid(
                    f"{at}/monotone",
                    "`inputs` and `outputs` are given beside `monotone`",
                    "name the one input and the one output in `monotone` alone",
                )
            return replace(asked, kind=kind, monotone=_monotone(monotone, f"{at}/monotone"))


def _monotone(value: object, at: str) -> Monotone:
    members = read_object(value, at, {"input", "output", "direction"})
    direction = members.get("direction")
    if direction not in DIRECTIONS:
        known = " or ".join(DIRECTIONS)
        raise invalid(f"{at}/direction", f"direction {direction!r} is unknown", f"use {known}")
    return Monotone(
        input=read_index(members.get("input"), f"{at}/input"),
        output=read_index(members.get("output"), f"{at}/output"),
        direction=direction,
    )


def _refuse_bounding(kind: Kind, method: object, target: float | None) -> None:
    """Refuse what only a bound has a use for."""
    if target is not None:
        raise invalid("/target", f"kind {kind} has no bound to compare", "leave `target` out")
    if method not in ("auto", "propagation"):
        raise invalid(
            "/method", f"method {method} knows no entries of a Jacobian", "use auto or propagation"
        )


# --- members -------------------------------------------------------------------------------------


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
        raise invalid(at, "`outputs` has several members", f"give one of {SELECTIONS}")
    (name, item), *_ = members.items()
    match name:
        case "indices":
            return Indices(read_indices(item, f"{at}/indices"))
        case "names":
            return Names(_names(item, f"{at}/names"))
        case "each" if item is True:
            return Each()
        case "margins":
            return Margins(None if item == "all" else _pairs(item, f"{at}/margins"))
        case _:
            raise invalid(
                f"{at}/{name}", f"`{name}` {item!r} is not supported", f"use {SELECTIONS}"
            )


def _inputs_json(inputs: Inputs) -> object:
    return "all" if isinstance(inputs, All) else {"indices": list(inputs.indices)}


def _outputs_json(outputs: Outputs) -> object:
    match outputs:
        case All():
            return "all"
        case Indices(indices):
            return {"indices": list(indices)}
        case Names(names):
            return {"names": list(names)}
        case Each():
            return {"each": True}
        case Margins(None):
            return {"margins": "all"}
        case Margins(pairs):
            return {"margins": [list(pair) for pair in pairs or ()]}


def _names(value: object, at: str) -> tuple[str, ...]:
    names = read_list(value, at, _name)
    if len(set(names)) < len(names):
        raise invalid(at, "a name occurs twice", "name every output once")
    return names


def _name(value: object, at: str) -> str:
    if not isinstance(value, str) or not value:
        raise invalid(at, f"{value!r} is no name", "give the names that `inspect` shows")
    return value


def read_bind(value: object, at: str) -> Bind:
    """What a JSON object binds: sizes of symbolic dimensions, and inputs held constant."""
    members = read_object(value, at, {"shapes", "values"})
    shapes = read_object(members.get("shapes", {}), f"{at}/shapes", None)
    values = read_object(members.get("values", {}), f"{at}/values", None)
    return Bind(
        shapes=tuple(
            (name, _dimension(shapes[name], f"{at}/shapes/{name}")) for name in sorted(shapes)
        ),
        values=tuple(
            (name, _constant(values[name], f"{at}/values/{name}")) for name in sorted(values)
        ),
    )


def _dimension(value: object, at: str) -> int:
    size = read_index(value, at)
    if not 1 <= size < MAX_DIMENSION:
        raise invalid(at, f"a dimension of {size}", "give a number of 1 or more")
    return size


def _constant(value: object, at: str) -> tuple[float, ...]:
    """The numbers of an input that is held constant; one number stands for a list of one."""
    return (read_number(value, at),) if isinstance(value, int | float) else read_vector(value, at)


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


def _semantics(value: object) -> Semantics:
    if value not in SEMANTICS:
        known = " or ".join(SEMANTICS)
        raise invalid("/semantics", f"semantics {value!r} is unknown", f"use {known}")
    return value


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
