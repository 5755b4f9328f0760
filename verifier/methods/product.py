"""The product of layer norms, over a graph: sums where paths meet.

    K_"" = 1,   K_t = |f_t| sum_s |M_ts| K_s,   |f(x) - f(y)| <= K_out |x - y|             (1)

M_ts is the linear map from nonlinear node s to nonlinear node t with everything affine between
them fused, |f_t| the norm that the node's increments keep. Increments are measured in the input
norm at the input, in the output norm at the output, and in one `internal` norm between; each of
the three is tried, since each gives a bound. Logarithms are carried, so that depth cannot overflow.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.certificate import (
    BlockNorm,
    Candidate,
    ProductItem,
    ProductProof,
    ProductTechnique,
)
from verifier.errors import NotLipschitzGlobally
from verifier.methods.absolute import jacobian_magnitudes
from verifier.methods.fused import Target, can_fuse, fused, fused_within, sources_of
from verifier.methods.items import Item, items_of, varying_inputs
from verifier.methods.weights import fronted, plain_norms
from verifier.network.everywhere import require_bounded_everywhere
from verifier.network.graph import Grouped, Network
from verifier.network.linear_map import Diagonal
from verifier.network.nodes import Affine, Elementwise
from verifier.norms import Norm, NormPair
from verifier.property import Property

JOINT: tuple[ProductTechnique, ...] = ("joint", "balanced")  #: for graphs that are no chain
FORMED_WORK = 2e10  #: multiplications for blocks that are formed where others are too large
SLACK = 1e-11  #: relative: what a verified test of a norm needs above the norm itself


def candidate(network: Network, asked: Property) -> Candidate:
    """The least of the products over the internal norms, item by item.

    Where a block is too large to form, the checker bounds runs of operators one by one.

    Raises:
        NotLipschitzGlobally: an activation's slopes are unbounded, or signals are multiplied.
    """
    require_bounded_everywhere(network)
    inputs = varying_inputs(asked, network.input_size)
    pair, network = plain_norms(asked.norm), fronted(network, asked.norm, inputs)
    if not can_fuse(network):
        return _by_operators(network, asked, pair)
    targets = list(fused(network, inputs))
    norms = _BlockNorms()
    techniques = () if is_chain(network) and not _negates(network) else JOINT
    found: list[tuple[float, ProductItem]] = []
    for item in items_of(asked, network.output_size):
        log, proof = min(
            (_product(targets, item, pair, internal, norms) for internal in Norm),
            key=lambda found: found[0],
        )
        magnitudes = jacobian_magnitudes(network, item, inputs)
        absolute = math.inf if magnitudes is None else operator_norm(magnitudes, pair)
        helps = absolute < _exp(log) * (1 - 1e-9)
        chosen: tuple[ProductTechnique, ...] = ("absolute",) if helps else ()
        log = min(log, _log(absolute))
        # What joint norms prove the checker alone knows: a claim of 0 makes it say so.
        estimate = 0.0 if techniques else _exp(log)
        found.append((estimate, replace(proof, techniques=("sums", *techniques, *chosen))))
    return Candidate(
        method="product",
        estimates=tuple(estimate for estimate, _ in found),
        proof=ProductProof(patterns=network.patterns, items=tuple(item for _, item in found)),
    )


def is_chain(network: Network) -> bool:
    """Whether every nonlinear node, and the output, is entered from a source of its own."""
    gates = [node for node in network.nodes if isinstance(node, Elementwise | Grouped)]
    entered = [node.source for node in gates]
    reached = [sources_of(network, signal) for signal in (*entered, network.output)]
    return all(len(sources) == 1 for sources in reached) and len(set().union(*reached)) == len(
        reached
    )


def _negates(network: Network) -> bool:
    """Whether entries are negated by themselves: a function of v and -v is measured jointly."""
    diagonals = (
        term.map
        for node in network.nodes
        if isinstance(node, Affine)
        for term in node.terms
        if isinstance(term.map, Diagonal)
    )
    return any(bool((linear.scale == -1).all()) for linear in diagonals)


def _by_operators(network: Network, asked: Property, pair: NormPair) -> Candidate:
    """A product over runs of single operators, whose norms the checker finds.

    The estimate is left to the checker as well: it is the only one that forms these products.
    """
    for node in network.nodes:
        if isinstance(node, Elementwise | Grouped):
            node_norm(node, Norm.L2)
    internal = pair.input if pair.input is pair.output else Norm.L2
    # One pass of magnitudes is cheap, and never above a product of norms in linf or in l1.
    is_single = pair.input is Norm.LINF or pair.output is Norm.L1
    techniques: tuple[ProductTechnique, ...] = ("sums", "absolute") if is_single else ("sums",)
    items = items_of(asked, network.output_size)
    blocks: tuple[BlockNorm, ...] = ()
    if internal is Norm.L2:
        inputs = varying_inputs(asked, network.input_size)
        blocks = tuple(_named_blocks(fused_within(network, inputs, FORMED_WORK)))
    item = ProductItem(internal=internal, blocks=blocks, techniques=techniques)
    return Candidate(
        method="product",
        estimates=(0.0,) * len(items),
        proof=ProductProof(patterns=network.patterns, items=(item,) * len(items)),
    )


def _named_blocks(targets: Iterable[Target]) -> Iterator[BlockNorm]:
    """l2 norms of the blocks between hidden nodes, which have the checker form these."""
    for target in targets:
        for source, block in target.blocks.items():
            if target.name and source:
                norm = spectral_norm(block) * (1 + SLACK)
                yield BlockNorm(target=target.name, source=source, norm=norm)


def _product(
    targets: Sequence[Target], item: Item, pair: NormPair, internal: Norm, norms: _BlockNorms
) -> tuple[float, ProductItem]:
    """Log of (1), and the norms that prove it."""
    log_constant = {"": 0.0}
    proved: list[BlockNorm] = []
    *hidden, output = targets
    for target in hidden:
        ends = NormPair(pair.input, internal), NormPair(internal, internal)
        entering = _entering(target, target.blocks, ends, None, log_constant, norms, proved)
        log_constant[target.name] = entering + _log(_node_norm(target, internal))
    selected = {source: item.rows @ block for source, block in output.blocks.items()}
    ends = pair, NormPair(internal, pair.output)
    owner = (item.output, item.margin)
    entering = _entering(output, selected, ends, owner, log_constant, norms, proved)
    return entering, ProductItem(internal=internal, blocks=tuple(proved))


def _entering(
    target: Target,
    blocks: Mapping[str, Float64[Tensor, "rows columns"]],
    ends: tuple[NormPair, NormPair],
    owner: Hashable,
    log_constant: Mapping[str, float],
    norms: _BlockNorms,
    proved: list[BlockNorm],
) -> float:
    """Log of sum_s |M_ts| K_s; l2 norms, which need a proof, join `proved`.

    `ends` are the norms of blocks from the input and from hidden nodes; `owner` tells the rows of
    one item from those of another.
    """
    logs: list[float] = []
    for source, block in blocks.items():
        pair = ends[0] if source == "" else ends[1]
        norm = norms.of((target.name, source, pair, owner), pair, block)
        logs.append(_log(norm) + log_constant[source])
        if pair == NormPair(Norm.L2, Norm.L2):
            proved.append(BlockNorm(target=target.name, source=source, norm=norm))
    return _log_sum(logs)


def _node_norm(target: Target, norm: Norm) -> float:
    if target.node is None:
        return 1.0
    return node_norm(target.node, norm)


def node_norm(node: Elementwise | Grouped, norm: Norm) -> float:
    """The least known c with |f(x) - f(y)| <= c |x - y| in one norm, anywhere.

    Raises:
        NotLipschitzGlobally: there is none.
    """
    if isinstance(node, Grouped):
        steepest = node.group.norm_bound(norm)
        if not math.isfinite(steepest):
            raise NotLipschitzGlobally(
                f"node {node.name!r}: a normalisation whose epsilon is 0 has no slope at 0",
                node=node.name,
                fix="ask for a local bound away from 0, or use a positive epsilon",
            )
        return steepest
    lower, upper = node.function.slope_range()
    steepest = float(torch.maximum(lower.abs(), upper.abs()).max())
    if not math.isfinite(steepest):
        raise NotLipschitzGlobally(
            f"node {node.name!r}: the slopes of {type(node.function).__name__} are unbounded",
            node=node.name,
            fix="ask for a local bound, on a box or ball",
        )
    return steepest


class _BlockNorms:
    """Norms of blocks, each computed once for all items."""

    def __init__(self) -> None:
        self._known: dict[Hashable, float] = {}

    def of(self, key: Hashable, ends: NormPair, matrix: Float64[Tensor, "rows columns"]) -> float:
        if key not in self._known:
            self._known[key] = operator_norm(matrix, ends)
        return self._known[key]


def operator_norm(matrix: Float64[Tensor, "rows columns"], pair: NormPair) -> float:
    """A number that the operator norm does not exceed, up to rounding; l2 -> l2 with `SLACK`.

    Exact for l1 and linf where a closed form exists; the other pairs by the best of |.| row sums
    and norm equivalence.
    """
    magnitudes = matrix.abs()
    rows, columns = magnitudes.sum(dim=1), magnitudes.sum(dim=0)
    closed: Mapping[tuple[Norm, Norm], Tensor] = {
        (Norm.LINF, Norm.LINF): rows.max(),
        (Norm.L1, Norm.L1): columns.max(),
        (Norm.L1, Norm.LINF): magnitudes.max(),
        (Norm.L2, Norm.LINF): matrix.norm(dim=1).max(),
        (Norm.L1, Norm.L2): matrix.norm(dim=0).max(),
        (Norm.LINF, Norm.L1): rows.sum(),
    }
    ends = (pair.input, pair.output)
    if ends in closed:
        return float(closed[ends])
    spectral = spectral_norm(matrix) * (1 + SLACK)
    if ends == (Norm.LINF, Norm.L2):
        return min(float(rows.norm()), math.sqrt(matrix.shape[1]) * spectral)
    if ends == (Norm.L2, Norm.L1):
        return min(float(columns.norm()), math.sqrt(matrix.shape[0]) * spectral)
    return spectral


def spectral_norm(matrix: Float64[Tensor, "rows columns"]) -> float:
    """|A|_2 up to rounding: an estimate, from the Gram matrix of the shorter side."""
    short = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    scale = float(short.abs().max())
    if scale == 0:
        return 0.0
    gram = (short / scale) @ (short / scale).T
    return scale * math.sqrt(max(0.0, float(torch.linalg.eigvalsh(gram)[-1])))


def _log_sum(logs: Sequence[float]) -> float:
    finite = [log for log in logs if log != -math.inf]
    if not finite:
        return -math.inf
    greatest = max(finite)
    if greatest == math.inf:
        return math.inf
    return greatest + math.log(math.fsum(math.exp(log - greatest) for log in finite))


def _log(value: float) -> float:
    return math.log(value) if 0 < value else -math.inf


def _exp(log: float) -> float:
    try:
        return math.exp(log)
    except OverflowError:
        return math.inf
