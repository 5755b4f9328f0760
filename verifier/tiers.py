"""Which methods a request runs, in which order: cheap ones first, each as far as it is worth it.

    global   product, then LipSDP: dense with a refinement where its inequality fits into memory and
             the budget, the recursions over the network's blocks where it does not
    local    product, propagation, LipSDP, then branch and bound while the budget lasts; the
             recursions, whose bounds hold everywhere, where its inequality does not fit into memory

A tier is one name among a certificate's attempts, and may find several candidates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from verifier.certificate import Candidate, TorusProof
from verifier.errors import InvalidRequest, NotLipschitzGlobally, TooLarge
from verifier.methods import branch, lipsdp, product, propagation, recursion, refinement, torus
from verifier.methods.clock import Clock
from verifier.methods.items import varying_inputs
from verifier.methods.progress import Aim
from verifier.methods.weights import plain_norms, unweighted
from verifier.network.graph import Network
from verifier.norms import Norm
from verifier.options import RunOptions, read_options, refuse_unknown
from verifier.property import Property, Request
from verifier.regions import Everywhere

_SECONDS_PER_CUBE = 7e-9  #: of a dense solution, by the order of its inequality
_SECONDS_PER_PRODUCT = 2e-10  #: of a pass of the block recursion, by its multiplications
_PASSES = 10  #: of a search by blocks that is worth to be begun
_AT_ONCE = 3.0  #: seconds that a dense solution may take before anything else is tried
_QUICK_SHARE = 0.1  #: of the clock, for that
_SHARE_OF_GAP = 0.1  #: over a region, of the request's: the relaxation itself is no nearer
_SHARED_SHARE = 0.3  #: of the clock, for scales that channels share where each neuron can have one


@dataclass(frozen=True, slots=True)
class Tier:
    """One method, ready to run: candidates in the order found."""

    name: str
    run: Callable[[Clock, Aim], Iterable[Candidate]]


def tiers_of(request: Request, network: Network) -> list[Tier]:
    """The tiers of a request, cheapest first.

    Raises:
        InvalidRequest: an option is unknown or wrong, or the method does not fit the scope.
    """
    asked = request.property
    names = plan(request)
    propagating = read_options(propagation.Options, request.options)
    solving = read_options(lipsdp.Options, request.options)
    semidefinite = _Semidefinite(network, asked, solving)
    tiers = {
        "product": Tier("product", lambda _, __: [product.candidate(network, asked)]),
        "propagation": Tier(
            "propagation",
            lambda clock, _: [
                propagation.candidate(
                    network, asked, propagating, clock, before_better="lipsdp" in names
                )
            ],
        ),
        "lipsdp": Tier("lipsdp", semidefinite.candidates),
        "branch": Tier("branch", lambda clock, aim: branch.candidates(network, asked, clock, aim)),
    }
    return [tiers[name] for name in names]


def plan(request: Request) -> list[str]:
    """The names of the tiers, cheapest first.

    Raises:
        InvalidRequest: an option is unknown, or the method does not fit the scope.
    """
    is_global = isinstance(request.property.region, Everywhere)
    kinds = {"propagation": propagation.Options, "lipsdp": lipsdp.Options}
    if request.method != "auto":
        refuse_unknown(request.options, [RunOptions, kinds.get(request.method, RunOptions)])
        if request.method == "propagation" and is_global:
            raise InvalidRequest(
                "method propagation bounds the Jacobian over a region, and the scope is global",
                fix='give a region with scope "local", or ask for method "lipsdp"',
                pointer="/method",
            )
        is_divided = request.method == "propagation" and request.options.get("branch") is True
        return [request.method, "branch"] if is_divided else [request.method]
    refuse_unknown(request.options, [RunOptions, *kinds.values()])
    return ["product", "lipsdp"] if is_global else ["product", "propagation", "lipsdp", "branch"]


@dataclass(frozen=True, slots=True)
class _Semidefinite:
    """Method lipsdp: whichever way of solving it fits the network."""

    network: Network
    asked: Property
    options: lipsdp.Options

    def candidates(self, clock: Clock, aim: Aim) -> Iterator[Candidate]:
        """Better and better ones."""
        if not isinstance(self.asked.place, Everywhere):
            yield from self._over_region(clock, aim)
        elif self.options.solver in _GENERAL:
            yield lipsdp.candidate(self.network, self.asked, self.options, clock, aim)
        elif self.options.solver == "first_order":
            yield from self._by_blocks(self.asked, clock, aim)
        else:
            yield from self._anyhow(clock, aim)

    def _over_region(self, clock: Clock, aim: Aim) -> Iterator[Candidate]:
        """With the region's slopes; of what is too large for them what holds everywhere."""
        options = self.options
        if options.gap == lipsdp.Options().gap:
            options = replace(options, gap=max(options.gap, _SHARE_OF_GAP * aim.gap))
        try:
            yield lipsdp.candidate(self.network, self.asked, options, clock, aim)
        except TooLarge:
            everywhere = replace(self.asked, scope="global", region=Everywhere())
            if not _is_bounded_everywhere(self.network):
                raise
            yield from self._by_blocks(everywhere, clock, aim)

    def _anyhow(self, clock: Clock, aim: Aim) -> Iterator[Candidate]:
        """Densely where that is possible in time, and by blocks where it is not."""
        expected = self._expected()
        if clock.remaining < expected:
            yield from self._by_blocks(self.asked, clock, aim)
            return
        if expected > _AT_ONCE:
            yield from self._at_once(clock, aim)
        base = lipsdp.candidate(self.network, self.asked, self.options, clock, aim)
        yield base
        yield from refinement.candidates(
            self.network, self.asked, self.options, clock, aim, base=base
        )

    def _at_once(self, clock: Clock, aim: Aim) -> Iterator[Candidate]:
        """What is known before a dense solution."""
        quick = Clock.start(_QUICK_SHARE * clock.remaining)
        try:
            yield from islice(self._by_blocks(self.asked, quick, aim), 1)
        except TooLarge:
            return

    def _by_blocks(self, asked: Property, clock: Clock, aim: Aim) -> Iterator[Candidate]:
        """Frequency by frequency where the network has convolutions, then block by block.

        A scale for every neuron of a channel, where so many fit, betters one for all of them.
        """
        network, asked = unweighted(self.network, asked)
        shared: TorusProof | None = None
        fits = self.options.multipliers == "neuron" and self._fits(network, clock)
        if torus.applies(network):
            part = Clock.start(_SHARED_SHARE * clock.remaining) if fits else clock
            try:
                for candidate in torus.candidates(network, asked, self.options, part, aim):
                    shared = candidate.proof if isinstance(candidate.proof, TorusProof) else None
                    yield candidate
            except TooLarge:
                pass  # no torus holds it: the blocks themselves may still be small
        if fits or shared is None:
            known = None if shared is None else shared.scales
            yield from recursion.candidates(network, asked, self.options, clock, aim, known)

    def _fits(self, network: Network, clock: Clock) -> bool:
        """Whether a search by blocks is done in time."""
        return _PASSES * _SECONDS_PER_PRODUCT * recursion.work_of(network) < clock.remaining

    def _expected(self) -> float:
        """Seconds that a dense solution takes; infinite where it is too large."""
        lowered = self.network.lowered("keep")
        inputs = len(varying_inputs(self.asked, self.network.input_size))
        psis = lipsdp.columns_of(lowered, 0, lipsdp.global_slopes(lowered))
        if lipsdp.LARGEST_XI < inputs + psis:
            return math.inf
        # l2 inputs are one variable, and linf inputs one each.
        in_linf = plain_norms(self.asked.norm).input is Norm.LINF
        order = self.network.output_size + psis + (inputs // 2 if in_linf else 0)
        return _SECONDS_PER_CUBE * order**3


def _is_bounded_everywhere(network: Network) -> bool:
    """Whether every activation's slopes are."""
    try:
        lipsdp.global_slopes(network.lowered("keep"))
    except NotLipschitzGlobally:
        return False
    return True


_GENERAL = ("scs", "clarabel")
