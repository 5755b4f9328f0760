"""What members of a request demand of each other, as JSON Schema: fields alone cannot say it.

The readers refuse the same (`verifier.request_json`). Left unsaid, because no schema can: that
lists have equal lengths, that ends are in order, and whatever depends on the model.
"""

from typing import Any, TypeAlias

from pydantic import ConfigDict

Schema: TypeAlias = dict[str, Any]  # Any: JSON Schema

_NULL: Schema = {"type": "null"}
_SOME: Schema = {"not": _NULL}
_WITHOUT_BOUND: Schema = {"kind": {"enum": ["jacobian", "monotone"]}}


def _when(
    members: Schema, *, then: Schema | None = None, otherwise: Schema | None = None
) -> Schema:
    """Objects with these members fit `then`, all others `otherwise`."""
    condition = {"required": list(members), "properties": members}
    return {
        "if": condition,
        **({} if then is None else {"then": then}),
        **({} if otherwise is None else {"else": otherwise}),
    }


def _have(**members: Schema) -> Schema:
    return {"properties": members}


#: Of a property: what each kind and each scope has.
PROPERTY: list[Schema] = [
    _when(
        _WITHOUT_BOUND,
        then=_have(region={"not": {"required": ["centers"]}}),
        otherwise=_have(norm=_SOME),
    ),
    _when(
        {"kind": {"const": "jacobian"}},
        then=_have(outputs={"anyOf": [{"const": "all"}, {"required": ["indices"]}]}),
    ),
    _when(
        {"kind": {"const": "monotone"}},
        then={
            "required": ["monotone"],
            **_have(monotone=_SOME, inputs={"const": "all"}, outputs={"const": "all"}),
        },
        otherwise=_have(monotone=_NULL),
    ),
    _when({"scope": {"const": "global"}}, then=_have(region=_NULL)),
    _when({"scope": {"const": "local"}}, then={"required": ["region"], **_have(region=_SOME)}),
]

#: Of a request: entries of a Jacobian have no bound to compare, nor a method that finds one.
REQUEST: list[Schema] = [
    {
        "if": {
            "required": ["property"],
            **_have(property={"required": ["kind"], **_have(**_WITHOUT_BOUND)}),
        },
        "then": _have(method={"enum": ["auto", "propagation"]}, target=_NULL),
    }
]


def demanding(conditions: list[Schema]) -> ConfigDict:
    """The configuration of a body, unknown members refused, whose schema has these conditions."""

    def add(schema: Schema) -> None:
        schema["allOf"] = conditions

    return ConfigDict(extra="forbid", json_schema_extra=add)
