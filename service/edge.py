"""The outermost layer: every response has an id, and other sites' pages are turned away.

On loopback without keys anyone on the machine may call, so a page in a browser must not be able
to: a Host header with another name is DNS rebinding, an Origin on a write is a foreign page.
"""

import json
import logging
import re
import secrets
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.metrics import UNMATCHED, Metrics
from service.problems import MEDIA_TYPE, Problem
from service.settings import Settings

log = logging.getLogger("lipcert.calls")

#: Asked every few seconds by machines.
PROBES = ("/healthz", "/metrics", "/readyz")

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Edge:
    """ASGI middleware around the whole app."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._hosts: Sequence[str] = settings.allowed_hosts
        if settings.is_loopback and not self._hosts:
            self._hosts = LOOPBACK_HOSTS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value for name, value in scope["headers"]}
        request_id = _id_of(headers.get("x-request-id", b"").decode("latin-1"))
        scope.setdefault("state", {})["request_id"] = request_id

        status, began = 0, time.monotonic()

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                added = [
                    (b"x-request-id", request_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        refusal = self._refusal(scope["method"], headers)
        try:
            if refusal is None:
                await self._app(scope, receive, send_named)
            else:
                await _answer(send_named, refusal, request_id)
        finally:
            self._note(scope, status, time.monotonic() - began)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        """Count the call and log it: by its route, since a path may name what is secret."""
        route = getattr(scope.get("route"), "path", None)
        self._metrics.note(scope["method"], route, status, seconds)
        level = logging.DEBUG if route in PROBES else logging.INFO
        log.log(
            level,
            "%s %s %s",
            scope["method"][:20],
            route or UNMATCHED,
            status,
            extra={
                "with": {
                    "request_id": scope["state"]["request_id"],
                    "status": status,
                    "seconds": round(seconds, 6),
                }
            },
        )

    def _refusal(self, method: str, headers: dict[str, bytes]) -> Problem | None:
        if not self._hosts:
            return None
        host = headers.get("host", b"").decode("latin-1")
        if _hostname(f"//{host}") not in self._hosts:
            return Problem("host-refused", f"Host is {host[:200]!r}")
        origin = headers.get("origin", b"").decode("latin-1")
        is_write = method not in ("GET", "HEAD", "OPTIONS")
        if is_write and origin and urlsplit(origin).netloc.lower() != host.lower():
            return Problem("origin-refused", f"Origin is {origin[:200]!r}")
        return None


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _id_of(proposed: str) -> str:
    """The client's id, where it is one that can stand in a header and a log."""
    return proposed if _REQUEST_ID.fullmatch(proposed) else secrets.token_hex(8)


async def _answer(send: Send, problem: Problem, request_id: str) -> None:
    body = json.dumps(problem.to_json(request_id)).encode()
    headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
