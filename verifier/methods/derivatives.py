"""Derivatives of C f at points, by autograd: for estimates only.

At a kink autograd takes one of the sides. Points go as batches, and each row of a batch depends on
its own point alone, so that one backward pass serves all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.network.activations.restricted import Restricted
from verifier.network.graph import Grouped, Network
from verifier.network.nodes import Affine, Elementwise, Product

_NEAR = 1e-4  #: how far a block is followed along a direction


@dataclass(frozen=True, slots=True, eq=False)
class Derivatives:
    """Derivatives of C f: `rows` is C."""

    network: Network
    rows: Float64[Tensor, "rows outputs"]

    def jacobian(
        self, x: Float64[Tensor, "points inputs"]
    ) -> Float64[Tensor, "points rows inputs"]:
        """J at every point, with one backward pass a row of C."""
        x = x.detach().requires_grad_(True)
        outputs = self._outputs(x)
        slopes = [gradients(column.sum(), x)[0] for column in outputs.unbind(dim=1)]
        return torch.stack(slopes, dim=1)

    def pulled(
        self,
        x: Float64[Tensor, "points inputs"],
        functionals: Float64[Tensor, "points rows"],
    ) -> Float64[Tensor, "points inputs"]:
        """J' s at every point."""
        x = x.detach().requires_grad_(True)
        return gradients((self._outputs(x) * functionals).sum(), x)[0]

    def pushed(
        self,
        x: Float64[Tensor, "points inputs"],
        directions: Float64[Tensor, "points inputs"],
    ) -> Float64[Tensor, "points rows"]:
        """J d at every point: J' u is linear in u, and its derivative by u along d is J d."""
        x = x.detach().requires_grad_(True)
        outputs = self._outputs(x)
        if not outputs.requires_grad:
            return torch.zeros_like(outputs)
        u = torch.zeros_like(outputs, requires_grad=True)
        (back,) = torch.autograd.grad(outputs, x, u, create_graph=True, materialize_grads=True)
        return gradients((back * directions).sum(), u)[0]

    def _outputs(self, x: Float64[Tensor, "points inputs"]) -> Float64[Tensor, "points rows"]:
        return self.network.forward(x) @ self.rows.T


def smoothed_rise(
    lowered: Network,
    x: Float64[Tensor, "points inputs"],
    direction: Float64[Tensor, "points inputs"],
    window: float,
) -> Float64[Tensor, "points outputs"]:
    """J d, with each gate's slope taken from a secant around z.

    The slope of phi at z is replaced by

        (phi(z + w) - phi(z - w)) / 2w,    w = window times the deviation of z among the points.

    which is differentiable by z, although phi may be piecewise linear. The slope of a function
    that is not defined everywhere is its own: z + w might leave its domain.

    Args:
        lowered: affine and elementwise nodes, products, and blocks, which are smooth already.
        x: the points.
        direction: d.
        window: the window in deviations of z.
    """
    values, rises = lowered.signals(x), {"": direction}
    for node in lowered.nodes:
        match node:
            case Affine():
                still = torch.zeros_like(values[node.name])
                parts = (term.map.apply(rises[term.source]) for term in node.terms)
                rises[node.name] = sum(parts, still)
            case Elementwise(function=Restricted() as function):
                slope = function.derivative(values[node.source])
                rises[node.name] = rises[node.source] * slope
            case Elementwise():
                z, phi = values[node.source], node.function.forward
                w = window * z.detach().std(dim=0).clamp(min=1e-9)
                rises[node.name] = rises[node.source] * (phi(z + w) - phi(z - w)) / (2 * w)
            case Product():
                by_left = rises[node.left] * values[node.right]
                rises[node.name] = by_left + values[node.left] * rises[node.right]
            case Grouped():
                z, rise, block = values[node.source], rises[node.source], node.group.forward
                h = _NEAR / rise.detach().abs().amax(dim=1, keepdim=True).clamp(min=_NEAR)
                rises[node.name] = (block(z + h * rise) - block(z - h * rise)) / (2 * h)
    return rises[lowered.output]


def gradients(total: Float64[Tensor, ""], *variables: Tensor) -> tuple[Tensor, ...]:
    """The derivatives, 0 by what the total does not depend on; the graph is kept."""
    if not total.requires_grad:
        return tuple(torch.zeros_like(variable) for variable in variables)
    return torch.autograd.grad(total, variables, retain_graph=True, materialize_grads=True)
