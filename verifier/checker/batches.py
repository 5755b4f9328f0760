"""Products of batches of matrices, real or complex, with bounds of their rounding.

One matrix for each of F frequencies. With |.|_F the Frobenius norm and k the inner dimension,

    |fl(X Y) - X Y|_F <= gamma_k |X|_F |Y|_F                 of real matrices,
                         2^(1/2) gamma_2k |X|_F |Y|_F        of complex ones,               (1)

complex products being one real product, [[A, -B], [B, A]] [C; D] for (A + iB)(C + iD): no complex
kernel is trusted. Numbers are near 1, so that underflow costs less than TINY.

Inverses and factors are taken from numpy as guesses, and proved by products: if
|I - X T X*|_2 <= h < 1 for a Hermitian T, then X T X* >= (1 - h) I, hence 0 < T and

    T^-1 <= X* X / (1 - h).                                                                 (2)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from verifier.checker.arithmetic import LEAST, UNIT, gamma
from verifier.checker.definite import NotProved

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64, Shaped

    #: A batch of matrices, real or complex.
    Batch: TypeAlias = Shaped[np.ndarray, "frequencies rows columns"]
    Norms: TypeAlias = Float64[np.ndarray, " frequencies"]

TINY = 2.0**-1000  #: above the norm of all that underflows in one step
FARTHEST = 4000  #: powers of two beyond 2^+-4000 over- or underflow like those


def product(left: Batch, right: Batch) -> tuple[Batch, Norms]:
    """(fl(X Y), a bound of the Frobenius norm of its error) at every frequency, by (1)."""
    inner = left.shape[2]
    mass = norm_up(left) * norm_up(right)
    is_complex = np.iscomplexobj(left) or np.iscomplexobj(right)
    share = 1.5 * gamma(2 * inner + 4) if is_complex else gamma(inner + 4)
    return multiplied(left, right), share * mass + TINY


def multiplied(left: Batch, right: Batch) -> Batch:
    """fl(X Y) by real products."""
    if not (np.iscomplexobj(left) or np.iscomplexobj(right)):
        return left @ right
    rows, columns, inner = left.shape[1], right.shape[2], left.shape[2]
    one, other = real_part(left), imaginary_part(left)
    wide = np.empty((len(left), 2 * rows, 2 * inner))
    wide[:, :rows, :inner] = wide[:, rows:, inner:] = one
    wide[:, rows:, :inner] = other
    np.negative(other, out=wide[:, :rows, inner:])
    both = wide @ np.concatenate([real_part(right), imaginary_part(right)], axis=1)
    value = np.empty((len(both), rows, columns), np.complex128)
    value.real, value.imag = both[:, :rows], both[:, rows:]
    return value


def norm_up(batch: Batch) -> Norms:
    """Numbers that |X(f)|_F does not exceed."""
    flat = np.ascontiguousarray(batch).reshape(len(batch), -1)
    parts = flat.view(np.float64) if np.iscomplexobj(flat) else flat
    count = parts.shape[1]
    squares = np.einsum("fn,fn->f", parts, parts)
    enough = squares * (1 + 2 * gamma(count + 4)) + (count + 4) * LEAST
    return np.sqrt(enough) * (1 + 8 * UNIT)


def inverse_root(matrices: Batch) -> tuple[Batch, Norms]:
    """(X, h) of (2), h < 1/2.

    Raises:
        NotProved: the matrices are not shown to be positive definite.
    """
    if not np.all(np.isfinite(matrices)):
        raise NotProved("a number exceeds float64")
    try:
        root = np.linalg.inv(np.linalg.cholesky(matrices))
    except np.linalg.LinAlgError as error:
        raise NotProved("scales are too small: D - C K C' is not positive definite") from error
    first, lost = product(root, matrices)
    second, last = product(first, adjoint(root))
    own = np.arange(len(matrices[0]))
    second[:, own, own] -= 1.0
    # The difference rounds by u of what is left.
    error = norm_up(second) * (1 + 2 * UNIT) + lost * norm_up(root) + last
    share = error * (1 + 16 * UNIT)
    if not np.all(share < 0.5):
        raise NotProved("scales are too small: D - C K C' is not shown to be positive definite")
    return root, share


def adjoint(batch: Batch) -> Batch:
    """X* at every frequency."""
    return batch.conj().transpose(0, 2, 1)


def real_part(batch: Shaped[np.ndarray, "*any"]) -> Float64[np.ndarray, "*any"]:
    """The real part."""
    return np.asarray(np.real(batch), dtype=np.float64)


def imaginary_part(batch: Shaped[np.ndarray, "*any"]) -> Float64[np.ndarray, "*any"]:
    """The imaginary part."""
    return np.asarray(np.imag(batch), dtype=np.float64)


def moved(
    batch: Shaped[np.ndarray, "*any"], exponent: Int64[np.ndarray, "*other"]
) -> Shaped[np.ndarray, "*all"]:
    """The entries times powers of two: exact, but that each may underflow, by at most eta."""
    shift = np.clip(exponent, -FARTHEST, FARTHEST)
    if np.abs(shift).max(initial=0) < 1000:
        # The power is a float64, and products are faster.
        factor = np.ldexp(1.0, shift)
        if not np.iscomplexobj(batch):
            return batch * factor
        value = np.empty(np.broadcast_shapes(batch.shape, shift.shape), np.complex128)
        np.multiply(real_part(batch), factor, out=value.real)
        np.multiply(imaginary_part(batch), factor, out=value.imag)
        return value
    if not np.iscomplexobj(batch):
        return np.ldexp(batch, shift)
    return np.ldexp(real_part(batch), shift) + 1j * np.ldexp(imaginary_part(batch), shift)
