"""How large a network's problems are: what an estimate of memory and time needs to know of it."""

from __future__ import annotations

from verifier.errors import CapabilityBlocked
from verifier.methods import lipsdp, recursion, torus
from verifier.network.everywhere import everywhere
from verifier.network.graph import Network


def sizes_of(network: Network) -> dict[str, object]:
    """The members of a summary's `sizes`; None: the network has no such problem.

    signals, widest                entries of all signals together, and of the largest
    inequality_rows                of the dense matrix inequality over all inputs, without these
    recursion_entries, _products   that the recursion over blocks holds, and multiplies in a pass
    convolutions                   whether frequencies can be taken one by one
    """
    sizes = network.sizes.values()
    try:
        bounded = everywhere(network)
        lowered = bounded.lowered("keep")
        rows = lipsdp.columns_of(lowered, 0, lipsdp.global_slopes(lowered))
        held, products = recursion.memory_of(bounded), recursion.work_of(bounded)
    except CapabilityBlocked:
        rows = held = products = None
    return {
        "signals": sum(sizes),
        "widest": max(sizes),
        "inequality_rows": rows,
        "recursion_entries": held,
        "recursion_products": None if products is None else round(products),
        "convolutions": torus.applies(network),
    }
