"""Which rule reads which operator, and which operators jump."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from verifier.checker import (
    activations,
    attention,
    block_operators,
    classical,
    contractions,
    length_operators,
    linear,
    placements,
    resampling,
    selections,
    windows,
)
from verifier.checker.builder import Builder
from verifier.checker.operands import Call, Signal

Rule: TypeAlias = Callable[[Builder, Call], Signal]

DISCONTINUOUS = frozenset(
    {"ArgMax", "ArgMin", "Ceil", "DequantizeLinear", "DynamicQuantizeLinear", "Floor", "Hardmax"}
    | {"IsInf", "IsNaN", "Mod", "NonZero", "OneHot", "QLinearConv", "QLinearMatMul"}
    | {"QuantizeLinear", "Round", "Sign", "Unique"}
)

RULES: Mapping[str, Rule] = {
    "Add": linear.add,
    "Attention": attention.attention,
    "AveragePool": windows.average_pool,
    "BatchNormalization": linear.batch_normalization,
    "Conv": windows.convolution,
    "ConvTranspose": windows.transposed_convolution,
    "DFT": contractions.fourier,
    "Einsum": contractions.einsum,
    "Gemm": linear.gemm,
    "GlobalAveragePool": linear.global_average_pool,
    "GlobalMaxPool": windows.global_max_pool,
    "MatMul": linear.matmul,
    "MaxPool": windows.max_pool,
    "Mean": linear.mean,
    "Neg": linear.negate,
    "ReduceMax": windows.reduce_max,
    "ReduceMean": linear.reduce_mean,
    "ReduceMin": windows.reduce_min,
    "ReduceSum": linear.reduce_sum,
    "Resize": resampling.resize,
    "Sub": linear.subtract,
    "Sum": linear.add,
    "TopK": selections.top_k,
    "Upsample": resampling.resize,
    "ai.onnx.ml::Scaler": classical.scaler,
    classical.ZIP_MAP: classical.zip_map,
    **activations.RULES,
    **block_operators.RULES,
    **length_operators.RULES,
    **placements.RULES,
}
