"""What proofs without a region need: slopes of every node that are bounded over all inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.checker.network import Elementwise, Product
from verifier.errors import NotLipschitzGlobally

if TYPE_CHECKING:
    from verifier.checker.network import Network


def require_bounded_everywhere(network: Network) -> None:
    """Refuses a network for proofs of what holds everywhere.

    Raises:
        NotLipschitzGlobally: a node multiplies signals, or has secants of every slope.
    """
    for node in network.nodes:
        if isinstance(node, Product):
            raise NotLipschitzGlobally(
                f"node {node.name!r} multiplies two signals: its slopes grow with them",
                fix="ask for a bound on a region",
                node=node.name,
            )
        if isinstance(node, Elementwise):
            try:
                node.function.slope_range(node.size)
            except NotLipschitzGlobally as error:
                raise NotLipschitzGlobally(error.detail, fix=error.fix, node=node.name) from error
