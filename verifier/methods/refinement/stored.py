"""A round's point as a row of the certificate: multipliers, cuts by nodes, blocks by nodes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

from verifier.certificate import LmiRow, PairCuts
from verifier.methods.refinement.assembly import Assembly
from verifier.methods.refinement.rounds import Found


def reach(row: LmiRow) -> float:
    """The bound that a row stands for, in its own norm of inputs."""
    if row.input_multipliers is None:
        return math.sqrt(row.level)
    return (row.level + float(row.input_multipliers.sum())) / 2


def stored_row(assembly: Assembly, base: LmiRow, found: Found) -> LmiRow:
    """What the certificate stores."""
    values = (found.base * assembly.unit).numpy()
    tau, first = base.input_multipliers, 1 + len(assembly.inputs)
    if tau is not None:
        tau = tau.copy()
        tau[assembly.inputs.numpy()] = values[1:first]
    multipliers = {gate: array.copy() for gate, array in base.multipliers.items()}
    for (gate, entry), value in zip(assembly.owners, values[first:], strict=True):
        multipliers[gate][entry] = value
    return replace(
        base,
        level=float(values[0]),
        input_multipliers=tau,
        multipliers=multipliers,
        cuts=_pair_cuts(assembly, found),
        sort_blocks=_sort_blocks(assembly, base, found),
    )


def _pair_cuts(assembly: Assembly, found: Found) -> tuple[PairCuts, ...]:
    """The cuts by pairs of nodes."""
    cuts, names, scales = found.cuts, assembly.names, assembly.scales
    weights = torch.cat(
        [cuts.p * scales[cuts.first][:, None], cuts.r * scales[cuts.second][:, None]], dim=1
    ).numpy()
    grouped: dict[tuple[str, str], list[tuple[int, int, np.ndarray]]] = {}
    for one, other, weight in zip(cuts.first.tolist(), cuts.second.tolist(), weights, strict=True):
        (first, entry), (second, target) = names[one], names[other]
        grouped.setdefault((first, second), []).append((entry, target, weight))
    return tuple(
        PairCuts(
            first=first,
            second=second,
            first_entries=tuple(entry for entry, _, _ in members),
            second_entries=tuple(target for _, target, _ in members),
            weights=np.concatenate([weight for _, _, weight in members]),
        )
        for (first, second), members in grouped.items()
    )


def _sort_blocks(assembly: Assembly, base: LmiRow, found: Found) -> dict[str, np.ndarray]:
    """The blocks by node: lower triangles over contrasts, which are sqrt(j(j+1)) as long."""
    arrays: dict[str, np.ndarray] = {}
    for group, blocks in zip(assembly.groups, found.blocks, strict=True):
        steps = torch.arange(1, blocks.shape[1] // 2 + 1, dtype=torch.float64)
        roots = (steps * (steps + 1)).rsqrt().repeat(2)
        scaled = blocks * roots[:, None] * roots * group.multipliers[:, None, None]
        row, column = group.blocks.triangle
        for (node, entry), values in zip(group.names, scaled[:, row, column], strict=True):
            count = len(base.multipliers[node])
            whole = arrays.setdefault(node, np.zeros(count * len(row)))
            whole[entry * len(row) : (entry + 1) * len(row)] = values.numpy()
    return arrays
