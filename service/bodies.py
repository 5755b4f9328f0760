"""Reading request bodies: counted while they come, never whole in memory when they may be large.

JSON is strict: NaN and Infinity are no numbers, and a key that stands twice is a mistake.
"""

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncIterator
from typing import cast

from fastapi import Request
from python_multipart import MultipartParser
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect

from service.blobs import Draft
from service.problems import Problem

JSON_TYPES = ("application/json",)
DRAIN_BYTES = 64 * 2**20


def media_type(request: Request) -> str:
    """The body's type without parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def require_type(request: Request, allowed: tuple[str, ...]) -> None:
    """Refuse another type, and any compression.

    Raises:
        Problem: unsupported-media-type.
    """
    found = media_type(request)
    if found not in allowed:
        raise Problem(
            "unsupported-media-type",
            f"Content-Type is {found or 'missing'!r}",
            fix=f"send Content-Type: {' or '.join(allowed)}",
        )
    if request.headers.get("content-encoding", "identity") != "identity":
        # A decompressed body can be hundreds of times the size that was counted.
        raise Problem(
            "unsupported-media-type",
            f"Content-Encoding is {request.headers['content-encoding']!r}",
            fix="send the bytes as they are",
        )


async def chunks(
    request: Request, limit: int, idle_s: float, name: str | None = None
) -> AsyncIterator[bytes]:
    """The body's bytes as they come, at most `limit` of them; `name`: the tenant's limit.

    Raises:
        Problem: payload-too-large, request-timeout.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and limit < int(announced):
        raise _too_large(limit, f"Content-Length is {announced}", name)
    count = 0
    stream = request.stream()
    while True:
        try:
            chunk = await asyncio.wait_for(anext(stream), idle_s)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise Problem("request-timeout", f"no byte came for {idle_s:g} seconds") from error
        count += len(chunk)
        if limit < count:
            await _drain(stream, idle_s)
            raise _too_large(limit, "the body is larger", name)
        yield chunk


async def read_json(request: Request, limit: int, idle_s: float) -> object:
    """The value that a JSON body states.

    Raises:
        Problem: unsupported-media-type, payload-too-large, request-timeout, malformed-json.
    """
    require_type(request, JSON_TYPES)
    return parse_json(b"".join([chunk async for chunk in chunks(request, limit, idle_s)]))


def parse_json(text: bytes) -> object:
    """The value of a strict JSON text.

    Raises:
        Problem: malformed-json.
    """
    try:
        return json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Problem("malformed-json", f"the body is not strict JSON: {error}") from error


async def receive(request: Request, draft: Draft, limit: int, idle_s: float) -> None:
    """Write the body into a draft.

    Raises:
        Problem: payload-too-large, request-timeout, invalid-request for an empty body.
    """
    async for chunk in chunks(request, limit, idle_s, "model_bytes"):
        draft.write(chunk)
    if draft.size == 0:
        raise Problem("not-onnx", "the body is empty", fix="send the bytes of an ONNX file")


async def receive_parts(
    request: Request, draft: Draft, limit: int, json_limit: int, idle_s: float
) -> bytes:
    """Write the part `model` into a draft; the text of the part `request`, or {}.

    Raises:
        Problem: malformed-multipart, payload-too-large, request-timeout.
    """
    options = parse_options_header(request.headers.get("content-type"))[1]
    boundary = options.get(b"boundary")
    if not boundary:
        raise Problem("malformed-multipart", "Content-Type has no boundary")
    parts = _Parts(draft, json_limit)
    try:
        parser = parts.parser(boundary)
        async for chunk in chunks(request, limit + json_limit, idle_s):
            parser.write(chunk)
            if limit < draft.size:
                raise _too_large(limit, "the part `model` is larger", "model_bytes")
    except MultipartParseError as error:
        raise Problem("malformed-multipart", str(error)) from error
    parts.require_whole()
    return bytes(parts.request)


class _Parts:
    """The two parts of a submission in one call, as the parser finds them."""

    def __init__(self, draft: Draft, json_limit: int) -> None:
        self.request = bytearray()
        self._draft = draft
        self._json_limit = json_limit
        self._seen: list[str] = []
        self._is_whole = False
        self._header = (bytearray(), bytearray())
        self._name: str | None = None

    def parser(self, boundary: bytes) -> MultipartParser:
        """The parser that calls this."""
        return MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._data,
                "on_end": self._end,
            },
        )

    def require_whole(self) -> None:
        """Refuse a body that ended early, or has no model.

        Raises:
            Problem: malformed-multipart.
        """
        if not self._is_whole:
            raise Problem("malformed-multipart", "the body ends before its last boundary")
        if "model" not in self._seen or self._draft.size == 0:
            raise Problem("malformed-multipart", "there is no part `model` with bytes in it")

    def _begin(self) -> None:
        self._name = None

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def _header_end(self) -> None:
        field, value = (bytes(text) for text in self._header)
        self._header = (bytearray(), bytearray())
        if field.lower() == b"content-disposition":
            name = parse_options_header(value)[1].get(b"name", b"")
            self._name = name.decode("utf-8", "replace")

    def _headers_finished(self) -> None:
        if self._name not in ("model", "request"):
            raise Problem("malformed-multipart", f"part {str(self._name)[:100]!r} is unknown")
        if self._name in self._seen:
            raise Problem("malformed-multipart", f"part `{self._name}` occurs twice")
        self._seen.append(self._name)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._name == "model":
            self._draft.write(data[start:end])
            return
        self.request.extend(data[start:end])
        if self._json_limit < len(self.request):
            raise _too_large(self._json_limit, "the part `request` is larger")

    def _end(self) -> None:
        self._is_whole = True


def announced_digest(request: Request) -> str | None:
    """The hex SHA-256 that `Content-Digest` (RFC 9530) announces, if it does.

    Raises:
        Problem: digest-mismatch, where the header is there and says no SHA-256.
    """
    header = request.headers.get("content-digest")
    if header is None:
        return None
    for item in header.split(","):
        name, _, value = item.strip().partition("=")
        if name == "sha-256" and value.startswith(":") and value.endswith(":"):
            try:
                return base64.b64decode(value.strip(":"), validate=True).hex()
            except binascii.Error:
                break
    raise Problem("digest-mismatch", f"Content-Digest {header[:100]!r} has no readable sha-256")


def content_digest(digest: str) -> str:
    """The value of `Content-Digest` for a hex SHA-256."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(digest)).decode()}:"


async def _drain(stream: AsyncIterator[bytes], idle_s: float) -> None:
    """Read on for a while: a client that is still sending does not see an answer."""
    count = 0
    try:
        while count < DRAIN_BYTES:
            count += len(await asyncio.wait_for(anext(stream), min(idle_s, 2.0)))
    except (StopAsyncIteration, TimeoutError, ClientDisconnect):
        return


def _too_large(limit: int, detail: str, name: str | None = None) -> Problem:
    said = f"{detail}; at most {limit} bytes are taken"
    return Problem("payload-too-large", said, limit=name)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:100]!r} stands twice in one object")
    return members


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")


def as_object(value: object) -> dict[str, object]:
    """A JSON value as an object.

    Raises:
        Problem: invalid-request.
    """
    if not isinstance(value, dict):
        raise Problem(
            "invalid-request", "the body is not a JSON object", fix="send an object", pointer=""
        )
    return cast("dict[str, object]", value)
