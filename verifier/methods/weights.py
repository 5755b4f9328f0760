"""Weighted norms of inputs as plain ones of other coordinates: x = T z with |x| = |z|_p.

    |w o x|_p     T = diag(1/w)
    sqrt(x'Px)    T = R^-1 on the inputs that vary, P = R'R there; elsewhere the identity

|f(x) - f(y)| <= L |x - y| for all x, y that differ in those inputs only says the same as
|f(T z) - f(T z')| <= L |z - z'|_p. So a network behind one more affine node has in the plain norm
the constant that is asked for, and no method needs to know more. A region stays one of x: what it
says of gates is read before the node is put in front.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from verifier.errors import InvalidRequest
from verifier.methods.duality import Attained, attained_norm, dual_vector, norm_of
from verifier.methods.items import varying_inputs
from verifier.network.graph import Grouped, Network, Node
from verifier.network.linear_map import Dense, Diagonal, LinearMap
from verifier.network.nodes import Affine, Elementwise, Product, Term
from verifier.norms import Metric, Norm, NormPair, Norms, Weights
from verifier.property import Property

FRONT = "\0weighted"  #: the affine node in front; no tensor of a file has such a name


def unweighted(network: Network, asked: Property) -> tuple[Network, Property]:
    """A network and a property with a plain norm that have the same constant as those given.

    The region, if there is one, stays that of the network as it was.

    Raises:
        InvalidRequest: the property does not fit the network.
    """
    inputs = varying_inputs(asked, network.input_size)
    plain = plain_norms(asked.norm)
    return fronted(network, asked.norm, inputs), replace(asked, norm=plain)


def plain_norms(norms: Norms) -> NormPair:
    """The pair for the coordinates z."""
    return norms if isinstance(norms, NormPair) else norms.plain


def fronted(network: Network, norms: Norms, inputs: Int64[Tensor, " varying"]) -> Network:
    """Z -> f(T z); the network itself where the norm is plain."""
    change = Change.of(norms, inputs, network.input_size)
    if change is None:
        return network
    zero = torch.zeros(network.input_size, dtype=torch.float64)
    front = Affine(FRONT, (Term("", change.into),), zero)
    nodes = (front, *(_behind(node) for node in network.nodes))
    return replace(network, nodes=nodes, output=network.output or FRONT)


def _behind(node: Node) -> Node:
    match node:
        case Affine():
            terms = (Term(term.source or FRONT, term.map) for term in node.terms)
            return replace(node, terms=tuple(terms))
        case Elementwise() | Grouped():
            return replace(node, source=node.source or FRONT)
        case Product():
            return replace(node, left=node.left or FRONT, right=node.right or FRONT)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Change:
    """T and its inverse."""

    into: LinearMap  #: T
    back: LinearMap

    @staticmethod
    def of(norms: Norms, inputs: Int64[Tensor, " varying"], size: int) -> Change | None:
        """The change of coordinates; None where the norm is plain.

        Raises:
            InvalidRequest: the matrix is not positive definite, to rounding.
        """
        if isinstance(norms, NormPair):
            return None
        match norms.weighting:
            case Weights(values):
                weights = torch.tensor(values, dtype=torch.float64)
                return Change(into=Diagonal(1 / weights), back=Diagonal(weights))
            case Metric(rows):
                matrix = torch.tensor(rows, dtype=torch.float64)[inputs][:, inputs]
                factor, failed = torch.linalg.cholesky_ex(matrix, upper=True)
                if failed:
                    raise InvalidRequest(
                        "the matrix of the input norm is not positive definite",
                        fix="add a multiple of the identity",
                        pointer="/property/norm/input/matrix",
                    )
                unit = torch.eye(len(inputs), dtype=torch.float64)
                inverse = torch.linalg.solve_triangular(factor, unit, upper=True)
                return Change(
                    into=Dense(_embedded(inverse, inputs, size)),
                    back=Dense(_embedded(factor, inputs, size)),
                )


def _embedded(
    block: Float64[Tensor, "varying varying"], inputs: Int64[Tensor, " varying"], size: int
) -> Float64[Tensor, "size size"]:
    whole = torch.eye(size, dtype=torch.float64)
    whole[inputs[:, None], inputs] = block
    return whole


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Measure:
    """A pair of norms as searches use them, the input norm weighted or not."""

    plain: NormPair
    change: Change | None

    @staticmethod
    def of(norms: Norms, inputs: Int64[Tensor, " varying"], size: int) -> Measure:
        """The measure of increments in the inputs that vary."""
        return Measure(plain=plain_norms(norms), change=Change.of(norms, inputs, size))

    @property
    def output(self) -> Norm:
        """The norm of output increments."""
        return self.plain.output

    def length(self, steps: Float64[Tensor, "batch n"]) -> Float64[Tensor, " batch"]:
        """|T^-1 x|_p of every row."""
        inner = steps if self.change is None else self.change.back.apply(steps)
        return norm_of(self.plain.input, inner)

    def steepest(self, g: Float64[Tensor, "batch n"]) -> Float64[Tensor, "batch n"]:
        """The x of norm 1 that maximises g.x, row by row; 0 only where g is 0."""
        if self.change is None:
            return dual_vector(self.plain.input, g)
        inner = dual_vector(self.plain.input, self.change.into.adjoint(g))
        return self.change.into.apply(inner)

    def slope(self, g: Float64[Tensor, "batch n"]) -> Float64[Tensor, " batch"]:
        """The greatest g.x over x of norm 1."""
        inner = g if self.change is None else self.change.into.adjoint(g)
        return norm_of(self.plain.input.dual, inner)

    def attained(self, matrices: Float64[Tensor, "batch m n"]) -> Attained:
        """What directions attain of every matrix; those are directions of z."""
        if self.change is not None:
            rows = self.change.into.adjoint(matrices.flatten(0, 1))
            matrices = rows.reshape(matrices.shape)
        return attained_norm(self.plain, matrices)
