"""From tensors on a torus to flat signals: the rows that read the tensors' windows.

Flat signals are z = sum_p R_p y_p over the places p of a tensor's window; R is 0 elsewhere. With
R(f) = sum_p R_p e^(2 pi i f.p/n), the sum over places of the frequencies' orthonormal waves gives

    J_z = (1/n) sum_f R(f) J(f) R(f)*                                                       (1)

over all n frequencies f of the base's torus; f is taken modulo the tensor's own sides.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from verifier.checker.arithmetic import UNIT, enlarged, gamma
from verifier.checker.batches import moved, norm_up, real_part
from verifier.checker.carry import Carried
from verifier.checker.definite import NotProved
from verifier.checker.flat import pulled_rows
from verifier.checker.hermitian import Covariance, raised, require_formable
from verifier.checker.phases import phases
from verifier.checker.torus_state import stacked
from verifier.checker.torus_symbols import Symbol, transformed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float64, Int64

    from verifier.checker.frontier import Frontier
    from verifier.checker.torus_state import TorusState
    from verifier.checker.torus_structure import Tensor, Torus

WORKING_ENTRIES = 2**23  #: of what is held at a time


def cropped(torus: Torus, frontier: Frontier, state: TorusState, wanted: str) -> Covariance:
    """The covariance of a cut of flat signals, to which the frontier moves on.

    Args:
        torus: the network.
        frontier: its base is tensors.
        state: their covariance.
        wanted: the signal that the next gate reads, or the output, which may be a tensor.
    """
    cut = (wanted,) if wanted in torus.tensors else frontier.cut(wanted)
    if wanted in torus.tensors and wanted != torus.output:
        raise NotProved(f"node {wanted!r} is a tensor that no gate of a torus reads")
    height = sum(torus.sizes[name] for name in cut)
    require_formable(height)
    blocks = [_rows(torus, frontier, name) for name in cut]
    read = sorted({tensor for _, block in blocks for tensor in block})
    places = state.places(frontier.base)
    width = sum(len(place) for place in places.values())
    chosen, weights = state.frequencies.chosen, state.frequencies.weights / math.prod(state.sides)
    chunk = max(1, WORKING_ENTRIES // (height * max(height, width)))
    whole: Covariance | None = None
    for start in range(0, len(chosen), chunk):
        part = slice(start, start + chunk)
        made = state.symbols(frontier, read, chosen[part])
        parts = [(size, _composed(torus, block, made, chosen[part])) for size, block in blocks]
        here = Covariance(state.covariance.value[part], state.covariance.exponent)
        here = _averaged(here.carried(stacked(places, parts)), weights[part])
        whole = here if whole is None else _added(whole, here)
    frontier.move_to(cut)
    if whole is None:
        raise NotProved("a torus without frequencies")
    return whole


def _rows(torus: Torus, frontier: Frontier, name: str) -> tuple[int, dict[str, Carried]]:
    """(entries of a flat signal, its rows over the windows of the tensors that it reads)."""
    size = torus.sizes[name]
    path = [node for node in frontier.path(name) if node.name not in torus.tensors]
    return size, pulled_rows(path, name, Carried(np.eye(size)))


def _composed(
    torus: Torus,
    block: Mapping[str, Carried],
    made: Mapping[str, Mapping[str, Symbol]],
    frequencies: Int64[np.ndarray, "many axes"],
) -> dict[str, Symbol]:
    """A block of rows, transformed, as symbols of the base's tensors."""
    sums: dict[str, Symbol] = {}
    for name, rows in block.items():
        outer = _transformed(rows, torus.tensors[name], frequencies)
        for source, before in made[name].items():
            whole = outer.after(before)
            sums[source] = sums[source].plus(whole) if source in sums else whole
    return sums


def _transformed(
    rows: Carried, tensor: Tensor, frequencies: Int64[np.ndarray, "many axes"]
) -> Symbol:
    """R(f) of rows over a tensor's window."""
    count = math.prod(tensor.window)
    places = np.stack(np.unravel_index(np.arange(count), tensor.window), axis=1)
    weights = rows.value.reshape(rows.rows, tensor.channels, count).transpose(2, 0, 1)
    loose = np.zeros((rows.rows, tensor.channels))
    if rows.error is not None:
        sums = rows.error.reshape(rows.rows, tensor.channels, count).sum(axis=2)
        loose = enlarged(sums, count)
    return transformed(weights, loose, phases(places, tensor.sides, frequencies))


def _averaged(covariance: Covariance, weights: Float64[np.ndarray, " frequencies"]) -> Covariance:
    """The sum of w_f Re J(f), which is that of J(f) and its conjugate."""
    value = np.einsum("f,fij->ij", weights, real_part(covariance.value))
    mass = float(np.sum(weights * norm_up(covariance.value)))
    # The weights, the products and the sums round.
    error = np.array([gamma(len(weights) + 8) * mass * (1 + 2 * gamma(len(weights) + 8))])
    return raised(value[None], error, covariance.exponent)


def _added(first: Covariance, second: Covariance) -> Covariance:
    """The sum of two covariances."""
    exponent = np.maximum(first.exponent, second.exponent)
    shifts = (first.exponent - exponent, second.exponent - exponent)
    one, other = (
        moved(item.value, shift[:, None] + shift)
        for item, shift in zip((first, second), shifts, strict=True)
    )
    error = UNIT * (norm_up(one) + norm_up(other)) * (1 + 8 * UNIT)
    return raised(one + other, error, exponent)
