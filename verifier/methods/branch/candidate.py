"""The method's candidates: better and better ones while the clock runs."""

from __future__ import annotations

from collections.abc import Iterator

from verifier.certificate import Candidate
from verifier.methods.branch.question import Question
from verifier.methods.branch.roots import roots
from verifier.methods.branch.search import Search
from verifier.methods.clock import Clock
from verifier.methods.progress import Aim, Step
from verifier.network.graph import Network
from verifier.property import Property

_CHECKING = 0.35  #: the share of the time that the last proof's check may take


def candidates(network: Network, asked: Property, clock: Clock, aim: Aim) -> Iterator[Candidate]:
    """Trees whose bounds converge to the constants, as far as the clock goes.

    None where branching does not apply: globally, for inputs in l1, and for several outputs jointly
    other than from l2 to l2 and to linf.

    Raises:
        InvalidRequest: the property selects what does not exist.
        TooLarge: the increments' matrices are too large.
    """
    question = Question.of(network, asked)
    if question is None:
        return
    share = Clock.start((1 - _CHECKING) * clock.remaining)
    search = Search(question, roots(question), aim)
    rounds = 0
    while search.advance() and not share.has_expired:
        rounds += 1
        phase = f"{len(search.frontier)} open cells"
        aim.report(Step(phase=phase, iteration=rounds, gap=search.frontier.excess))
    yield search.candidate()
