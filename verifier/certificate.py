"""The certificate: a claim, the proof of it, and what was sought besides. Pure data.

CERTIFICATE.md says what each proof claims and how it is checked; `certificate_json` writes the
JSON, `certificate_reader` and `proof_reader` read it. A `Candidate` is what a method returns:
unproved, and of another type, so that nothing but the checker's word turns one into the other.

Names inside proofs are ONNX tensor names: a nonlinear node is named by the tensor that leaves it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Context, Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float64

    from verifier.norms import Norm
    from verifier.property import Property, Semantics

FORMAT = "lipcert/1"

Soundness: TypeAlias = Literal["exact", "rigorous"]
Verdict: TypeAlias = Literal["certified", "violated", "undecided"]

PatternKind: TypeAlias = Literal[
    "folded-mirror",  # under real-idealised only
    "folded-second-order-mirror",  # likewise
    "groupsort",
    "householder",
    "maxmin",
    "normalise",
    "second-order-mirror",
    "turned-mirror",
]

# --- Proofs --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """A hint: the tensor `output` is this function of the tensor `input`. The checker verifies."""

    kind: PatternKind
    input: str
    output: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockNorm:
    """The linear map from one nonlinear node's output to another's input has at most this norm."""

    target: str  #: the nonlinear node that is entered, or "" for the network's output
    source: str  #: the nonlinear node that is left, or "" for the network's input
    norm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorNorm:
    """One linear operator of the file has at most this l2 norm; for maps too large for a block."""

    node: str  #: the tensor that leaves the operator
    norm: float


ProductTechnique: TypeAlias = Literal["sums", "joint", "balanced", "absolute"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductItem:
    """Norms for one item of the claim; hidden increments are measured in `internal`."""

    internal: Norm
    blocks: tuple[BlockNorm, ...] = ()
    factors: tuple[FactorNorm, ...] = ()
    techniques: tuple[ProductTechnique, ...] = ("sums",)  #: the item's bound is their least


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductProof:
    """Norms of the linear maps between nonlinear nodes, multiplied and added over the graph."""

    patterns: tuple[Pattern, ...]
    items: tuple[ProductItem, ...]
    kind: Literal["product"] = "product"


@dataclass(frozen=True, slots=True, kw_only=True)
class PairCuts:
    """Cuts between gates of two nodes, each weighted by the root of its multiplier."""

    first: str  #: a nonlinear node; "" in rows for linf inputs: the selected inputs
    second: str
    first_entries: tuple[int, ...]  #: for each cut, which gate of the first node
    second_entries: tuple[int, ...]
    weights: Float64[np.ndarray, " four_for_each"]  #: p_1, p_2, r_1, r_2 of every cut


@dataclass(frozen=True, slots=True, kw_only=True)
class LmiRow:
    """One linear matrix inequality: of all outputs of the item jointly, or of one of them."""

    output: int | None  #: position among the item's outputs; None: all of them, in l2 (or l1)
    level: float  #: rho for l2 inputs (the bound is its root), s for linf inputs; unused for l1
    input_multipliers: Float64[np.ndarray, " inputs"] | None  #: tau, for linf inputs only
    multipliers: Mapping[str, Float64[np.ndarray, " gates"]]  #: lambda by nonlinear node
    cuts: tuple[PairCuts, ...] = ()
    #: Q of every group, by sorting node: lower triangles, row by row, group after group
    sort_blocks: Mapping[str, Float64[np.ndarray, " triangles"]] = field(
        default_factory=dict[str, "Float64[np.ndarray, ' triangles']"]
    )
    #: of the signs of the outputs: the row bounds all outputs in l1
    output_multipliers: Float64[np.ndarray, " outputs"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LmiItem:
    """The inequalities that bound one item of the claim."""

    rows: tuple[LmiRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LmiProof:
    """Multipliers of quadratic constraints with the activations' global slopes."""

    patterns: tuple[Pattern, ...]
    items: tuple[LmiItem, ...]
    gated: tuple[str, ...] = ()  #: products, and sums of two, that are one gate of several inputs
    kind: Literal["lmi"] = "lmi"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Slopes of the lines below and above each neuron's activation; the checker finds offsets."""

    lower: Float64[np.ndarray, " neurons"]
    upper: Float64[np.ndarray, " neurons"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardProof:
    """How the bounds of every pre-activation over the region are proved again."""

    technique: Literal["interval", "linear"]
    lines: Mapping[str, Lines] = field(default_factory=dict[str, Lines])  #: absent: the checker's


@dataclass(frozen=True, slots=True, kw_only=True)
class PropagationProof:
    """Bounds of the Clarke Jacobian over the region, propagated through the graph backwards."""

    patterns: tuple[Pattern, ...]
    forward: ForwardProof
    technique: Literal["interval", "linear", "joint"]
    kind: Literal["propagation"] = "propagation"


@dataclass(frozen=True, slots=True, kw_only=True)
class SlopeRange:
    """Every secant of each neuron's activation over the region has a slope in [lower, upper]."""

    lower: Float64[np.ndarray, " neurons"]
    upper: Float64[np.ndarray, " neurons"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateLmiProof:
    """Multipliers of quadratic constraints with the slopes that the region leaves."""

    patterns: tuple[Pattern, ...]
    forward: ForwardProof
    slopes: Mapping[str, SlopeRange]
    items: tuple[LmiItem, ...]
    kind: Literal["gate-lmi"] = "gate-lmi"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecursionProof:
    """One positive scale for each gate: the increments' covariance is carried gate by gate."""

    patterns: tuple[Pattern, ...]
    inputs: Float64[np.ndarray, " inputs"] | None  #: e: the inputs' covariance, for linf inputs
    scales: Mapping[str, Float64[np.ndarray, " gates"]]  #: D by gate; 0 where a gate is linear
    kind: Literal["block-recursion"] = "block-recursion"


@dataclass(frozen=True, slots=True, kw_only=True)
class TorusProof:
    """The same for convolutions, on a torus around every tensor, frequency by frequency."""

    patterns: tuple[Pattern, ...]
    sides: tuple[int, ...]  #: of the torus at the input's resolution, one for each spatial axis
    scales: Mapping[str, Float64[np.ndarray, " channels"]]  #: behind the crop: one for each gate
    masks: Mapping[str, Float64[np.ndarray, " channels"]]  #: scales of masks, by tensor
    kind: Literal["torus"] = "torus"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A binary tree of closed cuts, its nodes in preorder: a cut, its lower part, its upper part.

    A cut divides what enters one gate at a number t: the lower part has z <= t, the upper part
    t <= z, so that the two cover their parent. A cut of the input does the same to a coordinate.
    A trim is a cut one part of which is shown to be empty at once; only the other one follows.
    """

    output: int | None  #: position among the item's outputs; None: all of them jointly
    #: of every node: CUT, a leaf's: EMPTY, INEQUALITY, JACOBIAN, or a trim's: BELOW, ABOVE, by the
    #: part that is left
    kinds: tuple[int, ...]
    gates: tuple[int, ...]  #: of every cut and trim: which of the proof's `gates` it divides
    entries: tuple[int, ...]  #: of every cut and trim: the neuron
    places: Float64[np.ndarray, " cuts"]  #: of every cut and trim: t
    #: for each empty leaf and each trim one number >= 0 for each cut (not trim) above it, the
    #: root's first: with them, and 1 for the trim itself, the cuts contradict each other
    weights: Float64[np.ndarray, " weights"]
    rows: tuple[int, ...]  #: of every inequality leaf: which of the item's rows it takes
    levels: Float64[np.ndarray, " inequalities"]  #: rho or s, in the place of the row's own
    scales: Float64[np.ndarray, " inequalities"]  #: by which all of the row's multipliers grow


CUT, EMPTY, INEQUALITY, JACOBIAN, BELOW, ABOVE = range(6)  #: the kinds of a tree's nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeItem:
    """The trees that bound one item of the claim, and the multipliers that their leaves share."""

    rows: tuple[LmiRow, ...]
    trees: tuple[Tree, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeProof:
    """Branch and bound: the region divided by closed cuts, and a proof for every part."""

    patterns: tuple[Pattern, ...]
    forward: ForwardProof
    gates: tuple[str, ...]  #: what cuts divide, by name; "" is the input
    items: tuple[TreeItem, ...]
    kind: Literal["tree"] = "tree"


Single: TypeAlias = (
    ProductProof
    | LmiProof
    | PropagationProof
    | GateLmiProof
    | RecursionProof
    | TorusProof
    | TreeProof
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A block that every path leads through, and the norm of what enters and leaves it."""

    node: str
    norm: Norm


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitProof:
    """The network cut at blocks, and a proof for every part, in order."""

    patterns: tuple[Pattern, ...]  #: those of every part
    passages: tuple[Passage, ...]
    parts: tuple[Single, ...]  #: one more than passages
    #: How what enters blocks is bounded over the region; None: blocks count as they do everywhere.
    forward: ForwardProof | None = None
    kind: Literal["split"] = "split"


@dataclass(frozen=True, slots=True, kw_only=True)
class CentersProof:
    """A proof for the region around every center, in the order of the claim's."""

    patterns: tuple[Pattern, ...]  #: those of every part
    parts: tuple[Single | SplitProof, ...]
    kind: Literal["centers"] = "centers"


Proof: TypeAlias = Single | SplitProof | CentersProof

# --- What a method returns -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What a method found: numbers in any arithmetic, and the proof that it hopes for."""

    method: str
    estimates: tuple[float, ...]  #: one for each item of the claim; inf where float64 overflows
    proof: Proof
    points: tuple[tuple[float, ...], ...] = ()  #: where the function was found to be steep


# --- The certificate -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemBound:
    """The bound of one item of a list: around one center, of one output, or of one margin."""

    bound: float | None  #: None where it exceeds float64
    output: int | None = None
    margin: tuple[int, int] | None = None
    center: int | None = None  #: position of the center, for regions around many


@dataclass(frozen=True, slots=True, kw_only=True)
class Entries:
    """lower <= J <= upper, entry by entry and row-major, for every Clarke Jacobian J."""

    shape: tuple[int, int]  #: the selected outputs, the selected inputs
    lower: tuple[float, ...]
    upper: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumption:
    """What a claim rests on beside the file."""

    code: str
    node: str
    value: str

    @staticmethod
    def of_weight(name: str, array: np.ndarray) -> Assumption:
        """A weight that a caller may replace has its stored value: the digest of its numbers.

        They are float64, or int64 for integers and truth values, little-endian and row-major.
        """
        stored = array.astype("<f8" if array.dtype.kind == "f" else "<i8").tobytes()
        digest = hashlib.sha256(stored).hexdigest()
        return Assumption(code="overridable-initializer", node=name, value=f"sha256:{digest}")


Idealisation: TypeAlias = Literal[
    "folded-mirror", "folded-second-order-mirror", "quantise-dequantise", "thresholded-softplus"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Idealised:
    """A node that jumps, for which a continuous function g stands in the claim.

    |node(v) - g(v)|_2 <= absolute + relative |v|_2 for every v.
    """

    node: str  #: the tensor that leaves it
    pattern: Idealisation
    absolute: float
    relative: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What the property asks, answered; numbers where the kind has some.

    lipschitz   |f(x) - f(y)|_out <= bound |x - y|_in over the region; the largest, for a list
    jacobian    `entries`
    monotone    the verdict alone
    """

    model: str  #: `sha256:` and the hex digest of the file
    property: Property
    bound: float | None  #: None where it exceeds float64
    log10_bound: float | None  #: rounded up; None only where the bound is 0, or there is none
    bounds: tuple[ItemBound, ...] | None = None  #: for lists of centers, outputs or margins
    entries: Entries | None = None  #: of a Jacobian
    assumptions: tuple[Assumption, ...] = ()
    idealised: tuple[Idealised, ...] = ()  #: by node


def semantics_of(claim: Claim) -> Semantics:
    """Which function the claim is about: the file's, or that with its jumps idealised."""
    return "real-idealised" if claim.idealised else "real"


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """A pair that reaches `value`: value |x - y|_in <= |f(x) - f(y)|_out.

    Against a property of kind monotone: x and y differ in its input alone, where its output moves
    against the direction by at least value |x - y|, and 0 < value.
    """

    value: float
    x: tuple[float, ...]
    y: tuple[float, ...]
    item: int | None = None  #: position in the claim's list, for lists


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One method's best bound, as checked; None where it proved none."""

    method: str
    bound: float | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A claim with its proof. Outside the id: attempts, producer, resources, report."""

    claim: Claim
    proof: Proof
    lower_bound: Witness | None = None
    target: float | None = None
    verdict: Verdict | None = None
    soundness: Soundness = "rigorous"
    attempts: tuple[Attempt, ...] = ()
    producer: Mapping[str, str | int | None] = field(default_factory=dict[str, str | int | None])
    resources: Mapping[str, float] = field(default_factory=dict[str, float])
    report: Mapping[str, object] | None = None  #: layers and estimates; no part of the proof


def verdict_of(
    bound: float | None, witness: Witness | None, target: float | None
) -> Verdict | None:
    """The answer to "is the constant at most `target`?", as far as it is known."""
    if target is None:
        return None
    if bound is not None and bound <= target:
        return "certified"
    if witness is not None and target < witness.value:
        return "violated"
    return "undecided"


# --- Decimals that keep their side ---------------------------------------------------------------


def decimal_upper(value: float) -> float:
    """The least float64 from `value` up whose shortest decimal is not below `value`."""
    return value if Fraction(value) <= Fraction(repr(value)) else math.nextafter(value, math.inf)


def decimal_lower(value: float) -> float:
    """The greatest float64 from `value` down whose shortest decimal is not above `value`."""
    return value if Fraction(repr(value)) <= Fraction(value) else math.nextafter(value, -math.inf)


def log10_upper(mantissa: float, exponent: int = 0) -> float | None:
    """log10(mantissa 2^exponent) rounded up; None for 0. Holds far beyond float64's range."""
    if mantissa == 0:
        return None
    # 60 digits, each step correctly rounded: the error is far below the one ulp added.
    context = Context(prec=60)
    power = context.multiply(Decimal(exponent), context.log10(Decimal(2)))
    exact = context.add(context.log10(Decimal(mantissa)), power)
    return math.nextafter(float(exact), math.inf)
