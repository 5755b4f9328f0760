"""The method's candidates: better and better ones while the clock runs."""

from __future__ import annotations

from collections.abc import Iterator

from verifier.certificate import Candidate
from verifier.methods.branch.question import Question
from verifier.methods.branch.roots import roots, steps_of_roots
from verifier.methods.branch.search import Search
from verifier.methods.clock import Clock
from verifier.methods.progress import Aim, Step
from verifier.network.graph import Network
from verifier.property import Property

_SECONDS_PER_PRODUCT = 2e-9  #: of a step of Newton's method, by psis^2 (inputs + 2 psis)
_SETTING_OUT = 0.5  #: the share of the clock that bounds of whole trees may take
_FIRST_SHOWN = 10.0  #: seconds until trees that are not done are shown
_LATER_SHOWN = 3.0  #: the factor to the next time
_CHECKED_LEAF = 1e-3  #: seconds that the checker takes for a leaf of a small network, and its trims
_CHECKED_CUBE = 5e-9  #: and by the cube of its gates


def candidates(network: Network, asked: Property, clock: Clock, aim: Aim) -> Iterator[Candidate]:
    """Trees whose bounds converge to the constants, as far as the clock goes.

    None where branching does not apply: globally, for inputs in l1, and for several outputs jointly
    other than from l2 to l2 and to linf; where no gate can be cut; nor where the clock is too short
    for the network's size.

    Raises:
        InvalidRequest: the property selects what does not exist.
        TooLarge: the increments' matrices are too large.
    """
    question = Question.of(network, asked)
    if question is None or not bool(question.kinks.known.any()):
        return
    psis, columns = question.form.inflow.shape
    step = _SECONDS_PER_PRODUCT * psis**2 * (columns + psis)
    if _SETTING_OUT * clock.remaining < step * steps_of_roots(question):
        return
    per_leaf = _CHECKED_LEAF + _CHECKED_CUBE * psis**3
    search = Search(question, roots(question), aim)
    spent, shown, rounds = Clock.start(0.0), _FIRST_SHOWN, 0
    while search.advance() and search.leaves * per_leaf < clock.remaining:
        rounds += 1
        phase = f"{len(search.frontier)} open cells"
        aim.report(Step(phase=phase, iteration=rounds, gap=search.frontier.excess))
        if shown < spent.elapsed:
            yield search.candidate()
            shown = _LATER_SHOWN * spent.elapsed
    yield search.candidate()
