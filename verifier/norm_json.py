"""The norms of a request from their JSON: plain names, and weighted norms of inputs."""

import math
from collections.abc import Mapping
from typing import cast

import numpy as np

from verifier.json_shapes import invalid, read_list, read_number, read_object, read_vector
from verifier.norms import Metric, Norm, NormPair, Norms, WeightedPair, Weighting, Weights

NORMS = ", ".join(norm.value for norm in Norm)
GREATEST_WEIGHT = 1e100  #: of a weight, and of its inverse; 1 over one has to stay a normal number
GREATEST_SIDE = 2048  #: of a matrix; it is part of the claim, and factored for every proof
WEIGHTED = (
    'a weighted norm is {"type": "l2", "weights": [..]}, one number for each input, or '
    '{"type": "l2", "matrix": [[..], ..]}'
)


def read_norms(value: object, at: str) -> Norms:
    """The pair of norms; one name stands for both.

    Raises:
        InvalidRequest: a norm is unknown, a weight is not positive, or a matrix is not symmetric
            and positive definite.
    """
    if isinstance(value, str):
        return NormPair(read_norm(value, at), read_norm(value, at))
    members = read_object(value, at, {"input", "output"})
    given, output = members.get("input"), members.get("output")
    if isinstance(given, Mapping):
        plain, weighting = _weighted(cast("object", given), f"{at}/input")
        return WeightedPair(NormPair(plain, read_norm(output, f"{at}/output")), weighting)
    return NormPair(read_norm(given, f"{at}/input"), read_norm(output, f"{at}/output"))


def read_norm(value: object, at: str) -> Norm:
    """One plain norm. Raises as `read_norms` does."""
    if not isinstance(value, str) or value not in set(Norm):
        raise invalid(at, f"norm {value!r} is not supported", f"use one of {NORMS}")
    return Norm(value)


def _weighted(value: object, at: str) -> tuple[Norm, Weighting]:
    members = read_object(value, at, {"type", "weights", "matrix"})
    norm = read_norm(members.get("type"), f"{at}/type")
    if ("weights" in members) == ("matrix" in members):
        raise invalid(at, "expected `weights` or `matrix`, and not both", WEIGHTED)
    if "weights" in members:
        return norm, Weights(read_list(members["weights"], f"{at}/weights", _weight))
    if norm is not Norm.L2:
        raise invalid(f"{at}/type", f"a matrix with norm {norm}", 'use "type": "l2"')
    return norm, _metric(members["matrix"], f"{at}/matrix")


def _weight(value: object, at: str) -> float:
    weight = read_number(value, at)
    if not 1 / GREATEST_WEIGHT <= weight <= GREATEST_WEIGHT:
        raise invalid(
            at, f"weight {weight}", f"give a number above 0, of at most {GREATEST_WEIGHT:.0e}"
        )
    return weight


def _metric(value: object, at: str) -> Metric:
    rows = read_list(value, at, read_vector)
    side = len(rows)
    for index, row in enumerate(rows):
        if len(row) != side:
            raise invalid(
                f"{at}/{index}",
                f"a row of {len(row)} numbers in a matrix of {side} rows",
                "give a square matrix, as a list of rows",
            )
    if GREATEST_SIDE < side:
        raise invalid(
            at, f"a matrix of {side} rows", f"give at most {GREATEST_SIDE}, or diagonal `weights`"
        )
    matrix = np.array(rows)
    if not np.array_equal(matrix, matrix.T):
        i, j = (int(k) for k in np.argwhere(matrix != matrix.T)[0])
        raise invalid(
            f"{at}/{i}/{j}",
            f"the matrix is not symmetric: {matrix[i, j]} here, {matrix[j, i]} at [{j}][{i}]",
            "give (P + P')/2 in the place of P",
        )
    if not _is_definite(matrix):
        raise invalid(
            at,
            "the matrix is not positive definite",
            "give a matrix whose least eigenvalue is well above 0; add a multiple of the identity",
        )
    return Metric(rows)


def _is_definite(matrix: np.ndarray) -> bool:
    """Whether P, scaled to a diagonal near 1, is positive definite by more than rounding."""
    diagonal = np.diag(matrix)
    inside = (GREATEST_WEIGHT**-2 <= diagonal) & (diagonal <= GREATEST_WEIGHT**2)
    if not np.all(inside):
        return False
    scale = np.ldexp(1.0, -np.rint(np.log2(diagonal) / 2).astype(np.int64))
    scaled = matrix * scale * scale[:, None]
    margin = 16 * len(matrix) ** 2 * math.ulp(1.0)
    try:
        np.linalg.cholesky(scaled - margin * np.eye(len(matrix)))
    except np.linalg.LinAlgError:
        return False
    return True
