"""The largest ball around a point on which its label is proved, by bisection.

The margin m_j = f_k(x) - f_j(x) over output j and a bound L_j of f_k - f_j on the ball of radius r
prove the label k there if L_j r < m_j for all j: what grows with r on the left meets what does not.
No radius of r >= min_j m_j / |grad (f_k - f_j)(x)| is provable so, since L_j is no less than the
gradient's norm. Each radius that is kept has a certificate, from which the checker concludes again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.certificate import Candidate, Certificate
from verifier.certificate_json import certificate_json
from verifier.checker import check_radius
from verifier.errors import JobFailed, LipcertError, NotLipschitzOnRegion
from verifier.methods.clock import Clock
from verifier.methods.derivatives import Derivatives
from verifier.methods.duality import norm_of
from verifier.methods.items import items_of
from verifier.methods.progress import NO_AIM
from verifier.network.graph import Network
from verifier.norms import Norm, NormPair
from verifier.onnx_import import load
from verifier.property import Margins, Method, Property, Reading, Request
from verifier.proving import Case, Unproved, finished, prove
from verifier.radius_json import Question, RingJson, answer_json, refuse_misfit
from verifier.tiers import tiers_of
from verifier.version import PRODUCER

CLOSE = 1e-3  #: the bisection ends where its two radii differ by this share
_SHY = 1 - 1e-6  #: of a radius that bounds everywhere allow, for what rounding takes
_FARTHEST = 2.0**20  #: times the radius that holds everywhere, where no gradient sets an end
_STEPS: tuple[Method, ...] = ("propagation", "lipsdp")  #: methods that a radius is tried with


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    """The ball of one point: its certificate proves the label; radius 0: nothing is proved."""

    label: int
    radius: float
    certificate: Certificate | None

    def to_json(self) -> RingJson:
        """The same with the certificate's JSON."""
        certificate = self.certificate and certificate_json(self.certificate)
        return RingJson(label=self.label, radius=self.radius, certificate=certificate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Radii:
    """The answer for all points."""

    model: str
    question: Question
    rings: tuple[Ring, ...]

    def to_json(self) -> dict[str, object]:
        """As JSON members, with the certificates and the quantiles of the radii."""
        return answer_json(
            self.model, self.question.norm.value, [ring.to_json() for ring in self.rings]
        )


def radii(
    model: bytes,
    question: Question,
    on_progress: Callable[[int, float, float], None] | None = None,
    on_ring: Callable[[int, Ring], None] | None = None,
) -> Radii:
    """The largest radius that is proved for each point within the budget.

    Args:
        model: the bytes of an ONNX file.
        question: the points and the norm.
        on_progress: called with the point's number, the radius proved and the one still hoped for.
        on_ring: called with the point's number and every better ball on the way.

    Raises:
        ModelRefused: the file cannot be read.
        InvalidRequest: the question does not fit the model.
    """
    clock = Clock.start(question.seconds)
    imported = load(model, Reading(bind=question.bind))
    network = imported.require_network()
    refuse_misfit(question, network.input_size, network.output_size)
    rings: list[Ring] = []
    count = len(question.centers)
    for place in range(count):
        share = Clock.start(clock.remaining / (count - place))
        search = _Search.of(model, imported.sha256, network, question, place, share)

        def told(low: float, high: float, place: int = place) -> None:
            if on_progress is not None:
                on_progress(place, low, high)

        def kept(ring: Ring, place: int = place) -> None:
            if on_ring is not None:
                on_ring(place, ring)

        rings.append(search.ring(told, kept))
    return Radii(model=imported.sha256, question=question, rings=tuple(rings))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Search:
    """One point."""

    case: Case
    network: Network
    label: int
    margins: Float64[Tensor, " others"]  #: m, a little less
    gradients: Float64[Tensor, " others"]  #: dual norms of the margins' gradients at the point
    question: Question
    place: int  #: of the point in the question
    clock: Clock

    @staticmethod
    def of(
        model: bytes,
        model_id: str,
        network: Network,
        question: Question,
        place: int,
        clock: Clock,
    ) -> _Search:
        x = torch.tensor([question.centers[place]], dtype=torch.float64)
        values = network.forward(x)[0]
        label = int(values.argmax()) if question.label is None else question.label
        pairs = tuple((label, j) for j in range(len(values)) if j != label)
        asked = Property(
            bind=question.bind,
            scope="local",
            norm=NormPair(question.norm, Norm.LINF),
            region=question.ball(place, 1.0),
            outputs=Margins(pairs),
        )
        items = items_of(asked, len(values))
        rows = torch.cat([item.rows for item in items])
        jacobian = Derivatives(network, rows).jacobian(x)[0]
        case = Case(
            model=model,
            model_id=model_id,
            asked=asked,
            items=items,
            patterns=network.patterns,
            target=None,
            producer={**PRODUCER, "torch": torch.__version__, "seed": 0},
        )
        return _Search(
            case=case,
            network=network,
            label=label,
            margins=rows @ values - 1e-9 * values.abs().amax(),
            gradients=norm_of(question.norm.dual, jacobian),
            question=question,
            place=place,
            clock=clock,
        )

    def ring(self, told: Callable[[float, float], None], kept: Callable[[Ring], None]) -> Ring:
        """The largest ball that is proved within the clock."""
        best = Ring(label=self.label, radius=0.0, certificate=None)
        if not bool((0 < self.margins).all()):
            return best
        first = self._everywhere()
        found = self._proved(first, ("product",)) if 0 < first else None
        best = self._kept(found, best, kept)
        high = float((self.margins / self.gradients.clamp(min=1e-300)).amin())
        high = min(high, _FARTHEST * best.radius if 0 < best.radius else 1.0)
        is_over = self.clock.has_expired and best.certificate is not None
        while CLOSE * high < high - best.radius and 2.0**-500 <= high and not is_over:
            told(best.radius, high)
            middle = _between(best.radius, high)
            found = self._proved(middle, _STEPS) if best.radius < middle < high else None
            best, high = self._kept(found, best, kept), high if found else middle
            is_over = self.clock.has_expired
        return best

    def _kept(self, found: Ring | None, best: Ring, kept: Callable[[Ring], None]) -> Ring:
        """The better of the two, told where it is the new one."""
        if found is None:
            return best
        kept(found)
        return found

    def _everywhere(self) -> float:
        """The radius that bounds everywhere allow."""
        found = self._candidates("product", self.case.asked)
        if not found:
            return 0.0
        bounds = torch.tensor(found[0].estimates, dtype=torch.float64)
        return _SHY * float((self.margins / bounds.clamp(min=1e-300)).amin())

    def _proved(self, radius: float, names: Sequence[Method]) -> Ring | None:
        """The ball of this radius, where the checker concludes that the label holds on it."""
        region = self.question.ball(self.place, radius)
        case = replace(self.case, asked=replace(self.case.asked, region=region))
        for name in names:
            for candidate in self._candidates(name, case.asked):
                bounds = torch.tensor(candidate.estimates, dtype=torch.float64)
                if not bool((bounds * radius < self.margins).all()):
                    continue
                outcome = prove(case, candidate, None, ())
                if isinstance(outcome, Unproved):
                    continue
                if check_radius(outcome, case.model).valid:
                    ended = finished(outcome, (), self.clock.elapsed)
                    return Ring(label=self.label, radius=radius, certificate=ended)
        return None

    def _candidates(self, name: Method, asked: Property) -> list[Candidate]:
        """What one method finds; nothing where it does not apply."""
        try:
            (tier,) = tiers_of(Request(property=asked, method=name), self.network)
            return list(tier.run(self.clock, NO_AIM))
        except (JobFailed, NotLipschitzOnRegion):
            return []  # a smaller ball may have a bound
        except LipcertError:
            if name == _STEPS[0]:
                raise  # a node in the way of every method over a region
            return []


def _between(low: float, high: float) -> float:
    """A radius between two: by their logarithms, where they are far apart."""
    is_far = 4 * low < high and 0 < low
    return math.sqrt(low * high) if is_far else (low + high) / 2
