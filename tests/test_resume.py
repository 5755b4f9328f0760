"""Runs that were cut short and go on from their checkpoint, in library and child process."""

from __future__ import annotations

from base64 import b64decode
from fractions import Fraction
from functools import cache

import numpy as np
import pytest

from service import child_work
from service.failures import REFUSED
from tests.tiny_networks import Box, lipschitz_constant
from tests.tiny_topologies import tiny_network
from verifier.certificate import Certificate, TreeProof
from verifier.certificate_reader import certificate_from_json
from verifier.checkpoint import read_checkpoint
from verifier.errors import InvalidRequest
from verifier.methods.branch import checkpoint
from verifier.property import Budget, Request
from verifier.request_json import parse_request, request_json
from verifier.verify import Progress, verify

SEED = 6


class Killed(Exception):
    """The process is gone."""


@cache
def model() -> bytes:
    return tiny_network(SEED).network.model


def request(**changes: object) -> Request:
    size = tiny_network(SEED).network.size
    region = {"type": "box", "lower": [-0.375] * size, "upper": [0.25] * size}
    members = {
        "property": {"norm": "linf", "region": region},
        "method": "propagation",
        "options": {"branch": True},
        "budget": {"seconds": 60, "gap": 1e-6},
        **changes,
    }
    return parse_request(members)


def is_exact(certificate: Certificate) -> bool:
    size = tiny_network(SEED).network.size
    box = Box(np.full(size, -0.375), np.full(size, 0.25))
    exact = lipschitz_constant(tiny_network(SEED), ("linf", "linf"), box)
    bound = certificate.claim.bound
    assert bound is not None
    assert exact <= Fraction(bound)
    return bound <= float(exact) * (1 + 2e-6)


@cache
def killed() -> bytes:
    """The last checkpoint of a run that was killed in its third round."""
    kept: list[bytes] = []

    def die(progress: Progress) -> None:
        if progress.open is not None and progress.iteration == 3:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "_EVERY", 0.0)
        patch.setattr(checkpoint, "_SHARE", 0.0)
        with pytest.raises(Killed):
            verify(model(), request(), on_progress=die, on_checkpoint=kept.append)
    assert len(kept) == 2
    return kept[-1]


def test_a_run_goes_on_with_branch_and_bound_at_once() -> None:
    steps: list[Progress] = []
    answer = verify(model(), request(), on_progress=steps.append, checkpoint=killed())
    assert isinstance(answer.proof, TreeProof)
    assert [attempt.method for attempt in answer.attempts] == ["branch"]
    assert is_exact(answer)
    start = read_checkpoint(killed()).growth
    (tree,) = {len(tree.kinds) for tree in answer.proof.items[0].trees[:1]}
    assert len(list(start.roots[0].node.preorder())) <= tree


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "product", "options": {}},
        {"property": {"norm": "linf"}, "method": "auto", "options": {}},
        {"property": {"kind": "jacobian"}, "method": "auto", "options": {}},
    ],
    ids=["no branch and bound", "another region", "another kind"],
)
def test_a_checkpoint_of_another_request_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest, match="checkpoint"):
        verify(model(), request(**changes), checkpoint=killed())


def _run(start: bytes, asked: Request) -> list[child_work.Json]:
    said: list[child_work.Json] = []
    header: child_work.Json = {"task": "certify", "request": request_json(asked), "checkpoint": 0}
    child_work.work(header, model(), start, said.append)
    return said


def test_the_command_s_child_goes_on_and_leaves_a_new_checkpoint() -> None:
    (*said, last) = _run(killed(), request())
    assert is_exact(certificate_from_json(last["certificate"]))
    (left,) = [message["checkpoint"] for message in said if "checkpoint" in message]
    done = read_checkpoint(b64decode(str(left))).growth
    assert read_checkpoint(killed()).growth.nodes < done.nodes


def test_the_command_s_child_refuses_what_is_no_checkpoint() -> None:
    (last,) = _run(b"something else", Request(budget=Budget(seconds=1.0)))
    failure = last["failure"]
    assert isinstance(failure, dict)
    assert failure["exit_code"] == REFUSED
