"""The integers that a run time rounds to, where the network as understood does not round.

    the file      q - z = clip(round(v/s))                the network      clip(v)

A copy of the file that also puts out its integers is run: it has to give what the original bytes
give, bit for bit. The network's clip(v), computed from the run time's own integers of the nodes
before, has to round to the run time's q - z: with t what rounding in floats may have moved v by,

    round((clip(v) - t)/s) <= q - z <= round((clip(v) + t)/s).

From there on the network computes with s (q - z). So no half step is forgiven anywhere, and none
is carried on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from verifier.errors import ImportMismatch
from verifier.onnx_import.runtime import run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from verifier.onnx_import.ports import Port
    from verifier.onnx_import.runtime import Feed
    from verifier.onnx_import.values import Grid


@dataclass(frozen=True, slots=True)
class Integers:
    """The file with its integers among the outputs, and what they count."""

    grids: Mapping[str, Grid]
    data: bytes

    @staticmethod
    def of(data: bytes, grids: Mapping[str, Grid]) -> Integers:
        """Those of a file, of every node that has a grid."""
        return Integers(grids, _putting_out(data, [*grids]) if grids else b"")

    def met(
        self, feed: Feed, outputs: Sequence[Port], expected: np.ndarray
    ) -> Mapping[str, Tensor]:
        """By node the numbers q - z of every sample.

        Args:
            feed: the samples.
            outputs: those of the file that are compared.
            expected: their values, as the original bytes give them.
        """
        if not self.grids:
            return {}
        names = [port.name for port in outputs]
        found = run(self.data, feed, [*names, *self.grids])
        for port, values in zip(outputs, found, strict=False):
            if not np.array_equal(values, expected[:, slice(*port.place)], equal_nan=True):
                raise _refused(port.name, "changes when the file's integers are put out as well")
        counted = zip(self.grids.items(), found[len(names) :], strict=True)
        return {name: torch.from_numpy(values - grid.zero) for (name, grid), values in counted}

    def require_rounded(
        self, name: str, value: Tensor, counts: Tensor, tolerance: np.ndarray
    ) -> Tensor:
        """What the integers of a node count, once the network's values are known to round to them.

        Args:
            name: the node.
            value: its values in the network, a row for each sample.
            counts: the run time's q - z.
            tolerance: of every row.

        Raises:
            ImportMismatch: a value rounds to another integer.
        """
        grid, exact = self.grids[name], value.numpy()
        if exact.shape != tuple(counts.shape):
            raise _refused(name, f"has {counts.shape[1]} integers for {exact.shape[1]} numbers")
        ends = grid.least - grid.zero, grid.greatest - grid.zero
        least, greatest = (
            np.rint((exact + shift[:, None]) / grid.step).clip(*ends)
            for shift in (-tolerance, tolerance)
        )
        fits = (least <= counts.numpy()) & (counts.numpy() <= greatest)
        if not fits.all():
            row, column = np.argwhere(~fits)[0]
            raise _refused(
                name,
                f"is rounded to {float(counts[row, column]):g} steps where the network as "
                f"understood has {exact[row, column] / grid.step!r}",
            )
        return counts * grid.step


def _putting_out(data: bytes, names: Sequence[str]) -> bytes:
    """The file, with these tensors among its outputs."""
    import onnx  # only here: the file passed every rule, and a copy of it gets more outputs

    model: Any = onnx.load_model_from_string(data)
    made = {name for node in model.graph.node for name in node.output}
    for name in names:
        if name not in made:
            raise _refused(name, "is rounded inside of a function, where it cannot be compared")
    present = {value.name for value in model.graph.output}
    model.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in names if name not in present
    )
    return model.SerializeToString()


def _refused(name: str, what: str) -> ImportMismatch:
    return ImportMismatch(
        f"{name!r} {what}", node=name, fix="report the model, unless it is quantised in functions"
    )
