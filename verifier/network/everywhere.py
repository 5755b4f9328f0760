"""Which node, if any, leaves a network without a global constant that is known.

A product has slopes as large as its factors, which nothing bounds over all inputs; exp, log and
powers have slopes of every size themselves. Over a region all of them are bounded.
"""

from __future__ import annotations

from verifier.errors import NotLipschitzGlobally
from verifier.network.graph import Network, Node
from verifier.network.nodes import Elementwise, Product


def unbounded_node(network: Network) -> Node | None:
    """The first node whose slopes have no bound over all inputs."""
    return next((node for node in network.nodes if _is_unbounded(node)), None)


def require_bounded_everywhere(network: Network) -> None:
    """Refuses a network for what holds everywhere.

    Raises:
        NotLipschitzGlobally: a node's slopes have no bound over all inputs.
    """
    node = unbounded_node(network)
    if node is not None:
        raise NotLipschitzGlobally(why_unbounded(node), fix=REMEDY, node=node.name)


REMEDY = 'ask for a local bound: give a `region`, a box or a ball, with scope "local"'


def why_unbounded(node: Node) -> str:
    """What is said of such a node."""
    if isinstance(node, Elementwise):
        return f"node {node.name!r}: the slopes of {type(node.function).__name__} are unbounded"
    return (
        f"node {node.name!r} multiplies two signals that both depend on the input: its slopes grow "
        "with them, and no global constant is known"
    )


def _is_unbounded(node: Node) -> bool:
    if isinstance(node, Elementwise):
        lower, upper = node.function.slope_range()
        return not bool((lower.isfinite() & upper.isfinite()).all())
    return isinstance(node, Product)
