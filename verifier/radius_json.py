"""Questions about radii and their answers, and the JSON of both. Knows no network and no search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from verifier.errors import InvalidRequest
from verifier.json_shapes import (
    Object,
    read_index,
    read_list,
    read_number,
    read_object,
    read_vector,
)
from verifier.norm_json import read_norm
from verifier.norms import Norm
from verifier.property import Bind
from verifier.quantiles import quantiles_of
from verifier.regions import Ball, CenterBox, Clip, Vector
from verifier.request_json import bind_json, read_bind


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Points, their labels, and the norm of the balls around them."""

    centers: tuple[Vector, ...]
    norm: Norm = Norm.LINF  #: linf or l2
    label: int | None = None  #: of all of them; None: the greatest output of each
    clip: Clip | None = None  #: the input domain, for linf
    bind: Bind = field(default_factory=Bind)  #: symbolic dimensions and constant inputs, by name
    seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.norm is Norm.L1:
            raise _refused("/norm", "norm l1 has no radius yet", "use linf or l2")
        if self.clip is not None and self.norm is not Norm.LINF:
            raise _refused("/clip", "only boxes are clipped", "use linf, or leave `clip` out")
        if not 0 < self.seconds < math.inf:
            raise _refused("/seconds", f"{self.seconds} seconds", "give a number above 0")
        for place, center in enumerate(self.centers):
            if len(center) != len(self.centers[0]):
                sizes = f"{len(center)} coordinates, and the first {len(self.centers[0])}"
                raise _refused(f"/centers/{place}", f"it has {sizes}", "give points of one model")
            if self.clip is not None and not _is_within(center, self.clip):
                raise _refused(
                    f"/centers/{place}", "it lies outside of `clip`", "give points of the domain"
                )

    @property
    def dimension(self) -> int:
        """Coordinates of every point."""
        return len(self.centers[0])

    def ball(self, place: int, radius: float) -> CenterBox | Ball:
        """The ball of this radius around one of the points."""
        center = self.centers[place]
        if self.norm is Norm.LINF:
            return CenterBox(center=center, radius=radius, clip=self.clip)
        return Ball(norm=self.norm, center=center, radius=radius)


def parse_question(value: object) -> Question:
    """The question that a JSON object states.

    Raises:
        InvalidRequest: a member is unknown, of the wrong type or out of range.
    """
    known = {"centers", "norm", "label", "clip", "bind", "seconds"}
    members = read_object(value, "", known)
    centers = read_list(members.get("centers"), "/centers", read_vector)
    label, clip = members.get("label"), members.get("clip")
    return Question(
        centers=centers,
        norm=read_norm(members.get("norm", "linf"), "/norm"),
        label=None if label is None else read_index(label, "/label"),
        clip=None if clip is None else _clip(clip),
        bind=read_bind(members.get("bind", {}), "/bind"),
        seconds=read_number(members.get("seconds", 60.0), "/seconds"),
    )


def question_json(question: Question) -> dict[str, object]:
    """The JSON that `parse_question` reads, every member present; `bind` where there is one."""
    clip = question.clip
    return {
        "centers": [list(center) for center in question.centers],
        "norm": question.norm.value,
        "label": question.label,
        "clip": None if clip is None else {"lower": clip.lower, "upper": clip.upper},
        **({} if question.bind == Bind() else {"bind": bind_json(question.bind)}),
        "seconds": question.seconds,
    }


def refuse_misfit(question: Question, inputs: int, outputs: int) -> None:
    """Refuse what a model with so many inputs and outputs does not have.

    Raises:
        InvalidRequest: the points have another dimension, or there is no such label.
    """
    if question.dimension != inputs:
        raise _refused(
            "/centers",
            f"the points have {question.dimension} coordinates, the model {inputs} inputs",
            f"give {inputs} numbers, flat and row-major",
        )
    if outputs < 2:
        raise _refused("/label", "the model has one output", "a label needs two")
    if question.label is not None and outputs <= question.label:
        raise _refused("/label", f"{question.label} is beyond {outputs - 1}", "count from 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class RingJson:
    """The answer for one point; `certificate` proves the label on the ball of this radius.

    None: nothing is proved, and the radius is 0.
    """

    label: int | None
    radius: float
    certificate: object


def answer_json(model: str, norm: str, rings: Sequence[RingJson]) -> dict[str, object]:
    """The answer for all points, with the quantiles of the radii."""
    return {
        "model": model,
        "norm": norm,
        "radii": [
            {
                "center": place,
                "label": ring.label,
                "radius": ring.radius,
                "certificate": ring.certificate,
            }
            for place, ring in enumerate(rings)
        ],
        "quantiles": quantiles_of([ring.radius for ring in rings]),
    }


def unanswered(label: int | None) -> RingJson:
    """The answer for a point of which nothing is proved; `label`: the one that was asked for."""
    return RingJson(label=label, radius=0.0, certificate=None)


def _clip(value: object) -> Clip:
    ends: Object = read_object(value, "/clip", {"lower", "upper"})
    lower, upper = (read_number(ends.get(end), f"/clip/{end}") for end in ("lower", "upper"))
    return Clip(lower=lower, upper=upper)


def _is_within(center: Vector, clip: Clip) -> bool:
    return all(clip.lower <= coordinate <= clip.upper for coordinate in center)


def _refused(pointer: str, detail: str, fix: str) -> InvalidRequest:
    return InvalidRequest(f"{pointer}: {detail}", fix=fix, pointer=pointer)
