"""RNN, GRU and LSTM of a fixed length, written out step by step.

Of step t of direction d of a tensor y, "y:d.t.g" is gate g and "y:d.t.g:in" what enters it:

    RNN    h' = f(x W + h R + b)
    GRU    z, r = f(x W + h R + b),  w = 1 - z,  h' = w n + z h,
           "y:d.t.k" this between -1 and 1, where g is, and the initial state, and f is a sigmoid,
           n = g(x W + (r h) R + b), or g(x W + r (h R + b_R) + b_W) with linear_before_reset
    LSTM   i, o, f = f(x W + h R + b),  c = g(x W + h R + b)
           C' = f C + i c,  h' = o h(C')

Products are "y:d.t.rh", ".wn", ".zh", ".fc", ".ic" and ".h". The initial state is constant, so that
where it enters a product the product is an affine node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from verifier.network import elementwise as functions
from verifier.network.linear_map import Adjoint, Dense, Diagonal, Identity, LinearMap
from verifier.network.nodes import Affine, Elementwise, Product, Term
from verifier.onnx_import.convert.emitted import (
    Emitted,
    gather,
    indices,
    scaled,
    tensor,
    then,
)
from verifier.onnx_import.values import Shape, Signal, checked_size

if TYPE_CHECKING:
    from verifier.network.elementwise import Activation
    from verifier.network.graph import Node
    from verifier.onnx_import.call import Call

Array: TypeAlias = np.ndarray
#: A vector of a step: the signal of that name, or numbers.
State: TypeAlias = str | Array

FUNCTIONS: Final[Mapping[str, Callable[[int], Activation]]] = {
    "relu": functions.Relu,
    "sigmoid": functions.Sigmoid,
    "tanh": functions.Tanh,
}
GATES: Final[Mapping[str, tuple[str, ...]]] = {
    "GRU": ("z", "r", "n"),
    "LSTM": ("i", "o", "f", "c"),
    "RNN": ("h",),
}
LONGEST: Final = 2**10  #: steps that are written out
USUAL: Final[Mapping[str, tuple[str, ...]]] = {
    "GRU": ("sigmoid", "tanh"),
    "LSTM": ("sigmoid", "tanh", "tanh"),
    "RNN": ("tanh",),
}


@dataclass(slots=True)
class _Direction:
    """One direction: its weights, and the nodes of its steps."""

    call: Call
    x: Signal
    name: str  #: "y:d"
    w: Array  #: [gates, H, I]
    r: Array  #: [gates, H, H]
    bias_w: Array  #: [gates, H]
    bias_r: Array
    functions: Sequence[Callable[[int], Activation]]
    is_bounded: bool  #: whether h' is a mean, and the initial state and all n between -1 and 1
    nodes: list[Node] = field(default_factory=list["Node"])

    @property
    def batch(self) -> int:
        """Sequences."""
        return self.x.shape[1]

    @property
    def size(self) -> int:
        """Entries of a state."""
        return self.batch * self.w.shape[1]

    def run(self, times: Sequence[int], h: State, c: State) -> tuple[list[str], str, str]:
        """The names of every step's state, in order of the steps, and the last ones of h and C."""
        states: list[str] = []
        for step, time in enumerate(times):
            name = f"{self.name}.{step}"
            match self.call.op:
                case "RNN":
                    h = self._gate(f"{name}.h", 0, time, h, self.functions[0])
                case "GRU":
                    h = self._gru(name, time, h)
                case _:
                    h, c = self._lstm(name, time, h, c)
            states.append(h)
        return states, str(h), c if isinstance(c, str) else ""

    def _gru(self, name: str, time: int, h: State) -> str:
        f, g = self.functions
        z, r = (self._gate(f"{name}.{gate}", place, time, h, f) for place, gate in enumerate("zr"))
        if self.call.attributes.integer("linear_before_reset", 0):
            inner = self._inner(f"{name}.hr", h)
            terms = [self._entering(2, time), (self._times(f"{name}.rh", r, inner), None)]
            bias = np.tile(self.bias_w[2], self.batch)
        else:
            reset = self._times(f"{name}.rh", r, h)
            terms = [self._entering(2, time), (reset, Dense(tensor(self.r[2]), self.batch))]
            bias = np.tile(self.bias_w[2] + self.bias_r[2], self.batch)
        n = self._activated(f"{name}.n", terms, bias, g)
        minus = scaled(Identity(self.size), -1.0)
        rest = self._sum(f"{name}.w", [(z, minus)], np.ones(self.size))
        fresh, kept = self._times(f"{name}.wn", rest, n), self._times(f"{name}.zh", z, h)
        last = self._sum(f"{name}.h", [(fresh, None), (kept, None)])
        return self._confined(f"{name}.k", last) if self.is_bounded else last

    def _confined(self, name: str, source: str) -> str:
        """Between -1 and 1, where the state is: intervals would not say so."""
        known = functions.Confined(self.size, -1.0, 1.0)
        self.nodes.append(Elementwise(name, source, known, gate=name))
        return name

    def _inner(self, name: str, h: State) -> State:
        """H R + b_R of the candidate."""
        bias = np.tile(self.bias_r[2], self.batch)
        state, linear = self._recurrent(2, h)
        return (
            state + bias if not isinstance(state, str) else self._sum(name, [(state, linear)], bias)
        )

    def _lstm(self, name: str, time: int, h: State, c: State) -> tuple[str, str]:
        f, g, last = self.functions
        i, o, forget = (
            self._gate(f"{name}.{gate}", place, time, h, f) for place, gate in enumerate("iof")
        )
        fresh = self._gate(f"{name}.c", 3, time, h, g)
        kept = self._times(f"{name}.fc", forget, c)
        cell = self._sum(f"{name}.C", [(kept, None), (self._times(f"{name}.ic", i, fresh), None)])
        ended = f"{name}.t"
        self.nodes.append(Elementwise(ended, cell, last(self.size), gate=ended))
        return self._times(f"{name}.h", o, ended), cell

    # --- Parts of a step -------------------------------------------------------------------------

    def _gate(
        self, name: str, place: int, time: int, h: State, function: Callable[[int], Activation]
    ) -> str:
        terms = [self._entering(place, time), self._recurrent(place, h)]
        bias = np.tile(self.bias_w[place] + self.bias_r[place], self.batch)
        return self._activated(name, terms, bias, function)

    def _entering(self, place: int, time: int) -> tuple[State, LinearMap | None]:
        picked = gather(indices(self.x.shape)[time], self.x.size)
        return self.x.node, then(picked, Dense(tensor(self.w[place]), self.batch))

    def _recurrent(self, place: int, h: State) -> tuple[State, LinearMap | None]:
        if isinstance(h, str):
            return h, Dense(tensor(self.r[place]), self.batch)
        return (h.reshape(self.batch, -1) @ self.r[place].T).reshape(-1), None

    def _activated(
        self,
        name: str,
        terms: Sequence[tuple[State, LinearMap | None]],
        bias: Array,
        function: Callable[[int], Activation],
    ) -> str:
        source = self._sum(f"{name}:in", terms, bias)
        self.nodes.append(Elementwise(name, source, function(self.size), gate=name))
        return name

    def _sum(
        self,
        name: str,
        terms: Sequence[tuple[State, LinearMap | None]],
        bias: Array | None = None,
    ) -> str:
        total = np.zeros(self.size) if bias is None else bias
        made: list[Term] = []
        for state, linear in terms:
            if isinstance(state, str):
                made.append(Term(state, Identity(self.size) if linear is None else linear))
            elif linear is None:
                total = total + state
            else:
                total = total + linear.apply(tensor(state)[None])[0].numpy()
        self.nodes.append(Affine(name, tuple(made), tensor(total)))
        return name

    def _times(self, name: str, gate: str, state: State) -> str:
        """Entry by entry."""
        if isinstance(state, str):
            self.nodes.append(Product(name=name, left=gate, right=state, size=self.size))
            return name
        return self._sum(name, [(gate, Diagonal(tensor(state)))])


def unrolled(call: Call) -> list[Emitted]:
    """(Y, Y_h), and Y_c of an LSTM; the first brings all nodes."""
    x, gates = call.signal(0), len(GATES[call.op])
    w, r = call.array(1), call.array(2)
    count = 2 if call.attributes.text("direction", "forward") == "bidirectional" else 1
    hidden = call.attributes.optional_integer("hidden_size") or r.shape[-1]
    steps, batch, width = x.shape
    if w.shape != (count, gates * hidden, width) or r.shape != (count, gates * hidden, hidden):
        raise call.unsupported(f"its weights have shapes {list(w.shape)} and {list(r.shape)}")
    checked_size((steps, count, batch, gates * hidden), call.name)
    if LONGEST < steps:
        raise call.unsupported(f"its sequences have {steps} steps")
    bias = _or_zeros(call, 3, (count, 2, gates, hidden))
    _check_plain(call, steps, (count, 3 * hidden))
    start_h = _or_zeros(call, 5, (count, batch * hidden))
    start_c = _or_zeros(call, 6, (count, batch * hidden)) if call.op == "LSTM" else start_h
    each = _activations(call, count)
    nodes: list[Node] = []
    ends: list[tuple[list[str], str, str]] = []
    for d, times in enumerate(_orders(call, steps)):
        direction = _Direction(
            call, x, f"{_name(call)}:{d}",
            w[d].reshape(gates, hidden, width), r[d].reshape(gates, hidden, hidden),
            bias[d, 0], bias[d, 1], each[d],
            _is_mean(each[d]) and bool((np.abs(start_h[d]) <= 1).all()),
        )  # fmt: skip
        states, h, c = direction.run(times, start_h[d], start_c[d])
        nodes += direction.nodes
        ends.append(([states[times.index(time)] for time in range(steps)], h, c))
    every = [states[time] for time in range(steps) for states, _, _ in ends]
    parts = [every, [h for _, h, _ in ends], [c for _, _, c in ends]]
    shapes = [(steps, count, batch, hidden), *((count, batch, hidden),) * 2]
    made = [
        _stacked(_output(call, place), names, shape)
        for place, (names, shape) in enumerate(zip(parts, shapes, strict=True))
        if place < len(call.operator.outputs)
    ]
    return [Emitted((*nodes, *made[0].nodes), made[0].shape), *made[1:]]


def _is_mean(each: Sequence[Callable[[int], Activation]]) -> bool:
    """Whether (1 - z) n + z h is between -1 and 1 where h is: z a share, and n no more than 1."""
    return each[0] is functions.Sigmoid and each[-1] is not functions.Relu


def _name(call: Call) -> str:
    """The first tensor that leaves; proofs name the steps by it."""
    return next(name for name in call.operator.outputs if name)


def _output(call: Call, place: int) -> str:
    return call.operator.outputs[place] or f"{_name(call)}:unused{place}"


def _stacked(name: str, sources: Sequence[str], shape: Shape) -> Emitted:
    """Signals one after another."""
    size = int(np.prod(shape))
    parts = np.split(np.arange(size), len(sources))
    terms = tuple(
        Term(source, Adjoint(gather(part, size)))
        for source, part in zip(sources, parts, strict=True)
    )
    return Emitted((Affine(name, terms, tensor(np.zeros(size))),), shape)


def _orders(call: Call, steps: int) -> list[list[int]]:
    """The times of the steps of every direction."""
    forward, back = list(range(steps)), list(range(steps))[::-1]
    match call.attributes.text("direction", "forward"):
        case "forward":
            return [forward]
        case "reverse":
            return [back]
        case "bidirectional":
            return [forward, back]
        case other:
            raise call.attributes.invalid("direction", f"is {other!r}")


def _or_zeros(call: Call, place: int, shape: Shape) -> Array:
    found = call.optional_array(place)
    return np.zeros(shape) if found is None else found.reshape(shape)


def _check_plain(call: Call, steps: int, peepholes: Shape) -> None:
    """Refuses what is not written out: clipping, other lengths, peepholes, the other layout."""
    lengths = call.integers(4)
    if lengths is not None and any(length != steps for length in lengths):
        raise call.unsupported(f"sequence_lens {lengths[:8]} are not the length {steps}")
    if "clip" in call.attributes.values:
        call.attributes.ignore("clip")
        raise call.unsupported("it clips its cells")
    if call.op == "LSTM" and _or_zeros(call, 7, peepholes).any():
        raise call.unsupported("it has peepholes")
    for flag in ("layout", "input_forget"):
        if call.attributes.integer(flag, 0):
            raise call.unsupported(f"{flag} is not 0")


def _activations(call: Call, count: int) -> list[list[Callable[[int], Activation]]]:
    """The functions of every direction."""
    usual = USUAL[call.op]
    names = call.attributes.texts("activations") or usual * count
    for parameters in ("activation_alpha", "activation_beta"):
        if call.attributes.floats(parameters):
            raise call.unsupported(f"it has {parameters}")
    found = [FUNCTIONS.get(name.lower()) for name in names]
    known: list[Callable[[int], Activation]] = [
        function for function in found if function is not None
    ]
    if len(known) != len(usual) * count:
        raise call.unsupported(f"its activations are {', '.join(names)}")
    return [known[d * len(usual) : (d + 1) * len(usual)] for d in range(count)]


RULES: Final[Mapping[str, Callable[[Call], list[Emitted]]]] = {
    "GRU": unrolled,
    "LSTM": unrolled,
    "RNN": unrolled,
}
