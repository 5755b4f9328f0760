"""Sending one message to one address that was vetted before.

The connection goes to the address; the name is what TLS verifies and what the Host header says. So
nothing is resolved here, no redirect is followed, no proxy of the environment is asked, and the
whole takes no longer than it may, however slowly the receiver answers.
"""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus

import httpx

from service.store.outbox import Outcome
from service.webhook_targets import Target
from verifier.version import VERSION

CONNECT_S = 3.0  #: before the next address of a name is tried
ANSWER_S = 1.0  #: for what comes after the status, which nobody reads
ANSWER_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Sent:
    """What a try came to, and the status that the receiver answered."""

    outcome: Outcome
    status: int | None = None


async def post(
    target: Target,
    addresses: Sequence[str],
    headers: Mapping[str, str],
    body: bytes,
    *,
    timeout_s: float,
    trust: ssl.SSLContext,
) -> Sent:
    """Send a body to the first of the addresses that takes connections.

    Args:
        target: the URL that it is for.
        addresses: of its host, each of them allowed.
        headers: besides those of HTTP itself.
        body: JSON.
        timeout_s: for all of it: connecting, sending, and waiting for the status.
        trust: the authorities that may vouch for the receiver's name.
    """
    all_headers = {
        **headers,
        "Host": target.authority,
        "User-Agent": f"lipcert/{VERSION}",
        "Content-Type": "application/json",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
    }
    async with _client(trust) as client:
        answer: httpx.Response | Outcome = "timeout"
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                answer = await _answer(client, target, addresses, all_headers, body)
        if isinstance(answer, str):
            return Sent(answer)
        await _discard(answer)
    status = answer.status_code
    if status == HTTPStatus.GONE:
        return Sent("gone", status)
    return Sent("delivered" if answer.is_success else "status", status)


def _client(trust: ssl.SSLContext) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        verify=trust,
        trust_env=False,
        follow_redirects=False,
        # Between two bytes there is no limit of its own: the one for the whole is shorter.
        timeout=httpx.Timeout(None, connect=CONNECT_S),
    )


async def _answer(
    client: httpx.AsyncClient,
    target: Target,
    addresses: Sequence[str],
    headers: Mapping[str, str],
    body: bytes,
) -> httpx.Response | Outcome:
    """What the first address that takes connections answers, up to its headers."""
    outcome: Outcome = "unreachable"
    for address in addresses:
        host = f"[{address}]" if ":" in address else address
        request = client.build_request(
            "POST",
            f"{target.scheme}://{host}:{target.port}{target.path}",
            headers=headers,
            content=body,
            extensions={"sni_hostname": target.host},
        )
        try:
            return await client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            outcome = "untrusted" if _is_of_tls(error) else "unreachable"
        except httpx.HTTPError:
            return "broken"
    return outcome


async def _discard(answer: httpx.Response) -> None:
    """Let the receiver end its answer, as far as that is short and quick."""
    count = 0
    # The status is known: what goes wrong from here on changes nothing.
    with suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(ANSWER_S):
            async for chunk in answer.aiter_raw():
                count += len(chunk)
                if ANSWER_BYTES <= count:
                    break
    await answer.aclose()


def _is_of_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False
