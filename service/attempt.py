"""Supervising one attempt: what a child says becomes a bound only through the checker.

    child  --candidate bytes-->  file  --checker child-->  accepted?  -->  progress, event, row

A candidate waits while another is checked, and is replaced by a newer one; between two checks
passes at least the time that the last one took. Whatever ends the attempt (result, budget,
cancel, memory), the best accepted certificate is kept.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from sqlalchemy import Connection

from service import checking
from service.blobs import Blobs
from service.checking import Bench, Checker, CheckOrder
from service.executors import (
    Ended,
    Erred,
    Handle,
    Improved,
    Overran,
    Progressed,
    Report,
    Resulted,
    Summarised,
)
from service.settings import Settings
from service.store import leases
from service.store.engine import Database, now_ms
from service.store.jobs import NO_PROGRESS, State
from service.store.leases import Claim
from verifier.errors import (
    CheckRejected,
    LipcertError,
    NotCheckable,
    OutOfBudget,
    ResourceExhausted,
    WorkerLost,
)

PROGRESS_S = 0.5  #: between two progress events

Killed: TypeAlias = Literal["canceled", "late", "memory", "stopped"]


@dataclass(frozen=True, slots=True)
class Tools:
    """What every attempt works with."""

    settings: Settings
    database: Database
    blobs: Blobs
    bench: Bench


class Attempt:
    """One attempt of one verification, from the fork to the last row written."""

    def __init__(self, claim: Claim, handle: Handle, kill_at: float, tools: Tools) -> None:
        self.claim = claim
        self.handle = handle
        self.killed: Killed | None = None
        self.is_over = False  #: the row is written, or someone else's
        self._kill_at = kill_at
        self._tools = tools
        self._candidate: Path | None = None  #: the newest unchecked certificate
        self._check: tuple[Checker, Path, Path] | None = None  #: process, its input, its output
        self._check_from = 0.0  #: when the next check may start
        self._rejection: Mapping[str, Any] | None = None  #: of the last check
        self._best: Mapping[str, Any] | None = claim.incumbent
        self._phase: str | None = None
        self._done: int | None = None  #: steps of the phase
        self._shown = 0.0
        self._is_shown = True  #: nothing is known that the row does not say
        self._error: Mapping[str, object] | None = None
        self._has_result = False
        self._has_ended = False

    @property
    def is_late(self) -> bool:
        """Whether the budget ended a while ago, and the child still runs."""
        return not self._has_ended and self.killed is None and self._kill_at < time.monotonic()

    def hear(self, report: Report) -> None:
        """Take note of what the executor reports."""
        match report:
            case Progressed(progress):
                self._phase = str(progress.get("phase"))[:200]
                self._done = _count(progress.get("iteration"))
                self._is_shown = False
            case Improved(certificate):
                self._hold(certificate)
            case Resulted(certificate):
                self._hold(certificate)
                self._has_result = True
            case Erred(error):
                self._error = error
            case Overran(used):
                self.killed = "memory"
                self._error = _memory_error(used, self._tools.settings.memory_bytes)
            case Ended():
                self._has_ended = True
            case Summarised():
                pass  # a verification has none; whoever sends one is ignored

    def advance(self) -> None:
        """Do what can be done now without waiting."""
        self._advance_check()
        if self.is_over:
            return
        if self._has_ended and (self._is_settled or self.killed in ("canceled", "stopped")):
            self._conclude()
        elif not self._is_shown and self._shown + PROGRESS_S < time.monotonic():
            self._show(None)

    def close(self) -> None:
        """Leave nothing behind: processes, temporary files."""
        if self._check is not None:
            checker, text, out = self._check
            checker.close()
            text.unlink(missing_ok=True)
            out.unlink(missing_ok=True)
        if self._candidate is not None:
            self._candidate.unlink(missing_ok=True)

    @property
    def _is_settled(self) -> bool:
        """Whether every candidate has been checked."""
        return self._candidate is None and self._check is None

    # --- checking --------------------------------------------------------------------------------

    def _hold(self, certificate: bytes) -> None:
        if self._candidate is None:
            self._candidate = self._tools.blobs.scratch("candidate")
        self._candidate.write_bytes(certificate)

    def _advance_check(self) -> None:
        now = time.monotonic()
        if self._check is not None:
            checker = self._check[0]
            outcome = checker.poll()
            if outcome is None and checker.began + self._tools.settings.check_s < now:
                checker.close()
                outcome = checking.rejection("error", "the check took longer than it may")
            if outcome is not None:
                self._check_from = now + (now - checker.began)
                self._weigh(outcome)
        is_time = self._check_from <= now or self._has_ended
        if self._check is None and self._candidate is not None and is_time:
            self._begin_check(self._candidate)
            self._candidate = None

    def _begin_check(self, text: Path) -> None:
        tools, claim = self._tools, self.claim
        out = tools.blobs.scratch("canonical")
        checker = tools.bench.take()
        checker.begin(
            CheckOrder(
                text=text,
                models=tools.blobs.folder("models", claim.tenant),
                out=out,
                asked={
                    "model": claim.model,
                    "property": claim.request["property"],
                    "target": claim.request["target"],
                },
                memory_bytes=tools.settings.memory_bytes,
            )
        )
        self._check = (checker, text, out)

    def _weigh(self, outcome: Mapping[str, Any]) -> None:
        """Keep what the checker accepted, if it is at least as good as the best so far."""
        assert self._check is not None, "an outcome is of a check"  # noqa: S101
        _, text, out = self._check
        self._check = None
        text.unlink(missing_ok=True)
        try:
            if not outcome["valid"]:
                self._rejection = outcome
            elif _is_better(outcome, self._best) and self._store(outcome, out):
                self._best = outcome
                self._show(outcome)
        finally:
            out.unlink(missing_ok=True)

    def _store(self, outcome: Mapping[str, Any], out: Path) -> bool:
        """Keep the canonical text under the digest that the checker's child named."""
        tools = self._tools
        with tools.blobs.draft() as draft:
            draft.write(out.read_bytes())
            if draft.digest != outcome["blob"]:
                self._rejection = checking.rejection("error", "the checked text has changed")
                return False
            draft.flush()
            draft.keep(tools.blobs.place("certificates", self.claim.tenant, draft.digest))
        return True

    # --- telling ---------------------------------------------------------------------------------

    def _progress(self) -> dict[str, object]:
        summary: Mapping[str, Any] = {} if self._best is None else self._best["summary"]
        upper, lower = summary.get("bound"), summary.get("lower")
        gap = upper / lower - 1 if upper is not None and lower else None
        return {
            **NO_PROGRESS,
            "upper": upper,
            "lower": lower,
            "gap": gap,
            "phase": self._phase,
            "done": self._done,
        }

    def _show(self, incumbent: Mapping[str, Any] | None) -> None:
        with self._tools.database.write() as connection:
            is_ours = leases.report(connection, self.claim, self._progress(), incumbent, now_ms())
        self._shown = time.monotonic()
        self._is_shown = True
        self.is_over = not is_ours

    # --- ending ----------------------------------------------------------------------------------

    def _conclude(self) -> None:
        ending = self._ending()
        with self._tools.database.write() as connection:
            if ending is None and not self._give_back(connection):
                is_canceled = leases.is_canceled(connection, self.claim)
                ending = ("canceled", None) if is_canceled else ("failed", lost().to_json())
            if ending is not None:
                state, error = ending
                leases.finish(
                    connection,
                    self.claim,
                    state,
                    now_ms(),
                    incumbent=self._best,
                    progress=self._progress(),
                    error=error,
                )
        self.is_over = True

    def _give_back(self, connection: Connection) -> bool:
        """Whether the job is in the queue again; not after the last attempt, nor when canceled."""
        is_stopped = self.killed == "stopped"
        return leases.release(
            connection,
            self.claim,
            now_ms(),
            reason="stopped" if is_stopped else "worker-lost",
            again=is_stopped,
        )

    def _ending(self) -> tuple[State, Mapping[str, object] | None] | None:
        """The state and error that this attempt ends in; None: the job has to run again."""
        if self.killed == "canceled":
            return "canceled", None
        if self._has_result:
            return ("succeeded", None) if self._best is not None else ("failed", self._refused())
        is_out_of_time = self.killed == "late" or (
            self._error is not None and self._error.get("code") == OutOfBudget.code
        )
        if is_out_of_time:
            return ("succeeded", None) if self._best is not None else ("failed", _timeout())
        if self._error is not None:
            return "failed", self._error
        return None

    def _refused(self) -> Mapping[str, object]:
        """Why a result is not an answer: the checker cannot read the model, or says no."""
        said = self._rejection or checking.rejection("error", "nothing was checked")
        error: LipcertError
        if said["code"] == NotCheckable.code:
            error = NotCheckable(
                str(said["reason"]), fix="export the model without this op", node=said["node"]
            )
        else:
            error = CheckRejected(
                f"the checker rejected the certificate ({said['code']}): {said['reason']}",
                fix="report it: this is a defect of lipcert",
            )
        return error.to_json()


def lost() -> WorkerLost:
    """The failure of a job whose processes died, as often as it was tried."""
    return WorkerLost(
        "the process that worked on the job ended without a result, in every attempt",
        fix="ask for a cheaper method, or give the service more memory",
    )


def _timeout() -> Mapping[str, object]:
    return OutOfBudget(
        "the budget ended before any bound was proved", fix="give a larger budget.seconds"
    ).to_json()


def _memory_error(used: int, allowed: int) -> Mapping[str, object]:
    return ResourceExhausted(
        f"the attempt used {used >> 20} MiB of memory; {allowed >> 20} MiB are allowed",
        fix="ask for a cheaper method, or give the service more memory",
    ).to_json()


def _is_better(outcome: Mapping[str, Any], best: Mapping[str, Any] | None) -> bool:
    """Whether a certificate may take the place of the best one: no larger bound.

    At equal bounds the newer one wins: it may carry a better lower bound, hence the verdict. So it
    does where the kind has no bound, unless the older one decides what the newer one does not.
    """
    if best is None:
        return True
    return _level(outcome) <= _level(best)


def _level(outcome: Mapping[str, Any]) -> tuple[bool, float]:
    """The bound as something to compare; beyond the range of float64, by its logarithm."""
    summary = outcome["summary"]
    if outcome["kind"] != "lipschitz":
        return outcome["verdict"] == "undecided", 0.0
    if summary["bound"] is not None:
        return False, summary["bound"]
    return True, summary["log10_bound"]


def _count(value: object) -> int | None:
    """A number of steps, from a process that is not trusted to send one."""
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value < 2**53 else None
