"""The product tier: norms of convolutions, and its bounds: `python -m benchmarks.product`.

First table: random kernels of well-known layers. `sides` are the frequencies of each axis (a torus
that holds the image, or a coarser grid whose factor is in the bound), `over` is the bound over the
best of a fine sampling by another library's FFT and SVD, where that is affordable. Wanted: a second
or two for 512 channels.

Second table, with LIPCERT_SHARED: `old` is the product of layer norms as peers take it. Wanted:
never above it, and 1.0001 times the constant that 1-Lipschitz constructions promise where no
residual connection needs the semidefinite bound.
"""

from __future__ import annotations

import os
import time

import numpy as np

from benchmarks.table import Table
from benchmarks.yardsticks import answer, cases, ratio
from verifier.checker.maps import Convolution
from verifier.checker.stencils import Stencil
from verifier.checker.symbols import sampling, stencil_norm

#: (outputs, inputs of a group, width, image side, pad, stride, groups)
LAYERS = (
    (64, 3, 7, 224, 3, 2, 1),
    (64, 64, 3, 32, 1, 1, 1),
    (128, 64, 3, 32, 1, 2, 1),
    (128, 128, 3, 16, 1, 1, 1),
    (256, 256, 3, 8, 1, 1, 1),
    (256, 256, 3, 56, 1, 1, 1),
    (512, 512, 3, 4, 1, 1, 1),
    (512, 512, 3, 7, 1, 1, 1),
    (512, 512, 3, 14, 1, 1, 1),
    (512, 1, 3, 14, 1, 1, 512),
)
FINE = 96  #: frequencies of an axis for the reference
FINE_CHANNELS = 128  #: beyond so many channels it is not taken


def main() -> None:
    """Prints both tables."""
    convolutions()
    if "LIPCERT_SHARED" in os.environ:
        yardsticks()


def convolutions() -> None:
    """One row for each layer."""
    table = Table(layer=24, sides=12, bound=10, over=9, seconds=9)
    rng = np.random.default_rng(0)
    for outputs, inputs, width, side, pad, stride, groups in LAYERS:
        kernel = rng.standard_normal((outputs, inputs, width, width))
        stencil = Stencil.of(
            Convolution(
                kernel=kernel / np.sqrt(inputs * width**2),
                error=None,
                in_shape=(inputs * groups, side, side),
                pads=((pad, pad), (pad, pad)),
                strides=(stride, stride),
                dilations=(1, 1),
                groups=groups,
            )
        )
        started = time.perf_counter()
        bound = stencil_norm(stencil)
        spent = time.perf_counter() - started
        chosen = sampling(stencil)
        table.row(
            [
                f"{outputs}x{inputs}x{width}x{width} / {stride} on {side}",
                "-" if chosen is None else "x".join(map(str, chosen.sides)),
                bound,
                ratio(bound, _fine(stencil)),
                spent,
            ]
        )


def _fine(stencil: Stencil) -> float | None:
    """The greatest norm of a fine sampling; None where it takes too long."""
    outputs, inputs = stencil.kernel.shape[1:3]
    if FINE_CHANNELS < max(outputs, inputs) or any(axis.stride > 1 for axis in stencil.axes):
        return None
    symbol = np.fft.fft2(stencil.kernel, (FINE, FINE)).transpose(0, 3, 4, 1, 2)
    # By symmetry half of the frequencies are enough.
    return float(np.linalg.norm(symbol[:, : FINE // 2 + 1], 2, axis=(-2, -1)).max())


def yardsticks() -> None:
    """One row for each global case of the yardsticks."""
    table = Table(case=24, product=11, old=11, best_known=11, ratio=9, seconds=9, check_s=9)
    for case in cases("global"):
        given = answer(case, seconds=30.0, method="product")
        table.row(
            [
                case.name,
                given.refusal or given.bound,
                case.product_bound,
                case.best_known,
                ratio(given.bound, case.best_known),
                given.seconds,
                given.check_seconds,
            ]
        )


if __name__ == "__main__":
    main()
