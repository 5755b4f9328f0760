"""The request that the command line states: `--spec FILE`, and flags that win over it.

What comes out is the Request JSON of the interface, parsed by `verifier.request_json`. Arrays may
be named by file: .npy, .npz with one array, or a JSON list.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from service.files import read_bytes
from verifier.errors import InvalidRequest
from verifier.request_json import parse_request

if TYPE_CHECKING:
    import numpy as np

    from verifier.property import Request

ARRAY_SUFFIXES = (".json", ".npy", ".npz")


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """What was given beside the model; None and empty: not given."""

    spec: Path | None = None
    scope: str | None = None
    norm: str | None = None  #: `linf`, or `linf,l2` for input and output
    norm_weights: Path | None = None  #: of the input norm
    norm_matrix: Path | None = None
    center: Path | None = None
    centers: Path | None = None  #: many of them, one along the first axis
    radius: str | None = None  #: a number, or a file with one for each coordinate
    method: str | None = None
    seconds: float | None = None
    gap: float | None = None
    target: float | None = None
    options: Sequence[str] = ()  #: `name=value`
    semantics: str | None = None


def request_from(flags: Flags) -> Request:
    """The request that file and flags state together.

    Raises:
        InvalidRequest: a file cannot be read, or what it says is refused.
        RegionEmptyInterior: the region has no two points.
    """
    request = {} if flags.spec is None else _spec(flags.spec)
    asked = dict(_member(request, "property"))
    _put(asked, "norm", _norm(flags, asked.get("norm", "l2")))
    if flags.scope == "global":
        asked.pop("region", None)  # the flag wins over the file's local question
    _put(asked, "region", _region(flags))
    is_local = flags.center is not None or flags.centers is not None
    _put(asked, "scope", flags.scope or ("local" if is_local else None))
    budget = dict(_member(request, "budget"))
    _put(budget, "seconds", flags.seconds)
    _put(budget, "gap", flags.gap)
    _put(request, "method", flags.method)
    _put(request, "semantics", flags.semantics)
    _put(request, "target", None if flags.target is None else {"upper": flags.target})
    options = {**_member(request, "options"), **dict(map(_option, flags.options))}
    return parse_request({**request, "property": asked, "budget": budget, "options": options})


def question_from(
    center: Path | None,
    centers: Path | None,
    norm: str,
    label: int | None,
    clip: str | None,
    seconds: float,
    bind: Path | None = None,
) -> dict[str, object]:
    """The question of `lipcert radius`, as `verifier.radius` reads it.

    Raises:
        InvalidRequest: a file cannot be read, or not one of the two was given.
    """
    if (center is None) == (centers is None):
        raise InvalidRequest("a point is needed", fix="give one of --center and --centers")
    question: dict[str, object] = {"norm": norm, "seconds": seconds}
    if center is not None:
        question["centers"] = [read_array(center)]
    elif centers is not None:
        question["centers"] = read_rows(centers)
    _put(question, "label", label)
    _put(question, "bind", None if bind is None else _bound(bind))
    if clip is not None:
        ends = [_number(end) for end in clip.split(",")]
        if len(ends) != 2:
            raise InvalidRequest(f"--clip {clip!r}", fix="write --clip lower,upper")
        question["clip"] = {"lower": ends[0], "upper": ends[1]}
    return question


def _bound(path: Path) -> dict[str, object]:
    """What a file binds, with every array that it names by file in place of the name."""
    value = _json(read_bytes(path, "the file of --bind"), path)
    if not isinstance(value, dict):
        raise _unusable(path, "is not a JSON object", "write shapes and values, by name")
    return dict(_with_values(cast("dict[str, object]", value), path))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidRequest(f"{text!r} is no number", fix="write --clip lower,upper") from None


def read_array(path: Path) -> list[float] | list[object]:
    """The numbers of a .npy, .npz or .json file as a flat row-major list, each float64.

    Raises:
        InvalidRequest: the file cannot be read, or does not hold one array of real numbers.
    """
    data = read_bytes(path, "the array file")
    if path.suffix == ".json":
        return _json_list(data, path)
    return _numpy_array(data, path).ravel().tolist()


def read_matrix(path: Path) -> list[list[float]] | list[object]:
    """The same as a list of rows.

    Raises:
        InvalidRequest: as `read_array`, or the array has not two axes.
    """
    data = read_bytes(path, "the array file")
    if path.suffix == ".json":
        return _json_list(data, path)
    array = _numpy_array(data, path)
    if array.ndim != 2:
        raise _unusable(path, f"holds an array of {array.ndim} axes", "give a matrix")
    return array.tolist()


def read_rows(path: Path) -> list[list[float]] | list[object]:
    """The same as a list of flat rows, one for every index of the first axis.

    Raises:
        InvalidRequest: as `read_array`, or the array has one axis.
    """
    data = read_bytes(path, "the array file")
    if path.suffix == ".json":
        return _json_list(data, path)
    array = _numpy_array(data, path)
    if array.ndim < 2:
        raise _unusable(path, "holds one row", "give centers along the first axis")
    return array.reshape(len(array), -1).tolist()


def _json_list(data: bytes, path: Path) -> list[object]:
    value = _json(data, path)
    if not isinstance(value, list):
        raise _unusable(path, "is not a list", "give a JSON list of numbers, or of rows")
    return cast("list[object]", value)


def _numpy_array(data: bytes, path: Path) -> np.ndarray:
    import io
    import zipfile

    import numpy as np

    try:
        loaded = np.load(io.BytesIO(data), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            array = cast("np.ndarray", loaded)
        else:
            names = list(loaded)
            if len(names) != 1:
                raise _unusable(path, f"holds {len(names)} arrays", "give a .npz of one array")
            array = cast("np.ndarray", loaded[names[0]])
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise _unusable(path, "is not a numpy array file", "write it with numpy.save") from error
    if array.dtype.kind not in "fiu" or np.finfo(np.float64).bits < 8 * array.dtype.itemsize:
        raise _unusable(path, f"holds {array.dtype}", "give floats of up to 64 bits, or integers")
    return array.astype(np.float64)


def _spec(path: Path) -> dict[str, object]:
    """The file's Request, with every array that it names by file in place of the name."""
    value = _json(read_bytes(path, "the spec"), path)
    if not isinstance(value, dict):
        raise _unusable(path, "is not a JSON object", "write a Request, without `model`")
    request = cast("dict[str, object]", value)
    asked = dict(_member(request, "property"))
    region = asked.get("region")
    if isinstance(region, Mapping):
        members = cast("Mapping[str, object]", region)
        asked["region"] = {
            name: _resolved(item, path, read_rows if name == "centers" else read_array)
            for name, item in members.items()
        }
        request["property"] = asked
    bind = asked.get("bind")
    if isinstance(bind, Mapping):
        asked["bind"] = _with_values(cast("Mapping[str, object]", bind), path)
        request["property"] = asked
    norm = asked.get("norm")
    if isinstance(norm, Mapping):
        asked["norm"] = _with_arrays(cast("Mapping[str, object]", norm), path)
        request["property"] = asked
    return request


def _with_values(bind: Mapping[str, object], spec: Path) -> Mapping[str, object]:
    """The bindings, with the arrays of constant inputs in the place of their files."""
    values = bind.get("values")
    if not isinstance(values, Mapping):
        return bind
    named = cast("Mapping[str, object]", values)
    return {**bind, "values": {name: _resolved(item, spec) for name, item in named.items()}}


def _with_arrays(norm: Mapping[str, object], spec: Path) -> Mapping[str, object]:
    """The pair of norms, with the arrays of a weighted one in the place of their files."""
    weighted = norm.get("input")
    if not isinstance(weighted, Mapping):
        return norm
    members = cast("Mapping[str, object]", weighted)
    resolved = {
        name: _resolved(item, spec, read_matrix if name == "matrix" else read_array)
        for name, item in members.items()
    }
    return {**norm, "input": resolved}


def _resolved(
    value: object, spec: Path, read: Callable[[Path], Sequence[object]] = read_array
) -> object:
    """The array that a string names, relative to the spec or else to the working directory."""
    if not isinstance(value, str) or not value.endswith(ARRAY_SUFFIXES):
        return value
    beside = spec.parent / value
    return read(beside if beside.exists() else Path(value))


def _json(data: bytes, path: Path) -> object:
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        members = dict(pairs)
        if len(members) != len(pairs):
            raise ValueError("an object has one key twice")
        return members

    try:
        return json.loads(data, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise _unusable(path, f"is not JSON: {error}", "write JSON, in UTF-8") from error


def _member(request: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = request.get(name, {})
    if not isinstance(value, Mapping):
        raise InvalidRequest(
            f"/{name}: expected an object", fix="send a JSON object", pointer=f"/{name}"
        )
    return cast("Mapping[str, object]", value)


def _put(members: dict[str, object], name: str, value: object) -> None:
    if value is not None:
        members[name] = value


def _norm(flags: Flags, spec: object) -> object:
    """`linf` or `linf,l2`, the file's where no flag says it; weights go to the first of them."""
    given = spec if flags.norm is None else _norm_names(flags.norm)
    if flags.norm_weights is None and flags.norm_matrix is None:
        return given
    pair: Mapping[str, object] = {"input": given, "output": given}
    if isinstance(given, Mapping):
        pair = cast("Mapping[str, object]", given)
    weighted = {"type": pair.get("input")}
    if flags.norm_weights is not None:
        weighted["weights"] = read_array(flags.norm_weights)
    if flags.norm_matrix is not None:
        weighted["matrix"] = read_matrix(flags.norm_matrix)
    return {**pair, "input": weighted}


def _norm_names(text: str) -> object:
    first, comma, second = text.partition(",")
    return {"input": first.strip(), "output": second.strip()} if comma else first


def _region(flags: Flags) -> object:
    """A box: |x_k - center_k| <= radius_k. Balls and other regions come through `--spec`."""
    center = flags.center or flags.centers
    if center is None and flags.radius is None:
        return None
    if flags.center is not None and flags.centers is not None:
        raise InvalidRequest("--center and --centers were given", fix="give one of the two")
    if center is None or flags.radius is None:
        given, missing = ("--radius", "--center") if center is None else ("--center", "--radius")
        raise InvalidRequest(f"{given} was given without {missing}", fix=f"give {missing} too")
    radius = _radius(flags.radius)
    if flags.centers is not None:
        return {"type": "box", "centers": read_rows(flags.centers), "radius": radius}
    return {"type": "box", "center": read_array(center), "radius": radius}


def _radius(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        if not text.endswith(ARRAY_SUFFIXES):
            raise InvalidRequest(
                f"--radius {text!r} is neither a number nor a .npy, .npz or .json file",
                fix="give a number above 0, or a file with one for each coordinate",
            ) from None
    return read_array(Path(text))


def _option(text: str) -> tuple[str, object]:
    """`name=value`; the value is JSON where it reads as JSON, and text otherwise."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InvalidRequest(f"--option {text!r} has no `=`", fix="write --option name=value")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _unusable(path: Path, detail: str, fix: str) -> InvalidRequest:
    return InvalidRequest(f"{str(path)!r} {detail}", fix=fix)
