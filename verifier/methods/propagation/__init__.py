"""Local bounds: propagation of linear bounds through the network and through its Jacobian.

Over the region every pre-activation is bounded (`forward`), hence every gate's Clarke slope;
between those slopes the Jacobian is bounded entry by entry, and row sums at once (`jacobian`);
its norm (`norms`) bounds the constant by the mean value theorem, since the region is convex. The
lines of the forward bounds are tilted towards the least bound (`tighten`). Around many centers
intervals come as one batch (`batch`).
"""

from verifier.methods.propagation.batch import candidates as batched
from verifier.methods.propagation.candidate import Options, candidate
from verifier.methods.propagation.forward import Forward, affordable, forward_bounds, gate_slopes
from verifier.methods.propagation.unsearched import candidates as unsearched
from verifier.methods.propagation.work import jacobian_work, pulled_back

__all__ = [
    "Forward",
    "Options",
    "affordable",
    "batched",
    "candidate",
    "forward_bounds",
    "gate_slopes",
    "jacobian_work",
    "pulled_back",
    "unsearched",
]
