"""Told to stop, the service hands its work back and is gone in time, whoever still listens."""

import signal
import socket
from collections.abc import Callable
from pathlib import Path

from service_fakes import model
from service_process import Service, eventually, pids_in

from service.store import jobs
from service.store.engine import open_database

GRACE_S = 20.0  #: what an orchestrator gives before it kills


def _listen(service: Service, path: str, header: str) -> socket.socket:
    """A connection on which an answer has begun, or is waited for."""
    client = socket.create_connection(("127.0.0.1", service.settings.port), timeout=GRACE_S)
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n".encode())
    return client


def test_a_stop_hands_leases_back_under_streams_and_long_polls(
    own_service: Callable[..., Service], tmp_path: Path
) -> None:
    workers = tmp_path / "pids"
    service = own_service()
    job = service.submit(service.upload(model(["count", str(workers)], "hang")))
    path = f"/v1/jobs/{job['id']}"
    pids_in(workers)
    version = service.job(job["id"])["version"]
    stream = _listen(service, f"{path}/events", "Accept: text/event-stream")
    poll = _listen(service, path, f'If-None-Match: "{version}"\r\nPrefer: wait=60')
    assert stream.recv(4096).startswith(b"HTTP/1.1 200")
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(GRACE_S) == 0
    stream.close()
    poll.close()
    database = open_database(service.settings.database)
    with database.read() as connection:
        left = jobs.find(connection, "default", job["id"])
    database.close()
    assert left is not None
    assert (left.state, left.attempt) == ("queued", 1)
    service.restart()
    again = eventually(lambda: service.job(job["id"])["attempt"] == 2)
    assert again, "the next service takes it up at once, without waiting for a lease to lapse"
    service.client.post(f"{path}/cancel")
    service.ended(job["id"])
