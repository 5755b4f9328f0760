"""Continuous functions next to ones that jump, for requests that ask for `real-idealised`.

    where(t < k x, x, softplus(k x)/k)            softplus(k x)/k; off by log(1 + e^-t)/k an entry
    a mirror with folded sines and cosines        the mirror by the unit vector along its gate's
    one of second order with folded numbers       the cones of its offset and thresholds

How far each is from what the file says is stated in the claim; the checker proves it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from verifier.certificate import Idealised, Pattern
from verifier.network import elementwise as functions
from verifier.network.blocks import Cones
from verifier.network.graph import Grouped
from verifier.network.grouped import Householder
from verifier.onnx_import.convert.emitted import Emitted, elementwise, index_tensor, tensor
from verifier.onnx_import.patterns.folded_seconds import folded_second
from verifier.onnx_import.patterns.jumps import softplus_of
from verifier.onnx_import.patterns.turns import folded_turn, halves
from verifier.onnx_import.values import Signal

if TYPE_CHECKING:
    from verifier.onnx_import.call import Call
    from verifier.onnx_import.patterns.compounds import Written

_ROOM = 1 + 1e-9  #: for what the checker rounds up
_LEAST = 1e-15  #: relative: below, rounding is all there is
_SMALL = 1e-6  #: how far, absolutely, a softplus may be from one: more is another function
_NEAR = 1e-5  #: how far, relatively, a folded mirror may be from one


@dataclass(frozen=True, slots=True)
class Ideal:
    """The nodes that stand for the operators, and what the claim has to say of them."""

    emitted: Emitted
    idealised: Idealised
    hint: Pattern | None = None


def idealised(call: Call, written: Written, graph_input: str) -> Ideal | None:
    """What stands for this operator and those before it, where they are such a function."""
    if call.op == "Where":
        return _softplus(call, written)
    if call.op == "Concat" and len(call.operator.inputs) == 2:
        return _mirror(call, written, graph_input) or _cones(call, written, graph_input)
    return None


def _softplus(call: Call, written: Written) -> Ideal | None:
    found = softplus_of(call, written)
    x = None if found is None else written.values.get(found.x)
    if found is None or not isinstance(x, Signal) or found.steepness <= 0:
        return None
    if not math.isclose(found.scale * found.steepness, 1.0, rel_tol=1e-15):
        return None
    step = found.scale * math.log1p(math.exp(-found.threshold))
    if _SMALL < step:
        return None
    base = functions.Softplus(x.size)
    is_plain = found.steepness == 1.0
    function = base if is_plain else functions.Scaled(x.size, base, found.scale, found.steepness)
    return Ideal(
        elementwise(call, x, function),
        Idealised(
            node=call.output,
            pattern="thresholded-softplus",
            absolute=math.sqrt(x.size) * step * _ROOM,
            relative=0.0,
        ),
    )


def _mirror(call: Call, written: Written, graph_input: str) -> Ideal | None:
    folded = folded_turn(call, written)
    found = None if folded is None else halves(call, written, folded.names)
    if folded is None or found is None:
        return None
    gate = np.stack([np.broadcast_to(g, found.shape).reshape(-1) for g in folded.gate], axis=1)
    rows = np.stack(
        [np.broadcast_to(a, found.shape).reshape(-1) for row in folded.rows for a in row], axis=1
    ).reshape(-1, 2, 2)
    lengths = np.linalg.norm(gate, axis=1, keepdims=True)
    if not lengths.all():
        return None
    units = gate / lengths
    mirrors = np.eye(2) - 2 * units[:, :, None] * units[:, None, :]
    deviation = float(np.linalg.norm(rows - mirrors, 2, axis=(1, 2)).max(initial=0.0))
    if _NEAR < deviation:
        return None
    order, slices = found.order, found.slices
    # A `Householder` keeps x where its vector has v.x above 0.
    group = Householder(index_tensor(slices[order]).reshape(slices.shape), tensor(-units[order]))
    source = found.source or graph_input
    return Ideal(
        Emitted((Grouped(call.output, found.source, group),), found.joined),
        Idealised(
            node=call.output,
            pattern="folded-mirror",
            absolute=0.0,
            relative=deviation * _ROOM + _LEAST,
        ),
        Pattern(kind="folded-mirror", input=source, output=call.output),
    )


def _cones(call: Call, written: Written, graph_input: str) -> Ideal | None:
    folded = folded_second(call, written)
    found = None if folded is None else halves(call, written, folded.names)
    if folded is None or found is None:
        return None
    each = [np.broadcast_to(c, found.shape).reshape(-1) for c in folded.constants]
    pairs = index_tensor(found.slices[found.order]).reshape(found.slices.shape)
    cones = Cones(pairs, tensor(np.stack(each, axis=1)[found.order]))
    source = found.source or graph_input
    return Ideal(
        Emitted((Grouped(call.output, found.source, cones),), found.joined),
        Idealised(
            node=call.output,
            pattern="folded-second-order-mirror",
            absolute=0.0,
            relative=folded.deviation * _ROOM + _LEAST,
        ),
        Pattern(kind="folded-second-order-mirror", input=source, output=call.output),
    )
