"""The service from Python: upload, ask, wait, fetch, check. httpx alone; no torch, no onnx.

    with Client("http://127.0.0.1:8321") as lipcert:
        certificate = lipcert.certify(model, {"property": {"norm": "l2"}})
        assert lipcert.check(certificate, model).valid

`AsyncClient` has the same methods, to be awaited. What both do is written once, as generators that
yield calls and are sent responses; the clients differ in how they make a call and how they wait.
A call that may be repeated is repeated: after a lost connection, and when the service asks to.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import httpx

from service.calls import WAIT_S, Answer, Call, Json, OnProgress, Steps, news, upload
from service.gate_calls import AsyncGateCalls, GateCalls
from service.webhook_calls import AsyncWebhookCalls, WebhookCalls

if TYPE_CHECKING:
    from types import TracebackType

    from verifier.checker import Verdict

URL = "http://127.0.0.1:8321"
REPEATS = 5  #: of one call
ENDED = ("succeeded", "failed", "canceled", "expired")


class ServiceRefusal(Exception):
    """What the service answers instead: its problem object, or what stands for one."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.problem = problem
        self.code = str(problem.get("code", "unknown"))
        self.detail = str(problem.get("detail", ""))
        self.fix = str(problem.get("fix", ""))
        super().__init__(f"{self.code}: {self.detail} ({self.fix})")


class JobHasNoCertificate(Exception):
    """A job ended without a certificate; `job` says why."""

    def __init__(self, job: Json) -> None:
        self.job = job
        error: Mapping[str, Any] = job["error"] or {}
        self.code = str(error.get("code", job["state"]))
        super().__init__(f"job {job['id']} {job['state']}: {error.get('detail', self.code)}")


# --- What is done, whoever makes the calls -------------------------------------------------------


def _submit(path: str, model_id: str, request: Mapping[str, Any]) -> Steps[Json]:
    body = json.dumps({**request, "model": model_id}, allow_nan=False).encode()
    headers = {"Content-Type": "application/json", "Idempotency-Key": secrets.token_hex(16)}
    response = yield Call("POST", path, headers, body)
    return response.json()


def _wait(job_id: str, on_progress: OnProgress | None) -> Steps[Json]:
    """The job once it has ended; `on_progress` sees every version met, the first and last too."""
    path = f"/v1/jobs/{job_id}"
    return (yield from news(path, on_progress, lambda job: job["state"] in ENDED))


def _job(job_id: str) -> Steps[Json]:
    response = yield Call("GET", f"/v1/jobs/{job_id}")
    return response.json()


def _cancel(job_id: str) -> Steps[Json]:
    response = yield Call("POST", f"/v1/jobs/{job_id}/cancel")
    return response.json()


def _certificate(certificate_id: str) -> Steps[Json]:
    response = yield Call("GET", f"/v1/certificates/{certificate_id}")
    return response.json()


def _certify(
    model: bytes, request: Mapping[str, Any], on_progress: OnProgress | None
) -> Steps[Json]:
    model_id = yield from upload(model)
    submitted = yield from _submit("/v1/jobs", model_id, request)
    job = yield from _wait(submitted["id"], on_progress)
    if job["certificate"] is None:
        raise JobHasNoCertificate(job)
    return (yield from _certificate(job["certificate"]))


def _radii(
    model: bytes, question: Mapping[str, Any], on_progress: OnProgress | None
) -> Steps[Json]:
    model_id = yield from upload(model)
    submitted = yield from _submit("/v1/radius", model_id, question)
    job = yield from _wait(submitted["id"], on_progress)
    if job["state"] in ("failed", "expired"):
        raise JobHasNoCertificate(job)
    response = yield Call("GET", f"/v1/jobs/{job['id']}/radii")
    return response.json()


# --- How calls are made --------------------------------------------------------------------------


class _Caller:
    """What both clients know of the service, and of repeating."""

    def __init__(self, url: str | None, key: str | None) -> None:
        self._url = url or os.environ.get("LIPCERT_URL") or URL
        chosen = key or os.environ.get("LIPCERT_API_KEY")
        self._headers = {} if chosen is None else {"Authorization": f"Bearer {chosen}"}
        self._timeout = httpx.Timeout(30.0, read=WAIT_S + 30.0, write=None)

    @staticmethod
    def _pause(call: Call, attempt: int, response: httpx.Response | None) -> float | None:
        """Seconds before the call is repeated; None where it is not."""
        is_worth_it = not call.once if response is None else _is_busy(response)
        if attempt == REPEATS or not is_worth_it:
            return None
        said = "" if response is None else response.headers.get("Retry-After", "")
        # Full jitter: many clients that were refused at once do not come back at once.
        backoff = random.uniform(0, 0.25 * 2**attempt)  # noqa: S311 - no secret
        return max(float(said) if said.isdigit() else 0.0, backoff)

    @staticmethod
    def _accepted(call: Call, response: httpx.Response) -> httpx.Response:
        if response.is_success or response.status_code in call.allowed:
            return response
        try:
            problem = response.json()
        except ValueError:
            problem = None
        is_said = isinstance(problem, dict)
        said = f"{call.method} {call.path}: {response.text[:500]}"
        members: Json = cast("Json", problem) if is_said else {"detail": said}
        raise ServiceRefusal(response.status_code, members)

    @staticmethod
    def check(certificate: Mapping[str, Any], model: bytes) -> Verdict:
        """What the independent checker says here, on this machine, of a certificate."""
        from verifier.checker import check

        return check(json.dumps(certificate, allow_nan=False).encode(), model)


def _is_busy(response: httpx.Response) -> bool:
    """Whether the service asks to come again: it has no room, or works on this very call."""
    in_progress = "idempotency-in-progress"
    return response.status_code in (429, 503) or (
        response.status_code == 409 and in_progress in response.text
    )


class Client(_Caller, GateCalls, WebhookCalls):
    """A service, call by call.

    Args:
        url: its address; else $LIPCERT_URL, else this machine's.
        key: the API key; else $LIPCERT_API_KEY, else none.
        transport: how httpx reaches it, for tests and proxies.

    Every method raises ServiceRefusal where the service refuses, and httpx.TransportError where it
    cannot be reached.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(url, key)
        self._http = httpx.Client(
            base_url=self._url, headers=self._headers, timeout=self._timeout, transport=transport
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def upload(self, model: bytes) -> str:
        """Store a model, unless it is there; its id."""
        return self._run(upload(model))

    def submit(self, model_id: str, request: Mapping[str, Any]) -> Json:
        """Ask for a bound: the job."""
        return self._run(_submit("/v1/jobs", model_id, request))

    def job(self, job_id: str) -> Json:
        """A job as it is."""
        return self._run(_job(job_id))

    def wait(self, job_id: str, on_progress: OnProgress | None = None) -> Json:
        """A job after its end."""
        return self._run(_wait(job_id, on_progress))

    def cancel(self, job_id: str) -> Json:
        """Stop a job; what was proved is kept."""
        return self._run(_cancel(job_id))

    def certificate(self, certificate_id: str) -> Json:
        """A certificate by its id."""
        return self._run(_certificate(certificate_id))

    def certify(
        self, model: bytes, request: Mapping[str, Any], on_progress: OnProgress | None = None
    ) -> Json:
        """Upload, ask and wait: the certificate.

        Raises:
            JobHasNoCertificate: the job ended without one.
        """
        return self._run(_certify(model, request, on_progress))

    def radii(
        self, model: bytes, question: Mapping[str, Any], on_progress: OnProgress | None = None
    ) -> Json:
        """Upload, ask and wait: radii with their certificates.

        Raises:
            JobHasNoCertificate: the job failed.
        """
        return self._run(_radii(model, question, on_progress))

    def _run(self, steps: Steps[Answer]) -> Answer:
        call = next(steps)
        while True:
            response = self._made(call)
            try:
                call = steps.send(response)
            except StopIteration as end:
                return end.value

    def _made(self, call: Call) -> httpx.Response:
        for attempt in range(REPEATS + 1):
            response = None
            try:
                response = self._http.request(
                    call.method, call.path, headers=dict(call.headers), content=call.content
                )
                pause = self._pause(call, attempt, response)
            except httpx.TransportError:
                pause = self._pause(call, attempt, None)
                if pause is None:
                    raise
            if response is not None and pause is None:
                return self._accepted(call, response)
            time.sleep(pause or 0.0)
        raise AssertionError("the last attempt answers or raises")


class AsyncClient(_Caller, AsyncGateCalls, AsyncWebhookCalls):
    """The same, to be awaited."""

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(url, key)
        self._http = httpx.AsyncClient(
            base_url=self._url, headers=self._headers, timeout=self._timeout, transport=transport
        )

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def upload(self, model: bytes) -> str:
        """Store a model, unless it is there; its id."""
        return await self._run(upload(model))

    async def submit(self, model_id: str, request: Mapping[str, Any]) -> Json:
        """Ask for a bound: the job."""
        return await self._run(_submit("/v1/jobs", model_id, request))

    async def job(self, job_id: str) -> Json:
        """A job as it is."""
        return await self._run(_job(job_id))

    async def wait(self, job_id: str, on_progress: OnProgress | None = None) -> Json:
        """A job after its end."""
        return await self._run(_wait(job_id, on_progress))

    async def cancel(self, job_id: str) -> Json:
        """Stop a job; what was proved is kept."""
        return await self._run(_cancel(job_id))

    async def certificate(self, certificate_id: str) -> Json:
        """A certificate by its id."""
        return await self._run(_certificate(certificate_id))

    async def certify(
        self, model: bytes, request: Mapping[str, Any], on_progress: OnProgress | None = None
    ) -> Json:
        """Upload, ask and wait: the certificate.

        Raises:
            JobHasNoCertificate: the job ended without one.
        """
        return await self._run(_certify(model, request, on_progress))

    async def radii(
        self, model: bytes, question: Mapping[str, Any], on_progress: OnProgress | None = None
    ) -> Json:
        """Upload, ask and wait: radii with their certificates.

        Raises:
            JobHasNoCertificate: the job failed.
        """
        return await self._run(_radii(model, question, on_progress))

    async def _run(self, steps: Steps[Answer]) -> Answer:
        call = next(steps)
        while True:
            response = await self._made(call)
            try:
                call = steps.send(response)
            except StopIteration as end:
                return end.value

    async def _made(self, call: Call) -> httpx.Response:
        for attempt in range(REPEATS + 1):
            response = None
            try:
                response = await self._http.request(
                    call.method, call.path, headers=dict(call.headers), content=call.content
                )
                pause = self._pause(call, attempt, response)
            except httpx.TransportError:
                pause = self._pause(call, attempt, None)
                if pause is None:
                    raise
            if response is not None and pause is None:
                return self._accepted(call, response)
            await asyncio.sleep(pause or 0.0)
        raise AssertionError("the last attempt answers or raises")
