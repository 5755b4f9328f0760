"""What Prometheus reads: calls as they were answered, and jobs as the database has them.

lipcert_http_requests_total{method, route, status}
lipcert_http_request_seconds{method, route}          a histogram; streams and long polls too
lipcert_jobs{kind, state}                            jobs of every tenant
lipcert_queue_oldest_seconds                         how long the first in the queue has waited
lipcert_dispatcher_up                                whether anyone works on jobs
lipcert_certificates                                 stored, of every tenant
lipcert_webhook...                                   see `webhook_metrics`
"""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from sqlalchemy import Connection, func, select

from service.store import leases
from service.store.coordination import now_in
from service.store.database import Database
from service.store.tables import certificate, job
from service.webhook_metrics import webhook_numbers

CONTENT_TYPE = CONTENT_TYPE_LATEST
UNMATCHED = "unmatched"  #: the route of paths that do not exist: strangers choose them
SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 60.0)


class Metrics:
    """The numbers of one API process."""

    def __init__(self, database: Database) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "lipcert_http_requests",
            "Calls by what answered them.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "lipcert_http_request_seconds",
            "Seconds from a call to the end of its answer.",
            ("method", "route"),
            buckets=SECONDS,
            registry=self._registry,
        )
        self._registry.register(_Jobs(database))

    def note(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """Count one call."""
        path = route or UNMATCHED
        # Methods come from strangers, too.
        name = method if method in _METHODS else "other"
        self._requests.labels(name, path, str(status)).inc()
        self._seconds.labels(name, path).observe(seconds)

    def text(self) -> bytes:
        """All numbers, in Prometheus' text format."""
        return generate_latest(self._registry)


class _Jobs(Collector):
    """What the database says, at the time of a look."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Every number, from one snapshot."""
        # All at once: a generator that is left half-way would keep its connection.
        with self._database.read() as connection:
            webhooks = webhook_numbers(connection, now_in(connection))
            return [_by_state(connection), *_numbers(connection), *webhooks]

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing: a registry would collect in order to know the names."""
        return ()


def _by_state(connection: Connection) -> GaugeMetricFamily:
    counted = GaugeMetricFamily("lipcert_jobs", "Jobs by kind and state.", labels=("kind", "state"))
    rows = connection.execute(
        select(job.c.kind, job.c.state, func.count()).group_by(job.c.kind, job.c.state)
    )
    for kind, state, count in rows:
        counted.add_metric((kind, state), count)
    return counted


def _numbers(connection: Connection) -> Iterable[GaugeMetricFamily]:
    now = now_in(connection)
    first = connection.scalar(select(func.min(job.c.created)).where(job.c.state == "queued"))
    waited = 0.0 if first is None else max(0, now - first) / 1000
    stored = connection.scalar(select(func.count()).select_from(certificate)) or 0
    is_up = leases.alive(connection, now) is not None
    for name, text, value in (
        ("lipcert_queue_oldest_seconds", "How long the first in the queue has waited.", waited),
        ("lipcert_dispatcher_up", "Whether anyone works on jobs.", float(is_up)),
        ("lipcert_certificates", "Certificates that are stored.", float(stored)),
    ):
        yield GaugeMetricFamily(name, text, value=value)


_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
