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

from verifier.certificate import (
    Candidate,
    CentersProof,
    ForwardProof,
    Passage,
    Single,
    SplitProof,
    TorusProof,
)
from verifier.checkpoint import Growth, unusable
from verifier.errors import InvalidRequest, TooLarge
from verifier.methods import branch, lipsdp, product, propagation, recursion, refinement, torus
from verifier.methods.clock import Clock
from verifier.methods.items import items_of, varying_inputs
from verifier.methods.progress import NO_AIM, Aim
from verifier.methods.weights import plain_norms, unweighted
from verifier.network.everywhere import everywhere, unbounded_node
from verifier.network.gated import with_gated
from verifier.network.graph import Network
from verifier.network.nodes import Product
from verifier.network.segments import Segment, segments
from verifier.norms import Norm, NormPair, leading_to
from verifier.options import RunOptions, read_options, refuse_unknown
from verifier.property import All, Property, Request
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


def tiers_of(request: Request, network: Network, start: Growth | None = None) -> list[Tier]:
    """The tiers of a request, cheapest first; before them, if there is one, what goes on.

    Args:
        request: what is asked.
        network: of what.
        start: trees that branch and bound goes on from.

    Raises:
        InvalidRequest: an option is unknown or wrong, the method does not fit the scope, or has no
            branch and bound to go on with.
        NotLipschitzGlobally: the scope is global, and a node's slopes are unbounded.
    """
    asked = request.property
    names = [
        name for name in plan(request) if request.method != "auto" or _applies(name, network, asked)
    ]
    if start is not None:
        if "branch" not in names:
            raise unusable("is of branch and bound, which the request does not ask for")
        names = ["branch", *(name for name in names if name != "branch")]
    dense: Network | None = None
    if isinstance(asked.region, Everywhere):
        dense, network = with_gated(network), everywhere(network)
    propagating = read_options(propagation.Options, request.options)
    solving = read_options(lipsdp.Options, request.options)
    semidefinite = _Semidefinite(network, asked, solving, dense)
    tiers = {
        "product": Tier("product", lambda _, __: [product.candidate(everywhere(network), asked)]),
        "propagation": Tier(
            "propagation",
            lambda clock, _: _propagated(network, asked, propagating, clock, "lipsdp" in names),
        ),
        "lipsdp": Tier("lipsdp", semidefinite.candidates),
        "branch": Tier(
            "branch", lambda clock, aim: branch.candidates(network, asked, clock, aim, start)
        ),
    }
    return [tiers[name] for name in names]


def _applies(name: str, network: Network, asked: Property) -> bool:
    """Whether `auto` runs a tier over a region: not what no node or no kind of it allows."""
    if isinstance(asked.region, Everywhere):
        return True
    if name == "product":
        return unbounded_node(network) is None
    return name != "branch" or not any(isinstance(node, Product) for node in network.nodes)


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


def _propagated(
    network: Network,
    asked: Property,
    options: propagation.Options,
    clock: Clock,
    before_better: bool,
) -> Iterable[Candidate]:
    """What is searched for, or where there are blocks what the checker finds by itself."""
    if network.has_blocks:
        return propagation.unsearched(network, asked, options)
    found = propagation.candidate(network, asked, options, clock, before_better=before_better)
    return [found]


@dataclass(frozen=True, slots=True)
class _Semidefinite:
    """Method lipsdp: whichever way of solving it fits the network."""

    network: Network
    asked: Property
    options: lipsdp.Options
    gated: Network | None = None  #: the network as a dense inequality has it, if that differs

    def candidates(self, clock: Clock, aim: Aim) -> Iterator[Candidate]:
        """Better and better ones."""
        if self.network.has_blocks:
            yield self._split(clock)
        elif not isinstance(self.asked.place, Everywhere):
            yield from self._over_region(clock, aim)
        elif self.options.solver in _GENERAL:
            yield lipsdp.candidate(self.network, self.asked, self.options, clock, aim)
        elif self.options.solver == "first_order":
            yield from self._by_blocks(self.asked, clock, aim)
        else:
            yield from self._anyhow(clock, aim)

    def _split(self, clock: Clock) -> Candidate:
        """A bound of every part between blocks, and the blocks' constants.

        Raises:
            CapabilityBlocked: a path leads past a block.
        """
        whole = segments(self.network)
        passages: list[Passage] = []
        parts: list[Single] = []
        pair = plain_norms(self.asked.norm)
        inner = pair.input if pair.input is pair.output else Norm.L2
        asked = self.asked
        is_local = not isinstance(asked.place, Everywhere)
        for place, segment in enumerate(whole):
            share = Clock.start(clock.remaining / (len(whole) - place))
            if segment.block is not None:
                if not is_local:
                    product.node_norm(segment.block, inner)
                passages.append(Passage(node=segment.block.name, norm=inner))
                part = replace(asked, norm=leading_to(asked.norm, inner), outputs=All())
            else:
                part = asked
            parts.append(_part_of(segment, part, self.options, share))
            asked = Property(norm=NormPair(inner, pair.output), outputs=asked.outputs)
        count = len(items_of(self.asked, self.network.output_size))
        # What the product of all of them is the checker knows: a claim of 0 makes it say so.
        return Candidate(
            method="lipsdp",
            estimates=(0.0,) * count,
            proof=SplitProof(
                patterns=self.network.patterns,
                passages=tuple(passages),
                parts=tuple(parts),
                forward=ForwardProof(technique="linear") if is_local else None,
            ),
        )

    def _over_region(self, clock: Clock, aim: Aim) -> Iterator[Candidate]:
        """With the region's slopes; of what is too large for them what holds everywhere."""
        options = self.options
        if options.gap == lipsdp.Options().gap:
            options = replace(options, gap=max(options.gap, _SHARE_OF_GAP * aim.gap))
        try:
            yield lipsdp.candidate(self.network, self.asked, options, clock, aim)
        except TooLarge:
            if unbounded_node(self.network) is not None:
                raise
            asked = replace(self.asked, scope="global", region=Everywhere())
            bounded = replace(self, network=everywhere(self.network))
            yield from bounded._by_blocks(asked, clock, aim)  # noqa: SLF001 (of its own class)

    def _anyhow(self, clock: Clock, aim: Aim) -> Iterator[Candidate]:
        """Densely where that is possible in time, and by blocks where it is not."""
        expected = self._expected()
        if clock.remaining < expected:
            yield from self._by_blocks(self.asked, clock, aim)
            return
        if expected > _AT_ONCE:
            yield from self._at_once(clock, aim)
        dense = self.gated or self.network
        base = lipsdp.candidate(dense, self.asked, self.options, clock, aim)
        yield base
        if self.gated is not None:
            return  # cuts and blocks are of vertices, which gates of two inputs have not
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
        lowered = (self.gated or self.network).lowered("keep")
        inputs = len(varying_inputs(self.asked, self.network.input_size))
        psis = lipsdp.columns_of(lowered, 0, lipsdp.global_slopes(lowered))
        if lipsdp.LARGEST_XI < inputs + psis:
            return math.inf
        # l2 inputs are one variable, and linf inputs one each.
        in_linf = plain_norms(self.asked.norm).input is Norm.LINF
        order = self.network.output_size + psis + (inputs // 2 if in_linf else 0)
        return _SECONDS_PER_CUBE * order**3


def _part_of(segment: Segment, asked: Property, options: lipsdp.Options, clock: Clock) -> Single:
    """The best proof of one part between blocks."""
    found = product.candidate(everywhere(segment.network), asked).proof
    if segment.has_gates:
        try:
            for candidate in _Semidefinite(segment.network, asked, options).candidates(
                clock, NO_AIM
            ):
                found = candidate.proof
                if clock.has_expired:
                    break
        except TooLarge:
            pass  # the product stands
    assert not isinstance(found, SplitProof | CentersProof)  # noqa: S101 (no blocks, one region)
    return found


_GENERAL = ("scs", "clarabel")
