"""What a product pass knows of each layer: its norm, and the constants before and after it.

    prefix_t = sum_s |M_ts| |phi_s| prefix_s      from the network's input to what enters t,
    suffix_t = |phi_t| sum_u |M_ut| suffix_u      from what enters t to the network's output,

with prefix_"" and suffix of the output 1. An error e that is added to what enters t moves the
output by at most suffix_t |e|: what pruning and quantisation have to spend.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from verifier.checker.arithmetic import ONE, Magnitude, greatest, root_of_squares, total
from verifier.norms import Norm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Layer:
    """One target of linear maps: a nonlinear node, or the network's output."""

    node: str  #: "" for the network's output
    size: int  #: of what enters it
    norm: Magnitude  #: of all maps that enter it, jointly
    prefix: Magnitude
    suffix: Magnitude


def layers_of(
    hops: Mapping[tuple[str, str], Magnitude],
    constants: Mapping[str, Magnitude],
    sizes: Mapping[str, int],
    internal: Norm,
) -> tuple[Layer, ...]:
    """The layers of one item.

    Args:
        hops: |M_ts| by (target, source); the network's input and its output are both "".
        constants: |phi_s| by node, in topological order.
        sizes: of what enters each target.
        internal: the norm in which hidden increments are measured.
    """
    targets = [*constants, ""]
    prefix, suffix = dict[str, Magnitude](), {"": ONE}
    into: dict[str, list[tuple[str, Magnitude]]] = {target: [] for target in targets}
    out: dict[str, list[tuple[str, Magnitude]]] = {}
    for (target, source), norm in hops.items():
        into[target].append((source, norm))
        out.setdefault(source, []).append((target, norm))
    for target in targets:
        prefix[target] = total(
            norm if source == "" else norm * constants[source] * prefix[source]
            for source, norm in into[target]
        )
    for target in reversed(targets):
        if target != "":
            ahead = total(norm * suffix[u] for u, norm in out.get(target, ()))
            suffix[target] = constants[target] * ahead
    return tuple(
        Layer(
            node=target,
            size=sizes[target],
            norm=_joint([norm for _, norm in into[target]], internal),
            prefix=prefix[target],
            suffix=suffix[target],
        )
        for target in targets
    )


def _joint(norms: Sequence[Magnitude], internal: Norm) -> Magnitude:
    """|[M_1 M_2 ..]| of maps whose arguments are measured together, in one norm."""
    if len(norms) == 1:
        return norms[0]
    match internal:
        case Norm.L1:
            return greatest(norms)
        case Norm.L2:
            return root_of_squares(norms)
        case Norm.LINF:
            return total(norms)


def greatest_layers(items: Sequence[tuple[Layer, ...]]) -> tuple[Layer, ...]:
    """One list for all items of a claim: the greatest of each number."""
    by_node: dict[str, list[Layer]] = {}
    for layers in items:
        for layer in layers:
            by_node.setdefault(layer.node, []).append(layer)
    whole = [
        Layer(
            node=node,
            size=max(layer.size for layer in same),
            norm=greatest(layer.norm for layer in same),
            prefix=greatest(layer.prefix for layer in same),
            suffix=greatest(layer.suffix for layer in same),
        )
        for node, same in by_node.items()
    ]
    # The output comes last, also where items differ in their graphs.
    return tuple(sorted(whole, key=lambda layer: layer.node == ""))
