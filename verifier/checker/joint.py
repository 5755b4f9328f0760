"""Products of joint norms: stage by stage, all that is still needed is measured together.

The nonlinear nodes t_1, t_2, .. are passed one by one, in the order of the graph. Before t_k the
signals that can be computed from the input and from t_1 .. t_(k-1), and that t_k or something after
it reads, are kept. With z_k what enters t_k stacked on what is kept beside it,

    z_1 = B_0 dx,   z_(k+1) = B_k (phi_k, kept_k),   dy = B_n (phi_n, kept_n),               (1)

where every B_k is linear and |phi_k| <= c_k |v_k|. With positive weights w for the parts of z, one
number each, and c_k w for phi_k in the place of w for v_k, each nonlinear step has norm 1 in the
weighted norm of the parts, so that

    bound = |W_1^-1 B_0| |W_2^-1 B_1 W_1^+| .. |B_n W_n^+|.                                   (2)

Two cuts of the graph are kept: the signals that are read later themselves ("signals": the trunk of
a residual network), or the input and the nodes' outputs on which later ones depend linearly
("sources"). Any weights prove a bound. `joint` takes 1. `balanced` takes f^(1/2) b^(-1/2) in l2, f
in linf and 1/b in l1, where f' = N f and b = N' b' carry constants forwards and backwards through
the matrices N of the norms of the blocks of B: then each factor of (2) is 1 with N in the place of
B (Perron), and (2) is the sum over all paths; with B itself it is at most that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from verifier.checker.arithmetic import LEAST, ONE, UNIT, Magnitude, enlarged, up
from verifier.checker.carry import Carried, push, summed
from verifier.checker.composites import Composites
from verifier.checker.definite import NotProved, greatest_eigenvalue_estimate
from verifier.checker.lowering import entering, sources
from verifier.checker.maps import Adjoint
from verifier.checker.mirrors import with_shared_gates
from verifier.checker.network import Affine, Network, Node
from verifier.checker.operator_norms import matrix_norm
from verifier.norms import Norm, NormPair

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jaxtyping import Int64

    from verifier.checker.carry import Sparse

Cut: TypeAlias = Literal["signals", "sources"]
CUTS: tuple[Cut, ...] = ("signals", "sources")
_END = "\0end"  #: reads the output; no node has this name

STAGE_ENTRIES = 2**22  #: entries of the greatest B
WORK = 2e10  #: multiplications of the Gram matrices of all B together


@dataclass(frozen=True, slots=True)
class Stage:
    """One B of (1): from the parts of the state before to the parts of the state after."""

    before: tuple[str, ...]  #: the node passed last first, then the signals kept
    after: tuple[str, ...]  #: what enters the next node first, then the signals kept
    node: str  #: the nonlinear node that the first part enters; "" at the output
    blocks: Mapping[tuple[int, int], Carried]  #: (place after, place before); others are 0


class Joint:
    """(1) of one network: found once for all items and norms."""

    def __init__(
        self, network: Network, constant: Callable[[Node, Norm], Magnitude], cut: Cut
    ) -> None:
        network = with_shared_gates(network)
        self._network, self._constant = network, constant
        self._nodes = {node.name: node for node in network.nodes}
        self._stages = _stages(network, cut)
        self._norms: dict[tuple[object, ...], Magnitude] = {}
        self._weights: dict[Norm, list[np.ndarray]] = {}

    def bound(
        self,
        pair: NormPair,
        internal: Norm,
        rows: Sparse,
        inputs: Int64[np.ndarray, " k"],
        balanced: bool,
    ) -> Magnitude:
        """(2) for one item.

        Raises:
            NotProved: a B is too large to be formed, or exceeds float64.
        """
        *inner, last = self._stages
        matrices = [_Blocks(stage, self._network, inputs, None) for stage in self._stages]
        constants = [self._constant(self._nodes[stage.node], internal).upper() for stage in inner]
        weights = [np.ones(len(stage.after)) for stage in inner]
        if balanced and inner:
            # Those of all outputs serve every item: what lies before them is proved once.
            if internal not in self._weights:
                self._weights[internal] = _balanced(matrices, constants, internal)
            weights = self._weights[internal]
        matrices[-1] = _Blocks(last, self._network, inputs, rows)
        whole, left = ONE, np.ones(1)
        for place, blocks in enumerate(matrices):
            is_last = place == len(inner)
            ends = NormPair(
                pair.input if place == 0 else internal, pair.output if is_last else internal
            )
            after = np.ones(1) if is_last else weights[place]
            key = (None if is_last else place, ends, tuple(after.tolist()), tuple(left.tolist()))
            if is_last or key not in self._norms:
                norm = matrix_norm(blocks.scaled(after, left), ends)
                self._norms[key] = Magnitude.of(norm)
            whole = whole * self._norms[key]
            if not is_last:
                left = after.copy()
                left[0] = up(float(after[0]) * constants[place])
        return whole


class _Blocks:
    """A stage's B for one item: columns of the selected inputs, rows of the item."""

    def __init__(
        self,
        stage: Stage,
        network: Network,
        inputs: Int64[np.ndarray, " k"],
        rows: Sparse | None,
    ) -> None:
        self._heights = [network.tensors[name] for name in stage.after]
        self._widths = [network.tensors[name] for name in stage.before]
        self.blocks = dict(stage.blocks)
        if rows is not None:
            self._heights = [rows.out_size]
            self.blocks = {
                place: push(rows, block.transposed()).transposed()
                for place, block in self.blocks.items()
            }
        if stage.before == ("",):
            self._widths = [len(inputs)]
            self.blocks = {place: block.columns(inputs) for place, block in self.blocks.items()}

    def scaled(self, after: np.ndarray, before: np.ndarray) -> Carried:
        """W_after^-1 B W_before, as one matrix."""
        height, width = sum(self._heights), sum(self._widths)
        if height * width > STAGE_ENTRIES:
            raise NotProved(f"a joint map of {height} by {width} is too large to be formed")
        value, error = np.zeros((height, width)), np.zeros((height, width))
        tops, lefts = np.cumsum([0, *self._heights]), np.cumsum([0, *self._widths])
        for (row, column), block in self.blocks.items():
            scale = float(before[column]) / float(after[row])
            at = slice(tops[row], tops[row + 1]), slice(lefts[column], lefts[column + 1])
            value[at] = block.value * scale
            # The quotient and the product round once each.
            error[at] = 4 * UNIT * np.abs(value[at]) + LEAST
            if block.error is not None:
                error[at] = enlarged(error[at] + block.error * scale, 4)
        if not (np.all(np.isfinite(value)) and np.all(np.isfinite(error))):
            raise NotProved("a joint map exceeds float64")
        return Carried(value, error)

    def norms(self, norm: Norm) -> np.ndarray:
        """About the norms of the blocks; no bounds, for they only choose weights."""
        found = np.zeros((len(self._heights), len(self._widths)))
        for place, block in self.blocks.items():
            found[place] = _about(block.value, norm)
        return found


def _about(matrix: np.ndarray, norm: Norm) -> float:
    if matrix.size == 0:
        return 0.0
    match norm:
        case Norm.L1:
            return float(np.abs(matrix).sum(axis=0).max())
        case Norm.LINF:
            return float(np.abs(matrix).sum(axis=1).max())
        case Norm.L2:
            short = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
            return math.sqrt(greatest_eigenvalue_estimate(short @ short.T))


def _balanced(
    matrices: Sequence[_Blocks], constants: Sequence[float], norm: Norm
) -> list[np.ndarray]:
    """The weights of `balanced`, from the norms of blocks."""
    norms = [blocks.norms(norm) for blocks in matrices]
    forward = [norms[0][:, 0]]
    for matrix, constant in zip(norms[1:-1], constants, strict=False):
        forward.append(_unit(matrix @ _passed(forward[-1], constant)))
    backward = [norms[-1][0]]
    for matrix, constant in zip(reversed(norms[1:-1]), reversed(constants[1:]), strict=True):
        backward.append(_unit(_passed(backward[-1], constant) @ matrix))
    backward = [_passed(b, c) for b, c in zip(reversed(backward), constants, strict=True)]
    weights: list[np.ndarray] = []
    for ahead, behind in zip(forward, backward, strict=True):
        match norm:
            case Norm.L1:
                found = 1 / np.maximum(behind, 1e-300)
            case Norm.L2:
                found = np.sqrt(ahead / np.maximum(behind, 1e-300))
            case Norm.LINF:
                found = ahead
        weights.append(np.where(np.isfinite(found) & (found > 0), found, 1.0))
    return weights


def _passed(parts: np.ndarray, constant: float) -> np.ndarray:
    """The first part, multiplied by the constant of the node that it passes."""
    parts = parts.copy()
    parts[0] *= constant
    return parts


def _unit(parts: np.ndarray) -> np.ndarray:
    return parts / max(float(parts.max(initial=0.0)), 1e-300)


# --- The stages ----------------------------------------------------------------------------------


def _stages(network: Network, cut: Cut) -> tuple[Stage, ...]:
    """(1), from the graph alone."""
    needed = _needed(network)
    nodes = [node for node in network.nodes if node.name in needed]
    readers = _readers(network, nodes, cut)
    known, state, plan, spent = (
        {""},
        ("",),
        list[tuple[str, tuple[str, ...], tuple[str, ...]]](),
        0.0,
    )
    for node in [*(node for node in nodes if not isinstance(node, Affine)), None]:
        _compute(nodes, known)
        name, target = ("", network.output) if node is None else (node.name, entering(node))
        kept = tuple(
            signal
            for signal in network.tensors
            if node is not None
            and signal in known
            and any(r not in known and r != name for r in readers.get(signal, ()))
        )
        after = (target, *kept)
        spent += _work(network, state, after)
        if WORK < spent:
            raise NotProved("the joint maps are too large to be formed")
        plan.append((name, state, after))
        known.add(name)
        state = (name, *kept)
    return _without_idle([_formed(network, *entry) for entry in plan])


def _formed(network: Network, node: str, before: tuple[str, ...], after: tuple[str, ...]) -> Stage:
    blocks = {
        (row, column): block
        for row, signal in enumerate(after)
        for column, block in _pulled(network, signal, before).items()
    }
    return Stage(before, after, node, blocks)


def _without_idle(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """The stages without kept parts that no later B reads: their blocks are all zero."""
    kept: tuple[int, ...] | None = None
    found: list[Stage] = []
    for stage in reversed(stages):
        rows = tuple(range(len(stage.after))) if kept is None else kept
        blocks = {
            (rows.index(row), column): block
            for (row, column), block in stage.blocks.items()
            if row in rows and not _is_zero(block)
        }
        # The node itself comes first and stays, whatever reads it.
        kept = (0, *sorted({column for _, column in blocks} - {0}))
        found.append(
            Stage(
                before=tuple(stage.before[column] for column in kept),
                after=tuple(stage.after[row] for row in rows),
                node=stage.node,
                blocks={(row, kept.index(column)): b for (row, column), b in blocks.items()},
            )
        )
    return tuple(reversed(found))


def _is_zero(block: Carried) -> bool:
    return not np.any(block.value) and (block.error is None or not np.any(block.error))


def _readers(network: Network, nodes: Sequence[Node], cut: Cut) -> dict[str, list[str]]:
    """What reads a signal: nodes, or through affine nodes the nonlinear ones and the output."""
    found: dict[str, list[str]] = {}
    if cut == "signals":
        for node in nodes:
            for source in sources(node):
                found.setdefault(source, []).append(node.name)
        found.setdefault(network.output, []).append(_END)
        return found
    composites = Composites(network)
    targets = [(node.name, entering(node)) for node in nodes if not isinstance(node, Affine)]
    for name, signal in (*targets, (_END, network.output)):
        for source in composites.sources(signal):
            found.setdefault(source, []).append(name)
    return found


def _needed(network: Network) -> set[str]:
    """The nodes that the output depends on."""
    needed = {network.output}
    for node in reversed(network.nodes):
        if node.name in needed:
            needed |= set(sources(node))
    return needed


def _compute(nodes: Sequence[Node], known: set[str]) -> None:
    """Add the affine nodes that follow from what is known."""
    for node in nodes:
        if isinstance(node, Affine) and all(term.source in known for term in node.terms):
            known.add(node.name)


def _work(network: Network, before: tuple[str, ...], after: tuple[str, ...]) -> float:
    """Multiplications of the Gram matrix of a joint map."""
    height = sum(network.tensors[name] for name in after)
    width = sum(network.tensors[name] for name in before)
    if height * width > STAGE_ENTRIES:
        raise NotProved(f"a joint map of {height} by {width} is too large to be formed")
    return float(height) * width * min(height, width)


def _pulled(network: Network, name: str, before: tuple[str, ...]) -> dict[int, Carried]:
    """The blocks of one signal: the identity, carried back to the parts of the state."""
    unit = Carried(np.eye(network.tensors[name]))
    if name in before:
        return {before.index(name): unit}
    arrived: dict[str, list[Carried]] = {name: [unit]}
    found: dict[int, Carried] = {}
    for node in (*reversed(network.nodes), None):
        here = "" if node is None else node.name
        if here not in arrived:
            continue
        whole = summed(arrived.pop(here))
        if here in before:
            found[before.index(here)] = whole.required_finite()
        elif isinstance(node, Affine):
            for term in node.terms:
                arrived.setdefault(term.source, []).append(push(Adjoint(term.map), whole))
        else:
            raise NotProved(f"the signal {here!r} is read after it was given up")
    return found
