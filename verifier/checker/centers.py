"""A claim about regions around many centers: one claim for each, of the same network and items.

The list is center by center, and every center's part of it in the order of the items.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from verifier.certificate import CentersProof
from verifier.checker.definite import NotProved
from verifier.regions import Centers

if TYPE_CHECKING:
    from verifier.certificate import Certificate, Witness
    from verifier.checker.items import Selection
    from verifier.property import Property

Label: TypeAlias = "tuple[int | None, int | None, tuple[int, int] | None]"


def parts_of(certificate: Certificate) -> list[Certificate]:
    """The property and the proof of each center, as certificates of which nothing else is used.

    Raises:
        NotProved: there is not one proof for each center.
    """
    proof, properties = certificate.proof, certificate.claim.property.parts
    if not isinstance(proof, CentersProof) or len(proof.parts) != len(properties):
        raise NotProved(f"{len(properties)} centers need as many proofs")
    return [
        replace(certificate, proof=part, claim=replace(certificate.claim, property=asked))
        for part, asked in zip(proof.parts, properties, strict=True)
    ]


def labels_of(asked: Property, selected: Selection) -> tuple[Label, ...]:
    """(center, output, margin) of every bound, in the order of the claim's list."""
    centers = range(len(asked.parts)) if isinstance(asked.region, Centers) else (None,)
    return tuple((c, item.output, item.margin) for c in centers for item in selected.items)


def of_one_center(
    witness: Witness, asked: Property, selected: Selection
) -> tuple[Property, Witness]:
    """The property that a witness is about, and the witness as one of that property.

    Raises:
        NotProved: it names no item of the list.
    """
    if not isinstance(asked.region, Centers):
        return asked, witness
    count, parts = len(selected.items), asked.parts
    if witness.item is None or not witness.item < count * len(parts):
        raise NotProved(f"the witness names item {witness.item} of {count * len(parts)}")
    center, item = divmod(witness.item, count)
    first = selected.items[0]
    is_list = first.output is not None or first.margin is not None
    return parts[center], replace(witness, item=item if is_list else None)
