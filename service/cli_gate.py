"""What `lipcert gate` does: by a policy of this machine, or by one of a service's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import typer

from service import terminal

if TYPE_CHECKING:
    from service.gate import Decision, Rule

MODEL_BYTES = 2**31  #: ONNX files are protobuf messages, which cannot be larger


@dataclass(frozen=True, slots=True)
class Here:
    """A policy of this machine; its bounds are proved here, or by a service."""

    text: bytes
    rules: tuple[Rule, ...]
    server: str | None


@dataclass(frozen=True, slots=True)
class There:
    """A policy of a service's."""

    reference: str
    server: str


Source: TypeAlias = Here | There


def source(policy: Path | None, server: str | None, remote_policy: str | None) -> Source:
    """Where the policy is that the flags name, read where it is here.

    Raises:
        InvalidRequest: they name none or two, or no service for a remote one; the policy is none.
    """
    from service.files import read_bytes
    from service.gate import POLICY_BYTES, parse_policy
    from verifier.errors import InvalidRequest

    if policy is not None and remote_policy is None:
        text = read_bytes(policy, "the policy", POLICY_BYTES)
        return Here(text, parse_policy(text), server)
    if policy is not None or remote_policy is None:
        raise InvalidRequest(
            "a gate has one policy", fix="give --policy FILE, or --remote-policy NAME with --server"
        )
    if server is None:
        raise InvalidRequest(
            f"the policy {remote_policy!r} is a service's, and none is named", fix="give --server"
        )
    return There(remote_policy, server)


def decided(model: Path, source: Source) -> tuple[Decision, bytes]:
    """The decision about a model's file, and the text of the policy that it was decided by."""
    from service.files import read_bytes
    from service.gate import decide, prover

    data = read_bytes(model, "the model", MODEL_BYTES)
    with terminal.progress_lines() as show:
        match source:
            case Here(text, rules, server):
                with prover(server) as certify:
                    return decide(data, rules, show, certify), text
            case There(reference, server):
                # Here, not above: a gate without a service needs no client.
                from service.client import Client
                from service.remote import decide_by

                with Client(server) as client:
                    answer = decide_by(client, data, reference, show)
                return answer.decision, answer.policy


def print_decision(decision: Decision) -> None:
    """A line for each rule, and the outcome, on standard output."""
    for rule in decision.rules:
        bound, limit = terminal.number(rule.bound), terminal.number(rule.max_bound)
        text = f"{rule.outcome:9} {rule.name}: bound {bound}, limit {limit}: {rule.reason}"
        typer.echo(terminal.plain(text))
    typer.echo(f"gate: {decision.outcome}")
