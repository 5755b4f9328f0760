"""Traces of requests and attempts, for operators who ask for them; off, and silent, otherwise.

They ask by the standard variables, OTEL_EXPORTER_OTLP_ENDPOINT among them, with `lipcert[otel]`
installed. A job's row keeps the trace that its request belongs to, so that the attempts join it,
whichever dispatcher makes them and when. Neither names of models nor keys are in a span.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.propagate import extract, inject
from opentelemetry.trace import Status, StatusCode

from service.settings import TELEMETRY_ENDPOINTS
from verifier.errors import InvalidRequest
from verifier.version import VERSION

if TYPE_CHECKING:
    from opentelemetry.trace import Span, TracerProvider

    from service.store.leases import Claim


def provider_of(variables: Mapping[str, str]) -> TracerProvider | None:
    """What sends spans to where the variables say; None where they say nothing.

    Raises:
        InvalidRequest: they ask for traces, and this installation cannot send any.
    """
    if not variables:
        return None
    try:
        # By name: where this is written and checked, it need not be installed.
        exporters = import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider as Provider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise InvalidRequest(
            f"{TELEMETRY_ENDPOINTS[0]} asks for traces: module {error.name!r} is missing",
            fix="pip install 'lipcert[otel]', or unset the variable",
        ) from error
    with _environment(variables):
        provider = Provider(resource=Resource.create({"service.version": VERSION}))
        provider.add_span_processor(BatchSpanProcessor(exporters.OTLPSpanExporter()))
    return provider


def current_trace() -> str | None:
    """The W3C traceparent of the request that is being answered; None where nobody traces."""
    carrier: dict[str, str] = {}
    inject(carrier)
    return carrier.get("traceparent")


def shut_down(provider: TracerProvider | None) -> None:
    """Send what has not been sent, in a bounded time."""
    # The interface of the API has no such method: providers of the SDK do.
    end = getattr(provider, "shutdown", None)
    if end is not None:
        end()


class Spans:
    """The spans of a dispatcher's attempts, by the number of their handle."""

    def __init__(self, provider: TracerProvider | None) -> None:
        self._tracer = (provider or trace.NoOpTracerProvider()).get_tracer("lipcert", VERSION)
        self._open: dict[int, Span] = {}

    def begin(self, number: int, claim: Claim) -> None:
        """An attempt's, in the trace of the request that made its job."""
        parent = None if claim.trace is None else extract({"traceparent": claim.trace})
        self._open[number] = self._tracer.start_span(
            f"attempt {claim.kind}",
            context=parent,
            attributes={"lipcert.job": claim.job, "lipcert.attempt": claim.attempt},
        )

    def end(self, number: int, killed: str | None) -> None:
        """It is over; `killed`: why it was ended before it was done, if it was."""
        span = self._open.pop(number)
        if killed is not None:
            span.set_status(Status(StatusCode.ERROR, killed))
        span.end()


@contextmanager
def _environment(variables: Mapping[str, str]) -> Generator[None]:
    """These variables, for as long as the exporter reads them.

    They can hold the collector's key: what reads models must not inherit them.
    """
    given = {"OTEL_SERVICE_NAME": "lipcert", **variables}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
