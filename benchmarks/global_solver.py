"""The interior-point method beside its peers: `benchmarks.global_solver [SECONDS [THREADS]]`.

Chains of dense layers, ReLU and MaxMin, with Gaussian weights of a fixed seed, each layer scaled to
spectral norm 1; global, l2 to l2. The same inequality is solved by the interior-point method, by
SCS and by Clarabel through cvxpy; every answer is repaired, and the time is that from the network
to the repaired multipliers. Each run is a process of its own, with a limit of memory and of
SECONDS: what exceeds one says so, and the rest goes on.

Wanted: the peers' optimum to 1e-6, at 5 x 40 at least 500 times faster than Clarabel and 100 times
faster than SCS; the larger chains within the seconds that are named; at 1000 gates at least 30 % of
the rate of a matrix product of that size; at 1200 gates at most 1 GB.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.chains import Chain, deep
from benchmarks.table import Table
from benchmarks.yardsticks import ratio, seconds_from_arguments
from verifier.methods.clock import Clock
from verifier.methods.lipsdp import Options, candidate
from verifier.methods.lipsdp.options import Solver
from verifier.methods.progress import Aim, Step
from verifier.property import Property

PEERS: tuple[Solver, ...] = ("scs", "clarabel")


SIDE_BY_SIDE = [
    Chain(name=f"{name} {kind}", widths=widths, kind=kind)
    for name, widths in {
        "32-32": (32, 32, 32, 10),
        "64-64": (64, 64, 64, 10),
        "5 x 40": deep(5, 40),
        "10 x 20": deep(10, 20),
    }.items()
    for kind in ("relu", "maxmin")
]
LARGER = [
    Chain(name="20 x 80", widths=deep(20, 80), gap=1e-4, wanted_s=20),
    Chain(name="64-100x4-10 maxmin", widths=(64, *(100,) * 4, 10), kind="maxmin", wanted_s=5),
    Chain(name="784-400-400-10", widths=(784, 400, 400, 10), wanted_s=5),
    Chain(name="784-256x3-10", widths=(784, *(256,) * 3, 10), wanted_s=6),
    Chain(name="500-500-500-10", widths=(500, 500, 500, 10)),
    Chain(name="600-600-600-10", widths=(600, 600, 600, 10)),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a process measured."""

    bound: float
    seconds: float
    iterations: int
    gigaflops: float  #: a second, matrix products and factorisations of the iterations
    product_gigaflops: float  #: a second, of a matrix product of the inequality's order
    peak_bytes: int


def main() -> None:
    """Prints the peers side by side, then the larger chains by ourselves."""
    seconds = seconds_from_arguments(300.0)
    threads = int(sys.argv[2]) if 2 < len(sys.argv) else 1
    table = Table(chain=16, solver=16, bound=14, difference=12, seconds=10, times_ours=12)
    for chain in SIDE_BY_SIDE:
        own = measured(chain, "interior_point", seconds, threads)
        _print_peer(table, chain, "interior_point", own, own)
        for peer in PEERS:
            _print_peer(table, chain, peer, measured(chain, peer, seconds, threads), own)
    table = Table(
        chain=20, bound=14, steps=6, seconds=9, wanted_s=9, gflops=9, of_a_product=13, peak_GB=8
    )
    for chain in LARGER:
        own = measured(chain, "interior_point", seconds, threads)
        if isinstance(own, str):
            table.row([chain.name, own, *[None] * 6])
            continue
        share = own.gigaflops / own.product_gigaflops
        numbers = [own.bound, own.iterations, own.seconds, chain.wanted_s, own.gigaflops, share]
        table.row([chain.name, *numbers, own.peak_bytes / 1e9])


def _print_peer(
    table: Table, chain: Chain, solver: Solver, found: Run | str, own: Run | str
) -> None:
    if isinstance(found, str):
        table.row([chain.name, solver, found, None, None, None])
    elif isinstance(own, str):
        table.row([chain.name, solver, found.bound, None, found.seconds, None])
    else:
        difference = found.bound / own.bound - 1
        times = ratio(found.seconds, own.seconds)
        table.row([chain.name, solver, found.bound, difference, found.seconds, times])


def measured(chain: Chain, solver: Solver, seconds: float, threads: int) -> Run | str:
    """One run in a process of its own; or why it has no answer."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_in_child, args=(theirs, chain, solver, seconds, threads))
    process.start()
    theirs.close()
    try:
        if not ours.poll(seconds + 60):
            return "time"
        return ours.recv()
    except EOFError:
        return "memory"  # killed, or out of what it may take
    finally:
        process.kill()
        process.join()


def _in_child(pipe: Connection, chain: Chain, solver: Solver, seconds: float, threads: int) -> None:
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    torch.set_num_threads(threads)
    try:
        pipe.send(_run(chain, solver, seconds))
    except (MemoryError, RuntimeError) as error:
        pipe.send("memory" if "alloc" in str(error) or isinstance(error, MemoryError) else "failed")


def _run(chain: Chain, solver: Solver, seconds: float) -> Run:
    network, steps = chain.network(), list[Step]()
    options = Options(solver=solver, gap=chain.gap)
    gates = sum(chain.widths[1:-1]) // (2 if chain.kind == "maxmin" else 1)
    order = chain.widths[-1] + gates
    # What is loaded at its first use is loaded now.
    candidate(
        Chain(name="warm", widths=(2, 2, 1)).network(), Property(), options, Clock.start(60.0)
    )
    started = time.perf_counter()
    found = candidate(network, Property(), options, Clock.start(seconds), Aim(report=steps.append))
    spent = time.perf_counter() - started
    flops = 0.0
    if 300 < order and solver == "interior_point":
        with FlopCounterMode(display=False) as counter:
            candidate(
                network,
                Property(),
                Options(gap=chain.gap, iterations=1),
                Clock.start(seconds),
            )
        # Three factorisations and an inverse are no matrix products.
        flops = (counter.get_total_flops() + 5 / 3 * order**3) * len(steps)
    return Run(
        bound=found.estimates[0],
        seconds=spent,
        iterations=len(steps),
        gigaflops=flops / spent / 1e9,
        product_gigaflops=_product_rate(order),
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def _product_rate(order: int) -> float:
    """Gigaflops a second of a matrix product, the best of three."""
    matrix = torch.randn(order, order, dtype=torch.float64)
    spent: list[float] = []
    for _ in range(3):
        started = time.perf_counter()
        torch.mm(matrix, matrix)
        spent.append(time.perf_counter() - started)
    return 2 * order**3 / min(spent) / 1e9


if __name__ == "__main__":
    main()
