"""kill -9 at random: `python -m benchmarks.kill_drill [--kills 500] [--postgresql]`.

A real service proves bounds of small networks for clients that retry with Idempotency-Key, while
its processes are killed at random instants. Wanted: nothing acknowledged is lost, no job is there
twice or stuck, no certificate is there without its job, and every bound is the one that a quiet
run finds. Ended by the report; exit code 1 where it is not as wanted.

Attempts are not limited here: a job that is killed three times by chance is no poison.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "service"))  # as the tests find it

import httpx
from postgres import Postgres

from benchmarks.drill_questions import Question, questions
from benchmarks.drill_report import Books, print_report
from benchmarks.live_service import Kind, LiveService, kill, settings_for
from verifier import parse_request, verify

#: How often each is killed among those that take the others with them, and among the others.
HEAVY: Mapping[Kind, float] = {"api": 0.3, "dispatcher": 0.3, "forkserver": 0.4}
LIGHT: Mapping[Kind, float] = {"worker": 0.7, "checker": 0.3}
NETWORKS = 25
STUCK_S = 300.0  #: without news of a job, after which it is given up


@dataclass
class Progress:
    """What the threads of a drill share."""

    jobs: int
    kills: int
    books: Books = field(default_factory=Books)
    lock: threading.Lock = field(default_factory=threading.Lock)
    asked: int = 0

    @property
    def killed(self) -> int:
        """How many processes were killed."""
        return len(self.books.kills)

    def next_job(self) -> int | None:
        """The number of the next job; None when there were enough of jobs and kills."""
        with self.lock:
            if self.jobs <= self.asked and self.kills <= self.killed:
                return None
            self.asked += 1
            return self.asked - 1


class Customer:
    """Asks one question after another, and believes nothing that was not acknowledged."""

    def __init__(self, url: str, progress: Progress, asked: Sequence[Question]) -> None:
        self._client = httpx.Client(base_url=url, timeout=15.0)
        self._progress = progress
        self._asked = asked

    def run(self) -> None:
        """Ask until there were enough."""
        while (number := self._progress.next_job()) is not None:
            self._ask(number)

    def _ask(self, number: int) -> None:
        count = len(self._asked)
        question = self._asked[number % count]
        model = self._call(
            "POST",
            "/v1/models",
            content=question.model(number // count),
            headers={"Content-Type": "application/octet-stream"},
        )["id"]
        books = self._progress.books
        key = f"drill-{number}"
        members = {"model": model, **question.request}
        ids = {self._submit(key, members) for _ in range(1 if number % 5 else 2)}  # some ask twice
        books.acknowledged[key] = ids
        for job_id in ids:
            books.question_of[job_id] = number % count
            self._await_end(job_id)

    def _submit(self, key: str, members: Mapping[str, Any]) -> str:
        headers = {"Idempotency-Key": key}
        return self._call("POST", "/v1/jobs", json=members, headers=headers)["id"]

    def _await_end(self, job_id: str) -> None:
        end = time.monotonic() + STUCK_S
        while time.monotonic() < end:
            job = self._call("GET", f"/v1/jobs/{job_id}", headers={"Prefer": "wait=5"})
            if job["ended"]:
                self._progress.books.ended[job_id] = job
                return

    def _call(self, method: str, path: str, **more: Any) -> Any:  # noqa: ANN401 - JSON
        """The answer, however often it takes to get one."""
        while True:
            try:
                response = self._client.request(method, path, **more)
            except httpx.TransportError:
                self._progress.books.unanswered += 1
                time.sleep(0.2)
                continue
            if "retry-after" not in response.headers or response.status_code < 500:
                return response.raise_for_status().json()
            self._progress.books.answers_5xx[response.status_code] += 1
            time.sleep(0.2)


class Killer(threading.Thread):
    """Kills processes of a service at random instants, and starts it again when it has ended."""

    def __init__(
        self,
        service: LiveService,
        progress: Progress,
        rng: random.Random,
        given: argparse.Namespace,
    ) -> None:
        super().__init__(daemon=True)
        self.finished = threading.Event()
        self._service = service
        self._progress = progress
        self._rng = rng
        self._every_s = float(given.every)
        self._heavy = float(given.heavy)

    def run(self) -> None:
        """Kill until there were enough; restart until the drill is over."""
        next_kill = time.monotonic() + self._pause()
        while not self.finished.wait(0.02):
            self._service.restart_if_ended()
            if self._progress.killed < self._progress.kills and next_kill < time.monotonic():
                self._kill_one()
                next_kill = time.monotonic() + self._pause()

    def _pause(self) -> float:
        return self._rng.expovariate(1 / self._every_s)

    def _kill_one(self) -> None:
        weights = HEAVY if self._rng.random() < self._heavy else LIGHT
        (kind,) = self._rng.choices(list(weights), list(weights.values()))
        pids = self._service.pids(kind)
        if pids and kill(self._rng.choice(pids)):
            self._progress.books.kills.append((time.time_ns() // 1_000_000, kind))


def expected_bounds(asked: Sequence[Question]) -> list[float | None]:
    """What each question's bound is in a quiet run of this process."""
    return [
        verify(one.model(0), parse_request(dict(one.request))).claim.bound  # the service's own path
        for one in asked
    ]


def drill(service: LiveService, progress: Progress, given: argparse.Namespace) -> None:
    """Run customers and the killer until there were enough jobs and kills."""
    asked = questions(NETWORKS)
    rng = random.Random(given.seed)  # noqa: S311 - no secret
    killer = Killer(service, progress, rng, given)
    customers = [
        threading.Thread(target=Customer(service.url, progress, asked).run)
        for _ in range(given.clients)
    ]
    service.wait_ready()
    killer.start()
    for customer in customers:
        customer.start()
    while any(customer.is_alive() for customer in customers):
        time.sleep(10.0)
        states = Counter(job["state"] for job in dict(progress.books.ended).values())
        sys.stderr.write(f"{progress.killed} kills, ended: {dict(states)}\n")
    killer.finished.set()
    killer.join()
    service.restart_if_ended()
    service.wait_ready()


def main() -> int:
    """Run the drill and print its report."""
    given = _arguments()
    progress = Progress(given.jobs, given.kills)
    expected = expected_bounds(questions(NETWORKS))
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        url = given.database_url
        if given.postgresql:
            server = stack.enter_context(Postgres.start(durable=True))
            url = server.url_of(server.new_database())
        settings = settings_for(
            Path(folder) / "data",
            url,
            slots=3,
            max_attempts=1000,
            lease_s=5.0,
            heartbeat_s=1.0,
        )
        service = LiveService(settings, Path(folder) / "log")
        began = time.monotonic()
        try:
            drill(service, progress, given)
            seconds = time.monotonic() - began
        finally:
            service.stop()
        return print_report(settings, progress.books, expected, seconds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--every", type=float, default=2.0, help="mean seconds between two kills")
    parser.add_argument(
        "--heavy", type=float, default=0.2, help="share of API, dispatcher and forkserver"
    )
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--database-url", default=None)
    parser.add_argument("--postgresql", action="store_true", help="on a server of its own")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
