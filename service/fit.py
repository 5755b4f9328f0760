"""What only a model can tell of a request: whether it has the inputs and outputs that are named.

It is checked when the model has been read, else by the attempt.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias, cast

from service.problems import problem_of, refused
from verifier.errors import LipcertError
from verifier.estimate import size_of
from verifier.property import Bind, Indices, Margins, Names, Request
from verifier.radius_json import Question, refuse_misfit
from verifier.regions import Everywhere

Summary: TypeAlias = Mapping[str, object]


def sizes(summary: Summary) -> tuple[int | None, int | None]:
    """The numbers of inputs and outputs that a model's summary states."""
    return size_of(summary, "input"), size_of(summary, "output")


def require_fit(request: Request | Question, summary: Summary) -> None:
    """Refuse what the model does not have.

    Raises:
        Problem: invalid-request.
    """
    inputs, outputs = sizes(summary)
    if isinstance(request, Request):
        if request.property.bind != Bind():
            return  # what is bound changes the sizes: the attempt tells
        _require_request(request, inputs, outputs)
        if isinstance(request.property.outputs, Names):
            _require_named(request.property.outputs.names, summary)
    elif request.bind == Bind() and inputs is not None and outputs is not None:
        try:
            refuse_misfit(request, inputs, outputs)
        except LipcertError as error:
            raise problem_of(error) from error


def _require_request(request: Request, inputs: int | None, outputs: int | None) -> None:
    asked = request.property.entries
    where = "/property/monotone" if asked.monotone else "/property/{}/indices"
    if inputs is not None:
        if not isinstance(asked.region, Everywhere) and asked.region.dimension != inputs:
            raise refused(
                "/property/region",
                f"the region has {asked.region.dimension} coordinates, the model {inputs} inputs",
                f"give {inputs} numbers, in row-major order",
            )
        if isinstance(asked.inputs, Indices):
            _require_within(asked.inputs.indices, inputs, where.format("inputs"))
    if outputs is None:
        return
    match asked.outputs:
        case Indices(indices):
            _require_within(indices, outputs, where.format("outputs"))
        case Margins(pairs) if pairs is not None:
            flat = [index for pair in pairs for index in pair]
            _require_within(flat, outputs, "/property/outputs/margins")
        case _:
            pass  # all, each and all margins fit every model


def _require_named(names: Sequence[str], summary: Summary) -> None:
    outputs = cast("Sequence[Summary]", summary.get("outputs", ()))
    known = [str(output["name"]) for output in outputs]
    for name in names:
        if known and name not in known:
            raise refused(
                "/property/outputs/names",
                f"the model has no output {name[:100]!r}",
                f"name one of {', '.join(known[:20])}",
            )


def _require_within(indices: Sequence[int], size: int, pointer: str) -> None:
    beyond = [index for index in indices if size <= index]
    if beyond:
        raise refused(pointer, f"index {beyond[0]} is beyond {size - 1}", "count from 0")
