"""A database, a receiver and a clock, for tests of what webhooks are told."""

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field

from webhook_receiver import Receiver

from service.deliverer import Deliverer, World
from service.sealing import Seal, seal_context
from service.settings import Settings
from service.store import outbox, webhooks
from service.store.database import Database
from service.store.outbox import Delivery
from service.store.paging import Place
from service.store.webhooks import EventName, Jobs, Webhook
from service.webhooks import new_secret

TENANT = "default"
START = 1_700_000_000_000
LEASE_MS = 60_000  #: longer than any lease
DAY_MS = 86_400_000
TRUST = ssl.create_default_context()


@dataclass
class Stage:
    """A database, a receiver, and what the deliverer believes of the world."""

    settings: Settings
    database: Database
    receiver: Receiver
    now: int = START
    names: list[str] = field(default_factory=lambda: ["127.0.0.1"])
    asked: list[str] = field(default_factory=list[str])
    chance: float = 1.0  #: of the longest wait

    async def resolve(self, host: str, _port: int) -> Sequence[str]:
        """What its resolver says."""
        self.asked.append(host)
        return list(self.names)

    def deliverer(self) -> Deliverer:
        """One that sees the world so."""
        world = World(
            resolve=self.resolve,
            now=lambda: self.now,
            clock=lambda _: self.now,
            chance=lambda: self.chance,
            trust=TRUST,
        )
        return Deliverer(self.settings, self.database, world)

    def hook(self, url: str = "", tenant: str = TENANT, jobs: Jobs = "all") -> tuple[str, str]:
        """(id, secret) of a webhook that wants everything."""
        secret, webhook_id = new_secret(), f"{len(self.asked)}{new_secret()}"
        sealed = Seal(self.settings.webhook_key).close(secret, seal_context(tenant, webhook_id))
        new = Webhook(
            id=webhook_id,
            tenant=tenant,
            url=url or self.receiver.url,
            events=webhooks.EVENTS,
            jobs=jobs,
            label="",
            enabled=True,
            disabled=None,
            failing_since=None,
            sealed=sealed,
            old_sealed=None,
            old_until=None,
            created=self.now,
        )
        with self.database.write() as connection:
            assert webhooks.add(connection, new, 20)
        return webhook_id, secret

    def put(self, event: EventName = "gate.finished", tenant: str = TENANT) -> int:
        """Have something to tell."""
        with self.database.write() as connection:
            return outbox.put(connection, tenant, event, "subject", {"n": 1}, self.now)

    def turn(self, count: int = 1) -> None:
        """Deliver what is due now, to the end."""

        async def work() -> None:
            one = self.deliverer()
            for _ in range(count):
                await one.turn()
                await one.settled()

        asyncio.run(work())

    def told(self, webhook_id: str, tenant: str = TENANT) -> list[Delivery]:
        """What a webhook was told, the newest first."""
        with self.database.read() as connection:
            return outbox.page(connection, tenant, webhook_id, Place()).items

    def find(self, webhook_id: str) -> Webhook:
        """A webhook as it is."""
        with self.database.read() as connection:
            found = webhooks.find(connection, TENANT, webhook_id)
        assert found is not None
        return found
