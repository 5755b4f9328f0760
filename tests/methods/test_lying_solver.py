"""A solver that lies: what it says is repaired and checked, or the job fails with a reason.

Whatever the solver answers, the certificate is valid and no bound is below the constant that
enumeration finds; or a `JobFailed` says why there is none.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import cache
from importlib import import_module
from itertools import product
from types import ModuleType
from typing import Any, Literal, TypeAlias

import cvxpy as cp
import pytest
import torch
from torch import Tensor

from tests.attempts import attempt
from tests.exact import Pair
from tests.mutations import CHANGES, mutants
from tests.tiny_networks import TinyNetwork, vertex_constant
from tests.tiny_topologies import chain, tiny_network
from verifier.certificate import Candidate
from verifier.checker import check
from verifier.errors import JobFailed
from verifier.methods import lipsdp
from verifier.methods import product as product_method
from verifier.methods.lipsdp import interior_point, reference, rows
from verifier.methods.lipsdp.inequality import Inequality, Point
from verifier.methods.lipsdp.multipliers import Multipliers
from verifier.network.graph import Network
from verifier.norms import Norm, NormPair
from verifier.onnx_import import load
from verifier.property import Method, OptionValue, Property

IS_QUICK = os.environ.get("LIPCERT_TESTS", "quick") == "quick"
Lie: TypeAlias = Callable[[Tensor], Tensor]

LIES: Mapping[str, Lie] = {
    "nan": lambda numbers: torch.full_like(numbers, math.nan),
    "infinite": lambda numbers: torch.full_like(numbers, math.inf),
    "minus infinite": lambda numbers: torch.full_like(numbers, -math.inf),
    "zero": torch.zeros_like,
    "negative": torch.neg,
    "1e308": lambda numbers: torch.full_like(numbers, 1e308),
    "least": lambda numbers: torch.full_like(numbers, 5e-324),
    "a thousandth": lambda numbers: numbers / 1000,
    "a thousand times": lambda numbers: numbers * 1000,
    "reversed": lambda numbers: numbers.flip(0) if numbers.ndim else numbers,
    "one nan": lambda numbers: torch.where(
        torch.arange(numbers.numel()).reshape(numbers.shape) == 0, math.nan, numbers
    ),
    "random signs": lambda numbers: (
        numbers * torch.sin(1 + torch.arange(numbers.numel())).reshape(numbers.shape)
    ),
}
MEMBERS = ("all", "level", "gates", "inputs")
CASES: Mapping[str, tuple[Callable[[], TinyNetwork], Pair]] = {
    "chain": (lambda: chain(3, (2, 3, 3, 2), ("relu", "leaky")), ("l2", "l2")),
    "groups": (lambda: chain(4, (2, 6, 4, 2), ("groupsort3", "maxmin")), ("linf", "linf")),
    "residual": (lambda: tiny_network(4 + 11 * 13), ("l2", "l2")),
}
MODULES: Mapping[str, ModuleType] = {"product": product_method, "lipsdp": lipsdp}


@cache
def known(case: str) -> tuple[bytes, Property, Fraction]:
    """The model, what is asked of it, and a number that no bound may be below."""
    network, norms = CASES[case]
    tiny = network()
    asked = Property(norm=NormPair(Norm(norms[0]), Norm(norms[1])))
    return tiny.network.model, asked, vertex_constant(tiny, norms)


def outcome(case: str, *, method: Method = "lipsdp", **options: OptionValue) -> str:
    """`failed` with a reason, or `proved`: a valid certificate of no less than the constant.

    A bound of None exceeds float64.
    """
    model, asked, constant = known(case)
    try:
        certificate = attempt(method, **options).answer(model, asked)
    except JobFailed as failure:
        return "failed" if failure.detail and failure.fix else "failed without a reason"
    bound = certificate.claim.bound
    if not check(certificate, model).valid:
        return "not valid"
    return "proved" if bound is None or constant <= Fraction(bound) else "false"


@pytest.fixture(autouse=True)
def _no_time_for_witnesses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("verifier.verify"), "WITNESS_SECONDS", 0.0)


def distorted(point: Point, lie: Lie, member: str) -> Point:
    """The point with the lie in all its numbers, or in some."""
    names = MEMBERS[1:] if member == "all" else (member,)
    return replace(point, **{name: lie(getattr(point, name)) for name in names})


def in_turn(*choices: Iterable[str], step: int = 1) -> list[tuple[str, ...]]:
    """Every combination with one of the cases in turn; in a longer profile with all of them.

    Args:
        choices: of lies and what they are told about.
        step: in the quick profile, one of so many combinations.
    """
    combined = list(product(*choices))
    if IS_QUICK:
        return [(*each, list(CASES)[k % len(CASES)]) for k, each in enumerate(combined[::step])]
    return [(*each, case) for each in combined for case in CASES]


@pytest.mark.parametrize(("lie", "member", "case"), in_turn(LIES, MEMBERS, step=3))
def test_numbers_of_a_lying_solver_are_repaired(
    lie: str, member: str, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is far beyond all scales may fail, with a reason; nothing ends in a false bound."""
    honest = rows.repaired

    def lied_to(problem: Inequality, point: Point, margin: float) -> Point:
        return honest(problem, distorted(point, LIES[lie], member), margin)

    monkeypatch.setattr(rows, "repaired", lied_to)
    assert outcome(case) in (("failed", "proved") if lie == "1e308" else ("proved",))


@pytest.mark.parametrize("case", CASES)
def test_a_solver_that_does_not_begin_leaves_the_start(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = interior_point.solve

    def idle(problem: Inequality, **options: Any) -> interior_point.Solved:  # noqa: ANN401 (passed on)
        options["iterations"] = 0
        return honest(problem, **options)

    monkeypatch.setattr(interior_point, "solve", idle)
    assert outcome(case) == "proved"


@pytest.mark.parametrize(
    "error", [RuntimeError("singular"), MemoryError()], ids=lambda error: type(error).__name__
)
def test_a_solver_that_breaks_down_costs_its_tier_only(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(interior_point, "solve", broken)
    assert outcome("chain") == "failed"
    assert outcome("chain", method="auto") == "proved"


@pytest.mark.parametrize(("lie", "case"), in_turn(LIES))
def test_multipliers_of_a_lying_general_solver_are_repaired(
    lie: str, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = reference.solved

    def lying(*arguments: Any, **options: Any) -> Multipliers | None:  # noqa: ANN401 (passed on)
        found = honest(*arguments, **options)
        assert found is not None
        level = float(LIES[lie](torch.tensor(found.level, dtype=torch.float64)))
        return replace(
            found, level=level, gates=LIES[lie](found.gates), inputs=LIES[lie](found.inputs)
        )

    monkeypatch.setattr(reference, "solved", lying)
    assert outcome(case, solver="clarabel") == "proved"


def test_a_general_solver_that_gives_up_leaves_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise cp.SolverError("Solver 'CLARABEL' failed")

    monkeypatch.setattr(cp.Problem, "solve", broken)
    assert outcome("chain", solver="clarabel") == "proved"


# --- A method that lies --------------------------------------------------------------------------


@pytest.mark.parametrize(("change", "method", "case"), in_turn(CHANGES, MODULES))
def test_numbers_of_a_lying_method_are_refused_or_true(
    method: Literal["product", "lipsdp"], change: str, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It claims half of what it found, with a proof that is wrong in one place."""
    module = MODULES[method]
    honest, candidates = module.candidate, list[Candidate]()

    def lying(network: Network, asked: Property, *rest: Any) -> Candidate:  # noqa: ANN401 (passed on)
        found = honest(network, asked, *rest)
        proofs = list(mutants(found.proof, CHANGES[change]))[:2]
        candidates.extend(replace(found, proof=proof) for proof in proofs)
        lie = candidates.pop(0) if candidates else found
        return replace(lie, estimates=tuple(value / 2 for value in lie.estimates))

    monkeypatch.setattr(module, "candidate", lying)
    assert outcome(case, method=method) in ("failed", "proved")


def test_the_multipliers_of_another_network_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = chain(5, (2, 3, 3, 2), ("relu", "leaky"))
    honest = lipsdp.candidate

    def confused(_: Network, asked: Property, *rest: Any) -> Candidate:  # noqa: ANN401 (passed on)
        return honest(load(other.network.model).require_network(), asked, *rest)

    monkeypatch.setattr(lipsdp, "candidate", confused)
    assert outcome("chain") in ("failed", "proved")
