"""LipSDP: the least bound that the activations' quadratic constraints prove.

    minimise rho  subject to  0 <= lam  and
    0 <= blkdiag(rho I, lam_1 I, ..., lam_G I) - Y^T Y
         - sum_g lam_g (C_g V_g)^T (C_g V_g)                                               (1)

xi = (dx, psi_1, ..., psi_G) stacks the input's increment and one free vector for each group.
V_g xi enters group g, A_g V_g xi + Q_g psi_g leaves it, Y xi is the output's increment, and

    |psi_g| <= |C_g V_g xi|.                                                               (2)

Why: xi^T (1) xi and (2) give |Y xi|^2 <= rho |dx|^2, so sqrt(rho) is a bound of l2 per l2. For
inputs in linf and one output c'y: minimise (s + sum_k tau_k)/2 subject to

    0 <= [[s, -c'Y], [-Y'c, blkdiag(diag tau, Lambda) - sum_g lam_g (C_g V_g)^T (C_g V_g)]].   (3)

The region enters through the slopes alone: everywhere, those of the activations; on a box or a
ball, those that bounds of the pre-activations leave.

One file, one idea: `form` is the walk to V_g and Y, `inequality` what is solved, `start`,
`interior_point` and `step_length` how, `reference` the same by general solvers, `repair` what
makes any answer strictly feasible, `rounding` whether a checker can be shown that it is, `rows`
which inequalities bound an item.

Not here: multipliers that couple neurons are false (test_coupled_multipliers_are_false).
Source: Fazlyab et al. 2019 (arXiv 1906.04893), diagonal multipliers; Pauli et al. 2024
(arXiv 2401.14033) for groups, whose preserved subspace is eliminated here.
"""

from verifier.methods.lipsdp.candidate import candidate
from verifier.methods.lipsdp.form import LARGEST_XI, Form, columns_of, form_of, helmert
from verifier.methods.lipsdp.options import Options
from verifier.methods.lipsdp.signs import SIGNS, of_signs, with_signs
from verifier.methods.lipsdp.slopes import Slopes, global_slopes, local_slopes
from verifier.methods.lipsdp.start import forward_start

__all__ = [
    "LARGEST_XI",
    "SIGNS",
    "Form",
    "Options",
    "Slopes",
    "candidate",
    "columns_of",
    "form_of",
    "forward_start",
    "global_slopes",
    "helmert",
    "local_slopes",
    "of_signs",
    "with_signs",
]
