"""What Prometheus reads of webhooks, as the database has it.

lipcert_webhooks{state}                  enabled, disabled; of every tenant
lipcert_webhook_deliveries{outcome}      of the last 30 days, by what their last try came to
lipcert_webhook_oldest_seconds           for how long the first message that is due has been due
"""

from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily
from sqlalchemy import Connection, func, select

from service.store.tables import webhook
from service.store.tables import webhook_delivery as delivery


def webhook_numbers(connection: Connection, now: int) -> Iterable[GaugeMetricFamily]:
    """Every number, from the connection's snapshot."""
    kept = GaugeMetricFamily("lipcert_webhooks", "Webhooks by state.", labels=("state",))
    rows = connection.execute(select(webhook.c.enabled, func.count()).group_by(webhook.c.enabled))
    for is_enabled, count in rows:
        kept.add_metric(("enabled" if is_enabled else "disabled",), count)
    yield kept
    told = GaugeMetricFamily(
        "lipcert_webhook_deliveries", "Messages by their last outcome.", labels=("outcome",)
    )
    rows = connection.execute(select(delivery.c.outcome, func.count()).group_by(delivery.c.outcome))
    for outcome, count in rows:
        told.add_metric((outcome or "waiting",), count)
    yield told
    first = connection.scalar(select(func.min(delivery.c.due)).where(delivery.c.state == "waiting"))
    late = 0.0 if first is None else max(0, now - first) / 1000
    yield GaugeMetricFamily(
        "lipcert_webhook_oldest_seconds", "How long the first message is late.", value=late
    )
