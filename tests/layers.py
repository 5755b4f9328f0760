"""Random recurrent layers, contractions, transforms and attention, with what they are in torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import pi, prod, sqrt
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from tests.onnx_import.graphs import model, node

Function: TypeAlias = Callable[..., Tensor]
Rng: TypeAlias = np.random.Generator

FUNCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
}
USUAL = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One operator on the input x, and the same function of x and its constants in float64."""

    op: str
    shape: tuple[int, ...]
    function: Function
    constants: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    inputs: Sequence[str] = ("x",)
    outputs: Sequence[str] = ("y",)
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    opset: int = 17

    @property
    def data(self) -> bytes:
        """The model."""
        made = node(self.op, self.inputs, self.outputs, **self.attributes)
        return model([made], self.constants, shape=self.shape, opset=self.opset)

    @property
    def size(self) -> int:
        """Entries of x."""
        return prod(self.shape)

    def __call__(self, flat: Tensor) -> Tensor:
        """Of a flat x, flat."""
        known: dict[str, Tensor | None] = {
            name: torch.tensor(array).double() for name, array in self.constants.items()
        }
        known |= {"x": flat.reshape(self.shape), "": None}
        return self.function(*(known[name] for name in self.inputs)).reshape(-1)


def _floats(rng: Rng, *shape: int, scale: float = 1.0) -> np.ndarray:
    return (rng.normal(size=shape) * scale).astype(np.float32)


# --- Recurrent layers ----------------------------------------------------------------------------


def recurrent(rng: Rng) -> Layer:
    """A layer of any kind, direction, functions and states; its first or second result."""
    op = str(rng.choice(list(USUAL)))
    steps, batch, width, hidden = (int(rng.integers(1, 3)) for _ in range(4))
    direction = str(rng.choice(["forward", "reverse", "bidirectional"]))
    count, gates = 1 + (direction == "bidirectional"), GATES[op]
    names = USUAL[op] * count
    if rng.random() < 0.5:
        names = tuple(str(rng.choice(list(FUNCTIONS))) for _ in names)
    constants = {
        "w": _floats(rng, count, gates * hidden, width),
        "r": _floats(rng, count, gates * hidden, hidden),
        "b": _floats(rng, count, 2 * gates * hidden),
    }
    for state in ("h", "c") if op == "LSTM" else ("h",):
        if rng.random() < 0.5:
            constants[state] = _floats(rng, count, batch, hidden, scale=float(rng.choice([0.3, 2])))
    attributes = {"hidden_size": hidden, "direction": direction, "activations": names}
    if op == "GRU":
        attributes["linear_before_reset"] = int(rng.integers(2))
    cell = _Cell(op, names, direction, bool(attributes.get("linear_before_reset", 0)))
    states = [name if name in constants else "" for name in "hc"]
    second = int(rng.integers(2))
    return Layer(
        op=op,
        shape=(steps, batch, width),
        function=lambda *operands: cell(*operands)[second],
        constants=constants,
        inputs=("x", "w", "r", "b", "", *(states if op == "LSTM" else states[:1])),
        outputs=("", "y") if second else ("y",),
        attributes=attributes,
    )


@dataclass(frozen=True)
class _Cell:
    """The equations of the specification."""

    op: str
    names: Sequence[str]
    direction: str
    is_linear_first: bool

    def __call__(
        self,
        x: Tensor,
        w: Tensor,
        r: Tensor,
        b: Tensor,
        _lengths: None,
        h: Tensor | None,
        c: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        zero = x.new_zeros(len(w), x.shape[1], r.shape[2])
        each = len(self.names) // len(w)
        every: list[Tensor] = []
        last: list[Tensor] = []
        for d in range(len(w)):
            times = list(range(len(x)))
            times = times[::-1] if d or self.direction == "reverse" else times
            functions = [FUNCTIONS[name] for name in self.names[d * each : (d + 1) * each]]
            state = (zero if h is None else h)[d], (zero if c is None else c)[d]
            found: dict[int, Tensor] = {}
            for time in times:
                state = self._step(functions, x[time], (w[d], r[d], b[d]), *state)
                found[time] = state[0]
            every.append(torch.stack([found[time] for time in range(len(x))]))
            last.append(state[0])
        return torch.stack(every, 1), torch.stack(last)

    def _step(
        self,
        functions: Sequence[Function],
        x: Tensor,
        weights: tuple[Tensor, Tensor, Tensor],
        h: Tensor,
        c: Tensor,
    ) -> tuple[Tensor, Tensor]:
        w, r, b = weights
        count = GATES[self.op]
        v = (x @ w.T + b.chunk(2)[0]).chunk(count, -1)
        u = (h @ r.T + b.chunk(2)[1]).chunk(count, -1)
        first, *others = functions
        gates = [first(one + other) for one, other in zip(v, u, strict=True)]
        if self.op == "RNN":
            return gates[0], c
        if self.op == "LSTM":
            c = gates[2] * c + gates[0] * others[0](v[3] + u[3])
            return gates[1] * others[1](c), c
        z, reset = gates[0], gates[1]
        inner = reset * h @ r.chunk(3)[2].T + b.chunk(2)[1].chunk(3)[2]
        n = others[0](v[2] + (reset * u[2] if self.is_linear_first else inner))
        return (1 - z) * n + z * h, c


# --- Contractions, transforms, attention ---------------------------------------------------------


def contraction(rng: Rng) -> Layer:
    """Einsum of x and a constant, or of x twice: shared labels, diagonals, lengths 1, ellipses."""
    size = dict(zip("abc", rng.integers(1, 4, 3), strict=True))
    own = "".join(rng.choice(list("aabc"), int(rng.integers(1, 4))))
    other = own if rng.random() < 0.3 else "".join(rng.permutation(list("abc"))[:2])
    leading = "..." if rng.random() < 0.3 else ""
    labels = sorted({*own, *other})
    output = "".join(rng.permutation(labels)[: int(rng.integers(0, len(labels) + 1))])
    is_twice = other == own
    shape = (*((2,) if leading else ()), *(int(size[label]) for label in own))
    narrow = [1 if rng.random() < 0.2 else int(size[label]) for label in other]
    equation = f"{leading}{own},{leading if is_twice else ''}{other}->{leading}{output}"
    constants = {} if is_twice else {"k": _floats(rng, *narrow)}

    def function(one: Tensor, two: Tensor) -> Tensor:
        return torch.einsum(equation, one, two)

    return Layer(
        op="Einsum",
        shape=shape,
        function=function,
        constants=constants,
        inputs=("x", "x" if is_twice else "k"),
        attributes={"equation": equation},
    )


def transform(rng: Rng) -> Layer:
    """DFT of real or complex numbers, along any axis, cut or filled up, there or back."""
    parts, opset = int(rng.integers(1, 3)), int(rng.choice([17, 20]))
    shape = (*(int(n) for n in rng.integers(1, 4, 2)), parts)
    axis, count = int(rng.integers(2)), int(rng.integers(1, 5))
    is_back = bool(rng.integers(2))
    is_half = not is_back and parts == 1 and bool(rng.integers(2))
    constants = {"n": np.array(count)}
    attributes = {"inverse": int(is_back), "onesided": int(is_half)}
    if opset < 20:
        attributes["axis"] = axis
    else:
        constants["axis"] = np.array(axis - 3)

    def function(x: Tensor, *_: Tensor) -> Tensor:
        entries = torch.complex(x[..., 0], x[..., 1] if parts == 2 else torch.zeros_like(x[..., 0]))
        entries = entries.movedim(axis, -1)[..., :count]
        places = torch.arange(max(count, entries.shape[-1])).double()
        turns = torch.outer(places[:count], places[: entries.shape[-1]]) / count
        waves = torch.exp((2j if is_back else -2j) * pi * turns)
        found = entries @ waves.T / (count if is_back else 1)
        found = found[..., : count // 2 + 1] if is_half else found
        return torch.view_as_real(found.movedim(-1, axis).contiguous())

    return Layer(
        op="DFT",
        shape=shape,
        function=function,
        constants=constants,
        inputs=("x", *constants),
        attributes=attributes,
        opset=opset,
    )


def _mask(rng: Rng, *shape: int) -> np.ndarray:
    """Summands of scores; some of the lower entries, which every query sees, are left out."""
    mask = _floats(rng, *shape)
    leaves_out = (rng.random(shape) < 0.3) & np.tri(shape[-2], k=-1, dtype=bool)
    return np.where(leaves_out, np.float32(-np.inf), mask)


def attention(rng: Rng) -> Layer:
    """Attention of x to itself, scaled and masked."""
    batch, heads, steps, depth = (int(rng.integers(1, most)) for most in (2, 3, 4, 3))
    scale = float(np.float32(rng.uniform(0.1, 2)))
    is_scaled, is_masked, is_causal = rng.random(3) < 0.5
    leading = [(), (1,), (heads,), (batch, heads)][int(rng.integers(4))]

    def function(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        scores = q @ k.transpose(-1, -2) * (scale if is_scaled else 1 / sqrt(depth))
        if is_causal:
            scores = scores + torch.full((steps, steps), -torch.inf).triu(1)
        return torch.softmax(scores if mask is None else scores + mask, -1) @ v

    return Layer(
        op="Attention",
        shape=(batch, heads, steps, depth),
        function=function,
        constants={"mask": _mask(rng, *leading, steps, steps)} if is_masked else {},
        inputs=("x", "x", "x", "mask")[: 4 if is_masked else 3],
        attributes=({"scale": scale} if is_scaled else {}) | {"is_causal": int(is_causal)},
        opset=int(rng.choice([23, 24])),
    )


LAYERS: Mapping[str, Callable[[Rng], Layer]] = {
    "attention": attention,
    "contraction": contraction,
    "recurrent": recurrent,
    "transform": transform,
}
