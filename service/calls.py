"""What a client does, as generators that yield calls and are sent responses: written once for both.

`service.client` has the clients, which differ in how they make a call and how they wait.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar
from urllib.parse import quote

import httpx

Json: TypeAlias = dict[str, Any]  # Any: what the service says; the interface fixes its members
OnProgress: TypeAlias = Callable[[Json], None]  #: takes a job or gate, whenever it has changed
Answer = TypeVar("Answer")

WAIT_S = 30  #: of one long poll


@dataclass(frozen=True, slots=True)
class Call:
    """One request. It may be repeated, being idempotent by its method or by its key; or `once`."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    content: bytes | None = None
    allowed: tuple[int, ...] = ()  #: statuses that are answers although they are no success
    once: bool = False  #: not again where nobody knows whether it arrived


Steps: TypeAlias = Generator[Call, httpx.Response, Answer]


def upload(model: bytes) -> Steps[str]:
    """Store a model, unless it is there; its id."""
    model_id = "sha256:" + hashlib.sha256(model).hexdigest()
    path = f"/v1/models/{model_id}"
    known = yield Call("HEAD", path, allowed=(404,))
    if known.status_code == 404:
        yield Call("PUT", path, {"Content-Type": "application/octet-stream"}, model)
    return model_id


def news(path: str, on_progress: OnProgress | None, is_over: Callable[[Json], bool]) -> Steps[Json]:
    """What is at a path once it is over; `on_progress` sees every version met, the last too."""
    headers: dict[str, str] = {}
    while True:
        response = yield Call("GET", path, headers, allowed=(304,))
        if response.status_code == 304:
            continue
        found: Json = response.json()
        if on_progress is not None:
            on_progress(found)
        if is_over(found):
            return found
        headers = {"If-None-Match": response.headers["ETag"], "Prefer": f"wait={WAIT_S}"}


def pages(path: str) -> Steps[list[Json]]:
    """All items of a list, page by page."""
    found: list[Json] = []
    cursor: str | None = ""
    while cursor is not None:
        after = f"&cursor={quote(cursor)}" if cursor else ""
        response = yield Call("GET", f"{path}?limit=200{after}")
        page = response.json()
        found += page["items"]
        cursor = page["next_cursor"]
    return found


def json_call(method: str, path: str, members: object, *, once: bool = False) -> Call:
    """A request with a JSON body."""
    content = json.dumps(members, allow_nan=False).encode()
    return Call(method, path, {"Content-Type": "application/json"}, content, once=once)
