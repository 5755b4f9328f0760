"""Branch and bound for local constants: trees of cells whose bounds converge to the constant.

A region is divided along the kinks of gates. In a cell gates on known sides are linear, and the
matrix inequality of LipSDP bounds the increments over what is left (`multipliers`); its multipliers
hold in every part of the cell. Where all gates that matter are known, the Jacobian is one matrix
(`cells`). Linear programs find the sides of kinks that a cell does not have (`feasible`), and
points, whose slopes are lower ends of the constant (`points`). `search` is the order in which it
all happens, `tree` and `proof` what is left for the checker, `checkpoint` what a later search goes
on from.

Applies to linf inputs with linf outputs, or one output; and to l2 inputs with linf or l2 outputs.
Gates with one kink are cut; others keep the slopes that the region leaves them.
"""

from verifier.methods.branch.candidate import candidate_of, candidates, grown

__all__ = ["candidate_of", "candidates", "grown"]
