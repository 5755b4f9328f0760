"""The block recursion on deep and wide chains: `python -m benchmarks.recursion [SECONDS]`.

ReLU chains, each layer scaled to spectral norm 1, so that the product of norms is 1; global, l2.
`fast` is the closed form known as ECLipsE-Fast, `layered` ECLipsE, the greedy method that settles
one layer after another (through cvxpy, where it is small enough), `dense` the interior-point
method, `blocks` the recursion with all scales searched together within SECONDS, and `gap` how far,
at most, it is from the best scales, where its search knows.

Wanted: 20 layers at least 2.5 times tighter than the greedy method; 10 layers of 1000 with
random signs within 5 % of what the dense optima of smaller widths extrapolate to, as a linear
function of 1/width, within 10 minutes.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from benchmarks.chains import Chain, deep
from benchmarks.table import Table
from benchmarks.yardsticks import ratio, seconds_from_arguments
from tests.references.published import eclipse, eclipse_fast
from verifier.methods import lipsdp, recursion
from verifier.methods.clock import Clock
from verifier.methods.progress import Aim, Step
from verifier.property import Property

WIDE = 1000
SMALLER = (40, 80, 160)  #: widths of the extrapolation
GREEDY = 40  #: width up to which the greedy method is run: its solver takes minutes beyond
DENSE = 1700  #: gates up to which the dense method is run


def main() -> None:
    """Prints one row for each chain, then the extrapolation."""
    seconds = seconds_from_arguments(600.0)
    table = Table(
        chain=16, fast=12, layered=12, dense=12, dense_s=8, blocks=12, blocks_s=8, gap=10, ratio=8
    )
    for width in (40, 80):
        table_row(table, Chain(name=f"20 x {width}", widths=deep(20, width)), seconds)
    signs = {
        width: Chain(name=f"10 x {width} signs", widths=deep(10, width), entries="signs")
        for width in (*SMALLER, WIDE)
    }
    found = {width: table_row(table, chain, seconds) for width, chain in signs.items()}
    optima = [found[width][0] or np.nan for width in SMALLER]
    slope, limit = np.polyfit([1 / width for width in SMALLER], optima, 1)
    expected = float(limit + slope / WIDE)
    share = found[WIDE][1] / expected
    sys.stdout.write(
        f"10 x {WIDE}: {expected:.6g} by extrapolation; {share:.4f} times that found\n"
    )


def table_row(table: Table, chain: Chain, seconds: float) -> tuple[float | None, float]:
    """Prints a row; the bounds of the dense method and of the recursion."""
    weights = [weight.numpy() for weight in chain.weights]
    gates, width = sum(chain.widths[1:-1]), max(chain.widths)
    layered = eclipse(weights) if width <= GREEDY else None
    dense, dense_s = by_lipsdp(chain, seconds) if gates <= DENSE else (None, None)
    blocks, blocks_s, gap = by_blocks(chain, seconds)
    row = [eclipse_fast(weights), layered, dense, dense_s, blocks, blocks_s, gap]
    table.row([chain.name, *row, ratio(blocks, dense)])
    return dense, blocks


def by_lipsdp(chain: Chain, seconds: float) -> tuple[float, float]:
    """The dense optimum to 1e-4, and its seconds."""
    started = time.perf_counter()
    options = lipsdp.Options(gap=1e-4)
    found = lipsdp.candidate(chain.network(), Property(), options, Clock.start(seconds))
    return found.estimates[0], time.perf_counter() - started


def by_blocks(chain: Chain, seconds: float) -> tuple[float, float, float | None]:
    """The recursion's bound, its seconds, and the gap that the search reported last."""
    steps: list[Step] = []
    started = time.perf_counter()
    search = recursion.candidates(
        chain.network(),
        Property(),
        lipsdp.Options(gap=1e-4),
        Clock.start(seconds),
        Aim(report=steps.append),
    )
    best = min(candidate.estimates[0] for candidate in search)
    gaps = [step.gap for step in steps if step.gap is not None]
    return best, time.perf_counter() - started, gaps[-1] if gaps else None


if __name__ == "__main__":
    main()
