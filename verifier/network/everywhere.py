"""What holds over all inputs: which factors are bounded, and which node has no global constant.

Values of sigmoids, of tanh and of waves lie within intervals whatever enters, and so do sums and
products of such signals. A product of two bounded factors has slopes that hold everywhere: its
increment is a sum of two gates (`tangent`), and to every method it is the network with these gates
in its place. A factor without bounds leaves none, and exp, log and powers have slopes of every size
themselves. Over a region all of them are bounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from verifier.errors import NotLipschitzGlobally
from verifier.network.blocks import Normalise, Softmax
from verifier.network.graph import Grouped, Network, Node
from verifier.network.nodes import Affine, Elementwise, Product
from verifier.network.tangent import Range, left_gate, right_gate, tangent

_Interval: TypeAlias = tuple[Tensor, Tensor]

_FAR = 1e100  #: in the place of infinity: beyond, functions that are bounded have ended
_ENDLESS = 1e60  #: no bound of a signal is as large
_WIDENED = 1e-12  #: share by which ranges grow, so that they hold the checker's, rounded outward

REMEDY = 'ask for a local bound: give a `region`, a box or a ball, with scope "local"'


def unbounded_node(network: Network) -> Node | None:
    """The first node whose slopes have no bound over all inputs."""
    known = factors_everywhere(network)
    return next((node for node in network.nodes if _is_unbounded(node, known)), None)


def everywhere(network: Network) -> Network:
    """The network with gates in the place of products, whose slopes hold for all inputs.

    Raises:
        NotLipschitzGlobally: a node's slopes have no bound over all inputs.
    """
    require_bounded_everywhere(network)
    return tangent(network, factors_everywhere(network))


def require_bounded_everywhere(network: Network) -> None:
    """Refuses a network for what holds everywhere.

    Raises:
        NotLipschitzGlobally: a node's slopes have no bound over all inputs.
    """
    node = unbounded_node(network)
    if node is not None:
        raise NotLipschitzGlobally(why_unbounded(node), fix=REMEDY, node=node.name)


def why_unbounded(node: Node) -> str:
    """What is said of such a node."""
    if isinstance(node, Elementwise):
        return f"node {node.name!r}: the slopes of {type(node.function).__name__} are unbounded"
    return (
        f"node {node.name!r} multiplies two signals that both depend on the input: its slopes grow "
        "with them, and no global constant is known"
    )


def _is_unbounded(node: Node, known: Mapping[str, _Interval]) -> bool:
    if isinstance(node, Elementwise):
        lower, upper = node.function.slope_range()
        return not bool((lower.isfinite() & upper.isfinite()).all())
    if not isinstance(node, Product):
        return False
    gates = left_gate(node.name), right_gate(node.name)
    return any(float(end.abs().max()) >= _ENDLESS for gate in gates for end in known[gate])


def factors_everywhere(network: Network) -> dict[str, Range]:
    """By gate of the tangent, what it multiplies by; huge where that has no bounds."""
    if not any(isinstance(node, Product) for node in network.nodes):
        return {}
    far = torch.full((network.input_size,), _FAR, dtype=torch.float64)
    intervals: dict[str, _Interval] = {"": (-far, far)}
    known: dict[str, _Interval] = {}
    for node in network.lowered("compare", keeps_blocks=True).nodes:
        match node:
            case Affine():
                intervals[node.name] = _affine(node, intervals)
            case Elementwise():
                intervals[node.name] = _within(node.function.image(*intervals[node.source]))
            case Product():
                left, right = intervals[node.left], intervals[node.right]
                known |= {left_gate(node.name): _wider(right), right_gate(node.name): _wider(left)}
                ends = torch.stack([x * y for x in left for y in right])
                intervals[node.name] = _within((ends.amin(dim=0), ends.amax(dim=0)))
            case Grouped(group=Softmax()):
                zero = torch.zeros(node.size, dtype=torch.float64)
                intervals[node.name] = zero, zero + 1
            case Grouped(group=Normalise() as normal):
                far = torch.full((node.size,), normal.longest, dtype=torch.float64)
                intervals[node.name] = -far, far
            case _:
                far = torch.full((node.size,), _FAR, dtype=torch.float64)
                intervals[node.name] = -far, far
    return known


def _affine(node: Affine, intervals: Mapping[str, _Interval]) -> _Interval:
    """A c + b +- |A| r, without what differences of huge numbers lose of small ones."""
    center, reach = node.bias, torch.zeros_like(node.bias)
    for term in node.terms:
        lower, upper = intervals[term.source]
        middle = torch.where(upper - lower < _ENDLESS, (lower + upper) / 2, 0.0)
        center = center + term.map.apply(middle[None])[0]
        size = torch.maximum(upper - middle, middle - lower)
        reach = reach + term.map.absolute().apply(size[None])[0]
    return _within((center - reach, center + reach))


def _within(ends: _Interval) -> _Interval:
    """Ends that are numbers, none beyond the farthest."""
    lower, upper = (end.nan_to_num(nan=0.0, posinf=_FAR, neginf=-_FAR) for end in ends)
    endless = (upper - lower >= _ENDLESS) | ends[0].isnan() | ends[1].isnan()
    return torch.where(endless, -_FAR, lower), torch.where(endless, _FAR, upper)


def _wider(ends: _Interval) -> _Interval:
    lower, upper = ends
    room = _WIDENED * torch.maximum(lower.abs(), upper.abs())
    return lower - room, upper + room
