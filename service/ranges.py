"""Files as answers: parts by `Range`, and nothing at all for whoever has them already.

One range is served; several, or what is no range, are ignored, as RFC 9110 allows: the answer is
the whole file.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from fastapi import Request, Response
from fastapi.responses import FileResponse

from service.problems import Problem

_RANGE = re.compile(r"bytes=(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))")


def file_answer(
    request: Request, path: Path, media_type: str, headers: Mapping[str, str]
) -> Response:
    """The file, a part of it, or 304 where `If-None-Match` has the ETag of `headers`.

    Raises:
        Problem: range-not-satisfiable; not-found, where the file was deleted meanwhile.
    """
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=dict(headers))
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise Problem("not-found", "it was deleted just now") from error
    _settle_range(request, size)
    return FileResponse(path, media_type=media_type, headers=dict(headers))


def _settle_range(request: Request, size: int) -> None:
    """Leave a range in the request only where it is one that can be had."""
    asked = request.headers.get("range")
    if asked is None:
        return
    found = _RANGE.fullmatch(asked)
    if found is not None:
        # Without a first byte it is a number of last ones.
        first = None if found[1] is None else int(found[1])
        if (int(found[3]) == 0) if first is None else (size <= first):
            raise Problem(
                "range-not-satisfiable",
                f"Range is {asked}, of {size} bytes",
                headers={"Content-Range": f"bytes */{size}"},
            )
        if not found[2] or first is None or first <= int(found[2]):
            return
    kept = [(name, value) for name, value in request.scope["headers"] if name != b"range"]
    request.scope["headers"] = kept
