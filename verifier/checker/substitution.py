"""Linear bounds of signals, carried backwards through a graph of affine nodes and gates.

To bound a.s above, a row over a signal s, every node is replaced by what bounds it: an affine node
by itself, a gate h(z) by lines,

    below z + low <= h(z) <= above z + high      on the bounds of z,                        (1)

the upper line where the coefficient is positive and the lower one where it is negative, until only
the graph's input is left, where the row is concretised. The float64 coefficients *are* the
multipliers of (1); all rounding goes into a constant `error`, with |z| <= magnitude(z):

    affine   |fl(A W) - A W_true| |x| <= |A| (gamma |W| + E) |x|,
             |fl(A b) - A b_true| <= |A| (gamma |b| + |b_true - b|),
    gate     |fl(A slope) - A slope| |z| <= u |A slope| |z|.

The engine serves the network itself (gates: activations) and its reversed Jacobian (gates: slopes
in an interval), one batch row for each row of outputs: lines may differ from row to row. A gate of
the Jacobian may read a second signal, one of the network: both are then one graph of two inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from verifier.checker.arithmetic import LEAST, UNIT, above, enlarged, gamma
from verifier.checker.carry import stages
from verifier.checker.definite import NotProved
from verifier.checker.intervals import Interval
from verifier.checker.maps import Adjoint, Convolution
from verifier.checker.network import Affine
from verifier.norms import Norm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Float64, Int64

WORKING_ENTRIES = 2**22  #: the most coefficients of one signal at a time
FORMED_ENTRIES = 2**20  #: a convolution of no more entries becomes a matrix
FORMED_ROWS = 512  #: for at least so many rows
#: Sums of non-negative error terms are enlarged by this in the end; gamma stays below a fifth.
ERROR_GROWTH = 1 + 1e-8
LONGEST_SUM = 2**23


@dataclass(frozen=True, slots=True)
class Lines:
    """Below z + low <= h(z) <= above z + high for every z within its bounds.

    With `beside`, of a gate that reads a second signal y: the same of h(z, y) - beside y.
    """

    below: Float64[np.ndarray, "batch n"]
    above: Float64[np.ndarray, "batch n"]
    low: Float64[np.ndarray, "batch n"]
    high: Float64[np.ndarray, "batch n"]
    beside: Float64[np.ndarray, "batch n"] | None = None

    @property
    def bent(self) -> Int64[np.ndarray, " some"]:
        """Entries where the two lines differ, or miss 0, in some batch row."""
        straight = (self.below == self.above) & (self.low == 0) & (self.high == 0)
        return np.flatnonzero(~np.all(straight, axis=0))

    @property
    def rounded(self) -> Int64[np.ndarray, " some"]:
        """Entries where products with a slope round: slopes other than 0, 1 and -1."""
        plain = np.isin(self.below, (-1.0, 0.0, 1.0)) & np.isin(self.above, (-1.0, 0.0, 1.0))
        return np.flatnonzero(~np.all(plain, axis=0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A node of one signal, or two, that is bounded by lines."""

    name: str
    size: int
    source: str
    second: str = ""  #: the other one, where the lines have a `beside`


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """|x - centre|_norm <= radius; a box has a radius for every coordinate.

    One row for all batch rows, or one for each.
    """

    centre: Float64[np.ndarray, "batch n"]
    radius: Float64[np.ndarray, "batch n"]
    norm: Norm

    def greatest(
        self, rows: Float64[np.ndarray, "batch k n"]
    ) -> tuple[Float64[np.ndarray, "batch k"], Float64[np.ndarray, "batch k"]]:
        """A.centre + |A| in the dual norm, times the radius."""
        magnitudes = np.abs(rows)
        share = gamma(rows.shape[-1] + 4)
        match self.norm:
            case Norm.LINF:
                reach = _times(magnitudes, self.radius)
            case Norm.L2:
                # Squares may underflow by eta each; 2^-530 n is the root of more than that.
                reach = np.sqrt(np.sum(np.square(rows), axis=-1)) + 2.0**-530 * rows.shape[-1]
                reach = reach * self.radius[:, :1]
            case Norm.L1:
                reach = magnitudes.max(axis=-1, initial=0.0) * self.radius[:, :1]
        mass = _times(magnitudes, np.abs(self.centre)) + reach
        error = share * mass + rows.shape[-1] * 4 * LEAST
        return _times(rows, self.centre) + reach, error


@dataclass(frozen=True, slots=True)
class Within:
    """The input is in both sets."""

    first: Around
    second: Around

    def greatest(
        self, rows: Float64[np.ndarray, "batch k n"]
    ) -> tuple[Float64[np.ndarray, "batch k"], Float64[np.ndarray, "batch k"]]:
        """The lesser of what each allows."""
        (one, loose), (other, slack) = self.first.greatest(rows), self.second.greatest(rows)
        is_first = one + loose <= other + slack
        return np.where(is_first, one, other), np.where(is_first, loose, slack)


@dataclass(frozen=True, slots=True)
class Exactly:
    """The input is this vector, another one for every batch row."""

    value: Float64[np.ndarray, "batch n"]

    def greatest(
        self, rows: Float64[np.ndarray, "batch k n"]
    ) -> tuple[Float64[np.ndarray, "batch k"], Float64[np.ndarray, "batch k"]]:
        """The rows times the vector."""
        column = self.value[:, :, None]
        mass = (np.abs(rows) @ np.abs(column))[..., 0]
        return (rows @ column)[..., 0], gamma(rows.shape[-1] + 2) * mass + rows.shape[-1] * LEAST


#: What is known of the graph's input. `greatest` gives (value, error): no row times an input
#: exceeds their sum.
Start: TypeAlias = Around | Within | Exactly


@dataclass(slots=True)
class _Partial:
    """A row's bound on its way: coefficients of signals, a constant, and its error."""

    coefficients: dict[str, Float64[np.ndarray, "batch k n"]]
    constant: Float64[np.ndarray, "batch k"]
    mass: Float64[np.ndarray, "batch k"]  #: sum of |.| of all that was added to the constant
    error: Float64[np.ndarray, "batch k"]
    additions: int = 1

    def add(self, value: Float64[np.ndarray, "batch k"]) -> None:
        """Add to the constant."""
        self.constant = self.constant + value
        self.mass = self.mass + np.abs(value)
        self.additions += 1

    def bothways(self) -> _Partial:
        """The rows and, below them, their negatives."""
        return _Partial(
            {name: np.concatenate([a, -a], axis=1) for name, a in self.coefficients.items()},
            np.concatenate([self.constant, -self.constant], axis=1),
            np.concatenate([self.mass, self.mass], axis=1),
            np.concatenate([self.error, self.error], axis=1),
            self.additions,
        )


@dataclass(slots=True, kw_only=True)
class Substitution:
    """One graph, what is known of its signals, and the lines of its gates so far."""

    nodes: Sequence[Affine | Gate]
    sizes: Mapping[str, int]
    start: Start
    second: tuple[str, Around | Within] | None = None  #: another input, by name
    signals: dict[str, Interval]
    lines: dict[str, Lines] = field(default_factory=dict[str, Lines])
    _formed: dict[tuple[str, int], Float64[np.ndarray, "n m"]] = field(
        default_factory=dict[tuple[str, int], "Float64[np.ndarray, 'n m']"]
    )
    _costs: dict[str, tuple[np.ndarray, np.ndarray]] = field(
        default_factory=dict[str, tuple[np.ndarray, np.ndarray]]
    )

    def bounds(self, signal: str, entries: Sequence[int] | None = None) -> Interval:
        """Lower and upper ends of some entries of a signal, by (1)."""
        size = self.sizes[signal]
        if LONGEST_SUM < self._widest(signal):
            raise NotProved(f"a signal before {signal!r} is too long for its errors to be summed")
        chosen = np.arange(size) if entries is None else np.asarray(entries)
        batch = self.signals[signal].lower.shape[0]
        chunk = max(1, WORKING_ENTRIES // (2 * batch * self._widest(signal)))
        lower, upper = np.empty((2, batch, len(chosen)))
        for begin in range(0, len(chosen), chunk):
            part = chosen[begin : begin + chunk]
            rows = np.zeros((1, len(part), size))
            rows[0, np.arange(len(part)), part] = 1.0
            # One batch row until the first gate, whose lines may differ from row to row.
            ends = self._greatest({signal: rows}, bothways=True)
            upper[:, begin : begin + chunk] = ends[:, : len(part)]
            lower[:, begin : begin + chunk] = -ends[:, len(part) :]
        return Interval(lower, upper)

    def greatest(
        self, signal: str, rows: Float64[np.ndarray, "batch k n"]
    ) -> Float64[np.ndarray, "batch k"]:
        """Numbers that rows times the signal do not exceed."""
        return self._greatest({signal: rows}, bothways=False)

    def greatest_sum(
        self, rows: Mapping[str, Float64[np.ndarray, "batch k n"]]
    ) -> Float64[np.ndarray, "batch k"]:
        """Numbers that the sum over signals, of rows times each, does not exceed.

        Raises:
            NotProved: a signal of the graph is too long.
        """
        if LONGEST_SUM < max(self.sizes.values()):
            raise NotProved("a signal is too long for its errors to be summed")
        return self._greatest(rows, bothways=False)

    def _greatest(
        self, rows: Mapping[str, Float64[np.ndarray, "batch k n"]], *, bothways: bool
    ) -> Float64[np.ndarray, "batch k"]:
        zero = np.zeros(next(iter(rows.values())).shape[:2])
        partial = _Partial(dict(rows), zero, zero, zero)
        for node in reversed(self.nodes):
            coefficients = partial.coefficients.pop(node.name, None)
            if coefficients is None:
                continue
            if isinstance(node, Affine):
                self._through_affine(partial, node, coefficients)
            else:
                if bothways:
                    partial.coefficients[node.name] = coefficients
                    partial, bothways = partial.bothways(), False
                    coefficients = partial.coefficients.pop(node.name)
                self._through_gate(partial, node, coefficients)
        if bothways:
            partial = partial.bothways()
        return self._concretised(partial)

    def _concretised(self, partial: _Partial) -> Float64[np.ndarray, "batch k"]:
        inputs: dict[str, Start] = {"": self.start}
        if self.second is not None:
            inputs |= dict([self.second])
        for name, start in inputs.items():
            if name in partial.coefficients:
                value, error = start.greatest(partial.coefficients[name])
                partial.add(value)
                partial.error = partial.error + error
        error = (partial.error + (partial.additions + 4) * UNIT * partial.mass) * ERROR_GROWTH
        bound = partial.constant + error
        return above(bound + 4 * UNIT * (np.abs(bound) + error))

    def _through_affine(
        self, partial: _Partial, node: Affine, rows: Float64[np.ndarray, "batch k n"]
    ) -> None:
        if np.any(node.bias):
            partial.add(rows @ node.bias)
        cost, lost = self._cost(node)
        partial.error = partial.error + _times(np.abs(rows), cost) + lost
        for place, term in enumerate(node.terms):
            moved = self._backward(node, place, rows)
            self._gather(partial, term.source, moved)

    def _through_gate(
        self, partial: _Partial, gate: Gate, rows: Float64[np.ndarray, "batch k n"]
    ) -> None:
        lines = self.lines[gate.name]
        moved = rows * lines.above[:, None, :]
        magnitude = self.signals[gate.source].magnitude()
        # Where a gate is a line through 0, as stable ones are, there is nothing else to do.
        bent = lines.bent
        if len(bent):
            positive, negative = np.maximum(rows[..., bent], 0.0), np.minimum(rows[..., bent], 0.0)
            below, low, high = lines.below[:, bent], lines.low[:, bent], lines.high[:, bent]
            moved[..., bent] = np.where(
                positive > 0, moved[..., bent], negative * below[:, None, :]
            )
            partial.add(_times(positive, high) + _times(negative, low))
            mass = _times(positive, np.abs(high)) - _times(negative, np.abs(low))
            partial.error = partial.error + gamma(gate.size + 4) * mass + LEAST * (gate.size + 2)
        rounded = lines.rounded
        if len(rounded):
            lost = _times(np.abs(moved[..., rounded]), magnitude[:, rounded])
            partial.error = partial.error + (2 * UNIT) * lost + _underflow(magnitude, gate.size)
        self._gather(partial, gate.source, moved)
        if lines.beside is not None:
            self._beside(partial, gate, rows * lines.beside[:, None, :])

    def _beside(
        self, partial: _Partial, gate: Gate, rows: Float64[np.ndarray, "batch k n"]
    ) -> None:
        """What stands in front of the gate's second signal; the product rounds by u |rows|."""
        magnitude = self.signals[gate.second].magnitude()
        lost = _times(np.abs(rows), magnitude)
        partial.error = partial.error + (2 * UNIT) * lost + _underflow(magnitude, gate.size)
        self._gather(partial, gate.second, rows)

    def _gather(
        self, partial: _Partial, source: str, rows: Float64[np.ndarray, "batch k n"]
    ) -> None:
        """Add to a signal's coefficients; the addition rounds by u |sum|."""
        known = partial.coefficients.get(source)
        if known is None:
            partial.coefficients[source] = rows
            return
        whole = known + rows
        partial.coefficients[source] = whole
        magnitude = self.signals[source].magnitude()
        partial.error = partial.error + (2 * UNIT) * _times(np.abs(whole), magnitude)

    def _cost(
        self, node: Affine
    ) -> tuple[Float64[np.ndarray, "batch n"], Float64[np.ndarray, "batch 1"]]:
        """What one unit of |coefficient| adds to the error, and what underflow adds anyway."""
        if node.name not in self._costs:
            cost = gamma(node.size + 4) * np.abs(node.bias) + node.bias_error
            cost, lost = cost[None, :], np.full((1, 1), LEAST * (node.size + 2))
            for term in node.terms:
                size = self.signals[term.source].magnitude()
                if term.map.is_exact:
                    continue
                reach = term.map.magnitudes(size)
                loose = gamma(term.map.adjoint_terms + 2) * reach + term.map.slack(size)
                cost = cost + enlarged(loose, term.map.terms + 4)
                for stage in stages(term.map):
                    # A coefficient behind a stage may have lost eta: times what enters the stage.
                    lost = lost + _underflow(size, term.map.adjoint_terms)
                    size = enlarged(stage.magnitudes(size) + stage.slack(size), stage.terms + 4)
            self._costs[node.name] = cost, lost
        return self._costs[node.name]

    def _backward(
        self, node: Affine, place: int, rows: Float64[np.ndarray, "batch k n"]
    ) -> Float64[np.ndarray, "batch k m"]:
        """Rows times one of the node's maps.

        Many rows meet a small convolution as a matrix: what its zeros add rounds nothing, so that
        the count of terms is that of the convolution.
        """
        linear = node.terms[place].map
        batch, count, size = rows.shape
        flat = rows.reshape(batch * count, size)
        stored = linear.of if isinstance(linear, Adjoint) else linear
        small = linear.in_size * linear.out_size <= FORMED_ENTRIES
        if isinstance(stored, Convolution) and small and FORMED_ROWS <= len(flat):
            key = (node.name, place)
            if key not in self._formed:
                self._formed[key] = linear.backward(np.eye(linear.out_size))
            return (flat @ self._formed[key]).reshape(batch, count, linear.in_size)
        return linear.backward(flat).reshape(batch, count, linear.in_size)

    def _widest(self, signal: str) -> int:
        """The greatest size of a signal that the rows may meet."""
        widest = self.sizes[signal]
        for node in self.nodes:
            widest = max(widest, node.size)
            if node.name == signal:
                break
        return max(widest, self.sizes[""])


def _times(
    rows: Float64[np.ndarray, "batch k n"], column: Float64[np.ndarray, "some n"]
) -> Float64[np.ndarray, "batch k"]:
    """Rows times one vector for each batch row, or one for all."""
    if column.shape[0] == 1:
        return rows @ column[0]
    if rows.shape[0] == 1:
        return column @ rows[0].T
    return (rows @ column[:, :, None])[..., 0]


def _underflow(magnitude: Float64[np.ndarray, "batch n"], count: int) -> Float64[np.ndarray, "b 1"]:
    """What products that underflow can add: eta each, times the magnitude of what they multiply."""
    return (LEAST * (count + 2)) * (magnitude.sum(axis=1, keepdims=True) + magnitude.shape[1])
