"""The vertex maximum: the greatest |J(T)| with every gate's T at a vertex.

psi = T v with T in a hull: [-1, 1] for a gate, of all Q'PQ (P a permutation) for a sorted group.
y = J(T) dx is affine in each T, a norm is convex: so max |J(T)| over the hulls is reached at
vertices, no bound of the activations' constraints is below it, and none can be above by more than

    tightness = bound / max - 1.                                                          (1)

The search alternates. With u the dual vector of y = J(T) dx and p the derivative of u'y by psi,

    u'y = const + p_g' T_g v_g    in each T_g alone,                                       (2)

so T_g = sign(p_g v_g), and for groups the permutation that sorts v like p, do not lower it. v
depends on earlier gates only and p on later ones: one sweep forward, one backward, each gate by
what was just computed, never lowers |J(T) dx|. Many starts run side by side; the best are disturbed
and run again. What is found is a lower end of the maximum: an estimate, and a value of |J(T)| that
no input need reach.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from verifier.methods.clock import Clock
from verifier.methods.lipsdp import Form, helmert
from verifier.norms import Norm, NormPair

STARTS = 48  #: side by side
SWEEPS = 24  #: of each start
_DISTURBED = (0.03, 0.1, 0.3)  #: shares of gates that later rounds redraw
_GAIN = 1e-9  #: sweeps go on while some start gains this share


def search(
    form: Form,
    rows: Float64[Tensor, "selected outputs"],
    norm: NormPair,
    *,
    rounds: int,
    clock: Clock,
    seed: int = 0,
) -> float:
    """The greatest |J(T)| met, of the outputs `rows` y.

    Args:
        form: of the lowered network.
        rows: the outputs.
        norm: of the inputs and the outputs.
        rounds: of `STARTS` starts each, at most; the first half of them fresh ones.
        clock: no round begins after it has expired, but one runs in any case.
        seed: of the starts.
    """
    sweep = _Sweep(form, rows @ form.outflow, norm)
    generator = torch.Generator().manual_seed(seed)
    best, held = 0.0, list[_Kept]()
    for turn in range(rounds):
        if turn and clock.has_expired:
            break
        fresh = not held or 2 * turn < rounds
        start = sweep.drawn(generator) if fresh else sweep.disturbed(held, turn, generator)
        values, kept = sweep.climbed(start)
        top = int(values.argmax())
        best = max(best, float(values[top]))
        held = sorted([*held, kept.row(top)], key=_standing)[:8]
    return best


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """Where starts stand: dx, and what the backward sweep found entering every psi's column."""

    dx: Float64[Tensor, "starts inputs"]
    pull: Float64[Tensor, "starts psis"]  #: p
    value: float = 0.0

    def row(self, index: int) -> _Kept:
        return _Kept(self.dx[[index]], self.pull[[index]], self.value)


def _standing(kept: _Kept) -> float:
    """Sorts the best first."""
    return -kept.value


class _Sweep:
    """Both sweeps of one form and output."""

    def __init__(self, form: Form, outflow: Float64[Tensor, "selected xi"], norm: NormPair) -> None:
        self._form = form
        self._outflow = outflow
        self._norm = norm

    def drawn(self, generator: torch.Generator) -> _Kept:
        """Random starts."""
        form = self._form
        dx = torch.randn(STARTS, form.inputs, generator=generator, dtype=torch.float64)
        pull = torch.randn(STARTS, len(form.inflow), generator=generator, dtype=torch.float64)
        return _Kept(_dual(dx, _dual_norm(self._norm.input)), pull)

    def disturbed(self, held: list[_Kept], turn: int, generator: torch.Generator) -> _Kept:
        """The best ones, with a share of their p redrawn."""
        copies = -(-STARTS // len(held))
        dx = torch.cat([one.dx for one in held]).repeat(copies, 1)[:STARTS]
        pull = torch.cat([one.pull for one in held]).repeat(copies, 1)[:STARTS]
        share = _DISTURBED[turn % len(_DISTURBED)]
        chosen = torch.rand(pull.shape, generator=generator, dtype=torch.float64) < share
        other = torch.randn(pull.shape, generator=generator, dtype=torch.float64)
        spread = pull.abs().mean(dim=1, keepdim=True)
        return _Kept(dx, torch.where(chosen, other * spread, pull))

    def climbed(self, start: _Kept) -> tuple[Float64[Tensor, " starts"], _Kept]:
        """The values after sweeps, and where they ended."""
        dx, pull = start.dx, start.pull
        values = dx.new_zeros(len(dx))
        for _ in range(SWEEPS):
            y, moved = self._forward(dx, pull)
            reached = _length(y, self._norm.output)
            if bool((reached <= values * (1 + _GAIN)).all()):
                break
            values = torch.maximum(values, reached)
            dx, pull = self._backward(_dual(y, self._norm.output), moved)
        return values, _Kept(dx, pull, float(values.max()))

    def _forward(
        self, dx: Float64[Tensor, "starts inputs"], pull: Float64[Tensor, "starts psis"]
    ) -> tuple[Float64[Tensor, "starts selected"], list[_Vertex]]:
        """(y, each node's gates), gates chosen by p as the walk meets them."""
        form, xi = self._form, dx
        moved: list[_Vertex] = []
        for array, block in zip(form.gates, form.blocks, strict=True):
            entering = xi @ form.inflow[block, : xi.shape[1]].T
            vertex = _Vertex.best(entering, pull[:, block], array.psis)
            moved.append(vertex)
            xi = torch.cat([xi, vertex.applied(entering)], dim=1)
        return xi @ self._outflow.T, [
            _Vertex(v.choice, v.steps, xi @ form.inflow[b].T)
            for v, b in zip(moved, form.blocks, strict=True)
        ]

    def _backward(
        self, dual: Float64[Tensor, "starts selected"], moved: list[_Vertex]
    ) -> tuple[Float64[Tensor, "starts inputs"], Float64[Tensor, "starts psis"]]:
        """(the dx that u'J is greatest at, p), gates chosen by v as the walk meets them."""
        form = self._form
        slope = dual @ self._outflow
        for vertex, block in zip(reversed(moved), reversed(form.blocks), strict=True):
            first = form.inputs + block.start
            pull = slope[:, first : first + block.stop - block.start]
            chosen = _Vertex.best(vertex.entering, pull, vertex.steps)
            slope[:, :first] += chosen.turned(pull) @ form.inflow[block, :first]
        dx = _dual(slope[:, : form.inputs], _dual_norm(self._norm.input))
        return dx, slope[:, form.inputs :]


@dataclass(frozen=True, slots=True, eq=False)
class _Vertex:
    """T of one node: signs, or for groups which entry goes where."""

    choice: Tensor
    steps: int  #: psis of each gate
    entering: Float64[Tensor, "starts psis"]

    @staticmethod
    def best(
        entering: Float64[Tensor, "starts psis"], pull: Float64[Tensor, "starts psis"], steps: int
    ) -> _Vertex:
        """The T for which p'T v is greatest."""
        if steps == 1:
            return _Vertex(torch.where(entering * pull < 0, -1.0, 1.0), 1, entering)
        order = _expanded(pull, steps).argsort(dim=-1)
        choice = torch.empty_like(order)
        choice.scatter_(-1, order, _expanded(entering, steps).argsort(dim=-1))
        return _Vertex(choice, steps, entering)

    def applied(self, entering: Float64[Tensor, "starts psis"]) -> Float64[Tensor, "starts psis"]:
        """T v."""
        if self.steps == 1:
            return self.choice * entering
        return _contracted(_expanded(entering, self.steps).gather(-1, self.choice), self.steps)

    def turned(self, pull: Float64[Tensor, "starts psis"]) -> Float64[Tensor, "starts psis"]:
        """T'p."""
        if self.steps == 1:
            return self.choice * pull
        whole = _expanded(pull, self.steps)
        return _contracted(torch.empty_like(whole).scatter_(-1, self.choice, whole), self.steps)


def _expanded(values: Float64[Tensor, "starts psis"], steps: int) -> Float64[Tensor, "starts g n"]:
    """Q times the coordinates of each group."""
    return values.unflatten(1, (-1, steps)) @ helmert(steps + 1).to(values).T


def _contracted(
    values: Float64[Tensor, "starts g n"], steps: int
) -> Float64[Tensor, "starts psis"]:
    """Q' times the entries of each group."""
    return (values @ helmert(steps + 1).to(values)).flatten(1)


def _dual_norm(norm: Norm) -> Norm:
    return {Norm.L1: Norm.LINF, Norm.L2: Norm.L2, Norm.LINF: Norm.L1}[norm]


def _length(values: Float64[Tensor, "starts n"], norm: Norm) -> Float64[Tensor, " starts"]:
    match norm:
        case Norm.L1:
            return values.abs().sum(dim=1)
        case Norm.L2:
            return values.norm(dim=1)
        case Norm.LINF:
            return values.abs().amax(dim=1)


def _dual(values: Float64[Tensor, "starts n"], norm: Norm) -> Float64[Tensor, "starts n"]:
    """u of length 1 in the dual norm with u'y = |y|."""
    match norm:
        case Norm.L1:
            return torch.where(values < 0, -1.0, 1.0).to(values)
        case Norm.L2:
            return values / values.norm(dim=1, keepdim=True).clamp(min=1e-300)
        case Norm.LINF:
            place = values.abs().argmax(dim=1, keepdim=True)
            sign = torch.where(values.gather(1, place) < 0, -1.0, 1.0).to(values)
            return torch.zeros_like(values).scatter_(1, place, sign)
