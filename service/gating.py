"""Deciding gates: in the dispatcher, when all jobs of a gate have ended.

    ripe gate --> what the checker says of every rule's certificate --> compared --> decided, signed

What a job of the gate itself has proved was checked a moment ago, and its row keeps what the
checker said. A certificate that was there before is checked again, from the stored bytes and the
model's, in a child of its own: a disk can fail, and the checker that accepted it may have been
another version's. That costs one process and one check, and spares the solving. What rests on
assumptions, as on frozen initialisers, passes where the rule allows them, as in `lipcert gate`;
idealised nodes are in no certificate but of a rule that asks for them.

Nothing is kept on the way to a decision: a gate that a crash left behind is ripe again.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from service.answers import asked_of
from service.attempt import Tools
from service.checking import CheckOrder, rejection
from service.failures import failure_of_job
from service.gate import (
    Limit,
    RuleDecision,
    compared,
    decision_of,
    unallowed,
    unanswered,
    uncounted,
)
from service.gate_view import result_json
from service.signing import sign, summary_statement
from service.store import certificates, gates
from service.store.coordination import now_in
from service.store.gates import Gate, Rule
from service.store.jobs import Job

LOOK_S = 0.1  #: between two looks for ripe gates, at least
LOOK_SHARE = 20  #: so many times what a look takes passes until the next one
OPEN = 32  #: gates that are weighed at one time

Said: TypeAlias = Mapping[str, Any]  # Any: one JSON line of the checker's child

log = logging.getLogger("lipcert.gates")


class Gatekeeper:
    """Decides ripe gates; as many checks run at one time as there are slots for attempts.

    Gates take turns at checks: one of many rules, or of slow checks, does not hold up the others.
    """

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._cases: dict[str, Case] = {}
        self._next_look = 0.0

    def advance(self) -> None:
        """Do what can be done now without waiting."""
        began = time.monotonic()
        if self._next_look <= began:
            self._look()
            took = time.monotonic() - began
            self._next_look = began + max(LOOK_S, LOOK_SHARE * took)
        for gate_id, case in list(self._cases.items()):
            running = sum(one.is_checking for one in self._cases.values())
            case.advance(may_check=running < self._tools.settings.slots)
            if case.is_over:
                del self._cases[gate_id]
                self._next_look = 0.0
            elif not case.is_checking:  # it is the last whose turn it is next time
                self._cases[gate_id] = self._cases.pop(gate_id)

    def close(self) -> None:
        """End what runs; the gates stay ripe."""
        for case in self._cases.values():
            case.close()

    def _look(self) -> None:
        tools = self._tools
        with tools.database.read() as connection:
            for gate in gates.ripe(connection, OPEN):
                if gate.id not in self._cases:
                    rules = gates.rules(connection, gate.tenant, gate.id)
                    self._cases[gate.id] = Case(gate, rules, tools)


class Case:
    """One ripe gate, from its jobs' answers to the decision."""

    def __init__(self, gate: Gate, rules: Sequence[Rule], tools: Tools) -> None:
        self.is_over = False
        self._gate = gate
        self._rules = rules
        self._tools = tools
        self._decided: list[RuleDecision] = []
        self._check: Recheck | None = None

    @property
    def is_checking(self) -> bool:
        """Whether a certificate is being checked."""
        return self._check is not None

    def advance(self, *, may_check: bool) -> None:
        """Weigh rule after rule, as far as nothing has to be waited for; then decide.

        `may_check`: whether a check may start.
        """
        for rule in self._rules[len(self._decided) :]:
            weighed = self._weighed(rule, may_check=may_check)
            if weighed is None:
                return
            self._decided.append(weighed)
            may_check = False  # the next check is another turn's
        self._conclude()
        self.is_over = True

    def close(self) -> None:
        """End the check that runs."""
        if self._check is not None:
            self._check.close()
            self._check = None

    def _weighed(self, rule: Rule, *, may_check: bool) -> RuleDecision | None:
        """What becomes of a rule; None while its certificate waits for its check, or is checked."""
        job = rule.job
        if job.certificate is None:
            return unanswered(rule.limit, failure_of_job(job.state, job.error))
        said = None if job.cached else job.incumbent
        if said is None or "assumptions" not in said:  # nor did an earlier version ask for those
            said = self._checked_again(job, may_check=may_check)
        return None if said is None else _by_what_was_said(rule.limit, said)

    def _checked_again(self, job: Job, *, may_check: bool) -> Said | None:
        if self._check is None:
            self._check = Recheck(job, self._tools) if may_check else None
            return None
        said = self._check.poll()
        if said is not None:
            self.close()
        return said

    def _conclude(self) -> None:
        gate, tools = self._gate, self._tools
        decision = decision_of(gate.model, self._decided)
        pairs = zip(self._rules, self._decided, strict=True)
        results = [result_json(rule, decided) for rule, decided in pairs]
        envelope = None
        if tools.signing_key is not None:
            uri = f"urn:lipcert:policy:{gate.policy}@{gate.policy_version}"
            statement = summary_statement(decision, uri, gate.policy_digest, gate.model)
            envelope = sign(statement, tools.signing_key)
        with tools.database.write() as connection:
            is_ours = gates.decide(
                connection, gate, decision, results, envelope, now_in(connection)
            )
        if is_ours:
            about = {"gate": gate.id, "outcome": decision.outcome}
            log.info("gate decided", extra={"with": about})


class Recheck:
    """A stored certificate, checked again by a child."""

    def __init__(self, job: Job, tools: Tools) -> None:
        self._job = job
        self._tools = tools
        self._out = tools.blobs.scratch("canonical")
        self._checker = tools.bench.check(
            CheckOrder(
                text=tools.blobs.place("certificates", job.tenant, self._blob()),
                models=tools.blobs.folder("models", job.tenant),
                out=self._out,
                asked=asked_of(job.model, job.request),
                memory_bytes=tools.settings.memory_bytes,
            )
        )

    def poll(self) -> Said | None:
        """What the checker says; None while it says nothing yet."""
        said = self._checker.poll()
        if said is None and self._checker.began + self._tools.settings.check_s < time.monotonic():
            return rejection("error", "the check took longer than it may")
        if said is not None and said["valid"] and said["id"] != self._job.certificate:
            return rejection("error", "another certificate stands in its place")
        return said

    def close(self) -> None:
        """Leave nothing behind."""
        self._checker.close()
        self._out.unlink(missing_ok=True)

    def _blob(self) -> str:
        job = self._job
        with self._tools.database.read() as connection:
            stored = certificates.find(connection, job.tenant, job.certificate or "")
        assert stored is not None, "no certificate is ever deleted"  # noqa: S101
        return stored.blob


def _by_what_was_said(limit: Limit, said: Said) -> RuleDecision:
    """What the checker's word on a certificate makes of a rule."""
    if not said["valid"]:
        detail = f"the checker rejected the certificate ({said['code']}): {said['reason']}"
        return unanswered(limit, uncounted(detail))
    summary = said["summary"]
    if summary["soundness"] not in ("exact", "rigorous"):
        return unanswered(
            limit, uncounted(f"the bound is {summary['soundness']}, which is no proof")
        )
    if fault := unallowed(limit, [(one["code"], one["node"]) for one in said["assumptions"]]):
        return unanswered(limit, uncounted(fault))
    return compared(limit, said["id"], summary["bound"], summary["lower"])
