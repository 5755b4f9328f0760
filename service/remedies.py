"""Refusals of a model that a request can lift: by what it binds, or by what it freezes.

A model is read once, as nothing were said of it. A refusal that only lacks what a request says is
no last word: such a job is run, and reads the model in its own way.
"""

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias, cast

Members: TypeAlias = Mapping[str, object]


def lifts(request: Members, code: str) -> bool:
    """Whether a request, in its canonical JSON, says what a refusal with this code lacks."""
    return code in _REMEDIES and _REMEDIES[code](request)


def _bind(request: Members, member: str) -> object:
    asked = cast("Members", request.get("property", request))  # a question is its own
    return cast("Members", asked.get("bind", {})).get(member)


def _freezes(request: Members) -> bool:
    options = cast("Members", request.get("options", {}))
    return options.get("freeze_initializers") is True or bool(_bind(request, "values"))


_REMEDIES: Final[Mapping[str, Callable[[Members], bool]]] = {
    "dynamic-shape": lambda request: bool(_bind(request, "shapes")),
    "overridable-initializer": _freezes,
    "unsupported-dtype": lambda request: bool(_bind(request, "values")),
}
