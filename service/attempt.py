"""Supervising one attempt: what a child says becomes an answer only through the checker.

    child  --candidate bytes-->  `candidates`  --accepted?-->  `answers`  -->  progress, event, row

Whatever ends the attempt (result, budget, cancel, memory), the best accepted answer is kept.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from sqlalchemy import Connection

from service import checking
from service.answers import answer_to
from service.blobs import Blobs
from service.candidates import Candidates, Checked
from service.checking import Bench, CheckOrder
from service.checkpoints import Checkpoints
from service.executors import (
    Ended,
    Erred,
    Handle,
    Improved,
    Kept,
    Overran,
    Progressed,
    Report,
    Resulted,
    Summarised,
)
from service.settings import Settings
from service.signing import sign_unread
from service.signing_keys import keyid_of
from service.store import leases
from service.store.coordination import now_in
from service.store.database import Database
from service.store.jobs import State
from service.store.leases import Claim
from service.store.limits import charge
from verifier.errors import (
    CheckRejected,
    LipcertError,
    NotCheckable,
    OutOfBudget,
    ResourceExhausted,
    WorkerLost,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PROGRESS_S = 0.5  #: between two progress events

Killed: TypeAlias = Literal["canceled", "late", "memory", "stopped"]


@dataclass(frozen=True, slots=True)
class Tools:
    """What every attempt works with."""

    settings: Settings
    database: Database
    blobs: Blobs
    bench: Bench
    signing_key: Ed25519PrivateKey | None = None  #: of the service, where it signs
    sandbox: str = "none"  #: that attempts are in


class Attempt:
    """One attempt of one verification or radius, from the fork to the last row written."""

    def __init__(self, claim: Claim, handle: Handle, kill_at: float, tools: Tools) -> None:
        self.claim = claim
        self.handle = handle
        self.killed: Killed | None = None
        self.is_over = False  #: the row is written, or someone else's
        self._began = time.monotonic()
        self._kill_at = kill_at
        self._tools = tools
        self._answer = answer_to(claim)
        self._candidates = Candidates(
            tools.blobs, tools.bench, tools.settings.check_s, self._check_order
        )
        self._checkpoints = Checkpoints(
            claim, tools.blobs, tools.database, tools.settings.max_checkpoint_bytes
        )
        self._rejection: Mapping[str, Any] | None = None  #: of the last check
        self._phase: str | None = None
        self._done: int | None = None  #: steps of the phase
        self._open: int | None = None  #: parts that branch and bound has not done yet
        self._shown = 0.0
        self._is_shown = True  #: nothing is known that the row does not say
        self._is_kept = True  #: the row names the best that was accepted
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
                self._open = _count(progress.get("open"))
                self._is_shown = False
            case Improved() | Kept():
                self._hold(report)
            case Resulted(certificate):
                self._hear_result(certificate)
            case Erred(error):
                self._error = error
            case Overran(used, allowed):
                self.killed = "memory"
                self._error = _memory_error(used, allowed)
            case Ended():
                self._has_ended = True
            case Summarised():
                pass  # a verification has none; whoever sends one is ignored

    def _hold(self, report: Improved | Kept) -> None:
        if isinstance(report, Kept):
            self._checkpoints.hold(report.checkpoint)
        else:
            self._candidates.hold(report.place, report.certificate)

    def _hear_result(self, certificate: bytes | None) -> None:
        self._has_result = True
        if certificate is not None:
            self._candidates.hold(0, certificate)

    def advance(self) -> None:
        """Do what can be done now without waiting.

        Where the database does not answer, this raises, and has to be called again: every write
        names the attempt, and the second of two that are the same matches no row.
        """
        self._checkpoints.advance(is_urgent=self._has_ended)
        checked = self._candidates.advance(is_urgent=self._has_ended)
        if checked is not None:
            self._weigh(checked)
        if self.is_over:
            return
        is_settled = self._candidates.is_settled or self.killed in ("canceled", "stopped")
        if self._has_ended and is_settled:
            self._conclude()
        elif not self._is_kept or (
            not self._is_shown and self._shown + PROGRESS_S < time.monotonic()
        ):
            self._show()

    def close(self) -> None:
        """Leave nothing behind: processes, temporary files."""
        self._candidates.close()

    # --- checking --------------------------------------------------------------------------------

    def _check_order(self, place: int, text: Path, out: Path) -> CheckOrder:
        return CheckOrder(
            text=text,
            models=self._tools.blobs.folder("models", self.claim.tenant),
            out=out,
            asked=self._answer.asked(place),
            sandbox=self._tools.sandbox,
            memory_bytes=self._tools.settings.memory_bytes,
        )

    def _weigh(self, checked: Checked) -> None:
        """Keep what the checker accepted, if it is at least as good as the best so far."""
        place, outcome = checked.place, checked.outcome
        try:
            if not outcome["valid"]:
                self._rejection = outcome
            elif self._answer.is_better(place, outcome) and self._store(outcome, checked.text):
                self._answer.take(place, {**outcome, **self._signature()})
                self._is_kept = self._is_shown = False
                self._show()
        finally:
            checked.text.unlink(missing_ok=True)

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
        if tools.signing_key is not None:
            self._sign(outcome["blob"], tools.signing_key)
        return True

    def _signature(self) -> dict[str, str]:
        """What the row keeps of the signature of what was stored."""
        key = self._tools.signing_key
        return {} if key is None else {"signed_by": keyid_of(key.public_key())}

    def _sign(self, blob: str, key: Ed25519PrivateKey) -> None:
        """Keep the envelope of a stored text under the text's digest."""
        blobs, tenant = self._tools.blobs, self.claim.tenant
        text = blobs.place("certificates", tenant, blob).read_bytes()
        with blobs.draft() as draft:
            draft.write(sign_unread(text, self.claim.model, key))
            draft.flush()
            draft.keep(blobs.place("envelopes", tenant, blob))

    # --- telling ---------------------------------------------------------------------------------

    def _progress(self) -> dict[str, object]:
        return {
            **self._answer.progress(),
            "phase": self._phase,
            "open": self._open,
            "done": self._done,
        }

    def _show(self) -> None:
        incumbent = None if self._is_kept else self._answer.incumbent
        with self._tools.database.write() as connection:
            now = now_in(connection)
            is_ours = leases.report(connection, self.claim, self._progress(), incumbent, now)
        # Only now: where the database was away, the next turn shows it.
        self._shown = time.monotonic()
        self._is_kept = self._is_shown = True
        self.is_over = not is_ours

    # --- ending ----------------------------------------------------------------------------------

    def _conclude(self) -> None:
        ending = self._ending()
        if ending == ("succeeded", None) and self._answer.is_final:
            self._checkpoints.drop()
        with self._tools.database.write() as connection:
            spent_s = (time.monotonic() - self._began) * self._tools.settings.threads
            charge(connection, self.claim.tenant, now_in(connection), round(1000 * spent_s))
            if ending is None and not self._give_back(connection):
                is_canceled = leases.is_canceled(connection, self.claim)
                error = self._refused() if self._has_result else lost().to_json()
                ending = ("canceled", None) if is_canceled else ("failed", error)
            if ending is not None:
                state, error = ending
                leases.finish(
                    connection,
                    self.claim,
                    state,
                    now_in(connection),
                    incumbent=self._answer.incumbent,
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
            now_in(connection),
            reason="stopped" if is_stopped else "worker-lost",
            again=is_stopped,
        )

    def _ending(self) -> tuple[State, Mapping[str, object] | None] | None:
        """The state and error that this attempt ends in; None: the job has to run again."""
        if self.killed == "canceled":
            return "canceled", None
        if self.killed == "stopped" and not self._candidates.is_settled:
            return None  # what it has found is checked in another attempt
        has_any = self._answer.incumbent is not None
        if self._has_result:
            was_rejected = self._rejection is not None
            if self._answer.is_answered(was_rejected=was_rejected):
                return "succeeded", None
            # A checker that was killed has rejected nothing: another attempt finds it again.
            return None if self._was_killed else ("failed", self._refused())
        is_out_of_time = self.killed == "late" or (
            self._error is not None and self._error.get("code") == OutOfBudget.code
        )
        if is_out_of_time:
            return ("succeeded", None) if has_any else ("failed", _timeout())
        if self._error is not None:
            return "failed", self._error
        return None

    @property
    def _was_killed(self) -> bool:
        """Whether the last check ended without an answer, as often as it was tried."""
        return self._rejection is not None and self._rejection["code"] == checking.DIED

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


def _count(value: object) -> int | None:
    """A number of steps, from a process that is not trusted to send one."""
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value < 2**53 else None
