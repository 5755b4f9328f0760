"""What both clients do with policies and gates."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from service.calls import Answer, Call, Json, OnProgress, Steps, news, pages, upload


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


def _gate(model: bytes, policy: str, on_progress: OnProgress | None) -> Steps[Json]:
    model_id = yield from upload(model)
    body = json.dumps({"model": model_id, "policy": policy}).encode()
    headers = {"Content-Type": "application/json", "Idempotency-Key": secrets.token_hex(16)}
    response = yield Call("POST", "/v1/gates", headers, body)
    path = f"/v1/gates/{response.json()['id']}"
    return (yield from news(path, on_progress, lambda gate: gate["outcome"] != "pending"))


def _cancel_gate(gate_id: str) -> Steps[Json]:
    response = yield Call("POST", f"/v1/gates/{quote(gate_id)}/cancel")
    return response.json()


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
        return self._run(pages("/v1/policies"))

    def gate(self, model: bytes, policy: str, on_progress: OnProgress | None = None) -> Json:
        """Upload, ask and wait: the gate, as the service has decided it.

        `service.remote.decide_by` decides it again on this machine, by the same certificates.
        """
        return self._run(_gate(model, policy, on_progress))

    def gates(self) -> list[Json]:
        """All gates, newest first, without their rules."""
        return self._run(pages("/v1/gates"))

    def cancel_gate(self, gate_id: str) -> Json:
        """End a gate without a decision, and what its jobs still do."""
        return self._run(_cancel_gate(gate_id))


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
        return await self._run(pages("/v1/policies"))

    async def gate(self, model: bytes, policy: str, on_progress: OnProgress | None = None) -> Json:
        """Upload, ask and wait: the gate, as the service has decided it."""
        return await self._run(_gate(model, policy, on_progress))

    async def gates(self) -> list[Json]:
        """All gates, newest first, without their rules."""
        return await self._run(pages("/v1/gates"))

    async def cancel_gate(self, gate_id: str) -> Json:
        """End a gate without a decision, and what its jobs still do."""
        return await self._run(_cancel_gate(gate_id))
