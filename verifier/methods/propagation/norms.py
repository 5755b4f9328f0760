"""Operator norms of all matrices whose entries are at most those of M in magnitude.

M >= 0 itself has the greatest norm of them, in every pair of the table: |J x| <= M |x|.

    input l1:    the greatest output norm of a column
    input l2:    l2 -> linf the greatest row norm; l2 -> l1 the norm of the column sums, since
                 sum_i |J_i x| <= (1'M) |x|; l2 -> l2 the spectral norm of M
    input linf:  the output norm of the row sums; joint bounds of them may replace those of M
"""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.methods.duality import ORDERS
from verifier.norms import Norm, NormPair


def norm_bound(
    norm: NormPair,
    magnitudes: Float64[Tensor, "rows inputs"],
    row_sums: Float64[Tensor, " rows"],
) -> Float64[Tensor, ""]:
    """The norm of the matrices within `magnitudes`, whose rows' sums are within `row_sums`."""
    match norm.input, norm.output:
        case Norm.L1, output:
            return torch.linalg.vector_norm(magnitudes, ORDERS[output], dim=0).amax()
        case Norm.L2, Norm.L1:
            return torch.linalg.vector_norm(magnitudes.sum(dim=0))
        case Norm.L2, Norm.L2:
            return torch.linalg.matrix_norm(magnitudes, 2)
        case Norm.L2, Norm.LINF:
            return torch.linalg.vector_norm(magnitudes, dim=1).amax()
        case Norm.LINF, output:
            return torch.linalg.vector_norm(row_sums, ORDERS[output])
