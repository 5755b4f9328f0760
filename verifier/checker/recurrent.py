"""RNN, GRU and LSTM of a fixed length, written out step by step.

Of step t of direction d of a tensor y, "y:d.t.g" is gate g and "y:d.t.g:in" what enters it, with
"y:d.t.g:x" = x W where something recurs:

    RNN    h' = f(x W + h R + b)
    GRU    z, r = f(x W + h R + b),  w = 1 - z,  h' = w n + z h,
           "y:d.t.k" this, known to be between -1 and 1, where g and the initial state are, and f
           is a sigmoid,
           n = g(x W + (r h) R + b), or g(x W + r (h R + b_R) + b_W) with linear_before_reset
    LSTM   i, o, f = f(x W + h R + b),  c = g(x W + h R + b)
           C' = f C + i c,  h' = o h(C')

Products are "y:d.t.rh", ".wn", ".zh", ".fc", ".ic" and ".h". The initial state is constant;
where it enters a product the product is an affine node.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from verifier.checker import scalars
from verifier.checker.builder import Builder, indices
from verifier.checker.folded_arithmetic import product
from verifier.checker.linear import added, flat
from verifier.checker.maps import Adjoint, Dense, Diagonal, Gather, composed, identity
from verifier.checker.network import Elementwise, Product, Term
from verifier.checker.operands import Call, Constant, Signal

if TYPE_CHECKING:
    from verifier.checker.network import Scalar

#: A vector of a step: the signal of that name, or numbers.
State: TypeAlias = "str | Constant"
Making: TypeAlias = "Callable[[], Scalar]"

_FUNCTIONS: Mapping[str, Making] = {
    "relu": scalars.relu,
    "sigmoid": scalars.Sigmoid,
    "tanh": scalars.Tanh,
}
_ARITY = {"GRU": (6, 2), "LSTM": (8, 3), "RNN": (6, 2)}  #: operands and results, at most
_GATES = {"GRU": 3, "LSTM": 4, "RNN": 1}
_LONGEST = 2**10  #: steps that are written out
_USUAL = {"GRU": ("sigmoid", "tanh"), "LSTM": ("sigmoid", "tanh", "tanh"), "RNN": ("tanh",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell:
    """One direction's numbers."""

    builder: Builder
    call: Call
    x: Signal
    name: str  #: "y:d"
    w: Constant  #: [gates, H, I]
    r: Constant  #: [gates, H, H]
    bias: Constant  #: [2, gates, H]
    functions: Sequence[Making]
    is_bounded: bool  #: whether h' is a mean, and the initial state and all n between -1 and 1

    @property
    def batch(self) -> int:
        """Sequences."""
        return self.x.shape[1]

    @property
    def hidden(self) -> int:
        """Entries of one sequence's state."""
        return self.r.shape[2]

    @property
    def size(self) -> int:
        """Entries of a state."""
        return self.batch * self.hidden

    def step(self, name: str, time: int, h: State, c: State) -> tuple[str, State]:
        """The next h, and C of an LSTM."""
        if self.call.node.op == "RNN":
            return self._gate(f"{name}.h", 0, time, h, self.functions[0]), c
        return (
            self._gru(name, time, h) if self.call.node.op == "GRU" else self._lstm(name, time, h, c)
        )

    def _gru(self, name: str, time: int, h: State) -> tuple[str, State]:
        f, g = self.functions
        z = self._gate(f"{name}.z", 0, time, h, f)
        r = self._gate(f"{name}.r", 1, time, h, f)
        entering = self._entering(2, time)
        if self.call.integer("linear_before_reset", 0):
            inner = self._inner(f"{name}.hr", h)
            terms = [entering, self._whole(self._times(f"{name}.rh", r, inner))]
            bias = self._biases(0, 2)
        else:
            reset = self._times(f"{name}.rh", r, h)
            terms = [entering, Term(reset, self._dense(self.r, 2))]
            bias = added(self._biases(0, 2), self._biases(1, 2))
        n = self._activated(f"{name}.n", terms, bias, g)
        minus = Term(z, Diagonal(np.full(self.size, -1.0)))
        one = Constant(np.ones(self.size), self.x.dtype)
        fresh = self._times(f"{name}.wn", self._sum(f"{name}.w", [minus], one), n)
        kept = self._times(f"{name}.zh", z, h)
        last = self._sum(f"{name}.h", [self._whole(fresh), self._whole(kept)], None)
        if self.is_bounded:
            # Exact: a mean of numbers between -1 and 1, which intervals would not know.
            last = self._curve(
                f"{name}.k", last, lambda: scalars.Confined(least=-1.0, greatest=1.0)
            )
        return last, h

    def _inner(self, name: str, h: State) -> State:
        """H R + b_R of the candidate."""
        terms, constant = self._recurrent(2, h)
        bias = added(constant, self._biases(1, 2))
        return self._sum(name, terms, bias) if terms else bias

    def _lstm(self, name: str, time: int, h: State, c: State) -> tuple[str, State]:
        f, g, last = self.functions
        i, o, forget = (
            self._gate(f"{name}.{gate}", place, time, h, f) for place, gate in enumerate("iof")
        )
        fresh = self._gate(f"{name}.c", 3, time, h, g)
        kept = self._times(f"{name}.fc", forget, c)
        taken = self._times(f"{name}.ic", i, fresh)
        cell = self._sum(f"{name}.C", [self._whole(kept), self._whole(taken)], None)
        ended = self._curve(f"{name}.t", cell, last)
        return self._times(f"{name}.h", o, ended), cell

    # --- Parts of a step -------------------------------------------------------------------------

    def _dense(self, weight: Constant, place: int) -> Dense:
        error = None if weight.error is None else weight.error[place]
        return Dense(weight.value[place], error, self.batch)

    def _biases(self, side: int, place: int) -> Constant:
        """A gate's bias for every sequence."""
        error = (
            None if self.bias.error is None else np.tile(self.bias.error[side, place], self.batch)
        )
        return Constant(np.tile(self.bias.value[side, place], self.batch), self.x.dtype, error)

    def _entering(self, place: int, time: int) -> Term:
        picked = Gather(indices(self.x.shape)[time].reshape(-1), self.x.size)
        return Term(self.x.source, composed(picked, self._dense(self.w, place)))

    def _recurrent(self, place: int, h: State) -> tuple[list[Term], Constant | None]:
        """H R: a term, or numbers."""
        if isinstance(h, str):
            return [Term(h, self._dense(self.r, place))], None
        weight = self._dense(self.r, place)
        error = None if weight.error is None else weight.error.T
        turned = Constant(weight.weight.T, self.x.dtype, error)
        form = (self.batch, self.hidden)
        rows = Constant(h.value.reshape(form), self.x.dtype, h.spread.reshape(form))
        return [], flat(
            product(self.call, rows, turned, self.x.dtype)[0], (self.batch, self.hidden)
        )

    def _gate(self, name: str, place: int, time: int, h: State, function: Making) -> str:
        terms, constant = self._recurrent(place, h)
        bias = added(constant, added(self._biases(0, place), self._biases(1, place)))
        return self._activated(name, [self._entering(place, time), *terms], bias, function)

    def _activated(self, name: str, terms: Sequence[Term], bias: Constant, function: Making) -> str:
        """The function of what enters first and of what recurs, if anything does.

        What enters is a signal of its own, as in graphs that are written out: a joint norm can then
        carry it, and not all of x, from step to step.
        """
        first, *others = terms
        if others:
            terms = [self._whole(self._sum(f"{name}:x", [first], None)), *others]
        return self._curve(name, self._sum(f"{name}:in", terms, bias), function)

    def _curve(self, name: str, source: str, function: Making) -> str:
        self.builder.add(Elementwise(name=name, size=self.size, source=source, function=function()))
        return name

    def _sum(self, name: str, terms: Sequence[Term], bias: Constant | None) -> str:
        self.builder.affine(name, self.size, terms, bias)
        return name

    def _whole(self, name: str) -> Term:
        return Term(name, identity(self.size))

    def _times(self, name: str, gate: str, state: State) -> str:
        """Entry by entry."""
        if isinstance(state, str):
            self.builder.add(Product(name=name, size=self.size, left=gate, right=state))
            return name
        error = state.spread.reshape(-1) if np.any(state.spread) else None
        return self._sum(name, [Term(gate, Diagonal(state.value.reshape(-1), error))], None)


def unrolled(builder: Builder, call: Call) -> list[Signal | None]:
    """(Y, Y_h), and Y_c of an LSTM."""
    operands, results = _ARITY[call.node.op]
    call.arity(3, operands)
    if len(call.node.outputs) > results:
        call.invalid(f"{len(call.node.outputs)} results")
    x, cells, starts = _cells(builder, call)
    steps, batch, _ = x.shape
    hidden = cells[0].hidden
    ends: list[tuple[list[str], str, State]] = []
    for cell, order, (h, c) in zip(cells, _orders(call, steps), starts, strict=True):
        states: dict[int, str] = {}
        last = ""
        for step, time in enumerate(order):
            last, c = cell.step(f"{cell.name}.{step}", time, last or h, c)
            states[time] = last
        ends.append(([states[time] for time in range(steps)], last, c))
    every = [states[time] for time in range(steps) for states, _, _ in ends]
    cell_states = [c for _, _, c in ends if isinstance(c, str)]
    parts = [every, [h for _, h, _ in ends], cell_states][: len(call.node.outputs)]
    shapes = [(steps, len(cells), batch, hidden), *((len(cells), batch, hidden),) * 2]
    return [
        _stacked(builder, output, names, shape, x.dtype) if output else None
        for output, names, shape in zip(call.node.outputs, parts, shapes, strict=False)
    ]


def _cells(builder: Builder, call: Call) -> tuple[Signal, list[_Cell], list[tuple[State, State]]]:
    x, gates = call.signal(0), _GATES[call.node.op]
    w, r = call.constant(1), call.constant(2)
    count = len(_orders(call, 1))
    if len(x.shape) != 3 or r.value.ndim != 3:
        call.mismatch(f"an input of shape {x.shape}")
    steps, batch, width = x.shape
    hidden = call.integer("hidden_size", r.shape[2])
    if w.shape != (count, gates * hidden, width) or r.shape != (count, gates * hidden, hidden):
        call.mismatch(f"weights of shapes {w.shape} and {r.shape}")
    call.allowed([steps, count, batch, gates * hidden])
    if 0 in (*x.shape, hidden):
        call.mismatch(f"nothing in an input of shape {x.shape}, or in {hidden} states")
    if steps > _LONGEST:
        call.not_checkable(f"{steps} steps")
    _check_plain(call, steps)
    bias = _or_zeros(call, 3, (count, 2 * gates * hidden))
    states = [_or_zeros(call, place, (count, batch, hidden)) for place in (5, 6)]
    functions = _functions(call, count)
    cells = [
        _Cell(
            builder=builder, call=call, x=x, name=f"{call.node.name}:{d}",
            w=_part(w, d, (gates, hidden, width)), r=_part(r, d, (gates, hidden, hidden)),
            bias=_part(bias, d, (2, gates, hidden)), functions=functions[d],
            is_bounded=_is_bounded(_part(states[0], d, (batch, hidden)), functions[d]),
        )
        for d in range(count)
    ]  # fmt: skip
    starts: list[tuple[State, State]] = [
        (_part(states[0], d, (batch, hidden)), _part(states[1], d, (batch, hidden)))
        for d in range(count)
    ]
    return x, cells, starts


def _is_bounded(start: Constant, functions: Sequence[Making]) -> bool:
    within = bool(np.all(np.abs(start.value) <= 1)) and not np.any(start.spread)
    gate, candidate = functions[0], functions[-1]
    # Only a sigmoid is between 0 and 1, so that (1 - z) n + z h is a mean.
    return within and gate is scalars.Sigmoid and candidate in (scalars.Tanh, scalars.Sigmoid)


def _part(whole: Constant, place: int, shape: tuple[int, ...]) -> Constant:
    error = None if whole.error is None else whole.error[place].reshape(shape)
    return Constant(whole.value[place].reshape(shape), whole.dtype, error)


def _or_zeros(call: Call, place: int, shape: tuple[int, ...]) -> Constant:
    if call.optional(place) is None:
        return Constant(np.zeros(shape), "float64")
    found = call.constant(place)
    if found.shape != shape:
        call.mismatch(f"operand {place} of shape {found.shape}")
    return found


def _stacked(
    builder: Builder, name: str, sources: Sequence[str], shape: tuple[int, ...], dtype: str
) -> Signal:
    """Signals one after another."""
    size = math.prod(shape)
    parts = np.split(np.arange(size), len(sources))
    terms = [
        Term(source, Adjoint(Gather(part, size)))
        for source, part in zip(sources, parts, strict=True)
    ]
    builder.affine(name, size, terms)
    return Signal(name, shape, dtype)


def _orders(call: Call, steps: int) -> list[list[int]]:
    """The times of the steps of every direction."""
    forward, back = list(range(steps)), list(range(steps))[::-1]
    orders = {"forward": [forward], "reverse": [back], "bidirectional": [forward, back]}
    direction = call.string("direction", "forward")
    if direction not in orders:
        call.invalid(f"direction {direction!r}")
    return orders[direction]


def _check_plain(call: Call, steps: int) -> None:
    """Nothing that is not written out: clipping, other lengths, peepholes, another layout."""
    if call.optional(4) is not None and set(call.integers(4)) != {steps}:
        call.not_checkable("sequences of other lengths")
    if call.has("clip"):
        call.not_checkable("clip")
    if call.optional(7) is not None and np.any(call.exact(7).value):
        call.not_checkable("peepholes")
    for flag in ("layout", "input_forget"):
        if call.integer(flag, 0):
            call.not_checkable(flag)


def _functions(call: Call, count: int) -> list[list[Making]]:
    """The functions of every direction."""
    usual = _USUAL[call.node.op]
    names = call.list_of_strings("activations") or usual * count
    for parameters in ("activation_alpha", "activation_beta"):
        if call.list_of_numbers(parameters):
            call.not_checkable(parameters)
    if len(names) != len(usual) * count or any(name.lower() not in _FUNCTIONS for name in names):
        call.not_checkable(f"activations {names[:8]}")
    found = [_FUNCTIONS[name.lower()] for name in names]
    return [found[d * len(usual) : (d + 1) * len(usual)] for d in range(count)]


RULES: Mapping[str, Callable[[Builder, Call], list[Signal | None]]] = {
    "GRU": unrolled,
    "LSTM": unrolled,
    "RNN": unrolled,
}
