"""The operators of ai.onnx.ml that are affine: what is around an exported scikit-learn network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from verifier.checker.builder import Builder, scaled
from verifier.checker.enclosures import TINY, U
from verifier.checker.maps import identity
from verifier.checker.network import Term
from verifier.checker.operands import Call, Constant, Signal

ZIP_MAP = "ai.onnx.ml::ZipMap"


def scaler(builder: Builder, call: Call) -> Signal:
    """Scaler: (x - offset) scale, one number for all or one for each place of the last axis."""
    call.arity(1, 1)
    signal = call.signal(0)
    offset, scale = (
        np.array(call.list_of_numbers(name) or (absent,), dtype=np.float64)
        for name, absent in (("offset", 0.0), ("scale", 1.0))
    )
    width = signal.shape[-1] if signal.shape else 1
    # Of more axes than two, it is not said which one the features are.
    if not {offset.size, scale.size} <= ({1, width} if len(signal.shape) <= 2 else {1}):
        call.mismatch(f"{offset.size} offsets and {scale.size} scales for {width} features")
    factor = np.broadcast_to(scale, signal.shape).reshape(-1)
    bias = np.broadcast_to(-offset * scale, signal.shape).reshape(-1)
    rounding = Constant(bias, "float32", np.abs(bias) * U * (1 + 2 * U) + TINY)
    term = Term(signal.source, scaled(identity(signal.size), factor, None))
    return replace(builder.linear(call, signal.shape, [term], rounding), dtype="float32")


def zip_map(_builder: Builder, call: Call) -> Signal:
    """ZipMap: the same numbers, keyed by labels. Their order is the labels': ascending."""
    call.arity(1, 1)
    signal = call.signal(0)
    numbers = call.list_of_integers("classlabels_int64s")
    names = call.list_of_strings("classlabels_strings")
    if numbers and names:
        call.invalid("labels of two types")
    labels = numbers or names or ()
    if len(labels) != (signal.shape[-1] if signal.shape else 1):
        call.mismatch(f"{len(labels)} labels for shape {signal.shape[:8]}")
    if list(labels) != sorted(set(labels)):
        call.not_checkable("labels that do not ascend")
    return signal


__all__ = ["ZIP_MAP", "scaler", "zip_map"]
