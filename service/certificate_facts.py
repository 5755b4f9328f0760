"""What people and tools are told of a stored certificate, whatever the size of its proof."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from service.store.certificates import Stored

READ_BYTES = 2**20  #: of a certificate's text; of a larger one only what the database knows is told

MONOTONE: Mapping[object, str] = {
    "certified": "the output is monotone in the input",
    "violated": "the output is not monotone in the input",
    "undecided": "whether the output is monotone in the input is open",
    None: "the output was asked to be monotone in the input",  # of a large one nothing is read
}


@dataclass(frozen=True, slots=True)
class Facts:
    """A certificate that the checker has accepted, as far as it is told."""

    stored: Stored
    members: Mapping[str, Any]  #: of its JSON; Any: text that the checker's child has written
    is_whole: bool  #: whether all members are there, or those that the database knows

    @property
    def claim(self) -> Mapping[str, Any]:
        """What is asserted."""
        return self.members["claim"]

    @property
    def subject(self) -> str:
        """What was asked, in a few words."""
        words = f"{self.stored.scope} {self.stored.kind}"
        norm = self.claim.get("norm")
        if self.stored.kind != "lipschitz" or not isinstance(norm, dict):
            return words
        sides = cast("Mapping[str, object]", norm)
        return f"{words}, {_side(sides['input'])} to {_side(sides['output'])}"

    @property
    def assertion(self) -> str:
        """The claim's answer, as one sentence without its end."""
        if self.stored.kind == "monotone":
            return MONOTONE[self.members.get("verdict")]
        if self.stored.kind == "jacobian":
            return "every entry of the Jacobian lies in its interval"
        bound = self.claim["bound"]
        if bound is None:
            return f"the Lipschitz constant is at most 10^{self.claim['log10_bound']!r}"
        return f"the Lipschitz constant is at most {bound!r}"

    @property
    def target(self) -> float | None:
        """The number that the bound was compared with."""
        target = self.members.get("target")
        return None if target is None else target["upper"]


def facts_of(stored: Stored, text: Path) -> Facts:
    """The facts of a certificate whose canonical text is in this file."""
    if stored.size <= READ_BYTES:
        return Facts(stored, json.loads(text.read_bytes()), is_whole=True)
    summary = stored.summary
    lower = summary["lower"]
    claim = {
        "model": stored.model,
        "kind": stored.kind,
        "scope": stored.scope,
        "bound": summary["bound"],
        "log10_bound": summary["log10_bound"],
    }
    members: dict[str, object] = {
        "claim": claim,
        "lower_bound": None if lower is None else {"value": lower},
        "soundness": summary["soundness"],
        "proof": {"kind": summary["proof"]},
    }
    return Facts(stored, members, is_whole=False)


def _side(norm: object) -> str:
    """A norm's name; of a weighted one without its weights."""
    return norm if isinstance(norm, str) else "weighted"
