"""How large a network's problems are: what an estimate of memory and time needs to know of it."""

from __future__ import annotations

from verifier.errors import CapabilityBlocked
from verifier.methods import lipsdp, recursion, torus
from verifier.network.everywhere import everywhere
from verifier.network.graph import Network

MOST_SIGNALS = 2**20  #: entries of signals beyond which counting takes seconds, and is left out


def sizes_of(network: Network, *, of_inequality: bool = True) -> dict[str, object]:
    """The members of a summary's `sizes`.

    signals, widest                entries of all signals together, and of the largest
    convolutions                   whether frequencies can be taken one by one
    inequality_rows                of the dense matrix inequality, without the inputs
    recursion_entries, _products   that the recursion over blocks holds, and multiplies in a pass

    The last two are null where the network has no such problem, or is too large to count, or
    nobody asks `of_inequality`.
    """
    sizes = network.sizes.values()
    rows, held, products = None, None, None
    if of_inequality and sum(sizes) <= MOST_SIGNALS:
        rows, held, products = _global_problem(network)
    return {
        "signals": sum(sizes),
        "widest": max(sizes),
        "convolutions": torus.applies(network),
        "inequality_rows": rows,
        "recursion_entries": held,
        "recursion_products": products,
    }


def _global_problem(network: Network) -> tuple[int | None, int | None, int | None]:
    """The sizes of the two ways to solve LipSDP over all inputs."""
    try:
        bounded = everywhere(network)
        lowered = bounded.lowered("keep")
    except CapabilityBlocked:
        return None, None, None
    rows = lipsdp.columns_of(lowered, 0, lipsdp.global_slopes(lowered))
    return rows, recursion.memory_of(bounded), round(recursion.work_of(bounded))
