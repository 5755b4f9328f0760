"""What both clients do with policies and gates."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from service.calls import Answer, Call, Json, OnProgress, Steps, news, upload


def _put_policy(name: str, policy: Mapping[str, Any] | bytes) -> Steps[Json]:
    is_text = isinstance(policy, bytes)
    content = policy if is_text else json.dumps(policy, allow_nan=False).encode()
    headers = {"Content-Type": "application/yaml" if is_text else "application/json"}
    response = yield Call("PUT", f"/v1/policies/{quote(name)}", headers, content)
    return response.json()


def _policy(reference: str) -> Steps[Json]:
    name, _, version = reference.partition("@")
    query = f"?version={quote(version)}" if version else ""
    response = yield Call("GET", f"/v1/policies/{quote(name, safe=':')}{query}")
    return response.json()


def _policies() -> Steps[list[Json]]:
    found: list[Json] = []
    path = "/v1/policies?limit=200"
    cursor: str | None = ""
    while cursor is not None:
        response = yield Call("GET", path + (f"&cursor={quote(cursor)}" if cursor else ""))
        page = response.json()
        found += page["items"]
        cursor = page["next_cursor"]
    return found


def _gate(model: bytes, policy: str, on_progress: OnProgress | None) -> Steps[Json]:
    model_id = yield from upload(model)
    body = json.dumps({"model": model_id, "policy": policy}).encode()
    headers = {"Content-Type": "application/json", "Idempotency-Key": secrets.token_hex(16)}
    response = yield Call("POST", "/v1/gates", headers, body)
    path = f"/v1/gates/{response.json()['id']}"
    return (yield from news(path, on_progress, lambda gate: gate["outcome"] != "pending"))


class GateCalls:
    """Policies and gates, for the client that waits."""

    def _run(self, steps: Steps[Answer]) -> Answer:
        raise NotImplementedError

    def put_policy(self, name: str, policy: Mapping[str, Any] | bytes) -> Json:
        """Store a policy, as JSON or as YAML text, unless its newest version says the same."""
        return self._run(_put_policy(name, policy))

    def policy(self, reference: str) -> Json:
        """A policy by name, name@version, or digest."""
        return self._run(_policy(reference))

    def policies(self) -> list[Json]:
        """The newest version of every policy, without its rules."""
        return self._run(_policies())

    def gate(self, model: bytes, policy: str, on_progress: OnProgress | None = None) -> Json:
        """Upload, ask and wait: the gate, as the service has decided it.

        `service.remote.decide_by` decides it again on this machine, by the same certificates.
        """
        return self._run(_gate(model, policy, on_progress))


class AsyncGateCalls:
    """The same, to be awaited."""

    async def _run(self, steps: Steps[Answer]) -> Answer:
        raise NotImplementedError

    async def put_policy(self, name: str, policy: Mapping[str, Any] | bytes) -> Json:
        """Store a policy, as JSON or as YAML text, unless its newest version says the same."""
        return await self._run(_put_policy(name, policy))

    async def policy(self, reference: str) -> Json:
        """A policy by name, name@version, or digest."""
        return await self._run(_policy(reference))

    async def policies(self) -> list[Json]:
        """The newest version of every policy, without its rules."""
        return await self._run(_policies())

    async def gate(self, model: bytes, policy: str, on_progress: OnProgress | None = None) -> Json:
        """Upload, ask and wait: the gate, as the service has decided it."""
        return await self._run(_gate(model, policy, on_progress))
