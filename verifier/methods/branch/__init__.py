"""Branch and bound for local constants: trees of cells whose bounds converge to the constant.

A region is divided along the kinks of gates. In a cell gates on known sides are linear, and the
matrix inequality of LipSDP bounds the increments over what is left (`multipliers`); its multipliers
hold in every part of the cell. Where all gates that matter are known, the Jacobian is one matrix
(`cells`). Linear programs find the sides of kinks that a cell does not have (`feasible`), and
points, whose slopes are lower ends of the constant (`points`). `search` is the order in which it
all happens, `tree` and `proof` what is left for the checker, `checkpoint` what a later search goes
on from.

That applies to linf inputs with linf outputs, or one output; and to l2 inputs with linf or l2
outputs. Where gates bend, or have several kinks, or the norms are others, and inputs are few, the
region is divided into boxes of inputs instead, and at kinks (`boxes`, `box_search`): there bounds
of values (`box_values`) and of the Jacobian (`box_jacobian`, `box_bounds`) are found anew; the
same for properties about entries of the Jacobian (`entry_search`).
"""

from verifier.methods.branch.candidate import candidate_of, candidates, grown
from verifier.methods.branch.entry_search import EntrySearch

__all__ = ["EntrySearch", "candidate_of", "candidates", "grown"]
