"""The method's candidates: better and better ones while the clock runs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice

from verifier.certificate import Candidate
from verifier.checkpoint import Growth
from verifier.errors import InvalidRequest
from verifier.methods.branch.box_search import BoxSearch
from verifier.methods.branch.checkpoint import Keeper, cells_of, units_of
from verifier.methods.branch.question import Question
from verifier.methods.branch.roots import roots, steps_of_roots
from verifier.methods.branch.search import Search
from verifier.methods.clock import Clock
from verifier.methods.progress import NO_AIM, Aim, Step
from verifier.methods.propagation import pulled_back
from verifier.network.graph import Network
from verifier.network.nodes import Elementwise
from verifier.property import Property
from verifier.regions import Everywhere

_SECONDS_PER_PRODUCT = 2e-9  #: of a step of Newton's method, by psis^2 (inputs + 2 psis)
_SETTING_OUT = 0.5  #: the share of the clock that bounds of whole trees may take
_FIRST_SHOWN = 10.0  #: seconds until trees that are not done are shown
_AT_ONCE = 0.1  #: the share of the clock that the check of trees to go on from may take before
_LATER_SHOWN = 3.0  #: the factor to the next time
_CHECKED_LEAF = 1e-3  #: seconds that the checker takes for a leaf of a small network, and its trims
_CHECKED_CUBE = 5e-9  #: and by the cube of its gates
_CHECKED_PRODUCT = 2e-9  #: and by multiplications with the maps behind the first gates
_MOST_BOXED = 8  #: inputs, beyond which smaller boxes help less than known sides of gates
_SECONDS_PER_MULTIPLICATION = 1e-9  #: of the bounds in a box
_FEWEST_BOXES = 64  #: that are worth to begin with
_CHECKED_BENT = 3e-4  #: seconds that the checker takes for a box, by its gates, where gates bend
_CHECKED_STRAIGHT = 6e-5  #: and where none does


def candidates(
    network: Network, asked: Property, clock: Clock, aim: Aim, start: Growth | None = None
) -> Iterator[Candidate]:
    """Trees whose bounds converge to the constants, as far as the clock goes.

    Gates are divided at their kinks where those are all that there is, and where the inputs are
    many; else boxes of inputs are. None everywhere, nor where the clock is too short for the
    network's size, or the inputs are many and gates have no kinks.

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
    if isinstance(asked.place, Everywhere):
        return
    question = Question.of(network, asked)
    has_kinks = question is not None and bool(question.kinks.known.any())
    if question is not None and has_kinks and bool(question.kinks.known.all()):
        yield from _by_gates(question, clock, aim, start)
        return
    boxes = BoxSearch(network, asked, aim)
    if boxes.inputs <= _MOST_BOXED:
        yield from _by_boxes(boxes, clock, aim)
    elif question is not None and has_kinks:
        yield from _by_gates(question, clock, aim, start)


def _by_gates(
    question: Question, clock: Clock, aim: Aim, start: Growth | None
) -> Iterator[Candidate]:
    psis, columns = question.form.inflow.shape
    step = _SECONDS_PER_PRODUCT * psis**2 * (columns + psis)
    if start is None and _SETTING_OUT * clock.remaining < step * steps_of_roots(question):
        return
    behind = columns * _multiplications_behind(question.lowered)
    per_leaf = _CHECKED_LEAF + _CHECKED_CUBE * psis**3 + _CHECKED_PRODUCT * behind
    search = _search(question, aim, start)
    if start is not None and search.leaves * per_leaf < _AT_ONCE * clock.remaining:
        yield search.candidate()  # what stands, whatever stops the run
    keeper = Keeper(search.growth, aim.keep)
    yield from _run(search, per_leaf, clock, aim, keeper)


def _by_boxes(search: BoxSearch, clock: Clock, aim: Aim) -> Iterator[Candidate]:
    expected = _FEWEST_BOXES * _SECONDS_PER_MULTIPLICATION * search.multiplications
    if expected <= _SETTING_OUT * clock.remaining:
        per_gate = _CHECKED_BENT if search.bends else _CHECKED_STRAIGHT
        search.start()
        yield from _run(search, per_gate * search.gates, clock, aim)


def _multiplications_behind(lowered: Network) -> int:
    """Of one row with all maps that stand behind a gate."""
    costs = pulled_back(lowered)
    first = next(node.source for node in lowered.nodes if isinstance(node, Elementwise))
    return max(costs.values()) - costs[first]


def _run(
    search: Search | BoxSearch,
    per_leaf: float,
    clock: Clock,
    aim: Aim,
    keeper: Keeper | None = None,
) -> Iterator[Candidate]:
    spent, shown = Clock.start(0.0), _FIRST_SHOWN
    for step in _steps(search):
        aim.report(step)
        if keeper is not None:
            keeper.tick()
        if clock.remaining <= search.leaves * per_leaf:
            break
        if shown < spent.elapsed:
            yield search.candidate()
            shown = _LATER_SHOWN * spent.elapsed
    if keeper is not None:
        keeper.now()  # before the last candidate: whoever takes it may ask for no more
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


def _steps(search: Search | BoxSearch) -> Iterator[Step]:
    """The rounds of a search while there is anything left to do."""
    for number in count(1):
        if not search.advance():
            return
        yield Step(phase="dividing", iteration=number, gap=search.excess, open=search.waiting)
