"""Block recursion: LipSDP's bound for networks too large for one dense inequality.

The increments' covariance is carried from node to node, with one positive scale D for each gate;
any scales that pass are a bound, and the best ones give LipSDP's (`frontier`). Memory grows with
the square of what is alive at once, and time with its cube, once for each layer.

One file, one idea: `plan` is the order of the nodes and what stays alive, `gates` what a nonlinear
node is, `frontier` the recursion and its derivatives, `closed` scales in closed form, `objective`
what is made small, `descent` and `barrier` how (with `curvature`), `candidate` when.

Source: Fazlyab et al. 2019 (arXiv 1906.04893) for the inequality; the recursion is its block
elimination.
"""

from verifier.methods.recursion.candidate import MEMORY_BYTES, candidates
from verifier.methods.recursion.plan import memory_of, work_of

__all__ = ["MEMORY_BYTES", "candidates", "memory_of", "work_of"]
