"""The method's candidates: better and better ones while the clock runs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice

from verifier.certificate import Candidate
from verifier.checkpoint import Growth
from verifier.errors import InvalidRequest
from verifier.methods.branch.checkpoint import Keeper, cells_of, units_of
from verifier.methods.branch.question import Question
from verifier.methods.branch.roots import roots, steps_of_roots
from verifier.methods.branch.search import Search
from verifier.methods.clock import Clock
from verifier.methods.progress import NO_AIM, Aim, Step
from verifier.network.graph import Network
from verifier.property import Property

_SECONDS_PER_PRODUCT = 2e-9  #: of a step of Newton's method, by psis^2 (inputs + 2 psis)
_SETTING_OUT = 0.5  #: the share of the clock that bounds of whole trees may take
_FIRST_SHOWN = 10.0  #: seconds until trees that are not done are shown
_AT_ONCE = 0.1  #: the share of the clock that the check of trees to go on from may take before
_LATER_SHOWN = 3.0  #: the factor to the next time
_CHECKED_LEAF = 1e-3  #: seconds that the checker takes for a leaf of a small network, and its trims
_CHECKED_CUBE = 5e-9  #: and by the cube of its gates


def candidates(
    network: Network, asked: Property, clock: Clock, aim: Aim, start: Growth | None = None
) -> Iterator[Candidate]:
    """Trees whose bounds converge to the constants, as far as the clock goes.

    None where branching does not apply: globally, for inputs in l1, and for several outputs jointly
    other than from l2 to l2 and to linf; where no gate can be cut; nor where the clock is too short
    for the network's size.

    Args:
        network: what is bounded.
        asked: the property.
        clock: when to stop.
        aim: when a bound is good enough, and who is told on the way.
        start: trees to go on from.

    Raises:
        InvalidRequest: the property selects what does not exist, or `start` is of another one.
        TooLarge: the increments' matrices are too large.
    """
    question = Question.of(network, asked)
    if question is None or not bool(question.kinks.known.any()):
        return
    psis, columns = question.form.inflow.shape
    seconds = _SECONDS_PER_PRODUCT * psis**2 * (columns + psis) * steps_of_roots(question)
    if start is None and _SETTING_OUT * clock.remaining < seconds:
        return
    per_leaf = _CHECKED_LEAF + _CHECKED_CUBE * psis**3
    search = _search(question, aim, start)
    keeper = Keeper(search.growth, aim.keep)
    spent, shown = Clock.start(0.0), _FIRST_SHOWN
    if start is not None and search.leaves * per_leaf < _AT_ONCE * clock.remaining:
        yield search.candidate()  # what stands, whatever stops the run
    for step in _steps(search):
        aim.report(step)
        keeper.tick()
        if clock.remaining <= search.leaves * per_leaf:
            break
        if shown < spent.elapsed:
            yield search.candidate()
            shown = _LATER_SHOWN * spent.elapsed
    keeper.now()
    yield search.candidate()


def grown(
    network: Network,
    asked: Property,
    aim: Aim,
    start: Growth | None = None,
    rounds: int | None = None,
) -> Growth:
    """Trees, or a chunk of them, after so many rounds of work; None: until they are done.

    Raises:
        InvalidRequest: branching does not apply, or `start` is of another property.
        TooLarge: the increments' matrices are too large.
    """
    search = _search(_question(network, asked), aim, start)
    for step in islice(_steps(search), rounds):
        aim.report(step)
    return search.growth()


def candidate_of(network: Network, asked: Property, growth: Growth) -> Candidate:
    """What trees bound as they are.

    Raises:
        InvalidRequest: branching does not apply, or the trees are of another property.
        TooLarge: the increments' matrices are too large.
    """
    return _search(_question(network, asked), NO_AIM, growth).candidate()


def _question(network: Network, asked: Property) -> Question:
    question = Question.of(network, asked)
    if question is None:
        raise InvalidRequest(
            "branch and bound does not apply to this property", fix="ask for another method"
        )
    return question


def _search(question: Question, aim: Aim, start: Growth | None) -> Search:
    if start is None:
        return Search(question, roots(question), aim)
    return Search(question, cells_of(question, start), aim, units_of(question, start))


def _steps(search: Search) -> Iterator[Step]:
    """The rounds of a search while there is anything left to do."""
    for number in count(1):
        if not search.advance():
            return
        frontier = search.frontier
        yield Step(phase="dividing", iteration=number, gap=frontier.excess, open=len(frontier))
