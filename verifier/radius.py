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
from verifier.errors import InvalidRequest, JobFailed, LipcertError, NotLipschitzOnRegion
from verifier.json_shapes import (
    read_index,
    read_list,
    read_number,
    read_object,
    read_vector,
)
from verifier.methods.clock import Clock
from verifier.methods.derivatives import Derivatives
from verifier.methods.duality import norm_of
from verifier.methods.items import items_of
from verifier.methods.progress import NO_AIM
from verifier.network.graph import Network
from verifier.norm_json import read_norm
from verifier.norms import Norm, NormPair
from verifier.onnx_import import load
from verifier.property import Margins, Method, Property, Request
from verifier.proving import Case, Unproved, finished, prove
from verifier.quantiles import quantiles_of
from verifier.regions import Ball, CenterBox, Clip, Vector
from verifier.tiers import tiers_of
from verifier.version import VERSION

CLOSE = 1e-3  #: the bisection ends where its two radii differ by this share
_SHY = 1 - 1e-6  #: of a radius that bounds everywhere allow, for what rounding takes
_FARTHEST = 2.0**20  #: times the radius that holds everywhere, where no gradient sets an end
_STEPS: tuple[Method, ...] = ("propagation", "lipsdp")  #: methods that a radius is tried with


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Points, their labels, and the norm of the balls around them."""

    centers: tuple[Vector, ...]
    norm: Norm = Norm.LINF  #: linf or l2
    label: int | None = None  #: of all of them; None: the greatest output of each
    clip: Clip | None = None  #: the input domain, for linf
    seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.norm is Norm.L1:
            raise InvalidRequest("norm l1 has no radius yet", fix="use linf or l2")
        if self.clip is not None and self.norm is not Norm.LINF:
            raise InvalidRequest("only boxes are clipped", fix="use linf, or leave `clip` out")
        if not 0 < self.seconds < math.inf:
            raise InvalidRequest(f"{self.seconds} seconds", fix="give a number above 0")


def parse_question(value: object) -> Question:
    """The question that a JSON object states.

    Raises:
        InvalidRequest: a member is unknown, of the wrong type or out of range.
    """
    known = {"centers", "norm", "label", "clip", "seconds"}
    members = read_object(value, "", known)
    centers = read_list(members.get("centers"), "/centers", read_vector)
    label, clip = members.get("label"), members.get("clip")
    return Question(
        centers=centers,
        norm=read_norm(members.get("norm", "linf"), "/norm"),
        label=None if label is None else read_index(label, "/label"),
        clip=None if clip is None else _clip(clip),
        seconds=read_number(members.get("seconds", 60.0), "/seconds"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    """The ball of one point: its certificate proves the label; radius 0: nothing is proved."""

    label: int
    radius: float
    certificate: Certificate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Radii:
    """The answer for all points."""

    model: str
    question: Question
    rings: tuple[Ring, ...]

    def to_json(self) -> dict[str, object]:
        """As JSON members, with the certificates and the quantiles of the radii."""
        return {
            "model": self.model,
            "norm": self.question.norm.value,
            "radii": [
                {
                    "center": place,
                    "label": ring.label,
                    "radius": ring.radius,
                    "certificate": ring.certificate and certificate_json(ring.certificate),
                }
                for place, ring in enumerate(self.rings)
            ],
            "quantiles": quantiles_of([ring.radius for ring in self.rings]),
        }


def radii(
    model: bytes,
    question: Question,
    on_progress: Callable[[int, float, float], None] | None = None,
) -> Radii:
    """The largest radius that is proved for each point within the budget.

    Args:
        model: the bytes of an ONNX file.
        question: the points and the norm.
        on_progress: called with the point's number, the radius proved and the one still hoped for.

    Raises:
        ModelRefused: the file cannot be read.
        InvalidRequest: the question does not fit the model.
    """
    clock = Clock.start(question.seconds)
    imported = load(model)
    network = imported.require_network()
    _refuse_misfit(question, network)
    rings: list[Ring] = []
    for place, center in enumerate(question.centers):
        share = Clock.start(clock.remaining / (len(question.centers) - place))
        search = _Search.of(model, imported.sha256, network, question, center, share)

        def told(low: float, high: float, place: int = place) -> None:
            if on_progress is not None:
                on_progress(place, low, high)

        rings.append(search.ring(told))
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
    center: Vector
    clock: Clock

    @staticmethod
    def of(
        model: bytes,
        model_id: str,
        network: Network,
        question: Question,
        center: Vector,
        clock: Clock,
    ) -> _Search:
        x = torch.tensor([center], dtype=torch.float64)
        values = network.forward(x)[0]
        label = int(values.argmax()) if question.label is None else question.label
        pairs = tuple((label, j) for j in range(len(values)) if j != label)
        asked = Property(
            scope="local",
            norm=NormPair(question.norm, Norm.LINF),
            region=_ball(question, center, 1.0),
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
            producer={"version": VERSION, "torch": torch.__version__, "seed": 0},
        )
        return _Search(
            case=case,
            network=network,
            label=label,
            margins=rows @ values - 1e-9 * values.abs().amax(),
            gradients=norm_of(question.norm.dual, jacobian),
            question=question,
            center=center,
            clock=clock,
        )

    def ring(self, told: Callable[[float, float], None]) -> Ring:
        """The largest ball that is proved within the clock."""
        none = Ring(label=self.label, radius=0.0, certificate=None)
        if not bool((0 < self.margins).all()):
            return none
        best, low = None, self._everywhere()
        if 0 < low:
            best = self._proved(low, ("product",))
            low = low if best else 0.0
        high = float((self.margins / self.gradients.clamp(min=1e-300)).amin())
        high = min(high, _FARTHEST * low if 0 < low else 1.0)
        while CLOSE * high < high - low and not (self.clock.has_expired and best is not None):
            told(low, high)
            middle = math.sqrt(low * high) if 4 * low < high and 0 < low else (low + high) / 2
            found = self._proved(middle, _STEPS) if low < middle < high else None
            low, high, best = (middle, high, found) if found else (low, middle, best)
            if high < 2.0**-500 or (self.clock.has_expired and best is None):
                break
        if best is None:
            return none
        ended = finished(best, (), self.clock.elapsed)
        return Ring(label=self.label, radius=low, certificate=ended)

    def _everywhere(self) -> float:
        """The radius that bounds everywhere allow."""
        found = self._candidates("product", self.case.asked)
        if not found:
            return 0.0
        bounds = torch.tensor(found[0].estimates, dtype=torch.float64)
        return _SHY * float((self.margins / bounds.clamp(min=1e-300)).amin())

    def _proved(self, radius: float, names: Sequence[Method]) -> Certificate | None:
        """A certificate from which the checker concludes that the label holds on this ball."""
        region = _ball(self.question, self.center, radius)
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
                    return outcome
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


def _clip(value: object) -> Clip:
    ends = read_object(value, "/clip", {"lower", "upper"})
    lower, upper = (read_number(ends.get(end), f"/clip/{end}") for end in ("lower", "upper"))
    return Clip(lower=lower, upper=upper)


def _ball(question: Question, center: Vector, radius: float) -> CenterBox | Ball:
    if question.norm is Norm.LINF:
        return CenterBox(center=center, radius=radius, clip=question.clip)
    return Ball(norm=question.norm, center=center, radius=radius)


def _refuse_misfit(question: Question, network: Network) -> None:
    for place, center in enumerate(question.centers):
        if len(center) != network.input_size:
            raise InvalidRequest(
                f"center {place} has {len(center)} coordinates, the model {network.input_size}",
                fix=f"give {network.input_size} numbers, flat and row-major",
                pointer="/center",
            )
    if network.output_size < 2:
        raise InvalidRequest("the model has one output", fix="a label needs two", pointer="/label")
    if question.label is not None and network.output_size <= question.label:
        raise InvalidRequest(
            f"label {question.label} is beyond {network.output_size - 1}",
            fix="count from 0",
            pointer="/label",
        )
