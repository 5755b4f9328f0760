"""The checker's own picture of a network: what it read from the file, and nothing else.

Signals are flat vectors, row-major. A stored constant is exact; a folded one is a pair (W, E) with
|W_true - W| <= E entrywise (rigour: stored, folded and fused constants). A map states how it acts
on rows of numbers in float64, how its magnitudes act, and how many terms one of its sums has, so
that every proof accounts for rounding in the same way:

    |fl(A x) - A_true x_true| <= |A|(dx + gamma_(terms+2) |x|) + E (|x| + dx)               (1)

where dx bounds the error that x already has. `magnitudes` applies |A|, `slack` applies E.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float64, Int64

    from verifier.certificate import Assumption, Idealised
    from verifier.checker.arithmetic import Magnitude
    from verifier.norms import Norm


@runtime_checkable
class Map(Protocol):
    """A linear map A with its error E; rows are vectors, so [k, in] becomes [k, out]."""

    @property
    def in_size(self) -> int:
        """The number of entries that enter."""
        ...

    @property
    def out_size(self) -> int:
        """The number of entries that leave."""
        ...

    @property
    def terms(self) -> int:
        """The most terms that a sum of `forward` has; 1 where nothing is rounded but a product."""
        ...

    @property
    def adjoint_terms(self) -> int:
        """The same for `backward`."""
        ...

    @property
    def is_exact(self) -> bool:
        """Whether E = 0 and every entry is 0 or 1 with no sums: then nothing is rounded at all."""
        ...

    def forward(self, rows: Float64[np.ndarray, "k in"]) -> Float64[np.ndarray, "k out"]:
        """fl(A x) of every row."""
        ...

    def backward(self, rows: Float64[np.ndarray, "k out"]) -> Float64[np.ndarray, "k in"]:
        """fl(A' y) of every row."""
        ...

    def magnitudes(self, rows: Float64[np.ndarray, "k in"]) -> Float64[np.ndarray, "k out"]:
        """fl(|A| x) of every row."""
        ...

    def adjoint_magnitudes(self, rows: Float64[np.ndarray, "k out"]) -> Float64[np.ndarray, "k in"]:
        """fl(|A|' y) of every row."""
        ...

    def slack(self, rows: Float64[np.ndarray, "k in"]) -> Float64[np.ndarray, "k out"]:
        """fl(E x) of every row; zeros where the map is stored."""
        ...

    def adjoint_slack(self, rows: Float64[np.ndarray, "k out"]) -> Float64[np.ndarray, "k in"]:
        """fl(E' y) of every row."""
        ...


@runtime_checkable
class Scalar(Protocol):
    """An elementwise function with everything that proofs ask of it, rounded outward.

    Parameters may differ from entry to entry; every array has the signal's length.
    """

    def tiled(self, count: int, /) -> Scalar:
        """The function of a signal that is so many copies of this one, one after another."""
        ...

    def slope_range(
        self, size: int
    ) -> tuple[Float64[np.ndarray, " size"], Float64[np.ndarray, " size"]]:
        """Every secant anywhere has a slope within [lower, upper]. Raises NotLipschitzGlobally."""
        ...

    def slope_range_on(
        self, lower: Float64[np.ndarray, " n"], upper: Float64[np.ndarray, " n"]
    ) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """Every Clarke slope, hence every secant, on the closed [lower, upper] lies within."""
        ...

    def slopes_inside(
        self, lower: Float64[np.ndarray, " n"], upper: Float64[np.ndarray, " n"]
    ) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """Every slope on the open (lower, upper) lies within: a kink at an end has one side.

        Of a point any slope on it may be left out, as long as there is one.
        """
        ...

    def image(
        self, lower: Float64[np.ndarray, " n"], upper: Float64[np.ndarray, " n"]
    ) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """Every value on the closed [lower, upper] lies within."""
        ...

    def lines(
        self, lower: Float64[np.ndarray, " n"], upper: Float64[np.ndarray, " n"]
    ) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """Good slopes (below, above) where a proof brings none."""
        ...

    def offsets(
        self,
        lower: Float64[np.ndarray, " n"],
        upper: Float64[np.ndarray, " n"],
        below: Float64[np.ndarray, " n"],
        above: Float64[np.ndarray, " n"],
    ) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """(c, d) with below x + c <= f(x) <= above x + d on [lower, upper], for any slopes."""
        ...


@runtime_checkable
class BlockFunction(Protocol):
    """A differentiable function from n entries to n entries, on many boxes at once.

    Where it is only Lipschitz, its derivatives are all of its Clarke Jacobians.
    """

    def constant(self, norm: Norm, width: int) -> Magnitude:
        """A number that |f(x) - f(y)| / |x - y| does not exceed anywhere, in one norm.

        Raises:
            NotLipschitzGlobally: there is none.
        """
        ...

    def image(
        self, lower: Float64[np.ndarray, "*groups n"], upper: Float64[np.ndarray, "*groups n"]
    ) -> tuple[Float64[np.ndarray, "*groups n"], Float64[np.ndarray, "*groups n"]]:
        """Every value on the closed box lies within."""
        ...

    def derivatives(
        self, lower: Float64[np.ndarray, "*groups n"], upper: Float64[np.ndarray, "*groups n"]
    ) -> tuple[Float64[np.ndarray, "*groups n n"], Float64[np.ndarray, "*groups n n"]]:
        """Every derivative of output i by input j on the closed box lies within [.., i, j]."""
        ...

    def constant_on(
        self,
        norm: Norm,
        lower: Float64[np.ndarray, "*groups n"],
        upper: Float64[np.ndarray, "*groups n"],
    ) -> Float64[np.ndarray, "*groups 1"]:
        """Numbers that the norm of no derivative on the closed box exceeds; infinite ones too."""
        ...


@dataclass(frozen=True, slots=True)
class Term:
    """One linear map of a sum, and the signal that enters it ("" is the network's input)."""

    source: str
    map: Map


@dataclass(frozen=True, slots=True, kw_only=True)
class Affine:
    """The sum of linear maps of signals, and a bias with its error."""

    name: str
    size: int
    terms: tuple[Term, ...]
    bias: Float64[np.ndarray, " size"]
    bias_error: Float64[np.ndarray, " size"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Elementwise:
    """A scalar function of every entry of a signal."""

    name: str
    size: int
    source: str
    function: Scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """The products of two signals of one size, entry by entry."""

    name: str
    size: int
    left: str
    right: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sort:
    """Entries sorted within disjoint groups; entries of no group do not exist.

    `groups[g]` are the flat input indices of group g in the order of its axis, `places[g]` the flat
    output indices that receive its sorted values, smallest first.
    """

    name: str
    size: int
    source: str
    groups: Int64[np.ndarray, "groups n"]
    places: Int64[np.ndarray, "groups n"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reflection:
    """x - v (v.x) + v |v.x| for each row of `slices` (flat indices, disjoint, covering)."""

    name: str
    size: int
    source: str
    slices: Int64[np.ndarray, "slices n"]
    vectors: Float64[np.ndarray, "slices n"]
    vector_error: Float64[np.ndarray, "slices n"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Maximum:
    """The greatest entry of each window: max pooling, or a maximum over axes.

    `windows[j]` are flat input indices in kernel order; a missing place repeats the window's first
    valid index. `sign` is -1 for the least entry. `overlap` is the most windows that share an
    entry (each counted once a window).
    """

    name: str
    size: int
    source: str
    windows: Int64[np.ndarray, "size k"]
    sign: int
    overlap: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """A function of each of disjoint groups that cover the signal; what leaves stays in place.

    `groups[g]` are the flat indices of group g, of what enters and of what leaves.
    """

    name: str
    size: int
    source: str
    groups: Int64[np.ndarray, "groups n"]
    function: BlockFunction


@dataclass(frozen=True, slots=True, kw_only=True)
class Gated:
    """A function z of several inputs w_1, w_2, .., entry by entry; all w_1 enter first.

    Of increments, dz = sum_k middles_k dw_k + psi with psi^2 <= sum_k shares_k dw_k^2. The true
    middles are as near as rounding allows.
    """

    name: str
    size: int
    source: str
    middles: tuple[float, ...]
    shares: Float64[np.ndarray, " entering"]


Node: TypeAlias = Affine | Elementwise | Product | Sort | Reflection | Maximum | Blocks | Gated


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The function that the file denotes, in topological order."""

    input_size: int
    output: str  #: the name of the node whose signal is the output; "" for the identity
    output_size: int
    nodes: tuple[Node, ...]
    tensors: Mapping[str, int]  #: the size of every signal by name, the input's included as ""
    #: The shape in which the file makes a signal, where it makes it as a tensor.
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    #: Where each output of the file starts and ends in the flat output.
    outputs: Mapping[str, tuple[int, int]] = field(default_factory=dict[str, "tuple[int, int]"])
    assumptions: tuple[Assumption, ...] = ()  #: what the function rests on beside the file
    idealised: tuple[Idealised, ...] = ()  #: what stands for nodes that jump, by node
